//! Everything that `semo` prints. A terminal may be gone, a pipe closed, a disk full: `println!` panics then, so nothing
//! here uses it, and clippy refuses it in this crate.
//!
//! `out!(…)?` is for what was asked for and goes to standard output; `note!(…)` is for words beside it, on standard
//! error, and is lost where nobody can read it.

use std::io::{ErrorKind, Write};

use crate::exit::{Exit, Failure};

/// Writes a line to standard output.
macro_rules! out {
    ($($words:tt)*) => { $crate::print::line(&format!($($words)*)) };
}
/// Writes a line to standard error, where that can be written.
macro_rules! note {
    ($($words:tt)*) => { $crate::print::aside(&format!($($words)*)) };
}
pub(crate) use {note, out};

/// Writes `text` and a line end to standard output.
pub fn line(text: &str) -> Result<(), Failure> {
    block(&format!("{text}\n"))
}

/// Writes `text` as it is to standard output.
pub fn block(text: &str) -> Result<(), Failure> {
    into(&mut std::io::stdout().lock(), text)
}

/// Writes `text` and a line end to standard error. Where even that fails there is nobody left to tell.
pub fn aside(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// In one piece, so that a reader who takes the first line only has taken it before the pipe closes.
fn into(writer: &mut impl Write, text: &str) -> Result<(), Failure> {
    let written = writer.write_all(text.as_bytes()).and_then(|()| writer.flush());
    written.map_err(|error| match error.kind() {
        // The reader has what it wanted (`semo tail | head`). There is nothing to say about it.
        ErrorKind::BrokenPipe => Failure::new(Exit::PipeClosed, "", ""),
        _ => Failure::new(
            Exit::Failed,
            format!("could not write to standard output: {error}"),
            "Check where the output goes, and whether the disk is full.",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_ends_quietly_and_a_full_disk_is_told() {
        let quiet = into(&mut Broken(ErrorKind::BrokenPipe), "x").unwrap_err();
        assert_eq!((quiet.exit, quiet.message.as_str()), (Exit::PipeClosed, ""));
        let told = into(&mut Broken(ErrorKind::StorageFull), "x").unwrap_err();
        assert_eq!(told.exit, Exit::Failed);
        assert!(told.message.contains("standard output"), "{}", told.message);
        let mut page = Vec::new();
        into(&mut page, "a\nb\n").unwrap();
        assert_eq!(page, b"a\nb\n");
    }
}

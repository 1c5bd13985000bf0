//! What a person types: a line, or a password that is not shown. Never from an argument, which `ps` shows.

use std::io::{BufRead, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::exit::{Exit, Failure};
use crate::world::World;

/// Longest line that is read, in bytes.
const LINE_MAX: u64 = 4_096;

/// Is there somebody to ask?
pub fn is_somebody_there() -> bool {
    std::io::stdin().is_terminal()
}

/// Asks for a line at the terminal; the question goes to standard error.
pub fn line(question: &str) -> Result<String, Failure> {
    ask(question);
    first_line()
}

/// From `SEMO_PASSWORD`, else typed unseen at the terminal, else the first line of standard input.
pub fn password(world: &World, question: &str) -> Result<String, Failure> {
    let password = match world.variable("SEMO_PASSWORD") {
        Some(password) => password.to_owned(),
        None if is_somebody_there() => unseen(question)?,
        None => first_line()?,
    };
    if password.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            "there is no password",
            "Type it, write it to standard input, or set SEMO_PASSWORD.",
        ));
    }
    Ok(password)
}

fn ask(question: &str) {
    // Where it cannot be shown, the answer is still read.
    let mut error = std::io::stderr().lock();
    let _ = write!(error, "{question}: ").and_then(|()| error.flush());
}

fn unread(error: &std::io::Error) -> Failure {
    Failure::of(Exit::Failed, error)
}

fn first_line() -> Result<String, Failure> {
    let mut text = String::new();
    let mut input = std::io::stdin().lock().take(LINE_MAX);
    input.read_line(&mut text).map_err(|error| unread(&error))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Shows what is typed again, whatever happened.
struct Restore(Termios);

impl Drop for Restore {
    fn drop(&mut self) {
        // A terminal that is gone needs none.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// Ctrl+C is read as a key meanwhile: as a signal it would leave the terminal as it is now.
fn unseen(question: &str) -> Result<String, Failure> {
    let before = tcgetattr(std::io::stdin()).map_err(|error| unread(&error.into()))?;
    let mut quiet = before.clone();
    quiet
        .local_modes
        .remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN);
    let restore = Restore(before);
    tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet).map_err(|error| unread(&error.into()))?;
    ask(question);
    let typed = keys(&mut std::io::stdin().lock());
    drop(restore);
    // The Enter that was typed is not shown either.
    crate::print::aside("");
    typed
}

fn keys(input: &mut impl BufRead) -> Result<String, Failure> {
    let mut typed = String::new();
    let mut bytes = Vec::new();
    for byte in input
        .bytes()
        .take(usize::try_from(LINE_MAX).unwrap_or(usize::MAX))
    {
        match byte.map_err(|error| unread(&error))? {
            b'\r' | b'\n' | 0x04 => return Ok(typed),
            0x03 => return Err(Failure::new(Exit::Cancelled, "given up", "")),
            // Backspace; Ctrl+U.
            0x08 | 0x7f => drop(typed.pop()),
            0x15 => typed.clear(),
            byte => bytes.push(byte),
        }
        // One character may come as several bytes.
        if let Ok(text) = std::str::from_utf8(&bytes) {
            typed.push_str(text);
            bytes.clear();
        }
    }
    Ok(typed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_what_was_typed_after_all_corrections() {
        let typed = |input: &str| keys(&mut input.as_bytes());
        assert_eq!(typed("wrong\u{15}päü\u{7f}ss\rmore").unwrap(), "päss");
        assert_eq!(typed("\u{7f}a\u{4}").unwrap(), "a");
        assert_eq!(typed("secret\u{3}").unwrap_err().exit, Exit::Cancelled);
    }
}

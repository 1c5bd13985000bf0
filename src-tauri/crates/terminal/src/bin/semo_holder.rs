//! `semo-holder <folder>`: holds one program in a terminal for the core at its standard input, and outlives that. It is
//! started by the core and by nobody else; what it does is [`terminal::hold`]. With `--version`, which `semo doctor`
//! asks for, it says its version and its protocol.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[allow(
    clippy::disallowed_methods,
    reason = "a program reads the environment, for its failpoints"
)]
fn main() -> ExitCode {
    let told = |fault: String, code: u8| {
        // Standard error is the log in its folder; where that cannot be written nobody can be told.
        let _ = writeln!(std::io::stderr(), "{fault}");
        ExitCode::from(code)
    };
    if let Err(fault) = terminal::failpoints::arm(|name| std::env::var(name).ok()) {
        return told(fault, 2);
    }
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), None) = (arguments.next(), arguments.next()) else {
        return told("semo-holder is started by semo, with a folder".to_owned(), 2);
    };
    if folder == "--version" {
        // Whoever asks and does not listen has no answer.
        let _ = writeln!(std::io::stdout(), "{}", terminal::holder_version());
        return ExitCode::SUCCESS;
    }
    match terminal::hold(&PathBuf::from(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => told(fault, 1),
    }
}

//! How the program ends: exit codes for scripts, one sentence and a hint for people.

use std::process::ExitCode;

use domain::fault::chain;

use crate::print::note;

/// Exit codes. Scripts rely on them; they never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It worked; for `send --wait`: the turn is done.
    Ok = 0,
    /// It failed.
    Failed = 1,
    /// The arguments or the settings are wrong (clap uses 2 as well).
    Usage = 2,
    /// The turn ended, but a sign of its completion is missing.
    Unconfirmed = 3,
    /// It was cancelled.
    Cancelled = 4,
    /// The office or the core cannot be reached, or is not running.
    Unreachable = 5,
    /// The wait was over before the end; the command goes on.
    StillRunning = 6,
    /// Nobody took the command in time.
    Expired = 7,
    /// Whoever read our output has closed it: 128 and the number of SIGPIPE, as other programs end then.
    PipeClosed = 141,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why the program ends early.
#[derive(Debug)]
pub struct Failure {
    /// The code.
    pub exit: Exit,
    /// What was attempted and why it failed; empty when there is nobody to tell.
    pub message: String,
    /// What the user can do; empty when there is nothing.
    pub hint: String,
}

impl Failure {
    /// Shorthand.
    pub fn new(exit: Exit, message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure {
            exit,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// A failure that is an error with causes.
    pub fn of(exit: Exit, error: &dyn std::error::Error) -> Failure {
        Failure::new(exit, chain(error), "")
    }

    /// Writes it to standard error and gives the exit code.
    pub fn tell(&self) -> ExitCode {
        if !self.message.is_empty() {
            note!("error: {}", self.message);
        }
        if !self.hint.is_empty() {
            note!("hint: {}", self.hint);
        }
        self.exit.into()
    }
}

//! What can be wrong with an agent program before and while it is started.

use std::io;
use std::path::PathBuf;

use terminal::TerminalError;

/// A fault around an agent program, with what the user can do about it.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The program is not on this machine, or not where we looked.
    #[error("the program `{program}` was not found ({searched}); {hint}")]
    NotInstalled {
        /// Its name.
        program: String,
        /// Where we looked.
        searched: String,
        /// How to get it.
        hint: String,
    },
    /// The program is there but does not answer as it should.
    #[error("{} does not work: {reason}; {hint}", program.display())]
    Broken {
        /// The program.
        program: PathBuf,
        /// What it said.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// The program could not be asked for its version.
    #[error("could not ask {} for its version", program.display())]
    Version {
        /// The program.
        program: PathBuf,
        /// Why.
        source: TerminalError,
    },
    /// A start-up file could not be written.
    #[error("could not write the start-up file {} for the agent program", path.display())]
    StartupFile {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A value cannot be given to the program.
    #[error("`{what}` cannot be passed to the agent program: {reason}")]
    BadValue {
        /// What.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

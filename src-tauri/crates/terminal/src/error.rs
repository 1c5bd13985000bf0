//! What can go wrong around a terminal, in words a user can act on.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A failed operation on a terminal or on a program that was run once.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// No PTY could be opened.
    #[error("could not open a pseudo terminal: {reason}; are too many terminals open on this machine?")]
    Open {
        /// The system's words.
        reason: String,
    },
    /// The program could not be started.
    #[error("could not start {} in {}: {reason}", program.display(), cwd.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Where it was to be started.
        cwd: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// A thread that serves the terminal could not be started.
    #[error("could not start a thread for the terminal of process {pid}")]
    Thread {
        /// The process; it has been killed again.
        pid: u32,
        /// The system's error.
        source: io::Error,
    },
    /// More bytes than one write may have.
    #[error("{bytes} bytes are more than the {max} that one write to a terminal may have")]
    TooMuch {
        /// What was asked for.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The program does not read its input. Proven: none of this input was typed, and none will be.
    #[error(
        "process {pid} has not taken its input for {} s; it may hang. The input was taken back: none of it was typed, \
         and none will be", waited.as_secs()
    )]
    Stuck {
        /// The process.
        pid: u32,
        /// How long we waited.
        waited: Duration,
    },
    /// The same, but the program has a part of the input, or its holder does not say: it may still be typed.
    #[error(
        "process {pid} has not taken its input for {} s; it may hang. The input, or the rest of it, may still be typed \
         when it reads again", waited.as_secs()
    )]
    Unsure {
        /// The process.
        pid: u32,
        /// How long we waited.
        waited: Duration,
    },
    /// The connection to the holder broke before it said what became of the input. There may be a new one by now.
    #[error(
        "the connection to the terminal of process {pid} broke while it was typed: whether the program has this input, or a \
         part of it, is not known"
    )]
    Unheard {
        /// The process.
        pid: u32,
    },
    /// The terminal is closed: its program has ended.
    #[error("the terminal of process {pid} is closed, because the program in it has ended")]
    Closed {
        /// The process.
        pid: u32,
    },
    /// We have let go of the terminal, or another core holds it now.
    #[error("the terminal of process {pid} is held by another core, or by none; this one has let go of it")]
    LetGo {
        /// The process.
        pid: u32,
    },
    /// No holder could be started.
    #[error("could not start a holder for {tag} with {}: {reason}", program.display())]
    Holder {
        /// The terminal it was for.
        tag: String,
        /// The holder's program.
        program: PathBuf,
        /// What went wrong, and what to do.
        reason: String,
    },
    /// The folder of the holders could not be read.
    #[error("could not list the holders in {}", dir.display())]
    Holders {
        /// The folder.
        dir: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Input could not be written.
    #[error("could not write to the terminal of process {pid}")]
    Write {
        /// The process.
        pid: u32,
        /// The system's error.
        source: io::Error,
    },
    /// The window size could not be changed.
    #[error("could not resize the terminal of process {pid} to {cols}x{rows}: {reason}")]
    Resize {
        /// The process.
        pid: u32,
        /// Columns asked for.
        cols: u16,
        /// Rows asked for.
        rows: u16,
        /// The system's words.
        reason: String,
    },
    /// A program that was run for its output did not end in time; it has been killed.
    #[error("{} did not end within {} s and was killed", program.display(), limit.as_secs())]
    TimedOut {
        /// The program.
        program: PathBuf,
        /// The limit.
        limit: Duration,
    },
    /// The output of a program that was run once could not be read.
    #[error("could not read the output of {}", program.display())]
    Output {
        /// The program.
        program: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The list of processes could not be read, so nothing can be said about what still runs.
    #[error("could not list the processes of this machine")]
    Processes {
        /// The system's error.
        source: io::Error,
    },
}

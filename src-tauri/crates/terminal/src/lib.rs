//! One PTY with one program in it: its bytes with absolute offsets, the screen they paint, its whole process tree,
//! and the proof that the tree is gone.
//!
//! Invariants: bytes are never decoded on their way to a viewer; nobody who watches can slow the program down;
//! an exit is reported only after the output before it; what a program prints is data and can neither panic us nor
//! reach the clipboard, a log or another window. This crate knows no agent program and no office. `session` is its
//! caller; `provider` reads the [`Screen`]s it makes.
//!
//! The program, its PTY and its output belong to a holder ([`Holders`], binary `semo-holder`), which outlives this
//! process; a [`Terminal`] is our end of the connection to it, with a copy of the output and the screen it paints.

mod again;
mod caught;
mod cells;
mod emulator;
mod engine;
mod error;
pub mod failpoints;
mod finding;
mod flood;
mod folder;
mod follow;
#[cfg(test)]
mod fuzz;
mod greeting;
mod history;
mod holder;
mod holders;
mod line;
mod memory;
mod once;
#[cfg(test)]
mod oracle;
mod painted;
mod process;
mod pty;
mod ring;
mod starting;
mod stop;
mod subscription;
mod wire;

pub use emulator::{Cursor, Screen, Size, Snapshot, TITLE_CHARS_MAX, paint};
pub use error::TerminalError;
pub use history::{HISTORY_BYTES_MAX, HISTORY_ROWS_MAX};
pub use holder::{hold, holder_version};
pub use holders::{ATTACH_WAIT_MAX, Held, Holders};
pub use memory::{TreeMemory, memory_of};
pub use once::{ONCE_OUTPUT_BYTES_MAX, OnceOutput, run_once};
pub use painted::{Colour, PaintedRow, Painter, Run, Style};
pub use process::{ProcessId, TREE_TAG_VARIABLE};
pub use pty::{Exit, SpawnSpec, Terminal, WRITE_BYTES_MAX, WRITE_QUEUE_MAX, Written};
pub use ring::{Output, RING_BYTES_MAX};
pub use stop::{StopProof, stop_left_behind};
pub use subscription::{CHUNK_BYTES_MAX, Seen, Subscription};

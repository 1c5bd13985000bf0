//! One agent program at work: a [`Session`] starts it, brings prompts into it, follows each turn to its end and
//! says what ended it and how that is known.
//!
//! Invariants: one actor owns a session's state and nobody else moves it; a turn ends exactly once; an end is
//! decided by `domain::turn`'s rules from hooks, transcript and status file, never from bytes of the terminal;
//! nothing is typed into a dialog; a cancelled turn is proven stopped. Calls on a [`Session`] never wait for its
//! actor, except those that say so. `client` is the caller.

mod actor;
mod ending;
mod error;
mod handle;
mod observe;
mod report;
mod submission;
mod turn;

pub use error::SessionError;
pub use handle::{HOOK_QUEUE_MAX, Session, SessionSpec, TURN_QUEUE_MAX, TurnRequest, WhichTurn};
pub use report::{SessionExit, SessionNote, TurnReport, TurnTimings};

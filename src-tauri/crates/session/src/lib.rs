//! One agent program at work: a [`Session`] starts it, brings prompts into it, follows each turn to its end and
//! says what ended it and how that is known.
//!
//! Invariants: one actor owns a session's state and nobody else moves it; a turn ends exactly once; an end is
//! decided by `domain::turn`'s rules from what [`follow::Follower`] makes of hooks, transcript and status file, never
//! from bytes of the terminal; nothing is typed into a dialog but the answer to this very dialog; a cancelled turn is
//! proven stopped; no Enter without its line in the journal, so that a session can be left to its holder at any moment
//! and taken up by another process. Calls on a [`Session`] never wait for its actor, except those that say so. `client` is the caller.

mod actor;
mod ending;
mod error;
pub mod follow;
mod git;
mod handle;
mod held;
mod left;
mod mark;
mod observe;
mod recognise;
pub mod replay;
mod report;
mod submission;

pub use domain::turn::NEVER_ENTERED;
pub use error::{SessionError, TAKEN_OVER};
pub use follow::{Explanation, LogEntry, ReadingView, TurnExplanation};
pub use handle::{HOOK_QUEUE_MAX, Session, SessionSpec, StartMode, TURN_QUEUE_MAX, TurnRequest, WhichTurn};
pub use held::HookReply;
pub use left::{LeftJudgement, LeftPlace, LeftTurn, judge_left};
pub use report::{SessionExit, SessionNote, TurnReport, TurnTimings};

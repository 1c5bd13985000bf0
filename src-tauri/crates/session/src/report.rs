//! What a session tells its owner.

use domain::ask::{AskEnd, PendingAsk};
use domain::evidence::Evidence;
use domain::session::SessionState;
use domain::turn::{Retry, TurnOutcome};
use domain::{AskId, SessionId, Timestamp, TurnId};
use serde::{Deserialize, Serialize};

/// When the parts of a turn happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnTimings {
    /// The turn was handed to the session.
    pub requested_at: Timestamp,
    /// The first byte of the prompt was written to the terminal.
    pub first_byte_at: Option<Timestamp>,
    /// From the hand-over to that byte, in microseconds of the monotonic clock; includes waiting for other turns.
    pub first_byte_after_us: Option<u64>,
    /// Enter was pressed.
    pub submitted_at: Option<Timestamp>,
    /// The agent acknowledged the prompt.
    pub acknowledged_at: Option<Timestamp>,
    /// The end was decided.
    pub ended_at: Timestamp,
}

/// One turn, carried to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnReport {
    /// The turn.
    pub turn: TurnId,
    /// How it ended.
    pub outcome: TurnOutcome,
    /// The agent's last message, where there was one.
    pub final_message: Option<String>,
    /// What backs the outcome.
    pub evidence: Evidence,
    /// When.
    pub timings: TurnTimings,
}

/// How a session's program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionExit {
    /// Its exit code; absent when a signal ended it.
    pub code: Option<i32>,
    /// Name of the signal that ended it.
    pub signal: Option<String>,
    /// We wanted it: somebody ended the session, or its turn could not be stopped in any other way.
    pub wanted: bool,
    /// The program's own id of the conversation it was in, where that is not the session's: `/clear` begins another.
    pub conversation: Option<SessionId>,
    /// The program's own words, when it ended before it was ready or with a fault it told: for a person.
    pub words: Option<String>,
}

/// News of a session. Several states in a row may be told as the last of them; ends of turns are never left out.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionNote {
    /// The session's state changed.
    State {
        /// The session.
        session: SessionId,
        /// Its state now.
        state: SessionState,
    },
    /// The session waits for a person; the state says so too. Told again under the same id when more is known.
    Asked {
        /// The session.
        session: SessionId,
        /// What for.
        ask: PendingAsk,
    },
    /// It does not wait for that any more. Told exactly once for every ask that was told.
    AskClosed {
        /// The session.
        session: SessionId,
        /// What it waited for.
        ask: AskId,
        /// How that ended.
        end: AskEnd,
    },
    /// A call of the provider's API failed and is tried again, or no more (`None`).
    Retrying {
        /// The session.
        session: SessionId,
        /// The newest try.
        retry: Option<Retry>,
    },
    /// A turn ended.
    TurnEnded {
        /// The session.
        session: SessionId,
        /// How.
        report: Box<TurnReport>,
    },
    /// A core of a later launch has taken the session over. The last note of a session: this core judges, reports and
    /// writes nothing of it any more, and does not start its program again. Its open turn is the other core's.
    TakenOver {
        /// The session.
        session: SessionId,
        /// For a person: what has happened, and what to do.
        words: String,
    },
    /// The program ended. The last note of a session.
    Exited {
        /// The session.
        session: SessionId,
        /// How.
        exit: SessionExit,
    },
}

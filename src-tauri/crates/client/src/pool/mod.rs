//! The pool's decisions, as functions of values: which session carries a prompt, who of those that wait is next, what
//! is kept warm, when an agent that keeps failing is left alone. No I/O, no clock; the loop carries out what is decided
//! here and is the only caller.

mod breaker;
mod place;
mod queue;
mod warm;

use domain::session::SessionState;
use domain::{AgentId, SessionId, Timestamp};

pub use breaker::Breaker;
pub use place::{Placement, Room, WaitsFor, Wish, needs_no_start, place, surplus, to_give_up};
pub use queue::{Waiting, order};
pub use warm::{WARM_AGE_MAX_MS, warm_steps};

/// What the decisions need to know of a session. All seats of one decision belong to one office: a session never
/// serves another one's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// The session.
    pub id: SessionId,
    /// Whose it is.
    pub agent: AgentId,
    /// The repository it works in.
    pub repository: String,
    /// Where it is in its life.
    pub state: SessionState,
    /// A command has it already, or waits for it to become ready.
    pub taken: bool,
    /// It was started ahead of need and nobody has used it yet.
    pub warm: bool,
    /// Its persona is not its agent's any more.
    pub stale: bool,
    /// When it was started.
    pub started_at: Timestamp,
    /// Since when it is idle.
    pub idle_since: Option<Timestamp>,
}

impl Seat {
    /// Whether it can be ended without anybody's work being lost: nobody has it, and nothing runs in it.
    fn can_go(&self) -> bool {
        !self.taken && (is_at_rest(&self.state) || (self.warm && self.state == SessionState::Starting))
    }
}

/// Nothing runs in it that anybody waits for: idle, or stuck at a question of its start (a sign-in, say).
pub fn is_at_rest(state: &SessionState) -> bool {
    match state {
        SessionState::Idle | SessionState::AwaitingPerson { turn: None, .. } => true,
        SessionState::Starting
        | SessionState::Working { .. }
        | SessionState::AwaitingPerson { turn: Some(_), .. }
        | SessionState::Stopping
        | SessionState::Exited { .. } => false,
    }
}

#[cfg(test)]
mod sample {
    use uuid::Uuid;

    use super::*;

    pub(super) const FE: AgentId = AgentId(Uuid::from_u128(1));
    pub(super) const BE: AgentId = AgentId(Uuid::from_u128(2));
    pub(super) const QA: AgentId = AgentId(Uuid::from_u128(3));

    pub(super) fn id(number: u128) -> SessionId {
        SessionId(Uuid::from_u128(number))
    }

    /// A session that was used, in `state`; taken unless it is idle or starts.
    pub(super) fn seat(number: u128, agent: AgentId, state: SessionState, idle_since: i64) -> Seat {
        Seat {
            id: id(number),
            agent,
            repository: "sample".into(),
            taken: !matches!(state, SessionState::Idle | SessionState::Starting),
            warm: false,
            stale: false,
            started_at: Timestamp(0),
            state,
            idle_since: Some(Timestamp(idle_since)),
        }
    }

    pub(super) fn warm(number: u128, agent: AgentId) -> Seat {
        Seat {
            warm: true,
            ..seat(number, agent, SessionState::Idle, 0)
        }
    }
}

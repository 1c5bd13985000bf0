//! Where a session is in its life.

use serde::{Deserialize, Serialize};

use crate::ids::TurnId;

/// State of a session. One owner, the session actor, moves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SessionState {
    /// Spawned; the agent has not shown its prompt yet. Moved on by readiness, a dialog or exit.
    Starting,
    /// The prompt is visible and no turn runs: the only state that accepts a turn.
    Idle,
    /// The agent is working on `turn`.
    Working {
        /// The turn it works on; absent when a person typed it.
        turn: Option<TurnId>,
    },
    /// The agent shows something only a person may answer: a permission, a question, a login.
    AwaitingPerson {
        /// The turn that waits; absent at start-up or when a person typed it.
        turn: Option<TurnId>,
        /// What it waits for.
        ask: Ask,
    },
    /// It is being ended; nothing new is accepted. Moved on by exit only.
    Stopping,
    /// The process ended; nothing moves it further.
    Exited {
        /// Exit code; absent when a signal ended it.
        code: Option<i32>,
    },
}

/// What a session waits for from a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// May it use a tool?
    Permission,
    /// A question of the agent's own.
    Question,
    /// The agent program is not signed in.
    Login,
    /// Any other dialog or menu (trust, limits …).
    Dialog,
}

/// What can happen to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// The input line is ready.
    Ready,
    /// A turn was submitted and acknowledged; `None`: by a person at the keyboard.
    TurnStarted {
        /// The turn.
        turn: Option<TurnId>,
    },
    /// The agent asks.
    Asked {
        /// For what.
        ask: Ask,
    },
    /// The ask was answered and the agent goes on.
    Answered,
    /// The turn came to its end, however.
    TurnEnded,
    /// We began to end the session.
    StopRequested,
    /// The process is gone.
    Exited {
        /// Exit code; absent when a signal ended it.
        code: Option<i32>,
    },
}

/// An event that makes no sense in a state. The owner logs it and keeps the state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} cannot happen in {state:?}")]
pub struct TransitionError {
    /// The state it was in.
    pub state: SessionState,
    /// What was said to have happened.
    pub event: SessionEvent,
}

impl SessionState {
    /// The state after `event`.
    pub fn after(&self, event: &SessionEvent) -> Result<SessionState, TransitionError> {
        use SessionEvent as E;
        use SessionState as S;
        let refused = || {
            Err(TransitionError {
                state: self.clone(),
                event: event.clone(),
            })
        };
        match (self, event) {
            (S::Exited { .. }, _) => refused(),
            (_, E::Exited { code }) => Ok(S::Exited { code: *code }),
            (_, E::StopRequested) => Ok(S::Stopping),
            (S::Stopping, _) => refused(),

            (S::Starting | S::Idle, E::Ready) => Ok(S::Idle),
            (S::AwaitingPerson { turn: None, .. }, E::Ready | E::Answered) => Ok(S::Idle),
            (S::AwaitingPerson { turn: Some(turn), .. }, E::Answered) => Ok(S::Working { turn: Some(*turn) }),
            (S::Idle, E::TurnStarted { turn }) => Ok(S::Working { turn: *turn }),
            // A person may take the keyboard while our own turn has not been acknowledged yet.
            (S::Working { turn: None }, E::TurnStarted { turn }) => Ok(S::Working { turn: *turn }),
            (S::Starting | S::Idle, E::Asked { ask }) => Ok(S::AwaitingPerson {
                turn: None,
                ask: *ask,
            }),
            (S::Working { turn } | S::AwaitingPerson { turn, .. }, E::Asked { ask }) => {
                Ok(S::AwaitingPerson {
                    turn: *turn,
                    ask: *ask,
                })
            }
            (S::Working { .. } | S::AwaitingPerson { .. }, E::TurnEnded) => Ok(S::Idle),

            (S::Starting, E::TurnStarted { .. } | E::Answered | E::TurnEnded)
            | (S::Idle, E::Answered | E::TurnEnded)
            | (S::Working { .. }, E::Ready | E::Answered | E::TurnStarted { .. })
            | (S::AwaitingPerson { .. }, E::Ready | E::TurnStarted { .. }) => refused(),
        }
    }

    /// Whether a turn may be submitted now.
    pub fn accepts_turn(&self) -> bool {
        matches!(self, SessionState::Idle)
    }

    /// Whether the process is known to be gone.
    pub fn is_over(&self) -> bool {
        matches!(self, SessionState::Exited { .. })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_session_goes_through_a_turn_with_a_permission_and_back_to_idle() {
        let turn = Some(TurnId(Uuid::from_u128(1)));
        let mut state = SessionState::Starting;
        for event in [
            SessionEvent::Ready,
            SessionEvent::TurnStarted { turn },
            SessionEvent::Asked { ask: Ask::Permission },
            SessionEvent::Answered,
            SessionEvent::TurnEnded,
        ] {
            state = state.after(&event).unwrap();
        }
        assert_eq!(state, SessionState::Idle);
    }

    #[test]
    fn nothing_moves_an_exited_session_and_a_stopping_one_only_exits() {
        let exited = SessionState::Exited { code: Some(0) };
        assert!(exited.after(&SessionEvent::Ready).is_err());
        assert!(SessionState::Stopping.after(&SessionEvent::Ready).is_err());
        assert_eq!(
            SessionState::Stopping
                .after(&SessionEvent::Exited { code: None })
                .unwrap(),
            SessionState::Exited { code: None }
        );
    }

    #[test]
    fn no_turn_starts_before_the_prompt_is_visible() {
        assert!(
            SessionState::Starting
                .after(&SessionEvent::TurnStarted { turn: None })
                .is_err()
        );
        assert!(!SessionState::Starting.accepts_turn());
    }
}

//! Why a session refuses something.

use domain::ask::AnswerFault;
use domain::{AskId, SessionId};
use provider::ProviderError;
use provider::claude::PromptFault;
use terminal::TerminalError;

/// What is told of a session that a core of a later launch holds.
pub const TAKEN_OVER: &str = "another SEMO Office on this computer took this session over; its agent works on there, \
                              and nothing is done with it here any more";

/// A failed call on a session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The agent program could not be prepared.
    #[error("could not prepare the agent program of session {session}")]
    Provider {
        /// The session.
        session: SessionId,
        /// Why.
        source: ProviderError,
    },
    /// Its terminal failed.
    #[error("the terminal of session {session} failed")]
    Terminal {
        /// The session.
        session: SessionId,
        /// Why.
        source: TerminalError,
    },
    /// The prompt cannot be submitted as it is.
    #[error("session {session} cannot take this prompt")]
    Prompt {
        /// The session.
        session: SessionId,
        /// Why.
        source: PromptFault,
    },
    /// The agent program waits for a person, so nothing may be typed into it.
    #[error("session {session} cannot take a prompt now: {what_to_do}")]
    AwaitingPerson {
        /// The session.
        session: SessionId,
        /// What a person must do.
        what_to_do: String,
    },
    /// The answer does not fit what was asked.
    #[error("the answer does not fit what session {session} asks")]
    Answer {
        /// The session.
        session: SessionId,
        /// Why.
        source: AnswerFault,
    },
    /// The ask is closed: somebody was faster, or the agent does not ask any more.
    #[error("this was {how} already; nothing was done")]
    AskOver {
        /// The session.
        session: SessionId,
        /// The ask.
        ask: AskId,
        /// How it was closed, in words.
        how: String,
    },
    /// The ask cannot be answered from afar now.
    #[error(
        "{ask} of session {session} cannot be answered from here: {why}; answer it in the session's terminal"
    )]
    NotAnswerable {
        /// The session.
        session: SessionId,
        /// The ask.
        ask: AskId,
        /// Why.
        why: &'static str,
    },
    /// The key of an answer was given up, and it is not proven that it was not taken. The ask stays open.
    #[error(
        "whether the answer to {ask} of session {session} was typed is not known: {why}; look at the session's terminal, \
         and answer again if it still asks"
    )]
    AnswerUnsure {
        /// The session.
        session: SessionId,
        /// The ask.
        ask: AskId,
        /// Why.
        why: String,
    },
    /// There is no conversation to take up again.
    #[error("session {session} cannot be taken up again: {why}")]
    NothingToResume {
        /// The session.
        session: SessionId,
        /// Why.
        why: String,
    },
    /// More turns wait than a session takes.
    #[error("{max} turns wait in session {session} already; try again when one of them has ended")]
    QueueFull {
        /// The session.
        session: SessionId,
        /// The limit.
        max: usize,
    },
    /// The program could not be ended.
    #[error("session {session} could not be ended: {reason}")]
    NotEnded {
        /// The session.
        session: SessionId,
        /// Why.
        reason: String,
    },
    /// Another core holds the session.
    #[error("{}", TAKEN_OVER)]
    TakenOver {
        /// The session.
        session: SessionId,
    },
    /// The session is being ended or has ended.
    #[error("session {session} has ended or is being ended")]
    Over {
        /// The session.
        session: SessionId,
    },
}

impl SessionError {
    /// Whether it proves that none of the keys that were to be pressed was, and none will be. A connection that is lost
    /// behind them proves nothing.
    #[must_use]
    pub fn no_key_was_pressed(&self) -> bool {
        match self {
            SessionError::Terminal { source, .. } => is_never_typed(source),
            SessionError::Over { .. } | SessionError::QueueFull { .. } => true,
            SessionError::Provider { .. }
            | SessionError::Prompt { .. }
            | SessionError::AwaitingPerson { .. }
            | SessionError::Answer { .. }
            | SessionError::AskOver { .. }
            | SessionError::NotAnswerable { .. }
            | SessionError::AnswerUnsure { .. }
            | SessionError::NothingToResume { .. }
            | SessionError::NotEnded { .. }
            | SessionError::TakenOver { .. } => false,
        }
    }
}

/// Whether none of this input was typed, and none will be.
pub(crate) fn is_never_typed(error: &TerminalError) -> bool {
    matches!(error, TerminalError::Stuck { .. } | TerminalError::TooMuch { .. })
}

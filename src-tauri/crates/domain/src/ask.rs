//! Permissions and questions that an agent puts to people, and their answers.
//!
//! An ask belongs to one session and is closed exactly once: by the first answer, or because the agent does not ask
//! any more (its turn was interrupted, it was answered at its own terminal, it ended).

use serde::{Deserialize, Serialize};

use crate::ids::{AskId, SessionId, TurnId};
use crate::session::Ask;
use crate::time::Timestamp;

/// Longest message that goes with an answer, in bytes.
pub const ANSWER_MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// Most choices that are kept of one question.
pub const CHOICES_MAX: usize = 16;

/// Something an agent waits for a person to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingAsk {
    /// Its id; made by the client.
    pub id: AskId,
    /// The session that waits.
    pub session: SessionId,
    /// The turn that waits; absent when a person typed it, or at start-up.
    pub turn: Option<TurnId>,
    /// What kind of ask it is.
    pub kind: Ask,
    /// The tool it wants to use, for a permission.
    pub tool: Option<String>,
    /// What a person needs to know to answer: the command, the file, the question. One to a few lines of plain text.
    pub text: String,
    /// What may be chosen, in the agent's order; empty when a yes or no is asked for.
    pub choices: Vec<String>,
    /// When it came up.
    pub asked_at: Timestamp,
    /// Only the session's terminal can answer it: what stands there cannot be told from another ask's with certainty.
    #[serde(default)]
    pub at_terminal: bool,
}

impl PendingAsk {
    /// Whether it can be answered from afar. A sign-in or an unknown dialog needs a person at the terminal.
    pub fn is_answerable(&self) -> bool {
        match self.kind {
            Ask::Permission | Ask::Question => !self.at_terminal,
            Ask::Login | Ask::Dialog => false,
        }
    }
}

/// What a person says to an ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case", deny_unknown_fields)]
pub enum AskAnswer {
    /// It may, this once.
    Allow,
    /// It may not.
    Deny {
        /// Why, for the agent; may be empty.
        #[serde(default)]
        message: String,
    },
    /// One of the choices of a question.
    Choose {
        /// Its place in [`PendingAsk::choices`], from 0.
        choice: usize,
    },
}

/// Why an answer does not fit its ask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    /// Only a person at the terminal can answer it.
    #[error("this can only be answered at the session's own terminal")]
    OnlyAtTerminal,
    /// A question wants a choice; a permission wants allow or deny.
    #[error("a {ask} cannot be answered with `{answer}`; {instead}")]
    WrongKind {
        /// `permission` or `question`.
        ask: &'static str,
        /// `allow`, `deny` or `choose`.
        answer: &'static str,
        /// What would be right.
        instead: &'static str,
    },
    /// There is no such choice.
    #[error("there is no choice {choice}; it has {count}, counted from 0")]
    NoSuchChoice {
        /// The choice that was named.
        choice: usize,
        /// How many there are.
        count: usize,
    },
    /// The message is too long.
    #[error("the message has {bytes} bytes; at most {ANSWER_MESSAGE_BYTES_MAX} are accepted")]
    MessageTooLong {
        /// Its length.
        bytes: usize,
    },
}

impl AskAnswer {
    /// Whether this is an answer to that ask.
    pub fn check(&self, ask: &PendingAsk) -> Result<(), AnswerFault> {
        match (ask.kind, self) {
            (Ask::Login | Ask::Dialog, _) => Err(AnswerFault::OnlyAtTerminal),
            (_, AskAnswer::Deny { message }) if message.len() > ANSWER_MESSAGE_BYTES_MAX => {
                Err(AnswerFault::MessageTooLong { bytes: message.len() })
            }
            // A question may be turned down as well: the agent goes on without an answer.
            (Ask::Permission, AskAnswer::Allow | AskAnswer::Deny { .. }) => Ok(()),
            (Ask::Question, AskAnswer::Deny { .. }) => Ok(()),
            (Ask::Permission, AskAnswer::Choose { .. }) => Err(AnswerFault::WrongKind {
                ask: "permission",
                answer: "choose",
                instead: "say allow or deny",
            }),
            (Ask::Question, AskAnswer::Allow) => Err(AnswerFault::WrongKind {
                ask: "question",
                answer: "allow",
                instead: "choose one of its choices, or deny",
            }),
            (Ask::Question, AskAnswer::Choose { choice }) if *choice >= ask.choices.len() => {
                Err(AnswerFault::NoSuchChoice {
                    choice: *choice,
                    count: ask.choices.len(),
                })
            }
            (Ask::Question, AskAnswer::Choose { .. }) => Ok(()),
        }
    }
}

/// Who answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answerer {
    /// By which way the answer came.
    pub way: AnswerWay,
    /// The user's id, the command's id, or the name of the program; empty when it is not known.
    pub who: String,
}

/// Ways by which an answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerWay {
    /// A window or browser of this workstation.
    Window,
    /// The program `semo` on this workstation.
    Cli,
    /// Keys in the session's own terminal.
    Terminal,
    /// A command of the office (`approve`).
    Command,
}

/// How an ask was closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum AskEnd {
    /// Somebody answered. The answer itself is not known when it was given at the terminal.
    Answered {
        /// What was said.
        answer: Option<AskAnswer>,
        /// By whom.
        by: Answerer,
    },
    /// The agent does not wait any more, and nobody answered.
    Withdrawn {
        /// Why: the turn was interrupted, the session ended …
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn ask(kind: Ask, choices: &[&str]) -> PendingAsk {
        PendingAsk {
            id: AskId(Uuid::from_u128(1)),
            session: SessionId(Uuid::from_u128(2)),
            turn: None,
            kind,
            tool: None,
            text: "may it?".into(),
            choices: choices.iter().map(|choice| (*choice).to_owned()).collect(),
            asked_at: Timestamp(0),
            at_terminal: false,
        }
    }

    #[test]
    fn an_answer_must_fit_its_ask() {
        let deny = AskAnswer::Deny {
            message: String::new(),
        };
        let permission = ask(Ask::Permission, &[]);
        assert_eq!(AskAnswer::Allow.check(&permission), Ok(()));
        assert_eq!(deny.check(&permission), Ok(()));
        assert!(AskAnswer::Choose { choice: 0 }.check(&permission).is_err());
        let question = ask(Ask::Question, &["red", "blue"]);
        assert_eq!(AskAnswer::Choose { choice: 1 }.check(&question), Ok(()));
        assert!(matches!(
            AskAnswer::Choose { choice: 2 }.check(&question),
            Err(AnswerFault::NoSuchChoice { choice: 2, count: 2 })
        ));
        assert!(AskAnswer::Allow.check(&question).is_err());
        assert_eq!(deny.check(&question), Ok(()));
        for kind in [Ask::Login, Ask::Dialog] {
            assert_eq!(
                AskAnswer::Allow.check(&ask(kind, &[])),
                Err(AnswerFault::OnlyAtTerminal)
            );
        }
    }

    #[test]
    fn an_answer_travels_as_a_small_object() {
        let text = serde_json::json!({"say": "deny", "message": "not on main"});
        let answer: AskAnswer = serde_json::from_value(text).unwrap();
        assert_eq!(
            answer,
            AskAnswer::Deny {
                message: "not on main".into()
            }
        );
        assert!(serde_json::from_value::<AskAnswer>(serde_json::json!({"say": "maybe"})).is_err());
    }
}

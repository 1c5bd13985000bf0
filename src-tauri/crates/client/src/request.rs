//! What a person at a window, or the CLI through the local API, may ask of the core, and the answers.

use domain::ask::AskAnswer;
use domain::command::MarkerWish;
use domain::{AgentId, AskId, CommandId, OfficeId, SessionId};
use serde::{Deserialize, Serialize};
use session::Explanation;
use ts_rs::TS;

use crate::view::{PreservedView, ProfileKind};

/// A request to the core. On the wire: `POST /api/v1/rpc/<method>` with the fields as a JSON object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(
    tag = "method",
    content = "params",
    rename_all = "snake_case",
    deny_unknown_fields
)]
pub enum Request {
    /// Serve another office of the signed-in user.
    SelectOffice {
        /// The office.
        office_id: OfficeId,
    },
    /// Enqueue `create_session` for an agent.
    CreateSession {
        /// The agent.
        agent_id: AgentId,
        /// Name of a repository; the default one when absent.
        #[serde(default)]
        repository: Option<String>,
    },
    /// Enqueue `send_prompt`, for an agent or for one session.
    SendPrompt {
        /// The agent.
        #[serde(default)]
        agent_id: Option<AgentId>,
        /// The session.
        #[serde(default)]
        session_id: Option<SessionId>,
        /// The text.
        prompt: String,
        /// The sign of completion to ask for.
        #[serde(default)]
        marker: MarkerWish,
        /// Name of a repository for a session that has to be started.
        #[serde(default)]
        repository: Option<String>,
    },
    /// Interrupt the turn that runs in a session of this machine.
    CancelTurn {
        /// The session.
        session_id: SessionId,
    },
    /// Cancel a command of the office.
    CancelCommand {
        /// The command.
        command_id: CommandId,
    },
    /// Enqueue `terminate` for a session.
    Terminate {
        /// The session.
        session_id: SessionId,
    },
    /// Answer a permission or a question, of a session here or elsewhere in the office.
    AnswerAsk {
        /// The ask.
        ask_id: AskId,
        /// What is said to it.
        answer: AskAnswer,
        /// By which way it comes.
        #[serde(default)]
        way: PersonsWay,
    },
    /// Tell how a session of this machine came to what it says of its turns.
    Explain {
        /// The session.
        session_id: SessionId,
    },
    /// List the kept states of worktrees, of all repositories.
    ListPreserved {},
    /// Put a kept state into a new branch.
    RestorePreserved {
        /// Name of the repository.
        repository: String,
        /// Name of the kept state: the id of its session.
        name: String,
        /// The branch to make.
        to_branch: String,
    },
    /// Read the office anew, and try again whatever waits for a retry.
    Refresh {},
    /// Sign in to a team's project or hub, and serve it from now on. What is left empty is as the settings have it.
    SignIn {
        /// Its address.
        #[serde(default)]
        url: String,
        /// Its publishable key.
        #[serde(default)]
        publishable_key: String,
        /// The account.
        #[serde(default)]
        email: String,
        /// Its password; it goes to the project and nowhere else.
        password: Password,
    },
    /// End the sign-in at the team's project.
    SignOut {},
    /// Serve the office of this machine, or the team's with the sign-in that there is.
    UseProfile {
        /// Which.
        profile: ProfileKind,
    },
    /// Make an office at the team's project, with a few agents to begin with.
    MakeOffice {
        /// Its name.
        name: String,
    },
}

/// A password on its way to a project. Never shown, not in errors either.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// The text, for the request that carries it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Password {
    fn from(text: String) -> Password {
        Password(text)
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Password, D::Error> {
        // The library's own words would repeat what stands there.
        String::deserialize(from)
            .map(Password)
            .map_err(|_| serde::de::Error::custom("`password` is no text"))
    }
}

/// Ways by which a person of this workstation speaks to the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PersonsWay {
    /// A window or browser.
    #[default]
    Window,
    /// The program `semo`.
    Cli,
}

/// Answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, TS)]
pub struct Answer {
    /// The command that was enqueued, where one was.
    pub command_id: Option<String>,
    /// How a session came to what it says of its turns (`explain`).
    #[ts(type = "Explanation | null")]
    pub explanation: Option<Explanation>,
    /// The kept states of worktrees, newest first (`list_preserved`).
    pub preserved: Option<Vec<PreservedView>>,
    /// What was done, in words.
    pub note: Option<String>,
}

impl Answer {
    /// A command was enqueued, or this one was dealt with.
    pub fn command(id: CommandId) -> Answer {
        Answer {
            command_id: Some(id.to_string()),
            ..Answer::default()
        }
    }

    /// It is done.
    pub fn note(note: impl Into<String>) -> Answer {
        Answer {
            note: Some(note.into()),
            ..Answer::default()
        }
    }
}

/// A request that was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// For decisions of the caller.
    pub code: ErrorCode,
    /// What was attempted, on what, and why it failed.
    pub message: String,
    /// What the user can do; empty when there is nothing.
    pub hint: String,
    /// Where the person has to look again, when it is something that was typed.
    pub field: Option<SignInField>,
}

/// What is typed to sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "as named")]
pub enum SignInField {
    Url,
    Key,
    Email,
    Password,
}

/// Codes that a caller tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request itself is wrong.
    Invalid,
    /// Token missing or wrong.
    Unauthorized,
    /// The user may not do this in the office.
    Forbidden,
    /// No such session, agent, command or office.
    NotFound,
    /// It makes no sense in the present state.
    Conflict,
    /// The office cannot be reached now.
    Unreachable,
    /// The core is stopping or not yet connected.
    NotReady,
    /// A fault of ours.
    Internal,
}

impl RequestError {
    /// Shorthand.
    pub fn new(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> RequestError {
        RequestError {
            code,
            message: message.into(),
            hint: hint.into(),
            field: None,
        }
    }

    /// The same, because of what stands in this field.
    #[must_use]
    pub fn at(self, field: impl Into<Option<SignInField>>) -> RequestError {
        RequestError {
            field: field.into(),
            ..self
        }
    }
}

impl Request {
    /// Reads the method and the JSON body of a call.
    pub fn parse(method: &str, body: &[u8]) -> Result<Request, RequestError> {
        let invalid = |reason: String| {
            RequestError::new(
                ErrorCode::Invalid,
                format!("`{method}` cannot be understood: {reason}"),
                "",
            )
        };
        let params: serde_json::Value = if body.is_empty() {
            serde_json::json!({})
        } else {
            serde_json::from_slice(body).map_err(|error| invalid(error.to_string()))?
        };
        serde_json::from_value(serde_json::json!({ "method": method, "params": params }))
            .map_err(|error| invalid(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_in_no_error_and_in_no_log() {
        let read = Request::parse("sign_in", br#"{"password":"topsecret"}"#).unwrap();
        assert!(matches!(&read, Request::SignIn { password, .. } if password.reveal() == "topsecret"));
        assert!(!format!("{read:?}").contains("topsecret"), "{read:?}");
        for body in [
            r#"{"password":31415926}"#,
            r#"{"password":["31415926"]}"#,
            r#"{"email":"a@b.c"}"#,
            r#"{"password":"31415926","url":7}"#,
        ] {
            let error = Request::parse("sign_in", body.as_bytes()).unwrap_err();
            assert!(!format!("{error:?}").contains("31415926"), "{error:?}");
        }
    }

    #[test]
    fn a_call_is_read_and_a_wrong_one_is_named() {
        let id = "6f6c3c1e-0000-4000-8000-000000000001";
        let body = format!(r#"{{"session_id":"{id}"}}"#);
        assert_eq!(
            Request::parse("cancel_turn", body.as_bytes()).unwrap(),
            Request::CancelTurn {
                session_id: id.parse().unwrap()
            }
        );
        assert_eq!(Request::parse("refresh", b"").unwrap(), Request::Refresh {});
        for (method, body, expected) in [
            ("reboot", "{}", "reboot"),
            ("cancel_turn", "{}", "session_id"),
            ("send_prompt", "{", "EOF"),
            ("refresh", r#"{"now":1}"#, "now"),
        ] {
            let error = Request::parse(method, body.as_bytes()).unwrap_err();
            assert_eq!(error.code, ErrorCode::Invalid);
            assert!(error.message.contains(expected), "{}", error.message);
        }
    }
}

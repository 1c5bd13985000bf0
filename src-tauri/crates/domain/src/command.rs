//! What an office may be told to do: the kinds of `agent_commands` and the shape of their `args`.
//!
//! A row that does not parse is an outside fault, never ours: it is completed as failed with the text of
//! [`CommandFault`], and the client goes on.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ask::{ANSWER_MESSAGE_BYTES_MAX, AskAnswer};
use crate::ids::{AskId, CommandId, SessionId};

/// Longest prompt that is accepted, in bytes.
pub const PROMPT_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of raw keys in one `send_keys`.
pub const KEYS_BYTES_MAX: usize = 4 * 1024;
/// Longest a turn may take when the command names no limit, in seconds.
pub const TURN_TIMEOUT_S_DEFAULT: u64 = 3_600;
/// Longest a turn may ask for, in seconds (one day).
pub const TURN_TIMEOUT_S_MAX: u64 = 86_400;

/// A command, parsed. The row's agent and session travel beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Start a session for the command's agent and report it when it is ready.
    CreateSession(CreateSession),
    /// Carry one prompt to its end.
    SendPrompt(SendPrompt),
    /// Press keys in a session's terminal, without waiting for an end.
    SendKeys(SendKeys),
    /// Interrupt the turn of a session, or the work of another command.
    Cancel(Cancel),
    /// Return a session's output.
    GetOutput(GetOutput),
    /// Return the sessions of the office on this client.
    ListSessions,
    /// End a session for good.
    Terminate(Terminate),
    /// Answer a permission or a question that a session waits with.
    Approve(Approve),
}

/// Arguments of `create_session`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CreateSession {
    /// Name of one of the client's repositories; its default repository when absent.
    pub repository: Option<String>,
    /// Branch, tag or commit the worktree starts from; the repository's HEAD when absent.
    pub base: Option<String>,
}

/// Arguments of `send_prompt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendPrompt {
    /// The text for the agent.
    pub prompt: String,
    /// The session to use; absent: a session of the command's agent, started if there is none.
    #[serde(default)]
    pub session: Option<SessionId>,
    /// Which sign of completion the agent's final message must carry.
    #[serde(default)]
    pub marker: MarkerWish,
    /// Limit for the whole turn, in seconds.
    #[serde(default)]
    pub timeout_s: Option<u64>,
    /// Repository for a session that has to be started.
    #[serde(default)]
    pub repository: Option<String>,
}

/// Which completion marker a prompt asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkerWish {
    /// `[SEMO:DONE]` alone on the last line.
    #[default]
    Plain,
    /// `[SEMO:DONE <code>]` with a code made for this very turn.
    Code,
    /// None: the end of the turn is taken as the end of the work.
    None,
}

/// Arguments of `send_keys`: either text as typed, or named keys in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendKeys {
    /// The session whose terminal gets the keys.
    pub session: SessionId,
    /// Text, sent as it is (no line end is added).
    #[serde(default)]
    pub text: String,
    /// Keys pressed after the text.
    #[serde(default)]
    pub keys: Vec<Key>,
}

/// A key by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each is the key of its name")]
pub enum Key {
    Enter,
    Escape,
    Tab,
    Backspace,
    Up,
    Down,
    Left,
    Right,
    CtrlC,
    CtrlD,
    CtrlU,
}

impl Key {
    /// The bytes a terminal sends for this key.
    pub fn bytes(self) -> &'static [u8] {
        match self {
            Key::Enter => b"\r",
            Key::Escape => b"\x1b",
            Key::Tab => b"\t",
            Key::Backspace => b"\x7f",
            Key::Up => b"\x1b[A",
            Key::Down => b"\x1b[B",
            Key::Right => b"\x1b[C",
            Key::Left => b"\x1b[D",
            Key::CtrlC => b"\x03",
            Key::CtrlD => b"\x04",
            Key::CtrlU => b"\x15",
        }
    }
}

/// Arguments of `cancel`: a session (its turn now running) or a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// The session whose turn is to be interrupted.
    #[serde(default)]
    pub session: Option<SessionId>,
    /// The command whose work is to be stopped.
    #[serde(default)]
    pub command: Option<CommandId>,
}

/// Arguments of `get_output`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetOutput {
    /// The session.
    pub session: SessionId,
    /// What to return.
    #[serde(default)]
    pub format: OutputFormat,
    /// For `ansi`: the absolute byte offset to start from.
    #[serde(default)]
    pub since: Option<u64>,
}

/// Forms in which output is returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputFormat {
    /// The visible screen, as lines of text.
    #[default]
    Screen,
    /// The raw bytes with their escape sequences, from `since`.
    Ansi,
}

/// Arguments of `terminate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terminate {
    /// The session to end.
    pub session: SessionId,
}

/// Arguments of `approve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approve {
    /// The session that waits.
    pub session: SessionId,
    /// The ask that is answered; the one that the session waits with when absent. Whoever has read what is asked
    /// should name it: an answer must not meet a later question.
    #[serde(default)]
    pub ask: Option<AskId>,
    /// What is said.
    pub answer: AskAnswer,
}

/// Why a row of `agent_commands` is not a command of ours. The text goes into the result row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandFault {
    /// The kind is none that this client knows.
    #[error(
        "unknown command kind `{kind}`; this client knows create_session, send_prompt, send_keys, cancel, get_output, list_sessions, terminate, approve"
    )]
    UnknownKind {
        /// The kind as it came.
        kind: String,
    },
    /// The arguments do not have the shape of the kind.
    #[error("malformed arguments of `{kind}`: {reason}")]
    Malformed {
        /// The kind.
        kind: String,
        /// What is wrong with which field.
        reason: String,
    },
}

impl Command {
    /// Reads the `kind` and `args` columns of a row.
    pub fn parse(kind: &str, args: &Value) -> Result<Command, CommandFault> {
        let command = match kind {
            "create_session" => Command::CreateSession(read(kind, args)?),
            "send_prompt" => Command::SendPrompt(read(kind, args)?),
            "send_keys" => Command::SendKeys(read(kind, args)?),
            "cancel" => Command::Cancel(read(kind, args)?),
            "get_output" => Command::GetOutput(read(kind, args)?),
            "list_sessions" => Command::ListSessions,
            "terminate" => Command::Terminate(read(kind, args)?),
            "approve" => Command::Approve(read(kind, args)?),
            other => return Err(CommandFault::UnknownKind { kind: clipped(other) }),
        };
        command.check().map_err(|reason| CommandFault::Malformed {
            kind: kind.to_owned(),
            reason,
        })?;
        Ok(command)
    }

    /// The kind as it stands in the database.
    pub fn kind(&self) -> &'static str {
        match self {
            Command::CreateSession(_) => "create_session",
            Command::SendPrompt(_) => "send_prompt",
            Command::SendKeys(_) => "send_keys",
            Command::Cancel(_) => "cancel",
            Command::GetOutput(_) => "get_output",
            Command::ListSessions => "list_sessions",
            Command::Terminate(_) => "terminate",
            Command::Approve(_) => "approve",
        }
    }

    /// What the shape alone cannot say.
    fn check(&self) -> Result<(), String> {
        match self {
            Command::SendPrompt(args) => {
                if args.prompt.trim().is_empty() {
                    return Err("`prompt` is empty".to_owned());
                }
                if args.prompt.len() > PROMPT_BYTES_MAX {
                    return Err(format!(
                        "`prompt` has {} bytes; at most {PROMPT_BYTES_MAX} are accepted",
                        args.prompt.len()
                    ));
                }
                match args.timeout_s {
                    Some(0) => Err("`timeout_s` is 0".to_owned()),
                    Some(s) if s > TURN_TIMEOUT_S_MAX => Err(format!(
                        "`timeout_s` is {s}; at most {TURN_TIMEOUT_S_MAX} is accepted"
                    )),
                    Some(_) | None => Ok(()),
                }
            }
            Command::SendKeys(args) => {
                if args.text.is_empty() && args.keys.is_empty() {
                    return Err("neither `text` nor `keys` is given".to_owned());
                }
                if args.text.len() > KEYS_BYTES_MAX || args.keys.len() > KEYS_BYTES_MAX {
                    return Err(format!("more than {KEYS_BYTES_MAX} bytes of keys"));
                }
                Ok(())
            }
            Command::Cancel(args) => match (args.session, args.command) {
                (None, None) => Err("neither `session` nor `command` is given".to_owned()),
                (Some(_), Some(_)) => Err("both `session` and `command` are given; name one".to_owned()),
                (Some(_), None) | (None, Some(_)) => Ok(()),
            },
            Command::Approve(args) => match &args.answer {
                AskAnswer::Deny { message } if message.len() > ANSWER_MESSAGE_BYTES_MAX => Err(format!(
                    "`message` has {} bytes; at most {ANSWER_MESSAGE_BYTES_MAX} are accepted",
                    message.len()
                )),
                AskAnswer::Allow | AskAnswer::Deny { .. } | AskAnswer::Choose { .. } => Ok(()),
            },
            Command::CreateSession(_)
            | Command::GetOutput(_)
            | Command::ListSessions
            | Command::Terminate(_) => Ok(()),
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(kind: &str, args: &Value) -> Result<T, CommandFault> {
    T::deserialize(args).map_err(|error| CommandFault::Malformed {
        kind: kind.to_owned(),
        reason: error.to_string(),
    })
}

/// Outside text is repeated in our messages only up to a length that cannot hurt a log or a screen.
fn clipped(text: &str) -> String {
    const CHARS_MAX: usize = 64;
    let mut short: String = text.chars().filter(|c| !c.is_control()).take(CHARS_MAX).collect();
    if text.chars().count() > CHARS_MAX {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_prompt_is_read_with_its_defaults() {
        let command = Command::parse("send_prompt", &json!({"prompt": "안녕"})).unwrap();
        let Command::SendPrompt(args) = command else {
            panic!("a prompt")
        };
        assert_eq!(
            (args.marker, args.session, args.timeout_s),
            (MarkerWish::Plain, None, None)
        );
    }

    #[test]
    fn what_nobody_can_parse_gets_a_reason_that_names_the_field() {
        let check = |kind: &str, args: Value, expected: &str| {
            let fault = Command::parse(kind, &args).unwrap_err().to_string();
            assert!(fault.contains(expected), "{fault} should name {expected}");
        };
        check("reboot", json!({}), "unknown command kind `reboot`");
        check("send_prompt", json!({}), "missing field `prompt`");
        check("send_prompt", json!({"prompt": 7}), "expected a string");
        check(
            "send_prompt",
            json!({"prompt": "x", "promt": 1}),
            "unknown field `promt`",
        );
        check("send_prompt", json!({"prompt": "  \n"}), "`prompt` is empty");
        check(
            "send_prompt",
            json!({"prompt": "x".repeat(PROMPT_BYTES_MAX + 1)}),
            "65537 bytes",
        );
        check("send_prompt", json!("text"), "expected struct SendPrompt");
        check("cancel", json!({}), "neither `session` nor `command`");
        check(
            "send_keys",
            json!({"session": SessionId(uuid::Uuid::nil())}),
            "neither `text` nor `keys`",
        );
        check(
            "terminate",
            json!({"session": "no-uuid"}),
            "malformed arguments of `terminate`",
        );
        let session = SessionId(uuid::Uuid::nil());
        check("approve", json!({"session": session}), "missing field `answer`");
        check(
            "approve",
            json!({"session": session, "answer": {"say": "maybe"}}),
            "unknown variant `maybe`",
        );
        check(
            "approve",
            json!({"session": session, "answer": {"say": "deny", "message": "x".repeat(ANSWER_MESSAGE_BYTES_MAX + 1)}}),
            "4097 bytes",
        );
    }

    #[test]
    fn an_answer_names_its_session_and_may_name_the_ask() {
        let session = SessionId(uuid::Uuid::from_u128(1));
        let command = Command::parse(
            "approve",
            &json!({"session": session, "answer": {"say": "allow"}}),
        );
        assert_eq!(
            command,
            Ok(Command::Approve(Approve {
                session,
                ask: None,
                answer: AskAnswer::Allow,
            }))
        );
        assert_eq!(command.unwrap().kind(), "approve");
        let ask = AskId(uuid::Uuid::from_u128(2));
        let args = json!({"session": session, "ask": ask, "answer": {"say": "choose", "choice": 1}});
        let Ok(Command::Approve(args)) = Command::parse("approve", &args) else {
            panic!("an answer")
        };
        assert_eq!(
            (args.ask, args.answer),
            (Some(ask), AskAnswer::Choose { choice: 1 })
        );
    }

    #[test]
    fn a_hostile_kind_is_cut_before_it_is_repeated() {
        let fault = Command::parse(&"x\u{1b}[2J".repeat(500), &json!({}))
            .unwrap_err()
            .to_string();
        assert!(fault.len() < 400 && !fault.contains('\u{1b}'));
    }
}

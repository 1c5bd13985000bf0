//! The office's rows as they travel. Unknown columns are ignored, so that a newer office does not break an older
//! client; unknown states are `Other`, never an error.

use domain::ask::CHOICES_MAX;
use domain::persona::Persona;
use domain::{AgentId, AskId, ClientId, CommandId, OfficeId, ResultId, SessionId, Timestamp, UserId};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// Row of `offices`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OfficeRow {
    /// The office.
    pub id: OfficeId,
    /// Its name.
    pub name: String,
    /// Its settings; an object.
    #[serde(default)]
    pub settings: Value,
    /// When it was made.
    #[serde(deserialize_with = "stamp")]
    pub created_at: Timestamp,
}

/// Row of `agents`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRow {
    /// The agent.
    pub id: AgentId,
    /// Its office.
    pub office_id: OfficeId,
    /// `FE`, `BE`, `QA` …
    pub role: String,
    /// Its name.
    pub name: String,
    /// What it is told about itself.
    #[serde(default, deserialize_with = "null_is_default")]
    pub prompt: String,
    /// Path patterns it is responsible for.
    #[serde(default, deserialize_with = "texts_without_nulls")]
    pub scope_patterns: Vec<String>,
    /// What it is good at.
    #[serde(default, deserialize_with = "texts_without_nulls")]
    pub core_skills: Vec<String>,
    /// Which agent program it runs on.
    #[serde(default = "claude")]
    pub provider: String,
}

fn claude() -> String {
    "claude".to_owned()
}

impl AgentRow {
    /// Who it is.
    pub fn persona(&self) -> Persona {
        Persona {
            role: self.role.clone(),
            name: self.name.clone(),
            prompt: self.prompt.clone(),
            scope_patterns: self.scope_patterns.clone(),
            core_skills: self.core_skills.clone(),
        }
    }
}

/// Row of `clients`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRow {
    /// The client.
    pub id: ClientId,
    /// Its office.
    pub office_id: OfficeId,
    /// Its name, usually the computer's.
    pub name: String,
    /// `linux`, `macos`, `windows`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub platform: String,
    /// Version of our program.
    #[serde(default, deserialize_with = "null_is_default")]
    pub version: String,
    /// When it last claimed or registered.
    #[serde(default, deserialize_with = "stamp_or_none")]
    pub last_seen_at: Option<Timestamp>,
}

/// Row of `sessions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The session.
    pub id: SessionId,
    /// Its office.
    pub office_id: OfficeId,
    /// The client it runs on.
    #[serde(default)]
    pub client_id: Option<ClientId>,
    /// Its agent.
    #[serde(default)]
    pub agent_id: Option<AgentId>,
    /// As the client reported it.
    pub state: String,
    /// Name of the repository.
    #[serde(default, deserialize_with = "null_is_default")]
    pub repository: String,
    /// Branch of its worktree.
    #[serde(default, deserialize_with = "null_is_default")]
    pub branch: String,
    /// When it was first reported.
    #[serde(default, deserialize_with = "stamp_or_none")]
    pub started_at: Option<Timestamp>,
    /// When its end was reported.
    #[serde(default, deserialize_with = "stamp_or_none")]
    pub ended_at: Option<Timestamp>,
    /// When it was last reported.
    #[serde(default, deserialize_with = "stamp_or_none")]
    pub updated_at: Option<Timestamp>,
}

/// Where a command is in its life. The database moves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandState {
    /// Waits for a client.
    Queued,
    /// A client has it.
    Leased,
    /// Done.
    Succeeded,
    /// Ended, but a sign of completion is missing.
    Unconfirmed,
    /// Done, badly.
    Failed,
    /// Given up on request.
    Cancelled,
    /// Nobody took it in time.
    Expired,
    /// Taken too often without an end.
    Dead,
    /// A state this version does not know.
    #[serde(other)]
    Other,
}

impl CommandState {
    /// Will it never move again?
    pub fn is_final(self) -> bool {
        match self {
            CommandState::Queued | CommandState::Leased | CommandState::Other => false,
            CommandState::Succeeded
            | CommandState::Unconfirmed
            | CommandState::Failed
            | CommandState::Cancelled
            | CommandState::Expired
            | CommandState::Dead => true,
        }
    }
}

/// Row of `agent_commands`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandRow {
    /// The command.
    pub id: CommandId,
    /// Order of making; for display, not a cursor.
    pub seq: i64,
    /// Its office.
    pub office_id: OfficeId,
    /// Which agent is to do it.
    #[serde(default)]
    pub agent_id: Option<AgentId>,
    /// Which client has (or had) it.
    #[serde(default)]
    pub client_id: Option<ClientId>,
    /// Which session it is about.
    #[serde(default)]
    pub session_id: Option<SessionId>,
    /// `send_prompt` …
    pub kind: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Value,
    /// The key it was enqueued under.
    #[serde(default)]
    pub idempotency_key: String,
    /// Where it is.
    pub state: CommandState,
    /// Higher goes first.
    #[serde(default)]
    pub priority: i32,
    /// How often it was claimed.
    #[serde(default)]
    pub attempt: i32,
    /// When somebody asked to give it up.
    #[serde(default, deserialize_with = "stamp_or_none")]
    pub cancel_requested_at: Option<Timestamp>,
    /// Who put it there.
    #[serde(default)]
    pub created_by: Option<UserId>,
    /// When.
    #[serde(deserialize_with = "stamp")]
    pub created_at: Timestamp,
    /// Not to be taken after this.
    #[serde(default, deserialize_with = "stamp_or_none")]
    pub expires_at: Option<Timestamp>,
    /// When it got its final state.
    #[serde(default, deserialize_with = "stamp_or_none")]
    pub finished_at: Option<Timestamp>,
}

/// A command in this client's hands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClaimedCommand {
    /// The command.
    pub id: CommandId,
    /// Order of making.
    pub seq: i64,
    /// Its office.
    pub office_id: OfficeId,
    /// Which agent is to do it.
    #[serde(default)]
    pub agent_id: Option<AgentId>,
    /// Which session it is about.
    #[serde(default)]
    pub session_id: Option<SessionId>,
    /// `send_prompt` …
    pub kind: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Value,
    /// Higher goes first.
    #[serde(default)]
    pub priority: i32,
    /// This claim's number, from 1.
    pub attempt: i32,
    /// The fencing token of this claim.
    pub lease_token: Uuid,
    /// Until when, by the database's clock.
    #[serde(deserialize_with = "stamp")]
    pub lease_until: Timestamp,
    /// When somebody asked to give it up.
    #[serde(default, deserialize_with = "stamp_or_none")]
    pub cancel_requested_at: Option<Timestamp>,
    /// When it was put there.
    #[serde(deserialize_with = "stamp")]
    pub created_at: Timestamp,
    /// Not to be started after this.
    #[serde(default, deserialize_with = "stamp_or_none")]
    pub expires_at: Option<Timestamp>,
    /// This client has begun it before, whatever it remembers of that.
    #[serde(default)]
    pub begun: bool,
}

/// Answer of `begin_command`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BeginAnswer {
    /// It may be begun: nobody else is given it any more.
    Begun,
    /// It is to be given up.
    Cancel,
    /// Its time was over before anything was done for it.
    Expired,
    /// Somebody else has it, or it is over.
    Lost,
}

/// Answer of `renew_lease`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// Is the lease still ours?
    pub held: bool,
    /// Is the work to be given up?
    pub cancel: bool,
}

/// Final state that a client reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalStatus {
    /// Done.
    Succeeded,
    /// Ended, but a sign of completion is missing.
    Unconfirmed,
    /// Done, badly.
    Failed,
    /// Given up on request.
    Cancelled,
}

/// Answer of `complete_command`. Each ends the reporting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completion {
    /// It is the command's result now.
    Recorded,
    /// It was there already.
    Duplicate,
    /// Somebody else owns the command, or it is over: kept beside the record, as evidence only.
    Late,
}

/// Answer of `cancel_command`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelAnswer {
    /// Nobody had it yet: it is cancelled.
    Cancelled,
    /// A client has it: that client has been told.
    Requested,
    /// It had ended already.
    #[serde(other)]
    AlreadyOver,
}

/// What a result row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultStatus {
    /// A word on the way.
    Progress,
    /// Final: done.
    Succeeded,
    /// Final: ended, but a sign of completion is missing.
    Unconfirmed,
    /// Final: done, badly.
    Failed,
    /// Final: given up.
    Cancelled,
    /// Came too late to count.
    Late,
    /// A status this version does not know.
    #[serde(other)]
    Other,
}

/// Row of `agent_command_results`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultRow {
    /// The result.
    pub id: ResultId,
    /// Of which command.
    pub command_id: CommandId,
    /// Its office.
    pub office_id: OfficeId,
    /// Which client reported it.
    #[serde(default)]
    pub client_id: Option<ClientId>,
    /// Of which claim.
    #[serde(default)]
    pub attempt: i32,
    /// What it is.
    pub status: ResultStatus,
    /// `done`, `unconfirmed`, `failed`, `cancelled`, `ok` …
    #[serde(default)]
    pub outcome: Option<String>,
    /// What the command gave.
    #[serde(default)]
    pub output: Option<Value>,
    /// What went wrong.
    #[serde(default)]
    pub error: Option<Value>,
    /// The facts behind it.
    #[serde(default)]
    pub evidence: Option<Value>,
    /// How long each part took.
    #[serde(default)]
    pub timings: Option<Value>,
    /// When it was recorded.
    #[serde(deserialize_with = "stamp")]
    pub created_at: Timestamp,
}

/// Where an ask is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskState {
    /// Somebody has to say something.
    Pending,
    /// Somebody did.
    Answered,
    /// The agent does not wait any more.
    Withdrawn,
    /// A state this version does not know.
    #[serde(other)]
    Other,
}

/// Row of `session_asks`. Kind, choices and answer are kept as they came: a newer office may know more of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AskRow {
    /// The ask.
    pub id: AskId,
    /// Its office.
    pub office_id: OfficeId,
    /// The session that waits.
    pub session_id: SessionId,
    /// The client that has the session.
    pub client_id: ClientId,
    /// The session's agent.
    #[serde(default)]
    pub agent_id: Option<AgentId>,
    /// The command whose turn waits.
    #[serde(default)]
    pub command_id: Option<CommandId>,
    /// `permission`, `question` … (names of `domain::session::Ask`).
    pub kind: String,
    /// The tool it wants to use.
    #[serde(default)]
    pub tool: Option<String>,
    /// What a person needs to know to answer.
    #[serde(default, deserialize_with = "null_is_default")]
    pub text: String,
    /// What may be chosen. What is no text keeps its place, so that the others are counted as on their own machine.
    #[serde(default, deserialize_with = "texts")]
    pub choices: Vec<String>,
    /// Where it is.
    pub state: AskState,
    /// What was said (`domain::ask::AskAnswer`), where it is known.
    #[serde(default)]
    pub answer: Option<Value>,
    /// `window`, `cli`, `terminal` or `command`.
    #[serde(default)]
    pub answered_by_way: Option<String>,
    /// Who answered, as the database knows it.
    #[serde(default)]
    pub answered_by_user: Option<UserId>,
    /// The command that answered.
    #[serde(default)]
    pub answered_by_command: Option<CommandId>,
    /// Why it was withdrawn.
    #[serde(default)]
    pub reason: Option<String>,
    /// When it came up.
    #[serde(deserialize_with = "stamp")]
    pub asked_at: Timestamp,
    /// When it was closed.
    #[serde(default, deserialize_with = "stamp_or_none")]
    pub closed_at: Option<Timestamp>,
}

/// Answer of `close_ask`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskClosing {
    /// It is closed by this.
    Closed,
    /// It was closed before; that end stays.
    Already,
}

/// PostgREST gives an array for `returns table` and `setof`, an object for one composite.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

impl<T> OneOrMany<T> {
    pub(super) fn first(self) -> Option<T> {
        match self {
            OneOrMany::Many(rows) => rows.into_iter().next(),
            OneOrMany::One(row) => Some(row),
        }
    }
}

/// A time as Postgres prints it, or as we print it ourselves (milliseconds).
#[derive(Deserialize)]
#[serde(untagged)]
enum Stamp {
    Text(String),
    Ms(i64),
}

impl Stamp {
    fn read<E: serde::de::Error>(self) -> Result<Timestamp, E> {
        match self {
            Stamp::Ms(ms) => Ok(Timestamp(ms)),
            Stamp::Text(text) => {
                Timestamp::parse_rfc3339(&text).ok_or_else(|| E::custom(format!("{text:?} is not a time")))
            }
        }
    }
}

fn stamp<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
    Stamp::deserialize(from)?.read()
}

fn stamp_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    Option::<Stamp>::deserialize(from)?.map(Stamp::read).transpose()
}

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// A `text[]`: the database lets single entries be null.
fn texts_without_nulls<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let texts = Option::<Vec<Option<String>>>::deserialize(from)?;
    Ok(texts.into_iter().flatten().flatten().collect())
}

/// A list of texts, whatever came: a device of the office wrote it. What is no text is shown as it travels, in its own
/// place: an answer names a choice by its place.
fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let Value::Array(items) = Value::deserialize(from)? else {
        return Ok(Vec::new());
    };
    let text = |item| match item {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(items.into_iter().take(CHOICES_MAX).map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "6f6c3c1e-0000-4000-8000-000000000001";

    fn command() -> Value {
        json!({
            "id": ID, "seq": 7, "office_id": ID, "agent_id": null, "client_id": null, "session_id": null,
            "kind": "send_prompt", "args": {"prompt": "x"}, "idempotency_key": "k", "state": "queued", "priority": 0,
            "not_before": "2026-01-01T00:00:00+00:00", "expires_at": null, "attempt": 0, "max_attempts": 3,
            "cancel_requested_at": null, "created_by": ID, "created_at": "2026-01-01T00:00:00.123456+00:00",
            "finished_at": null, "a_column_of_next_year": [1]
        })
    }

    #[test]
    fn a_row_of_a_newer_office_is_still_read() {
        let mut row = command();
        row["state"] = json!("paused");
        let row: CommandRow = serde_json::from_value(row).expect("a row");
        assert_eq!(row.state, CommandState::Other);
        assert!(!row.state.is_final(), "an unknown state is not an end");
        assert_eq!(row.created_at, Timestamp(1_767_225_600_123));
    }

    #[test]
    fn a_row_survives_our_own_json() {
        let row: CommandRow = serde_json::from_value(command()).expect("a row");
        let again = serde_json::to_value(&row)
            .and_then(serde_json::from_value)
            .expect("our own JSON");
        assert_eq!(row, again);
    }

    #[test]
    fn an_ask_of_a_newer_office_is_still_read() {
        let row: AskRow = serde_json::from_value(json!({
            "id": ID, "office_id": ID, "session_id": ID, "client_id": ID, "agent_id": null, "command_id": null,
            "kind": "vote", "tool": null, "text": null, "choices": null, "state": "paused", "answer": {"say": "later"},
            "asked_at": "2026-01-01T00:00:00+00:00", "closed_at": null, "a_column_of_next_year": 1
        }))
        .expect("a row");
        assert_eq!((row.state, row.kind.as_str()), (AskState::Other, "vote"));
        assert_eq!((row.text.as_str(), row.choices.len()), ("", 0));
    }

    #[test]
    fn choices_that_are_no_texts_keep_their_places_and_break_nothing() {
        let row = |choices: Value| {
            let row = json!({
                "id": ID, "office_id": ID, "session_id": ID, "client_id": ID, "kind": "question", "text": "?",
                "choices": choices, "state": "pending", "asked_at": "2026-01-01T00:00:00+00:00",
            });
            serde_json::from_value::<AskRow>(row).expect("a row").choices
        };
        assert_eq!(
            row(json!(["a", 1, null, {"b": 2}, "c"])),
            ["a", "1", "null", r#"{"b":2}"#, "c"]
        );
        assert!(row(json!({"a": 1})).is_empty() && row(json!("a")).is_empty());
        assert_eq!(row(json!(vec![0; 500])).len(), CHOICES_MAX);
    }

    #[test]
    fn an_agent_with_a_null_among_its_skills_is_still_read() {
        let row = json!({"id": ID, "office_id": ID, "role": "FE", "name": "Mina", "scope_patterns": null,
                         "core_skills": ["a", null, "b"]});
        let row: AgentRow = serde_json::from_value(row).expect("a row");
        assert_eq!(
            (row.scope_patterns.len(), row.core_skills.join(",")),
            (0, "a,b".to_owned())
        );
    }

    #[test]
    fn a_time_that_is_none_is_an_error_and_not_a_panic() {
        let mut row = command();
        row["created_at"] = json!("infinity");
        assert!(serde_json::from_value::<CommandRow>(row).is_err());
    }

    #[test]
    fn the_answers_of_the_functions_are_read() {
        assert_eq!(
            serde_json::from_value::<Completion>(json!("late")).expect("late"),
            Completion::Late
        );
        assert!(
            serde_json::from_value::<Completion>(json!("maybe")).is_err(),
            "an unknown answer must not end the reporting"
        );
        assert_eq!(
            serde_json::from_value::<AskClosing>(json!("already")).expect("already"),
            AskClosing::Already
        );
        assert_eq!(
            serde_json::from_value::<CancelAnswer>(json!("succeeded")).expect("x"),
            CancelAnswer::AlreadyOver
        );
        for body in [
            json!([{"held": true, "cancel": false}]),
            json!({"held": true, "cancel": false}),
        ] {
            let rows: OneOrMany<Renewal> = serde_json::from_value(body).expect("a renewal");
            assert_eq!(
                rows.first(),
                Some(Renewal {
                    held: true,
                    cancel: false
                })
            );
        }
    }
}

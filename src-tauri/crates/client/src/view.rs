//! What people see: the state of the core as plain values, published whole after every change.
//!
//! These types are the contract with the UI; `ui/src/backend/generated.ts` is made from them (test
//! `the_typescript_of_the_view_is_the_committed_one` in `tests`).

use domain::evidence::Evidence;
use domain::session::SessionState;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Everything a window shows.
#[derive(Debug, Clone, PartialEq, Serialize, TS)]
pub struct State {
    /// Which hub this machine belongs to.
    pub profile: ProfileView,
    /// Version of the program.
    pub version: String,
    /// How it stands with the office's Realtime.
    pub connection: ConnectionView,
    /// The office that is served now.
    pub office: Option<OfficeView>,
    /// The offices the user belongs to.
    pub offices: Vec<OfficeView>,
    /// The agents of the office.
    pub agents: Vec<AgentView>,
    /// The sessions on this machine, oldest first.
    pub sessions: Vec<SessionView>,
    /// The newest commands of the office, newest first.
    pub commands: Vec<CommandView>,
    /// What keeps things from working, with what to do.
    pub problems: Vec<Problem>,
    /// Repositories that sessions can be started in.
    pub repositories: Vec<RepositoryView>,
    /// Limits in force.
    pub limits: LimitsView,
}

/// The profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
pub struct ProfileView {
    /// For people.
    pub name: String,
    /// `this_machine` or `supabase`.
    pub kind: ProfileKind,
    /// Base URL of the hub or project.
    pub url: String,
}

/// Kind of profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "as named")]
pub enum ProfileKind {
    ThisMachine,
    Supabase,
}

/// Connection to the office's Realtime, in words that promise no more than is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
pub struct ConnectionView {
    /// Where it stands.
    pub status: ConnectionStatus,
    /// Why, where there is a reason to tell.
    pub why: Option<String>,
    /// Since when, ms since the epoch.
    #[ts(type = "number")]
    pub since: i64,
}

/// States of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "as named")]
pub enum ConnectionStatus {
    Offline,
    Connecting,
    Joining,
    Live,
    Backoff,
    Stopped,
}

/// An office.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
#[allow(missing_docs, reason = "as named")]
pub struct OfficeView {
    pub id: String,
    pub name: String,
}

/// An agent with its persona.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
#[allow(missing_docs, reason = "as named")]
pub struct AgentView {
    pub id: String,
    pub role: String,
    pub name: String,
    pub prompt: String,
    pub scope_patterns: Vec<String>,
    pub core_skills: Vec<String>,
    pub provider: String,
}

/// A session on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
pub struct SessionView {
    /// Its id.
    pub id: String,
    /// Its agent.
    pub agent_id: String,
    /// For people: role and name of the agent.
    pub title: String,
    /// Where it is in its life.
    #[ts(type = "SessionState")]
    pub state: SessionState,
    /// What it waits for, in words, while it waits for a person.
    pub asks: Option<String>,
    /// Name of the repository.
    pub repository: Option<String>,
    /// Branch of its worktree.
    pub branch: Option<String>,
    /// Folder of its worktree.
    pub worktree: String,
    /// ms since the epoch.
    #[ts(type = "number")]
    pub started_at: i64,
}

/// A command of the office and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, TS)]
pub struct CommandView {
    /// Its id.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// The agent it is for.
    pub agent_id: Option<String>,
    /// The session that carries it out.
    pub session_id: Option<String>,
    /// One line for people.
    pub summary: String,
    /// The whole prompt, for `send_prompt`.
    pub prompt: Option<String>,
    /// Where it stands.
    pub status: CommandStatus,
    /// How it ended: `done`, `unconfirmed`, `failed`, `cancelled`, `ok`.
    pub outcome: Option<String>,
    /// ms since the epoch.
    #[ts(type = "number")]
    pub created_at: i64,
    /// ms since the epoch.
    #[ts(type = "number | null")]
    pub started_at: Option<i64>,
    /// ms since the epoch.
    #[ts(type = "number | null")]
    pub finished_at: Option<i64>,
    /// The agent's final message.
    pub final_message: Option<String>,
    /// Why it failed or is unconfirmed, or what it waits for.
    pub reason: Option<String>,
    /// What backs the outcome.
    #[ts(type = "Evidence | null")]
    pub evidence: Option<Evidence>,
    /// Whether this client carries it out.
    pub mine: bool,
}

/// Where a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum CommandStatus {
    /// In the office's queue.
    Queued,
    /// Taken by a client.
    Claimed,
    /// In the line for a session.
    Waiting,
    /// A session works on it.
    Running,
    /// It ended here; the office has not acknowledged the result yet.
    Reporting,
    /// Carried out.
    Succeeded,
    /// Ended, but a sign of completion is missing.
    Unconfirmed,
    /// Failed.
    Failed,
    /// Cancelled.
    Cancelled,
    /// Nobody took it in time.
    Expired,
    /// Given up after too many attempts.
    Dead,
}

/// Something that keeps things from working.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
pub struct Problem {
    /// Stable name, for the UI: `claude_missing`, `claude_signed_out`, `hub_unreachable` …
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// A repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
#[allow(missing_docs, reason = "as named")]
pub struct RepositoryView {
    pub name: String,
    pub path: String,
    pub default: bool,
}

/// Limits in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, TS)]
pub struct LimitsView {
    /// Sessions at once.
    pub sessions_max: u32,
}

/// The types of `domain` that the view shows, as TypeScript. They are written by hand because `domain` knows no UI;
/// the test `the_domain_types_of_the_view_are_as_declared` holds them to the real ones.
pub const DOMAIN_TYPESCRIPT: &str = r#"export type Ask = "permission" | "question" | "login" | "dialog";
export type SessionState =
  | { state: "starting" }
  | { state: "idle" }
  | { state: "working"; turn: string | null }
  | { state: "awaiting_person"; turn: string | null; ask: Ask }
  | { state: "stopping" }
  | { state: "exited"; code: number | null };
export type Tier = "claimed" | "observed" | "verified";
export type Claim = { what: string; value: unknown; tier: Tier; source: string };
export type Evidence = { rule: string; claims: Array<Claim> };
"#;

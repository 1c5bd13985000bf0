//! What people see: the state of the core as plain values, published whole after every change.
//!
//! These types are the contract with the UI; `ui/src/backend/generated.ts` is made from them (test
//! `the_typescript_of_the_view_is_the_committed_one` in `tests`).

use domain::evidence::Evidence;
use domain::session::{Ask, SessionState};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::stopping::StopHow;

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
    /// What agents of the office wait for people to say, on this machine and on others, oldest first.
    pub asks: Vec<AskView>,
    /// The newest of those that are over, newest first.
    pub closed_asks: Vec<ClosedAskView>,
    /// The newest commands of the office, newest first.
    pub commands: Vec<CommandView>,
    /// What keeps things from working, with what to do.
    pub problems: Vec<Problem>,
    /// Repositories that sessions can be started in.
    pub repositories: Vec<RepositoryView>,
    /// Limits in force.
    pub limits: LimitsView,
    /// The office's sessions on this machine as a whole.
    pub pool: PoolView,
    /// What became of the sessions that an earlier core had left.
    pub launch: LaunchView,
    /// Set while the core is ending: nothing new is taken.
    pub ending: Option<EndingView>,
}

/// What a start has found of the sessions of an earlier core.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, TS)]
pub struct LaunchView {
    /// Still being looked for.
    pub recovering: u32,
    /// They went on, and are followed again.
    pub taken_up: u32,
    /// Their programs were over.
    pub ended_meanwhile: u32,
    /// Cannot be told: what holds them does not answer.
    pub unknown: u32,
    /// When this core started, ms since the epoch.
    #[ts(type = "number")]
    pub since: i64,
}

/// The core is ending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
pub struct EndingView {
    /// In which way.
    pub how: StopHow,
    /// Turns that still run.
    pub turns: u32,
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
    /// Where the sign-in is kept, when somebody is signed in to a project.
    pub kept: Option<KeptView>,
    /// The team's project that the settings know, whichever profile is used now.
    pub team: Option<TeamView>,
    /// Another profile comes; nothing new is taken.
    pub changing: bool,
}

/// Where a sign-in is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "as named")]
pub enum KeptView {
    Keychain,
    File,
}

/// A team's project or hub, and who signs in there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
pub struct TeamView {
    /// Its address.
    pub url: String,
    /// Its publishable key, which is no secret.
    pub publishable_key: String,
    /// The account.
    pub email: String,
}

/// Kind of profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
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
    /// The permission or question it waits with.
    pub ask: Option<AskView>,
    /// Whether it was started ahead of any command and has had none yet.
    pub warm: bool,
    /// Whether its agent's persona has changed since it was started; it is renewed when it is idle.
    pub stale: bool,
    /// The retry of a request to the model that is under way, in words.
    pub retrying: Option<String>,
    /// Memory of its process tree, in MiB, when it was last measured.
    pub memory_mb: Option<u32>,
    /// How often its program was started again after an unexpected end.
    pub restarts: u32,
    /// `recovering`: it is looked for after a restart of the core; `held`: what holds it does not answer, and nothing
    /// was touched.
    pub hold: Option<String>,
    /// Whether an earlier core had begun it.
    pub taken_up: bool,
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

/// A permission or question that an agent puts to people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
pub struct AskView {
    /// Its id.
    pub id: String,
    /// The session that waits.
    pub session_id: String,
    /// The agent of that session.
    pub agent_id: Option<String>,
    /// What kind of ask it is.
    #[ts(type = "Ask")]
    pub kind: Ask,
    /// The tool it wants to use, for a permission.
    pub tool: Option<String>,
    /// What a person needs to know to answer.
    pub text: String,
    /// What may be chosen, in the agent's order; empty when a yes or no is asked for.
    pub choices: Vec<String>,
    /// When it came up, ms since the epoch.
    #[ts(type = "number")]
    pub asked_at: i64,
    /// Whether its session is on this machine.
    pub mine: bool,
    /// Whether it can be answered here; else only at the session's own terminal.
    pub answerable: bool,
}

/// An ask that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
pub struct ClosedAskView {
    /// Its id.
    pub id: String,
    /// The session that waited.
    pub session_id: String,
    /// The agent of that session.
    pub agent_id: Option<String>,
    /// What kind of ask it was.
    #[ts(type = "Ask")]
    pub kind: Ask,
    /// What was asked.
    pub text: String,
    /// What was said and by which way, or why nobody had to: one line for people.
    pub how: String,
    /// ms since the epoch.
    #[ts(type = "number")]
    pub closed_at: i64,
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
    /// The reason as a stable word: `rate_limit`, `auth`, `timeout`, `refused`, `conflict` …
    pub class: Option<String>,
    /// What backs the outcome.
    #[ts(type = "Evidence | null")]
    pub evidence: Option<Evidence>,
    /// Whether this client carries it out.
    pub mine: bool,
    /// What became of it when the core was restarted in the midst of it: `followed`, `reported`, `run_again`, `unknown`.
    pub recovered: Option<String>,
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
    /// Given up: too many attempts, or begun by a client that did not come back.
    Dead,
}

/// Code of the problem with which a core ends itself, since another one works in its place: no fault.
pub const TAKEN_OVER: &str = "taken_over";

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

/// The office's sessions on this machine as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, TS)]
pub struct PoolView {
    /// Most sessions at once, by the office and this workstation.
    pub sessions_max: u32,
    /// Roles whose agents are kept ready.
    pub warm_roles: Vec<String>,
    /// Sessions of the office that are open here.
    pub open: u32,
    /// Those of them that were started ahead and have had no command yet.
    pub warm: u32,
    /// Commands of the office that wait in line for a session here.
    pub waiting: u32,
    /// Memory of all sessions on this machine in MiB, those of other offices included, as far as it was measured.
    pub memory_mb: Option<u32>,
    /// Most memory of all of them in MiB; above it, idle sessions are given up.
    pub memory_limit_mb: u32,
    /// Minutes after which an idle session is given up.
    pub idle_minutes: u32,
    /// Agents whose programs ended too often; they get no session for a while.
    pub paused_agents: Vec<PausedAgentView>,
}

/// An agent that gets no session for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
pub struct PausedAgentView {
    /// The agent.
    pub agent_id: String,
    /// Until when, ms since the epoch.
    #[ts(type = "number")]
    pub until: i64,
    /// What happened.
    pub why: String,
}

/// A kept state of a worktree that is gone or was about to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
pub struct PreservedView {
    /// Name of the repository it lies in.
    pub repository: String,
    /// Its name there: the id of its session.
    pub name: String,
    /// The branch of its worktree, where it is known.
    pub branch: Option<String>,
    /// The commit that holds everything.
    pub commit: String,
    /// When it was kept, ms since the epoch.
    #[ts(type = "number")]
    pub kept_at: i64,
    /// Role and name of the agent, where it is known.
    pub agent: Option<String>,
    /// Files that differ from the last commit of its own.
    pub files_changed: u32,
    /// Why it was kept.
    pub why: String,
}

/// The types of `domain` and `session` that the view shows, as TypeScript. They are written by hand because those know no UI;
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
export type AskAnswer =
  | { say: "allow" }
  | { say: "deny"; message: string }
  | { say: "choose"; choice: number };
export type TurnEvent = { at_ms: number; source: string; rule: string; what: string };
export type TurnExplanation = {
  turn: string | null;
  prompt_head: string;
  outcome: string | null;
  class: string | null;
  rule: string | null;
  reason: string | null;
  evidence: Evidence;
  log: Array<TurnEvent>;
};
export type ReadingView = { at_ms: number; rule: string; matched: string; meaning: string };
export type Explanation = {
  session: string;
  state: SessionState;
  program: string;
  detector: string;
  turns: Array<TurnExplanation>;
  readings: Array<ReadingView>;
};
"#;

// Made from the Rust types of `client::view` and `client::request` by tests/it/generated.rs. Do not edit:
// SEMO_WRITE_GENERATED=1 cargo test -p tests --test it generated

export type Ask = "permission" | "question" | "login" | "dialog";
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
export type ProfileKind = "this_machine" | "supabase";
export type ProfileView = { 
/**
 * For people.
 */
name: string, 
/**
 * `this_machine` or `supabase`.
 */
kind: ProfileKind, 
/**
 * Base URL of the hub or project.
 */
url: string, };
export type ConnectionStatus = "offline" | "connecting" | "joining" | "live" | "backoff" | "stopped";
export type ConnectionView = { 
/**
 * Where it stands.
 */
status: ConnectionStatus, 
/**
 * Why, where there is a reason to tell.
 */
why: string | null, 
/**
 * Since when, ms since the epoch.
 */
since: number, };
export type OfficeView = { id: string, name: string, };
export type AgentView = { id: string, role: string, name: string, prompt: string, scope_patterns: Array<string>, core_skills: Array<string>, provider: string, };
export type SessionView = { 
/**
 * Its id.
 */
id: string, 
/**
 * Its agent.
 */
agent_id: string, 
/**
 * For people: role and name of the agent.
 */
title: string, 
/**
 * Where it is in its life.
 */
state: SessionState, 
/**
 * What it waits for, in words, while it waits for a person.
 */
asks: string | null, 
/**
 * Name of the repository.
 */
repository: string | null, 
/**
 * Branch of its worktree.
 */
branch: string | null, 
/**
 * Folder of its worktree.
 */
worktree: string, 
/**
 * ms since the epoch.
 */
started_at: number, };
export type CommandStatus = "queued" | "claimed" | "waiting" | "running" | "reporting" | "succeeded" | "unconfirmed" | "failed" | "cancelled" | "expired" | "dead";
export type CommandView = { 
/**
 * Its id.
 */
id: string, 
/**
 * Its kind.
 */
kind: string, 
/**
 * The agent it is for.
 */
agent_id: string | null, 
/**
 * The session that carries it out.
 */
session_id: string | null, 
/**
 * One line for people.
 */
summary: string, 
/**
 * The whole prompt, for `send_prompt`.
 */
prompt: string | null, 
/**
 * Where it stands.
 */
status: CommandStatus, 
/**
 * How it ended: `done`, `unconfirmed`, `failed`, `cancelled`, `ok`.
 */
outcome: string | null, 
/**
 * ms since the epoch.
 */
created_at: number, 
/**
 * ms since the epoch.
 */
started_at: number | null, 
/**
 * ms since the epoch.
 */
finished_at: number | null, 
/**
 * The agent's final message.
 */
final_message: string | null, 
/**
 * Why it failed or is unconfirmed, or what it waits for.
 */
reason: string | null, 
/**
 * What backs the outcome.
 */
evidence: Evidence | null, 
/**
 * Whether this client carries it out.
 */
mine: boolean, };
export type Problem = { 
/**
 * Stable name, for the UI: `claude_missing`, `claude_signed_out`, `hub_unreachable` …
 */
code: string, 
/**
 * What is wrong.
 */
message: string, 
/**
 * What to do.
 */
hint: string, };
export type RepositoryView = { name: string, path: string, default: boolean, };
export type LimitsView = { 
/**
 * Sessions at once.
 */
sessions_max: number, };
export type State = { 
/**
 * Which hub this machine belongs to.
 */
profile: ProfileView, 
/**
 * Version of the program.
 */
version: string, 
/**
 * How it stands with the office's Realtime.
 */
connection: ConnectionView, 
/**
 * The office that is served now.
 */
office: OfficeView | null, 
/**
 * The offices the user belongs to.
 */
offices: Array<OfficeView>, 
/**
 * The agents of the office.
 */
agents: Array<AgentView>, 
/**
 * The sessions on this machine, oldest first.
 */
sessions: Array<SessionView>, 
/**
 * The newest commands of the office, newest first.
 */
commands: Array<CommandView>, 
/**
 * What keeps things from working, with what to do.
 */
problems: Array<Problem>, 
/**
 * Repositories that sessions can be started in.
 */
repositories: Array<RepositoryView>, 
/**
 * Limits in force.
 */
limits: LimitsView, };
export type Answer = { 
/**
 * The command that was enqueued, where one was.
 */
command_id: string | null, };
export type ErrorCode = "invalid" | "unauthorized" | "forbidden" | "not_found" | "conflict" | "unreachable" | "not_ready" | "internal";
export type RequestError = { 
/**
 * For decisions of the caller.
 */
code: ErrorCode, 
/**
 * What was attempted, on what, and why it failed.
 */
message: string, 
/**
 * What the user can do; empty when there is nothing.
 */
hint: string, };

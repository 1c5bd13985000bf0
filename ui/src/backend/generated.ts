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
export type ProfileKind = "this_machine" | "supabase";
export type KeptView = "keychain" | "file";
export type TeamView = { 
/**
 * Its address.
 */
url: string, 
/**
 * Its publishable key, which is no secret.
 */
publishable_key: string, 
/**
 * The account.
 */
email: string, };
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
url: string, 
/**
 * Where the sign-in is kept, when somebody is signed in to a project.
 */
kept: KeptView | null, 
/**
 * The team's project that the settings know, whichever profile is used now.
 */
team: TeamView | null, 
/**
 * Another profile comes; nothing new is taken.
 */
changing: boolean, };
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
export type AskView = { 
/**
 * Its id.
 */
id: string, 
/**
 * The session that waits.
 */
session_id: string, 
/**
 * The agent of that session.
 */
agent_id: string | null, 
/**
 * What kind of ask it is.
 */
kind: Ask, 
/**
 * The tool it wants to use, for a permission.
 */
tool: string | null, 
/**
 * What a person needs to know to answer.
 */
text: string, 
/**
 * What may be chosen, in the agent's order; empty when a yes or no is asked for.
 */
choices: Array<string>, 
/**
 * When it came up, ms since the epoch.
 */
asked_at: number, 
/**
 * Whether its session is on this machine.
 */
mine: boolean, 
/**
 * Whether it can be answered here; else only at the session's own terminal.
 */
answerable: boolean, };
export type ClosedAskView = { 
/**
 * Its id.
 */
id: string, 
/**
 * The session that waited.
 */
session_id: string, 
/**
 * The agent of that session.
 */
agent_id: string | null, 
/**
 * What kind of ask it was.
 */
kind: Ask, 
/**
 * What was asked.
 */
text: string, 
/**
 * What was said and by which way, or why nobody had to: one line for people.
 */
how: string, 
/**
 * ms since the epoch.
 */
closed_at: number, };
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
 * The permission or question it waits with.
 */
ask: AskView | null, 
/**
 * Whether it was started ahead of any command and has had none yet.
 */
warm: boolean, 
/**
 * Whether its agent's persona has changed since it was started; it is renewed when it is idle.
 */
stale: boolean, 
/**
 * The retry of a request to the model that is under way, in words.
 */
retrying: string | null, 
/**
 * Memory of its process tree, in MiB, when it was last measured.
 */
memory_mb: number | null, 
/**
 * How often its program was started again after an unexpected end.
 */
restarts: number, 
/**
 * `recovering`: it is looked for after a restart of the core; `held`: what holds it does not answer, and nothing
 * was touched.
 */
hold: string | null, 
/**
 * Whether an earlier core had begun it.
 */
taken_up: boolean, 
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
 * The reason as a stable word: `rate_limit`, `auth`, `timeout`, `refused`, `conflict` …
 */
class: string | null, 
/**
 * What backs the outcome.
 */
evidence: Evidence | null, 
/**
 * Whether this client carries it out.
 */
mine: boolean, 
/**
 * What became of it when the core was restarted in the midst of it: `followed`, `reported`, `run_again`, `unknown`.
 */
recovered: string | null, };
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
export type PausedAgentView = { 
/**
 * The agent.
 */
agent_id: string, 
/**
 * Until when, ms since the epoch.
 */
until: number, 
/**
 * What happened.
 */
why: string, };
export type PoolView = { 
/**
 * Most sessions at once, by the office and this workstation.
 */
sessions_max: number, 
/**
 * Roles whose agents are kept ready.
 */
warm_roles: Array<string>, 
/**
 * Sessions of the office that are open here.
 */
open: number, 
/**
 * Those of them that were started ahead and have had no command yet.
 */
warm: number, 
/**
 * Commands of the office that wait in line for a session here.
 */
waiting: number, 
/**
 * Memory of all sessions on this machine in MiB, those of other offices included, as far as it was measured.
 */
memory_mb: number | null, 
/**
 * Most memory of all of them in MiB; above it, idle sessions are given up.
 */
memory_limit_mb: number, 
/**
 * Minutes after which an idle session is given up.
 */
idle_minutes: number, 
/**
 * Agents whose programs ended too often; they get no session for a while.
 */
paused_agents: Array<PausedAgentView>, };
export type StopHow = "leave" | "finish" | "now";
export type LaunchView = { 
/**
 * Still being looked for.
 */
recovering: number, 
/**
 * They went on, and are followed again.
 */
taken_up: number, 
/**
 * Their programs were over.
 */
ended_meanwhile: number, 
/**
 * Cannot be told: what holds them does not answer.
 */
unknown: number, 
/**
 * When this core started, ms since the epoch.
 */
since: number, };
export type EndingView = { 
/**
 * In which way.
 */
how: StopHow, 
/**
 * Turns that still run.
 */
turns: number, };
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
 * What agents of the office wait for people to say, on this machine and on others, oldest first.
 */
asks: Array<AskView>, 
/**
 * The newest of those that are over, newest first.
 */
closed_asks: Array<ClosedAskView>, 
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
limits: LimitsView, 
/**
 * The office's sessions on this machine as a whole.
 */
pool: PoolView, 
/**
 * What became of the sessions that an earlier core had left.
 */
launch: LaunchView, 
/**
 * Set while the core is ending: nothing new is taken.
 */
ending: EndingView | null, };
export type PreservedView = { 
/**
 * Name of the repository it lies in.
 */
repository: string, 
/**
 * Its name there: the id of its session.
 */
name: string, 
/**
 * The branch of its worktree, where it is known.
 */
branch: string | null, 
/**
 * The commit that holds everything.
 */
commit: string, 
/**
 * When it was kept, ms since the epoch.
 */
kept_at: number, 
/**
 * Role and name of the agent, where it is known.
 */
agent: string | null, 
/**
 * Files that differ from the last commit of its own.
 */
files_changed: number, 
/**
 * Why it was kept.
 */
why: string, };
export type Answer = { 
/**
 * The command that was enqueued, where one was.
 */
command_id: string | null, 
/**
 * How a session came to what it says of its turns (`explain`).
 */
explanation: Explanation | null, 
/**
 * The kept states of worktrees, newest first (`list_preserved`).
 */
preserved: Array<PreservedView> | null, 
/**
 * What was done, in words.
 */
note: string | null, };
export type ErrorCode = "invalid" | "unauthorized" | "forbidden" | "not_found" | "conflict" | "unreachable" | "not_ready" | "internal";
export type SignInField = "url" | "key" | "email" | "password";
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
hint: string, 
/**
 * Where the person has to look again, when it is something that was typed.
 */
field: SignInField | null, };

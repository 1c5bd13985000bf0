// Made from the Rust types of the core's view (crate `client`, `view.rs` and `request.rs`). Do not edit.

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
export type ProfileView = { name: string; kind: ProfileKind; url: string };
export type ConnectionStatus = "offline" | "connecting" | "joining" | "live" | "backoff" | "stopped";
export type ConnectionView = { status: ConnectionStatus; why: string | null; since: number };
export type OfficeView = { id: string; name: string };
export type AgentView = {
  id: string;
  role: string;
  name: string;
  prompt: string;
  scope_patterns: Array<string>;
  core_skills: Array<string>;
  provider: string;
};
export type SessionView = {
  id: string;
  agent_id: string;
  title: string;
  state: SessionState;
  repository: string | null;
  branch: string | null;
  worktree: string;
  started_at: number;
};
export type CommandStatus =
  | "queued"
  | "claimed"
  | "waiting"
  | "running"
  | "reporting"
  | "succeeded"
  | "unconfirmed"
  | "failed"
  | "cancelled"
  | "expired"
  | "dead";
export type CommandView = {
  id: string;
  kind: string;
  agent_id: string | null;
  session_id: string | null;
  summary: string;
  prompt: string | null;
  status: CommandStatus;
  outcome: string | null;
  created_at: number;
  started_at: number | null;
  finished_at: number | null;
  final_message: string | null;
  reason: string | null;
  evidence: Evidence | null;
  mine: boolean;
};
export type Problem = { code: string; message: string; hint: string };
export type RepositoryView = { name: string; path: string; default: boolean };
export type LimitsView = { sessions_max: number };
export type State = {
  profile: ProfileView;
  version: string;
  connection: ConnectionView;
  office: OfficeView | null;
  offices: Array<OfficeView>;
  agents: Array<AgentView>;
  sessions: Array<SessionView>;
  commands: Array<CommandView>;
  problems: Array<Problem>;
  repositories: Array<RepositoryView>;
  limits: LimitsView;
};
export type Answer = { command_id: string | null };

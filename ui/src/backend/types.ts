/**
 * What the core's local API sends and takes. The shapes of the state are made from the core's own types
 * (generated.ts); here they get the names the UI uses, and the messages of the streams stand beside them.
 */

import type { Answer, AskAnswer, ProfileKind, State } from "./generated";

export type {
  AgentView as Agent,
  Answer,
  Ask,
  AskAnswer,
  AskView as PendingAsk,
  Claim,
  ClosedAskView as ClosedAsk,
  CommandStatus,
  CommandView,
  ConnectionStatus,
  ConnectionView as Connection,
  Evidence,
  EndingView as Ending,
  Explanation,
  LaunchView as Launch,
  LimitsView as Limits,
  OfficeView as Office,
  PausedAgentView as PausedAgent,
  PoolView as Pool,
  PreservedView as Preserved,
  Problem,
  ProfileKind,
  ProfileView as Profile,
  ReadingView as Reading,
  RepositoryView as Repository,
  SessionState,
  SessionView as Session,
  SignInField,
  State,
  StopHow,
  Tier,
  TurnEvent,
  TurnExplanation,
} from "./generated";

export type MarkerWish = "plain" | "code" | "none";

/** The methods of `POST /api/v1/rpc/<method>` and what each takes; all give an `Answer`. */
export interface Methods {
  select_office: { office_id: string };
  create_session: { agent_id: string; repository?: string };
  send_prompt: {
    agent_id?: string;
    session_id?: string;
    prompt: string;
    marker?: MarkerWish;
    repository?: string;
  };
  cancel_turn: { session_id: string };
  cancel_command: { command_id: string };
  terminate: { session_id: string };
  answer_ask: { ask_id: string; answer: AskAnswer };
  explain: { session_id: string };
  list_preserved: Record<string, never>;
  restore_preserved: { repository: string; name: string; to_branch: string };
  /** What is left out is as the settings have it. */
  sign_in: { url?: string; publishable_key?: string; email: string; password: string };
  sign_out: Record<string, never>;
  use_profile: { profile: ProfileKind };
  make_office: { name: string };
  refresh: Record<string, never>;
}

export type Method = keyof Methods;

/** How one method is called. */
export type Call = <M extends Method>(method: M, params: Methods[M]) => Promise<Answer>;

/** A message on `/api/v1/events`: the state, whole, at most ten times a second. */
export interface CoreEvent {
  type: "state";
  state: State;
}

/** A text message of the core on a terminal stream; bytes travel beside it as binary frames. */
export type TerminalEvent =
  | { type: "snapshot"; offset: number; cols: number; rows: number }
  | { type: "exited"; code: number | null };

/** A text message to the core on a terminal stream; typed bytes travel beside it as binary frames. */
export type TerminalRequest =
  | { type: "resize"; cols: number; rows: number }
  | { type: "ack"; bytes: number };

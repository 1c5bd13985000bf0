/** What a session's state is called, and which of an agent's sessions is meant. */

import type { Ask, CommandView, Session, SessionState } from "../backend";
import type { Tone } from "./tone";

export interface SessionWords {
  label: string;
  tone: Tone;
}

const ASKS: Record<Ask, string> = {
  permission: "Asks permission",
  question: "Asks a question",
  login: "Needs sign-in",
  dialog: "Waits for an answer",
};

/** How a session stands; one that is not in the core's hands again yet says only that. */
export function standingWords(session: Pick<Session, "state" | "hold">): SessionWords {
  if (session.hold === "recovering") return { label: "Looked for", tone: "progress" };
  if (session.hold !== null) return { label: "Not reached", tone: "unsure" };
  return sessionWords(session.state);
}

/** What it means that a session is not in the core's hands; null when it is. */
export function holdSentence(session: Pick<Session, "hold">): string | null {
  if (session.hold === null) return null;
  return session.hold === "recovering"
    ? "SEMO Office was started again and looks for this session. Its agent goes on meanwhile."
    : "What holds this session does not answer. Nothing was done to it, and its commands are held; it is tried again.";
}

export function sessionWords(state: SessionState): SessionWords {
  switch (state.state) {
    case "starting":
      return { label: "Starting", tone: "progress" };
    case "idle":
      return { label: "Ready", tone: "good" };
    case "working":
      return { label: "Working", tone: "progress" };
    case "awaiting_person":
      return { label: ASKS[state.ask], tone: "attention" };
    case "stopping":
      return { label: "Ending", tone: "quiet" };
    case "exited":
      return { label: "Ended", tone: "quiet" };
  }
}

/** Programs that are ended by a signal and say so themselves exit with this and the signal's number. */
const SIGNAL_BASE = 128;

/** How a session ended, as a sentence. */
export function exitSentence(code: number | null): string {
  if (code === null) return "The agent program was ended by a signal.";
  if (code === 0) return "The agent program ended.";
  if (code > SIGNAL_BASE) return `The agent program was ended by signal ${code - SIGNAL_BASE}.`;
  return `The agent program ended with exit code ${code}.`;
}

export function isAlive(session: Session): boolean {
  return session.state.state !== "exited";
}

/** Whether there is something to interrupt. */
export function isInterruptible(session: Session): boolean {
  if (session.hold !== null) return false;
  return session.state.state === "working" || session.state.state === "awaiting_person";
}

/** An agent's living sessions, the one started last first. */
export function livingSessions(sessions: readonly Session[], agentId: string): Session[] {
  return sessions
    .filter((session) => session.agent_id === agentId && isAlive(session))
    .sort((a, b) => b.started_at - a.started_at);
}

/**
 * The session that speaks for the agent and is shown first: one that needs a person, then one that works, then the one
 * that was used last; one that was started ahead of any command, or that is ending, only when there is no other.
 */
export function leadingSession(
  living: readonly Session[],
  commands: readonly Pick<CommandView, "session_id" | "created_at" | "started_at">[] = [],
): Session | null {
  const rank = (session: Session) => {
    if (session.state.state === "awaiting_person") return 0;
    if (session.state.state === "working") return 1;
    if (session.state.state === "stopping") return 4;
    return session.warm ? 3 : 2;
  };
  const used = (session: Session) =>
    commands.reduce(
      (last, command) =>
        command.session_id === session.id ? Math.max(last, command.started_at ?? command.created_at) : last,
      session.started_at,
    );
  return [...living].sort((a, b) => rank(a) - rank(b) || used(b) - used(a))[0] ?? null;
}

/** How a session is told apart from the others of its agent. */
export function sessionName(session: Pick<Session, "branch" | "title">): string {
  return session.branch ?? session.title;
}

export interface Target {
  /** The session the prompt is sent to; null leaves the choice to the core, which takes a free one or starts one. */
  session: Session | null;
  /** What the person should know of where it goes; empty when it goes where they look. */
  remark: string;
}

/**
 * Where a prompt goes that is sent while this session is on the screen. One that waits for an answer takes none, but
 * that is no reason to keep its agent from working when another session is free or can be started.
 */
export function promptTarget(
  agent: { name: string },
  shown: Session | null,
  living: readonly Session[],
  canStart: boolean,
): Target {
  if (shown === null || !isAlive(shown)) return { session: null, remark: "" };
  const { state } = shown;
  if (shown.hold !== null) return { session: shown, remark: "This session is not reached yet: it waits until then." };
  if (state.state === "working") return { session: shown, remark: `${agent.name} is busy: it waits in line.` };
  if (state.state !== "awaiting_person") return { session: shown, remark: "" };
  const free = living.find((one) => one.id !== shown.id && one.state.state === "idle");
  if (free !== undefined) {
    return { session: null, remark: `This session waits for an answer: the prompt goes to a free one of ${agent.name}.` };
  }
  // Who is not signed in here is not signed in there either.
  if (canStart && state.ask !== "login") {
    return { session: null, remark: `This session waits for an answer: the prompt goes to a new one of ${agent.name}.` };
  }
  if (shown.ask?.answerable) return { session: shown, remark: `${agent.name} waits for an answer first: it stands above.` };
  const remark =
    shown.asks === null
      ? `${agent.name} waits for an answer in the terminal first.`
      : `Answer in the terminal first: ${shown.asks}`;
  return { session: shown, remark };
}

/** What a session's state is called, and which of an agent's sessions is meant. */

import type { Ask, Session, SessionState } from "../backend";
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
  if (code > SIGNAL_BASE) return `The agent program was ended by a signal (exit code ${code}).`;
  return `The agent program ended with exit code ${code}.`;
}

export function isAlive(session: Session): boolean {
  return session.state.state !== "exited";
}

/** Whether there is something to interrupt. */
export function isInterruptible(session: Session): boolean {
  return session.state.state === "working" || session.state.state === "awaiting_person";
}

/** An agent's living sessions, the one started last first. */
export function livingSessions(sessions: readonly Session[], agentId: string): Session[] {
  return sessions
    .filter((session) => session.agent_id === agentId && isAlive(session))
    .sort((a, b) => b.started_at - a.started_at);
}

/** The state that speaks for the agent: one that needs a person comes first, then work, then the newest. */
export function leadingSession(living: readonly Session[]): Session | null {
  return (
    living.find((session) => session.state.state === "awaiting_person") ??
    living.find((session) => session.state.state === "working") ??
    living[0] ??
    null
  );
}

/** What an agent asks of a person, and what became of it. */

import type { Agent, ClosedAsk, PendingAsk, Session } from "../backend";
import { exactLine } from "./exact";
import { sessionName } from "./sessions";
import { clock, withClocks } from "./time";
import type { Tone } from "./tone";

/** Longest message that goes with an answer, in bytes (`domain::ask::ANSWER_MESSAGE_BYTES_MAX`). */
export const MESSAGE_BYTES_MAX = 4 * 1024;

const encoder = new TextEncoder();

/** Who asks for what, as a heading: “Mina asks permission to use Bash”. */
export function askTitle(ask: Pick<PendingAsk, "kind" | "tool">, agent: Pick<Agent, "name"> | null): string {
  const who = agent?.name ?? "An agent";
  switch (ask.kind) {
    case "permission":
      return ask.tool === null ? `${who} asks permission` : `${who} asks permission to use ${exactLine(ask.tool)}`;
    case "question":
      return `${who} asks a question`;
    case "login":
      return `${who} needs somebody to sign in`;
    case "dialog":
      return `${who} waits for an answer`;
  }
}

/** What is asked for, in a word or two, for lists. */
export function askKind(ask: Pick<PendingAsk, "kind" | "tool">): string {
  switch (ask.kind) {
    case "permission":
      return ask.tool === null ? "permission" : exactLine(ask.tool);
    case "question":
      return "question";
    case "login":
      return "sign-in";
    case "dialog":
      return "dialog";
  }
}

/** The command, file or question itself: what the title says already is left out. */
export function askText(ask: Pick<PendingAsk, "tool" | "text">): string {
  const asked = `May it use ${ask.tool ?? ""}? `;
  return ask.text.startsWith(asked) ? ask.text.slice(asked.length) : ask.text;
}

/** How the core, or the agent program itself, says that a text goes on (`session::follow`). */
const CUT = /…(?: \(cut: [^()]*\))?\s*$/;

/** Whether there may be more of it than is shown: nobody shall allow what they could not read. */
export function mayBeCut(ask: Pick<PendingAsk, "text">): boolean {
  return CUT.test(ask.text);
}

/** Why an ask has no buttons, or null when it has. */
export function onlyAtTerminal(ask: Pick<PendingAsk, "answerable" | "mine">): string | null {
  if (ask.answerable) return null;
  return ask.mine
    ? "This can only be answered in the terminal."
    : "This can only be answered in the session's terminal, on the machine it runs on.";
}

/** Why this message cannot go with an answer, or null. */
export function messageFault(message: string): string | null {
  const bytes = encoder.encode(message).length;
  return bytes > MESSAGE_BYTES_MAX ? `Too long: at most ${MESSAGE_BYTES_MAX / 1024} KiB.` : null;
}

/** The asks that a view of this agent shows: those of the session on the screen first, each group oldest first. */
export function asksOfAgent(asks: readonly PendingAsk[], agentId: string, sessionId: string | null): PendingAsk[] {
  return asks
    .filter((ask) => ask.agent_id === agentId || ask.session_id === sessionId)
    .sort(
      (a, b) =>
        Number(b.session_id === sessionId) - Number(a.session_id === sessionId) || a.asked_at - b.asked_at,
    );
}

/** What is read out when asks come up; null when none did. */
export function newAsksSentence(
  before: readonly PendingAsk[],
  now: readonly PendingAsk[],
  agents: readonly Agent[],
): string | null {
  const known = new Set(before.map((ask) => ask.id));
  const fresh = now.filter((ask) => !known.has(ask.id));
  const first = fresh[0];
  if (first === undefined) return null;
  if (fresh.length > 1) return `${fresh.length} agents wait for you.`;
  const agent = agents.find((one) => one.id === first.agent_id) ?? null;
  return `${askTitle(first, agent)}: ${clipped(exactLine(askText(first)))}`;
}

export interface Remark {
  /** Of the ask it is about. */
  id: string;
  tone: Tone;
  title: string;
  detail: string;
}

/** What became of an ask that is no longer there and that this window did not answer. */
export function closedElsewhere(ask: PendingAsk, agent: Pick<Agent, "name"> | null, closed: readonly ClosedAsk[], now: number): Remark {
  const end = closed.find((one) => one.id === ask.id);
  const how =
    end === undefined
      ? "it was answered elsewhere, or taken back"
      : `${withoutColons(withClocks(exactLine(end.how), now))} at ${clock(end.closed_at, now)}`;
  return {
    id: ask.id,
    tone: "quiet",
    title: `${agent?.name ?? "An agent"} does not wait any more: ${how}.`,
    detail: clipped(exactLine(askText(ask))),
  };
}

/** For an answer that came second: whoever answers first wins, and nothing is wrong with that. */
export function answeredBefore(ask: PendingAsk, agent: Pick<Agent, "name"> | null, reason: string, now: number): Remark {
  return {
    id: ask.id,
    tone: "unsure",
    title: `Somebody was faster: ${agent?.name ?? "the agent"} has its answer, and yours was not used.`,
    detail: oneColon(withClocks(reason, now)),
  };
}

const COLON = /: /g;
/** What is quoted stays as it was said. */
const QUOTED = /(“[^”]*”|`[^`]*`)/;

/** “withdrawn: the session ended” after a colon of our own: “withdrawn, the session ended”. */
function withoutColons(text: string): string {
  return text
    .split(QUOTED)
    .map((part, index) => (index % 2 === 1 ? part : part.replace(COLON, ", ")))
    .join("");
}

/** A sentence has one colon; what follows a second is added with a comma. */
function oneColon(text: string): string {
  const first = text.search(/: /);
  return first === -1 ? text : text.slice(0, first + 2) + withoutColons(text.slice(first + 2));
}

/** Which of the agent's other sessions asks, for a line over the terminal of another one. */
export function askPlace(ask: Pick<PendingAsk, "mine">, session: Pick<Session, "branch" | "title"> | null): string {
  if (session !== null) return `in another session, ${sessionName(session)}`;
  return ask.mine ? "in another session" : "in a session on another machine";
}

/** The title of the window: how many wait, then where we are. */
export function windowTitle(office: string | null, waiting: number): string {
  const name = office === null ? "SEMO Office" : `${office} – SEMO Office`;
  return waiting === 0 ? name : `(${waiting}) ${name}`;
}

const DETAIL_CHARS_MAX = 160;

function clipped(text: string): string {
  return text.length > DETAIL_CHARS_MAX ? `${text.slice(0, DETAIL_CHARS_MAX)}…` : text;
}

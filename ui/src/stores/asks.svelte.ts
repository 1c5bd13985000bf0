/**
 * What the window does with asks: who is told of a new one, which answers are on their way, and what is said when
 * somebody else was faster. The asks themselves are the core's and stand in its state.
 */

import { BackendError, type AskAnswer, type Backend, type PendingAsk, type State } from "../backend";
import { answeredBefore, closedElsewhere, newAsksSentence, type Remark } from "../words/asks";
import { now as moment } from "./now.svelte";

/** Remarks that stand at once; the oldest goes first. */
const REMARKS_MAX = 4;
/** Asks that this window answered and that may still be in the state; the oldest goes first. */
const ANSWERED_MAX = 64;

export class AskBook {
  /** Asks whose answer is on its way. */
  sending = $state.raw<readonly string[]>([]);
  /** What became of asks that others answered. */
  remarks = $state.raw<readonly Remark[]>([]);
  /** Read out to people who cannot see the card come up. */
  announcement = $state("");
  /** The ask on the screen: it stays there until it is over or the person turns away, whatever else comes up. */
  picked = $state<string | null>(null);

  #answered: string[] = [];

  isSending(ask: PendingAsk): boolean {
    return this.sending.includes(ask.id);
  }

  /** Compares two states of one office. */
  follow(before: State, now: State): void {
    const fresh = newAsksSentence(before.asks, now.asks, now.agents);
    if (fresh !== null) this.announcement = fresh;
    for (const ask of before.asks) {
      if (now.asks.some((one) => one.id === ask.id)) continue;
      if (this.picked === ask.id) this.picked = null;
      // Ours, or on its way: then the answer to the call says how it went.
      if (this.#answered.includes(ask.id) || this.isSending(ask)) continue;
      if (this.remarks.some((remark) => remark.id === ask.id)) continue;
      this.#remark(closedElsewhere(ask, agentOf(now, ask), now.closed_asks, moment.ms));
    }
  }

  /** Forgets everything: another office has other asks. */
  clear(): void {
    this.sending = [];
    this.remarks = [];
    this.picked = null;
    this.announcement = "";
  }

  /** Answers; throws what is neither taken nor answered by somebody before. */
  async answer(backend: Backend, state: State, ask: PendingAsk, answer: AskAnswer): Promise<void> {
    if (this.isSending(ask)) return;
    this.sending = [...this.sending, ask.id];
    try {
      await backend.call("answer_ask", { ask_id: ask.id, answer });
      this.#answered = [...this.#answered, ask.id].slice(-ANSWERED_MAX);
      this.dismiss(ask.id);
    } catch (error) {
      const late = error instanceof BackendError && (error.code === "conflict" || error.code === "not_found");
      if (!late) throw error;
      this.dismiss(ask.id);
      this.#remark(answeredBefore(ask, agentOf(state, ask), error.message, moment.ms));
    } finally {
      this.sending = this.sending.filter((id) => id !== ask.id);
    }
  }

  dismiss(id: string): void {
    this.remarks = this.remarks.filter((remark) => remark.id !== id);
  }

  #remark(remark: Remark): void {
    this.remarks = [...this.remarks, remark].slice(-REMARKS_MAX);
  }
}

function agentOf(state: State, ask: PendingAsk) {
  return state.agents.find((agent) => agent.id === ask.agent_id) ?? null;
}

/**
 * All that the views read: the core's state as it last came, how we stand with the core, and what the person picked.
 * The state is replaced whole and never edited here; the only writer is the core.
 */

import { getContext, setContext } from "svelte";

import {
  BackendError,
  connect,
  type Agent,
  type Answer,
  type Backend,
  type Link,
  type MarkerWish,
  type Method,
  type Methods,
  type Session,
  type State,
} from "../backend";
import { isAlive, livingSessions } from "../words/sessions";

/** Something that went wrong with what the person just did. */
export interface Notice {
  message: string;
  hint: string;
}

export class OfficeStore {
  link = $state.raw<Link>({ phase: "starting" });
  state = $state.raw<State | null>(null);
  notice = $state.raw<Notice | null>(null);
  backend = $state.raw<Backend | null>(null);
  /** The command the person sent last, shown first among the results. */
  lastSent = $state<string | null>(null);

  #pickedAgent = $state<string | null>(null);
  #pickedSession = $state<string | null>(null);
  /** The picked session after the core has let go of it, until the person turns to something else. */
  #gone = $state.raw<Session | null>(null);
  /** The agent's other sessions at that moment; one that is not among them is new, and the view moves to it. */
  #besideGone: string[] = [];
  /** Drafts per agent, so that looking at another agent loses nothing. */
  drafts = $state<Record<string, string>>({});

  readonly isLive = $derived(this.link.phase === "live");

  readonly agent: Agent | null = $derived.by(() => {
    const agents = this.state?.agents ?? [];
    return agents.find((agent) => agent.id === this.#pickedAgent) ?? agents[0] ?? null;
  });

  readonly living: Session[] = $derived(
    this.agent === null ? [] : livingSessions(this.state?.sessions ?? [], this.agent.id),
  );

  /** The picked session, also after its end, so that its last words can be read; else the agent's newest. */
  readonly session: Session | null = $derived.by(() => {
    const picked = this.state?.sessions.find((session) => session.id === this.#pickedSession) ?? this.#gone;
    if (picked !== null && picked.agent_id === this.agent?.id) return picked;
    return this.living[0] ?? null;
  });

  readonly isFull = $derived.by(() => {
    if (this.state === null) return false;
    return this.state.sessions.filter(isAlive).length >= this.state.limits.sessions_max;
  });

  async connect(): Promise<void> {
    this.backend = await connect({
      onLink: (link) => (this.link = link),
      onState: (state) => this.#take(state),
    });
  }

  pickAgent(agentId: string): void {
    this.#pickedAgent = agentId;
    this.#pickedSession = null;
    this.#gone = null;
    this.#holdSession();
  }

  pickSession(session: Session): void {
    this.#pickedAgent = session.agent_id;
    this.#pickedSession = session.id;
    this.#gone = null;
  }

  agentById(id: string | null): Agent | null {
    return this.state?.agents.find((agent) => agent.id === id) ?? null;
  }

  /** Starts a session of the agent on the screen; the view moves to it as soon as it exists. */
  async startSession(agentId: string, repository: string | null): Promise<void> {
    const params = repository === null ? { agent_id: agentId } : { agent_id: agentId, repository };
    const answer = await this.act("create_session", params);
    if (answer === null) return;
    this.lastSent = answer.command_id;
    if (this.session?.state.state === "exited") this.pickAgent(agentId);
  }

  /** Sends a prompt to the session on the screen, or to the agent, who then gets one. True when it was taken. */
  async sendPrompt(agent: Agent, session: Session | null, prompt: string, marker: MarkerWish): Promise<boolean> {
    const target = session !== null && isAlive(session) ? { session_id: session.id } : {};
    const answer = await this.act("send_prompt", { agent_id: agent.id, ...target, prompt, marker });
    if (answer === null) return false;
    this.lastSent = answer.command_id;
    return true;
  }

  /** Calls the core; what goes wrong is told to the person, and null comes back. */
  async act<M extends Method>(method: M, params: Methods[M]): Promise<Answer | null> {
    if (this.backend === null) return null;
    try {
      const answer = await this.backend.call(method, params);
      this.notice = null;
      return answer;
    } catch (error) {
      const known = error instanceof BackendError ? error : new BackendError("unknown", String(error));
      this.notice = { message: known.message, hint: known.hint };
      return null;
    }
  }

  #take(state: State): void {
    const officeChanged = this.state?.office?.id !== state.office?.id;
    const before = this.session;
    this.state = state;
    if (officeChanged) {
      this.#pickedAgent = null;
      this.#pickedSession = null;
      this.#gone = null;
    } else if (before !== null && before !== this.#gone && !state.sessions.some(({ id }) => id === before.id)) {
      this.#gone = { ...before, state: { state: "exited", code: null }, asks: null };
      this.#besideGone = this.living.map((session) => session.id);
    }
    if (this.#gone !== null && this.living.some((session) => !this.#besideGone.includes(session.id))) {
      this.#gone = null;
      this.#pickedSession = null;
    }
    this.#holdSession();
  }

  /** Stays with the session on the screen when a newer one of the same agent appears. */
  #holdSession(): void {
    if (this.#pickedSession === null && this.session !== null) this.#pickedSession = this.session.id;
  }
}

const KEY = Symbol("office");

export function provideOffice(store: OfficeStore): void {
  setContext(KEY, store);
}

export function useOffice(): OfficeStore {
  return getContext<OfficeStore>(KEY);
}

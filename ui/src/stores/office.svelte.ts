/**
 * All that the views read: the core's state as it last came, how we stand with the core, and what the person picked.
 * The state is replaced whole and never edited here; the only writer is the core.
 */

import { getContext, setContext } from "svelte";

import {
  connect,
  knownError,
  type Agent,
  type Answer,
  type AskAnswer,
  type Backend,
  type CommandView,
  type Link,
  type MarkerWish,
  type Method,
  type Methods,
  type PendingAsk,
  type ProfileKind,
  type Session,
  type State,
  type StopHow,
} from "../backend";
import { agentIdOf } from "../words/commands";
import { WAITS_FOR_A_START } from "../words/life";
import { isAlive, leadingSession, livingSessions, promptTarget, type Target } from "../words/sessions";
import { pausedOf } from "../words/pool";
import { hostOf } from "../words/profile";
import { AskBook } from "./asks.svelte";
import { now } from "./now.svelte";

/** Something that went wrong with what the person just did. */
export interface Notice {
  message: string;
  hint: string;
}

/** What the person wants to have explained: a session, or one command that it carried out. */
export interface Explaining {
  sessionId: string | null;
  command: CommandView | null;
}

/** A switch of the core to another office's server, which takes a new start of it. */
export interface Switch {
  /** Where it switches to, for people. */
  to: string;
  /** The launch that it switches from, by its moment. */
  from: number;
  /** Since when, ms since the epoch. */
  since: number;
}

/** Sessions whose agent is remembered. */
const OWNERS_MAX = 1_000;

/** A switch that begins so soon behind the answer to ours is ours; a later one is somebody else's. */
const OURS_MS = 5_000;

export class OfficeStore {
  link = $state.raw<Link>({ phase: "starting" });
  state = $state.raw<State | null>(null);
  notice = $state.raw<Notice | null>(null);
  backend = $state.raw<Backend | null>(null);
  /** The command the person sent last, shown first among the results. */
  lastSent = $state<string | null>(null);
  readonly asks = new AskBook();
  explaining = $state.raw<Explaining | null>(null);
  /** The launch of the core (by its moment) whose word about the sessions of before the person has put away. */
  launchSeen = $state(0);

  /** Set while the core switches to another office's server: what it said last is over. */
  switching = $state.raw<Switch | null>(null);

  #pickedAgent = $state<string | null>(null);
  #pickedSession = $state<string | null>(null);
  /** The switch that this window has asked for last, and when the core took it (ms since the epoch). */
  #asked: { to: string; taken: number | null } | null = null;
  /** The launch (by its moment) of which the person wants to see what was there, although it may be left. */
  #stayedWith: number | null = null;
  /** The picked session after the core has let go of it, until the person turns to something else. */
  #gone = $state.raw<Session | null>(null);
  /** The agent's other sessions at that moment; one that is not among them is new, and the view moves to it. */
  #besideGone: string[] = [];
  /** Whose session each was that this window has seen: commands for one outlive it. */
  #owners = $state.raw<ReadonlyMap<string, string>>(new Map());
  /** Kept work that this window has put into a branch: its key (`words/preserved`) → the branch. */
  restored = $state.raw<Readonly<Record<string, string>>>({});
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

  /** The picked session, also after its end, so that its last words can be read; else the one that matters. */
  readonly session: Session | null = $derived.by(() => {
    const picked = this.state?.sessions.find((session) => session.id === this.#pickedSession) ?? this.#gone;
    if (picked !== null && picked.agent_id === this.agent?.id) return picked;
    return leadingSession(this.living, this.state?.commands);
  });

  readonly isFull = $derived.by(() => {
    if (this.state === null) return false;
    // Warm ones make room for whoever is asked for.
    return this.state.sessions.filter((one) => isAlive(one) && !one.warm).length >= this.sessionsMax;
  });

  /** Most sessions at once: what the office allows, within what this workstation allows. */
  readonly sessionsMax = $derived.by(() => {
    if (this.state === null) return 0;
    const { limits, pool } = this.state;
    return pool.sessions_max === 0 ? limits.sessions_max : Math.min(pool.sessions_max, limits.sessions_max);
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
    this.asks.picked = null;
    this.#holdSession();
  }

  pickSession(session: Session): void {
    this.asks.picked = null;
    this.#pickedAgent = session.agent_id;
    this.#pickedSession = session.id;
    this.#gone = null;
  }

  /** Turns to whoever asks; of an ask on another machine, to its agent. */
  pickAsk(ask: PendingAsk): void {
    const session = this.state?.sessions.find((one) => one.id === ask.session_id);
    if (session !== undefined) this.pickSession(session);
    else if (ask.agent_id !== null && ask.agent_id !== this.agent?.id) this.pickAgent(ask.agent_id);
    this.asks.picked = ask.id;
  }

  /** The agent that a command is for; one that names only a session is for the agent of that session. */
  agentOf(command: CommandView): Agent | null {
    return this.agentById(agentIdOf(command, this.#owners));
  }

  /** Remembers for as long as the window stands where kept work was put. */
  noteRestored(key: string, branch: string): void {
    this.restored = { ...this.restored, [key]: branch };
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

  /** Where a prompt for the agent on the screen goes now. */
  readonly target: Target = $derived.by(() => {
    if (this.agent === null || this.state === null) return { session: null, remark: "" };
    const { pool, repositories } = this.state;
    const paused = pausedOf(pool, this.agent.id, now.ms) !== null;
    const target = promptTarget(this.agent, this.session, this.living, !this.isFull && !paused && repositories.length > 0);
    return this.state.ending === null || !this.isLive ? target : { ...target, remark: WAITS_FOR_A_START };
  });

  /** Sends a prompt to the session on the screen, or to the agent, who then gets one. True when it was taken. */
  async sendPrompt(agent: Agent, prompt: string, marker: MarkerWish): Promise<boolean> {
    const { session } = this.target;
    const target = session === null ? {} : { session_id: session.id };
    const answer = await this.act("send_prompt", { agent_id: agent.id, ...target, prompt, marker });
    if (answer === null) return false;
    this.lastSent = answer.command_id;
    return true;
  }

  /** Says something to an ask. That somebody was faster is no fault and is told as a remark. */
  async answer(ask: PendingAsk, answer: AskAnswer): Promise<void> {
    if (this.backend === null || this.state === null) return;
    try {
      await this.asks.answer(this.backend, this.state, ask, answer);
      this.notice = null;
    } catch (error) {
      this.#note(error);
    }
  }

  /** Calls the core; what goes wrong is told to the person, and null comes back. */
  async act<M extends Method>(method: M, params: Methods[M]): Promise<Answer | null> {
    if (this.backend === null) return null;
    try {
      const answer = await this.backend.call(method, params);
      this.notice = null;
      return answer;
    } catch (error) {
      this.#note(error);
      return null;
    }
  }

  /** Signs in to a team. What goes wrong is for the form that asked. */
  async signIn(wanted: Methods["sign_in"]): Promise<void> {
    await this.#switch(hostOf(wanted.url ?? this.state?.profile.team?.url ?? ""), (backend) => backend.call("sign_in", wanted));
  }

  /** Switches to the office of this machine, or to the team's that is known. */
  async useProfile(profile: ProfileKind): Promise<void> {
    const to = profile === "this_machine" ? "this machine" : hostOf(this.state?.profile.team?.url ?? "");
    await this.#switch(to, (backend) => backend.call("use_profile", { profile }));
  }

  async signOut(): Promise<void> {
    await this.backend?.call("sign_out", {});
    this.notice = null;
  }

  /** Goes back to what was there: the switch may hang. The next launch is shown as ever. */
  stay(): void {
    this.#stayedWith = this.switching?.from ?? null;
    this.switching = null;
  }

  /** The core says by its state whether it switches: a sign-in where it belongs already needs no switch. */
  async #switch(to: string, call: (backend: Backend) => Promise<Answer>): Promise<void> {
    if (this.backend === null) return;
    this.#asked = { to, taken: null };
    this.#stayedWith = null;
    try {
      await call(this.backend);
      this.notice = null;
      this.#asked = { to, taken: Date.now() };
      this.#lookForSwitch();
    } catch (error) {
      this.#asked = null;
      throw error;
    }
  }

  /** Also of one that another window, or the CLI, has asked for. Until ours is answered, the form that asked stays. */
  #lookForSwitch(): void {
    const { state } = this;
    if (state === null || !state.profile.changing || state.launch.since === this.#stayedWith) return;
    if (this.switching !== null || this.#asked?.taken === null) return;
    const ours = Date.now() - (this.#asked?.taken ?? 0) < OURS_MS;
    this.switching = { to: (ours && this.#asked?.to) || "another office", from: state.launch.since, since: now.ms };
    this.#asked = null;
  }

  /** Asks for the end of the core, and with it of its sessions unless they are to be left. */
  async stop(how: StopHow): Promise<void> {
    try {
      await this.backend?.stop(how);
      this.notice = null;
    } catch (error) {
      this.#note(error);
    }
  }

  #note(error: unknown): void {
    const known = knownError(error);
    this.notice = { message: known.message, hint: known.hint };
  }

  #take(state: State): void {
    // A new launch is there, or the one of before goes on: the switch did not come about.
    if (state.launch.since !== this.switching?.from || !state.profile.changing) this.switching = null;
    const officeChanged = this.state?.office?.id !== state.office?.id;
    const before = this.session;
    if (this.state !== null && !officeChanged) this.asks.follow(this.state, state);
    this.state = state;
    this.#lookForSwitch();
    this.#remember(state, officeChanged);
    if (officeChanged) {
      this.asks.clear();
      this.restored = {};
      this.#pickedAgent = null;
      this.#pickedSession = null;
      this.#gone = null;
    } else if (before !== null && before !== this.#gone && !state.sessions.some(({ id }) => id === before.id)) {
      this.#gone = { ...before, state: { state: "exited", code: null }, asks: null };
      this.#besideGone = this.living.map((session) => session.id);
    }
    const fresh = this.living.find((session) => !this.#besideGone.includes(session.id));
    if (this.#gone !== null && fresh !== undefined) {
      this.#gone = null;
      this.#pickedSession = fresh.id;
    }
    this.#holdSession();
  }

  #remember(state: State, officeChanged: boolean): void {
    const owners = new Map(officeChanged ? [] : this.#owners);
    for (const { session_id, agent_id } of [...state.closed_asks, ...state.commands, ...state.asks]) {
      if (session_id !== null && agent_id !== null) owners.set(session_id, agent_id);
    }
    for (const { id, agent_id } of state.sessions) owners.set(id, agent_id);
    // The oldest go first; a map keeps the order in which its keys came.
    this.#owners = new Map([...owners].slice(-OWNERS_MAX));
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

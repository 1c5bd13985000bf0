/** The stream of states. It opens itself again for as long as it is wanted, and says truthfully how it stands. */

import { BackendError, knownError } from "./errors";
import { StillStarting, type CoreAddress, type Host } from "./host";
import { fetchState } from "./http";
import { openSocket, parseFrame, retryDelay, SETTLED_MS } from "./sockets";
import type { CoreEvent, State } from "./types";

/** How the UI stands with its core. */
export type Link =
  | { phase: "starting" }
  | { phase: "live" }
  /** It was live before; what is on the screen may be old. */
  | { phase: "reconnecting"; error: BackendError }
  /** It never was live; tried again by itself. */
  | { phase: "unreachable"; error: BackendError }
  /** The key is missing, or whoever answers has another; the person has to see to it. */
  | { phase: "refused"; error: BackendError };

export interface EventsListener {
  onLink(link: Link): void;
  onState(state: State): void;
}

export interface Events {
  /** The core's address of this moment, or null while it is not known. */
  core(): CoreAddress | null;
  /** Tries again at once instead of waiting. */
  retryNow(): void;
  close(): void;
}

const LOST = new BackendError(
  "lost",
  "The connection to SEMO Office's core was lost.",
  "What you see may be out of date. It is tried again by itself.",
);

export function openEvents(host: Host, listener: EventsListener): Events {
  let core: CoreAddress | null = null;
  let socket: WebSocket | null = null;
  let timer: ReturnType<typeof setTimeout> | null = null;
  let failures = 0;
  let attempt = 0;
  let wasLive = false;
  let closed = false;

  function again() {
    if (closed || timer !== null) return;
    timer = setTimeout(start, retryDelay(failures, Math.random()));
    failures += 1;
  }

  function fail(error: unknown) {
    if (closed) return;
    if (error instanceof StillStarting) {
      listener.onLink({ phase: "starting" });
      failures = Math.min(failures, 1);
      again();
      return;
    }
    const known = knownError(error);
    if (known.code === "no_token" || known.code === "unauthorized") {
      listener.onLink({ phase: "refused", error: known });
      // Whoever answered may have been somebody else on the core's port.
      if (known.code === "unauthorized") again();
      return;
    }
    listener.onLink(
      wasLive ? { phase: "reconnecting", error: LOST } : { phase: "unreachable", error: known },
    );
    again();
  }

  async function start() {
    timer = null;
    const mine = ++attempt;
    const stale = () => closed || mine !== attempt;
    let address: CoreAddress;
    try {
      // The window's core may come back on another port after a restart, so the address is asked for each time.
      address = await host.address();
    } catch (error) {
      if (!stale()) fail(error);
      return;
    }
    if (stale()) return;
    core = address;
    const openedAt = performance.now();
    const opened = openSocket(address, "/api/v1/events");
    socket = opened;
    opened.onmessage = (message) => {
      const event = parseFrame(message.data) as CoreEvent | null;
      if (event?.type !== "state") return;
      wasLive = true;
      listener.onState(event.state);
      listener.onLink({ phase: "live" });
    };
    opened.onclose = () => {
      if (socket !== opened || closed) return;
      socket = null;
      // Whoever listens there next may be somebody else, who gets no key from us.
      core = null;
      if (performance.now() - openedAt > SETTLED_MS) failures = 0;
      // A refused handshake looks like any other failure in a browser; a plain request tells them apart.
      host
        .address()
        .then(fetchState)
        .then(
          () => stale() || fail(LOST),
          (error: unknown) => stale() || fail(error),
        );
    };
  }

  function retryNow() {
    if (timer !== null) clearTimeout(timer);
    failures = 0;
    if (socket === null) void start();
  }

  host.onNewAddress?.(retryNow);
  void start();
  return {
    core: () => core,
    retryNow,
    close() {
      closed = true;
      if (timer !== null) clearTimeout(timer);
      socket?.close();
    },
  };
}

/**
 * The one door to the core. Nothing outside this folder opens a connection, knows an address or a key, or imports
 * anything of the desktop window's.
 */

import { BackendError } from "./errors";
import { openEvents, type Events, type EventsListener } from "./events";
import type { Host } from "./host";
import { call, stop } from "./http";
import { openTerminal, type TerminalListener, type TerminalStream } from "./terminal";
import type { Call, StopHow } from "./types";

export { BackendError, knownError } from "./errors";
export type { Link } from "./events";
export type { TerminalListener, TerminalStream } from "./terminal";
export type * from "./types";

export interface Backend {
  readonly place: Host["kind"];
  readonly call: Call;
  /** Asks for the end of the core, in this way. */
  stop(how: StopHow): Promise<void>;
  openTerminal(sessionId: string, listener: TerminalListener): TerminalStream;
  openExternal(url: string): void;
  /** The title of the page and the window, and the number of agents that wait for the person. */
  showWaiting(title: string, count: number): void;
  retryNow(): void;
  close(): void;
}

/** Connects to the core of the place this page lives in, and keeps connecting until closed. */
export async function connect(listener: EventsListener): Promise<Backend> {
  return backendOn(await hostOfThisPage(), listener);
}

async function hostOfThisPage(): Promise<Host> {
  if ("__TAURI_INTERNALS__" in window) return (await import("./tauri")).tauriHost();
  return (await import("./browser")).browserHost();
}

function backendOn(host: Host, listener: EventsListener): Backend {
  const events: Events = openEvents(host, listener);
  const reached = () => {
    const core = events.core();
    if (core === null) throw new BackendError("starting", "SEMO Office's core is not reached at the moment.", "Try again in a moment; nothing was sent.");
    return core;
  };
  return {
    place: host.kind,
    call: async (method, params) => call(reached(), method, params),
    stop: async (how) => stop(reached(), how),
    openTerminal: (sessionId, terminal) => openTerminal(events.core, sessionId, terminal),
    openExternal(url) {
      if (/^https?:\/\//i.test(url)) host.openExternal(url);
    },
    showWaiting: (title, count) => host.showWaiting(title, count),
    retryNow: events.retryNow,
    close: events.close,
  };
}

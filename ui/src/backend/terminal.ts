/**
 * The stream of one session's terminal. It opens itself again until it is closed; every opening begins with a
 * snapshot, so nothing has to be remembered here. Typed bytes are sent or dropped, never kept: keys that arrive
 * seconds late would be answers to another question.
 */

import type { CoreAddress } from "./host";
import { openSocket, parseFrame, retryDelay, SETTLED_MS } from "./sockets";
import type { TerminalEvent, TerminalRequest } from "./types";

export interface TerminalListener {
  /** A new beginning: clear the screen; `bytes` draw it at this size. */
  onSnapshot(bytes: Uint8Array, cols: number, rows: number): void;
  onOutput(bytes: Uint8Array): void;
  onExited(code: number | null): void;
  onConnected(connected: boolean): void;
}

export interface TerminalStream {
  /** False when the bytes could not be sent. */
  send(bytes: Uint8Array): boolean;
  resize(cols: number, rows: number): void;
  /** Tells the core that `bytes` of output are on the screen. */
  acknowledge(bytes: number): void;
  /** The session is over: what is still on its way is shown, but the stream is not opened again. */
  settle(): void;
  close(): void;
}

export function openTerminal(
  core: () => CoreAddress | null,
  sessionId: string,
  listener: TerminalListener,
): TerminalStream {
  let socket: WebSocket | null = null;
  let timer: ReturnType<typeof setTimeout> | null = null;
  let failures = 0;
  let ended = false;
  /** The size that the next binary frame, a snapshot, is drawn for. */
  let snapshot: { cols: number; rows: number } | null = null;

  function onText(data: string) {
    const event = parseFrame(data) as TerminalEvent | null;
    if (event?.type === "snapshot") {
      snapshot = { cols: event.cols, rows: event.rows };
    } else if (event?.type === "exited") {
      ended = true;
      listener.onExited(event.code);
    }
  }

  function onBytes(bytes: Uint8Array) {
    if (snapshot === null) return listener.onOutput(bytes);
    const { cols, rows } = snapshot;
    snapshot = null;
    listener.onSnapshot(bytes, cols, rows);
    listener.onConnected(true);
  }

  function start() {
    timer = null;
    const address = core();
    if (address === null) return again();
    const opened = openSocket(address, `/api/v1/sessions/${encodeURIComponent(sessionId)}/terminal`);
    const openedAt = performance.now();
    socket = opened;
    snapshot = null;
    opened.onmessage = (message: MessageEvent<string | ArrayBuffer>) => {
      if (typeof message.data === "string") onText(message.data);
      else onBytes(new Uint8Array(message.data));
    };
    opened.onclose = () => {
      if (socket !== opened) return;
      socket = null;
      if (ended) return;
      if (performance.now() - openedAt > SETTLED_MS) failures = 0;
      listener.onConnected(false);
      again();
    };
  }

  function again() {
    timer = setTimeout(start, retryDelay(failures, Math.random()));
    failures += 1;
  }

  function say(request: TerminalRequest) {
    if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(request));
  }

  start();
  return {
    send(bytes) {
      if (socket?.readyState !== WebSocket.OPEN) return false;
      socket.send(bytes as Uint8Array<ArrayBuffer>);
      return true;
    },
    resize: (cols, rows) => say({ type: "resize", cols, rows }),
    acknowledge: (bytes) => say({ type: "ack", bytes }),
    settle() {
      ended = true;
      if (timer !== null) clearTimeout(timer);
    },
    close() {
      ended = true;
      if (timer !== null) clearTimeout(timer);
      const open = socket;
      socket = null;
      open?.close();
    },
  };
}

/** What every stream of the core has in common: its address, its key, and how long to wait before trying again. */

import type { CoreAddress } from "./host";

const PROTOCOL = "semo.v1";
/** First and longest wait before a stream is opened again. */
const RETRY_MS_MIN = 250;
const RETRY_MS_MAX = 5_000;
/** A stream that lived this long was good: the next wait is a short one again. */
export const SETTLED_MS = 5_000;

/** Opens a stream. A WebSocket cannot carry a header, so the key travels in the list of subprotocols. */
export function openSocket(core: CoreAddress, path: string): WebSocket {
  const socket = new WebSocket(core.url.replace(/^http/, "ws") + path, [PROTOCOL, `token.${core.token}`]);
  socket.binaryType = "arraybuffer";
  return socket;
}

/** Milliseconds to wait after `failures` failures in a row; `random` in 0..1 spreads many windows apart. */
export function retryDelay(failures: number, random: number): number {
  const full = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** Math.min(failures, 10));
  return Math.round(full / 2 + (full / 2) * random);
}

/** The JSON object in a text frame, or null: a frame that is none is dropped, never thrown. */
export function parseFrame(data: unknown): Record<string, unknown> | null {
  if (typeof data !== "string") return null;
  try {
    const value: unknown = JSON.parse(data);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}

/** The sessions of this machine as a whole: how many, how ready, how heavy. */

import type { PausedAgent, Pool, Session } from "../backend";
import { counted } from "./facts";
import { clock } from "./time";

/** From here on the memory is nearly used up, and idle sessions will be given up. */
const MEMORY_NEAR = 0.9;

/** Short, for the rail: “3 sessions, 1 at work · 1.0 GB”. How many there may be stands in the sheet. */
export function poolLine(pool: Pool, sessions: readonly Pick<Session, "state">[]): string {
  // One that asks in the middle of its work has not stopped working for anybody who counts.
  const busy = sessions.filter(({ state }) => state.state === "working" || state.state === "awaiting_person").length;
  const open = pool.open === 0 ? "No sessions" : counted(pool.open, "session");
  const parts = [pool.open === 0 ? open : `${open}, ${busy === 0 ? "none" : busy} at work`];
  if (pool.waiting > 0) parts.push(`${pool.waiting} in line`);
  if (pool.open > 0 && pool.memory_mb !== null) parts.push(size(pool.memory_mb));
  return parts.join(" · ");
}

/** “1.2 of 4.0 GB”, or that it has not been measured. */
export function memoryWords(usedMb: number | null, limitMb: number): string {
  if (usedMb === null) return limitMb > 0 ? `not measured, at most ${size(limitMb)}` : "not measured";
  return limitMb > 0 ? `${size(usedMb)} of ${size(limitMb)}` : size(usedMb);
}

/** Mebibytes for people: “640 MB”, “1.2 GB”. */
export function size(mb: number): string {
  return mb < 1024 ? `${Math.round(mb)} MB` : `${(mb / 1024).toFixed(1)} GB`;
}

export function isNearMemoryLimit(pool: Pick<Pool, "memory_mb" | "memory_limit_mb">): boolean {
  return pool.memory_mb !== null && pool.memory_limit_mb > 0 && pool.memory_mb >= pool.memory_limit_mb * MEMORY_NEAR;
}

export function pausedOf(pool: Pool, agentId: string, now: number): PausedAgent | null {
  return pool.paused_agents.find((paused) => paused.agent_id === agentId && paused.until > now) ?? null;
}

export function pausedWords(paused: PausedAgent, now: number): string {
  return `Paused until ${clock(paused.until, now)}`;
}

/** What is worth knowing of a session beside its state, in the order of weight. */
export function sessionRemarks(session: Session): { label: string; meaning: string; weighty: boolean }[] {
  const remarks = [];
  if (session.stale) {
    remarks.push({
      label: "old persona",
      meaning: "The agent's persona was changed since this session started; it takes up the new one at its next rest.",
      weighty: true,
    });
  }
  if (session.restarts > 0) {
    remarks.push({
      label: session.restarts === 1 ? "restarted" : `restarted ${session.restarts}×`,
      meaning: "The agent program ended unexpectedly, was started again and went on with its conversation.",
      weighty: true,
    });
  }
  if (session.taken_up) {
    remarks.push({
      label: "went on",
      meaning: "It was begun before SEMO Office was started again, and went on meanwhile.",
      weighty: false,
    });
  }
  if (session.warm) {
    remarks.push({
      label: "warm",
      meaning: "Started ahead of any command, so that the first one need not wait.",
      weighty: false,
    });
  }
  return remarks;
}

/** Starting programs for a story, and ending them with everything they started. */

import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import { waitUntil } from "./wait.mjs";

/** How long a program may take to end when asked, before it is killed. */
const STOP_MS = 20_000;

/** Starts a program in a process group of its own; its lines are kept for the error message of a failed wait. */
export function start(program, args, { env, cwd, name }) {
  const child = spawn(program, args, { env, cwd, detached: true, stdio: ["ignore", "pipe", "pipe"] });
  child.lines = [];
  child.on("error", (error) => child.lines.push(`${name} could not be started: ${error.message}`));
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on("line", (line) => child.lines.push(line));
  }
  return child;
}

/** Waits for a line that matches; returns what the first group caught. */
export async function waitForLine(child, name, pattern, deadlineMs) {
  try {
    return await waitUntil(
      `${name} prints ${pattern}`,
      () => {
        for (const line of child.lines) {
          const match = pattern.exec(line);
          if (match !== null) return match[1];
        }
        if (child.exitCode !== null) throw new Error(`${name} ended with code ${child.exitCode}`);
        return null;
      },
      deadlineMs,
    );
  } catch (error) {
    throw new Error(`${error.message}\n--- output of ${name} ---\n${child.lines.slice(-60).join("\n")}`);
  }
}

/** Asks a program and all that it started to end, waits for them, and kills what is left. */
export async function stopTree(child) {
  if (child.pid === undefined) return;
  signal(child.pid, "SIGTERM");
  const ended = () => (child.exitCode !== null || child.signalCode !== null) && !groupLives(child.pid);
  await waitUntil("the program ends", ended, STOP_MS).catch(() => console.error(`killed after ${STOP_MS} ms: group ${child.pid}`));
  signal(child.pid, "SIGKILL");
}

/** Whether a process of the group still runs; one that ended and is only not yet waited for does not count. */
function groupLives(group) {
  if (!existsSync("/proc/self/stat")) return signal(group, 0);
  return readdirSync("/proc").some((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      // pid (name) state parent group …; the name may hold anything, so count from its closing bracket.
      const [state, , itsGroup] = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1).split(" ");
      return Number(itsGroup) === group && state !== "Z";
    } catch {
      return false; // it ended while we looked
    }
  });
}

/** False when the group is gone already. */
function signal(group, name) {
  try {
    return process.kill(-group, name);
  } catch {
    return false;
  }
}

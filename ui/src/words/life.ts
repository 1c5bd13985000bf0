/** The core's own life in front of people: what a start has found, what an end waits for. */

import type { CommandView, Ending, Launch } from "../backend";
import { counted } from "./facts";

export interface LifeWords {
  title: string;
  hint: string;
  tone: "progress" | "unsure" | "quiet";
}

/** For so long after a start it is worth a word that everything went on. */
export const LAUNCH_NEWS_MS = 10 * 60_000;

/** What a start has found of the sessions of before; null when there is nothing to say, or nothing any more. */
export function launchWords(launch: Launch, now: number): LifeWords | null {
  const { recovering, taken_up: takenUp, ended_meanwhile: ended, unknown } = launch;
  if (recovering > 0) {
    return {
      title: `SEMO Office was started again and looks for ${counted(recovering, "earlier session")}.`,
      hint: "Nothing new is begun until then.",
      tone: "progress",
    };
  }
  const parts = [];
  if (takenUp > 0) parts.push(`${counted(takenUp, "session")} went on`);
  if (ended > 0) parts.push(`${counted(ended, "session")} ended meanwhile`);
  if (unknown > 0) {
    return {
      title: `${counted(unknown, "earlier session")} cannot be reached.`,
      hint: `Nothing was ended there. Their commands are held, and it is tried again.${parts.length > 0 ? ` Besides, ${parts.join(", ")}.` : ""}`,
      tone: "unsure",
    };
  }
  if (parts.length === 0 || now - launch.since > LAUNCH_NEWS_MS) return null;
  return {
    title: `SEMO Office was started again; ${parts.join(", ")}.`,
    hint: ended > 0 ? "What those were doing is told in their results, as far as it is known." : "",
    tone: "quiet",
  };
}

/** What an end that is under way does to the sessions. */
export function endingWords(ending: Ending): LifeWords {
  const turns = ending.turns;
  const still = `${counted(turns, "turn")} still ${turns === 1 ? "runs" : "run"}`;
  switch (ending.how) {
    case "leave":
      return { title: "SEMO Office is ending.", hint: "Agents go on; the next start takes them up again.", tone: "progress" };
    case "finish":
      return {
        title: "SEMO Office is ending: nothing new is taken.",
        hint: turns === 0 ? "No turn runs any more." : `${still}; it ends when ${turns === 1 ? "that has" : "those have"} ended.`,
        tone: "progress",
      };
    case "now":
      return { title: "SEMO Office is ending now.", hint: "Turns are interrupted, results are written.", tone: "unsure" };
  }
}

/** Where a prompt goes that is sent while the core ends. */
export const WAITS_FOR_A_START = "SEMO Office is ending: the prompt waits for the next start.";

/** The core is gone, and the last it said was that it is ending: no fault, and nothing more to wait for. */
export function endedWords(ending: Ending): LifeWords {
  const title = "SEMO Office has ended.";
  switch (ending.how) {
    case "leave":
      return { title, hint: "Agents go on. The next start (`semo up`) takes them up again, and this page comes back by itself.", tone: "quiet" };
    case "finish":
      return { title, hint: "So have its sessions. This page comes back by itself after the next start (`semo up`).", tone: "quiet" };
    case "now":
      return { title, hint: "So have its sessions. `semo up` starts it again, and tells the address of its page.", tone: "quiet" };
  }
}

/** What became of a command when the core went away in the midst of it; null when it did not. */
export function recoveredWords(recovered: CommandView["recovered"]): string | null {
  switch (recovered) {
    case null:
      return null;
    case "followed":
      return "SEMO Office was started again while this ran. The agent went on.";
    case "reported":
      return "It ended while SEMO Office was away. The result was read from what the agent had written down.";
    case "run_again":
      return "SEMO Office went away before this had begun. It was begun at the next start, once.";
    case "unknown":
      return "SEMO Office went away in the midst of this. Whether it took effect is not known; it was not done again.";
    default:
      return `SEMO Office was started again in the midst of this (${recovered}).`;
  }
}

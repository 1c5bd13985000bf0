/** How a session came to what it says of its turns, for people. */

import type { CommandView, TurnExplanation } from "../backend";
import type { Standing } from "./commands";
import { standingOf } from "./commands";

/** How a turn ended, or that it goes on. */
export function turnStanding(outcome: string | null): Standing {
  if (outcome === null) return { label: "Under way", tone: "progress", meaning: "The turn has not ended." };
  return standingOf({ status: "succeeded", outcome });
}

/** A moment of a log, counted from the start of the session: “+0.90 s”, “+3 min 58 s”, “+2 h 03 min 58 s”. */
export function moment(atMs: number): string {
  const passed = Math.max(0, atMs);
  if (passed < 100_000) return `+${(passed / 1000).toFixed(passed < 10_000 ? 2 : 1)} s`;
  const two = (value: number) => String(value).padStart(2, "0");
  const seconds = Math.floor(passed / 1000);
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `+${minutes} min ${two(seconds % 60)} s`;
  return `+${Math.floor(minutes / 60)} h ${two(minutes % 60)} min ${two(seconds % 60)} s`;
}

/** The turn that carried out this command: the newest one with its prompt. Null when the session does not know it. */
export function turnOfCommand(
  turns: readonly TurnExplanation[],
  command: Pick<CommandView, "prompt" | "evidence" | "outcome">,
): TurnExplanation | null {
  if (command.prompt === null) return null;
  const prompt = essence(command.prompt);
  const fits = turns.filter((turn) => {
    const head = essence(turn.prompt_head.replace(/(…|\.\.\.)$/, ""));
    return head !== "" && (prompt.startsWith(head) || head.startsWith(prompt));
  });
  // Of two turns with the same prompt, the one with the same end; the evidence is the same value on both sides.
  const same = fits.filter(
    (turn) => command.evidence !== null && JSON.stringify(turn.evidence) === JSON.stringify(command.evidence),
  );
  return same.at(-1) ?? fits.at(-1) ?? null;
}

function essence(text: string): string {
  return text.trim().replace(/\s+/g, " ");
}

/** How the screen reader of the core understood what it saw: `input_box` → “Input box”. */
export function meaningWords(meaning: string): string {
  const words = meaning.replace(/[_-]+/g, " ").trim();
  return words === "" ? "Nothing known" : words.charAt(0).toUpperCase() + words.slice(1);
}

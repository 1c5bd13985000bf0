/** Why a result says what it says: rules, claims and tiers as people read them. */

import type { Claim, Tier } from "../backend";
import { duration } from "./time";

/** The rules of the core's verdict (`domain::turn`). A rule that is not listed is shown by its own name. */
const RULES: Record<string, string> = {
  "stop-with-marker": "The agent reported its end, and its final message closes with the completion marker.",
  "stop-no-marker-asked": "The agent reported its end, and no completion marker was asked for.",
  "stop-without-marker": "The agent reported its end, but the completion marker it was asked for is missing.",
  "stop-marker-mentioned": "The completion marker is mentioned in the final message, but does not close it.",
  "stop-disputed": "The agent's stop signal and its transcript disagree about the final message.",
  "stop-with-pending-work": "The agent reported its end while work it had started was still running.",
  "provider-failure": "The agent program itself reported that the turn failed.",
  "process-exit": "The agent program ended during the turn.",
  "timeout-interrupted": "The turn reached its time limit and was interrupted.",
  "cancel-proven": "It was asked to stop, and is proven stopped.",
  "interrupted-at-keyboard": "Somebody interrupted it in the terminal.",
  "idle-without-stop": "The agent waits for input again, but the end of the turn was not reported.",
};

export function ruleSentence(rule: string): string {
  return RULES[rule] ?? `Rule “${rule}”.`;
}

export interface TierWords {
  label: string;
  meaning: string;
}

export function tierWords(tier: Tier): TierWords {
  switch (tier) {
    case "claimed":
      return { label: "claimed", meaning: "The agent said so." };
    case "observed":
      return { label: "observed", meaning: "SEMO Office saw it happen: a signal, a tool's output, an exit code." };
    case "verified":
      return { label: "verified", meaning: "SEMO Office checked it itself." };
  }
}

const CLAIMS: Record<string, string> = {
  marker: "Completion marker",
  final_message: "Final message",
  prompt_acknowledged: "Prompt taken by the agent",
  turn_ms: "Turn took",
  head_before: "Commit before",
  head_after: "Commit after",
  files_changed: "Files changed",
  insertions: "Lines added",
  deletions: "Lines removed",
  pushed: "Pushed",
  commits: "Commits",
  branch: "Branch",
  pr: "Pull request",
  exit_code: "Exit code",
  tools: "Tools used",
};

/** `files_changed` → “Files changed”. */
export function claimName(what: string): string {
  const known = CLAIMS[what];
  if (known !== undefined) return known;
  const words = what.replace(/_ms$/, "").replace(/[_-]+/g, " ").trim();
  return words === "" ? "Fact" : words.charAt(0).toUpperCase() + words.slice(1);
}

/** Where a claim comes from: `hook:Stop` → “signal Stop”. */
export function sourceWords(source: string): string {
  const [kind = "", detail] = source.split(/:(.*)/s);
  const names: Record<string, string> = {
    hook: "agent’s signal",
    transcript: "agent’s transcript",
    git: "git",
    process: "process",
    screen: "screen",
    status_file: "agent’s status file",
  };
  const name = names[kind] ?? kind;
  return detail === undefined || detail === "" ? name : `${name} ${detail}`;
}

/** Longest value that is shown whole. */
const VALUE_CHARS_MAX = 600;
const ITEMS_MAX = 20;

/** A full git object name; its beginning is enough to find it again. */
const OBJECT_NAME = /^[0-9a-f]{40}$/;
const OBJECT_NAME_SHOWN = 10;

/** A claim's value without braces and quotes; `what` tells the unit. */
export function claimValue(value: Claim["value"], what = ""): string {
  if (typeof value === "number" && what.endsWith("_ms")) return duration(value);
  if (typeof value === "string" && OBJECT_NAME.test(value)) return value.slice(0, OBJECT_NAME_SHOWN);
  const text = plain(value, 0);
  return text.length > VALUE_CHARS_MAX ? `${text.slice(0, VALUE_CHARS_MAX)}…` : text;
}

function plain(value: unknown, depth: number): string {
  if (value === null || value === undefined) return "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return value.toLocaleString("en");
  if (typeof value === "string") return value;
  if (depth >= 2 || typeof value !== "object") return "…";
  const parts = Array.isArray(value)
    ? value.map((item) => plain(item, depth + 1))
    : Object.entries(value).map(([key, item]) => `${claimName(key)}: ${plain(item, depth + 1)}`);
  if (parts.length === 0) return "none";
  const shown = parts.slice(0, ITEMS_MAX).join(", ");
  return parts.length > ITEMS_MAX ? `${shown}, and ${parts.length - ITEMS_MAX} more` : shown;
}

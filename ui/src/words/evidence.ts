/** What backs a result: claims and tiers as people read them. The rules that decide are in rules.ts. */

import type { Claim, Tier } from "../backend";
import { wordsFor } from "./lookup";
import { clock, duration } from "./time";

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
  commits: "Commits",
  branch: "Branch",
  commit: "Commit",
  pull_request: "Pull request",
  exit_code: "Exit code",
  tools_used: "Tools used",
  command: "Command",
  failure: "What failed",
  stopped: "End reported",
  transcript_agrees: "Transcript agrees",
  interrupted: "Interrupted",
  uncommitted: "Not committed, in the whole worktree",
  uncommitted_before: "Not committed before the turn",
  unpushed: "Commits not pushed, of the whole branch",
  resets_at: "Limit resets at",
  ok: "Succeeded",
  duration_ms: "Took",
  background_tasks: "Background tasks",
  enters: "Key presses",
  untracked: "Files git does not track, in the whole worktree",
  retries: "Tried again",
  attempt: "Attempt",
  max: "At most",
  words: "In its words",
  completion_pattern: "Completion pattern of the office",
  error_pattern: "Error pattern of the office",
  answer: "Answer to an ask",
  answers_left_out: "More answers",
  commands: "Commands",
  failed_commands: "Commands that failed",
  status: "HTTP status",
  taken_up: "Followed again after a restart",
};

/** `files_changed` → “Files changed”. */
export function claimName(what: string): string {
  const known = wordsFor(CLAIMS, what);
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
    status: "agent’s status file",
    tools: "agent’s tools",
    actor: "SEMO Office",
    asks: "SEMO Office",
    person: "a person",
    judge: "SEMO Office’s verdict",
    journal: "SEMO Office’s journal",
  };
  const name = wordsFor(names, kind) ?? kind;
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
  const text = special(value, what) ?? plain(value, 0);
  return text.length > VALUE_CHARS_MAX ? `${text.slice(0, VALUE_CHARS_MAX)}…` : text;
}

/** The shapes that are so frequent that they have a short form. */
function special(value: unknown, what: string): string | null {
  if (typeof value !== "object" || value === null) return null;
  const fields = value as Record<string, unknown>;
  if (what === "commit" && typeof fields["sha"] === "string") {
    return `${fields["sha"].slice(0, OBJECT_NAME_SHOWN)} ${plain(fields["subject"] ?? "", 1)}`.trim();
  }
  if (what === "taken_up") return fields["stage"] === "entering" ? "while it was submitted" : "while it ran";
  if (what === "pull_request" && typeof fields["url"] === "string") return fields["url"];
  if (what === "answer" && typeof fields["way"] === "string") {
    return answerLine(fields["answer"], fields["way"], fields["who"]);
  }
  if (what === "command" && typeof fields["command"] === "string") {
    const { command, ...rest } = fields;
    const details = plain(rest, 0);
    return details === "none" ? fields["command"] : `${String(command)} (${details})`;
  }
  return null;
}

const WAYS: Record<string, string> = {
  window: "in a window",
  cli: "at the CLI",
  terminal: "in the terminal",
  command: "by a command of the office",
};

/** Ids of people and of commands mean something to programs only. */
const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Who said what by which way, on one line: “Allowed at the CLI by a person”. */
function answerLine(answer: unknown, way: string, who: unknown): string {
  const words = wordsFor(WAYS, way) ?? way;
  const name = typeof who === "string" && who.trim() !== "" && !ID.test(who.trim()) ? who.trim() : null;
  // A command of the office names its giver in its own row; a way that says “by” already needs no other.
  if (words.startsWith("by ")) return `${saidWords(answer)} ${words}${name === null ? "" : ` (${name})`}`;
  return `${saidWords(answer)} ${words} by ${name ?? "a person"}`;
}

function saidWords(answer: unknown): string {
  const { say, message, choice } = (typeof answer === "object" && answer !== null ? answer : {}) as Record<string, unknown>;
  if (say === "allow") return "Allowed";
  if (say === "deny") return typeof message === "string" && message !== "" ? `Denied (“${message}”)` : "Denied";
  if (say === "choose" && typeof choice === "number") return `Choice ${choice + 1} taken`;
  return "Answered";
}

/** The claims as a list for people: each answered ask once, and nothing that counts what did not happen. */
export function claimsShown(claims: readonly Claim[]): Claim[] {
  const asks = new Map<string, Claim>();
  for (const claim of claims) {
    const ask = askOf(claim);
    if (ask === null) continue;
    const known = asks.get(ask);
    // Two witnesses tell of it; what was said is worth more than that something was.
    if (known === undefined || (!tellsWhat(known) && tellsWhat(claim))) asks.set(ask, claim);
  }
  return claims.filter((claim) => {
    if (claim.what === "failed_commands" && claim.value === 0) return false;
    const ask = askOf(claim);
    return ask === null || asks.get(ask) === claim;
  });
}

function askOf(claim: Claim): string | null {
  if (claim.what !== "answer" || typeof claim.value !== "object" || claim.value === null) return null;
  const { ask } = claim.value as Record<string, unknown>;
  return typeof ask === "string" ? ask : null;
}

function tellsWhat(claim: Claim): boolean {
  return saidWords((claim.value as Record<string, unknown>)["answer"]) !== "Answered";
}

function plain(value: unknown, depth: number): string {
  if (value === null || value === undefined) return "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return value.toLocaleString("en");
  if (typeof value === "string") return value;
  if (depth >= 2 || typeof value !== "object") return "…";
  const parts = Array.isArray(value)
    ? value.map((item) => plain(item, depth + 1))
    : Object.entries(value)
        .filter(([key, item]) => key !== "failed_commands" || item !== 0)
        .map(([key, item]) => `${claimName(key)}: ${field(key, item, depth + 1)}`);
  if (parts.length === 0) return "none";
  const shown = parts.slice(0, ITEMS_MAX).join(", ");
  return parts.length > ITEMS_MAX ? `${shown}, and ${parts.length - ITEMS_MAX} more` : shown;
}

function field(key: string, value: unknown, depth: number): string {
  if (key.endsWith("_ms") && typeof value === "number") return duration(value);
  if (key.endsWith("_at") && typeof value === "number") return clock(value, 0);
  return plain(value, depth);
}

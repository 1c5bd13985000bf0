/**
 * What a turn left behind, taken from its evidence: commits, changes, pull requests, commands that failed, and why it
 * failed itself. Reads carefully: evidence is data of many versions, and what does not fit is left out here and still
 * stands in the list of claims.
 */

import type { Claim, Evidence, Tier } from "../backend";
import { wordsFor } from "./lookup";
import { clock } from "./time";

export interface Commit {
  sha: string;
  subject: string;
}

export interface PullRequest {
  url: string;
  label: string;
}

export interface RunCommand {
  command: string;
  /** Null where it is not known: it was stopped, or its exit was hidden. */
  ok: boolean | null;
  exitCode: number | null;
  isTest: boolean;
}

export interface Failure {
  className: string | null;
  message: string;
  /** ms since the epoch. */
  resetsAt: number | null;
  resetsText: string | null;
}

export interface Facts {
  commits: Commit[];
  /** How many there are, also when they are not told one by one. */
  commitCount: number;
  filesChanged: number;
  insertions: number;
  deletions: number;
  /** Files of the whole worktree that are not committed; `true` where only that there are some is known. */
  uncommitted: number | boolean;
  /** The same before the turn; null where it is not known. */
  uncommittedBefore: number | boolean | null;
  /** The turn itself is known to have changed no file. */
  changedNone: boolean;
  unpushed: number;
  pullRequests: PullRequest[];
  failedCommands: RunCommand[];
  tests: RunCommand[];
  commandCount: number;
  failure: Failure | null;
}

const OF_CHANGES = ["commit", "commits", "files_changed", "insertions", "deletions", "uncommitted", "uncommitted_before", "unpushed"];
const OF_TOOLS = ["command", "pull_request"];

/** The claims that these facts are made of; a list of claims that stands below them need not repeat them. */
export const FACT_CLAIMS: ReadonlySet<string> = new Set([...OF_CHANGES, ...OF_TOOLS, "failure"]);

/** How well the facts of one kind are known: only as well as the weakest of them. Null when there are none. */
export function tierOf(evidence: Evidence, of: "changes" | "tools"): Tier | null {
  const names = of === "changes" ? OF_CHANGES : OF_TOOLS;
  const tiers = evidence.claims.filter((claim) => names.includes(claim.what)).map((claim) => claim.tier);
  return (["claimed", "observed", "verified"] as const).find((tier) => tiers.includes(tier)) ?? null;
}

export function factsOf(evidence: Evidence): Facts {
  const all = (what: string) => evidence.claims.filter((claim) => claim.what === what);
  const commits = [...all("commit"), ...all("commits")].flatMap((claim) => list(claim.value)).flatMap(commitIn);
  const commands = all("command").flatMap(commandIn);
  const counted = number(newest(evidence, "commits")) ?? 0;
  const files = newest(evidence, "files_changed");
  return {
    commits,
    commitCount: Math.max(counted, commits.length),
    filesChanged: number(files) ?? (Array.isArray(files) ? files.length : 0),
    insertions: number(newest(evidence, "insertions")) ?? 0,
    deletions: number(newest(evidence, "deletions")) ?? 0,
    uncommitted: amount(newest(evidence, "uncommitted")) ?? false,
    uncommittedBefore: amount(newest(evidence, "uncommitted_before")),
    changedNone: number(files) === 0 || (Array.isArray(files) && files.length === 0),
    unpushed: number(newest(evidence, "unpushed")) ?? 0,
    pullRequests: unique(all("pull_request").flatMap((claim) => pullRequestIn(claim.value))),
    failedCommands: commands.filter((command) => command.ok === false),
    tests: commands.filter((command) => command.isTest),
    commandCount: commands.length,
    failure: failureIn(all("failure").at(-1) ?? null),
  };
}

/** Whether the repository is another one than before. */
export function hasChanges(facts: Facts): boolean {
  return facts.commitCount > 0 || facts.filesChanged > 0 || uncommittedWords(facts) !== "" || facts.unpushed > 0;
}

/** Whether its tools did something that is worth telling by itself. */
export function hasToolFacts(facts: Facts): boolean {
  return facts.pullRequests.length > 0 || facts.failedCommands.length > 0 || facts.tests.length > 0;
}

/** The facts on one line, for a result that is folded; empty when there are none. */
export function factsLine(facts: Facts): string {
  const parts = [];
  if (facts.commitCount > 0) parts.push(counted(facts.commitCount, "commit"));
  if (facts.filesChanged > 0) parts.push(`${counted(facts.filesChanged, "file")} ${linesWords(facts)}`.trim());
  if (uncommittedWords(facts) !== "") parts.push(uncommittedWords(facts));
  for (const pullRequest of facts.pullRequests.slice(0, 2)) parts.push(pullRequest.label);
  if (facts.failedCommands.length > 0) parts.push(`${counted(facts.failedCommands.length, "command")} failed`);
  return parts.join(" · ");
}

/** What lies uncommitted in the worktree, and whether this turn has to do with it; empty when all is committed. */
export function uncommittedWords(facts: Pick<Facts, "uncommitted" | "uncommittedBefore" | "changedNone">): string {
  const { uncommitted: files, uncommittedBefore: before } = facts;
  if (files === false || files === 0) return "";
  const some = files === true ? "files not committed" : `${counted(files, "file")} not committed`;
  if (facts.changedNone) return `${some}, none from this turn`;
  if (before !== null && before !== false && before !== 0) {
    return `${some} (${before === true ? "some" : before.toLocaleString("en")} before this turn)`;
  }
  return files === true ? "not all committed" : some;
}

/** “+120 −14”; empty when nothing was counted. */
export function linesWords(facts: Pick<Facts, "insertions" | "deletions">): string {
  if (facts.insertions === 0 && facts.deletions === 0) return "";
  return `+${facts.insertions.toLocaleString("en")} −${facts.deletions.toLocaleString("en")}`;
}

const CLASSES: Record<string, string> = {
  rate_limit: "Usage limit",
  auth: "Sign-in",
  billing: "Billing",
  context: "Too much for the model's memory",
  overloaded: "Model overloaded",
  connection: "No connection to the model",
  server: "Fault of the model's server",
  provider_exit: "Agent program ended",
  timeout: "Time limit",
  refused: "Refused",
  not_submitted: "Prompt not taken",
  restarting: "Being started again",
  other: "Another fault",
};

/** Whether this is the class of a failure, and not another word of the core for an end. */
export function isClass(word: string): boolean {
  return wordsFor(CLASSES, word) !== undefined;
}

/** The class of a failure; one that is not known here is shown as it is. */
export function classWords(className: string): string {
  return wordsFor(CLASSES, className) ?? className.replaceAll("_", " ");
}

/** “limit resets at 03:14”, or null. */
export function resetWords(failure: Failure, now: number): string | null {
  if (failure.resetsAt !== null) {
    return failure.resetsAt > now
      ? `limit resets at ${clock(failure.resetsAt, now)}`
      : `limit was reset at ${clock(failure.resetsAt, now)}`;
  }
  return failure.resetsText === null ? null : `limit resets ${failure.resetsText}`;
}

/** “2 commits”, “1 commit”. */
export function counted(count: number, one: string): string {
  return count === 1 ? `1 ${one}` : `${count.toLocaleString("en")} ${one}s`;
}

const SHA = /^[0-9a-f]{7,64}$/i;

function commitIn(value: unknown): Commit[] {
  if (!isObject(value)) return [];
  const { sha, subject } = value;
  if (typeof sha !== "string" || !SHA.test(sha)) return [];
  return [{ sha, subject: typeof subject === "string" ? subject : "" }];
}

function commandIn(claim: Claim): RunCommand[] {
  if (!isObject(claim.value)) return [];
  const { command, ok, exit_code: exitCode, test } = claim.value;
  if (typeof command !== "string" || typeof ok !== "boolean") return [];
  return [{ command, ok, exitCode: typeof exitCode === "number" ? exitCode : null, isTest: test === true }];
}

/** Only addresses of the web become links; the label is the part a person recognises. */
function pullRequestIn(value: unknown): PullRequest[] {
  const url = typeof value === "string" ? value : isObject(value) ? value["url"] : null;
  if (typeof url !== "string") return [];
  let address: URL;
  try {
    address = new URL(url);
  } catch {
    return [];
  }
  if (address.protocol !== "https:" && address.protocol !== "http:") return [];
  const found = /^\/([^/]+\/[^/]+)\/(?:-\/)?(?:pull|pulls|merge_requests)\/(\d+)/.exec(address.pathname);
  const label = found === null ? `${address.host}${address.pathname}` : `${found[1]} #${found[2]}`;
  return [{ url: address.href, label }];
}

function failureIn(claim: Claim | null): Failure | null {
  if (claim === null) return null;
  const { value } = claim;
  if (typeof value === "string") return { className: null, message: value, resetsAt: null, resetsText: null };
  if (!isObject(value)) return null;
  const resets = value["resets_at"];
  const resetsAt = typeof resets === "number" ? resets : typeof resets === "string" ? Date.parse(resets) : Number.NaN;
  const words = value["resets_text"] ?? (Number.isNaN(resetsAt) ? resets : null);
  return {
    className: typeof value["class"] === "string" ? value["class"] : null,
    message: typeof value["message"] === "string" ? value["message"] : "",
    resetsAt: Number.isNaN(resetsAt) ? null : resetsAt,
    resetsText: typeof words === "string" && words !== "" ? words : null,
  };
}

function newest(evidence: Evidence, what: string): unknown {
  return evidence.claims.filter((claim) => claim.what === what).at(-1)?.value;
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [value];
}

function number(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) && value >= 0 ? value : null;
}

function amount(value: unknown): number | boolean | null {
  return typeof value === "boolean" ? value : number(value);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function unique(all: PullRequest[]): PullRequest[] {
  return all.filter((one, index) => all.findIndex((other) => other.url === one.url) === index);
}

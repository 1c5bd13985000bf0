/** Work that was kept when its worktree went. */

import type { Preserved } from "../backend";

export interface KeptByRepository {
  repository: string;
  states: Preserved[];
}

/** By repository in the order of the alphabet, the newest first within each. */
export function keptByRepository(states: readonly Preserved[]): KeptByRepository[] {
  const groups = new Map<string, Preserved[]>();
  for (const state of states) groups.set(state.repository, [...(groups.get(state.repository) ?? []), state]);
  return [...groups]
    .map(([repository, kept]) => ({ repository, states: kept.sort((a, b) => b.kept_at - a.kept_at) }))
    .sort((a, b) => a.repository.localeCompare(b.repository));
}

/** A branch name that says where it comes from. */
export function branchForRestored(state: Pick<Preserved, "branch" | "name">): string {
  const from = state.branch?.replace(/^semo\//, "") ?? state.name.slice(0, 8);
  return `restored/${from}`;
}

/** Tells one kept state from all others. */
export function keptKey(state: Pick<Preserved, "repository" | "name" | "commit">): string {
  return [state.repository, state.name, state.commit].join(" ");
}

const BRANCH_CHARS_MAX = 200;

/** Why git would not take this as the name of a branch, or null (`git check-ref-format --branch`). */
export function branchFault(name: string): string | null {
  if (name.trim() === "") return "Give the branch a name.";
  if (name.length > BRANCH_CHARS_MAX) return `Too long: at most ${BRANCH_CHARS_MAX} characters.`;
  if (/[\s~^:?*[\\\u0000-\u001f\u007f]/.test(name)) return "Spaces and ~ ^ : ? * [ \\ cannot be in a branch name.";
  if (/^[-/]|[/.]$|\.\.|\/\/|@\{|^@$|(^|\/)\.|\.lock(\/|$)/.test(name)) return "Git does not take this as a branch name.";
  return null;
}

export function filesWords(count: number): string {
  return count === 1 ? "1 file" : `${count.toLocaleString("en")} files`;
}

import { describe, expect, test } from "vitest";

import type { Launch, Session } from "../backend";
import { endedWords, endingWords, LAUNCH_NEWS_MS, launchWords, recoveredWords } from "./life";
import { holdSentence, isInterruptible, promptTarget, standingWords } from "./sessions";

const AT = 1_000_000;

function launch(patch: Partial<Launch> = {}): Launch {
  return { recovering: 0, taken_up: 0, ended_meanwhile: 0, unknown: 0, since: AT, ...patch };
}

describe("a start after which others went on", () => {
  test("a start that found nothing has nothing to say", () => {
    expect(launchWords(launch(), AT)).toBeNull();
  });

  test("what went on is told for a while, what cannot be reached for as long as it is so", () => {
    const wentOn = launch({ taken_up: 2, ended_meanwhile: 1 });
    expect(launchWords(wentOn, AT)?.title).toBe("SEMO Office was started again; 2 sessions went on, 1 session ended meanwhile.");
    expect(launchWords(wentOn, AT + LAUNCH_NEWS_MS + 1)).toBeNull();
    const unknown = launchWords(launch({ taken_up: 1, unknown: 1 }), AT + 10 * LAUNCH_NEWS_MS);
    expect(unknown?.tone).toBe("unsure");
    expect(unknown?.hint).toContain("Nothing was ended");
    expect(unknown?.hint).toContain("1 session went on");
  });

  test("while it looks, it says that it looks and that nothing is begun", () => {
    const words = launchWords(launch({ recovering: 1, taken_up: 1 }), AT);
    expect(words?.title).toBe("SEMO Office was started again and looks for 1 earlier session.");
    expect(words?.hint).toContain("Nothing new is begun");
  });
});

describe("an end that is under way", () => {
  test("each way says what becomes of the agents", () => {
    expect(endingWords({ how: "leave", turns: 2 }).hint).toContain("Agents go on");
    expect(endingWords({ how: "finish", turns: 2 }).hint).toBe("2 turns still run; it ends when those have ended.");
    expect(endingWords({ how: "finish", turns: 0 }).hint).toBe("No turn runs any more.");
    expect(endingWords({ how: "now", turns: 1 }).tone).toBe("unsure");
  });
});

describe("a command that the core had to find again", () => {
  test("each kind has its sentence, none says more than is known, and a newer core's word is shown", () => {
    expect(recoveredWords(null)).toBeNull();
    const sentences = ["followed", "reported", "run_again", "unknown"].map((kind) => recoveredWords(kind) ?? "");
    expect(new Set(sentences).size).toBe(4);
    expect(sentences[3]).toContain("not known");
    expect(recoveredWords("sideways")).toContain("sideways");
  });
});

describe("a session that is not in the core's hands", () => {
  const held = (hold: string | null): Session => ({
    id: "s", agent_id: "a", title: "FE · Mina", state: { state: "working", turn: null }, asks: null, ask: null, hold,
    taken_up: true, warm: false, stale: false, retrying: null, memory_mb: null, restarts: 0, repository: null,
    branch: null, worktree: "/w", started_at: 0,
  });

  test("says so instead of a state that nobody can know, and cannot be interrupted", () => {
    expect(standingWords(held("recovering"))).toEqual({ label: "Looked for", tone: "progress" });
    expect(standingWords(held("held"))).toEqual({ label: "Not reached", tone: "unsure" });
    expect(standingWords(held(null)).label).toBe("Working");
    expect(isInterruptible(held("held"))).toBe(false);
    expect(holdSentence(held("held"))).toContain("Nothing was done to it");
    expect(holdSentence(held(null))).toBeNull();
  });

  test("takes a prompt that waits, and says that it waits", () => {
    const session = held("recovering");
    expect(promptTarget({ name: "Mina" }, session, [session], true).remark).toContain("waits until then");
  });
});

test("a core that has ended as it said is no lost connection", () => {
  expect(endedWords({ how: "leave", turns: 1 }).hint).toContain("Agents go on");
  for (const how of ["finish", "now"] as const) expect(endedWords({ how, turns: 0 }).hint).toContain("So have its sessions");
  // Behind an end at once the key is another one.
  expect(endedWords({ how: "now", turns: 0 }).hint).not.toContain("by itself");
});

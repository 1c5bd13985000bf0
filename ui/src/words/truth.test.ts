import { describe, expect, test } from "vitest";

import type { Claim, Evidence, Pool, Preserved, TurnExplanation } from "../backend";
import { moment, turnOfCommand, turnStanding } from "./explain";
import { classWords, factsLine, factsOf, hasChanges, hasToolFacts, resetWords, tierOf, uncommittedWords } from "./facts";
import { isNearMemoryLimit, memoryWords, pausedOf, poolLine, size } from "./pool";
import { branchFault, branchForRestored, keptByRepository, keptKey } from "./preserved";
import { isKnownRule, ruleSentence, seenWords } from "./rules";
import { clock, withClocks } from "./time";

function evidence(...claims: [string, unknown, Claim["tier"]?][]): Evidence {
  return { rule: "r", claims: claims.map(([what, value, tier = "verified"]) => ({ what, value, tier, source: "git" })) };
}

describe("facts", () => {
  test("commits are told one by one, or counted where only their number is known", () => {
    const told = factsOf(evidence(["commit", { sha: "4be1c0957a", subject: "Round once" }], ["commits", 3]));
    expect(told.commits).toEqual([{ sha: "4be1c0957a", subject: "Round once" }]);
    expect(told.commitCount).toBe(3);
    const list = factsOf(evidence(["commits", [{ sha: "4be1c09", subject: "a" }, { sha: "09aa3d1", subject: "b" }]]));
    expect(list.commitCount).toBe(2);
    expect(factsOf(evidence(["commits", 2])).commitCount).toBe(2);
  });

  test("what does not fit is left out and breaks nothing", () => {
    for (const odd of [null, "x", -1, Number.NaN, [], [null], {}, { sha: 7 }, { sha: "not hex" }, true]) {
      const facts = factsOf(evidence(["commit", odd], ["commits", odd], ["command", odd], ["pull_request", odd], ["files_changed", odd]));
      expect(facts.commits, JSON.stringify(odd)).toEqual([]);
      expect(facts.failedCommands).toEqual([]);
      expect(facts.pullRequests).toEqual([]);
    }
    expect(hasChanges(factsOf(evidence()))).toBe(false);
    expect(hasToolFacts(factsOf(evidence()))).toBe(false);
    expect(factsLine(factsOf(evidence()))).toBe("");
  });

  test("only addresses of the web become links, each once", () => {
    const url = "https://git.example.com/webshop/storefront/pull/4182";
    const facts = factsOf(
      evidence(
        ["pull_request", url],
        ["pull_request", { number: 4182, url }],
        ["pull_request", "javascript:alert(1)"],
        ["pull_request", "file:///etc/passwd"],
        ["pull_request", "https://example.com/a/b/-/merge_requests/7"],
      ),
    );
    expect(facts.pullRequests).toEqual([
      { url, label: "webshop/storefront #4182" },
      { url: "https://example.com/a/b/-/merge_requests/7", label: "a/b #7" },
    ]);
  });

  test("a command that failed is one that said so", () => {
    const facts = factsOf(
      evidence(
        ["command", { command: "npm test", ok: false, exit_code: 1, test: true }],
        ["command", { command: "ls", ok: true }],
        ["command", { command: "odd" }],
      ),
    );
    expect(facts.failedCommands).toEqual([{ command: "npm test", ok: false, exitCode: 1, isTest: true }]);
    expect(facts.tests).toHaveLength(1);
    expect(facts.commandCount).toBe(2);
  });

  test("the line of a folded result holds what matters", () => {
    const facts = factsOf(
      evidence(["commits", 1], ["files_changed", 5], ["insertions", 1_204], ["deletions", 38], ["uncommitted", true], ["command", { command: "x", ok: false }]),
    );
    expect(factsLine(facts)).toBe("1 commit · 5 files +1,204 −38 · not all committed · 1 command failed");
  });

  test("what is not committed says whether this turn has to do with it", () => {
    const words = (...claims: [string, unknown][]) => uncommittedWords(factsOf(evidence(...claims)));
    expect(words(["files_changed", 0], ["uncommitted", 2])).toBe("2 files not committed, none from this turn");
    expect(words(["files_changed", 0], ["uncommitted", true])).toBe("files not committed, none from this turn");
    expect(words(["files_changed", 3], ["uncommitted", 4], ["uncommitted_before", 1])).toBe("4 files not committed (1 before this turn)");
    expect(words(["files_changed", 3], ["uncommitted", 3], ["uncommitted_before", 0])).toBe("3 files not committed");
    expect(words(["uncommitted", 1])).toBe("1 file not committed");
    expect(words(["uncommitted", true])).toBe("not all committed");
    expect(words(["files_changed", 0], ["uncommitted", 0])).toBe("");
    expect(words(["files_changed", 0], ["uncommitted", false])).toBe("");
    expect(factsLine(factsOf(evidence(["files_changed", 0], ["uncommitted", 2])))).toBe("2 files not committed, none from this turn");
    expect(hasChanges(factsOf(evidence(["files_changed", 0], ["uncommitted", 2])))).toBe(true);
  });

  test("facts are worth what the weakest of them is", () => {
    expect(tierOf(evidence(["commits", 1], ["files_changed", 2, "observed"]), "changes")).toBe("observed");
    expect(tierOf(evidence(["commits", 1]), "tools")).toBeNull();
  });

  test("a limit says when it ends, on which day, and whether that was already", () => {
    const now = new Date(2026, 10, 21, 1, 0).getTime();
    const failure = (value: unknown) => factsOf(evidence(["failure", value])).failure;
    const at = (ms: number) => failure({ class: "rate_limit", message: "limit", resets_at: ms });
    const soon = at(new Date(2026, 10, 21, 3, 14).getTime());
    const later = at(new Date(2026, 10, 24, 3, 14).getTime());
    expect(soon && resetWords(soon, now)).toBe("limit resets at 03:14");
    expect(later && resetWords(later, now)).toBe("limit resets at 24 Nov 03:14");
    expect(soon && resetWords(soon, now + 10 * 3_600_000)).toContain("was reset");
    const text = failure({ class: "rate_limit", message: "limit", resets_at: "3:14am (UTC)" });
    expect(text && resetWords(text, now)).toBe("limit resets 3:14am (UTC)");
    const words = failure("API Error: 429");
    expect(words?.message).toBe("API Error: 429");
    expect(words && resetWords(words, now)).toBeNull();
    expect(classWords("rate_limit")).toBe("Usage limit");
    expect(classWords("solar_flare")).toBe("solar flare");
    expect(classWords("constructor")).toBe("constructor");
  });
});

describe("why", () => {
  const turn = (head: string, outcome: string | null, claims: Evidence = evidence()): TurnExplanation => ({
    turn: null,
    prompt_head: head,
    outcome,
    rule: null,
    reason: null,
    class: null,
    evidence: claims,
    log: [],
  });

  test("a rule that is not known is shown as it is", () => {
    expect(isKnownRule("stop-on-screen")).toBe(true);
    expect(isKnownRule("toString")).toBe(false);
    expect(ruleSentence("claude/brand-new")).toContain("claude/brand-new");
    expect(ruleSentence("toString")).toContain("toString");
  });

  test("a turn that goes on is not called ended, and an unknown end not good", () => {
    expect(turnStanding(null).tone).toBe("progress");
    expect(turnStanding("done").tone).toBe("good");
    expect(turnStanding("unconfirmed").tone).toBe("unsure");
    expect(turnStanding("splendid").tone).not.toBe("good");
  });

  test("the turn of a command is the newest with its prompt; of two the same, the one with its evidence", () => {
    const first = turn("Fix the cart", "done", evidence(["commits", 1]));
    const second = turn("Fix  the cart", "done", evidence(["commits", 2]));
    const other = turn("Write a poem…", "done");
    const command = { prompt: "Fix the cart\nand test it", outcome: "done", evidence: null };
    expect(turnOfCommand([first, second, other], command)).toBe(second);
    expect(turnOfCommand([first, second, other], { ...command, evidence: evidence(["commits", 1]) })).toBe(first);
    expect(turnOfCommand([other], command)).toBeNull();
    expect(turnOfCommand([turn("", "done")], command)).toBeNull();
    expect(turnOfCommand([first], { ...command, prompt: null })).toBeNull();
    expect(turnOfCommand([other], { ...command, prompt: "Write a poem about git" })).toBe(other);
  });

  test("moments count from the start of the session", () => {
    expect([-5, 0, 900, 61_180, 238_691, 2 * 3_600_000 + 3 * 60_000 + 58_000].map(moment)).toEqual([
      "+0.00 s",
      "+0.00 s",
      "+0.90 s",
      "+61.2 s",
      "+3 min 58 s",
      "+2 h 03 min 58 s",
    ]);
  });

  test("a line of the log says what it means, in its own words where those are all there is", () => {
    const seen = (source: string, rule: string, what: string) => seenWords({ source, rule, what });
    expect(seen("judge", "stop-with-marker", "Done").text).toContain("completion marker");
    expect(seen("judge", "a-new-rule", "Done").text).toBe("Done");
    expect(seen("hook", "tool", "Bash ls")).toEqual({ text: "A tool was used", own: "Bash ls" });
    expect(seen("hook", "prompt", "b7397182-f5da-4da9-985b-11bd48ad2bb9").own).toBe("");
    expect(seen("screen", "prompt-put-back", "").text).toContain("input box");
    expect(seen("hook", "something-new", "words").text).toBe("words");
    expect(seen("hook", "something-new", "").text).toBe("something-new");
  });
});

describe("pool", () => {
  const pool: Pool = {
    sessions_max: 6,
    warm_roles: ["FE"],
    open: 2,
    warm: 1,
    waiting: 0,
    memory_mb: 700,
    memory_limit_mb: 4_096,
    idle_minutes: 10,
    paused_agents: [{ agent_id: "a", until: 2_000, why: "three ends" }],
  };

  test("the line says how many there are and whether they work, who waits, and how heavy they are", () => {
    const idle = { state: { state: "idle" } } as const;
    const busy = { state: { state: "working", turn: null } } as const;
    const asks = { state: { state: "awaiting_person", turn: null, ask: "permission" } } as const;
    expect(poolLine(pool, [idle, idle])).toBe("2 sessions, none at work · 700 MB");
    expect(poolLine({ ...pool, open: 3, waiting: 3 }, [idle, busy, asks])).toBe("3 sessions, 2 at work · 3 in line · 700 MB");
    expect(poolLine({ ...pool, open: 1, memory_mb: null }, [busy])).toBe("1 session, 1 at work");
    expect(poolLine({ ...pool, open: 0, memory_mb: 0 }, [])).toBe("No sessions");
  });

  test("memory that was not measured is not called none", () => {
    expect(memoryWords(700, 4_096)).toBe("700 MB of 4.0 GB");
    expect(memoryWords(null, 4_096)).toContain("not measured");
    expect(memoryWords(700, 0)).toBe("700 MB");
    expect(size(1_023)).toBe("1023 MB");
    expect(isNearMemoryLimit(pool)).toBe(false);
    expect(isNearMemoryLimit({ memory_mb: 3_900, memory_limit_mb: 4_096 })).toBe(true);
    expect(isNearMemoryLimit({ memory_mb: 9, memory_limit_mb: 0 })).toBe(false);
  });

  test("a pause that is over is none", () => {
    expect(pausedOf(pool, "a", 1_999)?.why).toBe("three ends");
    expect(pausedOf(pool, "a", 2_000)).toBeNull();
    expect(pausedOf(pool, "b", 0)).toBeNull();
  });
});

describe("kept work", () => {
  const kept = (repository: string, name: string, keptAt: number): Preserved => ({
    repository,
    name,
    branch: null,
    commit: "c",
    kept_at: keptAt,
    agent: null,
    files_changed: 1,
    why: "",
  });

  test("is listed by repository, the newest first", () => {
    const groups = keptByRepository([kept("web", "1", 5), kept("api", "2", 1), kept("web", "3", 9)]);
    expect(groups.map((group) => [group.repository, group.states.map((state) => state.name)])).toEqual([
      ["api", ["2"]],
      ["web", ["3", "1"]],
    ]);
  });

  test.each([
    ["restored/mina-7f3a", true],
    ["복원/장바구니", true],
    ["a@b", true],
    ["", false],
    ["two words", false],
    ["-x", false],
    ["a..b", false],
    ["a~1", false],
    ["x.lock", false],
    ["x.lock/y", false],
    ["a/", false],
    ["/a", false],
    ["a//b", false],
    [".hidden", false],
    ["a/.b", false],
    ["@", false],
    ["a@{b", false],
    ["tail.", false],
    ["a\\b", false],
    ["x".repeat(201), false],
  ])("a branch may be called “%s”: %s", (name, fits) => {
    expect(branchFault(name) === null).toBe(fits);
  });

  test("two states of one session are two", () => {
    expect(keptKey(kept("web", "1", 5))).not.toBe(keptKey({ ...kept("web", "1", 5), commit: "d" }));
    expect(keptKey(kept("web", "1", 5))).not.toBe(keptKey(kept("api", "1", 5)));
  });

  test("the branch that is proposed is one that git takes", () => {
    for (const branch of ["semo/mina-7f3a", "feature/x", null]) {
      expect(branchFault(branchForRestored({ branch, name: "6f6c3c1e-0000-4000-8000-000000000001" })), String(branch)).toBeNull();
    }
  });
});

test("a clock tells the day only when it is another one", () => {
  const at = new Date(2026, 10, 21, 3, 4, 5).getTime();
  expect(clock(at, at)).toBe("03:04");
  expect(clock(at, at, "seconds")).toBe("03:04:05");
  expect(clock(at, new Date(2026, 10, 22).getTime())).toBe("21 Nov 03:04");
  expect(clock(at, new Date(2027, 0, 1).getTime())).toBe("21 Nov 2026 03:04");
});

test("moments in the core's sentences are told by the clock of this machine, and nothing else is changed", () => {
  const at = new Date(2026, 10, 21, 10, 18, 40).getTime();
  expect(withClocks(`paused until ${new Date(at).toISOString()}: it ended`, at)).toBe("paused until 10:18: it ended");
  expect(withClocks("v2026-11-21 and 2026-99-99T10:00:00Z", at)).toBe("v2026-11-21 and 2026-99-99T10:00:00Z");
});

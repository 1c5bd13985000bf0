import { describe, expect, test } from "vitest";

import type { CommandStatus, CommandView, Session, SessionState } from "../backend";
import { isCancellable, isOver, standingOf } from "./commands";
import { connectionWords } from "./connection";
import { claimName, claimValue, sourceWords, tierWords } from "./evidence";
import { PROMPT_BYTES_MAX, promptFault } from "./prompt";
import { ruleSentence } from "./rules";
import { exitSentence, isInterruptible, leadingSession, livingSessions, sessionWords } from "./sessions";
import { ago, duration, elapsed } from "./time";

const STATUSES: CommandStatus[] = [
  "queued",
  "claimed",
  "waiting",
  "running",
  "reporting",
  "succeeded",
  "unconfirmed",
  "failed",
  "cancelled",
  "expired",
  "dead",
];

function command(status: CommandStatus, outcome: string | null = null): Pick<CommandView, "status" | "outcome"> {
  return { status, outcome };
}

function session(id: string, state: SessionState, startedAt = 0, agentId = "a"): Session {
  return {
    id,
    agent_id: agentId,
    title: id,
    state,
    asks: null,
    ask: null,
    warm: false,
    stale: false,
    retrying: null,
    memory_mb: null,
    restarts: 0,
    repository: null,
    branch: null,
    worktree: "/w",
    started_at: startedAt,
  };
}

describe("commands", () => {
  test("only done and ok look good; unconfirmed never does", () => {
    const good = STATUSES.flatMap((status) =>
      [null, "done", "unconfirmed", "failed", "cancelled", "ok", "something new"].map((outcome) => ({
        status,
        outcome,
        tone: standingOf(command(status, outcome)).tone,
      })),
    ).filter((each) => each.tone === "good");
    expect(good.map((each) => [each.status, each.outcome])).toEqual([
      ["succeeded", null],
      ["succeeded", "done"],
      ["succeeded", "ok"],
    ]);
    expect(standingOf(command("unconfirmed", "unconfirmed"))).toEqual(standingOf(command("succeeded", "unconfirmed")));
  });

  test("every status has words of its own", () => {
    const labels = STATUSES.map((status) => standingOf(command(status, status === "succeeded" ? "done" : null)).label);
    expect(new Set(labels).size).toBe(STATUSES.length);
  });

  test("a running command whose session asks something calls for the person", () => {
    const asks = session("s", { state: "awaiting_person", turn: null, ask: "permission" });
    expect(standingOf(command("running"), asks).tone).toBe("attention");
    expect(standingOf(command("running"), session("s", { state: "working", turn: null })).tone).toBe("progress");
    expect(standingOf(command("succeeded", "done"), asks).tone).toBe("good");
  });

  test("what is over cannot be cancelled, and what is being reported is too late", () => {
    for (const status of STATUSES) {
      if (isOver(command(status))) expect(isCancellable(command(status)), status).toBe(false);
    }
    expect(isCancellable(command("reporting"))).toBe(false);
    expect(isCancellable(command("running"))).toBe(true);
  });
});

describe("sessions", () => {
  const idle = session("idle", { state: "idle" }, 3);
  const working = session("working", { state: "working", turn: "t" }, 2);
  const asking = session("asking", { state: "awaiting_person", turn: "t", ask: "question" }, 1);
  const ended = session("ended", { state: "exited", code: 0 }, 4);
  const other = session("other", { state: "idle" }, 5, "b");

  test("an agent's sessions are the living ones, newest first", () => {
    const living = livingSessions([asking, ended, other, idle, working], "a");
    expect(living.map((each) => each.id)).toEqual(["idle", "working", "asking"]);
  });

  test("the one that needs a person speaks for the agent", () => {
    expect(leadingSession([idle, working, asking])?.id).toBe("asking");
    expect(leadingSession([idle, working])?.id).toBe("working");
    expect(leadingSession([idle])?.id).toBe("idle");
    expect(leadingSession([])).toBeNull();
  });

  test("each state has its word, and each ask its own", () => {
    expect(sessionWords(idle.state)).toEqual({ label: "Ready", tone: "good" });
    expect(sessionWords({ state: "awaiting_person", turn: null, ask: "login" }).label).toBe("Needs sign-in");
    expect(isInterruptible(asking)).toBe(true);
    expect(isInterruptible(idle)).toBe(false);
  });

  test("an end by a signal is not an exit code", () => {
    expect(exitSentence(null)).toContain("signal");
    expect(exitSentence(143)).toContain("signal");
    expect(exitSentence(3)).toContain("exit code 3");
    expect(exitSentence(0)).not.toContain("code");
  });
});

describe("connection", () => {
  const profile = { name: "Webshop", kind: "supabase", url: "https://abc.supabase.co" } as const;

  test("only live is called connected", () => {
    for (const status of ["offline", "connecting", "joining", "live", "backoff", "stopped"] as const) {
      const words = connectionWords({ status, why: null, since: 0 }, profile);
      expect(words.label === "Connected", status).toBe(status === "live");
      expect(words.tone === "good", status).toBe(status === "live");
    }
  });

  test("a reason is shown where there is one, and the server is named where there is none", () => {
    expect(connectionWords({ status: "backoff", why: "HTTP 503", since: 0 }, profile).detail).toBe("HTTP 503");
    expect(connectionWords({ status: "live", why: null, since: 0 }, profile).detail).toContain("abc.supabase.co");
    const odd = { ...profile, url: "not an address" };
    expect(connectionWords({ status: "live", why: null, since: 0 }, odd).detail).toContain("not an address");
  });
});

describe("evidence", () => {
  test("values are read without braces and quotes", () => {
    expect(claimValue(true)).toBe("yes");
    expect(claimValue(null)).toBe("none");
    expect(claimValue(["a.ts", "b.ts"])).toBe("a.ts, b.ts");
    expect(claimValue({ files_changed: 2, ok: false })).toBe("Files changed: 2, Succeeded: no");
    expect(claimValue({ sha: "2b3901a75142f2f5ce52", subject: "Round once" }, "commit")).toBe("2b3901a751 Round once");
    expect(claimValue({ number: 4182, url: "https://example.com/a/b/pull/4182" }, "pull_request")).toBe("https://example.com/a/b/pull/4182");
    const answer = (said: unknown, way: string) => claimValue({ ask: "1", answer: said, way, who: "" }, "answer");
    expect(answer({ say: "allow" }, "window")).toBe("allowed in a window of its workstation");
    expect(answer({ say: "deny", message: "not on main" }, "command")).toBe("denied (“not on main”) by a command of the office");
    expect(answer({ say: "choose", choice: 0 }, "cli")).toBe("choice 1 taken with the program semo");
    expect(answer(null, "terminal")).toBe("answered in the terminal");
    expect(answer(null, "by pigeon")).toBe("answered by pigeon");
    expect(claimValue({ command: "npm test", ok: false, exit_code: 1 }, "command")).toBe("npm test (Succeeded: no, Exit code: 1)");
    expect(claimValue({ duration_ms: 1_240 })).toBe("Took: 1.2 s");
    expect(claimValue({ a: { b: { c: 1 } } })).not.toMatch(/[{}"]/);
    expect(claimValue([])).toBe("none");
    expect(claimValue(1_240, "turn_ms")).toBe("1.2 s");
    expect(claimValue("2b3901a75142f2f5ce5219d1e1b1030c4aa724b8", "head_after")).toBe("2b3901a751");
  });

  test("long values and long lists end", () => {
    expect(claimValue("x".repeat(10_000)).length).toBeLessThan(700);
    expect(claimValue(Array.from({ length: 500 }, (_, index) => index))).toContain("and 480 more");
  });

  test("names and sources become words, unknown ones stay readable", () => {
    expect(claimName("head_after")).toBe("Commit after");
    expect(claimName("lines_of_poetry")).toBe("Lines of poetry");
    expect(sourceWords("hook:Stop")).toBe("agent’s signal Stop");
    expect(sourceWords("sundial")).toBe("sundial");
    expect(ruleSentence("stop-with-marker")).not.toContain("stop-with-marker");
    expect(ruleSentence("a-new-rule")).toContain("a-new-rule");
    expect(tierWords("claimed").meaning).toContain("said");
  });
});

describe("prompt", () => {
  test("nothing and too much are not sent, and the limit counts bytes, not letters", () => {
    expect(promptFault("")).not.toBeNull();
    expect(promptFault(" \n ")).not.toBeNull();
    expect(promptFault("fix it")).toBeNull();
    expect(promptFault("가".repeat(PROMPT_BYTES_MAX / 3))).toBeNull();
    expect(promptFault("가".repeat(PROMPT_BYTES_MAX / 2))).toContain("KiB");
  });
});

describe("time", () => {
  const now = 1_000_000_000_000;

  test.each([
    [-5_000, "just now"],
    [3_000, "just now"],
    [42_000, "42 s ago"],
    [5 * 60_000, "5 min ago"],
    [3 * 3_600_000, "3 h ago"],
    [30 * 3_600_000, "yesterday"],
    [80 * 3_600_000, "3 days ago"],
  ])("%i ms ago is “%s”", (passed, expected) => {
    expect(ago(now - passed, now)).toBe(expected);
  });

  test("what goes on changes its words once a minute after the first", () => {
    expect([0, 59_999, 60_000, 119_999, 72 * 60_000].map(elapsed)).toEqual(["0 s", "59 s", "1 min", "1 min", "1 h 12 min"]);
  });

  test.each([
    [-1, "0.0 s"],
    [840, "0.8 s"],
    [12_400, "12 s"],
    [185_000, "3 min 05 s"],
    [72 * 60_000, "1 h 12 min"],
  ])("%i ms last “%s”", (ms, expected) => {
    expect(duration(ms)).toBe(expected);
  });
});

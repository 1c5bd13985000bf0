import { describe, expect, test } from "vitest";

import type { CommandStatus, CommandView, Session, SessionState } from "../backend";
import { agentIdOf, isCancellable, isOver, standingOf } from "./commands";
import { connectionWords } from "./connection";
import { claimName, claimsShown, claimValue, sourceWords, tierWords } from "./evidence";
import { PROMPT_BYTES_MAX, promptFault } from "./prompt";
import { ruleSentence } from "./rules";
import { exitSentence, isInterruptible, leadingSession, livingSessions, promptTarget, sessionWords } from "./sessions";
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
    hold: null,
    taken_up: false,
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

  test("only a workstation's own result says that a cancelled command is proven stopped", () => {
    expect(standingOf(command("cancelled", "cancelled")).meaning).toContain("proven");
    expect(standingOf(command("cancelled", null)).meaning).toContain("not known");
    expect(standingOf(command("succeeded", "cancelled"))).toEqual(standingOf(command("cancelled", "cancelled")));
  });

  test("a command for a session is for the agent of that session", () => {
    const owners = new Map([["s", "a"]]);
    expect(agentIdOf({ agent_id: "b", session_id: "s" }, owners)).toBe("b");
    expect(agentIdOf({ agent_id: null, session_id: "s" }, owners)).toBe("a");
    expect(agentIdOf({ agent_id: null, session_id: "t" }, owners)).toBeNull();
    expect(agentIdOf({ agent_id: null, session_id: null }, owners)).toBeNull();
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

  test("the session shown first asks, else works, else was used last, else is warm", () => {
    const used = (id: string, at: number) => ({ session_id: id, created_at: at, started_at: null });
    const warm = { ...session("warm", { state: "idle" }, 99), warm: true };
    const old = session("old", { state: "idle" }, 1);
    const newer = session("newer", { state: "idle" }, 5);
    const ending = session("ending", { state: "stopping" }, 200);
    expect(leadingSession([ending, warm])?.id).toBe("warm");
    expect(leadingSession([warm, old, newer])?.id).toBe("newer");
    expect(leadingSession([warm, old, newer], [used("old", 9), used("warm", 10)])?.id).toBe("old");
    expect(leadingSession([warm, newer, session("busy", { state: "working", turn: null })])?.id).toBe("busy");
    expect(leadingSession([warm, newer, asking])?.id).toBe(asking.id);
  });

  test("one session that waits for an answer does not block its agent", () => {
    const mina = { name: "Mina" };
    const free = session("free", { state: "idle" });
    const busy = session("busy", { state: "working", turn: null });
    const login = session("login", { state: "awaiting_person", turn: null, ask: "login" });
    expect(promptTarget(mina, null, [], true)).toEqual({ session: null, remark: "" });
    expect(promptTarget(mina, free, [free], true).session).toBe(free);
    expect(promptTarget(mina, busy, [busy, free], true).session).toBe(busy);
    expect(promptTarget(mina, asking, [asking, free], false).session).toBeNull();
    expect(promptTarget(mina, asking, [asking, free], false).remark).toContain("a free one of Mina");
    expect(promptTarget(mina, asking, [asking, busy], true).remark).toContain("a new one of Mina");
    expect(promptTarget(mina, asking, [asking, busy], false).session).toBe(asking);
    expect(promptTarget(mina, asking, [asking, busy], false).remark).toContain("first");
    expect(promptTarget(mina, login, [login], true).session).toBe(login);
  });

  test("each state has its word, and each ask its own", () => {
    expect(sessionWords(idle.state)).toEqual({ label: "Ready", tone: "good" });
    expect(sessionWords({ state: "awaiting_person", turn: null, ask: "login" }).label).toBe("Needs sign-in");
    expect(isInterruptible(asking)).toBe(true);
    expect(isInterruptible(idle)).toBe(false);
  });

  test("an end by a signal is not an exit code", () => {
    expect(exitSentence(null)).toContain("signal");
    expect(exitSentence(137)).toContain("ended by signal 9.");
    expect(exitSentence(3)).toContain("exit code 3");
    expect(exitSentence(0)).not.toContain("code");
  });
});

describe("connection", () => {
  const profile = { name: "Webshop", kind: "supabase", url: "https://abc.supabase.co", kept: "file", team: null, changing: false } as const;

  test("only live is called connected", () => {
    for (const status of ["offline", "connecting", "joining", "live", "backoff", "stopped"] as const) {
      const words = connectionWords({ status, why: null, since: 0 }, profile, 0);
      expect(words.label === "Connected", status).toBe(status === "live");
      expect(words.tone === "good", status).toBe(status === "live");
    }
  });

  test("a reason is shown where there is one, and the server is named where there is none", () => {
    expect(connectionWords({ status: "backoff", why: "HTTP 503", since: 0 }, profile, 0).detail).toBe("HTTP 503");
    const long = connectionWords({ status: "connecting", why: null, since: 0 }, profile, 4 * 60_000);
    expect(long.label).toBe("Connecting, for 4 min");
    expect(connectionWords({ status: "live", why: null, since: 0 }, profile, 4 * 60_000).label).toBe("Connected");
    expect(connectionWords({ status: "live", why: null, since: 0 }, profile, 0).detail).toContain("abc.supabase.co");
    const odd = { ...profile, url: "not an address" };
    expect(connectionWords({ status: "live", why: null, since: 0 }, odd, 0).detail).toContain("not an address");
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
    expect(answer({ say: "allow" }, "window")).toBe("Allowed in a window by a person");
    expect(answer({ say: "deny", message: "not on main" }, "command")).toBe("Denied (“not on main”) by a command of the office");
    expect(answer({ say: "choose", choice: 0 }, "cli")).toBe("Choice 1 taken at the CLI by a person");
    expect(answer(null, "terminal")).toBe("Answered in the terminal by a person");
    expect(answer(null, "by pigeon")).toBe("Answered by pigeon");
    expect(claimValue({ ask: "1", answer: { say: "allow" }, way: "cli", who: "person" }, "answer")).toBe("Allowed at the CLI by person");
    const id = "6f6c3c1e-0000-4000-8000-000000000001";
    expect(claimValue({ ask: "1", answer: { say: "allow" }, way: "cli", who: id }, "answer")).not.toContain(id);
    expect(claimValue({ tools: 2, failed_commands: 0 }, "tools_used")).toBe("Tools: 2");
    expect(claimValue({ tools: 2, failed_commands: 1 }, "tools_used")).toContain("Commands that failed: 1");
    expect(claimValue({ command: "npm test", ok: false, exit_code: 1 }, "command")).toBe("npm test (Succeeded: no, Exit code: 1)");
    expect(claimValue({ duration_ms: 1_240 })).toBe("Took: 1.2 s");
    expect(claimValue({ a: { b: { c: 1 } } })).not.toMatch(/[{}"]/);
    expect(claimValue([])).toBe("none");
    expect(claimValue(1_240, "turn_ms")).toBe("1.2 s");
    expect(claimValue("2b3901a75142f2f5ce5219d1e1b1030c4aa724b8", "head_after")).toBe("2b3901a751");
  });

  test("an answer that two witnesses tell of is listed once, and what did not happen not at all", () => {
    const claim = (what: string, value: unknown, source: string) => ({ what, value, tier: "observed" as const, source });
    const bare = claim("answer", { ask: "1", answer: null, way: "cli", who: "" }, "person");
    const full = claim("answer", { ask: "1", answer: { say: "allow" }, way: "cli", who: "" }, "asks");
    const other = claim("answer", { ask: "2", answer: { say: "allow" }, way: "cli", who: "" }, "asks");
    const none = claim("failed_commands", 0, "tools");
    expect(claimsShown([bare, full, other, none])).toEqual([full, other]);
    expect(claimsShown([full, bare])).toEqual([full]);
    const odd = claim("answer", "yes", "person");
    expect(claimsShown([odd, odd])).toHaveLength(2);
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

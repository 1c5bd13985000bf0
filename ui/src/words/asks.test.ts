import { describe, expect, test } from "vitest";

import type { Agent, PendingAsk } from "../backend";
import {
  answeredBefore,
  askKind,
  askPlace,
  askText,
  asksOfAgent,
  askTitle,
  closedElsewhere,
  mayBeCut,
  MESSAGE_BYTES_MAX,
  messageFault,
  newAsksSentence,
  onlyAtTerminal,
  windowTitle,
} from "./asks";
import { exactLine, exactRuns } from "./exact";

const MINA: Agent = { id: "a", role: "FE", name: "Mina", prompt: "", scope_patterns: [], core_skills: [], provider: "claude" };

const AT = new Date(2026, 10, 21, 10, 18).getTime();

function ask(id: string, patch: Partial<PendingAsk> = {}): PendingAsk {
  return {
    id,
    session_id: "s",
    agent_id: "a",
    kind: "permission",
    tool: "Bash",
    text: "ls",
    choices: [],
    asked_at: 0,
    mine: true,
    answerable: true,
    ...patch,
  };
}

describe("what is asked", () => {
  test("every kind has its own title and its own word", () => {
    const kinds = (["permission", "question", "login", "dialog"] as const).map((kind) => ask("1", { kind, tool: null }));
    expect(new Set(kinds.map((one) => askTitle(one, MINA))).size).toBe(4);
    expect(new Set(kinds.map((one) => askKind(one))).size).toBe(4);
    expect(askTitle(ask("1"), MINA)).toBe("Mina asks permission to use Bash");
    expect(askTitle(ask("1"), null)).toContain("An agent");
  });

  test("what the title says is not said again, and nothing else is left out", () => {
    expect(askText(ask("1", { tool: "Write", text: "May it use Write? /a/b" }))).toBe("/a/b");
    expect(askText(ask("1", { tool: "Write", text: "May it use Bash? ls" }))).toBe("May it use Bash? ls");
    expect(askText(ask("1", { tool: "Write", text: "May it use Write? May it use Write? x" }))).toBe("May it use Write? x");
    expect(askText(ask("1", { tool: null, text: "Red or blue?" }))).toBe("Red or blue?");
  });

  test("a text that may go on is told", () => {
    expect(mayBeCut(ask("1", { text: "ls" }))).toBe(false);
    expect(mayBeCut(ask("1", { text: `${"가".repeat(2_000)}` }))).toBe(false);
    const cut = "\n… (cut: 7 more characters; read all of it in the terminal)";
    expect(mayBeCut(ask("1", { text: `${"x".repeat(2_000)}${cut}` }))).toBe(true);
    expect(mayBeCut(ask("1", { text: "rm -rf…\n" }))).toBe(true);
  });

  test("a tool cannot hide in its name", () => {
    expect(askTitle(ask("1", { tool: "Read\u202e\u001b[2K" }), MINA)).toBe("Mina asks permission to use Read[U+202E][ESC][2K");
  });

  test("what only its terminal can answer says where that is", () => {
    expect(onlyAtTerminal(ask("1"))).toBeNull();
    expect(onlyAtTerminal(ask("1", { answerable: false }))).not.toContain("machine");
    expect(onlyAtTerminal(ask("1", { answerable: false, mine: false }))).toContain("machine it runs on");
  });

  test("a message is counted in bytes", () => {
    expect(messageFault("x".repeat(MESSAGE_BYTES_MAX))).toBeNull();
    expect(messageFault("가".repeat(MESSAGE_BYTES_MAX / 2))).not.toBeNull();
  });

  test("the session on the screen comes first, then the oldest; other agents' are not shown", () => {
    const asks = [
      ask("far-new", { session_id: "x", mine: false, asked_at: 9 }),
      ask("far-old", { session_id: "y", mine: false, asked_at: 1 }),
      ask("here", { asked_at: 20 }),
      ask("other", { session_id: "z", agent_id: "b" }),
    ];
    expect(asksOfAgent(asks, "a", "s").map((one) => one.id)).toEqual(["here", "far-old", "far-new"]);
    expect(asksOfAgent(asks, "a", null).map((one) => one.id)).toEqual(["far-old", "far-new", "here"]);
    const nameless = [ask("unknown agent", { agent_id: null })];
    expect(asksOfAgent(nameless, "a", "s")).toHaveLength(1);
    expect(asksOfAgent(nameless, "a", null)).toHaveLength(0);
  });
});

test("a line over another terminal says whose ask it leads to", () => {
  expect(askPlace(ask("1"), { branch: "semo/mina-c0de", title: "Mina" })).toBe("in another session, semo/mina-c0de");
  expect(askPlace(ask("1", { mine: false }), null)).toContain("another machine");
});

describe("who is told", () => {
  test("only what is new is read out, and many are counted", () => {
    expect(newAsksSentence([ask("1")], [ask("1")], [MINA])).toBeNull();
    expect(newAsksSentence([ask("1")], [], [MINA])).toBeNull();
    expect(newAsksSentence([], [ask("1", { text: "rm\n-rf" })], [MINA])).toBe("Mina asks permission to use Bash: rm -rf");
    expect(newAsksSentence([], [ask("1"), ask("2")], [MINA])).toBe("2 agents wait for you.");
  });

  test("the title counts those who wait", () => {
    expect(windowTitle("Shop", 0)).toBe("Shop – SEMO Office");
    expect(windowTitle("Shop", 3)).toBe("(3) Shop – SEMO Office");
    expect(windowTitle(null, 0)).toBe("SEMO Office");
  });

  test("nobody is named who is not known to have answered", () => {
    const closed = (id: string, how: string) => ({ id, session_id: "s", agent_id: "a", kind: "permission" as const, text: "ls", how, closed_at: AT });
    expect(closedElsewhere(ask("1"), MINA, [], 0).title).toContain("answered elsewhere, or taken back");
    expect(closedElsewhere(ask("1"), MINA, [closed("2", "denied in its terminal")], 0).title).toContain("elsewhere");
    const told = closedElsewhere(ask("1"), MINA, [closed("2", "x"), closed("1", "allowed by a command of the office")], AT);
    expect(told.title).toBe("Mina does not wait any more: allowed by a command of the office at 10:18.");
    const taken = closedElsewhere(ask("1"), MINA, [closed("1", "withdrawn: the session ended: “a: b”")], AT);
    expect(taken.title).toBe("Mina does not wait any more: withdrawn, the session ended, “a: b” at 10:18.");
  });

  test("being second is no fault, and the core's words say who was first", () => {
    const remark = answeredBefore(ask("1"), MINA, "already answered by semo on this workstation", AT);
    expect(remark.tone).not.toBe("bad");
    expect(remark.detail).toContain("already answered by semo");
    const core = `it is over since ${new Date(AT).toISOString()}: denied: “no: not so” in its terminal`;
    expect(answeredBefore(ask("1"), MINA, core, AT).detail).toBe("it is over since 10:18: denied, “no: not so” in its terminal");
  });
});

describe("text as it really is", () => {
  const named = (text: string) => exactRuns(text).filter((run) => run.named).map((run) => run.text);

  test.each([
    ["a line feed and a tab are seen", "a\n\tb", []],
    ["so is a line that ends the other way", "a\r\nb", []],
    ["a carriage return alone would draw over the line", "rm x\rls", ["CR"]],
    ["escapes", "\u001b[2K\u009b1m", ["ESC", "U+009B"]],
    ["letters turned round", "a\u202eb\u2066c", ["U+202E", "U+2066"]],
    ["nothing that is something", "a\u200b\u2060\ufeff\u00ad\u3164\uffa0b", ["U+200B", "U+2060", "U+FEFF", "U+00AD", "U+3164", "U+FFA0"]],
    ["blanks that are no blank", "rm\u00a0-rf\u2003x", ["NBSP", "U+2003"]],
    ["tags", "a\u{e0041}b", ["U+E0041"]],
    ["Hangul, accents and pictures are seen", "안녕 é e\u0301 👍🏽 ❤️", []],
    ["a picture of several is one", "👩‍💻 👨🏽‍🚀 🏳️‍🌈", []],
    ["a joiner between letters is none", "a\u200db", ["U+200D"]],
  ])("%s", (_what, text, expected) => {
    expect(named(text)).toEqual(expected);
  });

  test("nothing is lost", () => {
    const text = "a\u202eb\u0000c";
    expect(exactRuns(text).map((run) => run.text).join("|")).toBe("a|U+202E|b|NUL|c");
    expect(exactRuns("")).toEqual([]);
    expect(exactLine(" a\n  b\u001b ")).toBe("a b[ESC]");
  });
});

/** Results with their facts, sessions with their troubles, kept work: what the window must tell truthfully. */

import { baseState, command, pool, session } from "./scenarios.mjs";

const NOW = Date.now();
const MINUTE = 60_000;

const git = (what, value) => ({ what, value, tier: "verified", source: "git" });
const hook = (what, value, name = "PostToolUse") => ({ what, value, tier: "observed", source: `hook:${name}` });

export const WITH_FACTS = command({
  id: "c-facts",
  summary: "Fix the rounding in the cart and open a pull request",
  prompt: "Fix the rounding in the cart and open a pull request.\nRun the tests first.",
  status: "succeeded",
  outcome: "done",
  started_at: NOW - 14 * MINUTE,
  finished_at: NOW - 11 * MINUTE,
  final_message: "The cart rounds once, at the end.\n\n[SEMO:DONE]",
  evidence: {
    rule: "stop-with-marker",
    claims: [
      hook("prompt_acknowledged", { enters: 1 }, "UserPromptSubmit"),
      hook("command", { command: "npm test", ok: false, exit_code: 1, duration_ms: 8_200, test: true }, "PostToolUseFailure"),
      hook("command", { command: "git push origin HEAD", ok: false, exit_code: 128, duration_ms: 900 }, "PostToolUseFailure"),
      hook("command", { command: "npm test", ok: true, exit_code: 0, duration_ms: 9_100, test: true }),
      hook("pull_request", { number: 4182, url: "https://git.example.com/webshop/storefront/pull/4182" }),
      hook("pull_request", "javascript:alert(1)"),
      { what: "marker", value: "present", tier: "claimed", source: "hook:Stop" },
      git("commit", { sha: "4be1c0957a0c9f51c3b54d1e0f9e3fd5a1b2c3d4", subject: "Cart: round once, at the end" }),
      git("commit", { sha: "09aa3d1e5b6c7d8e9f00112233445566778899aa", subject: "장바구니 합계 반올림 테스트 추가" }),
      git("head_after", "4be1c0957a0c9f51c3b54d1e0f9e3fd5a1b2c3d4"),
      git("commits", 2),
      git("files_changed", 5),
      git("insertions", 1_204),
      git("deletions", 38),
      git("uncommitted", true),
      git("unpushed", 2),
    ],
  },
});

export const LIMITED = command({
  id: "c-limit",
  summary: "Translate the help pages",
  prompt: "Translate the help pages",
  status: "failed",
  outcome: "failed",
  started_at: NOW - 20 * MINUTE,
  finished_at: NOW - 19 * MINUTE,
  class: "rate_limit",
  reason: "You've hit your session limit · resets 3:14am (UTC)",
  evidence: {
    rule: "provider-failure",
    claims: [
      hook("failure", { class: "rate_limit", message: "You've hit your session limit", status: 429, resets_at: NOW + 90 * MINUTE }, "StopFailure"),
    ],
  },
});

const RETRYING = "The model's API answers 401, retry 3 of 10. Sign in: run `claude` in a terminal of your own and type /login.";

export const EXPLANATION = {
  session: "s-1",
  state: { state: "idle" },
  program: "claude 2.1.197",
  detector: "claude 2026.11.21.1",
  turns: [
    {
      turn: null,
      prompt_head: "what is in this folder?",
      outcome: "unconfirmed",
      class: null,
      rule: "idle-without-stop",
      reason: "the agent is idle again, but neither its stop signal nor its record of the end was seen",
      evidence: { rule: "idle-without-stop", claims: [] },
      log: [{ at_ms: 1_200, source: "screen", rule: "prompt", what: "what is in this folder?" }],
    },
    {
      turn: "7d1f6a52-0000-4000-8000-000000000001",
      prompt_head: "Fix the rounding in the cart and open a pull request. Run…",
      outcome: "done",
      class: null,
      rule: "stop-with-marker",
      reason: null,
      evidence: WITH_FACTS.evidence,
      log: [
        { at_ms: 61_000, source: "actor", rule: "began", what: "" },
        { at_ms: 61_180, source: "hook", rule: "prompt", what: "Fix the rounding in the cart and open a pull request." },
        { at_ms: 70_400, source: "hook", rule: "tool", what: "Bash npm test\u202e" },
        { at_ms: 90_000, source: "screen", rule: "rule-of-a-newer-core", what: "words of a newer core" },
        { at_ms: 238_600, source: "hook:Stop", rule: "stopped", what: "…rounds once, at the end.\n\n[SEMO:DONE]" },
        { at_ms: 238_691, source: "judge", rule: "stop-with-marker", what: "Done" },
      ],
    },
  ],
  readings: [
    { at_ms: 0, rule: "claude/starting", matched: "", meaning: "starting" },
    { at_ms: 900, rule: "claude/input-box", matched: "❯ ", meaning: "ready" },
    { at_ms: 61_100, rule: "claude/esc-to-interrupt", matched: "✻ Rounding… (esc to interrupt)", meaning: "busy" },
    { at_ms: 238_640, rule: "claude/future-rule-nobody-knows", matched: "? for shortcuts \x1b[0m", meaning: "dialog permission" },
  ],
};

export const PRESERVED = [
  {
    repository: "webshop",
    name: "6f6c3c1e-0000-4000-8000-000000000001",
    branch: "semo/jonas-11c2",
    commit: "c0ffee57a0c9f51c3b54d1e0f9e3fd5a1b2c3d4e",
    kept_at: NOW - 26 * 60 * MINUTE,
    agent: "Jonas (BE)",
    files_changed: 1,
    why: "the session was ended",
  },
  {
    repository: "sample",
    name: "9a9c3c1e-0000-4000-8000-000000000002",
    branch: "semo/mina-7f3a",
    commit: "4be1c0957a0c9f51c3b54d1e0f9e3fd5a1b2c3d4",
    kept_at: NOW - 40 * MINUTE,
    agent: "Mina (FE)",
    files_changed: 14,
    why: "the session was given up after 10 minutes without work",
  },
  {
    repository: "sample",
    name: "aa9c3c1e-0000-4000-8000-000000000003",
    branch: null,
    commit: "09aa3d1e5b6c7d8e9f00112233445566778899aa",
    kept_at: NOW - 8 * 24 * 60 * MINUTE,
    agent: null,
    files_changed: 1_204,
    why: "왜 보관되었는지: 작업 폴더가 꽉 찬 디스크에서 제거되었습니다",
  },
];

export const TRUTH_SCENARIOS = {
  facts: { state: baseState({ sessions: [session()], commands: [WITH_FACTS, LIMITED] }), expand: ["Done", "Failed"] },
  retrying: {
    state: baseState({
      sessions: [session({ state: { state: "working", turn: "t-1" }, retrying: RETRYING })],
      commands: [command({ id: "c-retry", status: "running", started_at: NOW - 40_000 })],
    }),
  },
  pool: {
    state: baseState({
      sessions: [
        session({ stale: true, restarts: 2, memory_mb: 1_480 }),
        session({ id: "s-3", agent_id: "a-qa", title: "소연 (QA)", warm: true, branch: "semo/soyeon-90d4", memory_mb: 290 }),
      ],
      pool: pool({
        open: 2,
        warm: 1,
        waiting: 3,
        memory_mb: 5_700,
        paused_agents: [
          { agent_id: "a-be", until: NOW + 7 * MINUTE, why: "its program ended unexpectedly 3 times within 10 minutes; the last time with exit code 139" },
        ],
      }),
    }),
    pick: "Jonas",
  },
};

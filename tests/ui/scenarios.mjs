/**
 * States of the core that are hard to provoke on purpose, as data. Each is one picture of the window; the story over
 * real parts is elsewhere (story.mjs).
 */

const NOW = Date.now();
const MINUTE = 60_000;

export const AGENTS = [
  {
    id: "a-fe",
    role: "FE",
    name: "Mina",
    prompt: "You build the user interface. You care about calm layouts, keyboard reach and small bundles.",
    scope_patterns: ["ui/**", "assets/**"],
    core_skills: ["Svelte", "TypeScript", "CSS", "Accessibility"],
    provider: "claude",
  },
  {
    id: "a-be",
    role: "BE",
    name: "Jonas",
    prompt: "You build the server side. You write the migration first, then the query, then the endpoint.",
    scope_patterns: ["server/**", "migrations/**"],
    core_skills: ["Rust", "PostgreSQL"],
    provider: "claude",
  },
  {
    id: "a-qa",
    role: "QA",
    name: "소연",
    prompt: "You test what the others built, on real parts, and you say what you saw.",
    scope_patterns: ["tests/**"],
    core_skills: ["Playwright", "Exploratory testing"],
    provider: "claude",
  },
];

/** An office of this machine alone, and one of a team. */
export const HERE = { name: "This machine", kind: "this_machine", url: "http://127.0.0.1:41007", kept: null, team: null, changing: false };
export const TEAM = { url: "https://example.supabase.co", publishable_key: "sb_publishable_example", email: "person@example.com" };
export const THERE = { name: TEAM.url, kind: "supabase", url: TEAM.url, kept: "keychain", team: TEAM, changing: false };

export function session(patch = {}) {
  return {
    id: "s-1",
    agent_id: "a-fe",
    title: "Mina (FE)",
    state: { state: "idle" },
    asks: null,
    ask: null,
    warm: false,
    stale: false,
    retrying: null,
    memory_mb: 312,
    restarts: 0,
    hold: null,
    taken_up: false,
    repository: "sample",
    branch: "semo/mina-7f3a",
    worktree: "/home/person/.local/share/semo/worktrees/sample/mina-7f3a",
    started_at: NOW - 9 * MINUTE,
    ...patch,
  };
}

let askCount = 0;
/** Something an agent waits with; the session it belongs to is told apart by its id. */
export function ask(patch = {}) {
  askCount += 1;
  return {
    id: `ask-${askCount}`,
    session_id: "s-3",
    agent_id: "a-qa",
    kind: "permission",
    tool: "Bash",
    text: "psql -f migrations/0007.sql",
    choices: [],
    asked_at: NOW - 65_000,
    mine: true,
    answerable: true,
    ...patch,
  };
}

let commandCount = 0;
export function command(patch = {}) {
  commandCount += 1;
  return {
    id: `c-${commandCount}`,
    kind: "send_prompt",
    agent_id: "a-fe",
    session_id: "s-1",
    summary: "Make the header sticky on small screens",
    prompt: "Make the header sticky on small screens",
    status: "queued",
    outcome: null,
    created_at: NOW - 2 * MINUTE,
    started_at: null,
    finished_at: null,
    final_message: null,
    reason: null,
    class: null,
    evidence: null,
    recovered: null,
    mine: true,
    ...patch,
  };
}

export const DONE = command({
  status: "succeeded",
  outcome: "done",
  created_at: NOW - 6 * MINUTE,
  started_at: NOW - 6 * MINUTE + 300,
  finished_at: NOW - 4 * MINUTE,
  final_message:
    "The header stays at the top below 720 px. I changed `Header.svelte` and added a test that scrolls.\n\n[SEMO:DONE]",
  evidence: {
    rule: "stop-with-marker",
    claims: [
      { what: "marker", value: "present", tier: "claimed", source: "hook:Stop" },
      { what: "final_message", value: "agrees with the transcript", tier: "observed", source: "transcript" },
      { what: "head_after", value: "4be1c09", tier: "verified", source: "git" },
      { what: "files_changed", value: ["ui/src/Header.svelte", "ui/tests/header.test.ts"], tier: "verified", source: "git" },
      { what: "pushed", value: false, tier: "verified", source: "git" },
    ],
  },
});

export const UNCONFIRMED = command({
  agent_id: "a-be",
  session_id: "s-2",
  summary: "Add an index for the orders list and show the plan before and after",
  prompt: "Add an index for the orders list and show the plan before and after.\nUse EXPLAIN (ANALYZE, BUFFERS).",
  status: "unconfirmed",
  outcome: "unconfirmed",
  created_at: NOW - 22 * MINUTE,
  started_at: NOW - 22 * MINUTE,
  finished_at: NOW - 19 * MINUTE,
  final_message: "I added the index. Shall I also drop the old one?",
  reason: "the agent stopped without the completion marker it was asked for",
  evidence: {
    rule: "stop-without-marker",
    claims: [
      { what: "marker", value: "absent", tier: "observed", source: "hook:Stop" },
      { what: "head_after", value: "09aa3d1", tier: "verified", source: "git" },
    ],
  },
  mine: false,
});

/** Every status there is, one card each. */
const EVERY_STATUS = [
  command({ summary: "Queued: rename the settings page" }),
  command({ summary: "Taken: rename the settings page", status: "claimed", started_at: NOW - 4_000 }),
  command({ summary: "In line: rename the settings page", status: "waiting" }),
  command({ summary: "Running: rename the settings page", status: "running", started_at: NOW - 65_000 }),
  command({
    summary: "Running, and asks: may it run the migration?",
    agent_id: "a-qa",
    session_id: "s-3",
    status: "running",
    started_at: NOW - 95_000,
  }),
  command({ summary: "Reporting: rename the settings page", status: "reporting", started_at: NOW - 95_000, finished_at: NOW - 2_000 }),
  DONE,
  UNCONFIRMED,
  command({
    summary: "Failed: rate limit",
    status: "failed",
    outcome: "failed",
    started_at: NOW - 30 * MINUTE,
    finished_at: NOW - 29 * MINUTE,
    reason: "rate_limit: API Error: 429 the request would exceed your limit; it is reset at 14:00",
    evidence: { rule: "provider-failure", claims: [{ what: "error", value: { class: "rate_limit", status: 429 }, tier: "observed", source: "hook:StopFailure" }] },
  }),
  command({ summary: "Cancelled: rewrite everything", status: "cancelled", outcome: "cancelled", started_at: NOW - 40 * MINUTE, finished_at: NOW - 39 * MINUTE, reason: "cancelled by a member of the office" }),
  command({ summary: "Expired: update the changelog", status: "expired", created_at: NOW - 3 * 60 * MINUTE, mine: false }),
  command({ summary: "Given up: deploy the preview", status: "dead", created_at: NOW - 26 * 60 * MINUTE, reason: "its lease ran out three times" }),
  command({ kind: "create_session", summary: "Start a session", prompt: null, status: "succeeded", outcome: "ok", started_at: NOW - 50 * MINUTE, finished_at: NOW - 50 * MINUTE + 2_400 }),
];

export function baseState(patch = {}) {
  return {
    profile: HERE,
    version: "0.1.0",
    connection: { status: "live", why: null, since: NOW - 10 * MINUTE },
    office: { id: "o-1", name: "This machine" },
    offices: [{ id: "o-1", name: "This machine" }],
    agents: AGENTS,
    sessions: [],
    commands: [],
    problems: [],
    launch: { recovering: 0, taken_up: 0, ended_meanwhile: 0, unknown: 0, since: NOW - 40 * MINUTE },
    ending: null,
    repositories: [{ name: "sample", path: "/home/person/semo-sample", default: true }],
    limits: { sessions_max: 6 },
    closed_asks: [],
    asks: patch.sessions?.flatMap((one) => one.ask ?? []) ?? [],
    pool: pool({ open: patch.sessions?.length ?? 0 }),
    ...patch,
  };
}

export function pool(patch = {}) {
  return {
    sessions_max: 6,
    warm_roles: ["FE", "BE", "QA"],
    open: 0,
    warm: 0,
    waiting: 0,
    memory_mb: 936,
    memory_limit_mb: 6144,
    idle_minutes: 10,
    paused_agents: [],
    ...patch,
  };
}

const BUSY_SESSIONS = [
  session(),
  session({ id: "s-2", agent_id: "a-be", title: "Jonas (BE)", branch: "semo/jonas-11c2", state: { state: "working", turn: "t-1" } }),
  session({ id: "s-3", agent_id: "a-qa", title: "소연 (QA)", branch: "semo/soyeon-90d4", state: { state: "awaiting_person", ask: "permission", turn: "t-2" }, asks: "May it use Bash: psql -f migrations/0007.sql?", ask: ask() }),
];

/** Name → what the core says. `link` scenarios have no state: the core itself misbehaves. */
export const SCENARIOS = {
  "first-start": { state: baseState() },
  live: { state: baseState({ sessions: BUSY_SESSIONS, commands: [DONE, UNCONFIRMED, command({ status: "running", started_at: NOW - 65_000, agent_id: "a-be", session_id: "s-2", summary: "Write the migration for the audit log" })] }) },
  "every-status": { state: baseState({ sessions: BUSY_SESSIONS, commands: EVERY_STATUS }), expand: ["Done", "Unconfirmed", "Failed"] },
  "two-sessions": {
    state: baseState({
      sessions: [session(), session({ id: "s-4", branch: "semo/mina-c0de", state: { state: "starting" }, started_at: NOW - 3_000 })],
      offices: [{ id: "o-1", name: "This machine" }, { id: "o-2", name: "Webshop team" }],
      repositories: [
        { name: "sample", path: "/home/person/semo-sample", default: true },
        { name: "webshop", path: "/home/person/webshop", default: false },
      ],
    }),
  },
  "session-ended": { state: baseState({ sessions: [session()], commands: [DONE] }), exit: { session: "s-1", code: 1 } },
  "start-refused": {
    state: baseState({
      commands: [
        command({
          kind: "create_session",
          summary: "Start a session",
          prompt: null,
          session_id: null,
          status: "failed",
          outcome: "failed",
          reason: "could not open the repository `sample` at /home/person/semo-sample: it is not a git repository; run `git init` there",
        }),
      ],
    }),
  },
  "no-repository": { state: baseState({ repositories: [] }) },
  full: {
    state: baseState({ sessions: [session({ agent_id: "a-be" })], pool: pool({ open: 1, sessions_max: 1 }), limits: { sessions_max: 1 } }),
  },
  "no-agents": { state: baseState({ agents: [] }) },
  "claude-missing": {
    state: baseState({
      problems: [
        {
          code: "claude_missing",
          message: "The program `claude` was not found on this machine.",
          hint: "Install it with `npm install -g @anthropic-ai/claude-code`, or set `claude.program` in the settings. Then choose Refresh.",
        },
      ],
    }),
  },
  "claude-not-signed-in": {
    state: baseState({
      sessions: [session({ state: { state: "awaiting_person", turn: null, ask: "login" } })],
      problems: [
        {
          code: "claude_signed_out",
          message: "Claude Code is not signed in.",
          hint: "Run `claude` in a terminal of your own, type /login there, and follow it once.",
        },
      ],
    }),
  },
  "signed-out": {
    state: baseState({
      profile: { ...THERE, kept: null },
      connection: { status: "stopped", why: "Signed out", since: NOW },
      office: null,
      offices: [],
      agents: [],
      problems: [{ code: "sign_in", message: "person@example.com is not signed in: the sign-in has ended.", hint: "Sign in here or with `semo login`; a machine that nobody sits at gets the password as SEMO_PASSWORD." }],
    }),
  },
  "team-without-office": {
    state: baseState({
      profile: THERE,
      connection: { status: "offline", why: "person@example.com is not a member of any office yet", since: NOW },
      office: null,
      offices: [],
      agents: [],
      problems: [{ code: "office", message: "person@example.com is not a member of any office yet", hint: "Ask the owner of an office to add you, then choose Refresh." }],
    }),
  },
  "office-role": {
    state: baseState({
      profile: THERE,
      connection: { status: "offline", why: "not allowed in this office", since: NOW },
      office: null,
      offices: [],
      agents: [],
      problems: [{ code: "office_role", message: "could not register this workstation: not allowed in this office", hint: "This account may not have a workstation in the office: an owner of the office makes it `owner` or `device`." }],
    }),
  },
  "keychain-locked": {
    state: baseState({
      profile: THERE,
      connection: { status: "offline", why: "the keychain is locked", since: NOW },
      office: null,
      offices: [],
      agents: [],
      problems: [{ code: "keychain", message: "person@example.com is not signed in: could not read the sign-in in this computer's keychain: it is locked; unlock it, or choose the file: supabase.tokens = \"file\"", hint: "It is tried again by itself." }],
    }),
  },
  "team-away": {
    state: baseState({
      profile: THERE,
      connection: { status: "offline", why: "connection refused", since: NOW },
      office: null,
      offices: [],
      agents: [],
      problems: [{ code: "office_unreachable", message: "could not list the offices at https://example.supabase.co: connection refused", hint: "It is tried again by itself; choose Refresh to try at once." }],
    }),
  },
  switching: { state: baseState({ profile: { ...HERE, changing: true } }) },
  "pick-office": {
    state: baseState({
      office: null,
      offices: [{ id: "o-1", name: "This machine" }, { id: "o-2", name: "Webshop team" }],
      agents: [],
    }),
  },
  "no-office": { state: baseState({ office: null, offices: [], agents: [] }) },
  offline: {
    state: baseState({ sessions: BUSY_SESSIONS, connection: { status: "backoff", why: "connection refused, next try in 8 s", since: NOW } }),
  },
  reconnecting: { state: baseState({ sessions: BUSY_SESSIONS, commands: [DONE] }), loses: true },
  unreachable: { link: "unreachable" },
  "wrong-token": { link: "wrong-token" },
  "no-token": { link: "no-token" },
};

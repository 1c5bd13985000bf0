/** Agents that wait for a person: as it is mostly, and as bad as it gets. */

import { AGENTS, ask, baseState, command, session } from "./scenarios.mjs";

const NOW = Date.now();

const waits = (kind, turn = "t-9") => ({ state: "awaiting_person", turn, ask: kind });

/** A session that waits with this ask. */
function waiting(one, patch = {}) {
  return session({ id: one.session_id, agent_id: one.agent_id, state: waits(one.kind), asks: one.text.split("\n")[0], ask: one, ...patch });
}

const COMMAND = ask({
  id: "ask-bash",
  session_id: "s-1",
  agent_id: "a-fe",
  text: "npm --prefix ui run build && \\\n  rsync -a --delete ui/dist/ preview:/srv/www/",
  asked_at: NOW - 12_000,
});
const QUESTION = ask({
  id: "ask-question",
  session_id: "s-2",
  agent_id: "a-be",
  kind: "question",
  tool: null,
  text: "Which of the two indexes shall stay?\nBoth are used; the older one is bigger.",
  choices: ["orders_created_at (older, 412 MB)", "orders_created_at_status (newer, 180 MB)", "두 개 모두 유지하고 다음 배포에서 다시 확인합니다"],
  asked_at: NOW - 48_000,
});
const ELSEWHERE = ask({
  id: "ask-elsewhere",
  session_id: "s-far",
  agent_id: "a-qa",
  tool: "Write",
  text: "/home/other/webshop/tests/e2e/주문-취소.spec.ts",
  mine: false,
  asked_at: NOW - 4 * 60_000,
});

/** A command that tries to look like another one, and to be too long to be read. */
const HOSTILE = ask({
  id: "ask-hostile",
  session_id: "s-1",
  agent_id: "a-fe",
  text: `echo ok\u202e # sh.exe\u200b\x1b[2K\rls\u00a0-la\u3164\n${Array.from({ length: 60 }, (_, index) => `line ${index + 1} of a script that goes on`).join("\n")}\n${"x".repeat(600)}\nrm -rf ~/work\n… (cut: 1234 more characters; read all of it in the terminal)`,
});

const LOGIN = ask({ id: "ask-login", session_id: "s-1", agent_id: "a-fe", kind: "login", tool: null, text: "Select login method", answerable: false });

const MANY = Array.from({ length: 24 }, (_, index) =>
  ask({
    id: `ask-many-${index}`,
    session_id: index === 0 ? "s-1" : `s-far-${index}`,
    agent_id: AGENTS[index % 3].id,
    tool: index % 2 === 0 ? "Bash" : "Edit",
    text: index % 2 === 0 ? `cargo test -p part-${index}` : `server/src/a/rather/long/path/to/the/file_${index}.rs`,
    mine: index === 0,
    asked_at: NOW - (30 - index) * 60_000,
  }),
);

const RUNNING = command({ status: "running", started_at: NOW - 65_000, summary: "Put the preview on the server" });

/** One that was started ahead, and newer than the one that asks. */
const WARM = session({ id: "s-warm", warm: true, branch: "semo/mina-warm", started_at: NOW - 5_000 });

export const ASK_SCENARIOS = {
  "warm-and-asking": {
    state: baseState({ sessions: [WARM, waiting(COMMAND, { branch: "semo/mina-7f3a" })], asks: [COMMAND], commands: [RUNNING] }),
  },
  asks: {
    state: baseState({
      sessions: [waiting(COMMAND), waiting(QUESTION, { branch: "semo/jonas-11c2" })],
      asks: [ELSEWHERE, QUESTION, COMMAND],
      commands: [RUNNING],
    }),
  },
  "ask-question": { state: baseState({ sessions: [waiting(QUESTION)], commands: [] }), pick: "Jonas" },
  "ask-elsewhere": { state: baseState({ asks: [ELSEWHERE] }), pick: "소연" },
  "ask-hostile": { state: baseState({ sessions: [waiting(HOSTILE)], commands: [RUNNING] }) },
  "ask-login": { state: baseState({ sessions: [waiting(LOGIN)] }) },
  "many-asks": { state: baseState({ sessions: [waiting(MANY[0])], asks: MANY, commands: [RUNNING] }) },
};

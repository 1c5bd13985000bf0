/** The core's own life: starts after which others went on, ends that wait, a connection that comes and goes. */

import { baseState, command, DONE, pool, session } from "./scenarios.mjs";

const NOW = Date.now();
const MINUTE = 60_000;

const working = (patch = {}) => session({ state: { state: "working", turn: "t-1" }, started_at: NOW - 70 * MINUTE, ...patch });
const OTHERS = [
  session({ id: "s-2", agent_id: "a-be", title: "Jonas (BE)", branch: "semo/jonas-11c2", taken_up: true }),
  session({ id: "s-3", agent_id: "a-qa", title: "소연 (QA)", branch: "semo/soyeon-90d4", state: { state: "working", turn: "t-2" }, taken_up: true }),
];

/** One of each kind that a start can find again. */
const FOUND_AGAIN = [
  command({ status: "running", started_at: NOW - 61 * MINUTE, created_at: NOW - 62 * MINUTE, summary: "Move the settings page to the new layout", recovered: "followed" }),
  { ...DONE, id: "c-r1", summary: "Rename the export button", recovered: "reported" },
  command({ status: "succeeded", outcome: "done", created_at: NOW - 9 * MINUTE, started_at: NOW - MINUTE, finished_at: NOW - 20_000, summary: "Check the new endpoint by hand", prompt: "Check the new endpoint by hand", agent_id: "a-qa", session_id: "s-3", recovered: "run_again", final_message: "It answers 200, and 404 for what is not there.\n\n[SEMO:DONE]" }),
  command({ status: "unconfirmed", outcome: "unconfirmed", class: "unknown", agent_id: "a-be", session_id: "s-2", created_at: NOW - 30 * MINUTE, started_at: NOW - 30 * MINUTE, finished_at: NOW - MINUTE, summary: "Apply the migration", prompt: "Apply the migration", recovered: "unknown", reason: "SEMO Office ended while this was being carried out; whether it took effect is not known, and it was not done again" }),
];

export const LIFE_SCENARIOS = {
  recovering: {
    state: baseState({
      launch: { recovering: 2, taken_up: 1, ended_meanwhile: 0, unknown: 0, since: NOW - 1_500 },
      connection: { status: "connecting", why: null, since: NOW - 1_500 },
      sessions: [working({ hold: "recovering" }), OTHERS[0], { ...OTHERS[1], hold: "recovering" }],
      pool: pool({ open: 3 }),
    }),
  },
  "went-on": {
    state: baseState({
      launch: { recovering: 0, taken_up: 3, ended_meanwhile: 1, unknown: 0, since: NOW - 20_000 },
      sessions: [working({ taken_up: true }), ...OTHERS],
      commands: FOUND_AGAIN,
      pool: pool({ open: 3 }),
    }),
  },
  "not-reached": {
    state: baseState({
      launch: { recovering: 0, taken_up: 2, ended_meanwhile: 0, unknown: 1, since: NOW - 15 * MINUTE },
      sessions: [working({ hold: "held" }), ...OTHERS],
      commands: [FOUND_AGAIN[0]],
      pool: pool({ open: 3 }),
    }),
  },
  finishing: {
    state: baseState({
      ending: { how: "finish", turns: 2 },
      sessions: [working(), OTHERS[1]],
      commands: [FOUND_AGAIN[0]],
      pool: pool({ open: 2 }),
    }),
  },
  "without-network": {
    state: baseState({
      connection: { status: "offline", why: "no answer from the office; commands are asked for every 3 s, results are kept", since: NOW - 4 * MINUTE },
      sessions: [working(), ...OTHERS],
      commands: [command({ status: "reporting", outcome: "done", summary: "Rename the export button", prompt: "Rename the export button" })],
      pool: pool({ open: 3 }),
    }),
  },
};

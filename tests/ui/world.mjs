/**
 * The real parts of a story: the stub of the model's API, and everything a started product needs to find a world of
 * its own: folders, a signed-in `claude`, no way outside. Nothing of the person's own settings is seen or touched.
 */

import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { start, stopTree, waitForLine } from "./processes.mjs";

/** What `semo up` prints: where the page is, with its key. */
export const ADDRESS = /(http:\/\/127\.0\.0\.1:\d+\/\S*#token=\S+)/;

const WORKSPACE = join(dirname(fileURLToPath(import.meta.url)), "../..");
const START_MS = 60_000;
/** A first start makes a database. */
const UP_MS = 120_000;
/** How long everything may take to end. */
const END_MS = 120_000;

/** Path of a program that `cargo build` made; tells how to make it when it is not there. */
export function built(name) {
  const path = join(process.env.CARGO_TARGET_DIR ?? join(WORKSPACE, "target"), "debug", name);
  if (!existsSync(path)) throw new Error(`${path} is not built: run \`make test\`, or \`cargo build\` its package`);
  return path;
}

/** The claude program of the tests, as in tests/harness/claude.rs. */
function claudeProgram() {
  const path = process.env.SEMO_TEST_CLAUDE ?? join(WORKSPACE, ".tools/node_modules/.bin/claude");
  if (!existsSync(path)) throw new Error(`the claude program for tests is not at ${path}: run \`make test\` once`);
  return path;
}

export async function makeWorld() {
  const root = mkdtempSync(join(tmpdir(), "semo-ui-story-"));
  // Under root the hub's Postgres is another user, who must be able to enter; else its cluster would lie elsewhere.
  chmodSync(root, 0o755);
  const stub = start(built("stub-anthropic"), [], { env: process.env, cwd: root, name: "the stub" });
  try {
    const stubUrl = await waitForLine(stub, "the stub", /stub on (http:\S+)/, START_MS);
    return new World(root, stub, stubUrl);
  } catch (error) {
    await stopTree(stub);
    throw error;
  }
}

class World {
  #ups = [];

  constructor(root, stub, stubUrl) {
    this.root = root;
    this.stub = stub;
    const home = join(root, "home");
    mkdirSync(home);
    // Past its first-start questions, and trusting everything that lies in this world.
    const claudeState = { hasCompletedOnboarding: true, projects: { [root]: { hasTrustDialogAccepted: true } } };
    writeFileSync(join(home, ".claude.json"), JSON.stringify(claudeState));
    this.env = {
      PATH: process.env.PATH,
      HOME: home,
      LANG: "C.UTF-8",
      TMPDIR: tmpdir(),
      SEMO_CONFIG_DIR: join(root, "config"),
      SEMO_DATA_DIR: join(root, "data"),
      SEMO_CLAUDE: claudeProgram(),
      ANTHROPIC_BASE_URL: stubUrl,
      ANTHROPIC_AUTH_TOKEN: "a-token-for-the-stub",
      CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
      CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL: "1",
      CLAUDE_CODE_MAX_RETRIES: "1",
      // The stories start their sessions themselves and count them.
      SEMO_WARM_MAX: "0",
      NO_PROXY: "127.0.0.1,localhost",
      ...(process.env.SEMO_POSTGRES_BIN ? { SEMO_POSTGRES_BIN: process.env.SEMO_POSTGRES_BIN } : {}),
    };
  }

  /** Agents outlive the program that started them: whatever a story has left is ended with it. */
  #endLeft() {
    const ended = spawnSync(built("semo"), ["down", "--now"], { env: this.env, encoding: "utf8", timeout: END_MS });
    if (ended.status !== 0) console.error(`semo down: ${ended.stdout}${ended.stderr}${ended.error ?? ""}`);
  }

  /** The environment for programs with a window. */
  displayed() {
    const { DISPLAY, XAUTHORITY, DBUS_SESSION_BUS_ADDRESS } = process.env;
    if (DISPLAY === undefined) throw new Error("there is no display: run this under `xvfb-run -a`");
    const env = { ...this.env, DISPLAY };
    if (XAUTHORITY !== undefined) env.XAUTHORITY = XAUTHORITY;
    if (DBUS_SESSION_BUS_ADDRESS !== undefined) env.DBUS_SESSION_BUS_ADDRESS = DBUS_SESSION_BUS_ADDRESS;
    return env;
  }

  /** Starts the product without a window, and waits until there is a page to open; `env` comes on top. */
  async up(env = {}) {
    const up = start(built("semo"), ["up"], { env: { ...this.env, ...env }, cwd: this.root, name: "semo up" });
    this.#ups.push(up);
    return { up, url: await waitForLine(up, "semo up", ADDRESS, UP_MS) };
  }

  async close() {
    for (const up of this.#ups) {
      if (up.exitCode === null && up.signalCode === null) await stopTree(up);
    }
    this.#endLeft();
    await stopTree(this.stub);
    rmSync(this.root, { recursive: true, force: true, maxRetries: 5 });
  }
}

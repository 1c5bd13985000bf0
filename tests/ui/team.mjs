/** A team's server for stories: a real `semo hub` in a world of its own, with one account. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { start, stopTree, waitForLine } from "./processes.mjs";
import { built } from "./world.mjs";

/** A first start makes a database. */
const UP_MS = 120_000;
export const EMAIL = "ann@example.test";
export const PASSWORD = "correct horse battery staple";

/** Starts it: `{url, publishable_key, stop()}`. */
export async function startTeam(world) {
  const folder = join(world.root, "team");
  mkdirSync(folder, { mode: 0o755 });
  const env = {
    ...world.env,
    SEMO_CONFIG_DIR: join(folder, "config"),
    SEMO_DATA_DIR: join(folder, "data"),
    SEMO_HUB_LISTEN: "127.0.0.1:0",
    SEMO_PASSWORD: PASSWORD,
  };
  const hub = start(built("semo"), ["hub", "--json"], { env, cwd: world.root, name: "semo hub" });
  const stop = () => stopTree(hub);
  try {
    const { url, publishable_key } = JSON.parse(await waitForLine(hub, "semo hub", /^(\{.*"publishable_key".*\})$/, UP_MS));
    const made = spawnSync(built("semo"), ["hub", "member", "account", EMAIL], { env, encoding: "utf8", timeout: UP_MS });
    assert.equal(made.status, 0, `${made.stdout}${made.stderr}`);
    return { url, publishable_key, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

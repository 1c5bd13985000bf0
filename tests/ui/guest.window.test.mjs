/** A second program on the same data: its window is a guest of the core that runs, and ends nothing. Needs a display. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { ARTIFACTS } from "./browser.mjs";
import { waitUntil } from "./wait.mjs";
import { openApp } from "./webdriver.mjs";
import { built, makeWorld } from "./world.mjs";

const SOON_MS = 120_000;

async function open(env) {
  const window = await openApp({ application: built("semo-office"), env });
  await window.resize(1360, 860);
  return window;
}

const text = (window) => window.run("return document.body.innerText");
const says = (window, words) =>
  waitUntil(`“${words}” can be read in the window`, async () => (await text(window)).includes(words), SOON_MS);

async function shoot(window, name) {
  mkdirSync(ARTIFACTS, { recursive: true });
  writeFileSync(join(ARTIFACTS, `guest-window-${name}.png`), await window.screenshot());
}

test("a window beside a running core shows the same, leaves it running when it is closed, and says when it has ended", async () => {
  const world = await makeWorld();
  const env = world.displayed();
  const semo = (...args) => spawnSync(built("semo"), args, { env: world.env, encoding: "utf8", timeout: SOON_MS });
  let window;
  try {
    const { up } = await world.up();
    const pid = JSON.parse(semo("status", "--json").stdout).pid ?? up.pid;
    const sent = semo("send", "--agent", "FE", "Say hello. scn=text", "--wait");
    assert.equal(sent.status, 0, `${sent.stdout}${sent.stderr}`);

    window = await open(env);
    await says(window, "Say hello.");
    await shoot(window, "visits");
    await window.close();
    window = undefined;
    const after = semo("status", "--json");
    assert.equal(after.status, 0, "the core goes on when its guest has gone");
    assert.equal(JSON.parse(after.stdout).pid ?? pid, pid);

    window = await open(env);
    await says(window, "Say hello.");
    semo("down", "--leave");
    await says(window, "has ended");
    await shoot(window, "alone");
  } finally {
    await window?.close();
    await world.close();
  }
});

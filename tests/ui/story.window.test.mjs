/** The main job in the desktop window itself, driven through WebKitWebDriver. Needs a display (xvfb-run will do). */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { ARTIFACTS } from "./browser.mjs";
import { playTheStory } from "./story.mjs";
import { waitUntil } from "./wait.mjs";
import { KEYS, openApp } from "./webdriver.mjs";
import { built, makeWorld } from "./world.mjs";

const END_MS = 120_000;

test("in the desktop window, a person starts an agent, types, sends a prompt and reads the result", async () => {
  const world = await makeWorld();
  let window;
  try {
    const env = world.displayed();
    window = await openApp({ application: built("semo-office"), env });
    await window.resize(1360, 860);
    await playTheStory(handsOf(window));
    await endTheApp(env);
  } finally {
    await window?.close();
    await world.close();
  }
});

/**
 * Ends the app as a quit or an update does, and waits until all of it has ended, its database above all. The agents go
 * on; what is left is ended without the app, and then nothing that names its folder runs any more.
 */
async function endTheApp(env) {
  const { pid } = JSON.parse(readFileSync(join(env.SEMO_DATA_DIR, "running.json"), "utf8"));
  process.kill(pid, "SIGTERM");
  // One that has ended and is only not yet waited for has no command line.
  const isOver = () => linesOf(env.SEMO_DATA_DIR).every((line) => !/postgres/.test(line)) && lineOf(pid) === "";
  await waitUntil("the app and its database end", isOver, END_MS);
  const agents = linesOf(env.SEMO_DATA_DIR).filter((line) => line.includes("semo-holder"));
  assert.equal(agents.length, 1, "the agent goes on without the window");
  const down = spawnSync(built("semo"), ["down"], { env, encoding: "utf8" });
  assert.match(down.stdout, /ended 1 session that an earlier one had left/, down.stderr);
  await waitUntil("nothing of it runs any more", () => linesOf(env.SEMO_DATA_DIR).length === 0, END_MS);
}

/** Command lines that name the folder. */
function linesOf(folder) {
  const pids = readdirSync("/proc").filter((entry) => /^\d+$/.test(entry));
  return pids.map(lineOf).filter((line) => line.includes(folder));
}

function lineOf(pid) {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return ""; // it ended while we looked
  }
}

function handsOf(window) {
  return {
    keys: { clearLine: `${KEYS.control}u` },
    text: (css) => window.run("return document.querySelector(arguments[0])?.innerText ?? ''", css),
    clickButton: async (text) => window.click(await window.findButton(text)),
    async typeInto(css, text) {
      await window.run("document.querySelector(arguments[0]).focus()", css);
      await window.type(await window.find(css), text);
    },
    pressEnterWithControl: async (css) => window.type(await window.find(css), `${KEYS.control}${KEYS.enter}`),
    async shoot(name) {
      mkdirSync(ARTIFACTS, { recursive: true });
      writeFileSync(join(ARTIFACTS, `story-window-${name}.png`), await window.screenshot());
    },
  };
}

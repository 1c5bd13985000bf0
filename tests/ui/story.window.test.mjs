/** The main job in the desktop window itself, driven through WebKitWebDriver. Needs a display (xvfb-run will do). */

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { ARTIFACTS } from "./browser.mjs";
import { playTheStory } from "./story.mjs";
import { waitUntil } from "./wait.mjs";
import { KEYS, openApp } from "./webdriver.mjs";
import { built, makeWorld } from "./world.mjs";

test("in the desktop window, a person starts an agent, types, sends a prompt and reads the result", async () => {
  const world = await makeWorld();
  let window;
  try {
    const { DISPLAY, XAUTHORITY, DBUS_SESSION_BUS_ADDRESS } = process.env;
    if (DISPLAY === undefined) throw new Error("there is no display: run this under `xvfb-run -a`");
    const env = { ...world.env, DISPLAY };
    if (XAUTHORITY !== undefined) env.XAUTHORITY = XAUTHORITY;
    if (DBUS_SESSION_BUS_ADDRESS !== undefined) env.DBUS_SESSION_BUS_ADDRESS = DBUS_SESSION_BUS_ADDRESS;
    window = await openApp({ application: built("semo-office"), env });
    await window.resize(1360, 860);
    await playTheStory(handsOf(window));
    await endTheApp(env.SEMO_DATA_DIR);
  } finally {
    await window?.close();
    await world.close();
  }
});

/** Ends the app as a log-out does, and waits until nothing that names its folder runs any more: its database above all. */
async function endTheApp(dataDir) {
  const { pid } = JSON.parse(readFileSync(join(dataDir, "running.json"), "utf8"));
  process.kill(pid, "SIGTERM");
  const lives = () =>
    readdirSync("/proc").some((entry) => {
      if (!/^\d+$/.test(entry)) return false;
      try {
        if (entry !== String(pid)) return readFileSync(`/proc/${entry}/cmdline`, "utf8").includes(dataDir);
        // One that has ended and is only not yet waited for has no command line.
        return readFileSync(`/proc/${entry}/cmdline`, "utf8") !== "";
      } catch {
        return false; // it ended while we looked
      }
    });
  await waitUntil("the app and its database end", () => !lives(), 30_000);
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

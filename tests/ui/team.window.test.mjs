/** Signing in to a team in the desktop window, whose core is inside the app: it switches without the window's end. */

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { ARTIFACTS } from "./browser.mjs";
import { EMAIL, PASSWORD, startTeam } from "./team.mjs";
import { waitUntil } from "./wait.mjs";
import { KEYS, openApp } from "./webdriver.mjs";
import { built, makeWorld } from "./world.mjs";

/** A first start makes a database. */
const START_MS = 120_000;

test("in the desktop window, a person signs in to a team, and goes back to working alone", async () => {
  const world = await makeWorld();
  let team;
  let window;
  try {
    const env = { ...world.displayed(), SEMO_TOKENS: "file" };
    team = await startTeam(world);
    window = await openApp({ application: built("semo-office"), env });
    await window.resize(1360, 860);
    const says = (words) =>
      waitUntil(`“${words}” can be read`, async () => (await window.run("return document.body.innerText")).includes(words), START_MS);
    const click = async (text) => window.click(await window.findButton(text));
    /** Types into the field with this label. */
    const fill = async (label, text) => {
      const id = await window.run("return [...document.querySelectorAll('label')].find((one) => one.innerText.startsWith(arguments[0]))?.htmlFor", label);
      assert.ok(id, `there is a field “${label}”`);
      await window.type(await window.find(`[id='${id}']`), text);
    };
    const core = () => JSON.parse(readFileSync(join(world.root, "data", "running.json"), "utf8"));

    await says("Connected");
    const before = core();
    await click("This machine ·");
    await fill("Address", team.url);
    await fill("Publishable key", team.publishable_key);
    await fill("E-mail", EMAIL);
    await fill("Password", PASSWORD + KEYS.enter);
    await says("No office yet");
    await fill("Name of a new office", "Webshop");
    await click("Make it");
    await says("Webshop");
    await says("Connected");
    mkdirSync(ARTIFACTS, { recursive: true });
    writeFileSync(join(ARTIFACTS, "team-window.png"), await window.screenshot());
    const after = core();
    assert.deepEqual([after.pid, after.url, after.token], [before.pid, before.url, before.token], "the same program at the same address");
    assert.equal(after.project_url, team.url);

    await click(new URL(team.url).host);
    await click("Work alone");
    await says("Office server on this machine");
  } finally {
    await window?.close();
    await team?.stop();
    await world.close();
  }
});

/**
 * From an office of one's own to a team's and back, in a browser, over the real core and a real `semo hub` as the team's
 * server: signing in, making the first office, signing out and in again, working alone.
 */

import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { openBrowser, openPage, shoot } from "./browser.mjs";
import { EMAIL, PASSWORD, startTeam } from "./team.mjs";
import { waitUntil } from "./wait.mjs";
import { makeWorld } from "./world.mjs";

/** A first start makes a database, and so does the first switch to this machine. */
const SWITCH_MS = 120_000;

let browser;
let world;
let team;
before(async () => {
  browser = await openBrowser();
  world = await makeWorld();
});
after(async () => {
  await browser?.close();
  await team?.stop();
  await world?.close();
});

/** Every file below the person's folders that holds `text`. */
function filesWith(text, folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.name === "hub" || entry.name === "worktrees") return [];
    if (entry.isDirectory()) return filesWith(text, path);
    return entry.isFile() && holds(path, text) ? [path] : [];
  });
}

/** A draft of a running core may be gone, under its last name, before it is read. */
function holds(path, text) {
  try {
    return readFileSync(path).includes(text);
  } catch (error) {
    if (error.code === "ENOENT") return false;
    throw error;
  }
}

test("a person signs in to a team in the window, makes its office, signs out and in again, and goes back to working alone", async () => {
  team = await startTeam(world);
  const { up, url } = await world.up({ SEMO_TOKENS: "file" });
  const page = await openPage(browser, { url, theme: "light", errorsExpected: true });
  const says = (words, ms) => waitUntil(`“${words}” can be read`, async () => (await page.locator("body").innerText()).includes(words), ms);
  const field = (label) => page.getByLabel(label, { exact: false });
  const button = (name) => page.getByRole("button", { name, exact: true });
  const leadsTo = (label) =>
    waitUntil(`the focus is in ${label}`, async () => (await page.evaluate(() => document.activeElement?.labels?.[0]?.textContent)) === label);
  const signIn = async (password) => {
    await field("Password").fill(password);
    await button("Sign in").click();
  };
  try {
    await says("Connected", SWITCH_MS);
    await page.getByRole("button", { name: /This machine ·/ }).click();
    await field("Address of the team").fill(team.url);
    await field("Publishable key").fill("sb_publishable_wrong");
    await field("E-mail").fill(EMAIL);
    await signIn(PASSWORD);
    await says("does not take this publishable key");
    await leadsTo("Publishable key");
    await field("Publishable key").fill(team.publishable_key);
    await signIn("not the password");
    await says("the password is wrong");
    await leadsTo("Password");
    await shoot(page, "team-refused-light");
    await signIn(PASSWORD);
    await says("No office yet", SWITCH_MS);
    await shoot(page, "team-no-office-light");
    await field("Name of a new office").fill("Webshop");
    await button("Make it").click();
    await says("Connected", SWITCH_MS);
    await says("Mina");
    assert.equal(await page.locator("h1").first().innerText(), "Webshop");
    assert.equal(new URL(page.url()).origin, new URL(url).origin, "the same address");
    await shoot(page, "team-office-light");

    await page.getByRole("button", { name: new URL(team.url).host }).click();
    await says("a file that only you can read");
    await button("Sign out").click();
    await says("Sign in again");
    await page.keyboard.press("Escape");
    await says("You are signed out");
    await shoot(page, "team-signed-out-light");
    assert.deepEqual(filesWith("refresh_token", join(world.root, "data", "sign-ins")), []);
    await signIn(PASSWORD);
    await says("Webshop", SWITCH_MS);
    await says("Connected", SWITCH_MS);

    await page.getByRole("button", { name: new URL(team.url).host }).click();
    await button("Work alone").click();
    await says("Office server on this machine", SWITCH_MS);
    // The sign-in is still there: no password is wanted.
    await page.getByRole("button", { name: /This machine ·/ }).click();
    await button("Switch to it").click();
    await waitUntil("the team's office is served again", async () => (await page.locator("h1").first().innerText()) === "Webshop", SWITCH_MS);
    assert.deepEqual(filesWith(PASSWORD, join(world.root, "data")), [], "the password was not kept");
    assert.deepEqual(filesWith(PASSWORD, join(world.root, "config")), []);
  } catch (error) {
    throw new Error(`${error.stack}\n--- output of semo up ---\n${up.lines.slice(-40).join("\n")}`);
  } finally {
    await page.context().close();
  }
});

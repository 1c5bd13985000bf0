/** What the window says of the core's own life: a start after which agents went on, an end that waits, no network. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { shoot } from "./browser.mjs";
import { core, open, page } from "./one-window.mjs";
import { waitUntil } from "./wait.mjs";

const text = () => page.evaluate(() => document.body.innerText);
const says = (words) => waitUntil(`“${words}” can be read`, async () => (await text()).includes(words));
const result = (words) => page.locator("article", { hasText: words });

for (const theme of ["dark", "light"]) {
  test(`while a start looks for its sessions, nothing is called ready that is not known to be so, ${theme}`, async () => {
    await open("recovering", { theme });
    await says("looks for 2 earlier sessions");
    await says("Nothing new is begun until then.");
    await says("Its agent goes on meanwhile.");
    await page.locator("main header").getByText("Looked for").waitFor();
    assert.equal(await page.getByRole("button", { name: "Interrupt" }).isDisabled(), true);
    await shoot(page, `recovering-${theme}`);
    core.push((state) => {
      state.launch = { ...state.launch, recovering: 0, taken_up: 3, since: Date.now() };
      for (const one of state.sessions) Object.assign(one, { hold: null, taken_up: true });
    });
    await says("3 sessions went on");
    await page.locator("main header").getByText("Working").waitFor();
    await page.locator("main header").getByText("went on", { exact: true }).waitFor();
    await page.getByRole("button", { name: "Dismiss" }).click();
    await waitUntil("it is put away", async () => !(await text()).includes("3 sessions went on"));
    assert.deepEqual(page.faults, []);
  });
}

test("after a start each command tells in its details what became of it, and no other does", async () => {
  await open("went-on");
  await says("3 sessions went on, 1 session ended meanwhile");
  for (const [summary, words] of [
    ["Move the settings page", "The agent went on."],
    ["Rename the export button", "The result was read from what the agent had written down."],
    ["Check the new endpoint", "It was begun at the next start, once."],
    ["Apply the migration", "Whether it took effect is not known; it was not done again."],
  ]) {
    const card = result(summary);
    assert.equal((await card.innerText()).includes(words), false, "quiet until it is opened");
    await card.getByRole("button").first().click();
    await card.getByText(words).waitFor();
  }
  await shoot(page, "went-on-dark");
  assert.deepEqual(page.faults, []);
});

test("a session whose holder does not answer is neither working nor ended, and the word about it stays", async () => {
  await open("not-reached");
  await says("1 earlier session cannot be reached.");
  await says("Nothing was ended there.");
  await page.locator("main header").getByText("Not reached").waitFor();
  assert.equal(await page.getByRole("button", { name: "End session" }).isDisabled(), true);
  await shoot(page, "not-reached-dark");
});

test("an end that waits for its turns says so, and can be made to come at once", async () => {
  await open("finishing");
  await says("SEMO Office is ending: nothing new is taken.");
  await says("2 turns still run; it ends when those have ended.");
  await shoot(page, "finishing-dark");
  await page.getByRole("button", { name: "Interrupt them" }).click();
  await says("SEMO Office is ending now.");
  assert.deepEqual(core.seen.stops, ["now"]);
});

test("everything can be ended from the window, at once only when asked twice", async () => {
  await open("live");
  await page.getByRole("button", { name: /sessions?, .*at work/ }).click();
  const sheet = page.getByRole("dialog");
  await sheet.getByText("Closing this page ends nothing.").waitFor();
  const now = sheet.getByRole("button", { name: /End everything now|Really end all/ });
  await now.click();
  assert.deepEqual(core.seen.stops, []);
  await shoot(page, "end-all-dark");
  await now.click();
  await waitUntil("it is asked for", () => core.seen.stops.length === 1);
  assert.deepEqual(core.seen.stops, ["now"]);
});

test("without a network the window says since when, why, and that nothing is lost", async () => {
  await open("without-network");
  const connection = page.getByRole("status", { name: "Connection to the office" });
  await connection.getByText("Offline, for ").waitFor();
  assert.match(await connection.innerText(), /results are kept/);
  await shoot(page, "without-network-dark");
});

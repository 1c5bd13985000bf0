/**
 * Every state of the window, in both themes, over the fake core: what stands there, that no script failed and no
 * policy was broken, and a picture of each in artifacts/ for people to look at.
 */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { openBrowser, openPage, shoot } from "./browser.mjs";
import { startFakeCore } from "./fake-core.mjs";
import { SCENARIOS } from "./scenarios.mjs";
import { waitUntil } from "./wait.mjs";

/** What a person must be able to read in each state. */
const MUST_SAY = {
  "first-start": ["Mina has no session", "Start session", "Nothing yet", "Connected"],
  live: ["Ready", "Working", "Asks permission", "Unconfirmed", "Done", "semo/mina-7f3a"],
  "every-status": [
    ...["Queued", "Taken", "In line", "Running", "Waits for you", "Reporting", "Done", "Unconfirmed", "Failed"],
    ...["Cancelled", "Expired", "Given up", "OK", "May it use Bash: psql", "How do we know?", "verified", "observed", "claimed"],
  ],
  "two-sessions": ["semo/mina-c0de", "semo/mina-7f3a"],
  "session-ended": ["ended with exit code 1", "Start a new session"],
  "start-refused": ["it is not a git repository", "Start session", "Failed"],
  "claude-missing": ["was not found on this machine", "npm install -g", "Refresh"],
  "claude-not-signed-in": ["not signed in", "Needs sign-in"],
  "signed-out": ["You are signed out", "the sign-in has ended", "Stopped"],
  "pick-office": ["Which office?", "Webshop team"],
  "no-office": ["No office yet", "Look again"],
  offline: ["Not connected, trying again", "connection refused"],
  reconnecting: ["The connection to SEMO Office's core was lost", "Not known"],
  unreachable: ["The core is not reachable", "Try again"],
  "wrong-token": ["The key is no longer valid"],
  "no-token": ["The key is missing", "semo up"],
};

let browser;
before(async () => (browser = await openBrowser()));
after(() => browser.close());

for (const name of Object.keys(SCENARIOS)) {
  for (const theme of ["dark", "light"]) {
    test(`the state “${name}” is shown as it is, ${theme}`, () => look(name, theme));
  }
}

async function look(name, theme) {
  const core = await startFakeCore(name);
  const { scenario } = core;
  const errorsExpected = scenario.link !== undefined || scenario.loses === true;
  const page = await openPage(browser, { url: core.url, theme, errorsExpected });
  try {
    if (core.state.sessions.length > 0 && scenario.link === undefined) {
      await waitUntil("the terminal is drawn at its own size", async () =>
        core.seen.resizes.length > 0 && (await page.locator(".xterm-rows").innerText()).includes("for shortcuts"),
      );
    }
    if (scenario.exit !== undefined) core.exit(scenario.exit.session, scenario.exit.code);
    if (scenario.loses) core.lose();
    if (scenario.expand) {
      for (const label of ["Done", "Unconfirmed", "Failed"]) {
        await page.locator("article button", { hasText: label }).first().click();
      }
    }
    for (const words of MUST_SAY[name]) {
      await waitUntil(`“${words}” can be read`, async () => (await page.locator("body").innerText()).includes(words));
    }
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false, "nothing sticks out");
    assert.equal(await page.evaluate(() => /[{}]"|\[object/.test(document.body.innerText)), false, "no raw values");
    await shoot(page, `${name}-${theme}`);
    assert.deepEqual(page.faults, []);
  } finally {
    await page.context().close();
    await core.close();
  }
}

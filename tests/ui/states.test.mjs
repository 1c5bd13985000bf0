/**
 * Every state of the window, in both themes, over the fake core: what stands there, that no script failed and no
 * policy was broken, and a picture of each in artifacts/ for people to look at.
 */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { openBrowser, openPage, shoot } from "./browser.mjs";
import { SCENARIOS, startFakeCore } from "./fake-core.mjs";
import { waitUntil } from "./wait.mjs";

/** What a person must be able to read in each state. */
const MUST_SAY = {
  recovering: ["looks for 2 earlier sessions", "Nothing new is begun until then.", "Looked for", "Ready", "waits until then"],
  "went-on": ["3 sessions went on, 1 session ended meanwhile", "went on", "Working", "Unconfirmed"],
  "not-reached": ["1 earlier session cannot be reached.", "Not reached", "Nothing was done to it"],
  finishing: ["nothing new is taken", "2 turns still run", "Interrupt them"],
  "without-network": ["Offline, for ", "results are kept", "Reporting"],
  "first-start": ["Mina has no session", "Start session", "Nothing yet", "Connected"],
  live: ["Ready", "Working", "Asks permission", "Unconfirmed", "Done", "semo/mina-7f3a"],
  "every-status": [
    ...["Queued", "Taken", "In line", "Running", "Waits for you", "Reporting", "Done", "Unconfirmed", "Failed"],
    ...["Cancelled", "Expired", "Given up", "OK", "May it use Bash: psql", "How do we know?", "verified", "observed", "claimed"],
  ],
  "two-sessions": ["semo/mina-c0de", "semo/mina-7f3a"],
  "session-ended": ["ended with exit code 1", "Start a new session"],
  "start-refused": ["it is not a git repository", "Start session", "Failed"],
  "no-repository": ["No repository is set up on this machine", "[repositories]", "Start session"],
  full: ["The one place is taken", "send a prompt"],
  "no-agents": ["No agents yet", "upsert_agent"],
  "claude-missing": ["was not found on this machine", "npm install -g", "Refresh"],
  "claude-not-signed-in": ["not signed in", "Needs sign-in"],
  "signed-out": ["You are signed out", "the sign-in has ended", "Stopped", "at example.supabase.co", "Password", "Work alone on this computer"],
  "team-without-office": ["No office yet", "or make the first one", "Name of a new office", "Work alone on this computer"],
  "office-role": ["This account has no workstation here", "Look again", "Work alone on this computer"],
  "keychain-locked": ["The sign-in is locked away", "Unlock the keychain", "Look again"],
  "team-away": ["server cannot be reached", "Try now", "Work alone on this computer"],
  switching: ["Opening the office", "Switching to another office"],
  "pick-office": ["Which office?", "Webshop team"],
  "no-office": ["No office yet", "Look again"],
  offline: ["Not connected, trying again", "connection refused"],
  asks: [
    ...["Waiting for you", "Mina asks permission to use Bash", "rsync -a --delete ui/dist/ preview:/srv/www/", "Allow", "Deny"],
    ...["Jonas · question", "소연 · Write", "another machine"],
  ],
  "warm-and-asking": ["semo/mina-7f3a in sample", "rsync -a --delete ui/dist/ preview:/srv/www/", "the prompt goes to a free one of Mina"],
  "ask-question": ["Jonas asks a question", "orders_created_at_status", "두 개 모두 유지하고", "Do not answer"],
  "ask-elsewhere": ["on another machine", "주문-취소.spec.ts", "Allow"],
  "ask-hostile": ["U+202E", "U+200B", "ESC", "CR", "NBSP", "U+3164", "There may be more of it than is shown here; the terminal has all of it", "Deny"],
  "ask-login": ["Mina needs somebody to sign in", "Select login method", "Go to the terminal"],
  "many-asks": ["1 of 8", "24", "cargo test -p part-0"],
  facts: [
    ...["4be1c0957", "Cart: round once, at the end", "장바구니 합계", "5 files changed", "+1,204", "−38", "not all committed"],
    ...["2 commits not pushed", "Pull request webshop/storefront #4182", "exit 1", "npm test", "exit 128", "git push origin HEAD", "passed"],
    ...["Usage limit", "limit resets at"],
  ],
  retrying: ["The model's API answers 401, retry 3 of 10", "type /login", "retrying"],
  pool: ["2 sessions, none at work · 3 in line · 5.6 GB", "1 paused", "Paused until", "ended unexpectedly 3 times", "warm"],
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
    if (scenario.pick !== undefined) await page.locator("aside[aria-label='Office and agents'] button", { hasText: scenario.pick }).first().click();
    if (drawsATerminal(core, scenario) && scenario.link === undefined) {
      await waitUntil("the terminal is drawn at its own size", async () =>
        core.seen.resizes.length > 0 && (await page.locator(".xterm-rows").innerText()).includes("for shortcuts"),
      );
    }
    if (scenario.exit !== undefined) core.exit(scenario.exit.session, scenario.exit.code);
    if (scenario.loses) core.lose();
    for (const label of scenario.expand ?? []) await page.locator("article button", { hasText: label }).first().click();
    // The first moments of an ask take no answer; the picture is of what comes after.
    await waitUntil("asks can be answered", async () => (await page.locator("[data-testid='ask'] [aria-disabled='true']").count()) === 0);
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

/** Whether the agent on the screen has a session on this machine. */
function drawsATerminal(core, { pick }) {
  const shown = core.state.agents.find((agent) => agent.name === pick) ?? core.state.agents[0];
  return core.state.sessions.some((session) => session.agent_id === shown?.id);
}

/** One window over the fake core for each test: the test opens it, and it is closed behind it. */

import { after, afterEach, before } from "node:test";

import { openBrowser, openPage } from "./browser.mjs";
import { startFakeCore } from "./fake-core.mjs";
import { waitUntil } from "./wait.mjs";

let browser;
/** The fake core of the test that runs. */
export let core;
/** Its window. */
export let page;

before(async () => (browser = await openBrowser()));
after(() => browser.close());
afterEach(async () => {
  await page?.context().close();
  await core?.close();
});

/** Opens the window on a scenario. */
export async function open(name, options = {}) {
  core = await startFakeCore(name);
  page = await openPage(browser, { url: core.url, ...options });
}

export async function terminalIsReady() {
  await waitUntil("the terminal is drawn at its own size", async () =>
    core.seen.resizes.length > 0 && (await page.locator(".xterm-rows").innerText()).includes("for shortcuts"),
  );
}

/** What the window has asked of the core by this method. */
export const calls = (method) => core.seen.rpc.filter((call) => call.method === method).map((call) => call.params);

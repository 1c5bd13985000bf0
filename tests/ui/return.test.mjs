/** A page that is open over a restart of the real core: it comes back by itself, and shows its key to nobody else. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { openBrowser, openPage, shoot } from "./browser.mjs";
import { waitUntil } from "./wait.mjs";
import { ADDRESS, built, makeWorld } from "./world.mjs";

const DOWN_MS = 120_000;

let browser;
let world;
before(async () => {
  browser = await openBrowser();
  world = await makeWorld();
});
after(async () => {
  await browser?.close();
  await world?.close();
});

function semo(...args) {
  const ran = spawnSync(built("semo"), args, { env: world.env, encoding: "utf8", timeout: DOWN_MS });
  assert.equal(ran.status, 0, `${args}: ${ran.stdout}${ran.stderr}`);
  return ran.stdout;
}

const text = (page) => page.evaluate(() => document.body.innerText);
const says = (page, words) => waitUntil(`“${words}” can be read`, async () => (await text(page)).includes(words));

/** Whoever takes the port while no core runs. */
async function strangerOn(port) {
  const heard = [];
  const server = createServer((request, response) => {
    heard.push(`${request.url} ${JSON.stringify(request.headers)}`);
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify({ proof: "00".repeat(32), token: "x" }));
  });
  server.on("upgrade", (request, socket) => {
    heard.push(`${request.url} ${JSON.stringify(request.headers)}`);
    socket.destroy();
  });
  await new Promise((ready) => server.listen(port, "127.0.0.1", ready));
  return { heard, close: () => (server.closeAllConnections(), new Promise((closed) => server.close(closed))) };
}

test("an open page comes back by itself after a restart, a stranger on its port learns nothing, and a new key can be given to it", async () => {
  const { url: first } = await world.up();
  const page = await openPage(browser, { url: first, errorsExpected: true });
  await says(page, "Connected");
  await page.locator("textarea").first().fill("A draft that must not be lost");

  semo("down", "--leave");
  await says(page, "SEMO Office has ended.");
  assert.equal((await text(page)).includes("is ending"), false, "one word about one thing");
  await shoot(page, "core-away-dark");
  assert.equal((await world.up()).url, first, "the same address");
  await waitUntil("the page is live again", async () => !(await text(page)).includes("has ended") && (await text(page)).includes("Connected"));
  assert.equal(await page.locator("textarea").first().inputValue(), "A draft that must not be lost");

  semo("down", "--leave");
  const { port, hash } = new URL(first);
  const stranger = await strangerOn(Number(port));
  await says(page, "The key is no longer valid");
  await shoot(page, "key-renewed-dark");
  const key = new URLSearchParams(hash.slice(1)).get("token");
  assert.ok(stranger.heard.length > 0, "it was asked who it is");
  assert.equal(stranger.heard.some((one) => one.includes(key)), false, "and the key was not shown to it");
  await stranger.close();

  // An end at once is the end of the key, too.
  semo("down", "--now");
  const { url: second } = await world.up();
  assert.equal(new URL(second).port, port);
  assert.notEqual(second, first);
  await page.getByRole("button", { name: "Try again" }).click();
  await says(page, "Run semo status and open the address that it prints");
  const shown = semo("status").match(ADDRESS)[1];
  assert.equal(shown, second);
  // Only the part behind the # is another: the browser loads nothing anew.
  await page.evaluate((address) => (window.location.href = address), shown);
  await says(page, "Connected");
  assert.equal(await page.locator("textarea").first().inputValue(), "A draft that must not be lost");
  assert.equal(await page.evaluate(() => window.location.hash), "");
  semo("down", "--now");
});

/** What the window does when somebody uses it, over the fake core, which sees every byte and every call. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { shoot } from "./browser.mjs";
import { calls, core, open as openWindow, page, terminalIsReady } from "./one-window.mjs";
import { session } from "./scenarios.mjs";
import { waitUntil } from "./wait.mjs";

/** A window on a scenario, with its terminal drawn when there is one. */
async function open(name, options = {}) {
  await openWindow(name, options);
  if (core.state.sessions.length > 0) await terminalIsReady();
}

const typedIs = (expected) => waitUntil(`the core was sent ${JSON.stringify(expected)}`, () => core.seen.typed === expected);
const agent = (name) => page.locator("aside[aria-label='Office and agents'] button", { hasText: name }).first();
const composer = (name) => page.getByLabel(`Prompt for ${name}`);

test("typed keys arrive as the bytes a terminal sends", async () => {
  await open("live");
  await page.locator(".xterm-helper-textarea").focus();
  await page.keyboard.type("ls");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Escape");
  await page.keyboard.press("Control+c");
  await page.keyboard.press("ArrowUp");
  await page.keyboard.insertText("안녕");
  await typedIs("ls\r\x1b\x03\x1b[A안녕");
  assert.deepEqual(page.faults, []);
});

test("what an agent asks its terminal is never answered by a viewer", async () => {
  await open("live");
  core.output("\x1b[c\x1b[>c\x1b[6n\x1b[?6n\x1b[>q\x1b[?2026$p\x1b[18t\x1b]10;?\x07\x1b]11;?\x07\x1b]4;1;?\x07\x1bP$qm\x1b\\");
  core.output("\x1b]52;c;aGFja2Vk\x07");
  await page.locator(".xterm-helper-textarea").focus();
  await page.keyboard.type("x");
  await typedIs("x");
});

test("the size of the window becomes the size of the terminal", async () => {
  await open("live");
  const before = core.seen.resizes.at(-1);
  await page.setViewportSize({ width: 1700, height: 1000 });
  await waitUntil("a bigger size was sent", () => {
    const last = core.seen.resizes.at(-1);
    return last.cols > before.cols && last.rows > before.rows;
  });
});

test("a flood is acknowledged, so that the core may send on", async () => {
  await open("live");
  const line = `${"0123456789".repeat(10)}\r\n`;
  for (let i = 0; i < 50; i += 1) core.output(line.repeat(100));
  await waitUntil("most of 500 KB are acknowledged", () => core.seen.acks.reduce((sum, bytes) => sum + bytes, 0) >= 400_000);
  assert.ok(core.seen.acks.every((bytes) => bytes >= 100_000));
});

test("only the session on the screen has a terminal and a stream", async () => {
  await open("live");
  for (const name of ["Jonas", "소연", "Mina"]) {
    await agent(name).click();
    await waitUntil(`${name}'s terminal is the one`, async () => (await page.getByLabel(`Terminal of ${name}`).count()) === 1);
  }
  await waitUntil("one stream is open", () => core.terminals === 1);
  assert.equal(await page.locator(".xterm").count(), 1);
});

test("a prompt is sent with Ctrl+Enter, the box is emptied, and the command appears", async () => {
  await open("live");
  await composer("Mina").fill("first line\nsecond line");
  await composer("Mina").press("Control+Enter");
  await waitUntil("the core was asked", () => calls("send_prompt").length === 1);
  assert.deepEqual(calls("send_prompt")[0], {
    agent_id: "a-fe",
    session_id: "s-1",
    prompt: "first line\nsecond line",
    marker: "plain",
  });
  await waitUntil("the box is empty", async () => (await composer("Mina").inputValue()) === "");
  await page.locator("article", { hasText: "first line" }).waitFor();
});

test("the marker is chosen in the options", async () => {
  await open("live");
  await page.getByRole("button", { name: "Options" }).click();
  await page.getByText("No marker").click();
  await shoot(page, "options-dark");
  await page.keyboard.press("Escape");
  await page.getByText("When does it count as done?").waitFor({ state: "detached" });
  await composer("Mina").fill("just talk");
  await page.getByRole("button", { name: /Send/ }).click();
  await waitUntil("the core was asked", () => calls("send_prompt").length === 1);
  assert.equal(calls("send_prompt")[0].marker, "none");
});

test("a refused prompt says why and what to do, and its text is kept", async () => {
  await open("live", { errorsExpected: true });
  await composer("Mina").fill("refuse me");
  await composer("Mina").press("Control+Enter");
  await page.getByRole("alert").getByText("No session is free").waitFor();
  await page.getByText("End one of the six sessions").waitFor();
  assert.equal(await composer("Mina").inputValue(), "refuse me");
  await shoot(page, "refused-dark");
});

test("drafts stay with their agents", async () => {
  await open("live");
  await composer("Mina").fill("for Mina");
  await agent("Jonas").click();
  assert.equal(await composer("Jonas").inputValue(), "");
  await agent("Mina").click();
  assert.equal(await composer("Mina").inputValue(), "for Mina");
});

test("a started session opens by itself and takes the keys", async () => {
  await open("first-start");
  await agent("Jonas").click();
  await page.getByRole("button", { name: "Start session" }).click();
  await page.getByLabel("Terminal of Jonas").waitFor({ state: "attached" });
  await terminalIsReady();
  await page.keyboard.type("hello");
  await typedIs("hello");
  assert.deepEqual(calls("create_session"), [{ agent_id: "a-be", repository: "sample" }]);
});

test("ending a session asks once more", async () => {
  await open("live");
  await page.getByRole("button", { name: /End session/ }).click();
  assert.deepEqual(calls("terminate"), []);
  await page.getByText("Really end?").click();
  await waitUntil("the core was asked", () => calls("terminate").length === 1);
  await page.getByText("The agent program ended.").waitFor();
});

test("interrupting is offered only while there is something to interrupt", async () => {
  await open("live");
  assert.equal(await page.getByRole("button", { name: "Interrupt" }).isDisabled(), true);
  await agent("Jonas").click();
  await page.getByRole("button", { name: "Interrupt" }).click();
  await waitUntil("the core was asked", () => calls("cancel_turn").length === 1);
  assert.deepEqual(calls("cancel_turn"), [{ session_id: "s-2" }]);
});

test("the keyboard leaves the terminal with F6 and goes round the window", async () => {
  await open("live");
  await page.locator(".xterm-helper-textarea").focus();
  const places = [];
  for (let i = 0; i < 4; i += 1) {
    await page.keyboard.press("F6");
    places.push(await page.evaluate(() => document.activeElement.closest("[data-region]").tagName));
  }
  assert.deepEqual(places, ["FORM", "ASIDE", "ASIDE", "DIV"]);
  assert.equal(core.seen.typed, "", "F6 is not the agent's");
});

test("the key leaves the address bar and survives a reload", async () => {
  await open("live");
  assert.equal(new URL(page.url()).hash, "");
  await page.reload();
  await page.getByText("semo/mina-7f3a in sample").waitFor();
});

test("a lost core comes back by itself, with what happened meanwhile", async () => {
  await open("reconnecting", { errorsExpected: true });
  core.lose();
  await page.getByText("The connection to SEMO Office's core was lost").waitFor();
  assert.equal(await page.getByRole("button", { name: /End session/ }).isDisabled(), true, "nothing can be asked now");
  core.push((state) => (state.sessions[0].state = { state: "working", turn: null }));
  core.restore();
  await page.getByText("The connection to SEMO Office's core was lost").waitFor({ state: "detached" });
  await page.locator("header").getByText("Working").waitFor();
  await waitUntil("the terminal is back", () => core.terminals === 1);
});

test("text of an agent is text, whatever it looks like", async () => {
  await open("live");
  core.push((state) => {
    state.commands[0].final_message = "<img src=x onerror=\"document.title='owned'\"> **bold**";
    state.agents[0].name = "<b>Mina</b>";
  });
  await page.locator("article button").first().click();
  await page.getByText("<img src=x").waitFor();
  assert.match(await page.title(), /SEMO Office$/);
  assert.equal(await page.locator("article img").count(), 0);
});

test("links in the terminal open outside, and only http ones are links", async () => {
  await open("live");
  core.output("\x1b[2J\x1b[H\x1b]8;;javascript:alert(1)\x07click me\x1b]8;;\x07\r\nhttps://127.0.0.1:9/page\r\n");
  await waitUntil("the link is drawn", async () => (await page.locator(".xterm-rows").innerText()).includes("/page"));
  await clickRow(0);
  const [opened] = await Promise.all([page.context().waitForEvent("page"), clickRow(1)]);
  assert.equal(page.context().pages().length, 2, "one page for the one real link");
  assert.equal(await opened.evaluate(() => window.opener), null);
});

/** A person points first; the terminal looks for links only under the pointer. */
async function clickRow(index) {
  const box = await page.locator(".xterm-rows > div").nth(index).boundingBox();
  await page.mouse.move(box.x + 20, box.y + box.height / 2);
  await page.mouse.move(box.x + 24, box.y + box.height / 2);
  await page.mouse.down();
  await page.mouse.up();
}

test("the chosen colours are remembered", async () => {
  await open("live", { theme: "dark" });
  const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
  assert.equal(await theme(), "dark");
  await page.getByRole("button", { name: /Colours/ }).click();
  assert.equal(await theme(), "light");
  await page.reload();
  await page.getByRole("button", { name: "Colours: light" }).waitFor();
  assert.equal(await theme(), "light");
});

test("a narrow window keeps the terminal and lays the results over it", async () => {
  await open("live", { width: 800, height: 640 });
  assert.equal(await page.getByLabel("Commands and results").count(), 0);
  await shoot(page, "narrow-dark");
  await page.getByRole("button", { name: /Results/ }).click();
  await page.getByLabel("Commands and results").waitFor();
  await shoot(page, "narrow-results-dark");
  await page.locator("article button").first().focus();
  await page.keyboard.press("Escape");
  await page.getByLabel("Commands and results").waitFor({ state: "detached" });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false);
});

test("another office is asked for, and the window shows what the core says", async () => {
  await open("pick-office");
  await page.getByRole("button", { name: "Webshop team" }).click();
  await waitUntil("the core was asked", () => calls("select_office").length === 1);
  const shown = () => page.getByLabel("Office", { exact: true }).inputValue();
  await waitUntil("the office is shown as the one", async () => (await shown()) === "o-2");
});

test("selected text is copied with Ctrl+Shift+C, and the agent is sent nothing", async () => {
  await open("live");
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  const row = page.locator(".xterm-rows > div", { hasText: "position: sticky" });
  const box = await row.boundingBox();
  await page.mouse.dblclick(box.x + box.width * 0.16, box.y + box.height / 2);
  await page.keyboard.press("Control+Shift+C");
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.match(copied, /^(position:?|sticky;?)$/);
  assert.equal(core.seen.typed, "");
});

test("a session that appears does not take the keys from somebody who writes", async () => {
  await open("first-start");
  await composer("Mina").fill("half a ");
  core.push((state) => state.sessions.push(session({ id: "s-9" })));
  await page.getByLabel("Terminal of Mina").waitFor({ state: "attached" });
  await terminalIsReady();
  await page.keyboard.type("sentence");
  assert.equal(await composer("Mina").inputValue(), "half a sentence");
  assert.equal(core.seen.typed, "");
});

test("a session that the core lets go of stays readable until there is another", async () => {
  await open("two-sessions");
  await agent("semo/mina-7f3a").click();
  await terminalIsReady();
  core.push((state) => state.sessions.shift());
  await page.getByText("The session has ended.").waitFor();
  assert.match(await page.locator(".xterm-rows").innerText(), /for shortcuts/);
  await page.getByText("semo/mina-7f3a in sample").waitFor();
  core.push((state) => state.sessions.push(session({ id: "s-new", branch: "semo/mina-new", started_at: Date.now() })));
  await page.getByText("semo/mina-new in sample").waitFor();
});

test("words in the terminal are found", async () => {
  await open("live");
  await page.locator(".xterm-helper-textarea").focus();
  await page.keyboard.press("Control+Shift+F");
  await page.getByLabel("Find in terminal").fill("sticky");
  await page.keyboard.press("Enter");
  assert.equal(await page.getByLabel("Find in terminal").getAttribute("aria-invalid"), "false");
  await page.getByLabel("Find in terminal").fill("not to be found");
  await page.keyboard.press("Enter");
  assert.equal(await page.getByLabel("Find in terminal").getAttribute("aria-invalid"), "true");
  await page.keyboard.press("Escape");
  await page.keyboard.type("y");
  await typedIs("y");
});

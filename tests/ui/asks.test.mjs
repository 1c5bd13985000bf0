/** Agents that ask: who is told, how they are answered, and above all what is never taken for an answer. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { shoot } from "./browser.mjs";
import { core, open, page, terminalIsReady } from "./one-window.mjs";
import { ask } from "./scenarios.mjs";
import { waitUntil } from "./wait.mjs";

const card = () => page.getByTestId("ask");
const button = (name) => card().getByRole("button", { name, exact: true });
const answers = () => core.seen.rpc.filter((call) => call.method === "answer_ask").map((call) => call.params);
const rail = () => page.getByLabel("Office and agents");
const agent = (name) => rail().getByRole("listitem").filter({ has: page.locator(".card") }).getByRole("button", { name });
const focusIsIn = (css) => page.evaluate((selector) => document.activeElement?.closest(selector) !== null, css);
const armed = () => waitUntil("the ask takes answers", async () => (await card().count()) === 1 && (await card().locator("[aria-disabled='true']").count()) === 0);

/** An ask of Mina, whose session is on the screen. */
const minas = (patch = {}) => ask({ session_id: "s-1", agent_id: "a-fe", text: "cargo test", ...patch });

test("a permission is allowed with one click, and the card goes", async () => {
  await open("asks");
  await armed();
  await button("Allow").click();
  await waitUntil("the core was asked", () => answers().length === 1);
  assert.deepEqual(answers(), [{ ask_id: "ask-bash", answer: { say: "allow" } }]);
  await card().waitFor({ state: "detached" });
  assert.equal(await page.getByText("answered elsewhere").count(), 0, "we answered it ourselves");
  assert.deepEqual(page.faults, []);
});

test("a permission is denied, with a message or without", async () => {
  await open("asks");
  await armed();
  await button("…with a message").click();
  await card().getByLabel("Message for Mina").fill("not to the preview; use staging");
  await shoot(page, "ask-deny-dark");
  await armed();
  await button("Deny").click();
  await waitUntil("the core was asked", () => answers().length === 1);
  assert.deepEqual(answers()[0].answer, { say: "deny", message: "not to the preview; use staging" });
  core.raise(minas({ id: "second" }));
  await armed();
  await button("Deny").click();
  await waitUntil("the core was asked", () => answers().length === 2);
  assert.deepEqual(answers()[1], { ask_id: "second", answer: { say: "deny", message: "" } });
});

test("Enter in the message sends the denial, Shift+Enter begins a new line", async () => {
  await open("asks");
  await armed();
  await button("…with a message").press("Enter");
  const message = card().getByLabel("Message for Mina");
  await message.press("Enter");
  assert.deepEqual(answers(), [], "a second Enter that was meant for the button is none for the message");
  await armed();
  await message.pressSequentially("not to the preview");
  await message.press("Shift+Enter");
  await message.pressSequentially("use staging");
  assert.deepEqual(answers(), []);
  await message.press("Enter");
  await waitUntil("the core was asked", () => answers().length === 1);
  assert.deepEqual(answers(), [{ ask_id: "ask-bash", answer: { say: "deny", message: "not to the preview\nuse staging" } }]);
});

test("Enter in the message says nothing to an ask that has just turned into another one", async () => {
  await open("asks");
  await armed();
  await button("…with a message").click();
  await card().getByLabel("Message for Mina").fill("no");
  await armed();
  core.push((state) => (state.asks.find((one) => one.id === "ask-bash").text = COMMAND_OF_TWO_LINES));
  await card().getByText("npm publish").waitFor();
  await card().getByLabel("Message for Mina").press("Enter");
  assert.deepEqual(answers(), []);
  await armed();
  await card().getByLabel("Message for Mina").press("Enter");
  await waitUntil("an Enter that was meant is one", () => answers().length === 1);
});

test("a question is answered with one of its choices", async () => {
  await open("ask-question");
  await agent("Jonas").click();
  await armed();
  assert.equal(await button("Allow").count(), 0, "a question cannot be allowed");
  await card().getByRole("button", { name: /newer, 180 MB/ }).click();
  await waitUntil("the core was asked", () => answers().length === 1);
  assert.deepEqual(answers(), [{ ask_id: "ask-question", answer: { say: "choose", choice: 1 } }]);
});

test("a card that comes up takes neither the focus nor the keys", async () => {
  await open("live");
  await terminalIsReady();
  await page.locator(".xterm-helper-textarea").focus();
  await page.keyboard.type("ab");
  core.raise(minas());
  await armed();
  await page.keyboard.press("Enter");
  await page.keyboard.type("c");
  await waitUntil("the agent got every key", () => core.seen.typed === "ab\rc");
  assert.deepEqual(answers(), []);
  assert.equal(core.seen.resizes.length, 1, "the terminal keeps its size: agents redraw on each new one");
});

test("a click that was meant for what stood there before is no answer", async () => {
  await open("asks");
  await armed();
  const place = await button("Allow").boundingBox();
  await page.mouse.move(place.x + 10, place.y + 10);
  core.closeAsk("ask-bash");
  await card().waitFor({ state: "detached" });
  core.raise(minas({ id: "sudden", text: COMMAND_OF_TWO_LINES }));
  await card().waitFor();
  for (let i = 0; i < 3; i += 1) await page.mouse.click(place.x + 10, place.y + 10);
  assert.deepEqual(answers(), []);
  await armed();
  await page.mouse.click(place.x + 10, place.y + 10);
  await waitUntil("a click that was meant is one", () => answers().length === 1);
});

/** As high as the card before it. */
const COMMAND_OF_TWO_LINES = "npm test && \\\n  npm publish";

test("the card on the screen stays, whatever else comes up", async () => {
  await open("asks");
  await armed();
  core.raise(minas({ id: "older", session_id: "s-far", mine: false, asked_at: 1 }));
  core.raise(minas({ id: "same session", asked_at: 1 }));
  await card().getByText("2 of 3").waitFor();
  assert.match(await card().innerText(), /rsync -a --delete/);
});

test("an ask that turns into another one takes no answer that was meant for the first", async () => {
  await open("asks");
  await armed();
  const place = await button("Allow").boundingBox();
  core.push((state) => (state.asks.find((one) => one.id === "ask-bash").text = COMMAND_OF_TWO_LINES));
  await card().getByText("npm publish").waitFor();
  await page.mouse.click(place.x + 10, place.y + 10);
  assert.deepEqual(answers(), []);
  await armed();
  await page.mouse.click(place.x + 10, place.y + 10);
  await waitUntil("a click that was meant is one", () => answers().length === 1);
});

test("a busy office does not keep an ask from being answered", async () => {
  await open("asks");
  await card().waitFor();
  const busy = setInterval(() => core.push((state) => (state.version = `0.1.${Date.now()}`)), 90);
  try {
    await armed();
    await button("Allow").click();
    await waitUntil("the core was asked", () => answers().length === 1);
  } finally {
    clearInterval(busy);
  }
});

test("Enter pressed twice answers one ask and not the next", async () => {
  await open("asks");
  await armed();
  core.raise(minas({ id: "next", text: "rm -rf build" }));
  await card().getByText("2 of 2").waitFor();
  await button("Allow").focus();
  await page.keyboard.press("Enter");
  await page.keyboard.press("Enter");
  await card().getByText("rm -rf build").waitFor();
  await page.keyboard.press("Enter");
  await armed();
  await page.keyboard.press("Enter");
  assert.deepEqual(answers().map((call) => call.ask_id), ["ask-bash"]);
  assert.equal(core.seen.typed, "", "nor does it reach the agent");
});

test("Escape leads back to the terminal and is never an answer", async () => {
  await open("asks");
  await terminalIsReady();
  await armed();
  await button("…with a message").click();
  await page.keyboard.press("Escape");
  assert.equal(await card().getByLabel("Message for Mina").count(), 0);
  await button("Allow").focus();
  await page.keyboard.press("Escape");
  assert.equal(await focusIsIn(".xterm"), true);
  assert.deepEqual(answers(), []);
  assert.equal(core.seen.typed, "");
});

test("with the keyboard: F6 reaches the card, whose first stop answers nothing", async () => {
  await open("asks");
  await terminalIsReady();
  await armed();
  await page.locator(".xterm-helper-textarea").focus();
  await page.keyboard.press("Shift+F6");
  assert.equal(await focusIsIn("[data-testid='ask']"), true);
  await page.keyboard.press("Enter");
  assert.deepEqual(answers(), []);
  const order = [];
  for (let i = 0; i < 4; i += 1) {
    await page.keyboard.press("Tab");
    order.push(await page.evaluate(() => document.activeElement.getAttribute("aria-label") ?? document.activeElement.innerText.trim()));
  }
  assert.deepEqual(order, ["Fold to one line", "What it is about", "Allow", "Deny"]);
});

test("somebody was faster: it is told kindly, with the core's words", async () => {
  await open("asks", { errorsExpected: true });
  await armed();
  core.instead.answer_ask = {
    status: 409,
    body: { code: "conflict", message: `it is over since ${new Date().toISOString()}: allowed: by \`semo\` on this workstation`, hint: "" },
  };
  await button("Deny").click();
  await page.getByText("Somebody was faster").waitFor();
  await page.getByText(/it is over since (\d+ \w+ )?\d\d:\d\d: allowed, by semo on this workstation/).waitFor();
  assert.equal(await page.getByRole("alert").count(), 0, "it is no fault");
  core.closeAsk("ask-bash");
  await card().waitFor({ state: "detached" });
  assert.equal(await page.getByText("Mina does not wait any more").count(), 0, "one remark of one ask is enough");
  await shoot(page, "ask-conflict-dark");
});

test("an ask that was answered elsewhere says so and names who is known", async () => {
  await open("asks");
  await card().waitFor();
  core.closeAsk("ask-bash");
  await page.getByText("Mina does not wait any more").waitFor();
  core.closeAsk("ask-question", "chosen “orders_created_at” by a command of the office");
  await page.getByText(/Jonas does not wait any more: chosen “orders_created_at” by a command of the office at (\d+ \w+ )?\d\d:\d\d\./).waitFor();
  await shoot(page, "ask-answered-elsewhere-dark");
  await page.getByRole("button", { name: "Dismiss" }).first().click();
  await page.getByText("Mina does not wait any more").waitFor({ state: "detached" });
});

test("a refusal of the core is a fault, and the ask stays", async () => {
  await open("asks", { errorsExpected: true });
  await armed();
  core.instead.answer_ask = { status: 403, body: { code: "forbidden", message: "Answers from windows are not allowed here.", hint: "Answer in the terminal." } };
  await button("Allow").click();
  await page.getByRole("alert").getByText("Answers from windows are not allowed here.").waitFor();
  assert.equal(await card().count(), 1);
  await armed();
});

test("an answer that is on its way is sent once", async () => {
  await open("asks");
  await armed();
  let release;
  core.instead.answer_ask = new Promise((resolve) => (release = () => resolve({ status: 200, body: { command_id: null } })));
  await button("Allow").click();
  await card().getByText("Sending…").waitFor();
  await button("Deny").click({ force: true });
  release();
  await card().getByText("Sending…").waitFor({ state: "detached" });
  assert.equal(answers().length, 1);
});

test("sign-in and dialogs are answered in the terminal, and one click leads there", async () => {
  await open("ask-login");
  await terminalIsReady();
  assert.equal(await button("Allow").count() + (await button("Deny").count()), 0);
  await button("Go to the terminal").click();
  assert.equal(await focusIsIn(".xterm"), true);
  await page.keyboard.press("1");
  await waitUntil("the agent got the key", () => core.seen.typed === "1");
  assert.equal(await button("Go to the terminal").count(), 0, "the card makes room for what is answered");
});

test("asks of other machines are marked, and answered like one's own", async () => {
  await open("ask-elsewhere");
  await rail().getByText("another machine").waitFor();
  await rail().getByRole("button", { name: /주문-취소/ }).click();
  await card().getByText("on another machine").waitFor();
  assert.equal(await button("Answer in the terminal").count(), 0, "its terminal is not here");
  await armed();
  await button("Allow").click();
  await waitUntil("the core was asked", () => answers().length === 1);
});

test("new asks are read out, counted in the title and on the agent, and lead to their agent", async () => {
  await open("live");
  await waitUntil("the title counts", async () => (await page.title()) === "(1) This machine – SEMO Office");
  core.raise(minas());
  await waitUntil("the title counts", async () => (await page.title()) === "(2) This machine – SEMO Office");
  await waitUntil("it is read out", async () => (await page.getByTestId("announcement").innerText()) === "Mina asks permission to use Bash: cargo test");
  assert.equal(await page.getByTestId("announcement").getAttribute("aria-live"), "polite");
  await rail().getByRole("heading", { name: "Waiting for you" }).waitFor();
  assert.match(await agent("소연").innerText(), /1\s*waiting for you/);
  await rail().getByRole("button", { name: /psql -f migrations/ }).click();
  await card().getByText("소연 asks permission to use Bash").waitFor();
  core.closeAsk(core.state.asks[0].id);
  core.closeAsk(core.state.asks[0].id);
  await waitUntil("the title is quiet again", async () => (await page.title()) === "This machine – SEMO Office");
});

test("many asks are walked through one by one", async () => {
  await open("many-asks");
  await card().getByText("1 of 8").waitFor();
  await button("The next ask").click();
  await card().getByText("2 of 8").waitFor();
  await card().getByText("file_3.rs").waitFor();
  await button("The ask before").click();
  await button("The ask before").click();
  await card().getByText("8 of 8").waitFor();
  assert.equal(await page.evaluate(() => document.documentElement.scrollHeight > innerHeight), false, "nothing is pushed out");
});

test("a folded card leaves the terminal free and comes back", async () => {
  await open("asks");
  await button("Fold to one line").click();
  assert.equal(await button("Allow").count(), 0);
  await shoot(page, "ask-folded-dark");
  await button("Unfold").click();
  await button("Allow").waitFor();
});

test("while the core is lost nothing can be answered", async () => {
  await open("asks", { errorsExpected: true });
  await armed();
  core.lose();
  await card().getByText("Not connected.").waitFor();
  await button("Allow").click({ force: true });
  assert.deepEqual(answers(), []);
});

for (const name of ["asks", "ask-question", "ask-hostile", "many-asks"]) {
  test(`in a narrow and low window “${name}” can be read and answered`, async () => {
    await open(name, { width: 800, height: 560 });
    if (name === "ask-question") await agent("Jonas").click();
    await armed();
    const last = name === "ask-question" ? "Do not answer" : "Deny";
    const place = await button(last).boundingBox();
    assert.ok(place.y + place.height < 560 && place.x + place.width < 800, "the buttons are on the screen");
    const covered = await page.evaluate(
      ([x, y]) => document.elementFromPoint(x, y)?.closest("[data-testid='ask']") === null,
      [place.x + 5, place.y + 5],
    );
    assert.equal(covered, false);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false);
    await shoot(page, `${name}-narrow-dark`);
  });
}

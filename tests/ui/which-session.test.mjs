/** An agent with several sessions: which one is shown, whose ask stands where, where a prompt goes, and room for it all. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { shoot } from "./browser.mjs";
import { calls, core, open, page } from "./one-window.mjs";
import { ask, session } from "./scenarios.mjs";
import { waitUntil } from "./wait.mjs";

const card = () => page.getByTestId("ask");
const line = () => page.getByTestId("ask-elsewhere");
const shownSession = (branch) => page.locator("main header").getByText(`${branch} in sample`).waitFor();
const rail = (name) => page.getByLabel("Office and agents").getByRole("button", { name });
const composer = () => page.getByLabel("Prompt for Mina");

test("of a warm session and one that asks, the one that asks is shown, with its card", async () => {
  await open("warm-and-asking");
  await shownSession("semo/mina-7f3a");
  await card().getByText("Mina asks permission to use Bash").waitFor();
  assert.deepEqual(page.faults, []);
});

test("over the terminal of another session an ask is a line that says whose it is and leads there", async () => {
  await open("warm-and-asking");
  await rail("semo/mina-warm").click();
  await shownSession("semo/mina-warm");
  await line().getByText("in another session, semo/mina-7f3a").waitFor();
  assert.equal(await card().count(), 0);
  for (const theme of ["dark", "light"]) {
    await page.emulateMedia({ colorScheme: theme });
    await shoot(page, `ask-other-session-${theme}`);
  }
  await line().click();
  await shownSession("semo/mina-7f3a");
  await card().getByText("Mina asks permission to use Bash").waitFor();
  assert.deepEqual(calls("answer_ask"), [], "to go there is no answer");
});

test("an ask that comes up in another session leaves the one on the screen alone", async () => {
  await open("live");
  await shownSession("semo/mina-7f3a");
  core.push((state) => state.sessions.push(session({ id: "s-other", branch: "semo/mina-other" })));
  core.raise(ask({ id: "other", session_id: "s-other", agent_id: "a-fe", text: "cargo test" }));
  await line().getByText("semo/mina-other").waitFor();
  await shownSession("semo/mina-7f3a");
  assert.equal(await card().count(), 0);
});

test("an ask of another machine covers the terminal here instead of standing over it", async () => {
  await open("live");
  await shownSession("semo/mina-7f3a");
  core.raise(ask({ id: "far", session_id: "s-far", agent_id: "a-fe", mine: false, text: "cargo test" }));
  await line().getByText("in a session on another machine").waitFor();
  await line().click();
  await page.getByText("The terminal of semo/mina-7f3a is behind it.").waitFor();
  await card().getByText("on another machine").waitFor();
  await shoot(page, "ask-other-machine-dark");
  const covered = await page.evaluate(() => {
    const { x, y, width, height } = document.querySelector(".pane").getBoundingClientRect();
    return document.elementFromPoint(x + width / 2, y + height - 20)?.closest(".pane") === null;
  });
  assert.equal(covered, true);
  await page.getByRole("button", { name: "Back to the terminal" }).click();
  await card().waitFor({ state: "detached" });
  await line().waitFor();
});

test("a session that waits for an answer does not keep a prompt from a free one", async () => {
  await open("warm-and-asking");
  await page.getByText("the prompt goes to a free one of Mina").waitFor();
  await composer().fill("meanwhile");
  await composer().press("Control+Enter");
  await waitUntil("the core was asked", () => calls("send_prompt").length === 1);
  assert.deepEqual(calls("send_prompt")[0], { agent_id: "a-fe", prompt: "meanwhile", marker: "plain" });
});

test("with no other session one is started for the prompt, unless there is no room", async () => {
  await open("warm-and-asking");
  core.push((state) => (state.sessions = state.sessions.filter((one) => !one.warm)));
  await page.getByText("the prompt goes to a new one of Mina").waitFor();
  core.push((state) => (state.limits.sessions_max = 1));
  await page.getByText("Mina waits for an answer first: it stands above.").waitFor();
  await composer().fill("after it");
  await composer().press("Control+Enter");
  await waitUntil("the core was asked", () => calls("send_prompt").length === 1);
  assert.equal(calls("send_prompt")[0].session_id, "s-1");
});

for (const [width, theme] of [[480, "dark"], [480, "light"], [640, "dark"], [800, "light"], [1360, "light"]]) {
  test(`every button of the header can be reached at ${width} px, ${theme}`, async () => {
    await open("warm-and-asking", { width, height: 720, theme });
    await rail("semo/mina-7f3a").click();
    await shownSession("semo/mina-7f3a");
    for (const name of ["Why?", "Interrupt", /End session/, /Results/]) {
      const button = page.locator("main header").first().getByRole("button", { name });
      const place = await button.boundingBox();
      assert.ok(place.x >= 0 && place.x + place.width <= width, `${name} is inside`);
      const hit = await button.evaluate((element) => {
        const { x, y, width, height } = element.getBoundingClientRect();
        return [1, width / 2, width - 1].every((dx) => element.contains(document.elementFromPoint(x + dx, y + height / 2)));
      });
      assert.equal(hit, true, `nothing covers or cuts ${name}`);
    }
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false);
    await shoot(page, `header-${width}-${theme}`);
  });
}

/** Why a result is what it is, what a turn left, how the machine's sessions stand, and work that was kept. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { shoot } from "./browser.mjs";
import { calls, core, open, page } from "./one-window.mjs";
import { command } from "./scenarios.mjs";
import { EXPLANATION, PRESERVED } from "./scenarios-truth.mjs";
import { waitUntil } from "./wait.mjs";

const sheet = () => page.getByRole("dialog");
const result = (text) => page.locator("article", { hasText: text });
const empty = { command_id: null, explanation: null, preserved: null, note: null };

test("a result tells why: the rule in words, every claim with its tier, and what was seen in order", async () => {
  await open("facts");
  await result("Fix the rounding").getByRole("button").first().click();
  await result("Fix the rounding").getByRole("button", { name: "Why?" }).click();
  for (const words of [
    "The agent reported its end, and its final message closes with the completion marker.",
    "stop-with-marker",
    "verified",
    "observed",
    "claimed",
    "A tool was used",
    "words of a newer core",
    "rule-of-a-newer-core",
    "+61.0 s", "+3 min 58 s",
  ]) {
    await waitUntil(`“${words}” can be read`, async () => (await sheet().innerText()).includes(words));
  }
  await sheet().getByText("How the screen was read").click();
  await sheet().getByText("claude/future-rule-nobody-knows").waitFor();
  await sheet().getByText("ESC", { exact: true }).waitFor();
  await sheet().getByText("U+202E", { exact: true }).waitFor();
  assert.deepEqual(calls("explain"), [{ session_id: "s-1" }]);
  await shoot(page, "why-result-dark");
  await page.keyboard.press("Escape");
  await sheet().waitFor({ state: "detached" });
  assert.equal(await page.evaluate(() => document.activeElement.innerText), "Why?", "the focus is where it was");
  assert.deepEqual(page.faults, []);
});

for (const theme of ["dark", "light"]) {
  test(`a session tells of all its turns, also of those typed by hand, ${theme}`, async () => {
    await open("facts", { theme });
    await page.locator("main header").getByRole("button", { name: "Why?" }).click();
    await sheet().getByText("claude 2.1.197").waitFor();
    await sheet().getByText("typed in the terminal").waitFor();
    assert.match(await sheet().locator("details").first().innerText(), /Fix the rounding/, "the newest turn is the first");
    await shoot(page, `why-session-${theme}`);
    await sheet().locator("summary", { hasText: "what is in this folder?" }).click();
    await sheet().getByText("the end of the turn was not reported").waitFor();
    assert.equal(await page.evaluate(() => /[{}]"|\[object/.test(document.body.innerText)), false, "no raw values");
  });
}

test("what takes its time says so, and what fails can be tried again", async () => {
  await open("facts", { errorsExpected: true });
  let release;
  core.instead.explain = new Promise((resolve) => {
    release = () => resolve({ status: 503, body: { code: "not_ready", message: "The session is still starting.", hint: "Try again in a moment." } });
  });
  await page.locator("main header").getByRole("button", { name: "Why?" }).click();
  await sheet().getByText("Asking the session…").waitFor();
  release();
  await sheet().getByRole("alert").getByText("The session is still starting.").waitFor();
  await shoot(page, "why-failed-dark");
  await sheet().getByRole("button", { name: "Try again" }).click();
  await sheet().getByText("claude 2.1.197").waitFor();
});

test("a session that is gone leaves the result its evidence", async () => {
  await open("facts", { errorsExpected: true });
  core.instead.explain = { status: 404, body: { code: "not_found", message: "no session s-1", hint: "" } };
  await result("Translate the help pages").getByRole("button").first().click();
  await result("Translate the help pages").getByRole("button", { name: "Why?" }).click();
  await sheet().getByText("The session is gone, and its log with it.").waitFor();
  await sheet().getByText("The agent program itself reported that the turn failed.").waitFor();
});

test("a session without turns and readings is said to have none", async () => {
  await open("facts");
  core.instead.explain = { status: 200, body: { ...empty, explanation: { ...EXPLANATION, turns: [], readings: [] } } };
  await page.locator("main header").getByRole("button", { name: "Why?" }).click();
  await sheet().getByText("It has had no turn yet.").waitFor();
  await sheet().getByText("Nothing was read from it yet.").waitFor();
});

test("a pull request opens outside, and only addresses of the web do", async () => {
  await open("facts");
  await result("Fix the rounding").getByRole("button").first().click();
  await page.context().route("https://git.example.com/**", (route) => route.fulfill({ body: "a pull request" }));
  const links = result("Fix the rounding").getByRole("button", { name: /Pull request/ });
  assert.equal(await links.count(), 1);
  const [opened] = await Promise.all([page.context().waitForEvent("page"), links.click()]);
  assert.equal(opened.url(), "https://git.example.com/webshop/storefront/pull/4182");
  assert.equal(await opened.evaluate(() => window.opener), null);
});

test("a folded result has its facts on a line, and a limit its end", async () => {
  await open("facts");
  await result("Fix the rounding").getByText("2 commits · 5 files +1,204 −38 · not all committed").waitFor();
  // Also in the evening, when that is tomorrow.
  await result("Translate").getByText(/Usage limit · limit resets at (\d+ \w+ )?\d\d:\d\d/).waitFor();
});

test("a retry is told while it goes on, and not after", async () => {
  await open("retrying");
  await page.getByRole("status").getByText("retry 3 of 10").waitFor();
  core.push((state) => (state.sessions[0].retrying = state.sessions[0].retrying.replace("3 of 10", "4 of 10")));
  await page.getByRole("status").getByText("retry 4 of 10").waitFor();
  core.push((state) => (state.sessions[0].retrying = null));
  await page.getByText("retry 4 of 10").first().waitFor({ state: "detached" });
});

for (const theme of ["dark", "light"]) {
  test(`the sessions of the machine are told in full, ${theme}`, async () => {
    await open("pool", { theme });
    await page.getByTitle("The sessions of this machine").click();
    for (const words of [
      ...["2 of at most 6", "FE, BE, QA; 1 warm now", "10 min", "5.6 GB of 6.0 GB", "Idle sessions are given up first"],
      ...["Jonas", "Paused until", "exit code 139", "old persona", "restarted 2×", "warm", "1.4 GB"],
    ]) {
      await waitUntil(`“${words}” can be read`, async () => (await sheet().innerText()).includes(words));
    }
    await shoot(page, `pool-sheet-${theme}`);
    await page.getByRole("button", { name: "Close" }).click();
    await sheet().waitFor({ state: "detached" });
  });
}

test("a session's header tells of its old persona and its restarts", async () => {
  await open("pool");
  const header = page.locator("main header");
  await header.getByText("old persona").waitFor();
  assert.match(await header.getByText("old persona").getAttribute("title"), /takes up the new one at its next rest/);
  await header.getByText("restarted 2×").waitFor();
});

test("a paused agent says until when and why, and is not started by hand", async () => {
  await open("pool");
  await page.getByLabel("Office and agents").getByRole("button", { name: /Jonas/ }).click();
  await page.getByText("ended unexpectedly 3 times within 10 minutes").waitFor();
  assert.equal(await page.getByRole("button", { name: "Start session" }).count(), 0);
  // A prompt that waits for it is no start under way.
  core.push((state) => state.commands.unshift({ ...state.commands[0], ...command({ agent_id: "a-be", session_id: null, status: "waiting" }) }));
  await page.getByRole("button", { name: /In line/ }).waitFor();
  assert.equal(await page.getByText("Starting…").count(), 0);
  await page.locator("main").getByText(/^Paused until (\d+ \w+ )?\d\d:\d\d$/).waitFor();
});

for (const theme of ["dark", "light"]) {
  test(`kept work is listed and put into a new branch, ${theme}`, async () => {
    await open("facts", { theme });
    await page.getByRole("button", { name: "Kept work" }).click();
    await sheet().getByText("Mina (FE)").waitFor();
    for (const words of ["sample", "webshop", "14 files", "1 file", "1,204 files", "An agent that is not known any more", "꽉 찬 디스크"]) {
      assert.ok((await sheet().innerText()).includes(words), words);
    }
    const mina = sheet().locator("article", { hasText: "Mina (FE)" });
    await mina.getByRole("button", { name: "Restore…" }).click();
    const branch = mina.getByLabel("New branch");
    assert.equal(await branch.inputValue(), "restored/mina-7f3a");
    await branch.fill("two words");
    assert.equal(await mina.getByRole("button", { name: "Restore" }).isDisabled(), true);
    await shoot(page, `kept-ask-${theme}`);
    await branch.fill("되살림/mina");
    await branch.press("Enter");
    await mina.getByText("14 files are in the new branch").waitFor();
    await mina.getByText("restored to 되살림/mina").waitFor();
    assert.equal(await sheet().getByText("restored to").count(), 1, "only what was restored is marked");
    assert.deepEqual(calls("restore_preserved"), [{ repository: "sample", name: PRESERVED[1].name, to_branch: "되살림/mina" }]);
    await shoot(page, `kept-${theme}`);
  });
}

test("what was restored is still marked when the list is opened again", async () => {
  await open("facts");
  await page.getByRole("button", { name: "Kept work" }).click();
  await sheet().getByRole("button", { name: "Restore…" }).first().click();
  await sheet().getByLabel("New branch").press("Enter");
  await sheet().getByText("restored to restored/mina-7f3a").waitFor();
  await page.getByRole("button", { name: "Close" }).click();
  await page.getByRole("button", { name: "Kept work" }).click();
  await sheet().getByText("restored to restored/mina-7f3a").waitFor();
  await sheet().getByRole("button", { name: "Restore again…" }).waitFor();
});

test("a command to a session is shown as one for its agent, also after the session is gone", async () => {
  await open("facts");
  core.push((state) => state.commands.unshift(command({ id: "c-session", agent_id: null, session_id: "s-1", summary: "Say it again" })));
  await result("Say it again").getByText(/^\s*Mina ·/).waitFor();
  await page.getByRole("group", { name: "Whose results" }).getByRole("button", { name: "Mina" }).click();
  await result("Say it again").waitFor();
  core.push((state) => (state.sessions = []));
  await page.getByText("The session has ended.").waitFor();
  await result("Say it again").getByText(/^\s*Mina ·/).waitFor();
});

test("evidence reads as sentences: answers once, no counts of nothing, and whose the uncommitted files are", async () => {
  await open("facts");
  core.push((state) => {
    const claim = (what, value, source, tier = "observed") => ({ what, value, tier, source });
    const said = { ask: "k-1", answer: { say: "allow" }, way: "cli", who: "person" };
    const claims = [
      claim("answer", said, "person"),
      claim("answer", { ...said, at: new Date().toISOString(), kind: "permission", tool: "Bash" }, "asks"),
      claim("tools_used", { tools: 2, commands: 2, failed_commands: 0 }, "tools"),
      claim("files_changed", 0, "git", "verified"),
      claim("uncommitted", 2, "git", "verified"),
    ];
    state.commands.unshift(command({ id: "c-said", status: "succeeded", outcome: "done", summary: "List the files", evidence: { rule: "stop-with-marker", claims } }));
  });
  await result("List the files").getByText("2 files not committed, none from this turn").waitFor();
  await result("List the files").getByRole("button").first().click();
  await result("List the files").getByText("Allowed at the CLI by person").waitFor();
  assert.equal(await result("List the files").getByText("Allowed at the CLI by person").count(), 1);
  const words = await result("List the files").innerText();
  assert.doesNotMatch(words, /failed/i);
  assert.match(words, /Tools: 2, Commands: 2/);
});

test("a branch that is there already is told, and another name can be given", async () => {
  await open("facts", { errorsExpected: true });
  await page.getByRole("button", { name: "Kept work" }).click();
  const mina = sheet().locator("article", { hasText: "Mina (FE)" });
  await mina.getByRole("button", { name: "Restore…" }).click();
  core.instead.restore_preserved = { status: 409, body: { code: "conflict", message: "the branch `restored/mina-7f3a` exists already", hint: "Choose another name." } };
  await mina.getByLabel("New branch").press("Enter");
  await mina.getByRole("alert").getByText("exists already").waitFor();
  await mina.getByLabel("New branch").fill("restored/again");
  await mina.getByLabel("New branch").press("Escape");
  assert.equal(await sheet().count(), 1, "Escape takes back the question, not the list");
  assert.equal(await mina.getByLabel("New branch").count(), 0);
});

test("no kept work is said, not shown as nothing", async () => {
  await open("facts");
  core.instead.list_preserved = { status: 200, body: { ...empty, preserved: [] } };
  await page.getByRole("button", { name: "Kept work" }).click();
  await sheet().getByText("Nothing is kept yet").waitFor();
  await shoot(page, "kept-none-dark");
});

test("in a narrow window the sheets fit", async () => {
  await open("facts", { width: 800, height: 600 });
  await page.locator("main header").getByRole("button", { name: "Why?" }).click();
  await sheet().getByText("claude 2.1.197").waitFor();
  await shoot(page, "why-narrow-dark");
  const place = await sheet().boundingBox();
  assert.ok(place.x >= 0 && place.x + place.width <= 800);
  assert.equal(await sheet().evaluate((element) => element.scrollWidth > element.clientWidth), false);
});

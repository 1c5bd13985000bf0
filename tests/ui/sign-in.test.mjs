/** Signing in to a team and back, over the fake core: what is asked, what is sent, what is told, with the keyboard alone. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { shoot } from "./browser.mjs";
import { calls, core, open, page } from "./one-window.mjs";
import { THERE } from "./scenarios.mjs";
import { waitUntil } from "./wait.mjs";

const PASSWORD = "correct horse battery staple";
const KEY = "sb_publishable_example";
const field = (label) => page.getByLabel(label, { exact: false });
const says = (words) => waitUntil(`“${words}” can be read`, async () => (await page.locator("body").innerText()).includes(words));
const focused = () => page.evaluate(() => document.activeElement?.labels?.[0]?.textContent ?? document.activeElement?.textContent?.trim() ?? "");
const refusal = (status, code, message, hint = "", field = null) => ({ status, body: { code, message, hint, field } });

async function openSheet() {
  await page.getByRole("button", { name: "This machine" }).click();
  await says("Sign in to a team");
}

/** Goes on with Tab until the focus is where `label` says. */
async function tabTo(label) {
  for (let steps = 0; steps < 40; steps += 1) {
    if ((await focused()).startsWith(label)) return;
    await page.keyboard.press("Tab");
  }
  assert.fail(`no way to “${label}” by keyboard`);
}

async function nothingIsKept() {
  const kept = await page.evaluate(() => JSON.stringify([location.href, { ...localStorage }, { ...sessionStorage }, document.body.innerHTML]));
  assert.equal(kept.includes(PASSWORD), false, "the password is nowhere");
}

test("who is signed out signs in with the keyboard alone, and a wrong password leads back to its field", async () => {
  await open("signed-out", { errorsExpected: true });
  await tabTo("Password");
  assert.equal(await field("E-mail").inputValue(), "person@example.com", "as the settings have it");
  core.instead.sign_in = refusal(403, "forbidden", "the e-mail address or the password is wrong", "Check both.", "password");
  await page.keyboard.type("wrong");
  await page.keyboard.press("Enter");
  await says("the password is wrong");
  await waitUntil("the focus is in the password", async () => (await focused()) === "Password");
  await shoot(page, "sign-in-refused-dark");
  await page.keyboard.type(PASSWORD);
  await page.keyboard.press("Enter");
  await waitUntil("it was sent", () => calls("sign_in").length === 2);
  assert.deepEqual(calls("sign_in")[1], { email: "person@example.com", password: PASSWORD });
  core.push((state) => Object.assign(state, { problems: [], office: { id: "o-2", name: "Webshop team" }, offices: [{ id: "o-2", name: "Webshop team" }] }));
  await says("Webshop team");
  await nothingIsKept();
});

test("from the office of this machine to a team's: a secret key stays here, the rest is sent once, and the new office opens", async () => {
  await open("live");
  await openSheet();
  const signIn = page.getByRole("button", { name: "Sign in", exact: true });
  assert.equal(await signIn.isDisabled(), true, "there is nothing to send yet");
  await field("Address of the team").fill("https://example.supabase.co");
  await field("Publishable key").fill("sb_secret_abc");
  await field("E-mail").fill("person@example.com");
  await field("Password").fill(PASSWORD);
  await signIn.click();
  await says("This is a secret key");
  assert.deepEqual(calls("sign_in"), []);
  await waitUntil("the focus is in the key", async () => (await focused()) === "Publishable key");
  await shoot(page, "sign-in-secret-key-dark");
  await field("Publishable key").fill(` ${KEY} `);
  let answer;
  core.instead.sign_in = new Promise((told) => (answer = told));
  await signIn.click();
  await says("Signing in…");
  await waitUntil("it was sent", () => calls("sign_in").length === 1);
  assert.deepEqual(calls("sign_in")[0], {
    url: "https://example.supabase.co",
    publishable_key: KEY,
    email: "person@example.com",
    password: PASSWORD,
  });
  core.push((state) => (state.profile.changing = true));
  answer({ status: 200, body: { command_id: null, explanation: null, preserved: null, note: "signed in" } });
  await says("Switching to example.supabase.co");
  await shoot(page, "switching-to-a-team-dark");
  core.push((state) => {
    state.profile = { ...THERE };
    state.launch.since += 1;
    state.office = { id: "o-2", name: "Webshop team" };
    state.offices = [state.office];
  });
  await says("Webshop team");
  assert.equal(await page.locator("dialog").count(), 0, "the sheet has gone");
  await nothingIsKept();
  assert.deepEqual(page.faults, []);
});

test("what stands in the way of a sign-in is told where it was asked for, and the form keeps what was typed", async () => {
  await open("live", { errorsExpected: true });
  await openSheet();
  await field("Address of the team").fill("https://example.supabase.co");
  await field("Publishable key").fill(KEY);
  await field("E-mail").fill("person@example.com");
  await field("Password").fill(PASSWORD);
  for (const [told, words, where] of [
    [refusal(422, "invalid", "https://example.supabase.co does not take this publishable key", "Copy it again.", "key"), "Copy it again", "Publishable key"],
    [refusal(502, "unreachable", "https://example.supabase.co cannot be reached: connection refused", "Check the address.", "url"), "Check the address", "Address"],
    [refusal(502, "unreachable", "https://example.supabase.co has had too many tries to sign in", "Wait a few minutes."), "Wait a few minutes", null],
    [refusal(409, "conflict", "1 command is of office This machine in work here", "Wait for its end."), "Wait for its end", null],
  ]) {
    core.instead.sign_in = told;
    await page.getByRole("button", { name: "Sign in", exact: true }).click();
    await says(words);
    if (where !== null) await waitUntil(`the focus is in ${where}`, async () => (await focused()).startsWith(where));
    assert.equal(await field("Password").inputValue(), PASSWORD);
  }
  assert.equal(await page.locator("[role=alert]").count(), 1);
});

test("the team that is known is switched to without a password, and left again with one click", async () => {
  await open("live");
  core.push((state) => (state.profile.team = { ...THERE.team }));
  await page.getByRole("button", { name: "This machine" }).click();
  await says("Switch to it");
  await page.getByRole("button", { name: "Switch to it" }).click();
  await waitUntil("it was asked", () => calls("use_profile").length === 1);
  assert.deepEqual(calls("use_profile"), [{ profile: "supabase" }]);
  core.push((state) => {
    state.profile = { ...THERE };
    state.launch.since += 1;
  });
  await page.getByRole("button", { name: "example.supabase.co" }).click();
  await says("kept in this computer's keychain");
  await shoot(page, "profile-team-dark");
  await page.getByRole("button", { name: "Work alone" }).click();
  await waitUntil("it was asked", () => calls("use_profile").length === 2);
  assert.deepEqual(calls("use_profile")[1], { profile: "this_machine" });
});

test("a switch that does not come about leaves everybody where they were, whoever asked for it", async () => {
  await open("live");
  core.push((state) => (state.profile.changing = true));
  await says("Switching to another office");
  core.push((state) => (state.profile.changing = false));
  await says("Connected");
  assert.equal((await page.locator("body").innerText()).includes("Switching"), false, "the same launch goes on");
});

test("a switch that hangs can be looked behind, and stays so until something new comes", async () => {
  await open("live");
  await page.clock.install();
  core.push((state) => (state.profile.changing = true));
  await says("Switching to another office");
  await page.clock.fastForward(61_000);
  await page.getByRole("button", { name: "Show what was there" }).click();
  await says("Connected");
  const prompts = await page.locator("textarea").count();
  core.push((state) => (state.connection.why = "still ending"));
  core.push((state) => (state.office.name = "The office of before"));
  await says("The office of before");
  assert.equal(await page.locator("textarea").count(), prompts, "the next states do not cover it again");
  core.push((state) => (state.launch.since += 1));
  await says("Switching to another office");
});

test("a sign-in that needed no switch gives its name to no later one", async () => {
  await open("signed-out");
  await page.clock.install();
  await field("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  await waitUntil("it was sent", () => calls("sign_in").length === 1);
  core.push((state) => (state.problems = []));
  await waitUntil("the form has gone", async () => (await page.locator("input[type=password]").count()) === 0);
  await page.clock.fastForward(6_000);
  core.push((state) => (state.profile.changing = true));
  await says("Switching to another office");
});

test("a sign-out shows the form in its place, and an account without an office can make one", async () => {
  await open("live");
  core.push((state) => (state.profile = { ...THERE }));
  await page.getByRole("button", { name: "example.supabase.co" }).click();
  await page.getByRole("button", { name: "Sign out" }).click();
  await waitUntil("it was asked", () => calls("sign_out").length === 1);
  core.push((state) =>
    Object.assign(state, {
      office: null,
      offices: [],
      agents: [],
      sessions: [],
      problems: [{ code: "sign_in", message: "person@example.com is signed out", hint: "Sign in to go on." }],
    }),
  );
  await says("Sign in again");
  await page.keyboard.press("Escape");
  await says("You are signed out");
  core.push((state) => (state.problems = [{ code: "office", message: "person@example.com is not a member of any office yet", hint: "" }]));
  await field("Name of a new office").fill(" 웹샵 팀 ");
  await page.getByRole("button", { name: "Make it" }).click();
  await waitUntil("it was asked", () => calls("make_office").length === 1);
  assert.deepEqual(calls("make_office"), [{ name: "웹샵 팀" }]);
});

for (const theme of ["dark", "light"]) {
  test(`in a narrow and low window nothing of the form is out of reach, ${theme}`, async () => {
    await open("signed-out", { theme, width: 420, height: 480 });
    await page.getByRole("button", { name: "Another team…" }).click();
    await shoot(page, `sign-in-narrow-${theme}`);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false, "nothing sticks out");
    await page.getByRole("button", { name: "Work alone on this computer" }).click();
    await waitUntil("it was asked", () => calls("use_profile").length === 1);
  });

  test(`the sheet of a machine that knows no team shows the way to one, ${theme}`, async () => {
    await open("live", { theme });
    await openSheet();
    assert.equal(await page.getByRole("button", { name: "Work alone" }).count(), 0, "it does so already");
    await shoot(page, `profile-here-${theme}`);
    assert.deepEqual(page.faults, []);
  });
}

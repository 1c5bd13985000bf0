/** The main job in a browser, served by the headless program. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { openBrowser, openPage, shoot } from "./browser.mjs";
import { playAskingAndStopping, playTheStory } from "./story.mjs";
import { makeWorld } from "./world.mjs";

test("in the browser, a person starts an agent, types, sends a prompt, reads the result, answers, interrupts and ends", async () => {
  const world = await makeWorld();
  let browser;
  let up;
  try {
    const started = await world.up();
    up = started.up;
    browser = await openBrowser();
    const page = await openPage(browser, { url: started.url, theme: "light" });
    await playTheStory(handsOf(page));
    await playAskingAndStopping(handsOf(page));
    // A stream may be asked for in the very moment in which its session goes; the browser itself writes that down.
    const faults = page.faults.filter((fault) => !/\/terminal' failed: .*code: 404/.test(fault));
    assert.deepEqual(faults, []);
  } catch (error) {
    throw new Error(`${error.stack}\n--- output of semo up ---\n${up?.lines.slice(-60).join("\n")}`);
  } finally {
    await browser?.close();
    await world.close();
  }
});

function handsOf(page) {
  return {
    keys: { clearLine: null },
    text: async (css) => ((await page.locator(css).count()) === 0 ? "" : page.locator(css).first().innerText()),
    clickButton: (text) => page.getByRole("button", { name: text }).first().click(),
    async typeInto(css, text) {
      await page.locator(css).first().focus();
      if (text === null) await page.keyboard.press("Control+u");
      else await page.keyboard.type(text);
    },
    async pressEnterWithControl(css) {
      await page.locator(css).first().press("Control+Enter");
    },
    shoot: (name) => shoot(page, `story-browser-${name}`),
  };
}

/**
 * The main job as a person does it, told once and played in the browser and in the desktop window: look at the office,
 * start a session, type into its terminal, send a prompt, read the result. `ui` is the hand and the eye of whoever
 * plays it: text(css), clickButton(text), typeInto(css, text), pressEnterWithControl(css), shoot(name).
 */

import assert from "node:assert/strict";

import { waitUntil } from "./wait.mjs";

/** A first start prepares a database and a sample repository. */
const FIRST_START_MS = 120_000;
const AGENT_START_MS = 120_000;
const TURN_MS = 120_000;
const ANSWER_MS = 60_000;

const RAIL = "aside[aria-label='Office and agents']";
const RESULTS = "aside[aria-label='Commands and results']";
const NEWEST_RESULT = "aside[aria-label='Commands and results'] article";
const SCREEN = ".xterm-rows";
const KEYBOARD = ".xterm-helper-textarea";
const ASK = "[data-testid='ask']";
const WHY = "dialog[open]";
const COMPOSER = "form textarea";

export async function playTheStory(ui) {
  const reads = readerOf(ui);

  await reads(RAIL, "This machine", FIRST_START_MS);
  await reads(RAIL, "Connected", FIRST_START_MS);
  for (const role of ["FE", "BE", "QA"]) await reads(RAIL, role, FIRST_START_MS);
  await ui.shoot("1-office");

  await ui.clickButton("Start session");
  await reads(SCREEN, "for shortcuts", AGENT_START_MS);
  await reads(RAIL, "Ready", AGENT_START_MS);
  await reads(RESULTS, "OK", AGENT_START_MS);
  await ui.shoot("2-session-ready");

  await ui.typeInto(KEYBOARD, "typed by hand");
  await waitUntil("the typed text is in the agent's input line", async () =>
    // The agent draws its gaps with cursor moves; the screen shows them as blanks of another kind.
    /typed\s+by\s+hand/.test((await ui.text(SCREEN)).replaceAll("\u00a0", " ")),
  );
  await ui.shoot("3-typed");
  // The line must be empty again before a prompt can be brought in.
  await ui.typeInto(KEYBOARD, ui.keys.clearLine);
  await waitUntil("the input line is empty again", async () =>
    !/typed\s+by\s+hand/.test((await ui.text(SCREEN)).replaceAll("\u00a0", " ")),
  );

  await ui.typeInto(COMPOSER, "Say hello. scn=text");
  await ui.pressEnterWithControl(COMPOSER);
  await reads(RESULTS, "Done", TURN_MS);
  await reads(RESULTS, "[SEMO:DONE]", TURN_MS);
  await reads(RESULTS, "How do we know?", TURN_MS);
  await reads(RAIL, "Ready", TURN_MS);
  await ui.shoot("4-done");

  await ui.clickButton("Why?");
  await reads(WHY, "its final message closes with the completion marker", ANSWER_MS);
  await reads(WHY, "What was seen, in order", ANSWER_MS);
  await reads(WHY, "Say hello.", ANSWER_MS);
  await ui.shoot("4b-why");
  await ui.clickButton("Close");
  await waitUntil("the explanation is closed", async () => (await ui.text(WHY)) === "");

  await ui.typeInto(COMPOSER, "Forget to say that you are done. scn=nomark");
  await ui.pressEnterWithControl(COMPOSER);
  await reads(RESULTS, "Unconfirmed", TURN_MS);
  await ui.shoot("5-unconfirmed");

  await allowFromTheCard(ui, "5b-asks");
  assert.equal((await ui.text("body")).includes("[object"), false);
}

/** The agent asks for a permission, which is given in the window and not in its terminal. */
async function allowFromTheCard(ui, picture) {
  const reads = readerOf(ui);
  await ui.typeInto(COMPOSER, "Write a file. scn=write:granted.txt");
  await ui.pressEnterWithControl(COMPOSER);
  await reads(ASK, "asks permission to use Write", TURN_MS);
  await reads(ASK, "granted.txt", ANSWER_MS);
  await reads(RAIL, "Waiting for you", ANSWER_MS);
  // Its first moments take no answer.
  await waitUntil("the ask takes answers", async () => (await ui.text(`${ASK} [aria-disabled='true']`)) === "");
  await ui.shoot(picture);
  await ui.clickButton("Allow");
  await waitUntil("the ask is gone", async () => (await ui.text(ASK)) === "", TURN_MS);
  await reads(NEWEST_RESULT, "Done", TURN_MS);
  await reads(NEWEST_RESULT, "The file was written.", TURN_MS);
}

/** What follows the main job: an agent that asks, one that is interrupted, and the end of a session. */
export async function playAskingAndStopping(ui) {
  const reads = readerOf(ui);

  await ui.typeInto(COMPOSER, "Write a file. scn=write:notes.txt");
  await ui.pressEnterWithControl(COMPOSER);
  await reads(NEWEST_RESULT, "Waits for you", TURN_MS);
  await reads(RAIL, "Asks permission", TURN_MS);
  await ui.shoot("6-asks");
  await ui.typeInto(KEYBOARD, "1");
  await reads(NEWEST_RESULT, "Done", TURN_MS);
  await reads(NEWEST_RESULT, "The file was written.", TURN_MS);

  await ui.typeInto(COMPOSER, "Never answer. scn=hang");
  await ui.pressEnterWithControl(COMPOSER);
  await reads(NEWEST_RESULT, "Running", TURN_MS);
  await reads(RAIL, "Working", TURN_MS);
  await ui.clickButton("Interrupt");
  await reads(NEWEST_RESULT, "Cancelled", TURN_MS);
  await reads(RAIL, "Ready", TURN_MS);
  await ui.shoot("7-cancelled");

  // The agent puts an interrupted prompt back into its input line; the next one must not be glued to it.
  await ui.typeInto(COMPOSER, "Say hello again. scn=text:Hello+again");
  await ui.pressEnterWithControl(COMPOSER);
  await reads(NEWEST_RESULT, "Hello again", TURN_MS);
  await reads(NEWEST_RESULT, "Done", TURN_MS);

  await ui.clickButton("End session");
  await ui.clickButton("Really end?");
  await reads("main", "Start a new session", TURN_MS);
  await reads("main header", "Ended", TURN_MS);
  await ui.shoot("8-ended");
}

function readerOf(ui) {
  return (css, words, deadlineMs) =>
    waitUntil(`“${words}” stands in ${css}`, async () => (await ui.text(css)).includes(words), deadlineMs);
}

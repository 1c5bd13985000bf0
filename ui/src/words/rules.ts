/**
 * The rules that decide about a turn, in plain words. The ids are the core's (`domain::turn`, the detector manifests);
 * one that is not listed is shown as it is, so that nothing is hidden behind a sentence that does not fit.
 */

import type { TurnEvent } from "../backend";
import { wordsFor } from "./lookup";

const VERDICTS: Record<string, string> = {
  "stop-with-marker": "The agent reported its end, and its final message closes with the completion marker.",
  "stop-no-marker-asked": "The agent reported its end, and no completion marker was asked for.",
  "stop-without-marker": "The agent reported its end, but the completion marker it was asked for is missing.",
  "stop-marker-mentioned": "The completion marker is mentioned in the final message, but does not close it.",
  "stop-disputed": "The agent's stop signal and its transcript disagree about the final message.",
  "stop-with-pending-work": "The agent reported its end while work it had started was still running.",
  "stop-on-screen": "The agent's final message on the screen closes with the completion marker; there is no other witness.",
  "stop-on-screen-with-code":
    "The agent's final message on the screen closes with the marker and the code that were made for this turn.",
  "stop-with-office-pattern": "The agent reported its end, and its final message matches a completion pattern of the office.",
  "stop-with-error-pattern": "The agent reported its end, but its final message matches an error pattern of the office.",
  "stop-uncertain": "The agent stopped, but it is not certain that it was this turn that ended.",
  "stop-overruled": "A stop hook of the project said that the work is not finished, and the agent program overruled it.",
  "screen-only": "Only the screen shows an end; the signals that should have reported it were silent.",
  "provider-failure": "The agent program itself reported that the turn failed.",
  "not-submitted": "The prompt could not be brought into the agent's input.",
  "core-ended": "SEMO Office ended while this was being carried out; what became of it is not known.",
  "process-exit": "The agent program ended during the turn.",
  "session-ended": "The session was ended on request, and its whole process tree is proven gone.",
  "timeout-interrupted": "The turn reached its time limit and was interrupted.",
  "timeout-session-ended": "The turn reached its time limit, could not be interrupted, and the session was ended.",
  "cancel-proven": "It was asked to stop, and is proven stopped.",
  "time-limit-with-background-work":
    "The agent stopped, but work that it left in the background was still running at the turn's time limit.",
  "interrupted-with-background-work":
    "It was interrupted at the keyboard, but work that it left in the background is not known to have ended.",
  "interrupted-at-keyboard": "Somebody interrupted it in the terminal.",
  "idle-without-stop": "The agent waits for input again, but the end of the turn was not reported.",
};

export function isKnownRule(rule: string): boolean {
  return wordsFor(VERDICTS, rule) !== undefined;
}

export function ruleSentence(rule: string): string {
  return wordsFor(VERDICTS, rule) ?? `Rule “${rule}”.`;
}

/** What was seen of a turn (`session::follow`), where its own words do not say it. */
const SEEN: Record<string, string> = {
  began: "The turn began.",
  prompt: "The agent has the prompt.",
  acknowledged: "The prompt was taken.",
  tool: "A tool was used",
  asks: "The agent asked",
  answered: "Somebody answered",
  stopped: "The agent stopped; its last words",
  retrying: "The request to the model is tried again",
  failure: "It failed",
  "api-error": "The model's API answered with an error",
  "turn-duration": "The program wrote down how long the turn took",
  "background-work": "Work began in the background",
  "background-work-is-over": "No work runs in the background any more.",
  "sub-agent-begins": "A sub-agent began",
  "sub-agent-ended": "A sub-agent ended",
  woken: "It was woken by its background work",
  left: "Another turn began before an end of this one was seen.",
  interrupted: "It was interrupted.",
  "interrupt-sent": "The interrupt was sent.",
  "cancel-requested": "Somebody asked to stop it.",
  "never-sent": "The prompt was never sent.",
  "not-submitted": "The prompt could not be brought in.",
  "prompt-put-back": "The prompt stands in the input box again.",
  "time-limit": "The time limit was reached.",
  "ended-on-request": "The session was ended on request.",
  "not-ended": "The process tree could not be proven gone.",
  "session-end": "The agent said that its session ends.",
  exit: "The agent program ended.",
};

/** One line of a log: what it means, and its own words where they add something. */
export function seenWords(event: Pick<TurnEvent, "source" | "rule" | "what">): { text: string; own: string } {
  // The judge's own words are for programs; its rule has a sentence.
  if (event.source === "judge" && isKnownRule(event.rule)) return { text: ruleSentence(event.rule), own: "" };
  const text = wordsFor(SEEN, event.rule);
  // A whole sentence says it all; the others are completed by the line's own words.
  if (text?.endsWith(".")) return { text, own: "" };
  if (text === undefined) return { text: event.what === "" ? event.rule : event.what, own: "" };
  return { text, own: event.what };
}

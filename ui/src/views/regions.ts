/**
 * The parts of the window that F6 walks through. Tab alone cannot: inside the terminal it belongs to the agent.
 */

/** Each part marks the element that takes the focus. */
const REGION = "[data-region]";

export function nextRegion(step: 1 | -1): void {
  const regions = [...document.querySelectorAll<HTMLElement>(REGION)].filter((region) => region.offsetParent !== null);
  if (regions.length === 0) return;
  const here = regions.findIndex((region) => region.contains(document.activeElement));
  const next = regions[(here + step + regions.length) % regions.length];
  if (next !== undefined) (firstFocusable(next) ?? next).focus();
}

function firstFocusable(region: HTMLElement): HTMLElement | null {
  return region.querySelector<HTMLElement>(
    "[data-region-focus], .xterm-helper-textarea, [aria-current='true'], button:not(:disabled), select, textarea, input",
  );
}

/** Gives the keys to the agent on the screen, if there is one. */
export function focusTerminal(): void {
  document.querySelector<HTMLElement>(".pane .xterm-helper-textarea")?.focus();
}

/** A place for the focus where Enter does nothing, for when what had it goes away. */
const REST = "[data-rest]";

export function focusRest(): void {
  document.querySelector<HTMLElement>(REST)?.focus();
}

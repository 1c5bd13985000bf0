/** Waiting with a name and a deadline; never a bare sleep. */

const STEP_MS = 25;

/** Asks `look` until it gives something true; says what it waited for when it never did. */
export async function waitUntil(what, look, deadlineMs = 15_000) {
  const deadline = Date.now() + deadlineMs;
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    if (Date.now() > deadline) throw new Error(`waited ${deadlineMs} ms in vain until ${what}`);
    await new Promise((later) => setTimeout(later, STEP_MS));
  }
}

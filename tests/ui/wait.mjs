/** Waiting with a name and a deadline; never a bare sleep. */

const STEP_MS = 40;
/** For what needs no deadline of its own, on a slow and busy machine; a wait that ends well costs none of it. */
const SOON_MS = 30_000;

/** Asks `look` until it gives something true; says what it waited for when it never did. */
export async function waitUntil(what, look, deadlineMs = SOON_MS) {
  const deadline = Date.now() + deadlineMs;
  let last;
  for (;;) {
    try {
      const seen = await look();
      if (seen) return seen;
      last = seen;
    } catch (error) {
      last = error.message;
    }
    if (Date.now() > deadline) throw new Error(`waited ${deadlineMs} ms in vain until ${what}; last seen: ${String(last)}`);
    await new Promise((later) => setTimeout(later, STEP_MS));
  }
}

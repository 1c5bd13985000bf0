/**
 * Whether the core that this page belongs to listens, asked without showing the key: only whoever knows it can answer.
 * Twin of `prove` in the core's `access.rs`.
 */

import type { CoreAddress } from "./host";
import { UNREACHABLE } from "./http";

const NONCE_BYTES = 32;
/** The core answers from memory. */
const PROOF_TIMEOUT_MS = 5_000;

/** False when somebody answers who does not know the key. Throws when nobody answers. */
export async function provesItself(core: CoreAddress): Promise<boolean> {
  // Browsers keep this from pages that came over an open network; from this machine it is always there.
  if (crypto.subtle === undefined) return true;
  const nonce = hex(crypto.getRandomValues(new Uint8Array(NONCE_BYTES)));
  let answer: unknown;
  try {
    const response = await fetch(`${core.url}/api/v1/proof?nonce=${nonce}`, {
      signal: AbortSignal.timeout(PROOF_TIMEOUT_MS),
      cache: "no-store",
      credentials: "omit",
    });
    answer = await response.json().catch(() => null);
  } catch {
    throw UNREACHABLE;
  }
  const proof = typeof answer === "object" && answer !== null ? (answer as Record<string, unknown>)["proof"] : null;
  return proof === (await proofOf(core.token, new URL(core.url).port, nonce));
}

/** What whoever knows the key answers to `nonce` on that port. */
export async function proofOf(token: string, port: string, nonce: string): Promise<string> {
  const bytes = (text: string) => new TextEncoder().encode(text);
  const hmac = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", bytes(token), hmac, false, ["sign"]);
  const mac = await crypto.subtle.sign(hmac.name, key, bytes(`semo core\n${port}\n${nonce}`));
  return hex(new Uint8Array(mac));
}

function hex(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

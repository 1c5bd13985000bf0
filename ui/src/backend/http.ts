/** Requests to the core: one method call, one answer. */

import { BackendError, errorFrom, KEY_RENEWED } from "./errors";
import type { CoreAddress } from "./host";
import type { Answer, Method, Methods, State, StopHow } from "./types";

/** A call that takes longer is given up; the core answers from memory. */
const CALL_TIMEOUT_MS = 15_000;
/** Calls for which the core itself asks somebody far away, within limits of its own. */
const FAR_TIMEOUT_MS = 120_000;
const FAR: ReadonlySet<Method> = new Set<Method>(["sign_in", "sign_out", "use_profile", "make_office"]);

export const UNREACHABLE = new BackendError(
  "unreachable",
  "SEMO Office's core does not answer.",
  "It may be restarting. If it does not come back, start it again (`semo up`, or reopen the app).",
);

export async function call<M extends Method>(
  core: CoreAddress,
  method: M,
  params: Methods[M],
): Promise<Answer> {
  return (await request(core, `/api/v1/rpc/${method}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(params),
    signal: AbortSignal.timeout(FAR.has(method) ? FAR_TIMEOUT_MS : CALL_TIMEOUT_MS),
  })) as Answer;
}

/** Asks for the end of the core. It comes later, and nobody answers any more then. */
export async function stop(core: CoreAddress, how: StopHow): Promise<void> {
  await request(core, "/api/v1/stop", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ how }),
  });
}

/** The state, whole. Used to learn why a stream would not open. */
export async function fetchState(core: CoreAddress): Promise<State> {
  return (await request(core, "/api/v1/state", { method: "GET" })) as State;
}

async function request(core: CoreAddress, path: string, init: RequestInit): Promise<unknown> {
  let response: Response;
  try {
    response = await fetch(core.url + path, {
      signal: AbortSignal.timeout(CALL_TIMEOUT_MS),
      ...init,
      headers: { ...init.headers, authorization: `Bearer ${core.token}` },
      cache: "no-store",
      credentials: "omit",
    });
  } catch {
    throw UNREACHABLE;
  }
  const body: unknown = await response.json().catch(() => null);
  if (response.ok) return body;
  // 403 alone says that the person may not do this in the office; the key is then a good one.
  const code = typeof body === "object" && body !== null ? (body as Record<string, unknown>)["code"] : null;
  if (response.status === 401 || code === "unauthorized") {
    throw KEY_RENEWED;
  }
  throw errorFrom(
    body,
    new BackendError(
      "rejected",
      `The core answered ${response.status} to ${path.split("/").pop() ?? path}.`,
      "Try again; if it stays, `semo doctor` says what is wrong on this machine.",
    ),
  );
}

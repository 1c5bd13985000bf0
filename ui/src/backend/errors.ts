/** An error of the core, with words for the person in front of it. */
export class BackendError extends Error {
  readonly code: string;
  readonly hint: string;

  constructor(code: string, message: string, hint = "") {
    super(message);
    this.name = "BackendError";
    this.code = code;
    this.hint = hint;
  }
}

export const KEY_RENEWED = new BackendError(
  "unauthorized",
  "SEMO Office has a new key; this page has the one of before.",
  "Run `semo status` and open the address that it prints, in this tab or another.",
);

/** Reads a `{code?, message, hint?}` from anything, also from what a foreign program may have sent. */
export function errorFrom(body: unknown, otherwise: BackendError): BackendError {
  if (typeof body === "string" && body.trim() !== "") {
    return new BackendError(otherwise.code, body, otherwise.hint);
  }
  if (typeof body !== "object" || body === null) return otherwise;
  const { code, message, hint } = body as Record<string, unknown>;
  if (typeof message !== "string" || message === "") return otherwise;
  return new BackendError(
    typeof code === "string" && code !== "" ? code : otherwise.code,
    message,
    typeof hint === "string" ? hint : "",
  );
}

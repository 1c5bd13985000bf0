/** An error of the core, with words for the person in front of it. */
export class BackendError extends Error {
  readonly code: string;
  readonly hint: string;
  /** The part of a form that has to be looked at again, as the core calls it. */
  readonly field: string | null;

  constructor(code: string, message: string, hint = "", field: string | null = null) {
    super(message);
    this.name = "BackendError";
    this.code = code;
    this.hint = hint;
    this.field = field;
  }
}

/** Whatever was thrown, as an error with words. */
export function knownError(error: unknown): BackendError {
  return error instanceof BackendError ? error : new BackendError("unknown", String(error));
}

export const KEY_RENEWED = new BackendError(
  "unauthorized",
  "SEMO Office has a new key; this page has an old one.",
  "Run `semo status` and open the address that it prints, in this tab or another.",
);

/** Reads a `{code?, message, hint?, field?}` from anything, also from what a foreign program may have sent. */
export function errorFrom(body: unknown, otherwise: BackendError): BackendError {
  if (typeof body === "string" && body.trim() !== "") {
    return new BackendError(otherwise.code, body, otherwise.hint);
  }
  if (typeof body !== "object" || body === null) return otherwise;
  const { code, message, hint, field } = body as Record<string, unknown>;
  if (typeof message !== "string" || message === "") return otherwise;
  return new BackendError(
    typeof code === "string" && code !== "" ? code : otherwise.code,
    message,
    typeof hint === "string" ? hint : "",
    typeof field === "string" ? field : null,
  );
}

/** The rules a prompt must meet before it is sent. The core checks again; here it is to tell early. */

/** Longest prompt the core accepts, in bytes (`domain::command::PROMPT_BYTES_MAX`). */
export const PROMPT_BYTES_MAX = 64 * 1024;

const encoder = new TextEncoder();

/** Why this text cannot be sent, or null. */
export function promptFault(text: string): string | null {
  if (text.trim() === "") return "Nothing to send yet.";
  const bytes = encoder.encode(text).length;
  if (bytes > PROMPT_BYTES_MAX) {
    return `Too long: ${Math.ceil(bytes / 1024)} KiB of at most ${PROMPT_BYTES_MAX / 1024} KiB. Put long text into a file of the repository and name it here.`;
  }
  return null;
}

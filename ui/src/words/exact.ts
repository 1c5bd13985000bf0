/**
 * Text of an agent as it really is. A command that a person is asked to allow must not be able to hide a part of
 * itself: characters that draw nothing, or that turn the order of letters round, are shown by their names.
 */

export interface Run {
  text: string;
  /** The character has no picture of its own, and `text` is its name. */
  named: boolean;
}

/**
 * Control characters (but the line feed and the tab), soft hyphen, bidirectional controls, zero-width characters,
 * blanks that are no blank, Hangul fillers, line separators, interlinear marks and tags.
 */
const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

const ZERO_WIDTH_JOINER = "\u200d";

const NAMES: Record<number, string> = {
  0x00: "NUL",
  0x07: "BEL",
  0x08: "BS",
  0x0d: "CR",
  0x1b: "ESC",
  0x7f: "DEL",
  0xa0: "NBSP",
};

/** Splits a text into what can be seen and what had to be named. */
export function exactRuns(text: string): Run[] {
  const runs: Run[] = [];
  // A line that ends with both is a line that ends.
  const plain = text.replaceAll("\r\n", "\n");
  let from = 0;
  for (const found of plain.matchAll(UNSEEN)) {
    if (found[0] === ZERO_WIDTH_JOINER && joinsPictures(plain, found.index)) continue;
    if (found.index > from) runs.push({ text: plain.slice(from, found.index), named: false });
    runs.push({ text: nameOf(found[0]), named: true });
    from = found.index + found[0].length;
  }
  if (from < plain.length) runs.push({ text: plain.slice(from), named: false });
  return runs;
}

/** Between two pictures the joiner makes one of them, which can be seen. */
function joinsPictures(text: string, at: number): boolean {
  const before = text.slice(Math.max(0, at - 2), at);
  return /[\p{Extended_Pictographic}\p{Emoji_Modifier}\ufe0f]$/u.test(before) && /^\p{Extended_Pictographic}/u.test(text.slice(at + 1, at + 3));
}

/** The same on one line, for lists and for screen readers. */
export function exactLine(text: string): string {
  return exactRuns(text.trim())
    .map((run) => (run.named ? `[${run.text}]` : run.text))
    .join("")
    .replace(/\s+/g, " ");
}

function nameOf(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  return NAMES[code] ?? `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
}

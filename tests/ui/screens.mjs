/** What a session's terminal shows in the fake core: drawn like an agent program draws, colours and gaps included. */

const ESC = "\x1b[";
const dim = (text) => `${ESC}2m${text}${ESC}22m`;
const bold = (text) => `${ESC}1m${text}${ESC}22m`;
const colour = (code, text) => `${ESC}38;5;${code}m${text}${ESC}39m`;

/** A welcome, a finished turn with a diff and a table, an input box at the bottom. */
export function agentScreen(cols) {
  const width = Math.max(20, Math.min(cols, 200));
  const rule = dim("─".repeat(width));
  const lines = [
    "",
    ` ${colour(174, "▐▛███▜▌")}   ${bold("Agent Program")} ${dim("v2.1")}`,
    ` ${colour(174, "▝▜█████▛▘")}  ${dim("~/worktrees/sample/mina-7f3a")}`,
    "",
    `${dim("❯")} Make the header sticky on small screens`,
    "",
    `${colour(35, "●")} I look at the header first.`,
    "",
    `${colour(35, "●")} ${bold("Read")}(ui/src/Header.svelte)`,
    `  ${dim("⎿  Read 48 lines")}`,
    "",
    `${colour(35, "●")} ${bold("Update")}(ui/src/Header.svelte)`,
    `  ${dim("⎿  Added 2 lines, removed 1 line")}`,
    `      ${dim("12")}   header {`,
    `      ${ESC}48;5;52m${ESC}97m13 -   position: static;       ${ESC}0m`,
    `      ${ESC}48;5;22m${ESC}97m13 +   position: sticky;       ${ESC}0m`,
    `      ${ESC}48;5;22m${ESC}97m14 +   top: 0;                 ${ESC}0m`,
    `      ${dim("15")}   }`,
    "",
    `${colour(35, "●")} 좁은 화면에서 머리글이 고정됩니다. ✓ https://example.com/preview`,
    "",
    "  ┌──────────┬───────┐",
    `  │ ${bold("width")}    │ ${bold("stays")} │`,
    "  ├──────────┼───────┤",
    `  │ 320 px   │ ${ESC}32myes${ESC}39m   │`,
    `  │ 720 px   │ ${ESC}32myes${ESC}39m   │`,
    `  │ 1280 px  │ ${ESC}33mno${ESC}39m    │`,
    "  └──────────┴───────┘",
    "",
    `  ${bold("[SEMO:DONE]")}`,
    "",
    rule,
    "❯ ",
    rule,
    `  ${dim("? for shortcuts")}`,
  ];
  return `${ESC}?2004h${lines.join("\r\n")}${ESC}2A${ESC}3G`;
}

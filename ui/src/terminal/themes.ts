/** Colours of the terminal in both themes. The sixteen are chosen to be read on their own background. */

import type { ITheme } from "@xterm/xterm";

export const DARK: ITheme = {
  background: "#0e1116",
  foreground: "#d9dee6",
  cursor: "#9fb3ff",
  cursorAccent: "#0e1116",
  selectionBackground: "#2f4470",
  black: "#1b2028",
  red: "#ff7b72",
  green: "#6bc77f",
  yellow: "#d9a94a",
  blue: "#79b0ff",
  magenta: "#c9a0ff",
  cyan: "#62c6d1",
  white: "#c8cfd9",
  brightBlack: "#737d8c",
  brightRed: "#ffa198",
  brightGreen: "#8bdb9b",
  brightYellow: "#ecc46c",
  brightBlue: "#a5caff",
  brightMagenta: "#dcc0ff",
  brightCyan: "#8adbe4",
  brightWhite: "#ffffff",
};

export const LIGHT: ITheme = {
  background: "#fcfcfd",
  foreground: "#252b34",
  cursor: "#3b5bdb",
  cursorAccent: "#ffffff",
  selectionBackground: "#c9d6ff",
  black: "#252b34",
  red: "#c0332b",
  green: "#1a7f37",
  yellow: "#8a5a00",
  blue: "#1f5fc4",
  magenta: "#7d3fc0",
  cyan: "#0f7480",
  // Light on purpose: agents print white on dark fields of their own. On the page itself it is darkened until legible.
  white: "#d5dae2",
  brightBlack: "#6f7886",
  brightRed: "#d8453c",
  brightGreen: "#22913f",
  brightYellow: "#9c6700",
  brightBlue: "#2f72dd",
  brightMagenta: "#9152d6",
  brightCyan: "#15838f",
  brightWhite: "#ffffff",
};

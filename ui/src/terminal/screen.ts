/**
 * One live terminal in one element: xterm.js with the stream of a session behind it. Made when a session is shown,
 * disposed of when it is not: a hidden terminal would only cost memory, and the core can draw it anew at any time.
 */

import { FitAddon } from "@xterm/addon-fit";
import { SearchAddon } from "@xterm/addon-search";
import { Unicode11Addon } from "@xterm/addon-unicode11";
import { WebLinksAddon } from "@xterm/addon-web-links";
import { Terminal } from "@xterm/xterm";

import type { Backend } from "../backend";
import { DrawnBytes } from "./flow";
import { swallowQueries } from "./queries";
import { DARK, LIGHT } from "./themes";

/** Lines kept above the screen; the core keeps more. */
const SCROLLBACK_LINES = 5_000;
/** Resizing ends this long after the last change of the window: agents redraw everything on each size. */
const RESIZE_SETTLE_MS = 80;
const FONTS = '"JetBrains Mono", "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", "Noto Sans Mono CJK KR", monospace';

/** RIS: everything back to the beginning, scrollback included. */
const RESET = "\x1bc";

export interface ScreenEvents {
  onConnected(connected: boolean): void;
  onExited(code: number | null): void;
}

export interface Screen {
  focus(): void;
  setDark(dark: boolean): void;
  /** Finds the next or previous place of `text`; false when there is none. */
  find(text: string, direction: "next" | "previous"): boolean;
  clearFind(): void;
  /** The session is over; see `TerminalStream.settle`. */
  settle(): void;
  dispose(): void;
}

export interface ScreenOptions {
  element: HTMLElement;
  backend: Backend;
  sessionId: string;
  dark: boolean;
  /** What a screen reader calls the input. */
  label: string;
  events: ScreenEvents;
}

export function openScreen(options: ScreenOptions): Screen {
  const { element, backend } = options;
  const terminal = newTerminal(options.dark, backend);
  const fit = new FitAddon();
  const search = new SearchAddon();
  terminal.loadAddon(fit);
  terminal.loadAddon(search);
  terminal.loadAddon(new Unicode11Addon());
  terminal.unicode.activeVersion = "11";
  terminal.loadAddon(new WebLinksAddon((_event, url) => backend.openExternal(url)));
  swallowQueries(terminal);
  terminal.open(element);
  terminal.textarea?.setAttribute("aria-label", options.label);
  terminal.attachCustomKeyEventHandler((event) => isForTheAgent(event, terminal));

  const drawn = new DrawnBytes((bytes) => stream.acknowledge(bytes));
  let fitted = false;
  let disposed = false;

  function fitToElement() {
    if (disposed || element.clientWidth === 0 || element.clientHeight === 0) return;
    const before = { cols: terminal.cols, rows: terminal.rows };
    fit.fit();
    if (!fitted || terminal.cols !== before.cols || terminal.rows !== before.rows) {
      fitted = true;
      stream.resize(terminal.cols, terminal.rows);
    }
  }

  const stream = backend.openTerminal(options.sessionId, {
    onSnapshot(bytes, cols, rows) {
      drawn.restart();
      // Older output may still wait to be drawn, so the reset stands in line with it.
      terminal.write(RESET, () => {
        terminal.resize(Math.max(2, cols), Math.max(1, rows));
        fitted = false;
      });
      terminal.write(bytes, fitToElement);
    },
    onOutput(bytes) {
      terminal.write(bytes, () => drawn.drawn(bytes.length));
    },
    onExited: (code) => options.events.onExited(code),
    onConnected: (connected) => options.events.onConnected(connected),
  });

  const encoder = new TextEncoder();
  terminal.onData((text) => stream.send(encoder.encode(text)));
  terminal.onBinary((bytes) => stream.send(Uint8Array.from(bytes, (character) => character.charCodeAt(0) & 0xff)));

  let settling: ReturnType<typeof setTimeout> | null = null;
  const resizes = new ResizeObserver(() => {
    if (settling !== null) clearTimeout(settling);
    settling = setTimeout(fitToElement, RESIZE_SETTLE_MS);
  });
  resizes.observe(element);

  return {
    focus: () => terminal.focus(),
    setDark(dark) {
      terminal.options.theme = dark ? DARK : LIGHT;
    },
    find: (text, direction) => (direction === "next" ? search.findNext(text) : search.findPrevious(text)),
    clearFind: () => terminal.clearSelection(),
    settle: () => stream.settle(),
    dispose() {
      disposed = true;
      if (settling !== null) clearTimeout(settling);
      resizes.disconnect();
      stream.close();
      terminal.dispose();
    },
  };
}

/** Almost every key is the agent's; these few belong to the window. */
function isForTheAgent(event: KeyboardEvent, terminal: Terminal): boolean {
  // F6 moves between the parts of the window, also out of here, where Tab belongs to the agent.
  if (event.key === "F6") return false;
  // Ctrl+C interrupts the agent, so copying is Ctrl+Shift+C, as in other terminals.
  if (event.ctrlKey && event.shiftKey && event.code === "KeyC") {
    event.preventDefault();
    if (event.type === "keydown" && terminal.hasSelection()) document.execCommand("copy");
    return false;
  }
  return true;
}

function newTerminal(dark: boolean, backend: Backend): Terminal {
  return new Terminal({
    allowProposedApi: true, // wanted by the unicode addon
    cursorBlink: false, // a blinking cursor keeps an idle window busy
    cursorInactiveStyle: "outline",
    fontFamily: FONTS,
    fontSize: 13,
    lineHeight: 1.2,
    minimumContrastRatio: 4.5,
    scrollback: SCROLLBACK_LINES,
    theme: dark ? DARK : LIGHT,
    // OSC 8 hyperlinks; other schemes than http(s) are not links (xterm's default, and the backend checks again).
    linkHandler: { activate: (_event, url) => backend.openExternal(url) },
  });
}

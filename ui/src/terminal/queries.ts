/**
 * A viewer is not the terminal: the core's own screen is. When an agent asks its terminal something (device
 * attributes, cursor position, colours), every open viewer would answer, late, into the agent's input line. So the
 * questions are swallowed here.
 */

import type { IDisposable, Terminal } from "@xterm/xterm";

const CSI_QUERIES = [
  { final: "c" },
  { prefix: ">", final: "c" },
  { prefix: "=", final: "c" },
  { final: "n" },
  { prefix: "?", final: "n" },
  { intermediates: "$", final: "p" },
  { prefix: "?", intermediates: "$", final: "p" },
  { prefix: ">", final: "q" },
  { prefix: "?", final: "u" },
  { final: "t" },
];
/** Palette, foreground, background, cursor colour: asked with a `?`, set otherwise. */
const OSC_COLOURS = [4, 10, 11, 12];
/** Clipboard: neither written nor read on an agent's word. */
const OSC_CLIPBOARD = 52;

export function swallowQueries(terminal: Terminal): IDisposable[] {
  const parser = terminal.parser;
  return [
    ...CSI_QUERIES.map((id) => parser.registerCsiHandler(id, () => true)),
    parser.registerDcsHandler({ intermediates: "$", final: "q" }, () => true),
    parser.registerDcsHandler({ intermediates: "+", final: "q" }, () => true),
    ...OSC_COLOURS.map((code) => parser.registerOscHandler(code, (data) => data.split(";").includes("?"))),
    parser.registerOscHandler(OSC_CLIPBOARD, () => true),
  ];
}

/** The core's connection to its office, in truthful words. */

import type { Connection, Profile } from "../backend";
import { hostOf } from "./profile";
import { elapsed } from "./time";
import type { Tone } from "./tone";

export interface ConnectionWords {
  label: string;
  detail: string;
  tone: Tone;
}

/** From here on it is worth telling for how long there has been no connection. */
const LONG_MS = 60_000;

export function connectionWords(connection: Connection, profile: Profile, now: number): ConnectionWords {
  const words = stateWords(connection, profile);
  const lasts = now - connection.since;
  if (connection.status === "live" || lasts < LONG_MS) return words;
  return { ...words, label: `${words.label.replace(/…$/, "")}, for ${elapsed(lasts)}` };
}

function stateWords(connection: Connection, profile: Profile): ConnectionWords {
  const where = profile.kind === "this_machine" ? "on this machine" : `at ${hostOf(profile.url)}`;
  const why = connection.why ?? "";
  switch (connection.status) {
    case "live":
      return { label: "Connected", detail: why || `Office server ${where}`, tone: "good" };
    case "connecting":
      return { label: "Connecting…", detail: why || `Office server ${where}`, tone: "progress" };
    case "joining":
      return { label: "Joining the office…", detail: why || "Connected, but not proven yet that doorbells come through; commands are fetched by asking", tone: "progress" };
    case "backoff":
      return { label: "Not connected, trying again", detail: why || `No answer ${where}`, tone: "attention" };
    case "offline":
      return { label: "Offline", detail: why || "No network", tone: "attention" };
    case "stopped":
      return { label: "Stopped", detail: why || "No commands are taken", tone: "bad" };
  }
}

/** Times for people. Everything takes `now`, so that nothing here reads a clock. Milliseconds since 1970. */

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** “just now”, “4 min ago”. The office's clock may be ahead of ours: the future is “just now”. */
export function ago(then: number, now: number): string {
  const passed = now - then;
  if (passed < 10 * SECOND) return "just now";
  if (passed < MINUTE) return `${Math.floor(passed / SECOND)} s ago`;
  if (passed < HOUR) return `${Math.floor(passed / MINUTE)} min ago`;
  if (passed < DAY) return `${Math.floor(passed / HOUR)} h ago`;
  const days = Math.floor(passed / DAY);
  return days === 1 ? "yesterday" : `${days} days ago`;
}

/**
 * How long something has been going on: “12 s”, “3 min”, “1 h 12 min”. Coarse on purpose: after the first minute the
 * text, and with it the picture, changes once a minute and not once a second.
 */
export function elapsed(ms: number): string {
  const passed = Math.max(0, ms);
  if (passed < MINUTE) return `${Math.floor(passed / SECOND)} s`;
  if (passed < HOUR) return `${Math.floor(passed / MINUTE)} min`;
  return `${Math.floor(passed / HOUR)} h ${Math.floor((passed % HOUR) / MINUTE)} min`;
}

/** “0.8 s”, “12 s”, “3 min 05 s”, “1 h 12 min”. */
export function duration(ms: number): string {
  const passed = Math.max(0, ms);
  if (passed < 10 * SECOND) return `${(Math.floor(passed / 100) / 10).toFixed(1)} s`;
  if (passed < MINUTE) return `${Math.floor(passed / SECOND)} s`;
  if (passed < HOUR) {
    const seconds = Math.floor((passed % MINUTE) / SECOND);
    return `${Math.floor(passed / MINUTE)} min ${String(seconds).padStart(2, "0")} s`;
  }
  return `${Math.floor(passed / HOUR)} h ${Math.floor((passed % HOUR) / MINUTE)} min`;
}

const MOMENT = /\b\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:\d{2})/g;

/** Moments in a sentence of the core, as the clock on this machine shows them. */
export function withClocks(text: string, now: number): string {
  return text.replace(MOMENT, (moment) => {
    const ms = Date.parse(moment);
    return Number.isNaN(ms) ? moment : clock(ms, now);
  });
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** The time of day on this machine: “03:14”, on another day than `now` “22 Nov 03:14”; with seconds for logs. */
export function clock(ms: number, now: number, precision: "minutes" | "seconds" = "minutes"): string {
  const date = new Date(ms);
  const today = new Date(now);
  const two = (value: number) => String(value).padStart(2, "0");
  const seconds = precision === "seconds" ? `:${two(date.getSeconds())}` : "";
  const time = `${two(date.getHours())}:${two(date.getMinutes())}${seconds}`;
  if (date.toDateString() === today.toDateString()) return time;
  const year = date.getFullYear() === today.getFullYear() ? "" : ` ${date.getFullYear()}`;
  return `${date.getDate()} ${MONTHS[date.getMonth()] ?? ""}${year} ${time}`;
}

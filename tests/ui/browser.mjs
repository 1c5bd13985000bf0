/** Headless Chromium, the one the machine has, with an empty profile and nothing that looks outside. */

import { existsSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

const CANDIDATES = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export const ARTIFACTS = join(dirname(fileURLToPath(import.meta.url)), "artifacts");

export async function openBrowser() {
  const executablePath = CANDIDATES.find((path) => path && existsSync(path));
  if (executablePath === undefined) throw new Error("no Chromium found: install the package `chromium`, or set CHROMIUM");
  mkdirSync(ARTIFACTS, { recursive: true });
  return chromium.launch({ executablePath, headless: true, args: FLAGS });
}

/** A page that fails the test on any script error, refused resource or broken policy. */
export async function openPage(browser, { url, theme = "dark", width = 1360, height = 820, errorsExpected = false }) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: theme, reducedMotion: "reduce" });
  const page = await context.newPage();
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(`script error: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error" && !errorsExpected) page.faults.push(`console: ${message.text()}`);
  });
  await page.goto(url);
  return page;
}

export async function shoot(page, name) {
  await page.screenshot({ path: join(ARTIFACTS, `${name}.png`) });
}

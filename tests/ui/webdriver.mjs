/**
 * The desktop window through WebKitWebDriver: the few calls of the W3C WebDriver protocol that the story needs. The
 * driver starts the app itself, as its own child, with the environment given here.
 */

import { spawn } from "node:child_process";
import { createServer } from "node:net";

import { stopTree } from "./processes.mjs";
import { waitUntil } from "./wait.mjs";

const CALL_TIMEOUT_MS = 60_000;
const ELEMENT = "element-6066-11e4-a52e-4f735466cecf";
/** Code points of the WebDriver protocol for keys without a letter. */
export const KEYS = { enter: "\uE007", escape: "\uE00C", control: "\uE009", f6: "\uE036" };

/** Opens `application` and takes its window. */
export async function openApp({ application, args = [], env }) {
  const port = await freePort();
  const driver = spawn("WebKitWebDriver", [`--port=${port}`, "--host=127.0.0.1"], {
    // wry lets itself be driven only when it is told so.
    env: { ...env, TAURI_AUTOMATION: "true", TAURI_WEBVIEW_AUTOMATION: "true" },
    detached: true,
    stdio: ["ignore", "inherit", "inherit"],
  });
  const window = new Window(`http://127.0.0.1:${port}`, driver);
  try {
    await waitUntil("WebKitWebDriver answers", async () => (await window.call("GET", "/status", null, "")).ready);
    await window.open(application, args);
  } catch (error) {
    await window.close();
    throw error;
  }
  return window;
}

class Window {
  #base;
  #driver;
  #session = "";

  constructor(base, driver) {
    this.#base = base;
    this.#driver = driver;
  }

  async open(application, args) {
    const capabilities = { alwaysMatch: { "webkitgtk:browserOptions": { binary: application, args } } };
    const { sessionId } = await this.call("POST", "/session", { capabilities }, "");
    this.#session = `/session/${sessionId}`;
  }

  async call(method, path, body = null, session = this.#session) {
    const response = await fetch(this.#base + session + path, {
      method,
      ...(method === "GET" ? {} : { body: JSON.stringify(body ?? {}), headers: { "content-type": "application/json" } }),
      signal: AbortSignal.timeout(CALL_TIMEOUT_MS),
    });
    const { value } = await response.json();
    if (!response.ok) throw new Error(`WebDriver ${method} ${path}: ${value?.error}: ${value?.message}`);
    return value;
  }

  async find(css) {
    return (await this.call("POST", "/element", { using: "css selector", value: css }))[ELEMENT];
  }

  /** The first button whose text or label contains `text`. */
  async findButton(text) {
    const words = JSON.stringify(text);
    const value = `//button[contains(normalize-space(.), ${words}) or contains(@aria-label, ${words})]`;
    return (await this.call("POST", "/element", { using: "xpath", value }))[ELEMENT];
  }

  click(element) {
    return this.call("POST", `/element/${element}/click`);
  }

  type(element, text) {
    return this.call("POST", `/element/${element}/value`, { text });
  }

  resize(width, height) {
    return this.call("POST", "/window/rect", { width, height });
  }

  run(script, ...args) {
    return this.call("POST", "/execute/sync", { script, args });
  }

  async screenshot() {
    return Buffer.from(await this.call("GET", "/screenshot"), "base64");
  }

  async close() {
    if (this.#session !== "") await this.call("DELETE", "").catch(() => {});
    await stopTree(this.#driver);
  }
}

function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

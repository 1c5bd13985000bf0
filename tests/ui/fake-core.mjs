/**
 * A stand-in for the core's local API, for states of the window that are hard to provoke with the real one. It speaks
 * the same contract (ui/src/backend/types.ts) and serves ui/dist. The real core is tested by story.mjs.
 *
 * By hand: `node fake-core.mjs live` prints the address of that scenario.
 */

import { createHmac, randomBytes } from "node:crypto";
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

import { WebSocketServer } from "ws";

import { ASK_SCENARIOS } from "./scenarios-asks.mjs";
import { LIFE_SCENARIOS } from "./scenarios-life.mjs";
import { EXPLANATION, PRESERVED, TRUTH_SCENARIOS } from "./scenarios-truth.mjs";
import { command, SCENARIOS as BASIC_SCENARIOS, session } from "./scenarios.mjs";
import { agentScreen } from "./screens.mjs";

export const SCENARIOS = { ...BASIC_SCENARIOS, ...ASK_SCENARIOS, ...TRUTH_SCENARIOS, ...LIFE_SCENARIOS };

const DIST = join(dirname(fileURLToPath(import.meta.url)), "../../ui/dist");
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
/** The policy that the real core sends; a UI that breaks it must fail here, too. */
const CSP =
  "default-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'";

/** The size a session has before a window says otherwise. */
const SIZE = { cols: 120, rows: 40 };

export async function startFakeCore(name) {
  const scenario = SCENARIOS[name];
  if (scenario === undefined) throw new Error(`no scenario ${name}; there are: ${Object.keys(SCENARIOS).join(", ")}`);
  const core = new FakeCore(scenario);
  await core.listen();
  return core;
}

class FakeCore {
  token = randomBytes(32).toString("hex");
  /** What arrived, for tests to look at. */
  seen = { typed: "", resizes: [], acks: [], rpc: [], stops: [] };
  /** What a method says instead, once: name → {status, body}, or a promise of it. */
  instead = {};
  #events = new Set();
  #terminals = new Set();
  #server = createServer((request, response) => this.#http(request, response));
  #sockets = new WebSocketServer({ noServer: true, handleProtocols: () => "semo.v1" });

  constructor(scenario) {
    this.scenario = scenario;
    this.state = structuredClone(scenario.state ?? SCENARIOS["first-start"].state);
    this.accepts = true;
  }

  async listen(port = 0) {
    this.#server.on("upgrade", (request, socket, head) => this.#upgrade(request, socket, head));
    await new Promise((ready) => this.#server.listen(port, "127.0.0.1", ready));
    this.port = this.#server.address().port;
  }

  get url() {
    const token = { "wrong-token": "wrong", "no-token": null }[this.scenario.link] ?? this.token;
    const fragment = this.scenario.link === "no-token" ? "" : `#token=${token}`;
    return `http://127.0.0.1:${this.port}/${fragment}`;
  }

  /** Changes the state and tells every window. */
  push(change) {
    change(this.state);
    for (const socket of this.#events) this.#send(socket, { type: "state", state: this.state });
  }

  /** Drops all streams and takes no new ones until `restore`. */
  lose() {
    this.accepts = false;
    for (const socket of [...this.#events, ...this.#terminals]) socket.terminate();
  }

  restore() {
    this.accepts = true;
  }

  exit(sessionId, code) {
    for (const socket of this.#terminals) this.#send(socket, { type: "exited", code });
    this.push((state) => {
      for (const one of state.sessions) if (one.id === sessionId) one.state = { state: "exited", code };
    });
  }

  output(text) {
    for (const socket of this.#terminals) socket.send(Buffer.from(text));
  }

  get terminals() {
    return this.#terminals.size;
  }

  async close() {
    for (const socket of [...this.#events, ...this.#terminals]) socket.terminate();
    this.#server.closeAllConnections();
    await new Promise((closed) => this.#server.close(closed));
  }

  #send(socket, message) {
    if (socket.readyState === socket.OPEN) socket.send(JSON.stringify(message));
  }

  #http(request, response) {
    const { pathname, searchParams } = new URL(request.url, "http://core");
    if (!pathname.startsWith("/api/")) return this.#file(pathname, response);
    if (!this.accepts || this.scenario.link === "unreachable") return request.socket.destroy();
    if (pathname === "/api/v1/proof") {
      const asked = `semo core\n${this.port}\n${searchParams.get("nonce")}`;
      return json(response, 200, { proof: createHmac("sha256", this.token).update(asked).digest("hex") });
    }
    if (request.headers.authorization !== `Bearer ${this.token}`) {
      return json(response, 401, { code: "unauthorized", message: "wrong token", hint: "" });
    }
    if (pathname === "/api/v1/state") return json(response, 200, this.state);
    if (pathname === "/api/v1/stop") return this.#stop(request, response);
    const method = pathname.match(/^\/api\/v1\/rpc\/(\w+)$/)?.[1];
    if (method === undefined) return json(response, 404, { code: "not_found", message: "no such address", hint: "" });
    let body = "";
    request.on("data", (chunk) => (body += chunk));
    request.on("end", () => this.#rpc(method, JSON.parse(body), response));
  }

  /** An end is told to every window; the fake itself stays. */
  #stop(request, response) {
    let body = "";
    request.on("data", (chunk) => (body += chunk));
    request.on("end", () => {
      const { how } = JSON.parse(body);
      this.seen.stops.push(how);
      this.push((state) => (state.ending = { how, turns: state.ending?.turns ?? 2 }));
      json(response, 202, { how });
    });
  }

  async #rpc(method, params, response) {
    this.seen.rpc.push({ method, params });
    const { [method]: instead } = this.instead;
    if (instead !== undefined) {
      delete this.instead[method];
      const { status, body } = await instead;
      return json(response, status, body);
    }
    if (method === "send_prompt" && params.prompt.includes("refuse me")) {
      return json(response, 409, {
        code: "session_limit",
        message: "No session is free for this agent.",
        hint: "End one of the six sessions, then send it again.",
      });
    }
    if (method === "create_session") {
      const created = command({ kind: method, agent_id: params.agent_id, session_id: null, summary: "Start a session", prompt: null });
      this.push((state) => {
        state.commands.unshift({ ...created, status: "succeeded", outcome: "ok", session_id: "s-new" });
        state.sessions.push(session({ id: "s-new", agent_id: params.agent_id, started_at: Date.now() }));
      });
      return json(response, 200, { command_id: created.id });
    }
    if (method === "send_prompt") {
      const sent = command({ ...params, marker: undefined, summary: params.prompt.split("\n")[0], created_at: Date.now() });
      this.push((state) => state.commands.unshift(sent));
      return json(response, 200, { command_id: sent.id });
    }
    if (method === "select_office") this.push((state) => (state.office = state.offices.find((one) => one.id === params.office_id)));
    if (method === "terminate") this.exit(params.session_id, 0);
    if (method === "answer_ask") this.closeAsk(params.ask_id);
    json(response, 200, {
      command_id: null,
      explanation: method === "explain" ? EXPLANATION : null,
      preserved: method === "list_preserved" ? PRESERVED : null,
      note: method === "restore_preserved" ? `14 files are in the new branch \`${params.to_branch}\` of ${params.repository}` : null,
    });
  }

  /** The ask is over, whoever answered it; its session works on. `how` is told only where the core knows it. */
  closeAsk(id, how = null) {
    this.push((state) => {
      const closed = state.asks.find((one) => one.id === id);
      if (how !== null) state.closed_asks.unshift({ ...closed, how, closed_at: Date.now() });
      state.asks = state.asks.filter((one) => one !== closed);
      const waited = state.sessions.find((one) => one.id === closed?.session_id);
      if (waited !== undefined) Object.assign(waited, { state: { state: "working", turn: "t-9" }, asks: null, ask: null });
    });
  }

  /** An ask comes up. */
  raise(ask) {
    this.push((state) => {
      state.asks.push(ask);
      const waiting = state.sessions.find((one) => one.id === ask.session_id);
      if (waiting === undefined) return;
      Object.assign(waiting, { state: { state: "awaiting_person", turn: "t-9", ask: ask.kind }, asks: ask.text, ask });
    });
  }

  #file(pathname, response) {
    const path = join(DIST, normalize(pathname === "/" ? "/index.html" : pathname));
    if (!path.startsWith(DIST) || !existsSync(path) || !statSync(path).isFile()) return json(response, 404, {});
    response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "application/octet-stream", "content-security-policy": CSP });
    createReadStream(path).pipe(response);
  }

  #upgrade(request, socket, head) {
    const protocols = (request.headers["sec-websocket-protocol"] ?? "").split(/,\s*/);
    if (!this.accepts || this.scenario.link === "unreachable") return socket.destroy();
    if (!protocols.includes(`token.${this.token}`)) return socket.end("HTTP/1.1 401 Unauthorized\r\n\r\n");
    this.#sockets.handleUpgrade(request, socket, head, (opened) => {
      const { pathname } = new URL(request.url, "http://core");
      if (pathname === "/api/v1/events") this.#onEvents(opened);
      else this.#onTerminal(opened, pathname.split("/")[4]);
    });
  }

  #onEvents(socket) {
    this.#events.add(socket);
    socket.on("close", () => this.#events.delete(socket));
    this.#send(socket, { type: "state", state: this.state });
  }

  #onTerminal(socket, id) {
    const shown = this.state.sessions.find((one) => one.id === id);
    if (shown === undefined) return socket.close(4404, "no such session");
    this.#terminals.add(socket);
    socket.on("close", () => this.#terminals.delete(socket));
    this.#send(socket, { type: "snapshot", offset: 0, ...SIZE });
    socket.send(Buffer.from(agentScreen(SIZE.cols)));
    socket.on("message", (data, isBinary) => {
      if (isBinary) {
        const typed = data.toString("utf8");
        this.seen.typed += typed;
        socket.send(Buffer.from(typed.replaceAll("\r", "\r\n"))); // echo, as a terminal would
        return;
      }
      const message = JSON.parse(data.toString());
      if (message.type === "resize") {
        this.seen.resizes.push({ cols: message.cols, rows: message.rows });
        socket.send(Buffer.from(`\x1b[2J\x1b[3J\x1b[H${agentScreen(message.cols)}`)); // agents redraw on a new size
      }
      if (message.type === "ack") this.seen.acks.push(message.bytes);
    });
  }
}

function json(response, status, body) {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const core = await startFakeCore(process.argv[2] ?? "live");
  console.log(core.url);
}

/** A hub as a process of its own for one test file, with the tables of the stories; its clients, people and database. */

import { spawn } from "node:child_process";
import { createHmac, randomUUID } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { createClient } from "@supabase/supabase-js";
import pg from "pg";
import ws from "ws";

import { waitUntil } from "./wait.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const ROOT = join(HERE, "..", "..", "..");
const PROGRAM = process.env.SEMO_PROGRAM ?? join(ROOT, "target", "debug", "semo");
/** A first start makes a database; on a busy machine that takes a while. */
const START_MS = 90_000;
const STOP_MS = 30_000;
export const PASSWORD = "a-long-password-of-a-story";

/** A port that was free a moment ago: a hub that is started again must have the one it had. */
async function freePort() {
  const server = createServer();
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

export class TestHub {
  /** `env`: settings of the hub, as `{SEMO_HUB_SIGN_UP: "true"}`. `port`: when it is to be started again. */
  static async start({ env = {}, again = false } = {}) {
    if (!existsSync(PROGRAM)) throw new Error(`${PROGRAM} is not built: cargo build -p cli -p terminal`);
    const hub = new TestHub();
    hub.folder = mkdtempSync(join(tmpdir(), "semo-clients-"));
    hub.env = env;
    hub.port = again ? await freePort() : 0;
    hub.clients = [];
    await hub.run();
    hub.keys = JSON.parse(readFileSync(join(hub.folder, "data", "hub", "hub.json"), "utf8"));
    hub.admin = hub.client({ key: hub.keys.secret });
    await hub.sql(readFileSync(join(HERE, "..", "schema.sql"), "utf8"));
    await waitUntil("the schema cache has the new tables", async () => {
      const { error } = await hub.client().from("catalogue").select("id").limit(1);
      return error === null;
    });
    return hub;
  }

  async run() {
    const env = {
      ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("SEMO_"))),
      SEMO_HUB_LISTEN: `127.0.0.1:${this.port}`,
      SEMO_CONFIG_DIR: join(this.folder, "config"),
      SEMO_DATA_DIR: join(this.folder, "data"),
      ...this.env,
    };
    const child = spawn(PROGRAM, ["hub", "--json"], { env, stdio: ["ignore", "pipe", "pipe"] });
    this.child = child;
    this.lines = [];
    this.log = [];
    child.on("error", (error) => this.log.push(error.message));
    createInterface({ input: child.stdout }).on("line", (line) => this.lines.push(line));
    createInterface({ input: child.stderr }).on("line", (line) => this.log.push(line));
    const said = await waitUntil("semo hub says where it is", () => {
      if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}: ${this.log.slice(-5).join("\n")}`);
      return this.lines.length > 0 && JSON.parse(this.lines[0]);
    }, START_MS);
    this.url = said.url;
    this.publishable = said.publishable_key;
    const database = await this.database();
    this.db = new pg.Client(database);
    this.db.on("error", () => {}); // its end is the hub's
    await this.db.connect();
  }

  /** Where the hub's own Postgres listens: beside its data, or where the log says that it had to be put. */
  async database() {
    const elsewhere = this.log.map((line) => /"cluster":"([^"]+)"/.exec(line)?.[1]).find(Boolean);
    const root = elsewhere ?? join(this.folder, "data", "hub");
    this.elsewhere = elsewhere ?? this.elsewhere;
    const [, , , port, socket] = readFileSync(join(root, "postgres", "postmaster.pid"), "utf8").split("\n");
    return { host: socket, port: Number(port), user: "supabase_admin", database: "postgres" };
  }

  /** As the database's superuser. Several statements at once when there are no values. */
  async sql(text, values) {
    const result = await this.db.query(text, values);
    return Array.isArray(result) ? result.at(-1).rows : result.rows;
  }

  /** A client of the official library. `token`: a JWT instead of a sign-in. */
  client({ key = this.publishable, vsn = "2.0.0", token, realtime = {}, ...options } = {}) {
    const made = createClient(this.url, key, {
      auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false, storageKey: randomUUID() },
      realtime: { transport: ws, vsn, heartbeatIntervalMs: 5_000, ...realtime },
      ...(token === undefined ? {} : { accessToken: typeof token === "function" ? token : async () => token }),
      ...options,
    });
    this.clients.push(made);
    return made;
  }

  /** A new account with its address. */
  async account(name = "person") {
    const email = `${name}-${randomUUID().slice(0, 8)}@example.test`;
    const { data, error } = await this.admin.auth.admin.createUser({ email, password: PASSWORD, email_confirm: true });
    if (error) throw error;
    return { email, id: data.user.id };
  }

  /** Somebody who is signed in: `{client, id, email, session}`. */
  async person(options = {}) {
    const account = await this.account(options.name);
    const client = this.client(options);
    const { data, error } = await client.auth.signInWithPassword({ email: account.email, password: PASSWORD });
    if (error) throw error;
    return { ...account, client, session: data.session };
  }

  /** A token as a server of the team signs it, with the legacy secret. */
  token(claims, lifeS = 3600) {
    const now = Math.floor(Date.now() / 1000);
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const head = part({ alg: "HS256", typ: "JWT" });
    const body = part({ role: "authenticated", aud: "authenticated", iat: now, exp: now + lifeS, ...claims });
    const signature = createHmac("sha256", this.keys.jwt_secret).update(`${head}.${body}`).digest("base64url");
    return `${head}.${body}.${signature}`;
  }

  /** Ends the process as an operator does, and waits for it. */
  async end() {
    await this.db.end().catch(() => {});
    const { child } = this;
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGTERM");
    await waitUntil("the hub ends", () => child.exitCode !== null || child.signalCode !== null, STOP_MS).catch((error) => {
      child.kill("SIGKILL");
      throw error;
    });
  }

  /** The same hub again, after `end`. */
  async again() {
    await this.run();
  }

  async stop() {
    for (const client of this.clients) {
      client.realtime.disconnect();
    }
    try {
      await this.end();
    } finally {
      rmSync(this.folder, { recursive: true, force: true });
      if (this.elsewhere !== undefined) rmSync(this.elsewhere, { recursive: true, force: true });
    }
  }
}

/** The official client in a page: what node does not show, CORS and the browser's own WebSocket. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { openBrowser, openPage } from "../../ui/browser.mjs";
import { PASSWORD, TestHub } from "./hub.mjs";

/** What a page without a build step loads: the library as one script. */
const LIBRARY = fileURLToPath(new URL("../node_modules/@supabase/supabase-js/dist/umd/supabase.js", import.meta.url));

let hub, server, browser;
before(async () => {
  hub = await TestHub.start({ env: { SEMO_HUB_PUBLIC_CHANNELS: "true" } });
  const library = readFileSync(LIBRARY);
  server = createServer((request, response) => {
    const script = request.url === "/supabase.js";
    response.writeHead(200, { "content-type": script ? "text/javascript" : "text/html" });
    response.end(script ? library : '<!doctype html><link rel="icon" href="data:,"><script src="/supabase.js"></script>');
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  browser = await openBrowser();
});
after(async () => {
  await browser?.close();
  server?.close();
  await hub?.stop();
});

test("a page of another origin signs in, reads, writes, calls, counts and hears", async () => {
  const { email, id } = await hub.account();
  const page = await openPage(browser, { url: `http://127.0.0.1:${server.address().port}/` });
  const seen = await page.evaluate(
    async ({ url, key, email, password }) => {
      const client = globalThis.supabase.createClient(url, key);
      const signedIn = await client.auth.signInWithPassword({ email, password });
      const inserted = await client.from("todos").insert({ task: "from a page" }).select().single();
      const counted = await client.from("todos").select("task", { count: "exact" }).range(0, 0);
      const who = await client.rpc("who");
      const refused = await client.from("catalogue").select("no_such_column");
      const heard = new Promise((hear) => {
        const channel = client.channel("open:page", { config: { private: true, broadcast: { self: true, ack: true } } });
        channel.on("broadcast", { event: "hi" }, ({ payload }) => hear(payload));
        client.realtime.setAuth().then(() =>
          channel.subscribe((status) => status === "SUBSCRIBED" && channel.send({ type: "broadcast", event: "hi", payload: { a: 1 } })),
        );
      });
      const room = client.channel("open:page2", { config: { private: true } });
      return {
        user: signedIn.data.user?.id,
        task: inserted.data?.task,
        count: counted.count,
        who: who.data?.id,
        refused: refused.error?.code,
        heard: await heard,
        sent: await room.httpSend("hi", { b: 2 }),
        out: (await client.auth.signOut()).error,
      };
    },
    { url: hub.url, key: hub.publishable, email, password: PASSWORD },
  );
  assert.deepEqual(seen, {
    user: id, task: "from a page", count: 1, who: id, refused: "42703", heard: { a: 1 }, sent: { success: true }, out: null,
  });
  const faults = page.faults.filter((fault) => !fault.includes("400 (Bad Request)"));
  assert.deepEqual(faults, []);
});

test("the secret key is worth nothing in a page", async () => {
  const page = await openPage(browser, { url: `http://127.0.0.1:${server.address().port}/`, errorsExpected: true });
  const status = await page.evaluate(
    async ({ url, key }) => (await globalThis.supabase.createClient(url, key).from("secrets").select()).status,
    { url: hub.url, key: hub.keys.secret },
  );
  assert.equal(status, 401);
});

/** Channels, with realtime-js in both serializers: broadcast, private channels, presence, replay, tokens. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { PASSWORD, TestHub } from "./hub.mjs";
import { heard, hears, join } from "./rooms.mjs";
import { waitUntil } from "./wait.mjs";

let hub;
let room = 0;
before(async () => {
  hub = await TestHub.start({ env: { SEMO_HUB_PUBLIC_CHANNELS: "true" } });
});
after(() => hub?.stop());

/** A topic nobody else uses. */
const topic = (kind = "open") => `${kind}:${(room += 1)}`;
const priv = (more = {}) => ({ private: true, ...more });
/** Comes after all that was sent before it, so that what did not come by then never will. */
async function mark(from, to) {
  const event = `mark-${(room += 1)}`;
  await from.channel.send({ type: "broadcast", event, payload: {} });
  for (const one of to) await hears(one, event);
}

for (const vsn of ["1.0.0", "2.0.0"]) {
  describe(`serializer ${vsn}`, () => {
    const options = { vsn };

    test("others hear a broadcast, the sender only when it asks for that, and only who asks is answered", async () => {
      const name = topic("public");
      const quiet = await join(hub.client(options), name);
      const loud = await join(hub.client(options), name, { config: { broadcast: { self: true, ack: true } } });
      assert.equal(await loud.channel.send({ type: "broadcast", event: "hi", payload: { a: [1, "ü", null] } }), "ok");
      assert.deepEqual(await hears(loud, "hi"), [{ a: [1, "ü", null] }]);
      assert.deepEqual(await hears(quiet, "hi"), [{ a: [1, "ü", null] }]);
      assert.equal(await quiet.channel.send({ type: "broadcast", event: "back", payload: {} }), "ok");
      await hears(loud, "back");
      await mark(loud, [quiet]);
      assert.deepEqual(heard(quiet, "back"), []);
    });

    test("a channel of one socket does not hear another's, and switching channels keeps the socket", async () => {
      const client = hub.client(options);
      const [one, two] = [topic("public"), topic("public")];
      const first = await join(client, one);
      const second = await join(client, two);
      const other = await join(hub.client(options), two);
      await other.channel.send({ type: "broadcast", event: "only two", payload: {} });
      await hears(second, "only two");
      assert.deepEqual(first.broadcasts, []);
      assert.equal(await client.removeChannel(first.channel), "ok");
      assert.ok(first.statuses.some(([status]) => status === "CLOSED"));
      const third = await join(client, one);
      assert.equal(client.realtime.isConnected(), true);
      await mark(other, [second]);
      assert.equal(third.channel.state, "joined");
      await client.removeAllChannels();
      await waitUntil("the socket is closed", () => !client.realtime.isConnected());
    });

    test("a message by HTTP reaches the room it is meant for, public or private", async () => {
      const name = topic();
      const { client } = await hub.person(options);
      const open = await join(hub.client(options), name);
      const closed = await join(client, name, { config: priv() });
      const sender = await hub.person(options);
      await sender.client.realtime.setAuth();
      const toOpen = hub.client(options).channel(name);
      const toClosed = sender.client.channel(name, { config: priv() });
      assert.deepEqual(await toOpen.httpSend("public word", { a: 1 }), { success: true });
      assert.deepEqual(await toClosed.httpSend("private word", { b: 2 }), { success: true });
      assert.deepEqual(await hears(open, "public word"), [{ a: 1 }]);
      assert.deepEqual(await hears(closed, "private word"), [{ b: 2 }]);
      assert.equal(await toOpen.send({ type: "broadcast", event: "not joined", payload: { c: 3 } }), "ok");
      assert.deepEqual(await hears(open, "not joined"), [{ c: 3 }]);
      const stranger = hub.client(options).channel(name, { config: priv() });
      await assert.rejects(stranger.httpSend("evil", {}), /403|Forbidden|Unauthorized|permission/i);
      assert.deepEqual([heard(open, "private word"), heard(closed, "public word")], [[], []]);
    });

    test("a private channel is for those whom a policy lets in", async () => {
      const name = topic();
      const { client } = await hub.person(options);
      const inside = await join(client, name, { config: priv({ broadcast: { self: true } }) });
      await inside.channel.send({ type: "broadcast", event: "word", payload: { a: 1 } });
      await hears(inside, "word");
      const stranger = await join(hub.client(options), name, { config: priv(), expected: "CHANNEL_ERROR" });
      assert.match(stranger.statuses[0][1], /Unauthorized: You do not have permissions to read from this Channel topic: open:/);
      const elsewhere = await join(client, topic("closed"), { config: priv(), expected: "CHANNEL_ERROR" });
      assert.match(elsewhere.statuses[0][1], /Unauthorized/);
      await stranger.client.removeAllChannels();
      await client.removeChannel(elsewhere.channel);
    });

    test("who may only listen sends nothing, and is not told", async () => {
      const name = topic("listen");
      const [a, b] = [await hub.person(options), await hub.person(options)];
      const first = await join(a.client, name, { config: priv() });
      const second = await join(b.client, name, { config: priv() });
      await first.channel.send({ type: "broadcast", event: "denied", payload: {} });
      await hub.sql("select realtime.send('{\"from\": \"the database\"}', 'allowed', $1, true)", [name]);
      const [payload] = await hears(second, "allowed");
      assert.equal(payload.from, "the database");
      assert.deepEqual(heard(second, "denied"), []);
    });

    test("the database sends messages and changed rows", async () => {
      const { client } = await hub.person(options);
      const seen = await join(client, "open:messages", { config: priv() });
      await hub.sql("insert into public.messages (id, title) values ($1, 'by trigger')", [9000 + Number(vsn[0])]);
      const [change] = await hears(seen, "INSERT");
      assert.equal(change.record.title, "by trigger");
      assert.deepEqual([change.operation, change.table, change.schema, change.old_record], ["INSERT", "messages", "public", null]);
      await hub.sql("select realtime.send('{\"n\": 1}'::jsonb, 'from sql', 'open:messages', true)");
      const [sent] = await hears(seen, "from sql");
      assert.equal(sent.n, 1);
      assert.ok(sent.id);
      await hub.sql("select realtime.send('{\"n\": 2}'::jsonb, 'to the public', 'open:messages', false)");
      await hub.sql("select realtime.send('{}'::jsonb, 'last', 'open:messages', true)");
      await hears(seen, "last");
      assert.deepEqual(heard(seen, "to the public"), []);
    });

    test("a room knows who is in it, what they changed, and who left", async () => {
      const name = topic();
      const people = [await hub.person(options), await hub.person(options)];
      const enter = ({ client }, key) => join(client, name, { config: priv({ presence: { key } }) });
      const ada = await enter(people[0], "ada");
      assert.equal(await ada.channel.track({ at: "door" }), "ok");
      const ben = await enter(people[1], "ben");
      const present = () => Object.fromEntries(Object.entries(ben.channel.presenceState()).map(([key, [meta]]) => [key, meta.at]));
      await waitUntil("Ben sees Ada", () => present().ada === "door");
      await ben.channel.track({ at: "table" });
      await waitUntil("Ada sees Ben", () => ada.channel.presenceState().ben?.[0].at === "table");
      assert.ok(ada.presence.some(({ event, key, newPresences }) => event === "join" && key === "ben" && newPresences[0].at === "table"));
      await ada.channel.track({ at: "window" });
      await waitUntil("Ben sees Ada's change", () => present().ada === "window");
      await ben.channel.untrack();
      await waitUntil("Ben is no longer shown", () => ada.channel.presenceState().ben === undefined);
      await ada.channel.unsubscribe();
      await waitUntil("Ben sees Ada leave", () => present().ada === undefined);
      assert.ok(ben.presence.some(({ event, key }) => event === "leave" && key === "ada"));
    });

    test("a channel closes when its token runs out, and stays when it is given a new one in time", async () => {
      const { id } = await hub.person(options);
      const short = () => hub.token({ sub: id }, 4);
      const left = await join(hub.client({ ...options, token: short() }), topic(), { config: priv() });
      let token = short();
      const client = hub.client({ ...options, token: async () => token });
      const name = topic();
      const kept = await join(client, name, { config: priv() });
      token = hub.token({ sub: id });
      await client.realtime.setAuth();
      await waitUntil("the one whose token ran out is closed", () => left.statuses.some(([status]) => status === "CLOSED"));
      assert.match(left.system.at(-1).message, /Token has expired \d+ seconds ago/);
      await hub.sql("select realtime.send('{}'::jsonb, 'still here', $1, true)", [name]);
      await hears(kept, "still here");
      assert.deepEqual(kept.statuses, [["SUBSCRIBED", undefined]]);
    });

    test("a token that is not good cannot join, and says so", async () => {
      const client = hub.client({ ...options, token: hub.token({ sub: "00000000-0000-4000-8000-000000000001" }, -60) });
      const refused = await join(client, topic(), { config: priv(), expected: "CHANNEL_ERROR" });
      assert.match(refused.statuses[0][1], /InvalidJWTToken: Token has expired \d+ seconds ago/);
      await client.removeAllChannels();
    });

    test("who comes later is given the newest messages again, once and oldest first", async () => {
      const name = topic();
      for (const n of [1, 2, 3]) await hub.sql("select realtime.send($1::jsonb, 'kept', $2, true)", [JSON.stringify({ n }), name]);
      const { client } = await hub.person(options);
      const since = Date.now() - 60_000;
      const late = await join(client, name, { config: priv({ broadcast: { replay: { since, limit: 2 } } }) });
      const again = await hears(late, "kept", 2);
      assert.deepEqual(again.map(({ n }) => n), [2, 3]);
      assert.ok(late.broadcasts.every(({ meta }) => meta.replayed === true && meta.id));
      await hub.sql("select realtime.send('{\"n\": 4}', 'kept', $1, true)", [name]);
      assert.deepEqual((await hears(late, "kept", 3)).map(({ n }) => n), [2, 3, 4]);
      const open = { config: { broadcast: { replay: { since, limit: 2 } } } };
      assert.throws(() => hub.client(options).channel(name, open), /replay on public channel/);
    });
  });
}

test("a message reaches both serializers, whichever it was sent in and however", async () => {
  const name = topic("public");
  const rooms = [await join(hub.client({ vsn: "1.0.0" }), name), await join(hub.client({ vsn: "2.0.0" }), name)];
  for (const [at, sender] of rooms.entries()) {
    const event = `from ${at}`;
    await sender.channel.send({ type: "broadcast", event, payload: { at } });
    assert.deepEqual(await hears(rooms[1 - at], event), [{ at }]);
  }
  await hub.client().channel(name).httpSend("by http", { x: 1 });
  for (const one of rooms) assert.deepEqual(await hears(one, "by http"), [{ x: 1 }]);
});

test("bytes stay bytes: by socket, by HTTP and from the database, and old sockets are not harmed", async () => {
  const name = topic();
  const [a, b, c] = [await hub.person(), await hub.person(), await hub.person({ vsn: "1.0.0" })];
  const sender = await join(a.client, name, { config: priv({ broadcast: { ack: true } }) });
  const receiver = await join(b.client, name, { config: priv() });
  const old = await join(c.client, name, { config: priv() });
  const bytes = (payload) => [...new Uint8Array(payload)];
  assert.equal(await sender.channel.send({ type: "broadcast", event: "bytes", payload: new Uint8Array([1, 2, 255]).buffer }), "ok");
  assert.deepEqual((await hears(receiver, "bytes")).map(bytes), [[1, 2, 255]]);
  assert.deepEqual(await sender.channel.httpSend("by http", new Uint8Array([0, 7]).buffer), { success: true });
  assert.deepEqual((await hears(receiver, "by http")).map(bytes), [[0, 7]]);
  await hub.sql("select realtime.send_binary('\\x0102'::bytea, 'from sql', $1, true)", [name]);
  assert.deepEqual((await hears(receiver, "from sql")).map(bytes), [[1, 2]]);
  await mark(sender, [receiver, old]);
  assert.deepEqual(old.broadcasts.map(({ event }) => event).filter((event) => !event.startsWith("mark")), []);
});

test("a user who signs in on an open client joins, and keeps the channel through a refresh", async () => {
  const { email } = await hub.account();
  const client = hub.client();
  await client.auth.signInWithPassword({ email, password: PASSWORD });
  const inside = await join(client, topic(), { config: priv() });
  assert.equal(inside.statuses[0][0], "SUBSCRIBED");
  const { data } = await client.auth.refreshSession();
  await client.realtime.setAuth(data.session.access_token);
  await mark(inside, []);
  assert.deepEqual(inside.statuses, [["SUBSCRIBED", undefined]]);
});

test("too large a message is refused to who asks, and the socket lives on", async () => {
  const name = topic("public");
  const sender = await join(hub.client(), name, { config: { broadcast: { ack: true } } });
  const other = await join(hub.client(), name);
  const large = { text: "x".repeat(3_100_000) };
  assert.equal(await sender.channel.send({ type: "broadcast", event: "large", payload: large }), "error");
  await mark(sender, [other]);
  assert.deepEqual(heard(other, "large"), []);
});

test("heartbeats are answered", async () => {
  const beats = [];
  const client = hub.client({ realtime: { heartbeatIntervalMs: 300 } });
  client.realtime.onHeartbeat((status) => beats.push(status));
  await join(client, topic("public"));
  await waitUntil("two beats are answered", () => beats.filter((status) => status === "ok").length >= 2);
  assert.ok(!beats.includes("timeout"));
});

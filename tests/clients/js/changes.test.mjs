/** Row changes and restarts, with realtime-js in both serializers. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { TestHub } from "./hub.mjs";
import { heard, hears, join, sees } from "./rooms.mjs";
import { waitUntil } from "./wait.mjs";

let hub;
before(async () => {
  hub = await TestHub.start({ env: { SEMO_HUB_PUBLIC_CHANNELS: "true" }, again: true });
});
after(() => hub?.stop());

for (const vsn of ["1.0.0", "2.0.0"]) {
  test(`${vsn}: inserts, updates and deletes come with what changed, and only what was asked for`, async () => {
    const { client, id } = await hub.person({ vsn });
    const table = { schema: "public", table: "todos" };
    const all = await join(client, `all-${vsn}`, { changes: [{ event: "*", ...table }] });
    const some = await join(client, `some-${vsn}`, {
      changes: [
        { event: "INSERT", ...table, filter: "task=eq.wanted" },
        { event: "UPDATE", ...table, filter: "task=in.(wanted,changed)" },
        { event: "DELETE", ...table },
      ],
    });
    const [row] = (await client.from("todos").insert({ task: "wanted" }).select()).data;
    await client.from("todos").insert({ task: "other" });
    await client.from("todos").update({ task: "changed" }).eq("id", row.id);
    // Whether one may see a row is asked when it is told, as Supabase does: one that is gone by then is not told.
    await sees(all, 3);
    await sees(some, 2);
    await client.from("todos").delete().eq("id", row.id);
    const seen = await sees(all, 4);
    assert.deepEqual(seen.map(([type]) => type), ["INSERT", "INSERT", "UPDATE", "DELETE"]);
    assert.equal(seen[0][1].user_id, id);
    assert.deepEqual(seen[0][1], { ...row, created_at: seen[0][1].created_at });
    assert.equal(seen[2][1].task, "changed");
    assert.equal(seen[2][2].task, "wanted", "the whole old row: its replica identity is full");
    assert.deepEqual(seen[3][2], { id: row.id }, "of a deleted row under RLS only the key");
    const chosen = await sees(some, 3);
    assert.deepEqual(chosen.map(([type, now]) => [type, now.task]), [["INSERT", "wanted"], ["UPDATE", "changed"], ["DELETE", undefined]]);
    assert.deepEqual(some.changes.map(({ heardBy }) => heardBy.event), ["INSERT", "UPDATE", "DELETE"]);
    assert.ok(all.changes.every(({ errors, schema, table: name }) => errors === null && schema === "public" && name === "todos"));
  });

  test(`${vsn}: rows of others are not seen, nor those of tables one may not read`, async () => {
    const [a, b] = [await hub.person({ vsn }), await hub.person({ vsn })];
    const mine = await join(a.client, `mine-${vsn}`, { changes: [{ event: "*", schema: "public" }] });
    await hub.sql("insert into public.secrets values ($1, 'word')", [100 + Number(vsn[0])]);
    await b.client.from("todos").insert({ task: "not yours" });
    await a.client.from("todos").insert({ task: "yours" });
    const seen = await sees(mine, 1);
    assert.deepEqual(seen.map(([, now]) => now.task), ["yours"]);
  });
}

test("two tables in one channel are told apart, numbers and null keep their types", async () => {
  const { client } = await hub.person();
  const both = await join(client, "both", {
    changes: [
      { event: "INSERT", schema: "public", table: "todos" },
      { event: "INSERT", schema: "public", table: "messages" },
    ],
  });
  await client.from("messages").insert({ id: 77, title: "t", message: null });
  await client.from("todos").insert({ task: "x" });
  await sees(both, 2);
  assert.deepEqual(both.changes.map(({ table, heardBy }) => [table, heardBy.table]), [["messages", "messages"], ["todos", "todos"]]);
  assert.deepEqual(both.changes[0].new, { id: 77, title: "t", message: null });
});

test("a filter of all kinds of comparison chooses the rows", async () => {
  const { client } = await hub.person();
  const filters = ["id=lt.205", "id=gte.205", "title=neq.b", "title=in.(b,\"c,d\")", "title=like.c%", "id=gt.200,title=eq.a", "title=not.is.null"];
  const rooms = [];
  for (const filter of filters) {
    rooms.push(await join(client, `filter ${filter}`, { changes: [{ event: "INSERT", schema: "public", table: "messages", filter }] }));
  }
  for (const [id, title] of [[201, "a"], [202, "b"], [206, "c,d"]]) await client.from("messages").insert({ id, title });
  await client.from("messages").insert({ id: 199, title: null });
  const expected = [[201, 202, 199], [206], [201, 206], [202, 206], [206], [201], [201, 202, 206]];
  for (const [at, one] of rooms.entries()) {
    const seen = await sees(one, expected[at].length);
    assert.deepEqual(seen.map(([, now]) => now.id), expected[at], filters[at]);
  }
  await client.removeAllChannels();
});

test("a filter that cannot be is said, and the channel stays", async () => {
  const { client } = await hub.person();
  const channel = client.channel("wrong");
  const system = [];
  channel.on("system", {}, (message) => system.push(message));
  channel.on("postgres_changes", { event: "*", schema: "public", table: "messages", filter: "nonsense" }, () => {});
  channel.subscribe();
  await waitUntil("it is said", () => system.some(({ status }) => status === "error"));
  assert.equal(channel.state, "joined");
  await client.removeAllChannels();
});

test("SUBSCRIBED waits for the database when that is asked for", async () => {
  const { client } = await hub.person();
  const seen = [];
  const channel = client.channel("waits", { config: { postgres_changes_options: { wait: true } } });
  channel.on("postgres_changes", { event: "INSERT", schema: "public", table: "messages" }, (change) => seen.push(change.new.id));
  await new Promise((joined, failed) => channel.subscribe((status, error) => (status === "SUBSCRIBED" ? joined() : failed(error ?? status))));
  await client.from("messages").insert({ id: 301, title: "at once" });
  await waitUntil("the row is seen", () => seen.length > 0);
  assert.deepEqual(seen, [301]);
});

test("after a restart of the hub everybody is back: channels, row changes, rights, sign-in", async () => {
  const [a, b] = [await hub.person({ vsn: "1.0.0" }), await hub.person({ vsn: "2.0.0" })];
  const rooms = [];
  for (const { client } of [a, b]) {
    rooms.push(await join(client, "open:again", { config: { private: true }, changes: [{ event: "INSERT", schema: "public", table: "messages" }] }));
  }
  await hub.end();
  for (const room of rooms) await waitUntil("the end is seen", () => room.statuses.some(([status]) => status === "CHANNEL_ERROR"));
  assert.ok(rooms.every(({ statuses }) => !statuses.some(([status]) => status === "CLOSED")), "nobody is told that the channel is over");
  for (const room of rooms) room.system.length = 0;
  await hub.again();
  for (const room of rooms) {
    const joins = () => room.statuses.filter(([status]) => status === "SUBSCRIBED").length;
    await waitUntil("it is joined again", () => joins() === 2, 30_000);
    await waitUntil("it follows the database again", () => room.system.some(({ status }) => status === "ok"));
  }
  await a.client.from("messages").insert({ id: 401, title: "after" });
  await rooms[0].channel.send({ type: "broadcast", event: "back", payload: { ok: true } });
  for (const room of rooms) assert.deepEqual((await sees(room, 1)).map(([, now]) => now.id), [401]);
  assert.deepEqual(await hears(rooms[1], "back"), [{ ok: true }]);
  assert.deepEqual(heard(rooms[0], "back"), []);
  const { data, error } = await b.client.auth.refreshSession();
  assert.equal(error, null);
  assert.equal(data.user.id, b.id);
});

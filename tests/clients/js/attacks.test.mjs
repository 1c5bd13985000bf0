/** What somebody with nothing but the publishable key must not be able to do to an office, tried with the official client. */

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";

import { TestHub } from "./hub.mjs";
import { heard, hears, join } from "./rooms.mjs";
import { waitUntil } from "./wait.mjs";

const TABLES = ["offices", "office_members", "agents", "clients", "sessions", "agent_commands", "agent_command_results", "session_asks"];
const UNKNOWN = "11111111-2222-4333-8444-555555555555";

let hub, attacker, owner, office, command, lease;
const topic = () => `office:${office}:commands`;

before(async () => {
  hub = await TestHub.start({ env: { SEMO_HUB_PUBLIC_CHANNELS: "true" } });
  attacker = hub.client();
  owner = await hub.person();
  const call = async (name, args) => {
    const { data, error } = await owner.client.rpc(name, args);
    assert.equal(error, null, `${name}: ${JSON.stringify(error)}`);
    return data;
  };
  office = (await call("create_office", { p_name: "Target" })).id;
  const client = randomUUID();
  await call("register_client", { p_office: office, p_client: client, p_name: "machine" });
  command = (await call("enqueue_command", { p_office: office, p_kind: "prompt", p_args: { text: "secret words" }, p_key: "k1" })).id;
  const [claimed] = await call("claim_commands", { p_office: office, p_client: client });
  assert.equal(claimed.id, command);
  lease = claimed.lease_token ?? randomUUID();
});
after(() => hub?.stop());

/** The office's functions with arguments that would be right for a member of `target`. */
const calls = (target) => ({
  enqueue_command: { p_office: target, p_kind: "prompt", p_args: {}, p_key: "evil" },
  claim_commands: { p_office: target, p_client: UNKNOWN },
  renew_lease: { p_command: command, p_token: lease },
  begin_command: { p_command: command, p_token: lease },
  complete_command: { p_command: command, p_token: lease, p_result: randomUUID(), p_status: "succeeded" },
  cancel_command: { p_command: command },
  create_office: { p_name: "mine" },
});

test("1: reads no row of any table, whichever way it asks", async () => {
  for (const table of TABLES) {
    const ways = {
      rows: attacker.from(table).select(),
      counted: attacker.from(table).select("*", { count: "exact" }),
      head: attacker.from(table).select("*", { count: "exact", head: true }),
      csv: attacker.from(table).select().csv(),
      one: attacker.from(table).select().limit(1).maybeSingle(),
    };
    for (const [way, call] of Object.entries(ways)) {
      const { data, count, error, status } = await call;
      assert.ok(error !== null && data === null && count === null, `${table} by ${way}: ${JSON.stringify({ data, count })}`);
      assert.equal(status, 401, `${table} by ${way}`);
    }
  }
  const embedded = await attacker.from("offices").select("name, agent_commands(args), office_members(user_id)");
  assert.equal(embedded.error.code, "42501");
});

test("2: writes to no table", async () => {
  for (const table of TABLES) {
    const ways = {
      insert: attacker.from(table).insert({ id: randomUUID() }),
      upsert: attacker.from(table).upsert({ id: office }),
      update: attacker.from(table).update({ id: randomUUID() }).neq("id", UNKNOWN),
      delete: attacker.from(table).delete().neq("id", UNKNOWN),
    };
    for (const [way, call] of Object.entries(ways)) {
      const { error, data } = await call;
      assert.ok(error !== null && data === null, `${table} by ${way}`);
    }
  }
  const [{ name }] = await hub.sql("select name from public.offices where id = $1", [office]);
  assert.equal(name, "Target");
});

test("3: calls none of the functions", async () => {
  for (const [name, args] of Object.entries(calls(office))) {
    const { error, status } = await attacker.rpc(name, args);
    assert.deepEqual([status, error?.code], [401, "42501"], name);
  }
  const [{ state }] = await hub.sql("select state from public.agent_commands where id = $1", [command]);
  assert.equal(state, "leased");
});

test("4: does not join the office's channel, and the public one of that name is another room", async () => {
  const inside = await join(owner.client, topic(), { config: { private: true } });
  const refused = await join(attacker, topic(), { config: { private: true }, expected: "CHANNEL_ERROR" });
  assert.match(refused.statuses[0][1], /Unauthorized/);
  await attacker.removeAllChannels();
  const outside = await join(attacker, topic());
  await hub.sql("select realtime.send('{}', 'command', $1, true)", [topic()]);
  await hears(inside, "command");
  await outside.channel.httpSend("marker", {});
  await join(hub.client(), topic()).then(({ channel }) => channel.send({ type: "broadcast", event: "end", payload: {} }));
  await hears(outside, "end");
  assert.deepEqual(heard(outside, "command"), []);
  await attacker.removeAllChannels();
  await owner.client.removeAllChannels();
});

test("5: neither rings nor shows itself in the office's channel, by socket or by HTTP", async () => {
  const inside = await join(owner.client, topic(), { config: { private: true, presence: { key: "owner" } } });
  const before = inside.broadcasts.length;
  const channel = attacker.channel(topic(), { config: { private: true } });
  await channel.send({ type: "broadcast", event: "evil", payload: {} });
  await assert.rejects(channel.httpSend("evil", {}));
  await attacker.removeAllChannels();
  const open = await join(attacker, topic(), { config: { presence: { key: "ghost" } } });
  await open.channel.send({ type: "broadcast", event: "evil", payload: {} });
  await open.channel.track({ here: true });
  await hub.sql("select realtime.send('{}', 'after', $1, true)", [topic()]);
  await hears(inside, "after");
  assert.deepEqual(inside.broadcasts.slice(before).map(({ event }) => event).filter((event) => event === "evil"), []);
  assert.deepEqual(Object.keys(inside.channel.presenceState()), []);
  await attacker.removeAllChannels();
  await owner.client.removeAllChannels();
});

test("6: follows no table", async () => {
  const seen = [];
  const system = [];
  const channel = attacker.channel("follow");
  channel.on("system", {}, (message) => system.push(message));
  for (const table of TABLES) channel.on("postgres_changes", { event: "*", schema: "public", table }, (change) => seen.push(change));
  channel.subscribe();
  await waitUntil("it is answered", () => system.length > 0);
  const { error } = await owner.client.rpc("enqueue_command", { p_office: office, p_kind: "prompt", p_args: { text: "x" }, p_key: "k2" });
  assert.equal(error, null);
  // Told after the rows of the office, to everybody: when it is there, the others would have been.
  const last = await join(owner.client, "marker", { changes: [{ event: "INSERT", schema: "public", table: "todos" }] });
  await owner.client.from("todos").insert({ task: "end" });
  await waitUntil("what comes after it is seen", () => last.changes.length === 1);
  for (const change of seen) assert.deepEqual([change.new, change.old], [{}, {}], "nothing of a row");
  await attacker.removeAllChannels();
});

test("7: does not learn whether an office is there", async () => {
  for (const client of [attacker, (await hub.person()).client]) {
    const [here, nowhere] = [calls(office), calls(UNKNOWN)];
    for (const name of ["enqueue_command", "claim_commands"]) {
      const answers = [];
      for (const args of [here[name], nowhere[name]]) {
        const { error, status } = await client.rpc(name, args);
        answers.push({ status, ...error });
      }
      assert.ok(answers[0].code, name);
      assert.deepEqual(answers[0], answers[1], name);
    }
    const [one, other] = [await client.from("offices").select().eq("id", office), await client.from("offices").select().eq("id", UNKNOWN)];
    assert.deepEqual([one.status, one.data, one.error?.code], [other.status, other.data, other.error?.code]);
  }
});

test("8: does not become a member", async () => {
  const { data, error } = await attacker.auth.signUp({ email: "evil@example.test", password: "a-long-password-of-evil" });
  assert.deepEqual([data.session, error.code], [null, "signup_disabled"]);
  const stranger = await hub.person({ name: "stranger" });
  const { error: refused } = await stranger.client.from("office_members").insert({ office_id: office, user_id: stranger.id, role: "owner" });
  assert.equal(refused.code, "42501");
  await stranger.client.auth.updateUser({ data: { role: "service_role", office_id: office, app_metadata: { role: "owner" } } });
  await stranger.client.auth.refreshSession();
  assert.deepEqual((await stranger.client.from("offices").select()).data, []);
});

test("9: is not told which tables and functions there are", async () => {
  for (const key of [hub.publishable, hub.keys.anon_jwt]) {
    const answer = await fetch(`${hub.url}/rest/v1/`, { headers: { apikey: key, authorization: `Bearer ${key}` } });
    assert.ok([401, 403, 404].includes(answer.status), `${answer.status}`);
    assert.doesNotMatch(await answer.text(), /enqueue_command|agent_commands/);
  }
});

test("10: is not given old messages", async () => {
  await hub.sql("select realtime.send('{\"old\": true}', 'command', $1, true)", [topic()]);
  const config = { private: true, broadcast: { replay: { since: 1, limit: 25 } } };
  const refused = await join(attacker, topic(), { config, expected: "CHANNEL_ERROR" });
  assert.match(refused.statuses[0][1], /Unauthorized/);
  assert.deepEqual(refused.broadcasts, []);
  const read = await attacker.schema("realtime").from("messages").select();
  assert.equal(read.error.code, "PGRST106");
});

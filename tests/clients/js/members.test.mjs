/**
 * What people with an account must not be able to do, tried with the official client: the owner of another office, a
 * viewer, an operator, a device, somebody who was dismissed. Whatever they are answered, the office must be as before.
 */

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";

import { TestHub } from "./hub.mjs";
import { heard, join, sees } from "./rooms.mjs";
import { waitUntil } from "./wait.mjs";

const TABLES = ["offices", "office_members", "agents", "clients", "sessions", "agent_commands", "agent_command_results", "session_asks"];

let hub, office, elsewhere, agent, machine, command, lease, session, ask;
const people = {};
const topic = (id = office) => `office:${id}:commands`;

async function call(person, name, args) {
  const { data, error } = await person.client.rpc(name, args);
  assert.equal(error, null, `${name}: ${JSON.stringify(error)}`);
  return data;
}

async function admit(person, role) {
  await hub.sql("insert into public.office_members (office_id, user_id, role) values ($1, $2, $3)", [office, person.id, role]);
}

before(async () => {
  hub = await TestHub.start();
  for (const name of ["owner", "operator", "viewer", "device", "removed", "foreigner"]) people[name] = await hub.person({ name });
  office = (await call(people.owner, "create_office", { p_name: "Target" })).id;
  elsewhere = (await call(people.foreigner, "create_office", { p_name: "Elsewhere" })).id;
  for (const role of ["operator", "viewer", "device"]) await admit(people[role], role);
  await admit(people.removed, "operator");
  await hub.sql("update public.office_members set revoked_at = now() where user_id = $1", [people.removed.id]);
  [agent, machine, session, ask] = [randomUUID(), randomUUID(), randomUUID(), randomUUID()];
  await call(people.owner, "upsert_agent", { p_office: office, p_agent: agent, p_role: "builder", p_name: "Ada" });
  await call(people.device, "register_client", { p_office: office, p_client: machine, p_name: "machine" });
  command = (await call(people.owner, "enqueue_command", { p_office: office, p_kind: "prompt", p_args: { text: "secret words" }, p_key: "k1" })).id;
  const [claimed] = await call(people.device, "claim_commands", { p_office: office, p_client: machine });
  assert.equal(claimed.id, command);
  lease = claimed.lease_token;
  assert.ok(lease);
});
after(() => hub?.stop());

/** Everything the office has, as its database has it. */
async function everything() {
  const rows = {};
  for (const table of TABLES) {
    const of = table === "offices" ? "id" : table === "agent_command_results" ? "command_id" : "office_id";
    const key = of === "command_id" ? command : office;
    rows[table] = (await hub.sql(`select coalesce(jsonb_agg(to_jsonb(t) order by to_jsonb(t)::text), '[]') as rows from public.${table} t where ${of} = $1`, [key]))[0].rows;
  }
  [rows.leases] = await hub.sql("select coalesce(jsonb_agg(to_jsonb(t)), '[]') as rows from private.command_leases t where command_id = $1", [command]);
  return rows;
}

/** Every function of the office, with arguments that would be right for whoever may call it. */
const calls = () => ({
  upsert_agent: { p_office: office, p_agent: randomUUID(), p_role: "evil", p_name: "Evil" },
  register_client: { p_office: office, p_client: randomUUID(), p_name: "evil" },
  upsert_session: { p_session: session, p_office: office, p_client: machine, p_agent: agent, p_state: "working" },
  enqueue_command: { p_office: office, p_kind: "prompt", p_args: { text: "rm -rf /" }, p_key: randomUUID() },
  claim_commands: { p_office: office, p_client: machine },
  renew_lease: { p_command: command, p_token: lease },
  begin_command: { p_command: command, p_token: lease },
  complete_command: { p_command: command, p_token: lease, p_result: randomUUID(), p_status: "succeeded" },
  cancel_command: { p_command: command },
  upsert_ask: { p_ask: ask, p_office: office, p_client: machine, p_session: session, p_agent: agent, p_command: command, p_kind: "permission", p_tool: "Bash", p_text: "evil" },
  close_ask: { p_ask: ask, p_state: "withdrawn" },
  update_office_settings: { p_office: office, p_settings: {} },
  prove_doorbell: { p_office: office, p_nonce: randomUUID() },
});

/** Whether a call brought nothing: an error, or the answer that an unknown command gets, too. */
function isNothing({ data, error }) {
  const nothing = [null, false, "late", "lost", '[]', '[{"held":false,"cancel":true}]'];
  return error !== null || nothing.includes(data) || nothing.includes(JSON.stringify(data));
}

/** What each of them may do; all the rest must change nothing. */
const MAY = {
  foreigner: [],
  removed: [],
  viewer: [],
  operator: ["enqueue_command", "cancel_command", "prove_doorbell"],
};

for (const [who, may] of Object.entries(MAY)) {
  test(`${who}: calls no function that is not for them, whatever they know`, async () => {
    const before = await everything();
    for (const [name, args] of Object.entries(calls())) {
      if (may.includes(name)) continue;
      const { data, error, status } = await people[who].client.rpc(name, args);
      assert.ok(status < 500 && error?.code !== "PGRST202", `${name}: ${status} ${JSON.stringify(error)}`);
      assert.ok(isNothing({ data, error }), `${who} called ${name}: ${JSON.stringify(data)}`);
      assert.doesNotMatch(JSON.stringify({ data, error }), /secret words/);
      // Nor does the answer say whether there is such a command or office.
      const unknown = Object.fromEntries(Object.entries(args).map(([key, value]) => [key, [office, command].includes(value) ? randomUUID() : value]));
      if (who === "foreigner" || who === "removed") {
        const other = await people[who].client.rpc(name, unknown);
        assert.deepEqual({ data, error, status }, { data: other.data, error: other.error, status: other.status }, name);
      }
    }
    assert.deepEqual(await everything(), before);
  });
}

test("device: tells the office nothing to do, and cannot end what another device has taken", async () => {
  const other = await hub.person({ name: "other-device" });
  await admit(other, "device");
  await call(other, "register_client", { p_office: office, p_client: randomUUID(), p_name: "other" });
  const before = await everything();
  for (const name of ["enqueue_command", "cancel_command", "upsert_agent", "update_office_settings"]) {
    const { error } = await people.device.client.rpc(name, calls()[name]);
    assert.ok(error !== null, name);
  }
  // The other one's token, stolen.
  for (const name of ["renew_lease", "begin_command", "complete_command", "claim_commands"]) {
    const { data, error } = await other.client.rpc(name, calls()[name]);
    assert.ok(isNothing({ data, error }), `${name}: ${JSON.stringify(data)}`);
  }
  assert.deepEqual(await everything(), before);
});

for (const who of ["foreigner", "removed"]) {
  test(`${who}: reads nothing of the office, whichever way`, async () => {
    const { client } = people[who];
    for (const table of TABLES) {
      const key = table === "offices" ? "id" : table === "agent_command_results" ? "command_id" : "office_id";
      const value = key === "command_id" ? command : office;
      const ways = {
        rows: client.from(table).select().eq(key, value),
        counted: client.from(table).select("*", { count: "exact" }).eq(key, value),
        head: client.from(table).select("*", { count: "exact", head: true }).eq(key, value),
        csv: client.from(table).select().eq(key, value).csv(),
        one: client.from(table).select().eq(key, value).maybeSingle(),
        "by or": client.from(table).select().or(`${key}.eq.${value},${key}.not.is.null`).eq(key, value),
      };
      for (const [way, asked] of Object.entries(ways)) {
        const { data, count, error } = await asked;
        const nothing = data === null || data.length === 0 || (way === "csv" && !data.includes(value));
        assert.ok(nothing && !count, `${table} by ${way}: ${JSON.stringify({ data, count, error })}`);
      }
    }
    const embedded = await client.from("offices").select("name, agent_commands(args), office_members(user_id), agents(name)");
    assert.doesNotMatch(JSON.stringify(embedded), /secret words|Ada|Target/);
    const through = await client.from("office_members").select("offices!inner(name, agent_commands(args))").eq("offices.id", office);
    assert.doesNotMatch(JSON.stringify(through), /secret words|Target/);
  });

  test(`${who}: writes to no table of the office`, async () => {
    const before = await everything();
    for (const table of TABLES) {
      const { client } = people[who];
      for (const [way, asked] of Object.entries({
        insert: client.from(table).insert({ id: randomUUID(), office_id: office }),
        upsert: client.from(table).upsert({ id: office, office_id: office, name: "mine" }),
        update: client.from(table).update({ office_id: elsewhere }).neq("office_id", elsewhere),
        delete: client.from(table).delete().neq("office_id", elsewhere),
      })) {
        const { error, data } = await asked;
        assert.ok(error !== null && data === null, `${table} by ${way}`);
      }
    }
    assert.deepEqual(await everything(), before);
  });

  test(`${who}: neither hears nor rings nor shows itself nor follows`, async () => {
    const inside = await join(people.owner.client, topic(), { config: { private: true } });
    const { client } = people[who];
    const refused = await join(client, topic(), { config: { private: true, presence: { key: "ghost", enabled: true } }, expected: "CHANNEL_ERROR" });
    assert.match(refused.statuses[0][1], /Unauthorized/);
    await assert.rejects(refused.channel.httpSend("evil", {}));
    await refused.channel.send({ type: "broadcast", event: "evil", payload: {} });
    await client.removeAllChannels();
    // Of all that is published; the row of its own comes after those of the office.
    const changes = [{ event: "*", schema: "public" }];
    const outside = await join(client, `open:${who}`, { config: { private: true }, changes });
    const { id } = await call(people.owner, "enqueue_command", { p_office: office, p_kind: "prompt", p_args: { text: "secret words" }, p_key: randomUUID() });
    await client.from("todos").insert({ task: "its own" });
    await waitUntil("it sees its own row", () => outside.changes.some(({ table }) => table === "todos"));
    assert.deepEqual(outside.changes.map(({ table }) => table), ["todos"]);
    await waitUntil("the bell is heard inside", () => heard(inside, "command").some((bell) => bell.id === id));
    assert.deepEqual(heard(inside, "evil"), []);
    await client.removeAllChannels();
    await people.owner.client.removeAllChannels();
  });
}

test("viewer: hears the bell, and neither rings it nor shows itself", async () => {
  const inside = await join(people.owner.client, topic(), { config: { private: true, presence: { key: "owner", enabled: true } } });
  const looking = await join(people.viewer.client, topic(), { config: { private: true, presence: { key: "viewer" } } });
  await looking.channel.send({ type: "broadcast", event: "evil", payload: {} });
  await assert.rejects(looking.channel.httpSend("evil", {}));
  assert.notEqual(await looking.channel.track({ here: true }), "ok");
  const rung = await call(people.operator, "enqueue_command", { p_office: office, p_kind: "prompt", p_args: {}, p_key: randomUUID() });
  for (const room of [inside, looking]) await waitUntil("the bell is heard", () => heard(room, "command").some(({ id }) => id === rung.id));
  assert.deepEqual(heard(inside, "evil"), []);
  assert.deepEqual(inside.channel.presenceState(), {});
  assert.doesNotMatch(JSON.stringify(looking.broadcasts), /prompt|text/, "ids only");
  await people.viewer.client.removeAllChannels();
  await people.owner.client.removeAllChannels();
});

test("a lease token is shown to nobody but its holder", async () => {
  for (const who of ["owner", "operator", "viewer", "device"]) {
    const { data } = await people[who].client.from("agent_commands").select();
    assert.ok(data.length > 0 && !JSON.stringify(data).includes(lease), who);
    const refused = await people[who].client.schema("private").from("command_leases").select();
    assert.equal(refused.error.code, "PGRST106");
  }
});

for (const vsn of ["1.0.0", "2.0.0"]) {
  test(`${vsn}: who is dismissed loses REST and the open channel at once, and nothing that comes after it is heard`, async () => {
    const leaver = await hub.person({ name: "leaver", vsn });
    await admit(leaver, "operator");
    const inside = await join(people.owner.client, topic(), { config: { private: true } });
    const changes = [{ event: "INSERT", schema: "public", table: "agent_commands" }];
    const room = await join(leaver.client, topic(), { config: { private: true }, changes });
    const enqueue = async (who, key) => call(who, "enqueue_command", { p_office: office, p_kind: "prompt", p_args: {}, p_key: `${key}-${vsn}` });
    const before = await enqueue(leaver, "before");
    await waitUntil("it hears the bell", () => heard(room, "command").some(({ id }) => id === before.id));
    await sees(room, 1);
    await hub.sql("update public.office_members set revoked_at = now() where user_id = $1", [leaver.id]);
    const after = await enqueue(people.owner, "after");
    await waitUntil("the owner hears it", () => heard(inside, "command").some(({ id }) => id === after.id));
    await waitUntil("its channel is closed", () => room.statuses.some(([status]) => status === "CLOSED"));
    assert.match(JSON.stringify(room.system.at(-1)), /You no longer have permission to read from this Channel topic/);
    assert.ok(heard(room, "command").every(({ id }) => id !== after.id));
    assert.equal(room.changes.length, 1);
    assert.deepEqual((await leaver.client.from("agent_commands").select()).data, []);
    const { error } = await leaver.client.rpc("enqueue_command", { p_office: office, p_kind: "prompt", p_args: {}, p_key: `later-${vsn}` });
    assert.equal(error.code, "42501");
    const again = await join(leaver.client, topic(), { config: { private: true }, expected: "CHANNEL_ERROR" });
    assert.match(again.statuses[0][1], /Unauthorized/);
    await leaver.client.removeAllChannels();
    await people.owner.client.removeAllChannels();
  });
}

test("who is let in again is let in", async () => {
  const back = await hub.person({ name: "back" });
  await admit(back, "viewer");
  const room = await join(back.client, topic(), { config: { private: true } });
  await hub.sql("delete from public.office_members where user_id = $1", [back.id]);
  await waitUntil("its channel is closed", () => room.statuses.some(([status]) => status === "CLOSED"));
  await admit(back, "viewer");
  const again = await join(back.client, topic(), { config: { private: true } });
  const { id } = await call(people.owner, "enqueue_command", { p_office: office, p_kind: "prompt", p_args: {}, p_key: randomUUID() });
  await waitUntil("it hears the bell", () => heard(again, "command").some((bell) => bell.id === id));
});

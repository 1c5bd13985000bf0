/** Tables and functions, with postgrest-js: reading, filters, shapes, writing, calling, errors. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { TestHub } from "./hub.mjs";
import { waitUntil } from "./wait.mjs";

let hub, anon, ada, ben;
before(async () => {
  hub = await TestHub.start();
  anon = hub.client();
  [ada, ben] = [await hub.person(), await hub.person()];
});
after(() => hub?.stop());

/** The data of an answer that must be one. */
async function good(call) {
  const { data, error } = await call;
  assert.equal(error, null, JSON.stringify(error));
  return data;
}

/** The error of an answer that must be one, with its status. */
async function bad(call, status, code) {
  const { data, error, status: got } = await call;
  assert.equal(data, null);
  assert.deepEqual({ status: got, code: error.code }, { status, code }, JSON.stringify(error));
  return error;
}

const ids = async (change) => (await good(change(anon.from("catalogue").select("id")).order("id"))).map(({ id }) => id);

test("rows are read whole, by column, renamed, cast and from inside JSON", async () => {
  const [apple] = await good(anon.from("catalogue").select().eq("id", 1));
  assert.deepEqual(apple, {
    id: 1, name: "apple", price: 1.5, tags: ["fruit", "red"], span: "[1,5)", data: { size: "small", sold: { 2026: 7 } },
    born: "2026-01-02", "odd, name": "a,b",
  });
  const rows = await good(anon.from("catalogue").select("nr:id::text, size:data->>size, data->sold, \"odd, name\"").eq("id", 1));
  assert.deepEqual(rows, [{ nr: "1", size: "small", sold: { 2026: 7 }, "odd, name": "a,b" }]);
});

test("every comparison chooses its rows", async () => {
  const cases = {
    eq: [(q) => q.eq("name", "apple"), [1]],
    neq: [(q) => q.neq("name", "apple"), [2, 3, 4]],
    gt: [(q) => q.gt("price", 1.5), [3, 4]],
    gte: [(q) => q.gte("price", 1.5), [1, 3, 4]],
    lt: [(q) => q.lt("price", 1.5), [2]],
    lte: [(q) => q.lte("price", 1.5), [1, 2]],
    like: [(q) => q.like("name", "%a%"), [2, 3, 4, 1].sort()],
    "like with a star": [(q) => q.like("name", "*pple"), [1]],
    ilike: [(q) => q.ilike("name", "b%"), [2]],
    likeAllOf: [(q) => q.likeAllOf("name", ["%a%", "%b%"]), [3]],
    likeAnyOf: [(q) => q.likeAnyOf("name", ["a%", "c%"]), [1, 3]],
    ilikeAllOf: [(q) => q.ilikeAllOf("name", ["B%", "%NA"]), [2]],
    ilikeAnyOf: [(q) => q.ilikeAnyOf("name", ["B%", "C%"]), [2, 3]],
    regexMatch: [(q) => q.regexMatch("name", "^[a-c]"), [1, 3]],
    regexIMatch: [(q) => q.regexIMatch("name", "^B"), [2]],
    "is null": [(q) => q.is("born", null), [3]],
    isDistinct: [(q) => q.isDistinct("born", "2026-01-02"), [2, 3, 4]],
    in: [(q) => q.in("name", ["apple", "date \"medjool\"", "a,b"]), [1, 4]],
    "in with commas": [(q) => q.in("\"odd, name\"", ["a,b", "(x)", "q\"q"]), [1, 3, 4]],
    notIn: [(q) => q.notIn("id", [1, 2]), [3, 4]],
    "contains array": [(q) => q.contains("tags", ["fruit"]), [1, 2]],
    "contains json": [(q) => q.contains("data", { size: "small" }), [1]],
    "contains range": [(q) => q.contains("span", "[2,3)"), [1]],
    containedBy: [(q) => q.containedBy("tags", ["fruit", "red", "round"]), [1, 4]],
    overlaps: [(q) => q.overlaps("tags", ["red", "vegetable"]), [1, 3]],
    rangeGt: [(q) => q.rangeGt("span", "[1,5)"), [2, 3]],
    rangeGte: [(q) => q.rangeGte("span", "[5,10)"), [2, 3]],
    rangeLt: [(q) => q.rangeLt("span", "[10,20)"), [1, 2]],
    rangeLte: [(q) => q.rangeLte("span", "[5,10)"), [1, 2]],
    rangeAdjacent: [(q) => q.rangeAdjacent("span", "[1,5)"), [2]],
    textSearch: [(q) => q.textSearch("name", "apple | cabbage", { config: "english" }), [1, 3]],
    "plain text": [(q) => q.textSearch("name", "medjool date", { type: "plain" }), [4]],
    phrase: [(q) => q.textSearch("name", "date medjool", { type: "phrase" }), [4]],
    websearch: [(q) => q.textSearch("name", "apple or cabbage", { type: "websearch" }), [1, 3]],
    not: [(q) => q.not("id", "in", "(1,2)"), [3, 4]],
    or: [(q) => q.or("id.eq.1,and(price.gt.1,price.lt.3),not.and(id.lt.4,id.gt.0)"), [1, 3, 4]],
    match: [(q) => q.match({ id: 1, name: "apple" }), [1]],
    filter: [(q) => q.filter("data->>size", "eq", "long"), [2]],
    json: [(q) => q.eq("data->rest->1", 2), [3]],
  };
  const seen = {};
  const expected = {};
  for (const [name, [change, wanted]] of Object.entries(cases)) {
    if (change(anon.from("catalogue").select("id")) === undefined) continue;
    seen[name] = await ids(change).catch((error) => error.message.split("\n")[0]);
    expected[name] = wanted;
  }
  assert.deepEqual(seen, expected);
});

test("rows are ordered, paged and counted", async () => {
  const byBorn = await good(anon.from("catalogue").select("id").order("born", { ascending: false, nullsFirst: true }).limit(2));
  assert.deepEqual(byBorn, [{ id: 3 }, { id: 2 }]);
  const page = await anon.from("catalogue").select("id", { count: "exact" }).order("id").range(1, 2);
  assert.deepEqual([page.data, page.count, page.status], [[{ id: 2 }, { id: 3 }], 4, 206]);
  const head = await anon.from("catalogue").select("*", { count: "exact", head: true });
  assert.deepEqual([head.data, head.count, head.error], [null, 4, null]);
  for (const count of ["planned", "estimated"]) {
    const answer = await anon.from("catalogue").select("id", { count });
    assert.equal(typeof answer.count, "number");
  }
  await bad(anon.from("catalogue").select("id", { count: "exact" }).range(90, 95), 416, "PGRST103");
});

test("one row comes as an object, none or several are an error, and maybeSingle gives null", async () => {
  const of = (...wanted) => anon.from("catalogue").select("id").in("id", wanted);
  assert.deepEqual(await good(of(1).single()), { id: 1 });
  assert.deepEqual(await good(of(1).maybeSingle()), { id: 1 });
  assert.equal(await good(of(77).maybeSingle()), null);
  const none = await bad(of(77).single(), 406, "PGRST116");
  assert.equal(none.message, "Cannot coerce the result to a single JSON object");
  assert.equal(none.details, "The result contains 0 rows");
  const two = await of(1, 2).maybeSingle();
  assert.equal(two.error.code, "PGRST116");
});

test("rows come as CSV and without nulls", async () => {
  const csv = await good(anon.from("catalogue").select("id,name,born").order("id").csv());
  assert.equal(csv, 'id,name,born\n1,apple,2026-01-02\n2,Banana,2026-02-03\n3,cabbage,\n4,"date ""medjool""",2025-12-31');
  const stripped = await good(anon.from("catalogue").select("id,born").eq("id", 3).stripNulls());
  assert.deepEqual(stripped, [{ id: 3 }]);
});

test("rows are inserted, changed, upserted and deleted, and only by who owns them", async () => {
  const { client, id } = ada;
  const [row] = await good(client.from("todos").insert({ task: "mine" }).select());
  assert.equal(row.user_id, id);
  const silent = await client.from("todos").insert([{ task: "two" }, { task: "three" }]);
  assert.deepEqual([silent.status, silent.data], [201, null]);
  assert.deepEqual(await good(ben.client.from("todos").select()), []);
  const foreign = await ben.client.from("todos").update({ task: "stolen" }).eq("id", row.id).select();
  assert.deepEqual([foreign.data, foreign.status], [[], 200]);
  assert.deepEqual(await good(ben.client.from("todos").delete().eq("id", row.id).select()), []);
  const changed = await good(client.from("todos").update({ task: "changed" }).eq("id", row.id).select("task").single());
  assert.deepEqual(changed, { task: "changed" });
  const upserted = await good(client.from("todos").upsert({ id: row.id, task: "again" }).select("id,task"));
  assert.deepEqual(upserted, [{ id: row.id, task: "again" }]);
  const ignored = await good(client.from("todos").upsert({ id: row.id, task: "ignored" }, { ignoreDuplicates: true }).select());
  assert.deepEqual(ignored, []);
  const counted = await client.from("todos").delete({ count: "exact" }).neq("task", "nothing");
  assert.deepEqual([counted.count, counted.status], [3, 204]);
});

test("what arrays leave out becomes null, or the default when that is asked for", async () => {
  const rows = [{ task: "a", is_complete: true }, { task: "b" }];
  await bad(ada.client.from("todos").insert(rows), 400, "23502");
  const made = await good(ada.client.from("todos").insert(rows, { defaultToNull: false }).select("task,is_complete").order("task"));
  assert.deepEqual(made, [{ task: "a", is_complete: true }, { task: "b", is_complete: false }]);
});

test("more rows than allowed are not changed", async () => {
  await good(ben.client.from("todos").insert([{ task: "x" }, { task: "y" }]));
  const all = () => ben.client.from("todos").update({ is_complete: true }).in("task", ["x", "y"]);
  await bad(all().maxAffected(1), 400, "PGRST124");
  assert.deepEqual(await good(ben.client.from("todos").select("is_complete").in("task", ["x", "y"])), [
    { is_complete: false },
    { is_complete: false },
  ]);
  assert.equal((await all().maxAffected(2)).error, null);
});

test("related rows come inside, filtered, renamed, joined inwardly and spread", async () => {
  const { client } = ada;
  await hub.sql("delete from public.todos");
  const made = await good(
    client.from("todos").insert([{ task: "dust", list_id: 1 }, { task: "plan", list_id: 2 }, { task: "free", list_id: null }]).select(),
  );
  const idOf = (task) => made.find((row) => row.task === task).id;
  await hub.sql("insert into public.todo_tags values ($1, 1), ($1, 2), ($2, 2)", [idOf("dust"), idOf("plan")]);
  const one = await good(client.from("todos").select("task, lists(name), tags(label)").eq("task", "dust").order("id", { referencedTable: "tags" }).single());
  assert.deepEqual(one, { task: "dust", lists: { name: "home" }, tags: [{ label: "soon" }, { label: "later" }] });
  const back = await good(client.from("lists").select("name, open:todos(task)").order("id"));
  assert.deepEqual(back, [{ name: "home", open: [{ task: "dust" }] }, { name: "work", open: [{ task: "plan" }] }]);
  const inner = await good(client.from("todos").select("task, lists!inner(name)").eq("lists.name", "work"));
  assert.deepEqual(inner, [{ task: "plan", lists: { name: "work" } }]);
  const spread = await good(client.from("todos").select("task, ...lists(where:name)").order("task"));
  assert.deepEqual(spread.map(({ where }) => where), ["home", null, "work"]);
  const limited = await good(client.from("todos").select("tags(id)").eq("task", "dust").limit(1, { referencedTable: "tags" }).order("id", { referencedTable: "tags", ascending: false }));
  assert.deepEqual(limited, [{ tags: [{ id: 2 }] }]);
  const either = await good(client.from("lists").select("name, todos!inner(task)").or("task.eq.dust,task.eq.none", { referencedTable: "todos" }));
  assert.deepEqual(either, [{ name: "home", todos: [{ task: "dust" }] }]);
  const ordered = await good(client.from("todos").select("task, lists!inner(name)").order("lists(name)", { ascending: false }));
  assert.deepEqual(ordered.map(({ task }) => task), ["plan", "dust"]);
  await bad(client.from("todos").select("secrets(word)"), 400, "PGRST200");
});

test("functions are called by POST, GET and HEAD and give what they give", async () => {
  assert.equal(await good(anon.rpc("add", { a: 1, b: 2 })), 3);
  assert.equal(await good(anon.rpc("add", { a: 1, b: 2 }, { get: true })), 3);
  const dearer = await anon.rpc("dearer_than", { p_price: 1 }, { count: "exact" }).select("id").order("id", { ascending: false }).limit(2);
  assert.deepEqual([dearer.data, dearer.count], [[{ id: 4 }, { id: 3 }], 3]);
  assert.deepEqual(await good(anon.rpc("dearer_than", { p_price: 1 }).select("id").eq("id", 3).single()), { id: 3 });
  assert.equal((await anon.rpc("dearer_than", { p_price: 1 }, { head: true, count: "exact" })).count, 3);
  assert.equal((await good(anon.rpc("one_of_catalogue", { p_id: 2 }))).name, "Banana");
  const nothing = await anon.rpc("nothing");
  assert.deepEqual([nothing.status, nothing.data, nothing.error], [204, null, null]);
  assert.deepEqual(await good(anon.rpc("echo", { p: { deep: [1, "ü", null] } })), { deep: [1, "ü", null] });
  assert.deepEqual(await good(ada.client.rpc("who")), { id: ada.id, role: "authenticated", email: ada.email });
  assert.equal((await good(anon.rpc("who"))).role, "anon");
  await bad(anon.rpc("writes", {}, { get: true }), 405, "25006");
  const hint = await bad(anon.rpc("ad", { a: 1 }), 404, "PGRST202");
  assert.match(hint.message, /Could not find the function public\.ad\(a\)/);
});

test("a function reads the headers of its request", async () => {
  const traced = hub.client({ global: { headers: { traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" } } });
  const headers = await good(traced.rpc("get_req_trace_headers"));
  assert.equal(headers.traceparent, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
});

test("errors have code, message, details and hint, and the status that belongs to them", async () => {
  const raised = await bad(anon.rpc("fails", { p_code: "P0001", p_words: "no" }), 400, "P0001");
  assert.deepEqual([raised.message, raised.details, raised.hint], ["no", "a detail", "a hint"]);
  await bad(anon.rpc("fails", { p_code: "PT409", p_words: "twice" }), 409, "PT409");
  await bad(anon.from("no_such_table").select(), 404, "PGRST205");
  await bad(anon.from("catalogue").select("no_such_column"), 400, "42703");
  await bad(anon.from("catalogue").select("id").eq("id", "seven"), 400, "22P02");
  await bad(anon.from("catalogue").select("id").filter("id", "nonsense", "1"), 400, "PGRST100");
  await bad(anon.schema("private").from("proofs").select(), 406, "PGRST106");
  await bad(anon.from("todos").insert({ task: "x", no_such: 1 }), 400, "PGRST204");
  await bad(hub.admin.from("catalogue").insert({ id: 1 }), 409, "23505");
  await bad(hub.admin.from("todos").insert({ task: "x", list_id: 99 }), 409, "23503");
  await bad(anon.from("catalogue").insert({ id: 9 }), 401, "42501");
  await bad(ada.client.from("catalogue").insert({ id: 9 }), 403, "42501");
});

test("a token that ran out or is not ours is refused as PostgREST does", async () => {
  const expired = hub.client({ token: hub.token({ sub: ada.id }, -120) });
  const { error, status } = await expired.from("catalogue").select("id");
  assert.deepEqual([status, error.code, error.message], [401, "PGRST303", "JWT expired"]);
  const forged = hub.client({ token: `${hub.token({ sub: ada.id }).slice(0, -8)}AAAAAAAA` });
  assert.deepEqual([(await forged.from("catalogue").select("id")).error.code], ["PGRST301"]);
});

test("a token that a server of the team signed is the person it names", async () => {
  const client = hub.client({ token: hub.token({ sub: ben.id, email: "x@example.test" }) });
  assert.deepEqual(await good(client.rpc("who")), { id: ben.id, role: "authenticated", email: "x@example.test" });
});

test("a request that is given up ends", async () => {
  const { error } = await anon.from("catalogue").select().abortSignal(AbortSignal.abort());
  assert.match(error.message, /abort/i);
});

test("a table that is made or changed later is served without a restart", async () => {
  await hub.sql("set role postgres; create table public.born_later (id int primary key, word text); reset role");
  const inserted = async () => (await hub.admin.from("born_later").insert({ id: 1, word: "new" })).error === null;
  await waitUntil("the new table is known", inserted);
  await hub.sql("alter table public.born_later add column more int default 5");
  await waitUntil("the new column is known", async () => {
    const { data } = await hub.admin.from("born_later").update({ more: 6 }).eq("id", 1).select();
    return data?.[0]?.more === 6;
  });
  await hub.sql("drop table public.born_later");
});

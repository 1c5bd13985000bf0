import assert from "node:assert/strict";
import { test } from "node:test";
import { Tasks } from "../server/tasks.js";

test("a new task is open", () => {
  const tasks = new Tasks();
  assert.deepEqual(tasks.add("write the tests"), { id: 1, title: "write the tests", done: false });
  assert.equal(tasks.all().length, 1);
});

test("a task can be done and undone", () => {
  const tasks = new Tasks();
  const { id } = tasks.add("flip me");
  assert.equal(tasks.toggle(id).done, true);
  assert.equal(tasks.toggle(id).done, false);
});

test("a task needs a title", () => {
  assert.throws(() => new Tasks().add(""), /title/);
});

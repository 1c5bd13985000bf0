// The list of tasks, in memory.

export class Tasks {
  #tasks = [];
  #nextId = 1;

  all() {
    return this.#tasks;
  }

  add(title) {
    if (!title) throw new Error("a task needs a title");
    const task = { id: this.#nextId++, title, done: false };
    this.#tasks.push(task);
    return task;
  }

  toggle(id) {
    const task = this.#tasks.find((task) => task.id === id);
    if (task) task.done = !task.done;
    return task;
  }
}

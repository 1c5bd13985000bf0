const list = document.querySelector("#tasks");
const form = document.querySelector("#new-task");

async function show() {
  const tasks = await (await fetch("/api/tasks")).json();
  list.replaceChildren(
    ...tasks.map((task) => {
      const item = document.createElement("li");
      item.textContent = task.title;
      item.onclick = () => toggle(task.id);
      return item;
    }),
  );
}

async function toggle(id) {
  await fetch(`/api/tasks/${id}/toggle`, { method: "POST" });
  await show();
}

form.onsubmit = async (event) => {
  event.preventDefault();
  await fetch("/api/tasks", { method: "POST", body: JSON.stringify({ title: form.title.value }) });
  form.reset();
  await show();
};

await show();

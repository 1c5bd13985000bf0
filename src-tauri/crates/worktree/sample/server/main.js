import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { Tasks } from "./tasks.js";

const tasks = new Tasks();
const pages = { "/": ["index.html", "text/html"], "/app.js": ["app.js", "text/javascript"], "/style.css": ["style.css", "text/css"] };

const server = createServer(async (request, response) => {
  const json = (status, value) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify(value));
  };
  const path = new URL(request.url, "http://localhost").pathname;

  if (request.method === "GET" && pages[path]) {
    const [file, type] = pages[path];
    response.writeHead(200, { "content-type": type });
    response.end(await readFile(new URL(`../ui/${file}`, import.meta.url)));
  } else if (request.method === "GET" && path === "/api/tasks") {
    json(200, tasks.all());
  } else if (request.method === "POST" && path === "/api/tasks") {
    let body = "";
    for await (const part of request) body += part;
    try {
      json(201, tasks.add(JSON.parse(body).title));
    } catch (error) {
      json(400, { error: error.message });
    }
  } else if (request.method === "POST" && /^\/api\/tasks\/\d+\/toggle$/.test(path)) {
    const task = tasks.toggle(Number(path.split("/")[3]));
    task ? json(200, task) : json(404, { error: "no such task" });
  } else {
    json(404, { error: "not found" });
  }
});

server.listen(3000, () => console.log("http://localhost:3000"));

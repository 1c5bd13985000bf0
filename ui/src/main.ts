/** Starts the UI: theme first, so that nothing flashes, then the window, then the connection. */

import { mount } from "svelte";

import "@xterm/xterm/css/xterm.css";
import "./app.css";
import App from "./App.svelte";
import { now } from "./stores/now.svelte";
import { OfficeStore } from "./stores/office.svelte";
import { theme } from "./stores/theme.svelte";

theme.start();
now.start();
const office = new OfficeStore();
const target = document.getElementById("app");
if (target !== null) mount(App, { target, props: { office } });
void office.connect();

// The other side of the ratio benches: node-pty and @xterm/headless, each used as its own guide says.
import { readFileSync } from 'node:fs';
import xterm from '@xterm/headless';
import pty from 'node-pty';

const { CORPORA, PROBE } = process.env;
const [mode, ...args] = process.argv.slice(2);
const corpus = (name) => `${CORPORA}/${name}`;
const terminal = () => new xterm.Terminal({ cols: 200, rows: 50, scrollback: 10000, allowProposedApi: true });
const spawn = (file, argv) => pty.spawn(file, argv, { cols: 200, rows: 50, cwd: '/tmp', env: {} });
const HIGH = 500_000;
const LOW = 100_000;
const now = () => Number(process.hrtime.bigint()) / 1e3;
const cpu = () => { const used = process.cpuUsage(); return (used.user + used.system) / 1e6; };
const middle = (values, at = 0.5) => values.sort((a, b) => a - b)[Math.floor(values.length * at)];
const after = (ms) => new Promise((go) => setTimeout(go, ms));

/** Data into the emulator, with the watermarks of xterm.js' guide. */
function attach(child, term, seen = () => {}) {
  let pending = 0;
  child.onData((data) => {
    seen(data);
    pending += data.length;
    if (pending > HIGH) child.pause();
    term.write(data, () => { pending -= data.length; if (pending < LOW) child.resume(); });
  });
}

async function parse(name, chunk) {
  const bytes = readFileSync(corpus(name));
  const term = terminal();
  const before = cpu();
  let pending = 0;
  for (let at = 0; at < bytes.length; at += chunk) {
    const part = bytes.subarray(at, at + chunk);
    pending += part.length;
    await new Promise((go) => {
      term.write(part, () => { pending -= part.length; if (pending < HIGH) go(); });
      if (pending < HIGH) go();
    });
  }
  await new Promise((go) => term.write('', go));
  return { bytes_per_cpu_s: bytes.length / (cpu() - before) };
}

async function flood(name) {
  const term = terminal();
  const started = now();
  const before = cpu();
  let got = 0;
  const child = spawn('/bin/cat', [corpus(name)]);
  attach(child, term, (data) => { got += Buffer.byteLength(data); });
  await new Promise((go) => child.onExit(go));
  await new Promise((go) => term.write('', go));
  return { wall_s: (now() - started) / 1e6, cpu_s: cpu() - before, got };
}

async function memory(name) {
  const before = process.memoryUsage.rss();
  const term = terminal();
  const bytes = readFileSync(corpus(name)).subarray(0, 2 << 20);
  await new Promise((go) => term.write(bytes, go));
  global.gc?.();
  return { kib: (process.memoryUsage.rss() - before) / 1024 };
}

async function output(name) {
  const term = terminal();
  await new Promise((go) => term.write(readFileSync(corpus(name)).subarray(0, 2 << 20), go));
  const times = [];
  for (let round = 0; round < 50; round += 1) {
    const at = now();
    const buffer = term.buffer.active;
    const rows = [];
    for (let row = Math.max(0, buffer.length - 1000); row < buffer.length; row += 1) rows.push(buffer.getLine(row).translateToString(true));
    rows.join('\n');
    times.push(now() - at);
  }
  return { last_us: middle(times) };
}

async function latency(flooders) {
  const loud = Array.from({ length: flooders }, () => { const child = spawn(PROBE, ['--child-flood']); attach(child, terminal()); return child; });
  const term = terminal();
  const [seen, parsed] = [[], []];
  const child = spawn(PROBE, ['--child-stamps', '400', '3000']);
  child.onData((data) => {
    const at = now();
    const stamps = [...data.matchAll(/T(\d+)\./g)].map((match) => Number(match[1]) / 1e3);
    seen.push(...stamps.map((stamp) => at - stamp));
    term.write(data, () => { const done = now(); parsed.push(...stamps.map((stamp) => done - stamp)); });
  });
  await new Promise((go) => child.onExit(go));
  loud.forEach((each) => each.kill('SIGKILL'));
  return { seen_p50: middle(seen), seen_p99: middle(seen, 0.99), parsed_p50: middle(parsed) };
}

async function roundTrip() {
  const child = spawn(PROBE, ['--child-echo']);
  const times = [];
  let heard = () => {};
  child.onData((data) => { if (data.includes('!')) heard(); });
  await after(200);
  for (let round = 0; round < 500; round += 1) {
    const at = now();
    const answer = new Promise((go) => { heard = go; });
    child.write('?');
    await answer;
    times.push(now() - at);
  }
  child.kill('SIGKILL');
  return { p50: middle(times) };
}

async function start() {
  const times = [];
  for (let round = 0; round < 30; round += 1) {
    const at = now();
    const child = spawn('/bin/echo', ['x']);
    const end = new Promise((go) => child.onExit(go));
    await new Promise((go) => child.onData(go));
    times.push(now() - at);
    await end;
  }
  return { p50: middle(times) };
}

async function load(count, bytes) {
  const children = Array.from({ length: count }, () => { const child = spawn(PROBE, ['--child-paced', String(bytes)]); attach(child, terminal()); return child; });
  await after(1500);
  const before = cpu();
  await after(5000);
  const used = cpu() - before;
  children.forEach((child) => child.kill('SIGKILL'));
  return { cores: used / 5 };
}

const modes = {
  hello: async () => ({}), parse: () => parse(args[0], Number(args[1])), flood: () => flood(args[0]), memory: () => memory(args[0]),
  output: () => output(args[0]), latency: () => latency(Number(args[0])), 'round-trip': roundTrip, start,
  load: () => load(Number(args[0]), Number(args[1])),
};
console.log(JSON.stringify(await modes[mode]()));
process.exit(0);

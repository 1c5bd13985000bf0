#!/usr/bin/env bash
# The benches that tell about the product, one after the other; nothing here fails, the tables tell. Words behind it
# choose rows of the first (parse, flood, tmux, lossless, memory, idle, load, latency, round-trip, start, output, holder),
# or `hub` (then: doorbell, rest, numbers of clients) that of the hub. What it is compared with is installed into target/,
# or left out with a line where node is not there. Single functions: `cargo bench -p session`, `provider`, `journal`.
source "$(dirname "$0")/say.sh"

hub() {
    say "the hub: the doorbell at many clients, REST beside SQL"
    nice -n 10 cargo bench -p hub --bench office -- "$@"
}

if [ "${1:-}" = hub ]; then
    hub "${@:2}"
    exit
fi

peers=target/bench-node
if has node && has npm; then
    say "node-pty and @xterm/headless, to compare with"
    mkdir -p "$peers"
    [ -f "$peers/package.json" ] || echo '{ "private": true, "type": "module" }' > "$peers/package.json"
    npm install --prefix "$peers" --silent --no-audit --no-fund @xterm/headless@6.0.0 node-pty@1.1.0 ||
        say "they cannot be installed: rows that need them are left out"
    SEMO_BENCH_NODE="$(cd "$peers" && pwd)"
    export SEMO_BENCH_NODE
fi

say "the output path beside others"
nice -n 10 cargo bench -p terminal --bench ratios -- "$@"

if [ $# -eq 0 ]; then
    say "the output path by itself"
    nice -n 10 cargo bench -p terminal --bench screen
    say "the way of a command from the office to the agent"
    nice -n 10 cargo run --release -p tests --bin bench-roundtrip
    hub
fi

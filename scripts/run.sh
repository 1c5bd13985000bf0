#!/usr/bin/env bash
# From a fresh clone to the running product: the window where there is a display, else the office in the browser.
# Arguments go to the program that is started.
source "$(dirname "$0")/say.sh"

scripts/setup.sh run
scripts/ui.sh

# Behind the user's own programs: this `claude` is only found when there is no other.
export PATH="$PATH:$PWD/.tools/node_modules/.bin"

if [ "$(uname)" = Darwin ] || [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
    say "building the window (the first time takes some minutes)"
    cargo build -p app -p cli -p terminal --features app/custom-protocol
    say "starting the window; in another terminal: target/debug/semo send --agent FE \"Say hello\" --wait"
    exec target/debug/semo-office "$@"
fi
say "no display here: building the office for the browser (the first time takes some minutes)"
cargo build -p cli -p terminal
exec target/debug/semo up "$@"

#!/usr/bin/env bash
# Every test there is. Installs what they need first. Stops at the first part that fails; each part prints its own
# closing lines.
source "$(dirname "$0")/say.sh"

scripts/setup.sh test

say "the page: types, units, build"
npm run --prefix ui --silent check
npm test --prefix ui --silent
scripts/ui.sh

say "the Rust code: format and lints"
cargo fmt --all --check
cargo fmt --manifest-path fuzz/Cargo.toml --check
cargo clippy --workspace --all-targets --features app/custom-protocol -- -D warnings

say "the programs"
# Together: what the package `tests` switches on (steps at which a story kills a program) is in them then.
cargo build -p cli -p app -p terminal -p tests --bins --features app/custom-protocol

say "the Rust tests: units, stories, tidiness"
# All of them, also behind one that fails: a run takes long, and its next one should not find the next fault only.
cargo test --workspace --exclude app --no-fail-fast

say "the hub's parsers, ten seconds each"
SEMO_FUZZ_SEED=1 scripts/fuzz.sh 10

if [ -n "${CI:-}" ] && [ -d .git ]; then
    say "generated files are the committed ones"
    git diff --exit-code
fi

say "the window and the browser"
if has xvfb-run; then
    xvfb-run -a -s "-screen 0 1400x900x24" npm test --prefix tests/ui --silent
else
    npm test --prefix tests/ui --silent
fi

say "the official Supabase clients at our hub"
npm test --prefix tests/clients --silent
.tools/python/bin/python -B -W ignore -m unittest discover --start-directory tests/clients/py

say "all tests passed"

#!/usr/bin/env bash
# Every test there is. Installs what they need first. Stops at the first part that fails; each part prints its own
# closing lines.
source "$(dirname "$0")/say.sh"

# failures LOG: what failed in this output of `cargo test`, and the first lines of why. Said last: of a long run, the end
# is what is looked at.
failures() {
    say "what failed (everything: $1)"
    awk '
        /^---- .* stdout ----$/ { name = substr($0, 6, length($0) - 17); print "\n" name; shown = 0; next }
        /^failures:$/ || /^stack backtrace:$/ || /^note: run with/ { telling = 0 }
        /^failures:$/ { name = "" }
        name && (/ panicked at / || /^Error: /) { telling = 1 }
        telling && NF && shown++ < 12 { print "    " substr($0, 1, 500) }
        /^error/ || /process didn.t exit successfully/ || /^    `-p / { print }
    ' "$1" >&2
}

scripts/setup.sh test

# Built once and thrown away: what cargo keeps for a next build only takes room on the disk.
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0

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
code=0
cargo test --workspace --exclude app --no-fail-fast 2>&1 | tee target/tests.log || code=$?
[ "$code" -eq 0 ] || { failures target/tests.log && exit "$code"; }

say "the hub's parsers, as much as a slow machine tries in ten seconds each"
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

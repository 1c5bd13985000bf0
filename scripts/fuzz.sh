#!/usr/bin/env bash
# Feeds the hub's parsers what nobody sends: `scripts/fuzz.sh [SECONDS [TARGET…]]`, each target for so long (600 s unless
# said otherwise). With the stable toolchain and without cargo-fuzz: it is built as that builds it. What was found
# interesting is kept in target/fuzz/corpus, so that the next run goes on where this one ended. What breaks a rule is kept
# in target/fuzz/found; `scripts/fuzz.sh again TARGET FILE` shows it once more, and as a file in fuzz/seeds/TARGET it is
# part of the tests. The first build is three minutes of processor time. SEMO_FUZZ_SEED: begin with this number, not with
# one of chance, go by fuzz/seeds alone, and end after so many inputs as a slow machine tries in that time. So every
# machine tries as much, and nearly the same.
source "$(dirname "$0")/say.sh"

ALL=(realtime_filter realtime_frame rest_body rest_query)
# What a slow machine tries in a second, in the same order.
SLOW=(5000 7000 300 600)
INPUT_BYTES_MAX=4096
INPUT_SECONDS_MAX=10
MEMORY_MIB_MAX=1024

again=
[ "${1:-}" != again ] || { again=$1 && shift; }
if [ -z "$again" ]; then
    seconds=${1:-600}
    [ $# -eq 0 ] || shift
    case $seconds in '' | *[!0-9]*) fail "\`$seconds\` is no number of seconds" "scripts/fuzz.sh [SECONDS [TARGET…]]" ;; esac
fi
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=("${ALL[@]}")
[ -z "$again" ] || targets=("${1:?scripts/fuzz.sh again TARGET FILE}")
for target in "${targets[@]}"; do
    [ -f "fuzz/fuzz_targets/$target.rs" ] || fail "there is no target \`$target\`" "there are: ${ALL[*]}"
done

# The coverage that libFuzzer goes by, for everything but build scripts and macros (hence --target).
machine=$(rustc -vV | sed -n 's/^host: //p')
passes=(level=4 inline-8bit-counters pc-table trace-compares)
RUSTFLAGS="--cfg fuzzing -C passes=sancov-module"
for pass in "${passes[@]}"; do RUSTFLAGS+=" -C llvm-args=-sanitizer-coverage-$pass"; done
export RUSTFLAGS

locked=()
[ -z "${CI:-}" ] || locked=(--locked)
say "the fuzzer"
cargo build --release --manifest-path fuzz/Cargo.toml --target "$machine" --target-dir target/fuzz \
    ${locked[@]+"${locked[@]}"} ||
    fail "the fuzzer could not be built" "if fuzz/Cargo.lock is older than what the hub needs: cargo metadata --manifest-path fuzz/Cargo.toml > target/fuzz/metadata; then commit fuzz/Cargo.lock"
programs=target/fuzz/$machine/release

if [ -n "$again" ]; then
    exec "$programs/$1" "-timeout=$INPUT_SECONDS_MAX" "${2:?scripts/fuzz.sh again TARGET FILE}"
fi

mkdir -p target/fuzz/found
for target in "${targets[@]}"; do
    say "$target for $seconds s"
    mkdir -p "target/fuzz/corpus/$target"
    how=("-max_total_time=$seconds" "target/fuzz/corpus/$target" "fuzz/seeds/$target")
    if [ -n "${SEMO_FUZZ_SEED:-}" ]; then
        rm -rf target/fuzz/again && mkdir target/fuzz/again
        for place in "${!ALL[@]}"; do [ "${ALL[place]}" != "$target" ] || tries=$((seconds * SLOW[place])); done
        # The time is for machines that are slower still.
        how=("-runs=$tries" "-max_total_time=$((seconds * 10))" "-seed=$SEMO_FUZZ_SEED"
            target/fuzz/again "fuzz/seeds/$target")
    fi
    log=target/fuzz/$target.log
    if ! "$programs/$target" "-max_len=$INPUT_BYTES_MAX" "-timeout=$INPUT_SECONDS_MAX" "-rss_limit_mb=$MEMORY_MIB_MAX" \
        "-dict=fuzz/dictionaries/$target.dict" "-artifact_prefix=target/fuzz/found/$target-" -verbosity=0 \
        -print_final_stats=1 "${how[@]}" >"$log" 2>&1; then
        cat "$log" >&2
        fail "$target broke a rule; what did it is the newest file in target/fuzz/found" \
            "see it again: scripts/fuzz.sh again $target FILE; once it is fixed, FILE belongs into fuzz/seeds/$target"
    fi
    sed -n 's/^stat::number_of_executed_units: */inputs: /p; s/^stat::new_units_added: */of them kept, since they went new ways: /p' "$log"
done

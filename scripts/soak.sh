#!/usr/bin/env bash
# Six sessions at work for an hour, measured (first argument: minutes), then a million schedules of the simulation
# (SEMO_SIM_SCHEDULES). Fails when something grows that should not.
source "$(dirname "$0")/say.sh"

scripts/setup.sh test

say "the programs, optimised"
# Apart from the tests' own, so that no step at which a test may kill them is in them.
cargo build --release -p cli -p terminal
cargo build --release -p tests --bins

say "six sessions at work for ${1:-60} minutes"
target/release/soak "${1:-60}"

schedules="${SEMO_SIM_SCHEDULES:-1000000}"
say "$schedules schedules of the simulation"
SEMO_SIM_SCHEDULES="$schedules" cargo test --release -p client --lib sim::in_no -- --nocapture

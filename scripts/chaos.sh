#!/usr/bin/env bash
# Kills core, holders, agents, hub and Postgres at every named step and at random moments, for SEMO_CHAOS_ROUNDS rounds
# (50 unless said otherwise). A round that fails names its seed; SEMO_CHAOS_SEED=… SEMO_CHAOS_ROUNDS=1 repeats it.
source "$(dirname "$0")/say.sh"

scripts/setup.sh test

say "the programs"
cargo build -p cli -p terminal -p tests --bins

say "chaos"
SEMO_CHAOS_ROUNDS="${SEMO_CHAOS_ROUNDS:-50}" cargo test -p tests --test it -- chaos --nocapture

# One word per thing a person does here. The work is in scripts/.
.PHONY: help run test setup build ui fmt lint bench chaos soak fuzz

help:          ## What can be made
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /make \1\t/' | expand -t 14

run:           ## Install what is missing, build, and start: the window, or the office in the browser
	@scripts/run.sh

test:          ## Install what the tests need, and run them all
	@scripts/test.sh

setup:         ## Only install what is missing
	@scripts/setup.sh run

ui:            ## Build the page that window and browser show
	@scripts/ui.sh

build: ui      ## Build all programs, optimised
	cargo build --release -p cli -p app -p terminal --features app/custom-protocol

fmt:           ## Format the Rust code
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml

lint: ui       ## What the tests check before they run
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets -- -D warnings

bench:         ## Measure the output path beside other programs, the way of a command, and the hub
	@scripts/bench.sh

chaos:         ## Kill everything at every step and at random moments, SEMO_CHAOS_ROUNDS times
	@scripts/chaos.sh

soak:          ## Six sessions at work for an hour, measured, and a million schedules of the simulation
	@scripts/soak.sh

fuzz:          ## Feed the hub's parsers what nobody sends, ten minutes each
	@scripts/fuzz.sh

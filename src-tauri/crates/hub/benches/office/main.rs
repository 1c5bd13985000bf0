//! What the hub's protocols cost: the doorbell at many connected clients, and claims and results over REST beside the
//! same statements over SQL. Nothing fails here; the tables tell. `scripts/bench.sh hub` runs it.
//!
//! The hub is a process of its own with the product's allocator, its Postgres below it; all clients are in this process,
//! on one thread. All share one machine: what the clients need is part of every figure. Arguments: `doorbell`, `rest`, or
//! both without any; numbers choose how many clients.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a bench starts the program it measures, and ends at the first surprise"
)]

mod doorbell;
mod member;
mod process;
mod table;
mod work;

/// As in the programs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connected clients for which the doorbell is measured.
const LISTENERS: [usize; 4] = [1, 100, 1000, 5000];
/// Clients that work at the same time.
const WORKERS: [usize; 3] = [1, 8, 64];

fn main() {
    process::raise_files();
    let mut words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    if let Some(place) = words.iter().position(|word| word == process::MODE) {
        words.drain(..=place);
        return process::serve(&words);
    }
    let chosen: Vec<usize> = words.iter().filter_map(|word| word.parse().ok()).collect();
    let or = |all: &[usize]| {
        if chosen.is_empty() {
            all.to_vec()
        } else {
            chosen.clone()
        }
    };
    let wanted = |word: &str| {
        words.iter().all(|one| one.parse::<usize>().is_ok()) || words.iter().any(|one| one == word)
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    if wanted("doorbell") {
        local.block_on(&runtime, doorbell::run(&or(&LISTENERS)));
    }
    if wanted("rest") {
        local.block_on(&runtime, work::run(&or(&WORKERS)));
    }
}

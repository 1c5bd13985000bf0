//! Simulation: several workstations of one office, each under the very rules of `crate::rules` and `crate::recovery`,
//! with an office, a network, clocks and agents that do what a seed says. Thousands of schedules per second; a seed that
//! breaks a rule breaks it again.
//!
//! `SEMO_SIM_SCHEDULES` sets how many (10,000), `SEMO_SIM_SEED` runs that one alone and prints what happened.

mod check;
mod deeds;
mod line;
pub(crate) mod office;
mod paper;
mod random;
mod recover;
mod schedule;
mod turns;
mod workstation;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use check::Violation;
use world::World;

/// Schedules of one run.
const SCHEDULES: u64 = 10_000;
/// Schedules in which each planted breach must be found.
const FOUND_WITHIN: u64 = 10_000;

/// A rule that is left out on purpose, to see that the simulation finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breach {
    /// Enter is pressed before the journal knows.
    EffectBeforeJournal,
    /// What an earlier core had entered is run again.
    StartedRunsAgain,
    /// A command is begun without the office's word.
    BegunUnasked,
    /// The office gives what one has begun to another.
    BegunGoesToAnybody,
    /// The office gives out prompts for one session together.
    PromptsOfASessionTogether,
    /// The office takes results under any token.
    TokenIgnored,
    /// Commands are claimed while leases of ours may have run out, and what is in our hands is begun again when it
    /// comes back under a new token.
    HeldIsBegunAgain,
    /// What is lost before it was begun is ended as cancelled.
    LostIsCancelled,
    /// A report without an answer is not repeated.
    SilenceEndsReporting,
    /// The office's word to begin lasts for ever.
    WordLastsForEver,
    /// The office gives again to anybody what somebody else has.
    GivenAgainToAnybody,
    /// A session is made without the office's word.
    CreatedUnasked,
    /// What had to wait for its session is carried out without the office's word.
    LateIsBegunUnasked,
    /// A claim does not say what is known, so that a lost answer costs a lease.
    LostIsLeftToItsLease,
    /// A copy of a data folder goes on as the original does, and nobody knows which is which.
    CopiesAreNotToldApart,
}

thread_local! {
    /// The breach that the rules themselves are to commit, on this thread.
    static PLANTED: std::cell::Cell<Option<Breach>> = const { std::cell::Cell::new(None) };
}

/// For the rules: whether this breach is planted.
pub(crate) fn planted(breach: Breach) -> bool {
    PLANTED.get() == Some(breach)
}

/// One schedule. Nothing: no rule was broken.
fn run(seed: u64, breach: Option<Breach>, log: bool) -> (Vec<Violation>, Vec<String>) {
    PLANTED.set(breach);
    let mut world = World::new(seed, breach, log);
    world.run();
    PLANTED.set(None);
    (world.violations, world.log.unwrap_or_default())
}

/// The first seed below `schedules` that breaks a rule, on all processors.
fn first_broken(schedules: u64, breach: Option<Breach>) -> Option<u64> {
    let next = AtomicU64::new(0);
    let broken = Mutex::new(None::<u64>);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let known = *broken.lock().expect("no thread panics");
                    if seed >= schedules || known.is_some_and(|known| known < seed) {
                        return;
                    }
                    if !run(seed, breach, false).0.is_empty() {
                        let mut broken = broken.lock().expect("no thread panics");
                        *broken = Some(broken.map_or(seed, |known| known.min(seed)));
                    }
                }
            });
        }
    });
    broken.into_inner().expect("no thread panics")
}

/// What happened in a schedule, for a person.
fn told(seed: u64, breach: Option<Breach>) -> String {
    let (violations, log) = run(seed, breach, true);
    let log = log.join("\n");
    format!("{log}\n{violations:?} in schedule {seed}")
}

#[allow(
    clippy::disallowed_methods,
    reason = "whoever runs the simulation says how much of it"
)]
fn number_in(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn in_no_schedule_is_a_rule_broken() {
    if let Some(seed) = number_in("SEMO_SIM_SEED") {
        println!("{}", told(seed, None));
        assert!(run(seed, None, false).0.is_empty(), "schedule {seed}");
        return;
    }
    let schedules = number_in("SEMO_SIM_SCHEDULES").unwrap_or(SCHEDULES);
    let began = Instant::now();
    let broken = first_broken(schedules, None);
    let rate = schedules as f64 / began.elapsed().as_secs_f64();
    println!("{schedules} schedules, {rate:.0} per second");
    if let Some(seed) = broken {
        let (violations, _) = run(seed, None, false);
        panic!("{violations:?} in schedule {seed}; SEMO_SIM_SEED={seed} shows it");
    }
}

#[test]
fn the_same_seed_is_the_same_schedule() {
    for seed in [3, 77, 4_711] {
        assert_eq!(run(seed, None, true), run(seed, None, true));
    }
}

#[test]
fn each_planted_breach_is_found() {
    for breach in [
        Breach::EffectBeforeJournal,
        Breach::StartedRunsAgain,
        Breach::BegunUnasked,
        Breach::BegunGoesToAnybody,
        Breach::PromptsOfASessionTogether,
        Breach::TokenIgnored,
        Breach::HeldIsBegunAgain,
        Breach::LostIsCancelled,
        Breach::SilenceEndsReporting,
        Breach::WordLastsForEver,
        Breach::GivenAgainToAnybody,
        Breach::LostIsLeftToItsLease,
        Breach::CreatedUnasked,
        Breach::LateIsBegunUnasked,
        Breach::CopiesAreNotToldApart,
    ] {
        let found = first_broken(FOUND_WITHIN, Some(breach));
        let seed = found.unwrap_or_else(|| panic!("{breach:?} is not found"));
        let (violations, _) = run(seed, Some(breach), false);
        println!("{breach:?}: found in schedule {seed} as {:?}", violations.first());
    }
}

//! Leaving an agent alone whose program keeps ending: without that, a crash at every start would go on for ever.

use std::collections::VecDeque;

use domain::Timestamp;
use serde::{Deserialize, Serialize};

/// Unexpected ends within [`FAILURES_WITHIN_MS`] after which an agent is paused.
pub const FAILURES_MAX: usize = 3;
/// How far back they count: 10 minutes.
pub const FAILURES_WITHIN_MS: u64 = 10 * 60 * 1_000;
/// How long the pause is: 10 minutes. After it the agent is tried again; one more failure pauses it again.
pub const PAUSE_MS: i64 = 10 * 60 * 1_000;
/// As much of a reason as is kept, in characters.
const WHY_CHARS_MAX: usize = 400;

/// What is known of one agent's failures.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Breaker {
    failures: VecDeque<Timestamp>,
    paused: Option<(Timestamp, String)>,
    /// The pause is over and nothing has gone well since.
    on_trial: bool,
}

impl Breaker {
    /// A session of the agent ended unexpectedly, or could not be started. True when that begins a pause.
    pub fn failed(&mut self, now: Timestamp, why: &str) -> bool {
        self.failures.retain(|at| now.ms_since(*at) < FAILURES_WITHIN_MS);
        self.failures.push_back(now);
        if self.failures.len() < FAILURES_MAX && !self.on_trial {
            return false;
        }
        self.failures.clear();
        self.on_trial = false;
        let why = why.chars().take(WHY_CHARS_MAX).collect();
        self.paused = Some((now.plus_ms(PAUSE_MS), why));
        true
    }

    /// A turn of the agent came to an orderly end: what was before does not count any more.
    pub fn went_well(&mut self) {
        *self = Breaker::default();
    }

    /// Ends a pause whose time has come. True when it ended now.
    pub fn look(&mut self, now: Timestamp) -> bool {
        let over = self.paused.as_ref().is_some_and(|(until, _)| *until <= now);
        if over {
            self.paused = None;
            self.on_trial = true;
        }
        over
    }

    /// Nothing is known of it that a later start of the core would need.
    pub fn is_clear(&self) -> bool {
        *self == Breaker::default()
    }

    /// Until when the agent is paused, and why.
    pub fn paused(&self) -> Option<(Timestamp, &str)> {
        self.paused.as_ref().map(|(until, why)| (*until, why.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    #[test]
    fn three_failures_in_ten_minutes_pause_and_after_the_pause_one_is_enough() {
        let mut breaker = Breaker::default();
        assert!(!breaker.failed(Timestamp(0), "first"));
        assert!(!breaker.failed(Timestamp(MINUTE), "second"));
        assert!(breaker.failed(Timestamp(2 * MINUTE), "third"));
        assert_eq!(breaker.paused(), Some((Timestamp(12 * MINUTE), "third")));
        assert!(!breaker.look(Timestamp(12 * MINUTE - 1)));
        assert!(breaker.look(Timestamp(12 * MINUTE)));
        assert_eq!(breaker.paused(), None);
        assert!(breaker.failed(Timestamp(13 * MINUTE), "again"));
    }

    #[test]
    fn a_pause_survives_a_restart_of_the_core_as_it_was() {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES_MAX {
            breaker.failed(Timestamp(0), &"가".repeat(1_000));
        }
        let text = serde_json::to_string(&breaker).unwrap();
        let again: Breaker = serde_json::from_str(&text).unwrap();
        assert_eq!(again, breaker);
        assert!(!again.is_clear() && again.paused().is_some());
        assert!(text.len() < 2_000, "{}", text.len());
    }

    #[test]
    fn failures_far_apart_and_failures_before_a_success_do_not_count_together() {
        let mut breaker = Breaker::default();
        for minute in [0, 6, 12, 18] {
            assert!(
                !breaker.failed(Timestamp(minute * MINUTE), "now and then"),
                "{minute}"
            );
        }
        breaker.went_well();
        assert!(!breaker.failed(Timestamp(19 * MINUTE), "x"));
        assert!(!breaker.failed(Timestamp(19 * MINUTE), "x"));
        assert!(breaker.failed(Timestamp(19 * MINUTE), "x"));
    }
}

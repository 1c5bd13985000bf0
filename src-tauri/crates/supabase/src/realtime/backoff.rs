//! How long to wait before the next try. The only randomness of the crate; its seed is an argument, so that a test
//! knows what comes.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

/// Cap of the first wait.
const FIRST: Duration = Duration::from_secs(1);
/// Cap of every wait.
const LAST: Duration = Duration::from_secs(60);
/// Shortest wait: full jitter may draw nearly nothing, which would be a storm of one.
const SHORTEST: Duration = Duration::from_millis(200);
/// Where a person has to change something, it is still tried, this slowly.
const SLOW: Duration = Duration::from_secs(60);
/// Up to this much more, so that the clients of a broken office do not come all at once.
const SLOW_SPREAD: Duration = Duration::from_secs(30);
/// Shortest wait after a rate limit.
const CROWDED: Duration = Duration::from_secs(30);
/// A server that restarts (1012, 1001) gets its clients back spread over this much.
const RESTART_SPREAD: Duration = Duration::from_secs(5);

/// Draws waits.
#[derive(Debug)]
pub(super) struct Dice(StdRng);

impl Dice {
    /// With the given seed.
    #[cfg(test)]
    pub(super) fn new(seed: u64) -> Dice {
        Dice(StdRng::seed_from_u64(seed))
    }

    /// With a seed nobody knows.
    pub(super) fn from_system() -> Dice {
        Dice(StdRng::from_os_rng())
    }

    /// Full jitter under a cap that doubles with each failure: 1 s, 2 s, 4 s … 60 s. `failures` counts from 1.
    pub(super) fn retry(&mut self, failures: u32) -> Duration {
        let cap = FIRST
            .saturating_mul(1 << failures.saturating_sub(1).min(6))
            .min(LAST);
        self.upto(cap).max(SHORTEST)
    }

    /// For faults that time alone does not cure.
    pub(super) fn slow(&mut self) -> Duration {
        SLOW + self.upto(SLOW_SPREAD)
    }

    /// For rate limits.
    pub(super) fn crowded(&mut self, failures: u32) -> Duration {
        CROWDED + self.retry(failures)
    }

    /// To be added after a restart of the server.
    pub(super) fn restart_spread(&mut self) -> Duration {
        self.upto(RESTART_SPREAD)
    }

    /// A number that nobody else has.
    pub(super) fn nonce(&mut self) -> Uuid {
        Uuid::from_u128(self.0.random())
    }

    /// Anything from nothing to `cap`.
    pub(super) fn upto(&mut self, cap: Duration) -> Duration {
        cap.mul_f64(self.0.random())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute_and_no_further() {
        let mut dice = Dice::new(7);
        for (failures, cap_s) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (u32::MAX, 60)] {
            let waits: Vec<Duration> = (0..200).map(|_| dice.retry(failures)).collect();
            let longest = waits.iter().max().copied().unwrap_or_default();
            assert!(
                waits.iter().all(|wait| *wait >= SHORTEST),
                "after {failures} failures"
            );
            assert!(
                longest <= Duration::from_secs(cap_s),
                "after {failures} failures: {longest:?}"
            );
            assert!(
                longest > Duration::from_secs(cap_s).mul_f64(0.8),
                "jitter must use its room: {longest:?}"
            );
        }
    }

    #[test]
    fn two_clients_do_not_wait_alike() {
        assert_ne!(Dice::new(1).retry(5), Dice::new(2).retry(5));
        assert_eq!(
            Dice::new(1).retry(5),
            Dice::new(1).retry(5),
            "a test can know what comes"
        );
    }
}

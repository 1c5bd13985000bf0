//! When something was, on both of our clocks.

use std::time::Duration;

use domain::Timestamp;
use tokio::time::Instant;

/// A point in time, on the clock that never jumps but stands still while the machine sleeps, and on the wall clock, which
/// goes on meanwhile but can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub at: Instant,
    pub wall: Timestamp,
}

impl Moment {
    /// How long ago `earlier` was. The longer answer of the two clocks: a lease is rather asked for once too often than
    /// taken for good after a night's sleep.
    pub fn since(self, earlier: Moment) -> Duration {
        let steady = self.at.saturating_duration_since(earlier.at);
        steady.max(Duration::from_millis(self.wall.ms_since(earlier.wall)))
    }

    /// Whether that long has passed since `earlier`.
    pub fn is_past(self, earlier: Moment, span: Duration) -> bool {
        self.since(earlier) >= span
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_counts_and_a_clock_set_back_does_not_take_time_away() {
        let before = Moment {
            at: Instant::now(),
            wall: Timestamp(1_000_000),
        };
        let s = Duration::from_secs;
        let later = |steady, wall_ms: i64| Moment {
            at: before.at + s(steady),
            wall: before.wall.plus_ms(wall_ms),
        };
        assert_eq!(later(5, 5_000).since(before), s(5));
        assert_eq!(later(5, 3_600_000).since(before), s(3_600), "it slept");
        assert_eq!(later(5, -3_600_000).since(before), s(5), "the clock was set back");
        assert!(later(60, 0).is_past(before, s(60)) && !later(59, 0).is_past(before, s(60)));
    }
}

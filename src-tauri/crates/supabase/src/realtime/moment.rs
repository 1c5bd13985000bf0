//! One moment on both clocks, and the watch that notices when they go apart.
//!
//! Pure: whoever calls brings the moment along. Called by [`super::talk`] and [`super::supervisor`].

use domain::{Clock, Timestamp};
use tokio::time::Instant;

/// Wall and monotonic clock apart by more than this between two looks: the machine slept or the clock was set.
const JUMP_MS_MIN: i64 = 5_000;

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// For waits.
    pub at: Instant,
    /// For people and tokens.
    pub wall: Timestamp,
}

impl Moment {
    pub(super) fn now(clock: &dyn Clock) -> Moment {
        Moment {
            at: Instant::now(),
            wall: clock.now(),
        }
    }
}

/// Notices that the machine slept (only the wall clock goes on meanwhile) or that its clock was set.
#[derive(Debug)]
pub(super) struct JumpWatch(Moment);

impl JumpWatch {
    pub(super) fn new(now: Moment) -> JumpWatch {
        JumpWatch(now)
    }

    /// By how many seconds the clocks went apart since the last look, when it is a jump; negative: back.
    pub(super) fn jump_s(&mut self, now: Moment) -> Option<i64> {
        let before = std::mem::replace(&mut self.0, now);
        let wall_ms = now.wall.0.saturating_sub(before.wall.0);
        let passed = now.at.saturating_duration_since(before.at);
        let passed_ms = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
        let apart = wall_ms.saturating_sub(passed_ms);
        (apart.saturating_abs() > JUMP_MS_MIN).then_some(apart / 1000)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_jump_is_seen_once_in_either_direction_and_a_slow_drift_is_none() {
        let start = Moment {
            at: Instant::now(),
            wall: Timestamp(1_000_000),
        };
        let mut watch = JumpWatch::new(start);
        let after = |passed_s: u64, wall_s: i64| Moment {
            at: start.at + Duration::from_secs(passed_s),
            wall: start.wall.plus_ms(wall_s * 1000),
        };
        assert_eq!(watch.jump_s(after(5, 9)), None, "a correction of the clock");
        assert_eq!(watch.jump_s(after(10, 3_614)), Some(3_600));
        assert_eq!(watch.jump_s(after(15, 3_619)), None, "told once");
        assert_eq!(watch.jump_s(after(20, 3_624 - 86_400)), Some(-86_400));
    }
}

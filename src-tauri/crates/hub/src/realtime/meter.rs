//! How much somebody may send in a while: a mean with bursts up to the whole window's worth.
//!
//! Pure but for the clock it is given. Called by `socket`, `channel` and `posts`.

use std::time::Duration;

use tokio::time::Instant;

/// Counts what was used and forgets it evenly over time.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    used: f64,
    at: Option<Instant>,
}

impl Meter {
    /// Counts `amount`; false when the mean over `window` is above `per_second`. What is refused is not counted, so
    /// that waiting helps.
    pub fn take(&mut self, amount: u32, per_second: u32, window: Duration, now: Instant) -> bool {
        let rate = f64::from(per_second);
        let passed = self
            .at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.at = Some(now);
        self.used = (self.used - passed.as_secs_f64() * rate).max(0.0);
        let after = self.used + f64::from(amount);
        if after > rate * window.as_secs_f64() {
            return false;
        }
        self.used = after;
        true
    }
}

/// Calls within a window that begins with the first of them.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    count: u32,
    ends: Option<Instant>,
}

impl Calls {
    /// Counts a call; false when the window has seen `max` already.
    pub fn take(&mut self, max: u32, window: Duration, now: Instant) -> bool {
        if self.ends.is_none_or(|ends| now > ends) {
            *self = Calls {
                count: 0,
                ends: Some(now + window),
            };
        }
        if self.count >= max {
            return false;
        }
        self.count += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_the_windows_worth_and_waiting_helps() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        let window = Duration::from_secs(10);
        assert!((0..20).all(|_| meter.take(1, 2, window, start)));
        assert!(!meter.take(1, 2, window, start));
        assert!(meter.take(2, 2, window, start + Duration::from_secs(1)));
        assert!(!meter.take(1, 2, window, start + Duration::from_secs(1)));
    }

    #[test]
    fn calls_are_counted_per_window() {
        let (mut calls, start) = (Calls::default(), Instant::now());
        let window = Duration::from_secs(30);
        assert!((0..5).all(|_| calls.take(5, window, start)));
        assert!(!calls.take(5, window, start + window));
        assert!(calls.take(5, window, start + window + Duration::from_millis(1)));
    }
}

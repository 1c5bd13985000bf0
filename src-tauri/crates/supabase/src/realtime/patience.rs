//! How long an answer is waited for on this line.
//!
//! Every limit of the connection is made for a usual line. On a slow one (a satellite, 2G, a full uplink) an answer that
//! is under way would be too late each time, and everything would begin anew for ever. So whatever came too late
//! doubles the limits, twice at most, across sockets; a good connection that did not need it takes it back, step by
//! step. A dead line is noticed later by that much, and never not at all.
//!
//! Pure. Owned by [`super::course`]; used by [`super::dial`], [`super::talk`] and [`super::channel`].

use std::time::Duration;

/// Times that limits are doubled, at most: 10 s become 40 s.
const DOUBLINGS_MAX: u32 = 2;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Patience {
    doublings: u32,
    /// Since the last step down something took so long that a smaller patience would hardly have done.
    is_needed: bool,
}

impl Patience {
    /// What a limit made for a usual line is on this one.
    pub(super) fn limit(self, usual: Duration) -> Duration {
        usual.saturating_mul(1 << self.doublings)
    }

    /// Something did not come in time.
    pub(super) fn was_late(&mut self) {
        self.doublings = (self.doublings + 1).min(DOUBLINGS_MAX);
        self.is_needed = true;
    }

    /// Something came after `took`, whose usual limit is `usual`.
    pub(super) fn came(&mut self, took: Duration, usual: Duration) {
        let smaller = usual.saturating_mul(1 << self.doublings) / 2;
        self.is_needed |= self.doublings > 0 && took > smaller / 2;
    }

    /// A good connection has ended.
    pub(super) fn was_good(&mut self) {
        if !self.is_needed {
            self.doublings = self.doublings.saturating_sub(1);
        }
        self.is_needed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Duration = Duration::from_secs(10);

    fn seconds(patience: Patience) -> u64 {
        patience.limit(USUAL).as_secs()
    }

    #[test]
    fn what_is_late_doubles_the_limits_and_not_for_ever() {
        let mut patience = Patience::default();
        let mut limits = vec![seconds(patience)];
        for _ in 0..4 {
            patience.was_late();
            limits.push(seconds(patience));
        }
        assert_eq!(limits, [10, 20, 40, 40, 40]);
    }

    #[test]
    fn a_good_connection_takes_back_what_it_did_not_need_and_no_more() {
        let mut patience = Patience::default();
        patience.was_late();
        patience.was_good();
        assert_eq!(seconds(patience), 20, "it was late during this very connection");
        patience.came(Duration::from_secs(6), USUAL);
        patience.was_good();
        assert_eq!(seconds(patience), 20, "10 s would have been close");
        patience.came(Duration::from_secs(1), USUAL);
        patience.was_good();
        assert_eq!(seconds(patience), 10);
        patience.came(Duration::from_secs(9), USUAL);
        patience.was_good();
        assert_eq!(seconds(patience), 10, "and not below what is usual");
    }
}

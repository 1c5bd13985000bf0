//! What comes after a connection that ended or was never made: how long to wait, what to tell people, whether a new
//! token or a person is needed. Pure but for its dice, whose seed is an argument.
//!
//! Called by [`super::supervisor`], and by the simulation in its place.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Dice;
use super::dial::{CONNECT_TIMEOUT, OpenError};
use super::patience::Patience;
use super::talk::EndKind;
use crate::auth::AuthError;

/// A connection that was live for this long was a good one: the next failure starts from the shortest wait.
pub(super) const GOOD_AFTER: Duration = Duration::from_secs(60);
/// How often the clocks are compared, and whether somebody signed in is looked at.
pub(super) const TICK: Duration = Duration::from_secs(5);
/// Connections that are tried within [`DIALS_SPAN`], whatever the reasons, nudges included.
pub(super) const DIALS_MAX: usize = 10;
/// See [`DIALS_MAX`].
pub(super) const DIALS_SPAN: Duration = Duration::from_secs(60);
/// Spread of reconnects that have no failure behind them (planned).
const SOON: Duration = Duration::from_secs(1);
/// So many refusals of the key in a row are no accident.
const KEY_REFUSALS_MAX: u32 = 2;

/// How a conversation ended.
#[derive(Debug)]
pub(super) struct End {
    /// For people.
    pub why: String,
    /// What comes next.
    pub kind: EndKind,
    /// How long every topic had been live, at the end.
    pub live_for: Duration,
}

/// What comes after a try.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Stop,
    /// Nobody is signed in: wait for that.
    SignIn {
        why: String,
    },
    Wait {
        wait: Duration,
        why: String,
        permanent: bool,
        /// The token of the try was refused: another one is to be fetched before the next.
        other_token: bool,
    },
}

/// Remembers how it went so far.
#[derive(Debug)]
pub(super) struct Course {
    /// Tries in a row that did not become a good connection.
    failures: u32,
    /// Refusals of the key in a row.
    key_refusals: u32,
    /// When the last connections were tried.
    dials: VecDeque<Instant>,
    /// How long answers are waited for on this line.
    pub(super) patience: Patience,
}

impl Course {
    pub(super) fn new() -> Course {
        Course {
            failures: 0,
            key_refusals: 0,
            dials: VecDeque::with_capacity(DIALS_MAX),
            patience: Patience::default(),
        }
    }

    /// How long it must be waited until the next connection may be tried.
    pub(super) fn hold_back(&self, now: Instant) -> Duration {
        if self.dials.len() < DIALS_MAX {
            return Duration::ZERO;
        }
        let oldest = self.dials.front().copied().unwrap_or(now);
        (oldest + DIALS_SPAN).saturating_duration_since(now)
    }

    /// A connection is tried now.
    pub(super) fn dials(&mut self, now: Instant) {
        if self.dials.len() == DIALS_MAX {
            self.dials.pop_front();
        }
        self.dials.push_back(now);
    }

    /// The socket was opened, after `took`.
    pub(super) fn opened(&mut self, took: Duration) {
        self.patience.came(took, CONNECT_TIMEOUT);
        self.key_refusals = 0;
    }

    /// There was no token.
    pub(super) fn no_token(&mut self, error: &AuthError, dice: &mut Dice) -> Next {
        match error {
            AuthError::SignedOut { .. } | AuthError::WrongPassword => Next::SignIn {
                why: error.to_string(),
            },
            AuthError::Unreachable { retry_after, .. } => {
                self.retry(error.to_string(), retry_after.unwrap_or_default(), dice)
            }
            AuthError::Malformed { .. } | AuthError::Store { .. } => {
                self.retry(error.to_string(), Duration::ZERO, dice)
            }
            AuthError::Refused { .. } | AuthError::Project(_) | AuthError::Client { .. } => {
                self.slowly(error.to_string(), dice)
            }
        }
    }

    /// The socket was not opened.
    pub(super) fn not_opened(&mut self, error: &OpenError, dice: &mut Dice) -> Next {
        let why = error.to_string();
        match error {
            OpenError::Refused { status: 401, .. } => {
                self.key_refusals = self.key_refusals.saturating_add(1);
                if self.key_refusals >= KEY_REFUSALS_MAX {
                    return self.slowly(format!("{why}; check the publishable key"), dice);
                }
                match self.retry(why, Duration::ZERO, dice) {
                    Next::Wait {
                        wait, why, permanent, ..
                    } => Next::Wait {
                        wait,
                        why,
                        permanent,
                        other_token: true,
                    },
                    other => other,
                }
            }
            OpenError::Refused {
                status: 429,
                retry_after,
                ..
            } => {
                self.failures = self.failures.saturating_add(1);
                let wait = dice.crowded(self.failures).max(retry_after.unwrap_or_default());
                wait_for(wait, why)
            }
            OpenError::Refused {
                status: 400..=499, ..
            } => self.slowly(
                format!("{why}; check the project URL, and that Realtime is switched on there"),
                dice,
            ),
            OpenError::Refused { retry_after, .. } => self.retry(why, retry_after.unwrap_or_default(), dice),
            // A sign-in page goes away when somebody signs in: the waits of any outage are right for it.
            OpenError::Captive { .. } | OpenError::Failed { .. } => self.retry(why, Duration::ZERO, dice),
            OpenError::Late { .. } | OpenError::ProxyLate { .. } => {
                self.patience.was_late();
                self.retry(why, Duration::ZERO, dice)
            }
            OpenError::ProxyRefused { .. } => self.slowly(why, dice),
        }
    }

    /// The conversation has ended.
    pub(super) fn ended(&mut self, end: End, dice: &mut Dice) -> Next {
        let End { why, kind, live_for } = end;
        if live_for >= GOOD_AFTER {
            self.failures = 0;
            self.patience.was_good();
        }
        match kind {
            EndKind::Stopped => Next::Stop,
            EndKind::SignedOut => Next::SignIn { why },
            EndKind::Failed => self.retry(why, Duration::ZERO, dice),
            EndKind::ServerRestarts => {
                self.failures = self.failures.saturating_add(1);
                let wait = dice.retry(self.failures) + dice.restart_spread();
                wait_for(wait, why)
            }
            EndKind::Soon => wait_for(dice.upto(SOON), why),
        }
    }

    fn retry(&mut self, why: String, at_least: Duration, dice: &mut Dice) -> Next {
        self.failures = self.failures.saturating_add(1);
        wait_for(dice.retry(self.failures).max(at_least), why)
    }

    fn slowly(&mut self, why: String, dice: &mut Dice) -> Next {
        self.failures = self.failures.saturating_add(1);
        Next::Wait {
            wait: dice.slow(),
            why,
            permanent: true,
            other_token: false,
        }
    }
}

fn wait_for(wait: Duration, why: String) -> Next {
    Next::Wait {
        wait,
        why,
        permanent: false,
        other_token: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_connections_are_tried_in_a_minute_and_no_more() {
        let mut course = Course::new();
        let start = Instant::now();
        for number in 0..DIALS_MAX {
            let now = start + Duration::from_secs(number as u64);
            assert_eq!(course.hold_back(now), Duration::ZERO, "the {number}th");
            course.dials(now);
        }
        let now = start + Duration::from_secs(20);
        assert_eq!(
            course.hold_back(now),
            Duration::from_secs(40),
            "the first is a minute old then"
        );
        assert_eq!(course.hold_back(start + DIALS_SPAN), Duration::ZERO);
    }

    #[test]
    fn the_clients_of_a_server_that_restarts_come_back_spread_and_of_one_that_broke_soon() {
        let longest = |kind| {
            let waits = (0..200).map(|seed| {
                let end = End {
                    why: String::new(),
                    kind,
                    live_for: GOOD_AFTER,
                };
                match Course::new().ended(end, &mut Dice::new(seed)) {
                    Next::Wait {
                        wait,
                        permanent: false,
                        ..
                    } => wait,
                    other => panic!("{other:?}"),
                }
            });
            waits.max().expect("waits")
        };
        let (restart, broken) = (longest(EndKind::ServerRestarts), longest(EndKind::Failed));
        assert!((4..=6).contains(&restart.as_secs()), "{restart:?}");
        assert!(broken <= Duration::from_secs(1), "{broken:?}");
    }

    #[test]
    fn a_status_is_answered_by_the_wait_that_goes_with_it() {
        let refused = |status, retry_after| OpenError::Refused {
            status,
            text: String::new(),
            retry_after,
        };
        let asked = Duration::from_secs(200);
        let captive = OpenError::Captive {
            page: "200, a web page".to_owned(),
        };
        let proxy = OpenError::ProxyRefused {
            proxy: "http://proxy:3128".to_owned(),
            why: "407".to_owned(),
        };
        let late = OpenError::Late {
            within: CONNECT_TIMEOUT,
        };
        for (error, at_least_s, at_most_s, is_permanent) in [
            (refused(403, None), 60, 90, true),
            (refused(404, None), 60, 90, true),
            (refused(429, None), 30, 31, false),
            (refused(429, Some(asked)), 200, 200, false),
            (refused(503, Some(asked)), 200, 200, false),
            (refused(500, None), 0, 1, false),
            (captive, 0, 1, false),
            (proxy, 60, 90, true),
            (late, 0, 1, false),
        ] {
            let next = Course::new().not_opened(&error, &mut Dice::new(3));
            let Next::Wait { wait, permanent, .. } = next else {
                panic!("{error}: {next:?}");
            };
            let range = Duration::from_secs(at_least_s)..=Duration::from_secs(at_most_s);
            assert!(range.contains(&wait), "{error}: {wait:?}");
            assert_eq!(permanent, is_permanent, "{error}");
        }
    }
}

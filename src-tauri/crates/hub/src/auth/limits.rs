//! How often one address on the network, and one account, may ask for something: so that guessing is slow, also with
//! many requests at once. In memory: a restart forgets, which is no help to a guesser.
//!
//! Never grows beyond [`KEYS_MAX`] entries per limit. Called by `token`, `signup` and `account`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use axum::http::StatusCode;
use domain::Timestamp;

use super::error::AuthError;
use crate::network::Network;

/// Entries remembered per limit; the one with the oldest window goes first.
const KEYS_MAX: usize = 10_000;
/// Five minutes, the window of all limits, in milliseconds.
const WINDOW_MS: u64 = 5 * 60 * 1000;
/// Tries at one account from one address on the network.
const TRIES_OF_ONE_MAX: u32 = 10;
/// Tries at one account from anywhere: higher, so that a stranger does not lock the owner out with ten requests.
const TRIES_OF_ALL_MAX: u32 = 60;

/// How many requests of a kind one address on the network may make in five minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthLimits {
    /// Sign-ins with a password, and changes of a user. GoTrue's hosted default.
    pub sign_ins: u32,
    /// Refreshes: a whole office behind one router refreshes from one address.
    pub refreshes: u32,
    /// New users. GoTrue's default.
    pub sign_ups: u32,
}

impl Default for AuthLimits {
    fn default() -> AuthLimits {
        AuthLimits {
            sign_ins: 150,
            refreshes: 1800,
            sign_ups: 30,
        }
    }
}

/// All limits of one hub.
#[derive(Debug)]
pub(crate) struct Limits {
    sign_ins: Counter<Network>,
    refreshes: Counter<Network>,
    sign_ups: Counter<Network>,
    tries_of_one: Counter<(String, Network)>,
    tries_of_all: Counter<String>,
}

impl Limits {
    pub fn new(limits: AuthLimits) -> Limits {
        Limits {
            sign_ins: Counter::new(limits.sign_ins),
            refreshes: Counter::new(limits.refreshes),
            sign_ups: Counter::new(limits.sign_ups),
            tries_of_one: Counter::new(TRIES_OF_ONE_MAX),
            tries_of_all: Counter::new(TRIES_OF_ALL_MAX),
        }
    }

    /// Counts a sign-in or a change of a user.
    pub fn sign_in(&self, ip: IpAddr, now: Timestamp) -> Result<(), AuthError> {
        self.sign_ins.count(Network::of(ip), now)
    }

    /// Counts a refresh.
    pub fn refresh(&self, ip: IpAddr, now: Timestamp) -> Result<(), AuthError> {
        self.refreshes.count(Network::of(ip), now)
    }

    /// Counts a sign-up, anonymous ones too.
    pub fn sign_up(&self, ip: IpAddr, now: Timestamp) -> Result<(), AuthError> {
        self.sign_ups.count(Network::of(ip), now)
    }

    /// Counts a try before its password is looked at.
    pub fn try_password(&self, email: &str, ip: IpAddr, now: Timestamp) -> Result<(), AuthError> {
        self.tries_of_one
            .count((email.to_owned(), Network::of(ip)), now)?;
        self.tries_of_all.count(email.to_owned(), now)
    }

    /// Forgets the tries of this address on the network after a right password. Those of others are kept: a guesser
    /// does not gain by the owner's signing in.
    pub fn right_password(&self, email: &str, ip: IpAddr) {
        self.tries_of_one.forget(&(email.to_owned(), Network::of(ip)));
    }
}

#[derive(Debug)]
struct Counter<K> {
    max: u32,
    counts: Mutex<HashMap<K, (Timestamp, u32)>>,
}

impl<K: Clone + Eq + std::hash::Hash> Counter<K> {
    fn new(max: u32) -> Counter<K> {
        Counter {
            max,
            counts: Mutex::default(),
        }
    }

    fn count(&self, key: K, now: Timestamp) -> Result<(), AuthError> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= KEYS_MAX && !counts.contains_key(&key) {
            counts.retain(|_, (since, _)| now.ms_since(*since) < WINDOW_MS);
            if counts.len() >= KEYS_MAX {
                let oldest = counts.iter().min_by_key(|(_, (since, _))| *since);
                let oldest = oldest.map(|(key, _)| key.clone());
                oldest.and_then(|key| counts.remove(&key));
            }
        }
        let entry = counts.entry(key).or_insert((now, 0));
        let elapsed = now.ms_since(entry.0);
        if elapsed >= WINDOW_MS {
            *entry = (now, 0);
        }
        if entry.1 >= self.max {
            let wait_s = WINDOW_MS.saturating_sub(elapsed).div_ceil(1000);
            return Err(AuthError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "over_request_rate_limit",
                "Request rate limit reached",
            )
            .retry_after(wait_s.max(1)));
        }
        entry.1 += 1;
        Ok(())
    }

    fn forget(&self, key: &K) {
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const START: Timestamp = Timestamp(1_000_000);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn guessing_is_stopped_and_the_stop_ends() {
        let limits = Limits::new(AuthLimits::default());
        for _ in 0..TRIES_OF_ONE_MAX {
            assert!(limits.try_password("a@b.c", HERE, START).is_ok());
        }
        assert!(limits.try_password("a@b.c", HERE, START).is_err());
        assert!(
            limits.try_password("other@b.c", HERE, START).is_ok(),
            "one account does not stop another"
        );
        assert!(
            limits.try_password("a@b.c", address("10.0.0.1"), START).is_ok(),
            "a stranger does not lock the owner out"
        );
        let later = START.plus_ms(WINDOW_MS as i64);
        assert!(limits.try_password("a@b.c", HERE, later).is_ok());
        limits.right_password("a@b.c", HERE);
        assert!(limits.try_password("a@b.c", HERE, START).is_ok());
    }

    #[test]
    fn one_account_cannot_be_guessed_at_from_everywhere() {
        let limits = Limits::new(AuthLimits::default());
        let tried = (0..200u8)
            .filter(|n| {
                limits
                    .try_password("a@b.c", IpAddr::from([10, 0, 0, *n]), START)
                    .is_ok()
            })
            .count();
        assert_eq!(tried, TRIES_OF_ALL_MAX as usize);
    }

    #[test]
    fn one_subscriber_is_one_address() {
        let limits = Limits::new(AuthLimits {
            sign_ups: 1,
            ..AuthLimits::default()
        });
        assert!(limits.sign_up(address("2001:db8::1"), START).is_ok());
        assert!(limits.sign_up(address("2001:db8::2"), START).is_err());
        assert!(limits.sign_up(address("2001:db8:0:1::2"), START).is_ok());
        assert!(limits.sign_up(address("10.0.0.1"), START).is_ok());
        assert!(limits.sign_up(address("::ffff:10.0.0.1"), START).is_err());
    }

    #[test]
    fn a_flood_of_addresses_does_not_grow_the_table() {
        let counter = Counter::new(1);
        for n in 0..KEYS_MAX as i64 + 50 {
            let _ = counter.count(n, Timestamp(n));
        }
        assert_eq!(counter.counts.lock().unwrap().len(), KEYS_MAX);
    }
}

//! Counts tries with no right password after them, so that guessing is slow, also with many requests at once. In
//! memory: a restart forgets, which is no help to a guesser.
//!
//! Never grows beyond [`ADDRESSES_MAX`]. Called by `routes`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use domain::Timestamp;

/// Tries per address within [`WINDOW_MS`] before further ones are refused.
const WRONG_MAX: u32 = 10;
/// Length of the window, in milliseconds.
const WINDOW_MS: u64 = 5 * 60 * 1000;
/// Addresses remembered; the one with the oldest window goes first.
const ADDRESSES_MAX: usize = 1000;

/// Tries by address.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    wrong: Mutex<HashMap<String, (Timestamp, u32)>>,
}

impl Attempts {
    /// Counts a try before its password is looked at; false when `email` has had too many lately.
    pub fn may_try(&self, email: &str, now: Timestamp) -> bool {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() >= ADDRESSES_MAX && !wrong.contains_key(email) {
            let oldest = wrong
                .iter()
                .min_by_key(|(_, (since, _))| *since)
                .map(|(email, _)| email.clone());
            oldest.and_then(|email| wrong.remove(&email));
        }
        let entry = wrong.entry(email.to_owned()).or_insert((now, 0));
        if now.ms_since(entry.0) >= WINDOW_MS {
            *entry = (now, 0);
        }
        let may = entry.1 < WRONG_MAX;
        entry.1 += u32::from(may);
        may
    }

    /// Forgets the tries after a right password.
    pub fn right(&self, email: &str) {
        self.wrong
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(email);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_is_stopped_and_the_stop_ends() {
        let attempts = Attempts::default();
        let start = Timestamp(1_000_000);
        for _ in 0..WRONG_MAX {
            assert!(attempts.may_try("a@b.c", start));
        }
        assert!(!attempts.may_try("a@b.c", start));
        assert!(
            attempts.may_try("other@b.c", start),
            "one address does not stop another"
        );
        assert!(attempts.may_try("a@b.c", start.plus_ms(WINDOW_MS as i64)));
        attempts.right("a@b.c");
        assert!(attempts.may_try("a@b.c", start));
    }

    #[test]
    fn a_flood_of_addresses_does_not_grow_the_table() {
        let attempts = Attempts::default();
        for n in 0..ADDRESSES_MAX as i64 + 50 {
            attempts.may_try(&format!("{n}@b.c"), Timestamp(n));
        }
        assert_eq!(attempts.wrong.lock().unwrap().len(), ADDRESSES_MAX);
    }
}

//! Bytes that requests and answers may have in memory: so many in all, so many of one account.
//!
//! Never keeps anybody waiting: there is room, or there is not. Called by [`crate::bodies`] and by `rest`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::jwt::Subject;

/// What may be in memory, and what is.
#[derive(Debug)]
pub(crate) struct Budget {
    all_max: usize,
    account_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// By account. No entry without bytes.
    of: HashMap<Subject, usize>,
}

impl Budget {
    /// Bytes in all, and of one account.
    pub fn new(all_max: usize, account_max: usize) -> Arc<Budget> {
        Arc::new(Budget {
            all_max,
            account_max,
            taken: Mutex::default(),
        })
    }

    fn take(&self, account: &Subject, bytes: usize) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of = taken.of.get(account).copied().unwrap_or_default();
        if bytes > self.all_max.saturating_sub(taken.all) || bytes > self.account_max.saturating_sub(of) {
            return false;
        }
        taken.all += bytes;
        *taken.of.entry(account.clone()).or_default() += bytes;
        true
    }

    fn give_back(&self, account: &Subject, bytes: usize) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(bytes);
        if let Some(of) = taken.of.get_mut(account) {
            *of = of.saturating_sub(bytes);
            if *of == 0 {
                taken.of.remove(account);
            }
        }
    }
}

/// What one request or answer has taken, until it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    account: Subject,
    bytes: AtomicUsize,
}

impl Charge {
    /// Nothing yet.
    pub fn new(budget: &Arc<Budget>, account: Subject) -> Charge {
        Charge {
            budget: budget.clone(),
            account,
            bytes: AtomicUsize::new(0),
        }
    }

    /// Takes more; false when there is no room for it.
    pub fn take(&self, bytes: usize) -> bool {
        let taken = self.budget.take(&self.account, bytes);
        if taken {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        taken
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let bytes = self.bytes.load(Ordering::Relaxed);
        if bytes > 0 {
            self.budget.give_back(&self.account, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn there_is_a_share_for_each_account_and_an_end_for_all() {
        let budget = Budget::new(40, 10);
        let mut charges = Vec::new();
        for account in 0..4 {
            let charge = Charge::new(&budget, Subject::User(Uuid::from_u128(account)));
            assert!(charge.take(4) && charge.take(6));
            assert!(!charge.take(1), "more than his share");
            charges.push(charge);
        }
        let late = Charge::new(&budget, Subject::Role("anon".to_owned()));
        assert!(!late.take(1), "more than all");
        charges.pop();
        assert!(late.take(10));
        charges.clear();
        drop(late);
        let taken = budget.taken.lock().unwrap();
        assert_eq!((taken.all, taken.of.len()), (0, 0));
    }
}

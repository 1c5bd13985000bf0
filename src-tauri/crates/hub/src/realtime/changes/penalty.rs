//! Whose filters took the database too long: for a while it compares none for him any more.
//!
//! So that joining again at once does not cost the others again what the filter cost before. Pure but for the time it is
//! given. Filled by `deliver`, asked by `subscribe`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::jwt::Claims;

/// How long it lasts.
pub(crate) const PENALTY: Duration = Duration::from_secs(60);
/// Subjects remembered; the one that has waited longest goes first.
const SUBJECTS_MAX: usize = 1000;

/// Whose question it is: a user, or all who have no more than the same role.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    User(Uuid),
    Role(String),
}

impl Subject {
    /// Of these claims.
    pub fn of(claims: &Claims) -> Subject {
        claims
            .user()
            .map_or_else(|| Subject::Role(claims.role.clone()), Subject::User)
    }
}

/// Until when whose filters are not compared.
#[derive(Debug, Default)]
pub(crate) struct Penalties {
    until: Mutex<HashMap<Subject, Instant>>,
}

impl Penalties {
    fn locked(&self) -> MutexGuard<'_, HashMap<Subject, Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, for [`PENALTY`].
    pub fn add(&self, subject: Subject, now: Instant) {
        let mut until = self.locked();
        until.retain(|_, until| *until > now);
        if until.len() >= SUBJECTS_MAX && !until.contains_key(&subject) {
            let oldest = until.iter().min_by_key(|(_, until)| **until);
            let oldest = oldest.map(|(subject, _)| subject.clone());
            oldest.and_then(|subject| until.remove(&subject));
        }
        until.insert(subject, now + PENALTY);
    }

    /// Whether it holds now.
    pub fn holds(&self, subject: &Subject, now: Instant) -> bool {
        self.locked().get(subject).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_penalty_ends_and_is_nobody_elses() {
        let (penalties, now) = (Penalties::default(), Instant::now());
        let (one, other) = (
            Subject::User(Uuid::from_u128(1)),
            Subject::Role("service_role".to_owned()),
        );
        penalties.add(one.clone(), now);
        assert!(penalties.holds(&one, now) && !penalties.holds(&other, now));
        assert!(!penalties.holds(&one, now + PENALTY));
    }

    #[test]
    fn many_of_them_are_forgotten_oldest_first() {
        let (penalties, now) = (Penalties::default(), Instant::now());
        let subject = |n: usize| Subject::User(Uuid::from_u128(n as u128));
        for n in 0..=SUBJECTS_MAX {
            let later = Duration::from_millis(n as u64);
            penalties.add(subject(n), now + later);
        }
        assert_eq!(penalties.locked().len(), SUBJECTS_MAX);
        let later = now + Duration::from_secs(2);
        assert!(!penalties.holds(&subject(0), later) && penalties.holds(&subject(SUBJECTS_MAX), later));
    }
}

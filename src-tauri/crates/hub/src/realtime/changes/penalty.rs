//! Whose filters took the database too long: for a while it compares none for him any more.
//!
//! So that joining again at once does not cost the others again what the filter cost before. Pure but for the time it is
//! given. Filled by `deliver` and `subscribe`, which
//! ask it, too.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::jwt::Subject;

/// How long it lasts.
pub(crate) const PENALTY: Duration = Duration::from_secs(60);
/// Subjects remembered; the one that has waited longest goes first.
const SUBJECTS_MAX: usize = 1000;

/// What is remembered of somebody.
#[derive(Debug, Clone, Copy)]
struct Lateness {
    until: Instant,
    /// Whether nothing is compared for him until then; else he has only been late.
    holds: bool,
}

/// Whose filters were late lately, and whose are not compared.
#[derive(Debug, Default)]
pub(crate) struct Penalties {
    of: Mutex<HashMap<Subject, Lateness>>,
}

impl Penalties {
    fn locked(&self) -> MutexGuard<'_, HashMap<Subject, Lateness>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, for [`PENALTY`].
    pub fn add(&self, subject: Subject, now: Instant) {
        self.remember(subject, now, true);
    }

    /// His filters took too long. True when they did so within the last [`PENALTY`] already, and are compared no more for
    /// as long from now on.
    pub fn late(&self, subject: Subject, now: Instant) -> bool {
        let again = self.locked().get(&subject).is_some_and(|one| one.until > now);
        self.remember(subject, now, again);
        again
    }

    fn remember(&self, subject: Subject, now: Instant, holds: bool) {
        let mut of = self.locked();
        of.retain(|_, one| one.until > now);
        if of.len() >= SUBJECTS_MAX && !of.contains_key(&subject) {
            let oldest = of.iter().min_by_key(|(_, one)| one.until);
            let oldest = oldest.map(|(subject, _)| subject.clone());
            oldest.and_then(|subject| of.remove(&subject));
        }
        let until = now + PENALTY;
        of.insert(subject, Lateness { until, holds });
    }

    /// Whether it holds now.
    pub fn holds(&self, subject: &Subject, now: Instant) -> bool {
        let of = self.locked();
        of.get(subject).is_some_and(|one| one.holds && one.until > now)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

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
    fn who_is_late_once_is_only_remembered() {
        let (penalties, now) = (Penalties::default(), Instant::now());
        let one = Subject::User(Uuid::from_u128(1));
        assert!(!penalties.late(one.clone(), now) && !penalties.holds(&one, now));
        let later = now + PENALTY;
        assert!(!penalties.late(one.clone(), later), "that is long ago");
        let soon = later + PENALTY / 2;
        assert!(penalties.late(one.clone(), soon) && penalties.holds(&one, soon));
        assert!(
            penalties.late(one.clone(), soon),
            "it is late as long as it holds"
        );
        assert!(!penalties.holds(&one, soon + PENALTY));
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

//! Points in time, and the seam through which the programs hand the clock down.

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z on the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Milliseconds since `earlier`; 0 when the clock went backwards.
    pub fn ms_since(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0).try_into().unwrap_or(0)
    }

    /// This point moved `ms` into the future.
    pub fn plus_ms(self, ms: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(ms))
    }

    /// RFC 3339 in UTC with milliseconds (`2026-11-21T05:19:00.123Z`), as the database and logs want it.
    pub fn rfc3339(self) -> String {
        use time::format_description::well_known::Rfc3339;
        time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .ok()
            .and_then(|at| at.format(&Rfc3339).ok())
            .unwrap_or_else(|| format!("{} ms", self.0))
    }

    /// Reads what Postgres prints for a `timestamptz` in JSON, or any RFC 3339 text.
    pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
        use time::format_description::well_known::Rfc3339;
        let at = time::OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(at.unix_timestamp_nanos() / 1_000_000)
            .ok()
            .map(Timestamp)
    }
}

/// A moment by the clock that counts from the machine's start: nobody sets it, and it goes on while the machine sleeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinceBoot {
    /// Which start of the machine, in the kernel's words.
    pub boot: String,
    /// Milliseconds since it.
    pub ms: u64,
}

impl SinceBoot {
    /// Milliseconds since `earlier`; `None` when the machine was started anew in between.
    pub fn ms_since(&self, earlier: &SinceBoot) -> Option<u64> {
        (self.boot == earlier.boot).then(|| self.ms.saturating_sub(earlier.ms))
    }
}

/// Where the time comes from. Programs pass the system's clock, tests a clock of their own.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// The time since the machine's start, where that can be told.
    fn since_boot(&self) -> Option<SinceBoot> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_survives_its_text_form() {
        let at = Timestamp(1_795_223_944_123);
        assert_eq!(Timestamp::parse_rfc3339(&at.rfc3339()), Some(at));
        assert_eq!(
            Timestamp::parse_rfc3339("2026-01-01T00:00:00.123456+00:00"),
            Some(Timestamp(1_767_225_600_123)),
            "microseconds and a numeric offset, as Postgres prints them"
        );
    }

    #[test]
    fn a_clock_that_went_backwards_gives_no_negative_span() {
        assert_eq!(Timestamp(5).ms_since(Timestamp(9)), 0);
    }
}

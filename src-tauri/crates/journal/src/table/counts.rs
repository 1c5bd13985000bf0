//! Figures over all tables.

use domain::Timestamp;

use crate::row::{get, time_option};
use crate::{Journal, JournalError};

/// How much of everything the journal holds, for `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Counts {
    /// Commands taken whose work has not begun.
    pub received: u64,
    /// Commands whose work has begun and not ended.
    pub started: u64,
    /// Commands whose work has ended.
    pub finished: u64,
    /// Results that the office has not acknowledged.
    pub results_waiting: u64,
    /// When the oldest of them was made.
    pub oldest_waiting: Option<Timestamp>,
    /// Sessions that have not ended.
    pub sessions_open: u64,
    /// Turns that have not ended.
    pub turns_open: u64,
}

/// `<> 'finished'` is what the index of the open rows is known by.
pub(crate) const SQL: &str = "
    select (select count(*) from inbox where phase <> 'finished' and phase = 'received') as received,
           (select count(*) from inbox where phase <> 'finished' and phase = 'started')  as started,
           (select count(*) from inbox where phase = 'finished')  as finished,
           (select count(*) from outbox where acknowledged is null) as results_waiting,
           (select min(created_at) from outbox where acknowledged is null) as oldest_waiting,
           (select count(*) from sessions where ended_at is null) as sessions_open,
           (select count(*) from turns where ended_at is null)    as turns_open";

impl Journal {
    /// The figures now.
    pub fn counts(&self) -> Result<Counts, JournalError> {
        self.read("count", |connection| {
            let mut statement = connection.prepare_cached(SQL)?;
            let mut rows = statement.query([])?;
            let Some(row) = rows.next()? else {
                return Ok(Counts::default());
            };
            let count = |column| get::<i64>(row, column).map(i64::unsigned_abs);
            Ok(Counts {
                received: count("received")?,
                started: count("started")?,
                finished: count("finished")?,
                results_waiting: count("results_waiting")?,
                oldest_waiting: time_option(row, "oldest_waiting")?,
                sessions_open: count("sessions_open")?,
                turns_open: count("turns_open")?,
            })
        })
    }
}

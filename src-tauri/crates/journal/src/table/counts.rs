//! Figures over all tables, and the removal of what nobody will ask for again.

use domain::Timestamp;

use crate::row::{get, time_option};
use crate::{Journal, JournalError};

/// Most rows that one call of [`Journal::prune`] removes, so that it never holds the file for long.
const PRUNE_ROWS_MAX: i64 = 1_000;

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

impl Journal {
    /// The figures now.
    pub fn counts(&self) -> Result<Counts, JournalError> {
        const SQL: &str = "
            select (select count(*) from inbox where phase = 'received')  as received,
                   (select count(*) from inbox where phase = 'started')   as started,
                   (select count(*) from inbox where phase = 'finished')  as finished,
                   (select count(*) from outbox where acknowledged is null) as results_waiting,
                   (select min(created_at) from outbox where acknowledged is null) as oldest_waiting,
                   (select count(*) from sessions where ended_at is null) as sessions_open,
                   (select count(*) from turns where ended_at is null)    as turns_open";
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

    /// Removes acknowledged commands (with their results) and ended sessions (with their turns) that ended before
    /// `before`. At most 1,000 of each per call; returns how many went.
    pub fn prune(&self, before: Timestamp) -> Result<usize, JournalError> {
        self.write("remove old rows", |transaction| {
            let commands = transaction.execute(
                "delete from inbox where command_id in (
                   select i.command_id from inbox i join outbox o using (command_id)
                    where i.phase = 'finished' and i.finished_at < ?1 and o.acknowledged is not null limit ?2)",
                (before.0, PRUNE_ROWS_MAX),
            )?;
            let sessions = transaction.execute(
                "delete from sessions where session_id in (
                   select session_id from sessions where ended_at < ?1 limit ?2)",
                (before.0, PRUNE_ROWS_MAX),
            )?;
            Ok(commands + sessions)
        })
    }
}

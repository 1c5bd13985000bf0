//! The removal of what nobody will ask for again, by age and by size. Never of a result that the office does not have,
//! of work that has not ended, or of a session that has not: those leave by being reported and ended only.
//!
//! The client calls it now and then from its loop: each call is one small step.

use domain::Timestamp;
use rusqlite::{Connection, Transaction};
use serde::Serialize;

use crate::row::Fault;
use crate::{Journal, JournalError};

/// Above this many bytes in use, the oldest rows go whatever their age.
pub const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// So many of the newest commands stay whatever their age: a clock that jumped ahead makes everything look old, and
/// what is asked about is recent.
pub const COMMANDS_KEPT_MIN: u32 = 1_000;

/// Most commands, sessions and turns of people that one call removes, so that it never holds the loop for long.
const PRUNE_ROWS_MAX: i64 = 200;

/// Free pages (of 4 KiB) that stay in the file to be written again, so that it does not grow and shrink all the time.
const FREE_PAGES_KEPT: i64 = 256;

/// Most pages that one call gives back to the disk.
const VACUUM_PAGES_MAX: i64 = 512;

/// What one call of [`Journal::prune`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Commands (with their results and turns), sessions and turns of people that went.
    pub rows: usize,
    /// There is more to remove or to give back: call again soon.
    pub more: bool,
}

/// What the journal takes on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Bytes of the file that hold rows.
    pub used: u64,
    /// Bytes of the file.
    pub file: u64,
    /// Bytes of the write-ahead log beside it.
    pub log: u64,
}

/// Where pruning ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// See [`JOURNAL_BYTES_MAX`].
    pub(crate) bytes_max: u64,
    /// See [`COMMANDS_KEPT_MIN`].
    pub(crate) kept_min: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            bytes_max: JOURNAL_BYTES_MAX,
            kept_min: COMMANDS_KEPT_MIN,
        }
    }
}

impl Journal {
    /// Removes acknowledged commands (with their results and turns), ended sessions and ended turns of people that
    /// ended before `before`, and the oldest of them whatever their age while more than [`JOURNAL_BYTES_MAX`] are in
    /// use. A small step per call; see [`Pruned::more`]. Not durable by itself: what comes back after a power cut goes
    /// again.
    pub fn prune(&self, before: Timestamp) -> Result<Pruned, JournalError> {
        self.prune_to(before, Limits::default())
    }

    pub(crate) fn prune_to(&self, before: Timestamp, limits: Limits) -> Result<Pruned, JournalError> {
        let (rows, more) = self.write_soon("remove old rows", |transaction| {
            let pages = Pages::of(transaction)?;
            let pressed = pages.used() > limits.bytes_max;
            let old = if pressed { i64::MAX } else { before.0 };
            let kept = if pressed { 0 } else { limits.kept_min };
            let commands = commands(transaction, old, kept)?;
            let turns = transaction
                .prepare_cached(
                    "delete from turns where turn_id in (
                       select turn_id from turns where command_id is null and ended_at is not null and ended_at < ?1
                        order by ended_at limit ?2)",
                )?
                .execute((old, PRUNE_ROWS_MAX))?;
            let sessions = transaction
                .prepare_cached(
                    "delete from sessions where session_id in (
                       select s.session_id from sessions s
                        where s.ended_at is not null and s.ended_at < ?1
                          and not exists (select 1 from turns t
                                           where t.session_id = s.session_id
                                             and (t.ended_at is null
                                                  or t.command_id in (select command_id from inbox)))
                        order by s.ended_at limit ?2)",
                )?
                .execute((old, PRUNE_ROWS_MAX))?;
            let full = PRUNE_ROWS_MAX as usize;
            let rows = commands + turns + sessions;
            let more = commands == full || turns == full || sessions == full || (pressed && rows > 0);
            Ok((rows, more))
        })?;
        let more_pages = self.give_back()?;
        Ok(Pruned {
            rows,
            more: more || more_pages,
        })
    }

    /// Gives free pages back to the disk; `true` when there are more to give.
    fn give_back(&self) -> Result<bool, JournalError> {
        self.read("give space back", |connection| {
            let pages = Pages::of(connection)?;
            let too_many = pages.free - FREE_PAGES_KEPT;
            if !pages.can_shrink || too_many <= 0 {
                return Ok(false);
            }
            let now = too_many.min(VACUUM_PAGES_MAX);
            // A transaction of SQLite's own; interrupted at any point it is whole or not there.
            connection.execute_batch(&format!("pragma incremental_vacuum({now})"))?;
            Ok(too_many > now)
        })
    }

    /// What the journal takes on the disk.
    pub fn size(&self) -> Result<Size, JournalError> {
        let pages = self.read("read the size", Pages::of)?;
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        Ok(Size {
            used: pages.used(),
            file: pages.bytes(pages.all),
            log: std::fs::metadata(log).map_or(0, |log| log.len()),
        })
    }
}

/// Removes a batch of commands with their results and turns; returns how many.
fn commands(transaction: &Transaction<'_>, before: i64, kept: u32) -> Result<usize, Fault> {
    let mut statement = transaction.prepare_cached(
        "delete from inbox where command_id in (
           select i.command_id from inbox i join outbox o on o.command_id = i.command_id
            where i.phase = 'finished' and i.finished_at < ?1 and o.acknowledged is not null
              and i.place <= (select max(place) from inbox) - ?2
            order by i.finished_at, i.place limit ?3)
         returning command_id",
    )?;
    let gone = statement
        .query_map((before, kept, PRUNE_ROWS_MAX), |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut turns =
        transaction.prepare_cached("delete from turns where command_id = ?1 and ended_at is not null")?;
    for command in &gone {
        turns.execute([command])?;
    }
    Ok(gone.len())
}

/// The file in pages.
struct Pages {
    all: i64,
    free: i64,
    size: i64,
    /// Whether free pages can be given back; not in a file that could not be brought to that for lack of space.
    can_shrink: bool,
}

impl Pages {
    fn of(connection: &Connection) -> Result<Pages, Fault> {
        let pragma = |name: &str| -> rusqlite::Result<i64> {
            connection.query_row(&format!("pragma {name}"), [], |row| row.get(0))
        };
        Ok(Pages {
            all: pragma("page_count")?,
            free: pragma("freelist_count")?,
            size: pragma("page_size")?,
            can_shrink: pragma("auto_vacuum")? == 2,
        })
    }

    fn bytes(&self, pages: i64) -> u64 {
        pages.saturating_mul(self.size).unsigned_abs()
    }

    fn used(&self) -> u64 {
        self.bytes(self.all - self.free)
    }
}

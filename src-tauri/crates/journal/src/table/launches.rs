//! Tables `launches` and `memory`: how often a core was started on this data folder, and the few small things that
//! the client remembers from one start to the next.

use domain::Timestamp;
use rusqlite::OptionalExtension;
use serde_json::Value;

use crate::row::Fault;
use crate::{Journal, JournalError};

/// How many starts are kept, for people; the number of the newest one is what matters.
const LAUNCHES_KEPT: i64 = 100;

/// Longest value that [`Journal::remember`] takes, in bytes of its JSON text: it is for small things.
pub const MEMORY_BYTES_MAX: usize = 64 * 1024;

/// Most keys that [`Journal::remember`] keeps.
pub const MEMORY_KEYS_MAX: i64 = 1_000;

/// A start of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Launch {
    /// Its number.
    pub epoch: u64,
    /// When it was.
    pub at: Timestamp,
}

impl Journal {
    /// Writes down that a core starts, and returns its epoch: higher than that of every core before it on this file.
    /// It counts up from the time in milliseconds, so that a new file (the old one was set aside) goes on above it:
    /// holders obey the highest epoch they have seen. Durable: two cores with one epoch would both be obeyed.
    pub fn launch(&self, now: Timestamp) -> Result<u64, JournalError> {
        self.write("write down the start of a core", |transaction| {
            let last: i64 =
                transaction.query_row("select coalesce(max(epoch), 0) from launches", [], |row| row.get(0))?;
            let epoch = now.0.max(last.saturating_add(1));
            transaction.execute(
                "insert into launches (epoch, launched_at) values (?1, ?2)",
                (epoch, now.0),
            )?;
            transaction.execute(
                "delete from launches where epoch not in (select epoch from launches order by epoch desc limit ?1)",
                [LAUNCHES_KEPT],
            )?;
            u64::try_from(epoch).map_err(|_| Fault::Malformed(format!("epoch {epoch}")))
        })
    }

    /// The newest start that was written down.
    pub fn last_launch(&self) -> Result<Option<Launch>, JournalError> {
        self.read("read the last start", |connection| {
            Ok(connection
                .prepare_cached("select epoch, launched_at from launches order by epoch desc limit 1")?
                .query_row([], |row| {
                    Ok(Launch {
                        epoch: row.get::<_, i64>(0)?.unsigned_abs(),
                        at: Timestamp(row.get(1)?),
                    })
                })
                .optional()?)
        })
    }

    /// Keeps `value` under `key` for the next start; `Null` forgets it. Durable. At most [`MEMORY_BYTES_MAX`] each and
    /// [`MEMORY_KEYS_MAX`] keys: more is refused, nothing is written then.
    pub fn remember(&self, key: &str, value: &Value) -> Result<(), JournalError> {
        self.write("remember something", |transaction| {
            if value.is_null() {
                transaction
                    .prepare_cached("delete from memory where key = ?1")?
                    .execute([key])?;
                return Ok(());
            }
            let text = value.to_string();
            if text.len() > MEMORY_BYTES_MAX {
                return Err(Fault::TooMuch(format!("`{key}` has {} bytes", text.len())));
            }
            transaction
                .prepare_cached(
                    "insert into memory (key, value) values (?1, ?2)
                     on conflict (key) do update set value = excluded.value",
                )?
                .execute((key, text))?;
            let keys: i64 = transaction.query_row("select count(*) from memory", [], |row| row.get(0))?;
            if keys > MEMORY_KEYS_MAX {
                return Err(Fault::TooMuch(format!("`{key}` is one key too many")));
            }
            Ok(())
        })
    }

    /// What was kept under `key`.
    pub fn recall(&self, key: &str) -> Result<Option<Value>, JournalError> {
        self.read("recall something", |connection| {
            let text: Option<String> = connection
                .prepare_cached("select value from memory where key = ?1")?
                .query_row([key], |row| row.get(0))
                .optional()?;
            text.map(|text| {
                serde_json::from_str(&text)
                    .map_err(|error| Fault::Malformed(format!("what is remembered as `{key}`: {error}")))
            })
            .transpose()
        })
    }
}

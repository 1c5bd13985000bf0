//! The client's journal: commands taken, turns run, sessions started, results still to be reported. It is written
//! before an effect and in the same transaction as an outcome, so that a crash between any two lines loses nothing
//! and repeats nothing.
//!
//! Invariants: the only crate that knows SQLite; no clock and no randomness (times and ids are arguments); one
//! process writes a journal file. Every call is one short transaction, and it blocks: async callers wrap it in
//! `spawn_blocking` or accept a few milliseconds. Nothing hangs on the clock going forward. Called by `client`, which
//! owns it, by `session` for the stages of its turns, and by `cli`, which reads.
//!
//! What is written survives the end of our process in any case. What must survive a power cut too is on the disk when
//! its call returns; each call that is not so says why it need not be. Order holds in both: whatever survives, all that
//! was written before it survives.

mod aside;
mod error;
mod row;
mod schema;
mod table;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

pub use aside::set_aside;
pub use error::JournalError;
pub use table::counts::Counts;
pub use table::inbox::{InboxRow, NewCommand, Phase, Received, Recovery};
pub use table::launches::{Launch, MEMORY_BYTES_MAX, MEMORY_KEYS_MAX};
pub use table::outbox::{
    ACCOUNT, Acknowledgement, Finish, Finished, NewResult, OutboxRow, PAUSE_MS_MAX, ResultStatus,
};
pub use table::overview::{CommandOverview, Overview, ResultOverview, TurnOverview};
pub use table::prune::{COMMANDS_KEPT_MIN, JOURNAL_BYTES_MAX, Pruned, Size};
pub use table::sessions::SessionRow;
pub use table::turns::{NewTurn, TurnEnd, TurnRow};

/// An open journal. Share it behind an `Arc`; calls queue on a lock inside.
#[derive(Debug)]
pub struct Journal {
    connection: Mutex<Connection>,
    path: PathBuf,
}

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// On the disk when the call returns.
    Now,
    /// With the next one that is; our own end does not take it back, a power cut may.
    Soon,
}

impl Journal {
    /// Opens the journal at `path`, making the file (mode 0600) and its folder when they are missing, and brings its
    /// tables up to the version of this program. A damaged file or one of a newer program is refused, not touched.
    pub fn open(path: &Path) -> Result<Journal, JournalError> {
        let connection = schema::open(path)?;
        Ok(Journal {
            connection: Mutex::new(connection),
            path: path.to_owned(),
        })
    }

    /// Opens the journal at `path` to look at it, beside a core that writes it or without one: nothing is made, brought
    /// up to date or changed; a call that would write is refused. Waits at most 5 s for a lock.
    pub fn open_to_read(path: &Path) -> Result<Journal, JournalError> {
        let connection = schema::open_to_read(path)?;
        Ok(Journal {
            connection: Mutex::new(connection),
            path: path.to_owned(),
        })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A caller that panicked under the lock left at most an open transaction, which its guard has rolled back.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` in one immediate transaction, on the disk when it returns; any error rolls all of it back.
    fn write<T>(
        &self,
        what: &'static str,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, row::Fault>,
    ) -> Result<T, JournalError> {
        self.write_with(Durability::Now, what, work)
    }

    /// Like [`Journal::write`], without waiting for the disk.
    fn write_soon<T>(
        &self,
        what: &'static str,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, row::Fault>,
    ) -> Result<T, JournalError> {
        self.write_with(Durability::Soon, what, work)
    }

    fn write_with<T>(
        &self,
        durability: Durability,
        what: &'static str,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, row::Fault>,
    ) -> Result<T, JournalError> {
        let mut connection = self.connection();
        let outcome = (|| {
            schema::set_durability(&connection, durability)?;
            let transaction =
                connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })();
        outcome.map_err(|fault| self.error(what, fault))
    }

    /// Runs `work` without a transaction of its own, for one statement that only reads.
    fn read<T>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, row::Fault>,
    ) -> Result<T, JournalError> {
        work(&self.connection()).map_err(|fault| self.error(what, fault))
    }

    fn error(&self, what: &'static str, fault: row::Fault) -> JournalError {
        JournalError::from_fault(what, &self.path, fault)
    }
}

#[cfg(test)]
mod tests;

//! The client's journal: commands taken, turns run, sessions started, results still to be reported. It is written
//! before an effect and in the same transaction as an outcome, so that a crash between any two lines loses nothing
//! and repeats nothing.
//!
//! Invariants: the only crate that knows SQLite; no clock and no randomness (times and ids are arguments); one
//! process owns a journal file. Every call is one short transaction that is on the disk when it returns, and it
//! blocks: async callers wrap it in `spawn_blocking` or accept a few milliseconds. Called by `client` only.

mod error;
mod row;
mod schema;
mod table;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

pub use error::JournalError;
pub use table::counts::Counts;
pub use table::inbox::{InboxRow, NewCommand, Phase, Received};
pub use table::outbox::{Acknowledgement, Finish, Finished, NewResult, OutboxRow, ResultStatus};
pub use table::sessions::SessionRow;
pub use table::turns::{NewTurn, TurnEnd, TurnRow};

/// An open journal. Share it behind an `Arc`; calls queue on a lock inside.
#[derive(Debug)]
pub struct Journal {
    connection: Mutex<Connection>,
    path: PathBuf,
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

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A caller that panicked under the lock left at most an open transaction, which its guard has rolled back.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` in one immediate transaction; any error rolls all of it back.
    fn write<T>(
        &self,
        what: &'static str,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, row::Fault>,
    ) -> Result<T, JournalError> {
        let mut connection = self.connection();
        let outcome = (|| {
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

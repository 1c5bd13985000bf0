//! Opening the file: settings that make a commit durable, the check for damage, and the forward-only migrations.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::error::JournalError;

/// The migrations in order; `user_version` of the file is the number of those that were applied.
const MIGRATIONS: &[&str] = &[include_str!("../../../../migrations/local/0001_journal.sql")];

/// How long a statement waits for another program that holds the file (a backup, a person with `sqlite3`).
const BUSY_WAIT: Duration = Duration::from_secs(5);

pub(crate) fn open(path: &Path) -> Result<Connection, JournalError> {
    make_file(path)?;
    let sqlite = |what| move |error| JournalError::from_sqlite(what, path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(sqlite("open"))?;
    connection.busy_timeout(BUSY_WAIT).map_err(sqlite("open"))?;
    // The first statement that reads the file: here SQLite notices a file that is no database.
    let found = version(&connection).map_err(sqlite("read the version"))?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(JournalError::Newer {
            path: path.to_owned(),
            found,
            known,
        });
    }
    configure(&connection).map_err(sqlite("set up"))?;
    check(&connection, path)?;
    migrate(&mut connection, found).map_err(sqlite("bring the tables up to date"))?;
    Ok(connection)
}

/// Prompts and results are nobody else's business: the file is made before SQLite would, with mode 0600. Its
/// side files take the mode over.
fn make_file(path: &Path) -> Result<(), JournalError> {
    let open_error = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::StorageFull => JournalError::DiskFull {
            what: "make the file",
            path: path.to_owned(),
        },
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            JournalError::ReadOnly {
                what: "make or open the file",
                path: path.to_owned(),
            }
        }
        _ => JournalError::Open {
            path: path.to_owned(),
            why: error.to_string(),
        },
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(open_error)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(open_error)?;
    Ok(())
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("pragma user_version", [], |row| row.get(0))
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    // FULL: a commit that returned survives a power cut; the inbox is worth nothing otherwise.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", "on")?;
    Ok(())
}

fn check(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    let finding: String = connection
        .query_row("pragma quick_check(1)", [], |row| row.get(0))
        .map_err(|error| JournalError::from_sqlite("check", path, error))?;
    if finding == "ok" {
        return Ok(());
    }
    Err(JournalError::Corrupt {
        path: path.to_owned(),
        detail: finding,
    })
}

fn migrate(connection: &mut Connection, from: i64) -> rusqlite::Result<()> {
    let from = usize::try_from(from).unwrap_or(0);
    for (index, sql) in MIGRATIONS.iter().enumerate().skip(from) {
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        // Another program of ours may have migrated while we waited for the lock.
        if version(&transaction)? != index as i64 {
            continue;
        }
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", index as i64 + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

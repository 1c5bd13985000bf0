//! Opening the file: settings that make a commit durable, the check for damage, and the forward-only migrations.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::Durability;
use crate::error::JournalError;

/// The migrations in order; `user_version` of the file is the number of those that were applied.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../../migrations/local/0001_journal.sql"),
    include_str!("../../../../migrations/local/0002_recovery.sql"),
];

/// How long a statement waits for another program that holds the file (a backup, a person with `sqlite3`).
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Pages in the write-ahead log after which a commit brings them into the file.
const LOG_PAGES_MAX: i64 = 1_000;

/// A log that grew longer than this (one large transaction, a reader that held it) is cut back to it once it is empty.
const LOG_BYTES_KEPT: i64 = 4 * 1024 * 1024;

pub(crate) fn open(path: &Path) -> Result<Connection, JournalError> {
    make_file(path)?;
    let sqlite = |what| move |error| JournalError::from_sqlite(what, path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(sqlite("open"))?;
    connection.busy_timeout(BUSY_WAIT).map_err(sqlite("open"))?;
    // The first statement that reads the file: here SQLite notices a file that is no database.
    let found = version(&connection).map_err(sqlite("read the version"))?;
    not_newer(path, found)?;
    configure(&connection).map_err(sqlite("set up"))?;
    check(&connection, path)?;
    migrate(&mut connection, found).map_err(sqlite("bring the tables up to date"))?;
    make_shrinkable(&connection);
    Ok(connection)
}

pub(crate) fn open_to_read(path: &Path) -> Result<Connection, JournalError> {
    let sqlite = |what| move |error| JournalError::from_sqlite(what, path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sqlite("open"))?;
    connection.busy_timeout(BUSY_WAIT).map_err(sqlite("open"))?;
    let found = version(&connection).map_err(sqlite("read the version"))?;
    not_newer(path, found)?;
    let known = MIGRATIONS.len() as i64;
    if found < known {
        return Err(JournalError::Older {
            path: path.to_owned(),
            found,
            known,
        });
    }
    Ok(connection)
}

fn not_newer(path: &Path, found: i64) -> Result<(), JournalError> {
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(JournalError::Newer {
            path: path.to_owned(),
            found,
            known,
        });
    }
    Ok(())
}

/// Prompts and results are nobody else's business: the file is made before SQLite would, with mode 0600. Its
/// side files take the mode over.
fn make_file(path: &Path) -> Result<(), JournalError> {
    let open_error = |error: std::io::Error| JournalError::from_io("make or open the file", path, &error);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(open_error)?;
    }
    let made = !path.exists();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(open_error)?;
    if made {
        // SQLite makes its own files' names durable; this one it did not make.
        sync_folder(path).map_err(open_error)?;
    }
    Ok(())
}

/// Makes the names in the folder of `path` durable, where the system has that.
pub(crate) fn sync_folder(path: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        fs::File::open(folder)?.sync_all()?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("pragma user_version", [], |row| row.get(0))
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    let pages: i64 = connection.query_row("pragma page_count", [], |row| row.get(0))?;
    if pages == 0 {
        // Must stand before the first page is written; into a file with pages it would write at once.
        connection.pragma_update(None, "auto_vacuum", "incremental")?;
    }
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", LOG_PAGES_MAX, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES_KEPT, |_| Ok(()))?;
    // On macOS an ordinary sync stops at the disk's own cache; elsewhere these say nothing new.
    connection.pragma_update(None, "fullfsync", "on")?;
    connection.pragma_update(None, "checkpoint_fullfsync", "on")?;
    set_durability(connection, Durability::Now)?;
    connection.pragma_update(None, "foreign_keys", "on")?;
    Ok(())
}

/// FULL: the log is on the disk before a commit returns. NORMAL: it gets there with the next such commit or
/// checkpoint; the file stays whole and its history without gaps, but a power cut may take the newest commits.
pub(crate) fn set_durability(connection: &Connection, durability: Durability) -> rusqlite::Result<()> {
    let level = match durability {
        Durability::Now => "full",
        Durability::Soon => "normal",
    };
    connection.pragma_update(None, "synchronous", level)
}

/// A file of the first version cannot give space back; it is rewritten once. Without the space for that it goes on as
/// it is (its free pages are used again), and the next start tries once more.
fn make_shrinkable(connection: &Connection) {
    let mode = connection.query_row("pragma auto_vacuum", [], |row| row.get::<_, i64>(0));
    if mode.is_ok_and(|mode| mode == 0) {
        let _ = connection.execute_batch("pragma auto_vacuum = incremental; vacuum");
    }
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

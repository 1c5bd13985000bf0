//! Putting a damaged journal aside: kept whole under another name, so that the client can start with an empty one.
//! An explicit act of a person (`semo doctor --set-journal-aside`), never done by the program itself; nothing is ever
//! deleted or written over.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::error::JournalError;
use crate::schema;

/// The file and what SQLite keeps beside it, in the order in which the old names go: a log must never stand beside a
/// new file, into which it would be replayed.
const PARTS: [&str; 3] = ["-wal", "-shm", ""];

/// How long it is tried to have the file alone.
const ALONE_WAIT: Duration = Duration::from_millis(500);

/// Most names that are tried when somebody does this again and again within one second.
const NAMES_MAX: u32 = 100;

/// Gives the journal at `path`, with its side files, another name in its folder (`<name>.aside-<time>`) and returns
/// that. The caller has made sure that no core runs on it; a program that holds the file all the same is
/// [`JournalError::Busy`]. Interrupted at any point, a whole copy stands under one name or the other.
pub fn set_aside(path: &Path, now: Timestamp) -> Result<PathBuf, JournalError> {
    const WHAT: &str = "put aside";
    let io_error = |error: std::io::Error| JournalError::from_io(WHAT, path, &error);
    fs::metadata(path).map_err(io_error)?;
    be_alone(path, WHAT)?;
    let aside = free_name(path, now).ok_or_else(|| JournalError::Open {
        path: path.to_owned(),
        why: "too many journals were put aside within this second; wait a moment".to_owned(),
    })?;
    let present: Vec<&str> = PARTS
        .into_iter()
        .filter(|part| with(path, part).exists())
        .collect();
    // The whole set stands under the new name before anything of the old one goes.
    for part in &present {
        let (from, to) = (with(path, part), with(&aside, part));
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).map_err(io_error)?;
            fs::File::open(&to)
                .and_then(|file| file.sync_all())
                .map_err(io_error)?;
        }
    }
    schema::sync_folder(path).map_err(io_error)?;
    for part in &present {
        fs::remove_file(with(path, part)).map_err(io_error)?;
        schema::sync_folder(path).map_err(io_error)?;
    }
    Ok(aside)
}

/// Another program that has the file open holds a lock on it. A file that is damaged so far that SQLite cannot even
/// ask is held by nobody who could use it.
fn be_alone(path: &Path, what: &'static str) -> Result<(), JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let asked = Connection::open_with_flags(path, flags).and_then(|connection| {
        connection.busy_timeout(ALONE_WAIT)?;
        // Evidence is not touched: neither the log is written into the file at the end, nor removed.
        connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.pragma_update(None, "locking_mode", "exclusive")?;
        connection.execute_batch("begin exclusive; rollback")
    });
    match asked {
        Err(error)
            if matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
            ) =>
        {
            Err(JournalError::from_sqlite(what, path, error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn with(path: &Path, part: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(part);
    name.into()
}

/// `journal.db.aside-20261121T120530Z`, with a number behind it where that is taken.
fn free_name(path: &Path, now: Timestamp) -> Option<PathBuf> {
    let time: String = now
        .rfc3339()
        .chars()
        .take_while(|c| *c != '.')
        .filter(|c| c.is_ascii_alphanumeric())
        .collect();
    let time = time.trim_end_matches('Z');
    (1..=NAMES_MAX)
        .map(|number| match number {
            1 => with(path, &format!(".aside-{time}Z")),
            number => with(path, &format!(".aside-{time}Z-{number}")),
        })
        .find(|name| PARTS.into_iter().all(|part| !with(name, part).exists()))
}

//! What can go wrong with the journal, in words for the person at the workstation.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::row::Fault;

/// Why the journal could not do what was asked. The caller stops taking commands on all but `Unknown`: what cannot
/// be written down must not be done.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The folder or the file cannot be made or opened.
    #[error("could not open the journal {path}: {why}; check that the folder exists and belongs to you")]
    Open {
        /// The journal file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// The file or its folder is read-only for us.
    #[error(
        "could not {what} in the journal {path}: it is read-only for this user; make the file and its folder writable"
    )]
    ReadOnly {
        /// What was attempted.
        what: &'static str,
        /// The journal file.
        path: PathBuf,
    },
    /// No space is left.
    #[error(
        "could not {what} in the journal {path}: the disk is full; free some space, nothing already written is lost"
    )]
    DiskFull {
        /// What was attempted.
        what: &'static str,
        /// The journal file.
        path: PathBuf,
    },
    /// The disk does not do what it is asked, or refuses for a reason of its own (a quota, a limit on file sizes).
    #[error(
        "could not {what} in the journal {path}: the disk reports an error ({detail}); check the disk and its quota, \
         what was written before stays written"
    )]
    Device {
        /// What was attempted.
        what: &'static str,
        /// The journal file.
        path: PathBuf,
        /// SQLite's words.
        detail: String,
    },
    /// The file is no journal, or a damaged one.
    #[error(
        "the journal {path} is damaged ({detail}). Nothing that the office has is lost: its commands and the results that \
         were reported. What stood only here cannot be read: results not reported yet, and which prompts were running; \
         the worktrees with the agents' work are untouched. To go on, restore the file from a backup, or run \
         `semo doctor --set-journal-aside`: it keeps this file under another name and starts with an empty one"
    )]
    Corrupt {
        /// The journal file.
        path: PathBuf,
        /// What SQLite found.
        detail: String,
    },
    /// An older program has written the file, and it is only looked at.
    #[error(
        "the journal {path} has version {found}, this program reads version {known}; start it once with `semo up` to \
         have the journal brought up to date"
    )]
    Older {
        /// The journal file.
        path: PathBuf,
        /// Version of the file.
        found: i64,
        /// The version that this program reads.
        known: i64,
    },
    /// More than the journal keeps of something.
    #[error("could not {what} in the journal {path}: {detail}, which is more than it keeps")]
    TooMuch {
        /// What was attempted.
        what: &'static str,
        /// The journal file.
        path: PathBuf,
        /// How much it was.
        detail: String,
    },
    /// A newer program has written the file.
    #[error(
        "the journal {path} has version {found}, this program knows versions up to {known}; use the newer program"
    )]
    Newer {
        /// The journal file.
        path: PathBuf,
        /// Version of the file.
        found: i64,
        /// Newest version that this program knows.
        known: i64,
    },
    /// Another program holds the file.
    #[error("could not {what} in the journal {path}: another program is using it; stop the other client")]
    Busy {
        /// What was attempted.
        what: &'static str,
        /// The journal file.
        path: PathBuf,
    },
    /// A row that the caller names is not there.
    #[error("could not {what}: {id} is not in the journal {path}")]
    Unknown {
        /// What was attempted.
        what: &'static str,
        /// The journal file.
        path: PathBuf,
        /// The id of the row.
        id: String,
    },
    /// Anything else that SQLite reports.
    #[error("could not {what} in the journal {path}")]
    Sqlite {
        /// What was attempted.
        what: &'static str,
        /// The journal file.
        path: PathBuf,
        /// SQLite's report.
        source: rusqlite::Error,
    },
}

impl JournalError {
    pub(crate) fn from_fault(what: &'static str, path: &Path, fault: Fault) -> JournalError {
        match fault {
            Fault::Unknown(id) => JournalError::Unknown {
                what,
                path: path.to_owned(),
                id,
            },
            Fault::TooMuch(detail) => JournalError::TooMuch {
                what,
                path: path.to_owned(),
                detail,
            },
            Fault::Malformed(detail) => JournalError::Corrupt {
                path: path.to_owned(),
                detail,
            },
            Fault::Sqlite(source) => JournalError::from_sqlite(what, path, source),
        }
    }

    pub(crate) fn from_io(what: &'static str, path: &Path, error: &std::io::Error) -> JournalError {
        use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull};
        let path = path.to_owned();
        match error.kind() {
            StorageFull => JournalError::DiskFull { what, path },
            PermissionDenied | ReadOnlyFilesystem => JournalError::ReadOnly { what, path },
            _ => JournalError::Open {
                path,
                why: error.to_string(),
            },
        }
    }

    pub(crate) fn from_sqlite(what: &'static str, path: &Path, source: rusqlite::Error) -> JournalError {
        let path = path.to_owned();
        // On a full disk the index of the write-ahead log cannot grow, which SQLite reports as a fault of the device.
        if source.sqlite_error().map(|error| error.extended_code) == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
        {
            return JournalError::DiskFull { what, path };
        }
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => JournalError::DiskFull { what, path },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => JournalError::ReadOnly { what, path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => JournalError::Corrupt {
                path,
                detail: source.to_string(),
            },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => JournalError::Busy { what, path },
            Some(ErrorCode::SystemIoFailure) => JournalError::Device {
                what,
                path,
                detail: source.to_string(),
            },
            Some(ErrorCode::CannotOpen) => JournalError::Open {
                path,
                why: source.to_string(),
            },
            Some(_) | None => JournalError::Sqlite { what, path, source },
        }
    }
}

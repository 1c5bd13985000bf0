//! Who this client is, and the account of the profile "This machine": made once, kept in files that only the user can
//! read. A copy of the data folder on another computer is another client ([`Settled`]).

mod marks;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use domain::ClientId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::paths::Paths;

pub use marks::{Marks, Verdict};

/// Folder for what a copied data folder held of the computer it comes from.
const OF_ANOTHER_MACHINE: &str = "of-another-machine";

/// This client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its id in every office.
    pub client: ClientId,
    /// What the computer is known by that it belongs to.
    #[serde(default)]
    pub marks: Marks,
}

/// Who this client is, after a look at the computer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The identity to go on with.
    pub identity: Identity,
    /// The client whose data folder this is a copy of, when that was found just now.
    pub copied_from: Option<ClientId>,
}

/// An account to sign in with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its address.
    pub email: String,
    /// Its password; absent when the stored tokens must do.
    pub password: Option<String>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Account({})", self.email)
    }
}

/// A file of ours that cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system refused.
    #[error(
        "could not {what} {path}: {source}; check that the folder exists, belongs to you and is not full"
    )]
    File {
        /// `read`, `write` …
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("{path} is damaged ({reason}); move it away to have a new one made")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Settled {
    /// Reads who this client is; makes an identity with the id `fresh` where there is none, or where the one that is
    /// there belongs to the computer that this data folder was copied from.
    ///
    /// Of such a copy, what the other computer was doing is put aside first and taken up by nobody here: its journal
    /// with the leases it holds, its sign-in, the keys of its sessions. Worktrees stay, nobody's work is lost. To be
    /// called under the lock of the data folder, before anything else in it is opened.
    pub fn of(paths: &Paths, fresh: Uuid, now: &Marks) -> Result<Settled, IdentityError> {
        let file = paths.identity();
        let made = || Identity {
            client: ClientId(fresh),
            marks: now.clone(),
        };
        let known = read_or_make(&file, made)?;
        let (identity, copied_from) = match known.marks.verdict(now) {
            Verdict::Other => {
                put_aside(paths, known.client)?;
                (made(), Some(known.client))
            }
            Verdict::Same => {
                let marks = known.marks.with(now);
                (
                    Identity {
                        marks,
                        ..known.clone()
                    },
                    None,
                )
            }
        };
        if identity != known {
            write_json(&file, &identity)?;
        }
        Ok(Settled {
            identity,
            copied_from,
        })
    }
}

/// Can be cut short anywhere and done again: the identity is written last.
fn put_aside(paths: &Paths, client: ClientId) -> Result<(), IdentityError> {
    let aside = paths.data_dir.join(OF_ANOTHER_MACHINE).join(client.to_string());
    let failed = |what, path: &Path, source| IdentityError::File {
        what,
        path: path.to_owned(),
        source,
    };
    std::fs::create_dir_all(&aside).map_err(|source| failed("make the folder", &aside, source))?;
    let journal = paths.journal();
    let beside = |suffix: &str| {
        let mut name = journal.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    };
    let all = [
        // The log goes first: a journal without it is older, a log without its journal is nothing.
        beside("-shm"),
        beside("-wal"),
        journal.clone(),
        paths.tokens(),
        paths.local_tokens(),
        // Whoever has the key of the original's local API would have this one's.
        paths.api_key(),
        paths.data_dir.join("sessions"),
        paths.holders(),
    ];
    for file in all {
        let Some(name) = file.file_name() else { continue };
        match std::fs::rename(&file, aside.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("put aside", &file, error));
            }
            _ => {}
        }
    }
    Ok(())
}

impl Account {
    /// Reads the local account, or makes one with the password `fresh`.
    pub fn read_or_make(file: &Path, fresh: String) -> Result<Account, IdentityError> {
        read_or_make(file, || Account {
            email: "owner@this-machine.local".to_owned(),
            password: Some(fresh),
        })
    }
}

fn read_or_make<T: Serialize + DeserializeOwned>(
    file: &Path,
    make: impl FnOnce() -> T,
) -> Result<T, IdentityError> {
    match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| IdentityError::Damaged {
            path: file.to_owned(),
            reason: error.to_string(),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let value = make();
            write_json(file, &value)?;
            Ok(value)
        }
        Err(source) => Err(IdentityError::File {
            what: "read",
            path: file.to_owned(),
            source,
        }),
    }
}

fn write_json<T: Serialize>(file: &Path, value: &T) -> Result<(), IdentityError> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| IdentityError::Damaged {
        path: file.to_owned(),
        reason: error.to_string(),
    })?;
    write_private(file, &text)
}

/// Writes a file that only the user can read, whole or not at all.
pub fn write_private(file: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    let failed = |what, source| IdentityError::File {
        what,
        path: file.to_owned(),
        source,
    };
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(|source| failed("make the folder of", source))?;
    }
    let draft = file.with_extension("new");
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut out| out.write_all(bytes).and_then(|()| out.sync_all()));
    written
        .and_then(|()| std::fs::rename(&draft, file))
        .map_err(|source| failed("write", source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::marks::tests::computer;
    use super::*;

    fn folder() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths {
            config_dir: dir.path().join("config"),
            data_dir: dir.path().join("deep/data"),
        };
        (dir, paths)
    }

    fn settle(paths: &Paths, fresh: u128, now: &Marks) -> Settled {
        Settled::of(paths, Uuid::from_u128(fresh), now).unwrap()
    }

    #[test]
    fn an_identity_is_made_once_and_only_for_the_user() {
        let (_dir, paths) = folder();
        let first = settle(&paths, 1, &Marks::default());
        let second = settle(&paths, 2, &Marks::default());
        assert_eq!(first, second);
        assert_eq!(first.identity.client.0, Uuid::from_u128(1));
        let mode = std::fs::metadata(paths.identity()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn an_identity_of_before_there_were_marks_is_kept_and_learns_them() {
        let (_dir, paths) = folder();
        let text = format!("{{\"client\":\"{}\"}}", Uuid::from_u128(7));
        write_private(&paths.identity(), text.as_bytes()).unwrap();
        let here = computer("a", "", &["52:54:00:00:00:01"]);
        assert_eq!(settle(&paths, 1, &here).identity.client.0, Uuid::from_u128(7));
        let elsewhere = computer("b", "", &["52:54:00:00:00:02"]);
        let moved = settle(&paths, 2, &elsewhere);
        assert_eq!(moved.copied_from, Some(ClientId(Uuid::from_u128(7))));
    }

    #[test]
    fn a_copy_is_another_client_and_takes_up_nothing_of_the_original() {
        let (_dir, paths) = folder();
        let original = computer("a", "", &["52:54:00:00:00:01"]);
        let first = settle(&paths, 1, &original);
        for (file, text) in [
            (paths.journal(), "rows"),
            (paths.data_dir.join("journal.sqlite-wal"), "newest rows"),
            (paths.tokens(), "tokens"),
            (paths.api_key(), "key"),
            (paths.data_dir.join("sessions/s/hooks.json"), "secret"),
            (paths.worktrees().join("s/work.txt"), "work"),
        ] {
            write_private(&file, text.as_bytes()).unwrap();
        }
        let copy = computer("a", "", &["52:54:00:00:00:02"]);
        let settled = settle(&paths, 2, &copy);
        assert_eq!(settled.identity.client.0, Uuid::from_u128(2));
        assert_eq!(settled.copied_from, Some(first.identity.client));
        let aside = paths
            .data_dir
            .join(OF_ANOTHER_MACHINE)
            .join(first.identity.client.to_string());
        for name in [
            "journal.sqlite",
            "journal.sqlite-wal",
            "tokens.json",
            "api-key.json",
            "sessions/s/hooks.json",
        ] {
            assert!(aside.join(name).is_file(), "{name} is kept");
            assert!(!paths.data_dir.join(name).exists(), "{name} is not used");
        }
        assert!(
            paths.worktrees().join("s/work.txt").is_file(),
            "work stays where it is"
        );
        let again = settle(&paths, 3, &copy);
        assert_eq!(
            (again.identity.client.0, again.copied_from),
            (Uuid::from_u128(2), None)
        );
    }

    #[test]
    fn a_copy_whose_start_was_cut_short_is_found_again() {
        let (_dir, paths) = folder();
        let original = computer("a", "", &["52:54:00:00:00:01"]);
        let first = settle(&paths, 1, &original).identity.client;
        write_private(&paths.journal(), b"rows").unwrap();
        put_aside(&paths, first).unwrap();
        let settled = settle(&paths, 2, &computer("b", "", &["52:54:00:00:00:02"]));
        assert_eq!(settled.copied_from, Some(first));
        assert!(
            paths
                .data_dir
                .join(OF_ANOTHER_MACHINE)
                .join(first.to_string())
                .join("journal.sqlite")
                .is_file()
        );
    }

    #[test]
    fn a_damaged_file_is_named_and_left_alone() {
        let (_dir, paths) = folder();
        write_private(&paths.identity(), b"{").unwrap();
        let error = Settled::of(&paths, Uuid::nil(), &Marks::default()).unwrap_err();
        assert!(error.to_string().contains("damaged"));
        assert_eq!(std::fs::read(paths.identity()).unwrap(), b"{");
    }
}

//! Who this client is, and the account of the profile "This machine": made once, kept in files that only the user can
//! read. A copy of the data folder on another computer is another client ([`Settled`]).

mod folder;
mod marks;

use std::path::{Path, PathBuf};

use domain::ClientId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::paths::Paths;

pub use folder::Folder;
pub use marks::{Marks, Verdict};

/// Folder for what a copied data folder held of the computer it comes from.
const OF_ANOTHER_MACHINE: &str = "of-another-machine";
/// The same of a copy on one computer.
const OF_ANOTHER_FOLDER: &str = "of-another-folder";

/// Copies of one client's folder whose remains are kept apart.
const ASIDE_MAX: u32 = 1_000;

/// This client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its id in every office.
    pub client: ClientId,
    /// What the computer is known by that it belongs to.
    #[serde(default)]
    pub marks: Marks,
    /// The data folder that it lies in; unknown before its first start there.
    #[serde(default)]
    pub folder: Option<Folder>,
}

impl Identity {
    /// The key of the data folder, by which the office tells two cores of one client apart.
    pub fn folder_key(&self) -> Option<Uuid> {
        self.folder.as_ref().map(|folder| folder.key)
    }
}

/// Who this client is, after a look at the computer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The identity to go on with.
    pub identity: Identity,
    /// Of what this data folder is a copy, when that was found just now.
    pub copied_from: Option<Original>,
}

/// The data folder of which one is a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// Its client.
    pub client: ClientId,
    /// Where it lies; `None`: on another computer.
    pub at: Option<PathBuf>,
    /// Where that lies now which the copy held of it; `None` when it held nothing.
    pub aside: Option<PathBuf>,
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
    /// The same on this computer, with a new id where one is needed.
    pub fn here(paths: &Paths) -> Result<Settled, IdentityError> {
        Settled::of(paths, Uuid::new_v4(), &Marks::of_this_machine(Path::new("/")))
    }

    /// Reads who this client is; makes an identity with the id `fresh` where there is none, or where the one that is
    /// there belongs to the computer, or to the folder of this one, that this data folder was copied from. A folder that
    /// was moved, or brought back from a backup, goes on as it was.
    ///
    /// Of a copy, what the original was doing is put aside first and taken up by nobody here: its journal with the leases
    /// it holds, its sign-in, the keys of its sessions. Worktrees stay, nobody's work is lost. To be called under the
    /// lock of the data folder, before anything else in it is opened.
    pub fn of(paths: &Paths, fresh: Uuid, now: &Marks) -> Result<Settled, IdentityError> {
        let file = paths.identity();
        let here = Folder::of(&paths.data_dir, fresh);
        let made = || Identity {
            client: ClientId(fresh),
            marks: now.clone(),
            folder: here.clone(),
        };
        let known = read_or_make(&file, made)?;
        let copy = match known.marks.verdict(now) {
            Verdict::Other => Some((OF_ANOTHER_MACHINE, None)),
            Verdict::Same => original(&known, here.as_ref()).map(|at| (OF_ANOTHER_FOLDER, Some(at))),
        };
        let (identity, copied_from) = match copy {
            Some((aside, at)) => {
                let client = known.client;
                let aside = put_aside(paths, aside, client)?;
                (made(), Some(Original { client, at, aside }))
            }
            None => {
                let identity = Identity {
                    marks: known.marks.with(now),
                    folder: Folder::going_on(known.folder.as_ref(), here),
                    ..known.clone()
                };
                (identity, None)
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

/// Where the data folder lies that this one is a copy of: it is still there, with the same client in it.
fn original(known: &Identity, here: Option<&Folder>) -> Option<PathBuf> {
    let (then, here) = (known.folder.as_ref()?, here?);
    let at = then.elsewhere(here)?;
    let its = Paths {
        config_dir: PathBuf::new(),
        data_dir: at.clone(),
    };
    let its: Identity = serde_json::from_slice(&std::fs::read(its.identity()).ok()?).ok()?;
    (its.client == known.client).then_some(at)
}

/// Can be cut short anywhere and done again: it is all collected in one place before that gets its name, and the identity
/// is written last.
fn put_aside(paths: &Paths, aside: &str, client: ClientId) -> Result<Option<PathBuf>, IdentityError> {
    let failed = |what, path: &Path, source| IdentityError::File {
        what,
        path: path.to_owned(),
        source,
    };
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
        paths.tokens_of_before(),
        paths.sign_ins(),
        paths.local_tokens(),
        // Whoever has the key of the original's local API would have this one's.
        paths.api_key(),
        // Hooks of the original's agents go there.
        paths.api_port(),
        paths.data_dir.join("sessions"),
        paths.holders(),
    ];
    let folder = paths.data_dir.join(aside).join(client.to_string());
    let collected = folder.with_extension("new");
    if !collected.exists() && !all.iter().any(|file| file.exists()) {
        return Ok(None);
    }
    std::fs::create_dir_all(&collected).map_err(|source| failed("make the folder", &collected, source))?;
    for file in all {
        let Some(name) = file.file_name() else { continue };
        match std::fs::rename(&file, collected.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("put aside", &file, error));
            }
            _ => {}
        }
    }
    let folder = unused(&folder);
    std::fs::rename(&collected, &folder).map_err(|source| failed("put aside", &collected, source))?;
    Ok(Some(folder))
}

/// The folder, or where it is there already (the same copy was made before) another one beside it.
fn unused(folder: &Path) -> PathBuf {
    let numbered = (2..=ASIDE_MAX).map(|number| {
        let mut name = folder.as_os_str().to_owned();
        name.push(format!("-{number}"));
        PathBuf::from(name)
    });
    let mut all = std::iter::once(folder.to_owned()).chain(numbered);
    all.find(|folder| !folder.exists())
        .unwrap_or_else(|| folder.to_owned())
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
    supabase::write_private(file, bytes).map_err(|source| IdentityError::File {
        what: "write",
        path: file.to_owned(),
        source,
    })
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
        assert_eq!(moved.copied_from.unwrap().client.0, Uuid::from_u128(7));
    }

    #[test]
    fn a_copy_is_another_client_and_takes_up_nothing_of_the_original() {
        let (_dir, paths) = folder();
        let original = computer("a", "", &["52:54:00:00:00:01"]);
        let first = settle(&paths, 1, &original);
        for (file, text) in [
            (paths.journal(), "rows"),
            (paths.data_dir.join("journal.sqlite-wal"), "newest rows"),
            (paths.tokens_of_before(), "tokens"),
            (paths.sign_ins().join("a.json"), "tokens"),
            (paths.api_key(), "key"),
            (paths.data_dir.join("sessions/s/hooks.json"), "secret"),
            (paths.worktrees().join("s/work.txt"), "work"),
        ] {
            write_private(&file, text.as_bytes()).unwrap();
        }
        let copy = computer("a", "", &["52:54:00:00:00:02"]);
        let settled = settle(&paths, 2, &copy);
        assert_eq!(settled.identity.client.0, Uuid::from_u128(2));
        let client = first.identity.client;
        let aside = paths.data_dir.join(OF_ANOTHER_MACHINE).join(client.to_string());
        let original = Original {
            client,
            at: None,
            aside: Some(aside),
        };
        assert_eq!(settled.copied_from, Some(original));
        let aside = paths
            .data_dir
            .join(OF_ANOTHER_MACHINE)
            .join(first.identity.client.to_string());
        for name in [
            "journal.sqlite",
            "journal.sqlite-wal",
            "tokens.json",
            "sign-ins/a.json",
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
        write_private(&paths.data_dir.join("journal.sqlite-wal"), b"newest rows").unwrap();
        // A folder of that name is there already, and the log is put aside when the computer goes down.
        let aside = paths.data_dir.join(OF_ANOTHER_MACHINE);
        std::fs::create_dir_all(aside.join(first.to_string())).unwrap();
        let collected = aside.join(format!("{first}.new"));
        std::fs::create_dir_all(&collected).unwrap();
        std::fs::rename(
            paths.data_dir.join("journal.sqlite-wal"),
            collected.join("journal.sqlite-wal"),
        )
        .unwrap();
        let settled = settle(&paths, 2, &computer("b", "", &["52:54:00:00:00:02"]));
        let original = settled.copied_from.unwrap();
        assert_eq!(original.client, first);
        let told = original.aside.unwrap();
        assert_eq!(told, aside.join(format!("{first}-2")));
        for file in ["journal.sqlite", "journal.sqlite-wal"] {
            assert!(
                told.join(file).is_file(),
                "{file}: a journal and its log lie together"
            );
        }
        assert!(!collected.exists());
    }

    #[test]
    fn of_a_copy_that_held_nothing_no_place_is_told() {
        let (_dir, paths) = folder();
        settle(&paths, 1, &computer("a", "", &["52:54:00:00:00:01"]));
        let settled = settle(&paths, 2, &computer("b", "", &["52:54:00:00:00:02"]));
        assert_eq!(settled.copied_from.unwrap().aside, None);
    }

    /// `cp -r`, as far as it matters here.
    fn copied(from: &Paths, to: &str) -> Paths {
        let copy = Paths {
            config_dir: from.config_dir.clone(),
            data_dir: from.data_dir.with_file_name(to),
        };
        for file in [from.identity(), from.journal()] {
            let its = copy.data_dir.join(file.file_name().unwrap());
            write_private(&its, &std::fs::read(&file).unwrap()).unwrap();
        }
        copy
    }

    #[test]
    fn a_copy_on_the_same_computer_is_another_client_while_the_original_is_there() {
        let (_dir, paths) = folder();
        let here = computer("a", "", &["52:54:00:00:00:01"]);
        let first = settle(&paths, 1, &here).identity;
        write_private(&paths.journal(), b"rows").unwrap();
        let copy = copied(&paths, "copy");
        let settled = settle(&copy, 2, &here);
        let at = paths.data_dir.canonicalize().unwrap();
        assert_eq!(settled.identity.client.0, Uuid::from_u128(2));
        assert_ne!(settled.identity.folder_key(), first.folder_key());
        let aside = copy
            .data_dir
            .join(OF_ANOTHER_FOLDER)
            .join(first.client.to_string());
        let original = Original {
            client: first.client,
            at: Some(at),
            aside: Some(aside),
        };
        assert_eq!(settled.copied_from, Some(original));
        assert!(
            !copy.journal().exists(),
            "what the original does is not done here"
        );
        let aside = copy
            .data_dir
            .join(OF_ANOTHER_FOLDER)
            .join(first.client.to_string());
        assert_eq!(std::fs::read(aside.join("journal.sqlite")).unwrap(), b"rows");
        assert_eq!(settle(&copy, 3, &here).copied_from, None, "found once");
        // The same copy once more, over this one.
        for file in [paths.identity(), paths.journal()] {
            let its = copy.data_dir.join(file.file_name().unwrap());
            write_private(&its, &std::fs::read(&file).unwrap()).unwrap();
        }
        assert!(settle(&copy, 3, &here).copied_from.is_some());
        let second = copy
            .data_dir
            .join(OF_ANOTHER_FOLDER)
            .join(format!("{}-2", first.client));
        assert_eq!(std::fs::read(second.join("journal.sqlite")).unwrap(), b"rows");
        let again = settle(&paths, 4, &here);
        assert_eq!(
            (again.identity, again.copied_from),
            (first, None),
            "the original goes on"
        );
        assert!(paths.journal().exists());
    }

    #[test]
    fn a_data_folder_that_was_moved_or_brought_back_goes_on_and_a_brought_back_one_has_a_key_of_its_own() {
        let (_dir, paths) = folder();
        let here = computer("a", "", &["52:54:00:00:00:01"]);
        let first = settle(&paths, 1, &here).identity;
        write_private(&paths.journal(), b"rows").unwrap();
        let moved = Paths {
            data_dir: paths.data_dir.with_file_name("moved"),
            ..paths.clone()
        };
        std::fs::rename(&paths.data_dir, &moved.data_dir).unwrap();
        let settled = settle(&moved, 2, &here);
        assert_eq!(settled.identity.client, first.client);
        assert_eq!(
            settled.identity.folder_key(),
            first.folder_key(),
            "it is the same folder"
        );
        // From a backup, while the original is gone: elsewhere, and then at the original's very place.
        for (to, fresh) in [("elsewhere", 3), ("moved", 4)] {
            let before = settle(&moved, 9, &here).identity;
            let copy = copied(&moved, "backup");
            std::fs::remove_dir_all(&moved.data_dir).unwrap();
            let back = Paths {
                data_dir: copy.data_dir.with_file_name(to),
                ..copy.clone()
            };
            std::fs::rename(&copy.data_dir, &back.data_dir).unwrap();
            let settled = settle(&back, fresh, &here);
            assert_eq!(
                (settled.identity.client, settled.copied_from),
                (before.client, None)
            );
            assert_ne!(settled.identity.folder_key(), before.folder_key());
            assert_eq!(std::fs::read(back.journal()).unwrap(), b"rows", "nothing is lost");
            if back != moved {
                std::fs::rename(&back.data_dir, &moved.data_dir).unwrap();
            }
        }
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

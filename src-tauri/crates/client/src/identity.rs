//! Who this client is, and the account of the profile "This machine": made once, kept in files that only the user can
//! read.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use domain::ClientId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// This client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its id in every office.
    pub client: ClientId,
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

impl Identity {
    /// Reads the identity, or makes one with the id `fresh`.
    pub fn read_or_make(file: &Path, fresh: Uuid) -> Result<Identity, IdentityError> {
        read_or_make(file, || Identity {
            client: ClientId(fresh),
        })
    }
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
            let text = serde_json::to_vec_pretty(&value).map_err(|error| IdentityError::Damaged {
                path: file.to_owned(),
                reason: error.to_string(),
            })?;
            write_private(file, &text)?;
            Ok(value)
        }
        Err(source) => Err(IdentityError::File {
            what: "read",
            path: file.to_owned(),
            source,
        }),
    }
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

    use super::*;

    #[test]
    fn an_identity_is_made_once_and_only_for_the_user() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("deep/client.json");
        let first = Identity::read_or_make(&file, Uuid::from_u128(1)).unwrap();
        let second = Identity::read_or_make(&file, Uuid::from_u128(2)).unwrap();
        assert_eq!(
            (first.client.0, second.client.0),
            (Uuid::from_u128(1), Uuid::from_u128(1))
        );
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_damaged_file_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("client.json");
        std::fs::write(&file, "{").unwrap();
        let error = Identity::read_or_make(&file, Uuid::nil()).unwrap_err();
        assert!(error.to_string().contains("damaged"));
        assert_eq!(std::fs::read(&file).unwrap(), b"{");
    }
}

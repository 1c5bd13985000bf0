//! Where a signed-in session is kept between starts. Only tokens, never a password.
//!
//! Called by [`super::Auth`] alone. A refresh token works once: whoever refreshes holds the store's lock, so that
//! two programs on one file do not spend the same token twice and lose the session.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Project, Tokens};

/// A token file larger than this is not one of ours.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// A place for one session's tokens.
pub trait TokenStore: Send + Sync {
    /// The stored session; `None`: nobody is signed in.
    fn load(&self) -> Result<Option<Tokens>, StoreError>;
    /// Replaces the stored session, durably, before it is used.
    fn save(&self, tokens: &Tokens) -> Result<(), StoreError>;
    /// As [`TokenStore::save`], for a session that has just begun: it goes where sessions are to be kept, while what is
    /// renewed stays where it lies.
    fn begin(&self, tokens: &Tokens) -> Result<(), StoreError> {
        self.save(tokens)
    }
    /// Forgets the session.
    fn clear(&self) -> Result<(), StoreError>;
    /// Takes the right to refresh, across processes; `None`: somebody else has it at the moment.
    fn try_lock(&self) -> Result<Option<StoreLock>, StoreError> {
        Ok(Some(StoreLock { _file: None }))
    }
}

/// The right to refresh; given back when dropped (also by the system when the process dies).
#[derive(Debug)]
pub struct StoreLock {
    _file: Option<fs::File>,
}

/// Why the tokens could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file could not be handled.
    #[error("could not {attempted} the sign-in file {}: {source}; check that the folder exists, is writable and has room", path.display())]
    File {
        /// `read`, `write` …
        attempted: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there but is not what we wrote.
    #[error("the sign-in file {} is damaged ({why}); delete it and sign in again", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong; never its content.
        why: String,
    },
    /// The keychain of the operating system refused, or is not there.
    #[error(
        "could not {attempted} the sign-in in this computer's keychain: {reason}; unlock it, or choose the file: supabase.tokens = \"file\""
    )]
    Keychain {
        /// `read`, `keep` …
        attempted: &'static str,
        /// Why.
        reason: String,
    },
}

/// Keeps the session of one project in one file that only its owner can read (0600), replaced as a whole. The file has
/// room for one: another project's session in it is none, and is left there.
#[derive(Debug)]
pub struct FileTokenStore {
    path: PathBuf,
    project: String,
}

impl FileTokenStore {
    /// `path`: the file; its folder is made when missing. A lock file of the same name plus `.lock` is put beside it.
    pub fn new(path: impl Into<PathBuf>, project: &Project) -> FileTokenStore {
        FileTokenStore {
            path: path.into(),
            project: project.url.clone(),
        }
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    fn write_whole(&self, text: &[u8]) -> Result<(), StoreError> {
        let fail = |attempted, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::File {
                attempted,
                path,
                source,
            }
        };
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            fs::create_dir_all(folder).map_err(fail("make the folder of", &self.path))?;
        }
        let fresh = self.beside(&format!(".{}.new", std::process::id()));
        let write = || -> io::Result<()> {
            let mut file = private_file(&fresh, true)?;
            file.write_all(text)?;
            file.sync_all()?;
            fs::rename(&fresh, &self.path)
        };
        if let Err(source) = write() {
            // A half-written file holds tokens: it must not stay. Failing to remove it adds nothing to the story.
            let _ = fs::remove_file(&fresh);
            return Err(StoreError::File {
                attempted: "write",
                path: self.path.clone(),
                source,
            });
        }
        #[cfg(unix)]
        if let Some(folder) = folder {
            // The rename itself is durable only when the folder is.
            fs::File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(fail("write", &self.path))?;
        }
        Ok(())
    }
}

/// Opens for writing, for the owner only.
fn private_file(path: &Path, truncate: bool) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(truncate);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
        let file = options.mode(0o600).open(path)?;
        // `mode` counts for new files only; an old one may have been made by somebody else's umask.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        Ok(file)
    }
    #[cfg(not(unix))]
    options.open(path)
}

impl TokenStore for FileTokenStore {
    fn load(&self) -> Result<Option<Tokens>, StoreError> {
        let fail = |source| StoreError::File {
            attempted: "read",
            path: self.path.clone(),
            source,
        };
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
            Ok(about) if about.len() > FILE_BYTES_MAX => {
                return Err(StoreError::Damaged {
                    path: self.path.clone(),
                    why: "it is too large".to_owned(),
                });
            }
            Ok(_) => {}
        }
        let text = fs::read(&self.path).map_err(fail)?;
        let tokens: Tokens = serde_json::from_slice(&text).map_err(|error| StoreError::Damaged {
            path: self.path.clone(),
            why: format!("line {}, column {}", error.line(), error.column()),
        })?;
        // Whoever runs another project's server must not be shown them.
        Ok(tokens.are_of(&self.project).then(|| Tokens {
            project: self.project.clone(),
            ..tokens
        }))
    }

    fn save(&self, tokens: &Tokens) -> Result<(), StoreError> {
        let text = serde_json::to_vec(tokens).map_err(|error| StoreError::File {
            attempted: "write",
            path: self.path.clone(),
            source: io::Error::other(error),
        })?;
        self.write_whole(&text)
    }

    fn clear(&self) -> Result<(), StoreError> {
        // What is damaged goes: nobody can use it any more.
        if matches!(self.load(), Ok(None)) {
            return Ok(());
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::File {
                attempted: "remove",
                path: self.path.clone(),
                source: error,
            }),
            _ => Ok(()),
        }
    }

    fn try_lock(&self) -> Result<Option<StoreLock>, StoreError> {
        let path = self.beside(".lock");
        let fail = |source| StoreError::File {
            attempted: "lock",
            path: path.clone(),
            source,
        };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(fail)?;
        }
        let file = private_file(&path, false).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(StoreLock { _file: Some(file) })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(fail(error)),
        }
    }
}

/// Keeps the session in memory: for one run, and for tests.
#[derive(Debug, Default)]
pub struct MemoryTokenStore {
    tokens: Mutex<Option<Tokens>>,
}

impl MemoryTokenStore {
    /// Starts with `tokens` in it.
    pub fn with(tokens: Tokens) -> MemoryTokenStore {
        MemoryTokenStore {
            tokens: Mutex::new(Some(tokens)),
        }
    }
}

impl TokenStore for MemoryTokenStore {
    fn load(&self) -> Result<Option<Tokens>, StoreError> {
        Ok(self.tokens.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn save(&self, tokens: &Tokens) -> Result<(), StoreError> {
        *self.tokens.lock().unwrap_or_else(PoisonError::into_inner) = Some(tokens.clone());
        Ok(())
    }

    fn clear(&self) -> Result<(), StoreError> {
        *self.tokens.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }
}

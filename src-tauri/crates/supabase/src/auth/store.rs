//! Where a signed-in session is kept between starts. Only tokens, never a password.
//!
//! Called by [`super::Auth`] alone. A refresh token works once: whoever refreshes holds the store's lock, so that
//! two programs on one file do not spend the same token twice and lose the session.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;

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

/// A file of ours that only its owner can read (0600), replaced as a whole, with the lock that goes with it.
#[derive(Debug, Clone)]
pub(super) struct PrivateFile {
    path: PathBuf,
}

impl PrivateFile {
    /// `path`: the file; its folder is made when missing. A lock file of the same name plus `.lock` is put beside it.
    pub(super) fn new(path: impl Into<PathBuf>) -> PrivateFile {
        PrivateFile { path: path.into() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn failed(&self, attempted: &'static str) -> impl Fn(io::Error) -> StoreError + use<> {
        let path = self.path.clone();
        move |source| StoreError::File {
            attempted,
            path: path.clone(),
            source,
        }
    }

    /// What is in it, as JSON; `None` when there is none.
    pub(super) fn read(&self) -> Result<Option<Value>, StoreError> {
        let fail = self.failed("read");
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
            Ok(about) if about.len() > FILE_BYTES_MAX => {
                return Err(self.damaged("it is too large".to_owned()));
            }
            Ok(_) => {}
        }
        let text = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(fail)?,
        };
        let value = serde_json::from_slice(&text)
            .map_err(|error| self.damaged(format!("line {}, column {}", error.line(), error.column())))?;
        Ok(Some(value))
    }

    /// Its content is never told.
    pub(super) fn damaged(&self, why: String) -> StoreError {
        StoreError::Damaged {
            path: self.path.clone(),
            why,
        }
    }

    /// Replaces it as a whole, durably.
    pub(super) fn write<T: Serialize>(&self, content: &T) -> Result<(), StoreError> {
        let text =
            serde_json::to_vec(content).map_err(|error| self.failed("write")(io::Error::other(error)))?;
        write_private(&self.path, &text).map_err(self.failed("write"))
    }

    /// Removes it, if it is there.
    pub(super) fn remove(&self) -> Result<(), StoreError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed("remove")(error)),
            _ => Ok(()),
        }
    }

    /// See [`TokenStore::try_lock`].
    pub(super) fn try_lock(&self) -> Result<Option<StoreLock>, StoreError> {
        let path = beside(&self.path, ".lock");
        let fail = PrivateFile::new(path.clone()).failed("lock");
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(&fail)?;
        }
        let file = private_file(&path, false).map_err(&fail)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(StoreLock { _file: Some(file) })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(fail(error)),
        }
    }
}

/// Keeps the session of one project in one file that only its owner can read. The file has room for one: another
/// project's session in it is none, and is left there.
#[derive(Debug)]
pub struct FileTokenStore {
    file: PrivateFile,
    project: String,
}

impl FileTokenStore {
    /// `path`: the file; its folder is made when missing. A lock file of the same name plus `.lock` is put beside it.
    pub fn new(path: impl Into<PathBuf>, project: &Project) -> FileTokenStore {
        FileTokenStore {
            file: PrivateFile::new(path),
            project: project.url.clone(),
        }
    }
}

/// The tokens in `content`; `None` when they are another project's: whoever runs another project's server must not be
/// shown them.
pub(super) fn tokens_in(
    content: Value,
    file: &PrivateFile,
    project: &str,
) -> Result<Option<Tokens>, StoreError> {
    let tokens: Tokens = serde_json::from_value(content)
        .map_err(|_| file.damaged("it has not the form of a sign-in".to_owned()))?;
    Ok(tokens.are_of(project).then(|| Tokens {
        project: project.to_owned(),
        ..tokens
    }))
}

/// Writes a file that only its owner can read (0600), whole or not at all, durably. Its folder is made when missing.
/// Several programs may do so at once: the last one's content stays.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        fs::create_dir_all(folder)?;
    }
    let fresh = beside(path, &format!(".{}.new", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = private_file(&fresh, true)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    if let Err(error) = write() {
        // A half-written file holds secrets: it must not stay. Failing to remove it adds nothing to the story.
        let _ = fs::remove_file(&fresh);
        return Err(error);
    }
    #[cfg(unix)]
    if let Some(folder) = folder {
        // The rename itself is durable only when the folder is.
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(suffix);
    name.into()
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
        match self.file.read()? {
            Some(content) => tokens_in(content, &self.file, &self.project),
            None => Ok(None),
        }
    }

    fn save(&self, tokens: &Tokens) -> Result<(), StoreError> {
        self.file.write(tokens)
    }

    fn clear(&self) -> Result<(), StoreError> {
        // What is damaged goes: nobody can use it any more.
        match self.load() {
            Ok(None) => Ok(()),
            Ok(Some(_)) | Err(_) => self.file.remove(),
        }
    }

    fn try_lock(&self) -> Result<Option<StoreLock>, StoreError> {
        self.file.try_lock()
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

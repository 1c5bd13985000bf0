//! How other programs of the same user find a running core: a file beside the data, readable by the user only, and
//! locks that tell whether it is true.
//!
//! The lock that counts is on the data folder itself: nobody can delete it and leave the data. That on `core.lock` goes
//! with it for file systems that lock no folders, and for programs of before; the file also says whose the locks are.
//! A core whose file is deleted writes it anew ([`Keeper`]).

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use client::identity::write_private;
use client::paths::Paths;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, Failure};

/// How long to wait for the lock: whoever only looks for a core ([`find`]) holds it for a moment, too.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// Between two tries.
const LOCK_TRY_EVERY: Duration = Duration::from_millis(50);
/// How often a core looks whether its files are still there.
const KEEP_EVERY: Duration = Duration::from_secs(2);
/// Most that is read of the lock file: a process id.
const LOCK_BYTES_MAX: u64 = 32;

/// A running core.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its process.
    pub pid: u32,
    /// Its local API.
    pub url: String,
    /// The key of that.
    pub token: String,
    /// The hub or project it belongs to.
    pub project_url: String,
    /// The publishable key of that.
    pub publishable_key: String,
}

impl Running {
    /// Is `other` the very same core?
    pub fn is_the_core_of(&self, other: &Running) -> bool {
        self.pid == other.pid && self.url == other.url && self.token == other.token
    }

    /// The address of its UI, with the token: for the user's own eyes, never for a log or an error.
    pub fn ui(&self) -> String {
        format!("{}/#token={}", self.url, self.token)
    }
}

/// Held as long as the core runs on a data folder.
#[derive(Debug)]
pub struct Claim {
    locks: Locks,
    paths: Paths,
    folder: Place,
}

/// Device and number of a file or folder; `None` when there is none.
type Place = Option<(u64, u64)>;

/// What is locked.
#[derive(Debug)]
struct Locks {
    /// `None` on a file system that locks no folders.
    _folder: Option<File>,
    file: File,
}

impl Claim {
    /// Takes the data folder for this process, or says who has it.
    pub async fn take(paths: &Paths) -> Result<Claim, Failure> {
        std::fs::create_dir_all(&paths.data_dir)
            .map_err(|error| refused("make the data folder", &paths.data_dir, &error))?;
        let give_up = tokio::time::Instant::now() + LOCK_WAIT;
        let locks = loop {
            match Locks::take(paths)? {
                Some(locks) => break locks,
                None if tokio::time::Instant::now() < give_up => tokio::time::sleep(LOCK_TRY_EVERY).await,
                None => return Err(taken(paths)),
            }
        };
        // What an earlier core said of itself is not true any more, though its process id may be in use again.
        forget(&paths.running());
        own(&locks.file, std::process::id()).map_err(|error| refused("write", &paths.lock(), &error))?;
        Ok(Claim {
            locks,
            paths: paths.clone(),
            folder: place(&paths.data_dir),
        })
    }

    /// Keeps the data folder for as long as this process lives: what works in it does not end.
    pub fn keep(self) {
        std::mem::forget(self);
    }

    /// Tells the other programs. To be told for as long as the core runs, whatever is deleted: see [`Keeper::keep`].
    pub fn announce(&self, running: &Running) -> Result<Keeper, Failure> {
        let keeper = Keeper {
            paths: self.paths.clone(),
            text: serde_json::to_vec_pretty(running).unwrap_or_default(),
            folder: self.folder,
            lock: self.locks.file.metadata().ok().map(|meta| place_of(&meta)),
            anew: None,
        };
        keeper
            .announce()
            .map_err(|error| Failure::of(Exit::Failed, &error))?;
        Ok(keeper)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A file that stays behind is harmless: the locks tell that nobody is there. In a folder that took the place of
        // ours it is somebody else's.
        if place(&self.paths.data_dir) == self.folder {
            forget(&self.paths.running());
        }
    }
}

impl Locks {
    /// `None` when somebody else has one of them.
    fn take(paths: &Paths) -> Result<Option<Locks>, Failure> {
        let folder = File::open(&paths.data_dir)
            .map_err(|error| refused("read the data folder", &paths.data_dir, &error))?;
        let folder = match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Some(folder),
            Err(Errno::WOULDBLOCK) => return Ok(None),
            // Some network drives lock no folders: there the lock on the file has to do, and says what is wrong.
            Err(_) => None,
        };
        let file =
            open_lock(paths).map_err(|error| refused("write in the data folder:", &paths.lock(), &error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Locks {
                _folder: folder,
                file,
            })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) if cannot_lock(error) => Err(no_locks(paths, error)),
            Err(error) => Err(refused("lock", &paths.lock(), &error.into())),
        }
    }
}

/// Keeps what a core says of itself where others look for it.
#[derive(Debug)]
pub struct Keeper {
    paths: Paths,
    text: Vec<u8>,
    /// The data folder.
    folder: Place,
    /// The file that is locked.
    lock: Place,
    /// The locked file that took the place of a deleted one.
    anew: Option<File>,
}

impl Keeper {
    /// Looks every [`KEEP_EVERY`], until `stop`. Somebody may tidy up in the data folder of a living core; that must
    /// not hide it.
    pub async fn keep(mut self, stop: CancellationToken) {
        let mut told = None;
        while tokio::time::timeout(KEEP_EVERY, stop.cancelled()).await.is_err() {
            let why = self.look();
            if why != told
                && let Some(why) = &why
            {
                tracing::error!(%why, "this core cannot be found by other programs");
            }
            told = why;
        }
    }

    /// Puts back what is missing; says why it could not.
    fn look(&mut self) -> Option<String> {
        let dir = &self.paths.data_dir;
        if place(dir) != self.folder {
            return Some(format!("{} was removed or replaced", dir.display()));
        }
        let told = self
            .lock_again()
            .and_then(|()| self.announce_again().map_err(std::io::Error::other));
        told.err().map(|error| error.to_string())
    }

    fn lock_again(&mut self) -> std::io::Result<()> {
        if place(&self.paths.lock()) == self.lock {
            return Ok(());
        }
        let file = open_lock(&self.paths)?;
        // Somebody who looks holds it for a moment.
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        own(&file, std::process::id())?;
        self.lock = file.metadata().ok().map(|meta| place_of(&meta));
        tracing::warn!(file = %self.paths.lock().display(), "the lock file of this core was deleted; it is there again");
        self.anew = Some(file);
        Ok(())
    }

    fn announce_again(&self) -> Result<(), client::identity::IdentityError> {
        if self.paths.running().exists() {
            return Ok(());
        }
        self.announce()
    }

    fn announce(&self) -> Result<(), client::identity::IdentityError> {
        write_private(&self.paths.running(), &self.text)
    }
}

fn open_lock(paths: &Paths) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(paths.lock())
}

/// Which file or folder lies there.
fn place(path: &Path) -> Place {
    std::fs::metadata(path).ok().map(|meta| place_of(&meta))
}

fn place_of(meta: &std::fs::Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

fn refused(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("could not {what} {}: {error}", path.display()),
        "Check that the folder belongs to you and can be written, or name another with SEMO_DATA_DIR.",
    )
}

fn forget(file: &Path) {
    // One that is in the way of the next announcement is told then.
    let _ = std::fs::remove_file(file);
}

/// Writes down whose lock it is. The lock alone tells that there is somebody; this tells who.
fn own(mut lock: &File, pid: u32) -> std::io::Result<()> {
    lock.set_len(0)?;
    lock.write_all(format!("{pid}\n").as_bytes())
}

/// Whose lock it is, while it is held; `None` when that was not written yet.
pub fn owner(paths: &Paths) -> Option<u32> {
    let mut text = String::new();
    let lock = File::open(paths.lock()).ok()?;
    lock.take(LOCK_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Somebody else's. The token stays out: in the desktop app this goes to the log and into the page.
fn taken(paths: &Paths) -> Failure {
    let folder = paths.data_dir.display();
    match (announced(paths), owner(paths)) {
        (Some(running), _) => Failure::new(
            Exit::Failed,
            format!(
                "SEMO Office already runs on {folder} (process {}, at {})",
                running.pid, running.url
            ),
            "Use that one (`semo status` shows the address of its UI), or end it first with `semo down`; SEMO_DATA_DIR names another data folder.",
        ),
        (None, Some(pid)) => Failure::new(
            Exit::Failed,
            format!(
                "SEMO Office already runs on {folder} (process {pid}, which is still starting, or ending)"
            ),
            "Try again in a moment. If it stays so, that process hangs: end it.",
        ),
        (None, None) => Failure::new(
            Exit::Failed,
            format!(
                "SEMO Office already runs on {folder}: another process has locked {}",
                paths.lock().display()
            ),
            "Try again in a moment; `lsof` or `fuser` on that file tells which process it is.",
        ),
    }
}

/// What a file system says that knows no locks, or a network's that cannot reach its lock server.
fn cannot_lock(error: Errno) -> bool {
    [
        Errno::NOLCK,
        Errno::NOTSUP,
        Errno::OPNOTSUPP,
        Errno::NOSYS,
        Errno::INVAL,
    ]
    .contains(&error)
}

fn no_locks(paths: &Paths, error: Errno) -> Failure {
    let message = format!(
        "the file system of {} cannot lock files ({error}), so two cores could work on it at once",
        paths.data_dir.display()
    );
    Failure::new(
        Exit::Failed,
        message,
        "Name a data folder on a disk of this machine with SEMO_DATA_DIR; network drives often know no locks.",
    )
}

/// Whether a core runs on the data folder, or starts on it.
fn is_held(paths: &Paths) -> Result<bool, Failure> {
    // Without the folder nobody has ever started here, and without the file only those whose file was deleted.
    let Ok(folder) = File::open(&paths.data_dir) else {
        return Ok(false);
    };
    if flock(&folder, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK) {
        return Ok(true);
    }
    let Ok(lock) = File::open(paths.lock()) else {
        return Ok(false);
    };
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(error) if cannot_lock(error) => Err(no_locks(paths, error)),
        Err(_) => Ok(true),
    }
}

/// True when no core runs on this data folder, nor starts on it.
pub fn is_free(paths: &Paths) -> bool {
    is_held(paths).is_ok_and(|held| !held)
}

/// The core that runs on this data folder, if one does.
pub fn find(paths: &Paths) -> Result<Running, Failure> {
    if !is_held(paths)? {
        return Err(Failure::new(
            Exit::Unreachable,
            format!("SEMO Office does not run on {}", paths.data_dir.display()),
            "Start it with `semo up` or `make run`.",
        ));
    }
    announced(paths).ok_or_else(|| {
        let who = owner(paths).map_or_else(String::new, |pid| format!(" (process {pid})"));
        Failure::new(
            Exit::Unreachable,
            format!("SEMO Office is still starting, or ending{who}"),
            "Try again in a moment.",
        )
    })
}

/// What the core that holds the lock says of itself; nothing that an earlier one has left behind. A lock file that says
/// nothing was deleted and made anew, by whoever tried to lock it: then the announcement speaks for itself, for a core
/// that starts takes away what it finds.
fn announced(paths: &Paths) -> Option<Running> {
    let running: Running = serde_json::from_slice(&std::fs::read(paths.running()).ok()?).ok()?;
    owner(paths)
        .is_none_or(|owner| owner == running.pid)
        .then_some(running)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths {
            config_dir: dir.path().join("config"),
            data_dir: dir.path().join("data"),
        };
        (dir, paths)
    }

    fn running(pid: u32) -> Running {
        Running {
            pid,
            url: "http://127.0.0.1:4100".to_owned(),
            token: "secret".to_owned(),
            project_url: String::new(),
            publishable_key: String::new(),
        }
    }

    #[tokio::test]
    async fn one_core_has_the_folder_and_the_next_is_told_which_one() {
        let (_dir, paths) = folder();
        assert!(find(&paths).unwrap_err().message.contains("does not run"));
        let claim = Claim::take(&paths).await.unwrap();
        let starting = Claim::take(&paths).await.unwrap_err();
        let own = format!("process {}", std::process::id());
        assert!(
            starting.message.contains(&own) && starting.message.contains("starting"),
            "{}",
            starting.message
        );
        claim.announce(&running(std::process::id())).unwrap();
        let taken = Claim::take(&paths).await.unwrap_err();
        assert!(
            taken.message.contains(&own) && taken.message.contains("4100"),
            "{}",
            taken.message
        );
        assert!(!format!("{taken:?}").contains("secret"));
        assert_eq!(find(&paths).unwrap(), running(std::process::id()));
        drop(claim);
        assert!(is_free(&paths) && !paths.running().exists());
    }

    #[tokio::test]
    async fn what_a_killed_core_left_behind_speaks_for_nobody() {
        let (_dir, paths) = folder();
        // Its process id may be anybody's by now, even that of the next core.
        for left in [u32::MAX, std::process::id()] {
            write_private(&paths.lock(), left.to_string().as_bytes()).unwrap();
            write_private(&paths.running(), &serde_json::to_vec(&running(left)).unwrap()).unwrap();
            assert!(find(&paths).unwrap_err().message.contains("does not run"));
            let claim = Claim::take(&paths).await.unwrap();
            assert!(find(&paths).unwrap_err().message.contains("still starting"));
            drop(claim);
        }
    }

    #[tokio::test]
    async fn an_announcement_of_another_process_than_the_locks_is_not_believed() {
        let (_dir, paths) = folder();
        let claim = Claim::take(&paths).await.unwrap();
        claim.announce(&running(1)).unwrap();
        assert!(find(&paths).is_err());
    }

    #[tokio::test]
    async fn a_core_whose_lock_file_is_deleted_still_has_the_folder_and_is_still_found() {
        let (_dir, paths) = folder();
        let claim = Claim::take(&paths).await.unwrap();
        let own = running(std::process::id());
        let mut keeper = claim.announce(&own).unwrap();
        std::fs::remove_file(paths.lock()).unwrap();
        assert!(!is_free(&paths));
        assert_eq!(find(&paths).unwrap(), own);
        let second = Claim::take(&paths).await.unwrap_err();
        assert!(second.message.contains("already runs"), "{}", second.message);
        // A program of before makes the file anew, empty.
        std::fs::write(paths.lock(), b"").unwrap();
        assert_eq!(find(&paths).unwrap(), own);
        // Now both are gone: until the core looks again nobody knows its address, but that it is there.
        std::fs::remove_file(paths.lock()).unwrap();
        std::fs::remove_file(paths.running()).unwrap();
        assert!(find(&paths).unwrap_err().message.contains("starting"));
        assert_eq!(keeper.look(), None);
        assert_eq!(find(&paths).unwrap(), own);
        assert_eq!(owner(&paths), Some(own.pid));
        drop(keeper);
        drop(claim);
        assert!(is_free(&paths));
    }

    #[tokio::test]
    async fn a_core_whose_folder_was_replaced_leaves_the_new_one_alone() {
        let (_dir, paths) = folder();
        let claim = Claim::take(&paths).await.unwrap();
        let mut keeper = claim.announce(&running(std::process::id())).unwrap();
        std::fs::remove_dir_all(&paths.data_dir).unwrap();
        assert!(keeper.look().unwrap().contains("removed or replaced"));
        std::fs::create_dir(&paths.data_dir).unwrap();
        assert!(keeper.look().is_some());
        assert_eq!(std::fs::read_dir(&paths.data_dir).unwrap().count(), 0);
        assert!(is_free(&paths));
    }

    #[test]
    fn a_file_system_without_locks_is_named_as_such() {
        let (_dir, paths) = folder();
        for error in [Errno::NOLCK, Errno::NOTSUP, Errno::NOSYS] {
            assert!(cannot_lock(error), "{error}");
            let told = no_locks(&paths, error);
            assert!(told.message.contains("cannot lock") && told.hint.contains("SEMO_DATA_DIR"));
        }
        assert!(!cannot_lock(Errno::WOULDBLOCK) && !cannot_lock(Errno::ACCESS));
    }
}

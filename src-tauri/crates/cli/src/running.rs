//! How other programs of the same user find a running core: a file beside the data, readable by the user only, and a
//! lock that tells whether it is true.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use client::identity::write_private;
use client::paths::Paths;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};

/// How long to wait for the lock: whoever only looks for a core ([`find`]) holds it for a moment, too.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// Between two tries.
const LOCK_TRY_EVERY: Duration = Duration::from_millis(50);
/// Most that is read of the lock file: a process id.
const LOCK_BYTES_MAX: u64 = 32;

/// A running core.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its process.
    pub pid: u32,
    /// Its local API.
    pub url: String,
    /// The token of its launch.
    pub token: String,
    /// The hub or project it belongs to.
    pub project_url: String,
    /// The publishable key of that.
    pub publishable_key: String,
}

impl Running {
    /// The address of its UI, with the token: for the user's own eyes, never for a log or an error.
    pub fn ui(&self) -> String {
        format!("{}/#token={}", self.url, self.token)
    }
}

/// Held as long as the core runs on a data folder.
#[derive(Debug)]
pub struct Claim {
    _lock: File,
    file: std::path::PathBuf,
}

impl Claim {
    /// Takes the data folder for this process, or says who has it.
    pub async fn take(paths: &Paths) -> Result<Claim, Failure> {
        let refused = |what: &str, path: &Path, error: &std::io::Error| {
            Failure::new(
                Exit::Failed,
                format!("could not {what} {}: {error}", path.display()),
                "Check that the folder belongs to you and can be written, or name another with SEMO_DATA_DIR.",
            )
        };
        std::fs::create_dir_all(&paths.data_dir)
            .map_err(|error| refused("make the data folder", &paths.data_dir, &error))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(paths.lock())
            .map_err(|error| refused("write in the data folder:", &paths.lock(), &error))?;
        let give_up = tokio::time::Instant::now() + LOCK_WAIT;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if tokio::time::Instant::now() < give_up => {
                    tokio::time::sleep(LOCK_TRY_EVERY).await;
                }
                Err(Errno::WOULDBLOCK) => return Err(taken(paths)),
                Err(error) if cannot_lock(error) => return Err(no_locks(paths, error)),
                Err(error) => return Err(refused("lock", &paths.lock(), &error.into())),
            }
        }
        // What an earlier core said of itself is not true any more, though its process id may be in use again.
        forget(&paths.running());
        own(&lock, std::process::id()).map_err(|error| refused("write", &paths.lock(), &error))?;
        Ok(Claim {
            _lock: lock,
            file: paths.running(),
        })
    }

    /// Tells the other programs.
    pub fn announce(&self, running: &Running) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(running).unwrap_or_default();
        write_private(&self.file, &text).map_err(|error| Failure::of(Exit::Failed, &error))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A file that stays behind is harmless: the lock tells that nobody is there.
        forget(&self.file);
    }
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
    // Without the file nobody has ever started here.
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

/// What the core that holds the lock says of itself; nothing that an earlier one has left behind.
fn announced(paths: &Paths) -> Option<Running> {
    let running: Running = serde_json::from_slice(&std::fs::read(paths.running()).ok()?).ok()?;
    (owner(paths) == Some(running.pid)).then_some(running)
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

//! One change of a repository at a time, among all sessions and all programs of ours: `git worktree add` and the
//! exclude file do not bear two writers.
//!
//! Two locks, one behind the other: within this process a fair line per repository, so that of two hundred sessions
//! none starves; between processes a file.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::time::Instant;

use crate::error::WorktreeError;
use crate::git::LIMIT_LONG;

/// Name of the lock file in the repository's common git folder. It stays there, empty.
const FILE: &str = "semo.lock";
/// How often a taken lock is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// How long a lock is waited for: as long as the holder's slowest git call may take.
const WAIT_MAX: Duration = LIMIT_LONG;

/// The lines, by the repository's common git folder. One that nobody waits in is forgotten at the next call.
static LINES: LazyLock<Mutex<HashMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>> = LazyLock::new(Mutex::default);

/// Held until it is dropped; the system frees it if we die.
#[derive(Debug)]
pub(crate) struct RepositoryLock {
    _file: File,
    /// Behind the file: the next in line finds the file free.
    _turn: tokio::sync::OwnedMutexGuard<()>,
}

fn line(common_dir: &Path) -> Arc<tokio::sync::Mutex<()>> {
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.retain(|_, line| Arc::strong_count(line) > 1);
    Arc::clone(lines.entry(common_dir.to_owned()).or_default())
}

/// Waits for the lock.
pub(crate) async fn take(common_dir: &Path, what: &'static str) -> Result<RepositoryLock, WorktreeError> {
    let deadline = Instant::now() + WAIT_MAX;
    let too_long = || WorktreeError::Locked {
        what,
        path: common_dir.to_owned(),
        waited_s: WAIT_MAX.as_secs(),
    };
    let turn = tokio::time::timeout_at(deadline, line(common_dir).lock_owned())
        .await
        .map_err(|_| too_long())?;
    let path = common_dir.join(FILE);
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .map_err(WorktreeError::io("open the lock file", &path))?;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                return Ok(RepositoryLock {
                    _file: file,
                    _turn: turn,
                });
            }
            Err(error) if error == rustix::io::Errno::WOULDBLOCK || error == rustix::io::Errno::INTR => {}
            Err(error) => return Err(WorktreeError::io("lock", &path)(error.into())),
        }
        if Instant::now() >= deadline {
            return Err(too_long());
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

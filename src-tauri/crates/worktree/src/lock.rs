//! One change of a repository at a time, among all sessions and all programs of ours: `git worktree add` and the
//! exclude file do not bear two writers.

use std::fs::{File, OpenOptions};
use std::path::Path;
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

/// Held until it is dropped; the system frees it if we die.
#[derive(Debug)]
pub(crate) struct RepositoryLock {
    _file: File,
}

/// Waits for the lock. It belongs to the open file, so it also keeps two sessions of one process apart.
pub(crate) async fn take(common_dir: &Path, what: &'static str) -> Result<RepositoryLock, WorktreeError> {
    let path = common_dir.join(FILE);
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .map_err(WorktreeError::io("open the lock file", &path))?;
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(RepositoryLock { _file: file }),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK || error == rustix::io::Errno::INTR => {}
            Err(error) => return Err(WorktreeError::io("lock", &path)(error.into())),
        }
        if Instant::now() >= deadline {
            return Err(WorktreeError::Locked {
                what,
                path: common_dir.to_owned(),
                waited_s: WAIT_MAX.as_secs(),
            });
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

//! How other programs of the same user find a running core: a file beside the data, readable by the user only, and a
//! lock that tells whether it is true.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::Duration;

use client::identity::write_private;
use client::paths::Paths;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};

/// How long to wait for the lock: whoever only looks for a core ([`find`]) holds it for a moment, too.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// Between two tries.
const LOCK_TRY_EVERY: Duration = Duration::from_millis(50);

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
                Ok(()) => {
                    return Ok(Claim {
                        _lock: lock,
                        file: paths.running(),
                    });
                }
                Err(rustix::io::Errno::WOULDBLOCK) if tokio::time::Instant::now() < give_up => {
                    tokio::time::sleep(LOCK_TRY_EVERY).await;
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(taken(paths)),
                Err(error) => return Err(refused("lock", &paths.lock(), &error.into())),
            }
        }
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
        let _ = std::fs::remove_file(&self.file);
    }
}

/// Somebody else's. The token stays out: in the desktop app this goes to the log and into the page.
fn taken(paths: &Paths) -> Failure {
    let whose = read(paths).map_or_else(String::new, |running| {
        format!(" (process {}, at {})", running.pid, running.url)
    });
    Failure::new(
        Exit::Failed,
        format!("SEMO Office already runs on {}{whose}", paths.data_dir.display()),
        "Use that one (`semo status` shows the address of its UI), or end it first; SEMO_DATA_DIR names another data folder.",
    )
}

/// True when no core runs on this data folder, nor starts on it.
pub fn is_free(paths: &Paths) -> bool {
    File::open(paths.lock()).map_or(true, |lock| {
        flock(&lock, FlockOperation::NonBlockingLockShared).is_ok()
    })
}

/// The core that runs on this data folder, if one does.
pub fn find(paths: &Paths) -> Result<Running, Failure> {
    if is_free(paths) {
        return Err(Failure::new(
            Exit::Unreachable,
            format!("SEMO Office does not run on {}", paths.data_dir.display()),
            "Start it with `semo up` or `make run`.",
        ));
    }
    read(paths).ok_or_else(|| {
        Failure::new(
            Exit::Unreachable,
            "SEMO Office is still starting",
            "Try again in a moment.",
        )
    })
}

fn read(paths: &Paths) -> Option<Running> {
    serde_json::from_slice(&std::fs::read(paths.running()).ok()?).ok()
}

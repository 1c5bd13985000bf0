//! Nothing of a story outlives it, also when the story fails: holders go on without their core by design, so somebody
//! has to end them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cli::machine::{Lever, StopHow};
use rustix::process::{Pid, Signal, kill_process};

use crate::processes::{Process, kill, of_folder};

/// How long a core of this process may take to end its sessions.
const CORE_WAIT: Duration = Duration::from_secs(15);
/// How long a holder that is told to end may take to end its program.
const HOLDER_WAIT: Duration = Duration::from_secs(8);
/// How long killed processes may take to go.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Ends what belongs to some folders when it is dropped: what names them on its command line, or has them in its
/// environment.
pub struct EndsLeft {
    folders: Vec<PathBuf>,
    lever: Option<Lever>,
}

impl EndsLeft {
    /// Of one folder: everything that was ever started for it.
    pub fn of(folder: &Path) -> EndsLeft {
        EndsLeft {
            folders: vec![folder.to_owned()],
            lever: None,
        }
    }

    /// Of a core in this process: its agents, whose home is `home`, and their holders. Its own end is asked for first.
    pub fn of_core(holders: &Path, home: &Path, lever: Lever) -> EndsLeft {
        EndsLeft {
            folders: vec![holders.to_owned(), home.to_owned()],
            lever: Some(lever),
        }
    }

    /// The core is another one from now on.
    pub fn core_is(&mut self, lever: Lever) {
        self.lever = Some(lever);
    }

    /// What is there now.
    pub fn left(&self) -> Vec<Process> {
        let mut left: Vec<Process> = self.folders.iter().flat_map(|folder| of_folder(folder)).collect();
        left.sort_by_key(|process| process.pid);
        left.dedup();
        left
    }

    /// Looks until nothing is left; false when something is after `limit`.
    fn is_over_within(&self, limit: Duration) -> bool {
        let give_up = Instant::now() + limit;
        while !self.left().is_empty() {
            if Instant::now() >= give_up {
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        true
    }
}

impl Drop for EndsLeft {
    fn drop(&mut self) {
        if self.left().is_empty() {
            return;
        }
        if let Some(lever) = &self.lever {
            lever.pull(StopHow::Now);
            if self.is_over_within(CORE_WAIT) {
                return;
            }
        }
        for process in self.left() {
            // A holder ends its program with everything below it.
            if process.line.contains("semo-holder") {
                let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
                let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
            }
        }
        if self.is_over_within(HOLDER_WAIT) {
            return;
        }
        for process in self.left() {
            kill(process.pid);
        }
        if !self.is_over_within(KILL_WAIT) {
            eprintln!("left behind by a story: {:?}", self.left());
        }
    }
}

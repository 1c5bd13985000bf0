//! Ending a process tree until it is proven gone.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::error::TerminalError;
use crate::process::{self, ProcessId};

/// How long a killed tree may take to be gone before we give up and say so.
const KILL_WAIT_MAX: Duration = Duration::from_secs(10);
/// Between two looks at the process list: short at first, because most trees go at once.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(5);
const LOOK_EVERY_MAX: Duration = Duration::from_millis(100);
/// Looks in a row that must find nothing: a process that was being forked during one is seen by the next.
const EMPTY_LOOKS: u32 = 2;

/// What is known after a stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopProof {
    /// The program's own process; absent for what an earlier process of ours left behind.
    pub root: Option<ProcessId>,
    /// Every process of the tree that was ever seen.
    pub seen: Vec<ProcessId>,
    /// Those that had to be killed, because TERM did not end them in time.
    pub killed: Vec<ProcessId>,
    /// Those that still live: the stop is not proven, and nothing they use may be removed.
    pub survivors: Vec<ProcessId>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

impl StopProof {
    /// Whether the whole tree is known to be gone.
    pub fn is_proven(&self) -> bool {
        self.survivors.is_empty()
    }
}

/// TERM to all, `grace`, KILL to what is left, until nothing is found or [`KILL_WAIT_MAX`] is over.
pub(crate) async fn stop_tree(
    root: ProcessId,
    tag: &str,
    grace: Duration,
) -> Result<StopProof, TerminalError> {
    let mut proof = stop_known(HashSet::from([root]), tag, grace).await?;
    proof.root = Some(root);
    Ok(proof)
}

/// Ends what a terminal of an earlier process of ours left behind: everything that carries its tag, TERM first. Used
/// at start, before anything that those programs may still use is touched.
pub async fn stop_left_behind(tag: &str, grace: Duration) -> Result<StopProof, TerminalError> {
    stop_known(HashSet::new(), tag, grace).await
}

async fn stop_known(
    known: HashSet<ProcessId>,
    tag: &str,
    grace: Duration,
) -> Result<StopProof, TerminalError> {
    let started = Instant::now();
    let mut tree = Tree {
        known,
        tag: tag.to_owned(),
    };
    let mut killed = BTreeSet::new();
    let mut terminated = HashSet::new();
    let mut empty_looks = 0;
    let mut look_every = LOOK_EVERY_MIN;
    let survivors = loop {
        let (next, living) = tree.look().await?;
        tree = next;
        empty_looks = if living.is_empty() { empty_looks + 1 } else { 0 };
        if empty_looks >= EMPTY_LOOKS {
            break Vec::new();
        }
        let waited = started.elapsed();
        if waited >= grace + KILL_WAIT_MAX {
            break living;
        }
        for process in living {
            if waited >= grace {
                signal(process, Signal::KILL);
                killed.insert(process);
            } else if terminated.insert(process) {
                signal(process, Signal::TERM);
            }
        }
        tokio::time::sleep(look_every).await;
        look_every = (look_every * 2).min(LOOK_EVERY_MAX);
    };
    let seen: BTreeSet<ProcessId> = tree.known.into_iter().collect();
    Ok(StopProof {
        root: None,
        seen: seen.into_iter().collect(),
        killed: killed.into_iter().collect(),
        survivors,
        took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// What has been seen of the tree so far.
struct Tree {
    known: HashSet<ProcessId>,
    tag: String,
}

impl Tree {
    /// Reading the list takes milliseconds: not on a thread that serves others.
    async fn look(mut self) -> Result<(Tree, Vec<ProcessId>), TerminalError> {
        tokio::task::spawn_blocking(move || {
            let living = process::living_tree(&mut self.known, &self.tag)?;
            Ok((self, living))
        })
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
        .map_err(|source| TerminalError::Processes { source })
    }
}

/// For a terminal that is dropped without a stop: kills what is found now, and proves nothing.
pub(crate) fn kill_tree_now(root: ProcessId, tag: &str) {
    let mut known = HashSet::from([root]);
    for process in process::living_tree(&mut known, tag).unwrap_or_default() {
        signal(process, Signal::KILL);
    }
}

fn signal(process: ProcessId, signal: Signal) {
    // Pids come again: the process that was looked at must still be the one.
    if process::identify(process.pid) != process {
        return;
    }
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    // Between the look and the signal the process may have gone: that is what we want.
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, signal)) {
        tracing::debug!(pid = process.pid, %error, "a signal found no process");
    }
}

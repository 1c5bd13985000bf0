//! Ending a process tree until it is proven gone.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::error::TerminalError;
use crate::process::{self, ProcessId};

/// How long a killed tree may take to be gone before we give up and say so.
const KILL_WAIT_MAX: Duration = Duration::from_secs(10);
/// Between two looks at the process list: short at first, because most trees go at once.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(5);
const LOOK_EVERY_MAX: Duration = Duration::from_millis(100);
/// Looks in a row that must find nothing: a process that was being forked during one is seen by the next.
pub(crate) const EMPTY_LOOKS: u32 = 2;

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

/// TERM to all, `grace`, KILL to what is left, until nothing is found or [`KILL_WAIT_MAX`] is over. `above` is the
/// holder of the tree. Takes its time: not on a thread that serves others.
pub(crate) fn stop_tree(
    root: Option<ProcessId>,
    tag: &str,
    above: Option<ProcessId>,
    grace: Duration,
) -> Result<StopProof, TerminalError> {
    let started = Instant::now();
    let mut known: HashSet<ProcessId> = root.into_iter().collect();
    let mut killed = BTreeSet::new();
    let mut terminated = HashSet::new();
    let mut empty_looks = 0;
    let mut look_every = LOOK_EVERY_MIN;
    let survivors = loop {
        let living = process::living_tree(&mut known, tag, above)
            .map_err(|source| TerminalError::Processes { source })?;
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
        std::thread::sleep(look_every);
        look_every = (look_every * 2).min(LOOK_EVERY_MAX);
    };
    let seen: BTreeSet<ProcessId> = known.into_iter().collect();
    Ok(StopProof {
        root,
        seen: seen.into_iter().collect(),
        killed: killed.into_iter().collect(),
        survivors,
        took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// The same, beside the threads that serve others.
pub(crate) async fn stop_beside(
    root: Option<ProcessId>,
    tag: &str,
    above: Option<ProcessId>,
    grace: Duration,
) -> Result<StopProof, TerminalError> {
    let tag = tag.to_owned();
    tokio::task::spawn_blocking(move || stop_tree(root, &tag, above, grace))
        .await
        .unwrap_or_else(|error| {
            Err(TerminalError::Processes {
                source: std::io::Error::other(error),
            })
        })
}

/// Ends what a terminal of an earlier process of ours left behind: everything that carries its tag, TERM first. Used
/// at start, before anything that those programs may still use is touched.
pub async fn stop_left_behind(tag: &str, grace: Duration) -> Result<StopProof, TerminalError> {
    stop_beside(None, tag, None, grace).await
}

/// For a terminal that is dropped without a stop: kills what is found now, and proves nothing.
pub(crate) fn kill_tree_now(root: ProcessId, tag: &str) {
    let mut known = HashSet::from([root]);
    for process in process::living_tree(&mut known, tag, None).unwrap_or_default() {
        signal(process, Signal::KILL);
    }
}

/// Signals this very process, and nobody who has its pid by now.
pub(crate) fn signal(process: ProcessId, signal: Signal) {
    let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    // Pids come again: the process that was looked at must still be the one. What was opened before the look stays the
    // one; on a kernel that cannot open a process, the pid has to do for the moment between.
    let opened = pidfd_open(pid, PidfdFlags::empty());
    if process::identify(process.pid) != process {
        return;
    }
    let sent = match opened {
        Ok(opened) => pidfd_send_signal(&opened, signal),
        Err(_) => kill_process(pid, signal),
    };
    // Between the look and the signal the process may have gone: that is what we want.
    if let Err(error) = sent {
        tracing::debug!(pid = process.pid, %error, "a signal found no process");
    }
}

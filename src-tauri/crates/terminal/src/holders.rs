//! [`Holders`]: how terminals are started and found again. `session` starts with it, `client` finds with it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::TerminalError;
use crate::finding::{self, Found};
use crate::folder;
use crate::pty::{SpawnSpec, Terminal};
use crate::starting;

/// How long the look for a holder may take in all.
pub const ATTACH_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long the output that a holder keeps may take to come.
const CATCH_UP_WAIT_MAX: Duration = Duration::from_secs(5);

/// How terminals are held. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Holders {
    pub(crate) kind: Kind,
}

/// Where the loop of a holder runs.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// On a thread of this process.
    Thread,
    /// In a process of its own.
    Process(Arc<Processes>),
}

/// What is the same for all holders that are processes.
#[derive(Debug)]
pub(crate) struct Processes {
    pub(crate) program: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) epoch: u64,
    pub(crate) alone_max: Duration,
}

/// What was found of the holder of an earlier core.
pub enum Held {
    /// It holds on. Its `exited()` may be `Some` at once: the program ended while nobody looked, and the holder kept its
    /// exit and its output until it is released.
    Attached(Terminal),
    /// Proven: neither holder nor program runs; what was left of the tag has been ended, and the folder removed.
    Gone {
        /// What proves it.
        why: String,
    },
    /// Something may still run; nothing was touched.
    Unknown {
        /// What is not known, and what the user can do.
        why: String,
    },
}

impl Holders {
    /// Holders that are processes of their own and outlive this one. `program` is `semo-holder`. `dir` is made with mode
    /// 0700, with one folder per tag in it. `epoch` grows with each launch of the core on this data folder: a holder
    /// obeys the highest it has seen. A holder without a core ends its program after `alone_max`.
    pub fn of_processes(program: PathBuf, dir: PathBuf, epoch: u64, alone_max: Duration) -> Holders {
        // A holder works in `/`, whatever our own working folder is.
        let whole = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let is_path = program.components().nth(1).is_some();
        Holders {
            kind: Kind::Process(Arc::new(Processes {
                program: if is_path { whole(program) } else { program },
                dir: whole(dir),
                epoch,
                alone_max,
            })),
        }
    }

    /// The same holder on a thread of this process: it ends, and its program with it, when the last handle goes. For
    /// tests and benches.
    pub fn in_this_process() -> Holders {
        Holders { kind: Kind::Thread }
    }

    /// Starts a program in a new terminal. `tag` is unique to this terminal (a session's id): it is put into the
    /// program's environment, so that a descendant is recognised even when its parents are gone.
    pub async fn start(&self, spec: &SpawnSpec, tag: &str) -> Result<Terminal, TerminalError> {
        let (holders, spec, tag) = (self.clone(), spec.clone(), tag.to_owned());
        beside(move || holders.start_now(&spec, &tag)).await?
    }

    fn start_now(&self, spec: &SpawnSpec, tag: &str) -> Result<Terminal, TerminalError> {
        match &self.kind {
            Kind::Thread => starting::on_thread(spec, tag),
            Kind::Process(processes) => starting::in_process(processes, spec, tag),
        }
    }

    /// Looks for the holder of an earlier core. Takes at most [`ATTACH_WAIT_MAX`], and what ending its leftovers takes.
    /// A holder on a thread of this process is never found: its program ended with its last handle.
    pub async fn attach(&self, tag: &str) -> Held {
        let (holders, tag) = (self.clone(), tag.to_owned());
        let found = beside(move || match &holders.kind {
            Kind::Thread => Found::Gone {
                why: "its holder was a thread of a process, and ended with it".to_owned(),
            },
            Kind::Process(processes) => finding::find(processes, &tag),
        });
        match found.await {
            Ok(Found::Gone { why }) => Held::Gone { why },
            Ok(Found::Unknown { why }) => Held::Unknown { why },
            Ok(Found::Attached(terminal)) => {
                // What came before the handshake is on the screen when we say that we hold it.
                let mut caught_up = terminal.caught_up();
                let caught_up = caught_up.wait_for(|caught_up| *caught_up);
                match tokio::time::timeout(CATCH_UP_WAIT_MAX, caught_up).await {
                    Ok(_) => Held::Attached(terminal),
                    Err(_) => Held::Unknown {
                        why: "its holder answered, and then did not send the output it keeps".to_owned(),
                    },
                }
            }
            Err(error) => Held::Unknown {
                why: error.to_string(),
            },
        }
    }

    /// Tags of which a folder is there: a holder runs, or has left it over.
    pub fn tags(&self) -> Result<Vec<String>, TerminalError> {
        match &self.kind {
            Kind::Thread => Ok(Vec::new()),
            Kind::Process(processes) => {
                let dir = processes.dir.clone();
                folder::tags(&dir).map_err(|source| TerminalError::Holders { dir, source })
            }
        }
    }
}

/// Starting and finding wait for another process: not on a thread that serves others.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, TerminalError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| TerminalError::Processes {
            source: std::io::Error::other(error),
        })
}

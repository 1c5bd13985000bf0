//! [`Terminal`]: the handle that callers hold, and how a program gets into a PTY.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use portable_pty::{CommandBuilder, MasterPty, PtySize, native_pty_system};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::emulator::{Emulator, Screen, Size, Snapshot};
use crate::error::TerminalError;
use crate::painted::PaintedRow;
use crate::process::{self, ProcessId, TREE_TAG_VARIABLE};
use crate::ring::{Output, RING_BYTES_MAX, Ring};
use crate::stop::{self, StopProof};
use crate::subscription::Subscription;
use crate::threads::{self, Threads, WriteRequest};

/// Writes that may wait for the program to take its input; further writers wait in [`Terminal::write`].
pub const WRITE_QUEUE_MAX: usize = 64;
/// Most bytes of one write: the longest prompt with room for its wrapping.
pub const WRITE_BYTES_MAX: usize = 128 * 1024;
/// How long a write waits for a program that does not read its input.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(15);

/// What to start, and where.
#[derive(Clone)]
pub struct SpawnSpec {
    /// The program, as a full path.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its working folder; must exist.
    pub cwd: PathBuf,
    /// Its whole environment: nothing is inherited from us.
    pub env: Vec<(String, String)>,
    /// Size of the terminal at the start.
    pub size: Size,
}

impl std::fmt::Debug for SpawnSpec {
    /// The environment may hold secrets: names only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("SpawnSpec")
            .field("program", &self.program)
            .field("args", &self.args)
            .field("cwd", &self.cwd)
            .field("env", &names)
            .field("size", &self.size)
            .finish()
    }
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code; absent when a signal ended it.
    pub code: Option<i32>,
    /// Name of the signal that ended it.
    pub signal: Option<String>,
}

/// When input was handed to the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// Just before the first byte.
    pub started: Instant,
    /// After the last byte.
    pub finished: Instant,
}

/// A program in a PTY. Cheap to clone; the program is killed when the last handle goes without a
/// [`stop`](Terminal::stop).
#[derive(Clone)]
pub struct Terminal {
    inner: Arc<Inner>,
}

/// What the reader thread and all handles look at.
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) end: watch::Sender<u64>,
    pub(crate) exit: watch::Sender<Option<Exit>>,
}

/// Output and the screen it paints, always in step.
pub(crate) struct State {
    pub(crate) ring: Ring,
    pub(crate) emulator: Emulator,
}

impl Shared {
    /// No code panics while it holds this lock (the engine is caught), so a poisoned one is still in order.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same with the history complete, which it is not during a flood.
    fn caught_up(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        let State { ring, emulator } = &mut *state;
        let upto = ring.end();
        emulator.catch_up(upto, ring);
        state
    }
}

struct Inner {
    shared: Arc<Shared>,
    root: ProcessId,
    tag: String,
    writes: mpsc::Sender<WriteRequest>,
    master: Mutex<Box<dyn MasterPty + Send>>,
    threads: Mutex<Option<Threads>>,
    stopping: tokio::sync::Mutex<Option<StopProof>>,
}

impl Terminal {
    /// Starts a program in a new PTY. `tag` is unique to this terminal (a session's id): it is put into the
    /// program's environment, so that a descendant is recognised even when its parents are gone.
    pub fn spawn(spec: &SpawnSpec, tag: &str) -> Result<Terminal, TerminalError> {
        let size = spec.size.clamped();
        let open_failed = |error: String| TerminalError::Open { reason: error };
        let pair = native_pty_system()
            .openpty(pty_size(size))
            .map_err(|error| open_failed(format!("{error:#}")))?;
        let reader = pair
            .master
            .try_clone_reader()
            .map_err(|error| open_failed(format!("{error:#}")))?;
        let writer = pair
            .master
            .take_writer()
            .map_err(|error| open_failed(format!("{error:#}")))?;
        let spawn_failed = |reason: String| TerminalError::Spawn {
            program: spec.program.clone(),
            cwd: spec.cwd.clone(),
            reason,
        };
        if !spec.cwd.is_dir() {
            return Err(spawn_failed("the working folder does not exist".to_owned()));
        }
        let child = pair
            .slave
            .spawn_command(command(spec, tag))
            .map_err(|error| spawn_failed(format!("{error:#}")))?;
        // Our end of the slave must go, or the output never ends.
        drop(pair.slave);
        let pid = child
            .process_id()
            .ok_or_else(|| spawn_failed("it has no process id".to_owned()))?;
        let root = process::identify(pid);

        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                ring: Ring::new(RING_BYTES_MAX),
                emulator: Emulator::new(size),
            }),
            end: watch::Sender::new(0),
            exit: watch::Sender::new(None),
        });
        let (writes, write_queue) = mpsc::channel(WRITE_QUEUE_MAX);
        let mut killer = child.clone_killer();
        let threads = threads::start(Arc::clone(&shared), reader, writer, write_queue, child, pid);
        let threads = threads.map_err(|source| {
            // Best effort: the caller gets the error that matters.
            let _ = killer.kill();
            TerminalError::Thread { pid, source }
        })?;
        Ok(Terminal {
            inner: Arc::new(Inner {
                shared,
                root,
                tag: tag.to_owned(),
                writes,
                master: Mutex::new(pair.master),
                threads: Mutex::new(Some(threads)),
                stopping: tokio::sync::Mutex::new(None),
            }),
        })
    }

    /// Id of the program's process.
    pub fn pid(&self) -> u32 {
        self.inner.root.pid
    }

    /// Types `bytes` into the terminal, and returns when the kernel has them. Writes of several callers do not mix.
    pub async fn write(&self, bytes: impl Into<Bytes>) -> Result<Written, TerminalError> {
        let bytes = bytes.into();
        let pid = self.pid();
        if bytes.len() > WRITE_BYTES_MAX {
            return Err(TerminalError::TooMuch {
                bytes: bytes.len(),
                max: WRITE_BYTES_MAX,
            });
        }
        // The kernel would take bytes for a program that is gone.
        if self.inner.shared.exit.borrow().is_some() {
            return Err(TerminalError::Closed { pid });
        }
        let (done, written) = oneshot::channel();
        let whole = async {
            let request = WriteRequest { bytes, done };
            let closed = || TerminalError::Closed { pid };
            self.inner.writes.send(request).await.map_err(|_| closed())?;
            written
                .await
                .map_err(|_| closed())?
                .map_err(|source| TerminalError::Write { pid, source })
        };
        tokio::time::timeout(WRITE_WAIT_MAX, whole)
            .await
            .unwrap_or(Err(TerminalError::Stuck {
                pid,
                waited: WRITE_WAIT_MAX,
            }))
    }

    /// Changes the window size; the program is told by the kernel.
    pub fn resize(&self, size: Size) -> Result<(), TerminalError> {
        let size = size.clamped();
        {
            let mut state = self.inner.shared.state();
            let State { ring, emulator } = &mut *state;
            emulator.resize(size, ring);
        }
        let master = self.inner.master.lock().unwrap_or_else(PoisonError::into_inner);
        master
            .resize(pty_size(size))
            .map_err(|error| TerminalError::Resize {
                pid: self.pid(),
                cols: size.cols,
                rows: size.rows,
                reason: format!("{error:#}"),
            })
    }

    /// The window size.
    pub fn size(&self) -> Size {
        self.inner.shared.state().emulator.size()
    }

    /// What is on the screen now, as text.
    pub fn screen(&self) -> Screen {
        self.inner.shared.state().emulator.screen()
    }

    /// What has scrolled off, as far as it is kept, then the visible screen, with attributes. Costly: not for each
    /// change.
    pub fn painted_rows(&self) -> Vec<PaintedRow> {
        self.inner.shared.caught_up().emulator.rows()
    }

    /// The text of the newest `count` rows: what has scrolled off (at most [`crate::HISTORY_ROWS_MAX`]), then the visible
    /// screen, oldest first.
    pub fn last_rows(&self, count: usize) -> Vec<String> {
        self.inner.shared.caught_up().emulator.last_rows(count)
    }

    /// What a late viewer paints before it follows the output from the snapshot's offset.
    pub fn snapshot(&self) -> Snapshot {
        self.inner.shared.caught_up().emulator.snapshot()
    }

    /// All kept output from `offset` on.
    pub fn output_since(&self, offset: u64) -> Output {
        self.inner.shared.state().ring.since(offset, RING_BYTES_MAX)
    }

    /// Follows the output from `offset` on (a snapshot's, or 0 for all that is kept).
    pub fn subscribe(&self, offset: u64) -> Subscription {
        Subscription::new(Arc::clone(&self.inner.shared), offset)
    }

    /// The absolute offset behind the newest byte; changes with every output.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.shared.end.subscribe()
    }

    /// Becomes `Some` when the program has ended and its output has been read to the end.
    pub fn exited(&self) -> watch::Receiver<Option<Exit>> {
        self.inner.shared.exit.subscribe()
    }

    /// Ends the program and everything it started, wherever that moved itself: TERM, `grace`, KILL, until it is
    /// proven gone or a limit is reached, which the proof says. Calling it again is harmless.
    pub async fn stop(&self, grace: Duration) -> Result<StopProof, TerminalError> {
        let mut last = self.inner.stopping.lock().await;
        if let Some(proof) = last.as_ref().filter(|proof| proof.is_proven()) {
            return Ok(proof.clone());
        }
        let proof = stop::stop_tree(self.inner.root, &self.inner.tag, grace).await?;
        if proof.is_proven() {
            let threads = self
                .inner
                .threads
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(threads) = threads {
                threads.join().await;
            }
        }
        *last = Some(proof.clone());
        Ok(proof)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.shared.exit.borrow().is_none() {
            tracing::warn!(
                pid = self.root.pid,
                "a terminal was dropped while its program ran; killing it"
            );
            stop::kill_tree_now(self.root, &self.tag);
        }
    }
}

fn command(spec: &SpawnSpec, tag: &str) -> CommandBuilder {
    let mut command = CommandBuilder::new(&spec.program);
    command.args(&spec.args);
    command.cwd(&spec.cwd);
    command.env_clear();
    for (name, value) in &spec.env {
        command.env(name, value);
    }
    command.env(TREE_TAG_VARIABLE, tag);
    command
}

fn pty_size(size: Size) -> PtySize {
    PtySize {
        rows: size.rows,
        cols: size.cols,
        pixel_width: 0,
        pixel_height: 0,
    }
}

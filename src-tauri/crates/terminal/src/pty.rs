//! [`Terminal`]: the handle that callers hold.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as StdInstant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::emulator::{Emulator, Screen, Size, Snapshot};
use crate::error::TerminalError;
use crate::follow;
use crate::holder::monotonic_ns;
use crate::line::{Answer, Line, Saying, Unheard, Welcomed};
use crate::painted::PaintedRow;
use crate::process;
use crate::ring::{Output, RING_BYTES_MAX, Ring};
use crate::stop::{self, StopProof};
use crate::subscription::Subscription;
use crate::wire::{PAINTING_BYTES_MAX, PROTOCOL_WITHDRAWS, Painting, Typed};

/// Writes that may wait for the program to take its input; further writers wait in [`Terminal::write`].
pub const WRITE_QUEUE_MAX: usize = 64;
/// Most bytes of one write: the longest prompt with room for its wrapping.
pub const WRITE_BYTES_MAX: usize = 128 * 1024;
/// How long a write waits for a program that does not read its input.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(15);
/// How long the holder may take to say what has become of input that is taken back.
const WITHDRAW_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long it may take to be known why a connection has ended.
const DECIDED_WAIT_MAX: Duration = Duration::from_secs(4);
/// How long the holder may take for its last words, and to be gone, once the process tree is.
const LAST_WORDS_MAX: Duration = Duration::from_secs(2);

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

/// A program in a PTY, as its holder shows it to us. Cheap to clone. When the last handle goes, the holder keeps the
/// program for the next core; one on a thread of this process ends it.
#[derive(Clone)]
pub struct Terminal {
    inner: Arc<Inner>,
}

/// What the follower and all handles look at.
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) end: watch::Sender<u64>,
    pub(crate) exit: watch::Sender<Option<Exit>>,
    pub(crate) lost: watch::Sender<bool>,
    /// Another core holds the program.
    pub(crate) displaced: watch::Sender<bool>,
    /// What the holder had kept when we came is all here.
    pub(crate) caught_up: watch::Sender<bool>,
}

/// Output and the screen it paints, always in step.
pub(crate) struct State {
    pub(crate) ring: Ring,
    pub(crate) emulator: Emulator,
}

impl State {
    /// Output goes on at `offset`. Returns whether there is a gap.
    pub(crate) fn skip_to(&mut self, offset: u64) -> bool {
        let is_gap = offset > self.ring.end();
        if is_gap {
            // The rows that scrolled off before the gap are made while their output is there.
            self.emulator.skip_to(offset, &self.ring);
            self.ring.skip_to(offset);
        }
        is_gap
    }
}

impl Shared {
    /// What shows the screen of now; nothing while our own may still be wrong (the holder's is right then), or when it is
    /// larger than a holder takes.
    pub(crate) fn painting(&self) -> Option<Painting> {
        if !*self.caught_up.borrow() {
            return None;
        }
        let painting = self.state().emulator.painting();
        (painting.ansi.len() <= PAINTING_BYTES_MAX).then_some(painting)
    }

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
    line: Arc<Line>,
    following: Mutex<Option<JoinHandle<()>>>,
    stopping: tokio::sync::Mutex<Option<StopProof>>,
}

impl Terminal {
    /// The terminal at the other end of a connection.
    pub(crate) fn of(welcomed: Welcomed, size: Size) -> Result<Terminal, TerminalError> {
        let pid = welcomed.by.root.pid;
        let mut state = State {
            ring: Ring::new(RING_BYTES_MAX),
            emulator: Emulator::new(size),
        };
        state.skip_to(welcomed.start);
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            end: watch::Sender::new(welcomed.start),
            exit: watch::Sender::new(None),
            lost: watch::Sender::new(false),
            displaced: watch::Sender::new(false),
            caught_up: watch::Sender::new(false),
        });
        let (line, following) = follow::start(&shared, welcomed, WRITE_QUEUE_MAX)
            .map_err(|source| TerminalError::Thread { pid, source })?;
        Ok(Terminal {
            inner: Arc::new(Inner {
                shared,
                line,
                following: Mutex::new(Some(following)),
                stopping: tokio::sync::Mutex::new(None),
            }),
        })
    }

    /// Becomes true when all that the holder had kept when we came is here: output, screen and exit.
    pub(crate) fn caught_up(&self) -> watch::Receiver<bool> {
        self.inner.shared.caught_up.subscribe()
    }

    /// Id of the program's process.
    pub fn pid(&self) -> u32 {
        self.inner.line.by.root.pid
    }

    /// Types `bytes` into the terminal, and returns when the kernel has them. Writes of several callers do not mix. What
    /// the program has taken nothing of is taken back: when it does not read for long ([`TerminalError::Stuck`]), and
    /// when the caller does not wait any longer.
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
        let line = &self.inner.line;
        let (id, mut typed) = line.expect();
        let mut waiting = Waiting {
            line,
            id,
            is_over: false,
        };
        let whole = async {
            line.sayings.send(Saying::Input { id, bytes }).await.ok()?;
            (&mut typed).await.ok()
        };
        let result = match tokio::time::timeout(WRITE_WAIT_MAX, whole).await {
            Ok(Some(Ok(typed))) => self.typed(typed).await,
            Ok(Some(Err(unheard))) => Err(self.unheard(unheard).await),
            Ok(None) => Err(self.no_longer().await),
            Err(_) => self.withdraw(id, &mut typed).await,
        };
        waiting.is_over = true;
        result
    }

    /// What has become of input, as the holder says it.
    async fn typed(&self, typed: Typed) -> Result<Written, TerminalError> {
        let (pid, waited) = (self.pid(), WRITE_WAIT_MAX);
        match typed {
            Typed::Done {
                started_ns,
                finished_ns,
            } => Ok(written(started_ns, finished_ns)),
            Typed::Not { .. } if self.inner.shared.exit.borrow().is_some() => Err(self.no_longer().await),
            Typed::Not { why } => Err(TerminalError::Write {
                pid,
                source: std::io::Error::other(why),
            }),
            Typed::Withdrawn => Err(TerminalError::Stuck { pid, waited }),
            Typed::Begun => Err(TerminalError::Unsure { pid, waited }),
        }
    }

    /// Takes back input that nobody has taken for long. Without an answer nothing is known about it.
    async fn withdraw(
        &self,
        id: u64,
        typed: &mut oneshot::Receiver<Answer>,
    ) -> Result<Written, TerminalError> {
        let line = &self.inner.line;
        if line.take_back(id) {
            return self.typed(Typed::Withdrawn).await;
        }
        let asked = async {
            if line.protocol < PROTOCOL_WITHDRAWS {
                return None;
            }
            line.sayings.send(Saying::Withdraw { id }).await.ok()?;
            typed.await.ok()
        };
        match tokio::time::timeout(WITHDRAW_WAIT_MAX, asked).await {
            Ok(Some(Ok(said))) => self.typed(said).await,
            Ok(Some(Err(unheard))) => Err(self.unheard(unheard).await),
            Ok(None) | Err(_) => Err(TerminalError::Unsure {
                pid: self.pid(),
                waited: WRITE_WAIT_MAX,
            }),
        }
    }

    /// The connection broke before it was heard what became of an input. If that is the end of the terminal, the end
    /// says more.
    async fn unheard(&self, unheard: Unheard) -> TerminalError {
        let line = &self.inner.line;
        let goes_on = tokio::select! {
            biased;
            () = self.decided() => false,
            () = line.renewal(unheard) => true,
            () = tokio::time::sleep(DECIDED_WAIT_MAX) => true,
        };
        match goes_on {
            true => TerminalError::Unheard { pid: self.pid() },
            false => self.over(),
        }
    }

    /// Why nothing can be said to the program any more. A connection that has just ended does not tell it at once.
    async fn no_longer(&self) -> TerminalError {
        // Then it is decided, or stays open.
        let _ = tokio::time::timeout(DECIDED_WAIT_MAX, self.decided()).await;
        self.over()
    }

    /// Waits until it is known how this terminal comes to its end.
    async fn decided(&self) {
        let shared = &self.inner.shared;
        let mut exit = shared.exit.subscribe();
        let (mut lost, mut displaced) = (shared.lost.subscribe(), shared.displaced.subscribe());
        if self.inner.line.is_let_go() {
            return;
        }
        tokio::select! {
            _ = exit.wait_for(Option::is_some) => {}
            _ = lost.wait_for(|lost| *lost) => {}
            _ = displaced.wait_for(|displaced| *displaced) => {}
        }
    }

    fn over(&self) -> TerminalError {
        let pid = self.pid();
        match self.inner.line.is_let_go() && self.inner.shared.exit.borrow().is_none() {
            true => TerminalError::LetGo { pid },
            false => TerminalError::Closed { pid },
        }
    }

    /// Changes the window size; the program is told by the kernel.
    pub fn resize(&self, size: Size) -> Result<(), TerminalError> {
        let size = size.clamped();
        {
            let mut state = self.inner.shared.state();
            let State { ring, emulator } = &mut *state;
            emulator.resize(size, ring);
        }
        let failed = |reason: &str| TerminalError::Resize {
            pid: self.pid(),
            cols: size.cols,
            rows: size.rows,
            reason: reason.to_owned(),
        };
        use tokio::sync::mpsc::error::TrySendError;
        match self.inner.line.sayings.try_send(Saying::Resize(size)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(failed("its holder does not answer")),
            Err(TrySendError::Closed(_)) => Err(failed("the terminal is closed")),
        }
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

    /// Lets go: the holder keeps program and output for the next core, and this handle sees nothing more of them. The
    /// holder on a thread of this process ends its program.
    pub fn detach(&self) {
        self.inner.let_go();
    }

    /// Becomes true when the holder itself has died. Its program is then ended and proven gone before
    /// [`exited`](Self::exited) becomes `Some`, with neither code nor signal.
    pub fn lost(&self) -> watch::Receiver<bool> {
        self.inner.shared.lost.subscribe()
    }

    /// Becomes true when a core of a later launch holds the program: this one sees and says nothing more, and what becomes
    /// of the program is the other one's to tell.
    pub fn displaced(&self) -> watch::Receiver<bool> {
        self.inner.shared.displaced.subscribe()
    }

    /// Ends the program and everything it started, wherever that moved itself: TERM, `grace`, KILL, until it is
    /// proven gone or a limit is reached, which the proof says. Then the holder goes too. Calling it again is harmless.
    pub async fn stop(&self, grace: Duration) -> Result<StopProof, TerminalError> {
        let mut last = self.inner.stopping.lock().await;
        if let Some(proof) = last.as_ref().filter(|proof| proof.is_proven()) {
            return Ok(proof.clone());
        }
        let line = &self.inner.line;
        if line.is_let_go() {
            return Err(TerminalError::LetGo { pid: self.pid() });
        }
        let by = &line.by;
        let proof = stop::stop_beside(Some(by.root), &by.tag, by.holder, grace).await?;
        if proof.is_proven() {
            self.release().await;
        }
        *last = Some(proof.clone());
        Ok(proof)
    }

    /// The program is gone: hears the holder's last words, and lets it go with all it has.
    async fn release(&self) {
        let by = &self.inner.line.by;
        let mut exited = self.inner.shared.exit.subscribe();
        let heard = tokio::time::timeout(LAST_WORDS_MAX, exited.wait_for(Option::is_some))
            .await
            .is_ok();
        if !heard {
            tracing::warn!(tag = by.tag, "a holder does not tell how its program ended");
        }
        // It may be gone already.
        let _ = self.inner.line.sayings.try_send(Saying::Release);
        let following = self
            .inner
            .following
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let line = Arc::clone(&self.inner.line);
        let ended = tokio::task::spawn_blocking(move || {
            let deadline = StdInstant::now() + LAST_WORDS_MAX;
            let following = following.as_ref();
            while following.is_some_and(|thread| !thread.is_finished()) {
                if StdInstant::now() >= deadline {
                    line.hang_up();
                    return false;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            true
        });
        if !ended.await.unwrap_or(false) {
            tracing::warn!(tag = by.tag, "a holder that was released has not ended");
        } else if let Some(way) = &self.inner.line.way
            // Another core may have taken it from us meanwhile: then it is in use.
            && !by.holder.is_some_and(process::lives)
            && let Err(error) = way.folder.remove()
        {
            tracing::warn!(tag = by.tag, %error, "the folder of a holder that is gone could not be removed");
        }
    }
}

/// An input on its way. Whoever does not wait for it any longer does not want it typed either.
struct Waiting<'a> {
    line: &'a Line,
    id: u64,
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.line.forget(self.id);
        if !self.is_over && self.line.protocol >= PROTOCOL_WITHDRAWS {
            // Where there is no room the holder stands still; it is typed then when it goes on.
            let _ = self.line.sayings.try_send(Saying::Withdraw { id: self.id });
        }
    }
}

/// The moments that a holder tells, on the clock of this process.
fn written(started_ns: u64, finished_ns: u64) -> Written {
    // In this order: a moment may be taken for a bit later than it was, never for earlier.
    let now_ns = monotonic_ns();
    let now = Instant::now();
    let ago = |ns: u64| {
        now.checked_sub(Duration::from_nanos(now_ns.saturating_sub(ns)))
            .unwrap_or(now)
    };
    Written {
        started: ago(started_ns),
        finished: ago(finished_ns),
    }
}

impl Inner {
    fn let_go(&self) {
        let line = &*self.line;
        let by = &line.by;
        if by.holder.is_none() && self.shared.exit.borrow().is_none() {
            tracing::warn!(
                pid = by.root.pid,
                "a terminal of this process was let go while its program ran; killing it"
            );
            stop::kill_tree_now(by.root, &by.tag);
        }
        if !line.let_go() {
            return;
        }
        // The next core may come when the beginning of the output is gone. Where there is no room, an older one does.
        if let Some(painting) = self.shared.painting() {
            let _ = line.sayings.try_send(Saying::Painting(painting));
        }
        if line.sayings.try_send(Saying::Bye).is_err() {
            line.hang_up();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.let_go();
    }
}

//! [`Session`]: the handle that callers hold.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use bytes::Bytes;
use domain::ask::{Answerer, AskAnswer};
use domain::marker::Marker;
use domain::session::{Ask, SessionState};
use domain::{AgentId, AskId, Clock, OfficeId, SessionId, Timestamp, TurnId};
use journal::Journal;
use provider::claude::{
    ClaudeLaunch, Conversation, HookEvent, HookKind, PromptFault, SIGN_IN_HINT, guard_prompt, parse_hook,
};
use provider::detect::{Detector, OfficePatterns};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use terminal::{Holders, Size, StopProof, Terminal, TerminalError};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::actor::{Actor, ActorParts};
use crate::error::SessionError;
use crate::follow::Explanation;
use crate::held::{Answering, HookReply};
use crate::left::{Left, LeftTurn};
use crate::report::SessionNote;
use crate::submission::Keyboard;

/// Turns that may wait in one session behind the one that runs; more are refused.
pub const TURN_QUEUE_MAX: usize = 8;
/// Hook reports that may wait for the actor; more are dropped, because the transcript tells the same.
pub const HOOK_QUEUE_MAX: usize = 256;
/// Bytes of the hook reports that may wait for the actor, as they came.
pub const HOOK_QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Calls that may wait for the actor. It never waits for anybody, so this is only ever full in a fault.
const CONTROL_QUEUE_MAX: usize = 64;
/// How long a program may take to end by itself after TERM.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(5);

/// What a session is started from.
#[derive(Clone)]
pub struct SessionSpec {
    /// Its id; also the agent program's own session id.
    pub id: SessionId,
    /// The office it works for.
    pub office: OfficeId,
    /// The agent it is.
    pub agent: AgentId,
    /// Shown as the terminal's title.
    pub title: String,
    /// Its working folder; exists, with the persona in place.
    pub worktree: PathBuf,
    /// How the agent program is started.
    pub launch: ClaudeLaunch,
    /// Size of its terminal at the start.
    pub size: Size,
    /// Where the agent program keeps transcripts and status files (see [`provider::claude::config_dir`]).
    pub config_dir: PathBuf,
    /// A new conversation, or one that is taken up again.
    pub start: StartMode,
    /// The program's own id of that conversation: the session's id, until `/clear` has begun another one in it.
    pub conversation: SessionId,
    /// What reads its screen; the newest one counts.
    pub detector: watch::Receiver<Arc<Detector>>,
    /// The office's own patterns for final messages; those of the moment a turn begins count.
    pub patterns: watch::Receiver<OfficePatterns>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What its terminal is held by.
    pub holders: Holders,
    /// Where the stages of its turns are written; each turn has its row there before it is submitted.
    pub journal: Arc<Journal>,
}

/// How a session begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartMode {
    /// With a new conversation under [`SessionSpec::conversation`].
    #[default]
    New,
    /// With the conversation of that id, which must be there: it is never replaced by a new one in silence.
    Resume,
}

/// A turn that was accepted, with the moment at which it was.
pub(crate) struct QueuedTurn {
    pub(crate) request: TurnRequest,
    /// The prompt with the marker's instruction, guarded.
    pub(crate) guarded: String,
    pub(crate) requested_at: Timestamp,
    pub(crate) requested: Instant,
}

/// A hook report, with the request that is held for its answer where there is one.
pub(crate) struct HookIn {
    pub(crate) event: HookEvent,
    pub(crate) reply: Option<oneshot::Sender<Value>>,
    /// Its part of [`HOOK_QUEUE_BYTES_MAX`], given back when it is dropped.
    pub(crate) room: OwnedSemaphorePermit,
}

/// One prompt to be carried to its end. The journal keeps it as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnRequest {
    /// The turn.
    pub id: TurnId,
    /// The prompt as the user gave it; the marker's instruction is appended here.
    pub prompt: String,
    /// The marker the final message must carry.
    pub marker: Marker,
    /// Limit from submission to end.
    pub timeout: Duration,
}

/// Which turn is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhichTurn {
    /// The one that runs now.
    Current,
    /// This one, running or waiting.
    Id(TurnId),
}

/// What callers ask of the actor.
pub(crate) enum Control {
    Turn(Box<QueuedTurn>),
    Cancel(WhichTurn),
    Answer(Box<Answering>),
    Explain(oneshot::Sender<Explanation>),
    Detach(oneshot::Sender<()>),
    Terminate(oneshot::Sender<Result<StopProof, SessionError>>),
}

/// A running session. Cheap to clone. When the last handle is dropped, the session is left to its holder.
#[derive(Clone)]
pub struct Session {
    id: SessionId,
    terminal: Terminal,
    clock: Arc<dyn Clock>,
    state: watch::Receiver<SessionState>,
    conversation: watch::Receiver<SessionId>,
    control: mpsc::Sender<Control>,
    hooks: mpsc::Sender<HookIn>,
    /// Bytes that the waiting hook reports may still take.
    hook_room: Arc<Semaphore>,
    /// Turns accepted and not yet ended.
    open_turns: Arc<AtomicUsize>,
    keyboard: Arc<Mutex<Keyboard>>,
    /// Somebody has pressed a key.
    touched: Arc<AtomicBool>,
}

impl Session {
    /// Starts the agent program and the actor that looks after it, on `tasks`. Must be called inside a runtime.
    pub async fn start(
        spec: SessionSpec,
        tasks: &TaskTracker,
        notes: mpsc::Sender<SessionNote>,
    ) -> Result<Session, SessionError> {
        let id = spec.id;
        if spec.start == StartMode::Resume {
            check_resume(&spec)?;
        }
        let conversation = match spec.start {
            StartMode::New => Conversation::New(spec.conversation),
            StartMode::Resume => Conversation::Resume(spec.conversation),
        };
        let plan = spec
            .launch
            .prepare(id, &spec.title, &spec.worktree, spec.size, conversation)
            .map_err(|source| SessionError::Provider { session: id, source })?;
        let terminal = spec.holders.start(&plan, &id.to_string()).await;
        let terminal = terminal.map_err(|source| SessionError::Terminal { session: id, source })?;
        Ok(Session::looked_after(spec, terminal, None, tasks, notes))
    }

    /// Takes up a program that another process of ours has started, and the turn that is open in it. Must be called
    /// inside a runtime. The program may have ended meanwhile: then its last notes come at once. [`StartMode::Resume`] is
    /// for a program that was to take up a conversation and has not been ready since: another one is a fault then.
    pub fn attach(
        spec: SessionSpec,
        terminal: Terminal,
        left: Option<LeftTurn>,
        tasks: &TaskTracker,
        notes: mpsc::Sender<SessionNote>,
    ) -> Result<Session, SessionError> {
        let session = spec.id;
        let left = left
            .map(|left| guarded_text(&left.request).map(|guarded| Left::new(left, guarded)))
            .transpose()
            .map_err(|source| SessionError::Prompt { session, source })?;
        Ok(Session::looked_after(spec, terminal, Some(left), tasks, notes))
    }

    fn looked_after(
        spec: SessionSpec,
        terminal: Terminal,
        joined: Option<Option<Left>>,
        tasks: &TaskTracker,
        notes: mpsc::Sender<SessionNote>,
    ) -> Session {
        let id = spec.id;
        let state = watch::Sender::new(SessionState::Starting);
        let conversation = watch::Sender::new(spec.conversation);
        let (control, control_queue) = mpsc::channel(CONTROL_QUEUE_MAX);
        let (hooks, hook_queue) = mpsc::channel(HOOK_QUEUE_MAX);
        let open_turns = usize::from(matches!(joined, Some(Some(_))));
        let session = Session {
            id,
            terminal: terminal.clone(),
            clock: Arc::clone(&spec.clock),
            state: state.subscribe(),
            conversation: conversation.subscribe(),
            control,
            hooks,
            hook_room: Arc::new(Semaphore::new(HOOK_QUEUE_BYTES_MAX)),
            open_turns: Arc::new(AtomicUsize::new(open_turns)),
            keyboard: Arc::new(Mutex::new(Keyboard::new(joined.is_some()))),
            // Nobody knows who typed before.
            touched: Arc::new(AtomicBool::new(joined.is_some())),
        };
        let parts = ActorParts {
            terminal,
            state,
            conversation,
            control: control_queue,
            hooks: hook_queue,
            notes,
            open_turns: Arc::clone(&session.open_turns),
            keyboard: Arc::clone(&session.keyboard),
        };
        let span = tracing::info_span!("session", session = %id, agent = %spec.agent, office = %spec.office);
        tasks.spawn(Actor::new(spec, parts).run(joined).instrument(span));
        session
    }

    /// The session's id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Hands over a turn. `Ok` means that exactly one [`SessionNote::TurnEnded`] will come for it.
    pub fn submit(&self, request: TurnRequest) -> Result<(), SessionError> {
        let session = self.id;
        if *self.terminal.displaced().borrow() {
            return Err(self.over());
        }
        match &*self.state.borrow() {
            SessionState::Stopping | SessionState::Exited { .. } => {
                return Err(self.over());
            }
            SessionState::AwaitingPerson { turn: None, ask } => {
                let what_to_do = what_to_do(*ask).to_owned();
                return Err(SessionError::AwaitingPerson { session, what_to_do });
            }
            SessionState::Starting
            | SessionState::Idle
            | SessionState::Working { .. }
            | SessionState::AwaitingPerson { turn: Some(_), .. } => {}
        }
        guarded_text(&request)
            .map_err(|source| SessionError::Prompt { session, source })
            .and_then(|guarded| self.queue(request, guarded))
    }

    fn queue(&self, request: TurnRequest, guarded: String) -> Result<(), SessionError> {
        let full = SessionError::QueueFull {
            session: self.id,
            max: TURN_QUEUE_MAX,
        };
        // One runs, the others wait.
        let accept = |open: usize| (open <= TURN_QUEUE_MAX).then_some(open + 1);
        if self.open_turns.fetch_update(Relaxed, Relaxed, accept).is_err() {
            return Err(full);
        }
        let turn = Box::new(QueuedTurn {
            request,
            guarded,
            requested_at: self.clock.now(),
            requested: Instant::now(),
        });
        self.control.try_send(Control::Turn(turn)).map_err(|error| {
            self.open_turns.fetch_sub(1, Relaxed);
            match error {
                mpsc::error::TrySendError::Full(_) => full,
                mpsc::error::TrySendError::Closed(_) => self.over(),
            }
        })
    }

    /// Asks for a turn to be stopped; its end comes as a note. Nothing happens when there is no such turn.
    pub fn cancel(&self, which: WhichTurn) -> Result<(), SessionError> {
        self.control
            .try_send(Control::Cancel(which))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => SessionError::QueueFull {
                    session: self.id,
                    max: CONTROL_QUEUE_MAX,
                },
                mpsc::error::TrySendError::Closed(_) => self.over(),
            })
    }

    /// Types raw bytes, as a person at the keyboard. Waits while a prompt is being submitted.
    pub async fn keys(&self, bytes: Bytes) -> Result<(), SessionError> {
        // Before the program can see it, so that whoever looks after the program has seen it knows.
        self.touched.fetch_or(are_pressed(&bytes), Relaxed);
        let _typing = self.keyboard.lock().await;
        if self.terminal.exited().borrow().is_some() {
            // Proven: later it would not be known how much of them was taken.
            return Err(self.over());
        }
        let written = self.terminal.write(bytes).await;
        written.map(|_| ()).map_err(|source| self.terminal_failed(source))
    }

    /// Why nothing can be asked of it any more.
    fn over(&self) -> SessionError {
        let session = self.id;
        match *self.terminal.displaced().borrow() {
            true => SessionError::TakenOver { session },
            false => SessionError::Over { session },
        }
    }

    fn terminal_failed(&self, source: TerminalError) -> SessionError {
        let session = self.id;
        match source {
            TerminalError::LetGo { .. } if *self.terminal.displaced().borrow() => {
                SessionError::TakenOver { session }
            }
            source => SessionError::Terminal { session, source },
        }
    }

    /// Whether anybody has pressed a key in it since its program was started, or may have, before it was taken up.
    pub fn touched(&self) -> bool {
        self.touched.load(Relaxed)
    }

    /// Changes the terminal's size.
    pub fn resize(&self, size: Size) -> Result<(), SessionError> {
        self.terminal
            .resize(size)
            .map_err(|source| SessionError::Terminal {
                session: self.id,
                source,
            })
    }

    /// Takes the body of a hook request that came in for this session, with the secret already checked. The request
    /// is to be answered with status 200 and the body of the reply: the agent stands still meanwhile, except where a
    /// person is asked.
    pub fn hook(&self, body: &[u8]) -> HookReply {
        let Some(room) = room_for(&self.hook_room, body.len()) else {
            tracing::warn!(session = %self.id, bytes = body.len(), "a hook report was dropped: too much waits already");
            return HookReply::Now;
        };
        let event = match parse_hook(body) {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(session = %self.id, %error, "a hook report was refused");
                return HookReply::Now;
            }
        };
        let asks = matches!(event.kind, HookKind::PermissionRequest { .. });
        let (reply, answer) = asks.then(oneshot::channel).unzip();
        if let Err(error) = self.hooks.try_send(HookIn { event, reply, room }) {
            tracing::warn!(session = %self.id, %error, "a hook report was dropped; the transcript has to do");
            return HookReply::Now;
        }
        answer.map_or(HookReply::Now, HookReply::Held)
    }

    /// Answers what the agent asks. The first answer wins, wherever it comes from: [`SessionError::AskOver`] for all
    /// others. Waits for the actor.
    pub async fn answer(&self, ask: AskId, answer: AskAnswer, by: Answerer) -> Result<(), SessionError> {
        let session = self.id;
        let over = || match self.over() {
            SessionError::Over { .. } => SessionError::AskOver {
                session,
                ask,
                how: "withdrawn (the session ended)".to_owned(),
            },
            taken_over => taken_over,
        };
        let (reply, result) = oneshot::channel();
        let answering = Box::new(Answering {
            ask,
            answer,
            by,
            reply,
        });
        if self.control.send(Control::Answer(answering)).await.is_err() {
            return Err(over());
        }
        result.await.unwrap_or_else(|_| Err(over()))
    }

    /// What was seen of this session and why its turns ended as they did. Waits for the actor.
    pub async fn explain(&self) -> Result<Explanation, SessionError> {
        let over = self.over();
        let (reply, explanation) = oneshot::channel();
        if self.control.send(Control::Explain(reply)).await.is_err() {
            return Err(over);
        }
        explanation.await.map_err(|_| over)
    }

    /// Ends the session: interrupts its turn, ends the program and its whole process tree, and waits for the proof.
    pub async fn terminate(&self) -> Result<StopProof, SessionError> {
        let (reply, proof) = oneshot::channel();
        if self.control.send(Control::Terminate(reply)).await.is_ok()
            && let Ok(proof) = proof.await
        {
            return proof;
        }
        // The actor has ended, and with it the program: this is the proof of it.
        let stopped = self.terminal.stop(STOP_GRACE).await;
        stopped.map_err(|source| self.terminal_failed(source))
    }

    /// Leaves the program and its turn to their holder: the actor ends, nothing is reported of what still runs, and the
    /// journal keeps its turn open. A session that is being ended already is ended first.
    pub async fn detach(&self) {
        let (reply, left) = oneshot::channel();
        if self.control.send(Control::Detach(reply)).await.is_ok() {
            // An error means that the actor has ended, which is as good.
            let _ = left.await;
        }
    }

    /// The program's own id of its conversation: the one it was started with, until `/clear` has begun another.
    pub fn conversation(&self) -> SessionId {
        *self.conversation.borrow()
    }

    /// The session's state, now and as it changes.
    pub fn state(&self) -> watch::Receiver<SessionState> {
        self.state.clone()
    }

    /// Its terminal.
    pub fn terminal(&self) -> &Terminal {
        &self.terminal
    }
}

/// The prompt as it is typed: with the marker's instruction, guarded.
pub(crate) fn guarded_text(request: &TurnRequest) -> Result<String, PromptFault> {
    let text = match request.marker.instruction() {
        Some(instruction) => format!("{}\n\n{instruction}", request.prompt.trim_end()),
        None => request.prompt.clone(),
    };
    // The prompt alone must stand the test: the instruction must not make an empty one acceptable.
    guard_prompt(&request.prompt).and_then(|_| guard_prompt(&text))
}

/// A conversation can only be taken up again where its transcript is: the program would otherwise end, or begin anew.
fn check_resume(spec: &SessionSpec) -> Result<(), SessionError> {
    let path = provider::claude::transcript_path(&spec.config_dir, &spec.worktree, spec.conversation);
    let length = std::fs::metadata(&path).map_or(0, |file| file.len());
    if length > 0 {
        return Ok(());
    }
    Err(SessionError::NothingToResume {
        session: spec.id,
        why: format!("there is no conversation at {}", path.display()),
    })
}

/// Takes the room that a report needs while it waits; `None` where there is not as much.
fn room_for(room: &Arc<Semaphore>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    let bytes = u32::try_from(bytes).ok()?;
    Arc::clone(room).try_acquire_many_owned(bytes).ok()
}

/// Whether there is a key among bytes from somebody's terminal. What a terminal says by itself is none: that it has or
/// has lost the focus, and its answers to questions of the program.
fn are_pressed(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(report) = leading_report(rest) {
        rest = &rest[report..];
    }
    !rest.is_empty()
}

/// The length of the terminal's report that `bytes` begin with.
fn leading_report(bytes: &[u8]) -> Option<usize> {
    match bytes.get(..2)? {
        // `ESC [ I` and `ESC [ O`: focus. `ESC [ ? … c`, `ESC [ > … c`, `ESC [ … R`, `ESC [ … n`, `ESC [ ? … $ y`: answers.
        b"\x1b[" => {
            let end = 2 + bytes[2..].iter().position(|byte| (0x40..0x7f).contains(byte))?;
            let (inner, last) = (&bytes[2..end], bytes[end]);
            let is_report = match last {
                b'I' | b'O' => inner.is_empty(),
                b'c' | b'y' => matches!(inner.first(), Some(b'?' | b'>')),
                b'R' | b'n' => inner.first().is_some_and(u8::is_ascii_digit),
                _ => false,
            };
            is_report.then_some(end + 1)
        }
        // `ESC ] … ESC \` or `… BEL` and `ESC P … ESC \`: answers about colours, versions and the like.
        b"\x1b]" | b"\x1bP" => {
            let long = bytes
                .windows(2)
                .position(|pair| pair == b"\x1b\\")
                .map(|at| at + 2);
            let short = bytes.iter().position(|byte| *byte == 0x07).map(|at| at + 1);
            [long, short].into_iter().flatten().min()
        }
        _ => None,
    }
}

/// What a person has to do about an ask, in the words of a message.
pub(crate) fn what_to_do(ask: Ask) -> &'static str {
    match ask {
        Ask::Login => SIGN_IN_HINT,
        Ask::Permission => "the agent asks for a permission; answer it in the session's terminal",
        Ask::Question => "the agent asks a question; answer it in the session's terminal",
        Ask::Dialog => {
            "the agent program shows a dialog that only a person may answer, in the session's terminal"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waiting_hook_reports_are_bounded_by_their_bytes_and_give_back_what_they_took() {
        let room = Arc::new(Semaphore::new(HOOK_QUEUE_BYTES_MAX));
        let quarter = HOOK_QUEUE_BYTES_MAX / 4;
        let mut waiting: Vec<_> = (0..4).filter_map(|_| room_for(&room, quarter)).collect();
        assert_eq!(waiting.len(), 4);
        assert!(room_for(&room, 1).is_none(), "full by bytes, with four reports");
        waiting.pop();
        assert!(room_for(&room, quarter + 1).is_none());
        assert!(room_for(&room, quarter).is_some());
    }

    #[test]
    fn what_a_terminal_says_by_itself_is_no_key() {
        for report in [
            &b""[..],
            b"\x1b[I",
            b"\x1b[O\x1b[I",
            b"\x1b[?1;2c",
            b"\x1b[>0;276;0c",
            b"\x1b[12;40R",
            b"\x1b[?2026;2$y",
            b"\x1b]11;rgb:0000/0000/0000\x1b\\",
            b"\x1b]10;rgb:ffff/ffff/ffff\x07\x1b[I",
            b"\x1bP>|xterm.js(5.5.0)\x1b\\",
        ] {
            assert!(!are_pressed(report), "{report:?}");
        }
        for keys in [
            &b"x"[..],
            b"\r",
            b"\x1b",
            b"\x1b[Z",
            b"\x1b[A",
            b"\x1bOP",
            b"\x1b[I\x1b[Z",
            b"\x1b[200~text\x1b[201~",
            b"\x1b]unfinished",
        ] {
            assert!(are_pressed(keys), "{keys:?}");
        }
    }
}

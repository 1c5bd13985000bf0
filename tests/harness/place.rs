//! One session with everything around it: its worktree, its journal, its holder, the endpoint of its hooks. Whatever
//! agent program it runs is the caller's.

mod turns;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use domain::ask::PendingAsk;
use domain::marker::Marker;
use domain::session::SessionState;
use domain::turn::{FailureClass, TurnOutcome, TurnStage};
use domain::{AgentId, Clock, OfficeId, SessionId, TurnId};
use journal::{Journal, NewTurn, SessionRow, TurnEnd};
use provider::claude::{ClaudeLaunch, HOOK_SECRET_HEADER, HookEndpoint};
use provider::detect::{Detectors, OfficePatterns};
use serde_json::Value;
use session::{
    LeftTurn, Session, SessionError, SessionExit, SessionNote, SessionSpec, StartMode, TurnReport,
    TurnRequest,
};
use tempfile::TempDir;
use terminal::{Held, Holders, Size};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::clock::SystemClock;
use crate::guard::EndsLeft;
use crate::port;
use crate::processes::built;
use crate::wait::{LONG, wait_until};

pub use turns::deny;

/// Longest that any one step may take on a busy machine.
pub const LIMIT: Duration = LONG;
/// The secret that hooks carry.
pub const SECRET: &str = "0123456789abcdef";
/// Notes that may wait for the story.
const NOTES_MAX: usize = 64;
/// How long a holder lives without a core.
const ALONE_MAX: Duration = Duration::from_secs(300);

/// Whether the hooks reach the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hooks {
    /// They do.
    Delivered,
    /// The endpoint answers, and nothing is made of it.
    Lost,
}

/// Where the program is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBy {
    /// This process: it ends with the last handle.
    ThisProcess,
    /// A process of its own: it can be left and taken up again.
    AProcess,
}

/// A session with everything around it.
pub struct Place {
    /// The session.
    pub session: Session,
    /// What it tells.
    pub notes: mpsc::Receiver<SessionNote>,
    /// What it was started from.
    pub spec: SessionSpec,
    /// Before the folder goes.
    _guard: EndsLeft,
    folder: TempDir,
    held_by: HeldBy,
    epoch: u64,
    tasks: TaskTracker,
    hook_port: HookPort,
}

struct Endpoint {
    session: watch::Receiver<Option<Session>>,
    hooks: Hooks,
}

async fn take_hook(
    State(endpoint): State<Arc<Endpoint>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let secret = headers.get(HOOK_SECRET_HEADER);
    if secret.is_none_or(|secret| secret != SECRET) {
        return (StatusCode::UNAUTHORIZED, "{}".into());
    }
    let session = endpoint.session.borrow().clone();
    let reply = match session.filter(|_| endpoint.hooks == Hooks::Delivered) {
        Some(session) => session.hook(&body).body().await.to_string(),
        None => "{}".into(),
    };
    (StatusCode::OK, reply)
}

/// Where hooks go. It has a runtime of its own, so that all of it can die at once, as with a core.
struct HookPort {
    hooks: Hooks,
    port: u16,
    session: watch::Sender<Option<Session>>,
    runtime: Option<Runtime>,
}

impl HookPort {
    async fn open(hooks: Hooks) -> HookPort {
        let mut port = HookPort {
            hooks,
            port: port::take(),
            session: watch::Sender::new(None),
            runtime: None,
        };
        port.bind().await;
        port
    }

    /// Listens on its port.
    async fn bind(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let endpoint = Arc::new(Endpoint {
            session: self.session.subscribe(),
            hooks: self.hooks,
        });
        let router = Router::new()
            .route("/hooks/{session}", post(take_hook))
            .with_state(endpoint);
        let port = self.port;
        let bound = runtime.spawn(async move {
            let listener = port::listen(port).await;
            tokio::spawn(async move { axum::serve(listener, router).await });
        });
        bound.await.expect("it listens");
        self.runtime = Some(runtime);
    }

    /// Refuses every connection from here on, and resets those that are open: all of it has ended when this returns.
    async fn die(&mut self) {
        self.session.send_replace(None);
        if let Some(runtime) = self.runtime.take() {
            let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(LIMIT));
            ended.await.expect("no panic");
        }
    }

    fn endpoint(&self) -> HookEndpoint {
        HookEndpoint {
            url: format!("http://127.0.0.1:{}/hooks", self.port),
            secret: SECRET.into(),
        }
    }
}

impl Drop for HookPort {
    fn drop(&mut self) {
        self.session.send_replace(None);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Place {
    /// Starts a session in a worktree of its own. `launch` is told where hooks go and which folder is the place's own.
    pub async fn start(
        hooks: Hooks,
        held_by: HeldBy,
        config_dir: impl FnOnce(&Path) -> PathBuf,
        launch: impl FnOnce(HookEndpoint, &Path) -> ClaudeLaunch,
    ) -> Place {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let repository = worktree::sample_repository(&folder.path().join("repository"))
            .await
            .expect("a repository");
        let hook_port = HookPort::open(hooks).await;
        let journal = Journal::open(&folder.path().join("journal.db")).expect("a journal");
        let id = SessionId(Uuid::new_v4());
        let spec = SessionSpec {
            id,
            office: OfficeId(Uuid::nil()),
            agent: AgentId(Uuid::nil()),
            title: "FE worker".into(),
            worktree: repository.root().to_owned(),
            launch: launch(hook_port.endpoint(), folder.path()),
            size: Size { cols: 120, rows: 40 },
            config_dir: config_dir(folder.path()),
            start: StartMode::New,
            conversation: id,
            detector: watch::channel(Detectors::bundled().for_program("claude", None)).1,
            patterns: watch::channel(OfficePatterns::default()).1,
            clock: Arc::new(SystemClock),
            holders: holders(held_by, folder.path(), 1),
            journal: Arc::new(journal),
        };
        spec.journal.save_session(&row(&spec)).expect("a row");
        let (notes_in, notes) = mpsc::channel(NOTES_MAX);
        let tasks = TaskTracker::new();
        let session = Session::start(spec.clone(), &tasks, notes_in)
            .await
            .expect("it starts");
        hook_port.session.send_replace(Some(session.clone()));
        Place {
            session,
            notes,
            spec,
            _guard: EndsLeft::of(folder.path()),
            folder,
            held_by,
            epoch: 1,
            tasks,
            hook_port,
        }
    }

    /// Starts the program anew, as `start` says, once the one before has ended.
    pub async fn start_again(&mut self, start: StartMode) -> Result<(), SessionError> {
        let mut spec = self.spec.clone();
        spec.start = start;
        let (notes_in, notes) = mpsc::channel(NOTES_MAX);
        self.session = Session::start(spec, &self.tasks, notes_in).await?;
        self.notes = notes;
        self.hook_port.session.send_replace(Some(self.session.clone()));
        Ok(())
    }

    /// Leaves the program and its turn to its holder, as a core does that ends. The last notes are thrown away, and
    /// hooks find a port that is closed.
    pub async fn leave(&mut self) {
        self.hook_port.die().await;
        let left = tokio::time::timeout(LIMIT, self.session.detach());
        left.await.expect("it is left");
    }

    /// From here on hooks are answered, and nothing is made of them.
    pub fn lose_hooks(&self) {
        self.hook_port.session.send_replace(None);
    }

    /// Waits until the turn has come that far in the journal.
    pub async fn stage(&self, stage: TurnStage) {
        wait_until(&format!("the turn is {stage:?}"), LIMIT, || {
            let is = self.left().is_some_and(|left| left.stage == stage);
            async move { is }
        })
        .await;
    }

    /// The oldest turn that is open in the journal, as the next core finds it.
    pub fn left(&self) -> Option<LeftTurn> {
        let open = self.spec.journal.open_turns().expect("the journal");
        let row = open.into_iter().next()?;
        Some(LeftTurn {
            request: serde_json::from_value(row.turn.request).expect("our own words"),
            requested_at: row.started_at,
            stage: row.stage,
            mark: row.mark,
            taken_at: row.taken_at,
        })
    }

    /// Takes the program up again, as the next core does, with the turn that the journal has open.
    pub async fn take_up(&mut self) {
        assert_eq!(self.held_by, HeldBy::AProcess, "nothing else survives");
        self.epoch += 1;
        self.spec.holders = holders(self.held_by, self.folder.path(), self.epoch);
        let tag = self.spec.id.to_string();
        let terminal = match self.spec.holders.attach(&tag).await {
            Held::Attached(terminal) => terminal,
            Held::Gone { why } => panic!("the holder is gone: {why}"),
            Held::Unknown { why } => panic!("nothing is known of the holder: {why}"),
        };
        self.hook_port.bind().await;
        let (notes_in, notes) = mpsc::channel(NOTES_MAX);
        let left = self.left();
        let session = Session::attach(self.spec.clone(), terminal, left, &self.tasks, notes_in);
        self.session = session.expect("it is taken up");
        self.notes = notes;
        self.hook_port.session.send_replace(Some(self.session.clone()));
    }

    /// Takes the program up by a core of a later launch while the one before goes on; returns what that one has.
    pub async fn take_over(&mut self) -> (Session, mpsc::Receiver<SessionNote>) {
        self.hook_port.die().await;
        let before = self.session.clone();
        let told = std::mem::replace(&mut self.notes, mpsc::channel(1).1);
        self.take_up().await;
        (before, told)
    }

    /// Its own folder, gone with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The agent's working folder.
    pub fn worktree(&self) -> PathBuf {
        self.spec.worktree.clone()
    }

    /// Writes a turn into the journal and hands it over.
    pub fn try_submit(&self, request: TurnRequest) -> Result<TurnId, SessionError> {
        let turn = NewTurn {
            id: request.id,
            session: self.spec.id,
            command: None,
            prompt_sha256: String::new(),
            request: serde_json::to_value(&request).expect("JSON"),
        };
        let id = request.id;
        self.spec
            .journal
            .start_turn(&turn, SystemClock.now())
            .expect("the journal");
        self.session.submit(request).map(|()| id)
    }

    /// The same for a prompt that is taken.
    pub fn submit(&self, prompt: &str, marker: Marker, timeout: Duration) -> TurnId {
        let request = TurnRequest {
            id: TurnId(Uuid::new_v4()),
            prompt: prompt.into(),
            marker,
            timeout,
        };
        self.try_submit(request).expect("it is taken")
    }

    /// The next note that `wanted` takes something from. The end of a turn is written into the journal, as a core does.
    pub async fn note<T>(&mut self, what: &str, wanted: impl Fn(&SessionNote) -> Option<T>) -> T {
        self.note_within(what, LIMIT, wanted).await
    }

    /// The same with another limit.
    pub async fn note_within<T>(
        &mut self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&SessionNote) -> Option<T>,
    ) -> T {
        let whole = async {
            loop {
                let note = self.notes.recv().await.expect("the session goes on");
                if let SessionNote::TurnEnded { report, .. } = &note {
                    end_in_journal(&self.spec.journal, report);
                }
                if let Some(found) = wanted(&note) {
                    return found;
                }
            }
        };
        let found = tokio::time::timeout(limit, whole).await;
        found.unwrap_or_else(|_| panic!("waited in vain: {what}\n{}", self.screen()))
    }

    /// The end of that turn.
    pub async fn ended(&mut self, turn: TurnId) -> TurnReport {
        self.ended_within(turn, LIMIT).await
    }

    /// The same with another limit.
    pub async fn ended_within(&mut self, turn: TurnId, limit: Duration) -> TurnReport {
        self.note_within("the end of the turn", limit, |note| match note {
            SessionNote::TurnEnded { report, .. } if report.turn == turn => Some((**report).clone()),
            _ => None,
        })
        .await
    }

    /// Carries one prompt with the plain marker to its end.
    pub async fn turn(&mut self, prompt: &str) -> TurnReport {
        let turn = self.submit(prompt, Marker::Plain, LIMIT);
        self.ended(turn).await
    }

    /// The next ask.
    pub async fn asked(&mut self) -> PendingAsk {
        self.note("an ask", |note| match note {
            SessionNote::Asked { ask, .. } => Some(ask.clone()),
            _ => None,
        })
        .await
    }

    /// The end of the session.
    pub async fn exited(&mut self) -> SessionExit {
        self.note("the end of the session", |note| match note {
            SessionNote::Exited { exit, .. } => Some(exit.clone()),
            _ => None,
        })
        .await
    }

    /// Waits for such a state.
    pub async fn state(&self, what: &str, wanted: impl Fn(&SessionState) -> bool) {
        let mut state = self.session.state();
        let reached = tokio::time::timeout(LIMIT, state.wait_for(wanted)).await.is_ok();
        assert!(reached, "waited in vain: {what}\n{}", self.screen());
    }

    /// Waits until it is ready for a prompt.
    pub async fn ready(&self) {
        self.state("it is ready", |state| *state == SessionState::Idle)
            .await;
    }

    /// Waits until the agent works on a turn.
    pub async fn working(&self) {
        self.state("the agent works", |state| {
            matches!(state, SessionState::Working { .. })
        })
        .await;
    }

    /// Presses keys.
    pub async fn keys(&self, keys: &str) {
        let keys = Bytes::copy_from_slice(keys.as_bytes());
        self.session.keys(keys).await.expect("the keys are pressed");
    }

    /// Types a line by hand, waits until `echo` shows, and presses Enter.
    pub async fn type_line(&self, line: &str, echo: &str) {
        self.keys(line).await;
        self.shows(echo).await;
        self.keys("\r").await;
    }

    /// Waits until a text is on the screen.
    pub async fn shows(&self, text: &str) {
        wait_until(&format!("`{text}` on the screen"), LIMIT, || {
            let shown = self.screen().contains(text);
            async move { shown }
        })
        .await;
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        self.session.terminal().screen().rows.join("\n")
    }

    /// The living processes that belong to the session, as the kernel lists them.
    pub fn living(&self) -> Vec<u32> {
        tagged(&self.spec.id.to_string())
    }

    /// Ends the session and checks that nothing of it is left.
    pub async fn end(self) {
        let proof = self.session.terminate().await.expect("it ends");
        assert!(proof.is_proven(), "{proof:?}");
        assert_eq!(self.living(), Vec::<u32>::new());
        self.tasks.close();
        tokio::time::timeout(LIMIT, self.tasks.wait())
            .await
            .expect("the actor ends");
    }

    /// Drops every handle of the session, and gives its terminal, its notes and what its actor runs on.
    pub fn let_go(self) -> (terminal::Terminal, mpsc::Receiver<SessionNote>, TaskTracker) {
        self.hook_port.session.send_replace(None);
        self.tasks.close();
        (self.session.terminal().clone(), self.notes, self.tasks)
    }
}

fn holders(held_by: HeldBy, folder: &Path, epoch: u64) -> Holders {
    match held_by {
        HeldBy::ThisProcess => Holders::in_this_process(),
        HeldBy::AProcess => {
            Holders::of_processes(built("semo-holder"), folder.join("holders"), epoch, ALONE_MAX)
        }
    }
}

fn row(spec: &SessionSpec) -> SessionRow {
    SessionRow {
        id: spec.id,
        office: spec.office,
        agent: spec.agent,
        title: spec.title.clone(),
        repository: "repository".into(),
        worktree: spec.worktree.clone(),
        branch: "main".into(),
        base: None,
        state: SessionState::Starting,
        started_at: SystemClock.now(),
        ended_at: None,
        detail: Value::Null,
    }
}

fn end_in_journal(journal: &Journal, report: &TurnReport) {
    let end = TurnEnd {
        turn: report.turn,
        outcome: report.outcome.clone(),
        rule: report.evidence.rule.clone(),
    };
    journal.end_turn(&end, SystemClock.now()).expect("the journal");
}

/// Processes with the tag in their environment that are not dead, straight from the kernel: not by our own code.
pub fn tagged(tag: &str) -> Vec<u32> {
    let wanted = format!("SEMO_TERMINAL={tag}");
    let pids = std::fs::read_dir("/proc").expect("/proc");
    let pids = pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let alive = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .trim_start()
            .chars()
            .next();
        state.is_some_and(|state| state != 'Z')
    };
    let is_tagged = |pid: &u32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ
            .split(|byte| *byte == 0)
            .any(|entry| entry == wanted.as_bytes())
    };
    pids.filter(is_tagged).filter(alive).collect()
}

/// Whether a turn failed in this way.
pub fn is_failed(report: &TurnReport, class: FailureClass) -> bool {
    matches!(&report.outcome, TurnOutcome::Failed { class: seen, .. } if *seen == class)
}

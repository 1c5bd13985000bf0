//! Starting the client, and the handle that the rest of the program holds.

use std::sync::Arc;

use domain::{Clock, SessionId};
use journal::{Journal, JournalError};
use session::{HookReply, Session};
use supabase::{Auth, AuthError, FileTokenStore, Project, Rest};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::directory::{Directory, HookRefusal};
use crate::event_loop::{EVENT_QUEUE_MAX, Event, EventLoop, Ground};
use crate::identity::{Account, Identity, IdentityError};
use crate::outbox::Outbox;
use crate::paths::Paths;
use crate::request::{Answer, ErrorCode, Request, RequestError};
use crate::settings::Settings;
use crate::view::{ProfileView, State};

/// What a client is started from.
pub struct ClientConfig {
    /// The settings, checked.
    pub settings: Settings,
    /// Where things lie.
    pub paths: Paths,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The hub or the project.
    pub project: Project,
    /// The same, for people.
    pub profile: ProfileView,
    /// Who signs in.
    pub account: Account,
    /// This computer.
    pub machine: Machine,
    /// Made when the account belongs to no office yet (profile "This machine").
    pub first_office: Option<FirstOffice>,
    /// Where agents' hooks are taken: `http://127.0.0.1:PORT/hooks`.
    pub hook_url: String,
    /// The user's environment, for agent programs.
    pub environment: Vec<(String, String)>,
}

/// The computer, as offices see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// `linux`, `macos` …
    pub platform: String,
    /// Version of this program.
    pub version: String,
}

/// An office to make when there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstOffice {
    /// Its name.
    pub name: String,
    /// Its agents.
    pub agents: Vec<FirstAgent>,
}

/// An agent of the first office.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields of a persona")]
pub struct FirstAgent {
    pub role: String,
    pub name: String,
    pub prompt: String,
    pub scope_patterns: Vec<String>,
    pub core_skills: Vec<String>,
}

/// Why a client cannot start. What can pass (no network, no sign-in) is no error here: it is shown and tried again.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file of ours cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The sign-in cannot be set up.
    #[error(transparent)]
    Auth(#[from] AuthError),
}

/// A running client. Cheap to clone; it ends with the stop token it was started under.
#[derive(Clone)]
pub struct Client {
    events: mpsc::Sender<Event>,
    state: watch::Receiver<Arc<State>>,
    directory: Directory,
    ended: CancellationToken,
}

impl Client {
    /// Starts the loop and the outbox on `tasks`, to end when `stop` fires.
    pub fn start(
        config: ClientConfig,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Client, StartError> {
        let journal = Arc::new(Journal::open(&config.paths.journal())?);
        let identity = Identity::read_or_make(&config.paths.identity(), Uuid::new_v4())?;
        let store = Arc::new(FileTokenStore::new(config.paths.tokens()));
        let auth = Auth::new(config.project.clone(), config.clock.clone(), store)?;
        let rest = Rest::new(config.project.clone(), auth.clone());
        let (events_in, events) = mpsc::channel(EVENT_QUEUE_MAX);
        let outbox_bell = Arc::new(Notify::new());
        // The outbox makes its last pass when the loop has written its last result.
        let loop_ended = CancellationToken::new();
        let ended = loop_ended.clone();
        let outbox = Outbox {
            journal: journal.clone(),
            rest: rest.clone(),
            clock: config.clock.clone(),
            bell: outbox_bell.clone(),
            events: events_in.clone(),
        };
        tasks.spawn(outbox.run(loop_ended.clone()));
        let ground = Ground {
            settings: config.settings,
            paths: config.paths,
            clock: config.clock,
            journal,
            project: config.project,
            profile: config.profile,
            account: config.account,
            identity,
            machine: config.machine,
            first_office: config.first_office,
            auth,
            rest,
            hook_url: config.hook_url,
            environment: config.environment,
            tasks: tasks.clone(),
            stop,
        };
        let directory = Directory::default();
        let (core, state) = EventLoop::new(
            ground,
            (events_in.clone(), events),
            directory.clone(),
            outbox_bell,
        );
        // By a guard, so that a loop that panics is known to have ended, too.
        let guard = loop_ended.drop_guard();
        tasks.spawn(async move {
            core.run().await;
            drop(guard);
        });
        Ok(Client {
            events: events_in,
            state,
            directory,
            ended,
        })
    }

    /// Waits for the end of the loop: after its stop token fired, or by a fault.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// The state, now and as it changes.
    pub fn state(&self) -> watch::Receiver<Arc<State>> {
        self.state.clone()
    }

    /// A running session, for those who stream its terminal.
    pub fn session(&self, id: SessionId) -> Option<Session> {
        self.directory.get(id)
    }

    /// Takes a hook of an agent program. The request is to be answered with what the reply gives; dropping it lets the
    /// program go on without an answer.
    pub fn hook(&self, id: SessionId, secret: &str, body: &[u8]) -> Result<HookReply, HookRefusal> {
        self.directory.admit(id, secret).map(|session| session.hook(body))
    }

    /// Carries out a request of a person.
    pub async fn request(&self, request: Request) -> Result<Answer, RequestError> {
        let stopping = || {
            let message = "SEMO Office is stopping";
            RequestError::new(ErrorCode::NotReady, message, "Start it again.")
        };
        let (reply, answer) = oneshot::channel();
        self.events
            .send(Event::Asked { request, reply })
            .await
            .map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

//! Starting the client, and the handle that the rest of the program holds.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::{Clock, SessionId};
use journal::{Journal, JournalError};
use session::{HookReply, Session};
use supabase::{Auth, AuthError, FileTokenStore, KeptTokens, Project, Rest, TokensAt};
use terminal::Holders;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::directory::{Directory, HookRefusal};
use crate::event_loop::{EVENT_QUEUE_MAX, Event, EventLoop, Ground, hook_secret};
use crate::identity::{Account, Settled};
use crate::outbox::Outbox;
use crate::paths::Paths;
use crate::request::{Answer, ErrorCode, Request, RequestError};
use crate::served::served;
use crate::settings::{Profile, Settings};
use crate::settings_file::Choice;
use crate::stopping::{StopHow, StopWish};
use crate::view::{Problem, ProfileView, State};

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
    /// Who this client is: looked at ([`Settled::here`]) before anything else in the data folder is opened.
    pub settled: Settled,
    /// This computer.
    pub machine: Machine,
    /// An office with its agents: made by itself on "This machine" when the account belongs to none yet, and for a team
    /// when somebody asks for it.
    pub first_office: FirstOffice,
    /// Where agents' hooks are taken: `http://127.0.0.1:PORT/hooks`.
    pub hook_url: String,
    /// The user's environment, for agent programs.
    pub environment: Vec<(String, String)>,
    /// The program `semo-holder`, which keeps an agent's terminal when the core ends.
    pub holder_program: PathBuf,
    /// What a person has to be told of how this came up; stays until it is looked at anew.
    pub remark: Option<Problem>,
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
    stop: StopWish,
    ended: CancellationToken,
    chosen: watch::Receiver<Option<Choice>>,
}

/// What is done when the loop has ended, also by a panic: its sessions are let go, so that they stay in their holders
/// for the next core, its other tasks end, and the outbox makes its last pass.
struct LastAct(
    Directory,
    #[allow(dead_code, reason = "dropped")] DropGuard,
    #[allow(dead_code, reason = "dropped")] DropGuard,
);

/// The programs of an earlier core run: their hooks come as soon as there is somebody to take them.
fn expect_left(journal: &Journal, directory: &Directory) {
    // What cannot be read is told when the loop reads it.
    for row in journal.open_sessions().unwrap_or_default() {
        if let Some(secret) = hook_secret(&row) {
            directory.expect(row.id, secret);
        }
    }
}

/// The stored sign-in, from where it is kept. That of the profile "This machine" is a file beside the account's password:
/// whoever can read the one can read the other.
fn sign_in_of(config: &ClientConfig) -> Result<(Auth, Option<Arc<KeptTokens>>), AuthError> {
    let (project, clock) = (&config.project, &config.clock);
    if config.settings.profile == Profile::ThisMachine {
        let store = Arc::new(FileTokenStore::new(config.paths.local_tokens(), project));
        return Ok((Auth::new(project.clone(), clock.clone(), store)?, None));
    }
    let store = Arc::new(config.settings.team_tokens(&config.paths, project));
    let at = store.kept().ok().flatten().map(|kept| kept.at);
    tracing::info!(?at, "where the sign-in is kept");
    // A keychain may let everybody wait: it is asked by the task that joins.
    let open = match at {
        Some(TokensAt::Keychain) => Auth::unopened,
        Some(TokensAt::File) | None => Auth::new,
    };
    let auth = open(project.clone(), clock.clone(), store.clone())?;
    Ok((auth, Some(store)))
}

impl Drop for LastAct {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Client {
    /// Starts the loop and the outbox on `tasks`, to end when `stop` fires.
    pub fn start(
        config: ClientConfig,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Client, StartError> {
        let (auth, team_tokens) = sign_in_of(&config)?;
        let journal = Arc::new(Journal::open(&config.paths.journal())?);
        // Holders obey the newest core only.
        let epoch = journal.launch(config.clock.now())?;
        let alone_max = Duration::from_secs(u64::from(config.settings.holder.alone_hours) * 3_600);
        let (choose, chosen) = watch::channel(None);
        let holders = Holders::of_processes(config.holder_program, config.paths.holders(), epoch, alone_max);
        let rest = Rest::new(config.project.clone(), auth.clone());
        let (events_in, events) = mpsc::channel(EVENT_QUEUE_MAX);
        let outbox_bell = Arc::new(Notify::new());
        // The outbox makes its last pass when the loop has written its last result.
        let loop_ended = CancellationToken::new();
        let ended = loop_ended.clone();
        let outbox = Outbox {
            journal: journal.clone(),
            rest: rest.clone(),
            auth: auth.clone(),
            email: config.account.email.clone(),
            account: served(config.settings.profile, &config.project, &config.account.email),
            clock: config.clock.clone(),
            bell: outbox_bell.clone(),
            events: events_in.clone(),
        };
        tasks.spawn(outbox.run(loop_ended.clone()));
        let core_stop = stop.clone();
        let ground = Ground {
            settings: config.settings,
            paths: config.paths,
            clock: config.clock,
            journal,
            project: config.project,
            profile: config.profile,
            account: config.account,
            identity: config.settled.identity,
            copied_from: config.settled.copied_from,
            machine: config.machine,
            first_office: config.first_office,
            remark: config.remark,
            team_tokens,
            choose,
            auth,
            rest,
            hook_url: config.hook_url,
            environment: config.environment,
            holders,
            tasks: tasks.clone(),
            stop,
        };
        let directory = Directory::default();
        expect_left(&ground.journal, &directory);
        let wish = StopWish::new();
        let (core, state) = EventLoop::new(
            ground,
            (events_in.clone(), events),
            directory.clone(),
            outbox_bell,
            wish.seen(),
        );
        // By guards, so that a loop that panics is known to have ended, too.
        let last = LastAct(directory.clone(), core_stop.drop_guard(), loop_ended.drop_guard());
        tasks.spawn(async move {
            core.run().await;
            drop(last);
        });
        Ok(Client {
            events: events_in,
            state,
            directory,
            stop: wish,
            ended,
            chosen,
        })
    }

    /// Asks for the end of the core in this way; [`Client::ended`] tells when it has come. Can be called again, see
    /// [`StopHow::then`].
    pub fn stop(&self, how: StopHow) {
        self.stop.ask(how);
    }

    /// Waits for the end of the loop: after its stop token fired, or by a fault.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Waits until a person has turned to another profile. It stands in the settings, and its sign-in is kept; this
    /// client takes nothing new and has nothing in its hands. Whoever composes the program goes on from there.
    pub fn chosen(&self) -> impl Future<Output = Choice> + Send + use<> {
        let mut chosen = self.chosen.clone();
        async move {
            let seen = chosen.wait_for(Option::is_some).await.ok();
            match seen.and_then(|seen| seen.clone()) {
                Some(choice) => choice,
                // It has ended: nobody chooses any more.
                None => std::future::pending().await,
            }
        }
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
    pub async fn hook(&self, id: SessionId, secret: &str, body: &[u8]) -> Result<HookReply, HookRefusal> {
        let session = self.directory.admit(id, secret).await?;
        Ok(session.hook(body))
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

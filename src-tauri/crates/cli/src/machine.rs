//! One process with all its parts: the hub where the profile wants it, the client, the local API. `semo up` and the
//! desktop app start the same thing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use api::Listener;
pub use client::StopHow;
use client::clock::SystemClock;
use client::identity::{Account, Settled};
use client::paths::Paths;
use client::settings::{Profile, SAMPLE_REPOSITORY, Settings};
pub use client::settings_file::Choice;
use client::settings_file::Chosen;
use client::view::{LaunchView, Problem, ProfileKind, ProfileView, State, TAKEN_OVER, TeamView};
use client::{Client, ClientConfig, FirstAgent, FirstOffice};
use domain::fault::chain;
use hub::{DatabaseAt, Hub, HubConfig, HubError};
use rand::RngCore;
use supabase::Project;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::exit::{Exit, Failure};
use crate::running::{self, Claim, Running};
use crate::world::World;
use crate::{key, port};

/// How long the sessions and the client may take to end before the rest ends anyway. Running turns that are to go to
/// their ends are waited for without a limit.
const STOP_WAIT: Duration = Duration::from_secs(30);
/// How long what was cut short then may take.
const CUT_WAIT: Duration = Duration::from_secs(10);
/// How long `taken_up` waits.
const TAKE_UP_WAIT: Duration = Duration::from_secs(20);
/// How long a guest waits for a core that is still starting.
const GUEST_WAIT: Duration = Duration::from_secs(60);
/// How often a guest looks whether its core is there.
const GUEST_LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long `joined` waits.
const JOIN_WAIT: Duration = Duration::from_secs(20);
/// How long the local API may take to answer what it was asked before it ends.
const API_STOP_WAIT: Duration = Duration::from_secs(3);

/// Everything that runs.
pub struct Core {
    running: Running,
    client: Client,
    ends: Ends,
    paths: Paths,
    /// What was asked for over the local API.
    asked: watch::Receiver<Option<StopHow>>,
    // Last, so that the data folder is free only when all that used it has ended.
    claim: Claim,
}

/// A core that has turned to another profile, and the surroundings in which it did. The choice stands in the settings.
pub struct Turned {
    /// The core, on the same data folder and, where nobody has taken it, the same port.
    pub core: Core,
    /// Its surroundings.
    pub world: World,
}

impl Core {
    /// Starts hub, client and local API on the data folder of `world`. What a failed start has begun has ended when
    /// this returns. Is to be run to its end: dropped in between, it may leave a half-made database.
    pub async fn start(world: &World) -> Result<Core, Failure> {
        let claim = Claim::take(&world.paths).await?;
        let composed = Core::compose(world, claim, Inherited::default()).await;
        composed.map_err(|failed| failed.0)
    }

    /// Everything on a data folder that is ours. A failure gives that back, unless something works in it that does not end.
    async fn compose(
        world: &World,
        claim: Claim,
        inherited: Inherited,
    ) -> Result<Core, Box<(Failure, Option<Claim>)>> {
        let mut ends = Ends::default();
        match compose(world, &claim, &mut ends, inherited).await {
            Ok((running, client, asked)) => Ok(Core {
                running,
                client,
                ends,
                paths: world.paths.clone(),
                asked,
                claim,
            }),
            Err(failure) => {
                let has_ended = ends.reach(None).await;
                Err(Box::new((failure, given_back(claim, has_ended))))
            }
        }
    }

    /// Waits until somebody at a window has turned to another profile; [`Core::turn`] carries that out. Does not hold the
    /// core meanwhile.
    pub fn chosen(&self) -> impl Future<Output = Choice> + Send + use<> {
        self.client.chosen()
    }

    /// Ends everything as a leave does (agents go on in their holders, the hub last) and starts it again under another
    /// profile, without the data folder becoming free in between; then the sign-in of before ends. Where it fails, the
    /// profile of before comes back with its sign-in, and says so. Is to be run to its end.
    pub async fn turn(self, world: &World, choice: &Choice) -> Result<Turned, Failure> {
        tracing::info!("switching to another profile");
        self.lever().pull(StopHow::Leave);
        let Core {
            client,
            ends,
            claim,
            asked,
            ..
        } = self;
        let has_ended = ends.reach(Some(&client)).await;
        drop(client);
        let Some(claim) = given_back(claim, has_ended) else {
            bring_back(world, choice);
            return Err(Failure::new(
                Exit::Failed,
                format!(
                    "{} was not opened: what ran before it does not end",
                    named(&choice.chosen)
                ),
                "End this program and start SEMO Office again; agents go on and are taken up then.",
            ));
        };
        // Whoever asked for the end until then was told that it will come.
        let inherited = || Inherited {
            asked: *asked.borrow(),
            remark: None,
        };
        let next = world.with_profile(&choice.chosen);
        let (failure, claim) = match Core::compose(&next, claim, inherited()).await {
            Ok(core) => {
                if let Some(earlier) = choice.earlier.clone() {
                    // Nobody comes back to it from here on.
                    core.ends.tasks.spawn(earlier.end(world.clock.clone()));
                }
                return Ok(Turned { core, world: next });
            }
            Err(failed) => *failed,
        };
        bring_back(world, choice);
        let Some(claim) = claim else {
            return Err(failure);
        };
        tracing::error!(message = %failure.message, "the profile of before comes back");
        let remark = Problem {
            code: "profile".to_owned(),
            message: format!("{} was not opened: {}", named(&choice.chosen), failure.message),
            hint: failure.hint,
        };
        let inherited = Inherited {
            remark: Some(remark),
            ..inherited()
        };
        let composed = Core::compose(world, claim, inherited).await;
        let core = composed.map_err(|failed| failed.0)?;
        let world = world.clone();
        Ok(Turned { core, world })
    }

    /// The address of the UI, with its key.
    pub fn ui_url(&self) -> String {
        self.running.ui()
    }

    /// Base address of the local API.
    pub fn api_url(&self) -> &str {
        &self.running.url
    }

    /// The key of the local API.
    pub fn token(&self) -> &str {
        &self.running.token
    }

    /// Base address of the hub or project.
    pub fn project_url(&self) -> &str {
        &self.running.project_url
    }

    /// Waits until the office of this machine is there for whoever sends it work: at most [`JOIN_WAIT`], for what keeps
    /// the core from joining is shown in its window. An office elsewhere may be out of reach for long: it is not waited
    /// for. Does not hold the core meanwhile.
    pub fn joined(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut state = self.client.state();
        let here = self.ends.hub.is_some();
        async move {
            if here {
                // No answer in time, or a client that has ended: both show elsewhere.
                let joined = state.wait_for(|state| state.office.is_some());
                let _ = tokio::time::timeout(JOIN_WAIT, joined).await;
            }
        }
    }

    /// Waits until it is known what became of the sessions that an earlier core had left: at most [`TAKE_UP_WAIT`].
    /// Does not hold the core meanwhile.
    pub fn taken_up(&self) -> impl Future<Output = LaunchView> + Send + use<> {
        let mut state = self.client.state();
        async move {
            let settled = state.wait_for(|state| state.launch.since > 0 && state.launch.recovering == 0);
            let settled = tokio::time::timeout(TAKE_UP_WAIT, settled).await;
            match settled {
                Ok(Ok(state)) => state.launch.clone(),
                // Not in time, or a client that has ended: what is known so far.
                _ => LaunchView::default(),
            }
        }
    }

    /// Waits until the client has ended: by a fault, unless the core was stopped. Does not hold the core meanwhile.
    pub fn failed(&self) -> impl Future<Output = ()> + Send + use<> {
        let client = self.client.clone();
        async move { client.ended().await }
    }

    /// Why the core has ended by itself, where that is no fault: another one has taken over.
    pub fn taken_over(&self) -> Option<Problem> {
        let state = self.client.state();
        let problems = &state.borrow().problems;
        problems
            .iter()
            .find(|problem| problem.code == TAKEN_OVER)
            .cloned()
    }

    /// Waits until somebody asks over the local API for the end (`semo down`, a window). Carrying it out is for whoever
    /// holds the core. Does not hold the core meanwhile.
    pub fn asked_to_stop(&self) -> impl Future<Output = StopHow> + Send + use<> {
        let mut asked = self.asked.clone();
        async move {
            let how = asked.wait_for(Option::is_some).await.map(|how| *how);
            match how {
                Ok(Some(how)) => how,
                // The local API has ended: nobody can ask any more.
                _ => std::future::pending().await,
            }
        }
    }

    /// The means to end it in another way while [`Core::stop`] is under way.
    pub fn lever(&self) -> Lever {
        Lever {
            client: self.client.clone(),
            how: self.ends.how.clone(),
            asked: self.asked.clone(),
        }
    }

    /// Ends everything in order: sessions as `how` says and results first, windows next, the hub last. With
    /// [`StopHow::Finish`] it takes as long as the running turns do; see [`Core::lever`].
    pub async fn stop(self, how: StopHow) {
        self.lever().pull(how);
        let wished = self.ends.how.clone();
        self.ends.reach(Some(&self.client)).await;
        if *wished.borrow() == Some(StopHow::Now) {
            key::forget(&self.paths);
        }
    }
}

/// A core of another process on the same data folder, for a window that opens beside it. A guest ends nothing.
pub struct Guest {
    running: Running,
    paths: Paths,
}

impl Guest {
    /// The core that runs there, waited for while it starts (at most [`GUEST_WAIT`]); `None` when there is none.
    pub async fn find(world: &World) -> Option<Guest> {
        let give_up = tokio::time::Instant::now() + GUEST_WAIT;
        loop {
            if let Ok(running) = running::find(&world.paths) {
                return Some(Guest {
                    running,
                    paths: world.paths.clone(),
                });
            }
            if running::is_free(&world.paths) || tokio::time::Instant::now() >= give_up {
                return None;
            }
            tokio::time::sleep(GUEST_LOOK_EVERY).await;
        }
    }

    /// Base address of the local API.
    pub fn api_url(&self) -> &str {
        &self.running.url
    }

    /// The key of its local API.
    pub fn token(&self) -> &str {
        &self.running.token
    }

    /// Waits until that very core has gone. One that has switched to another profile is still there.
    pub async fn over(&self) {
        while running::find(&self.paths).is_ok_and(|found| found.is_the_core_of(&self.running)) {
            tokio::time::sleep(GUEST_LOOK_EVERY).await;
        }
    }
}

/// Ends a core in another way than was asked for first.
#[derive(Clone)]
pub struct Lever {
    client: Client,
    how: watch::Sender<Option<StopHow>>,
    asked: watch::Receiver<Option<StopHow>>,
}

impl Lever {
    /// Asks for the end; a second wish makes it sooner, never later (see [`StopHow::then`]).
    pub fn pull(&self, how: StopHow) {
        self.client.stop(how);
        self.how
            .send_modify(|wish| *wish = Some(wish.map_or(how, |before| before.then(how))));
    }

    /// Waits until somebody asks over the local API for another way than the last one that was told from here.
    pub async fn asked_again(&mut self) -> StopHow {
        loop {
            if self.asked.changed().await.is_err() {
                return std::future::pending().await;
            }
            if let Some(how) = *self.asked.borrow_and_update() {
                return how;
            }
        }
    }

    /// The state as windows see it, now and as it changes.
    pub fn state(&self) -> watch::Receiver<Arc<State>> {
        self.client.state()
    }
}

/// What has to end, and in which order.
struct Ends {
    /// The client with its sessions.
    tasks: TaskTracker,
    /// Cuts short what does not end by itself.
    stop: CancellationToken,
    /// How the client is to end.
    how: watch::Sender<Option<StopHow>>,
    /// The local API. It serves until the sessions have ended: their programs' last hooks come by it, and windows see
    /// it happen.
    serving: TaskTracker,
    stop_api: CancellationToken,
    hub: Option<Hub>,
}

impl Default for Ends {
    fn default() -> Ends {
        Ends {
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            how: watch::Sender::new(None),
            serving: TaskTracker::new(),
            stop_api: CancellationToken::new(),
            hub: None,
        }
    }
}

impl Ends {
    /// False when something would not end.
    async fn reach(self, client: Option<&Client>) -> bool {
        self.tasks.close();
        match client {
            Some(client) => self.let_end(client).await,
            None => self.stop.cancel(),
        }
        if tokio::time::timeout(STOP_WAIT, self.tasks.wait()).await.is_err() {
            tracing::error!("some tasks did not end in time");
            self.stop.cancel();
        }
        // What had to be cut short gets a moment for that.
        let has_ended = tokio::time::timeout(CUT_WAIT, self.tasks.wait()).await.is_ok();
        self.stop_api.cancel();
        self.serving.close();
        // Bounded by the task itself.
        self.serving.wait().await;
        if let Some(hub) = self.hub
            && let Err(error) = hub.stop().await
        {
            tracing::error!(%error, "the hub did not end in order");
        }
        has_ended
    }

    /// Waits for the end of the client's loop: as long as its turns take, or for a while when they are not waited for.
    async fn let_end(&self, client: &Client) {
        let mut how = self.how.subscribe();
        let mut ended = std::pin::pin!(client.ended());
        loop {
            let unbounded = *how.borrow_and_update() == Some(StopHow::Finish);
            tokio::select! {
                () = &mut ended => return,
                Ok(()) = how.changed() => {}
                () = tokio::time::sleep(STOP_WAIT), if !unbounded => {
                    tracing::error!("the client did not end in time");
                    return;
                }
            }
        }
    }
}

/// The data folder for whoever comes next, or nobody: two cores at once on one would spoil it.
fn given_back(claim: Claim, has_ended: bool) -> Option<Claim> {
    if has_ended {
        return Some(claim);
    }
    claim.keep();
    None
}

/// The settings name what is served again. That they do not is for the log: there is a failure to tell already.
fn bring_back(world: &World, choice: &Choice) {
    if let Err(error) = choice.before.bring_back(&world.settings) {
        tracing::error!(error = %chain(&error), "the settings name a profile that cannot be started");
    }
}

/// For people: what was chosen.
fn named(chosen: &Chosen) -> String {
    match chosen {
        Chosen::ThisMachine => "The office of this machine".to_owned(),
        Chosen::Project { url, .. } => format!("The office at {url}"),
    }
}

/// Hub, client and local API. What it has begun when it fails is for `ends` to end.
async fn compose(
    world: &World,
    claim: &Claim,
    ends: &mut Ends,
    inherited: Inherited,
) -> Result<Parts, Failure> {
    // First: of a copied data folder nothing is opened before it is known to be one.
    let settled = Settled::here(&world.paths).map_err(|error| Failure::of(Exit::Failed, &error))?;
    let listener = port::listen(world).await?;
    let mut settings = world.settings.clone();
    if settings.profile == Profile::ThisMachine {
        if settings.repositories.is_empty() {
            let sample = sample_repository(world).await?;
            settings.repositories.insert(SAMPLE_REPOSITORY.to_owned(), sample);
        }
        ends.hub = Some(start_hub(world).await?);
    }
    start_client(world, settings, (settled, listener), claim, ends, inherited).await
}

/// What a core takes over from the one in whose place it comes.
#[derive(Default)]
struct Inherited {
    /// The end that was asked for.
    asked: Option<StopHow>,
    /// What the person has to be told.
    remark: Option<Problem>,
}

/// What a start makes beside what `ends` ends.
type Parts = (Running, Client, watch::Receiver<Option<StopHow>>);

/// Everything behind the hub. What it has begun when it fails is for `ends` to end.
async fn start_client(
    world: &World,
    settings: Settings,
    (settled, listener): (Settled, Listener),
    claim: &Claim,
    ends: &Ends,
    inherited: Inherited,
) -> Result<Parts, Failure> {
    let (project, account) = match &ends.hub {
        Some(hub) => join_hub(world, hub).await?,
        None => remote(world)?,
    };
    let token = key::of(&world.paths, listener.port(), world.clock.now());
    let url = listener.url();
    let running = Running {
        pid: std::process::id(),
        url: url.clone(),
        token: token.reveal().to_owned(),
        project_url: project.url.clone(),
        publishable_key: project.publishable_key.clone(),
    };
    // Before anything works: the port is bound, so whoever reads it waits for the moment until it is served.
    let keeper = claim.announce(&running)?;
    ends.serving.spawn(keeper.keep(ends.stop_api.clone()));
    let config = ClientConfig {
        profile: profile_view(&settings, &project),
        settings,
        paths: world.paths.clone(),
        clock: world.clock.clone(),
        project,
        account,
        machine: world.machine(),
        settled,
        first_office: first_office(),
        remark: inherited.remark,
        hook_url: format!("{url}/hooks"),
        environment: world.agent_environment(),
        holder_program: crate::holder::program(world),
    };
    let client = Client::start(config, &ends.tasks, ends.stop.clone())
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    let (ask, asked) = watch::channel(inherited.asked);
    let serving = api::serve(listener, client.clone(), token, ask, ends.stop_api.clone());
    let stop_api = ends.stop_api.clone();
    ends.serving.spawn(async move {
        tokio::select! {
            ended = serving => if let Err(error) = ended {
                tracing::error!(%error, "the local API ended");
            },
            () = async { stop_api.cancelled().await; tokio::time::sleep(API_STOP_WAIT).await } => {
                tracing::warn!("requests to the local API were still open; they are cut off");
            }
        }
    });
    Ok((running, client, asked))
}

fn profile_view(settings: &Settings, project: &Project) -> ProfileView {
    let (name, kind) = match settings.profile {
        Profile::ThisMachine => ("This machine".to_owned(), ProfileKind::ThisMachine),
        Profile::Supabase => (project.url.clone(), ProfileKind::Supabase),
    };
    let known = &settings.supabase;
    let team = (!known.url.is_empty()).then(|| TeamView {
        url: known.url.clone(),
        publishable_key: known.publishable_key.clone(),
        email: known.email.clone(),
    });
    ProfileView {
        name,
        kind,
        url: project.url.clone(),
        kept: None,
        team,
        changing: false,
    }
}

async fn start_hub(world: &World) -> Result<Hub, Failure> {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, world.settings.hub.port));
    let config = HubConfig {
        database: DatabaseAt::Own {
            postgres_bin: world.settings.hub.postgres_bin.clone(),
        },
        ..HubConfig::new(world.paths.hub(), listen, Arc::new(SystemClock))
    };
    Hub::start(config).await.map_err(|error| {
        let hint = match &error {
            HubError::Listen { .. } => {
                "Choose another port with SEMO_HUB_PORT or setting hub.port (0 takes a free one)."
            }
            _ => "",
        };
        Failure::new(Exit::Failed, chain(&error), hint)
    })
}

/// The hub as the client's project, and the account it signs in with, which is made when there is none.
async fn join_hub(world: &World, hub: &Hub) -> Result<(Project, Account), Failure> {
    let mut random = [0; 32];
    rand::rng().fill_bytes(&mut random);
    let password = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let account = Account::read_or_make(&world.paths.local_account(), password)
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    hub.ensure_user(&account.email, account.password.as_deref().unwrap_or_default())
        .await
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    let project = Project::new(hub.url(), &hub.keys().publishable)
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    Ok((project, account))
}

fn remote(world: &World) -> Result<(Project, Account), Failure> {
    let settings = &world.settings.supabase;
    let project = Project::new(&settings.url, &settings.publishable_key)
        .map_err(|error| Failure::of(Exit::Usage, &error))?;
    let account = Account {
        email: settings.email.clone(),
        password: world.variable("SEMO_PASSWORD").map(str::to_owned),
    };
    Ok((project, account))
}

async fn sample_repository(world: &World) -> Result<std::path::PathBuf, Failure> {
    let dir = world.paths.sample_repository();
    worktree::sample_repository(&dir)
        .await
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    Ok(dir)
}

/// The office of a machine that belongs to nobody else's.
fn first_office() -> FirstOffice {
    let agent = |role: &str, name: &str, prompt: &str, scope: &[&str], skills: &[&str]| FirstAgent {
        role: role.to_owned(),
        name: name.to_owned(),
        prompt: prompt.to_owned(),
        scope_patterns: scope.iter().map(|text| (*text).to_owned()).collect(),
        core_skills: skills.iter().map(|text| (*text).to_owned()).collect(),
    };
    FirstOffice {
        name: "This machine".to_owned(),
        agents: vec![
            agent(
                "FE",
                "Mina",
                "You build what people see and touch. Keep it simple, accessible and fast; look at the result before you call it done.",
                &["ui/**", "web/**", "src/components/**", "*.html", "*.css"],
                &[
                    "HTML, CSS and TypeScript",
                    "accessibility",
                    "small, finished changes",
                ],
            ),
            agent(
                "BE",
                "Joon",
                "You build what runs behind the screen: data, interfaces, jobs. Correctness first; say what can fail and handle it.",
                &["server/**", "api/**", "src/**", "migrations/**"],
                &["HTTP APIs", "SQL", "error handling", "tests"],
            ),
            agent(
                "QA",
                "Sora",
                "You find out whether it works. Write tests that can fail, reproduce before you report, and never guess about a result.",
                &["tests/**", "e2e/**"],
                &["test design", "reproduction", "clear reports"],
            ),
        ],
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;

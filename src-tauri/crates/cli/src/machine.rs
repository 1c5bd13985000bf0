//! One process with all its parts: the hub where the profile wants it, the client, the local API. `semo up` and the
//! desktop app start the same thing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use api::{Listener, Token};
use client::clock::SystemClock;
use client::identity::Account;
use client::settings::Profile;
use client::view::{ProfileKind, ProfileView};
use client::{Client, ClientConfig, FirstAgent, FirstOffice};
use hub::{Hub, HubConfig, HubError};
use rand::RngCore;
use supabase::Project;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::exit::{Exit, Failure, chain};
use crate::running::{Claim, Running};
use crate::world::World;

/// How long the parts may take to end before the process goes anyway.
const STOP_WAIT: Duration = Duration::from_secs(30);

/// Everything that runs.
pub struct Core {
    running: Running,
    tasks: TaskTracker,
    stop: CancellationToken,
    stop_api: CancellationToken,
    hub: Option<Hub>,
    client: Client,
    _claim: Claim,
}

impl Core {
    /// Starts hub, client and local API on the data folder of `world`.
    pub async fn start(world: &World) -> Result<Core, Failure> {
        let claim = Claim::take(&world.paths)?;
        let listener = Listener::bind(world.settings.api.port)
            .await
            .map_err(|error| Failure::of(Exit::Failed, &error))?;
        let mut settings = world.settings.clone();
        let (hub, project, account) = match settings.profile {
            Profile::ThisMachine => {
                if settings.repositories.is_empty() {
                    settings
                        .repositories
                        .insert("sample".to_owned(), sample_repository(world).await?);
                }
                let (hub, project, account) = start_hub(world).await?;
                (Some(hub), project, account)
            }
            Profile::Supabase => {
                let (project, account) = remote(world)?;
                (None, project, account)
            }
        };
        let parts = Parts {
            world,
            settings,
            project,
            account,
        };
        parts.start(claim, listener, hub).await
    }

    /// The address of the UI, with the token of this launch.
    pub fn ui_url(&self) -> String {
        format!("{}/#token={}", self.running.url, self.running.token)
    }

    /// Base address of the local API.
    pub fn api_url(&self) -> &str {
        &self.running.url
    }

    /// The token of this launch.
    pub fn token(&self) -> &str {
        &self.running.token
    }

    /// Base address of the hub or project.
    pub fn project_url(&self) -> &str {
        &self.running.project_url
    }

    /// Waits until the client has ended without having been told to.
    pub async fn failed(&self) {
        self.client.ended().await;
    }

    /// Ends everything in order: sessions and results first, windows next, the hub last.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_WAIT, self.tasks.wait()).await.is_err() {
            tracing::error!("some tasks did not end in time");
        }
        self.stop_api.cancel();
        if let Some(hub) = self.hub
            && let Err(error) = hub.stop().await
        {
            tracing::error!(%error, "the hub did not end in order");
        }
    }
}

struct Parts<'a> {
    world: &'a World,
    settings: client::settings::Settings,
    project: Project,
    account: Account,
}

impl Parts<'_> {
    async fn start(self, claim: Claim, listener: Listener, hub: Option<Hub>) -> Result<Core, Failure> {
        let (tasks, stop, stop_api) = (
            TaskTracker::new(),
            CancellationToken::new(),
            CancellationToken::new(),
        );
        let mut random = [0; 32];
        rand::rng().fill_bytes(&mut random);
        let token = Token::new(random);
        let url = listener.url();
        let running = Running {
            pid: std::process::id(),
            url: url.clone(),
            token: token.reveal().to_owned(),
            project_url: self.project.url.clone(),
            publishable_key: self.project.publishable_key.clone(),
        };
        let this_machine = self.settings.profile == Profile::ThisMachine;
        let config = ClientConfig {
            profile: ProfileView {
                name: if this_machine {
                    "This machine".to_owned()
                } else {
                    self.project.url.clone()
                },
                kind: if this_machine {
                    ProfileKind::ThisMachine
                } else {
                    ProfileKind::Supabase
                },
                url: self.project.url.clone(),
            },
            settings: self.settings,
            paths: self.world.paths.clone(),
            clock: Arc::new(SystemClock),
            project: self.project,
            account: self.account,
            machine: self.world.machine(),
            first_office: this_machine.then(first_office),
            hook_url: format!("{url}/hooks"),
            environment: self.world.agent_environment(),
        };
        let client =
            Client::start(config, &tasks, stop.clone()).map_err(|error| Failure::of(Exit::Failed, &error))?;
        let serving = api::serve(listener, client.clone(), token, stop_api.clone());
        tasks.spawn({
            let stop = stop.clone();
            let stop_api = stop_api.clone();
            async move {
                // Windows stay connected while sessions end, and see it happen; `stop` has its own deadline.
                tokio::select! {
                    ended = serving => if let Err(error) = ended {
                        tracing::error!(%error, "the local API ended");
                    },
                    () = async { stop.cancelled().await; tokio::time::sleep(Duration::from_secs(1)).await } => stop_api.cancel(),
                }
            }
        });
        claim.announce(&running)?;
        Ok(Core {
            running,
            tasks,
            stop,
            stop_api,
            hub,
            client,
            _claim: claim,
        })
    }
}

async fn start_hub(world: &World) -> Result<(Hub, Project, Account), Failure> {
    let config = HubConfig {
        data_dir: world.paths.hub(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, world.settings.hub.port)),
        postgres_bin: world.settings.hub.postgres_bin.clone(),
        clock: Arc::new(SystemClock),
    };
    let hub = Hub::start(config).await.map_err(|error| {
        let hint = match &error {
            HubError::Listen { .. } => {
                "Choose another port with SEMO_HUB_PORT or setting hub.port (0 takes a free one)."
            }
            _ => "",
        };
        Failure::new(Exit::Failed, chain(&error), hint)
    })?;
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
    Ok((hub, project, account))
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

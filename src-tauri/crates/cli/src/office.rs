//! The office over REST, for the commands that act like a remote server: signed in, office chosen.

use std::sync::Arc;
use std::time::Duration;

use client::clock::SystemClock;
use client::identity::Account;
use client::settings::Profile;
use serde_json::Value;
use supabase::{AgentRow, Auth, MemoryTokenStore, OfficeRow, Project, Rest, TokenStore};
use tokio::time::Instant;

use crate::exit::{Exit, Failure};
use crate::local::Local;
use crate::running;
use crate::world::World;

/// How long a core that starts may take until its office is there: a first start makes a database and its agents.
const START_WAIT: Duration = Duration::from_secs(60);
/// Between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Tries to sign in, where trying again may help, and the pause between two.
const SIGN_IN_TRIES: u32 = 4;
const SIGN_IN_PAUSE: Duration = Duration::from_millis(700);

/// A signed-in way into one office.
pub struct Office {
    pub project: Project,
    pub auth: Auth,
    pub rest: Rest,
    pub row: OfficeRow,
}

impl Office {
    /// Signs in as this machine's user and chooses the office.
    pub async fn open(world: &World) -> Result<Office, Failure> {
        if world.settings.profile == Profile::ThisMachine {
            until_there(world).await?;
        }
        let (project, account, store) = door(world)?;
        let auth = Auth::new(project.clone(), Arc::new(SystemClock), store)
            .map_err(|error| Failure::of(Exit::Failed, &error))?;
        match (&account.password, auth.access_token().await) {
            (_, Ok(_)) => {}
            (Some(password), Err(_)) => {
                sign_in(&auth, &account.email, password).await?;
            }
            (None, Err(error)) => {
                return Err(Failure::new(
                    Exit::Failed,
                    error.to_string(),
                    "Sign in with `semo login`, or give the password as SEMO_PASSWORD.",
                ));
            }
        }
        let rest = Rest::new(project.clone(), auth.clone());
        let offices = rest
            .offices()
            .await
            .map_err(|error| Failure::of(Exit::Unreachable, &error))?;
        let row = match world.settings.office.id {
            Some(id) => offices.into_iter().find(|row| row.id == id),
            None => offices.into_iter().next(),
        };
        let row = row.ok_or_else(|| {
            let message = format!("{} belongs to no such office", account.email);
            Failure::new(
                Exit::Failed,
                message,
                "Name one with SEMO_OFFICE, or ask its owner to add you.",
            )
        })?;
        Ok(Office {
            project,
            auth,
            rest,
            row,
        })
    }

    /// An agent by role or name, without regard to case; the only one that fits.
    pub async fn agent(&self, wanted: &str) -> Result<AgentRow, Failure> {
        let agents = self
            .rest
            .agents(self.row.id)
            .await
            .map_err(|error| Failure::of(Exit::Unreachable, &error))?;
        let fits = |row: &&AgentRow| {
            row.id.to_string() == wanted
                || row.role.eq_ignore_ascii_case(wanted)
                || row.name.to_lowercase() == wanted.to_lowercase()
        };
        let found: Vec<_> = agents.iter().filter(fits).collect();
        match found.as_slice() {
            [one] => Ok((*one).clone()),
            several => {
                let known: Vec<_> = agents
                    .iter()
                    .map(|row| format!("{} ({})", row.role, row.name))
                    .collect();
                let message = if several.is_empty() {
                    format!("office {} has no agent `{wanted}`", self.row.name)
                } else {
                    format!(
                        "`{wanted}` names {} agents of office {}",
                        several.len(),
                        self.row.name
                    )
                };
                Err(Failure::new(
                    Exit::Usage,
                    message,
                    format!("Its agents are: {}.", known.join(", ")),
                ))
            }
        }
    }
}

async fn sign_in(auth: &Auth, email: &str, password: &str) -> Result<(), Failure> {
    let mut tries = 1;
    loop {
        match auth.sign_in(email, password).await {
            Ok(_) => return Ok(()),
            // Many sign-ins at once count as guessing until the first of them has gone through.
            Err(error) if error.is_passing() && tries < SIGN_IN_TRIES => {
                tries += 1;
                tokio::time::sleep(SIGN_IN_PAUSE).await;
            }
            Err(error) if error.is_passing() => return Err(Failure::of(Exit::Unreachable, &error)),
            Err(error) => return Err(Failure::of(Exit::Failed, &error)),
        }
    }
}

/// Waits until the core that starts here has its office with all agents: before, a command would find no agent. When
/// nothing runs, or the core says that it cannot join, the steps that follow tell why.
async fn until_there(world: &World) -> Result<(), Failure> {
    let give_up = Instant::now() + START_WAIT;
    loop {
        let starting = match Local::open(world) {
            Ok(local) => local.state().await.is_ok_and(|state| !is_decided(&state)),
            Err(_) => !running::is_free(&world.paths),
        };
        if !starting || Instant::now() >= give_up {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether a core has joined its office, or says why it does not.
fn is_decided(state: &Value) -> bool {
    let mut problems = state["problems"].as_array().into_iter().flatten();
    !state["office"].is_null() || problems.any(|one| one["code"] == "sign_in" || one["code"] == "office")
}

/// Where to knock and as whom. The core's own tokens are left alone: two users of one refresh token would revoke each
/// other, so this machine's profile signs in anew, and only a profile without a password shares them.
fn door(world: &World) -> Result<(Project, Account, Arc<dyn TokenStore>), Failure> {
    match world.settings.profile {
        Profile::ThisMachine => {
            let core = running::find(&world.paths)?;
            let project = Project::new(&core.project_url, &core.publishable_key)
                .map_err(|error| Failure::of(Exit::Failed, &error))?;
            let account = Account::read_or_make(&world.paths.local_account(), String::new())
                .map_err(|error| Failure::of(Exit::Failed, &error))?;
            Ok((project, account, Arc::new(MemoryTokenStore::default())))
        }
        Profile::Supabase => {
            let settings = &world.settings.supabase;
            let project = Project::new(&settings.url, &settings.publishable_key)
                .map_err(|error| Failure::of(Exit::Usage, &error))?;
            let password = world.variable("SEMO_PASSWORD").map(str::to_owned);
            let store: Arc<dyn TokenStore> = match password {
                Some(_) => Arc::new(MemoryTokenStore::default()),
                None => Arc::new(world.settings.team_tokens(&world.paths, &project)),
            };
            Ok((
                project,
                Account {
                    email: settings.email.clone(),
                    password,
                },
                store,
            ))
        }
    }
}

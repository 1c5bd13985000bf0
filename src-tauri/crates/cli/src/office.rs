//! The office over REST, for the commands that act like a remote server: signed in, office chosen.

use std::sync::Arc;

use client::clock::SystemClock;
use client::identity::Account;
use client::settings::Profile;
use supabase::{AgentRow, Auth, FileTokenStore, MemoryTokenStore, OfficeRow, Project, Rest, TokenStore};

use crate::exit::{Exit, Failure};
use crate::running;
use crate::world::World;

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
        let (project, account, store) = door(world)?;
        let auth = Auth::new(project.clone(), Arc::new(SystemClock), store)
            .map_err(|error| Failure::of(Exit::Failed, &error))?;
        match (&account.password, auth.access_token().await) {
            (_, Ok(_)) => {}
            (Some(password), Err(_)) => {
                auth.sign_in(&account.email, password).await.map_err(|error| {
                    let exit = if error.is_passing() {
                        Exit::Unreachable
                    } else {
                        Exit::Failed
                    };
                    Failure::of(exit, &error)
                })?;
            }
            (None, Err(error)) => {
                return Err(Failure::new(
                    Exit::Failed,
                    error.to_string(),
                    "Give the password as SEMO_PASSWORD.",
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
                None => Arc::new(FileTokenStore::new(world.paths.tokens())),
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

//! A hub of its own, as a team's server: for stories in which office and workstation are apart.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use client::settings::{Profile, Settings};
use domain::{AgentId, CommandId};
use hub::{Hub, HubConfig, HubError};
use serde_json::Value;
use supabase::{AgentDraft, AgentRow, Auth, MemoryTokenStore, NewCommand, OfficeRow, Project, Rest};
use uuid::Uuid;

use crate::claude::{ClaudeHome, program};
use crate::clock::SystemClock;
use crate::port;
use crate::wait::{LONG, wait_for};
use crate::world::surroundings;

/// The account that owns the office.
pub const EMAIL: &str = "owner@example.test";
/// Its password.
pub const PASSWORD: &str = "correct horse battery staple";

/// A hub with one office, one owner and one FE agent.
pub struct Remote {
    /// The hub.
    pub hub: Hub,
    /// REST as the owner.
    pub rest: Rest,
    /// The office.
    pub office: OfficeRow,
    /// Its agent.
    pub agent: AgentRow,
}

impl Remote {
    /// Starts a hub in `dir` on `port` (0 takes one that it can have again) and makes the office.
    pub async fn start(dir: &Path, port: u16) -> Remote {
        // Postgres runs under another uid when we are root, and must be able to walk in.
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).expect("permissions");
        let port = if port == 0 { port::take() } else { port };
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let config = || HubConfig::new(dir.join("hub"), listen, Arc::new(SystemClock));
        // See `port::listen`.
        let hub = wait_for("the hub gets its port", LONG, || async {
            match Hub::start(config()).await {
                Err(HubError::Listen { .. }) => None,
                started => Some(started.expect("the hub starts")),
            }
        })
        .await;
        hub.ensure_user(EMAIL, PASSWORD).await.expect("the owner");
        let project = Project::new(hub.url(), &hub.keys().publishable).expect("a project");
        let auth = Auth::new(
            project.clone(),
            Arc::new(SystemClock),
            Arc::new(MemoryTokenStore::default()),
        )
        .expect("auth");
        auth.sign_in(EMAIL, PASSWORD).await.expect("the sign-in");
        let rest = Rest::new(project, auth);
        let office = rest.create_office("Team").await.expect("an office");
        let draft = AgentDraft {
            agent: Uuid::new_v4().into(),
            role: "FE".to_owned(),
            name: "Mina".to_owned(),
            prompt: "You build what people see.".to_owned(),
            scope_patterns: Vec::new(),
            core_skills: Vec::new(),
        };
        let agent = rest.upsert_agent(office.id, &draft).await.expect("an agent");
        Remote {
            hub,
            rest,
            office,
            agent,
        }
    }

    /// Enqueues a command as a remote server does.
    pub async fn enqueue(&self, kind: &str, args: Value, agent: Option<AgentId>) -> CommandId {
        let command = NewCommand {
            office: self.office.id,
            kind: kind.to_owned(),
            args,
            key: Uuid::new_v4().to_string(),
            agent,
            session: None,
        };
        let taken = self.rest.enqueue_command(&command).await;
        taken.expect("the command is taken").id
    }

    /// A workstation of the owner's below `dir`, not started yet: the real program, and the sample repository.
    pub async fn workstation(&self, dir: &Path, home: &ClaudeHome, model_url: &str) -> cli::world::World {
        let sample = dir.join("sample");
        worktree::sample_repository(&sample).await.expect("a repository");
        let mut settings = self.settings();
        settings.repositories.insert("sample".to_owned(), sample);
        workstation(dir, home, model_url, settings, PASSWORD)
    }

    /// Settings of a workstation that belongs to this hub.
    pub fn settings(&self) -> Settings {
        settings_for(self.hub.url(), &self.hub.keys().publishable)
    }
}

/// A workstation with the real program, not started yet, whose owner has this password.
pub fn workstation(
    dir: &Path,
    home: &ClaudeHome,
    model_url: &str,
    mut settings: Settings,
    password: &str,
) -> cli::world::World {
    settings.claude.program = Some(program());
    settings.limits.warm_max = 0;
    let mut world = surroundings(dir, home, model_url, settings);
    let password = password.to_owned();
    world.environment.insert("SEMO_PASSWORD".to_owned(), password);
    port::remember(&world.paths.data_dir);
    world
}

/// Settings of a workstation that belongs to the hub at `url`.
pub fn settings_for(url: &str, key: &str) -> Settings {
    let mut settings = Settings {
        profile: Profile::Supabase,
        ..Settings::default()
    };
    settings.supabase.url = url.to_owned();
    settings.supabase.publishable_key = key.to_owned();
    settings.supabase.email = EMAIL.to_owned();
    // Never into the keychain of whoever runs the tests.
    settings.supabase.tokens = Some(supabase::TokensAt::File);
    settings
}

//! A hub of its own, as a team's server: for stories in which office and workstation are apart.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use client::settings::{Profile, Settings};
use hub::{Hub, HubConfig};
use supabase::{AgentDraft, AgentRow, Auth, MemoryTokenStore, OfficeRow, Project, Rest};
use uuid::Uuid;

use crate::clock::SystemClock;

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
    /// Starts a hub in `dir` on `port` (0 takes a free one) and makes the office.
    pub async fn start(dir: &Path, port: u16) -> Remote {
        // Postgres runs under another uid when we are root, and must be able to walk in.
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).expect("permissions");
        let config = HubConfig {
            data_dir: dir.join("hub"),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            postgres_bin: None,
            clock: Arc::new(SystemClock),
        };
        let hub = Hub::start(config).await.expect("the hub starts");
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

    /// Settings of a workstation that belongs to this hub.
    pub fn settings(&self) -> Settings {
        settings_for(self.hub.url(), &self.hub.keys().publishable)
    }
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
    settings
}

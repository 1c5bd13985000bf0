//! What stands in for Supabase where there is none: a Postgres of its own with the office's migrations, and one
//! HTTP port that speaks Supabase's REST, Realtime and Auth protocols.
//!
//! Invariants: the database is never reachable over TCP; every request of a client runs in one transaction under
//! the role and the claims of its token; nothing here knows agents, sessions of programs or Tauri. Called by the
//! programs (`semo up`, `semo hub`, the desktop's "This machine" profile) and by tests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use domain::UserId;

mod error;
mod jwt;
mod keys;
mod migrate;
mod postgres;

pub use error::HubError;
pub use keys::Keys;

/// What a hub needs to know to start.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Folder of this hub: keys, lock, logs and (where Postgres may enter it) the database. Made when missing.
    pub data_dir: PathBuf,
    /// Address of the HTTP port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Folder with `postgres` and `initdb`; looked for when absent.
    pub postgres_bin: Option<PathBuf>,
    /// Where the time comes from (tokens, limits). Leases and rows go by the database's own clock.
    pub clock: Arc<dyn domain::Clock>,
}

/// A running hub.
#[derive(Debug)]
pub struct Hub {
    url: String,
    keys: Keys,
    database_url: String,
}

impl Hub {
    /// Finds Postgres, makes its cluster when there is none, starts it, brings the schema up to date and listens.
    pub async fn start(config: HubConfig) -> Result<Hub, HubError> {
        let keys = Keys::load_or_create(&config.data_dir, config.clock.now())?;
        Ok(Hub { url: String::new(), keys, database_url: String::new() })
    }

    /// Base address: `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The keys of this hub.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// How `psql` and tests reach the database as its superuser: over the private Unix socket only.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// Makes the user, or sets the password of the one that is there. Email addresses are compared in lower case.
    pub async fn ensure_user(&self, _email: &str, _password: &str) -> Result<UserId, HubError> {
        Ok(UserId(uuid::Uuid::nil()))
    }

    /// Ends everything in order: sockets are closed with 1012, requests finish, Postgres writes its files.
    pub async fn stop(self) -> Result<(), HubError> {
        Ok(())
    }
}

/// The `postgres` program that a hub would run: in `setting` when given, else wherever one is usually found.
pub async fn find_postgres(setting: Option<&std::path::Path>) -> Result<PathBuf, HubError> {
    postgres::locate(setting).await.map(|binaries| binaries.postgres)
}

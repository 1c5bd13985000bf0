//! What stands in for Supabase where there is none: a Postgres of its own with the office's migrations, and one
//! HTTP port that speaks Supabase's REST, Realtime and Auth protocols.
//!
//! Invariants: the database is never reachable over TCP; every request of a client runs in one transaction under
//! the role and the claims of its token; nothing here knows agents, sessions of programs or Tauri. Called by the
//! programs (`semo up`, `semo hub`, the desktop's "This machine" profile) and by tests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::UserId;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_postgres::NoTls;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

mod auth;
mod db;
mod error;
mod http;
mod identity;
mod jwt;
mod keys;
mod migrate;
mod postgres;
mod realtime;
mod rest;

pub use error::HubError;
pub use keys::{KEY_FILE, Keys};

use crate::db::Database;
use crate::http::Shared;
use crate::postgres::{Cluster, OWNER, SUPERUSER, Server};

/// How long requests and sockets may take to end when the hub stops.
const DRAIN_MAX: Duration = Duration::from_secs(10);

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

/// A running hub. End it with [`Hub::stop`]; dropping it asks everything to end, without waiting.
#[derive(Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    database_url: String,
    server: Server,
    tasks: TaskTracker,
    ends: Ends,
}

/// What ends the hub's tasks; dropping it ends them, too.
#[derive(Debug)]
struct Ends {
    /// Stop taking requests, close sockets, finish.
    stop: DropGuard,
    /// Cut off requests that still run when that has taken too long.
    cut: DropGuard,
}

impl Hub {
    /// Finds Postgres, makes its cluster when there is none, starts it, brings the schema up to date and listens.
    ///
    /// Fails with what to do: no Postgres, folder not writable, another hub on the folder, port taken, …
    pub async fn start(config: HubConfig) -> Result<Hub, HubError> {
        let data_dir = config.data_dir.clone();
        let cluster = Cluster::open(&data_dir)?;
        let binaries = postgres::locate(config.postgres_bin.as_deref(), cluster.made_by()).await?;
        let keys = Keys::load_or_create(&data_dir, config.clock.now())?;
        // The port first: when it is taken, nothing has to be undone.
        let fault = |source| HubError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(fault)?;
        let address = listener.local_addr().map_err(fault)?;
        let server = Server::start(binaries, cluster).await?;
        match Hub::serve(&config, keys, listener, address, &server).await {
            Ok((shared, tasks, ends)) => Ok(Hub {
                shared,
                database_url: server.url(),
                server,
                tasks,
                ends,
            }),
            Err(error) => {
                server.stop().await?;
                Err(error)
            }
        }
    }

    async fn serve(
        config: &HubConfig,
        keys: Keys,
        listener: TcpListener,
        address: SocketAddr,
        server: &Server,
    ) -> Result<(Arc<Shared>, TaskTracker, Ends), HubError> {
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        bring_up_to_date(server, &tasks).await?;
        let feed_config = server.config(SUPERUSER);
        let feed = realtime::listen(&feed_config, &tasks).await?;
        let database = Database::open(server)?;
        let schema = rest::schema::SchemaCache::load(&database).await?;
        let shared = Arc::new(Shared {
            keys,
            clock: config.clock.clone(),
            database,
            schema,
            attempts: auth::attempts::Attempts::default(),
            realtime: realtime::Realtime::new(stop.clone(), tasks.clone()),
            url: format!("http://{address}"),
        });
        feed.capture_published().await?;
        tasks.spawn(feed.run(shared.clone(), feed_config, tasks.clone(), stop.clone()));
        tasks.spawn(realtime::keep_house(shared.clone(), stop.clone()));
        let cut = CancellationToken::new();
        let (draining, cut_off) = (stop.clone(), cut.clone());
        let router = http::router(shared.clone());
        tasks.spawn(async move {
            let serving = axum::serve(listener, router)
                .with_graceful_shutdown(async move { draining.cancelled().await })
                .into_future();
            tokio::select! {
                ended = serving => if let Err(error) = ended {
                    tracing::error!(%error, "the hub's port is closed");
                },
                () = cut_off.cancelled() => {}
            }
        });
        Ok((
            shared,
            tasks,
            Ends {
                stop: stop.drop_guard(),
                cut: cut.drop_guard(),
            },
        ))
    }

    /// Base address: `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// The keys of this hub.
    pub fn keys(&self) -> &Keys {
        &self.shared.keys
    }

    /// How `psql` and tests reach the database as its superuser: over the private Unix socket only.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// Makes the user, or sets the password of the one that is there (which ends that user's sessions; the same
    /// password again changes nothing). Email addresses are compared in lower case.
    pub async fn ensure_user(&self, email: &str, password: &str) -> Result<UserId, HubError> {
        auth::users::ensure(&self.shared.database, email, password)
            .await
            .map(UserId)
    }

    /// Ends everything in order: sockets are closed with 1012, requests finish, Postgres writes its files.
    pub async fn stop(self) -> Result<(), HubError> {
        self.ends.stop.disarm().cancel();
        self.tasks.close();
        if timeout(DRAIN_MAX, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                "requests were still running after {} s; they are cut off",
                DRAIN_MAX.as_secs()
            );
        }
        drop(self.ends.cut);
        self.shared.database.close();
        self.server.stop().await
    }
}

/// Bootstrap as superuser, then the migrations as `postgres`, on connections of their own.
async fn bring_up_to_date(server: &Server, tasks: &TaskTracker) -> Result<(), HubError> {
    let open = async |role: &str| {
        let (client, connection) =
            server
                .config(role)
                .connect(NoTls)
                .await
                .map_err(|source| HubError::Database {
                    attempt: format!("connect to the new database as {role}"),
                    source,
                })?;
        tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a set-up connection ended");
            }
        });
        Ok::<_, HubError>(client)
    };
    let superuser = open(SUPERUSER).await?;
    migrate::bootstrap(&superuser).await?;
    let owner = open(OWNER).await?;
    let applied = migrate::migrate(&superuser, &owner).await?;
    if !applied.is_empty() {
        tracing::info!(
            migrations = applied.join(", "),
            "the office's schema is up to date"
        );
    }
    superuser
        .batch_execute("truncate realtime.hub_interest, realtime.hub_changes")
        .await
        .map_err(|source| HubError::Database {
            attempt: "clear what was captured before".to_owned(),
            source,
        })
}

/// The `postgres` program that a hub would run: in `setting` when given, else wherever one is usually found.
pub async fn find_postgres(setting: Option<&std::path::Path>) -> Result<PathBuf, HubError> {
    postgres::locate(setting, None)
        .await
        .map(|binaries| binaries.postgres)
}

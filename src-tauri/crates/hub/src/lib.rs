//! What stands in for Supabase where there is none: a Postgres of its own with the office's migrations, and one
//! HTTP port that speaks Supabase's REST, Realtime and Auth protocols.
//!
//! Invariants: the hub's own database is never reachable over TCP; every request of a client runs in one transaction
//! under the role and the claims of its token; nothing here knows agents, sessions of programs or Tauri. Called by the
//! programs (`semo up`, `semo hub`, the desktop's "This machine" profile) and by tests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::UserId;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

mod auth;
mod backup;
mod bodies;
mod budget;
mod db;
mod door;
mod elsewhere;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod http;
mod identity;
mod jwt;
mod keys;
mod metrics;
mod migrate;
mod network;
mod one;
mod postgres;
mod realtime;
mod rest;
mod source;
mod team;

pub use auth::{AuthLimits, AuthSettings, renew_keys};
pub use backup::{Manifest, backup, restore};
pub use door::{Door, DoorLimits, TlsFiles};
pub use error::HubError;
pub use keys::{KEY_FILE, Keys};
pub use realtime::RealtimeSettings;
pub use source::DatabaseAt;
pub use team::{Member, Team};

use crate::db::Database;
use crate::door::{Certificate, Ending, Opened};
use crate::http::Shared;
use crate::one::One;
use crate::postgres::{Cluster, Server};
use crate::source::Source;

/// How long requests and sockets may take to end when the hub stops.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long what was cut off then may take to end its statements.
const CUT_MAX: Duration = Duration::from_secs(5);
/// How long the connection that holds the database may take to end.
const LET_GO_MAX: Duration = Duration::from_secs(5);

/// What a hub needs to know to start.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Folder of this hub: keys, lock, logs and (where Postgres may enter it) the database. Made when missing.
    pub data_dir: PathBuf,
    /// Address of the HTTP port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The database.
    pub database: DatabaseAt,
    /// TLS, names and origins.
    pub door: Door,
    /// Who may sign up, and how often.
    pub auth: AuthSettings,
    /// Limits and switches of Realtime, from the first socket on.
    pub realtime: RealtimeSettings,
    /// Where the time comes from (tokens, limits). Leases and rows go by the database's own clock.
    pub clock: Arc<dyn domain::Clock>,
}

impl HubConfig {
    /// A hub of this machine: a Postgres of its own, plain HTTP at `listen`.
    pub fn new(data_dir: PathBuf, listen: SocketAddr, clock: Arc<dyn domain::Clock>) -> HubConfig {
        HubConfig {
            data_dir,
            listen,
            database: DatabaseAt::default(),
            door: Door::default(),
            auth: AuthSettings::default(),
            realtime: RealtimeSettings::default(),
            clock,
        }
    }
}

/// A running hub. End it with [`Hub::stop`]; dropping it asks everything to end, without waiting.
#[derive(Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    source: Source,
    certificate: Option<Certificate>,
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
    /// Leave the database to the next hub: after everything else.
    let_go: DropGuard,
    /// What holds the database until then.
    holding: TaskTracker,
    /// Nothing is served any more, for a reason that is in the log.
    over: CancellationToken,
}

impl Hub {
    /// Finds the database (makes and starts one of its own, unless it is told where another one is), brings the schema
    /// up to date and listens.
    ///
    /// Fails with what to do: no Postgres, folder not writable, another hub on the folder, port taken, …
    pub async fn start(config: HubConfig) -> Result<Hub, HubError> {
        let cluster = Cluster::open(&config.data_dir)?;
        let keys = Keys::load_or_create(&config.data_dir, config.clock.now())?;
        // The port first: when it is taken, nothing has to be undone.
        let mut opened = Opened::open(config.listen, &config.door)?;
        if config.auth.client_ip_header.is_some() {
            opened = opened.behind_a_proxy();
        }
        let certificate = opened.certificate();
        let source = match &config.database {
            DatabaseAt::Own { postgres_bin } => {
                let binaries = postgres::locate(postgres_bin.as_deref(), cluster.made_by()).await?;
                Source::own(Server::start(binaries, cluster).await?)?
            }
            DatabaseAt::Url(url) => Source::away(url, &keys, cluster)?,
        };
        match Hub::serve(&config, keys, opened, &source).await {
            Ok((shared, tasks, ends)) => Ok(Hub {
                shared,
                source,
                certificate,
                tasks,
                ends,
            }),
            Err(error) => {
                source.stop().await?;
                Err(error)
            }
        }
    }

    async fn serve(
        config: &HubConfig,
        keys: Keys,
        opened: Opened,
        source: &Source,
    ) -> Result<(Arc<Shared>, TaskTracker, Ends), HubError> {
        let tasks = TaskTracker::new();
        let (stop, over) = (CancellationToken::new(), CancellationToken::new());
        let (holding, let_go) = (TaskTracker::new(), CancellationToken::new());
        let one = One::take(source.superuser(), &holding).await?;
        bring_up_to_date(source, &tasks).await?;
        let feed = realtime::listen(&source.superuser(), &tasks).await?;
        let database = Database::open(source)?;
        let schema = rest::schema::SchemaCache::load(&database).await?;
        let auth = auth::Auth::new(config.auth.clone(), &keys, &config.data_dir)?;
        let shared = Arc::new(Shared {
            keys,
            clock: config.clock.clone(),
            database,
            schema,
            auth,
            realtime: realtime::Realtime::new(stop.clone(), tasks.clone()),
            metrics: metrics::Metrics::default(),
            bodies: bodies::budget(),
            answers: rest::outgoing::budget(),
            turns: rest::turns::Turns::new(source.authenticator(), tasks.clone()),
            ready: metrics::Ready::default(),
            url: opened.url(&config.door),
            door: config.door.clone(),
        });
        shared.realtime.set_settings(config.realtime.clone());
        feed.capture_published().await?;
        tasks.spawn(feed.run(shared.clone(), source.superuser(), tasks.clone(), stop.clone()));
        tasks.spawn(realtime::keep_house(shared.clone(), stop.clone()));
        let cut = CancellationToken::new();
        let ending = Ending {
            stop: stop.clone(),
            cut: cut.clone(),
        };
        tasks.spawn(serve(opened, shared.clone(), ending));
        holding.spawn(one.keep(let_go.clone(), over.clone()));
        Ok((
            shared,
            tasks,
            Ends {
                stop: stop.drop_guard(),
                cut: cut.drop_guard(),
                let_go: let_go.drop_guard(),
                holding,
                over,
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
    pub fn database_url(&self) -> String {
        self.source.url()
    }

    /// Reads certificate and key again, as after their renewal; connections that are open keep the old one. Nothing
    /// without TLS.
    pub fn renew_certificate(&self) -> Result<(), HubError> {
        self.certificate.as_ref().map_or(Ok(()), Certificate::renew)
    }

    /// Comes back when the hub cannot go on although nobody stopped it: another one has taken its database.
    pub async fn over(&self) {
        self.ends.over.cancelled().await;
    }

    /// Makes the user, or sets the password of the one that is there (which ends that user's sessions; the same
    /// password again changes nothing). Email addresses are compared in lower case.
    pub async fn ensure_user(&self, email: &str, password: &str) -> Result<UserId, HubError> {
        auth::users::ensure(&self.shared.database, email, password)
            .await
            .map(UserId)
    }

    /// Ends everything in order: sockets are closed with 1012, requests finish, the next hub may have the database,
    /// Postgres writes its files.
    pub async fn stop(self) -> Result<(), HubError> {
        let Ends {
            stop,
            cut,
            let_go,
            holding,
            ..
        } = self.ends;
        drop(stop);
        self.tasks.close();
        if timeout(DRAIN_MAX, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                "requests were still running after {} s; they are cut off",
                DRAIN_MAX.as_secs()
            );
            drop(cut);
            if timeout(CUT_MAX, self.tasks.wait()).await.is_err() {
                tracing::warn!("not everything that was cut off has ended");
            }
        }
        self.shared.database.close();
        drop(let_go);
        holding.close();
        if timeout(LET_GO_MAX, holding.wait()).await.is_err() {
            tracing::warn!("the connection that held the database does not end");
        }
        self.source.stop().await
    }
}

async fn serve(opened: Opened, shared: Arc<Shared>, ending: Ending) {
    let router = http::router(shared.clone());
    if let Err(error) = opened.serve(router, &shared.metrics, ending).await {
        tracing::error!(%error, "the hub's port is closed");
    }
}

/// Bootstrap as superuser, then the migrations as `postgres`, on connections of their own. Under the lock of [`One`].
async fn bring_up_to_date(source: &Source, tasks: &TaskTracker) -> Result<(), HubError> {
    let superuser = source
        .superuser()
        .open(tasks, "to bring its schema up to date")
        .await?;
    source.check_is_ours(&superuser).await?;
    let role = source.owner_role(&superuser).await?;
    migrate::bootstrap(&superuser, role).await?;
    source.open_for_requests(&superuser).await?;
    elsewhere::hand_over(&superuser, role).await?;
    let owner = source.owner(role, tasks).await?;
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

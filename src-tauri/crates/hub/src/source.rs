//! Where the hub's database is: a Postgres of its own, or one somebody else runs, given by its address.
//!
//! Roles are the same in both. A Postgres elsewhere is entered with one account that may make roles; the role that
//! REST logs in with gets a password made from the hub's keys, so that it is the same for every hub with these keys
//! and is written nowhere. Called by [`crate::Hub::start`] and by backups.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postgres_native_tls::{MakeTlsConnector, TlsStream};
use sha2::{Digest as _, Sha256};
use tokio_postgres::{Client, Config, Connection, Socket};
use tokio_util::task::TaskTracker;

use crate::elsewhere;
use crate::error::HubError;
use crate::keys::Keys;
use crate::postgres::{AUTHENTICATOR, Cluster, OWNER, SUPERUSER, Server};

/// Which database a hub uses.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseAt {
    /// A Postgres of its own, in the data folder, reachable over a private socket only.
    Own {
        /// Folder with `postgres` and `initdb`; looked for when absent.
        postgres_bin: Option<PathBuf>,
    },
    /// One that somebody else runs: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`. On another machine it is reached
    /// with TLS only. The account must be a superuser; everything in that database belongs to the hub.
    Url(String),
}

impl Default for DatabaseAt {
    fn default() -> Self {
        DatabaseAt::Own { postgres_bin: None }
    }
}

/// Addresses carry passwords.
impl std::fmt::Debug for DatabaseAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DatabaseAt::Own { postgres_bin } => f.debug_tuple("Own").field(postgres_bin).finish(),
            DatabaseAt::Url(_) => f.write_str("Url(…)"),
        }
    }
}

/// One role's way into the database.
#[derive(Clone)]
pub(crate) struct Address {
    pub config: Config,
    pub tls: MakeTlsConnector,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Address")
            .field("user", &self.config.get_user())
            .finish_non_exhaustive()
    }
}

impl Address {
    /// A connection and the future that drives it.
    pub async fn connect(
        &self,
    ) -> Result<(Client, Connection<Socket, TlsStream<Socket>>), tokio_postgres::Error> {
        self.config.connect(self.tls.clone()).await
    }

    /// A connection that `tasks` drives. `purpose` ends the sentence "could not connect to the database …".
    pub async fn open(&self, tasks: &TaskTracker, purpose: &str) -> Result<Client, HubError> {
        let (client, connection) = self.connect().await.map_err(|source| HubError::Database {
            attempt: format!("connect to the database {purpose}"),
            source,
        })?;
        tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the database ended");
            }
        });
        Ok(client)
    }
}

/// The database of a running hub.
#[derive(Debug)]
pub(crate) enum Source {
    Own(Box<Server>, MakeTls),
    Away(Box<Away>),
}

/// [`MakeTlsConnector`], which does not say what it is.
#[derive(Clone)]
pub(crate) struct MakeTls(MakeTlsConnector);

impl std::fmt::Debug for MakeTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MakeTls")
    }
}

/// A database elsewhere.
pub(crate) struct Away {
    superuser: Address,
    url: String,
    authenticator_password: String,
    /// The data folder is held, too: it has the keys.
    _cluster: Cluster,
}

/// Its address and the password made from the keys are never printed.
impl std::fmt::Debug for Away {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Away")
            .field("superuser", &self.superuser)
            .finish_non_exhaustive()
    }
}

impl Source {
    /// The hub's own, which runs.
    pub fn own(server: Server) -> Result<Source, HubError> {
        Ok(Source::Own(Box::new(server), MakeTls(connector()?)))
    }

    /// The one at `url`.
    pub fn away(url: &str, keys: &Keys, cluster: Cluster) -> Result<Source, HubError> {
        let config = elsewhere::parse(url)?;
        Ok(Source::Away(Box::new(Away {
            superuser: Address {
                config,
                tls: connector()?,
            },
            url: url.to_owned(),
            authenticator_password: password_of(keys),
            _cluster: cluster,
        })))
    }

    /// As the role with all rights.
    pub fn superuser(&self) -> Address {
        match self {
            Source::Own(server, tls) => Address {
                config: server.config(SUPERUSER),
                tls: tls.0.clone(),
            },
            Source::Away(away) => away.superuser.clone(),
        }
    }

    /// As the role REST logs in with.
    pub fn authenticator(&self) -> Address {
        match self {
            Source::Own(server, tls) => Address {
                config: server.config(AUTHENTICATOR),
                tls: tls.0.clone(),
            },
            Source::Away(away) => {
                let mut address = away.superuser.clone();
                address
                    .config
                    .user(AUTHENTICATOR)
                    .password(&away.authenticator_password);
                address
            }
        }
    }

    /// The role that the office's schema belongs to. `superuser`: a connection of [`Source::superuser`].
    pub async fn owner_role(&self, superuser: &Client) -> Result<&'static str, HubError> {
        match self {
            Source::Own(..) => Ok(OWNER),
            Source::Away(_) => elsewhere::owner(superuser).await,
        }
    }

    /// A connection as that role.
    pub async fn owner(&self, role: &str, tasks: &TaskTracker) -> Result<Client, HubError> {
        match self {
            Source::Own(server, tls) => {
                let address = Address {
                    config: server.config(role),
                    tls: tls.0.clone(),
                };
                address.open(tasks, "as the owner of the schema").await
            }
            Source::Away(away) => {
                let client = away.superuser.open(tasks, "as the owner of the schema").await?;
                let fault = |source| HubError::Database {
                    attempt: format!("become the role {role}"),
                    source,
                };
                client
                    .batch_execute(&format!("set role {role}"))
                    .await
                    .map_err(fault)?;
                Ok(client)
            }
        }
    }

    /// What only a database elsewhere needs before it can be used: the password of the role that REST logs in with.
    /// `superuser`: a connection of [`Source::superuser`], after the bootstrap.
    pub async fn open_for_requests(&self, superuser: &Client) -> Result<(), HubError> {
        match self {
            Source::Own(..) => Ok(()),
            Source::Away(away) => {
                elsewhere::take_authenticator(superuser, &away.authenticator_password).await
            }
        }
    }

    /// Refuses a database that is not the hub's to change. `superuser`: before the bootstrap.
    pub async fn check_is_ours(&self, superuser: &Client) -> Result<(), HubError> {
        match self {
            Source::Own(..) => Ok(()),
            Source::Away(_) => elsewhere::check_is_ours(superuser).await,
        }
    }

    /// In the form libpq and tokio-postgres read.
    pub fn url(&self) -> String {
        match self {
            Source::Own(server, _) => server.url(),
            Source::Away(away) => away.url.clone(),
        }
    }

    /// Shuts down what is ours.
    pub async fn stop(self) -> Result<(), HubError> {
        match self {
            Source::Own(server, _) => server.stop().await,
            Source::Away(_) => Ok(()),
        }
    }
}

/// TLS as the system trusts it.
pub(crate) fn connector() -> Result<MakeTlsConnector, HubError> {
    native_tls::TlsConnector::new()
        .map(MakeTlsConnector::new)
        .map_err(|error| HubError::Connection {
            attempt: "set up TLS for the database".to_owned(),
            reason: error.to_string(),
        })
}

fn password_of(keys: &Keys) -> String {
    let digest = Sha256::digest(format!("authenticator of the hub: {}", keys.jwt_secret));
    URL_SAFE_NO_PAD.encode(digest)
}

#[cfg(test)]
impl Source {
    /// A Postgres of its own in `folder`, for the unit tests that need one.
    pub(crate) async fn for_test(folder: &std::path::Path) -> Source {
        use std::os::unix::fs::PermissionsExt as _;

        // Postgres may run as another user.
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        let cluster = Cluster::open(&folder.join("hub")).unwrap();
        let binaries = crate::postgres::locate(None, None).await.unwrap();
        Source::own(Server::start(binaries, cluster).await.unwrap()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use domain::Timestamp;

    use super::*;

    #[test]
    fn a_database_elsewhere_is_printed_without_its_passwords() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster::open(folder.path()).unwrap();
        let keys = Keys::load_or_create(folder.path(), Timestamp(1_795_223_944_000)).unwrap();
        let url = "postgresql://semo:very-secret@127.0.0.1:1/semo";
        let printed = format!("{:?}", Source::away(url, &keys, cluster).unwrap());
        assert!(printed.contains("semo"), "{printed}");
        for hidden in ["very-secret", &password_of(&keys)] {
            assert!(!printed.contains(hidden), "{printed}");
        }
    }
}

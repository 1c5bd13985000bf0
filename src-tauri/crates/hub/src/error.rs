//! What can go wrong while the hub starts, runs or stops, said so that the reader knows what to do next.
//!
//! Never used for answers to clients: REST, Auth and Realtime have error shapes of their own. Called by every
//! module of this crate; seen by the programs that start a hub.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the hub could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// No Postgres server program was found.
    #[error(
        "the hub needs PostgreSQL 15 or newer and found no `postgres` and `initdb` (looked in {searched}); install it \
         (Debian/Ubuntu: `apt-get install postgresql`, macOS: `brew install postgresql@17`, Fedora: `dnf install \
         postgresql-server`) or name its bin folder in the settings"
    )]
    NoPostgres {
        /// The places that were looked at.
        searched: String,
    },
    /// Something on the disk did not work.
    #[error("could not {attempt} {}: {source}; check that the folder exists, is writable and has space", path.display())]
    Folder {
        /// What was tried ("create the folder", …).
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A second hub on the same folder.
    #[error(
        "another hub is already running on {} (pid {holder}); stop it, or give this one a data folder of its own",
        path.display()
    )]
    InUse {
        /// The data folder.
        path: PathBuf,
        /// Process id the lock file names, or "unknown".
        holder: String,
    },
    /// The address cannot be listened on.
    #[error(
        "could not listen on {address}: {source}; another program may use the port: choose another, or 0 for a free one"
    )]
    Listen {
        /// The wanted address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A Postgres program ended with an error or did not come up.
    #[error("could not {attempt}: {reason}; Postgres wrote: {log}")]
    Postgres {
        /// What was tried ("create the database cluster in …").
        attempt: String,
        /// What happened instead.
        reason: String,
        /// The end of Postgres's log.
        log: String,
    },
    /// A statement of ours was refused by the database.
    #[error("could not {attempt}: {}", explained(source))]
    Database {
        /// What was tried.
        attempt: String,
        /// What the database said.
        source: tokio_postgres::Error,
    },
    /// The database was made by a program with other tables.
    #[error(
        "this database was made with another `{file}` than this program has, and tables are not changed by applying a \
         file again; use the program that made it, or back the data folder up, move it away and start again with an \
         empty one"
    )]
    OtherTables {
        /// Name of the migration.
        file: &'static str,
    },
    /// No database connection could be had.
    #[error(
        "could not {attempt}: no connection to the hub's database: {reason}; see the Postgres log in the data folder"
    )]
    Connection {
        /// What was tried.
        attempt: String,
        /// Why there is none.
        reason: String,
    },
    /// The database somebody else runs cannot be used.
    #[error("could not use the database at the given address: {reason}")]
    DatabaseUrl {
        /// Why, without the address: it carries a password.
        reason: String,
    },
    /// Another hub uses the same database.
    #[error(
        "another hub uses this database ({holder}); one database belongs to one hub: stop the other one, or give this \
         one a database of its own"
    )]
    DatabaseInUse {
        /// Where it connects from and since when.
        holder: String,
    },
    /// The wish to serve others without encryption.
    #[error(
        "the hub will not listen on {address} without TLS: passwords and tokens would be readable in the network; give \
         it a certificate and its key, or let it listen on 127.0.0.1 behind a proxy that has one"
    )]
    Plain {
        /// The wanted address.
        address: SocketAddr,
    },
    /// Certificate or key cannot be used.
    #[error("could not use the certificate {} with the key {}: {reason}; both must be PEM, the certificate with its chain", certificate.display(), key.display())]
    Certificate {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A backup could not be made or put back.
    #[error("could not {attempt}: {reason}")]
    Backup {
        /// What was tried.
        attempt: String,
        /// Why it failed, and what can be done.
        reason: String,
    },
    /// Accounts and offices do not allow what was asked.
    #[error("could not change the members: {reason}")]
    Member {
        /// Why not.
        reason: String,
    },
    /// The file with the keys cannot be used.
    #[error("could not use the key file {}: {reason}; move it away to have new keys made (clients must then be told)", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A user could not be made or changed.
    #[error("could not set up the user {email}: {reason}")]
    User {
        /// The address that was given.
        email: String,
        /// What is wrong.
        reason: String,
    },
}

/// The database's message with the parts that say what to do: tokio-postgres prints only "db error".
pub(crate) fn explained(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let mut text = format!("{} ({})", db.message(), db.code().code());
            for part in [db.detail(), db.hint(), db.where_()].into_iter().flatten() {
                text.push_str("; ");
                text.push_str(part);
            }
            text
        }
        None => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(inner) = source {
                text.push_str(": ");
                text.push_str(&inner.to_string());
                source = inner.source();
            }
            text
        }
    }
}

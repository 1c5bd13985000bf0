//! One database belongs to one hub: a lock in the database, held from before the migrations to the end.
//!
//! Two hubs on one database would migrate it at the same time and take each other's notifications. A hub that is being
//! replaced keeps the lock until its last request is done; its successor waits. Called by [`crate::Hub::start`].

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::HubError;
use crate::source::Address;

/// Number of the lock, for all hubs: "semo hub" in bytes.
const KEY: i64 = 0x7365_6d6f_2068_7562;
/// How long a hub waits for the one before it to end.
const HANDOVER_MAX: Duration = Duration::from_secs(30);
/// How long a hub that has lost the lock with its connection may find it with another one before it gives up.
const LOST_MAX: Duration = Duration::from_secs(60);
/// Pause between two tries.
const AGAIN: Duration = Duration::from_millis(500);

/// The lock, while its connection lives.
pub(crate) struct One {
    address: Address,
    tasks: TaskTracker,
    _client: Client,
    gone: oneshot::Receiver<()>,
}

impl One {
    /// Takes the lock, waiting for a hub that is ending.
    pub async fn take(address: Address, tasks: &TaskTracker) -> Result<One, HubError> {
        let deadline = Instant::now() + HANDOVER_MAX;
        let (client, gone) = enter(&address, tasks).await?;
        loop {
            if try_lock(&client).await? {
                return Ok(One {
                    address,
                    tasks: tasks.clone(),
                    _client: client,
                    gone,
                });
            }
            if Instant::now() >= deadline {
                let holder = holder(&client).await?;
                return Err(HubError::DatabaseInUse { holder });
            }
            sleep(AGAIN).await;
        }
    }

    /// Holds the lock until `stop`. A lock that went with its connection is taken again; when another hub has it by
    /// then, `give_up` is cancelled.
    pub async fn keep(mut self, stop: CancellationToken, give_up: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = &mut self.gone => {}
            }
            tracing::warn!("the connection that holds the database for this hub is lost; it is taken again");
            tokio::select! {
                () = stop.cancelled() => return,
                again = again(self.address.clone(), self.tasks.clone()) => match again {
                    Some(one) => self = one,
                    None => {
                        tracing::error!("another hub has taken this database; this one ends");
                        give_up.cancel();
                        return;
                    }
                }
            }
        }
    }
}

/// Until the lock is had, or has been another's for [`LOST_MAX`]. A database that cannot be reached is nobody's.
async fn again(address: Address, tasks: TaskTracker) -> Option<One> {
    let mut refused_since: Option<Instant> = None;
    loop {
        sleep(AGAIN).await;
        let (client, gone) = match enter(&address, &tasks).await {
            Ok(entered) => entered,
            Err(error) => {
                tracing::debug!(%error, "the database stays away");
                refused_since = None;
                continue;
            }
        };
        match try_lock(&client).await {
            Ok(true) => {
                return Some(One {
                    address,
                    tasks,
                    _client: client,
                    gone,
                });
            }
            Ok(false) if refused_since.get_or_insert_with(Instant::now).elapsed() >= LOST_MAX => return None,
            Ok(false) => {}
            Err(_) => refused_since = None,
        }
    }
}

async fn enter(address: &Address, tasks: &TaskTracker) -> Result<(Client, oneshot::Receiver<()>), HubError> {
    let (client, connection) = address.connect().await.map_err(|source| HubError::Database {
        attempt: "connect to the database".to_owned(),
        source,
    })?;
    let (ended, gone) = oneshot::channel();
    // Ends with the client, which `One` owns.
    tasks.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection that holds the database ended");
        }
        let _ = ended.send(());
    });
    Ok((client, gone))
}

async fn try_lock(client: &Client) -> Result<bool, HubError> {
    let row = client.query_one("select pg_try_advisory_lock($1)", &[&KEY]).await;
    row.map(|row| row.get(0)).map_err(fault)
}

/// Whose it is, in words.
async fn holder(client: &Client) -> Result<String, HubError> {
    let found = client
        .query_opt(
            "select coalesce(a.client_addr::text, 'this machine') || ', since '
                      || to_char(a.backend_start at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS') || ' UTC'
             from pg_locks l join pg_stat_activity a using (pid)
             where l.locktype = 'advisory' and l.granted
               and l.classid = ($1::bigint >> 32)::oid and l.objid = ($1::bigint & 4294967295)::oid",
            &[&KEY],
        )
        .await
        .map_err(fault)?;
    Ok(found.map_or_else(|| "unknown".to_owned(), |row| row.get(0)))
}

fn fault(source: tokio_postgres::Error) -> HubError {
    HubError::Database {
        attempt: "take the database for this hub".to_owned(),
        source,
    }
}

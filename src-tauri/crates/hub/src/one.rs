//! One database belongs to one hub: a lock in the database, held from before the migrations to the end.
//!
//! Two hubs on one database would migrate it at the same time and take each other's notifications. A hub that is being
//! replaced keeps the lock until its last request is done; its successor waits. Called by [`crate::Hub::start`].

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
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
/// How often the connection is asked whether it is still one, and how long the answer may take: a line may be dead
/// without a word on either side.
const ASK_AGAIN: Duration = Duration::from_secs(10);
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The lock, while its connection lives.
pub(crate) struct One {
    address: Address,
    tasks: TaskTracker,
    client: Client,
    gone: oneshot::Receiver<()>,
    backend: Backend,
    patience: Patience,
}

/// The server's side of a connection. Numbers come again: only with the time it is one.
#[derive(Debug, Clone)]
struct Backend {
    pid: i32,
    began: String,
}

/// How the connection is watched.
#[derive(Debug, Clone, Copy)]
struct Patience {
    ask_again: Duration,
    answer_max: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            ask_again: ASK_AGAIN,
            answer_max: ANSWER_MAX,
        }
    }
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
                    backend: backend(&client).await?,
                    client,
                    gone,
                    patience: Patience::default(),
                });
            }
            if Instant::now() >= deadline {
                let holder = holder(&client).await?;
                return Err(HubError::DatabaseInUse { holder });
            }
            sleep(AGAIN).await;
        }
    }

    /// Holds the lock until `let_go`. A lock that went with its connection is taken again; when another hub has it by
    /// then, `give_up` is cancelled.
    pub async fn keep(mut self, let_go: CancellationToken, give_up: CancellationToken) {
        loop {
            tokio::select! {
                () = let_go.cancelled() => return,
                _ = &mut self.gone => {}
                () = silence(&self.client, self.patience) => {}
            }
            tracing::warn!("the connection that holds the database for this hub is lost; it is taken again");
            tokio::select! {
                () = let_go.cancelled() => return,
                again = again(&self) => match again {
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

/// Comes back when the connection does not answer any more.
async fn silence(client: &Client, patience: Patience) {
    loop {
        sleep(patience.ask_again).await;
        match timeout(patience.answer_max, client.simple_query("select 1")).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Until the lock is had, or has been another's for [`LOST_MAX`]. A database that cannot be reached is nobody's. The
/// server may not have noticed yet that the connection of before is dead: it is ended there.
async fn again(lost: &One) -> Option<One> {
    let mut refused_since: Option<Instant> = None;
    loop {
        sleep(AGAIN).await;
        let entered = timeout(ANSWER_MAX, enter(&lost.address, &lost.tasks)).await;
        let (client, gone) = match entered.unwrap_or_else(|_| Err(silent())) {
            Ok(entered) => entered,
            Err(error) => {
                tracing::debug!(%error, "the database stays away");
                refused_since = None;
                continue;
            }
        };
        match try_again(&client, &lost.backend).await {
            Ok(Some(backend)) => {
                return Some(One {
                    address: lost.address.clone(),
                    tasks: lost.tasks.clone(),
                    client,
                    gone,
                    backend,
                    patience: lost.patience,
                });
            }
            Ok(None) if refused_since.get_or_insert_with(Instant::now).elapsed() >= LOST_MAX => return None,
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "the database does not say whose it is");
                refused_since = None;
            }
        }
    }
}

/// None when another hub has it. A database that does not answer in time has not said so.
async fn try_again(client: &Client, lost: &Backend) -> Result<Option<Backend>, HubError> {
    let ended = timeout(ANSWER_MAX, async {
        client
            .execute(
                "select pg_terminate_backend(pid) from pg_stat_activity
                  where pid = $1 and backend_start::text = $2 and pid <> pg_backend_pid()",
                &[&lost.pid, &lost.began],
            )
            .await
            .map_err(fault)?;
        match try_lock(client).await? {
            true => backend(client).await.map(Some),
            false => Ok(None),
        }
    });
    ended.await.unwrap_or_else(|_| Err(silent()))
}

fn silent() -> HubError {
    HubError::Connection {
        attempt: "take the database for this hub".to_owned(),
        reason: format!("it did not answer within {} s", ANSWER_MAX.as_secs()),
    }
}

async fn backend(client: &Client) -> Result<Backend, HubError> {
    let row = client
        .query_one(
            "select pid, backend_start::text from pg_stat_activity where pid = pg_backend_pid()",
            &[],
        )
        .await
        .map_err(fault)?;
    Ok(Backend {
        pid: row.get(0),
        began: row.get(1),
    })
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
               and l.database = (select oid from pg_database where datname = current_database())
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, copy_bidirectional, duplex};
    use tokio::net::{UnixListener, UnixStream};
    use tokio_postgres::NoTls;
    use tokio_postgres::config::Host;

    use super::*;
    use crate::source::Source;

    /// A way to `server` on which the first line dies, without a word to either side, when `dead` says so.
    async fn relay(way: UnixListener, server: PathBuf, dead: CancellationToken, tasks: TaskTracker) {
        let mut first = Some(dead);
        while let Ok((mut ours, _)) = way.accept().await {
            let mut theirs = UnixStream::connect(&server).await.unwrap();
            let dead = first.take();
            tasks.spawn(async move {
                let dies = async {
                    match dead {
                        Some(dead) => dead.cancelled().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    _ = copy_bidirectional(&mut ours, &mut theirs) => return,
                    () = dies => {}
                }
                // Both ends stay open, and nothing is carried any more.
                let mut rest = Vec::new();
                let _ = ours.read_to_end(&mut rest).await;
            });
        }
    }

    #[tokio::test]
    async fn a_line_that_died_without_a_word_is_noticed_and_the_lock_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::for_test(folder.path()).await;
        let (direct, tasks, dead) = (source.superuser(), TaskTracker::new(), CancellationToken::new());
        let [Host::Unix(socket)] = direct.config.get_hosts() else {
            panic!("it listens on a socket");
        };
        let port = direct.config.get_ports().first().copied().unwrap_or(5432);
        let name = format!(".s.PGSQL.{port}");
        let way = UnixListener::bind(folder.path().join(&name)).unwrap();
        let relaying = tasks.spawn(relay(way, socket.join(&name), dead.clone(), tasks.clone()));
        let mut config = tokio_postgres::Config::new();
        config.user(direct.config.get_user().unwrap()).port(port);
        config
            .dbname(direct.config.get_dbname().unwrap())
            .host_path(folder.path());
        let address = Address {
            config,
            tls: direct.tls.clone(),
        };
        let mut one = One::take(address, &tasks).await.unwrap();
        one.patience = Patience {
            ask_again: Duration::from_millis(50),
            answer_max: Duration::from_millis(300),
        };
        let before = one.backend.pid;
        let (let_go, give_up) = (CancellationToken::new(), CancellationToken::new());
        let keeping = tasks.spawn(one.keep(let_go.clone(), give_up.clone()));
        dead.cancel();
        let watch = direct.open(&tasks, "for a test").await.unwrap();
        let began = Instant::now();
        loop {
            let holders = "select pid from pg_locks where locktype = 'advisory' and granted";
            let holder = watch.query_opt(holders, &[]).await.unwrap();
            if holder.is_some_and(|row| row.get::<_, i32>(0) != before) {
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "the lock does not come back"
            );
            sleep(Duration::from_millis(20)).await;
        }
        assert!(!give_up.is_cancelled());
        let_go.cancel();
        keeping.await.unwrap();
        relaying.abort();
        drop(watch);
        source.stop().await.unwrap();
    }

    /// A server that lets everybody in and then says nothing.
    async fn mute(mut line: DuplexStream) {
        let length = usize::try_from(line.read_u32().await.unwrap()).unwrap();
        let mut greeting = vec![0u8; length - 4];
        line.read_exact(&mut greeting).await.unwrap();
        // "You are in", "ask".
        line.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.unwrap();
        let mut asked = Vec::new();
        line.read_to_end(&mut asked).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_is_slow_is_not_taken_for_another_hubs() {
        let (ours, theirs) = duplex(64 * 1024);
        let tasks = TaskTracker::new();
        tasks.spawn(mute(theirs));
        let mut config = tokio_postgres::Config::new();
        let (client, connection) = config.user("semo").connect_raw(ours, NoTls).await.unwrap();
        tasks.spawn(async move { connection.await.unwrap() });
        let lost = Backend {
            pid: 7,
            began: "yesterday".to_owned(),
        };
        let began = Instant::now();
        let error = try_again(&client, &lost).await.unwrap_err().to_string();
        assert_eq!(began.elapsed(), ANSWER_MAX);
        assert!(error.contains("did not answer"), "{error}");
    }
}

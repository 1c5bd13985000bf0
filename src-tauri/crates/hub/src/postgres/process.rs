//! Runs `initdb` and the server, waits until it answers, and ends it: SIGINT is Postgres's fast, clean shutdown.
//!
//! The server is in a process group of its own, so that Ctrl+C in a terminal reaches the hub first. A server left
//! by a hub that was killed is ended before a new one starts: the folder's lock proves that nobody uses it. One
//! that ends by itself is started again; the connections and the feed come back on their own.
//! Called by [`crate::Hub::start`] and [`crate::Hub::stop`].

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::cluster::Cluster;
use super::{Binaries, DATABASE, SUPERUSER};
use crate::error::HubError;

/// Longest the server may take to answer; recovery after a crash is part of it.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest a clean shutdown may take before the server is told to stop at once.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest `initdb` may take.
const INITDB_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause between two looks at a starting or stopping server.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Pause before a server that ended by itself is started again: the first one, doubled up to the longest.
const RESTART_PAUSE_MIN: Duration = Duration::from_millis(200);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);
/// A server that has run this long is started again with the first pause.
const RUN_WELL: Duration = Duration::from_secs(60);
/// The lock file beside the socket.
const SOCKET_LOCK: &str = ".s.PGSQL.5432.lock";
/// A log beyond this size is begun anew at the next start, in bytes.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// How much of the log's end goes into an error, in bytes.
const LOG_TAIL: usize = 1500;

/// A Postgres that is kept running. Dropping it without [`Server::stop`] asks it to shut down, without waiting.
#[derive(Debug)]
pub(crate) struct Server {
    cluster: Arc<Cluster>,
    /// Ends when the server has shut down after `stop`.
    keeper: JoinHandle<Result<(), HubError>>,
    stop: DropGuard,
}

impl Server {
    /// Makes the cluster when there is none, ends a left-over server, starts a new one and waits for its answer.
    pub async fn start(binaries: Binaries, cluster: Cluster) -> Result<Server, HubError> {
        end_left_over(&cluster).await?;
        if cluster.made_by().is_none() {
            initdb(&binaries, &cluster).await?;
        }
        let cluster = Arc::new(cluster);
        let mut process = Process::spawn(&binaries, &cluster)?;
        process.wait_until_it_answers().await?;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let keeper = tasks.spawn(keep(process, binaries, stop.clone()));
        Ok(Server {
            cluster,
            keeper,
            stop: stop.drop_guard(),
        })
    }

    /// How a role connects over the private socket.
    pub fn config(&self, role: &str) -> tokio_postgres::Config {
        config(&self.cluster, role)
    }

    /// The superuser's address in the form libpq and tokio-postgres read.
    pub fn url(&self) -> String {
        let host = self
            .cluster
            .socket_dir
            .to_string_lossy()
            .replace('%', "%25")
            .replace('/', "%2F");
        format!("postgresql://{SUPERUSER}@{host}/{DATABASE}")
    }

    /// Shuts the server down and waits until the process is gone.
    pub async fn stop(self) -> Result<(), HubError> {
        drop(self.stop);
        self.keeper.await.unwrap_or_else(|error| {
            Err(HubError::Postgres {
                attempt: "stop Postgres".to_owned(),
                reason: error.to_string(),
                log: tail(&self.cluster.log),
            })
        })
    }
}

/// Waits until the server ends by itself and starts it again, until `stop`; then shuts it down.
async fn keep(mut process: Process, binaries: Binaries, stop: CancellationToken) -> Result<(), HubError> {
    let mut pause = RESTART_PAUSE_MIN;
    loop {
        let began = Instant::now();
        let ended = tokio::select! {
            () = stop.cancelled() => return process.shut_down().await,
            ended = process.child.wait() => ended,
        };
        let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
        tracing::error!(
            status,
            log = tail(&process.cluster.log),
            "Postgres ended by itself; it is started again"
        );
        if began.elapsed() >= RUN_WELL {
            pause = RESTART_PAUSE_MIN;
        }
        let cluster = process.cluster.clone();
        process = loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(RESTART_PAUSE_MAX);
            let mut next = match Process::spawn(&binaries, &cluster) {
                Ok(next) => next,
                Err(error) => {
                    tracing::error!(%error, "Postgres stays away; it is tried again");
                    continue;
                }
            };
            let answered = tokio::select! {
                () = stop.cancelled() => None,
                answered = next.wait_until_it_answers() => Some(answered),
            };
            match answered {
                None => return next.shut_down().await,
                Some(Ok(())) => break next,
                Some(Err(error)) => {
                    tracing::error!(%error, "Postgres does not come back; it is tried again");
                    if let Err(error) = next.shut_down().await {
                        tracing::error!(%error, "a Postgres that does not answer does not stop either");
                    }
                }
            }
        };
        tracing::info!("Postgres runs again");
    }
}

/// One server process. Dropping it asks it to shut down, without waiting.
#[derive(Debug)]
struct Process {
    child: Child,
    cluster: Arc<Cluster>,
}

impl Process {
    fn spawn(binaries: &Binaries, cluster: &Arc<Cluster>) -> Result<Process, HubError> {
        forget_foreign_notes(cluster)?;
        Ok(Process {
            child: spawn_server(binaries, cluster)?,
            cluster: cluster.clone(),
        })
    }

    async fn shut_down(mut self) -> Result<(), HubError> {
        for (signal, patience) in [(Signal::INT, STOP_TIMEOUT), (Signal::QUIT, STOP_TIMEOUT)] {
            self.signal(signal);
            if timeout(patience, self.child.wait()).await.is_ok() {
                return Ok(());
            }
        }
        self.child.kill().await.map_err(|error| HubError::Postgres {
            attempt: "stop Postgres".to_owned(),
            reason: error.to_string(),
            log: tail(&self.cluster.log),
        })
    }

    fn signal(&self, signal: Signal) {
        // `id` is absent once the process has been waited for: no other process can be hit.
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()))
            && let Err(error) = kill_process(pid, signal)
        {
            tracing::debug!(%error, "Postgres could not be signalled");
        }
    }

    async fn wait_until_it_answers(&mut self) -> Result<(), HubError> {
        let deadline = Instant::now() + START_TIMEOUT;
        let fault = |reason: String, cluster: &Cluster| HubError::Postgres {
            attempt: format!("start Postgres in {}", cluster.pgdata.display()),
            reason,
            log: tail(&cluster.log),
        };
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(fault(format!("it ended at once ({status})"), &self.cluster));
            }
            match config(&self.cluster, SUPERUSER)
                .connect(tokio_postgres::NoTls)
                .await
            {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => {
                    let waited = START_TIMEOUT.as_secs();
                    return Err(fault(
                        format!("it did not answer within {waited} s ({error})"),
                        &self.cluster,
                    ));
                }
                Err(_) => sleep(LOOK_AGAIN).await,
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::INT);
    }
}

fn config(cluster: &Cluster, role: &str) -> tokio_postgres::Config {
    config_at(&cluster.socket_dir, role)
}

/// How a role connects to the Postgres behind a private socket.
pub(crate) fn config_at(socket_dir: &Path, role: &str) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config
        .host_path(socket_dir)
        .user(role)
        .dbname(DATABASE)
        .ssl_mode(tokio_postgres::config::SslMode::Disable)
        .application_name("semo-hub")
        .connect_timeout(Duration::from_secs(5));
    config
}

/// A command that runs as the unprivileged user where the hub is root, with nothing of our environment.
#[allow(
    clippy::disallowed_methods,
    reason = "the hub may start Postgres's own programs"
)]
fn command(program: &Path, cluster: &Cluster) -> Result<Command, HubError> {
    let folder_fault = |source| HubError::Folder {
        attempt: "write the Postgres log",
        path: cluster.log.clone(),
        source,
    };
    let too_long = fs::metadata(&cluster.log).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX);
    if too_long {
        fs::remove_file(&cluster.log).map_err(folder_fault)?;
    }
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&cluster.log)
        .map_err(folder_fault)?;
    let second = log.try_clone().map_err(folder_fault)?;
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(second)
        .process_group(0);
    if let Some(user) = cluster.run_as {
        command.uid(user.uid).gid(user.gid);
    }
    Ok(command)
}

async fn initdb(binaries: &Binaries, cluster: &Cluster) -> Result<(), HubError> {
    let attempt = || format!("create the database cluster in {}", cluster.pgdata.display());
    let fault = |reason| HubError::Postgres {
        attempt: attempt(),
        reason,
        log: tail(&cluster.log),
    };
    let mut command = command(&binaries.initdb, cluster)?;
    command
        .arg("--pgdata")
        .arg(&cluster.pgdata)
        .args(["--username", SUPERUSER, "--encoding", "UTF8", "--no-locale"])
        .args(["--auth-local", "trust", "--auth-host", "reject"])
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| fault(error.to_string()))?;
    match timeout(INITDB_TIMEOUT, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(fault(format!("initdb ended with {status}"))),
        Ok(Err(error)) => Err(fault(error.to_string())),
        Err(_) => Err(fault(format!(
            "initdb took longer than {} s",
            INITDB_TIMEOUT.as_secs()
        ))),
    }
}

fn spawn_server(binaries: &Binaries, cluster: &Cluster) -> Result<Child, HubError> {
    let mut command = command(&binaries.postgres, cluster)?;
    command
        .arg("-D")
        .arg(&cluster.pgdata)
        .arg("-k")
        .arg(&cluster.socket_dir);
    for setting in [
        "listen_addresses=",
        "unix_socket_permissions=0700",
        "port=5432",
        "max_connections=60",
        "shared_buffers=64MB",
        "fsync=on",
        "wal_level=logical",
        "max_wal_senders=4",
        "logging_collector=off",
        // Without the errors of clients: they are answered, may hold their data, and would fill the disk.
        "log_min_messages=log",
        "timezone=UTC",
        "jit=off",
        "cluster_name=semo-hub",
    ] {
        command.arg("-c").arg(setting);
    }
    command.spawn().map_err(|error| HubError::Postgres {
        attempt: format!("start {}", binaries.postgres.display()),
        reason: error.to_string(),
        log: String::new(),
    })
}

/// Ends the server of a hub that was killed. We hold the folder's lock, so nobody else can be using it.
async fn end_left_over(cluster: &Cluster) -> Result<(), HubError> {
    let Some(pid) = left_over(cluster) else {
        return Ok(());
    };
    tracing::info!(
        pid = pid.as_raw_nonzero().get(),
        "ending the Postgres of a hub that did not stop in order"
    );
    for signal in [Signal::INT, Signal::QUIT] {
        if kill_process(pid, signal).is_err() {
            return Ok(());
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if test_kill_process(pid).is_err() || left_over(cluster).is_none() {
                return Ok(());
            }
            sleep(LOOK_AGAIN).await;
        }
    }
    Err(HubError::Postgres {
        attempt: format!("end the Postgres left over in {}", cluster.pgdata.display()),
        reason: format!("process {} does not stop; end it by hand", pid.as_raw_nonzero()),
        log: tail(&cluster.log),
    })
}

/// The server of this very cluster that `postmaster.pid` names, if it is alive.
fn left_over(cluster: &Cluster) -> Option<Pid> {
    match named(&cluster.pgdata.join("postmaster.pid"), cluster) {
        Named::Ours(pid) => Some(pid),
        Named::Nobody | Named::Other => None,
    }
}

/// Whose the process is that a lock file of Postgres names.
enum Named {
    /// No such process, or it cannot be told.
    Nobody,
    Ours(Pid),
    /// Alive and something else: the number was given again, after a restart of the machine or the container.
    Other,
}

fn named(note: &Path, cluster: &Cluster) -> Named {
    let read = || {
        let note = fs::read_to_string(note).ok()?;
        let pid = Pid::from_raw(note.lines().next()?.trim().parse().ok()?)?;
        test_kill_process(pid).ok()?;
        Some(pid)
    };
    let Some(pid) = read() else {
        return Named::Nobody;
    };
    match fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())) {
        Ok(line) => {
            let wanted = cluster.pgdata.as_os_str().as_encoded_bytes();
            if line.split(|byte| *byte == 0).any(|word| word == wanted) {
                Named::Ours(pid)
            } else {
                Named::Other
            }
        }
        Err(_) if Path::new("/proc/self").exists() => Named::Nobody,
        // No /proc (macOS): the note lies in a 0700 folder that only our server writes.
        Err(_) => Named::Ours(pid),
    }
}

/// Removes lock files that name somebody else's process: Postgres would wait for that one to end, for ever. We hold
/// the folder's lock. A note that names nobody stays: by it Postgres finds what its own killed server left behind.
fn forget_foreign_notes(cluster: &Cluster) -> Result<(), HubError> {
    for note in [
        cluster.pgdata.join("postmaster.pid"),
        cluster.socket_dir.join(SOCKET_LOCK),
    ] {
        if matches!(named(&note, cluster), Named::Other) {
            tracing::warn!(file = %note.display(), "the lock file names a process that is not this Postgres");
            fs::remove_file(&note).map_err(|source| HubError::Folder {
                attempt: "remove the old lock file",
                path: note,
                source,
            })?;
        }
    }
    Ok(())
}

fn tail(log: &Path) -> String {
    let text = fs::read(log)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let start = text.len().saturating_sub(LOG_TAIL);
    let start = (start..=text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(text.len());
    let end = text[start..].trim();
    if end.is_empty() {
        "(nothing)".to_owned()
    } else {
        end.replace('\n', " | ")
    }
}

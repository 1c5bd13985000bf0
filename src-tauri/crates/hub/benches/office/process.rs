//! The hub as a process of its own: this very program, started again.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hub::{AuthLimits, Hub, HubConfig, RealtimeSettings};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

/// The argument that makes this program a hub.
pub const MODE: &str = "--hub";
/// The password of every account.
pub const PASSWORD: &str = "correct horse battery staple";

/// The address of an account.
pub fn email(number: usize) -> String {
    format!("member-{number}@example.test")
}

/// As many open files as the system allows: every client is one, here and at the hub.
pub fn raise_files() {
    let allowed = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: allowed.maximum,
        ..allowed
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

#[derive(Debug)]
struct SystemClock;

impl domain::Clock for SystemClock {
    fn now(&self) -> domain::Timestamp {
        let nanos = time::OffsetDateTime::now_utc().unix_timestamp_nanos();
        domain::Timestamp(i64::try_from(nanos / 1_000_000).unwrap())
    }
}

/// What a hub in `words[0]` with `words[1]` accounts does: says where it is, then serves until its standard input ends.
pub fn serve(words: &[String]) {
    let folder = PathBuf::from(&words[0]);
    let accounts: usize = words[1].parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut config = HubConfig::new(folder, listen, Arc::new(SystemClock));
        config.auth.limits = AuthLimits {
            sign_ins: u32::MAX,
            ..AuthLimits::default()
        };
        let hub = Hub::start(config).await.unwrap();
        hub.set_realtime(unlimited());
        for number in 0..accounts {
            hub.ensure_user(&email(number), PASSWORD).await.unwrap();
        }
        println!(
            "{}",
            json!({ "url": hub.url(), "key": hub.keys().publishable, "database": hub.database_url() })
        );
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        ended.await.unwrap().unwrap();
        hub.stop().await.unwrap();
    });
}

/// All clients have one address here, and nobody sends a heartbeat: the limits of both must not be what is measured.
fn unlimited() -> RealtimeSettings {
    const MANY: usize = 1_000_000;
    const OFTEN: u32 = 1_000_000;
    RealtimeSettings {
        sockets_max: MANY,
        sockets_per_network_max: MANY,
        sockets_per_user_max: MANY,
        handshakes_per_second: OFTEN,
        joins_per_second: OFTEN,
        messages_per_second: OFTEN,
        idle_max: Duration::from_secs(3600),
        channelless_max: Duration::from_secs(3600),
        channelless_crowded_max: Duration::from_secs(3600),
        ..RealtimeSettings::default()
    }
}

/// A hub that runs.
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    folder: Option<tempfile::TempDir>,
    pub url: String,
    pub key: String,
    pub database: String,
}

impl Process {
    /// Starts a hub with so many accounts.
    pub fn start(accounts: usize) -> Process {
        let folder = tempfile::tempdir().unwrap();
        // Postgres runs under another uid when we are root, and must be able to walk in.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Process::on(folder, accounts)
    }

    /// The same hub as a new process: what making accounts and signing in has cost is not in its memory. Tokens stay.
    pub fn restarted(mut self) -> Process {
        let folder = self.folder.take().unwrap();
        drop(self);
        Process::on(folder, 0)
    }

    fn on(folder: tempfile::TempDir, accounts: usize) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(MODE)
            .arg(folder.path().join("hub"))
            .arg(accounts.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let said: Value = serde_json::from_str(&line).expect("the hub says where it is");
        let text = |name: &str| said[name].as_str().unwrap().to_owned();
        Process {
            url: text("url"),
            key: text("key"),
            database: text("database"),
            child,
            input,
            folder: Some(folder),
        }
    }

    /// Memory of the hub without its Postgres, in KiB; 0 where the system does not say.
    pub fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number.and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The end of its input is its sign to end.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

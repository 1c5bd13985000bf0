//! A hub as a process of its own, which stories kill with all its Postgres and start again on the same folder and port.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use supabase::{AgentDraft, AgentRow, Auth, MemoryTokenStore, OfficeRow, Project, Rest};
use uuid::Uuid;

use crate::clock::SystemClock;
use crate::port;
use crate::processes::{built, kill, naming};
use crate::remote::{EMAIL, PASSWORD};
use crate::wait::{LONG, wait_for};

/// How long a hub may take to serve: its first start makes the database, one after a kill repairs it.
const START_WAIT: Duration = LONG;

/// A hub with one office, one owner and three agents.
pub struct HubProcess {
    folder: tempfile::TempDir,
    child: Child,
    /// Where it is, as long as it lives: `http://127.0.0.1:PORT`.
    pub url: String,
    /// Its publishable key.
    pub key: String,
    /// How its superuser connects to the database.
    pub database: String,
    /// REST as the owner.
    pub rest: Rest,
    /// The office.
    pub office: OfficeRow,
    /// Its agents: FE, BE, QA.
    pub agents: Vec<AgentRow>,
}

impl HubProcess {
    /// Starts a hub on a port that it can have again, and makes the office.
    pub async fn start() -> HubProcess {
        let folder = tempfile::tempdir().expect("a folder for the hub");
        // Postgres runs under another uid when we are root, and must be able to walk in.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("permissions");
        let (child, said) = spawn(folder.path(), &port::take().to_string()).await;
        let text = |name: &str| said[name].as_str().expect("what it said").to_owned();
        let (url, key) = (text("url"), text("key"));
        let project = Project::new(&url, &key).expect("a project");
        let store = Arc::new(MemoryTokenStore::default());
        let auth = Auth::new(project.clone(), Arc::new(SystemClock), store).expect("auth");
        auth.sign_in(EMAIL, PASSWORD).await.expect("the sign-in");
        let rest = Rest::new(project, auth);
        let office = rest.create_office("Team").await.expect("an office");
        let mut agents = Vec::new();
        for (role, name) in [("FE", "Mina"), ("BE", "Joon"), ("QA", "Sora")] {
            let draft = AgentDraft {
                agent: Uuid::new_v4().into(),
                role: role.to_owned(),
                name: name.to_owned(),
                prompt: "You do as you are told.".to_owned(),
                scope_patterns: Vec::new(),
                core_skills: Vec::new(),
            };
            agents.push(rest.upsert_agent(office.id, &draft).await.expect("an agent"));
        }
        HubProcess {
            database: text("database"),
            folder,
            child,
            url,
            key,
            rest,
            office,
            agents,
        }
    }

    /// Kills the hub itself as `kill -9` does; its Postgres stays.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it has ended");
    }

    /// Kills its Postgres, every process of it, and gives back how many there were: none while it is started again.
    pub fn kill_postgres(&self) -> usize {
        let found = naming(self.folder.path());
        let servers = found.iter().filter(|process| process.pid != self.child.id());
        servers.map(|process| kill(process.pid)).count()
    }

    /// Lets every lease run out now, as if the minute had passed that each is given for.
    pub async fn lapse_leases(&self) {
        let connected = tokio_postgres::connect(&self.database, tokio_postgres::NoTls).await;
        let (client, connection) = connected.expect("the database");
        let connection = tokio::spawn(connection);
        let lapsed =
            "update public.agent_commands set lease_until = clock_timestamp() where state = 'leased'";
        client.batch_execute(lapsed).await.expect("an update");
        drop(client);
        let _ = connection.await;
    }

    /// Starts it again where it was.
    pub async fn start_again(&mut self) {
        let port = self.url.rsplit(':').next().expect("a port").to_owned();
        (self.child, _) = spawn(self.folder.path(), &port).await;
    }

    /// Ends it in order.
    pub async fn stop(mut self) {
        self.terminate();
        wait_for("the end of the hub", LONG, || {
            let ended = self.child.try_wait().expect("its state");
            async move { ended }
        })
        .await;
    }

    fn terminate(&self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
    }
}

impl Drop for HubProcess {
    fn drop(&mut self) {
        // Of a story that failed; one that went well has ended it. Postgres ends with its postmaster.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        naming(self.folder.path())
            .into_iter()
            .for_each(|process| kill(process.pid));
    }
}

async fn spawn(folder: &Path, port: &str) -> (Child, Value) {
    let program: PathBuf = built("hub-alone");
    let said = folder.join("said");
    let out = std::fs::File::create(&said).expect("a file for its output");
    let errors = std::fs::File::create(folder.join("errors")).expect("a file for its errors");
    let mut child = Command::new(program)
        .arg(folder.join("hub"))
        .arg(port)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(errors)
        .spawn()
        .expect("the hub starts");
    let line = wait_for("the hub says where it is", START_WAIT, || {
        let ended = child.try_wait().expect("its state");
        let errors = std::fs::read_to_string(folder.join("errors")).unwrap_or_default();
        assert!(ended.is_none(), "the hub ended: {errors}");
        let text = std::fs::read_to_string(&said).unwrap_or_default();
        async move { serde_json::from_str(text.lines().next()?).ok() }
    })
    .await;
    (child, line)
}

//! A whole office on this machine, for stories: hub, client and local API in this process, the real `claude` program
//! with a home of its own, and a stand-in for the model.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cli::machine::{Core, StopHow};
use client::identity::Account;
use client::paths::Paths;
use client::settings::Settings;
use domain::{AgentId, CommandId, SessionId};
use serde_json::{Value, json};
use supabase::{
    AgentRow, Auth, CommandRow, MemoryTokenStore, NewCommand, OfficeRow, Project, Rest, ResultRow,
    ResultStatus,
};
use uuid::Uuid;

use crate::claude::{ClaudeHome, program};
use crate::clock::{ShiftedClock, SystemClock};
use crate::guard::EndsLeft;
use crate::port;
use crate::stub::Stub;
use crate::wait::{LONG, wait_for};

/// How long a command may take in a story, on a busy machine.
pub const RESULT_WAIT: Duration = LONG;

/// Everything that runs, and a remote server's way in.
pub struct World {
    /// The process under test.
    pub core: Core,
    /// The model.
    pub stub: Stub,
    /// REST as a remote server has it: signed in, nothing else.
    pub rest: Rest,
    /// The office.
    pub office: OfficeRow,
    /// Its agents.
    pub agents: Vec<AgentRow>,
    /// Where the core keeps its data.
    pub paths: Paths,
    /// The client's time; the office has its own.
    pub clock: Arc<ShiftedClock>,
    surroundings: cli::world::World,
    // Before the folders go: what still runs in them is ended when a story fails.
    guard: EndsLeft,
    home: ClaudeHome,
    dir: tempfile::TempDir,
}

impl World {
    /// Starts an office with the sample repository.
    pub async fn start() -> World {
        World::start_with(|_| {}).await
    }

    /// Starts an office with settings of the story's.
    pub async fn start_with(change: impl FnOnce(&mut Settings)) -> World {
        let dir = tempfile::tempdir().expect("a folder for the story");
        // Postgres runs under another uid when we are root, and must be able to walk in.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("permissions");
        let stub = Stub::start().await.expect("the stub of the model");
        let home = ClaudeHome::new();
        let mut settings = Settings::default();
        settings.claude.program = Some(program());
        // Stories count sessions and share a small machine; those about warm ones switch them on.
        settings.limits.warm_max = 0;
        // What a test that is killed leaves behind ends by itself, as soon as the settings allow.
        settings.holder.alone_hours = 1;
        change(&mut settings);
        let clock = Arc::new(ShiftedClock::default());
        let world = cli::world::World {
            clock: clock.clone(),
            ..surroundings(dir.path(), &home, &stub.url(), settings)
        };
        port::remember(&world.paths.data_dir);
        let core = Core::start(&world)
            .await
            .unwrap_or_else(|failure| panic!("the core starts: {failure:?}"));
        let account =
            Account::read_or_make(&world.paths.local_account(), String::new()).expect("the account");
        let (rest, office) = door(core.project_url(), &publishable_key(&world.paths), &account).await;
        let agents = rest.agents(office.id).await.expect("the agents");
        World {
            guard: guard_of(&core, &world.paths, &home),
            core,
            stub,
            rest,
            office,
            agents,
            paths: world.paths.clone(),
            clock,
            surroundings: world,
            home,
            dir,
        }
    }

    /// Ends the core in this way, and starts it again on the same folders, as an update of the program does.
    pub async fn restarted(self, how: StopHow) -> World {
        self.core.stop(how).await;
        let core = Core::start(&self.surroundings)
            .await
            .unwrap_or_else(|failure| panic!("the core starts again: {failure:?}"));
        core.taken_up().await;
        let account = Account::read_or_make(&self.paths.local_account(), String::new()).expect("the account");
        let (rest, office) = door(core.project_url(), &publishable_key(&self.paths), &account).await;
        let mut guard = self.guard;
        guard.core_is(core.lever());
        World {
            guard,
            core,
            rest,
            office,
            stub: self.stub,
            agents: self.agents,
            paths: self.paths,
            clock: self.clock,
            surroundings: self.surroundings,
            home: self.home,
            dir: self.dir,
        }
    }

    /// The id of the agent with this role.
    pub fn agent(&self, role: &str) -> AgentId {
        self.agents
            .iter()
            .find(|agent| agent.role == role)
            .unwrap_or_else(|| panic!("an agent {role}"))
            .id
    }

    /// Enqueues any command, as a remote server would.
    pub async fn enqueue(
        &self,
        kind: &str,
        args: Value,
        agent: Option<AgentId>,
        session: Option<SessionId>,
    ) -> CommandId {
        let key = Uuid::new_v4().to_string();
        let command = NewCommand {
            office: self.office.id,
            kind: kind.to_owned(),
            args,
            key,
            agent,
            session,
        };
        self.rest
            .enqueue_command(&command)
            .await
            .expect("the command is taken")
            .id
    }

    /// Enqueues a prompt for the agent with this role.
    pub async fn send(&self, role: &str, prompt: &str) -> CommandId {
        self.enqueue(
            "send_prompt",
            json!({ "prompt": prompt }),
            Some(self.agent(role)),
            None,
        )
        .await
    }

    /// Waits for the end of a command and returns its row and its final result.
    pub async fn result(&self, id: CommandId) -> (CommandRow, ResultRow) {
        result_of(&self.rest, id).await
    }

    /// Starts a session and returns its id.
    pub async fn session(&self, role: &str) -> SessionId {
        let id = self
            .enqueue("create_session", json!({}), Some(self.agent(role)), None)
            .await;
        let (_, result) = self.result(id).await;
        let session = result
            .output
            .as_ref()
            .and_then(|output| output["session_id"].as_str())
            .map(str::parse);
        session
            .unwrap_or_else(|| panic!("a session: {result:?}"))
            .expect("its id")
    }

    /// One call of the local API, as a window makes it.
    pub async fn call(&self, method: &str, body: Value) -> (u16, Value) {
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("an HTTP client");
        let answer = http
            .post(format!("{}/api/v1/rpc/{method}", self.core.api_url()))
            .bearer_auth(self.core.token())
            .json(&body)
            .send()
            .await
            .expect("an answer");
        (
            answer.status().as_u16(),
            answer.json().await.unwrap_or(Value::Null),
        )
    }

    /// The state as windows see it.
    pub async fn state(&self) -> Value {
        state_of(&self.core).await
    }

    /// Where the agents' programs keep transcripts and status files.
    pub fn config_dir(&self) -> PathBuf {
        self.home.config_dir()
    }

    /// The repository that sessions work in.
    pub fn repository(&self) -> PathBuf {
        self.paths.sample_repository()
    }

    /// Ends everything in order.
    pub async fn stop(self) {
        self.core.stop(StopHow::Now).await;
        self.stub.stop().await;
        let left = self.guard.left();
        assert!(left.is_empty(), "the core has ended and left behind: {left:?}");
        drop(self.home);
        drop(self.dir);
    }
}

fn guard_of(core: &Core, paths: &Paths, home: &ClaudeHome) -> EndsLeft {
    EndsLeft::of_core(&paths.holders(), home.path(), core.lever())
}

/// Surroundings as the program would take them from its process.
pub fn surroundings(dir: &Path, home: &ClaudeHome, model_url: &str, settings: Settings) -> cli::world::World {
    let environment: BTreeMap<String, String> = home.env(model_url).into_iter().collect();
    let paths = Paths::choose(Some(dir.join("config")), Some(dir.join("data"))).expect("folders");
    cli::world::World {
        environment,
        paths,
        settings,
        clock: Arc::new(SystemClock),
    }
}

/// The state of a core as windows see it.
pub async fn state_of(core: &Core) -> Value {
    let http = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("an HTTP client");
    let answer = http
        .get(format!("{}/api/v1/state", core.api_url()))
        .bearer_auth(core.token())
        .send()
        .await;
    answer.expect("an answer").json().await.expect("a state")
}

/// Waits until the core tells of a problem with this code, and returns it.
pub async fn problem_of(core: &Core, code: &str) -> Value {
    wait_for(&format!("the problem {code}"), LONG, || async {
        let state = state_of(core).await;
        state["problems"]
            .as_array()?
            .iter()
            .find(|problem| problem["code"] == code)
            .cloned()
    })
    .await
}

/// Waits for the end of a command and returns its row and its final result.
pub async fn result_of(rest: &Rest, id: CommandId) -> (CommandRow, ResultRow) {
    wait_for(&format!("the end of command {id}"), RESULT_WAIT, || async {
        let row = rest.command(id).await.ok().flatten()?;
        if !row.state.is_final() {
            // A look every 10 ms would be most of what the machine does.
            tokio::time::sleep(Duration::from_millis(50)).await;
            return None;
        }
        let results = rest.results(&[id]).await.ok()?;
        let passing = |row: &ResultRow| matches!(row.status, ResultStatus::Late | ResultStatus::Progress);
        let result = results.into_iter().find(|row| !passing(row))?;
        Some((row, result))
    })
    .await
}

/// The key that the running core tells other programs of the user.
fn publishable_key(paths: &Paths) -> String {
    let text = std::fs::read(paths.running()).expect("the core tells where it is");
    let running: Value = serde_json::from_slice(&text).expect("JSON");
    running["publishable_key"].as_str().expect("a key").to_owned()
}

async fn door(url: &str, key: &str, account: &Account) -> (Rest, OfficeRow) {
    let project = Project::new(url, key).expect("a project");
    let auth = Auth::new(
        project.clone(),
        Arc::new(SystemClock),
        Arc::new(MemoryTokenStore::default()),
    )
    .expect("auth");
    auth.sign_in(&account.email, account.password.as_deref().unwrap_or_default())
        .await
        .expect("the sign-in");
    let rest = Rest::new(project, auth);
    let office = wait_for("the first office with its agents", LONG, || async {
        let office = rest.offices().await.ok()?.into_iter().next()?;
        (rest.agents(office.id).await.ok()?.len() == 3).then_some(office)
    })
    .await;
    (rest, office)
}

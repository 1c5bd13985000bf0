//! A workstation as a process, on a data folder that outlives it, and the work it is given: each job says what is to
//! come of it, and leaves its marks in a file by which one can tell what really happened.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use domain::{AgentId, CommandId, SessionId};
use serde_json::{Value, json};
use supabase::{CommandRow, NewCommand, Rest};
use uuid::Uuid;

use crate::hub_process::HubProcess;
use crate::processes::{built, of_folder};
use crate::program::{Place, Up};
use crate::remote::{EMAIL, PASSWORD};
use crate::wait::{LONG, wait_for, wait_until};

/// How long work may take to end, with a crash in between, on a busy machine.
pub const SETTLE_WAIT: Duration = Duration::from_secs(180);
/// How long the office may be away for whoever asks it.
const ASK_WAIT: Duration = LONG;
/// Between two looks at a command.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a job is to end as, when nothing comes between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Done, with the mark.
    Done,
    /// Ended without the mark.
    Unconfirmed,
    /// Failed, with an error of the model's.
    Failed,
    /// Given up; the job itself would never end.
    Cancelled,
}

/// Work that the office was given.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its command.
    pub id: CommandId,
    /// What its marks bear.
    pub tag: String,
    /// What is to come of it.
    pub wanted: Wanted,
    /// Whether somebody may end its session meanwhile, which cancels it.
    pub session_may_end: bool,
}

/// A workstation of an office.
pub struct Station {
    /// Its folders.
    pub place: Place,
    marks: PathBuf,
}

impl Station {
    /// A workstation of the office at `url`, whose agents are scripted.
    pub async fn new(url: &str, key: &str) -> Station {
        let mut place = Place::new("http://127.0.0.1:9");
        let agent = built("scripted-agent").display().to_string();
        let sample = place.dir.path().join("sample");
        worktree::sample_repository(&sample).await.expect("a repository");
        let config = place.dir.path().join("config");
        std::fs::create_dir_all(&config).expect("a folder");
        let settings = format!("[repositories]\nsample = {:?}\n", sample.display().to_string());
        std::fs::write(config.join("settings.toml"), settings).expect("settings");
        for (name, value) in [
            ("SEMO_PROFILE", "supabase"),
            ("SEMO_SUPABASE_URL", url),
            ("SEMO_SUPABASE_KEY", key),
            ("SEMO_EMAIL", EMAIL),
            ("SEMO_PASSWORD", PASSWORD),
            ("SEMO_CLAUDE", &agent),
            ("SEMO_SESSIONS_MAX", "2"),
            ("SEMO_LOG", "info,client=debug,session=debug,terminal=debug"),
        ] {
            place.set(name, value);
        }
        let marks = place.dir.path().join("marks");
        Station { place, marks }
    }

    /// The programs that are started from now on die or stand still at these steps (see `terminal::failpoints`).
    pub fn arm(&mut self, steps: &str) {
        let told = self.told().display().to_string();
        let _ = std::fs::remove_file(self.told());
        self.place.set("SEMO_FAILPOINTS", steps);
        self.place.set("SEMO_FAILPOINTS_TOLD", &told);
    }

    /// The steps at which programs have died since they were armed.
    pub fn died_at(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.told()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn told(&self) -> PathBuf {
        self.place.dir.path().join("died-at")
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.place.dir.path().join("data")
    }

    /// Keeps its log where it outlives the story, and says where, for whoever has to find out.
    pub fn keep_log(&self) -> String {
        let name = self
            .place
            .dir
            .path()
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let kept = std::env::temp_dir().join(format!("semo-story{name}.log"));
        match std::fs::copy(self.data().join("semo.log"), &kept) {
            Ok(_) => kept.display().to_string(),
            Err(error) => format!("none ({error})"),
        }
    }

    /// The prompt of a job: it marks its beginning, does `more`, takes `ms`, and marks its end.
    fn prompt(&self, tag: &str, wanted: Wanted, ms: u64, more: &str) -> String {
        let mark = |word: &str| format!("do=tool:echo+{word}-{tag}+>>+{}", self.marks.display());
        let end = match wanted {
            Wanted::Done => String::new(),
            Wanted::Unconfirmed => "do=nomark".to_owned(),
            Wanted::Failed => "do=fail:overloaded".to_owned(),
            // Esc ends it.
            Wanted::Cancelled => "do=slow:600000".to_owned(),
        };
        format!(
            "Job {tag}. {} {more} do=slow:{ms} {end} {}",
            mark("begin"),
            mark("end")
        )
    }

    /// Gives the office a job for the agent, or for the session; tries again while the office is away.
    pub async fn send(&self, office: &Door<'_>, wanted: Wanted, ms: u64, session: Option<SessionId>) -> Job {
        self.send_with(office, wanted, ms, session, "").await
    }

    /// The same with more words of the scripted agent's.
    pub async fn send_with(
        &self,
        office: &Door<'_>,
        wanted: Wanted,
        ms: u64,
        session: Option<SessionId>,
        more: &str,
    ) -> Job {
        let tag = Uuid::new_v4().simple().to_string()[..12].to_owned();
        let mut args = json!({ "prompt": self.prompt(&tag, wanted, ms, more) });
        if let Some(session) = session {
            args["session"] = json!(session);
        }
        let agent = session.is_none().then_some(office.agent);
        let id = office.enqueue("send_prompt", args, agent, session).await;
        Job {
            id,
            tag,
            wanted,
            session_may_end: false,
        }
    }

    /// How often each mark was made: what the agents really did.
    pub fn marks(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.marks).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until the core has died by itself.
    pub async fn died(&self, up: &Up, what: &str) {
        let alive = Path::new("/proc").join(up.pid().to_string());
        wait_until(&format!("the core dies at {what}"), ASK_WAIT, || async {
            let stat = std::fs::read_to_string(alive.join("stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        })
        .await;
    }

    /// Ends core, sessions and holders, and waits until nothing of this folder lives.
    pub async fn down(&self) -> Output {
        let ended = self.place.run(&["down", "--now"]).await;
        wait_until(
            &format!("nothing of {} lives", self.place.dir.path().display()),
            LONG,
            || async { of_folder(self.place.dir.path()).is_empty() },
        )
        .await;
        ended
    }
}

/// A remote server's way into the office.
#[derive(Debug, Clone, Copy)]
pub struct Door<'a> {
    /// REST, signed in.
    pub rest: &'a Rest,
    /// The office.
    pub office: domain::OfficeId,
    /// Who does the work.
    pub agent: AgentId,
}

impl<'a> Door<'a> {
    /// The door of this hub's office, to its first agent.
    pub fn of(hub: &'a HubProcess) -> Door<'a> {
        Door {
            rest: &hub.rest,
            office: hub.office.id,
            agent: hub.agents[0].id,
        }
    }

    /// The same to another agent.
    pub fn to(self, agent: AgentId) -> Door<'a> {
        Door { agent, ..self }
    }

    /// Puts a command into the office; under the same key again while it is away.
    pub async fn enqueue(
        &self,
        kind: &str,
        args: Value,
        agent: Option<AgentId>,
        session: Option<SessionId>,
    ) -> CommandId {
        let command = NewCommand {
            office: self.office,
            kind: kind.to_owned(),
            args,
            key: Uuid::new_v4().to_string(),
            agent,
            session,
        };
        wait_for(&format!("the office takes {kind}"), ASK_WAIT, || async {
            let taken = self.rest.enqueue_command(&command).await;
            Some(taken.ok()?.id)
        })
        .await
    }

    /// Starts a session and returns its id.
    pub async fn session(&self) -> SessionId {
        let id = self
            .enqueue("create_session", json!({}), Some(self.agent), None)
            .await;
        self.settled(id).await;
        let results = self.rest.results(&[id]).await.expect("its result");
        let made = results
            .iter()
            .find_map(|row| row.output.as_ref()?["session_id"].as_str()?.parse().ok());
        made.unwrap_or_else(|| panic!("a session: {results:?}"))
    }

    /// Asks for the end of a command.
    pub async fn cancel(&self, id: CommandId) {
        wait_for("the office takes the cancellation", ASK_WAIT, || async {
            self.rest.cancel_command(id).await.ok()
        })
        .await;
    }

    /// Waits until the command has come to its end.
    pub async fn settled(&self, id: CommandId) -> CommandRow {
        wait_for(&format!("the end of command {id}"), SETTLE_WAIT, || async {
            tokio::time::sleep(LOOK_EVERY).await;
            let row = self.rest.command(id).await.ok().flatten()?;
            row.state.is_final().then_some(row)
        })
        .await
    }
}

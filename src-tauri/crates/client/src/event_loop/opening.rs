//! Starting a session: the agent program is found, a worktree made, the persona written, then the program started.

use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::fault::chain;
use domain::session::SessionState;
use domain::{AgentId, CommandId, SessionId};
use journal::SessionRow;
use provider::claude::{self, ClaudeLaunch, HookEndpoint, PermissionMode, SignIn};
use provider::scripted;
use session::{Session, SessionNote, SessionSpec, StartMode};
use supabase::AgentRow;
use terminal::Size;
use tokio::time::Instant;
use uuid::Uuid;
use worktree::{Repository, Worktree, WorktreeSpec, persona_hash};

use super::detail::Detail;
use super::ending::{After, Left, remove_start_files};
use super::finish::End;
use super::seats::{Live, title_of};
use super::{Event, EventLoop};
use crate::view::Problem;

/// A session that has not shown its prompt by then is given up (a cold start takes about a second, six at once about
/// five; this is for slow disks).
pub(super) const START_DEADLINE: Duration = Duration::from_secs(90);
/// Bytes that the record of a conversation in which nothing was answered can have at most: what `/clear` itself writes is
/// a few kilobytes.
const EMPTY_CONVERSATION_MAX: u64 = 256 * 1024;
/// Size of a terminal nobody looks at.
const FIRST_SIZE: Size = Size { cols: 120, rows: 40 };
/// Where an agent's instructions go, in this order of preference; the program reads both.
pub(super) const PERSONA_FILES: &[&str] = &[".claude/CLAUDE.md", "CLAUDE.local.md"];

/// The agent program as it was found.
pub(crate) struct FoundProgram {
    program: PathBuf,
    version: provider::Version,
    sign_in: SignIn,
}

/// A started session.
pub(crate) struct Opened {
    session: Session,
    worktree: Worktree,
}

/// Why a session was not started.
pub(crate) struct OpenFault {
    class: &'static str,
    pub(super) message: String,
}

/// What starting needs; taken along by the task.
pub(super) struct Opening {
    site: Site,
    persona: String,
    session: SessionSpec,
    row: SessionRow,
    journal: std::sync::Arc<journal::Journal>,
    tasks: tokio_util::task::TaskTracker,
    notes: tokio::sync::mpsc::Sender<SessionNote>,
}

/// Where a session is started.
enum Site {
    /// In a worktree that is made for it.
    New { repository: PathBuf, spec: WorktreeSpec },
    /// In the worktree that it has.
    Same(Worktree),
}

impl EventLoop {
    /// Looks for the agent program, so that its absence is told before anybody needs it.
    pub(super) fn check_program(&mut self) {
        let path = self.environment("PATH");
        let (setting, environment) = (
            self.ground.settings.claude.program.clone(),
            self.ground.environment.clone(),
        );
        self.start(async move {
            let missing = |error: &dyn std::error::Error| Problem {
                code: "claude_missing".to_owned(),
                message: chain(error),
                hint: "Then choose Refresh, or start again.".to_owned(),
            };
            let program = match claude::find_program(&path, setting.as_deref()) {
                Ok(program) => program,
                Err(error) => return Event::ProgramChecked(Err(missing(&error))),
            };
            match claude::version(&program, &environment).await {
                Ok(version) => {
                    let sign_in = claude::sign_in(&program, &environment).await;
                    tracing::info!(program = %program.display(), %version, ?sign_in, "found the agent program");
                    Event::ProgramChecked(Ok(FoundProgram {
                        program,
                        version,
                        sign_in,
                    }))
                }
                Err(error) => Event::ProgramChecked(Err(missing(&error))),
            }
        });
    }

    pub(super) fn program_checked(&mut self, result: Result<FoundProgram, Problem>) {
        match result {
            Ok(found) => {
                self.program = Some(found.program);
                self.detectors.version_found(found.version);
                self.solved("claude_missing");
                match found.sign_in {
                    // Work is begun all the same: only a session really knows.
                    SignIn::No => self.signed_out("nobody is signed in to it on this machine"),
                    SignIn::Yes { .. } => self.solved("claude_signed_out"),
                    SignIn::Unknown => {}
                }
                self.advance_line();
            }
            Err(problem) => self.problem("claude_missing", problem.message, problem.hint),
        }
        if !std::mem::replace(&mut self.program_looked_for, true) {
            self.resume_those_that_wait();
            self.go_on_with_what_is_ours();
            self.claim("the agent program was looked for");
        }
    }

    /// Tells that the agent program's user has to sign in.
    pub(super) fn signed_out(&mut self, why: &str) {
        self.problem(
            "claude_signed_out",
            format!("Claude Code cannot work: {why}"),
            claude::SIGN_IN_STEPS,
        );
    }

    fn environment(&self, name: &str) -> String {
        let found = self.ground.environment.iter().rev().find(|(its, _)| its == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// Starts a session for `agent`, for the command that waits for it.
    pub(super) fn start_session(
        &mut self,
        holder: Option<CommandId>,
        agent: AgentId,
        repository: Option<&str>,
        base: Option<String>,
    ) {
        match self.plan_session(agent, repository, base) {
            Ok((live, opening)) => self.open(Live { holder, ..live }, opening),
            Err(fault) => {
                if let Some(holder) = holder {
                    self.end(holder, End::failed(fault.class, fault.message));
                }
            }
        }
    }

    /// Starts a session for `agent` ahead of need.
    pub(super) fn start_warm(&mut self, agent: AgentId) {
        match self.plan_session(agent, None, None) {
            Ok((live, opening)) => {
                let live = Live {
                    warm: true,
                    ahead: true,
                    ..live
                };
                self.open(live, opening)
            }
            Err(fault) => self.warm_start_failed(&fault.message),
        }
    }

    fn open(&mut self, live: Live, opening: Opening) {
        let (id, holder) = (opening.session.id, live.holder);
        let row = SessionRow {
            detail: live.detail().value(),
            ..opening.row
        };
        let opening = Opening { row, ..opening };
        self.directory.expect(id, live.secret.clone());
        tracing::info!(session = %id, title = %live.title, warm = live.warm, "starting a session");
        self.sessions.insert(id, live);
        if let Some(holder) = holder {
            self.wait_for_start(holder, id);
        }
        self.changed = true;
        self.start(async move {
            Event::Opened {
                session: id,
                result: opening.run().await,
            }
        });
    }

    /// The agent with this id, in the office that is served.
    pub(super) fn agent_row(&self, agent: AgentId) -> Option<&AgentRow> {
        let data = self.office.as_ref()?;
        data.rows.agents.iter().find(|row| row.id == agent)
    }

    /// Whether this workstation knows how to start this agent's program.
    pub(super) fn can_start(&self, agent: &AgentRow) -> bool {
        self.program_of(agent).is_ok()
    }

    fn agent_to_start(&self, agent: AgentId) -> Result<&AgentRow, OpenFault> {
        if self.office.is_none() {
            return Err(fault("not_ready", "no office is joined".to_owned()));
        }
        let missing = || fault("not_found", format!("the office has no agent {agent}"));
        self.agent_row(agent).ok_or_else(missing)
    }

    fn plan_session(
        &self,
        agent: AgentId,
        repository: Option<&str>,
        base: Option<String>,
    ) -> Result<(Live, Opening), OpenFault> {
        let id = SessionId(Uuid::new_v4());
        let agent = self.agent_to_start(agent)?;
        let (repository, path) = self.repository(repository)?;
        let name = format!("{}-{}", file_name(&agent.role), id.short());
        let spec = WorktreeSpec {
            root: self.ground.paths.worktrees().join(agent.office_id.short()),
            branch: format!("semo/{name}"),
            name,
            base,
        };
        let live = Live {
            version: self.detectors.version(),
            ..Live::starting(
                agent,
                &spec,
                repository,
                new_secret(),
                self.now(),
                Instant::now() + START_DEADLINE,
            )
        };
        let row = live.row(id, spec.base.clone());
        let site = Site::New {
            repository: path,
            spec,
        };
        let opening = self.opening(&live, agent, row, site, StartMode::New)?;
        Ok((live, opening))
    }

    /// What starting the program of a session again needs: in the same worktree, with the agent's persona of now.
    pub(super) fn plan_restart(&mut self, id: SessionId, mode: StartMode) -> Result<Opening, OpenFault> {
        let gone = || fault("not_found", format!("session {id} has no worktree any more"));
        let live = self.sessions.get(&id).ok_or_else(gone)?;
        let site = Site::Same(live.place.clone().ok_or_else(gone)?);
        let agent = self.agent_to_start(live.agent)?.clone();
        let row = live.row(id, None);
        let live = self.sessions.get_mut(&id).ok_or_else(gone)?;
        live.persona_hash = persona_hash(&agent.persona().render());
        live.title = title_of(&agent);
        live.secret = new_secret();
        live.version = self.detectors.version();
        live.stale = false;
        live.was_ready = false;
        live.unchecked = true;
        live.start_deadline = Some(Instant::now() + START_DEADLINE);
        self.directory.expect(id, live.secret.clone());
        let live = self.sessions.get(&id).ok_or_else(gone)?;
        let opening = self.opening(live, &agent, row, site, mode)?;
        if let Some(live) = self.sessions.get_mut(&id) {
            live.resumed = opening.session.start == StartMode::Resume;
        }
        Ok(opening)
    }

    fn opening(
        &self,
        live: &Live,
        agent: &AgentRow,
        row: SessionRow,
        site: Site,
        start: StartMode,
    ) -> Result<Opening, OpenFault> {
        let config_dir = claude::config_dir(&self.ground.environment).ok_or_else(|| {
            let message = "the environment has no HOME, so Claude Code's folder cannot be found";
            fault("not_ready", message.to_owned())
        })?;
        let (start, conversation) = conversation_of(start, row.id, live, &config_dir);
        let launch = self.launch(&agent.provider, self.program_of(agent)?, row.id, &live.secret);
        Ok(Opening {
            site,
            persona: agent.persona().render(),
            session: SessionSpec {
                start,
                conversation,
                ..self.session_spec(row.id, live, launch, config_dir)
            },
            row,
            journal: self.ground.journal.clone(),
            tasks: self.ground.tasks.clone(),
            notes: self.notes_in.clone(),
        })
    }

    fn session_spec(
        &self,
        id: SessionId,
        live: &Live,
        launch: ClaudeLaunch,
        config_dir: PathBuf,
    ) -> SessionSpec {
        SessionSpec {
            id,
            office: live.office,
            agent: live.agent,
            title: live.title.clone(),
            worktree: live.worktree.clone(),
            launch,
            size: FIRST_SIZE,
            config_dir,
            start: StartMode::New,
            conversation: live.conversation.unwrap_or(id),
            detector: self.detectors.reader_of(live.version),
            patterns: self.patterns.subscribe(),
            clock: self.ground.clock.clone(),
            holders: self.ground.holders.clone(),
            journal: self.ground.journal.clone(),
        }
    }

    /// What taking up a session of an earlier core needs. Its program runs: which one that is does not matter any more.
    pub(super) fn spec_of_left(&self, id: SessionId, live: &Live) -> SessionSpec {
        let settings = &self.ground.settings;
        let (program, name) = match live.provider.as_str() {
            scripted::PROVIDER => (&settings.scripted.program, scripted::PROVIDER),
            _ => (&settings.claude.program, "claude"),
        };
        let program = program.clone().unwrap_or_else(|| name.into());
        let launch = self.launch(&live.provider, program, id, &live.secret);
        let config_dir = claude::config_dir(&self.ground.environment).unwrap_or_default();
        SessionSpec {
            // Whether it takes up the conversation that it was started with shows when it is ready.
            start: match live.resumed && !live.was_ready {
                true => StartMode::Resume,
                false => StartMode::New,
            },
            ..self.session_spec(id, live, launch, config_dir)
        }
    }

    /// The program of an agent.
    fn program_of(&self, agent: &AgentRow) -> Result<PathBuf, OpenFault> {
        match agent.provider.as_str() {
            "claude" => self.program.clone().ok_or_else(|| self.no_program()),
            scripted::PROVIDER => self.ground.settings.scripted.program.clone().ok_or_else(|| {
                let message = format!("agent {} has no program; {}", agent.name, scripted::INSTALL_HINT);
                fault("invalid", message)
            }),
            other => {
                let message = format!(
                    "agent {} runs on `{other}`, which this version cannot start",
                    agent.name
                );
                Err(fault("invalid", message))
            }
        }
    }

    fn launch(&self, provider: &str, program: PathBuf, id: SessionId, secret: &str) -> ClaudeLaunch {
        let settings = &self.ground.settings;
        let launch = ClaudeLaunch {
            program: program.clone(),
            base_env: self.ground.environment.clone(),
            hooks: HookEndpoint {
                url: self.ground.hook_url.clone(),
                secret: secret.to_owned(),
            },
            runtime_dir: self.ground.paths.session(id),
            permission_mode: PermissionMode::AsConfigured,
            extra_args: settings.claude.args.clone(),
        };
        match provider {
            scripted::PROVIDER => scripted::launch(program, settings.scripted.args.clone(), &launch),
            _ => launch,
        }
    }

    fn no_program(&self) -> OpenFault {
        let message = self.problems.get("claude_missing").map_or_else(
            || format!("Claude Code was not found; {}", claude::INSTALL_HINT),
            |problem| problem.message.clone(),
        );
        OpenFault {
            class: "claude_missing",
            message,
        }
    }

    fn repository(&self, wanted: Option<&str>) -> Result<(String, PathBuf), OpenFault> {
        let repositories = &self.ground.settings.repositories;
        let found = match wanted {
            Some(name) => repositories.get_key_value(name),
            None => repositories.first_key_value(),
        };
        found
            .map(|(name, path)| (name.clone(), path.clone()))
            .ok_or_else(|| OpenFault {
                class: "repository",
                message: match wanted {
                    Some(name) => {
                        format!("this workstation has no repository `{name}` (setting repositories.{name})")
                    }
                    None => "this workstation has no repository (section [repositories] of the settings)"
                        .to_owned(),
                },
            })
    }

    pub(super) fn opened(&mut self, id: SessionId, result: Result<Opened, OpenFault>) {
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        match result {
            Ok(opened) => {
                self.directory.add(opened.session.clone(), live.secret.clone());
                // Its row is in the journal.
                live.kept = Some(Detail::default());
                live.branch = opened.worktree.branch.clone();
                live.worktree = opened.worktree.path.clone();
                live.place = Some(opened.worktree);
                live.session = Some(opened.session);
                let (unwanted, idle) = (live.ending, live.state == SessionState::Idle);
                self.tell_office(id);
                if unwanted {
                    self.end_process(id, After::ClearAway);
                } else if idle {
                    // It was quicker than this news of its start.
                    self.session_is_idle(id);
                }
            }
            Err(fault) => self.not_opened(id, fault),
        }
    }

    fn not_opened(&mut self, id: SessionId, fault: OpenFault) {
        tracing::warn!(session = %id, message = %fault.message, "a session was not started");
        let Some(live) = self.sessions.get(&id) else {
            return;
        };
        let (agent, warm, again) = (live.agent, live.warm, live.place.is_some());
        if again && live.ending {
            // Its end is what was asked for.
            return self.clear_place(id);
        }
        if fault.class == "agent_program" {
            self.count_failure(agent, &fault.message);
        }
        if warm {
            self.warm_start_failed(&fault.message);
        }
        if warm {
            let because = format!(
                "the session that was to stand ready did not start: {}",
                fault.message
            );
            self.put_back_in_line(id, &because);
        }
        if again {
            // Its worktree holds its work: that is looked after as at every end.
            return self.lose(id, &fault.message);
        }
        self.directory.remove(id);
        self.sessions.remove(&id);
        self.release_terminators(id, &Left::Nothing);
        for command in self.waiting_for_start(id) {
            self.end(command, End::failed(fault.class, fault.message.clone()));
        }
        self.advance_line();
    }
}

impl Opening {
    pub(super) async fn run(self) -> Result<Opened, OpenFault> {
        // First, so that a crash leaves nothing half-made that is not found again.
        self.note(self.row.clone())?;
        let (id, began, journal) = (self.row.id, self.row.started_at, self.journal.clone());
        let is_new = matches!(self.site, Site::New { .. });
        let opened = self.make().await;
        // The loop looks after one that was to be started again.
        if is_new && opened.is_err() {
            let over = SessionState::Exited { code: None };
            if let Err(error) = journal.set_session_state(id, &over, began) {
                tracing::warn!(session = %id, %error, "a session that did not start stands open in the journal");
            }
        }
        opened
    }

    async fn make(self) -> Result<Opened, OpenFault> {
        let (id, start_files) = (self.session.id, self.session.launch.runtime_dir.clone());
        let (worktree, is_new) = match &self.site {
            Site::New { repository, spec } => {
                let repository = Repository::open(repository)
                    .await
                    .map_err(|error| open_fault("repository", &error))?;
                let made = repository.create(spec).await;
                (made.map_err(|error| open_fault("worktree", &error))?, true)
            }
            Site::Same(worktree) => (worktree.clone(), false),
        };
        match self.start_in(&worktree).await {
            Ok(session) => Ok(Opened { session, worktree }),
            Err(fault) => {
                remove_start_files(id, &start_files).await;
                if is_new && let Err(error) = worktree.remove(id).await {
                    tracing::warn!(session = %id, %error, "the worktree of a session that did not start is left");
                }
                Err(fault)
            }
        }
    }

    async fn start_in(self, worktree: &Worktree) -> Result<Session, OpenFault> {
        worktree
            .write_persona(PERSONA_FILES, &self.persona)
            .await
            .map_err(|error| open_fault("worktree", &error))?;
        let row = SessionRow {
            worktree: worktree.path.clone(),
            base: worktree.base.clone(),
            ..self.row.clone()
        };
        self.note(row)?;
        fail::fail_point!("session-row");
        let spec = SessionSpec {
            worktree: worktree.path.clone(),
            ..self.session
        };
        let started = Session::start(spec, &self.tasks, self.notes).await;
        started.map_err(|error| open_fault("agent_program", &error))
    }

    fn note(&self, row: SessionRow) -> Result<(), OpenFault> {
        self.journal
            .save_session(&row)
            .map_err(|error| open_fault("journal", &error))
    }
}

/// The conversation that a session's program is started with. One that `/clear` has begun and in which nothing was said
/// since is not on disk: another empty one is as good.
fn conversation_of(
    start: StartMode,
    id: SessionId,
    live: &Live,
    config_dir: &Path,
) -> (StartMode, SessionId) {
    let Some(cleared) = live.conversation else {
        return (start, id);
    };
    let written = claude::transcript_path(config_dir, &live.worktree, cleared);
    if holds_an_answer(&written) {
        (StartMode::Resume, cleared)
    } else {
        (StartMode::New, SessionId(Uuid::new_v4()))
    }
}

/// Whether anything was answered in a conversation: the program takes up no other one. A long one is not read to its end.
fn holds_an_answer(transcript: &Path) -> bool {
    use std::io::Read;
    let mut text = Vec::new();
    let read = std::fs::File::open(transcript)
        .and_then(|file| file.take(EMPTY_CONVERSATION_MAX).read_to_end(&mut text));
    let is_long = read.is_ok_and(|length| length as u64 == EMPTY_CONVERSATION_MAX);
    let answer = b"\"type\":\"assistant\"";
    is_long || text.windows(answer.len()).any(|part| part == answer)
}

fn fault(class: &'static str, message: String) -> OpenFault {
    OpenFault { class, message }
}

/// What the hooks of one start have to show.
fn new_secret() -> String {
    Uuid::new_v4().simple().to_string() + &Uuid::new_v4().simple().to_string()
}

fn open_fault(class: &'static str, error: &dyn std::error::Error) -> OpenFault {
    OpenFault {
        class,
        message: chain(error),
    }
}

/// A role as part of a folder's and a branch's name.
fn file_name(role: &str) -> String {
    let name: String = role
        .to_lowercase()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(16)
        .collect();
    if name.is_empty() { "agent".to_owned() } else { name }
}

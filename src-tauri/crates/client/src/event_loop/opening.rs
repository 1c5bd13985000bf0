//! Starting a session: the agent program is found, a worktree made, the persona written, then the program started.

use std::path::PathBuf;
use std::time::Duration;

use domain::fault::chain;
use domain::session::SessionState;
use domain::{AgentId, CommandId, SessionId};
use journal::SessionRow;
use provider::claude::{self, ClaudeLaunch, HookEndpoint, PermissionMode, SignIn};
use session::{Session, SessionNote, SessionSpec};
use terminal::Size;
use tokio::time::Instant;
use uuid::Uuid;
use worktree::{Repository, Worktree, WorktreeSpec};

use super::ending::{Left, remove_start_files};
use super::finish::End;
use super::seats::Live;
use super::{Event, EventLoop};
use crate::view::Problem;

/// A session that has not shown its prompt by then is given up (a cold start takes about a second, six at once about
/// five; this is for slow disks).
pub(super) const START_DEADLINE: Duration = Duration::from_secs(90);
/// Size of a terminal nobody looks at.
const FIRST_SIZE: Size = Size { cols: 120, rows: 40 };
/// Where an agent's instructions go, in this order of preference; the program reads both.
const PERSONA_FILES: &[&str] = &[".claude/CLAUDE.md", "CLAUDE.local.md"];

/// A started session.
pub(crate) struct Opened {
    session: Session,
    worktree: Worktree,
}

/// Why a session was not started.
pub(crate) struct OpenFault {
    class: &'static str,
    message: String,
}

/// What starting needs; taken along by the task.
struct Opening {
    repository: PathBuf,
    spec: WorktreeSpec,
    persona: String,
    session: SessionSpec,
    row: SessionRow,
    journal: std::sync::Arc<journal::Journal>,
    tasks: tokio_util::task::TaskTracker,
    notes: tokio::sync::mpsc::Sender<SessionNote>,
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
                    Event::ProgramChecked(Ok((program, sign_in)))
                }
                Err(error) => Event::ProgramChecked(Err(missing(&error))),
            }
        });
    }

    pub(super) fn program_checked(&mut self, result: Result<(PathBuf, SignIn), Problem>) {
        match result {
            Ok((program, sign_in)) => {
                self.program = Some(program);
                self.solved("claude_missing");
                match sign_in {
                    // Work is begun all the same: only a session really knows.
                    SignIn::No => self.signed_out("nobody is signed in to Claude Code on this machine"),
                    SignIn::Yes { .. } => self.solved("claude_signed_out"),
                    SignIn::Unknown => {}
                }
                self.advance_line();
            }
            Err(problem) => self.problem("claude_missing", problem.message, problem.hint),
        }
        if !std::mem::replace(&mut self.program_looked_for, true) {
            self.claim("the agent program was looked for");
        }
    }

    /// Tells that the agent program's user has to sign in.
    pub(super) fn signed_out(&mut self, why: &str) {
        self.problem(
            "claude_signed_out",
            format!("Claude Code cannot work: {why}"),
            claude::SIGN_IN_HINT,
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
        let id = SessionId(Uuid::new_v4());
        match self.plan_session(id, agent, repository, base) {
            Ok((live, opening)) => {
                tracing::info!(session = %id, title = %live.title, "starting a session");
                self.sessions.insert(id, Live { holder, ..live });
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
            Err(fault) => {
                if let Some(holder) = holder {
                    self.end(holder, End::failed(fault.class, fault.message));
                }
            }
        }
    }

    fn plan_session(
        &self,
        id: SessionId,
        agent: AgentId,
        repository: Option<&str>,
        base: Option<String>,
    ) -> Result<(Live, Opening), OpenFault> {
        let fault = |class, message: String| OpenFault { class, message };
        let data = self.office.as_ref();
        let data = data.ok_or_else(|| fault("not_ready", "no office is joined".to_owned()))?;
        let agent = data
            .rows
            .agents
            .iter()
            .find(|row| row.id == agent)
            .ok_or_else(|| {
                let message = format!("the office has no agent {agent}");
                fault("not_found", message)
            })?;
        if agent.provider != "claude" {
            let message = format!(
                "agent {} runs on `{}`, which this version cannot start",
                agent.name, agent.provider
            );
            return Err(fault("invalid", message));
        }
        let (repository, path) = self.repository(repository)?;
        let config_dir = claude::config_dir(&self.ground.environment).ok_or_else(|| {
            let message = "the environment has no HOME, so Claude Code's folder cannot be found";
            fault("not_ready", message.to_owned())
        })?;
        let secret = Uuid::new_v4().simple().to_string() + &Uuid::new_v4().simple().to_string();
        let launch = self.launch(id, &secret)?;
        let name = format!("{}-{}", file_name(&agent.role), id.short());
        let spec = WorktreeSpec {
            root: self.ground.paths.worktrees().join(data.office.id.short()),
            branch: format!("semo/{name}"),
            name,
            base,
        };
        let live = Live::starting(
            agent,
            &spec,
            repository,
            secret,
            self.now(),
            Instant::now() + START_DEADLINE,
        );
        let opening = Opening {
            repository: path,
            persona: agent.persona().render(),
            session: SessionSpec {
                id,
                office: live.office,
                agent: live.agent,
                title: live.title.clone(),
                worktree: live.worktree.clone(),
                launch,
                size: FIRST_SIZE,
                config_dir,
                clock: self.ground.clock.clone(),
            },
            row: live.row(id, spec.base.clone()),
            spec,
            journal: self.ground.journal.clone(),
            tasks: self.ground.tasks.clone(),
            notes: self.notes_in.clone(),
        };
        Ok((live, opening))
    }

    fn launch(&self, id: SessionId, secret: &str) -> Result<ClaudeLaunch, OpenFault> {
        Ok(ClaudeLaunch {
            program: self.program.clone().ok_or_else(|| self.no_program())?,
            base_env: self.ground.environment.clone(),
            hooks: HookEndpoint {
                url: self.ground.hook_url.clone(),
                secret: secret.to_owned(),
            },
            runtime_dir: self.ground.paths.session(id),
            permission_mode: PermissionMode::AsConfigured,
            extra_args: self.ground.settings.claude.args.clone(),
        })
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
                live.branch = opened.worktree.branch.clone();
                live.worktree = opened.worktree.path.clone();
                live.place = Some(opened.worktree);
                live.session = Some(opened.session);
                let unwanted = live.ending;
                self.tell_office(id);
                if unwanted {
                    self.end_process(id);
                }
            }
            Err(fault) => {
                tracing::warn!(session = %id, message = %fault.message, "a session was not started");
                self.sessions.remove(&id);
                self.release_terminators(id, &Left::Nothing);
                for command in self.waiting_for_start(id) {
                    self.end(command, End::failed(fault.class, fault.message.clone()));
                }
                self.advance_line();
            }
        }
    }
}

impl Opening {
    async fn run(self) -> Result<Opened, OpenFault> {
        let repository = Repository::open(&self.repository)
            .await
            .map_err(|error| open_fault("repository", &error))?;
        let worktree = repository
            .create(&self.spec)
            .await
            .map_err(|error| open_fault("worktree", &error))?;
        let (id, start_files) = (self.session.id, self.session.launch.runtime_dir.clone());
        match self.start_in(&worktree).await {
            Ok(session) => Ok(Opened { session, worktree }),
            Err(fault) => {
                remove_start_files(id, &start_files).await;
                if let Err(error) = worktree.remove(id).await {
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
            ..self.row
        };
        self.journal
            .save_session(&row)
            .map_err(|error| open_fault("journal", &error))?;
        let spec = SessionSpec {
            worktree: worktree.path.clone(),
            ..self.session
        };
        Session::start(spec, &self.tasks, self.notes).map_err(|error| {
            let over = SessionState::Exited { code: None };
            if let Err(error) = self.journal.set_session_state(row.id, &over, row.started_at) {
                tracing::warn!(session = %row.id, %error, "a session that did not start stands open in the journal");
            }
            open_fault("agent_program", &error)
        })
    }
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

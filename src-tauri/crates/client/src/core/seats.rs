//! Sessions from start to end: worktree and persona first, then the agent program, its notes, its end.

use std::path::PathBuf;
use std::time::Duration;

use domain::session::{Ask, SessionState};
use domain::{AgentId, CommandId, OfficeId, SessionId, Timestamp};
use journal::SessionRow;
use provider::claude::{self, ClaudeLaunch, HookEndpoint, PermissionMode};
use serde_json::json;
use session::{Session, SessionNote, SessionSpec, TurnReport};
use supabase::SessionDraft;
use terminal::Size;
use tokio::time::Instant;
use uuid::Uuid;
use worktree::{Repository, Worktree, WorktreeSpec};

use super::carry::chain;
use super::finish::End;
use super::{Core, Event, Stage};
use crate::pool::Seat;
use crate::view::Problem;

/// A session that has not shown its prompt by then is given up (a cold start takes about a second, six at once about
/// five; this is for slow disks).
const START_DEADLINE: Duration = Duration::from_secs(90);
/// Size of a terminal nobody looks at.
const FIRST_SIZE: Size = Size { cols: 120, rows: 40 };
/// How long a shutdown waits for sessions to be gone.
const SHUT_DOWN_WAIT: Duration = Duration::from_secs(15);
/// Where an agent's instructions go, in this order of preference; the program reads both.
const PERSONA_FILES: &[&str] = &[".claude/CLAUDE.md", "CLAUDE.local.md"];

/// A session of ours.
pub(crate) struct Live {
    pub agent: AgentId,
    pub office: OfficeId,
    pub title: String,
    pub repository: String,
    pub branch: String,
    pub worktree: PathBuf,
    pub place: Option<Worktree>,
    pub session: Option<Session>,
    pub state: SessionState,
    pub started_at: Timestamp,
    pub idle_since: Option<Timestamp>,
    /// The command that has it, or waits for its start.
    pub holder: Option<CommandId>,
    pub start_deadline: Option<Instant>,
    /// What it waits for, in words.
    pub asks: Option<String>,
    pub ending: bool,
    secret: String,
}

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

/// What is left of a session's worktree.
pub(crate) enum Left {
    /// Nothing; what was not committed is kept under this ref.
    Removed { preserved: Option<String> },
    /// The folder, because something in it is not committed.
    Kept { folder: PathBuf },
    /// It never had one.
    Nothing,
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

impl Core {
    /// Looks for the agent program, so that its absence is told before anybody needs it.
    pub(super) fn check_program(&mut self) {
        let path = self.environment("PATH");
        let (setting, environment) = (self.ground.settings.claude.program.clone(), self.ground.environment.clone());
        self.start(async move {
            let missing = |error: &dyn std::error::Error| Problem {
                code: "claude_missing".to_owned(),
                message: chain(error),
                hint: format!("Then {}.", "choose Refresh, or start again"),
            };
            let program = match claude::find_program(&path, setting.as_deref()) {
                Ok(program) => program,
                Err(error) => return Event::ProgramChecked(Err(missing(&error))),
            };
            match claude::version(&program, &environment).await {
                Ok(version) => {
                    tracing::info!(program = %program.display(), %version, "found the agent program");
                    Event::ProgramChecked(Ok(program))
                }
                Err(error) => Event::ProgramChecked(Err(missing(&error))),
            }
        });
    }

    pub(super) fn program_checked(&mut self, result: Result<PathBuf, Problem>) {
        match result {
            Ok(program) => {
                self.program = Some(program);
                self.solved("claude_missing");
                self.advance_line();
            }
            Err(problem) => self.problem("claude_missing", problem.message, problem.hint),
        }
    }

    fn environment(&self, name: &str) -> String {
        let found = self.ground.environment.iter().rev().find(|(its, _)| its == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// The sessions as the placing decision sees them.
    pub(super) fn seats(&self) -> Vec<Seat> {
        let seat = |(id, live): (&SessionId, &Live)| Seat {
            id: *id,
            agent: live.agent,
            repository: live.repository.clone(),
            state: if live.ending { SessionState::Stopping } else { live.state.clone() },
            taken: live.holder.is_some(),
            idle_since: live.idle_since,
        };
        self.sessions.iter().map(seat).collect()
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
                if let Some(work) = holder.and_then(|holder| self.work.get_mut(&holder)) {
                    work.stage = Stage::Starting { session: id };
                }
                self.changed = true;
                self.start(async move { Event::Opened { session: id, result: opening.run().await } });
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
        let data = self.office.as_ref().ok_or_else(|| fault("not_ready", "no office is joined".to_owned()))?;
        let row = data.rows.agents.iter().find(|row| row.id == agent);
        let row = row.ok_or_else(|| fault("not_found", format!("the office has no agent {agent}")))?;
        if row.provider != "claude" {
            return Err(fault("invalid", format!("agent {} runs on `{}`, which this version cannot start", row.name, row.provider)));
        }
        let (repository, path) = self.repository(repository)?;
        let program = self.program.clone().ok_or_else(|| self.no_program())?;
        let config_dir = claude::config_dir(&self.ground.environment)
            .ok_or_else(|| fault("not_ready", "the environment has no HOME, so Claude Code's folder cannot be found".to_owned()))?;
        let name = format!("{}-{}", file_name(&row.role), id.short());
        let branch = format!("semo/{name}");
        let root = self.ground.paths.worktrees().join(data.office.id.short());
        let title = format!("{} · {}", row.role, row.name);
        let secret = Uuid::new_v4().simple().to_string() + &Uuid::new_v4().simple().to_string();
        let now = self.now();
        let live = Live {
            agent,
            office: data.office.id,
            title: title.clone(),
            repository: repository.clone(),
            branch: branch.clone(),
            worktree: root.join(&name),
            place: None,
            session: None,
            state: SessionState::Starting,
            started_at: now,
            idle_since: None,
            holder: None,
            start_deadline: Some(Instant::now() + START_DEADLINE),
            asks: None,
            ending: false,
            secret: secret.clone(),
        };
        let launch = ClaudeLaunch {
            program,
            base_env: self.ground.environment.clone(),
            hooks: HookEndpoint { url: self.ground.hook_url.clone(), secret },
            runtime_dir: self.ground.paths.session(id),
            permission_mode: PermissionMode::AsConfigured,
            extra_args: self.ground.settings.claude.args.clone(),
        };
        let opening = Opening {
            repository: path,
            spec: WorktreeSpec { root, name, branch: branch.clone(), base: base.clone() },
            persona: row.persona().render(),
            session: SessionSpec {
                id,
                office: data.office.id,
                agent,
                title: title.clone(),
                worktree: live.worktree.clone(),
                launch,
                size: FIRST_SIZE,
                config_dir,
                clock: self.ground.clock.clone(),
            },
            row: SessionRow {
                id,
                office: data.office.id,
                agent,
                title,
                repository,
                worktree: live.worktree.clone(),
                branch,
                base,
                state: SessionState::Starting,
                started_at: now,
                ended_at: None,
            },
            journal: self.ground.journal.clone(),
            tasks: self.ground.tasks.clone(),
            notes: self.notes_in.clone(),
        };
        Ok((live, opening))
    }

    fn no_program(&self) -> OpenFault {
        let message = self.problems.get("claude_missing").map_or_else(
            || format!("Claude Code is still being looked for; {}", claude::INSTALL_HINT),
            |problem| problem.message.clone(),
        );
        OpenFault { class: "claude_missing", message }
    }

    fn repository(&self, wanted: Option<&str>) -> Result<(String, PathBuf), OpenFault> {
        let repositories = &self.ground.settings.repositories;
        let found = match wanted {
            Some(name) => repositories.get_key_value(name),
            None => repositories.first_key_value(),
        };
        found.map(|(name, path)| (name.clone(), path.clone())).ok_or_else(|| OpenFault {
            class: "repository",
            message: match wanted {
                Some(name) => format!("this workstation has no repository `{name}` (setting repositories.{name})"),
                None => "this workstation has no repository (section [repositories] of the settings)".to_owned(),
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
                let holder = live.holder.take();
                self.sessions.remove(&id);
                self.release_terminators(id, &Left::Nothing);
                if let Some(holder) = holder {
                    self.end(holder, End::failed(fault.class, fault.message));
                }
                self.advance_line();
            }
        }
    }

    pub(super) fn take_note(&mut self, note: SessionNote) {
        self.changed = true;
        match note {
            SessionNote::State { session, state } => self.state_changed(session, state),
            SessionNote::Asked { session, ask, text } => self.asked(session, ask, text),
            SessionNote::TurnEnded { session, report } => self.turn_ended(session, *report),
            SessionNote::Exited { session, exit } => {
                self.state_changed(session, SessionState::Exited { code: exit.code });
                self.end_process(session);
            }
        }
    }

    fn state_changed(&mut self, id: SessionId, state: SessionState) {
        let now = self.now();
        let Some(live) = self.sessions.get_mut(&id) else { return };
        if live.state == state {
            return;
        }
        tracing::debug!(session = %id, ?state, "a session's state");
        live.state = state.clone();
        live.idle_since = (state == SessionState::Idle).then_some(now);
        if !matches!(state, SessionState::AwaitingPerson { .. }) {
            live.asks = None;
        }
        if matches!(state, SessionState::AwaitingPerson { .. } | SessionState::Idle) {
            // It has come up: from here on a person's pace counts.
            live.start_deadline = None;
        }
        if let Err(error) = self.ground.journal.set_session_state(id, &state, now) {
            tracing::warn!(session = %id, %error, "a session's state is not in the journal");
        }
        self.tell_office(id);
        if state == SessionState::Idle {
            self.solved("claude_signed_out");
            self.session_is_idle(id);
        }
    }

    /// Begins what waited for this session's start, then looks at the line.
    fn session_is_idle(&mut self, id: SessionId) {
        let waiting: Vec<_> = self
            .work
            .iter()
            .filter(|(_, work)| work.stage == Stage::Starting { session: id })
            .map(|(command, _)| *command)
            .collect();
        for command in waiting {
            match self.work.get(&command).map(|work| &work.command) {
                Some(domain::Command::CreateSession(_)) => {
                    let output = self.sessions.get(&id).map(|live| {
                        json!({
                            "session_id": id, "agent_id": live.agent, "repository": live.repository,
                            "branch": live.branch,
                        })
                    });
                    self.end(command, End::ok(output.unwrap_or_default()));
                }
                _ => self.submit(command, id),
            }
        }
        self.advance_line();
    }

    fn asked(&mut self, id: SessionId, ask: Ask, text: String) {
        let Some(live) = self.sessions.get_mut(&id) else { return };
        live.asks = Some(text.clone());
        if ask == Ask::Login {
            self.problem("claude_signed_out", text.clone(), claude::SIGN_IN_HINT);
            let waiting: Vec<_> = self
                .work
                .iter()
                .filter(|(_, work)| work.stage == Stage::Starting { session: id })
                .map(|(command, _)| *command)
                .collect();
            for command in waiting {
                self.end(command, End::failed("auth", claude::SIGN_IN_HINT));
            }
        }
    }

    fn turn_ended(&mut self, session: SessionId, report: TurnReport) {
        let turn = report.turn;
        let carried = self.work.iter().find_map(|(command, work)| match work.stage {
            Stage::Turn { turn: its, .. } if its == turn => Some(*command),
            _ => None,
        });
        match carried {
            Some(command) => self.end(command, End::of_turn(report, session)),
            None => tracing::warn!(%session, %turn, "a turn ended that no command waits for"),
        }
    }

    /// Ends a session: its process first, its worktree after that.
    pub(super) fn give_up(&mut self, id: SessionId, why: &'static str) {
        let Some(live) = self.sessions.get_mut(&id) else { return };
        if std::mem::replace(&mut live.ending, true) {
            return;
        }
        tracing::info!(session = %id, why, "ending a session");
        self.changed = true;
        if live.session.is_some() {
            self.end_process(id);
        }
    }

    /// Waits in a task for the proof that the process tree is gone, then looks after the worktree.
    fn end_process(&mut self, id: SessionId) {
        let Some(live) = self.sessions.get_mut(&id) else { return };
        live.ending = true;
        let Some(session) = live.session.take() else { return };
        let place = live.place.take();
        let office_ended = matches!(live.state, SessionState::Exited { .. });
        if !office_ended {
            live.state = SessionState::Stopping;
        }
        self.start(async move {
            let left = match session.terminate().await {
                Ok(_) => clear_away(id, place).await,
                Err(error) => Err(format!("its processes could not be proven gone: {}", chain(&error))),
            };
            Event::Gone { session: id, left }
        });
    }

    pub(super) fn gone(&mut self, id: SessionId, left: Result<Left, String>) {
        self.directory.remove(id);
        let now = self.now();
        let Some(mut live) = self.sessions.remove(&id) else { return };
        let exited = match live.state {
            SessionState::Exited { .. } => live.state.clone(),
            _ => SessionState::Exited { code: None },
        };
        if let Err(error) = self.ground.journal.set_session_state(id, &exited, now) {
            tracing::warn!(session = %id, %error, "a session's end is not in the journal");
        }
        live.state = exited;
        self.report_session(id, &live);
        // A turn that was still open has its report in the notes; a command that still waits for the start has not.
        let waiting: Vec<_> = self
            .work
            .iter()
            .filter(|(_, work)| work.stage == Stage::Starting { session: id })
            .map(|(command, _)| *command)
            .collect();
        let reason = live.asks.unwrap_or_else(|| "the agent program ended before it was ready; `semo doctor` may tell why".to_owned());
        for command in waiting {
            self.end(command, End::failed("provider_exit", reason.clone()));
        }
        match left {
            Ok(left) => self.release_terminators(id, &left),
            Err(message) => {
                tracing::error!(session = %id, message, "a session did not end cleanly");
                self.end_all_waiting_for(id, &End::failed("not_stopped", message));
            }
        }
        self.advance_line();
    }

    fn release_terminators(&mut self, id: SessionId, left: &Left) {
        let mut output = json!({ "session_id": id });
        match left {
            Left::Removed { preserved } => output["preserved"] = json!(preserved),
            Left::Kept { folder } => output["kept_folder"] = json!(folder),
            Left::Nothing => {}
        }
        self.end_all_waiting_for(id, &End::ok(output));
    }

    fn end_all_waiting_for(&mut self, session: SessionId, end: &End) {
        let waiting: Vec<_> = self
            .work
            .iter()
            .filter(|(_, work)| work.stage == Stage::UntilGone { session })
            .map(|(command, _)| *command)
            .collect();
        for command in waiting {
            self.end(command, end.clone());
        }
    }

    pub(super) fn give_up_idle_sessions(&mut self) {
        let now = self.now();
        let idle_ms = u64::from(self.ground.settings.limits.idle_minutes) * 60_000;
        let idle: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, live)| live.holder.is_none() && !live.ending)
            .filter(|(_, live)| live.idle_since.is_some_and(|since| now.ms_since(since) >= idle_ms))
            .map(|(id, _)| *id)
            .collect();
        for id in idle {
            self.give_up(id, "it was idle for too long");
        }
    }

    pub(super) fn give_up_stuck_starts(&mut self, now: Instant) {
        let stuck: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, live)| !live.ending && live.start_deadline.is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in stuck {
            if let Some(live) = self.sessions.get_mut(&id) {
                live.asks = Some(format!("the agent program showed no prompt within {} seconds", START_DEADLINE.as_secs()));
            }
            self.give_up(id, "it did not become ready");
        }
    }

    fn tell_office(&self, id: SessionId) {
        if let Some(live) = self.sessions.get(&id) {
            self.report_session(id, live);
        }
    }

    /// Best effort: the row is for people and for affinity; the next change corrects it.
    fn report_session(&self, id: SessionId, live: &Live) {
        let draft = SessionDraft {
            session: id,
            office: live.office,
            client: self.ground.identity.client,
            agent: live.agent,
            state: state_name(&live.state).to_owned(),
            repository: live.repository.clone(),
            branch: live.branch.clone(),
        };
        let rest = self.ground.rest.clone();
        self.ground.tasks.spawn(async move {
            if let Err(error) = rest.upsert_session(&draft).await {
                tracing::debug!(session = %draft.session, %error, "the office was not told of a session's state");
            }
        });
    }

    /// At start: what an earlier core left behind. Its agent programs ended with it.
    pub(super) fn recover(&mut self) {
        let now = self.now();
        let unfinished = self.ground.journal.unfinished().unwrap_or_default();
        for row in unfinished.into_iter().filter(|row| row.phase == journal::Phase::Started) {
            tracing::warn!(command = %row.command.id, "an earlier core ended while it carried this out");
            let finish = journal::Finish { command: row.command.id, result: End::unknown().into_result(), turn: None };
            if let Err(error) = self.ground.journal.finish(&finish, now) {
                self.problem("journal", error.to_string(), "");
            }
        }
        for row in self.ground.journal.open_sessions().unwrap_or_default() {
            if let Err(error) = self.ground.journal.set_session_state(row.id, &SessionState::Exited { code: None }, now) {
                self.problem("journal", error.to_string(), "");
            }
        }
        self.outbox_bell.notify_one();
    }

    /// Ends everything: interrupts and reports what runs, proves every process gone.
    pub(super) async fn shut_down(mut self) {
        for (id, live) in &mut self.sessions {
            live.ending = true;
            tracing::debug!(session = %id, "ending with the core");
        }
        let open: Vec<_> = self.sessions.keys().copied().collect();
        for id in open {
            self.end_process(id);
        }
        let deadline = Instant::now() + SHUT_DOWN_WAIT;
        while self.sessions.values().any(|live| live.session.is_some() || live.ending) && !self.sessions.is_empty() {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => {
                    tracing::error!(sessions = self.sessions.len(), "some sessions were not proven gone in time");
                    break;
                }
                Some(event) = self.events.recv() => match event {
                    Event::Gone { .. } | Event::Opened { .. } | Event::Reported { .. } => self.handle(event),
                    _ => {}
                },
                Some(note) = self.notes.recv() => self.take_note(note),
            }
        }
        let held: Vec<_> = self.work.keys().copied().collect();
        for id in held {
            self.end(id, End::failed("client_stopped", "SEMO Office was closed on that workstation before this was done"));
        }
        self.write_endings();
        self.publish();
    }
}

impl Opening {
    async fn run(self) -> Result<Opened, OpenFault> {
        let repository = Repository::open(&self.repository).await.map_err(|error| open_fault("repository", &error))?;
        let worktree = repository.create(&self.spec).await.map_err(|error| open_fault("worktree", &error))?;
        let id = self.session.id;
        match self.start_in(&worktree).await {
            Ok(session) => Ok(Opened { session, worktree }),
            Err(fault) => {
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
        let row = SessionRow { worktree: worktree.path.clone(), base: worktree.base.clone(), ..self.row };
        self.journal.save_session(&row).map_err(|error| open_fault("journal", &error))?;
        let spec = SessionSpec { worktree: worktree.path.clone(), ..self.session };
        Session::start(spec, &self.tasks, self.notes).map_err(|error| open_fault("agent_program", &error))
    }
}

fn open_fault(class: &'static str, error: &dyn std::error::Error) -> OpenFault {
    OpenFault { class, message: chain(error) }
}

/// Removes a worktree in which everything is committed; keeps any other, with a copy of its state as a ref.
async fn clear_away(id: SessionId, place: Option<Worktree>) -> Result<Left, String> {
    let Some(worktree) = place else { return Ok(Left::Nothing) };
    let facts = worktree.facts().await.map_err(|error| chain(&error))?;
    if facts.dirty {
        worktree.preserve(id).await.map_err(|error| chain(&error))?;
        return Ok(Left::Kept { folder: worktree.path });
    }
    let preserved = worktree.remove(id).await.map_err(|error| chain(&error))?;
    Ok(Left::Removed { preserved: preserved.map(|preserved| preserved.reference) })
}

/// Name of a state in the office's `sessions` rows.
fn state_name(state: &SessionState) -> &'static str {
    match state {
        SessionState::Starting => "starting",
        SessionState::Idle => "idle",
        SessionState::Working { .. } => "working",
        SessionState::AwaitingPerson { .. } => "awaiting_person",
        SessionState::Stopping => "stopping",
        SessionState::Exited { .. } => "exited",
    }
}

/// A role as part of a folder's and a branch's name.
fn file_name(role: &str) -> String {
    let name: String = role.to_lowercase().chars().filter(char::is_ascii_alphanumeric).take(16).collect();
    if name.is_empty() { "agent".to_owned() } else { name }
}

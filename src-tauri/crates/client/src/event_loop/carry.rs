//! What each kind of command does. Everything here is quick: it starts something, asks something, or ends the command.

use std::time::Duration;

use bytes::Bytes;
use domain::command::{Cancel, GetOutput, OutputFormat, SendKeys, SendPrompt, TURN_TIMEOUT_S_DEFAULT};
use domain::marker::Marker;
use domain::session::SessionState;
use domain::{AgentId, Command, CommandId, SessionId, TurnId};
use journal::NewTurn;
use serde_json::json;
use session::{TurnRequest, WhichTurn};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::finish::End;
use super::{EventLoop, Stage};
use crate::pool::{Placement, place};

/// Most bytes of raw output in one result: what a REST answer should carry.
const OUTPUT_BYTES_MAX: usize = 128 * 1024;
/// Length of a marker's code in hex digits.
const CODE_DIGITS: usize = 6;

impl EventLoop {
    /// Begins a command that is parsed, allowed and in the journal.
    pub(super) fn carry_out(&mut self, id: CommandId) {
        let Some(work) = self.work.get(&id) else { return };
        match work.command.clone() {
            Command::SendPrompt(args) => match args.session.or(work.row.session_id) {
                Some(session) => self.prompt_session(id, session),
                None => self.stand_in_line(id),
            },
            Command::CreateSession(args) => self.create_session(id, args.repository.as_deref(), args.base),
            Command::SendKeys(args) => self.send_keys(id, args),
            Command::Cancel(args) => self.cancel(id, &args),
            Command::GetOutput(args) => self.get_output(id, &args),
            Command::ListSessions => self.list_sessions(id),
            Command::Terminate(args) => self.terminate(id, args.session),
        }
    }

    /// Notes in the journal that an effect may happen from now on. Without that note nothing is done.
    pub(super) fn mark_started(&mut self, id: CommandId) -> bool {
        let now = self.now();
        match self.ground.journal.mark_started(id, now) {
            Ok(true) => {
                if let Some(work) = self.work.get_mut(&id) {
                    work.started_at = Some(now);
                }
                true
            }
            Ok(false) => {
                self.end(id, End::unknown());
                false
            }
            Err(error) => {
                self.problem(
                    "journal",
                    error.to_string(),
                    "No new command is begun until the journal can be written.",
                );
                self.end(id, End::failed("journal", format!("it was not begun: {error}")));
                false
            }
        }
    }

    fn stand_in_line(&mut self, id: CommandId) {
        let Some(work) = self.work.get_mut(&id) else {
            return;
        };
        if work.row.agent_id.is_none() {
            self.end(
                id,
                End::failed("invalid", "`send_prompt` names neither an agent nor a session"),
            );
            return;
        }
        work.stage = Stage::InLine;
        self.line.push_back(id);
        self.advance_line();
    }

    /// Places what waits, oldest first. An agent that cannot be served does not hold up the others.
    pub(super) fn advance_line(&mut self) {
        if self.ground.stop.is_cancelled() {
            return;
        }
        for id in self.line.iter().copied().collect::<Vec<_>>() {
            let Some((agent, repository)) = self.wish_of(id) else {
                self.line.retain(|waiting| *waiting != id);
                continue;
            };
            match place(&self.seats(), self.sessions_max(), agent, repository.as_deref()) {
                Placement::Take(session) => {
                    self.line.retain(|waiting| *waiting != id);
                    self.prompt_session(id, session);
                }
                Placement::Start => {
                    self.line.retain(|waiting| *waiting != id);
                    self.start_session(Some(id), agent, repository.as_deref(), None);
                }
                Placement::GiveUp(session) => self.give_up(session, "its place is needed for another agent"),
                Placement::Wait => {}
            }
        }
    }

    fn wish_of(&self, id: CommandId) -> Option<(AgentId, Option<String>)> {
        let work = self.work.get(&id)?;
        match &work.command {
            Command::SendPrompt(args) => Some((work.row.agent_id?, args.repository.clone())),
            _ => None,
        }
    }

    pub(super) fn sessions_max(&self) -> usize {
        self.ground.settings.limits.sessions_max as usize
    }

    /// Gives a prompt to a session: at once when it is idle, when it is ready where it starts, behind its other turns
    /// where it works.
    fn prompt_session(&mut self, id: CommandId, session: SessionId) {
        let Some(live) = self.sessions.get_mut(&session) else {
            self.end(
                id,
                End::failed(
                    "not_found",
                    format!("there is no session {session} on this workstation"),
                ),
            );
            return;
        };
        match live.state {
            SessionState::Exited { .. } | SessionState::Stopping => {
                self.end(
                    id,
                    End::failed(
                        "not_found",
                        format!("session {session} has ended or is being ended"),
                    ),
                );
            }
            SessionState::Starting => {
                live.holder.get_or_insert(id);
                if let Some(work) = self.work.get_mut(&id) {
                    work.stage = Stage::Starting { session };
                }
            }
            SessionState::Idle | SessionState::Working { .. } | SessionState::AwaitingPerson { .. } => {
                self.submit(id, session);
            }
        }
    }

    /// Hands the prompt over. The turn is in the journal before its first byte goes to the agent.
    pub(super) fn submit(&mut self, id: CommandId, session: SessionId) {
        let Some(work) = self.work.get(&id) else { return };
        let Command::SendPrompt(args) = work.command.clone() else {
            return;
        };
        let Some(handle) = self.sessions.get(&session).and_then(|live| live.session.clone()) else {
            self.end(
                id,
                End::failed("not_found", format!("session {session} has ended")),
            );
            return;
        };
        let turn = TurnId(Uuid::new_v4());
        if !self.mark_started(id) || !self.note_turn(id, session, turn, &args) {
            return;
        }
        let code = Uuid::new_v4().simple().to_string()[..CODE_DIGITS].to_owned();
        let request = TurnRequest {
            id: turn,
            prompt: args.prompt,
            marker: Marker::for_wish(args.marker, &code),
            timeout: Duration::from_secs(args.timeout_s.unwrap_or(TURN_TIMEOUT_S_DEFAULT)),
        };
        tracing::debug!(command = %id, "the prompt goes to the session");
        match handle.submit(request) {
            Ok(()) => {
                if let Some(live) = self.sessions.get_mut(&session) {
                    live.holder = Some(id);
                    live.idle_since = None;
                }
                if let Some(work) = self.work.get_mut(&id) {
                    work.stage = Stage::Turn { session, turn };
                }
            }
            Err(error) => self.end(id, End::failed("not_submitted", chain(&error))),
        }
    }

    fn note_turn(&mut self, id: CommandId, session: SessionId, turn: TurnId, args: &SendPrompt) -> bool {
        let prompt_sha256 = Sha256::digest(args.prompt.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let note = NewTurn {
            id: turn,
            session,
            command: Some(id),
            prompt_sha256,
        };
        match self.ground.journal.start_turn(&note, self.now()) {
            Ok(()) => true,
            Err(error) => {
                self.problem("journal", error.to_string(), "");
                self.end(id, End::failed("journal", format!("it was not begun: {error}")));
                false
            }
        }
    }

    fn create_session(&mut self, id: CommandId, repository: Option<&str>, base: Option<String>) {
        let Some(agent) = self.work.get(&id).and_then(|work| work.row.agent_id) else {
            self.end(id, End::failed("invalid", "`create_session` names no agent"));
            return;
        };
        let open = self
            .sessions
            .values()
            .filter(|live| !live.state.is_over())
            .count();
        if open >= self.sessions_max() {
            let reason = format!(
                "{open} sessions are open on this workstation, the most it takes (setting limits.sessions_max); end one first"
            );
            self.end(id, End::failed("full", reason));
            return;
        }
        self.start_session(Some(id), agent, repository, base);
    }

    fn send_keys(&mut self, id: CommandId, args: SendKeys) {
        let Some(handle) = self
            .sessions
            .get(&args.session)
            .and_then(|live| live.session.clone())
        else {
            self.end(
                id,
                End::failed(
                    "not_found",
                    format!("there is no session {} on this workstation", args.session),
                ),
            );
            return;
        };
        if !self.mark_started(id) {
            return;
        }
        let mut bytes = args.text.into_bytes();
        for key in args.keys {
            bytes.extend_from_slice(key.bytes());
        }
        // Typing waits for a program that does not read its input; the loop does not.
        self.ground.tasks.spawn(async move {
            if let Err(error) = handle.keys(Bytes::from(bytes)).await {
                tracing::warn!(%error, "keys were not taken");
            }
        });
        self.end(id, End::ok(json!({ "session_id": args.session })));
    }

    fn cancel(&mut self, id: CommandId, args: &Cancel) {
        if !self.mark_started(id) {
            return;
        }
        if let Some(target) = args.command {
            if target == id
                || !self
                    .work
                    .get(&target)
                    .is_some_and(|work| work.stage != Stage::Ended)
            {
                self.end(
                    id,
                    End::ok(json!({ "command_id": target, "note": "it was not being carried out here" })),
                );
                return;
            }
            self.wait_for(id, Stage::UntilEnded { command: target });
            self.cancel_work(target);
        } else if let Some(session) = args.session {
            let Some(handle) = self.sessions.get(&session).and_then(|live| live.session.clone()) else {
                self.end(
                    id,
                    End::failed(
                        "not_found",
                        format!("there is no session {session} on this workstation"),
                    ),
                );
                return;
            };
            let carried = self.work.iter().find_map(|(command, work)| match work.stage {
                Stage::Turn { session: its, .. } if its == session => Some(*command),
                _ => None,
            });
            if let Some(target) = carried {
                self.wait_for(id, Stage::UntilEnded { command: target });
                self.cancel_work(target);
            } else if let Err(error) = handle.cancel(WhichTurn::Current) {
                self.end(id, End::failed("not_found", chain(&error)));
            } else {
                self.end(
                    id,
                    End::ok(json!({ "session_id": session, "note": "no command was running in it" })),
                );
            }
        }
    }

    fn wait_for(&mut self, id: CommandId, stage: Stage) {
        if let Some(work) = self.work.get_mut(&id) {
            work.stage = stage;
        }
    }

    /// Stops the work of a command, wherever it is; its own end follows when that is proven.
    pub(super) fn cancel_work(&mut self, id: CommandId) {
        let Some(work) = self.work.get_mut(&id) else {
            return;
        };
        work.cancel_wanted = true;
        match work.stage.clone() {
            Stage::InLine => self.end(id, End::cancelled("it was cancelled while it waited in line")),
            Stage::Starting { .. } => self.end(
                id,
                End::cancelled("it was cancelled before its session was ready"),
            ),
            Stage::Turn { session, turn } => {
                let handle = self.sessions.get(&session).and_then(|live| live.session.clone());
                if let Some(Err(error)) = handle.map(|handle| handle.cancel(WhichTurn::Id(turn))) {
                    tracing::warn!(command = %id, %error, "a turn could not be cancelled; its end will tell");
                }
            }
            Stage::UntilEnded { .. } | Stage::UntilGone { .. } | Stage::Ended => {}
        }
    }

    fn get_output(&mut self, id: CommandId, args: &GetOutput) {
        let Some(handle) = self
            .sessions
            .get(&args.session)
            .and_then(|live| live.session.clone())
        else {
            self.end(
                id,
                End::failed(
                    "not_found",
                    format!("there is no session {} on this workstation", args.session),
                ),
            );
            return;
        };
        let output = match args.format {
            OutputFormat::Screen => {
                let screen = handle.terminal().screen();
                json!({ "session_id": args.session, "cols": screen.size.cols, "rows": screen.size.rows, "screen": screen.rows })
            }
            OutputFormat::Ansi => {
                let run = handle.terminal().output_since(args.since.unwrap_or(0));
                let from_end = run.bytes.len().saturating_sub(OUTPUT_BYTES_MAX);
                // Without a wish the newest part; with one the part that follows it.
                let (skip, bytes) = match args.since {
                    None => (from_end, &run.bytes[from_end..]),
                    Some(_) => (0, &run.bytes[..run.bytes.len().min(OUTPUT_BYTES_MAX)]),
                };
                let from = run.from + skip as u64;
                json!({
                    "session_id": args.session, "from": from, "to": from + bytes.len() as u64, "end": run.end,
                    "ansi": String::from_utf8_lossy(bytes),
                })
            }
        };
        self.end(id, End::ok(output));
    }

    fn list_sessions(&mut self, id: CommandId) {
        let sessions: Vec<_> = self
            .sessions
            .iter()
            .map(|(session, live)| {
                json!({
                    "id": session, "agent_id": live.agent, "state": live.state, "repository": live.repository,
                    "branch": live.branch, "started_at": live.started_at.rfc3339(),
                })
            })
            .collect();
        self.end(id, End::ok(json!({ "sessions": sessions })));
    }

    fn terminate(&mut self, id: CommandId, session: SessionId) {
        if !self.sessions.contains_key(&session) {
            self.end(
                id,
                End::failed(
                    "not_found",
                    format!("there is no session {session} on this workstation"),
                ),
            );
            return;
        }
        if !self.mark_started(id) {
            return;
        }
        self.wait_for(id, Stage::UntilGone { session });
        self.give_up(session, "a command asked for its end");
    }
}

/// An error with all its causes, for a result row.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

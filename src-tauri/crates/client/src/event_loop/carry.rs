//! What each kind of command does. Everything here is quick: it starts something, asks something, or ends the command.

use std::time::Duration;

use bytes::Bytes;
use domain::command::{Cancel, GetOutput, OutputFormat, SendKeys, TURN_TIMEOUT_S_DEFAULT};
use domain::fault::chain;
use domain::marker::Marker;
use domain::policy::Decision;
use domain::session::SessionState;
use domain::turn::{FailureClass, TurnOutcome};
use domain::{Command, CommandId, SessionId, TurnId};
use journal::{NewTurn, TurnEnd};
use provider::detect::ScreenMeaning;
use serde_json::{Value, json};
use session::{Session, SessionError, TurnRequest, WhichTurn};
use sha2::{Digest, Sha256};
use supabase::{CancelAnswer, RestError};
use tokio::time::Instant;
use uuid::Uuid;

use super::finish::End;
use super::{Event, EventLoop, Stage};

/// Most bytes of raw output in one result: what a REST answer should carry.
const OUTPUT_BYTES_MAX: usize = 128 * 1024;
/// Length of a marker's code in hex digits.
const CODE_DIGITS: usize = 6;

impl EventLoop {
    /// Begins a command that is parsed, allowed and in the journal.
    pub(super) fn carry_out(&mut self, id: CommandId) {
        if let Some(session) = self.named_and_unsettled(id) {
            if let Some(why) = self.given_up_because(session) {
                return self.end(id, End::failed("session_held", why));
            }
            return self.wait_for(id, Stage::UntilSettled { session });
        }
        let Some(work) = self.work.get(&id) else { return };
        match work.command.clone() {
            Command::SendPrompt(args) => match args.session.or(work.row.session_id) {
                Some(session) => self.prompt_session(id, session),
                None => self.stand_in_line(id),
            },
            Command::CreateSession(_) => self.stand_in_line(id),
            Command::SendKeys(args) => self.send_keys(id, args),
            Command::Cancel(args) => self.cancel(id, &args),
            Command::GetOutput(args) => self.get_output(id, &args),
            Command::ListSessions => self.list_sessions(id),
            Command::Terminate(args) => self.terminate(id, args.session),
            Command::Approve(args) => self.approve(id, args),
        }
    }

    /// Notes in the journal that an effect may happen from now on. Without that note nothing is done.
    pub(super) fn mark_started(&mut self, id: CommandId) -> bool {
        let now = self.now();
        let marked = if self.leftovers.never_entered(id) {
            // The journal has it as started; nothing of it has reached an agent.
            Ok(true)
        } else {
            self.ground.journal.mark_started(id, now)
        };
        match marked {
            Ok(true) => {
                fail::fail_point!("started");
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

    /// The session that a command names, when it runs here and belongs to the command's own office. Whether another
    /// office has such a session is nobody's business.
    pub(super) fn session_of(&self, id: CommandId, session: SessionId) -> Option<Session> {
        let office = self.work.get(&id)?.row.office_id;
        let live = self
            .sessions
            .get(&session)
            .filter(|live| live.office == office && !live.ending)?;
        live.session.clone()
    }

    pub(super) fn no_such_session(&mut self, id: CommandId, session: SessionId) {
        let office = self.work.get(&id).map(|work| work.row.office_id);
        let live = self.sessions.get(&session);
        if live.is_some_and(|live| Some(live.office) == office && live.is_usable()) {
            let message = format!("session {session} is being started again; try again in a moment");
            self.end(id, End::failed("restarting", message));
            return;
        }
        let message = format!("there is no session {session} on this workstation");
        self.end(id, End::failed("not_found", message));
    }

    /// Ends what waited in vain: for a session's start, or in line past its own expiry.
    pub(super) fn end_what_waited_too_long(&mut self, now: Instant) {
        let moment = self.moment();
        let mut over = Vec::new();
        for (id, work) in &self.work {
            match work.stage {
                Stage::Starting { session } if work.start_limit.is_some_and(|limit| limit <= now) => {
                    let asks = self.sessions.get(&session).and_then(|live| live.asks.clone());
                    let why = asks.unwrap_or_else(|| "it was still starting".to_owned());
                    let message = format!("its session was not ready in time: {why}");
                    over.push((*id, End::failed("timeout", message)));
                }
                Stage::InLine if self.desk.is_expired(*id, moment) => {
                    over.push((
                        *id,
                        End::failed("expired", "it expired while it waited for a free session"),
                    ));
                }
                _ => {}
            }
        }
        for (id, end) in over {
            self.end(id, end);
        }
    }

    /// Hands the prompt over. The turn is in the journal before its first byte goes to the agent.
    pub(super) fn submit(&mut self, id: CommandId, session: SessionId) {
        let Some(work) = self.work.get(&id) else { return };
        let Command::SendPrompt(args) = work.command.clone() else {
            return;
        };
        let Some(handle) = self.session_of(id, session) else {
            return self.no_such_session(id, session);
        };
        if !self.may_begin(id, session) {
            return;
        }
        let turn = TurnId(Uuid::new_v4());
        let code = Uuid::new_v4().simple().to_string()[..CODE_DIGITS].to_owned();
        let request = TurnRequest {
            id: turn,
            prompt: args.prompt,
            marker: Marker::for_wish(args.marker, &code),
            timeout: Duration::from_secs(args.timeout_s.unwrap_or(TURN_TIMEOUT_S_DEFAULT)),
        };
        if !self.mark_started(id) || !self.note_turn(id, session, &request) {
            return;
        }
        tracing::debug!(command = %id, "the prompt goes to the session");
        match handle.submit(request) {
            Ok(()) => {
                if let Some(live) = self.sessions.get_mut(&session) {
                    live.holder = Some(id);
                    live.ahead = false;
                    live.idle_since = None;
                }
                if let Some(work) = self.work.get_mut(&id) {
                    work.stage = Stage::Turn { session, turn };
                }
            }
            Err(error) => {
                let detail = chain(&error);
                let class = FailureClass::NotSubmitted;
                let outcome = TurnOutcome::Failed {
                    class,
                    detail: detail.clone(),
                    retry_at: None,
                };
                let turn = Some(TurnEnd {
                    turn,
                    outcome,
                    rule: "not-submitted".to_owned(),
                });
                self.end(
                    id,
                    End {
                        turn,
                        ..End::failed("not_submitted", detail)
                    },
                );
            }
        }
    }

    fn note_turn(&mut self, id: CommandId, session: SessionId, request: &TurnRequest) -> bool {
        let prompt_sha256 = Sha256::digest(request.prompt.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let note = NewTurn {
            id: request.id,
            session,
            command: Some(id),
            prompt_sha256,
            request: serde_json::to_value(request).unwrap_or_default(),
        };
        match self.ground.journal.start_turn(&note, self.now()) {
            Ok(()) => {
                fail::fail_point!("turn-row");
                true
            }
            Err(error) => {
                self.problem("journal", error.to_string(), "");
                self.end(id, End::failed("journal", format!("it was not begun: {error}")));
                false
            }
        }
    }

    fn send_keys(&mut self, id: CommandId, args: SendKeys) {
        let Some(handle) = self.session_of(id, args.session) else {
            return self.no_such_session(id, args.session);
        };
        let waits = self.waits_for_person(args.session, &handle);
        if let Decision::Deny { reason } = self.ground.settings.policy.decide_keys(waits) {
            return self.end(id, End::failed("refused", reason));
        }
        if !self.mark_started(id) {
            return;
        }
        // Named keys are for keys; in a text, control characters would be escape sequences in disguise.
        let text = args
            .text
            .chars()
            .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'));
        let mut bytes = text.collect::<String>().into_bytes();
        for key in args.keys {
            bytes.extend_from_slice(key.bytes());
        }
        // Typing waits for a program that does not read its input; the loop does not.
        self.wait_for(id, Stage::Answering);
        let session = args.session;
        self.start(async move {
            let result = handle.keys(Bytes::from(bytes)).await;
            Event::KeysPressed {
                command: id,
                session,
                result,
            }
        });
    }

    /// The program has taken keys, or has not.
    pub(super) fn keys_pressed(
        &mut self,
        id: CommandId,
        session: SessionId,
        result: Result<(), SessionError>,
    ) {
        let end = match result {
            Ok(()) => End::ok(json!({ "session_id": session })),
            Err(error) if error.no_key_was_pressed() => End::failed("not_pressed", chain(&error)),
            // A server sends again what is called not pressed.
            Err(error) => End::unknown_because(format!(
                "whether the keys were pressed is not known, and they are not pressed again: {}",
                chain(&error)
            )),
        };
        self.end(id, end);
    }

    /// By what the session has told, and by its screen: that is ahead of it.
    fn waits_for_person(&self, session: SessionId, handle: &Session) -> bool {
        let shown = || {
            let detector = self.detectors.reader().borrow().clone();
            let meaning = detector.read(&handle.terminal().screen()).meaning;
            matches!(meaning, ScreenMeaning::Dialog(_) | ScreenMeaning::NotSignedIn)
        };
        self.asks.of_session(session).is_some()
            || matches!(*handle.state().borrow(), SessionState::AwaitingPerson { .. })
            || shown()
    }

    fn cancel(&mut self, id: CommandId, args: &Cancel) {
        if !self.mark_started(id) {
            return;
        }
        match (args.command, args.session) {
            (Some(target), _) => self.cancel_command(id, target),
            (None, Some(session)) => self.cancel_in(id, session),
            (None, None) => self.end(
                id,
                End::failed("invalid", "neither `session` nor `command` is given"),
            ),
        }
    }

    /// Stops a command: here where it is carried out here, else by asking the office.
    pub(super) fn cancel_command(&mut self, id: CommandId, target: CommandId) {
        let office = self.work.get(&id).map(|work| work.row.office_id);
        let here = self.work.get(&target).is_some_and(|work| {
            work.stage != Stage::Ended && Some(work.row.office_id) == office && target != id
        });
        if here {
            self.wait_for(id, Stage::UntilEnded { command: target });
            self.cancel_work(target, json!({ "way": "command", "command_id": id }));
            return;
        }
        self.wait_for(id, Stage::Asking);
        let rest = self.ground.rest.clone();
        self.start(async move {
            let result = rest.cancel_command(target).await;
            Event::CancelAnswered {
                command: id,
                target,
                result,
            }
        });
    }

    pub(super) fn cancel_answered(
        &mut self,
        id: CommandId,
        target: CommandId,
        result: Result<CancelAnswer, RestError>,
    ) {
        let note = match result {
            Ok(CancelAnswer::Cancelled) => "it is cancelled",
            Ok(CancelAnswer::Requested) => "the client that carries it out was asked to stop it",
            Ok(CancelAnswer::AlreadyOver) => "it had ended already",
            Err(error) => return self.end(id, End::failed("not_cancelled", chain(&error))),
        };
        self.end(id, End::ok(json!({ "command_id": target, "note": note })));
    }

    /// Stops what runs in a session.
    pub(super) fn cancel_in(&mut self, id: CommandId, session: SessionId) {
        let Some(handle) = self.session_of(id, session) else {
            return self.no_such_session(id, session);
        };
        let carried = self.work.iter().find_map(|(command, work)| match work.stage {
            Stage::Turn { session: its, .. } if its == session => Some(*command),
            _ => None,
        });
        if let Some(target) = carried {
            self.wait_for(id, Stage::UntilEnded { command: target });
            self.cancel_work(target, json!({ "way": "command", "command_id": id }));
        } else if let Err(error) = handle.cancel(WhichTurn::Current) {
            self.end(id, End::failed("not_found", chain(&error)));
        } else {
            let note = "no command was running in it";
            self.end(id, End::ok(json!({ "session_id": session, "note": note })));
        }
    }

    pub(super) fn wait_for(&mut self, id: CommandId, stage: Stage) {
        if let Some(work) = self.work.get_mut(&id) {
            work.stage = stage;
        }
    }

    /// Stops the work of a command, wherever it is; its own end follows when that is proven. `by` says who wants it.
    pub(super) fn cancel_work(&mut self, id: CommandId, by: Value) {
        let Some(work) = self.work.get_mut(&id) else {
            return;
        };
        work.cancel_wanted = true;
        // The first one did it.
        work.cancelled_by.get_or_insert(by);
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
            Stage::UntilSettled { .. } => self.end(
                id,
                End::cancelled("it was cancelled while its session was looked for"),
            ),
            Stage::UntilLetBegin => {
                self.end(id, End::cancelled("it was cancelled before it was begun"));
            }
            Stage::Recovering if self.has_had_no_effect(id) => {
                self.end(id, End::cancelled("it was cancelled before it was begun"));
            }
            // What runs of it, or may, is stopped when its session is found.
            Stage::Recovering
            | Stage::UntilEnded { .. }
            | Stage::UntilGone { .. }
            | Stage::Asking
            | Stage::Answering
            | Stage::Ended => {}
        }
    }

    fn get_output(&mut self, id: CommandId, args: &GetOutput) {
        let Some(handle) = self.session_of(id, args.session) else {
            return self.no_such_session(id, args.session);
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
        let office = self.work.get(&id).map(|work| work.row.office_id);
        let sessions: Vec<_> = self
            .sessions
            .iter()
            // One that was started ahead of need is nobody's yet.
            .filter(|(_, live)| Some(live.office) == office && !live.warm)
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
        let office = self.work.get(&id).map(|work| work.row.office_id);
        if self
            .sessions
            .get(&session)
            .is_none_or(|live| Some(live.office) != office)
        {
            return self.no_such_session(id, session);
        }
        if !self.mark_started(id) {
            return;
        }
        self.wait_for(id, Stage::UntilGone { session });
        self.give_up(session, "a command asked for its end");
    }
}

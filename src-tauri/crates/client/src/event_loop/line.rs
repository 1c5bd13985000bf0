//! The line: which session carries a command, and what waits until there is one. The decisions are the pool's; here
//! they are carried out.

use std::time::Duration;

use domain::command::TURN_TIMEOUT_S_DEFAULT;
use domain::session::SessionState;
use domain::{AgentId, Command, CommandId, OfficeId, SessionId};
use tokio::time::Instant;

use super::finish::End;
use super::{EventLoop, Stage};
use crate::pool::{Placement, Room, Waiting, WaitsFor, Wish, needs_no_start, order, place};

/// How long `create_session` waits for a session that shows a dialog at its start.
const CREATE_WAIT_MAX: Duration = Duration::from_secs(600);

impl EventLoop {
    /// Puts a command into the line, and looks whether it can be placed at once.
    pub(super) fn stand_in_line(&mut self, id: CommandId) {
        let Some(work) = self.work.get_mut(&id) else {
            return;
        };
        if work.row.agent_id.is_none() {
            let kind = &work.row.kind;
            let message = format!("`{kind}` names neither an agent nor a session");
            self.end(id, End::failed("invalid", message));
            return;
        }
        work.stage = Stage::InLine;
        self.line.push_back(id);
        self.advance_line();
    }

    /// Puts a command back, before all others, because the session that it was to have is not fit.
    pub(super) fn back_in_line(&mut self, id: CommandId, because: &str) {
        let Some(work) = self.work.get_mut(&id) else {
            return;
        };
        work.stage = Stage::InLine;
        work.start_limit = None;
        work.waits_because = Some(because.to_owned());
        self.line.push_front(id);
        for live in self.sessions.values_mut().filter(|live| live.holder == Some(id)) {
            live.holder = None;
        }
    }

    /// Puts everything back that waits for this session's start: nothing of it was sent.
    pub(super) fn put_back_in_line(&mut self, session: SessionId, because: &str) {
        // The last one first: each is put before all others.
        for command in self.waiting_for_start(session).into_iter().rev() {
            self.back_in_line(command, because);
        }
    }

    /// Places what waits, in a fair order. What cannot be served does not hold up the others.
    pub(super) fn advance_line(&mut self) {
        if self.is_stopping() || self.line.is_empty() {
            return;
        }
        for id in order(&self.waiting(), &self.pool.served) {
            // An end in the loop below advances the line as well: what it placed is not placed again.
            if !self.line.contains(&id) {
                continue;
            }
            let Some((office, wish)) = self.wish_of(id) else {
                let message = "the session that it named is gone, and it names no agent";
                self.end(id, End::failed("not_found", message));
                continue;
            };
            let seats = self.seats(office);
            let placement = place(&seats, self.room(), &wish);
            if let Some((until, why)) = self.paused(wish.agent)
                && !needs_no_start(&seats, placement)
            {
                let because = format!("its agent is paused until {}: {why}", until.rfc3339());
                self.waits_because(id, because);
                continue;
            }
            let makes_it = matches!(placement, Placement::Take(_) | Placement::Start) && wish.fresh;
            if makes_it && !self.may_make_session(id) {
                self.waits_because(id, "the office is asked whether it may be begun");
                continue;
            }
            match placement {
                Placement::Take(session) => {
                    self.leave_line(id, wish.agent);
                    self.use_session(id, session);
                }
                Placement::Start => {
                    self.leave_line(id, wish.agent);
                    self.start_session(Some(id), wish.agent, wish.repository.as_deref(), wish.base);
                }
                Placement::GiveUp(session) => {
                    self.waits_because(id, waits_for(WaitsFor::Leaving));
                    self.give_up(session, "its place is needed for another command");
                }
                Placement::Wait(what) => self.waits_because(id, waits_for(what)),
                Placement::Full => self.end(id, End::failed("full", self.full())),
            }
        }
    }

    fn waiting(&self) -> Vec<Waiting> {
        let waiting = |id: &CommandId| {
            let work = self.work.get(id)?;
            Some(Waiting {
                id: *id,
                agent: work.row.agent_id?,
                priority: work.row.priority,
                passed_over: work.passed_over,
            })
        };
        self.line.iter().filter_map(waiting).collect()
    }

    fn wish_of(&self, id: CommandId) -> Option<(OfficeId, Wish)> {
        let work = self.work.get(&id)?;
        let (repository, base, fresh) = match &work.command {
            Command::SendPrompt(args) => (args.repository.clone(), None, false),
            Command::CreateSession(args) => (args.repository.clone(), args.base.clone(), true),
            _ => return None,
        };
        let wish = Wish {
            agent: work.row.agent_id?,
            // A warm session stands in the default repository: a command that names none is served there.
            repository,
            base,
            fresh,
        };
        Some((work.row.office_id, wish))
    }

    /// How much room there is now.
    pub(super) fn room(&self) -> Room {
        let memory: Vec<_> = self
            .sessions
            .values()
            .filter(|live| !live.state.is_over())
            .map(|live| live.memory_mb)
            .collect();
        Room {
            sessions_max: self.sessions_max(),
            memory: self
                .pool
                .pressure
                .allows_session(&memory, self.limits().memory_mb_max),
        }
    }

    pub(super) fn sessions_max(&self) -> usize {
        self.limits().sessions_max
    }

    /// A command is placed: it is its agent's turn that is used up, and those before it were passed over.
    fn leave_line(&mut self, id: CommandId, agent: AgentId) {
        let before: Vec<_> = self
            .line
            .iter()
            .take_while(|waiting| **waiting != id)
            .copied()
            .collect();
        for passed in before {
            if let Some(work) = self.work.get_mut(&passed) {
                work.passed_over = work.passed_over.saturating_add(1);
            }
        }
        self.line.retain(|waiting| *waiting != id);
        self.pool.note_served(agent, self.line.is_empty());
        if let Some(work) = self.work.get_mut(&id) {
            work.waits_because = None;
        }
    }

    fn waits_because(&mut self, id: CommandId, because: impl Into<String>) {
        if let Some(work) = self.work.get_mut(&id) {
            let because = Some(because.into());
            if work.waits_because != because {
                work.waits_because = because;
                self.changed = true;
            }
        }
    }

    fn full(&self) -> String {
        format!(
            "all {} sessions that this office may have here are open or there is no memory for one more (settings \
             limits.sessions_max and limits.memory_mb_max, and the office's own); end one first",
            self.sessions_max()
        )
    }

    /// Gives a prompt to the session that it names.
    pub(super) fn prompt_session(&mut self, id: CommandId, session: SessionId) {
        let office = self.work.get(&id).map(|work| work.row.office_id);
        let live = self.sessions.get(&session);
        if live.is_some_and(|live| Some(live.office) == office && live.is_usable()) {
            self.use_session(id, session);
        } else {
            self.no_such_session(id, session);
        }
    }

    /// Gives a command to a session: when it is found fit where it is idle, when it is ready where it starts, behind
    /// its other turns where it works.
    pub(super) fn use_session(&mut self, id: CommandId, session: SessionId) {
        let Some(live) = self.sessions.get_mut(&session) else {
            return self.no_such_session(id, session);
        };
        match live.state {
            SessionState::Stopping if live.ending => self.no_such_session(id, session),
            SessionState::Exited { .. } => self.no_such_session(id, session),
            // One that stops without our wish is about to be started again, or its end tells.
            SessionState::Starting | SessionState::Stopping => {
                live.holder.get_or_insert(id);
                self.wait_for_start(id, session);
            }
            SessionState::Idle => {
                live.holder.get_or_insert(id);
                self.wait_for_start(id, session);
                self.ask_to_begin_early(id);
                self.check(session);
            }
            // Nothing is queued in a session: the office's word to begin would grow old there.
            SessionState::Working { .. } | SessionState::AwaitingPerson { .. } => {
                self.wait_for_start(id, session);
            }
        }
    }

    /// A command waits for a session to become ready, but not for ever: a dialog may be open in it.
    pub(super) fn wait_for_start(&mut self, id: CommandId, session: SessionId) {
        let Some(work) = self.work.get_mut(&id) else {
            return;
        };
        work.stage = Stage::Starting { session };
        let makes_it = matches!(work.command, Command::CreateSession(_));
        let limit = match &work.command {
            Command::SendPrompt(args) => {
                Duration::from_secs(args.timeout_s.unwrap_or(TURN_TIMEOUT_S_DEFAULT))
            }
            _ => CREATE_WAIT_MAX,
        };
        work.start_limit.get_or_insert(Instant::now() + limit);
        if makes_it && let Err(error) = self.ground.journal.bind_session(id, session) {
            tracing::warn!(command = %id, %error, "which session a command has is not in the journal");
        }
    }
}

fn waits_for(what: WaitsFor) -> &'static str {
    match what {
        WaitsFor::Leaving => "a session is being ended to make room for it",
        WaitsFor::Place => "all sessions that this office may have here are at work",
        WaitsFor::Memory => "the memory that sessions may take is used up by those at work",
    }
}

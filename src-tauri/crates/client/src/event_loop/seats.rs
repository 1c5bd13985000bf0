//! The sessions at hand: their notes, what that means for the commands that have them, what the office is told.

use std::collections::HashSet;
use std::path::PathBuf;

use domain::evidence::Tier;
use domain::session::{Ask, SessionState};
use domain::turn::{FailureClass, TurnOutcome};
use domain::{AgentId, CommandId, OfficeId, SessionId, Timestamp};
use journal::SessionRow;
use provider::Version;
use provider::claude::{self, AuthFailure};
use serde_json::{Value, json};
use session::{Session, SessionNote, TurnReport};
use supabase::{AgentRow, RestError, SessionDraft};
use tokio::time::Instant;
use worktree::{Worktree, WorktreeSpec, persona_hash};

use super::detail::Detail;
use super::finish::End;
use super::office::client_in;
use super::publish::retry_words;
use super::restart::Restart;
use super::{Event, EventLoop, Stage, Work};
use crate::pool::{Seat, is_at_rest};

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
    /// The words of a retry of the provider's API that is under way.
    pub retrying: Option<String>,
    pub ending: bool,
    /// How often its end could not be proven, and when that is tried again.
    pub unproven: Option<(u32, Instant)>,
    /// What its hooks must show.
    pub secret: String,
    /// It was started ahead of need, and nobody has used it yet: the office does not know of it.
    pub warm: bool,
    /// It was started ahead of need, and no command has had it yet, though a person may have typed into it.
    pub ahead: bool,
    /// The hash of the persona that it was started with.
    pub persona_hash: String,
    /// Its agent has another persona now.
    pub stale: bool,
    /// Its agent is not in the office any more.
    pub orphaned: bool,
    /// What it takes of the memory with everything it has started, in MiB.
    pub memory_mb: Option<u64>,
    /// How often it was started again after an unexpected end.
    pub restarts: u32,
    /// A turn has begun in it: there is a conversation to resume.
    pub talked: bool,
    /// Its program has shown its prompt since its last start.
    pub was_ready: bool,
    /// That start took up the conversation of before.
    pub resumed: bool,
    /// It was started again: it is looked at before it gets work.
    pub unchecked: bool,
    /// That look is under way.
    pub checking: bool,
    /// Somebody used it while it was looked at, so that it has to be looked at again.
    pub look_again: bool,
    /// Nothing ran in it when it began to stop.
    pub rested: bool,
    /// The program's own id of its conversation, where that is not the session's: somebody has left that one.
    pub conversation: Option<SessionId>,
    /// A restart that is under way.
    pub restart: Option<Restart>,
    /// Program of its agent: `claude`, `scripted`.
    pub provider: String,
    /// Version of that program when it was started, where that is known.
    pub version: Option<Version>,
    /// What is not settled about it after a start of the core.
    pub hold: Option<Hold>,
    /// An earlier core had begun it.
    pub taken_up: bool,
    /// Its program is to be started again with its conversation as soon as the office is joined.
    pub resumes: bool,
    /// What the journal has of it for a later core; nothing while it has no row yet.
    pub kept: Option<Detail>,
}

/// What is not settled about a session of an earlier core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Its holder is being looked for.
    Recovering,
    /// Its holder does not answer.
    Held,
}

impl Live {
    /// Work may be given to it, now or when it is ready.
    pub(super) fn is_usable(&self) -> bool {
        !self.ending
    }

    /// Its program rests, also by what its notes have not told yet.
    pub(super) fn is_idle_now(&self) -> bool {
        let now = |session: &Session| *session.state().borrow() == SessionState::Idle;
        self.state == SessionState::Idle && self.session.as_ref().is_some_and(now)
    }

    /// A session that is about to be started for `agent` in the worktree of `spec`.
    pub(super) fn starting(
        agent: &AgentRow,
        spec: &WorktreeSpec,
        repository: String,
        secret: String,
        now: Timestamp,
        deadline: Instant,
    ) -> Live {
        Live {
            agent: agent.id,
            office: agent.office_id,
            title: title_of(agent),
            repository,
            branch: spec.branch.clone(),
            worktree: spec.root.join(&spec.name),
            place: None,
            session: None,
            state: SessionState::Starting,
            started_at: now,
            idle_since: None,
            holder: None,
            start_deadline: Some(deadline),
            asks: None,
            retrying: None,
            ending: false,
            unproven: None,
            secret,
            warm: false,
            ahead: false,
            persona_hash: persona_hash(&agent.persona().render()),
            stale: false,
            orphaned: false,
            memory_mb: None,
            restarts: 0,
            talked: false,
            was_ready: false,
            resumed: false,
            unchecked: false,
            checking: false,
            look_again: false,
            rested: false,
            conversation: None,
            restart: None,
            provider: agent.provider.clone(),
            version: None,
            hold: None,
            taken_up: false,
            resumes: false,
            kept: None,
        }
    }

    /// A session of an earlier core, as far as the journal knows it.
    pub(super) fn left(row: &SessionRow, detail: &Detail) -> Live {
        Live {
            agent: row.agent,
            office: row.office,
            title: row.title.clone(),
            repository: row.repository.clone(),
            branch: row.branch.clone(),
            worktree: row.worktree.clone(),
            place: None,
            session: None,
            // What it is now, it tells itself.
            state: SessionState::Starting,
            started_at: row.started_at,
            idle_since: detail.idle_since,
            holder: None,
            start_deadline: None,
            asks: None,
            retrying: None,
            ending: detail.ending,
            unproven: None,
            secret: detail.secret.clone(),
            warm: detail.warm,
            ahead: detail.warm,
            persona_hash: detail.persona_hash.clone(),
            stale: detail.stale,
            orphaned: false,
            memory_mb: None,
            restarts: detail.restarts,
            talked: detail.talked,
            was_ready: detail.was_ready,
            resumed: detail.resumed,
            unchecked: detail.unchecked,
            checking: false,
            look_again: false,
            rested: false,
            conversation: detail.conversation,
            restart: None,
            provider: detail.provider.clone(),
            version: detail.version.as_deref().and_then(Version::parse),
            hold: Some(Hold::Recovering),
            taken_up: false,
            resumes: false,
            kept: Some(detail.clone()),
        }
    }

    /// Its row in the journal.
    pub(super) fn row(&self, id: SessionId, base: Option<String>) -> SessionRow {
        SessionRow {
            id,
            office: self.office,
            agent: self.agent,
            title: self.title.clone(),
            repository: self.repository.clone(),
            worktree: self.worktree.clone(),
            branch: self.branch.clone(),
            base,
            state: self.state.clone(),
            started_at: self.started_at,
            ended_at: None,
            detail: self.detail().value(),
        }
    }
}

impl EventLoop {
    /// The sessions of one office, as the pool's decisions see them.
    pub(super) fn seats(&self, office: OfficeId) -> Vec<Seat> {
        self.seats_where(|live| live.office == office)
    }

    /// All sessions on this machine, whose memory is shared.
    pub(super) fn all_seats(&self) -> Vec<Seat> {
        self.seats_where(|_| true)
    }

    fn seats_where(&self, wanted: impl Fn(&Live) -> bool) -> Vec<Seat> {
        let busy: HashSet<SessionId> = self
            .work
            .values()
            .filter_map(|work| work.stage.session())
            .collect();
        let seat = |(id, live): (&SessionId, &Live)| Seat {
            id: *id,
            agent: live.agent,
            repository: live.repository.clone(),
            state: if live.ending {
                SessionState::Stopping
            } else {
                live.state.clone()
            },
            taken: live.holder.is_some() || live.hold.is_some() || busy.contains(id),
            warm: live.warm,
            stale: live.stale,
            started_at: live.started_at,
            idle_since: live.idle_since,
        };
        self.sessions
            .iter()
            .filter(|(_, live)| wanted(live))
            .map(seat)
            .collect()
    }

    /// Whether a command has this session or waits for it.
    pub(super) fn is_busy(&self, id: SessionId) -> bool {
        let held = self.sessions.get(&id).is_some_and(|live| live.holder.is_some());
        held || self.work.values().any(|work| work.stage.session() == Some(id))
    }

    pub(super) fn take_note(&mut self, note: SessionNote) {
        let Some(note) = self.kept_until_settled(note) else {
            return;
        };
        self.changed = true;
        match note {
            // The end is told by the last note, which says more.
            SessionNote::State { state, .. } if state.is_over() => {}
            SessionNote::State { session, state } => self.state_changed(session, state),
            SessionNote::Asked { session, ask } => {
                self.asked(session, ask.kind, ask.text.clone());
                self.ask_raised(ask);
            }
            SessionNote::AskClosed { ask, end, .. } => self.ask_closed(ask, end),
            SessionNote::Retrying { session, retry } => {
                if let Some(live) = self.sessions.get_mut(&session) {
                    live.retrying = retry.map(|retry| retry_words(&retry));
                }
            }
            SessionNote::TurnEnded { session, report } => self.turn_ended(session, *report),
            SessionNote::TakenOver { session, words } => self.taken_over(session, &words),
            SessionNote::Exited { session, exit } => self.program_ended(session, exit),
        }
    }

    /// What a program that ended before it was ready said last: the best that can be told about why.
    pub(super) fn keep_last_words(&mut self, id: SessionId, words: Option<String>, how: String) {
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        if live.was_ready {
            live.asks = Some(how);
        } else if let Some(words) = words.filter(|words| !words.trim().is_empty()) {
            live.asks = Some(format!(
                "the agent program ended before it was ready; its last words: {}",
                words.trim()
            ));
        }
    }

    pub(super) fn state_changed(&mut self, id: SessionId, state: SessionState) {
        let now = self.now();
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        // What the old program still says while it is replaced is not the state of the session.
        if live.restart.is_some() {
            return;
        }
        if live.state == state {
            if live.look_again && state == SessionState::Idle {
                // It worked meanwhile, so shortly that nobody was told.
                self.session_is_idle(id);
            }
            return;
        }
        tracing::debug!(session = %id, ?state, "a session's state");
        live.state = state.clone();
        if !matches!(state, SessionState::Stopping | SessionState::Exited { .. }) {
            live.rested = is_at_rest(&state);
        }
        live.look_again |= live.checking && state != SessionState::Idle;
        live.idle_since = is_at_rest(&state).then_some(now);
        if !matches!(
            state,
            SessionState::AwaitingPerson { .. } | SessionState::Exited { .. }
        ) {
            live.asks = None;
        }
        if matches!(state, SessionState::AwaitingPerson { .. } | SessionState::Idle) {
            // It has come up: from here on a person's pace counts.
            live.start_deadline = None;
        }
        live.was_ready |= matches!(state, SessionState::Idle | SessionState::Working { .. });
        if matches!(state, SessionState::Working { .. }) {
            // Also when somebody typed into a warm one: it is not untouched any more.
            live.talked = true;
            live.warm = false;
        }
        if let Err(error) = self.ground.journal.set_session_state(id, &state, now) {
            tracing::warn!(session = %id, %error, "a session's state is not in the journal");
        }
        self.tell_office(id);
        if state == SessionState::Idle {
            self.session_is_idle(id);
        }
    }

    /// The commands that wait for this session to become ready, in the order in which they came.
    pub(super) fn waiting_for_start(&self, id: SessionId) -> Vec<CommandId> {
        let waits = |work: &&Work| work.stage == Stage::Starting { session: id };
        let mut waiting: Vec<_> = self.work.values().filter(waits).collect();
        waiting.sort_by_key(|work| work.row.seq);
        waiting.into_iter().map(|work| work.row.id).collect()
    }

    /// Begins what waited for this session's start, then looks at the line. One that was started ahead of need, or
    /// started again, or used while it was looked at, is looked at first.
    pub(super) fn session_is_idle(&mut self, id: SessionId) {
        let Some(live) = self.sessions.get(&id) else {
            return;
        };
        if live.session.is_none() {
            // The news that it was started is still on its way.
            return;
        }
        if self.is_stopping() {
            return self.end_what_rests();
        }
        if live.checking {
            // That look's end hands it over, or looks again.
        } else if live.unchecked || (live.look_again || live.warm) && self.is_busy(id) {
            self.check(id);
        } else {
            self.hand_over(id);
        }
        self.renew_if_stale(id);
        self.advance_line();
    }

    fn asked(&mut self, id: SessionId, ask: Ask, text: String) {
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        live.asks = Some(text);
        if ask == Ask::Login {
            self.signed_out("nobody is signed in to it on this machine");
            for command in self.waiting_for_start(id) {
                self.end(command, End::failed("auth", claude::SIGN_IN_HINT));
            }
        }
    }

    fn turn_ended(&mut self, session: SessionId, mut report: TurnReport) {
        self.add_answers(&mut report);
        let turn = report.turn;
        if let TurnOutcome::Failed {
            class: FailureClass::Auth,
            detail,
            ..
        } = &mut report.outcome
        {
            let about = claude::auth_failure(detail);
            if about == AuthFailure::SignedOut {
                self.signed_out(detail);
            }
            detail.push_str("; ");
            detail.push_str(about.steps());
        } else if report.outcome == TurnOutcome::Done {
            self.solved("claude_signed_out");
            self.solved("session_lost");
        }
        let program_works = shows_a_program_that_works(&report);
        if let Some(live) = self.sessions.get_mut(&session) {
            live.talked = true;
            let agent = live.agent;
            if program_works {
                self.went_well(agent);
            }
        }
        let carried = self.work.iter().find_map(|(command, work)| match work.stage {
            Stage::Turn { turn: its, .. } if its == turn => Some(*command),
            _ => None,
        });
        if report.outcome == TurnOutcome::Cancelled {
            let by = self.cancelled_by(carried, session, &report.evidence.rule);
            if let Some(by) = by {
                report.evidence.add("cancelled_by", by, Tier::Observed, "core");
            }
        }
        match carried {
            Some(command) if self.was_never_entered(command, &report) => {
                self.goes_back(command, session, turn);
            }
            Some(command) => self.end(command, End::of_turn(report, session)),
            None => {
                if self.keep_if_elsewhere(session, report).is_some() {
                    tracing::warn!(%session, %turn, "a turn ended that no command waits for");
                }
            }
        }
        self.renew_if_stale(session);
    }

    /// Who stopped a turn, where that is known.
    fn cancelled_by(&self, carried: Option<CommandId>, session: SessionId, rule: &str) -> Option<Value> {
        let asked = carried.and_then(|command| self.work.get(&command)?.cancelled_by.clone());
        let ender = self
            .work
            .values()
            .find(|work| work.stage == Stage::UntilGone { session });
        match (asked, rule, ender) {
            (Some(asked), _, _) => Some(asked),
            (None, "interrupted-at-keyboard", _) => Some(json!({ "way": "keyboard" })),
            (None, _, Some(work)) => Some(json!({ "way": "terminate", "command_id": work.row.id })),
            (None, "session-ended", None) if self.ground.stop.is_cancelled() => {
                Some(json!({ "way": "shutdown" }))
            }
            (None, ..) => None,
        }
    }

    /// A warm session is nobody's yet: the office hears of it when it is taken.
    pub(super) fn tell_office(&mut self, id: SessionId) {
        if let Some(live) = self.sessions.get(&id).filter(|live| !live.warm) {
            let draft = self.draft(id, live);
            self.tell(draft);
        }
    }

    pub(super) fn draft(&self, id: SessionId, live: &Live) -> SessionDraft {
        SessionDraft {
            session: id,
            office: live.office,
            client: client_in(&self.ground.identity, live.office, self.ground.auth.user()),
            agent: live.agent,
            state: state_name(&live.state).to_owned(),
            repository: live.repository.clone(),
            branch: live.branch.clone(),
        }
    }

    /// Tells the office of a session's state: one call at a time, the newest state of each session, so that an old one
    /// never lands on top of it.
    pub(super) fn tell(&mut self, draft: SessionDraft) {
        self.untold.insert(draft.session, draft);
        self.tell_next();
    }

    /// Tells the next piece of news, unless one is on its way or no office is joined. What is about an office that the
    /// present account does not have is nobody's business there.
    pub(super) fn tell_next(&mut self) {
        let Some(data) = self.office.as_ref().filter(|_| !self.telling) else {
            return;
        };
        let mut all = self.untold.iter();
        let next = all.find_map(|(id, draft)| data.knows(draft.office).then_some(*id));
        let Some(mut draft) = next.and_then(|id| self.untold.remove(&id)) else {
            return;
        };
        self.telling = true;
        // Who is signed in is known now at the latest.
        draft.client = client_in(&self.ground.identity, draft.office, self.ground.auth.user());
        let rest = self.ground.rest.clone();
        self.start(async move {
            let result = rest.upsert_session(&draft).await;
            Event::Told {
                draft,
                result: result.map(drop),
            }
        });
    }

    /// The office has been told, or not: then it is told again with the next poll, unless there is newer news.
    pub(super) fn told(&mut self, draft: SessionDraft, result: Result<(), RestError>) {
        self.telling = false;
        match result {
            Ok(()) => self.tell_next(),
            Err(error) => {
                tracing::debug!(session = %draft.session, %error, "the office was not told of a session's state");
                if error.is_passing() {
                    self.untold.entry(draft.session).or_insert(draft);
                } else {
                    self.tell_next();
                }
            }
        }
    }
}

/// Whether this end shows that the agent's program runs and takes prompts: what failed before does not count any more
/// then. A prompt that never reached it shows nothing.
fn shows_a_program_that_works(report: &TurnReport) -> bool {
    match &report.outcome {
        TurnOutcome::Done | TurnOutcome::Unconfirmed { .. } => true,
        TurnOutcome::Cancelled => report.timings.acknowledged_at.is_some(),
        TurnOutcome::Failed { class, .. } => match class {
            FailureClass::RateLimit
            | FailureClass::Auth
            | FailureClass::Billing
            | FailureClass::Context
            | FailureClass::Overloaded
            | FailureClass::Connection
            | FailureClass::Server => true,
            FailureClass::ProviderExit
            | FailureClass::Timeout
            | FailureClass::Refused
            | FailureClass::NotSubmitted
            | FailureClass::Other => false,
        },
    }
}

/// A session's title: role and name of its agent.
pub(super) fn title_of(agent: &AgentRow) -> String {
    format!("{} · {}", agent.role, agent.name)
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

#[cfg(test)]
mod tests {
    use domain::TurnId;
    use domain::evidence::Evidence;
    use session::TurnTimings;
    use uuid::Uuid;

    use super::*;

    fn ended(outcome: TurnOutcome, acknowledged: bool) -> TurnReport {
        TurnReport {
            turn: TurnId(Uuid::nil()),
            outcome,
            final_message: None,
            evidence: Evidence::default(),
            timings: TurnTimings {
                requested_at: Timestamp(0),
                first_byte_at: None,
                first_byte_after_us: None,
                submitted_at: None,
                acknowledged_at: acknowledged.then_some(Timestamp(1)),
                ended_at: Timestamp(2),
            },
        }
    }

    #[test]
    fn only_a_turn_that_reached_the_program_shows_that_it_works() {
        let failed = |class| TurnOutcome::Failed {
            class,
            detail: String::new(),
            retry_at: None,
        };
        for (outcome, acknowledged, works) in [
            (TurnOutcome::Done, true, true),
            (TurnOutcome::Cancelled, true, true),
            (TurnOutcome::Cancelled, false, false),
            (failed(FailureClass::RateLimit), true, true),
            (failed(FailureClass::NotSubmitted), false, false),
            (failed(FailureClass::ProviderExit), true, false),
            (failed(FailureClass::Timeout), true, false),
        ] {
            let report = ended(outcome, acknowledged);
            assert_eq!(shows_a_program_that_works(&report), works, "{report:?}");
        }
    }
}

//! A workstation: the rules of `crate::rules` and `crate::recovery` under a loop that does what they say, as the real one
//! does with real sessions. What it holds in memory is gone after a crash; its [`Paper`] and its agents are not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::LazyLock;
use std::time::Duration;

use domain::policy::Decision;
use domain::turn::TurnStage;
use domain::{Command, CommandId, Timestamp};
use journal::Acknowledgement;
use serde_json::{Value, json};
use supabase::{BeginAnswer, ClaimedCommand, Completion, Renewal, RestError};
use tokio::time::Instant;
use uuid::Uuid;

use super::office::{Begin, By, Claimed, Completed, State};
use super::paper::{Broken, End, Outgoing, Paper, Says};
use super::world::{Answer, Event, Question, Who, World};
use super::{Breach, planted};
use crate::recovery::Deed;
use crate::rules::claims::{Room, known};
use crate::rules::desk::{Asking, Desk};
use crate::rules::intake::{Intake, Opening, opening};
use crate::rules::lease::Means;
use crate::rules::moment::Moment;
use crate::rules::report::{Next, Sent, after};

/// Sessions that one workstation may have.
pub(super) const SESSIONS_MAX: usize = 3;
/// How often a workstation looks at its deadlines. The real one does so each second; nothing depends on it.
const TICK_MS: i64 = 2_000;
const QUIET_TICK_MS: i64 = 30_000;
const POLL_MS: i64 = 3_000;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
static PROMPT: LazyLock<Value> = LazyLock::new(|| json!({ "prompt": "x" }));

/// How far a command has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    InLine,
    Starting {
        session: Uuid,
    },
    /// Its submission is at this step.
    Turn {
        session: Uuid,
        at: TurnStage,
        entered: bool,
    },
    /// Keys are on their way.
    Keys {
        session: Uuid,
        pressed: bool,
    },
    /// It names a session whose holder does not answer yet.
    UntilSettled {
        session: Uuid,
    },
    /// It had to wait for that; the office is asked whether it may still be begun.
    UntilLetBegin,
    /// The program of a session is being ended for it.
    Ending {
        session: Uuid,
    },
    /// It has asked for the end of another command here.
    UntilEnded {
        command: CommandId,
    },
    /// The office is asked to stop another command.
    Asking,
    /// An earlier core had it, and what holds its session does not answer.
    Waiting,
    /// An earlier core had it; it is run again when its lease is proven ours.
    Left,
    /// The same of a cancel that is passed on once more.
    LeftCancel,
    Ended,
}

#[derive(Debug, Clone)]
pub(super) struct Work {
    pub row: ClaimedCommand,
    pub stage: Stage,
    pub cancel_wanted: bool,
    /// The turn was stopped for its time.
    pub timed_out: bool,
}

/// A session in our view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seat {
    Starting,
    Ready,
}

pub(super) struct Workstation {
    pub client: Uuid,
    /// The key of its data folder: a copy has another one.
    pub folder: Uuid,
    /// Another core works as this client: it has ended itself.
    pub retired: bool,
    pub launch: u32,
    pub is_up: bool,
    pub skew_ms: i64,
    pub slept_ms: i64,
    pub asleep_until: i64,
    pub cut_until: i64,
    pub paper: Paper,
    pub desk: Desk,
    pub work: BTreeMap<CommandId, Work>,
    pub endings: VecDeque<(CommandId, End)>,
    pub seats: BTreeMap<Uuid, Seat>,
    poll_at: i64,
    reporting: bool,
}

impl Workstation {
    pub fn new(who: Who) -> Workstation {
        Workstation {
            client: Uuid::from_u128(who as u128 + 1),
            folder: Uuid::from_u128(0xf000 + who as u128),
            retired: false,
            launch: 0,
            is_up: false,
            skew_ms: 0,
            slept_ms: 0,
            asleep_until: 0,
            cut_until: 0,
            paper: Paper::default(),
            desk: Desk::default(),
            work: BTreeMap::new(),
            endings: VecDeque::new(),
            seats: BTreeMap::new(),
            poll_at: 0,
            reporting: false,
        }
    }

    /// A copy of its data folder, with a key of its own, in which a core of the same client can be started beside it.
    pub fn copied(&self, who: Who) -> Workstation {
        Workstation {
            client: self.client,
            skew_ms: self.skew_ms,
            slept_ms: self.slept_ms,
            paper: self.paper.clone(),
            ..Workstation::new(who)
        }
    }

    /// As who it asks the office.
    pub fn by(&self) -> By {
        By {
            client: self.client,
            folder: (!planted(Breach::CopiesAreNotToldApart)).then_some(self.folder),
        }
    }

    /// What a crash takes.
    pub fn forget(&mut self) {
        self.is_up = false;
        self.launch += 1;
        self.desk = Desk::default();
        self.work.clear();
        self.endings.clear();
        self.seats.clear();
        self.poll_at = 0;
        self.reporting = false;
    }

    pub fn is_busy(&self, session: Uuid) -> bool {
        self.work.values().any(|work| match work.stage {
            Stage::Starting { session: its } | Stage::Turn { session: its, .. } => its == session,
            Stage::Ending { session: its } => its == session,
            Stage::InLine
            | Stage::Keys { .. }
            | Stage::UntilSettled { .. }
            | Stage::UntilLetBegin
            | Stage::UntilEnded { .. }
            | Stage::Asking
            | Stage::Waiting
            | Stage::Left
            | Stage::LeftCancel
            | Stage::Ended => false,
        })
    }
}

/// The row as `supabase` reads it.
fn row_of(claimed: &Claimed, target: Option<CommandId>) -> ClaimedCommand {
    let row = &claimed.row;
    let args = match (row.kind, row.session) {
        ("send_keys", Some(session)) => json!({ "session": session, "text": "y" }),
        ("approve", Some(session)) => json!({ "session": session, "answer": { "say": "allow" } }),
        ("terminate", Some(session)) => json!({ "session": session }),
        ("cancel", session) => json!({ "session": session, "command": target }),
        ("create_session", _) => json!({}),
        ("send_prompt", _) => PROMPT.clone(),
        _ => Value::Null,
    };
    ClaimedCommand {
        id: CommandId(row.id),
        seq: row.seq,
        office_id: Uuid::nil().into(),
        agent_id: None,
        session_id: row.session.map(Into::into),
        kind: row.kind.to_owned(),
        args,
        priority: row.priority,
        attempt: row.attempt,
        lease_token: claimed.token,
        lease_until: Timestamp(row.lease_until.unwrap_or_default()),
        cancel_requested_at: row.cancel_wanted.then_some(Timestamp(0)),
        created_at: Timestamp(0),
        expires_at: Some(Timestamp(row.expires_at)),
        begun: claimed.begun,
    }
}

pub(super) fn deed_of(row: &ClaimedCommand) -> Deed {
    Command::parse(&row.kind, &row.args).map_or(Deed::Read, |command| Deed::of(&command))
}

pub(super) fn end(status: State, says: Says) -> End {
    End { status, says }
}

impl World {
    pub fn moment(&self, who: Who) -> Moment {
        let station = &self.stations[who];
        let steady = (self.now() - 1_000_000_000 - station.slept_ms).max(0);
        Moment {
            at: *START + Duration::from_millis(steady as u64),
            wall: self.wall(who),
        }
    }

    pub fn wall(&self, who: Who) -> Timestamp {
        Timestamp(self.now() + self.stations[who].skew_ms)
    }

    /// Whether the core dies here; then nothing more is done by it.
    pub fn dies_here(&mut self, who: Who, step: &'static str) -> bool {
        if self.healed || !self.dice.per_mille(self.faults.crash_at_step) {
            return false;
        }
        self.tell(|| format!("{who} dies at {step}"));
        let down_ms = self.dice.one_of(&[200, 10_000, 90_000]);
        self.crash(who, down_ms);
        true
    }

    pub fn start(&mut self, who: Who) {
        let (now, asleep_until) = (self.now(), self.stations[who].asleep_until);
        if asleep_until > now {
            return self.after(asleep_until - now, Event::Start { who });
        }
        if self.stations[who].is_up || self.stations[who].retired {
            return;
        }
        self.stations[who].forget();
        self.stations[who].is_up = true;
        let By { client, folder } = self.stations[who].by();
        self.office.register(client, folder);
        let launch = self.stations[who].launch;
        self.tell(|| format!("{who} starts, launch {launch}"));
        self.recover(who);
        self.after(0, Event::Tick { who, launch });
    }

    pub fn at_workstation(&mut self, who: Who, event: Event) {
        let now = self.now();
        let station = &self.stations[who];
        if station.asleep_until > now {
            return self.after(station.asleep_until - now, event);
        }
        let launch = station.launch;
        let is_current = station.is_up
            && match &event {
                Event::Tick { launch: its, .. }
                | Event::Answered { launch: its, .. }
                | Event::SessionReady { launch: its, .. }
                | Event::Step { launch: its, .. }
                | Event::Noticed { launch: its, .. }
                | Event::TimedOut { launch: its, .. } => *its == launch,
                _ => true,
            };
        if !is_current {
            return;
        }
        match event {
            Event::Tick { .. } => self.tick(who),
            Event::Doorbell { cancel, .. } => {
                if let Some(command) = cancel {
                    self.cancel_work(who, command);
                }
                self.claim(who);
            }
            Event::Answered { answer, .. } => self.answered(who, answer),
            Event::SessionReady { session, .. } => self.session_ready(who, session),
            Event::Step { command, .. } => self.step(who, command),
            Event::Noticed { command, .. } => self.turn_ended(who, command),
            Event::TimedOut { command, .. } => self.timed_out(who, command),
            _ => {}
        }
    }

    fn tick(&mut self, who: Who) {
        let now = self.moment(who);
        for (command, token) in self.stations[who].desk.renew(now) {
            self.ask(who, Question::Renew { command, token });
        }
        for command in self.stations[who].desk.ask_again(now) {
            self.proceed(who, command);
        }
        if self.stations[who].poll_at <= self.now() {
            self.stations[who].poll_at = self.now() + POLL_MS;
            self.claim(who);
        }
        self.write_down_claimed(who);
        self.claim_what_was_wished(who);
        self.write_endings(who);
        self.end_expired_in_line(who);
        self.look_at_silent_ones(who);
        self.advance_line(who);
        self.report(who);
        let launch = self.stations[who].launch;
        if self.stations[who].is_up {
            let ms = if self.is_quiet(who) {
                QUIET_TICK_MS
            } else {
                TICK_MS
            };
            self.after(ms, Event::Tick { who, launch });
        }
    }

    /// Nothing is to be done here.
    fn is_quiet(&self, who: Who) -> bool {
        let known = self.known(who).unwrap_or_default();
        let station = &self.stations[who];
        station.work.is_empty()
            && station.paper.waiting().next().is_none()
            && !self
                .office
                .rows
                .values()
                .any(|row| self.office.may_claim(station.by(), None, Some(&known), row))
    }

    fn room(&self, who: Who) -> Room {
        let station = &self.stations[who];
        let busy = station.seats.keys().filter(|session| station.is_busy(**session));
        let in_line = |work: &&Work| work.stage == Stage::InLine;
        Room {
            places: SESSIONS_MAX.saturating_sub(busy.count()),
            line: station.work.values().filter(in_line).count(),
        }
    }

    fn claim(&mut self, who: Who) {
        let (room, now) = (self.room(who), self.moment(who));
        if let Some(Asking { wanted, lease_s }) = self.stations[who].desk.wish_claim(true, room, now) {
            let known = self.known(who);
            let question = Question::Claim {
                wanted,
                lease_s,
                known,
            };
            self.ask(who, question);
        }
    }

    fn known(&self, who: Who) -> Option<Vec<Uuid>> {
        if self.is(Breach::LostIsLeftToItsLease) {
            return None;
        }
        let station = &self.stations[who];
        let known = known(station.desk.held(), station.paper.waiting().map(|(id, _)| id));
        known.map(|known| known.into_iter().map(|id| id.0).collect())
    }

    fn claim_what_was_wished(&mut self, who: Who) {
        let now = self.moment(who);
        if self.stations[who].desk.claim_is_due(now) {
            self.claim(who);
        }
    }

    fn answered(&mut self, who: Who, answer: Answer) {
        let now = self.moment(who);
        match answer {
            Answer::Claim(rows) => {
                if self.dies_here(who, "claimed") {
                    return;
                }
                let came = rows.is_some();
                let rows = rows.unwrap_or_default();
                let target = |id: Uuid| self.targets.get(&CommandId(id)).copied();
                let rows: Vec<_> = rows.iter().map(|row| row_of(row, target(row.row.id))).collect();
                let more = self.room(who).may_be_more(rows.len());
                self.stations[who].desk.claimed(rows, now);
                if !came {
                    return;
                }
                self.write_down_claimed(who);
                self.stop_lost_work(who);
                if more {
                    self.claim(who);
                } else {
                    self.claim_what_was_wished(who);
                }
            }
            // It ends itself, and leaves its agents.
            Answer::AnotherIsThisClient => {
                self.tell(|| format!("{who} ends itself: another core is this client"));
                self.stations[who].forget();
                self.stations[who].retired = true;
            }
            Answer::Renew(command, token, said) => {
                let said = said.map(|(held, cancel)| Renewal { held, cancel });
                let means = self.stations[who].desk.renewed(command, token, said, now);
                self.follow_lease(who, command, means);
            }
            Answer::Begin(command, token, said) => {
                let said = said.map(|said| match said {
                    Begin::Begun => BeginAnswer::Begun,
                    Begin::Cancel => BeginAnswer::Cancel,
                    Begin::Expired => BeginAnswer::Expired,
                    Begin::Lost => BeginAnswer::Lost,
                });
                let means = self.stations[who].desk.begin_answered(command, token, said, now);
                self.follow_lease(who, command, means);
            }
            Answer::Report(command, result, said) => self.report_answered(who, command, result, said),
            Answer::Cancel(command, said) => self.cancel_answered(who, command, said),
        }
    }

    fn follow_lease(&mut self, who: Who, command: CommandId, means: Means) {
        match means {
            Means::GoOn | Means::Doubt => {}
            Means::Proceed => self.proceed(who, command),
            Means::Cancel => {
                self.cancel_work(who, command);
                // A cancel that an earlier core had begun is ours all the same, and goes on.
                if self.is_at(who, command, Stage::LeftCancel) {
                    self.cancel_again(who, command);
                }
            }
            Means::Expired => self.end(who, command, end(State::Failed, Says::NoEffect)),
        }
        self.claim_what_was_wished(who);
    }

    fn stop_lost_work(&mut self, who: Who) {
        for command in self.stations[who].desk.lost() {
            self.tell(|| format!("{who} has lost {command}"));
            self.check_loss(who, command);
            let ended = self.stations[who]
                .work
                .get(&command)
                .is_none_or(|work| work.stage == Stage::Ended);
            let let_go = match self.is(Breach::LostIsCancelled) || ended {
                true => Ok(false),
                false => self.stations[who].paper.let_go(command),
            };
            match let_go {
                Ok(true) => {
                    self.stations[who].work.remove(&command);
                    self.stations[who].desk.release(command);
                }
                // It stands begun in the journal, and here it waits: whoever has it now knows more.
                Ok(false) if self.waits_begun(who, command) => {
                    self.end(who, command, end(State::Unconfirmed, Says::Unknown));
                }
                Ok(false) => {
                    self.cancel_work(who, command);
                    if self.is_at(who, command, Stage::LeftCancel) {
                        self.end(who, command, end(State::Unconfirmed, Says::Unknown));
                    }
                }
                // It is looked at again after the next claim.
                Err(Broken) => {}
            }
        }
    }

    fn waits_begun(&self, who: Who, id: CommandId) -> bool {
        let work = self.stations[who].work.get(&id);
        !self.is(Breach::LostIsCancelled)
            && work.is_some_and(|work| {
                matches!(
                    work.stage,
                    Stage::InLine
                        | Stage::Left
                        | Stage::UntilSettled { .. }
                        | Stage::UntilLetBegin
                        | Stage::Starting { .. }
                )
            })
    }

    fn write_down_claimed(&mut self, who: Who) {
        loop {
            let (now, wall) = (self.moment(who), self.wall(who));
            let station = &mut self.stations[who];
            let Some(row) = station.desk.next_unwritten(now).cloned() else {
                return;
            };
            let Ok(received) = station.paper.receive(&row, station.folder, wall) else {
                return;
            };
            let Some((row, mut intake)) = station.desk.written(received) else {
                return;
            };
            if intake == Intake::GoOn && self.is(Breach::HeldIsBegunAgain) {
                intake = Intake::Begin;
            }
            self.tell(|| format!("{who} takes {} attempt {}: {intake:?}", row.id, row.attempt));
            if self.dies_here(who, "journalled") {
                return;
            }
            self.take(who, row, intake);
            if !self.stations[who].is_up {
                return;
            }
        }
    }

    fn take(&mut self, who: Who, row: ClaimedCommand, intake: Intake) {
        let id = row.id;
        match intake {
            Intake::Begin => self.open_command(who, row),
            Intake::GoOn => {
                if let Some(work) = self.stations[who].work.get_mut(&id) {
                    work.row = row;
                }
                self.proceed(who, id);
            }
            Intake::Unknown => {
                self.hold(who, row, Stage::InLine);
                self.end(who, id, end(State::Unconfirmed, Says::Unknown));
            }
            Intake::ReportAgain => {
                let (maker, wall) = (self.stations[who].folder, self.wall(who));
                // The office gives it out again if even this is not written down.
                let _ = self.stations[who].paper.report_again(id, maker, wall);
                self.report(who);
            }
        }
    }

    pub fn hold(&mut self, who: Who, row: ClaimedCommand, stage: Stage) {
        let work = Work {
            cancel_wanted: row.cancel_requested_at.is_some(),
            row,
            stage,
            timed_out: false,
        };
        self.stations[who].work.insert(work.row.id, work);
    }

    pub fn open_command(&mut self, who: Who, row: ClaimedCommand) {
        let id = row.id;
        let parsed = Command::parse(&row.kind, &row.args);
        let opening = opening(parsed, |_| Decision::Allow, row.cancel_requested_at.is_some());
        self.hold(who, row.clone(), Stage::InLine);
        match opening {
            Opening::CarryOut(_) if self.stations[who].desk.is_expired(id, self.moment(who)) => {
                self.end(who, id, end(State::Failed, Says::NoEffect));
            }
            Opening::CarryOut(_) => self.carry_out(who, id),
            Opening::Cancelled => self.end(who, id, end(State::Cancelled, Says::NoEffect)),
            Opening::Invalid(_) | Opening::Refused(_) => {
                self.end(who, id, end(State::Failed, Says::NoEffect));
            }
        }
    }

    pub fn is_at(&self, who: Who, id: CommandId, stage: Stage) -> bool {
        let work = self.stations[who].work.get(&id);
        work.is_some_and(|work| work.stage == stage)
    }

    pub fn set_stage(&mut self, who: Who, id: CommandId, stage: Stage) {
        if let Some(work) = self.stations[who].work.get_mut(&id) {
            work.stage = stage;
        }
    }

    pub fn end(&mut self, who: Who, id: CommandId, end: End) {
        let Some(work) = self.stations[who].work.get_mut(&id) else {
            return;
        };
        let session = match work.stage {
            Stage::Ended => return,
            Stage::Turn { session, .. } => Some(session),
            _ => None,
        };
        work.stage = Stage::Ended;
        self.tell(|| format!("{who} ends {id}: {end:?}"));
        self.stations[who].endings.push_back((id, end));
        if self.dies_here(who, "finished-before") {
            return;
        }
        self.write_endings(who);
        self.release_waiters(who, id);
        if let Some(session) = session.filter(|_| self.stations[who].is_up) {
            let launch = self.stations[who].launch;
            self.after(10, Event::SessionReady { who, launch, session });
        }
        self.claim(who);
    }

    fn write_endings(&mut self, who: Who) {
        while let Some((id, end)) = self.stations[who].endings.front().copied() {
            let (maker, wall) = (self.stations[who].folder, self.wall(who));
            let station = &mut self.stations[who];
            if station.paper.finish(id, end, maker, wall).is_err() {
                return;
            }
            station.endings.pop_front();
            station.work.remove(&id);
            station.desk.release(id);
            if self.dies_here(who, "finished-after") {
                return;
            }
            self.report(who);
        }
    }

    /// The outbox: one result at a time.
    pub fn report(&mut self, who: Who) {
        let wall = self.wall(who);
        let station = &mut self.stations[who];
        if station.reporting || !station.is_up {
            return;
        }
        if let Some((command, outgoing)) = station.paper.due(wall) {
            station.reporting = true;
            let Outgoing { id, token, end, .. } = outgoing;
            let question = Question::Report {
                command,
                token,
                result: id,
                status: end.status,
            };
            self.ask(who, question);
        }
    }

    fn report_answered(
        &mut self,
        who: Who,
        command: CommandId,
        result: Uuid,
        said: Option<Result<Completed, &'static str>>,
    ) {
        self.stations[who].reporting = false;
        if self.dies_here(who, "report-after") {
            return;
        }
        let wall = self.wall(who);
        let broken = self.stations[who].paper.broken;
        if let Some(outgoing) = self.stations[who].paper.outgoing(command, result)
            && !broken
        {
            match after(&completion(said), Sent::Whole, outgoing.tries, 0.75) {
                Next::Acknowledge(how) => outgoing.acknowledged = Some(how),
                Next::SendWithoutContent | Next::Postpone { .. }
                    if self.breach == Some(Breach::SilenceEndsReporting) =>
                {
                    outgoing.acknowledged = Some(Acknowledgement::Rejected);
                }
                Next::SendWithoutContent => {}
                Next::Postpone { pause_ms } => {
                    outgoing.tries += 1;
                    outgoing.next_try_at = wall.plus_ms(pause_ms as i64);
                }
            }
        }
        if !broken {
            self.report(who);
        }
    }
}

/// The answer as `supabase` gives it.
#[allow(clippy::result_large_err, reason = "it is what the rule takes")]
fn completion(said: Option<Result<Completed, &'static str>>) -> Result<Completion, RestError> {
    match said {
        Some(Ok(Completed::Recorded)) => Ok(Completion::Recorded),
        Some(Ok(Completed::Duplicate)) => Ok(Completion::Duplicate),
        Some(Ok(Completed::Late)) => Ok(Completion::Late),
        Some(Err(code)) => Err(RestError::NotFound {
            attempted: String::new(),
            code: code.to_owned(),
            message: String::new(),
        }),
        None => Err(RestError::Unreachable {
            attempted: String::new(),
            reason: String::new(),
            retry_after: None,
        }),
    }
}

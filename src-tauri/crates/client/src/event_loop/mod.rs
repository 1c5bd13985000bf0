//! The loop. Everything that happens comes in as an [`Event`], a session's note or a doorbell; everything slow is
//! started on the task tracker and comes back as an event. Nobody else moves this state.
//!
//! Split by reason to change: `office` (who we are signed in as and what the office holds), `intake` (claiming), `profile`
//! (signing in and out, switching to another hub), `line` (who gets which session), `carry` (what each command does),
//! `asks`, `answers` and `ask_news` (what agents ask of people), `copied` (a copy of our data folder), `elsewhere` (work of
//! an account that is not served now), `opening`, `seats`, `acquire`, `restart` and `ending` (sessions), `warm` (what is
//! kept ready, limits, memory), `finish` (ends and their record), `stop` (the ways to end), `lease`, `requests` and
//! `preserved` (people at windows), `publish` (what windows see).

mod acquire;
mod answers;
mod ask_news;
mod asks;
mod carry;
mod copied;
mod detail;
mod elsewhere;
mod ending;
mod finish;
mod intake;
mod lease;
mod line;
mod office;
mod opening;
mod preserved;
mod profile;
mod publish;
mod recover;
mod requests;
mod restart;
mod seats;
mod settle;
mod stop;
mod take_up;
mod warm;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::{AskId, Clock, CommandId, OfficeId, SessionId, Timestamp};
use journal::{Acknowledgement, Journal};
use provider::detect::{DetectorFault, Detectors, OfficePatterns};
use session::SessionNote;
use supabase::{
    Auth, BeginAnswer, CancelAnswer, ClaimedCommand, ConnectionState, KeptTokens, Project, RealtimeEvent,
    RealtimeHandle, Renewal, Rest, RestError, SessionDraft,
};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::detectors::{self, DetectorWatch};
use crate::directory::Directory;
use crate::identity::{Account, Identity, Original};
use crate::paths::Paths;
use crate::request::{Answer, Request, RequestError};
use crate::rules::desk::Desk;
use crate::settings::Settings;
use crate::settings_file::Choice;
use crate::start::{FirstOffice, Machine};
use crate::stopping::StopHow;
use crate::view::{Problem, ProfileView, State};

use acquire::{Fit, Unfit};
pub(crate) use detail::hook_secret;
use finish::End;
pub(crate) use finish::Ending;
use office::{OfficeData, Trouble};
use opening::{OpenFault, Opened};
use seats::Live;
use warm::PoolState;

/// Events that may wait for the loop; senders wait beyond that.
pub(crate) const EVENT_QUEUE_MAX: usize = 1_024;
/// Notes of all sessions that may wait for the loop.
pub(crate) const NOTE_QUEUE_MAX: usize = 1_024;
/// How often the loop looks at its deadlines.
const TICK: Duration = Duration::from_secs(1);
/// How often old rows leave the journal.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// How long ended work stays in the journal: 30 days.
const KEEP_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// What comes in.
pub(crate) enum Event {
    /// A person asks.
    Asked {
        request: Request,
        reply: oneshot::Sender<Result<Answer, RequestError>>,
    },
    /// Signed in, office chosen, everything read; by which join.
    Joined(Box<OfficeData>, u32),
    /// One of these steps failed.
    NotJoined(Trouble, u32),
    /// The office was read anew.
    Refreshed {
        office: OfficeId,
        data: Result<office::Rows, RestError>,
    },
    /// `claim_commands` answered.
    Claimed {
        office: OfficeId,
        cause: &'static str,
        result: Result<Vec<ClaimedCommand>, RestError>,
    },
    /// `renew_lease` answered, for the lease with this token.
    Renewed {
        command: CommandId,
        token: Uuid,
        result: Result<Renewal, RestError>,
    },
    /// `begin_command` answered, for the lease with this token.
    BeginAnswered {
        command: CommandId,
        token: Uuid,
        result: Result<BeginAnswer, RestError>,
    },
    /// A session was started, or was not.
    Opened {
        session: SessionId,
        result: Result<Opened, OpenFault>,
    },
    /// A session's process tree is gone, and what became of its worktree.
    Gone {
        session: SessionId,
        left: Result<ending::Left, ending::Unproven>,
    },
    /// A session of an earlier core was looked for.
    TakenUp {
        session: SessionId,
        found: Box<take_up::Found>,
    },
    /// What ran without a session was ended, or was not; by the holders' tags.
    StraysEnded(Vec<(String, Result<(), String>)>),
    /// A session was left to its holder.
    Detached { session: SessionId },
    /// A session was looked at before it is given work.
    Checked {
        session: SessionId,
        result: Result<Fit, Unfit>,
    },
    /// How many MiB each session takes.
    Measured(HashMap<SessionId, u64>),
    /// `cancel_command` answered, asked for by a command of ours.
    CancelAnswered {
        command: CommandId,
        target: CommandId,
        result: Result<CancelAnswer, RestError>,
    },
    /// The office was told of a session's state, or was not.
    Told {
        draft: SessionDraft,
        result: Result<(), RestError>,
    },
    /// A program has taken keys, or has not.
    KeysPressed {
        command: CommandId,
        session: SessionId,
        result: Result<(), session::SessionError>,
    },
    /// A session took an answer to an ask, or did not.
    AnswerGiven(Box<answers::Given>),
    /// The office was told of an ask or of its end, or was not.
    AskTold {
        ask: AskId,
        result: Result<(), RestError>,
    },
    /// The office acknowledged a result.
    Reported {
        command: CommandId,
        how: Acknowledgement,
    },
    /// The agent program was looked for.
    ProgramChecked(Result<opening::FoundProgram, Problem>),
    /// A step of signing in or out, or of turning to another profile.
    Profile(Box<profile::Step>),
    /// The owner's detectors were read.
    DetectorsRead {
        detectors: Detectors,
        faults: Vec<DetectorFault>,
    },
}

/// What the loop stands on.
pub(crate) struct Ground {
    pub settings: Settings,
    pub paths: Paths,
    pub clock: Arc<dyn Clock>,
    pub journal: Arc<Journal>,
    pub project: Project,
    pub profile: ProfileView,
    pub account: Account,
    pub identity: Identity,
    /// Of what this data folder was found to be a copy at this start.
    pub copied_from: Option<Original>,
    pub machine: Machine,
    pub first_office: FirstOffice,
    pub remark: Option<Problem>,
    pub auth: Auth,
    /// Where the sign-in to a project is kept; none on this machine.
    pub team_tokens: Option<Arc<KeptTokens>>,
    /// For whoever composes the program: see [`crate::Client::chosen`].
    pub choose: watch::Sender<Option<Choice>>,
    pub rest: Rest,
    pub hook_url: String,
    pub environment: Vec<(String, String)>,
    pub holders: terminal::Holders,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

/// A command in our hands.
struct Work {
    row: ClaimedCommand,
    command: domain::Command,
    stage: Stage,
    started_at: Option<Timestamp>,
    /// Somebody wants it stopped.
    cancel_wanted: bool,
    /// Who, where that is known.
    cancelled_by: Option<serde_json::Value>,
    /// When its wait for a session's start is over.
    start_limit: Option<Instant>,
    /// How often commands that came later were placed before it while it waited in line.
    passed_over: u32,
    /// Why it waits in line, in words.
    waits_because: Option<String>,
}

/// How far a command has come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// Of an earlier core: until it is known what became of it, and that its lease is ours.
    Recovering,
    /// It names a session that is still being looked for.
    UntilSettled { session: SessionId },
    /// It had to wait, and the office is asked whether it may still be begun.
    UntilLetBegin,
    /// In the line for a session.
    InLine,
    /// Its session starts.
    Starting { session: SessionId },
    /// A turn runs for it.
    Turn {
        session: SessionId,
        turn: domain::TurnId,
    },
    /// It waits for another command to end (it asked for that).
    UntilEnded { command: CommandId },
    /// The office was asked to cancel another command.
    Asking,
    /// Its answer, or its keys, are on the way to a session.
    Answering,
    /// It waits for a session to be gone.
    UntilGone { session: SessionId },
    /// It has ended; the record is being written.
    Ended,
}

impl Stage {
    /// The session that is not free because of it.
    fn session(&self) -> Option<SessionId> {
        match self {
            Stage::Starting { session }
            | Stage::Turn { session, .. }
            | Stage::UntilGone { session }
            | Stage::UntilSettled { session } => Some(*session),
            Stage::Recovering
            | Stage::UntilLetBegin
            | Stage::InLine
            | Stage::UntilEnded { .. }
            | Stage::Asking
            | Stage::Answering
            | Stage::Ended => None,
        }
    }
}

/// The loop's state.
pub(crate) struct EventLoop {
    ground: Ground,
    events_in: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    notes_in: mpsc::Sender<SessionNote>,
    notes: mpsc::Receiver<SessionNote>,
    directory: Directory,
    outbox_bell: Arc<Notify>,

    office: Option<OfficeData>,
    joining: bool,
    /// The offices that know from which data folder we work.
    placed: HashSet<OfficeId>,
    /// The office that a person has picked, until it is joined.
    office_wanted: Option<OfficeId>,
    join_again_at: Option<Instant>,
    join_failures: u32,
    refreshing: bool,
    refresh_wanted: bool,
    realtime: Option<(RealtimeHandle, mpsc::Receiver<RealtimeEvent>, CancellationToken)>,
    connection: (ConnectionState, Timestamp),

    /// What is in our hands, under which lease; what may be claimed and begun.
    desk: Desk,
    /// The office's database is too old to be told with a claim what is known; until the next join.
    claims_plainly: bool,
    poll_at: Instant,

    work: HashMap<CommandId, Work>,
    line: VecDeque<CommandId>,
    endings: VecDeque<(CommandId, End)>,
    /// Ended here, not yet acknowledged by the office.
    reporting: BTreeMap<CommandId, Ending>,
    sessions: BTreeMap<SessionId, Live>,
    pool: PoolState,
    /// States of sessions that the office has not been told yet; bounded by the sessions there are.
    untold: BTreeMap<SessionId, SessionDraft>,
    telling: bool,
    asks: asks::Asks,
    prune_at: Instant,
    detectors: DetectorWatch,
    /// What the office and the owner's files say about final messages; sessions hold receivers.
    patterns: watch::Sender<OfficePatterns>,
    program: Option<PathBuf>,
    /// The agent program was looked for at least once: nothing is claimed before.
    program_looked_for: bool,
    problems: BTreeMap<&'static str, Problem>,

    profile: profile::Turning,
    leftovers: recover::Leftovers,
    elsewhere: elsewhere::Elsewhere,
    /// The wish to end, as it is put from outside.
    wish: watch::Receiver<Option<StopHow>>,
    /// The end that is under way: nothing new is taken.
    stopping: Option<StopHow>,

    view: watch::Sender<Arc<State>>,
    changed: bool,
}

impl EventLoop {
    pub(crate) fn new(
        ground: Ground,
        events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
        directory: Directory,
        outbox_bell: Arc<Notify>,
        wish: watch::Receiver<Option<StopHow>>,
    ) -> (EventLoop, watch::Receiver<Arc<State>>) {
        let (notes_in, notes) = mpsc::channel(NOTE_QUEUE_MAX);
        let now = ground.clock.now();
        let first = publish::empty(&ground, now);
        let (view, seen) = watch::channel(Arc::new(first));
        let core = EventLoop {
            events_in: events.0,
            events: events.1,
            notes_in,
            notes,
            directory,
            outbox_bell,
            office: None,
            joining: false,
            placed: HashSet::new(),
            office_wanted: None,
            join_again_at: None,
            join_failures: 0,
            refreshing: false,
            refresh_wanted: false,
            realtime: None,
            connection: (ConnectionState::Connecting, now),
            desk: Desk::default(),
            claims_plainly: false,
            poll_at: Instant::now(),
            work: HashMap::new(),
            line: VecDeque::new(),
            endings: VecDeque::new(),
            reporting: BTreeMap::new(),
            sessions: BTreeMap::new(),
            pool: PoolState::new(&ground.settings),
            untold: BTreeMap::new(),
            telling: false,
            asks: asks::Asks::default(),
            prune_at: Instant::now(),
            detectors: DetectorWatch::new(),
            patterns: watch::Sender::default(),
            program: None,
            program_looked_for: false,
            problems: BTreeMap::new(),
            profile: profile::Turning::default(),
            leftovers: recover::Leftovers::none(),
            elsewhere: elsewhere::Elsewhere::default(),
            wish,
            stopping: None,
            view,
            changed: true,
            ground,
        };
        (core, seen)
    }

    /// Runs until it is asked to end, or the stop token fires, which is the wish to end now.
    pub(crate) async fn run(mut self) {
        self.recover();
        self.check_program();
        self.follow_detectors();
        self.show_remark();
        self.tell_of_copy();
        self.join();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let stop = self.ground.stop.clone();
        loop {
            self.keep_details();
            self.publish();
            tokio::select! {
                () = stop.cancelled() => self.stopping = Some(StopHow::Now),
                Ok(()) = self.wish.changed() => self.stop_wanted(),
                Some(event) = self.events.recv() => self.handle(event),
                Some(note) = self.notes.recv() => self.take_note(note),
                event = next_doorbell(&mut self.realtime) => self.take_doorbell(event),
                _ = tick.tick() => self.tick(),
            }
            if self.may_end() {
                break;
            }
        }
        self.shut_down().await;
    }

    fn handle(&mut self, event: Event) {
        self.changed = true;
        match event {
            Event::Asked { request, reply } => self.answer(request, reply),
            Event::Joined(_, which) | Event::NotJoined(_, which) if which != self.this_join() => {}
            Event::Joined(data, _) => {
                self.joined(*data);
                self.office_was_read();
                self.renew_patterns();
                self.resume_those_that_wait();
                self.go_on_with_what_is_ours();
            }
            Event::NotJoined(trouble, _) => self.not_joined(trouble),
            Event::Refreshed { office, data } => {
                self.refreshed(office, data);
                self.office_was_read();
                self.renew_patterns();
            }
            Event::Claimed {
                office,
                cause,
                result,
            } => self.claimed(office, cause, result),
            Event::Renewed {
                command,
                token,
                result,
            } => self.renewed(command, token, result),
            Event::BeginAnswered {
                command,
                token,
                result,
            } => self.begin_answered(command, token, result),
            Event::Opened { session, result } => self.opened(session, result),
            Event::Gone { session, left } => self.gone(session, left),
            Event::TakenUp { session, found } => self.taken_up(session, *found),
            Event::StraysEnded(strays) => self.strays_ended(&strays),
            Event::Detached { session } => self.detached(session),
            Event::Checked { session, result } => self.checked(session, result),
            Event::Measured(memory_mb) => self.measured(&memory_mb),
            Event::CancelAnswered {
                command,
                target,
                result,
            } => self.cancel_answered(command, target, result),
            Event::Told { draft, result } => self.told(draft, result),
            Event::KeysPressed {
                command,
                session,
                result,
            } => self.keys_pressed(command, session, result),
            Event::AnswerGiven(given) => self.answer_given(*given),
            Event::AskTold { ask, result } => self.ask_told(ask, result),
            Event::Reported { command, how } => self.reported(command, how),
            Event::ProgramChecked(result) => self.program_checked(result),
            Event::Profile(step) => self.profile_step(*step),
            Event::DetectorsRead { detectors, faults } => self.detectors_read(detectors, &faults),
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        // Before any claim: a claim gives out again what we hold when its lease has run out.
        self.renew_leases();
        self.ask_to_begin_again();
        if self.join_again_at.is_some_and(|at| at <= now) {
            self.join();
        }
        if self.poll_at <= now {
            self.poll_at = now + self.poll_interval();
            self.claim(intake::POLL);
            self.refresh();
            self.tell_next();
            self.look_at_the_sign_in();
        }
        self.withdraw_asks_of_gone_sessions();
        self.tell_asks();
        self.write_down_claimed();
        self.claim_what_was_wished();
        self.write_endings();
        self.end_what_waited_too_long(now);
        self.give_up_idle_sessions();
        self.give_up_stuck_starts(now);
        self.end_again(now);
        self.look_again(now);
        self.give_up_stuck_restarts(now);
        self.look_at_pauses();
        self.measure_memory(now);
        self.warm_up(now);
        if self.prune_at <= now {
            let is_more = self.prune();
            self.prune_at = now + if is_more { TICK } else { PRUNE_EVERY };
        }
    }

    fn follow_detectors(&self) {
        let folder = self.ground.paths.detectors();
        let following = detectors::follow(folder, self.events_in.clone(), self.ground.stop.clone());
        self.ground.tasks.spawn(following);
    }

    fn detectors_read(&mut self, detectors: Detectors, faults: &[DetectorFault]) {
        tracing::info!(faults = faults.len(), "the owner's detectors were read");
        self.detectors.take(detectors);
        self.renew_patterns();
        if faults.is_empty() {
            self.solved("detectors");
        } else {
            let hint = "Correct it and save: it is read again at once. Until then, what it said before stays in use.";
            self.problem("detectors", detectors::told(faults), hint);
        }
    }

    /// Puts the office's patterns and those of the owner's files before the sessions: from their next turns on.
    fn renew_patterns(&mut self) {
        let mut faults = Vec::new();
        let mut patterns = self.detectors.patterns().clone();
        if let Some(data) = &self.office {
            let (own, wrong) = OfficePatterns::parse(&data.office.settings);
            patterns = patterns.with(&own);
            faults = wrong;
        }
        if faults.is_empty() {
            self.solved("office_patterns");
        } else {
            let hint = "An owner of the office can correct it; the patterns that can be read are used.";
            self.problem("office_patterns", detectors::told(&faults), hint);
        }
        self.patterns.send_replace(patterns);
    }

    /// Forgets some of what ended long ago; the office keeps it. True where more is to go.
    fn prune(&self) -> bool {
        let before = self.now().plus_ms(-KEEP_MS);
        match self.ground.journal.prune(before) {
            Ok(pruned) => {
                tracing::debug!(?pruned, "old rows of the journal are gone");
                pruned.more
            }
            Err(error) => {
                tracing::warn!(%error, "old rows of the journal could not be removed");
                false
            }
        }
    }

    /// Starts work whose end comes back as an event.
    fn start(&self, work: impl Future<Output = Event> + Send + 'static) {
        let events = self.events_in.clone();
        self.ground.tasks.spawn(async move {
            // The receiver is gone only when the core has stopped; then nobody waits for this.
            let _ = events.send(work.await).await;
        });
    }

    fn now(&self) -> Timestamp {
        self.ground.clock.now()
    }

    fn problem(&mut self, code: &'static str, message: impl Into<String>, hint: impl Into<String>) {
        let problem = Problem {
            code: code.to_owned(),
            message: message.into(),
            hint: hint.into(),
        };
        if self.problems.get(code) != Some(&problem) {
            tracing::warn!(code, message = %problem.message, "a problem");
            self.problems.insert(code, problem);
            self.changed = true;
        }
    }

    fn solved(&mut self, code: &'static str) {
        self.changed |= self.problems.remove(code).is_some();
    }
}

/// The next event of Realtime; never, while there is no connection.
async fn next_doorbell(
    realtime: &mut Option<(RealtimeHandle, mpsc::Receiver<RealtimeEvent>, CancellationToken)>,
) -> Option<RealtimeEvent> {
    match realtime {
        Some((_, events, _)) => events.recv().await,
        None => std::future::pending().await,
    }
}

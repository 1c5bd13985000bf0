//! The one owner of a session's state: a loop over what callers ask, what hooks report, what the screen shows, and
//! what its own work has brought.
//!
//! `run` decides which; `observe` hands what is seen to the follower, which judges; `held` keeps what a person is
//! asked; `ending` carries turns and the session to their reports; `left` takes up what another process has left, and
//! leaves what another one is to take up. One piece of work runs at a time: a submission, a line in the journal, the
//! gathering of evidence, or the end.

use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use domain::session::SessionState;
use domain::turn::{TurnStage, Verdict};
use domain::{AskId, Clock, SessionId, Timestamp, TurnId};
use journal::Journal;
use provider::claude::{TranscriptReader, transcript_path};
use provider::detect::{Detector, OfficePatterns};
use terminal::{StopProof, Terminal, TerminalError};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::ending::end_program;
use crate::error::SessionError;
use crate::follow::{Expected, Follower, News, Observation, Witnesses};
use crate::git::{Before, BeforeRead, GitTold, git_before};
use crate::handle::{Control, HookIn, QueuedTurn, SessionSpec, StartMode, WhichTurn};
use crate::held::Held;
use crate::left::Left;
use crate::mark::{Mark, Stages, Taken};
use crate::report::SessionNote;
use crate::submission::{Keyboard, NotSubmitted, Submission, Submitted};

/// After a change of the screen: how soon it is looked at. Bursts of output cost one look.
const LOOK_AFTER_CHANGE: Duration = Duration::from_millis(50);
/// How often a running turn, or a session that is no longer idle, is looked at without any change.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The same while the end of a turn or an interrupt is being proven.
const LOOK_CLOSELY_EVERY: Duration = Duration::from_millis(25);
/// An idle session is looked at when its screen changes; this is only the longest sleep.
const LOOK_IDLE_EVERY: Duration = Duration::from_secs(60);

/// The actor's ends of the channels that a [`crate::Session`] holds the other ends of.
pub(crate) struct ActorParts {
    pub(crate) terminal: Terminal,
    pub(crate) state: watch::Sender<SessionState>,
    pub(crate) conversation: watch::Sender<SessionId>,
    pub(crate) control: mpsc::Receiver<Control>,
    pub(crate) hooks: mpsc::Receiver<HookIn>,
    pub(crate) notes: mpsc::Sender<SessionNote>,
    pub(crate) open_turns: Arc<AtomicUsize>,
    pub(crate) keyboard: Arc<Mutex<Keyboard>>,
}

/// What a piece of work has brought.
pub(crate) enum Done {
    Submitted {
        result: Result<Submitted, NotSubmitted>,
        before: Option<Before>,
    },
    /// The journal has been told that the prompt was taken.
    Noted,
    Gathered {
        verdict: Verdict,
        ended_at: Timestamp,
        git: Option<GitTold>,
    },
    Ended(Result<StopProof, TerminalError>),
}

type Work = Pin<Box<dyn Future<Output = Done> + Send>>;

/// The turn of ours that is carried now.
pub(crate) struct Carried {
    pub(crate) queued: QueuedTurn,
    /// Where the prompt was seen as taken, once it was.
    acknowledged: watch::Sender<Option<&'static str>>,
    pub(crate) cancel: CancellationToken,
    /// When its time is over; set by the acknowledgement.
    pub(crate) deadline: Option<Instant>,
    pub(crate) timed_out: bool,
    /// What git said when it began.
    pub(crate) before: Option<Before>,
    pub(crate) submitted: Option<Submitted>,
    /// What the journal has of it, once it was begun.
    pub(crate) mark: Option<Mark>,
}

impl Carried {
    pub(crate) fn new(queued: QueuedTurn) -> Carried {
        Carried {
            queued,
            acknowledged: watch::Sender::new(None),
            cancel: CancellationToken::new(),
            deadline: None,
            timed_out: false,
            before: None,
            submitted: None,
            mark: None,
        }
    }

    pub(crate) fn id(&self) -> TurnId {
        self.queued.request.id
    }
}

/// An interrupt on its way.
pub(crate) struct Interrupt {
    pub(crate) started: Instant,
    pub(crate) next_press: Instant,
    pub(crate) presses: u32,
}

/// How far the end of the session has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    No,
    /// Wanted; begins when the work at hand is done.
    Wanted,
    Running,
}

pub(crate) struct Actor {
    pub(crate) id: SessionId,
    /// The program's own id of its conversation; another one after `/clear`.
    pub(crate) conversation: String,
    pub(crate) start: StartMode,
    pub(crate) worktree: PathBuf,
    pub(crate) config_dir: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) detector: watch::Receiver<Arc<Detector>>,
    patterns: watch::Receiver<OfficePatterns>,
    journal: Arc<Journal>,
    pub(crate) parts: ActorParts,
    pub(crate) follower: Follower,
    /// The zero of the follower's time.
    began: Instant,
    pub(crate) transcript: TranscriptReader,
    /// Transcripts of conversations that were left: a late report does not bring them back.
    pub(crate) left_transcripts: VecDeque<PathBuf>,
    pub(crate) queue: VecDeque<QueuedTurn>,
    pub(crate) carried: Option<Carried>,
    pub(crate) held: Held,
    pub(crate) work: Option<Work>,
    pub(crate) interrupt: Option<Interrupt>,
    /// The input box has been seen.
    pub(crate) was_ready: bool,
    pub(crate) ending: Ending,
    /// The end is wanted, by a caller or because a turn cannot be stopped in any other way.
    pub(crate) end_wanted: bool,
    /// What is wrong with a conversation that was taken up again.
    pub(crate) resume_fault: Option<String>,
    pub(crate) enders: Vec<oneshot::Sender<Result<StopProof, SessionError>>>,
    /// Who waits for the session to be left to its holder.
    pub(crate) leavers: Vec<oneshot::Sender<()>>,
    /// It is to be left to its holder.
    pub(crate) leaving: bool,
    /// Notes that the owner has not taken yet. Bounded: states replace each other, turns and asks are bounded.
    pub(crate) outbox: VecDeque<SessionNote>,
    /// Open asks whose note was taken: their end must be told too.
    told_asks: Vec<AskId>,
    pub(crate) last_look: Instant,
    /// Something was begun whose effect is to be looked at now.
    pub(crate) look_soon: bool,
}

/// What woke the loop.
enum Wake {
    Done(Done),
    Hook(HookIn),
    Released(u64),
    Control(Option<Control>),
    Exit,
    Changed,
    Look,
    Sent,
}

impl Actor {
    pub(crate) fn new(spec: SessionSpec, parts: ActorParts) -> Actor {
        let transcript = TranscriptReader::new(transcript_path(
            &spec.config_dir,
            &spec.worktree,
            spec.conversation,
        ));
        Actor {
            id: spec.id,
            conversation: spec.conversation.to_string(),
            start: spec.start,
            worktree: spec.worktree,
            config_dir: spec.config_dir,
            clock: spec.clock,
            detector: spec.detector,
            patterns: spec.patterns,
            journal: spec.journal,
            parts,
            follower: Follower::new(Witnesses::ALL),
            began: Instant::now(),
            transcript,
            left_transcripts: VecDeque::new(),
            queue: VecDeque::new(),
            carried: None,
            held: Held::default(),
            work: None,
            interrupt: None,
            was_ready: false,
            ending: Ending::No,
            end_wanted: false,
            resume_fault: None,
            enders: Vec::new(),
            leavers: Vec::new(),
            leaving: false,
            outbox: VecDeque::new(),
            told_asks: Vec::new(),
            last_look: Instant::now(),
            look_soon: false,
        }
    }

    /// `joined`: the program was started by another process, and this is the turn it has left.
    pub(crate) async fn run(mut self, joined: Option<Option<Left>>) {
        if let Some(left) = joined {
            self.join(left).await;
        }
        let mut changed = self.parts.terminal.changed();
        let mut exited = self.parts.terminal.exited();
        let mut displaced = self.parts.terminal.displaced();
        let mut look_at = Instant::now();
        loop {
            // A session that is being ended is ended.
            if self.leaving && self.ending == Ending::No {
                return self.leave();
            }
            look_at = look_at.min(self.last_look + self.look_every());
            if std::mem::take(&mut self.look_soon) {
                look_at = Instant::now();
            }
            let wake = tokio::select! {
                biased;
                Ok(_) = displaced.wait_for(|displaced| *displaced) => None,
                wake = self.next(&mut changed, &mut exited, look_at) => Some(wake),
            };
            let Some(wake) = wake.filter(|_| !*displaced.borrow()) else {
                return self.hand_over().await;
            };
            match wake {
                Wake::Done(Done::Ended(proof)) => {
                    if self.ended(proof) {
                        break;
                    }
                }
                Wake::Done(done) => self.done(done),
                Wake::Hook(hook) => self.hook(hook),
                Wake::Released(key) => {
                    self.follower.ask_released(key);
                    self.look_soon = true;
                }
                Wake::Control(Some(control)) => self.control(control).await,
                // Nobody is left who could ask for anything; who comes next finds it with its holder.
                Wake::Control(None) => self.leaving = true,
                Wake::Exit => {
                    // Its children may have moved out of its sight: they are ended too, and that is proven.
                    self.work = None;
                    self.begin_end();
                }
                Wake::Changed => look_at = look_at.min(Instant::now() + LOOK_AFTER_CHANGE),
                Wake::Look => {
                    self.last_look = Instant::now();
                    look_at = self.last_look + LOOK_IDLE_EVERY;
                    self.look().await;
                }
                Wake::Sent => {}
            }
            if *displaced.borrow() {
                return self.hand_over().await;
            }
            self.judge();
            self.advance();
        }
        self.finish().await;
    }

    /// Waits for whatever comes first. What the agent said comes before what is made of it: hooks before an exit.
    async fn next(
        &mut self,
        changed: &mut watch::Receiver<u64>,
        exited: &mut watch::Receiver<Option<terminal::Exit>>,
        look_at: Instant,
    ) -> Wake {
        let work = &mut self.work;
        let ending = self.ending;
        let control_open = !self.parts.control.is_closed() || !self.parts.control.is_empty();
        let outbox = &mut self.outbox;
        let held = &mut self.held;
        let told_asks = &mut self.told_asks;
        tokio::select! {
            biased;
            Some(done) = async { match work { Some(work) => Some(work.await), None => None } } => {
                *work = None;
                Wake::Done(done)
            }
            Ok(permit) = self.parts.notes.reserve(), if !outbox.is_empty() => {
                if let Some(note) = outbox.pop_front() {
                    if let SessionNote::Asked { ask, .. } = &note
                        && !told_asks.contains(&ask.id)
                    {
                        told_asks.push(ask.id);
                    }
                    permit.send(note);
                }
                Wake::Sent
            }
            Some(hook) = self.parts.hooks.recv() => Wake::Hook(hook),
            key = held.released() => Wake::Released(key),
            control = self.parts.control.recv(), if control_open || ending == Ending::No => Wake::Control(control),
            Ok(_) = exited.wait_for(Option::is_some), if ending != Ending::Running => Wake::Exit,
            Ok(()) = changed.changed(), if ending != Ending::Running => Wake::Changed,
            () = sleep_until(look_at), if ending != Ending::Running => Wake::Look,
        }
    }

    async fn control(&mut self, control: Control) {
        match control {
            Control::Turn(turn) => self.queue.push_back(*turn),
            Control::Cancel(which) => self.cancel(which),
            Control::Answer(answering) => {
                self.answer(*answering).await;
                self.sync();
            }
            Control::Explain(reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(self.explanation());
            }
            Control::Detach(reply) => {
                self.leavers.push(reply);
                self.leaving = true;
            }
            Control::Terminate(reply) => {
                self.enders.push(reply);
                self.want_end();
            }
        }
    }

    fn cancel(&mut self, which: WhichTurn) {
        let current = self.carried.as_ref().map(Carried::id);
        let wanted = match which {
            WhichTurn::Current => current,
            WhichTurn::Id(id) => Some(id),
        };
        if wanted.is_some() && wanted == current {
            self.interrupt_turn();
        } else if let Some(index) = self
            .queue
            .iter()
            .position(|queued| Some(queued.request.id) == wanted)
            && let Some(queued) = self.queue.remove(index)
        {
            self.report_unsent(queued, &NotSubmitted::Cancelled);
        }
    }

    /// Begins to interrupt the turn; the proof comes with the next looks.
    pub(crate) fn interrupt_turn(&mut self) {
        let Some(carried) = &self.carried else { return };
        carried.cancel.cancel();
        if !carried.timed_out {
            self.observe(Observation::CancelRequested);
        }
        let now = Instant::now();
        self.interrupt.get_or_insert(Interrupt {
            started: now,
            next_press: now,
            presses: 0,
        });
        self.look_soon = true;
    }

    /// Begins what can begin: the end, or the next turn.
    fn advance(&mut self) {
        if self.work.is_some() {
            return;
        }
        match self.ending {
            Ending::Wanted => self.begin_end(),
            Ending::Running => {}
            Ending::No if *self.follower.state() == SessionState::Stopping => self.turn_down_queued(),
            Ending::No => {
                // A person's own turn goes first: the program would run both as one.
                if self.carried.is_none()
                    && !self.follower.is_persons_turn()
                    && let Some(queued) = self.queue.pop_front()
                {
                    self.begin_turn(queued);
                }
            }
        }
    }

    fn begin_turn(&mut self, queued: QueuedTurn) {
        let mut carried = Carried::new(queued);
        tracing::info!(turn = %carried.id(), "turn begins");
        self.skip_transcript();
        let expected = self.expected(&carried.queued);
        self.observe(Observation::Began(expected));
        let mark = Mark {
            transcript: self.transcript.place(),
            conversation: self.conversation.clone(),
            memo: self.follower.memo(),
            before: None,
            entered: None,
            taken: None,
        };
        carried.mark = Some(mark.clone());
        let reading = watch::Sender::new(BeforeRead::default());
        let submission = self.submission(&carried, mark, reading.subscribe());
        let worktree = self.worktree.clone();
        self.carried = Some(carried);
        self.interrupt = None;
        self.work = Some(Box::pin(async move {
            let (result, before) = git_before(&worktree, &reading, submission.run()).await;
            Done::Submitted { result, before }
        }));
    }

    pub(crate) fn submission(
        &self,
        carried: &Carried,
        mark: Mark,
        before: watch::Receiver<BeforeRead>,
    ) -> Submission {
        Submission {
            terminal: self.parts.terminal.clone(),
            guarded: carried.queued.guarded.clone(),
            acknowledged: carried.acknowledged.subscribe(),
            cancel: carried.cancel.clone(),
            keyboard: Arc::clone(&self.parts.keyboard),
            config_dir: self.config_dir.clone(),
            detector: self.detector.clone(),
            clock: Arc::clone(&self.clock),
            requested: carried.queued.requested,
            requested_at: carried.queued.requested_at,
            stages: self.stages(carried.id()),
            mark,
            before,
        }
    }

    fn stages(&self, turn: TurnId) -> Stages {
        Stages {
            journal: Arc::clone(&self.journal),
            turn,
            clock: Arc::clone(&self.clock),
        }
    }

    pub(crate) fn expected(&self, queued: &QueuedTurn) -> Expected {
        Expected {
            turn: Some(queued.request.id),
            prompt: queued.guarded.clone(),
            marker: queued.request.marker.clone(),
            patterns: self.patterns.borrow().clone(),
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Submitted { result, before } => self.submitted(result, before),
            Done::Gathered {
                verdict,
                ended_at,
                git,
            } => self.report(&verdict, ended_at, git),
            Done::Noted | Done::Ended(_) => {}
        }
    }

    fn submitted(&mut self, result: Result<Submitted, NotSubmitted>, before: Option<Before>) {
        let Some(carried) = &mut self.carried else { return };
        carried.before = before.or(carried.before.take());
        match result {
            Ok(submitted) => {
                carried.deadline = Some(Instant::now() + carried.queued.request.timeout);
                carried.submitted = Some(submitted);
                if let Some(interrupt) = &mut self.interrupt {
                    interrupt.started = Instant::now();
                }
                self.observe(Observation::Submitted {
                    source: submitted.source,
                    enters: submitted.enters,
                });
                self.note_taken(submitted);
            }
            Err(why) => {
                tracing::warn!(turn = %carried.id(), %why, "a prompt was not submitted");
                self.observe(why.observation());
            }
        }
    }

    /// Writes down that the prompt was taken. Where that fails nothing is lost: the transcript tells it again.
    fn note_taken(&mut self, submitted: Submitted) {
        let memo = self.follower.memo();
        let Some(carried) = &mut self.carried else { return };
        let before = carried.before.clone();
        let Some(mark) = &mut carried.mark else { return };
        (mark.memo.ids, mark.before, mark.entered) = (memo.ids, before, submitted.entered);
        mark.taken = Some(Taken {
            at: submitted.acknowledged_at,
            since_boot: self.clock.since_boot(),
            source: submitted.source.to_owned(),
            enters: submitted.enters,
        });
        let (mark, turn) = (mark.clone(), carried.id());
        let stages = self.stages(turn);
        self.work = Some(Box::pin(async move {
            if let Err(error) = stages.write(TurnStage::Taken, &mark).await {
                tracing::warn!(%turn, error, "the journal does not know that a prompt was taken");
            }
            fail::fail_point!("taken");
            Done::Noted
        }));
    }

    /// The conversation's id, where it is one of the usual form.
    pub(crate) fn conversation_id(&self) -> Option<SessionId> {
        self.conversation.parse().ok()
    }

    /// Hands an observation to the follower, and on what it makes of it.
    pub(crate) fn observe(&mut self, what: Observation<'_>) {
        self.follower.tell_time(self.clock.now());
        self.follower.observe(self.at_ms(), what);
        self.sync();
    }

    /// Tells what is new.
    pub(crate) fn sync(&mut self) {
        let source = self.follower.acknowledged_by();
        if let Some(carried) = self.carried.as_ref().filter(|_| source.is_some()) {
            carried.acknowledged.send_if_modified(|known| {
                let new = known.is_none();
                *known = known.or(source);
                new
            });
        }
        let state = self.follower.state().clone();
        if state != *self.parts.state.borrow() {
            self.parts.state.send_replace(state.clone());
            self.tell(SessionNote::State {
                session: self.id,
                state,
            });
        }
        while let Some(news) = self.follower.news() {
            match news {
                News::Asked(seen) => self.asked(seen),
                News::AskOver(key, how) => self.ask_over(key, &how),
                News::Retrying(retry) => self.tell(SessionNote::Retrying {
                    session: self.id,
                    retry,
                }),
            }
        }
    }

    /// The follower's time.
    pub(crate) fn at_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn want_end(&mut self) {
        self.end_wanted = true;
        if self.ending != Ending::No {
            return;
        }
        self.ending = Ending::Wanted;
        self.observe(Observation::StopRequested);
        // A submission may be given up at any point; evidence that is being gathered is not.
        let submitting = |carried: &Carried| carried.submitted.is_none();
        if self.carried.as_ref().is_some_and(submitting) && self.follower.is_carrying() {
            self.work = None;
        }
    }

    fn begin_end(&mut self) {
        self.ending = Ending::Running;
        self.observe(Observation::StopRequested);
        let terminal = self.parts.terminal.clone();
        let detector = self.detector.clone();
        self.work = Some(Box::pin(async move {
            Done::Ended(end_program(&terminal, &detector).await)
        }));
    }

    /// How often to look without a reason from outside.
    fn look_every(&self) -> Duration {
        let carrying = self.carried.is_some();
        let close = self.interrupt.is_some() || self.follower.is_settling(self.at_ms());
        match self.follower.state() {
            _ if carrying && close => LOOK_CLOSELY_EVERY,
            _ if carrying => LOOK_EVERY,
            SessionState::Idle => LOOK_IDLE_EVERY,
            SessionState::Starting | SessionState::Working { .. } | SessionState::AwaitingPerson { .. } => {
                LOOK_EVERY
            }
            SessionState::Stopping | SessionState::Exited { .. } => LOOK_IDLE_EVERY,
        }
    }

    /// Puts a note into the outbox. A state or a retry that was not taken yet gives way to a newer one, and an ask
    /// to its own end.
    pub(crate) fn tell(&mut self, note: SessionNote) {
        if let SessionNote::AskClosed { ask: closed, .. } = &note {
            let before = self.outbox.len();
            self.outbox
                .retain(|old| !matches!(old, SessionNote::Asked { ask, .. } if ask.id == *closed));
            // An ask may have been told before and once more: then its end is news all the same.
            if self.outbox.len() < before && !self.told_asks.contains(closed) {
                return;
            }
            self.told_asks.retain(|told| told != closed);
        }
        let stale = |old: &SessionNote| match (&note, old) {
            (SessionNote::State { .. }, SessionNote::State { .. })
            | (SessionNote::Retrying { .. }, SessionNote::Retrying { .. }) => true,
            (SessionNote::Asked { ask: new, .. }, SessionNote::Asked { ask: old, .. }) => new.id == old.id,
            _ => false,
        };
        self.outbox.retain(|old| !stale(old));
        self.outbox.push_back(note);
    }
}

//! The one owner of a session's state: a loop over what callers ask, what hooks report, what the screen shows, and
//! what its own work has brought.
//!
//! `run` decides which; `observe` turns observations into signs and states; `ending` carries turns and the session to
//! their reports. One piece of work runs at a time: a submission, the gathering of evidence, or the end.

use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use domain::session::{Ask, SessionEvent, SessionState};
use domain::turn::Verdict;
use domain::{Clock, SessionId, Timestamp};
use provider::claude::{TranscriptReader, transcript_path};
use terminal::{StopProof, Terminal, TerminalError};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use worktree::GitFacts;

use crate::ending::{end_program, git_facts};
use crate::error::SessionError;
use crate::handle::{Control, SessionSpec, WhichTurn};
use crate::report::SessionNote;
use crate::submission::{Keyboard, NotSubmitted, Submission, Submitted};
use crate::turn::{QueuedTurn, Turn};

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
    pub(crate) control: mpsc::Receiver<Control>,
    pub(crate) hooks: mpsc::Receiver<Bytes>,
    pub(crate) notes: mpsc::Sender<SessionNote>,
    pub(crate) open_turns: Arc<AtomicUsize>,
    pub(crate) keyboard: Arc<Mutex<Keyboard>>,
}

/// What a piece of work has brought.
pub(crate) enum Done {
    Submitted {
        result: Result<Submitted, NotSubmitted>,
        before: Option<GitFacts>,
    },
    Gathered {
        verdict: Verdict,
        ended_at: Timestamp,
        git: Option<GitFacts>,
    },
    Ended(Result<StopProof, TerminalError>),
}

type Work = Pin<Box<dyn Future<Output = Done> + Send>>;

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
    pub(crate) worktree: PathBuf,
    pub(crate) config_dir: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) parts: ActorParts,
    pub(crate) transcript: TranscriptReader,
    pub(crate) queue: VecDeque<QueuedTurn>,
    pub(crate) turn: Option<Turn>,
    pub(crate) work: Option<Work>,
    pub(crate) interrupt: Option<Interrupt>,
    /// Since when the agent has looked idle, without a break.
    pub(crate) idle_since: Option<Instant>,
    /// The input box has been seen.
    pub(crate) was_ready: bool,
    /// The agent has been seen at rest since our last turn ended: from then on, busy means a person's turn.
    pub(crate) rested: bool,
    pub(crate) ending: Ending,
    pub(crate) enders: Vec<oneshot::Sender<Result<StopProof, SessionError>>>,
    /// Notes that the owner has not taken yet. Bounded: states replace each other, and turns are bounded.
    pub(crate) outbox: VecDeque<SessionNote>,
    pub(crate) last_look: Instant,
    /// Something was begun whose effect is to be looked at now.
    pub(crate) look_soon: bool,
}

/// What woke the loop.
enum Wake {
    Done(Done),
    Hook(Bytes),
    Control(Option<Control>),
    Exit,
    Changed,
    Look,
    Sent,
}

impl Actor {
    pub(crate) fn new(spec: SessionSpec, parts: ActorParts) -> Actor {
        let transcript = TranscriptReader::new(transcript_path(&spec.config_dir, &spec.worktree, spec.id));
        Actor {
            id: spec.id,
            worktree: spec.worktree,
            config_dir: spec.config_dir,
            clock: spec.clock,
            parts,
            transcript,
            queue: VecDeque::new(),
            turn: None,
            work: None,
            interrupt: None,
            idle_since: None,
            was_ready: false,
            rested: true,
            ending: Ending::No,
            enders: Vec::new(),
            outbox: VecDeque::new(),
            last_look: Instant::now(),
            look_soon: false,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut changed = self.parts.terminal.changed();
        let mut exited = self.parts.terminal.exited();
        let mut look_at = Instant::now();
        loop {
            look_at = look_at.min(self.last_look + self.look_every());
            if std::mem::take(&mut self.look_soon) {
                look_at = Instant::now();
            }
            match self.next(&mut changed, &mut exited, look_at).await {
                Wake::Done(Done::Ended(proof)) => {
                    if self.ended(proof) {
                        break;
                    }
                }
                Wake::Done(done) => self.done(done),
                Wake::Hook(body) => self.hook(&body),
                Wake::Control(Some(control)) => self.control(control),
                // Nobody is left who could ask for anything.
                Wake::Control(None) => self.want_end(),
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
        tokio::select! {
            biased;
            Some(done) = async { match work { Some(work) => Some(work.await), None => None } } => {
                *work = None;
                Wake::Done(done)
            }
            Ok(permit) = self.parts.notes.reserve(), if !outbox.is_empty() => {
                if let Some(note) = outbox.pop_front() {
                    permit.send(note);
                }
                Wake::Sent
            }
            Some(body) = self.parts.hooks.recv() => Wake::Hook(body),
            control = self.parts.control.recv(), if control_open || ending == Ending::No => Wake::Control(control),
            Ok(_) = exited.wait_for(Option::is_some), if ending != Ending::Running => Wake::Exit,
            Ok(()) = changed.changed(), if ending != Ending::Running => Wake::Changed,
            () = sleep_until(look_at), if ending != Ending::Running => Wake::Look,
        }
    }

    fn control(&mut self, control: Control) {
        match control {
            Control::Turn(turn) => self.queue.push_back(*turn),
            Control::Cancel(which) => self.cancel(which),
            Control::Terminate(reply) => {
                self.enders.push(reply);
                self.want_end();
            }
        }
    }

    fn cancel(&mut self, which: WhichTurn) {
        let current = self.turn.as_ref().map(Turn::id);
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
        let Some(turn) = &mut self.turn else { return };
        turn.cancel.cancel();
        if !turn.signs.timed_out {
            turn.signs.cancel_requested = true;
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
        if self.ending == Ending::Wanted {
            self.begin_end();
        } else if self.ending == Ending::No
            && self.turn.is_none()
            // A person's own turn goes first: the program would run both as one.
            && *self.parts.state.borrow() != (SessionState::Working { turn: None })
            && let Some(queued) = self.queue.pop_front()
        {
            self.begin_turn(queued);
        }
    }

    fn begin_turn(&mut self, queued: QueuedTurn) {
        let turn = Turn::new(queued);
        let submission = Submission {
            terminal: self.parts.terminal.clone(),
            guarded: turn.queued.guarded.clone(),
            acknowledged: turn.acknowledged.subscribe(),
            cancel: turn.cancel.clone(),
            keyboard: Arc::clone(&self.parts.keyboard),
            config_dir: self.config_dir.clone(),
            clock: Arc::clone(&self.clock),
        };
        let worktree = self.worktree.clone();
        tracing::info!(turn = %turn.id(), "turn begins");
        self.skip_transcript();
        self.turn = Some(turn);
        self.idle_since = None;
        self.interrupt = None;
        self.work = Some(Box::pin(async move {
            // Side by side: git is read long before the agent can have changed anything.
            let (result, before) = tokio::join!(submission.run(), git_facts(&worktree, None));
            Done::Submitted { result, before }
        }));
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Submitted { result, before } => {
                let Some(turn) = &mut self.turn else { return };
                turn.head_before = before.and_then(|facts| facts.head);
                match result {
                    Ok(submitted) => {
                        turn.submitted(submitted);
                        let turn = Some(turn.id());
                        if let Some(interrupt) = &mut self.interrupt {
                            interrupt.started = Instant::now();
                        }
                        // The submission has seen the box before the next look would.
                        self.apply(&SessionEvent::Ready);
                        self.apply(&SessionEvent::TurnStarted { turn });
                    }
                    Err(why) => {
                        tracing::warn!(turn = %turn.id(), %why, "a prompt was not submitted");
                        turn.not_submitted(&why);
                    }
                }
            }
            Done::Gathered {
                verdict,
                ended_at,
                git,
            } => self.report(verdict, ended_at, git),
            Done::Ended(_) => {}
        }
    }

    fn want_end(&mut self) {
        if self.ending != Ending::No {
            return;
        }
        self.ending = Ending::Wanted;
        self.apply(&SessionEvent::StopRequested);
        // A submission may be given up at any point; evidence that is being gathered is not.
        if self.turn.as_ref().is_some_and(|turn| !turn.signs.acknowledged) {
            self.work = None;
        }
    }

    fn begin_end(&mut self) {
        self.ending = Ending::Running;
        self.apply(&SessionEvent::StopRequested);
        let terminal = self.parts.terminal.clone();
        self.work = Some(Box::pin(async move { Done::Ended(end_program(&terminal).await) }));
    }

    /// How often to look without a reason from outside.
    fn look_every(&self) -> Duration {
        let close =
            self.interrupt.is_some() || self.turn.as_ref().is_some_and(|turn| turn.stopped_at.is_some());
        match &*self.parts.state.borrow() {
            _ if self.turn.is_some() && close => LOOK_CLOSELY_EVERY,
            _ if self.turn.is_some() => LOOK_EVERY,
            SessionState::Idle => LOOK_IDLE_EVERY,
            SessionState::Starting | SessionState::Working { .. } | SessionState::AwaitingPerson { .. } => {
                LOOK_EVERY
            }
            SessionState::Stopping | SessionState::Exited { .. } => LOOK_IDLE_EVERY,
        }
    }

    /// Moves the state and tells it.
    pub(crate) fn apply(&mut self, event: &SessionEvent) {
        let before = self.parts.state.borrow().clone();
        match before.after(event) {
            Ok(after) if after != before => {
                tracing::debug!(?before, ?event, ?after, "state");
                self.parts.state.send_replace(after.clone());
                self.tell(SessionNote::State {
                    session: self.id,
                    state: after,
                });
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "an event that changes nothing"),
        }
    }

    /// Asks a person, once for every time the ask comes up.
    pub(crate) fn ask(&mut self, ask: Ask, text: String) {
        let asking = matches!(&*self.parts.state.borrow(), SessionState::AwaitingPerson { ask: now, .. } if *now == ask);
        if asking {
            return;
        }
        self.apply(&SessionEvent::Asked { ask });
        let took = matches!(&*self.parts.state.borrow(), SessionState::AwaitingPerson { .. });
        if took {
            self.tell(SessionNote::Asked {
                session: self.id,
                ask,
                text,
            });
        }
    }

    /// Puts a note into the outbox. A state or an ask that was not taken yet gives way to a newer one.
    pub(crate) fn tell(&mut self, note: SessionNote) {
        let stale = |old: &SessionNote| match (&note, old) {
            (SessionNote::State { .. }, SessionNote::State { .. }) => true,
            (SessionNote::Asked { .. }, SessionNote::Asked { .. }) => true,
            (
                SessionNote::State { .. }
                | SessionNote::Asked { .. }
                | SessionNote::TurnEnded { .. }
                | SessionNote::Exited { .. },
                _,
            ) => false,
        };
        self.outbox.retain(|old| !stale(old));
        self.outbox.push_back(note);
    }
}

//! What is made of all that can be seen of a session: which turn runs, what it waits for, and how it ended.
//!
//! Synchronous and pure: no I/O, no clock, no randomness. Every observation carries its moment, so that the actor in
//! production, a replayed recording and a test with invented times all go the same way. Each channel may be lost, late,
//! doubled or out of order; what remains then is `unconfirmed`, never a wrong word. Decides nothing that
//! `domain::turn` and `domain::session` have a rule for.

mod asks;
mod background;
mod explain;
mod facts;
mod hooks;
mod judge;
mod past;
mod record;
mod screen;
mod taken_up;
mod turn;

#[cfg(test)]
mod schedules;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use domain::marker::Marker;
use domain::session::{SessionEvent, SessionState};
use domain::turn::{Failure, FailureClass, Retry, Verdict};
use domain::{Timestamp, TurnId};
use provider::claude::{Activity, DatedFact, HookEvent};
use provider::detect::{OfficePatterns, Reading};
use provider::screen_turn::ScreenTurn;

pub(crate) use asks::{AskOver, AskSeen};
pub use explain::{Explanation, LogEntry, ReadingView, TurnExplanation};
pub(crate) use taken_up::{HowFar, Memo};
pub(crate) use turn::Finished;

use asks::Asks;
use explain::Story;
use past::Past;
use screen::ScreenView;
use turn::Turn;

/// News that nobody has taken yet; more are left out, oldest first. The owner takes them after each observation.
const NEWS_MAX: usize = 64;

/// Which channels exist for a session. A channel that exists and is silent is suspicious; one that does not exist is
/// not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witnesses {
    /// The program reports by hooks.
    pub hooks: bool,
    /// It keeps a transcript.
    pub transcript: bool,
    /// It keeps a status file.
    pub status: bool,
    /// Its screen is painted.
    pub screen: bool,
}

impl Witnesses {
    /// All of them: the agent program in production.
    pub const ALL: Witnesses = Witnesses {
        hooks: true,
        transcript: true,
        status: true,
        screen: true,
    };
    /// Nothing but its screen: a recording, or a program that neither reports nor records.
    pub const SCREEN: Witnesses = Witnesses {
        hooks: false,
        transcript: false,
        status: false,
        screen: true,
    };

    /// Whether something other than the screen can tell the end of a turn.
    pub(crate) fn can_tell_an_end(self) -> bool {
        self.hooks || self.transcript
    }
}

/// A turn that is about to begin.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Its id; absent for one that a person types.
    pub turn: Option<TurnId>,
    /// The prompt as it is pasted or typed.
    pub prompt: String,
    /// The marker that its final message must carry.
    pub marker: Marker,
    /// The office's own patterns.
    pub patterns: OfficePatterns,
}

/// Something that was seen, or that we did.
#[derive(Debug)]
pub enum Observation<'a> {
    /// The screen as it was read, and what it shows of its newest turn where that was looked at.
    Screen {
        /// What it means.
        reading: &'a Reading,
        /// Its newest turn.
        turn: Option<&'a ScreenTurn>,
    },
    /// Keys that a person pressed.
    Keys {
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The agent program reported something.
    Hook(&'a HookEvent),
    /// It recorded something.
    Fact(DatedFact),
    /// What its status file says; nothing when there is none.
    Activity(Option<Activity>),
    /// A retry that its screen tells of; nothing when it tells of none.
    Retry(Option<Retry>),
    /// A turn is about to be brought in: what follows may be its own.
    Began(Expected),
    /// Its prompt was taken.
    Submitted {
        /// Where that was seen.
        source: &'static str,
        /// How often Enter was pressed.
        enters: u32,
    },
    /// Its prompt was not taken: nothing was sent, on request.
    NeverSent,
    /// Its prompt was not taken.
    NotSubmitted {
        /// Why, for people.
        why: String,
    },
    /// Its prompt was never taken, although another process may have pressed Enter: it was taken out of the box.
    NeverEntered {
        /// Why, for people.
        why: String,
    },
    /// Whether its prompt was taken is not known, and cannot be any more.
    EffectUnknown {
        /// Why, for people.
        why: String,
    },
    /// Somebody wants the turn to be cancelled; the interrupt follows.
    CancelRequested,
    /// The interrupt's key was pressed.
    InterruptSent,
    /// The turn's time is over; the interrupt follows.
    TimeLimit,
    /// The session is to be ended.
    StopRequested,
    /// We have ended the session, and its process tree is proven gone.
    EndedOnRequest,
    /// We have tried to end the session and could not prove it.
    NotEnded {
        /// What is left, for people.
        why: String,
    },
    /// The program ended; with its exit code.
    Exit(Option<i32>),
}

/// What the follower has to tell its owner.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum News {
    Asked(AskSeen),
    AskOver(u64, AskOver),
    Retrying(Option<Retry>),
}

/// Follows one session's turns: ours and those typed at the keyboard.
#[derive(Debug)]
pub struct Follower {
    witnesses: Witnesses,
    state: SessionState,
    turn: Option<Turn>,
    past: Past,
    screen: ScreenView,
    asks: Asks,
    retry: Option<Retry>,
    typed_marker: Marker,
    news: VecDeque<News>,
    /// Verdicts of turns that ended while the next one was beginning.
    decided: VecDeque<(Option<TurnId>, Verdict)>,
    story: Story,
    /// The program ran already when it was first seen.
    joins: bool,
    /// The wall clock as the owner last told it; only to place hours that a provider names.
    wall: Option<Timestamp>,
}

impl Follower {
    /// Follows a session that is starting.
    pub fn new(witnesses: Witnesses) -> Follower {
        Follower {
            witnesses,
            state: SessionState::Starting,
            turn: None,
            past: Past::default(),
            screen: ScreenView::default(),
            asks: Asks::default(),
            retry: None,
            typed_marker: Marker::None,
            news: VecDeque::new(),
            decided: VecDeque::new(),
            story: Story::default(),
            joins: false,
            wall: None,
        }
    }

    /// Which marker the turns that a person types are held to; none without this.
    pub fn expect_of_typed(&mut self, marker: Marker) {
        self.typed_marker = marker;
    }

    /// Tells the wall clock's time, for the hours that a provider names ("resets 3am").
    pub fn tell_time(&mut self, now: Timestamp) {
        self.wall = Some(now);
    }

    /// The session's state.
    pub fn state(&self) -> &SessionState {
        &self.state
    }

    /// Takes in one observation, made at `at_ms` milliseconds of any clock that never goes back.
    pub fn observe(&mut self, at_ms: u64, what: Observation<'_>) {
        match what {
            Observation::Screen { reading, turn } => self.saw_screen(at_ms, reading, turn),
            Observation::Keys { bytes } => self.screen.keys(at_ms, bytes),
            Observation::Hook(event) => self.hook(at_ms, event),
            Observation::Fact(dated) => self.fact(at_ms, dated),
            Observation::Activity(activity) => self.screen.activity = activity,
            Observation::Retry(retry) => self.retrying(at_ms, retry),
            Observation::Began(expected) => self.begin(at_ms, expected),
            Observation::Submitted { source, enters } => self.submitted(at_ms, source, enters),
            Observation::NeverSent => self.sign(at_ms, "actor", "never-sent", |turn| {
                // Nothing was sent: that is as good a proof as an interrupt.
                turn.signs.cancel_requested = true;
                turn.signs.interrupted = true;
            }),
            Observation::NotSubmitted { why } => self.not_submitted(at_ms, why, false),
            Observation::NeverEntered { why } => self.not_submitted(at_ms, why, true),
            Observation::EffectUnknown { why } => self.effect_unknown(at_ms, why),
            Observation::CancelRequested => self.sign(at_ms, "actor", "cancel-requested", |turn| {
                turn.signs.cancel_requested |= !turn.signs.timed_out;
            }),
            Observation::InterruptSent => self.sign(at_ms, "actor", "interrupt-sent", |turn| {
                turn.interrupt_sent = true;
            }),
            Observation::TimeLimit => self.sign(at_ms, "actor", "time-limit", |turn| {
                turn.signs.timed_out = true;
            }),
            Observation::StopRequested => {
                // What the agent makes of the end of its own work, while it is being ended, is no turn's result.
                self.sign(at_ms, "actor", "stop-requested", |turn| turn.sealed = true);
                self.close_asks("the session is being ended");
                self.apply(&SessionEvent::StopRequested);
            }
            Observation::EndedOnRequest => self.sign(at_ms, "process", "ended-on-request", |turn| {
                turn.signs.ended_on_request = true;
            }),
            Observation::NotEnded { why } => self.sign(at_ms, "process", "not-ended", |turn| {
                // An end that was told is not undone by what came after it.
                if turn.stop.is_some() && turn.pending(at_ms) == 0 {
                    return;
                }
                turn.signs.failure = Some(Failure {
                    class: FailureClass::Other,
                    detail: why,
                    retry_at: None,
                });
            }),
            Observation::Exit(code) => self.exit(at_ms, code),
        }
    }

    fn sign(&mut self, at_ms: u64, source: &'static str, rule: &'static str, set: impl FnOnce(&mut Turn)) {
        if let Some(turn) = self.running_mut() {
            turn.log(at_ms, source, rule, String::new());
            set(turn);
        }
    }

    fn not_submitted(&mut self, at_ms: u64, why: String, never_entered: bool) {
        self.sign(at_ms, "actor", "not-submitted", |turn| {
            turn.signs.never_entered = never_entered;
            turn.signs.failure = Some(Failure {
                class: FailureClass::NotSubmitted,
                detail: why,
                retry_at: None,
            });
        });
    }

    fn begin(&mut self, at_ms: u64, expected: Expected) {
        self.leave_turn(at_ms);
        let mut turn = Turn::new(expected, self.past.tasks());
        turn.log(at_ms, "actor", "began", String::new());
        turn.has_namesake = self.past.has_unnamed(&turn::essence(&turn.expected.prompt));
        turn.leftover = self.screen.in_box().is_some();
        self.screen.idle_since = None;
        self.turn = Some(turn);
    }

    /// A turn that a person has begun.
    fn begin_typed(&mut self, at_ms: u64, prompt: &str, source: &'static str, id: Option<&str>) {
        // One of ours that is judged stays until its report is made.
        if self.turn.as_ref().is_some_and(Turn::is_ours) {
            return;
        }
        self.begin(
            at_ms,
            Expected {
                turn: None,
                prompt: prompt.to_owned(),
                marker: self.typed_marker.clone(),
                patterns: OfficePatterns::default(),
            },
        );
        if let Some(turn) = &mut self.turn {
            turn.signs.acknowledged = true;
            turn.acknowledged_by = Some(source);
            turn.adopt(at_ms, id.map(str::to_owned), source);
        }
        self.apply(&SessionEvent::TurnStarted { turn: None });
    }

    fn submitted(&mut self, at_ms: u64, source: &'static str, enters: u32) {
        let Some(turn) = &mut self.turn else { return };
        turn.submitted(at_ms, source, enters);
        let turn = turn.id();
        // How long the box was free before is no matter of this turn.
        self.screen.idle_since = None;
        // The submission has seen the box before the next look would.
        self.apply(&SessionEvent::Ready);
        self.apply(&SessionEvent::TurnStarted { turn });
    }

    fn retrying(&mut self, at_ms: u64, retry: Option<Retry>) {
        let running = self.running().is_some();
        let retry = retry.filter(|_| running);
        if retry == self.retry {
            return;
        }
        if let (Some(retry), Some(turn)) = (&retry, self.running_mut()) {
            // The words count the seconds down: one line for each try is enough.
            if turn
                .last_retry
                .as_ref()
                .is_none_or(|last| last.attempt != retry.attempt)
            {
                turn.log(at_ms, "screen", "retrying", retry.words.clone());
            }
            turn.last_retry = Some(retry.clone());
        }
        self.retry.clone_from(&retry);
        self.tell(News::Retrying(retry));
    }

    fn exit(&mut self, at_ms: u64, code: Option<i32>) {
        self.sign(at_ms, "process", "exit", |turn| {
            turn.signs.exited = Some(code);
            if turn.in_doubt && !turn.is_taken() {
                let why = "the agent program ended, and nothing tells whether it had taken the prompt before";
                turn.signs.effect_unknown.get_or_insert_with(|| why.to_owned());
            }
        });
        self.retrying(at_ms, None);
        self.close_asks("the session ended");
        self.apply(&SessionEvent::Exited { code });
    }

    /// The turn, while it is not judged.
    fn running(&self) -> Option<&Turn> {
        self.turn.as_ref().filter(|turn| turn.judged.is_none())
    }

    fn running_mut(&mut self) -> Option<&mut Turn> {
        self.turn.as_mut().filter(|turn| turn.judged.is_none())
    }

    /// Moves the state. An event that makes no sense in it changes nothing.
    fn apply(&mut self, event: &SessionEvent) {
        match self.state.after(event) {
            Ok(after) => {
                if after != self.state {
                    tracing::debug!(before = ?self.state, ?event, ?after, "state");
                }
                self.state = after;
            }
            Err(error) => tracing::debug!(%error, "an event that changes nothing"),
        }
    }

    fn tell(&mut self, news: News) {
        if self.news.len() == NEWS_MAX {
            self.news.pop_front();
        }
        self.news.push_back(news);
    }

    /// Whether there is no turn that the transcript could tell anything about.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.running().is_none()
    }

    /// Judges the running turn by what is known now: nothing more will come.
    pub(crate) fn settle_now(&mut self, at_ms: u64) {
        let busy = self.screen.is_busy();
        if let Some(turn) = self.running_mut() {
            turn.settle_now(at_ms, busy);
        }
    }

    /// Whether a turn that a person has begun is under way: the program would run another one as one with it.
    pub(crate) fn is_persons_turn(&self) -> bool {
        self.state == SessionState::Working { turn: None }
            || self.running().is_some_and(|turn| !turn.is_ours())
    }

    /// What has to be told, oldest first.
    pub(crate) fn news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// Where our prompt was seen as taken, once it was.
    pub(crate) fn acknowledged_by(&self) -> Option<&'static str> {
        self.running()?.acknowledged_by
    }

    /// Whether the running turn is being settled: its end was told, and only what agrees with it is waited for.
    pub(crate) fn is_settling(&self, at_ms: u64) -> bool {
        let limit = judge::TRANSCRIPT_WAIT_MS + 500;
        let recent = |stop: &turn::Stop| at_ms < stop.at_ms.saturating_add(limit);
        self.running()
            .is_some_and(|turn| turn.stop.as_ref().is_some_and(recent))
    }

    /// Whether a turn of ours is under way that has not been judged.
    pub(crate) fn is_carrying(&self) -> bool {
        self.running().is_some_and(Turn::is_ours)
    }

    /// Whether the screen should be read for its newest turn: nothing else has told an end, and soon it is given up.
    pub(crate) fn wants_the_screens_turn(&self, at_ms: u64) -> bool {
        let idle = self.idle_for(at_ms) >= Some(judge::IDLE_UNCONFIRMED_MS / 2);
        idle && self
            .running()
            .is_some_and(|turn| turn.is_ours() && turn.stop.is_none())
    }

    /// Whether background work of the running turn keeps a wanted cancel from being proven.
    pub(crate) fn cancel_needs_the_end(&self, at_ms: u64) -> bool {
        self.running().is_some_and(|turn| {
            let halted = turn.signs.interrupted || turn.signs.idle_again || turn.stop.is_some();
            turn.signs.cancel_requested && halted && turn.pending(at_ms) > 0
        })
    }

    /// What there is to explain, with the newest turn last.
    pub fn explain(&self) -> Explanation {
        self.story.explain(self)
    }
}

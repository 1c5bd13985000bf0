//! When a turn's signs are put before `domain::turn`: what has to be waited for, and for how long.

use domain::TurnId;
use domain::session::{SessionEvent, SessionState};
use domain::turn::{Doubt, StopSource, Verdict};
use provider::claude::HookKind;
use provider::detect::{Dialog, InputBox, ScreenMeaning};

use super::explain::explained;
use super::turn::{Finished, Stop, Turn, essence, solid};
use super::{Follower, News};

/// How long the transcript may take to show what the stop signal has said.
pub(super) const TRANSCRIPT_WAIT_MS: u64 = 2_000;
/// How long the screen may still show work after a stop. Longer than its last frames and the status file lag.
const WORKED_ON_MS: u64 = 1_500;
/// After an interrupt: how long the agent must look idle to count as stopped. Longer than its status file lags.
const INTERRUPTED_SETTLE_MS: u64 = 400;
/// Where nothing but the screen can tell an end: how long it must rest. A title goes to idle before the last frame.
const SCREEN_SETTLE_MS: u64 = 400;
/// Without an interrupt: how long the agent must look idle before the record alone may tell the end.
pub(super) const IDLE_SETTLE_MS: u64 = 2_000;
/// How long it must look idle before a turn that nothing tells the end of is given up as unconfirmed.
pub(super) const IDLE_UNCONFIRMED_MS: u64 = 8_000;

/// Characters that the box must show of a prompt's end, without blanks, to tell that it stands in it again.
const PUT_BACK_CHARS_MIN: usize = 60;

/// What is known beside a turn's own signs.
struct Around {
    /// There is a transcript.
    transcript: bool,
    /// How long the program has been at rest.
    idle_for: Option<u64>,
    /// It was seen at work in the last look.
    busy: bool,
}

impl Follower {
    /// The verdict on a turn, once, when it can be given. To be asked after observations and as time passes.
    pub fn verdict(&mut self, at_ms: u64) -> Option<Verdict> {
        self.next_verdict(at_ms).map(|(_, verdict)| verdict)
    }

    /// The same, with the turn it is about; absent for one that a person typed.
    pub(crate) fn next_verdict(&mut self, at_ms: u64) -> Option<(Option<TurnId>, Verdict)> {
        if let Some(decided) = self.decided.pop_front() {
            return Some(decided);
        }
        self.look_at_idleness(at_ms);
        self.judge(at_ms)
    }

    fn judge(&mut self, at_ms: u64) -> Option<(Option<TurnId>, Verdict)> {
        let around = Around {
            transcript: self.witnesses.transcript,
            idle_for: self.idle_for(at_ms),
            busy: self.screen.is_busy(),
        };
        let turn = self.running_mut()?;
        turn.take_recorded_failure(at_ms, around.idle_for);
        if turn.record.overruled && turn.record.ended.is_some() {
            // What was told before was not allowed: only the record has the end.
            turn.stop_from_record(at_ms);
        }
        if turn.signs.failure.is_none() && !turn.settle(at_ms, &around) {
            return None;
        }
        turn.signs.pending_work = turn.pending(at_ms);
        let verdict = turn.signs.verdict()?;
        turn.log(at_ms, "judge", verdict.rule, verdict.outcome.to_string());
        turn.judged = Some(verdict.clone());
        let whose = turn.id();
        self.retrying(at_ms, None);
        self.retry = None;
        if self.news.back() != Some(&News::Retrying(None)) {
            self.news.retain(|news| !matches!(news, News::Retrying(Some(_))));
        }
        self.close_asks("the turn ended");
        if whose.is_none() {
            self.finish();
        }
        Some((whose, verdict))
    }

    /// Ends the judged turn: the session is free for the next one.
    pub(crate) fn finish(&mut self) -> Option<Finished> {
        let turn = self.turn.take_if(|turn| turn.judged.is_some())?;
        // A prompt that was never taken has moved nothing: a dialog may be open.
        let moved = turn.signs.acknowledged;
        let finished = self.put_away(turn);
        if moved {
            self.apply(&SessionEvent::TurnEnded);
        }
        finished
    }

    fn put_away(&mut self, turn: Turn) -> Option<Finished> {
        let verdict = turn.judged.clone()?;
        let (turn, finished) = turn.finish(verdict);
        self.story.ended(explained(&turn, &finished.evidence));
        if let Some(shown) = &turn.shown {
            self.screen.leave(shown);
        }
        self.screen.idle_since = None;
        self.screen.rested = false;
        if turn.ids.is_empty() && turn.is_ours() && turn.is_taken() {
            self.past.add_unnamed(essence(&turn.expected.prompt));
        }
        for id in turn.ids {
            self.past.add_prompt(id);
        }
        for task in turn.background.into_left() {
            self.past.add_task(task);
        }
        Some(finished)
    }

    /// A new turn begins: the one before is judged by what is known, without waiting.
    pub(super) fn leave_turn(&mut self, at_ms: u64) {
        if self.running().is_some() {
            let screen_only = !self.witnesses.can_tell_an_end();
            let busy = self.screen.is_busy();
            if let Some(turn) = self.running_mut() {
                if screen_only {
                    turn.take_what_is_shown(at_ms, StopSource::Screen);
                }
                turn.signs.idle_again |= turn.signs.acknowledged;
                turn.background.stale = true;
                turn.settle_now(at_ms, busy);
            }
            if let Some(decided) = self.judge(at_ms) {
                self.decided.push_back(decided);
            }
        }
        if let Some(mut turn) = self.turn.take() {
            turn.log(at_ms, "judge", "left", String::new());
            self.put_away(turn);
        }
    }

    pub(super) fn idle_for(&self, at_ms: u64) -> Option<u64> {
        self.screen.idle_since.map(|since| at_ms.saturating_sub(since))
    }

    /// What a screen that has been at rest for a while tells of the running turn.
    fn look_at_idleness(&mut self, at_ms: u64) {
        let Some(idle_for) = self.idle_for(at_ms) else {
            return;
        };
        let nobody = self.turn.is_none() && self.state == SessionState::Working { turn: None };
        if nobody && idle_for >= IDLE_SETTLE_MS {
            // A person's turn of which nothing was told has come to its end.
            self.apply(&SessionEvent::TurnEnded);
        }
        let screen_only = !self.witnesses.can_tell_an_end();
        let status_idle = !self.witnesses.status || self.screen.is_quiet();
        let input = self.screen.input().cloned();
        let Some(turn) = self.running_mut().filter(|turn| turn.signs.acknowledged) else {
            return;
        };
        if turn.interrupt_sent && idle_for >= INTERRUPTED_SETTLE_MS {
            if !turn.signs.interrupted {
                // It may have come to its own end before.
                turn.stop_from_record(at_ms);
            }
            turn.signs.idle_again = true;
        }
        if screen_only {
            turn.look_at_screen_alone(at_ms, idle_for, input.as_ref());
            return;
        }
        if idle_for < IDLE_SETTLE_MS || turn.stop.is_some() && idle_for < IDLE_UNCONFIRMED_MS {
            return;
        }
        turn.stop_from_record(at_ms);
        turn.accept_early_stop(at_ms);
        if turn.stop.is_none() && turn.was_put_back(input.as_ref()) {
            // Nothing else tells of an interrupt before any answer.
            turn.log(at_ms, "screen", "prompt-put-back", String::new());
            turn.signs.interrupted = true;
        }
        if idle_for < IDLE_UNCONFIRMED_MS {
            return;
        }
        if turn.stop.is_none() && turn.pending(at_ms) == 0 {
            turn.take_what_is_shown(at_ms, StopSource::ScreenAlone);
        }
        if status_idle && turn.pending(at_ms) > 0 && !turn.background.stale {
            // The program says that nothing runs any more: the note of it was lost, and perhaps more than that.
            turn.log(at_ms, "status", "background-work-is-over", String::new());
            turn.background.stale = true;
            if let Some(stop) = &mut turn.stop {
                stop.doubt = Some(Doubt::Whose);
            }
        }
        turn.signs.idle_again = true;
    }
}

impl Turn {
    /// A failure that was only recorded counts when the turn is over: until then the program may go on. Of one that
    /// ended while nobody listened the record may lack its end.
    fn take_recorded_failure(&mut self, at_ms: u64, idle_for: Option<u64>) {
        let over = self.record.ended.is_some()
            || self.signs.exited.is_some() && !self.signs.unheard
            || idle_for >= Some(INTERRUPTED_SETTLE_MS);
        if self.stop.is_none()
            && over
            && let Some((failure, status)) = self.record.failure.take()
        {
            self.fails(at_ms, failure, status, "transcript");
        }
    }

    /// Compares the stop with the transcript as far as it has been read. True when there is nothing to wait for.
    fn settle(&mut self, at_ms: u64, around: &Around) -> bool {
        let Some(stop) = &mut self.stop else { return true };
        stop.worked_on |= around.busy && at_ms >= stop.at_ms.saturating_add(WORKED_ON_MS);
        let Some(stop) = &self.stop else { return true };
        let agrees = match stop.by {
            StopSource::Record => Some(true),
            StopSource::Screen | StopSource::ScreenAlone => None,
            StopSource::Told if !around.transcript => None,
            StopSource::Told => self.transcript_agrees(),
        };
        // With background work it is no end yet, so nothing has to be waited for; other ends may come.
        let at_once = self.hurried || stop.by != StopSource::Told || self.pending(at_ms) > 0;
        if !at_once && !self.has_surely_stopped(at_ms, agrees, around) {
            return false;
        }
        self.settle_stop(agrees);
        true
    }

    /// Whether a stop that was told is the end. A stop hook of the project is asked at the same time as ours, and may
    /// let the agent go on: the end is the record's, or a program at rest.
    fn has_surely_stopped(&self, at_ms: u64, agrees: Option<bool>, around: &Around) -> bool {
        let Some(stop) = &self.stop else { return false };
        if agrees == Some(false) || agrees == Some(true) && self.record.tells_the_end() {
            return true;
        }
        let since = at_ms.saturating_sub(stop.at_ms);
        let rests_for = around.idle_for.map(|idle| idle.min(since));
        if self.contradicted {
            return rests_for >= Some(IDLE_SETTLE_MS);
        }
        if rests_for >= Some(INTERRUPTED_SETTLE_MS) && (agrees == Some(true) || !around.transcript) {
            return true;
        }
        // A hook that runs tests takes its time, and the program is seen to wait for it.
        since >= TRANSCRIPT_WAIT_MS && !around.busy
    }

    fn transcript_agrees(&self) -> Option<bool> {
        let stop = self.stop.as_ref()?;
        let text = self.record.last_text.as_deref()?;
        if stop.ends_with(text) {
            return Some(true);
        }
        self.record.ended.map(|_| false)
    }

    /// Without waiting for anything more. `busy`: the program was at work when it was last seen.
    pub(super) fn settle_now(&mut self, at_ms: u64, busy: bool) {
        self.stop_from_record(at_ms);
        self.accept_early_stop(at_ms);
        self.hurried = true;
        self.cut_off = busy || self.contradicted;
    }

    /// For a turn whose stop signal was lost: the end as the record tells it.
    fn stop_from_record(&mut self, at_ms: u64) {
        if self.stop.is_some() || self.record.failure.is_some() {
            return;
        }
        if let (Some(agents), Some(text)) = (self.record.ended, self.record.last_text.clone()) {
            let rank = self.ids.len().saturating_sub(1);
            let doubt = (self.record.untraced || agents > 0).then_some(Doubt::Whose);
            self.stopped(Stop::new(at_ms, text, rank, StopSource::Record).doubted(doubt));
        }
    }

    /// A stop of a prompt that nobody could place, on a program that is at rest: it may be this turn's.
    fn accept_early_stop(&mut self, at_ms: u64) {
        if self.stop.is_some() {
            return;
        }
        let newest = self
            .early_ends
            .iter()
            .rev()
            .find_map(|(_, event)| match &event.kind {
                HookKind::Stop {
                    last_message,
                    background,
                    ..
                } => Some((last_message.clone(), background.clone())),
                _ => None,
            });
        if let Some((message, background)) = newest {
            let rank = self.ids.len();
            self.stopped(Stop::new(at_ms, message, rank, StopSource::Told).doubted(Some(Doubt::Whose)));
            self.background.listed(at_ms, &background);
        }
    }

    /// The program puts a prompt back into the box when it was interrupted before any answer.
    fn was_put_back(&self, input: Option<&InputBox>) -> bool {
        let Some(input) = input.filter(|input| !input.empty) else {
            return false;
        };
        let (wanted, visible) = (solid(&self.expected.prompt), solid(&input.text));
        // Of a long one the box shows the end only.
        let end = visible.chars().count() >= PUT_BACK_CHARS_MIN && wanted.ends_with(&visible);
        !wanted.is_empty() && (visible == wanted || end)
    }

    fn look_at_screen_alone(&mut self, at_ms: u64, idle_for: u64, input: Option<&InputBox>) {
        if idle_for < SCREEN_SETTLE_MS {
            return;
        }
        if self.was_put_back(input) {
            self.signs.interrupted = true;
            return;
        }
        let settled = self.shown.as_ref().is_some_and(|shown| {
            let marked = shown.message.as_deref().is_some_and(|message| {
                self.expected.marker.sign_in(message) == domain::marker::MarkerSign::Present
            });
            shown.ended || shown.interrupted || shown.failure.is_some() || marked
        });
        if settled || idle_for >= IDLE_SETTLE_MS {
            self.take_what_is_shown(at_ms, StopSource::Screen);
        }
        if idle_for >= IDLE_SETTLE_MS {
            self.signs.idle_again = true;
        }
    }

    /// Takes the screen's word, as far as it may speak: alone it tells of failures and interrupts only where nothing
    /// else can.
    fn take_what_is_shown(&mut self, at_ms: u64, by: StopSource) {
        let Some(shown) = self.shown.clone().filter(|_| self.stop.is_none()) else {
            return;
        };
        let alone = by == StopSource::ScreenAlone;
        if shown.interrupted && !alone {
            self.log(at_ms, "screen", "interrupted", String::new());
            self.signs.interrupted = true;
        } else if let Some(failure) = shown.failure.filter(|_| !alone) {
            let failure = super::hooks::failure_of(failure.class, &failure.words, None);
            self.fails(at_ms, failure, None, "screen");
        } else if let Some(message) = shown.message {
            let rank = self.ids.len().saturating_sub(1);
            let doubt = shown.overruled.then_some(Doubt::Overruled);
            self.stopped(Stop::new(at_ms, message, rank, by).doubted(doubt));
        }
    }
}

/// Whether the program rests at its prompt, or at the menu that follows a limit.
pub(super) fn is_rest(meaning: &ScreenMeaning) -> bool {
    matches!(
        meaning,
        ScreenMeaning::Ready(_) | ScreenMeaning::Dialog(Dialog::Limit)
    )
}

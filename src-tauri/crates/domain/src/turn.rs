//! What "done" means: the outcomes of a turn and the pure function that reaches one from the signs.

use serde::{Deserialize, Serialize};

use crate::marker::MarkerSign;
use crate::time::Timestamp;

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum TurnOutcome {
    /// The agent finished, and the marker it was asked for closes its final message.
    Done,
    /// It stopped, but a required sign is missing or two signs disagree. Never rounded up to done.
    Unconfirmed {
        /// Which sign is missing.
        why: String,
    },
    /// It failed.
    Failed {
        /// The class, for decisions.
        class: FailureClass,
        /// The provider's words, for people.
        detail: String,
        /// When it is worth trying again, where the provider said so (a limit that is lifted then).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_at: Option<Timestamp>,
    },
    /// It was interrupted on request, and is proven stopped.
    Cancelled,
}

/// Classes of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(
    missing_docs,
    reason = "each is described by its name; the provider maps its errors onto them"
)]
pub enum FailureClass {
    RateLimit,
    Auth,
    Billing,
    Context,
    Overloaded,
    Connection,
    Server,
    ProviderExit,
    Timeout,
    /// Our own policy, or a command that makes no sense now.
    Refused,
    /// The prompt could not be brought into the agent's input.
    NotSubmitted,
    Other,
}

impl std::fmt::Display for FailureClass {
    /// The stable word, as it stands in results.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = match self {
            FailureClass::RateLimit => "rate_limit",
            FailureClass::Auth => "auth",
            FailureClass::Billing => "billing",
            FailureClass::Context => "context",
            FailureClass::Overloaded => "overloaded",
            FailureClass::Connection => "connection",
            FailureClass::Server => "server",
            FailureClass::ProviderExit => "provider_exit",
            FailureClass::Timeout => "timeout",
            FailureClass::Refused => "refused",
            FailureClass::NotSubmitted => "not_submitted",
            FailureClass::Other => "other",
        };
        f.write_str(word)
    }
}

impl std::fmt::Display for TurnOutcome {
    /// One line for people.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TurnOutcome::Done => f.write_str("done"),
            TurnOutcome::Unconfirmed { why } => write!(f, "unconfirmed: {why}"),
            TurnOutcome::Failed { class, detail, .. } => write!(f, "failed ({class}): {detail}"),
            TurnOutcome::Cancelled => f.write_str("cancelled"),
        }
    }
}

/// A failure as the provider told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The class.
    pub class: FailureClass,
    /// The provider's words.
    pub detail: String,
    /// When it is worth trying again, where that was said.
    pub retry_at: Option<Timestamp>,
}

/// A call of the provider's API failed and is tried again by the agent program: no end of the turn, but a person wants
/// to know long before the last try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// The class of what failed, where it can be told already.
    pub class: Option<FailureClass>,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// How many there will be.
    pub max: u32,
    /// Seconds until the next try, as they were told when this try failed.
    pub next_in_s: Option<u32>,
    /// The program's own words.
    pub words: String,
}

/// How far a turn has come on its way into the agent, as the journal keeps it. What a start after a crash may do with
/// the turn hangs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnStage {
    /// Written down; Enter was never pressed by us, so it can be run again without doubt.
    Begun,
    /// Written before Enter is pressed: from here on its effect may exist.
    Entering,
    /// The agent acknowledged it.
    Taken,
}

impl TurnStage {
    /// The stage after it was found to be at `to`; `None` when that would be a step back.
    pub fn advance(self, to: TurnStage) -> Option<TurnStage> {
        (to >= self).then_some(to)
    }

    /// Whether the agent may have seen the prompt.
    pub fn may_have_effect(self) -> bool {
        self != TurnStage::Begun
    }

    /// The word in the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            TurnStage::Begun => "begun",
            TurnStage::Entering => "entering",
            TurnStage::Taken => "taken",
        }
    }
}

impl std::str::FromStr for TurnStage {
    type Err = ();

    fn from_str(text: &str) -> Result<TurnStage, ()> {
        [TurnStage::Begun, TurnStage::Entering, TurnStage::Taken]
            .into_iter()
            .find(|stage| stage.as_str() == text)
            .ok_or(())
    }
}

/// What has been seen of a turn so far. Filled by the session's follower, judged by [`TurnSigns::verdict`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TurnSigns {
    /// The agent acknowledged the prompt.
    pub acknowledged: bool,
    /// The turn ended by itself; with what its final message says.
    pub stopped: Option<Stopped>,
    /// The provider said the turn failed.
    pub failure: Option<Failure>,
    /// Somebody asked us to cancel, and the interrupt was sent.
    pub cancel_requested: bool,
    /// The provider's record shows the turn as interrupted.
    pub interrupted: bool,
    /// The process ended during the turn.
    pub exited: Option<Option<i32>>,
    /// We ended the session during the turn, and its whole process tree is proven gone.
    pub ended_on_request: bool,
    /// The time limit was reached and the interrupt was sent.
    pub timed_out: bool,
    /// The input line is ready again, seen for a settled while.
    pub idle_again: bool,
    /// Background tasks and sub-agents that this turn has started and that are not known to have ended.
    pub pending_work: usize,
    /// The prompt is proven not to have reached the agent, although Enter may have been pressed: it was taken out of the
    /// input again.
    pub never_entered: bool,
    /// Whether the prompt reached the agent cannot be known any more; with why, for people.
    pub effect_unknown: Option<String>,
    /// From some moment on until the process ended, or until now, nobody listened to what the agent told.
    pub unheard: bool,
}

/// A natural end of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// The marker in the final message.
    pub marker: MarkerSign,
    /// Whether the marker that was asked for carries a code of this very turn.
    pub coded: bool,
    /// What the office's own patterns say about the final message.
    pub office: OfficeSign,
    /// Who told it.
    pub by: StopSource,
    /// What makes the end doubtful, if anything.
    pub doubt: Option<Doubt>,
    /// The transcript agrees that this is the final message; `None` when it could not be read in time.
    pub transcript_agrees: Option<bool>,
}

/// Who told that a turn stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSource {
    /// The provider itself, at the moment.
    Told,
    /// Its record.
    Record,
    /// Only the screen, although the provider tells and records such things: both were silent.
    ScreenAlone,
    /// The screen, for a program that neither tells nor records.
    Screen,
}

/// What makes an end doubtful.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// It may be the end of another turn.
    Whose,
    /// A hook of the project did not let the agent stop, again and again, until the program overruled it.
    Overruled,
}

/// What an office's patterns say about a final message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OfficeSign {
    /// Nothing.
    #[default]
    Silent,
    /// One of its completion patterns closes the message.
    Completes,
    /// One of its error patterns is in it.
    Error,
}

/// The rule of a turn that another process has left as it was about to press Enter, and whose prompt the agent never got:
/// whoever still wants it may send it again.
pub const NEVER_ENTERED: &str = "never-entered";

/// An outcome and the rule that reached it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The outcome.
    pub outcome: TurnOutcome,
    /// Stable name of the rule, shown by "explain".
    pub rule: &'static str,
}

fn verdict(outcome: TurnOutcome, rule: &'static str) -> Option<Verdict> {
    Some(Verdict { outcome, rule })
}

fn unconfirmed(why: &str, rule: &'static str) -> Option<Verdict> {
    verdict(TurnOutcome::Unconfirmed { why: why.to_owned() }, rule)
}

fn failed(class: FailureClass, detail: &str, rule: &'static str) -> Option<Verdict> {
    let outcome = TurnOutcome::Failed {
        class,
        detail: detail.to_owned(),
        retry_at: None,
    };
    verdict(outcome, rule)
}

impl TurnSigns {
    /// The verdict, or `None` while the turn goes on. The order of the rules is their precedence: what the process
    /// and the provider's own record say comes before our wishes, and our wishes before silence.
    pub fn verdict(&self) -> Option<Verdict> {
        if let Some(failure) = &self.failure {
            let outcome = TurnOutcome::Failed {
                class: failure.class,
                detail: failure.detail.clone(),
                retry_at: failure.retry_at,
            };
            let rule = match failure.class {
                FailureClass::NotSubmitted if self.never_entered => NEVER_ENTERED,
                FailureClass::NotSubmitted => "not-submitted",
                _ => "provider-failure",
            };
            return verdict(outcome, rule);
        }
        // With background work still running the agent will stop again: this stop is no end, but other ends can come.
        let pending = self.pending_work > 0;
        if let Some(stopped) = self.stopped.as_ref().filter(|_| !pending) {
            return stopped.verdict();
        }
        self.verdict_of_process()
            .or_else(|| self.verdict_of_limit(pending))
            .or_else(|| self.verdict_of_halt(pending))
    }

    fn verdict_of_process(&self) -> Option<Verdict> {
        if self.timed_out && self.ended_on_request {
            return failed(
                FailureClass::Timeout,
                "the turn reached its time limit, could not be interrupted, and the session was ended",
                "timeout-session-ended",
            );
        }
        if self.ended_on_request {
            return verdict(TurnOutcome::Cancelled, "session-ended");
        }
        if let Some(why) = &self.effect_unknown {
            return unconfirmed(why, "effect-unknown");
        }
        let exited = self.exited?;
        if self.unheard {
            return unconfirmed(
                "the agent program ended while nobody listened to it, and its record does not tell how the turn ended",
                "exit-unheard",
            );
        }
        let detail = match exited {
            Some(code) => format!("the agent program ended with exit code {code} during the turn"),
            None => "the agent program was ended by a signal during the turn".to_owned(),
        };
        failed(FailureClass::ProviderExit, &detail, "process-exit")
    }

    fn verdict_of_limit(&self, pending: bool) -> Option<Verdict> {
        if !self.timed_out {
            return None;
        }
        if pending && self.stopped.is_some() {
            return unconfirmed(
                "the agent stopped, but work that it left in the background was still running at the turn's time limit",
                "time-limit-with-background-work",
            );
        }
        if !(self.interrupted || self.idle_again) {
            return None;
        }
        failed(
            FailureClass::Timeout,
            "the turn reached its time limit and was interrupted",
            "timeout-interrupted",
        )
    }

    fn verdict_of_halt(&self, pending: bool) -> Option<Verdict> {
        let halted = self.interrupted || self.idle_again;
        // What runs in the background is not stopped by an interrupt: then only the end of the session proves it.
        if self.cancel_requested {
            return verdict(TurnOutcome::Cancelled, "cancel-proven").filter(|_| halted && !pending);
        }
        if self.interrupted && pending {
            return unconfirmed(
                "the turn was interrupted at the keyboard, but work that it left in the background is not known to have ended",
                "interrupted-with-background-work",
            );
        }
        if self.interrupted {
            return verdict(TurnOutcome::Cancelled, "interrupted-at-keyboard");
        }
        if self.acknowledged && self.idle_again && !pending {
            return unconfirmed(
                "the agent is idle again, but neither its stop signal nor its record of the end was seen",
                "idle-without-stop",
            );
        }
        None
    }
}

impl Stopped {
    /// Of a stop without pending work.
    fn verdict(&self) -> Option<Verdict> {
        if self.transcript_agrees == Some(false) {
            return unconfirmed(
                "the stop signal and the transcript disagree about the final message",
                "stop-disputed",
            );
        }
        if self.office == OfficeSign::Error {
            return unconfirmed(
                "the final message matches one of the office's error patterns",
                "stop-with-error-pattern",
            );
        }
        match self.doubt {
            Some(Doubt::Whose) => {
                return unconfirmed(
                    "the agent stopped, but it is not certain that it was this turn that ended",
                    "stop-uncertain",
                );
            }
            Some(Doubt::Overruled) => {
                return unconfirmed(
                    "a stop hook of the project said that the work is not finished, and the agent program overruled it",
                    "stop-overruled",
                );
            }
            None => {}
        }
        match self.marker {
            MarkerSign::Present => self.verdict_of_done("stop-with-marker"),
            MarkerSign::NotAsked => self.verdict_of_done("stop-no-marker-asked"),
            MarkerSign::Absent if self.office == OfficeSign::Completes && !self.coded => {
                self.verdict_of_done("stop-with-office-pattern")
            }
            MarkerSign::Absent => unconfirmed(
                "the agent stopped without the completion marker it was asked for",
                "stop-without-marker",
            ),
            MarkerSign::MentionedOnly => unconfirmed(
                "the completion marker is mentioned in the final message, but does not close it",
                "stop-marker-mentioned",
            ),
        }
    }

    /// Done, as far as who told the stop may say so.
    fn verdict_of_done(&self, rule: &'static str) -> Option<Verdict> {
        match self.by {
            StopSource::Told | StopSource::Record => verdict(TurnOutcome::Done, rule),
            StopSource::Screen => verdict(TurnOutcome::Done, "stop-on-screen"),
            StopSource::ScreenAlone if self.coded && self.marker == MarkerSign::Present => {
                verdict(TurnOutcome::Done, "stop-on-screen-with-code")
            }
            StopSource::ScreenAlone => unconfirmed(
                "only the screen shows that the turn ended: neither the stop signal nor the record of the end was seen",
                "screen-only",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(marker: MarkerSign) -> TurnSigns {
        TurnSigns {
            acknowledged: true,
            stopped: Some(Stopped {
                marker,
                coded: false,
                office: OfficeSign::Silent,
                by: StopSource::Told,
                doubt: None,
                transcript_agrees: Some(true),
            }),
            ..TurnSigns::default()
        }
    }

    fn rule(signs: &TurnSigns) -> Option<&'static str> {
        signs.verdict().map(|verdict| verdict.rule)
    }

    #[test]
    fn a_stage_goes_forward_only_and_only_the_first_is_without_effect() {
        use TurnStage::{Begun, Entering, Taken};
        let stages = [Begun, Entering, Taken];
        for (from, stage) in stages.into_iter().enumerate() {
            for (to, next) in stages.into_iter().enumerate() {
                assert_eq!(
                    stage.advance(next),
                    (to >= from).then_some(next),
                    "{stage:?} {next:?}"
                );
            }
            assert_eq!(stage.may_have_effect(), stage != Begun);
            assert_eq!(stage.as_str().parse(), Ok(stage));
            assert_eq!(
                serde_json::to_string(&stage).unwrap(),
                format!("\"{}\"", stage.as_str()),
                "one word everywhere"
            );
        }
        assert_eq!("ended".parse::<TurnStage>(), Err(()));
    }

    #[test]
    fn a_prompt_that_was_never_taken_is_no_failure_of_the_provider() {
        let with = |class| {
            let failure = Failure {
                class,
                detail: String::new(),
                retry_at: None,
            };
            rule(&TurnSigns {
                failure: Some(failure),
                ..TurnSigns::default()
            })
        };
        assert_eq!(with(FailureClass::NotSubmitted), Some("not-submitted"));
        assert_eq!(with(FailureClass::Server), Some("provider-failure"));
        let left = TurnSigns {
            failure: Some(Failure {
                class: FailureClass::NotSubmitted,
                detail: String::new(),
                retry_at: None,
            }),
            never_entered: true,
            ..TurnSigns::default()
        };
        assert_eq!(rule(&left), Some(NEVER_ENTERED));
    }

    #[test]
    fn only_a_stop_with_the_marker_that_was_asked_for_is_done() {
        assert_eq!(rule(&stopped(MarkerSign::Present)), Some("stop-with-marker"));
        assert_eq!(rule(&stopped(MarkerSign::NotAsked)), Some("stop-no-marker-asked"));
        for sign in [MarkerSign::Absent, MarkerSign::MentionedOnly] {
            let outcome = stopped(sign).verdict().unwrap().outcome;
            assert!(
                matches!(outcome, TurnOutcome::Unconfirmed { .. }),
                "{sign:?} must not be rounded up"
            );
        }
    }

    #[test]
    fn a_stop_with_background_work_is_no_end() {
        let mut signs = stopped(MarkerSign::Present);
        signs.pending_work = 1;
        assert_eq!(signs.verdict(), None);
        signs.idle_again = true;
        assert_eq!(
            signs.verdict(),
            None,
            "an idle prompt is what background work looks like"
        );
    }

    #[test]
    fn background_work_does_not_keep_a_turn_alive_for_ever() {
        let mut signs = stopped(MarkerSign::Present);
        signs.pending_work = 1;
        let mut exited = signs.clone();
        exited.exited = Some(Some(0));
        assert_eq!(rule(&exited), Some("process-exit"));
        let mut cancelled = signs.clone();
        cancelled.cancel_requested = true;
        cancelled.idle_again = true;
        cancelled.interrupted = true;
        assert_eq!(
            cancelled.verdict(),
            None,
            "an interrupt does not stop what runs in the background"
        );
        cancelled.ended_on_request = true;
        assert_eq!(rule(&cancelled), Some("session-ended"));
        signs.timed_out = true;
        assert_eq!(rule(&signs), Some("time-limit-with-background-work"));
        assert!(matches!(
            signs.verdict().unwrap().outcome,
            TurnOutcome::Unconfirmed { .. }
        ));
        let interrupted = TurnSigns {
            acknowledged: true,
            interrupted: true,
            pending_work: 1,
            ..TurnSigns::default()
        };
        assert_eq!(rule(&interrupted), Some("interrupted-with-background-work"));
    }

    #[test]
    fn an_offices_pattern_stands_for_the_plain_marker_but_for_no_code_and_its_errors_win() {
        let with = |marker, coded, office| {
            let mut signs = stopped(marker);
            let stop = signs.stopped.as_mut().unwrap();
            (stop.coded, stop.office) = (coded, office);
            rule(&signs)
        };
        assert_eq!(
            with(MarkerSign::Absent, false, OfficeSign::Completes),
            Some("stop-with-office-pattern")
        );
        assert_eq!(
            with(MarkerSign::Absent, true, OfficeSign::Completes),
            Some("stop-without-marker")
        );
        assert_eq!(
            with(MarkerSign::MentionedOnly, false, OfficeSign::Completes),
            Some("stop-marker-mentioned")
        );
        assert_eq!(
            with(MarkerSign::Present, true, OfficeSign::Error),
            Some("stop-with-error-pattern")
        );
    }

    #[test]
    fn the_screen_alone_is_believed_only_with_a_code_or_where_nothing_else_can_speak() {
        let with = |marker, coded, by| {
            let mut signs = stopped(marker);
            let stop = signs.stopped.as_mut().unwrap();
            (stop.coded, stop.by, stop.transcript_agrees) = (coded, by, None);
            rule(&signs)
        };
        use StopSource::{Screen, ScreenAlone};
        assert_eq!(with(MarkerSign::Present, false, ScreenAlone), Some("screen-only"));
        assert_eq!(
            with(MarkerSign::NotAsked, false, ScreenAlone),
            Some("screen-only")
        );
        assert_eq!(
            with(MarkerSign::Present, true, ScreenAlone),
            Some("stop-on-screen-with-code")
        );
        assert_eq!(with(MarkerSign::Present, false, Screen), Some("stop-on-screen"));
        assert_eq!(
            with(MarkerSign::Absent, false, Screen),
            Some("stop-without-marker")
        );
    }

    #[test]
    fn a_stop_that_may_be_another_turns_is_unconfirmed() {
        let mut signs = stopped(MarkerSign::Present);
        signs.stopped.as_mut().unwrap().doubt = Some(Doubt::Whose);
        assert_eq!(rule(&signs), Some("stop-uncertain"));
        signs.stopped.as_mut().unwrap().doubt = Some(Doubt::Overruled);
        assert_eq!(rule(&signs), Some("stop-overruled"));
    }

    #[test]
    fn a_turn_whose_session_we_ended_is_cancelled_or_timed_out_but_no_fault_of_the_provider() {
        let mut signs = TurnSigns {
            acknowledged: true,
            exited: Some(None),
            ended_on_request: true,
            ..TurnSigns::default()
        };
        assert_eq!(rule(&signs), Some("session-ended"));
        signs.timed_out = true;
        assert_eq!(rule(&signs), Some("timeout-session-ended"));
    }

    #[test]
    fn what_nobody_can_know_is_unconfirmed_unless_its_end_is_on_record_or_proven_by_us() {
        let unknown = TurnSigns {
            effect_unknown: Some("nobody saw it taken".into()),
            exited: Some(Some(1)),
            ..TurnSigns::default()
        };
        let why = "nobody saw it taken".to_owned();
        assert_eq!(
            unknown.verdict().unwrap().outcome,
            TurnOutcome::Unconfirmed { why }
        );
        assert_eq!(rule(&unknown), Some("effect-unknown"));
        let unheard = TurnSigns {
            acknowledged: true,
            unheard: true,
            exited: Some(Some(1)),
            ..TurnSigns::default()
        };
        assert_eq!(rule(&unheard), Some("exit-unheard"), "what it told last is lost");
        let mut ended = unheard.clone();
        ended.ended_on_request = true;
        assert_eq!(rule(&ended), Some("session-ended"));
        let mut recorded = stopped(MarkerSign::Present);
        (recorded.unheard, recorded.exited) = (true, Some(None));
        assert_eq!(rule(&recorded), Some("stop-with-marker"));
    }

    #[test]
    fn silence_and_exit_zero_are_never_success() {
        let idle = TurnSigns {
            acknowledged: true,
            idle_again: true,
            ..TurnSigns::default()
        };
        assert_eq!(rule(&idle), Some("idle-without-stop"));
        let exit = TurnSigns {
            acknowledged: true,
            exited: Some(Some(0)),
            ..TurnSigns::default()
        };
        assert_eq!(rule(&exit), Some("process-exit"));
        assert_eq!(TurnSigns::default().verdict(), None);
    }

    #[test]
    fn a_cancel_counts_only_when_the_turn_is_proven_stopped() {
        let mut signs = TurnSigns {
            acknowledged: true,
            cancel_requested: true,
            ..TurnSigns::default()
        };
        assert_eq!(signs.verdict(), None, "asked for is not stopped");
        signs.interrupted = true;
        assert_eq!(signs.verdict().unwrap().outcome, TurnOutcome::Cancelled);
    }

    #[test]
    fn a_turn_that_finished_before_the_cancel_arrived_is_done() {
        let mut signs = stopped(MarkerSign::Present);
        signs.cancel_requested = true;
        signs.idle_again = true;
        assert_eq!(rule(&signs), Some("stop-with-marker"));
    }

    #[test]
    fn a_stop_that_the_transcript_disputes_is_unconfirmed() {
        let mut signs = stopped(MarkerSign::Present);
        signs.stopped.as_mut().unwrap().transcript_agrees = Some(false);
        assert_eq!(rule(&signs), Some("stop-disputed"));
    }
}

//! What "done" means: the outcomes of a turn and the pure function that reaches one from the signs.

use serde::{Deserialize, Serialize};

use crate::marker::MarkerSign;
use crate::session::Ask;

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
    },
    /// It was interrupted on request, and is proven stopped.
    Cancelled,
}

/// Classes of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// What has been seen of a turn so far. Filled by the session actor, judged by [`TurnSigns::verdict`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TurnSigns {
    /// The agent acknowledged the prompt.
    pub acknowledged: bool,
    /// The provider said the turn ended by itself; with its final message.
    pub stopped: Option<Stopped>,
    /// The provider said the turn failed.
    pub failure: Option<(FailureClass, String)>,
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
    /// What is being waited for, if anything.
    pub waiting: Option<Ask>,
}

/// A natural end of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// The marker in the final message.
    pub marker: MarkerSign,
    /// Background tasks or sub-agents that were still running then.
    pub pending_work: usize,
    /// The transcript agrees that this is the final message; `None` when it could not be read in time.
    pub transcript_agrees: Option<bool>,
}

/// An outcome and the rule that reached it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The outcome.
    pub outcome: TurnOutcome,
    /// Stable name of the rule, shown by "explain".
    pub rule: &'static str,
}

impl TurnSigns {
    /// The verdict, or `None` while the turn goes on. The order of the rules is their precedence: what the process
    /// and the provider's own record say comes before our wishes, and our wishes before silence.
    pub fn verdict(&self) -> Option<Verdict> {
        let verdict = |outcome, rule| Some(Verdict { outcome, rule });
        let failed = |class, detail: String| TurnOutcome::Failed { class, detail };
        if let Some((class, detail)) = &self.failure {
            return verdict(failed(*class, detail.clone()), "provider-failure");
        }
        // With background work still running the agent will stop again: this stop is no end, but other ends can come.
        let pending = self
            .stopped
            .as_ref()
            .is_some_and(|stopped| stopped.pending_work > 0);
        if let Some(stopped) = self.stopped.as_ref().filter(|_| !pending) {
            return self.verdict_of_stop(stopped);
        }
        if self.timed_out && self.ended_on_request {
            return verdict(
                failed(
                    FailureClass::Timeout,
                    "the turn reached its time limit, could not be interrupted, and the session was ended"
                        .to_owned(),
                ),
                "timeout-session-ended",
            );
        }
        if self.ended_on_request {
            return verdict(TurnOutcome::Cancelled, "session-ended");
        }
        if let Some(code) = self.exited {
            let detail = match code {
                Some(code) => format!("the agent program ended with exit code {code} during the turn"),
                None => "the agent program was ended by a signal during the turn".to_owned(),
            };
            return verdict(failed(FailureClass::ProviderExit, detail), "process-exit");
        }
        let halted = self.interrupted || self.idle_again;
        if self.timed_out && halted {
            return verdict(
                failed(
                    FailureClass::Timeout,
                    "the turn reached its time limit and was interrupted".to_owned(),
                ),
                "timeout-interrupted",
            );
        }
        if self.cancel_requested && halted {
            return verdict(TurnOutcome::Cancelled, "cancel-proven");
        }
        if self.interrupted {
            return verdict(TurnOutcome::Cancelled, "interrupted-at-keyboard");
        }
        if self.acknowledged && self.idle_again && !pending {
            return verdict(
                TurnOutcome::Unconfirmed {
                    why: "the agent is idle again, but neither its stop signal nor its record of the end was seen"
                        .to_owned(),
                },
                "idle-without-stop",
            );
        }
        None
    }

    /// Of a stop without pending work.
    fn verdict_of_stop(&self, stopped: &Stopped) -> Option<Verdict> {
        let unconfirmed = |why: &str, rule| {
            Some(Verdict {
                outcome: TurnOutcome::Unconfirmed { why: why.to_owned() },
                rule,
            })
        };
        if stopped.transcript_agrees == Some(false) {
            return unconfirmed(
                "the stop signal and the transcript disagree about the final message",
                "stop-disputed",
            );
        }
        match stopped.marker {
            MarkerSign::Present => Some(Verdict {
                outcome: TurnOutcome::Done,
                rule: "stop-with-marker",
            }),
            MarkerSign::NotAsked => Some(Verdict {
                outcome: TurnOutcome::Done,
                rule: "stop-no-marker-asked",
            }),
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(marker: MarkerSign) -> TurnSigns {
        TurnSigns {
            acknowledged: true,
            stopped: Some(Stopped {
                marker,
                pending_work: 0,
                transcript_agrees: Some(true),
            }),
            ..TurnSigns::default()
        }
    }

    fn rule(signs: &TurnSigns) -> Option<&'static str> {
        signs.verdict().map(|verdict| verdict.rule)
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
        signs.stopped.as_mut().unwrap().pending_work = 1;
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
        signs.stopped.as_mut().unwrap().pending_work = 1;
        let mut exited = signs.clone();
        exited.exited = Some(Some(0));
        assert_eq!(rule(&exited), Some("process-exit"));
        let mut cancelled = signs.clone();
        cancelled.cancel_requested = true;
        cancelled.idle_again = true;
        assert_eq!(rule(&cancelled), Some("cancel-proven"));
        signs.timed_out = true;
        signs.idle_again = true;
        assert_eq!(rule(&signs), Some("timeout-interrupted"));
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

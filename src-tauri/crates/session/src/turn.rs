//! One turn while it runs: the signs of its end and the facts that will back it.

use std::collections::VecDeque;
use std::sync::LazyLock;

use domain::evidence::{Evidence, Tier};
use domain::marker::MarkerSign;
use domain::turn::{FailureClass, Stopped, TurnOutcome, TurnSigns, Verdict};
use domain::{Timestamp, TurnId};
use provider::claude::{DatedFact, HookKind, SIGN_IN_HINT, TranscriptFact, failure_class};
use regex::Regex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use worktree::GitFacts;

use crate::handle::TurnRequest;
use crate::report::{TurnReport, TurnTimings};
use crate::submission::{NotSubmitted, Submitted};

/// Commands that are kept as evidence; further ones are only counted.
const COMMANDS_MAX: usize = 50;
/// Characters kept of one command, and of one tool's input.
const COMMAND_CHARS_MAX: usize = 500;
/// Pull requests that are kept as evidence.
const PULL_REQUESTS_MAX: usize = 10;
/// Characters of one tool output that are searched for a pull request.
const TOOL_OUTPUT_CHARS_MAX: usize = 64 * 1024;

/// Facts of the transcript that are kept until the prompt itself is seen in it.
const EARLY_FACTS_MAX: usize = 256;

static PULL_REQUEST: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"https://[A-Za-z0-9.-]+/[A-Za-z0-9._-]+/[A-Za-z0-9._-]+/pull/[0-9]+").ok());

/// A turn that was accepted, with the moment at which it was.
pub(crate) struct QueuedTurn {
    pub(crate) request: TurnRequest,
    /// The prompt with the marker's instruction, guarded.
    pub(crate) guarded: String,
    pub(crate) requested_at: Timestamp,
    pub(crate) requested: Instant,
}

/// What the transcript has said of the turn.
#[derive(Default)]
struct Transcript {
    /// The prompt has been seen.
    prompt_seen: bool,
    /// The prompt's time: what is older belongs to another turn.
    since: Option<Timestamp>,
    /// Seen before the prompt was: lines are not always written in the order of time.
    early: VecDeque<DatedFact>,
    /// The newest text of the agent, with its time.
    last_text: Option<(Option<Timestamp>, String)>,
    /// The turn's end has been seen.
    ended: bool,
}

impl Transcript {
    fn last_text(&self) -> Option<&str> {
        self.last_text.as_ref().map(|(_, text)| text.as_str())
    }
}

/// A turn from its submission to its report.
pub(crate) struct Turn {
    pub(crate) queued: QueuedTurn,
    pub(crate) signs: TurnSigns,
    /// Where the prompt was seen as taken, once it was.
    pub(crate) acknowledged: watch::Sender<Option<&'static str>>,
    pub(crate) cancel: CancellationToken,
    /// When its time is over; set by the acknowledgement.
    pub(crate) deadline: Option<Instant>,
    /// When the stop signal came.
    pub(crate) stopped_at: Option<Instant>,
    /// Git's HEAD when it began.
    pub(crate) head_before: Option<String>,
    submitted: Option<Submitted>,
    final_message: Option<String>,
    transcript: Transcript,
    evidence: Evidence,
    commands: usize,
    tools: usize,
    pull_requests: Vec<String>,
}

impl Turn {
    pub(crate) fn new(queued: QueuedTurn) -> Turn {
        Turn {
            queued,
            signs: TurnSigns::default(),
            acknowledged: watch::Sender::new(None),
            cancel: CancellationToken::new(),
            deadline: None,
            stopped_at: None,
            head_before: None,
            submitted: None,
            final_message: None,
            transcript: Transcript::default(),
            evidence: Evidence::default(),
            commands: 0,
            tools: 0,
            pull_requests: Vec::new(),
        }
    }

    pub(crate) fn id(&self) -> TurnId {
        self.queued.request.id
    }

    /// Whether `prompt`, as the agent reports it, is ours. The program turns tabs into blanks and trims.
    pub(crate) fn is_prompt(&self, prompt: &str) -> bool {
        let essence = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        essence(prompt).contains(&essence(&self.queued.guarded))
    }

    pub(crate) fn submitted(&mut self, submitted: Submitted) {
        self.signs.acknowledged = true;
        self.deadline = Some(Instant::now() + self.queued.request.timeout);
        self.evidence.add(
            "prompt_acknowledged",
            json!({ "enters": submitted.enters }),
            Tier::Observed,
            submitted.source,
        );
        self.submitted = Some(submitted);
    }

    pub(crate) fn not_submitted(&mut self, why: &NotSubmitted) {
        match why {
            NotSubmitted::Cancelled => {
                // Nothing was sent: that is as good a proof as an interrupt.
                self.signs.cancel_requested = true;
                self.signs.interrupted = true;
            }
            NotSubmitted::NotReady(_)
            | NotSubmitted::NotCleared
            | NotSubmitted::NoEcho
            | NotSubmitted::NoAcknowledgement { .. }
            | NotSubmitted::Terminal(_) => {
                self.signs.failure = Some((FailureClass::NotSubmitted, why.to_string()));
            }
        }
    }

    /// Takes in a hook of the session's own agent.
    pub(crate) fn hook(&mut self, kind: &HookKind) {
        match kind {
            HookKind::PromptSubmitted { .. } => {
                self.acknowledged.send_replace(Some("hook:UserPromptSubmit"));
            }
            HookKind::ToolDone {
                name,
                input,
                response,
                duration_ms,
                ok,
            } => self.tool_done(name, input, response, *duration_ms, *ok),
            HookKind::Stop {
                last_message,
                background_tasks,
            } => self.stop(last_message.clone(), *background_tasks, None),
            HookKind::StopFailure { error, detail } => {
                self.fail(failure_class(error, None, detail), detail, "hook:StopFailure");
            }
            HookKind::ToolUse { .. }
            | HookKind::PermissionRequest { .. }
            | HookKind::Notification { .. }
            | HookKind::SubagentStop
            | HookKind::SessionEnd { .. }
            | HookKind::Other => {}
        }
    }

    /// Takes in a fact of the transcript.
    pub(crate) fn fact(&mut self, dated: DatedFact) {
        if let TranscriptFact::UserPrompt { text } = &dated.fact
            && self.is_prompt(text)
            && (!self.transcript.prompt_seen || dated.at > self.transcript.since)
        {
            self.acknowledged.send_replace(Some("transcript"));
            let early = std::mem::take(&mut self.transcript.early);
            self.transcript = Transcript {
                prompt_seen: true,
                since: dated.at,
                ..Transcript::default()
            };
            for dated in early
                .into_iter()
                .filter(|early| early.at.is_some() && early.at >= dated.at)
            {
                self.own_fact(dated);
            }
        } else if !self.transcript.prompt_seen {
            if self.transcript.early.len() == EARLY_FACTS_MAX {
                self.transcript.early.pop_front();
            }
            self.transcript.early.push_back(dated);
        } else if dated.at.is_none() || dated.at >= self.transcript.since {
            self.own_fact(dated);
        }
    }

    fn own_fact(&mut self, dated: DatedFact) {
        match dated.fact {
            // A queued prompt of a person, or a note of the program's own: the turn goes on.
            TranscriptFact::UserPrompt { .. } => {}
            TranscriptFact::AssistantText { text, .. } => {
                let newest = self
                    .transcript
                    .last_text
                    .as_ref()
                    .is_none_or(|(at, _)| dated.at >= *at);
                if newest {
                    self.transcript.last_text = Some((dated.at, text));
                }
            }
            TranscriptFact::ApiError {
                status,
                error,
                message,
            } => {
                if self.signs.failure.is_none() && self.signs.stopped.is_none() {
                    self.fail(failure_class(&error, status, &message), &message, "transcript");
                }
            }
            TranscriptFact::Interrupted => {
                self.signs.interrupted = true;
                self.evidence
                    .add("interrupted", true, Tier::Observed, "transcript");
            }
            TranscriptFact::TurnDuration { ms } => {
                self.transcript.ended = true;
                self.evidence.add("turn_ms", ms, Tier::Observed, "transcript");
            }
        }
    }

    /// Compares the stop signal with the transcript as far as it has been read. True when there is nothing to wait
    /// for any more.
    pub(crate) fn settle(&mut self) -> bool {
        let (Some(stopped), Some(message)) = (&mut self.signs.stopped, &self.final_message) else {
            return true;
        };
        if stopped.pending_work > 0 || stopped.transcript_agrees.is_some() {
            return true;
        }
        let essence = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let Some(text) = self.transcript.last_text() else {
            return false;
        };
        // A message of several blocks has several lines in the transcript, of which this is the last.
        if essence(message).ends_with(&essence(text)) {
            stopped.transcript_agrees = Some(true);
            self.evidence
                .add("transcript_agrees", true, Tier::Observed, "transcript");
            return true;
        }
        if self.transcript.ended {
            stopped.transcript_agrees = Some(false);
            self.evidence
                .add("transcript_agrees", false, Tier::Observed, "transcript");
        }
        self.transcript.ended
    }

    /// For a turn whose hooks were lost: the end as the transcript tells it. False when it tells none.
    pub(crate) fn stop_from_transcript(&mut self) -> bool {
        let told = self.transcript.ended && self.signs.stopped.is_none();
        if let Some(text) = self.transcript.last_text().filter(|_| told).map(str::to_owned) {
            self.stop(text, 0, Some(true));
            return true;
        }
        false
    }

    fn stop(&mut self, message: String, pending_work: usize, transcript_agrees: Option<bool>) {
        let source = if transcript_agrees.is_some() {
            "transcript"
        } else {
            "hook:Stop"
        };
        let message = if message.is_empty() {
            self.transcript.last_text().unwrap_or_default().to_owned()
        } else {
            message
        };
        let marker = self.queued.request.marker.sign_in(&message);
        self.evidence.add(
            "stopped",
            json!({ "background_tasks": pending_work }),
            Tier::Observed,
            source,
        );
        if marker != MarkerSign::NotAsked {
            let sign = serde_json::to_value(marker).unwrap_or_default();
            self.evidence.add("marker", sign, Tier::Claimed, source);
        }
        self.signs.stopped = Some(Stopped {
            marker,
            pending_work,
            transcript_agrees,
        });
        self.stopped_at = Some(Instant::now());
        self.final_message = Some(message);
    }

    fn fail(&mut self, class: FailureClass, words: &str, source: &str) {
        let detail = if class == FailureClass::Auth {
            format!("{words}. {SIGN_IN_HINT}")
        } else {
            words.to_owned()
        };
        self.evidence.add("failure", words, Tier::Observed, source);
        self.signs.failure = Some((class, detail));
    }

    fn tool_done(&mut self, name: &str, input: &Value, response: &Value, duration_ms: Option<u64>, ok: bool) {
        self.tools += 1;
        if name != "Bash" {
            return;
        }
        self.commands += 1;
        if self.commands <= COMMANDS_MAX {
            let command = clipped(input["command"].as_str().unwrap_or_default(), COMMAND_CHARS_MAX);
            self.evidence.add(
                "command",
                json!({ "command": command, "ok": ok, "duration_ms": duration_ms }),
                Tier::Observed,
                if ok {
                    "hook:PostToolUse"
                } else {
                    "hook:PostToolUseFailure"
                },
            );
        }
        // From the tool's own output, never from the screen: there a narrow terminal cuts the number.
        let output = clipped(
            response["stdout"].as_str().unwrap_or_default(),
            TOOL_OUTPUT_CHARS_MAX,
        );
        let Some(pattern) = PULL_REQUEST.as_ref() else {
            return;
        };
        for found in pattern.find_iter(&output).map(|found| found.as_str().to_owned()) {
            if self.pull_requests.len() < PULL_REQUESTS_MAX && !self.pull_requests.contains(&found) {
                self.evidence
                    .add("pull_request", found.clone(), Tier::Observed, "hook:PostToolUse");
                self.pull_requests.push(found);
            }
        }
    }

    /// The report. `git` compares the worktree with [`Turn::head_before`]; absent when git could not be asked.
    pub(crate) fn report(
        mut self,
        verdict: Verdict,
        ended_at: Timestamp,
        git: Option<GitFacts>,
    ) -> TurnReport {
        self.evidence.rule = verdict.rule.to_owned();
        if self.tools > 0 {
            let counts = json!({ "tools": self.tools, "commands": self.commands });
            self.evidence
                .add("tools_used", counts, Tier::Observed, "hook:PostToolUse");
        }
        if let Some(git) = git {
            let before = self.head_before.take();
            for (what, value) in [
                ("head_before", json!(before)),
                ("head_after", json!(git.head)),
                ("branch", json!(git.branch)),
                ("commits", json!(git.commits)),
                ("files_changed", json!(git.files_changed)),
                ("insertions", json!(git.insertions)),
                ("deletions", json!(git.deletions)),
                ("uncommitted", json!(git.dirty)),
                ("unpushed", json!(git.unpushed)),
            ] {
                // What git cannot say is left out.
                if !value.is_null() {
                    self.evidence.add(what, value, Tier::Verified, "git");
                }
            }
        }
        let failed = matches!(verdict.outcome, TurnOutcome::Failed { .. });
        let submitted = self.submitted;
        TurnReport {
            turn: self.id(),
            outcome: verdict.outcome,
            final_message: self.final_message.or(self
                .transcript
                .last_text
                .map(|(_, text)| text)
                .filter(|_| !failed)),
            evidence: self.evidence,
            timings: TurnTimings {
                requested_at: self.queued.requested_at,
                first_byte_at: submitted.map(|submitted| submitted.first_byte.at),
                first_byte_after_us: submitted.map(|submitted| {
                    let after = submitted
                        .first_byte
                        .instant
                        .saturating_duration_since(self.queued.requested);
                    u64::try_from(after.as_micros()).unwrap_or(u64::MAX)
                }),
                submitted_at: submitted.map(|submitted| submitted.submitted_at),
                acknowledged_at: submitted.map(|submitted| submitted.acknowledged_at),
                ended_at,
            },
        }
    }
}

fn clipped(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::marker::Marker;
    use uuid::Uuid;

    use super::*;

    fn turn(prompt: &str) -> Turn {
        Turn::new(QueuedTurn {
            request: TurnRequest {
                id: TurnId(Uuid::nil()),
                prompt: prompt.into(),
                marker: Marker::Plain,
                timeout: Duration::from_secs(1),
            },
            guarded: prompt.into(),
            requested_at: Timestamp(0),
            requested: Instant::now(),
        })
    }

    fn at(ms: i64, fact: TranscriptFact) -> DatedFact {
        DatedFact {
            at: Some(Timestamp(ms)),
            fact,
        }
    }

    fn prompt(text: &str) -> TranscriptFact {
        TranscriptFact::UserPrompt { text: text.into() }
    }

    fn answer(text: &str) -> TranscriptFact {
        TranscriptFact::AssistantText {
            text: text.into(),
            stop_reason: Some("end_turn".into()),
        }
    }

    fn stop(message: &str) -> HookKind {
        HookKind::Stop {
            last_message: message.into(),
            background_tasks: 0,
        }
    }

    fn agrees(turn: &Turn) -> Option<bool> {
        turn.signs
            .stopped
            .as_ref()
            .and_then(|stopped| stopped.transcript_agrees)
    }

    #[test]
    fn a_transcript_that_is_written_out_of_order_tells_the_same() {
        let mut turn = turn("do it");
        turn.hook(&stop("ok\n[SEMO:DONE]"));
        turn.fact(at(10, answer("of an older turn")));
        turn.fact(at(12, TranscriptFact::TurnDuration { ms: 1 }));
        turn.fact(at(30, answer("ok\n\n[SEMO:DONE]")));
        turn.fact(at(31, TranscriptFact::TurnDuration { ms: 1 }));
        assert!(
            !turn.settle(),
            "whose answer that is cannot be told before the prompt is seen"
        );
        turn.fact(at(20, prompt("do it")));
        assert!(turn.settle());
        assert_eq!(agrees(&turn), Some(true));
    }

    #[test]
    fn what_an_older_turn_left_behind_neither_ends_nor_disputes_this_one() {
        let mut turn = turn("do it");
        turn.fact(at(20, prompt("do it")));
        turn.fact(at(15, answer("of an older turn")));
        turn.fact(at(16, TranscriptFact::Interrupted));
        turn.fact(at(16, TranscriptFact::TurnDuration { ms: 1 }));
        assert!(!turn.stop_from_transcript());
        turn.hook(&stop("mine"));
        assert!(!turn.settle() && agrees(&turn).is_none() && !turn.signs.interrupted);
    }

    #[test]
    fn a_transcript_with_another_last_word_disputes_the_stop() {
        let mut turn = turn("do it");
        turn.fact(at(20, prompt("do it")));
        turn.fact(at(21, answer("Tests fail.")));
        turn.hook(&stop("All good.\n[SEMO:DONE]"));
        assert!(!turn.settle(), "the last word may still come");
        turn.fact(at(22, TranscriptFact::TurnDuration { ms: 1 }));
        assert!(turn.settle());
        assert_eq!(agrees(&turn), Some(false));
        turn.signs.acknowledged = true;
        assert_eq!(turn.signs.verdict().unwrap().rule, "stop-disputed");
    }

    #[test]
    fn without_hooks_the_transcript_alone_ends_the_turn() {
        let mut turn = turn("do it");
        turn.fact(at(20, prompt("do it")));
        turn.fact(at(21, answer("ok\n[SEMO:DONE]")));
        assert!(!turn.stop_from_transcript(), "an answer is no end");
        turn.fact(at(22, TranscriptFact::TurnDuration { ms: 1 }));
        assert!(turn.stop_from_transcript());
        assert_eq!(turn.signs.verdict().unwrap().outcome, TurnOutcome::Done);
    }

    #[test]
    fn commands_and_pull_requests_come_from_tool_output_and_are_bounded() {
        let mut turn = turn("do it");
        for n in 0..COMMANDS_MAX + 20 {
            turn.hook(&HookKind::ToolDone {
                name: "Bash".into(),
                input: json!({ "command": "x".repeat(COMMAND_CHARS_MAX + n) }),
                response: json!({ "stdout": format!("see https://github.com/o/r/pull/{}\n", n % 3), "stderr": "" }),
                duration_ms: Some(5),
                ok: true,
            });
        }
        turn.hook(&stop("https://github.com/o/r/pull/99 [SEMO:DONE]"));
        let verdict = Verdict {
            outcome: TurnOutcome::Done,
            rule: "r",
        };
        let report = turn.report(verdict, Timestamp(1), None);
        let values = |what: &str| -> Vec<Value> {
            let claims = report.evidence.claims.iter().filter(|claim| claim.what == what);
            claims.map(|claim| claim.value.clone()).collect()
        };
        assert_eq!(values("command").len(), COMMANDS_MAX);
        assert_eq!(values("tools_used")[0]["commands"], COMMANDS_MAX + 20);
        assert_eq!(
            values("pull_request"),
            [0, 1, 2].map(|n| json!(format!("https://github.com/o/r/pull/{n}")))
        );
    }

    #[test]
    fn our_prompt_is_recognised_however_the_program_spaces_it() {
        let turn = turn(" /clear\tnow\nplease");
        assert!(turn.is_prompt("/clear    now\nplease"));
        assert!(!turn.is_prompt("/clear"));
    }
}

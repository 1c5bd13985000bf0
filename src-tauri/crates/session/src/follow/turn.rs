//! One turn while it runs: the signs of its end and the facts that will back it.

use domain::TurnId;
use domain::evidence::{Evidence, Tier};
use domain::marker::{Marker, MarkerSign};
use domain::turn::{Doubt, OfficeSign, Retry, StopSource, Stopped, TurnSigns, Verdict};
use provider::claude::{HookEvent, TranscriptFact};
use provider::screen_turn::ScreenTurn;
use serde_json::json;

use super::Expected;
use super::background::Background;
use super::explain::Log;
use super::facts::{ToolFacts, ToolUse};
use super::record::Record;

/// Prompt ids of one turn: its own, and one for each time that background work wakes the agent.
const IDS_MAX: usize = 64;
/// Ends that were told before it was known whose they are.
const EARLY_ENDS_MAX: usize = 16;
/// Uses of tools whose answer is awaited.
const OPEN_USES_MAX: usize = 64;

/// A stop as it was told.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    pub(super) at_ms: u64,
    pub(super) message: String,
    pub(super) by: StopSource,
    pub(super) doubt: Option<Doubt>,
    /// Its place among the turn's prompts: a stop of an earlier one says nothing about a later one.
    rank: usize,
}

/// A turn from its beginning to its report.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) expected: Expected,
    pub(super) signs: TurnSigns,
    /// Where the prompt was seen as taken, once it was.
    pub(super) acknowledged_by: Option<&'static str>,
    /// The prompts it consists of, as the program names them.
    pub(super) ids: Vec<String>,
    pub(super) stop: Option<Stop>,
    pub(super) record: Record,
    pub(super) background: Background,
    pub(super) evidence: Evidence,
    pub(super) interrupt_sent: bool,
    /// The session is being ended: nothing can wake the agent any more.
    pub(super) sealed: bool,
    pub(super) last_retry: Option<Retry>,
    /// What the screen showed of it last.
    pub(super) shown: Option<ScreenTurn>,
    pub(super) judged: Option<Verdict>,
    pub(super) log: Log,
    /// Ends of prompts that may turn out to be this turn's.
    pub(super) early_ends: Vec<(u64, HookEvent)>,
    tools: ToolFacts,
    /// Tools that the transcript tells the use of, by the use's id.
    open_uses: Vec<(String, String, serde_json::Value)>,
}

/// A turn that is over, for its report.
pub(crate) struct Finished {
    pub(crate) verdict: Verdict,
    pub(crate) final_message: Option<String>,
    pub(crate) evidence: Evidence,
}

impl Turn {
    pub(super) fn new(expected: Expected, foreign_tasks: Vec<String>) -> Turn {
        Turn {
            expected,
            signs: TurnSigns::default(),
            acknowledged_by: None,
            ids: Vec::new(),
            stop: None,
            record: Record::default(),
            background: Background::new(foreign_tasks),
            evidence: Evidence::default(),
            interrupt_sent: false,
            sealed: false,
            last_retry: None,
            shown: None,
            judged: None,
            log: Log::default(),
            early_ends: Vec::new(),
            tools: ToolFacts::default(),
            open_uses: Vec::new(),
        }
    }

    pub(super) fn id(&self) -> Option<TurnId> {
        self.expected.turn
    }

    pub(super) fn is_ours(&self) -> bool {
        self.expected.turn.is_some()
    }

    /// Whether its prompt has been seen as taken by anybody.
    pub(super) fn is_taken(&self) -> bool {
        self.signs.acknowledged || self.acknowledged_by.is_some()
    }

    pub(super) fn log(&mut self, at_ms: u64, source: &str, rule: &str, what: String) {
        self.log.add(at_ms, source, rule, what);
    }

    /// Whether `prompt`, as the agent reports it, is this turn's. The program turns tabs into blanks and trims.
    pub(super) fn is_prompt(&self, prompt: &str) -> bool {
        let wanted = essence(&self.expected.prompt);
        !wanted.is_empty() && essence(prompt).contains(&wanted)
    }

    pub(super) fn pending(&self, at_ms: u64) -> usize {
        self.background.pending(at_ms)
    }

    pub(super) fn submitted(&mut self, at_ms: u64, source: &'static str, enters: u32) {
        self.signs.acknowledged = true;
        self.acknowledged_by.get_or_insert(source);
        self.log(at_ms, "actor", "acknowledged", source.to_owned());
        let claim = json!({ "enters": enters });
        self.evidence
            .add("prompt_acknowledged", claim, Tier::Observed, source);
    }

    /// A prompt of this id is this turn's. What had come in too early for that is taken in again by the caller.
    pub(super) fn adopt(&mut self, at_ms: u64, id: Option<String>, source: &'static str) {
        self.acknowledged_by.get_or_insert(source);
        if let Some(id) = id
            && !self.ids.contains(&id)
            && self.ids.len() < IDS_MAX
        {
            self.log(at_ms, source, "prompt", id.clone());
            self.ids.push(id);
        }
    }

    pub(super) fn rank_of(&self, id: Option<&str>) -> Option<usize> {
        let id = id?;
        self.ids.iter().position(|known| known == id)
    }

    /// The agent works again: what had ended before was not the end of the turn.
    pub(super) fn goes_on(&mut self) {
        self.stop = None;
        self.signs.stopped = None;
        self.signs.idle_again = false;
        self.record.goes_on();
    }

    pub(super) fn keep_early_end(&mut self, at_ms: u64, event: &HookEvent) {
        let twice = self.early_ends.iter().any(|(_, early)| early == event);
        if !twice && self.early_ends.len() < EARLY_ENDS_MAX {
            self.early_ends.push((at_ms, event.clone()));
        }
    }

    /// The turn was told to have stopped. False when nothing new was said.
    pub(super) fn stopped(
        &mut self,
        at_ms: u64,
        message: String,
        rank: usize,
        by: StopSource,
        doubt: Option<Doubt>,
    ) -> bool {
        if let Some(known) = &self.stop {
            let older = rank < known.rank;
            let same = rank == known.rank && known.message == message;
            if older || same {
                return false;
            }
        }
        let source = match by {
            StopSource::Told => "hook:Stop",
            StopSource::Record => "transcript",
            StopSource::ScreenAlone | StopSource::Screen => "screen",
        };
        self.log(at_ms, source, "stopped", tail(&message));
        let pending = self.background.pending(at_ms);
        let claim = json!({ "background_tasks": pending });
        self.evidence.add("stopped", claim, Tier::Observed, source);
        self.signs.stopped = None;
        self.stop = Some(Stop {
            at_ms,
            message,
            by,
            doubt,
            rank,
        });
        true
    }

    /// Puts the stop among the signs, once it is settled what the transcript says to it.
    pub(super) fn settle_stop(&mut self, transcript_agrees: Option<bool>) {
        let Some(stop) = &self.stop else { return };
        let marker = self.expected.marker.sign_in(&stop.message);
        let patterns = &self.expected.patterns;
        let office = match (
            patterns.error_in(&stop.message),
            patterns.completes(&stop.message),
        ) {
            (Some(hit), _) => (OfficeSign::Error, Some(hit)),
            (None, Some(hit)) => (OfficeSign::Completes, Some(hit)),
            (None, None) => (OfficeSign::Silent, None),
        };
        let coded = matches!(self.expected.marker, Marker::Code(_));
        // Nobody but this turn's agent knows the code.
        let known_by_code = coded && marker == MarkerSign::Present;
        let doubt = stop
            .doubt
            .filter(|doubt| *doubt != Doubt::Whose || !known_by_code);
        let source = match stop.by {
            StopSource::Told => "hook:Stop",
            StopSource::Record => "transcript",
            StopSource::ScreenAlone | StopSource::Screen => "screen",
        };
        let stopped = Stopped {
            marker,
            coded,
            office: office.0,
            by: stop.by,
            doubt,
            transcript_agrees,
        };
        if self.signs.stopped.as_ref() == Some(&stopped) {
            return;
        }
        if marker != MarkerSign::NotAsked {
            let sign = serde_json::to_value(marker).unwrap_or_default();
            self.evidence.add("marker", sign, Tier::Claimed, source);
        }
        if let Some(hit) = office.1 {
            let what = if office.0 == OfficeSign::Error {
                "error_pattern"
            } else {
                "completion_pattern"
            };
            let claim = json!({ "pattern": hit.pattern, "line": hit.line });
            self.evidence.add(what, claim, Tier::Claimed, source);
        }
        if let Some(agrees) = transcript_agrees {
            self.evidence
                .add("transcript_agrees", agrees, Tier::Observed, "transcript");
        }
        self.signs.stopped = Some(stopped);
    }

    pub(super) fn tool(&mut self, used: &ToolUse<'_>) {
        self.tools.add(used, &mut self.evidence);
    }

    /// A tool's use and its answer, as the transcript has them: for those whose hook was lost.
    pub(super) fn tool_fact(&mut self, fact: TranscriptFact) {
        match fact {
            TranscriptFact::ToolUse { id, name, input } => {
                if self.open_uses.len() == OPEN_USES_MAX {
                    self.open_uses.remove(0);
                }
                self.open_uses.push((id, name, input));
            }
            TranscriptFact::ToolResult {
                id,
                ok,
                text,
                response,
            } => {
                let place = self.open_uses.iter().position(|(open, _, _)| *open == id);
                let Some((_, name, input)) = place.map(|place| self.open_uses.remove(place)) else {
                    return;
                };
                if let Some(task) = provider::claude::background_of(&name, &response) {
                    self.background.started(task);
                }
                self.tool(&ToolUse {
                    id: Some(&id),
                    name: &name,
                    input: &input,
                    response: &response,
                    text: &text,
                    ok,
                    duration_ms: None,
                    source: "transcript",
                });
            }
            _ => {}
        }
    }

    /// What is known at its end.
    pub(super) fn finish(mut self, verdict: Verdict) -> (Turn, Finished) {
        self.evidence.rule = verdict.rule.to_owned();
        self.tools.counts(&mut self.evidence);
        if let Some(retry) = &self.last_retry {
            let claim = json!({ "attempt": retry.attempt, "max": retry.max, "words": retry.words });
            self.evidence.add("retries", claim, Tier::Observed, "screen");
        }
        let failed = matches!(verdict.outcome, domain::turn::TurnOutcome::Failed { .. });
        let last = self.record.last_text.clone().filter(|_| !failed);
        let message = self.stop.as_ref().map(|stop| stop.message.clone());
        let finished = Finished {
            verdict,
            final_message: message.or(last),
            evidence: self.evidence.clone(),
        };
        (self, finished)
    }
}

/// A text without the spacing that programs change.
pub(super) fn essence(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The end of a message, where its marker stands.
fn tail(message: &str) -> String {
    let chars: Vec<char> = message.trim().chars().collect();
    chars[chars.len().saturating_sub(100)..].iter().collect()
}

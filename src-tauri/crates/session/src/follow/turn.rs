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
    /// It named no prompt: only the record can tell whose it is.
    pub(super) nameless: bool,
    /// A stop hook had not let the agent stop before.
    pub(super) again: bool,
    /// Its place among the turn's prompts: a stop of an earlier one says nothing about a later one.
    rank: usize,
    /// The program was seen at work for long after it: waiting for a slow stop hook, or going on.
    pub(super) worked_on: bool,
    /// Its message has been read in the record: what follows there shows that the agent went on.
    recorded: bool,
}

impl Stop {
    pub(super) fn new(at_ms: u64, message: String, rank: usize, by: StopSource) -> Stop {
        Stop {
            at_ms,
            message,
            by,
            doubt: None,
            nameless: false,
            again: false,
            rank,
            worked_on: false,
            recorded: false,
        }
    }

    pub(super) fn doubted(mut self, doubt: Option<Doubt>) -> Stop {
        self.doubt = doubt;
        self
    }

    /// Whether a text of the record is the end of its message. A message of several blocks has several lines in the
    /// transcript.
    pub(super) fn ends_with(&self, text: &str) -> bool {
        essence(&self.message).ends_with(&essence(text))
    }
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
    /// A stop was no end, or a hook is known to speak against stops: from then on the end itself must be seen.
    pub(super) contradicted: bool,
    /// The prompt of which a stop hook did not allow the first stop.
    blocked_at: Option<usize>,
    /// Nothing more is waited for.
    pub(super) hurried: bool,
    /// What came last of a program that was cut off in the middle of its work.
    pub(super) cut_off: bool,
    /// An earlier turn had the same prompt, and its id was never told: what is told may be that turn's.
    pub(super) has_namesake: bool,
    /// The box held other text before the prompt was taken: that may have gone with it.
    pub(super) leftover: bool,
    /// Enter may have been pressed by a process that is gone, or may not.
    pub(super) in_doubt: bool,
    /// When it was taken up, if another process had begun it.
    pub(super) taken_up_at: Option<u64>,
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
            contradicted: false,
            blocked_at: None,
            hurried: false,
            cut_off: false,
            has_namesake: false,
            leftover: false,
            in_doubt: false,
            taken_up_at: None,
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

    /// Whether `prompt`, as the agent reports it, is this turn's. The program turns tabs into blanks and trims. More
    /// than the prompt is another one, except where text that stood in the box may have gone with it.
    pub(super) fn is_prompt(&self, prompt: &str) -> bool {
        let (wanted, prompt) = (essence(&self.expected.prompt), essence(prompt));
        let with_more = || self.leftover && (prompt.starts_with(&wanted) || prompt.ends_with(&wanted));
        !wanted.is_empty() && (prompt == wanted || with_more())
    }

    /// Whether the text in the box is the prompt, or a part of it while it is being drawn.
    pub(super) fn is_in_prompt(&self, shown: &str) -> bool {
        let shown = solid(shown);
        shown.contains("[Pastedtext") || solid(&self.expected.prompt).contains(&shown)
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

    /// The agent was seen to work on: what was told as its stop was none.
    pub(super) fn went_on(&mut self, at_ms: u64, source: &'static str) {
        if self.stop.is_some() {
            self.log(at_ms, source, "goes-on", String::new());
            self.goes_on();
            self.contradicted = true;
        }
    }

    /// The record has a text of the agent.
    pub(super) fn said(&mut self, at_ms: u64, text: String, untraced: bool) {
        let closes = self
            .stop
            .as_ref()
            .map(|stop| (stop.ends_with(&text), stop.recorded));
        match closes {
            Some((false, true)) if !untraced => self.went_on(at_ms, "transcript"),
            Some((true, _)) => self.mark_recorded(),
            _ => {}
        }
        self.record.last_text = Some(text);
        self.record.untraced |= untraced;
        self.record.goes_on();
    }

    fn mark_recorded(&mut self) {
        if let Some(stop) = &mut self.stop {
            stop.recorded = true;
        }
    }

    /// The record has something that the agent does only when it goes on.
    pub(super) fn did_more(&mut self, at_ms: u64) {
        if self.stop.as_ref().is_some_and(|stop| stop.recorded) {
            self.went_on(at_ms, "transcript");
        }
    }

    /// The program told its agent something: it goes on.
    pub(super) fn prodded(&mut self, at_ms: u64, by_stop_hook: bool) {
        // What follows the end of a turn is no part of it: the words of a slash command, say.
        if self.record.ended.is_some() {
            return;
        }
        if by_stop_hook {
            self.log(at_ms, "transcript", "stop-hook-objects", String::new());
            self.contradicted = true;
            let rank = self.ids.len().saturating_sub(1);
            self.blocked_at = Some(rank);
            if self
                .stop
                .as_ref()
                .is_some_and(|stop| stop.rank <= rank && !stop.again)
            {
                self.goes_on();
            }
        }
        self.did_more(at_ms);
    }

    pub(super) fn keep_early_end(&mut self, at_ms: u64, event: &HookEvent) {
        let twice = self.early_ends.iter().any(|(_, early)| early == event);
        if !twice && self.early_ends.len() < EARLY_ENDS_MAX {
            self.early_ends.push((at_ms, event.clone()));
        }
    }

    /// The turn was told to have stopped. False when nothing new was said.
    pub(super) fn stopped(&mut self, mut stop: Stop) -> bool {
        let (at_ms, place) = (stop.at_ms, (stop.rank, stop.again));
        let told = stop.by == StopSource::Told;
        if let Some(known) = &self.stop {
            let older = place < (known.rank, known.again);
            let same = place == (known.rank, known.again) && known.message == stop.message;
            if older || same {
                return false;
            }
        }
        if told && !stop.again && Some(stop.rank) <= self.blocked_at {
            // The stop that the hook did not allow, late or once more.
            return false;
        }
        self.contradicted |= stop.again;
        stop.recorded = self
            .record
            .last_text
            .as_deref()
            .is_some_and(|text| stop.ends_with(text));
        let source = source_of(stop.by);
        self.log(at_ms, source, "stopped", tail(&stop.message));
        let pending = self.background.pending(at_ms);
        let claim = json!({ "background_tasks": pending });
        self.evidence.add("stopped", claim, Tier::Observed, source);
        self.signs.stopped = None;
        self.stop = Some(stop);
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
        let doubt = self.doubt_of(stop, transcript_agrees, coded && marker == MarkerSign::Present);
        let source = source_of(stop.by);
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

    /// What makes a stop doubtful. `known_by_code`: nobody but this turn's agent knows the code in its message.
    fn doubt_of(&self, stop: &Stop, agrees: Option<bool>, known_by_code: bool) -> Option<Doubt> {
        if self.record.overruled || stop.doubt == Some(Doubt::Overruled) {
            return Some(Doubt::Overruled);
        }
        // Whoever may speak against a stop was not heard, or not heard any more.
        let unheard = self.cut_off || stop.worked_on;
        if stop.by == StopSource::Told && unheard && !self.record.tells_the_end() {
            return Some(Doubt::Whose);
        }
        let nameless = stop.nameless && (agrees != Some(true) || self.record.untraced);
        let whose = stop.doubt.is_some() || nameless || self.has_namesake || self.background.is_doubtful();
        (whose && !known_by_code).then_some(Doubt::Whose)
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

/// A text without any blanks or characters without a shape: as it can be compared with what a box shows.
pub(super) fn solid(text: &str) -> String {
    let seen = |c: &char| {
        !c.is_whitespace()
            && !c.is_control()
            && !matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
    };
    text.chars().filter(seen).collect()
}

fn source_of(by: StopSource) -> &'static str {
    match by {
        StopSource::Told => "hook:Stop",
        StopSource::Record => "transcript",
        StopSource::ScreenAlone | StopSource::Screen => "screen",
    }
}

/// The end of a message, where its marker stands.
fn tail(message: &str) -> String {
    let chars: Vec<char> = message.trim().chars().collect();
    chars[chars.len().saturating_sub(100)..].iter().collect()
}

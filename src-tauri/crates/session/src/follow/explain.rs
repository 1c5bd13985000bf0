//! What the follower has seen and why it decided as it did, for people. Bounded in all directions: the oldest goes
//! first, but for how a turn began.

use std::collections::VecDeque;

use domain::SessionId;
use domain::evidence::Evidence;
use domain::session::SessionState;
use domain::turn::{TurnOutcome, Verdict};
use provider::detect::Reading;
use serde::{Deserialize, Serialize};

use super::Follower;
use super::turn::Turn;

/// Turns that are kept, the running one not counted.
const TURNS_MAX: usize = 100;
/// Lines that are kept of one turn: how it began, and the newest ones.
pub(super) const LOG_MAX: usize = 200;
/// The first of them, which stay whatever comes.
const LOG_FIRST: usize = 40;
/// Changes of the screen's meaning that are kept.
const READINGS_MAX: usize = 50;
/// Characters kept of a line, and of a prompt.
const WORDS_MAX: usize = 200;

/// Everything there is to explain about a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The session; nil for a recording.
    pub session: SessionId,
    /// Its state.
    pub state: SessionState,
    /// The agent program, with its version where that is known.
    pub program: String,
    /// The detector that reads its screen.
    pub detector: String,
    /// Its newest turns, oldest first; the last may still run.
    pub turns: Vec<TurnExplanation>,
    /// How the meaning of its screen changed, oldest first.
    pub readings: Vec<ReadingView>,
}

/// One turn, explained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnExplanation {
    /// Its id; absent for one that a person typed.
    pub turn: Option<String>,
    /// How its prompt begins.
    pub prompt_head: String,
    /// How it ended: `done`, `unconfirmed`, `failed`, `cancelled`; absent while it runs.
    pub outcome: Option<String>,
    /// The class of a failure: `rate_limit`, `auth` …
    pub class: Option<String>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// What is missing, or what failed, in words.
    pub reason: Option<String>,
    /// What backs it.
    pub evidence: Evidence,
    /// What was seen, oldest first.
    pub log: Vec<LogEntry>,
}

/// One thing that was seen of a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When, in milliseconds since the session began.
    pub at_ms: u64,
    /// The channel: `hook`, `transcript`, `status`, `screen`, `process`, `actor`.
    pub source: String,
    /// What it means to us.
    pub rule: String,
    /// Its own words.
    pub what: String,
}

/// What the screen meant from a moment on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadingView {
    /// When, in milliseconds since the session began.
    pub at_ms: u64,
    /// The detector's rule.
    pub rule: String,
    /// The row it found.
    pub matched: String,
    /// What it means.
    pub meaning: String,
}

/// The log of one turn.
#[derive(Debug, Default)]
pub(super) struct Log(VecDeque<LogEntry>);

impl Log {
    pub(super) fn add(&mut self, at_ms: u64, source: &str, rule: &str, what: String) {
        if self.0.len() == LOG_MAX {
            self.0.remove(LOG_FIRST);
        }
        self.0.push_back(LogEntry {
            at_ms,
            source: source.to_owned(),
            rule: rule.to_owned(),
            what: head(&what),
        });
    }

    fn entries(&self) -> Vec<LogEntry> {
        self.0.iter().cloned().collect()
    }
}

/// What is kept of turns that are over, and of the screen.
#[derive(Debug, Default)]
pub(super) struct Story {
    turns: VecDeque<TurnExplanation>,
    readings: VecDeque<ReadingView>,
}

impl Story {
    pub(super) fn saw(&mut self, at_ms: u64, reading: &Reading) {
        let meaning = reading.meaning.name();
        let same = |last: &ReadingView| last.rule == *reading.rule && last.meaning == meaning;
        if self.readings.back().is_some_and(same) {
            return;
        }
        if self.readings.len() == READINGS_MAX {
            self.readings.pop_front();
        }
        self.readings.push_back(ReadingView {
            at_ms,
            rule: reading.rule.to_string(),
            matched: reading.matched.clone(),
            meaning: meaning.to_owned(),
        });
    }

    pub(super) fn ended(&mut self, turn: TurnExplanation) {
        if self.turns.len() == TURNS_MAX {
            self.turns.pop_front();
        }
        self.turns.push_back(turn);
    }

    pub(super) fn explain(&self, follower: &Follower) -> Explanation {
        let running = follower.turn.as_ref().map(|turn| explained(turn, &turn.evidence));
        Explanation {
            session: SessionId::from(uuid::Uuid::nil()),
            state: follower.state.clone(),
            program: String::new(),
            detector: String::new(),
            turns: self.turns.iter().cloned().chain(running).collect(),
            readings: self.readings.iter().cloned().collect(),
        }
    }
}

/// A turn as it is explained, with the evidence that is known of it.
pub(super) fn explained(turn: &Turn, evidence: &Evidence) -> TurnExplanation {
    let (outcome, reason) = turn.judged.as_ref().map(words_of).unzip();
    TurnExplanation {
        turn: turn.id().map(|id| id.to_string()),
        prompt_head: head(&turn.expected.prompt),
        outcome: outcome.map(str::to_owned),
        class: turn.judged.as_ref().and_then(class_of),
        rule: turn.judged.as_ref().map(|verdict| verdict.rule.to_owned()),
        reason: reason.flatten(),
        evidence: evidence.clone(),
        log: turn.log.entries(),
    }
}

fn class_of(verdict: &Verdict) -> Option<String> {
    let TurnOutcome::Failed { class, .. } = &verdict.outcome else {
        return None;
    };
    let word = serde_json::to_value(class).ok()?;
    word.as_str().map(str::to_owned)
}

fn words_of(verdict: &Verdict) -> (&'static str, Option<String>) {
    match &verdict.outcome {
        TurnOutcome::Done => ("done", None),
        TurnOutcome::Unconfirmed { why } => ("unconfirmed", Some(why.clone())),
        TurnOutcome::Failed { detail, .. } => ("failed", Some(detail.clone())),
        TurnOutcome::Cancelled => ("cancelled", None),
    }
}

fn head(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(WORDS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_keeps_how_the_turn_began_and_what_came_last() {
        let mut log = Log::default();
        log.add(0, "actor", "began", String::new());
        for at_ms in 1..=1_000 {
            log.add(at_ms, "screen", "retry", String::new());
        }
        let entries = log.entries();
        assert_eq!(entries.len(), LOG_MAX);
        assert_eq!(entries[0].rule, "began");
        assert_eq!(entries[LOG_FIRST - 1].at_ms, LOG_FIRST as u64 - 1);
        assert_eq!(entries[LOG_MAX - 1].at_ms, 1_000);
        assert!(entries.is_sorted_by_key(|entry| entry.at_ms));
    }
}

//! Turns that another follower has begun, in a process that is gone: what has to be written down of them, and how they
//! are gone on with.
//!
//! What the agent told while nobody listened is lost; its record is read again from the turn's beginning. So a turn may
//! end as it would have ended without the gap, or as unconfirmed, and never otherwise.

use domain::evidence::Tier;
use domain::session::{SessionEvent, SessionState};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::turn::Turn;
use super::{Expected, Follower};

/// Ids of each kind that are written down, newest first kept.
const IDS_MAX: usize = 64;

/// How long the last frames of a turn that has ended may still show work.
const LAST_FRAMES_MS: u64 = 1_500;

/// What cannot be read off the record again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Memo {
    /// The turn's prompts, as the program names them.
    pub(crate) ids: Vec<String>,
    /// See [`Turn::leftover`].
    pub(crate) leftover: bool,
    /// See [`Turn::has_namesake`].
    pub(crate) has_namesake: bool,
    /// The newest prompts of earlier turns.
    pub(crate) past_prompts: Vec<String>,
    /// What earlier turns have left running in the background.
    pub(crate) past_tasks: Vec<String>,
}

/// How far a turn had come that is taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HowFar {
    /// Enter may have been pressed.
    Entering,
    /// Its prompt was taken; seen there.
    Taken { source: &'static str, enters: u32 },
}

impl Follower {
    /// What is to be written down of the turn that runs, or is about to.
    pub(crate) fn memo(&self) -> Memo {
        let mut memo = Memo {
            past_prompts: self.past.newest_prompts(IDS_MAX),
            past_tasks: self.past.newest_tasks(IDS_MAX),
            ..Memo::default()
        };
        if let Some(turn) = self.running() {
            memo.ids = turn.ids.iter().take(IDS_MAX).cloned().collect();
            (memo.leftover, memo.has_namesake) = (turn.leftover, turn.has_namesake);
        }
        memo
    }

    /// The program runs already: what it is busy with when it is first seen was begun before.
    pub(crate) fn joins(&mut self) {
        self.joins = true;
    }

    /// Background work of turns that nobody follows any more.
    pub(crate) fn add_past_task(&mut self, task: String) {
        self.past.add_task(task);
    }

    /// Goes on with a turn that was begun before. Its record from its beginning on has to follow.
    pub(crate) fn take_up(&mut self, at_ms: u64, expected: Expected, memo: Memo, how_far: HowFar) {
        self.joins = true;
        for prompt in memo.past_prompts {
            self.past.add_prompt(prompt);
        }
        for task in memo.past_tasks {
            self.past.add_task(task);
        }
        let mut turn = Turn::new(expected, self.past.tasks());
        turn.ids = memo.ids;
        (turn.leftover, turn.has_namesake) = (memo.leftover, memo.has_namesake);
        turn.signs.unheard = true;
        let stage = match how_far {
            HowFar::Entering => "entering",
            HowFar::Taken { .. } => "taken",
        };
        turn.log(at_ms, "journal", "taken-up", stage.to_owned());
        let claim = json!({ "stage": stage });
        turn.evidence.add("taken_up", claim, Tier::Verified, "journal");
        turn.taken_up_at = Some(at_ms);
        turn.in_doubt = how_far == HowFar::Entering;
        self.turn = Some(turn);
        if let HowFar::Taken { source, enters } = how_far {
            self.submitted(at_ms, source, enters);
        }
    }

    /// Nothing tells whether the prompt was taken, and nothing will.
    pub(super) fn effect_unknown(&mut self, at_ms: u64, why: String) {
        self.sign(at_ms, "actor", "effect-unknown", |turn| {
            turn.signs.effect_unknown.get_or_insert(why);
        });
    }

    /// The agent was heard at work: whatever ends it from now on does not go unheard.
    pub(super) fn heard(&mut self) {
        if let Some(turn) = self.running_mut() {
            turn.signs.unheard = false;
        }
    }

    /// The same for a screen at work, unless these may be its last frames.
    pub(super) fn seen_at_work(&mut self, at_ms: u64) {
        let since = self.running().and_then(|turn| turn.taken_up_at);
        if since.is_some_and(|since| at_ms >= since.saturating_add(LAST_FRAMES_MS)) {
            self.heard();
        }
    }

    /// The program is busy in the first looks after it was joined: a person has begun something before.
    pub(super) fn joins_at_work(&mut self, at_ms: u64) {
        if self.joins && self.turn.is_none() && self.state == SessionState::Starting {
            self.apply(&SessionEvent::Ready);
            self.begin_typed(at_ms, "", "screen", None);
        }
    }
}

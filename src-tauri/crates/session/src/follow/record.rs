//! What the transcript has said of a turn.

use std::collections::VecDeque;

use domain::turn::Failure;
use provider::claude::DatedFact;

/// Facts that are kept until it is known which prompt is ours.
const EARLY_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Record {
    /// The newest text of the agent.
    pub(super) last_text: Option<String>,
    /// The turn's end, with the sub-agents that still ran in the background then.
    pub(super) ended: Option<usize>,
    /// The API's failure, as it was recorded, with its HTTP status. It counts once the turn is over.
    pub(super) failure: Option<(Failure, Option<u16>)>,
    /// A stop hook was overruled.
    pub(super) overruled: bool,
    /// Something that this rests on could not be traced back to our prompt.
    pub(super) untraced: bool,
    /// Seen before our prompt was known.
    early: VecDeque<DatedFact>,
}

impl Record {
    pub(super) fn keep_early(&mut self, dated: DatedFact) {
        if self.early.len() == EARLY_MAX {
            self.early.pop_front();
        }
        self.early.push_back(dated);
    }

    pub(super) fn take_early(&mut self) -> VecDeque<DatedFact> {
        std::mem::take(&mut self.early)
    }

    /// Whether the end is in it, and surely this turn's.
    pub(super) fn tells_the_end(&self) -> bool {
        self.ended.is_some() && !self.untraced
    }

    /// The agent works again: what ended before was no end.
    pub(super) fn goes_on(&mut self) {
        self.ended = None;
        self.failure = None;
        self.overruled = false;
    }
}

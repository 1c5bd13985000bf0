//! Work that a turn has left running in the background, by its ids: shell commands and sub-agents.

use std::collections::BTreeMap;

/// Pieces of work that are kept of one turn.
const WORK_MAX: usize = 128;
/// How long the note of an end may take when the stop signal already left the work out of its list.
const NOTE_WAIT_MS: u64 = 2_000;

#[derive(Debug, Default)]
pub(super) struct Background {
    /// What runs, with the moment from which it is not said to run any more by the newest stop signal.
    running: BTreeMap<String, Option<u64>>,
    /// Left by earlier turns: not ours.
    foreign: Vec<String>,
    /// Sub-agents that the turn itself waits for.
    agents: BTreeMap<String, ()>,
    /// The program has been at rest too long for anything to be running.
    pub(super) stale: bool,
    /// What the agent was told the end of: a late report of its start changes nothing.
    noted: Vec<String>,
    /// Work that nobody was seen to start, and that has woken the agent all the same.
    unknown: Vec<String>,
    /// More than can be kept.
    overflow: bool,
}

impl Background {
    pub(super) fn new(foreign: Vec<String>) -> Background {
        Background {
            foreign,
            ..Background::default()
        }
    }

    /// Whether what has woken the agent is the work of earlier turns alone.
    pub(super) fn is_foreign(&self, ids: &[String]) -> bool {
        !ids.is_empty() && ids.iter().all(|id| self.foreign.contains(id))
    }

    /// The agent was woken for this. Work of this turn among it makes the waking the turn's own.
    pub(super) fn woke(&mut self, ids: &[String]) {
        let is_own = |id: &String| {
            self.running.contains_key(id) || self.agents.contains_key(id) || self.noted.contains(id)
        };
        if ids.iter().any(is_own) {
            return;
        }
        // A note without ids may be anybody's.
        let named = if ids.is_empty() { &[String::new()][..] } else { ids };
        for id in named {
            if self.unknown.len() < WORK_MAX && !self.foreign.contains(id) && !self.unknown.contains(id) {
                self.unknown.push(id.clone());
            }
        }
    }

    /// Whether the agent was woken for something that may be an earlier turn's.
    pub(super) fn is_doubtful(&self) -> bool {
        !self.unknown.is_empty()
    }

    pub(super) fn started(&mut self, id: String) {
        self.unknown.retain(|unknown| *unknown != id);
        if self.noted.contains(&id) {
            return;
        }
        self.runs(id);
    }

    fn runs(&mut self, id: String) {
        if self.foreign.contains(&id) {
            return;
        }
        if self.running.len() < WORK_MAX {
            self.running.insert(id, None);
        } else {
            self.overflow = true;
        }
    }

    /// The program has told its agent that it ended.
    pub(super) fn ended(&mut self, ids: &[String]) {
        for id in ids {
            self.running.remove(id);
            self.agents.remove(id);
            if self.noted.len() < WORK_MAX {
                self.noted.push(id.clone());
            }
        }
    }

    pub(super) fn agent_started(&mut self, id: &str) {
        if self.agents.len() < WORK_MAX {
            self.agents.insert(id.to_owned(), ());
        }
    }

    pub(super) fn agent_ended(&mut self, id: &str) {
        self.agents.remove(id);
    }

    /// The list of a stop signal. What it does not name has ended; the agent may still be told of it.
    pub(super) fn listed(&mut self, at_ms: u64, ids: &[String]) {
        self.agents.clear();
        for id in ids {
            // A sub-agent may be woken again after its end was noted.
            if !self.running.contains_key(id) {
                self.runs(id.clone());
            }
        }
        for (id, since) in &mut self.running {
            *since = match (ids.contains(id), *since) {
                (true, _) => None,
                (false, Some(since)) => Some(since),
                (false, None) => Some(at_ms),
            };
        }
    }

    /// How much is still running, or may wake the agent yet.
    pub(super) fn pending(&self, at_ms: u64) -> usize {
        if self.stale {
            return 0;
        }
        let waits =
            |since: &&Option<u64>| since.is_none_or(|since| at_ms < since.saturating_add(NOTE_WAIT_MS));
        let running = self.running.values().filter(waits).count();
        running + self.agents.len() + usize::from(self.overflow)
    }

    /// The ids of what is left when the turn is over.
    pub(super) fn into_left(self) -> impl Iterator<Item = String> {
        self.running.into_keys().chain(self.agents.into_keys())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn work_is_pending_until_its_end_is_noted_or_long_since_not_listed() {
        let mut work = Background::new(ids(&["server-of-an-older-turn"]));
        work.started("b1".into());
        work.listed(10, &ids(&["b1", "server-of-an-older-turn"]));
        assert_eq!(
            work.pending(10),
            1,
            "what an older turn left running is not this turn's"
        );
        work.listed(20, &[]);
        assert_eq!(work.pending(20), 1, "its agent may still be woken");
        assert_eq!(work.pending(20 + NOTE_WAIT_MS), 0);
        work.started("b2".into());
        work.ended(&ids(&["b2"]));
        assert_eq!(work.pending(5_000), 0);
    }

    #[test]
    fn whose_work_woke_the_agent_is_known_by_its_id_or_doubtful() {
        let mut work = Background::new(ids(&["old"]));
        assert!(work.is_foreign(&ids(&["old"])));
        assert!(!work.is_foreign(&ids(&["old", "b1"])) && !work.is_foreign(&[]));
        work.started("b1".into());
        work.woke(&ids(&["b1"]));
        assert!(!work.is_doubtful());
        work.woke(&ids(&["b2"]));
        assert!(work.is_doubtful());
        work.started("b2".into());
        assert!(!work.is_doubtful(), "the word of its start came late");
        work.woke(&[]);
        assert!(work.is_doubtful());
    }

    #[test]
    fn a_stop_of_the_agent_itself_means_that_no_sub_agent_holds_it_up() {
        let mut work = Background::default();
        work.agent_started("a1");
        assert_eq!(work.pending(0), 1);
        work.listed(1, &[]);
        assert_eq!(
            work.pending(1),
            0,
            "a lost report of a sub-agent's end holds nothing up"
        );
    }
}

//! A holder that ends its program by itself: TERM to the whole tree, a grace, KILL, until nothing of it is found.

use std::collections::HashSet;
use std::time::Instant;

use rustix::process::Signal;

use crate::holder::{END_GRACE, LOOK_EVERY};
use crate::process::{self, ProcessId};
use crate::stop::{EMPTY_LOOKS, signal};

/// How far it is.
pub(crate) struct Ending {
    /// In words, for whoever comes late.
    pub(crate) why: String,
    started: Instant,
    next_look: Instant,
    known: HashSet<ProcessId>,
    terminated: HashSet<ProcessId>,
    empty_looks: u32,
}

impl Ending {
    pub(crate) fn new(why: String, root: ProcessId, now: Instant) -> Ending {
        Ending {
            why,
            started: now,
            next_look: now,
            known: HashSet::from([root]),
            terminated: HashSet::new(),
            empty_looks: 0,
        }
    }

    /// When it wants to be looked after; never again when it is through.
    pub(crate) fn due(&self) -> Option<Instant> {
        (!self.is_through()).then_some(self.next_look)
    }

    /// Whether nothing of the tree was found several times in a row.
    pub(crate) fn is_through(&self) -> bool {
        self.empty_looks >= EMPTY_LOOKS
    }

    /// One look at the processes, and the signals that follow from it. `above` is the holder when it is a process.
    pub(crate) fn look(&mut self, tag: &str, above: Option<ProcessId>, now: Instant) {
        if self.is_through() || now < self.next_look {
            return;
        }
        self.next_look = now + LOOK_EVERY;
        // A list that cannot be read is no proof.
        let Ok(living) = process::living_tree(&mut self.known, tag, above) else {
            return;
        };
        self.empty_looks = if living.is_empty() {
            self.empty_looks + 1
        } else {
            0
        };
        for process in living {
            if now.duration_since(self.started) >= END_GRACE {
                signal(process, Signal::KILL);
            } else if self.terminated.insert(process) {
                signal(process, Signal::TERM);
            }
        }
    }
}

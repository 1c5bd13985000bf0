//! The ways to end the core, and how one of them becomes another.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use ts_rs::TS;

/// A way to end the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum StopHow {
    /// The sessions stay in their holders and go on; nothing is reported for them, the next start takes them up.
    Leave,
    /// Nothing new is taken; running turns go to their ends and are reported, then everything ends.
    Finish,
    /// What runs is interrupted and reported, and everything ends.
    Now,
}

impl StopHow {
    /// What holds when `next` is asked for while this one is under way: an end of turns that was asked for first can
    /// become a leave or an interrupt, a leave can become an interrupt, an interrupt stays one.
    #[must_use]
    pub fn then(self, next: StopHow) -> StopHow {
        match (self, next) {
            (StopHow::Now, _) | (_, StopHow::Now) => StopHow::Now,
            (StopHow::Leave, _) | (_, StopHow::Leave) => StopHow::Leave,
            (StopHow::Finish, StopHow::Finish) => StopHow::Finish,
        }
    }
}

/// Where the wish to end is put, for the loop to see.
#[derive(Clone)]
pub(crate) struct StopWish(watch::Sender<Option<StopHow>>);

impl StopWish {
    pub(crate) fn new() -> StopWish {
        StopWish(watch::Sender::new(None))
    }

    /// Asks for an end; see [`StopHow::then`] for a second wish.
    pub(crate) fn ask(&self, how: StopHow) {
        self.0.send_modify(|wish| {
            *wish = Some(wish.map_or(how, |before| before.then(how)));
        });
    }

    pub(crate) fn seen(&self) -> watch::Receiver<Option<StopHow>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_wish_makes_the_end_sooner_and_never_later() {
        use StopHow::{Finish, Leave, Now};
        for (first, second, both) in [
            (Finish, Finish, Finish),
            (Finish, Leave, Leave),
            (Finish, Now, Now),
            (Leave, Finish, Leave),
            (Leave, Leave, Leave),
            (Leave, Now, Now),
            (Now, Finish, Now),
            (Now, Leave, Now),
        ] {
            assert_eq!(first.then(second), both, "{first:?} {second:?}");
            let wish = StopWish::new();
            wish.ask(first);
            wish.ask(second);
            assert_eq!(*wish.seen().borrow(), Some(both));
        }
    }
}

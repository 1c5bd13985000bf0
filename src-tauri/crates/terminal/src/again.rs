//! A new connection to a holder whose connection has ended, for the same launch of the core. Called by the follower of a
//! terminal, which goes on at the byte where it was.
//!
//! Only the holder itself can say that a later launch holds it; whatever else goes wrong here is tried again for as long
//! as its process lives, at a pace that costs nothing.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::emulator::Size;
use crate::follow::SPEAK_LOOK_EVERY;
use crate::greeting::{Greeted, greet};
use crate::line::{HeldBy, Way};
use crate::wire::{Hello, PROTOCOL, PROTOCOL_OLDEST, Refusal, Refused, Welcome};

/// How long a holder may take to answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(2);
/// Between two tries: none before the first, then doubled from the one to the other.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A connection that ended sooner than this was of no use, whatever it brought: the next is not made at once.
const OF_USE_MIN: Duration = Duration::from_secs(1);
/// Tries in which it is not told: a holder that goes away is gone by then.
const TRIES_UNTOLD: u32 = 10;
/// How often a holder that does not say which launch it obeys may say that it is taken: the first time it may mean the
/// connection that has just ended.
const REFUSALS_MAX: u32 = 8;

/// What came of a try.
pub(crate) enum Again {
    Welcomed {
        stream: UnixStream,
        /// The same stream, for whoever speaks.
        speaking: UnixStream,
        /// What the holder takes for the size of the terminal.
        size: Size,
        /// What has come behind the welcome.
        rest: Vec<u8>,
    },
    /// A later launch holds it.
    Taken,
    Not {
        why: String,
    },
}

/// Greets the holder anew; output is wanted from the offset `from` on. `refusals` counts on.
pub(crate) fn again(way: &Way, by: &HeldBy, from: u64, refusals: &mut u32) -> Again {
    let mut stream = match way.folder.connect() {
        Ok(stream) => stream,
        Err(error) => return not(format!("its socket: {error}")),
    };
    let is_ours = rustix::net::sockopt::socket_peercred(&stream)
        .is_ok_and(|peer| peer.uid == rustix::process::geteuid());
    if !is_ours {
        return not("somebody else's process is at its socket".to_owned());
    }
    let hello = Hello {
        lowest: PROTOCOL_OLDEST,
        highest: PROTOCOL,
        tag: by.tag.clone(),
        epoch: way.epoch,
        from,
        plan: None,
    };
    match greet(&mut stream, hello, ANSWER_WAIT_MAX) {
        Ok(Greeted::Welcome(welcome, _)) if !is_the_same(&welcome, by) => {
            not("another holder is at its socket".to_owned())
        }
        Ok(Greeted::Welcome(welcome, rest)) => match prepare(&stream) {
            Ok(speaking) => Again::Welcomed {
                stream,
                speaking,
                size: welcome.size,
                rest,
            },
            Err(error) => not(error.to_string()),
        },
        Ok(Greeted::Refused(refused)) if is_taken(&refused, way.epoch, refusals) => Again::Taken,
        Ok(Greeted::Refused(refused)) => not(refused.why),
        Ok(Greeted::Silence) => not("it ends the connection without a word".to_owned()),
        Err(error) => not(error.to_string()),
    }
}

fn not(why: String) -> Again {
    Again::Not { why }
}

fn prepare(stream: &UnixStream) -> io::Result<UnixStream> {
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(Some(SPEAK_LOOK_EVERY))?;
    stream.try_clone()
}

fn is_the_same(welcome: &Welcome, by: &HeldBy) -> bool {
    Some(welcome.holder) == by.holder && welcome.root == by.root
}

/// Whether this proves that a later launch holds it. The holder may still have the connection that has ended.
fn is_taken(refused: &Refused, epoch: u64, refusals: &mut u32) -> bool {
    match (refused.kind, refused.launch) {
        (Refusal::Taken, Some(launch)) => launch > epoch,
        (Refusal::Taken, None) => {
            *refusals += 1;
            *refusals >= REFUSALS_MAX
        }
        (Refusal::Open | Refusal::Spawn | Refusal::Own | Refusal::Protocol | Refusal::Stranger, _) => false,
    }
}

/// How fast connections are made anew.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    pause: Duration,
    tries: u32,
}

impl Pace {
    /// A connection has ended that held for `lasted`.
    pub(crate) fn was(&mut self, lasted: Duration) {
        if lasted >= OF_USE_MIN {
            *self = Pace::default();
        }
    }

    /// The pause before the next try.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        pause
    }

    /// Why there is no connection: once for each time that it takes long.
    pub(crate) fn tell(&mut self, tag: &str, why: &str) {
        self.tries = self.tries.saturating_add(1);
        if self.tries == TRIES_UNTOLD {
            tracing::warn!(
                tag,
                why,
                "the connection to a holder broke, and cannot be made anew yet; it is tried again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_later_launch_takes_a_terminal_from_us() {
        let mut refusals = 0;
        let mut taken = |kind, launch| {
            let refused = Refused {
                launch,
                ..Refused::new(kind, String::new())
            };
            is_taken(&refused, 5, &mut refusals)
        };
        assert!(taken(Refusal::Taken, Some(6)));
        for _ in 0..100 {
            assert!(!taken(Refusal::Taken, Some(5)), "our own connection of before");
            assert!(!taken(Refusal::Stranger, Some(6)) && !taken(Refusal::Own, None));
        }
        let times = (1..100).find(|_| taken(Refusal::Taken, None));
        assert_eq!(times, Some(REFUSALS_MAX), "a holder of before says no number");
    }

    #[test]
    fn connections_that_are_of_no_use_are_made_ever_more_slowly() {
        let mut pace = Pace::default();
        for _ in 0..20 {
            pace.was(Duration::ZERO);
            pace.next();
        }
        assert_eq!(pace.next(), PAUSE_MAX);
        pace.was(OF_USE_MIN);
        assert_eq!((pace.next(), pace.next()), (Duration::ZERO, PAUSE_MIN));
    }
}

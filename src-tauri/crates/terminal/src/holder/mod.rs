//! A holder: a small loop that owns one program in its PTY, keeps its newest output, and serves one core at a time.
//!
//! It outlives cores, so it must be dull: one thread, no runtime, no screen, no decision about what the program's output
//! means. It waits in the kernel and wakes only when something has happened. A core that is slow slows the program down
//! (nothing is lost); one that is stuck or gone does not. It ends its program only when nobody came for long, or when it
//! is told to end itself. `semo-holder` is this loop in a process of its own; [`crate::Holders::in_this_process`] is
//! the same on a thread.

mod away;
mod ending;
mod entry;
mod home;
mod inputs;
mod kept;
mod link;
mod program;
mod serve;

use std::time::Duration;

pub(crate) use entry::serve;
pub use entry::{hold, holder_version};
pub(crate) use inputs::monotonic_ns;

/// Output that an attached core may be behind before the program has to wait for it.
pub(crate) const BEHIND_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// A core that has taken nothing for so long while it is behind is stuck: the program goes on without it.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(2);
/// How long the exit and the output of a program that ended while nobody looked are kept.
pub(crate) const ENDED_KEEP_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// After the program's exit: how long its output may stay silent before the exit is reported although a child it
/// left behind holds the terminal open.
const DRAIN_SILENCE: Duration = Duration::from_millis(200);
/// After the exit: how long a child that was left behind may go on printing before the exit is reported.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long a program goes on without a core when the holder's folder was removed: nobody can find it any more, and
/// the next core ends what it finds without a holder.
const HOMELESS_MAX: Duration = Duration::from_secs(10);
/// A holder without a core looks so often whether it can still be found, or twenty times in its patience.
const LOOK_HOME_EVERY: Duration = Duration::from_secs(5 * 60);
const LOOKS_HOME: u32 = 20;
/// Silence after which kept output is packed.
const PACK_AFTER: Duration = Duration::from_secs(2);
/// Output read at once before it is sent.
const BATCH_BYTES: usize = 64 * 1024;
/// Connections that may wait to be heard.
const GUESTS_MAX: usize = 4;
/// How long one of them may take to say who it is.
const GUEST_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long the first core may take to say what is to be started.
const PLAN_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a program may take to end after TERM when the holder ends it by itself.
const END_GRACE: Duration = Duration::from_secs(5);
/// How long a holder does without what the machine has not got at the moment: a descriptor, a bit of memory.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(200);
/// Between two looks at the processes of a tree that is being ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the last words to a core may take.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

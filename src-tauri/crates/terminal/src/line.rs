//! [`Line`]: what the two threads of a terminal and all its handles share of the connection to a holder.
//!
//! A connection may break although both sides live (one odd frame is enough). That says nothing about the program, nor
//! about who holds it: the follower makes it anew ([`crate::again`]), and the line goes on. What was to be said and had
//! not been said to its end is said on the new connection; of input that had been, and was not answered, nothing is known.

use std::collections::HashMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::emulator::Size;
use crate::folder::Folder;
use crate::process::ProcessId;
use crate::wire::{Painting, Typed};

/// How long it is waited for what this process has not got at the moment: a descriptor.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(200);

/// What the holder is told.
pub(crate) enum Saying {
    Input {
        id: u64,
        bytes: Bytes,
    },
    Resize(Size),
    /// An input is not wanted any more.
    Withdraw {
        id: u64,
    },
    /// Has the program paint its screen anew.
    Nudge,
    Painting(Painting),
    Release,
    /// The last words of this core.
    Bye,
}

/// Who holds the program of a terminal.
#[derive(Debug, Clone)]
pub(crate) struct HeldBy {
    /// The program's own process.
    pub(crate) root: ProcessId,
    pub(crate) tag: String,
    /// The holder; absent for one on a thread of this process.
    pub(crate) holder: Option<ProcessId>,
}

/// How the holder is found again, and as whom.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) folder: Folder,
    /// The launch of this core.
    pub(crate) epoch: u64,
}

/// A connection to a holder that has welcomed us.
pub(crate) struct Welcomed {
    pub(crate) stream: UnixStream,
    pub(crate) by: HeldBy,
    /// Absent for a holder on a thread of this process: its program ends with the connection.
    pub(crate) way: Option<Way>,
    /// What the holder speaks.
    pub(crate) protocol: u32,
    /// What has come behind the welcome.
    pub(crate) rest: Vec<u8>,
    /// The holder's process, where it is a child of ours, to be collected.
    pub(crate) child: Option<Child>,
    /// Offset at which the output that it kept begins.
    pub(crate) start: u64,
}

/// What became of an input.
pub(crate) type Answer = Result<Typed, Unheard>;

/// The connection broke before that was heard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unheard {
    /// The number of that connection.
    connection: u64,
}

/// An input whose answer is waited for.
struct Expected {
    answer: oneshot::Sender<Answer>,
    /// The connection on which it was said, or is being said.
    said_on: Option<u64>,
}

/// The connection of now.
struct Connection {
    stream: UnixStream,
    /// Counts connections.
    number: u64,
    is_up: bool,
    /// There will be no other.
    is_over: bool,
}

pub(crate) struct Line {
    connection: Mutex<Connection>,
    changed: Condvar,
    pub(crate) by: HeldBy,
    pub(crate) way: Option<Way>,
    /// What the holder speaks.
    pub(crate) protocol: u32,
    pub(crate) sayings: mpsc::Sender<Saying>,
    next_input: AtomicU64,
    /// Those who wait for an answer; absent when none can come any more.
    inputs: Mutex<Option<HashMap<u64, Expected>>>,
    /// The number of the newest connection that was made.
    renewals: watch::Sender<u64>,
    /// We let go, or another core holds it: the end of the connection says nothing about the program.
    let_go: AtomicBool,
}

impl Line {
    pub(crate) fn new(
        stream: UnixStream,
        by: HeldBy,
        way: Option<Way>,
        protocol: u32,
        sayings: mpsc::Sender<Saying>,
    ) -> Line {
        Line {
            connection: Mutex::new(Connection {
                stream,
                number: 1,
                is_up: true,
                is_over: false,
            }),
            changed: Condvar::new(),
            by,
            way,
            protocol,
            sayings,
            next_input: AtomicU64::new(1),
            inputs: Mutex::new(Some(HashMap::new())),
            renewals: watch::Sender::new(1),
            let_go: AtomicBool::new(false),
        }
    }

    // --- input ---------------------------------------------------------------------------------------------------

    /// Takes note of an input, so that its answer finds the one who waits.
    pub(crate) fn expect(&self) -> (u64, oneshot::Receiver<Answer>) {
        let id = self.next_input.fetch_add(1, Ordering::Relaxed);
        let (answer, typed) = oneshot::channel();
        // Where nothing can be answered any more, the one who waits is told so at once.
        if let Some(inputs) = self.inputs().as_mut() {
            let said_on = None;
            inputs.insert(id, Expected { answer, said_on });
        }
        (id, typed)
    }

    /// Nobody waits for it any more. One that was not said yet never will be.
    pub(crate) fn forget(&self, id: u64) {
        if let Some(inputs) = self.inputs().as_mut() {
            inputs.remove(&id);
        }
    }

    /// Takes back an input that the holder was not told of; false when it was, or may have been.
    pub(crate) fn take_back(&self, id: u64) -> bool {
        self.inputs().as_mut().is_some_and(|inputs| {
            let is_unsaid = inputs.get(&id).is_some_and(|expected| expected.said_on.is_none());
            is_unsaid && inputs.remove(&id).is_some()
        })
    }

    /// The input is about to be said on this connection; false when nobody wants it any more.
    pub(crate) fn begin_to_say(&self, id: u64, connection: u64) -> bool {
        let mut inputs = self.inputs();
        let expected = inputs.as_mut().and_then(|inputs| inputs.get_mut(&id));
        expected.is_some_and(|expected| {
            expected.said_on = Some(connection);
            true
        })
    }

    /// It was not said to its end: a holder does nothing with a piece of a frame.
    pub(crate) fn not_said(&self, id: u64) {
        if let Some(expected) = self.inputs().as_mut().and_then(|inputs| inputs.get_mut(&id)) {
            expected.said_on = None;
        }
    }

    pub(crate) fn answered(&self, id: u64, typed: Typed) {
        let expected = self.inputs().as_mut().and_then(|inputs| inputs.remove(&id));
        if let Some(expected) = expected {
            // The one who waited may have given up.
            let _ = expected.answer.send(Ok(typed));
        }
    }

    fn inputs(&self) -> MutexGuard<'_, Option<HashMap<u64, Expected>>> {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- the connection ------------------------------------------------------------------------------------------

    /// The connection behind the one with the number `after`, waited for; `None` when there will be none.
    pub(crate) fn connection(&self, after: u64) -> Option<(u64, UnixStream)> {
        let mut connection = self.locked();
        loop {
            if connection.is_over {
                return None;
            }
            if connection.is_up && connection.number > after {
                match connection.stream.try_clone() {
                    Ok(stream) => return Some((connection.number, stream)),
                    Err(error) => {
                        tracing::warn!(tag = self.by.tag, %error, "nothing can be said to a holder for a moment");
                        let waited = self.changed.wait_timeout(connection, SHORTAGE_PAUSE);
                        connection = waited.unwrap_or_else(PoisonError::into_inner).0;
                        continue;
                    }
                }
            }
            connection = self
                .changed
                .wait(connection)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The connection of now has ended: nothing more is said on it. Whoever waits for an answer to what was said there is
    /// told that none will come.
    pub(crate) fn broken(&self) {
        let number = {
            let mut connection = self.locked();
            connection.is_up = false;
            // Before those who wait are told: what is not said by now, never is.
            let _ = connection.stream.shutdown(Shutdown::Both);
            connection.number
        };
        let unheard: Vec<Expected> = match self.inputs().as_mut() {
            Some(inputs) => {
                let was_said = |_: &u64, expected: &mut Expected| {
                    expected.said_on.is_some_and(|connection| connection <= number)
                };
                inputs
                    .extract_if(was_said)
                    .map(|(_, expected)| expected)
                    .collect()
            }
            None => Vec::new(),
        };
        for expected in unheard {
            // The one who waited may have given up.
            let _ = expected.answer.send(Err(Unheard { connection: number }));
        }
    }

    /// A new connection to the same holder.
    pub(crate) fn renewed(&self, stream: UnixStream) {
        let mut connection = self.locked();
        connection.stream = stream;
        connection.number += 1;
        connection.is_up = !connection.is_over;
        if connection.is_over {
            // It was given up meanwhile.
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
        self.renewals.send_replace(connection.number);
        self.changed.notify_all();
    }

    /// Waits until there is another connection than the one that broke.
    pub(crate) async fn renewal(&self, unheard: Unheard) {
        let mut renewals = self.renewals.subscribe();
        if renewals
            .wait_for(|number| *number > unheard.connection)
            .await
            .is_err()
        {
            std::future::pending().await
        }
    }

    /// Waits before the next try; not for long when the connection is given up meanwhile.
    pub(crate) fn pause(&self, pause: Duration) {
        let connection = self.locked();
        if !connection.is_over && !self.is_let_go() {
            // Woken too early, it is tried too early.
            drop(self.changed.wait_timeout(connection, pause));
        }
    }

    /// Both threads end soon.
    pub(crate) fn hang_up(&self) {
        let mut connection = self.locked();
        connection.is_over = true;
        // It may have ended already.
        let _ = connection.stream.shutdown(Shutdown::Both);
        self.changed.notify_all();
    }

    /// Nothing more will be heard.
    pub(crate) fn over(&self) {
        self.hang_up();
        *self.inputs() = None;
        // Where there is no room, what waits there wakes the speaker.
        let _ = self.sayings.try_send(Saying::Bye);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.locked().is_over
    }

    /// Lets go of the program; false when that was done before.
    pub(crate) fn let_go(&self) -> bool {
        // Under the lock, so that nobody who is about to wait misses it.
        let _connection = self.locked();
        let was_let_go = self.let_go.swap(true, Ordering::SeqCst);
        self.changed.notify_all();
        !was_let_go
    }

    pub(crate) fn is_let_go(&self) -> bool {
        self.let_go.load(Ordering::SeqCst)
    }

    fn locked(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

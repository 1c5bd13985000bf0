//! Doorbells: one socket per project, kept alive and rejoined for as long as the program runs.
//!
//! Delivery is at most once, by design of the service: an event here means "look", never "this is all". After every
//! join, and whenever doorbells were missed, [`RealtimeEvent::Joined`] says "reconcile everything of this topic".
//! Nothing here waits for the application: its queue is bounded, and doorbells that find it full are collapsed into
//! one `Joined`.
//!
//! Called by `client` (and by `cli` to follow a command).

mod backoff;
mod channel;
mod codec;
mod course;
mod dial;
#[cfg(test)]
mod fake;
mod head;
mod moment;
mod outlet;
mod patience;
mod phase;
mod reach;
#[cfg(test)]
mod simulation;
mod socket;
mod supervisor;
mod talk;
#[cfg(test)]
mod tests;
mod tunnel;

use std::sync::Arc;

use domain::{Clock, OfficeId};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::backoff::Dice;
use self::course::Course;
use self::dial::{Dial, Tcp};
use self::outlet::Outlet;
use self::supervisor::{Bell, Supervisor, TokenSource};
use crate::auth::Auth;
use crate::project::Project;
use crate::rest::Rest;

/// Events that wait for the application; beyond, doorbells collapse.
pub const EVENT_QUEUE_MAX: usize = 64;

/// A channel to be on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Without the `realtime:` of the wire: `office:<id>:commands`.
    pub name: String,
    /// Private channels are guarded by RLS; public ones of the same name are another namespace.
    pub private: bool,
    /// Inserts to be told of by replication, where the office's doorbell trigger cannot be had.
    pub inserts: Option<InsertWatch>,
    /// Whose doorbell rings on it: rung by ourselves it proves that it is heard. `None`: a join has to do as the proof.
    pub proof: Option<OfficeId>,
}

/// INSERTs on a table, as `postgres_changes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InsertWatch {
    /// `public`.
    pub schema: String,
    /// `agent_commands`.
    pub table: String,
    /// `office_id=eq.<id>`.
    pub filter: Option<String>,
}

impl Topic {
    /// The doorbell of an office's commands.
    pub fn office_commands(office: OfficeId) -> Topic {
        Topic {
            name: format!("office:{office}:commands"),
            private: true,
            inserts: None,
            proof: Some(office),
        }
    }

    /// As [`Topic::office_commands`], and also INSERTs on `agent_commands`.
    pub fn office_commands_and_inserts(office: OfficeId) -> Topic {
        let inserts = InsertWatch {
            schema: "public".to_owned(),
            table: "agent_commands".to_owned(),
            filter: Some(format!("office_id=eq.{office}")),
        };
        Topic {
            inserts: Some(inserts),
            ..Topic::office_commands(office)
        }
    }
}

/// What the application hears.
#[derive(Debug, Clone, PartialEq)]
pub enum RealtimeEvent {
    /// Something happened: look. From a broadcast (`event` as sent: `command`, `result`) or an INSERT (`INSERT`, the
    /// payload is the row).
    Doorbell {
        /// Which topic.
        topic: String,
        /// What the sender called it.
        event: String,
        /// A hint; ids only.
        payload: Value,
    },
    /// Something may have been missed: reconcile everything of this topic. Comes after each join, again when the
    /// database subscription is live and 3 s later, and when doorbells had to be dropped.
    Joined {
        /// Which topic.
        topic: String,
    },
    /// The connection's new state. Older ones that were not fetched in time are skipped.
    State(ConnectionState),
}

/// How it stands with the connection. Anything but `Live` should shorten the poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ConnectionState {
    /// Not trying: nobody is signed in. Moved on by a sign-in.
    Offline {
        /// Why.
        why: String,
    },
    /// The socket is being opened.
    Connecting,
    /// The socket is open; not every topic is joined, or whether doorbells come through is not proven (any more).
    Joining,
    /// Every topic is joined, and a doorbell has come through on each: rung by whomever, at worst by ourselves.
    Live,
    /// Waiting before the next try.
    Backoff {
        /// Until when, milliseconds on the wall clock.
        until_ms: i64,
        /// What went wrong.
        why: String,
        /// A person has to change something; it is still tried, slowly.
        permanent: bool,
    },
    /// Ended on request; nothing moves it further.
    Stopped,
}

/// Controls a running connection. Clones share it.
#[derive(Debug, Clone)]
pub struct RealtimeHandle {
    state: watch::Receiver<ConnectionState>,
    nudge: Arc<Notify>,
    doubt: Arc<Notify>,
}

impl RealtimeHandle {
    /// How it stands now.
    pub fn state(&self) -> ConnectionState {
        self.state.borrow().clone()
    }

    /// To wait for changes of state.
    pub fn watch(&self) -> watch::Receiver<ConnectionState> {
        self.state.clone()
    }

    /// Something outside changed (network, sign-in, wake from sleep): do not wait, try now.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// A doorbell was missed (the poll found what should have rung): it is proven anew, and not called live meanwhile.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }
}

/// The connection to one project's Realtime.
pub struct Realtime;

impl Realtime {
    /// Starts the connection on `tasks` and keeps it until `stop` fires. Drop the receiver to end it, too.
    pub fn start(
        project: Project,
        auth: Auth,
        topics: Vec<Topic>,
        clock: Arc<dyn Clock>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> (RealtimeHandle, mpsc::Receiver<RealtimeEvent>) {
        let parts = Parts {
            bell: Arc::new(Rest::new(project.clone(), auth.clone())),
            source: Arc::new(auth),
            dial: Arc::new(Tcp::for_project(&project)),
            dice: Dice::from_system(),
        };
        Realtime::start_with(project, topics, clock, parts, tasks, stop)
    }

    /// With all that tests replace.
    fn start_with(
        project: Project,
        topics: Vec<Topic>,
        clock: Arc<dyn Clock>,
        parts: Parts,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> (RealtimeHandle, mpsc::Receiver<RealtimeEvent>) {
        let (events, heard) = mpsc::channel(EVENT_QUEUE_MAX);
        let (state, watcher) = watch::channel(ConnectionState::Connecting);
        let (nudge, doubt) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let supervisor = Supervisor {
            project,
            source: parts.source,
            bell: parts.bell,
            dial: parts.dial,
            topics,
            clock,
            outlet: Outlet::new(events, state),
            dice: parts.dice,
            nudge: nudge.clone(),
            doubt: doubt.clone(),
            stop,
            course: Course::new(),
        };
        tasks.spawn(supervisor.run());
        (
            RealtimeHandle {
                state: watcher,
                nudge,
                doubt,
            },
            heard,
        )
    }
}

/// Where tokens, bytes and chance come from.
struct Parts {
    source: Arc<dyn TokenSource>,
    bell: Arc<dyn Bell>,
    dial: Arc<dyn Dial>,
    dice: Dice,
}

//! Who is joined where. Everything that is sent to more than one socket goes through here.
//!
//! Never waits: a socket whose queue is full is closed (1013), not waited for. Called by `socket`, `channel`,
//! `feed` and `routes`.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::changes::Binding;
use super::codec::{Body, Outgoing};
use crate::jwt::Claims;

/// Frames that may wait for one socket.
pub(crate) const QUEUE_MAX: usize = 256;
/// Sockets at a time.
pub(crate) const SOCKETS_MAX: usize = 200;

/// Where a socket's task takes its messages from, and how it learns that it was too slow.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    queue: mpsc::Sender<Outgoing>,
    overflow: CancellationToken,
}

impl Outbox {
    /// A queue and its two ends; `overflow` is cancelled when a message found no room.
    pub fn new() -> (Outbox, mpsc::Receiver<Outgoing>, CancellationToken) {
        let (queue, receiver) = mpsc::channel(QUEUE_MAX);
        let overflow = CancellationToken::new();
        (
            Outbox {
                queue,
                overflow: overflow.clone(),
            },
            receiver,
            overflow,
        )
    }

    fn push(&self, message: Outgoing) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(message) {
            self.overflow.cancel();
        }
    }
}

/// One channel of one socket.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub outbox: Outbox,
    /// Topic without its prefix.
    pub topic: String,
    pub private: bool,
    pub claims: Claims,
    pub may_receive: bool,
    pub bindings: Arc<Vec<Binding>>,
}

/// A member whose bindings are to be looked at for a row change.
#[derive(Debug, Clone)]
pub(crate) struct Subscriber {
    pub id: u64,
    pub claims: Claims,
    pub bindings: Arc<Vec<Binding>>,
}

#[derive(Debug, Default)]
struct State {
    members: HashMap<u64, Member>,
    topics: HashMap<(String, bool), HashSet<u64>>,
}

/// All channels of the hub.
#[derive(Debug)]
pub(crate) struct Realtime {
    state: Mutex<State>,
    next: AtomicU64,
    sockets: Arc<AtomicUsize>,
    /// Cancelled when the hub stops, and for a moment when the feed has lost messages.
    pub stop: CancellationToken,
    restart: Mutex<CancellationToken>,
    pub tasks: TaskTracker,
}

/// A place among the [`SOCKETS_MAX`]; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Realtime {
    /// An empty registry; sockets end when `stop` is cancelled and are counted by `tasks`.
    pub fn new(stop: CancellationToken, tasks: TaskTracker) -> Realtime {
        Realtime {
            state: Mutex::default(),
            next: AtomicU64::new(1),
            sockets: Arc::default(),
            restart: Mutex::new(stop.child_token()),
            stop,
            tasks,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more socket, if there is one.
    pub fn take_place(&self) -> Option<Place> {
        let place = Place(self.sockets.clone());
        (self.sockets.fetch_add(1, Ordering::AcqRel) < SOCKETS_MAX).then_some(place)
    }

    /// Cancelled when the sockets of now must close with 1012.
    pub fn closing(&self) -> CancellationToken {
        self.restart
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Closes all sockets with 1012, so that their clients come back and read what they missed.
    pub fn restart_all(&self) {
        let mut restart = self.restart.lock().unwrap_or_else(PoisonError::into_inner);
        restart.cancel();
        *restart = self.stop.child_token();
    }

    /// Adds a channel and returns its id.
    pub fn add(&self, member: Member) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        state
            .topics
            .entry((member.topic.clone(), member.private))
            .or_default()
            .insert(id);
        state.members.insert(id, member);
        id
    }

    /// Removes a channel.
    pub fn remove(&self, id: u64) {
        let mut state = self.state();
        let Some(member) = state.members.remove(&id) else {
            return;
        };
        let key = (member.topic, member.private);
        if let Some(ids) = state.topics.get_mut(&key) {
            ids.remove(&id);
            if ids.is_empty() {
                state.topics.remove(&key);
            }
        }
    }

    /// New claims after a token refresh.
    pub fn set_claims(&self, id: u64, claims: Claims, may_receive: bool) {
        if let Some(member) = self.state().members.get_mut(&id) {
            member.claims = claims;
            member.may_receive = may_receive;
        }
    }

    /// Sends a broadcast to everybody joined to `topic` in that namespace, but not to `except`.
    pub fn broadcast(
        &self,
        (topic, private): (&str, bool),
        event: &str,
        body: &Body,
        meta: Option<&serde_json::Value>,
        except: Option<u64>,
    ) {
        let state = self.state();
        let Some(ids) = state.topics.get(&(topic.to_owned(), private)) else {
            return;
        };
        for id in ids.iter().filter(|id| Some(**id) != except) {
            if let Some(member) = state.members.get(id).filter(|member| member.may_receive) {
                member.outbox.push(Outgoing::Broadcast {
                    topic: format!("realtime:{topic}"),
                    event: event.to_owned(),
                    body: body.clone(),
                    meta: meta.cloned(),
                });
            }
        }
    }

    /// Everybody who asked for changes of any table.
    pub fn subscribers(&self) -> Vec<Subscriber> {
        let state = self.state();
        let asked = state
            .members
            .iter()
            .filter(|(_, member)| !member.bindings.is_empty());
        asked
            .map(|(id, member)| Subscriber {
                id: *id,
                claims: member.claims.clone(),
                bindings: member.bindings.clone(),
            })
            .collect()
    }

    /// Sends a row change to one channel, if it is still there.
    pub fn change(&self, id: u64, payload: serde_json::Value) {
        if let Some(member) = self.state().members.get(&id) {
            member.outbox.push(Outgoing::Message {
                join_ref: None,
                reference: None,
                topic: format!("realtime:{}", member.topic),
                event: "postgres_changes",
                payload,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn realtime() -> Realtime {
        Realtime::new(CancellationToken::new(), TaskTracker::new())
    }

    fn member(outbox: &Outbox, private: bool) -> Member {
        Member {
            outbox: outbox.clone(),
            topic: "t".to_owned(),
            private,
            claims: crate::identity::key_claims("anon"),
            may_receive: true,
            bindings: Arc::default(),
        }
    }

    #[test]
    fn public_and_private_channels_of_one_name_do_not_hear_each_other() {
        let realtime = realtime();
        let (outbox, mut receiver, _) = Outbox::new();
        realtime.add(member(&outbox, false));
        let body = Body::Json(Arc::new(json!({})));
        realtime.broadcast(("t", true), "command", &body, None, None);
        assert!(receiver.try_recv().is_err());
        realtime.broadcast(("t", false), "command", &body, None, None);
        assert!(receiver.try_recv().is_ok());
    }

    #[test]
    fn a_socket_that_does_not_read_is_marked_and_does_not_grow() {
        let realtime = realtime();
        let (outbox, mut receiver, overflow) = Outbox::new();
        let id = realtime.add(member(&outbox, true));
        for n in 0..QUEUE_MAX + 10 {
            assert_eq!(overflow.is_cancelled(), n > QUEUE_MAX);
            realtime.broadcast(("t", true), "e", &Body::Json(Arc::new(json!(n))), None, None);
        }
        realtime.remove(id);
        assert_eq!(std::iter::from_fn(|| receiver.try_recv().ok()).count(), QUEUE_MAX);
        assert!(realtime.state().topics.is_empty(), "an empty topic is forgotten");
    }

    #[test]
    fn places_are_limited_and_given_back() {
        let realtime = realtime();
        let places: Vec<Place> = (0..SOCKETS_MAX).filter_map(|_| realtime.take_place()).collect();
        assert_eq!(places.len(), SOCKETS_MAX);
        assert!(realtime.take_place().is_none());
        drop(places);
        assert!(realtime.take_place().is_some());
    }
}

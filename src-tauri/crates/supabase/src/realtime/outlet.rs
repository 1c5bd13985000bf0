//! The way out to the application: a bounded queue that never makes the socket wait.
//!
//! Rule when it is full: doorbells of a topic collapse into one `Joined` ("reconcile everything"), of states only the
//! newest is kept. Both are handed over as soon as there is room. Called by [`super::talk`], [`super::socket`] and
//! [`super::supervisor`].

use std::collections::BTreeSet;

use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::watch;

use super::{ConnectionState, RealtimeEvent};

/// The sending end. At most one entry per topic and one state wait in it.
#[derive(Debug)]
pub(super) struct Outlet {
    events: mpsc::Sender<RealtimeEvent>,
    state: watch::Sender<ConnectionState>,
    behind: BTreeSet<String>,
    state_behind: bool,
}

impl Outlet {
    pub(super) fn new(events: mpsc::Sender<RealtimeEvent>, state: watch::Sender<ConnectionState>) -> Outlet {
        Outlet {
            events,
            state,
            behind: BTreeSet::new(),
            state_behind: false,
        }
    }

    /// A doorbell rang.
    pub(super) fn doorbell(&mut self, topic: &str, event: String, payload: serde_json::Value) {
        if self.behind.contains(topic) {
            return;
        }
        let bell = RealtimeEvent::Doorbell {
            topic: topic.to_owned(),
            event,
            payload,
        };
        if !self.offer(bell) {
            self.behind.insert(topic.to_owned());
        }
    }

    /// Everything of the topic is to be looked at.
    pub(super) fn joined(&mut self, topic: &str) {
        if self.behind.contains(topic) {
            return;
        }
        if !self.offer(RealtimeEvent::Joined {
            topic: topic.to_owned(),
        }) {
            self.behind.insert(topic.to_owned());
        }
    }

    /// The state is now `state`; the same one again is not told.
    pub(super) fn state(&mut self, state: ConnectionState) {
        if *self.state.borrow() == state {
            return;
        }
        tracing::debug!(?state, "realtime");
        self.state.send_replace(state.clone());
        self.state_behind = !self.offer(RealtimeEvent::State(state));
    }

    /// Is something waiting for room?
    pub(super) fn is_behind(&self) -> bool {
        self.state_behind || !self.behind.is_empty()
    }

    /// Waits for room and hands over what waits. Cancel-safe: nothing is taken out before there is room for it.
    pub(super) async fn catch_up(&mut self) {
        while self.is_behind() {
            let Ok(room) = self.events.reserve().await else {
                self.state_behind = false;
                self.behind.clear();
                return;
            };
            if self.state_behind {
                self.state_behind = false;
                room.send(RealtimeEvent::State(self.state.borrow().clone()));
            } else if let Some(topic) = self.behind.pop_first() {
                room.send(RealtimeEvent::Joined { topic });
            }
        }
    }

    /// Resolves when nobody listens any more.
    pub(super) fn listener_gone(&self) -> impl Future<Output = ()> + use<> {
        let events = self.events.clone();
        async move { events.closed().await }
    }

    /// False when there is no room. A listener that is gone counts as room.
    fn offer(&self, event: RealtimeEvent) -> bool {
        !matches!(self.events.try_send(event), Err(TrySendError::Full(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn outlet(
        room: usize,
    ) -> (
        Outlet,
        mpsc::Receiver<RealtimeEvent>,
        watch::Receiver<ConnectionState>,
    ) {
        let (events, receiver) = mpsc::channel(room);
        let (state, watcher) = watch::channel(ConnectionState::Connecting);
        (Outlet::new(events, state), receiver, watcher)
    }

    fn joined(topic: &str) -> RealtimeEvent {
        RealtimeEvent::Joined {
            topic: topic.to_owned(),
        }
    }

    #[tokio::test]
    async fn doorbells_that_find_no_room_become_one_reconcile_per_topic() {
        let (mut outlet, mut heard, _) = outlet(1);
        outlet.doorbell("a", "command".to_owned(), json!({"id": 1}));
        for id in 2..100 {
            outlet.doorbell("a", "command".to_owned(), json!({"id": id}));
            outlet.doorbell("b", "command".to_owned(), Value::Null);
        }
        outlet.joined("a");
        assert!(
            matches!(heard.recv().await, Some(RealtimeEvent::Doorbell { payload, .. }) if payload["id"] == 1)
        );
        let listen = async {
            let first = heard.recv().await;
            (first, heard.recv().await)
        };
        let ((), both) = tokio::join!(outlet.catch_up(), listen);
        assert_eq!(both, (Some(joined("a")), Some(joined("b"))));
        assert!(!outlet.is_behind());
    }

    #[tokio::test]
    async fn of_states_that_nobody_fetched_only_the_newest_is_told() {
        let (mut outlet, mut heard, watcher) = outlet(1);
        outlet.state(ConnectionState::Joining);
        outlet.state(ConnectionState::Live);
        outlet.state(ConnectionState::Stopped);
        assert_eq!(
            *watcher.borrow(),
            ConnectionState::Stopped,
            "the watcher is never behind"
        );
        assert_eq!(
            heard.recv().await,
            Some(RealtimeEvent::State(ConnectionState::Joining))
        );
        outlet.catch_up().await;
        assert_eq!(
            heard.recv().await,
            Some(RealtimeEvent::State(ConnectionState::Stopped))
        );
    }

    #[tokio::test]
    async fn a_listener_that_is_gone_holds_nothing_up() {
        let (mut outlet, heard, _) = outlet(1);
        let gone = outlet.listener_gone();
        drop(heard);
        gone.await;
        outlet.doorbell("a", "command".to_owned(), Value::Null);
        outlet.catch_up().await;
        assert!(!outlet.is_behind());
    }
}

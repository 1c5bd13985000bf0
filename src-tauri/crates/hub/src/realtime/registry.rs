//! Who is joined where. Everything that is sent to more than one socket goes through here.
//!
//! Never waits: a socket whose queue is full is closed (1013), not waited for. Called by `socket`, `channel`,
//! `feed`, `changes` and `posts`.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::changes::Follow;
use super::codec::{self, Frame, Outgoing, Spoken, Version};
use super::meter::Meter;
use super::outbox::{self, Outbox};
use super::presence::{Full, Presence};
use super::settings::RealtimeSettings;
use crate::jwt::Claims;

/// What all topics of clients begin with.
pub(crate) const PREFIX: &str = "realtime:";

/// Handshakes whose refusal may be held back at a time; more are answered at once.
const HELD_BACK_MAX: usize = 64;

/// One channel of one socket.
#[derive(Debug)]
pub(crate) struct Member {
    pub outbox: Outbox,
    pub version: Version,
    /// Topic without its prefix.
    pub topic: String,
    pub private: bool,
    pub claims: Arc<Claims>,
    /// Gets broadcasts.
    pub hears: bool,
    /// Gets presence.
    pub sees: bool,
    /// Row changes it gets.
    pub follows: Arc<Vec<Follow>>,
    replayed: HashSet<Uuid>,
    /// What came before the join was answered.
    held: Option<Vec<(Option<Uuid>, Frame)>>,
}

impl Member {
    /// A channel that gets nothing yet: what comes is held until [`Realtime::release`].
    pub fn new(outbox: Outbox, version: Version, topic: &str, private: bool, claims: Arc<Claims>) -> Member {
        Member {
            outbox,
            version,
            topic: topic.to_owned(),
            private,
            claims,
            hears: true,
            sees: true,
            follows: Arc::default(),
            replayed: HashSet::new(),
            held: Some(Vec::new()),
        }
    }

    /// `id`: of the message, where it has one.
    fn take(&mut self, id: Option<Uuid>, frame: Frame) {
        if id.is_some_and(|id| self.replayed.contains(&id)) {
            return;
        }
        match &mut self.held {
            None => self.outbox.push(frame),
            Some(held) if held.len() < outbox::FRAMES_MAX => held.push((id, frame)),
            Some(_) => self.outbox.overflow(),
        }
    }

    fn tell(&mut self, message: &Outgoing) {
        if let Some(frame) = codec::write(self.version, message) {
            self.take(None, frame);
        }
    }
}

/// A member that follows row changes.
#[derive(Debug, Clone)]
pub(crate) struct Follower {
    pub id: u64,
    pub claims: Arc<Claims>,
    pub follows: Arc<Vec<Follow>>,
}

#[derive(Debug, Default)]
struct Topic {
    members: HashSet<u64>,
    presence: Presence,
}

#[derive(Debug, Default)]
struct State {
    members: HashMap<u64, Member>,
    topics: HashMap<(String, bool), Topic>,
}

/// All channels of the hub.
#[derive(Debug)]
pub(crate) struct Realtime {
    state: Mutex<State>,
    next: AtomicU64,
    sockets: Arc<AtomicUsize>,
    settings: Mutex<Arc<RealtimeSettings>>,
    /// Counts changes of the settings' switches: sockets that see it change end.
    pub switched: watch::Sender<u64>,
    /// Counts changes of what is published: subscriptions to row changes are made again.
    pub published: watch::Sender<u64>,
    /// Whether the database's feed is connected.
    pub feed: watch::Sender<bool>,
    /// Tables whose every change is captured from now on.
    pub settled: Mutex<HashSet<u32>>,
    /// Handshakes whose refusal is held back.
    pub held_back: Semaphore,
    joins: Mutex<Meter>,
    posts: Mutex<Meter>,
    /// Cancelled when the hub stops.
    pub stop: CancellationToken,
    restart: Mutex<CancellationToken>,
    pub tasks: TaskTracker,
}

/// A place among the sockets; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Realtime {
    /// An empty registry; sockets end when `stop` is cancelled and are counted by `tasks`.
    pub fn new(stop: CancellationToken, tasks: TaskTracker) -> Realtime {
        Realtime {
            state: Mutex::default(),
            next: AtomicU64::new(1),
            sockets: Arc::default(),
            settings: Mutex::default(),
            switched: watch::Sender::new(0),
            published: watch::Sender::new(0),
            feed: watch::Sender::new(true),
            settled: Mutex::default(),
            held_back: Semaphore::new(HELD_BACK_MAX),
            joins: Mutex::default(),
            posts: Mutex::default(),
            restart: Mutex::new(stop.child_token()),
            stop,
            tasks,
        }
    }

    /// What is allowed now.
    pub fn settings(&self) -> Arc<RealtimeSettings> {
        locked(&self.settings).clone()
    }

    /// Changes what is allowed; see [`crate::Hub::set_realtime`].
    pub fn set_settings(&self, settings: RealtimeSettings) {
        let mut now = locked(&self.settings);
        let differs = now.differs_for_the_joined(&settings);
        *now = Arc::new(settings);
        drop(now);
        if differs {
            self.switched.send_modify(|count| *count += 1);
        }
    }

    /// A place for one more socket, if there is one.
    pub fn take_place(&self) -> Option<Place> {
        let place = Place(self.sockets.clone());
        (self.sockets.fetch_add(1, Ordering::AcqRel) < self.settings().sockets_max).then_some(place)
    }

    /// Counts joins and handshakes of the whole hub; false when there were too many.
    pub fn may_join(&self, amount: u32) -> bool {
        let allowed = self.settings();
        locked(&self.joins).take(
            amount,
            allowed.joins_per_second,
            allowed.rate_window,
            Instant::now(),
        )
    }

    /// Counts messages that came by HTTP; false when there were too many.
    pub fn may_post(&self, amount: u32) -> bool {
        let allowed = self.settings();
        locked(&self.posts).take(
            amount,
            allowed.messages_per_second,
            allowed.rate_window,
            Instant::now(),
        )
    }

    /// Cancelled when the sockets of now must close with 1012.
    pub fn closing(&self) -> CancellationToken {
        locked(&self.restart).clone()
    }

    /// Closes all sockets with 1012, so that their clients come back and read what they missed.
    pub fn restart_all(&self) {
        let mut restart = locked(&self.restart);
        restart.cancel();
        *restart = self.stop.child_token();
    }

    /// Has every subscription to row changes made again.
    pub fn published_anew(&self) {
        self.published.send_modify(|count| *count += 1);
    }

    /// No table is known to be captured any more.
    pub fn forget_settled(&self) {
        locked(&self.settled).clear();
    }

    /// Adds a channel and returns its id.
    pub fn add(&self, member: Member) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut state = locked(&self.state);
        let key = (member.topic.clone(), member.private);
        state.topics.entry(key).or_default().members.insert(id);
        state.members.insert(id, member);
        id
    }

    /// Tells a new channel `first` (its reply, then the topic's presence if that is asked, then the rest), then what was
    /// held for it, but nothing of `replayed` again.
    pub fn release(&self, id: u64, first: &[Outgoing], replayed: HashSet<Uuid>, presence: bool) {
        let mut state = locked(&self.state);
        let presence = presence.then(|| state.presence_state(id)).flatten();
        let Some(member) = state.members.get_mut(&id) else {
            return;
        };
        let held = member.held.take().unwrap_or_default();
        let (reply, rest) = first.split_at(first.len().min(1));
        let presence = presence.filter(|_| member.sees);
        for message in reply.iter().chain(&presence).chain(rest) {
            member.tell(message);
        }
        member.replayed = replayed;
        for (id, frame) in held {
            member.take(id, frame);
        }
    }

    /// Whether the join of a channel is not answered yet.
    pub fn is_held(&self, id: u64) -> bool {
        let state = locked(&self.state);
        state.members.get(&id).is_some_and(|member| member.held.is_some())
    }

    /// Removes a channel and what it showed.
    pub fn remove(&self, id: u64) {
        let mut state = locked(&self.state);
        let Some(member) = state.members.remove(&id) else {
            return;
        };
        let key = (member.topic, member.private);
        if let Some(topic) = state.topics.get_mut(&key) {
            topic.members.remove(&id);
            let diff = topic.presence.untrack(id);
            if topic.members.is_empty() {
                state.topics.remove(&key);
            } else if let Some(diff) = diff {
                state.show(&key, diff);
            }
        }
    }

    /// New claims after a token refresh.
    pub fn set_claims(&self, id: u64, claims: Arc<Claims>, hears: bool, sees: bool) {
        if let Some(member) = locked(&self.state).members.get_mut(&id) {
            (member.claims, member.hears, member.sees) = (claims, hears, sees);
        }
    }

    /// From now on the channel gets presence.
    pub fn set_sees(&self, id: u64, sees: bool) {
        if let Some(member) = locked(&self.state).members.get_mut(&id) {
            member.sees = sees;
        }
    }

    /// The row changes a channel gets.
    pub fn set_follows(&self, id: u64, follows: Arc<Vec<Follow>>) {
        if let Some(member) = locked(&self.state).members.get_mut(&id) {
            member.follows = follows;
        }
    }

    /// Sends something to one channel, if it is still there.
    pub fn tell(&self, id: u64, message: &Outgoing) {
        if let Some(member) = locked(&self.state).members.get_mut(&id) {
            member.tell(message);
        }
    }

    /// Sends a row change (JSON text) to one channel, if it is still there.
    pub fn tell_change(&self, id: u64, payload: String) {
        if let Some(member) = locked(&self.state).members.get_mut(&id) {
            let message = Outgoing::Raw {
                topic: format!("{PREFIX}{}", member.topic),
                event: "postgres_changes",
                payload,
            };
            member.tell(&message);
        }
    }

    /// Sends a broadcast to everybody joined to `topic` in that namespace, but not to `except`. `id`: of the message,
    /// so that nobody gets it who got it in a replay.
    pub fn broadcast(
        &self,
        (topic, private): (&str, bool),
        spoken: Spoken,
        id: Option<Uuid>,
        except: Option<u64>,
    ) {
        let mut state = locked(&self.state);
        let message = Outgoing::Broadcast {
            topic: format!("{PREFIX}{topic}"),
            spoken,
        };
        let key = (topic.to_owned(), private);
        state.tell_all(&key, &message, id, |who, member| {
            Some(who) != except && member.hears
        });
    }

    /// Sends a channel the presence of its topic.
    pub fn sync(&self, id: u64) {
        let mut state = locked(&self.state);
        let Some(message) = state.presence_state(id) else {
            return;
        };
        if let Some(member) = state.members.get_mut(&id).filter(|member| member.sees) {
            member.tell(&message);
        }
    }

    /// Shows `payload` for a channel and tells everybody who may know.
    pub fn track(&self, id: u64, key: &str, payload: &Map<String, Value>) -> Result<(), Full> {
        let mut state = locked(&self.state);
        let Some(place) = state.place(id) else {
            return Ok(());
        };
        if let Some(topic) = state.topics.get_mut(&place) {
            let diff = topic.presence.track(id, key, payload)?;
            state.show(&place, diff);
        }
        Ok(())
    }

    /// Shows nothing for a channel any more.
    pub fn untrack(&self, id: u64) {
        let mut state = locked(&self.state);
        let Some(place) = state.place(id) else { return };
        let topic = state.topics.get_mut(&place);
        if let Some(diff) = topic.and_then(|topic| topic.presence.untrack(id)) {
            state.show(&place, diff);
        }
    }

    /// Everybody who follows changes of any of `tables`.
    pub fn followers(&self, tables: &HashSet<u32>) -> Vec<Follower> {
        let state = locked(&self.state);
        let concerned = |member: &&Member| {
            let mut follows = member.follows.iter();
            follows.any(|follow| tables.contains(&follow.table))
        };
        state
            .members
            .iter()
            .filter(|(_, member)| concerned(member))
            .map(|(id, member)| Follower {
                id: *id,
                claims: member.claims.clone(),
                follows: member.follows.clone(),
            })
            .collect()
    }
}

impl State {
    fn place(&self, id: u64) -> Option<(String, bool)> {
        let member = self.members.get(&id)?;
        Some((member.topic.clone(), member.private))
    }

    fn presence_state(&self, id: u64) -> Option<Outgoing> {
        let place = self.place(id)?;
        let payload = self.topics.get(&place)?.presence.state();
        Some(pushed(&place.0, "presence_state", payload))
    }

    fn show(&mut self, place: &(String, bool), diff: Value) {
        let message = pushed(&place.0, "presence_diff", diff);
        self.tell_all(place, &message, None, |_, member| member.sees);
    }

    /// Encoded at most once per serializer, however many receive it.
    fn tell_all(
        &mut self,
        place: &(String, bool),
        message: &Outgoing,
        id: Option<Uuid>,
        chosen: impl Fn(u64, &Member) -> bool,
    ) {
        let Some(topic) = self.topics.get(place) else {
            return;
        };
        let mut frames: [Option<Option<Frame>>; 2] = [None, None];
        for who in &topic.members {
            let Some(member) = self.members.get_mut(who) else {
                continue;
            };
            if !chosen(*who, member) {
                continue;
            }
            let place = &mut frames[usize::from(member.version == Version::V2)];
            let frame = place.get_or_insert_with(|| codec::write(member.version, message));
            if let Some(frame) = frame {
                member.take(id, frame.clone());
            }
        }
    }
}

fn pushed(topic: &str, event: &'static str, payload: Value) -> Outgoing {
    Outgoing::Message {
        join_ref: None,
        reference: None,
        topic: format!("{PREFIX}{topic}"),
        event,
        payload,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::outbox::Waiting;
    use super::*;

    fn realtime() -> Realtime {
        Realtime::new(CancellationToken::new(), TaskTracker::new())
    }

    fn joined(realtime: &Realtime, private: bool) -> (u64, Waiting) {
        let (outbox, waiting) = Outbox::new();
        let claims = Arc::new(crate::identity::key_claims("anon"));
        let id = realtime.add(Member::new(outbox, Version::V2, "t", private, claims));
        realtime.release(id, &[], HashSet::new(), false);
        (id, waiting)
    }

    fn text(words: &str) -> Spoken {
        Spoken::Text(json!({"event": words}).to_string().into())
    }

    #[test]
    fn public_and_private_channels_of_one_name_do_not_hear_each_other() {
        let realtime = realtime();
        let (_, mut waiting) = joined(&realtime, false);
        realtime.broadcast(("t", true), text("a"), None, None);
        assert!(waiting.ready().is_none());
        realtime.broadcast(("t", false), text("b"), None, None);
        assert!(waiting.ready().is_some());
    }

    #[test]
    fn what_comes_before_the_answer_waits_and_what_was_replayed_does_not_come_again() {
        let realtime = realtime();
        let (outbox, mut waiting) = Outbox::new();
        let claims = Arc::new(crate::identity::key_claims("anon"));
        let id = realtime.add(Member::new(outbox, Version::V1, "t", true, claims));
        let (known, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for message in [known, new] {
            realtime.broadcast(("t", true), text(&message.to_string()), Some(message), None);
        }
        assert!(waiting.ready().is_none());
        let answer = pushed("t", "phx_reply", json!({}));
        realtime.release(id, &[answer], HashSet::from([known]), false);
        let said: Vec<String> = std::iter::from_fn(|| waiting.ready())
            .map(|frame| format!("{frame:?}"))
            .collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("phx_reply") && said[1].contains(&new.to_string()));
        realtime.broadcast(("t", true), text("again"), Some(known), None);
        assert!(waiting.ready().is_none());
    }

    #[test]
    fn whoever_goes_is_taken_off_the_topic_and_the_others_are_told() {
        let realtime = realtime();
        let (one, mut told) = joined(&realtime, true);
        let (two, _gone) = joined(&realtime, true);
        realtime.track(two, "k", &Map::new()).unwrap();
        assert!(
            told.ready()
                .is_some_and(|frame| format!("{frame:?}").contains("joins"))
        );
        realtime.remove(two);
        assert!(
            told.ready()
                .is_some_and(|frame| format!("{frame:?}").contains("leaves"))
        );
        realtime.remove(one);
        assert!(
            locked(&realtime.state).topics.is_empty(),
            "an empty topic is forgotten"
        );
    }

    #[test]
    fn places_are_limited_and_given_back() {
        let realtime = realtime();
        let most = realtime.settings().sockets_max;
        let places: Vec<Place> = (0..most).filter_map(|_| realtime.take_place()).collect();
        assert_eq!(places.len(), most);
        assert!(realtime.take_place().is_none());
        drop(places);
        assert!(realtime.take_place().is_some());
    }
}

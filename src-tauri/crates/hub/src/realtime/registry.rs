//! Who is joined where. Everything that is sent to more than one socket goes through here.
//!
//! Never waits: a socket whose queue is full is closed (1013), not waited for. Called by `socket`, `channel`,
//! `feed`, `changes` and `posts`.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::answers;
use super::changes::{Follow, Followed, Penalties};
use super::codec::{self, Frame, Outgoing, Spoken, Version};
use super::meter::Meter;
use super::outbox::{self, Outbox};
use super::places::Places;
use super::presence::{Full, Presence};
use super::settings::RealtimeSettings;
use crate::jwt::{Claims, Subject};

/// What all topics of clients begin with.
pub(crate) const PREFIX: &str = "realtime:";

/// Handshakes whose refusal may be held back at a time; more are answered at once.
const HELD_BACK_MAX: usize = 64;
/// Nudges that may wait for one socket: two for each of its channels, and some. A socket with more is closed.
pub(crate) const NUDGES_MAX: usize = 256;

/// Something that the socket of a channel has to see to; with the channel's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nudge {
    /// What its user may do has changed: the policies are to be asked again. It hears nothing until they have answered.
    Rights(u64),
    /// The database was too slow to say who may be told of a change: its row changes are to be followed anew.
    Behind(u64),
}

/// How a socket is reached.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// What is to be written to it.
    pub outbox: Outbox,
    /// What it has to see to.
    pub nudges: mpsc::Sender<Nudge>,
}

impl Line {
    fn nudge(&self, nudge: Nudge) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.nudges.try_send(nudge) {
            self.outbox.overflow();
        }
    }
}

/// What is kept back for a channel: each frame has its room in the socket's [`Outbox`].
type Kept = Vec<(Option<Uuid>, Frame)>;

/// One channel of one socket.
#[derive(Debug)]
pub(crate) struct Member {
    pub line: Line,
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
    held: Option<Kept>,
    /// What came since the rights of its user may have changed.
    paused: Option<Kept>,
    /// How often its user's rights may have changed.
    rights: u64,
    /// Its socket has been told that row changes are to be followed anew.
    behind: bool,
}

impl Member {
    /// A channel that gets nothing yet: what comes is held until [`Realtime::release`].
    pub fn new(line: Line, version: Version, topic: &str, private: bool, claims: Arc<Claims>) -> Member {
        Member {
            line,
            version,
            topic: topic.to_owned(),
            private,
            claims,
            hears: true,
            sees: true,
            follows: Arc::default(),
            replayed: HashSet::new(),
            held: Some(Vec::new()),
            paused: None,
            rights: 0,
            behind: false,
        }
    }

    /// `id`: of the message, where it has one.
    fn take(&mut self, id: Option<Uuid>, frame: Frame) {
        if id.is_some_and(|id| self.replayed.contains(&id)) {
            return;
        }
        let outbox = &self.line.outbox;
        match self.held.as_mut().or(self.paused.as_mut()) {
            None => outbox.push(frame),
            Some(kept) if kept.len() >= outbox::FRAMES_MAX => outbox.overflow(),
            Some(kept) => {
                if outbox.reserve(frame.len()) {
                    kept.push((id, frame));
                }
            }
        }
    }

    /// Hears nothing until its socket has asked the policies again.
    fn pause(&mut self, id: u64) {
        self.rights += 1;
        if self.paused.is_none() {
            self.paused = Some(Kept::new());
            self.line.nudge(Nudge::Rights(id));
        }
    }

    /// Takes what was kept once more, now that it is not kept for that reason any more.
    fn take_again(&mut self, kept: Kept) {
        for (id, frame) in kept {
            self.line.outbox.give_back(frame.len());
            self.take(id, frame);
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

/// What is kept for a channel that ends is sent to nobody.
impl Drop for Member {
    fn drop(&mut self) {
        for (_, frame) in self.held.iter().chain(&self.paused).flatten() {
            self.line.outbox.give_back(frame.len());
        }
    }
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
    /// Who takes up how much.
    pub places: Arc<Places>,
    settings: Mutex<Arc<RealtimeSettings>>,
    /// Counts changes of the settings' switches: sockets that see it change end.
    pub switched: watch::Sender<u64>,
    /// Counts changes of what is published: subscriptions to row changes are made again.
    pub published: watch::Sender<u64>,
    /// Whether the database's feed is connected.
    pub feed: watch::Sender<bool>,
    /// Tables whose every change is captured from now on.
    pub settled: Mutex<HashSet<u32>>,
    /// Whose filters the database compares no more for a while.
    pub penalties: Penalties,
    /// Handshakes whose refusal is held back.
    pub held_back: Semaphore,
    posts: Mutex<Meter>,
    /// Counts what the database says about rights that have changed: a join that began before asks once more.
    rights: AtomicU64,
    /// Cancelled when the hub stops.
    pub stop: CancellationToken,
    restart: Mutex<CancellationToken>,
    pub tasks: TaskTracker,
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
            places: Arc::default(),
            settings: Mutex::default(),
            switched: watch::Sender::new(0),
            published: watch::Sender::new(0),
            feed: watch::Sender::new(true),
            settled: Mutex::default(),
            penalties: Penalties::default(),
            held_back: Semaphore::new(HELD_BACK_MAX),
            posts: Mutex::default(),
            rights: AtomicU64::new(0),
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
        // The answer itself says nothing of the topic: it waits for nobody's rights.
        for frame in reply.iter().filter_map(|one| codec::write(member.version, one)) {
            member.line.outbox.push(frame);
        }
        let presence = presence.filter(|_| member.sees);
        for message in presence.iter().chain(rest) {
            member.tell(message);
        }
        member.replayed = replayed;
        member.take_again(held);
    }

    /// Whether the join of a channel is not answered yet.
    pub fn is_held(&self, id: u64) -> bool {
        let state = locked(&self.state);
        state.members.get(&id).is_some_and(|member| member.held.is_some())
    }

    /// Removes a channel and what it showed.
    pub fn remove(&self, id: u64) {
        let mut state = locked(&self.state);
        let Some(mut member) = state.members.remove(&id) else {
            return;
        };
        let key = (std::mem::take(&mut member.topic), member.private);
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

    /// What the policies have said about a channel under the claims it has.
    pub fn set_reads(&self, id: u64, hears: bool, sees: bool) {
        if let Some(member) = locked(&self.state).members.get_mut(&id) {
            (member.hears, member.sees) = (hears, sees);
        }
    }

    /// New claims, about which the policies were asked when the count was `rights`: if it is another now, they are asked
    /// again. Whose rights change is found by his claims, and these were not here yet.
    pub fn set_claims(&self, id: u64, claims: Arc<Claims>, (hears, sees): (bool, bool), rights: u64) {
        let mut state = locked(&self.state);
        let Some(member) = state.members.get_mut(&id) else {
            return;
        };
        (member.claims, member.hears, member.sees) = (claims, hears, sees);
        if member.private && rights != self.rights() {
            member.pause(id);
        }
    }

    /// How often the database has said so far that rights have changed.
    pub fn rights(&self) -> u64 {
        self.rights.load(Ordering::Acquire)
    }

    /// What `user` may do has changed (nobody: what anybody may do). His private channels hear nothing from now on until
    /// the policies have been asked again.
    pub fn rights_changed(&self, user: Option<Uuid>) {
        let mut state = locked(&self.state);
        // Under the lock: whoever joins sees either the new count or is found below.
        self.rights.fetch_add(1, Ordering::AcqRel);
        for (id, member) in &mut state.members {
            if member.private && (user.is_none() || user == member.claims.user()) {
                member.pause(*id);
            }
        }
    }

    /// A channel was let in by policies that were asked when the count was `rights`: if it is another now, they are asked
    /// again.
    pub fn pause_if_changed(&self, id: u64, rights: u64) {
        let mut state = locked(&self.state);
        if rights != self.rights()
            && let Some(member) = state.members.get_mut(&id).filter(|member| member.private)
        {
            member.pause(id);
        }
    }

    /// The count of the changes of rights for one channel, if it waits for an answer about them.
    pub fn paused(&self, id: u64) -> Option<u64> {
        let state = locked(&self.state);
        let member = state.members.get(&id)?;
        member.paused.as_ref().map(|_| member.rights)
    }

    /// The policies have said that a channel may go on, asked when its count was `rights`. False when the rights have
    /// changed again meanwhile: then it waits on.
    pub fn resume(&self, id: u64, rights: u64) -> bool {
        let mut state = locked(&self.state);
        let Some(member) = state.members.get_mut(&id) else {
            return true;
        };
        if member.rights != rights {
            return false;
        }
        let kept = member.paused.take().unwrap_or_default();
        member.take_again(kept);
        true
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
            member.behind = false;
        }
    }

    /// Follows no more what `ends` says; the channel is told `message` if there was any such.
    pub fn end_follows(&self, id: u64, ends: impl Fn(&Follow) -> bool, message: &str) {
        let mut state = locked(&self.state);
        let Some(member) = state.members.get_mut(&id) else {
            return;
        };
        let left: Vec<Follow> = member.follows.iter().filter(|one| !ends(one)).cloned().collect();
        if left.len() < member.follows.len() {
            member.follows = Arc::new(left);
            let topic = format!("{PREFIX}{}", member.topic);
            member.tell(&answers::system(&topic, "postgres_changes", "error", message));
        }
    }

    /// A channel has missed row changes, and is told `message`: it follows nothing until its socket has seen to it.
    pub fn fall_behind(&self, id: u64, message: &str) {
        let mut state = locked(&self.state);
        let Some(member) = state.members.get_mut(&id) else {
            return;
        };
        member.follows = Arc::default();
        if !member.behind {
            member.behind = true;
            let topic = format!("{PREFIX}{}", member.topic);
            member.tell(&answers::system(&topic, "postgres_changes", "error", message));
            member.line.nudge(Nudge::Behind(id));
        }
    }

    /// Sends something to one channel, if it is still there.
    pub fn tell(&self, id: u64, message: &Outgoing) {
        if let Some(member) = locked(&self.state).members.get_mut(&id) {
            member.tell(message);
        }
    }

    /// Sends a row change (JSON text) to one channel. False when it takes no more: it is gone, or its socket is too slow.
    pub fn tell_change(&self, id: u64, payload: String) -> bool {
        let mut state = locked(&self.state);
        let Some(member) = state.members.get_mut(&id) else {
            return false;
        };
        let message = Outgoing::Raw {
            topic: format!("{PREFIX}{}", member.topic),
            event: "postgres_changes",
            payload,
        };
        member.tell(&message);
        !member.line.outbox.is_overflowing()
    }

    /// Whether anything can still be told to a channel.
    pub fn takes_more(&self, id: u64) -> bool {
        let state = locked(&self.state);
        let member = state.members.get(&id);
        member.is_some_and(|member| !member.line.outbox.is_overflowing())
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

    /// All who follow row changes have missed some: see [`Realtime::fall_behind`].
    pub fn all_fall_behind(&self, message: &str) {
        let followers: Vec<u64> = {
            let state = locked(&self.state);
            let all = state.members.iter();
            all.filter(|(_, member)| !member.follows.is_empty())
                .map(|(id, _)| *id)
                .collect()
        };
        for id in followers {
            self.fall_behind(id, message);
        }
    }

    /// How much `subject` follows on all channels but one.
    pub fn followed_by(&self, subject: &Subject, but: u64) -> Followed {
        let state = locked(&self.state);
        let mut followed = Followed::default();
        for (id, member) in &state.members {
            if *id != but && !member.follows.is_empty() && member.claims.subject() == *subject {
                followed.add(&member.follows);
            }
        }
        followed
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
mod tests;

//! One WebSocket: reads frames, answers, and writes what others send it.
//!
//! One task reads and writes at the same time, so that a question to the database delays no frame that waits to be
//! written. It ends when the client goes, is silent for too long, reads too slowly (1013), or the hub stops (1012, and
//! then without `phx_close`, or official clients would not come back). Called by `routes`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};
use uuid::Uuid;

use super::answers::{self, refusal, reply};
use super::channel::{Channel, Meters, Outcome, Rights};
use super::codec::{self, Content, Frame, Incoming, Outgoing, Version};
use super::join::{self, From, Joined, Note, Notes, Verdict};
use super::outbox::{Outbox, Waiting};
use super::places::{Place, Seat};
use super::registry::{Line, NUDGES_MAX, Nudge, PREFIX};
use super::subscription::Begin;
use super::wire::{Broken, Wire};
use crate::http::Shared;
use crate::jwt::Claims;

/// How long one frame may take to be written.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// How long what waits may take to be written, and the client to answer the close frame.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// Refusals that may wait at a time; a socket with more is closed.
const REFUSALS_MAX: usize = 100;
/// Notes of a socket's own tasks that may wait.
const NOTES_MAX: usize = 64;
/// Users one socket may have channels of.
const USERS_MAX: usize = 16;
/// Longest topic with its prefix, in bytes: what the one-byte lengths of binary frames can say.
pub(crate) const TOPIC_BYTES_MAX: usize = 255;
/// Largest frame of a join, in bytes.
const JOIN_BYTES_MAX: usize = 64 * 1024;

/// Close codes.
const CLOSE_NORMAL: u16 = 1000;
const CLOSE_AWAY: u16 = 1001;
const CLOSE_TOO_LARGE: u16 = 1009;
const CLOSE_RESTART: u16 = 1012;
const CLOSE_OVERFLOW: u16 = 1013;

/// Why a socket ends.
enum End {
    /// The client is gone, or cannot be written to.
    Gone,
    /// We close, with code and reason.
    Close(u16, &'static str),
    /// The same within a message that is read no further.
    Cut(u16, &'static str),
}

/// The side that reads.
struct Socket {
    shared: Arc<Shared>,
    version: Version,
    claims: Arc<Claims>,
    line: Line,
    place: Arc<Place>,
    /// For whom it counts.
    seats: HashMap<Uuid, Seat>,
    channels: HashMap<String, Channel>,
    refusals: VecDeque<(Instant, Outgoing)>,
    meters: Meters,
    notes: Notes,
    /// Since when there is no channel.
    empty: Instant,
}

/// What wakes a socket besides its client.
struct Signals {
    notes: mpsc::Receiver<Box<Note>>,
    nudges: mpsc::Receiver<Nudge>,
    switched: watch::Receiver<u64>,
    published: watch::Receiver<u64>,
}

/// Serves one socket until it ends.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    wire: Wire,
    (version, claims): (Version, Claims),
    place: Arc<Place>,
) {
    let (mut sink, mut stream) = wire.split();
    let (outbox, mut waiting) = Outbox::new();
    let (notes, received) = mpsc::channel(NOTES_MAX);
    let (nudges, nudged) = mpsc::channel(NUDGES_MAX);
    let realtime = &shared.realtime;
    let signals = Signals {
        notes: received,
        nudges: nudged,
        switched: realtime.switched.subscribe(),
        published: realtime.published.subscribe(),
    };
    let closing = realtime.closing();
    let mut socket = Socket {
        shared: shared.clone(),
        version,
        claims: Arc::new(claims),
        line: Line { outbox, nudges },
        place,
        seats: HashMap::new(),
        channels: HashMap::new(),
        refusals: VecDeque::new(),
        meters: Meters::default(),
        notes,
        empty: Instant::now(),
    };
    let overflow = waiting.overflow.clone();
    shared.metrics.sockets.inc();
    let end = tokio::select! {
        biased;
        () = closing.cancelled() => End::Close(CLOSE_RESTART, "the hub is restarting"),
        () = overflow.cancelled() => End::Close(CLOSE_OVERFLOW, "too slow"),
        end = write(&shared, &mut sink, &mut waiting) => end,
        end = socket.read(&mut stream, signals) => end,
    };
    shared.metrics.sockets.dec();
    socket.end_all();
    let (code, reason, is_cut) = match end {
        End::Gone => return,
        End::Close(code, reason) => (code, reason, false),
        End::Cut(code, reason) => (code, reason, true),
    };
    if code == CLOSE_OVERFLOW {
        shared.metrics.sockets_cut_off.inc();
    }
    // What was said before belongs before the close; whoever was too slow gets no more of it.
    let last = async {
        let frame = CloseFrame {
            code: code.into(),
            reason: reason.into(),
        };
        let said = farewell(&mut sink, &mut stream, waiting, frame).await;
        // Nor does who is cut off within a message see why before he has got rid of the rest of it.
        if said
            && is_cut
            && let Ok(mut wire) = sink.reunite(stream)
        {
            wire.get_mut().discard().await;
        }
    };
    if timeout(FAREWELL_MAX, last).await.is_err() {
        tracing::debug!(code, "a socket did not take its close frame");
    }
}

/// Writes what waits until it cannot.
async fn write(shared: &Shared, sink: &mut SplitSink<Wire, Message>, waiting: &mut Waiting) -> End {
    while let Some(frame) = waiting.next().await {
        let length = frame.len();
        match timeout(WRITE_MAX, sink.send(message(frame))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return End::Gone,
            Err(_) => return End::Close(CLOSE_OVERFLOW, "too slow"),
        }
        waiting.written(length);
        shared.metrics.messages.inc();
    }
    End::Gone
}

/// Says what waits, then why it ends; false when that could not be written.
async fn farewell(
    sink: &mut SplitSink<Wire, Message>,
    stream: &mut SplitStream<Wire>,
    mut waiting: Waiting,
    frame: CloseFrame,
) -> bool {
    let slow = u16::from(frame.code) == CLOSE_OVERFLOW;
    while let Some(frame) = waiting.ready().filter(|_| !slow) {
        if sink.feed(message(frame)).await.is_err() {
            return false;
        }
    }
    if sink.send(Message::Close(Some(frame))).await.is_err() {
        return false;
    }
    // A connection that is closed with unread bytes may take the close frame with it.
    while let Some(Ok(_)) = stream.next().await {}
    true
}

fn message(frame: Frame) -> Message {
    match frame {
        Frame::Text(text) => Message::Text(text),
        Frame::Binary(bytes) => Message::Binary(bytes),
    }
}

impl Socket {
    async fn read(&mut self, stream: &mut SplitStream<Wire>, mut signals: Signals) -> End {
        let mut heard = Instant::now();
        loop {
            let settings = self.shared.realtime.settings();
            let silent = heard + settings.idle_max;
            let refusal = self.refusals.front().map_or(silent, |(due, _)| *due);
            let every = settings.token_check;
            let tokens = self
                .channels
                .values()
                .map(|one| one.token_due(&self.shared, every));
            let tokens = tokens.min().unwrap_or(silent);
            let crowded = self.shared.realtime.places.is_crowded(&settings);
            let channelless = self.empty
                + if crowded {
                    settings.channelless_crowded_max.min(settings.channelless_max)
                } else {
                    settings.channelless_max
                };
            let step = tokio::select! {
                frame = stream.next() => match frame {
                    Some(Ok(message)) => {
                        // Pings within a message that does not end are no sign of life.
                        if self.is_between(&message) {
                            heard = Instant::now();
                        }
                        self.hear(message).await
                    }
                    Some(Err(error)) => Err(broken(&error)),
                    None => Err(End::Gone),
                },
                Some(note) = signals.notes.recv() => self.note(*note),
                Some(nudge) = signals.nudges.recv() => self.nudged(nudge).await,
                Ok(()) = signals.switched.changed() => Err(self.switched()),
                Ok(()) = signals.published.changed() => { self.published(); Ok(()) }
                () = sleep_until(tokens), if !self.channels.is_empty() => { self.check_tokens(every).await; Ok(()) }
                () = sleep_until(refusal), if !self.refusals.is_empty() => { self.refuse_due(); Ok(()) }
                () = sleep_until(silent) => Err(End::Close(CLOSE_NORMAL, "the client was silent for too long")),
                () = sleep_until(channelless), if self.channels.is_empty() => {
                    Err(End::Close(CLOSE_AWAY, "no channel was joined"))
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    fn say(&self, message: &Outgoing) {
        if let Some(frame) = codec::write(self.version, message) {
            self.line.outbox.push(frame);
        }
    }

    /// Whether nothing is left of what came up to now, but for this.
    fn is_between(&self, message: &Message) -> bool {
        if let Message::Ping(content) | Message::Pong(content) = message {
            return self.place.is_control(content.len());
        }
        self.place.is_whole();
        true
    }

    async fn hear(&mut self, message: Message) -> Result<(), End> {
        let (size, read) = match message {
            Message::Text(text) => (text.len(), codec::read_text(self.version, text.as_str())),
            Message::Binary(bytes) if self.version == Version::V2 => {
                (bytes.len(), codec::read_binary(&bytes))
            }
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(()),
            Message::Close(_) => return Err(End::Gone),
        };
        match read {
            Ok(incoming) => self.answer(incoming, size).await,
            Err(fault) => {
                tracing::debug!(%fault, "a frame was not understood");
                Ok(())
            }
        }
    }

    /// `size`: of the frame, in bytes.
    async fn answer(&mut self, incoming: Incoming, size: usize) -> Result<(), End> {
        let topic_fault = (incoming.topic.len() > TOPIC_BYTES_MAX)
            .then(|| format!("the topic is longer than {TOPIC_BYTES_MAX} bytes"));
        match (incoming.topic.as_str(), incoming.event.as_str(), topic_fault) {
            (_, _, Some(fault)) => self.say(&refusal(&incoming, &fault)),
            ("phoenix", "heartbeat", _) => self.say(&reply(&incoming, "ok", json!({}))),
            (_, "phx_join", _) if size > JOIN_BYTES_MAX => {
                let reason = format!("PayloadTooLarge: a join has at most {JOIN_BYTES_MAX} bytes");
                return self.refuse(&incoming, &reason);
            }
            (_, "phx_join", _) => return self.join(incoming).await,
            (_, "phx_leave", _) => self.leave(&incoming),
            // Whoever has joined nothing has nothing long to say.
            _ if size > JOIN_BYTES_MAX && self.channels.is_empty() => {
                return Err(End::Close(CLOSE_TOO_LARGE, "the frame is too large"));
            }
            _ => self.push(incoming, size).await,
        }
        Ok(())
    }

    /// A push to a channel of this socket. A missing or old `join_ref` does not matter.
    async fn push(&mut self, mut incoming: Incoming, size: usize) {
        let shared = &self.shared;
        // What may ask the policies.
        let _turn = self.place.turn().await;
        let Some(channel) = self.channels.get_mut(&incoming.topic) else {
            return self.say(&refusal(&incoming, "unmatched topic"));
        };
        let content = std::mem::replace(&mut incoming.content, Content::Json(Value::Null));
        let meters = &mut self.meters;
        let outcome = match (incoming.event.as_str(), content) {
            ("access_token", Content::Json(payload)) => channel.new_token(shared, &payload).await,
            ("presence", Content::Json(payload)) => channel.presence(shared, meters, &payload).await,
            ("broadcast", content) => channel.broadcast(shared, meters, content, size).await,
            _ => Outcome::Nothing,
        };
        match outcome {
            Outcome::Nothing => self.seat(&incoming.topic),
            Outcome::Reply(status, response) => self.say(&reply(&incoming, status, response)),
            Outcome::Expel(reason) => self.expel(&incoming.topic, &reason),
        }
    }

    async fn join(&mut self, incoming: Incoming) -> Result<(), End> {
        let Some(topic) = incoming.topic.strip_prefix(PREFIX).map(str::to_owned) else {
            self.say(&refusal(&incoming, "unmatched topic"));
            return Ok(());
        };
        if topic.is_empty() {
            return self.refuse(&incoming, "TopicNameRequired: You must provide a topic name");
        }
        if let Some(old) = self.drop_channel(&incoming.topic) {
            self.say(&answers::closed(&incoming.topic, old.join_ref));
        }
        let (shared, allowed) = (self.shared.clone(), self.shared.realtime.settings());
        let (now, rate) = (Instant::now(), allowed.joins_per_second);
        if !self.meters.joins.take(1, rate, allowed.rate_window, now) {
            let reason = "ClientJoinRateLimitReached: Too many joins per second";
            self.say(&refusal(&incoming, reason));
            return Err(End::Close(CLOSE_AWAY, "too many joins per second"));
        }
        if self.channels.len() >= allowed.channels_max {
            return self.refuse(&incoming, "ChannelRateLimitReached: Too many channels");
        }
        let payload = match &incoming.content {
            Content::Json(payload) => payload.clone(),
            Content::Broadcast { .. } | Content::Bytes(_) => Value::Null,
        };
        let from = From {
            shared: &shared,
            line: &self.line,
            version: self.version,
            claims: &self.claims,
        };
        let joined = {
            let _turn = self.place.turn().await;
            join::join(&from, &allowed, &topic, &incoming, &payload).await
        };
        match joined {
            Ok(Joined { channel, .. }) if !self.has_seat(channel.claims.user()) => {
                shared.realtime.remove(channel.id);
                self.refuse(&incoming, "ConnectionRateLimitReached: Too many connected users")
            }
            Ok(Joined { mut channel, answer }) => {
                answer.give(&shared, &mut channel, &incoming, &self.notes);
                self.channels.insert(incoming.topic, channel);
                shared.metrics.channels.inc();
                Ok(())
            }
            Err(reason) => self.refuse(&incoming, &reason),
        }
    }

    /// Later, so that clients which try again at once do not hammer.
    fn refuse(&mut self, incoming: &Incoming, reason: &str) -> Result<(), End> {
        self.shared.metrics.joins_refused.inc();
        if self.refusals.len() >= REFUSALS_MAX {
            return Err(End::Close(CLOSE_AWAY, "too many joins were refused"));
        }
        let due = Instant::now() + self.shared.realtime.settings().refusal_delay;
        self.refusals.push_back((due, refusal(incoming, reason)));
        Ok(())
    }

    fn refuse_due(&mut self) {
        if let Some((_, refusal)) = self.refusals.pop_front() {
            self.say(&refusal);
        }
    }

    /// Answered in any case; ended only what there is.
    fn leave(&mut self, incoming: &Incoming) {
        self.say(&reply(incoming, "ok", json!({})));
        if let Some(channel) = self.drop_channel(&incoming.topic) {
            self.say(&answers::closed(&incoming.topic, channel.join_ref));
        }
    }

    /// Whether this socket counts, or may count from now on, for `user`.
    fn has_seat(&mut self, user: Option<Uuid>) -> bool {
        let Some(user) = user.filter(|user| !self.seats.contains_key(user)) else {
            return true;
        };
        if self.seats.len() >= USERS_MAX {
            return false;
        }
        let realtime = &self.shared.realtime;
        let seat = realtime.places.seat(user, &realtime.settings());
        seat.map(|seat| self.seats.insert(user, seat)).is_some()
    }

    /// After a push that may have brought a channel another user.
    fn seat(&mut self, topic: &str) {
        let user = self.channels.get(topic).and_then(|channel| channel.claims.user());
        if !self.has_seat(user) {
            self.expel(topic, "Too many connected users");
        }
    }

    fn drop_channel(&mut self, topic: &str) -> Option<Channel> {
        let channel = self.channels.remove(topic)?;
        self.shared.realtime.remove(channel.id);
        self.shared.metrics.channels.dec();
        if self.channels.is_empty() {
            self.empty = Instant::now();
        }
        Some(channel)
    }

    fn end_all(&mut self) {
        let topics: Vec<String> = self.channels.keys().cloned().collect();
        for topic in topics {
            self.drop_channel(&topic);
        }
    }

    /// `system` error, then `phx_close`.
    fn expel(&mut self, topic: &str, reason: &str) {
        if let Some(channel) = self.drop_channel(topic) {
            self.say(&answers::system(topic, "system", "error", reason));
            self.say(&answers::closed(topic, channel.join_ref));
        }
    }

    fn note(&mut self, note: Note) -> Result<(), End> {
        let topic = note.incoming.topic.clone();
        // The topic may have been joined again since.
        if self
            .channels
            .get(&topic)
            .is_none_or(|channel| channel.id != note.id)
        {
            return Ok(());
        }
        match note.verdict {
            Verdict::Refuse(reason) => {
                self.drop_channel(&topic);
                self.refuse(&note.incoming, &reason)
            }
            Verdict::Expel(reason) => {
                self.expel(&topic, &reason);
                Ok(())
            }
        }
    }

    /// The hub has something to see to at one channel.
    async fn nudged(&mut self, nudge: Nudge) -> Result<(), End> {
        let (Nudge::Rights(id) | Nudge::Behind(id)) = nudge;
        let Some((topic, channel)) = self.channels.iter_mut().find(|(_, one)| one.id == id) else {
            return Ok(());
        };
        if let Nudge::Behind(_) = nudge {
            channel.subscribe(&self.shared, Begin::AfterPause);
            return Ok(());
        }
        let _turn = self.place.turn().await;
        while let Some(rights) = self.shared.realtime.paused(id) {
            match channel.check_rights(&self.shared).await {
                Rights::Kept if self.shared.realtime.resume(id, rights) => break,
                // They have changed again meanwhile.
                Rights::Kept => {}
                Rights::Lost(reason) => {
                    let topic = topic.clone();
                    self.expel(&topic, &reason);
                    break;
                }
                // Whoever comes back is judged by a join.
                Rights::Unknown => {
                    return Err(End::Close(CLOSE_RESTART, "the policies could not be asked"));
                }
            }
        }
        Ok(())
    }

    /// Ends the channels whose token has run out or is no longer good.
    async fn check_tokens(&mut self, every: Duration) {
        let mut ended = Vec::new();
        for (topic, channel) in &mut self.channels {
            let _turn = self.place.turn().await;
            if let Err(reason) = channel.check_token(&self.shared, every).await {
                ended.push((topic.clone(), reason));
            }
        }
        for (topic, reason) in ended {
            self.expel(&topic, &reason);
        }
    }

    /// What is published has changed: what is followed is asked for again.
    fn published(&mut self) {
        for channel in self.channels.values_mut() {
            channel.subscribe(&self.shared, Begin::Now);
        }
    }

    /// The hub's rules have changed: clients come back and are judged by the new ones.
    fn switched(&mut self) -> End {
        for topic in self.channels.keys() {
            self.say(&answers::system(
                topic,
                "system",
                "ok",
                "Server requested disconnect",
            ));
        }
        End::Close(CLOSE_RESTART, "Server requested disconnect")
    }
}

/// A message that is not read to its end is said why; anything else ended the connection.
fn broken(error: &tungstenite::Error) -> End {
    match Broken::of(error) {
        Broken::TooLarge => End::Cut(CLOSE_TOO_LARGE, "the frame is too large"),
        Broken::NoRoom => End::Cut(CLOSE_OVERFLOW, "too much comes from this network"),
        Broken::Off => End::Gone,
    }
}

//! What is said over one open socket, as a machine without a socket: frames, answers and moments go in; frames to
//! send, wishes (a token, a ring of the doorbell) and the end come out.
//!
//! Reads no clock, waits for nothing, sends nothing: [`super::socket`] does, and so does the simulation, with a clock
//! and a network of its own. After each input the caller lets it [`settle`](Talk::settle), then sends what
//! [`next_frame`](Talk::next_frame) gives and does what it wishes.

use std::collections::VecDeque;
use std::time::Duration;

use domain::OfficeId;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::backoff::Dice;
use super::channel::{Around, Channel, RingFault, Trouble};
use super::codec::{Frame, PHOENIX};
use super::course::TICK;
use super::moment::{JumpWatch, Moment};
use super::outlet::Outlet;
use super::patience::Patience;
use super::phase::{ChannelEvent, Phase};
use super::supervisor::Wish;
use super::{ConnectionState, Topic};
use crate::auth::AuthError;

/// Between one heartbeat and the next. The server closes after 60 s without a word from us.
pub(super) const HEARTBEAT_EVERY: Duration = Duration::from_secs(25);
/// Longest wait for its answer: a half-open connection gives no other sign.
pub(super) const HEARTBEAT_ANSWER_MAX: Duration = Duration::from_secs(10);
/// The same when there is a reason to doubt the connection (wake from sleep, another network).
pub(super) const PROBE_ANSWER_MAX: Duration = Duration::from_secs(4);
/// Most that the wait for a heartbeat's answer grows to on a slow line: the next one must go out within the server's 60 s.
const HEARTBEAT_ANSWER_PATIENT: Duration = Duration::from_secs(30);
/// Nothing heard at all for this much longer than the heartbeat may take: dead, whatever the heartbeat says.
const SILENCE_SPARE: Duration = Duration::from_secs(10);
/// Longest wait for the answer to a join.
const JOIN_ANSWER_MAX: Duration = Duration::from_secs(10);
/// A planned new socket comes before the service's own limit of 24 h …
const AGE_MAX: Duration = Duration::from_secs(20 * 3600);
/// … spread over this.
const AGE_SPREAD: Duration = Duration::from_secs(3 * 3600);
/// What our own ring is called, and those of other clients.
const PROOF_EVENT: &str = "proof";

/// What the end of a conversation asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndKind {
    /// It was asked for, or nobody listens.
    Stopped,
    /// The session is over.
    SignedOut,
    /// Something broke.
    Failed,
    /// The server restarts: come back, but not all at once.
    ServerRestarts,
    /// Nothing broke; come back at once.
    Soon,
}

/// The reason to stop talking.
pub(super) type Stopping = (EndKind, String);

/// A heartbeat under way.
struct Beat {
    reference: String,
    sent: Instant,
    /// How long its answer may take.
    limit: Duration,
}

/// All that is said over one socket.
pub(super) struct Talk {
    channels: Vec<Channel>,
    token: String,
    /// A token is being fetched.
    token_under_way: bool,
    /// What kind is wanted next.
    token_wish: Option<Wish>,
    /// The request under way is for another token than the present one.
    wants_other: bool,
    clocks: JumpWatch,
    next_reference: u64,
    heartbeat_at: Instant,
    heartbeat: Option<Beat>,
    last_frame: Instant,
    tick_at: Instant,
    retire_at: Instant,
    live_since: Option<Instant>,
    /// To be sent. Taken out after every input; at most a few frames per channel come of one.
    out: VecDeque<Frame>,
}

impl Talk {
    pub(super) fn new(topics: &[Topic], token: String, now: Moment, dice: &mut Dice) -> Talk {
        Talk {
            channels: topics.iter().map(Channel::new).collect(),
            token,
            token_under_way: false,
            token_wish: None,
            wants_other: false,
            clocks: JumpWatch::new(now),
            next_reference: 1,
            heartbeat_at: now.at + HEARTBEAT_EVERY,
            heartbeat: None,
            last_frame: now.at,
            tick_at: now.at + TICK,
            retire_at: now.at + AGE_MAX + dice.upto(AGE_SPREAD),
            live_since: None,
            out: VecDeque::new(),
        }
    }

    // ---- what comes out

    /// Draws the conclusions of the last input: joins, tells tokens, tells the state.
    pub(super) fn settle(&mut self, now: Moment, around: &mut Around<'_>) {
        self.join_what_is_ready(now, *around.patience);
        self.tell_token();
        if !self.token_under_way && self.channels.iter().any(|channel| channel.needs_token) {
            self.token_wish = Some(Wish::OtherThan(self.token.clone()));
        }
        self.tell_state(now, around.outlet);
    }

    /// The next frame to send.
    pub(super) fn next_frame(&mut self) -> Option<Frame> {
        self.out.pop_front()
    }

    /// The token to fetch, if any; its answer goes to [`Talk::token_came`].
    pub(super) fn wanted_token(&mut self) -> Option<Wish> {
        if self.token_under_way {
            return None;
        }
        let wish = self.token_wish.take()?;
        self.token_under_way = true;
        self.wants_other = matches!(wish, Wish::OtherThan(_));
        Some(wish)
    }

    /// The doorbell to ring, if any; its answer goes to [`Talk::rang`].
    pub(super) fn wanted_ring(&mut self, now: Moment, dice: &mut Dice) -> Option<(OfficeId, Uuid)> {
        self.channels
            .iter_mut()
            .find_map(|channel| channel.ring(now, dice))
    }

    /// When [`Talk::time_passed`] has something to do.
    pub(super) fn next_wake(&self) -> Instant {
        let heartbeat = self
            .heartbeat
            .as_ref()
            .map_or(self.heartbeat_at, |beat| beat.sent + beat.limit);
        let channels = self.channels.iter().flat_map(|channel| {
            // A failed channel that waits for a token is woken by the token.
            [
                channel.due.filter(|_| !channel.needs_token),
                channel.reconcile_at,
                channel.proof_due(),
            ]
            .into_iter()
            .flatten()
        });
        channels.fold(heartbeat.min(self.tick_at), Instant::min)
    }

    /// For how long every topic has been live.
    pub(super) fn live_for(&self, now: Moment) -> Duration {
        self.live_since
            .map(|since| now.at.saturating_duration_since(since))
            .unwrap_or_default()
    }

    fn push(&mut self, join_ref: Option<&str>, topic: &str, event: &str, payload: Value) -> String {
        let reference = self.reference();
        self.out
            .push_back(Frame::push(join_ref, &reference, topic, event, payload));
        reference
    }

    fn reference(&mut self) -> String {
        let reference = self.next_reference.to_string();
        self.next_reference += 1;
        reference
    }

    fn join_what_is_ready(&mut self, now: Moment, patience: Patience) {
        for index in 0..self.channels.len() {
            if self.channels[index].phase != Phase::Ready || self.channels[index].needs_token {
                continue;
            }
            let join_ref = self.reference();
            let channel = &mut self.channels[index];
            let payload = channel.join_payload(&self.token);
            self.out.push_back(Frame::push(
                Some(&join_ref),
                &join_ref,
                &channel.wire_topic,
                "phx_join",
                payload,
            ));
            channel.said = None;
            channel.token.clone_from(&self.token);
            channel.phase = channel.phase.after(&ChannelEvent::JoinSent { join_ref });
            channel.join_sent = Some(now.at);
            channel.due = Some(now.at + patience.limit(JOIN_ANSWER_MAX));
        }
    }

    /// Tells every joined channel the token if it has another one; each checks the user's rights with it again.
    fn tell_token(&mut self) {
        for index in 0..self.channels.len() {
            let channel = &self.channels[index];
            if !channel.phase.is_joined() || channel.token == self.token {
                continue;
            }
            let join_ref = channel.phase.join_ref().map(str::to_owned);
            let topic = channel.wire_topic.clone();
            let payload = json!({"access_token": self.token});
            self.push(join_ref.as_deref(), &topic, "access_token", payload);
            self.channels[index].token.clone_from(&self.token);
        }
    }

    /// The worst channel is what people are told.
    fn tell_state(&mut self, now: Moment, outlet: &mut Outlet) {
        let troubled = |wanted: bool| {
            self.channels.iter().find_map(move |channel| {
                let trouble = channel
                    .trouble
                    .as_ref()
                    .filter(|trouble| trouble.permanent == wanted)?;
                matches!(channel.phase, Phase::Failed(_) | Phase::Proving { .. })
                    .then_some((channel, trouble))
            })
        };
        let is_live = |channel: &Channel| matches!(channel.phase, Phase::Live { .. });
        let state = match troubled(true).or_else(|| troubled(false)) {
            Some((
                channel,
                Trouble {
                    why,
                    until_ms,
                    permanent,
                },
            )) => ConnectionState::Backoff {
                until_ms: *until_ms,
                why: format!("{}: {why}", channel.topic.name),
                permanent: *permanent,
            },
            None if self.channels.iter().all(is_live) => ConnectionState::Live,
            None => ConnectionState::Joining,
        };
        self.live_since = match state {
            ConnectionState::Live => self.live_since.or(Some(now.at)),
            _ => None,
        };
        outlet.state(state);
    }

    fn beat(&mut self, limit: Duration, now: Moment) {
        if let Some(beat) = &mut self.heartbeat {
            // The one under way must come by then, too.
            let left = now.at.saturating_duration_since(beat.sent) + limit;
            beat.limit = beat.limit.min(left);
            return;
        }
        let reference = self.push(None, PHOENIX, "heartbeat", json!({}));
        self.heartbeat = Some(Beat {
            reference,
            sent: now.at,
            limit,
        });
    }

    // ---- what goes in

    /// A token, or why there is none.
    pub(super) fn token_came(&mut self, token: Result<String, AuthError>) -> Result<(), Stopping> {
        self.token_under_way = false;
        let token = match token {
            Ok(token) => token,
            Err(error @ AuthError::SignedOut { .. }) => return Err((EndKind::SignedOut, error.to_string())),
            Err(error) => {
                tracing::warn!(%error, "no new token for realtime; it goes on with the present one");
                self.token.clone()
            }
        };
        let changed = token != self.token;
        // A refresh within the same second may give the very same token: the channels must not wait for another.
        if changed || self.wants_other {
            for channel in &mut self.channels {
                channel.needs_token = false;
            }
        }
        self.wants_other = false;
        self.token = token;
        Ok(())
    }

    /// The office's answer to a ring.
    pub(super) fn rang(
        &mut self,
        nonce: Uuid,
        rung: &Result<(), RingFault>,
        now: Moment,
        around: &mut Around<'_>,
    ) -> Result<(), Stopping> {
        for channel in &mut self.channels {
            if channel.rang(nonce, rung, now, around).map_err(broken)? {
                break;
            }
        }
        Ok(())
    }

    /// Bytes came, whatever they mean.
    pub(super) fn sign_of_life(&mut self, now: Moment) {
        self.last_frame = now.at;
    }

    /// A frame came.
    pub(super) fn frame(
        &mut self,
        frame: Frame,
        now: Moment,
        around: &mut Around<'_>,
    ) -> Result<(), Stopping> {
        self.sign_of_life(now);
        if frame.topic == PHOENIX {
            let answers = self
                .heartbeat
                .as_ref()
                .is_some_and(|beat| Some(&beat.reference) == frame.reference.as_ref());
            if answers
                && frame.event == "phx_reply"
                && let Some(beat) = self.heartbeat.take()
            {
                let took = now.at.saturating_duration_since(beat.sent);
                around.patience.came(took, HEARTBEAT_ANSWER_MAX);
                // Counted from the last one, so that a slow answer does not use up the server's patience.
                self.heartbeat_at = (beat.sent + HEARTBEAT_EVERY).max(now.at);
            }
            return Ok(());
        }
        let Some(index) = self
            .channels
            .iter()
            .position(|channel| channel.wire_topic == frame.topic)
        else {
            return Ok(());
        };
        if !self.channels[index].owns(&frame) {
            // Of an older join, or the answer to a push that wants none.
            return Ok(());
        }
        let channel = &mut self.channels[index];
        let event = match frame.event.as_str() {
            "phx_reply" if frame.payload["status"] == "ok" => {
                if let Some(sent) = channel.join_sent.take() {
                    let took = now.at.saturating_duration_since(sent);
                    around.patience.came(took, JOIN_ANSWER_MAX);
                }
                ChannelEvent::JoinOk {
                    awaits_system: channel.topic.inserts.is_some(),
                }
            }
            "phx_reply" => ChannelEvent::JoinRefused {
                reason: refusal(&frame.payload["response"]),
            },
            "phx_close" => ChannelEvent::Closed {
                said: channel.said.take(),
            },
            "phx_error" => ChannelEvent::Crashed,
            "system" => return self.system(index, &frame.payload, now, around),
            "broadcast" | "postgres_changes" => {
                return doorbell(channel, frame, now, around).map_err(broken);
            }
            // Presence, and what newer servers say.
            _ => return Ok(()),
        };
        channel.apply(&event, now, around).map_err(broken)
    }

    fn system(
        &mut self,
        index: usize,
        payload: &Value,
        now: Moment,
        around: &mut Around<'_>,
    ) -> Result<(), Stopping> {
        let message = payload["message"].as_str().unwrap_or_default();
        let channel = &mut self.channels[index];
        if payload["status"] != "ok" {
            tracing::warn!(topic = %channel.topic.name, message, "the realtime service reports a fault");
            channel.said = Some(message.to_owned());
            return Ok(());
        }
        if payload["extension"] != "postgres_changes" {
            return Ok(());
        }
        channel
            .apply(&ChannelEvent::SystemOk, now, around)
            .map_err(broken)?;
        // Also after a token refresh, which makes the subscription anew: rows written meanwhile were not told.
        around.outlet.joined(&channel.topic.name);
        Ok(())
    }

    /// Does what is due.
    pub(super) fn time_passed(&mut self, now: Moment, around: &mut Around<'_>) -> Result<(), Stopping> {
        if let Some(beat) = &self.heartbeat {
            if now.at >= beat.sent + beat.limit {
                around.patience.was_late();
                let limit = beat.limit.as_secs();
                return Err((
                    EndKind::Failed,
                    format!("a heartbeat was not answered within {limit} s"),
                ));
            }
        } else if now.at >= self.heartbeat_at {
            let limit = heartbeat_limit(*around.patience);
            self.beat(limit, now);
        }
        let silence = HEARTBEAT_EVERY + heartbeat_limit(*around.patience) + SILENCE_SPARE;
        if now.at.saturating_duration_since(self.last_frame) >= silence {
            return Err((
                EndKind::Failed,
                format!("nothing was heard for {} s", silence.as_secs()),
            ));
        }
        if now.at >= self.retire_at {
            return Err((EndKind::Soon, "a planned new connection".to_owned()));
        }
        if now.at >= self.tick_at {
            self.tick_at = now.at + TICK;
            self.tick(now, around)?;
        }
        for index in 0..self.channels.len() {
            self.channel_time(index, now, around)?;
        }
        Ok(())
    }

    fn tick(&mut self, now: Moment, around: &mut Around<'_>) -> Result<(), Stopping> {
        if let Some(seconds) = self.clocks.jump_s(now) {
            tracing::info!(seconds, "the clock jumped (sleep?): the connection is probed");
            self.doubt(now, around)?;
        }
        // Cheap while the token is fresh; when it is not, this is what refreshes it.
        self.token_wish.get_or_insert(Wish::Usable);
        Ok(())
    }

    fn channel_time(&mut self, index: usize, now: Moment, around: &mut Around<'_>) -> Result<(), Stopping> {
        let channel = &mut self.channels[index];
        if channel.reconcile_at.is_some_and(|at| now.at >= at) {
            channel.reconcile_at = None;
            around.outlet.joined(&channel.topic.name);
        }
        if channel.is_unheard(now, around).map_err(broken)? {
            around.patience.was_late();
            // It is still joined on the server, deaf as it is.
            self.leave(index);
            return self.channels[index]
                .apply(&ChannelEvent::Unheard, now, around)
                .map_err(broken);
        }
        if channel.due.is_none_or(|due| now.at < due) {
            return Ok(());
        }
        let event = match channel.phase {
            Phase::Joining { .. } => {
                // The join may still come to life on the server: it is taken back before the next one.
                self.leave(index);
                around.patience.was_late();
                ChannelEvent::JoinLate
            }
            Phase::AwaitingSystem { .. } => {
                tracing::warn!(topic = %channel.topic.name, "no word about the database subscription; broadcasts are heard");
                ChannelEvent::SystemLate
            }
            Phase::Failed(_) if channel.needs_token => return Ok(()),
            Phase::Failed(_) => ChannelEvent::WaitOver,
            Phase::Ready | Phase::Proving { .. } | Phase::Live { .. } => {
                channel.due = None;
                return Ok(());
            }
        };
        self.channels[index].apply(&event, now, around).map_err(broken)
    }

    fn leave(&mut self, index: usize) {
        let channel = &self.channels[index];
        let join_ref = channel.phase.join_ref().unwrap_or_default().to_owned();
        let topic = channel.wire_topic.clone();
        self.push(Some(&join_ref), &topic, "phx_leave", json!({}));
    }

    /// Something outside changed (network, wake from sleep): a heartbeat finds out about the connection, a ring about
    /// the doorbell; meanwhile it is not called live, and everything is to be looked at.
    pub(super) fn doubt(&mut self, now: Moment, around: &mut Around<'_>) -> Result<(), Stopping> {
        self.beat(around.patience.limit(PROBE_ANSWER_MAX), now);
        for channel in &mut self.channels {
            // Doubt does not delay a ring that is under way, and a channel that is not joined gets its own proof.
            channel
                .apply(&ChannelEvent::Doubted, now, around)
                .map_err(broken)?;
            around.outlet.joined(&channel.topic.name);
        }
        Ok(())
    }

    /// Somebody asks to try now: failed channels do, and a heartbeat finds out about the connection.
    pub(super) fn nudged(&mut self, now: Moment, patience: Patience) {
        for channel in &mut self.channels {
            channel.hurry(now);
        }
        self.beat(patience.limit(PROBE_ANSWER_MAX), now);
    }
}

/// Hands a doorbell on; whoever hears one has the proof that they come through.
fn doorbell(channel: &mut Channel, frame: Frame, now: Moment, around: &mut Around<'_>) -> Result<(), String> {
    let mut payload = frame.payload;
    let (event, content) = if frame.event == "broadcast" {
        let event = payload["event"].as_str().unwrap_or_default().to_owned();
        (event, part(&mut payload, "/payload"))
    } else {
        let event = payload["data"]["type"].as_str().unwrap_or_default().to_owned();
        (event, part(&mut payload, "/data/record"))
    };
    if event != PROOF_EVENT {
        around.outlet.doorbell(&channel.topic.name, event, content);
    }
    if frame.event == "broadcast" {
        channel.heard(now, around)
    } else {
        // Replication is another way than the doorbell's.
        Ok(())
    }
}

/// How long a heartbeat's answer may take on this line.
fn heartbeat_limit(patience: Patience) -> Duration {
    patience.limit(HEARTBEAT_ANSWER_MAX).min(HEARTBEAT_ANSWER_PATIENT)
}

fn refusal(response: &Value) -> String {
    response["reason"]
        .as_str()
        .map_or_else(|| response.to_string(), str::to_owned)
}

fn broken(why: String) -> Stopping {
    (EndKind::Failed, why)
}

/// Takes a part out of outside input, whatever its shape (indexing for change panics on a number).
fn part(payload: &mut Value, pointer: &str) -> Value {
    payload.pointer_mut(pointer).map(Value::take).unwrap_or_default()
}

//! One WebSocket: reads frames, answers, and writes what others send it.
//!
//! One task owns the socket and its channels. It ends when the client goes, is silent for [`IDLE_MAX`], reads too
//! slowly (1013), or the hub stops (1012, and then without `phx_close`, or official clients would not come back).
//! Called by `routes`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::channel::{self, Channel, Joined, Reading};
use super::codec::{self, Content, Frame, Incoming, Outgoing, Version};
use super::registry::Outbox;
use super::{broadcast, changes};
use crate::http::Shared;
use crate::jwt::{Claims, TokenFault};

/// Silence from the client after which the socket is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long one frame may take to be written.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// How long a refused join waits for its answer, so that eager clients do not hammer.
const REFUSAL_DELAY: Duration = Duration::from_secs(1);
/// Refusals that may wait at a time; a socket with more is closed.
const REFUSALS_MAX: usize = 100;
/// Channels on one socket.
const CHANNELS_MAX: usize = 100;
/// Longest topic with its prefix, in bytes: what the one-byte lengths of binary frames can say.
pub(crate) const TOPIC_BYTES_MAX: usize = 255;
/// Largest frame of a join, in bytes.
const JOIN_BYTES_MAX: usize = 64 * 1024;
/// How often tokens are looked at.
const TOKEN_LOOK: Duration = Duration::from_secs(1);

/// Close codes.
const CLOSE_NORMAL: u16 = 1000;
const CLOSE_RESTART: u16 = 1012;
const CLOSE_OVERFLOW: u16 = 1013;

/// Why a socket ends.
enum End {
    /// The client is gone, or cannot be written to.
    Gone,
    /// We close, with code and reason.
    Close(u16, &'static str),
}

struct Socket {
    shared: Arc<Shared>,
    wire: WebSocket,
    version: Version,
    claims: Claims,
    outbox: Outbox,
    channels: HashMap<String, Channel>,
    refusals: VecDeque<(Instant, Outgoing)>,
}

/// Serves one socket until it ends.
pub(crate) async fn serve(shared: Arc<Shared>, wire: WebSocket, version: Version, claims: Claims) {
    let (outbox, queue, overflow) = Outbox::new();
    let mut socket = Socket {
        shared,
        wire,
        version,
        claims,
        outbox,
        channels: HashMap::new(),
        refusals: VecDeque::new(),
    };
    let end = socket.run(queue, overflow).await;
    for channel in socket.channels.values() {
        socket.shared.realtime.remove(channel.id);
    }
    if let End::Close(code, reason) = end {
        let frame = Message::Close(Some(CloseFrame {
            code,
            reason: reason.into(),
        }));
        if timeout(WRITE_MAX, socket.wire.send(frame)).await.is_err() {
            tracing::debug!("a socket did not take its close frame");
        }
    }
}

impl Socket {
    async fn run(
        &mut self,
        mut queue: mpsc::Receiver<Outgoing>,
        overflow: tokio_util::sync::CancellationToken,
    ) -> End {
        let closing = self.shared.realtime.closing();
        let mut tokens = interval(TOKEN_LOOK);
        tokens.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let refusal_due = self.refusals.front().map_or(heard + IDLE_MAX, |(at, _)| *at);
            let step = tokio::select! {
                () = closing.cancelled() => Err(End::Close(CLOSE_RESTART, "the hub is restarting")),
                () = overflow.cancelled() => Err(End::Close(CLOSE_OVERFLOW, "too slow")),
                frame = self.wire.recv() => {
                    heard = Instant::now();
                    match frame {
                        Some(Ok(message)) => self.hear(message).await,
                        Some(Err(_)) | None => Err(End::Gone),
                    }
                }
                Some(message) = queue.recv() => self.send(message).await,
                _ = tokens.tick() => self.check_tokens().await,
                () = sleep_until(refusal_due), if !self.refusals.is_empty() => match self.refusals.pop_front() {
                    Some((_, refusal)) => self.send(refusal).await,
                    None => Ok(()),
                },
                () = sleep_until(heard + IDLE_MAX) => Err(End::Close(CLOSE_NORMAL, "no frame for 60 s")),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn send(&mut self, message: Outgoing) -> Result<(), End> {
        let frame = match codec::write(self.version, &message) {
            None => return Ok(()),
            Some(Frame::Text(text)) => Message::Text(text.into()),
            Some(Frame::Binary(bytes)) => Message::Binary(bytes.into()),
        };
        match timeout(WRITE_MAX, self.wire.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }

    async fn hear(&mut self, message: Message) -> Result<(), End> {
        let (size, read) = match message {
            Message::Text(text) => (text.len(), codec::read_text(self.version, text.as_str())),
            Message::Binary(bytes) if self.version == Version::V2 => {
                (bytes.len(), codec::read_binary(&bytes))
            }
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) => return Ok(()),
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
        if incoming.topic.len() > TOPIC_BYTES_MAX {
            let reason = format!("the topic is longer than {TOPIC_BYTES_MAX} bytes");
            return self.reply(&incoming, "error", json!({"reason": reason})).await;
        }
        if incoming.topic == "phoenix" {
            return self.reply(&incoming, "ok", json!({})).await;
        }
        match incoming.event.as_str() {
            "phx_join" if size > JOIN_BYTES_MAX => self.refuse(
                &incoming,
                format!("PayloadTooLarge: a join has at most {JOIN_BYTES_MAX} bytes"),
            ),
            "phx_join" => self.join(incoming).await,
            "phx_leave" => self.leave(&incoming).await,
            _ if !self.channels.contains_key(&incoming.topic) => {
                self.reply(&incoming, "error", json!({"reason": "unmatched topic"}))
                    .await
            }
            "access_token" => self.new_token(&incoming).await,
            "broadcast" => self.broadcast(incoming, size).await,
            "presence" => {
                self.reply(
                    &incoming,
                    "error",
                    json!({"reason": "Presence is not offered by this hub"}),
                )
                .await
            }
            _ => Ok(()),
        }
    }

    async fn join(&mut self, incoming: Incoming) -> Result<(), End> {
        let Some(topic) = incoming.topic.strip_prefix("realtime:").map(str::to_owned) else {
            return self
                .reply(&incoming, "error", json!({"reason": "unmatched topic"}))
                .await;
        };
        if let Some(old) = self.channels.remove(&incoming.topic) {
            self.shared.realtime.remove(old.id);
            self.send(closed(&incoming.topic, old.join_ref)).await?;
        }
        if self.channels.len() >= CHANNELS_MAX {
            return self.refuse(&incoming, "ChannelRateLimitReached: Too many channels".to_owned());
        }
        let payload = match &incoming.content {
            Content::Json(payload) => payload.clone(),
            Content::Broadcast { .. } => Value::Null,
        };
        // Serializer 1.0.0 may leave `join_ref` out: the join's own `ref` stands for it.
        let join_ref = incoming.join_ref.clone().or_else(|| incoming.reference.clone());
        let shared = self.shared.clone();
        let joined = channel::join(&shared, &self.outbox, &self.claims, &topic, join_ref, &payload).await;
        let Joined {
            channel,
            response,
            presence,
            system,
        } = match joined {
            Ok(joined) => joined,
            Err(reason) => return self.refuse(&incoming, reason),
        };
        self.channels.insert(incoming.topic.clone(), channel);
        self.reply(&incoming, "ok", response).await?;
        if presence {
            self.send(pushed(&incoming.topic, "presence_state", json!({})))
                .await?;
        }
        if let Some((status, message)) = system {
            self.send(system_event(
                &incoming.topic,
                "postgres_changes",
                status,
                &message,
            ))
            .await?;
        }
        Ok(())
    }

    /// Puts the refusal of a join in line; the real server waits before it answers, too.
    fn refuse(&mut self, incoming: &Incoming, reason: String) -> Result<(), End> {
        if self.refusals.len() >= REFUSALS_MAX {
            return Err(End::Close(CLOSE_OVERFLOW, "too many refused joins"));
        }
        tracing::debug!(topic = incoming.topic, reason, "a join is refused");
        let answer = reply(incoming, "error", json!({"reason": reason}));
        self.refusals.push_back((Instant::now() + REFUSAL_DELAY, answer));
        Ok(())
    }

    async fn leave(&mut self, incoming: &Incoming) -> Result<(), End> {
        self.reply(incoming, "ok", json!({})).await?;
        if let Some(channel) = self.channels.remove(&incoming.topic) {
            self.shared.realtime.remove(channel.id);
            self.send(closed(&incoming.topic, channel.join_ref)).await?;
        }
        Ok(())
    }

    async fn broadcast(&mut self, incoming: Incoming, size: usize) -> Result<(), End> {
        let Some(channel) = self.channels.get_mut(&incoming.topic) else {
            return Ok(());
        };
        if size > broadcast::PAYLOAD_BYTES_MAX {
            if channel.ack {
                // Text without an object, as the original sends it.
                return self
                    .reply(&incoming, "error", json!("payload_size_exceeded"))
                    .await;
            }
            return Ok(());
        }
        let content = incoming.content.clone();
        let delivered = broadcast::push(&self.shared, channel, content).await;
        if delivered && channel.ack {
            return self.reply(&incoming, "ok", json!({})).await;
        }
        Ok(())
    }

    async fn new_token(&mut self, incoming: &Incoming) -> Result<(), End> {
        let Content::Json(payload) = &incoming.content else {
            return Ok(());
        };
        let Some(token) = payload.get("access_token").and_then(Value::as_str) else {
            return Ok(());
        };
        let shared = self.shared.clone();
        let Some(channel) = self.channels.get_mut(&incoming.topic) else {
            return Ok(());
        };
        if token.starts_with("sb_") || channel.token.as_deref() == Some(token) {
            return Ok(());
        }
        let claims = match channel::verify(&shared, token) {
            Ok(claims) => claims,
            Err(fault) => return self.expel(&incoming.topic, "system", &fault.to_string()).await,
        };
        let mut may_receive = true;
        if channel.private {
            match channel::may_read(&shared.database, &claims, &channel.topic).await {
                Reading::Broadcasts => {}
                Reading::PresenceOnly => may_receive = false,
                // No verdict: the channel lives on with the token it has, until that one ends.
                Reading::Unknown(reason) => {
                    tracing::warn!(reason, topic = channel.topic, "a new token could not be checked");
                    return Ok(());
                }
                Reading::No => {
                    let reason = format!(
                        "You no longer have permission to read from this Channel topic: {}",
                        channel.topic
                    );
                    return self.expel(&incoming.topic, "system", &reason).await;
                }
            }
        }
        channel.claims = claims.clone();
        channel.token = Some(token.to_owned());
        channel.may_send = None;
        shared.realtime.set_claims(channel.id, claims, may_receive);
        if channel.bindings.is_empty() {
            return Ok(());
        }
        let again = changes::subscribe(&shared.database, &channel.claims.role, &channel.bindings).await;
        let (status, message) = match again {
            Ok(()) => ("ok", "Subscribed to PostgreSQL".to_owned()),
            Err(reason) => ("error", reason),
        };
        self.send(system_event(
            &incoming.topic,
            "postgres_changes",
            status,
            &message,
        ))
        .await
    }

    /// Ends the channels whose token has run out.
    async fn check_tokens(&mut self) -> Result<(), End> {
        let now_s = self.shared.clock.now().0.div_euclid(1000);
        let expired: Vec<(String, i64)> = self
            .channels
            .iter()
            .filter_map(|(topic, channel)| Some((topic.clone(), channel.claims.exp?)))
            .filter(|(_, exp)| *exp <= now_s)
            .collect();
        for (topic, exp) in expired {
            let fault = TokenFault::Expired { seconds: now_s - exp };
            self.expel(&topic, "system", &fault.to_string()).await?;
        }
        Ok(())
    }

    /// `system` error, then `phx_close`.
    async fn expel(&mut self, topic: &str, extension: &str, reason: &str) -> Result<(), End> {
        let Some(channel) = self.channels.remove(topic) else {
            return Ok(());
        };
        self.shared.realtime.remove(channel.id);
        self.send(system_event(topic, extension, "error", reason)).await?;
        self.send(closed(topic, channel.join_ref)).await
    }

    async fn reply(&mut self, incoming: &Incoming, status: &str, response: Value) -> Result<(), End> {
        self.send(reply(incoming, status, response)).await
    }
}

fn reply(incoming: &Incoming, status: &str, response: Value) -> Outgoing {
    Outgoing::Message {
        join_ref: incoming.join_ref.clone(),
        reference: incoming.reference.clone(),
        topic: incoming.topic.clone(),
        event: "phx_reply",
        payload: json!({"status": status, "response": response}),
    }
}

fn pushed(topic: &str, event: &'static str, payload: Value) -> Outgoing {
    Outgoing::Message {
        join_ref: None,
        reference: None,
        topic: topic.to_owned(),
        event,
        payload,
    }
}

fn closed(topic: &str, join_ref: Option<String>) -> Outgoing {
    Outgoing::Message {
        join_ref: join_ref.clone(),
        reference: join_ref,
        topic: topic.to_owned(),
        event: "phx_close",
        payload: json!({}),
    }
}

/// Always with all four keys: one client drops the event otherwise.
fn system_event(topic: &str, extension: &str, status: &str, message: &str) -> Outgoing {
    let channel = topic.strip_prefix("realtime:").unwrap_or(topic);
    let payload = json!({"extension": extension, "status": status, "message": message, "channel": channel});
    pushed(topic, "system", payload)
}

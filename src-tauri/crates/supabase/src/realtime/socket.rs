//! One conversation over one open socket: joins, heartbeats, tokens, doorbells, until it ends for whatever reason.
//!
//! One task owns the socket and reads it at all times; nothing here waits for the application (see
//! [`super::outlet`]) and no write takes longer than a limit. Called by [`super::supervisor`], which decides what
//! comes after the end.

use std::time::Duration;

use domain::Clock;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_util::sync::CancellationToken;

use super::backoff::Dice;
use super::channel::{Around, Channel};
use super::codec::{Frame, PHOENIX};
use super::dial::{Later, Socket};
use super::outlet::Outlet;
use super::phase::{ChannelEvent, Phase};
use super::supervisor::{JumpWatch, TICK, TokenSource, Wish};
use super::{ConnectionState, Topic};
use crate::auth::AuthError;

/// Between a heartbeat's answer and the next. The server closes after 60 s without a word from us.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(25);
/// Longest wait for its answer: a half-open connection gives no other sign.
const HEARTBEAT_ANSWER_MAX: Duration = Duration::from_secs(10);
/// Nothing heard at all for this long: dead, whatever the heartbeat says.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Longest wait for the answer to a join.
const JOIN_ANSWER_MAX: Duration = Duration::from_secs(10);
/// Longest write of one frame.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Longest goodbye.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// A planned new socket comes before the service's own limit of 24 h …
const AGE_MAX: Duration = Duration::from_secs(20 * 3600);
/// … spread over this.
const AGE_SPREAD: Duration = Duration::from_secs(3 * 3600);

/// How a conversation ended.
#[derive(Debug)]
pub(super) struct End {
    /// For people.
    pub why: String,
    /// What comes next.
    pub kind: EndKind,
    /// How long every topic had been joined, at the end.
    pub live_for: Duration,
}

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

/// One open socket and all that is said over it.
pub(super) struct Conversation<'a> {
    socket: Socket,
    channels: Vec<Channel>,
    source: &'a dyn TokenSource,
    token: String,
    token_request: Option<Later<'a, Result<String, AuthError>>>,
    /// The request under way is for another token than the present one.
    wants_other: bool,
    clock: &'a dyn Clock,
    clocks: JumpWatch,
    outlet: &'a mut Outlet,
    dice: &'a mut Dice,
    next_reference: u64,
    heartbeat_at: Instant,
    /// The reference of a heartbeat under way, and when its answer is too late.
    heartbeat: Option<(String, Instant)>,
    last_frame: Instant,
    tick_at: Instant,
    retire_at: Instant,
    live_since: Option<Instant>,
}

/// The reason to stop reading.
type Stopping = (EndKind, String);

impl<'a> Conversation<'a> {
    pub(super) fn new(
        socket: Socket,
        topics: &[Topic],
        source: &'a dyn TokenSource,
        token: String,
        clock: &'a dyn Clock,
        outlet: &'a mut Outlet,
        dice: &'a mut Dice,
    ) -> Conversation<'a> {
        let now = Instant::now();
        Conversation {
            socket,
            channels: topics.iter().map(Channel::new).collect(),
            source,
            token,
            token_request: None,
            wants_other: false,
            clock,
            clocks: JumpWatch::new(clock),
            outlet,
            next_reference: 1,
            heartbeat_at: now + HEARTBEAT_EVERY,
            heartbeat: None,
            last_frame: now,
            tick_at: now + TICK,
            retire_at: now + AGE_MAX + dice.upto(AGE_SPREAD),
            live_since: None,
            dice,
        }
    }

    /// Talks until the end.
    pub(super) async fn run(mut self, stop: &CancellationToken, nudge: &Notify) -> End {
        let (kind, why) = match self.talk(stop, nudge).await {
            Ok(never) => match never {},
            Err(stopping) => stopping,
        };
        if !matches!(kind, EndKind::Failed | EndKind::ServerRestarts) {
            let bye = CloseFrame {
                code: CloseCode::Normal,
                reason: "".into(),
            };
            // Politeness only: the connection is dropped either way.
            let _ = timeout(CLOSE_MAX, self.socket.close(Some(bye))).await;
        }
        let live_for = self.live_since.map(|since| since.elapsed()).unwrap_or_default();
        End { why, kind, live_for }
    }

    async fn talk(
        &mut self,
        stop: &CancellationToken,
        nudge: &Notify,
    ) -> Result<std::convert::Infallible, Stopping> {
        let gone = self.outlet.listener_gone();
        tokio::pin!(gone);
        loop {
            self.join_what_is_ready().await?;
            self.tell_token().await?;
            self.want_token();
            self.tell_state();
            let wake = self.next_wake();
            tokio::select! {
                () = stop.cancelled() => return Err((EndKind::Stopped, "stopped".to_owned())),
                () = &mut gone => return Err((EndKind::Stopped, "nobody listens".to_owned())),
                message = self.socket.next() => self.heard(message).await?,
                token = async { match self.token_request.as_mut() {
                    Some(request) => request.await,
                    None => std::future::pending().await,
                } } => self.token_came(token)?,
                () = self.outlet.catch_up(), if self.outlet.is_behind() => {}
                () = nudge.notified() => self.nudged().await?,
                () = sleep_until(wake) => self.time_passed().await?,
            }
        }
    }

    // ---- out

    async fn send(&mut self, frame: &Frame) -> Result<(), Stopping> {
        match timeout(WRITE_MAX, self.socket.send(Message::text(frame.encode()))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err((
                EndKind::Failed,
                format!("the connection broke while sending: {error}"),
            )),
            Err(_) => Err((EndKind::Failed, "the connection takes no more data".to_owned())),
        }
    }

    fn reference(&mut self) -> String {
        let reference = self.next_reference.to_string();
        self.next_reference += 1;
        reference
    }

    async fn join_what_is_ready(&mut self) -> Result<(), Stopping> {
        for index in 0..self.channels.len() {
            if self.channels[index].phase != Phase::Ready || self.channels[index].needs_token {
                continue;
            }
            let join_ref = self.reference();
            let channel = &self.channels[index];
            let payload = channel.join_payload(&self.token);
            let frame = Frame::push(
                Some(&join_ref),
                &join_ref,
                &channel.wire_topic,
                "phx_join",
                payload,
            );
            self.send(&frame).await?;
            let channel = &mut self.channels[index];
            channel.said = None;
            channel.token.clone_from(&self.token);
            channel.phase = channel.phase.after(&ChannelEvent::JoinSent { join_ref });
            channel.due = Some(Instant::now() + JOIN_ANSWER_MAX);
        }
        Ok(())
    }

    async fn beat(&mut self) -> Result<(), Stopping> {
        let reference = self.reference();
        let frame = Frame::push(None, &reference, PHOENIX, "heartbeat", json!({}));
        self.send(&frame).await?;
        self.heartbeat = Some((reference, Instant::now() + HEARTBEAT_ANSWER_MAX));
        Ok(())
    }

    // ---- tokens

    /// Asks for another token when a channel needs one.
    fn want_token(&mut self) {
        if self.token_request.is_none() && self.channels.iter().any(|channel| channel.needs_token) {
            self.token_request = Some(self.source.token(Wish::OtherThan(self.token.clone())));
            self.wants_other = true;
        }
    }

    fn token_came(&mut self, token: Result<String, AuthError>) -> Result<(), Stopping> {
        self.token_request = None;
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
        if changed || std::mem::take(&mut self.wants_other) {
            self.wants_other = false;
            for channel in &mut self.channels {
                channel.needs_token = false;
            }
        }
        self.token = token;
        Ok(())
    }

    /// Tells every joined channel the token if it has another one; each checks the user's rights with it again.
    async fn tell_token(&mut self) -> Result<(), Stopping> {
        for index in 0..self.channels.len() {
            let channel = &self.channels[index];
            if !channel.phase.is_joined() || channel.token == self.token {
                continue;
            }
            let join_ref = channel.phase.join_ref().map(str::to_owned);
            let topic = channel.wire_topic.clone();
            let reference = self.reference();
            let payload = json!({"access_token": self.token});
            let push = Frame::push(join_ref.as_deref(), &reference, &topic, "access_token", payload);
            self.send(&push).await?;
            self.channels[index].token.clone_from(&self.token);
        }
        Ok(())
    }

    // ---- in

    async fn heard(&mut self, message: Option<Result<Message, WsError>>) -> Result<(), Stopping> {
        self.last_frame = Instant::now();
        let frame = match message {
            None => return Err((EndKind::Failed, "the connection ended".to_owned())),
            Some(Err(error)) => return Err((EndKind::Failed, format!("the connection broke: {error}"))),
            Some(Ok(Message::Close(frame))) => return Err(closed(frame)),
            Some(Ok(Message::Ping(_))) => {
                // The library has queued the answer; it goes out with a flush.
                return match timeout(WRITE_MAX, self.socket.flush()).await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) | Err(_) => {
                        Err((EndKind::Failed, "the connection broke while sending".to_owned()))
                    }
                };
            }
            Some(Ok(Message::Pong(_) | Message::Frame(_))) => return Ok(()),
            Some(Ok(Message::Text(text))) => Frame::decode_text(&text),
            Some(Ok(Message::Binary(bytes))) => Frame::decode_binary(&bytes),
        };
        match frame {
            Ok(frame) => self.frame(frame),
            Err(error) => {
                tracing::debug!(%error, "a frame of the realtime service was skipped");
                Ok(())
            }
        }
    }

    fn frame(&mut self, frame: Frame) -> Result<(), Stopping> {
        if frame.topic == PHOENIX {
            let answers = self
                .heartbeat
                .as_ref()
                .is_some_and(|(waiting, _)| Some(waiting) == frame.reference.as_ref());
            if answers && frame.event == "phx_reply" {
                self.heartbeat = None;
                self.heartbeat_at = Instant::now() + HEARTBEAT_EVERY;
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
        match frame.event.as_str() {
            "phx_reply" if frame.payload["status"] == "ok" => {
                let awaits_system = self.channels[index].topic.inserts.is_some();
                self.apply(index, &ChannelEvent::JoinOk { awaits_system })
            }
            "phx_reply" => {
                let response = &frame.payload["response"];
                let reason = response["reason"]
                    .as_str()
                    .map_or_else(|| response.to_string(), str::to_owned);
                self.apply(index, &ChannelEvent::JoinRefused { reason })
            }
            "phx_close" => {
                let said = self.channels[index].said.take();
                self.apply(index, &ChannelEvent::Closed { said })
            }
            "phx_error" => self.apply(index, &ChannelEvent::Crashed),
            "system" => self.system(index, &frame.payload),
            "broadcast" => {
                let mut payload = frame.payload;
                let event = payload["event"].as_str().unwrap_or_default().to_owned();
                self.outlet.doorbell(
                    &self.channels[index].topic.name,
                    event,
                    part(&mut payload, "/payload"),
                );
                Ok(())
            }
            "postgres_changes" => {
                let mut payload = frame.payload;
                let event = payload["data"]["type"].as_str().unwrap_or_default().to_owned();
                self.outlet.doorbell(
                    &self.channels[index].topic.name,
                    event,
                    part(&mut payload, "/data/record"),
                );
                Ok(())
            }
            // Presence, and what newer servers say.
            _ => Ok(()),
        }
    }

    fn system(&mut self, index: usize, payload: &Value) -> Result<(), Stopping> {
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
        self.apply(index, &ChannelEvent::SystemOk)?;
        // Also after a token refresh, which makes the subscription anew: rows written meanwhile were not told.
        self.outlet.joined(&self.channels[index].topic.name);
        Ok(())
    }

    // ---- channels

    fn apply(&mut self, index: usize, event: &ChannelEvent) -> Result<(), Stopping> {
        let mut around = Around {
            outlet: &mut *self.outlet,
            dice: &mut *self.dice,
            clock: self.clock,
        };
        let given_up = self.channels[index].apply(event, &mut around);
        given_up.map_err(|why| (EndKind::Failed, why))
    }

    /// The worst channel is what people are told.
    fn tell_state(&mut self) {
        let failed = |permanent: bool| {
            self.channels
                .iter()
                .find_map(move |channel| match &channel.phase {
                    Phase::Failed(fault) if channel.permanent == permanent => Some((channel, fault)),
                    _ => None,
                })
        };
        let state = match failed(true).or_else(|| failed(false)) {
            Some((channel, fault)) => ConnectionState::Backoff {
                until_ms: channel.until_ms,
                why: format!("{}: {}", channel.topic.name, fault.why),
                permanent: channel.permanent,
            },
            None if self
                .channels
                .iter()
                .all(|channel| matches!(channel.phase, Phase::Live { .. })) =>
            {
                ConnectionState::Live
            }
            None => ConnectionState::Joining,
        };
        self.live_since = match state {
            ConnectionState::Live => self.live_since.or(Some(Instant::now())),
            _ => None,
        };
        self.outlet.state(state);
    }

    // ---- time

    fn next_wake(&self) -> Instant {
        let heartbeat = self
            .heartbeat
            .as_ref()
            .map_or(self.heartbeat_at, |(_, late)| *late);
        let channels = self.channels.iter().flat_map(|channel| {
            // A failed channel that waits for a token is woken by the token.
            [channel.due.filter(|_| !channel.needs_token), channel.reconcile_at]
                .into_iter()
                .flatten()
        });
        channels.fold(heartbeat.min(self.tick_at), Instant::min)
    }

    async fn time_passed(&mut self) -> Result<(), Stopping> {
        let now = Instant::now();
        if let Some((_, late)) = &self.heartbeat {
            if now >= *late {
                let limit = HEARTBEAT_ANSWER_MAX.as_secs();
                return Err((
                    EndKind::Failed,
                    format!("a heartbeat was not answered within {limit} s"),
                ));
            }
        } else if now >= self.heartbeat_at {
            self.beat().await?;
        }
        if now.duration_since(self.last_frame) >= SILENCE_MAX {
            return Err((
                EndKind::Failed,
                format!("nothing was heard for {} s", SILENCE_MAX.as_secs()),
            ));
        }
        if now >= self.retire_at {
            return Err((EndKind::Soon, "a planned new connection".to_owned()));
        }
        if now >= self.tick_at {
            self.tick_at = now + TICK;
            self.tick()?;
        }
        for index in 0..self.channels.len() {
            self.channel_time(index, now).await?;
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), Stopping> {
        if let Some(seconds) = self.clocks.jump_s(self.clock) {
            return Err((EndKind::Soon, format!("the clock jumped by {seconds} s (sleep?)")));
        }
        // Cheap while the token is fresh; when it is not, this is what refreshes it.
        if self.token_request.is_none() {
            self.token_request = Some(self.source.token(Wish::Usable));
        }
        Ok(())
    }

    async fn channel_time(&mut self, index: usize, now: Instant) -> Result<(), Stopping> {
        let channel = &mut self.channels[index];
        if channel.reconcile_at.is_some_and(|at| now >= at) {
            channel.reconcile_at = None;
            self.outlet.joined(&channel.topic.name);
        }
        if channel.due.is_none_or(|due| now < due) {
            return Ok(());
        }
        match channel.phase {
            Phase::Joining { .. } => {
                // The join may still come to life on the server: it is taken back before the next one.
                let join_ref = channel.phase.join_ref().unwrap_or_default().to_owned();
                let topic = channel.wire_topic.clone();
                let reference = self.reference();
                self.send(&Frame::push(
                    Some(&join_ref),
                    &reference,
                    &topic,
                    "phx_leave",
                    json!({}),
                ))
                .await?;
                self.apply(index, &ChannelEvent::JoinLate)
            }
            Phase::AwaitingSystem { .. } => {
                tracing::warn!(topic = %channel.topic.name, "no word about the database subscription; broadcasts are heard");
                self.apply(index, &ChannelEvent::SystemLate)
            }
            Phase::Failed(_) => self.apply(index, &ChannelEvent::WaitOver),
            Phase::Ready | Phase::Live { .. } => {
                channel.due = None;
                Ok(())
            }
        }
    }

    /// Something outside changed: failed channels are tried now, and a heartbeat finds out about the connection.
    async fn nudged(&mut self) -> Result<(), Stopping> {
        for index in 0..self.channels.len() {
            self.apply(index, &ChannelEvent::WaitOver)?;
        }
        if self.heartbeat.is_none() {
            self.beat().await
        } else {
            Ok(())
        }
    }
}

/// Takes a part out of outside input, whatever its shape (indexing for change panics on a number).
fn part(payload: &mut Value, pointer: &str) -> Value {
    payload.pointer_mut(pointer).map(Value::take).unwrap_or_default()
}

/// Every close is a failure, whatever its code: a normal close must not end the reconnecting. The two codes of a
/// restart only spread the clients.
fn closed(frame: Option<CloseFrame>) -> Stopping {
    match frame {
        None => (EndKind::Failed, "the server closed the connection".to_owned()),
        Some(CloseFrame { code, reason }) => {
            let restarts = matches!(code, CloseCode::Away | CloseCode::Restart);
            let kind = if restarts {
                EndKind::ServerRestarts
            } else {
                EndKind::Failed
            };
            (
                kind,
                format!("the server closed the connection ({code} {reason})").replace(" )", ")"),
            )
        }
    }
}

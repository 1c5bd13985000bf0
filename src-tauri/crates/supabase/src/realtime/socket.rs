//! One conversation over one open socket: does what [`super::talk`] says with real bytes, tokens and time, until it
//! ends for whatever reason.
//!
//! One task owns the socket and reads it at all times; nothing here waits for the application (see
//! [`super::outlet`]) and no write takes longer than a limit. Called by [`super::supervisor`], which decides what
//! comes after the end.

use std::convert::Infallible;
use std::time::Duration;

use domain::Clock;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Topic;
use super::backoff::Dice;
use super::channel::{Around, RingFault};
use super::codec::Frame;
use super::course::End;
use super::dial::{Later, Socket};
use super::moment::Moment;
use super::outlet::Outlet;
use super::patience::Patience;
use super::supervisor::{Bell, TokenSource};
use super::talk::{EndKind, Stopping, Talk};
use crate::auth::AuthError;

/// Longest write of one frame.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Longest goodbye.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// Rings of the doorbell that may be under way at once; when there are more, nobody waits for the old ones any more.
const RINGS_MAX: usize = 4;

/// A ring under way, with its nonce.
type Ringing<'a> = Later<'a, (Uuid, Result<(), RingFault>)>;

/// One open socket and all that is said over it.
pub(super) struct Conversation<'a> {
    socket: Socket,
    talk: Talk,
    source: &'a dyn TokenSource,
    bell: &'a dyn Bell,
    token_request: Option<Later<'a, Result<String, AuthError>>>,
    rings: FuturesUnordered<Ringing<'a>>,
    clock: &'a dyn Clock,
    outlet: &'a mut Outlet,
    dice: &'a mut Dice,
    patience: &'a mut Patience,
}

impl<'a> Conversation<'a> {
    #[allow(
        clippy::too_many_arguments,
        reason = "called once, with what the supervisor owns"
    )]
    pub(super) fn new(
        socket: Socket,
        topics: &[Topic],
        token: String,
        source: &'a dyn TokenSource,
        bell: &'a dyn Bell,
        clock: &'a dyn Clock,
        outlet: &'a mut Outlet,
        dice: &'a mut Dice,
        patience: &'a mut Patience,
    ) -> Conversation<'a> {
        Conversation {
            socket,
            talk: Talk::new(topics, token, Moment::now(clock), dice),
            source,
            bell,
            token_request: None,
            rings: FuturesUnordered::new(),
            clock,
            outlet,
            dice,
            patience,
        }
    }

    /// Talks until the end.
    pub(super) async fn run(mut self, stop: &CancellationToken, nudge: &Notify, doubt: &Notify) -> End {
        let (kind, why) = match self.converse(stop, nudge, doubt).await {
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
        let live_for = self.talk.live_for(self.now());
        End { why, kind, live_for }
    }

    fn now(&self) -> Moment {
        Moment::now(self.clock)
    }

    async fn converse(
        &mut self,
        stop: &CancellationToken,
        nudge: &Notify,
        doubt: &Notify,
    ) -> Result<Infallible, Stopping> {
        let gone = self.outlet.listener_gone();
        tokio::pin!(gone);
        loop {
            self.say_what_is_to_be_said().await?;
            let wake = self.talk.next_wake();
            tokio::select! {
                () = stop.cancelled() => return Err((EndKind::Stopped, "stopped".to_owned())),
                () = &mut gone => return Err((EndKind::Stopped, "nobody listens".to_owned())),
                message = self.socket.next() => self.heard(message).await?,
                token = async { match self.token_request.as_mut() {
                    Some(request) => request.await,
                    None => std::future::pending().await,
                } } => {
                    self.token_request = None;
                    self.talk.token_came(token)?;
                }
                Some((nonce, rung)) = self.rings.next(), if !self.rings.is_empty() => {
                    let now = self.now();
                    self.talk.rang(nonce, &rung, now, &mut around(self.outlet, self.dice, self.patience))?;
                }
                () = self.outlet.catch_up(), if self.outlet.is_behind() => {}
                () = nudge.notified() => self.talk.nudged(self.now(), *self.patience),
                () = doubt.notified() => {
                    let now = self.now();
                    self.talk.doubt(now, &mut around(self.outlet, self.dice, self.patience))?;
                }
                () = sleep_until(wake) => {
                    let now = self.now();
                    self.talk.time_passed(now, &mut around(self.outlet, self.dice, self.patience))?;
                }
            }
        }
    }

    /// Sends the frames and begins the requests that the last input asks for.
    async fn say_what_is_to_be_said(&mut self) -> Result<(), Stopping> {
        let now = self.now();
        self.talk
            .settle(now, &mut around(self.outlet, self.dice, self.patience));
        while let Some(frame) = self.talk.next_frame() {
            self.send(&frame).await?;
        }
        if let Some(wish) = self.talk.wanted_token() {
            self.token_request = Some(self.source.token(wish));
        }
        if let Some((office, nonce)) = self.talk.wanted_ring(now, self.dice) {
            if self.rings.len() >= RINGS_MAX {
                self.rings.clear();
            }
            let bell = self.bell;
            self.rings
                .push(Box::pin(async move { (nonce, bell.ring(office, nonce).await) }));
        }
        Ok(())
    }

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

    async fn heard(&mut self, message: Option<Result<Message, WsError>>) -> Result<(), Stopping> {
        let now = self.now();
        let frame = match message {
            None => return Err((EndKind::Failed, "the connection ended".to_owned())),
            Some(Err(error)) => return Err((EndKind::Failed, format!("the connection broke: {error}"))),
            Some(Ok(Message::Close(frame))) => return Err(closed(frame)),
            Some(Ok(Message::Ping(_))) => {
                self.talk.sign_of_life(now);
                // The library has queued the answer; it goes out with a flush.
                return match timeout(WRITE_MAX, self.socket.flush()).await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) | Err(_) => {
                        Err((EndKind::Failed, "the connection broke while sending".to_owned()))
                    }
                };
            }
            Some(Ok(Message::Pong(_) | Message::Frame(_))) => {
                self.talk.sign_of_life(now);
                return Ok(());
            }
            Some(Ok(Message::Text(text))) => Frame::decode_text(&text),
            Some(Ok(Message::Binary(bytes))) => Frame::decode_binary(&bytes),
        };
        match frame {
            Ok(frame) => self
                .talk
                .frame(frame, now, &mut around(self.outlet, self.dice, self.patience)),
            Err(error) => {
                tracing::debug!(%error, "a frame of the realtime service was skipped");
                self.talk.sign_of_life(now);
                Ok(())
            }
        }
    }
}

fn around<'b>(outlet: &'b mut Outlet, dice: &'b mut Dice, patience: &'b mut Patience) -> Around<'b> {
    Around {
        outlet,
        dice,
        patience,
    }
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

//! For tests: a realtime service at the other end of an in-memory pipe, so that time can stand still; tokens and a
//! wall clock that are moved by hand.

#![allow(clippy::result_large_err, reason = "the callback's type is the library's")]

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::{Clock, OfficeId, Timestamp};
use futures_util::{SinkExt, StreamExt};
use reqwest::Url;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::backoff::Dice;
use super::channel::RingFault;
use super::codec::Frame;
use super::dial::{Bytes, Dial, Later, OpenError};
use super::supervisor::{Bell, TokenSource, Wish};
use super::{ConnectionState, Parts, Realtime, RealtimeEvent, RealtimeHandle, Topic};
use crate::auth::AuthError;
use crate::project::Project;

/// Longer than anything that is waited for, in time that costs nothing.
const LONG: Duration = Duration::from_secs(600);

/// The wires to the service.
pub(super) struct Wires {
    calls: mpsc::UnboundedSender<DuplexStream>,
    pub cut: AtomicBool,
    pub dials: Mutex<Vec<Instant>>,
}

impl Dial for Wires {
    fn dial<'a>(&'a self, url: &'a Url, _: Duration) -> Later<'a, Result<Box<dyn Bytes>, OpenError>> {
        Box::pin(async move {
            self.dials.lock().expect("log").push(Instant::now());
            if self.cut.load(Ordering::SeqCst) {
                let why = format!(
                    "{}:{}: no network",
                    url.host_str().expect("a host"),
                    url.port().expect("a port")
                );
                return Err(OpenError::Failed { why });
            }
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            self.calls.send(theirs).expect("the bench listens");
            Ok(Box::new(ours) as Box<dyn Bytes>)
        })
    }
}

/// Takes every ring, or answers what it is told to; the bench rings through when it wants to.
#[derive(Default)]
pub(super) struct Gong {
    pub rings: Mutex<Vec<Uuid>>,
    pub fault: Mutex<Option<RingFault>>,
    /// Rings are never answered.
    pub hangs: AtomicBool,
    rung: Notify,
}

impl Bell for Gong {
    fn ring(&self, _: OfficeId, nonce: Uuid) -> Later<'_, Result<(), RingFault>> {
        Box::pin(async move {
            self.rings.lock().expect("log").push(nonce);
            self.rung.notify_one();
            if self.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            match self.fault.lock().expect("fault").clone() {
                Some(fault) => Err(fault),
                None => Ok(()),
            }
        })
    }
}

/// Tokens `t1`, `t2` …; another one each time the present one was refused.
#[derive(Default)]
pub(super) struct Purse {
    pub number: AtomicU32,
    pub refusals: AtomicU32,
    pub signed_out: AtomicBool,
    /// Gives the same token again, as a refresh within one second does.
    pub has_no_other: AtomicBool,
}

impl TokenSource for Purse {
    fn token(&self, wish: Wish) -> Later<'_, Result<String, AuthError>> {
        Box::pin(async move {
            if self.signed_out.load(Ordering::SeqCst) {
                return Err(AuthError::SignedOut {
                    reason: "nobody".to_owned(),
                });
            }
            if let Wish::OtherThan(refused) = wish {
                self.refusals.fetch_add(1, Ordering::SeqCst);
                if !self.has_no_other.load(Ordering::SeqCst)
                    && refused == format!("t{}", self.number.load(Ordering::SeqCst))
                {
                    self.number.fetch_add(1, Ordering::SeqCst);
                }
            }
            Ok(format!("t{}", self.number.load(Ordering::SeqCst)))
        })
    }
}

/// Goes with tokio's time, and jumps when told.
#[derive(Debug)]
pub(super) struct WallClock {
    start: Instant,
    jumped_ms: AtomicI64,
}

impl WallClock {
    pub(super) fn jump_s(&self, seconds: i64) {
        self.jumped_ms.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
}

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.start.elapsed().as_millis()).expect("short");
        Timestamp(1_000_000 + elapsed + self.jumped_ms.load(Ordering::SeqCst))
    }
}

/// A running connection and the far end of it.
pub(super) struct Bench {
    pub handle: RealtimeHandle,
    pub heard: mpsc::Receiver<RealtimeEvent>,
    pub wires: Arc<Wires>,
    pub purse: Arc<Purse>,
    pub gong: Arc<Gong>,
    pub clock: Arc<WallClock>,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
    calls: mpsc::UnboundedReceiver<DuplexStream>,
}

/// What the office's doorbell topic is called in these tests.
pub(super) const NAME: &str = "office:o1:commands";

pub(super) fn doorbell_topic() -> Topic {
    Topic {
        name: NAME.to_owned(),
        private: true,
        inserts: None,
        proof: None,
    }
}

/// The same, to be proven by a ring.
pub(super) fn proven_topic() -> Topic {
    Topic {
        proof: Some(OfficeId(Uuid::nil())),
        ..doorbell_topic()
    }
}

impl Bench {
    pub(super) fn start(topics: Vec<Topic>) -> Bench {
        let (sender, calls) = mpsc::unbounded_channel();
        let wires = Arc::new(Wires {
            calls: sender,
            cut: AtomicBool::new(false),
            dials: Mutex::default(),
        });
        let purse = Arc::new(Purse {
            number: AtomicU32::new(1),
            ..Purse::default()
        });
        let gong = Arc::new(Gong::default());
        let clock = Arc::new(WallClock {
            start: Instant::now(),
            jumped_ms: AtomicI64::new(0),
        });
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let project = Project::new("http://127.0.0.1:1", "sb_publishable_test").expect("a project");
        let parts = Parts {
            source: purse.clone(),
            bell: gong.clone(),
            dial: wires.clone(),
            dice: Dice::new(1),
        };
        let (handle, heard) =
            Realtime::start_with(project, topics, clock.clone(), parts, &tasks, stop.clone());
        Bench {
            handle,
            heard,
            wires,
            purse,
            gong,
            clock,
            tasks,
            stop,
            calls,
        }
    }

    /// The next connection, not yet upgraded.
    pub(super) async fn call(&mut self) -> DuplexStream {
        timeout(LONG, self.calls.recv())
            .await
            .expect("a call in time")
            .expect("a call")
    }

    /// The next connection, upgraded.
    pub(super) async fn accept(&mut self) -> Peer {
        Peer::on(self.call().await).await
    }

    /// The next connection, joined and waiting for its proof.
    pub(super) async fn unproven(&mut self) -> (Peer, String) {
        let mut peer = self.accept().await;
        let join = peer.next("phx_join").await;
        peer.reply(&join, "ok", json!({"postgres_changes": []})).await;
        (peer, join.join_ref.expect("a join has a reference"))
    }

    /// How often it has rung.
    pub(super) fn rings(&self) -> usize {
        self.gong.rings.lock().expect("log").len()
    }

    /// Waits for the ring with this number, counted from 1.
    pub(super) async fn until_rung(&self, number: usize) -> Uuid {
        while self.rings() < number {
            timeout(LONG, self.gong.rung.notified())
                .await
                .expect("a ring in time");
        }
        self.gong.rings.lock().expect("log")[number - 1]
    }

    /// The next connection, with its one channel joined. Gives the join's reference, too.
    pub(super) async fn joined(&mut self) -> (Peer, String) {
        let mut peer = self.accept().await;
        let join = peer.next("phx_join").await;
        let join_ref = join.join_ref.clone().expect("a join has a reference");
        peer.reply(&join, "ok", json!({"postgres_changes": []})).await;
        self.until_state(ConnectionState::Live).await;
        (peer, join_ref)
    }

    /// Answers the next upgrade with a status.
    pub(super) async fn refuse(&mut self, status: u16, body: &str) {
        let stream = self.call().await;
        let refused = accept_hdr_async(stream, |_: &Request, _: Response| {
            let mut answer = ErrorResponse::new(Some(body.to_owned()));
            *answer.status_mut() = status.try_into().expect("a status");
            Err::<Response, _>(answer)
        })
        .await;
        assert!(refused.is_err());
    }

    /// The next event.
    pub(super) async fn event(&mut self) -> RealtimeEvent {
        timeout(LONG, self.heard.recv())
            .await
            .expect("an event in time")
            .expect("an event")
    }

    /// The next event that is not about the state.
    pub(super) async fn news(&mut self) -> RealtimeEvent {
        loop {
            match self.event().await {
                RealtimeEvent::State(_) => {}
                other => return other,
            }
        }
    }

    pub(super) async fn until_state(&mut self, wanted: ConnectionState) {
        let mut watch = self.handle.watch();
        let reached = watch.wait_for(|state| *state == wanted);
        timeout(LONG, reached)
            .await
            .unwrap_or_else(|_| panic!("never {wanted:?}"))
            .expect("a state");
    }

    /// Waits for a wait, and says why it is, whether a person is needed, and how long it is, in milliseconds.
    pub(super) async fn until_backoff(&mut self) -> (String, bool, i64) {
        let mut watch = self.handle.watch();
        let reached = watch.wait_for(|state| matches!(state, ConnectionState::Backoff { .. }));
        let state = timeout(LONG, reached)
            .await
            .expect("a backoff in time")
            .expect("a state")
            .clone();
        let ConnectionState::Backoff {
            until_ms,
            why,
            permanent,
        } = state
        else {
            unreachable!()
        };
        (why, permanent, until_ms - self.clock.now().0)
    }

    pub(super) fn dials(&self) -> usize {
        self.wires.dials.lock().expect("log").len()
    }
}

/// The far end of an open socket. Answers heartbeats by itself while a frame is waited for.
pub(super) struct Peer {
    socket: WebSocketStream<DuplexStream>,
}

impl Peer {
    /// Upgrades a call.
    pub(super) async fn on(stream: DuplexStream) -> Peer {
        let mut uri = String::new();
        let socket = accept_hdr_async(stream, |request: &Request, response: Response| {
            uri = request.uri().to_string();
            Ok::<_, ErrorResponse>(response)
        })
        .await
        .expect("an upgrade");
        assert_eq!(uri, "/realtime/v1/websocket?apikey=sb_publishable_test&vsn=2.0.0");
        Peer { socket }
    }

    /// The next frame of any kind; `None`: the client closed.
    pub(super) async fn frame(&mut self) -> Option<Frame> {
        loop {
            match timeout(LONG, self.socket.next()).await.expect("a frame in time") {
                Some(Ok(Message::Text(text))) => return Some(Frame::decode_text(&text).expect("a frame")),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The next frame with this event. Heartbeats before it are answered; anything else is a fault.
    pub(super) async fn next(&mut self, event: &str) -> Frame {
        loop {
            let frame = self
                .frame()
                .await
                .unwrap_or_else(|| panic!("closed while waiting for {event}"));
            if frame.event == event {
                return frame;
            }
            assert_eq!(frame.event, "heartbeat", "while waiting for {event}");
            self.reply(&frame, "ok", json!({})).await;
        }
    }

    /// Talks on, answering heartbeats, until the client closes.
    pub(super) async fn until_closed(&mut self) {
        while let Some(frame) = self.frame().await {
            if frame.event == "heartbeat" {
                self.reply(&frame, "ok", json!({})).await;
            }
        }
    }

    /// Talks on, answering heartbeats and joins and nothing else, until the client closes.
    pub(super) async fn until_closed_answering_joins(&mut self) {
        while let Some(frame) = self.frame().await {
            if matches!(frame.event.as_str(), "heartbeat" | "phx_join") {
                self.reply(&frame, "ok", json!({})).await;
            }
        }
    }

    pub(super) async fn reply(&mut self, to: &Frame, status: &str, response: Value) {
        let payload = json!({"status": status, "response": response});
        self.say(json!([to.join_ref, to.reference, to.topic, "phx_reply", payload]))
            .await;
    }

    pub(super) async fn say(&mut self, frame: Value) {
        self.text(&frame.to_string()).await;
    }

    pub(super) async fn text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("sent");
    }

    pub(super) async fn binary(&mut self, bytes: Vec<u8>) {
        self.socket.send(Message::binary(bytes)).await.expect("sent");
    }

    /// Sends a ping and waits for its pong.
    pub(super) async fn ping(&mut self, content: &'static [u8]) {
        self.socket
            .send(Message::Ping(content.into()))
            .await
            .expect("sent");
        let answer = timeout(LONG, self.socket.next()).await.expect("a pong in time");
        assert!(matches!(answer, Some(Ok(Message::Pong(echo))) if echo == content));
    }

    /// A frame of the channel that is no answer.
    pub(super) async fn push(&mut self, event: &str, payload: Value) {
        self.say(json!([null, null, format!("realtime:{NAME}"), event, payload]))
            .await;
    }

    /// The office's doorbell, as a proof rings it.
    pub(super) async fn ring_through(&mut self, nonce: Uuid) {
        let payload = json!({"v": 1, "nonce": nonce});
        self.push(
            "broadcast",
            json!({"type": "broadcast", "event": "proof", "payload": payload}),
        )
        .await;
    }

    /// `phx_close` or `phx_error`, as the server sends them.
    pub(super) async fn end_channel(&mut self, event: &str, join_ref: &str) {
        self.say(json!([join_ref, join_ref, format!("realtime:{NAME}"), event, {}]))
            .await;
    }

    pub(super) async fn close(mut self, code: u16) {
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: "".into(),
        };
        self.socket
            .send(Message::Close(Some(frame)))
            .await
            .expect("closed");
        // Read on until the client has answered, as a real server does.
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}

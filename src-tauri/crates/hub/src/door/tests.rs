//! The door by real sockets, with short limits.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::routing::get;
use futures_util::{SinkExt as _, StreamExt as _};
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_openssl::SslStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::metrics::Metrics;

#[path = "../../tests/support/certificate.rs"]
mod certificate;

/// How long a test waits for something that must come.
const DEADLINE: Duration = Duration::from_secs(30);
/// More than the buffers of both sides take.
const BIG_BYTES: usize = 64 * 1024 * 1024;

/// An open door with a few rooms behind it.
struct Open {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    ending: Ending,
    tasks: TaskTracker,
    /// A request to `/slow` has begun.
    begun: Arc<Notify>,
    /// Lets `/slow` answer.
    answer: CancellationToken,
}

/// What is not meant to run out has this long also where it is slow.
fn short() -> DoorLimits {
    DoorLimits {
        handshake: Duration::from_secs(5),
        first_head: Duration::from_secs(5),
        next_head: Duration::from_secs(5),
        step: Duration::from_secs(5),
        ..DoorLimits::default()
    }
}

fn open(limits: DoorLimits, tls: Option<TlsFiles>) -> Open {
    let door = Door {
        tls,
        limits,
        ..Door::default()
    };
    let opened = Opened::open(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &door).unwrap();
    let (begun, answer) = (Arc::new(Notify::new()), CancellationToken::new());
    let slow = {
        let (begun, answer) = (begun.clone(), answer.clone());
        move || async move {
            begun.notify_one();
            answer.cancelled().await;
            "at last"
        }
    };
    let echo = async |upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(async |mut wire| {
            while let Some(Ok(message)) = wire.next().await {
                if wire.send(message).await.is_err() {
                    return;
                }
            }
        })
    };
    let router = Router::new()
        .route("/", get(async || "hello"))
        .route("/big", get(async || vec![b'x'; BIG_BYTES]))
        .route("/slow", get(slow))
        .route("/echo", get(echo));
    let ending = Ending {
        stop: CancellationToken::new(),
        cut: CancellationToken::new(),
    };
    let (address, metrics, tasks) = (opened.address, Arc::new(Metrics::default()), TaskTracker::new());
    tasks.spawn({
        let (metrics, ending) = (metrics.clone(), ending.clone());
        async move { opened.serve(router, &metrics, ending).await.unwrap() }
    });
    Open {
        address,
        metrics,
        ending,
        tasks,
        begun,
        answer,
    }
}

impl Open {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Waits until so many connections are open.
    async fn holds(&self, wanted: i64) {
        let began = Instant::now();
        while self.metrics.connections.get() != wanted {
            let found = self.metrics.connections.get();
            assert!(
                began.elapsed() < DEADLINE,
                "{found} connections are open, not {wanted}"
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn close(self) {
        self.ending.stop.cancel();
        self.tasks.close();
        timeout(DEADLINE, self.tasks.wait())
            .await
            .expect("the door closes");
    }
}

/// What comes until the other side closes.
async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let read = timeout(DEADLINE, stream.read_to_end(&mut all));
    // A reset is an end, too.
    let _ = read.await.expect("the connection is closed");
    all
}

async fn ask(stream: &mut (impl tokio::io::AsyncWrite + Unpin), path: &str) {
    let head = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
}

/// One answer of a known end.
async fn heard(stream: &mut (impl tokio::io::AsyncRead + Unpin), end: &str) -> String {
    let mut all = Vec::new();
    while !all.ends_with(end.as_bytes()) {
        let byte = timeout(DEADLINE, stream.read_u8())
            .await
            .expect("an answer comes");
        all.push(byte.expect("the whole answer"));
    }
    String::from_utf8(all).unwrap()
}

/// A self-signed certificate.
fn certify(folder: &Path) -> TlsFiles {
    let (certificate, key) = certificate::certify("hub.example");
    let files = TlsFiles {
        certificate: folder.join("hub.crt"),
        key: folder.join("hub.key"),
    };
    std::fs::write(&files.certificate, certificate).unwrap();
    std::fs::write(&files.key, key).unwrap();
    files
}

#[tokio::test]
async fn who_says_nothing_or_speaks_byte_by_byte_is_sent_away_and_keeps_nobody_waiting() {
    let limits = DoorLimits {
        next_head: Duration::from_secs(3600),
        ..short()
    };
    let open = open(limits, None);
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(open.connect().await);
    }
    let mut loris = open.connect().await;
    let (mut reads, mut writes) = loris.split();
    let dribble = async {
        for byte in b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx-long: "
            .iter()
            .chain(std::iter::repeat(&b'x'))
        {
            if writes.write_u8(*byte).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let mut all = Vec::new();
    tokio::select! {
        () = dribble => {}
        ended = timeout(DEADLINE, reads.read_to_end(&mut all)) => assert!(ended.is_ok(), "it is closed"),
    }
    assert!(all.is_empty(), "there is no answer to half a question");
    for stream in &mut silent {
        assert_eq!(rest(stream).await, b"");
    }
    open.holds(0).await;
    let mut good = open.connect().await;
    ask(&mut good, "/").await;
    assert!(heard(&mut good, "hello").await.starts_with("HTTP/1.1 200"));
    open.close().await;
}

#[tokio::test]
async fn who_was_answered_and_asks_nothing_more_is_sent_away_later() {
    let limits = DoorLimits {
        next_head: Duration::from_secs(12),
        ..short()
    };
    let open = open(limits, None);
    let mut stream = open.connect().await;
    ask(&mut stream, "/").await;
    heard(&mut stream, "hello").await;
    // Later than a first question may come.
    sleep(short().first_head).await;
    ask(&mut stream, "/").await;
    heard(&mut stream, "hello").await;
    assert_eq!(rest(&mut stream).await, b"");
    open.close().await;
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let open = open(short(), Some(certify(folder.path())));
    let mut silent = open.connect().await;
    let mut begun = open.connect().await;
    // The beginning of a record that is never finished.
    begun
        .write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01])
        .await
        .unwrap();
    assert_eq!(rest(&mut silent).await, b"");
    rest(&mut begun).await;
    open.holds(0).await;
    open.close().await;
}

async fn greet(open: &Open, offered: &[u8]) -> SslStream<TcpStream> {
    let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_alpn_protos(offered).unwrap();
    let ssl = builder
        .build()
        .configure()
        .unwrap()
        .into_ssl("hub.example")
        .unwrap();
    let mut stream = SslStream::new(ssl, open.connect().await).unwrap();
    std::pin::Pin::new(&mut stream).connect().await.unwrap();
    stream
}

#[tokio::test]
async fn http_2_is_neither_agreed_upon_nor_spoken() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let folder = tempfile::tempdir().unwrap();
    let secure = open(short(), Some(certify(folder.path())));
    let both = greet(&secure, b"\x02h2\x08http/1.1").await;
    assert_eq!(both.ssl().selected_alpn_protocol(), Some(&b"http/1.1"[..]));
    let mut only = greet(&secure, b"\x02h2").await;
    assert_eq!(only.ssl().selected_alpn_protocol(), None);
    only.write_all(PREFACE).await.unwrap();
    assert!(!is_http_2(&rest(&mut only).await));
    secure.close().await;

    let plain = open(DoorLimits::default(), None);
    let mut stream = plain.connect().await;
    stream.write_all(PREFACE).await.unwrap();
    assert!(!is_http_2(&rest(&mut stream).await));
    plain.close().await;
}

/// A server that speaks HTTP/2 begins with a frame of settings.
fn is_http_2(answer: &[u8]) -> bool {
    answer.get(3) == Some(&4)
}

#[tokio::test]
async fn who_does_not_read_a_big_answer_is_cut_off() {
    let open = open(short(), None);
    let mut deaf = open.connect().await;
    ask(&mut deaf, "/big").await;
    heard(&mut deaf, "\r\n\r\n").await;
    open.holds(0).await;
    open.close().await;
}

#[tokio::test]
async fn ten_thousand_connections_are_no_more_than_the_door_holds() {
    let limits = DoorLimits {
        connections: 100,
        next_head: Duration::from_secs(3600),
        next_head_crowded: Duration::from_secs(3600),
        ..DoorLimits::default()
    };
    let open = open(limits, None);
    let mut kept = Vec::new();
    for _ in 0..100 {
        let mut stream = open.connect().await;
        ask(&mut stream, "/").await;
        heard(&mut stream, "hello").await;
        kept.push(stream);
    }
    for _ in 0..10_000 {
        let mut stream = open.connect().await;
        assert_eq!(rest(&mut stream).await, b"");
    }
    assert_eq!(open.metrics.connections.get(), 100);
    assert_eq!(open.metrics.connections_refused.get(), 10_000);
    // Those who were there are served, and a place that is given back is there for the next.
    let mut last = kept.pop().unwrap();
    ask(&mut last, "/").await;
    heard(&mut last, "hello").await;
    drop(last);
    open.holds(99).await;
    let mut next = open.connect().await;
    ask(&mut next, "/").await;
    heard(&mut next, "hello").await;
    open.close().await;
}

#[tokio::test]
async fn where_it_is_crowded_who_says_nothing_makes_room() {
    let limits = DoorLimits {
        of_this_machine: 4,
        next_head: Duration::from_secs(3600),
        next_head_crowded: Duration::from_secs(3),
        ..DoorLimits::default()
    };
    let open = open(limits, None);
    let mut kept = Vec::new();
    for _ in 0..4 {
        let mut stream = open.connect().await;
        ask(&mut stream, "/").await;
        heard(&mut stream, "hello").await;
        kept.push(stream);
    }
    // Two of them came when half of the places were taken.
    open.holds(2).await;
    for stream in &mut kept[2..] {
        assert_eq!(rest(stream).await, b"");
    }
    ask(&mut kept[0], "/").await;
    heard(&mut kept[0], "hello").await;
    let mut next = open.connect().await;
    ask(&mut next, "/").await;
    heard(&mut next, "hello").await;
    open.close().await;
}

#[tokio::test]
async fn who_hangs_up_ends_his_request() {
    let open = open(DoorLimits::default(), None);
    let mut stream = open.connect().await;
    ask(&mut stream, "/slow").await;
    open.begun.notified().await;
    drop(stream);
    open.holds(0).await;
    open.close().await;
}

#[tokio::test]
async fn what_has_begun_is_finished_and_the_rest_ends_at_once() {
    let open = open(DoorLimits::default(), None);
    let mut silent = open.connect().await;
    let mut idle = open.connect().await;
    ask(&mut idle, "/").await;
    heard(&mut idle, "hello").await;
    let mut busy = open.connect().await;
    ask(&mut busy, "/slow").await;
    open.begun.notified().await;
    open.holds(3).await;

    open.ending.stop.cancel();
    assert_eq!(rest(&mut silent).await, b"");
    assert_eq!(rest(&mut idle).await, b"");
    // The port is free for the next hub while this one finishes.
    let next = std::net::TcpListener::bind(open.address).expect("the port is free");
    drop(next);
    open.answer.cancel();
    let answer = String::from_utf8(rest(&mut busy).await).unwrap();
    assert!(answer.ends_with("at last"), "{answer}");
    open.close().await;
}

#[tokio::test]
async fn what_does_not_finish_is_cut_off() {
    let open = open(DoorLimits::default(), None);
    let mut busy = open.connect().await;
    ask(&mut busy, "/slow").await;
    open.begun.notified().await;
    open.ending.stop.cancel();
    open.ending.cut.cancel();
    assert_eq!(rest(&mut busy).await, b"");
    open.close().await;
}

#[tokio::test]
async fn a_websocket_may_be_silent_and_takes_no_place() {
    let open = open(short(), None);
    let url = format!("ws://{}/echo", open.address);
    let (mut wire, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    open.holds(0).await;
    // Two connections that come after it reach every limit a silent one has.
    let mut first = open.connect().await;
    rest(&mut first).await;
    let mut idle = open.connect().await;
    ask(&mut idle, "/").await;
    heard(&mut idle, "hello").await;
    rest(&mut idle).await;
    let said = tokio_tungstenite::tungstenite::Message::text("still here");
    wire.send(said.clone()).await.unwrap();
    assert_eq!(wire.next().await.unwrap().unwrap(), said);
    drop(wire);
    open.close().await;
}

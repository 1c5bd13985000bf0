//! Messages that are never finished: what has come of them counts, and pings within them are no sign of life.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::limits::{alone, set};
use crate::support::{DEADLINE, TestHub, on_own_hub};
use crate::wire::{Socket, room};

const LARGE: usize = 2_900_000;
/// What the hub keeps for the sockets of one network, and what of each does not count.
const OF_ONE_NETWORK: usize = 64 * 1024 * 1024;
const FREE: usize = 16 * 1024;

/// A socket with a channel of its own, and the text of a large broadcast there.
async fn speaker(hub: &TestHub) -> (Socket, String) {
    let mut socket = Socket::open_as(hub, true, &hub.publishable).await;
    let (_, name) = room();
    let config = json!({"broadcast": {"ack": true}});
    socket.joined(&name, &hub.publishable, config).await;
    let payload = json!({"type": "broadcast", "event": "e", "payload": {"x": "x".repeat(LARGE)}});
    (socket, json!(["1", "1", name, "broadcast", payload]).to_string())
}

/// A part of a message.
async fn say(socket: &mut Socket, part: &str, opcode: Data, is_last: bool) {
    let frame = Frame::message(part.to_owned(), OpCode::Data(opcode), is_last);
    socket.wire.send(Message::Frame(frame)).await.unwrap();
}

/// Whether the hub has read all that was sent and is still there.
async fn is_heard(socket: &mut Socket) -> bool {
    if socket.wire.send(Message::Ping(vec![1].into())).await.is_err() {
        return false;
    }
    loop {
        match timeout(DEADLINE, socket.wire.next()).await.expect("an answer") {
            Some(Ok(Message::Pong(_))) => return true,
            Some(Ok(Message::Text(_))) => {}
            _ => return false,
        }
    }
}

#[test]
fn what_is_never_finished_counts_as_it_comes() {
    let _alone = alone();
    on_own_hub(
        |_| {},
        async |hub| {
            set(&hub, |_| {});
            let room_for = OF_ONE_NETWORK / (LARGE - FREE);
            let mut kept: Vec<(Socket, String)> = Vec::new();
            for _ in 0..room_for {
                let (mut socket, text) = speaker(&hub).await;
                let rest = text.len() - 1;
                say(&mut socket, &text[..rest], Data::Text, false).await;
                assert!(is_heard(&mut socket).await, "after {}", kept.len());
                kept.push((socket, text[rest..].to_owned()));
            }
            // One more, in one frame of which the last byte never comes.
            let (mut late, text) = speaker(&hub).await;
            let mut frame = vec![0x81, 0x80 | 127];
            frame.extend_from_slice(&u64::try_from(text.len()).unwrap().to_be_bytes());
            // The mask; zeros change nothing.
            frame.extend_from_slice(&[0; 4]);
            frame.extend_from_slice(&text.as_bytes()[..text.len() - 1]);
            // The hub may hang up before all of it is sent.
            late.wire.get_mut().write_all(&frame).await.ok();
            let end = late.closes().await;
            assert!(end == "closed 1013" || end == "gone", "{end}");
            drop(late);
            // Whoever has his room gets to his end.
            for (socket, rest) in &mut kept {
                say(socket, rest, Data::Continue, true).await;
                let reply = socket.next().await;
                assert_eq!((reply.event.as_str(), reply.status()), ("phx_reply", "ok"));
            }
            drop(kept);
            let mut other = Socket::open_as(&hub, true, &hub.publishable).await;
            other.hears_nothing(&hub).await;
        },
    );
}

#[test]
fn pings_within_a_message_that_does_not_end_keep_nobody_alive() {
    let _alone = alone();
    on_own_hub(
        |_| {},
        async |hub| {
            set(&hub, |_| {});
            let mut socket = Socket::open_as(&hub, true, &hub.publishable).await;
            say(&mut socket, "[", Data::Text, false).await;
            assert!(is_heard(&mut socket).await);
            // Looked at with the next ping.
            set(&hub, |settings| settings.idle_max = Duration::from_millis(500));
            let deadline = Instant::now() + DEADLINE;
            while is_heard(&mut socket).await {
                assert!(Instant::now() < deadline, "it may keep what it has sent for ever");
            }
        },
    );
}

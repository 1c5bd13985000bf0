//! The event stream: `GET /api/v1/events` (WebSocket). Every message is `{"type":"state","state":State}`.
//!
//! The state is small and always sent whole, so a window can never be wrong by a lost patch; bursts are folded into
//! one message per [`STATE_INTERVAL`].

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use serde_json::json;

use crate::access::SUBPROTOCOL;
use crate::server::Shared;

/// At most ten states a second reach a window.
const STATE_INTERVAL: Duration = Duration::from_millis(100);
/// A window that takes no message for so long is cut off; it comes back by itself.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Upgrades and follows.
pub async fn open(State(shared): State<Shared>, upgrade: WebSocketUpgrade) -> Response {
    // The server's own task is over with the upgrade: this one is waited for at the end by itself.
    let windows = shared.windows.clone();
    upgrade
        .protocols([SUBPROTOCOL])
        .on_upgrade(move |socket| windows.track_future(follow(shared, socket)))
}

async fn follow(shared: Shared, mut socket: WebSocket) {
    let mut state = shared.client.state();
    state.mark_changed();
    loop {
        tokio::select! {
            // What was said last comes before the end: a window must know that the core has ended as it was to.
            biased;
            message = socket.recv() => match message {
                None | Some(Err(_) | Ok(Message::Close(_))) => break,
                Some(Ok(_)) => {}
            },
            changed = state.changed() => {
                if changed.is_err() {
                    break;
                }
                let text = {
                    let now = state.borrow_and_update().clone();
                    json!({ "type": "state", "state": *now }).to_string()
                };
                let sent = tokio::time::timeout(SEND_TIMEOUT, socket.send(Message::Text(Utf8Bytes::from(text))));
                if !matches!(sent.await, Ok(Ok(()))) {
                    break;
                }
                tokio::time::sleep(STATE_INTERVAL).await;
            }
            () = shared.stop.cancelled() => break,
        }
    }
}

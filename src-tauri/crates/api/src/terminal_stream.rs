//! A session's live terminal: `GET /api/v1/sessions/<id>/terminal` (WebSocket).
//!
//! To the viewer: text `{"type":"snapshot","offset","cols","rows"}` followed by one binary frame that paints it, then
//! binary frames of output; after a lag a new snapshot; at the end `{"type":"exited","code"}`. From the viewer: binary
//! frames are input; text is `{"type":"resize","cols","rows"}` or `{"type":"ack","bytes"}`. A viewer that does not
//! acknowledge is sent nothing more than [`UNACKED_BYTES_MAX`]; it never slows the agent, it gets a snapshot later.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use client::request::{ErrorCode, RequestError};
use domain::SessionId;
use serde::Deserialize;
use serde_json::{Value, json};
use session::Session;
use terminal::{Seen, Size, Subscription};

use crate::access::SUBPROTOCOL;
use crate::rpc::Failure;
use crate::server::Shared;

/// Output that may be on its way to a viewer without acknowledgement.
const UNACKED_BYTES_MAX: u64 = 1024 * 1024;
/// A viewer that takes no message for so long is cut off; it comes back by itself.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest input frame of a viewer: a big paste.
const INPUT_BYTES_MAX: usize = 1024 * 1024;

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum FromViewer {
    Resize { cols: u16, rows: u16 },
    Ack { bytes: u64 },
}

/// Upgrades and streams.
pub async fn open(
    State(shared): State<Shared>,
    Path(id): Path<SessionId>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let Some(session) = shared.client.session(id) else {
        let message = format!("there is no session {id} on this machine");
        return Failure(RequestError::new(
            ErrorCode::NotFound,
            message,
            "It may have ended; start a new one.",
        ))
        .into_response();
    };
    upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(INPUT_BYTES_MAX)
        .on_upgrade(move |socket| {
            Viewer {
                shared,
                session,
                socket,
                unacked: 0,
            }
            .run()
        })
}

struct Viewer {
    shared: Shared,
    session: Session,
    socket: WebSocket,
    unacked: u64,
}

impl Viewer {
    async fn run(mut self) {
        let Some(mut output) = self.paint().await else {
            return;
        };
        loop {
            let may_send = self.unacked < UNACKED_BYTES_MAX;
            let alive = tokio::select! {
                () = self.shared.stop.cancelled() => false,
                seen = output.next(), if may_send => self.show(seen, &mut output).await,
                message = self.socket.recv() => self.take(message).await,
            };
            if !alive {
                break;
            }
        }
    }

    /// Sends a snapshot; returns the output that follows it.
    async fn paint(&mut self) -> Option<Subscription> {
        let snapshot = self.session.terminal().snapshot();
        let head = json!({
            "type": "snapshot", "offset": snapshot.offset, "cols": snapshot.size.cols, "rows": snapshot.size.rows,
        });
        self.send(text(&head)).await.then_some(())?;
        self.unacked = 0;
        self.send(Message::Binary(Bytes::from(snapshot.ansi)))
            .await
            .then_some(())?;
        Some(self.session.terminal().subscribe(snapshot.offset))
    }

    async fn show(&mut self, seen: Seen, output: &mut Subscription) -> bool {
        match seen {
            Seen::Chunk { bytes, .. } => {
                self.unacked += bytes.len() as u64;
                self.send(Message::Binary(bytes)).await
            }
            Seen::Lagged => match self.paint().await {
                Some(anew) => {
                    *output = anew;
                    true
                }
                None => false,
            },
            Seen::Ended(exit) => {
                self.send(text(&json!({ "type": "exited", "code": exit.code })))
                    .await;
                false
            }
        }
    }

    async fn take(&mut self, message: Option<Result<Message, axum::Error>>) -> bool {
        match message {
            None | Some(Err(_) | Ok(Message::Close(_))) => false,
            Some(Ok(Message::Binary(input))) => {
                if let Err(error) = self.session.keys(input).await {
                    tracing::debug!(%error, "input of a viewer was not taken");
                }
                true
            }
            Some(Ok(Message::Text(said))) => {
                match serde_json::from_str(&said) {
                    Ok(FromViewer::Resize { cols, rows }) => {
                        if let Err(error) = self.session.resize(Size { cols, rows }) {
                            tracing::debug!(%error, "a viewer's size was not taken");
                        }
                    }
                    Ok(FromViewer::Ack { bytes }) => self.unacked = self.unacked.saturating_sub(bytes),
                    Err(error) => tracing::debug!(%error, "a viewer said something unknown"),
                }
                true
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => true,
        }
    }

    async fn send(&mut self, message: Message) -> bool {
        matches!(
            tokio::time::timeout(SEND_TIMEOUT, self.socket.send(message)).await,
            Ok(Ok(()))
        )
    }
}

fn text(value: &Value) -> Message {
    Message::Text(Utf8Bytes::from(value.to_string()))
}

//! From a [`Reply`] to bytes: the event stream of the Messages API, or one JSON body where no stream was asked for.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::reply::{Block, Failure, Gate, Kind, Reply};
use super::request::StubRequest;

/// Bytes of a tool's input per event.
const INPUT_PIECE_CHARS: usize = 24;

pub(super) async fn response(request: &StubRequest, reply: Reply, stop: CancellationToken) -> Response {
    match &reply.kind {
        Kind::Failure(failure) => self::failure(failure),
        Kind::Silence(duration) => silence(*duration, stop).await,
        Kind::ErrorEvent(failure) => {
            let steps = VecDeque::from([Step::event("error", error_body(failure))]);
            event_stream(steps, stop)
        }
        // A broken stream is tried once more without one; that answer is whole.
        Kind::Message(blocks) if !request.stream => whole(request, blocks),
        Kind::Message(blocks) => event_stream(steps_of(request, blocks, &reply), stop),
    }
}

pub(super) fn failure(failure: &Failure) -> Response {
    let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, axum::Json(error_body(failure))).into_response();
    for (name, value) in &failure.headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
        }
    }
    with_request_id(response)
}

fn error_body(failure: &Failure) -> Value {
    json!({
        "type": "error",
        "error": { "type": failure.kind, "message": failure.message },
        "request_id": id("req"),
    })
}

fn whole(request: &StubRequest, blocks: &[Block]) -> Response {
    let content: Vec<Value> = blocks
        .iter()
        .map(|block| match block {
            Block::Text(pieces) => json!({ "type": "text", "text": pieces.concat() }),
            Block::Tool { name, input } => {
                json!({ "type": "tool_use", "id": id("toolu"), "name": name, "input": input })
            }
        })
        .collect();
    let mut message = message_head(request);
    message["content"] = content.into();
    message["stop_reason"] = stop_reason(blocks).into();
    with_request_id(axum::Json(message).into_response())
}

fn message_head(request: &StubRequest) -> Value {
    json!({
        "id": id("msg"), "type": "message", "role": "assistant",
        "model": request.body["model"].as_str().unwrap_or("claude-stub"),
        "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {
            "input_tokens": 100, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 20,
        },
    })
}

fn stop_reason(blocks: &[Block]) -> &'static str {
    match blocks.last() {
        Some(Block::Tool { .. }) => "tool_use",
        Some(Block::Text(_)) | None => "end_turn",
    }
}

/// One step of a stream.
enum Step {
    Event(&'static str, Value),
    Wait(Duration),
    Behind(Gate),
    /// Ends the connection in the middle.
    Cut,
}

impl Step {
    fn event(name: &'static str, data: Value) -> Step {
        Step::Event(name, data)
    }
}

fn steps_of(request: &StubRequest, blocks: &[Block], reply: &Reply) -> VecDeque<Step> {
    let message = message_head(request);
    let mut steps = VecDeque::from([
        Step::event(
            "message_start",
            json!({ "type": "message_start", "message": message }),
        ),
        Step::Wait(reply.pause),
    ]);
    steps.extend(reply.gate.clone().map(Step::Behind));
    let mut pieces = 0;
    for (index, block) in blocks.iter().enumerate() {
        let (start, deltas) = match block {
            Block::Text(words) => (
                json!({ "type": "text", "text": "" }),
                words
                    .iter()
                    .map(|word| json!({ "type": "text_delta", "text": word }))
                    .collect::<Vec<_>>(),
            ),
            Block::Tool { name, input } => (
                json!({ "type": "tool_use", "id": id("toolu"), "name": name, "input": {} }),
                in_pieces(&input.to_string())
                    .into_iter()
                    .map(|piece| json!({ "type": "input_json_delta", "partial_json": piece }))
                    .collect(),
            ),
        };
        let start = json!({ "type": "content_block_start", "index": index, "content_block": start });
        steps.push_back(Step::event("content_block_start", start));
        for delta in deltas {
            let delta = json!({ "type": "content_block_delta", "index": index, "delta": delta });
            steps.push_back(Step::event("content_block_delta", delta));
            pieces += 1;
            if reply.cut_after == Some(pieces) {
                // The pieces before must have left, or the program never sees that it had an answer.
                steps.extend([Step::Wait(Duration::from_millis(50)), Step::Cut]);
                return steps;
            }
            steps.push_back(Step::Wait(reply.pace));
        }
        let end = json!({ "type": "content_block_stop", "index": index });
        steps.push_back(Step::event("content_block_stop", end));
    }
    let delta = json!({
        "type": "message_delta",
        "delta": { "stop_reason": stop_reason(blocks), "stop_sequence": null },
        "usage": { "output_tokens": pieces.max(1) },
    });
    steps.push_back(Step::event("message_delta", delta));
    steps.push_back(Step::event("message_stop", json!({ "type": "message_stop" })));
    steps
}

fn in_pieces(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars
        .chunks(INPUT_PIECE_CHARS)
        .map(|piece| piece.iter().collect())
        .collect()
}

fn event_stream(steps: VecDeque<Step>, stop: CancellationToken) -> Response {
    let body = stream::unfold((steps, stop), |(mut steps, stop)| async move {
        loop {
            let sent: io::Result<Bytes> = match steps.pop_front()? {
                Step::Event(name, data) => Ok(format!("event: {name}\ndata: {data}\n\n").into()),
                Step::Wait(duration) if duration.is_zero() => continue,
                Step::Wait(duration) => {
                    tokio::select! {
                        () = tokio::time::sleep(duration) => continue,
                        () = stop.cancelled() => broken(&mut steps),
                    }
                }
                Step::Behind(gate) => {
                    tokio::select! {
                        () = gate.opened() => continue,
                        () = stop.cancelled() => broken(&mut steps),
                    }
                }
                Step::Cut => broken(&mut steps),
            };
            return Some((sent, (steps, stop)));
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    with_request_id((headers, Body::from_stream(body)).into_response())
}

/// An error from the body makes the server close the connection without the end of the message.
fn broken(steps: &mut VecDeque<Step>) -> io::Result<Bytes> {
    steps.clear();
    Err(io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "cut by the stub",
    ))
}

/// No bytes at all, not even headers, for that long; then the connection is of no more use.
async fn silence(duration: Duration, stop: CancellationToken) -> Response {
    tokio::select! {
        () = tokio::time::sleep(duration) => {}
        () = stop.cancelled() => {}
    }
    StatusCode::GATEWAY_TIMEOUT.into_response()
}

fn with_request_id(mut response: Response) -> Response {
    if let Ok(value) = HeaderValue::from_str(&id("req")) {
        response.headers_mut().insert("request-id", value);
    }
    response
}

fn id(prefix: &str) -> String {
    format!("{prefix}_{}", Uuid::new_v4().simple())
}

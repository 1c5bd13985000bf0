//! `/realtime/v1/…`: the WebSocket's handshake and broadcasts by HTTP.
//!
//! Refusals are HTTP statuses before the upgrade: a client that is let in and thrown out comes back at once.
//! Called by `http`.

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};

use super::channel::Verdict;
use super::codec::{Body, Version};
use super::{broadcast, channel, socket};
use crate::http::{App, Shared};
use crate::identity;
use crate::jwt::TokenFault;

/// Largest frame and message from a client, in bytes.
const FRAME_BYTES_MAX: usize = 5_000_000;
/// Messages in one HTTP broadcast.
const MESSAGES_MAX: usize = 100;
/// Longest topic over HTTP, where it has no prefix, in bytes.
const TOPIC_BYTES_MAX: usize = socket::TOPIC_BYTES_MAX - "realtime:".len();

type Pairs = Query<Vec<(String, String)>>;

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/realtime/v1/websocket", any(websocket))
        .route(
            "/realtime/v1/api/ping",
            get(async || Json(json!({"message": "Success"}))),
        )
        .route("/realtime/v1/api/broadcast", post(broadcasts))
        .route(
            "/realtime/v1/api/broadcast/{topic}/events/{event}",
            post(broadcast_one),
        )
}

fn refused(status: StatusCode, text: impl Into<String>) -> Response {
    (status, Json(json!({"error": text.into()}))).into_response()
}

async fn websocket(
    State(shared): App,
    Query(query): Pairs,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let value = |name: &str| {
        query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let key = identity::text(&headers, "x-api-key").or_else(|| value("apikey"));
    let Some(key) = key.filter(|key| !key.is_empty()) else {
        return refused(StatusCode::UNAUTHORIZED, "API key is missing");
    };
    let claims = match channel::verify(&shared, key) {
        Ok(claims) => claims,
        Err(TokenFault::Expired { .. }) => return refused(StatusCode::UNAUTHORIZED, "Token has expired"),
        Err(fault) => return refused(StatusCode::UNAUTHORIZED, fault.to_string()),
    };
    let Some(version) = Version::read(value("vsn")) else {
        return refused(
            StatusCode::FORBIDDEN,
            "the serializer version is not supported; use 1.0.0 or 2.0.0",
        );
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let Some(place) = shared.realtime.take_place() else {
        return refused(StatusCode::TOO_MANY_REQUESTS, "Too many connected users");
    };
    let tasks = shared.realtime.tasks.clone();
    upgrade
        .max_frame_size(FRAME_BYTES_MAX)
        .max_message_size(FRAME_BYTES_MAX)
        // Counted by the hub's tracker, so that stopping waits for the close frame to be written.
        .on_upgrade(move |wire| {
            tasks.track_future(async move {
                socket::serve(shared, wire, version, claims).await;
                drop(place);
            })
        })
}

async fn broadcasts(State(shared): App, Query(query): Pairs, headers: HeaderMap, body: Bytes) -> Response {
    let Ok(who) = identity::identify(&shared, &headers, &query) else {
        return (StatusCode::UNAUTHORIZED, Json(json!({"message": "Unauthorized"}))).into_response();
    };
    let invalid = |what: &str| {
        (
            StatusCode::UNPROCESSABLE_ENTITY,
            Json(json!({"errors": {"messages": [what]}})),
        )
            .into_response()
    };
    let Ok(Value::Object(mut map)) = serde_json::from_slice(&body) else {
        return invalid("is not an object");
    };
    let Some(Value::Array(messages)) = map.remove("messages") else {
        return invalid("can't be blank");
    };
    if messages.len() > MESSAGES_MAX {
        return invalid("has too many entries");
    }
    for mut message in messages {
        let payload = message.get_mut("payload").map(Value::take);
        let word = |name: &str| {
            message
                .get(name)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
        };
        let (Some(topic), Some(event), Some(payload)) = (word("topic"), word("event"), payload) else {
            return invalid("need topic, event and payload");
        };
        let too_long = topic.len() > TOPIC_BYTES_MAX;
        if too_long || payload.to_string().len() > broadcast::PAYLOAD_BYTES_MAX {
            return invalid("have a topic or a payload that is too large");
        }
        let private = message.get("private").and_then(Value::as_bool).unwrap_or(false);
        let body = Body::Json(Arc::new(payload));
        // A message that may not be sent is dropped without a word, as in the original.
        broadcast::post(&shared, &who, (topic, private), event, &body).await;
    }
    StatusCode::ACCEPTED.into_response()
}

async fn broadcast_one(
    State(shared): App,
    Path((topic, event)): Path<(String, String)>,
    Query(query): Pairs,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Ok(who) = identity::identify(&shared, &headers, &query) else {
        return (StatusCode::UNAUTHORIZED, Json(json!({"message": "Unauthorized"}))).into_response();
    };
    if topic.len() > TOPIC_BYTES_MAX || body.len() > broadcast::PAYLOAD_BYTES_MAX {
        return refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the topic or the payload is too large",
        );
    }
    let private = query
        .iter()
        .any(|(name, value)| name == "private" && value == "true");
    let kind = identity::text(&headers, "content-type").unwrap_or("application/json");
    let body = if kind.starts_with("application/json") {
        match serde_json::from_slice::<Value>(&body) {
            Ok(payload) => Body::Json(Arc::new(payload)),
            Err(error) => return refused(StatusCode::UNPROCESSABLE_ENTITY, format!("not JSON: {error}")),
        }
    } else if kind.starts_with("application/octet-stream") {
        Body::Bytes(body)
    } else {
        return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported Media Type");
    };
    match broadcast::post(&shared, &who, (&topic, private), &event, &body).await {
        Verdict::Yes => StatusCode::ACCEPTED.into_response(),
        Verdict::No => refused(
            StatusCode::FORBIDDEN,
            "You do not have permissions to write to this Channel topic",
        ),
        Verdict::Unknown => refused(
            StatusCode::SERVICE_UNAVAILABLE,
            "the database cannot be asked just now; try again",
        ),
    }
}

//! Broadcasts by HTTP: many in one body, or one whose body is the payload itself.
//!
//! On a private topic only where a policy lets the sender insert. Called by `routes`.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::codec::{Body, Spoken};
use super::policy::{self, Extension};
use super::registry::PREFIX;
use super::routes::{Pairs, refused};
use super::socket;
use crate::http::App;
use crate::identity;

/// Messages in one body.
const MESSAGES_MAX: usize = 100;
/// Longest topic over HTTP, where it has no prefix, in bytes.
const TOPIC_BYTES_MAX: usize = socket::TOPIC_BYTES_MAX - PREFIX.len();
/// Longest event, in bytes.
const EVENT_BYTES_MAX: usize = 255;

/// A message of a body, looked through.
struct Message {
    topic: String,
    private: bool,
    spoken: Spoken,
}

fn unauthorized() -> Response {
    (StatusCode::UNAUTHORIZED, Json(json!({"message": "Unauthorized"}))).into_response()
}

fn too_many(message: &str) -> Response {
    (StatusCode::TOO_MANY_REQUESTS, Json(json!({"message": message}))).into_response()
}

fn invalid(errors: Value) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"errors": errors}))).into_response()
}

/// `POST …/api/broadcast`.
pub(crate) async fn broadcasts(
    State(shared): App,
    Query(query): Pairs,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Ok(who) = identity::identify(&shared, &headers, &query) else {
        return unauthorized();
    };
    let messages = match read(&body, shared.realtime.settings().payload_bytes_max) {
        Ok(messages) => messages,
        Err(errors) => return invalid(errors),
    };
    if !shared
        .realtime
        .may_post(u32::try_from(messages.len()).unwrap_or(u32::MAX))
    {
        return too_many("You have exceeded your rate limit");
    }
    let mut may: HashMap<String, bool> = HashMap::new();
    for message in messages {
        let Message {
            topic,
            private,
            spoken,
        } = message;
        if private && !may.contains_key(&topic) {
            let asked = policy::writes(&shared.database, &who, &topic, Extension::Broadcast).await;
            may.insert(topic.clone(), asked.unwrap_or_default());
        }
        // A message that may not be sent is dropped without a word, as in the original.
        if !private || may.get(&topic) == Some(&true) {
            shared.realtime.broadcast((&topic, private), spoken, None, None);
        }
    }
    StatusCode::ACCEPTED.into_response()
}

/// All messages or none: the error is the `errors` of the answer.
fn read(body: &[u8], payload_bytes_max: usize) -> Result<Vec<Message>, Value> {
    let Ok(Value::Object(mut map)) = serde_json::from_slice(body) else {
        return Err(json!({"messages": ["is invalid"]}));
    };
    let messages = match map.remove("messages") {
        Some(Value::Array(messages)) if messages.len() > MESSAGES_MAX => {
            return Err(json!({"messages": [format!("has more than {MESSAGES_MAX} entries")]}));
        }
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        None | Some(Value::Null | Value::Array(_)) => return Err(json!({"messages": ["can't be blank"]})),
        Some(_) => return Err(json!({"messages": ["is invalid"]})),
    };
    let (mut good, mut faults, mut bad) = (Vec::new(), Vec::new(), false);
    for message in messages {
        match one(message, payload_bytes_max) {
            Ok(message) => {
                good.push(message);
                faults.push(json!({}));
            }
            Err(fault) => {
                bad = true;
                faults.push(fault);
            }
        }
    }
    if bad {
        return Err(json!({"messages": faults}));
    }
    Ok(good)
}

fn one(mut message: Value, payload_bytes_max: usize) -> Result<Message, Value> {
    let payload = message.get_mut("payload").map(Value::take);
    let word = |name: &str, longest: usize| match message.get(name) {
        Some(Value::String(text)) if text.is_empty() => Err(json!({name: ["can't be blank"]})),
        Some(Value::String(text)) if text.len() <= longest => Ok(text.clone()),
        Some(Value::String(_)) => Err(json!({name: [format!("has more than {longest} bytes")]})),
        None | Some(Value::Null) => Err(json!({name: ["can't be blank"]})),
        Some(_) => Err(json!({name: ["is invalid"]})),
    };
    let topic = word("topic", TOPIC_BYTES_MAX)?;
    let event = word("event", EVENT_BYTES_MAX)?;
    let payload = match payload {
        None | Some(Value::Null) => return Err(json!({"payload": ["can't be blank"]})),
        Some(payload @ Value::Object(_)) => payload,
        Some(_) => return Err(json!({"payload": ["is invalid"]})),
    };
    if payload.to_string().len() > payload_bytes_max {
        return Err(json!({"payload": ["Payload size exceeds tenant limit"]}));
    }
    let private = message.get("private").and_then(Value::as_bool).unwrap_or(false);
    let whole = json!({"type": "broadcast", "event": event, "payload": payload}).to_string();
    Ok(Message {
        topic,
        private,
        spoken: Spoken::Text(whole.into()),
    })
}

/// `POST …/api/broadcast/<topic>/events/<event>`: the body is the payload.
pub(crate) async fn broadcast(
    State(shared): App,
    Path((topic, event)): Path<(String, String)>,
    Query(query): Pairs,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Ok(who) = identity::identify(&shared, &headers, &query) else {
        return unauthorized();
    };
    if topic.len() > TOPIC_BYTES_MAX || event.len() > EVENT_BYTES_MAX {
        return invalid(json!({"topic": ["the topic or the event is too long"]}));
    }
    if body.len() > shared.realtime.settings().payload_bytes_max {
        return invalid(json!({"payload": ["Payload size exceeds tenant limit"]}));
    }
    let kind = identity::text(&headers, "content-type").unwrap_or("application/json");
    let body = if kind.starts_with("application/json") {
        if serde_json::from_slice::<IgnoredAny>(&body).is_err() {
            return invalid(json!({"payload": ["is invalid"]}));
        }
        Body::Json(body)
    } else if kind.starts_with("application/octet-stream") {
        Body::Opaque(body)
    } else {
        return refused(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Unsupported Media Type: use application/json or application/octet-stream",
        );
    };
    if !shared.realtime.may_post(1) {
        return too_many("You have exceeded your rate limit");
    }
    let private = query
        .iter()
        .any(|(name, value)| name == "private" && value == "true");
    if private {
        match policy::writes(&shared.database, &who, &topic, Extension::Broadcast).await {
            Ok(true) => {}
            Ok(false) => {
                return refused(
                    StatusCode::FORBIDDEN,
                    "You do not have permissions to write to this Channel topic",
                );
            }
            Err(_) => {
                return refused(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the database cannot be asked just now; try again",
                );
            }
        }
    }
    let meta = None;
    let spoken = Spoken::User { event, body, meta };
    shared.realtime.broadcast((&topic, private), spoken, None, None);
    StatusCode::ACCEPTED.into_response()
}

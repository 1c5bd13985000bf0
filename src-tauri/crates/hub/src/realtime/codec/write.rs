//! Frames to clients.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{Body, Frame, Outgoing, Reference, Spoken, Version};

/// A broadcast with bytes, in Phoenix's own form.
const KIND_BROADCAST: u8 = 2;
/// A broadcast.
const KIND_USER_BROADCAST: u8 = 4;

/// Writes a message for a socket of `version`; `None` when it cannot be told in that version.
pub(crate) fn write(version: Version, message: &Outgoing) -> Option<Frame> {
    match message {
        Outgoing::Message {
            join_ref,
            reference,
            topic,
            event,
            payload,
        } => Some(text(version, join_ref, reference, topic, event, payload)),
        Outgoing::Raw {
            topic,
            event,
            payload,
        } => Some(raw(version, topic, event, payload)),
        Outgoing::Broadcast { topic, spoken } => broadcast(version, topic, spoken),
    }
}

fn text(
    version: Version,
    join_ref: &Reference,
    reference: &Reference,
    topic: &str,
    event: &str,
    payload: &Value,
) -> Frame {
    // Serializer 1.0.0 wants `ref` always, as null where there is none, and knows no `join_ref` from the server.
    let text = match version {
        Version::V1 => {
            json!({"topic": topic, "event": event, "payload": payload, "ref": reference}).to_string()
        }
        Version::V2 => json!([join_ref, reference, topic, event, payload]).to_string(),
    };
    Frame::Text(text.into())
}

/// `payload` is JSON text.
fn raw(version: Version, topic: &str, event: &str, payload: &str) -> Frame {
    let (topic, event) = (json!(topic), json!(event));
    let text = match version {
        Version::V1 => format!(r#"{{"topic":{topic},"event":{event},"ref":null,"payload":{payload}}}"#),
        Version::V2 => format!("[null,null,{topic},{event},{payload}]"),
    };
    Frame::Text(text.into())
}

fn broadcast(version: Version, topic: &str, spoken: &Spoken) -> Option<Frame> {
    match (spoken, version) {
        (Spoken::Text(payload), _) => Some(raw(version, topic, "broadcast", payload)),
        (Spoken::Bytes(_), Version::V1) => None,
        (Spoken::Bytes(data), Version::V2) => {
            let head = [length(topic)?, length("broadcast")?];
            Some(binary(KIND_BROADCAST, &head, &[topic, "broadcast"], data))
        }
        (Spoken::User { event, body, meta }, Version::V2) => kind_4(topic, event, body, meta.as_deref())
            // A part that is longer than its one-byte length can say goes as text.
            .or_else(|| told_as_text(version, topic, event, body, meta.as_deref())),
        (Spoken::User { event, body, meta }, Version::V1) => {
            told_as_text(version, topic, event, body, meta.as_deref())
        }
    }
}

/// `None` for bytes and for what says it is JSON and is not.
fn told_as_text(
    version: Version,
    topic: &str,
    event: &str,
    body: &Body,
    meta: Option<&str>,
) -> Option<Frame> {
    let Body::Json(payload) = body else { return None };
    serde_json::from_slice::<IgnoredAny>(payload).ok()?;
    let payload = std::str::from_utf8(payload).ok()?;
    let meta = meta.map(|meta| format!(r#","meta":{meta}"#)).unwrap_or_default();
    let event = json!(event);
    let whole = format!(r#"{{"type":"broadcast","event":{event},"payload":{payload}{meta}}}"#);
    Some(raw(version, topic, "broadcast", &whole))
}

fn kind_4(topic: &str, event: &str, body: &Body, meta: Option<&str>) -> Option<Frame> {
    let meta = meta.unwrap_or_default();
    let (encoding, payload) = match body {
        Body::Opaque(bytes) => (0, bytes),
        Body::Json(text) => (1, text),
    };
    let head = [length(topic)?, length(event)?, length(meta)?, encoding];
    Some(binary(KIND_USER_BROADCAST, &head, &[topic, event, meta], payload))
}

fn length(text: &str) -> Option<u8> {
    u8::try_from(text.len()).ok()
}

fn binary(kind: u8, head: &[u8], parts: &[&str], data: &Bytes) -> Frame {
    let words: usize = parts.iter().map(|part| part.len()).sum();
    let mut frame = BytesMut::with_capacity(1 + head.len() + words + data.len());
    frame.put_u8(kind);
    frame.put_slice(head);
    for part in parts {
        frame.put_slice(part.as_bytes());
    }
    frame.put_slice(data);
    Frame::Binary(frame.freeze())
}

//! Frames from clients.

use bytes::Bytes;
use serde_json::Value;

use super::{Body, CodecFault, Content, Incoming, Reference, Version, WORD_BYTES_MAX};

/// A push in Phoenix's own form.
const KIND_PUSH: u8 = 0;
/// A broadcast.
const KIND_USER_BROADCAST_PUSH: u8 = 3;
/// `encoding` of a payload that is JSON.
const ENCODING_JSON: u8 = 1;

/// Reads a text frame.
pub(crate) fn read_text(version: Version, text: &str) -> Result<Incoming, CodecFault> {
    let mut value: Value =
        serde_json::from_str(text).map_err(|error| CodecFault::NotJson(error.to_string()))?;
    let mut take = |index: usize, name: &str| match version {
        Version::V1 => value.get_mut(name).map(Value::take),
        Version::V2 => value.get_mut(index).map(Value::take),
    };
    let word = |name: &'static str, value: Option<Value>| match value {
        Some(Value::String(text)) => Ok(text),
        _ => Err(CodecFault::Missing(name)),
    };
    let event_of = |text: String| match text.len() {
        0..=WORD_BYTES_MAX => Ok(text),
        _ => Err(CodecFault::TooLong("event")),
    };
    Ok(Incoming {
        join_ref: reference("join_ref", take(0, "join_ref"))?,
        reference: reference("ref", take(1, "ref"))?,
        topic: word("topic", take(2, "topic"))?,
        event: event_of(word("event", take(3, "event"))?)?,
        content: Content::Json(take(4, "payload").unwrap_or(Value::Null)),
    })
}

/// Kept as it came, so that a reply has the same; what is neither text nor number counts as absent.
fn reference(name: &'static str, value: Option<Value>) -> Result<Reference, CodecFault> {
    match value {
        Some(Value::String(text)) if text.len() > WORD_BYTES_MAX => Err(CodecFault::TooLong(name)),
        Some(value @ (Value::String(_) | Value::Number(_))) => Ok(Some(value)),
        _ => Ok(None),
    }
}

/// Takes the parts of a binary frame one after the other.
struct Parts<'b> {
    bytes: &'b Bytes,
    at: usize,
}

impl Parts<'_> {
    fn text(&mut self, name: &'static str, length: u8) -> Result<String, CodecFault> {
        let end = self.at + usize::from(length);
        let piece = self.bytes.get(self.at..end).ok_or(CodecFault::Short)?;
        self.at = end;
        match std::str::from_utf8(piece) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(CodecFault::NotText(name)),
        }
    }

    fn reference(&mut self, name: &'static str, length: u8) -> Result<Reference, CodecFault> {
        let text = self.text(name, length)?;
        Ok(Some(text).filter(|text| !text.is_empty()).map(Value::String))
    }

    fn rest(&self) -> Bytes {
        self.bytes.slice(self.at.min(self.bytes.len())..)
    }
}

/// Reads a binary frame: kind 3, a client's broadcast, or kind 0, a push with bytes.
pub(crate) fn read_binary(bytes: &Bytes) -> Result<Incoming, CodecFault> {
    match *bytes.first().ok_or(CodecFault::Short)? {
        KIND_PUSH => read_push(bytes),
        KIND_USER_BROADCAST_PUSH => read_broadcast(bytes),
        kind => Err(CodecFault::Kind(kind)),
    }
}

fn read_push(bytes: &Bytes) -> Result<Incoming, CodecFault> {
    let &[_, join_ref, reference, topic, event] = bytes.first_chunk().ok_or(CodecFault::Short)?;
    let mut parts = Parts { bytes, at: 5 };
    Ok(Incoming {
        join_ref: parts.reference("join_ref", join_ref)?,
        reference: parts.reference("ref", reference)?,
        topic: parts.text("topic", topic)?,
        event: parts.text("event", event)?,
        content: Content::Bytes(parts.rest()),
    })
}

fn read_broadcast(bytes: &Bytes) -> Result<Incoming, CodecFault> {
    let &[_, join_ref, reference, topic, event, metadata, encoding] =
        bytes.first_chunk().ok_or(CodecFault::Short)?;
    let mut parts = Parts { bytes, at: 7 };
    let join_ref = parts.reference("join_ref", join_ref)?;
    let reference = parts.reference("ref", reference)?;
    let topic = parts.text("topic", topic)?;
    let event = parts.text("event", event)?;
    let metadata = parts.text("metadata", metadata)?;
    let metadata: Value = match metadata.as_str() {
        "" => Value::Null,
        text => serde_json::from_str(text).map_err(|error| CodecFault::NotJson(error.to_string()))?,
    };
    let body = match encoding {
        ENCODING_JSON => Body::Json(parts.rest()),
        _ => Body::Opaque(parts.rest()),
    };
    let persist = metadata.get("persist");
    Ok(Incoming {
        join_ref,
        reference,
        topic,
        event: "broadcast".to_owned(),
        content: Content::Broadcast {
            event,
            body,
            persist: persist.is_some_and(|wish| wish == &Value::Bool(true) || wish.is_object()),
        },
    })
}

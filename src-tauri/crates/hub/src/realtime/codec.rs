//! Frames of the two serializers (1.0.0 objects, 2.0.0 arrays and binary), to and from one kind of message.
//!
//! Pure and total: any bytes give a message or a fault. Called by `socket`.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

/// Which serializer a socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

impl Version {
    /// Reads the query's `vsn`; absent means 1.0.0, anything unknown is none.
    pub fn read(text: Option<&str>) -> Option<Version> {
        match text {
            None | Some("1.0.0") => Some(Version::V1),
            Some("2.0.0") => Some(Version::V2),
            Some(_) => None,
        }
    }
}

/// Longest `event`, `ref` and `join_ref`, in bytes: what the one-byte lengths of binary frames can say. They are kept
/// and sent back.
const WORD_BYTES_MAX: usize = 255;

/// A message from a client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Incoming {
    pub join_ref: Option<String>,
    pub reference: Option<String>,
    pub topic: String,
    pub event: String,
    pub content: Content,
}

/// What a client's message carries.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Json(Value),
    /// A broadcast pushed in binary form.
    Broadcast {
        event: String,
        body: Body,
    },
}

/// Payload of a broadcast.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    Json(Arc<Value>),
    /// Opaque bytes: for sockets of serializer 2.0.0 only.
    Bytes(Bytes),
}

/// A message to a client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outgoing {
    Message {
        join_ref: Option<String>,
        reference: Option<String>,
        topic: String,
        event: &'static str,
        payload: Value,
    },
    Broadcast {
        topic: String,
        event: String,
        body: Body,
        meta: Option<Value>,
    },
}

/// A frame ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(String),
    Binary(Vec<u8>),
}

/// Why a frame is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecFault {
    #[error("the frame is not JSON: {0}")]
    NotJson(String),
    #[error("the frame has no `{0}`")]
    Missing(&'static str),
    #[error("a binary frame of kind {0} is not understood")]
    Kind(u8),
    #[error("a binary frame is shorter than its lengths say")]
    Short,
    #[error("the frame's `{0}` is longer than {WORD_BYTES_MAX} bytes")]
    TooLong(&'static str),
}

/// Reads a text frame.
pub(crate) fn read_text(version: Version, text: &str) -> Result<Incoming, CodecFault> {
    let mut value: Value =
        serde_json::from_str(text).map_err(|error| CodecFault::NotJson(error.to_string()))?;
    let mut take = |index: usize, name: &str| match version {
        Version::V1 => value.get_mut(name).map(Value::take),
        Version::V2 => value.get_mut(index).map(Value::take),
    };
    let word = |value: Option<Value>| match value {
        Some(Value::String(text)) => Some(text),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let short = |name: &'static str, text: Option<String>| match text {
        Some(text) if text.len() > WORD_BYTES_MAX => Err(CodecFault::TooLong(name)),
        text => Ok(text),
    };
    Ok(Incoming {
        join_ref: short("join_ref", word(take(0, "join_ref")))?,
        reference: short("ref", word(take(1, "ref")))?,
        topic: word(take(2, "topic")).ok_or(CodecFault::Missing("topic"))?,
        event: short("event", word(take(3, "event")))?.ok_or(CodecFault::Missing("event"))?,
        content: Content::Json(take(4, "payload").unwrap_or(Value::Null)),
    })
}

/// Reads a binary frame: kind 3, a client's broadcast.
pub(crate) fn read_binary(bytes: &Bytes) -> Result<Incoming, CodecFault> {
    const KIND_PUSH: u8 = 3;
    let kind = *bytes.first().ok_or(CodecFault::Short)?;
    if kind != KIND_PUSH {
        return Err(CodecFault::Kind(kind));
    }
    let head = bytes.get(1..7).ok_or(CodecFault::Short)?;
    let mut at = 7;
    let mut part = |length: u8| {
        let piece = bytes.get(at..at + usize::from(length)).ok_or(CodecFault::Short)?;
        at += usize::from(length);
        Ok(String::from_utf8_lossy(piece).into_owned())
    };
    let join_ref = part(head[0])?;
    let reference = part(head[1])?;
    let topic = part(head[2])?;
    let event = part(head[3])?;
    part(head[4])?; // metadata: wishes for storage, which this hub does not offer
    let rest = bytes.slice(at..);
    let body = if head[5] == 1 {
        let value = serde_json::from_slice(&rest).map_err(|error| CodecFault::NotJson(error.to_string()))?;
        Body::Json(Arc::new(value))
    } else {
        Body::Bytes(rest)
    };
    Ok(Incoming {
        join_ref: Some(join_ref).filter(|text| !text.is_empty()),
        reference: Some(reference).filter(|text| !text.is_empty()),
        topic,
        event: "broadcast".to_owned(),
        content: Content::Broadcast { event, body },
    })
}

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
        Outgoing::Broadcast {
            topic,
            event,
            body,
            meta,
        } => {
            let binary = (version == Version::V2)
                .then(|| kind_4(topic, event, body, meta))
                .flatten();
            if let Some(frame) = binary {
                return Some(Frame::Binary(frame));
            }
            let Body::Json(payload) = body else { return None };
            let mut outer = json!({"type": "broadcast", "event": event, "payload": payload.as_ref()});
            if let (Some(meta), Some(outer)) = (meta, outer.as_object_mut()) {
                outer.insert("meta".to_owned(), meta.clone());
            }
            Some(text(version, &None, &None, topic, "broadcast", &outer))
        }
    }
}

fn text(
    version: Version,
    join_ref: &Option<String>,
    reference: &Option<String>,
    topic: &str,
    event: &str,
    payload: &Value,
) -> Frame {
    // Serializer 1.0.0 wants `ref` always, as null where there is none, and knows no `join_ref` from the server.
    Frame::Text(match version {
        Version::V1 => {
            json!({"topic": topic, "event": event, "payload": payload, "ref": reference}).to_string()
        }
        Version::V2 => json!([join_ref, reference, topic, event, payload]).to_string(),
    })
}

/// A broadcast to a client; `None` when a part is longer than its one-byte length can say.
fn kind_4(topic: &str, event: &str, body: &Body, meta: &Option<Value>) -> Option<Vec<u8>> {
    const KIND_BROADCAST: u8 = 4;
    let meta = meta.as_ref().map(Value::to_string).unwrap_or_default();
    let length = |text: &str| u8::try_from(text.len()).ok();
    let (encoding, payload) = match body {
        Body::Bytes(bytes) => (0, bytes.to_vec()),
        Body::Json(value) => (1, value.to_string().into_bytes()),
    };
    let mut frame = vec![
        KIND_BROADCAST,
        length(topic)?,
        length(event)?,
        length(&meta)?,
        encoding,
    ];
    for part in [topic.as_bytes(), event.as_bytes(), meta.as_bytes(), &payload] {
        frame.extend_from_slice(part);
    }
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "realtime:office:o1:commands";

    fn bytes(hex: &str) -> Bytes {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn the_captured_broadcast_push_is_read() {
        let frame = bytes(
            "03 01 01 1b 02 00 01 36 37 7265616c74696d653a6f66666963653a6f313a636f6d6d616e6473 6869 7b2261223a317d",
        );
        let message = read_binary(&frame).unwrap();
        assert_eq!(
            (message.topic.as_str(), message.join_ref.as_deref()),
            (TOPIC, Some("6"))
        );
        assert_eq!(message.reference.as_deref(), Some("7"));
        let body = Body::Json(Arc::new(json!({"a": 1})));
        assert_eq!(
            message.content,
            Content::Broadcast {
                event: "hi".to_owned(),
                body
            }
        );
    }

    #[test]
    fn the_captured_broadcast_is_written() {
        let message = Outgoing::Broadcast {
            topic: TOPIC.to_owned(),
            event: "hi".to_owned(),
            body: Body::Json(Arc::new(json!({"a": 1}))),
            meta: Some(json!({"id": "x"})),
        };
        let expected = bytes(
            "04 1b 02 0a 01 7265616c74696d653a6f66666963653a6f313a636f6d6d616e6473 6869 7b226964223a2278227d 7b2261223a317d",
        );
        assert_eq!(
            write(Version::V2, &message),
            Some(Frame::Binary(expected.to_vec()))
        );
        let Some(Frame::Text(text)) = write(Version::V1, &message) else {
            panic!("text")
        };
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value,
            json!({"topic": TOPIC, "event": "broadcast", "ref": null,
                   "payload": {"type": "broadcast", "event": "hi", "payload": {"a": 1}, "meta": {"id": "x"}}})
        );
    }

    #[test]
    fn bytes_cannot_be_told_to_an_old_socket_and_long_parts_go_as_text() {
        let opaque = Outgoing::Broadcast {
            topic: TOPIC.to_owned(),
            event: "bin".to_owned(),
            body: Body::Bytes(Bytes::from_static(&[1, 2, 3])),
            meta: None,
        };
        assert_eq!(write(Version::V1, &opaque), None);
        assert!(matches!(write(Version::V2, &opaque), Some(Frame::Binary(_))));
        let long = Outgoing::Broadcast {
            topic: TOPIC.to_owned(),
            event: "e".repeat(300),
            body: Body::Json(Arc::new(json!({}))),
            meta: None,
        };
        assert!(matches!(write(Version::V2, &long), Some(Frame::Text(_))));
    }

    #[test]
    fn both_serializers_are_read_and_a_null_ref_is_none() {
        let one = r#"{"event":"heartbeat","payload":{},"topic":"phoenix","ref":null,"join_ref":null}"#;
        let message = read_text(Version::V1, one).unwrap();
        assert_eq!((message.reference, message.event.as_str()), (None, "heartbeat"));
        let two = r#"["6","7","realtime:x","phx_join",{"a":1}]"#;
        let message = read_text(Version::V2, two).unwrap();
        assert_eq!(message.join_ref.as_deref(), Some("6"));
        assert_eq!(message.content, Content::Json(json!({"a": 1})));
    }

    #[test]
    fn garbage_is_a_fault_and_never_a_panic() {
        for text in [
            "",
            "[]",
            "{}",
            "7",
            "null",
            "[1,2]",
            "[null,null,null,null,null]",
            "\"x\"",
            "{\"topic\":1}",
        ] {
            assert!(
                read_text(Version::V1, text).is_err() || text.contains("topic"),
                "{text}"
            );
            assert!(read_text(Version::V2, text).is_err(), "{text}");
        }
        for length in 0..9 {
            assert!(read_binary(&Bytes::from(vec![3u8; length])).is_err());
        }
        assert_eq!(
            read_binary(&Bytes::from_static(&[0, 1, 1])),
            Err(CodecFault::Kind(0))
        );
    }
}

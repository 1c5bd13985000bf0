//! Frames of the two serializers (1.0.0 objects, 2.0.0 arrays and binary), to and from one kind of message.
//!
//! Pure and total: any bytes give a message or a fault, any message a frame or nothing. Called by `socket` and
//! `registry`.

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Utf8Bytes;

pub(crate) use read::{read_binary, read_text};
pub(crate) use write::write;

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
pub(crate) const WORD_BYTES_MAX: usize = 255;

/// A `ref` or `join_ref`: text or a number, given back as it came. Absent is null.
pub(crate) type Reference = Option<Value>;

/// A message from a client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Incoming {
    pub join_ref: Reference,
    pub reference: Reference,
    pub topic: String,
    pub event: String,
    pub content: Content,
}

/// What a client's message carries.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Json(Value),
    /// A broadcast pushed in binary form (kind 3).
    Broadcast {
        event: String,
        body: Body,
        /// Wished to be kept for those who come later.
        persist: bool,
    },
    /// Bytes pushed under Phoenix's own binary form (kind 0).
    Bytes(Bytes),
}

/// Payload of a broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// JSON text as its sender wrote it; whether it is JSON is looked at only where it must be put into JSON.
    Json(Bytes),
    /// Opaque bytes: for sockets of serializer 2.0.0 only.
    Opaque(Bytes),
}

impl Body {
    /// The payload's own bytes.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Body::Json(bytes) | Body::Opaque(bytes) => bytes,
        }
    }
}

/// What is said to everybody of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// From a binary push, from HTTP or from the database: kind 4 for 2.0.0, text for 1.0.0.
    User {
        event: String,
        body: Body,
        /// JSON text of an object.
        meta: Option<String>,
    },
    /// From a text push: the whole payload as JSON text, as text for both.
    Text(Arc<str>),
    /// From a push of kind 0: kind 2 for 2.0.0, nothing for 1.0.0.
    Bytes(Bytes),
}

/// A message to a client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outgoing {
    Message {
        join_ref: Reference,
        reference: Reference,
        topic: String,
        event: &'static str,
        payload: Value,
    },
    /// As `Message` without references, with the payload as JSON text.
    Raw {
        topic: String,
        event: &'static str,
        payload: String,
    },
    Broadcast {
        topic: String,
        spoken: Spoken,
    },
}

/// A frame ready to be sent; copies share its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(Utf8Bytes),
    Binary(Bytes),
}

impl Frame {
    /// Bytes it takes on the wire and in a queue.
    pub fn len(&self) -> usize {
        match self {
            Frame::Text(text) => text.len(),
            Frame::Binary(bytes) => bytes.len(),
        }
    }
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
    #[error("a binary frame has a `{0}` that is not text")]
    NotText(&'static str),
    #[error("the frame's `{0}` is longer than {WORD_BYTES_MAX} bytes")]
    TooLong(&'static str),
}

//! Frames of the Realtime protocol, serializer 2.0.0: text arrays both ways, binary broadcasts from the server.
//!
//! Total: any bytes give a [`Frame`] or a [`CodecError`], never a panic. Pure; called by [`super::socket`] and
//! [`super::talk`].

use serde_json::{Value, json};

/// Topic of the socket itself (heartbeats).
pub(super) const PHOENIX: &str = "phoenix";
/// What the wire puts before a channel's name.
pub(super) const TOPIC_PREFIX: &str = "realtime:";

/// Kinds of binary frames (first byte).
const KIND_PUSH: u8 = 0;
const KIND_REPLY: u8 = 1;
const KIND_BROADCAST: u8 = 2;
const KIND_USER_BROADCAST_PUSH: u8 = 3;
const KIND_USER_BROADCAST: u8 = 4;
/// Encoding byte of a user broadcast: its payload is JSON text.
const ENCODING_JSON: u8 = 1;

/// One message, whichever form it came in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Frame {
    /// Which join of the channel it belongs to.
    pub join_ref: Option<String>,
    /// Which message it answers.
    pub reference: Option<String>,
    /// With the `realtime:` prefix.
    pub topic: String,
    /// `phx_reply`, `broadcast` …
    pub event: String,
    /// Its content.
    pub payload: Value,
}

/// Why bytes are no frame. Carries no content: that may be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CodecError {
    /// Text that is no JSON array of five with text where text belongs.
    #[error("a text frame is not [join_ref, ref, topic, event, payload]")]
    Text,
    /// A binary frame that ends before its own lengths say so.
    #[error("a binary frame of kind {kind} is shorter than its header says")]
    Short {
        /// Its first byte.
        kind: u8,
    },
    /// Empty.
    #[error("an empty binary frame")]
    Empty,
    /// A kind that only a newer server sends.
    #[error("a binary frame of unknown kind {kind}")]
    Kind {
        /// Its first byte.
        kind: u8,
    },
    /// A name in a binary frame that is not UTF-8.
    #[error("a binary frame of kind {kind} holds a name that is not UTF-8")]
    Utf8 {
        /// Its first byte.
        kind: u8,
    },
}

impl Frame {
    /// A message of ours.
    pub(super) fn push(
        join_ref: Option<&str>,
        reference: &str,
        topic: &str,
        event: &str,
        payload: Value,
    ) -> Frame {
        Frame {
            join_ref: join_ref.map(str::to_owned),
            reference: Some(reference.to_owned()),
            topic: topic.to_owned(),
            event: event.to_owned(),
            payload,
        }
    }

    /// As text.
    pub(super) fn encode(&self) -> String {
        json!([
            self.join_ref,
            self.reference,
            self.topic,
            self.event,
            self.payload
        ])
        .to_string()
    }

    /// Reads a text frame. A `ref` that is a number is taken as its text.
    pub(super) fn decode_text(text: &str) -> Result<Frame, CodecError> {
        let parts: [Value; 5] = serde_json::from_str(text).map_err(|_| CodecError::Text)?;
        let [join_ref, reference, topic, event, payload] = parts;
        let (Value::String(topic), Value::String(event)) = (topic, event) else {
            return Err(CodecError::Text);
        };
        Ok(Frame {
            join_ref: reference_of(join_ref)?,
            reference: reference_of(reference)?,
            topic,
            event,
            payload,
        })
    }

    /// Reads a binary frame. Supabase sends kind 4 only; the others are Phoenix' own and are taken as well. A payload
    /// that is not JSON is dropped to `null`: a doorbell is a hint, its ringing is what counts.
    pub(super) fn decode_binary(bytes: &[u8]) -> Result<Frame, CodecError> {
        let (&kind, rest) = bytes.split_first().ok_or(CodecError::Empty)?;
        let mut parts = Parts { kind, rest };
        match kind {
            KIND_PUSH => {
                let [join_ref, topic, event] = parts.lengths()?;
                Ok(Frame {
                    join_ref: some(parts.text(join_ref)?),
                    reference: None,
                    topic: parts.text(topic)?,
                    event: parts.text(event)?,
                    payload: json_or_null(parts.rest),
                })
            }
            KIND_REPLY => {
                let [join_ref, reference, topic, status] = parts.lengths()?;
                let (join_ref, reference) = (some(parts.text(join_ref)?), some(parts.text(reference)?));
                let (topic, status) = (parts.text(topic)?, parts.text(status)?);
                let payload = json!({"status": status, "response": json_or_null(parts.rest)});
                Ok(Frame {
                    join_ref,
                    reference,
                    topic,
                    event: "phx_reply".to_owned(),
                    payload,
                })
            }
            KIND_BROADCAST => {
                let [topic, event] = parts.lengths()?;
                Ok(Frame {
                    join_ref: None,
                    reference: None,
                    topic: parts.text(topic)?,
                    event: parts.text(event)?,
                    payload: json_or_null(parts.rest),
                })
            }
            KIND_USER_BROADCAST_PUSH => {
                let [join_ref, reference, topic, event, metadata, encoding] = parts.lengths()?;
                let (join_ref, reference) = (some(parts.text(join_ref)?), some(parts.text(reference)?));
                let frame = parts.user_broadcast(topic, event, metadata, encoding)?;
                Ok(Frame {
                    join_ref,
                    reference,
                    ..frame
                })
            }
            KIND_USER_BROADCAST => {
                let [topic, event, metadata, encoding] = parts.lengths()?;
                parts.user_broadcast(topic, event, metadata, encoding)
            }
            _ => Err(CodecError::Kind { kind }),
        }
    }
}

fn reference_of(value: Value) -> Result<Option<String>, CodecError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) => Ok(Some(number.to_string())),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => Err(CodecError::Text),
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn json_or_null(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or(Value::Null)
}

/// What is left of a binary frame.
struct Parts<'a> {
    kind: u8,
    rest: &'a [u8],
}

impl Parts<'_> {
    /// The one-byte lengths of the header.
    fn lengths<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(CodecError::Short { kind: self.kind })?;
        let head = *head;
        self.rest = rest;
        Ok(head)
    }

    fn text(&mut self, length: u8) -> Result<String, CodecError> {
        let kind = self.kind;
        let (head, rest) = self
            .rest
            .split_at_checked(length.into())
            .ok_or(CodecError::Short { kind })?;
        self.rest = rest;
        std::str::from_utf8(head)
            .map(str::to_owned)
            .map_err(|_| CodecError::Utf8 { kind })
    }

    /// The same content as a text broadcast has.
    fn user_broadcast(
        &mut self,
        topic: u8,
        event: u8,
        metadata: u8,
        encoding: u8,
    ) -> Result<Frame, CodecError> {
        let (topic, event) = (self.text(topic)?, self.text(event)?);
        let metadata = self.text(metadata)?;
        let mut payload = json!({"type": "broadcast", "event": event, "payload": Value::Null});
        if encoding == ENCODING_JSON {
            payload["payload"] = json_or_null(self.rest);
        }
        if !metadata.is_empty() {
            payload["meta"] = json_or_null(metadata.as_bytes());
        }
        Ok(Frame {
            join_ref: None,
            reference: None,
            topic,
            event: "broadcast".to_owned(),
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    const TOPIC: &str = "realtime:office:o1:commands";

    fn bytes(head: &[u8], tail: &[&str]) -> Vec<u8> {
        let mut all = head.to_vec();
        for part in tail {
            all.extend_from_slice(part.as_bytes());
        }
        all
    }

    #[test]
    fn a_broadcast_from_the_server_reads_like_its_text_form() {
        // Captured: 04 1b 02 0a 01 | topic | "hi" | {"id":"x"} | {"a":1}
        let frame = Frame::decode_binary(&bytes(
            &[4, 0x1b, 2, 10, 1],
            &[TOPIC, "hi", r#"{"id":"x"}"#, r#"{"a":1}"#],
        ))
        .expect("a captured frame");
        let expected = json!({"type": "broadcast", "event": "hi", "payload": {"a": 1}, "meta": {"id": "x"}});
        assert_eq!(
            (frame.topic.as_str(), frame.event.as_str(), frame.payload),
            (TOPIC, "broadcast", expected)
        );
    }

    #[test]
    fn the_captured_pushes_of_other_clients_are_read() {
        let json_push = bytes(&[3, 1, 1, 0x1b, 2, 0, 1], &["6", "7", TOPIC, "hi", r#"{"a":1}"#]);
        let frame = Frame::decode_binary(&json_push).expect("a captured frame");
        assert_eq!(
            (frame.join_ref.as_deref(), frame.reference.as_deref()),
            (Some("6"), Some("7"))
        );
        assert_eq!(frame.payload["payload"], json!({"a": 1}));

        let mut opaque = bytes(&[3, 1, 1, 0x1b, 3, 0, 0], &["6", "8", TOPIC, "bin"]);
        opaque.extend_from_slice(&[1, 2, 3]);
        let frame = Frame::decode_binary(&opaque).expect("a captured frame");
        assert_eq!(
            frame.payload,
            json!({"type": "broadcast", "event": "bin", "payload": null})
        );
    }

    #[test]
    fn phoenix_own_binary_forms_are_read() {
        let reply = Frame::decode_binary(&bytes(&[1, 1, 1, 0x1b, 2], &["6", "7", TOPIC, "ok", "{}"]))
            .expect("a reply");
        assert_eq!(reply.payload, json!({"status": "ok", "response": {}}));
        let push =
            Frame::decode_binary(&bytes(&[0, 1, 0x1b, 2], &["6", TOPIC, "ev", "[1]"])).expect("a push");
        assert_eq!(
            (push.join_ref.as_deref(), push.event.as_str(), push.payload),
            (Some("6"), "ev", json!([1]))
        );
        let cast = Frame::decode_binary(&bytes(&[2, 0x1b, 2], &[TOPIC, "ev", "7"])).expect("a broadcast");
        assert_eq!((cast.event.as_str(), cast.payload), ("ev", json!(7)));
    }

    #[test]
    fn text_frames_survive_both_ways() {
        let join = Frame::push(Some("6"), "6", TOPIC, "phx_join", json!({"config": {}}));
        let text = join.encode();
        assert_eq!(
            text,
            format!(r#"["6","6","{TOPIC}","phx_join",{{"config":{{}}}}]"#)
        );
        assert_eq!(Frame::decode_text(&text), Ok(join));
        let beat = Frame::push(None, "10", PHOENIX, "heartbeat", json!({}));
        assert_eq!(beat.encode(), r#"[null,"10","phoenix","heartbeat",{}]"#);
    }

    #[test]
    fn text_that_is_no_frame_is_told_and_nothing_else() {
        for text in [
            "",
            "{}",
            "[]",
            "[1,2,3,4,5]",
            "[null,null,\"t\",\"e\"]",
            "[[],null,\"t\",\"e\",{}]",
            "[null,null,\"t\",\"e\",{},1]",
        ] {
            assert_eq!(Frame::decode_text(text), Err(CodecError::Text), "{text}");
        }
    }

    #[test]
    fn every_cut_of_a_frame_gives_an_error_or_a_frame_without_payload() {
        let whole = bytes(
            &[4, 0x1b, 2, 10, 1],
            &[TOPIC, "hi", r#"{"id":"x"}"#, r#"{"a":1}"#],
        );
        for length in 0..whole.len() {
            match Frame::decode_binary(&whole[..length]) {
                Err(CodecError::Empty | CodecError::Short { kind: 4 }) => {}
                Ok(frame) => assert_eq!(frame.payload["payload"], Value::Null, "cut at {length}"),
                Err(other) => panic!("cut at {length}: {other}"),
            }
        }
        assert_eq!(
            Frame::decode_binary(&[9, 1, 2]),
            Err(CodecError::Kind { kind: 9 })
        );
        assert_eq!(
            Frame::decode_binary(&[4, 1, 0, 0, 1, 0xff]),
            Err(CodecError::Utf8 { kind: 4 })
        );
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..20_000 {
            let length = rng.random_range(0..64);
            let mut noise: Vec<u8> = (0..length).map(|_| rng.random()).collect();
            if let Some(kind) = noise.first_mut() {
                *kind %= 6;
            }
            let _ = Frame::decode_binary(&noise);
            let _ = Frame::decode_text(&String::from_utf8_lossy(&noise));
        }
    }
}

//! Entries for cargo-fuzz: whatever comes over a socket before anybody has signed in.
//!
//! Never part of a program. What a client would read and write is written down here a second time, so that a frame is
//! judged by somebody else than the codec. Called by [`crate::fuzzing`].

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::changes::{self, Condition, Op, Question};
use super::codec::{self, Body, Content, Frame, Incoming, Outgoing, Spoken, Version};
use crate::fuzzing::sql::{Given, Token, check, tokens};

const BOTH: [Version; 2] = [Version::V1, Version::V2];
/// Most brackets of a JSON text that is surely not nested too deeply to be read.
const BRACKETS_MAX: usize = 100;
/// Ids of bindings are below this, as clients expect.
const BINDING_ID_END: u64 = 1 << 27;

/// A frame of either kind, in both serializers. What is read and written again is read as the same, and what is told to
/// others says the same in both serializers.
pub fn realtime_frame(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    if let Ok(incoming) = codec::read_binary(&frame) {
        binary(&frame, &incoming);
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for version in BOTH {
        if let Ok(incoming) = codec::read_text(version, text)
            && let Content::Json(payload) = &incoming.content
        {
            answered(version, &incoming, payload);
            let list = payload.pointer("/config/postgres_changes");
            let list = list.and_then(Value::as_array);
            bindings(list.map(Vec::as_slice).unwrap_or_default());
        }
    }
}

/// The filter of a subscription to row changes: written down again, it is read as the same; what the database is asked
/// has the value as its one parameter.
pub fn realtime_filter(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(conditions) = changes::read_filter(&text) else {
        return;
    };
    // Quotes and parentheses in the name of a column protect commas, too; no real column has them.
    if conditions
        .iter()
        .all(|one| !one.column.contains(['"', '(', ')', '\\', '.', ',']))
    {
        let printed: Vec<String> = conditions.iter().map(shown).collect();
        let printed = printed.join(",");
        assert_eq!(
            changes::read_filter(&printed).as_ref(),
            Ok(&conditions),
            "{printed}"
        );
    }
    for condition in conditions {
        let question = Question {
            column: condition.column,
            operator: changes::operator(condition.op),
            type_name: "\"pg_catalog\".\"text\"".to_owned(),
            value: condition.value,
        };
        let sql = question.sql(1);
        let mut given = Given::default();
        given.name(&question.column);
        given.name("pg_catalog");
        given.name("text");
        assert_eq!(check(&sql, 1, &given), Ok(()), "{sql}");
        let column = Token::Name(question.column.replace('\0', "").into());
        assert!(tokens(&sql).is_ok_and(|all| all.contains(&column)), "{sql}");
    }
}

fn shown(condition: &Condition) -> String {
    let not = if condition.negated { "not." } else { "" };
    let value = match condition.op {
        Op::In => {
            let list = condition
                .value
                .strip_prefix('{')
                .and_then(|rest| rest.strip_suffix('}'));
            format!("({})", list.unwrap_or_default())
        }
        _ => format!(
            "\"{}\"",
            condition.value.replace('\\', "\\\\").replace('"', "\\\"")
        ),
    };
    format!("{}={not}{}.{value}", condition.column, condition.op.name())
}

fn text_of(reference: &Option<Value>) -> &str {
    reference.as_ref().and_then(Value::as_str).unwrap_or_default()
}

/// A binary frame as a client writes it: kind, lengths, words, bytes.
fn pushed(kind: u8, words: &[&str], encoding: Option<u8>, data: &[u8]) -> Bytes {
    let lengths = words
        .iter()
        .map(|word| u8::try_from(word.len()).unwrap_or(u8::MAX));
    let mut frame: Vec<u8> = std::iter::once(kind).chain(lengths).chain(encoding).collect();
    words.iter().for_each(|word| frame.extend(word.as_bytes()));
    frame.extend(data);
    frame.into()
}

fn binary(frame: &Bytes, incoming: &Incoming) {
    let (join_ref, reference) = (text_of(&incoming.join_ref), text_of(&incoming.reference));
    let topic = incoming.topic.as_str();
    match &incoming.content {
        Content::Json(payload) => panic!("JSON out of a binary frame: {payload}"),
        Content::Bytes(data) => {
            let words = [join_ref, reference, topic, incoming.event.as_str()];
            assert_eq!(&pushed(0, &words, None, data), frame);
            told(topic, "broadcast", &Spoken::Bytes(data.clone()), 2, None, data);
        }
        Content::Broadcast { event, body, persist } => {
            let metadata = if *persist { r#"{"persist":true}"# } else { "" };
            let encoding = u8::from(matches!(body, Body::Json(_)));
            let words = [join_ref, reference, topic, event.as_str(), metadata];
            let again = codec::read_binary(&pushed(3, &words, Some(encoding), body.bytes()));
            assert_eq!(again.as_ref(), Ok(incoming));
            // A long one comes by HTTP only.
            for event in [event.clone(), event.repeat(4)] {
                for meta in [None, Some(r#"{"id":"1"}"#.to_owned())] {
                    let spoken = Spoken::User {
                        event: event.clone(),
                        body: body.clone(),
                        meta,
                    };
                    told(topic, &event, &spoken, 4, Some(encoding), body.bytes());
                }
            }
        }
    }
}

/// What others hear of `spoken`, read as the official client reads it.
fn told(topic: &str, event: &str, spoken: &Spoken, kind: u8, encoding: Option<u8>, data: &Bytes) {
    let meta = match spoken {
        Spoken::User { meta, .. } => meta.as_deref(),
        Spoken::Text(_) | Spoken::Bytes(_) => None,
    };
    for version in BOTH {
        let message = Outgoing::Broadcast {
            topic: topic.to_owned(),
            spoken: spoken.clone(),
        };
        match codec::write(version, &message) {
            Some(Frame::Binary(frame)) => {
                assert_eq!(version, Version::V2, "1.0.0 knows no binary frames");
                let words = match encoding {
                    Some(_) => vec![topic, event, meta.unwrap_or_default()],
                    None => vec![topic, event],
                };
                assert_eq!(frame, pushed(kind, &words, encoding, data));
                assert!(words.iter().all(|word| word.len() <= usize::from(u8::MAX)));
            }
            Some(Frame::Text(text)) => {
                assert_eq!(encoding, Some(1), "bytes as text: {text}");
                said(version, &text, topic, event, meta, data);
            }
            None => {
                let json = std::str::from_utf8(data)
                    .is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
                let fits = event.len() <= usize::from(u8::MAX);
                assert!(encoding != Some(1) || !json, "{event} was told to nobody");
                assert!(version == Version::V1 || !fits, "{event} was not told");
            }
        }
    }
}

/// A broadcast as text has topic, event, payload and meta where each serializer has them.
fn said(version: Version, text: &str, topic: &str, event: &str, meta: Option<&str>, payload: &[u8]) {
    assert!(serde_json::from_str::<IgnoredAny>(text).is_ok(), "{text}");
    // Some numbers and half pairs of surrogates are JSON, and cannot be had.
    let Ok(payload) = serde_json::from_slice::<Value>(payload) else {
        return;
    };
    let mut whole = json!({"type": "broadcast", "event": event, "payload": payload});
    if let Some(meta) = meta.and_then(|meta| serde_json::from_str::<Value>(meta).ok()) {
        whole["meta"] = meta;
    }
    let expected = match version {
        Version::V1 => json!({"topic": topic, "event": "broadcast", "ref": null, "payload": whole}),
        Version::V2 => json!([null, null, topic, "broadcast", whole]),
    };
    match serde_json::from_str::<Value>(text) {
        Ok(told) => assert_eq!(told, expected),
        Err(error) => assert!(brackets(text) > BRACKETS_MAX, "{error}: {text}"),
    }
}

fn brackets(text: &str) -> usize {
    text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count()
}

/// An answer with the same references, topic and payload is read as what was read; so is its payload told as text.
fn answered(version: Version, incoming: &Incoming, payload: &Value) {
    let event = "phx_reply";
    let messages = [
        Outgoing::Message {
            join_ref: incoming.join_ref.clone(),
            reference: incoming.reference.clone(),
            topic: incoming.topic.clone(),
            event,
            payload: payload.clone(),
        },
        Outgoing::Raw {
            topic: incoming.topic.clone(),
            event,
            payload: payload.to_string(),
        },
        Outgoing::Broadcast {
            topic: incoming.topic.clone(),
            spoken: Spoken::Text(payload.to_string().into()),
        },
    ];
    for message in messages {
        let Some(Frame::Text(text)) = codec::write(version, &message) else {
            panic!("{message:?} was not written as text");
        };
        let again = codec::read_text(version, &text);
        let Ok(Incoming {
            join_ref,
            reference,
            topic,
            event,
            content: Content::Json(again),
        }) = again
        else {
            panic!("{text} was read as {again:?}");
        };
        let (with_references, expected) = match message {
            Outgoing::Message { .. } => (true, "phx_reply"),
            Outgoing::Raw { .. } => (false, "phx_reply"),
            Outgoing::Broadcast { .. } => (false, "broadcast"),
        };
        assert_eq!(
            (topic.as_str(), event.as_str()),
            (incoming.topic.as_str(), expected)
        );
        assert!(same(&again, payload), "{again} is not {payload}");
        // Serializer 1.0.0 has no `join_ref` from the server.
        let given = |told: &Option<Value>, kept: bool, asked: &Option<Value>| {
            let asked = asked.as_ref().filter(|_| kept).unwrap_or(&Value::Null);
            same(told.as_ref().unwrap_or(&Value::Null), asked)
        };
        assert!(given(&reference, with_references, &incoming.reference), "{text}");
        let has_join_ref = with_references && version == Version::V2;
        assert!(given(&join_ref, has_join_ref, &incoming.join_ref), "{text}");
    }
}

/// Equal, but for the last bit of numbers with a point: reading them is not exact.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let values = || one.values().zip(other.values());
            one.keys().eq(other.keys()) && values().all(|(one, other)| same(one, other))
        }
        (Value::Number(one), Value::Number(other)) if one != other => match (one.as_f64(), other.as_f64()) {
            (Some(one), Some(other)) => (one - other).abs() <= one.abs() * 1e-14,
            _ => false,
        },
        _ => one == other,
    }
}

/// The echo has every entry that is an object, as it came, with an id; what can be followed keeps within the limits.
fn bindings(list: &[Value]) {
    let (echo, read) = changes::read(list);
    let asked: Vec<&Value> = list.iter().filter(|entry| entry.is_object()).collect();
    assert_eq!(echo.len(), asked.len());
    for (echo, asked) in echo.iter().zip(&asked) {
        assert!(
            echo["id"]
                .as_u64()
                .is_some_and(|id| id > 0 && id < BINDING_ID_END)
        );
        let kept = asked.as_object().into_iter().flatten();
        assert!(
            kept.filter(|(name, _)| *name != "id")
                .all(|(name, value)| echo[name] == *value)
        );
    }
    let Ok(bindings) = read else { return };
    assert_eq!(bindings.len(), asked.len());
    for (binding, echo) in bindings.iter().zip(&echo) {
        assert_eq!(echo["id"].as_u64(), Some(u64::from(binding.id)));
        assert!(["INSERT", "UPDATE", "DELETE", "*"].contains(&binding.event.as_str()));
        let everything = binding.schema == "*" || binding.table == "*";
        assert!(binding.select.is_none() || !everything);
        assert!(!binding.shown().is_empty());
    }
}

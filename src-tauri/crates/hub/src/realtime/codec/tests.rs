//! Byte-exact frames as the official clients send and read them, and a seeded storm of others.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use super::*;

const TOPIC: &str = "realtime:office:o1:commands";
const TOPIC_HEX: &str = "7265616c74696d653a6f66666963653a6f313a636f6d6d616e6473";

fn bytes(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn json_body(text: &'static str) -> Body {
    Body::Json(Bytes::from_static(text.as_bytes()))
}

fn told(version: Version, spoken: Spoken) -> Option<Frame> {
    write(
        version,
        &Outgoing::Broadcast {
            topic: TOPIC.to_owned(),
            spoken,
        },
    )
}

fn value(frame: Option<Frame>) -> Value {
    match frame {
        Some(Frame::Text(text)) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_captured_broadcast_pushes_are_read() {
    let message = read_binary(&bytes(&format!(
        "03 01 01 1b 02 00 01 36 37 {TOPIC_HEX} 6869 7b2261223a317d"
    )));
    let expected = Incoming {
        join_ref: Some(json!("6")),
        reference: Some(json!("7")),
        topic: TOPIC.to_owned(),
        event: "broadcast".to_owned(),
        content: Content::Broadcast {
            event: "hi".to_owned(),
            body: json_body(r#"{"a":1}"#),
            persist: false,
        },
    };
    assert_eq!(message, Ok(expected));
    let message = read_binary(&bytes(&format!(
        "03 01 01 1b 03 00 00 36 38 {TOPIC_HEX} 62696e 010203"
    )));
    assert_eq!(
        message.unwrap().content,
        Content::Broadcast {
            event: "bin".to_owned(),
            body: Body::Opaque(Bytes::from_static(&[1, 2, 3])),
            persist: false,
        }
    );
}

#[test]
fn a_wish_to_be_kept_is_read_from_the_metadata() {
    for (metadata, kept) in [
        (r#"{"persist":true}"#, true),
        (r#"{"persist":{"ttl":60}}"#, true),
        (r#"{"persist":false}"#, false),
        (r#"{"other":1}"#, false),
    ] {
        let mut frame = vec![3, 0, 0, 1, 1, u8::try_from(metadata.len()).unwrap(), 1];
        frame.extend_from_slice(format!("te{metadata}{{}}").as_bytes());
        let Content::Broadcast { persist, body, .. } = read_binary(&frame.into()).unwrap().content else {
            panic!("a broadcast")
        };
        assert_eq!((persist, body), (kept, json_body("{}")), "{metadata}");
    }
}

#[test]
fn a_push_of_phoenix_itself_is_read_and_told_to_new_sockets_only() {
    let frame = bytes("00 01 01 01 09 36 37 74 62726f616463617374 010203");
    let message = read_binary(&frame).unwrap();
    assert_eq!(
        (message.topic.as_str(), message.event.as_str()),
        ("t", "broadcast")
    );
    let data = Bytes::from_static(&[1, 2, 3]);
    assert_eq!(message.content, Content::Bytes(data.clone()));
    let expected = bytes(&format!("02 1b 09 {TOPIC_HEX} 62726f616463617374 010203"));
    assert_eq!(
        told(Version::V2, Spoken::Bytes(data.clone())),
        Some(Frame::Binary(expected))
    );
    assert_eq!(told(Version::V1, Spoken::Bytes(data)), None);
}

#[test]
fn the_captured_broadcast_is_written_for_both() {
    let spoken = Spoken::User {
        event: "hi".to_owned(),
        body: json_body(r#"{"a":1}"#),
        meta: Some(r#"{"id":"x"}"#.to_owned()),
    };
    let expected = bytes(&format!(
        "04 1b 02 0a 01 {TOPIC_HEX} 6869 7b226964223a2278227d 7b2261223a317d"
    ));
    assert_eq!(told(Version::V2, spoken.clone()), Some(Frame::Binary(expected)));
    assert_eq!(
        value(told(Version::V1, spoken)),
        json!({"topic": TOPIC, "event": "broadcast", "ref": null,
               "payload": {"type": "broadcast", "event": "hi", "payload": {"a": 1}, "meta": {"id": "x"}}})
    );
}

#[test]
fn a_text_broadcast_stays_the_text_it_was() {
    let spoken = Spoken::Text(r#"{"type":"broadcast","event":"hi","more":[1]}"#.into());
    let payload = json!({"type": "broadcast", "event": "hi", "more": [1]});
    assert_eq!(
        value(told(Version::V2, spoken.clone())),
        json!([null, null, TOPIC, "broadcast", payload])
    );
    assert_eq!(
        value(told(Version::V1, spoken)),
        json!({"topic": TOPIC, "event": "broadcast", "ref": null, "payload": payload})
    );
}

#[test]
fn what_old_sockets_cannot_be_told_is_left_out_and_long_parts_go_as_text() {
    let user = |event: &str, body: Body| Spoken::User {
        event: event.to_owned(),
        body,
        meta: None,
    };
    let opaque = user("bin", Body::Opaque(Bytes::from_static(&[1, 2, 3])));
    assert_eq!(told(Version::V1, opaque.clone()), None);
    assert!(matches!(told(Version::V2, opaque), Some(Frame::Binary(_))));
    let liar = user("e", json_body(r#"{"a":1},"ref":"7""#));
    assert_eq!(
        told(Version::V1, liar),
        None,
        "what is no JSON is not put into JSON"
    );
    let long = user(&"e".repeat(300), json_body("{}"));
    assert!(matches!(told(Version::V2, long), Some(Frame::Text(_))));
}

#[test]
fn both_serializers_are_read_and_references_come_back_as_they_were() {
    let one = r#"{"event":"heartbeat","payload":{},"topic":"phoenix","ref":null,"join_ref":null}"#;
    let message = read_text(Version::V1, one).unwrap();
    assert_eq!((message.reference, message.event.as_str()), (None, "heartbeat"));
    let two = r#"["6",7,"realtime:x","phx_join",{"a":1},"more"]"#;
    let message = read_text(Version::V2, two).unwrap();
    assert_eq!(
        (message.join_ref.clone(), message.reference.clone()),
        (Some(json!("6")), Some(json!(7)))
    );
    assert_eq!(message.content, Content::Json(json!({"a": 1})));
    let reply = Outgoing::Message {
        join_ref: message.join_ref,
        reference: message.reference,
        topic: message.topic,
        event: "phx_reply",
        payload: json!({}),
    };
    assert_eq!(
        value(write(Version::V2, &reply)),
        json!(["6", 7, "realtime:x", "phx_reply", {}])
    );
    assert_eq!(
        value(write(Version::V1, &reply)),
        json!({"topic": "realtime:x", "event": "phx_reply", "payload": {}, "ref": 7})
    );
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
        "[null,null,1,\"e\",{}]",
    ] {
        assert!(read_text(Version::V1, text).is_err(), "{text}");
        assert!(read_text(Version::V2, text).is_err(), "{text}");
    }
    let deep = "[".repeat(100_000);
    assert!(read_text(Version::V2, &deep).is_err());
    let long = json!([null, "r".repeat(256), "t", "e", {}]).to_string();
    assert_eq!(read_text(Version::V2, &long), Err(CodecFault::TooLong("ref")));
    for length in 0..9 {
        assert!(read_binary(&Bytes::from(vec![3u8; length])).is_err());
        assert!(read_binary(&Bytes::from(vec![7u8; length])).is_err());
    }
    assert_eq!(
        read_binary(&Bytes::from_static(&[3, 0, 0, 1, 0, 0, 0, 0xff])),
        Err(CodecFault::NotText("topic"))
    );
}

#[test]
fn a_storm_of_frames_never_panics_and_what_is_read_can_be_told() {
    let mut random = StdRng::seed_from_u64(0x5e_40);
    let shape = br#"[]{}",:\null0123456789realtime:phx_join{"topic":"t","event":"e","payload":{},"ref":"1"}"#;
    for _ in 0..20_000 {
        let length = random.random_range(0..64);
        let mut frame: Vec<u8> = (0..length).map(|_| random.random()).collect();
        if let Some(kind) = frame.first_mut().filter(|_| random.random_bool(0.8)) {
            *kind = if random.random_bool(0.5) { 0 } else { 3 };
        }
        // Small lengths, so that some frames are whole.
        for byte in frame.iter_mut().skip(1).take(6) {
            *byte %= 12;
        }
        if let Ok(Incoming {
            topic,
            content: Content::Broadcast { event, body, .. },
            ..
        }) = read_binary(&frame.into())
        {
            for version in [Version::V1, Version::V2] {
                let (event, body, meta) = (event.clone(), body.clone(), None);
                write(
                    version,
                    &Outgoing::Broadcast {
                        topic: topic.clone(),
                        spoken: Spoken::User { event, body, meta },
                    },
                );
            }
        }
        let text: String = (0..random.random_range(0..80))
            .map(|_| char::from(shape[random.random_range(0..shape.len())]))
            .collect();
        for version in [Version::V1, Version::V2] {
            if let Ok(message) = read_text(version, &text) {
                assert!(message.event.len() <= WORD_BYTES_MAX);
            }
        }
    }
}

//! Entries for cargo-fuzz: whatever comes over a socket before anybody has signed in.
//!
//! Never part of a program. Called by [`crate::fuzzing`].

use bytes::Bytes;

use super::changes;
use super::codec::{self, Content, Outgoing, Spoken, Version};

/// A frame of either kind, in both serializers; what is read is written again for both.
pub fn realtime_frame(data: &[u8]) {
    if let Ok(incoming) = codec::read_binary(&Bytes::copy_from_slice(data))
        && let Content::Broadcast { event, body, .. } = incoming.content
    {
        for version in [Version::V1, Version::V2] {
            let (topic, event, body) = (incoming.topic.clone(), event.clone(), body.clone());
            let meta = None;
            let spoken = Spoken::User { event, body, meta };
            codec::write(version, &Outgoing::Broadcast { topic, spoken });
        }
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for version in [Version::V1, Version::V2] {
        if let Ok(incoming) = codec::read_text(version, text)
            && let Content::Json(payload) = incoming.content
        {
            let list = payload.pointer("/config/postgres_changes");
            let list = list.and_then(serde_json::Value::as_array);
            let (echo, _) = changes::read(list.map(Vec::as_slice).unwrap_or_default());
            assert!(
                echo.iter()
                    .all(|entry| entry["id"].as_u64().is_some_and(|id| id > 0))
            );
        }
    }
}

/// The filter of a subscription to row changes.
pub fn realtime_filter(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(conditions) = changes::read_filter(text)
    {
        assert!(conditions.iter().all(|condition| !condition.op.name().is_empty()));
    }
}

//! Messages of a private topic that were sent before a channel joined it, and those kept for such a channel.
//!
//! Read under the hub's own rights: whoever is given them has shown before that it may read the topic. Called by `join`
//! and `channel`.

use serde_json::Value;
use uuid::Uuid;

use super::codec::{Body, Spoken};
use crate::db;
use crate::error::HubError;
use crate::http::Shared;

/// Messages one join may get.
const REPLAY_MAX: i64 = 25;

/// A kept message.
pub(crate) struct Kept {
    pub id: Uuid,
    pub spoken: Spoken,
}

/// What a join asks for: `since` in milliseconds since 1970, and how many at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    since_ms: i64,
    limit: i64,
}

impl Wish {
    /// Reads `broadcast.replay`; an error when it is there and cannot be read.
    pub fn read(replay: Option<&Value>) -> Result<Option<Wish>, &'static str> {
        /// Year 9999: what the database can say as a time.
        const LATEST_MS: i64 = 253_402_300_799_000;
        let Some(Value::Object(replay)) = replay else {
            return Ok(None);
        };
        let since = replay.get("since").and_then(Value::as_i64);
        let limit = match replay.get("limit") {
            None | Some(Value::Null) => Some(REPLAY_MAX),
            Some(limit) => limit.as_i64(),
        };
        match (since, limit) {
            (Some(since_ms), Some(limit)) if (0..=LATEST_MS).contains(&since_ms) => Ok(Some(Wish {
                since_ms,
                limit: limit.clamp(1, REPLAY_MAX),
            })),
            _ => Err("Replay params are not valid"),
        }
    }
}

/// How a broadcast of the database is told; `meta` as JSON text.
pub(crate) fn spoken(
    event: Option<String>,
    text: Option<String>,
    bytes: Option<Vec<u8>>,
    meta: String,
) -> Spoken {
    let body = match bytes {
        Some(bytes) => Body::Opaque(bytes.into()),
        None => Body::Json(text.unwrap_or_else(|| "null".to_owned()).into()),
    };
    Spoken::User {
        event: event.unwrap_or_default(),
        body,
        meta: Some(meta),
    }
}

/// The newest messages of the private `topic` that were sent since then, oldest first.
pub(crate) async fn kept(shared: &Shared, topic: &str, wish: Wish) -> Result<Vec<Kept>, HubError> {
    let attempt = "read the messages of a topic again";
    let client = db::connection(&shared.database.policy, attempt).await?;
    let rows = client
        .query(
            "select m.id, m.event, m.payload::text, m.binary_payload from realtime.messages m
             where m.topic = $1 and m.private and m.extension = 'broadcast'
               and m.inserted_at >= to_timestamp($2::float8 / 1000) at time zone 'utc'
             order by m.inserted_at desc limit $3",
            &[&topic, &(wish.since_ms as f64), &wish.limit],
        )
        .await
        .map_err(|source| HubError::Database {
            attempt: attempt.to_owned(),
            source,
        })?;
    let mut all: Vec<Kept> = rows
        .iter()
        .map(|row| {
            let id: Uuid = row.get(0);
            let meta = format!(r#"{{"replayed":true,"id":"{id}"}}"#);
            Kept {
                id,
                spoken: spoken(row.get(1), row.get(2), row.get(3), meta),
            }
        })
        .collect();
    all.reverse();
    Ok(all)
}

/// Keeps a client's message of a private topic for those who come later; it is told by whoever calls this.
pub(crate) async fn keep(shared: &Shared, topic: &str, event: &str, body: &Body) -> Result<Uuid, HubError> {
    let attempt = "keep a message for later";
    let fault = |source| HubError::Database {
        attempt: attempt.to_owned(),
        source,
    };
    let (text, bytes): (Option<&str>, Option<&[u8]>) = match body {
        Body::Json(text) => (std::str::from_utf8(text).ok(), None),
        Body::Opaque(bytes) => (None, Some(bytes)),
    };
    let mut client = db::connection(&shared.database.policy, attempt).await?;
    let transaction = client.transaction().await.map_err(fault)?;
    transaction
        .batch_execute("set local realtime.hub_told = 'true'")
        .await
        .map_err(fault)?;
    let row = transaction
        .query_one(
            "insert into realtime.messages (topic, extension, event, payload, binary_payload, private)
             values ($1, 'broadcast', $2, $3::text::jsonb, $4, true) returning id",
            &[&topic, &event, &text, &bytes],
        )
        .await
        .map_err(fault)?;
    transaction.commit().await.map_err(fault)?;
    Ok(row.get(0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_wish_is_read_and_bounded() {
        let wish = |value: Value| Wish::read(Some(&value));
        assert_eq!(Wish::read(None), Ok(None));
        assert_eq!(
            wish(json!({"since": 5, "limit": 1000})),
            Ok(Some(Wish {
                since_ms: 5,
                limit: 25
            }))
        );
        assert_eq!(wish(json!({"since": 5, "limit": 0})).unwrap().unwrap().limit, 1);
        assert_eq!(wish(json!({"since": 5})).unwrap().unwrap().limit, 25);
        for bad in [
            json!({}),
            json!({"since": "now"}),
            json!({"since": 1, "limit": "x"}),
            json!({"since": -1}),
            json!({"since": i64::MAX}),
        ] {
            assert!(wish(bad.clone()).is_err(), "{bad}");
        }
    }
}

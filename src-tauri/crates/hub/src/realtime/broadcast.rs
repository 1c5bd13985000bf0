//! Broadcasts that clients send, over their socket or by HTTP.
//!
//! On a private topic only where a policy lets the sender insert; a refusal over the socket is silent, as in the
//! original. Called by `socket` and `routes`.

use std::sync::Arc;

use serde_json::Value;

use super::channel::{self, Channel, Verdict};
use super::codec::{Body, Content};
use crate::http::Shared;
use crate::jwt::Claims;

/// Largest payload of a broadcast, in bytes; over a socket its whole frame.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 256 * 1024;

/// Sends a channel's broadcast on; true when it was (or need not be) delivered and may be acknowledged.
pub(crate) async fn push(shared: &Shared, channel: &mut Channel, content: Content) -> bool {
    let (event, body) = match content {
        Content::Broadcast { event, body } => (event, body),
        Content::Json(mut payload) => {
            let Some(event) = payload.get("event").and_then(Value::as_str).map(str::to_owned) else {
                return false;
            };
            let inner = payload.get_mut("payload").map(Value::take).unwrap_or_default();
            (event, Body::Json(Arc::new(inner)))
        }
    };
    if channel.private {
        if channel.may_send.is_none() {
            channel.may_send =
                match channel::may_write(&shared.database, &channel.claims, &channel.topic).await {
                    Verdict::Yes => Some(true),
                    Verdict::No => Some(false),
                    Verdict::Unknown => None,
                };
        }
        if channel.may_send != Some(true) {
            return false;
        }
    }
    let except = (!channel.echo).then_some(channel.id);
    shared
        .realtime
        .broadcast((&channel.topic, channel.private), &event, &body, None, except);
    true
}

/// Sends a broadcast that came by HTTP, if the caller may.
pub(crate) async fn post(
    shared: &Shared,
    who: &Claims,
    (topic, private): (&str, bool),
    event: &str,
    body: &Body,
) -> Verdict {
    if private {
        let may = channel::may_write(&shared.database, who, topic).await;
        if may != Verdict::Yes {
            return may;
        }
    }
    shared
        .realtime
        .broadcast((topic, private), event, body, None, None);
    Verdict::Yes
}

//! Broadcasts that clients send, over their socket or by HTTP.
//!
//! On a private topic only where a policy lets the sender insert; a refusal over the socket is silent, as in the
//! original. Called by `socket` and `routes`.

use std::sync::Arc;

use serde_json::Value;

use super::channel::{self, Channel};
use super::codec::{Body, Content};
use crate::http::Shared;
use crate::jwt::Claims;

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
        let may = match channel.may_send {
            Some(known) => known,
            None => channel::may_write(&shared.database, &channel.claims, &channel.topic).await,
        };
        channel.may_send = Some(may);
        if !may {
            return false;
        }
    }
    let except = (!channel.echo).then_some(channel.id);
    shared
        .realtime
        .broadcast((&channel.topic, channel.private), &event, &body, None, except);
    true
}

/// Sends a broadcast that came by HTTP; false when the caller may not.
pub(crate) async fn post(
    shared: &Shared,
    who: &Claims,
    (topic, private): (&str, bool),
    event: &str,
    body: &Body,
) -> bool {
    if private && !channel::may_write(&shared.database, who, topic).await {
        return false;
    }
    shared
        .realtime
        .broadcast((topic, private), event, body, None, None);
    true
}

//! Messages that the hub itself says: replies, `system`, `phx_close`.
//!
//! Pure. Called by `socket`, `channel`, `join` and `subscription`.

use serde_json::{Value, json};

use super::codec::{Incoming, Outgoing, Reference};
use super::registry::PREFIX;

/// A reply has both references of what it answers.
pub(crate) fn reply(incoming: &Incoming, status: &str, response: Value) -> Outgoing {
    Outgoing::Message {
        join_ref: incoming.join_ref.clone(),
        reference: incoming.reference.clone(),
        topic: incoming.topic.clone(),
        event: "phx_reply",
        payload: json!({"status": status, "response": response}),
    }
}

/// An error reply with its reason.
pub(crate) fn refusal(incoming: &Incoming, reason: &str) -> Outgoing {
    reply(incoming, "error", json!({"reason": reason}))
}

/// The channel is over; both references are those of its join.
pub(crate) fn closed(topic: &str, join_ref: Reference) -> Outgoing {
    Outgoing::Message {
        join_ref: join_ref.clone(),
        reference: join_ref,
        topic: topic.to_owned(),
        event: "phx_close",
        payload: json!({}),
    }
}

/// Always with all four keys: one client drops the event otherwise. `topic` with its prefix.
pub(crate) fn system(topic: &str, extension: &str, status: &str, message: &str) -> Outgoing {
    let channel = topic.strip_prefix(PREFIX).unwrap_or(topic);
    Outgoing::Message {
        join_ref: None,
        reference: None,
        topic: topic.to_owned(),
        event: "system",
        payload: json!({"extension": extension, "status": status, "message": message, "channel": channel}),
    }
}

//! Realtime as the official clients see it: every rule at the wire, in both serializers where that matters.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

#[path = "realtime/attacks.rs"]
mod attacks;
#[path = "realtime/broadcast.rs"]
mod broadcast;
#[path = "realtime/changes.rs"]
mod changes;
#[path = "realtime/channels.rs"]
mod channels;
#[path = "realtime/filters.rs"]
mod filters;
#[path = "realtime/hostile.rs"]
mod hostile;
#[path = "realtime/limits.rs"]
mod limits;
#[path = "realtime/new_rights.rs"]
mod new_rights;
#[path = "realtime/office.rs"]
mod office;
#[path = "realtime/policies.rs"]
mod policies;
#[path = "realtime/posts.rs"]
mod posts;
#[path = "realtime/presence.rs"]
mod presence;
#[path = "realtime/quotas.rs"]
mod quotas;
#[path = "realtime/replay.rs"]
mod replay;
#[path = "realtime/rights.rs"]
mod rights;
#[path = "realtime/selects.rs"]
mod selects;
#[path = "realtime/tokens.rs"]
mod tokens;
#[path = "realtime/unfinished.rs"]
mod unfinished;
#[path = "realtime/wire.rs"]
mod wire;

//! One file per table: its row types and the calls on it.

pub(crate) mod counts;
pub(crate) mod inbox;
pub(crate) mod launches;
pub(crate) mod outbox;
pub(crate) mod overview;
pub(crate) mod prune;
pub(crate) mod sessions;
pub(crate) mod turns;

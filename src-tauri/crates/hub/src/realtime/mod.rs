//! Supabase Realtime: channels over a WebSocket, broadcasts, presence and row changes from the database.
//!
//! At most once, as the original: whoever misses a message reads again. Invariants: a private channel is joined
//! only through the policies of `realtime.messages`; a row change reaches only roles that may read the row; no
//! queue grows without limit. Called by `http` (sockets) and [`crate::Hub::start`] (the feed).

mod answers;
mod changes;
mod channel;
mod codec;
mod feed;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod join;
mod meter;
mod outbox;
mod places;
mod policy;
mod posts;
mod presence;
mod registry;
mod replay;
mod routes;
mod settings;
mod socket;
mod subscription;
mod wire;

pub(crate) use feed::{keep_house, listen};
pub(crate) use registry::Realtime;
pub(crate) use routes::routes;
pub use settings::RealtimeSettings;

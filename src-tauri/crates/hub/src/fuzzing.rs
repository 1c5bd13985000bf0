//! Entries for cargo-fuzz: what strangers send, read as far as it gets without a database or a socket.
//!
//! Only with the feature `fuzzing`, never part of a program. Each entry takes any bytes and may only return.

pub use crate::realtime::fuzzing::{realtime_filter, realtime_frame};
pub use crate::rest::fuzzing::{rest_body, rest_query};

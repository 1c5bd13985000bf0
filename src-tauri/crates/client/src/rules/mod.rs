//! The rules by which commands are taken, kept, begun and reported: state machines and functions of values. Events go
//! in, decisions come out; time is an argument. The loop (`event_loop::intake`, `event_loop::lease`, `outbox`) does
//! what they say, and the simulation (`sim`) drives the very same ones.
//!
//! Nothing here waits, reads a clock, speaks to anybody or knows the journal's file.

pub(crate) mod claims;
pub(crate) mod desk;
pub(crate) mod intake;
pub(crate) mod lease;
pub(crate) mod moment;
pub(crate) mod report;

//! The bundled detectors over every recording, over screens that lie, and over screens that are nonsense; and what an
//! owner's own files can do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests, outside a test function"
)]

mod hostile;
mod own_files;
mod player;
mod quoted;
mod rules;
mod timelines;

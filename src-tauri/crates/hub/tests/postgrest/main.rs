//! PostgREST's behaviour over tables of the test's own, against a real Postgres.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod changes;
mod embedding;
mod limits;
mod reading;
mod schema;
mod table;

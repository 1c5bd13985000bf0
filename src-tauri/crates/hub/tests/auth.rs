//! Auth as the official clients see it: every rule at the wire. Names in brackets are those of auth-js' own tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

#[path = "auth/absent.rs"]
mod absent;
#[path = "auth/admin.rs"]
mod admin;
#[path = "auth/attacks.rs"]
mod attacks;
#[path = "auth/door.rs"]
mod door;
#[path = "auth/keys.rs"]
mod keys;
#[path = "auth/limits.rs"]
mod limits;
#[path = "auth/project.rs"]
mod project;
#[path = "auth/refresh.rs"]
mod refresh;
#[path = "auth/schema.rs"]
mod schema;
#[path = "auth/sign_in.rs"]
mod sign_in;
#[path = "auth/sign_up.rs"]
mod sign_up;
#[path = "auth/user.rs"]
mod user;
#[path = "auth/wire.rs"]
mod wire;

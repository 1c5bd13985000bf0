//! Supabase Auth, as far as an office needs it: password sign-in, refresh with rotation, user, sign-out.
//!
//! Sign-up over the network is closed: users are made by [`crate::Hub::ensure_user`]. Never logs an address with
//! its password or token. Called over HTTP by the official clients and our own.

pub(crate) mod attempts;
mod error;
mod routes;
mod session;
pub(crate) mod users;

pub(crate) use routes::routes;

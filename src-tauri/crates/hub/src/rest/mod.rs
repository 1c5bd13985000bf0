//! PostgREST, as far as an office needs it: query string → plan → one statement with parameters → JSON.
//!
//! Invariants: text of a client reaches SQL only as a parameter or as an identifier found in the schema cache and
//! quoted; every request is one transaction under the role of its token. Called over HTTP by Supabase clients.

mod error;
mod parse;
mod plan;
mod request;
mod routes;
mod run;
pub(crate) mod schema;
mod sql;

pub(crate) use routes::routes;

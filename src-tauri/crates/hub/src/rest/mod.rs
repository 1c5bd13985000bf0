//! PostgREST: query string → tree → plan → one statement with parameters → JSON made by Postgres.
//!
//! Invariants: text of a client reaches SQL only as a parameter or as an identifier that is in the schema cache and
//! quoted; every request is one transaction under the role of its token, and reads run read-only. Called over HTTP
//! by Supabase clients.

mod answer;
mod ast;
mod error;
mod functions;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod hint;
mod openapi;
pub(crate) mod outgoing;
mod parse;
mod plan;
mod request;
mod routes;
mod run;
pub(crate) mod schema;
mod sql;
mod status;
mod tables;
pub(crate) mod turns;

pub(crate) use routes::routes;

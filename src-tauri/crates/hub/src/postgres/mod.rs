//! The hub's own Postgres: finding the programs, making the cluster, running the server.
//!
//! Never listens on TCP, never runs as root, and never touches a cluster another hub holds. Called by
//! [`crate::Hub::start`] only.

mod cluster;
mod locate;
mod process;
mod tools;

pub(crate) use cluster::Cluster;
pub(crate) use locate::{Binaries, MAJOR_MIN, locate};
pub(crate) use process::{Server, config_at};
pub(crate) use tools::{Tool, run};

/// Role with all rights inside the hub's database; reachable over the private socket only.
pub(crate) const SUPERUSER: &str = "supabase_admin";
/// Owner of the office's schema, as on Supabase: no superuser.
pub(crate) const OWNER: &str = "postgres";
/// Role the REST side logs in with; it may only become the role of a token.
pub(crate) const AUTHENTICATOR: &str = "authenticator";
/// Name of the database.
pub(crate) const DATABASE: &str = "postgres";

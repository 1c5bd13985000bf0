//! Brings the database up to date: first what Supabase itself would bring (as superuser), then the office's
//! migrations (as `postgres`, no superuser, exactly as they run on a real Supabase).
//!
//! Every file is safe to run twice. One with functions and policies is applied again when its text has changed since;
//! one with tables is not, since `create table if not exists` would change nothing: that is an error, and tables change
//! by new files. A database that has files we do not know (a newer program was here) is left alone as a whole. Called
//! by [`crate::Hub::start`].

use sha2::{Digest as _, Sha256};
use tokio_postgres::Client;

use crate::error::HubError;
use crate::postgres::OWNER;

/// What the hub makes before the migrations.
const BOOTSTRAP: &str = include_str!("bootstrap.sql");

/// What may be done with a file whose text has changed since it was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// Nothing: its statements do not change what is there.
    Tables,
    /// It is applied again.
    Functions,
}

/// The office's schema, in order. Built into the program, so that it needs no files beside it.
const MIGRATIONS: [(&str, Holds, &str); 9] = [
    (
        "0001_tables",
        Holds::Tables,
        include_str!("../../../../migrations/supabase/0001_tables.sql"),
    ),
    (
        "0002_membership",
        Holds::Functions,
        include_str!("../../../../migrations/supabase/0002_membership.sql"),
    ),
    (
        "0003_functions",
        Holds::Functions,
        include_str!("../../../../migrations/supabase/0003_functions.sql"),
    ),
    (
        "0004_doorbell",
        Holds::Functions,
        include_str!("../../../../migrations/supabase/0004_doorbell.sql"),
    ),
    (
        "0005_asks_tables",
        Holds::Tables,
        include_str!("../../../../migrations/supabase/0005_asks_tables.sql"),
    ),
    (
        "0006_asks",
        Holds::Functions,
        include_str!("../../../../migrations/supabase/0006_asks.sql"),
    ),
    (
        "0007_proof",
        Holds::Functions,
        include_str!("../../../../migrations/supabase/0007_proof.sql"),
    ),
    (
        "0008_given",
        Holds::Tables,
        include_str!("../../../../migrations/supabase/0008_given.sql"),
    ),
    (
        "0009_folders",
        Holds::Tables,
        include_str!("../../../../migrations/supabase/0009_folders.sql"),
    ),
];

/// Roles, schemas and functions of Supabase. `superuser`: a connection of the cluster's superuser. `owner`: the role
/// that the office's schema is to belong to.
pub(crate) async fn bootstrap(superuser: &Client, owner: &str) -> Result<(), HubError> {
    // The file is written for Supabase's own name of it, which stands for nothing else there.
    let bootstrap = BOOTSTRAP.replace(OWNER, owner);
    superuser
        .batch_execute(&format!(
            "begin; set local client_min_messages = warning; {bootstrap}; commit"
        ))
        .await
        .map_err(|source| HubError::Database {
            attempt: "set up roles and schemas".to_owned(),
            source,
        })
}

/// The number a file's name begins with.
fn version_of(name: &'static str) -> &'static str {
    name.split('_').next().unwrap_or(name)
}

/// Applies what is new or changed; returns the names of what was applied.
pub(crate) async fn migrate(superuser: &Client, owner: &Client) -> Result<Vec<&'static str>, HubError> {
    let fault = |attempt: String| move |source| HubError::Database { attempt, source };
    let known = superuser
        .query(
            "select version, sha256 from supabase_migrations.schema_migrations",
            &[],
        )
        .await
        .map_err(fault("read the applied migrations".to_owned()))?;
    let known: Vec<(String, String)> = known.iter().map(|row| (row.get(0), row.get(1))).collect();
    let is_newer = |(version, _): &&(String, String)| {
        !MIGRATIONS
            .iter()
            .any(|(name, ..)| version_of(name) == version.as_str())
    };
    if let Some((version, _)) = known.iter().find(is_newer) {
        tracing::warn!(
            version,
            "a newer program has changed this database; its schema is left as it is"
        );
        return Ok(Vec::new());
    }
    let mut applied = Vec::new();
    for (name, holds, sql) in MIGRATIONS {
        let version = version_of(name);
        let sha256: String = Sha256::digest(sql)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        match known.iter().find(|(applied, _)| applied == version) {
            Some((_, before)) if *before == sha256 => continue,
            Some(_) if holds == Holds::Tables => return Err(HubError::OtherTables { file: name }),
            Some(_) | None => {}
        }
        owner
            .batch_execute(&format!(
                "begin; set local client_min_messages = warning; {sql}; commit"
            ))
            .await
            .map_err(fault(format!("apply the migration {name}")))?;
        superuser
            .execute(
                "insert into supabase_migrations.schema_migrations (version, name, sha256) values ($1, $2, $3)
                 on conflict (version) do update set name = excluded.name, sha256 = excluded.sha256, applied_at = now()",
                &[&version, &name, &sha256],
            )
            .await
            .map_err(fault(format!("note that the migration {name} is applied")))?;
        applied.push(name);
    }
    Ok(applied)
}

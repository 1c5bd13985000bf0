//! Brings the database up to date: first what Supabase itself would bring (as superuser), then the office's
//! migrations (as `postgres`, no superuser, exactly as they run on a real Supabase).
//!
//! A file whose text has changed since it was applied is applied again: every file is safe to run twice. What the
//! database has and we do not know (a newer hub was here) is left alone. Called by [`crate::Hub::start`].

use sha2::{Digest as _, Sha256};
use tokio_postgres::Client;

use crate::error::HubError;

/// What the hub makes before the migrations.
const BOOTSTRAP: &str = include_str!("bootstrap.sql");

/// The office's schema, in order. Built into the program, so that it needs no files beside it.
const MIGRATIONS: [(&str, &str); 4] = [
    (
        "0001_tables",
        include_str!("../../../../migrations/supabase/0001_tables.sql"),
    ),
    (
        "0002_membership",
        include_str!("../../../../migrations/supabase/0002_membership.sql"),
    ),
    (
        "0003_functions",
        include_str!("../../../../migrations/supabase/0003_functions.sql"),
    ),
    (
        "0004_doorbell",
        include_str!("../../../../migrations/supabase/0004_doorbell.sql"),
    ),
];

/// Roles, schemas and functions of Supabase. `superuser`: a connection of the cluster's superuser.
pub(crate) async fn bootstrap(superuser: &Client) -> Result<(), HubError> {
    superuser
        .batch_execute(&format!(
            "begin; set local client_min_messages = warning; {BOOTSTRAP}; commit"
        ))
        .await
        .map_err(|source| HubError::Database {
            attempt: "set up roles and schemas".to_owned(),
            source,
        })
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
    let mut applied = Vec::new();
    for (name, sql) in MIGRATIONS {
        let version = name.split('_').next().unwrap_or(name);
        let sha256: String = Sha256::digest(sql)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let same = |row: &tokio_postgres::Row| {
            row.get::<_, String>("version") == version && row.get::<_, String>("sha256") == sha256
        };
        if known.iter().any(same) {
            continue;
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

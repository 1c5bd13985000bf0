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

/// What the hub makes before the migrations.
const BOOTSTRAP: &str = include_str!("bootstrap.sql");
/// What stands in it for the role that the office's schema is to belong to.
const OWNER_PLACE: &str = "{owner}";

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
        Holds::Functions,
        include_str!("../../../../migrations/supabase/0009_folders.sql"),
    ),
];

/// Roles, schemas and functions of Supabase. `superuser`: a connection of the cluster's superuser. `owner`: the role
/// that the office's schema is to belong to.
pub(crate) async fn bootstrap(superuser: &Client, owner: &str) -> Result<(), HubError> {
    let unproven = unproven(superuser).await?;
    let bootstrap = BOOTSTRAP.replace(OWNER_PLACE, owner);
    superuser
        .batch_execute(&format!(
            "begin; set local client_min_messages = warning; {bootstrap}; commit"
        ))
        .await
        .map_err(|source| HubError::Database {
            attempt: "set up roles and schemas".to_owned(),
            source,
        })?;
    if unproven > 0 {
        tracing::warn!(
            accounts = unproven,
            "the accounts that were made before this version count as vouched for, also those that took their address \
             themselves; if sign-up was ever on, look through `semo hub member list` before you let one into an office"
        );
    }
    Ok(())
}

/// Accounts of a time when it was not written down who stands for their addresses; from [`bootstrap`] on it is.
async fn unproven(superuser: &Client) -> Result<i64, HubError> {
    let fault = |source| HubError::Database {
        attempt: "look at the accounts of before".to_owned(),
        source,
    };
    let is_older = superuser
        .query_one(
            "select to_regclass('auth.users') is not null and not exists
               (select from pg_attribute where attrelid = to_regclass('auth.users') and attname = 'hub_vouched'
                   and not attisdropped)",
            &[],
        )
        .await
        .map_err(fault)?;
    if !is_older.get::<_, bool>(0) {
        return Ok(0);
    }
    let accounts = superuser
        .query_one("select count(*) from auth.users", &[])
        .await
        .map_err(fault)?;
    Ok(accounts.get(0))
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

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::postgres::OWNER;
    use crate::source::Source;

    #[tokio::test]
    async fn accounts_from_before_there_was_a_word_about_their_address_are_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::for_test(folder.path()).await;
        let tasks = TaskTracker::new();
        let client = source.superuser().open(&tasks, "for a test").await.unwrap();
        assert_eq!(unproven(&client).await.unwrap(), 0, "there is nothing yet");
        bootstrap(&client, OWNER).await.unwrap();
        client
            .batch_execute(
                "insert into auth.users (id, email) values (gen_random_uuid(), 'one@office.example'),
                                                           (gen_random_uuid(), 'two@office.example')",
            )
            .await
            .unwrap();
        assert_eq!(unproven(&client).await.unwrap(), 0, "they are the owner's");
        let older = "alter table auth.users drop column hub_vouched";
        client.batch_execute(older).await.unwrap();
        assert_eq!(unproven(&client).await.unwrap(), 2);
        bootstrap(&client, OWNER).await.unwrap();
        assert_eq!(unproven(&client).await.unwrap(), 0);
        drop(client);
        source.stop().await.unwrap();
    }
}

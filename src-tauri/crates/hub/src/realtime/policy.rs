//! What the policies of `realtime.messages` let somebody do on a private topic.
//!
//! Asked in transactions that are rolled back: reading by rows that are laid out and looked for, writing by a trial
//! insert. No answer is never taken for a yes. Called by `join`, `channel` and `posts`.

use serde_json::Value;
use uuid::Uuid;

use crate::db::{self, Database};
use crate::error::explained;
use crate::jwt::Claims;

/// How long the database may think about a policy, in milliseconds.
const POLICY_MS: &str = "3000";

/// What a policy speaks of, as `realtime.messages.extension` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extension {
    Broadcast,
    Presence,
}

impl Extension {
    fn name(self) -> &'static str {
        match self {
            Extension::Broadcast => "broadcast",
            Extension::Presence => "presence",
        }
    }
}

/// The policies gave no answer, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// There was no connection to be had.
    NoConnection(String),
    /// The database could not answer: too slow, restarting, ….
    Trouble(String),
}

/// What may be read; absent is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reads {
    pub broadcast: bool,
    pub presence: Option<bool>,
}

impl Reads {
    /// Whether something may not be read any more that could be before.
    pub fn lost_since(self, before: Reads) -> bool {
        (before.broadcast && !self.broadcast)
            || (before.presence == Some(true) && self.presence != Some(true))
    }
}

/// Whether `who` may read broadcasts of the private `topic`, and presence if `presence` is asked.
pub(crate) async fn reads(
    database: &Database,
    who: &Claims,
    topic: &str,
    presence: bool,
) -> Result<Reads, Unanswered> {
    let (broadcast_id, presence_id) = (Uuid::new_v4(), Uuid::new_v4());
    let mut client = connection(database).await?;
    let asked = async {
        let transaction = client.transaction().await?;
        let insert = transaction
            .prepare_cached(
                "insert into realtime.messages (id, topic, extension, event, payload, private)
                 select w.id, $1, w.extension, 'probe', '{}', true
                 from unnest($2::uuid[], $3::text[]) w (id, extension)",
            )
            .await?;
        let (ids, extensions): (Vec<Uuid>, Vec<&str>) = if presence {
            (vec![broadcast_id, presence_id], vec!["broadcast", "presence"])
        } else {
            (vec![broadcast_id], vec!["broadcast"])
        };
        transaction.execute(&insert, &[&topic, &ids, &extensions]).await?;
        become_client(&transaction, who, topic).await?;
        let look = transaction
            .prepare_cached("select id from realtime.messages where id = any ($1) and topic = $2")
            .await?;
        let visible = transaction.query(&look, &[&ids, &topic]).await?;
        transaction.rollback().await?;
        Ok::<Vec<Uuid>, tokio_postgres::Error>(visible.iter().map(|row| row.get(0)).collect())
    };
    match asked.await {
        Ok(visible) => Ok(Reads {
            broadcast: visible.contains(&broadcast_id),
            presence: presence.then(|| visible.contains(&presence_id)),
        }),
        Err(error) if db::is_trouble(&error) => Err(Unanswered::Trouble(explained(&error))),
        Err(error) => {
            tracing::debug!(error = explained(&error), topic, "a policy refused with an error");
            Ok(Reads {
                broadcast: false,
                presence: presence.then_some(false),
            })
        }
    }
}

/// Whether `who` may write `extension` on the private `topic`.
pub(crate) async fn writes(
    database: &Database,
    who: &Claims,
    topic: &str,
    extension: Extension,
) -> Result<bool, Unanswered> {
    let mut client = connection(database).await?;
    let asked = async {
        let transaction = client.transaction().await?;
        become_client(&transaction, who, topic).await?;
        let insert = transaction
            .prepare_cached(
                "insert into realtime.messages (topic, extension, event, payload, private)
                 values ($1, $2, 'probe', '{}', true)",
            )
            .await?;
        transaction.execute(&insert, &[&topic, &extension.name()]).await?;
        transaction.rollback().await
    };
    match asked.await {
        Ok(()) => Ok(true),
        Err(error) if db::is_trouble(&error) => {
            tracing::warn!(error = explained(&error), topic, "a policy could not be asked");
            Err(Unanswered::Trouble(explained(&error)))
        }
        Err(_) => Ok(false),
    }
}

async fn connection(database: &Database) -> Result<deadpool_postgres::Object, Unanswered> {
    database
        .policy
        .get()
        .await
        .map_err(|error| Unanswered::NoConnection(db::pool_reason(&error)))
}

/// Sets role, topic and claims for the rest of the transaction, as Supabase's server does.
async fn become_client(
    transaction: &deadpool_postgres::Transaction<'_>,
    who: &Claims,
    topic: &str,
) -> Result<(), tokio_postgres::Error> {
    let sub = who.all.get("sub").and_then(Value::as_str).unwrap_or_default();
    let claims = Value::Object(who.all.clone()).to_string();
    let setup = transaction
        .prepare_cached(
            "select set_config('statement_timeout', $1, true), set_config('realtime.topic', $2, true),
                    set_config('request.jwt.claims', $3, true), set_config('request.jwt.claim.sub', $4, true),
                    set_config('request.jwt.claim.role', $5, true), set_config('request.headers', '{}', true),
                    set_config('role', $5, true)",
        )
        .await?;
    transaction
        .execute(&setup, &[&POLICY_MS, &topic, &claims, &sub, &who.role])
        .await?;
    Ok(())
}

//! Joining a channel: whose token, may it read, what does it want to follow.
//!
//! A private channel is decided by the policies of `realtime.messages`, asked in a transaction that is rolled
//! back. Called by `socket`.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::changes::{self, Binding};
use super::registry::{Member, Outbox};
use crate::db::{self, Database};
use crate::error::explained;
use crate::http::Shared;
use crate::jwt::{self, Claims, TokenFault};

/// How long the database may think about a policy, in milliseconds.
const POLICY_MS: &str = "3000";

/// A channel as its socket knows it.
#[derive(Debug)]
pub(crate) struct Channel {
    /// Id in the registry.
    pub id: u64,
    /// Topic without its prefix.
    pub topic: String,
    pub join_ref: Option<String>,
    pub private: bool,
    pub claims: Claims,
    /// The token last accepted; absent when the socket's key is used.
    pub token: Option<String>,
    /// Whether broadcasts are acknowledged.
    pub ack: bool,
    /// Whether the sender gets its own broadcasts.
    pub echo: bool,
    /// Whether this channel may broadcast on a private topic; asked when first needed.
    pub may_send: Option<bool>,
    pub bindings: Arc<Vec<Binding>>,
}

/// A channel that was let in, and what its client is told.
pub(crate) struct Joined {
    pub channel: Channel,
    pub response: Value,
    /// `presence_state` is wanted.
    pub presence: bool,
    /// Status and message of the `system` event for postgres_changes.
    pub system: Option<(&'static str, String)>,
}

/// Lets a channel in, or says why not.
pub(crate) async fn join(
    shared: &Shared,
    outbox: &Outbox,
    socket_claims: &Claims,
    topic: &str,
    join_ref: Option<String>,
    payload: &Value,
) -> Result<Joined, String> {
    if topic.is_empty() {
        return Err("TopicNameRequired: You must provide a topic name".to_owned());
    }
    let token = payload
        .get("access_token")
        .or_else(|| payload.get("user_token"))
        .and_then(Value::as_str)
        .filter(|token| !token.starts_with("sb_"))
        .map(str::to_owned);
    let claims = match &token {
        Some(token) => verify(shared, token).map_err(|fault| format!("{}: {fault}", fault_name(&fault)))?,
        None => socket_claims.clone(),
    };
    let config = payload.get("config").cloned().unwrap_or_default();
    let private = flag(&config, "/private");
    let may_receive = if private {
        may_join(shared, &claims, topic).await?
    } else {
        true
    };
    let asked = config
        .get("postgres_changes")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let (echo, read) = changes::read(asked);
    let (bindings, mut system) = match read {
        Ok(bindings) => (Arc::new(bindings), None),
        Err(reason) => (Arc::default(), Some(("error", reason))),
    };
    // In the registry first, captured second, told third: no change between the answer and the `system` event is lost.
    let id = shared.realtime.add(Member {
        outbox: outbox.clone(),
        topic: topic.to_owned(),
        private,
        claims: claims.clone(),
        may_receive,
        bindings: bindings.clone(),
    });
    if !bindings.is_empty() {
        system = Some(
            match changes::subscribe(&shared.database, &claims.role, &bindings).await {
                Ok(()) => ("ok", "Subscribed to PostgreSQL".to_owned()),
                Err(reason) => ("error", reason),
            },
        );
    }
    let channel = Channel {
        id,
        topic: topic.to_owned(),
        join_ref,
        private,
        claims,
        token,
        ack: flag(&config, "/broadcast/ack"),
        echo: flag(&config, "/broadcast/self"),
        may_send: None,
        bindings,
    };
    let response = json!({"postgres_changes": echo});
    Ok(Joined {
        channel,
        response,
        presence: flag(&config, "/presence/enabled"),
        system,
    })
}

/// Whether a private channel gets broadcasts, or why it is not let in.
async fn may_join(shared: &Shared, who: &Claims, topic: &str) -> Result<bool, String> {
    match may_read(&shared.database, who, topic).await {
        Reading::Broadcasts => Ok(true),
        Reading::PresenceOnly => Ok(false),
        Reading::No => Err(format!(
            "Unauthorized: You do not have permissions to read from this Channel topic: {topic}"
        )),
        Reading::Unknown(reason) => Err(format!("DatabaseLackOfConnections: {reason}")),
    }
}

/// Checks a token as Realtime does: no second of grace.
pub(crate) fn verify(shared: &Shared, token: &str) -> Result<Claims, TokenFault> {
    match crate::identity::key_role(&shared.keys, token) {
        Some(role) => Ok(crate::identity::key_claims(role)),
        None => jwt::verify(token, &shared.keys.jwt_secret, shared.clock.now(), 0),
    }
}

fn fault_name(fault: &TokenFault) -> &'static str {
    match fault {
        TokenFault::Malformed { .. } => "MalformedJWT",
        TokenFault::Signature => "JwtSignatureError",
        TokenFault::Expired { .. } | TokenFault::NotYet | TokenFault::Incomplete => "InvalidJWTToken",
    }
}

/// A boolean, which clients may also send as text.
fn flag(config: &Value, pointer: &str) -> bool {
    match config.pointer(pointer) {
        Some(Value::Bool(flag)) => *flag,
        Some(Value::String(text)) => text == "true",
        _ => false,
    }
}

/// What the policies say about joining a private topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reading {
    Broadcasts,
    /// Joined, but broadcasts are not for it.
    PresenceOnly,
    No,
    /// They could not be asked, and why: no verdict.
    Unknown(String),
}

/// What the policies say about sending on a private topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Yes,
    No,
    /// They could not be asked: not to be remembered.
    Unknown,
}

/// Whether `who` may join the private `topic`.
pub(crate) async fn may_read(database: &Database, who: &Claims, topic: &str) -> Reading {
    let (broadcast, presence) = (Uuid::new_v4(), Uuid::new_v4());
    let mut client = match database.admin.get().await {
        Ok(client) => client,
        Err(error) => return Reading::Unknown(db::pool_reason(&error)),
    };
    let asked = async {
        let transaction = client.transaction().await?;
        transaction
            .execute(
                "insert into realtime.messages (id, topic, extension, event, payload, private)
                 values ($1, $3, 'broadcast', 'probe', '{}', true), ($2, $3, 'presence', 'probe', '{}', true)",
                &[&broadcast, &presence, &topic],
            )
            .await?;
        become_client(&transaction, who, topic).await?;
        let visible = transaction
            .query(
                "select extension from realtime.messages where id in ($1, $2) and topic = $3",
                &[&broadcast, &presence, &topic],
            )
            .await?;
        transaction.rollback().await?;
        Ok::<Vec<String>, tokio_postgres::Error>(visible.iter().map(|row| row.get(0)).collect())
    };
    match asked.await {
        Ok(visible) if visible.iter().any(|extension| extension == "broadcast") => Reading::Broadcasts,
        Ok(visible) if visible.is_empty() => Reading::No,
        Ok(_) => Reading::PresenceOnly,
        Err(error) if db::is_trouble(&error) => Reading::Unknown(explained(&error)),
        Err(error) => {
            tracing::debug!(error = explained(&error), topic, "a policy refused with an error");
            Reading::No
        }
    }
}

/// Whether `who` may broadcast on the private `topic`: a trial insert that is rolled back.
pub(crate) async fn may_write(database: &Database, who: &Claims, topic: &str) -> Verdict {
    let mut client = match database.admin.get().await {
        Ok(client) => client,
        Err(error) => {
            tracing::warn!(
                reason = db::pool_reason(&error),
                topic,
                "a policy could not be asked"
            );
            return Verdict::Unknown;
        }
    };
    let asked = async {
        let transaction = client.transaction().await?;
        become_client(&transaction, who, topic).await?;
        transaction
            .execute(
                "insert into realtime.messages (topic, extension, event, payload, private)
                 values ($1, 'broadcast', 'probe', '{}', true)",
                &[&topic],
            )
            .await?;
        transaction.rollback().await
    };
    match asked.await {
        Ok(()) => Verdict::Yes,
        Err(error) if db::is_trouble(&error) => {
            tracing::warn!(error = explained(&error), topic, "a policy could not be asked");
            Verdict::Unknown
        }
        Err(_) => Verdict::No,
    }
}

/// Sets role, topic and claims for the rest of the transaction, as Supabase's server does.
async fn become_client(
    transaction: &deadpool_postgres::Transaction<'_>,
    who: &Claims,
    topic: &str,
) -> Result<(), tokio_postgres::Error> {
    let sub = who.all.get("sub").and_then(Value::as_str).unwrap_or_default();
    let claims = Value::Object(who.all.clone()).to_string();
    transaction
        .execute(
            "select set_config('statement_timeout', $1, true), set_config('realtime.topic', $2, true),
                    set_config('request.jwt.claims', $3, true), set_config('request.jwt.claim.sub', $4, true),
                    set_config('request.jwt.claim.role', $5, true), set_config('request.headers', '{}', true),
                    set_config('role', $5, true)",
            &[&POLICY_MS, &topic, &claims, &sub, &who.role],
        )
        .await?;
    Ok(())
}

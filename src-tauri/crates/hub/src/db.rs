//! Connections to the hub's database, and the transaction every request of a client runs in.
//!
//! Pools of their own for what must not wait for each other. `requests` and `feed` log in as `authenticator` and can
//! only become the role of a token; the others are the superuser and are used for what Supabase's own services do (Auth,
//! Realtime), never with text of a client as SQL. Called by `auth`, `rest` and `realtime`.

use std::time::Duration;

use bytes::BytesMut;
use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Transaction,
};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

use crate::error::HubError;
use crate::jwt::Claims;
use crate::source::{Address, Source};

/// Connections for clients' requests.
pub(crate) const REQUEST_CONNECTIONS_MAX: usize = 16;
/// Connections for Auth and what the hub does for itself.
const ADMIN_CONNECTIONS_MAX: usize = 8;
/// Connections that ask policies about channels.
pub(crate) const POLICY_CONNECTIONS_MAX: usize = 8;
/// Connections on which tables are begun to be followed: that may take long.
pub(crate) const SUBSCRIPTION_CONNECTIONS_MAX: usize = 4;
/// Connections that ask who may be told about a changed row.
pub(crate) const FEED_CONNECTIONS_MAX: usize = 4;
/// Longest statement on the connections of Realtime that sets no other limit, in milliseconds.
const SERVICE_STATEMENT_MS: u32 = 15_000;
/// Longest statement that looks at what is to be followed: clients choose the values.
const SUBSCRIPTION_STATEMENT_MS: u32 = 5_000;
/// How long a request waits for a free connection.
pub(crate) const POOL_WAIT: Duration = Duration::from_secs(10);

/// Longest statement of `anon`, `authenticated` and the rest, as on Supabase; in milliseconds.
const STATEMENT_MS: [(&str, &str); 2] = [("anon", "3000"), ("authenticated", "8000")];
const STATEMENT_MS_SERVICE: &str = "60000";

/// The pools.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    /// REST.
    pub requests: Pool,
    /// Auth, and what the hub does for itself.
    pub admin: Pool,
    /// What the policies say about channels, and what is kept for them.
    pub policy: Pool,
    /// Beginnings of subscriptions to row changes.
    pub subscriptions: Pool,
    /// Who may be told about a changed row.
    pub feed: Pool,
}

impl Database {
    /// Makes the pools; connections are opened when first wanted.
    pub fn open(source: &Source) -> Result<Database, HubError> {
        Ok(Database {
            requests: pool(source.authenticator(), REQUEST_CONNECTIONS_MAX, None)?,
            admin: pool(source.superuser(), ADMIN_CONNECTIONS_MAX, None)?,
            policy: pool(
                source.superuser(),
                POLICY_CONNECTIONS_MAX,
                Some(SERVICE_STATEMENT_MS),
            )?,
            subscriptions: pool(
                source.superuser(),
                SUBSCRIPTION_CONNECTIONS_MAX,
                Some(SUBSCRIPTION_STATEMENT_MS),
            )?,
            feed: pool(
                source.authenticator(),
                FEED_CONNECTIONS_MAX,
                Some(SERVICE_STATEMENT_MS),
            )?,
        })
    }

    /// All pools as one role: for whoever runs the hub, never for requests.
    pub fn at(address: &Address) -> Result<Database, HubError> {
        let one = || pool(address.clone(), 1, None);
        Ok(Database {
            requests: one()?,
            admin: one()?,
            policy: one()?,
            subscriptions: one()?,
            feed: one()?,
        })
    }

    /// A superuser connection, with an error in the hub's own words.
    pub async fn admin(&self, attempt: &str) -> Result<Object, HubError> {
        connection(&self.admin, attempt).await
    }

    /// Ends all connections; what is in use ends when it is given back.
    pub fn close(&self) {
        for pool in [
            &self.requests,
            &self.admin,
            &self.policy,
            &self.subscriptions,
            &self.feed,
        ] {
            pool.close();
        }
    }
}

/// A connection of `pool`, with an error in the hub's own words.
pub(crate) async fn connection(pool: &Pool, attempt: &str) -> Result<Object, HubError> {
    pool.get().await.map_err(|error| HubError::Connection {
        attempt: attempt.to_owned(),
        reason: pool_reason(&error),
    })
}

/// Why the pool gave no connection, in one line.
pub(crate) fn pool_reason(error: &PoolError) -> String {
    match error {
        PoolError::Backend(inner) => crate::error::explained(inner),
        other => other.to_string(),
    }
}

/// True when the database could not do what was asked for reasons of its own (gone, restarting, overloaded, too slow),
/// so that the error is no answer to the question.
pub(crate) fn is_trouble(error: &tokio_postgres::Error) -> bool {
    /// SQLSTATE classes: connection, state of the transaction, rollback, resources, intervention by an operator or a time-out, system, internal.
    const CLASSES: [&str; 7] = ["08", "25", "40", "53", "57", "58", "XX"];
    match error.code() {
        None => true,
        Some(code) => CLASSES.iter().any(|class| code.code().starts_with(class)),
    }
}

/// True when the database ended a statement because of its time-out.
pub(crate) fn is_too_slow(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::QUERY_CANCELED)
}

/// `statement_ms`: longest statement where a transaction sets no other limit.
fn pool(address: Address, size: usize, statement_ms: Option<u32>) -> Result<Pool, HubError> {
    let how = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let mut builder = Pool::builder(Manager::from_config(address.config, address.tls, how)).max_size(size);
    if let Some(statement_ms) = statement_ms {
        builder = builder.post_create(Hook::async_fn(move |client, _| {
            Box::pin(async move {
                client
                    .batch_execute(&format!("set statement_timeout = {statement_ms}"))
                    .await
                    .map_err(HookError::Backend)
            })
        }));
    }
    builder
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(POOL_WAIT))
        .create_timeout(Some(POOL_WAIT))
        .build()
        .map_err(|error| HubError::Connection {
            attempt: "set up the connection pool".to_owned(),
            reason: error.to_string(),
        })
}

/// Whether a request may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

/// Begins a transaction under the role and the claims of `who`; everything set here ends with it.
pub(crate) async fn begin_as<'c>(
    client: &'c mut Object,
    who: &Claims,
    access: Access,
) -> Result<Transaction<'c>, tokio_postgres::Error> {
    let transaction = client
        .build_transaction()
        .read_only(access == Access::ReadOnly)
        .start()
        .await?;
    let setup = transaction
        .prepare_cached(
            "select set_config('request.jwt.claims', $1, true), set_config('statement_timeout', $2, true),
                    set_config('search_path', 'public, extensions', true), set_config('role', $3, true)",
        )
        .await?;
    let claims = serde_json::Value::Object(who.all.clone()).to_string();
    let limit = STATEMENT_MS
        .iter()
        .find(|(role, _)| *role == who.role)
        .map_or(STATEMENT_MS_SERVICE, |(_, limit)| limit);
    transaction.execute(&setup, &[&claims, &limit, &who.role]).await?;
    Ok(transaction)
}

/// A value as text, read by Postgres in the type the statement gives it: no value is ever part of the SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text(pub Option<String>);

impl ToSql for Text {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        Ok(match &self.0 {
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                IsNull::No
            }
            None => IsNull::Yes,
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// `"name"`, safe for any text.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\"").replace('\0', ""))
}

//! Runs one statement in one transaction under the caller's role.
//!
//! An error, or an answer that must not be given (not exactly one row, too many rows changed), rolls everything
//! back. Called by `routes`.

use axum::http::StatusCode;
use deadpool_postgres::{Object, PoolError, Transaction};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::error::RestError;
use super::sql::Statement;
use crate::db::{self, Access, Text, pool_reason};
use crate::http::Shared;
use crate::jwt::Claims;

/// What functions can read of the request, beside the claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub method: String,
    pub path: String,
    /// JSON objects.
    pub headers: String,
    pub cookies: String,
    pub timezone: Option<String>,
}

/// What an answer must be like to be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Demands {
    /// Exactly one row.
    pub single: bool,
    /// PUT: the row of the body is the one that the address names.
    pub named: bool,
    /// Rows at most.
    pub most: Option<i64>,
}

/// What a statement gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Rows without limit, where they were counted.
    pub total: Option<i64>,
    /// Rows in the body.
    pub page: i64,
    /// Columns of the address of the row that was inserted, as a JSON array of pairs.
    pub place: Option<String>,
    pub body: String,
    /// What functions asked for: headers as JSON, status as digits.
    pub headers: Option<String>,
    pub status: Option<String>,
    /// Rows that are new.
    pub inserted: Option<i64>,
}

/// Runs `statement` as `who`. With `planned`, Postgres also says how many rows it expects.
pub(super) async fn run(
    shared: &Shared,
    who: &Claims,
    access: Access,
    asked: &Asked,
    statement: &Statement,
    planned: Option<&Statement>,
    demands: Demands,
) -> Result<(Outcome, Option<i64>), RestError> {
    let fault = |error: tokio_postgres::Error| RestError::database(&error, &who.role);
    let mut client = connection(shared).await?;
    let transaction = db::begin_as(&mut client, who, access).await.map_err(fault)?;
    // Sent together: the statement never runs when the settings fail, because that ends the transaction.
    let (settings, row) = tokio::join!(tell(&transaction, asked), one_row(&transaction, statement));
    settings.map_err(fault)?;
    let outcome = outcome(&row.map_err(fault)?).map_err(fault)?;
    if let Err(refused) = check(&outcome, demands) {
        transaction.rollback().await.map_err(fault)?;
        return Err(refused);
    }
    let expected = match planned {
        Some(planned) => rows_expected(&one_row(&transaction, planned).await.map_err(fault)?),
        None => None,
    };
    transaction.commit().await.map_err(fault)?;
    Ok((outcome, expected))
}

async fn connection(shared: &Shared) -> Result<Object, RestError> {
    shared.database.requests.get().await.map_err(|error| {
        tracing::error!(
            reason = pool_reason(&error),
            "no database connection for a request"
        );
        match error {
            PoolError::Timeout(_) => RestError::new(
                StatusCode::GATEWAY_TIMEOUT,
                "PGRST003",
                "Timed out acquiring connection from connection pool.",
            ),
            _ => RestError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "PGRST000",
                "Database connection error. Retrying the connection.",
            ),
        }
    })
}

async fn tell(transaction: &Transaction<'_>, asked: &Asked) -> Result<(), tokio_postgres::Error> {
    const SETTINGS: &str = "select set_config('request.method', $1, true), set_config('request.path', $2, true), \
                            set_config('request.headers', $3, true), set_config('request.cookies', $4, true)";
    let mut sql = SETTINGS.to_owned();
    let mut values: Vec<&(dyn ToSql + Sync)> =
        vec![&asked.method, &asked.path, &asked.headers, &asked.cookies];
    if let Some(zone) = &asked.timezone {
        sql.push_str(", set_config('timezone', $5, true)");
        values.push(zone);
    }
    let typed: Vec<_> = values.into_iter().map(|value| (value, Type::TEXT)).collect();
    transaction.query_typed(&sql, &typed).await.map(drop)
}

/// Parsed, bound and run in one round trip. Not cached: a cache would grow with every kind of request.
async fn one_row(transaction: &Transaction<'_>, statement: &Statement) -> Result<Row, tokio_postgres::Error> {
    let parameters: Vec<(&(dyn ToSql + Sync), Type)> = statement
        .parameters
        .iter()
        .map(|value: &Text| (value as &(dyn ToSql + Sync), Type::UNKNOWN))
        .collect();
    transaction.query_typed_one(&statement.sql, &parameters).await
}

fn outcome(row: &Row) -> Result<Outcome, tokio_postgres::Error> {
    Ok(Outcome {
        total: row.try_get("total")?,
        page: row.try_get("page")?,
        place: row.try_get("place")?,
        body: row.try_get("body")?,
        headers: row.try_get("headers")?,
        status: row.try_get("status")?,
        inserted: row.try_get("inserted")?,
    })
}

fn check(outcome: &Outcome, demands: Demands) -> Result<(), RestError> {
    let page = outcome.page;
    if demands.named && page != 1 {
        return Err(RestError::bad(
            "PGRST115",
            "Payload values do not match URL in primary key column(s)",
        ));
    }
    if demands.single && page != 1 {
        return Err(RestError::new(
            StatusCode::NOT_ACCEPTABLE,
            "PGRST116",
            "Cannot coerce the result to a single JSON object",
        )
        .with_details(format!("The result contains {page} rows")));
    }
    if demands.most.is_some_and(|most| page > most) {
        return Err(RestError::bad(
            "PGRST124",
            "Query result exceeds max-affected preference constraint",
        )
        .with_details(format!("The query affects {page} rows")));
    }
    Ok(())
}

/// `[{"Plan": {"Plan Rows": 5, …}}]`
fn rows_expected(row: &Row) -> Option<i64> {
    let plan: serde_json::Value = row.try_get(0).ok()?;
    plan.pointer("/0/Plan/Plan Rows")?.as_i64()
}

//! Runs one statement in one transaction under the caller's role.
//!
//! An error, or an answer that must not be given (not exactly one row), rolls everything back. Called by `routes`.

use axum::http::StatusCode;
use deadpool_postgres::PoolError;
use tokio_postgres::types::ToSql;

use super::error::RestError;
use super::sql::Statement;
use crate::db::{self, Access, pool_reason};
use crate::http::Shared;
use crate::jwt::Claims;

/// What a statement gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// JSON text; empty for a minimal answer.
    pub body: String,
    /// Rows in the body.
    pub page: u64,
    /// Rows without limit, where they were counted.
    pub total: Option<u64>,
}

/// Runs `statement` as `who`; with `single`, anything but one row is an error and nothing is changed.
pub(crate) async fn run(
    shared: &Shared,
    who: &Claims,
    access: Access,
    statement: &Statement,
    single: bool,
) -> Result<Outcome, RestError> {
    let fault = |error: tokio_postgres::Error| RestError::database(&error, &who.role);
    let mut client = shared.database.requests.get().await.map_err(|error| {
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
    })?;
    let transaction = db::begin_as(&mut client, who, access).await.map_err(fault)?;
    let parameters: Vec<&(dyn ToSql + Sync)> = statement
        .parameters
        .iter()
        .map(|value| value as &(dyn ToSql + Sync))
        .collect();
    // Not cached: limits and columns are part of the text, so a cache would grow with every kind of request.
    let row = transaction
        .query_one(&statement.sql, &parameters)
        .await
        .map_err(fault)?;
    let page = u64::try_from(row.get::<_, i64>("page")).unwrap_or(0);
    if single && page != 1 {
        transaction.rollback().await.map_err(fault)?;
        return Err(RestError::new(
            StatusCode::NOT_ACCEPTABLE,
            "PGRST116",
            "Cannot coerce the result to a single JSON object",
        )
        .with_details(format!("The result contains {page} rows")));
    }
    let outcome = Outcome {
        body: row.get("body"),
        page,
        total: row
            .get::<_, Option<i64>>("total")
            .and_then(|total| u64::try_from(total).ok()),
    };
    transaction.commit().await.map_err(fault)?;
    Ok(outcome)
}

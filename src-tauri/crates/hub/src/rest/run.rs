//! Runs one statement in one transaction under the caller's role.
//!
//! An error, or an answer that must not be given (not exactly one row, too many rows changed), rolls everything
//! back. Called by `routes`.

use axum::http::StatusCode;
use deadpool_postgres::{Object, Transaction};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::error::RestError;
use super::outgoing::Room;
use super::sql::{Statement, answer_bytes_max};
use crate::db::{self, Access, Text};
use crate::http::Shared;
use crate::jwt::Claims;

/// What functions can read of the request, beside the claims.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub method: String,
    pub path: String,
    /// JSON objects.
    pub headers: String,
    pub cookies: String,
    pub timezone: Option<String>,
}

/// Headers and cookies carry keys and tokens.
impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked")
            .field("method", &self.method)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
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

/// What is to be run, and how.
#[derive(Clone, Copy)]
pub(super) struct Run<'r> {
    pub who: &'r Claims,
    pub access: Access,
    pub asked: &'r Asked,
    pub statement: &'r Statement,
    /// With it, Postgres also says how many rows it expects.
    pub planned: Option<&'r Statement>,
    pub demands: Demands,
    /// What the answer takes of the memory for all.
    pub room: &'r Room,
}

/// Runs a statement when it is its caller's turn. Dropped, it ends the statement.
pub(super) async fn run(shared: &Shared, run: Run<'_>) -> Result<(Outcome, Option<i64>), RestError> {
    let mut held = shared.turns.take(&shared.database, run.who).await?;
    let done = match held.client() {
        Some(client) => run_on(client, run).await,
        None => Err(RestError::away()),
    };
    held.done();
    done
}

async fn run_on(client: &mut Object, run: Run<'_>) -> Result<(Outcome, Option<i64>), RestError> {
    let fault = |error: tokio_postgres::Error| RestError::database(&error, &run.who.role);
    let transaction = db::begin_as(client, run.who, run.access).await.map_err(fault)?;
    // Sent together: the statement never runs when the settings fail, because that ends the transaction.
    let (settings, row) = tokio::join!(
        tell(&transaction, run.asked),
        one_row(&transaction, run.statement)
    );
    settings.map_err(fault)?;
    let outcome = outcome(row.map_err(fault)?).map_err(fault)?;
    let checked = outcome
        .ok_or_else(|| RestError::too_long(answer_bytes_max(&run.who.role)))
        .and_then(|outcome| {
            check(&outcome, run.demands)?;
            run.room.take(outcome.body.len())?;
            Ok(outcome)
        });
    let outcome = match checked {
        Ok(outcome) => outcome,
        Err(refused) => {
            transaction.rollback().await.map_err(fault)?;
            return Err(refused);
        }
    };
    let expected = match run.planned {
        Some(planned) => rows_expected(&one_row(&transaction, planned).await.map_err(fault)?),
        None => None,
    };
    transaction.commit().await.map_err(fault)?;
    Ok((outcome, expected))
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

/// None when the body is too long.
fn outcome(row: Row) -> Result<Option<Outcome>, tokio_postgres::Error> {
    let Some(body) = row.try_get("body")? else {
        return Ok(None);
    };
    Ok(Some(Outcome {
        total: row.try_get("total")?,
        page: row.try_get("page")?,
        place: row.try_get("place")?,
        body,
        headers: row.try_get("headers")?,
        status: row.try_get("status")?,
        inserted: row.try_get("inserted")?,
    }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_is_printed_without_keys_and_tokens() {
        let asked = Asked {
            method: "GET".to_owned(),
            path: "/offices".to_owned(),
            headers: "{\"apikey\": \"sb_secret_x\"}".to_owned(),
            cookies: "{\"sb-token\": \"very-secret\"}".to_owned(),
            timezone: None,
        };
        let printed = format!("{asked:?}");
        assert!(
            printed.contains("/offices") && !printed.contains("secret"),
            "{printed}"
        );
    }
}

//! `/rest/v1/…`: from an HTTP request to a statement and back.
//!
//! Called by `http`.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::error::RestError;
use super::parse::{self, Pairs};
use super::plan;
use super::request::{self, Wishes};
use super::run::{Outcome, run};
use super::schema::{Function, Returns};
use super::sql::{self, Answer, Resolution};
use crate::db::Access;
use crate::http::{App, Shared};
use crate::identity;

type QueryPairs = Query<Vec<(String, String)>>;

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/rest/v1/", any(root))
        .route("/rest/v1/{table}", any(table))
        .route("/rest/v1/rpc/{function}", any(function))
}

/// PostgREST shows its OpenAPI document here; the hub shows nobody what there is.
async fn root() -> RestError {
    RestError::new(
        StatusCode::NOT_FOUND,
        "PGRST126",
        "Root endpoint metadata is disabled",
    )
}

async fn table(
    State(shared): App,
    Path(name): Path<String>,
    Query(pairs): QueryPairs,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let headless = method == Method::HEAD;
    let answer = on_table(&shared, &name, &pairs, method, &headers, &body).await;
    finish(answer, headless)
}

async fn function(
    State(shared): App,
    Path(name): Path<String>,
    Query(pairs): QueryPairs,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let headless = method == Method::HEAD;
    let answer = on_function(&shared, &name, &pairs, method, &headers, &body).await;
    finish(answer, headless)
}

fn finish(answer: Result<Response, RestError>, headless: bool) -> Response {
    let response = answer.unwrap_or_else(axum::response::IntoResponse::into_response);
    if headless {
        response.map(|_| Body::empty())
    } else {
        response
    }
}

async fn on_table(
    shared: &Shared,
    name: &str,
    pairs: &[(String, String)],
    method: Method,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, RestError> {
    let who = identity::identify(shared, headers, pairs)?;
    let reading = method == Method::GET || method == Method::HEAD;
    let wishes = request::wishes(headers, reading)?;
    let schema = shared
        .schema
        .with(&shared.database, |schema| schema.tables.contains_key(name))
        .await;
    let table = schema.tables.get(name).ok_or_else(|| {
        RestError::new(
            StatusCode::NOT_FOUND,
            "PGRST205",
            format!("Could not find the table 'public.{name}' in the schema cache"),
        )
    })?;
    let mut query = parse::query(pairs, |_| Some(Pairs::Filters))?;
    narrow(&mut query, &wishes);
    let answer = if wishes.single {
        Answer::Representation
    } else {
        wishes.answer
    };
    let (statement, access) = match method {
        Method::GET | Method::HEAD => (sql::read(name, table, &query, wishes.count)?, Access::ReadOnly),
        Method::POST => {
            let rows = request::rows(body, query.columns.as_ref())?;
            let how = (wishes.resolution, answer);
            (
                sql::insert(name, table, &query, &rows.columns, rows.json, how)?,
                Access::ReadWrite,
            )
        }
        Method::PATCH => {
            let row = request::object(body, false)?;
            let columns: Vec<String> = row.keys().cloned().collect();
            let row = Value::Object(row).to_string();
            (
                sql::update(name, table, &query, &columns, row, answer)?,
                Access::ReadWrite,
            )
        }
        Method::DELETE => (sql::delete(name, table, &query, answer)?, Access::ReadWrite),
        _ => {
            return Err(RestError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "PGRST117",
                format!("Unsupported HTTP method: {method}"),
            ));
        }
    };
    let outcome = run(shared, &who, access, &statement, wishes.single).await?;
    if reading {
        return page_answer(&query, &wishes, outcome);
    }
    Ok(change_answer(&method, answer, &wishes, outcome))
}

/// `Range` and `limit`/`offset` are intersected.
fn narrow(query: &mut plan::Query, wishes: &Wishes) {
    let Some((first, rows)) = wishes.range else { return };
    let left = query.limit.map(|limit| limit.saturating_sub(first));
    query.offset = query.offset.saturating_add(first).min(i64::MAX as u64);
    query.limit = Some(left.map_or(rows, |left| left.min(rows)));
}

fn page_answer(query: &plan::Query, wishes: &Wishes, outcome: Outcome) -> Result<Response, RestError> {
    if let Some(total) = outcome
        .total
        .filter(|total| query.offset > 0 && query.offset >= *total)
    {
        return Err(RestError::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "PGRST103",
            "Requested range not satisfiable",
        )
        .with_details(format!(
            "An offset of {} was requested, but there are only {total} rows.",
            query.offset
        )));
    }
    let partial = outcome.total.is_some_and(|total| outcome.page < total);
    let status = if partial {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    let range = content_range(query.offset, &outcome);
    Ok(answer(status, outcome.body, wishes, Some(range)))
}

fn content_range(offset: u64, outcome: &Outcome) -> String {
    let total = outcome.total.map_or("*".to_owned(), |total| total.to_string());
    match outcome.page.checked_sub(1) {
        Some(more) => format!("{offset}-{}/{total}", offset.saturating_add(more)),
        None => format!("*/{total}"),
    }
}

fn change_answer(method: &Method, how: Answer, wishes: &Wishes, outcome: Outcome) -> Response {
    let range = wishes.count.then(|| format!("*/{}", outcome.page));
    let nothing_new = wishes.resolution == Resolution::Ignore && outcome.page == 0;
    let status = match (method, how) {
        (&Method::POST, _) if nothing_new => StatusCode::OK,
        (&Method::POST, _) => StatusCode::CREATED,
        (_, Answer::Representation) => StatusCode::OK,
        (_, Answer::Minimal) => StatusCode::NO_CONTENT,
    };
    answer(status, outcome.body, wishes, range)
}

fn answer(status: StatusCode, body: String, wishes: &Wishes, range: Option<String>) -> Response {
    // Exactly one row was checked: its object is the array without its brackets.
    let body = match body.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(object) if wishes.single => object.to_owned(),
        Some(_) | None => body,
    };
    let kind = if wishes.single {
        "application/vnd.pgrst.object+json"
    } else {
        "application/json"
    };
    let mut response = if status == StatusCode::NO_CONTENT {
        status.into_response()
    } else {
        let mut response = (status, body).into_response();
        let value = HeaderValue::from_str(&format!("{kind}; charset=utf-8"));
        if let Ok(value) = value {
            response.headers_mut().insert(header::CONTENT_TYPE, value);
        }
        response
    };
    let applied = wishes.applied.join(", ");
    for (name, value) in [
        ("content-range", range),
        ("preference-applied", Some(applied).filter(|a| !a.is_empty())),
    ] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

async fn on_function(
    shared: &Shared,
    name: &str,
    pairs: &[(String, String)],
    method: Method,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, RestError> {
    let who = identity::identify(shared, headers, pairs)?;
    let reading = method == Method::GET || method == Method::HEAD;
    if !reading && method != Method::POST {
        return Err(RestError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "PGRST101",
            "Only GET, HEAD, and POST verbs are allowed",
        ));
    }
    let wishes = request::wishes(headers, reading)?;
    let schema = shared
        .schema
        .with(&shared.database, |schema| schema.functions.contains_key(name))
        .await;
    let overloads = schema.functions.get(name).map(Vec::as_slice).unwrap_or_default();
    let known = |argument: &str| {
        overloads
            .iter()
            .any(|one| one.arguments.iter().any(|(name, _)| name == argument))
    };
    let mut query = parse::query(pairs, |pair| {
        Some(if reading && known(pair) {
            Pairs::Arguments
        } else {
            Pairs::Filters
        })
    })?;
    narrow(&mut query, &wishes);
    let arguments: Map<String, Value> = if reading {
        query
            .arguments
            .iter()
            .map(|(name, value)| (name.clone(), Value::String(value.clone())))
            .collect()
    } else {
        request::object(body, true)?
    };
    let given: Vec<String> = arguments.keys().cloned().collect();
    let function = choose(name, overloads, &given)?;
    let text = Value::Object(arguments).to_string();
    let statement = sql::call(name, function, &given, text, &query, wishes.count)?;
    let access = if reading {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    };
    let outcome = run(shared, &who, access, &statement, wishes.single).await?;
    if function.returns == Returns::Void {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let range = function.set.then(|| content_range(query.offset, &outcome));
    Ok(answer(StatusCode::OK, outcome.body, &wishes, range))
}

/// The overload that takes exactly these arguments, with the fewest defaults filled in.
fn choose<'f>(name: &str, overloads: &'f [Function], given: &[String]) -> Result<&'f Function, RestError> {
    let fits = |function: &&Function| {
        let names: Vec<&String> = function.arguments.iter().map(|(name, _)| name).collect();
        given.iter().all(|argument| names.contains(&argument))
            && names
                .iter()
                .take(function.required)
                .all(|needed| given.contains(needed))
    };
    overloads
        .iter()
        .filter(fits)
        .min_by_key(|function| function.arguments.len())
        .ok_or_else(|| {
            let mut listed = given.to_vec();
            listed.sort();
            RestError::new(
                StatusCode::NOT_FOUND,
                "PGRST202",
                format!(
                    "Could not find the function public.{name}({}) in the schema cache",
                    listed.join(", ")
                ),
            )
        })
}

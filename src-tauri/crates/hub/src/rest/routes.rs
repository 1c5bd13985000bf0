//! `/rest/v1/…`: from an HTTP request to a statement and back.
//!
//! Called by `http`.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query as UriQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::answer::{self, Answer};
use super::ast::Query;
use super::error::RestError;
use super::openapi;
use super::parse::{self, Pairs};
use super::plan::{self, Change, Given, Node, ROWS_MAX, Root, Wanted};
use super::request::{Count, Media, Payload, Prefer, Return, Target, narrowed, negotiate, payload};
use super::run::{Asked, Demands, run};
use super::schema::{Returns, SCHEMA, Schema, Volatility};
use super::sql;
use crate::db::Access;
use crate::http::{App, Shared};
use crate::identity;
use crate::jwt::Claims;

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/rest/v1", any(root))
        .route("/rest/v1/", any(root))
        .route("/rest/v1/{*path}", any(resource))
}

/// A request, read as far as it can be without the schema.
struct Request<'r> {
    shared: &'r Shared,
    who: Claims,
    method: &'r Method,
    headers: &'r HeaderMap,
    pairs: Vec<(String, String)>,
    body: &'r [u8],
    prefer: Prefer,
    asked: Asked,
    /// Whether a schema was named.
    profiled: bool,
}

impl Request<'_> {
    fn is_reading(&self) -> bool {
        *self.method == Method::GET || *self.method == Method::HEAD
    }

    /// The form of the body; none for HEAD.
    fn shown(&self, media: Media) -> Option<Media> {
        (*self.method != Method::HEAD).then_some(media)
    }

    fn payload(&self, target: Target, columns: bool) -> Result<Payload, RestError> {
        let content = identity::text(self.headers, "content-type").unwrap_or_default();
        payload(self.body, content, target, columns)
    }
}

async fn root(
    State(shared): App,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    finish(respond(&shared, "", &method, &uri, &headers, body).await, &method)
}

async fn resource(
    State(shared): App,
    Path(path): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    finish(
        respond(&shared, &path, &method, &uri, &headers, body).await,
        &method,
    )
}

fn finish(answer: Result<Answer, RestError>, method: &Method) -> Response {
    let response = match answer {
        Ok(answer) => answer.into_response(),
        Err(error) => error.into_response(),
    };
    if *method == Method::HEAD {
        response.map(|_| Body::empty())
    } else {
        response
    }
}

async fn respond(
    shared: &Shared,
    path: &str,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Answer, RestError> {
    let UriQuery(pairs) = UriQuery::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| RestError::bad("PGRST100", error.body_text()))?;
    let who = identity::identify(shared, headers, &pairs)?;
    let body = body.map_err(|error| RestError::new(error.status(), "PGRST102", error.body_text()))?;
    let prefer = Prefer::read(headers);
    let request = Request {
        shared,
        who,
        method,
        headers,
        pairs,
        body: &body,
        asked: asked(method, path, headers, &prefer),
        prefer,
        profiled: profile(method, headers)?,
    };
    let steps: Vec<&str> = path.split('/').filter(|step| !step.is_empty()).collect();
    match steps.as_slice() {
        [] => at_root(&request),
        ["rpc", function] => on_function(&request, function).await,
        [table] => on_table(&request, table).await,
        _ => Err(RestError::new(
            StatusCode::NOT_FOUND,
            "PGRST125",
            "Invalid path specified in request URL",
        )),
    }
}

/// Whether a schema is named; it must be the exposed one.
fn profile(method: &Method, headers: &HeaderMap) -> Result<bool, RestError> {
    let writing = [Method::POST, Method::PATCH, Method::PUT, Method::DELETE].contains(method);
    let name = if writing {
        "content-profile"
    } else {
        "accept-profile"
    };
    match identity::text(headers, name) {
        None => Ok(false),
        Some(SCHEMA) => Ok(true),
        Some(other) => {
            let other: String = other.chars().take(64).collect();
            Err(RestError::new(
                StatusCode::NOT_ACCEPTABLE,
                "PGRST106",
                format!("Invalid schema: {other}"),
            )
            .with_hint(Some(format!("Only the following schemas are exposed: {SCHEMA}"))))
        }
    }
}

/// What functions may read of a request. The path is PostgREST's own: the gateway's prefix is not part of it.
fn asked(method: &Method, path: &str, headers: &HeaderMap, prefer: &Prefer) -> Asked {
    let mut all = Map::new();
    let mut cookies = Map::new();
    for (name, value) in headers {
        let Ok(text) = value.to_str() else { continue };
        if name == axum::http::header::COOKIE {
            for (name, value) in text.split(';').filter_map(|pair| pair.trim().split_once('=')) {
                cookies.insert(name.to_owned(), Value::String(value.to_owned()));
            }
        } else {
            all.insert(name.as_str().to_owned(), Value::String(text.to_owned()));
        }
    }
    Asked {
        method: method.to_string(),
        path: format!("/{path}"),
        headers: Value::Object(all).to_string(),
        cookies: Value::Object(cookies).to_string(),
        timezone: prefer.timezone.clone(),
    }
}

fn unsupported(method: &Method) -> RestError {
    RestError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "PGRST117",
        format!("Unsupported HTTP method: {method}"),
    )
}

/// The OpenAPI document, for the server's own key only, as on Supabase: nobody else is shown what there is.
fn at_root(request: &Request<'_>) -> Result<Answer, RestError> {
    match *request.method {
        Method::OPTIONS => Ok(Answer::new(StatusCode::OK).with("allow", "OPTIONS,GET,HEAD")),
        Method::GET | Method::HEAD if request.who.role == "service_role" => openapi::answer(
            request.headers,
            &request.shared.schema.current(),
            &request.shared.url,
        ),
        Method::GET | Method::HEAD => Err(RestError::new(
            StatusCode::NOT_FOUND,
            "PGRST126",
            "Root endpoint metadata is disabled",
        )),
        _ => Err(unsupported(request.method)),
    }
}

/// Plans with the newest schema; if something is missing in it, once more with a newer one.
async fn planned<T>(
    shared: &Shared,
    mut plan: impl FnMut(&Schema) -> Result<T, RestError>,
) -> Result<T, RestError> {
    let schema = shared.schema.current();
    match plan(&schema) {
        Err(error) if error.is_missing() => match shared.schema.after_miss(&shared.database, &schema).await {
            Some(newer) => plan(&newer),
            None => Err(error),
        },
        done => done,
    }
}

async fn on_table(request: &Request<'_>, name: &str) -> Result<Answer, RestError> {
    match *request.method {
        Method::GET | Method::HEAD => read_table(request, name).await,
        Method::POST | Method::PATCH | Method::PUT | Method::DELETE => change_table(request, name).await,
        Method::OPTIONS => {
            planned(request.shared, |schema| {
                let table = schema
                    .tables
                    .get(name)
                    .ok_or_else(|| plan::no_table(schema, name))?;
                let mut allowed = vec!["OPTIONS,GET,HEAD"];
                let put = table.insertable && table.updatable && !table.key.is_empty();
                for (can, method) in [
                    (table.insertable, "POST"),
                    (put, "PUT"),
                    (table.updatable, "PATCH"),
                    (table.deletable, "DELETE"),
                ] {
                    if can {
                        allowed.push(method);
                    }
                }
                Ok(Answer::new(StatusCode::OK).with("allow", &allowed.join(",")))
            })
            .await
        }
        _ => Err(unsupported(request.method)),
    }
}

async fn read_table(request: &Request<'_>, name: &str) -> Result<Answer, RestError> {
    let mut query = parse::query(&request.pairs, Pairs::Filters)?;
    let rows = narrowed(&mut query, request.headers, *request.method == Method::GET)?;
    let media = negotiate(request.headers)?;
    request.prefer.checked()?;
    let node = planned(request.shared, |schema| {
        plan::read(schema, Root::Table(name), &query)
    })
    .await?;
    let estimated = request.prefer.count == Some(Count::Estimated);
    let most = estimated.then_some(ROWS_MAX + 1);
    let statement = sql::read(&node, request.shown(media), request.prefer.counts(), most);
    let expecting = matches!(request.prefer.count, Some(Count::Planned | Count::Estimated));
    let expecting = expecting.then(|| sql::planned(&node));
    let demands = Demands {
        single: media.is_object(),
        ..Demands::default()
    };
    let (mut outcome, expected) = run(
        request.shared,
        &request.who,
        Access::ReadOnly,
        &request.asked,
        &statement,
        expecting.as_ref(),
        demands,
    )
    .await?;
    // A guess is as good as a count only where counting would take too long.
    outcome.total = match (request.prefer.count, outcome.total) {
        (Some(Count::Planned), _) => expected,
        (Some(Count::Estimated), Some(total)) if total > ROWS_MAX => expected.map(|rows| rows.max(total)),
        (_, total) => total,
    };
    let mut pairs: Vec<&(String, String)> = request
        .pairs
        .iter()
        .filter(|(name, _)| name != "apikey")
        .collect();
    pairs.sort();
    let pairs = pairs
        .into_iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let location = answer::location(name, pairs);
    answer::of_read(rows, outcome, &request.prefer, media, request.profiled, &location)
}

fn wanted(prefer: &Prefer) -> Wanted {
    Wanted {
        rows: matches!(prefer.returns, Some(Return::Representation | Return::HeadersOnly)),
        resolution: prefer.resolution,
        defaults: prefer.defaults == Some(true),
    }
}

async fn change_table(request: &Request<'_>, name: &str) -> Result<Answer, RestError> {
    let method = request.method;
    let query = parse::query(&request.pairs, Pairs::Filters)?;
    if *method == Method::PUT && query.rows.iter().any(|(path, _)| path.is_empty()) {
        return Err(RestError::bad(
            "PGRST114",
            "limit/offset querystring parameters are not allowed for PUT",
        ));
    }
    let columns = query.columns.is_some() && [Method::POST, Method::PATCH].contains(method);
    let body = match *method {
        Method::DELETE => None,
        _ => Some(request.payload(Target::Table, columns)?),
    };
    let media = negotiate(request.headers)?;
    request.prefer.checked()?;
    let wanted = wanted(&request.prefer);
    let (node, change, key) = planned(request.shared, |schema| {
        let node = plan::read(schema, Root::Changed(name), &query)?;
        let change = plan::change(schema, method, name, &query, &node, body.clone(), wanted)?;
        let key = schema.tables.get(name).map(|table| table.key.clone());
        Ok((node, change, key.unwrap_or_default()))
    })
    .await?;
    let shown = (request.prefer.returns == Some(Return::Representation)).then_some(media);
    let addressed = *method == Method::POST && request.prefer.returns == Some(Return::HeadersOnly);
    let statement = sql::changed(&change, &node, shown, addressed.then_some(key.as_slice()));
    let limited = [Method::PATCH, Method::DELETE].contains(method);
    let demands = Demands {
        single: media.is_object(),
        named: *method == Method::PUT,
        most: request.prefer.most().filter(|_| limited),
    };
    let (outcome, _) = run(
        request.shared,
        &request.who,
        Access::ReadWrite,
        &request.asked,
        &statement,
        None,
        demands,
    )
    .await?;
    let resolvable = !key.is_empty() || query.on_conflict.is_some();
    debug_assert!(
        resolvable
            || !matches!(
                change,
                Change::Insert {
                    conflict: Some(_),
                    ..
                }
            )
    );
    answer::of_change(
        method,
        name,
        outcome,
        &request.prefer,
        media,
        request.profiled,
        resolvable,
    )
}

async fn on_function(request: &Request<'_>, name: &str) -> Result<Answer, RestError> {
    let reading = request.is_reading();
    if *request.method == Method::OPTIONS {
        return function_options(request, name).await;
    }
    if !reading && *request.method != Method::POST {
        return Err(RestError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "PGRST101",
            format!("Cannot use the {} method on RPC", request.method),
        ));
    }
    let pairs = if reading {
        Pairs::FiltersAndArguments
    } else {
        Pairs::Filters
    };
    let mut query = parse::query(&request.pairs, pairs)?;
    let rows = narrowed(&mut query, request.headers, *request.method == Method::GET)?;
    let body = if reading {
        None
    } else {
        Some(request.payload(Target::Function, query.columns.is_some())?)
    };
    let media = negotiate(request.headers)?;
    request.prefer.checked()?;
    let (node, call) = planned(request.shared, |schema| {
        called(schema, name, &query, body.as_ref())
    })
    .await?;
    if request.prefer.most().is_some() && !call.function.set {
        return Err(RestError::bad(
            "PGRST128",
            "Function must return SETOF or TABLE when max-affected preference is used with handling=strict",
        ));
    }
    let statement = sql::called(&call, &node, request.shown(media), request.prefer.counts());
    let access = if reading || call.function.volatility != Volatility::Volatile {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    };
    let demands = Demands {
        single: media.is_object(),
        named: false,
        most: request.prefer.most(),
    };
    let (outcome, _) = run(
        request.shared,
        &request.who,
        access,
        &request.asked,
        &statement,
        None,
        demands,
    )
    .await?;
    let void = call.function.returns == Returns::Void && !call.function.set;
    answer::of_call(rows, outcome, void, &request.prefer, media, request.profiled)
}

fn called(
    schema: &Schema,
    name: &str,
    query: &Query,
    body: Option<&Payload>,
) -> Result<(Node, plan::Call), RestError> {
    let given = match body {
        Some(body) => Given::Body(body, query.columns.as_ref()),
        None => Given::Pairs(&query.arguments),
    };
    let call = plan::choose(schema, name, given)?;
    let root = Root::Called {
        name,
        function: &call.function,
    };
    let node = plan::read(schema, root, query)?;
    Ok((node, call))
}

async fn function_options(request: &Request<'_>, name: &str) -> Result<Answer, RestError> {
    let query = parse::query(&request.pairs, Pairs::FiltersAndArguments)?;
    let call = planned(request.shared, |schema| {
        plan::choose(schema, name, Given::Pairs(&query.arguments))
    })
    .await?;
    let allowed = match call.function.volatility {
        Volatility::Volatile => "OPTIONS,POST",
        Volatility::Stable | Volatility::Immutable => "OPTIONS,GET,HEAD,POST",
    };
    Ok(Answer::new(StatusCode::OK).with("allow", allowed))
}

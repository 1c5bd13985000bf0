//! `/rest/v1/…`: from an HTTP request to a statement and back.
//!
//! Called by `http`.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query as UriQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::answer::Answer;
use super::error::RestError;
use super::functions::on_function;
use super::openapi;
use super::outgoing::Room;
use super::request::{Media, Payload, Prefer, Target, payload};
use super::run::Asked;
use super::schema::{SCHEMA, Schema};
use super::tables::on_table;
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
pub(super) struct Request<'r> {
    pub shared: &'r Shared,
    pub who: Claims,
    pub method: &'r Method,
    pub headers: &'r HeaderMap,
    pub pairs: Vec<(String, String)>,
    body: &'r [u8],
    pub prefer: Prefer,
    pub asked: Asked,
    pub room: Room,
    /// Whether a schema was named.
    pub profiled: bool,
}

impl Request<'_> {
    pub fn is_reading(&self) -> bool {
        *self.method == Method::GET || *self.method == Method::HEAD
    }

    /// The form of the body; none for HEAD.
    pub fn shown(&self, media: Media) -> Option<Media> {
        (*self.method != Method::HEAD).then_some(media)
    }

    pub fn payload(&self, target: Target, columns: bool) -> Result<Payload, RestError> {
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

fn finish(response: Result<Response, RestError>, method: &Method) -> Response {
    let response = response.unwrap_or_else(IntoResponse::into_response);
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
) -> Result<Response, RestError> {
    let UriQuery(pairs) = UriQuery::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| RestError::bad("PGRST100", error.body_text()))?;
    let who = identity::identify(shared, headers, &pairs)?;
    let body = body.map_err(|error| RestError::new(error.status(), "PGRST102", error.body_text()))?;
    let prefer = Prefer::read(headers);
    let request = Request {
        shared,
        method,
        headers,
        pairs,
        body: &body,
        asked: asked(method, path, headers, &prefer),
        room: Room::new(&shared.answers, who.subject()),
        who,
        prefer,
        profiled: profile(method, headers)?,
    };
    let steps: Vec<&str> = path.split('/').filter(|step| !step.is_empty()).collect();
    let mut answer = match steps.as_slice() {
        [] => at_root(&request),
        ["rpc", function] => on_function(&request, function).await,
        [table] => on_table(&request, table).await,
        _ => Err(RestError::new(
            StatusCode::NOT_FOUND,
            "PGRST125",
            "Invalid path specified in request URL",
        )),
    }?;
    let body = request.room.body(std::mem::take(&mut answer.body));
    Ok(answer.into_response(body))
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

pub(super) fn unsupported(method: &Method) -> RestError {
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
pub(super) async fn planned<T>(
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

//! The hub's one port: which hosts and origins may speak to it, CORS, health, and the three protocols' prefixes.
//!
//! Host names other than loopback's are refused, so that a page cannot reach the hub through a name it controls
//! (DNS rebinding); addresses are let in. Called by [`crate::Hub::start`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::json;

use crate::auth::Auth;
use crate::bodies::{self, Admitted};
use crate::budget::Budget;
use crate::db::Database;
use crate::door::Door;
use crate::identity;
use crate::keys::Keys;
use crate::metrics::{self, Metrics, Watch};
use crate::realtime::Realtime;
use crate::rest::schema::SchemaCache;
use crate::rest::turns::Turns;

/// Longest a request may take from its head to the answer's head: the longest statement, the wait for a connection and
/// some for the body to come. Whoever sends a body more slowly is told so.
const REQUEST_MAX: Duration = Duration::from_secs(90);

const ALLOW_METHODS: HeaderValue = HeaderValue::from_static("GET,HEAD,POST,PATCH,PUT,DELETE,OPTIONS");
/// Named one by one: a wildcard never covers `Authorization`.
const ALLOW_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, apikey, content-type, x-client-info, prefer, accept, accept-profile, content-profile, range, \
     range-unit, x-supabase-api-version, x-retry-count, traceparent, tracestate, baggage",
);
const EXPOSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "content-range, content-location, location, preference-applied, x-sb-error-code, x-supabase-api-version, retry-after, \
     x-total-count, link",
);

/// What every request handler needs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub keys: Keys,
    pub clock: Arc<dyn domain::Clock>,
    pub database: Database,
    pub schema: SchemaCache,
    pub auth: Auth,
    pub realtime: Realtime,
    pub metrics: Metrics,
    /// Bytes of requests and of answers that are in memory.
    pub bodies: Arc<Budget>,
    pub answers: Arc<Budget>,
    pub turns: Turns,
    pub ready: metrics::Ready,
    /// Names and origins that are let in.
    pub door: Door,
    /// The hub's own address, the `iss` of its tokens.
    pub url: String,
}

/// All routes behind the guard.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/health", get(async || axum::Json(json!({"status": "ok"}))))
        .route("/ready", get(metrics::ready))
        .route("/metrics", get(metrics::metrics))
        .merge(crate::rest::routes())
        .merge(crate::auth::routes())
        .merge(crate::realtime::routes())
        .fallback(async || {
            (
                StatusCode::NOT_FOUND,
                axum::Json(json!({"message": "no Route matched with those values"})),
            )
        })
        .layer(middleware::from_fn_with_state(shared.clone(), guard))
        .with_state(shared)
}

/// Shared state as the handlers receive it.
pub(crate) type App = State<Arc<Shared>>;

async fn guard(State(shared): App, request: Request, next: Next) -> Response {
    let watch = Watch::begin(request.uri().path());
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = match judge(&shared.door, &request, origin.as_ref()) {
        Err(refusal) => return refused(refusal),
        Ok(()) if origin.is_some() && request.method() == Method::OPTIONS => {
            StatusCode::NO_CONTENT.into_response()
        }
        Ok(()) => answered(&shared, request, next).await,
    };
    watch.end(&shared.metrics, response.status());
    if let Some(origin) = origin {
        allow(response.headers_mut(), origin);
    }
    response
}

/// The answer of whoever handles the request, in time and with room for its body.
async fn answered(shared: &Arc<Shared>, request: Request, next: Next) -> Response {
    let Admitted {
        request,
        weight,
        useless,
    } = bodies::admit(shared, request);
    let mut response = match tokio::time::timeout(REQUEST_MAX, next.run(request)).await {
        Ok(_) if weight.is_some_and(|weight| weight.is_refused()) => full(),
        Ok(response) => response,
        Err(_) => late(),
    };
    if let Some(useless) = useless
        && !useless.discard().await
    {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

/// Whether a request comes under a name of ours and, when it comes from a page, from one that may use the hub.
fn judge(door: &Door, request: &Request, origin: Option<&HeaderValue>) -> Result<(), &'static str> {
    let host = identity::text(request.headers(), "host")
        .map(str::to_owned)
        .or_else(|| request.uri().authority().map(ToString::to_string));
    if !host.as_deref().is_some_and(|host| is_allowed_host(door, host)) {
        return Err("this host name is not served here; use an address or a name of the hub's settings");
    }
    let from = origin.map(|origin| origin.to_str().unwrap_or_default());
    if from.is_some_and(|from| !is_allowed_origin(door, from)) {
        return Err("this origin may not use the hub");
    }
    Ok(())
}

/// 408, and the connection is closed: the rest of the body is not waited for.
fn late() -> Response {
    let message = json!({"message": format!("the request took longer than {} s", REQUEST_MAX.as_secs())});
    let close = [(header::CONNECTION, "close")];
    (StatusCode::REQUEST_TIMEOUT, close, axum::Json(message)).into_response()
}

/// 503, and the connection is closed. The rest of the body has been thrown away, or there is too much of it.
fn full() -> Response {
    const MESSAGE: &str = "the hub holds as many bytes of requests as it may; try again in a moment";
    let how = [(header::CONNECTION, "close"), (header::RETRY_AFTER, "1")];
    let body = json!({"code": "53200", "message": MESSAGE, "details": null, "hint": "send less at once"});
    (StatusCode::SERVICE_UNAVAILABLE, how, axum::Json(body)).into_response()
}

fn refused(message: &'static str) -> Response {
    (StatusCode::FORBIDDEN, axum::Json(json!({"message": message})))
        .into_response()
        .map(Body::new)
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOW_METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOW_HEADERS);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSE_HEADERS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

/// Loopback's names, any address, and the names of the settings; never another one.
fn is_allowed_host(door: &Door, host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, _)) => address,
            None => return false,
        },
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok()
        || door.names.iter().any(|ours| name.eq_ignore_ascii_case(ours))
}

/// Pages served from this machine, the desktop window, and the origins of the settings.
fn is_allowed_origin(door: &Door, origin: &str) -> bool {
    if door.origins.iter().any(|ours| origin.eq_ignore_ascii_case(ours)) {
        return true;
    }
    let Some((scheme, rest)) = origin.split_once("://") else {
        return false;
    };
    match scheme {
        "tauri" => rest == "localhost",
        "http" | "https" => {
            let name = rest
                .strip_prefix('[')
                .and_then(|rest| rest.split_once(']'))
                .map_or_else(
                    || rest.rsplit_once(':').map_or(rest, |(name, _)| name),
                    |(address, _)| address,
                );
            name.eq_ignore_ascii_case("localhost")
                || name == "tauri.localhost"
                || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door() -> Door {
        Door {
            names: vec!["hub.example".to_owned()],
            origins: vec!["https://office.example".to_owned()],
            ..Door::default()
        }
    }

    #[test]
    fn names_that_somebody_else_controls_are_no_host_of_ours() {
        for good in [
            "127.0.0.1:54321",
            "localhost",
            "LOCALHOST:1",
            "[::1]:80",
            "10.0.0.7:54321",
            "hub.example:54321",
            "Hub.Example",
        ] {
            assert!(is_allowed_host(&door(), good), "{good}");
        }
        for bad in [
            "evil.example",
            "hub.example.evil.example",
            "127.0.0.1.evil.example:80",
            "localhost.evil.example",
            "[::1",
            "",
        ] {
            assert!(!is_allowed_host(&door(), bad), "{bad}");
        }
    }

    #[test]
    fn only_pages_of_this_machine_may_call() {
        for good in [
            "http://localhost:5173",
            "http://127.0.0.1",
            "http://[::1]:3000",
            "tauri://localhost",
            "https://office.example",
        ] {
            assert!(is_allowed_origin(&door(), good), "{good}");
        }
        for bad in [
            "null",
            "https://evil.example",
            "http://10.0.0.7",
            "http://office.example",
            "https://office.example.evil.example",
            "file://",
            "http://localhost.evil.example",
        ] {
            assert!(!is_allowed_origin(&door(), bad), "{bad}");
        }
    }
}

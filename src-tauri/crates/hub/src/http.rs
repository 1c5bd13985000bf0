//! The hub's one port: which hosts and origins may speak to it, CORS, health, and the three protocols' prefixes.
//!
//! Host names other than loopback's are refused, so that a page cannot reach the hub through a name it controls
//! (DNS rebinding); addresses are let in. Called by [`crate::Hub::start`].

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::json;

use crate::auth::attempts::Attempts;
use crate::db::Database;
use crate::identity;
use crate::keys::Keys;
use crate::realtime::Realtime;
use crate::rest::schema::SchemaCache;

/// Largest request body, in bytes.
const BODY_BYTES_MAX: usize = 10 * 1024 * 1024;

const ALLOW_METHODS: HeaderValue = HeaderValue::from_static("GET,HEAD,POST,PATCH,PUT,DELETE,OPTIONS");
/// Named one by one: a wildcard never covers `Authorization`.
const ALLOW_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, apikey, content-type, x-client-info, prefer, accept, accept-profile, content-profile, range, \
     range-unit, x-supabase-api-version, x-retry-count, traceparent, tracestate, baggage",
);
const EXPOSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "content-range, content-location, location, preference-applied, x-sb-error-code, x-supabase-api-version, retry-after",
);

/// What every request handler needs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub keys: Keys,
    pub clock: Arc<dyn domain::Clock>,
    pub database: Database,
    pub schema: SchemaCache,
    pub attempts: Attempts,
    pub realtime: Realtime,
    /// The hub's own address, the `iss` of its tokens.
    pub url: String,
}

/// All routes behind the guard.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/health", get(async || axum::Json(json!({"status": "ok"}))))
        .merge(crate::rest::routes())
        .merge(crate::auth::routes())
        .merge(crate::realtime::routes())
        .fallback(async || {
            (
                StatusCode::NOT_FOUND,
                axum::Json(json!({"message": "no Route matched with those values"})),
            )
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(guard))
        .with_state(shared)
}

/// Shared state as the handlers receive it.
pub(crate) type App = State<Arc<Shared>>;

async fn guard(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host = identity::text(headers, "host")
        .map(str::to_owned)
        .or_else(|| request.uri().authority().map(ToString::to_string));
    if !host.as_deref().is_some_and(is_allowed_host) {
        return refused("this host name is not served here; use 127.0.0.1 or localhost");
    }
    let Some(origin) = headers.get(header::ORIGIN).cloned() else {
        return next.run(request).await;
    };
    if !origin.to_str().is_ok_and(is_allowed_origin) {
        return refused("this origin may not use the hub");
    }
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    allow(response.headers_mut(), origin);
    response
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

/// Loopback's names and any address; never another name.
fn is_allowed_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, _)) => address,
            None => return false,
        },
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Pages served from this machine, and the desktop window.
fn is_allowed_origin(origin: &str) -> bool {
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

    #[test]
    fn names_that_somebody_else_controls_are_no_host_of_ours() {
        for good in [
            "127.0.0.1:54321",
            "localhost",
            "LOCALHOST:1",
            "[::1]:80",
            "10.0.0.7:54321",
        ] {
            assert!(is_allowed_host(good), "{good}");
        }
        for bad in [
            "evil.example",
            "127.0.0.1.evil.example:80",
            "localhost.evil.example",
            "[::1",
            "",
        ] {
            assert!(!is_allowed_host(bad), "{bad}");
        }
    }

    #[test]
    fn only_pages_of_this_machine_may_call() {
        for good in [
            "http://localhost:5173",
            "http://127.0.0.1",
            "http://[::1]:3000",
            "tauri://localhost",
        ] {
            assert!(is_allowed_origin(good), "{good}");
        }
        for bad in [
            "null",
            "https://evil.example",
            "http://10.0.0.7",
            "file://",
            "http://localhost.evil.example",
        ] {
            assert!(!is_allowed_origin(bad), "{bad}");
        }
    }
}

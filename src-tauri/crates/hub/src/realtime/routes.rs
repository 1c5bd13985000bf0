//! `/realtime/v1/…`: the WebSocket's handshake.
//!
//! Refusals are HTTP statuses before the upgrade, and late: a client that is let in and thrown out, or answered at
//! once, comes back at once. Called by `http`.

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::codec::Version;
use super::places::Crowd;
use super::wire::Handshake;
use super::{channel, posts, socket};
use crate::http::{App, Shared};
use crate::identity;
use crate::jwt::{Claims, TokenFault};
use crate::network::{Caller, Network};

pub(crate) type Pairs = Query<Vec<(String, String)>>;

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/realtime/v1/websocket", any(websocket))
        .route(
            "/realtime/v1/api/ping",
            get(async || Json(json!({"message": "Success"}))),
        )
        .route("/realtime/v1/api/broadcast", post(posts::broadcasts))
        .route(
            "/realtime/v1/api/broadcast/{topic}/events/{event}",
            post(posts::broadcast),
        )
}

/// An answer with an `error`.
pub(crate) fn refused(status: StatusCode, text: impl Into<String>) -> Response {
    (status, Json(json!({"error": text.into()}))).into_response()
}

async fn websocket(
    State(shared): App,
    Query(query): Pairs,
    Caller(ip): Caller,
    request: Request,
) -> Response {
    let who = match admit(&shared, &query, request.headers()) {
        Ok(admitted) => admitted,
        Err((status, text)) => return late(&shared, refused(status, text)).await,
    };
    let handshake = match Handshake::of(request) {
        Ok(handshake) => handshake,
        Err(refusal) => return refusal.into_response(),
    };
    let busy = |text: &str| refused(StatusCode::TOO_MANY_REQUESTS, text);
    let realtime = &shared.realtime;
    let taken = realtime
        .places
        .take(Network::of(ip), &realtime.settings(), Instant::now());
    let place = match taken {
        Ok(place) => Arc::new(place),
        Err(Crowd::Sockets) => return late(&shared, busy("Too many connected users")).await,
        Err(Crowd::Handshakes) => return late(&shared, busy("Too many joins per second")).await,
    };
    let payload_bytes_max = realtime.settings().payload_bytes_max;
    let (response, wire) = handshake.split(place.clone(), payload_bytes_max);
    // Counted by the hub's tracker, so that stopping waits for the close frame to be written.
    let tasks = realtime.tasks.clone();
    tasks.spawn(async move {
        match wire.await {
            Ok(wire) => socket::serve(shared, wire, who, place).await,
            Err(error) => tracing::debug!(%error, "a client went before it had its socket"),
        }
    });
    response
}

/// Whose key it is and which serializer is wanted, or why not.
fn admit(
    shared: &Shared,
    query: &[(String, String)],
    headers: &HeaderMap,
) -> Result<(Version, Claims), (StatusCode, String)> {
    let value = |name: &str| {
        query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let refusal = |status, text: &str| Err((status, text.to_owned()));
    let key = identity::text(headers, "x-api-key").or_else(|| value("apikey"));
    let Some(key) = key.filter(|key| !key.is_empty()) else {
        return refusal(StatusCode::UNAUTHORIZED, "API key is missing");
    };
    if identity::is_secret_in_browser(&shared.keys, headers, key) {
        let (text, _) = identity::Refusal::SecretInBrowser.text();
        return Err((StatusCode::UNAUTHORIZED, text));
    }
    let claims = match channel::verify(shared, key) {
        Ok(claims) => claims,
        Err(TokenFault::Expired { .. }) => return refusal(StatusCode::UNAUTHORIZED, "Token has expired"),
        Err(fault) => return refusal(StatusCode::UNAUTHORIZED, &fault.to_string()),
    };
    if !shared.realtime.settings().enabled {
        return refusal(StatusCode::FORBIDDEN, "Realtime was disabled for this tenant");
    }
    match Version::read(value("vsn")) {
        Some(version) => Ok((version, claims)),
        None => refusal(
            StatusCode::FORBIDDEN,
            "the serializer version is not supported; use 1.0.0 or 2.0.0",
        ),
    }
}

/// Holds a refusal back for a while, as long as not too many are held.
async fn late(shared: &Shared, response: Response) -> Response {
    if let Ok(_held) = shared.realtime.held_back.try_acquire() {
        sleep(shared.realtime.settings().refusal_delay).await;
    }
    response
}

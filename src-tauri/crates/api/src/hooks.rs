//! Where the agent programs' hooks arrive: `POST /hooks/<session>`, under the secret of that session.
//!
//! The answer is quick and decides nothing (`{}`): the agent stands still until it has it. Only where the agent asks a
//! person is the request held until somebody has answered; when the agent goes on without that, it drops the request.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use domain::SessionId;
use serde_json::{Value, json};

use crate::server::Shared;

/// Header that carries the session's secret (set by the hook settings that the session was started with).
const SECRET_HEADER: &str = "x-semo-hook";

/// Takes one hook.
pub async fn take(
    State(shared): State<Shared>,
    Path(session): Path<SessionId>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Json<Value>) {
    let secret = headers
        .get(SECRET_HEADER)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    match shared.client.hook(session, secret, &body).await {
        Ok(reply) => (StatusCode::OK, Json(reply.body().await)),
        Err(refusal) => {
            tracing::warn!(%session, %refusal, "a hook was not taken");
            (StatusCode::FORBIDDEN, Json(json!({})))
        }
    }
}

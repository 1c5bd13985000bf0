//! Methods: `POST /api/v1/rpc/<method>`, the state for those who do not stay: `GET /api/v1/state`, and the end of the
//! core: `POST /api/v1/stop`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use client::StopHow;
use client::request::{Answer, ErrorCode, Request, RequestError};
use serde::{Deserialize, Serialize};

use crate::server::Shared;

/// A refused request as a response: JSON `{code, message, hint}` under the status of its code.
pub struct Failure(pub RequestError);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0.code {
            ErrorCode::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorCode::Forbidden => StatusCode::FORBIDDEN,
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::Conflict => StatusCode::CONFLICT,
            ErrorCode::Unreachable => StatusCode::BAD_GATEWAY,
            ErrorCode::NotReady => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self.0)).into_response()
    }
}

/// Carries out one method.
pub async fn call(
    State(shared): State<Shared>,
    Path(method): Path<String>,
    body: Bytes,
) -> Result<Json<Answer>, Failure> {
    let request = Request::parse(&method, &body).map_err(Failure)?;
    shared.client.request(request).await.map(Json).map_err(Failure)
}

/// The state as it is now.
pub async fn state(State(shared): State<Shared>) -> Response {
    let state = shared.client.state().borrow().clone();
    Json(&*state).into_response()
}

/// `{"how": "leave" | "finish" | "now"}`: the way to end, asked for and, in the answer, the one that holds.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    how: StopHow,
}

/// Asks for the end of the core. The answer comes at once, the end when the sessions have theirs: the state tells of it
/// as long as there is one.
pub async fn stop(State(shared): State<Shared>, body: Bytes) -> Result<(StatusCode, Json<Stop>), Failure> {
    let wish: Stop = serde_json::from_slice(&body).map_err(|error| {
        let message = format!("the way to end was not understood: {error}");
        let hint = "Send {\"how\":\"leave\"}, \"finish\" or \"now\".";
        Failure(RequestError::new(ErrorCode::Invalid, message, hint))
    })?;
    let mut how = wish.how;
    shared.ask.send_modify(|asked| {
        how = asked.map_or(how, |before| before.then(how));
        *asked = Some(how);
    });
    tracing::info!(?how, "somebody asks over the local API for the end");
    Ok((StatusCode::ACCEPTED, Json(Stop { how })))
}

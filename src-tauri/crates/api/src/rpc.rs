//! Methods: `POST /api/v1/rpc/<method>`, and the state for those who do not stay: `GET /api/v1/state`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use client::request::{Answer, ErrorCode, Request, RequestError};

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

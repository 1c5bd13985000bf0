//! Auth's errors in the two shapes the official clients know (by the `X-Supabase-Api-Version` header).
//!
//! Called by `routes` and `session`.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use crate::identity::{self, Refusal};

/// First version of the API whose errors are `{code, message}`.
const NEW_SHAPE_SINCE: &str = "2024-01-01";

/// An error of Auth: status, code and text are GoTrue's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuthError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
}

impl AuthError {
    /// An error with a code of GoTrue.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> AuthError {
        AuthError {
            status,
            code,
            message: message.into(),
        }
    }

    /// Wrong address or wrong password: the same for both, so that addresses cannot be found out.
    pub fn credentials() -> AuthError {
        AuthError::new(
            StatusCode::BAD_REQUEST,
            "invalid_credentials",
            "Invalid login credentials",
        )
    }

    /// Something of ours does not work; the cause is in the log, not in the answer.
    pub fn internal(attempt: &str, cause: &dyn std::fmt::Display) -> AuthError {
        tracing::error!(attempt, %cause, "auth request failed");
        AuthError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "unexpected_failure",
            format!("could not {attempt}"),
        )
    }

    /// The answer, in the shape the request's version header asks for.
    pub fn response(&self, headers: &HeaderMap) -> Response {
        let new_shape = identity::text(headers, "x-supabase-api-version")
            .is_some_and(|version| version >= NEW_SHAPE_SINCE);
        let body = if new_shape {
            json!({"code": self.code, "message": self.message})
        } else {
            json!({"code": self.status.as_u16(), "error_code": self.code, "msg": self.message})
        };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert("x-sb-error-code", HeaderValue::from_static(self.code));
        if new_shape {
            // By this header the client knows which shape it is reading.
            headers.insert(
                "x-supabase-api-version",
                HeaderValue::from_static(NEW_SHAPE_SINCE),
            );
        }
        response
    }
}

impl From<Refusal> for AuthError {
    fn from(refusal: Refusal) -> AuthError {
        match refusal {
            Refusal::Token(fault) => AuthError::new(
                StatusCode::FORBIDDEN,
                "bad_jwt",
                format!("invalid JWT: unable to parse or verify signature, {fault}"),
            ),
            other => AuthError::new(other.status(), "no_authorization", other.text().0),
        }
    }
}

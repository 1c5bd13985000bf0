//! Auth's errors in the two shapes the official clients know (by the `X-Supabase-Api-Version` header).
//!
//! Never carries a cause of ours to a client: that goes to the log. Called by every module of `auth`.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use crate::identity::{self, Refusal};
use crate::jwt::TokenFault;

/// First version of the API whose errors are `{code, message}`.
const NEW_SHAPE_SINCE: &str = "2024-01-01";

/// An error of Auth: status, code and text are GoTrue's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuthError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    /// After how many seconds it may be tried again.
    retry_after_s: Option<u64>,
}

impl AuthError {
    /// An error with a code of GoTrue.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> AuthError {
        AuthError {
            status,
            code,
            message: message.into(),
            retry_after_s: None,
        }
    }

    /// Says when it may be tried again, in seconds.
    pub fn retry_after(mut self, seconds: u64) -> AuthError {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Something in the request is not as it must be.
    pub fn invalid(message: impl Into<String>) -> AuthError {
        AuthError::new(StatusCode::BAD_REQUEST, "validation_failed", message)
    }

    /// The request asks for something that cannot be done in this state of things.
    pub fn unprocessable(code: &'static str, message: impl Into<String>) -> AuthError {
        AuthError::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// A token that does not open this.
    pub fn forbidden(code: &'static str, message: impl Into<String>) -> AuthError {
        AuthError::new(StatusCode::FORBIDDEN, code, message)
    }

    /// A password that is too easy.
    pub fn weak_password(message: impl Into<String>) -> AuthError {
        AuthError::unprocessable("weak_password", message)
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

    /// A statement of ours failed. The database's details are left out: they may quote a row, with its hash.
    pub fn database(attempt: &'static str) -> impl Fn(tokio_postgres::Error) -> AuthError + Copy {
        move |error| match error.as_db_error() {
            Some(db) => AuthError::internal(attempt, &format!("{} ({})", db.message(), db.code().code())),
            None => AuthError::internal(attempt, &crate::error::explained(&error)),
        }
    }

    /// The answer, in the shape the request's version header asks for.
    pub fn response(&self, headers: &HeaderMap) -> Response {
        let new_shape = identity::text(headers, "x-supabase-api-version").is_some_and(is_new);
        let mut body = if new_shape {
            json!({"code": self.code, "message": self.message})
        } else {
            json!({"code": self.status.as_u16(), "error_code": self.code, "msg": self.message})
        };
        if self.code == "weak_password" {
            body["weak_password"] = json!({"reasons": ["length"]});
        }
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert("x-sb-error-code", HeaderValue::from_static(self.code));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
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

/// Whether `version` is a date (`YYYY-MM-DD`) of the new shape; what is no date asks for the old one, as at GoTrue.
fn is_new(version: &str) -> bool {
    let is_date = version.len() == NEW_SHAPE_SINCE.len()
        && version.bytes().enumerate().all(|(at, byte)| {
            if at == 4 || at == 7 {
                byte == b'-'
            } else {
                byte.is_ascii_digit()
            }
        });
    is_date && version >= NEW_SHAPE_SINCE
}

impl From<Refusal> for AuthError {
    fn from(refusal: Refusal) -> AuthError {
        match refusal {
            Refusal::Token(fault) => fault.into(),
            other => AuthError::new(other.status(), "no_authorization", other.text().0),
        }
    }
}

impl From<TokenFault> for AuthError {
    fn from(fault: TokenFault) -> AuthError {
        AuthError::forbidden(
            "bad_jwt",
            format!("invalid JWT: unable to parse or verify signature, {fault}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_goes_by_the_date_and_garbage_gets_the_old_one() {
        for new in ["2024-01-01", "2024-01-02", "2026-11-21"] {
            assert!(is_new(new), "{new}");
        }
        for old in ["", "2023-12-31", "latest", "9", "2024-1-1", "2024-01-01x"] {
            assert!(!is_new(old), "{old}");
        }
    }
}

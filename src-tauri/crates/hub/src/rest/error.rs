//! PostgREST's errors: always the four keys, statuses by SQLSTATE.
//!
//! Hints name nothing a caller could not see anyway. Called by every module of `rest`.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::identity::Refusal;
use crate::jwt::TokenFault;

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RestError {
    /// PostgREST's or Postgres's kind, with the four keys.
    Coded {
        status: StatusCode,
        code: String,
        message: String,
        details: Option<String>,
        hint: Option<String>,
        /// `WWW-Authenticate`, where the client should sign in again.
        challenge: Option<String>,
    },
    /// The gateway's kind.
    Gate(Refusal),
}

impl RestError {
    /// An error without details.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> RestError {
        RestError::Coded {
            status,
            code: code.to_owned(),
            message: message.into(),
            details: None,
            hint: None,
            challenge: None,
        }
    }

    /// The same error with details.
    pub fn with_details(mut self, text: impl Into<String>) -> RestError {
        if let RestError::Coded { details, .. } = &mut self {
            *details = Some(text.into());
        }
        self
    }

    /// The query string cannot be read.
    pub fn query(message: impl Into<String>) -> RestError {
        RestError::new(StatusCode::BAD_REQUEST, "PGRST100", message)
    }

    /// Something PostgREST can do and this hub cannot.
    pub fn unsupported(what: &str) -> RestError {
        RestError::new(
            StatusCode::BAD_REQUEST,
            "PGRST127",
            format!("Feature not implemented: {what}"),
        )
    }

    /// What the database said, for a caller of `role`.
    pub fn database(error: &tokio_postgres::Error, role: &str) -> RestError {
        let Some(db) = error.as_db_error() else {
            tracing::error!(error = %crate::error::explained(error), "a request lost its database");
            return RestError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "PGRST001",
                "Database client error. Retrying the connection.",
            );
        };
        let code = db.code().code();
        let anonymous = role == "anon";
        RestError::Coded {
            status: status_of(code, anonymous),
            code: code.to_owned(),
            message: db.message().to_owned(),
            details: db.detail().map(str::to_owned),
            hint: db.hint().map(str::to_owned),
            challenge: (code == "42501" && anonymous).then(|| "Bearer".to_owned()),
        }
    }
}

impl From<Refusal> for RestError {
    fn from(refusal: Refusal) -> RestError {
        let Refusal::Token(fault) = refusal else {
            return RestError::Gate(refusal);
        };
        let (code, message) = match fault {
            TokenFault::Expired { .. } => ("PGRST303", "JWT expired".to_owned()),
            TokenFault::NotYet => ("PGRST303", "JWT not yet valid".to_owned()),
            TokenFault::Incomplete => ("PGRST303", fault.to_string()),
            TokenFault::Signature => ("PGRST301", "No suitable key or wrong key type".to_owned()),
            TokenFault::Malformed { parts } => ("PGRST301", format!("Expected 3 parts in JWT; got {parts}")),
        };
        RestError::Coded {
            status: StatusCode::UNAUTHORIZED,
            code: code.to_owned(),
            challenge: Some(format!(
                "Bearer error=\"invalid_token\", error_description=\"{message}\""
            )),
            message,
            details: None,
            hint: None,
        }
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        match self {
            RestError::Gate(refusal) => {
                let (message, hint) = refusal.text();
                (refusal.status(), Json(json!({"message": message, "hint": hint}))).into_response()
            }
            RestError::Coded {
                status,
                code,
                message,
                details,
                hint,
                challenge,
            } => {
                let body = json!({"code": code, "message": message, "details": details, "hint": hint});
                let mut response = (status, body.to_string()).into_response();
                let headers = response.headers_mut();
                headers.insert(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("application/json; charset=utf-8"),
                );
                let proxy = HeaderValue::from_str(&format!("PostgREST; error={code}"));
                if let Ok(value) = proxy {
                    headers.insert(HeaderName::from_static("proxy-status"), value);
                }
                if let Some(value) = challenge.and_then(|text| HeaderValue::from_str(&text).ok()) {
                    headers.insert(header::WWW_AUTHENTICATE, value);
                }
                response
            }
        }
    }
}

/// PostgREST's table from SQLSTATE to HTTP status.
fn status_of(code: &str, anonymous: bool) -> StatusCode {
    // `raise … using errcode = 'PT409'` chooses the status itself.
    if let Some(status) = code
        .strip_prefix("PT")
        .and_then(|digits| digits.parse::<u16>().ok())
        && let Ok(status) = StatusCode::from_u16(status)
    {
        return status;
    }
    match code {
        "42501" if anonymous => StatusCode::UNAUTHORIZED,
        "42501" => StatusCode::FORBIDDEN,
        "23503" | "23505" => StatusCode::CONFLICT,
        "25006" => StatusCode::METHOD_NOT_ALLOWED,
        "21000" | "22023" => StatusCode::BAD_REQUEST,
        "42883" | "42P01" => StatusCode::NOT_FOUND,
        "P0001" => StatusCode::BAD_REQUEST,
        "40001" | "40P01" | "57014" => StatusCode::INTERNAL_SERVER_ERROR,
        "57P01" | "57P02" | "57P03" => StatusCode::SERVICE_UNAVAILABLE,
        _ => match code.get(..2) {
            Some("08" | "53") => StatusCode::SERVICE_UNAVAILABLE,
            Some("28") => StatusCode::FORBIDDEN,
            Some("22" | "23" | "42") => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_follow_the_state() {
        for (code, anonymous, status) in [
            ("42501", true, 401),
            ("42501", false, 403),
            ("23505", false, 409),
            ("PT409", false, 409),
            ("PT404", false, 404),
            ("PTxyz", false, 500),
            ("22P02", false, 400),
            ("42703", false, 400),
            ("57014", false, 500),
            ("53300", false, 503),
        ] {
            assert_eq!(status_of(code, anonymous).as_u16(), status, "{code}");
        }
    }
}

//! PostgREST's errors: always the four keys, statuses by SQLSTATE.
//!
//! Called by every module of `rest`; what the database says is turned into an answer by [`RestError::database`].

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::status;
use crate::identity::Refusal;
use crate::jwt::TokenFault;

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RestError {
    /// PostgREST's or Postgres's kind, with the four keys.
    Coded(Box<Coded>),
    /// The gateway's kind.
    Gate(Refusal),
}

/// What an answer with the four keys says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Coded {
    pub status: StatusCode,
    pub code: String,
    pub message: String,
    pub details: Option<Value>,
    pub hint: Option<String>,
    /// `WWW-Authenticate`, where the client should sign in again.
    pub challenge: Option<String>,
    /// Headers that a function asked for with `raise sqlstate 'PGRST'`.
    pub headers: Vec<(String, String)>,
    /// Something was not in the schema cache: with a newer one it may be.
    pub missing: bool,
}

impl RestError {
    /// An error without details.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> RestError {
        RestError::Coded(Box::new(Coded {
            status,
            code: code.to_owned(),
            message: message.into(),
            details: None,
            hint: None,
            challenge: None,
            headers: Vec::new(),
            missing: false,
        }))
    }

    /// 400 with a code of PostgREST's.
    pub fn bad(code: &str, message: impl Into<String>) -> RestError {
        RestError::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The same error with details.
    pub fn with_details(self, text: impl Into<Value>) -> RestError {
        let details = Some(text.into());
        self.changed(|coded| coded.details = details)
    }

    /// The same error with a hint, if there is one.
    pub fn with_hint(self, hint: Option<String>) -> RestError {
        self.changed(|coded| coded.hint = hint)
    }

    /// The same error, worth another look at the catalogue.
    pub fn missing(self) -> RestError {
        self.changed(|coded| coded.missing = true)
    }

    fn changed(mut self, change: impl FnOnce(&mut Coded)) -> RestError {
        if let RestError::Coded(coded) = &mut self {
            change(coded);
        }
        self
    }

    /// Whether a newer schema cache may help.
    pub fn is_missing(&self) -> bool {
        matches!(self, RestError::Coded(coded) if coded.missing)
    }

    /// The code, for tests and for decisions.
    #[cfg(test)]
    pub fn code(&self) -> &str {
        match self {
            RestError::Coded(coded) => &coded.code,
            RestError::Gate(_) => "",
        }
    }

    /// A column nobody knows, in Postgres's own words.
    pub fn no_column(relation: &str, column: &str) -> RestError {
        RestError::bad("42703", format!("column {relation}.{column} does not exist")).missing()
    }

    /// A limit of the hub's own on what a query may ask for.
    pub fn too_much(what: &str, most: usize) -> RestError {
        RestError::bad("PGRST100", format!("the request has more than {most} {what}"))
    }

    /// No connection was free in time.
    pub fn late() -> RestError {
        RestError::new(
            StatusCode::GATEWAY_TIMEOUT,
            "PGRST003",
            "Timed out acquiring connection from connection pool.",
        )
    }

    /// No connection can be made.
    pub fn away() -> RestError {
        RestError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "PGRST000",
            "Database connection error. Retrying the connection.",
        )
    }

    /// Too many requests of one account.
    pub fn too_many(most: usize) -> RestError {
        let message = format!("more than {most} requests of this account wait for the database");
        RestError::new(StatusCode::TOO_MANY_REQUESTS, "53300", message)
            .with_hint(Some("Wait for answers before asking for more.".to_owned()))
            .changed(|coded| coded.headers.push(("retry-after".to_owned(), "1".to_owned())))
    }

    /// Too many bytes of answers are on their way.
    pub fn full() -> RestError {
        let message = "the hub holds as many bytes of answers as it may";
        RestError::new(StatusCode::SERVICE_UNAVAILABLE, "53200", message)
            .with_hint(Some(
                "Read the answers that are on their way, or ask for less at once.".to_owned(),
            ))
            .changed(|coded| coded.headers.push(("retry-after".to_owned(), "1".to_owned())))
    }

    /// An answer that is longer than the hub gives.
    pub fn too_long(most: usize) -> RestError {
        RestError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "54000",
            format!("the answer is longer than {most} bytes"),
        )
        .with_hint(Some(
            "Ask for fewer rows or columns: select, limit and offset, or the Range header.".to_owned(),
        ))
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
        if code == "PGRST" {
            return status::raised(db.message(), db.detail());
        }
        let status = status::of(code, db.message(), role == "anon");
        let mut answer = RestError::new(status, code, db.message()).with_hint(db.hint().map(str::to_owned));
        if let Some(detail) = db.detail() {
            answer = answer.with_details(detail);
        }
        answer.changed(|coded| {
            coded.challenge = (status == StatusCode::UNAUTHORIZED).then(|| "Bearer".to_owned());
        })
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
        let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{message}\"");
        RestError::new(StatusCode::UNAUTHORIZED, code, message)
            .changed(|coded| coded.challenge = Some(challenge))
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        let coded = match self {
            RestError::Gate(refusal) => {
                let (message, hint) = refusal.text();
                return (refusal.status(), Json(json!({"message": message, "hint": hint}))).into_response();
            }
            RestError::Coded(coded) => coded,
        };
        let body = json!({
            "code": coded.code, "message": coded.message, "details": coded.details, "hint": coded.hint,
        });
        let mut response = (coded.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, json);
        if let Ok(value) = HeaderValue::from_str(&format!("PostgREST; error={}", coded.code)) {
            headers.insert(HeaderName::from_static("proxy-status"), value);
        }
        if let Some(value) = coded.challenge.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(header::WWW_AUTHENTICATE, value);
        }
        super::answer::add_headers(headers, &coded.headers);
        response
    }
}

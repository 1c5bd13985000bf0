//! From SQLSTATE to HTTP status, and the answers that a function writes itself (`raise sqlstate 'PGRST'`).
//!
//! Pure. Called by `error`.

use axum::http::StatusCode;
use serde::Deserialize;
use std::collections::BTreeMap;

use super::error::{Coded, RestError};

/// PostgREST's table.
pub(super) fn of(code: &str, message: &str, anonymous: bool) -> StatusCode {
    // `raise … using errcode = 'PT409'` chooses the status itself.
    if let Some(digits) = code.strip_prefix("PT") {
        return digits
            .parse::<u16>()
            .ok()
            .and_then(|number| StatusCode::from_u16(number).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let whole = match code {
        "23503" | "23505" => Some(StatusCode::CONFLICT),
        "25006" => Some(StatusCode::METHOD_NOT_ALLOWED),
        // pg-safeupdate's refusal is the client's doing; another cardinality violation is the function's.
        "21000" if message.ends_with("requires a WHERE clause") => Some(StatusCode::BAD_REQUEST),
        "21000" => Some(StatusCode::INTERNAL_SERVER_ERROR),
        "22023" if message.starts_with("role") && message.ends_with("does not exist") => {
            Some(StatusCode::UNAUTHORIZED)
        }
        "42501" if anonymous => Some(StatusCode::UNAUTHORIZED),
        "42501" => Some(StatusCode::FORBIDDEN),
        "42883" if message.starts_with("function xmlagg(") => Some(StatusCode::NOT_ACCEPTABLE),
        "42883" | "42P01" => Some(StatusCode::NOT_FOUND),
        "42P17" | "53400" => Some(StatusCode::INTERNAL_SERVER_ERROR),
        "57P01" => Some(StatusCode::SERVICE_UNAVAILABLE),
        "P0001" => Some(StatusCode::BAD_REQUEST),
        _ => None,
    };
    whole.unwrap_or_else(|| match code.get(..2) {
        Some("08" | "53") => StatusCode::SERVICE_UNAVAILABLE,
        Some("0L" | "0P" | "28") => StatusCode::FORBIDDEN,
        Some(
            "09" | "25" | "2D" | "38" | "39" | "3B" | "40" | "54" | "55" | "57" | "58" | "F0" | "HV" | "P0"
            | "XX",
        ) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    })
}

/// The message of `raise sqlstate 'PGRST'`.
#[derive(Deserialize)]
struct Message {
    code: String,
    message: String,
    details: Option<String>,
    hint: Option<String>,
}

/// Its detail.
#[derive(Deserialize)]
struct Detail {
    status: u16,
    headers: BTreeMap<String, String>,
}

/// The answer a function describes itself.
pub(super) fn raised(message: &str, detail: Option<&str>) -> RestError {
    let fault = |details: String, hint: &str| {
        RestError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "PGRST121",
            "Could not parse JSON in the \"RAISE SQLSTATE 'PGRST'\" error",
        )
        .with_details(details)
        .with_hint(Some(hint.to_owned()))
    };
    const MESSAGE: &str = "MESSAGE must be a JSON object with obligatory keys: 'code', 'message' and optional keys: 'details', 'hint'.";
    const DETAIL: &str = "DETAIL must be a JSON object with obligatory keys: 'status', 'headers' and optional key: 'status_text'.";
    let Ok(said) = serde_json::from_str::<Message>(message) else {
        return fault(format!("Invalid JSON value for MESSAGE: '{message}'"), MESSAGE);
    };
    let Some(detail) = detail else {
        return fault("DETAIL is missing in the RAISE statement".to_owned(), DETAIL);
    };
    let parsed = serde_json::from_str::<Detail>(detail).ok();
    let Some((status, headers)) = parsed.and_then(|detail| {
        let status = StatusCode::from_u16(detail.status).ok()?;
        Some((status, detail.headers.into_iter().collect()))
    }) else {
        return fault(format!("Invalid JSON value for DETAIL: '{detail}'"), DETAIL);
    };
    RestError::Coded(Box::new(Coded {
        status,
        code: said.code,
        message: said.message,
        details: said.details.map(Into::into),
        hint: said.hint,
        challenge: None,
        headers,
        missing: false,
    }))
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
            ("42P01", false, 404),
            ("25006", false, 405),
            ("57014", false, 500),
            ("40001", false, 500),
            ("53300", false, 503),
            ("08006", false, 503),
            ("28000", false, 403),
            ("P0001", false, 400),
            ("P0002", false, 500),
        ] {
            assert_eq!(of(code, "", anonymous).as_u16(), status, "{code}");
        }
        assert_eq!(of("21000", "UPDATE requires a WHERE clause", false).as_u16(), 400);
        assert_eq!(of("22023", "role \"x\" does not exist", false).as_u16(), 401);
    }

    #[test]
    fn a_function_may_write_its_whole_answer() {
        let message = r#"{"code":"123","message":"Payment","details":"d","hint":"h"}"#;
        let detail = r#"{"status":402,"headers":{"X-Powered-By":"Nerd Rage"}}"#;
        let RestError::Coded(coded) = raised(message, Some(detail)) else {
            panic!("coded")
        };
        assert_eq!((coded.status.as_u16(), coded.code.as_str()), (402, "123"));
        assert_eq!(
            coded.headers,
            [("X-Powered-By".to_owned(), "Nerd Rage".to_owned())]
        );
        for (message, detail) in [
            ("{}", Some("{}")),
            (message, None),
            (message, Some("{\"status\":2}")),
        ] {
            assert_eq!(raised(message, detail).code(), "PGRST121");
        }
    }
}

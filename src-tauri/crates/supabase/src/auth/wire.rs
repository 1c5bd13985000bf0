//! What Auth says on the wire: the session it gives, the errors it answers with. Pure; called by [`super`].

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{Timestamp, UserId};
use serde::Deserialize;
use serde_json::Value;

use super::{AuthError, Tokens};

/// Life of an access token when the server does not tell, in seconds (GoTrue's default).
const EXPIRES_IN_S_DEFAULT: i64 = 3600;
/// Longest life that is believed, in seconds: nobody gives out access tokens for more than a week.
const EXPIRES_IN_S_MAX: i64 = 7 * 24 * 3600;

#[derive(Deserialize)]
struct Session {
    access_token: String,
    refresh_token: String,
    #[serde(default)]
    expires_in: Option<i64>,
    user: User,
}

#[derive(Deserialize)]
struct User {
    id: UserId,
    #[serde(default)]
    email: Option<String>,
}

/// Reads a session answer. The expiry is counted from `now` by our own clock: the server's `expires_at` would make
/// every token stale (or immortal) on a machine whose clock is wrong.
pub(super) fn tokens(body: &[u8], now: Timestamp) -> Result<Tokens, String> {
    let session: Session = serde_json::from_slice(body)
        .map_err(|error| format!("it is not a session: {}", shape_only(&error)))?;
    for (name, token) in [
        ("access_token", &session.access_token),
        ("refresh_token", &session.refresh_token),
    ] {
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("its {name} holds characters that no token has"));
        }
    }
    let life_s = session
        .expires_in
        .unwrap_or(EXPIRES_IN_S_DEFAULT)
        .clamp(1, EXPIRES_IN_S_MAX);
    Ok(Tokens {
        access_token: session.access_token,
        refresh_token: session.refresh_token,
        refresh_at: now.plus_ms(life_s * 1000 * 2 / 3),
        expires_at: now.plus_ms(life_s * 1000),
        user: session.user.id,
        email: session.user.email.unwrap_or_default(),
        // The session does not tell; whoever asked knows.
        project: String::new(),
    })
}

/// Who an access token says has made it: `<project>/auth/v1`. Not checked; `None` when it is no JWT or does not say.
pub(super) fn issuer(access_token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        iss: String,
    }
    let claims = access_token.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    Some(serde_json::from_slice::<Claims>(&claims).ok()?.iss)
}

/// A serde error without any of the text it was found in, which may be a token.
fn shape_only(error: &serde_json::Error) -> String {
    format!(
        "{:?} error at line {}, column {}",
        error.classify(),
        error.line(),
        error.column()
    )
}

/// An error answer, in any of the shapes that GoTrue and the gateways before it use.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    /// `invalid_credentials` …; empty when none was given.
    pub code: String,
    /// For people.
    pub message: String,
}

/// Reads an error body leniently: `{code,message}`, `{code:400,error_code,msg}`, `{error,error_description}`, or text.
pub(super) fn refusal(body: &[u8]) -> Refusal {
    let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(body) else {
        let text = String::from_utf8_lossy(body);
        return Refusal {
            code: String::new(),
            message: text.trim().chars().take(200).collect(),
        };
    };
    let text = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| fields.get(*name).and_then(Value::as_str))
            .unwrap_or_default()
            .to_owned()
    };
    Refusal {
        code: text(&["error_code", "code", "error"]),
        message: text(&["message", "msg", "error_description"]),
    }
}

/// Codes after which only a new sign-in helps.
const SIGNED_OUT_CODES: [&str; 7] = [
    "refresh_token_not_found",
    "refresh_token_already_used",
    "session_expired",
    "session_not_found",
    "user_banned",
    "user_not_found",
    "invalid_grant",
];

/// What was being asked of Auth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Sign in with a password.
    Password,
    /// A new pair for a refresh token.
    Refresh,
    /// Sign out.
    Logout,
    /// Whether the project answers.
    Look,
}

impl Ask {
    /// For messages: "could not …".
    pub(super) fn verb(self) -> &'static str {
        match self {
            Ask::Password => "sign in",
            Ask::Refresh => "renew the sign-in",
            Ask::Logout => "sign out",
            Ask::Look => "ask the project for its sign-in",
        }
    }
}

/// What an error status means.
pub(super) fn error(
    ask: Ask,
    url: &str,
    status: u16,
    retry_after: Option<Duration>,
    body: &[u8],
) -> AuthError {
    let Refusal { code, message } = refusal(body);
    if ask == Ask::Password && matches!(code.as_str(), "invalid_credentials" | "invalid_grant") {
        return AuthError::WrongPassword;
    }
    if ask == Ask::Refresh && SIGNED_OUT_CODES.contains(&code.as_str()) {
        let reason = if message.is_empty() {
            code
        } else {
            format!("{message} ({code})")
        };
        return AuthError::SignedOut { reason };
    }
    if status == 408 || status == 429 || status >= 500 {
        return AuthError::Unreachable {
            attempted: ask.verb(),
            url: url.to_owned(),
            reason: format!("it answered {status} {}", first_of(&message, &code)),
            retry_after,
            status: Some(status),
        };
    }
    AuthError::Refused {
        attempted: ask.verb(),
        url: url.to_owned(),
        status,
        code,
        message,
    }
}

fn first_of<'a>(message: &'a str, code: &'a str) -> &'a str {
    if message.is_empty() { code } else { message }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &[u8] = br#"{"access_token":"a.b.c","token_type":"bearer","expires_in":3600,"expires_at":1,
        "refresh_token":"r1","user":{"id":"6f6c3c1e-0000-4000-8000-000000000001","email":"a@b.c","aud":"authenticated"}}"#;

    #[test]
    fn the_expiry_is_counted_by_our_clock_and_not_by_the_servers() {
        let tokens = tokens(SESSION, Timestamp(1_000)).expect("a session");
        assert_eq!(tokens.expires_at, Timestamp(3_601_000));
        assert_eq!(tokens.refresh_at, Timestamp(2_401_000), "two thirds of its life");
    }

    #[test]
    fn a_session_that_is_none_is_refused_without_showing_it() {
        for body in [
            &b"{}"[..],
            b"",
            b"[1]",
            b"{\"access_token\":\"topsecret\"}",
            b"\xff\xfe",
        ] {
            let why = tokens(body, Timestamp(0)).expect_err("not a session");
            assert!(!why.contains("topsecret"), "{why}");
        }
        let injected = String::from_utf8_lossy(SESSION).replace("a.b.c", "a\\nb");
        assert!(
            tokens(injected.as_bytes(), Timestamp(0)).is_err(),
            "a token with a line end would be a header of its own"
        );
    }

    #[test]
    fn every_shape_of_error_body_is_understood() {
        for (body, code, message) in [
            (
                r#"{"code":"invalid_credentials","message":"Invalid login credentials"}"#,
                "invalid_credentials",
                "Invalid login credentials",
            ),
            (
                r#"{"code":400,"error_code":"session_expired","msg":"Session expired"}"#,
                "session_expired",
                "Session expired",
            ),
            (
                r#"{"error":"invalid_grant","error_description":"Invalid Refresh Token"}"#,
                "invalid_grant",
                "Invalid Refresh Token",
            ),
            (
                r#"{"message":"Invalid API key","hint":"x"}"#,
                "",
                "Invalid API key",
            ),
            ("<html>bad gateway</html>", "", "<html>bad gateway</html>"),
            ("", "", ""),
        ] {
            let expected = Refusal {
                code: code.to_owned(),
                message: message.to_owned(),
            };
            assert_eq!(refusal(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn only_a_dead_session_means_sign_in_again() {
        let ask = |status, code: &str| {
            error(
                Ask::Refresh,
                "u",
                status,
                None,
                format!("{{\"code\":\"{code}\",\"message\":\"m\"}}").as_bytes(),
            )
        };
        for code in SIGNED_OUT_CODES {
            assert!(matches!(ask(400, code), AuthError::SignedOut { .. }), "{code}");
        }
        assert!(matches!(
            ask(500, "unexpected_failure"),
            AuthError::Unreachable { .. }
        ));
        assert!(!ask(500, "unexpected_failure").is_rate_limit());
        let too_many = ask(429, "over_request_rate_limit");
        assert!(matches!(too_many, AuthError::Unreachable { .. }));
        assert!(too_many.is_rate_limit());
        assert!(
            matches!(ask(401, ""), AuthError::Refused { .. }),
            "a wrong key does not end the session"
        );
    }
}

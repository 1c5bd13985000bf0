//! Who asks: the gateway's part of Supabase. The `apikey` opens the door, the bearer token names the role.
//!
//! Never trusts anything but the hub's own keys and tokens it signed. Called by `rest`, `auth` and `realtime`.

use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::http::Shared;
use crate::jwt::{Claims, TokenFault};
use crate::keys::Keys;

/// How long after `exp` REST still takes a token, as PostgREST does, in seconds.
pub(crate) const REST_SKEW_S: i64 = 30;

/// Why a request is not let in. Each protocol gives it a shape of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No `apikey` in header or query.
    NoKey,
    /// An `apikey` that is none of ours.
    WrongKey,
    /// A secret key sent by a browser.
    SecretInBrowser,
    /// The bearer token is not good.
    Token(TokenFault),
}

impl Refusal {
    /// Status of the gateway's answer.
    pub fn status(&self) -> StatusCode {
        StatusCode::UNAUTHORIZED
    }

    /// Message and hint of the gateway's answer.
    pub fn text(&self) -> (String, &'static str) {
        match self {
            Refusal::NoKey => (
                "No API key found in request".to_owned(),
                "No `apikey` request header or url param was found.",
            ),
            Refusal::WrongKey => ("Invalid API key".to_owned(), "Double check your API key."),
            Refusal::SecretInBrowser => (
                "Forbidden use of secret API key in browser".to_owned(),
                "Secret API keys can only be used in a protected environment.",
            ),
            Refusal::Token(fault) => (fault.to_string(), "Sign in again or refresh the token."),
        }
    }
}

/// The role a key stands for; `None` for anything that is no key of this hub.
pub(crate) fn key_role(keys: &Keys, key: &str) -> Option<&'static str> {
    // Digests are compared, so that the time taken says nothing about the key.
    let given = Sha256::digest(key);
    let is = |known: &str| Sha256::digest(known) == given;
    if is(&keys.publishable) || is(&keys.anon_jwt) {
        Some("anon")
    } else if is(&keys.secret) || is(&keys.service_role_jwt) {
        Some("service_role")
    } else {
        None
    }
}

/// Claims of somebody who has only a key.
pub(crate) fn key_claims(role: &str) -> Claims {
    let all = Map::from_iter([("role".to_owned(), Value::String(role.to_owned()))]);
    Claims {
        role: role.to_owned(),
        exp: None,
        all,
    }
}

/// The key of a request: header before query.
pub(crate) fn api_key<'r>(headers: &'r HeaderMap, query: &'r [(String, String)]) -> Option<&'r str> {
    let from_query = || {
        query
            .iter()
            .find(|(name, _)| name == "apikey")
            .map(|(_, value)| value.as_str())
    };
    text(headers, "apikey")
        .or_else(|| text(headers, "x-api-key"))
        .or_else(from_query)
}

/// Checks the key of a request and returns its role.
pub(crate) fn check_key(
    shared: &Shared,
    headers: &HeaderMap,
    query: &[(String, String)],
) -> Result<&'static str, Refusal> {
    let key = api_key(headers, query).ok_or(Refusal::NoKey)?;
    let role = key_role(&shared.keys, key).ok_or(Refusal::WrongKey)?;
    if is_secret_in_browser(&shared.keys, headers, key) {
        return Err(Refusal::SecretInBrowser);
    }
    Ok(role)
}

/// Whether a browser sends a key that only servers may have: then it is in a page that others can read.
pub(crate) fn is_secret_in_browser(keys: &Keys, headers: &HeaderMap, key: &str) -> bool {
    let browser = text(headers, "user-agent").is_some_and(|agent| agent.starts_with("Mozilla/"));
    browser && key_role(keys, key) == Some("service_role")
}

/// Key and token together: the claims a request runs under.
pub(crate) fn identify(
    shared: &Shared,
    headers: &HeaderMap,
    query: &[(String, String)],
) -> Result<Claims, Refusal> {
    let role = check_key(shared, headers, query)?;
    match bearer(headers) {
        None => Ok(key_claims(role)),
        Some(token) if Some(token) == api_key(headers, query) => Ok(key_claims(role)),
        // `sb_…` keys are no tokens: as one they count only where the very same opened the door, else a secret key
        // could come in past the check above.
        Some(token) => verify_token(shared, token, REST_SKEW_S).map_err(Refusal::Token),
    }
}

/// Checks a token: the one place that REST, Realtime and Auth ask. `skew_s`: how long after `exp` it still passes.
pub(crate) fn verify_token(shared: &Shared, token: &str, skew_s: i64) -> Result<Claims, TokenFault> {
    shared.auth.tokens.verify(token, shared.clock.now(), skew_s)
}

/// The token of `Authorization: Bearer …`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = text(headers, header::AUTHORIZATION.as_str())?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim())
        .filter(|token| !token.is_empty())
}

/// A header as text; `None` when it is absent or not text.
pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

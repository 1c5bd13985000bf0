//! Who may call: the token, the Host header, the Origin.
//!
//! A page of a stranger in the user's browser can send requests to 127.0.0.1; it must not learn anything by it
//! (DNS rebinding, cross-site WebSockets), therefore Host and Origin are checked before the token. A page that was open
//! over a restart comes back with the token it has; before it sends it, whoever listens has to prove that he knows it
//! ([`prove`]), because the port may be another user's program by now.

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use client::request::{ErrorCode, RequestError};
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::rpc::Failure;
use crate::server::Shared;

/// Characters of a token: 256 bits in hex.
const TOKEN_CHARS: usize = 64;
/// Characters of what a page wants to see proven, at least and at most.
const NONCE_CHARS: std::ops::RangeInclusive<usize> = 32..=128;

/// The secret of the local API, 256 bits in hex. Whoever has it is the user.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Makes a token from 32 random bytes.
    pub fn new(random: [u8; 32]) -> Token {
        Token(random.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// One that was kept; `None` when it is none.
    pub fn parse(text: &str) -> Option<Token> {
        let is_one = text.len() == TOKEN_CHARS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_one.then(|| Token(text.to_owned()))
    }

    /// Shows that its owner listens on this port, without telling it: HMAC-SHA-256 in hex. The port is in it, so that
    /// nobody can pass on what another port has proven.
    fn proof(&self, port: u16, nonce: &str) -> String {
        // Keys of every length are taken.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()) else {
            return String::new();
        };
        mac.update(format!("semo core\n{port}\n{nonce}").as_bytes());
        let bytes = mac.finalize().into_bytes();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The text, for the URL that is handed to the user or the window.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Compares without telling by its duration where the first difference is.
    pub fn matches(&self, given: &str) -> bool {
        self.0.len() == given.len()
            && self
                .0
                .bytes()
                .zip(given.bytes())
                .fold(0, |difference, (a, b)| difference | (a ^ b))
                == 0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// WebSocket subprotocol that is answered; the token travels beside it as `token.<hex>`, because a browser cannot
/// set headers on a WebSocket and a URL ends up in logs.
pub const SUBPROTOCOL: &str = "semo.v1";

/// Origins of the desktop window, by platform.
const WINDOW_ORIGINS: &[&str] = &[
    "tauri://localhost",
    "http://tauri.localhost",
    "https://tauri.localhost",
];

/// Refuses requests whose Host is not ours or whose Origin is foreign, and answers preflights of the window.
pub async fn check_place(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !host_is_ours(headers, shared.port) {
        return refuse(StatusCode::FORBIDDEN, "this Host is not served here");
    }
    let origin = headers.get(header::ORIGIN).cloned();
    if let Some(origin) = &origin
        && !origin_is_ours(origin, shared.port)
    {
        return refuse(StatusCode::FORBIDDEN, "this Origin may not call the local API");
    }
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("authorization, content-type"),
        );
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST"),
        );
    }
    response
}

/// What a page wants to see proven.
#[derive(Debug, Deserialize)]
pub struct Challenge {
    nonce: String,
}

/// That this core knows the token.
#[derive(Debug, Serialize)]
pub struct Proof {
    proof: String,
}

/// Proves to a page that has the token that it may send it. Everybody may ask: the answer tells nothing to others.
pub async fn prove(
    State(shared): State<Shared>,
    Query(challenge): Query<Challenge>,
) -> Result<Json<Proof>, StatusCode> {
    let nonce = &challenge.nonce;
    if !NONCE_CHARS.contains(&nonce.len()) || !nonce.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(StatusCode::BAD_REQUEST);
    }
    Ok(Json(Proof {
        proof: shared.token.proof(shared.port, nonce),
    }))
}

/// Refuses requests without the token.
pub async fn check_token(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let given = bearer(request.headers()).or_else(|| subprotocol_token(request.headers()));
    if given.is_some_and(|given| shared.token.matches(given)) {
        next.run(request).await
    } else {
        refuse(
            StatusCode::UNAUTHORIZED,
            "the token is missing or not the one that holds now",
        )
    }
}

fn refuse(status: StatusCode, message: &str) -> Response {
    let error = RequestError::new(
        ErrorCode::Unauthorized,
        message,
        "Open the address that `semo status` prints, or start the desktop app again.",
    );
    (status, Failure(error)).into_response()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
}

fn subprotocol_token(headers: &HeaderMap) -> Option<&str> {
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    offered
        .split(',')
        .find_map(|protocol| protocol.trim().strip_prefix("token."))
}

fn host_is_ours(headers: &HeaderMap, port: u16) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    [format!("127.0.0.1:{port}"), format!("localhost:{port}")].contains(&host.to_owned())
}

fn origin_is_ours(origin: &HeaderValue, port: u16) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    WINDOW_ORIGINS.contains(&origin)
        || origin == format!("http://127.0.0.1:{port}")
        || origin == format!("http://localhost:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_token_matches_and_it_is_never_printed() {
        let token = Token::new([7; 32]);
        assert_eq!(token.reveal().len(), 64);
        assert!(token.matches(&"07".repeat(32)));
        assert!(!token.matches(&"07".repeat(31)) && !token.matches(&"08".repeat(32)) && !token.matches(""));
        assert_eq!(format!("{token:?}"), "Token(…)");
    }

    #[test]
    fn a_kept_token_is_the_same_again_and_nothing_else_is_taken_for_one() {
        let token = Token::new([7; 32]);
        assert!(Token::parse(token.reveal()) == Some(token));
        for text in ["", "07", &"g7".repeat(32), &"07".repeat(33)] {
            assert!(Token::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_proof_is_of_one_token_one_port_and_one_question() {
        let token = Token::new([7; 32]);
        let proof = token.proof(4100, "aa");
        // Computed with Python's hmac: what the page computes has to be the same.
        assert_eq!(
            proof,
            "6f1a1e7516935c3d63fc0b68390fb130c3fd8a8410053f05f2141d53c1436cb1"
        );
        assert_ne!(proof, token.proof(4101, "aa"));
        assert_ne!(proof, token.proof(4100, "ab"));
        assert_ne!(proof, Token::new([8; 32]).proof(4100, "aa"));
    }

    #[test]
    fn a_rebound_name_and_a_foreign_page_are_not_ours() {
        let mut headers = HeaderMap::new();
        assert!(!host_is_ours(&headers, 80), "no Host");
        headers.insert(header::HOST, HeaderValue::from_static("evil.example:4100"));
        assert!(!host_is_ours(&headers, 4100));
        headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:4100"));
        assert!(host_is_ours(&headers, 4100) && !host_is_ours(&headers, 4101));
        for (origin, ours) in [
            ("tauri://localhost", true),
            ("http://127.0.0.1:4100", true),
            ("http://127.0.0.1:9", false),
            ("https://evil.example", false),
            ("null", false),
        ] {
            assert_eq!(
                origin_is_ours(&HeaderValue::from_static(origin), 4100),
                ours,
                "{origin}"
            );
        }
    }
}

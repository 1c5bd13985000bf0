//! Signing and checking the hub's tokens (HS256 with the secret of `hub.json`).
//!
//! Never looks at the machine's clock: the time is an argument, so that expiry can be tested. Called by `keys`,
//! `identity` (REST, Auth) and `realtime`.

use domain::Timestamp;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Map, Value};

/// A verified token: who asks, and what is handed to SQL as `request.jwt.claims`.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// Database role: `anon`, `authenticated` or `service_role`.
    pub role: String,
    /// Expiry in seconds since 1970; absent for the hub's own keys that are not JWTs.
    pub exp: Option<i64>,
    /// All claims as they stand in the token.
    pub all: Map<String, Value>,
}

/// Why a token is not accepted. The texts are Supabase's, official clients look at them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Not three base64 parts of JSON.
    #[error("The token provided is not a valid JWT")]
    Malformed {
        /// Number of dot-separated parts that came.
        parts: usize,
    },
    /// Signed with another key, or with an algorithm that is not ours.
    #[error("Failed to validate JWT signature")]
    Signature,
    /// `exp` has passed.
    #[error("Token has expired {seconds} seconds ago")]
    Expired {
        /// How long ago.
        seconds: i64,
    },
    /// `nbf` or `iat` lies in the future.
    #[error("JWT not yet valid")]
    NotYet,
    /// `role` or `exp` is missing.
    #[error("Fields `role` and `exp` are required in JWT")]
    Incomplete,
}

/// The roles a token may name. Any other would be a role of the database that no client may take.
const ROLES: [&str; 3] = ["anon", "authenticated", "service_role"];

/// Signs `claims` with `secret`.
pub fn sign(claims: &Value, secret: &str) -> Result<String, jsonwebtoken::errors::Error> {
    jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        claims,
        &EncodingKey::from_secret(secret.as_bytes()),
    )
}

/// Checks signature, shape and time. `skew_s`: how long after `exp` a token still passes (REST 30, Realtime 0).
pub fn verify(token: &str, secret: &str, now: Timestamp, skew_s: i64) -> Result<Claims, TokenFault> {
    let parts = token.split('.').count();
    if parts != 3 || token.split('.').any(str::is_empty) {
        return Err(TokenFault::Malformed { parts });
    }
    let mut rules = Validation::new(Algorithm::HS256);
    rules.validate_exp = false;
    rules.validate_nbf = false;
    rules.validate_aud = false;
    rules.required_spec_claims.clear();
    let key = DecodingKey::from_secret(secret.as_bytes());
    let all = jsonwebtoken::decode::<Map<String, Value>>(token, &key, &rules)
        .map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => TokenFault::Signature,
            _ => TokenFault::Malformed { parts },
        })?
        .claims;
    let now_s = now.0.div_euclid(1000);
    let exp = all
        .get("exp")
        .and_then(Value::as_i64)
        .ok_or(TokenFault::Incomplete)?;
    let role = all
        .get("role")
        .and_then(Value::as_str)
        .ok_or(TokenFault::Incomplete)?;
    if !ROLES.contains(&role) {
        return Err(TokenFault::Incomplete);
    }
    if exp.saturating_add(skew_s) <= now_s {
        return Err(TokenFault::Expired {
            seconds: now_s.saturating_sub(exp),
        });
    }
    if all
        .get("nbf")
        .and_then(Value::as_i64)
        .is_some_and(|nbf| nbf > now_s.saturating_add(skew_s))
    {
        return Err(TokenFault::NotYet);
    }
    Ok(Claims {
        role: role.to_owned(),
        exp: Some(exp),
        all,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRET: &str = "super-secret-jwt-token-with-at-least-32-characters-long";
    const NOW: Timestamp = Timestamp(1_795_223_944_000);

    fn token(claims: Value) -> String {
        sign(&claims, SECRET).unwrap()
    }

    #[test]
    fn a_token_is_good_until_the_second_it_expires() {
        let exp = NOW.0 / 1000;
        assert!(verify(&token(json!({"role": "anon", "exp": exp + 1})), SECRET, NOW, 0).is_ok());
        assert_eq!(
            verify(&token(json!({"role": "anon", "exp": exp})), SECRET, NOW, 0),
            Err(TokenFault::Expired { seconds: 0 })
        );
        assert!(verify(&token(json!({"role": "anon", "exp": exp - 29})), SECRET, NOW, 30).is_ok());
    }

    #[test]
    fn nobody_becomes_a_database_role_that_is_not_for_clients() {
        let exp = NOW.0 / 1000 + 60;
        for role in ["postgres", "supabase_admin", "authenticator", ""] {
            let refused = verify(&token(json!({"role": role, "exp": exp})), SECRET, NOW, 0);
            assert_eq!(refused, Err(TokenFault::Incomplete), "role {role:?}");
        }
    }

    #[test]
    fn other_keys_other_algorithms_and_garbage_are_refused() {
        let exp = NOW.0 / 1000 + 60;
        let good = token(json!({"role": "anon", "exp": exp}));
        assert_eq!(
            verify(&good, "another secret", NOW, 0),
            Err(TokenFault::Signature)
        );
        let none = "eyJhbGciOiJub25lIn0.eyJyb2xlIjoic2VydmljZV9yb2xlIiwiZXhwIjo5OTk5OTk5OTk5fQ.x";
        assert!(verify(none, SECRET, NOW, 0).is_err(), "alg none");
        assert_eq!(
            verify("a.b", SECRET, NOW, 0),
            Err(TokenFault::Malformed { parts: 2 })
        );
        assert_eq!(
            verify("", SECRET, NOW, 0),
            Err(TokenFault::Malformed { parts: 1 })
        );
        assert_eq!(
            verify("a.b.c", SECRET, NOW, 0),
            Err(TokenFault::Malformed { parts: 3 })
        );
    }
}

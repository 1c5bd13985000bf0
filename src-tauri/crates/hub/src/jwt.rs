//! Signing and checking the hub's tokens: ES256 with a key of `hub.json` for signed-in users, HS256 with its secret
//! for the legacy keys and for tokens that servers sign themselves.
//!
//! The key decides the algorithm, never the token: a token names at most which of our own keys it means. Never looks
//! at the machine's clock: the time is an argument, so that expiry can be tested. Called by `keys`, `identity` (REST,
//! Realtime) and `auth`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use domain::Timestamp;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::keys::{Keys, SigningKey};

/// Longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 128 * 1024;
/// How long after its replacement a signing key is still accepted, in seconds: longer than any access token lives.
const REPLACED_KEY_LIFE_S: i64 = 2 * 3600;
/// Checked ES256 tokens that are remembered, so that a client's thousandth request costs no curve arithmetic.
const REMEMBERED_MAX: usize = 4096;

/// Longest token that is remembered, in bytes: what its claims take must have an end, too.
const REMEMBERED_BYTES_MAX: usize = 4096;

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

impl Claims {
    /// The signed-in user; none for keys and for tokens of servers.
    pub fn user(&self) -> Option<uuid::Uuid> {
        self.all.get("sub").and_then(Value::as_str)?.parse().ok()
    }

    /// For whom it counts.
    pub(crate) fn subject(&self) -> Subject {
        let role = || Subject::Role(self.role.clone());
        self.user().map_or_else(role, Subject::User)
    }
}

/// Whose question or request it is, where they are counted: a user's, or of all who have no more than the same role.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    User(uuid::Uuid),
    Role(String),
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
pub(crate) const ROLES: [&str; 3] = ["anon", "authenticated", "service_role"];

/// Signs `claims` with `secret`.
pub(crate) fn sign_hs256(claims: &Value, secret: &str) -> Result<String, jsonwebtoken::errors::Error> {
    jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        claims,
        &EncodingKey::from_secret(secret.as_bytes()),
    )
}

/// What the hub signs with and what it accepts.
pub(crate) struct Tokens {
    hs256: DecodingKey,
    es256: RwLock<Arc<Es256>>,
    /// Digest of a token whose signature was right → its claims, and until when its key is accepted.
    remembered: Mutex<HashMap<[u8; 32], Checked>>,
}

type Checked = (Map<String, Value>, Option<i64>);

struct Es256 {
    sign_with: EncodingKey,
    keys: Vec<(SigningKey, DecodingKey)>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Es256 {
    fn new(keys: &Keys) -> Result<Es256, String> {
        let first = keys
            .signing_keys
            .first()
            .ok_or_else(|| "there is no signing key in it".to_owned())?;
        let read = |key: &SigningKey| {
            DecodingKey::from_ec_components(&key.x, &key.y)
                .map(|decoding| (key.clone(), decoding))
                .map_err(|error| format!("the signing key {} is not usable: {error}", key.kid))
        };
        Ok(Es256 {
            sign_with: EncodingKey::from_ec_der(&first.pkcs8()?),
            keys: keys.signing_keys.iter().map(read).collect::<Result<_, _>>()?,
        })
    }
}

impl Tokens {
    /// Reads the keys; the error says what is wrong with them.
    pub fn new(keys: &Keys) -> Result<Tokens, String> {
        Ok(Tokens {
            hs256: DecodingKey::from_secret(keys.jwt_secret.as_bytes()),
            es256: RwLock::new(Arc::new(Es256::new(keys)?)),
            remembered: Mutex::default(),
        })
    }

    /// Signs with the newest key of `keys` from now on, and accepts all of them.
    pub fn replace(&self, keys: &Keys) -> Result<(), String> {
        let new = Arc::new(Es256::new(keys)?);
        *self.es256.write().unwrap_or_else(PoisonError::into_inner) = new;
        // After the change, so that no token of a key that is gone comes in behind it.
        self.lock_remembered().clear();
        Ok(())
    }

    fn es256(&self) -> Arc<Es256> {
        self.es256.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock_remembered(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Checked>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs the claims of a signed-in user.
    pub fn sign(&self, claims: &Value) -> Result<String, jsonwebtoken::errors::Error> {
        let es256 = self.es256();
        let mut header = Header::new(Algorithm::ES256);
        header.kid = es256.keys.first().map(|(key, _)| key.kid.clone());
        jsonwebtoken::encode(&header, claims, &es256.sign_with)
    }

    /// The public keys for `jwks.json`: what is accepted now.
    pub fn public_keys(&self, now: Timestamp) -> Vec<Value> {
        let now_s = now.0.div_euclid(1000);
        let es256 = self.es256();
        es256
            .keys
            .iter()
            .filter(|(key, _)| accepted_until(key).is_none_or(|until| now_s < until))
            .map(|(key, _)| key.public())
            .collect()
    }

    /// Checks signature, shape and time. `skew_s`: how long after `exp` a token still passes (REST 30, Realtime 0).
    pub fn verify(&self, token: &str, now: Timestamp, skew_s: i64) -> Result<Claims, TokenFault> {
        let parts = token.split('.').count();
        if parts != 3 || token.split('.').any(str::is_empty) || token.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::Malformed { parts });
        }
        let now_s = now.0.div_euclid(1000);
        let header = jsonwebtoken::decode_header(token).map_err(|error| fault_of(&error, parts))?;
        let all = match header.alg {
            Algorithm::HS256 => decode(token, &self.hs256, Algorithm::HS256)?,
            Algorithm::ES256 => self.verify_es256(token, header.kid.as_deref(), now_s)?,
            _ => return Err(TokenFault::Signature),
        };
        in_time(all, now_s, skew_s)
    }

    fn verify_es256(
        &self,
        token: &str,
        kid: Option<&str>,
        now_s: i64,
    ) -> Result<Map<String, Value>, TokenFault> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let known = self.lock_remembered().get(&digest).cloned();
        let (all, until) = match known {
            Some(known) => known,
            None => {
                let es256 = self.es256();
                let (key, decoding) = es256
                    .keys
                    .iter()
                    .find(|(key, _)| Some(key.kid.as_str()) == kid)
                    .ok_or(TokenFault::Signature)?;
                let checked = (decode(token, decoding, Algorithm::ES256)?, accepted_until(key));
                if token.len() <= REMEMBERED_BYTES_MAX {
                    self.remember(digest, &checked, &es256);
                }
                checked
            }
        };
        match until {
            Some(until) if now_s >= until => Err(TokenFault::Signature),
            Some(_) | None => Ok(all),
        }
    }

    /// Only tokens we signed ourselves come in here, so nobody can fill the table with his own.
    fn remember(&self, digest: [u8; 32], checked: &Checked, by: &Arc<Es256>) {
        let mut remembered = self.lock_remembered();
        // Under the table's lock: a rotation that came in between clears it after this.
        if !Arc::ptr_eq(by, &self.es256()) {
            return;
        }
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(digest, checked.clone());
    }
}

fn accepted_until(key: &SigningKey) -> Option<i64> {
    key.replaced_at
        .map(|replaced| replaced.saturating_add(REPLACED_KEY_LIFE_S))
}

fn fault_of(error: &jsonwebtoken::errors::Error, parts: usize) -> TokenFault {
    match error.kind() {
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm | ErrorKind::InvalidEcdsaKey => {
            TokenFault::Signature
        }
        _ => TokenFault::Malformed { parts },
    }
}

fn decode(token: &str, key: &DecodingKey, algorithm: Algorithm) -> Result<Map<String, Value>, TokenFault> {
    let mut rules = Validation::new(algorithm);
    rules.validate_exp = false;
    rules.validate_nbf = false;
    rules.validate_aud = false;
    rules.required_spec_claims.clear();
    jsonwebtoken::decode::<Map<String, Value>>(token, key, &rules)
        .map(|decoded| decoded.claims)
        .map_err(|error| fault_of(&error, 3))
}

fn in_time(all: Map<String, Value>, now_s: i64, skew_s: i64) -> Result<Claims, TokenFault> {
    let number = |name: &str| all.get(name).and_then(Value::as_i64);
    let exp = number("exp").ok_or(TokenFault::Incomplete)?;
    let role = all
        .get("role")
        .and_then(Value::as_str)
        .filter(|role| ROLES.contains(role))
        .ok_or(TokenFault::Incomplete)?
        .to_owned();
    if exp.saturating_add(skew_s) <= now_s {
        return Err(TokenFault::Expired {
            seconds: now_s.saturating_sub(exp),
        });
    }
    if number("nbf").is_some_and(|nbf| nbf > now_s.saturating_add(skew_s)) {
        return Err(TokenFault::NotYet);
    }
    Ok(Claims {
        role,
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

    fn keys() -> Keys {
        let folder = tempfile::tempdir().unwrap();
        let mut keys = Keys::load_or_create(folder.path(), NOW).unwrap();
        SECRET.clone_into(&mut keys.jwt_secret);
        keys
    }

    fn tokens() -> Tokens {
        Tokens::new(&keys()).unwrap()
    }

    fn token(claims: Value) -> String {
        sign_hs256(&claims, SECRET).unwrap()
    }

    #[test]
    fn a_token_is_good_until_the_second_it_expires() {
        let (tokens, exp) = (tokens(), NOW.0 / 1000);
        let signed = |claims: Value| [token(claims.clone()), tokens.sign(&claims).unwrap()];
        for good in signed(json!({"role": "anon", "exp": exp + 1})) {
            assert!(tokens.verify(&good, NOW, 0).is_ok());
        }
        for late in signed(json!({"role": "anon", "exp": exp})) {
            let refused = tokens.verify(&late, NOW, 0);
            assert_eq!(refused, Err(TokenFault::Expired { seconds: 0 }));
        }
        for skewed in signed(json!({"role": "anon", "exp": exp - 29})) {
            assert!(tokens.verify(&skewed, NOW, 30).is_ok());
        }
        for early in signed(json!({"role": "anon", "exp": exp + 60, "nbf": exp + 31})) {
            assert_eq!(tokens.verify(&early, NOW, 30), Err(TokenFault::NotYet));
        }
    }

    #[test]
    fn a_remembered_token_expires_as_any_other() {
        let (tokens, exp) = (tokens(), NOW.0 / 1000 + 10);
        let signed = tokens.sign(&json!({"role": "anon", "exp": exp})).unwrap();
        assert!(tokens.verify(&signed, NOW, 0).is_ok());
        assert!(tokens.verify(&signed, NOW.plus_ms(9_000), 0).is_ok());
        let refused = tokens.verify(&signed, NOW.plus_ms(10_000), 0);
        assert_eq!(refused, Err(TokenFault::Expired { seconds: 0 }));
    }

    #[test]
    fn long_tokens_are_checked_each_time_and_take_no_memory() {
        let (tokens, exp) = (tokens(), NOW.0 / 1000 + 10);
        let long = json!({"role": "anon", "exp": exp, "app_metadata": "x".repeat(REMEMBERED_BYTES_MAX)});
        let long = tokens.sign(&long).unwrap();
        for _ in 0..2 {
            assert!(tokens.verify(&long, NOW, 0).is_ok());
        }
        assert_eq!(tokens.lock_remembered().len(), 0);
        let short = tokens.sign(&json!({"role": "anon", "exp": exp})).unwrap();
        assert!(tokens.verify(&short, NOW, 0).is_ok());
        assert_eq!(tokens.lock_remembered().len(), 1);
    }

    #[test]
    fn nobody_becomes_a_database_role_that_is_not_for_clients() {
        let (tokens, exp) = (tokens(), NOW.0 / 1000 + 60);
        for role in ["postgres", "supabase_admin", "authenticator", ""] {
            let claims = json!({"role": role, "exp": exp});
            for signed in [token(claims.clone()), tokens.sign(&claims).unwrap()] {
                let refused = tokens.verify(&signed, NOW, 0);
                assert_eq!(refused, Err(TokenFault::Incomplete), "role {role:?}");
            }
        }
    }

    #[test]
    fn other_keys_other_algorithms_and_garbage_are_refused() {
        let (ours, exp) = (tokens(), NOW.0 / 1000 + 60);
        let claims = json!({"role": "anon", "exp": exp});
        let other_secret = sign_hs256(&claims, "another secret").unwrap();
        assert_eq!(ours.verify(&other_secret, NOW, 0), Err(TokenFault::Signature));
        let other_hub = tokens().sign(&claims).unwrap();
        assert_eq!(ours.verify(&other_hub, NOW, 0), Err(TokenFault::Signature));
        let none = "eyJhbGciOiJub25lIn0.eyJyb2xlIjoic2VydmljZV9yb2xlIiwiZXhwIjo5OTk5OTk5OTk5fQ.x";
        assert!(ours.verify(none, NOW, 0).is_err(), "alg none");
        for (text, parts) in [("a.b", 2), ("", 1), ("a.b.c", 3), ("a..c", 3)] {
            let refused = ours.verify(text, NOW, 0);
            assert_eq!(refused, Err(TokenFault::Malformed { parts }), "{text}");
        }
        let long = format!("{}.a.a", "a".repeat(TOKEN_BYTES_MAX));
        assert!(ours.verify(&long, NOW, 0).is_err());
    }

    #[test]
    fn the_token_does_not_choose_how_it_is_checked() {
        let (keys, exp) = (keys(), NOW.0 / 1000 + 60);
        let tokens = Tokens::new(&keys).unwrap();
        let claims = json!({"role": "service_role", "exp": exp});
        let kid = keys.signing_keys[0].kid.clone();
        // HS256 "signed" with what everybody can read in jwks.json.
        let public = keys.signing_keys[0].public().to_string();
        for secret in [public.as_str(), &keys.signing_keys[0].x, &kid, ""] {
            let mut header = Header::new(Algorithm::HS256);
            header.kid = Some(kid.clone());
            let key = EncodingKey::from_secret(secret.as_bytes());
            let forged = jsonwebtoken::encode(&header, &claims, &key).unwrap();
            assert_eq!(tokens.verify(&forged, NOW, 0), Err(TokenFault::Signature));
        }
        // Another key under our name, and names that are paths or statements.
        let foreign = self::keys();
        let der = foreign.signing_keys[0].pkcs8().unwrap();
        let paths = [kid.as_str(), "../../dev/null", "' or 1=1 --", "", "0"];
        for name in paths {
            let mut header = Header::new(Algorithm::ES256);
            header.kid = Some(name.to_owned());
            let forged = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ec_der(&der)).unwrap();
            let refused = tokens.verify(&forged, NOW, 0);
            assert_eq!(refused, Err(TokenFault::Signature), "kid {name:?}");
        }
    }

    #[test]
    fn tokens_of_before_a_rotation_live_on_for_their_hour_only() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::load_or_create(folder.path(), NOW).unwrap();
        let tokens = Tokens::new(&keys).unwrap();
        let far = NOW.0 / 1000 + 1_000_000;
        let before = tokens.sign(&json!({"role": "anon", "exp": far})).unwrap();
        assert!(tokens.verify(&before, NOW, 0).is_ok());
        tokens
            .replace(&Keys::rotate(folder.path(), NOW).unwrap())
            .unwrap();
        let after = tokens.sign(&json!({"role": "anon", "exp": far})).unwrap();
        assert!(tokens.verify(&before, NOW, 0).is_ok());
        assert!(tokens.verify(&after, NOW, 0).is_ok());
        assert_eq!(tokens.public_keys(NOW).len(), 2);
        let later = NOW.plus_ms(REPLACED_KEY_LIFE_S * 1000);
        assert_eq!(tokens.verify(&before, later, 0), Err(TokenFault::Signature));
        assert!(tokens.verify(&after, later, 0).is_ok());
        assert_eq!(tokens.public_keys(later).len(), 1);
        assert!(!tokens.public_keys(NOW)[0].to_string().contains("\"d\""));
    }
}

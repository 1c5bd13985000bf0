//! The hub's keys: made once, kept in `hub.json` (0600) in the data folder, and handed to whoever may have them.
//!
//! Two kinds: what clients show (`apikey`), and what tokens are signed with. Never prints a secret (`Debug` hides
//! them) and never makes new keys over a file it cannot read: that would silently lock every client out. Called by
//! [`crate::Hub::start`]; read by `jwt` and `identity`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::Timestamp;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use rand::RngCore as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::HubError;
use crate::jwt;

/// Name of the key file in the data folder.
pub const KEY_FILE: &str = "hub.json";
/// Bytes of randomness in each key and in the JWT secret.
const SECRET_BYTES: usize = 32;
/// Life of the two legacy JWT keys: ten years, as Supabase makes them.
const LEGACY_KEY_LIFE_S: i64 = 10 * 365 * 86_400;
/// Signing keys kept: the current one and the ones before it, so that tokens of before a rotation live out their hour.
const SIGNING_KEYS_MAX: usize = 3;
/// Random numbers tried for a private key. One in 2^32 is none: a second try is never needed.
const DRAWS_MAX: usize = 8;

/// The keys of one hub.
#[derive(Clone, Serialize, Deserialize)]
pub struct Keys {
    /// `sb_publishable_…`: role `anon`; may be known to everybody.
    pub publishable: String,
    /// `sb_secret_…`: role `service_role`, bypasses row level security; for servers only.
    pub secret: String,
    /// The same as `publishable`, in the older form of a JWT.
    pub anon_jwt: String,
    /// The same as `secret`, in the older form of a JWT.
    pub service_role_jwt: String,
    /// HS256 secret of the two keys above and of tokens that servers sign for themselves.
    pub(crate) jwt_secret: String,
    /// What the tokens of signed-in users are signed with, newest first. Absent in files of older programs.
    #[serde(default)]
    pub(crate) signing_keys: Vec<SigningKey>,
}

/// A private ES256 key in the form of a JWK, as `supabase gen signing-key` writes them.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SigningKey {
    pub kid: String,
    /// Coordinates of the public point, base64url.
    pub x: String,
    pub y: String,
    /// The private number, base64url.
    d: String,
    /// When another key took over; seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_at: Option<i64>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("publishable", &self.publishable)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// Reads the keys of `data_dir`, or makes them when there are none yet. A file of an older program, without
    /// signing keys, gets one.
    pub(crate) fn load_or_create(data_dir: &Path, now: Timestamp) -> Result<Keys, HubError> {
        let path = data_dir.join(KEY_FILE);
        let Some(mut keys) = Keys::read(&path)? else {
            let keys = Keys::generate(now).map_err(|reason| fault(&path, reason))?;
            keys.write(&path)?;
            return Ok(keys);
        };
        if keys.signing_keys.is_empty() {
            let key = SigningKey::generate().map_err(|reason| fault(&path, reason))?;
            keys.signing_keys.push(key);
            keys.write(&path)?;
        }
        Ok(keys)
    }

    /// Puts a new signing key before the others in the file of `data_dir`. Tokens signed with the earlier ones stay
    /// good until they expire.
    pub(crate) fn rotate(data_dir: &Path, now: Timestamp) -> Result<Keys, HubError> {
        let path = data_dir.join(KEY_FILE);
        let mut keys = Keys::load_or_create(data_dir, now)?;
        let key = SigningKey::generate().map_err(|reason| fault(&path, reason))?;
        if let Some(current) = keys.signing_keys.first_mut() {
            current.replaced_at = Some(now.0.div_euclid(1000));
        }
        keys.signing_keys.insert(0, key);
        keys.signing_keys.truncate(SIGNING_KEYS_MAX);
        keys.write(&path)?;
        Ok(keys)
    }

    /// Puts new secrets in the place of all there are, in the file of `data_dir`: for a hub whose file somebody else may
    /// have seen. No token and no secret key of before is good any more. The publishable key stays: it is no secret, and
    /// every client knows it.
    pub(crate) fn renew(data_dir: &Path, now: Timestamp) -> Result<Keys, HubError> {
        let path = data_dir.join(KEY_FILE);
        let before = Keys::load_or_create(data_dir, now)?;
        let mut keys = Keys::generate(now).map_err(|reason| fault(&path, reason))?;
        keys.publishable = before.publishable;
        keys.write(&path)?;
        Ok(keys)
    }

    fn read(path: &Path) -> Result<Option<Keys>, HubError> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| fault(path, format!("it is not the JSON expected ({error})"))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(HubError::Folder {
                attempt: "read the keys in",
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn generate(now: Timestamp) -> Result<Keys, String> {
        let jwt_secret = random_text();
        let legacy = |role: &str| {
            let iat = now.0 / 1000;
            let claims = json!({"iss": "semo-hub", "role": role, "iat": iat, "exp": iat + LEGACY_KEY_LIFE_S});
            jwt::sign_hs256(&claims, &jwt_secret).map_err(|error| error.to_string())
        };
        Ok(Keys {
            publishable: format!("sb_publishable_{}", random_text()),
            secret: format!("sb_secret_{}", random_text()),
            anon_jwt: legacy("anon")?,
            service_role_jwt: legacy("service_role")?,
            jwt_secret: jwt_secret.clone(),
            signing_keys: vec![SigningKey::generate()?],
        })
    }

    /// Written beside and renamed, so that a crash leaves either no file or a whole one.
    pub(crate) fn write(&self, path: &Path) -> Result<(), HubError> {
        let io_fault = |source| HubError::Folder {
            attempt: "write the keys to",
            path: path.to_owned(),
            source,
        };
        let text = serde_json::to_vec_pretty(self).map_err(|error| fault(path, error.to_string()))?;
        let beside = path.with_extension("json.new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .map_err(io_fault)?;
        file.write_all(&text)
            .and_then(|()| file.sync_all())
            .map_err(io_fault)?;
        fs::rename(&beside, path).map_err(io_fault)
    }
}

impl SigningKey {
    fn generate() -> Result<SigningKey, String> {
        for _ in 0..DRAWS_MAX {
            let mut bytes = [0u8; SECRET_BYTES];
            rand::rng().fill_bytes(&mut bytes);
            let Ok(private) = p256::SecretKey::from_slice(&bytes) else {
                continue;
            };
            let point = private.public_key().to_encoded_point(false);
            let (Some(x), Some(y)) = (point.x(), point.y()) else {
                continue;
            };
            return Ok(SigningKey {
                kid: uuid::Uuid::new_v4().to_string(),
                x: URL_SAFE_NO_PAD.encode(x),
                y: URL_SAFE_NO_PAD.encode(y),
                d: URL_SAFE_NO_PAD.encode(bytes),
                replaced_at: None,
            });
        }
        Err("the machine's random numbers give no signing key".to_owned())
    }

    /// The private key as PKCS#8, which the signer reads.
    pub fn pkcs8(&self) -> Result<Vec<u8>, String> {
        use p256::pkcs8::EncodePrivateKey as _;
        let bytes = URL_SAFE_NO_PAD
            .decode(&self.d)
            .map_err(|error| format!("the signing key {} is not base64url: {error}", self.kid))?;
        let private = p256::SecretKey::from_slice(&bytes)
            .map_err(|_| format!("the signing key {} is no P-256 key", self.kid))?;
        let der = private.to_pkcs8_der().map_err(|error| error.to_string())?;
        Ok(der.as_bytes().to_vec())
    }

    /// The public half, as it stands in `jwks.json`.
    pub fn public(&self) -> Value {
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "key_ops": ["verify"], "ext": true,
               "kid": self.kid, "x": self.x, "y": self.y})
    }
}

pub(crate) fn fault(path: &Path, reason: String) -> HubError {
    HubError::Keys {
        path: path.to_owned(),
        reason,
    }
}

/// URL-safe text of [`SECRET_BYTES`] random bytes.
pub(crate) fn random_text() -> String {
    let mut bytes = [0u8; SECRET_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const NOW: Timestamp = Timestamp(1_795_223_944_000);

    fn mode(folder: &Path) -> u32 {
        fs::metadata(folder.join(KEY_FILE)).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn keys_are_made_once_kept_private_and_never_printed() {
        let folder = tempfile::tempdir().unwrap();
        let made = Keys::load_or_create(folder.path(), NOW).unwrap();
        let again = Keys::load_or_create(folder.path(), NOW.plus_ms(55_000)).unwrap();
        assert_eq!(made.secret, again.secret, "a restart must not lock clients out");
        assert_eq!(made.signing_keys[0].kid, again.signing_keys[0].kid);
        assert_eq!(mode(folder.path()), 0o600);
        let printed = format!("{made:?} {:?}", made.signing_keys[0]);
        for hidden in [&made.secret, &made.jwt_secret, &made.signing_keys[0].d] {
            assert!(!printed.contains(hidden.as_str()));
        }
    }

    #[test]
    fn a_damaged_key_file_is_reported_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(KEY_FILE), "{").unwrap();
        let error = Keys::load_or_create(folder.path(), Timestamp(0))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("hub.json") && error.contains("move it away"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(folder.path().join(KEY_FILE)).unwrap(), "{");
    }

    #[test]
    fn a_file_of_an_older_program_keeps_its_keys_and_gets_a_signing_key() {
        let folder = tempfile::tempdir().unwrap();
        let made = Keys::load_or_create(folder.path(), NOW).unwrap();
        let path = folder.path().join(KEY_FILE);
        let mut old: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        old.as_object_mut().unwrap().remove("signing_keys");
        fs::write(&path, old.to_string()).unwrap();
        let now = Keys::load_or_create(folder.path(), NOW).unwrap();
        assert_eq!(now.jwt_secret, made.jwt_secret);
        assert_eq!(now.signing_keys.len(), 1);
        assert_eq!(mode(folder.path()), 0o600);
    }

    #[test]
    fn renewed_keys_share_nothing_with_those_of_before_but_the_publishable_one() {
        let folder = tempfile::tempdir().unwrap();
        let before = Keys::load_or_create(folder.path(), NOW).unwrap();
        let after = Keys::renew(folder.path(), NOW.plus_ms(5000)).unwrap();
        assert_eq!(before.publishable, after.publishable);
        for (old, new) in [
            (&before.secret, &after.secret),
            (&before.jwt_secret, &after.jwt_secret),
            (&before.anon_jwt, &after.anon_jwt),
            (&before.service_role_jwt, &after.service_role_jwt),
        ] {
            assert_ne!(old, new);
        }
        let kept = Keys::load_or_create(folder.path(), NOW).unwrap();
        assert_eq!(kept.secret, after.secret);
        assert_eq!(kept.signing_keys.len(), 1);
        assert_ne!(kept.signing_keys[0].kid, before.signing_keys[0].kid);
        assert_eq!(mode(folder.path()), 0o600);
    }

    #[test]
    fn rotation_keeps_the_keys_of_before_and_no_more_of_them_than_that() {
        let folder = tempfile::tempdir().unwrap();
        let first = Keys::load_or_create(folder.path(), NOW).unwrap().signing_keys[0]
            .kid
            .clone();
        let keys = Keys::rotate(folder.path(), NOW).unwrap();
        assert_eq!(
            (&keys.signing_keys[1].kid, keys.signing_keys[1].replaced_at),
            (&first, Some(NOW.0 / 1000))
        );
        assert_eq!(keys.signing_keys[0].replaced_at, None);
        for _ in 0..5 {
            Keys::rotate(folder.path(), NOW).unwrap();
        }
        let keys = Keys::load_or_create(folder.path(), NOW).unwrap();
        assert_eq!(keys.signing_keys.len(), SIGNING_KEYS_MAX);
        assert!(keys.signing_keys.iter().all(|key| key.kid != first));
        assert_eq!(mode(folder.path()), 0o600);
    }
}

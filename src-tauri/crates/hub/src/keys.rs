//! The hub's keys: made once, kept in `hub.json` (0600) in the data folder, and handed to whoever may have them.
//!
//! Never prints a secret (`Debug` hides them) and never makes new keys over a file it cannot read: that would
//! silently lock every client out. Called by [`crate::Hub::start`]; read by `jwt` and `identity`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::Timestamp;
use rand::RngCore as _;
use serde::{Deserialize, Serialize};

use crate::error::HubError;
use crate::jwt;

/// Name of the key file in the data folder.
pub const KEY_FILE: &str = "hub.json";
/// Bytes of randomness in each key and in the JWT secret.
const SECRET_BYTES: usize = 32;
/// Life of the two legacy JWT keys: ten years, as Supabase makes them.
const LEGACY_KEY_LIFE_S: i64 = 10 * 365 * 86_400;

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
    /// HS256 secret all tokens of this hub are signed with.
    pub(crate) jwt_secret: String,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("publishable", &self.publishable)
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// Reads the keys of `data_dir`, or makes them when there are none yet.
    pub(crate) fn load_or_create(data_dir: &Path, now: Timestamp) -> Result<Keys, HubError> {
        let path = data_dir.join(KEY_FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| HubError::Keys {
                path,
                reason: format!("it is not the JSON expected ({error})"),
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let keys = Keys::generate(now).map_err(|error| HubError::Keys {
                    path: path.clone(),
                    reason: error.to_string(),
                })?;
                keys.write(&path)?;
                Ok(keys)
            }
            Err(source) => Err(HubError::Folder {
                attempt: "read the keys in",
                path,
                source,
            }),
        }
    }

    fn generate(now: Timestamp) -> Result<Keys, jsonwebtoken::errors::Error> {
        let jwt_secret = random_text();
        let legacy = |role: &str| {
            let iat = now.0 / 1000;
            jwt::sign(
                &serde_json::json!({"iss": "semo-hub", "role": role, "iat": iat, "exp": iat + LEGACY_KEY_LIFE_S}),
                &jwt_secret,
            )
        };
        Ok(Keys {
            publishable: format!("sb_publishable_{}", random_text()),
            secret: format!("sb_secret_{}", random_text()),
            anon_jwt: legacy("anon")?,
            service_role_jwt: legacy("service_role")?,
            jwt_secret: jwt_secret.clone(),
        })
    }

    /// Written beside and renamed, so that a crash leaves either no file or a whole one.
    fn write(&self, path: &Path) -> Result<(), HubError> {
        let fault = |source| HubError::Folder {
            attempt: "write the keys to",
            path: path.to_owned(),
            source,
        };
        let text = serde_json::to_vec_pretty(self).map_err(|error| HubError::Keys {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        let beside = path.with_extension("json.new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .map_err(fault)?;
        file.write_all(&text)
            .and_then(|()| file.sync_all())
            .map_err(fault)?;
        fs::rename(&beside, path).map_err(fault)
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

    #[test]
    fn keys_are_made_once_kept_private_and_never_printed() {
        let folder = tempfile::tempdir().unwrap();
        let made = Keys::load_or_create(folder.path(), Timestamp(1_795_223_944_000)).unwrap();
        let again = Keys::load_or_create(folder.path(), Timestamp(1_795_223_999_000)).unwrap();
        assert_eq!(made.secret, again.secret, "a restart must not lock clients out");
        let mode = fs::metadata(folder.path().join(KEY_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(
            !format!("{made:?}").contains(&made.secret) && !format!("{made:?}").contains(&made.jwt_secret)
        );
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
}

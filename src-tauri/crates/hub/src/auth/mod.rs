//! Supabase Auth, as far as an office needs it: sign-up (off unless switched on), password and anonymous sign-in,
//! refresh with rotation, user, sign-out, administration of users, the public signing keys.
//!
//! No mail, no SMS, no other identity providers, no second factors, no passkeys: what needs them is answered as a
//! Supabase project answers where they are switched off (`absent`). Never logs an address with its password or token.
//! Called over HTTP by the official clients and our own.

mod absent;
mod account;
mod admin;
mod call;
mod duration;
mod error;
mod limits;
mod passwords;
mod routes;
mod session;
mod signup;
mod token;
pub(crate) mod users;

use std::path::{Path, PathBuf};

pub use limits::AuthLimits;
pub(crate) use routes::routes;

use crate::error::HubError;
use crate::jwt::Tokens;
use crate::keys::{self, KEY_FILE, Keys};
use crate::postgres::Cluster;
use crate::{Hub, HubConfig};

/// Shortest password where nothing else is said, as at GoTrue.
const PASSWORD_CHARS_MIN: usize = 6;

/// What the hub's owner decides about signing in.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthSettings {
    /// Whether anybody who reaches the port and has the publishable key may make an account. Nobody confirms the
    /// address, since the hub sends no mail. An account alone opens no office.
    pub sign_up: bool,
    /// Whether the same may be done without address and password. Needs no `sign_up`.
    pub anonymous: bool,
    /// Shortest password, in characters.
    pub password_chars_min: usize,
    /// Requests per address on the network in five minutes.
    pub limits: AuthLimits,
    /// Header in which a proxy in front of the hub tells the caller's address, as `x-real-ip`. Only to be set where
    /// every request comes through that proxy: else callers could choose their address. Of a list the last counts.
    pub client_ip_header: Option<String>,
}

impl Default for AuthSettings {
    fn default() -> AuthSettings {
        AuthSettings {
            sign_up: false,
            anonymous: false,
            password_chars_min: PASSWORD_CHARS_MIN,
            limits: AuthLimits::default(),
            client_ip_header: None,
        }
    }
}

/// What Auth keeps while the hub runs.
#[derive(Debug)]
pub(crate) struct Auth {
    pub settings: AuthSettings,
    pub tokens: Tokens,
    limits: limits::Limits,
    data_dir: PathBuf,
}

impl Auth {
    /// `data_dir`: where the keys were read from, and where a rotation writes them.
    pub fn new(settings: AuthSettings, keys: &Keys, data_dir: &Path) -> Result<Auth, HubError> {
        let tokens = Tokens::new(keys).map_err(|reason| keys::fault(&data_dir.join(KEY_FILE), reason))?;
        Ok(Auth {
            limits: limits::Limits::new(settings.limits),
            settings,
            tokens,
            data_dir: data_dir.to_owned(),
        })
    }
}

/// Makes all secrets of a hub anew, whose key file somebody else may have seen: the secret key, what tokens are signed
/// with, the older forms of the keys. Users stay signed in by their refresh tokens, and clients keep the publishable
/// key; servers must be given the new secret key. Fails while the hub runs.
pub fn renew_keys(config: &HubConfig) -> Result<Keys, HubError> {
    // Held for as long as the file is changed: a hub that runs has read it already.
    let _folder = Cluster::open(&config.data_dir)?;
    Keys::renew(&config.data_dir, config.clock.now())
}

impl Hub {
    /// Makes a new key for the tokens of signed-in users and uses it from now on; returns its `kid`. Tokens signed
    /// with the one before stay good until they expire, and its public half stays in `jwks.json` for two hours.
    pub fn rotate_signing_key(&self) -> Result<String, HubError> {
        let auth = &self.shared.auth;
        let keys = Keys::rotate(&auth.data_dir, self.shared.clock.now())?;
        auth.tokens
            .replace(&keys)
            .map_err(|reason| keys::fault(&auth.data_dir.join(KEY_FILE), reason))?;
        let kid = keys.signing_keys.first().map(|key| key.kid.clone());
        Ok(kid.unwrap_or_default())
    }
}

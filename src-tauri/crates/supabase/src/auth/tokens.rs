//! The tokens of a session. Never shown by `Debug`; called by [`super`] and its stores.

use domain::{Timestamp, UserId};
use serde::{Deserialize, Serialize};

use super::wire;

/// A token with less than this left is renewed before it is used: requests take time, clocks differ.
const LEFT_MS_MIN: u64 = 60_000;

/// A signed-in session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// JWT for REST and Realtime.
    pub access_token: String,
    /// Works once.
    pub refresh_token: String,
    /// When two thirds of the life are over, by our clock.
    pub refresh_at: Timestamp,
    /// When the access token ends, by our clock.
    pub expires_at: Timestamp,
    /// Who is signed in.
    pub user: UserId,
    /// Their address when they signed in, also when the account has come to have another one since: by it their work is
    /// known on this machine. Empty when the account has none.
    pub email: String,
    /// URL of the project that gave them; nobody else may see them. Empty in a file of before this was written.
    #[serde(default)]
    pub project: String,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("user", &self.user)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl Tokens {
    /// The pair that came for `old`: the session goes by the address that it began with.
    pub(super) fn of_the_session(self, old: &Tokens) -> Tokens {
        match self.user == old.user && !old.email.is_empty() {
            true => Tokens {
                email: old.email.clone(),
                ..self
            },
            false => self,
        }
    }

    /// Good for use without a refresh?
    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        now < self.refresh_at && self.expires_at.ms_since(now) >= LEFT_MS_MIN
    }

    /// Would the server still take it, as far as we can tell?
    pub(super) fn is_alive(&self, now: Timestamp) -> bool {
        self.expires_at.ms_since(now) > 1_000
    }

    /// Did the project at `url` give them? Where that was not written down, the access token must say so itself.
    pub(super) fn are_of(&self, url: &str) -> bool {
        if self.project.is_empty() {
            let issuer = wire::issuer(&self.access_token).unwrap_or_default();
            let path = issuer.strip_prefix(url);
            return path.is_some_and(|path| path.is_empty() || path.starts_with('/'));
        }
        is_same_place(&self.project, url)
    }
}

/// Do both addresses mean one project?
pub(super) fn is_same_place(one: &str, other: &str) -> bool {
    match (reqwest::Url::parse(one), reqwest::Url::parse(other)) {
        (Ok(one), Ok(other)) => one == other,
        (Err(_), _) | (_, Err(_)) => false,
    }
}

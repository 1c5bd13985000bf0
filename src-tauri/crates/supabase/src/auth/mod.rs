//! Signing in, and one access token that is always good.
//!
//! A refresh token works once; whoever uses it twice loses the session. So there is one refresher: a mutex here, the
//! store's lock across processes, and the new pair is on disk before anybody uses it. A network error during a
//! refresh changes nothing: the same refresh token is tried again later. Dropping a future that refreshes (a stop, a
//! time-out of the caller) is no worse than such an error: the server takes a spent token once more as long as the
//! pair it gave for it has not been used.
//!
//! Called by [`crate::rest`] and [`crate::realtime`] for tokens, by the programs for signing in and out.

mod kept;
mod keychain;
mod store;
mod tokens;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{Clock, Timestamp, UserId};
use serde_json::json;
use tokio::time::Instant;

pub use self::kept::{Kept, KeptTokens, TokensAt};
pub use self::keychain::{Keychain, SystemKeychain};
pub use self::store::{FileTokenStore, MemoryTokenStore, StoreError, StoreLock, TokenStore, write_private};
pub use self::tokens::Tokens;
use self::tokens::is_same_place;
use self::wire::Ask;
use crate::project::{self, Project, ProjectError, in_between, read_body};

/// After a refresh that failed without ending the session, a token that is still good is used this long without trying again.
const REFRESH_PAUSE: Duration = Duration::from_secs(15);
/// First pause after a refresh that a server refused for a passing reason while there is no token left to use; doubled
/// up to [`TROUBLE_PAUSE_MAX`]. Without it an outage of the sign-in would meet every request of every client.
const TROUBLE_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest such pause, unless the server names a longer one.
const TROUBLE_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Longest wait for another process that refreshes the same session.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(25);
/// How often the lock is tried meanwhile.
const LOCK_RETRY: Duration = Duration::from_millis(100);
/// What is sent as GoTrue's API version: errors then carry `code` and `message`.
const API_VERSION: &str = "2024-01-01";

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The e-mail address or the password is wrong.
    #[error("the e-mail address or the password is wrong")]
    WrongPassword,
    /// Nobody is signed in, or the session is over.
    #[error("not signed in to the office: {reason}; sign in again")]
    SignedOut {
        /// Why.
        reason: String,
    },
    /// Auth cannot be reached or is in trouble; it may work later with the same tokens.
    #[error(
        "could not {attempted} at {url}: {reason}; check the network and the project URL, it will be tried again"
    )]
    Unreachable {
        /// What was wanted.
        attempted: &'static str,
        /// Of whom.
        url: String,
        /// Why it did not work.
        reason: String,
        /// How long the server asked to be left alone.
        retry_after: Option<Duration>,
        /// What it answered, where it was reached and is in trouble.
        status: Option<u16>,
    },
    /// Auth said no, for a reason that trying again does not change.
    #[error(
        "could not {attempted} at {url}: refused with {status} {code} {message}; check the publishable key and the account"
    )]
    Refused {
        /// What was wanted.
        attempted: &'static str,
        /// Of whom.
        url: String,
        /// HTTP status.
        status: u16,
        /// GoTrue's code; empty when the answer had none.
        code: String,
        /// The server's text.
        message: String,
    },
    /// What came back is not what Auth answers.
    #[error(
        "could not {attempted} at {url}: the answer makes no sense ({why}); is this the address of a Supabase project?"
    )]
    Malformed {
        /// What was wanted.
        attempted: &'static str,
        /// Of whom.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The tokens could not be read or kept.
    #[error("could not keep the sign-in: {source}")]
    Store {
        /// Why.
        #[from]
        source: StoreError,
    },
    /// The project's settings cannot be used.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The HTTP client could not be made (the system's TLS).
    #[error("could not set up TLS: {source}; check the system's certificate store")]
    Client {
        /// Why.
        source: reqwest::Error,
    },
}

impl AuthError {
    /// May the same thing work later, with nothing changed by a person?
    pub fn is_passing(&self) -> bool {
        match self {
            AuthError::Unreachable { .. } | AuthError::Malformed { .. } | AuthError::Store { .. } => true,
            AuthError::WrongPassword
            | AuthError::SignedOut { .. }
            | AuthError::Refused { .. }
            | AuthError::Project(_)
            | AuthError::Client { .. } => false,
        }
    }

    /// Has the server had too many tries?
    pub fn is_rate_limit(&self) -> bool {
        matches!(
            self,
            AuthError::Unreachable {
                status: Some(429),
                ..
            }
        )
    }
}

/// The session of one project. Clones share it.
#[derive(Clone)]
pub struct Auth {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth")
            .field("project", &self.inner.project)
            .field("user", &self.user())
            .finish_non_exhaustive()
    }
}

struct Inner {
    project: Project,
    http: reqwest::Client,
    clock: Arc<dyn Clock>,
    store: Arc<dyn TokenStore>,
    state: Mutex<State>,
    /// Held while a refresh, a sign-in or a sign-out is under way.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    tokens: Option<Tokens>,
    /// They came from the server but are not stored yet (disk full): they must be before they are used. The refresh
    /// token that they were given for.
    unsaved: Option<String>,
    /// Why the store could not be asked or written to, when that was tried last.
    store_trouble: Option<(String, bool)>,
    /// How the last session ended here.
    ended: Option<Ended>,
    /// No refresh before this, while the token still works.
    pause_until: Option<Instant>,
    /// What the server said to the last refreshes, when it is in trouble.
    trouble: Option<Trouble>,
}

/// A session that goes on, while what is kept of it can be neither read nor written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreTrouble {
    /// For people.
    pub why: String,
    /// It is the keychain that refuses, not a file.
    pub is_keychain: bool,
    /// When the present token ends, by our clock.
    pub until: Timestamp,
}

fn in_short(error: &StoreError) -> (String, bool) {
    (error.to_string(), matches!(error, StoreError::Keychain { .. }))
}

/// A server that cannot refresh at the moment.
struct Trouble {
    /// Times in a row.
    times: u32,
    /// It is not asked again before this.
    until: Instant,
    /// Its words.
    reason: String,
}

/// A session that is over.
struct Ended {
    reason: String,
    /// Its refresh token: a file that still has it (it could not be removed) signs nobody in again.
    refresh_token: Option<String>,
    /// Set unless somebody signed out here: only this user's next sign-in, by another program, is taken up. Going on
    /// as somebody else would mix two people's work.
    user: Option<UserId>,
}

impl Ended {
    fn of(tokens: &Tokens, reason: &str) -> Ended {
        Ended {
            reason: reason.to_owned(),
            refresh_token: Some(tokens.refresh_token.clone()),
            user: Some(tokens.user),
        }
    }
}

impl Auth {
    /// Takes up the stored session, if there is one. No network.
    pub fn new(
        project: Project,
        clock: Arc<dyn Clock>,
        store: Arc<dyn TokenStore>,
    ) -> Result<Auth, AuthError> {
        let auth = Auth::unopened(project, clock, store)?;
        auth.state().tokens = auth.inner.store.load()?;
        Ok(auth)
    }

    /// The same without a look at the store, which may make its owner wait: that comes with the first token that is
    /// wanted, and until then nobody counts as signed in.
    pub fn unopened(
        project: Project,
        clock: Arc<dyn Clock>,
        store: Arc<dyn TokenStore>,
    ) -> Result<Auth, AuthError> {
        let http = project.http().map_err(|source| AuthError::Client { source })?;
        project.headers()?;
        Ok(Auth {
            inner: Arc::new(Inner {
                project,
                http,
                clock,
                store,
                state: Mutex::default(),
                turn: tokio::sync::Mutex::new(()),
            }),
        })
    }

    /// The project this session belongs to.
    pub fn project(&self) -> &Project {
        &self.inner.project
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.inner.http
    }

    /// Who is signed in.
    pub fn user(&self) -> Option<UserId> {
        self.state().tokens.as_ref().map(|tokens| tokens.user)
    }

    /// The address of who is signed in.
    pub fn email(&self) -> Option<String> {
        self.state().tokens.as_ref().map(|tokens| tokens.email.clone())
    }

    /// Why the sign-in cannot be renewed though nobody has ended it (its store refuses), and until when the present
    /// token works.
    pub fn store_trouble(&self) -> Option<StoreTrouble> {
        let state = self.state();
        let until = state.tokens.as_ref()?.expires_at;
        let (why, is_keychain) = state.store_trouble.clone()?;
        Some(StoreTrouble {
            why,
            is_keychain,
            until,
        })
    }

    /// Asks whether the project answers and takes the key, before anybody types a password.
    pub async fn answers(&self) -> Result<(), AuthError> {
        let url = self.inner.project.join("/auth/v1/settings");
        let answer = self.send(Ask::Look, &url, self.inner.http.get(&url)).await?;
        match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&answer) {
            Ok(_) => Ok(()),
            Err(_) => Err(AuthError::Malformed {
                attempted: Ask::Look.verb(),
                url,
                why: "it is no description of a sign-in".to_owned(),
            }),
        }
    }

    /// Signs in with a password and stores the session.
    pub async fn sign_in(&self, email: &str, password: &str) -> Result<Tokens, AuthError> {
        let _turn = self.inner.turn.lock().await;
        // Another program that is just refreshing would write its old session over this one.
        let _lock = self.store_lock(Ask::Password).await?;
        let body = json!({"email": email, "password": password, "gotrue_meta_security": {}});
        let tokens = self.token_request(Ask::Password, "password", &body).await?;
        // What cannot be kept is no sign-in: the one of before, if there is one, goes on.
        self.inner.store.begin(&tokens)?;
        self.go_on(tokens.clone());
        Ok(tokens)
    }

    /// Stores a session that [`Auth::sign_in`] of another [`Auth`] has just begun at the same project.
    pub async fn take_over(&self, tokens: &Tokens) -> Result<(), AuthError> {
        let _turn = self.inner.turn.lock().await;
        let _lock = self.store_lock(Ask::Password).await?;
        self.inner.store.begin(tokens)?;
        self.go_on(tokens.clone());
        Ok(())
    }

    /// A token that the server will take. Refreshes when two thirds of its life are over or less than a minute is
    /// left; while the old one still works, a refresh that fails is no error unless the session is over.
    pub async fn access_token(&self) -> Result<String, AuthError> {
        if let Some(token) = self.usable_token() {
            return Ok(token);
        }
        let _turn = self.inner.turn.lock().await;
        if let Some(token) = self.usable_token() {
            return Ok(token);
        }
        match self.refresh_locked().await {
            Ok(tokens) => Ok(tokens.access_token),
            // Whatever the reason: what still works is used. That the session is over is known by then.
            Err(
                error @ (AuthError::Unreachable { .. }
                | AuthError::Malformed { .. }
                | AuthError::Store { .. }
                | AuthError::Refused { .. }),
            ) => {
                let now = self.inner.clock.now();
                let mut state = self.state();
                state.store_trouble = match &error {
                    AuthError::Store { source } => Some(in_short(source)),
                    _ => None,
                };
                let alive = state
                    .tokens
                    .as_ref()
                    .filter(|tokens| state.unsaved.is_none() && tokens.is_alive(now));
                let Some(token) = alive.map(|tokens| tokens.access_token.clone()) else {
                    return Err(error);
                };
                tracing::warn!(%error, "the sign-in could not be renewed; the present token still works");
                state.pause_until = Some(Instant::now() + REFRESH_PAUSE);
                Ok(token)
            }
            Err(
                error @ (AuthError::WrongPassword
                | AuthError::SignedOut { .. }
                | AuthError::Project(_)
                | AuthError::Client { .. }),
            ) => Err(error),
        }
    }

    /// Gets a new pair now, whatever the old one's age; several callers at once cause one request.
    pub async fn refresh_now(&self) -> Result<Tokens, AuthError> {
        let refused = self
            .state()
            .tokens
            .as_ref()
            .map(|tokens| tokens.access_token.clone());
        self.refresh_after(refused.as_deref().unwrap_or_default()).await
    }

    /// As [`Auth::refresh_now`], unless `refused` has been replaced already.
    pub(crate) async fn refresh_after(&self, refused: &str) -> Result<Tokens, AuthError> {
        let _turn = self.inner.turn.lock().await;
        {
            let state = self.state();
            if let Some(tokens) = &state.tokens
                && tokens.access_token != refused
                && state.unsaved.is_none()
            {
                return Ok(tokens.clone());
            }
        }
        self.refresh_locked().await
    }

    /// Ends the session here and, if it can be reached, on the server. The stored tokens are gone in any case.
    pub async fn sign_out(&self) -> Result<(), AuthError> {
        let _turn = self.inner.turn.lock().await;
        let lock = self.store_lock(Ask::Logout).await;
        if let Err(error) = &lock {
            tracing::warn!(%error, "signing out without the sign-in file's lock");
        }
        let tokens = {
            let mut state = self.state();
            let tokens = state.tokens.take();
            *state = State {
                ended: Some(Ended {
                    reason: "signed out here".to_owned(),
                    refresh_token: tokens.as_ref().map(|tokens| tokens.refresh_token.clone()),
                    user: None,
                }),
                ..State::default()
            };
            tokens
        };
        let cleared = self.inner.store.clear();
        drop(lock);
        // The project is told whatever the store says: what stays there is worth nothing then.
        let told = match tokens {
            Some(tokens) => self.tell_sign_out(&tokens).await,
            None => Ok(()),
        };
        cleared?;
        told
    }

    async fn tell_sign_out(&self, tokens: &Tokens) -> Result<(), AuthError> {
        let url = self.inner.project.join("/auth/v1/logout?scope=local");
        let request = self.inner.http.post(&url).bearer_auth(&tokens.access_token);
        match self.send(Ask::Logout, &url, request).await {
            Ok(_) => Ok(()),
            // The server does not know the session any more: that is what was wanted.
            Err(AuthError::Refused {
                status: 401 | 403 | 404,
                ..
            }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present token if it needs no refresh (or none should be tried right now).
    fn usable_token(&self) -> Option<String> {
        let now = self.inner.clock.now();
        let state = self.state();
        let tokens = state.tokens.as_ref().filter(|_| state.unsaved.is_none())?;
        let paused = state.pause_until.is_some_and(|until| Instant::now() < until);
        let usable = tokens.is_fresh(now) || (paused && tokens.is_alive(now));
        usable.then(|| tokens.access_token.clone())
    }

    /// Refreshes. The caller holds `turn`.
    async fn refresh_locked(&self) -> Result<Tokens, AuthError> {
        let (mine, unsaved) = {
            let state = self.state();
            (state.tokens.clone(), state.unsaved.clone())
        };
        let Some(mine) = mine else {
            return self.take_up_stored().await;
        };
        let _lock = self.store_lock(Ask::Refresh).await?;
        // What of ours must lie there, unless somebody else has been at it.
        let lies_there = unsaved.as_ref().unwrap_or(&mine.refresh_token);
        match self.inner.store.load() {
            Ok(Some(stored)) if stored.user != mine.user => {
                // Going on would be acting as the one and writing over the other's sign-in.
                return Err(self.end(&mine, "somebody else has signed in on this machine meanwhile"));
            }
            // Another program has refreshed: its pair is ours too, and our token is spent.
            Ok(Some(stored)) if stored.refresh_token != *lies_there => {
                return self.go_on_with(stored).await;
            }
            Ok(Some(_)) => {}
            // Also of what could not be stored then: nothing comes back after a sign-out.
            Ok(None) => return Err(self.end(&mine, "another program on this machine has signed out")),
            // A new pair could not be kept, and the old one would be spent.
            Err(error @ StoreError::Keychain { .. }) => return Err(error.into()),
            // What we hold in memory still works; a damaged file is replaced by the save below.
            Err(error) => tracing::warn!(%error, "the stored sign-in could not be read again"),
        }
        match unsaved {
            Some(replaced) => self.adopt(mine, replaced),
            None => self.refresh_with(&mine).await,
        }
    }

    async fn refresh_with(&self, old: &Tokens) -> Result<Tokens, AuthError> {
        self.leave_alone()?;
        let body = json!({"refresh_token": old.refresh_token});
        let answer = self.token_request(Ask::Refresh, "refresh_token", &body).await;
        self.note_trouble(&answer);
        match answer {
            Ok(tokens) => self.adopt(tokens.of_the_session(old), old.refresh_token.clone()),
            Err(AuthError::SignedOut { reason }) => {
                tracing::warn!(%reason, "the session is over");
                let over = self.end(old, &reason);
                if let Err(error) = self.inner.store.clear() {
                    tracing::warn!(%error, "the dead sign-in could not be removed");
                }
                Err(over)
            }
            Err(error) => Err(error),
        }
    }

    /// An error while a server in trouble is not to be asked.
    fn leave_alone(&self) -> Result<(), AuthError> {
        let state = self.state();
        let Some(trouble) = &state.trouble else {
            return Ok(());
        };
        let left = trouble.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        Err(AuthError::Unreachable {
            attempted: Ask::Refresh.verb(),
            url: self.inner.project.url.clone(),
            reason: trouble.reason.clone(),
            retry_after: Some(left),
            status: None,
        })
    }

    /// Remembers that the server is in trouble, or that it is not any more. A server that could not be reached at all
    /// has not been bothered: as soon as the network is back, it is asked.
    fn note_trouble(&self, answer: &Result<Tokens, AuthError>) {
        let mut state = self.state();
        let (reason, retry_after) = match answer {
            Err(AuthError::Unreachable {
                status: Some(_),
                reason,
                retry_after,
                ..
            }) => (reason.clone(), retry_after.unwrap_or_default()),
            Err(AuthError::Malformed { why, .. }) => (why.clone(), Duration::ZERO),
            Ok(_) | Err(_) => {
                state.trouble = None;
                return;
            }
        };
        let times = state.trouble.as_ref().map_or(0, |trouble| trouble.times);
        let pause = TROUBLE_PAUSE_MIN
            .saturating_mul(1 << times.min(6))
            .min(TROUBLE_PAUSE_MAX)
            .max(retry_after);
        state.trouble = Some(Trouble {
            times: times.saturating_add(1),
            until: Instant::now() + pause,
            reason,
        });
    }

    /// A sign-in that another program has stored since nobody was signed in here.
    async fn take_up_stored(&self) -> Result<Tokens, AuthError> {
        if !self.stored()?.is_some_and(|stored| self.may_take_up(&stored)) {
            return Err(self.signed_out());
        }
        let _lock = self.store_lock(Ask::Refresh).await?;
        // Again, since it may have been refreshed or removed while we waited.
        match self.stored()?.filter(|stored| self.may_take_up(stored)) {
            Some(stored) => self.go_on_with(stored).await,
            None => Err(self.signed_out()),
        }
    }

    fn stored(&self) -> Result<Option<Tokens>, AuthError> {
        match self.inner.store.load() {
            Ok(stored) => Ok(stored),
            // Locked is not signed out.
            Err(error @ StoreError::Keychain { .. }) => Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "the stored sign-in could not be read");
                Ok(None)
            }
        }
    }

    fn may_take_up(&self, stored: &Tokens) -> bool {
        self.state().ended.as_ref().is_none_or(|ended| {
            ended.refresh_token.as_ref() != Some(&stored.refresh_token)
                && ended.user.is_none_or(|user| user == stored.user)
        })
    }

    /// Uses a stored pair, renewed when it must be. The caller holds the store's lock.
    async fn go_on_with(&self, stored: Tokens) -> Result<Tokens, AuthError> {
        if !stored.is_fresh(self.inner.clock.now()) {
            return self.refresh_with(&stored).await;
        }
        self.go_on(stored.clone());
        Ok(stored)
    }

    /// From here on these are ours; they are stored.
    fn go_on(&self, tokens: Tokens) {
        *self.state() = State {
            tokens: Some(tokens),
            ..State::default()
        };
    }

    /// Forgets the session in memory and gives the error that says so.
    fn end(&self, tokens: &Tokens, reason: &str) -> AuthError {
        *self.state() = State {
            ended: Some(Ended::of(tokens, reason)),
            ..State::default()
        };
        self.signed_out()
    }

    fn signed_out(&self) -> AuthError {
        let state = self.state();
        let reason = state.ended.as_ref().map(|ended| ended.reason.clone());
        AuthError::SignedOut {
            reason: reason.unwrap_or_else(|| "nobody has signed in on this machine".to_owned()),
        }
    }

    /// Stores a pair, and only then lets it be used. `replaced`: the refresh token that it was given for.
    fn adopt(&self, tokens: Tokens, replaced: String) -> Result<Tokens, AuthError> {
        match self.inner.store.save(&tokens) {
            Ok(()) => {
                self.go_on(tokens.clone());
                Ok(tokens)
            }
            Err(error) => {
                *self.state() = State {
                    tokens: Some(tokens),
                    unsaved: Some(replaced),
                    store_trouble: Some(in_short(&error)),
                    ..State::default()
                };
                Err(error.into())
            }
        }
    }

    /// The right to refresh and to write the stored session, across processes. `ask`: what it is wanted for.
    async fn store_lock(&self, ask: Ask) -> Result<StoreLock, AuthError> {
        let deadline = Instant::now() + LOCK_WAIT_MAX;
        loop {
            if let Some(lock) = self.inner.store.try_lock()? {
                return Ok(lock);
            }
            if Instant::now() >= deadline {
                return Err(AuthError::Unreachable {
                    attempted: ask.verb(),
                    url: self.inner.project.url.clone(),
                    reason: "another program on this machine is renewing the sign-in and does not finish"
                        .to_owned(),
                    retry_after: None,
                    status: None,
                });
            }
            tokio::time::sleep(LOCK_RETRY).await;
        }
    }

    async fn token_request(
        &self,
        ask: Ask,
        grant: &str,
        body: &serde_json::Value,
    ) -> Result<Tokens, AuthError> {
        let url = self
            .inner
            .project
            .join(&format!("/auth/v1/token?grant_type={grant}"));
        let answer = self
            .send(ask, &url, self.inner.http.post(&url).json(body))
            .await?;
        // Its life counts from when it was asked for at the latest; `now` after the answer is a little later, which
        // the minute of LEFT_MS_MIN covers.
        let tokens = wire::tokens(&answer, self.inner.clock.now()).map_err(|why| AuthError::Malformed {
            attempted: ask.verb(),
            url,
            why,
        })?;
        Ok(Tokens {
            project: self.inner.project.url.clone(),
            ..tokens
        })
    }

    async fn send(
        &self,
        ask: Ask,
        url: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<Vec<u8>, AuthError> {
        let trouble = |reason, status| AuthError::Unreachable {
            attempted: ask.verb(),
            url: url.to_owned(),
            reason,
            retry_after: None,
            status,
        };
        let unreachable = |reason| trouble(reason, None);
        let headers = self.inner.project.headers()?;
        let request = request
            .headers(headers)
            .header("x-supabase-api-version", API_VERSION);
        let response = project::send(&self.inner.http, request)
            .await
            .map_err(unreachable)?;
        let status = response.status();
        let retry_after = crate::rest::retry_after(response.headers());
        let content_type = crate::rest::content_type(response.headers());
        let body = read_body(response)
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        if let Some(why) = in_between(status.as_u16(), content_type.as_deref(), &body) {
            return Err(trouble(why, Some(status.as_u16())));
        }
        if status.is_success() {
            return Ok(body);
        }
        Err(wire::error(ask, url, status.as_u16(), retry_after, &body))
    }
}

#[cfg(test)]
mod tests;

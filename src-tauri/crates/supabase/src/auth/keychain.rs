//! The sign-in in the operating system's keychain, for who asks for it: the Secret Service over D-Bus on Linux, the
//! Keychain on macOS. Where there is none (a server, a container) the file stays, and whoever asks is told why.
//!
//! Only tokens, never a password. A keychain may ask its owner to unlock it: no call here waits longer than
//! [`ANSWER_WAIT`], and none keeps other tasks of the program from running meanwhile. Called by [`super::Auth`] through
//! [`TokenStore`], by `client` to choose the store, by the programs to say which one it is.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::store::{FileTokenStore, StoreError, StoreLock, TokenStore};
use super::{Project, Tokens};

/// Longest wait for the keychain: its owner may have to unlock it first.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// Calls that wait for it at once; more are refused. One refresher makes one call at a time.
const WAITING_MAX: usize = 4;
/// Under which name its entries are shown to their owner.
const SERVICE: &str = "SEMO Office";

/// Where a sign-in is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokensAt {
    /// In the keychain of the operating system.
    Keychain,
    /// In a file that only its owner can read (0600).
    File,
}

/// A keychain. Errors are reasons for people, without any of the secret.
pub trait Keychain: Send + Sync {
    /// The secret under `name`; `None` when there is none.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, String>;
    /// Replaces the secret under `name`.
    fn write(&self, name: &str, secret: &[u8]) -> Result<(), String>;
    /// Forgets the secret under `name`, if there is one.
    fn remove(&self, name: &str) -> Result<(), String>;
}

/// The store that was chosen.
pub struct Kept {
    /// It.
    pub store: Arc<dyn TokenStore>,
    /// Which kind it is.
    pub at: TokensAt,
    /// Why it is not the keychain, when that was asked for.
    pub why_not: Option<String>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept")
            .field("at", &self.at)
            .field("why_not", &self.why_not)
            .finish_non_exhaustive()
    }
}

impl Kept {
    /// The store for the account `email` of `project`: the keychain where that is `wanted` and answers, else `file`.
    /// Asks the keychain if it is wanted, which may take [`ANSWER_WAIT`].
    ///
    /// Not the keychain wherever there is one: programs that share a data folder (a core without a desktop's session, a
    /// terminal with one) would find different stores, and the one would take the other's sign-in away.
    pub fn choose(
        wanted: Option<TokensAt>,
        keychain: impl FnOnce() -> Arc<dyn Keychain>,
        file: &Path,
        project: &Project,
        email: &str,
    ) -> Kept {
        let in_file = |why_not| Kept {
            store: Arc::new(FileTokenStore::new(file, project)),
            at: TokensAt::File,
            why_not,
        };
        if wanted != Some(TokensAt::Keychain) {
            return in_file(None);
        }
        let store = KeychainTokenStore::new(keychain(), file, project, email);
        if let Err(reason) = store.keychain.read(&store.name) {
            return in_file(Some(reason));
        }
        Kept {
            store: Arc::new(store),
            at: TokensAt::Keychain,
            why_not: None,
        }
    }
}

/// Keeps the session of one account and data folder in a keychain. The lock across processes stays a file. A session that
/// lies in the file stays there, where another program may be using it, until the next one begins.
pub struct KeychainTokenStore {
    keychain: Arc<dyn Keychain>,
    name: String,
    email: String,
    file: FileTokenStore,
}

impl KeychainTokenStore {
    /// `file`: where the tokens lay, or would lie, without a keychain. It is part of the entry's name: two data folders
    /// are two sign-ins, and tokens of one project never reach another one.
    pub fn new(
        keychain: Arc<dyn Keychain>,
        file: &Path,
        project: &Project,
        email: &str,
    ) -> KeychainTokenStore {
        KeychainTokenStore {
            keychain,
            name: format!("{} ({})", project.url, file.display()),
            email: email.to_owned(),
            file: FileTokenStore::new(file, project),
        }
    }

    /// What a start without the keychain has left in the file, if it is this account's.
    fn in_file(&self) -> Option<Tokens> {
        let left = self.file.load().unwrap_or_else(|error| {
            tracing::warn!(%error, "the sign-in file is left alone");
            None
        });
        left.filter(|tokens| self.is_ours(tokens))
    }

    fn is_ours(&self, tokens: &Tokens) -> bool {
        tokens.email.eq_ignore_ascii_case(&self.email)
    }

    fn in_keychain(&self) -> Result<Option<Tokens>, StoreError> {
        let Some(secret) = self.keychain.read(&self.name).map_err(refused("read"))? else {
            return Ok(None);
        };
        let tokens = serde_json::from_slice(&secret).map_err(|error| StoreError::Keychain {
            attempted: "understand",
            reason: format!(
                "it is damaged (line {}, column {}), sign in again",
                error.line(),
                error.column()
            ),
        })?;
        Ok(Some(tokens))
    }

    /// The session, and where it lies. Of two that which ends later: whoever was killed between keeping a new pair and
    /// removing the file has left a spent one there.
    fn newest(&self) -> Result<Option<(Tokens, TokensAt)>, StoreError> {
        let in_keychain = self.in_keychain();
        let Some(left) = self.in_file() else {
            return Ok(in_keychain?.map(|tokens| (tokens, TokensAt::Keychain)));
        };
        Ok(Some(match in_keychain {
            Ok(Some(kept)) if self.is_ours(&kept) && kept.expires_at >= left.expires_at => {
                (kept, TokensAt::Keychain)
            }
            Ok(_) | Err(_) => (left, TokensAt::File),
        }))
    }
}

fn refused(attempted: &'static str) -> impl FnOnce(String) -> StoreError {
    move |reason| StoreError::Keychain { attempted, reason }
}

impl TokenStore for KeychainTokenStore {
    fn load(&self) -> Result<Option<Tokens>, StoreError> {
        Ok(self.newest()?.map(|(tokens, _)| tokens))
    }

    fn save(&self, tokens: &Tokens) -> Result<(), StoreError> {
        match self.newest() {
            // Another program may know only the file: gone from there it would count as signed out.
            Ok(Some((_, TokensAt::File))) => self.file.save(tokens),
            Ok(_) | Err(_) => self.begin(tokens),
        }
    }

    fn begin(&self, tokens: &Tokens) -> Result<(), StoreError> {
        let secret = serde_json::to_vec(tokens).map_err(|error| StoreError::Keychain {
            attempted: "keep",
            reason: error.to_string(),
        })?;
        self.keychain
            .write(&self.name, &secret)
            .map_err(refused("keep"))?;
        // Only now: a keychain that refuses must not cost the pair that there was. Another account's stays.
        match self.in_file() {
            Some(_) => self.file.clear(),
            None => Ok(()),
        }
    }

    fn clear(&self) -> Result<(), StoreError> {
        let in_file = match self.file.load() {
            Ok(Some(theirs)) if !self.is_ours(&theirs) => Ok(()),
            Ok(_) | Err(_) => self.file.clear(),
        };
        self.keychain.remove(&self.name).map_err(refused("remove"))?;
        in_file
    }

    fn try_lock(&self) -> Result<Option<StoreLock>, StoreError> {
        self.file.try_lock()
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// The keychain of this computer's user. A thread of its own carries the calls out one after the other, so that one that
/// its owner keeps waiting is neither overtaken nor waited for.
pub struct SystemKeychain {
    queue: Result<SyncSender<Work>, String>,
}

impl SystemKeychain {
    /// Opens nothing yet.
    pub fn new() -> SystemKeychain {
        let (queue, works) = sync_channel::<Work>(WAITING_MAX);
        let thread = std::thread::Builder::new().name("keychain".to_owned());
        let started = thread.spawn(move || {
            for work in works {
                work();
            }
        });
        SystemKeychain {
            queue: started.map(|_| queue).map_err(|error| error.to_string()),
        }
    }

    fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&keyring_core::Entry) -> keyring_core::Result<T> + Send + 'static,
        name: &str,
    ) -> Result<T, String> {
        let queue = self.queue.as_ref().map_err(String::clone)?;
        let (tell, told) = sync_channel(1);
        let name = name.to_owned();
        let work = move || {
            let done = entry(&name).and_then(|entry| work(&entry));
            // Nobody listens any more after ANSWER_WAIT.
            let _ = tell.send(done.map_err(|error| in_words(&error)));
        };
        queue.try_send(Box::new(work)).map_err(|error| match error {
            TrySendError::Full(_) => "it has not answered for a while".to_owned(),
            TrySendError::Disconnected(_) => "it has failed; start the program again".to_owned(),
        })?;
        aside(|| told.recv_timeout(ANSWER_WAIT)).unwrap_or_else(|_| {
            Err(format!(
                "it did not answer within {} s (does it wait to be unlocked?)",
                ANSWER_WAIT.as_secs()
            ))
        })
    }
}

impl Default for SystemKeychain {
    fn default() -> SystemKeychain {
        SystemKeychain::new()
    }
}

impl Keychain for SystemKeychain {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let read = |entry: &keyring_core::Entry| match entry.get_secret() {
            Err(keyring_core::Error::NoEntry) => Ok(None),
            secret => secret.map(Some),
        };
        self.call(read, name)
    }

    fn write(&self, name: &str, secret: &[u8]) -> Result<(), String> {
        let secret = secret.to_vec();
        self.call(move |entry| entry.set_secret(&secret), name)
    }

    fn remove(&self, name: &str) -> Result<(), String> {
        let remove = |entry: &keyring_core::Entry| match entry.delete_credential() {
            Err(keyring_core::Error::NoEntry) => Ok(()),
            removed => removed,
        };
        self.call(remove, name)
    }
}

/// Waits in a way that lets the runtime go on with its other tasks.
fn aside<T>(wait: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current() {
        Ok(here) if here.runtime_flavor() == RuntimeFlavor::MultiThread => tokio::task::block_in_place(wait),
        _ => wait(),
    }
}

/// The error's last cause: the library's own words stand around it several times.
fn in_words(error: &keyring_core::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Opened anew for each call: a core may outlive the session of its user, and the bus with it.
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
fn entry(name: &str) -> keyring_core::Result<keyring_core::Entry> {
    use keyring_core::api::CredentialStoreApi;
    zbus_secret_service_keyring_store::Store::new()?.build(SERVICE, name, None)
}

#[cfg(target_os = "macos")]
fn entry(name: &str) -> keyring_core::Result<keyring_core::Entry> {
    use keyring_core::api::CredentialStoreApi;
    apple_native_keyring_store::keychain::Store::new()?.build(SERVICE, name, None)
}

#[cfg(not(any(target_os = "linux", target_os = "freebsd", target_os = "macos")))]
fn entry(_name: &str) -> keyring_core::Result<keyring_core::Entry> {
    Err(keyring_core::Error::NotSupportedByStore(
        "no keychain of this system is known".to_owned(),
    ))
}

#[cfg(test)]
#[path = "keychain_tests.rs"]
mod tests;

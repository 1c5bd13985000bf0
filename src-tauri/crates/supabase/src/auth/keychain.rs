//! The operating system's keychain: the Secret Service over D-Bus on Linux, the Keychain on macOS. Where there is none (a
//! server, a container) every call says so.
//!
//! Nobody is ever asked to unlock it: a program in the background that puts up a window for a password again and again
//! would teach its owner to type it into any window. A locked one refuses. No call here waits longer than
//! [`ANSWER_WAIT`], and none keeps other tasks of the program from running meanwhile. Called by [`super::kept`] alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Longest wait for the keychain: it does not ask its owner, so it answers at once or hangs.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Calls that wait for it at once; more are refused. One refresher makes one call at a time.
const WAITING_MAX: usize = 4;
/// Under which name its entries are shown to their owner.
const SERVICE: &str = "SEMO Office";

/// A keychain. Errors are reasons for people, without any of the secret.
pub trait Keychain: Send + Sync {
    /// Whether it is there and can be used without asking its owner for anything; else why not.
    fn is_open(&self) -> Result<(), String>;
    /// The secret under `name`; `None` when there is none.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, String>;
    /// Replaces the secret under `name`.
    fn write(&self, name: &str, secret: &[u8]) -> Result<(), String>;
    /// Forgets the secret under `name`, if there is one.
    fn remove(&self, name: &str) -> Result<(), String>;
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

    /// Carries `work` out behind whatever was asked for before. What has not begun when nobody waits for it any more is
    /// left undone, unless it is `certain` to be wanted whenever its turn comes.
    fn call<T: Send + 'static>(
        &self,
        certain: bool,
        work: impl FnOnce() -> keyring_core::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let queue = self.queue.as_ref().map_err(String::clone)?;
        let (tell, told) = sync_channel(1);
        let given_up = Arc::new(AtomicBool::new(false));
        let seen = given_up.clone();
        let work = move || {
            if seen.load(Ordering::SeqCst) && !certain {
                return;
            }
            let done = is_unlocked().and_then(|()| work());
            // Nobody listens any more after ANSWER_WAIT.
            let _ = tell.send(done.map_err(|error| in_words(&error)));
        };
        queue.try_send(Box::new(work)).map_err(|error| match error {
            TrySendError::Full(_) => "it has not answered for a while".to_owned(),
            TrySendError::Disconnected(_) => "it has failed; start the program again".to_owned(),
        })?;
        aside(|| told.recv_timeout(ANSWER_WAIT)).unwrap_or_else(|_| {
            given_up.store(true, Ordering::SeqCst);
            Err(format!("it did not answer within {} s", ANSWER_WAIT.as_secs()))
        })
    }
}

impl Default for SystemKeychain {
    fn default() -> SystemKeychain {
        SystemKeychain::new()
    }
}

impl Keychain for SystemKeychain {
    fn is_open(&self) -> Result<(), String> {
        self.call(false, || Ok(()))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let name = name.to_owned();
        self.call(false, move || match entry(&name)?.get_secret() {
            Err(keyring_core::Error::NoEntry) => Ok(None),
            secret => secret.map(Some),
        })
    }

    fn write(&self, name: &str, secret: &[u8]) -> Result<(), String> {
        let (name, secret) = (name.to_owned(), secret.to_vec());
        self.call(false, move || entry(&name)?.set_secret(&secret))
    }

    fn remove(&self, name: &str) -> Result<(), String> {
        let name = name.to_owned();
        self.call(true, move || match entry(&name)?.delete_credential() {
            Err(keyring_core::Error::NoEntry) => Ok(()),
            removed => removed,
        })
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

/// An error while its owner would have to unlock it. The store itself would ask for that.
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
fn is_unlocked() -> keyring_core::Result<()> {
    use secret_service::EncryptionType;
    use secret_service::blocking::SecretService;
    let failed = |error: secret_service::Error| keyring_core::Error::PlatformFailure(Box::new(error));
    // Nothing secret goes over this connection.
    let service = SecretService::connect(EncryptionType::Plain).map_err(|error| {
        let why = in_words(&failed(error));
        keyring_core::Error::NoStorageAccess(format!("none answers ({why})").into())
    })?;
    let collection = service.get_default_collection().map_err(|error| match error {
        secret_service::Error::NoResult => {
            keyring_core::Error::NoStorageAccess("it has no place for passwords yet".into())
        }
        error => failed(error),
    })?;
    match collection.is_locked().map_err(failed)? {
        true => Err(keyring_core::Error::NoStorageAccess("it is locked".into())),
        false => Ok(()),
    }
}

/// The system asks by itself where it must; an entry of one's own is read without.
#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
fn is_unlocked() -> keyring_core::Result<()> {
    Ok(())
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

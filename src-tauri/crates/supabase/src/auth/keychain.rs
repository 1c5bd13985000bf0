//! The operating system's keychain: the Secret Service over D-Bus on Linux, the Keychain on macOS. Where there is none (a
//! server, a container) every call says so.
//!
//! On Linux nobody is ever asked to unlock it: a program in the background that puts up a window for a password again and
//! again would teach its owner to type it into any window. A locked one refuses. macOS asks by itself where it must, which
//! is not for the program's own entries. No call here waits longer than
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

/// A thread of its own, which carries calls out one after the other, so that one that its owner keeps waiting is neither
/// overtaken nor waited for.
struct Calls {
    queue: Result<SyncSender<Work>, String>,
    /// Longest wait for an answer.
    wait: Duration,
}

impl Calls {
    fn new(wait: Duration) -> Calls {
        let (queue, works) = sync_channel::<Work>(WAITING_MAX);
        let thread = std::thread::Builder::new().name("keychain".to_owned());
        let started = thread.spawn(move || {
            for work in works {
                work();
            }
        });
        Calls {
            queue: started.map(|_| queue).map_err(|error| error.to_string()),
            wait,
        }
    }

    /// Carries `work` out behind whatever was asked for before. What has not begun when nobody waits for it any more is
    /// left undone, unless it is `certain` to be wanted whenever its turn comes.
    fn call<T: Send + 'static>(
        &self,
        certain: bool,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let queue = self.queue.as_ref().map_err(String::clone)?;
        let (tell, told) = sync_channel(1);
        let given_up = Arc::new(AtomicBool::new(false));
        let seen = given_up.clone();
        let work = move || {
            if seen.load(Ordering::SeqCst) && !certain {
                return;
            }
            // Perhaps nobody listens any more.
            let _ = tell.send(work());
        };
        queue.try_send(Box::new(work)).map_err(|error| match error {
            TrySendError::Full(_) => "it has not answered for a while".to_owned(),
            TrySendError::Disconnected(_) => "it has failed; start the program again".to_owned(),
        })?;
        aside(|| told.recv_timeout(self.wait)).unwrap_or_else(|_| {
            given_up.store(true, Ordering::SeqCst);
            Err(format!("it did not answer within {} s", self.wait.as_secs()))
        })
    }
}

/// The keychain of this computer's user.
pub struct SystemKeychain {
    calls: Calls,
}

impl SystemKeychain {
    /// Opens nothing yet.
    pub fn new() -> SystemKeychain {
        SystemKeychain {
            calls: Calls::new(ANSWER_WAIT),
        }
    }

    fn call<T: Send + 'static>(
        &self,
        certain: bool,
        work: impl FnOnce() -> keyring_core::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let work = move || {
            let done = is_unlocked().and_then(|()| work());
            done.map_err(|error| in_words(&error))
        };
        self.calls.call(certain, work)
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// For what must come: only a test that fails waits so long.
    const COMES: Duration = Duration::from_secs(60);

    /// Calls behind one that is under way until something comes by the sender.
    fn kept_waiting() -> (Calls, Sender<()>) {
        let calls = Calls::new(Duration::from_millis(5));
        let ((open, gate), (tell, begun)) = (channel::<()>(), channel());
        let held = calls.call(true, move || {
            tell.send(()).map_err(|error| error.to_string())?;
            gate.recv().map_err(|error| error.to_string())
        });
        assert!(held.expect_err("nobody answers").contains("did not answer"));
        begun.recv_timeout(COMES).expect("it is under way");
        (calls, open)
    }

    /// A call that nobody answers in time, and where it tells that it was carried out all the same.
    fn given_up(calls: &Calls, certain: bool) -> Receiver<()> {
        let (tell, told) = channel();
        let called = calls.call(certain, move || tell.send(()).map_err(|error| error.to_string()));
        assert!(called.is_err());
        told
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_left_undone_unless_it_is_certain() {
        let (calls, open) = kept_waiting();
        let read = given_up(&calls, false);
        let removed = given_up(&calls, true);
        open.send(()).expect("it waits");
        removed.recv_timeout(COMES).expect("carried out");
        assert!(read.try_recv().is_err(), "its turn came before, and has passed");
    }

    #[test]
    fn calls_that_wait_are_bounded_and_more_are_refused_at_once_with_other_words() {
        let (calls, open) = kept_waiting();
        let waiting: Vec<_> = (0..WAITING_MAX).map(|_| given_up(&calls, true)).collect();
        let refused = calls.call(true, || Ok(())).expect_err("one too many");
        assert!(refused.contains("for a while"), "{refused}");
        open.send(()).expect("it waits");
        for told in waiting {
            told.recv_timeout(COMES).expect("what waited is carried out");
        }
        let found = (0..1_000).find_map(|_| calls.call(false, || Ok(7)).ok());
        assert_eq!(found, Some(7), "and there is room again");
    }

    #[test]
    fn a_call_that_is_refused_says_why() {
        let calls = Calls::new(COMES);
        let refused: Result<(), _> = calls.call(false, || Err("it is locked".to_owned()));
        assert_eq!(refused, Err("it is locked".to_owned()));
    }
}

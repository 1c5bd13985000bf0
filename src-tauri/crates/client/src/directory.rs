//! Which sessions run here: written by the loop, read by the streams and hooks that must not wait for it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use domain::SessionId;
use session::Session;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How long a hook waits for a session that is about to be there: as long as a look for its holder may take, and a
/// little more.
const EXPECTED_WAIT_MAX: Duration = Duration::from_secs(10);

/// The sessions with the secrets of their hooks. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Directory(Arc<Shared>);

#[derive(Default)]
struct Shared {
    entries: RwLock<Entries>,
    /// Somebody was added or removed.
    news: Notify,
}

#[derive(Default)]
struct Entries {
    sessions: HashMap<SessionId, (Session, String)>,
    /// Those that are about to be there, by the secret of their hooks: their programs run already.
    expected: HashMap<SessionId, String>,
    /// The loop has ended: nothing is added any more, so that no handle keeps a session from being let go.
    closed: bool,
}

/// What a look for a session has brought.
enum Admission {
    Session(Box<Session>),
    /// It is about to be there.
    Later,
}

/// Why a hook was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HookRefusal {
    /// There is no such session here.
    #[error("there is no such session on this machine")]
    UnknownSession,
    /// The secret is not that session's.
    #[error("the secret is not the one of this session")]
    WrongSecret,
}

impl Directory {
    /// This session is about to be added: its hooks wait for that.
    pub(crate) fn expect(&self, id: SessionId, secret: String) {
        let mut entries = self.write();
        if !entries.closed {
            entries.expected.insert(id, secret);
        }
    }

    pub(crate) fn add(&self, session: Session, secret: String) {
        let mut entries = self.write();
        entries.expected.remove(&session.id());
        if !entries.closed {
            entries.sessions.insert(session.id(), (session, secret));
        }
        drop(entries);
        self.0.news.notify_waiters();
    }

    pub(crate) fn remove(&self, id: SessionId) {
        let mut entries = self.write();
        entries.expected.remove(&id);
        entries.sessions.remove(&id);
        drop(entries);
        self.0.news.notify_waiters();
    }

    /// Lets all of them go, and takes no more.
    pub(crate) fn close(&self) {
        let mut entries = self.write();
        entries.sessions.clear();
        entries.expected.clear();
        entries.closed = true;
        drop(entries);
        self.0.news.notify_waiters();
    }

    pub(crate) fn get(&self, id: SessionId) -> Option<Session> {
        self.read().sessions.get(&id).map(|(session, _)| session.clone())
    }

    /// The session, for somebody who has to show its secret. Waits for one that is about to be there, but not for ever.
    pub(crate) async fn admit(&self, id: SessionId, secret: &str) -> Result<Session, HookRefusal> {
        let deadline = Instant::now() + EXPECTED_WAIT_MAX;
        loop {
            let mut news = std::pin::pin!(self.0.news.notified());
            // From here on nothing is missed.
            news.as_mut().enable();
            match self.admission(id, secret)? {
                Admission::Session(session) => return Ok(*session),
                Admission::Later => {}
            }
            if timeout_at(deadline, news).await.is_err() {
                return Err(HookRefusal::UnknownSession);
            }
        }
    }

    fn admission(&self, id: SessionId, secret: &str) -> Result<Admission, HookRefusal> {
        let entries = self.read();
        let here = entries.sessions.get(&id);
        let own = here.map(|(_, own)| own).or_else(|| entries.expected.get(&id));
        match own {
            None => Err(HookRefusal::UnknownSession),
            Some(own) if !is_same(own, secret) => Err(HookRefusal::WrongSecret),
            Some(_) => Ok(here.map_or(Admission::Later, |(session, _)| {
                Admission::Session(Box::new(session.clone()))
            })),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.0.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.0.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compares two secrets in a time that tells nothing of where they differ.
fn is_same(expected: &str, shown: &str) -> bool {
    let (expected, shown) = (expected.as_bytes(), shown.as_bytes());
    let differences = expected
        .iter()
        .zip(shown)
        .fold(0u8, |all, (one, other)| std::hint::black_box(all | (one ^ other)));
    // An empty secret would be everybody's.
    !expected.is_empty() && expected.len() == shown.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_is_the_secret() {
        assert!(is_same("0123456789abcdef", "0123456789abcdef"));
        for shown in [
            "",
            "0",
            "0123456789abcdeF",
            "1123456789abcdef",
            "0123456789abcdef0",
        ] {
            assert!(!is_same("0123456789abcdef", shown), "{shown}");
        }
        assert!(!is_same("", ""));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hook_waits_for_a_session_that_is_expected_but_neither_for_ever_nor_with_a_wrong_secret() {
        let directory = Directory::default();
        let id = SessionId(uuid::Uuid::from_u128(1));
        let why = async |secret: &str| directory.admit(id, secret).await.err();
        assert_eq!(why("s").await, Some(HookRefusal::UnknownSession));
        directory.expect(id, "s".to_owned());
        let before = Instant::now();
        assert_eq!(why("other").await, Some(HookRefusal::WrongSecret));
        assert_eq!(before.elapsed(), Duration::ZERO);
        assert_eq!(why("s").await, Some(HookRefusal::UnknownSession));
        assert_eq!(before.elapsed(), EXPECTED_WAIT_MAX);
        // It turned out not to be there any more: whoever waits hears it at once.
        let (waits, removed) = tokio::join!(why("s"), async { directory.remove(id) });
        assert_eq!((waits, removed), (Some(HookRefusal::UnknownSession), ()));
        assert_eq!(before.elapsed(), EXPECTED_WAIT_MAX);
    }
}

//! Which sessions run here: written by the loop, read by the streams and hooks that must not wait for it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use domain::SessionId;
use session::Session;

/// The sessions with the secrets of their hooks. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Directory(Arc<RwLock<HashMap<SessionId, (Session, String)>>>);

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
    pub(crate) fn add(&self, session: Session, secret: String) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(session.id(), (session, secret));
    }

    pub(crate) fn remove(&self, id: SessionId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    pub(crate) fn get(&self, id: SessionId) -> Option<Session> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .map(|(session, _)| session.clone())
    }

    /// The session, for somebody who has to show its secret.
    pub(crate) fn admit(&self, id: SessionId, secret: &str) -> Result<Session, HookRefusal> {
        let sessions = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (session, expected) = sessions.get(&id).ok_or(HookRefusal::UnknownSession)?;
        if is_same(expected, secret) {
            Ok(session.clone())
        } else {
            Err(HookRefusal::WrongSecret)
        }
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
}

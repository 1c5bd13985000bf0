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
        if expected == secret {
            Ok(session.clone())
        } else {
            Err(HookRefusal::WrongSecret)
        }
    }
}

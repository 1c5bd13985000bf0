//! What a later core needs of a session to take it up as it was: kept beside its row in the journal as it changes, and
//! read back at the next start.

use domain::{SessionId, Timestamp};
use journal::SessionRow;
use provider::Version;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::EventLoop;
use super::seats::Live;

/// Opaque to the journal. A field that an older version did not write has its default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Detail {
    /// What its hooks show.
    pub secret: String,
    /// Program of its agent: `claude`, `scripted`.
    pub provider: String,
    /// Version of that program when it was started: what its screen means hangs on it.
    pub version: Option<String>,
    pub persona_hash: String,
    pub stale: bool,
    pub warm: bool,
    /// A turn has begun in it: there is a conversation to resume.
    pub talked: bool,
    pub was_ready: bool,
    /// Its program was started with the conversation of before.
    pub resumed: bool,
    pub unchecked: bool,
    pub restarts: u32,
    /// The program's own id of its conversation, where that is not the session's.
    pub conversation: Option<SessionId>,
    /// Since when it rested.
    pub idle_since: Option<Timestamp>,
    /// Its end was asked for.
    pub ending: bool,
}

impl Detail {
    /// That of a row; `None` where it holds nothing to go by (a row of an older version).
    pub(super) fn of(row: &SessionRow) -> Option<Detail> {
        let detail: Detail = serde_json::from_value(row.detail.clone()).ok()?;
        (!detail.secret.is_empty()).then_some(detail)
    }

    pub(super) fn value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// What the hooks of a session of an earlier core show.
pub(crate) fn hook_secret(row: &SessionRow) -> Option<String> {
    Detail::of(row).map(|detail| detail.secret)
}

impl Live {
    pub(super) fn detail(&self) -> Detail {
        let now = self.session.as_ref();
        let now = now.map(|session| Some(session.conversation()).filter(|id| *id != session.id()));
        Detail {
            secret: self.secret.clone(),
            provider: self.provider.clone(),
            version: self.version.as_ref().map(Version::to_string),
            persona_hash: self.persona_hash.clone(),
            stale: self.stale,
            warm: self.warm,
            talked: self.talked,
            was_ready: self.was_ready,
            resumed: self.resumed,
            unchecked: self.unchecked,
            restarts: self.restarts,
            conversation: now.unwrap_or(self.conversation),
            idle_since: self.idle_since,
            ending: self.ending,
        }
    }
}

impl EventLoop {
    /// Writes down what has changed. What cannot be written is written with the next change or tick.
    pub(super) fn keep_details(&mut self) {
        let journal = &self.ground.journal;
        for (id, live) in &mut self.sessions {
            // Without a row there is nothing to write to yet; it is written with its first detail.
            if live.kept.is_none() {
                continue;
            }
            let detail = live.detail();
            if live.kept.as_ref() == Some(&detail) {
                continue;
            }
            match journal.set_session_detail(*id, &detail.value()) {
                Ok(()) => live.kept = Some(detail),
                Err(error) => {
                    tracing::warn!(session = %id, %error, "what changed in a session is not in the journal")
                }
            }
        }
    }
}

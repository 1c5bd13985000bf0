//! What is written into the journal of a turn that is carried, so that another process can go on with it: where its
//! part of the transcript begins, and what is known of its submission.
//!
//! A stage is written before what it allows, never behind: Enter is pressed only once the journal says that it may have
//! been. Called by the submission and the actor.

use std::path::PathBuf;
use std::sync::Arc;

use domain::turn::TurnStage;
use domain::{Clock, SinceBoot, Timestamp, TurnId};
use journal::Journal;
use provider::claude::TranscriptPlace;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::follow::Memo;
use crate::git::Before;

/// See the module. Opaque to everybody else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Where the turn's part of the transcript begins.
    pub(crate) transcript: TranscriptPlace,
    /// The program's own id of the conversation.
    pub(crate) conversation: String,
    /// What the follower cannot read again.
    #[serde(default)]
    pub(crate) memo: Memo,
    /// What git said when it began.
    #[serde(default)]
    pub(crate) before: Option<Before>,
    /// Its Enter.
    #[serde(default)]
    pub(crate) entered: Option<Entered>,
    /// Its acknowledgement.
    #[serde(default)]
    pub(crate) taken: Option<Taken>,
}

/// A prompt that stands in the box, as Enter is pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entered {
    /// When the first byte of it was written.
    pub(crate) first_byte_at: Timestamp,
    /// The same, in microseconds of the monotonic clock since the turn was handed over.
    pub(crate) first_byte_after_us: u64,
    /// When Enter was pressed.
    pub(crate) submitted_at: Timestamp,
}

/// How a prompt was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Taken {
    /// When.
    pub(crate) at: Timestamp,
    /// The same by a clock that nobody sets.
    #[serde(default)]
    pub(crate) since_boot: Option<SinceBoot>,
    /// Where that was seen.
    pub(crate) source: String,
    /// How often Enter was pressed.
    pub(crate) enters: u32,
}

impl Mark {
    /// The mark as the journal kept it. Without one that can be read nothing is certain: the record is read from its
    /// beginning, and what is found there may be another turn's.
    pub(crate) fn read(kept: Option<&Value>, transcript: PathBuf, conversation: &str) -> Mark {
        let read = kept.and_then(|kept| match Mark::deserialize(kept) {
            Ok(mark) => Some(mark),
            Err(error) => {
                tracing::warn!(%error, "what the journal has kept of a turn cannot be read");
                None
            }
        });
        read.unwrap_or_else(|| Mark {
            transcript: TranscriptPlace {
                path: transcript,
                offset: 0,
                inode: None,
            },
            conversation: conversation.to_owned(),
            memo: Memo {
                has_namesake: true,
                ..Memo::default()
            },
            before: None,
            entered: None,
            taken: None,
        })
    }
}

/// The name of a channel, as the follower knows it.
pub(crate) fn source_named(name: &str) -> &'static str {
    const KNOWN: [&str; 3] = ["hook", "transcript", "status"];
    KNOWN
        .into_iter()
        .find(|known| *known == name)
        .unwrap_or("journal")
}

/// The stages of one turn, on their way into the journal.
#[derive(Clone)]
pub(crate) struct Stages {
    pub(crate) journal: Arc<Journal>,
    pub(crate) turn: TurnId,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Stages {
    /// Writes a stage down; it is on the disk when this returns. The error is for people.
    pub(crate) async fn write(&self, stage: TurnStage, mark: &Mark) -> Result<(), String> {
        let mark = serde_json::to_value(mark).map_err(|error| error.to_string())?;
        let (journal, turn, now) = (Arc::clone(&self.journal), self.turn, self.clock.now());
        let written =
            tokio::task::spawn_blocking(move || journal.set_turn_stage(turn, stage, Some(&mark), now));
        match written.await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err("the journal has no such open turn".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_survives_the_journal_and_an_unreadable_one_makes_nothing_certain() {
        let mut mark = Mark::read(None, "/t.jsonl".into(), "c");
        assert!(mark.memo.has_namesake);
        mark.memo = Memo {
            ids: vec!["p".into()],
            ..Memo::default()
        };
        mark.entered = Some(Entered {
            first_byte_at: Timestamp(1),
            first_byte_after_us: 2,
            submitted_at: Timestamp(3),
        });
        mark.taken = Some(Taken {
            at: Timestamp(4),
            since_boot: None,
            source: "hook".into(),
            enters: 1,
        });
        let kept = serde_json::to_value(&mark).unwrap();
        assert_eq!(Mark::read(Some(&kept), "/other".into(), "other"), mark);
        let odd = Mark::read(Some(&serde_json::json!({"transcript": 7})), "/t".into(), "c");
        assert!(odd.memo.has_namesake && odd.transcript.offset == 0);
        assert_eq!(source_named("hook"), "hook");
        assert_eq!(source_named("anything"), "journal");
    }
}

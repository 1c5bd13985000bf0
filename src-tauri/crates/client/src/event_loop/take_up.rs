//! Looking for one session of an earlier core: its holder, its worktree, and what its transcript says of turns that
//! nobody follows any more. Runs in a task; the loop hears the outcome.

use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::Timestamp;
use domain::evidence::Evidence;
use domain::fault::chain;
use domain::turn::TurnStage;
use journal::{SessionRow, TurnRow};
use session::{LeftJudgement, LeftPlace, LeftTurn, Session, SessionNote, SessionSpec, judge_left};
use terminal::{Held, Holders};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use worktree::{Repository, Worktree};

use super::settle::Judged;
use super::{Event, EventLoop};
use crate::directory::Directory;

/// What programs of an earlier core get to end in order, when nobody knows them any more.
const STRAY_GRACE: Duration = Duration::from_secs(2);

/// What looking for a session needs; taken along by the task.
pub(super) struct TakeUp {
    pub(super) row: SessionRow,
    pub(super) turns: Vec<TurnRow>,
    pub(super) spec: SessionSpec,
    pub(super) holders: Holders,
    /// The folder of its repository, where the settings still name it.
    pub(super) repository: Option<PathBuf>,
    pub(super) now: Timestamp,
    pub(super) directory: Directory,
    /// What its hooks show.
    pub(super) secret: String,
    pub(super) tasks: TaskTracker,
    pub(super) notes: mpsc::Sender<SessionNote>,
}

/// What was found.
pub(crate) enum Found {
    /// It goes on.
    Attached {
        session: Session,
        place: Result<Worktree, String>,
        /// Of turns that are not followed although they may have had an effect.
        judged: Judged,
    },
    /// Its program is proven gone.
    Gone {
        why: String,
        place: Option<Worktree>,
        judged: Judged,
    },
    /// It may run; nothing was touched.
    Silent { why: String },
}

impl TakeUp {
    pub(super) async fn run(self) -> Found {
        let id = self.row.id;
        let held = self.holders.attach(&id.to_string()).await;
        let terminal = match held {
            Held::Attached(terminal) => terminal,
            Held::Gone { why } => {
                let judged = self.judge(&self.entered()).await;
                let place = self.place().await.ok();
                return Found::Gone { why, place, judged };
            }
            Held::Unknown { why } => return Found::Silent { why },
        };
        let mut entered = self.entered();
        // The newest one is what runs; those before it are over.
        let left = entered.pop();
        let mut judged = self.judge(&entered).await;
        let unknown = |turn| (turn, LeftJudgement::Unknown(Evidence::default()));
        judged.extend(unreadable(&self.turns).map(unknown));
        let place = self.place().await.map_err(|error| chain(&error));
        match Session::attach(
            self.spec,
            terminal,
            left.map(|(_, left)| left),
            &self.tasks,
            self.notes,
        ) {
            Ok(session) => {
                // At once: its program's hooks are on their way already.
                self.directory.add(session.clone(), self.secret);
                Found::Attached {
                    session,
                    place,
                    judged,
                }
            }
            Err(error) => Found::Silent { why: chain(&error) },
        }
    }

    /// The turns whose prompt may have reached the agent, in the order in which they were begun.
    fn entered(&self) -> Vec<(domain::TurnId, LeftTurn)> {
        self.turns.iter().filter_map(left_turn).collect()
    }

    async fn judge(&self, turns: &[(domain::TurnId, LeftTurn)]) -> Judged {
        let place = LeftPlace {
            config_dir: self.spec.config_dir.clone(),
            worktree: self.row.worktree.clone(),
            conversation: self.spec.conversation,
            patterns: self.spec.patterns.borrow().clone(),
            now: self.now,
        };
        let mut judged = Judged::new();
        for (id, left) in turns {
            judged.insert(*id, judge_left(left, &place).await);
        }
        judged
    }

    /// Its worktree: the folder is there, and it is the one that was made for it.
    async fn place(&self) -> Result<Worktree, worktree::WorktreeError> {
        let repository = self.repository.as_deref().unwrap_or(Path::new(""));
        let repository = Repository::open(repository).await?;
        let found = repository.worktree(&self.row.worktree).await?;
        if found.branch == self.row.branch {
            return Ok(found);
        }
        Err(worktree::WorktreeError::WrongPlace {
            path: self.row.worktree.clone(),
            expected: format!("the worktree of branch {}", self.row.branch),
        })
    }
}

/// The turns whose prompt may have reached the agent, but whose record this version cannot read: nobody follows them.
fn unreadable(turns: &[TurnRow]) -> impl Iterator<Item = domain::TurnId> {
    let is_unreadable = |turn: &&TurnRow| turn.stage != TurnStage::Begun && left_turn(turn).is_none();
    turns.iter().filter(is_unreadable).map(|turn| turn.turn.id)
}

/// A turn as a session takes it up; `None` for one that never reached the agent, or that this version cannot read.
fn left_turn(row: &TurnRow) -> Option<(domain::TurnId, LeftTurn)> {
    match row.stage {
        TurnStage::Begun => return None,
        TurnStage::Entering | TurnStage::Taken => {}
    }
    let left = LeftTurn {
        request: serde_json::from_value(row.turn.request.clone()).ok()?,
        requested_at: row.started_at,
        stage: row.stage,
        mark: row.mark.clone(),
        taken_at: row.taken_at,
    };
    Some((row.turn.id, left))
}

impl EventLoop {
    /// Ends what holders run that no session of ours knows: left over by a session that was ended, or by a journal that
    /// is gone. Their worktrees stay as they are.
    pub(super) fn end_strays(&mut self, known: &std::collections::BTreeSet<String>) {
        let tags = match self.ground.holders.tags() {
            Ok(tags) => tags,
            Err(error) => {
                let hint = "Programs of an earlier start may still run; `semo doctor` lists them.";
                return self.problem("strays", chain(&error), hint);
            }
        };
        let strays: Vec<String> = tags.into_iter().filter(|tag| !known.contains(tag)).collect();
        if strays.is_empty() {
            return;
        }
        let holders = self.ground.holders.clone();
        self.start(async move {
            let mut ended = Vec::new();
            for tag in strays {
                match holders.attach(&tag).await {
                    Held::Gone { .. } => {}
                    Held::Unknown { why } => ended.push((tag, Err(why))),
                    Held::Attached(terminal) => match terminal.stop(STRAY_GRACE).await {
                        Ok(proof) if proof.is_proven() => ended.push((tag, Ok(()))),
                        Ok(_) => ended.push((tag, Err("its processes do not end".to_owned()))),
                        Err(error) => ended.push((tag, Err(chain(&error)))),
                    },
                }
            }
            Event::StraysEnded(ended)
        });
    }

    /// Tells once of what ran without a session.
    pub(super) fn strays_ended(&mut self, strays: &[(String, Result<(), String>)]) {
        let told: Vec<String> = strays
            .iter()
            .map(|(tag, ended)| match ended {
                Ok(()) => format!("{tag} (ended)"),
                Err(why) => format!("{tag} (not ended: {why})"),
            })
            .collect();
        if told.is_empty() {
            return;
        }
        let message = format!("programs ran that no session here knows: {}", told.join("; "));
        let hint = "They were left by an earlier start. Their worktrees are kept.";
        self.problem("strays", message, hint);
    }
}

#[cfg(test)]
mod tests {
    use domain::{SessionId, TurnId};
    use journal::NewTurn;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_turn_that_may_have_begun_and_cannot_be_read_is_not_taken_for_one_that_is_followed() {
        let row = |number, stage, request: Value| TurnRow {
            turn: NewTurn {
                id: TurnId(uuid::Uuid::from_u128(number)),
                session: SessionId(uuid::Uuid::nil()),
                command: None,
                prompt_sha256: String::new(),
                request,
            },
            started_at: Timestamp(0),
            ended_at: None,
            outcome: None,
            rule: None,
            stage,
            mark: None,
            taken_at: None,
        };
        let request = session::TurnRequest {
            id: TurnId(uuid::Uuid::from_u128(1)),
            prompt: "do it".to_owned(),
            marker: domain::marker::Marker::for_wish(domain::command::MarkerWish::Plain, ""),
            timeout: Duration::from_secs(1),
        };
        let readable = serde_json::to_value(&request).unwrap();
        let turns = [
            row(1, TurnStage::Taken, readable),
            row(2, TurnStage::Begun, json!({ "of": "a later version" })),
            row(3, TurnStage::Entering, json!({ "of": "a later version" })),
        ];
        let found: Vec<TurnId> = unreadable(&turns).collect();
        assert_eq!(found, [turns[2].turn.id]);
    }
}

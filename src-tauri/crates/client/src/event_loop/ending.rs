//! Ending a session: the process tree first, proven gone; the worktree after that, and never with work in it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::SessionId;
use domain::fault::chain;
use domain::session::SessionState;
use provider::claude;
use serde_json::json;
use session::Session;
use tokio::time::Instant;
use worktree::Worktree;

use super::finish::End;
use super::opening::START_DEADLINE;
use super::seats::Live;
use super::{Event, EventLoop, Stage};

/// How often the end of a session is tried, and how long after a try that proved nothing.
const END_TRIES_MAX: u32 = 5;
const END_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// What becomes of a session's worktree when its program is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// It is removed if nothing in it would be lost.
    ClearAway,
    /// The program is started again in it.
    StartAgain,
}

/// What is left of a session's worktree.
pub(crate) enum Left {
    /// All of it, for the next program.
    Standing,
    /// Nothing; what was not committed is kept under this ref.
    Removed { preserved: Option<String> },
    /// The folder.
    Kept { folder: PathBuf, reason: String },
    /// It never had one.
    Nothing,
}

/// A session whose processes are not proven gone, with its handle, for another try.
pub(crate) struct Unproven {
    why: String,
    session: Session,
}

impl EventLoop {
    /// Ends a session: its process first, its worktree after that.
    pub(super) fn give_up(&mut self, id: SessionId, why: &'static str) {
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        if std::mem::replace(&mut live.ending, true) {
            return;
        }
        tracing::info!(session = %id, why, "ending a session");
        self.changed = true;
        if live.restart.is_some() {
            self.forget_restart(id);
        } else if live.resumes {
            self.clear_place(id);
        } else if live.session.is_some() {
            self.end_process(id, After::ClearAway);
        }
    }

    /// Waits in a task for the proof that the process tree is gone, then looks after the worktree.
    pub(super) fn end_process(&mut self, id: SessionId, after: After) {
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        live.ending |= after == After::ClearAway;
        let Some(session) = live.session.take() else {
            return;
        };
        let place = live.place.clone();
        let start_files = self.ground.paths.session(id);
        if !live.state.is_over() && after == After::ClearAway {
            live.state = SessionState::Stopping;
        }
        self.start(async move {
            let unproven = |why| Unproven {
                why,
                session: session.clone(),
            };
            let left = match session.terminate().await {
                Ok(proof) if !proof.is_proven() => {
                    let pids: Vec<_> = proof
                        .survivors
                        .iter()
                        .map(|process| process.pid.to_string())
                        .collect();
                    Err(unproven(format!(
                        "these processes do not end: {}",
                        pids.join(", ")
                    )))
                }
                Ok(_) if after == After::StartAgain => Ok(Left::Standing),
                Ok(_) => Ok(clear_all(id, place, &start_files).await),
                Err(error) => Err(unproven(chain(&error))),
            };
            Event::Gone { session: id, left }
        });
    }

    pub(super) fn gone(&mut self, id: SessionId, left: Result<Left, Unproven>) {
        match left {
            Ok(Left::Standing) => self.gone_for_restart(id),
            Ok(left) => self.is_gone(id, &left),
            Err(unproven) => self.not_gone(id, unproven),
        }
    }

    /// Unknown is not dead: the session keeps its place, and its end is tried again.
    fn not_gone(&mut self, id: SessionId, unproven: Unproven) {
        let stopping = self.is_at_its_end();
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        live.ending = true;
        live.restart = None;
        let tries = live.unproven.map_or(1, |(tries, _)| tries + 1);
        let again = tries < END_TRIES_MAX && !stopping;
        tracing::error!(session = %id, tries, why = %unproven.why, "a session is not proven gone");
        let message = format!(
            "session {} ({}) could not be ended: {}",
            live.title, id, unproven.why
        );
        if again {
            live.session = Some(unproven.session);
            live.unproven = Some((tries, Instant::now() + END_AGAIN_AFTER));
        }
        self.problem(
            "not_stopped",
            message.clone(),
            "End these processes by hand; their worktree is kept.",
        );
        self.end_all_waiting_for(id, &End::failed("not_stopped", message.clone()));
        if !stopping {
            self.end_what_waited_for_start(id, Some(message));
        }
        if !again {
            self.forget_session(id);
        }
    }

    /// It is none of ours any more: the record and the office hear so, and its place is free.
    fn forget_session(&mut self, id: SessionId) {
        self.directory.remove(id);
        let Some(mut live) = self.sessions.remove(&id) else {
            return;
        };
        if !live.state.is_over() {
            live.state = SessionState::Exited { code: None };
        }
        self.record_end(id, &live);
        self.advance_line();
    }

    fn record_end(&mut self, id: SessionId, live: &Live) {
        let now = self.now();
        if let Err(error) = self.ground.journal.set_session_state(id, &live.state, now) {
            tracing::warn!(session = %id, %error, "a session's end is not in the journal");
        }
        if !live.warm {
            let draft = self.draft(id, live);
            self.tell(draft);
        }
    }

    /// Tries again what could not be ended before.
    pub(super) fn end_again(&mut self, now: Instant) {
        let due = |live: &Live| live.session.is_some() && live.unproven.is_some_and(|(_, at)| at <= now);
        let again: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, live)| due(live))
            .map(|(id, _)| *id)
            .collect();
        for id in again {
            self.end_process(id, After::ClearAway);
        }
    }

    fn is_gone(&mut self, id: SessionId, left: &Left) {
        self.directory.remove(id);
        let Some(mut live) = self.sessions.remove(&id) else {
            return;
        };
        if live.unproven.is_some() {
            self.solved("not_stopped");
        }
        if !live.state.is_over() {
            live.state = SessionState::Exited { code: None };
        }
        self.record_end(id, &live);
        if !self.is_stopping() {
            self.end_what_waited_for_start(id, live.asks);
        }
        self.release_terminators(id, left);
        self.advance_line();
    }

    /// A turn that was still open has its report in the notes; a command that still waits for the start has not.
    fn end_what_waited_for_start(&mut self, id: SessionId, words: Option<String>) {
        let reason = words.unwrap_or_else(|| {
            "the agent program ended before it was ready; `semo doctor` may tell why".to_owned()
        });
        let end = if self.problems.contains_key("claude_signed_out") {
            // What its screen asked for may have been just that.
            let known = reason.contains(claude::SIGN_IN_STEPS);
            let hint = if known {
                String::new()
            } else {
                format!("{}; ", claude::SIGN_IN_HINT)
            };
            End::failed("auth", hint + &reason)
        } else {
            End::failed("provider_exit", reason)
        };
        for command in self.waiting_for_start(id) {
            self.end(command, end.clone());
        }
    }

    pub(super) fn release_terminators(&mut self, id: SessionId, left: &Left) {
        let mut output = json!({ "session_id": id });
        match left {
            Left::Removed { preserved } => output["preserved"] = json!(preserved),
            Left::Kept { folder, reason } => {
                output["kept_folder"] = json!(folder);
                output["kept_because"] = json!(reason);
            }
            Left::Nothing | Left::Standing => {}
        }
        self.end_all_waiting_for(id, &End::ok(output));
    }

    pub(super) fn end_all_waiting_for(&mut self, session: SessionId, end: &End) {
        let waiting: Vec<_> = self
            .work
            .iter()
            .filter(|(_, work)| work.stage == Stage::UntilGone { session })
            .map(|(command, _)| *command)
            .collect();
        for command in waiting {
            self.end(command, end.clone());
        }
    }

    pub(super) fn give_up_idle_sessions(&mut self) {
        let now = self.now();
        let idle_ms = u64::from(self.limits().idle_minutes) * 60_000;
        let idle: Vec<_> = self
            .sessions
            .iter()
            .filter(|(id, live)| !live.ending && !self.is_busy(**id))
            // A warm one is kept for as long as its role is; one that stands at a question of its start is none.
            .filter(|(_, live)| !(live.warm && live.state == SessionState::Idle))
            .filter(|(_, live)| {
                live.idle_since
                    .is_some_and(|since| now.ms_since(since) >= idle_ms)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in idle {
            self.give_up(id, "it was idle for too long");
        }
    }

    pub(super) fn give_up_stuck_starts(&mut self, now: Instant) {
        let stuck: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, live)| !live.ending && live.start_deadline.is_some_and(|at| at <= now))
            .map(|(id, live)| (*id, live.agent, live.unchecked, live.warm))
            .collect();
        for (id, agent, resumed, warm) in stuck {
            let words = format!(
                "the agent program showed no prompt within {} seconds",
                START_DEADLINE.as_secs()
            );
            self.count_failure(agent, &words);
            if resumed {
                self.lose(id, &words);
                continue;
            }
            if let Some(live) = self.sessions.get_mut(&id) {
                live.asks = Some(words);
            }
            if warm {
                self.warm_session_failed(id);
            }
            self.give_up(id, "it did not become ready");
            self.advance_line();
        }
    }
}

/// What is to be done when a session's program is proven gone.
pub(super) async fn clear_all(id: SessionId, place: Option<Worktree>, start_files: &Path) -> Left {
    remove_start_files(id, start_files).await;
    clear_away(id, place).await
}

/// Removes a worktree in which everything is committed; keeps any other, with a copy of its state as a ref.
async fn clear_away(id: SessionId, place: Option<Worktree>) -> Left {
    let Some(worktree) = place else {
        return Left::Nothing;
    };
    let cleared = async {
        if worktree.facts().await?.dirty {
            worktree.preserve(id).await?;
            return Ok(None);
        }
        worktree.remove(id).await.map(Some)
    };
    let kept = |reason: String| {
        tracing::info!(session = %id, folder = %worktree.path.display(), reason, "a worktree is kept");
        Left::Kept {
            folder: worktree.path.clone(),
            reason,
        }
    };
    match cleared.await {
        Ok(Some(preserved)) => Left::Removed {
            preserved: preserved.map(|preserved| preserved.reference),
        },
        Ok(None) => kept("something in it is not committed".to_owned()),
        Err(error) => kept(chain(&error)),
    }
}

/// They hold the secret of the hooks, and nobody reads them any more.
pub(super) async fn remove_start_files(id: SessionId, folder: &Path) {
    if let Err(error) = tokio::fs::remove_dir_all(folder).await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(session = %id, %error, "the start-up files of a session are left");
    }
}

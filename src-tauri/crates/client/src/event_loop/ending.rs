//! Ending a session: the process tree first, proven gone; the worktree after that, and never with work in it.

use std::path::PathBuf;
use std::time::Duration;

use domain::SessionId;
use domain::session::SessionState;
use journal::SessionRow;
use provider::claude;
use serde_json::json;
use tokio::time::Instant;
use worktree::{Repository, Worktree};

use super::carry::chain;
use super::finish::End;
use super::opening::START_DEADLINE;
use super::{Event, EventLoop, Stage};

/// How long a shutdown waits for sessions to be gone.
const SHUT_DOWN_WAIT: Duration = Duration::from_secs(15);
/// What programs of an earlier core get to end in order.
const LEFT_BEHIND_GRACE: Duration = Duration::from_secs(2);

/// What is left of a session's worktree.
pub(crate) enum Left {
    /// Nothing; what was not committed is kept under this ref.
    Removed { preserved: Option<String> },
    /// The folder, because something in it is not committed.
    Kept { folder: PathBuf },
    /// It never had one.
    Nothing,
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
        if live.session.is_some() {
            self.end_process(id);
        }
    }

    /// Waits in a task for the proof that the process tree is gone, then looks after the worktree.
    pub(super) fn end_process(&mut self, id: SessionId) {
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        live.ending = true;
        let Some(session) = live.session.take() else {
            return;
        };
        let (place, start_files) = (live.place.take(), self.ground.paths.session(id));
        let office_ended = matches!(live.state, SessionState::Exited { .. });
        if !office_ended {
            live.state = SessionState::Stopping;
        }
        self.start(async move {
            let left = match session.terminate().await {
                Ok(proof) if !proof.is_proven() => {
                    Err(format!("{} of its processes still run", proof.survivors.len()))
                }
                Ok(_) => {
                    // They hold the secret of the hooks, and nobody reads them any more.
                    if let Err(error) = tokio::fs::remove_dir_all(&start_files).await
                        && error.kind() != std::io::ErrorKind::NotFound
                    {
                        tracing::warn!(session = %id, %error, "the start-up files of a session are left");
                    }
                    clear_away(id, place).await
                }
                Err(error) => Err(format!(
                    "its processes could not be proven gone: {}",
                    chain(&error)
                )),
            };
            Event::Gone { session: id, left }
        });
    }

    pub(super) fn gone(&mut self, id: SessionId, left: Result<Left, String>) {
        self.directory.remove(id);
        let now = self.now();
        let Some(mut live) = self.sessions.remove(&id) else {
            return;
        };
        let exited = match live.state {
            SessionState::Exited { .. } => live.state.clone(),
            _ => SessionState::Exited { code: None },
        };
        if let Err(error) = self.ground.journal.set_session_state(id, &exited, now) {
            tracing::warn!(session = %id, %error, "a session's end is not in the journal");
        }
        live.state = exited;
        let draft = self.draft(id, &live);
        self.tell(draft);
        // A turn that was still open has its report in the notes; a command that still waits for the start has not.
        let waiting: Vec<_> = self
            .work
            .iter()
            .filter(|(_, work)| work.stage == Stage::Starting { session: id })
            .map(|(command, _)| *command)
            .collect();
        let reason = live.asks.unwrap_or_else(|| {
            "the agent program ended before it was ready; `semo doctor` may tell why".to_owned()
        });
        let end = if self.problems.contains_key("claude_signed_out") {
            End::failed("auth", format!("{}; {reason}", claude::SIGN_IN_HINT))
        } else {
            End::failed("provider_exit", reason)
        };
        for command in waiting {
            self.end(command, end.clone());
        }
        match left {
            Ok(left) => self.release_terminators(id, &left),
            Err(message) => {
                tracing::error!(session = %id, message, "a session did not end cleanly");
                self.end_all_waiting_for(id, &End::failed("not_stopped", message));
            }
        }
        self.advance_line();
    }

    pub(super) fn release_terminators(&mut self, id: SessionId, left: &Left) {
        let mut output = json!({ "session_id": id });
        match left {
            Left::Removed { preserved } => output["preserved"] = json!(preserved),
            Left::Kept { folder } => output["kept_folder"] = json!(folder),
            Left::Nothing => {}
        }
        self.end_all_waiting_for(id, &End::ok(output));
    }

    fn end_all_waiting_for(&mut self, session: SessionId, end: &End) {
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
        let idle_ms = u64::from(self.ground.settings.limits.idle_minutes) * 60_000;
        let idle: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, live)| live.holder.is_none() && !live.ending)
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
            .map(|(id, _)| *id)
            .collect();
        for id in stuck {
            if let Some(live) = self.sessions.get_mut(&id) {
                live.asks = Some(format!(
                    "the agent program showed no prompt within {} seconds",
                    START_DEADLINE.as_secs()
                ));
            }
            self.give_up(id, "it did not become ready");
        }
    }

    /// Ends everything: interrupts and reports what runs, proves every process gone.
    pub(super) async fn shut_down(mut self) {
        for (id, live) in &mut self.sessions {
            live.ending = true;
            tracing::debug!(session = %id, "ending with the core");
        }
        let open: Vec<_> = self.sessions.keys().copied().collect();
        for id in open {
            self.end_process(id);
        }
        let deadline = Instant::now() + SHUT_DOWN_WAIT;
        while self
            .sessions
            .values()
            .any(|live| live.session.is_some() || live.ending)
            && !self.sessions.is_empty()
        {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => {
                    tracing::error!(sessions = self.sessions.len(), "some sessions were not proven gone in time");
                    break;
                }
                Some(event) = self.events.recv() => match event {
                    Event::Gone { .. } | Event::Opened { .. } | Event::Reported { .. } => self.handle(event),
                    _ => {}
                },
                Some(note) = self.notes.recv() => self.take_note(note),
            }
        }
        let held: Vec<_> = self.work.keys().copied().collect();
        for id in held {
            self.end(
                id,
                End::failed(
                    "client_stopped",
                    "SEMO Office was closed on that workstation before this was done",
                ),
            );
        }
        self.write_endings();
        self.publish();
    }
}

/// At start: ends what a session of an earlier core left running, then looks after its worktree. Nothing is waiting
/// for this; what cannot be done now stays as it is.
pub(super) async fn clear_after_crash(row: SessionRow, repository: Option<PathBuf>) {
    let id = row.id;
    match terminal::stop_left_behind(&id.to_string(), LEFT_BEHIND_GRACE).await {
        Ok(proof) if proof.is_proven() => {
            if !proof.seen.is_empty() {
                tracing::warn!(session = %id, processes = proof.seen.len(), "ended what an earlier core left running");
            }
        }
        Ok(proof) => {
            tracing::error!(session = %id, survivors = ?proof.survivors, "processes of an earlier core cannot be ended");
            return;
        }
        Err(error) => {
            tracing::error!(session = %id, %error, "what an earlier core left running cannot be told");
            return;
        }
    }
    let Some(repository) = repository.filter(|_| row.worktree.is_dir()) else {
        return;
    };
    let found = match Repository::open(&repository).await {
        Ok(repository) => repository.worktree(&row.worktree).await,
        Err(error) => Err(error),
    };
    match found {
        Ok(worktree) => {
            if let Err(error) = clear_away(id, Some(worktree)).await {
                tracing::warn!(session = %id, error, "a worktree of an earlier core is left");
            }
        }
        Err(error) => tracing::warn!(session = %id, %error, "a worktree of an earlier core is left"),
    }
}

/// Removes a worktree in which everything is committed; keeps any other, with a copy of its state as a ref.
async fn clear_away(id: SessionId, place: Option<Worktree>) -> Result<Left, String> {
    let Some(worktree) = place else {
        return Ok(Left::Nothing);
    };
    let facts = worktree.facts().await.map_err(|error| chain(&error))?;
    if facts.dirty {
        worktree.preserve(id).await.map_err(|error| chain(&error))?;
        return Ok(Left::Kept {
            folder: worktree.path,
        });
    }
    let preserved = worktree.remove(id).await.map_err(|error| chain(&error))?;
    Ok(Left::Removed {
        preserved: preserved.map(|preserved| preserved.reference),
    })
}

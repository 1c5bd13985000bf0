//! Looking at a session before it is given work: it must live, stand in its own worktree and have its own persona; a
//! warm one must besides be as fresh as a new one would be. What is not fit is renewed, or thrown away for a cold start;
//! nobody's prompt is ever typed into it.

use std::path::Path;
use std::sync::Arc;

use domain::fault::chain;
use domain::session::SessionState;
use domain::{Command, SessionId};
use provider::detect::{Detector, ScreenMeaning};
use serde_json::json;
use session::Session;
use worktree::{CatchUp, Worktree};

use super::finish::End;
use super::opening::PERSONA_FILES;
use super::{Event, EventLoop};
use crate::pool::WARM_AGE_MAX_MS;

/// Files that an agent program reads at its start: a warm session is not moved over a change of one of them.
const READ_AT_START: &[&str] = &[
    ":(glob)**/CLAUDE.md",
    ":(glob)**/CLAUDE.local.md",
    ":(glob)**/.claude/**",
    ":(glob)**/AGENTS.md",
    ".mcp.json",
    ".gitmodules",
];

/// A session that may be given work.
pub(crate) struct Fit {
    /// Its worktree, where it was brought up to the repository.
    moved: Option<Worktree>,
}

/// Why a session is not given work.
pub(crate) struct Unfit(String);

/// What the look needs; taken along by the task.
struct Look {
    session: Session,
    detector: Arc<Detector>,
    place: Worktree,
    persona_hash: String,
    warm: bool,
    age_ms: u64,
}

impl EventLoop {
    /// Looks at an idle session that is to be given work; what waits for it goes on with the answer.
    pub(super) fn check(&mut self, id: SessionId) {
        let now = self.now();
        let detector = self.detectors.reader().borrow().clone();
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(session) = live.session.clone() else {
            return;
        };
        let Some(place) = live.place.clone() else {
            // Of an earlier core, and its folder cannot be used.
            return self.lose(id, "its worktree cannot be used");
        };
        if std::mem::replace(&mut live.checking, true) {
            return;
        }
        live.look_again = false;
        let look = Look {
            session,
            detector,
            place,
            persona_hash: live.persona_hash.clone(),
            warm: live.warm,
            age_ms: now.ms_since(live.started_at),
        };
        self.start(async move {
            Event::Checked {
                session: id,
                result: look.run().await,
            }
        });
    }

    pub(super) fn checked(&mut self, id: SessionId, result: Result<Fit, Unfit>) {
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        live.checking = false;
        if live.ending || live.restart.is_some() || live.session.is_none() {
            // What waits for it is told by its end, or goes on after its new start.
            return;
        }
        if std::mem::take(&mut live.look_again) || !live.is_idle_now() {
            // Somebody has used it meanwhile: what was seen is not what is. Its next rest is looked at.
            live.look_again = true;
            if live.is_idle_now() {
                self.check(id);
            }
            return;
        }
        match result {
            Ok(fit) => {
                live.place = fit.moved.or(live.place.take());
                live.unchecked = false;
                if live.stale {
                    self.renew(id, "its agent's persona has changed");
                } else {
                    self.hand_over(id);
                }
            }
            Err(Unfit(why)) => self.not_fit(id, &why),
        }
    }

    fn not_fit(&mut self, id: SessionId, why: &str) {
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        tracing::warn!(session = %id, warm = live.warm, why, "a session is not fit for work");
        if live.warm {
            let because = format!("the session that stood ready was thrown away, because {why}");
            self.put_back_in_line(id, &because);
            self.give_up(id, "it stood ready but is not fit for work");
            self.advance_line();
        } else if live.unchecked {
            let begun = if live.taken_up {
                "it was taken up"
            } else {
                "it was started"
            };
            let words = format!("{begun} again, but {why}");
            self.lose(id, &words);
        } else {
            self.renew(id, "it is not fit for work");
        }
    }

    /// Gives a session that is ready to those that wait for it.
    pub(super) fn hand_over(&mut self, id: SessionId) {
        let waiting = self.waiting_for_start(id);
        if waiting.is_empty() {
            return;
        }
        if let Some(live) = self.sessions.get_mut(&id)
            && std::mem::take(&mut live.warm)
        {
            tracing::info!(session = %id, "a warm session is taken");
            self.tell_office(id);
        }
        for command in waiting {
            match self.work.get(&command).map(|work| &work.command) {
                Some(Command::CreateSession(_)) => {
                    let output = self.sessions.get(&id).map(|live| {
                        json!({
                            "session_id": id, "agent_id": live.agent, "repository": live.repository,
                            "branch": live.branch,
                        })
                    });
                    self.end(command, End::ok(output.unwrap_or_default()));
                }
                _ => self.submit(command, id),
            }
        }
    }
}

impl Look {
    async fn run(self) -> Result<Fit, Unfit> {
        let folder = &self.place.path;
        let there = tokio::fs::symlink_metadata(folder).await;
        if !there.is_ok_and(|found| found.is_dir()) {
            return unfit(format!("its worktree {} is gone", folder.display()));
        }
        self.stands_in(folder)?;
        match self.place.persona(PERSONA_FILES) {
            Ok(Some(block)) if block.hash == self.persona_hash => {}
            Ok(_) => return unfit("its persona is not in its worktree as it was written"),
            Err(error) => return unfit(format!("its persona cannot be read: {}", chain(&error))),
        }
        if !self.warm {
            return Ok(Fit { moved: None });
        }
        if *self.session.state().borrow() != SessionState::Idle {
            return unfit("it is not ready");
        }
        if self.session.touched() {
            // A key may have changed how it works without a trace on its screen that could be relied on.
            return unfit("somebody has typed into it");
        }
        if self.age_ms >= WARM_AGE_MAX_MS {
            return unfit("it was started too long ago");
        }
        if !self.input_is_empty() {
            return unfit("something stands in its input line");
        }
        self.at_head().await
    }

    /// The program runs, and in its own worktree: a used one may have gone deeper into it. Only where the kernel tells.
    fn stands_in(&self, folder: &Path) -> Result<(), Unfit> {
        let pid = self.session.terminal().pid();
        match std::fs::read_link(format!("/proc/{pid}/cwd")) {
            Ok(cwd) if cwd == folder || (!self.warm && cwd.starts_with(folder)) => Ok(()),
            Ok(cwd) => unfit(format!("its program is in {}", cwd.display())),
            Err(_) if !Path::new("/proc/self/cwd").exists() => Ok(()),
            Err(error) => unfit(format!("its program cannot be found: {error}")),
        }
    }

    fn input_is_empty(&self) -> bool {
        match self.detector.read(&self.session.terminal().screen()).meaning {
            ScreenMeaning::Ready(input) => input.empty,
            _ => false,
        }
    }

    /// Where a new one would start: at the repository's HEAD of now.
    async fn at_head(&self) -> Result<Fit, Unfit> {
        let cannot = |error| Unfit(format!("git cannot tell where it stands: {}", chain(&error)));
        let head = self.place.repository().head().await.map_err(cannot)?;
        let Some(head) = head.filter(|head| self.place.base.as_ref() != Some(head)) else {
            return Ok(Fit { moved: None });
        };
        match self.place.catch_up(&head, READ_AT_START).await.map_err(cannot)? {
            CatchUp::There => Ok(Fit { moved: None }),
            CatchUp::Moved(place) => {
                tracing::debug!(session = %self.session.id(), head, "a warm worktree was brought up to the repository");
                Ok(Fit { moved: Some(place) })
            }
            CatchUp::Touched => unfit("something has been done in its worktree"),
            CatchUp::WouldChange(file) => unfit(format!("{file} has changed since it was started")),
        }
    }
}

fn unfit<T>(why: impl Into<String>) -> Result<T, Unfit> {
    Err(Unfit(why.into()))
}

//! Carrying turns to their reports, and the session to its end.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use domain::Timestamp;
use domain::session::SessionEvent;
use domain::turn::{FailureClass, Verdict};
use provider::claude::{self, ScreenMeaning, read_screen};
use terminal::{Exit, StopProof, Terminal, TerminalError};
use tokio::time::{sleep, timeout};
use worktree::GitFacts;

use crate::actor::{Actor, Done, Ending};
use crate::error::SessionError;
use crate::handle::STOP_GRACE;
use crate::report::{SessionExit, SessionNote};
use crate::submission::NotSubmitted;
use crate::turn::{QueuedTurn, Turn};

/// How long the transcript may take to show what the stop signal has said.
const TRANSCRIPT_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long git may take to say what has changed.
const GIT_WAIT_MAX: Duration = Duration::from_secs(15);
/// How long the program may take to stop its turn before it is ended.
const INTERRUPT_WAIT: Duration = Duration::from_millis(500);
/// How often that is looked at.
const INTERRUPT_LOOK_EVERY: Duration = Duration::from_millis(25);
/// Rows of the screen that are told about a program that ended before it was ready.
const LAST_ROWS: usize = 6;
/// How long the owner may take to receive one of the last notes.
const LAST_NOTE_WAIT_MAX: Duration = Duration::from_secs(5);

impl Actor {
    /// Decides whether the turn has ended. Evidence is gathered after the decision, and cannot change it.
    pub(crate) fn judge(&mut self) {
        if self.work.is_some() || self.ending == Ending::Running {
            return;
        }
        let Some(turn) = &mut self.turn else { return };
        let recent = turn
            .stopped_at
            .is_some_and(|at| at.elapsed() < TRANSCRIPT_WAIT_MAX);
        if turn.signs.failure.is_none() && !turn.settle() && recent {
            return;
        }
        if let Some(verdict) = turn.signs.verdict() {
            tracing::info!(turn = %turn.id(), rule = verdict.rule, "turn ended");
            let ended_at = self.clock.now();
            let worktree = self.worktree.clone();
            let before = turn.head_before.clone();
            self.work = Some(Box::pin(async move {
                let git = git_facts(&worktree, before.as_deref()).await;
                Done::Gathered {
                    verdict,
                    ended_at,
                    git,
                }
            }));
        }
    }

    /// The turn is over and its evidence is there.
    pub(crate) fn report(&mut self, verdict: Verdict, ended_at: Timestamp, git: Option<GitFacts>) {
        self.interrupt = None;
        self.idle_since = None;
        self.rested = false;
        if let Some(turn) = self.turn.take() {
            // A prompt that was never taken has moved nothing: a dialog may be open.
            if turn.signs.acknowledged {
                self.apply(&SessionEvent::TurnEnded);
            }
            self.look_soon = true;
            self.tell_end(turn, verdict, ended_at, git);
        }
    }

    /// A turn that ends without ever having been begun.
    pub(crate) fn report_unsent(&mut self, queued: QueuedTurn, why: &NotSubmitted) {
        let mut turn = Turn::new(queued);
        turn.not_submitted(why);
        if let Some(verdict) = turn.signs.verdict() {
            let now = self.clock.now();
            self.tell_end(turn, verdict, now, None);
        }
    }

    fn tell_end(&mut self, turn: Turn, verdict: Verdict, ended_at: Timestamp, git: Option<GitFacts>) {
        self.parts.open_turns.fetch_sub(1, Relaxed);
        self.tell(SessionNote::TurnEnded {
            session: self.id,
            report: Box::new(turn.report(verdict, ended_at, git)),
        });
    }

    /// The program has been ended, or it could not be. True when the session is over.
    pub(crate) fn ended(&mut self, proof: Result<StopProof, TerminalError>) -> bool {
        let asked =
            !self.enders.is_empty() || self.turn.as_ref().is_some_and(|turn| turn.cancel.is_cancelled());
        let proven = proof.as_ref().is_ok_and(StopProof::is_proven);
        if let Some(turn) = &mut self.turn {
            if !proven {
                let detail = match &proof {
                    Ok(proof) => format!(
                        "processes of the session could not be ended: {:?}",
                        proof.survivors
                    ),
                    Err(error) => format!("the session could not be ended: {error}"),
                };
                turn.signs.failure = Some((FailureClass::Other, detail));
            } else if asked || self.parts.control.is_closed() {
                turn.signs.ended_on_request = true;
            }
        }
        for ender in self.enders.drain(..) {
            let answer = match &proof {
                Ok(proof) => Ok(proof.clone()),
                Err(error) => Err(SessionError::NotEnded {
                    session: self.id,
                    reason: error.to_string(),
                }),
            };
            // Whoever asked may have gone.
            let _ = ender.send(answer);
        }
        let exited = self.parts.terminal.exited().borrow().is_some();
        if !exited {
            // It stays as it is, so that the end can be asked for again.
            self.ending = Ending::No;
        }
        exited
    }

    /// The last reports of a session whose program is gone.
    pub(crate) async fn finish(mut self) {
        while let Ok(body) = self.parts.hooks.try_recv() {
            self.hook(&body);
        }
        let exit = self.parts.terminal.exited().borrow().clone().unwrap_or(Exit {
            code: None,
            signal: None,
        });
        self.read_last_facts();
        let words = self.last_words();
        if let Some(mut turn) = self.turn.take() {
            turn.settle();
            turn.signs.exited = Some(exit.code);
            if let Some(verdict) = turn.signs.verdict() {
                let git = git_facts(&self.worktree, turn.head_before.as_deref()).await;
                let now = self.clock.now();
                self.tell_end(turn, verdict, now, git);
            }
        }
        self.parts.control.close();
        while let Ok(control) = self.parts.control.try_recv() {
            if let crate::handle::Control::Turn(queued) = control {
                self.queue.push_back(*queued);
            }
        }
        let why = match &words {
            Some(words) => {
                format!("the session ended before the prompt was sent; the agent program said: {words}")
            }
            None => "the session ended before the prompt was sent".to_owned(),
        };
        while let Some(queued) = self.queue.pop_front() {
            self.report_unsent(queued, &NotSubmitted::NotReady(why.clone()));
        }
        self.apply(&SessionEvent::Exited { code: exit.code });
        self.tell(SessionNote::Exited {
            session: self.id,
            exit: SessionExit {
                code: exit.code,
                signal: exit.signal,
                words,
            },
        });
        for note in self.outbox.drain(..) {
            let sent = timeout(LAST_NOTE_WAIT_MAX, self.parts.notes.send(note)).await;
            if !matches!(sent, Ok(Ok(()))) {
                tracing::warn!("nobody takes the last notes of a session");
                return;
            }
        }
    }

    /// What the program left on its screen when it ended without ever having been ready, or at a fault.
    fn last_words(&self) -> Option<String> {
        let screen = self.parts.terminal.screen();
        if let ScreenMeaning::Fault(words) = read_screen(&screen) {
            return Some(words);
        }
        if self.was_ready {
            return None;
        }
        let rows: Vec<&str> = screen
            .rows
            .iter()
            .map(|row| row.trim())
            .filter(|row| !row.is_empty())
            .collect();
        let last = rows[rows.len().saturating_sub(LAST_ROWS)..].join(" / ");
        (!last.is_empty()).then_some(last)
    }

    fn read_last_facts(&mut self) {
        let Some(turn) = &mut self.turn else { return };
        while let Ok(facts) = self.transcript.read() {
            if facts.is_empty() {
                return;
            }
            facts.into_iter().for_each(|fact| turn.fact(fact));
        }
    }
}

/// Ends the program: first its turn, so that it ends its own children, then the whole tree.
pub(crate) async fn end_program(terminal: &Terminal) -> Result<StopProof, TerminalError> {
    let busy = || matches!(read_screen(&terminal.screen()), ScreenMeaning::Busy(_));
    if terminal.exited().borrow().is_none() && busy() {
        let interrupt = async {
            terminal.write(claude::INTERRUPT).await?;
            while busy() {
                sleep(INTERRUPT_LOOK_EVERY).await;
            }
            Ok::<(), TerminalError>(())
        };
        // Best effort: what follows ends it in any case.
        let _ = timeout(INTERRUPT_WAIT, interrupt).await;
    }
    terminal.stop(STOP_GRACE).await
}

/// What git says, or nothing: not being able to check is inconclusive.
pub(crate) async fn git_facts(worktree: &Path, since: Option<&str>) -> Option<GitFacts> {
    match timeout(GIT_WAIT_MAX, worktree::facts(worktree, since)).await {
        Ok(Ok(facts)) => Some(facts),
        Ok(Err(error)) => {
            tracing::warn!(%error, "git could not be asked about the worktree");
            None
        }
        Err(_) => {
            tracing::warn!("git did not answer in time");
            None
        }
    }
}

//! Carrying turns to their reports, and the session to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use domain::Timestamp;
use domain::turn::{FailureClass, TurnOutcome, Verdict};
use provider::claude;
use provider::detect::{Detector, ScreenMeaning};
use terminal::{Exit, StopProof, Terminal, TerminalError};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::actor::{Actor, Carried, Done, Ending};
use crate::error::SessionError;
use crate::follow::{Finished, Follower, Observation, Witnesses};
use crate::git::{GitTold, git_told};
use crate::handle::{Control, QueuedTurn, STOP_GRACE};
use crate::report::{SessionExit, SessionNote, TurnReport, TurnTimings};
use crate::submission::NotSubmitted;

/// How long the program may take to stop its turn before it is ended.
const INTERRUPT_WAIT: Duration = Duration::from_millis(500);
/// How often that is looked at.
const INTERRUPT_LOOK_EVERY: Duration = Duration::from_millis(25);
/// Rows of the screen that are told about a program that ended before it was ready.
const LAST_ROWS: usize = 6;
/// Why a program has ended whose holder was killed.
const HOLDER_DIED: &str = "the process that held the agent's terminal (semo-holder) was killed or has failed, and the \
                           agent program was ended with it; nothing is done again by itself: look at its worktree, then \
                           send the prompt again";
/// How long the owner may take to receive one of the last notes.
const LAST_NOTE_WAIT_MAX: Duration = Duration::from_secs(5);

impl Actor {
    /// Decides whether the turn has ended. Evidence is gathered after the decision, and cannot change it.
    pub(crate) fn judge(&mut self) {
        if self.work.is_some() || self.ending == Ending::Running {
            return;
        }
        let ours = self.carried.as_ref().map(Carried::id);
        let mut verdict = None;
        // One of a person's own turn ends nothing of ours.
        while let Some((turn, decided)) = self.follower.next_verdict(self.at_ms()) {
            if turn.is_some() && turn == ours {
                verdict = Some(decided);
                break;
            }
        }
        self.sync();
        let (Some(verdict), Some(carried)) = (verdict, &self.carried) else {
            return;
        };
        tracing::info!(turn = %carried.id(), rule = verdict.rule, "turn ended");
        fail::fail_point!("judged");
        let ended_at = self.clock.now();
        let worktree = self.worktree.clone();
        let before = carried.before.clone();
        self.work = Some(Box::pin(async move {
            let git = git_told(&worktree, before).await;
            Done::Gathered {
                verdict,
                ended_at,
                git,
            }
        }));
    }

    /// The turn is over and its evidence is there.
    pub(crate) fn report(&mut self, verdict: &Verdict, ended_at: Timestamp, git: Option<GitTold>) {
        self.interrupt = None;
        let finished = self.follower.finish();
        self.sync();
        self.look_soon = true;
        // Without an end there is no report: it is carried on.
        if let Some(finished) = finished
            && let Some(carried) = self.carried.take()
        {
            debug_assert_eq!(finished.verdict, *verdict);
            self.tell_end(carried, finished, ended_at, git);
        }
    }

    /// A turn that ends without ever having been begun.
    pub(crate) fn report_unsent(&mut self, queued: QueuedTurn, why: &NotSubmitted) {
        // The running turn is not touched by it: it is judged on its own.
        let mut follower = Follower::new(Witnesses::ALL);
        follower.observe(0, Observation::Began(self.expected(&queued)));
        follower.observe(0, why.observation());
        if follower.verdict(0).is_some()
            && let Some(finished) = follower.finish()
        {
            let now = self.clock.now();
            self.tell_end(Carried::new(queued), finished, now, None);
        }
    }

    fn tell_end(&mut self, carried: Carried, finished: Finished, ended_at: Timestamp, git: Option<GitTold>) {
        self.parts.open_turns.fetch_sub(1, Relaxed);
        let mut evidence = finished.evidence;
        if let Some(git) = git {
            git.add_to(&mut evidence);
        }
        let submitted = carried.submitted;
        let entered = submitted.and_then(|submitted| submitted.entered);
        let report = TurnReport {
            turn: carried.id(),
            outcome: finished.verdict.outcome,
            final_message: finished.final_message,
            evidence,
            timings: TurnTimings {
                requested_at: carried.queued.requested_at,
                first_byte_at: entered.map(|entered| entered.first_byte_at),
                first_byte_after_us: entered.map(|entered| entered.first_byte_after_us),
                submitted_at: entered.map(|entered| entered.submitted_at),
                acknowledged_at: submitted.map(|submitted| submitted.acknowledged_at),
                ended_at,
            },
        };
        self.tell(SessionNote::TurnEnded {
            session: self.id,
            report: Box::new(report),
        });
    }

    /// The program has been ended, or it could not be. True when the session is over.
    pub(crate) fn ended(&mut self, proof: Result<StopProof, TerminalError>) -> bool {
        let asked = !self.enders.is_empty()
            || self
                .carried
                .as_ref()
                .is_some_and(|carried| carried.cancel.is_cancelled());
        match &proof {
            Ok(proof) if proof.is_proven() => {
                if asked || self.parts.control.is_closed() {
                    self.observe(Observation::EndedOnRequest);
                }
            }
            Ok(proof) => self.observe(Observation::NotEnded {
                why: format!(
                    "processes of the session could not be ended: {:?}",
                    proof.survivors
                ),
            }),
            Err(error) => self.observe(Observation::NotEnded {
                why: format!("the session could not be ended: {error}"),
            }),
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

    /// Nothing is begun any more in a session that was to be ended, also when that has failed.
    pub(crate) fn turn_down_queued(&mut self) {
        while let Some(queued) = self.queue.pop_front() {
            let why =
                "the session was to be ended, and its program has not ended yet; the prompt was not sent";
            self.report_unsent(queued, &NotSubmitted::NotReady(why.to_owned()));
        }
    }

    /// The last reports of a session whose program is gone.
    pub(crate) async fn finish(mut self) {
        while let Ok(hook) = self.parts.hooks.try_recv() {
            self.hook(hook);
        }
        let exit = self.parts.terminal.exited().borrow().clone().unwrap_or(Exit {
            code: None,
            signal: None,
        });
        self.read_last_conversation();
        self.read_last_facts();
        let words = self.last_words();
        self.observe(Observation::Exit(exit.code));
        if let Some(carried) = self.carried.take() {
            self.follower.settle_now(self.at_ms());
            // It may have been judged before, and its evidence was still being gathered.
            self.follower.verdict(self.at_ms());
            if let Some(mut finished) = self.follower.finish() {
                self.tell_of_holder(&mut finished);
                let git = git_told(&self.worktree, carried.before.clone()).await;
                let now = self.clock.now();
                self.tell_end(carried, finished, now, git);
            }
        }
        self.parts.control.close();
        while let Ok(control) = self.parts.control.try_recv() {
            match control {
                Control::Turn(queued) => self.queue.push_back(*queued),
                Control::Explain(reply) => {
                    // Whoever asked may have gone.
                    let _ = reply.send(self.explanation());
                }
                // Their callers see that nobody is left to answer.
                Control::Answer(_) | Control::Cancel(_) | Control::Detach(_) | Control::Terminate(_) => {}
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
        self.sync();
        self.tell(SessionNote::Exited {
            session: self.id,
            exit: SessionExit {
                code: exit.code,
                signal: exit.signal,
                wanted: self.end_wanted && self.resume_fault.is_none(),
                conversation: self.conversation_id().filter(|its| *its != self.id),
                words,
            },
        });
        self.tell_the_rest().await;
    }

    /// Where the program ended because its holder did, that is what a person has to know.
    fn tell_of_holder(&self, finished: &mut Finished) {
        if let TurnOutcome::Failed {
            class: FailureClass::ProviderExit,
            detail,
            ..
        } = &mut finished.verdict.outcome
            && *self.parts.terminal.lost().borrow()
        {
            *detail = HOLDER_DIED.to_owned();
        }
    }

    /// The last notes, for as long as their owner takes them.
    pub(crate) async fn tell_the_rest(&mut self) {
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
        if let Some(fault) = &self.resume_fault {
            return Some(fault.clone());
        }
        if *self.parts.terminal.lost().borrow() {
            return Some(HOLDER_DIED.to_owned());
        }
        let screen = self.parts.terminal.screen();
        if let ScreenMeaning::Fault(words) = self.detector.borrow().read(&screen).meaning {
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
        if self.carried.is_none() {
            return;
        }
        while let Ok(facts) = self.transcript.read() {
            if facts.is_empty() {
                return;
            }
            for fact in facts {
                self.observe(Observation::Fact(fact));
            }
        }
    }
}

/// Ends the program: first its turn, so that it ends its own children, then the whole tree.
pub(crate) async fn end_program(
    terminal: &Terminal,
    detector: &watch::Receiver<Arc<Detector>>,
) -> Result<StopProof, TerminalError> {
    let busy = || {
        let meaning = detector.borrow().read(&terminal.screen()).meaning;
        matches!(meaning, ScreenMeaning::Busy(_))
    };
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

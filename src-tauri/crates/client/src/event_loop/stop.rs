//! The ways to end the core. First nothing new is taken; then the running turns go to their ends, or are left to
//! their holders, or are interrupted. What happens meanwhile is written down like everything else: an end that comes
//! in while everything stops is no less true.

use std::time::Duration;

use domain::SessionId;
use tokio::time::Instant;

use super::ending::After;
use super::finish::End;
use super::{Event, EventLoop, Stage, Work};
use crate::stopping::StopHow;
use crate::view::EndingView;

/// How long a shutdown waits for sessions to be gone.
const SHUT_DOWN_WAIT: Duration = Duration::from_secs(15);
/// How long a leave waits for sessions to be let go, and for what is told to the office.
const LEAVE_WAIT: Duration = Duration::from_secs(10);
/// How long the office holds the commands of a core that has left their agents at work: as long as it gives a lease. An
/// agent that nobody comes back for is not kept from others for longer.
const LEFT_LEASE_S: u32 = 900;
/// How long the telling of that may take.
const LEASES_WAIT: Duration = Duration::from_secs(2);

impl EventLoop {
    /// Nothing new is taken any more.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_some() || self.ground.stop.is_cancelled()
    }

    /// The last stage: what runs ends now.
    pub(super) fn is_at_its_end(&self) -> bool {
        self.ground.stop.is_cancelled()
    }

    /// Somebody wants the core to end.
    pub(super) fn stop_wanted(&mut self) {
        let Some(how) = *self.wish.borrow_and_update() else {
            return;
        };
        if self.stopping == Some(how) {
            return;
        }
        tracing::info!(?how, "the core is to end");
        self.stopping = Some(how);
        self.changed = true;
        if how == StopHow::Finish {
            self.end_what_rests();
        }
    }

    /// The core ends by itself, and leaves everything to its holders: nothing is begun or taken from here on.
    pub(super) fn leave_now(&mut self) {
        let how = self
            .stopping
            .map_or(StopHow::Leave, |before| before.then(StopHow::Leave));
        if self.stopping != Some(how) {
            tracing::warn!(
                ?how,
                "another core has taken over; this one ends, and agents go on"
            );
            self.stopping = Some(how);
            self.changed = true;
        }
    }

    /// Whether the wish to end can be carried out now.
    pub(super) fn may_end(&self) -> bool {
        match self.stopping {
            None => false,
            Some(StopHow::Leave | StopHow::Now) => true,
            // What cannot be read is for the next start.
            Some(StopHow::Finish) => {
                let elsewhere = self.sessions.keys().any(|id| self.runs_elsewhere(*id));
                let runs = self.running().next().is_some() || elsewhere;
                !runs && (self.leftovers.unread || !self.is_recovering())
            }
        }
    }

    /// The work that has begun and goes to its end before a core that finishes ends.
    fn running(&self) -> impl Iterator<Item = &Work> {
        self.work.values().filter(|work| match work.stage {
            Stage::Turn { .. }
            | Stage::UntilEnded { .. }
            | Stage::UntilGone { .. }
            | Stage::Asking
            | Stage::Answering => true,
            Stage::Recovering
            | Stage::UntilSettled { .. }
            | Stage::UntilLetBegin
            | Stage::InLine
            | Stage::Starting { .. }
            | Stage::Ended => false,
        })
    }

    pub(super) fn ending_view(&self) -> Option<EndingView> {
        let turns = self
            .work
            .values()
            .filter(|work| matches!(work.stage, Stage::Turn { .. }));
        let elsewhere = self.sessions.keys().filter(|id| self.runs_elsewhere(**id));
        let turns = turns.count() + elsewhere.count();
        self.stopping.map(|how| EndingView {
            how,
            turns: u32::try_from(turns).unwrap_or(u32::MAX),
        })
    }

    /// While the last turns run: sessions without one end already.
    pub(super) fn end_what_rests(&mut self) {
        let busy: Vec<SessionId> = self.running().filter_map(|work| work.stage.session()).collect();
        let resting: Vec<SessionId> = self
            .sessions
            .keys()
            .copied()
            .filter(|id| !busy.contains(id) && !self.runs_elsewhere(*id))
            .collect();
        for id in resting {
            self.give_up(id, "the core is ending");
        }
    }

    pub(super) async fn shut_down(mut self) {
        if self.stopping == Some(StopHow::Leave) {
            self.leave_everything().await;
        } else {
            self.end_everything().await;
        }
        self.ground.stop.cancel();
        self.publish();
    }

    /// Leaves every session to its holder. Nothing is reported for what goes on; what has ended meanwhile is written
    /// down. A start or an end that is under way is waited for.
    async fn leave_everything(&mut self) {
        self.publish();
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.leave_session(id);
        }
        self.withdraw_asks_on_leaving();
        let keeping = self.keep_leases_for_a_while();
        let deadline = Instant::now() + LEAVE_WAIT;
        while !self.sessions.is_empty() || self.has_ask_news() {
            tokio::select! {
                biased;
                Some(note) = self.notes.recv() => self.take_note(note),
                Some(event) = self.events.recv() => self.handle_while_leaving(event),
                () = tokio::time::sleep_until(deadline) => {
                    tracing::warn!(sessions = self.sessions.len(), "not everything was left in order; the next start sees to it");
                    break;
                }
            }
        }
        while let Ok(note) = self.notes.try_recv() {
            self.take_note(note);
        }
        self.write_endings();
        self.keep_details();
        // Bounded by its own limit.
        keeping.await;
    }

    fn handle_while_leaving(&mut self, event: Event) {
        match event {
            Event::Opened { session, .. } => {
                self.handle(event);
                self.leave_session(session);
            }
            Event::Gone { .. }
            | Event::Detached { .. }
            | Event::TakenUp { .. }
            | Event::KeysPressed { .. }
            | Event::AnswerGiven(_)
            | Event::Reported { .. }
            | Event::Told { .. }
            | Event::AskTold { .. } => self.handle(event),
            _ => {}
        }
    }

    /// Leaves one session to its holder, in a task. One that is being looked for, or waits for a new program, stays as
    /// the journal has it; one whose end is under way is waited for.
    fn leave_session(&mut self, id: SessionId) {
        let unsettled = self.is_unsettled(id);
        let Some(live) = self.sessions.get_mut(&id) else {
            return;
        };
        if unsettled || live.resumes {
            self.detached(id);
        } else if let Some(session) = live.session.take() {
            self.start(async move {
                session.detach().await;
                Event::Detached { session: id }
            });
        }
    }

    /// It is its holder's now: the journal keeps it open for the next start.
    pub(super) fn detached(&mut self, id: SessionId) {
        self.keep_details();
        self.directory.remove(id);
        self.leftovers.leave(id);
        self.sessions.remove(&id);
    }

    /// Asks the office to hold the commands for us that go on: they are still carried out.
    fn keep_leases_for_a_while(&self) -> impl Future<Output = ()> + use<> {
        let goes_on: Vec<_> = self
            .work
            .values()
            .filter(|work| matches!(work.stage, Stage::Turn { .. }))
            .map(|work| (work.row.id, work.row.lease_token))
            .collect();
        let rest = self.ground.rest.clone();
        let tell = async move {
            for (command, token) in goes_on {
                if let Err(error) = rest.renew_lease(command, token, LEFT_LEASE_S).await {
                    tracing::debug!(%command, %error, "the office could not be told that a command goes on");
                }
            }
        };
        async move {
            let _ = tokio::time::timeout(LEASES_WAIT, tell).await;
        }
    }

    /// Ends everything: interrupts and reports what runs, proves every process gone. What has not begun stays in the
    /// journal as it is; its lease runs out and it is given out again.
    async fn end_everything(&mut self) {
        self.ground.stop.cancel();
        self.publish();
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            if self.sessions.get(&id).is_some_and(|live| live.resumes) {
                self.clear_place(id);
            }
            if self.is_unsettled(id) && !self.leftovers.is_looked_for(id) {
                // What holds it does not answer: it is for the next start.
                self.detached(id);
            }
            self.end_process(id, After::ClearAway);
        }
        let deadline = Instant::now() + SHUT_DOWN_WAIT;
        while !self.sessions.is_empty() || self.telling {
            tokio::select! {
                biased;
                // What a session says of its last turn comes before the news that it is gone.
                Some(note) = self.notes.recv() => self.take_note(note),
                Some(event) = self.events.recv() => match event {
                    Event::Gone { .. }
                    | Event::Opened { .. }
                    | Event::TakenUp { .. }
                    | Event::KeysPressed { .. }
                    | Event::AnswerGiven(_)
                    | Event::Reported { .. }
                    | Event::Told { .. }
                    | Event::AskTold { .. } => {
                        self.handle(event);
                    }
                    _ => {}
                },
                () = tokio::time::sleep_until(deadline) => {
                    tracing::error!(sessions = self.sessions.len(), "not everything ended in time");
                    break;
                }
            }
        }
        while let Ok(note) = self.notes.try_recv() {
            self.take_note(note);
        }
        // What depends on a holder that does not answer is for the next start to tell.
        let begun = |work: &&Work| work.started_at.is_some() && work.stage != Stage::Recovering;
        let held: Vec<_> = self.work.values().filter(begun).map(|work| work.row.id).collect();
        for id in held {
            self.end(id, End::unknown());
        }
        self.write_endings();
    }
}

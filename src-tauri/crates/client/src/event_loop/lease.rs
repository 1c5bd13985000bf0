//! Keeping the leases of what we hold, and asking the office before a command has its first effect. The rules are
//! `rules::lease`'s and `rules::desk`'s.

use domain::session::SessionState;
use domain::{CommandId, SessionId};
use serde_json::json;
use supabase::{BeginAnswer, ClaimedCommand, NO_SUCH_FUNCTION, Renewal, RestError};
use tokio::time::Instant;
use uuid::Uuid;

use super::finish::End;
use super::{Event, EventLoop, Stage, Work};
use crate::recovery::Deed;
use crate::rules::lease::{BeginStep, Means};
use crate::rules::moment::Moment;

impl Work {
    /// A command that has just come into our hands; its lease is the desk's.
    pub(super) fn new(row: ClaimedCommand, command: domain::Command) -> Work {
        Work {
            cancel_wanted: row.cancel_requested_at.is_some(),
            row,
            command,
            stage: Stage::InLine,
            started_at: None,
            cancelled_by: None,
            start_limit: None,
            passed_over: 0,
            waits_because: None,
        }
    }
}

impl EventLoop {
    /// Now, on both clocks.
    pub(super) fn moment(&self) -> Moment {
        Moment {
            at: Instant::now(),
            wall: self.now(),
        }
    }

    pub(super) fn renew_leases(&mut self) {
        if !self.speaks_as_itself() {
            return;
        }
        let lease_s = self.desk.lease_s();
        for (command, token) in self.desk.renew(self.moment()) {
            let rest = self.ground.rest.clone();
            self.start(async move {
                let result = rest.renew_lease(command, token, lease_s).await;
                Event::Renewed {
                    command,
                    token,
                    result,
                }
            });
        }
    }

    pub(super) fn renewed(&mut self, command: CommandId, token: Uuid, result: Result<Renewal, RestError>) {
        if let Err(error) = &result {
            tracing::warn!(%command, %error, "a lease could not be renewed; the work goes on");
        }
        let now = self.moment();
        let means = self.desk.renewed(command, token, result.ok(), now);
        self.follow_lease(command, means);
    }

    /// Before the first effect of a prompt: whether the office knows that we begin it. If not, the command waits for that
    /// with its session, and is submitted when the answer is here.
    pub(super) fn may_begin(&mut self, id: CommandId, session: SessionId) -> bool {
        if self.has_turn(session) {
            // Its end hands the session over.
            self.wait_for_start(id, session);
            return false;
        }
        if self.office_lets_begin(id) {
            return true;
        }
        let is_open = |work: &Work| work.stage != Stage::Ended;
        if self.work.get(&id).is_some_and(is_open) {
            self.wait_for_start(id, session);
        }
        false
    }

    /// Whether the office's word is here that this command may be begun. If not, it is asked, or its answer is awaited;
    /// a command whose time is over ends.
    pub(super) fn office_lets_begin(&mut self, id: CommandId) -> bool {
        match self.desk.begin(id, self.moment()) {
            BeginStep::Go => return true,
            BeginStep::Ask { token } => self.ask_to_begin(id, token),
            BeginStep::Wait => {}
            BeginStep::Expired => self.end_expired(id),
        }
        false
    }

    /// Before a session is made for the command that asks for one: the same. Without the office's word it stays in line.
    /// With it, it is noted as begun: lost from here on, it is not let go as if it had never come.
    pub(super) fn may_make_session(&mut self, id: CommandId) -> bool {
        if !self.office_lets_begin(id) {
            return false;
        }
        let began_before = self.work.get(&id).is_some_and(|work| work.started_at.is_some());
        began_before || self.mark_started(id)
    }

    /// Carries out what had to wait for its session to be found: what has an effect at once only behind the office's
    /// word, since it may be expired by now, or somebody else's. A prompt asks for itself, and reading does no harm.
    pub(super) fn carry_out_late(&mut self, id: CommandId) {
        let Some(work) = self.work.get(&id) else { return };
        let asks = match Deed::of(&work.command) {
            Deed::Prompt | Deed::Read => false,
            Deed::Create | Deed::Terminate | Deed::CancelCommand | Deed::CancelTurn | Deed::Keys => true,
        };
        if !asks || self.office_lets_begin(id) {
            self.wait_for(id, Stage::InLine);
            self.carry_out(id);
        }
    }

    /// Asks early, while the session is looked at.
    pub(super) fn ask_to_begin_early(&mut self, id: CommandId) {
        self.office_lets_begin(id);
    }

    pub(super) fn ask_to_begin(&mut self, command: CommandId, token: Uuid) {
        let (rest, folder, lease_s) = (self.ground.rest.clone(), self.folder(), self.desk.lease_s());
        self.start(async move {
            let result = match rest.begin_command(command, token, lease_s, folder).await {
                // A database of before takes it without the folder; the claim tells that to people.
                Err(RestError::NotFound { code, .. }) if code == NO_SUCH_FUNCTION && folder.is_some() => {
                    rest.begin_command(command, token, lease_s, None).await
                }
                answered => answered,
            };
            Event::BeginAnswered {
                command,
                token,
                result,
            }
        });
    }

    pub(super) fn begin_answered(
        &mut self,
        command: CommandId,
        token: Uuid,
        result: Result<BeginAnswer, RestError>,
    ) {
        match &result {
            Ok(_) => self.solved("office_begins"),
            Err(RestError::NotFound { code, .. }) if code == NO_SUCH_FUNCTION => {
                let message =
                    "the office's database does not know `begin_command`: prompts and new sessions wait";
                let hint = "Apply the files of migrations/supabase to the project anew, from 0003 on.";
                self.problem("office_begins", message, hint);
            }
            Err(error) => {
                tracing::warn!(%command, %error, "the office could not be asked; it is asked again")
            }
        }
        let now = self.moment();
        let means = self.desk.begin_answered(command, token, result.ok(), now);
        self.follow_lease(command, means);
    }

    pub(super) fn follow_lease(&mut self, command: CommandId, means: Means) {
        match means {
            Means::GoOn => {}
            Means::Proceed => self.proceed(command),
            Means::Cancel => {
                self.cancel_work(command, json!({ "way": "office" }));
                // A cancel that an earlier core had begun is ours all the same, and goes on.
                self.lease_is_ours(command);
            }
            Means::Expired => self.end_expired(command),
            Means::Doubt => {
                tracing::warn!(%command, "the lease is lost; a claim shows whether it comes back to us");
            }
        }
        self.claim_what_was_wished();
    }

    pub(super) fn end_expired(&mut self, id: CommandId) {
        self.end(id, End::failed("expired", "it expired before it could be begun"));
    }

    /// Goes on with a command that waited for the office's word, where nothing else keeps it.
    pub(super) fn proceed(&mut self, id: CommandId) {
        self.lease_is_ours(id);
        if self.is_stopping() {
            return;
        }
        let session = match self.work.get(&id).map(|work| work.stage.clone()) {
            Some(Stage::Starting { session }) => session,
            Some(Stage::UntilLetBegin) => return self.carry_out_late(id),
            Some(Stage::InLine) => return self.advance_line(),
            Some(
                Stage::Recovering
                | Stage::UntilSettled { .. }
                | Stage::Turn { .. }
                | Stage::UntilEnded { .. }
                | Stage::Asking
                | Stage::Answering
                | Stage::UntilGone { .. }
                | Stage::Ended,
            )
            | None => return,
        };
        // While it starts, works or stops, the end of that goes on with what waits for it.
        if self
            .sessions
            .get(&session)
            .is_some_and(|live| live.state == SessionState::Idle)
        {
            self.session_is_idle(session);
        }
    }

    /// A command of ours has its turn in this session.
    fn has_turn(&self, session: SessionId) -> bool {
        self.work
            .values()
            .any(|work| matches!(work.stage, Stage::Turn { session: its, .. } if its == session))
    }

    /// A command has left this session: those that wait for it go on where it rests already.
    pub(super) fn hand_over_rested(&mut self, session: SessionId) {
        let rests = self
            .sessions
            .get(&session)
            .is_some_and(|live| live.state == SessionState::Idle);
        if rests && !self.waiting_for_start(session).is_empty() {
            self.session_is_idle(session);
        }
    }

    /// Asks again what was asked in vain.
    pub(super) fn ask_to_begin_again(&mut self) {
        for id in self.desk.ask_again(self.moment()) {
            self.proceed(id);
        }
    }

    /// After a claim: what was lost and has not come back is somebody else's now, or over. Work that has begun is
    /// stopped, and its result will count as late; what has not is let go, so that it is new should it come back.
    pub(super) fn stop_lost_work(&mut self) {
        for command in self.desk.lost() {
            let untouched = self
                .work
                .get(&command)
                .is_some_and(|work| work.started_at.is_none() && work.stage != Stage::Ended);
            let let_go = if untouched {
                self.ground.journal.let_go(command)
            } else {
                Ok(false)
            };
            tracing::warn!(%command, ?let_go, "the lease is lost for good");
            match let_go {
                Ok(true) => self.let_go(command),
                // It stands begun in the journal, and here it waits: whoever has it now knows more.
                Ok(false) if self.waits_begun(command) => {
                    let why = "its lease was lost after it had been begun; what came of it is not known here";
                    self.leftovers.forget(command);
                    self.end(command, End::unknown_because(why));
                }
                Ok(false) => {
                    self.cancel_work(command, json!({ "way": "lease_lost" }));
                    self.lease_is_not_ours(command);
                }
                // Nothing of it begins as it is; it is looked at again after the next claim.
                Err(error) => self.problem("journal", error.to_string(), ""),
            }
        }
    }

    /// Nothing of it is under way here, where it waits for its turn or for its session.
    fn waits_begun(&self, id: CommandId) -> bool {
        self.work.get(&id).is_some_and(|work| match work.stage {
            Stage::InLine | Stage::Starting { .. } | Stage::UntilSettled { .. } | Stage::UntilLetBegin => {
                true
            }
            Stage::Recovering => self.has_had_no_effect(id),
            Stage::Turn { .. }
            | Stage::UntilEnded { .. }
            | Stage::Asking
            | Stage::Answering
            | Stage::UntilGone { .. }
            | Stage::Ended => false,
        })
    }

    /// It is out of our hands, as if it had never come.
    pub(super) fn let_go(&mut self, id: CommandId) {
        let session = self.work.remove(&id).and_then(|work| work.stage.session());
        self.desk.release(id);
        self.leftovers.forget(id);
        self.line.retain(|waiting| *waiting != id);
        for live in self.sessions.values_mut().filter(|live| live.holder == Some(id)) {
            live.holder = None;
        }
        self.changed = true;
        self.release_waiters(id);
        if let Some(session) = session {
            self.hand_over_rested(session);
        }
        self.advance_line();
    }
}

//! What becomes of each command that an earlier core had in its hands: `crate::recovery::fate` decides, here it is
//! carried out. A command is begun again only when the office has said that its lease is still ours.

use std::collections::HashMap;

use domain::evidence::{Evidence, Tier};
use domain::turn::{FailureClass, TurnOutcome, TurnStage};
use domain::{Command, CommandId, SessionId, TurnId};
use journal::{Phase, Recovery, TurnEnd, TurnRow};
use serde_json::json;
use session::{LeftJudgement, NEVER_ENTERED, TurnReport, WhichTurn};

use super::finish::End;
use super::recover::LeftCommand;
use super::{EventLoop, Stage, Work};
use crate::recovery::{Deed, Fate, Left, Said, Whereabouts, fate};

/// What the transcript said of the turns of a session.
pub(crate) type Judged = HashMap<TurnId, LeftJudgement>;

/// The rule under which a turn is closed whose effect cannot be known.
const CORE_ENDED: &str = "core-ended";

impl EventLoop {
    /// Decides on everything that depended on this session, in the order in which it came.
    pub(super) fn settle_commands_of(&mut self, session: SessionId, found: Whereabouts, mut judged: Judged) {
        let its = |(id, left): (&CommandId, &LeftCommand)| {
            let seq = self.work.get(id).map(|work| work.row.seq)?;
            (left.session == Some(session) && left.goes_on.is_none()).then_some((seq, *id))
        };
        let mut commands: Vec<_> = self.leftovers.commands.iter().filter_map(its).collect();
        commands.sort_unstable();
        for (_, id) in commands {
            let turn = self
                .leftovers
                .commands
                .get(&id)
                .and_then(|left| left.turn.as_ref());
            let judgement = turn.and_then(|turn| judged.remove(&turn.turn.id));
            self.settle_command(id, found, judgement);
        }
    }

    /// Decides on one command.
    pub(super) fn settle_command(
        &mut self,
        id: CommandId,
        session: Whereabouts,
        judgement: Option<LeftJudgement>,
    ) {
        let Some(known) = self.leftovers.commands.get(&id) else {
            return;
        };
        let left = Left {
            deed: known.deed,
            phase: known.phase,
            turn: match known.deed {
                Deed::CancelTurn => known.session.and_then(|session| self.turn_in(session)),
                _ => known.turn.as_ref().map(|turn| turn.stage),
            },
            // A turn that was judged beside a program that lives is over, whatever runs in it now.
            session: if judgement.is_some() {
                Whereabouts::Gone
            } else {
                session
            },
            said: match &judgement {
                Some(LeftJudgement::Reported(_)) => Said::Ended,
                Some(LeftJudgement::NotStarted) => Said::NotStarted,
                Some(LeftJudgement::Unknown(_)) | None => Said::Nothing,
            },
        };
        let fate = fate(&left);
        tracing::info!(command = %id, ?left, ?fate, "what becomes of a command of an earlier core");
        match fate {
            Fate::Report => self.report_left(id, judgement),
            Fate::Follow => self.follow_left(id),
            Fate::RunAgain => self.when_lease_is_ours(id, Fate::RunAgain),
            Fate::Unknown => self.ends_unknown(id, judgement),
            Fate::Wait => {}
        }
    }

    /// The stage of the turn that a command of ours has open in this session.
    fn turn_in(&self, session: SessionId) -> Option<TurnStage> {
        let runs = self
            .work
            .values()
            .any(|work| matches!(work.stage, Stage::Turn { session: its, .. } if its == session));
        runs.then_some(TurnStage::Taken)
    }

    fn report_left(&mut self, id: CommandId, judgement: Option<LeftJudgement>) {
        let Some(left) = self.leftovers.commands.remove(&id) else {
            return;
        };
        self.note_fate(id, Recovery::Reported);
        let gone = |session| json!({ "session_id": session, "note": "it had ended when SEMO Office was started again" });
        match (left.deed, left.session, judgement) {
            (Deed::Prompt, Some(session), Some(LeftJudgement::Reported(report))) => {
                self.end(id, End::of_turn(*report, session));
            }
            // Its end is the session's readiness, which may have come.
            (Deed::Create, Some(session), _) => {
                if let Some(live) = self.sessions.get_mut(&session) {
                    live.holder.get_or_insert(id);
                }
                self.wait_for_start(id, session);
                if self
                    .sessions
                    .get(&session)
                    .is_some_and(super::seats::Live::is_idle_now)
                {
                    self.session_is_idle(session);
                }
            }
            (_, session, _) => self.end(id, End::ok(gone(session))),
        }
    }

    fn follow_left(&mut self, id: CommandId) {
        let Some(left) = self.leftovers.commands.get(&id) else {
            return;
        };
        match (left.deed, left.session, &left.turn) {
            (Deed::Prompt, Some(session), Some(turn)) => {
                let turn = turn.turn.id;
                self.leftovers.commands.remove(&id);
                self.note_fate(id, Recovery::Followed);
                self.follow_turn(id, session, turn);
            }
            (Deed::Terminate, Some(session), _) => {
                self.leftovers.commands.remove(&id);
                self.note_fate(id, Recovery::Followed);
                self.wait_for(id, Stage::UntilGone { session });
                self.give_up(session, "a command had asked for its end");
            }
            // These have to speak to the office, or to the turn that is only now known to run.
            (Deed::CancelCommand | Deed::CancelTurn, ..) => self.when_lease_is_ours(id, Fate::Follow),
            (Deed::Prompt | Deed::Terminate | Deed::Create | Deed::Keys | Deed::Read, ..) => {
                self.ends_unknown(id, None);
            }
        }
    }

    fn follow_turn(&mut self, id: CommandId, session: SessionId, turn: TurnId) {
        if let Some(live) = self.sessions.get_mut(&session) {
            live.holder = Some(id);
            live.talked = true;
            live.start_deadline = None;
        }
        let Some(work) = self.work.get_mut(&id) else {
            return;
        };
        work.stage = Stage::Turn { session, turn };
        if work.cancel_wanted {
            let handle = self.sessions.get(&session).and_then(|live| live.session.clone());
            if let Some(Err(error)) = handle.map(|handle| handle.cancel(WhichTurn::Id(turn))) {
                tracing::warn!(command = %id, %error, "a turn could not be cancelled; its end will tell");
            }
        }
    }

    /// Goes on at once where the office has said that the lease is ours, else when it says so.
    fn when_lease_is_ours(&mut self, id: CommandId, goes_on: Fate) {
        let Some(left) = self.leftovers.commands.get_mut(&id) else {
            return;
        };
        left.goes_on = Some(goes_on);
        self.go_on(id);
    }

    /// The office says that this command's lease is ours. Nothing to a command that this core has claimed itself.
    pub(super) fn lease_is_ours(&mut self, id: CommandId) {
        let Some(left) = self.leftovers.commands.get_mut(&id) else {
            return;
        };
        left.lease_is_ours = true;
        self.go_on(id);
    }

    /// The lease is lost for good for which a cancel of an earlier core has waited: whether its wish was passed on before
    /// cannot be known, and it is not passed on now.
    pub(super) fn lease_is_not_ours(&mut self, id: CommandId) {
        let follows = |left: &LeftCommand| left.goes_on == Some(Fate::Follow);
        if self.leftovers.commands.get(&id).is_some_and(follows) {
            self.ends_unknown(id, None);
        }
    }

    /// The office is joined, or the agent program was looked for: what waited for that goes on.
    pub(super) fn go_on_with_what_is_ours(&mut self) {
        let seq = |id: &CommandId| self.work.get(id).map(|work| work.row.seq);
        let mut ready: Vec<_> = self.leftovers.commands.keys().map(|id| (seq(id), *id)).collect();
        ready.sort_unstable();
        for (_, id) in ready {
            self.go_on(id);
        }
    }

    /// Goes on with a command whose lease is ours, as soon as it can be begun as any other.
    fn go_on(&mut self, id: CommandId) {
        let ready = |left: &LeftCommand| left.lease_is_ours && left.goes_on.is_some();
        let waits = !self.leftovers.commands.get(&id).is_some_and(ready);
        if waits || !self.program_looked_for || self.is_stopping() {
            return;
        }
        let (Some(data), Some(work)) = (&self.office, self.work.get(&id)) else {
            return;
        };
        if data.office.id != work.row.office_id {
            // Its office is not served now: it is given out again there, or taken up when it is served.
            tracing::info!(command = %id, "a command of another office is let go");
            self.work.remove(&id);
            self.desk.release(id);
            self.leftovers.forget(id);
            return;
        }
        let Some(left) = self.leftovers.commands.remove(&id) else {
            return;
        };
        match left.goes_on {
            Some(Fate::RunAgain) => self.run_again(id, &left),
            Some(Fate::Follow) => self.cancel_again(id, &left),
            Some(Fate::Report | Fate::Unknown | Fate::Wait) | None => {}
        }
    }

    /// Nothing of it has had an effect: it is begun as if it had just come.
    fn run_again(&mut self, id: CommandId, left: &LeftCommand) {
        let Some(work) = self.work.get(&id) else { return };
        let (row, started) = (work.row.clone(), left.phase == Phase::Started);
        match left.deed {
            // A prompt asks before it is submitted; reading does no harm.
            Deed::Prompt | Deed::Read => {}
            Deed::Create | Deed::Terminate | Deed::CancelCommand | Deed::CancelTurn | Deed::Keys => {
                if !self.left_may_begin(id, left) {
                    return;
                }
            }
        }
        if let Some(turn) = &left.turn
            && !self.close_turn(turn, &never_entered(turn.turn.id))
        {
            return self.ends_unknown_now(id, left, None);
        }
        self.note_fate(id, Recovery::RunAgain);
        if started {
            self.leftovers.never_entered.insert(id);
        }
        self.open_command(row);
    }

    /// Whether the office has said that this command may be begun now: it knows whether it has expired, or is somebody
    /// else's. If not, it is asked, and the command goes on with the answer.
    fn left_may_begin(&mut self, id: CommandId, left: &LeftCommand) -> bool {
        self.leftovers.commands.insert(id, left.clone());
        let may = self.office_lets_begin(id);
        let is_open = |work: &Work| work.stage != Stage::Ended;
        if may || !self.work.get(&id).is_some_and(is_open) {
            self.leftovers.commands.remove(&id);
        }
        may
    }

    /// Whether a turn turned out not to have reached the agent, so that it can be begun anew: one of an earlier core, or
    /// one before whose Enter the machine slept. Once; whatever keeps it from the agent a second time may do so for ever.
    pub(super) fn was_never_entered(&self, id: CommandId, report: &TurnReport) -> bool {
        self.leftovers.fate_of(id) != Some(Recovery::RunAgain)
            && report.evidence.rule == NEVER_ENTERED
            && matches!(
                report.outcome,
                TurnOutcome::Failed {
                    class: FailureClass::NotSubmitted,
                    ..
                }
            )
    }

    /// The prompt of a turn never reached the agent: its command is begun anew, with the office's word.
    pub(super) fn goes_back(&mut self, id: CommandId, session: SessionId, turn: TurnId) {
        if let Err(error) = self.ground.journal.end_turn(&never_entered(turn), self.now()) {
            self.problem("journal", error.to_string(), "");
            return self.end(id, End::unknown());
        }
        let Some(work) = self.work.get_mut(&id) else {
            return;
        };
        work.stage = Stage::Recovering;
        let cancel_wanted = work.cancel_wanted;
        for live in self.sessions.values_mut().filter(|live| live.holder == Some(id)) {
            live.holder = None;
        }
        if cancel_wanted {
            return self.end(id, End::cancelled("it was cancelled before it was begun"));
        }
        let left = LeftCommand {
            phase: Phase::Started,
            deed: Deed::Prompt,
            turn: None,
            session: Some(session),
            // Nothing is submitted before the office has said so.
            lease_is_ours: true,
            goes_on: Some(Fate::RunAgain),
        };
        self.leftovers.commands.insert(id, left);
        self.go_on(id);
    }

    /// A cancel is passed on once more: to the turn that is followed, or to the office.
    fn cancel_again(&mut self, id: CommandId, left: &LeftCommand) {
        self.note_fate(id, Recovery::Followed);
        let Some(Command::Cancel(args)) = self.work.get(&id).map(|work| work.command.clone()) else {
            return self.end(id, End::unknown());
        };
        match (args.command, left.session) {
            (Some(target), _) => self.cancel_command(id, target),
            (None, Some(session)) if self.turn_in(session).is_some() => self.cancel_in(id, session),
            (None, session) => {
                let note = "the turn that was to be interrupted has ended";
                self.end(id, End::ok(json!({ "session_id": session, "note": note })));
            }
        }
    }

    /// Whether it had an effect cannot be known, and that is told with what is known.
    pub(super) fn ends_unknown(&mut self, id: CommandId, judgement: Option<LeftJudgement>) {
        if let Some(left) = self.leftovers.commands.remove(&id) {
            self.ends_unknown_now(id, &left, judgement);
        }
    }

    fn ends_unknown_now(&mut self, id: CommandId, left: &LeftCommand, judgement: Option<LeftJudgement>) {
        self.note_fate(id, Recovery::Unknown);
        let mut evidence = match judgement {
            Some(LeftJudgement::Unknown(evidence)) => evidence,
            Some(LeftJudgement::Reported(_) | LeftJudgement::NotStarted) | None => Evidence::default(),
        };
        if evidence.rule.is_empty() {
            evidence.rule = CORE_ENDED.to_owned();
        }
        let stage = left.turn.as_ref().map(|turn| turn.stage);
        if let Some(stage) = stage {
            evidence.add("how_far", json!(stage), Tier::Observed, "journal");
        }
        if let Some(session) = left.session {
            self.add_place(&mut evidence, session);
        }
        let end = End::unknown();
        let why = end.reason().unwrap_or_default();
        let turn = left.turn.as_ref().map(|turn| TurnEnd {
            turn: turn.turn.id,
            outcome: TurnOutcome::Unconfirmed { why },
            rule: evidence.rule.clone(),
        });
        self.end(
            id,
            End {
                turn,
                evidence: Some(evidence),
                ..end
            },
        );
    }

    /// Where to look for what became of it. What was not committed in the worktree is kept under the session's id.
    fn add_place(&self, evidence: &mut Evidence, session: SessionId) {
        let Ok(Some(row)) = self.ground.journal.session(session) else {
            return;
        };
        for (what, value) in [
            ("session", json!(row.id)),
            ("repository", json!(row.repository)),
            ("branch", json!(row.branch)),
            ("worktree", json!(row.worktree)),
        ] {
            evidence.add(what, value, Tier::Observed, "journal");
        }
    }

    /// Turns of nobody's command. One of a command that is in our hands, or waits for its account, ends with it: closed before, it would make a
    /// prompt whose end the journal has not taken yet look like one that was never entered.
    pub(super) fn close_turns(&mut self, turns: &[TurnRow]) {
        let is_ours = |turn: &&TurnRow| {
            let command = turn.turn.command;
            let waits = self.elsewhere.has(turn.turn.id);
            waits || command.is_some_and(|command| self.work.contains_key(&command))
        };
        let over: Vec<TurnRow> = turns.iter().filter(|turn| !is_ours(turn)).cloned().collect();
        for turn in over {
            let end = TurnEnd {
                turn: turn.turn.id,
                outcome: TurnOutcome::Unconfirmed {
                    why: "SEMO Office ended while it ran".to_owned(),
                },
                rule: CORE_ENDED.to_owned(),
            };
            // One that has ended keeps the end that it has.
            self.close_turn(&turn, &end);
        }
    }

    fn close_turn(&mut self, turn: &TurnRow, end: &TurnEnd) -> bool {
        match self.ground.journal.end_turn(end, self.ground.clock.now()) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(turn = %turn.turn.id, %error, "the end of a turn is not in the journal");
                false
            }
        }
    }

    /// Notes what became of a command, for `semo status --journal` and the windows.
    fn note_fate(&mut self, id: CommandId, fate: Recovery) {
        self.leftovers.fates.insert(id, fate);
        self.changed = true;
        if let Err(error) = self.ground.journal.note_recovered(id, fate) {
            tracing::warn!(command = %id, %error, "what became of a command is not in the journal");
        }
    }

    /// A command of a version that kept less than is needed to follow it.
    pub(super) fn finish_unknown(&mut self, id: CommandId) {
        let finish = journal::Finish {
            command: id,
            result: End::unknown().result(),
            turn: None,
        };
        if let Err(error) = self.ground.journal.finish(&finish, self.ground.clock.now()) {
            self.problem("journal", error.to_string(), "");
        }
        self.note_fate(id, Recovery::Unknown);
    }
}

pub(super) fn never_entered(turn: TurnId) -> TurnEnd {
    TurnEnd {
        turn,
        outcome: TurnOutcome::Failed {
            class: FailureClass::NotSubmitted,
            detail: "SEMO Office ended before the prompt reached the agent; it was sent again".to_owned(),
            retry_at: None,
        },
        rule: NEVER_ENTERED.to_owned(),
    }
}

//! Work of an account that is not served now: its commands stay in the journal as they are, nobody is asked about their
//! leases and nobody hears of them. What an agent still does for one goes on; its end is written down for the account
//! whose it is, and sent when that one is served again.

use std::collections::BTreeMap;

use domain::turn::TurnStage;
use domain::{CommandId, SessionId, TurnId};
use journal::{Finish, InboxRow, JournalError, TurnRow};
use session::{LeftJudgement, TurnReport};

use super::EventLoop;
use super::finish::End;
use super::settle::{Judged, never_entered};
use crate::recovery::is_of_another_account;
use crate::served::{COUNTED_MAX, served};

/// Turns of such commands.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    turns: BTreeMap<TurnId, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    command: CommandId,
    session: SessionId,
    /// Its prompt may be with the agent, and its session follows it if that is found.
    runs: bool,
}

impl Elsewhere {
    pub(super) fn has(&self, turn: TurnId) -> bool {
        self.turns.contains_key(&turn)
    }

    fn command_of(&self, turn: TurnId) -> Option<CommandId> {
        self.turns.get(&turn).map(|waiting| waiting.command)
    }

    /// The command whose turn runs in this session.
    fn running_in(&self, id: SessionId) -> Option<CommandId> {
        let mut all = self.turns.values();
        let its = all.find(|waiting| waiting.runs && waiting.session == id);
        its.map(|waiting| waiting.command)
    }
}

impl EventLoop {
    /// Whom this core serves, as the journal has it.
    pub(super) fn served(&self) -> String {
        let ground = &self.ground;
        served(ground.settings.profile, &ground.project, &ground.account.email)
    }

    /// Whether what is asked now is asked as the account that is served. Nobody is asked as somebody else, who may have
    /// signed in on this machine meanwhile.
    pub(super) fn speaks_as_itself(&self) -> bool {
        let email = self.ground.auth.email();
        email.is_some_and(|email| email.eq_ignore_ascii_case(&self.ground.account.email))
    }

    /// Whether somebody else than the account that is served is known to be signed in.
    pub(super) fn is_somebody_elses(&self) -> bool {
        self.ground.auth.email().is_some() && !self.speaks_as_itself()
    }

    /// Results of the account that is served which its office has not answered yet, also of an earlier core.
    pub(super) fn results_waiting(&self) -> Result<usize, JournalError> {
        let waiting = self
            .ground
            .journal
            .unanswered(Some(&self.served()), COUNTED_MAX)?;
        Ok(waiting.len().max(self.reporting.len()))
    }

    /// Leaves a command of another account to the journal. False: it is not one.
    pub(super) fn leave_to_its_account(&mut self, row: &InboxRow, turns: &[TurnRow]) -> bool {
        if !is_of_another_account(row, &self.served()) {
            return false;
        }
        let id = row.command.id;
        tracing::info!(command = %id, phase = ?row.phase, "a command of an account that is not served now waits for it");
        let its = turns.iter().filter(|turn| turn.turn.command == Some(id));
        let its = its.map(|turn| {
            let waiting = Waiting {
                command: id,
                session: turn.turn.session,
                runs: turn.stage != TurnStage::Begun,
            };
            (turn.turn.id, waiting)
        });
        self.elsewhere.turns.extend(its);
        true
    }

    /// A session was looked for: what was found of turns of another account is written down for it. What cannot be told
    /// stays open for the start that serves it.
    pub(super) fn keep_what_was_judged_elsewhere(&mut self, session: SessionId, judged: &mut Judged) {
        let known: Vec<TurnId> = judged
            .keys()
            .copied()
            .filter(|turn| self.elsewhere.has(*turn))
            .collect();
        for turn in known {
            let found = judged.remove(&turn);
            let Some(command) = self.elsewhere.command_of(turn) else {
                continue;
            };
            match found {
                Some(LeftJudgement::Reported(report)) => self.ended_elsewhere(command, session, *report),
                Some(LeftJudgement::NotStarted) => self.not_entered_elsewhere(turn),
                Some(LeftJudgement::Unknown(_)) | None => {
                    if let Some(waiting) = self.elsewhere.turns.get_mut(&turn) {
                        waiting.runs = false;
                    }
                }
            }
        }
    }

    /// It runs: no other command gets its session before the turn of another account in it has ended.
    pub(super) fn hold_for_elsewhere(&mut self, id: SessionId) {
        if let Some(command) = self.elsewhere.running_in(id)
            && let Some(live) = self.sessions.get_mut(&id)
        {
            live.holder.get_or_insert(command);
            live.talked = true;
            live.start_deadline = None;
        }
    }

    /// Whether a turn of another account runs in this session: a core that finishes lets it go to its end.
    pub(super) fn runs_elsewhere(&self, id: SessionId) -> bool {
        let runs = self.sessions.get(&id).is_some_and(|live| live.session.is_some());
        runs && self.elsewhere.running_in(id).is_some()
    }

    /// A turn ended that no command here waits for. Gives the report back where it is of no other account either.
    pub(super) fn keep_if_elsewhere(&mut self, session: SessionId, report: TurnReport) -> Option<TurnReport> {
        let turn = report.turn;
        let Some(command) = self.elsewhere.command_of(turn) else {
            return Some(report);
        };
        if self.was_never_entered(command, &report) {
            self.not_entered_elsewhere(turn);
        } else {
            self.ended_elsewhere(command, session, report);
        }
        for live in self
            .sessions
            .values_mut()
            .filter(|live| live.holder == Some(command))
        {
            live.holder = None;
        }
        None
    }

    /// What the journal does not take is found again in the transcript by the start that serves its account.
    fn ended_elsewhere(&mut self, command: CommandId, session: SessionId, report: TurnReport) {
        let turn = report.turn;
        let end = End::of_turn(report, session);
        let finish = Finish {
            command,
            result: end.result(),
            turn: end.turn.clone(),
        };
        self.elsewhere.turns.remove(&turn);
        match self.ground.journal.finish(&finish, self.ground.clock.now()) {
            Ok(_) => {
                tracing::info!(%command, outcome = end.outcome, "a command of another account ended; its result waits for it");
            }
            Err(error) => self.problem("journal", error.to_string(), ""),
        }
    }

    /// The prompt never reached its agent: the start that serves its account begins it anew.
    fn not_entered_elsewhere(&mut self, turn: TurnId) {
        self.elsewhere.turns.remove(&turn);
        let end = never_entered(turn);
        if let Err(error) = self.ground.journal.end_turn(&end, self.ground.clock.now()) {
            self.problem("journal", error.to_string(), "");
        }
    }
}

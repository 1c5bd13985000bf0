//! What the commands without a turn do at a workstation: sessions that are made and ended, and cancels.

use domain::CommandId;
use uuid::Uuid;

use super::Breach;
use super::office::{Cancel, State};
use super::paper::{End, Says};
use super::workstation::{Seat, Stage, deed_of, end};
use super::world::{Ended, Event, Question, Who, World};
use crate::recovery::Deed;

/// What is said of a cancel: that it was passed on. What came of it is told by what it was to stop.
const PASSED_ON: End = End {
    status: State::Succeeded,
    says: Says::Unknown,
};

impl World {
    pub fn carry_out(&mut self, who: Who, id: CommandId) {
        let Some(row) = self.stations[who].work.get(&id).map(|work| work.row.clone()) else {
            return;
        };
        let deed = deed_of(&row);
        let session = row.session_id.map(|session| session.0);
        if let Some(session) = session.filter(|session| deed != Deed::Prompt && self.is_silent(who, *session))
        {
            return self.set_stage(who, id, Stage::UntilSettled { session });
        }
        match (deed, session) {
            (Deed::Prompt, Some(session)) => self.use_session(who, id, session),
            (Deed::Prompt, None) | (Deed::Create, _) => self.advance_line(who),
            (Deed::Keys, Some(session)) => self.keys(who, id, session),
            (Deed::Terminate, Some(session)) => self.terminate(who, id, session),
            (Deed::CancelTurn, Some(session)) => self.cancel_turn(who, id, session),
            (Deed::CancelCommand, _) => self.cancel_command(who, id),
            (Deed::Read, _) => self.end(who, id, end(State::Succeeded, Says::NoEffect)),
            (Deed::Keys | Deed::Terminate | Deed::CancelTurn, None) => {
                self.end(who, id, end(State::Failed, Says::NoEffect));
            }
        }
    }

    /// A session of ours is still being looked for.
    fn is_silent(&self, who: Who, session: Uuid) -> bool {
        let station = &self.stations[who];
        station.paper.sessions.contains(&session) && !station.seats.contains_key(&session)
    }

    pub fn is_there(&self, who: Who, session: Uuid) -> bool {
        self.stations[who].seats.get(&session) == Some(&Seat::Ready)
            && self.agents.get(&session).is_some_and(|agent| agent.alive)
    }

    /// What waited for its session to be found.
    pub fn go_on_with_those_that_waited(&mut self, who: Who, session: Uuid) {
        let waits = |stage: Stage| stage == Stage::UntilSettled { session };
        for id in self.at_stage(who, waits) {
            self.set_stage(who, id, Stage::UntilLetBegin);
            self.carry_out_late(who, id);
        }
    }

    pub fn at_stage(&self, who: Who, is: impl Fn(Stage) -> bool) -> Vec<CommandId> {
        let works = self.stations[who].work.values().filter(|work| is(work.stage));
        let mut found: Vec<_> = works.map(|work| (work.row.seq, work.row.id)).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// What has an effect at once, and had to wait, only behind the office's word.
    pub fn carry_out_late(&mut self, who: Who, id: CommandId) {
        let deed = self.stations[who].work.get(&id).map(|work| deed_of(&work.row));
        if deed == Some(Deed::Read) || self.is(Breach::LateIsBegunUnasked) || self.office_lets_begin(who, id)
        {
            self.set_stage(who, id, Stage::InLine);
            self.carry_out(who, id);
        }
    }

    /// A session for the command that asks for one.
    pub fn make_session(&mut self, who: Who, id: CommandId) {
        if !self.is(Breach::CreatedUnasked) && !self.office_lets_begin(who, id) {
            return;
        }
        if !self.is_started(who, id) && !self.mark_started(who, id) {
            return;
        }
        let session = self.start_session(who);
        self.set_stage(who, id, Stage::Starting { session });
        self.stations[who].paper.bind_session(id, session);
        self.effect(who, id, Some(session));
        self.dies_here(who, "session-row");
    }

    /// The session that was made for it has shown its prompt, or is gone.
    pub fn session_is_made(&mut self, who: Who, id: CommandId, alive: bool) {
        if alive {
            return self.end(who, id, end(State::Succeeded, Says::Effect));
        }
        self.forget_session_of(who, id);
        self.end(who, id, end(State::Failed, Says::NoEffect));
    }

    /// What was made for it is gone: another one is none too many.
    pub fn forget_session_of(&mut self, who: Who, id: CommandId) {
        if let Some(effects) = self.effects.get_mut(&id) {
            effects.retain(|(by, _)| *by != who);
            if effects.is_empty() {
                self.effects.remove(&id);
            }
        }
    }

    fn terminate(&mut self, who: Who, id: CommandId, session: Uuid) {
        if !self.stations[who].seats.contains_key(&session) {
            return self.end(who, id, end(State::Failed, Says::NoEffect));
        }
        if self.mark_started(who, id) {
            self.effect(who, id, None);
            self.end_program(who, id, session);
        }
    }

    pub fn end_program(&mut self, who: Who, id: CommandId, session: Uuid) {
        self.set_stage(who, id, Stage::Ending { session });
        let turn = self.agents.get_mut(&session).and_then(|agent| {
            agent.alive = false;
            agent.turn
        });
        if let Some((_, turn)) = turn {
            self.agent_ends(session, turn, Ended::Died);
        }
        if !self.dies_here(who, "terminated") {
            self.step_after(50, who, id);
        }
    }

    /// Its program is proven gone.
    pub fn is_gone(&mut self, who: Who, id: CommandId, session: Uuid) {
        let station = &mut self.stations[who];
        station.seats.remove(&session);
        station.paper.sessions.remove(&session);
        let launch = station.launch;
        // What waited for it has to look elsewhere.
        self.after(1, Event::SessionReady { who, launch, session });
        self.end(who, id, end(State::Succeeded, Says::Unknown));
        if self.stations[who].is_up {
            self.go_on_with_those_that_waited(who, session);
        }
    }

    fn cancel_turn(&mut self, who: Who, id: CommandId, session: Uuid) {
        if !self.is_there(who, session) {
            return self.end(who, id, end(State::Failed, Says::NoEffect));
        }
        if self.mark_started(who, id) {
            self.cancel_in(who, id, session);
        }
    }

    fn cancel_in(&mut self, who: Who, id: CommandId, session: Uuid) {
        let runs = |stage: Stage| matches!(stage, Stage::Turn { session: its, .. } if its == session);
        match self.at_stage(who, runs).first() {
            Some(target) => self.cancel_here(who, id, *target),
            None => self.end(who, id, PASSED_ON),
        }
    }

    fn cancel_here(&mut self, who: Who, id: CommandId, target: CommandId) {
        self.cancelled.push(target);
        self.set_stage(who, id, Stage::UntilEnded { command: target });
        if !self.dies_here(who, "cancelling") {
            self.cancel_work(who, target);
        }
    }

    fn cancel_command(&mut self, who: Who, id: CommandId) {
        if self.mark_started(who, id) {
            self.pass_on(who, id);
        }
    }

    /// Stops the target here, or asks the office to have it stopped.
    fn pass_on(&mut self, who: Who, id: CommandId) {
        let Some(target) = self.targets.get(&id).copied() else {
            return self.end(who, id, end(State::Failed, Says::NoEffect));
        };
        let stage = self.stations[who].work.get(&target).map(|work| work.stage);
        if stage.is_some_and(|stage| stage != Stage::Ended) {
            return self.cancel_here(who, id, target);
        }
        self.set_stage(who, id, Stage::Asking);
        self.ask(who, Question::Cancel { command: id, target });
    }

    pub fn cancel_answered(&mut self, who: Who, id: CommandId, said: Option<Cancel>) {
        match said {
            _ if !self.is_at(who, id, Stage::Asking) => {}
            Some(_) => self.end(who, id, PASSED_ON),
            None => self.end(who, id, end(State::Failed, Says::Unknown)),
        }
    }

    /// A cancel of an earlier core, once its lease is ours.
    pub fn cancel_again(&mut self, who: Who, id: CommandId) {
        let Some(row) = self.stations[who].work.get(&id).map(|work| work.row.clone()) else {
            return;
        };
        match row.session_id {
            Some(session) => self.cancel_in(who, id, session.0),
            None => self.pass_on(who, id),
        }
    }

    /// A command has ended: those that asked for that have what they wanted.
    pub fn release_waiters(&mut self, who: Who, ended: CommandId) {
        let waits = |stage: Stage| stage == Stage::UntilEnded { command: ended };
        for id in self.at_stage(who, waits) {
            self.end(who, id, PASSED_ON);
        }
    }
}

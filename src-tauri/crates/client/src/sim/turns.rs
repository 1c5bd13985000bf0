//! Turns and keys at a workstation: from the office's word to the effect, and to what is said of it.

use domain::CommandId;
use domain::turn::TurnStage;
use uuid::Uuid;

use super::Breach;
use super::office::State;
use super::paper::Says;
use super::workstation::{Stage, Work, end};
use super::world::{Ended, Event, Question, Who, World};
use crate::rules::lease::BeginStep;

/// How long a turn may take.
const TURN_MS: i64 = 180_000;

impl World {
    pub fn submit(&mut self, who: Who, id: CommandId, session: Uuid) {
        let has_turn = |work: &Work| matches!(work.stage, Stage::Turn { session: its, .. } if its == session);
        if self.stations[who].work.values().any(has_turn) {
            return;
        }
        let now = self.moment(who);
        let step = match self.is(Breach::BegunUnasked) {
            true => BeginStep::Go,
            false => self.stations[who].desk.begin(id, now),
        };
        match step {
            BeginStep::Go => {}
            BeginStep::Ask { token } => return self.ask(who, Question::Begin { command: id, token }),
            BeginStep::Wait => return,
            BeginStep::Expired => return self.end(who, id, end(State::Failed, Says::NoEffect)),
        }
        if self.is(Breach::EffectBeforeJournal) {
            self.enter(session, id);
        }
        if !self.mark_started(who, id) {
            return;
        }
        let begun = TurnStage::Begun;
        if self.stations[who].paper.turn(id, begun, session).is_err() {
            return self.end(who, id, end(State::Failed, Says::NoEffect));
        }
        let stage = Stage::Turn {
            session,
            at: begun,
            entered: false,
        };
        self.set_stage(who, id, stage);
        let launch = self.stations[who].launch;
        self.after(
            30,
            Event::Step {
                who,
                launch,
                command: id,
            },
        );
    }

    /// False: it was ended.
    pub fn mark_started(&mut self, who: Who, id: CommandId) -> bool {
        match self.stations[who].paper.mark_started(id) {
            Ok(true) => !self.dies_here(who, "started"),
            Ok(false) if self.stations[who].is_untouched(id) => true,
            Ok(false) => {
                self.end(who, id, end(State::Unconfirmed, Says::Unknown));
                false
            }
            Err(_) => {
                self.end(who, id, end(State::Failed, Says::NoEffect));
                false
            }
        }
    }

    /// One step of a submission: written before Enter, Enter, acknowledged. Each may be the last thing the core does.
    pub fn step(&mut self, who: Who, id: CommandId) {
        let Some(work) = self.stations[who].work.get(&id) else {
            return;
        };
        match work.stage {
            Stage::Turn {
                session,
                at: TurnStage::Begun,
                ..
            } => self.is_about_to_enter(who, id, session),
            Stage::Turn {
                session,
                at: TurnStage::Entering,
                entered: false,
            } => self.enters(who, id, session),
            Stage::Turn {
                session,
                at: TurnStage::Entering,
                entered: true,
            } => {
                // A note that is not taken changes nothing: the transcript knows.
                let _ = self.stations[who].paper.turn(id, TurnStage::Taken, session);
                self.turn_stage(who, id, session, TurnStage::Taken, true);
                self.dies_here(who, "taken");
            }
            Stage::Keys {
                session,
                pressed: false,
            } => {
                self.effect(who, id, Some(session));
                let pressed = Stage::Keys {
                    session,
                    pressed: true,
                };
                self.set_stage(who, id, pressed);
                if !self.dies_here(who, "keys") {
                    self.step_after(3, who, id);
                }
            }
            Stage::Keys { pressed: true, .. } => {
                self.end(who, id, end(State::Succeeded, Says::Effect));
            }
            Stage::Ending { session } => self.is_gone(who, id, session),
            Stage::InLine
            | Stage::Starting { .. }
            | Stage::Turn { .. }
            | Stage::UntilSettled { .. }
            | Stage::UntilLetBegin
            | Stage::UntilEnded { .. }
            | Stage::Asking
            | Stage::Waiting
            | Stage::Left
            | Stage::LeftCancel
            | Stage::Ended => {}
        }
    }

    pub fn step_after(&mut self, ms: i64, who: Who, command: CommandId) {
        let launch = self.stations[who].launch;
        let event = Event::Step { who, launch, command };
        self.after(ms, event);
    }

    fn turn_stage(&mut self, who: Who, id: CommandId, session: Uuid, at: TurnStage, entered: bool) {
        let stage = Stage::Turn { session, at, entered };
        self.set_stage(who, id, stage);
    }

    fn is_about_to_enter(&mut self, who: Who, id: CommandId, session: Uuid) {
        let entering = TurnStage::Entering;
        if self.stations[who].paper.turn(id, entering, session).is_err() {
            return self.end(who, id, end(State::Failed, Says::NoEffect));
        }
        self.turn_stage(who, id, session, entering, false);
        if !self.dies_here(who, "entering") {
            self.step_after(3, who, id);
        }
    }

    fn enters(&mut self, who: Who, id: CommandId, session: Uuid) {
        if !self.is(Breach::EffectBeforeJournal) {
            self.enter(session, id);
        }
        self.turn_stage(who, id, session, TurnStage::Entering, true);
        let alive = self.agents.get(&session).is_some_and(|agent| agent.alive);
        if !alive && !self.had_effect(id) {
            // The program was gone before.
            return self.end(who, id, end(State::Failed, Says::NoEffect));
        }
        let launch = self.stations[who].launch;
        let timed_out = Event::TimedOut {
            who,
            launch,
            command: id,
        };
        self.after(TURN_MS, timed_out);
        if !self.dies_here(who, "entered") {
            self.step_after(40, who, id);
        }
    }

    pub fn keys(&mut self, who: Who, id: CommandId, session: Uuid) {
        let there = self.is_there(who, session);
        if !there {
            return self.end(who, id, end(State::Failed, Says::NoEffect));
        }
        if !self.mark_started(who, id) {
            return;
        }
        self.set_stage(
            who,
            id,
            Stage::Keys {
                session,
                pressed: false,
            },
        );
        let launch = self.stations[who].launch;
        self.after(
            3,
            Event::Step {
                who,
                launch,
                command: id,
            },
        );
    }

    /// The actor of the session sees how its turn ended.
    pub fn turn_ended(&mut self, who: Who, id: CommandId) {
        let Some(work) = self.stations[who].work.get(&id) else {
            return;
        };
        let Stage::Turn { session, .. } = work.stage else {
            return;
        };
        let how = self
            .agents
            .get(&session)
            .and_then(|agent| agent.transcript.get(&id));
        let status = match how {
            Some(Ended::Done) => State::Succeeded,
            Some(Ended::Interrupted) if work.timed_out => State::Failed,
            Some(Ended::Interrupted) => State::Cancelled,
            Some(Ended::Died) => State::Failed,
            None => return,
        };
        self.end(who, id, end(status, Says::Effect));
    }

    pub fn timed_out(&mut self, who: Who, id: CommandId) {
        let Some(work) = self.stations[who].work.get_mut(&id) else {
            return;
        };
        if let Stage::Turn { session, .. } = work.stage {
            work.timed_out = true;
            self.interrupt(session);
        }
    }

    pub fn cancel_work(&mut self, who: Who, id: CommandId) {
        let Some(work) = self.stations[who].work.get_mut(&id) else {
            return;
        };
        work.cancel_wanted = true;
        match work.stage {
            Stage::InLine
            | Stage::Left
            | Stage::UntilSettled { .. }
            | Stage::UntilLetBegin
            | Stage::Starting { .. } => {
                // A session that was made for it stays.
                let made = self.had_effect(id);
                let says = if made { Says::Effect } else { Says::NoEffect };
                self.end(who, id, end(State::Cancelled, says));
            }
            Stage::Turn {
                at: TurnStage::Begun, ..
            } => self.end(who, id, end(State::Cancelled, Says::NoEffect)),
            Stage::Turn {
                session,
                entered: true,
                ..
            } => self.interrupt(session),
            Stage::Turn { .. }
            | Stage::Keys { .. }
            | Stage::Ending { .. }
            | Stage::UntilEnded { .. }
            | Stage::Asking
            | Stage::Waiting
            | Stage::LeftCancel
            | Stage::Ended => {}
        }
    }
}

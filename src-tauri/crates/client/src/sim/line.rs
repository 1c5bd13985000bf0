//! The line of a workstation: which session carries a command, and what waits until there is one.

use domain::CommandId;
use uuid::Uuid;

use super::office::State;
use super::paper::Says;
use super::workstation::{SESSIONS_MAX, Seat, Stage, deed_of, end};
use super::world::{Event, Question, Who, World};
use crate::recovery::Deed;
use crate::rules::lease::BeginStep;

impl World {
    /// Who gets which session. A part of the real line's rules: the first free one, else a new one.
    pub fn advance_line(&mut self, who: Who) {
        let mut passed = Vec::new();
        loop {
            let station = &self.stations[who];
            let waiting = station
                .work
                .values()
                .filter(|work| work.stage == Stage::InLine && !passed.contains(&work.row.id))
                .min_by_key(|work| work.row.seq)
                .map(|work| (work.row.id, deed_of(&work.row)));
            let Some((id, deed)) = waiting.filter(|_| station.is_up) else {
                return;
            };
            let free = station.seats.keys().find(|session| !station.is_busy(**session));
            let may_start = station.seats.len() < SESSIONS_MAX && !station.paper.broken;
            match (free.copied(), deed) {
                (_, Deed::Create) if may_start => self.make_session(who, id),
                (_, Deed::Create) => self.end(who, id, end(State::Failed, Says::NoEffect)),
                (Some(session), _) => self.use_session(who, id, session),
                (None, _) if may_start => {
                    let session = self.start_session(who);
                    self.set_stage(who, id, Stage::Starting { session });
                }
                (None, _) => {}
            }
            // What waits for room, or for the office's word, holds up nobody.
            passed.push(id);
        }
    }

    /// Starts a program, which is in the journal first.
    pub fn start_session(&mut self, who: Who) -> Uuid {
        let session = self.new_agent(who);
        self.stations[who].paper.sessions.insert(session);
        self.stations[who].seats.insert(session, Seat::Starting);
        let launch = self.stations[who].launch;
        self.after(2_000, Event::SessionReady { who, launch, session });
        session
    }

    pub fn use_session(&mut self, who: Who, id: CommandId, session: Uuid) {
        let alive = self.agents.get(&session).is_some_and(|agent| agent.alive);
        match self.stations[who].seats.get(&session) {
            Some(_) if !alive => {
                self.stations[who].seats.remove(&session);
                self.stations[who].paper.sessions.remove(&session);
                self.no_session(who, id);
            }
            // What holds it does not answer yet.
            None if self.stations[who].paper.sessions.contains(&session) => {
                self.set_stage(who, id, Stage::Starting { session });
            }
            None => self.no_session(who, id),
            Some(Seat::Starting) => self.set_stage(who, id, Stage::Starting { session }),
            Some(Seat::Ready) => {
                // It is looked at, and the office is asked meanwhile.
                self.set_stage(who, id, Stage::Starting { session });
                let now = self.moment(who);
                match self.stations[who].desk.begin(id, now) {
                    BeginStep::Ask { token } => self.ask(who, Question::Begin { command: id, token }),
                    BeginStep::Expired => return self.end(who, id, end(State::Failed, Says::NoEffect)),
                    BeginStep::Go | BeginStep::Wait => {}
                }
                let launch = self.stations[who].launch;
                self.after(20, Event::SessionReady { who, launch, session });
            }
        }
    }

    /// The session that it was to have is gone.
    fn no_session(&mut self, who: Who, id: CommandId) {
        let named = self.stations[who].work.get(&id).map(|work| work.row.session_id);
        match named.flatten() {
            Some(_) => self.end(who, id, end(State::Failed, Says::NoEffect)),
            None => self.set_stage(who, id, Stage::InLine),
        }
    }

    pub fn session_ready(&mut self, who: Who, session: Uuid) {
        if let Some(seat) = self.stations[who].seats.get_mut(&session) {
            *seat = Seat::Ready;
        }
        let mut waiting: Vec<_> = self.stations[who]
            .work
            .values()
            .filter(|work| work.stage == Stage::Starting { session })
            .map(|work| (work.row.seq, work.row.id))
            .collect();
        waiting.sort_unstable();
        let alive = self.agents.get(&session).is_some_and(|agent| agent.alive);
        for (_, id) in waiting {
            let deed = self.stations[who].work.get(&id).map(|work| deed_of(&work.row));
            match (deed, alive) {
                (Some(Deed::Create), _) => self.session_is_made(who, id, alive),
                (_, true) => self.submit(who, id, session),
                (_, false) => self.use_session(who, id, session),
            }
        }
    }

    pub fn proceed(&mut self, who: Who, id: CommandId) {
        match self.stations[who].work.get(&id).map(|work| work.stage) {
            Some(Stage::Left) => self.run_again(who, id),
            Some(Stage::LeftCancel) => self.cancel_again(who, id),
            Some(Stage::UntilLetBegin) => self.carry_out_late(who, id),
            Some(Stage::InLine) => self.advance_line(who),
            Some(Stage::Starting { session })
                if self.stations[who].seats.get(&session) == Some(&Seat::Ready) =>
            {
                self.submit(who, id, session);
            }
            _ => {}
        }
    }

    pub fn end_expired_in_line(&mut self, who: Who) {
        let now = self.moment(who);
        let station = &self.stations[who];
        let expired: Vec<_> = station
            .work
            .iter()
            .filter(|(id, work)| work.stage == Stage::InLine && station.desk.is_expired(**id, now))
            .map(|(id, _)| *id)
            .collect();
        for id in expired {
            self.end(who, id, end(State::Failed, Says::NoEffect));
        }
    }
}

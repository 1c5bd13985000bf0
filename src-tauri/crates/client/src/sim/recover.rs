//! A start after a crash: what is found of the sessions, and what `recovery::fate` makes of each journalled command.

use domain::CommandId;
use domain::turn::TurnStage;
use journal::Phase;
use uuid::Uuid;

use super::office::State;
use super::paper::{End, Entry, Says};
use super::workstation::{Seat, Stage, Workstation, deed_of, end};
use super::world::{Agent, Ended, Event, Question, Who, World};
use super::{Breach, planted};
use crate::recovery::{Deed, Fate, Left, Said, Whereabouts, fate};
use crate::rules::lease::BeginStep;

impl Workstation {
    /// It is in the journal as started.
    fn has_started(&self, id: CommandId) -> bool {
        let entry = self.paper.entries.get(&id);
        entry.is_some_and(|entry| entry.phase == Phase::Started)
    }

    /// It is in the journal as started, and nothing of it has reached an agent.
    pub fn is_untouched(&self, id: CommandId) -> bool {
        self.paper.entries.get(&id).is_some_and(|entry| {
            entry.row.kind == "send_prompt"
                && entry.phase == Phase::Started
                && matches!(entry.turn, None | Some((TurnStage::Begun, _)))
        })
    }
}

impl World {
    /// At the start of a core: sessions first, then the commands in the order in which they came.
    pub fn recover(&mut self, who: Who) {
        let sessions: Vec<_> = self.stations[who].paper.sessions.iter().copied().collect();
        for session in sessions {
            match self.whereabouts(who, session) {
                Whereabouts::Gone => {
                    self.stations[who].paper.sessions.remove(&session);
                }
                Whereabouts::Attached => {
                    self.stations[who].seats.insert(session, Seat::Ready);
                }
                // Nothing is given to it before it answers.
                Whereabouts::Silent => {}
            }
        }
        let wall = self.wall(who);
        let station = &mut self.stations[who];
        let own = station.folder;
        let mut left = station.paper.unfinished();
        if !planted(Breach::CopiesAreNotToldApart) {
            // Where the disk refuses, nothing of it is touched either.
            let _ = station.paper.leave_to_their_leases(own, wall);
            left.retain(|entry| entry.folder == own);
        }
        let now = self.moment(who);
        for entry in &left {
            self.stations[who].desk.hold_again(&entry.row, now);
        }
        for entry in left {
            self.settle(who, entry);
            if !self.stations[who].is_up {
                return;
            }
        }
    }

    fn whereabouts(&self, who: Who, session: Uuid) -> Whereabouts {
        match self.agent_at(who, session) {
            Some(agent) if agent.silent_until > self.now() => Whereabouts::Silent,
            Some(agent) if agent.alive => Whereabouts::Attached,
            Some(_) | None => Whereabouts::Gone,
        }
    }

    /// Holders are found by the folder in which they are: a copy has none of the original's.
    fn agent_at(&self, who: Who, session: Uuid) -> Option<&Agent> {
        self.agents.get(&session).filter(|agent| agent.who == who)
    }

    /// What is known of a command, as the loop gathers it.
    fn left(&self, who: Who, entry: &Entry) -> (Left, Option<Uuid>) {
        let named = entry.row.session_id.map(|session| session.0);
        let session = entry.turn.map(|(_, session)| session).or(entry.made).or(named);
        let ended = session
            .and_then(|session| self.agent_at(who, session))
            .and_then(|agent| agent.transcript.get(&entry.row.id));
        let deed = deed_of(&entry.row);
        let in_session = |stage| matches!(stage, Stage::Turn { session: its, .. } if Some(its) == session);
        let left = Left {
            deed,
            phase: entry.phase,
            turn: match deed {
                Deed::CancelTurn => self.at_stage(who, in_session).first().map(|_| TurnStage::Taken),
                _ => entry.turn.map(|(stage, _)| stage),
            },
            session: session.map_or(Whereabouts::Gone, |session| self.whereabouts(who, session)),
            said: match ended {
                Some(Ended::Done | Ended::Interrupted) => Said::Ended,
                // It breaks off: nothing in it decides.
                Some(Ended::Died) => Said::Nothing,
                None => Said::NotStarted,
            },
        };
        (left, session)
    }

    pub fn is_started(&self, who: Who, id: CommandId) -> bool {
        self.stations[who].has_started(id)
    }

    pub fn settle(&mut self, who: Who, entry: Entry) {
        let (left, session) = self.left(who, &entry);
        let id = entry.row.id;
        let mut fate = fate(&left);
        let began = matches!(left.turn, Some(TurnStage::Entering | TurnStage::Taken));
        if self.is(Breach::StartedRunsAgain) && left.deed == Deed::Prompt && began {
            fate = Fate::RunAgain;
        }
        self.tell(|| format!("{who} settles {id}: {left:?} → {fate:?}"));
        if fate == Fate::RunAgain && left.deed == Deed::Create && left.session == Whereabouts::Gone {
            self.forget_session_of(who, id);
        }
        match (fate, session) {
            (Fate::Report | Fate::Follow, _) if left.deed != Deed::Prompt => {
                self.settle_deed(who, entry, fate, session);
            }
            // Not before the office has said that the lease is ours.
            (Fate::RunAgain, _) => {
                self.hold(who, entry.row, Stage::Left);
                if self.stations[who].desk.is_ours(id) {
                    self.run_again(who, id);
                }
            }
            (Fate::Follow, Some(session)) => {
                let stage = Stage::Turn {
                    session,
                    at: TurnStage::Taken,
                    entered: true,
                };
                self.hold(who, entry.row, stage);
                self.follow(who, id, session);
            }
            (Fate::Wait, _) => self.hold(who, entry.row, Stage::Waiting),
            (Fate::Report, Some(session)) => {
                let stage = Stage::Turn {
                    session,
                    at: TurnStage::Taken,
                    entered: true,
                };
                self.hold(who, entry.row, stage);
                self.turn_ended(who, id);
            }
            (Fate::Unknown | Fate::Follow | Fate::Report, _) => {
                self.hold(who, entry.row, Stage::InLine);
                let unknown = End {
                    status: State::Unconfirmed,
                    says: Says::Unknown,
                };
                self.end(who, id, unknown);
            }
        }
    }

    /// What is reported or followed of the commands without a turn.
    fn settle_deed(&mut self, who: Who, entry: Entry, fate: Fate, session: Option<Uuid>) {
        let (id, deed) = (entry.row.id, deed_of(&entry.row));
        self.hold(who, entry.row, Stage::LeftCancel);
        match (deed, fate, session) {
            (Deed::Create, _, Some(session)) => {
                self.set_stage(who, id, Stage::Starting { session });
                let launch = self.stations[who].launch;
                self.after(10, Event::SessionReady { who, launch, session });
            }
            // It was begun in time, and is brought to its end.
            (Deed::Terminate, Fate::Follow, Some(session)) => self.end_program(who, id, session),
            (Deed::Terminate, _, Some(session)) => self.is_gone(who, id, session),
            (Deed::CancelCommand | Deed::CancelTurn, Fate::Follow, _) => {
                if self.stations[who].desk.is_ours(id) {
                    self.cancel_again(who, id);
                }
            }
            _ => self.end(who, id, end(State::Succeeded, Says::Unknown)),
        }
    }

    /// A turn of before is followed: it may have ended meanwhile, run on, or never have been entered.
    fn follow(&mut self, who: Who, id: CommandId, session: Uuid) {
        let launch = self.stations[who].launch;
        let agent = self.agents.get(&session);
        let runs = agent.is_some_and(|agent| agent.turn.is_some_and(|(command, _)| command == id));
        let has_ended = agent.is_some_and(|agent| agent.transcript.contains_key(&id));
        let event = match (runs, has_ended) {
            (true, _) => Event::TimedOut {
                who,
                launch,
                command: id,
            },
            (false, true) => Event::Noticed {
                who,
                launch,
                command: id,
            },
            // Enter was never pressed, and is not pressed now: the office's word is of before.
            (false, false) => {
                let not_submitted = End {
                    status: State::Failed,
                    says: Says::NoEffect,
                };
                return self.end(who, id, not_submitted);
            }
        };
        self.after(if runs { 180_000 } else { 10 }, event);
    }

    /// The office has said that the lease of what is to be run again is ours.
    pub fn run_again(&mut self, who: Who, id: CommandId) {
        let Some(row) = self.stations[who].work.get(&id).map(|work| work.row.clone()) else {
            return;
        };
        // A prompt asks before it is submitted; reading does no harm.
        let asks = match deed_of(&row) {
            Deed::Prompt | Deed::Read => false,
            Deed::Create | Deed::Terminate | Deed::CancelCommand | Deed::CancelTurn | Deed::Keys => true,
        };
        if asks && !self.office_lets_begin(who, id) {
            return;
        }
        self.stations[who].work.remove(&id);
        self.open_command(who, row);
    }

    /// Whether the office has said that it may be begun; if not, it is asked.
    pub fn office_lets_begin(&mut self, who: Who, id: CommandId) -> bool {
        let now = self.moment(who);
        match self.stations[who].desk.begin(id, now) {
            BeginStep::Go => return true,
            BeginStep::Ask { token } => self.ask(who, Question::Begin { command: id, token }),
            BeginStep::Expired => self.end(who, id, end(State::Failed, Says::NoEffect)),
            BeginStep::Wait => {}
        }
        false
    }

    /// What waits for a holder that did not answer.
    pub fn look_at_silent_ones(&mut self, who: Who) {
        self.settle_what_waited(who);
        let launch = self.stations[who].launch;
        let held: Vec<_> = self.stations[who].paper.sessions.iter().copied().collect();
        for session in held {
            let known = self.stations[who].seats.contains_key(&session);
            if !known && self.whereabouts(who, session) != Whereabouts::Silent && self.stations[who].is_up {
                self.stations[who].seats.insert(session, Seat::Ready);
                self.after(10, Event::SessionReady { who, launch, session });
                self.go_on_with_those_that_waited(who, session);
            }
        }
    }

    fn settle_what_waited(&mut self, who: Who) {
        let waiting: Vec<_> = self.stations[who]
            .work
            .values()
            .filter(|work| work.stage == Stage::Waiting)
            .map(|work| work.row.id)
            .collect();
        for id in waiting {
            let Some(entry) = self.stations[who].paper.entries.get(&id).cloned() else {
                continue;
            };
            let (left, _) = self.left(who, &entry);
            if fate(&left) != Fate::Wait {
                let cancel_wanted = self.stations[who]
                    .work
                    .remove(&id)
                    .is_some_and(|work| work.cancel_wanted);
                self.settle(who, entry);
                if cancel_wanted {
                    self.cancel_work(who, id);
                }
            }
        }
    }
}

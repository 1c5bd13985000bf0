//! All calls in any order, with ends of the process between and inside them, under a clock that jumps: the journal is
//! at every moment what a plain model in memory says. A schedule that fails names its seed.

use std::collections::BTreeMap;

use super::*;

const SCHEDULES: u64 = 10_000;
const STEPS: usize = 16;
const COMMANDS: usize = 5;
const SESSIONS: usize = 2;
const TURNS: usize = 5;

struct Report {
    id: ResultId,
    token: Uuid,
    due_at: Timestamp,
    tries: u32,
    arrived: bool,
}

struct Row {
    phase: Phase,
    token: Uuid,
    place: usize,
    session: Option<Uuid>,
    recovered: Option<Recovery>,
    finished_at: Timestamp,
    report: Option<Report>,
}

struct Turn {
    session: Uuid,
    command: Uuid,
    place: usize,
    stage: TurnStage,
    mark: Option<u64>,
    ended: bool,
}

struct Seat {
    detail: u64,
    ended_at: Option<Timestamp>,
}

#[derive(Default)]
struct Model {
    commands: BTreeMap<Uuid, Row>,
    turns: BTreeMap<Uuid, Turn>,
    sessions: BTreeMap<Uuid, Seat>,
    remembered: Option<u64>,
    epoch: u64,
    places: usize,
}

struct Run {
    journal: Journal,
    model: Model,
    random: Random,
    now: Timestamp,
}

#[test]
fn the_journal_is_what_a_model_in_memory_says_through_ten_thousand_schedules() {
    // In memory where there is such a folder: this is about our own end, not about the disk.
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    };
    let path = dir.path().join("journal.db");
    let mut journal = Some(Journal::open(&path).unwrap());
    for seed in 0..SCHEDULES {
        let mut run = Run {
            journal: journal.take().unwrap(),
            model: Model::default(),
            random: Random(seed),
            now: NOW,
        };
        run.empty();
        for step in 0..STEPS {
            run.tick();
            run.step();
            if step % 4 == 3 {
                run.compare(seed, step);
            }
        }
        journal = Some(run.journal);
    }
}

impl Run {
    fn empty(&self) {
        self.journal
            .connection()
            .execute_batch(
                "delete from turns; delete from sessions; delete from inbox; delete from launches; delete from memory",
            )
            .unwrap();
    }

    fn tick(&mut self) {
        const YEAR_MS: i64 = 365 * 86_400_000;
        let by = match self.random.below(12) {
            0 => -YEAR_MS,
            1 => YEAR_MS,
            2 => -1,
            _ => self.random.below(40_000) as i64,
        };
        self.now = self.now.plus_ms(by);
    }

    fn some(&mut self, from: usize, count: usize) -> Uuid {
        id((from + self.random.below(count)) as u128)
    }

    fn step(&mut self) {
        match self.random.below(32) {
            0..5 => self.receive(),
            5..8 => self.mark_started(),
            8..10 => self.save_session(),
            10..14 => self.start_turn(),
            14..18 => self.set_stage(),
            18..20 => self.end_turn(),
            20..24 => self.finish(),
            24..26 => self.answer(),
            26 => self.report_again(),
            27 => self.small_notes(),
            28 => self.launch(),
            29 => self.end_session(),
            30 => self.prune(),
            _ => self.crash(),
        }
    }

    fn receive(&mut self) {
        let command_id = self.some(100, COMMANDS);
        let token = Uuid::from_u128(u128::from(self.random.next()));
        let new = NewCommand {
            id: CommandId(command_id),
            lease_token: token,
            ..command(1)
        };
        let received = self.journal.receive(&new, self.now).unwrap();
        if let Some(row) = self.model.commands.get_mut(&command_id) {
            assert_eq!(received, Received::Known { phase: row.phase });
            row.token = token;
            return;
        }
        assert_eq!(received, Received::New);
        self.model.places += 1;
        let row = Row {
            phase: Phase::Received,
            token,
            place: self.model.places,
            session: None,
            recovered: None,
            finished_at: self.now,
            report: None,
        };
        self.model.commands.insert(command_id, row);
    }

    fn mark_started(&mut self) {
        let command = self.some(100, COMMANDS);
        let moved = self.journal.mark_started(CommandId(command), self.now);
        match self.model.commands.get_mut(&command) {
            None => assert!(matches!(moved, Err(JournalError::Unknown { .. }))),
            Some(row) => {
                assert_eq!(moved.unwrap(), row.phase == Phase::Received);
                if row.phase == Phase::Received {
                    row.phase = Phase::Started;
                }
            }
        }
    }

    fn save_session(&mut self) {
        let session_id = self.some(200, SESSIONS);
        let detail = self.random.next() >> 12;
        let row = SessionRow {
            id: SessionId(session_id),
            detail: json!(detail),
            ..session(1)
        };
        self.journal.save_session(&row).unwrap();
        let ended_at = None;
        self.model.sessions.insert(session_id, Seat { detail, ended_at });
    }

    fn start_turn(&mut self) {
        let turn_id = self.some(300, TURNS);
        let session = self.some(200, SESSIONS);
        let command = self.some(100, COMMANDS);
        if self.model.turns.contains_key(&turn_id) || !self.model.commands.contains_key(&command) {
            return;
        }
        let new = NewTurn {
            id: TurnId(turn_id),
            session: SessionId(session),
            command: Some(CommandId(command)),
            ..turn(1, 1, 1)
        };
        let started = self.journal.start_turn(&new, self.now);
        if !self.model.sessions.contains_key(&session) {
            assert!(matches!(started, Err(JournalError::Unknown { .. })));
            return;
        }
        started.unwrap();
        self.model.places += 1;
        let turn = Turn {
            session,
            command,
            place: self.model.places,
            stage: TurnStage::Begun,
            mark: None,
            ended: false,
        };
        self.model.turns.insert(turn_id, turn);
    }

    fn set_stage(&mut self) {
        let turn = self.some(300, TURNS);
        let stage = [TurnStage::Begun, TurnStage::Entering, TurnStage::Taken][self.random.below(3)];
        let mark = (self.random.below(2) == 0).then(|| self.random.next() >> 12);
        let value = mark.map(|mark| json!(mark));
        let set = self
            .journal
            .set_turn_stage(TurnId(turn), stage, value.as_ref(), self.now)
            .unwrap();
        let open = self.model.turns.get_mut(&turn).filter(|turn| !turn.ended);
        let Some(turn) = open.filter(|turn| turn.stage <= stage) else {
            assert!(!set);
            return;
        };
        assert!(set);
        turn.stage = stage;
        turn.mark = mark.or(turn.mark);
    }

    fn end_turn(&mut self) {
        let turn = self.some(300, TURNS);
        let end = TurnEnd {
            turn: TurnId(turn),
            ..end_of(1)
        };
        let ended = self.journal.end_turn(&end, self.now);
        match self.model.turns.get_mut(&turn) {
            None => assert!(matches!(ended, Err(JournalError::Unknown { .. }))),
            Some(turn) => {
                ended.unwrap();
                turn.ended = true;
            }
        }
    }

    fn finish(&mut self) {
        let command = self.some(100, COMMANDS);
        let turn = (self.random.below(3) > 0).then(|| self.some(300, TURNS));
        let result = ResultId(Uuid::from_u128(u128::from(self.random.next())));
        let finish = Finish {
            command: CommandId(command),
            result: NewResult {
                id: result,
                ..finish(1).result
            },
            turn: turn.map(|turn| TurnEnd {
                turn: TurnId(turn),
                ..end_of(1)
            }),
        };
        let finished = self.journal.finish(&finish, self.now);
        let Some(row) = self.model.commands.get_mut(&command) else {
            assert!(matches!(finished, Err(JournalError::Unknown { .. })));
            return;
        };
        if row.phase == Phase::Finished {
            assert_eq!(finished.unwrap(), Finished::Already);
            return;
        }
        if let Some(turn) = turn {
            let Some(turn) = self.model.turns.get_mut(&turn) else {
                assert!(matches!(finished, Err(JournalError::Unknown { .. })));
                return;
            };
            turn.ended = true;
        }
        assert_eq!(finished.unwrap(), Finished::Recorded);
        row.phase = Phase::Finished;
        row.finished_at = self.now;
        row.report = Some(Report {
            id: result,
            token: row.token,
            due_at: self.now,
            tries: 0,
            arrived: false,
        });
    }

    fn answer(&mut self) {
        let command = self.some(100, COMMANDS);
        let arrives = self.random.below(2) == 0;
        let pause = self.random.below(60_000) as i64;
        let (now, row) = (self.now, self.model.commands.get_mut(&command));
        let Some(report) = row.and_then(|row| row.report.as_mut()) else {
            return;
        };
        if arrives {
            self.journal
                .acknowledge(report.id, Acknowledgement::Recorded, now)
                .unwrap();
            report.arrived = true;
            return;
        }
        let at = now.plus_ms(pause);
        self.journal.postpone(report.id, at, "no route to host").unwrap();
        if !report.arrived {
            report.due_at = at;
            report.tries += 1;
        }
    }

    fn report_again(&mut self) {
        let command = self.some(100, COMMANDS);
        let result = ResultId(Uuid::from_u128(u128::from(self.random.next())));
        let again = self.journal.report_again(CommandId(command), result, self.now);
        let row = self.model.commands.get_mut(&command);
        let Some((token, report)) = row.and_then(|row| Some((row.token, row.report.as_mut()?))) else {
            assert!(matches!(again, Err(JournalError::Unknown { .. })));
            return;
        };
        again.unwrap();
        *report = Report {
            id: result,
            token,
            due_at: self.now,
            tries: 0,
            arrived: false,
        };
    }

    fn small_notes(&mut self) {
        let command = self.some(100, COMMANDS);
        let session = self.some(200, SESSIONS);
        if let Some(row) = self.model.commands.get_mut(&command) {
            self.journal
                .bind_session(CommandId(command), SessionId(session))
                .unwrap();
            row.session = Some(session);
            self.journal
                .note_recovered(CommandId(command), Recovery::RunAgain)
                .unwrap();
            row.recovered = Some(Recovery::RunAgain);
        }
        let value = self.random.next() >> 12;
        self.journal.remember("k", &json!(value)).unwrap();
        self.model.remembered = Some(value);
        if let Some(seat) = self.model.sessions.get_mut(&session) {
            self.journal
                .set_session_detail(SessionId(session), &json!(value))
                .unwrap();
            seat.detail = value;
        }
        if self.random.below(2) == 0 {
            self.journal.hasten(self.now).unwrap();
            let reports = self
                .model
                .commands
                .values_mut()
                .filter_map(|row| row.report.as_mut());
            for report in reports.filter(|report| !report.arrived) {
                report.due_at = report.due_at.min(self.now);
            }
        }
    }

    fn launch(&mut self) {
        let epoch = self.journal.launch(self.now).unwrap();
        assert!(epoch > self.model.epoch);
        self.model.epoch = epoch;
    }

    fn end_session(&mut self) {
        let session = self.some(200, SESSIONS);
        let over = SessionState::Exited { code: None };
        let ended = self
            .journal
            .set_session_state(SessionId(session), &over, self.now);
        match self.model.sessions.get_mut(&session) {
            None => assert!(matches!(ended, Err(JournalError::Unknown { .. }))),
            Some(seat) => {
                ended.unwrap();
                seat.ended_at = seat.ended_at.or(Some(self.now));
            }
        }
    }

    fn prune(&mut self) {
        let limits = Limits {
            kept_min: 0,
            ..Limits::default()
        };
        let before = self.now;
        self.journal.prune_to(before, limits).unwrap();
        let Model {
            commands,
            turns,
            sessions,
            ..
        } = &mut self.model;
        let mut gone = Vec::new();
        commands.retain(|command, row| {
            let arrived = row.report.as_ref().is_some_and(|report| report.arrived);
            let goes = arrived && row.finished_at < before;
            gone.extend(goes.then_some(*command));
            !goes
        });
        turns.retain(|_, turn| !(turn.ended && gone.contains(&turn.command)));
        sessions.retain(|session, seat| {
            let needed = turns.values().any(|turn| {
                turn.session == *session && (!turn.ended || commands.contains_key(&turn.command))
            });
            needed || seat.ended_at.is_none_or(|at| at >= before)
        });
        turns.retain(|_, turn| sessions.contains_key(&turn.session));
    }

    /// The process ends, mostly in the middle of a transaction.
    fn crash(&mut self) {
        if self.random.below(4) > 0 {
            self.journal
                .connection()
                .execute_batch("begin immediate; delete from turns; update inbox set phase = 'received'")
                .unwrap();
        }
        let path = self.journal.path().to_owned();
        self.journal = {
            // The old connection ends first, as it does with its process.
            let elsewhere = Connection::open_in_memory().unwrap();
            drop(std::mem::replace(&mut *self.journal.connection(), elsewhere));
            Journal::open(&path).unwrap()
        };
    }

    fn compare(&self, seed: u64, step: usize) {
        let at = format!("seed {seed}, step {step}");
        let model = &self.model;
        let mut open: Vec<_> = model
            .commands
            .iter()
            .filter(|(_, row)| row.phase != Phase::Finished)
            .map(|(id, row)| (row.place, *id, row.phase, row.token, row.session, row.recovered))
            .collect();
        open.sort_by_key(|row| row.0);
        let found = self.journal.unfinished().unwrap();
        assert_eq!(found.len(), open.len(), "{at}");
        let found: Vec<_> = found
            .into_iter()
            .zip(&open)
            .map(|(row, model)| {
                let command = row.command;
                let session = command.session.map(|id| id.0);
                (
                    model.0,
                    command.id.0,
                    row.phase,
                    command.lease_token,
                    session,
                    row.recovered,
                )
            })
            .collect();
        assert_eq!(found, open, "{at}");

        let mut turns: Vec<_> = model.turns.iter().filter(|(_, turn)| !turn.ended).collect();
        turns.sort_by_key(|(_, turn)| turn.place);
        let turns: Vec<_> = turns
            .into_iter()
            .map(|(id, turn)| (*id, turn.session, turn.stage, turn.mark.map(|mark| json!(mark))))
            .collect();
        let found: Vec<_> = self
            .journal
            .open_turns()
            .unwrap()
            .into_iter()
            .map(|row| (row.turn.id.0, row.turn.session.0, row.stage, row.mark))
            .collect();
        assert_eq!(found, turns, "{at}");
        self.compare_rest(&at);
    }

    fn compare_rest(&self, at: &str) {
        let model = &self.model;
        let horizon = self.now.plus_ms(PAUSE_MS_MAX);
        let mut due: Vec<_> = model
            .commands
            .values()
            .filter_map(|row| row.report.as_ref())
            .filter(|report| !report.arrived && (report.due_at <= self.now || report.due_at > horizon))
            .map(|report| (report.id.0, report.token, report.tries))
            .collect();
        due.sort();
        let mut found: Vec<_> = self
            .journal
            .due(None, self.now, 100)
            .unwrap()
            .into_iter()
            .map(|row| (row.result.id.0, row.lease_token, row.tries))
            .collect();
        found.sort();
        assert_eq!(found, due, "{at}");

        let sessions: BTreeMap<_, _> = model
            .sessions
            .iter()
            .filter(|(_, seat)| seat.ended_at.is_none())
            .map(|(id, seat)| (*id, json!(seat.detail)))
            .collect();
        let found: BTreeMap<_, _> = self
            .journal
            .open_sessions()
            .unwrap()
            .into_iter()
            .map(|row| (row.id.0, row.detail))
            .collect();
        assert_eq!(found, sessions, "{at}");
        let remembered = model.remembered.map(|value| json!(value));
        assert_eq!(self.journal.recall("k").unwrap(), remembered, "{at}");
        let counts = self.journal.counts().unwrap();
        let all = counts.received + counts.started + counts.finished;
        assert_eq!(all, model.commands.len() as u64, "{at}");
        let waiting = model.commands.values().filter_map(|row| row.report.as_ref());
        let waiting = waiting.filter(|report| !report.arrived).count();
        assert_eq!(counts.results_waiting, waiting as u64, "{at}");
    }
}

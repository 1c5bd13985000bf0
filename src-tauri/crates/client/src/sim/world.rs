//! What is outside the workstations: time, the network, the office, agents in their holders, and what goes wrong.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use domain::CommandId;
use uuid::Uuid;

use super::Breach;
use super::check::Violation;
use super::office::{Begin, Cancel, Claimed, Completed, Gap, Office, State};
use super::random::Dice;
use super::schedule::Faults;
use super::workstation::Workstation;
use crate::rules::claims::{URGENT_KINDS, Wanted};

/// What `supabase` waits for an answer.
const REQUEST_TIMEOUT_MS: i64 = 20_000;
/// Leases, as the client asks for them.
pub(super) const LEASE_MS: i64 = 60_000;
/// When everything has been well for so long, a workstation has all that is leased to it: a lost answer has cost it the
/// time until it gave it up, and a poll, but no lease.
pub(super) const FOUND_AGAIN_AFTER_MS: i64 = 45_000;
/// Workstations and copies of their folders.
const STATIONS_MAX: usize = 6;
/// Events of one schedule; far above what any takes.
const EVENTS_MAX: u64 = 200_000;

/// A workstation, by its place.
pub(super) type Who = usize;

/// What a workstation asks the office.
#[derive(Debug, Clone)]
pub(super) enum Question {
    Claim {
        wanted: Wanted,
        lease_s: u32,
        known: Option<Vec<Uuid>>,
    },
    Renew {
        command: CommandId,
        token: Uuid,
    },
    Begin {
        command: CommandId,
        token: Uuid,
    },
    Report {
        command: CommandId,
        token: Uuid,
        result: Uuid,
        status: State,
    },
    /// Another command is to be stopped.
    Cancel {
        command: CommandId,
        target: CommandId,
    },
}

/// What it hears; without content where no answer came.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Claim(Option<Vec<Claimed>>),
    /// To a claim: a core that came later works as this client, from another data folder.
    AnotherIsThisClient,
    Renew(CommandId, Uuid, Option<(bool, bool)>),
    Begin(CommandId, Uuid, Option<Begin>),
    Report(CommandId, Uuid, Option<Result<Completed, &'static str>>),
    Cancel(CommandId, Option<Cancel>),
}

/// What happens. Those with a `launch` are forgotten when the workstation has crashed since.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Tick {
        who: Who,
        launch: u32,
    },
    Doorbell {
        who: Who,
        cancel: Option<CommandId>,
    },
    Arrives {
        who: Who,
        launch: u32,
        question: Question,
        back_ms: Option<i64>,
    },
    Answered {
        who: Who,
        launch: u32,
        answer: Answer,
    },
    /// A session was started, or looked at.
    SessionReady {
        who: Who,
        launch: u32,
        session: Uuid,
    },
    /// The next step of a submission.
    Step {
        who: Who,
        launch: u32,
        command: CommandId,
    },
    /// The actor of a session sees that its turn has ended.
    Noticed {
        who: Who,
        launch: u32,
        command: CommandId,
    },
    /// A turn has taken too long.
    TimedOut {
        who: Who,
        launch: u32,
        command: CommandId,
    },
    AgentEnds {
        session: Uuid,
        turn: u64,
        how: Ended,
    },
    Enqueue {
        command: CommandId,
        kind: &'static str,
        session: Option<Uuid>,
        /// Of a cancel: which command it is to stop.
        target: Option<CommandId>,
        ttl_ms: i64,
    },
    SomebodyCancels {
        command: CommandId,
    },
    Fault {
        who: Who,
        fault: Fault,
    },
    Start {
        who: Who,
    },
    JournalWorks {
        who: Who,
    },
    Heal,
    /// Everything has been well for a while: nothing lies about that an answer to a claim had lost.
    LookForLost,
}

/// What goes wrong at a workstation.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// The core dies; holders and agents live on.
    Crash {
        down_ms: i64,
    },
    /// The machine dies, with everything on it.
    PowerCut {
        down_ms: i64,
    },
    Sleep {
        ms: i64,
    },
    NetworkGone {
        ms: i64,
    },
    ClockSet {
        by_ms: i64,
    },
    DiskFull {
        ms: i64,
    },
    /// A holder does not answer for a while.
    HolderSilent {
        ms: i64,
    },
    /// The data folder is copied, and a core is started in the copy, which cannot see the original.
    Copied {
        start_ms: i64,
    },
}

/// How an agent's turn ended, by its transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Done,
    Interrupted,
    /// The program ended in the middle of it.
    Died,
}

/// An agent program in its holder.
#[derive(Debug, Clone)]
pub(super) struct Agent {
    pub who: Who,
    pub alive: bool,
    pub silent_until: i64,
    /// The prompt that it works on.
    pub turn: Option<(CommandId, u64)>,
    /// How each of its prompts ended.
    pub transcript: BTreeMap<CommandId, Ended>,
    pub turns: u64,
}

pub(super) struct World {
    pub dice: Dice,
    pub faults: Faults,
    pub breach: Option<Breach>,
    pub healed: bool,
    pub healed_at: i64,
    pub office: Office,
    pub stations: Vec<Workstation>,
    pub agents: BTreeMap<Uuid, Agent>,
    /// Each effect that a command had: by whom, when.
    pub effects: BTreeMap<CommandId, Vec<(Who, i64)>>,
    /// What cancels are to stop.
    pub targets: BTreeMap<CommandId, CommandId>,
    /// What somebody has asked to give up.
    pub cancelled: Vec<CommandId>,
    pub violations: Vec<Violation>,
    pub log: Option<Vec<String>>,
    queue: BinaryHeap<Reverse<(i64, u64)>>,
    events: BTreeMap<u64, Event>,
    next: u64,
    sessions: u128,
}

impl World {
    pub fn new(seed: u64, breach: Option<Breach>, log: bool) -> World {
        let mut dice = Dice::of(seed);
        let faults = Faults::draw(&mut dice);
        let mut office = Office::default();
        office.now = 1_000_000_000;
        office.gap = match breach {
            Some(Breach::BegunGoesToAnybody) => Some(Gap::BegunGoesToAnybody),
            Some(Breach::PromptsOfASessionTogether) => Some(Gap::PromptsTogether),
            Some(Breach::TokenIgnored) => Some(Gap::NoFence),
            Some(Breach::GivenAgainToAnybody) => Some(Gap::GivenAgainToAnybody),
            _ => None,
        };
        let mut world = World {
            dice,
            faults,
            breach,
            healed: false,
            healed_at: 0,
            office,
            stations: Vec::new(),
            agents: BTreeMap::new(),
            effects: BTreeMap::new(),
            targets: BTreeMap::new(),
            cancelled: Vec::new(),
            violations: Vec::new(),
            log: log.then(Vec::new),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next: 0,
            sessions: 0,
        };
        world.draw();
        world
    }

    pub fn now(&self) -> i64 {
        self.office.now
    }

    pub fn is(&self, breach: Breach) -> bool {
        self.breach == Some(breach)
    }

    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        let now = self.now() - 1_000_000_000;
        if let Some(log) = &mut self.log {
            log.push(format!("{:>9.3} {}", now as f64 / 1e3, what()));
        }
    }

    pub fn wrong(&mut self, violation: Violation) {
        self.tell(|| format!("VIOLATION {violation:?}"));
        if self.violations.len() < 5 {
            self.violations.push(violation);
        }
    }

    pub fn after(&mut self, ms: i64, event: Event) {
        self.next += 1;
        self.queue.push(Reverse((self.now() + ms.max(0), self.next)));
        self.events.insert(self.next, event);
    }

    /// Runs until everything has settled, a rule is broken, or it is clear that it never will settle.
    pub fn run(&mut self) {
        let mut events = 0;
        while let Some(Reverse((at, key))) = self.queue.pop() {
            let Some(event) = self.events.remove(&key) else {
                continue;
            };
            self.office.now = self.office.now.max(at);
            self.happen(event);
            events += 1;
            if !self.violations.is_empty() || self.healed && self.has_settled() {
                break;
            }
            if events > EVENTS_MAX || self.has_taken_too_long() {
                self.tell_what_is_left();
                self.wrong(Violation::NeverSettles);
                break;
            }
        }
        if self.violations.is_empty() {
            self.check_the_end();
        }
    }

    fn tell_what_is_left(&mut self) {
        for row in self
            .office
            .rows
            .clone()
            .into_values()
            .filter(|row| !row.state.is_final())
        {
            self.tell(|| format!("left: {row:?}"));
        }
        for who in 0..self.stations.len() {
            let station = &self.stations[who];
            let waiting: Vec<_> = station.paper.waiting().collect();
            let left = format!("{who}: {:?} {:?} {waiting:?}", station.work, station.desk);
            self.tell(|| left);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives {
                who,
                launch,
                question,
                back_ms,
            } => {
                let answer = self.answer(who, question);
                if let Some(ms) = back_ms {
                    self.after(ms, Event::Answered { who, launch, answer });
                }
            }
            Event::AgentEnds { session, turn, how } => self.agent_ends(session, turn, how),
            Event::Enqueue {
                command,
                kind,
                session,
                target,
                ttl_ms,
            } => {
                self.tell(|| {
                    format!(
                        "enqueued {kind} {command} for {session:?}, for {} s",
                        ttl_ms / 1_000
                    )
                });
                self.targets.extend(target.map(|target| (command, target)));
                let priority = if URGENT_KINDS.contains(&kind) { 100 } else { 0 };
                self.office.enqueue(command.0, kind, session, priority, ttl_ms);
                self.ring(None);
            }
            Event::SomebodyCancels { command } => {
                self.tell(|| format!("somebody cancels {command}"));
                self.office.cancel(command.0);
                self.cancelled.push(command);
                self.ring(Some(command));
            }
            Event::Fault { who, fault } => self.fault(who, fault),
            Event::Start { who } => self.start(who),
            Event::JournalWorks { who } => self.stations[who].paper.broken = false,
            Event::Heal => self.heal(),
            Event::LookForLost => self.check_nothing_lies_about(),
            Event::Tick { who, .. }
            | Event::Doorbell { who, .. }
            | Event::Answered { who, .. }
            | Event::SessionReady { who, .. }
            | Event::Step { who, .. }
            | Event::Noticed { who, .. }
            | Event::TimedOut { who, .. } => self.at_workstation(who, event),
        }
    }

    /// Doorbells are hints: some get lost.
    fn ring(&mut self, cancel: Option<CommandId>) {
        for who in 0..self.stations.len() {
            if !self.dice.per_mille(self.faults.doorbells_lost) {
                let ms = self.dice.between(5, 400);
                self.after(ms, Event::Doorbell { who, cancel });
            }
        }
    }

    /// Sends a question through the network, with what may happen to it there.
    pub fn ask(&mut self, who: Who, question: Question) {
        // What a dead core would still have done.
        if !self.stations[who].is_up {
            return;
        }
        let launch = self.stations[who].launch;
        if !matches!(question, Question::Claim { .. }) {
            self.tell(|| format!("{who} asks {question:?}"));
        }
        let faults = self.faults;
        let there = self.delay();
        let back = self.delay();
        let cut = self.stations[who].cut_until > self.now();
        let lost = cut || self.happens(faults.questions_lost);
        let answer_lost = self.happens(faults.answers_lost) || there + back > REQUEST_TIMEOUT_MS;
        if !lost && self.happens(faults.doubled) {
            let later = there + self.delay();
            let again = question.clone();
            self.arrive_after(later, who, launch, again, None);
        }
        if lost || answer_lost {
            let none = no_answer(&question);
            let answer = Event::Answered {
                who,
                launch,
                answer: none,
            };
            // Refused at once, or never answered.
            let refused = lost && self.dice.per_mille(500);
            self.after(if refused { 5 } else { REQUEST_TIMEOUT_MS }, answer);
        }
        if !lost {
            let back_ms = (!answer_lost).then_some(back);
            self.arrive_after(there, who, launch, question, back_ms);
        }
    }

    fn arrive_after(&mut self, ms: i64, who: Who, launch: u32, question: Question, back_ms: Option<i64>) {
        let event = Event::Arrives {
            who,
            launch,
            question,
            back_ms,
        };
        self.after(ms, event);
    }

    fn happens(&mut self, per_mille: u32) -> bool {
        !self.healed && self.dice.per_mille(per_mille)
    }

    fn delay(&mut self) -> i64 {
        if self.happens(self.faults.slow) {
            self.dice.between(200, 25_000)
        } else {
            self.dice.between(2, 120)
        }
    }

    /// What the office says to a question, at the moment at which it arrives.
    fn answer(&mut self, who: Who, question: Question) -> Answer {
        let by = self.stations[who].by();
        let answer = match question {
            Question::Claim {
                wanted,
                lease_s,
                known,
            } => {
                let (limit, kinds) = match wanted {
                    Wanted::Any { limit } => (limit, None),
                    Wanted::Urgent { limit } => (limit, Some(URGENT_KINDS.as_slice())),
                };
                let claimed = self.office.claim(
                    by,
                    limit as usize,
                    i64::from(lease_s) * 1_000,
                    kinds,
                    known.as_deref(),
                );
                match claimed {
                    Some(claimed) => Answer::Claim(Some(claimed)),
                    None => Answer::AnotherIsThisClient,
                }
            }
            Question::Renew { command, token } => Answer::Renew(
                command,
                token,
                Some(self.office.renew(command.0, token, LEASE_MS)),
            ),
            Question::Begin { command, token } => {
                self.next += 1;
                let note = Uuid::from_u128(u128::from(self.next) << 100);
                let said = self.office.begin(command.0, token, by.folder, note, LEASE_MS);
                Answer::Begin(command, token, Some(said))
            }
            Question::Report {
                command,
                token,
                result,
                status,
            } => {
                let said = self.office.complete(command.0, token, result, Some(status));
                self.check_report(command, token, &said);
                Answer::Report(command, result, Some(said))
            }
            Question::Cancel { command, target } => {
                self.cancelled.push(target);
                let said = self.office.cancel(target.0);
                self.ring(Some(target));
                Answer::Cancel(command, Some(said))
            }
        };
        if !matches!(&answer, Answer::Claim(Some(rows)) if rows.is_empty()) {
            self.tell(|| format!("the office to {who}: {answer:?}"));
        }
        answer
    }

    pub fn new_agent(&mut self, who: Who) -> Uuid {
        self.sessions += 1;
        let session = Uuid::from_u128(self.sessions << 32);
        let agent = Agent {
            who,
            alive: true,
            silent_until: 0,
            turn: None,
            transcript: BTreeMap::new(),
            turns: 0,
        };
        self.agents.insert(session, agent);
        self.office.sessions.insert(session, self.stations[who].client);
        session
    }

    /// Enter was pressed: the prompt has reached the model.
    pub fn enter(&mut self, session: Uuid, command: CommandId) {
        let (who, turn) = match self.agents.get_mut(&session) {
            Some(agent) if agent.alive => {
                agent.turns += 1;
                agent.turn = Some((command, agent.turns));
                (agent.who, agent.turns)
            }
            _ => return,
        };
        self.effect(who, command, Some(session));
        // Some hang: nothing ends them but us.
        if !self.dice.per_mille(self.faults.hang) {
            let how = if self.dice.per_mille(self.faults.die) {
                Ended::Died
            } else {
                Ended::Done
            };
            let ms = self.dice.one_of(&[300, 2_000, 15_000, 70_000, 130_000]);
            let ms = self.dice.between(ms / 2, ms);
            self.after(ms, Event::AgentEnds { session, turn, how });
        }
    }

    pub fn agent_ends(&mut self, session: Uuid, turn: u64, how: Ended) {
        let now = self.now();
        let Some(agent) = self.agents.get_mut(&session) else {
            return;
        };
        // It sleeps with its machine.
        let asleep_until = self.stations[agent.who].asleep_until;
        if asleep_until > now {
            return self.after(asleep_until - now, Event::AgentEnds { session, turn, how });
        }
        let Some((command, _)) = agent.turn.filter(|(_, its)| *its == turn) else {
            return;
        };
        agent.turn = None;
        agent.transcript.insert(command, how);
        agent.alive &= how != Ended::Died;
        let who = agent.who;
        self.tell(|| format!("the turn of {command} ends: {how:?}"));
        let launch = self.stations[who].launch;
        self.after(15, Event::Noticed { who, launch, command });
    }

    /// Interrupts what runs in a session.
    pub fn interrupt(&mut self, session: Uuid) {
        let turn = self.agents.get(&session).and_then(|agent| agent.turn);
        if let Some((_, turn)) = turn {
            let how = Ended::Interrupted;
            self.after(100, Event::AgentEnds { session, turn, how });
        }
    }

    fn fault(&mut self, who: Who, fault: Fault) {
        if self.healed {
            return;
        }
        let now = self.now();
        let asleep_until = self.stations[who].asleep_until;
        if asleep_until > now {
            return self.after(asleep_until - now, Event::Fault { who, fault });
        }
        self.tell(|| format!("{who}: {fault:?}"));
        match fault {
            Fault::Crash { down_ms } => self.crash(who, down_ms),
            Fault::PowerCut { down_ms } => {
                self.crash(who, down_ms);
                for agent in self.agents.values_mut().filter(|agent| agent.who == who) {
                    agent.alive = false;
                    if let Some((command, _)) = agent.turn.take() {
                        agent.transcript.insert(command, Ended::Died);
                    }
                }
            }
            Fault::Sleep { ms } => {
                let station = &mut self.stations[who];
                if station.asleep_until <= now {
                    station.asleep_until = now + ms;
                    station.slept_ms += ms;
                }
            }
            Fault::NetworkGone { ms } => self.stations[who].cut_until = now + ms,
            Fault::ClockSet { by_ms } => self.stations[who].skew_ms += by_ms,
            Fault::DiskFull { ms } => {
                self.stations[who].paper.broken = true;
                self.after(ms, Event::JournalWorks { who });
            }
            Fault::Copied { start_ms } => {
                let copy = self.stations.len();
                if copy < STATIONS_MAX {
                    self.stations.push(self.stations[who].copied(copy));
                    self.after(start_ms, Event::Start { who: copy });
                }
            }
            Fault::HolderSilent { ms } => {
                for agent in self.agents.values_mut().filter(|agent| agent.who == who) {
                    agent.silent_until = now + ms;
                }
            }
        }
    }

    /// The core of a workstation dies.
    pub fn crash(&mut self, who: Who, down_ms: i64) {
        self.tell(|| format!("{who} crashes"));
        let station = &mut self.stations[who];
        if station.is_up {
            station.forget();
            self.after(down_ms, Event::Start { who });
        }
    }

    /// From here on nothing goes wrong any more.
    fn heal(&mut self) {
        let now = self.now();
        let asleep_until = self.stations.iter().map(|station| station.asleep_until).max();
        if let Some(until) = asleep_until.filter(|until| *until > now) {
            return self.after(until - now, Event::Heal);
        }
        self.tell(|| "everything is well from here on".to_owned());
        self.healed = true;
        self.healed_at = now;
        self.after(FOUND_AGAIN_AFTER_MS, Event::LookForLost);
        self.faults = Faults::none();
        for who in 0..self.stations.len() {
            let station = &mut self.stations[who];
            station.cut_until = now;
            station.paper.broken = false;
            if !station.is_up {
                self.after(0, Event::Start { who });
            }
        }
        for agent in self.agents.values_mut() {
            agent.silent_until = now;
        }
    }
}

fn no_answer(question: &Question) -> Answer {
    match question {
        Question::Claim { .. } => Answer::Claim(None),
        Question::Renew { command, token } => Answer::Renew(*command, *token, None),
        Question::Begin { command, token } => Answer::Begin(*command, *token, None),
        Question::Report { command, result, .. } => Answer::Report(*command, *result, None),
        Question::Cancel { command, .. } => Answer::Cancel(*command, None),
    }
}

//! What a seed makes of a schedule: how many workstations and commands, what goes wrong and how often.

use domain::CommandId;
use uuid::Uuid;

use super::random::Dice;
use super::workstation::Workstation;
use super::world::{Event, Fault, World};

/// How long things go wrong.
const TROUBLE_MS: i64 = 300_000;

/// How often what goes wrong, in a thousand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Faults {
    pub doorbells_lost: u32,
    pub questions_lost: u32,
    pub answers_lost: u32,
    pub doubled: u32,
    pub slow: u32,
    /// At each step of a command.
    pub crash_at_step: u32,
    pub hang: u32,
    pub die: u32,
}

impl Faults {
    pub fn none() -> Faults {
        Faults {
            doorbells_lost: 0,
            questions_lost: 0,
            answers_lost: 0,
            doubled: 0,
            slow: 0,
            crash_at_step: 0,
            hang: 0,
            die: 0,
        }
    }

    pub fn draw(dice: &mut Dice) -> Faults {
        Faults {
            doorbells_lost: dice.one_of(&[0, 100, 500, 1_000]),
            questions_lost: dice.one_of(&[0, 0, 20, 150]),
            answers_lost: dice.one_of(&[0, 20, 100, 250]),
            doubled: dice.one_of(&[0, 50, 300]),
            slow: dice.one_of(&[0, 0, 30, 150]),
            crash_at_step: dice.one_of(&[0, 0, 10, 60]),
            hang: dice.one_of(&[0, 0, 100]),
            die: dice.one_of(&[0, 50, 200]),
        }
    }
}

fn command_of(number: i64) -> CommandId {
    CommandId(Uuid::from_u128(0xc0_0000 + number as u128))
}

impl World {
    /// Draws the schedule.
    pub fn draw(&mut self) {
        let stations = self.dice.between(1, 4) as usize;
        for who in 0..stations {
            self.stations.push(Workstation::new(who));
            for _ in 0..self.dice.between(0, 3) {
                let session = self.new_agent(who);
                self.stations[who].paper.sessions.insert(session);
            }
            self.after(0, Event::Start { who });
        }
        self.draw_commands();
        for who in 0..stations {
            for _ in 0..self.dice.between(0, 4) {
                let fault = self.draw_fault();
                let at = self.dice.between(500, TROUBLE_MS);
                self.after(at, Event::Fault { who, fault });
            }
        }
        self.after(TROUBLE_MS, Event::Heal);
    }

    fn draw_commands(&mut self) {
        let sessions: Vec<_> = self.agents.keys().copied().collect();
        for number in 0..self.dice.between(1, 8) {
            let command = command_of(number);
            let kind = self.dice.one_of(&[
                "send_prompt",
                "send_prompt",
                "send_prompt",
                "send_keys",
                "approve",
                "cancel",
                "create_session",
                "terminate",
                "list_sessions",
            ]);
            // A cancel names the session, or one of the commands before it.
            let target = (kind == "cancel" && number > 0 && self.dice.per_mille(500))
                .then(|| command_of(self.dice.between(0, number)));
            let named = match kind {
                "send_prompt" => self.dice.per_mille(500),
                "create_session" | "list_sessions" => false,
                _ => target.is_none(),
            };
            // One that nobody has, now and then.
            let session = named.then(|| match self.dice.per_mille(30) || sessions.is_empty() {
                true => Uuid::from_u128(7),
                false => self.dice.one_of(&sessions),
            });
            let ttl_ms = self.dice.one_of(&[3_600_000, 3_600_000, 600_000, 90_000, 20_000]);
            let at = self.dice.between(100, TROUBLE_MS / 2);
            self.after(
                at,
                Event::Enqueue {
                    command,
                    kind,
                    session,
                    target,
                    ttl_ms,
                },
            );
            if self.dice.per_mille(80) {
                let at = at + self.dice.between(10, 120_000);
                self.after(at, Event::SomebodyCancels { command });
            }
        }
    }

    fn draw_fault(&mut self) -> Fault {
        let dice = &mut self.dice;
        let span = |dice: &mut Dice| match dice.between(0, 3) {
            0 => dice.between(1_000, 15_000),
            1 => dice.between(15_000, 90_000),
            _ => dice.between(60_000, 200_000),
        };
        match dice.between(0, 15) {
            0..=2 => Fault::Crash { down_ms: span(dice) },
            3 => Fault::PowerCut { down_ms: span(dice) },
            4..=5 => Fault::Sleep { ms: span(dice) },
            6 => Fault::Sleep {
                ms: dice.between(10, 240) * 60_000,
            },
            7..=9 => Fault::NetworkGone { ms: span(dice) },
            10 => Fault::ClockSet {
                by_ms: dice.one_of(&[-86_400_000, -3_600_000, -70_000, 70_000, 3_600_000]),
            },
            11..=12 => Fault::DiskFull { ms: span(dice) },
            13 => Fault::HolderSilent { ms: span(dice) },
            _ => Fault::Copied { start_ms: span(dice) },
        }
    }
}

//! Thousands of invented schedules: the signs of turns whose truth is known, each sign lost, doubled, delayed or out of
//! order by chance. Whatever is made of them is the truth or `unconfirmed`; and when nothing is lost, it is the truth.

use domain::TurnId;
use domain::marker::Marker;
use domain::turn::TurnOutcome;
use provider::claude::{HookKind, TranscriptFact};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use uuid::Uuid;

use super::tests::{DONE, END, PROMPT, busy, event, expected, fact, note, prompt_hook, ready, said, stop};
use super::*;

/// Turns in one session, one after the other, so that old signs can reach new turns.
const TURNS: usize = 4;
const SCHEDULES: u64 = 3_000;
/// Longest delay of a sign.
const DELAY_MAX_MS: u64 = 6_000;

/// What really happened to a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truth {
    Done,
    NotMarked,
    Failed,
    Interrupted,
    DoneAfterBackground,
}

const TRUTHS: [Truth; 5] = [
    Truth::Done,
    Truth::NotMarked,
    Truth::Failed,
    Truth::Interrupted,
    Truth::DoneAfterBackground,
];

/// One sign at its time.
#[derive(Clone)]
enum Sign {
    Hook(HookEvent),
    Fact(DatedFact),
}

/// How often a sign is lost, doubled and delayed, in percent.
#[derive(Clone, Copy)]
struct Weather {
    lost: u32,
    doubled: u32,
    delayed: u32,
}

struct World {
    follower: Follower,
    weather: Weather,
    chance: StdRng,
    now: u64,
    /// Signs on their way, by their time.
    coming: Vec<(u64, Sign)>,
    hooks_down: bool,
    record_down: bool,
}

impl World {
    fn new(seed: u64, weather: Weather) -> World {
        let mut chance = StdRng::seed_from_u64(seed);
        let calm = weather.lost == 0;
        World {
            follower: Follower::new(Witnesses::ALL),
            hooks_down: !calm && chance.random_ratio(1, 6),
            record_down: !calm && chance.random_ratio(1, 6),
            weather,
            chance,
            now: 0,
            coming: Vec::new(),
        }
    }

    fn percent(&mut self, percent: u32) -> bool {
        self.chance.random_ratio(percent, 100)
    }

    fn send(&mut self, at: u64, sign: Sign) {
        let down = match &sign {
            Sign::Hook(_) => self.hooks_down,
            Sign::Fact(_) => self.record_down,
        };
        if down || self.percent(self.weather.lost) {
            return;
        }
        let copies = if self.percent(self.weather.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = if self.percent(self.weather.delayed) {
                self.chance.random_range(0..DELAY_MAX_MS)
            } else {
                0
            };
            self.coming.push((at + delay, sign.clone()));
        }
    }

    fn hook(&mut self, at: u64, event: HookEvent) {
        self.send(at, Sign::Hook(event));
    }

    fn fact(&mut self, at: u64, prompt: &str, what: TranscriptFact) {
        // Now and then a line's chain is broken.
        let lost = self.weather.lost;
        let prompt = (!self.percent(lost / 2)).then_some(prompt);
        self.send(at, Sign::Fact(fact(prompt, what)));
    }

    /// Lets time go on in small steps until `until`; the screen shows whether the agent works.
    fn pass(&mut self, until: u64, working: bool, verdicts: &mut Vec<Verdict>) {
        while self.now < until {
            self.now += 50;
            let due: Vec<Sign> = {
                let now = self.now;
                let (due, rest) = self.coming.drain(..).partition(|(at, _)| *at <= now);
                self.coming = rest;
                due.into_iter().map(|(_, sign): (u64, Sign)| sign).collect()
            };
            for sign in due {
                match sign {
                    Sign::Hook(event) => self.follower.observe(self.now, Observation::Hook(&event)),
                    Sign::Fact(fact) => self.follower.observe(self.now, Observation::Fact(fact)),
                }
            }
            if self.now.is_multiple_of(500) {
                let activity = if working { Activity::Busy } else { Activity::Idle };
                self.follower
                    .observe(self.now, Observation::Activity(Some(activity)));
                let reading = if working { busy() } else { ready() };
                let screen = Observation::Screen {
                    reading: &reading,
                    turn: None,
                };
                self.follower.observe(self.now, screen);
            }
            verdicts.extend(self.follower.verdict(self.now));
            while self.follower.news().is_some() {}
        }
    }

    /// One turn from its submission on; gives what was made of it.
    fn turn(&mut self, number: usize, truth: Truth) -> Option<Verdict> {
        let (id, woken) = (format!("p{number}"), format!("w{number}"));
        // The same prompt every time: only ids can tell the turns apart.
        let began = expected(number as u128 + 1, Marker::Plain);
        self.follower.observe(self.now, Observation::Began(began));
        let start = self.now;
        self.hook(start + 100, prompt_hook(&id, PROMPT));
        let prompted = TranscriptFact::UserPrompt { text: PROMPT.into() };
        self.fact(start + 120, &id, prompted);
        let mut verdicts = Vec::new();
        self.pass(start + 500, true, &mut verdicts);
        let source = self.follower.acknowledged_by().unwrap_or("status");
        let submitted = Observation::Submitted { source, enters: 1 };
        self.follower.observe(self.now, submitted);
        let end = start + self.chance.random_range(600..4_000);
        let end = self.happen(truth, &id, &woken, end);
        self.pass(end, true, &mut verdicts);
        // Longer than anything that is waited for.
        let limit = end + 60_000;
        while verdicts.is_empty() && self.now < limit {
            let step = self.now + 500;
            self.pass(step, false, &mut verdicts);
        }
        self.follower.finish();
        assert!(verdicts.len() <= 1, "a turn ends once: {verdicts:?}");
        verdicts.pop()
    }

    /// Sends what a turn of that truth makes its channels say; gives the moment at which the agent rests.
    fn happen(&mut self, truth: Truth, id: &str, woken: &str, end: u64) -> u64 {
        match truth {
            Truth::Done => self.stops(end, id, DONE, &[]),
            Truth::NotMarked => self.stops(end, id, "Half of it is left.", &[]),
            Truth::Failed => {
                let error = TranscriptFact::ApiError {
                    status: Some(500),
                    error: "server_error".into(),
                    message: "API Error: 500".into(),
                };
                self.fact(end, id, error);
                self.fact(end + 5, id, END);
                let failure = HookKind::StopFailure {
                    error: "server_error".into(),
                    detail: "API Error: 500".into(),
                };
                self.hook(end, event(Some(id), failure));
            }
            Truth::Interrupted => {
                self.fact(end - 50, id, said("I begin."));
                self.fact(end, id, TranscriptFact::Interrupted);
            }
            Truth::DoneAfterBackground => {
                let launched = HookKind::ToolDone {
                    name: "Bash".into(),
                    input: json!({"command": "sleep 5"}),
                    response: json!({"stdout": "", "backgroundTaskId": format!("b-{id}")}),
                    duration_ms: None,
                    ok: true,
                    id: Some(format!("use-{id}")),
                };
                let task = format!("b-{id}");
                self.hook(end - 300, event(Some(id), launched));
                // What it says while work is running is not true yet.
                self.stops(end - 200, id, "It runs.\n\n[SEMO:DONE]", &[&task]);
                let later = end + 5_000;
                self.hook(later, note(woken, &task));
                let notified = TranscriptFact::Notified { tasks: vec![task] };
                self.fact(later, woken, notified);
                self.stops(later + 400, woken, "Now it is over.\n\n[SEMO:DONE]", &[]);
                return later + 450;
            }
        }
        end + 20
    }

    fn stops(&mut self, at: u64, id: &str, message: &str, background: &[&str]) {
        self.fact(at, id, said(message));
        self.hook(at + 10, stop(id, message, background));
        self.fact(at + 15, id, END);
    }
}

fn is_true(truth: Truth, outcome: &TurnOutcome) -> bool {
    match (truth, outcome) {
        (Truth::Done | Truth::DoneAfterBackground, TurnOutcome::Done) => true,
        (Truth::NotMarked, TurnOutcome::Unconfirmed { .. }) => true,
        (Truth::Failed, TurnOutcome::Failed { class, .. }) => *class == FailureClass::Server,
        (Truth::Interrupted, TurnOutcome::Cancelled) => true,
        _ => false,
    }
}

/// Runs one session; gives how many turns were told truly.
fn run(seed: u64, weather: Weather) -> usize {
    let mut world = World::new(seed, weather);
    let mut ready_first = Vec::new();
    world.pass(500, false, &mut ready_first);
    let mut told = 0;
    for number in 0..TURNS {
        let truth = TRUTHS[world.chance.random_range(0..TRUTHS.len())];
        let verdict = world.turn(number, truth);
        let Some(verdict) = verdict else {
            panic!("seed {seed}, turn {number}: {truth:?} has no end")
        };
        let true_word = is_true(truth, &verdict.outcome);
        let unconfirmed = matches!(verdict.outcome, TurnOutcome::Unconfirmed { .. });
        assert!(
            true_word || unconfirmed,
            "seed {seed}, turn {number}: {truth:?} was told as {verdict:?}"
        );
        told += usize::from(true_word);
    }
    told
}

#[test]
fn whatever_gets_lost_doubled_delayed_or_out_of_order_no_turn_is_told_wrongly() {
    let mut told = 0;
    for seed in 0..SCHEDULES {
        let weather = Weather {
            lost: (seed % 5) as u32 * 12,
            doubled: 20,
            delayed: 30,
        };
        told += run(seed, weather);
    }
    let all = SCHEDULES as usize * TURNS;
    assert!(told * 2 > all, "only {told} of {all} turns were told at all");
}

#[test]
fn in_fair_weather_every_turn_is_told_as_it_was() {
    let fair = Weather {
        lost: 0,
        doubled: 0,
        delayed: 0,
    };
    for seed in 0..200 {
        assert_eq!(run(seed, fair), TURNS, "seed {seed}");
    }
}

#[test]
fn an_id_of_a_turn_is_the_one_it_began_with() {
    let mut follower = Follower::new(Witnesses::ALL);
    follower.observe(0, Observation::Began(expected(7, Marker::None)));
    let explanation = follower.explain();
    assert_eq!(
        explanation.turns[0].turn,
        Some(TurnId(Uuid::from_u128(7)).to_string())
    );
}

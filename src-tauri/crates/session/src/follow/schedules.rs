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

use super::tests::{DONE, END, PROMPT, busy, event, expected, fact, note, prompt_hook, ready, said, stop_of};
use super::*;

mod gaps;

use gaps::{Gap, Written};

/// Turns in one session, one after the other, so that old signs can reach new turns.
const TURNS: usize = 5;
/// What a person's turn and the work of earlier turns say, marked as ours would be.
const OTHERS: &str = "That is for you.\n\n[SEMO:DONE]";
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
    /// Its server runs on, and its time is over.
    LeftServer,
    Cancelled,
    /// It was done, and then somebody cancelled it.
    CancelledTooLate,
    /// A stop hook objected to a marked stop; then it was done.
    BlockedThenDone,
    /// The same; then it gave up.
    BlockedThenNotMarked,
    /// The program ended in the middle of it.
    Crashed,
    /// It was done, and the program ended right behind it.
    DoneThenExit,
    /// The session was ended in the middle of it.
    Terminated,
    /// It was done, and the session was ended right behind it.
    DoneThenTerminated,
}

impl Truth {
    fn ends_the_program(self) -> bool {
        matches!(
            self,
            Truth::Crashed | Truth::DoneThenExit | Truth::Terminated | Truth::DoneThenTerminated
        )
    }
}

const TRUTHS: [Truth; 14] = [
    Truth::Done,
    Truth::NotMarked,
    Truth::Failed,
    Truth::Interrupted,
    Truth::DoneAfterBackground,
    Truth::LeftServer,
    Truth::Cancelled,
    Truth::CancelledTooLate,
    Truth::BlockedThenDone,
    Truth::BlockedThenNotMarked,
    // These end the session: they come last.
    Truth::Crashed,
    Truth::DoneThenExit,
    Truth::Terminated,
    Truth::DoneThenTerminated,
];

/// What happens beside a turn of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// A person's Enter lands just after ours began.
    TypedFirst,
    /// A server that an earlier turn has left wakes the agent.
    ServerWakes,
}

/// One sign at its time.
#[derive(Clone)]
enum Sign {
    Hook(HookEvent),
    Fact(DatedFact),
    Act(Act),
}

/// What we do, or the system tells us: never lost, never late.
#[derive(Debug, Clone, Copy)]
enum Act {
    Cancel,
    TimeLimit,
    Stop,
    EndedOnRequest,
    Exit,
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
    /// A version whose stops name no prompt.
    nameless: bool,
    /// The servers that earlier turns have left.
    servers: Vec<String>,
    written: Written,
}

impl World {
    fn new(seed: u64, weather: Weather) -> World {
        let mut chance = StdRng::seed_from_u64(seed);
        let calm = weather.lost == 0;
        World {
            follower: Follower::new(Witnesses::ALL),
            hooks_down: !calm && chance.random_ratio(1, 6),
            record_down: !calm && chance.random_ratio(1, 6),
            nameless: chance.random_ratio(1, 6),
            servers: Vec::new(),
            written: Written::default(),
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
            Sign::Act(_) => false,
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

    fn act(&mut self, at: u64, act: Act) {
        self.coming.push((at, Sign::Act(act)));
    }

    fn stop(&mut self, at: u64, id: &str, message: &str, background: &[&str], again: bool) {
        let id = (!self.nameless).then_some(id);
        self.hook(at, stop_of(id, message, background, again));
    }

    /// Lines of the record in their order: all of them, or none.
    fn facts_in_order(&mut self, id: &str, facts: Vec<(u64, TranscriptFact)>) {
        if self.record_down {
            return;
        }
        let delay = match self.percent(self.weather.delayed) {
            true => self.chance.random_range(0..DELAY_MAX_MS),
            false => 0,
        };
        for (at, what) in facts {
            self.coming.push((at + delay, Sign::Fact(fact(Some(id), what))));
        }
    }

    fn do_act(&mut self, act: Act) {
        let now = self.now;
        let seen = match act {
            Act::Cancel => {
                self.follower.observe(now, Observation::CancelRequested);
                Observation::InterruptSent
            }
            Act::TimeLimit => Observation::TimeLimit,
            Act::Stop => Observation::StopRequested,
            Act::EndedOnRequest => Observation::EndedOnRequest,
            Act::Exit => {
                // What was written is read to its end; what was on its way over the network is lost.
                let mut left = std::mem::take(&mut self.coming);
                left.sort_by_key(|(at, _)| *at);
                for (_, sign) in left {
                    if let Sign::Fact(fact) = sign {
                        self.follower.observe(now, Observation::Fact(fact));
                    }
                }
                Observation::Exit(Some(0))
            }
        };
        self.follower.observe(now, seen);
        if matches!(act, Act::Exit) {
            self.follower.settle_now(now);
        }
    }

    /// Lets time go on in small steps until `until`; the screen shows whether the agent works.
    fn pass(&mut self, until: u64, working: bool, verdicts: &mut Vec<(Option<TurnId>, Verdict)>) {
        while self.now < until {
            self.now += 50;
            self.step_gap(working);
            let due: Vec<Sign> = {
                let now = self.now;
                let (mut due, rest): (Vec<_>, _) = self.coming.drain(..).partition(|(at, _)| *at <= now);
                self.coming = rest;
                due.sort_by_key(|(at, _)| *at);
                due.into_iter().map(|(_, sign): (u64, Sign)| sign).collect()
            };
            for sign in due {
                if self.reaches_nobody(&sign) {
                    continue;
                }
                match sign {
                    Sign::Hook(event) => self.follower.observe(self.now, Observation::Hook(&event)),
                    Sign::Fact(fact) => self.follower.observe(self.now, Observation::Fact(fact)),
                    Sign::Act(act) => self.do_act(act),
                }
            }
            if self.is_dead() {
                continue;
            }
            self.wait_for_acknowledgement();
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
            // Nothing is judged while the submission goes on.
            if !self.awaits_acknowledgement() {
                verdicts.extend(self.follower.next_verdict(self.now));
            }
            while self.follower.news().is_some() {}
        }
    }

    /// A person's own turn, from its Enter to its end.
    fn typed(&mut self, number: usize) {
        let (id, start) = (format!("t{number}"), self.now);
        self.typed_prompt(start + 50, &id);
        self.stops(start + 900, &id, OTHERS, &[], false);
        let mut verdicts = Vec::new();
        self.pass(start + 950, true, &mut verdicts);
        self.pass(start + 15_000, false, &mut verdicts);
        assert!(verdicts.iter().all(|(whose, _)| whose.is_none()), "{verdicts:?}");
        assert_eq!(
            *self.follower.state(),
            SessionState::Idle,
            "free for the next one"
        );
    }

    fn typed_prompt(&mut self, at: u64, id: &str) {
        // What a person types may hold our prompt.
        let prompt = format!("do not {PROMPT} yet");
        self.hook(at, prompt_hook(id, &prompt));
        self.fact(at + 20, id, TranscriptFact::UserPrompt { text: prompt });
    }

    /// What happens beside the turn, in its first moments.
    fn beside(&mut self, number: usize, start: u64, beside: Beside) {
        let id = format!("beside{number}");
        match beside {
            Beside::Nothing => return,
            Beside::TypedFirst => self.typed_prompt(start + 5, &id),
            Beside::ServerWakes => {
                let Some(server) = self.servers.pop() else { return };
                self.hook(start + 400, note(&id, &server));
                let tasks = vec![server];
                self.fact(start + 400, &id, TranscriptFact::Notified { tasks });
            }
        }
        let end = if beside == Beside::TypedFirst {
            start + 60
        } else {
            start + 500
        };
        self.stops(end, &id, OTHERS, &[], false);
    }

    /// One turn from its submission on; gives what was made of it.
    fn turn(&mut self, number: usize, truth: Truth, beside: Beside) -> Option<Verdict> {
        let (id, woken) = (format!("p{number}"), format!("w{number}"));
        // The same prompt every time: only ids can tell the turns apart.
        let began = expected(number as u128 + 1, Marker::Plain);
        let ours = began.turn;
        self.follower.observe(self.now, Observation::Began(began));
        self.begun(number);
        let start = self.now;
        self.beside(number, start, beside);
        self.hook(start + 100, prompt_hook(&id, PROMPT));
        let prompted = TranscriptFact::UserPrompt { text: PROMPT.into() };
        self.fact(start + 120, &id, prompted);
        let mut verdicts = Vec::new();
        self.pass(start + 500, true, &mut verdicts);
        self.taken();
        let end = start + self.chance.random_range(600..4_000);
        let end = self.happen(truth, &id, &woken, end);
        self.pass(end, true, &mut verdicts);
        // Longer than anything that is waited for.
        let limit = end + 60_000 + self.written.gap.map_or(0, |gap| gap.until);
        while verdicts.is_empty() && self.now < limit {
            let step = self.now + 500;
            self.pass(step, false, &mut verdicts);
        }
        self.follower.finish();
        assert!(verdicts.len() <= 1, "a turn ends once: {verdicts:?}");
        let (whose, verdict) = verdicts.pop()?;
        assert_eq!(whose, ours, "a verdict is its own turn's");
        Some(verdict)
    }

    /// Sends what a turn of that truth makes its channels say; gives the moment at which the agent rests.
    fn happen(&mut self, truth: Truth, id: &str, woken: &str, end: u64) -> u64 {
        match truth {
            Truth::Done => self.stops(end, id, DONE, &[], false),
            Truth::NotMarked => self.stops(end, id, "Half of it is left.", &[], false),
            Truth::Failed => self.fails(end, id),
            Truth::Interrupted | Truth::Cancelled => {
                self.fact(end - 50, id, said("I begin."));
                self.fact(end, id, TranscriptFact::Interrupted);
                if truth == Truth::Cancelled {
                    self.act(end - 40, Act::Cancel);
                }
            }
            Truth::DoneAfterBackground => return self.works_in_background(id, woken, end),
            Truth::LeftServer => {
                let server = format!("server-{id}");
                self.launches(end - 300, id, &server);
                self.stops(end, id, "The server runs.\n\n[SEMO:DONE]", &[&server], false);
                self.act(end + 3_000, Act::TimeLimit);
                self.servers.push(server);
            }
            Truth::CancelledTooLate => {
                self.stops(end, id, DONE, &[], false);
                self.act(end + 18, Act::Cancel);
            }
            Truth::BlockedThenDone => return self.is_blocked(id, "With tests.\n\n[SEMO:DONE]", end),
            Truth::BlockedThenNotMarked => return self.is_blocked(id, "Half of it is left.", end),
            Truth::Crashed => {
                self.fact(end - 50, id, said("I begin."));
                self.act(end, Act::Exit);
            }
            Truth::Terminated => {
                self.fact(end - 50, id, said("I begin."));
                self.ends_session(end);
            }
            Truth::DoneThenExit => {
                self.stops(end, id, DONE, &[], false);
                self.act(end + 60, Act::Exit);
            }
            Truth::DoneThenTerminated => {
                self.stops(end, id, DONE, &[], false);
                self.ends_session(end + 60);
            }
        }
        end + 20
    }

    fn ends_session(&mut self, at: u64) {
        self.act(at, Act::Stop);
        self.act(at + 30, Act::EndedOnRequest);
        self.act(at + 31, Act::Exit);
    }

    fn fails(&mut self, end: u64, id: &str) {
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

    fn launches(&mut self, at: u64, id: &str, task: &str) {
        let launched = HookKind::ToolDone {
            name: "Bash".into(),
            input: json!({"command": "sleep 5"}),
            response: json!({"stdout": "", "backgroundTaskId": task}),
            duration_ms: None,
            ok: true,
            id: Some(format!("use-{id}")),
        };
        self.hook(at, event(Some(id), launched));
        if self.record_down {
            return;
        }
        // The record's lines come in their order: this one is there when the end is.
        let used = TranscriptFact::ToolUse {
            id: format!("use-{id}"),
            name: "Bash".into(),
            input: json!({"command": "sleep 5"}),
        };
        let answered = TranscriptFact::ToolResult {
            id: format!("use-{id}"),
            ok: true,
            text: String::new(),
            response: json!({"stdout": "", "backgroundTaskId": task}),
        };
        for what in [used, answered] {
            self.coming.push((at, Sign::Fact(fact(Some(id), what))));
        }
    }

    fn works_in_background(&mut self, id: &str, woken: &str, end: u64) -> u64 {
        let task = format!("b-{id}");
        self.launches(end - 300, id, &task);
        // What it says while work is running is not true yet.
        self.stops(end - 200, id, "It runs.\n\n[SEMO:DONE]", &[&task], false);
        let later = end + 5_000;
        self.hook(later, note(woken, &task));
        let notified = TranscriptFact::Notified { tasks: vec![task] };
        self.fact(later, woken, notified);
        self.stops(later + 400, woken, "Now it is over.\n\n[SEMO:DONE]", &[], false);
        later + 450
    }

    /// A marked stop that a hook objects to; then the agent works on, and stops with `last`.
    fn is_blocked(&mut self, id: &str, last: &str, end: u64) -> u64 {
        let later = end + 4_000;
        // The program waits for the answers to its hooks: this one is never late.
        let at_once = std::mem::replace(&mut self.weather.delayed, 0);
        self.stop(end + 10, id, DONE, &[], false);
        self.weather.delayed = at_once;
        let facts = vec![
            (end, said(DONE)),
            (end + 500, TranscriptFact::Prodded { by_stop_hook: true }),
            (later, said(last)),
            (later + 15, END),
        ];
        self.facts_in_order(id, facts);
        self.stop(later + 10, id, last, &[], true);
        later + 20
    }

    fn stops(&mut self, at: u64, id: &str, message: &str, background: &[&str], again: bool) {
        self.fact(at, id, said(message));
        self.stop(at + 10, id, message, background, again);
        self.fact(at + 15, id, END);
    }
}

fn is_true(truth: Truth, outcome: &TurnOutcome) -> bool {
    use TurnOutcome::{Cancelled, Done, Failed, Unconfirmed};
    match truth {
        Truth::Done
        | Truth::DoneAfterBackground
        | Truth::BlockedThenDone
        | Truth::CancelledTooLate
        | Truth::DoneThenExit
        | Truth::DoneThenTerminated => *outcome == Done,
        Truth::NotMarked | Truth::BlockedThenNotMarked | Truth::LeftServer => {
            matches!(outcome, Unconfirmed { .. })
        }
        Truth::Failed => matches!(outcome, Failed { class, .. } if *class == FailureClass::Server),
        Truth::Crashed => matches!(outcome, Failed { class, .. } if *class == FailureClass::ProviderExit),
        Truth::Interrupted | Truth::Cancelled | Truth::Terminated => *outcome == Cancelled,
    }
}

/// What may be said when the signs of the end were lost, and what we did or what the system told remains: that is true
/// too, as far as anybody can know.
fn is_all_that_is_left(truth: Truth, outcome: &TurnOutcome) -> bool {
    match truth {
        Truth::CancelledTooLate | Truth::DoneThenTerminated => *outcome == TurnOutcome::Cancelled,
        Truth::DoneThenExit => {
            matches!(outcome, TurnOutcome::Failed { class, .. } if *class == FailureClass::ProviderExit)
        }
        Truth::LeftServer => {
            matches!(outcome, TurnOutcome::Failed { class, .. } if *class == FailureClass::Timeout)
        }
        _ => false,
    }
}

/// Runs one session; gives how many of its turns were told truly, and how many there were.
fn run(seed: u64, weather: Weather) -> (usize, usize) {
    run_with(seed, weather, false)
}

/// The same, if wanted with a gap in the following of some turns.
fn run_with(seed: u64, weather: Weather, gaps: bool) -> (usize, usize) {
    let calm = weather.lost == 0 && weather.delayed == 0;
    let mut world = World::new(seed, weather);
    let mut ready_first = Vec::new();
    world.pass(500, false, &mut ready_first);
    let (mut told, mut turns) = (0, 0);
    for number in 0..TURNS {
        let last = number + 1 == TURNS;
        let choices = if last {
            &TRUTHS[..]
        } else {
            &TRUTHS[..TRUTHS.len() - 4]
        };
        let truth = choices[world.chance.random_range(0..choices.len())];
        assert!(last || !truth.ends_the_program());
        let beside = match world.chance.random_range(0..6) {
            0 => Beside::TypedFirst,
            1 | 2 if !world.servers.is_empty() => Beside::ServerWakes,
            _ => Beside::Nothing,
        };
        if world.chance.random_ratio(1, 5) {
            world.typed(number);
        }
        if gaps && world.chance.random_ratio(1, 2) {
            let from = world.now + world.chance.random_range(0..8_000);
            let until = from + world.chance.random_range(50..20_000);
            world.written.gap = Some(Gap { from, until });
        }
        let verdict = world.turn(number, truth, beside);
        world.no_more_gap();
        let Some(verdict) = verdict else {
            panic!("seed {seed}, turn {number}: {truth:?} beside {beside:?} has no end")
        };
        let true_word = is_true(truth, &verdict.outcome);
        let unconfirmed = matches!(verdict.outcome, TurnOutcome::Unconfirmed { .. });
        let left = !calm && is_all_that_is_left(truth, &verdict.outcome);
        assert!(
            true_word || unconfirmed || left,
            "seed {seed}, turn {number}: {truth:?} beside {beside:?} was told as {verdict:?}; {:#?}",
            world.follower.explain().turns.last(),
        );
        // A stop that names no prompt may be the other's.
        let mistakable = world.nameless && beside != Beside::Nothing;
        assert!(
            true_word || !calm || mistakable,
            "seed {seed}, turn {number}: {truth:?} beside {beside:?} was only told as {verdict:?}"
        );
        told += usize::from(true_word);
        turns += 1;
    }
    (told, turns)
}

#[test]
fn whatever_gets_lost_doubled_delayed_or_out_of_order_no_turn_is_told_wrongly() {
    let (mut told, mut all) = (0, 0);
    for seed in 0..SCHEDULES {
        let weather = Weather {
            lost: (seed % 5) as u32 * 12,
            doubled: 20,
            delayed: 30,
        };
        let (truly, turns) = run(seed, weather);
        told += truly;
        all += turns;
    }
    assert!(told * 2 > all, "only {told} of {all} turns were told at all");
}

#[test]
fn in_fair_weather_every_turn_is_told_as_it_was() {
    let fair = Weather {
        lost: 0,
        doubled: 0,
        delayed: 0,
    };
    for seed in 0..400 {
        run(seed, fair);
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

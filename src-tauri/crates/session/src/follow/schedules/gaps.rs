//! The same schedules with a gap in them: the process that follows dies at some moment of a turn and another one takes
//! the turn up later, from what was written down, the record and the screen. What was told meanwhile is lost for good.

use super::super::taken_up::{HowFar, Memo};
use super::*;

/// How long a screen must be busy to count as an acknowledgement, and how long one is waited for at all.
const BUSY_IS_ACK_MS: u64 = 1_000;
const ACK_WAIT_MS: u64 = 20_000;

/// A gap in the following of one turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gap {
    pub(super) from: u64,
    pub(super) until: u64,
}

/// What is written down of the running turn, and how it stands with its gap.
#[derive(Default)]
pub(super) struct Written {
    pub(super) gap: Option<Gap>,
    number: usize,
    memo: Memo,
    taken: Option<&'static str>,
    /// The transcript from the turn's beginning on.
    record: Vec<DatedFact>,
    dead: bool,
    /// Taken up without an acknowledgement, at that moment.
    asks_since: Option<u64>,
    busy_since: Option<u64>,
}

impl World {
    /// The turn has begun: its stage is in the journal.
    pub(super) fn begun(&mut self, number: usize) {
        self.written.number = number;
        self.written.memo = self.follower.memo();
        self.written.record.clear();
        (self.written.taken, self.written.asks_since) = (None, None);
    }

    /// Its prompt was taken, or seems to be; nothing of it when nobody follows.
    pub(super) fn taken(&mut self) {
        if self.written.dead || self.written.asks_since.is_some() {
            return;
        }
        let source = self.follower.acknowledged_by().unwrap_or("status");
        self.acknowledge(source);
    }

    fn acknowledge(&mut self, source: &'static str) {
        let now = self.now;
        self.follower
            .observe(now, Observation::Submitted { source, enters: 1 });
        self.written.memo.ids = self.follower.memo().ids;
        self.written.taken = Some(source);
    }

    /// Takes in a sign as far as anybody is there. What is written stays written.
    pub(super) fn reaches_nobody(&mut self, sign: &Sign) -> bool {
        if let Sign::Fact(fact) = sign {
            self.written.record.push(fact.clone());
        }
        let (true, Some(gap)) = (self.written.dead, self.written.gap) else {
            return false;
        };
        if let Sign::Act(act) = sign {
            // What we would do is done by the next one; an exit is known then.
            self.coming.push((gap.until, Sign::Act(*act)));
        }
        true
    }

    /// The turn is over; a gap that would have come later does not.
    pub(super) fn no_more_gap(&mut self) {
        (self.written.gap, self.written.dead) = (None, false);
    }

    pub(super) fn is_dead(&self) -> bool {
        self.written.dead
    }

    pub(super) fn awaits_acknowledgement(&self) -> bool {
        self.written.asks_since.is_some()
    }

    /// Time goes on by one step.
    pub(super) fn step_gap(&mut self, working: bool) {
        let Some(gap) = self.written.gap else { return };
        if !self.written.dead && self.now >= gap.from && self.now < gap.until {
            self.written.dead = true;
        }
        if self.written.dead && self.now >= gap.until {
            self.written.dead = false;
            self.written.gap = None;
            self.take_up();
        }
        let busy = working.then(|| self.written.busy_since.unwrap_or(self.now));
        self.written.busy_since = busy;
    }

    fn take_up(&mut self) {
        let how_far = match self.written.taken {
            Some(source) => HowFar::Taken { source, enters: 1 },
            None => HowFar::Entering,
        };
        self.follower = Follower::new(Witnesses::ALL);
        let expected = expected(self.written.number as u128 + 1, Marker::Plain);
        let memo: Memo = serde_json::from_value(serde_json::to_value(&self.written.memo).unwrap()).unwrap();
        self.follower.take_up(self.now, expected, memo, how_far);
        for fact in self.written.record.clone() {
            self.follower.observe(self.now, Observation::Fact(fact));
        }
        if self.written.taken.is_none() {
            self.written.asks_since = Some(self.now);
        }
    }

    /// What a submission does that another one had left at its Enter.
    pub(super) fn wait_for_acknowledgement(&mut self) {
        let Some(since) = self.written.asks_since else {
            return;
        };
        let busy = self
            .written
            .busy_since
            .is_some_and(|busy| self.now >= busy.max(since) + BUSY_IS_ACK_MS);
        if let Some(source) = self.follower.acknowledged_by().or(busy.then_some("status")) {
            self.written.asks_since = None;
            self.acknowledge(source);
        } else if self.now >= since + ACK_WAIT_MS {
            self.written.asks_since = None;
            let why = "no sign".to_owned();
            self.follower
                .observe(self.now, Observation::EffectUnknown { why });
        }
    }
}

/// What may be said besides the truth about a turn with a gap: a program that ended while nobody listened may have told
/// its end before.
fn is_true_with_a_gap(truth: Truth, outcome: &TurnOutcome) -> bool {
    let lost = matches!(truth, Truth::Crashed | Truth::LeftServer);
    is_true(truth, outcome) || lost && matches!(outcome, TurnOutcome::Unconfirmed { .. })
}

/// One turn of `truth` with a gap, counted from its beginning.
fn with_gap(seed: u64, truth: Truth, from: u64, length: u64, weather: Weather) -> (World, Option<Verdict>) {
    let mut world = World::new(seed, weather);
    world.nameless = false;
    world.pass(500, false, &mut Vec::new());
    world.written.gap = Some(Gap {
        from: world.now + from,
        until: world.now + from + length,
    });
    let verdict = world.turn(0, truth, Beside::Nothing);
    (world, verdict)
}

#[test]
fn wherever_the_following_breaks_off_the_turn_is_told_as_it_was_or_as_unconfirmed() {
    let fair = Weather {
        lost: 0,
        doubled: 0,
        delayed: 0,
    };
    let (mut truly, mut all) = (0, 0);
    for truth in TRUTHS {
        for from in (0..10_000).step_by(100) {
            for length in [50, 400, 2_500, 12_000, 45_000] {
                let seed = from + length;
                let (world, verdict) = with_gap(seed, truth, from, length, fair);
                let what = format!("{truth:?}, {length} ms from {from} ms on");
                let verdict = verdict.unwrap_or_else(|| panic!("{what}: the turn is lost"));
                let story = || format!("{:#?}", world.follower.explain().turns.last());
                assert!(
                    is_true_with_a_gap(truth, &verdict.outcome)
                        || matches!(verdict.outcome, TurnOutcome::Unconfirmed { .. }),
                    "{what}: {verdict:?}; {}",
                    story()
                );
                truly += usize::from(is_true_with_a_gap(truth, &verdict.outcome));
                all += 1;
            }
        }
    }
    assert!(
        truly * 100 >= all * 97,
        "with the whole record at hand only {truly} of {all} turns were told truly"
    );
}

#[test]
fn with_gaps_in_any_weather_no_turn_is_told_wrongly_and_none_is_lost() {
    for seed in 0..SCHEDULES {
        let weather = Weather {
            lost: (seed % 5) as u32 * 12,
            doubled: 20,
            delayed: 30,
        };
        run_with(seed, weather, true);
    }
}

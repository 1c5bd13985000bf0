//! Ten thousand bad days of the connection, with a simulated network, service and clock: the same [`Talk`], [`Course`]
//! and dice as in life, everything else is made of a seed. A failing seed is printed and reproduces.
//!
//! On each day things go wrong at random for some minutes, then the network heals. What must hold: never called live
//! without a doorbell heard on this very join; never more connections in a minute than allowed; no join reference used
//! twice on a socket; live within a bounded time after healing, from whatever state; and no stop or panic in between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use domain::{OfficeId, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::backoff::Dice;
use super::channel::{Around, RingFault};
use super::codec::Frame;
use super::course::{Course, DIALS_MAX, DIALS_SPAN, End, Next, TICK};
use super::dial::{CONNECT_TIMEOUT, OpenError};
use super::moment::{JumpWatch, Moment};
use super::outlet::Outlet;
use super::supervisor::Wish;
use super::talk::{EndKind, Stopping, Talk};
use super::{ConnectionState, RealtimeEvent, Topic};
use crate::auth::AuthError;

mod office;

/// Days in one run of the tests; `SEMO_SIMULATION_DAYS` asks for another number.
const DAYS: u64 = 10_000;
/// How long things may go wrong.
const BAD_MAX: Duration = Duration::from_secs(240);
/// After healing it is live again within this: the slowest wait for a person is 90 s, and a channel and a socket may
/// each have one before them.
const LIVE_WITHIN: Duration = Duration::from_secs(240);
/// Steps of one day; more means that it runs in circles.
const STEPS_MAX: usize = 60_000;

/// What the network does to bytes at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Net {
    Fine,
    /// Nothing gets through, nobody is told.
    Hole,
    /// Connections are not made.
    Refused,
    /// The upgrade is answered by a status.
    Status(u16),
    /// By a page of the hotel.
    Captive,
    /// By a proxy that says no.
    Proxy,
}

/// Something that happens later.
#[derive(Debug, Clone)]
enum Later {
    /// A frame reaches the client, on the socket with this number; of a broadcast, the join it was sent to.
    Frame(u64, Frame, Option<String>),
    /// The socket with this number ends at the client.
    Closed(u64, EndKind),
    /// The office has answered a ring.
    Rang(u64, Uuid, Result<(), RingFault>),
    /// The source of tokens has answered.
    Token(u64),
    /// Something new goes wrong.
    Mischief,
    /// Everything is well again, for good.
    Heal,
}

/// Where the supervisor is.
enum Doing {
    /// Waits until then.
    Waiting {
        until: Instant,
        may_hurry: bool,
        clocks: JumpWatch,
    },
    /// Dials until then, and this will come of it.
    Dialing {
        until: Instant,
        outcome: Option<OpenError>,
    },
    Talking(Box<Talk>),
}

struct Day {
    seed: u64,
    rng: StdRng,
    dice: Dice,
    start: Instant,
    now: Instant,
    /// How far the wall clock has jumped.
    skew_ms: i64,
    later: VecDeque<(Instant, Later)>,
    doing: Doing,
    course: Course,
    outlet: Outlet,
    state: watch::Receiver<ConnectionState>,
    heard: mpsc::Receiver<RealtimeEvent>,
    topics: Vec<Topic>,
    net: Net,
    /// The database's doorbell works.
    rings_through: bool,
    /// The office takes rings.
    ring_fault: Option<RingFault>,
    /// Joins are refused with this.
    refusal: Option<&'static str>,
    signed_out: bool,
    healed: Option<Instant>,
    socket: u64,
    /// The socket works in both directions for good or not at all.
    stranded: bool,
    /// Joins that the service holds on this socket.
    joined: BTreeSet<String>,
    /// Join references of this socket.
    used: BTreeSet<String>,
    /// Joins on which a broadcast has reached the client.
    proven: BTreeSet<String>,
    dials: Vec<Instant>,
    token: u32,
    /// When the last frame of this socket arrives.
    arrives: Instant,
    /// The join under way or held, as the client knows it.
    join: String,
    /// Something new goes wrong at most so many milliseconds after the last.
    temper_ms: u64,
}

/// The one topic, as the wire has it.
const TOPIC: &str = "realtime:office:o1:commands";

impl Day {
    fn new(seed: u64, start: Instant) -> Day {
        let (events, heard) = mpsc::channel(4);
        let (state, watcher) = watch::channel(ConnectionState::Connecting);
        let mut rng = StdRng::seed_from_u64(seed);
        let heals = start + Duration::from_millis(rng.random_range(0..BAD_MAX.as_millis() as u64));
        let wait = Doing::Waiting {
            until: start,
            may_hurry: true,
            clocks: JumpWatch::new(Moment {
                at: start,
                wall: Timestamp(0),
            }),
        };
        let mut day = Day {
            seed,
            dice: Dice::new(seed),
            rng,
            start,
            now: start,
            skew_ms: 0,
            later: VecDeque::new(),
            doing: wait,
            course: Course::new(),
            outlet: Outlet::new(events, state),
            state: watcher,
            heard,
            topics: vec![Topic {
                name: "office:o1:commands".to_owned(),
                private: true,
                inserts: None,
                proof: Some(OfficeId(Uuid::nil())),
            }],
            net: Net::Fine,
            rings_through: true,
            ring_fault: None,
            refusal: None,
            signed_out: false,
            healed: None,
            socket: 0,
            stranded: false,
            joined: BTreeSet::new(),
            used: BTreeSet::new(),
            proven: BTreeSet::new(),
            dials: Vec::new(),
            token: 1,
            arrives: start,
            join: String::new(),
            temper_ms: [1_000, 5_000, 20_000][seed as usize % 3],
        };
        day.at(heals, Later::Heal);
        day.in_ms(0..day.temper_ms, Later::Mischief);
        day
    }

    fn moment(&self) -> Moment {
        let passed = i64::try_from((self.now - self.start).as_millis()).expect("a day");
        Moment {
            at: self.now,
            wall: Timestamp(passed + self.skew_ms),
        }
    }

    fn at(&mut self, when: Instant, what: Later) {
        let place = self.later.partition_point(|(other, _)| *other <= when);
        self.later.insert(place, (when, what));
    }

    fn in_ms(&mut self, span: std::ops::Range<u64>, what: Later) {
        let when = self.now + Duration::from_millis(self.rng.random_range(span));
        self.at(when, what);
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    /// Lives the day until it is live for good; tells in which state the healing found it.
    fn run(mut self) -> &'static str {
        let mut found = None;
        for _ in 0..STEPS_MAX {
            self.check();
            if let Some(healed) = self.healed {
                let found = *found.get_or_insert(name(&self.state.borrow()));
                let is_live = *self.state.borrow() == ConnectionState::Live;
                if is_live {
                    return found;
                }
                assert!(
                    self.now - healed <= LIVE_WITHIN,
                    "seed {}: not live {:?} after healing: {:?}",
                    self.seed,
                    LIVE_WITHIN,
                    *self.state.borrow()
                );
            }
            self.step();
        }
        panic!("seed {}: it runs in circles", self.seed);
    }

    fn check(&mut self) {
        // The application takes events now and then; a full queue must hold nothing up.
        if self.chance(30) {
            while self.heard.try_recv().is_ok() {}
        }
        if *self.state.borrow() == ConnectionState::Live {
            assert!(
                self.joined_here_and_proven(),
                "seed {}: called live without a doorbell heard on this join",
                self.seed
            );
        }
    }

    fn joined_here_and_proven(&self) -> bool {
        matches!(self.doing, Doing::Talking(_)) && self.proven.contains(&self.join)
    }

    /// Goes to the next thing that happens.
    fn step(&mut self) {
        let wake = match &self.doing {
            Doing::Waiting { until, .. } => (*until).min(self.now + TICK),
            Doing::Dialing { until, .. } => *until,
            Doing::Talking(talk) => talk.next_wake().max(self.now),
        };
        match self.later.front() {
            Some((when, _)) if *when <= wake => {
                let (when, what) = self.later.pop_front().expect("there is one");
                self.now = when.max(self.now);
                self.happens(what);
            }
            _ => {
                self.now = wake;
                self.time();
            }
        }
    }

    fn time(&mut self) {
        let moment = self.moment();
        match &mut self.doing {
            Doing::Waiting {
                until,
                may_hurry,
                clocks,
            } => {
                let jumped = clocks.jump_s(moment).is_some();
                if self.now >= *until || (jumped && *may_hurry) {
                    let was_held_back = !*may_hurry;
                    self.begin(was_held_back);
                }
            }
            Doing::Dialing { outcome, .. } => {
                let outcome = outcome.take();
                self.dialed(outcome);
            }
            Doing::Talking(talk) => {
                let around = &mut Around {
                    outlet: &mut self.outlet,
                    dice: &mut self.dice,
                    patience: &mut self.course.patience,
                };
                let told = talk.time_passed(moment, around);
                self.told(told);
            }
        }
    }

    // ---- the supervisor's part

    fn next(&mut self, next: Next) {
        let wait = match next {
            Next::Stop => panic!("seed {}: it stopped by itself", self.seed),
            Next::SignIn { why } => {
                self.outlet.state(ConnectionState::Offline { why });
                TICK
            }
            Next::Wait {
                wait, why, permanent, ..
            } => {
                self.outlet.state(ConnectionState::Backoff {
                    until_ms: 0,
                    why,
                    permanent,
                });
                wait
            }
        };
        self.wait(wait, true);
    }

    fn wait(&mut self, wait: Duration, may_hurry: bool) {
        self.doing = Doing::Waiting {
            until: self.now + wait,
            may_hurry,
            clocks: JumpWatch::new(self.moment()),
        };
    }

    fn begin(&mut self, was_held_back: bool) {
        if self.signed_out {
            let error = AuthError::SignedOut {
                reason: "nobody".to_owned(),
            };
            let next = self.course.no_token(&error, &mut self.dice);
            return self.next(next);
        }
        let held = self.course.hold_back(self.now);
        if !held.is_zero() && !was_held_back {
            let why = "too many".to_owned();
            self.outlet.state(ConnectionState::Backoff {
                until_ms: 0,
                why,
                permanent: false,
            });
            return self.wait(held, false);
        }
        self.course.dials(self.now);
        self.dials.push(self.now);
        let since = self
            .dials
            .iter()
            .filter(|at| self.now - **at < DIALS_SPAN)
            .count();
        assert!(
            since <= DIALS_MAX,
            "seed {}: {since} connections in a minute",
            self.seed
        );
        self.outlet.state(ConnectionState::Connecting);
        let quick = Duration::from_millis(self.rng.random_range(1..400));
        let refused = |status| OpenError::Refused {
            status,
            text: String::new(),
            retry_after: None,
        };
        let (after, outcome) = match self.net {
            Net::Fine => (quick, None),
            Net::Hole => {
                let within = self.course.patience.limit(CONNECT_TIMEOUT);
                (within, Some(OpenError::Late { within }))
            }
            Net::Refused => (
                quick,
                Some(OpenError::Failed {
                    why: "refused".to_owned(),
                }),
            ),
            Net::Status(status) => (quick, Some(refused(status))),
            Net::Captive => (
                quick,
                Some(OpenError::Captive {
                    page: "200".to_owned(),
                }),
            ),
            Net::Proxy => {
                let (proxy, why) = ("p".to_owned(), "407".to_owned());
                (quick, Some(OpenError::ProxyRefused { proxy, why }))
            }
        };
        self.doing = Doing::Dialing {
            until: self.now + after,
            outcome,
        };
    }

    fn dialed(&mut self, outcome: Option<OpenError>) {
        if let Some(error) = outcome {
            let next = self.course.not_opened(&error, &mut self.dice);
            return self.next(next);
        }
        self.course.opened(Duration::ZERO);
        self.socket += 1;
        self.arrives = self.now;
        self.stranded = false;
        for set in [&mut self.joined, &mut self.used, &mut self.proven] {
            set.clear();
        }
        self.outlet.state(ConnectionState::Joining);
        let talk = Talk::new(
            &self.topics,
            format!("t{}", self.token),
            self.moment(),
            &mut self.dice,
        );
        self.doing = Doing::Talking(Box::new(talk));
        self.told(Ok(()));
    }

    /// What comes after each input of the conversation.
    fn told(&mut self, told: Result<(), Stopping>) {
        let moment = self.moment();
        let Doing::Talking(talk) = &mut self.doing else {
            return;
        };
        if let Err((kind, why)) = told {
            let end = End {
                why,
                kind,
                live_for: talk.live_for(moment),
            };
            let next = self.course.ended(end, &mut self.dice);
            return self.next(next);
        }
        talk.settle(
            moment,
            &mut Around {
                outlet: &mut self.outlet,
                dice: &mut self.dice,
                patience: &mut self.course.patience,
            },
        );
        let mut frames = Vec::new();
        while let Some(frame) = talk.next_frame() {
            frames.push(frame);
        }
        let wish = talk.wanted_token();
        let ring = talk.wanted_ring(moment, &mut self.dice);
        for frame in frames {
            self.service_hears(&frame);
        }
        if let Some(wish) = wish {
            if matches!(wish, Wish::OtherThan(_)) {
                self.token += 1;
            }
            self.in_ms(1..3_000, Later::Token(self.socket));
        }
        if let Some((_, nonce)) = ring {
            self.ring(nonce);
        }
    }
}

fn name(state: &ConnectionState) -> &'static str {
    match state {
        ConnectionState::Offline { .. } => "offline",
        ConnectionState::Connecting => "connecting",
        ConnectionState::Joining => "joining",
        ConnectionState::Live => "live",
        ConnectionState::Backoff { .. } => "backoff",
        ConnectionState::Stopped => "stopped",
    }
}

/// A number from the environment: longer runs, and a failing seed once more.
#[allow(clippy::disallowed_methods, reason = "a test's own parameter")]
fn number(name: &str, usual: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(usual, |text| text.parse().expect("a number"))
}

#[test]
fn after_ten_thousand_bad_days_it_is_live_again_and_never_was_without_a_proof() {
    let days = number("SEMO_SIMULATION_DAYS", DAYS);
    let first = number("SEMO_SIMULATION_SEED", 0);
    // Instants of a paused runtime never move by themselves.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let start = runtime.block_on(async { Instant::now() });
    let mut found: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in first..first + days {
        *found.entry(Day::new(seed, start).run()).or_default() += 1;
    }
    if days >= DAYS {
        for state in ["offline", "connecting", "joining", "live", "backoff"] {
            let times = found.get(state).copied().unwrap_or_default();
            assert!(times > days / 200, "the days do not reach every state: {found:?}");
        }
    }
}

//! Chaos at random moments: what is killed, cut or updated, and when, comes from a seed.

use std::time::Duration;

use harness::dice::Dice;
use harness::hub_process::HubProcess;
use harness::program::Up;
use harness::proxy::{FaultProxy, Weather};
use harness::station::{Door, Job, Station, Wanted};
use supabase::CommandState;

use super::chaos::{Ground, kill_holders};

/// Rounds in `make test`.
const ROUNDS: u64 = 2;
/// Longest time between two blows, in ms.
const PAUSE_MS_MAX: u64 = 2_500;
/// Most blows of a round.
const BLOWS_MAX: u64 = 4;

/// Steps at which the next core may die by itself, or stand still.
const STEPS: &[&str] = &[
    "claimed",
    "journalled",
    "started",
    "session-row",
    "turn-row",
    "finished-before",
    "finished-after",
    "report-before",
    "report-after",
    "begun",
    "pasted",
    "entering",
    "entered",
    "taken",
    "judged",
    "holder-spawned",
    "holder-welcomed",
];

/// What happens to the office or the workstation.
#[derive(Debug, Clone)]
enum Blow {
    /// The core is killed and started again, the new one with steps at which it dies or stands still.
    Core(String),
    /// The core is told to leave, as for an update, and started again.
    Update,
    /// All holders are killed.
    Holders,
    /// The hub is killed and started again.
    Hub,
    /// Postgres is killed; the hub starts it again.
    Postgres,
    /// The network is bad for a while.
    Network(Weather),
}

/// Time passes, at random: this is no waiting for something.
async fn pause(dice: &mut Dice) {
    tokio::time::sleep(Duration::from_millis(dice.below(PAUSE_MS_MAX))).await;
}

impl Blow {
    fn at_random(dice: &mut Dice) -> Blow {
        match dice.below(10) {
            0..=1 => Blow::Core(String::new()),
            2 => Blow::Core(format!("{}@{}", dice.one_of(STEPS), 1 + dice.below(3))),
            // It stands still there, so that the next blow finds it there.
            3 => Blow::Core(format!("{}~{}", dice.one_of(STEPS), 1 + dice.below(PAUSE_MS_MAX))),
            4 => Blow::Update,
            5 => Blow::Holders,
            6 => Blow::Hub,
            7 => Blow::Postgres,
            _ => Blow::Network(*dice.one_of(&[
                Weather::refusing(),
                Weather::half_open(),
                Weather::deaf(),
                Weather::mute(),
                Weather::crumbs(),
                Weather::slow(Duration::from_millis(150)),
            ])),
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}: `{text}` is no number")),
    )
}

/// Ground, and a network between workstation and office.
struct Arena {
    ground: Ground,
    proxy: FaultProxy,
    up: Option<Up>,
}

impl Arena {
    async fn new() -> Arena {
        let hub = HubProcess::start().await;
        let proxy = FaultProxy::start(&hub.url).await;
        let station = Station::new(proxy.url(), &hub.key).await;
        let ground = Ground { hub, station };
        Arena {
            ground,
            proxy,
            up: None,
        }
    }

    async fn start(&mut self) {
        self.ground.station.arm("");
        self.up = Some(self.ground.station.place.up().await);
    }

    async fn strike(&mut self, blow: &Blow, dice: &mut Dice) {
        match blow {
            Blow::Core(steps) => {
                self.end("KILL").await;
                self.ground.station.arm(steps);
                // It may die before it can say where it is.
                self.up = Some(self.ground.station.place.up_at_once());
            }
            Blow::Update => {
                self.end("TERM").await;
                self.start().await;
            }
            Blow::Holders => {
                kill_holders(&self.ground.station);
            }
            Blow::Hub => {
                self.ground.hub.kill();
                pause(dice).await;
                self.ground.hub.start_again().await;
            }
            Blow::Postgres => {
                self.ground.hub.kill_postgres();
            }
            Blow::Network(weather) => {
                self.proxy.weather(*weather);
                pause(dice).await;
                self.proxy.weather(Weather::clear());
                self.proxy.cut();
            }
        }
    }

    async fn end(&mut self, signal: &str) {
        if let Some(up) = self.up.take() {
            up.signal(signal);
            up.ended().await;
        }
    }

    /// A mixed load: two agents, every way to end, one that only a cancellation ends.
    async fn load(&self, dice: &mut Dice) -> Vec<Job> {
        let door = Door::of(&self.ground.hub);
        let mut jobs = Vec::new();
        for wanted in [
            Wanted::Done,
            Wanted::Cancelled,
            Wanted::Done,
            Wanted::Unconfirmed,
            Wanted::Failed,
            Wanted::Done,
        ] {
            let agent = dice.one_of(&self.ground.hub.agents[..2]).id;
            let job = self
                .ground
                .station
                .send(&door.to(agent), wanted, dice.below(1_500), None)
                .await;
            jobs.push(job);
        }
        jobs
    }

    async fn cancel(&self, jobs: &[Job]) {
        let door = Door::of(&self.ground.hub);
        for job in jobs.iter().filter(|job| job.wanted == Wanted::Cancelled) {
            door.cancel(job.id).await;
        }
    }

    async fn round(&mut self, dice: &mut Dice) -> Vec<String> {
        self.start().await;
        let jobs = self.load(dice).await;
        let early = dice.below(2) == 0;
        if early {
            self.cancel(&jobs).await;
        }
        let mut blows = Vec::new();
        for _ in 0..=dice.below(BLOWS_MAX) {
            pause(dice).await;
            let blow = Blow::at_random(dice);
            eprintln!("  {blow:?}");
            self.strike(&blow, dice).await;
            blows.push(format!("{blow:?}"));
        }
        // Whatever is armed is armed no longer.
        self.end("KILL").await;
        self.start().await;
        if !early {
            self.cancel(&jobs).await;
        }
        let what = blows.join(", ");
        let done = jobs
            .iter()
            .map(|job| job.wanted == Wanted::Done)
            .collect::<Vec<_>>();
        let states = self.ground.settle(&what, jobs, &[]).await;
        eprintln!("  {states:?}");
        let struck = blows.iter().any(|blow| blow.starts_with("Holders"));
        let failed = states
            .iter()
            .zip(done)
            .any(|(state, done)| done && *state == CommandState::Failed);
        assert!(
            !failed || struck,
            "{what}: what could be done has failed although no agent was hurt; log: {}",
            self.ground.station.keep_log()
        );
        self.end("TERM").await;
        blows
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_or_cut_at_random_moments_every_command_has_one_true_result() {
    let rounds = number("SEMO_CHAOS_ROUNDS").unwrap_or(ROUNDS);
    let first = number("SEMO_CHAOS_SEED").unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(1, |since| since.as_secs())
    });
    let mut arena = Arena::new().await;
    for round in 0..rounds {
        eprintln!(
            "round {round}: SEMO_CHAOS_SEED={} SEMO_CHAOS_ROUNDS=1 repeats it",
            first + round
        );
        arena.round(&mut Dice(first + round)).await;
    }
    arena.ground.hub.stop().await;
    arena.proxy.stop().await;
}

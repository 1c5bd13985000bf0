//! Chaos over real processes: hub, core, holders and agents are killed at every named step of the main job and at
//! random moments. Afterwards everything settles, nothing was done twice, and what is told is what really happened.
//!
//! `make test` runs it in a bounded form; `make chaos` goes on for `SEMO_CHAOS_ROUNDS` rounds. A round that fails names
//! its seed: `SEMO_CHAOS_SEED` repeats it.

use domain::CommandId;
use harness::hub_process::HubProcess;
use harness::invariants::check;
use harness::processes::{kill, of_folder};
use harness::program::Up;
use harness::station::{Door, Job, Station, Wanted};
use harness::wait::{LONG, wait_until};
use supabase::{CommandState, ResultStatus};

/// How long a turn of the jobs takes, in ms: long enough that a crash finds it at work.
const TURN_MS: u64 = 600;

/// Steps of the core between the claim and the first key, in their order.
const STEPS_TO_THE_SESSION: &[&str] = &[
    "claimed",
    "journalled",
    "started",
    "holder-spawned",
    "holder-welcomed",
    "session-row",
];
/// Steps of the core while the prompt is brought into the agent's input.
const STEPS_OF_THE_SUBMISSION: &[&str] = &["turn-row", "begun", "pasted", "entering", "entered", "taken"];
/// Steps of the core from the end of the turn to the office's acknowledgement.
const STEPS_OF_THE_REPORT: &[&str] = &[
    "judged",
    "finished-before",
    "finished-after",
    "report-before",
    "report-after",
];
/// Steps of the holder: while it comes up, and when its program has ended.
const STEPS_OF_THE_HOLDER: &[&str] = &["holder-pty", "holder-child", "holder-exit-seen"];

/// An office with one workstation.
pub(crate) struct Ground {
    pub(crate) hub: HubProcess,
    pub(crate) station: Station,
}

impl Ground {
    pub(crate) async fn new() -> Ground {
        let hub = HubProcess::start().await;
        let station = Station::new(&hub.url, &hub.key).await;
        Ground { hub, station }
    }

    /// Jobs for two agents at once, each in a session of its own.
    async fn two_jobs(&self) -> Vec<Job> {
        let door = Door::of(&self.hub);
        let first = self.station.send(&door, Wanted::Done, TURN_MS, None).await;
        let second = door.to(self.hub.agents[1].id);
        vec![
            first,
            self.station.send(&second, Wanted::Done, TURN_MS, None).await,
        ]
    }

    /// Waits until all have ended; then as many more at once as there may be sessions, so that a leaked place would
    /// show; then ends everything and checks all invariants.
    pub(crate) async fn settle(
        &self,
        what: &str,
        mut jobs: Vec<Job>,
        more: &[CommandId],
    ) -> Vec<CommandState> {
        let door = Door::of(&self.hub);
        let mut states = Vec::new();
        for job in &jobs {
            states.push(door.settled(job.id).await.state);
            // For whoever has to find out why a story fails.
            let results = self
                .hub
                .rest
                .results(&[job.id])
                .await
                .expect("the office answers");
            for result in results
                .iter()
                .filter(|result| result.status != ResultStatus::Progress)
            {
                eprintln!(
                    "{} {:?} {:?} {:?}",
                    job.tag, result.status, result.outcome, result.error
                );
            }
        }
        for id in more {
            door.settled(*id).await;
        }
        let probes = self.two_jobs().await;
        for probe in &probes {
            let row = door.settled(probe.id).await;
            assert_eq!(
                row.state,
                CommandState::Succeeded,
                "{what}: a place was lost: {row:?}"
            );
        }
        jobs.extend(probes);
        self.station.down().await;
        check(what, &door, &[&self.station], &jobs, more).await;
        states
    }
}

/// The core dies at `step` with work under way, and is started again.
async fn the_core_dies_at(ground: &mut Ground, step: &str) {
    ground.station.arm(step);
    let up = ground.station.place.up().await;
    let jobs = ground.two_jobs().await;
    ground.station.died(&up, step).await;
    assert_eq!(ground.station.died_at(), [step], "it died where it was told to");
    up.ended().await;
    ground.station.arm("");
    let up = ground.station.place.up().await;
    // Also what the office had given out and no journal knew: no lease is waited for.
    let states = ground.settle(step, jobs, &[]).await;
    // Only the core was away: nothing of this is unknown.
    assert_eq!(states, [CommandState::Succeeded; 2], "killed at {step}");
    assert_eq!(up.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_that_is_killed_before_the_prompt_is_brought_in_loses_and_repeats_nothing() {
    let mut ground = Ground::new().await;
    for step in STEPS_TO_THE_SESSION {
        the_core_dies_at(&mut ground, step).await;
    }
    ground.hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_that_is_killed_around_the_enter_key_loses_and_repeats_nothing() {
    let mut ground = Ground::new().await;
    for step in STEPS_OF_THE_SUBMISSION {
        the_core_dies_at(&mut ground, step).await;
    }
    ground.hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_that_is_killed_between_the_end_and_the_acknowledgement_loses_no_result() {
    let mut ground = Ground::new().await;
    for step in STEPS_OF_THE_REPORT {
        the_core_dies_at(&mut ground, step).await;
    }
    ground.hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_is_killed_while_it_comes_up_or_ends_fails_or_delays_the_work_and_leaves_nothing() {
    let mut ground = Ground::new().await;
    for step in STEPS_OF_THE_HOLDER {
        ground.station.arm(step);
        let up = ground.station.place.up().await;
        let mut jobs = ground.two_jobs().await;
        if *step == "holder-exit-seen" {
            let door = Door::of(&ground.hub).to(ground.hub.agents[2].id);
            let dies = ground
                .station
                .send_with(&door, Wanted::Failed, 0, None, "do=die:3");
            jobs.push(dies.await);
        }
        wait_until("a holder has died", LONG, || async {
            !ground.station.died_at().is_empty()
        })
        .await;
        // The core is told to leave, so that the next one's holders are whole.
        up.signal("TERM");
        up.ended().await;
        ground.station.arm("");
        let up = ground.station.place.up().await;
        ground.settle(step, jobs, &[]).await;
        assert_eq!(up.ended().await, Some(0));
    }
    ground.hub.stop().await;
}

/// Waits until the agent has begun with the job.
pub(crate) async fn begun(station: &Station, job: &Job) {
    let mark = format!("begin-{}", job.tag);
    wait_until(&format!("the agent has begun with {}", job.tag), LONG, || async {
        station.marks().contains(&mark)
    })
    .await;
}

/// Waits until the agent has ended the job.
pub(crate) async fn ended(station: &Station, job: &Job) {
    let mark = format!("end-{}", job.tag);
    wait_until(&format!("the agent has ended {}", job.tag), LONG, || async {
        station.marks().contains(&mark)
    })
    .await;
}

/// Kills every holder of the workstation.
pub(crate) fn kill_holders(station: &Station) -> usize {
    let found = of_folder(station.place.dir.path());
    let holders = found
        .iter()
        .filter(|process| process.line.contains("semo-holder"));
    holders.map(|holder| kill(holder.pid)).count()
}

/// Ends the core as the system does when the program is updated or the user logs out, and starts the next one.
async fn updated(ground: &Ground, up: Up) -> Up {
    up.signal("TERM");
    assert_eq!(up.ended().await, Some(0));
    ground.station.place.up().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_in_mid_turn_and_a_turn_that_ends_while_no_core_runs_lose_nothing() {
    let ground = Ground::new().await;
    let door = Door::of(&ground.hub);
    let up = ground.station.place.up().await;
    let session = door.session().await;
    let followed = ground
        .station
        .send(&door, Wanted::Done, 4_000, Some(session))
        .await;
    begun(&ground.station, &followed).await;
    let up = updated(&ground, up).await;
    assert_eq!(door.settled(followed.id).await.state, CommandState::Succeeded);
    // The same session takes the next one, and the core is killed until its turn is over.
    let alone = ground
        .station
        .send(&door, Wanted::Done, 1_000, Some(session))
        .await;
    begun(&ground.station, &alone).await;
    up.signal("KILL");
    up.ended().await;
    ended(&ground.station, &alone).await;
    let up = ground.station.place.up().await;
    let last = ground.station.send(&door, Wanted::Done, 0, Some(session)).await;
    let jobs = vec![followed, alone, last];
    let states = ground.settle("an update", jobs, &[]).await;
    assert_eq!(states, [CommandState::Succeeded; 3]);
    assert_eq!(up.ended().await, Some(0));
    ground.hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_is_killed_in_mid_turn_is_told_and_its_work_is_neither_repeated_nor_left() {
    let ground = Ground::new().await;
    let door = Door::of(&ground.hub);
    let up = ground.station.place.up().await;
    // Once under the eyes of a core, once while there is none.
    let seen = ground.station.send(&door, Wanted::Done, 600_000, None).await;
    begun(&ground.station, &seen).await;
    assert_eq!(kill_holders(&ground.station), 1);
    let told = door.settled(seen.id).await.state;
    assert_ne!(told, CommandState::Succeeded);
    let unseen = ground.station.send(&door, Wanted::Done, 600_000, None).await;
    begun(&ground.station, &unseen).await;
    up.signal("KILL");
    up.ended().await;
    assert!(kill_holders(&ground.station) >= 1);
    let up = ground.station.place.up().await;
    let states = ground.settle("a killed holder", vec![seen, unseen], &[]).await;
    assert!(!states.contains(&CommandState::Succeeded), "{states:?}");
    assert_eq!(up.ended().await, Some(0));
    ground.hub.stop().await;
}

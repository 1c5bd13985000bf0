//! Six sessions at work for as long as one likes: `soak [MINUTES] [SEED] [LIFE]`. Commands of every kind come at random;
//! the core is updated or killed, in turns, each LIFE minutes. Every quarter of a minute it is measured; the table is printed, and the
//! program fails when something grew that should not have, or when an invariant is broken.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use domain::{AgentId, SessionId};
use harness::dice::Dice;
use harness::hub_process::HubProcess;
use harness::invariants::{check, look};
use harness::processes::{Process, of_folder};
use harness::program::Up;
use harness::station::{Door, Job, Station, Wanted};
use serde_json::json;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const MINUTES: u64 = 60;
const SESSIONS: usize = 6;
const SAMPLE_EVERY: Duration = Duration::from_secs(15);
/// Minutes after which the core is updated or killed.
const LIFE_MINUTES: u64 = 20;
/// Longest turn, in ms.
const TURN_MS_MAX: u64 = 2_000;
/// Rows of the table that is printed.
const ROWS: usize = 24;

/// What the core may grow by, between the second and the last quarter of the run.
const CORE_GROWTH_MIB_MAX: f64 = 12.0;
/// The same for the mean of all holders; each keeps up to 4 MiB of output.
const HOLDER_GROWTH_MIB_MAX: f64 = 1.0;
/// The same for open files and for threads.
const FILES_GROWTH_MAX: f64 = 16.0;
const THREADS_GROWTH_MAX: f64 = 8.0;
/// Most bytes of the journal, with all that lies beside it.
const JOURNAL_MIB_MAX: f64 = 80.0;

/// One look at the workstation.
#[derive(Debug, Clone, Copy)]
struct Sample {
    minute: f64,
    commands: u64,
    core_mib: f64,
    core_files: usize,
    core_threads: usize,
    holders: usize,
    holder_mib: f64,
    journal_mib: f64,
    restarts: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |otherwise: u64| -> anyhow::Result<u64> {
        let given = arguments.next().map(|text| text.parse().context("a number"));
        Ok(given.transpose()?.unwrap_or(otherwise))
    };
    let (time, seed, life) = (number(MINUTES)?, number(1)?, number(LIFE_MINUTES)?);
    let hub = Arc::new(HubProcess::start().await);
    let mut station = Station::new(&hub.url, &hub.key).await;
    station.place.set("SEMO_SESSIONS_MAX", &SESSIONS.to_string());
    let station = Arc::new(station);
    let up = station.place.up().await;
    println!("{time} minutes, {SESSIONS} workers, seed {seed}, a new core each {life} minutes\n");

    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let jobs = Arc::new(Mutex::new(Vec::new()));
    let ended = Arc::new(AtomicU64::new(0));
    for number in 0..SESSIONS {
        let worker = Worker {
            hub: hub.clone(),
            station: station.clone(),
            agent: hub.agents[number % hub.agents.len()].id,
            jobs: jobs.clone(),
            ended: ended.clone(),
            stop: stop.clone(),
        };
        tasks.spawn(worker.work(Dice(seed * 1_000 + number as u64)));
    }
    let minutes = |count: u64| Duration::from_secs(count * 60);
    let (samples, up) = watch(&station, up, minutes(time), minutes(life), &ended).await?;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    table(&samples);
    let jobs = jobs.lock().await.clone();
    let door = Door::of(&hub);
    let counts = outcomes(&look(&door, &[], &jobs, &[]).await.told);
    println!("\n{} prompts: {counts}", jobs.len());
    station.down().await;
    drop(up);
    check("soak", &door, &[&station], &jobs, &[]).await;
    println!("every invariant holds");
    let grown = growth(&samples);
    if !grown.is_empty() {
        bail!("{}", grown.join("\n"));
    }
    Ok(())
}

fn outcomes(told: &[harness::invariants::Told]) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for told in told {
        *counts
            .entry(format!("{:?}", told.row.state).to_lowercase())
            .or_insert(0) += 1;
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    counts.join(", ")
}

/// One that gives work and waits for its end, again and again.
struct Worker {
    hub: Arc<HubProcess>,
    station: Arc<Station>,
    agent: AgentId,
    jobs: Arc<Mutex<Vec<Job>>>,
    ended: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Worker {
    async fn work(self, mut dice: Dice) {
        let door = Door::of(&self.hub).to(self.agent);
        while !self.stop.is_cancelled() {
            let (wanted, more) = match dice.below(20) {
                0..=1 => (Wanted::Unconfirmed, ""),
                2..=3 => (Wanted::Failed, ""),
                4..=5 => (Wanted::Cancelled, ""),
                6..=7 => (Wanted::Done, "do=flood:2M"),
                _ => (Wanted::Done, ""),
            };
            let job = self
                .station
                .send_with(&door, wanted, dice.below(TURN_MS_MAX), None, more)
                .await;
            // Workers share agents, and any of them may end a session.
            self.jobs.lock().await.push(Job {
                session_may_end: true,
                ..job.clone()
            });
            if wanted == Wanted::Cancelled {
                tokio::time::sleep(Duration::from_millis(dice.below(TURN_MS_MAX))).await;
                door.cancel(job.id).await;
            }
            door.settled(job.id).await;
            let found = look(&door, &[], &[], &[job.id]).await;
            self.ended.fetch_add(1, Ordering::SeqCst);
            if dice.below(10) == 0
                && let Some(session) = session_in(&found.told)
            {
                let args = json!({ "session": session });
                let end = door.enqueue("terminate", args, None, Some(session)).await;
                door.settled(end).await;
                self.ended.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

fn session_in(told: &[harness::invariants::Told]) -> Option<SessionId> {
    let results = told.iter().flat_map(|told| &told.results);
    results
        .filter_map(|result| result.output.as_ref()?["session_id"].as_str()?.parse().ok())
        .next()
}

/// Measures, and lets the core come and go, until the time is over.
async fn watch(
    station: &Station,
    mut up: Up,
    time: Duration,
    life: Duration,
    ended: &AtomicU64,
) -> anyhow::Result<(Vec<Sample>, Up)> {
    let began = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    let mut restarts = 0;
    let mut born = began;
    while began.elapsed() < time {
        tokio::time::sleep(SAMPLE_EVERY).await;
        samples.push(sample(station, &up, began, ended, restarts)?);
        if born.elapsed() >= life {
            up.signal(if restarts % 2 == 0 { "TERM" } else { "KILL" });
            up.ended().await;
            up = station.place.up().await;
            restarts += 1;
            born = Instant::now();
        }
    }
    Ok((samples, up))
}

fn sample(
    station: &Station,
    up: &Up,
    began: Instant,
    ended: &AtomicU64,
    restarts: usize,
) -> anyhow::Result<Sample> {
    let core = PathBuf::from("/proc").join(up.pid().to_string());
    let count = |what: &str| std::fs::read_dir(core.join(what)).map(Iterator::count);
    let all = of_folder(station.place.dir.path());
    let holders: Vec<&Process> = all
        .iter()
        .filter(|process| process.line.contains("semo-holder"))
        .collect();
    let held: f64 = holders.iter().filter_map(|holder| own_mib(holder.pid)).sum();
    Ok(Sample {
        minute: began.elapsed().as_secs_f64() / 60.0,
        commands: ended.load(Ordering::SeqCst),
        core_mib: own_mib(up.pid()).context("the core's memory")?,
        core_files: count("fd").context("the core's files")?,
        core_threads: count("task").context("the core's threads")?,
        holders: holders.len(),
        holder_mib: held / holders.len().max(1) as f64,
        journal_mib: journal_mib(&station.data()),
        restarts,
    })
}

/// Proportional memory of a process, in MiB.
fn own_mib(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find(|line| line.starts_with("Pss:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

fn journal_mib(data: &Path) -> f64 {
    let names = ["journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"];
    let bytes = names
        .iter()
        .filter_map(|name| Some(std::fs::metadata(data.join(name)).ok()?.len()));
    bytes.sum::<u64>() as f64 / 1_048_576.0
}

fn table(samples: &[Sample]) {
    println!(
        "| minute | commands | core MiB | files | threads | holders | MiB each | journal MiB | restarts |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let step = samples.len().div_ceil(ROWS).max(1);
    for sample in samples.iter().step_by(step).chain(samples.last()) {
        println!(
            "| {:.1} | {} | {:.1} | {} | {} | {} | {:.2} | {:.2} | {} |",
            sample.minute,
            sample.commands,
            sample.core_mib,
            sample.core_files,
            sample.core_threads,
            sample.holders,
            sample.holder_mib,
            sample.journal_mib,
            sample.restarts
        );
    }
}

/// What grew beyond its bound, between the second and the last quarter.
fn growth(samples: &[Sample]) -> Vec<String> {
    let quarter = samples.len() / 4;
    if quarter == 0 {
        return vec!["too few samples to tell".to_owned()];
    }
    let median = |samples: &[Sample], pick: &dyn Fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (early, late) = (
        &samples[quarter..2 * quarter],
        &samples[samples.len() - quarter..],
    );
    let mut wrong = Vec::new();
    let mut bound = |what: &str, most: f64, pick: &dyn Fn(&Sample) -> f64| {
        let (before, after) = (median(early, pick), median(late, pick));
        println!("{what}: {before:.1} in the second quarter, {after:.1} in the last");
        if after - before > most {
            wrong.push(format!(
                "{what} grew from {before:.1} to {after:.1}, more than {most}"
            ));
        }
    };
    bound("memory of the core, MiB", CORE_GROWTH_MIB_MAX, &|sample| {
        sample.core_mib
    });
    bound("memory of a holder, MiB", HOLDER_GROWTH_MIB_MAX, &|sample| {
        sample.holder_mib
    });
    bound("open files of the core", FILES_GROWTH_MAX, &|sample| {
        sample.core_files as f64
    });
    bound("threads of the core", THREADS_GROWTH_MAX, &|sample| {
        sample.core_threads as f64
    });
    let holders = samples.iter().map(|sample| sample.holders).max().unwrap_or(0);
    if holders > 2 * SESSIONS {
        wrong.push(format!(
            "there were {holders} holders at once for {SESSIONS} sessions"
        ));
    }
    let journal = samples
        .iter()
        .map(|sample| sample.journal_mib)
        .fold(0.0, f64::max);
    if journal > JOURNAL_MIB_MAX {
        wrong.push(format!(
            "the journal grew to {journal:.1} MiB, more than {JOURNAL_MIB_MAX}"
        ));
    }
    wrong
}

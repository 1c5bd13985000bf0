//! What it costs that a terminal outlives us: a holder's memory and wake-ups, and its share of the way of the bytes,
//! beside the same holder on a thread.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use terminal::{Holders, Seen};

use crate::floods::{TIMES, plan, tag};
use crate::table::{ROUNDS, Table, Target, median, own_cpu, process_cpu};

/// Most memory of a holder at rest, in KiB, that is not shared with others.
const MEMORY_KIB_MAX: f64 = 4.0 * 1024.0;
/// How long a holder is watched at rest.
const REST: Duration = Duration::from_secs(5);
/// After so long without output a holder has put away what it keeps.
const SETTLED: Duration = Duration::from_secs(4);

fn processes(folder: &Path) -> Holders {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_semo-holder"));
    Holders::of_processes(program, folder.join("holders"), 1, Duration::from_secs(600))
}

fn holder(folder: &Path, tag: &str) -> u32 {
    let record = fs::read(folder.join("holders").join(tag).join("record")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    u32::try_from(record["holder"]["holder"]["pid"].as_u64().unwrap()).unwrap()
}

/// A number in KiB, or a count, of a process.
fn of(pid: u32, file: &str, label: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(label)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Memory and wake-ups of the holder of a program that has printed what `script` prints, and rests.
async fn rest(table: &mut Table, folder: &Path, what: &str, script: &str) {
    let tag = tag();
    let terminal = processes(folder)
        .start(&plan("/bin/sh", &["-c", script]), &tag)
        .await
        .unwrap();
    let pid = holder(folder, &tag);
    let mut changed = terminal.changed();
    while tokio::time::timeout(SETTLED, changed.changed()).await.is_ok() {}
    let (own, all) = (
        of(pid, "smaps_rollup", "Private_Dirty:"),
        of(pid, "smaps_rollup", "Rss:"),
    );
    let pss = of(pid, "smaps_rollup", "Pss:");
    let switches = || of(pid, "status", "voluntary_ctxt_switches:");
    let (before, cpu) = (switches(), process_cpu(pid));
    tokio::time::sleep(REST).await;
    table.note(
        "18",
        &format!("holder, {what}: written / proportional / resident"),
        &format!("{own:.0} / {pss:.0} / {all:.0} KiB"),
    );
    table.row(
        "18",
        &format!("holder, {what}: proportional size, KiB"),
        pss,
        Target::AtMost(MEMORY_KIB_MAX),
    );
    table.row(
        "18",
        &format!("holder, {what}: wake-ups in 5 s"),
        switches() - before,
        Target::AtMost(0.0),
    );
    table.row(
        "18",
        &format!("holder, {what}: processor time in 5 s, ms"),
        (process_cpu(pid) - cpu).as_secs_f64() * 1e3,
        Target::AtMost(0.0),
    );
    terminal.stop(Duration::ZERO).await.unwrap();
}

/// Wall time of a flood, and processor time of us and the holder.
async fn flood(folder: &Path, holders: &Holders, file: &Path) -> (f64, f64) {
    let tag = tag();
    let name = file.to_str().unwrap();
    let (started, before) = (Instant::now(), own_cpu());
    let terminal = holders
        .start(&plan("/bin/cat", &[name; TIMES]), &tag)
        .await
        .unwrap();
    terminal.exited().wait_for(Option::is_some).await.unwrap();
    let wall = started.elapsed().as_secs_f64();
    let of_holder = match folder.join("holders").join(&tag).exists() {
        true => process_cpu(holder(folder, &tag)),
        false => Duration::ZERO,
    };
    let cpu = (own_cpu() - before + of_holder).as_secs_f64();
    terminal.stop(Duration::ZERO).await.unwrap();
    (wall, cpu)
}

/// Microseconds from a key to what it echoes.
async fn echo(holders: &Holders) -> f64 {
    let own = std::env::current_exe().unwrap();
    let terminal = holders
        .start(&plan(own.to_str().unwrap(), &["--child-echo"]), &tag())
        .await
        .unwrap();
    let mut subscription = terminal.subscribe(0);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut times = Vec::new();
    for _ in 0..500 {
        let at = Instant::now();
        terminal.write("?").await.unwrap();
        while !matches!(subscription.next().await, Seen::Chunk { bytes, .. } if bytes.contains(&b'!')) {}
        times.push(at.elapsed().as_secs_f64() * 1e6);
    }
    terminal.stop(Duration::ZERO).await.unwrap();
    median(times)
}

pub async fn run(table: &mut Table, folder: &Path) {
    rest(table, folder, "nothing printed", "exec sleep 600").await;
    rest(
        table,
        folder,
        "4 MiB of text kept",
        "seq 1 900000; exec sleep 600",
    )
    .await;
    rest(
        table,
        folder,
        "4 MiB of noise kept",
        "head -c 6000000 /dev/urandom; exec sleep 600",
    )
    .await;
    // What is packed and hardly becomes smaller.
    rest(
        table,
        folder,
        "4 MiB of two thirds noise kept",
        "i=0; while [ $i -lt 2000 ]; do head -c 2000 /dev/urandom; head -c 1000 /dev/zero; i=$((i+1)); done; \
         exec sleep 600",
    )
    .await;
    let (process, thread) = (processes(folder), Holders::in_this_process());
    let file = folder.join("cc");
    let (mut wall, mut cpu, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (thread_wall, thread_cpu) = flood(folder, &thread, &file).await;
        let (process_wall, process_cpu) = flood(folder, &process, &file).await;
        wall.push(process_wall / thread_wall);
        cpu.push(process_cpu / thread_cpu);
        keys.push(echo(&process).await / echo(&thread).await);
    }
    table.row(
        "19",
        "flood cc: holder in a process / on a thread, time",
        median(wall),
        Target::AtMost(1.15),
    );
    table.row(
        "19",
        "flood cc: the same, processor time",
        median(cpu),
        Target::AtMost(1.15),
    );
    table.row(
        "19",
        "key → answer seen: the same",
        median(keys),
        Target::AtMost(1.25),
    );
    starts_and_finds(table, folder, &process).await;
}

async fn starts_and_finds(table: &mut Table, folder: &Path, process: &Holders) {
    let (mut starts, mut finds) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let tag = tag();
        let at = Instant::now();
        let terminal = process.start(&plan("/bin/sleep", &["600"]), &tag).await.unwrap();
        starts.push(at.elapsed().as_secs_f64() * 1e3);
        drop(terminal);
        let later = Holders::of_processes(
            PathBuf::new(),
            folder.join("holders"),
            2,
            Duration::from_secs(600),
        );
        let at = Instant::now();
        let terminal::Held::Attached(terminal) = later.attach(&tag).await else {
            panic!("it is held")
        };
        finds.push(at.elapsed().as_secs_f64() * 1e3);
        terminal.stop(Duration::ZERO).await.unwrap();
    }
    table.note(
        "19",
        "start of a holder with its program",
        &format!("{:.1} ms", median(starts)),
    );
    table.note(
        "19",
        "found and taken up again",
        &format!("{:.1} ms", median(finds)),
    );
}

//! A disk that takes nothing more, at each thing that is written for a holder; and what a holder at rest costs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use terminal::{Holders, Terminal};

use crate::house::{GRACE, House, LIMIT, attached, exit, gone, lives, number, plan, shows, signal, until};

/// Where the stand-in for a core finds its house.
const HOUSE: &str = "SEMO_TEST_FULL_HOUSE";
/// Prints what cannot be packed, for longer than it is kept.
const NOISE: &str =
    "stty -echo; head -c 4500000 /dev/urandom | base64 -w 79; echo ready; read x; echo \"got:$x:\"; read x";

/// Files of this holder grow no more from now on.
fn fills_the_disk(house: &House, tag: &str) {
    let pid = Pid::from_raw(i32::try_from(house.holder(tag)).unwrap()).unwrap();
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    prlimit(Some(pid), Resource::Fsize, none).unwrap();
}

/// A holder's program that is started by a script.
fn wrapped(house: &House, before: &str) -> Holders {
    let wrapper = house.file("wrapper");
    let script = format!(
        "#!/bin/sh\n{before} {} \"$1\"\n",
        env!("CARGO_BIN_EXE_semo-holder")
    );
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, PermissionsExt::from_mode(0o755)).unwrap();
    Holders::of_processes(wrapper, house.dir(), 1, LIMIT)
}

/// Memory of a process that is its own, or its share, in KiB.
fn proportional_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Whether the holder has a file open that has no name any more.
fn has_nameless_file(holder: u32) -> bool {
    let open = fs::read_dir(format!("/proc/{holder}/fd")).unwrap();
    let mut targets = open
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.any(|target| target.to_string_lossy().ends_with("/output (deleted)"))
}

/// The last megabytes that it printed, as the next core sees them.
async fn kept_by_the_next_core(house: &House, first: Terminal, tag: &str, epoch: u64) -> Terminal {
    let before = first.output_since(0);
    first.detach();
    let second = attached(house.launch(epoch).attach(tag).await);
    let after = second.output_since(0);
    assert_eq!(after.end, before.end);
    let from = before.from.max(after.from);
    let cut = |output: &terminal::Output| output.bytes.slice((from - output.from) as usize..);
    assert!(before.end - from >= 4_000_000, "{} to {}", from, before.end);
    assert!(cut(&before) == cut(&after), "not the same bytes");
    second
}

#[tokio::test]
async fn what_cannot_be_packed_is_put_onto_the_disk_and_the_holder_stays_small() {
    let house = House::new();
    let terminal = house.shell("noisy", NOISE).await;
    shows(&terminal, "ready").await;
    let holder = house.holder("noisy");
    until("it has put away what it keeps", || {
        has_nameless_file(holder) && proportional_kib(holder) <= 4 * 1024
    })
    .await;
    let names: Vec<_> = fs::read_dir(house.dir().join("noisy"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert!(!names.contains(&"output".to_owned()), "{names:?}");
    let second = kept_by_the_next_core(&house, terminal, "noisy", 2).await;
    second.write("on\r").await.unwrap();
    shows(&second, "got:on:").await;
    assert!(second.stop(GRACE).await.unwrap().is_proven());
    assert!(!house.has_folder("noisy"));
}

#[tokio::test]
async fn on_a_full_disk_what_cannot_be_packed_stays_in_memory_and_nothing_is_lost() {
    let house = House::new();
    let terminal = house.shell("unput", &format!("echo; read y; {NOISE}")).await;
    fills_the_disk(&house, "unput");
    let holder = house.holder("unput");
    terminal.write("\r").await.unwrap();
    shows(&terminal, "ready").await;
    // Longer than it takes to put it away: then the file of the first try is gone again.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(lives(holder) && !has_nameless_file(holder));
    let second = kept_by_the_next_core(&house, terminal, "unput", 2).await;
    second.write("on\r").await.unwrap();
    shows(&second, "got:on:").await;
    assert!(second.stop(GRACE).await.unwrap().is_proven());
}

#[tokio::test]
async fn a_holder_that_cannot_write_its_record_starts_nothing_and_says_so() {
    let house = House::new();
    let mark = house.file("started");
    let holders = wrapped(&house, "ulimit -f 0; exec");
    let plan = plan(&format!(": > {}", mark.display()));
    let error = holders.start(&plan, "mute").await.err().unwrap().to_string();
    assert!(error.contains("its folder") && error.contains("large"), "{error}");
    assert!(!mark.exists() && !house.has_folder("mute"));
}

#[tokio::test]
async fn a_program_whose_process_could_not_be_written_down_is_held_found_and_ended_all_the_same() {
    let house = House::new();
    // Its first record has room, and the one with the program's process has not.
    let tag = "t".repeat(100);
    let script = "echo a=$$; trap '' HUP; echo ready; read x";
    let probe = house.shell(&tag, script).await;
    let length = fs::metadata(house.dir().join(&tag).join("record")).unwrap().len();
    assert!(probe.stop(GRACE).await.unwrap().is_proven());
    let holders = wrapped(&house, &format!("exec prlimit --fsize={}", length - 8));
    let terminal = holders.start(&plan(script), &tag).await.unwrap();
    shows(&terminal, "ready").await;
    assert!(house.record(&tag)["root"].is_null());
    let (program, holder) = (number(&terminal, "a"), house.holder(&tag));
    terminal.detach();
    let second = attached(house.launch(2).attach(&tag).await);
    assert_eq!(second.pid(), program);
    // There is room again: the next look writes it.
    second.detach();
    signal(holder, Signal::KILL);
    until("the holder is gone", || !lives(holder)).await;
    let why = gone(house.launch(3).attach(&tag).await);
    assert!(why.contains("has ended"), "{why}");
    assert!(!lives(program) && !house.has_folder(&tag));
}

#[tokio::test]
async fn a_holder_that_cannot_write_how_it_ended_ends_all_the_same_and_is_known_to_be_gone() {
    let house = House::new();
    let terminal = house.shell("silent", "echo ready; read x").await;
    shows(&terminal, "ready").await;
    fills_the_disk(&house, "silent");
    let (program, holder) = (terminal.pid(), house.holder("silent"));
    terminal.detach();
    signal(holder, Signal::TERM);
    until("the holder is gone", || !lives(holder)).await;
    assert!(!lives(program));
    let why = gone(house.launch(2).attach("silent").await);
    assert!(
        why.contains(&format!("its holder, process {holder}, has ended")),
        "{why}"
    );
    assert!(!house.has_folder("silent"));
}

/// Not a test of its own: the core of the next one, which cannot write.
#[tokio::test]
async fn the_core_whose_disk_is_full_says_so() {
    let Some(dir) = std::env::var_os(HOUSE) else {
        return;
    };
    let program = env!("CARGO_BIN_EXE_semo-holder").into();
    let holders = Holders::of_processes(program, dir.into(), 1, LIMIT);
    let error = holders.start(&plan("read x"), "full").await.err().unwrap();
    println!("\nsaid: {error}");
}

#[tokio::test]
async fn a_core_on_a_full_disk_starts_no_holder_and_leaves_no_folder() {
    let house = House::new();
    let own = std::env::current_exe().unwrap();
    // The record of the core itself.
    let output = Command::new("/bin/sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" --exact full::the_core_whose_disk_is_full_says_so --nocapture"])
        .arg(own)
        .env(HOUSE, house.dir())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("its record could not be written") && said.contains("is the disk full?"),
        "{said}"
    );
    assert!(!house.has_folder("full"));
    // The folder itself.
    let file = house.file("no folder");
    fs::write(&file, "").unwrap();
    let program = env!("CARGO_BIN_EXE_semo-holder").into();
    let holders = Holders::of_processes(program, file, 1, LIMIT);
    let error = holders
        .start(&plan("read x"), "full")
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("no folder could be made"), "{error}");
}

#[tokio::test]
async fn an_exit_is_told_also_when_nothing_can_be_written() {
    let house = House::new();
    let terminal = house.shell("ends", "echo ready; read x; exit 7").await;
    shows(&terminal, "ready").await;
    fills_the_disk(&house, "ends");
    terminal.write("\r").await.unwrap();
    assert_eq!(exit(&terminal).await.code, Some(7));
    assert!(terminal.stop(GRACE).await.unwrap().is_proven());
    assert!(!house.has_folder("ends"));
}

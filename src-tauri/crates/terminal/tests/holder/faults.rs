//! What a review asked: cores that are stuck, fall silent or come late, and what a holder leaves in the machine.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::process::Signal;
use serde_json::json;
use terminal::{Terminal, memory_of};

use crate::house::{
    GRACE, House, attached, exit, frame, gone, heard, hello, lives, number, plan, say, shows, signal,
    unknown, until,
};

const REFUSED: u8 = 66;
const OUTPUT: u8 = 67;
const EXITED: u8 = 69;
const CAUGHT_UP: u8 = 72;

/// A core made by hand, that has pressed Enter.
fn core_that_enters(house: &House, tag: &str) -> UnixStream {
    let mut core = house.knock(tag);
    say(&mut core, &hello(tag, 5, 1));
    say(&mut core, &frame(2, &[&1_u64.to_le_bytes()[..], b"\r"].concat()));
    core
}

/// Processor time in hundredths of a second.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest = stat.rsplit(')').next().unwrap();
    let fields: Vec<u64> = rest
        .split_whitespace()
        .skip(12)
        .take(2)
        .map(|field| field.parse().unwrap())
        .collect();
    fields.iter().sum()
}

#[tokio::test]
async fn a_core_that_was_stuck_before_a_painting_that_is_gone_hears_on() {
    let house = House::new();
    let script = "stty -opost -echo; head -c 6000000 /dev/zero | tr '\\0' y; echo; echo ready; read x; \
                  head -c 20000000 /dev/zero | tr '\\0' z; echo; echo through; exit 4";
    let first = house.shell("overtaken", script).await;
    shows(&first, "ready").await;
    let pid = first.pid();
    // It leaves a painting behind.
    first.detach();
    let mut stuck = core_that_enters(&house, "overtaken");
    until("the program has come to its end", || !lives(pid)).await;
    let told = tokio::task::spawn_blocking(move || {
        let (mut end, mut caught_up, mut exited) = (0, false, false);
        while !(caught_up && exited) {
            let (kind, payload) = heard(&mut stuck);
            match kind {
                OUTPUT => {
                    let offset = u64::from_le_bytes(payload[..8].try_into().unwrap());
                    end = offset + payload.len() as u64 - 8;
                }
                CAUGHT_UP => caught_up = true,
                EXITED => exited = true,
                _ => {}
            }
        }
        end
    });
    assert!(
        told.await.unwrap() > 26_000_000,
        "all output up to its end has come"
    );
    let after = attached(house.launch(6).attach("overtaken").await);
    assert!(after.stop(GRACE).await.unwrap().is_proven());
}

#[tokio::test]
async fn an_exit_waits_for_a_slow_core_without_work_and_comes_behind_all_output() {
    let house = House::new();
    let first = house
        .shell("behind", "stty -opost -echo; echo ready; read x; exec yes")
        .await;
    shows(&first, "ready").await;
    let (pid, holder) = (first.pid(), house.holder("behind"));
    let mut slow = core_that_enters(&house, "behind");
    drop(first);
    let switches = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("voluntary_ctxt_switches"));
        line.unwrap().to_owned()
    };
    let mut before = String::new();
    while before != switches() || fs::read(format!("/proc/{pid}/comm")).unwrap() != b"yes\n" {
        before = switches();
        std::thread::park_timeout(Duration::from_millis(60));
    }
    // It waits for the holder, which waits for the core: its last words are in the terminal.
    signal(pid, Signal::KILL);
    until("it is gone", || !lives(pid)).await;
    let before = ticks(holder);
    std::thread::park_timeout(Duration::from_millis(1_000));
    let spent = ticks(holder) - before;
    assert!(spent < 30, "{spent} hundredths of a second of waiting");
    let told = tokio::task::spawn_blocking(move || {
        let mut end = 0;
        loop {
            let (kind, payload) = heard(&mut slow);
            match kind {
                OUTPUT => {
                    let offset = u64::from_le_bytes(payload[..8].try_into().unwrap());
                    end = offset + payload.len() as u64 - 8;
                }
                EXITED => return end,
                _ => {}
            }
        }
    });
    let told = told.await.unwrap();
    let after = attached(house.launch(6).attach("behind").await);
    assert_eq!(exit(&after).await.signal.as_deref(), Some("Killed"));
    assert_eq!(*after.changed().borrow(), told, "not a byte came behind the exit");
    assert!(after.stop(GRACE).await.unwrap().is_proven());
}

#[tokio::test]
async fn a_holder_that_was_let_go_leaves_no_dead_entry_in_the_core_that_started_it() {
    let house = House::new();
    let terminal = house.shell("zombie", "echo ready; read x").await;
    shows(&terminal, "ready").await;
    let holder = house.holder("zombie");
    terminal.detach();
    signal(holder, Signal::TERM);
    until("it is gone and collected", || {
        !Path::new(&format!("/proc/{holder}")).exists()
    })
    .await;
    assert!(gone(house.launch(2).attach("zombie").await).contains("told to end"));
}

#[tokio::test]
async fn a_holder_that_comes_up_late_and_a_core_that_clears_up_do_not_both_go_on() {
    let house = House::new();
    let starter = json!({ "pid": 1, "start_ticks": 1 });
    let record = json!({
        "protocol": 1, "version": "0.1.0", "boot": crate::house::boot(), "tag": "late",
        "holder": { "starter": starter }, "root": null, "ended": null,
    });
    house.write_record("late", &record);
    let folder = fs::File::open(house.dir().join("late")).unwrap();
    rustix::fs::flock(&folder, FlockOperation::LockExclusive).unwrap();
    // A holder is coming up: nothing is proven.
    let why = unknown(house.launch(2).attach("late").await);
    assert!(why.contains("not come up yet"), "{why}");
    // A core is clearing up: nothing is started.
    let (mut core, theirs) = UnixStream::pair().unwrap();
    core.set_read_timeout(Some(crate::house::LIMIT)).unwrap();
    let mark = house.file("started");
    let greeting = json!({
        "lowest": 1, "highest": 1, "tag": "late", "epoch": 1, "from": 0,
        "plan": {
            "program": "/bin/sh", "args": ["-c", format!("echo > {}", mark.display())], "cwd": "/tmp", "env": [],
            "size": { "cols": 80, "rows": 24 }, "alone_ms_max": 1000,
        },
    });
    say(&mut core, &frame(1, greeting.to_string().as_bytes()));
    let mut late = Command::new(env!("CARGO_BIN_EXE_semo-holder"))
        .arg(house.dir().join("late"))
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    let (kind, why) = heard(&mut core);
    assert_eq!(kind, REFUSED);
    assert!(String::from_utf8_lossy(&why).contains("being removed"));
    assert!(late.wait().unwrap().success() && !mark.exists());
    drop(folder);
    let why = gone(house.launch(2).attach("late").await);
    assert!(why.contains("before it had started"), "{why}");
}

#[tokio::test]
async fn the_memory_of_a_terminal_counts_its_holder_and_children_without_the_tag() {
    let house = House::new();
    let script = "env -i setsid sh -c 'env -i setsid sh -c \"echo a=\\$\\$; exec sleep 31620\" & exit 0'; \
                  echo all; exec sleep 31621";
    let terminal = house.shell("weighed", script).await;
    shows(&terminal, "a=").await;
    shows(&terminal, "all").await;
    assert!(lives(number(&terminal, "a")));
    let weighed = |terminal: &Terminal| {
        let pid = terminal.pid();
        until("the shell has become the program", move || {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
        })
    };
    weighed(&terminal).await;
    let memory = memory_of(vec!["weighed".to_owned()]).await.unwrap();
    let tree = memory.get("weighed").unwrap();
    assert_eq!(
        tree.processes, 3,
        "the program, the child that left it, the holder: {tree:?}"
    );
    assert!(tree.bytes > 100 * 1024, "{tree:?}");
    assert!(terminal.stop(GRACE).await.unwrap().is_proven());
}

#[tokio::test]
async fn a_program_has_its_terminal_and_nothing_else_of_the_holder() {
    let house = House::new();
    // What the core was started with, and every child of it inherits.
    let kept = house.file("kept open");
    fs::write(&kept, "").unwrap();
    let inherited = rustix::io::dup(fs::File::open(&kept).unwrap()).unwrap();
    let terminal = house.shell("bare", "echo ready; read x").await;
    drop(inherited);
    shows(&terminal, "ready").await;
    let (pid, holder) = (terminal.pid(), house.holder("bare"));
    let mut open: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect();
    open.sort_by_key(|entry| entry.file_name().to_string_lossy().parse::<u32>().unwrap());
    let names: Vec<_> = open
        .iter()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names, ["0", "1", "2"]);
    for entry in &open {
        assert!(fs::metadata(entry.path()).unwrap().file_type().is_char_device());
        assert!(fs::read_link(entry.path()).unwrap().starts_with("/dev/pts"));
    }
    let of_holder = fs::read_dir(format!("/proc/{holder}/fd")).unwrap();
    assert!(
        of_holder
            .flatten()
            .all(|entry| fs::read_link(entry.path()).ok().as_deref() != Some(kept.as_path()))
    );
    let stat = |pid: u32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let field = |pid, number: usize| -> i64 {
        let stat = stat(pid);
        stat.rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .nth(number)
            .unwrap()
            .parse()
            .unwrap()
    };
    // Session and controlling terminal.
    assert_eq!(field(pid, 3), i64::from(pid));
    assert_ne!(field(pid, 4), 0, "the program has a controlling terminal");
    assert_eq!(field(holder, 3), i64::from(holder));
    assert_eq!(field(holder, 4), 0, "the holder has none");
    assert_eq!(
        fs::read_link(format!("/proc/{holder}/cwd")).unwrap(),
        Path::new("/")
    );
    let core_limit = |pid: u32| {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .unwrap();
        line.split_whitespace().nth(4).unwrap().to_owned()
    };
    assert_eq!(
        core_limit(holder),
        "0",
        "what a holder has heard is in no core dump"
    );
    assert_eq!(
        core_limit(pid),
        core_limit(std::process::id()),
        "the program keeps its own limit"
    );
    assert!(terminal.stop(GRACE).await.unwrap().is_proven());
}

#[tokio::test]
async fn a_release_that_comes_before_the_exit_is_known_holds_when_it_is() {
    let house = House::new();
    let terminal = house.shell("early", "echo ready; read x; exit 4").await;
    shows(&terminal, "ready").await;
    let holder = house.holder("early");
    let mut core = house.knock("early");
    say(&mut core, &hello("early", 5, 1));
    say(&mut core, &frame(5, &[]));
    say(&mut core, &frame(2, &[&1_u64.to_le_bytes()[..], b"\r"].concat()));
    let mut rest = Vec::new();
    core.read_to_end(&mut rest).unwrap();
    until("the holder is gone", || !lives(holder)).await;
    assert!(!house.has_folder("early"));
    drop(terminal);
}

#[tokio::test]
async fn a_holder_that_can_write_nothing_starts_nothing_and_leaves_nothing() {
    let house = House::new();
    let mark = house.file("started");
    let wrapper = house.file("full");
    // Where the socket cannot be made, as on a disk that is full.
    let script = format!(
        "#!/bin/sh\n: > \"$1/socket\"\nexec {} \"$1\"\n",
        env!("CARGO_BIN_EXE_semo-holder")
    );
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let holders = terminal::Holders::of_processes(wrapper, house.dir(), 1, crate::house::LIMIT);
    let plan = plan(&format!("echo > {}", mark.display()));
    let error = holders.start(&plan, "full").await.err().unwrap().to_string();
    assert!(error.contains("its folder"), "{error}");
    assert!(!mark.exists() && !house.has_folder("full"));
}

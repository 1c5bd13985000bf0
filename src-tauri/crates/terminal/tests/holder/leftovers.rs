//! What is left over by crashes, reboots and full disks: clear answers, and nothing ended that is not proven ours.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};

use rustix::process::Signal;
use serde_json::{Value, json};
use terminal::Holders;

use crate::house::{
    GRACE, House, LIMIT, boot, gone, lives, plan, shows, signal, start_ticks, unknown, until,
};

/// A process that is none of ours.
struct Bystander(Child);

impl Bystander {
    fn new() -> Bystander {
        Bystander(Command::new("/bin/sleep").arg("31610").spawn().unwrap())
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn record(tag: &str, boot: &str, pid: u32, ticks: u64) -> Value {
    let process = json!({ "pid": pid, "start_ticks": ticks });
    json!({
        "protocol": 1, "version": "0.1.0", "boot": boot, "tag": tag,
        "holder": { "holder": process.clone() }, "root": process, "ended": null,
    })
}

#[tokio::test]
async fn the_pids_of_an_earlier_boot_mean_nobody() {
    let house = House::new();
    let bystander = Bystander::new();
    let pid = bystander.0.id();
    house.write_record(
        "rebooted",
        &record("rebooted", "another-boot", pid, start_ticks(pid)),
    );
    let why = gone(house.launch(1).attach("rebooted").await);
    assert!(why.contains("started anew"), "{why}");
    assert!(lives(pid) && !house.has_folder("rebooted"));
}

#[tokio::test]
async fn a_pid_that_came_again_is_somebody_else() {
    let house = House::new();
    let bystander = Bystander::new();
    let pid = bystander.0.id();
    house.write_record("reused", &record("reused", &boot(), pid, start_ticks(pid) - 1));
    let why = gone(house.launch(1).attach("reused").await);
    assert!(why.contains("has ended"), "{why}");
    assert!(lives(pid) && !house.has_folder("reused"));
}

#[tokio::test]
async fn a_process_that_is_no_holder_is_not_taken_for_one() {
    let house = House::new();
    let bystander = Bystander::new();
    let pid = bystander.0.id();
    house.write_record("deaf", &record("deaf", &boot(), pid, start_ticks(pid)));
    let why = unknown(house.launch(1).attach("deaf").await);
    assert!(why.contains("nobody answers"), "{why}");
    assert!(lives(pid) && house.has_folder("deaf"));
}

#[tokio::test]
async fn what_a_dead_holder_has_left_is_ended_and_its_folder_removed() {
    let house = House::new();
    let script = "trap '' HUP; setsid sh -c 'trap \"\" HUP; exec sleep 31611' & echo ready; wait";
    let terminal = house.shell("orphaned", script).await;
    shows(&terminal, "ready").await;
    let (pid, holder) = (terminal.pid(), house.holder("orphaned"));
    // The core is gone first, then the holder: nobody is there to clean up.
    drop(terminal);
    signal(holder, Signal::KILL);
    until("the holder is gone", || !lives(holder)).await;
    assert!(lives(pid), "the program outlives its holder, without a terminal");
    let why = gone(house.launch(2).attach("orphaned").await);
    assert!(why.contains("have been ended"), "{why}");
    assert!(!lives(pid) && !house.has_folder("orphaned"));
}

#[tokio::test]
async fn half_a_record_none_at_all_and_an_empty_socket_are_gone() {
    let house = House::new();
    let dir = house.dir();
    for tag in ["half", "none", "socket"] {
        fs::create_dir_all(dir.join(tag)).unwrap();
    }
    fs::write(dir.join("half/record"), "{\"protocol\":1,\"vers").unwrap();
    drop(std::os::unix::net::UnixListener::bind(dir.join("socket/socket")).unwrap());
    for tag in ["half", "none", "socket"] {
        let why = gone(house.launch(1).attach(tag).await);
        assert!(why.contains("not whole"), "{tag}: {why}");
        assert!(!house.has_folder(tag), "{tag}");
    }
}

#[tokio::test]
async fn half_a_record_does_not_hide_a_holder_that_lives() {
    let house = House::new();
    let terminal = house.shell("torn", "echo ready; read x").await;
    shows(&terminal, "ready").await;
    drop(terminal);
    fs::write(house.dir().join("torn/record"), "{\"proto").unwrap();
    let terminal = crate::house::attached(house.launch(2).attach("torn").await);
    assert!(terminal.stop(GRACE).await.unwrap().is_proven());
}

#[tokio::test]
async fn a_holder_that_another_core_is_about_to_start_is_left_alone() {
    let house = House::new();
    let own = std::process::id();
    let mut starting = record("starting", &boot(), own, start_ticks(own));
    starting["holder"] = json!({ "starter": { "pid": own, "start_ticks": start_ticks(own) } });
    starting["root"] = Value::Null;
    house.write_record("starting", &starting);
    let why = unknown(house.launch(1).attach("starting").await);
    assert!(why.contains("about to start"), "{why}");
    starting["holder"]["starter"]["start_ticks"] = json!(1);
    house.write_record("starting", &starting);
    let why = gone(house.launch(1).attach("starting").await);
    assert!(why.contains("before it had started"), "{why}");
}

#[tokio::test]
async fn what_cannot_be_started_says_why_and_leaves_nothing() {
    let house = House::new();
    let missing = Holders::of_processes(PathBuf::from("/nonexistent/semo-holder"), house.dir(), 1, LIMIT);
    let error = missing
        .start(&plan("read x"), "missing")
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("/nonexistent/semo-holder") && error.contains("holder.program"),
        "{error}"
    );
    // A program that is no holder says nothing.
    let wrong = Holders::of_processes(PathBuf::from("/bin/true"), house.dir(), 1, LIMIT);
    let error = wrong
        .start(&plan("read x"), "wrong")
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("ended before it said a word"), "{error}");
    let mut nowhere = plan("read x");
    nowhere.cwd = PathBuf::from("/nonexistent");
    let error = house
        .launch(1)
        .start(&nowhere, "nowhere")
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("working folder does not exist"), "{error}");
    let mut large = plan("read x");
    large.env.push(("LARGE".into(), "x".repeat(2 << 20)));
    let error = house
        .launch(1)
        .start(&large, "large")
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("more than"), "{error}");
    assert!(house.launch(1).tags().unwrap().is_empty(), "no folder is left");
}

#[tokio::test]
async fn where_no_folder_can_be_made_nothing_is_started() {
    let house = House::new();
    fs::write(house.dir(), "a file, not a folder").unwrap();
    let error = house
        .launch(1)
        .start(&plan("read x"), "barred")
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("no folder could be made"), "{error}");
    assert!(house.launch(1).tags().is_err());
}

#[tokio::test]
async fn the_environment_of_a_program_is_written_nowhere() {
    let house = House::new();
    let mut secret = plan("echo ready; read x");
    secret.env.push(("TOKEN".into(), "hush-hush-hush".into()));
    let terminal = house.launch(1).start(&secret, "secret").await.unwrap();
    shows(&terminal, "ready").await;
    for entry in fs::read_dir(house.dir().join("secret")).unwrap().flatten() {
        let text = fs::read(entry.path()).unwrap_or_default();
        let name = entry.file_name();
        assert!(!String::from_utf8_lossy(&text).contains("hush"), "{name:?}");
    }
    let holder = house.holder("secret");
    for file in ["cmdline", "environ"] {
        let text = fs::read(format!("/proc/{holder}/{file}")).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains("hush"), "{file}");
    }
    assert!(terminal.stop(GRACE).await.unwrap().is_proven());
}

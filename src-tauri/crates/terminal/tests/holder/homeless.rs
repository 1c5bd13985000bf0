//! A holder whose folder is removed under it.

use std::fs;
use std::time::Duration;

use tokio::time::Instant;

use crate::house::{GRACE, House, attached, exit, gone, lives, plan, shows, until};

/// Far longer than a test.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Removes a holder's folder, also when that puts its files back meanwhile.
fn remove(house: &House, tag: &str) {
    let deadline = Instant::now() + crate::house::LIMIT;
    while fs::remove_dir_all(house.dir().join(tag)).is_err() {
        assert!(Instant::now() < deadline, "it cannot be removed");
    }
}

#[tokio::test]
async fn a_core_works_on_in_a_holder_whose_folder_is_gone_and_behind_it_both_end() {
    let house = House::new();
    let holders = house.patient(1, PATIENCE);
    let script = "stty -echo; echo ready; while read x; do echo \"got:$x:\"; done";
    let terminal = holders.start(&plan(script), "removed").await.unwrap();
    shows(&terminal, "ready").await;
    let (program, holder) = (terminal.pid(), house.holder("removed"));
    remove(&house, "removed");
    terminal.write("still\r").await.unwrap();
    shows(&terminal, "got:still:").await;
    let before = Instant::now();
    terminal.detach();
    until("holder and program are gone", || {
        !lives(holder) && !lives(program)
    })
    .await;
    assert!(
        before.elapsed() >= Duration::from_secs(10),
        "a working agent is given its time: {:?}",
        before.elapsed()
    );
}

#[tokio::test]
async fn a_holder_without_folder_and_core_goes_as_soon_as_its_program_has_ended() {
    let house = House::new();
    let holders = house.patient(1, PATIENCE);
    let go = house.file("go");
    let script = format!("echo ready; while [ ! -e {} ]; do sleep 0.01; done", go.display());
    let terminal = holders.start(&plan(&script), "unlooked").await.unwrap();
    shows(&terminal, "ready").await;
    let holder = house.holder("unlooked");
    drop(terminal);
    remove(&house, "unlooked");
    fs::write(&go, "").unwrap();
    until("the holder is gone", || !lives(holder)).await;
}

#[tokio::test]
async fn a_next_core_that_finds_no_folder_ends_the_agent_and_the_holder_goes_too() {
    let house = House::new();
    let holders = house.patient(1, PATIENCE);
    let terminal = holders
        .start(&plan("echo ready; read x"), "unfound")
        .await
        .unwrap();
    shows(&terminal, "ready").await;
    let (program, holder) = (terminal.pid(), house.holder("unfound"));
    drop(terminal);
    remove(&house, "unfound");
    let why = gone(house.launch(2).attach("unfound").await);
    assert!(why.contains("no folder"), "{why}");
    assert!(!lives(program));
    until("the holder is gone", || !lives(holder)).await;
}

#[tokio::test]
async fn a_holder_alone_notices_by_itself_that_its_folder_is_gone() {
    let house = House::new();
    // It looks twenty times in its patience.
    let holders = house.patient(1, Duration::from_secs(60));
    let terminal = holders.start(&plan("echo ready; read x"), "alone").await.unwrap();
    shows(&terminal, "ready").await;
    let (program, holder) = (terminal.pid(), house.holder("alone"));
    drop(terminal);
    remove(&house, "alone");
    until("both are gone", || !lives(holder) && !lives(program)).await;
}

#[tokio::test]
async fn a_holder_alone_puts_its_record_and_its_socket_back_in_place() {
    let house = House::new();
    let holders = house.patient(1, Duration::from_secs(20));
    let terminal = holders
        .start(&plan("echo ready; read x; exit 4"), "swept")
        .await
        .unwrap();
    shows(&terminal, "ready").await;
    let record = house.record("swept");
    drop(terminal);
    let folder = house.dir().join("swept");
    for name in ["record", "socket"] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    until("both are there again", || {
        folder.join("record").exists() && folder.join("socket").exists()
    })
    .await;
    assert_eq!(house.record("swept"), record);
    let again = attached(house.launch(2).attach("swept").await);
    again.write("\r").await.unwrap();
    assert_eq!(exit(&again).await.code, Some(4));
    assert!(again.stop(GRACE).await.unwrap().is_proven());
    assert!(!house.has_folder("swept"));
}

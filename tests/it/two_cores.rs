//! Two programs that mean one data folder, whatever somebody tidies up in it: the second one never harms what the first
//! one runs. And the end of everything at once, as at a log-out.

use harness::processes::{kill, of_folder};
use harness::program::{Place, code, err, out};
use harness::stub::Stub;
use harness::wait::{LONG, wait_for, wait_until};
use serde_json::{Value, json};

/// Longer than a story takes.
const LONG_TURN: &str = "Slowly. scn=slow:2400";

#[tokio::test(flavor = "multi_thread")]
async fn a_core_whose_lock_file_is_deleted_is_not_taken_for_gone() {
    let stub = Stub::start().await.expect("the stub");
    let place = Place::new(&stub.url());
    let up = place.up().await;
    place.begin(&stub, LONG_TURN).await;
    let data = place.dir.path().join("data");
    let before = place.holders();
    assert_eq!(before.len(), 1);
    // First the lock alone, then all that tells of a core.
    for gone in [&["core.lock"][..], &["core.lock", "running.json", "api-port"][..]] {
        for file in gone {
            // The core may not have written it anew yet.
            let _ = std::fs::remove_file(data.join(file));
        }
        let second = place.run(&["up"]).await;
        assert_eq!(code(&second), Some(1), "{}", out(&second));
        assert!(err(&second).contains("already runs"), "{}", err(&second));
        assert_eq!(out(&second), "", "nothing is said to be starting");
        wait_until("it is found again", LONG, || async {
            code(&place.run(&["status", "--json"]).await) == Some(0) && data.join("core.lock").exists()
        })
        .await;
        assert_eq!(place.holders(), before, "nobody has ended its agent");
    }
    let state = up.state().await;
    assert_eq!(state["sessions"][0]["state"]["state"], "working", "{state}");
    // Deleted once more: what ends it speaks to the core, and ends nothing behind its back.
    std::fs::remove_file(data.join("core.lock")).expect("it is there");
    let down = place.run(&["down", "--leave"]).await;
    assert_eq!(code(&down), Some(0), "{}", err(&down));
    assert!(out(&down).contains("agents go on"), "{}", out(&down));
    assert_eq!(up.ended().await, Some(0));
    assert_eq!(place.holders(), before);
    let up = place.up().await;
    assert_eq!(up.said["launch"]["taken_up"], 1, "{}", up.said);
    place.down(up).await;
    stub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_core_whose_holders_folder_is_deleted_keeps_its_agents_and_ends_them_when_it_is_told() {
    let stub = Stub::start().await.expect("the stub");
    let place = Place::new(&stub.url());
    let up = place.up().await;
    let id = place.begin(&stub, "Slowly. scn=slow:24").await;
    std::fs::remove_dir_all(place.dir.path().join("data/holders")).expect("it is there");
    let second = place.run(&["up"]).await;
    assert_eq!(code(&second), Some(1), "{}", out(&second));
    assert_eq!(code(&place.run(&["status"]).await), Some(0));
    let command = up.over(&id).await;
    assert_eq!(command["outcome"], "done", "{command}");
    // Checks that nothing is left.
    place.down(up).await;
    stub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_result_is_told_that_the_core_is_ending() {
    let stub = Stub::start().await.expect("the stub");
    let place = Place::new(&stub.url());
    let up = place.up().await;
    place.begin(&stub, LONG_TURN).await;
    up.signal("INT");
    wait_until("it is ending", LONG, || async {
        up.state().await["ending"]["how"] == "finish"
    })
    .await;
    let waits = place
        .run(&["send", "--agent", "FE", "Say hello.", "--wait"])
        .await;
    assert_eq!(code(&waits), Some(5), "{}", err(&waits));
    assert!(err(&waits).contains("is ending"), "{}", err(&waits));
    let queued = place.run(&["send", "--agent", "FE", "Say hello."]).await;
    assert_eq!(code(&queued), Some(0), "{}", err(&queued));
    assert!(
        out(&queued).contains("begun at the next start"),
        "{}",
        out(&queued)
    );
    up.signal("INT");
    assert_eq!(up.ended().await, Some(0));
    let up = place.up().await;
    wait_until("what was queued is done, once", LONG, || async {
        let state = up.state().await;
        let commands = state["commands"].as_array().cloned().unwrap_or_default();
        let done = commands.iter().filter(|one| one["outcome"] == "done");
        done.count() == 1
    })
    .await;
    place.down(up).await;
    stub.stop().await;
}

/// Tells every process of a story to end, all at once, as a system does at a log-out.
fn log_out(place: &Place) {
    let all = of_folder(place.dir.path());
    assert!(all.len() > 2, "core, holder, agent: {all:?}");
    let pids = all.iter().map(|process| process.pid.to_string());
    let status = std::process::Command::new("kill")
        .arg("-TERM")
        .args(pids)
        .status();
    // One that has ended meanwhile is no fault.
    status.expect("kill runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_out_in_mid_turn_is_told_as_it_was_and_the_session_goes_on_with_its_conversation() {
    let stub = Stub::start().await.expect("the stub");
    let place = Place::new(&stub.url());
    let up = place.up().await;
    let first = place
        .run(&["send", "--agent", "FE", "Say hello.", "--wait", "--json"])
        .await;
    assert_eq!(code(&first), Some(0), "{}", err(&first));
    let session = up.state().await["sessions"][0]["id"].clone();
    let id = place.begin(&stub, LONG_TURN).await;
    log_out(&place);
    assert_eq!(up.ended().await, Some(0));
    wait_until("nothing of it runs any more", LONG, || async {
        of_folder(place.dir.path()).is_empty()
    })
    .await;

    let up = place.up().await;
    let command = up.over(&id).await;
    assert_ne!(command["outcome"], "done", "{command}");
    assert!(command["reason"].is_string(), "it says what is known: {command}");
    let asked = || {
        let turns = stub.turns();
        let said = turns
            .iter()
            .filter(|turn| turn.prompt().is_some_and(|said| said.contains(LONG_TURN)));
        said.count()
    };
    assert_eq!(asked(), 1, "and it is not done again");
    // Whoever was in the midst of it goes on with the same conversation.
    let resumed = wait_for("the session stands again", LONG, || async {
        let state = up.state().await;
        let found = state["sessions"]
            .as_array()?
            .iter()
            .find(|one| one["id"] == session)?
            .clone();
        (found["state"]["state"] == "idle").then_some(found)
    })
    .await;
    assert_eq!(resumed["hold"], json!(null), "{resumed}");
    let wanted = session.as_str().expect("an id");
    let next = place
        .run(&[
            "send",
            "--session",
            wanted,
            "And now this. scn=text",
            "--wait",
            "--json",
        ])
        .await;
    assert_eq!(code(&next), Some(0), "{}{}", out(&next), err(&next));
    let knows = stub.turns().iter().any(|turn| {
        let body = turn.body.to_string();
        body.contains("And now this.") && body.contains("Say hello.")
    });
    assert!(knows, "the conversation of before is in it");
    assert_eq!(asked(), 1);
    place.down(up).await;
    stub.stop().await;
}

/// The machine is gone from one moment to the next, and comes back as another boot: process ids mean nobody, or
/// somebody else.
fn power_cut(place: &Place, bystander: u32) {
    for process in of_folder(place.dir.path()) {
        kill(process.pid);
    }
    let holders = place.dir.path().join("data/holders");
    for session in std::fs::read_dir(holders).expect("the holders' folder").flatten() {
        let path = session.path().join("record");
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        let mut record: Value = serde_json::from_str(&text).expect("a record");
        record["boot"] = json!("0e0e0e0e-0000-4000-8000-00000000b007");
        record["holder"]["holder"]["pid"] = json!(bystander);
        record["root"]["pid"] = json!(bystander);
        std::fs::write(&path, record.to_string()).expect("the record of before");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_in_mid_turn_is_told_as_unknown_and_whoever_has_the_old_pids_is_left_alone() {
    let stub = Stub::start().await.expect("the stub");
    let place = Place::new(&stub.url());
    let up = place.up().await;
    let id = place.begin(&stub, LONG_TURN).await;
    let mut bystander = std::process::Command::new("/bin/sleep")
        .arg("31611")
        .spawn()
        .expect("somebody else");
    power_cut(&place, bystander.id());
    up.ended().await;
    wait_until("nothing of it runs any more", LONG, || async {
        of_folder(place.dir.path()).is_empty()
    })
    .await;

    let up = place.up().await;
    let command = up.over(&id).await;
    assert_ne!(command["outcome"], "done", "{command}");
    assert!(command["reason"].is_string(), "it says what is known: {command}");
    let turns = stub.turns();
    let asked = turns
        .iter()
        .filter(|turn| turn.prompt().is_some_and(|said| said.contains(LONG_TURN)));
    assert_eq!(asked.count(), 1, "and it is not done again");
    assert!(
        bystander.try_wait().expect("its state").is_none(),
        "it was not meant"
    );
    bystander.kill().expect("it ends");
    bystander.wait().expect("it has ended");
    place.down(up).await;
    stub.stop().await;
}

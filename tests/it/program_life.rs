//! The program's own life: it ends, is killed, is started again, and the agents go on. What people are told of it.

use harness::program::{Place, code, err, out};
use harness::stub::Stub;
use serde_json::{Value, json};

/// A turn that goes on over a restart, until its gate is opened.
const SLOW: &str = "Slowly.";

/// The command as the journal has it.
async fn journalled(place: &Place, id: &str) -> Value {
    let journal = place.run(&["status", "--journal", "--json"]).await;
    assert_eq!(code(&journal), Some(0), "{}", err(&journal));
    let journal: Value = serde_json::from_str(&out(&journal)).expect("JSON");
    let rows = journal["journal"]["commands"].as_array().expect("commands");
    let row = rows.iter().find(|row| row["command"] == id);
    row.expect("the command").clone()
}

fn times_at_the_model(stub: &Stub, prompt: &str) -> usize {
    let turns = stub.turns();
    let said = turns
        .iter()
        .filter(|turn| turn.prompt().is_some_and(|said| said.contains(prompt)));
    said.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_sigterm_the_agent_goes_on_and_the_next_start_takes_it_up() {
    let stub = Stub::start().await.expect("the stub");
    let place = Place::new(&stub.url());
    let up = place.up().await;
    assert_eq!(up.said["launch"]["taken_up"], 0);
    let gate = stub.hold(SLOW);
    let id = place.begin(&stub, SLOW).await;
    let session = up.state().await["sessions"][0]["id"].clone();
    let port = up.said["api"].clone();
    up.signal("TERM");
    assert_eq!(up.ended().await, Some(0));
    assert_eq!(place.holders().len(), 1, "the agent goes on");
    let doctor = place.run(&["doctor"]).await;
    assert!(
        out(&doctor).contains("1 session, running or just over"),
        "{}",
        out(&doctor)
    );

    let up = place.up().await;
    assert_eq!(up.said["launch"]["taken_up"], 1, "{}", up.said);
    assert_eq!(
        up.said["api"], port,
        "hooks of agents that went on go to the same port"
    );
    let state = up.state().await;
    assert_eq!(state["sessions"][0]["id"], session);
    assert_eq!(state["sessions"][0]["taken_up"], true);
    assert!(out(&place.run(&["status"]).await).contains("of before   1 session went on"));
    gate.open();
    let command = up.over(&id).await;
    assert_eq!(command["outcome"], "done", "{command}");
    assert_eq!(command["recovered"], "followed", "{command}");
    assert_eq!(times_at_the_model(&stub, "Slowly"), 1);
    place.down(up).await;
    stub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_in_mid_turn_the_turn_is_followed_to_its_end_and_the_journal_shows_how() {
    let stub = Stub::start().await.expect("the stub");
    let place = Place::new(&stub.url());
    let up = place.up().await;
    let gate = stub.hold(SLOW);
    let id = place.begin(&stub, SLOW).await;
    let up = place.killed_and_up(up).await;
    assert_eq!(up.said["launch"]["taken_up"], 1, "{}", up.said);
    let journal = out(&place.run(&["status", "--journal"]).await);
    let short = &id[..8];
    assert!(
        journal.contains(&format!("{short}  send_prompt     under way  with the agent")),
        "{journal}"
    );
    gate.open();
    let command = up.over(&id).await;
    assert_eq!(command["outcome"], "done", "{command}");
    assert_eq!(times_at_the_model(&stub, "Slowly"), 1);
    let again = place
        .run(&["send", "--agent", "FE", "Say hello.", "--wait"])
        .await;
    assert_eq!(code(&again), Some(0), "{}", err(&again));
    place.down(up).await;
    // The journal is read without a core, too.
    let row = journalled(&place, &id).await;
    assert_eq!(
        (&row["phase"], &row["recovered"]),
        (&json!("finished"), &json!("followed"))
    );
    assert_eq!(row["result"]["acknowledged"], "recorded", "{row}");
    stub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn down_waits_for_the_turn_that_runs_and_ends_every_session() {
    let stub = Stub::start().await.expect("the stub");
    let place = Place::new(&stub.url());
    let up = place.up().await;
    let id = place.begin(&stub, "Slowly. scn=slow:60").await;
    let down = place.run(&["down"]).await;
    assert_eq!(code(&down), Some(0), "{}", err(&down));
    assert!(err(&down).contains("1 turn still runs: "), "{}", err(&down));
    assert!(
        out(&down).contains("has ended, with every session"),
        "{}",
        out(&down)
    );
    assert_eq!(up.ended().await, Some(0));
    assert_eq!(place.holders().len(), 0);
    let row = journalled(&place, &id).await;
    assert_eq!(row["result"]["outcome"], "done", "{row}");
    stub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_without_a_core_is_ended_without_one_and_told_at_the_next_start() {
    let stub = Stub::start().await.expect("the stub");
    let place = Place::new(&stub.url());
    let up = place.up().await;
    let id = place.begin(&stub, "Slowly. scn=slow:400").await;
    let left = place.run(&["down", "--leave"]).await;
    assert_eq!(code(&left), Some(0), "{}", err(&left));
    assert!(out(&left).contains("agents go on"), "{}", out(&left));
    assert_eq!(up.ended().await, Some(0));
    assert_eq!(place.holders().len(), 1);
    let leave = place.run(&["down", "--leave"]).await;
    assert_eq!(code(&leave), Some(0), "it is so already: {}", err(&leave));
    assert!(out(&leave).contains("1 session is"), "{}", out(&leave));

    let down = place.run(&["down", "--json"]).await;
    assert_eq!(code(&down), Some(0), "{}", err(&down));
    let down: Value = serde_json::from_str(&out(&down)).expect("JSON");
    assert_eq!(down["sessions"].as_array().map(Vec::len), Some(1), "{down}");
    assert_eq!(place.holders().len(), 0);

    let up = place.up().await;
    let command = up.over(&id).await;
    assert_ne!(command["outcome"], "done", "{command}");
    assert_eq!(times_at_the_model(&stub, "Slowly"), 1, "and it is not done again");
    place.down(up).await;
    stub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_another_program_has_taken_meanwhile_is_no_obstacle() {
    let place = Place::new("http://127.0.0.1:9");
    let up = place.up().await;
    let port: u16 = up.said["api"]
        .as_str()
        .and_then(|url| url.rsplit(':').next())
        .and_then(|port| port.parse().ok())
        .expect("a port");
    place.down(up).await;
    let taken = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).expect("the port is free");
    let up = place.up().await;
    assert_ne!(up.said["api"], format!("http://127.0.0.1:{port}"));
    assert_eq!(code(&place.run(&["status"]).await), Some(0));
    place.down(up).await;
    drop(taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_core_left_lying_around_keeps_nobody_from_starting() {
    let place = Place::new("http://127.0.0.1:9");
    let up = place.up().await;
    up.signal("KILL");
    up.ended().await;
    let data = place.dir.path().join("data");
    assert!(data.join("running.json").exists() && data.join("core.lock").exists());
    let status = place.run(&["status"]).await;
    assert_eq!(code(&status), Some(5), "{}", err(&status));
    assert!(err(&status).contains("does not run"), "{}", err(&status));
    let up = place.up().await;
    assert_eq!(code(&place.run(&["status"]).await), Some(0));
    let second = place.run(&["up"]).await;
    assert_eq!(code(&second), Some(1));
    let words = err(&second);
    assert!(
        words.contains(&format!("process {}", up.pid())) && words.contains("semo down"),
        "{words}"
    );
    place.down(up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_is_told_and_put_aside_by_an_explicit_act_only() {
    let place = Place::new("http://127.0.0.1:9");
    let up = place.up().await;
    let refused = place.run(&["doctor", "--set-journal-aside"]).await;
    assert_eq!(code(&refused), Some(1), "a core has it open");
    assert!(err(&refused).contains("already runs"), "{}", err(&refused));
    place.down(up).await;
    let journal = place.dir.path().join("data/journal.sqlite");
    std::fs::write(
        &journal,
        "no journal at all, and longer than a header of SQLite's ".repeat(40),
    )
    .expect("written");
    let failed = place.run(&["up"]).await;
    assert_eq!(code(&failed), Some(1));
    assert!(err(&failed).contains("--set-journal-aside"), "{}", err(&failed));
    let doctor = place.run(&["doctor"]).await;
    assert_eq!(code(&doctor), Some(1));
    assert!(out(&doctor).contains("✗ journal"), "{}", out(&doctor));
    let aside = place.run(&["doctor", "--set-journal-aside", "--json"]).await;
    assert_eq!(code(&aside), Some(0), "{}", err(&aside));
    let aside: Value = serde_json::from_str(&out(&aside)).expect("JSON");
    let kept = aside["put_aside"].as_str().expect("a path").to_owned();
    assert!(
        std::fs::read(&kept)
            .expect("it is kept")
            .starts_with(b"no journal")
    );
    let up = place.up().await;
    assert!(out(&place.run(&["doctor"]).await).contains("put aside"));
    place.down(up).await;
}

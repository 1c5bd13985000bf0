//! A workstation whose account is taken out of the office while it runs: people are told the truth at once, and it goes
//! on when the account is let in again.

use std::sync::Arc;

use harness::clock::SystemClock;
use harness::program::{Place, Up, code, err};
use harness::remote::{EMAIL, PASSWORD, Remote};
use harness::wait::{LONG, wait_for};
use hub::{HubConfig, Team};
use serde_json::{Value, json};

/// No model is asked.
const NO_MODEL: &str = "http://127.0.0.1:9";

/// The connection as windows see it.
async fn connection(up: &Up) -> Value {
    up.state().await["connection"].clone()
}

async fn is(up: &Up, status: &str) {
    wait_for(&format!("the connection is {status}"), LONG, || async {
        (connection(up).await["status"] == status).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workstation_whose_account_is_dismissed_is_not_shown_as_live_and_comes_back_when_it_is_let_in() {
    let dir = tempfile::tempdir().expect("a folder");
    let remote = Remote::start(dir.path(), 0).await;
    let (url, key) = (remote.hub.url().to_owned(), remote.hub.keys().publishable.clone());
    let unused = "127.0.0.1:0".parse().expect("an address");
    let config = HubConfig::new(dir.path().join("hub"), unused, Arc::new(SystemClock));
    let team = Team::open(&config).await.expect("the team");
    let mut place = Place::new(NO_MODEL);
    place.set("SEMO_PASSWORD", PASSWORD);
    let args = ["login", "--url", &url, "--key", &key, "--email", EMAIL];
    let done = place.run(&args).await;
    assert_eq!(code(&done), Some(0), "{}", err(&done));
    let up = place.up().await;
    is(&up, "live").await;

    team.dismiss(EMAIL, "Team").await.expect("dismissed");
    let shown = wait_for("people are told why it is not live", LONG, || async {
        let shown = connection(&up).await;
        let why = shown["why"].as_str().unwrap_or_default();
        (shown["status"] != "live" && why.contains("permission")).then_some(shown)
    })
    .await;
    assert_ne!(shown["status"], "live");

    team.admit(EMAIL, "Team", "owner").await.expect("let in");
    wait_for("it is live again", LONG, || async {
        up.call("refresh", json!({})).await;
        (connection(&up).await["status"] == "live").then_some(())
    })
    .await;
    team.close().await;
    place.down(up).await;
    remote.hub.stop().await.expect("the hub stops");
}

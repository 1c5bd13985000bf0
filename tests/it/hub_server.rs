//! `semo hub`: a team's hub by itself, as whoever runs it sees it.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use harness::clock::SystemClock;
use harness::program::{Place, Up, code, err, out};
use harness::remote::{EMAIL, PASSWORD};
use harness::wait::{LONG, wait_for};
use serde_json::Value;
use supabase::{Auth, MemoryTokenStore, Project, Rest};

/// No model is asked.
const NO_MODEL: &str = "http://127.0.0.1:9";

fn place() -> Place {
    let mut place = Place::new(NO_MODEL);
    place.set("SEMO_HUB_LISTEN", "127.0.0.1:0");
    place.set("SEMO_PASSWORD", PASSWORD);
    place
}

/// Starts it and waits until it says where it is.
async fn serve(place: &Place) -> (Up, Value) {
    let log = place.dir.path().join("hub.out");
    let file = File::create(&log).expect("a file for its output");
    let hub = place.start(&["hub", "--json"], Stdio::from(file));
    let said = wait_for("semo hub says where it is", LONG, || async {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().find_map(|line| serde_json::from_str(line).ok())
    })
    .await;
    (hub, said)
}

async fn sign_in(said: &Value) -> Rest {
    let text = |name: &str| said[name].as_str().expect("what it said");
    let project = Project::new(text("url"), text("publishable_key")).expect("a project");
    let store = Arc::new(MemoryTokenStore::default());
    let auth = Auth::new(project.clone(), Arc::new(SystemClock), store).expect("auth");
    auth.sign_in(EMAIL, PASSWORD).await.expect("the sign-in");
    Rest::new(project, auth)
}

async fn done(place: &Place, args: &[&str]) -> String {
    let output = place.run(args).await;
    assert_eq!(code(&output), Some(0), "{args:?}: {}", err(&output));
    out(&output)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_has_its_accounts_its_offices_and_a_backup_that_serves_on_another_machine() {
    let place = place();
    let (hub, said) = serve(&place).await;
    done(&place, &["hub", "member", "account", EMAIL]).await;
    let rest = sign_in(&said).await;
    rest.create_office("Team").await.expect("an office");
    done(&place, &["hub", "member", "account", "guest@example.test"]).await;
    let admit = [
        "hub",
        "member",
        "admit",
        "guest@example.test",
        "--office",
        "Team",
        "--role",
        "viewer",
    ];
    assert!(done(&place, &admit).await.contains("viewer"));
    let list = done(&place, &["hub", "member", "list"]).await;
    assert!(list.contains(&format!("{EMAIL}  owner of Team")), "{list}");
    assert!(list.contains("guest@example.test  viewer of Team"), "{list}");

    let file = place.dir.path().join("team.backup");
    assert!(
        done(&place, &["hub", "backup", path(&file)])
            .await
            .contains("keys")
    );
    let again = place.run(&["hub", "backup", path(&file)]).await;
    assert_eq!(
        code(&again),
        Some(1),
        "a backup is not written over: {}",
        err(&again)
    );
    let early = place.run(&["hub", "renew-keys"]).await;
    assert!(err(&early).contains("already running"), "{}", err(&early));
    hub.signal("TERM");
    assert_eq!(hub.ended().await, Some(0));
    let renewed: Value =
        serde_json::from_str(&done(&place, &["hub", "renew-keys", "--json"]).await).expect("JSON");
    assert_eq!(renewed["publishable_key"], said["publishable_key"]);

    let other = self::place();
    done(&other, &["hub", "restore", path(&file)]).await;
    let (hub, said_there) = serve(&other).await;
    assert_eq!(said["publishable_key"], said_there["publishable_key"]);
    let offices = sign_in(&said_there).await.offices().await.expect("its offices");
    assert_eq!(offices.len(), 1);
    let refused = other.run(&["hub", "restore", path(&file), "--replace"]).await;
    assert!(err(&refused).contains("already running"), "{}", err(&refused));
    hub.signal("INT");
    assert_eq!(hub.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_of_a_hub_is_told_in_one_sentence() {
    let mut place = place();
    place.set("SEMO_HUB_LISTEN", "0.0.0.0:0");
    let open = place.run(&["hub"]).await;
    assert_eq!(code(&open), Some(2), "{}", err(&open));
    assert!(err(&open).contains("without TLS") && err(&open).contains("SEMO_HUB_TLS_CERTIFICATE"));
    place.set("SEMO_HUB_LISTEN", "127.0.0.1:0");
    let nobody = place.run(&["hub", "member", "list"]).await;
    assert_eq!(code(&nobody), Some(1));
    assert!(err(&nobody).contains("is it running?"), "{}", err(&nobody));
    place.set(
        "SEMO_HUB_DATABASE_URL",
        "postgresql://semo:very-secret@127.0.0.1:1/semo",
    );
    let away = place.run(&["hub"]).await;
    assert_eq!(code(&away), Some(1));
    assert!(
        err(&away).contains("connect") && !err(&away).contains("very-secret"),
        "{}",
        err(&away)
    );
}

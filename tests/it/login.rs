//! `semo login` and `semo logout`, as somebody at a terminal or a script sees them. The keychain is not used here: its
//! stories are unit tests of `supabase::auth`.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use harness::clock::SystemClock;
use harness::program::{Place, Up, code, err, out};
use harness::remote::{EMAIL, PASSWORD, Remote};
use harness::stub::Stub;
use harness::wait::{LONG, wait_for, wait_until};
use serde_json::{Value, json};
use supabase::{Auth, AuthError, MemoryTokenStore, Project, Tokens};

/// No model is asked.
const NO_MODEL: &str = "http://127.0.0.1:9";
/// What the owner of the settings file has written.
const SETTINGS: &str = "# my machine\n[limits] # small\nsessions_max = 2\n";

fn login<'a>(url: &'a str, key: &'a str) -> [&'a str; 7] {
    ["login", "--url", url, "--key", key, "--email", EMAIL]
}

/// Waits until this office is served, and gives back what windows see then.
async fn serves(up: &Up, office: &str) -> Value {
    wait_for(&format!("office {office} is served"), LONG, || async {
        up.try_state()
            .await
            .filter(|state| state["office"]["name"] == office && state["profile"]["changing"] == false)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_of_a_sign_in_is_told_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let remote = Remote::start(dir.path(), 0).await;
    let (url, key) = (remote.hub.url().to_owned(), remote.hub.keys().publishable.clone());
    let mut place = Place::new(NO_MODEL);
    place.set("SEMO_PASSWORD", "not the password");
    let cases: [(&[&str], i32, &str); 6] = [
        (&["login"], 2, "--url"),
        (&login(&url, "sb_secret_1"), 2, "secret key"),
        (&login(&url, "sb_publishable_wrong"), 1, "publishable key"),
        (&login("http://127.0.0.1:9", &key), 5, "127.0.0.1:9"),
        (&login("http://hub.example", &key), 2, "not encrypted"),
        (&login(&url, &key), 1, "password is wrong"),
    ];
    for (args, expected, words) in cases {
        let refused = place.run(args).await;
        assert_eq!(code(&refused), Some(expected), "{args:?}: {}", err(&refused));
        assert!(err(&refused).contains(words), "`{words}`: {}", err(&refused));
    }
    assert!(!place.dir.path().join("config/settings.toml").exists());
    assert_eq!(place.sign_ins(), Vec::<PathBuf>::new());
    remote.hub.stop().await.expect("the hub stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_signed_in_once_needs_no_password_until_they_sign_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let remote = Remote::start(dir.path(), 0).await;
    let (url, key) = (remote.hub.url().to_owned(), remote.hub.keys().publishable.clone());
    let mut place = Place::new(NO_MODEL);
    let file = place.dir.path().join("config/settings.toml");
    std::fs::create_dir_all(place.dir.path().join("config")).expect("a folder");
    std::fs::write(&file, SETTINGS).expect("settings");
    place.set("SEMO_PASSWORD", PASSWORD);
    let done = place.run(&login(&url, &key)).await;
    assert_eq!(code(&done), Some(0), "{}", err(&done));
    for words in ["signed in as", EMAIL, "sign-ins", "only you can read", "Team"] {
        assert!(out(&done).contains(words), "`{words}`: {}", out(&done));
    }
    let settings = std::fs::read_to_string(&file).expect("settings");
    for kept in ["# my machine", "[limits] # small", "profile = \"supabase\"", &url] {
        assert!(settings.contains(kept), "`{kept}`: {settings}");
    }
    let tokens = place.sign_ins().pop().expect("the tokens");
    let mode = tokens.metadata().expect("the tokens").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let stored = std::fs::read_to_string(&tokens).expect("the tokens");
    assert!(!stored.contains(PASSWORD) && !settings.contains(PASSWORD));

    place.set("SEMO_PASSWORD", "");
    let office = place.run(&["office", "settings"]).await;
    assert_eq!(code(&office), Some(0), "{}", err(&office));
    let doctor = out(&place.run(&["doctor"]).await);
    assert!(
        doctor.contains(EMAIL) && doctor.contains("the sign-in is kept in"),
        "{doctor}"
    );

    let stored: Tokens =
        serde_json::from_slice(&std::fs::read(&tokens).expect("the tokens")).expect("tokens");
    // Also one that still lies where an earlier version kept it.
    let of_before = place.dir.path().join("data/tokens.json");
    std::fs::rename(&tokens, &of_before).expect("moved");
    let gone = place.run(&["logout"]).await;
    assert_eq!(code(&gone), Some(0), "{}", err(&gone));
    assert!(
        out(&gone).contains("is signed out"),
        "{} {}",
        out(&gone),
        err(&gone)
    );
    assert!(!tokens.exists() && !of_before.exists());
    let project = Project::new(&url, &key).expect("a project");
    let copy = Arc::new(MemoryTokenStore::with(stored));
    let auth = Auth::new(project, Arc::new(SystemClock), copy).expect("auth");
    let over = auth
        .refresh_now()
        .await
        .expect_err("a copy of the tokens is worth nothing");
    assert!(matches!(over, AuthError::SignedOut { .. }), "{over}");
    let office = place.run(&["office", "settings"]).await;
    assert!(err(&office).contains("semo login"), "{}", err(&office));

    let back = place.run(&["logout", "--this-machine"]).await;
    assert_eq!(code(&back), Some(0), "{}", err(&back));
    let settings = std::fs::read_to_string(&file).expect("settings");
    assert!(
        settings.contains("profile = \"this-machine\"") && settings.contains("# my machine"),
        "{settings}"
    );
    remote.hub.stop().await.expect("the hub stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_core_turns_to_a_team_at_a_sign_in_and_not_while_it_has_work_in_its_hands() {
    let dir = tempfile::tempdir().expect("a folder");
    let remote = Remote::start(dir.path(), 0).await;
    let (url, key) = (remote.hub.url().to_owned(), remote.hub.keys().publishable.clone());
    let stub = Stub::start().await.expect("the stub of the model");
    let place = Place::new(&stub.url());
    let up = place.up().await;
    serves(&up, "This machine").await;
    let asked = |key: &str, password: &str| json!({ "url": url, "publishable_key": key, "email": EMAIL, "password": password });

    let work = place.begin(&stub, "Never answer. scn=hang").await;
    let (status, told) = up.call("sign_in", asked(&key, PASSWORD)).await;
    assert_eq!((status, &told["code"]), (409, &json!("conflict")), "{told}");
    assert!(
        told["message"].as_str().expect("words").contains("in work here"),
        "{told}"
    );
    let cancelled = place.run(&["cancel", &work]).await;
    assert_eq!(code(&cancelled), Some(0), "{}", err(&cancelled));
    wait_until("its end is reported", LONG, || async {
        up.call("sign_in", asked("sb_publishable_wrong", PASSWORD))
            .await
            .0
            != 409
    })
    .await;

    for (params, status, words) in [
        (asked("sb_secret_1", PASSWORD), 422, "secret key"),
        (
            asked("sb_publishable_wrong", PASSWORD),
            422,
            "does not take this publishable key",
        ),
        (asked(&key, "not the password"), 403, "password is wrong"),
        (
            json!({ "url": "http://hub.example", "publishable_key": key, "email": EMAIL, "password": "x" }),
            422,
            "not encrypted",
        ),
        (
            json!({ "url": "http://127.0.0.1:9", "publishable_key": key, "email": EMAIL, "password": "x" }),
            502,
            "127.0.0.1:9",
        ),
    ] {
        let (got, told) = up.call("sign_in", params).await;
        assert_eq!(got, status, "{told}");
        assert!(
            told["message"].as_str().expect("words").contains(words),
            "`{words}`: {told}"
        );
    }
    assert_eq!(place.sign_ins(), Vec::<PathBuf>::new());

    let held = place.holders().len();
    assert!(held > 0, "a session is at rest");
    let (status, told) = up.call("sign_in", asked(&key, PASSWORD)).await;
    assert_eq!(status, 200, "{told}");
    let state = serves(&up, "Team").await;
    assert_eq!(state["profile"]["kind"], "supabase");
    assert_eq!(state["profile"]["kept"], "file");
    assert_eq!(place.holders().len(), held, "and stays in its holder");
    let log = std::fs::read_to_string(place.dir.path().join("data/semo.log")).expect("the log");
    assert!(!log.contains(PASSWORD), "the password is in no log");

    let (status, told) = up.call("sign_out", json!({})).await;
    assert_eq!(status, 200, "{told}");
    let state = up.state().await;
    assert_eq!(
        (&state["office"], &state["problems"][0]["code"]),
        (&Value::Null, &json!("sign_in"))
    );
    assert_eq!(place.sign_ins(), Vec::<PathBuf>::new());
    let again = json!({ "password": PASSWORD });
    let (status, told) = up.call("sign_in", again).await;
    assert_eq!(
        status, 200,
        "where it belongs already, the settings know the rest: {told}"
    );
    serves(&up, "Team").await;
    place.down(up).await;
    remote.hub.stop().await.expect("the hub stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn semo_login_and_logout_turn_the_core_that_runs_and_its_address_stays() {
    let dir = tempfile::tempdir().expect("a folder");
    let remote = Remote::start(dir.path(), 0).await;
    let (url, key) = (remote.hub.url().to_owned(), remote.hub.keys().publishable.clone());
    let mut place = Place::new(NO_MODEL);
    let up = place.up().await;
    serves(&up, "This machine").await;
    place.set("SEMO_PASSWORD", PASSWORD);
    let done = place.run(&login(&url, &key)).await;
    assert_eq!(code(&done), Some(0), "{}", err(&done));
    serves(&up, "Team").await;
    place.set("SEMO_PASSWORD", "");
    let office = place.run(&["office", "settings"]).await;
    assert_eq!(code(&office), Some(0), "{}", err(&office));
    let back = place.run(&["logout", "--this-machine"]).await;
    assert_eq!(code(&back), Some(0), "{}", err(&back));
    serves(&up, "This machine").await;
    assert_eq!(place.sign_ins(), Vec::<PathBuf>::new());
    place.down(up).await;
    remote.hub.stop().await.expect("the hub stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_fails_brings_the_office_of_before_back_and_says_why() {
    let dir = tempfile::tempdir().expect("a folder");
    let remote = Remote::start(dir.path(), 0).await;
    let (url, key) = (remote.hub.url().to_owned(), remote.hub.keys().publishable.clone());
    let mut place = Place::new(NO_MODEL);
    place.set("SEMO_PASSWORD", PASSWORD);
    let done = place.run(&login(&url, &key)).await;
    assert_eq!(code(&done), Some(0), "{}", err(&done));
    place.set("SEMO_PASSWORD", "");
    // Without a Postgres of its own this machine can have no office.
    place.set("SEMO_POSTGRES_BIN", "/nonexistent");
    let up = place.up().await;
    serves(&up, "Team").await;
    // Somebody has picked an office of several.
    let file = place.dir.path().join("config/settings.toml");
    let office = up.state().await["office"]["id"].clone();
    let before = std::fs::read_to_string(&file).expect("settings");
    let before = format!("{before}\n[office] # of several\nid = {office}\n");
    std::fs::write(&file, &before).expect("written");
    let (status, told) = up.call("use_profile", json!({ "profile": "this_machine" })).await;
    assert_eq!(status, 200, "{told}");
    let state = wait_for("it has come back and says why", LONG, || async {
        let state = up.try_state().await?;
        let told = state["problems"]
            .as_array()?
            .iter()
            .any(|one| one["code"] == "profile");
        (told && state["office"]["name"] == "Team").then_some(state)
    })
    .await;
    assert_eq!(state["profile"]["kind"], "supabase");
    let settings = std::fs::read_to_string(&file).expect("settings");
    assert_eq!(settings, before, "byte by byte, the picked office too");
    let (status, _) = up.call("refresh", json!({})).await;
    assert_eq!(status, 200);
    wait_until("who has looked is told no more", LONG, || async {
        up.try_state()
            .await
            .is_some_and(|state| state["problems"] == json!([]))
    })
    .await;
    place.down(up).await;
    remote.hub.stop().await.expect("the hub stops");
}

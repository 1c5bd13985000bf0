//! `semo login` and `semo logout`, as somebody at a terminal or a script sees them. The keychain is not used here: its
//! stories are unit tests of `supabase::auth`.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use harness::clock::SystemClock;
use harness::program::{Place, code, err, out};
use harness::remote::{EMAIL, PASSWORD, Remote};
use supabase::{Auth, AuthError, MemoryTokenStore, Project, Tokens};

/// No model is asked.
const NO_MODEL: &str = "http://127.0.0.1:9";
/// What the owner of the settings file has written.
const SETTINGS: &str = "# my machine\n[limits] # small\nsessions_max = 2\n";

fn login<'a>(url: &'a str, key: &'a str) -> [&'a str; 7] {
    ["login", "--url", url, "--key", key, "--email", EMAIL]
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
    assert!(!place.dir.path().join("data/tokens.json").exists());
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
    for words in ["signed in as", EMAIL, "tokens.json", "only you can read", "Team"] {
        assert!(out(&done).contains(words), "`{words}`: {}", out(&done));
    }
    let settings = std::fs::read_to_string(&file).expect("settings");
    for kept in ["# my machine", "[limits] # small", "profile = \"supabase\"", &url] {
        assert!(settings.contains(kept), "`{kept}`: {settings}");
    }
    let tokens = place.dir.path().join("data/tokens.json");
    let mode = tokens.metadata().expect("the tokens").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let stored = std::fs::read_to_string(&tokens).expect("the tokens");
    assert!(!stored.contains(PASSWORD) && !settings.contains(PASSWORD));

    place.set("SEMO_PASSWORD", "");
    let office = place.run(&["office", "settings"]).await;
    assert_eq!(code(&office), Some(0), "{}", err(&office));
    let doctor = out(&place.run(&["doctor"]).await);
    assert!(
        doctor.contains(EMAIL) && doctor.contains("sign-ins are kept in"),
        "{doctor}"
    );

    let stored: Tokens =
        serde_json::from_slice(&std::fs::read(&tokens).expect("the tokens")).expect("tokens");
    let gone = place.run(&["logout"]).await;
    assert_eq!(code(&gone), Some(0), "{}", err(&gone));
    assert!(
        out(&gone).contains("is signed out"),
        "{} {}",
        out(&gone),
        err(&gone)
    );
    assert!(!tokens.exists());
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

//! The refresher against a stub: when it refreshes, how often, and what it does when that fails.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::Notify;

use super::*;
use crate::stub::{Answer, Asked, HandClock, Stub, answer, session, signed_in, tokens};

const PASSWORD_GRANT: &str = "grant_type=password";
const REFRESH_GRANT: &str = "grant_type=refresh_token";

/// Gives session 2, 3, 4 … for each refresh.
fn refreshing() -> impl Fn(&Asked) -> Answer {
    let number = AtomicU32::new(2);
    move |_| answer(200, session(number.fetch_add(1, Ordering::SeqCst)))
}

/// A store whose disk is full when told so.
#[derive(Default)]
struct FullDisk {
    inner: MemoryTokenStore,
    full: AtomicBool,
}

impl TokenStore for FullDisk {
    fn load(&self) -> Result<Option<Tokens>, StoreError> {
        self.inner.load()
    }
    fn save(&self, tokens: &Tokens) -> Result<(), StoreError> {
        if self.full.load(Ordering::SeqCst) {
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(StoreError::File {
                attempted: "write",
                path: "tokens.json".into(),
                source,
            });
        }
        self.inner.save(tokens)
    }
    fn clear(&self) -> Result<(), StoreError> {
        self.inner.clear()
    }
}

#[tokio::test]
async fn a_sign_in_is_stored_and_its_token_used() {
    let stub = Stub::start(|_| answer(200, session(1))).await;
    let store = Arc::new(MemoryTokenStore::default());
    let auth = Auth::new(stub.project(), HandClock::at(0), store.clone()).expect("auth");
    assert_eq!(auth.user(), None);

    let tokens = auth.sign_in("a@b.c", "secret").await.expect("signed in");
    assert_eq!(auth.user(), Some(tokens.user));
    assert_eq!(auth.access_token().await.expect("a token"), "access.1");
    assert_eq!(store.load().expect("loaded"), Some(tokens.clone()));
    assert!(
        !format!("{tokens:?} {auth:?}").contains("access.1"),
        "tokens are not shown"
    );
    let asked = &stub.asked()[0];
    assert_eq!(asked.line, format!("POST /auth/v1/token?{PASSWORD_GRANT}"));
    assert_eq!(asked.header("apikey"), Some("sb_publishable_test"));
    assert_eq!(asked.body["password"], "secret");
}

#[tokio::test]
async fn a_wrong_password_is_called_that() {
    let stub = Stub::start(|_| {
        answer(
            400,
            r#"{"code":"invalid_credentials","message":"Invalid login credentials"}"#,
        )
    })
    .await;
    let auth = Auth::new(
        stub.project(),
        HandClock::at(0),
        Arc::new(MemoryTokenStore::default()),
    )
    .expect("auth");
    assert!(matches!(
        auth.sign_in("a@b.c", "x").await,
        Err(AuthError::WrongPassword)
    ));
    assert!(
        matches!(auth.access_token().await, Err(AuthError::SignedOut { .. })),
        "nobody is signed in"
    );
    assert_eq!(stub.count(REFRESH_GRANT), 0, "no session, no refresh");
}

#[tokio::test]
async fn a_token_is_refreshed_after_two_thirds_of_its_life_and_not_before() {
    let stub = Stub::start(refreshing()).await;
    let clock = HandClock::at(0);
    let (auth, store) = signed_in(&stub, &clock);
    clock.advance_s(2_399);
    assert_eq!(auth.access_token().await.expect("a token"), "access.1");
    assert_eq!(stub.count(REFRESH_GRANT), 0);
    clock.advance_s(2);
    assert_eq!(auth.access_token().await.expect("a token"), "access.2");
    assert_eq!(stub.asked()[0].body["refresh_token"], "refresh1");
    let stored = store.load().expect("loaded").expect("stored");
    assert_eq!(stored.refresh_token, "refresh2", "the new pair is kept");
}

#[tokio::test]
async fn a_session_goes_by_the_address_that_it_began_with_when_its_account_gets_another_one() {
    let stub = Stub::start(|_| answer(200, session(2).replace("a@b.c", "new@b.c"))).await;
    let clock = HandClock::at(0);
    let (auth, store) = signed_in(&stub, &clock);
    clock.advance_s(3_000);
    assert_eq!(auth.access_token().await.expect("a token"), "access.2");
    assert_eq!(auth.email().as_deref(), Some("a@b.c"));
    let stored = store.load().expect("loaded").expect("stored");
    assert_eq!(stored.email, "a@b.c", "also for the next start");
    let anew = auth.sign_in("new@b.c", "secret").await.expect("signed in");
    assert_eq!(anew.email, "new@b.c", "a new sign-in is by the new one");
}

#[tokio::test]
async fn many_callers_at_once_cause_one_refresh() {
    let gate = Arc::new(Notify::new());
    let held = gate.clone();
    let stub = Stub::start(move |_| Answer {
        after: Some(held.clone()),
        ..answer(200, session(2))
    })
    .await;
    let clock = HandClock::at(0);
    let (auth, _) = signed_in(&stub, &clock);
    clock.advance_s(3_000);
    let callers = async {
        tokio::join!(
            auth.access_token(),
            auth.access_token(),
            auth.refresh_now(),
            auth.refresh_after("access.1")
        )
    };
    let release = async {
        while stub.count(REFRESH_GRANT) == 0 {
            tokio::task::yield_now().await;
        }
        gate.notify_one();
    };
    let ((a, b, c, d), ()) = tokio::join!(callers, release);
    assert_eq!(
        (a.expect("a"), b.expect("b")),
        ("access.2".to_owned(), "access.2".to_owned())
    );
    assert_eq!(
        (c.expect("c").access_token, d.expect("d").access_token),
        ("access.2".to_owned(), "access.2".to_owned())
    );
    assert_eq!(stub.count(REFRESH_GRANT), 1, "a refresh token works once");
}

#[tokio::test]
async fn trouble_during_a_refresh_keeps_the_same_refresh_token_for_later() {
    let broken = Arc::new(AtomicBool::new(true));
    let switch = broken.clone();
    let stub = Stub::start(move |_| {
        if switch.load(Ordering::SeqCst) {
            answer(503, "<html>maintenance</html>")
        } else {
            answer(200, session(2))
        }
    })
    .await;
    let clock = HandClock::at(0);
    let (auth, store) = signed_in(&stub, &clock);
    clock.advance_s(3_000);
    for _ in 0..5 {
        assert_eq!(
            auth.access_token().await.expect("the old one still works"),
            "access.1"
        );
    }
    assert_eq!(
        stub.count(REFRESH_GRANT),
        1,
        "a broken server is not asked at every request"
    );

    clock.advance_s(600);
    let error = auth.access_token().await.expect_err("expired and no new one");
    assert!(matches!(&error, AuthError::Unreachable { .. }), "{error}");
    assert!(error.is_passing());
    assert_eq!(
        store
            .load()
            .expect("loaded")
            .map(|tokens| tokens.refresh_token)
            .as_deref(),
        Some("refresh1")
    );

    broken.store(false, Ordering::SeqCst);
    assert_eq!(token_in_the_end(&auth).await, "access.2");
    assert!(
        stub.asked()
            .iter()
            .all(|asked| asked.body["refresh_token"] == "refresh1"),
        "the same one each time"
    );
}

#[tokio::test]
async fn a_refresh_that_something_on_the_way_forbids_takes_no_token_away_that_still_works() {
    let stub = Stub::start(|_| answer(403, json!({"message": "blocked by the company's gateway"}))).await;
    let clock = HandClock::at(0);
    let (auth, store) = signed_in(&stub, &clock);
    clock.advance_s(3_000);
    for _ in 0..5 {
        assert_eq!(auth.access_token().await.expect("it still works"), "access.1");
    }
    assert_eq!(stub.count(REFRESH_GRANT), 1, "it is not asked at every request");
    clock.advance_s(600);
    let error = auth.access_token().await.expect_err("it is over by now");
    assert!(error.to_string().contains("gateway"), "{error}");
    assert!(store.load().expect("loaded").is_some(), "the sign-in is kept");
}

#[tokio::test]
async fn a_dead_session_is_forgotten_and_not_asked_about_again() {
    let stub = Stub::start(|_| {
        answer(
            400,
            r#"{"code":"refresh_token_already_used","message":"Already used"}"#,
        )
    })
    .await;
    let clock = HandClock::at(0);
    let (auth, store) = signed_in(&stub, &clock);
    clock.advance_s(3_000);
    let error = auth.access_token().await.expect_err("over");
    assert!(
        matches!(&error, AuthError::SignedOut { reason } if reason.contains("Already used")),
        "{error}"
    );
    let error = auth.access_token().await.expect_err("still over").to_string();
    assert!(
        error.contains("Already used") && error.contains("sign in again"),
        "{error}"
    );
    assert_eq!(stub.count(REFRESH_GRANT), 1);
    assert_eq!(store.load().expect("loaded"), None);
}

#[tokio::test]
async fn a_pair_that_cannot_be_stored_is_not_used_and_not_lost() {
    let stub = Stub::start(refreshing()).await;
    let clock = HandClock::at(0);
    let store = Arc::new(FullDisk::default());
    store.save(&tokens(1, clock.now())).expect("room");
    let auth = Auth::new(stub.project(), clock.clone(), store.clone()).expect("auth");
    clock.advance_s(3_000);
    store.full.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let error = auth.access_token().await.expect_err("no room");
        assert!(matches!(&error, AuthError::Store { .. }), "{error}");
    }
    store.full.store(false, Ordering::SeqCst);
    assert_eq!(auth.access_token().await.expect("a token"), "access.2");
    assert_eq!(
        stub.count(REFRESH_GRANT),
        1,
        "the first refresh token is spent; a second use would end the session"
    );
    assert_eq!(
        store
            .load()
            .expect("loaded")
            .map(|tokens| tokens.refresh_token)
            .as_deref(),
        Some("refresh2")
    );
}

#[tokio::test]
async fn another_programs_refresh_is_taken_over() {
    let stub = Stub::start(refreshing()).await;
    let clock = HandClock::at(0);
    let (auth, store) = signed_in(&stub, &clock);
    clock.advance_s(3_000);
    store.save(&tokens(9, clock.now())).expect("the other program");
    assert_eq!(auth.access_token().await.expect("a token"), "access.9");
    assert_eq!(stub.count(REFRESH_GRANT), 0, "its pair is ours too");
}

#[tokio::test]
async fn somebody_elses_sign_in_is_neither_used_nor_overwritten() {
    let stub = Stub::start(refreshing()).await;
    let clock = HandClock::at(0);
    let (auth, store) = signed_in(&stub, &clock);
    clock.advance_s(3_000);
    let other = Tokens {
        user: UserId(uuid::Uuid::nil()),
        ..tokens(9, clock.now())
    };
    store.save(&other).expect("the other user");
    let error = auth.access_token().await.expect_err("not ours");
    assert!(
        matches!(&error, AuthError::SignedOut { reason } if reason.contains("somebody else")),
        "{error}"
    );
    assert_eq!(
        (stub.asked().len(), store.load().expect("loaded")),
        (0, Some(other))
    );
}

#[tokio::test]
async fn a_sign_out_by_another_program_counts_here_and_its_next_sign_in_too() {
    let stub = Stub::start(refreshing()).await;
    let clock = HandClock::at(0);
    let (auth, store) = signed_in(&stub, &clock);
    store.clear().expect("the other program");
    clock.advance_s(3_000);
    let error = auth.access_token().await.expect_err("signed out elsewhere");
    assert!(
        matches!(&error, AuthError::SignedOut { reason } if reason.contains("has signed out")),
        "{error}"
    );
    assert_eq!(
        (stub.asked().len(), store.load().expect("loaded")),
        (0, None),
        "the old session is not brought back"
    );
    store.save(&tokens(1, clock.now())).expect("the old pair");
    auth.access_token().await.expect_err("that one is over");
    store.save(&tokens(7, clock.now())).expect("the other program");
    assert_eq!(auth.access_token().await.expect("a token"), "access.7");
    assert_eq!(auth.user(), Some(tokens(7, clock.now()).user));
}

#[tokio::test]
async fn a_sign_in_by_another_program_is_taken_up() {
    let stub = Stub::start(refreshing()).await;
    let clock = HandClock::at(0);
    let store = Arc::new(MemoryTokenStore::default());
    let auth = Auth::new(stub.project(), clock.clone(), store.clone()).expect("auth");
    auth.access_token().await.expect_err("nobody");
    store.save(&tokens(1, clock.now())).expect("the other program");
    clock.advance_s(3_000);
    assert_eq!(
        auth.access_token().await.expect("a token"),
        "access.2",
        "it was old: renewed first"
    );
    assert_eq!(
        store
            .load()
            .expect("loaded")
            .map(|tokens| tokens.refresh_token)
            .as_deref(),
        Some("refresh2")
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_while_another_program_holds_the_lock() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("session.json");
    let stub = Stub::start(|_| answer(200, session(1))).await;
    let new = || FileTokenStore::new(&path, &stub.project());
    let (store, other) = (new(), new());
    let auth = Auth::new(stub.project(), HandClock::at(0), Arc::new(store)).expect("auth");
    let lock = other.try_lock().expect("a look").expect("free");
    let error = auth.sign_in("a@b.c", "secret").await.expect_err("held");
    assert!(matches!(&error, AuthError::Unreachable { .. }), "{error}");
    assert_eq!((stub.asked().len(), other.load().expect("loaded")), (0, None));
    drop(lock);
    tokio::time::resume();
    auth.sign_in("a@b.c", "secret").await.expect("signed in");
    assert!(other.load().expect("loaded").is_some());
}

#[tokio::test]
async fn sign_out_forgets_here_even_when_the_server_is_away() {
    let stub = Stub::start(|_| answer(204, "")).await;
    let clock = HandClock::at(0);
    let (auth, store) = signed_in(&stub, &clock);
    auth.sign_out().await.expect("signed out");
    assert_eq!(stub.asked()[0].line, "POST /auth/v1/logout?scope=local");
    assert_eq!(stub.asked()[0].bearer, "access.1");
    assert_eq!((auth.user(), store.load().expect("loaded")), (None, None));

    let (auth, store) = signed_in(&stub, &clock);
    stub.shut().await;
    assert!(matches!(
        auth.sign_out().await,
        Err(AuthError::Unreachable { .. })
    ));
    assert_eq!((auth.user(), store.load().expect("loaded")), (None, None));
}

#[tokio::test]
async fn a_refused_connection_is_named_with_its_address() {
    let stub = Stub::start(|_| answer(200, "")).await;
    let project = stub.project();
    stub.shut().await;
    let auth = Auth::new(
        project.clone(),
        HandClock::at(0),
        Arc::new(MemoryTokenStore::default()),
    )
    .expect("auth");
    let error = auth
        .sign_in("a@b.c", "x")
        .await
        .expect_err("nobody there")
        .to_string();
    assert!(
        error.contains(&project.url) && error.to_lowercase().contains("refused"),
        "{error}"
    );
}

#[tokio::test]
async fn a_captive_portal_is_no_session() {
    let stub = Stub::start(|_| answer(200, "<html>Welcome to the hotel</html>")).await;
    let auth = Auth::new(
        stub.project(),
        HandClock::at(0),
        Arc::new(MemoryTokenStore::default()),
    )
    .expect("auth");
    let error = auth.sign_in("a@b.c", "x").await.expect_err("no session");
    assert!(error.is_passing(), "it goes away by itself: {error}");
    assert!(
        error.to_string().contains("sign-in page of this network"),
        "{error}"
    );
}

#[tokio::test]
async fn a_page_in_place_of_a_refresh_costs_neither_the_session_nor_the_token() {
    let portal = Arc::new(AtomicBool::new(true));
    let switch = portal.clone();
    let stub = Stub::start(move |_| {
        if switch.load(Ordering::SeqCst) {
            answer(200, "<html>Welcome to the hotel</html>")
        } else {
            answer(200, session(2))
        }
    })
    .await;
    let clock = HandClock::at(0);
    let (auth, store) = signed_in(&stub, &clock);
    clock.advance_s(4_000);
    let error = auth.access_token().await.expect_err("over, and no new one");
    assert!(
        matches!(&error, AuthError::Unreachable { reason, .. } if reason.contains("web page")),
        "{error}"
    );
    let kept = store.load().expect("loaded").map(|tokens| tokens.refresh_token);
    assert_eq!(kept.as_deref(), Some("refresh1"));
    portal.store(false, Ordering::SeqCst);
    assert_eq!(token_in_the_end(&auth).await, "access.2");
}

#[tokio::test]
async fn a_refresh_whose_answer_was_lost_is_asked_for_again_with_the_same_token() {
    // The office has spent the first token and made the second pair; nobody heard it.
    let lost = AtomicBool::new(true);
    let stub = Stub::start(move |asked| {
        assert_eq!(asked.body["refresh_token"], "refresh1");
        if lost.swap(false, Ordering::SeqCst) {
            answer(502, "")
        } else {
            answer(200, session(3))
        }
    })
    .await;
    let clock = HandClock::at(0);
    let (auth, store) = signed_in(&stub, &clock);
    clock.advance_s(4_000);
    auth.access_token().await.expect_err("the answer was lost");
    assert_eq!(token_in_the_end(&auth).await, "access.3");
    let kept = store.load().expect("loaded").map(|tokens| tokens.refresh_token);
    assert_eq!(kept.as_deref(), Some("refresh3"));
}

#[tokio::test]
async fn a_server_in_trouble_is_not_asked_by_every_request_of_a_client_without_a_token() {
    let stub = Stub::start(|_| Answer {
        headers: vec![("retry-after", "120".to_owned())],
        ..answer(429, r#"{"code":"over_request_rate_limit","message":"slow down"}"#)
    })
    .await;
    let clock = HandClock::at(0);
    let (auth, _) = signed_in(&stub, &clock);
    clock.advance_s(4_000);
    for _ in 0..50 {
        let error = auth.access_token().await.expect_err("none");
        let AuthError::Unreachable {
            retry_after, reason, ..
        } = &error
        else {
            panic!("{error}")
        };
        assert!(
            reason.contains("slow down") && retry_after.is_some_and(|wait| wait.as_secs() > 100),
            "{error}"
        );
    }
    assert_eq!(stub.count(REFRESH_GRANT), 1);
}

/// Asks until there is one: a server that was in trouble is left alone for a second.
async fn token_in_the_end(auth: &Auth) -> String {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match auth.access_token().await {
            Ok(token) => return token,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

mod file {
    use super::*;
    use crate::stub::tokens_of;

    fn project(url: &str) -> Project {
        Project::new(url, "sb_publishable_test").expect("a project")
    }

    fn a() -> Project {
        project("https://a.supabase.co")
    }

    fn of_a(number: u32, now: Timestamp) -> Tokens {
        tokens_of(&a(), number, now)
    }

    fn store_at(path: &std::path::Path) -> FileTokenStore {
        FileTokenStore::new(path, &a())
    }

    /// A token of GoTrue at `issuer`.
    fn jwt(issuer: &str) -> String {
        use base64::Engine;
        let claims = serde_json::json!({"iss": issuer, "role": "authenticated"}).to_string();
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims);
        format!("e30.{claims}.c2ln")
    }

    #[test]
    fn what_one_project_gave_is_nothing_to_another_and_stays_in_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("session.json");
        let mine = of_a(1, Timestamp(0));
        store_at(&path).save(&mine).expect("saved");
        for elsewhere in [
            "https://b.supabase.co",
            "https://a.supabase.co:8443",
            "http://a.supabase.co",
        ] {
            let other = FileTokenStore::new(&path, &project(elsewhere));
            assert_eq!(other.load().expect("looked"), None, "{elsewhere}");
            other.clear().expect("signed out there");
        }
        let same = FileTokenStore::new(&path, &project("https://A.supabase.co/"));
        assert!(same.load().expect("loaded").is_some(), "however it is written");
        assert_eq!(store_at(&path).load().expect("loaded"), Some(mine));
    }

    #[test]
    fn a_file_that_names_no_project_counts_where_its_token_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("session.json");
        for (access_token, counts) in [
            (jwt("https://a.supabase.co/auth/v1"), true),
            (jwt("https://a.supabase.co"), true),
            (jwt("https://b.supabase.co/auth/v1"), false),
            (jwt("https://a.supabase.co.example/auth/v1"), false),
            (jwt(""), false),
            ("access.1".to_owned(), false),
        ] {
            let old = Tokens {
                access_token,
                ..tokens(1, Timestamp(0))
            };
            let mut text = serde_json::to_value(&old).expect("json");
            text.as_object_mut().expect("an object").remove("project");
            std::fs::write(&path, text.to_string()).expect("written");
            let loaded = store_at(&path).load().expect("looked");
            let expected = counts.then(|| Tokens {
                project: a().url,
                ..old.clone()
            });
            assert_eq!(loaded, expected, "{}", old.access_token);
            assert!(path.exists());
        }
    }

    #[tokio::test]
    async fn a_project_that_the_settings_name_now_is_sent_nothing_of_the_one_before() {
        let stub = Stub::start(|_| answer(200, session(2))).await;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("session.json");
        let clock = HandClock::at(0);
        store_at(&path).save(&of_a(1, clock.now())).expect("saved");
        let store = FileTokenStore::new(&path, &stub.project());
        let auth = Auth::new(stub.project(), clock.clone(), Arc::new(store)).expect("auth");
        let error = auth.access_token().await.expect_err("not signed in there");
        assert!(matches!(error, AuthError::SignedOut { .. }), "{error}");
        assert_eq!((auth.user(), stub.asked().len()), (None, 0));
        // As the account of "This machine" does when its hub has come up on another port.
        auth.sign_in("a@b.c", "secret").await.expect("signed in anew");
        let kept = FileTokenStore::new(&path, &stub.project())
            .load()
            .expect("loaded");
        assert_eq!(kept.expect("a session").project, stub.project().url);
    }

    #[test]
    fn a_session_survives_in_a_file_that_only_its_owner_reads() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/er/session.json");
        let store = store_at(&path);
        assert_eq!(store.load().expect("no file yet"), None);
        let (first, second) = (of_a(1, Timestamp(0)), of_a(2, Timestamp(5)));
        store.save(&first).expect("saved");
        store.save(&second).expect("saved again");
        assert_eq!(store_at(&path).load().expect("loaded"), Some(second));
        let left: Vec<_> = std::fs::read_dir(path.parent().expect("a folder"))
            .expect("a folder")
            .collect();
        assert_eq!(left.len(), 1, "no half-written file stays");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        store.clear().expect("cleared");
        store.clear().expect("cleared twice");
        assert_eq!(store.load().expect("no file"), None);
    }

    #[test]
    fn a_damaged_file_is_named_and_its_content_is_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("session.json");
        std::fs::write(&path, "{\"access_token\":\"topsecret\"").expect("written");
        let error = store_at(&path).load().expect_err("damaged").to_string();
        assert!(
            error.contains("session.json") && !error.contains("topsecret"),
            "{error}"
        );
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("written");
        let error = store_at(&file.join("session.json"))
            .save(&tokens(1, Timestamp(0)))
            .expect_err("not a folder");
        assert!(error.to_string().contains("session.json"), "{error}");
    }

    #[test]
    fn only_one_holds_the_right_to_refresh() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("session.json");
        let (one, other) = (store_at(&path), store_at(&path));
        let held = one.try_lock().expect("a lock");
        assert!(held.is_some());
        assert!(other.try_lock().expect("a look").is_none());
        drop(held);
        assert!(other.try_lock().expect("a lock").is_some());
    }
}

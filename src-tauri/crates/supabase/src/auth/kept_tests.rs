//! Where sign-ins are kept, with a keychain of memory that can be told to refuse or to lock itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use domain::{Clock, Timestamp};

use super::{Kept, KeptTokens, Keychain, TokensAt};
use crate::auth::{Auth, AuthError, StoreError, TokenStore};
use crate::stub::{HandClock, Stub, answer, session, tokens_of};
use crate::{Project, Tokens};

#[derive(Default)]
struct FakeKeychain {
    entries: Mutex<BTreeMap<String, Vec<u8>>>,
    locked: AtomicBool,
    /// What is written comes in, but so late that nobody has waited for it.
    slow: AtomicBool,
    asked: AtomicUsize,
}

impl FakeKeychain {
    fn lock(&self, locked: bool) {
        self.locked.store(locked, Ordering::SeqCst);
    }

    fn answers(&self) -> Result<(), String> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.locked.load(Ordering::SeqCst) {
            true => Err("it is locked".to_owned()),
            false => Ok(()),
        }
    }

    fn names(&self) -> Vec<String> {
        self.entries.lock().expect("entries").keys().cloned().collect()
    }

    fn put(&self, name: &str, secret: &[u8]) {
        let mut entries = self.entries.lock().expect("entries");
        entries.insert(name.to_owned(), secret.to_vec());
    }
}

impl Keychain for FakeKeychain {
    fn is_open(&self) -> Result<(), String> {
        self.answers()
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        self.answers()?;
        Ok(self.entries.lock().expect("entries").get(name).cloned())
    }

    fn write(&self, name: &str, secret: &[u8]) -> Result<(), String> {
        self.answers()?;
        self.put(name, secret);
        match self.slow.load(Ordering::SeqCst) {
            true => Err("it did not answer within 10 s".to_owned()),
            false => Ok(()),
        }
    }

    fn remove(&self, name: &str) -> Result<(), String> {
        self.answers()?;
        self.entries.lock().expect("entries").remove(name);
        Ok(())
    }
}

struct Place {
    dir: tempfile::TempDir,
    keychain: Arc<FakeKeychain>,
    project: Project,
}

impl Place {
    fn new() -> Place {
        Place::of(Project::new("https://a.supabase.co", "sb_publishable_test").expect("a project"))
    }

    fn of(project: Project) -> Place {
        Place {
            dir: tempfile::tempdir().expect("a folder"),
            keychain: Arc::default(),
            project,
        }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("tokens.json")
    }

    fn open_as(&self, wish: Option<TokensAt>, project: &Project) -> KeptTokens {
        let keychain = self.keychain.clone();
        KeptTokens::new(&self.file(), project, wish, move || keychain.clone())
    }

    /// As a program opens it that nobody has told anything.
    fn open(&self) -> KeptTokens {
        self.open_as(None, &self.project)
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.file()).expect("the file")
    }

    fn tokens(&self, number: u32) -> Tokens {
        tokens_of(&self.project, number, Timestamp(0))
    }
}

fn at(place: TokensAt) -> Option<Kept> {
    let why_not = None;
    Some(Kept { at: place, why_not })
}

#[test]
fn a_sign_in_goes_into_a_keychain_that_is_open_and_every_program_of_the_folder_finds_it_there() {
    let place = Place::new();
    let (first, renewed) = (place.tokens(1), place.tokens(2));
    place.open().begin(&first).expect("kept");
    let text = place.text();
    assert!(!text.contains("refresh1") && !text.contains("access.1"), "{text}");
    for wish in [None, Some(TokensAt::File), Some(TokensAt::Keychain)] {
        let program = place.open_as(wish, &place.project);
        assert_eq!(program.load().expect("read"), Some(first.clone()), "{wish:?}");
        assert_eq!(program.kept().expect("read"), at(TokensAt::Keychain), "{wish:?}");
    }
    // Whatever that program would choose for a sign-in of its own.
    place
        .open_as(Some(TokensAt::File), &place.project)
        .save(&renewed)
        .expect("renewed");
    assert_eq!(place.open().load().expect("read"), Some(renewed));
    assert!(!place.text().contains("refresh2"));
}

#[test]
fn a_sign_in_in_the_file_stays_there_and_looking_asks_no_keychain() {
    let place = Place::new();
    let in_file = place.open_as(Some(TokensAt::File), &place.project);
    in_file.begin(&place.tokens(1)).expect("kept");
    let wants = place.open_as(Some(TokensAt::Keychain), &place.project);
    assert_eq!(wants.load().expect("read"), Some(place.tokens(1)));
    wants.save(&place.tokens(2)).expect("renewed");
    assert_eq!(in_file.load().expect("read"), Some(place.tokens(2)));
    assert_eq!(wants.kept().expect("read"), at(TokensAt::File));
    assert_eq!(place.keychain.asked.load(Ordering::SeqCst), 0);
}

#[test]
fn the_next_sign_in_chooses_anew_and_leaves_nothing_behind_in_the_other_place() {
    let place = Place::new();
    let in_file = place.open_as(Some(TokensAt::File), &place.project);
    in_file.begin(&place.tokens(1)).expect("kept");
    place.open().begin(&place.tokens(2)).expect("kept");
    assert_eq!(in_file.load().expect("read"), Some(place.tokens(2)));
    assert!(!place.text().contains("refresh"), "{}", place.text());
    let first = place.keychain.names();
    place.open().begin(&place.tokens(3)).expect("kept");
    let second = place.keychain.names();
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first, second, "an entry of its own for each");
    in_file.begin(&place.tokens(4)).expect("kept");
    assert_eq!(place.keychain.names(), Vec::<String>::new());
    assert_eq!(place.open().load().expect("read"), Some(place.tokens(4)));
}

#[test]
fn a_locked_keychain_leaves_a_new_sign_in_to_the_file_and_that_is_told_unless_somebody_insists() {
    let place = Place::new();
    place.keychain.lock(true);
    let told = Kept {
        at: TokensAt::File,
        why_not: Some("it is locked".to_owned()),
    };
    let store = place.open();
    assert_eq!(store.would_keep().expect("asked"), told);
    store.begin(&place.tokens(1)).expect("in the file");
    assert_eq!(store.kept().expect("read"), Some(told));
    let insists = place.open_as(Some(TokensAt::Keychain), &place.project);
    let error = insists.begin(&place.tokens(2)).expect_err("it is locked");
    assert!(error.to_string().contains("supabase.tokens"), "{error}");
    assert_eq!(
        place.open().load().expect("read"),
        Some(place.tokens(1)),
        "the one of before goes on"
    );
}

#[test]
fn a_sign_out_that_the_keychain_cannot_be_told_counts_all_the_same_and_is_made_up_for() {
    let place = Place::new();
    place.open().begin(&place.tokens(1)).expect("kept");
    place.keychain.lock(true);
    let error = place.open().clear().expect_err("it is locked");
    assert!(matches!(error, StoreError::Keychain { .. }), "{error}");
    place.keychain.lock(false);
    assert_eq!(place.open().load().expect("read"), None);
    assert_eq!(place.open().kept().expect("read"), None);
    assert_eq!(place.keychain.names().len(), 1);
    place.open().begin(&place.tokens(2)).expect("kept");
    assert_eq!(place.keychain.names().len(), 1, "that of before is gone");
    place.open().clear().expect("signed out");
    assert!(!place.file().exists() && place.keychain.names().is_empty());
}

#[cfg(unix)]
#[test]
fn a_sign_in_whose_place_cannot_be_read_comes_into_no_file() {
    let place = Place::new();
    // Can be replaced, and not be read.
    std::os::unix::fs::symlink(place.file(), place.file()).expect("a link to itself");
    for wish in [None, Some(TokensAt::Keychain)] {
        let store = place.open_as(wish, &place.project);
        let error = store
            .save(&place.tokens(2))
            .expect_err("it may lie in the keychain");
        assert!(matches!(error, StoreError::File { .. }), "{error}");
    }
    assert!(place.file().is_symlink(), "nothing was written");
}

#[test]
fn what_comes_into_the_keychain_after_a_sign_out_signs_nobody_in() {
    let place = Place::new();
    place.open().begin(&place.tokens(1)).expect("kept");
    let name = place.keychain.names().remove(0);
    place.open().clear().expect("signed out");
    let late = serde_json::to_vec(&place.tokens(2)).expect("JSON");
    place.keychain.put(&name, &late);
    assert_eq!(place.open().load().expect("read"), None);
    place.open().begin(&place.tokens(3)).expect("kept");
    place.keychain.put(&name, &late);
    assert_eq!(place.open().load().expect("read"), Some(place.tokens(3)));
}

#[test]
fn another_project_and_a_copied_folder_find_nothing() {
    let place = Place::new();
    place.open().begin(&place.tokens(1)).expect("kept");
    let b = Project::new("https://b.supabase.co", "sb_publishable_test").expect("a project");
    let elsewhere = place.open_as(None, &b);
    assert_eq!(elsewhere.load().expect("read"), None);
    elsewhere.clear().expect("nothing to clear");
    let copy = Place {
        dir: tempfile::tempdir().expect("a folder"),
        keychain: place.keychain.clone(),
        project: place.project.clone(),
    };
    std::fs::copy(place.file(), copy.file()).expect("copied");
    assert_eq!(copy.open().load().expect("read"), None);
    copy.open().clear().expect("nothing to clear");
    assert_eq!(place.open().load().expect("read"), Some(place.tokens(1)));
}

#[test]
fn what_came_into_a_keychain_too_late_is_taken_out_again() {
    let place = Place::new();
    place.keychain.slow.store(true, Ordering::SeqCst);
    place.open().begin(&place.tokens(1)).expect("kept in the file");
    assert_eq!(place.open().load().expect("read"), Some(place.tokens(1)));
    assert_eq!(
        place.keychain.names(),
        Vec::<String>::new(),
        "no live token is left"
    );
}

#[cfg(unix)]
#[test]
fn a_sign_in_is_found_by_whichever_way_its_folder_is_named() {
    let place = Place::new();
    let (real, link) = (place.dir.path().join("real"), place.dir.path().join("link"));
    std::os::unix::fs::symlink(&real, &link).expect("a link");
    let open = |folder: &std::path::Path| {
        let keychain = place.keychain.clone();
        KeptTokens::new(&folder.join("sign-ins/a.json"), &place.project, None, move || {
            keychain.clone()
        })
    };
    // The folder is made with the first sign-in.
    open(&real).begin(&place.tokens(1)).expect("kept");
    assert_eq!(place.keychain.names().len(), 1);
    assert_eq!(open(&link).load().expect("read"), Some(place.tokens(1)));
    assert_eq!(open(&real).load().expect("read"), Some(place.tokens(1)));
}

#[tokio::test(start_paused = true)]
async fn while_the_keychain_is_locked_nothing_is_renewed_and_what_is_alive_is_used() {
    let stub = Stub::start(|_| answer(200, session(2))).await;
    let place = Place::of(stub.project());
    let clock = HandClock::at(0);
    let first = tokens_of(&place.project, 1, clock.now());
    place.open().begin(&first).expect("kept");
    let auth = Auth::new(place.project.clone(), clock.clone(), Arc::new(place.open())).expect("auth");
    place.keychain.lock(true);
    clock.advance_s(3_000);
    assert_eq!(auth.access_token().await.expect("still alive"), "access.1");
    let told = auth.store_trouble().expect("told");
    assert!(told.why.contains("it is locked") && told.is_keychain, "{told:?}");
    assert_eq!(told.until, first.expires_at);
    clock.advance_s(700);
    tokio::time::advance(std::time::Duration::from_secs(20)).await;
    let error = auth.access_token().await.expect_err("over");
    assert!(matches!(error, AuthError::Store { .. }), "{error}");
    assert_eq!(
        stub.count("/token"),
        0,
        "a refresh token that works once is not spent"
    );
    place.keychain.lock(false);
    assert_eq!(auth.access_token().await.expect("renewed"), "access.2");
    assert_eq!(auth.store_trouble(), None);
}

#[tokio::test]
async fn a_locked_keychain_is_not_taken_for_a_sign_out_and_is_asked_only_when_a_token_is_wanted() {
    let stub = Stub::start(|_| answer(200, session(2))).await;
    let place = Place::of(stub.project());
    let clock = HandClock::at(0);
    place
        .open()
        .begin(&tokens_of(&place.project, 1, clock.now()))
        .expect("kept");
    place.keychain.lock(true);
    let before = place.keychain.asked.load(Ordering::SeqCst);
    let auth = Auth::unopened(place.project.clone(), clock.clone(), Arc::new(place.open())).expect("auth");
    assert_eq!(place.keychain.asked.load(Ordering::SeqCst), before);
    let error = auth.access_token().await.expect_err("locked");
    assert!(error.is_passing(), "{error}");
    place.keychain.lock(false);
    assert_eq!(auth.access_token().await.expect("a token"), "access.1");
}

/// A keychain that locks itself between the look and the writing.
#[tokio::test(start_paused = true)]
async fn a_pair_that_could_not_be_kept_does_not_come_back_after_a_sign_out() {
    let place_for_reply: Arc<Mutex<Option<Arc<FakeKeychain>>>> = Arc::default();
    let locks = place_for_reply.clone();
    let stub = Stub::start(move |_| {
        if let Some(keychain) = locks.lock().expect("it").as_ref() {
            keychain.lock(true);
        }
        answer(200, session(2))
    })
    .await;
    let place = Place::of(stub.project());
    *place_for_reply.lock().expect("it") = Some(place.keychain.clone());
    let clock = HandClock::at(0);
    let old = tokens_of(&place.project, 1, clock.now());
    place.open().begin(&old).expect("kept");
    let auth = Auth::new(place.project.clone(), clock.clone(), Arc::new(place.open())).expect("auth");
    let refused = auth.refresh_now().await.expect_err("it cannot be kept");
    assert!(matches!(refused, AuthError::Store { .. }), "{refused}");
    assert!(auth.access_token().await.is_err(), "an unsaved pair is not used");
    place.keychain.lock(false);
    assert_eq!(
        place.open().load().expect("read"),
        Some(old),
        "the old pair is still there"
    );
    place.open().clear().expect("another program signs out");
    let over = auth.access_token().await.expect_err("signed out");
    assert!(matches!(over, AuthError::SignedOut { .. }), "{over}");
    assert_eq!(place.open().load().expect("read"), None);
    assert!(place.keychain.names().is_empty());
}

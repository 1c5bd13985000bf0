//! What the keychain keeps, refuses and takes over, with a keychain of memory that can be told to refuse.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use domain::{Clock, Timestamp};

use super::{Kept, Keychain, KeychainTokenStore, TokensAt};
use crate::auth::{Auth, AuthError, FileTokenStore, TokenStore};
use crate::stub::{HandClock, Stub, answer, session, tokens, tokens_of};
use crate::{Project, StoreError, Tokens};

#[derive(Default)]
struct FakeKeychain {
    entries: Mutex<BTreeMap<String, Vec<u8>>>,
    locked: AtomicBool,
}

impl FakeKeychain {
    fn lock(&self, locked: bool) {
        self.locked.store(locked, Ordering::SeqCst);
    }

    fn answers(&self) -> Result<(), String> {
        match self.locked.load(Ordering::SeqCst) {
            true => Err("it is locked".to_owned()),
            false => Ok(()),
        }
    }
}

impl Keychain for FakeKeychain {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        self.answers()?;
        Ok(self.entries.lock().expect("entries").get(name).cloned())
    }

    fn write(&self, name: &str, secret: &[u8]) -> Result<(), String> {
        self.answers()?;
        let mut entries = self.entries.lock().expect("entries");
        entries.insert(name.to_owned(), secret.to_vec());
        Ok(())
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
    email: String,
}

impl Place {
    fn new() -> Place {
        Place {
            dir: tempfile::tempdir().expect("a folder"),
            keychain: Arc::default(),
            email: tokens(1, Timestamp(0)).email,
        }
    }

    fn file(&self) -> std::path::PathBuf {
        self.dir.path().join("tokens.json")
    }

    fn store_of(&self, project: &Project) -> KeychainTokenStore {
        KeychainTokenStore::new(self.keychain.clone(), &self.file(), project, &self.email)
    }

    fn store(&self) -> KeychainTokenStore {
        self.store_of(&a())
    }

    fn in_file(&self) -> FileTokenStore {
        FileTokenStore::new(self.file(), &a())
    }
}

fn a() -> Project {
    project("https://a.supabase.co")
}

fn of_a(number: u32, now: i64) -> Tokens {
    tokens_of(&a(), number, Timestamp(now))
}

fn project(url: &str) -> Project {
    Project::new(url, "sb_publishable_test").expect("a project")
}

#[test]
fn a_session_in_the_keychain_leaves_no_file_and_belongs_to_its_project() {
    let place = Place::new();
    let mine = of_a(1, 0);
    place.store().save(&mine).expect("kept");
    assert_eq!(place.store().load().expect("read"), Some(mine));
    assert!(!place.file().exists());
    let elsewhere = place.store_of(&project("https://b.supabase.co"));
    assert_eq!(elsewhere.load().expect("read"), None, "another project's");
    place.store().clear().expect("cleared");
    assert_eq!(place.store().load().expect("read"), None);
}

#[test]
fn tokens_in_a_file_stay_there_until_somebody_signs_in_and_a_locked_keychain_costs_none_of_them() {
    let place = Place::new();
    let (old, new, next) = (of_a(1, 0), of_a(2, 5), of_a(3, 9));
    let file = place.in_file();
    file.save(&old).expect("a file");
    place.keychain.lock(true);
    assert_eq!(place.store().load().expect("from the file"), Some(old.clone()));
    place.keychain.lock(false);
    assert_eq!(place.store().load().expect("from the file"), Some(old.clone()));
    assert_eq!(
        file.load().expect("still there"),
        Some(old.clone()),
        "a core that knows only the file is signed in"
    );
    place.store().save(&new).expect("renewed");
    assert_eq!(file.load().expect("renewed there"), Some(new.clone()));
    place.keychain.lock(true);
    assert!(place.store().begin(&next).is_err());
    assert_eq!(file.load().expect("still there"), Some(new));
    place.keychain.lock(false);
    place.store().begin(&next).expect("signed in");
    assert!(!place.file().exists());
    assert_eq!(place.store().load().expect("from the keychain"), Some(next));
}

#[test]
fn a_spent_pair_that_a_crash_has_left_in_the_file_is_not_taken_up_again() {
    let place = Place::new();
    let (spent, newer, newest) = (of_a(1, 0), of_a(2, 5), of_a(3, 9));
    place.store().save(&newer).expect("kept");
    // As if it had been killed before the file went.
    place.in_file().save(&spent).expect("a file");
    assert_eq!(place.store().load().expect("read"), Some(newer));
    place.store().save(&newest).expect("renewed");
    assert!(!place.file().exists(), "it goes with the next one");
    assert_eq!(place.store().load().expect("read"), Some(newest));
}

#[tokio::test]
async fn looking_from_another_program_takes_nothing_from_one_that_uses_the_file() {
    let stub = Stub::start(|_| answer(200, session(2))).await;
    let place = Place::new();
    let clock = HandClock::at(0);
    let file = FileTokenStore::new(place.file(), &stub.project());
    file.save(&tokens_of(&stub.project(), 1, clock.now()))
        .expect("a file");
    let core = Auth::new(stub.project(), clock.clone(), Arc::new(file)).expect("auth");
    let look = place.store_of(&stub.project());
    assert!(look.load().expect("a look").is_some());
    let other = Auth::new(stub.project(), clock.clone(), Arc::new(look)).expect("auth");
    other.refresh_now().await.expect("renewed by the other program");
    clock.advance_s(3_000);
    let token = core.access_token().await.expect("still signed in");
    assert_eq!(token, "access.2");
}

#[test]
fn somebody_elses_file_is_not_taken_over() {
    let mut place = Place::new();
    let theirs = of_a(1, 0);
    place.in_file().save(&theirs).expect("a file");
    let elsewhere = place.store_of(&project("https://b.supabase.co"));
    assert_eq!(elsewhere.load().expect("read"), None, "another project's");
    elsewhere.begin(&theirs).expect("a sign-in there");
    place.email = "other@b.c".to_owned();
    assert_eq!(place.store().load().expect("read"), None);
    place.store().begin(&of_a(2, 0)).expect("a sign-in of the other");
    place.store().clear().expect("and its end");
    assert_eq!(place.in_file().load().expect("read"), Some(theirs));
}

#[test]
fn the_keychain_is_used_only_when_asked_for_and_one_that_does_not_answer_is_told() {
    let place = Place::new();
    let choose = |wanted| {
        let keychain = place.keychain.clone();
        let project = project("https://a.supabase.co");
        Kept::choose(wanted, || keychain, &place.file(), &project, "a@b.c")
    };
    let at = |wanted| (choose(wanted).at, choose(wanted).why_not);
    assert_eq!(at(None), (TokensAt::File, None), "it is used by who asks for it");
    assert_eq!(at(Some(TokensAt::File)), (TokensAt::File, None));
    assert_eq!(at(Some(TokensAt::Keychain)), (TokensAt::Keychain, None));
    place.keychain.lock(true);
    let locked = Some("it is locked".to_owned());
    assert_eq!(at(Some(TokensAt::Keychain)), (TokensAt::File, locked));
    let error = place.store().load().expect_err("locked");
    assert!(matches!(error, StoreError::Keychain { .. }));
    assert!(error.to_string().contains("supabase.tokens"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_new_pair_is_used_only_when_the_keychain_has_it_and_the_old_one_stays_there_until_then() {
    let stub = Stub::start(|_| answer(200, session(2))).await;
    let place = Place::new();
    let clock = HandClock::at(1_000_000);
    let old = tokens_of(&stub.project(), 1, clock.now());
    place.store_of(&stub.project()).save(&old).expect("kept");
    let store = Arc::new(place.store_of(&stub.project()));
    let auth = Auth::new(stub.project(), clock, store.clone()).expect("auth");
    place.keychain.lock(true);
    let refused = auth.refresh_now().await.expect_err("it cannot be kept");
    assert!(matches!(refused, AuthError::Store { .. }), "{refused}");
    assert!(auth.access_token().await.is_err(), "an unsaved pair is not used");
    place.keychain.lock(false);
    assert_eq!(
        store.load().expect("read"),
        Some(old),
        "the old pair is still there"
    );
    let token = auth.access_token().await.expect("kept now");
    let kept = store.load().expect("read").expect("the new pair");
    assert_eq!(kept.access_token, token);
    assert_eq!(stub.count("/token"), 1, "and the server was asked once");
}

//! What the keychain keeps, refuses and takes over, with a keychain of memory that can be told to refuse.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use domain::{Clock, Timestamp};

use super::{Kept, Keychain, KeychainTokenStore, TokensAt};
use crate::auth::{Auth, AuthError, FileTokenStore, TokenStore};
use crate::stub::{HandClock, Stub, answer, session, tokens};
use crate::{Project, StoreError};

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
        self.store_of(&project("https://a.supabase.co"))
    }
}

fn project(url: &str) -> Project {
    Project::new(url, "sb_publishable_test").expect("a project")
}

#[test]
fn a_session_in_the_keychain_leaves_no_file_and_belongs_to_its_project() {
    let place = Place::new();
    let mine = tokens(1, Timestamp(0));
    place.store().save(&mine).expect("kept");
    assert_eq!(place.store().load().expect("read"), Some(mine));
    assert!(!place.file().exists());
    let elsewhere = place.store_of(&project("https://b.supabase.co"));
    assert_eq!(elsewhere.load().expect("read"), None, "another project's");
    place.store().clear().expect("cleared");
    assert_eq!(place.store().load().expect("read"), None);
}

#[test]
fn tokens_in_a_file_are_taken_over_once_and_a_locked_keychain_costs_none_of_them() {
    let place = Place::new();
    let (old, new) = (tokens(1, Timestamp(0)), tokens(2, Timestamp(0)));
    let file = FileTokenStore::new(place.file());
    file.save(&old).expect("a file");
    place.keychain.lock(true);
    assert_eq!(place.store().load().expect("from the file"), Some(old.clone()));
    assert!(place.store().save(&new).is_err());
    assert_eq!(file.load().expect("still there"), Some(old.clone()));
    place.keychain.lock(false);
    let refreshing = place.store().try_lock().expect("a lock").expect("free");
    assert_eq!(place.store().load().expect("from the file"), Some(old.clone()));
    assert!(place.file().exists(), "whoever refreshes takes it over");
    drop(refreshing);
    assert_eq!(place.store().load().expect("taken over"), Some(old.clone()));
    assert!(!place.file().exists());
    assert_eq!(place.store().load().expect("from the keychain"), Some(old));
}

#[test]
fn somebody_elses_file_is_not_taken_over() {
    let mut place = Place::new();
    FileTokenStore::new(place.file())
        .save(&tokens(1, Timestamp(0)))
        .expect("a file");
    place.email = "other@b.c".to_owned();
    assert_eq!(place.store().load().expect("read"), None);
    assert!(place.file().exists());
}

#[test]
fn without_a_keychain_the_file_is_chosen_and_the_reason_is_told() {
    let place = Place::new();
    let choose = |wanted| {
        let keychain = place.keychain.clone();
        let project = project("https://a.supabase.co");
        Kept::choose(wanted, || keychain, &place.file(), &project, "a@b.c")
    };
    assert_eq!(choose(None).at, TokensAt::Keychain);
    assert_eq!(choose(Some(TokensAt::File)).at, TokensAt::File);
    place.keychain.lock(true);
    let kept = choose(None);
    assert_eq!(
        (kept.at, kept.why_not.as_deref()),
        (TokensAt::File, Some("it is locked"))
    );
    let kept = choose(Some(TokensAt::Keychain));
    assert_eq!(kept.at, TokensAt::Keychain);
    let error = kept.store.load().expect_err("locked");
    assert!(matches!(error, StoreError::Keychain { .. }));
    assert!(error.to_string().contains("supabase.tokens"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_new_pair_is_used_only_when_the_keychain_has_it_and_the_old_one_stays_there_until_then() {
    let stub = Stub::start(|_| answer(200, session(2))).await;
    let place = Place::new();
    let clock = HandClock::at(1_000_000);
    let old = tokens(1, clock.now());
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

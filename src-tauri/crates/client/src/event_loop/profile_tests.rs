//! Sign-ins and switches, as the loop sees them: without office and network.

use domain::UserId;
use supabase::{StoreError, StoreLock, TokenStore, Tokens};
use tokio::sync::oneshot;

use super::*;
use crate::event_loop::profile::ProfileWish;
use crate::request::{Answer, ErrorCode, RequestError};
use crate::settings::Profile;
use crate::settings_file::{Changed, Chosen};

type Answered = oneshot::Receiver<Result<Answer, RequestError>>;

/// A core of a team's project, and what windows see of it.
fn core_of_a_team(dir: &Path) -> EventLoop {
    let mut core = core(dir, &journal_in(dir));
    let (url, key) = ("http://127.0.0.1:9", "sb_publishable_test");
    let settings = &mut core.ground.settings;
    settings.profile = Profile::Supabase;
    settings.supabase.url = url.to_owned();
    settings.supabase.publishable_key = key.to_owned();
    settings.supabase.email = "a@b.c".to_owned();
    settings.supabase.tokens = Some(supabase::TokensAt::File);
    core
}

fn ask(core: &mut EventLoop, wish: ProfileWish) -> Answered {
    let (reply, answer) = oneshot::channel();
    core.answer_of_profile(wish, reply);
    answer
}

/// Hears one thing that a task brings.
async fn hear(core: &mut EventLoop) {
    let event = tokio::time::timeout(Duration::from_secs(30), core.events.recv()).await;
    core.handle(event.expect("in time").expect("an event"));
}

/// Whether a window is told now that another office comes.
fn is_changing(core: &mut EventLoop) -> bool {
    core.changed = true;
    core.publish();
    core.view.borrow().profile.changing
}

fn session_of(project: &Project, email: &str, expires_at: Timestamp) -> Tokens {
    Tokens {
        access_token: "access".to_owned(),
        refresh_token: "refresh".to_owned(),
        refresh_at: Timestamp(0),
        expires_at,
        user: UserId(id(5)),
        email: email.to_owned(),
        project: project.url.clone(),
    }
}

fn sign_in_with(core: &mut EventLoop, store: impl TokenStore + 'static) {
    let ground = &mut core.ground;
    ground.auth = Auth::new(ground.project.clone(), ground.clock.clone(), Arc::new(store)).unwrap();
}

#[tokio::test]
async fn a_sign_out_takes_nothing_new_and_tells_no_window_that_another_office_comes() {
    let dir = tempfile::tempdir().unwrap();
    let mut core = core_of_a_team(dir.path());
    let answer = ask(&mut core, ProfileWish::SignOut);
    assert!(core.is_turning() && core.takes_nothing_new());
    assert!(!is_changing(&mut core));
    hear(&mut core).await;
    assert!(answer.await.unwrap().is_ok());
    assert!(!core.is_turning() && !is_changing(&mut core));
}

#[tokio::test]
async fn a_switch_that_fails_is_told_to_every_window_and_the_office_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut core = core_of_a_team(dir.path());
    // With a fault in it, the file can be changed by nobody.
    std::fs::create_dir_all(dir.path().join("config")).unwrap();
    std::fs::write(core.ground.paths.settings(), "[limits]\nsessions = 3\n").unwrap();
    let answer = ask(&mut core, ProfileWish::Use(ProfileKind::ThisMachine));
    assert!(is_changing(&mut core));
    let second = ask(&mut core, ProfileWish::SignOut);
    assert_eq!(second.await.unwrap().unwrap_err().code, ErrorCode::Conflict);
    core.changed = false;
    hear(&mut core).await;
    assert_eq!(answer.await.unwrap().unwrap_err().code, ErrorCode::Conflict);
    assert!(core.changed && !is_changing(&mut core) && !core.takes_nothing_new());
}

#[tokio::test]
async fn the_sign_in_of_before_is_left_alone_until_the_switch_has_come_about() {
    let dir = tempfile::tempdir().unwrap();
    let mut core = core_of_a_team(dir.path());
    let ground = &core.ground;
    let store = ground.settings.team_tokens(&ground.paths, &ground.project);
    let tokens = session_of(&ground.project, "a@b.c", Timestamp(0));
    store.begin(&tokens).unwrap();
    // As `semo login` writes it beside a core that runs.
    let next = Chosen::Project {
        url: "http://127.0.0.1:10".to_owned(),
        publishable_key: "sb_publishable_test".to_owned(),
        email: "b@b.c".to_owned(),
    };
    let file = ground.paths.settings();
    Changed::of(&file, &next).unwrap().write().unwrap();
    let mut chosen = ground.choose.subscribe();
    let answer = ask(&mut core, ProfileWish::Use(ProfileKind::Supabase));
    hear(&mut core).await;
    answer.await.unwrap().unwrap();
    let choice = chosen.borrow_and_update().clone().unwrap();
    assert_eq!(choice.chosen, next);
    assert!(choice.earlier.is_some(), "it ends when the next one is served");
    assert_eq!(store.load().unwrap(), Some(tokens), "and is there when it is not");
}

#[tokio::test]
async fn a_switch_to_the_office_of_this_machine_leaves_the_teams_sign_in_for_the_way_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut core = core_of_a_team(dir.path());
    let ground = &core.ground;
    let store = ground.settings.team_tokens(&ground.paths, &ground.project);
    store
        .begin(&session_of(&ground.project, "a@b.c", Timestamp(0)))
        .unwrap();
    let mut chosen = ground.choose.subscribe();
    let answer = ask(&mut core, ProfileWish::Use(ProfileKind::ThisMachine));
    hear(&mut core).await;
    answer.await.unwrap().unwrap();
    assert!(chosen.borrow_and_update().clone().unwrap().earlier.is_none());
}

#[tokio::test]
async fn nothing_is_taken_as_somebody_else_and_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    for (email, claims) in [("new@b.c", false), ("A@b.c", true)] {
        let mut core = core(dir.path(), &journal_in(dir.path()));
        let tokens = crate::outbox::tokens_of(email);
        sign_in_with(&mut core, MemoryTokenStore::with(tokens));
        core.program_looked_for = true;
        core.office = Some(office(900_001));
        core.claim("test");
        let (room, now) = (crate::rules::claims::Room { places: 1, line: 0 }, core.moment());
        let is_under_way = core.desk.wish_claim(true, room, now).is_none();
        assert_eq!(is_under_way, claims, "{email}");
        core.look_at_the_sign_in();
        assert_eq!(core.problems.contains_key("sign_in"), !claims, "{email}");
    }
}

/// A store that can be read, and refuses to be written.
struct Refuses {
    tokens: Tokens,
    keychain: bool,
}

impl TokenStore for Refuses {
    fn load(&self) -> Result<Option<Tokens>, StoreError> {
        Ok(Some(self.tokens.clone()))
    }
    fn save(&self, _: &Tokens) -> Result<(), StoreError> {
        self.try_lock().map(drop)
    }
    fn clear(&self) -> Result<(), StoreError> {
        Ok(())
    }
    fn try_lock(&self) -> Result<Option<StoreLock>, StoreError> {
        Err(match self.keychain {
            true => StoreError::Keychain {
                attempted: "keep",
                reason: "it is locked".to_owned(),
            },
            false => StoreError::File {
                attempted: "lock",
                path: "tokens.json".into(),
                source: std::io::ErrorKind::StorageFull.into(),
            },
        })
    }
}

#[tokio::test]
async fn a_full_disk_is_not_called_a_locked_keychain_while_the_sign_in_still_holds() {
    let dir = tempfile::tempdir().unwrap();
    for (keychain, code, other) in [
        (false, "sign_in_store", "keychain"),
        (true, "keychain", "sign_in_store"),
    ] {
        let mut core = core(dir.path(), &journal_in(dir.path()));
        let tokens = session_of(&core.ground.project, "a@b.c", NOW.plus_ms(30 * 60_000));
        sign_in_with(&mut core, Refuses { tokens, keychain });
        assert_eq!(core.ground.auth.access_token().await.unwrap(), "access");
        core.look_at_the_sign_in();
        assert!(core.problems.contains_key(code) && !core.problems.contains_key(other));
        assert!(core.problems[code].hint.contains("30 minutes"));
    }
}

#[tokio::test]
async fn a_full_disk_is_not_called_a_locked_keychain_when_nobody_can_join() {
    let dir = tempfile::tempdir().unwrap();
    for (keychain, code) in [(false, "sign_in_store"), (true, "keychain")] {
        let mut core = core(dir.path(), &journal_in(dir.path()));
        let tokens = session_of(&core.ground.project, "a@b.c", Timestamp(0));
        sign_in_with(&mut core, Refuses { tokens, keychain });
        core.join();
        hear(&mut core).await;
        let told: Vec<_> = core.problems.keys().copied().collect();
        assert_eq!(told, [code]);
        assert!(core.join_again_at.is_some(), "it passes by itself");
    }
}

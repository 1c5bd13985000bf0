//! Switching a core to another profile. Nothing answers where its projects are.

use std::collections::BTreeMap;

use client::EarlierSignIn;
use client::settings_file::Changed;
use domain::Timestamp;
use serde_json::json;
use supabase::{TokenStore, Tokens, TokensAt};

use super::*;

const A: &str = "http://127.0.0.1:9";
const B: &str = "http://127.0.0.1:10";

/// A workstation that belongs to team A.
fn place() -> (tempfile::TempDir, World) {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::choose(Some(dir.path().join("config")), Some(dir.path().join("data"))).unwrap();
    let mut settings = Settings::default();
    settings.supabase.tokens = Some(TokensAt::File);
    // No hub can be started here.
    settings.hub.postgres_bin = Some(dir.path().join("no-postgres"));
    settings
        .repositories
        .insert("sample".to_owned(), dir.path().join("no-repository"));
    let world = World {
        environment: BTreeMap::new(),
        settings: team(A, "a@b.c").applied_to(&settings),
        paths,
        clock: Arc::new(SystemClock),
    };
    Changed::of(&world.paths.settings(), &team(A, "a@b.c"))
        .unwrap()
        .write()
        .unwrap();
    (dir, world)
}

fn team(url: &str, email: &str) -> Chosen {
    Chosen::Project {
        url: url.to_owned(),
        publishable_key: "sb_publishable_1".to_owned(),
        email: email.to_owned(),
    }
}

fn project(url: &str) -> Project {
    Project::new(url, "sb_publishable_1").unwrap()
}

/// Somebody is signed in at A.
fn sign_in(world: &World) -> Tokens {
    let tokens = json!({
        "project": A, "access_token": "access", "refresh_token": "refresh",
        "refresh_at": Timestamp(0), "expires_at": Timestamp(0),
        "user": "0f8fad5b-d9cb-469f-a165-70867728950e", "email": "a@b.c",
    });
    let tokens: Tokens = serde_json::from_value(tokens).unwrap();
    let store = world.settings.team_tokens(&world.paths, &project(A));
    store.begin(&tokens).unwrap();
    tokens
}

fn signed_in(world: &World) -> Option<Tokens> {
    let store = world.settings.team_tokens(&world.paths, &project(A));
    store.load().unwrap()
}

fn choice(world: &World, chosen: Chosen) -> Choice {
    let earlier = EarlierSignIn::of(&world.settings, &world.paths, &project(B), "b@b.c");
    let before = Changed::of(&world.paths.settings(), &chosen)
        .unwrap()
        .write()
        .unwrap();
    Choice {
        chosen,
        before,
        earlier,
    }
}

fn settings_text(world: &World) -> String {
    std::fs::read_to_string(world.paths.settings()).unwrap()
}

#[tokio::test]
async fn a_switch_that_cannot_be_made_leaves_the_sign_in_of_before_and_one_that_is_made_ends_it() {
    let (_dir, world) = place();
    let tokens = sign_in(&world);
    let text = settings_text(&world);
    let core = Core::start(&world).await.unwrap();
    let failing = choice(&world, Chosen::ThisMachine);
    assert!(failing.earlier.is_some());
    let Turned { core, world } = core.turn(&world, &failing).await.unwrap();
    assert_eq!(core.project_url(), A, "the profile of before comes back");
    assert_eq!(signed_in(&world), Some(tokens));
    assert_eq!(settings_text(&world), text);

    let next = choice(&world, team(B, "b@b.c"));
    let turned = core.turn(&world, &next).await.unwrap();
    assert_eq!(turned.core.project_url(), B);
    turned.core.stop(StopHow::Leave).await;
    assert_eq!(signed_in(&world), None);
}

#[tokio::test]
async fn a_core_that_does_not_end_keeps_its_data_folder_from_every_other_one() {
    let (_dir, world) = place();
    let tokens = sign_in(&world);
    let text = settings_text(&world);
    let core = Core::start(&world).await.unwrap();
    core.ends.tasks.spawn(std::future::pending::<()>());
    let choice = choice(&world, team(B, "b@b.c"));
    tokio::time::pause();
    let failure = core.turn(&world, &choice).await.err().unwrap();
    assert!(
        failure.message.contains("what ran before it does not end"),
        "{}",
        failure.message
    );
    assert!(!running::is_free(&world.paths));
    assert_eq!(signed_in(&world), Some(tokens));
    assert_eq!(settings_text(&world), text, "the settings name what was served");
}

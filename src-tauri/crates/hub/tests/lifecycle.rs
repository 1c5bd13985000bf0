//! Starting, stopping, starting again; the migrations on an empty database and twice; a hub that was killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::process::{Command, Stdio};
use std::time::Instant;

use futures_util::{SinkExt as _, StreamExt as _};
use hub::{Hub, HubError};
use serde_json::{Value, json};
use support::{DEADLINE, config};
use tokio_postgres::{Client, NoTls};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

/// Names the folder for the process that [`a_killed_hub_leaves_nothing_that_stops_the_next`] starts and kills.
const KILLED_HUB: &str = "SEMO_TEST_KILLED_HUB";

async fn database(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio_util::task::TaskTracker::new().spawn(connection);
    client
}

const SCHEMA: &str = "
  select string_agg(line, e'\\n' order by line) from (
    select 'table ' || c.relname || ' ' || c.relrowsecurity || ' ' || coalesce(c.relacl::text, '') as line
      from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
    union all select 'function ' || p.oid::regprocedure || ' ' || coalesce(p.proacl::text, 'default')
      from pg_proc p where p.pronamespace in ('public'::regnamespace, 'private'::regnamespace)
    union all select 'policy ' || polname || ' ' || polrelid::regclass from pg_policy
    union all select 'trigger ' || tgname || ' ' || tgrelid::regclass from pg_trigger where not tgisinternal
    union all select 'index ' || indexname from pg_indexes where schemaname in ('public', 'private')
    union all select 'published ' || tablename from pg_publication_tables) s";

#[tokio::test(flavor = "multi_thread")]
async fn the_migrations_run_on_an_empty_database_and_change_nothing_the_second_time() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(config(folder.path().join("hub"))).await.unwrap();
    let client = database(hub.database_url()).await;
    let before: String = client.query_one(SCHEMA, &[]).await.unwrap().get(0);
    for wanted in [
        "table agent_commands true",
        "published agent_command_results",
        "policy office_commands_receive",
    ] {
        assert!(before.contains(wanted), "{wanted}\n{before}");
    }
    for line in before.lines() {
        let open = line.contains("anon=") || (line.starts_with("function") && line.ends_with("default"));
        assert!(!open, "the generous defaults are taken back: {line}");
        assert!(
            !line.starts_with("table") || line.contains(" true "),
            "row level security: {line}"
        );
        assert!(
            !line.starts_with("function") || !line.contains("{=X"),
            "public may not execute: {line}"
        );
    }
    let owner = database(&hub.database_url().replace("supabase_admin@", "postgres@")).await;
    let folder_of_migrations = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../migrations/supabase");
    let mut files: Vec<_> = std::fs::read_dir(folder_of_migrations)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 4);
    for file in files {
        owner
            .batch_execute(&std::fs::read_to_string(&file).unwrap())
            .await
            .unwrap();
    }
    let after: String = client.query_one(SCHEMA, &[]).await.unwrap().get(0);
    assert_eq!(before, after);
    hub.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_is_there_after_a_restart_and_two_hubs_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("hub");
    let hub = Hub::start(config(data.clone())).await.unwrap();
    let user = hub.ensure_user("a@example.com", "correct horse").await.unwrap();
    let key = hub.keys().publishable.clone();
    let second = Hub::start(config(data.clone())).await.unwrap_err();
    assert!(matches!(second, HubError::InUse { .. }), "{second}");
    let mut taken = config(folder.path().join("other"));
    taken.listen = hub.url().trim_start_matches("http://").parse().unwrap();
    let taken = Hub::start(taken).await.unwrap_err();
    assert!(matches!(taken, HubError::Listen { .. }), "{taken}");
    hub.stop().await.unwrap();

    let began = Instant::now();
    let hub = Hub::start(config(data)).await.unwrap();
    assert!(began.elapsed() < DEADLINE);
    assert_eq!(hub.keys().publishable, key);
    assert_eq!(
        hub.ensure_user("a@example.com", "correct horse").await.unwrap(),
        user
    );
    hub.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_closes_sockets_with_1012_and_never_closes_their_channels() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(config(folder.path().join("hub"))).await.unwrap();
    let url = hub.url().replace("http", "ws");
    let (mut wire, _) = connect_async(format!(
        "{url}/realtime/v1/websocket?apikey={}",
        hub.keys().publishable
    ))
    .await
    .unwrap();
    let join =
        json!({"topic": "realtime:room", "event": "phx_join", "payload": {}, "ref": "1", "join_ref": "1"});
    wire.send(Message::Text(join.to_string().into())).await.unwrap();
    let reply = wire.next().await.unwrap().unwrap().into_text().unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&reply).unwrap()["event"],
        json!("phx_reply")
    );
    let (stopped, last) = tokio::join!(hub.stop(), wire.next());
    stopped.unwrap();
    let Message::Close(Some(frame)) = last.unwrap().unwrap() else {
        panic!("a close frame, nothing before")
    };
    assert_eq!(u16::from(frame.code), 1012);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_in_a_closed_home_is_fine_also_where_postgres_may_not_run_as_this_user() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let data = home.path().join("hub");
    for _ in 0..2 {
        let hub = Hub::start(config(data.clone())).await.unwrap();
        let client = database(hub.database_url()).await;
        let listens: String = client
            .query_one("show listen_addresses", &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(listens, "", "the database is not on the network");
        hub.stop().await.unwrap();
    }
}

/// The process that is killed: the test below starts this binary again with the folder in the environment.
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "how the parent tells this process that it is the one to be killed"
)]
fn a_hub_in_a_process_of_its_own() {
    let Ok(folder) = std::env::var(KILLED_HUB) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let hub = Hub::start(config(folder.into())).await.unwrap();
        let user = hub
            .ensure_user("kept@example.com", "correct horse")
            .await
            .unwrap();
        println!("ready {user}");
        std::future::pending::<()>().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
#[allow(
    clippy::disallowed_methods,
    reason = "a hub can be killed only in a process of its own"
)]
async fn a_killed_hub_leaves_nothing_that_stops_the_next() {
    use std::io::BufRead as _;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("hub");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_hub_in_a_process_of_its_own", "--nocapture"])
        .env(KILLED_HUB, &data)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let user = lines
        .map_while(Result::ok)
        .find_map(|line| line.split_once("ready ").map(|(_, user)| user.trim().to_owned()));
    let user = user.expect("the hub says when it is ready");
    child.kill().unwrap();
    child.wait().unwrap();

    let hub = Hub::start(config(data)).await.unwrap();
    let kept = hub
        .ensure_user("kept@example.com", "correct horse")
        .await
        .unwrap();
    assert_eq!(kept.to_string(), user, "what was acknowledged is kept");
    hub.stop().await.unwrap();
}

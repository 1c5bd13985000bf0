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
    let client = database(&hub.database_url()).await;
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
async fn changed_functions_are_applied_again_changed_tables_are_an_error_and_a_newer_database_is_left_alone()
{
    const BREAK: &str = "update supabase_migrations.schema_migrations set sha256 = 'other' where version = ";
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("hub");
    let hub = Hub::start(config(data.clone())).await.unwrap();
    let client = database(&hub.database_url()).await;
    client.batch_execute(&format!("{BREAK} '0003'")).await.unwrap();
    hub.stop().await.unwrap();

    let hub = Hub::start(config(data.clone())).await.unwrap();
    let client = database(&hub.database_url()).await;
    let others = "select count(*) from supabase_migrations.schema_migrations where sha256 = 'other'";
    assert_eq!(client.query_one(others, &[]).await.unwrap().get::<_, i64>(0), 0);
    client.batch_execute(&format!("{BREAK} '0001'")).await.unwrap();
    hub.stop().await.unwrap();

    for _ in 0..2 {
        let error = Hub::start(config(data.clone())).await.unwrap_err();
        assert!(
            matches!(error, HubError::OtherTables { file: "0001_tables" }),
            "{error}"
        );
        assert!(error.to_string().contains("move it away"), "{error}");
    }
    // The same with a file this program does not know: whoever wrote it knows why the tables are others.
    let bare = folder.path().join("newer");
    let hub = Hub::start(config(bare.clone())).await.unwrap();
    let client = database(&hub.database_url()).await;
    let newer = "insert into supabase_migrations.schema_migrations (version, name, sha256)
                 values ('9999', '9999_newer', 'x')";
    client.batch_execute(newer).await.unwrap();
    client
        .batch_execute(&format!("{BREAK} '0001'; {BREAK} '0003'"))
        .await
        .unwrap();
    hub.stop().await.unwrap();
    let hub = Hub::start(config(bare)).await.unwrap();
    let client = database(&hub.database_url()).await;
    assert_eq!(client.query_one(others, &[]).await.unwrap().get::<_, i64>(0), 2);
    hub.stop().await.unwrap();
}

/// The folder of the cluster, which is not always in the data folder.
async fn cluster_folder(client: &Client) -> std::path::PathBuf {
    let row = client.query_one("show data_directory", &[]).await.unwrap();
    row.get::<_, String>(0).into()
}

#[tokio::test(flavor = "multi_thread")]
#[allow(
    clippy::disallowed_methods,
    reason = "a living process that is not Postgres, of the user Postgres runs as"
)]
async fn a_lock_file_that_names_somebody_elses_process_does_not_stop_the_hub() {
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::process::CommandExt as _;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("hub");
    let hub = Hub::start(config(data.clone())).await.unwrap();
    let pgdata = cluster_folder(&database(&hub.database_url()).await).await;
    hub.stop().await.unwrap();

    let owner = std::fs::metadata(&pgdata).unwrap().uid();
    let mut other = Command::new("sleep");
    other.arg("60");
    if rustix::process::geteuid().is_root() {
        other.uid(owner);
    }
    let mut other = other.spawn().unwrap();
    let note = format!("{}\n{}\n", other.id(), pgdata.display());
    std::fs::write(pgdata.join("postmaster.pid"), note).unwrap();
    let started = Hub::start(config(data)).await;
    let untouched = other.try_wait().unwrap().is_none();
    other.kill().unwrap();
    other.wait().unwrap();
    started.unwrap().stop().await.unwrap();
    assert!(untouched, "the other process is not ours to end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_dies_is_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(config(folder.path().join("hub"))).await.unwrap();
    let user = hub.ensure_user("a@example.com", "correct horse").await.unwrap();
    let note = cluster_folder(&database(&hub.database_url()).await)
        .await
        .join("postmaster.pid");
    let pid = || -> Option<rustix::process::Pid> {
        let note = std::fs::read_to_string(&note).ok()?;
        rustix::process::Pid::from_raw(note.lines().next()?.trim().parse().ok()?)
    };
    let first = pid().unwrap();
    let http = reqwest::Client::new();
    let read = || {
        http.get(format!("{}/rest/v1/offices", hub.url()))
            .header("apikey", &hub.keys().secret)
            .send()
    };
    assert_eq!(read().await.unwrap().status(), 200);
    rustix::process::kill_process(first, rustix::process::Signal::KILL).unwrap();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let status = read().await.unwrap().status().as_u16();
        assert!(
            [200, 503].contains(&status),
            "{status}: it is said to be away, at once"
        );
        let again = hub.ensure_user("a@example.com", "correct horse").await;
        if pid().is_some_and(|pid| pid != first) && again.is_ok_and(|again| again == user) {
            break;
        }
        assert!(Instant::now() < deadline, "it comes back");
        tokio::task::yield_now().await;
    }
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
        let client = database(&hub.database_url()).await;
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

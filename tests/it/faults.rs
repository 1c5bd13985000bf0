//! What can be wrong around the program: each is told in words that say what to do, nothing is lost, nothing panics.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use cli::machine::{Core, StopHow};
use client::settings::Settings;
use domain::CommandId;
use harness::claude::ClaudeHome;
use harness::guard::EndsLeft;
use harness::remote::{PASSWORD, Remote, settings_for, workstation};
use harness::stub::Stub;
use harness::wait::{LONG, wait_until};
use harness::world::{World, problem_of, result_of, state_of, surroundings};
use serde_json::json;
use supabase::{CommandState, NewCommand, Project, ResultRow};

const NO_MODEL: &str = "http://127.0.0.1:9";

fn error_of(result: &ResultRow) -> (String, String) {
    let text = |key: &str| {
        result
            .error
            .as_ref()
            .and_then(|error| error[key].as_str())
            .unwrap_or_default()
            .to_owned()
    };
    (text("class"), text("message"))
}

async fn send(remote: &Remote, prompt: &str) -> CommandId {
    let command = NewCommand {
        office: remote.office.id,
        kind: "send_prompt".to_owned(),
        args: json!({ "prompt": prompt }),
        key: uuid::Uuid::new_v4().to_string(),
        agent: Some(remote.agent.id),
        session: None,
    };
    remote
        .rest
        .enqueue_command(&command)
        .await
        .expect("the command is taken")
        .id
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_network_the_client_says_so_and_joins_by_itself_when_it_is_back() {
    let (office_dir, dir, home) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        ClaudeHome::new(),
    );
    // The office has its address, but is not there.
    let remote = Remote::start(office_dir.path(), 0).await;
    let port = remote
        .hub
        .url()
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .expect("a port");
    let settings = remote.settings();
    remote.hub.stop().await.expect("the hub stops");

    let core = Core::start(&workstation(dir.path(), &home, NO_MODEL, settings, PASSWORD))
        .await
        .expect("it starts all the same");
    let problem = problem_of(&core, "office_unreachable").await;
    assert!(
        problem["message"]
            .as_str()
            .unwrap_or_default()
            .contains("127.0.0.1"),
        "{problem}"
    );
    assert!(!problem["hint"].as_str().unwrap_or_default().is_empty());
    assert_eq!(state_of(&core).await["connection"]["status"], "offline");

    let remote = Remote::start(office_dir.path(), port).await;
    wait_until("it has joined by itself", LONG, || async {
        let state = state_of(&core).await;
        state["office"]["name"] == "Team"
            && state["connection"]["status"] == "live"
            && state["problems"] == json!([])
    })
    .await;
    core.stop(StopHow::Now).await;
    remote.hub.stop().await.expect("the hub stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_with_the_account_and_what_to_do() {
    let (office_dir, dir, home) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        ClaudeHome::new(),
    );
    let remote = Remote::start(office_dir.path(), 0).await;
    let core = Core::start(&workstation(
        dir.path(),
        &home,
        NO_MODEL,
        remote.settings(),
        "wrong",
    ))
    .await
    .expect("it starts");
    let problem = problem_of(&core, "sign_in").await;
    assert!(
        problem["message"]
            .as_str()
            .unwrap_or_default()
            .contains("password is wrong"),
        "{problem}"
    );
    assert!(
        problem["hint"]
            .as_str()
            .unwrap_or_default()
            .contains("SEMO_PASSWORD"),
        "{problem}"
    );
    core.stop(StopHow::Now).await;
    remote.hub.stop().await.expect("the hub stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_has_expired_is_renewed_and_a_dead_one_is_made_anew() {
    let (office_dir, dir, home) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        ClaudeHome::new(),
    );
    let remote = Remote::start(office_dir.path(), 0).await;
    let world = workstation(dir.path(), &home, NO_MODEL, remote.settings(), PASSWORD);
    let known = &world.settings.supabase;
    let project = Project::new(&known.url, &known.publishable_key).expect("a project");
    let joined = async |core: &Core| {
        wait_until("it has joined", LONG, || async {
            state_of(core).await["office"]["name"] == "Team"
        })
        .await;
    };
    let core = Core::start(&world).await.expect("it starts");
    joined(&core).await;
    core.stop(StopHow::Now).await;
    // The access token is over by our clock; the refresh token is still good.
    let tokens = |change: fn(&mut serde_json::Value)| {
        let file = world.paths.tokens(&project);
        let mut stored = serde_json::from_slice(&std::fs::read(&file).expect("stored tokens")).expect("JSON");
        change(&mut stored);
        std::fs::write(&file, stored.to_string()).expect("written");
    };
    tokens(|stored| stored["expires_at"] = json!(1_000));
    let core = Core::start(&world).await.expect("it starts");
    joined(&core).await;
    core.stop(StopHow::Now).await;
    // Both are worthless: the password is used.
    tokens(|stored| {
        stored["expires_at"] = json!(1_000);
        stored["refresh_token"] = json!("nonsense");
    });
    let core = Core::start(&world).await.expect("it starts");
    joined(&core).await;
    core.stop(StopHow::Now).await;
    remote.hub.stop().await.expect("the hub stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named_with_the_setting_that_changes_it() {
    let (dir, home) = (tempfile::tempdir().unwrap(), ClaudeHome::new());
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = taken.local_addr().expect("its address").port();
    for (setting, change) in [
        (
            "api.port",
            (|settings: &mut Settings, port| settings.api.port = port) as fn(&mut Settings, u16),
        ),
        ("SEMO_HUB_PORT", |settings, port| settings.hub.port = port),
    ] {
        let mut settings = Settings::default();
        change(&mut settings, port);
        let failure = Core::start(&surroundings(dir.path(), &home, NO_MODEL, settings))
            .await
            .err()
            .expect("it does not start");
        let said = format!("{failure:?}");
        assert!(
            said.contains(&port.to_string()) && said.contains(setting),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_that_cannot_be_written_is_named() {
    let (dir, home) = (tempfile::tempdir().unwrap(), ClaudeHome::new());
    // Under a file no folder can be made, whoever we are.
    let file = dir.path().join("file");
    std::fs::write(&file, "x").expect("a file");
    let failure = Core::start(&surroundings(&file, &home, NO_MODEL, Settings::default()))
        .await
        .err()
        .expect("it does not start");
    let said = format!("{failure:?}");
    assert!(
        said.contains(&file.display().to_string()) && said.contains("SEMO_DATA_DIR"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_core_on_the_same_folder_is_told_where_the_first_one_is() {
    let world = World::start().await;
    let home = ClaudeHome::new();
    let dir = world.paths.data_dir.parent().expect("a parent").to_owned();
    let failure = Core::start(&surroundings(&dir, &home, NO_MODEL, Settings::default()))
        .await
        .err()
        .expect("it does not start");
    let said = format!("{failure:?}");
    assert!(
        said.contains("already runs") && said.contains(world.core.api_url()),
        "{said}"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_claude_the_user_is_told_how_to_get_it_in_the_window_and_in_the_result() {
    let world = World::start_with(|settings| settings.claude.program = Some("/nowhere/claude".into())).await;
    let problem = problem_of(&world.core, "claude_missing").await;
    assert!(
        problem["message"]
            .as_str()
            .unwrap_or_default()
            .contains("npm install -g @anthropic-ai/claude-code"),
        "{problem}"
    );
    let id = world.send("FE", "Anything.").await;
    let (_, result) = world.result(id).await;
    let (class, message) = error_of(&result);
    assert_eq!(class, "claude_missing");
    assert!(
        message.contains("/nowhere/claude") && message.contains("npm install"),
        "{message}"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claude_that_is_not_signed_in_is_told_in_the_window_and_in_the_result() {
    let (dir, home, stub) = (
        tempfile::tempdir().unwrap(),
        ClaudeHome::fresh(),
        Stub::start().await.expect("the stub"),
    );
    let (office_dir, repository) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let remote = Remote::start(office_dir.path(), 0).await;
    let mut settings = remote.settings();
    let sample = repository.path().join("sample");
    worktree::sample_repository(&sample).await.expect("a repository");
    settings.repositories.insert("sample".to_owned(), sample);
    let mut world = workstation(dir.path(), &home, &stub.url(), settings, PASSWORD);
    world.environment.remove("ANTHROPIC_AUTH_TOKEN");
    let core = Core::start(&world).await.expect("it starts");
    let _guard = EndsLeft::of_core(&dir.path().join("data/holders"), home.path(), core.lever());
    let id = send(&remote, "Anything.").await;
    let (row, result) = result_of(&remote.rest, id).await;
    assert_eq!(row.state, CommandState::Failed);
    let (class, message) = error_of(&result);
    assert_eq!(class, "auth", "{message}");
    assert_eq!(message.matches("run `claude`").count(), 1, "told once: {message}");
    let problem = problem_of(&core, "claude_signed_out").await;
    let told = format!("{} {}", problem["message"], problem["hint"]);
    assert_eq!(told.matches("run `claude`").count(), 1, "told once: {told}");
    core.stop(StopHow::Now).await;
    remote.hub.stop().await.expect("the hub stops");
    stub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_missing_or_no_git_is_named_in_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let plain: PathBuf = folder.path().to_owned();
    let world = World::start_with(|settings| {
        settings
            .repositories
            .insert("gone".into(), "/nowhere/repository".into());
        settings.repositories.insert("plain".into(), plain.clone());
    })
    .await;
    for (name, expected) in [
        ("gone", "/nowhere/repository"),
        ("plain", "git"),
        ("unknown", "repositories.unknown"),
    ] {
        let args = json!({ "prompt": "Anything.", "repository": name });
        let id = world
            .enqueue("send_prompt", args, Some(world.agent("FE")), None)
            .await;
        let (_, result) = world.result(id).await;
        let (class, message) = error_of(&result);
        assert_eq!(class, "repository", "{message}");
        assert!(message.contains(expected), "{message}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ran_out_while_the_machine_slept_does_not_stop_the_work() {
    let (office_dir, dir, home, stub) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        ClaudeHome::new(),
        Stub::start().await.expect("the stub"),
    );
    let remote = Remote::start(office_dir.path(), 0).await;
    let mut settings = remote.settings();
    let sample = dir.path().join("sample");
    worktree::sample_repository(&sample).await.expect("a repository");
    settings.repositories.insert("sample".to_owned(), sample);
    let core = Core::start(&workstation(dir.path(), &home, &stub.url(), settings, PASSWORD))
        .await
        .expect("it starts");
    let _guard = EndsLeft::of_core(&dir.path().join("data/holders"), home.path(), core.lever());
    let id = send(&remote, "Slowly. scn=slow:20").await;
    stub.turn_where("the turn has begun", LONG, |request| {
        request.prompt().is_some_and(|prompt| prompt.contains("Slowly"))
    })
    .await;
    // As after a night with the lid closed: the lease is over, and the next claim gives the command out again.
    let (database, connection) = tokio_postgres::connect(&remote.hub.database_url(), tokio_postgres::NoTls)
        .await
        .expect("the database");
    let connection = tokio::spawn(connection);
    let lapsed = "update public.agent_commands set lease_until = now() - interval '1 hour' where id = $1";
    assert_eq!(database.execute(lapsed, &[&id.0]).await.expect("an update"), 1);
    let other = send(&remote, "Say hello.").await;
    let (row, result) = result_of(&remote.rest, id).await;
    assert_eq!(row.state, CommandState::Succeeded, "{result:?}");
    assert!(
        row.attempt >= 2,
        "it was given out again, to the client that had it: attempt {}",
        row.attempt
    );
    assert_eq!(
        result_of(&remote.rest, other).await.0.state,
        CommandState::Succeeded
    );
    let slow = stub
        .turns()
        .iter()
        .filter(|turn| turn.prompt().is_some_and(|prompt| prompt.contains("Slowly")))
        .count();
    assert_eq!(slow, 1, "the prompt reached the model once");
    drop(database);
    connection.abort();
    core.stop(StopHow::Now).await;
    remote.hub.stop().await.expect("the hub stops");
    stub.stop().await;
}

#[test]
fn a_url_that_is_none_is_refused_before_anything_starts() {
    let settings = settings_for("ftp://office", "sb_publishable_x");
    let error =
        supabase::Project::new(&settings.supabase.url, &settings.supabase.publishable_key).unwrap_err();
    assert!(error.to_string().contains("ftp://office"), "{error}");
}

//! The office around the one command: two offices, a full house, leases, cancels, the end of the day.

use client::office_settings::{OfficeSettings, ROLE_CHARS_MAX, WARM_ROLES_MAX};
use client::settings::{IDLE_MINUTES_MAX, MEMORY_MB_MAX, MEMORY_MB_MIN, SESSIONS_MAX_MAX};
use domain::CommandId;
use harness::program::Place;
use harness::remote::Remote;
use harness::stub::{Gate, Stub, StubRequest};
use harness::wait::{LONG, wait_until};
use harness::world::World;
use provider::detect::{OfficePatterns, PATTERNS_MAX};
use serde_json::{Value, json};
use supabase::{AgentDraft, CommandState, NewCommand};
use uuid::Uuid;

fn asks_for(part: &'static str) -> impl Fn(&StubRequest) -> bool {
    move |request| request.prompt().is_some_and(|prompt| prompt.contains(part))
}

/// In a house with one place: a first command whose turn lasts until the gate is opened, and a second one that waits in
/// line for its place.
async fn one_works_and_one_waits(world: &World) -> (CommandId, CommandId, Gate) {
    let gate = world.stub.hold("First.");
    let works = world.send("FE", "First.").await;
    world
        .stub
        .turn_where("the first turn", LONG, asks_for("First."))
        .await;
    let waits = world.send("BE", "Second.").await;
    wait_until("the second one waits", LONG, || async {
        world.state().await["commands"][0]["status"] == "waiting"
    })
    .await;
    (works, waits, gate)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_picks_a_second_office_and_its_agents_work_for_it() {
    let world = World::start().await;
    let office = world.rest.create_office("Second").await.expect("an office");
    let draft = AgentDraft {
        agent: Uuid::new_v4().into(),
        role: "DOC".to_owned(),
        name: "Duri".to_owned(),
        prompt: "You write what people read.".to_owned(),
        scope_patterns: Vec::new(),
        core_skills: Vec::new(),
    };
    let agent = world
        .rest
        .upsert_agent(office.id, &draft)
        .await
        .expect("an agent");
    let first = world.session("FE").await;
    // It was made after the core had joined: a person asks for a fresh look.
    world.call("refresh", json!({})).await;
    wait_until("the second office can be picked", LONG, || async {
        world
            .call("select_office", json!({ "office_id": office.id }))
            .await
            .0
            == 200
    })
    .await;
    wait_until("the second office is served", LONG, || async {
        let state = world.state().await;
        state["office"]["name"] == "Second"
            && state["agents"][0]["role"] == "DOC"
            && state["connection"]["status"] == "live"
    })
    .await;
    let pool = world.state().await["pool"].clone();
    assert_eq!(
        (&pool["open"], &pool["waiting"]),
        (&json!(0), &json!(0)),
        "what is open belongs to the first office: {pool}"
    );
    let enqueue = async |kind: &str, args: Value| {
        let command = NewCommand {
            office: office.id,
            kind: kind.to_owned(),
            args,
            key: Uuid::new_v4().to_string(),
            agent: Some(agent.id),
            session: None,
        };
        world
            .rest
            .enqueue_command(&command)
            .await
            .expect("the command is taken")
            .id
    };
    let id = enqueue("send_prompt", json!({ "prompt": "Say hello." })).await;
    let (row, result) = world.result(id).await;
    assert_eq!(row.state, CommandState::Succeeded, "{result:?}");
    let everything = world.stub.turns().last().expect("a turn").user_texts().join("\n");
    assert!(everything.contains("You are Duri, DOC of this office"));
    // What belongs to the first office is nobody's business here.
    let list = enqueue("list_sessions", json!({})).await;
    let (_, listed) = world.result(list).await;
    assert!(
        !listed
            .output
            .expect("a list")
            .to_string()
            .contains(&first.to_string())
    );
    let peek = enqueue("get_output", json!({ "session": first })).await;
    assert_eq!(world.result(peek).await.0.state, CommandState::Failed);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_house_is_full_a_command_waits_in_line_and_is_served_next() {
    let world = World::start_with(|settings| settings.limits.sessions_max = 1).await;
    let (slow, waiting, gate) = one_works_and_one_waits(&world).await;
    gate.open();
    assert_eq!(world.result(slow).await.0.state, CommandState::Succeeded);
    let (_, result) = world.result(waiting).await;
    assert_eq!(
        result.outcome.as_deref(),
        Some("done"),
        "the idle session made room: {result:?}"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_reaches_what_waits_in_line_and_what_nobody_holds() {
    let world = World::start_with(|settings| settings.limits.sessions_max = 1).await;
    let (slow, waiting, _gate) = one_works_and_one_waits(&world).await;
    let cancel = world
        .enqueue("cancel", json!({ "command": waiting }), None, None)
        .await;
    assert_eq!(world.result(waiting).await.0.state, CommandState::Cancelled);
    assert_eq!(world.result(cancel).await.0.state, CommandState::Succeeded);
    let over = world
        .enqueue("cancel", json!({ "command": waiting }), None, None)
        .await;
    let (_, told) = world.result(over).await;
    assert!(
        told.output.expect("an output")["note"]
            .to_string()
            .contains("it is cancelled")
    );
    let nothing = world
        .enqueue("cancel", json!({ "command": Uuid::new_v4() }), None, None)
        .await;
    assert_eq!(
        world.result(nothing).await.0.state,
        CommandState::Failed,
        "no such command is no success"
    );
    world.call("cancel_command", json!({ "command_id": slow })).await;
    assert_eq!(world.result(slow).await.0.state, CommandState::Cancelled);
    assert!(
        world.stub.turns().iter().all(|turn| !asks_for("Second.")(turn)),
        "it never reached the model"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_end_tells_what_it_interrupted_and_leaves_what_had_not_begun() {
    let world = World::start_with(|settings| settings.limits.sessions_max = 1).await;
    let paths = world.paths.clone();
    let (running, waiting, _gate) = one_works_and_one_waits(&world).await;
    let session = world.state().await["sessions"][0]["id"]
        .as_str()
        .expect("a session")
        .to_owned();
    world.core.stop(cli::machine::StopHow::Now).await;
    // The hub has ended with the core; the journal tells what was written before it did.
    let journal = journal::Journal::open(&paths.journal()).expect("the journal");
    let ended = journal.command(running).expect("a read").expect("a row");
    assert_eq!(
        ended.phase,
        journal::Phase::Finished,
        "what was interrupted has its result"
    );
    let open = journal.command(waiting).expect("a read").expect("a row");
    assert_eq!(
        open.phase,
        journal::Phase::Received,
        "what had not begun is not thrown away"
    );
    let row = journal
        .session(session.parse().expect("an id"))
        .expect("a read")
        .expect("a row");
    assert!(row.state.is_over(), "{:?}", row.state);
}

/// What the client says to a setting.
fn is_usable(settings: &Value) -> bool {
    let (_, faults) = OfficeSettings::read(settings, &OfficeSettings::default());
    faults.is_empty() && OfficePatterns::parse(settings).1.is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_takes_the_settings_that_a_workstation_can_use_and_no_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let remote = Remote::start(folder.path(), 0).await;
    let numbers = [
        ("sessions_max", 1, u64::from(SESSIONS_MAX_MAX)),
        ("idle_minutes", 1, u64::from(IDLE_MINUTES_MAX)),
        ("memory_mb_max", MEMORY_MB_MIN, MEMORY_MB_MAX),
    ];
    let mut tried: Vec<(Value, bool)> = Vec::new();
    for (key, least, most) in numbers {
        for (value, right) in [(least - 1, false), (least, true), (most, true), (most + 1, false)] {
            tried.push((json!({ key: value }), right));
        }
        for wrong in [json!(-1), json!(600.0), json!(600.5), json!("600"), json!([600])] {
            tried.push((json!({ key: wrong }), false));
        }
    }
    let roles = |count: usize| -> Value { (0..count).map(|role| format!("R{role}")).collect() };
    let long = |chars: usize| json!(["가".repeat(chars)]);
    for (value, right) in [
        (json!([]), true),
        (roles(WARM_ROLES_MAX), true),
        (roles(WARM_ROLES_MAX + 1), false),
        (long(ROLE_CHARS_MAX), true),
        (long(ROLE_CHARS_MAX + 1), false),
        (json!([format!(" {}\t", "R".repeat(ROLE_CHARS_MAX))]), true),
        (json!([" \t"]), false),
        (json!([""]), false),
        (json!([null]), false),
    ] {
        tried.push((json!({ "warm_roles": value }), right));
    }
    for key in ["completion_patterns", "error_patterns"] {
        for (value, right) in [
            (json!(vec!["x"; PATTERNS_MAX]), true),
            (json!(vec!["x"; PATTERNS_MAX + 1]), false),
            (long(500), true),
            (long(501), false),
            (json!([" "]), true),
            (json!([""]), false),
            (json!("x"), false),
        ] {
            tried.push((json!({ key: value }), right));
        }
    }
    for (settings, right) in tried {
        let taken = remote
            .rest
            .update_office_settings(remote.office.id, &settings)
            .await;
        let short: String = settings.to_string().chars().take(90).collect();
        assert_eq!(is_usable(&settings), right, "the workstation: {short}");
        assert_eq!(taken.is_ok(), right, "the database: {short}: {taken:?}");
    }
    remote.hub.stop().await.expect("the hub stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_nobody_has_used_yet_is_ended_by_a_person_without_a_command() {
    let world = World::start_with(|settings| settings.limits.warm_max = 1).await;
    let warm = async || {
        let state = world.state().await;
        let sessions = state["sessions"].as_array()?.clone();
        sessions
            .into_iter()
            .find(|one| one["warm"] == true && one["state"]["state"] == "idle")
    };
    let first = harness::wait::wait_for("a warm session", LONG, &warm).await;
    let (status, said) = world
        .call("terminate", json!({ "session_id": first["id"] }))
        .await;
    assert_eq!((status, &said["command_id"]), (200, &Value::Null), "{said}");
    wait_until("it is gone", LONG, || async {
        let state = world.state().await;
        let sessions = state["sessions"].as_array().cloned().unwrap_or_default();
        sessions.iter().all(|one| one["id"] != first["id"])
    })
    .await;
    assert_eq!(world.state().await["commands"], json!([]));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_sent_while_the_office_still_starts_waits_for_it() {
    let stub = Stub::start().await.expect("the stub");
    let place = Place::new(&stub.url());
    let up = place.up_at_once();
    let lock = place.dir.path().join("data").join("core.lock");
    wait_until("it has begun to start", LONG, || {
        let there = lock.exists();
        async move { there }
    })
    .await;
    let sent = place
        .run(&["send", "--agent", "QA", "Say hello.", "--json"])
        .await;
    let out = String::from_utf8_lossy(&sent.stdout).into_owned();
    assert_eq!(sent.status.code(), Some(0), "{sent:?}");
    assert!(out.contains("command_id"), "{sent:?}");
    place.down(up).await;
    stub.stop().await;
}

//! What agents ask of people, with the real `claude`: it becomes a row and a view, it is answered from a window, the
//! program `semo` or by a command, here or on another machine, once; and the record says by whom and when.

use std::path::Path;
use std::time::Duration;

use cli::machine::{Core, StopHow};
use domain::policy::RemoteAnswers;
use domain::{AskId, CommandId, SessionId};
use harness::claude::ClaudeHome;
use harness::program::Place;
use harness::remote::Remote;
use harness::stub::Stub;
use harness::wait::{LONG, wait_for, wait_until};
use harness::world::{World, problem_of, result_of, state_of};
use serde_json::{Value, json};
use supabase::{AskRow, AskState, CommandState, NewCommand, Rest, ResultRow};
use uuid::Uuid;

/// How long an ask may take to come up: the agent program has to start first.
const SOON: Duration = LONG;
/// What comes by a doorbell comes sooner than this; the poll alone would take half a minute.
const BEFORE_THE_POLL: Duration = Duration::from_secs(25);

/// The one ask of a state, once it is there.
fn the_ask(state: &Value) -> Option<Value> {
    state["asks"].as_array()?.first().cloned()
}

async fn ask_in(world: &World) -> Value {
    wait_for("something waits for an answer", SOON, || async {
        the_ask(&world.state().await)
    })
    .await
}

fn id<T: std::str::FromStr>(value: &Value) -> T {
    let text = value.as_str().unwrap_or_else(|| panic!("no text: {value}"));
    text.parse().unwrap_or_else(|_| panic!("no id: {text}"))
}

/// The office's row of an ask, once it is in that state.
async fn row_in(rest: &Rest, ask: AskId, state: AskState) -> AskRow {
    wait_for("the office's row of the ask", LONG, || async {
        rest.ask(ask).await.ok()?.filter(|row| row.state == state)
    })
    .await
}

fn error(result: &ResultRow) -> (String, String) {
    let text = |key: &str| {
        let value = result.error.as_ref().map(|error| &error[key]);
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    (text("class"), text("message"))
}

async fn approve(world: &World, ask: &Value, answer: Value) -> CommandId {
    let session: SessionId = id(&ask["session_id"]);
    let args = json!({ "session": session, "ask": ask["id"], "answer": answer });
    world.enqueue("approve", args, None, Some(session)).await
}

async fn note_of(world: &World) -> bool {
    let state = world.state().await;
    let worktree = state["sessions"][0]["worktree"].as_str().unwrap_or_default();
    Path::new(worktree).join("note.txt").exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_becomes_a_row_and_a_view_and_a_command_from_elsewhere_allows_it() {
    let world = World::start().await;
    let prompt = world.send("FE", "Make a note. scn=bash:touch+note.txt").await;
    let ask = ask_in(&world).await;
    assert_eq!(
        (&ask["kind"], &ask["mine"], &ask["answerable"]),
        (&json!("permission"), &json!(true), &json!(true)),
        "{ask}"
    );
    assert!(ask["text"].to_string().contains("touch note.txt"), "{ask}");
    assert_eq!(world.state().await["sessions"][0]["ask"]["id"], ask["id"]);
    let row = row_in(&world.rest, id(&ask["id"]), AskState::Pending).await;
    assert_eq!(
        (row.kind.as_str(), row.command_id, row.agent_id),
        ("permission", Some(prompt), Some(world.agent("FE")))
    );
    assert!(!note_of(&world).await, "nothing happens before the answer");

    let answer = approve(&world, &ask, json!({"say": "allow"})).await;
    let (answered, result) = world.result(answer).await;
    assert_eq!(answered.state, CommandState::Succeeded, "{result:?}");
    let output = result.output.expect("an output");
    assert_eq!(
        (
            &output["answer"],
            &output["by"]["way"],
            id::<CommandId>(&output["by"]["who"])
        ),
        (&json!({"say": "allow"}), &json!("command"), answer)
    );
    assert!(output["answered_at"].is_string(), "{output}");

    let (_, result) = world.result(prompt).await;
    assert_eq!(result.outcome.as_deref(), Some("done"), "{result:?}");
    assert!(note_of(&world).await, "it was allowed, so it was done");
    let row = row_in(&world.rest, id(&ask["id"]), AskState::Answered).await;
    assert_eq!(
        (row.answered_by_way.as_deref(), row.answered_by_command),
        (Some("command"), Some(answer))
    );
    assert_eq!(
        row.answered_by_user, answered.created_by,
        "the database knows who"
    );
    assert!(row.closed_at.is_some() && row.answer == Some(json!({"say": "allow"})));
    let state = world.state().await;
    assert_eq!(state["asks"], json!([]));
    let how = state["closed_asks"][0]["how"].to_string();
    assert!(
        how.contains("allowed by a command") && how.contains(&answer.to_string()),
        "{how}"
    );

    let late = approve(&world, &ask, json!({"say": "deny"})).await;
    let (class, message) = error(&world.result(late).await.1);
    assert_eq!(class, "conflict", "{message}");
    assert!(
        message.contains(&answer.to_string()),
        "it names who was first: {message}"
    );
    let (status, refused) = world
        .call(
            "answer_ask",
            json!({ "ask_id": ask["id"], "answer": {"say": "allow"} }),
        )
        .await;
    assert_eq!((status, &refused["code"]), (409, &json!("conflict")), "{refused}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_from_a_window_reaches_the_agent_with_its_words_and_the_turns_evidence() {
    let world = World::start().await;
    let prompt = world.send("FE", "Make a note. scn=bash:touch+note.txt").await;
    let ask = ask_in(&world).await;
    let body = json!({ "ask_id": ask["id"], "answer": {"say": "deny", "message": "not on a Friday"} });
    let (status, said) = world.call("answer_ask", body).await;
    assert_eq!(status, 200, "{said}");
    assert!(said["note"].to_string().contains("not on a Friday"), "{said}");

    let (_, result) = world.result(prompt).await;
    assert!(!note_of(&world).await, "it was denied, so it was not done");
    let last = world.stub.turns().pop().expect("a request after the answer");
    let told = last
        .tool_results()
        .iter()
        .any(|result| result.to_string().contains("not on a Friday"));
    assert!(told, "the agent was told why: {:?}", last.tool_results());
    let evidence = result.evidence.expect("evidence").to_string();
    assert!(
        evidence.contains("\"answer\"") && evidence.contains("not on a Friday"),
        "the turn's record says what was answered: {evidence}"
    );
    let row = row_in(&world.rest, id(&ask["id"]), AskState::Answered).await;
    assert_eq!(row.answered_by_way.as_deref(), Some("window"));
    assert!(row.answered_by_user.is_some());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_window_and_a_command_that_answer_at_once_exactly_one_counts() {
    let world = World::start().await;
    let prompt = world.send("FE", "Make a note. scn=bash:touch+note.txt").await;
    let ask = ask_in(&world).await;
    let body = json!({ "ask_id": ask["id"], "answer": {"say": "allow"} });
    let command = approve(&world, &ask, json!({"say": "allow"}));
    let (by_command, (status, said)) = tokio::join!(command, world.call("answer_ask", body));
    let (answered, result) = world.result(by_command).await;
    let window = status == 200;
    assert_ne!(
        window,
        answered.state == CommandState::Succeeded,
        "{said} {result:?}"
    );
    if window {
        let (class, message) = error(&result);
        assert_eq!(class, "conflict");
        assert!(message.contains("in a window"), "{message}");
    } else {
        assert_eq!(said["code"], "conflict");
        assert!(said["message"].to_string().contains("by a command"), "{said}");
    }
    assert_eq!(world.result(prompt).await.1.outcome.as_deref(), Some("done"));
    let row = row_in(&world.rest, id(&ask["id"]), AskState::Answered).await;
    let way = if window { "window" } else { "command" };
    assert_eq!(row.answered_by_way.as_deref(), Some(way));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_the_terminal_answer_as_well_and_the_others_are_told() {
    let world = World::start().await;
    let prompt = world.send("FE", "Make a note. scn=bash:touch+note.txt").await;
    let ask = ask_in(&world).await;
    let keys = json!({ "session": ask["session_id"], "text": "1" });
    world.enqueue("send_keys", keys, None, None).await;
    assert_eq!(world.result(prompt).await.1.outcome.as_deref(), Some("done"));
    let row = row_in(&world.rest, id(&ask["id"]), AskState::Answered).await;
    assert_eq!(
        (row.answered_by_way.as_deref(), &row.answer, row.answered_by_user),
        (Some("terminal"), &None, None)
    );
    let late = approve(&world, &ask, json!({"say": "deny"})).await;
    let (class, message) = error(&world.result(late).await.1);
    assert_eq!(class, "conflict");
    assert!(message.contains("in its terminal"), "{message}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_who_keeps_answers_at_home_has_commands_refused_and_windows_heard() {
    let world = World::start_with(|settings| settings.policy.remote_answers = RemoteAnswers::Deny).await;
    let prompt = world.send("FE", "Make a note. scn=bash:touch+note.txt").await;
    let ask = ask_in(&world).await;
    let refused = approve(&world, &ask, json!({"say": "allow"})).await;
    let (class, message) = error(&world.result(refused).await.1);
    assert_eq!(class, "refused");
    assert!(message.contains("policy.remote_answers"), "{message}");
    let keys = json!({ "session": ask["session_id"], "text": "1" });
    let typed = world.enqueue("send_keys", keys, None, None).await;
    let (class, message) = error(&world.result(typed).await.1);
    assert_eq!(class, "refused", "keys would be an answer: {message}");
    assert!(message.contains("policy.remote_answers"), "{message}");
    assert_eq!(ask_in(&world).await["id"], ask["id"], "it still waits");
    let body = json!({ "ask_id": ask["id"], "answer": {"say": "allow"} });
    assert_eq!(world.call("answer_ask", body).await.0, 200);
    assert_eq!(world.result(prompt).await.1.outcome.as_deref(), Some("done"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_fit_is_refused_and_the_ask_still_waits() {
    let world = World::start().await;
    let prompt = world.send("FE", "Make a note. scn=bash:touch+note.txt").await;
    let ask = ask_in(&world).await;
    let wrong = approve(&world, &ask, json!({"say": "choose", "choice": 0})).await;
    assert_eq!(error(&world.result(wrong).await.1).0, "invalid");
    let mut other = ask.clone();
    other["id"] = json!(Uuid::new_v4());
    let unknown = approve(&world, &other, json!({"say": "allow"})).await;
    assert_eq!(error(&world.result(unknown).await.1).0, "not_found");
    let (status, _) = world
        .call(
            "answer_ask",
            json!({ "ask_id": other["id"], "answer": {"say": "allow"} }),
        )
        .await;
    assert_eq!(status, 404);
    // The session alone is enough, while it waits with one thing.
    let session: SessionId = id(&ask["session_id"]);
    let args = json!({ "session": session, "answer": {"say": "allow"} });
    let right = world.enqueue("approve", args.clone(), None, Some(session)).await;
    assert_eq!(world.result(right).await.0.state, CommandState::Succeeded);
    assert_eq!(world.result(prompt).await.1.outcome.as_deref(), Some("done"));
    let nothing = world.enqueue("approve", args, None, Some(session)).await;
    assert_eq!(error(&world.result(nothing).await.1).0, "not_found");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_with_one_of_its_choices() {
    let world = World::start().await;
    let prompt = world.send("FE", "Which one? scn=ask").await;
    let ask = ask_in(&world).await;
    assert_eq!(ask["kind"], "question", "{ask}");
    assert!(ask["text"].to_string().contains("Which database"), "{ask}");
    let choices = ask["choices"].as_array().cloned().unwrap_or_default();
    let place = choices
        .iter()
        .position(|choice| choice.to_string().contains("Postgres"));
    let answer = json!({"say": "choose", "choice": place.expect("the choice")});
    let chosen = approve(&world, &ask, answer).await;
    let (answered, result) = world.result(chosen).await;
    assert_eq!(answered.state, CommandState::Succeeded, "{result:?}");
    assert_eq!(world.result(prompt).await.1.outcome.as_deref(), Some("done"));
    let last = world.stub.turns().pop().expect("a request after the answer");
    let told = last
        .tool_results()
        .iter()
        .any(|result| result.to_string().contains("Postgres"));
    assert!(told, "the agent has the choice: {:?}", last.tool_results());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_on_another_workstation_is_shown_here_and_answered_by_a_command_to_it() {
    let (office_dir, dir, home) = (folder(), folder(), ClaudeHome::new());
    let remote = Remote::start(office_dir.path(), 0).await;
    let stub = Stub::start().await.expect("the stub");
    let start = async |name: &str| {
        let world = remote
            .workstation(&dir.path().join(name), &home, &stub.url())
            .await;
        Core::start(&world).await.expect("a workstation")
    };
    let one = start("one").await;
    let command = NewCommand {
        office: remote.office.id,
        kind: "send_prompt".to_owned(),
        args: json!({ "prompt": "Make a note. scn=bash:touch+note.txt" }),
        key: Uuid::new_v4().to_string(),
        agent: Some(remote.agent.id),
        session: None,
    };
    let prompt = remote.rest.enqueue_command(&command).await.expect("taken").id;
    wait_until("it waits there", SOON, || async {
        the_ask(&state_of(&one).await).is_some_and(|ask| ask["mine"] == true)
    })
    .await;
    let two = start("two").await;
    let ask = wait_for("it is shown elsewhere", SOON, || async {
        the_ask(&state_of(&two).await)
    })
    .await;
    assert_eq!(
        (&ask["mine"], &ask["answerable"]),
        (&json!(false), &json!(true)),
        "{ask}"
    );
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let answer = http
        .post(format!("{}/api/v1/rpc/answer_ask", two.api_url()))
        .bearer_auth(two.token())
        .json(&json!({ "ask_id": ask["id"], "answer": {"say": "allow"} }))
        .send()
        .await
        .expect("an answer");
    let said: Value = answer.json().await.expect("JSON");
    let (row, result) = result_of(&remote.rest, id(&said["command_id"])).await;
    assert_eq!(row.state, CommandState::Succeeded, "{result:?}");
    let (_, result) = result_of(&remote.rest, prompt).await;
    assert_eq!(result.outcome.as_deref(), Some("done"), "{result:?}");
    // The doorbell rings for the end as well.
    wait_until("it is over elsewhere too", BEFORE_THE_POLL, || async {
        let state = state_of(&two).await;
        state["asks"] == json!([]) && state["closed_asks"][0]["how"].to_string().contains("allowed")
    })
    .await;
    one.stop(StopHow::Now).await;
    two.stop(StopHow::Now).await;
    stub.stop().await;
    remote.hub.stop().await.expect("the hub stops");
}

/// More than the line holds.
const PROMPTS: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_gets_through_to_a_full_house_with_a_full_line() {
    let world = World::start_with(|settings| settings.limits.sessions_max = 1).await;
    let first = world.send("FE", "Make a note. scn=bash:touch+note.txt").await;
    let ask = ask_in(&world).await;
    for number in 0..PROMPTS {
        world.send("BE", &format!("Number {number}.")).await;
    }
    wait_until("the line is full", LONG, || async {
        // A claim for each look: the poll comes seldom.
        world.call("refresh", json!({})).await;
        world.state().await["pool"]["waiting"].as_u64() >= Some(50)
    })
    .await;
    let answer = approve(&world, &ask, json!({"say": "allow"})).await;
    let (answered, result) = world.result(answer).await;
    assert_eq!(answered.state, CommandState::Succeeded, "{result:?}");
    assert_eq!(world.result(first).await.1.outcome.as_deref(), Some("done"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ask_that_makes_no_sense_keeps_no_workstation_out_of_the_office() {
    let (office_dir, dir, home) = (folder(), folder(), ClaudeHome::new());
    let remote = Remote::start(office_dir.path(), 0).await;
    let stub = Stub::start().await.expect("the stub");
    let client = domain::ClientId(Uuid::new_v4());
    remote
        .rest
        .register_client(remote.office.id, client, "old", "linux", "0")
        .await
        .expect("a workstation");
    let (database, connection) = tokio_postgres::connect(&remote.hub.database_url(), tokio_postgres::NoTls)
        .await
        .expect("the database");
    tokio::spawn(connection);
    // What a database from before would have taken, and a time that is none.
    let row = "insert into public.session_asks (id, office_id, session_id, client_id, kind, text, choices, asked_at)
               values (gen_random_uuid(), $1, gen_random_uuid(), $2, 'question', $3, '[\"red\", 7]', $4::text::timestamptz)";
    for (text, at) in [("odd choices", "2026-01-01"), ("odd time", "infinity")] {
        database
            .execute(row, &[&remote.office.id.0, &client.0, &text, &at])
            .await
            .expect("a row");
    }
    let world = remote.workstation(dir.path(), &home, &stub.url()).await;
    let core = Core::start(&world).await.expect("a workstation");
    let state = wait_for("the office is joined", SOON, || async {
        let state = state_of(&core).await;
        (!state["office"].is_null()).then_some(state)
    })
    .await;
    let asks = state["asks"].as_array().expect("a list");
    assert_eq!(asks.len(), 1, "{asks:?}");
    assert_eq!(asks[0]["choices"], json!(["red", "7"]), "each in its place");
    let problem = problem_of(&core, "office_schema").await;
    assert!(
        problem["message"].to_string().contains("1 of the office's asks"),
        "{problem}"
    );
    core.stop(StopHow::Now).await;
    stub.stop().await;
    remote.hub.stop().await.expect("the hub stops");
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn json_of(output: &std::process::Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("no JSON: {text}, but {}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_lists_and_answers_and_after_a_kill_nothing_waits_for_ever() {
    let stub = Stub::start().await.expect("the stub");
    let place = Place::new(&stub.url());
    let up = place.up().await;
    let asks = async || json_of(&place.run(&["asks", "--json"]).await);
    let send = [
        "send",
        "--agent",
        "FE",
        "Make a note. scn=bash:touch+note.txt",
        "--json",
    ];
    let sent = json_of(&place.run(&send).await);
    assert!(sent["command_id"].is_string(), "{sent}");
    let ask = wait_for("something waits", SOON, || async { the_ask(&asks().await) }).await;
    let listed = place.run(&["asks"]).await;
    let words = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        words.contains("touch note.txt") && words.contains("FE (Mina)"),
        "{words}"
    );
    let wrong = place.run(&["approve", "nothing-like-it"]).await;
    assert_eq!(wrong.status.code(), Some(2));
    let ask_id = ask["id"].as_str().expect("an id");
    let ask_session = ask["session_id"].clone();
    let beginning = &ask_session.as_str().expect("an id")[..8];
    let allowed = place.run(&["approve", beginning]).await;
    assert_eq!(allowed.status.code(), Some(0), "{allowed:?}");
    assert!(String::from_utf8_lossy(&allowed.stdout).contains("allowed"));
    let second = place.run(&["approve", ask_id, "--deny"]).await;
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    assert!(
        String::from_utf8_lossy(&second.stderr).contains("with the program semo"),
        "it says who was first: {second:?}"
    );

    let explained = json_of(&place.run(&["explain", beginning, "--json"]).await);
    assert_eq!(explained["session"], ask["session_id"], "{explained}");
    assert!(
        !explained["turns"].as_array().expect("turns").is_empty(),
        "{explained}"
    );

    // Another one, and the core is killed while it waits.
    let send = [
        "send",
        "--agent",
        "QA",
        "Make a note. scn=bash:touch+other.txt",
        "--json",
    ];
    json_of(&place.run(&send).await);
    let ask = wait_for("the next one waits", SOON, || async {
        the_ask(&asks().await).filter(|next| next["id"] != ask["id"])
    })
    .await;
    // The agent waits on; it is asked for anew, and what the core that has gone asked is answered by nobody.
    let up = place.killed_and_up(up).await;
    let anew = wait_for("it is asked anew", SOON, || async {
        the_ask(&asks().await).filter(|next| next["id"] != ask["id"])
    })
    .await;
    assert_eq!(anew["session_id"], ask["session_id"], "{anew}");
    wait_until("what nobody waits with any more is withdrawn", SOON, || async {
        let state = up.state().await;
        let closed = state["closed_asks"].as_array().cloned().unwrap_or_default();
        let withdrawn = |one: &Value| one["id"] == ask["id"] && one["how"].to_string().contains("withdrawn");
        closed.iter().any(withdrawn)
    })
    .await;
    let allowed = place.run(&["approve", anew["id"].as_str().expect("an id")]).await;
    assert_eq!(allowed.status.code(), Some(0), "{allowed:?}");
    wait_until("the agent has gone on", SOON, || async {
        let state = up.state().await;
        let commands = state["commands"].as_array().cloned().unwrap_or_default();
        let done = |one: &Value| one["summary"].to_string().contains("other.txt") && one["outcome"] == "done";
        state["asks"] == json!([]) && commands.iter().any(done)
    })
    .await;
    let ended = place.run(&["terminate", beginning]).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    // What the first one made was never committed; it is kept, and a branch on demand.
    let kept = wait_for("its work is kept", SOON, || async {
        let listed = json_of(&place.run(&["preserved", "--json"]).await);
        let states = listed["preserved"].as_array().cloned().unwrap_or_default();
        states.into_iter().find(|state| state["name"] == ask_session)
    })
    .await;
    assert_eq!(kept["agent"], "FE · Mina", "{kept}");
    let restored = json_of(
        &place
            .run(&["restore", beginning, "--branch", "found-again", "--json"])
            .await,
    );
    assert_eq!(restored["branch"], "found-again", "{restored}");
    let twice = place
        .run(&["restore", beginning, "--branch", "found-again"])
        .await;
    assert_eq!(
        twice.status.code(),
        Some(1),
        "a branch is never written over: {twice:?}"
    );
    assert_eq!(place.run(&["restore", "zzz"]).await.status.code(), Some(2));
    place.down(up).await;
    stub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_office_are_shown_changed_and_refused_by_name() {
    let stub = Stub::start().await.expect("the stub");
    let place = Place::new(&stub.url());
    let up = place.up().await;
    let settings = async |args: &[&str]| {
        let all: Vec<&str> = ["office", "settings"].iter().chain(args).copied().collect();
        place.run(&all).await
    };
    let changed = settings(&["sessions_max=4", "warm_roles=FE,QA", "--json"]).await;
    assert_eq!(
        json_of(&changed)["settings"],
        json!({"sessions_max": 4, "warm_roles": ["FE", "QA"]})
    );
    wait_until("the window shows it at once", BEFORE_THE_POLL, || async {
        up.state().await["pool"]["sessions_max"] == 4
    })
    .await;
    let wrong = settings(&["sessions_max=400"]).await;
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("sessions_max"));
    assert_eq!(
        json_of(&settings(&["warm_roles=", "--json"]).await)["settings"],
        json!({"sessions_max": 4})
    );
    let shown = settings(&[]).await;
    assert!(String::from_utf8_lossy(&shown.stdout).contains("sessions_max = 4"));
    place.down(up).await;
    stub.stop().await;
}

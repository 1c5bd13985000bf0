//! The pool of sessions: made ready ahead of need, shared fairly, kept within bounds that may change at any time, and
//! taken up again after an end that nobody wanted.

use std::path::Path;
use std::time::Duration;

use domain::{CommandId, SessionId};
use harness::wait::{LONG, wait_for, wait_until};
use harness::world::{World, problem_of};
use serde_json::{Value, json};
use supabase::{AgentDraft, AgentRow, CommandState, ResultRow};

/// How long a session may take to come up on a busy machine.
pub(crate) const START_WAIT: Duration = LONG;
const MINUTE_MS: i64 = 60_000;

pub(crate) fn sessions(state: &Value) -> Vec<Value> {
    state["sessions"].as_array().cloned().unwrap_or_default()
}

fn is_ready(session: &Value) -> bool {
    session["state"]["state"] == "idle"
}

/// The session that stands ready for the agent with this role.
pub(crate) async fn warm_session(world: &World, role: &str) -> SessionId {
    let agent = json!(world.agent(role));
    wait_for(&format!("a warm session for {role}"), START_WAIT, || async {
        let all = sessions(&world.state().await);
        let warm = all
            .iter()
            .find(|session| session["warm"] == true && session["agent_id"] == agent && is_ready(session))?;
        warm["id"].as_str()?.parse().ok()
    })
    .await
}

pub(crate) async fn view_of(world: &World, session: SessionId) -> Option<Value> {
    sessions(&world.state().await)
        .into_iter()
        .find(|view| view["id"] == json!(session))
}

pub(crate) async fn worktree_of(world: &World, session: SessionId) -> String {
    let view = view_of(world, session).await.expect("the session is there");
    view["worktree"].as_str().expect("a worktree").to_owned()
}

fn session_in(result: &ResultRow) -> Option<SessionId> {
    result.output.as_ref()?["session_id"].as_str()?.parse().ok()
}

pub(crate) async fn done_in(world: &World, id: CommandId) -> SessionId {
    let (row, result) = world.result(id).await;
    assert_eq!(row.state, CommandState::Succeeded, "{result:?}");
    session_in(&result).expect("the session that carried it out")
}

pub(crate) fn commit(repository: &Path, name: &str, text: &str) {
    std::fs::write(repository.join(name), text).expect("a file");
    for args in [&["add", "-A"][..], &["commit", "-qm", "more"]] {
        let output = std::process::Command::new("git")
            .arg("-C")
            .arg(repository)
            .args(["-c", "user.name=A", "-c", "user.email=a@example.test"])
            .args(args)
            .output()
            .expect("git runs");
        assert!(output.status.success(), "{output:?}");
    }
}

/// The agent program of a session: its command line names its settings file, which bears the session's id, and it leads
/// the terminal's session. (What it starts has its command line too, for the moment between fork and exec.)
pub(crate) fn program_of(session: SessionId) -> Option<rustix::process::Pid> {
    let file = format!("{session}.claude-settings.json");
    std::fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .find_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let named = line
                .split(|byte| *byte == 0)
                .any(|arg| arg.ends_with(file.as_bytes()));
            let pid = named.then(|| rustix::process::Pid::from_raw(pid)).flatten()?;
            (rustix::process::getsid(Some(pid)).ok()? == pid).then_some(pid)
        })
}

pub(crate) fn kill(session: SessionId) {
    let pid = program_of(session).expect("its program runs");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it can be killed");
}

pub(crate) async fn has_restarted(world: &World, session: SessionId, times: u64) {
    wait_until(
        &format!("it was started again, {times} in all"),
        START_WAIT,
        || async {
            let view = view_of(world, session).await;
            view.is_some_and(|view| view["restarts"] == times && is_ready(&view))
        },
    )
    .await;
}

fn draft_of(agent: &AgentRow) -> AgentDraft {
    AgentDraft {
        agent: agent.id,
        role: agent.role.clone(),
        name: agent.name.clone(),
        prompt: agent.prompt.clone(),
        scope_patterns: agent.scope_patterns.clone(),
        core_skills: agent.core_skills.clone(),
    }
}

async fn set_office(world: &World, settings: Value) {
    world
        .rest
        .update_office_settings(world.office.id, &settings)
        .await
        .expect("the owner may change settings");
    world.call("refresh", json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_roles_are_made_ready_in_the_background_and_a_prompt_starts_in_the_ready_session() {
    let world = World::start_with(|settings| settings.limits.warm_max = 3).await;
    let warm = warm_session(&world, "FE").await;
    for role in ["BE", "QA"] {
        warm_session(&world, role).await;
    }
    // Nobody has asked for them yet: the office and remote servers do not hear of them.
    let list = world.enqueue("list_sessions", json!({}), None, None).await;
    let (_, listed) = world.result(list).await;
    assert_eq!(listed.output.expect("a list")["sessions"], json!([]));
    assert!(
        world
            .rest
            .sessions(world.office.id)
            .await
            .expect("a read")
            .is_empty()
    );

    let id = world.send("FE", "Make a plan.").await;
    assert_eq!(
        done_in(&world, id).await,
        warm,
        "the ready session carried it out"
    );
    let everything = world.stub.turns().last().expect("a turn").user_texts().join("\n");
    assert!(
        everything.contains("You are Mina, FE of this office"),
        "{everything}"
    );
    let view = view_of(&world, warm).await.expect("it is there");
    assert_eq!(view["warm"], false);
    let known = world.rest.sessions(world.office.id).await.expect("a read");
    assert!(known.iter().any(|row| row.id == warm), "{known:?}");
    // What comes next goes where its context is.
    let again = world.send("FE", "And now?").await;
    assert_eq!(done_in(&world, again).await, warm);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_session_follows_the_repository_unless_it_has_read_what_changed() {
    let world = World::start_with(|settings| settings.limits.warm_max = 1).await;
    let warm = warm_session(&world, "FE").await;
    commit(&world.repository(), "new.txt", "new");
    let id = world.send("FE", "Look around.").await;
    assert_eq!(done_in(&world, id).await, warm);
    let file = Path::new(&worktree_of(&world, warm).await).join("new.txt");
    assert!(file.exists(), "it starts from where the repository stands now");

    set_office(&world, json!({ "warm_roles": ["BE"] })).await;
    let warm = warm_session(&world, "BE").await;
    commit(&world.repository(), "CLAUDE.md", "Be brief, says the project.");
    let id = world.send("BE", "Look around.").await;
    let cold = done_in(&world, id).await;
    assert_ne!(cold, warm, "it had read the old instructions");
    let everything = world.stub.turns().last().expect("a turn").user_texts().join("\n");
    assert!(everything.contains("Be brief, says the project."));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_session_that_is_not_as_it_was_made_is_thrown_away_for_a_new_one() {
    let world = World::start_with(|settings| settings.limits.warm_max = 1).await;
    let warm = warm_session(&world, "FE").await;
    let args = json!({ "session": warm, "text": "half a thought" });
    let keys = world.enqueue("send_keys", args, None, None).await;
    world.result(keys).await;
    wait_until("the text stands in its input line", START_WAIT, || async {
        let id = world
            .enqueue("get_output", json!({ "session": warm }), None, None)
            .await;
        let (_, result) = world.result(id).await;
        result
            .output
            .is_some_and(|output| output["screen"].to_string().contains("half a thought"))
    })
    .await;
    let id = world.send("FE", "A whole one.").await;
    assert_ne!(done_in(&world, id).await, warm);
    let turns = world.stub.turns();
    let prompt = turns.last().expect("a turn").prompt().unwrap_or_default();
    assert!(
        prompt.contains("A whole one.") && !prompt.contains("half a thought"),
        "{prompt}"
    );

    set_office(&world, json!({ "warm_roles": ["QA"] })).await;
    let warm = warm_session(&world, "QA").await;
    std::fs::remove_dir_all(worktree_of(&world, warm).await).expect("somebody removes its folder");
    let id = world.send("QA", "Say hello.").await;
    assert_ne!(done_in(&world, id).await, warm);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_full_house_a_ready_session_makes_room_for_another_agents_command() {
    let world = World::start_with(|settings| {
        settings.limits.sessions_max = 1;
        settings.limits.warm_max = 1;
    })
    .await;
    let warm = warm_session(&world, "FE").await;
    let id = world.send("QA", "Say hello.").await;
    let used = done_in(&world, id).await;
    assert!(view_of(&world, warm).await.is_none(), "the ready one has gone");
    // A place for somebody to work in is worth more than a ready session: nothing is warmed up in a full house.
    let state = world.state().await;
    assert_eq!(sessions(&state).len(), 1, "{state}");
    assert_eq!(sessions(&state)[0]["id"], json!(used));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn six_work_at_once_and_the_seventh_waits_with_a_reason() {
    let world = World::start().await;
    let gate = world.stub.hold("Work ");
    let mut working = Vec::new();
    for number in 0..6 {
        let role = ["FE", "BE", "QA"][number % 3];
        working.push(world.send(role, &format!("Work {number}.")).await);
    }
    wait_until("six work", START_WAIT, || async {
        let all = sessions(&world.state().await);
        all.iter()
            .filter(|session| session["state"]["state"] == "working")
            .count()
            == 6
    })
    .await;
    let seventh = world.send("FE", "The seventh. scn=text").await;
    wait_until("the seventh waits and says why", START_WAIT, || async {
        let state = world.state().await;
        let first = &state["commands"][0];
        first["status"] == "waiting"
            && first["reason"].to_string().contains("at work")
            && state["pool"]["waiting"] == 1
            && state["pool"]["open"] == 6
    })
    .await;
    let create = world
        .enqueue("create_session", json!({}), Some(world.agent("QA")), None)
        .await;
    let (_, refused) = world.result(create).await;
    assert_eq!(refused.error.expect("an error")["class"], "full");
    world
        .call("cancel_command", json!({ "command_id": working[3] }))
        .await;
    assert_eq!(world.result(seventh).await.0.state, CommandState::Succeeded);
    gate.open();
    for id in working {
        world.call("cancel_command", json!({ "command_id": id })).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_house_with_one_place_the_agents_take_turns() {
    let world = World::start_with(|settings| settings.limits.sessions_max = 1).await;
    let gate = world.stub.hold("Number 0");
    let first = world.send("FE", "Number 0.").await;
    world
        .stub
        .turn_where("the first turn", START_WAIT, |request| {
            request.prompt().is_some_and(|prompt| prompt.contains("Number 0"))
        })
        .await;
    let mut all = vec![first];
    for (role, prompt) in [("FE", "Number 2."), ("FE", "Number 3."), ("BE", "Number 1.")] {
        all.push(world.send(role, prompt).await);
    }
    wait_until("the others wait", START_WAIT, || async {
        world.state().await["pool"]["waiting"] == 3
    })
    .await;
    gate.open();
    for id in all {
        done_in(&world, id).await;
    }
    let turns = world.stub.turns();
    let order: Vec<_> = turns
        .iter()
        .filter_map(|turn| turn.prompt()?.chars().find(char::is_ascii_digit))
        .collect();
    // One agent's three commands do not keep the other one waiting until the last of them.
    let place_of_be = order.iter().position(|number| *number == '1');
    assert!(place_of_be.is_some_and(|place| place < 3), "{order:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offices_settings_take_effect_without_a_restart() {
    let world = World::start_with(|settings| settings.limits.warm_max = 3).await;
    warm_session(&world, "QA").await;
    set_office(&world, json!({ "warm_roles": ["QA"], "idle_minutes": 2 })).await;
    wait_until("only QA is ready", START_WAIT, || async {
        let state = world.state().await;
        let roles = state["pool"]["warm_roles"] == json!(["QA"]);
        roles && sessions(&state).len() == 1 && state["pool"]["idle_minutes"] == 2
    })
    .await;
    for role in ["FE", "BE"] {
        let id = world.send(role, "Say hello.").await;
        done_in(&world, id).await;
    }
    assert_eq!(sessions(&world.state().await).len(), 3);
    set_office(&world, json!({ "sessions_max": 2 })).await;
    wait_until("what is too much has gone", START_WAIT, || async {
        let state = world.state().await;
        state["pool"]["sessions_max"] == 2 && sessions(&state).len() == 2
    })
    .await;
    set_office(&world, json!({ "sessions_max": 24 })).await;
    wait_until("the workstation's limit holds", START_WAIT, || async {
        world.state().await["pool"]["sessions_max"] == 6
    })
    .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_sessions_end_after_their_minutes_and_ready_ones_are_renewed_when_they_are_old() {
    let world = World::start_with(|settings| settings.limits.warm_max = 1).await;
    let warm = warm_session(&world, "FE").await;
    let id = world.send("QA", "Say hello.").await;
    let used = done_in(&world, id).await;
    world.clock.advance_ms(11 * MINUTE_MS);
    wait_until("the idle one has gone", START_WAIT, || async {
        view_of(&world, used).await.is_none()
    })
    .await;
    assert!(view_of(&world, warm).await.is_some(), "the ready one is kept");
    world.clock.advance_ms(60 * MINUTE_MS);
    wait_until("the old ready one has gone", START_WAIT, || async {
        view_of(&world, warm).await.is_none()
    })
    .await;
    assert_ne!(warm_session(&world, "FE").await, warm);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_is_started_again_with_its_conversation_until_it_happens_too_often() {
    let world = World::start().await;
    let id = world.send("FE", "Remember the word marigold.").await;
    let session = done_in(&world, id).await;
    kill(session);
    has_restarted(&world, session, 1).await;
    let id = world.send("FE", "Which word was it?").await;
    assert_eq!(done_in(&world, id).await, session);
    let everything = world.stub.turns().last().expect("a turn").user_texts().join("\n");
    assert!(everything.contains("marigold"), "the conversation goes on");

    // The turn that ran cannot be known to have had no effect: it fails, and is never sent again.
    let slow = world.send("FE", "Slowly. scn=slow:400").await;
    world
        .stub
        .turn_where("the slow turn", START_WAIT, |request| {
            request.prompt().is_some_and(|prompt| prompt.contains("Slowly"))
        })
        .await;
    kill(session);
    let (row, result) = world.result(slow).await;
    assert_eq!(row.state, CommandState::Failed, "{result:?}");
    assert_eq!(result.error.expect("an error")["class"], "provider_exit");
    has_restarted(&world, session, 2).await;
    let sent = world
        .stub
        .turns()
        .iter()
        .filter(|turn| turn.prompt().is_some_and(|prompt| prompt.contains("Slowly")))
        .count();
    assert_eq!(sent, 1, "the prompt reached the model once");

    // The orderly end in between does not count with it: three in a row do.
    kill(session);
    has_restarted(&world, session, 3).await;
    kill(session);
    let problem = problem_of(&world.core, "agent_paused").await;
    assert!(problem["message"].to_string().contains("Mina"), "{problem}");
    wait_until("the session has ended", START_WAIT, || async {
        view_of(&world, session).await.is_none()
    })
    .await;
    let waits = world.send("FE", "Are you back?").await;
    wait_until("the prompt waits and says why", START_WAIT, || async {
        let state = world.state().await;
        state["commands"][0]["status"] == "waiting"
            && state["commands"][0]["reason"].to_string().contains("paused")
            && state["pool"]["paused_agents"][0]["agent_id"] == json!(world.agent("FE"))
    })
    .await;
    world.clock.advance_ms(11 * MINUTE_MS);
    assert_eq!(world.result(waits).await.0.state, CommandState::Succeeded);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ends_at_every_start_is_left_alone_after_three_times() {
    let world = World::start_with(|settings| {
        settings.claude.program = Some(env!("CARGO_BIN_EXE_scripted-agent").into());
        settings.claude.args = ["--script", "die:3"].map(str::to_owned).to_vec();
    })
    .await;
    for _ in 0..3 {
        let id = world.send("FE", "Say hello.").await;
        let (row, result) = world.result(id).await;
        assert_eq!(row.state, CommandState::Failed, "{result:?}");
        let error = result.error.expect("an error");
        assert_eq!(error["class"], "provider_exit");
        let words = error["message"].to_string();
        assert!(words.contains("told to die"), "its last words are told: {words}");
    }
    let problem = problem_of(&world.core, "agent_paused").await;
    assert!(problem["message"].to_string().contains("code 3"), "{problem}");
    let waits = world.send("FE", "Say hello.").await;
    let other = world.send("BE", "Say hello.").await;
    assert_eq!(
        world.result(other).await.0.state,
        CommandState::Failed,
        "another agent is not held up"
    );
    let state = world.state().await;
    let shown = state["commands"]
        .as_array()
        .and_then(|all| all.iter().find(|command| command["id"] == json!(waits)));
    assert_eq!(shown.expect("it is shown")["status"], "waiting", "{state}");
    assert_eq!(state["sessions"], json!([]), "nothing is started for it");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_somebody_asked_for_is_never_answered_with_a_start() {
    let world = World::start().await;
    let id = world.send("FE", "Say hello.").await;
    let session = done_in(&world, id).await;
    kill(session);
    wait_until("its end was noticed", START_WAIT, || async {
        let view = view_of(&world, session).await;
        view.is_none_or(|view| view["restarts"] == 1)
    })
    .await;
    let end = world
        .enqueue("terminate", json!({ "session": session }), None, None)
        .await;
    let (_, result) = world.result(end).await;
    assert_eq!(result.outcome.as_deref(), Some("ok"), "{result:?}");
    assert_eq!(world.state().await["sessions"], json!([]));
    let id = world.send("FE", "Say hello.").await;
    assert_ne!(done_in(&world, id).await, session, "what was ended stays ended");
    assert!(program_of(session).is_none());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_persona_reaches_a_running_session_at_its_next_rest_with_the_conversation_kept() {
    let world = World::start().await;
    let id = world.send("FE", "Remember the word marigold.").await;
    let session = done_in(&world, id).await;
    let before = program_of(session);
    let mina = world
        .agents
        .iter()
        .find(|agent| agent.role == "FE")
        .expect("an agent");
    let draft = AgentDraft {
        prompt: "You now answer in verse.".to_owned(),
        ..draft_of(mina)
    };
    world
        .rest
        .upsert_agent(world.office.id, &draft)
        .await
        .expect("the agent is changed");
    world.call("refresh", json!({})).await;
    wait_until("the session was renewed", START_WAIT, || async {
        let view = view_of(&world, session).await;
        let now = program_of(session);
        now.is_some() && now != before && view.is_some_and(|view| is_ready(&view) && view["stale"] == false)
    })
    .await;
    let id = world.send("FE", "Which word was it?").await;
    assert_eq!(done_in(&world, id).await, session);
    let everything = world.stub.turns().last().expect("a turn").user_texts().join("\n");
    assert!(everything.contains("You now answer in verse."), "{everything}");
    assert!(everything.contains("marigold"), "the conversation is kept");
    let view = view_of(&world, session).await.expect("it is there");
    assert_eq!(view["restarts"], 0, "nothing went wrong");
    let file = Path::new(view["worktree"].as_str().expect("a folder")).join(".claude/CLAUDE.md");
    let text = std::fs::read_to_string(file).expect("its instructions");
    assert_eq!(text.matches("semo:persona start").count(), 1, "{text}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_memory_is_used_up_ready_sessions_go_and_new_ones_wait_but_work_goes_on() {
    let world = World::start_with(|settings| {
        settings.limits.warm_max = 1;
        settings.limits.memory_mb_max = Some(512);
        settings
            .claude
            .args
            .extend(["--allowedTools", "Bash"].map(str::to_owned));
    })
    .await;
    let warm = warm_session(&world, "FE").await;
    // What a session's commands take counts as its own: this one keeps half a gigabyte for a while.
    let hungry = world
        .send(
            "BE",
            "Slowly. scn=bash:(head+-c+600M+/dev/zero;sleep+300)|tail+-n1",
        )
        .await;
    wait_until("the ready one has gone", START_WAIT, || async {
        view_of(&world, warm).await.is_none()
    })
    .await;
    problem_of(&world.core, "memory").await;
    let waits = world.send("QA", "Say hello.").await;
    wait_until("the next one waits for memory", START_WAIT, || async {
        let state = world.state().await;
        state["commands"][0]["reason"].to_string().contains("memory")
            && state["pool"]["memory_limit_mb"] == 512
            && state["pool"]["memory_mb"].as_u64().is_some_and(|mb| mb >= 600)
    })
    .await;
    assert!(
        sessions(&world.state().await)
            .iter()
            .any(|session| session["state"]["state"] == "working"),
        "what works is left alone"
    );
    world
        .call("cancel_command", json!({ "command_id": hungry }))
        .await;
    assert_eq!(world.result(hungry).await.0.state, CommandState::Cancelled);
    assert_eq!(world.result(waits).await.0.state, CommandState::Succeeded);
    world.stop().await;
}

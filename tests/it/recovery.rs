//! What a core left behind is taken up by the next one: the real `claude` in real holders, through ends of every kind.

use cli::machine::{Core, StopHow};
use domain::{CommandId, SessionId};
use harness::claude::ClaudeHome;
use harness::guard::EndsLeft;
use harness::processes::{kill, of_folder};
use harness::remote::Remote;
use harness::stub::Stub;
use harness::wait::{LONG, wait_for, wait_until};
use harness::world::{World, result_of};
use serde_json::{Value, json};
use supabase::{CommandState, NewCommand, ResultRow};
use uuid::Uuid;

use super::pool::{START_WAIT, view_of, warm_session};

/// A turn that is in its midst when the core ends and when it is there again: until its gate is opened.
const SLOW: &str = "Slowly, please.";

fn said(result: &ResultRow) -> &str {
    let output = result.output.as_ref();
    output
        .and_then(|output| output["final_message"].as_str())
        .unwrap_or_default()
}

fn session_of(result: &ResultRow) -> String {
    let output = result.output.as_ref();
    let id = output.and_then(|output| output["session_id"].as_str());
    id.unwrap_or_default().to_owned()
}

/// How often the model was asked in a conversation that holds this prompt.
fn asked(stub: &Stub, prompt: &str) -> usize {
    stub.turns()
        .iter()
        .filter(|turn| turn.body.to_string().contains(prompt))
        .count()
}

/// Waits until the model is at work on this prompt.
async fn at_work(stub: &Stub, prompt: &str) {
    wait_until("the model is asked", LONG, || async { asked(stub, prompt) > 0 }).await;
}

fn of_command(state: &Value, id: domain::CommandId) -> Option<Value> {
    let id = id.to_string();
    let commands = state["commands"].as_array()?;
    commands
        .iter()
        .find(|command| command["id"] == id.as_str())
        .cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_goes_on_while_the_core_is_away_and_its_result_is_told_by_the_next_one() {
    let world = World::start().await;
    let session = world.session("FE").await;
    let gate = world.stub.hold(SLOW);
    let id = world
        .enqueue("send_prompt", json!({ "prompt": SLOW }), None, Some(session))
        .await;
    at_work(&world.stub, SLOW).await;

    let world = world.restarted(StopHow::Leave).await;
    let state = world.state().await;
    let ours = state["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|its| its["id"] == session.to_string());
    assert_eq!(ours.map(|its| &its["taken_up"]), Some(&json!(true)), "{state}");
    assert_eq!(state["launch"]["taken_up"], 1, "{state}");
    let followed = wait_for("the command is shown as followed", LONG, || async {
        of_command(&world.state().await, id).filter(|command| command["recovered"] == "followed")
    })
    .await;
    assert_eq!(followed["session_id"], session.to_string());
    gate.open();

    let (row, result) = world.result(id).await;
    assert_eq!(row.state, CommandState::Succeeded, "{result:?}");
    assert_eq!(result.outcome.as_deref(), Some("done"), "{result:?}");
    assert!(
        said(&result).trim_end().ends_with("[SEMO:DONE]"),
        "{}",
        said(&result)
    );
    assert_eq!(session_of(&result), session.to_string());
    assert_eq!(asked(&world.stub, SLOW), 1, "one prompt at the model");

    // The session is as good as before.
    let next = world
        .enqueue(
            "send_prompt",
            json!({ "prompt": "And now this. scn=text" }),
            None,
            Some(session),
        )
        .await;
    let (row, result) = world.result(next).await;
    assert_eq!(row.state, CommandState::Succeeded, "{result:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_that_finishes_lets_the_turn_end_and_takes_nothing_new() {
    let world = World::start().await;
    let session = world.session("FE").await;
    let running = world
        .enqueue(
            "send_prompt",
            json!({ "prompt": "To the end. scn=slow:24" }),
            None,
            Some(session),
        )
        .await;
    at_work(&world.stub, "To the end.").await;
    let world = world.restarted(StopHow::Finish).await;
    let (row, result) = world.result(running).await;
    assert_eq!(row.state, CommandState::Succeeded, "{result:?}");
    assert_eq!(asked(&world.stub, "To the end."), 1);
    let state = world.state().await;
    assert_eq!(
        state["sessions"],
        json!([]),
        "a core that finishes leaves no session"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_asks_is_asked_anew_behind_a_restart_and_no_dead_question_stays() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter("debug,hyper=warn,tokio_postgres=warn,hub=info,alacritty_terminal=off,vte=off")
        .with_writer(std::io::stderr)
        .try_init();
    let world = World::start().await;
    let prompt = world.send("FE", "Make a note. scn=bash:touch+note.txt").await;
    let before = ask_of(&world).await;
    let world = world.restarted(StopHow::Leave).await;
    let after = ask_of(&world).await;
    assert_ne!(before["id"], after["id"]);
    let ids = wait_for("one pending ask in the office", LONG, || async {
        let asks = world.rest.asks(world.office.id, 20).await.ok()?;
        let pending: Vec<String> = asks
            .rows
            .iter()
            .filter(|row| row.state == supabase::AskState::Pending)
            .map(|row| row.id.to_string())
            .collect();
        (pending.len() == 1).then_some(pending)
    })
    .await;
    assert_eq!(json!(ids), json!([after["id"]]));
    let (status, answer) = world
        .call(
            "answer_ask",
            json!({ "ask_id": after["id"], "answer": { "say": "allow" } }),
        )
        .await;
    assert_eq!(status, 200, "{answer}");
    let (row, result) = world.result(prompt).await;
    assert_eq!(row.state, CommandState::Succeeded, "{result:?}");
    world.stop().await;
}

async fn ask_of(world: &World) -> Value {
    wait_for("an ask in the window", LONG, || async {
        world.state().await["asks"].as_array()?.first().cloned()
    })
    .await
}

/// An office whose hub is elsewhere, and one workstation of it that comes and goes.
struct Team {
    remote: Remote,
    stub: Stub,
    station: cli::world::World,
    core: Option<Core>,
    // Before the folders go: what a failed story leaves is ended.
    guard: EndsLeft,
    _home: ClaudeHome,
    _folders: [tempfile::TempDir; 2],
}

impl Team {
    async fn start() -> Team {
        let folder = || tempfile::tempdir().expect("a folder");
        let (office_dir, dir, home) = (folder(), folder(), ClaudeHome::new());
        let remote = Remote::start(office_dir.path(), 0).await;
        let stub = Stub::start().await.expect("the stub");
        let station = remote.workstation(dir.path(), &home, &stub.url()).await;
        let core = Core::start(&station).await.expect("a workstation");
        let guard = EndsLeft::of_core(&station.paths.holders(), home.path(), core.lever());
        Team {
            remote,
            stub,
            station,
            core: Some(core),
            guard,
            _home: home,
            _folders: [office_dir, dir],
        }
    }

    async fn leave(&mut self) {
        self.core.take().expect("a core").stop(StopHow::Leave).await;
    }

    async fn come_back(&mut self) {
        let core = Core::start(&self.station).await.expect("the workstation again");
        self.guard.core_is(core.lever());
        self.core = Some(core);
    }

    /// Kills what holds its sessions.
    fn kill_holders(&self) -> usize {
        let found = of_folder(&self.station.paths.holders());
        let holders = found
            .iter()
            .filter(|process| process.line.contains("semo-holder"));
        holders.map(|holder| kill(holder.pid)).count()
    }

    async fn enqueue(&self, kind: &str, args: Value, session: Option<SessionId>) -> CommandId {
        let command = NewCommand {
            office: self.remote.office.id,
            kind: kind.to_owned(),
            args,
            key: Uuid::new_v4().to_string(),
            agent: Some(self.remote.agent.id),
            session,
        };
        self.remote
            .rest
            .enqueue_command(&command)
            .await
            .expect("taken")
            .id
    }

    async fn prompt(&self, prompt: &str, session: SessionId) -> CommandId {
        self.enqueue("send_prompt", json!({ "prompt": prompt }), Some(session))
            .await
    }

    async fn session(&self) -> SessionId {
        let id = self.enqueue("create_session", json!({}), None).await;
        let (_, result) = result_of(&self.remote.rest, id).await;
        session_of(&result)
            .parse()
            .unwrap_or_else(|_| panic!("a session: {result:?}"))
    }

    async fn stop(mut self) {
        if let Some(core) = self.core.take() {
            core.stop(StopHow::Now).await;
        }
        assert!(
            self.guard.left().is_empty(),
            "left behind: {:?}",
            self.guard.left()
        );
        self.stub.stop().await;
        self.remote.hub.stop().await.expect("the hub stops");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_wished_while_the_core_was_away_is_done_when_it_comes_back() {
    let mut team = Team::start().await;
    let session = team.session().await;
    let long = team.prompt("For ever. scn=slow:2400", session).await;
    at_work(&team.stub, "For ever.").await;
    team.leave().await;
    let rest = team.remote.rest.clone();
    rest.cancel_command(long).await.expect("the wish is taken");
    let next = team.prompt("What comes then. scn=text", session).await;
    let end = team
        .enqueue("terminate", json!({ "session": session }), Some(session))
        .await;

    team.come_back().await;
    let (row, result) = result_of(&rest, long).await;
    assert_eq!(row.state, CommandState::Cancelled, "{result:?}");
    assert_eq!(asked(&team.stub, "For ever."), 1, "it was not begun again");
    // The end of the session goes before the prompt: nobody waits behind what he wants to be over.
    let (row, result) = result_of(&rest, end).await;
    assert_eq!(row.state, CommandState::Succeeded, "{result:?}");
    let (row, result) = result_of(&rest, next).await;
    assert!(row.state.is_final(), "{result:?}");
    assert!(asked(&team.stub, "What comes then.") <= 1);
    team.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_for_a_session_that_came_while_the_core_was_away_find_it_again() {
    let mut team = Team::start().await;
    let session = team.session().await;
    let first = team.prompt("The first one. scn=slow:30", session).await;
    at_work(&team.stub, "The first one.").await;
    team.leave().await;
    let second = team.prompt("The second one. scn=text", session).await;
    team.come_back().await;
    for (id, prompt) in [(first, "The first one."), (second, "The second one.")] {
        let (row, result) = result_of(&team.remote.rest, id).await;
        assert_eq!(row.state, CommandState::Succeeded, "{prompt} {result:?}");
        assert_eq!(session_of(&result), session.to_string(), "{prompt}");
    }
    let seen = team.stub.turns();
    let place = |prompt: &str| {
        seen.iter()
            .position(|turn| turn.body.to_string().contains(prompt))
    };
    assert!(
        place("The first one.") < place("The second one."),
        "in their order"
    );
    team.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_whose_holder_was_killed_while_the_core_was_away_goes_on_with_a_new_program() {
    let mut team = Team::start().await;
    let session = team.session().await;
    let first = team.prompt("Keep this in mind. scn=text", session).await;
    let (row, result) = result_of(&team.remote.rest, first).await;
    assert_eq!(row.state, CommandState::Succeeded, "{result:?}");
    team.leave().await;
    assert_eq!(team.kill_holders(), 1);
    team.come_back().await;
    let second = team.prompt("What was it? scn=text", session).await;
    let (row, result) = result_of(&team.remote.rest, second).await;
    assert_eq!(row.state, CommandState::Succeeded, "{result:?}");
    assert_eq!(session_of(&result), session.to_string());
    let knows_both = |body: &str| body.contains("Keep this in mind.") && body.contains("What was it?");
    assert!(
        team.stub
            .turns()
            .iter()
            .any(|turn| knows_both(&turn.body.to_string())),
        "it is the same conversation"
    );
    team.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_stood_ready_is_not_called_one_that_went_on() {
    let world = World::start_with(|settings| settings.limits.warm_max = 1).await;
    let warm = warm_session(&world, "FE").await;
    let world = world.restarted(StopHow::Leave).await;
    let state = world.state().await;
    assert_eq!(state["launch"]["taken_up"], 0, "{state}");
    wait_until("the session that stood ready is gone", START_WAIT, || async {
        let Some(view) = view_of(&world, warm).await else {
            return true;
        };
        assert_eq!(view["taken_up"], false, "{view}");
        let words = view["asks"].as_str().unwrap_or_default();
        assert!(!words.contains("143"), "nothing failed: {words}");
        false
    })
    .await;
    world.stop().await;
}

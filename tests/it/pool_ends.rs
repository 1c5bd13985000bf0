//! Sessions whose program ends, is ended by hand, or is used while it is looked at: nothing that works is ended, nothing
//! that a person has ended comes back, and what was not sent finds another session.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use domain::{CommandId, SessionId};
use harness::wait::{wait_for, wait_until};
use harness::world::{World, problem_of};
use provider::claude::read_status;
use serde_json::{Value, json};
use supabase::CommandState;

use super::pool::{
    START_WAIT, commit, done_in, has_restarted, kill, program_of, sessions, view_of, warm_session,
    worktree_of,
};

/// The scripted agent behind a door that stories open and close: files of these names in the folder tell it.
struct Door {
    folder: tempfile::TempDir,
}

impl Door {
    fn new() -> Door {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().display();
        let agent = env!("CARGO_BIN_EXE_scripted-agent");
        let text = format!(
            "#!/bin/sh\n\
             wait_for() {{ while [ -e '{at}'/\"$1\" ]; do sleep 0.05; done; }}\n\
             case \" $* \" in\n\
             *\" --resume \"*)\n\
               wait_for hold-resume\n\
               if [ -e '{at}/no-resume' ]; then echo 'the door is closed'; exit 1; fi ;;\n\
             *\" --session-id \"*)\n\
               echo start >> '{at}/starts'\n\
               wait_for hold-start\n\
               if rm '{at}/no-start' 2>/dev/null; then echo 'not this time'; exit 3; fi\n\
               if [ -e '{at}/never-start' ]; then echo 'never'; exit 3; fi ;;\n\
             esac\n\
             exec '{agent}' \"$@\"\n"
        );
        let door = Door { folder };
        std::fs::write(door.program(), text).expect("a script");
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(door.program(), executable).expect("permissions");
        door
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("agent")
    }

    fn set(&self, name: &str) {
        std::fs::write(self.folder.path().join(name), "").expect("a file");
    }

    fn clear(&self, name: &str) {
        std::fs::remove_file(self.folder.path().join(name)).expect("the file was there");
    }

    fn starts(&self) -> usize {
        let told = std::fs::read_to_string(self.folder.path().join("starts")).unwrap_or_default();
        told.lines().count()
    }

    async fn world(&self, warm_max: u32) -> World {
        World::start_with(|settings| {
            settings.limits.warm_max = warm_max;
            settings.claude.program = Some(self.program());
        })
        .await
    }
}

async fn keys(world: &World, session: SessionId, args: Value) {
    let mut args = args;
    args["session"] = json!(session);
    let id = world.enqueue("send_keys", args, None, None).await;
    let (row, result) = world.result(id).await;
    assert_eq!(row.state, CommandState::Succeeded, "{result:?}");
}

async fn screen_of(world: &World, session: SessionId) -> String {
    let id = world
        .enqueue("get_output", json!({ "session": session }), None, None)
        .await;
    let (_, result) = world.result(id).await;
    result
        .output
        .map(|output| output["screen"].to_string())
        .unwrap_or_default()
}

/// Types a line as a person does: Enter only when it stands there.
async fn type_line(world: &World, session: SessionId, line: &str) {
    keys(world, session, json!({ "text": line })).await;
    wait_until(
        &format!("{line} stands in the input line"),
        START_WAIT,
        || async { screen_of(world, session).await.contains(line) },
    )
    .await;
    keys(world, session, json!({ "keys": ["enter"] })).await;
}

/// A prompt for this very session, whatever it is busy with.
async fn send_in(world: &World, session: SessionId, prompt: &str) -> CommandId {
    let args = json!({ "prompt": prompt, "session": session });
    world.enqueue("send_prompt", args, None, None).await
}

async fn is_gone(world: &World, session: SessionId) {
    wait_until("the session is gone", START_WAIT, || async {
        view_of(world, session).await.is_none()
    })
    .await;
}

/// Waits until the command has a session that is not ready for it yet, and returns that session.
async fn waits_for_start(world: &World, id: CommandId) -> SessionId {
    wait_for("the command has a session", START_WAIT, || async {
        let state = world.state().await;
        let all = state["commands"].as_array()?;
        let view = all.iter().find(|view| view["id"] == json!(id))?;
        let starting = view["status"] == "claimed";
        starting.then(|| view["session_id"].as_str()?.parse().ok())?
    })
    .await
}

fn class_of(result: &supabase::ResultRow) -> String {
    let error = result.error.clone().unwrap_or_default();
    error["class"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_somebody_begins_while_its_session_is_looked_at_is_not_ended() {
    let door = Door::new();
    let world = door.world(1).await;
    let warm = warm_session(&world, "FE").await;
    let worktree = worktree_of(&world, warm).await;
    let before = program_of(warm);
    assert!(before.is_some());
    // The look brings its worktree up to the repository, for which it waits as long as somebody else changes that.
    commit(&world.repository(), "new.txt", "new");
    let lock = std::fs::File::options()
        .create(true)
        .append(true)
        .open(world.repository().join(".git/semo.lock"))
        .expect("the lock of the repository");
    lock.lock().expect("it is taken");
    let id = world.send("FE", "For the office.").await;
    assert_eq!(waits_for_start(&world, id).await, warm);

    type_line(&world, warm, "By hand. do=slow:4000").await;
    wait_until("the typed turn runs", START_WAIT, || async {
        let view = view_of(&world, warm).await;
        view.is_some_and(|view| view["state"]["state"] == "working")
    })
    .await;
    std::fs::write(std::path::Path::new(&worktree).join("by-hand.txt"), "x").expect("a file");
    lock.unlock().expect("the lock is given back");

    assert_eq!(done_in(&world, id).await, warm, "it waited for the typed turn");
    assert_eq!(program_of(warm), before, "the program was left alone");
    let shown = screen_of(&world, warm).await;
    assert!(
        shown.contains("By hand.") && shown.contains("For the office."),
        "{shown}"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_a_person_has_told_to_exit_stays_away() {
    let world = World::start().await;
    let id = world.send("FE", "Say hello.").await;
    let session = done_in(&world, id).await;
    type_line(&world, session, "/exit").await;
    is_gone(&world, session).await;
    let id = world.send("FE", "Say hello again.").await;
    assert_ne!(done_in(&world, id).await, session);
    assert!(program_of(session).is_none(), "it was not started again");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_session_that_a_person_ends_is_not_made_anew_at_once() {
    let door = Door::new();
    let world = door.world(1).await;
    let warm = warm_session(&world, "FE").await;
    // Not by a line: while that is entered it is a session in which somebody works, and another one may be made ready.
    keys(&world, warm, json!({ "keys": ["ctrl_c", "ctrl_c"] })).await;
    is_gone(&world, warm).await;
    let id = world.send("QA", "Slowly. do=slow:3000").await;
    done_in(&world, id).await;
    let state = world.state().await;
    assert_eq!(door.starts(), 2, "the ready one and the one that worked: {state}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_session_in_which_a_key_was_pressed_is_not_given_out_as_a_new_one() {
    let door = Door::new();
    let world = door.world(1).await;
    let warm = warm_session(&world, "FE").await;
    keys(&world, warm, json!({ "keys": ["up"] })).await;
    let id = world.send("FE", "Say hello.").await;
    assert_ne!(done_in(&world, id).await, warm);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_ready_session_that_dies_gets_another_one() {
    let door = Door::new();
    door.set("hold-start");
    let world = door.world(1).await;
    wait_until("a session is made ready", START_WAIT, || async {
        sessions(&world.state().await).len() == 1 && door.starts() == 1
    })
    .await;
    let id = world.send("FE", "Say hello.").await;
    let warm = waits_for_start(&world, id).await;
    door.set("no-start");
    door.clear("hold-start");
    assert_ne!(done_in(&world, id).await, warm);
    assert_eq!(door.starts(), 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_that_cannot_be_taken_up_again_is_told_with_the_programs_words() {
    let door = Door::new();
    let world = door.world(0).await;
    let id = world.send("FE", "Say hello.").await;
    let session = done_in(&world, id).await;
    door.set("no-resume");
    kill(session);
    let problem = problem_of(&world.core, "session_lost").await;
    assert!(
        problem["message"].to_string().contains("the door is closed"),
        "{problem}"
    );
    is_gone(&world, session).await;
    let id = world.send("FE", "Say hello.").await;
    assert_ne!(done_in(&world, id).await, session);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_session_is_started_again_the_prompts_that_name_it_are_held() {
    let door = Door::new();
    let world = door.world(0).await;
    let id = world.send("FE", "Say hello.").await;
    let session = done_in(&world, id).await;
    door.set("hold-resume");
    kill(session);
    wait_until("it is being started again", START_WAIT, || async {
        let view = view_of(&world, session).await;
        view.is_some_and(|view| view["restarts"] == 1 && view["state"]["state"] == "starting")
    })
    .await;
    let named = world
        .enqueue(
            "send_prompt",
            json!({ "prompt": "And now?", "session": session }),
            None,
            None,
        )
        .await;
    assert_eq!(waits_for_start(&world, named).await, session);
    door.clear("hold-resume");
    assert_eq!(done_in(&world, named).await, session);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_agent_goes_on_in_a_session_that_is_healthy() {
    let door = Door::new();
    let world = door.world(0).await;
    let id = world.send("FE", "Say hello.").await;
    let healthy = done_in(&world, id).await;
    door.set("hold-turn");
    let flag = door.folder.path().join("hold-turn");
    let prompt = format!("Wait. do=tool:while+test+-e+{};do+sleep+0.1;done", flag.display());
    let works = world.send("FE", &prompt).await;
    wait_until("it works", START_WAIT, || async {
        let view = view_of(&world, healthy).await;
        view.is_some_and(|view| view["state"]["state"] == "working")
    })
    .await;
    door.set("never-start");
    for _ in 0..3 {
        let id = world.send("FE", "Somewhere else.").await;
        let (row, result) = world.result(id).await;
        assert_eq!(row.state, CommandState::Failed, "{result:?}");
        assert_eq!(class_of(&result), "provider_exit");
        let words = result.error.expect("an error")["message"].to_string();
        assert!(words.contains("never"), "the program's last words: {words}");
    }
    problem_of(&world.core, "agent_paused").await;
    door.clear("hold-turn");
    assert_eq!(done_in(&world, works).await, healthy);
    let id = world.send("FE", "Still there?").await;
    assert_eq!(done_in(&world, id).await, healthy);
    world.stop().await;
}

/// The conversation that its program tells of.
fn conversation_of(world: &World, session: SessionId) -> Option<String> {
    let pid = u32::try_from(program_of(session)?.as_raw_nonzero().get()).ok()?;
    Some(read_status(&world.config_dir(), pid)?.session_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_that_was_cleared_is_not_brought_back_by_a_restart() {
    let world = World::start().await;
    let last = || world.stub.turns().last().expect("a turn").user_texts().join("\n");
    let id = world.send("FE", "Remember the word marigold.").await;
    let session = done_in(&world, id).await;
    type_line(&world, session, "/clear").await;
    wait_until("it is cleared", START_WAIT, || async {
        !screen_of(&world, session).await.contains("marigold")
    })
    .await;
    let id = send_in(&world, session, "Remember the word tulip.").await;
    assert_eq!(done_in(&world, id).await, session);
    kill(session);
    has_restarted(&world, session, 1).await;
    let id = send_in(&world, session, "Which word was it?").await;
    assert_eq!(done_in(&world, id).await, session);
    let everything = last();
    assert!(everything.contains("tulip"), "{everything}");
    assert!(!everything.contains("marigold"), "{everything}");

    // Nothing was said since: there is nothing to take up, and the old one stays left.
    let tulips = conversation_of(&world, session);
    type_line(&world, session, "/clear").await;
    wait_until("it is cleared again", START_WAIT, || async {
        !screen_of(&world, session).await.contains("tulip")
    })
    .await;
    // The screen is empty before the program has told anybody of the conversation that it begins.
    wait_until("another conversation is told", START_WAIT, || async {
        conversation_of(&world, session) != tulips
    })
    .await;
    kill(session);
    has_restarted(&world, session, 2).await;
    let id = send_in(&world, session, "And which one is it now?").await;
    assert_eq!(done_in(&world, id).await, session);
    let everything = last();
    assert!(
        !everything.contains("tulip") && !everything.contains("marigold"),
        "{everything}"
    );
    world.stop().await;
}

//! The story of the product: a command inserted over REST becomes work of the real `claude` program in a worktree,
//! and a result that says truthfully what came of it.

use harness::stub::Reply;
use harness::wait::{LONG, wait_until};
use harness::world::World;
use serde_json::json;
use supabase::{CommandState, ResultRow};

fn message(result: &ResultRow) -> &str {
    result
        .output
        .as_ref()
        .and_then(|output| output["final_message"].as_str())
        .unwrap_or_default()
}

fn error(result: &ResultRow) -> String {
    result
        .error
        .as_ref()
        .map(|error| error["message"].as_str().unwrap_or_default().to_owned())
        .unwrap_or_default()
}

fn tiers_of(result: &ResultRow) -> Vec<String> {
    let claims = result
        .evidence
        .as_ref()
        .and_then(|evidence| evidence["claims"].as_array().cloned())
        .unwrap_or_default();
    claims
        .iter()
        .filter_map(|claim| claim["tier"].as_str().map(str::to_owned))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_over_rest_becomes_work_in_a_worktree_and_a_result_with_evidence() {
    let allowed = ["--allowedTools", "Bash(touch *)"].map(str::to_owned);
    let world = World::start_with(|settings| settings.claude.args.extend(allowed)).await;
    // The model asks for one tool, then says that it is done.
    let id = world
        .send("FE", "Make a note for the team. scn=bash:touch+note.txt")
        .await;
    let (row, result) = world.result(id).await;
    assert_eq!(row.state, CommandState::Succeeded, "{result:?}");
    assert_eq!(result.outcome.as_deref(), Some("done"), "{result:?}");
    assert!(
        message(&result).trim_end().ends_with("[SEMO:DONE]"),
        "{}",
        message(&result)
    );
    let tiers = tiers_of(&result);
    for tier in ["claimed", "observed", "verified"] {
        assert!(
            tiers.iter().any(|its| its == tier),
            "a claim of tier {tier} in {:?}",
            result.evidence
        );
    }
    assert!(
        result
            .timings
            .as_ref()
            .is_some_and(|timings| timings["ended_at"].is_number()),
        "{:?}",
        result.timings
    );

    let turns = world.stub.turns();
    let first = turns.first().expect("a request of the turn reached the model");
    let everything = first.user_texts().join("\n");
    assert!(
        everything.contains("You are Mina, FE of this office"),
        "the persona is in what the model got"
    );
    assert!(
        first
            .prompt()
            .unwrap_or_default()
            .contains("Make a note for the team."),
        "{}",
        first.prompt().unwrap_or_default()
    );
    assert!(
        !everything.contains("[SEMO:DONE]"),
        "the instruction never contains the finished marker"
    );

    // It worked in a worktree of its own: the note is there, and the user's repository is as it was.
    let state = world.state().await;
    let worktree = state["sessions"][0]["worktree"]
        .as_str()
        .expect("a worktree")
        .to_owned();
    assert!(
        std::path::Path::new(&worktree).join("note.txt").exists(),
        "the tool ran in the worktree {worktree}"
    );
    assert!(!world.repository().join("note.txt").exists());
    let status = git(&worktree, &["status", "--porcelain"]);
    assert_eq!(
        status.trim(),
        "?? note.txt",
        "our persona file never shows up in the user's changes"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_the_agent_asks_for_is_shown_as_waiting_and_answered_at_the_keyboard() {
    let world = World::start().await;
    let id = world.send("FE", "Make a note. scn=bash:touch+note.txt").await;
    wait_until("the session waits for a person", LONG, || async {
        let state = world.state().await;
        state["sessions"][0]["state"]["ask"] == "permission" && state["commands"][0]["reason"].is_string()
    })
    .await;
    let session = world.state().await["sessions"][0]["id"].clone();
    let keys = world
        .enqueue("send_keys", json!({"session": session, "text": "1"}), None, None)
        .await;
    assert_eq!(world.result(keys).await.1.outcome.as_deref(), Some("ok"));
    let (_, result) = world.result(id).await;
    assert_eq!(result.outcome.as_deref(), Some("done"), "{result:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_message_without_the_marker_is_unconfirmed_and_never_done() {
    let world = World::start().await;
    let id = world.send("BE", "Stop without the mark. scn=nomark").await;
    let (row, result) = world.result(id).await;
    assert_eq!(row.state, CommandState::Unconfirmed);
    assert_eq!(result.outcome.as_deref(), Some("unconfirmed"));
    assert!(
        error(&result).contains("without the completion marker"),
        "{}",
        error(&result)
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_model_is_a_failure_with_its_class() {
    let world = World::start().await;
    let id = world.send("FE", "Anything. scn=err400").await;
    let (row, result) = world.result(id).await;
    assert_eq!(row.state, CommandState::Failed);
    assert_eq!(
        result.error.as_ref().map(|error| error["class"].clone()),
        Some(json!("billing")),
        "{result:?}"
    );
    assert!(error(&result).contains("Credit balance"), "{}", error(&result));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_cancelled_in_mid_turn_is_stopped_and_says_so() {
    let world = World::start().await;
    let id = world.send("FE", "Take your time. scn=slow:200").await;
    world
        .stub
        .turn_where("the turn has begun", LONG, |request| {
            request.prompt().unwrap_or_default().contains("Take your time")
        })
        .await;
    world.rest.cancel_command(id).await.expect("the cancel is taken");
    let (row, result) = world.result(id).await;
    assert_eq!(row.state, CommandState::Cancelled, "{result:?}");
    // The same session takes the next prompt, and nothing of the old one is in it.
    let next = world.send("FE", "And now this. scn=text").await;
    let (_, result) = world.result(next).await;
    assert_eq!(result.outcome.as_deref(), Some("done"), "{result:?}");
    let turns = world.stub.turns();
    let last = turns.last().expect("a turn").prompt().unwrap_or_default();
    assert!(
        last.contains("And now this.") && !last.contains("Take your time"),
        "{last}"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_korean_prompt_of_two_lines_arrives_as_it_was_written() {
    let world = World::start().await;
    let prompt = "첫 줄: 로그인 화면을 고쳐 주세요 🎉\n둘째 줄: 테스트도 추가해 주세요";
    let id = world.send("FE", prompt).await;
    let (_, result) = world.result(id).await;
    assert_eq!(result.outcome.as_deref(), Some("done"), "{result:?}");
    let turns = world.stub.turns();
    let got = turns.first().expect("a turn").prompt().unwrap_or_default();
    assert!(got.contains(prompt), "{got}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_prompt_that_is_accepted_arrives_whole() {
    let world = World::start().await;
    let line = "Read this line and keep it in mind, please.\n";
    let mut prompt = line.repeat(domain::command::PROMPT_BYTES_MAX / line.len());
    prompt.push_str(&"x".repeat(domain::command::PROMPT_BYTES_MAX - prompt.len()));
    let id = world.send("FE", &prompt).await;
    let (_, result) = world.result(id).await;
    assert_eq!(result.outcome.as_deref(), Some("done"), "{:?}", result.error);
    let turns = world.stub.turns();
    let got = turns.first().expect("a turn").prompt().unwrap_or_default();
    assert!(
        got.contains(&prompt),
        "{} of {} bytes arrived",
        got.len(),
        prompt.len()
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_starts_with_an_exclamation_mark_is_a_prompt_and_no_shell_command() {
    let world = World::start().await;
    let id = world.send("FE", "!touch owned.txt").await;
    let (_, result) = world.result(id).await;
    assert_eq!(result.outcome.as_deref(), Some("done"), "{result:?}");
    let turns = world.stub.turns();
    assert!(
        turns
            .first()
            .expect("it reached the model")
            .prompt()
            .unwrap_or_default()
            .contains("!touch owned.txt")
    );
    let state = world.state().await;
    let worktree = state["sessions"][0]["worktree"]
        .as_str()
        .expect("a worktree")
        .to_owned();
    assert!(
        !std::path::Path::new(&worktree).join("owned.txt").exists(),
        "nothing was run by a shell"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_parse_fails_with_a_reason_and_the_client_goes_on() {
    let world = World::start().await;
    let unknown = world.enqueue("reboot", json!({}), None, None).await;
    let malformed = world
        .enqueue("send_prompt", json!({"promt": 7}), Some(world.agent("QA")), None)
        .await;
    let foreign = world
        .enqueue("get_output", json!({"session": uuid::Uuid::nil()}), None, None)
        .await;
    let good = world.send("QA", "Say hello.").await;
    for (id, reason) in [
        (unknown, "unknown command kind"),
        (malformed, "promt"),
        (foreign, "there is no session"),
    ] {
        let (row, result) = world.result(id).await;
        assert_eq!(row.state, CommandState::Failed);
        assert!(error(&result).contains(reason), "{}", error(&result));
    }
    let (_, result) = world.result(good).await;
    assert_eq!(result.outcome.as_deref(), Some("done"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_made_listed_typed_into_read_interrupted_and_ended_by_commands() {
    let world = World::start().await;
    let session = world.session("QA").await;
    let list = world.enqueue("list_sessions", json!({}), None, None).await;
    let (_, listed) = world.result(list).await;
    assert_eq!(
        listed.output.expect("a list")["sessions"][0]["id"],
        json!(session)
    );

    let keys = world
        .enqueue(
            "send_keys",
            json!({"session": session, "text": "half a thought"}),
            None,
            None,
        )
        .await;
    assert_eq!(world.result(keys).await.1.outcome.as_deref(), Some("ok"));
    wait_until("the typed text is on the screen", LONG, || async {
        let id = world
            .enqueue("get_output", json!({"session": session}), None, None)
            .await;
        world
            .result(id)
            .await
            .1
            .output
            .is_some_and(|output| output["screen"].to_string().contains("half a thought"))
    })
    .await;
    // A prompt does not mix with what somebody left in the input line.
    let id = world
        .enqueue(
            "send_prompt",
            json!({"prompt": "A whole one.", "session": session}),
            None,
            Some(session),
        )
        .await;
    assert_eq!(world.result(id).await.1.outcome.as_deref(), Some("done"));
    let turns = world.stub.turns();
    let prompt = turns.last().expect("a turn").prompt().unwrap_or_default();
    assert!(
        prompt.contains("A whole one.") && !prompt.contains("half a thought"),
        "{prompt}"
    );

    let slow = world
        .enqueue(
            "send_prompt",
            json!({"prompt": "scn=slow:200", "session": session}),
            None,
            Some(session),
        )
        .await;
    world
        .stub
        .turn_where("the slow turn", LONG, |request| {
            request.prompt().unwrap_or_default().contains("slow:200")
        })
        .await;
    let cancel = world
        .enqueue("cancel", json!({"session": session}), None, None)
        .await;
    assert_eq!(world.result(slow).await.0.state, CommandState::Cancelled);
    let (_, cancelled) = world.result(cancel).await;
    assert_eq!(
        cancelled.output.expect("an output")["outcome"],
        json!("cancelled")
    );

    let end = world
        .enqueue("terminate", json!({"session": session}), None, None)
        .await;
    let (_, ended) = world.result(end).await;
    assert_eq!(ended.outcome.as_deref(), Some("ok"), "{ended:?}");
    assert_eq!(world.state().await["sessions"], json!([]));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_of_its_own_confirms_a_turn_and_a_foreign_one_does_not() {
    let world = World::start().await;
    let asked = async |prompt: &str| {
        let args = json!({"prompt": prompt, "marker": "code"});
        let agent = Some(world.agent("FE"));
        let id = world.enqueue("send_prompt", args, agent, None).await;
        world.result(id).await.1
    };
    let result = asked("With its code.").await;
    assert_eq!(result.outcome.as_deref(), Some("done"), "{result:?}");
    world.stub.reply_with(|request| {
        request
            .prompt()
            .unwrap_or_default()
            .contains("a foreign code")
            .then(|| Reply::text("All done.\n\n[SEMO:DONE 000000]"))
    });
    let result = asked("With a foreign code.").await;
    assert_eq!(result.outcome.as_deref(), Some("unconfirmed"), "{result:?}");
    world.stop().await;
}

fn git(dir: &str, args: &[&str]) -> String {
    let output = std::process::Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(args)
        .output()
        .expect("git runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

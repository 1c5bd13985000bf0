//! The real program in a holder of its own, left by one core and taken up by the next: whatever happened meanwhile, its
//! turn is told once and truly, and its prompt reaches the model once.

use std::time::Duration;

use domain::TurnId;
use domain::ask::AskAnswer;
use domain::evidence::Tier;
use domain::marker::Marker;
use domain::session::{Ask, SessionState};
use domain::turn::{FailureClass, TurnOutcome, TurnStage};
use harness::place::{LIMIT, deny};
use harness::processes::kill;
use harness::stub::{Gate, Reply};
use harness::wait::wait_until;
use serde_json::json;
use session::{LeftJudgement, LeftPlace, WhichTurn, judge_left};

use crate::claude_session::{Place, is_failed};

const SHELL: &[&str] = &["--allowedTools", "Bash(*)"];
/// What the model says at the end of a turn of [`commits`].
const SAID: &str = "It is committed.\n\n[SEMO:DONE]";

/// Begins a turn in which a commit is made; its agent says [`SAID`] when the gate is opened.
async fn commits(place: &Place) -> (TurnId, Gate) {
    let gate = Gate::default();
    let held = gate.clone();
    place.stub.reply_with(move |request| {
        if request.scenario.as_deref() != Some("commits") {
            return None;
        }
        if !request.tool_results().is_empty() {
            return Some(Reply::text(SAID).behind(&held));
        }
        let command = "git -c user.name=a -c user.email=a@b.c commit -q --allow-empty -m feat:x";
        let input = json!({ "command": command, "description": "Commit" });
        Some(Reply::tool("I will.", "Bash", input))
    });
    let turn = place.submit("scn=commits", Marker::Plain, LIMIT);
    place
        .stub
        .turn_where("the command's answer", LIMIT, |turn| {
            !turn.tool_results().is_empty()
        })
        .await;
    place.stage(TurnStage::Taken).await;
    (turn, gate)
}

/// Answers `edits` by a change of a file that is read before.
fn edits(place: &Place) {
    let file = place.worktree().join("x.txt");
    std::fs::write(&file, "before\n").unwrap();
    place.stub.reply_with(move |request| {
        if request.scenario.as_deref() != Some("edits") {
            return None;
        }
        Some(match request.tool_results().len() {
            0 => Reply::tool("I look.", "Read", json!({ "file_path": file })),
            1 => {
                let input = json!({ "file_path": file, "old_string": "before", "new_string": "after" });
                Reply::tool("I change it.", "Edit", input)
            }
            _ => Reply::text(SAID),
        })
    });
}

/// What the transcript has so far.
fn transcript(place: &Place) -> String {
    let (config, id) = (&place.spec.config_dir, place.spec.conversation);
    let path = provider::claude::transcript_path(config, &place.spec.worktree, id);
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Waits until the transcript has so many ends of turns.
async fn ends(place: &Place, number: usize) {
    wait_until("the end of the turn is on record", LIMIT, || {
        let there = transcript(place).matches("\"turn_duration\"").count() >= number;
        async move { there }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_was_left_in_its_middle_is_told_whole_by_the_next_core() {
    let mut place = Place::that_outlives(SHELL).await;
    place.does("scn=text").await;
    let (turn, gate) = commits(&place).await;
    place.leave().await;
    let pids = place.living();
    assert!(!pids.is_empty(), "the program goes on");
    place.stub.reply_with(|request| {
        let ours = request.scenario.as_deref() == Some("commits");
        ours.then(|| Reply::text("Never asked for again."))
    });

    place.take_up().await;
    place.working().await;
    gate.open();
    let report = place.done_saying(turn, SAID).await;
    let made = report.evidence.best("commit").unwrap();
    assert_eq!(
        (&made.value["subject"], made.tier),
        (&"feat:x".into(), Tier::Verified)
    );
    assert!(report.evidence.best("command").is_some(), "{report:?}");
    let timings = report.timings;
    assert!(timings.first_byte_at.unwrap() <= timings.submitted_at.unwrap());
    assert!(timings.submitted_at.unwrap() <= timings.acknowledged_at.unwrap());
    assert!(timings.first_byte_after_us.unwrap() > 0);
    assert_eq!(place.left(), None);

    place.does("And on. scn=text").await;
    let commits = place
        .prompts()
        .iter()
        .filter(|one| one.contains("commits"))
        .count();
    assert_eq!(commits, 1 + 1, "the prompt, and the tool's answer behind it");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_ended_while_nobody_looked_is_done_by_its_record() {
    let mut place = Place::that_outlives(SHELL).await;
    let (turn, gate) = commits(&place).await;
    place.leave().await;
    gate.open();
    ends(&place, 1).await;
    place.take_up().await;
    let report = place.done_saying(turn, SAID).await;
    assert_eq!(report.evidence.best("stopped").unwrap().source, "transcript");
    assert_eq!(report.evidence.best("commit").unwrap().value["subject"], "feat:x");
    place.does("scn=text").await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_that_was_open_is_asked_anew_and_its_answer_carries_the_turn_on() {
    let mut place = Place::that_outlives(&[]).await;
    let turn = place.submit("scn=bash:touch+made.txt", Marker::Plain, LIMIT);
    let before = place.asked().await;
    place.shows("Do you want to proceed?").await;
    place.leave().await;
    place.take_up().await;
    let asked = place.asked().await;
    assert_ne!(asked.id, before.id);
    assert_eq!((asked.kind, asked.turn), (Ask::Permission, Some(turn)));
    assert!(asked.text.contains("touch made.txt"), "{asked:?}");
    place
        .state("it waits for a person", |state| {
            matches!(state, SessionState::AwaitingPerson { turn: Some(_), .. })
        })
        .await;
    place.answered(&asked, AskAnswer::Allow).await;
    place.done(turn).await;
    assert!(place.worktree().join("made.txt").exists());
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_asked_for_is_written_or_not_by_the_answer_to_the_next_core() {
    for (prompt, shown, allowed) in [
        ("scn=write:y.txt", "Do you want to create y.txt?", true),
        ("scn=write:y.txt", "Do you want to create y.txt?", false),
        ("scn=edits", "Do you want to make this edit to x.txt?", true),
    ] {
        let mut place = Place::that_outlives(&[]).await;
        edits(&place);
        let turn = place.submit(prompt, Marker::Plain, LIMIT);
        place.asked().await;
        place.shows(shown).await;
        place.leave().await;
        place.take_up().await;
        let asked = place.asked().await;
        assert_eq!((asked.kind, asked.turn), (Ask::Permission, Some(turn)));
        assert!(asked.text.ends_with(".txt"), "{asked:?}");
        let answer = if allowed { AskAnswer::Allow } else { deny("") };
        place.answered(&asked, answer).await;
        let report = place.ended(turn).await;
        let done = report.outcome == TurnOutcome::Done;
        assert_eq!(done, allowed, "{report:?}\n{}", place.screen());
        let is_there = match prompt {
            "scn=edits" => std::fs::read_to_string(place.worktree().join("x.txt")).unwrap() == "after\n",
            _ => place.worktree().join("y.txt").exists(),
        };
        assert_eq!(is_there, allowed);
        place.end().await;
    }
}

/// A session that was left in the midst of [`commits`], or behind its end.
async fn left_with_a_commit(finished: bool) -> (Place, TurnId) {
    let mut place = Place::that_outlives(SHELL).await;
    let (turn, gate) = commits(&place).await;
    if finished {
        gate.open();
        ends(&place, 1).await;
    }
    place.leave().await;
    (place, turn)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_died_while_nobody_looked_leaves_its_turn_unconfirmed_and_a_finished_one_done() {
    for finished in [false, true] {
        let (mut place, turn) = left_with_a_commit(finished).await;
        let pid = place.session.terminal().pid();
        kill(pid);
        place.take_up().await;
        let report = place.ended(turn).await;
        let rule = report.evidence.rule.as_str();
        match finished {
            true => assert_eq!(report.outcome, TurnOutcome::Done, "{report:?}"),
            false => assert_eq!(rule, "exit-unheard", "{report:?}"),
        }
        assert_eq!(report.evidence.best("commit").unwrap().value["subject"], "feat:x");
        let exit = place.exited().await;
        assert!(!exit.wanted && exit.signal.is_some(), "{exit:?}");
        assert_eq!(place.living(), Vec::<u32>::new());
        place.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_whose_holder_is_gone_too_is_judged_by_what_is_on_record() {
    for finished in [false, true] {
        let (place, turn) = left_with_a_commit(finished).await;
        let left = place.left().unwrap();
        for process in harness::processes::of_folder(place.folder()) {
            kill(process.pid);
        }
        let ground = LeftPlace {
            config_dir: place.spec.config_dir.clone(),
            worktree: place.worktree(),
            conversation: place.spec.conversation,
            patterns: Default::default(),
            now: place.spec.clock.now(),
        };
        match judge_left(&left, &ground).await {
            LeftJudgement::Reported(report) if finished => {
                assert_eq!((report.turn, &report.outcome), (turn, &TurnOutcome::Done));
                assert_eq!(report.final_message.as_deref(), Some(SAID));
            }
            LeftJudgement::Unknown(evidence) if !finished => {
                assert_eq!(evidence.rule, "exit-unheard");
                assert_eq!(evidence.best("commit").unwrap().value["subject"], "feat:x");
                assert_eq!(evidence.best("last_words").unwrap().value, "I will.");
            }
            other => panic!("finished: {finished}, {other:?}"),
        }
        let mut begun = left.clone();
        begun.stage = TurnStage::Begun;
        assert_eq!(judge_left(&begun, &ground).await, LeftJudgement::NotStarted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_was_left_before_its_enter_reaches_the_model_once() {
    let mut place = Place::that_outlives(&[]).await;
    // The program is not up yet.
    let turn = place.submit("Only once. scn=text", Marker::Plain, LIMIT);
    place.leave().await;
    assert_eq!(place.left().unwrap().stage, TurnStage::Begun);
    assert!(place.stub.turns().is_empty());
    place.take_up().await;
    place.done(turn).await;
    assert_eq!(place.prompts(), ["Only once. scn=text"]);
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_was_left_between_enter_and_its_acknowledgement_reaches_the_model_once() {
    let mut place = Place::that_outlives(&[]).await;
    place.ready().await;
    // Only the transcript and the screen tell then, and they are looked at now and then.
    place.lose_hooks();
    let turn = place.submit("Only once. scn=think:3", Marker::Plain, LIMIT);
    place.stage(TurnStage::Entering).await;
    place.leave().await;
    assert_eq!(place.left().unwrap().stage, TurnStage::Entering);
    place.take_up().await;
    place.done(turn).await;
    assert_eq!(place.prompts(), ["Only once. scn=think:3"]);
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_is_passed_on_and_a_time_that_ran_out_meanwhile_counts() {
    let mut place = Place::that_outlives(&[]).await;
    let turn = place.submit("scn=slow:400", Marker::Plain, LIMIT);
    place.shows("slow:1").await;
    place.session.cancel(WhichTurn::Current).unwrap();
    place.leave().await;
    place.take_up().await;
    place.session.cancel(WhichTurn::Id(turn)).unwrap();
    place.cancelled(turn).await;
    let turn = place.submit("scn=slow:400", Marker::Plain, Duration::from_secs(3));
    place.stage(TurnStage::Taken).await;
    place.leave().await;
    let taken_at = place.left().unwrap().taken_at.unwrap();
    wait_until("its time is over", LIMIT, || {
        let over = place.spec.clock.now().ms_since(taken_at) > 3_000;
        async move { over }
    })
    .await;
    place.take_up().await;
    let report = place.ended(turn).await;
    assert!(is_failed(&report, FailureClass::Timeout), "{report:?}");
    place.does("scn=text").await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_in_the_background_that_began_before_and_ends_meanwhile_is_part_of_its_turn() {
    let mut place = Place::that_outlives(SHELL).await;
    place.stub.reply_with(|request| {
        if request.scenario.as_deref() != Some("background") {
            return None;
        }
        if request.user_text().contains("<task-notification>") {
            return Some(Reply::text("Now it is over.\n\n[SEMO:DONE]"));
        }
        if !request.tool_results().is_empty() {
            return Some(Reply::text("It runs.\n\n[SEMO:DONE]"));
        }
        let input = json!({ "command": "sleep 5", "description": "Wait", "run_in_background": true });
        Some(Reply::tool("In the background.", "Bash", input))
    });
    let turn = place.submit("scn=background", Marker::Plain, LIMIT);
    place.shows("It runs.").await;
    place.leave().await;
    ends(&place, 1).await;
    place.take_up().await;
    place.done_saying(turn, "Now it is over.\n\n[SEMO:DONE]").await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_at_rest_and_one_in_which_a_person_works_are_joined_as_they_are() {
    let mut place = Place::that_outlives(&[]).await;
    place.does("scn=text").await;
    let conversation = place.session.conversation();
    place.leave().await;
    place.take_up().await;
    place.ready().await;
    assert_eq!(place.session.conversation(), conversation);
    assert!(place.session.touched(), "nobody knows who typed before");
    place
        .type_line("typed by hand scn=think:4", "by hand scn=think:4")
        .await;
    place
        .state("a person's turn", |state| {
            *state == SessionState::Working { turn: None }
        })
        .await;
    place.leave().await;
    place.take_up().await;
    place.does("And a command. scn=text").await;
    assert_eq!(
        place.prompts()[1..],
        ["typed by hand scn=think:4", "And a command. scn=text"]
    );
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_that_was_cleared_is_found_again() {
    let mut place = Place::that_outlives(&[]).await;
    place.does("scn=text").await;
    let first = place.session.conversation();
    place.keys("/clear").await;
    place.shows(crate::claude_truth::CLEAR_MENU).await;
    place.keys("\r").await;
    wait_until("another conversation", LIMIT, || {
        let other = place.session.conversation() != first;
        async move { other }
    })
    .await;
    let second = place.session.conversation();
    let turn = place.submit("After it. scn=think:3", Marker::Plain, LIMIT);
    place.stage(TurnStage::Taken).await;
    place.leave().await;
    // The core before has not told which conversation it is.
    assert_eq!(place.spec.conversation, first);
    place.take_up().await;
    let report = place.done(turn).await;
    assert_eq!(place.session.conversation(), second);
    assert_eq!(report.evidence.best("transcript_agrees").unwrap().value, true);
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transcript_that_was_replaced_meanwhile_makes_nothing_certain_and_nothing_wrong() {
    let mut place = Place::that_outlives(&[]).await;
    place.does("scn=text").await;
    let turn = place.submit("And this. scn=think:2", Marker::Plain, LIMIT);
    place.stage(TurnStage::Taken).await;
    place.leave().await;
    ends(&place, 2).await;
    let (config, id) = (&place.spec.config_dir, place.spec.conversation);
    let path = provider::claude::transcript_path(config, &place.spec.worktree, id);
    let copy = path.with_extension("copy");
    std::fs::copy(&path, &copy).unwrap();
    std::fs::rename(&copy, &path).unwrap();
    place.take_up().await;
    let report = place.ended(turn).await;
    assert!(
        matches!(
            report.outcome,
            TurnOutcome::Unconfirmed { .. } | TurnOutcome::Done
        ),
        "{report:?}"
    );
    place.does("scn=text").await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_paste_of_a_core_that_died_is_no_part_of_the_next_prompt() {
    let mut place = Place::that_outlives(&[]).await;
    place.ready().await;
    place.keys("\u{1b}[200~half of a prompt that was never").await;
    place.leave().await;
    place.take_up().await;
    place.does("The whole one. scn=text").await;
    assert_eq!(place.prompts(), ["The whole one. scn=text"]);
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_agent_that_worked_at_the_cut_is_part_of_its_turn_and_no_end_of_it() {
    let mut place = Place::that_outlives(&["--allowedTools", "Agent"]).await;
    let gate = Gate::default();
    let held = gate.clone();
    place.stub.reply_with(move |request| {
        if request.scenario.as_deref() != Some("delegate") {
            return None;
        }
        let reply = if request.tool_results().is_empty() {
            let input = json!({
                "description": "sub", "prompt": "scn=think:3", "subagent_type": "general-purpose",
                "run_in_background": false,
            });
            Reply::tool("I delegate.", "Agent", input)
        } else {
            Reply::text("All is done now.\n\n[SEMO:DONE]").behind(&held)
        };
        Some(reply)
    });
    let turn = place.submit("scn=delegate", Marker::Plain, LIMIT);
    place
        .stub
        .turn_where("the sub-agent works", LIMIT, |turn| {
            turn.user_text().contains("scn=think:3")
        })
        .await;
    place.stage(TurnStage::Taken).await;
    place.leave().await;
    place.take_up().await;
    gate.open();
    place.done_saying(turn, "All is done now.\n\n[SEMO:DONE]").await;
    place.end().await;
}

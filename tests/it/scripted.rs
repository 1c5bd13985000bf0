//! Sessions with the scripted agent: what a real one will not do on demand. The same program start, input, hooks,
//! transcript and screen as with `claude`; only the agent is told to misbehave.

use std::path::PathBuf;
use std::time::Duration;

use domain::ask::AskAnswer;
use domain::marker::Marker;
use domain::turn::{FailureClass, TurnOutcome, TurnStage};
use harness::place::{HeldBy, Hooks, LIMIT, Place, deny, is_failed};
use harness::processes::{goes_on, kill, naming, stands_still};
use harness::wait::wait_until;
use provider::claude::{Activity, ClaudeLaunch, PermissionMode};
use session::{SessionError, SessionNote, StartMode, WhichTurn};
use tokio::time::Instant;

/// Longest that a flood may take.
const FLOOD_LIMIT: Duration = Duration::from_secs(420);
const GIB: u64 = 1 << 30;

async fn agent() -> Place {
    agent_with(&[]).await
}

/// A session of the scripted agent, which does as it is told from its start on.
async fn agent_with(script: &[&str]) -> Place {
    agent_held(HeldBy::ThisProcess, script).await
}

async fn agent_held(held_by: HeldBy, script: &[&str]) -> Place {
    let home = |folder: &std::path::Path| folder.join("home");
    Place::start(
        Hooks::Delivered,
        held_by,
        |folder| home(folder).join(".claude"),
        |hooks, folder| {
            let home = home(folder);
            std::fs::create_dir(&home).unwrap();
            let claude = ClaudeLaunch {
                program: PathBuf::from("/nonexistent"),
                base_env: vec![
                    ("HOME".into(), home.display().to_string()),
                    ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()),
                ],
                hooks,
                runtime_dir: folder.join("run"),
                permission_mode: PermissionMode::AsConfigured,
                extra_args: Vec::new(),
            };
            let program = PathBuf::from(env!("CARGO_BIN_EXE_scripted-agent"));
            provider::scripted::launch(program, args(script), &claude)
        },
    )
    .await
}

fn args(script: &[&str]) -> Vec<String> {
    let steps = script
        .iter()
        .flat_map(|step| ["--script".to_owned(), (*step).to_owned()]);
    steps.collect()
}

/// Starts the same conversation again, in another process.
async fn resume(place: &mut Place, script: &[&str]) -> Result<(), SessionError> {
    place.spec.launch.extra_args = args(script);
    place.start_again(StartMode::Resume).await
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scripted_turn_goes_the_way_of_a_real_one() {
    let mut place = agent().await;
    let report = place.does("Say hello.\nAnd do=tool:echo+hi do=say:hello").await;
    assert_eq!(report.evidence.rule, "stop-with-marker");
    assert_eq!(report.evidence.best("stopped").unwrap().source, "hook:Stop");
    assert_eq!(report.evidence.best("transcript_agrees").unwrap().value, true);
    let report = place.turn("do=nomark").await;
    assert!(
        matches!(report.outcome, TurnOutcome::Unconfirmed { .. }),
        "{report:?}"
    );
    let report = place.turn("do=fail:billing").await;
    assert!(is_failed(&report, FailureClass::Billing), "{report:?}");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_hangs_is_ended_at_the_time_limit_with_all_it_started() {
    let mut place = agent_with(&["deaf"]).await;
    let turn = place.submit("do=fork do=hang", Marker::Plain, Duration::from_secs(3));
    let report = place.ended(turn).await;
    assert!(is_failed(&report, FailureClass::Timeout), "{report:?}");
    place.exited().await;
    assert_eq!(place.living(), Vec::<u32>::new(), "ended, and proven gone");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_nothing_hears_is_told_only_when_nothing_lives_any_more() {
    let mut place = agent_with(&["deaf"]).await;
    let turn = place.submit("do=fork do=hang", Marker::Plain, LIMIT);
    // From here on it hears no Esc; a moment before, it would take it for the end of its turn.
    place.shows("It hangs.").await;
    wait_until("it forks", LIMIT, || async { place.living().len() >= 4 }).await;
    place.session.cancel(WhichTurn::Id(turn)).unwrap();
    let report = place.ended(turn).await;
    // At this very moment, not some time later.
    let living = place.living();
    assert_eq!(report.outcome, TurnOutcome::Cancelled, "{report:?}");
    assert_eq!(
        living,
        Vec::<u32>::new(),
        "told as cancelled while something lived: {report:?}\n{}",
        place.screen()
    );
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_is_heard_leaves_the_session_to_the_next_prompt() {
    let mut place = agent().await;
    let turn = place.submit("do=slow:600000", Marker::Plain, LIMIT);
    place.working().await;
    place.session.cancel(WhichTurn::Id(turn)).unwrap();
    place.cancelled(turn).await;
    place.does("do=say:again").await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_in_a_turn_fails_it_and_its_children_go_with_it() {
    let mut place = agent().await;
    let report = place.turn("do=fork do=slow:300 do=die:3").await;
    assert!(is_failed(&report, FailureClass::ProviderExit), "{report:?}");
    assert_eq!(place.exited().await.code, Some(3));
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_whose_holder_was_killed_says_what_happened_and_what_can_be_done() {
    let mut place = agent_held(HeldBy::AProcess, &[]).await;
    let turn = place.submit("do=slow:300", Marker::Plain, LIMIT);
    place.working().await;
    let holders = naming(&place.folder().join("holders"));
    let holder = holders
        .iter()
        .find(|process| process.line.contains("semo-holder"));
    kill(holder.expect("its holder").pid);
    let report = place.ended(turn).await;
    assert!(is_failed(&report, FailureClass::ProviderExit), "{report:?}");
    let TurnOutcome::Failed { detail, .. } = &report.outcome else {
        panic!("{report:?}");
    };
    assert!(
        detail.contains("semo-holder") && detail.contains("send the prompt again"),
        "{detail}"
    );
    let exit = place.exited().await;
    assert!(exit.words.unwrap_or_default().contains("semo-holder"));
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_at_its_start_is_told_with_its_words() {
    let mut place = agent_with(&["die:7"]).await;
    let exit = place.exited().await;
    assert_eq!(exit.code, Some(7));
    assert!(
        exit.words.as_deref().unwrap_or_default().contains("told to die"),
        "{exit:?}"
    );
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_a_gigabyte_fills_no_memory_and_another_session_answers_meanwhile() {
    let mut flooded = agent().await;
    let mut other = agent().await;
    assert_eq!(other.turn("do=say:warm").await.outcome, TurnOutcome::Done);
    let before = resident();
    let turn = flooded.submit("do=flood:1G", Marker::Plain, FLOOD_LIMIT);
    flooded.working().await;
    let mut flowing = flooded.session.terminal().changed();
    let flows = flowing.wait_for(|end| *end > 8 << 20);
    tokio::time::timeout(LIMIT, flows)
        .await
        .expect("it flows")
        .unwrap();

    let asked = Instant::now();
    let report = other.turn("do=say:meanwhile").await;
    let answered = asked.elapsed();
    assert_eq!(report.outcome, TurnOutcome::Done, "{report:?}");
    assert!(
        *flooded.session.terminal().changed().borrow() < GIB,
        "answered while it flowed"
    );
    assert!(answered < FLOOD_LIMIT / 4, "{answered:?}");

    let report = flooded.ended_within(turn, FLOOD_LIMIT).await;
    assert_eq!(report.outcome, TurnOutcome::Done, "{report:?}");
    // What came last may still be on its way through the terminal.
    let mut flowing = flooded.session.terminal().changed();
    let all = flowing.wait_for(|end| *end > GIB);
    tokio::time::timeout(LIMIT, all)
        .await
        .expect("all of it came")
        .unwrap();
    let kept = flooded.session.terminal().output_since(0);
    assert_eq!(kept.from + kept.bytes.len() as u64, kept.end);
    assert!(kept.bytes.len() <= terminal::RING_BYTES_MAX);
    let grown = resident().saturating_sub(before);
    assert!(grown < 96 << 20, "{} MiB", grown >> 20);
    let report = flooded.turn("do=say:after").await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        flooded.screen()
    );
    flooded.end().await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_and_sequences_without_end_harm_nothing() {
    let mut place = agent().await;
    for prompt in ["do=garbage", "do=escapes", "do=garbage do=escapes do=garbage"] {
        let report = place.turn(prompt).await;
        assert_eq!(
            report.outcome,
            TurnOutcome::Done,
            "{prompt}: {report:?}\n{}",
            place.screen()
        );
        let screen = place.session.terminal().screen();
        assert!(screen.title.chars().count() <= terminal::TITLE_CHARS_MAX);
        let text = screen.rows.join("\n");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }
    place.does("do=say:still+here").await;
    assert!(place.screen().contains("still here"), "{}", place.screen());
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_that_are_lost_doubled_late_or_out_of_order_make_no_wrong_end() {
    let mut place = agent().await;
    for prompt in [
        "do=double:Stop do=double:UserPromptSubmit",
        "do=delay:Stop:1500",
        "do=tool:true do=reorder",
        "do=delay:UserPromptSubmit:1500 do=slow:100",
        "do=late-transcript:1000",
        "do=no-transcript",
        "do=lose:UserPromptSubmit do=slow:2500",
        "do=lose:Stop",
        "do=lose:Stop do=late-transcript:800",
        "do=lose:Stop do=lose:UserPromptSubmit do=slow:2500",
    ] {
        let report = place.turn(prompt).await;
        let right = match &report.outcome {
            TurnOutcome::Done => true,
            // Never for a turn of which every sign is there.
            TurnOutcome::Unconfirmed { .. } => prompt.contains("lose:") || prompt.contains("transcript"),
            _ => false,
        };
        assert!(right, "{prompt}: {report:?}\n{}", place.screen());
    }
    // With no sign but the screen and the status file there is nothing to confirm by.
    let report = place.turn("do=lose:Stop do=no-transcript").await;
    assert!(
        matches!(report.outcome, TurnOutcome::Unconfirmed { .. }),
        "{report:?}\n{}",
        place.screen()
    );
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_with_work_in_the_background_is_no_end() {
    let mut place = agent().await;
    let started = Instant::now();
    place.does("do=background:4000").await;
    assert!(
        started.elapsed() >= Duration::from_secs(4),
        "ended with the first stop"
    );
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mark_of_a_sub_agent_is_not_that_of_the_turn() {
    let mut place = agent().await;
    let report = place.turn("do=subagent do=slow:1500 do=nomark").await;
    assert!(
        matches!(report.outcome, TurnOutcome::Unconfirmed { .. }),
        "{report:?}"
    );
    place.does("do=subagent do=slow:500").await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_is_answered_once_from_afar_or_at_the_terminal() {
    let mut place = agent().await;
    let worktree = place.spec.worktree.clone();
    let turn = place.submit("do=permission:touch+allowed", Marker::Plain, LIMIT);
    let ask = place.asked().await;
    assert!(ask.text.contains("touch allowed"), "{ask:?}");
    place.answered(&ask, AskAnswer::Allow).await;
    place.comes_too_late(&ask).await;
    place.done(turn).await;
    assert!(worktree.join("allowed").exists());

    let turn = place.submit("do=permission:touch+denied", Marker::Plain, LIMIT);
    let ask = place.asked().await;
    place.answered(&ask, deny("not today")).await;
    place.done(turn).await;
    assert!(place.screen().contains("not today") && !worktree.join("denied").exists());

    let turn = place.submit("do=permission:touch+typed", Marker::Plain, LIMIT);
    let ask = place.asked().await;
    place.answered_at_the_terminal(&ask, "1").await;
    place.done(turn).await;
    assert!(worktree.join("typed").exists());
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_by_one_of_its_choices() {
    let mut place = agent().await;
    let turn = place.submit("do=question:Red|Green|Blue", Marker::Plain, LIMIT);
    let ask = place.asked().await;
    assert_eq!(ask.choices, ["Red", "Green", "Blue"], "{ask:?}");
    place.answered(&ask, AskAnswer::Choose { choice: 1 }).await;
    place.done(turn).await;
    assert!(place.screen().contains("You chose Green"), "{}", place.screen());
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_taken_up_again_or_the_session_ends_in_the_open() {
    let mut place = agent().await;
    let error = resume(&mut place, &[]).await.unwrap_err();
    assert!(matches!(error, SessionError::NothingToResume { .. }), "{error}");
    place.does("do=say:remember+this").await;
    place.session.terminate().await.unwrap();

    resume(&mut place, &[]).await.unwrap();
    place.does("do=say:and+this").await;
    assert!(place.screen().contains("remember+this"), "{}", place.screen());
    place.session.terminate().await.unwrap();

    for script in ["exit-on-resume", "wrong-id"] {
        resume(&mut place, &[script]).await.unwrap();
        let exit = place.exited().await;
        assert!(!exit.wanted && exit.words.is_some(), "{script}: {exit:?}");
        assert_eq!(place.living(), Vec::<u32>::new());
    }
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_terminated_takes_children_that_ignore_term_with_it() {
    let mut place = agent().await;
    place.does("do=fork").await;
    assert!(place.living().len() >= 4, "{:?}", place.living());
    let proof = place.session.terminate().await.unwrap();
    assert!(proof.is_proven() && !proof.killed.is_empty(), "{proof:?}");
    assert_eq!(place.living(), Vec::<u32>::new());
    place.end().await;
}

/// The prompts that the agent took, as its transcript has them.
fn taken(place: &Place) -> Vec<String> {
    let (config, id) = (&place.spec.config_dir, place.session.id());
    let path = provider::claude::transcript_path(config, &place.spec.worktree, id);
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let typed = lines.filter(|line| line["promptSource"] == "typed");
    typed
        .filter_map(|line| line["message"]["content"].as_str().map(str::to_owned))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_for_an_agent_that_stalls_arrives_once() {
    // Longer than the echo is waited for at first.
    let mut place = agent_with(&["stall:9000"]).await;
    place.does("Only once, please. do=say:hello").await;
    let taken = taken(&place);
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert_eq!(taken[0].matches("Only once, please.").count(), 1, "{taken:?}");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_came_twice_after_a_long_stall_is_not_submitted() {
    // Long enough for a second paste; both arrive in one read.
    let mut place = agent_with(&["stall:23000"]).await;
    let report = place.turn("Never twice, please. do=say:hello").await;
    assert!(is_failed(&report, FailureClass::NotSubmitted), "{report:?}");
    assert_eq!(taken(&place), Vec::<String>::new());
    place.does("And the next one. do=say:hello").await;
    assert!(!taken(&place)[0].contains("Never twice"), "{:?}", taken(&place));
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_of_a_prompt_that_enter_did_not_submit_takes_it_back() {
    let mut place = agent_with(&["swallow:2"]).await;
    let turn = place.submit("Cancelled in the box. do=say:hello", Marker::Plain, LIMIT);
    let echo = async {
        while !place.screen().contains("Cancelled in the box.") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, echo).await.expect("the echo");
    place.session.cancel(WhichTurn::Id(turn)).unwrap();
    place.cancelled(turn).await;
    let screen = place.screen();
    assert!(!screen.contains("Cancelled in the box."), "{screen}");
    // Its Enter is swallowed once more, and pressed again.
    place.does("And this one stays. do=say:hello").await;
    let taken = taken(&place);
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert!(!taken[0].contains("Cancelled"), "{taken:?}");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_never_goes_to_the_dialog_that_has_come_in_the_place_of_its_own() {
    let mut place = agent().await;
    let turn = place.submit("do=both:touch+first.txt|touch+second.txt", Marker::Plain, LIMIT);
    let (one, two) = (place.asked().await, place.asked().await);
    let (first, second) = match one.text.contains("first") {
        true => (one, two),
        false => (two, one),
    };
    assert!(
        first.text.contains("first.txt") && second.text.contains("second.txt"),
        "{first:?} {second:?}"
    );
    // A person answers the first one at the terminal; the second one's dialog is there at once.
    place.answered_at_the_terminal(&first, "1").await;
    place.comes_too_late(&first).await;
    place.answered(&second, deny("not that one")).await;
    place.done(turn).await;
    let made = |name: &str| place.spec.worktree.join(name).exists();
    assert!(made("first.txt") && !made("second.txt"));
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_whose_enter_was_lost_is_taken_out_of_the_box_by_the_next_core() {
    let mut place = agent_held(HeldBy::AProcess, &["swallow:1"]).await;
    place.ready().await;
    let turn = place.submit("Left in the box. do=say:hello", Marker::Plain, LIMIT);
    place.stage(TurnStage::Entering).await;
    place.leave().await;
    assert_eq!(place.left().unwrap().stage, TurnStage::Entering);
    place.take_up().await;
    place.shows("Left in the box.").await;
    let report = place.ended(turn).await;
    assert!(is_failed(&report, FailureClass::NotSubmitted), "{report:?}");
    assert_eq!(report.evidence.rule, session::NEVER_ENTERED);
    assert!(!place.screen().contains("Left in the box."), "{}", place.screen());
    assert_eq!(taken(&place), Vec::<String>::new());
    // Whoever still wants it sends it again.
    place.does("Left in the box. do=say:hello").await;
    assert_eq!(taken(&place).len(), 1);
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_of_which_nothing_tells_is_unknown_and_not_sent_again() {
    let mut place = agent_held(HeldBy::AProcess, &[]).await;
    place.ready().await;
    // Taken at once, and over before anybody looks; neither told nor recorded.
    place.lose_hooks();
    let prompt = "Gone. do=no-transcript do=tool:touch+there";
    let turn = place.submit(prompt, Marker::Plain, LIMIT);
    let there = place.worktree().join("there");
    // Enter was pressed: the stage alone, which is written before it, does not say so.
    harness::wait::wait_until("the prompt is worked on", LIMIT, || {
        let began = there.exists();
        async move { began }
    })
    .await;
    place.leave().await;
    let pid = place.session.terminal().pid();
    harness::wait::wait_until("the turn is over", LIMIT, || {
        let status = provider::claude::read_status(&place.spec.config_dir, pid);
        let rests = status.is_some_and(|status| status.activity == Activity::Idle);
        async move { rests }
    })
    .await;
    place.take_up().await;
    let report = place.ended(turn).await;
    assert!(
        matches!(report.outcome, TurnOutcome::Unconfirmed { .. }),
        "{report:?}\n{}",
        place.screen()
    );
    assert_eq!(report.evidence.rule, "effect-unknown");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialog_that_was_open_when_the_core_died_is_asked_anew() {
    let mut place = agent_held(HeldBy::AProcess, &[]).await;
    let turn = place.submit("do=permission:touch+allowed", Marker::Plain, LIMIT);
    place.asked().await;
    place.leave().await;
    place.take_up().await;
    let asked = place.asked().await;
    assert!(asked.text.contains("touch allowed"), "{asked:?}");
    place.answered(&asked, AskAnswer::Allow).await;
    place.done(turn).await;
    assert!(place.worktree().join("allowed").exists());
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_a_later_core_takes_over_is_judged_and_told_there_alone() {
    let mut place = agent_held(HeldBy::AProcess, &[]).await;
    let turn = place.submit("do=permission:touch+allowed", Marker::Plain, LIMIT);
    let before = place.asked().await;
    let (older, mut told) = place.take_over().await;
    let mut last = None;
    while let Some(note) = tokio::time::timeout(LIMIT, told.recv()).await.unwrap() {
        let ends = matches!(note, SessionNote::TurnEnded { .. } | SessionNote::Exited { .. });
        assert!(!ends, "nothing of it is the older core's to tell: {note:?}");
        last = Some(note);
    }
    let Some(SessionNote::TakenOver { words, .. }) = last else {
        panic!("the older core is not told: {last:?}");
    };
    assert!(
        words.contains("another SEMO Office on this computer took this session over"),
        "{words}"
    );
    let is_taken = |refused: SessionError| {
        assert!(matches!(refused, SessionError::TakenOver { .. }), "{refused}");
    };
    is_taken(older.keys("1".into()).await.unwrap_err());
    is_taken(older.terminate().await.unwrap_err());
    is_taken(older.cancel(WhichTurn::Current).unwrap_err());
    is_taken(older.explain().await.unwrap_err());
    let asked = place.asked().await;
    assert_ne!(asked.id, before.id, "asked anew, by the core that holds it");
    place.answered(&asked, AskAnswer::Allow).await;
    place.done(turn).await;
    assert!(place.worktree().join("allowed").exists());
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_was_not_submitted_because_the_agent_reads_nothing_is_never_typed() {
    let mut place = agent_held(HeldBy::AProcess, &[]).await;
    place.ready().await;
    let pid = place.session.terminal().pid();
    stands_still(pid);
    // More than a terminal holds: what follows waits behind it.
    let filler = vec![b'f'; terminal::WRITE_BYTES_MAX];
    assert!(place.session.keys(filler.into()).await.is_err());
    let turn = place.submit("Never typed. do=say:never", Marker::Plain, LIMIT);
    let report = place.ended(turn).await;
    assert!(is_failed(&report, FailureClass::NotSubmitted), "{report:?}");
    assert!(format!("{report:?}").contains("taken back"), "{report:?}");
    goes_on(pid);
    // Behind all that was typed before it.
    place.turn("do=say:hello").await;
    assert!(!place.screen().contains("Never typed"), "{}", place.screen());
    let prompts = taken(&place);
    assert!(
        !prompts.iter().any(|prompt| prompt.contains("Never typed")),
        "{prompts:?}"
    );
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_prompts_that_wait_in_a_session_only_the_carried_one_has_begun() {
    let mut place = agent_held(HeldBy::AProcess, &[]).await;
    place.ready().await;
    let carried = place.submit("do=slow:3000", Marker::Plain, LIMIT);
    place.stage(TurnStage::Taken).await;
    let waiting = place.submit("do=say:later", Marker::Plain, LIMIT);
    place.leave().await;
    let open = place.spec.journal.open_turns().unwrap();
    let stages: Vec<_> = open
        .iter()
        .map(|row| (row.turn.id, row.stage, row.mark.is_some()))
        .collect();
    assert_eq!(
        stages,
        [
            (carried, TurnStage::Taken, true),
            (waiting, TurnStage::Begun, false)
        ]
    );
    assert!(taken(&place).len() <= 1);
}

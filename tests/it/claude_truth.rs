//! What the real program does beyond a plain turn: work in the background, sub-agents, retries, `/clear`, resume.

use std::time::{Duration, Instant};

use domain::ask::AskAnswer;
use domain::marker::Marker;
use domain::session::SessionState;
use domain::turn::FailureClass;
use harness::claude::ClaudeHome;
use harness::stub::Reply;
use serde_json::json;
use session::{SessionNote, StartMode, WhichTurn};

use crate::claude_session::{Hooks, LIMIT, Place, is_failed};

/// What the menu of slash commands says about `/clear`.
pub(crate) const CLEAR_MENU: &str = "Start a new session";

/// The program with all its tries, and with leave to use its tools.
fn patient(home: &ClaudeHome, url: &str) -> Vec<(String, String)> {
    let mut env = home.env(url);
    env.retain(|(name, _)| name != "CLAUDE_CODE_MAX_RETRIES");
    env
}

/// Answers `bg:SECONDS` by a command in the background, and its note by the marker.
fn with_background_work(place: &Place) {
    place.stub.reply_with(|request| {
        let scenario = request.scenario.as_deref().unwrap_or_default();
        let seconds = scenario.strip_prefix("bg:")?.to_owned();
        if request.user_text().contains("<task-notification>") {
            return Some(Reply::text("Now it is over.\n\n[SEMO:DONE]"));
        }
        if !request.tool_results().is_empty() {
            return Some(Reply::text("It runs.\n\n[SEMO:DONE]"));
        }
        let command = format!("sleep {seconds}");
        let input = json!({ "command": command, "description": "Wait", "run_in_background": true });
        Some(Reply::tool("In the background.", "Bash", input))
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_with_work_in_the_background_is_done_when_that_is() {
    for hooks in [Hooks::Delivered, Hooks::Lost] {
        let mut place = Place::started(
            hooks,
            ClaudeHome::new(),
            |home, url| home.env(url),
            &["--allowedTools", "Bash(*)"],
        )
        .await;
        with_background_work(&place);
        let started = Instant::now();
        let turn = place.submit("scn=bg:4", Marker::Plain, LIMIT);
        place.done_saying(turn, "Now it is over.\n\n[SEMO:DONE]").await;
        assert!(
            started.elapsed() >= Duration::from_secs(4),
            "it ended before its work"
        );
        place.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_with_work_in_the_background_ends_the_session_and_the_work() {
    let mut place = Place::started(
        Hooks::Delivered,
        ClaudeHome::new(),
        |home, url| home.env(url),
        &["--allowedTools", "Bash(*)"],
    )
    .await;
    with_background_work(&place);
    let turn = place.submit("scn=bg:31536", Marker::Plain, Duration::from_secs(3_600));
    place.shows("It runs.").await;
    place.session.cancel(WhichTurn::Current).unwrap();
    let report = place.cancelled(turn).await;
    assert_eq!(report.evidence.rule, "session-ended");
    let exit = place.exited().await;
    assert!(exit.wanted, "{exit:?}");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_agents_end_is_not_the_turns() {
    let mut place = Place::started(
        Hooks::Delivered,
        ClaudeHome::new(),
        |home, url| home.env(url),
        &["--allowedTools", "Agent"],
    )
    .await;
    place.stub.reply_with(|request| {
        if request.scenario.as_deref() != Some("delegate") {
            return None;
        }
        let reply = if request.tool_results().is_empty() {
            let input = json!({
                "description": "sub", "prompt": "scn=think:2", "subagent_type": "general-purpose", "run_in_background": false,
            });
            Reply::tool("I delegate.", "Agent", input)
        } else {
            Reply::text("All is done now.\n\n[SEMO:DONE]").pause(Duration::from_secs(1))
        };
        Some(reply)
    });
    let turn = place.submit("scn=delegate", Marker::Plain, LIMIT);
    place.done_saying(turn, "All is done now.\n\n[SEMO:DONE]").await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_are_told_at_the_first_and_end_nothing() {
    let mut place = Place::with(Hooks::Delivered, ClaudeHome::new(), patient).await;
    for scenario in ["err401", "err429", "err500"] {
        let turn = place.submit(&format!("scn={scenario}"), Marker::Plain, LIMIT);
        let asked = Instant::now();
        let retry = place
            .note("the retry", |note| match note {
                SessionNote::Retrying { retry, .. } => retry.clone(),
                SessionNote::TurnEnded { report, .. } => panic!("it ended too early: {report:?}"),
                _ => None,
            })
            .await;
        // All ten take three minutes.
        assert!(asked.elapsed() < Duration::from_secs(60), "{scenario}: {retry:?}");
        assert!(retry.attempt >= 1 && retry.max == 10, "{scenario}: {retry:?}");
        place.session.cancel(WhichTurn::Current).unwrap();
        let report = place.cancelled(turn).await;
        assert!(report.evidence.best("retries").is_some());
    }
    let report = place.turn("scn=err529").await;
    assert!(is_failed(&report, FailureClass::Overloaded), "{report:?}");
    place.does("scn=err429once:2").await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_that_was_cleared_is_followed_into_the_next() {
    for hooks in [Hooks::Delivered, Hooks::Lost] {
        let mut place = Place::with(hooks, ClaudeHome::new(), |home, url| home.env(url)).await;
        place.does("scn=text").await;
        // The menu's own line, not the echo: Enter before it is there would send the text as a prompt.
        place.keys("/clear").await;
        place.shows(CLEAR_MENU).await;
        place.keys("\r").await;
        harness::wait::wait_until("the screen is cleared", LIMIT, || {
            let cleared = !place.screen().contains("scn=text");
            async move { cleared }
        })
        .await;
        let report = place.does("After it. scn=text").await;
        let agrees = report.evidence.best("transcript_agrees");
        assert!(agrees.is_some_and(|claim| claim.value == true), "{report:?}");
        place.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_taken_up_again_and_its_old_markers_end_nothing() {
    let mut place = Place::new().await;
    for n in 0..3 {
        place.does(&format!("number {n} scn=text")).await;
    }
    let mut place = place.again(StartMode::Resume).await.unwrap();
    place.ready().await;
    let turn = place.submit("Say no more. scn=nomark", Marker::Plain, LIMIT);
    let report = place.ended(turn).await;
    assert_eq!(
        report.evidence.rule,
        "stop-without-marker",
        "{report:?}\n{}",
        place.screen()
    );
    let texts = place.stub.turns().pop().unwrap().user_text();
    assert!(texts.contains("number 0"), "the conversation goes on: {texts}");
    place.does("And now. scn=text").await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_that_is_not_there_is_not_replaced_by_a_new_one() {
    let place = Place::new().await;
    place.ready().await;
    let Err(refused) = place.again(StartMode::Resume).await else {
        panic!("it was taken up")
    };
    assert!(
        refused.to_string().contains("cannot be taken up again"),
        "{refused}"
    );
}

/// A hook of the project's own that does not let the agent stop for the first `blocks` times of each turn.
fn with_stop_hook(place: &Place, blocks: u32) {
    let folder = place.worktree().join(".claude");
    std::fs::create_dir_all(&folder).unwrap();
    let script = folder.join("not-yet.sh");
    let text = format!(
        "#!/bin/sh\ncd \"$(dirname \"$0\")\"\necho x >> stops\nif [ \"$(wc -l < stops)\" -le {blocks} ]; then\n\
         echo '{{\"decision\":\"block\",\"reason\":\"The tests are missing.\"}}'\nfi\n"
    );
    std::fs::write(&script, text).unwrap();
    let command = format!("sh '{}'", script.display());
    let settings = json!({ "hooks": { "Stop": [{ "hooks": [{ "type": "command", "command": command }] }] } });
    std::fs::write(folder.join("settings.json"), settings.to_string()).unwrap();
}

/// A session in a project whose stop hook objects that often, with hooks of ours that are delivered or lost.
async fn objected(hooks: Hooks, blocks: u32, pause: Duration) -> Place {
    let mut place = Place::with(hooks, ClaudeHome::new(), |home, url| home.env(url)).await;
    place.does("scn=text").await;
    with_stop_hook(&place, blocks);
    let place = place.again(StartMode::Resume).await.unwrap();
    place.stub.reply_with(move |request| {
        let text = request.user_text();
        if !text.contains("objected") {
            return None;
        }
        Some(if text.contains("The tests are missing.") {
            Reply::text("With tests.\n\n[SEMO:DONE]").pause(pause)
        } else {
            Reply::text("Without tests.\n\n[SEMO:DONE]")
        })
    });
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_a_hook_of_the_project_does_not_allow_is_no_end() {
    for hooks in [Hooks::Delivered, Hooks::Lost] {
        let mut place = objected(hooks, 1, Duration::from_secs(3)).await;
        let turn = place.submit("objected", Marker::Plain, LIMIT);
        place.done_saying(turn, "With tests.\n\n[SEMO:DONE]").await;
        place.does("scn=text").await;
        place.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_hook_that_was_overruled_leaves_the_end_unconfirmed() {
    for hooks in [Hooks::Delivered, Hooks::Lost] {
        let mut place = objected(hooks, 20, Duration::ZERO).await;
        let report = place.turn("objected").await;
        assert_eq!(
            report.evidence.rule,
            "stop-overruled",
            "{report:?}\n{}",
            place.screen()
        );
        place.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_waits_while_a_persons_own_turn_asks_for_a_permission() {
    let mut place = Place::new().await;
    place.stub.reply_with(|request| {
        let text = request.user_text();
        if !text.contains("by hand") || text.contains("scn=text") {
            return None;
        }
        Some(if request.tool_results().is_empty() {
            let input = json!({ "command": "touch by-hand", "description": "Touch" });
            Reply::tool("I will.", "Bash", input).pause(Duration::from_secs(2))
        } else {
            Reply::text("It is there.")
        })
    });
    place.ready().await;
    place.type_line("do it by hand", "do it by hand").await;
    place
        .state("a person's turn runs", |state| {
            *state == SessionState::Working { turn: None }
        })
        .await;
    let turn = place.submit("scn=text", Marker::Plain, LIMIT);
    let ask = place
        .note("the permission", |note| match note {
            SessionNote::Asked { ask, .. } => Some(ask.clone()),
            SessionNote::TurnEnded { report, .. } => panic!("it was begun: {report:?}"),
            _ => None,
        })
        .await;
    place.answered(&ask, AskAnswer::Allow).await;
    place.done(turn).await;
    assert!(
        place.worktree().join("by-hand").exists(),
        "the person's turn went first"
    );
    place.end().await;
}

//! What the real program asks of a person, and who answers first: the held hook, the terminal, nobody.

use std::time::Duration;

use domain::ask::{AnswerWay, Answerer, AskAnswer, AskEnd};
use domain::marker::Marker;
use domain::session::{Ask, SessionState};
use domain::turn::TurnOutcome;
use harness::claude::ClaudeHome;
use harness::place::deny;
use session::{SessionError, WhichTurn};

use crate::claude_session::{Hooks, LIMIT, Place};

fn by_command() -> Answerer {
    Answerer {
        way: AnswerWay::Command,
        who: "the test".into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_is_given_and_refused_from_afar_and_only_the_first_answer_counts() {
    let mut place = Place::new().await;
    let turn = place.submit("scn=bash:touch+made.txt", Marker::Plain, LIMIT);
    let asked = place.asked().await;
    assert_eq!(
        (asked.kind, asked.tool.as_deref(), asked.turn),
        (Ask::Permission, Some("Bash"), Some(turn))
    );
    assert!(asked.text.contains("touch made.txt"), "{asked:?}");
    // A person takes their time; the program waits.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let wrong = place.answer(&asked, AskAnswer::Choose { choice: 0 }).await;
    assert!(matches!(wrong, Err(SessionError::Answer { .. })), "{wrong:?}");
    place
        .session
        .answer(asked.id, AskAnswer::Allow, by_command())
        .await
        .unwrap();
    let how = place.comes_too_late(&asked).await;
    assert!(how.contains("by a command of the office (the test)"), "{how}");
    let end = place.closed(&asked).await;
    let answer = Some(AskAnswer::Allow);
    assert_eq!(
        end,
        AskEnd::Answered {
            answer,
            by: by_command()
        }
    );
    let report = place.done(turn).await;
    assert!(place.worktree().join("made.txt").exists());
    assert_eq!(report.evidence.best("answer").unwrap().value["way"], "command");

    let turn = place.submit("scn=bash:touch+refused.txt", Marker::Plain, LIMIT);
    let asked = place.asked().await;
    place.answered(&asked, deny("not on this branch")).await;
    let report = place.ended(turn).await;
    assert!(!place.worktree().join("refused.txt").exists());
    let told = place.stub.turns().pop().unwrap().tool_results().join("\n");
    assert!(
        told.contains("not on this branch"),
        "the agent is told why: {told}"
    );
    assert_eq!(report.outcome, TurnOutcome::Done, "{report:?}");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_with_one_of_its_choices() {
    let mut place = Place::new().await;
    let turn = place.submit("scn=ask", Marker::Plain, LIMIT);
    let asked = place.asked().await;
    assert_eq!(
        (asked.kind, asked.text.as_str()),
        (Ask::Question, "Which database should be used?")
    );
    assert_eq!(asked.choices, ["SQLite", "Postgres"]);
    place.shows("Postgres").await;
    place.answered(&asked, AskAnswer::Choose { choice: 1 }).await;
    place.done(turn).await;
    let told = place.stub.turns().pop().unwrap().tool_results().join("\n");
    assert!(told.contains("Postgres") && !told.contains("SQLite"), "{told}");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_at_the_terminal_closes_the_ask_and_releases_the_held_request() {
    let mut place = Place::new().await;
    let turn = place.submit("scn=bash:touch+made.txt", Marker::Plain, LIMIT);
    let asked = place.asked().await;
    place.shows("Do you want to proceed?").await;
    place.answered_at_the_terminal(&asked, "1").await;
    place.comes_too_late(&asked).await;
    place.done(turn).await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ask_whose_hook_was_lost_is_seen_on_the_screen_and_answered_by_its_key() {
    let mut place = Place::with(Hooks::Lost, ClaudeHome::new(), |home, url| home.env(url)).await;
    let turn = place.submit("scn=bash:touch+made.txt", Marker::Plain, LIMIT);
    let asked = place.asked().await;
    assert_eq!(asked.kind, Ask::Permission);
    // What it is about is known from the transcript, and that very dialog is on the screen.
    assert!(asked.text.contains("touch made.txt"), "{asked:?}");
    place.answered(&asked, AskAnswer::Allow).await;
    place.done(turn).await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_and_the_end_of_the_session_withdraw_what_is_asked() {
    let mut place = Place::new().await;
    let turn = place.submit("scn=bash:touch+made.txt", Marker::Plain, LIMIT);
    let asked = place.asked().await;
    place.shows("Do you want to proceed?").await;
    place.session.cancel(WhichTurn::Current).unwrap();
    let end = place.closed(&asked).await;
    assert!(matches!(end, AskEnd::Withdrawn { .. }), "{end:?}");
    place.cancelled(turn).await;
    place.end().await;

    let mut place = Place::new().await;
    let turn = place.submit("scn=bash:touch+made.txt", Marker::Plain, LIMIT);
    let asked = place.asked().await;
    let proof = place.session.terminate().await.unwrap();
    assert!(proof.is_proven(), "{proof:?}");
    let end = place.closed(&asked).await;
    assert!(matches!(end, AskEnd::Withdrawn { .. }), "{end:?}");
    place.cancelled(turn).await;
    place.comes_too_late(&asked).await;
    assert!(!place.worktree().join("made.txt").exists());
    assert!(matches!(
        *place.session.state().borrow(),
        SessionState::Exited { .. }
    ));
    place.end().await;
}

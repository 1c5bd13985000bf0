//! What the real program asks of a person, and who answers first: the held hook, the terminal, nobody.

use std::time::Duration;

use axum::body::Bytes;
use domain::ask::{AnswerWay, Answerer, AskAnswer, AskEnd, PendingAsk};
use domain::marker::Marker;
use domain::session::{Ask, SessionState};
use domain::turn::TurnOutcome;
use harness::claude::ClaudeHome;
use session::{SessionError, SessionNote, WhichTurn};

use crate::claude_session::{Hooks, LIMIT, Place};

fn by_command() -> Answerer {
    Answerer {
        way: AnswerWay::Command,
        who: "the test".into(),
    }
}

async fn closed(place: &mut Place, wanted: &PendingAsk) -> AskEnd {
    place
        .note("the end of the ask", |note| match note {
            SessionNote::AskClosed { ask, end, .. } if *ask == wanted.id => Some(end.clone()),
            _ => None,
        })
        .await
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
    let wrong = place
        .session
        .answer(asked.id, AskAnswer::Choose { choice: 0 }, by_command())
        .await;
    assert!(matches!(wrong, Err(SessionError::Answer { .. })), "{wrong:?}");
    place
        .session
        .answer(asked.id, AskAnswer::Allow, by_command())
        .await
        .unwrap();
    let late = place
        .session
        .answer(asked.id, AskAnswer::Allow, by_command())
        .await;
    let Err(SessionError::AskOver { how, .. }) = late else {
        panic!("{late:?}")
    };
    assert!(how.contains("by a command of the office (the test)"), "{how}");
    let end = closed(&mut place, &asked).await;
    let answer = Some(AskAnswer::Allow);
    assert_eq!(
        end,
        AskEnd::Answered {
            answer,
            by: by_command()
        }
    );
    let report = place.ended(turn).await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
    assert!(place.worktree().join("made.txt").exists());
    assert_eq!(report.evidence.best("answer").unwrap().value["way"], "command");

    let turn = place.submit("scn=bash:touch+refused.txt", Marker::Plain, LIMIT);
    let asked = place.asked().await;
    let deny = AskAnswer::Deny {
        message: "not on this branch".into(),
    };
    place.session.answer(asked.id, deny, by_command()).await.unwrap();
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
    place
        .session
        .answer(asked.id, AskAnswer::Choose { choice: 1 }, by_command())
        .await
        .unwrap();
    let report = place.ended(turn).await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
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
    place.session.keys(Bytes::from_static(b"1")).await.unwrap();
    let end = closed(&mut place, &asked).await;
    assert!(
        matches!(&end, AskEnd::Answered { answer: None, by } if by.way == AnswerWay::Terminal),
        "{end:?}"
    );
    let late = place
        .session
        .answer(asked.id, AskAnswer::Allow, by_command())
        .await;
    assert!(matches!(late, Err(SessionError::AskOver { .. })), "{late:?}");
    assert_eq!(place.ended(turn).await.outcome, TurnOutcome::Done);
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
    let allowed = place.session.answer(asked.id, AskAnswer::Allow, by_command());
    allowed.await.unwrap();
    assert_eq!(
        place.ended(turn).await.outcome,
        TurnOutcome::Done,
        "{}",
        place.screen()
    );
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_and_the_end_of_the_session_withdraw_what_is_asked() {
    let mut place = Place::new().await;
    let turn = place.submit("scn=bash:touch+made.txt", Marker::Plain, LIMIT);
    let asked = place.asked().await;
    place.shows("Do you want to proceed?").await;
    place.session.cancel(WhichTurn::Current).unwrap();
    let end = closed(&mut place, &asked).await;
    assert!(matches!(end, AskEnd::Withdrawn { .. }), "{end:?}");
    let report = place.ended(turn).await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Cancelled,
        "{report:?}\n{}",
        place.screen()
    );
    place.end().await;

    let mut place = Place::new().await;
    let turn = place.submit("scn=bash:touch+made.txt", Marker::Plain, LIMIT);
    let asked = place.asked().await;
    let proof = place.session.terminate().await.unwrap();
    assert!(proof.is_proven(), "{proof:?}");
    let end = closed(&mut place, &asked).await;
    assert!(matches!(end, AskEnd::Withdrawn { .. }), "{end:?}");
    assert_eq!(place.ended(turn).await.outcome, TurnOutcome::Cancelled);
    let late = place
        .session
        .answer(asked.id, AskAnswer::Allow, by_command())
        .await;
    assert!(matches!(late, Err(SessionError::AskOver { .. })), "{late:?}");
    assert!(!place.worktree().join("made.txt").exists());
    assert!(matches!(
        *place.session.state().borrow(),
        SessionState::Exited { .. }
    ));
    place.end().await;
}

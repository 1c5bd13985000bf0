//! Generated files are committed and never edited: here they are made anew and compared. With
//! `SEMO_WRITE_GENERATED=1` the files are written instead.

use client::StopHow;
use client::request::{Answer, ErrorCode, RequestError, SignInField};
use client::view;
use domain::ask::AskAnswer;
use domain::session::{Ask, SessionState};
use harness::claude::workspace;
use serde_json::{Value, json};
use ts_rs::{Config, TS};

#[test]
fn the_typescript_of_the_view_is_the_committed_one() {
    let config = Config::default();
    let mut text = String::from(
        "// Made from the Rust types of `client::view` and `client::request` by tests/it/generated.rs. Do not edit:\n\
         // SEMO_WRITE_GENERATED=1 cargo test -p tests --test it generated\n\n",
    );
    text.push_str(view::DOMAIN_TYPESCRIPT);
    for declaration in [
        view::ProfileKind::decl(&config),
        view::KeptView::decl(&config),
        view::TeamView::decl(&config),
        view::ProfileView::decl(&config),
        view::ConnectionStatus::decl(&config),
        view::ConnectionView::decl(&config),
        view::OfficeView::decl(&config),
        view::AgentView::decl(&config),
        view::AskView::decl(&config),
        view::ClosedAskView::decl(&config),
        view::SessionView::decl(&config),
        view::CommandStatus::decl(&config),
        view::CommandView::decl(&config),
        view::Problem::decl(&config),
        view::RepositoryView::decl(&config),
        view::LimitsView::decl(&config),
        view::PausedAgentView::decl(&config),
        view::PoolView::decl(&config),
        StopHow::decl(&config),
        view::LaunchView::decl(&config),
        view::EndingView::decl(&config),
        view::State::decl(&config),
        view::PreservedView::decl(&config),
        Answer::decl(&config),
        ErrorCode::decl(&config),
        SignInField::decl(&config),
        RequestError::decl(&config),
    ] {
        text.push_str(&format!("export {declaration}\n"));
    }
    let file = workspace().join("ui/src/backend/generated.ts");
    if std::env::var_os("SEMO_WRITE_GENERATED").is_some() {
        std::fs::write(&file, &text).expect("the file can be written");
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == text,
        "{} is not what the Rust types say; make it anew as its first lines tell",
        file.display()
    );
}

#[test]
fn the_domain_types_of_the_view_are_as_declared() {
    let check = |state: SessionState, expected: Value| {
        assert_eq!(
            serde_json::to_value(state).expect("JSON"),
            expected,
            "DOMAIN_TYPESCRIPT must say the same"
        );
    };
    check(SessionState::Starting, json!({"state": "starting"}));
    check(SessionState::Idle, json!({"state": "idle"}));
    check(
        SessionState::Working { turn: None },
        json!({"state": "working", "turn": null}),
    );
    check(
        SessionState::AwaitingPerson {
            turn: None,
            ask: Ask::Permission,
        },
        json!({"state": "awaiting_person", "turn": null, "ask": "permission"}),
    );
    check(SessionState::Stopping, json!({"state": "stopping"}));
    check(
        SessionState::Exited { code: Some(1) },
        json!({"state": "exited", "code": 1}),
    );
}

#[test]
fn an_explanation_and_an_answer_are_as_declared() {
    let keys = |value: &Value| -> Vec<String> {
        let fields = value.as_object().expect("an object");
        fields.keys().cloned().collect()
    };
    let explanation = session::Explanation {
        session: uuid::Uuid::nil().into(),
        state: SessionState::Idle,
        program: "claude 2.1".to_owned(),
        detector: "claude 1".to_owned(),
        turns: vec![session::TurnExplanation {
            turn: None,
            prompt_head: "p".to_owned(),
            outcome: None,
            class: None,
            rule: None,
            reason: None,
            evidence: domain::evidence::Evidence::default(),
            log: vec![session::LogEntry {
                at_ms: 1,
                source: "hook".to_owned(),
                rule: "r".to_owned(),
                what: "w".to_owned(),
            }],
        }],
        readings: vec![session::ReadingView {
            at_ms: 1,
            rule: "r".to_owned(),
            matched: "m".to_owned(),
            meaning: "ready".to_owned(),
        }],
    };
    let value = serde_json::to_value(&explanation).expect("JSON");
    // Each is a field of the type in DOMAIN_TYPESCRIPT, under the same name.
    let declared = |name: &str| {
        let text = view::DOMAIN_TYPESCRIPT;
        let start = text.find(&format!("export type {name} = {{")).expect("the type");
        let end = text[start..].find("};").expect("its end");
        text[start..start + end].to_owned()
    };
    for (name, value) in [
        ("Explanation", &value),
        ("TurnExplanation", &value["turns"][0]),
        ("TurnEvent", &value["turns"][0]["log"][0]),
        ("ReadingView", &value["readings"][0]),
    ] {
        let text = declared(name);
        let fields = keys(value);
        for field in &fields {
            assert!(
                text.contains(&format!("{field}: ")),
                "{name} has a field {field}: {text}"
            );
        }
        assert_eq!(
            text.matches(": ").count(),
            fields.len(),
            "{name} has no other: {text}"
        );
    }
    for (answer, expected) in [
        (AskAnswer::Allow, json!({"say": "allow"})),
        (
            AskAnswer::Deny {
                message: "m".to_owned(),
            },
            json!({"say": "deny", "message": "m"}),
        ),
        (
            AskAnswer::Choose { choice: 1 },
            json!({"say": "choose", "choice": 1}),
        ),
    ] {
        assert_eq!(serde_json::to_value(answer).expect("JSON"), expected);
    }
}

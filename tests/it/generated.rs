//! Generated files are committed and never edited: here they are made anew and compared. With
//! `SEMO_WRITE_GENERATED=1` the files are written instead.

use client::request::{Answer, ErrorCode, RequestError};
use client::view;
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
        view::ProfileView::decl(&config),
        view::ConnectionStatus::decl(&config),
        view::ConnectionView::decl(&config),
        view::OfficeView::decl(&config),
        view::AgentView::decl(&config),
        view::SessionView::decl(&config),
        view::CommandStatus::decl(&config),
        view::CommandView::decl(&config),
        view::Problem::decl(&config),
        view::RepositoryView::decl(&config),
        view::LimitsView::decl(&config),
        view::State::decl(&config),
        Answer::decl(&config),
        ErrorCode::decl(&config),
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

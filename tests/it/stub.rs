//! The stub of the model's API is a tool of all stories: here the real `claude` says that it understands it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use domain::marker::{Marker, MarkerSign};
use harness::claude::{ClaudeHome, program};
use harness::stub::{Reply, Stub};
use harness::wait::LONG;
use serde_json::Value;
use tempfile::TempDir;

/// Longest that one `claude -p` may take on a busy machine.
const LIMIT: Duration = LONG;

struct Place {
    stub: Stub,
    home: ClaudeHome,
    folder: TempDir,
}

impl Place {
    async fn new() -> Place {
        Place {
            stub: Stub::start().await.unwrap(),
            home: ClaudeHome::new(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Asks the program without a terminal and returns its own account of the end.
    async fn ask(&self, prompt: &str) -> Value {
        let run = tokio::process::Command::new(program())
            .args([
                "-p",
                "--output-format",
                "json",
                "--allowedTools",
                "Bash(echo *)",
                "--",
                prompt,
            ])
            .current_dir(self.folder.path())
            .env_clear()
            .envs(self.home.env(&self.stub.url()))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(LIMIT, run)
            .await
            .expect("claude ends in time")
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_and_its_persona_arrive_word_for_word_and_the_answer_carries_the_asked_for_marker() {
    let place = Place::new().await;
    std::fs::create_dir(place.folder().join(".claude")).unwrap();
    std::fs::write(
        place.folder().join(".claude/CLAUDE.md"),
        "You are Mina of the front end.",
    )
    .unwrap();
    let marker = Marker::Code("7f3a".into());
    let prompt = format!("첫 번째 줄\nsecond line\n\n{}", marker.instruction().unwrap());

    let end = place.ask(&prompt).await;

    let message = end["result"].as_str().unwrap();
    assert_eq!(marker.sign_in(message), MarkerSign::Present, "{message}");
    let turns = place.stub.turns();
    assert_eq!(
        turns[0].prompt(),
        Some(prompt.as_str()),
        "nothing is added to the prompt, nothing lost"
    );
    assert!(
        turns[0].user_text().contains("You are Mina of the front end."),
        "the persona travels along"
    );
    assert!(!turns[0].system().is_empty() && turns[0].session.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_is_really_used_and_its_result_comes_back() {
    let place = Place::new().await;
    let end = place.ask("Please do scn=bash:echo+from+the+tool").await;
    assert_eq!(end["is_error"], false, "{end}");
    let turns = place.stub.turns();
    assert_eq!(turns.len(), 2, "one request for the tool, one with its result");
    assert_eq!(turns[1].tool_results(), ["from the tool"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_asked_for_again() {
    let place = Place::new().await;
    let end = place.ask("scn=cutonce").await;
    assert!(
        end["result"]
            .as_str()
            .unwrap()
            .contains("The second try is whole."),
        "{end}"
    );
    assert!(place.stub.turns().len() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_api_is_told_as_one() {
    let place = Place::new().await;
    let end = place.ask("scn=err400").await;
    assert_eq!(
        (&end["is_error"], &end["api_error_status"]),
        (&true.into(), &400.into()),
        "{end}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_may_answer_by_a_rule_of_its_own() {
    let place = Place::new().await;
    place.stub.reply_with(|request| {
        let prompt = request.prompt()?;
        Some(Reply::text(&format!("{} characters", prompt.chars().count())))
    });
    let end = place.ask("안녕").await;
    assert_eq!(end["result"], "2 characters");
}

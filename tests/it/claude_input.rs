//! How prompts get into the real program when it is not at rest, and what its turns leave behind as facts.

use std::time::Duration;

use domain::evidence::Tier;
use domain::marker::Marker;
use harness::claude::ClaudeHome;
use serde_json::Value;
use session::{TurnReport, WhichTurn};
use terminal::Size;

use crate::claude_session::{Hooks, LIMIT, Place, sleeps};

/// A session whose agent may use its shell.
async fn with_shell(hooks: Hooks) -> Place {
    let allowed = &["--allowedTools", "Bash(*)"];
    Place::started(hooks, ClaudeHome::new(), |home, url| home.env(url), allowed).await
}

fn values(report: &TurnReport, what: &str) -> Vec<Value> {
    let claims = report.evidence.claims.iter().filter(|claim| claim.what == what);
    claims.map(|claim| claim.value.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_prompt_arrives_whole_and_what_stood_in_the_box_is_no_part_of_it() {
    let mut place = Place::new().await;
    place.ready().await;
    place.keys("left over\\\rin two lines").await;
    place.shows("in two lines").await;
    let head = "scn=text ";
    let filler = "0123456789 ".repeat(domain::command::PROMPT_BYTES_MAX / 11);
    let prompt = format!(
        "{head}{}",
        &filler[..domain::command::PROMPT_BYTES_MAX - head.len() - 1]
    );
    let prompt = prompt.trim_end();
    place.does(prompt).await;
    let arrived = place.prompts().pop().unwrap();
    assert_eq!((arrived.len(), arrived.trim() == prompt), (prompt.len(), true));
    place.does("scn=text short").await;
    assert_eq!(place.prompts().len(), 2, "each is submitted once");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_wait_in_order_and_each_is_submitted_once() {
    let mut place = Place::new().await;
    // Before it is ready, while it works, and one right behind the other.
    let prompts: Vec<String> = (0..5).map(|n| format!("number {n} scn=text")).collect();
    let turns: Vec<_> = prompts
        .iter()
        .map(|prompt| place.submit(prompt, Marker::Plain, LIMIT))
        .collect();
    for turn in turns {
        place.done(turn).await;
    }
    let arrived: Vec<String> = place
        .prompts()
        .iter()
        .map(|prompt| prompt.trim().to_owned())
        .collect();
    assert_eq!(arrived, prompts);
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_tools_in_a_row_and_a_window_that_changes_its_size_in_mid_stream_change_nothing() {
    let mut place = with_shell(Hooks::Delivered).await;
    let report = place.does("scn=bashn:5").await;
    assert_eq!(values(&report, "command").len(), 5);
    let turn = place.submit("scn=slow:12", Marker::Plain, LIMIT);
    place.shows("● slow:0").await;
    for (cols, rows) in [(60, 20), (140, 45), (90, 30)] {
        place.session.resize(Size { cols, rows }).unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    place.done(turn).await;
    place.does("scn=text").await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_taken_once_though_somebody_changes_the_windows_size_all_the_while() {
    let mut place = with_shell(Hooks::Delivered).await;
    for _ in 0..3 {
        let turn = place.submit("scn=slow:4", Marker::Plain, LIMIT);
        for step in 0..20 {
            let cols = 90 + 10 * (step % 5);
            place.session.resize(Size { cols, rows: 30 }).unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        place.done(turn).await;
    }
    assert_eq!(place.prompts().len(), 3, "each is submitted once");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_while_a_command_runs_ends_the_command() {
    let mut place = with_shell(Hooks::Delivered).await;
    let turn = place.submit("scn=bash:sleep+31536", Marker::Plain, LIMIT);
    harness::wait::wait_until("the command runs", LIMIT, || async { sleeps(&place.home) > 0 }).await;
    place.session.cancel(WhichTurn::Current).unwrap();
    place.cancelled(turn).await;
    harness::wait::wait_until("the command is gone", LIMIT, || async {
        sleeps(&place.home) == 0
    })
    .await;
    place.does("scn=text").await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_pull_requests_and_failed_commands_are_facts_with_and_without_hooks() {
    for hooks in [Hooks::Delivered, Hooks::Lost] {
        let mut place = with_shell(hooks).await;
        let commit = "git+-c+user.name=a+-c+user.email=a@b.c+commit+-q+--allow-empty+-m+feat:x";
        let push = "git+push+-q+.+HEAD:refs/heads/pushed";
        let prompt = format!("scn=bash:{commit}&&{push}&&echo+https://github.com/o/r/pull/77&&touch+new");
        let report = place.does(&prompt).await;
        let pull_request = report.evidence.best("pull_request").unwrap();
        assert_eq!(
            (pull_request.value["number"].clone(), pull_request.tier),
            (77.into(), Tier::Observed)
        );
        let made = report.evidence.best("commit").unwrap();
        assert_eq!(
            (made.value["subject"].clone(), made.tier),
            ("feat:x".into(), Tier::Verified)
        );
        assert_eq!(
            report.evidence.best("head_after").unwrap().value,
            made.value["sha"]
        );
        assert_eq!(values(&report, "uncommitted"), [Value::from(true)]);
        assert_eq!(values(&report, "untracked"), [Value::from(1)]);
        let report = place.turn("scn=bash:echo+https://github.com/o/r/pull/78").await;
        let (made, mentioned) = ("pull_request", "pull_request_mentioned");
        assert_eq!(
            (values(&report, made).len(), values(&report, mentioned).len()),
            (0, 1),
            "{report:?}"
        );
        let report = place.turn("scn=bash:exit+3").await;
        let command = report.evidence.best("command").unwrap();
        assert_eq!(
            (&command.value["ok"], &command.value["exit_code"]),
            (&false.into(), &3.into())
        );
        let report = place.turn("scn=bash:make+test").await;
        assert_eq!(
            report.evidence.best("command").unwrap().value["test"],
            true,
            "{report:?}"
        );
        place.end().await;
    }
}

//! The follower alone, with invented times: what each channel says, and what is made of it when others are silent,
//! late, doubled or out of order.

use domain::TurnId;
use domain::marker::Marker;
use domain::turn::TurnOutcome;
use provider::claude::{HookEvent, HookHead, HookKind, TranscriptFact};
use provider::detect::{InputBox, ScreenMeaning};
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

mod ends;
mod taken_up;

pub(super) const PROMPT: &str = "please do it";
pub(super) const OURS: &str = "prompt-of-ours";
pub(super) const DONE: &str = "All is well.\n\n[SEMO:DONE]";

pub(super) fn reading(meaning: ScreenMeaning) -> Reading {
    Reading {
        rule: format!("test/{}", meaning.name()).into(),
        matched: String::new(),
        row: None,
        meaning,
    }
}

fn input(text: &str) -> InputBox {
    InputBox {
        text: text.to_owned(),
        empty: text.is_empty(),
    }
}

pub(super) fn ready() -> Reading {
    reading(ScreenMeaning::Ready(input("")))
}

pub(super) fn busy() -> Reading {
    reading(ScreenMeaning::Busy(input("")))
}

pub(super) fn event(prompt: Option<&str>, kind: HookKind) -> HookEvent {
    HookEvent {
        head: HookHead {
            hook_event_name: String::new(),
            session_id: "s".into(),
            transcript_path: "/t.jsonl".into(),
            cwd: "/w".into(),
            agent_id: None,
            prompt_id: prompt.map(str::to_owned),
        },
        kind,
    }
}

pub(super) fn prompt_hook(id: &str, prompt: &str) -> HookEvent {
    let kind = HookKind::PromptSubmitted {
        prompt: prompt.into(),
    };
    event(Some(id), kind)
}

pub(super) fn stop(id: &str, message: &str, background: &[&str]) -> HookEvent {
    stop_of(Some(id), message, background, false)
}

pub(super) fn stop_of(id: Option<&str>, message: &str, background: &[&str], again: bool) -> HookEvent {
    let kind = HookKind::Stop {
        last_message: message.into(),
        background: background.iter().map(|id| (*id).to_owned()).collect(),
        again,
    };
    event(id, kind)
}

pub(super) fn note(id: &str, task: &str) -> HookEvent {
    prompt_hook(
        id,
        &format!("<task-notification>\n<task-id>{task}</task-id>\n</task-notification>"),
    )
}

pub(super) fn fact(prompt: Option<&str>, fact: TranscriptFact) -> DatedFact {
    DatedFact {
        at: None,
        prompt: prompt.map(str::to_owned),
        fact,
    }
}

pub(super) fn said(text: &str) -> TranscriptFact {
    TranscriptFact::AssistantText {
        text: text.into(),
        stop_reason: Some("end_turn".into()),
    }
}

pub(super) const END: TranscriptFact = TranscriptFact::TurnDuration {
    ms: 1,
    pending_agents: 0,
};

fn prompted() -> TranscriptFact {
    TranscriptFact::UserPrompt { text: PROMPT.into() }
}

pub(super) fn expected(turn: u128, marker: Marker) -> Expected {
    Expected {
        turn: Some(TurnId(Uuid::from_u128(turn))),
        prompt: PROMPT.into(),
        marker,
        patterns: OfficePatterns::default(),
    }
}

/// A follower with its own clock.
struct Case {
    follower: Follower,
    now: u64,
}

impl Case {
    /// A turn of ours, taken.
    fn taken(source: &'static str) -> Case {
        let mut case = Case::begun(Witnesses::ALL);
        case.see(Observation::Submitted { source, enters: 1 });
        case
    }

    fn begun(witnesses: Witnesses) -> Case {
        let mut case = Case {
            follower: Follower::new(witnesses),
            now: 0,
        };
        case.see(Observation::Activity(Some(Activity::Idle)));
        case.screen(&ready());
        case.see(Observation::Began(expected(1, Marker::Plain)));
        case
    }

    fn hooked() -> Case {
        let mut case = Case::taken("hook");
        case.hook(&prompt_hook(OURS, PROMPT));
        case
    }

    fn see(&mut self, what: Observation<'_>) {
        self.now += 10;
        self.follower.observe(self.now, what);
    }

    fn hook(&mut self, event: &HookEvent) {
        self.see(Observation::Hook(event));
    }

    fn fact(&mut self, what: TranscriptFact) {
        self.see(Observation::Fact(fact(Some(OURS), what)));
    }

    fn screen(&mut self, reading: &Reading) {
        self.see(Observation::Screen { reading, turn: None });
    }

    /// The program rests from here on.
    fn rests(&mut self) {
        self.see(Observation::Activity(Some(Activity::Idle)));
        self.screen(&ready());
    }

    fn verdict(&mut self) -> Option<&'static str> {
        self.follower.verdict(self.now).map(|verdict| verdict.rule)
    }

    fn after(&mut self, ms: u64) -> Option<&'static str> {
        self.now += ms;
        self.verdict()
    }

    fn claims(&self, what: &str) -> Vec<Value> {
        let explanation = self.follower.explain();
        let turn = explanation.turns.last().expect("a turn");
        let claims = turn.evidence.claims.iter();
        let claims = claims.filter(|claim| claim.what == what);
        claims.map(|claim| claim.value.clone()).collect()
    }
}

#[test]
fn a_stop_that_the_transcript_agrees_with_is_done_as_soon_as_the_end_is_recorded() {
    let mut case = Case::hooked();
    case.fact(said(DONE));
    case.hook(&stop(OURS, DONE, &[]));
    assert_eq!(
        case.verdict(),
        None,
        "a stop hook of the project's own may object"
    );
    case.fact(END);
    assert_eq!(case.verdict(), Some("stop-with-marker"));
    assert_eq!(case.verdict(), None, "once");
}

#[test]
fn a_late_or_missing_transcript_is_waited_for_and_then_done_without() {
    let mut case = Case::hooked();
    case.hook(&stop(OURS, DONE, &[]));
    assert_eq!(case.verdict(), None);
    case.fact(said(DONE));
    case.fact(END);
    assert_eq!(case.verdict(), Some("stop-with-marker"));
    let mut case = Case::hooked();
    case.hook(&stop(OURS, DONE, &[]));
    assert_eq!(case.after(1_900), None);
    assert_eq!(case.after(200), Some("stop-with-marker"));
}

#[test]
fn a_transcript_with_another_last_word_disputes_the_stop() {
    let mut case = Case::hooked();
    case.fact(said("Tests fail."));
    case.hook(&stop(OURS, DONE, &[]));
    assert_eq!(case.verdict(), None, "the last word may still come");
    case.fact(END);
    assert_eq!(case.verdict(), Some("stop-disputed"));
}

#[test]
fn a_stop_that_comes_twice_ends_one_turn_and_not_the_next_one() {
    let mut case = Case::hooked();
    case.fact(said(DONE));
    case.hook(&stop(OURS, DONE, &[]));
    case.hook(&stop(OURS, DONE, &[]));
    case.fact(END);
    assert_eq!(case.verdict(), Some("stop-with-marker"));
    case.follower.finish();
    case.see(Observation::Began(expected(2, Marker::Plain)));
    case.hook(&stop(OURS, DONE, &[]));
    case.hook(&prompt_hook(OURS, PROMPT));
    case.see(Observation::Submitted {
        source: "status",
        enters: 1,
    });
    case.hook(&stop(OURS, DONE, &[]));
    case.fact(said(DONE));
    case.fact(END);
    case.rests();
    assert_eq!(case.after(5_000), None, "all of that is the first turn's");
    case.rests();
    assert_eq!(case.after(10_000), Some("idle-without-stop"));
}

#[test]
fn a_stop_before_the_word_that_the_prompt_was_taken_is_kept_for_it() {
    let mut case = Case::begun(Witnesses::ALL);
    case.hook(&stop(OURS, DONE, &[]));
    case.hook(&prompt_hook(OURS, PROMPT));
    assert_eq!(case.follower.acknowledged_by(), Some("hook"));
    case.see(Observation::Submitted {
        source: "hook",
        enters: 1,
    });
    case.fact(said(DONE));
    case.fact(END);
    assert_eq!(case.verdict(), Some("stop-with-marker"));
}

#[test]
fn a_lost_acknowledgement_is_made_up_for_by_the_transcript() {
    let mut case = Case::taken("status");
    case.hook(&stop(OURS, DONE, &[]));
    assert_eq!(case.after(3_000), None, "whose stop that is, is not known yet");
    case.fact(prompted());
    case.fact(said(DONE));
    case.fact(END);
    assert_eq!(case.verdict(), Some("stop-with-marker"));
}

#[test]
fn a_stop_that_nobody_can_place_is_unconfirmed_unless_it_carries_this_turns_code() {
    let mut case = Case::taken("status");
    case.hook(&stop("who-knows", DONE, &[]));
    case.rests();
    case.after(2_100);
    assert_eq!(case.after(2_100), Some("stop-uncertain"));

    let mut case = Case::begun(Witnesses::ALL);
    case.see(Observation::Began(expected(2, Marker::Code("7f3a".into()))));
    case.see(Observation::Submitted {
        source: "status",
        enters: 1,
    });
    case.hook(&stop("who-knows", "ok\n[SEMO:DONE 7f3a]", &[]));
    case.rests();
    case.after(2_100);
    assert_eq!(case.after(2_100), Some("stop-with-marker"));
}

#[test]
fn without_any_hook_the_transcript_alone_ends_the_turn_and_fails_it() {
    let mut case = Case::taken("transcript");
    case.fact(prompted());
    case.fact(said(DONE));
    case.rests();
    assert_eq!(case.after(3_000), None, "an answer is no end");
    case.fact(END);
    assert_eq!(case.verdict(), Some("stop-with-marker"));

    let mut case = Case::taken("transcript");
    case.fact(prompted());
    case.fact(TranscriptFact::ApiError {
        status: Some(529),
        error: "server_error".into(),
        message: "Repeated 529 Overloaded errors".into(),
    });
    assert_eq!(case.verdict(), None, "the program may try again by itself");
    case.fact(END);
    let verdict = case.follower.verdict(case.now).unwrap();
    assert!(matches!(
        verdict.outcome,
        TurnOutcome::Failed {
            class: FailureClass::Overloaded,
            ..
        }
    ));
}

#[test]
fn clocks_say_nothing_and_lines_that_cannot_be_traced_make_nothing_certain() {
    let mut case = Case::taken("transcript");
    for (prompt, what) in [
        (Some("older"), said("Old.\n[SEMO:DONE]")),
        (Some("older"), END),
        (Some("older"), TranscriptFact::Interrupted),
    ] {
        case.see(Observation::Fact(fact(prompt, what)));
    }
    case.fact(prompted());
    case.rests();
    assert_eq!(case.after(3_000), None);
    for what in [said(DONE), END] {
        case.see(Observation::Fact(fact(None, what)));
    }
    assert_eq!(case.verdict(), Some("stop-uncertain"));
}

#[test]
fn background_work_is_no_end_until_its_agent_was_woken_and_stopped_again() {
    let mut case = Case::hooked();
    case.fact(said("Started.\n[SEMO:DONE]"));
    case.hook(&stop(OURS, "Started.\n[SEMO:DONE]", &["b1"]));
    case.fact(END);
    case.see(Observation::Activity(Some(Activity::Background)));
    case.screen(&ready());
    assert_eq!(case.after(60_000), None, "for as long as it runs");
    case.hook(&note("woken", "b1"));
    assert_eq!(case.after(100), None);
    case.see(Observation::Fact(fact(Some("woken"), said(DONE))));
    case.hook(&stop("woken", DONE, &[]));
    // The first stop once more, late.
    case.hook(&stop(OURS, "Started.\n[SEMO:DONE]", &["b1"]));
    assert_eq!(case.verdict(), None);
    case.see(Observation::Fact(fact(Some("woken"), END)));
    assert_eq!(case.verdict(), Some("stop-with-marker"));
    let finished = case.follower.finish().unwrap();
    assert_eq!(finished.final_message.as_deref(), Some(DONE));
}

#[test]
fn with_lost_hooks_the_transcript_tells_of_background_work_too() {
    let mut case = Case::taken("transcript");
    case.fact(prompted());
    case.fact(TranscriptFact::ToolUse {
        id: "t".into(),
        name: "Bash".into(),
        input: json!({"command": "sleep 9"}),
    });
    case.fact(TranscriptFact::ToolResult {
        id: "t".into(),
        ok: true,
        text: "Command running in background with ID: b1".into(),
        response: json!({"stdout": "", "backgroundTaskId": "b1"}),
    });
    case.fact(said(DONE));
    case.fact(END);
    case.see(Observation::Activity(Some(Activity::Background)));
    case.screen(&ready());
    assert_eq!(case.after(30_000), None);
    let woken = TranscriptFact::Notified {
        tasks: vec!["b1".into()],
    };
    for what in [woken, said(DONE), END] {
        case.see(Observation::Fact(fact(Some("woken"), what)));
    }
    case.rests();
    assert_eq!(case.after(2_100), Some("stop-with-marker"));
}

#[test]
fn a_running_sub_agent_and_its_own_end_are_no_end_of_the_turn() {
    let of_agent = |kind| {
        let mut event = event(Some(OURS), kind);
        event.head.agent_id = Some("a1".into());
        event
    };
    let mut case = Case::hooked();
    case.hook(&of_agent(HookKind::SubagentStart));
    let HookEvent { kind, .. } = stop(OURS, DONE, &[]);
    case.hook(&of_agent(kind));
    assert_eq!(case.after(10_000), None, "a sub-agent's stop is not the agent's");
    case.hook(&of_agent(HookKind::SubagentStop));
    case.fact(said(DONE));
    case.hook(&stop(OURS, DONE, &[]));
    case.fact(END);
    assert_eq!(case.verdict(), Some("stop-with-marker"));
}

#[test]
fn work_that_ended_just_before_the_stop_may_wake_the_agent_yet() {
    let mut case = Case::hooked();
    let launched = HookKind::ToolDone {
        name: "Bash".into(),
        input: json!({"command": "sleep 1"}),
        response: json!({"stdout": "", "backgroundTaskId": "b1"}),
        duration_ms: None,
        ok: true,
        id: Some("t".into()),
    };
    case.hook(&event(Some(OURS), launched));
    case.fact(said(DONE));
    case.hook(&stop(OURS, DONE, &[]));
    assert_eq!(case.after(1_000), None);
    assert_eq!(case.after(2_000), Some("stop-with-marker"));
}

#[test]
fn what_an_older_turn_left_running_does_not_hold_up_the_next_ones() {
    let mut case = Case::hooked();
    case.hook(&stop(OURS, "Server runs.", &["server"]));
    case.see(Observation::TimeLimit);
    assert_eq!(case.verdict(), Some("time-limit-with-background-work"));
    case.follower.finish();
    case.see(Observation::Began(expected(2, Marker::Plain)));
    case.hook(&prompt_hook("second", PROMPT));
    case.see(Observation::Submitted {
        source: "hook",
        enters: 1,
    });
    case.see(Observation::Fact(fact(Some("second"), said(DONE))));
    case.hook(&stop("second", DONE, &["server"]));
    case.see(Observation::Fact(fact(Some("second"), END)));
    assert_eq!(case.verdict(), Some("stop-with-marker"));
}

#[test]
fn a_cancel_with_background_work_needs_the_end_of_the_session() {
    let mut case = Case::hooked();
    case.hook(&stop(OURS, DONE, &["b1"]));
    case.rests();
    case.see(Observation::CancelRequested);
    assert_eq!(case.verdict(), None);
    assert!(case.follower.cancel_needs_the_end(case.now));
    case.see(Observation::StopRequested);
    // Its command is killed first, and the dying agent makes something of that.
    case.hook(&note("woken", "b1"));
    case.hook(&stop("woken", DONE, &[]));
    assert_eq!(case.verdict(), None);
    case.see(Observation::EndedOnRequest);
    assert_eq!(case.verdict(), Some("session-ended"));
}

#[test]
fn a_cancel_is_seen_although_no_hook_tells_of_it() {
    let mut case = Case::hooked();
    case.screen(&busy());
    case.see(Observation::CancelRequested);
    case.see(Observation::InterruptSent);
    assert_eq!(case.verdict(), None);
    case.rests();
    assert_eq!(case.after(100), None, "its status file lags");
    assert_eq!(case.after(400), Some("cancel-proven"));

    // At the keyboard, before any answer: the prompt stands in the box again and nothing is written down.
    let mut case = Case::hooked();
    case.see(Observation::Activity(Some(Activity::Idle)));
    case.screen(&reading(ScreenMeaning::Ready(input(PROMPT))));
    assert_eq!(case.after(2_100), Some("interrupted-at-keyboard"));
}

#[test]
fn a_prompt_that_stood_in_the_box_until_it_was_taken_was_not_put_back() {
    let mut case = Case::begun(Witnesses::ALL);
    let pasted = reading(ScreenMeaning::Ready(input(PROMPT)));
    case.screen(&pasted);
    case.now += 5_000;
    case.screen(&pasted);
    case.hook(&prompt_hook(OURS, PROMPT));
    case.see(Observation::Submitted {
        source: "hook",
        enters: 1,
    });
    assert_eq!(case.verdict(), None);
    case.screen(&pasted);
    assert_eq!(case.after(1_000), None);
}

#[test]
fn an_idle_program_that_told_nothing_is_unconfirmed_after_a_while() {
    let mut case = Case::hooked();
    case.rests();
    assert_eq!(case.after(7_000), None);
    assert_eq!(case.after(1_100), Some("idle-without-stop"));
}

#[test]
fn a_retry_is_told_at_once_and_ends_nothing() {
    let mut case = Case::hooked();
    case.screen(&busy());
    let retry = Retry {
        class: None,
        attempt: 1,
        max: 10,
        next_in_s: Some(1),
        words: "API error · Retrying in 1s · attempt 1/10".into(),
    };
    case.see(Observation::Retry(Some(retry.clone())));
    case.see(Observation::Retry(Some(retry.clone())));
    assert_eq!(case.follower.news(), Some(News::Retrying(Some(retry))));
    assert_eq!(case.follower.news(), None, "the same one is told once");
    assert_eq!(case.after(170_000), None);
    case.fact(said(DONE));
    case.hook(&stop(OURS, DONE, &[]));
    case.fact(END);
    assert_eq!(case.verdict(), Some("stop-with-marker"));
    assert_eq!(
        case.follower.news(),
        Some(News::Retrying(None)),
        "and that it is over"
    );
    assert_eq!(case.claims("retries").len(), 0);
    case.follower.finish();
    assert_eq!(case.claims("retries").len(), 1);
}

#[test]
fn a_limit_says_when_it_is_lifted() {
    let mut case = Case::hooked();
    let now = Timestamp::parse_rfc3339("2026-11-21T09:00:00Z").unwrap();
    case.follower.tell_time(now);
    let limit = HookKind::StopFailure {
        error: "rate_limit".into(),
        detail: "You've hit your session limit · resets 11am (UTC)".into(),
    };
    case.hook(&event(Some(OURS), limit));
    let verdict = case.follower.verdict(case.now).unwrap();
    let TurnOutcome::Failed { class, retry_at, .. } = verdict.outcome else {
        panic!("{verdict:?}")
    };
    assert_eq!(class, FailureClass::RateLimit);
    assert_eq!(retry_at, Timestamp::parse_rfc3339("2026-11-21T11:00:00Z"));
}

#[test]
fn a_person_at_the_keyboard_has_turns_of_their_own() {
    let mut case = Case {
        follower: Follower::new(Witnesses::ALL),
        now: 0,
    };
    case.screen(&ready());
    case.hook(&prompt_hook("typed", "hello"));
    assert_eq!(*case.follower.state(), SessionState::Working { turn: None });
    case.hook(&stop("typed", "Hi.", &[]));
    assert_eq!(case.after(2_100), Some("stop-no-marker-asked"));
    assert_eq!(*case.follower.state(), SessionState::Idle);
    let explanation = case.follower.explain();
    assert_eq!(
        (
            explanation.turns[0].turn.as_deref(),
            &*explanation.turns[0].prompt_head
        ),
        (None, "hello")
    );
}

fn permission(command: &str) -> HookEvent {
    let kind = HookKind::PermissionRequest {
        tool: "Bash".into(),
        input: json!({ "command": command }),
    };
    event(Some(OURS), kind)
}

fn dialog() -> Reading {
    reading(ScreenMeaning::Dialog(provider::detect::Dialog::Permission))
}

#[test]
fn an_ask_comes_once_and_ends_once_whoever_sees_it_first() {
    let mut case = Case::hooked();
    case.screen(&busy());
    case.screen(&dialog());
    assert_eq!(
        case.follower.news(),
        None,
        "its hook says more, and comes at the same time"
    );
    case.hook(&permission("rm x"));
    case.hook(&permission("rm x"));
    let Some(News::Asked(seen)) = case.follower.news() else {
        panic!("it was not told")
    };
    assert!(seen.text.contains("rm x"));
    assert_eq!(case.follower.news(), None);
    assert!(matches!(
        case.follower.state(),
        SessionState::AwaitingPerson { turn: Some(_), .. }
    ));
    case.screen(&busy());
    assert_eq!(case.follower.news(), None, "a redraw is no answer");
    case.now += 600;
    case.screen(&busy());
    assert_eq!(
        case.follower.news(),
        Some(News::AskOver(seen.key, AskOver::AtTerminal))
    );
    assert!(matches!(
        case.follower.state(),
        SessionState::Working { turn: Some(_) }
    ));
    case.follower.ask_released(seen.key);
    assert!(!case.follower.close_ask(seen.key, Some(AskOver::AtTerminal)));
    assert_eq!(case.follower.news(), None);
}

#[test]
fn an_ask_that_is_not_drawn_yet_is_not_taken_for_answered() {
    let mut case = Case::hooked();
    case.screen(&busy());
    case.hook(&permission("touch a"));
    assert!(matches!(case.follower.news(), Some(News::Asked(_))));
    case.now += 1_000;
    case.screen(&busy());
    assert_eq!(case.follower.news(), None);
    case.screen(&dialog());
    let done = HookKind::ToolDone {
        name: "Bash".into(),
        input: json!({"command": "touch a"}),
        response: json!({"stdout": ""}),
        duration_ms: None,
        ok: true,
        id: None,
    };
    case.hook(&event(Some(OURS), done));
    assert!(matches!(
        case.follower.news(),
        Some(News::AskOver(_, AskOver::AtTerminal))
    ));
}

#[test]
fn a_request_that_is_dropped_leaves_an_ask_whose_dialog_stands() {
    let mut case = Case::hooked();
    case.hook(&permission("touch a"));
    let Some(News::Asked(seen)) = case.follower.news() else {
        panic!("it was not told")
    };
    case.screen(&dialog());
    case.follower.ask_released(seen.key);
    case.now += 60_000;
    case.screen(&dialog());
    assert_eq!(case.follower.news(), None, "our endpoint was restarted, say");
    case.see(Observation::CancelRequested);
    for _ in 0..2 {
        case.screen(&ready());
        case.now += 600;
    }
    let over = News::AskOver(seen.key, AskOver::Withdrawn("the turn was interrupted"));
    assert_eq!(case.follower.news(), Some(over));
}

#[test]
fn an_ask_is_withdrawn_with_its_turn() {
    let mut case = Case::hooked();
    case.hook(&permission("touch a"));
    assert!(matches!(case.follower.news(), Some(News::Asked(_))));
    case.fact(TranscriptFact::Interrupted);
    assert_eq!(case.verdict(), Some("interrupted-at-keyboard"));
    assert!(matches!(
        case.follower.news(),
        Some(News::AskOver(_, AskOver::Withdrawn(_)))
    ));
}

#[test]
fn what_is_kept_to_explain_is_bounded() {
    let mut case = Case::hooked();
    for n in 0..1_000 {
        let kind = HookKind::ToolUse {
            name: format!("Tool{n}"),
            input: json!({}),
            id: None,
        };
        case.hook(&event(Some(OURS), kind));
        let reading = if n % 2 == 0 { busy() } else { dialog() };
        case.screen(&reading);
    }
    let explanation = case.follower.explain();
    assert!(explanation.turns[0].log.len() <= explain::LOG_MAX);
    assert!(explanation.readings.len() <= 50);
}

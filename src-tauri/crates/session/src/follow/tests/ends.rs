//! Ends that are none, that are another turn's, or that come together with something else.

use super::*;

fn prod() -> TranscriptFact {
    TranscriptFact::Prodded { by_stop_hook: true }
}

const LATER: &str = "With tests.\n\n[SEMO:DONE]";

#[test]
fn a_stop_that_a_hook_of_the_project_objects_to_is_no_end() {
    // The hook runs for long, and the program is seen to wait for it.
    let mut case = Case::hooked();
    case.see(Observation::Activity(Some(Activity::Busy)));
    case.screen(&busy());
    case.fact(said(DONE));
    case.hook(&stop(OURS, DONE, &[]));
    assert_eq!(case.after(30_000), None);
    case.fact(prod());
    assert_eq!(case.verdict(), None);
    // The first one once more, late.
    case.hook(&stop(OURS, DONE, &[]));
    assert_eq!(case.after(5_000), None);
    case.fact(said(LATER));
    case.hook(&stop_of(Some(OURS), LATER, &[], true));
    assert_eq!(case.after(3_000), None, "the end itself is wanted now");
    case.fact(END);
    assert_eq!(case.verdict(), Some("stop-with-marker"));
    let finished = case.follower.finish().unwrap();
    assert_eq!(finished.final_message.as_deref(), Some(LATER));
}

#[test]
fn a_stop_is_no_end_when_the_agent_is_seen_to_go_on() {
    let tool = |id: &str| TranscriptFact::ToolUse {
        id: id.into(),
        name: "Bash".into(),
        input: json!({}),
    };
    for goes_on in [said("One more thing."), tool("t")] {
        let mut case = Case::hooked();
        case.fact(tool("t0"));
        case.fact(said(DONE));
        case.hook(&stop(OURS, DONE, &[]));
        case.fact(goes_on);
        assert_eq!(case.after(6_000), None);
        case.fact(said("Half of it is left."));
        case.fact(END);
        case.rests();
        assert_eq!(case.after(2_100), Some("stop-without-marker"));
    }
    let mut case = Case::hooked();
    case.hook(&stop(OURS, DONE, &[]));
    let kind = HookKind::ToolUse {
        name: "Bash".into(),
        input: json!({}),
        id: None,
    };
    case.hook(&event(Some(OURS), kind));
    assert_eq!(case.after(6_000), None, "the hooks alone tell it too");
}

#[test]
fn after_an_objection_only_the_recorded_end_or_a_long_rest_is_an_end() {
    let mut case = Case::hooked();
    case.hook(&stop_of(Some(OURS), DONE, &[], true));
    assert_eq!(case.after(5_000), None);
    case.rests();
    assert_eq!(case.after(1_900), None);
    assert_eq!(case.after(200), Some("stop-with-marker"));
}

#[test]
fn an_overruled_stop_hook_is_known_from_the_record_whoever_tells_the_stop() {
    for last_stop_is_heard in [true, false] {
        let mut case = Case::hooked();
        case.fact(said(DONE));
        if last_stop_is_heard {
            case.hook(&stop_of(Some(OURS), DONE, &[], true));
        }
        case.fact(prod());
        case.fact(TranscriptFact::Overruled);
        case.fact(END);
        assert_eq!(case.verdict(), Some("stop-overruled"));
    }
}

#[test]
fn a_program_that_goes_right_after_its_end_is_judged_by_its_record() {
    for ours_to_end in [true, false] {
        let mut case = Case::hooked();
        case.fact(said(DONE));
        case.fact(END);
        assert_eq!(case.verdict(), None);
        if ours_to_end {
            case.see(Observation::StopRequested);
            case.see(Observation::EndedOnRequest);
        }
        case.see(Observation::Exit(Some(0)));
        case.follower.settle_now(case.now);
        assert_eq!(case.verdict(), Some("stop-with-marker"));
    }
    // A stop that was told, and nothing else: there is an end to it all the same.
    let mut case = Case::hooked();
    case.hook(&stop(OURS, DONE, &[]));
    case.see(Observation::Exit(Some(0)));
    case.follower.settle_now(case.now);
    assert_eq!(case.verdict(), Some("stop-with-marker"));
    // One that a hook was still deciding about.
    let mut case = Case::hooked();
    case.see(Observation::Activity(Some(Activity::Busy)));
    case.screen(&busy());
    case.hook(&stop(OURS, DONE, &[]));
    case.see(Observation::Exit(None));
    case.follower.settle_now(case.now);
    assert_eq!(case.verdict(), Some("stop-uncertain"));
}

#[test]
fn an_interrupt_that_comes_after_the_recorded_end_cancels_nothing() {
    let mut case = Case::hooked();
    case.screen(&busy());
    case.fact(said(DONE));
    case.see(Observation::CancelRequested);
    case.see(Observation::InterruptSent);
    case.fact(END);
    case.rests();
    assert_eq!(case.after(500), Some("stop-with-marker"));
    // While a stop hook was deciding, it was the interrupt that ended it.
    let mut case = Case::hooked();
    case.screen(&busy());
    case.fact(said(DONE));
    case.hook(&stop(OURS, DONE, &[]));
    case.see(Observation::CancelRequested);
    case.see(Observation::InterruptSent);
    case.fact(TranscriptFact::Interrupted);
    assert_eq!(case.verdict(), Some("cancel-proven"));
}

/// A turn that has left `server` running, and the next one, taken under the id `second`.
fn after_a_turn_with_a_server() -> Case {
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
    case
}

#[test]
fn work_of_an_earlier_turn_that_wakes_the_agent_ends_nothing_of_the_running_one() {
    let woken = TranscriptFact::Notified {
        tasks: vec!["server".into()],
    };
    for by_hook in [true, false] {
        let mut case = after_a_turn_with_a_server();
        if by_hook {
            case.hook(&note("woken", "server"));
        } else {
            case.see(Observation::Fact(fact(Some("woken"), woken.clone())));
        }
        for what in [said(DONE), END] {
            case.see(Observation::Fact(fact(Some("woken"), what)));
        }
        case.hook(&stop("woken", DONE, &[]));
        case.rests();
        assert_eq!(case.after(4_000), None);
    }
}

#[test]
fn work_that_nobody_saw_begin_makes_the_end_doubtful_until_its_beginning_is_known() {
    for known_later in [false, true] {
        let mut case = Case::hooked();
        case.hook(&note("woken", "b1"));
        case.see(Observation::Fact(fact(Some("woken"), said(DONE))));
        case.hook(&stop("woken", DONE, &[]));
        if known_later {
            let launched = HookKind::ToolDone {
                name: "Bash".into(),
                input: json!({"command": "sleep 1"}),
                response: json!({"stdout": "", "backgroundTaskId": "b1"}),
                duration_ms: None,
                ok: true,
                id: Some("t".into()),
            };
            case.hook(&event(Some(OURS), launched));
        }
        case.see(Observation::Fact(fact(Some("woken"), END)));
        let rule = if known_later {
            "stop-with-marker"
        } else {
            "stop-uncertain"
        };
        assert_eq!(case.verdict(), Some(rule));
    }
    // Before the turn's own prompt is known there is nothing that it could have left running.
    let mut case = Case::taken("status");
    case.hook(&note("woken", "b1"));
    case.hook(&stop("woken", DONE, &[]));
    assert_eq!(case.after(3_000), None);
}

#[test]
fn a_session_whose_last_prompt_was_a_persons_is_free_again_when_it_rests() {
    let mut case = Case::begun(Witnesses::ALL);
    case.hook(&prompt_hook("typed", "hello"));
    assert_eq!(*case.follower.state(), SessionState::Working { turn: None });
    case.see(Observation::NotSubmitted { why: "busy".into() });
    assert_eq!(case.verdict(), Some("not-submitted"));
    case.follower.finish();
    case.see(Observation::Activity(Some(Activity::Busy)));
    case.screen(&busy());
    assert_eq!(case.after(10_000), None);
    case.hook(&stop("typed", "Hi.", &[]));
    assert_eq!(*case.follower.state(), SessionState::Working { turn: None });
    case.rests();
    assert_eq!(case.after(2_100), None);
    assert_eq!(*case.follower.state(), SessionState::Idle);
}

#[test]
fn a_persons_turn_keeps_the_session_whatever_it_waits_for_and_its_verdict_is_its_own() {
    let mut case = Case {
        follower: Follower::new(Witnesses::ALL),
        now: 0,
    };
    case.hook(&prompt_hook("typed", "hello"));
    assert_eq!(*case.follower.state(), SessionState::Starting);
    assert!(
        case.follower.is_persons_turn(),
        "although nothing was seen of the box yet"
    );
    case.screen(&ready());
    case.hook(&permission("rm x"));
    assert!(matches!(
        case.follower.state(),
        SessionState::AwaitingPerson { turn: None, .. }
    ));
    assert!(case.follower.is_persons_turn());
    // If ours begins all the same, what the other one came to is not ours.
    case.see(Observation::Began(expected(2, Marker::Plain)));
    assert!(!case.follower.is_persons_turn());
    case.see(Observation::NotSubmitted {
        why: "a dialog".into(),
    });
    let (whose, _) = case.follower.next_verdict(case.now).unwrap();
    assert_eq!(whose, None);
    let (whose, verdict) = case.follower.next_verdict(case.now).unwrap();
    assert_eq!((whose.is_some(), verdict.rule), (true, "not-submitted"));
}

#[test]
fn only_the_whole_prompt_in_the_box_was_put_back() {
    let long = format!("{}{PROMPT}", "It begins far above the box. ".repeat(20));
    let end: String = long.chars().skip(300).collect();
    for (prompt, shown, put_back) in [
        (PROMPT, "please do\n  it", true),
        (PROMPT, "please do it again, but slower", false),
        (PROMPT, "please", false),
        (PROMPT, "[Pasted text #1 +3 lines]", false),
        (&long, &end, true),
        (&long, PROMPT, false),
    ] {
        let mut case = Case::begun(Witnesses::ALL);
        let mut began = expected(3, Marker::Plain);
        began.prompt = prompt.into();
        case.see(Observation::Began(began));
        case.see(Observation::Submitted {
            source: "hook",
            enters: 1,
        });
        case.see(Observation::Activity(Some(Activity::Idle)));
        case.screen(&reading(ScreenMeaning::Ready(input(shown))));
        let rule = put_back.then_some("interrupted-at-keyboard");
        assert_eq!(case.after(2_100), rule, "{shown:?}");
    }
}

#[test]
fn a_stop_without_a_prompts_id_counts_only_with_the_record_of_this_turn() {
    let mut case = Case::hooked();
    case.hook(&stop_of(None, DONE, &[], false));
    assert_eq!(case.after(2_100), Some("stop-uncertain"));
    let mut case = Case::hooked();
    case.hook(&stop_of(None, DONE, &[], false));
    case.fact(said(DONE));
    case.fact(END);
    assert_eq!(case.verdict(), Some("stop-with-marker"));
}

#[test]
fn a_persons_longer_prompt_is_not_ours_unless_text_was_left_in_the_box() {
    let mut case = Case::taken("status");
    case.hook(&prompt_hook("typed", "do not please do it yet"));
    case.hook(&prompt_hook("typed-too", "please do it and more"));
    case.hook(&stop("typed", DONE, &[]));
    case.fact(said(DONE));
    case.rests();
    assert_eq!(case.after(3_000), None);
    let with_text = reading(ScreenMeaning::Ready(input("left over")));
    let mut case = Case::begun(Witnesses::ALL);
    case.screen(&with_text);
    case.hook(&prompt_hook(OURS, "left over please do it"));
    assert_eq!(case.follower.acknowledged_by(), Some("hook"));
}

#[test]
fn a_session_that_could_not_be_ended_does_not_undo_an_end_that_was_told() {
    let not_ended = || Observation::NotEnded {
        why: "process 7 is left".into(),
    };
    let mut case = Case::hooked();
    case.fact(said(DONE));
    case.hook(&stop(OURS, DONE, &[]));
    case.see(not_ended());
    case.fact(END);
    assert_eq!(case.verdict(), Some("stop-with-marker"));
    let mut case = Case::hooked();
    case.see(not_ended());
    assert_eq!(case.verdict(), Some("provider-failure"));
}

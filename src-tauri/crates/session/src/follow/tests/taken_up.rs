//! Turns that another process has begun.

use super::super::taken_up::{HowFar, Memo};
use super::*;

const TAKEN: HowFar = HowFar::Taken {
    source: "hook",
    enters: 1,
};

/// A follower that takes up a turn of which this was written down.
fn up(memo: Memo, how_far: HowFar) -> Case {
    let mut case = Case {
        follower: Follower::new(Witnesses::ALL),
        now: 0,
    };
    let expected = expected(1, Marker::Plain);
    case.follower.take_up(0, expected, memo, how_far);
    case
}

fn known() -> Memo {
    Memo {
        ids: vec![OURS.into()],
        ..Memo::default()
    }
}

fn exit(case: &mut Case) -> Verdict {
    let now = case.now;
    case.follower.observe(now, Observation::Exit(Some(0)));
    case.follower.settle_now(now);
    case.follower.verdict(now).unwrap()
}

fn fact_of(case: &mut Case, what: TranscriptFact) {
    case.see(Observation::Fact(fact(Some(OURS), what)));
}

#[test]
fn a_program_that_ended_unheard_has_failed_nothing() {
    let mut case = up(known(), TAKEN);
    fact_of(&mut case, said("I begin."));
    assert_eq!(exit(&mut case).rule, "exit-unheard");
    // Its own last words are no work of the agent.
    let mut case = up(known(), TAKEN);
    let reason = "prompt_input_exit".to_owned();
    case.see(Observation::Hook(&event(None, HookKind::SessionEnd { reason })));
    assert_eq!(exit(&mut case).rule, "exit-unheard");
    // The last frames of a turn that has ended show work too.
    let mut case = up(known(), TAKEN);
    case.screen(&busy());
    assert_eq!(exit(&mut case).rule, "exit-unheard");
    let error = TranscriptFact::ApiError {
        status: Some(500),
        error: "server_error".into(),
        message: "API Error: 500".into(),
    };
    let mut case = up(known(), TAKEN);
    fact_of(&mut case, error.clone());
    assert_eq!(
        exit(&mut case).rule,
        "exit-unheard",
        "it may have gone on after it"
    );
    let mut case = up(known(), TAKEN);
    fact_of(&mut case, error);
    fact_of(&mut case, END);
    assert_eq!(exit(&mut case).rule, "provider-failure");
}

#[test]
fn a_program_that_was_heard_again_fails_its_turn_by_ending() {
    let mut case = up(known(), TAKEN);
    let tool = HookKind::ToolUse {
        id: None,
        name: "Bash".into(),
        input: json!({}),
    };
    case.see(Observation::Hook(&event(Some(OURS), tool)));
    assert_eq!(exit(&mut case).rule, "process-exit");
    let mut case = up(known(), TAKEN);
    case.now += 2_000;
    case.screen(&busy());
    assert_eq!(exit(&mut case).rule, "process-exit");
}

#[test]
fn a_prompt_that_may_have_been_entered_is_known_by_the_record_or_not_at_all() {
    let mut case = up(Memo::default(), HowFar::Entering);
    assert_eq!(exit(&mut case).rule, "effect-unknown");
    let mut case = up(Memo::default(), HowFar::Entering);
    fact_of(&mut case, prompted());
    assert_eq!(case.follower.acknowledged_by(), Some("transcript"));
    fact_of(&mut case, said(DONE));
    fact_of(&mut case, END);
    assert_eq!(exit(&mut case).rule, "stop-with-marker");
    let mut case = up(Memo::default(), HowFar::Entering);
    let why = "no sign".to_owned();
    case.see(Observation::EffectUnknown { why });
    let now = case.now;
    let verdict = case.follower.verdict(now).unwrap();
    assert_eq!(
        (verdict.rule, verdict.outcome),
        (
            "effect-unknown",
            TurnOutcome::Unconfirmed {
                why: "no sign".into()
            }
        )
    );
}

#[test]
fn what_earlier_turns_have_left_is_still_known_for_what_it_is() {
    let mut before = Case::taken("hook");
    before.see(Observation::Hook(&prompt_hook(OURS, PROMPT)));
    before.see(Observation::Hook(&stop(OURS, DONE, &["server"])));
    before.see(Observation::TimeLimit);
    let now = before.now;
    assert_eq!(
        before.follower.verdict(now).unwrap().rule,
        "time-limit-with-background-work"
    );
    before.follower.finish();
    before.see(Observation::Began(expected(2, Marker::Plain)));
    let memo = before.follower.memo();
    assert_eq!((memo.past_prompts.len(), memo.past_tasks.len()), (1, 1));

    let mut case = up(memo, HowFar::Entering);
    case.see(Observation::Hook(&prompt_hook("two", PROMPT)));
    // Late, of the turn before.
    case.see(Observation::Hook(&stop(OURS, DONE, &[])));
    case.see(Observation::Hook(&stop("two", DONE, &["server"])));
    case.see(Observation::Fact(fact(Some("two"), said(DONE))));
    case.see(Observation::Fact(fact(Some("two"), END)));
    let now = case.now;
    assert_eq!(
        case.follower.verdict(now).map(|verdict| verdict.rule),
        Some("stop-with-marker")
    );
}

#[test]
fn a_stop_that_comes_later_ends_the_turn_whose_prompt_was_written_down_and_no_other() {
    for (memo, rule) in [
        (known(), Some("stop-with-marker")),
        (Memo::default(), Some("stop-uncertain")),
    ] {
        let mut case = up(memo, TAKEN);
        case.see(Observation::Activity(Some(Activity::Idle)));
        // Its prompt's own line is lost.
        fact_of(&mut case, said(DONE));
        case.see(Observation::Hook(&stop(OURS, DONE, &[])));
        fact_of(&mut case, END);
        let mut told = None;
        for _ in 0..40 {
            case.now += 500;
            case.screen(&ready());
            let now = case.now;
            told = told.or(case.follower.verdict(now).map(|verdict| verdict.rule));
        }
        assert_eq!(told, rule);
    }
}

#[test]
fn what_a_joined_program_is_busy_with_is_a_persons_turn() {
    let mut case = Case {
        follower: Follower::new(Witnesses::ALL),
        now: 0,
    };
    case.follower.joins();
    case.see(Observation::Activity(Some(Activity::Busy)));
    case.screen(&busy());
    assert_eq!(*case.follower.state(), SessionState::Working { turn: None });
    assert!(case.follower.is_persons_turn());
    let mut fresh = Case {
        follower: Follower::new(Witnesses::ALL),
        now: 0,
    };
    fresh.see(Observation::Activity(Some(Activity::Busy)));
    fresh.screen(&busy());
    assert_eq!(*fresh.follower.state(), SessionState::Starting);
}

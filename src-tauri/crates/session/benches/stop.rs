//! From the Stop hook to the verdict: the part of the way to a result that is the follower's own.

#![allow(
    missing_docs,
    reason = "the macro below makes a function that cannot have any"
)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use domain::TurnId;
use domain::marker::Marker;
use provider::claude::{DatedFact, TranscriptFact, parse_hook};
use provider::detect::OfficePatterns;
use serde_json::json;
use session::follow::{Expected, Follower, Observation, Witnesses};

const PROMPT: &str = "p1";

/// A turn that works, whose transcript has its last word already.
fn working(message: &str) -> Follower {
    let mut follower = Follower::new(Witnesses::ALL);
    follower.observe(
        0,
        Observation::Began(Expected {
            turn: Some(TurnId(uuid::Uuid::nil())),
            prompt: "do it".into(),
            marker: Marker::Plain,
            patterns: OfficePatterns::default(),
        }),
    );
    let submitted = json!({"hook_event_name": "UserPromptSubmit", "session_id": "s", "prompt_id": PROMPT, "prompt": "do it"});
    if let Ok(event) = parse_hook(submitted.to_string().as_bytes()) {
        follower.observe(1, Observation::Hook(&event));
    }
    follower.observe(
        2,
        Observation::Submitted {
            source: "hook",
            enters: 1,
        },
    );
    let text = TranscriptFact::AssistantText {
        text: message.to_owned(),
        stop_reason: None,
    };
    let fact = DatedFact {
        at: None,
        prompt: Some(PROMPT.to_owned()),
        fact: text,
    };
    follower.observe(3, Observation::Fact(fact));
    follower
}

/// The end in the record, which follows the hook.
fn ended() -> DatedFact {
    DatedFact {
        at: None,
        prompt: Some(PROMPT.to_owned()),
        fact: TranscriptFact::TurnDuration {
            ms: 1,
            pending_agents: 0,
        },
    }
}

fn stop_to_verdict(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stop hook to verdict");
    for (name, lines) in [("short message", 3), ("200 lines", 200)] {
        let message = format!(
            "{}[SEMO:DONE]",
            "one line of the agent's final message\n".repeat(lines)
        );
        let body = json!({
            "hook_event_name": "Stop", "session_id": "s", "prompt_id": PROMPT,
            "last_assistant_message": message, "background_tasks": [],
        })
        .to_string();
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || working(&message),
                |mut follower| {
                    let event = parse_hook(black_box(body.as_bytes()));
                    if let Ok(event) = event {
                        follower.observe(10, Observation::Hook(&event));
                    }
                    follower.observe(10, Observation::Fact(ended()));
                    let verdict = follower.verdict(10);
                    assert!(verdict.is_some_and(|verdict| verdict.rule == "stop-with-marker"));
                    follower
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, stop_to_verdict);
criterion_main!(benches);

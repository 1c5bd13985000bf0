//! One session with the real `claude` program, against the stub of its API: how prompts get in, and how turns end.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Duration;

use domain::TurnId;
use domain::evidence::Tier;
use domain::marker::Marker;
use domain::session::{Ask, SessionState};
use domain::turn::{FailureClass, TurnOutcome};
use harness::claude::{ClaudeHome, program};
pub(crate) use harness::place::{HeldBy, Hooks, LIMIT, is_failed};
use harness::stub::Stub;
use provider::claude::{ClaudeLaunch, PermissionMode};
use session::{SessionError, SessionNote, StartMode, TurnRequest, WhichTurn};
use uuid::Uuid;

/// A session of the real program, with the stub of its API and a home of its own.
pub(crate) struct Place {
    pub(crate) stub: Stub,
    pub(crate) home: ClaudeHome,
    place: harness::place::Place,
}

impl Deref for Place {
    type Target = harness::place::Place;

    fn deref(&self) -> &Self::Target {
        &self.place
    }
}

impl DerefMut for Place {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.place
    }
}

impl Place {
    pub(crate) async fn new() -> Place {
        Place::with(Hooks::Delivered, ClaudeHome::new(), |home, url| home.env(url)).await
    }

    pub(crate) async fn with(
        hooks: Hooks,
        home: ClaudeHome,
        env: impl Fn(&ClaudeHome, &str) -> Vec<(String, String)>,
    ) -> Place {
        Place::started(hooks, home, env, &[]).await
    }

    pub(crate) async fn started(
        hooks: Hooks,
        home: ClaudeHome,
        env: impl Fn(&ClaudeHome, &str) -> Vec<(String, String)>,
        extra_args: &[&str],
    ) -> Place {
        Place::held(HeldBy::ThisProcess, hooks, home, env, extra_args).await
    }

    /// Held by a process of its own, so that it can be left and taken up again.
    pub(crate) async fn that_outlives(extra_args: &[&str]) -> Place {
        let env = |home: &ClaudeHome, url: &str| home.env(url);
        Place::held(
            HeldBy::AProcess,
            Hooks::Delivered,
            ClaudeHome::new(),
            env,
            extra_args,
        )
        .await
    }

    async fn held(
        held_by: HeldBy,
        hooks: Hooks,
        home: ClaudeHome,
        env: impl Fn(&ClaudeHome, &str) -> Vec<(String, String)>,
        extra_args: &[&str],
    ) -> Place {
        let stub = Stub::start().await.unwrap();
        let base_env = env(&home, &stub.url());
        let place = harness::place::Place::start(
            hooks,
            held_by,
            |_| home.config_dir(),
            |hooks, folder| ClaudeLaunch {
                program: program(),
                base_env,
                hooks,
                runtime_dir: folder.join("run"),
                permission_mode: PermissionMode::AsConfigured,
                extra_args: extra_args.iter().map(|arg| (*arg).to_owned()).collect(),
            },
        );
        let place = place.await;
        Place { stub, home, place }
    }

    /// Ends the session and starts its program anew, as `start` says.
    pub(crate) async fn again(mut self, start: StartMode) -> Result<Place, SessionError> {
        let proof = self.session.terminate().await?;
        assert!(proof.is_proven(), "{proof:?}");
        self.place.start_again(start).await?;
        Ok(self)
    }

    /// The prompts as the API got them, without the marker's instruction.
    pub(crate) fn prompts(&self) -> Vec<String> {
        let turns = self.stub.turns();
        let prompts = turns.iter().filter_map(|request| request.prompt());
        let own = prompts.map(|prompt| {
            prompt
                .split("\n\nWhen, and only when,")
                .next()
                .unwrap_or_default()
                .to_owned()
        });
        own.collect()
    }

    /// Ends the session and checks that nothing of it is left.
    pub(crate) async fn end(self) {
        self.place.end().await;
        self.stub.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_carried_to_its_marker_with_evidence_and_timings() {
    let mut place = Place::new().await;
    let report = place.does("Please say hello. scn=text").await;
    assert!(report.final_message.as_deref().unwrap().ends_with("[SEMO:DONE]"));
    assert_eq!(report.evidence.rule, "stop-with-marker");
    assert_eq!(report.evidence.best("stopped").unwrap().source, "hook:Stop");
    assert_eq!(report.evidence.best("transcript_agrees").unwrap().value, true);
    assert_eq!(report.evidence.best("head_after").unwrap().tier, Tier::Verified);
    let timings = report.timings;
    let submitted = timings.submitted_at.unwrap();
    assert!(timings.first_byte_at.unwrap() <= submitted && submitted <= timings.acknowledged_at.unwrap());
    assert!(timings.acknowledged_at.unwrap() <= timings.ended_at);
    assert!(timings.first_byte_after_us.unwrap() > 0);
    // The second prompt finds the session ready: nothing of the first is left in its way.
    let coded = place.submit("Again. scn=text", Marker::Code("7f3a".into()), LIMIT);
    let report = place.done(coded).await;
    assert!(report.final_message.unwrap().ends_with("[SEMO:DONE 7f3a]"));
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_arrive_as_text_whatever_they_begin_or_end_with() {
    let mut place = Place::new().await;
    for prompt in [
        "첫 줄입니다 scn=text\n둘째 줄 — 완료하세요",
        "!touch pwned # scn=text",
        "/clear scn=text",
        "scn=text ends with a backslash \\",
        "scn=text see @READ",
        "scn=text a\u{1b}[201~\r!touch pwned\u{3} b",
        "\tscn=text tab\r\nand windows line",
    ] {
        let report = place.turn(prompt).await;
        assert_eq!(
            report.outcome,
            TurnOutcome::Done,
            "{prompt:?}: {report:?}\n{}",
            place.screen()
        );
        let arrived = place.prompts().pop().unwrap();
        let essence = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let expected = prompt.replace(['\u{1b}', '\u{3}'], "");
        assert_eq!(essence(&arrived), essence(&expected), "{prompt:?}");
        if prompt.contains("둘째") {
            assert!(
                arrived.contains("scn=text\n둘째"),
                "two lines stay two: {arrived:?}"
            );
        }
    }
    // Without a marker's instruction behind it, the last character is the prompt's own.
    for prompt in [
        "scn=text ends with a backslash \\",
        "scn=text see @READ",
        "scn=text /cl",
    ] {
        let turn = place.submit(prompt, Marker::None, LIMIT);
        let report = place.ended(turn).await;
        assert_eq!(
            report.outcome,
            TurnOutcome::Done,
            "{prompt:?}: {report:?}\n{}",
            place.screen()
        );
        assert_eq!(place.prompts().pop().unwrap().trim(), prompt);
    }
    assert!(
        !place.worktree().join("pwned").exists(),
        "a prompt became a shell command"
    );
    let ids: Vec<_> = place
        .stub
        .turns()
        .into_iter()
        .map(|request| request.session)
        .collect();
    assert!(
        ids.iter().all(|id| *id == ids[0]),
        "a prompt became /clear: {ids:?}"
    );
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_or_merely_mentioned_marker_is_unconfirmed() {
    let mut place = Place::new().await;
    for (prompt, rule) in [
        ("scn=nomark", "stop-without-marker"),
        ("scn=inline", "stop-marker-mentioned"),
        ("scn=code", "stop-marker-mentioned"),
    ] {
        let report = place.turn(prompt).await;
        assert!(
            matches!(report.outcome, TurnOutcome::Unconfirmed { .. }),
            "{report:?}"
        );
        assert_eq!(report.evidence.rule, rule);
        assert!(report.final_message.is_some());
    }
    let report = place.turn("scn=splitmark").await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "a marker that came in pieces is whole: {report:?}"
    );
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_api_fails_the_turn_with_its_class_and_the_session_goes_on() {
    let mut place = Place::new().await;
    for (prompt, class) in [
        // First: the program tries to make the conversation shorter, and asks about what was said before.
        ("scn=errlong", FailureClass::Context),
        ("scn=err400", FailureClass::Billing),
        ("scn=err403", FailureClass::Auth),
        ("scn=err429", FailureClass::RateLimit),
        ("scn=err500", FailureClass::Server),
    ] {
        let report = place.turn(prompt).await;
        assert!(
            is_failed(&report, class),
            "{prompt}: {report:?}\n{}",
            place.screen()
        );
        assert_eq!(report.evidence.rule, "provider-failure");
    }
    place.does("scn=text").await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_in_mid_turn_is_proven_and_leaves_the_session_usable() {
    let mut place = Place::new().await;
    let streaming = place.submit("scn=slow:200", Marker::Plain, LIMIT);
    place
        .state("it works", |state| matches!(state, SessionState::Working { .. }))
        .await;
    place.shows("slow:1").await;
    place.session.cancel(WhichTurn::Current).unwrap();
    place.cancelled(streaming).await;

    // Before the first word the program puts the prompt back into its box and writes nothing down.
    let silent = place.submit("scn=hang", Marker::Plain, LIMIT);
    place
        .stub
        .turn_where("the silent turn began", LIMIT, |turn| {
            turn.user_text().contains("scn=hang")
        })
        .await;
    place.session.cancel(WhichTurn::Id(silent)).unwrap();
    place.cancelled(silent).await;

    place.does("And now this. scn=text").await;
    assert_eq!(
        place.prompts().pop().unwrap().trim(),
        "And now this. scn=text",
        "nothing of the cancelled prompt"
    );
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_beyond_its_time_is_interrupted_and_a_waiting_one_can_be_cancelled() {
    let mut place = Place::new().await;
    let slow = place.submit("scn=slow:400", Marker::Plain, Duration::from_secs(2));
    let waiting = place.submit("scn=text", Marker::Plain, LIMIT);
    place.session.cancel(WhichTurn::Id(waiting)).unwrap();
    let report = place.cancelled(waiting).await;
    assert_eq!(report.timings.submitted_at, None, "it was never sent");
    let report = place.ended(slow).await;
    assert!(
        is_failed(&report, FailureClass::Timeout),
        "{report:?}\n{}",
        place.screen()
    );
    place.does("scn=text").await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_is_asked_of_a_person_and_its_answer_carries_the_turn_on() {
    let mut place = Place::new().await;
    let turn = place.submit("scn=bash:touch+made.txt", Marker::Plain, LIMIT);
    let text = place
        .note("the ask", |note| match note {
            SessionNote::Asked { ask, .. } if ask.kind == Ask::Permission => Some(ask.text.clone()),
            _ => None,
        })
        .await;
    assert!(text.contains("touch made.txt"), "{text}");
    place
        .state("it waits for a person", |state| {
            matches!(
                state,
                SessionState::AwaitingPerson {
                    turn: Some(_),
                    ask: Ask::Permission
                }
            )
        })
        .await;
    place.shows("Do you want to proceed?").await;
    place.keys("1").await;
    let report = place.done(turn).await;
    let command = report.evidence.best("command").unwrap();
    assert_eq!(
        (&command.value["command"], command.tier),
        (&"touch made.txt".into(), Tier::Observed)
    );
    assert_eq!(report.evidence.best("files_changed").unwrap().value, 1);
    assert!(place.worktree().join("made.txt").exists());
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_hooks_are_made_up_for_by_the_transcript() {
    let mut place = Place::with(Hooks::Lost, ClaudeHome::new(), |home, url| home.env(url)).await;
    let report = place.does("scn=text").await;
    assert_eq!(report.evidence.best("stopped").unwrap().source, "transcript");
    let report = place.turn("scn=err400").await;
    assert!(is_failed(&report, FailureClass::Billing), "{report:?}");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_sign_in_the_user_is_told_exactly_what_to_do() {
    let mut place = Place::with(Hooks::Delivered, ClaudeHome::fresh(), |home, url| home.env(url)).await;
    let text = place
        .note("the ask", |note| match note {
            SessionNote::Asked { ask, .. } if ask.kind == Ask::Login => Some(ask.text.clone()),
            _ => None,
        })
        .await;
    assert!(text.contains("run `claude` once in a terminal"), "{text}");
    let request = TurnRequest {
        id: TurnId(Uuid::new_v4()),
        prompt: "x".into(),
        marker: Marker::None,
        timeout: LIMIT,
    };
    let refused = place.try_submit(request).unwrap_err();
    assert!(matches!(refused, SessionError::AwaitingPerson { .. }));
    assert!(
        refused.to_string().contains("run `claude` once in a terminal"),
        "{refused}"
    );
    assert!(
        place.stub.requests().is_empty(),
        "nothing was typed into a dialog"
    );
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_a_session_ends_what_its_agent_left_running() {
    let mut place = Place::new().await;
    let turn = place.submit("scn=bash:sleep+31536", Marker::Plain, LIMIT);
    harness::wait::wait_until("the command runs", LIMIT, || async { sleeps(&place.home) > 0 }).await;
    let proof = place.session.terminate().await.unwrap();
    assert!(proof.is_proven(), "{proof:?}");
    assert_eq!(sleeps(&place.home), 0);
    place.cancelled(turn).await;
    let exit = place.exited().await;
    assert_eq!(exit.words, None);
    assert!(matches!(
        *place.session.state().borrow(),
        SessionState::Exited { .. }
    ));
    let again = place.session.terminate().await.unwrap();
    assert!(again.is_proven(), "ending it again is harmless");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_that_are_cancelled_in_a_hurry_neither_end_the_program_nor_leak_into_the_next() {
    let mut place = Place::new().await;
    let mut turns = Vec::new();
    for n in 0..4 {
        let turn = place.submit(&format!("scn=hang number {n}"), Marker::None, LIMIT);
        // At another point of its submission every time, from before the paste to after the Enter.
        tokio::time::sleep(Duration::from_millis(150 * n)).await;
        place.session.cancel(WhichTurn::Id(turn)).unwrap();
        turns.push(turn);
    }
    // One that still waits ends before one that has to be interrupted.
    while !turns.is_empty() {
        let report = place
            .note("the end of a turn", |note| match note {
                SessionNote::TurnEnded { report, .. } => Some((**report).clone()),
                _ => None,
            })
            .await;
        assert_eq!(
            report.outcome,
            TurnOutcome::Cancelled,
            "{report:?}\n{}",
            place.screen()
        );
        turns.retain(|turn| *turn != report.turn);
    }
    place.does("The last one. scn=text").await;
    assert_eq!(place.prompts().pop().unwrap().trim(), "The last one. scn=text");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_at_the_keyboard_is_seen_at_work_and_left_alone() {
    let mut place = Place::new().await;
    place.ready().await;
    place
        .type_line("typed by hand scn=think:2", "by hand scn=think:2")
        .await;
    place
        .state("a person's turn", |state| {
            *state == SessionState::Working { turn: None }
        })
        .await;
    place.does("And a command. scn=text").await;
    assert_eq!(
        place.prompts(),
        ["typed by hand scn=think:2", "And a command. scn=text"]
    );
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ends_at_once_leaves_its_words_and_fails_what_waited() {
    let mut place = Place::started(
        Hooks::Delivered,
        ClaudeHome::new(),
        |home, url| home.env(url),
        &["--no-such-flag"],
    )
    .await;
    let turn = TurnId(Uuid::new_v4());
    let request = TurnRequest {
        id: turn,
        prompt: "x".into(),
        marker: Marker::None,
        timeout: LIMIT,
    };
    if place.try_submit(request).is_ok() {
        let report = place.ended(turn).await;
        assert!(matches!(report.outcome, TurnOutcome::Failed { .. }), "{report:?}");
    }
    let exit = place.exited().await;
    assert_eq!(exit.code, Some(1));
    assert!(
        exit.words.as_deref().unwrap().contains("--no-such-flag"),
        "{exit:?}"
    );
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_nobody_holds_any_more_is_left_to_its_holder_without_a_word() {
    let place = Place::new().await;
    place.ready().await;
    let tag = place.spec.id.to_string();
    let (terminal, mut notes, tasks) = place.place.let_go();
    tokio::time::timeout(LIMIT, tasks.wait())
        .await
        .expect("the actor ends");
    while let Some(note) = notes.recv().await {
        assert!(!matches!(note, SessionNote::Exited { .. }), "{note:?}");
    }
    // This process was its holder: it goes with the last handle.
    drop(terminal);
    harness::wait::wait_until("the program is gone", LIMIT, || async {
        harness::place::tagged(&tag).is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_menu_of_a_usage_limit_does_not_eat_the_next_prompt() {
    let subscriber = |home: &ClaudeHome, url: &str| {
        let mut env = home.env_signed_out(url);
        env.push(("CLAUDE_CODE_OAUTH_TOKEN".into(), "a-token-for-the-stub".into()));
        env
    };
    let mut place = Place::with(Hooks::Delivered, ClaudeHome::new(), subscriber).await;
    let asked_at = place.spec.clock.now();
    let report = place.turn("scn=limit:five_hour").await;
    let TurnOutcome::Failed {
        class: FailureClass::RateLimit,
        retry_at: Some(retry_at),
        ..
    } = report.outcome
    else {
        panic!("{report:?}\n{}", place.screen())
    };
    // The stub's limit lasts two hours; the program names the hour of its end, some versions without the minutes.
    let in_s = retry_at.ms_since(asked_at) / 1000;
    assert!(
        (3_600..=10_800).contains(&in_s),
        "{in_s} s, {:?}",
        report.evidence
    );
    place.does("And on. scn=text").await;
    place.end().await;
}

/// How many `sleep` processes belong to this test's home.
pub(crate) fn sleeps(home: &ClaudeHome) -> usize {
    let wanted = format!("HOME={}", home.path().display());
    let processes = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()));
    processes
        .filter(|process| {
            let read = |name: &str| std::fs::read(Path::new(process).join(name)).unwrap_or_default();
            read("cmdline").starts_with(b"sleep\x0031536")
                && read("environ")
                    .split(|byte| *byte == 0)
                    .any(|entry| entry == wanted.as_bytes())
        })
        .count()
}

//! One session with the real `claude` program, against the stub of its API: how prompts get in, and how turns end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use domain::evidence::Tier;
use domain::marker::Marker;
use domain::session::{Ask, SessionState};
use domain::turn::{FailureClass, TurnOutcome};
use domain::{AgentId, OfficeId, SessionId, TurnId};
use harness::claude::{ClaudeHome, program};
use harness::clock::SystemClock;
use harness::stub::Stub;
use provider::claude::{ClaudeLaunch, HOOK_SECRET_HEADER, HookEndpoint, PermissionMode};
use provider::detect::{Detectors, OfficePatterns};
use session::{
    Session, SessionError, SessionNote, SessionSpec, StartMode, TurnReport, TurnRequest, WhichTurn,
};
use tempfile::TempDir;
use terminal::Size;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Longest that any one step may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const SECRET: &str = "0123456789abcdef";

/// Whether the hooks reach the session.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Hooks {
    Delivered,
    Lost,
}

/// A session with everything around it.
pub(crate) struct Place {
    pub(crate) stub: Stub,
    folder: TempDir,
    pub(crate) home: ClaudeHome,
    pub(crate) session: Session,
    pub(crate) notes: mpsc::Receiver<SessionNote>,
    tasks: TaskTracker,
    session_in: watch::Sender<Option<Session>>,
    spec: SessionSpec,
}

struct Endpoint {
    session: watch::Receiver<Option<Session>>,
    hooks: Hooks,
}

async fn take_hook(
    State(endpoint): State<Arc<Endpoint>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    if headers
        .get(HOOK_SECRET_HEADER)
        .is_none_or(|secret| secret != SECRET)
    {
        return (StatusCode::UNAUTHORIZED, "{}".into());
    }
    let session = endpoint.session.borrow().clone();
    let reply = match session.filter(|_| endpoint.hooks == Hooks::Delivered) {
        Some(session) => session.hook(&body).body().await.to_string(),
        None => "{}".into(),
    };
    (StatusCode::OK, reply)
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
        let stub = Stub::start().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let repository = worktree::sample_repository(&folder.path().join("repository"))
            .await
            .unwrap();
        let (session_in, session_out) = watch::channel::<Option<Session>>(None);
        let endpoint = Arc::new(Endpoint {
            session: session_out,
            hooks,
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new()
            .route("/hooks/{session}", post(take_hook))
            .with_state(endpoint);
        // Ends with the test's runtime.
        tokio::spawn(async move { axum::serve(listener, router).await });
        let (notes_in, notes) = mpsc::channel(64);
        let tasks = TaskTracker::new();
        let base_env = env(&home, &stub.url());
        let id = SessionId(Uuid::new_v4());
        let spec = SessionSpec {
            id,
            office: OfficeId(Uuid::nil()),
            agent: AgentId(Uuid::nil()),
            title: "FE worker".into(),
            worktree: repository.root().to_owned(),
            launch: ClaudeLaunch {
                program: program(),
                base_env,
                hooks: HookEndpoint {
                    url: format!("http://127.0.0.1:{port}/hooks"),
                    secret: SECRET.into(),
                },
                runtime_dir: folder.path().join("run"),
                permission_mode: PermissionMode::AsConfigured,
                extra_args: extra_args.iter().map(|arg| (*arg).to_owned()).collect(),
            },
            size: Size { cols: 120, rows: 40 },
            config_dir: home.config_dir(),
            start: StartMode::New,
            conversation: id,
            detector: watch::channel(Detectors::bundled().for_program("claude", None)).1,
            patterns: watch::channel(OfficePatterns::default()).1,
            clock: Arc::new(SystemClock),
        };
        let session = Session::start(spec.clone(), &tasks, notes_in).unwrap();
        session_in.send_replace(Some(session.clone()));
        Place {
            spec,
            stub,
            folder,
            home,
            session,
            notes,
            tasks,
            session_in,
        }
    }

    /// Ends the session and starts its program anew, as `start` says.
    pub(crate) async fn again(mut self, start: StartMode) -> Result<Place, SessionError> {
        let proof = self.session.terminate().await?;
        assert!(proof.is_proven(), "{proof:?}");
        self.spec.start = start;
        let (notes_in, notes) = mpsc::channel(64);
        self.notes = notes;
        self.session = Session::start(self.spec.clone(), &self.tasks, notes_in)?;
        self.session_in.send_replace(Some(self.session.clone()));
        Ok(self)
    }

    pub(crate) fn worktree(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    pub(crate) fn submit(&self, prompt: &str, marker: Marker, timeout: Duration) -> TurnId {
        let id = TurnId(Uuid::new_v4());
        let request = TurnRequest {
            id,
            prompt: prompt.into(),
            marker,
            timeout,
        };
        self.session.submit(request).unwrap();
        id
    }

    /// The next note that `wanted` takes something from.
    pub(crate) async fn note<T>(&mut self, what: &str, wanted: impl Fn(&SessionNote) -> Option<T>) -> T {
        let whole = async {
            loop {
                let note = self.notes.recv().await.expect("the session goes on");
                if let Some(found) = wanted(&note) {
                    return found;
                }
            }
        };
        let found = tokio::time::timeout(LIMIT, whole).await;
        found.unwrap_or_else(|_| panic!("waited in vain: {what}\n{}", self.screen()))
    }

    pub(crate) async fn ended(&mut self, turn: TurnId) -> TurnReport {
        self.note("the end of the turn", |note| match note {
            SessionNote::TurnEnded { report, .. } if report.turn == turn => Some((**report).clone()),
            _ => None,
        })
        .await
    }

    /// Carries one prompt with the plain marker to its end.
    pub(crate) async fn turn(&mut self, prompt: &str) -> TurnReport {
        let turn = self.submit(prompt, Marker::Plain, LIMIT);
        self.ended(turn).await
    }

    pub(crate) async fn state(&self, what: &str, wanted: impl Fn(&SessionState) -> bool) {
        let mut state = self.session.state();
        let reached = tokio::time::timeout(LIMIT, state.wait_for(wanted)).await;
        assert!(reached.is_ok(), "waited in vain: {what}\n{}", self.screen());
    }

    pub(crate) fn screen(&self) -> String {
        self.session.terminal().screen().rows.join("\n")
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
        let proof = self.session.terminate().await.unwrap();
        assert!(proof.is_proven(), "{proof:?}");
        self.tasks.close();
        tokio::time::timeout(LIMIT, self.tasks.wait())
            .await
            .expect("the actor ends");
        self.stub.stop().await;
    }
}

pub(crate) fn is_failed(report: &TurnReport, class: FailureClass) -> bool {
    matches!(&report.outcome, TurnOutcome::Failed { class: seen, .. } if *seen == class)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_carried_to_its_marker_with_evidence_and_timings() {
    let mut place = Place::new().await;
    let report = place.turn("Please say hello. scn=text").await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
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
    let report = place.ended(coded).await;
    assert_eq!(report.outcome, TurnOutcome::Done, "{report:?}");
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
    let report = place.turn("scn=text").await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_in_mid_turn_is_proven_and_leaves_the_session_usable() {
    let mut place = Place::new().await;
    let streaming = place.submit("scn=slow:200", Marker::Plain, LIMIT);
    place
        .state("it works", |state| matches!(state, SessionState::Working { .. }))
        .await;
    harness::wait::wait_until("the answer streams", LIMIT, || {
        let streams = place.screen().contains("slow:1");
        async move { streams }
    })
    .await;
    place.session.cancel(WhichTurn::Current).unwrap();
    let report = place.ended(streaming).await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Cancelled,
        "{report:?}\n{}",
        place.screen()
    );

    // Before the first word the program puts the prompt back into its box and writes nothing down.
    let silent = place.submit("scn=hang", Marker::Plain, LIMIT);
    place
        .stub
        .turn_where("the silent turn began", LIMIT, |turn| {
            turn.user_text().contains("scn=hang")
        })
        .await;
    place.session.cancel(WhichTurn::Id(silent)).unwrap();
    let report = place.ended(silent).await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Cancelled,
        "{report:?}\n{}",
        place.screen()
    );

    let report = place.turn("And now this. scn=text").await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
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
    let report = place.ended(waiting).await;
    assert_eq!(report.outcome, TurnOutcome::Cancelled, "{report:?}");
    assert_eq!(report.timings.submitted_at, None, "it was never sent");
    let report = place.ended(slow).await;
    assert!(
        is_failed(&report, FailureClass::Timeout),
        "{report:?}\n{}",
        place.screen()
    );
    assert_eq!(place.turn("scn=text").await.outcome, TurnOutcome::Done);
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
    harness::wait::wait_until("the dialog is drawn", LIMIT, || {
        let drawn = place.screen().contains("Do you want to proceed?");
        async move { drawn }
    })
    .await;
    place.session.keys(Bytes::from_static(b"1")).await.unwrap();
    let report = place.ended(turn).await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
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
    let report = place.turn("scn=text").await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
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
    let refused = place.session.submit(request).unwrap_err();
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
    let report = place.ended(turn).await;
    assert_eq!(report.outcome, TurnOutcome::Cancelled, "{report:?}");
    let code = place
        .note("the exit", |note| match note {
            SessionNote::Exited { exit, .. } => Some(exit.clone()),
            _ => None,
        })
        .await;
    assert_eq!(code.words, None);
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
    let report = place.turn("The last one. scn=text").await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
    assert_eq!(place.prompts().pop().unwrap().trim(), "The last one. scn=text");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_at_the_keyboard_is_seen_at_work_and_left_alone() {
    let mut place = Place::new().await;
    place
        .state("it is ready", |state| *state == SessionState::Idle)
        .await;
    place
        .session
        .keys(Bytes::from_static(b"typed by hand scn=think:2"))
        .await
        .unwrap();
    harness::wait::wait_until("the echo", LIMIT, || {
        let echoed = place.screen().contains("by hand scn=think:2");
        async move { echoed }
    })
    .await;
    place.session.keys(Bytes::from_static(b"\r")).await.unwrap();
    place
        .state("a person's turn", |state| {
            *state == SessionState::Working { turn: None }
        })
        .await;
    let report = place.turn("And a command. scn=text").await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
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
    if place.session.submit(request).is_ok() {
        let report = place.ended(turn).await;
        assert!(matches!(report.outcome, TurnOutcome::Failed { .. }), "{report:?}");
    }
    let exit = place
        .note("the exit", |note| match note {
            SessionNote::Exited { exit, .. } => Some(exit.clone()),
            _ => None,
        })
        .await;
    assert_eq!(exit.code, Some(1));
    assert!(
        exit.words.as_deref().unwrap().contains("--no-such-flag"),
        "{exit:?}"
    );
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_nobody_holds_any_more_is_ended() {
    let Place {
        session,
        tasks,
        mut notes,
        session_in,
        ..
    } = Place::new().await;
    let terminal = session.terminal().clone();
    drop(session_in);
    drop(session);
    tasks.close();
    let ended = tokio::time::timeout(LIMIT, async {
        while let Some(note) = notes.recv().await {
            if let SessionNote::Exited { .. } = note {
                return;
            }
        }
        panic!("the last note is the exit");
    });
    ended.await.unwrap();
    tokio::time::timeout(LIMIT, tasks.wait()).await.unwrap();
    assert!(terminal.exited().borrow().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_menu_of_a_usage_limit_does_not_eat_the_next_prompt() {
    let subscriber = |home: &ClaudeHome, url: &str| {
        let mut env = home.env_signed_out(url);
        env.push(("CLAUDE_CODE_OAUTH_TOKEN".into(), "a-token-for-the-stub".into()));
        env
    };
    let mut place = Place::with(Hooks::Delivered, ClaudeHome::new(), subscriber).await;
    let report = place.turn("scn=limit:five_hour").await;
    assert!(
        is_failed(&report, FailureClass::RateLimit),
        "{report:?}\n{}",
        place.screen()
    );
    let report = place.turn("And on. scn=text").await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
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

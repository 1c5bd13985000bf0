//! Sessions with the scripted agent: what a real one will not do on demand. The same program start, input, hooks,
//! transcript and screen as with `claude`; only the agent is told to misbehave.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use domain::ask::{AnswerWay, Answerer, AskAnswer, AskEnd, PendingAsk};
use domain::marker::Marker;
use domain::session::SessionState;
use domain::turn::{FailureClass, TurnOutcome};
use domain::{AgentId, OfficeId, SessionId, TurnId};
use harness::clock::SystemClock;
use provider::claude::{ClaudeLaunch, HookEndpoint, PermissionMode};
use provider::detect::{Detectors, OfficePatterns};
use session::{
    Session, SessionError, SessionNote, SessionSpec, StartMode, TurnReport, TurnRequest, WhichTurn,
};
use tempfile::TempDir;
use terminal::Size;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Longest that any one step may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);
/// Longest that a flood may take.
const FLOOD_LIMIT: Duration = Duration::from_secs(420);
const GIB: u64 = 1 << 30;

/// One session of the scripted agent with everything around it.
struct Place {
    folder: TempDir,
    session: Session,
    notes: mpsc::Receiver<SessionNote>,
    tasks: TaskTracker,
    spec: SessionSpec,
    /// The session to which hooks go.
    session_in: watch::Sender<Option<Session>>,
}

async fn take_hook(State(session): State<watch::Receiver<Option<Session>>>, body: Bytes) -> String {
    let session = session.borrow().clone();
    match session {
        Some(session) => session.hook(&body).body().await.to_string(),
        None => "{}".into(),
    }
}

/// Where hooks go; ends with the test's runtime.
async fn hook_endpoint() -> (HookEndpoint, watch::Sender<Option<Session>>) {
    let (session_in, session_out) = watch::channel(None);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new()
        .route("/hooks/{session}", post(take_hook))
        .with_state(session_out);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let hooks = HookEndpoint {
        url: format!("http://127.0.0.1:{port}/hooks"),
        secret: "0123456789abcdef".into(),
    };
    (hooks, session_in)
}

impl Place {
    async fn new() -> Place {
        Place::started(&[]).await
    }

    async fn started(script: &[&str]) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let repository = worktree::sample_repository(&folder.path().join("repository"))
            .await
            .unwrap();
        let (hooks, session_in) = hook_endpoint().await;
        let home = folder.path().join("home");
        std::fs::create_dir(&home).unwrap();
        let claude = ClaudeLaunch {
            program: PathBuf::from("/nonexistent"),
            base_env: vec![
                ("HOME".into(), home.display().to_string()),
                ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()),
            ],
            hooks,
            runtime_dir: folder.path().join("run"),
            permission_mode: PermissionMode::AsConfigured,
            extra_args: Vec::new(),
        };
        let args = script
            .iter()
            .flat_map(|step| ["--script".to_owned(), (*step).to_owned()]);
        let program = PathBuf::from(env!("CARGO_BIN_EXE_scripted-agent"));
        let (notes_in, notes) = mpsc::channel(64);
        let tasks = TaskTracker::new();
        let id = SessionId(Uuid::new_v4());
        let spec = SessionSpec {
            id,
            office: OfficeId(Uuid::nil()),
            agent: AgentId(Uuid::nil()),
            title: "FE worker".into(),
            worktree: repository.root().to_owned(),
            launch: provider::scripted::launch(program, args.collect(), &claude),
            size: Size { cols: 120, rows: 40 },
            config_dir: home.join(".claude"),
            start: StartMode::New,
            conversation: id,
            detector: watch::channel(Detectors::bundled().for_program("claude", None)).1,
            patterns: watch::channel(OfficePatterns::default()).1,
            clock: Arc::new(SystemClock),
        };
        let session = Session::start(spec.clone(), &tasks, notes_in).unwrap();
        session_in.send_replace(Some(session.clone()));
        Place {
            folder,
            session,
            notes,
            tasks,
            spec,
            session_in,
        }
    }

    /// Starts the same conversation again, in another process.
    fn resume(&mut self, script: &[&str]) -> Result<(), SessionError> {
        let mut spec = self.spec.clone();
        spec.start = StartMode::Resume;
        let args = script
            .iter()
            .flat_map(|step| ["--script".to_owned(), (*step).to_owned()]);
        spec.launch.extra_args = args.collect();
        let (notes_in, notes) = mpsc::channel(64);
        self.session = Session::start(spec, &self.tasks, notes_in)?;
        self.session_in.send_replace(Some(self.session.clone()));
        self.notes = notes;
        Ok(())
    }

    async fn asked(&mut self) -> PendingAsk {
        self.note("an ask", LIMIT, |note| match note {
            SessionNote::Asked { ask, .. } => Some(ask.clone()),
            _ => None,
        })
        .await
    }

    fn submit(&self, prompt: &str, timeout: Duration) -> TurnId {
        let id = TurnId(Uuid::new_v4());
        let request = TurnRequest {
            id,
            prompt: prompt.into(),
            marker: Marker::Plain,
            timeout,
        };
        self.session.submit(request).unwrap();
        id
    }

    async fn note<T>(
        &mut self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&SessionNote) -> Option<T>,
    ) -> T {
        let whole = async {
            loop {
                let note = self.notes.recv().await.expect("the session goes on");
                if let Some(found) = wanted(&note) {
                    return found;
                }
            }
        };
        let found = tokio::time::timeout(limit, whole).await;
        found.unwrap_or_else(|_| panic!("waited in vain: {what}\n{}", self.screen()))
    }

    async fn ended_within(&mut self, turn: TurnId, limit: Duration) -> TurnReport {
        self.note("the end of the turn", limit, |note| match note {
            SessionNote::TurnEnded { report, .. } if report.turn == turn => Some((**report).clone()),
            _ => None,
        })
        .await
    }

    async fn turn(&mut self, prompt: &str) -> TurnReport {
        let turn = self.submit(prompt, LIMIT);
        self.ended_within(turn, LIMIT).await
    }

    async fn exited(&mut self) -> session::SessionExit {
        self.note("the end of the session", LIMIT, |note| match note {
            SessionNote::Exited { exit, .. } => Some(exit.clone()),
            _ => None,
        })
        .await
    }

    async fn state(&self, what: &str, wanted: impl Fn(&SessionState) -> bool) {
        let mut state = self.session.state();
        let reached = tokio::time::timeout(LIMIT, state.wait_for(wanted)).await;
        assert!(reached.is_ok(), "waited in vain: {what}\n{}", self.screen());
    }

    /// Waits until the agent works on a turn.
    async fn working(&self) {
        self.state("the agent works", |state| {
            matches!(state, SessionState::Working { .. })
        })
        .await;
    }

    fn screen(&self) -> String {
        self.session.terminal().screen().rows.join("\n")
    }

    /// The living processes that belong to the session, as the kernel lists them.
    fn living(&self) -> Vec<u32> {
        living(&self.session.id().to_string())
    }

    async fn end(self) {
        let proof = self.session.terminate().await.unwrap();
        assert!(proof.is_proven(), "{proof:?}");
        assert_eq!(self.living(), Vec::<u32>::new());
        self.tasks.close();
        tokio::time::timeout(LIMIT, self.tasks.wait())
            .await
            .expect("the actor ends");
        drop(self.folder);
    }
}

/// Processes with the tag in their environment that are not dead, straight from the kernel: not by our own code.
fn living(tag: &str) -> Vec<u32> {
    let wanted = format!("SEMO_TERMINAL={tag}");
    let pids = std::fs::read_dir("/proc").unwrap();
    let pids = pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let alive = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .trim_start()
            .chars()
            .next();
        state.is_some_and(|state| state != 'Z')
    };
    let tagged = |pid: &u32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ
            .split(|byte| *byte == 0)
            .any(|entry| entry == wanted.as_bytes())
    };
    pids.filter(tagged).filter(alive).collect()
}

fn is_failed(report: &TurnReport, class: FailureClass) -> bool {
    matches!(&report.outcome, TurnOutcome::Failed { class: seen, .. } if *seen == class)
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scripted_turn_goes_the_way_of_a_real_one() {
    let mut place = Place::new().await;
    let report = place.turn("Say hello.\nAnd do=tool:echo+hi do=say:hello").await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
    assert_eq!(report.evidence.rule, "stop-with-marker");
    assert_eq!(report.evidence.best("stopped").unwrap().source, "hook:Stop");
    assert_eq!(report.evidence.best("transcript_agrees").unwrap().value, true);
    let report = place.turn("do=nomark").await;
    assert!(
        matches!(report.outcome, TurnOutcome::Unconfirmed { .. }),
        "{report:?}"
    );
    let report = place.turn("do=fail:billing").await;
    assert!(is_failed(&report, FailureClass::Billing), "{report:?}");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_hangs_is_ended_at_the_time_limit_with_all_it_started() {
    let mut place = Place::started(&["deaf"]).await;
    let turn = place.submit("do=fork do=hang", Duration::from_secs(3));
    let report = place.ended_within(turn, LIMIT).await;
    assert!(is_failed(&report, FailureClass::Timeout), "{report:?}");
    place.exited().await;
    assert_eq!(place.living(), Vec::<u32>::new(), "ended, and proven gone");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_nothing_hears_is_told_only_when_nothing_lives_any_more() {
    let mut place = Place::started(&["deaf"]).await;
    let turn = place.submit("do=fork do=hang", LIMIT);
    place.working().await;
    let several = async {
        while place.living().len() < 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, several).await.expect("it forks");
    place.session.cancel(WhichTurn::Id(turn)).unwrap();
    let report = place.ended_within(turn, LIMIT).await;
    // At this very moment, not some time later.
    assert_eq!(
        place.living(),
        Vec::<u32>::new(),
        "told as cancelled while something lived"
    );
    assert_eq!(report.outcome, TurnOutcome::Cancelled, "{report:?}");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_is_heard_leaves_the_session_to_the_next_prompt() {
    let mut place = Place::new().await;
    let turn = place.submit("do=slow:600000", LIMIT);
    place.working().await;
    place.session.cancel(WhichTurn::Id(turn)).unwrap();
    let report = place.ended_within(turn, LIMIT).await;
    assert_eq!(report.outcome, TurnOutcome::Cancelled, "{report:?}");
    let report = place.turn("do=say:again").await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_in_a_turn_fails_it_and_its_children_go_with_it() {
    let mut place = Place::new().await;
    let report = place.turn("do=fork do=slow:300 do=die:3").await;
    assert!(is_failed(&report, FailureClass::ProviderExit), "{report:?}");
    assert_eq!(place.exited().await.code, Some(3));
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_at_its_start_is_told_with_its_words() {
    let mut place = Place::started(&["die:7"]).await;
    let exit = place.exited().await;
    assert_eq!(exit.code, Some(7));
    assert!(
        exit.words.as_deref().unwrap_or_default().contains("told to die"),
        "{exit:?}"
    );
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_a_gigabyte_fills_no_memory_and_another_session_answers_meanwhile() {
    let mut flooded = Place::new().await;
    let mut other = Place::new().await;
    assert_eq!(other.turn("do=say:warm").await.outcome, TurnOutcome::Done);
    let before = resident();
    let turn = flooded.submit("do=flood:1G", FLOOD_LIMIT);
    flooded.working().await;
    let mut flowing = flooded.session.terminal().changed();
    let flows = flowing.wait_for(|end| *end > 8 << 20);
    tokio::time::timeout(LIMIT, flows)
        .await
        .expect("it flows")
        .unwrap();

    let asked = Instant::now();
    let report = other.turn("do=say:meanwhile").await;
    let answered = asked.elapsed();
    assert_eq!(report.outcome, TurnOutcome::Done, "{report:?}");
    assert!(
        *flooded.session.terminal().changed().borrow() < GIB,
        "answered while it flowed"
    );
    assert!(answered < Duration::from_secs(20), "{answered:?}");

    let report = flooded.ended_within(turn, FLOOD_LIMIT).await;
    assert_eq!(report.outcome, TurnOutcome::Done, "{report:?}");
    let kept = flooded.session.terminal().output_since(0);
    assert!(kept.end > GIB, "{}", kept.end);
    assert_eq!(kept.from + kept.bytes.len() as u64, kept.end);
    assert!(kept.bytes.len() <= terminal::RING_BYTES_MAX);
    let grown = resident().saturating_sub(before);
    assert!(grown < 96 << 20, "{} MiB", grown >> 20);
    let report = flooded.turn("do=say:after").await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        flooded.screen()
    );
    flooded.end().await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_and_sequences_without_end_harm_nothing() {
    let mut place = Place::new().await;
    for prompt in ["do=garbage", "do=escapes", "do=garbage do=escapes do=garbage"] {
        let report = place.turn(prompt).await;
        assert_eq!(
            report.outcome,
            TurnOutcome::Done,
            "{prompt}: {report:?}\n{}",
            place.screen()
        );
        let screen = place.session.terminal().screen();
        assert!(screen.title.chars().count() <= terminal::TITLE_CHARS_MAX);
        let text = screen.rows.join("\n");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }
    let report = place.turn("do=say:still+here").await;
    assert_eq!(report.outcome, TurnOutcome::Done, "{report:?}");
    assert!(place.screen().contains("still here"), "{}", place.screen());
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_that_are_lost_doubled_late_or_out_of_order_make_no_wrong_end() {
    let mut place = Place::new().await;
    for prompt in [
        "do=double:Stop do=double:UserPromptSubmit",
        "do=delay:Stop:1500",
        "do=tool:true do=reorder",
        "do=delay:UserPromptSubmit:1500 do=slow:100",
        "do=late-transcript:1000",
        "do=no-transcript",
        "do=lose:UserPromptSubmit do=slow:2500",
        "do=lose:Stop",
        "do=lose:Stop do=late-transcript:800",
        "do=lose:Stop do=lose:UserPromptSubmit do=slow:2500",
    ] {
        let report = place.turn(prompt).await;
        let right = match &report.outcome {
            TurnOutcome::Done => true,
            // Never for a turn of which every sign is there.
            TurnOutcome::Unconfirmed { .. } => prompt.contains("lose:") || prompt.contains("transcript"),
            _ => false,
        };
        assert!(right, "{prompt}: {report:?}\n{}", place.screen());
    }
    // With no sign but the screen and the status file there is nothing to confirm by.
    let report = place.turn("do=lose:Stop do=no-transcript").await;
    assert!(
        matches!(report.outcome, TurnOutcome::Unconfirmed { .. }),
        "{report:?}\n{}",
        place.screen()
    );
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_with_work_in_the_background_is_no_end() {
    let mut place = Place::new().await;
    let started = Instant::now();
    let report = place.turn("do=background:4000").await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
    assert!(
        started.elapsed() >= Duration::from_secs(4),
        "ended with the first stop"
    );
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mark_of_a_sub_agent_is_not_that_of_the_turn() {
    let mut place = Place::new().await;
    let report = place.turn("do=subagent do=slow:1500 do=nomark").await;
    assert!(
        matches!(report.outcome, TurnOutcome::Unconfirmed { .. }),
        "{report:?}"
    );
    let report = place.turn("do=subagent do=slow:500").await;
    assert_eq!(report.outcome, TurnOutcome::Done, "{report:?}");
    place.end().await;
}

fn window() -> Answerer {
    Answerer {
        way: AnswerWay::Window,
        who: "a test".into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_is_answered_once_from_afar_or_at_the_terminal() {
    let mut place = Place::new().await;
    let worktree = place.spec.worktree.clone();
    let turn = place.submit("do=permission:touch+allowed", LIMIT);
    let ask = place.asked().await;
    assert!(ask.text.contains("touch allowed"), "{ask:?}");
    place
        .session
        .answer(ask.id, AskAnswer::Allow, window())
        .await
        .unwrap();
    let second = place.session.answer(ask.id, AskAnswer::Allow, window()).await;
    assert!(matches!(second, Err(SessionError::AskOver { .. })), "{second:?}");
    let report = place.ended_within(turn, LIMIT).await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
    assert!(worktree.join("allowed").exists());

    let turn = place.submit("do=permission:touch+denied", LIMIT);
    let ask = place.asked().await;
    let deny = AskAnswer::Deny {
        message: "not today".into(),
    };
    place.session.answer(ask.id, deny, window()).await.unwrap();
    let report = place.ended_within(turn, LIMIT).await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
    assert!(place.screen().contains("not today") && !worktree.join("denied").exists());

    let turn = place.submit("do=permission:touch+typed", LIMIT);
    let ask = place.asked().await;
    place.session.keys(Bytes::from_static(b"1")).await.unwrap();
    let end = place
        .note("the end of the ask", LIMIT, |note| match note {
            SessionNote::AskClosed { ask: closed, end, .. } if *closed == ask.id => Some(end.clone()),
            _ => None,
        })
        .await;
    assert!(
        matches!(&end, AskEnd::Answered { by, .. } if by.way == AnswerWay::Terminal),
        "{end:?}"
    );
    let report = place.ended_within(turn, LIMIT).await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
    assert!(worktree.join("typed").exists());
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_by_one_of_its_choices() {
    let mut place = Place::new().await;
    let turn = place.submit("do=question:Red|Green|Blue", LIMIT);
    let ask = place.asked().await;
    assert_eq!(ask.choices, ["Red", "Green", "Blue"], "{ask:?}");
    let choose = AskAnswer::Choose { choice: 1 };
    place.session.answer(ask.id, choose, window()).await.unwrap();
    let report = place.ended_within(turn, LIMIT).await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
    assert!(place.screen().contains("You chose Green"), "{}", place.screen());
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_taken_up_again_or_the_session_ends_in_the_open() {
    let mut place = Place::new().await;
    let error = place.resume(&[]).unwrap_err();
    assert!(matches!(error, SessionError::NothingToResume { .. }), "{error}");
    let report = place.turn("do=say:remember+this").await;
    assert_eq!(report.outcome, TurnOutcome::Done, "{report:?}");
    place.session.terminate().await.unwrap();

    place.resume(&[]).unwrap();
    let report = place.turn("do=say:and+this").await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
    assert!(place.screen().contains("remember+this"), "{}", place.screen());
    place.session.terminate().await.unwrap();

    for script in ["exit-on-resume", "wrong-id"] {
        place.resume(&[script]).unwrap();
        let exit = place.exited().await;
        assert!(!exit.wanted && exit.words.is_some(), "{script}: {exit:?}");
        assert_eq!(place.living(), Vec::<u32>::new());
    }
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_terminated_takes_children_that_ignore_term_with_it() {
    let mut place = Place::new().await;
    let report = place.turn("do=fork").await;
    assert_eq!(report.outcome, TurnOutcome::Done, "{report:?}");
    assert!(place.living().len() >= 4, "{:?}", place.living());
    let proof = place.session.terminate().await.unwrap();
    assert!(proof.is_proven() && !proof.killed.is_empty(), "{proof:?}");
    assert_eq!(place.living(), Vec::<u32>::new());
    place.end().await;
}

/// The prompts that the agent took, as its transcript has them.
fn taken(place: &Place) -> Vec<String> {
    let (config, id) = (&place.spec.config_dir, place.session.id());
    let path = provider::claude::transcript_path(config, &place.spec.worktree, id);
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let typed = lines.filter(|line| line["promptSource"] == "typed");
    typed
        .filter_map(|line| line["message"]["content"].as_str().map(str::to_owned))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_for_an_agent_that_stalls_arrives_once() {
    // Longer than the echo is waited for at first.
    let mut place = Place::started(&["stall:9000"]).await;
    let report = place.turn("Only once, please. do=say:hello").await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
    let taken = taken(&place);
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert_eq!(taken[0].matches("Only once, please.").count(), 1, "{taken:?}");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_came_twice_after_a_long_stall_is_not_submitted() {
    // Long enough for a second paste; both arrive in one read.
    let mut place = Place::started(&["stall:23000"]).await;
    let report = place.turn("Never twice, please. do=say:hello").await;
    assert!(is_failed(&report, FailureClass::NotSubmitted), "{report:?}");
    assert_eq!(taken(&place), Vec::<String>::new());
    let report = place.turn("And the next one. do=say:hello").await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
    assert!(!taken(&place)[0].contains("Never twice"), "{:?}", taken(&place));
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_of_a_prompt_that_enter_did_not_submit_takes_it_back() {
    let mut place = Place::started(&["swallow:2"]).await;
    let turn = place.submit("Cancelled in the box. do=say:hello", LIMIT);
    let echo = async {
        while !place.screen().contains("Cancelled in the box.") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, echo).await.expect("the echo");
    place.session.cancel(WhichTurn::Id(turn)).unwrap();
    let report = place.ended_within(turn, LIMIT).await;
    assert_eq!(report.outcome, TurnOutcome::Cancelled, "{report:?}");
    let screen = place.screen();
    assert!(!screen.contains("Cancelled in the box."), "{screen}");
    // Its Enter is swallowed once more, and pressed again.
    let report = place.turn("And this one stays. do=say:hello").await;
    assert_eq!(
        report.outcome,
        TurnOutcome::Done,
        "{report:?}\n{}",
        place.screen()
    );
    let taken = taken(&place);
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert!(!taken[0].contains("Cancelled"), "{taken:?}");
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_never_goes_to_the_dialog_that_has_come_in_the_place_of_its_own() {
    let mut place = Place::new().await;
    let turn = place.submit("do=both:touch+first.txt|touch+second.txt", LIMIT);
    let (one, two) = (place.asked().await, place.asked().await);
    let (first, second) = match one.text.contains("first") {
        true => (one, two),
        false => (two, one),
    };
    assert!(
        first.text.contains("first.txt") && second.text.contains("second.txt"),
        "{first:?} {second:?}"
    );
    let by = || Answerer {
        way: AnswerWay::Command,
        who: "the test".into(),
    };
    // A person answers the first one at the terminal; the second one's dialog is there at once.
    place.session.keys(Bytes::from_static(b"1")).await.unwrap();
    let end = place
        .note("the end of the first ask", LIMIT, |note| match note {
            SessionNote::AskClosed { ask, end, .. } if *ask == first.id => Some(end.clone()),
            _ => None,
        })
        .await;
    assert!(
        matches!(&end, AskEnd::Answered { answer: None, by } if by.way == AnswerWay::Terminal),
        "{end:?}"
    );
    let late = place.session.answer(first.id, AskAnswer::Allow, by()).await;
    assert!(matches!(late, Err(SessionError::AskOver { .. })), "{late:?}");
    let deny = AskAnswer::Deny {
        message: "not that one".into(),
    };
    place.session.answer(second.id, deny, by()).await.unwrap();
    assert_eq!(place.ended_within(turn, LIMIT).await.outcome, TurnOutcome::Done);
    let made = |name: &str| place.spec.worktree.join(name).exists();
    assert!(made("first.txt") && !made("second.txt"));
    place.end().await;
}

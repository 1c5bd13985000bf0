//! The start of a loop on a journal that an earlier core has left, without office and network: what becomes of each
//! command, as far as this machine alone can tell.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use domain::evidence::Evidence;
use domain::turn::{FailureClass, TurnOutcome, TurnStage};
use domain::{AgentId, ClientId, Clock, OfficeId, TurnId};
use journal::{Journal, NewCommand, NewTurn};
use serde_json::{Value, json};
use supabase::{Auth, MemoryTokenStore, Project, Rest};
use terminal::Holders;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::super::office::{OfficeData, Rows};
use super::super::{EVENT_QUEUE_MAX, Ground};
use super::*;
use crate::directory::Directory;
use crate::identity::{Account, Identity};
use crate::paths::Paths;
use crate::recovery::claimed_value;
use crate::settings::Settings;
use crate::start::{FirstOffice, Machine};
use crate::stopping::StopWish;
use crate::view::{CommandStatus, Problem, ProfileKind, ProfileView};

#[path = "elsewhere_tests.rs"]
mod elsewhere_tests;
#[path = "loop_tests.rs"]
mod loop_tests;
#[path = "profile_tests.rs"]
mod profile_tests;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        NOW
    }
}

fn ground(dir: &Path, journal: Arc<Journal>) -> Ground {
    // Nobody listens there: what an office would say is not heard.
    let project = Project::new("http://127.0.0.1:9", "sb_publishable_test").unwrap();
    let clock: Arc<dyn Clock> = Arc::new(Still);
    let auth = Auth::new(
        project.clone(),
        clock.clone(),
        Arc::new(MemoryTokenStore::default()),
    )
    .unwrap();
    Ground {
        settings: Settings::default(),
        paths: Paths::choose(Some(dir.join("config")), Some(dir.join("data"))).unwrap(),
        clock,
        journal,
        rest: Rest::new(project.clone(), auth.clone()),
        project,
        profile: ProfileView {
            name: "This machine".to_owned(),
            kind: ProfileKind::ThisMachine,
            url: String::new(),
            kept: None,
            team: None,
            changing: false,
        },
        account: Account {
            email: "a@b.c".to_owned(),
            password: None,
        },
        identity: serde_json::from_value::<Identity>(json!({ "client": Uuid::nil() })).unwrap(),
        machine: Machine {
            name: "here".to_owned(),
            platform: "linux".to_owned(),
            version: "0".to_owned(),
        },
        first_office: FirstOffice {
            name: "here".to_owned(),
            agents: Vec::new(),
        },
        remark: None,
        copied_from: None,
        team_tokens: None,
        choose: watch::Sender::new(None),
        auth,
        hook_url: "http://127.0.0.1:9/hooks".to_owned(),
        environment: vec![("HOME".to_owned(), dir.display().to_string())],
        holders: Holders::in_this_process(),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
    }
}

fn core(dir: &Path, journal: &Arc<Journal>) -> EventLoop {
    let ground = ground(dir, journal.clone());
    let events = mpsc::channel(EVENT_QUEUE_MAX);
    let wish = StopWish::new();
    EventLoop::new(
        ground,
        events,
        Directory::default(),
        Arc::new(Notify::new()),
        wish.seen(),
    )
    .0
}

fn office(number: u128) -> OfficeData {
    let row = json!({ "id": id(number), "name": "here", "created_at": "2026-01-01T00:00:00Z" });
    OfficeData {
        office: serde_json::from_value(row).unwrap(),
        offices: Vec::new(),
        client: ClientId(Uuid::nil()),
        rows: Rows {
            agents: Vec::new(),
            commands: Vec::new(),
            results: HashMap::new(),
            asks: Vec::new(),
            offices: Vec::new(),
            asks_fault: None,
        },
    }
}

fn journal_in(dir: &Path) -> Arc<Journal> {
    Arc::new(Journal::open(&dir.join("journal.sqlite")).unwrap())
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// Writes a command down as the loop does.
fn received(journal: &Journal, number: u128, kind: &str, args: Value) -> CommandId {
    let claimed = supabase::ClaimedCommand {
        id: id(number).into(),
        seq: i64::try_from(number).unwrap(),
        office_id: OfficeId(id(900_001)),
        agent_id: Some(AgentId(id(900_002))),
        session_id: None,
        kind: kind.to_owned(),
        args,
        priority: 0,
        attempt: 1,
        lease_token: id(number + 500_000),
        lease_until: NOW,
        cancel_requested_at: None,
        created_at: NOW,
        expires_at: None,
        begun: false,
    };
    let command = NewCommand {
        id: claimed.id,
        office: claimed.office_id,
        agent: claimed.agent_id,
        session: None,
        kind: claimed.kind.clone(),
        args: claimed.args.clone(),
        attempt: 1,
        lease_token: claimed.lease_token,
        claimed: claimed_value(&claimed, None, "this-machine"),
    };
    journal.receive(&command, NOW).unwrap();
    claimed.id
}

fn started(journal: &Journal, number: u128, kind: &str, args: Value) -> CommandId {
    let id = received(journal, number, kind, args);
    assert!(journal.mark_started(id, NOW).unwrap());
    id
}

fn session_row(journal: &Journal, number: u128, detail: Value) -> SessionId {
    let row = SessionRow {
        id: SessionId(id(number)),
        office: OfficeId(id(900_001)),
        agent: AgentId(id(900_002)),
        title: "FE · Mina".to_owned(),
        repository: "sample".to_owned(),
        worktree: "/no/such/worktree".into(),
        branch: "semo/fe".to_owned(),
        base: None,
        state: SessionState::Idle,
        started_at: NOW,
        ended_at: None,
        detail,
    };
    journal.save_session(&row).unwrap();
    row.id
}

/// A prompt that was being carried out when the core ended.
fn carried(journal: &Journal, number: u128, session: SessionId, stage: TurnStage) -> CommandId {
    let command = started(journal, number, "send_prompt", json!({ "prompt": "do it" }));
    let turn = TurnId(id(number + 700_000));
    let request = session::TurnRequest {
        id: turn,
        prompt: "do it".to_owned(),
        marker: domain::marker::Marker::for_wish(domain::command::MarkerWish::Plain, ""),
        timeout: Duration::from_secs(60),
    };
    let row = NewTurn {
        id: turn,
        session,
        command: Some(command),
        prompt_sha256: String::new(),
        request: serde_json::to_value(&request).unwrap(),
    };
    journal.start_turn(&row, NOW).unwrap();
    for next in [TurnStage::Entering, TurnStage::Taken] {
        if next <= stage {
            assert!(journal.set_turn_stage(turn, next, None, NOW).unwrap());
        }
    }
    command
}

/// Lets the loop hear what its tasks bring, until nothing is unsettled.
async fn settle(core: &mut EventLoop) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !core.leftovers.sessions.is_empty() {
        let event = tokio::time::timeout_at(deadline, core.events.recv()).await;
        core.handle(event.expect("in time").expect("an event"));
    }
}

fn outcome(journal: &Journal, id: CommandId) -> (journal::Phase, Option<Recovery>, Option<String>) {
    let row = journal.command(id).unwrap().expect("a row");
    let due = journal.due(None, NOW, 100).unwrap();
    let result = due.into_iter().find(|row| row.command == id);
    (
        row.phase,
        row.recovered,
        result.and_then(|row| row.result.outcome),
    )
}

#[tokio::test]
async fn whatever_runs_nowhere_any_more_comes_to_its_one_end_without_an_office() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let session = session_row(&journal, 1, json!({ "secret": "s" }));
    let prompt = carried(&journal, 10, session, TurnStage::Taken);
    let keys = started(
        &journal,
        11,
        "send_keys",
        json!({ "session": session, "text": "x" }),
    );
    let end = started(&journal, 12, "terminate", json!({ "session": session }));
    let interrupt = started(&journal, 13, "cancel", json!({ "session": session }));
    let mut core = core(dir.path(), &journal);
    core.recover();
    settle(&mut core).await;
    let finished = journal::Phase::Finished;
    let unknown = (finished, Some(Recovery::Unknown), Some("unconfirmed".to_owned()));
    let reported = (finished, Some(Recovery::Reported), Some("ok".to_owned()));
    assert_eq!(
        outcome(&journal, prompt),
        unknown,
        "nobody can say what became of it"
    );
    assert_eq!(outcome(&journal, keys), unknown);
    assert_eq!(
        outcome(&journal, end),
        reported,
        "its session is gone, as was wished"
    );
    assert_eq!(outcome(&journal, interrupt), reported, "nothing runs in it");
    assert_eq!(journal.open_turns().unwrap(), []);
    let seen = core.leftovers.view();
    assert_eq!((seen.ended_meanwhile, seen.recovering, seen.unknown), (1, 0, 0));
}

#[tokio::test]
async fn what_never_reached_an_agent_waits_for_the_offices_word_and_is_begun_then_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let session = session_row(&journal, 1, json!({ "secret": "s" }));
    let new = received(&journal, 10, "send_prompt", json!({ "prompt": "later" }));
    let begun = carried(&journal, 11, session, TurnStage::Begun);
    let unnoted = started(&journal, 12, "send_prompt", json!({ "prompt": "no turn" }));
    let mut core = core(dir.path(), &journal);
    core.recover();
    settle(&mut core).await;
    for id in [new, begun, unnoted] {
        assert_eq!(core.work[&id].stage, Stage::Recovering, "{id}");
        assert_ne!(outcome(&journal, id).0, journal::Phase::Finished, "{id}");
    }
    for id in [new, begun, unnoted] {
        core.lease_is_ours(id);
        assert_eq!(
            core.work[&id].stage,
            Stage::Recovering,
            "{id}: no office is joined yet"
        );
    }
    // In line they stay for as long as their agent is paused.
    for _ in 0..3 {
        core.count_failure(AgentId(id(900_002)), "it keeps ending");
    }
    core.program_looked_for = true;
    core.office = Some(office(900_001));
    core.go_on_with_what_is_ours();
    for id in [new, begun, unnoted] {
        assert_eq!(core.work[&id].stage, Stage::InLine, "{id}");
        assert_eq!(outcome(&journal, id).1, Some(Recovery::RunAgain), "{id}");
    }
    assert_eq!(
        journal.open_turns().unwrap(),
        [],
        "the turn that was never entered is closed"
    );
    assert!(
        core.mark_started(begun) && core.mark_started(unnoted),
        "the journal had them as started"
    );
    assert!(core.mark_started(new));
}

fn silent() -> Found {
    Found::Silent {
        why: "it does not answer".to_owned(),
    }
}

/// The end of a turn whose prompt was proven not to have reached the agent.
fn never_reached(turn: TurnId) -> session::TurnReport {
    session::TurnReport {
        turn,
        outcome: TurnOutcome::Failed {
            class: FailureClass::NotSubmitted,
            detail: "the machine slept before Enter was pressed".to_owned(),
            retry_at: None,
        },
        final_message: None,
        evidence: Evidence {
            rule: session::NEVER_ENTERED.to_owned(),
            ..Evidence::default()
        },
        timings: session::TurnTimings {
            requested_at: NOW,
            first_byte_at: None,
            first_byte_after_us: None,
            submitted_at: None,
            acknowledged_at: None,
            ended_at: NOW,
        },
    }
}

#[tokio::test]
async fn a_prompt_before_whose_enter_the_machine_slept_is_begun_anew_once() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let mut core = core(dir.path(), &journal);
    core.recover();
    core.office = Some(office(900_001));
    core.program_looked_for = true;
    for _ in 0..3 {
        core.count_failure(AgentId(id(900_002)), "it keeps ending");
    }
    let session = session_row(&journal, 1, json!({ "secret": "s" }));
    let command = carried(&journal, 10, session, TurnStage::Entering);
    let row = claimed_row(&journal.command(command).unwrap().unwrap()).unwrap();
    let parsed = domain::Command::parse(&row.kind, &row.args).unwrap();
    let turn = TurnId(id(700_010));
    core.desk.hold_again(&row, core.moment());
    core.work.insert(command, Work::new(row, parsed));
    core.work.get_mut(&command).unwrap().stage = Stage::Turn { session, turn };
    let never_reached = || SessionNote::TurnEnded {
        session,
        report: Box::new(never_reached(turn)),
    };

    core.take_note(never_reached());
    assert_eq!(core.work[&command].stage, Stage::InLine);
    assert_eq!(outcome(&journal, command).1, Some(Recovery::RunAgain));
    assert_eq!(outcome(&journal, command).2, None, "nothing is reported");
    assert_eq!(journal.open_turns().unwrap(), [], "the turn is closed");
    assert!(core.mark_started(command), "it may be begun");

    core.work.get_mut(&command).unwrap().stage = Stage::Turn { session, turn };
    core.take_note(never_reached());
    assert_eq!(outcome(&journal, command).2.as_deref(), Some("failed"));
}

#[tokio::test]
async fn a_command_of_an_office_that_is_not_served_is_let_go_and_stays_open_in_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let new = received(&journal, 10, "send_prompt", json!({ "prompt": "later" }));
    let mut core = core(dir.path(), &journal);
    core.recover();
    core.program_looked_for = true;
    core.office = Some(office(900_009));
    core.lease_is_ours(new);
    assert!(core.work.is_empty());
    assert_eq!(outcome(&journal, new), (journal::Phase::Received, None, None));
}

#[tokio::test]
async fn a_command_whose_lease_is_lost_is_not_begun() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let new = received(&journal, 10, "send_prompt", json!({ "prompt": "later" }));
    let mut core = core(dir.path(), &journal);
    core.recover();
    core.cancel_work(new, json!({ "way": "lease_lost" }));
    let (phase, _, ended) = outcome(&journal, new);
    assert_eq!(
        (phase, ended.as_deref()),
        (journal::Phase::Finished, Some("cancelled"))
    );
}

#[tokio::test]
async fn a_cancel_of_before_whose_lease_is_lost_is_not_passed_on_and_is_told_as_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let cancel = started(&journal, 10, "cancel", json!({ "command": id(99) }));
    let mut core = core(dir.path(), &journal);
    core.recover();
    core.cancel_work(cancel, json!({ "way": "lease_lost" }));
    assert_eq!(outcome(&journal, cancel).2, None);
    core.lease_is_not_ours(cancel);
    assert_eq!(outcome(&journal, cancel).2.as_deref(), Some("unconfirmed"));
}

#[tokio::test]
async fn no_session_is_made_for_a_command_before_the_office_has_said_that_it_may_be_begun() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let mut core = core(dir.path(), &journal);
    core.recover();
    core.office = Some(office(900_001));
    core.program_looked_for = true;
    let create = received(&journal, 10, "create_session", json!({}));
    let row = claimed_row(&journal.command(create).unwrap().unwrap()).unwrap();
    core.desk.hold_again(&row, core.moment());
    core.open_command(row);
    assert_eq!(core.work[&create].stage, Stage::InLine);
    assert!(core.sessions.is_empty());
    assert_eq!(outcome(&journal, create), (journal::Phase::Received, None, None));
}

#[tokio::test]
async fn keys_that_waited_for_their_session_are_not_pressed_before_the_office_has_said_that_they_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let session = session_row(&journal, 1, json!({ "secret": "s" }));
    let mut core = core(dir.path(), &journal);
    core.recover();
    core.taken_up(session, silent());
    let keys = received(
        &journal,
        10,
        "send_keys",
        json!({ "session": session, "text": "y" }),
    );
    let row = claimed_row(&journal.command(keys).unwrap().unwrap()).unwrap();
    core.desk.hold_again(&row, core.moment());
    core.open_command(row);
    assert_eq!(core.work[&keys].stage, Stage::UntilSettled { session });
    let gone = Found::Gone {
        why: "it has ended".to_owned(),
        place: None,
        judged: Judged::new(),
    };
    core.taken_up(session, gone);
    assert_eq!(core.work[&keys].stage, Stage::UntilLetBegin);
    core.cancel_work(keys, json!({ "way": "office" }));
    assert_eq!(outcome(&journal, keys).2.as_deref(), Some("cancelled"));
}

#[tokio::test]
async fn a_session_that_a_later_core_holds_is_dropped_with_its_commands_and_nothing_more_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let session = session_row(&journal, 1, json!({ "secret": "s" }));
    let prompt = carried(&journal, 10, session, TurnStage::Taken);
    let mut core = core(dir.path(), &journal);
    core.recover();
    core.taken_over(session, "a later start holds it");
    assert!(core.work.is_empty() && core.sessions.is_empty());
    assert_eq!(outcome(&journal, prompt), (journal::Phase::Started, None, None));
    assert!(core.takes_nothing_new());
    assert!(core.problems.contains_key("taken_over"));
}

#[tokio::test]
async fn what_depends_on_a_holder_that_does_not_answer_waits_and_is_told_as_unknown_after_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let session = session_row(&journal, 1, json!({ "secret": "s" }));
    let prompt = carried(&journal, 10, session, TurnStage::Taken);
    let end = started(&journal, 11, "terminate", json!({ "session": session }));
    let mut core = core(dir.path(), &journal);
    core.recover();
    core.taken_up(session, silent());
    assert!(!core.is_recovering(), "the office is not kept waiting by it");
    assert_eq!(core.sessions[&session].hold, Some(Hold::Held));
    assert!(core.problems.contains_key("session_held"));
    core.office = Some(office(900_001));
    core.publish();
    for id in [prompt, end] {
        assert_eq!(core.work[&id].stage, Stage::Recovering);
        let seen = core.view.borrow().clone();
        let shown = seen.commands.iter().find(|its| its.id == id.to_string());
        let shown = shown.map(|its| its.status);
        assert_eq!(shown, Some(CommandStatus::Running), "it may be at work");
    }
    // A new command for it waits, too: it is neither refused nor begun.
    let more = received(
        &journal,
        12,
        "send_prompt",
        json!({ "prompt": "more", "session": session }),
    );
    let row = claimed_row(&journal.command(more).unwrap().unwrap()).unwrap();
    core.open_command(row);
    assert_eq!(core.work[&more].stage, Stage::UntilSettled { session });

    core.leftovers.sessions.get_mut(&session).unwrap().silent_since = Instant::now().checked_sub(SILENT_MAX);
    core.look_again(Instant::now());
    assert_eq!(outcome(&journal, prompt).2.as_deref(), Some("unconfirmed"));
    assert_eq!(outcome(&journal, end).2.as_deref(), Some("unconfirmed"));
    assert_eq!(outcome(&journal, more).2.as_deref(), Some("failed"));
    assert!(core.is_unsettled(session), "it is looked for further on");
}

#[tokio::test]
async fn nothing_waits_for_a_session_that_was_silent_for_too_long_and_what_had_no_effect_is_not_called_unknown()
 {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let session = session_row(&journal, 1, json!({ "secret": "s" }));
    let begun = carried(&journal, 10, session, TurnStage::Begun);
    let mut core = core(dir.path(), &journal);
    core.recover();
    core.taken_up(session, silent());
    core.leftovers.sessions.get_mut(&session).unwrap().silent_since = Instant::now().checked_sub(SILENT_MAX);
    core.look_again(Instant::now());
    assert_eq!(core.work[&begun].stage, Stage::Recovering);
    assert_eq!(outcome(&journal, begun).2, None, "it waits for the office alone");

    let more = received(
        &journal,
        12,
        "send_prompt",
        json!({ "prompt": "more", "session": session }),
    );
    let row = claimed_row(&journal.command(more).unwrap().unwrap()).unwrap();
    core.open_command(row);
    assert_eq!(outcome(&journal, more).2.as_deref(), Some("failed"));
}

#[tokio::test]
async fn no_session_is_started_again_before_the_agent_program_was_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let session = session_row(&journal, 1, json!({ "secret": "s" }));
    let row = journal.session(session).unwrap().unwrap();
    let mut core = core(dir.path(), &journal);
    let live = Live {
        resumes: true,
        ..Live::left(&row, &Detail::default())
    };
    core.sessions.insert(session, live);
    core.office = Some(office(900_001));
    core.resume_those_that_wait();
    assert!(core.sessions[&session].resumes, "it waits");
    assert!(!core.problems.contains_key("session_lost"));
    core.program_checked(Err(Problem {
        code: "claude_missing".to_owned(),
        message: "there is none".to_owned(),
        hint: String::new(),
    }));
    assert!(!core.sessions[&session].resumes, "now it was tried");
    assert!(
        core.problems.contains_key("session_lost"),
        "its worktree is gone, and that is told"
    );
}

#[tokio::test]
async fn while_the_journal_cannot_be_read_nothing_is_claimed_and_it_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let new = received(&journal, 10, "send_prompt", json!({ "prompt": "later" }));
    let mut core = core(dir.path(), &journal);
    core.leftovers.unread = true;
    assert!(core.takes_nothing_new());
    core.look_again(Instant::now());
    assert!(!core.takes_nothing_new());
    assert_eq!(core.work[&new].stage, Stage::Recovering);
    // What this core has in its hands by now is not taken over a second time.
    let session = session_row(&journal, 1, json!({ "secret": "s" }));
    let row = journal.session(session).unwrap().unwrap();
    let own = Detail {
        secret: "own".to_owned(),
        ..Detail::default()
    };
    core.sessions.insert(session, Live::left(&row, &own));
    core.recover();
    assert_eq!(core.sessions[&session].secret, "own");
}

#[tokio::test]
async fn a_turn_is_not_closed_before_the_end_of_its_command_is_in_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let session = session_row(&journal, 1, json!({ "secret": "s" }));
    let prompt = carried(&journal, 10, session, TurnStage::Taken);
    let mut core = core(dir.path(), &journal);
    core.recover();
    let turns = journal.open_turns().unwrap();
    // Its end is known, and the journal has refused it.
    core.leftovers.forget(prompt);
    core.wait_for(prompt, Stage::Ended);
    core.close_turns(&turns);
    assert_eq!(
        journal.open_turns().unwrap(),
        turns,
        "a core that ends here would begin the prompt again"
    );
}

#[tokio::test]
async fn what_a_later_version_has_begun_is_unknown_and_what_it_has_not_is_not_judged_before_its_lease_is_ours()
 {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let begun = started(&journal, 10, "dance", json!({}));
    let new = received(&journal, 11, "dance", json!({}));
    let mut core = core(dir.path(), &journal);
    core.recover();
    let unknown = (
        journal::Phase::Finished,
        Some(Recovery::Unknown),
        Some("unconfirmed".to_owned()),
    );
    assert_eq!(outcome(&journal, begun), unknown);
    assert_eq!(core.work[&new].stage, Stage::Recovering);
}

#[tokio::test]
async fn a_cancel_of_an_earlier_core_that_is_itself_cancelled_is_not_held_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let target = CommandId(id(99));
    let cancel = started(&journal, 10, "cancel", json!({ "command": target }));
    let mut core = core(dir.path(), &journal);
    core.recover();
    core.program_looked_for = true;
    core.office = Some(office(900_001));
    core.follow_lease(cancel, crate::rules::lease::Means::Cancel);
    assert_eq!(core.work[&cancel].stage, Stage::Asking);
    assert_eq!(outcome(&journal, cancel).1, Some(Recovery::Followed));
}

#[tokio::test]
async fn a_note_that_comes_before_its_session_is_settled_is_heard_behind_that() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let session = session_row(&journal, 1, json!({ "secret": "s" }));
    let mut core = core(dir.path(), &journal);
    core.recover();
    core.take_note(SessionNote::State {
        session,
        state: SessionState::Idle,
    });
    assert_eq!(core.sessions[&session].state, SessionState::Starting);
    assert_eq!(core.leftovers.sessions[&session].notes.len(), 1);
}

#[tokio::test]
async fn a_pause_of_an_agent_outlives_the_core() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let agent = AgentId(id(900_002));
    let mut first = core(dir.path(), &journal);
    for _ in 0..3 {
        first.count_failure(agent, "it keeps ending");
    }
    drop(first);
    let mut next = core(dir.path(), &journal);
    next.recover();
    assert!(next.paused(agent).is_some());
    assert!(next.problems.contains_key("agent_paused"));
}

#[tokio::test]
async fn what_is_known_of_a_session_comes_back_as_it_was() {
    let detail = Detail {
        secret: "s".to_owned(),
        provider: "scripted".to_owned(),
        persona_hash: "h".to_owned(),
        stale: true,
        talked: true,
        was_ready: true,
        restarts: 2,
        conversation: Some(SessionId(id(7))),
        idle_since: Some(NOW),
        ..Detail::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let session = session_row(&journal, 1, detail.value());
    let mut core = core(dir.path(), &journal);
    core.recover();
    assert_eq!(core.sessions[&session].detail(), detail);
    let again = journal.session(session).unwrap().unwrap();
    assert_eq!(Detail::of(&again), Some(detail));
}

#[tokio::test]
async fn a_program_that_was_to_take_up_a_conversation_and_has_not_shown_its_prompt_is_still_held_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let mut core = core(dir.path(), &journal);
    for (number, resumed, was_ready, expected) in [
        (1, true, false, StartMode::Resume),
        (2, true, true, StartMode::New),
        (3, false, false, StartMode::New),
    ] {
        let detail = Detail {
            secret: "s".to_owned(),
            resumed,
            was_ready,
            ..Detail::default()
        };
        let session = session_row(&journal, number, detail.value());
        let row = journal.session(session).unwrap().unwrap();
        let live = Live::left(&row, &Detail::of(&row).unwrap());
        assert_eq!(core.spec_of_left(session, &live).start, expected);
    }
    core.recover();
}

/// The bound is a tenth of what is promised of the whole start, on a machine that does other things besides.
#[tokio::test]
async fn a_thousand_journalled_commands_are_taken_over_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let sessions: Vec<_> = (0..6)
        .map(|number| session_row(&journal, number + 1, json!({ "secret": "s" })))
        .collect();
    for number in 0..1_000_u128 {
        let open = number % 10 == 0;
        let id = received(
            &journal,
            number + 1_000,
            "send_prompt",
            json!({ "prompt": "x".repeat(2_000) }),
        );
        if !open {
            let finish = journal::Finish {
                command: id,
                result: End::ok(json!({})).result(),
                turn: None,
            };
            journal.finish(&finish, NOW).unwrap();
        }
    }
    let mut core = core(dir.path(), &journal);
    let before = std::time::Instant::now();
    core.recover();
    let took = before.elapsed();
    assert_eq!((core.work.len(), core.sessions.len()), (100, sessions.len()));
    println!("taking over 1,000 journalled commands, 100 of them open: {took:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
}

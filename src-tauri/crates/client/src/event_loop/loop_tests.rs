//! The loop by itself, without office and network: what it does with one thing that comes in.

use domain::ask::{AnswerWay, Answerer, AskAnswer};
use session::SessionError;
use supabase::{NO_SUCH_FUNCTION, RestError};
use terminal::TerminalError;

use super::*;
use crate::event_loop::answers::Given;
use crate::rules::claims::Room;
use crate::stopping::StopHow;

const WAITED: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_core_whose_session_was_taken_over_ends_itself_begins_nothing_more_and_leaves_the_agents() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let session = session_row(&journal, 1, json!({ "secret": "s" }));
    let other = session_row(&journal, 2, json!({ "secret": "s" }));
    let prompt = carried(&journal, 10, session, TurnStage::Taken);
    let mut core = core(dir.path(), &journal);
    core.recover();
    core.taken_up(other, silent());
    let new = received(&journal, 11, "create_session", json!({}));
    assert!(!core.may_end());
    core.taken_over(session, "a later start holds it");
    assert!(core.is_stopping() && core.may_end());
    // What comes in until it has ended is not begun.
    let row = claimed_row(&journal.command(new).unwrap().unwrap()).unwrap();
    core.open_command(row);
    assert_eq!(core.work[&new].stage, Stage::InLine);
    let seen = core.view.subscribe();
    core.shut_down().await;
    let last = seen.borrow().clone();
    assert_eq!(
        last.ending.as_ref().map(|ending| ending.how),
        Some(StopHow::Leave)
    );
    assert!(
        last.problems.iter().any(|problem| problem.code == "taken_over"),
        "it says why"
    );
    for left in [session, other] {
        assert_eq!(journal.session(left).unwrap().unwrap().ended_at, None);
    }
    assert_eq!(outcome(&journal, prompt), (journal::Phase::Started, None, None));
    assert_eq!(outcome(&journal, new), (journal::Phase::Received, None, None));
}

#[tokio::test]
async fn an_end_at_once_stays_one_when_another_core_comes() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let mut core = core(dir.path(), &journal);
    for (before, then) in [
        (None, StopHow::Leave),
        (Some(StopHow::Finish), StopHow::Leave),
        (Some(StopHow::Now), StopHow::Now),
    ] {
        core.stopping = before;
        core.leave_now();
        assert_eq!(core.stopping, Some(then));
    }
}

/// A command as it stands in the journal, begun.
fn in_hand(core: &mut EventLoop, journal: &Journal, command: CommandId) {
    let row = claimed_row(&journal.command(command).unwrap().unwrap()).unwrap();
    let parsed = Command::parse(&row.kind, &row.args).unwrap();
    core.work.insert(command, Work::new(row, parsed));
}

#[tokio::test]
async fn keys_are_called_not_pressed_only_where_that_is_proven() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let session = session_row(&journal, 1, json!({ "secret": "s" }));
    let mut core = core(dir.path(), &journal);
    let (pid, waited) = (1, WAITED);
    let of_terminal = |source| SessionError::Terminal { session, source };
    for (number, fault, told) in [
        (10, of_terminal(TerminalError::Stuck { pid, waited }), "failed"),
        (11, SessionError::Over { session }, "failed"),
        (
            12,
            of_terminal(TerminalError::Unsure { pid, waited }),
            "unconfirmed",
        ),
        (13, of_terminal(TerminalError::Closed { pid }), "unconfirmed"),
        (14, of_terminal(TerminalError::LetGo { pid }), "unconfirmed"),
        (15, SessionError::TakenOver { session }, "unconfirmed"),
    ] {
        let args = json!({ "session": session, "text": "y" });
        let keys = started(&journal, number, "send_keys", args);
        in_hand(&mut core, &journal, keys);
        core.keys_pressed(keys, session, Err(fault));
        assert_eq!(outcome(&journal, keys).2.as_deref(), Some(told), "{number}");
    }
}

#[tokio::test]
async fn an_answer_of_which_it_is_not_known_whether_it_was_typed_is_not_called_not_answered() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let session = session_row(&journal, 1, json!({ "secret": "s" }));
    let mut core = core(dir.path(), &journal);
    let ask = domain::AskId(id(77));
    let unsure = SessionError::AnswerUnsure {
        session,
        ask,
        why: "its key was given up".to_owned(),
    };
    let refused = SessionError::NotAnswerable {
        session,
        ask,
        why: "no key is taken",
    };
    for (number, fault, told) in [(10, unsure, "unconfirmed"), (11, refused, "failed")] {
        let args = json!({ "session": session, "ask": ask, "answer": { "say": "allow" } });
        let approve = started(&journal, number, "approve", args);
        in_hand(&mut core, &journal, approve);
        let by = Answerer {
            way: AnswerWay::Command,
            who: String::new(),
        };
        core.answer_given(Given::of_command(approve, ask, AskAnswer::Allow, by, Err(fault)));
        assert_eq!(outcome(&journal, approve).2.as_deref(), Some(told), "{number}");
    }
}

#[tokio::test]
async fn an_office_of_an_earlier_version_is_asked_once_more_without_what_it_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let mut core = core(dir.path(), &journal);
    core.program_looked_for = true;
    core.office = Some(office(900_001));
    let here = OfficeId(id(900_001));
    let unknown = || RestError::NotFound {
        attempted: "call claim_commands".to_owned(),
        code: NO_SUCH_FUNCTION.to_owned(),
        message: "Could not find the function".to_owned(),
    };
    let is_under_way = |core: &mut EventLoop| {
        let (room, now) = (Room { places: 1, line: 0 }, core.moment());
        core.desk.wish_claim(true, room, now).is_none()
    };
    assert!(core.known().is_some());
    core.claim("test");
    core.claimed(here, "test", Err(unknown()));
    assert!(core.known().is_none());
    assert!(is_under_way(&mut core), "it is asked once more");
    core.claimed(here, "test", Ok(Vec::new()));
    assert!(core.problems.contains_key("office_claims"), "still to be mended");
    // A wish that came meanwhile was sent; not even that is known there.
    core.claimed(here, "test", Err(unknown()));
    assert!(!is_under_way(&mut core), "the poll tries it again");
    // After a join it may be of another version.
    core.joined(office(900_001));
    assert!(core.known().is_some());
    core.claimed(here, "test", Ok(Vec::new()));
    assert!(!core.problems.contains_key("office_claims"));
}

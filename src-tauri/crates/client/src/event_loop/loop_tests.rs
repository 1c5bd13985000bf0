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

/// The data folder in which a core of these tests works.
fn in_folder(core: &mut EventLoop, key: u128) {
    let folder = json!({ "path": "/data", "device": 1, "inode": 2, "key": id(key) });
    let identity = json!({ "client": Uuid::nil(), "folder": folder });
    core.ground.identity = serde_json::from_value(identity).unwrap();
}

/// The command was claimed from this data folder.
fn claimed_from(journal: &Journal, command: CommandId, key: u128) {
    let mut row = journal.command(command).unwrap().unwrap().command;
    row.claimed["folder"] = json!(id(key));
    journal.receive(&row, NOW).unwrap();
}

#[tokio::test]
async fn what_comes_while_the_core_turns_to_another_office_is_left_to_the_office_that_gave_it() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = journal_in(&dir.path().join("elsewhere"));
    let journal = journal_in(dir.path());
    let given = received(&elsewhere, 10, "send_prompt", json!({ "prompt": "later" }));
    let row = || claimed_row(&elsewhere.command(given).unwrap().unwrap()).unwrap();
    let mut core = core(dir.path(), &journal);
    core.program_looked_for = true;
    core.office = Some(office(900_001));
    core.claim("test");
    core.profile.leaving = true;
    core.claimed(OfficeId(id(900_001)), "test", Ok(vec![row()]));
    assert!(journal.command(given).unwrap().is_none() && core.work.is_empty());
    assert_eq!(core.desk.held().count(), 0);
    // The turn has not come about: it is given again, and taken.
    core.profile.leaving = false;
    core.claim("test");
    core.claimed(OfficeId(id(900_001)), "test", Ok(vec![row()]));
    assert!(journal.command(given).unwrap().is_some());
}

#[tokio::test]
async fn what_has_expired_before_the_journal_took_it_is_not_carried_out() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = journal_in(&dir.path().join("elsewhere"));
    let journal = journal_in(dir.path());
    let mut core = core(dir.path(), &journal);
    core.program_looked_for = true;
    core.office = Some(office(900_001));
    for (number, left_ms, told) in [(10, 0, "failed"), (11, 60_000, "ok")] {
        let given = received(&elsewhere, number, "list_sessions", json!({}));
        let mut row = claimed_row(&elsewhere.command(given).unwrap().unwrap()).unwrap();
        let claimed_at = row.lease_until.plus_ms(-60_000);
        row.expires_at = Some(claimed_at.plus_ms(left_ms));
        core.claim("test");
        core.claimed(OfficeId(id(900_001)), "test", Ok(vec![row]));
        assert_eq!(outcome(&journal, given).2.as_deref(), Some(told), "{number}");
    }
}

#[tokio::test]
async fn the_office_that_was_picked_is_found_again_after_a_sign_out() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let mut core = core(dir.path(), &journal);
    core.office = Some(office(900_001));
    let (reply, answer) = tokio::sync::oneshot::channel();
    core.profile_step(crate::event_loop::profile::Step::SignedOut {
        result: Ok(()),
        reply,
    });
    assert!(answer.await.unwrap().is_ok() && core.office.is_none());
    assert_eq!(core.office_wanted, Some(OfficeId(id(900_001))));
}

#[tokio::test]
async fn what_was_claimed_from_another_data_folder_is_left_to_its_lease() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let prompt = || json!({ "prompt": "later" });
    let own = received(&journal, 10, "send_prompt", prompt());
    let new = received(&journal, 11, "send_prompt", prompt());
    let begun = started(&journal, 12, "send_prompt", prompt());
    claimed_from(&journal, own, 5);
    claimed_from(&journal, new, 6);
    claimed_from(&journal, begun, 6);
    let mut core = core(dir.path(), &journal);
    in_folder(&mut core, 5);
    core.recover();
    assert_eq!(core.work.keys().copied().collect::<Vec<_>>(), [own]);
    assert!(
        journal.command(new).unwrap().is_none(),
        "new, when it comes again"
    );
    assert_eq!(outcome(&journal, begun).0, journal::Phase::Finished);
    assert!(
        journal.due(None, NOW, 9).unwrap().is_empty(),
        "whoever has it may live, and tells it"
    );
    let held: Vec<_> = core.desk.held().collect();
    assert_eq!(held, [own], "no lease of theirs is kept");
}

#[tokio::test]
async fn a_core_whose_client_another_core_is_ends_itself_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let session = session_row(&journal, 1, json!({ "secret": "s" }));
    let mut core = core(dir.path(), &journal);
    in_folder(&mut core, 5);
    core.program_looked_for = true;
    core.office = Some(office(900_001));
    assert_eq!(core.folder(), Some(id(5)));
    core.claim("test");
    let elsewhere = RestError::Conflict {
        attempted: "call claim_commands".to_owned(),
        code: "PT409".to_owned(),
        message: "another core works as this client".to_owned(),
    };
    core.claimed(OfficeId(id(900_001)), "test", Err(elsewhere));
    assert!(core.is_stopping() && core.may_end());
    let problem = &core.problems[crate::view::TAKEN_OVER];
    assert!(problem.message.contains("copy"), "{}", problem.message);
    core.shut_down().await;
    assert_eq!(journal.session(session).unwrap().unwrap().ended_at, None);
}

#[tokio::test]
async fn work_that_stands_begun_and_waits_is_told_as_unknown_when_its_lease_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let mut core = core(dir.path(), &journal);
    let prompt = started(&journal, 10, "send_prompt", json!({ "prompt": "later" }));
    core.recover();
    in_hand(&mut core, &journal, prompt);
    let row = claimed_row(&journal.command(prompt).unwrap().unwrap()).unwrap();
    core.desk.hold_again(&row, core.moment());
    let due = core.desk.renew(core.moment());
    let lost = supabase::Renewal {
        held: false,
        cancel: true,
    };
    core.desk.renewed(due[0].0, due[0].1, Some(lost), core.moment());
    core.stop_lost_work();
    assert_eq!(outcome(&journal, prompt).2.as_deref(), Some("unconfirmed"));
}

#[tokio::test]
async fn whoever_ends_a_session_that_stood_ready_does_not_get_the_next_one_at_once() {
    for (number, ahead) in [(1, true), (2, false)] {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal_in(dir.path());
        let session = session_row(&journal, number, json!({ "secret": "s", "warm": ahead }));
        let mut core = core(dir.path(), &journal);
        core.recover();
        let live = core.sessions.get_mut(&session).unwrap();
        // A line at its keyboard, seen as a turn.
        (live.warm, live.was_ready, live.rested) = (false, true, true);
        let exit = session::SessionExit {
            code: Some(0),
            signal: None,
            wanted: false,
            words: None,
            conversation: None,
        };
        core.program_ended(session, exit);
        assert_eq!(core.pool.warm_again_at.is_some(), ahead);
    }
}

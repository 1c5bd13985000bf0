//! The journal's promises, one test each: nothing written is lost, nothing is done twice, trouble is told clearly.

use std::fs;
use std::path::{Path, PathBuf};

use domain::session::SessionState;
use domain::turn::{TurnOutcome, TurnStage};
use domain::{AgentId, CommandId, OfficeId, ResultId, SessionId, Timestamp, TurnId};
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use super::table::prune::Limits;
use super::*;

mod cut_log;
mod faults;
mod keeping;
mod model;
mod recovery;

const NOW: Timestamp = Timestamp(1_795_219_200_000);

/// Numbers for tests that try many things (splitmix64): the same seed gives the same numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

struct Place {
    dir: TempDir,
    journal: Journal,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&dir.path().join("journal.db")).unwrap();
    Place { dir, journal }
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn command(n: u128) -> NewCommand {
    NewCommand {
        id: CommandId(id(n)),
        office: OfficeId(id(1)),
        agent: Some(AgentId(id(2))),
        session: None,
        kind: "send_prompt".into(),
        args: json!({ "prompt": "안녕\n둘째 줄" }),
        attempt: 1,
        lease_token: id(n + 1_000),
        claimed: json!({ "seq": 7 }),
    }
}

fn session(n: u128) -> SessionRow {
    SessionRow {
        id: SessionId(id(n)),
        office: OfficeId(id(1)),
        agent: AgentId(id(2)),
        title: "Mina".into(),
        repository: "sample".into(),
        worktree: PathBuf::from("/w/fe-1"),
        branch: "semo/fe-1".into(),
        base: Some("abc".into()),
        state: SessionState::Starting,
        started_at: NOW,
        ended_at: None,
        detail: json!({ "secret": "s" }),
    }
}

fn turn(n: u128, session: u128, command: u128) -> NewTurn {
    NewTurn {
        id: TurnId(id(n)),
        session: SessionId(id(session)),
        command: Some(CommandId(id(command))),
        prompt_sha256: "00".repeat(32),
        request: json!({ "prompt": "p" }),
    }
}

fn end_of(turn: u128) -> TurnEnd {
    TurnEnd {
        turn: TurnId(id(turn)),
        outcome: TurnOutcome::Done,
        rule: "stop-with-marker".into(),
    }
}

fn finish(n: u128) -> Finish {
    Finish {
        command: CommandId(id(n)),
        result: NewResult {
            id: ResultId(id(n + 2_000)),
            status: ResultStatus::Succeeded,
            outcome: Some("done".into()),
            output: Some(json!({ "final_message": "끝" })),
            error: None,
            evidence: Some(json!({ "rule": "stop-with-marker" })),
            timings: None,
        },
        turn: None,
    }
}

/// The files as a power cut would leave them: whatever has reached them, nothing closed.
fn as_after_a_power_cut(place: &Place) -> (TempDir, Journal) {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(place.dir.path()).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_name().to_string_lossy().ends_with("-shm") {
            fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    let journal = Journal::open(&dir.path().join("journal.db")).unwrap();
    (dir, journal)
}

#[test]
fn what_was_written_is_there_after_a_power_cut() {
    let place = place();
    place.journal.receive(&command(10), NOW).unwrap();
    place.journal.receive(&command(11), NOW.plus_ms(1)).unwrap();
    assert!(
        place
            .journal
            .mark_started(CommandId(id(10)), NOW.plus_ms(2))
            .unwrap()
    );
    place.journal.save_session(&session(20)).unwrap();
    place
        .journal
        .start_turn(&turn(30, 20, 10), NOW.plus_ms(3))
        .unwrap();

    let (_dir, after) = as_after_a_power_cut(&place);
    let open = after.unfinished().unwrap();
    assert_eq!(
        open.iter()
            .map(|row| (row.command.id.0, row.phase))
            .collect::<Vec<_>>(),
        [(id(10), Phase::Started), (id(11), Phase::Received)],
        "the begun one is told from the one that may still be begun"
    );
    assert_eq!(open[0].command, command(10), "word for word");
    assert_eq!(after.open_turns().unwrap()[0].turn, turn(30, 20, 10));
    assert_eq!(after.open_sessions().unwrap(), [session(20)]);
}

#[test]
fn the_same_command_twice_is_known_and_begun_once() {
    let Place { journal, .. } = &place();
    assert_eq!(journal.receive(&command(10), NOW).unwrap(), Received::New);
    assert!(journal.mark_started(CommandId(id(10)), NOW).unwrap());
    let again = NewCommand {
        attempt: 2,
        lease_token: id(77),
        ..command(10)
    };
    let known = journal.receive(&again, NOW.plus_ms(5)).unwrap();
    assert_eq!(
        known,
        Received::Known {
            phase: Phase::Started
        }
    );
    assert!(
        !journal.mark_started(CommandId(id(10)), NOW.plus_ms(6)).unwrap(),
        "not a second time"
    );
    let row = journal.command(CommandId(id(10))).unwrap().unwrap();
    assert_eq!(
        (row.command.attempt, row.command.lease_token),
        (2, id(77)),
        "the newest claim counts"
    );
    assert_eq!((row.received_at, row.started_at), (NOW, Some(NOW)));
}

#[test]
fn a_result_leaves_under_the_token_of_the_newest_claim() {
    let Place { journal, .. } = &place();
    journal.receive(&command(10), NOW).unwrap();
    journal.mark_started(CommandId(id(10)), NOW).unwrap();
    let again = NewCommand {
        lease_token: id(77),
        ..command(10)
    };
    journal.receive(&again, NOW).unwrap();
    journal.finish(&finish(10), NOW).unwrap();
    assert_eq!(journal.due(None, NOW, 10).unwrap()[0].lease_token, id(77));
}

#[test]
fn an_end_is_written_whole_or_not_at_all() {
    let Place { journal, .. } = &place();
    journal.receive(&command(10), NOW).unwrap();
    journal.mark_started(CommandId(id(10)), NOW).unwrap();
    let end = |turn| Finish {
        turn: Some(TurnEnd {
            turn,
            outcome: TurnOutcome::Done,
            rule: "stop-with-marker".into(),
        }),
        ..finish(10)
    };
    let error = journal.finish(&end(TurnId(id(404))), NOW).unwrap_err();
    assert!(matches!(error, JournalError::Unknown { .. }), "{error}");
    let row = journal.command(CommandId(id(10))).unwrap().unwrap();
    assert_eq!(row.phase, Phase::Started, "the phase went back with the rest");
    assert_eq!(
        journal.counts().unwrap().results_waiting,
        0,
        "and no result was left behind"
    );

    journal.save_session(&session(20)).unwrap();
    journal.start_turn(&turn(30, 20, 10), NOW).unwrap();
    assert_eq!(
        journal.finish(&end(TurnId(id(30))), NOW.plus_ms(9)).unwrap(),
        Finished::Recorded
    );
    let ended = journal.turn(TurnId(id(30))).unwrap().unwrap();
    assert_eq!(
        (ended.outcome, ended.ended_at),
        (Some(TurnOutcome::Done), Some(NOW.plus_ms(9)))
    );
    assert!(journal.unfinished().unwrap().is_empty() && journal.open_turns().unwrap().is_empty());
}

#[test]
fn of_two_ends_at_the_same_moment_one_stays() {
    let Place { journal, .. } = &place();
    journal.receive(&command(10), NOW).unwrap();
    let other = Finish {
        result: NewResult {
            id: ResultId(id(9_999)),
            status: ResultStatus::Failed,
            ..finish(10).result
        },
        ..finish(10)
    };
    let ends = [finish(10), other];
    let outcomes: Vec<Finished> = std::thread::scope(|scope| {
        let threads: Vec<_> = ends
            .iter()
            .map(|end| scope.spawn(|| journal.finish(end, NOW).unwrap()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let winner = outcomes
        .iter()
        .position(|outcome| *outcome == Finished::Recorded)
        .unwrap();
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| **outcome == Finished::Already)
            .count(),
        1
    );
    assert_eq!(
        journal.due(None, NOW, 10).unwrap()[0].result,
        ends[winner].result,
        "unchanged by the loser"
    );
}

#[test]
fn a_result_stays_until_the_office_has_it() {
    let Place { journal, .. } = &place();
    for n in [10, 11] {
        journal.receive(&command(n), NOW).unwrap();
        journal.finish(&finish(n), NOW.plus_ms(n as i64)).unwrap();
    }
    let due = journal.due(None, NOW.plus_ms(100), 10).unwrap();
    assert_eq!(due.len(), 2);
    assert_eq!(
        (due[0].office, &due[0].result),
        (OfficeId(id(1)), &finish(10).result)
    );

    let later = NOW.plus_ms(60_000);
    journal
        .postpone(due[0].result.id, later, "no route to host")
        .unwrap();
    journal
        .acknowledge(due[1].result.id, Acknowledgement::Recorded, NOW)
        .unwrap();
    assert!(
        journal.due(None, NOW.plus_ms(100), 10).unwrap().is_empty(),
        "one waits, one has arrived"
    );
    assert_eq!(journal.next_due_at(None).unwrap(), Some(later));
    assert_eq!(journal.unanswered(None, 10).unwrap(), [due[0].command]);
    assert!(journal.unanswered(None, 0).unwrap().is_empty());
    let row = &journal.due(None, later, 10).unwrap()[0];
    assert_eq!(
        (row.tries, row.last_error.as_deref()),
        (1, Some("no route to host"))
    );

    assert_eq!(
        journal.hasten(NOW.plus_ms(200)).unwrap(),
        1,
        "the network is back"
    );
    assert_eq!(journal.due(None, NOW.plus_ms(200), 10).unwrap().len(), 1);
    journal
        .acknowledge(due[0].result.id, Acknowledgement::Duplicate, NOW)
        .unwrap();
    assert_eq!(journal.next_due_at(None).unwrap(), None);
}

#[test]
fn a_finished_command_that_is_given_out_again_is_reported_anew() {
    let Place { journal, .. } = &place();
    journal.receive(&command(10), NOW).unwrap();
    journal.finish(&finish(10), NOW).unwrap();
    journal
        .acknowledge(finish(10).result.id, Acknowledgement::Late, NOW)
        .unwrap();

    let again = NewCommand {
        lease_token: id(77),
        attempt: 2,
        ..command(10)
    };
    let known = journal.receive(&again, NOW).unwrap();
    assert_eq!(
        known,
        Received::Known {
            phase: Phase::Finished
        }
    );
    journal
        .report_again(CommandId(id(10)), ResultId(id(5)), NOW)
        .unwrap();
    let due = journal.due(None, NOW, 10).unwrap();
    assert_eq!((due[0].result.id, due[0].lease_token), (ResultId(id(5)), id(77)));
    assert_eq!(
        due[0].result.output,
        finish(10).result.output,
        "the work is not done again, only told again"
    );

    journal
        .acknowledge(finish(10).result.id, Acknowledgement::Late, NOW)
        .unwrap();
    assert_eq!(
        journal.due(None, NOW, 10).unwrap().len(),
        1,
        "a stray answer to the old report changes nothing"
    );
}

#[test]
fn sessions_are_found_again_until_they_have_ended() {
    let Place { journal, .. } = &place();
    journal.save_session(&session(20)).unwrap();
    journal
        .set_session_state(SessionId(id(20)), &SessionState::Idle, NOW)
        .unwrap();
    assert_eq!(journal.open_sessions().unwrap()[0].state, SessionState::Idle);
    let exited = SessionState::Exited { code: Some(0) };
    journal
        .set_session_state(SessionId(id(20)), &exited, NOW.plus_ms(7))
        .unwrap();
    assert!(journal.open_sessions().unwrap().is_empty());
    let row = journal.session(SessionId(id(20))).unwrap().unwrap();
    assert_eq!((row.state, row.ended_at), (exited, Some(NOW.plus_ms(7))));
    let unknown = journal
        .set_session_state(SessionId(id(404)), &SessionState::Idle, NOW)
        .unwrap_err();
    assert!(unknown.to_string().contains(&id(404).to_string()), "{unknown}");
}

#[test]
fn old_rows_go_but_never_a_result_that_waits() {
    let Place { journal, .. } = &place();
    for n in [10, 11] {
        journal.receive(&command(n), NOW).unwrap();
        journal.finish(&finish(n), NOW).unwrap();
    }
    journal
        .acknowledge(finish(10).result.id, Acknowledgement::Recorded, NOW)
        .unwrap();
    journal
        .save_session(&SessionRow {
            ended_at: Some(NOW),
            ..session(20)
        })
        .unwrap();
    journal.save_session(&session(21)).unwrap();
    journal.start_turn(&turn(30, 20, 10), NOW).unwrap();
    let limits = Limits {
        kept_min: 0,
        ..Limits::default()
    };
    let all = NOW.plus_ms(1);
    assert_eq!(
        journal.prune_to(NOW, limits).unwrap().rows,
        0,
        "nothing ended before now"
    );
    assert_eq!(
        journal.prune(all).unwrap().rows,
        0,
        "the newest stay whatever the clock says, and a session as long as a turn of it is open"
    );
    journal.end_turn(&end_of(30), NOW).unwrap();
    assert_eq!(journal.prune_to(all, limits).unwrap().rows, 2);
    let counts = journal.counts().unwrap();
    assert_eq!(
        (counts.finished, counts.results_waiting, counts.sessions_open),
        (1, 1, 1)
    );
    assert_eq!(counts.oldest_waiting, Some(NOW));
    assert_eq!(
        journal.turn(TurnId(id(30))).unwrap(),
        None,
        "a turn goes with its session"
    );
}

#[test]
fn a_full_disk_is_told_as_one_and_takes_nothing_back() {
    let Place { journal, .. } = &place();
    journal.receive(&command(10), NOW).unwrap();
    let pages: i64 = journal
        .connection()
        .query_row("pragma page_count", [], |row| row.get(0))
        .unwrap();
    let limit = |pages: i64| {
        journal
            .connection()
            .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
            .unwrap();
    };
    limit(pages);
    let large = NewCommand {
        args: json!({ "prompt": "x".repeat(60_000) }),
        ..command(11)
    };
    let error = journal.receive(&large, NOW).unwrap_err();
    assert!(matches!(error, JournalError::DiskFull { .. }), "{error:?}");
    assert!(error.to_string().contains("free some space"), "{error}");
    assert_eq!(
        journal.unfinished().unwrap().len(),
        1,
        "what was there is there, the rest is not"
    );
    limit(pages + 1_000);
    assert_eq!(
        journal.receive(&large, NOW).unwrap(),
        Received::New,
        "and it goes on when there is space"
    );
}

#[test]
fn a_disk_that_is_full_while_the_file_is_opened_is_told_as_one_too() {
    // What SQLite answered on a real file system of 600 KiB with 8 to 32 KiB left.
    let seen = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(4874), None);
    let error = JournalError::from_sqlite("check", Path::new("journal.db"), seen);
    assert!(matches!(error, JournalError::DiskFull { .. }), "{error:?}");
}

#[test]
fn a_file_that_turns_read_only_is_told_as_that() {
    let Place { journal, .. } = &place();
    journal
        .connection()
        .pragma_update(None, "query_only", "on")
        .unwrap();
    let error = journal.receive(&command(10), NOW).unwrap_err();
    assert!(matches!(error, JournalError::ReadOnly { .. }), "{error:?}");
}

#[test]
fn a_folder_that_is_not_writable_is_told_before_anything_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let folder = unwritable(dir.path());
    let error = Journal::open(&folder.join("semo/journal.db")).unwrap_err();
    assert!(matches!(error, JournalError::ReadOnly { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .contains("make the file and its folder writable"),
        "{error}"
    );
}

#[test]
fn a_folder_that_cannot_be_made_is_told_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let path = dir.path().join("file/journal.db");
    let error = Journal::open(&path).unwrap_err();
    assert!(matches!(error, JournalError::Open { .. }), "{error:?}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[test]
fn a_damaged_file_is_refused_and_left_as_it_is() {
    let Place { dir, journal } = place();
    let path = journal.path().to_owned();
    for n in 10..200 {
        journal.receive(&command(n), NOW).unwrap();
    }
    drop(journal);
    let whole = fs::read(&path).unwrap();

    let mut torn = whole.clone();
    let half = torn.len() / 2;
    torn[half..].fill(0xa5);
    let foreign = b"this is somebody's diary, not a database, and it is longer than a header".to_vec();
    for bytes in [torn, foreign] {
        fs::write(&path, &bytes).unwrap();
        let error = Journal::open(&path).unwrap_err();
        assert!(matches!(error, JournalError::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains("--set-journal-aside"), "{error}");
        assert!(fs::read(&path).unwrap() == bytes, "evidence is not written over");
    }
    drop(dir);
}

#[test]
fn a_journal_of_a_newer_program_is_refused_and_an_older_one_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let version = |path: &Path, set: Option<i64>| -> i64 {
        let connection = Connection::open(path).unwrap();
        if let Some(version) = set {
            connection.pragma_update(None, "user_version", version).unwrap();
        }
        connection
            .query_row("pragma user_version", [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(version(&path, None), 0, "an empty file");
    drop(Journal::open(&path).unwrap());
    let known = version(&path, None);
    assert!(known >= 1);
    drop(Journal::open(&path).unwrap());
    assert_eq!(version(&path, None), known, "opening it again changes nothing");

    version(&path, Some(known + 1));
    let error = Journal::open(&path).unwrap_err();
    assert!(matches!(error, JournalError::Newer { .. }), "{error:?}");
    assert!(error.to_string().contains("use the newer program"), "{error}");
}

#[cfg(unix)]
#[test]
fn prompts_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let place = place();
    place.journal.receive(&command(10), NOW).unwrap();
    for entry in fs::read_dir(place.dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
    }
}

/// A folder in which this user may not make files. Root may everywhere, but for the kernel's own file systems.
fn unwritable(dir: &Path) -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/sys");
    }
    let folder = dir.join("closed");
    fs::create_dir(&folder).unwrap();
    let mut permissions = fs::metadata(&folder).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&folder, permissions).unwrap();
    folder
}

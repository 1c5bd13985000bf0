//! Each trouble that a file and its disk can make, as a state of its own.

use super::*;

type Write = (&'static str, fn(&Journal, u128) -> Result<(), JournalError>);

/// Every call that writes, with something large where it takes something; each on rows of its own (`n`), which
/// [`prepare`] has made.
const WRITES: [Write; 19] = [
    ("receive", |j, n| {
        j.receive(&large_command(n + 500), NOW).map(drop)
    }),
    ("receive again", |j, n| {
        j.receive(&large_command(n), NOW).map(drop)
    }),
    ("mark_started", |j, n| {
        j.mark_started(CommandId(id(n)), NOW).map(drop)
    }),
    ("bind_session", |j, n| {
        j.bind_session(CommandId(id(n)), SessionId(id(20)))
    }),
    ("note_recovered", |j, n| {
        j.note_recovered(CommandId(id(n)), Recovery::Followed)
    }),
    ("save_session", |j, n| {
        j.save_session(&SessionRow {
            detail: large(),
            ..session(n + 600)
        })
    }),
    ("set_session_state", |j, _| {
        j.set_session_state(SessionId(id(20)), &SessionState::Idle, NOW)
    }),
    ("set_session_state over", |j, n| {
        j.set_session_state(SessionId(id(n + 300)), &SessionState::Exited { code: None }, NOW)
    }),
    ("set_session_detail", |j, _| {
        j.set_session_detail(SessionId(id(20)), &large())
    }),
    ("start_turn", |j, n| {
        let new = NewTurn {
            request: large(),
            ..turn(n + 700, 20, n)
        };
        j.start_turn(&new, NOW)
    }),
    ("set_turn_stage begun", |j, n| {
        j.set_turn_stage(TurnId(id(n + 400)), TurnStage::Begun, Some(&large()), NOW)
            .map(drop)
    }),
    ("set_turn_stage", |j, n| {
        j.set_turn_stage(TurnId(id(n + 400)), TurnStage::Entering, Some(&large()), NOW)
            .map(drop)
    }),
    ("end_turn", |j, n| {
        j.end_turn(
            &TurnEnd {
                rule: "r".repeat(60_000),
                ..end_of(n + 400)
            },
            NOW,
        )
    }),
    ("finish", |j, n| {
        let mut finish = finish(n);
        finish.result.output = Some(large());
        j.finish(&finish, NOW).map(drop)
    }),
    ("report_again", |j, n| {
        j.report_again(CommandId(id(n + 200)), ResultId(id(n + 5_000)), NOW)
    }),
    ("postpone", |j, n| {
        j.postpone(ResultId(id(n + 2_200)), NOW, &"x".repeat(500))
    }),
    ("acknowledge", |j, n| {
        j.acknowledge(ResultId(id(n + 2_200)), Acknowledgement::Recorded, NOW)
    }),
    ("launch", |j, _| j.launch(NOW).map(drop)),
    ("remember", |j, n| {
        j.remember(&format!("k{n}"), &json!("x".repeat(60_000)))
    }),
];

fn large() -> serde_json::Value {
    json!({ "text": "x".repeat(60_000) })
}

fn large_command(n: u128) -> NewCommand {
    NewCommand {
        args: large(),
        claimed: large(),
        ..command(n)
    }
}

/// Rows for [`WRITES`] with this `n`: a command, a finished one (`n + 200`), a session (`n + 300`), a turn (`n + 400`).
fn prepare(journal: &Journal, n: u128) {
    journal.save_session(&session(20)).unwrap();
    journal.receive(&command(n), NOW).unwrap();
    journal.receive(&command(n + 200), NOW).unwrap();
    journal.finish(&finish(n + 200), NOW).unwrap();
    journal.save_session(&session(n + 300)).unwrap();
    journal.start_turn(&turn(n + 400, 20, n), NOW).unwrap();
}

/// Everything in the tables, in words.
fn content(journal: &Journal) -> String {
    let connection = journal.connection();
    let mut content = String::new();
    for table in ["inbox", "outbox", "sessions", "turns", "launches", "memory"] {
        let mut statement = connection
            .prepare(&format!("select * from {table} order by 1"))
            .unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for column in 0..columns {
                content += &format!("{:?}|", row.get_ref(column).unwrap());
            }
            content += "\n";
        }
    }
    content
}

fn limit(journal: &Journal, pages: i64) {
    journal
        .connection()
        .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
        .unwrap();
}

fn pages(journal: &Journal) -> i64 {
    journal
        .connection()
        .query_row("pragma page_count", [], |row| row.get(0))
        .unwrap()
}

#[test]
fn a_disk_that_is_full_at_any_write_takes_nothing_back_and_the_write_succeeds_later() {
    let mut refused = Vec::new();
    for (name, write) in WRITES {
        let Place { journal, .. } = &place();
        prepare(journal, 1_000);
        limit(journal, pages(journal));
        let before = content(journal);
        if let Err(error) = write(journal, 1_000) {
            assert!(
                matches!(error, JournalError::DiskFull { .. }),
                "{name}: {error:?}"
            );
            assert!(content(journal) == before, "{name}: something of it stayed");
            refused.push(name);
        }
        limit(journal, 1_000_000);
        write(journal, 1_000).unwrap_or_else(|error| panic!("{name}, with space again: {error}"));
        assert!(content(journal) != before, "{name} wrote nothing");
    }
    for name in [
        "receive",
        "receive again",
        "save_session",
        "set_session_detail",
        "start_turn",
        "set_turn_stage begun",
        "set_turn_stage",
        "end_turn",
        "finish",
        "remember",
    ] {
        assert!(
            refused.contains(&name),
            "{name} was not put before a full disk: {refused:?}"
        );
    }
}

#[test]
fn each_write_waits_for_the_disk_where_a_power_cut_matters_and_only_there() {
    let soon = [
        "bind_session",
        "note_recovered",
        "set_session_state",
        "start_turn",
        "set_turn_stage begun",
        "postpone",
        "acknowledge",
    ];
    let Place { journal, .. } = &place();
    for (n, (name, write)) in (1_000..).zip(WRITES) {
        prepare(journal, n * 10_000);
        write(journal, n * 10_000).unwrap_or_else(|error| panic!("{name}: {error}"));
        let level: i64 = journal
            .connection()
            .query_row("pragma synchronous", [], |row| row.get(0))
            .unwrap();
        assert_eq!(level == 1, soon.contains(&name), "{name}: level {level}");
    }
}

#[test]
fn a_file_that_another_program_holds_is_told_as_busy_and_taken_when_it_is_free() {
    let Place { journal, .. } = &place();
    journal
        .connection()
        .busy_timeout(std::time::Duration::from_millis(20))
        .unwrap();
    let other = Connection::open(journal.path()).unwrap();
    other.execute_batch("begin immediate").unwrap();
    let error = journal.receive(&command(10), NOW).unwrap_err();
    assert!(matches!(error, JournalError::Busy { .. }), "{error:?}");
    assert!(error.to_string().contains("another program"), "{error}");
    assert!(
        journal.unfinished().unwrap().is_empty(),
        "reading goes on meanwhile"
    );
    other.execute_batch("rollback").unwrap();
    assert_eq!(journal.receive(&command(10), NOW).unwrap(), Received::New);
}

#[test]
fn an_error_of_the_disk_is_told_as_one() {
    let seen =
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_WRITE), None);
    let error = JournalError::from_sqlite("write down a result", Path::new("journal.db"), seen);
    assert!(matches!(error, JournalError::Device { .. }), "{error:?}");
    assert!(error.to_string().contains("quota"), "{error}");
}

#[test]
fn a_row_that_no_version_wrote_is_told_as_damage() {
    let Place { journal, .. } = &place();
    journal.receive(&command(10), NOW).unwrap();
    journal
        .connection()
        .execute("update inbox set claimed = '{'", [])
        .unwrap();
    let error = journal.unfinished().unwrap_err();
    assert!(matches!(error, JournalError::Corrupt { .. }), "{error:?}");
}

#[test]
fn damage_says_what_is_lost_and_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    fs::write(
        &path,
        "not a database, by any means, however long one looks at it",
    )
    .unwrap();
    let error = Journal::open(&path).unwrap_err().to_string();
    for words in [
        "Nothing that the office has is lost",
        "results not reported yet",
        "worktrees",
        "backup",
        "semo doctor --set-journal-aside",
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn a_journal_that_was_set_aside_is_whole_under_its_new_name_and_a_new_one_starts_above_its_epochs() {
    let Place { dir, journal } = place();
    let path = journal.path().to_owned();
    let epoch = journal.launch(NOW).unwrap();
    journal.receive(&command(10), NOW).unwrap();
    let busy = set_aside(&path, NOW).unwrap_err();
    assert!(
        matches!(busy, JournalError::Busy { .. }),
        "a core runs on it: {busy:?}"
    );

    // As a killed core leaves it: with a log beside it.
    let left = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), left.path().join(entry.file_name())).unwrap();
    }
    drop(journal);
    let path = left.path().join("journal.db");
    let log = fs::read(left.path().join("journal.db-wal")).unwrap();
    assert!(!log.is_empty());
    let aside = set_aside(&path, NOW).unwrap();
    let name = aside.file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(name, "journal.db.aside-20261121T000000Z");
    assert!(!path.exists() && !left.path().join("journal.db-wal").exists());
    let mut beside = aside.clone().into_os_string();
    beside.push("-wal");
    assert!(fs::read(&beside).unwrap() == log, "with its log, byte for byte");

    let new = Journal::open(&path).unwrap();
    assert!(
        new.unfinished().unwrap().is_empty(),
        "nothing of the old one is replayed into it"
    );
    assert!(new.launch(NOW.plus_ms(2)).unwrap() > epoch);
    drop(new);
    let again = set_aside(&path, NOW).unwrap();
    assert_eq!(
        again.file_name().unwrap().to_string_lossy(),
        format!("{name}-2"),
        "nothing is written over"
    );
    assert_eq!(Journal::open(&aside).unwrap().unfinished().unwrap().len(), 1);
    assert!(matches!(set_aside(&path, NOW), Err(JournalError::Open { .. })));
}

#[test]
fn a_file_that_is_no_database_can_be_set_aside_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let bytes = b"this was a journal before the disk had its way with it, page by page".to_vec();
    fs::write(&path, &bytes).unwrap();
    let aside = set_aside(&path, NOW).unwrap();
    assert_eq!(fs::read(aside).unwrap(), bytes);
    assert!(Journal::open(&path).unwrap().unfinished().unwrap().is_empty());
}

#[test]
fn a_reader_sees_a_journal_beside_its_core_and_changes_nothing() {
    let Place { dir, journal } = place();
    journal.receive(&command(10), NOW).unwrap();
    let reader = Journal::open_to_read(journal.path()).unwrap();
    assert_eq!(reader.overview(10).unwrap().commands.len(), 1);
    journal.receive(&command(11), NOW).unwrap();
    assert_eq!(
        reader.unfinished().unwrap().len(),
        2,
        "it sees what is written meanwhile"
    );
    let error = reader.receive(&command(12), NOW).unwrap_err();
    assert!(matches!(error, JournalError::ReadOnly { .. }), "{error:?}");
    let path = journal.path().to_owned();
    drop((reader, journal));
    assert_eq!(
        Journal::open_to_read(&path).unwrap().unfinished().unwrap().len(),
        2,
        "without a core too"
    );

    let missing = Journal::open_to_read(&dir.path().join("none.db")).unwrap_err();
    assert!(matches!(missing, JournalError::Open { .. }), "{missing:?}");
    assert!(!dir.path().join("none.db").exists());
    for (version, newer) in [(1, false), (99, true)] {
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", version).unwrap();
        drop(connection);
        let error = Journal::open_to_read(&path).unwrap_err();
        match error {
            JournalError::Older { .. } => assert!(!newer),
            JournalError::Newer { .. } => assert!(newer),
            error => panic!("{error:?}"),
        }
    }
}

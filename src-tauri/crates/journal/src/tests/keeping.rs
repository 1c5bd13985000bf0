//! What the journal keeps and what it lets go: by age, by size, never a row that somebody still waits for.

use super::*;

fn done(journal: &Journal, n: u128, at: Timestamp, output: &str) {
    journal.receive(&command(n), at).unwrap();
    journal.mark_started(CommandId(id(n)), at).unwrap();
    let mut end = finish(n);
    end.result.id = ResultId(id(n + (1 << 64)));
    end.result.output = Some(json!(output));
    journal.finish(&end, at).unwrap();
}

fn arrived(journal: &Journal, n: u128, at: Timestamp) {
    journal
        .acknowledge(ResultId(id(n + (1 << 64))), Acknowledgement::Recorded, at)
        .unwrap();
}

#[test]
fn the_file_stays_flat_under_a_hundred_thousand_commands() {
    const COMMANDS: u128 = 100_000;
    const BYTES_MAX: u64 = 2 * 1024 * 1024;
    let Place { journal, .. } = &place();
    let limits = Limits {
        bytes_max: BYTES_MAX,
        kept_min: 1_000,
    };
    let output = "a final message of some length ".repeat(8);
    let mut largest = 0;
    for batch in 0..COMMANDS / 1_000 {
        // One transaction for a thousand commands: what is looked at here is space, not commits.
        journal.connection().execute_batch("begin").unwrap();
        fill(journal, batch * 1_000, 1_000, &output);
        journal.connection().execute_batch("commit").unwrap();
        while journal.prune_to(Timestamp(0), limits).unwrap().more {}
        let size = journal.size().unwrap();
        largest = largest.max(size.file + size.log);
        assert!(size.used <= BYTES_MAX, "{size:?} after batch {batch}");
    }
    assert!(largest < 16 * 1024 * 1024, "{largest}");
    let counts = journal.counts().unwrap();
    assert!(counts.finished > 100, "{counts:?}");
    let newest = journal.command(CommandId(id(COMMANDS - 1))).unwrap();
    assert!(newest.is_some(), "the oldest went first");
}

/// Rows as [`done`] and [`arrived`] write them, inside the caller's transaction.
fn fill(journal: &Journal, from: u128, count: u128, output: &str) {
    let connection = journal.connection();
    let mut inbox = connection
        .prepare_cached(
            "insert into inbox (command_id, office_id, kind, args, attempt, lease_token, phase, received_at,
                                started_at, finished_at, place)
             values (?1, ?2, 'send_prompt', '{}', 1, ?2, 'finished', ?3, ?3, ?3,
                     (select coalesce(max(place), 0) + 1 from inbox))",
        )
        .unwrap();
    let mut outbox = connection
        .prepare_cached(
            "insert into outbox (command_id, result_id, lease_token, status, output, created_at, next_try_at,
                                 acknowledged, acknowledged_at)
             values (?1, ?2, ?2, 'succeeded', ?3, ?4, ?4, 'recorded', ?4)",
        )
        .unwrap();
    let office = id(1).to_string();
    for n in from..from + count {
        let (command, result) = (id(n).to_string(), id(n + (1 << 64)).to_string());
        let at = NOW.plus_ms(n as i64).0;
        inbox.execute((&command, &office, at)).unwrap();
        outbox
            .execute((&command, &result, json!(output).to_string(), at))
            .unwrap();
    }
}

#[test]
fn size_takes_the_oldest_first_and_never_what_somebody_waits_for() {
    let Place { journal, .. } = &place();
    let output = "x".repeat(20_000);
    for n in 0..40 {
        done(journal, n, NOW.plus_ms(n as i64), &output);
        if n != 3 {
            arrived(journal, n, NOW);
        }
    }
    journal.receive(&command(50), NOW.plus_ms(-1)).unwrap();
    journal.save_session(&session(900)).unwrap();
    journal.start_turn(&turn(901, 900, 50), NOW).unwrap();
    let limits = Limits {
        bytes_max: 0,
        kept_min: 1_000,
    };
    while journal.prune_to(Timestamp(0), limits).unwrap().more {}
    let counts = journal.counts().unwrap();
    assert_eq!(
        (
            counts.finished,
            counts.results_waiting,
            counts.received,
            counts.sessions_open,
            counts.turns_open
        ),
        (1, 1, 1, 1, 1),
        "{counts:?}"
    );
    assert_eq!(
        journal.due(None, NOW.plus_ms(99), 9).unwrap()[0].command,
        CommandId(id(3))
    );
    let size = journal.size().unwrap();
    assert!(size.file < 1_200_000, "space goes back to the disk: {size:?}");
}

#[test]
fn a_clock_that_jumps_ahead_takes_no_recent_command() {
    let Place { journal, .. } = &place();
    for n in 0..5 {
        done(journal, n, NOW, "");
        arrived(journal, n, NOW);
    }
    let in_ten_years = NOW.plus_ms(10 * 365 * 86_400_000);
    assert_eq!(journal.prune(in_ten_years).unwrap(), Pruned::default());
    let limits = Limits {
        kept_min: 2,
        ..Limits::default()
    };
    assert_eq!(journal.prune_to(in_ten_years, limits).unwrap().rows, 3);
    assert_eq!(journal.counts().unwrap().finished, 2);
}

#[test]
fn a_turn_goes_with_its_command_and_one_of_a_person_by_its_own_age() {
    let Place { journal, .. } = &place();
    let limits = Limits {
        kept_min: 0,
        ..Limits::default()
    };
    journal.save_session(&session(20)).unwrap();
    done(journal, 1, NOW, "");
    journal.start_turn(&turn(30, 20, 1), NOW).unwrap();
    let own = NewTurn {
        command: None,
        ..turn(31, 20, 1)
    };
    journal.start_turn(&own, NOW).unwrap();
    for turn in [30, 31] {
        journal.end_turn(&end_of(turn), NOW).unwrap();
    }
    let later = NOW.plus_ms(1);
    journal.prune_to(later, limits).unwrap();
    let there = |turn| journal.turn(TurnId(id(turn))).unwrap().is_some();
    assert_eq!(
        (there(30), there(31)),
        (true, false),
        "its command's result still waits"
    );
    arrived(journal, 1, NOW);
    journal.prune_to(later, limits).unwrap();
    assert!(!there(30), "an open session does not keep the turns of years");
}

#[test]
fn the_calls_of_every_day_find_their_rows_by_index() {
    let Place { journal, .. } = &place();
    let plan = |sql: &str| -> String {
        let connection = journal.connection();
        let mut statement = connection.prepare(&format!("explain query plan {sql}")).unwrap();
        let rows = statement
            .query_map([], |row| row.get::<_, String>("detail"))
            .unwrap();
        rows.map(Result::unwrap).collect::<Vec<_>>().join("; ")
    };
    for (sql, index) in [
        (
            "select * from inbox where phase <> 'finished' order by place limit 9",
            "inbox_open",
        ),
        (
            "select * from turns where ended_at is null order by place limit 9",
            "turns_open",
        ),
        (
            "select * from sessions where ended_at is null order by started_at limit 9",
            "sessions_open",
        ),
        ("select coalesce(max(place), 0) + 1 from inbox", "inbox_place"),
        ("select coalesce(max(place), 0) + 1 from turns", "turns_place"),
        (
            "select min(next_try_at) from outbox where acknowledged is null",
            "outbox_waiting",
        ),
        (
            "select o.*, i.office_id from outbox o join inbox i using (command_id)
              where o.acknowledged is null and (o.next_try_at <= 1 or o.next_try_at > 2)
              order by o.next_try_at limit 9",
            "outbox_waiting",
        ),
        (
            "select turn_id from turns where command_id = 'x' order by place desc limit 1",
            "turns_of_command",
        ),
        (
            "delete from turns where command_id = 'x' and ended_at is not null",
            "turns_of_command",
        ),
        (
            "select i.command_id from inbox i join outbox o on o.command_id = i.command_id
              where i.phase = 'finished' and i.finished_at < 1 and o.acknowledged is not null
                and i.place <= (select max(place) from inbox) - 1
              order by i.finished_at, i.place limit 9",
            "inbox_finished",
        ),
        (
            "select session_id from sessions where ended_at is not null and ended_at < 1 order by ended_at",
            "sessions_ended",
        ),
        (
            "select turn_id from turns where command_id is null and ended_at is not null and ended_at < 1
              order by ended_at limit 9",
            "turns_of_people",
        ),
    ] {
        let plan = plan(sql);
        assert!(plan.contains(index), "{sql}\n{plan}");
        assert!(
            !plan.contains("SCAN i;") && !plan.contains("SCAN o;"),
            "{sql}\n{plan}"
        );
    }
}

#[test]
fn no_overview_reads_the_prompts_of_years() {
    let Place { journal, .. } = &place();
    for sql in [super::table::overview::SQL, super::table::counts::SQL] {
        let connection = journal.connection();
        let mut statement = connection.prepare(&format!("explain query plan {sql}")).unwrap();
        let parameters = vec![9; statement.parameter_count()];
        let plan: Vec<String> = statement
            .query_map(rusqlite::params_from_iter(parameters), |row| row.get("detail"))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        for table in ["inbox", "outbox", "turns", "sessions", "i", "o", "t"] {
            let whole = format!("SCAN {table}");
            assert!(!plan.contains(&whole), "{whole}: {plan:#?}");
        }
    }
}

#[test]
fn small_things_are_remembered_up_to_their_limits() {
    let Place { dir, journal } = place();
    let path = journal.path().to_owned();
    assert_eq!(journal.recall("pauses").unwrap(), None);
    journal.remember("pauses", &json!({ "until": 7 })).unwrap();
    journal.remember("pauses", &json!({ "until": 8 })).unwrap();
    let error = journal
        .remember("large", &json!("x".repeat(MEMORY_BYTES_MAX)))
        .unwrap_err();
    assert!(matches!(error, JournalError::TooMuch { .. }), "{error:?}");
    drop(journal);
    let journal = Journal::open(&path).unwrap();
    assert_eq!(journal.recall("pauses").unwrap(), Some(json!({ "until": 8 })));
    journal.remember("pauses", &serde_json::Value::Null).unwrap();
    assert_eq!(journal.recall("pauses").unwrap(), None);
    drop(dir);
}

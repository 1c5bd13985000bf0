//! What the next core finds of the one before it.

use super::*;

#[test]
fn a_turn_is_found_again_at_the_stage_it_had_reached_and_never_goes_back() {
    let Place { journal, .. } = &place();
    journal.save_session(&session(20)).unwrap();
    journal.start_turn(&turn(30, 20, 10), NOW).unwrap();
    let set = |stage, mark: Option<serde_json::Value>, at| {
        journal
            .set_turn_stage(TurnId(id(30)), stage, mark.as_ref(), NOW.plus_ms(at))
            .unwrap()
    };
    let row = || journal.open_turns().unwrap().remove(0);
    assert_eq!((row().stage, row().mark), (TurnStage::Begun, None));
    assert!(set(TurnStage::Begun, Some(json!({ "offset": 7 })), 1));
    assert!(set(TurnStage::Entering, None, 2));
    assert_eq!(
        row().mark,
        Some(json!({ "offset": 7 })),
        "no mark leaves the one before"
    );
    assert!(!set(TurnStage::Begun, Some(json!(0)), 3), "not back");
    assert!(set(TurnStage::Taken, Some(json!({ "offset": 9 })), 4));
    assert!(set(TurnStage::Taken, None, 5), "the same once more");
    assert!(!set(TurnStage::Entering, Some(json!(0)), 6));
    let found = row();
    assert_eq!(
        (found.stage, found.mark, found.taken_at),
        (
            TurnStage::Taken,
            Some(json!({ "offset": 9 })),
            Some(NOW.plus_ms(4))
        )
    );
    assert_eq!(found.turn.request, json!({ "prompt": "p" }));
    journal.end_turn(&end_of(30), NOW).unwrap();
    assert!(!set(TurnStage::Taken, None, 7), "it has ended");
    let unknown = journal.set_turn_stage(TurnId(id(404)), TurnStage::Taken, None, NOW);
    assert!(!unknown.unwrap());
}

#[test]
fn what_a_session_needs_is_found_again() {
    let Place { journal, .. } = &place();
    journal.save_session(&session(20)).unwrap();
    journal
        .set_session_detail(SessionId(id(20)), &json!({ "secret": "t", "restarts": 1 }))
        .unwrap();
    let found = journal.open_sessions().unwrap().remove(0);
    assert_eq!(found.detail, json!({ "secret": "t", "restarts": 1 }));
    journal
        .save_session(&SessionRow {
            detail: json!({ "secret": "u" }),
            ..session(20)
        })
        .unwrap();
    assert_eq!(
        journal.session(SessionId(id(20))).unwrap().unwrap().detail,
        json!({ "secret": "u" })
    );
    let unknown = journal
        .set_session_detail(SessionId(id(404)), &json!({}))
        .unwrap_err();
    assert!(matches!(unknown, JournalError::Unknown { .. }), "{unknown:?}");
}

#[test]
fn each_launch_has_a_higher_epoch_whatever_the_clock_does() {
    let Place { dir, journal } = place();
    let path = journal.path().to_owned();
    drop(journal);
    let mut last = 0;
    for at in [NOW, NOW, NOW.plus_ms(-86_400_000), Timestamp(0), NOW.plus_ms(5)] {
        let journal = Journal::open(&path).unwrap();
        let epoch = journal.launch(at).unwrap();
        assert!(epoch > last, "{epoch} after {last}");
        assert_eq!(journal.last_launch().unwrap(), Some(Launch { epoch, at }));
        last = epoch;
    }
    let journal = Journal::open(&path).unwrap();
    for _ in 0..300 {
        journal.launch(NOW).unwrap();
    }
    let kept: i64 = journal
        .connection()
        .query_row("select count(*) from launches", [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept, 100);
    drop(dir);
}

#[test]
fn a_clock_set_back_by_a_year_delays_no_report() {
    let Place { journal, .. } = &place();
    let a_year_ago = NOW.plus_ms(-365 * 86_400_000);
    for n in [10, 11] {
        journal.receive(&command(n), NOW).unwrap();
        journal.finish(&finish(n), NOW).unwrap();
    }
    let put_off = NOW.plus_ms(60_000);
    journal
        .postpone(finish(11).result.id, put_off, "no route to host")
        .unwrap();
    assert_eq!(journal.due(None, a_year_ago, 9).unwrap().len(), 2);
    let a_little = put_off.plus_ms(-PAUSE_MS_MAX - 1);
    let due = journal.due(None, a_little, 9).unwrap();
    assert!(
        due.iter().any(|row| row.command == CommandId(id(11))),
        "set back by a little more than the longest pause"
    );
    assert_eq!(
        journal.due(None, NOW, 9).unwrap().len(),
        1,
        "an ordinary pause is kept"
    );
}

#[test]
fn a_result_is_given_out_for_the_account_that_claimed_its_command_and_for_no_other() {
    let Place { journal, .. } = &place();
    let of = |n: u128, account: Option<&str>| NewCommand {
        claimed: account.map_or(serde_json::Value::Null, |account| json!({ ACCOUNT: account })),
        ..command(n)
    };
    for (n, account) in [(10, Some("a")), (11, Some("b")), (12, None)] {
        journal.receive(&of(n, account), NOW).unwrap();
        journal
            .finish(&finish(n), NOW.plus_ms(i64::try_from(n).unwrap()))
            .unwrap();
    }
    let late = NOW.plus_ms(100);
    let ids = |numbers: &[u128]| numbers.iter().map(|n| CommandId(id(*n))).collect::<Vec<_>>();
    for (account, theirs, next) in [
        (None, ids(&[10, 11, 12]), Some(NOW.plus_ms(10))),
        (Some("a"), ids(&[10, 12]), Some(NOW.plus_ms(10))),
        (Some("b"), ids(&[11, 12]), Some(NOW.plus_ms(11))),
        // Of a version that did not tell whose it is.
        (Some("c"), ids(&[12]), Some(NOW.plus_ms(12))),
    ] {
        let due = journal.due(account, late, 9).unwrap();
        assert_eq!(due.iter().map(|row| row.command).collect::<Vec<_>>(), theirs);
        let mut waiting = journal.unanswered(account, 9).unwrap();
        waiting.sort_unstable();
        assert_eq!(waiting, theirs);
        assert_eq!(journal.next_due_at(account).unwrap(), next);
    }
    journal
        .acknowledge(finish(12).result.id, Acknowledgement::Recorded, late)
        .unwrap();
    assert_eq!(
        journal.next_due_at(Some("c")).unwrap(),
        None,
        "nothing to wake up for"
    );
    // Given out again to somebody else, its result is theirs: it leaves under their lease.
    journal.receive(&of(10, Some("b")), late).unwrap();
    assert_eq!(journal.unanswered(Some("a"), 9).unwrap(), []);
}

#[test]
fn the_order_of_commands_and_turns_does_not_hang_on_the_clock() {
    let Place { journal, .. } = &place();
    journal.save_session(&session(20)).unwrap();
    for (back, n) in [12_u128, 10, 11].into_iter().enumerate() {
        let at = NOW.plus_ms(-(back as i64) * 86_400_000);
        journal.receive(&command(n), at).unwrap();
        journal.start_turn(&turn(n + 20, 20, n), at).unwrap();
    }
    let commands: Vec<Uuid> = journal
        .unfinished()
        .unwrap()
        .into_iter()
        .map(|row| row.command.id.0)
        .collect();
    assert_eq!(commands, [id(12), id(10), id(11)]);
    let turns: Vec<Uuid> = journal
        .open_turns()
        .unwrap()
        .into_iter()
        .map(|row| row.turn.id.0)
        .collect();
    assert_eq!(turns, [id(32), id(30), id(31)]);
}

#[test]
fn the_overview_shows_what_is_open_first_with_all_that_is_known() {
    let Place { journal, .. } = &place();
    let epoch = journal.launch(NOW).unwrap();
    journal.save_session(&session(20)).unwrap();
    for n in 10..14 {
        journal.receive(&command(n), NOW).unwrap();
    }
    // 10: reported; 11: its result waits; 12: its turn runs and is followed; 13: not begun.
    for n in [10, 11] {
        journal.finish(&finish(n), NOW).unwrap();
    }
    journal
        .acknowledge(finish(10).result.id, Acknowledgement::Late, NOW)
        .unwrap();
    journal
        .postpone(finish(11).result.id, NOW.plus_ms(9), "no route to host")
        .unwrap();
    journal.mark_started(CommandId(id(12)), NOW).unwrap();
    journal.start_turn(&turn(30, 20, 12), NOW).unwrap();
    journal.end_turn(&end_of(30), NOW).unwrap();
    journal.start_turn(&turn(31, 20, 12), NOW).unwrap();
    journal
        .set_turn_stage(TurnId(id(31)), TurnStage::Taken, None, NOW.plus_ms(2))
        .unwrap();
    journal
        .note_recovered(CommandId(id(12)), Recovery::Followed)
        .unwrap();

    let overview = journal.overview(3).unwrap();
    assert_eq!((overview.launch.unwrap().epoch, overview.left_out), (epoch, 1));
    assert!(overview.size.file > 0 && overview.size.used > 0);
    let rows = &overview.commands;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.command.0).collect();
    assert_eq!(ids, [id(13), id(12), id(11)]);
    let followed = &rows[1];
    assert_eq!(
        (followed.phase, followed.recovered),
        (Phase::Started, Some(Recovery::Followed))
    );
    let turn = followed.turn.as_ref().unwrap();
    assert_eq!(
        (turn.id, turn.stage, turn.taken_at, turn.ended_at),
        (TurnId(id(31)), TurnStage::Taken, Some(NOW.plus_ms(2)), None),
        "the newest turn of it"
    );
    let waiting = rows[2].result.as_ref().unwrap();
    assert_eq!(
        (waiting.tries, waiting.last_error.as_deref(), waiting.acknowledged),
        (1, Some("no route to host"), None)
    );
    let all = journal.overview(usize::MAX).unwrap();
    let reported = all.commands[3].result.as_ref().unwrap();
    assert_eq!(reported.acknowledged, Some(Acknowledgement::Late));
    let words = serde_json::to_string(&all).unwrap();
    for word in ["\"followed\"", "\"taken\"", "\"late\"", "\"started\""] {
        assert!(words.contains(word), "{word}: {words}");
    }
    let nobody = journal.note_recovered(CommandId(id(404)), Recovery::Unknown);
    assert!(matches!(nobody, Err(JournalError::Unknown { .. })));
}

#[test]
fn a_journal_of_the_first_version_keeps_its_rows_and_what_was_unknown_stays_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../../../../../migrations/local/0001_journal.sql"))
        .unwrap();
    let (a, b, s, t) = (id(11), id(10), id(20), id(30));
    old.execute_batch(&format!(
        "pragma user_version = 1;
         insert into inbox (command_id, office_id, kind, args, attempt, lease_token, phase, received_at)
         values ('{a}', '{s}', 'send_prompt', '{{}}', 1, '{s}', 'started', 1),
                ('{b}', '{s}', 'send_prompt', '{{}}', 1, '{s}', 'received', 2);
         insert into sessions (session_id, office_id, agent_id, title, repository, worktree, branch, state, started_at)
         values ('{s}', '{s}', '{s}', 't', 'r', '/w', 'b', '{{\"state\":\"idle\"}}', 1);
         insert into turns (turn_id, session_id, command_id, prompt_sha256, started_at)
         values ('{t}', '{s}', '{a}', '00', 1);"
    ))
    .unwrap();
    drop(old);
    let journal = Journal::open(&path).unwrap();
    let open = journal.unfinished().unwrap();
    let ids: Vec<Uuid> = open.iter().map(|row| row.command.id.0).collect();
    assert_eq!(ids, [a, b], "in the order in which they had come");
    assert_eq!(open[0].command.claimed, serde_json::Value::Null);
    let turn = journal.open_turns().unwrap().remove(0);
    assert_eq!(turn.stage, TurnStage::Entering, "Enter may have been pressed");
    assert_eq!(
        journal.open_sessions().unwrap()[0].detail,
        serde_json::Value::Null
    );
    journal.receive(&command(12), NOW).unwrap();
    assert_eq!(journal.unfinished().unwrap()[2].command.id.0, id(12));
    let shrinks: i64 = journal
        .connection()
        .query_row("pragma auto_vacuum", [], |row| row.get(0))
        .unwrap();
    assert_eq!(shrinks, 2, "it can give space back from now on");
}

#[test]
fn what_was_begun_elsewhere_ends_with_the_writing_that_it_came() {
    let Place { journal, .. } = &place();
    let unknown = finish(10).result;
    let receive = || journal.receive_begun(&command(10), &unknown, NOW).unwrap();
    assert_eq!(receive(), Received::New);
    let row = journal.command(CommandId(id(10))).unwrap().unwrap();
    assert_eq!(row.phase, Phase::Finished, "no start takes it for not begun");
    assert_eq!(journal.due(None, NOW, 9).unwrap()[0].result, unknown);
    assert_eq!(
        receive(),
        Received::Known {
            phase: Phase::Finished
        }
    );
    // What this journal has had knows more than the office.
    journal.receive(&command(11), NOW).unwrap();
    let received = journal.receive_begun(&command(11), &finish(11).result, NOW);
    assert_eq!(
        received.unwrap(),
        Received::Known {
            phase: Phase::Received
        }
    );
    let row = journal.command(CommandId(id(11))).unwrap().unwrap();
    assert_eq!(row.phase, Phase::Received);
}

#[test]
fn a_result_that_is_not_to_be_told_is_sent_when_the_office_gives_the_command_out_again() {
    let Place { journal, .. } = &place();
    journal.receive(&command(10), NOW).unwrap();
    journal.mark_started(CommandId(id(10)), NOW).unwrap();
    assert_eq!(
        journal.finish_untold(&finish(10), NOW).unwrap(),
        Finished::Recorded
    );
    assert_eq!(
        journal.finish_untold(&finish(10), NOW).unwrap(),
        Finished::Already
    );
    assert!(journal.due(None, NOW, 9).unwrap().is_empty() && journal.unfinished().unwrap().is_empty());
    assert!(
        journal.unanswered(None, 9).unwrap().is_empty(),
        "the office is not told that it is known"
    );
    let again = NewCommand {
        lease_token: id(77),
        ..command(10)
    };
    let phase = Phase::Finished;
    assert_eq!(journal.receive(&again, NOW).unwrap(), Received::Known { phase });
    journal
        .report_again(CommandId(id(10)), ResultId(id(78)), NOW)
        .unwrap();
    let due = journal.due(None, NOW, 9).unwrap();
    assert_eq!((due[0].lease_token, due[0].result.id), (id(77), ResultId(id(78))));
}

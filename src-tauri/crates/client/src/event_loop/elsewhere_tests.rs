//! What an account that is not served now has left in the journal: it waits, and nobody else hears of it.

use supabase::SessionDraft;

use super::*;

/// An account of a project that the cores of these tests serve only when they are told to.
const A: &str = "http://127.0.0.1:9 a@b.c";
const THIS_MACHINE: &str = "this-machine";

/// The command was claimed for this account.
fn claimed_for(journal: &Journal, command: CommandId, account: &str) {
    let mut row = journal.command(command).unwrap().unwrap().command;
    row.claimed["account"] = json!(account);
    journal.receive(&row, NOW).unwrap();
}

/// A core that serves [`A`].
fn core_of_a(dir: &Path, journal: &Arc<Journal>) -> EventLoop {
    let mut core = core(dir, journal);
    core.ground.settings.profile = crate::settings::Profile::Supabase;
    assert_eq!(core.served(), A);
    core
}

fn phase(journal: &Journal, command: CommandId) -> journal::Phase {
    journal.command(command).unwrap().unwrap().phase
}

#[tokio::test]
async fn work_of_an_account_that_is_not_served_waits_in_the_journal_until_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let session = session_row(&journal, 1, json!({ "secret": "s" }));
    let prompt = carried(&journal, 10, session, TurnStage::Taken);
    let new = received(&journal, 11, "send_prompt", json!({ "prompt": "later" }));
    let keys = started(
        &journal,
        12,
        "send_keys",
        json!({ "session": session, "text": "x" }),
    );
    let ended = started(&journal, 13, "list_sessions", json!({}));
    for command in [prompt, new, keys, ended] {
        claimed_for(&journal, command, A);
    }
    let own = received(&journal, 14, "send_prompt", json!({ "prompt": "ours" }));
    {
        let mut core = core_of_a(dir.path(), &journal);
        core.finish_unknown(ended);
    }

    let mut other = core(dir.path(), &journal);
    other.recover();
    settle(&mut other).await;
    assert_eq!(other.work.keys().copied().collect::<Vec<_>>(), [own]);
    assert_eq!(
        other.desk.held().collect::<Vec<_>>(),
        [own],
        "no lease is asked about"
    );
    assert_eq!(other.known(), Some(vec![own]), "its results are not named either");
    assert_eq!(other.results_waiting().unwrap(), 0);
    assert_eq!(phase(&journal, new), journal::Phase::Received);
    for begun in [prompt, keys] {
        assert_eq!(phase(&journal, begun), journal::Phase::Started);
    }
    assert_eq!(
        journal.open_turns().unwrap().len(),
        1,
        "closed, it would be taken for one that never began"
    );
    assert_eq!(journal.due(Some(THIS_MACHINE), NOW, 9).unwrap(), []);
    drop(other);

    let mut core = core_of_a(dir.path(), &journal);
    core.recover();
    settle(&mut core).await;
    assert_eq!(
        core.results_waiting().unwrap(),
        3,
        "what had begun is told as unknown now"
    );
    assert_eq!(core.work[&new].stage, Stage::Recovering, "and the rest goes on");
    assert!(!core.work.contains_key(&own));
    assert_eq!(journal.due(Some(A), NOW, 9).unwrap().len(), 3);
}

#[tokio::test]
async fn a_turn_that_ends_while_another_account_is_served_is_written_down_for_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let session = session_row(&journal, 1, json!({ "secret": "s" }));
    let done = carried(&journal, 10, session, TurnStage::Taken);
    let unreached = carried(&journal, 11, session, TurnStage::Entering);
    for command in [done, unreached] {
        claimed_for(&journal, command, A);
    }
    let mut core = core(dir.path(), &journal);
    core.recover();
    // As if it had been found at work.
    core.leftovers.leave(session);
    core.hold_for_elsewhere(session);
    assert!(core.is_busy(session), "nobody else's prompt is put into it");
    let ends = |number: u128, outcome: Option<TurnOutcome>| {
        let report = never_reached(TurnId(id(700_000 + number)));
        let report = match outcome {
            Some(outcome) => session::TurnReport {
                outcome,
                evidence: Evidence::default(),
                ..report
            },
            None => report,
        };
        SessionNote::TurnEnded {
            session,
            report: Box::new(report),
        }
    };
    core.take_note(ends(10, Some(TurnOutcome::Done)));
    core.take_note(ends(11, None));
    assert!(!core.is_busy(session));
    assert!(core.work.is_empty() && core.reporting.is_empty());
    assert_eq!(journal.due(Some(THIS_MACHINE), NOW, 9).unwrap(), []);
    let waiting = journal.due(Some(A), NOW, 9).unwrap();
    let told: Vec<_> = waiting
        .iter()
        .map(|row| (row.command, row.result.outcome.as_deref()))
        .collect();
    assert_eq!(told, [(done, Some("done"))]);
    assert_eq!(phase(&journal, unreached), journal::Phase::Started);
    assert_eq!(
        journal.open_turns().unwrap(),
        [],
        "it may be begun anew, for its account"
    );
}

#[tokio::test]
async fn news_of_a_session_go_to_an_account_that_has_its_office_and_to_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let mut core = core(dir.path(), &journal);
    let draft = SessionDraft {
        session: SessionId(id(1)),
        office: OfficeId(id(900_001)),
        client: ClientId(Uuid::nil()),
        agent: AgentId(id(900_002)),
        state: "idle".to_owned(),
        repository: "sample".to_owned(),
        branch: "semo/fe".to_owned(),
    };
    core.office = Some(office(900_009));
    core.tell(draft);
    assert!(!core.telling && core.untold.len() == 1);
    core.office = Some(OfficeData {
        offices: vec![office(900_001).office],
        ..office(900_009)
    });
    core.tell_next();
    assert!(core.telling && core.untold.is_empty());
}

#[tokio::test]
async fn no_lease_is_asked_about_as_somebody_else() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let new = received(&journal, 10, "send_prompt", json!({ "prompt": "later" }));
    for (email, asked) in [("b@b.c", false), ("A@b.c", true)] {
        let mut core = core(dir.path(), &journal);
        let ground = &mut core.ground;
        let tokens = crate::outbox::tokens_of(email);
        let store = Arc::new(MemoryTokenStore::with(tokens));
        ground.auth = Auth::new(ground.project.clone(), ground.clock.clone(), store).unwrap();
        core.recover();
        core.renew_leases();
        let left: Vec<_> = core
            .desk
            .renew(core.moment())
            .into_iter()
            .map(|(id, _)| id)
            .collect();
        assert_eq!(left.is_empty(), asked, "{email}");
        assert!(core.desk.held().any(|held| held == new));
    }
}

#[tokio::test]
async fn what_an_agent_asks_in_an_office_of_another_account_is_not_told_to_the_present_one_nor_is_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let journal = journal_in(dir.path());
    let ask = domain::ask::PendingAsk {
        id: domain::AskId(id(77)),
        session: SessionId(id(1)),
        turn: None,
        kind: domain::session::Ask::Permission,
        tool: None,
        text: "rm -rf secret".to_owned(),
        choices: Vec::new(),
        asked_at: NOW,
        at_terminal: false,
    };
    let end = domain::ask::AskEnd::Withdrawn {
        why: "its session ended".to_owned(),
    };
    for (served, told) in [(900_009, false), (900_001, true)] {
        let mut core = core(dir.path(), &journal);
        core.office = Some(office(served));
        core.tell_of_ask(&ask, OfficeId(id(900_001)), AgentId(id(900_002)), None);
        assert_eq!(core.has_ask_news(), told);
        core.tell_of_end(ask.id, &end);
        assert_eq!(core.has_ask_news(), told);
    }
}

//! What becomes of a journalled command when the core that worked on it is gone: exactly one of reported, followed,
//! run again, unknown. Pure: the loop gathers what is known and carries out what is decided here; the simulation
//! drives the same functions.
//!
//! The one thing that must never happen: that a command is begun a second time whose effect may exist already.

use domain::Command;
#[cfg(test)]
use domain::Timestamp;
use domain::turn::TurnStage;
use journal::{ACCOUNT, Phase};
use serde_json::{Value, json};
use supabase::ClaimedCommand;
use uuid::Uuid;

/// What a command does, as far as its recovery depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// A prompt: its turn has a row of its own.
    Prompt,
    /// A new session.
    Create,
    /// The end of a session: asking for it twice does no harm.
    Terminate,
    /// Another command is to be stopped: asking for it twice does no harm.
    CancelCommand,
    /// What runs in a session is to be interrupted: a second time it would hit something else.
    CancelTurn,
    /// Keys, or an answer: a second time it would go to something else.
    Keys,
    /// It only reads.
    Read,
}

impl Deed {
    pub(crate) fn of(command: &Command) -> Deed {
        match command {
            Command::SendPrompt(_) => Deed::Prompt,
            Command::CreateSession(_) => Deed::Create,
            Command::Terminate(_) => Deed::Terminate,
            Command::Cancel(args) if args.command.is_some() => Deed::CancelCommand,
            Command::Cancel(_) => Deed::CancelTurn,
            Command::SendKeys(_) | Command::Approve(_) => Deed::Keys,
            Command::GetOutput(_) | Command::ListSessions => Deed::Read,
        }
    }
}

/// What was found of the session that a command had, or names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// It runs and is followed again.
    Attached,
    /// Its program is proven gone; or there was none.
    Gone,
    /// What holds it does not answer: it may run.
    Silent,
}

/// What the transcript says of a turn whose program is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// How it ended.
    Ended,
    /// The prompt never reached the agent.
    NotStarted,
    /// Nothing that would decide.
    Nothing,
}

/// What is known of a journalled command at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    pub deed: Deed,
    pub phase: Phase,
    /// How far its open turn had come. For [`Deed::CancelTurn`] the turn that is open in its session.
    pub turn: Option<TurnStage>,
    pub session: Whereabouts,
    /// Of the turn, where the program is gone and it was judged.
    pub said: Said,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was done before, or what came of it is known: that is reported.
    Report,
    /// It still runs, or its wish is passed on once more: it is followed to its end.
    Follow,
    /// Nothing of it has had an effect: it is begun as if it had just come, under a lease that is proven ours.
    RunAgain,
    /// Whether it had an effect cannot be known: that is reported, and it is not done again.
    Unknown,
    /// Nothing can be said as long as what holds its session does not answer.
    Wait,
}

/// Decides what becomes of a journalled command.
pub(crate) fn fate(left: &Left) -> Fate {
    match (left.phase, left.deed) {
        (Phase::Finished, _) => Fate::Report,
        // The session that was made for it stands, and nobody was told yet.
        (Phase::Received | Phase::Started, Deed::Create) => match left.session {
            Whereabouts::Attached => Fate::Report,
            Whereabouts::Silent => Fate::Wait,
            Whereabouts::Gone => Fate::RunAgain,
        },
        (Phase::Received, _) | (Phase::Started, Deed::Read) => Fate::RunAgain,
        (Phase::Started, Deed::Prompt) => fate_of_prompt(left),
        (Phase::Started, Deed::Terminate) => match left.session {
            Whereabouts::Attached => Fate::Follow,
            Whereabouts::Silent => Fate::Wait,
            Whereabouts::Gone => Fate::Report,
        },
        (Phase::Started, Deed::CancelCommand) => Fate::Follow,
        (Phase::Started, Deed::CancelTurn) => match (left.session, left.turn) {
            (Whereabouts::Silent, _) => Fate::Wait,
            // Nothing runs in it any more.
            (Whereabouts::Gone, _) => Fate::Report,
            (Whereabouts::Attached, Some(TurnStage::Entering | TurnStage::Taken)) => Fate::Follow,
            (Whereabouts::Attached, Some(TurnStage::Begun) | None) => Fate::Unknown,
        },
        (Phase::Started, Deed::Keys) => Fate::Unknown,
    }
}

fn fate_of_prompt(left: &Left) -> Fate {
    match (left.turn, left.session, left.said) {
        // Enter is only pressed behind a row that says so.
        (None | Some(TurnStage::Begun), ..) => Fate::RunAgain,
        (Some(TurnStage::Entering | TurnStage::Taken), Whereabouts::Attached, _) => Fate::Follow,
        (Some(TurnStage::Entering | TurnStage::Taken), Whereabouts::Silent, _) => Fate::Wait,
        (Some(TurnStage::Entering | TurnStage::Taken), Whereabouts::Gone, Said::Ended) => Fate::Report,
        (Some(TurnStage::Entering), Whereabouts::Gone, Said::NotStarted) => Fate::RunAgain,
        // An acknowledged prompt that "never reached the agent" is a contradiction: nothing is built on it.
        (Some(TurnStage::Taken), Whereabouts::Gone, Said::NotStarted) => Fate::Unknown,
        (Some(TurnStage::Entering | TurnStage::Taken), Whereabouts::Gone, Said::Nothing) => Fate::Unknown,
    }
}

/// What speaks for and against starting a session again whose program is proven gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interrupted {
    /// Its program had shown its prompt.
    pub was_ready: bool,
    /// There is a conversation to resume.
    pub talked: bool,
    /// It only stood ready.
    pub warm: bool,
    /// Somebody has asked for its end.
    pub ending: bool,
    /// Its worktree is there.
    pub has_place: bool,
    /// For how long it had rested, by now; nothing where it was at work.
    pub idle_ms: Option<u64>,
}

/// Whether its conversation goes on with a new program: where somebody was in the midst of it.
pub(crate) fn resumes(left: &Interrupted, idle_ms_max: u64) -> bool {
    let recent = left.idle_ms.is_none_or(|idle_ms| idle_ms < idle_ms_max);
    left.was_ready && left.talked && left.has_place && recent && !left.warm && !left.ending
}

/// A claimed row for the journal, from which [`claimed_row`] makes it again.
///
/// `folder`: the key of the data folder that claimed it. `account`: for whom ([`crate::served`]).
pub(crate) fn claimed_value(row: &ClaimedCommand, folder: Option<Uuid>, account: &str) -> Value {
    json!({
        "folder": folder, (ACCOUNT): account,
        "id": row.id, "seq": row.seq, "office_id": row.office_id, "agent_id": row.agent_id,
        "session_id": row.session_id, "kind": row.kind, "args": row.args, "priority": row.priority,
        "attempt": row.attempt, "lease_token": row.lease_token, "lease_until": row.lease_until.rfc3339(),
        "cancel_requested_at": row.cancel_requested_at.map(|at| at.rfc3339()),
        "created_at": row.created_at.rfc3339(), "expires_at": row.expires_at.map(|at| at.rfc3339()),
    })
}

/// The claimed row of a journalled command, with the attempt and token of its newest claim.
pub(crate) fn claimed_row(row: &journal::InboxRow) -> Option<ClaimedCommand> {
    let known = &row.command;
    let mut claimed: ClaimedCommand = serde_json::from_value(known.claimed.clone()).ok()?;
    claimed.lease_token = known.lease_token;
    claimed.attempt = i32::try_from(known.attempt).unwrap_or(i32::MAX);
    Some(claimed)
}

/// Whether a journalled command was claimed from another data folder than the one with this key: the journal is a copy, and
/// the core that claimed it may live. A row of before that was told is ours.
pub(crate) fn is_of_another_folder(row: &journal::InboxRow, key: Option<Uuid>) -> bool {
    let its: Option<Uuid> = row
        .command
        .claimed
        .get("folder")
        .and_then(|its| its.as_str()?.parse().ok());
    its.zip(key).is_some_and(|(its, key)| its != key)
}

/// Whether a journalled command was claimed for another account than this one. A row of before that was told is ours.
pub(crate) fn is_of_another_account(row: &journal::InboxRow, account: &str) -> bool {
    let its = row.command.claimed.get(ACCOUNT).and_then(Value::as_str);
    its.is_some_and(|its| its != account)
}

#[cfg(test)]
mod tests {
    use journal::{InboxRow, NewCommand};

    use super::*;

    const DEEDS: [Deed; 7] = [
        Deed::Prompt,
        Deed::Create,
        Deed::Terminate,
        Deed::CancelCommand,
        Deed::CancelTurn,
        Deed::Keys,
        Deed::Read,
    ];
    const PHASES: [Phase; 3] = [Phase::Received, Phase::Started, Phase::Finished];
    const TURNS: [Option<TurnStage>; 4] = [
        None,
        Some(TurnStage::Begun),
        Some(TurnStage::Entering),
        Some(TurnStage::Taken),
    ];
    const SESSIONS: [Whereabouts; 3] = [Whereabouts::Attached, Whereabouts::Gone, Whereabouts::Silent];
    const SAID: [Said; 3] = [Said::Ended, Said::NotStarted, Said::Nothing];

    fn all() -> Vec<Left> {
        let mut all = Vec::new();
        for deed in DEEDS {
            for phase in PHASES {
                for turn in TURNS {
                    for session in SESSIONS {
                        for said in SAID {
                            all.push(Left {
                                deed,
                                phase,
                                turn,
                                session,
                                said,
                            });
                        }
                    }
                }
            }
        }
        all
    }

    #[test]
    fn nothing_is_begun_again_whose_effect_may_exist() {
        for left in all().into_iter().filter(|left| fate(left) == Fate::RunAgain) {
            let never_began = left.phase == Phase::Received;
            let never_entered = left.deed == Deed::Prompt
                && (matches!(left.turn, None | Some(TurnStage::Begun))
                    || left.turn == Some(TurnStage::Entering)
                        && left.session == Whereabouts::Gone
                        && left.said == Said::NotStarted);
            let no_effect = left.deed == Deed::Read;
            let nothing_there = left.deed == Deed::Create && left.session == Whereabouts::Gone;
            assert!(
                never_began || never_entered || no_effect || nothing_there,
                "{left:?}"
            );
        }
    }

    #[test]
    fn only_a_silent_holder_is_waited_for_and_only_with_what_depends_on_it() {
        for left in all() {
            if fate(&left) == Fate::Wait {
                assert_eq!(left.session, Whereabouts::Silent, "{left:?}");
                assert_ne!(left.phase, Phase::Finished, "{left:?}");
            }
            let may_run = left.phase == Phase::Started
                && left.deed == Deed::Prompt
                && matches!(left.turn, Some(TurnStage::Entering | TurnStage::Taken))
                && left.session == Whereabouts::Silent;
            if may_run {
                assert_eq!(fate(&left), Fate::Wait, "{left:?}");
            }
        }
    }

    #[test]
    fn what_runs_is_followed_and_what_is_known_is_reported() {
        let prompt = |turn, session, said| Left {
            deed: Deed::Prompt,
            phase: Phase::Started,
            turn: Some(turn),
            session,
            said,
        };
        use TurnStage::{Entering, Taken};
        use Whereabouts::{Attached, Gone};
        for (left, expected) in [
            (prompt(Taken, Attached, Said::Nothing), Fate::Follow),
            (prompt(Entering, Attached, Said::Nothing), Fate::Follow),
            (prompt(Taken, Gone, Said::Ended), Fate::Report),
            (prompt(Entering, Gone, Said::Ended), Fate::Report),
            (prompt(Entering, Gone, Said::NotStarted), Fate::RunAgain),
            (prompt(Taken, Gone, Said::NotStarted), Fate::Unknown),
            (prompt(Taken, Gone, Said::Nothing), Fate::Unknown),
            (prompt(Entering, Gone, Said::Nothing), Fate::Unknown),
        ] {
            assert_eq!(fate(&left), expected, "{left:?}");
        }
        for left in all().into_iter().filter(|left| left.phase == Phase::Finished) {
            assert_eq!(fate(&left), Fate::Report, "{left:?}");
        }
    }

    #[test]
    fn of_the_kinds_without_a_turn_each_has_one_fate() {
        let left = |deed, turn, session| Left {
            deed,
            phase: Phase::Started,
            turn,
            session,
            said: Said::Nothing,
        };
        use Whereabouts::{Attached, Gone, Silent};
        let runs = Some(TurnStage::Taken);
        for (left, expected) in [
            (left(Deed::Create, None, Attached), Fate::Report),
            (left(Deed::Create, None, Gone), Fate::RunAgain),
            (left(Deed::Create, None, Silent), Fate::Wait),
            (left(Deed::Terminate, None, Attached), Fate::Follow),
            (left(Deed::Terminate, None, Gone), Fate::Report),
            (left(Deed::Terminate, None, Silent), Fate::Wait),
            (left(Deed::CancelCommand, None, Gone), Fate::Follow),
            (left(Deed::CancelTurn, runs, Attached), Fate::Follow),
            (left(Deed::CancelTurn, None, Attached), Fate::Unknown),
            (left(Deed::CancelTurn, runs, Gone), Fate::Report),
            (left(Deed::CancelTurn, runs, Silent), Fate::Wait),
            (left(Deed::Keys, None, Attached), Fate::Unknown),
            (left(Deed::Keys, None, Silent), Fate::Unknown),
            (left(Deed::Read, None, Gone), Fate::RunAgain),
        ] {
            assert_eq!(fate(&left), expected, "{left:?}");
        }
    }

    #[test]
    fn only_a_conversation_that_somebody_was_in_the_midst_of_is_resumed() {
        let midst = Interrupted {
            was_ready: true,
            talked: true,
            warm: false,
            ending: false,
            has_place: true,
            idle_ms: None,
        };
        let check = |left: Interrupted, expected| assert_eq!(resumes(&left, 600_000), expected, "{left:?}");
        check(midst, true);
        let idle = |idle_ms| Interrupted {
            idle_ms: Some(idle_ms),
            ..midst
        };
        check(idle(599_999), true);
        check(idle(600_000), false);
        check(
            Interrupted {
                was_ready: false,
                ..midst
            },
            false,
        );
        check(
            Interrupted {
                talked: false,
                ..midst
            },
            false,
        );
        check(Interrupted { warm: true, ..midst }, false);
        check(
            Interrupted {
                ending: true,
                ..midst
            },
            false,
        );
        check(
            Interrupted {
                has_place: false,
                ..midst
            },
            false,
        );
    }

    #[test]
    fn a_claimed_row_comes_back_from_the_journal_as_it_was_with_its_newest_token() {
        let id = |number| uuid::Uuid::from_u128(number);
        let row = ClaimedCommand {
            id: id(1).into(),
            seq: 7,
            office_id: id(2).into(),
            agent_id: Some(id(3).into()),
            session_id: None,
            kind: "send_prompt".to_owned(),
            args: json!({"prompt": "a\n가"}),
            priority: 5,
            attempt: 1,
            lease_token: id(4),
            lease_until: Timestamp(1_700_000_060_123),
            cancel_requested_at: None,
            created_at: Timestamp(1_700_000_000_456),
            expires_at: Some(Timestamp(1_700_009_000_789)),
            begun: false,
        };
        let command = |token, attempt| NewCommand {
            id: row.id,
            office: row.office_id,
            agent: row.agent_id,
            session: None,
            kind: row.kind.clone(),
            args: row.args.clone(),
            attempt,
            lease_token: token,
            claimed: claimed_value(&row, Some(id(77)), "a@b.c"),
        };
        let inbox = |command| InboxRow {
            command,
            phase: Phase::Received,
            received_at: Timestamp(0),
            started_at: None,
            finished_at: None,
            recovered: None,
        };
        assert_eq!(claimed_row(&inbox(command(id(4), 1))), Some(row.clone()));
        let is_of_another = |key| is_of_another_folder(&inbox(command(id(4), 1)), key);
        assert!(is_of_another(Some(id(78))) && !is_of_another(Some(id(77))) && !is_of_another(None));
        let of_another = |account| is_of_another_account(&inbox(command(id(4), 1)), account);
        assert!(of_another("b@b.c") && !of_another("a@b.c"));
        let again = claimed_row(&inbox(command(id(9), 2))).unwrap();
        assert_eq!((again.lease_token, again.attempt), (id(9), 2));
        let old = NewCommand {
            claimed: Value::Null,
            ..command(id(4), 1)
        };
        assert!(!is_of_another_folder(&inbox(old.clone()), Some(id(77))));
        assert!(!is_of_another_account(&inbox(old.clone()), "a@b.c"));
        assert_eq!(
            claimed_row(&inbox(old)),
            None,
            "a row of a version that kept less"
        );
    }
}

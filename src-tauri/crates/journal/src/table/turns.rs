//! Table `turns`: every prompt that was submitted, and how it ended. An open turn after a crash is a prompt whose
//! effect is unknown.

use domain::turn::TurnOutcome;
use domain::{CommandId, SessionId, Timestamp, TurnId};
use rusqlite::Row;

use crate::row::{Fault, all, get, json_option, parsed, parsed_option, time, time_option, to_json};
use crate::{Journal, JournalError};

/// Most turns returned at once; far above what one client may hold.
const OPEN_ROWS_MAX: i64 = 1_000;

/// A turn about to be submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTurn {
    /// Its id.
    pub id: TurnId,
    /// The session that runs it.
    pub session: SessionId,
    /// The command it carries; absent when a person sent it from here.
    pub command: Option<CommandId>,
    /// SHA-256 of the exact prompt, in hex: enough to recognise it in a transcript.
    pub prompt_sha256: String,
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnEnd {
    /// The turn.
    pub turn: TurnId,
    /// Its outcome.
    pub outcome: TurnOutcome,
    /// The rule that decided.
    pub rule: String,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnRow {
    /// What was submitted.
    pub turn: NewTurn,
    /// When.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Its outcome.
    pub outcome: Option<TurnOutcome>,
    /// The rule that decided.
    pub rule: Option<String>,
}

impl Journal {
    /// Writes a turn down, before its first byte goes to the agent. Its session must be known.
    pub fn start_turn(&self, turn: &NewTurn, now: Timestamp) -> Result<(), JournalError> {
        self.write("write down a turn", |transaction| {
            let session = turn.session.to_string();
            let known = transaction
                .prepare_cached("select 1 from sessions where session_id = ?1")?
                .exists([&session])?;
            if !known {
                return Err(Fault::Unknown(format!("session {session}")));
            }
            transaction
                .prepare_cached(
                    "insert into turns (turn_id, session_id, command_id, prompt_sha256, started_at)
                     values (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute((
                    turn.id.to_string(),
                    session,
                    turn.command.map(|id| id.to_string()),
                    &turn.prompt_sha256,
                    now.0,
                ))?;
            Ok(())
        })
    }

    /// Ends a turn that belongs to no command; those of commands end in [`Journal::finish`].
    pub fn end_turn(&self, end: &TurnEnd, now: Timestamp) -> Result<(), JournalError> {
        self.write("write down the end of a turn", |transaction| {
            self::end(transaction, end, now)
        })
    }

    /// The turns that have not ended, oldest first.
    pub fn open_turns(&self) -> Result<Vec<TurnRow>, JournalError> {
        self.read("read the open turns", |connection| {
            let mut statement = connection
                .prepare_cached("select * from turns where ended_at is null order by started_at limit ?1")?;
            all(&mut statement, [OPEN_ROWS_MAX], read)
        })
    }

    /// A turn by its id.
    pub fn turn(&self, id: TurnId) -> Result<Option<TurnRow>, JournalError> {
        self.read("read a turn", |connection| {
            let mut statement = connection.prepare_cached("select * from turns where turn_id = ?1")?;
            Ok(all(&mut statement, [id.to_string()], read)?.pop())
        })
    }
}

/// The first end of a turn stays; a second one changes nothing.
pub(crate) fn end(
    transaction: &rusqlite::Transaction<'_>,
    end: &TurnEnd,
    now: Timestamp,
) -> Result<(), Fault> {
    let id = end.turn.to_string();
    let changed = transaction
        .prepare_cached(
            "update turns set ended_at = coalesce(ended_at, ?2), outcome = coalesce(outcome, ?3),
                              rule = coalesce(rule, ?4)
              where turn_id = ?1",
        )?
        .execute((&id, now.0, to_json(&end.outcome)?, &end.rule))?;
    if changed == 0 {
        return Err(Fault::Unknown(format!("turn {id}")));
    }
    Ok(())
}

fn read(row: &Row<'_>) -> Result<TurnRow, Fault> {
    Ok(TurnRow {
        turn: NewTurn {
            id: parsed(row, "turn_id")?,
            session: parsed(row, "session_id")?,
            command: parsed_option(row, "command_id")?,
            prompt_sha256: get(row, "prompt_sha256")?,
        },
        started_at: time(row, "started_at")?,
        ended_at: time_option(row, "ended_at")?,
        outcome: json_option(row, "outcome")?,
        rule: get(row, "rule")?,
    })
}

//! Table `turns`: every prompt that was submitted, how far it came, and how it ended. What an open turn after a crash
//! means is told by its stage: only one that was never entered may be submitted again.

use domain::turn::{TurnOutcome, TurnStage};
use domain::{CommandId, SessionId, Timestamp, TurnId};
use rusqlite::{OptionalExtension, Row};
use serde_json::Value;

use crate::row::{
    Fault, all, get, json, json_option, parsed, parsed_option, text_of, time, time_option, to_json,
};
use crate::{Durability, Journal, JournalError};

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
    /// What the session needs to follow it again, opaque here. `Null` in rows of a version that did not keep it.
    pub request: Value,
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
    /// How far it came.
    pub stage: TurnStage,
    /// From where it is to be followed, opaque here.
    pub mark: Option<Value>,
    /// When the agent acknowledged it.
    pub taken_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Its outcome.
    pub outcome: Option<TurnOutcome>,
    /// The rule that decided.
    pub rule: Option<String>,
}

impl Journal {
    /// Writes a turn down in stage `Begun`, before its first byte goes to the agent. Its session must be known. Not
    /// durable by itself: nothing has happened yet, and the note that Enter is about to be pressed carries it along.
    pub fn start_turn(&self, turn: &NewTurn, now: Timestamp) -> Result<(), JournalError> {
        self.write_soon("write down a turn", |transaction| {
            let session = turn.session.to_string();
            let known = transaction
                .prepare_cached("select 1 from sessions where session_id = ?1")?
                .exists([&session])?;
            if !known {
                return Err(Fault::Unknown(format!("session {session}")));
            }
            transaction
                .prepare_cached(
                    "insert into turns (turn_id, session_id, command_id, prompt_sha256, started_at, request, stage,
                                        place)
                     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, (select coalesce(max(place), 0) + 1 from turns))",
                )?
                .execute((
                    turn.id.to_string(),
                    session,
                    turn.command.map(|id| id.to_string()),
                    &turn.prompt_sha256,
                    now.0,
                    turn.request.to_string(),
                    TurnStage::Begun.as_str(),
                ))?;
            Ok(())
        })
    }

    /// Notes how far an open turn has come; a mark replaces the one before, none leaves it. `false`: there is no such open
    /// turn, or it is further already; nothing was written then. Durable from `Entering` on: whoever gets an error
    /// there does not press Enter.
    pub fn set_turn_stage(
        &self,
        turn: TurnId,
        stage: TurnStage,
        mark: Option<&Value>,
        now: Timestamp,
    ) -> Result<bool, JournalError> {
        let durability = match stage {
            TurnStage::Begun => Durability::Soon,
            TurnStage::Entering | TurnStage::Taken => Durability::Now,
        };
        self.write_with(durability, "note how far a turn has come", |transaction| {
            let id = turn.to_string();
            let known: Option<String> = transaction
                .prepare_cached("select stage from turns where turn_id = ?1 and ended_at is null")?
                .query_row([&id], |row| row.get(0))
                .optional()?;
            let Some(known) = known else {
                return Ok(false);
            };
            let known: TurnStage = known
                .parse()
                .map_err(|()| Fault::Malformed(format!("stage `{known}`")))?;
            let Some(next) = known.advance(stage) else {
                return Ok(false);
            };
            let taken_at = (next == TurnStage::Taken).then_some(now.0);
            transaction
                .prepare_cached(
                    "update turns set stage = ?2, mark = coalesce(?3, mark), taken_at = coalesce(taken_at, ?4)
                      where turn_id = ?1",
                )?
                .execute((&id, next.as_str(), text_of(mark), taken_at))?;
            Ok(true)
        })
    }

    /// Ends a turn that belongs to no command, or that is put back in line before it was entered; those of commands end in [`Journal::finish`].
    pub fn end_turn(&self, end: &TurnEnd, now: Timestamp) -> Result<(), JournalError> {
        self.write("write down the end of a turn", |transaction| {
            self::end(transaction, end, now)
        })
    }

    /// The turns that have not ended, in the order in which they were written down.
    pub fn open_turns(&self) -> Result<Vec<TurnRow>, JournalError> {
        self.read("read the open turns", |connection| {
            let mut statement = connection
                .prepare_cached("select * from turns where ended_at is null order by place limit ?1")?;
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
            request: json(row, "request")?,
        },
        started_at: time(row, "started_at")?,
        stage: parsed(row, "stage")?,
        mark: json_option(row, "mark")?,
        taken_at: time_option(row, "taken_at")?,
        ended_at: time_option(row, "ended_at")?,
        outcome: json_option(row, "outcome")?,
        rule: get(row, "rule")?,
    })
}

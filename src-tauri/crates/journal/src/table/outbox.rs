//! Table `outbox`: results on their way to the office. A result enters in the transaction that ends its work and
//! stays until the office has answered, however often it has to be sent.

use std::str::FromStr;

use domain::{CommandId, OfficeId, ResultId, Timestamp};
use rusqlite::{OptionalExtension, Row};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::row::{Fault, all, get, json_option, parsed, text_of, time};
use crate::table::inbox::must_exist;
use crate::table::turns::{self, TurnEnd};
use crate::{Journal, JournalError};

/// Longest error text that is kept of a failed try, in characters.
const ERROR_CHARS_MAX: usize = 500;

/// The field of [`NewCommand::claimed`](crate::NewCommand::claimed) that says for whom a command was claimed: for which
/// account of which project. What came of it is that one's alone, whoever is served now; opaque here. Rows of a version
/// that did not tell have none.
pub const ACCOUNT: &str = "account";

/// Longest that a result may be put off. What is due later than this from now was written under a clock that has been
/// set back since: it is due at once.
pub const PAUSE_MS_MAX: i64 = 5 * 60_000;

/// The state that a result gives its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultStatus {
    /// It was carried out.
    Succeeded,
    /// The work ended, but a sign of its completion is missing.
    Unconfirmed,
    /// It was not.
    Failed,
    /// It was stopped on request.
    Cancelled,
}

/// What is reported about a command; the arguments of `complete_command`.
#[derive(Debug, Clone, PartialEq)]
pub struct NewResult {
    /// Made by the caller, so that a repeated report is recognised.
    pub id: ResultId,
    /// The command's new state.
    pub status: ResultStatus,
    /// The turn's outcome in one word (`done`, `unconfirmed` …); absent for commands without a turn.
    pub outcome: Option<String>,
    /// What was asked for, or the final message.
    pub output: Option<Value>,
    /// What went wrong.
    pub error: Option<Value>,
    /// What backs the outcome.
    pub evidence: Option<Value>,
    /// When what happened.
    pub timings: Option<Value>,
}

/// The end of a command's work: its result and, where there was one, the end of its turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// The command.
    pub command: CommandId,
    /// Its result.
    pub result: NewResult,
    /// The turn that ended with it.
    pub turn: Option<TurnEnd>,
}

/// Whether an end was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// It was written.
    Recorded,
    /// The command had an end already; the first one stays, nothing was written.
    Already,
}

/// A result on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxRow {
    /// The command it belongs to.
    pub command: CommandId,
    /// The command's office.
    pub office: OfficeId,
    /// The fencing token under which it is reported: that of the newest claim.
    pub lease_token: Uuid,
    /// What is reported.
    pub result: NewResult,
    /// When it was made.
    pub created_at: Timestamp,
    /// How often it was sent in vain.
    pub tries: u32,
    /// When it is to be sent.
    pub next_try_at: Timestamp,
    /// Why the last try failed.
    pub last_error: Option<String>,
}

/// The office's answer to a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Acknowledgement {
    /// It is the command's result now.
    Recorded,
    /// The office had it already.
    Duplicate,
    /// The lease was lost: kept as evidence only.
    Late,
    /// The office refused it for good; sending it again would not help.
    Rejected,
}

impl ResultStatus {
    /// The word in the database, here and in the office.
    pub fn as_str(self) -> &'static str {
        match self {
            ResultStatus::Succeeded => "succeeded",
            ResultStatus::Unconfirmed => "unconfirmed",
            ResultStatus::Failed => "failed",
            ResultStatus::Cancelled => "cancelled",
        }
    }
}

impl FromStr for ResultStatus {
    type Err = ();

    fn from_str(text: &str) -> Result<ResultStatus, ()> {
        [
            ResultStatus::Succeeded,
            ResultStatus::Unconfirmed,
            ResultStatus::Failed,
            ResultStatus::Cancelled,
        ]
        .into_iter()
        .find(|status| status.as_str() == text)
        .ok_or(())
    }
}

impl Acknowledgement {
    /// The word in the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Acknowledgement::Recorded => "recorded",
            Acknowledgement::Duplicate => "duplicate",
            Acknowledgement::Late => "late",
            Acknowledgement::Rejected => "rejected",
        }
    }
}

impl FromStr for Acknowledgement {
    type Err = ();

    fn from_str(text: &str) -> Result<Acknowledgement, ()> {
        [
            Acknowledgement::Recorded,
            Acknowledgement::Duplicate,
            Acknowledgement::Late,
            Acknowledgement::Rejected,
        ]
        .into_iter()
        .find(|how| how.as_str() == text)
        .ok_or(())
    }
}

impl Journal {
    /// Ends a command's work: phase, result and turn in one transaction, durable. The result is due at once.
    pub fn finish(&self, finish: &Finish, now: Timestamp) -> Result<Finished, JournalError> {
        self.write("write down a result", |transaction| end(transaction, finish, now))
    }

    /// The same of a command that somebody else may have in hands: the result is sent only when the office gives the
    /// command out again ([`Journal::report_again`]).
    pub fn finish_untold(&self, finish: &Finish, now: Timestamp) -> Result<Finished, JournalError> {
        self.write("write down a result", |transaction| {
            let finished = end(transaction, finish, now)?;
            if finished == Finished::Recorded {
                let late = Acknowledgement::Late.as_str();
                transaction
                    .prepare_cached(
                        "update outbox set acknowledged = ?2, acknowledged_at = ?3 where command_id = ?1",
                    )?
                    .execute((finish.command.to_string(), late, now.0))?;
            }
            Ok(finished)
        })
    }

    /// The results that are due, the longest waiting first. A clock that was set back puts nothing off for longer than
    /// [`PAUSE_MS_MAX`].
    ///
    /// `account`: only those of commands that were claimed for it ([`ACCOUNT`]), and of a version that did not tell;
    /// `None`: all.
    pub fn due(
        &self,
        account: Option<&str>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, JournalError> {
        self.read("read the results that are due", |connection| {
            let mut statement = connection.prepare_cached(
                "select o.*, i.office_id from outbox o join inbox i using (command_id)
                  where o.acknowledged is null and (o.next_try_at <= ?1 or o.next_try_at > ?2)
                    and (?4 is null or coalesce(i.claimed ->> ?5, ?4) = ?4)
                  order by o.next_try_at limit ?3",
            )?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let late = now.plus_ms(PAUSE_MS_MAX).0;
            all(&mut statement, (now.0, late, limit, account, ACCOUNT), read)
        })
    }

    /// When the next result is due by the clock that put it off; `None` while all are acknowledged. Nobody sleeps
    /// longer than [`PAUSE_MS_MAX`] on it: the clock may have been set back since. `account`: see [`Journal::due`].
    pub fn next_due_at(&self, account: Option<&str>) -> Result<Option<Timestamp>, JournalError> {
        self.read("read when the next result is due", |connection| {
            let at: Option<i64> = connection
                .prepare_cached(
                    "select o.next_try_at from outbox o join inbox i using (command_id)
                      where o.acknowledged is null and (?1 is null or coalesce(i.claimed ->> ?2, ?1) = ?1)
                      order by o.next_try_at limit 1",
                )?
                .query_row((account, ACCOUNT), |row| row.get(0))
                .optional()?;
            Ok(at.map(Timestamp))
        })
    }

    /// The commands whose result the office has not answered yet, at most `limit`: they are leased to us as far as it
    /// knows. `account`: see [`Journal::due`].
    pub fn unanswered(&self, account: Option<&str>, limit: usize) -> Result<Vec<CommandId>, JournalError> {
        self.read("read which results wait for an answer", |connection| {
            let mut statement = connection.prepare_cached(
                "select command_id from outbox o join inbox i using (command_id)
                  where o.acknowledged is null and (?1 is null or coalesce(i.claimed ->> ?3, ?1) = ?1) limit ?2",
            )?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            all(&mut statement, (account, limit, ACCOUNT), |row| {
                parsed(row, "command_id")
            })
        })
    }

    /// Notes the office's answer; the result is not sent again. An answer to a result that has been replaced by
    /// [`Journal::report_again`] meanwhile changes nothing. Not durable by itself: what a power cut takes of it is sent
    /// again, and the office knows it by its id.
    pub fn acknowledge(
        &self,
        result: ResultId,
        how: Acknowledgement,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        self.write_soon("note that a result has arrived", |transaction| {
            transaction
                .prepare_cached(
                    "update outbox set acknowledged = ?2, acknowledged_at = ?3
                      where result_id = ?1 and acknowledged is null",
                )?
                .execute((result.to_string(), how.as_str(), now.0))?;
            Ok(())
        })
    }

    /// Notes a try in vain and when the next one is due. Not durable by itself: without it, the result is sent earlier.
    pub fn postpone(
        &self,
        result: ResultId,
        next_try_at: Timestamp,
        error: &str,
    ) -> Result<(), JournalError> {
        let error: String = error.chars().take(ERROR_CHARS_MAX).collect();
        self.write_soon("postpone a result", |transaction| {
            transaction
                .prepare_cached(
                    "update outbox set tries = tries + 1, next_try_at = ?2, last_error = ?3
                      where result_id = ?1 and acknowledged is null",
                )?
                .execute((result.to_string(), next_try_at.0, error))?;
            Ok(())
        })
    }

    /// Makes all waiting results due now: the network is back.
    pub fn hasten(&self, now: Timestamp) -> Result<usize, JournalError> {
        self.write_soon("make the waiting results due", |transaction| {
            Ok(transaction
                .prepare_cached(
                    "update outbox set next_try_at = ?1 where acknowledged is null and next_try_at > ?1",
                )?
                .execute([now.0])?)
        })
    }

    /// Reports a finished command once more, under the token of its newest claim and with a new result id: that the
    /// office gave it out again means that it holds no final result of it (an earlier report came late, or never).
    pub fn report_again(
        &self,
        command: CommandId,
        result: ResultId,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        self.write("report a result once more", |transaction| {
            let id = command.to_string();
            let changed = transaction
                .prepare_cached(
                    "update outbox set result_id = ?2, next_try_at = ?3, tries = 0, last_error = null,
                            acknowledged = null, acknowledged_at = null,
                            lease_token = (select lease_token from inbox where command_id = ?1)
                      where command_id = ?1",
                )?
                .execute((&id, result.to_string(), now.0))?;
            if changed == 0 {
                return Err(Fault::Unknown(format!("a result of command {id}")));
            }
            Ok(())
        })
    }
}

pub(super) fn end(
    transaction: &rusqlite::Transaction<'_>,
    finish: &Finish,
    now: Timestamp,
) -> Result<Finished, Fault> {
    let id = finish.command.to_string();
    let moved = transaction
        .prepare_cached(
            "update inbox set phase = 'finished', finished_at = ?2
              where command_id = ?1 and phase <> 'finished'",
        )?
        .execute((&id, now.0))?;
    if moved == 0 {
        must_exist(transaction, &id)?;
        return Ok(Finished::Already);
    }
    insert(transaction, &id, &finish.result, now)?;
    if let Some(turn) = &finish.turn {
        turns::end(transaction, turn, now)?;
    }
    Ok(Finished::Recorded)
}

fn insert(
    transaction: &rusqlite::Transaction<'_>,
    command: &str,
    result: &NewResult,
    now: Timestamp,
) -> Result<(), Fault> {
    transaction
        .prepare_cached(
            "insert into outbox (command_id, result_id, lease_token, status, outcome, output, error, evidence,
                                 timings, created_at, next_try_at)
             select command_id, ?2, lease_token, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9 from inbox where command_id = ?1",
        )?
        .execute((
            command,
            result.id.to_string(),
            result.status.as_str(),
            &result.outcome,
            text_of(result.output.as_ref()),
            text_of(result.error.as_ref()),
            text_of(result.evidence.as_ref()),
            text_of(result.timings.as_ref()),
            now.0,
        ))?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<OutboxRow, Fault> {
    Ok(OutboxRow {
        command: parsed(row, "command_id")?,
        office: parsed(row, "office_id")?,
        lease_token: parsed(row, "lease_token")?,
        result: NewResult {
            id: parsed(row, "result_id")?,
            status: parsed(row, "status")?,
            outcome: get(row, "outcome")?,
            output: json_option(row, "output")?,
            error: json_option(row, "error")?,
            evidence: json_option(row, "evidence")?,
            timings: json_option(row, "timings")?,
        },
        created_at: time(row, "created_at")?,
        tries: get(row, "tries")?,
        next_try_at: time(row, "next_try_at")?,
        last_error: get(row, "last_error")?,
    })
}

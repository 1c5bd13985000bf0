//! Table `inbox`: every command that was claimed, written down before anything else happens to it.

use std::str::FromStr;

use domain::{AgentId, CommandId, OfficeId, SessionId, Timestamp};
use rusqlite::{OptionalExtension, Row};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::outbox::{self, Finish, NewResult};
use crate::row::{self, Fault, all, get, json, parsed, parsed_option, time, time_option};
use crate::{Journal, JournalError};

/// Most open commands returned at once; far above what one client may hold (6 sessions per office).
const OPEN_ROWS_MAX: i64 = 1_000;

/// A command as it was claimed.
#[derive(Debug, Clone, PartialEq)]
pub struct NewCommand {
    /// Its id in the office.
    pub id: CommandId,
    /// The office that gave it.
    pub office: OfficeId,
    /// For which agent; absent when the office left that open.
    pub agent: Option<AgentId>,
    /// For which session; absent when any will do.
    pub session: Option<SessionId>,
    /// Its kind, as it came.
    pub kind: String,
    /// Its arguments, as they came.
    pub args: Value,
    /// How often it has been claimed by anybody, this claim included.
    pub attempt: i64,
    /// The fencing token of this claim.
    pub lease_token: Uuid,
    /// The whole row as it was claimed, opaque here: from it the next core makes the command again. `Null` in rows of a
    /// version that did not keep it.
    pub claimed: Value,
}

/// How far the work on a command has come. Moves forward only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Written down; no effect yet, so it may be begun (again).
    Received,
    /// An effect may have happened: after a crash its outcome is unknown, and it must not be repeated blindly.
    Started,
    /// Its result is in the outbox.
    Finished,
}

/// What a start made of a command that the core before it had left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    /// It still ran, and was followed to its end.
    Followed,
    /// It was done before the crash, or what came of it could be told: that was reported.
    Reported,
    /// Nothing of it had had an effect: it was run.
    RunAgain,
    /// Whether it had an effect could not be told: reported as that, never run again by itself.
    Unknown,
}

/// A row of the inbox.
#[derive(Debug, Clone, PartialEq)]
pub struct InboxRow {
    /// The command, with the attempt and token of its newest claim.
    pub command: NewCommand,
    /// How far it has come.
    pub phase: Phase,
    /// When it was first written down.
    pub received_at: Timestamp,
    /// When its work began.
    pub started_at: Option<Timestamp>,
    /// When its work ended.
    pub finished_at: Option<Timestamp>,
    /// What the latest start that found it open made of it.
    pub recovered: Option<Recovery>,
}

/// What became of a claimed command in the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It is new: go on.
    New,
    /// It was there already. The row now carries the attempt and token of the new claim. In phase `Finished` the
    /// office has no final result of it: call [`Journal::report_again`].
    Known {
        /// How far the earlier work has come.
        phase: Phase,
    },
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Phase::Received => "received",
            Phase::Started => "started",
            Phase::Finished => "finished",
        }
    }
}

impl Recovery {
    /// The word in the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Recovery::Followed => "followed",
            Recovery::Reported => "reported",
            Recovery::RunAgain => "run_again",
            Recovery::Unknown => "unknown",
        }
    }
}

impl FromStr for Recovery {
    type Err = ();

    fn from_str(text: &str) -> Result<Recovery, ()> {
        [
            Recovery::Followed,
            Recovery::Reported,
            Recovery::RunAgain,
            Recovery::Unknown,
        ]
        .into_iter()
        .find(|recovery| recovery.as_str() == text)
        .ok_or(())
    }
}

impl FromStr for Phase {
    type Err = ();

    fn from_str(text: &str) -> Result<Phase, ()> {
        [Phase::Received, Phase::Started, Phase::Finished]
            .into_iter()
            .find(|phase| phase.as_str() == text)
            .ok_or(())
    }
}

impl Journal {
    /// Writes a claimed command down. Durable: from here on this machine answers for it.
    pub fn receive(&self, command: &NewCommand, now: Timestamp) -> Result<Received, JournalError> {
        self.write("write down a command", |transaction| {
            receive(transaction, command, now)
        })
    }

    /// The same of a command that the office knows to be begun by this client. Where this journal has never had it, nobody
    /// knows what came of it: it ends with `unknown` in the same transaction, so that no crash behind it makes it look
    /// like one that was not begun.
    pub fn receive_begun(
        &self,
        command: &NewCommand,
        unknown: &NewResult,
        now: Timestamp,
    ) -> Result<Received, JournalError> {
        self.write("write down a command", |transaction| {
            let received = receive(transaction, command, now)?;
            if received == Received::New {
                let finish = Finish {
                    command: command.id,
                    result: unknown.clone(),
                    turn: None,
                };
                outbox::end(transaction, &finish, now)?;
            }
            Ok(received)
        })
    }

    /// Marks that the effect of a command is about to happen. Durable: a power cut right behind it must not make a
    /// begun command look like one that was not. Returns whether this call moved it from `Received`:
    /// `false` means that its work has begun or ended before, and the caller must not begin it.
    pub fn mark_started(&self, command: CommandId, now: Timestamp) -> Result<bool, JournalError> {
        self.write("mark a command as started", |transaction| {
            let id = command.to_string();
            let moved = transaction
                .prepare_cached(
                    "update inbox set phase = 'started', started_at = ?2
                      where command_id = ?1 and phase = 'received'",
                )?
                .execute((&id, now.0))?;
            if moved == 0 {
                must_exist(transaction, &id)?;
            }
            Ok(moved == 1)
        })
    }

    /// Takes a command out that was never begun and that somebody else has now: should it come back, it is new. Returns
    /// whether it was taken out: one that was begun stays. Not durable by itself: found again, it is let go again.
    pub fn let_go(&self, command: CommandId) -> Result<bool, JournalError> {
        self.write_soon("let a command go", |transaction| {
            let gone = transaction
                .prepare_cached("delete from inbox where command_id = ?1 and phase = 'received'")?
                .execute([command.to_string()])?;
            Ok(gone == 1)
        })
    }

    /// Notes which session carries a command that named none. Not durable by itself: what a power cut takes of it, it
    /// takes of the session's program too, and the next durable write carries it along.
    pub fn bind_session(&self, command: CommandId, session: SessionId) -> Result<(), JournalError> {
        self.write_soon("note the session of a command", |transaction| {
            let id = command.to_string();
            let changed = transaction
                .prepare_cached("update inbox set session_id = ?2 where command_id = ?1")?
                .execute((&id, session.to_string()))?;
            if changed == 0 {
                return Err(Fault::Unknown(id));
            }
            Ok(())
        })
    }

    /// Notes what a start made of a command. A later start that finds it open again notes its own finding. Not durable
    /// by itself: it is for people, and is found again by the next start.
    pub fn note_recovered(&self, command: CommandId, recovery: Recovery) -> Result<(), JournalError> {
        self.write_soon("note what became of a command", |transaction| {
            let id = command.to_string();
            let changed = transaction
                .prepare_cached("update inbox set recovered = ?2 where command_id = ?1")?
                .execute((&id, recovery.as_str()))?;
            if changed == 0 {
                return Err(Fault::Unknown(format!("command {id}")));
            }
            Ok(())
        })
    }

    /// A command by its id.
    pub fn command(&self, id: CommandId) -> Result<Option<InboxRow>, JournalError> {
        self.read("read a command", |connection| {
            let mut statement = connection.prepare_cached("select * from inbox where command_id = ?1")?;
            Ok(all(&mut statement, [id.to_string()], read)?.pop())
        })
    }

    /// The commands whose work has not ended, in the order in which they were first written down (whatever the clock
    /// did meanwhile): what a start after a crash has to decide on.
    pub fn unfinished(&self) -> Result<Vec<InboxRow>, JournalError> {
        self.read("read the open commands", |connection| {
            let mut statement = connection
                .prepare_cached("select * from inbox where phase <> 'finished' order by place limit ?1")?;
            all(&mut statement, [OPEN_ROWS_MAX], read)
        })
    }
}

/// Tells a row that did not change from a row that is not there.
pub(crate) fn must_exist(connection: &rusqlite::Connection, id: &str) -> Result<(), Fault> {
    let found = connection
        .prepare_cached("select 1 from inbox where command_id = ?1")?
        .exists([id])?;
    if found {
        Ok(())
    } else {
        Err(Fault::Unknown(format!("command {id}")))
    }
}

fn receive(
    transaction: &rusqlite::Transaction<'_>,
    command: &NewCommand,
    now: Timestamp,
) -> Result<Received, Fault> {
    let id = command.id.to_string();
    let known: Option<String> = transaction
        .prepare_cached("select phase from inbox where command_id = ?1")?
        .query_row([&id], |row| row.get(0))
        .optional()?;
    let Some(phase) = known else {
        insert(transaction, command, now)?;
        return Ok(Received::New);
    };
    transaction
        .prepare_cached(
            "update inbox set attempt = ?2, lease_token = ?3, claimed = ?4 where command_id = ?1",
        )?
        .execute((
            &id,
            command.attempt,
            command.lease_token.to_string(),
            command.claimed.to_string(),
        ))?;
    let phase = phase
        .parse()
        .map_err(|()| Fault::Malformed(format!("phase `{phase}`")))?;
    Ok(Received::Known { phase })
}

fn insert(
    transaction: &rusqlite::Transaction<'_>,
    command: &NewCommand,
    now: Timestamp,
) -> Result<(), Fault> {
    transaction
        .prepare_cached(
            "insert into inbox (command_id, office_id, agent_id, session_id, kind, args, attempt, lease_token,
                                phase, received_at, claimed, place)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'received', ?9, ?10,
                     (select coalesce(max(place), 0) + 1 from inbox))",
        )?
        .execute((
            command.id.to_string(),
            command.office.to_string(),
            command.agent.map(|id| id.to_string()),
            command.session.map(|id| id.to_string()),
            &command.kind,
            row::to_json(&command.args)?,
            command.attempt,
            command.lease_token.to_string(),
            now.0,
            command.claimed.to_string(),
        ))?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<InboxRow, Fault> {
    Ok(InboxRow {
        command: NewCommand {
            id: parsed(row, "command_id")?,
            office: parsed(row, "office_id")?,
            agent: parsed_option(row, "agent_id")?,
            session: parsed_option(row, "session_id")?,
            kind: get(row, "kind")?,
            args: json(row, "args")?,
            attempt: get(row, "attempt")?,
            lease_token: parsed(row, "lease_token")?,
            claimed: json(row, "claimed")?,
        },
        phase: parsed(row, "phase")?,
        received_at: time(row, "received_at")?,
        started_at: time_option(row, "started_at")?,
        finished_at: time_option(row, "finished_at")?,
        recovered: parsed_option(row, "recovered")?,
    })
}

//! What stands in the journal, for people: `semo status --journal` and the window show it as it is.

use domain::turn::{TurnOutcome, TurnStage};
use domain::{AgentId, CommandId, OfficeId, SessionId, Timestamp, TurnId};
use rusqlite::Row;
use serde::Serialize;

use crate::row::{Fault, all, get, json_option, parsed, parsed_option, time, time_option};
use crate::{Acknowledgement, Counts, Journal, JournalError, Launch, Phase, Recovery, ResultStatus, Size};

/// Most rows of one overview.
const OVERVIEW_ROWS_MAX: usize = 1_000;

/// The journal at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overview {
    /// The newest start of a core.
    pub launch: Option<Launch>,
    /// The figures.
    pub counts: Counts,
    /// What the file takes.
    pub size: Size,
    /// Open commands first, then those whose results wait, then the others; the newest of each first.
    pub commands: Vec<CommandOverview>,
    /// How many commands are not among them.
    pub left_out: u64,
}

/// One command in an [`Overview`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CommandOverview {
    /// Its id in the office.
    pub command: CommandId,
    /// Its office.
    pub office: OfficeId,
    /// For which agent.
    pub agent: Option<AgentId>,
    /// The session that it names or that carries it.
    pub session: Option<SessionId>,
    /// Its kind.
    pub kind: String,
    /// How often it has been claimed by anybody.
    pub attempt: i64,
    /// How far it has come.
    pub phase: Phase,
    /// What a start made of it that had found it open.
    pub recovered: Option<Recovery>,
    /// Its newest turn.
    pub turn: Option<TurnOverview>,
    /// Its result.
    pub result: Option<ResultOverview>,
    /// When it was first written down.
    pub received_at: Timestamp,
    /// When its work began.
    pub started_at: Option<Timestamp>,
    /// When its work ended.
    pub finished_at: Option<Timestamp>,
}

/// A turn in an [`Overview`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TurnOverview {
    /// Its id.
    pub id: TurnId,
    /// How far it came.
    pub stage: TurnStage,
    /// When the agent acknowledged it.
    pub taken_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How.
    pub outcome: Option<TurnOutcome>,
    /// The rule that decided.
    pub rule: Option<String>,
}

/// A result in an [`Overview`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResultOverview {
    /// The state that it gives its command.
    pub status: ResultStatus,
    /// The turn's outcome in one word.
    pub outcome: Option<String>,
    /// How often it was sent in vain.
    pub tries: u32,
    /// When it is to be sent.
    pub next_try_at: Timestamp,
    /// Why the last try failed.
    pub last_error: Option<String>,
    /// The office's answer; none while it waits.
    pub acknowledged: Option<Acknowledgement>,
    /// When that came.
    pub acknowledged_at: Option<Timestamp>,
}

/// The rows are picked by index first: sorting whole rows, prompts and all, would take a long time.
pub(crate) const SQL: &str = "
    with picked (command_id) as (
      select * from (select command_id from inbox where phase <> 'finished' order by place desc limit ?1)
      union
      select * from (select command_id from outbox where acknowledged is null order by next_try_at limit ?1)
      union
      select * from (select command_id from inbox order by place desc limit ?1))
    select i.*, t.turn_id, t.stage, t.taken_at, t.ended_at as turn_ended_at, t.outcome as turn_outcome, t.rule,
           o.status, o.outcome as word, o.tries, o.next_try_at, o.last_error, o.acknowledged, o.acknowledged_at
      from picked
      join inbox i on i.command_id = picked.command_id
      left join outbox o on o.command_id = picked.command_id
      left join turns t on t.turn_id = (select turn_id from turns where command_id = picked.command_id
                                         order by place desc limit 1)
     order by i.phase = 'finished', o.acknowledged is not null, i.place desc
     limit ?1";

impl Journal {
    /// The journal now, with at most `limit` commands (and never more than 1,000).
    pub fn overview(&self, limit: usize) -> Result<Overview, JournalError> {
        let limit = limit.min(OVERVIEW_ROWS_MAX);
        let launch = self.last_launch()?;
        let counts = self.counts()?;
        let size = self.size()?;
        let commands = self.read("read what it holds", |connection| {
            let mut statement = connection.prepare_cached(SQL)?;
            all(&mut statement, [i64::try_from(limit).unwrap_or(i64::MAX)], read)
        })?;
        let known = counts.received + counts.started + counts.finished;
        Ok(Overview {
            launch,
            counts,
            size,
            left_out: known.saturating_sub(commands.len() as u64),
            commands,
        })
    }
}

fn read(row: &Row<'_>) -> Result<CommandOverview, Fault> {
    Ok(CommandOverview {
        command: parsed(row, "command_id")?,
        office: parsed(row, "office_id")?,
        agent: parsed_option(row, "agent_id")?,
        session: parsed_option(row, "session_id")?,
        kind: get(row, "kind")?,
        attempt: get(row, "attempt")?,
        phase: parsed(row, "phase")?,
        recovered: parsed_option(row, "recovered")?,
        turn: turn(row)?,
        result: result(row)?,
        received_at: time(row, "received_at")?,
        started_at: time_option(row, "started_at")?,
        finished_at: time_option(row, "finished_at")?,
    })
}

fn turn(row: &Row<'_>) -> Result<Option<TurnOverview>, Fault> {
    let Some(id) = parsed_option(row, "turn_id")? else {
        return Ok(None);
    };
    Ok(Some(TurnOverview {
        id,
        stage: parsed(row, "stage")?,
        taken_at: time_option(row, "taken_at")?,
        ended_at: time_option(row, "turn_ended_at")?,
        outcome: json_option(row, "turn_outcome")?,
        rule: get(row, "rule")?,
    }))
}

fn result(row: &Row<'_>) -> Result<Option<ResultOverview>, Fault> {
    let Some(status) = parsed_option(row, "status")? else {
        return Ok(None);
    };
    Ok(Some(ResultOverview {
        status,
        outcome: get(row, "word")?,
        tries: get(row, "tries")?,
        next_try_at: time(row, "next_try_at")?,
        last_error: get(row, "last_error")?,
        acknowledged: parsed_option(row, "acknowledged")?,
        acknowledged_at: time_option(row, "acknowledged_at")?,
    }))
}

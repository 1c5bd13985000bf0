//! Table `sessions`: what was started where, so that it is found again after a crash.

use std::path::PathBuf;

use domain::session::SessionState;
use domain::{AgentId, OfficeId, SessionId, Timestamp};
use rusqlite::Row;
use serde_json::Value;

use crate::row::{Fault, all, get, json, parsed, time, time_option, to_json};
use crate::{Durability, Journal, JournalError};

/// Most sessions returned at once; far above what one client may hold.
const OPEN_ROWS_MAX: i64 = 1_000;

/// A session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    /// Its id; also the provider's own session id.
    pub id: SessionId,
    /// The office it works for.
    pub office: OfficeId,
    /// The agent it is.
    pub agent: AgentId,
    /// Its name for people.
    pub title: String,
    /// The repository's name in the settings.
    pub repository: String,
    /// The folder of its worktree.
    pub worktree: PathBuf,
    /// The branch it works on.
    pub branch: String,
    /// The commit the branch started from.
    pub base: Option<String>,
    /// Its last known state.
    pub state: SessionState,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// What the client needs to take it up again, opaque here. `Null` in rows of a version that did not keep it.
    pub detail: Value,
}

impl Journal {
    /// Writes a session down, before its process is started; or all of it anew, but for what never changes (office,
    /// agent, repository, start). Durable: its worktree must be found again.
    pub fn save_session(&self, session: &SessionRow) -> Result<(), JournalError> {
        self.write("write down a session", |transaction| {
            transaction
                .prepare_cached(
                    "insert into sessions (session_id, office_id, agent_id, title, repository, worktree, branch,
                                           base, state, started_at, ended_at, detail)
                     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
                     on conflict (session_id) do update set
                       title = excluded.title, worktree = excluded.worktree, branch = excluded.branch,
                       base = excluded.base, state = excluded.state, ended_at = excluded.ended_at,
                       detail = excluded.detail",
                )?
                .execute((
                    session.id.to_string(),
                    session.office.to_string(),
                    session.agent.to_string(),
                    &session.title,
                    &session.repository,
                    session.worktree.to_string_lossy(),
                    &session.branch,
                    &session.base,
                    to_json(&session.state)?,
                    session.started_at.0,
                    session.ended_at.map(|at| at.0),
                    session.detail.to_string(),
                ))?;
            Ok(())
        })
    }

    /// Notes a session's new state; an `Exited` one has ended `now`. Only that is durable by itself: after a power cut
    /// no other state means anything, because no program has survived it.
    pub fn set_session_state(
        &self,
        id: SessionId,
        state: &SessionState,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        let durability = if state.is_over() {
            Durability::Now
        } else {
            Durability::Soon
        };
        self.write_with(durability, "note the state of a session", |transaction| {
            let id = id.to_string();
            let ended_at = state.is_over().then_some(now.0);
            let changed = transaction
                .prepare_cached(
                    "update sessions set state = ?2, ended_at = coalesce(ended_at, ?3) where session_id = ?1",
                )?
                .execute((&id, to_json(state)?, ended_at))?;
            if changed == 0 {
                return Err(Fault::Unknown(format!("session {id}")));
            }
            Ok(())
        })
    }

    /// Notes anew what the client needs to take a session up again. Durable.
    pub fn set_session_detail(&self, id: SessionId, detail: &Value) -> Result<(), JournalError> {
        self.write("note how to take a session up again", |transaction| {
            let id = id.to_string();
            let changed = transaction
                .prepare_cached("update sessions set detail = ?2 where session_id = ?1")?
                .execute((&id, detail.to_string()))?;
            if changed == 0 {
                return Err(Fault::Unknown(format!("session {id}")));
            }
            Ok(())
        })
    }

    /// A session by its id.
    pub fn session(&self, id: SessionId) -> Result<Option<SessionRow>, JournalError> {
        self.read("read a session", |connection| {
            let mut statement = connection.prepare_cached("select * from sessions where session_id = ?1")?;
            Ok(all(&mut statement, [id.to_string()], read)?.pop())
        })
    }

    /// The sessions that have not ended, oldest first.
    pub fn open_sessions(&self) -> Result<Vec<SessionRow>, JournalError> {
        self.read("read the open sessions", |connection| {
            let mut statement = connection.prepare_cached(
                "select * from sessions where ended_at is null order by started_at limit ?1",
            )?;
            all(&mut statement, [OPEN_ROWS_MAX], read)
        })
    }
}

fn read(row: &Row<'_>) -> Result<SessionRow, Fault> {
    Ok(SessionRow {
        id: parsed(row, "session_id")?,
        office: parsed(row, "office_id")?,
        agent: parsed(row, "agent_id")?,
        title: get(row, "title")?,
        repository: get(row, "repository")?,
        worktree: get::<String>(row, "worktree")?.into(),
        branch: get(row, "branch")?,
        base: get(row, "base")?,
        state: json(row, "state")?,
        started_at: time(row, "started_at")?,
        ended_at: time_option(row, "ended_at")?,
        detail: json(row, "detail")?,
    })
}

//! The copy of the state that windows see. Built whole after every change; nothing reads it back.

use std::collections::HashMap;
use std::sync::Arc;

use domain::ask::AskAnswer;
use domain::turn::Retry;
use domain::{AgentId, Command, CommandId, OfficeId, Timestamp};
use serde_json::Value;
use supabase::{CommandRow, CommandState, ConnectionState, ResultRow};

use super::ask_news::ask_view;
use super::seats::Hold;
use super::{EventLoop, Ground, Stage};
use crate::view::{
    AgentView, CommandStatus, CommandView, ConnectionStatus, ConnectionView, LaunchView, LimitsView,
    OfficeView, PausedAgentView, PoolView, RepositoryView, SessionView, State,
};

/// Longest summary of a command, in characters.
const SUMMARY_CHARS_MAX: usize = 120;
/// Most of a prompt or a final message that windows show; the office has the whole.
const TEXT_CHARS_MAX: usize = 8_000;

/// The state before anything is known.
pub(super) fn empty(ground: &Ground, now: Timestamp) -> State {
    let repositories = &ground.settings.repositories;
    State {
        profile: ground.profile.clone(),
        version: ground.machine.version.clone(),
        connection: ConnectionView {
            status: ConnectionStatus::Connecting,
            why: None,
            since: now.0,
        },
        office: None,
        offices: Vec::new(),
        agents: Vec::new(),
        sessions: Vec::new(),
        asks: Vec::new(),
        closed_asks: Vec::new(),
        commands: Vec::new(),
        problems: Vec::new(),
        repositories: repositories
            .iter()
            .enumerate()
            .map(|(index, (name, path))| RepositoryView {
                name: name.clone(),
                path: path.display().to_string(),
                default: index == 0,
            })
            .collect(),
        limits: LimitsView {
            sessions_max: ground.settings.limits.sessions_max,
        },
        pool: PoolView {
            sessions_max: ground.settings.limits.sessions_max,
            idle_minutes: ground.settings.limits.idle_minutes,
            ..PoolView::default()
        },
        launch: LaunchView::default(),
        ending: None,
    }
}

impl EventLoop {
    /// Publishes the state if anything changed since the last time.
    pub(super) fn publish(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let mut state = empty(&self.ground, self.connection.1);
        state.profile.changing = self.profile.leaving;
        state.connection = connection(&self.connection.0, self.connection.1);
        state.problems = self.problems.values().cloned().collect();
        state.sessions = self.session_views();
        state.pool = self.pool_view();
        state.limits.sessions_max = state.pool.sessions_max;
        if let Some(data) = &self.office {
            let office = |row: &supabase::OfficeRow| OfficeView {
                id: row.id.to_string(),
                name: row.name.clone(),
            };
            state.office = Some(office(&data.office));
            state.offices = data.offices.iter().map(office).collect();
            state.agents = data.rows.agents.iter().map(agent).collect();
        }
        state.asks = self.ask_views();
        state.closed_asks = self.closed_ask_views();
        state.commands = self.command_views();
        state.ending = self.ending_view();
        state.launch = self.leftovers.view();
        self.view.send_replace(Arc::new(state));
    }

    fn session_views(&self) -> Vec<SessionView> {
        let mut views: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, live)| {
                self.office
                    .as_ref()
                    .is_none_or(|data| data.office.id == live.office)
            })
            .map(|(id, live)| SessionView {
                id: id.to_string(),
                agent_id: live.agent.to_string(),
                title: live.title.clone(),
                state: live.state.clone(),
                asks: live.asks.clone(),
                ask: self
                    .asks
                    .of_session(*id)
                    .map(|held| ask_view(&held.ask, Some(held.agent), true)),
                warm: live.warm,
                stale: live.stale,
                retrying: live.retrying.clone(),
                memory_mb: live.memory_mb.map(number),
                restarts: live.restarts,
                hold: live.hold.map(hold_word).map(str::to_owned),
                taken_up: live.taken_up,
                repository: Some(live.repository.clone()),
                branch: Some(live.branch.clone()),
                worktree: live.worktree.display().to_string(),
                started_at: live.started_at.0,
            })
            .collect();
        views.sort_by_key(|view| view.started_at);
        views
    }

    /// The office's sessions, its line and its agents; the memory is the machine's, for all offices share it.
    fn pool_view(&self) -> PoolView {
        let limits = self.limits();
        let shown = |office: OfficeId| self.office.as_ref().is_none_or(|data| data.office.id == office);
        let open = self
            .sessions
            .values()
            .filter(|live| !live.state.is_over() && shown(live.office));
        let warm = open.clone().filter(|live| live.warm);
        let waiting = self
            .line
            .iter()
            .filter(|id| self.work.get(id).is_some_and(|work| shown(work.row.office_id)));
        let agents = self.office.as_ref().map(|data| &data.rows.agents);
        let is_ours = |agent: &AgentId| agents.is_none_or(|rows| rows.iter().any(|row| row.id == *agent));
        let paused = self.paused_agents().into_iter();
        let paused = paused.filter(|(agent, _, _)| is_ours(agent));
        PoolView {
            sessions_max: number(limits.sessions_max),
            warm_roles: limits.warm_roles.clone(),
            open: number(open.count()),
            warm: number(warm.count()),
            waiting: number(waiting.count()),
            memory_mb: self.memory_mb().map(number),
            memory_limit_mb: number(limits.memory_mb_max),
            idle_minutes: limits.idle_minutes,
            paused_agents: paused
                .map(|(agent, until, why)| PausedAgentView {
                    agent_id: agent.to_string(),
                    until: until.0,
                    why,
                })
                .collect(),
        }
    }

    /// The office's rows, with what we know better laid over them; then ours that the office has not shown yet.
    fn command_views(&mut self) -> Vec<CommandView> {
        let Some(data) = &self.office else {
            return Vec::new();
        };
        // What the office itself shows as ended, or does not show any more, needs no memory of ours.
        let rows: HashMap<CommandId, bool> = data
            .rows
            .commands
            .iter()
            .map(|row| (row.id, row.state.is_final()))
            .collect();
        self.reporting
            .retain(|id, ending| !ending.acknowledged || rows.get(id) == Some(&false));
        let mut views: Vec<CommandView> = data
            .rows
            .commands
            .iter()
            .map(|row| self.command_view(row, data.rows.results.get(&row.id).map(|row| &**row)))
            .collect();
        let known: Vec<String> = views.iter().map(|view| view.id.clone()).collect();
        for work in self
            .work
            .values()
            .filter(|work| !known.contains(&work.row.id.to_string()))
        {
            views.push(self.command_view(&row_of(&work.row), None));
        }
        views.sort_by_key(|view| std::cmp::Reverse(view.created_at));
        views
    }

    fn command_view(&self, row: &CommandRow, result: Option<&ResultRow>) -> CommandView {
        let text = |value: Option<&Value>, key: &str| {
            value
                .and_then(|value| value.get(key))
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let mut view = CommandView {
            id: row.id.to_string(),
            kind: row.kind.clone(),
            agent_id: row.agent_id.map(|id| id.to_string()),
            session_id: row.session_id.map(|id| id.to_string()),
            summary: summary(&row.kind, &row.args),
            prompt: text(Some(&row.args), "prompt").map(|prompt| clipped(&prompt, TEXT_CHARS_MAX)),
            status: status(row.state),
            outcome: result.and_then(|row| row.outcome.clone()),
            created_at: row.created_at.0,
            started_at: None,
            finished_at: row.finished_at.map(|at| at.0),
            final_message: result
                .and_then(|row| text(row.output.as_ref(), "final_message"))
                .map(|message| clipped(&message, TEXT_CHARS_MAX)),
            reason: result.and_then(|row| text(row.error.as_ref(), "message")),
            class: result.and_then(|row| text(row.error.as_ref(), "class")),
            evidence: result
                .and_then(|row| row.evidence.clone())
                .and_then(|value| serde_json::from_value(value).ok()),
            mine: self
                .office
                .as_ref()
                .is_some_and(|data| row.client_id == Some(data.client)),
            recovered: self
                .leftovers
                .fate_of(row.id)
                .map(|fate| fate.as_str().to_owned()),
        };
        if view.session_id.is_none() {
            view.session_id = result.and_then(|row| text(row.output.as_ref(), "session_id"));
        }
        self.lay_over(row.id, &mut view, result.is_some());
        view
    }

    /// Puts our own knowledge of a command over the office's.
    fn lay_over(&self, id: CommandId, view: &mut CommandView, recorded: bool) {
        if let Some(work) = self.work.get(&id) {
            view.mine = true;
            view.started_at = work.started_at.map(|at| at.0);
            view.status = match &work.stage {
                Stage::InLine => CommandStatus::Waiting,
                // An earlier core has begun it, and what became of it cannot be seen yet.
                Stage::Recovering if self.leftovers.may_run(id) => CommandStatus::Running,
                Stage::Starting { .. }
                | Stage::Recovering
                | Stage::UntilSettled { .. }
                | Stage::UntilLetBegin => CommandStatus::Claimed,
                Stage::Turn { .. }
                | Stage::UntilEnded { .. }
                | Stage::UntilGone { .. }
                | Stage::Asking
                | Stage::Answering => CommandStatus::Running,
                Stage::Ended => CommandStatus::Reporting,
            };
            let session = work.stage.session();
            if work.stage == Stage::InLine {
                view.reason.clone_from(&work.waits_because);
            }
            if let Some(session) = session {
                view.session_id = Some(session.to_string());
                view.reason = self.sessions.get(&session).and_then(|live| live.asks.clone());
            }
        }
        if let Some(ending) = self.reporting.get(&id)
            && !recorded
        {
            view.mine = true;
            view.status = if ending.acknowledged {
                ending.status
            } else {
                CommandStatus::Reporting
            };
            view.outcome = Some(ending.outcome.clone());
            view.final_message = ending.final_message.clone();
            view.reason = ending.reason.clone();
            view.class = ending.class.clone();
            view.evidence = ending.evidence.clone();
        }
    }
}

fn hold_word(hold: Hold) -> &'static str {
    match hold {
        Hold::Recovering => "recovering",
        Hold::Held => "held",
    }
}

/// A retry, for people: what failed, and when it is tried again.
pub(super) fn retry_words(retry: &Retry) -> String {
    let next = match retry.next_in_s {
        Some(seconds) => format!(", again in {seconds} s"),
        None => String::new(),
    };
    format!(
        "{} (try {} of {}{next})",
        retry.words.trim(),
        retry.attempt,
        retry.max
    )
}

/// For people: what does not fit is as much as there can be.
fn number(value: impl TryInto<u32>) -> u32 {
    value.try_into().unwrap_or(u32::MAX)
}

fn row_of(claimed: &supabase::ClaimedCommand) -> CommandRow {
    CommandRow {
        id: claimed.id,
        seq: claimed.seq,
        office_id: claimed.office_id,
        agent_id: claimed.agent_id,
        client_id: None,
        session_id: claimed.session_id,
        kind: claimed.kind.clone(),
        args: claimed.args.clone(),
        idempotency_key: String::new(),
        state: CommandState::Leased,
        priority: claimed.priority,
        attempt: claimed.attempt,
        cancel_requested_at: claimed.cancel_requested_at,
        created_by: None,
        created_at: claimed.created_at,
        expires_at: claimed.expires_at,
        finished_at: None,
    }
}

fn connection(state: &ConnectionState, since: Timestamp) -> ConnectionView {
    let (status, why) = match state {
        ConnectionState::Offline { why } => (ConnectionStatus::Offline, Some(why.clone())),
        ConnectionState::Connecting => (ConnectionStatus::Connecting, None),
        ConnectionState::Joining => (ConnectionStatus::Joining, None),
        ConnectionState::Live => (ConnectionStatus::Live, None),
        ConnectionState::Backoff { why, .. } => (ConnectionStatus::Backoff, Some(why.clone())),
        ConnectionState::Stopped => (ConnectionStatus::Stopped, None),
    };
    ConnectionView {
        status,
        why,
        since: since.0,
    }
}

fn agent(row: &supabase::AgentRow) -> AgentView {
    AgentView {
        id: row.id.to_string(),
        role: row.role.clone(),
        name: row.name.clone(),
        prompt: row.prompt.clone(),
        scope_patterns: row.scope_patterns.clone(),
        core_skills: row.core_skills.clone(),
        provider: row.provider.clone(),
    }
}

fn status(state: CommandState) -> CommandStatus {
    match state {
        CommandState::Queued => CommandStatus::Queued,
        CommandState::Leased | CommandState::Other => CommandStatus::Claimed,
        CommandState::Succeeded => CommandStatus::Succeeded,
        CommandState::Unconfirmed => CommandStatus::Unconfirmed,
        CommandState::Failed => CommandStatus::Failed,
        CommandState::Cancelled => CommandStatus::Cancelled,
        CommandState::Expired => CommandStatus::Expired,
        CommandState::Dead => CommandStatus::Dead,
    }
}

/// One line for people.
fn summary(kind: &str, args: &Value) -> String {
    let line = match Command::parse(kind, args) {
        Ok(Command::SendPrompt(prompt)) => {
            let line = prompt
                .prompt
                .lines()
                .find(|line| !line.trim().is_empty())
                .unwrap_or_default()
                .trim()
                .to_owned();
            return clipped(&line, SUMMARY_CHARS_MAX);
        }
        Ok(Command::CreateSession(_)) => "Start a session",
        Ok(Command::SendKeys(_)) => "Press keys in a session",
        Ok(Command::Cancel(_)) => "Interrupt",
        Ok(Command::GetOutput(_)) => "Read a session's output",
        Ok(Command::ListSessions) => "List the sessions",
        Ok(Command::Terminate(_)) => "End a session",
        Ok(Command::Approve(args)) => match args.answer {
            AskAnswer::Allow => "Allow what a session asks for",
            AskAnswer::Deny { .. } => "Deny what a session asks for",
            AskAnswer::Choose { .. } => "Answer a session's question",
        },
        Err(_) => return clipped(&format!("Not understood: {kind}"), SUMMARY_CHARS_MAX),
    };
    line.to_owned()
}

fn clipped(text: &str, chars_max: usize) -> String {
    let mut short: String = text.chars().take(chars_max).collect();
    if text.chars().count() > chars_max {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_summary_is_one_short_line_whatever_the_command_holds() {
        assert_eq!(
            summary("send_prompt", &json!({"prompt": "\n  첫 줄 \n둘째"})),
            "첫 줄"
        );
        assert_eq!(
            summary("terminate", &json!({"session": uuid::Uuid::nil()})),
            "End a session"
        );
        assert_eq!(
            summary(
                "approve",
                &json!({"session": uuid::Uuid::nil(), "answer": {"say": "deny"}})
            ),
            "Deny what a session asks for"
        );
        assert_eq!(summary("reboot", &json!({})), "Not understood: reboot");
        assert_eq!(
            summary("send_prompt", &json!({"prompt": "가".repeat(500)}))
                .chars()
                .count(),
            121
        );
    }
}

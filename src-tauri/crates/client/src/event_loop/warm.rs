//! What the loop keeps ready and within bounds: warm sessions, the limits in force, memory, agents that are paused.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use domain::{AgentId, OfficeId, SessionId, Timestamp};
use serde_json::Value;
use tokio::time::Instant;

use super::{Event, EventLoop};
use crate::memory::{self, Pressure};
use crate::office_settings::{LimitsInForce, OfficeSettings};
use crate::pool::{Breaker, Seat, surplus, to_give_up, warm_steps};
use crate::settings::Settings;

/// How often the memory of the sessions is measured: reading it costs a few milliseconds for each.
const MEASURE_EVERY: Duration = Duration::from_secs(10);
/// How long nothing is warmed up after a start that failed.
const WARM_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Under which name the journal remembers the agents' failures and pauses.
const PAUSES: &str = "agent_pauses";

/// What the loop knows of the pool as a whole.
pub(super) struct PoolState {
    limits: LimitsInForce,
    /// The office's settings as last read well, and whose they are.
    office: (Option<OfficeId>, OfficeSettings),
    memory_mb_default: u64,
    pub(super) pressure: Pressure,
    measuring: bool,
    measure_at: Instant,
    pub(super) warm_again_at: Option<Instant>,
    breakers: BTreeMap<AgentId, Breaker>,
    /// When each agent was last served from the line, as a count of placements; forgotten when nobody waits.
    pub(super) served: HashMap<AgentId, u64>,
    placements: u64,
}

impl PoolState {
    pub(super) fn new(settings: &Settings) -> PoolState {
        let memory_mb_default = memory::default_limit_mb();
        let office = OfficeSettings::default();
        PoolState {
            limits: LimitsInForce::of(&settings.limits, &office, memory_mb_default),
            office: (None, office),
            memory_mb_default,
            pressure: Pressure::default(),
            measuring: false,
            measure_at: Instant::now(),
            warm_again_at: None,
            breakers: BTreeMap::new(),
            served: HashMap::new(),
            placements: 0,
        }
    }

    pub(super) fn note_served(&mut self, agent: AgentId, line_is_empty: bool) {
        if line_is_empty {
            self.served.clear();
        } else {
            self.placements += 1;
            self.served.insert(agent, self.placements);
        }
    }
}

impl EventLoop {
    /// The limits in force: the office's, never above the workstation's.
    pub(super) fn limits(&self) -> &LimitsInForce {
        &self.pool.limits
    }

    /// Memory of all sessions that were measured, in MiB; `None` when none was.
    pub(super) fn memory_mb(&self) -> Option<u64> {
        self.sessions
            .values()
            .filter_map(|live| live.memory_mb)
            .reduce(|all, one| all + one)
    }

    /// Agents that are left alone for a while, until when, and why.
    pub(super) fn paused_agents(&self) -> Vec<(AgentId, Timestamp, String)> {
        let paused = |(agent, breaker): (&AgentId, &Breaker)| {
            let (until, why) = breaker.paused()?;
            Some((*agent, until, why.to_owned()))
        };
        self.pool.breakers.iter().filter_map(paused).collect()
    }

    pub(super) fn paused(&self, agent: AgentId) -> Option<(Timestamp, String)> {
        let (until, why) = self.pool.breakers.get(&agent)?.paused()?;
        Some((until, why.to_owned()))
    }

    /// The office was read: its settings take effect, changed personas make sessions stale, sessions of agents that
    /// are gone end.
    pub(super) fn office_was_read(&mut self) {
        let Some(data) = &self.office else { return };
        let (office, settings) = (data.office.id, data.office.settings.clone());
        self.take_office_settings(office, &settings);
        self.look_at_personas();
        self.end_surplus(office);
        self.advance_line();
    }

    fn take_office_settings(&mut self, office: OfficeId, settings: &Value) {
        let fresh = OfficeSettings::default();
        let (whose, last) = &self.pool.office;
        let last = if *whose == Some(office) { last } else { &fresh };
        let (read, faults) = OfficeSettings::read(settings, last);
        if faults.is_empty() {
            self.solved("office_settings");
        } else {
            let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
            let hint = "An owner of the office can correct it; until then the last good value is used.";
            self.problem("office_settings", told.join("; "), hint);
        }
        let limits = LimitsInForce::of(&self.ground.settings.limits, &read, self.pool.memory_mb_default);
        if limits != self.pool.limits {
            tracing::info!(?limits, "the limits in force");
            self.changed = true;
        }
        self.pool.limits = limits;
        self.pool.office = (Some(office), read);
    }

    fn end_surplus(&mut self, office: OfficeId) {
        for id in surplus(&self.seats(office), self.sessions_max()) {
            self.give_up(id, "fewer sessions are allowed now");
        }
        let foreign: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, live)| live.warm && live.office != office)
            .map(|(id, _)| *id)
            .collect();
        for id in foreign {
            self.give_up(id, "its office is not served any more");
        }
    }

    /// Ends what is warm and not wanted, and starts one that is missing: in the background, when nobody waits.
    pub(super) fn warm_up(&mut self, now: Instant) {
        let Some(data) = &self.office else { return };
        let office = data.office.id;
        let again = self.pool.warm_again_at.is_none_or(|at| at <= now);
        let may_start = again
            && self.line.is_empty()
            && !self.joining
            && self.program.is_some()
            && !self.problems.contains_key("claude_signed_out")
            && self
                .pool
                .pressure
                .allows_warm(&self.memory_of_all(), self.limits().memory_mb_max)
            && !self.is_stopping();
        let steps = warm_steps(
            &self.seats(office),
            &self.warm_agents(),
            self.sessions_max(),
            may_start,
            self.now(),
        );
        for (id, why) in steps.end {
            self.give_up(id, why);
        }
        if let Some(agent) = steps.start {
            self.start_warm(agent);
        }
    }

    /// The agents of the warm roles, one for each.
    fn warm_agents(&self) -> Vec<AgentId> {
        let Some(data) = &self.office else {
            return Vec::new();
        };
        let of_role = |role: &String| {
            let row = data.rows.agents.iter().find(|row| row.role == *role)?;
            (self.can_start(row) && self.paused(row.id).is_none()).then_some(row.id)
        };
        self.limits().warm_roles.iter().filter_map(of_role).collect()
    }

    /// A warm session could not be started: not again at once.
    pub(super) fn warm_start_failed(&mut self, why: &str) {
        tracing::warn!(why, "no session could be started ahead of need");
        self.pool.warm_again_at = Some(Instant::now() + WARM_AGAIN_AFTER);
    }

    fn memory_of_all(&self) -> Vec<Option<u64>> {
        let open = self.sessions.values().filter(|live| !live.state.is_over());
        open.map(|live| live.memory_mb).collect()
    }

    /// Measures what the sessions take, off the loop.
    pub(super) fn measure_memory(&mut self, now: Instant) {
        if self.pool.measuring || self.pool.measure_at > now || self.sessions.is_empty() {
            return;
        }
        self.pool.measuring = true;
        self.pool.measure_at = now + MEASURE_EVERY;
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        self.start(async move {
            let tags = ids.iter().map(ToString::to_string).collect();
            let measured = terminal::memory_of(tags).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "the memory of the sessions cannot be told");
                HashMap::new()
            });
            let mb = |id: &SessionId| {
                let tree = measured.get(&id.to_string())?;
                Some((*id, tree.bytes.div_ceil(1024 * 1024)))
            };
            Event::Measured(ids.iter().filter_map(mb).collect())
        });
    }

    /// Under pressure what nobody uses is given up, one at a time: the next measurement tells whether it was enough.
    pub(super) fn measured(&mut self, memory_mb: &HashMap<SessionId, u64>) {
        self.pool.measuring = false;
        for (id, live) in &mut self.sessions {
            live.memory_mb = memory_mb.get(id).copied().or(live.memory_mb);
        }
        let (used, limit) = (self.memory_mb().unwrap_or(0), self.limits().memory_mb_max);
        let pressure = self.pool.pressure.after(used, limit);
        if pressure != self.pool.pressure {
            tracing::info!(used, limit, ?pressure, "the memory of the sessions");
        }
        self.pool.pressure = pressure;
        if pressure == Pressure::Over {
            let message = format!("the sessions take {used} MiB of the {limit} MiB that they may");
            let hint = "Unused sessions are ended and new ones wait; raise limits.memory_mb_max where there is more.";
            self.problem("memory", message, hint);
            self.relieve_memory();
        } else {
            self.solved("memory");
        }
        self.advance_line();
    }

    fn relieve_memory(&mut self) {
        let seats: Vec<Seat> = self.all_seats();
        let leaving = seats
            .iter()
            .any(|seat| seat.state == domain::session::SessionState::Stopping);
        let next = to_give_up(&seats).next().map(|seat| seat.id);
        if let Some(id) = next.filter(|_| !leaving) {
            self.give_up(id, "the memory that sessions may take is used up");
        }
    }

    /// A session of this agent ended unexpectedly or could not be started. True when the agent is paused now.
    pub(super) fn count_failure(&mut self, agent: AgentId, why: &str) -> bool {
        let now = self.now();
        let paused = self.pool.breakers.entry(agent).or_default().failed(now, why);
        self.remember_pauses();
        if paused {
            tracing::warn!(%agent, why, "the agent is paused");
            self.tell_pauses();
        }
        paused
    }

    /// A turn of this agent came to an orderly end.
    pub(super) fn went_well(&mut self, agent: AgentId) {
        if let Some(breaker) = self.pool.breakers.get_mut(&agent)
            && breaker.paused().is_none()
            && !breaker.is_clear()
        {
            breaker.went_well();
            self.remember_pauses();
        }
    }

    /// A restart of the core is no way around a pause.
    fn remember_pauses(&self) {
        let kept: BTreeMap<AgentId, &Breaker> = self
            .pool
            .breakers
            .iter()
            .filter(|(_, breaker)| !breaker.is_clear())
            .map(|(agent, breaker)| (*agent, breaker))
            .collect();
        let value = if kept.is_empty() {
            Value::Null
        } else {
            serde_json::to_value(kept).unwrap_or_default()
        };
        if let Err(error) = self.ground.journal.remember(PAUSES, &value) {
            tracing::warn!(%error, "which agents are paused is not in the journal");
        }
    }

    /// At start: the pauses of the core before.
    pub(super) fn recall_pauses(&mut self) {
        match self.ground.journal.recall(PAUSES) {
            Ok(Some(value)) => self.pool.breakers = serde_json::from_value(value).unwrap_or_default(),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "which agents were paused cannot be read"),
        }
        self.tell_pauses();
    }

    /// Ends the pauses whose time has come; what waited for them goes on.
    pub(super) fn look_at_pauses(&mut self) {
        let now = self.now();
        let mut over = false;
        for breaker in self.pool.breakers.values_mut() {
            over |= breaker.look(now);
        }
        if over {
            self.remember_pauses();
            self.tell_pauses();
            self.advance_line();
        }
    }

    fn tell_pauses(&mut self) {
        let paused = self.paused_agents();
        let Some((_, until, _)) = paused.iter().min_by_key(|(_, until, _)| *until) else {
            return self.solved("agent_paused");
        };
        let name = |agent: &AgentId| {
            let row = self.agent_row(*agent);
            row.map_or_else(|| agent.to_string(), |row| format!("{} ({})", row.name, row.role))
        };
        let told: Vec<_> = paused
            .iter()
            .map(|(agent, _, why)| format!("{}: {why}", name(agent)))
            .collect();
        let hint = format!(
            "Its agent program keeps ending; `semo doctor` may tell why. It is tried again by itself at {}.",
            until.rfc3339()
        );
        let message = format!("paused after repeated failures: {}", told.join("; "));
        self.problem("agent_paused", message, hint);
    }
}

//! Signing in, choosing the office, reading it, hearing its doorbells.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use domain::{AgentId, ClientId, CommandId, OfficeId, UserId};
use rand::Rng;
use serde_json::json;
use supabase::{
    AgentDraft, AgentRow, AskRow, AuthError, CommandRow, ConnectionState, NO_SUCH_FUNCTION, OfficeRow,
    Realtime, RealtimeEvent, Registration, Rest, RestError, ResultRow, ResultStatus, StoreError, Topic,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::requests::refused;
use super::{Event, EventLoop};
use crate::identity::{Account, Identity};
use crate::request::RequestError;
use crate::settings::Profile;
use crate::start::{FirstAgent, FirstOffice, Machine};

/// Commands that are read and shown.
const COMMANDS_SHOWN: usize = 100;
/// Asks that are read: all that wait in any office of a sane size, and some that are over.
const ASKS_READ: usize = 120;
/// First pause after a failed join; doubled up to [`JOIN_PAUSE_MS_MAX`].
const JOIN_PAUSE_MS_MIN: u64 = 1_000;
/// Longest pause between two joins.
const JOIN_PAUSE_MS_MAX: u64 = 60_000;

/// Code of the problem that the account's role in the office has no workstation.
pub(super) const OFFICE_ROLE: &str = "office_role";

/// What the loop knows of the office.
pub(crate) struct OfficeData {
    pub office: OfficeRow,
    pub offices: Vec<OfficeRow>,
    /// What this machine is called there.
    pub client: ClientId,
    pub rows: Rows,
}

/// Final results by their command.
pub(crate) type Results = HashMap<CommandId, Arc<ResultRow>>;

/// The part that is read again and again.
pub(crate) struct Rows {
    pub agents: Vec<AgentRow>,
    pub commands: Vec<CommandRow>,
    pub results: Results,
    /// Pending ones first, then the newest ends.
    pub asks: Vec<AskRow>,
    /// The offices of the user, this one among them: name and settings may change at any time.
    pub offices: Vec<OfficeRow>,
    /// What is wrong with the asks, when they could not all be read.
    pub asks_fault: Option<AsksFault>,
}

/// Why asks of the office are not seen here. Everything else works without them.
pub(crate) enum AsksFault {
    /// The office's database has none yet.
    Unknown,
    /// The office does not give them out.
    Refused(String),
    /// That many make no sense.
    Unreadable(usize),
}

impl OfficeData {
    /// Whether the account that is served belongs to this office: to no other one is anything told about it.
    pub(super) fn knows(&self, office: OfficeId) -> bool {
        self.office.id == office || self.offices.iter().any(|row| row.id == office)
    }
}

/// Why an office was not joined.
pub(crate) struct Trouble {
    code: &'static str,
    message: String,
    hint: String,
    /// Trying again changes nothing until a person does something.
    permanent: bool,
}

/// What joining needs; taken along by the task.
struct Join {
    auth: supabase::Auth,
    rest: Rest,
    account: Account,
    machine: Machine,
    identity: Identity,
    /// The offices that know already from which data folder we work.
    placed: HashSet<OfficeId>,
    wanted: Option<OfficeId>,
    first_office: Option<FirstOffice>,
}

impl EventLoop {
    /// Signs in and joins, unless that is under way.
    pub(super) fn join(&mut self) {
        if self.joining {
            return;
        }
        self.joining = true;
        self.join_again_at = None;
        let wanted = self
            .office_wanted
            .or(self.office.as_ref().map(|data| data.office.id))
            .or(self.ground.settings.office.id);
        self.join_office(wanted);
    }

    pub(super) fn join_office(&mut self, wanted: Option<OfficeId>) {
        let join = Join {
            auth: self.ground.auth.clone(),
            rest: self.ground.rest.clone(),
            account: self.ground.account.clone(),
            machine: self.ground.machine.clone(),
            identity: self.ground.identity.clone(),
            placed: self.placed.clone(),
            wanted,
            first_office: (self.ground.settings.profile == Profile::ThisMachine)
                .then(|| self.ground.first_office.clone()),
        };
        let which = self.this_join();
        self.start(async move {
            match join.run().await {
                Ok(data) => Event::Joined(Box::new(data), which),
                Err(trouble) => Event::NotJoined(trouble, which),
            }
        });
    }

    pub(super) fn joined(&mut self, data: OfficeData) {
        self.joining = false;
        self.join_failures = 0;
        if let Some(wanted) = self.office_wanted.filter(|wanted| *wanted != data.office.id) {
            self.joining = true;
            self.join_office(Some(wanted));
            return;
        }
        self.office_wanted = None;
        self.placed.insert(data.office.id);
        for code in [
            "office_unreachable",
            "sign_in",
            "office",
            OFFICE_ROLE,
            "keychain",
            "sign_in_store",
        ] {
            self.solved(code);
        }
        self.look_where_the_sign_in_is();
        let changed = self.office.as_ref().map(|old| old.office.id) != Some(data.office.id);
        tracing::info!(office = %data.office.id, name = %data.office.name, "joined the office");
        if changed || self.realtime.is_none() {
            self.listen_to(data.office.id);
        }
        if let Some((realtime, _, _)) = &self.realtime {
            self.connection = (realtime.state(), self.now());
        }
        self.office = Some(data);
        // Whatever the office refused before may be possible now.
        self.asks.news.forget_refusals();
        self.claims_plainly = false;
        self.poll_at = Instant::now() + self.poll_interval();
        self.claim("joined");
        self.outbox_bell.notify_one();
        self.tell_next();
        self.asks_were_read();
    }

    pub(super) fn not_joined(&mut self, trouble: Trouble) {
        self.joining = false;
        if trouble.permanent {
            self.office_wanted = None;
        }
        let pause_ms = if trouble.permanent {
            JOIN_PAUSE_MS_MAX
        } else {
            JOIN_PAUSE_MS_MIN
                .saturating_mul(1 << self.join_failures.min(10))
                .min(JOIN_PAUSE_MS_MAX)
        };
        self.join_failures = self.join_failures.saturating_add(1);
        let share = rand::rng().random_range(0.5..=1.0);
        self.join_again_at = Some(Instant::now() + Duration::from_millis(pause_ms).mul_f64(share));
        if self.realtime.is_none() {
            let why = trouble.message.clone();
            self.connection = (ConnectionState::Offline { why }, self.now());
        }
        // Of what keeps it out of an office it is told what was seen last.
        for code in ["office", OFFICE_ROLE] {
            self.solved(code);
        }
        self.problem(trouble.code, trouble.message, trouble.hint);
    }

    /// Opens the office's doorbell, in place of an earlier one.
    fn listen_to(&mut self, office: OfficeId) {
        if let Some((_, _, stop)) = self.realtime.take() {
            stop.cancel();
        }
        let stop = self.ground.stop.child_token();
        let (handle, events) = Realtime::start(
            self.ground.project.clone(),
            self.ground.auth.clone(),
            vec![Topic::office_commands(office)],
            self.ground.clock.clone(),
            &self.ground.tasks,
            stop.clone(),
        );
        self.realtime = Some((handle, events, stop));
    }

    pub(super) fn take_doorbell(&mut self, event: Option<RealtimeEvent>) {
        self.changed = true;
        match event {
            None => {
                // It ends only with the core or by a fault of its own: the poll carries on, a new join opens it again.
                self.realtime = None;
                if !self.is_stopping() {
                    self.join();
                }
            }
            Some(RealtimeEvent::State(state)) => {
                self.connection = (state, self.now());
                self.poll_at = self.poll_at.min(Instant::now() + self.poll_interval());
            }
            Some(RealtimeEvent::Joined { .. }) => {
                self.claim("joined realtime");
                self.refresh();
                self.outbox_bell.notify_one();
            }
            Some(RealtimeEvent::Doorbell { event, payload, .. }) => {
                tracing::debug!(event, "the doorbell rang");
                if payload.get("cancel").and_then(serde_json::Value::as_bool) == Some(true)
                    && let Some(id) = payload.get("id").and_then(serde_json::Value::as_str)
                    && let Ok(id) = id.parse()
                {
                    self.cancel_work(id, json!({ "way": "office" }));
                }
                if !matches!(event.as_str(), "result" | "ask" | "office") {
                    self.claim("doorbell");
                }
                self.refresh();
            }
        }
    }

    /// Reads the office anew; requests that come meanwhile make one more reading.
    pub(super) fn refresh(&mut self) {
        let Some(data) = &self.office else { return };
        if std::mem::replace(&mut self.refreshing, true) {
            self.refresh_wanted = true;
            return;
        }
        let (rest, office, known) = (
            self.ground.rest.clone(),
            data.office.id,
            data.rows.results.clone(),
        );
        self.start(async move {
            Event::Refreshed {
                office,
                data: read(&rest, office, known).await,
            }
        });
    }

    pub(super) fn refreshed(&mut self, office: OfficeId, data: Result<Rows, RestError>) {
        self.refreshing = false;
        let again = std::mem::take(&mut self.refresh_wanted);
        match (&mut self.office, data) {
            (Some(known), Ok(mut rows)) if known.office.id == office => {
                // Somebody who was put out of it sees none of its rows; the next claim tells that.
                if let Some(row) = rows.offices.iter().find(|row| row.id == office) {
                    known.office = row.clone();
                    known.offices = std::mem::take(&mut rows.offices);
                }
                known.rows = rows;
                self.solved("office_unreachable");
                self.solved("office");
                self.asks_were_read();
            }
            (_, Ok(_)) => {}
            (_, Err(error)) => self.trouble_with_rest(&error),
        }
        if again {
            self.refresh();
        }
    }

    /// What has to be done when the office's asks are known anew.
    fn asks_were_read(&mut self) {
        let fault = self
            .office
            .as_ref()
            .and_then(|data| data.rows.asks_fault.as_ref());
        let told = fault.map(|fault| match fault {
            AsksFault::Unknown => (
                "the office's database does not know asks: permissions and questions can only be answered on their own workstation".to_owned(),
                "Apply the files of migrations/supabase from 0005 on to the project.",
            ),
            AsksFault::Refused(why) => (
                format!("what waits on other workstations is not seen here: {why}"),
                "Apply the files of migrations/supabase to the project; everything else works meanwhile.",
            ),
            AsksFault::Unreadable(count) => (
                format!("{count} of the office's asks make no sense and are not shown; the log names them"),
                "Look at them in the session's own terminal; a newer version of the program may read them.",
            ),
        });
        match told {
            Some((message, hint)) => self.problem("office_schema", message, hint),
            None => self.solved("office_schema"),
        }
        self.withdraw_lost_asks();
        self.tell_asks();
    }

    /// Tells of a failed call, and signs in again where that is what is missing.
    pub(super) fn trouble_with_rest(&mut self, error: &RestError) {
        match error {
            // A join that has just failed has its own pause.
            RestError::Unauthorized { .. } if self.join_again_at.is_none() => self.join(),
            RestError::Unauthorized { .. } => {}
            RestError::Unreachable { .. } => {
                self.problem(
                    "office_unreachable",
                    error.to_string(),
                    "It is tried again by itself; running sessions go on.",
                );
            }
            RestError::Forbidden { .. }
            | RestError::NotFound { .. }
            | RestError::Conflict { .. }
            | RestError::Rejected { .. }
            | RestError::Malformed { .. } => {
                self.problem(
                    "office",
                    error.to_string(),
                    "Ask the owner of the office, or choose another office.",
                );
            }
        }
    }
}

impl Join {
    async fn run(self) -> Result<OfficeData, Trouble> {
        self.sign_in().await?;
        let mut offices = self.rest.offices().await.map_err(trouble)?;
        if offices.is_empty()
            && let Some(first) = &self.first_office
        {
            offices.push(self.rest.create_office(&first.name).await.map_err(trouble)?);
        }
        let office = self.choose(&offices)?;
        let client = client_in(&self.identity, office.id, self.auth.user());
        self.register(office.id, client).await.map_err(trouble)?;
        let mut rows = read(&self.rest, office.id, Results::new())
            .await
            .map_err(trouble)?;
        // Just made, or when a start was cut short.
        if let Some(first) = &self.first_office
            && first.name == office.name
            && rows.agents.is_empty()
        {
            add_agents(&self.rest, office.id, first).await.map_err(trouble)?;
            rows.agents = self.rest.agents(office.id).await.map_err(trouble)?;
        }
        Ok(OfficeData {
            office,
            offices,
            client,
            rows,
        })
    }

    /// Makes us known, the first time with the data folder from which we work: from then on whoever works as this client
    /// from another one is refused. Later times must not take that from a core that has come since.
    async fn register(&self, office: OfficeId, client: ClientId) -> Result<(), RestError> {
        let machine = &self.machine;
        let registration = Registration {
            office,
            client,
            name: &machine.name,
            platform: &machine.platform,
            version: &machine.version,
            folder: self
                .identity
                .folder_key()
                .filter(|_| !self.placed.contains(&office)),
        };
        let registered = match self.rest.register(&registration).await {
            // A database of before; the claim tells it to people.
            Err(RestError::NotFound { code, .. })
                if code == NO_SUCH_FUNCTION && registration.folder.is_some() =>
            {
                let plain = Registration {
                    folder: None,
                    ..registration
                };
                self.rest.register(&plain).await
            }
            registered => registered,
        };
        registered.map(|_| ())
    }

    /// Uses the stored sign-in when it is this account's and still good, else the password.
    async fn sign_in(&self) -> Result<(), Trouble> {
        let stored = if self.is_somebody_elses() {
            Err(self.not_this_account())
        } else {
            // Takes up what `semo login` has stored since.
            self.auth.access_token().await
        };
        let stored = match stored {
            Ok(_) if self.is_somebody_elses() => Err(self.not_this_account()),
            stored => stored,
        };
        let error = match (stored, &self.account.password) {
            (Ok(_), _) => return Ok(()),
            (Err(AuthError::SignedOut { .. }), Some(password)) => {
                match self.auth.sign_in(&self.account.email, password).await {
                    Ok(_) => return Ok(()),
                    Err(error) => error,
                }
            }
            (Err(error), _) => error,
        };
        let permanent = !error.is_passing();
        let (code, hint) = match &error {
            AuthError::Store {
                source: StoreError::Keychain { .. },
            } => ("keychain", "It is tried again by itself."),
            AuthError::Store { .. } => ("sign_in_store", "It is tried again by itself."),
            _ if permanent => (
                "sign_in",
                "Sign in here or with `semo login`; a machine that nobody sits at gets the password as SEMO_PASSWORD.",
            ),
            _ => ("office_unreachable", "It is tried again by itself."),
        };
        Err(Trouble {
            code,
            message: format!("{} is not signed in: {error}", self.account.email),
            hint: hint.to_owned(),
            permanent,
        })
    }

    /// Is the stored sign-in of another account than the settings name?
    fn is_somebody_elses(&self) -> bool {
        let email = self.auth.email();
        email.is_some_and(|email| !email.eq_ignore_ascii_case(&self.account.email))
    }

    fn not_this_account(&self) -> AuthError {
        AuthError::SignedOut {
            reason: "somebody else has signed in on this machine".to_owned(),
        }
    }

    fn choose(&self, offices: &[OfficeRow]) -> Result<OfficeRow, Trouble> {
        let found = match self.wanted {
            Some(wanted) => offices.iter().find(|office| office.id == wanted),
            None => offices.first(),
        };
        found.cloned().ok_or_else(|| Trouble {
            code: "office",
            message: match self.wanted {
                Some(wanted) => format!("{} is not a member of office {wanted}", self.account.email),
                None => format!("{} is not a member of any office yet", self.account.email),
            },
            hint: "Ask the owner of an office to add you, then choose Refresh.".to_owned(),
            permanent: true,
        })
    }
}

/// Makes an office with its first agents. One of that name that is there already is taken up, and gets the agents that are
/// missing: an answer may have been lost, or a try cut short.
pub(super) async fn make_with_agents(rest: &Rest, first: &FirstOffice) -> Result<OfficeRow, RequestError> {
    let offices = rest.offices().await.map_err(refused)?;
    let known = offices.into_iter().find(|office| office.name == first.name);
    let office = match known {
        Some(office) => office,
        None => rest.create_office(&first.name).await.map_err(refused)?,
    };
    match add_agents(rest, office.id, first).await {
        Ok(()) => Ok(office),
        Err(error) => {
            let error = refused(error);
            Err(RequestError {
                message: format!(
                    "office {} is there, but not all of its agents are: {}",
                    office.name, error.message
                ),
                hint: "Make it again under the same name: what is missing is added.".to_owned(),
                ..error
            })
        }
    }
}

/// The agents of a first office, as far as they are missing. Where others work already it has its own.
async fn add_agents(rest: &Rest, office: OfficeId, first: &FirstOffice) -> Result<(), RestError> {
    // The same agent of the same office always has the same id: a crash in between makes no twins.
    let id = |agent: &FirstAgent| AgentId(Uuid::new_v5(&office.0, agent.role.as_bytes()));
    let there: Vec<AgentId> = rest.agents(office).await?.iter().map(|row| row.id).collect();
    let is_ours = |known: &AgentId| first.agents.iter().any(|agent| id(agent) == *known);
    if !there.iter().all(is_ours) {
        return Ok(());
    }
    for agent in first.agents.iter().filter(|agent| !there.contains(&id(agent))) {
        let draft = AgentDraft {
            agent: id(agent),
            role: agent.role.clone(),
            name: agent.name.clone(),
            prompt: agent.prompt.clone(),
            scope_patterns: agent.scope_patterns.clone(),
            core_skills: agent.core_skills.clone(),
        };
        rest.upsert_agent(office, &draft).await?;
    }
    Ok(())
}

/// Reads the office. A final result never changes: those in `known` are not asked for again.
async fn read(rest: &Rest, office: OfficeId, known: Results) -> Result<Rows, RestError> {
    let agents = rest.agents(office).await?;
    let commands = rest.commands(office, COMMANDS_SHOWN).await?;
    let ended = commands
        .iter()
        .filter(|row| row.state.is_final())
        .map(|row| row.id);
    let (mut results, mut missing) = (Results::new(), Vec::new());
    for id in ended {
        match known.get(&id) {
            Some(result) => {
                results.insert(id, result.clone());
            }
            None => missing.push(id),
        }
    }
    let (asks, asks_fault) = read_asks(rest, office).await?;
    let offices = rest.offices().await?;
    for row in rest.results(&missing).await? {
        if is_final(row.status) {
            results.insert(row.command_id, Arc::new(row));
        }
    }
    Ok(Rows {
        agents,
        commands,
        results,
        asks,
        offices,
        asks_fault,
    })
}

/// The asks, or why they are not seen. Only what passes, or what stops everything else too, is an error: nothing that
/// one device writes may keep the others out of the office.
async fn read_asks(rest: &Rest, office: OfficeId) -> Result<(Vec<AskRow>, Option<AsksFault>), RestError> {
    match rest.asks(office, ASKS_READ).await {
        Ok(asks) => {
            let left_out = asks.left_out();
            let fault = (left_out > 0).then_some(AsksFault::Unreadable(left_out));
            Ok((asks.rows, fault))
        }
        Err(RestError::NotFound { .. }) => Ok((Vec::new(), Some(AsksFault::Unknown))),
        Err(error @ (RestError::Unreachable { .. } | RestError::Unauthorized { .. })) => Err(error),
        Err(
            error @ (RestError::Forbidden { .. }
            | RestError::Conflict { .. }
            | RestError::Rejected { .. }
            | RestError::Malformed { .. }),
        ) => {
            tracing::warn!(%office, %error, "the asks cannot be read");
            Ok((Vec::new(), Some(AsksFault::Refused(error.to_string()))))
        }
    }
}

fn is_final(status: ResultStatus) -> bool {
    match status {
        ResultStatus::Succeeded
        | ResultStatus::Unconfirmed
        | ResultStatus::Failed
        | ResultStatus::Cancelled => true,
        ResultStatus::Progress | ResultStatus::Late | ResultStatus::Other => false,
    }
}

/// This machine's id in one office, for one user: a row of `clients` belongs to one office and one account.
pub(super) fn client_in(identity: &Identity, office: OfficeId, user: Option<UserId>) -> ClientId {
    let name = format!(
        "{office} {}",
        user.map(|user| user.to_string()).unwrap_or_default()
    );
    ClientId(Uuid::new_v5(&identity.client.0, name.as_bytes()))
}

fn trouble(error: RestError) -> Trouble {
    let passing = matches!(error, RestError::Unreachable { .. } | RestError::Malformed { .. });
    let again = "It is tried again by itself; choose Refresh to try at once.";
    let (code, hint) = if matches!(error, RestError::Forbidden { .. }) {
        (
            OFFICE_ROLE,
            "This account may not have a workstation in the office: an owner of the office makes it `owner` or `device`.",
        )
    } else if passing {
        ("office_unreachable", again)
    } else {
        ("office", again)
    };
    Trouble {
        code,
        message: error.to_string(),
        hint: hint.to_owned(),
        permanent: !passing,
    }
}

#[cfg(test)]
#[path = "office_tests.rs"]
mod tests;

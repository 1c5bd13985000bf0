//! The office as a model: what `register_client`, `claim_commands`, `begin_command`, `renew_lease`, `complete_command`, `cancel_command` and
//! the reaper of `migrations/supabase/0003_functions.sql` do, rule by rule, on a clock of its own.
//!
//! Knows nothing but the standard library and `uuid`, because `hub/tests/office_model.rs` takes this file too: there the
//! same random calls go to the model and to the real functions, and all answers and rows must be the same.

use std::collections::BTreeMap;

use uuid::Uuid;

/// Longest a batch of a claim may be.
const CLAIM_MAX: usize = 50;
/// How often one lease is given in all: a claim's answer may get lost.
const GIVEN_MAX: u32 = 5;
/// How long who held the last lease may still come back after everything has run out.
const COME_BACK_MS: i64 = 15 * 60_000;
/// Rows of progress and late ones that one command may have.
const EXTRA_MAX: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Queued,
    Leased,
    Succeeded,
    Unconfirmed,
    Failed,
    Cancelled,
    Expired,
    Dead,
}

impl State {
    pub fn is_final(self) -> bool {
        !matches!(self, State::Queued | State::Leased)
    }
}

/// A row of `agent_commands`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub id: Uuid,
    pub seq: i64,
    pub session: Option<Uuid>,
    pub kind: &'static str,
    pub priority: i32,
    pub expires_at: i64,
    pub state: State,
    pub attempt: i32,
    pub max_attempts: i32,
    pub client: Option<Uuid>,
    pub lease_until: Option<i64>,
    pub cancel_wanted: bool,
}

/// A row of `private.command_leases`: the fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRow {
    pub command: Uuid,
    pub attempt: i32,
    pub client: Uuid,
    pub given: u32,
    /// From which data folder it was taken, and its command begun under it.
    pub folder: Option<Uuid>,
    pub begun_from: Option<Uuid>,
}

/// What a result row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    Begun,
    Progress,
    Final(State),
    Late,
}

/// A row of `agent_command_results`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultRow {
    pub id: Uuid,
    pub command: Uuid,
    pub client: Uuid,
    pub attempt: i32,
    pub kept: Kept,
    pub at: i64,
}

/// Who asks: a client, and from which data folder, where that is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct By {
    pub client: Uuid,
    pub folder: Option<Uuid>,
}

/// A command as a claim brings it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    pub row: Row,
    pub token: Uuid,
    pub begun: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    Begun,
    Cancel,
    Expired,
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completed {
    Recorded,
    Duplicate,
    Late,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    Cancelled,
    Requested,
    Over,
}

/// A rule that is left out on purpose, to see that its breach is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// A begun command is given to whoever claims.
    BegunGoesToAnybody,
    /// Prompts for one session go out together.
    PromptsTogether,
    /// A result counts under any token that was ever given.
    NoFence,
    /// What is leased is given again to whoever does not know it.
    GivenAgainToAnybody,
    /// Nothing is given again before its lease is over.
    NothingGivenAgain,
    /// What was taken from one data folder is given again to its copy.
    GivenAgainToCopies,
    /// A copy of a data folder claims beside the original.
    CopiesClaim,
    /// A copy of a data folder begins what the original has begun.
    CopiesBegin,
    /// A copy of a data folder says what came of what the original has begun.
    CopiesEnd,
    /// A copy that claims takes the original's lease from it, though nothing was begun from there.
    CopiesOutbid,
}

/// The office.
#[derive(Debug, Clone, Default)]
pub struct Office {
    /// The database's clock, in ms.
    pub now: i64,
    pub rows: BTreeMap<Uuid, Row>,
    pub leases: BTreeMap<Uuid, LeaseRow>,
    pub results: Vec<ResultRow>,
    /// Which client has which session.
    pub sessions: BTreeMap<Uuid, Uuid>,
    /// From which data folder each client works.
    pub folders: BTreeMap<Uuid, Uuid>,
    pub gap: Option<Gap>,
    /// What the reaper has ended.
    pub reaped: Vec<Uuid>,
    tokens: u128,
    seqs: i64,
}

impl Office {
    pub fn enqueue(
        &mut self,
        id: Uuid,
        kind: &'static str,
        session: Option<Uuid>,
        priority: i32,
        ttl_ms: i64,
    ) -> i64 {
        self.seqs += 1;
        let row = Row {
            id,
            seq: self.seqs,
            session,
            kind,
            priority,
            expires_at: self.now + ttl_ms,
            state: State::Queued,
            attempt: 0,
            max_attempts: 3,
            client: None,
            lease_until: None,
            cancel_wanted: false,
        };
        self.rows.insert(id, row);
        self.seqs
    }

    /// `register_client`, as far as it matters here.
    pub fn register(&mut self, client: Uuid, folder: Option<Uuid>) {
        if let Some(folder) = folder {
            self.folders.insert(client, folder);
        }
    }

    /// `private.is_elsewhere`.
    pub fn is_elsewhere(&self, client: Uuid, folder: Option<Uuid>) -> bool {
        let its = self.folders.get(&client);
        its.zip(folder).is_some_and(|(its, folder)| *its != folder)
    }

    /// `private.is_begun`, not counting `but`.
    fn is_begun(&self, command: Uuid, but: Option<Uuid>) -> bool {
        let begun = |row: &&ResultRow| row.command == command && row.kept == Kept::Begun;
        self.results
            .iter()
            .filter(begun)
            .any(|row| Some(row.client) != but)
    }

    /// `private.reap_commands`.
    fn reap(&mut self) {
        let now = self.now;
        let over: Vec<_> = self
            .rows
            .values()
            .filter_map(|row| self.end_of(row, now).map(|end| (row.id, end)))
            .collect();
        for (id, end) in over {
            if let Some(row) = self.rows.get_mut(&id) {
                row.state = end;
                row.lease_until = None;
                self.reaped.push(id);
            }
        }
    }

    /// The state in which the reaper ends a command now, if it does.
    fn end_of(&self, row: &Row, now: i64) -> Option<State> {
        let is_begun = || self.is_begun(row.id, None);
        let is_over = match row.state {
            State::Queued => row.expires_at < now,
            State::Leased => {
                let until = row.lease_until.unwrap_or(i64::MAX);
                until < now
                    && ((row.attempt >= row.max_attempts && !is_begun())
                        || row.cancel_wanted
                        || row.expires_at.max(until) < now - COME_BACK_MS)
            }
            _ => false,
        };
        let is_expired = || row.state == State::Queued || (row.expires_at < now && !is_begun());
        is_over.then(|| match () {
            () if row.cancel_wanted => State::Cancelled,
            () if is_expired() => State::Expired,
            () => State::Dead,
        })
    }

    /// The token under which a command is given again that this client has, but does not know.
    pub fn given_again(&self, by: By, known: Option<&[Uuid]>, row: &Row) -> Option<Uuid> {
        let By { client, folder } = by;
        let its = row.client == Some(client) || self.gap == Some(Gap::GivenAgainToAnybody);
        let unknown = known.is_some_and(|known| !known.contains(&row.id));
        let leased = row.state == State::Leased && row.lease_until.is_some_and(|until| until > self.now);
        if !its
            || !unknown
            || !leased
            || self.is_begun(row.id, None)
            || self.gap == Some(Gap::NothingGivenAgain)
        {
            return None;
        }
        let of_now = |lease: &LeaseRow| {
            lease.command == row.id
                && lease.attempt == row.attempt
                && lease.given < GIVEN_MAX
                && (lease.folder == folder
                    || [Gap::GivenAgainToCopies, Gap::GivenAgainToAnybody]
                        .map(Some)
                        .contains(&self.gap))
        };
        let found = self.leases.iter().find(|(_, lease)| of_now(lease));
        found.map(|(token, _)| *token)
    }

    pub fn may_claim(&self, by: By, kinds: Option<&[&str]>, known: Option<&[Uuid]>, row: &Row) -> bool {
        let client = by.client;
        let begun_by_any = self.is_begun(row.id, None);
        let elsewhere = self.is_begun(row.id, Some(client)) && self.gap != Some(Gap::BegunGoesToAnybody);
        let free = match row.state {
            State::Queued => true,
            State::Leased => {
                let is_over = row.lease_until.is_some_and(|until| until <= self.now)
                    && !elsewhere
                    && (row.attempt < row.max_attempts || begun_by_any);
                is_over || self.given_again(by, known, row).is_some()
            }
            _ => false,
        };
        free && (row.expires_at > self.now || (row.state == State::Leased && begun_by_any))
            && !row.cancel_wanted
            && kinds.is_none_or(|kinds| kinds.contains(&row.kind))
            && row
                .session
                .and_then(|session| self.sessions.get(&session))
                .is_none_or(|its| *its == client)
            && !self.is_behind_another(row)
    }

    /// An earlier prompt for its session is still open.
    fn is_behind_another(&self, row: &Row) -> bool {
        let before = |other: &Row| {
            !other.state.is_final()
                && other.kind == "send_prompt"
                && other.session == row.session
                && other.id != row.id
                && (other.priority > row.priority || (other.priority == row.priority && other.seq < row.seq))
        };
        row.kind == "send_prompt"
            && row.session.is_some()
            && self.gap != Some(Gap::PromptsTogether)
            && self.rows.values().any(before)
    }

    /// Nothing: another core works as this client.
    pub fn claim(
        &mut self,
        by: By,
        limit: usize,
        lease_ms: i64,
        kinds: Option<&[&str]>,
        known: Option<&[Uuid]>,
    ) -> Option<Vec<Claimed>> {
        let By { client, folder } = by;
        if self.is_elsewhere(client, folder) && self.gap != Some(Gap::CopiesClaim) {
            return None;
        }
        self.reap();
        let mut picked: Vec<_> = self
            .rows
            .values()
            .filter(|row| self.may_claim(by, kinds, known, row))
            .map(|row| (-row.priority, row.seq, row.id, self.given_again(by, known, row)))
            .collect();
        picked.sort_unstable();
        picked.truncate(limit.clamp(1, CLAIM_MAX));
        let mut claimed = Vec::new();
        for (_, _, id, again) in picked {
            let token = again.unwrap_or_else(|| {
                self.tokens += 1;
                Uuid::from_u128(self.tokens)
            });
            let begun = self.is_begun(id, None);
            let Some(row) = self.rows.get_mut(&id) else {
                continue;
            };
            row.state = State::Leased;
            row.attempt += i32::from(again.is_none());
            row.client = Some(client);
            row.lease_until = Some(self.now + lease_ms);
            let first = LeaseRow {
                command: id,
                attempt: row.attempt,
                client,
                given: 0,
                folder,
                begun_from: None,
            };
            self.leases.entry(token).or_insert(first).given += 1;
            claimed.push(Claimed {
                row: row.clone(),
                token,
                begun,
            });
        }
        Some(claimed)
    }

    /// `private.is_begun_away`.
    fn is_begun_away(&self, command: Uuid, folder: Option<Uuid>) -> bool {
        let differs = |from: Option<Uuid>| from.zip(folder).is_some_and(|(from, folder)| from != folder);
        let mut leases = self.leases.values();
        leases.any(|lease| lease.command == command && differs(lease.begun_from))
    }

    /// The lease of this token, when it is in force (`private.is_fence`).
    fn fence(&self, command: Uuid, token: Uuid) -> Option<LeaseRow> {
        let lease = self.leases.get(&token).filter(|lease| lease.command == command)?;
        let row = self.rows.get(&command)?;
        let is_newest = |other: &&LeaseRow| other.command == command && other.attempt == row.attempt;
        let newest = self.leases.values().find(is_newest);
        let is_elsewhere = self.is_elsewhere(lease.client, lease.folder);
        let is_begun_away = self.is_begun_away(command, lease.folder);
        let is_in_force = match newest {
            _ if lease.attempt == row.attempt => !(is_elsewhere && is_begun_away),
            Some(newest) if Some(lease.client) == row.client => {
                if newest.folder == lease.folder {
                    !(is_elsewhere && is_begun_away)
                } else {
                    self.is_elsewhere(newest.client, newest.folder)
                        && !is_elsewhere
                        && !is_begun_away
                        && self.gap != Some(Gap::CopiesOutbid)
                }
            }
            Some(_) | None => false,
        };
        (is_in_force || self.gap == Some(Gap::NoFence)).then_some(*lease)
    }

    /// Gives back (held, cancel).
    pub fn renew(&mut self, command: Uuid, token: Uuid, lease_ms: i64) -> (bool, bool) {
        let lease = self.fence(command, token);
        let until = self.now + lease_ms;
        match self.rows.get_mut(&command) {
            Some(row) if row.state == State::Leased && lease.is_some() => {
                row.lease_until = Some(until);
                (true, row.cancel_wanted)
            }
            _ => (false, true),
        }
    }

    pub fn begin(
        &mut self,
        command: Uuid,
        token: Uuid,
        folder: Option<Uuid>,
        result: Uuid,
        lease_ms: i64,
    ) -> Begin {
        let lease = self.fence(command, token);
        let is_copy = lease.is_some_and(|lease| self.is_elsewhere(lease.client, folder))
            || self.is_begun_away(command, folder);
        // Whoever is given what another has begun must not be stopped here either, or the gap would not be seen.
        let gaps = [
            Gap::CopiesBegin,
            Gap::BegunGoesToAnybody,
            Gap::GivenAgainToAnybody,
        ];
        let lets = gaps.map(Some).contains(&self.gap);
        if is_copy && !lets {
            return Begin::Lost;
        }
        let (now, begun) = (self.now, self.is_begun(command, None));
        let Some((row, lease)) = self.rows.get_mut(&command).zip(lease) else {
            return Begin::Lost;
        };
        if row.state != State::Leased {
            return Begin::Lost;
        } else if row.cancel_wanted {
            return Begin::Cancel;
        } else if row.expires_at <= now {
            return Begin::Expired;
        }
        row.lease_until = Some(now + lease_ms);
        if !begun {
            let (client, attempt) = (lease.client, row.attempt);
            self.keep(result, command, client, attempt, Kept::Begun);
        }
        if let Some(lease) = self.leases.get_mut(&token) {
            lease.begun_from = folder.or(lease.begun_from);
        }
        Begin::Begun
    }

    /// Whether a result under this token may end the command.
    fn may_speak(&self, row: &Row, token: Uuid) -> bool {
        let Some(given) = self.leases.get(&token).filter(|lease| lease.command == row.id) else {
            return false;
        };
        let is_final = |kept: &ResultRow| kept.command == row.id && matches!(kept.kept, Kept::Final(_));
        let may_still = matches!(row.state, State::Expired | State::Dead | State::Cancelled)
            && !self.results.iter().any(is_final);
        let is_fence = self.fence(row.id, token).is_some();
        let of_client = Some(given.client) == row.client;
        let is_begun_there = |(of, lease): (&Uuid, &LeaseRow)| {
            lease.command == row.id
                && lease.client == given.client
                && (*of == token || lease.folder.is_some() && lease.folder == given.folder)
                && lease.begun_from.is_some()
        };
        match row.state {
            State::Leased => is_fence || of_client && self.leases.iter().any(is_begun_there),
            _ => may_still && (is_fence || of_client),
        }
    }

    /// `status`: a final state, or none for progress.
    pub fn complete(
        &mut self,
        command: Uuid,
        token: Uuid,
        result: Uuid,
        status: Option<State>,
    ) -> Result<Completed, &'static str> {
        let Some(row) = self.rows.get(&command).cloned() else {
            return Err("PT404");
        };
        let is_it = |kept: &&ResultRow| kept.id == result && kept.command == command;
        let before = self.results.iter().find(is_it).map(|kept| kept.kept);
        if before.is_some_and(|kept| kept != Kept::Late) {
            return Ok(Completed::Duplicate);
        }
        let given = self
            .leases
            .get(&token)
            .filter(|lease| lease.command == command)
            .copied();
        let may_speak = self.may_speak(&row, token);
        let says_more =
            status.is_some_and(|state| state != State::Unconfirmed) && self.gap != Some(Gap::CopiesEnd);
        let foreign = says_more && given.is_some_and(|lease| self.is_begun_away(command, lease.folder));
        if may_speak
            && foreign
            && let Some(row) = self.rows.get_mut(&command).filter(|row| !row.state.is_final())
        {
            row.state = State::Dead;
            row.lease_until = None;
        }
        let held = may_speak && !foreign;
        let extra = |kept: &&ResultRow| kept.command == command && !matches!(kept.kept, Kept::Final(_));
        let extra = self.results.iter().filter(extra).count();
        if before.is_some() && (!held || status.is_none()) {
            return Ok(Completed::Duplicate);
        }
        let full = (!held || status.is_none()) && extra >= EXTRA_MAX;
        let Some(lease) = given.filter(|_| held || !full) else {
            return Ok(Completed::Late);
        };
        if full {
            return Err("PT429");
        }
        let kept = match (held, status) {
            (false, _) => Kept::Late,
            (true, None) => Kept::Progress,
            (true, Some(state)) => Kept::Final(state),
        };
        match self
            .results
            .iter_mut()
            .find(|kept| kept.id == result && kept.command == command)
        {
            Some(before) => before.kept = kept,
            None => self.keep(result, command, lease.client, lease.attempt, kept),
        }
        if !held {
            return Ok(Completed::Late);
        }
        if let (Some(state), Some(row)) = (status, self.rows.get_mut(&command)) {
            row.state = state;
            row.lease_until = None;
        }
        Ok(Completed::Recorded)
    }

    fn keep(&mut self, id: Uuid, command: Uuid, client: Uuid, attempt: i32, kept: Kept) {
        let at = self.now;
        self.results.push(ResultRow {
            id,
            command,
            client,
            attempt,
            kept,
            at,
        });
    }

    pub fn cancel(&mut self, command: Uuid) -> Cancel {
        match self.rows.get_mut(&command) {
            Some(row) if row.state == State::Queued => {
                row.state = State::Cancelled;
                row.cancel_wanted = true;
                Cancel::Cancelled
            }
            Some(row) if row.state == State::Leased => {
                row.cancel_wanted = true;
                Cancel::Requested
            }
            _ => Cancel::Over,
        }
    }
}

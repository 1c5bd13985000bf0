//! Taking commands: a doorbell wakes, the poll makes sure, the claim decides. A command is in the journal before
//! anything else is done with it.

use std::time::Duration;

use domain::policy::Decision;
use domain::{Command, OfficeId, ResultId};
use journal::{NewCommand, Phase, Received};
use rand::Rng;
use supabase::{ClaimedCommand, ConnectionState, NO_SUCH_FUNCTION, RestError};
use tokio::time::Instant;
use uuid::Uuid;

use super::finish::End;
use super::lease::{LEASE_S, RENEW_EVERY};
use super::{Event, EventLoop, Stage, Work};

/// Commands taken by one claim.
const CLAIM_MAX: u32 = 10;
/// Commands that are asked for even when everything is taken.
const CLAIM_MIN: u32 = 2;
/// Commands that are taken beyond the free places.
const LINE_AHEAD: usize = 4;
/// Commands that may wait in our line for a session; beyond that they stay in the office for other clients.
const LINE_MAX: usize = 50;
/// Kinds that need no place and free what others wait for: taken also when our line is full, when it is they that can
/// empty it. The database puts them before prompts.
const URGENT_KINDS: [&str; 3] = ["approve", "cancel", "terminate"];
/// Poll without Realtime, and with it (DESIGN section 9); each with up to a fifth of jitter.
const POLL_ALONE: Duration = Duration::from_secs(3);
const POLL_BESIDE_REALTIME: Duration = Duration::from_secs(30);
/// How long a claimed command waits for the journal: well inside its lease. After that the office gives it out again.
const UNWRITTEN_MAX: Duration = Duration::from_secs(LEASE_S as u64 - 15);

impl EventLoop {
    /// How long until the next poll, by the state of the doorbell.
    pub(super) fn poll_interval(&self) -> Duration {
        let interval = match self.connection.0 {
            ConnectionState::Live => POLL_BESIDE_REALTIME,
            ConnectionState::Offline { .. }
            | ConnectionState::Connecting
            | ConnectionState::Joining
            | ConnectionState::Backoff { .. }
            | ConnectionState::Stopped => POLL_ALONE,
        };
        interval.mul_f64(rand::rng().random_range(0.8..=1.0))
    }

    /// Asks for commands; a cause that comes while a claim is under way makes one more.
    pub(super) fn claim(&mut self, cause: &'static str) {
        let Some(data) = &self.office else { return };
        if !self.unwritten.is_empty() || !self.program_looked_for || self.ground.stop.is_cancelled() {
            return;
        }
        if self.claiming || self.is_renewing() {
            self.claim_wanted = true;
            return;
        }
        tracing::debug!(cause, "claiming");
        let (rest, office, client) = (self.ground.rest.clone(), data.office.id, data.client);
        let limit = self.claim_limit();
        let full = self.line_is_full();
        self.claiming = true;
        self.start(async move {
            let result = if full {
                rest.claim_commands_of(&URGENT_KINDS, office, client, CLAIM_MAX, LEASE_S)
                    .await
            } else {
                rest.claim_commands(office, client, limit, LEASE_S).await
            };
            Event::Claimed { office, result }
        });
    }

    fn line_is_full(&self) -> bool {
        self.line.len() >= LINE_MAX
    }

    /// As many as there are places, and a few for the line: the rest stays in the office for other clients. Never fewer
    /// than [`CLAIM_MIN`], so that a cancel gets through a full house.
    fn claim_limit(&self) -> u32 {
        let open = self.sessions.values().filter(|live| !live.state.is_over());
        let busy = open.filter(|live| live.holder.is_some()).count();
        let places = self.sessions_max().saturating_sub(busy) + LINE_AHEAD;
        let limit = places.saturating_sub(self.line.len());
        u32::try_from(limit)
            .unwrap_or(CLAIM_MAX)
            .clamp(CLAIM_MIN, CLAIM_MAX)
    }

    pub(super) fn claimed(&mut self, office: OfficeId, result: Result<Vec<ClaimedCommand>, RestError>) {
        self.claiming = false;
        let again = std::mem::take(&mut self.claim_wanted);
        if self.office.as_ref().map(|data| data.office.id) != Some(office) {
            // Another office was picked meanwhile: what this claim holds lapses, and is given out again there.
            self.claim("another office was picked");
            return;
        }
        match result {
            Ok(rows) => {
                self.solved("office_unreachable");
                self.solved("office");
                self.solved("office_claims");
                tracing::debug!(commands = rows.len(), "claimed");
                // A full batch means that there may be more.
                let more = rows.len() >= CLAIM_MIN as usize && self.line.len() < LINE_AHEAD
                    || rows.len() >= CLAIM_MAX as usize;
                for row in rows {
                    self.receive(row);
                }
                self.stop_lost_work();
                if again || more {
                    self.claim("more");
                }
            }
            Err(error) => {
                tracing::warn!(%office, %error, "commands could not be claimed");
                if matches!(&error, RestError::NotFound { code, .. } if code == NO_SUCH_FUNCTION) {
                    return self.cannot_claim();
                }
                if matches!(error, RestError::NotFound { .. }) {
                    // The office does not know this client (any more): joining makes it known.
                    self.join();
                }
                self.trouble_with_rest(&error);
            }
        }
    }

    /// The database is from before `claim_commands` could be asked for some kinds only. It is tried again with every poll.
    fn cannot_claim(&mut self) {
        let message = if self.line_is_full() {
            "the line is full, and the office's database cannot give out answers and cancels alone: they wait until a prompt has ended"
        } else {
            "the office's database does not know `claim_commands` as this program calls it"
        };
        let hint = "Apply the files of migrations/supabase to the project anew, from 0003 on.";
        self.problem("office_claims", message, hint);
    }

    /// Writes one claimed command down and begins it; or reports again what was done before.
    fn receive(&mut self, row: ClaimedCommand) {
        let id = row.id;
        if let Some(work) = self.work.get_mut(&id) {
            // Our own lease ran out and the same command came back to us: go on under the new token.
            work.row.lease_token = row.lease_token;
            work.lease_lost = false;
            work.renewing = false;
            work.renew_at = Instant::now() + RENEW_EVERY;
        }
        let note = NewCommand {
            id,
            office: row.office_id,
            agent: row.agent_id,
            session: row.session_id,
            kind: row.kind.clone(),
            args: row.args.clone(),
            attempt: i64::from(row.attempt),
            lease_token: row.lease_token,
        };
        match self.ground.journal.receive(&note, self.now()) {
            Err(error) => {
                self.problem(
                    "journal",
                    error.to_string(),
                    "No new command is begun until the journal can be written.",
                );
                self.unwritten.push((row, Instant::now() + UNWRITTEN_MAX));
                return;
            }
            Ok(_) if self.work.contains_key(&id) => return,
            Ok(
                Received::New
                | Received::Known {
                    phase: Phase::Received,
                },
            ) => {}
            Ok(Received::Known {
                phase: Phase::Started,
            }) => {
                self.solved("journal");
                self.end_unknown(id, row);
                return;
            }
            Ok(Received::Known {
                phase: Phase::Finished,
            }) => {
                if let Err(error) = self
                    .ground
                    .journal
                    .report_again(id, ResultId(Uuid::new_v4()), self.now())
                {
                    self.problem("journal", error.to_string(), "");
                }
                self.outbox_bell.notify_one();
                return;
            }
        }
        self.solved("journal");
        tracing::info!(command = %id, kind = %row.kind, attempt = row.attempt, "took a command");
        self.begin(row);
    }

    /// Tries the journal again for what it did not take.
    pub(super) fn receive_unwritten(&mut self, now: Instant) {
        for (row, until) in std::mem::take(&mut self.unwritten) {
            if now >= until {
                tracing::warn!(command = %row.id, "the journal took it too late; the office will give it out again");
            } else {
                self.receive(row);
                if let Some((_, deadline)) = self.unwritten.last_mut() {
                    *deadline = (*deadline).min(until);
                }
            }
        }
    }

    /// Parses, asks the policy, and carries it out.
    fn begin(&mut self, row: ClaimedCommand) {
        let id = row.id;
        let parsed = Command::parse(&row.kind, &row.args);
        let decision = parsed
            .as_ref()
            .ok()
            .map(|command| self.ground.settings.policy.decide(row.office_id, command));
        let cancel_wanted = row.cancel_requested_at.is_some();
        let command = parsed.as_ref().cloned().unwrap_or(Command::ListSessions);
        let work = Work {
            row,
            command,
            stage: Stage::InLine,
            started_at: None,
            renew_at: Instant::now() + RENEW_EVERY,
            renewing: false,
            cancel_wanted,
            cancelled_by: None,
            lease_lost: false,
            start_limit: None,
            passed_over: 0,
            waits_because: None,
        };
        self.work.insert(id, work);
        match (parsed, decision) {
            (Err(fault), _) => self.end(id, End::failed("invalid", fault.to_string())),
            (Ok(_), Some(Decision::Deny { reason })) => self.end(id, End::failed("refused", reason)),
            (Ok(_), _) if cancel_wanted => self.end(id, End::cancelled("it was cancelled before it began")),
            (Ok(_), _) => self.carry_out(id),
        }
    }

    /// A command whose work had begun when an earlier core ended: whatever it did cannot be known any more.
    fn end_unknown(&mut self, id: domain::CommandId, row: ClaimedCommand) {
        let command = Command::parse(&row.kind, &row.args).unwrap_or(Command::ListSessions);
        let work = Work {
            row,
            command,
            stage: Stage::InLine,
            started_at: None,
            renew_at: Instant::now() + RENEW_EVERY,
            renewing: false,
            cancel_wanted: false,
            cancelled_by: None,
            lease_lost: false,
            start_limit: None,
            passed_over: 0,
            waits_because: None,
        };
        self.work.insert(id, work);
        self.end(id, End::unknown());
    }
}

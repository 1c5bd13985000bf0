//! Taking commands: a doorbell wakes, the poll makes sure, the claim decides. A command is in the journal before
//! anything else is done with it.

use std::time::Duration;

use domain::{Command, CommandId, OfficeId, ResultId};
use journal::NewCommand;
use rand::Rng;
use supabase::{Claim, ClaimedCommand, ConnectionState, NO_SUCH_FUNCTION, RestError};
use uuid::Uuid;

use super::finish::End;
use super::{Event, EventLoop, Work};
use crate::recovery::claimed_value;
use crate::rules::claims::{KNOWN_MAX, Room, URGENT_KINDS, Wanted, known};
use crate::rules::desk::Asking;
use crate::rules::intake::{Intake, Opening, opening};

/// Poll without Realtime, and with it; each with up to a fifth of jitter.
const POLL_ALONE: Duration = Duration::from_secs(3);
const POLL_BESIDE_REALTIME: Duration = Duration::from_secs(30);
/// What the office's database says to a claim of a client that works from another data folder by now.
const CLIENT_IS_ELSEWHERE: &str = "PT409";
/// Why commands are claimed when nothing else is a reason.
pub(super) const POLL: &str = "poll";

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

    /// Asks for commands; a cause that comes while a claim is under way, or may not be sent, makes one more later.
    pub(super) fn claim(&mut self, cause: &'static str) {
        let ready = self.may_claim();
        let (room, now) = (self.claim_room(), self.moment());
        let Some(data) = &self.office else { return };
        let Some(Asking { wanted, lease_s }) = self.desk.wish_claim(ready, room, now) else {
            return;
        };
        tracing::debug!(cause, ?wanted, lease_s, "claiming");
        let (rest, office, client) = (self.ground.rest.clone(), data.office.id, data.client);
        let (known, folder) = (self.known(), self.folder());
        self.start(async move {
            let (limit, kinds) = match wanted {
                Wanted::Urgent { limit } => (limit, Some(URGENT_KINDS.as_slice())),
                Wanted::Any { limit } => (limit, None),
            };
            let claim = Claim {
                office,
                client,
                limit,
                lease_s,
                kinds,
                known: known.as_deref(),
                folder,
            };
            let result = rest.claim(&claim).await;
            Event::Claimed {
                office,
                cause,
                result,
            }
        });
    }

    /// All that we have, so that the office gives again what it took for us in an answer that we never heard. Nothing
    /// where that cannot be told.
    pub(super) fn known(&self) -> Option<Vec<CommandId>> {
        if self.claims_plainly {
            return None;
        }
        let account = self.served();
        match self.ground.journal.unanswered(Some(&account), KNOWN_MAX + 1) {
            Ok(unanswered) => known(self.desk.held(), unanswered.into_iter()),
            Err(error) => {
                tracing::warn!(%error, "which results wait for an answer cannot be read");
                None
            }
        }
    }

    /// The poll has found what no doorbell had told: that doorbells still come is proven anew.
    fn doubt_doorbell(&self) {
        if let Some((handle, ..)) = &self.realtime
            && self.connection.0 == ConnectionState::Live
        {
            handle.doubt();
        }
    }

    /// A wish that had to wait is sent when it may be.
    pub(super) fn claim_what_was_wished(&mut self) {
        if self.may_claim() && self.desk.claim_is_due(self.moment()) {
            self.claim("it had to wait");
        }
    }

    fn may_claim(&self) -> bool {
        // As somebody else, what is taken could be neither kept nor reported.
        self.program_looked_for && !self.takes_nothing_new() && !self.is_somebody_elses()
    }

    fn claim_room(&self) -> Room {
        let open = self.sessions.values().filter(|live| !live.state.is_over());
        let busy = open.filter(|live| live.holder.is_some()).count();
        Room {
            places: self.sessions_max().saturating_sub(busy),
            line: self.line.len(),
        }
    }

    pub(super) fn claimed(
        &mut self,
        office: OfficeId,
        cause: &'static str,
        result: Result<Vec<ClaimedCommand>, RestError>,
    ) {
        let now = self.moment();
        if self.office.as_ref().map(|data| data.office.id) != Some(office) {
            // Another office was picked meanwhile: what this claim holds lapses, and is given out again there.
            self.desk.claimed(Vec::new(), now);
            self.claim("another office was picked");
            return;
        }
        if self.is_turning() {
            // Nobody would be there for it. It is written down nowhere, so that the office gives it again.
            self.desk.claimed(Vec::new(), now);
            return;
        }
        match result {
            Ok(rows) => {
                fail::fail_point!("claimed");
                self.solved("office_unreachable");
                self.solved("office");
                if !self.claims_plainly {
                    self.solved("office_claims");
                }
                tracing::debug!(commands = rows.len(), "claimed");
                if cause == POLL && !rows.is_empty() {
                    self.doubt_doorbell();
                }
                let more = self.claim_room().may_be_more(rows.len());
                self.desk.claimed(rows, now);
                self.write_down_claimed();
                self.stop_lost_work();
                if more {
                    self.claim("more");
                } else {
                    self.claim_what_was_wished();
                }
            }
            Err(error) => {
                self.desk.claimed(Vec::new(), now);
                tracing::warn!(%office, %error, "commands could not be claimed");
                if matches!(&error, RestError::NotFound { code, .. } if code == NO_SUCH_FUNCTION) {
                    return self.cannot_claim();
                }
                if matches!(&error, RestError::Conflict { code, .. } if code == CLIENT_IS_ELSEWHERE) {
                    return self.another_core_is_this_client();
                }
                if matches!(error, RestError::NotFound { .. }) {
                    // The office does not know this client (any more): joining makes it known.
                    self.join();
                }
                self.trouble_with_rest(&error);
            }
        }
    }

    /// The database is of an earlier version. From now on it is told neither what is known nor from which folder we work:
    /// so an earlier one takes it, too. Where it does not, it is tried again with every poll.
    fn cannot_claim(&mut self) {
        let message = "the office's database does not know `claim_commands` as this program calls it";
        let hint = "Apply the files of migrations/supabase to the project anew, all of them.";
        self.problem("office_claims", message, hint);
        if !self.claims_plainly {
            self.claims_plainly = true;
            self.claim("an earlier database");
        }
    }

    /// Writes down what was claimed, in the office's order, and does with each what the rules say. What the journal does
    /// not take is tried again at the next tick; nothing behind it is begun before.
    pub(super) fn write_down_claimed(&mut self) {
        let (folder, account) = (self.ground.identity.folder_key(), self.served());
        while let Some(row) = self.desk.next_unwritten(self.moment()) {
            let note = NewCommand {
                id: row.id,
                office: row.office_id,
                agent: row.agent_id,
                session: row.session_id,
                kind: row.kind.clone(),
                args: row.args.clone(),
                attempt: i64::from(row.attempt),
                lease_token: row.lease_token,
                claimed: claimed_value(row, folder, &account),
            };
            let begun = row.begun;
            let (journal, now) = (&self.ground.journal, self.now());
            let received = match begun {
                true => journal.receive_begun(&note, &End::unknown().result(), now),
                false => journal.receive(&note, now),
            };
            let received = match received {
                Ok(received) => received,
                Err(error) => {
                    let hint = "No new command is begun until the journal can be written.";
                    return self.problem("journal", error.to_string(), hint);
                }
            };
            fail::fail_point!("journalled");
            self.solved("journal");
            if let Some((row, intake)) = self.desk.written(received) {
                self.take(row, intake);
            }
        }
    }

    fn take(&mut self, row: ClaimedCommand, intake: Intake) {
        let id = row.id;
        match intake {
            Intake::Begin => {
                tracing::info!(command = %id, kind = %row.kind, attempt = row.attempt, "took a command");
                self.open_command(row);
            }
            Intake::GoOn => {
                if let Some(work) = self.work.get_mut(&id) {
                    work.row.lease_token = row.lease_token;
                    work.row.attempt = row.attempt;
                }
                self.proceed(id);
            }
            Intake::Unknown => {
                let command = Command::parse(&row.kind, &row.args).unwrap_or(Command::ListSessions);
                self.work.insert(id, Work::new(row, command));
                self.end(id, End::unknown());
            }
            Intake::ReportAgain => self.report_again(id),
        }
    }

    fn report_again(&mut self, id: CommandId) {
        let result = ResultId(Uuid::new_v4());
        if let Err(error) = self.ground.journal.report_again(id, result, self.now()) {
            self.problem("journal", error.to_string(), "");
        }
        self.outbox_bell.notify_one();
    }

    /// Parses, asks the policy, and carries it out.
    pub(super) fn open_command(&mut self, row: ClaimedCommand) {
        let (id, office) = (row.id, row.office_id);
        let policy = &self.ground.settings.policy;
        let parsed = Command::parse(&row.kind, &row.args);
        let cancel_wanted = row.cancel_requested_at.is_some();
        let opening = opening(parsed, |command| policy.decide(office, command), cancel_wanted);
        let command = match &opening {
            Opening::CarryOut(command) => command.clone(),
            // It is not looked at any more.
            Opening::Invalid(_) | Opening::Refused(_) | Opening::Cancelled => Command::ListSessions,
        };
        self.work.insert(id, Work::new(row, command));
        match opening {
            Opening::Invalid(why) => self.end(id, End::failed("invalid", why)),
            Opening::Refused(why) => self.end(id, End::failed("refused", why)),
            Opening::Cancelled => self.end(id, End::cancelled("it was cancelled before it began")),
            // The journal may have taken it long after the office gave it.
            Opening::CarryOut(_) if self.desk.is_expired(id, self.moment()) => self.end_expired(id),
            Opening::CarryOut(_) => self.carry_out(id),
        }
    }
}

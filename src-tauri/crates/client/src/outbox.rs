//! Brings results to the office until it has acknowledged them, for ever, whatever the network does.
//!
//! Reads the journal only; the loop writes results there and rings. An answer of any kind ends the reporting of a
//! result; silence never does. Sends only what is the present account's: a result of another one waits for it.

use std::sync::Arc;
use std::time::Duration;

use domain::{Clock, CommandId};
use journal::{Acknowledgement, Journal, OutboxRow, ResultStatus};
use rand::Rng;
use supabase::{Auth, CompleteArgs, FinalStatus, Rest, RestError};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::event_loop::Event;
use crate::rules::report::{Next, RETRY_MS_MAX, RETRY_MS_MIN, Sent, after};

/// Results read from the journal at once.
const BATCH: usize = 20;
/// Pause after the journal did not take a note.
const JOURNAL_PAUSE_MS: u64 = 5_000;
/// How soon it is looked again whether the account whose results these are is signed in.
const SIGN_IN_PAUSE: Duration = Duration::from_secs(5);
/// How long the last pass of a stopping core may take.
const LAST_PASS: Duration = Duration::from_secs(5);

/// The one sender of results.
pub(crate) struct Outbox {
    pub journal: Arc<Journal>,
    pub rest: Rest,
    pub auth: Auth,
    /// Whose results are sent: the address, and as the journal has it.
    pub email: String,
    pub account: String,
    pub clock: Arc<dyn Clock>,
    pub bell: Arc<Notify>,
    pub events: mpsc::Sender<Event>,
}

impl Outbox {
    /// Sends until `stop` fires, then makes one last pass.
    pub(crate) async fn run(self, stop: CancellationToken) {
        while let Some(pause) = stop.run_until_cancelled(self.pass()).await {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.bell.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        if tokio::time::timeout(LAST_PASS, self.pass()).await.is_err() {
            tracing::warn!(
                "the office did not take the last results in time; they are sent at the next start"
            );
        }
    }

    /// Sends what is due; returns how long nothing will be. Dropped in the middle it loses nothing: what was sent but
    /// not noted is sent again under the same id.
    async fn pass(&self) -> Duration {
        loop {
            if !self.speaks_as_itself() {
                return SIGN_IN_PAUSE;
            }
            let due = match self.journal.due(Some(&self.account), self.clock.now(), BATCH) {
                Ok(due) => due,
                Err(error) => {
                    tracing::error!(%error, "results cannot be read from the journal");
                    return Duration::from_millis(RETRY_MS_MAX);
                }
            };
            if due.is_empty() {
                break;
            }
            for row in due {
                if let Err(error) = self.send(&row).await {
                    // The row is still due: without a pause it would be sent again and again.
                    tracing::error!(command = %row.command, %error, "the journal did not take a note on a result");
                    return Duration::from_millis(JOURNAL_PAUSE_MS);
                }
            }
        }
        match self.journal.next_due_at(Some(&self.account)) {
            Ok(Some(at)) => Duration::from_millis(at.ms_since(self.clock.now()).clamp(10, RETRY_MS_MAX)),
            Ok(None) | Err(_) => Duration::from_millis(RETRY_MS_MAX),
        }
    }

    /// Sends one result and notes what came of it. An error is the journal's.
    async fn send(&self, row: &OutboxRow) -> Result<(), journal::JournalError> {
        let share = rand::rng().random_range(0.5..=1.0);
        fail::fail_point!("report-before");
        let mut answer = self.rest.complete_command(&arguments(row)).await;
        fail::fail_point!("report-after");
        let mut next = after(&answer, Sent::Whole, row.tries, share);
        if !self.speaks_as_itself() {
            // Another sign-in came in between: what was answered was perhaps answered to somebody else.
            return self.postpone(row, RETRY_MS_MIN, "the account is not signed in any more");
        }
        if next == Next::SendWithoutContent
            && let Err(error) = &answer
        {
            tracing::error!(command = %row.command, %error, "the office cannot take what this result holds; it gets the rest");
            answer = self.rest.complete_command(&without_content(row, error)).await;
            next = after(&answer, Sent::WithoutContent, row.tries, share);
        }
        let said = answer.err().map(|error| error.to_string()).unwrap_or_default();
        match next {
            Next::Acknowledge(how) => {
                if how == Acknowledgement::Rejected {
                    tracing::error!(command = %row.command, said, "the office refuses this result");
                }
                self.acknowledge(row, how).await
            }
            Next::SendWithoutContent => self.postpone(row, RETRY_MS_MAX, &said),
            Next::Postpone { pause_ms } => self.postpone(row, pause_ms, &said),
        }
    }

    /// Whether what is sent now is sent as the account whose results these are.
    fn speaks_as_itself(&self) -> bool {
        let email = self.auth.email();
        email.is_some_and(|email| email.eq_ignore_ascii_case(&self.email))
    }

    fn postpone(&self, row: &OutboxRow, pause_ms: u64, why: &str) -> Result<(), journal::JournalError> {
        tracing::warn!(command = %row.command, why, pause_ms, "a result could not be sent");
        let at = self
            .clock
            .now()
            .plus_ms(i64::try_from(pause_ms).unwrap_or(i64::MAX));
        self.journal.postpone(row.result.id, at, why)
    }

    async fn acknowledge(&self, row: &OutboxRow, how: Acknowledgement) -> Result<(), journal::JournalError> {
        self.journal.acknowledge(row.result.id, how, self.clock.now())?;
        // The loop drops the command from its view; if it has stopped, nobody looks any more.
        let _ = self
            .events
            .send(Event::Reported {
                command: CommandId(row.command.0),
                how,
            })
            .await;
        Ok(())
    }
}

fn arguments(row: &OutboxRow) -> CompleteArgs {
    let result = &row.result;
    CompleteArgs {
        command: row.command,
        token: row.lease_token,
        result: result.id,
        status: match result.status {
            ResultStatus::Succeeded => FinalStatus::Succeeded,
            ResultStatus::Unconfirmed => FinalStatus::Unconfirmed,
            ResultStatus::Failed => FinalStatus::Failed,
            ResultStatus::Cancelled => FinalStatus::Cancelled,
        },
        outcome: result.outcome.clone(),
        output: result.output.clone(),
        error: result.error.clone(),
        evidence: result.evidence.clone(),
        timings: result.timings.clone(),
    }
}

/// The same end without what it holds, and with the reason.
fn without_content(row: &OutboxRow, error: &RestError) -> CompleteArgs {
    CompleteArgs {
        output: None,
        error: Some(serde_json::json!({
            "class": "not_reportable",
            "message": format!("the office could not take what this result holds: {error}"),
        })),
        evidence: None,
        ..arguments(row)
    }
}

#[cfg(test)]
pub(crate) fn tokens_of(email: &str) -> supabase::Tokens {
    supabase::Tokens {
        access_token: "a".to_owned(),
        refresh_token: "r".to_owned(),
        refresh_at: domain::Timestamp(i64::MAX),
        expires_at: domain::Timestamp(i64::MAX),
        user: domain::UserId(uuid::Uuid::nil()),
        email: email.to_owned(),
        project: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use domain::{OfficeId, ResultId};
    use journal::{ACCOUNT, Finish, NewCommand, NewResult};
    use serde_json::json;
    use supabase::{MemoryTokenStore, Project};
    use uuid::Uuid;

    use super::*;
    use crate::clock::SystemClock;

    fn waits(journal: &Journal, number: u128, account: &str) {
        let command = NewCommand {
            id: CommandId(Uuid::from_u128(number)),
            office: OfficeId(Uuid::nil()),
            agent: None,
            session: None,
            kind: "list_sessions".to_owned(),
            args: json!({}),
            attempt: 1,
            lease_token: Uuid::nil(),
            claimed: json!({ ACCOUNT: account }),
        };
        let now = SystemClock.now();
        journal.receive(&command, now).unwrap();
        let result = NewResult {
            id: ResultId(Uuid::from_u128(number)),
            status: ResultStatus::Succeeded,
            outcome: None,
            output: None,
            error: None,
            evidence: None,
            timings: None,
        };
        let finish = Finish {
            command: command.id,
            result,
            turn: None,
        };
        journal.finish(&finish, now).unwrap();
    }

    /// A result of `a` and one of `b` wait; how long the outbox of `a` rests after a pass in which `signed_in` is signed
    /// in, and how often each was sent in vain: nobody listens.
    async fn pass(signed_in: Option<&str>) -> (Duration, Vec<(String, u32)>) {
        let dir = tempfile::tempdir().unwrap();
        let journal = Arc::new(Journal::open(&dir.path().join("journal.sqlite")).unwrap());
        waits(&journal, 1, "at a");
        waits(&journal, 2, "at b");
        let store = signed_in.map_or_else(MemoryTokenStore::default, |email| {
            MemoryTokenStore::with(tokens_of(email))
        });
        let project = Project::new("http://127.0.0.1:9", "sb_publishable_test").unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let auth = Auth::new(project.clone(), clock.clone(), Arc::new(store)).unwrap();
        let outbox = Outbox {
            journal: journal.clone(),
            rest: Rest::new(project, auth.clone()),
            auth,
            email: "a@b.c".to_owned(),
            account: "at a".to_owned(),
            clock,
            bell: Arc::default(),
            events: mpsc::channel(1).0,
        };
        let rest = outbox.pass().await;
        let later = SystemClock.now().plus_ms(RETRY_MS_MAX as i64);
        let all = journal.due(None, later, 9).unwrap();
        let mut tries: Vec<_> = all
            .into_iter()
            .map(|row| (row.command.to_string(), row.tries))
            .collect();
        tries.sort_unstable();
        (rest, tries)
    }

    #[tokio::test]
    async fn only_the_results_of_the_account_that_is_served_are_sent_and_only_as_that_one() {
        let tries = |tries: Vec<(String, u32)>| tries.into_iter().map(|(_, tries)| tries).collect::<Vec<_>>();
        let (rest, sent) = pass(Some("A@b.c")).await;
        assert_eq!(tries(sent), [1, 0]);
        assert!(
            rest >= Duration::from_millis(RETRY_MS_MIN / 4),
            "{rest:?}: not again and again"
        );
        for signed_in in [None, Some("b@b.c")] {
            let (rest, sent) = pass(signed_in).await;
            assert_eq!(tries(sent), [0, 0], "{signed_in:?}");
            assert_eq!(rest, SIGN_IN_PAUSE);
        }
    }
}

//! Brings results to the office until it has acknowledged them, for ever, whatever the network does.
//!
//! Reads the journal only; the loop writes results there and rings. An answer of any kind ends the reporting of a
//! result; silence never does.

use std::sync::Arc;
use std::time::Duration;

use domain::{Clock, CommandId};
use journal::{Acknowledgement, Journal, OutboxRow, ResultStatus};
use rand::Rng;
use supabase::{CompleteArgs, FinalStatus, Rest, RestError};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::event_loop::Event;
use crate::rules::report::{Next, RETRY_MS_MAX, Sent, after};

/// Results read from the journal at once.
const BATCH: usize = 20;
/// Pause after the journal did not take a note.
const JOURNAL_PAUSE_MS: u64 = 5_000;
/// How long the last pass of a stopping core may take.
const LAST_PASS: Duration = Duration::from_secs(5);

/// The one sender of results.
pub(crate) struct Outbox {
    pub journal: Arc<Journal>,
    pub rest: Rest,
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
            let due = match self.journal.due(self.clock.now(), BATCH) {
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
        match self.journal.next_due_at() {
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

//! Brings results to the office until it has acknowledged them, for ever, whatever the network does.
//!
//! Reads the journal only; the loop writes results there and rings. An answer of any kind ends the reporting of a
//! result; silence never does.

use std::sync::Arc;
use std::time::Duration;

use domain::{Clock, CommandId};
use journal::{Acknowledgement, Journal, OutboxRow, ResultStatus};
use rand::Rng;
use supabase::{CompleteArgs, Completion, FinalStatus, Rest, RestError};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::event_loop::Event;

/// First pause after a failed report; doubled up to [`RETRY_MS_MAX`] (DESIGN section 9).
const RETRY_MS_MIN: u64 = 1_000;
/// Longest pause between two tries.
const RETRY_MS_MAX: u64 = 60_000;
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
        let mut sent = self.rest.complete_command(&arguments(row)).await;
        if let Err(error) = &sent
            && is_about_content(error)
        {
            tracing::error!(command = %row.command, %error, "the office cannot take what this result holds; it gets the rest");
            sent = self.rest.complete_command(&without_content(row, error)).await;
        }
        match sent {
            Ok(completion) => self.acknowledge(row, acknowledgement(completion)).await,
            Err(error) if is_final(&error) => {
                tracing::error!(command = %row.command, %error, "the office refuses this result");
                self.acknowledge(row, Acknowledgement::Rejected).await
            }
            Err(error) => {
                let pause = pause_ms(row.tries, rand::rng().random_range(0.5..=1.0));
                tracing::warn!(command = %row.command, %error, pause_ms = pause, "a result could not be sent");
                let at = self.clock.now().plus_ms(i64::try_from(pause).unwrap_or(i64::MAX));
                self.journal.postpone(row.result.id, at, &error.to_string())
            }
        }
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

/// The database refused the values themselves (SQLSTATE classes 22 and 23: data, constraints): too large, or with
/// characters it does not take. Sending them again would not help.
fn is_about_content(error: &RestError) -> bool {
    match error {
        RestError::Rejected { code, .. } => code.starts_with("22") || code.starts_with("23"),
        _ => false,
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

fn acknowledgement(completion: Completion) -> Acknowledgement {
    match completion {
        Completion::Recorded => Acknowledgement::Recorded,
        Completion::Duplicate => Acknowledgement::Duplicate,
        Completion::Late => Acknowledgement::Late,
    }
}

/// The office's word that trying again would not change. A lost sign-in is not: the result waits for the next one.
fn is_final(error: &RestError) -> bool {
    match error {
        RestError::NotFound { code, .. } => code.starts_with("PT"),
        RestError::Conflict { .. } => true,
        RestError::Rejected { status, .. } => *status == 422 || *status == 413,
        RestError::Unauthorized { .. }
        | RestError::Forbidden { .. }
        | RestError::Unreachable { .. }
        | RestError::Malformed { .. } => false,
    }
}

/// Doubling with jitter: `share` of the full pause, between a half and the whole.
fn pause_ms(tries: u32, share: f64) -> u64 {
    let full = RETRY_MS_MIN.saturating_mul(1 << tries.min(16)).min(RETRY_MS_MAX);
    (full as f64 * share) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_to_a_minute_and_no_further() {
        let pauses: Vec<u64> = [0, 1, 3, 6, 60].map(|tries| pause_ms(tries, 1.0)).to_vec();
        assert_eq!(pauses, [1_000, 2_000, 8_000, 60_000, 60_000]);
        assert_eq!(pause_ms(0, 0.5), 500);
    }

    #[test]
    fn only_the_offices_own_no_ends_the_reporting() {
        let attempted = || "x".to_owned();
        let gone = RestError::NotFound {
            attempted: attempted(),
            code: "PT404".into(),
            message: String::new(),
        };
        let unmigrated = RestError::NotFound {
            attempted: attempted(),
            code: "PGRST202".into(),
            message: String::new(),
        };
        let away = RestError::Unreachable {
            attempted: attempted(),
            reason: String::new(),
            retry_after: None,
        };
        let signed_out = RestError::Unauthorized {
            attempted: attempted(),
            reason: String::new(),
        };
        assert!(is_final(&gone));
        assert!(!is_final(&unmigrated) && !is_final(&away) && !is_final(&signed_out));
    }
}

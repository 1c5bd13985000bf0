//! The end of a command: result and turn into the journal in one transaction, then the bell for the outbox. The slot
//! is free from here on, whatever the network does.

use domain::evidence::Evidence;
use domain::turn::TurnOutcome;
use domain::{CommandId, ResultId};
use journal::{Acknowledgement, Finish, Finished, NewResult, ResultStatus, TurnEnd};
use serde_json::{Value, json};
use session::TurnReport;
use uuid::Uuid;

use super::{EventLoop, Stage};
use crate::view::CommandStatus;

/// How a command ended; becomes its result row.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub status: ResultStatus,
    pub outcome: &'static str,
    pub output: Option<Value>,
    pub error: Option<Value>,
    pub evidence: Option<Evidence>,
    pub timings: Option<Value>,
    pub turn: Option<TurnEnd>,
}

/// What windows show of an end until the office's own row is read.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    pub status: CommandStatus,
    pub outcome: String,
    pub final_message: Option<String>,
    pub reason: Option<String>,
    pub class: Option<String>,
    pub evidence: Option<Evidence>,
    pub acknowledged: bool,
}

impl End {
    /// A command without a turn did what it was told.
    pub fn ok(output: Value) -> End {
        End {
            output: Some(output),
            ..End::bare(ResultStatus::Succeeded, "ok")
        }
    }

    /// It was not carried out. `class` is a stable word for programs, `reason` is for people.
    pub fn failed(class: &str, reason: impl Into<String>) -> End {
        let error = json!({ "class": class, "message": reason.into() });
        End {
            error: Some(error),
            ..End::bare(ResultStatus::Failed, "failed")
        }
    }

    /// It was stopped on request.
    pub fn cancelled(reason: &str) -> End {
        End {
            error: Some(json!({ "class": "cancelled", "message": reason })),
            ..End::bare(ResultStatus::Cancelled, "cancelled")
        }
    }

    /// Its work began, and what came of it cannot be known.
    pub fn unknown() -> End {
        let message = "SEMO Office ended on that workstation while this was being carried out; whether it took effect \
                       is not known, and it was not done again";
        End::unknown_because(message)
    }

    /// The same, for another reason than an end of the core.
    pub fn unknown_because(reason: impl Into<String>) -> End {
        End {
            error: Some(json!({ "class": "unknown", "message": reason.into() })),
            ..End::bare(ResultStatus::Unconfirmed, "unconfirmed")
        }
    }

    /// A turn ended.
    pub fn of_turn(report: TurnReport, session: domain::SessionId) -> End {
        let (status, outcome, error) = match &report.outcome {
            TurnOutcome::Done => (ResultStatus::Succeeded, "done", None),
            TurnOutcome::Unconfirmed { why } => (
                ResultStatus::Unconfirmed,
                "unconfirmed",
                Some(json!({ "class": "unconfirmed", "message": why })),
            ),
            TurnOutcome::Failed { class, detail, .. } => (
                ResultStatus::Failed,
                "failed",
                Some(json!({ "class": class, "message": detail })),
            ),
            TurnOutcome::Cancelled => (
                ResultStatus::Cancelled,
                "cancelled",
                Some(
                    json!({ "class": "cancelled", "message": "the turn was interrupted and is proven stopped" }),
                ),
            ),
        };
        End {
            output: Some(json!({ "final_message": report.final_message, "session_id": session })),
            error,
            timings: serde_json::to_value(report.timings).ok(),
            turn: Some(TurnEnd {
                turn: report.turn,
                outcome: report.outcome,
                rule: report.evidence.rule.clone(),
            }),
            evidence: Some(report.evidence),
            ..End::bare(status, outcome)
        }
    }

    fn bare(status: ResultStatus, outcome: &'static str) -> End {
        End {
            status,
            outcome,
            output: None,
            error: None,
            evidence: None,
            timings: None,
            turn: None,
        }
    }

    /// The row for the outbox, under an id of its own.
    pub fn result(&self) -> NewResult {
        NewResult {
            id: ResultId(Uuid::new_v4()),
            status: self.status,
            outcome: Some(self.outcome.to_owned()),
            output: self.output.clone().map(without_nul),
            error: self.error.clone().map(without_nul),
            evidence: self
                .evidence
                .as_ref()
                .and_then(|evidence| serde_json::to_value(evidence).ok())
                .map(without_nul),
            timings: self.timings.clone(),
        }
    }

    /// Its reason for people, where it has one.
    pub fn reason(&self) -> Option<String> {
        let message = self.error.as_ref()?.get("message")?;
        message.as_str().map(str::to_owned)
    }

    fn ending(&self) -> Ending {
        let text = |value: &Option<Value>, key: &str| {
            value
                .as_ref()
                .and_then(|value| value.get(key))
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        Ending {
            status: match self.status {
                ResultStatus::Succeeded => CommandStatus::Succeeded,
                ResultStatus::Unconfirmed => CommandStatus::Unconfirmed,
                ResultStatus::Failed => CommandStatus::Failed,
                ResultStatus::Cancelled => CommandStatus::Cancelled,
            },
            outcome: self.outcome.to_owned(),
            final_message: text(&self.output, "final_message"),
            reason: text(&self.error, "message"),
            class: text(&self.error, "class"),
            evidence: self.evidence.clone(),
            acknowledged: false,
        }
    }
}

/// The database's JSON takes every character but NUL.
pub(super) fn without_nul(value: Value) -> Value {
    match value {
        Value::String(text) if text.contains('\0') => Value::String(text.replace('\0', "\u{fffd}")),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nul).collect()),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, without_nul(value)))
            .collect(),
        other => other,
    }
}

impl EventLoop {
    /// Ends a command. Its slot is free at once.
    pub(super) fn end(&mut self, id: CommandId, end: End) {
        let Some(work) = self.work.get_mut(&id) else {
            return;
        };
        if work.stage == Stage::Ended {
            return;
        }
        tracing::info!(command = %id, outcome = end.outcome, "a command ended");
        let session = work.stage.session();
        work.stage = Stage::Ended;
        self.leftovers.forget(id);
        self.line.retain(|waiting| *waiting != id);
        for live in self.sessions.values_mut().filter(|live| live.holder == Some(id)) {
            live.holder = None;
        }
        self.reporting.insert(id, end.ending());
        self.endings.push_back((id, end));
        self.changed = true;
        self.write_endings();
        self.release_waiters(id);
        if let Some(session) = session {
            self.hand_over_rested(session);
        }
        self.advance_line();
        self.claim("a command ended");
    }

    /// Writes ends into the journal, oldest first. What cannot be written stays and is tried at the next tick.
    pub(super) fn write_endings(&mut self) {
        while let Some((id, end)) = self.endings.front() {
            let finish = Finish {
                command: *id,
                result: end.result(),
                turn: end.turn.clone(),
            };
            fail::fail_point!("finished-before");
            match self.ground.journal.finish(&finish, self.ground.clock.now()) {
                Ok(Finished::Recorded | Finished::Already) => {
                    fail::fail_point!("finished-after");
                    let id = *id;
                    tracing::debug!(command = %id, "the outcome is in the journal");
                    self.endings.pop_front();
                    self.work.remove(&id);
                    self.desk.release(id);
                    self.outbox_bell.notify_one();
                    if self.endings.is_empty() {
                        self.solved("journal");
                    }
                }
                Err(error) => {
                    let hint = "The result is kept in memory and written as soon as the journal can be; make room on the disk.";
                    let message = error.to_string();
                    self.problem("journal", message, hint);
                    return;
                }
            }
        }
    }

    /// The office has taken a result.
    pub(super) fn reported(&mut self, command: CommandId, how: Acknowledgement) {
        match how {
            Acknowledgement::Recorded | Acknowledgement::Duplicate => {}
            Acknowledgement::Late => {
                tracing::warn!(%command, "the result came too late to count; the office keeps it as evidence")
            }
            Acknowledgement::Rejected => tracing::error!(%command, "the office refused the result for good"),
        }
        if let Some(ending) = self.reporting.get_mut(&command) {
            ending.acknowledged = true;
        }
        self.refresh();
    }

    /// Commands that waited for this one's end have theirs now.
    pub(super) fn release_waiters(&mut self, ended: CommandId) {
        let waiters: Vec<_> = self
            .work
            .iter()
            .filter(|(_, work)| work.stage == Stage::UntilEnded { command: ended })
            .map(|(id, _)| *id)
            .collect();
        let outcome = self.reporting.get(&ended).map(|ending| ending.outcome.clone());
        for id in waiters {
            self.end(id, End::ok(json!({ "command_id": ended, "outcome": outcome })));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_result_holds_a_character_that_the_office_cannot_take() {
        let end = End::ok(json!({ "ansi": "a\0b", "rows": ["\0"], "n": 1 }));
        let output = end.result().output.unwrap();
        assert_eq!(
            output,
            json!({ "ansi": "a\u{fffd}b", "rows": ["\u{fffd}"], "n": 1 })
        );
    }

    #[test]
    fn what_is_not_known_is_neither_a_success_nor_a_failure() {
        let end = End::unknown();
        assert_eq!(
            (end.status, end.outcome),
            (ResultStatus::Unconfirmed, "unconfirmed")
        );
    }
}

//! Following the office: a doorbell wakes, a poll makes sure.

use std::sync::Arc;
use std::time::Duration;

use client::clock::SystemClock;
use serde_json::Value;
use supabase::{CommandRow, CommandState, Realtime, RealtimeEvent, ResultRow, ResultStatus, Topic};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::office::Office;

/// Longest time without a look, whether a doorbell came or not.
const POLL: Duration = Duration::from_secs(2);

/// An open ear at an office.
pub struct Bell {
    events: mpsc::Receiver<RealtimeEvent>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Bell {
    /// Starts to listen.
    pub fn at(office: &Office) -> Bell {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (_, events) = Realtime::start(
            office.project.clone(),
            office.auth.clone(),
            vec![Topic::office_commands(office.row.id)],
            Arc::new(SystemClock),
            &tasks,
            stop.clone(),
        );
        Bell { events, tasks, stop }
    }

    /// Waits until there may be something new.
    pub async fn wait(&mut self) {
        let heard = async {
            loop {
                match self.events.recv().await {
                    Some(RealtimeEvent::Doorbell { .. } | RealtimeEvent::Joined { .. }) => return,
                    Some(RealtimeEvent::State(_)) => {}
                    None => std::future::pending().await,
                }
            }
        };
        // The end of the time is no fault: then it is the poll that looks.
        let _ = tokio::time::timeout(POLL, heard).await;
    }

    /// Hangs up.
    pub async fn close(self) {
        self.stop.cancel();
        drop(self.events);
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// The final result among a command's results.
pub fn final_result(results: &[ResultRow]) -> Option<&ResultRow> {
    results.iter().find(|row| match row.status {
        ResultStatus::Succeeded
        | ResultStatus::Unconfirmed
        | ResultStatus::Failed
        | ResultStatus::Cancelled => true,
        ResultStatus::Progress | ResultStatus::Late | ResultStatus::Other => false,
    })
}

/// A text in a JSON column.
pub fn text<'a>(value: Option<&'a Value>, key: &str) -> Option<&'a str> {
    value?.get(key)?.as_str()
}

/// The state of a command in one word.
pub fn word(row: &CommandRow) -> &'static str {
    match row.state {
        CommandState::Queued => "queued",
        CommandState::Leased => "running",
        CommandState::Succeeded => "succeeded",
        CommandState::Unconfirmed => "unconfirmed",
        CommandState::Failed => "failed",
        CommandState::Cancelled => "cancelled",
        CommandState::Expired => "expired",
        CommandState::Dead => "dead",
        CommandState::Other => "unknown",
    }
}

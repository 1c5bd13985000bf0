//! Following the office: a doorbell wakes, a poll makes sure. A core that was started again has new addresses; then the
//! following goes on there.

use std::sync::Arc;
use std::time::Duration;

use client::clock::SystemClock;
use client::settings::Profile;
use serde_json::Value;
use supabase::{CommandRow, CommandState, Realtime, RealtimeEvent, ResultRow, ResultStatus, Topic};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::exit::{Exit, Failure};
use crate::office::Office;
use crate::print::note;
use crate::words::clipped;
use crate::world::World;

/// Characters of a reason that is told.
const WHY_CHARS_MAX: usize = 200;

/// An office that is followed, across restarts of the core that holds it.
pub struct Following<'a> {
    world: &'a World,
    office: Office,
    bell: Bell,
    lost_since: Option<Instant>,
}

impl<'a> Following<'a> {
    /// Starts to listen.
    pub fn at(world: &'a World, office: Office) -> Following<'a> {
        Following {
            world,
            bell: Bell::at(&office),
            office,
            lost_since: None,
        }
    }

    /// The way in; another one after [`Following::is_lost`].
    pub fn office(&self) -> &Office {
        &self.office
    }

    /// Waits until there may be something new, `longest` at most.
    pub async fn wait(&mut self, longest: Duration) {
        self.bell.wait(longest).await;
    }

    /// To be called when the office has answered.
    pub fn is_back(&mut self) {
        if self.lost_since.take().is_some() {
            note!("the connection is back");
        }
    }

    /// To be called when it has not: says so once, and looks for a core that was started since. It is an error, and the
    /// exit code 5, when none has come back within `patience`; without one this goes on for ever.
    ///
    /// A project elsewhere has its own troubles: it is only asked again.
    pub async fn is_lost(&mut self, why: &str, patience: Option<Duration>) -> Result<(), Failure> {
        let since = match self.lost_since {
            Some(since) => since,
            None => {
                note!("connection lost ({}), retrying …", clipped(why, WHY_CHARS_MAX));
                *self.lost_since.insert(Instant::now())
            }
        };
        if self.world.settings.profile != Profile::ThisMachine {
            return Ok(());
        }
        // It may be starting, or have ended again at once: whatever is wrong shows at the next look.
        if let Ok(office) = Office::open(self.world).await {
            let bell = Bell::at(&office);
            std::mem::replace(&mut self.bell, bell).close().await;
            self.office = office;
            return Ok(());
        }
        match patience {
            Some(patience) if since.elapsed() >= patience => Err(Failure::new(
                Exit::Unreachable,
                format!(
                    "no core has come back within {} seconds: {}",
                    patience.as_secs(),
                    clipped(why, WHY_CHARS_MAX)
                ),
                "Start it with `semo up`; what was under way is told there and by `semo tail`. --wait-for waits longer.",
            )),
            _ => Ok(()),
        }
    }

    /// Hangs up.
    pub async fn close(self) {
        self.bell.close().await;
    }
}

/// An open ear at an office.
struct Bell {
    events: mpsc::Receiver<RealtimeEvent>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Bell {
    /// Starts to listen.
    fn at(office: &Office) -> Bell {
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
    async fn wait(&mut self, longest: Duration) {
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
        let _ = tokio::time::timeout(longest, heard).await;
    }

    /// Hangs up.
    async fn close(self) {
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

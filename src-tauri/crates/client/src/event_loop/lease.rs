//! Keeping the leases of what we hold. An answer "not held" stops the work; no answer does not: unknown is not lost.

use std::time::Duration;

use domain::CommandId;
use supabase::{Renewal, RestError};
use tokio::time::Instant;

use super::{Event, EventLoop, Stage};

/// Length of a lease, by the database's clock.
pub(super) const LEASE_S: u32 = 60;
/// How often it is renewed.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(20);

impl EventLoop {
    pub(super) fn renew_leases(&mut self, now: Instant) {
        let due: Vec<_> = self
            .work
            .iter_mut()
            .filter(|(_, work)| work.stage != Stage::Ended && work.renew_at <= now && !work.renewing)
            .map(|(id, work)| {
                work.renewing = true;
                work.renew_at = now + RENEW_EVERY;
                (*id, work.row.lease_token)
            })
            .collect();
        for (command, token) in due {
            let rest = self.ground.rest.clone();
            self.start(async move {
                Event::Renewed {
                    command,
                    result: rest.renew_lease(command, token, LEASE_S).await,
                }
            });
        }
    }

    pub(super) fn renewed(&mut self, command: CommandId, result: Result<Renewal, RestError>) {
        let Some(work) = self.work.get_mut(&command) else {
            return;
        };
        work.renewing = false;
        match result {
            Ok(Renewal {
                held: true,
                cancel: false,
            }) => {}
            Ok(Renewal {
                held: true,
                cancel: true,
            }) => self.cancel_work(command),
            Ok(Renewal { held: false, .. }) => {
                tracing::warn!(%command, "the lease is lost; the work is stopped and its result will count as late");
                self.cancel_work(command);
            }
            Err(error) => {
                tracing::warn!(%command, %error, "a lease could not be renewed; the work goes on");
                work.renew_at = Instant::now() + RENEW_EVERY / 4;
            }
        }
    }
}

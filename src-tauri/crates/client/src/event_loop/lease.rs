//! Keeping the leases of what we hold. An answer "not held" stops the work; no answer does not: unknown is not lost.

use std::time::Duration;

use domain::CommandId;
use serde_json::json;
use supabase::{Renewal, RestError};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Event, EventLoop};

/// Length of a lease, by the database's clock.
pub(super) const LEASE_S: u32 = 60;
/// How often it is renewed.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(20);

impl EventLoop {
    /// Also for work that has ended but whose end the journal does not take yet: nobody else shall begin it anew.
    pub(super) fn renew_leases(&mut self, now: Instant) {
        let due: Vec<_> = self
            .work
            .iter_mut()
            .filter(|(_, work)| work.renew_at <= now && !work.renewing && !work.lease_lost)
            .map(|(id, work)| {
                work.renewing = true;
                work.renew_at = now + RENEW_EVERY;
                (*id, work.row.lease_token)
            })
            .collect();
        for (command, token) in due {
            let rest = self.ground.rest.clone();
            self.start(async move {
                let result = rest.renew_lease(command, token, LEASE_S).await;
                Event::Renewed {
                    command,
                    token,
                    result,
                }
            });
        }
    }

    pub(super) fn renewed(&mut self, command: CommandId, token: Uuid, result: Result<Renewal, RestError>) {
        if let Some(work) = self.work.get_mut(&command)
            && work.row.lease_token == token
        {
            work.renewing = false;
            match result {
                Ok(Renewal {
                    held: true,
                    cancel: false,
                }) => {}
                Ok(Renewal {
                    held: true,
                    cancel: true,
                }) => self.cancel_work(command, json!({ "way": "office" })),
                Ok(Renewal { held: false, .. }) => {
                    tracing::warn!(%command, "the lease is lost; a claim shows whether it comes back to us");
                    work.lease_lost = true;
                    self.claim_wanted = true;
                }
                Err(error) => {
                    tracing::warn!(%command, %error, "a lease could not be renewed; the work goes on");
                    work.renew_at = Instant::now() + RENEW_EVERY / 4;
                }
            }
        }
        if self.claim_wanted && !self.is_renewing() {
            self.claim_wanted = false;
            self.claim("leases were renewed");
        }
    }

    /// Whether an answer about a lease of ours is on its way. A claim meanwhile could take our own work from us.
    pub(super) fn is_renewing(&self) -> bool {
        self.work.values().any(|work| work.renewing)
    }

    /// After a claim: what was lost and has not come back is somebody else's now.
    pub(super) fn stop_lost_work(&mut self) {
        let lost: Vec<_> = self
            .work
            .iter()
            .filter(|(_, work)| work.lease_lost)
            .map(|(id, _)| *id)
            .collect();
        for command in lost {
            tracing::warn!(%command, "the lease is lost for good; the work is stopped and its result will count as late");
            self.cancel_work(command, json!({ "way": "lease_lost" }));
        }
    }
}

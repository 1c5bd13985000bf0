//! The loop that tells row changes and reads a changed schema: beside the feed's own, so that no row change, filter or
//! policy of a table ever holds up a message.
//!
//! What is captured waits in the database; a notification only wakes. Run by `feed`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_postgres::Client;

use super::deliver;
use crate::error::HubError;
use crate::http::Shared;

/// Pause after a failure: the next look would meet the same.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// Wakes a lane.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    notify: Notify,
    schema: AtomicBool,
}

impl Wake {
    /// Rows have changed.
    pub fn rows(&self) {
        self.notify.notify_one();
    }

    /// The schema has changed.
    pub fn schema(&self) {
        self.schema.store(true, Ordering::Release);
        self.notify.notify_one();
    }
}

/// A connection that reads what is captured.
pub(crate) struct Lane {
    client: Client,
    wake: Arc<Wake>,
    /// What was published when it was looked at last.
    published: Option<String>,
}

impl Lane {
    /// `client`: of the superuser.
    pub fn new(client: Client, wake: Arc<Wake>) -> Lane {
        Lane {
            client,
            wake,
            published: None,
        }
    }

    /// Forgets what was captured for sockets that are gone.
    pub async fn forget(&self) -> Result<(), HubError> {
        self.batch(
            "forget what was captured before",
            "delete from realtime.hub_changes",
        )
        .await
    }

    /// Gives every table of the publication the trigger that captures its changes, and the offices' members the one that
    /// tells of their rights.
    pub async fn capture_published(&self) -> Result<(), HubError> {
        self.batch(
            "capture changes of the published tables",
            "select realtime.hub_capture_published(), realtime.hub_watch_members()",
        )
        .await
    }

    async fn batch(&self, attempt: &str, sql: &str) -> Result<(), HubError> {
        self.client
            .batch_execute(sql)
            .await
            .map_err(|source| HubError::Database {
                attempt: attempt.to_owned(),
                source,
            })
    }

    /// Tells what is captured whenever it is woken; ends only with its connection.
    pub async fn run(mut self, shared: Arc<Shared>) -> &'static str {
        loop {
            match self.step(&shared).await {
                Ok(true) => {}
                Ok(false) => self.wake.notify.notified().await,
                Err(error) => {
                    tracing::warn!(%error, "row changes could not be told; who follows them is told to read again");
                    shared.realtime.all_fall_behind(deliver::BEHIND);
                    if self.client.is_closed() {
                        return "the connection that reads row changes ended";
                    }
                    sleep(FAILED_PAUSE).await;
                }
            }
        }
    }

    /// False when there was nothing to do.
    async fn step(&mut self, shared: &Shared) -> Result<bool, HubError> {
        if self.wake.schema.swap(false, Ordering::AcqRel) {
            // What fails is tried again: nobody wakes for this change a second time.
            self.take_schema(shared)
                .await
                .inspect_err(|_| self.wake.schema())?;
        }
        deliver::next(&self.client, shared).await
    }

    async fn take_schema(&mut self, shared: &Shared) -> Result<(), HubError> {
        shared.schema.reload(&mut self.client).await?;
        self.capture_published().await?;
        self.look_at_publication(shared).await
    }

    /// When other tables or columns are published than before, subscriptions are made again.
    async fn look_at_publication(&mut self, shared: &Shared) -> Result<(), HubError> {
        let now: Option<String> = self
            .client
            .query_one(
                "select string_agg(format('%I.%I %s', p.schemaname, p.tablename, p.attnames), ' ' order by 1)
                 from pg_publication_tables p where p.pubname = 'supabase_realtime'",
                &[],
            )
            .await
            .map_err(|source| HubError::Database {
                attempt: "look at what is published".to_owned(),
                source,
            })?
            .get(0);
        let now = now.unwrap_or_default();
        if self.published.as_ref().is_none_or(|before| *before != now) {
            self.published = Some(now);
            shared.realtime.published_anew();
        }
        Ok(())
    }
}

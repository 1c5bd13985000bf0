//! What the database says: new broadcasts, row changes and a changed schema arrive as notifications.
//!
//! A notification carries only an id; the row is read and sent on. If the connection is lost, messages may have
//! been lost with it: all sockets are closed with 1012, so that clients come back and read what they missed.
//! Started by [`crate::Hub::start`].

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_postgres::{AsyncMessage, Client, Notification};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::changes;
use super::replay;
use crate::error::HubError;
use crate::http::Shared;
use crate::source::Address;

/// Notifications that may wait; beyond it Postgres keeps them.
const NOTES_MAX: usize = 1024;
/// Notifications handled in one go.
const BATCH_MAX: usize = 200;
/// Pause before the connection is tried again.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// How often old messages are removed and expired commands ended.
const HOUSEKEEPING: Duration = Duration::from_secs(30);
/// How often what was finished long ago is removed.
const FORGETTING: Duration = Duration::from_secs(3600);
/// Batches removed at a time.
const FORGET_BATCHES_MAX: usize = 20;

/// A connection that listens, and one of its own that reads: it waits for nobody's requests. Not the same one, since
/// it would stand still while notifications wait.
pub(crate) struct Feed {
    reader: Client,
    _listener: Client,
    notes: mpsc::Receiver<Notification>,
    /// What was published when it was looked at last.
    published: Option<String>,
}

/// Opens the two connections. What is announced after this returns is delivered.
pub(crate) async fn listen(address: &Address, tasks: &TaskTracker) -> Result<Feed, HubError> {
    let fault = |source| HubError::Database {
        attempt: "listen to the database's notifications".to_owned(),
        source,
    };
    let (client, mut connection) = address.connect().await.map_err(fault)?;
    let (sender, notes) = mpsc::channel(NOTES_MAX);
    tasks.spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(note) = message
                && sender.send(note).await.is_err()
            {
                return;
            }
        }
    });
    client
        .batch_execute("listen hub_broadcast; listen hub_changes; listen pgrst")
        .await
        .map_err(fault)?;
    let (reader, connection) = address.connect().await.map_err(fault)?;
    tasks.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the feed's reading connection ended");
        }
    });
    Ok(Feed {
        reader,
        _listener: client,
        notes,
        published: None,
    })
}

impl Feed {
    /// Delivers until `stop`; connects again whenever the connection is lost.
    pub async fn run(
        mut self,
        shared: Arc<Shared>,
        address: Address,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                lost = self.deliver(&shared) => tracing::warn!(reason = lost, "the notification feed is lost"),
            }
            shared.metrics.feed_lost.inc();
            shared.realtime.feed.send_replace(false);
            self = loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(RECONNECT_PAUSE) => {}
                }
                match listen(&address, &tasks).await {
                    Ok(feed) => break feed,
                    Err(error) => tracing::warn!(%error, "the notification feed stays away"),
                }
            };
            // After a crash the database has forgotten what was to be captured.
            shared.realtime.forget_settled();
            shared.realtime.feed.send_replace(true);
            shared.realtime.restart_all();
        }
    }

    /// Ends only when one of the connections does.
    async fn deliver(&mut self, shared: &Shared) -> &'static str {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while self.notes.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let mut messages: Vec<Uuid> = Vec::new();
            let mut changed: Vec<i64> = Vec::new();
            let mut schema = false;
            for note in batch.drain(..) {
                match note.channel() {
                    "hub_broadcast" => messages.extend(note.payload().parse::<Uuid>()),
                    "hub_changes" => changed.extend(note.payload().parse::<i64>()),
                    _ => schema = true,
                }
            }
            let done = async {
                if schema {
                    shared.schema.reload(&mut self.reader).await?;
                    self.capture_published().await?;
                    self.look_at_publication(shared).await?;
                }
                if !messages.is_empty() {
                    broadcast(shared, &self.reader, &messages).await?;
                }
                if !changed.is_empty() {
                    changes::deliver(&self.reader, shared, &changed).await?;
                }
                Ok::<(), HubError>(())
            };
            if let Err(error) = done.await {
                tracing::warn!(%error, "announced changes could not be delivered; clients are sent to read again");
                shared.realtime.restart_all();
                if self.reader.is_closed() {
                    return "the reading connection ended";
                }
            }
        }
        "the connection ended"
    }

    /// Gives every table of the publication the trigger that captures its changes.
    pub(crate) async fn capture_published(&self) -> Result<(), HubError> {
        self.reader
            .batch_execute("select realtime.hub_capture_published()")
            .await
            .map_err(|source| HubError::Database {
                attempt: "capture changes of the published tables".to_owned(),
                source,
            })
    }

    /// When other tables or columns are published than before, subscriptions are made again.
    async fn look_at_publication(&mut self, shared: &Shared) -> Result<(), HubError> {
        let now: Option<String> = self
            .reader
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

/// Reads announced messages and sends them to the channels of their topics.
async fn broadcast(shared: &Shared, client: &Client, ids: &[Uuid]) -> Result<(), HubError> {
    let attempt = "read announced messages";
    let rows = client
        .query(
            "select m.id, m.topic, m.event, m.payload::text, m.binary_payload, coalesce(m.private, false)
             from unnest($1::uuid[]) with ordinality w (id, place)
             join realtime.messages m on m.id = w.id and m.extension = 'broadcast' order by w.place",
            &[&ids],
        )
        .await
        .map_err(|source| HubError::Database {
            attempt: attempt.to_owned(),
            source,
        })?;
    for row in rows {
        let (id, topic): (Uuid, String) = (row.get(0), row.get(1));
        let meta = json!({"id": id}).to_string();
        let spoken = replay::spoken(row.get(2), row.get(3), row.get(4), meta);
        shared
            .realtime
            .broadcast((&topic, row.get(5)), spoken, Some(id), None);
    }
    Ok(())
}

/// Removes what is old and ends what has run out, until `stop`.
pub(crate) async fn keep_house(shared: Arc<Shared>, stop: CancellationToken) {
    let mut rounds = interval(HOUSEKEEPING);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut forgotten: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = rounds.tick() => {}
        }
        let forget = forgotten.is_none_or(|at| at.elapsed() >= FORGETTING);
        match tidy(&shared, forget).await {
            Ok(()) if forget => forgotten = Some(Instant::now()),
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "housekeeping failed; it is tried again later"),
        }
    }
}

/// One round; `forget`: also of what was finished long ago, batch by batch.
async fn tidy(shared: &Shared, forget: bool) -> Result<(), HubError> {
    // Changes are removed once they are told: what is older was left by a feed that lost its connection.
    const OLD: &str = "
        delete from realtime.messages where inserted_at < now() at time zone 'utc' - interval '72 hours';
        delete from realtime.hub_changes where at < clock_timestamp() - interval '5 minutes';
        select private.reap_commands()";
    let attempt = "keep the database tidy";
    let fault = |source| HubError::Database {
        attempt: attempt.to_owned(),
        source,
    };
    let client = shared.database.admin(attempt).await?;
    client.batch_execute(OLD).await.map_err(fault)?;
    for _ in 0..if forget { FORGET_BATCHES_MAX } else { 0 } {
        let row = client
            .query_one("select private.forget_commands()", &[])
            .await
            .map_err(fault)?;
        if row.get::<_, i64>(0) == 0 {
            break;
        }
    }
    Ok(())
}

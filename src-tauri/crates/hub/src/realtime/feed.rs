//! What the database says: new broadcasts, changed rights, row changes and a changed schema arrive as notifications.
//!
//! A notification carries only an id; the row is read and sent on. Messages and rights are told in the order of their
//! commits, in a loop of their own; row changes and the schema have another (`changes::Lane`) and never hold them up. If
//! a connection is lost, messages may have been lost with it: all sockets are closed with 1012, so that clients come back
//! and read what they missed. Started by [`crate::Hub::start`].

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

use super::changes::{Lane, Wake};
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

/// A connection that listens, and one for each loop that reads: none of them waits for anybody's requests. Not the same
/// one, since it would stand still while notifications wait.
pub(crate) struct Feed {
    reader: Client,
    _listener: Client,
    notes: mpsc::Receiver<Notification>,
    lane: Lane,
}

/// Opens the connections. What is announced after this returns is delivered.
pub(crate) async fn listen(address: &Address, tasks: &TaskTracker) -> Result<Feed, HubError> {
    let fault = |source| HubError::Database {
        attempt: "listen to the database's notifications".to_owned(),
        source,
    };
    let (client, mut connection) = address.connect().await.map_err(fault)?;
    let (sender, notes) = mpsc::channel(NOTES_MAX);
    let wake = Arc::new(Wake::default());
    let woken = wake.clone();
    tasks.spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            let AsyncMessage::Notification(note) = message else {
                continue;
            };
            match note.channel() {
                "hub_changes" => woken.rows(),
                "pgrst" => woken.schema(),
                _ => {
                    if sender.send(note).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    client
        .batch_execute("listen hub_broadcast; listen hub_rights; listen hub_changes; listen pgrst")
        .await
        .map_err(fault)?;
    let purpose = "to read what is announced";
    Ok(Feed {
        reader: address.open(tasks, purpose).await?,
        _listener: client,
        notes,
        lane: Lane::new(address.open(tasks, purpose).await?, wake),
    })
}

impl Feed {
    /// Delivers until `stop`; connects again whenever a connection is lost.
    pub async fn run(
        mut self,
        shared: Arc<Shared>,
        address: Address,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) {
        loop {
            let Feed {
                reader,
                _listener,
                mut notes,
                lane,
            } = self;
            let ended = CancellationToken::new();
            // A task of its own: however much there is to compute for rows, messages go on.
            let mut rows = tasks.spawn(ended.clone().run_until_cancelled_owned(lane.run(shared.clone())));
            let lost = tokio::select! {
                () = stop.cancelled() => None,
                lost = deliver(&reader, &mut notes, &shared) => Some(lost),
                lost = &mut rows => Some(lost.ok().flatten().unwrap_or("the loop for row changes ended")),
            };
            ended.cancel();
            let Some(lost) = lost else { return };
            tracing::warn!(reason = lost, "the notification feed is lost");
            shared.metrics.feed_lost.inc();
            shared.realtime.feed.send_replace(false);
            let Some(feed) = again(&address, &tasks, &stop).await else {
                return;
            };
            self = feed;
            // After a crash the database has forgotten what was to be captured.
            shared.realtime.forget_settled();
            shared.realtime.feed.send_replace(true);
            shared.realtime.restart_all();
        }
    }

    /// See [`Lane::capture_published`].
    pub(crate) async fn capture_published(&self) -> Result<(), HubError> {
        self.lane.capture_published().await
    }
}

/// Tries until the connections are there again; none when it is to stop.
async fn again(address: &Address, tasks: &TaskTracker, stop: &CancellationToken) -> Option<Feed> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return None,
            () = sleep(RECONNECT_PAUSE) => {}
        }
        let ready = async {
            let feed = listen(address, tasks).await?;
            feed.lane.forget().await?;
            Ok::<Feed, HubError>(feed)
        };
        match ready.await {
            Ok(feed) => return Some(feed),
            Err(error) => tracing::warn!(%error, "the notification feed stays away"),
        }
    }
}

/// Tells messages and rights; ends only when one of the connections does.
async fn deliver(reader: &Client, notes: &mut mpsc::Receiver<Notification>, shared: &Shared) -> &'static str {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while notes.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let mut messages: Vec<Uuid> = Vec::new();
        for note in batch.drain(..) {
            if note.channel() == "hub_rights" {
                // In order: what was said before is still for him, what is said after waits for the policies' answer.
                tell(reader, shared, &mut messages).await;
                shared.realtime.rights_changed(note.payload().parse().ok());
            } else {
                messages.extend(note.payload().parse::<Uuid>());
            }
        }
        tell(reader, shared, &mut messages).await;
        if reader.is_closed() {
            return "the reading connection ended";
        }
    }
    "the connection ended"
}

/// Tells `messages` and empties the list.
async fn tell(reader: &Client, shared: &Shared, messages: &mut Vec<Uuid>) {
    if messages.is_empty() {
        return;
    }
    if let Err(error) = broadcast(shared, reader, messages).await {
        tracing::warn!(%error, "announced messages could not be delivered; clients are sent to read again");
        shared.realtime.restart_all();
    }
    messages.clear();
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
    const OLD: &str = "
        delete from realtime.messages where inserted_at < now() at time zone 'utc' - interval '72 hours';
        select private.reap_commands()";
    /// Changes are removed once they are told. What is older waits for a feed that is away or cannot keep up.
    const UNTOLD: &str =
        "delete from realtime.hub_changes where at < clock_timestamp() - interval '5 minutes'";
    let attempt = "keep the database tidy";
    let fault = |source| HubError::Database {
        attempt: attempt.to_owned(),
        source,
    };
    let client = shared.database.admin(attempt).await?;
    client.batch_execute(OLD).await.map_err(fault)?;
    let untold = client.execute(UNTOLD, &[]).await.map_err(fault)?;
    if untold > 0 {
        tracing::warn!(
            untold,
            "row changes were too old to be told; who follows them is told to read again"
        );
        shared.realtime.all_fall_behind(super::changes::BEHIND);
    }
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

//! Row changes of one channel: the database is asked to capture them, and asked again while it cannot.
//!
//! Runs as a task of its own, so that a slow database delays neither heartbeats nor other channels; ends with its
//! channel. Started by `join`, `channel` and `socket`.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::answers;
use super::changes::{self, Binding, Follow, Unsubscribed};
use super::registry::PREFIX;
use crate::http::Shared;
use crate::jwt::Claims;

/// Longest one attempt may take.
const ATTEMPT_MAX: Duration = Duration::from_secs(20);
/// Pause before what may work later is tried again: at least, and at most.
const AGAIN_MS: (u64, u64) = (5_000, 10_000);

/// Tables followed by one user over all his channels, each binding counted; what changes is compared with each of them.
const FOLLOWS_OF_ONE_MAX: usize = 10_000;
/// Different choices of columns of one user over all his channels: what changes is written down for each of them.
const SELECTS_OF_ONE_MAX: usize = 100;

/// What is to be followed for which channel.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Id in the registry.
    pub id: u64,
    /// Topic without its prefix.
    pub topic: String,
    pub claims: Arc<Claims>,
    pub bindings: Arc<Vec<Binding>>,
}

/// Tries once. `Later` also when it takes longer than `patience`.
pub(crate) async fn once(
    shared: &Shared,
    wanted: &Wanted,
    patience: Duration,
) -> Result<Vec<Follow>, Unsubscribed> {
    let asked = async {
        let subject = wanted.claims.subject();
        let _turn = shared.realtime.places.subscription(subject.clone()).await;
        let follows = changes::subscribe(shared, &wanted.claims, &wanted.bindings).await?;
        let mut followed = shared.realtime.followed_by(&subject, wanted.id);
        followed.add(&follows);
        if followed.tables > FOLLOWS_OF_ONE_MAX {
            return Err(Unsubscribed::Never(format!(
                "Too many tables on all channels of one user. Maximum {FOLLOWS_OF_ONE_MAX}"
            )));
        }
        if followed.selects.len() > SELECTS_OF_ONE_MAX {
            return Err(Unsubscribed::Never(format!(
                "Too many different column selections on all channels of one user. Maximum {SELECTS_OF_ONE_MAX}"
            )));
        }
        Ok(follows)
    };
    match timeout(patience.min(ATTEMPT_MAX), asked).await {
        Ok(answer) => answer,
        Err(_) => Err(Unsubscribed::Later(
            "PostgresChangesSubscribeTimeout: the database did not answer in time".to_owned(),
        )),
    }
}

/// When a subscription is tried for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    Now,
    /// After the pause that follows a failure.
    AfterPause,
}

async fn pause() {
    let pause = rand::rng().random_range(AGAIN_MS.0..AGAIN_MS.1);
    sleep(Duration::from_millis(pause)).await;
}

/// Follows until it works or never will, or `ends`; the client is told with `system` messages.
pub(crate) fn begin(shared: &Arc<Shared>, wanted: Wanted, begin: Begin, ends: CancellationToken) {
    let shared = shared.clone();
    let tasks = shared.realtime.tasks.clone();
    tasks.spawn(async move {
        let following = async {
            if begin == Begin::AfterPause {
                pause().await;
            }
            loop {
                match once(&shared, &wanted, ATTEMPT_MAX).await {
                    Ok(follows) => return live(&shared, &wanted, follows),
                    Err(Unsubscribed::Never(reason)) => {
                        shared.realtime.set_follows(wanted.id, Arc::default());
                        return tell(&shared, &wanted, "error", &reason);
                    }
                    Err(Unsubscribed::Later(reason)) => {
                        tracing::warn!(reason, topic = wanted.topic, "row changes cannot be followed yet");
                        tell(&shared, &wanted, "error", &reason);
                    }
                }
                pause().await;
            }
        };
        tokio::select! {
            () = ends.cancelled() => {}
            () = following => {}
        }
    });
}

/// The channel gets changes from now on, and is told so.
pub(crate) fn live(shared: &Shared, wanted: &Wanted, follows: Vec<Follow>) {
    shared.realtime.set_follows(wanted.id, Arc::new(follows));
    tell(shared, wanted, "ok", "Subscribed to PostgreSQL");
}

fn tell(shared: &Shared, wanted: &Wanted, status: &str, message: &str) {
    let topic = format!("{PREFIX}{}", wanted.topic);
    let message = answers::system(&topic, "postgres_changes", status, message);
    shared.realtime.tell(wanted.id, &message);
}

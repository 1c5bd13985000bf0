//! One channel on one socket: its phase ([`super::phase`]) and the times that go with it, its join message.
//!
//! Sends nothing itself. Called by [`super::socket`], which owns every channel of a socket.

use std::time::Duration;

use domain::Clock;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Topic;
use super::backoff::Dice;
use super::codec::{Frame, TOPIC_PREFIX};
use super::outlet::Outlet;
use super::phase::{ChannelEvent, Cure, Fault, Phase};
use super::supervisor::GOOD_AFTER;

/// Longest wait for the word that the database subscription is live.
const SYSTEM_MAX: Duration = Duration::from_secs(15);
/// One more reconcile after a join: what was written while the subscription came up.
const RECONCILE_AGAIN: Duration = Duration::from_secs(3);
/// Before a channel that the server ended is joined again.
const REJOIN_AFTER: Duration = Duration::from_secs(1);
/// A channel that fails this often in a row gets a new socket.
const CHANNEL_FAILURES_MAX: u32 = 5;

/// What a channel needs of its surroundings when it moves on.
pub(super) struct Around<'a> {
    pub outlet: &'a mut Outlet,
    pub dice: &'a mut Dice,
    pub clock: &'a dyn Clock,
}

/// A channel and its times.
pub(super) struct Channel {
    pub(super) topic: Topic,
    pub(super) wire_topic: String,
    pub(super) phase: Phase,
    /// For `Joining`: the latest answer; for `AwaitingSystem`: the latest word; for `Failed`: the next try.
    pub(super) due: Option<Instant>,
    pub(super) reconcile_at: Option<Instant>,
    live_since: Option<Instant>,
    failures: u32,
    /// The token that the server has for it.
    pub(super) token: String,
    /// It is not joined again before there is another token.
    pub(super) needs_token: bool,
    /// Another token has been tried against this kind of refusal already.
    token_tried: bool,
    /// What a `system` error said before the close that follows it.
    pub(super) said: Option<String>,
    /// When the next try is, for people.
    pub(super) until_ms: i64,
    pub(super) permanent: bool,
}

impl Channel {
    pub(super) fn new(topic: &Topic) -> Channel {
        Channel {
            wire_topic: format!("{TOPIC_PREFIX}{}", topic.name),
            topic: topic.clone(),
            phase: Phase::Ready,
            due: None,
            reconcile_at: None,
            live_since: None,
            failures: 0,
            token: String::new(),
            needs_token: false,
            token_tried: false,
            said: None,
            until_ms: 0,
            permanent: false,
        }
    }

    /// Made when it is sent, with the token of that moment.
    pub(super) fn join_payload(&self, token: &str) -> Value {
        let changes: Vec<Value> = self
            .topic
            .inserts
            .iter()
            .map(|watch| {
                let mut change = json!({"event": "INSERT", "schema": watch.schema, "table": watch.table});
                if let Some(filter) = &watch.filter {
                    change["filter"] = json!(filter);
                }
                change
            })
            .collect();
        json!({
            "config": {
                "broadcast": {"ack": false, "self": false},
                "presence": {"key": "", "enabled": false},
                "postgres_changes": changes,
                "private": self.topic.private,
            },
            "access_token": token,
            "version": concat!("semo-office/", env!("CARGO_PKG_VERSION")),
        })
    }

    /// Does a frame belong to the present join? Frames of an older one name it.
    pub(super) fn owns(&self, frame: &Frame) -> bool {
        let named = frame.join_ref.as_deref().or(frame.reference.as_deref());
        named.is_none() || named == self.phase.join_ref()
    }

    /// Moves the channel on and keeps the times that go with the new phase. An error: give the whole socket up.
    pub(super) fn apply(&mut self, event: &ChannelEvent, around: &mut Around<'_>) -> Result<(), String> {
        let now = Instant::now();
        let was_joined = self.phase.is_joined();
        let before = std::mem::replace(&mut self.phase, Phase::Ready);
        self.phase = before.after(event);
        if self.phase == before {
            return Ok(());
        }
        match &self.phase {
            Phase::Ready | Phase::Joining { .. } => {
                self.due = None;
                Ok(())
            }
            Phase::AwaitingSystem { .. } | Phase::Live { .. } => {
                let is_live = matches!(self.phase, Phase::Live { .. });
                self.due = (!is_live).then_some(now + SYSTEM_MAX);
                self.live_since = self.live_since.or(is_live.then_some(now));
                if !was_joined {
                    self.token_tried = false;
                    self.reconcile_at = Some(now + RECONCILE_AGAIN);
                    tracing::debug!(topic = %self.topic.name, "joined");
                    around.outlet.joined(&self.topic.name);
                }
                Ok(())
            }
            Phase::Failed(fault) => {
                let fault = fault.clone();
                self.failed(fault, around)
            }
        }
    }

    /// Chooses the wait that goes with a fault.
    fn failed(&mut self, fault: Fault, around: &mut Around<'_>) -> Result<(), String> {
        let was_good = self
            .live_since
            .take()
            .is_some_and(|since| since.elapsed() >= GOOD_AFTER);
        self.failures = if was_good {
            1
        } else {
            self.failures.saturating_add(1)
        };
        self.reconcile_at = None;
        self.permanent = false;
        let again = around.dice.retry(self.failures);
        let wait = match fault.cure {
            Cure::Retry => again,
            Cure::Token => {
                self.needs_token = true;
                if self.failures == 1 {
                    REJOIN_AFTER
                } else {
                    REJOIN_AFTER + again
                }
            }
            Cure::TokenThenPerson if !self.token_tried => {
                self.needs_token = true;
                self.token_tried = true;
                REJOIN_AFTER
            }
            Cure::Time => around.dice.crowded(self.failures),
            Cure::Person | Cure::TokenThenPerson => {
                self.permanent = true;
                around.dice.slow()
            }
        };
        tracing::warn!(topic = %self.topic.name, why = %fault.why, wait_ms = wait.as_millis(), "a channel is not joined");
        if matches!(fault.cure, Cure::Retry | Cure::Token) && self.failures >= CHANNEL_FAILURES_MAX {
            let why = format!(
                "{} failed {CHANNEL_FAILURES_MAX} times: {}",
                self.topic.name, fault.why
            );
            return Err(why);
        }
        self.due = Some(Instant::now() + wait);
        self.until_ms = around
            .clock
            .now()
            .plus_ms(wait.as_millis().try_into().unwrap_or(i64::MAX))
            .0;
        Ok(())
    }
}

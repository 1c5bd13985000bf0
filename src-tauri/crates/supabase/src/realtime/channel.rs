//! One channel on one socket: its phase ([`super::phase`]) and the times that go with it, its join message, and the
//! proof that doorbells come through it.
//!
//! Sends nothing itself and reads no clock. Called by [`super::talk`], which owns every channel of a socket.

use std::time::Duration;

use domain::OfficeId;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::Topic;
use super::backoff::Dice;
use super::codec::{Frame, TOPIC_PREFIX};
use super::course::GOOD_AFTER;
use super::moment::Moment;
use super::outlet::Outlet;
use super::patience::Patience;
use super::phase::{ChannelEvent, Cure, Fault, Phase};

/// Longest wait for the word that the database subscription is live.
const SYSTEM_MAX: Duration = Duration::from_secs(15);
/// One more reconcile after a join: what was written while the subscription came up.
const RECONCILE_AGAIN: Duration = Duration::from_secs(3);
/// Before a channel that the server ended is joined again.
const REJOIN_AFTER: Duration = Duration::from_secs(1);
/// A channel that fails this often in a row gets a new socket.
const CHANNEL_FAILURES_MAX: u32 = 5;
/// Longest wait for the office to take a ring; more than a request without a body may last.
const RING_TAKEN_MAX: Duration = Duration::from_secs(45);
/// Longest wait for a doorbell that the office has rung for us.
pub(super) const RING_HEARD_MAX: Duration = Duration::from_secs(10);
/// A ring comes up to this much after the join: of many clients that come back together only the first few ring.
const RING_SPREAD: Duration = Duration::from_millis(300);
/// A channel on which nothing was heard for this long is proven anew. Whoever rings proves it for every listener of the
/// office, so there is about one such ring per office and span, however many clients it has.
const PROVE_AGAIN: Duration = Duration::from_secs(300);
/// Up to this much more, so that they do not all ring.
const PROVE_SPREAD: Duration = Duration::from_secs(60);

/// What a channel needs of its surroundings when it moves on.
pub(super) struct Around<'a> {
    pub outlet: &'a mut Outlet,
    pub dice: &'a mut Dice,
    pub patience: &'a mut Patience,
}

/// Why we could not ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RingFault {
    /// It may work later.
    Later(String),
    /// A person has to change something (the office's database is from before the proof).
    Never(String),
}

/// How far the proof is.
#[derive(Debug, Default)]
struct Proof {
    /// When to ring.
    ring_at: Option<Instant>,
    /// Rung, or being rung.
    ringing: Option<Uuid>,
    /// Since when the office has taken it.
    taken: Option<Instant>,
    /// When it is too late to hear it; before it is taken, to take it.
    heard_by: Option<Instant>,
    /// Rings in a row that could not be sent.
    unsent: u32,
}

/// A channel and its times.
pub(super) struct Channel {
    pub(super) topic: Topic,
    pub(super) wire_topic: String,
    pub(super) phase: Phase,
    /// For `Joining`: the latest answer; for `AwaitingSystem`: the latest word; for `Failed`: the next try.
    pub(super) due: Option<Instant>,
    /// When the join under way was sent.
    pub(super) join_sent: Option<Instant>,
    pub(super) reconcile_at: Option<Instant>,
    live_since: Option<Instant>,
    failed_at: Option<Instant>,
    failures: u32,
    /// The token that the server has for it.
    pub(super) token: String,
    /// It is not joined again before there is another token.
    pub(super) needs_token: bool,
    /// Another token has been tried against this kind of refusal already.
    token_tried: bool,
    /// What a `system` error said before the close that follows it.
    pub(super) said: Option<String>,
    proof: Proof,
    /// What is wrong, when the next try is, and whether a person is needed: for people.
    pub(super) trouble: Option<Trouble>,
}

/// What people are told of a channel that is not live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub why: String,
    pub until_ms: i64,
    pub permanent: bool,
}

impl Channel {
    pub(super) fn new(topic: &Topic) -> Channel {
        Channel {
            wire_topic: format!("{TOPIC_PREFIX}{}", topic.name),
            topic: topic.clone(),
            phase: Phase::Ready,
            due: None,
            join_sent: None,
            reconcile_at: None,
            live_since: None,
            failed_at: None,
            failures: 0,
            token: String::new(),
            needs_token: false,
            token_tried: false,
            said: None,
            proof: Proof::default(),
            trouble: None,
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
    pub(super) fn apply(
        &mut self,
        event: &ChannelEvent,
        now: Moment,
        around: &mut Around<'_>,
    ) -> Result<(), String> {
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
            Phase::AwaitingSystem { .. } | Phase::Proving { .. } => {
                let awaits = matches!(self.phase, Phase::AwaitingSystem { .. });
                self.due = awaits.then_some(now.at + SYSTEM_MAX);
                if !before.is_joined() {
                    self.token_tried = false;
                    self.trouble = None;
                    self.reconcile_at = Some(now.at + RECONCILE_AGAIN);
                    tracing::debug!(topic = %self.topic.name, "joined");
                    around.outlet.joined(&self.topic.name);
                }
                if awaits {
                    return Ok(());
                }
                self.proof = Proof {
                    ring_at: Some(now.at + around.dice.upto(RING_SPREAD)),
                    ..Proof::default()
                };
                if self.topic.proof.is_none() {
                    // Nothing of it can be rung: the join has to do.
                    return self.apply(&ChannelEvent::Heard, now, around);
                }
                Ok(())
            }
            Phase::Live { .. } => {
                self.due = None;
                self.trouble = None;
                self.live_since = self.live_since.or(Some(now.at));
                self.proven(now, around.dice);
                Ok(())
            }
            Phase::Failed(fault) => {
                let fault = fault.clone();
                self.failed(fault, now, around)
            }
        }
    }

    // ---- the proof

    /// A doorbell came through, whoever rang it.
    pub(super) fn heard(&mut self, now: Moment, around: &mut Around<'_>) -> Result<(), String> {
        if let Some(taken) = self.proof.taken {
            let took = now.at.saturating_duration_since(taken);
            around.patience.came(took, RING_HEARD_MAX);
        }
        if matches!(self.phase, Phase::Live { .. }) {
            self.proven(now, around.dice);
            return Ok(());
        }
        self.apply(&ChannelEvent::Heard, now, around)
    }

    fn proven(&mut self, now: Moment, dice: &mut Dice) {
        let again = self
            .topic
            .proof
            .map(|_| now.at + PROVE_AGAIN + dice.upto(PROVE_SPREAD));
        self.proof = Proof {
            ring_at: again,
            ..Proof::default()
        };
    }

    /// What is to be rung now, if anything; it counts as under way then.
    pub(super) fn ring(&mut self, now: Moment, dice: &mut Dice) -> Option<(OfficeId, Uuid)> {
        let office = self.topic.proof?;
        let may = matches!(self.phase, Phase::Proving { .. } | Phase::Live { .. });
        if !may || self.proof.ring_at.is_none_or(|at| now.at < at) {
            return None;
        }
        let nonce = dice.nonce();
        self.proof.ring_at = None;
        self.proof.ringing = Some(nonce);
        self.proof.taken = None;
        self.proof.heard_by = Some(now.at + RING_TAKEN_MAX);
        Some((office, nonce))
    }

    /// The office has taken the ring with this nonce, or not. True: it was this channel's.
    pub(super) fn rang(
        &mut self,
        nonce: Uuid,
        rung: &Result<(), RingFault>,
        now: Moment,
        around: &mut Around<'_>,
    ) -> Result<bool, String> {
        if self.proof.ringing != Some(nonce) {
            // Heard already, or of an older join.
            return Ok(false);
        }
        let (why, permanent) = match rung {
            Ok(()) => {
                self.proof.taken = Some(now.at);
                self.proof.heard_by = Some(now.at + around.patience.limit(RING_HEARD_MAX));
                return Ok(true);
            }
            Err(RingFault::Later(why)) => (why, false),
            Err(RingFault::Never(why)) => (why, true),
        };
        self.not_rung(why, permanent, now, around)?;
        Ok(true)
    }

    /// The office has not taken the ring: that says nothing about the channel.
    fn not_rung(
        &mut self,
        why: &str,
        permanent: bool,
        now: Moment,
        around: &mut Around<'_>,
    ) -> Result<(), String> {
        self.proof.unsent = self.proof.unsent.saturating_add(1);
        let wait = if permanent {
            around.dice.slow()
        } else {
            REJOIN_AFTER + around.dice.retry(self.proof.unsent)
        };
        tracing::warn!(topic = %self.topic.name, %why, wait_ms = wait.as_millis(), "the doorbell could not be tried");
        if permanent {
            self.apply(&ChannelEvent::Doubted, now, around)?;
        }
        self.proof.ringing = None;
        self.proof.heard_by = None;
        self.proof.ring_at = Some(now.at + wait);
        if matches!(self.phase, Phase::Proving { .. }) {
            let why = format!("joined, but whether doorbells are heard could not be tried: {why}");
            self.trouble = Some(trouble(why, wait, permanent, now));
        }
        Ok(())
    }

    /// When something about the proof is due.
    pub(super) fn proof_due(&self) -> Option<Instant> {
        let ring_at = self.proof.ring_at.filter(|_| self.phase.is_joined());
        [ring_at, self.proof.heard_by].into_iter().flatten().min()
    }

    /// Is it too late to hear what was rung? A ring that the office has not even taken by then is rung once more.
    pub(super) fn is_unheard(&mut self, now: Moment, around: &mut Around<'_>) -> Result<bool, String> {
        if self.proof.heard_by.is_none_or(|by| now.at < by) {
            return Ok(false);
        }
        if self.proof.taken.is_some() {
            return Ok(true);
        }
        self.not_rung("the office has not answered", false, now, around)?;
        Ok(false)
    }

    // ---- faults

    /// Somebody asks to try now: a wait is cut short, but never below the shortest between two joins.
    pub(super) fn hurry(&mut self, now: Moment) {
        if let (Phase::Failed(_), Some(due), Some(failed_at)) = (&self.phase, self.due, self.failed_at) {
            self.due = Some(due.min(now.at.max(failed_at + REJOIN_AFTER)));
        }
        // Also the wait before the next ring, where the one before could not be sent.
        if let (Phase::Proving { .. }, Some(ring_at), true) =
            (&self.phase, self.proof.ring_at, self.proof.unsent > 0)
        {
            self.proof.ring_at = Some(ring_at.min(now.at + REJOIN_AFTER));
        }
    }

    /// Chooses the wait that goes with a fault.
    fn failed(&mut self, fault: Fault, now: Moment, around: &mut Around<'_>) -> Result<(), String> {
        let was_good = self
            .live_since
            .take()
            .is_some_and(|since| now.at.saturating_duration_since(since) >= GOOD_AFTER);
        self.failures = if was_good {
            1
        } else {
            self.failures.saturating_add(1)
        };
        self.reconcile_at = None;
        self.proof = Proof::default();
        let mut permanent = false;
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
                permanent = true;
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
        self.failed_at = Some(now.at);
        self.due = Some(now.at + wait);
        self.trouble = Some(trouble(fault.why, wait, permanent, now));
        Ok(())
    }
}

fn trouble(why: String, wait: Duration, permanent: bool, now: Moment) -> Trouble {
    let wait_ms = wait.as_millis().try_into().unwrap_or(i64::MAX);
    Trouble {
        why,
        until_ms: now.wall.plus_ms(wait_ms).0,
        permanent,
    }
}

//! One channel of a socket: what it may do, and what its pushes bring about.
//!
//! Policies are asked when first needed and remembered until the next token or change of rights. Called by `socket`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::changes::Binding;
use super::codec::{Body, Content, Reference, Spoken};
use super::meter::{Calls, Meter};
use super::policy::{self, Extension, Reads, Unanswered};
use super::replay;
use super::settings::RealtimeSettings;
use super::subscription::{self, Begin, Wanted};
use crate::http::Shared;
use crate::jwt::{Claims, TokenFault};

/// A channel as its socket knows it.
pub(crate) struct Channel {
    /// Id in the registry.
    pub id: u64,
    /// Topic without its prefix.
    pub topic: String,
    pub join_ref: Reference,
    pub private: bool,
    pub claims: Arc<Claims>,
    /// The token last accepted; absent when the socket's key is used. Never printed.
    pub token: Option<String>,
    /// When the token was last looked at.
    pub checked: Instant,
    /// Whether broadcasts are acknowledged.
    pub ack: bool,
    /// Whether the sender gets its own broadcasts.
    pub echo: bool,
    /// What the policies let it read; for a private channel.
    pub reads: Reads,
    pub may_broadcast: Option<bool>,
    pub may_show: Option<bool>,
    pub presence: Presence,
    pub bindings: Arc<Vec<Binding>>,
    /// Ends the subscription to row changes when dropped.
    pub subscribed: Option<DropGuard>,
    /// New tokens that were sent.
    pub tokens: Calls,
}

/// The token is a secret.
impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("id", &self.id)
            .field("topic", &self.topic)
            .field("private", &self.private)
            .finish_non_exhaustive()
    }
}

/// Presence as one channel uses it.
#[derive(Debug)]
pub(crate) struct Presence {
    pub key: String,
    pub enabled: bool,
    /// What is shown now.
    pub shown: Option<Map<String, Value>>,
    pub calls: Calls,
}

/// How fast one socket sends.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    pub messages: Meter,
    pub presence: Meter,
    pub joins: Meter,
}

/// What the policies say about a channel that is joined already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rights {
    /// It may go on.
    Kept,
    /// It ends, with this message.
    Lost(String),
    /// The database gave no answer.
    Unknown,
}

/// What a push brings about at its own channel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    Nothing,
    /// Status and response.
    Reply(&'static str, Value),
    /// `system` error with this message, then `phx_close`.
    Expel(String),
}

/// New tokens a channel may send within [`TOKENS_WINDOW`]: each is checked, and has the policies asked.
const TOKENS_MAX: u32 = 20;
/// See [`TOKENS_MAX`].
const TOKENS_WINDOW: Duration = Duration::from_secs(60);

/// Checks a token as Realtime does: no second of grace.
pub(crate) fn verify(shared: &Shared, token: &str) -> Result<Claims, TokenFault> {
    match crate::identity::key_role(&shared.keys, token) {
        Some(role) => Ok(crate::identity::key_claims(role)),
        None => crate::identity::verify_token(shared, token, 0),
    }
}

impl Channel {
    /// Follows row changes from now on, under the claims of now; what was asked before ends. A join that waits for its
    /// row changes sees to them itself.
    pub fn subscribe(&mut self, shared: &Arc<Shared>, begin: Begin) {
        if shared.realtime.is_held(self.id) {
            return;
        }
        self.subscribed = None;
        if !self.bindings.is_empty() {
            let ends = CancellationToken::new();
            subscription::begin(shared, self.wanted(), begin, ends.clone());
            self.subscribed = Some(ends.drop_guard());
        }
    }

    /// What the database is asked for.
    pub fn wanted(&self) -> Wanted {
        Wanted {
            id: self.id,
            topic: self.topic.clone(),
            claims: self.claims.clone(),
            bindings: self.bindings.clone(),
        }
    }

    /// When the token must be looked at next.
    pub fn token_due(&self, shared: &Shared, every: Duration) -> Instant {
        /// However long a token lives, the clock is looked at: a machine may have slept.
        const LOOK_MAX_MS: i64 = 30_000;
        let left = self.claims.exp.map_or(LOOK_MAX_MS, |exp| {
            let until_ms = exp.saturating_mul(1000).saturating_sub(shared.clock.now().0);
            until_ms.clamp(0, LOOK_MAX_MS)
        });
        let left = Duration::from_millis(u64::try_from(left).unwrap_or_default());
        (Instant::now() + left).min(self.checked + every)
    }

    /// Looks at the token again, and at what the policies say of it; an error says why the channel ends.
    pub async fn check_token(&mut self, shared: &Shared, every: Duration) -> Result<(), String> {
        let now_s = shared.clock.now().0.div_euclid(1000);
        if let Some(exp) = self.claims.exp.filter(|exp| *exp <= now_s) {
            return Err(TokenFault::Expired { seconds: now_s - exp }.to_string());
        }
        if self.checked.elapsed() >= every {
            self.checked = Instant::now();
            if let Some(token) = &self.token {
                verify(shared, token).map_err(|fault| fault.to_string())?;
            }
            // Without an answer it lives on until the next look: what changed is told by the database itself.
            if let Rights::Lost(reason) = self.check_rights(shared).await {
                return Err(reason);
            }
        }
        Ok(())
    }

    /// Asks the policies again under the claims it has. What they let it write is asked anew when it is needed.
    pub async fn check_rights(&mut self, shared: &Shared) -> Rights {
        if !self.private {
            return Rights::Kept;
        }
        match self.reads_anew(shared, &self.claims).await {
            Ok(reads) if reads.lost_since(self.reads) => Rights::Lost(self.no_longer()),
            Ok(reads) => {
                self.reads = reads;
                (self.may_broadcast, self.may_show) = (None, None);
                let sees = reads.presence == Some(true);
                shared.realtime.set_reads(self.id, reads.broadcast, sees);
                Rights::Kept
            }
            Err(fault) => {
                tracing::warn!(
                    ?fault,
                    topic = self.topic,
                    "the policies could not be asked again"
                );
                Rights::Unknown
            }
        }
    }

    fn no_longer(&self) -> String {
        format!(
            "You no longer have permission to read from this Channel topic: {}",
            self.topic
        )
    }

    /// `access_token`: a new one is checked and everything that hangs on it asked again.
    pub async fn new_token(&mut self, shared: &Arc<Shared>, payload: &Value) -> Outcome {
        let Some(token) = payload.get("access_token").and_then(Value::as_str) else {
            return Outcome::Nothing;
        };
        if token.starts_with("sb_") || self.token.as_deref() == Some(token) {
            return Outcome::Nothing;
        }
        if !self.tokens.take(TOKENS_MAX, TOKENS_WINDOW, Instant::now()) {
            return Outcome::Expel("Too many access tokens".to_owned());
        }
        let claims = match verify(shared, token) {
            Ok(claims) => Arc::new(claims),
            Err(fault) => return Outcome::Expel(fault.to_string()),
        };
        let rights = shared.realtime.rights();
        let reads = match self.reads_anew(shared, &claims).await {
            Ok(reads) => reads,
            // No verdict: the channel lives on with the token it has, until that one ends.
            Err(fault) => {
                tracing::warn!(?fault, topic = self.topic, "a new token could not be checked");
                return Outcome::Nothing;
            }
        };
        if reads.lost_since(self.reads) {
            return Outcome::Expel(self.no_longer());
        }
        self.claims = claims.clone();
        self.token = Some(token.to_owned());
        self.checked = Instant::now();
        self.reads = reads;
        self.may_broadcast = None;
        self.may_show = None;
        let reads = (reads.broadcast, reads.presence == Some(true));
        shared.realtime.set_claims(self.id, claims, reads, rights);
        self.subscribe(shared, Begin::Now);
        Outcome::Nothing
    }

    async fn reads_anew(&self, shared: &Shared, claims: &Claims) -> Result<Reads, Unanswered> {
        if !self.private {
            return Ok(self.reads);
        }
        let presence = self.reads.presence.is_some();
        policy::reads(&shared.database, claims, &self.topic, presence).await
    }

    /// Sends a broadcast on. `size`: of the frame, in bytes.
    pub async fn broadcast(
        &mut self,
        shared: &Shared,
        meters: &mut Meters,
        content: Content,
        size: usize,
    ) -> Outcome {
        let allowed = shared.realtime.settings();
        let (now, rate) = (Instant::now(), allowed.messages_per_second);
        if !meters.messages.take(1, rate, allowed.rate_window, now) {
            return Outcome::Expel("Too many messages per second".to_owned());
        }
        let acknowledged = |status, response| {
            if self.ack {
                Outcome::Reply(status, response)
            } else {
                Outcome::Nothing
            }
        };
        let done = acknowledged("ok", json!({}));
        let length = match &content {
            Content::Json(_) => size,
            Content::Bytes(data) => data.len(),
            Content::Broadcast { body, .. } => body.bytes().len(),
        };
        // Text without an object, as the original sends it.
        let too_large = acknowledged("error", json!("payload_size_exceeded"));
        if self.private && !self.may(shared, Extension::Broadcast).await {
            return Outcome::Nothing;
        }
        if length > allowed.payload_bytes_max {
            return too_large;
        }
        let (spoken, kept) = match content {
            Content::Json(payload) if payload.is_object() => (Spoken::Text(payload.to_string().into()), None),
            Content::Json(_) => return Outcome::Nothing,
            Content::Bytes(data) => (Spoken::Bytes(data), None),
            Content::Broadcast { event, body, persist } => self.spoken(shared, event, body, persist).await,
        };
        let except = (!self.echo).then_some(self.id);
        shared
            .realtime
            .broadcast((&self.topic, self.private), spoken, kept, except);
        done
    }

    /// A binary push; kept for later where that is wished and the channel is private.
    async fn spoken(
        &self,
        shared: &Shared,
        event: String,
        body: Body,
        persist: bool,
    ) -> (Spoken, Option<uuid::Uuid>) {
        let mut kept = None;
        if persist && self.private {
            match replay::keep(shared, &self.topic, &event, &body).await {
                Ok(id) => kept = Some(id),
                Err(error) => tracing::warn!(%error, topic = self.topic, "a message could not be kept"),
            }
        }
        let meta = kept.map(|id| json!({"id": id}).to_string());
        (Spoken::User { event, body, meta }, kept)
    }

    /// What the policies say about writing on a private topic; no answer is not remembered and no yes.
    async fn may(&mut self, shared: &Shared, extension: Extension) -> bool {
        let known = match extension {
            Extension::Broadcast => &mut self.may_broadcast,
            Extension::Presence => &mut self.may_show,
        };
        // What was said before counts no more while the rights may have changed.
        if let Some(known) = known
            && shared.realtime.paused(self.id).is_none()
        {
            return *known;
        }
        let asked = policy::writes(&shared.database, &self.claims, &self.topic, extension).await;
        *known = asked.ok();
        *known == Some(true)
    }

    /// `presence`: shows something, or nothing any more.
    pub async fn presence(&mut self, shared: &Shared, meters: &mut Meters, payload: &Value) -> Outcome {
        let ok = || Outcome::Reply("ok", json!({}));
        let Some(event) = payload.get("event").and_then(Value::as_str) else {
            return ok();
        };
        let allowed = shared.realtime.settings();
        let (calls, window) = (allowed.presence_calls_max, allowed.presence_window);
        if !self.presence.calls.take(calls, window, Instant::now()) {
            return Outcome::Expel("Client presence rate limit exceeded".to_owned());
        }
        match event.to_ascii_lowercase().as_str() {
            "track" => self.track(shared, &allowed, meters, payload.get("payload")).await,
            "untrack" => {
                self.presence.shown = None;
                shared.realtime.untrack(self.id);
                ok()
            }
            _ => Outcome::Reply("error", json!({})),
        }
    }

    async fn track(
        &mut self,
        shared: &Shared,
        allowed: &RealtimeSettings,
        meters: &mut Meters,
        payload: Option<&Value>,
    ) -> Outcome {
        let ok = Outcome::Reply("ok", json!({}));
        if self.private {
            if self.reads.presence.is_none() {
                let asked = policy::reads(&shared.database, &self.claims, &self.topic, true).await;
                let Ok(reads) = asked else {
                    return Outcome::Reply("error", json!({}));
                };
                self.reads.presence = reads.presence;
                shared.realtime.set_sees(self.id, reads.presence == Some(true));
            }
            if !self.may(shared, Extension::Presence).await {
                return Outcome::Reply("error", json!({}));
            }
        }
        let payload = match payload {
            None => Map::new(),
            Some(Value::Object(payload)) => payload.clone(),
            Some(_) => {
                let reason = json!({"reason": "Presence track payload must be a map"});
                return Outcome::Reply("error", reason);
            }
        };
        if self.presence.shown.as_ref() == Some(&payload) {
            return ok;
        }
        let too_large = || Outcome::Expel("Track message size exceeded".to_owned());
        let shown = Value::Object(payload);
        if shown.to_string().len() > allowed.presence_bytes_max {
            return too_large();
        }
        let rate = allowed.presence_per_second;
        if !meters.presence.take(1, rate, allowed.rate_window, Instant::now()) {
            return Outcome::Expel("Too many presence messages per second".to_owned());
        }
        let Value::Object(payload) = shown else {
            return ok;
        };
        if !self.presence.enabled {
            self.presence.enabled = true;
            shared.realtime.sync(self.id);
        }
        if shared
            .realtime
            .track(self.id, &self.presence.key, &payload)
            .is_err()
        {
            return too_large();
        }
        self.presence.shown = Some(payload);
        ok
    }
}

//! Joining a channel: whose token, may it read, what does it want to follow.
//!
//! A private channel is decided by the policies of `realtime.messages`. Nothing that is said on the topic from the
//! moment the policies have answered is lost: it is held until the join is answered. Called by `socket`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::changes::{self, Binding, Follow, Unsubscribed};
use super::channel::{self, Channel, Presence};
use super::codec::{Incoming, Outgoing, Version};
use super::meter::Calls;
use super::policy::{self, Reads, Unanswered};
use super::registry::{Line, Member, PREFIX};
use super::replay::{self, Wish};
use super::settings::RealtimeSettings;
use super::subscription::{Begin, Wanted};
use super::{answers, subscription};
use crate::http::Shared;
use crate::jwt::{Claims, TokenFault};

/// How long a join with `wait` is held where it does not say, and at most.
const WAIT: Duration = Duration::from_secs(15);
const WAIT_MAX: Duration = Duration::from_secs(20);

/// The socket a join came from.
pub(crate) struct From<'s> {
    pub shared: &'s Arc<Shared>,
    pub line: &'s Line,
    pub version: Version,
    pub claims: &'s Arc<Claims>,
}

/// A channel that was let in.
pub(crate) struct Joined {
    pub channel: Channel,
    pub answer: Answer,
}

/// How the join is answered.
pub(crate) struct Answer {
    /// The reply first.
    first: Vec<Outgoing>,
    replayed: HashSet<Uuid>,
    presence: bool,
    /// The reply is held until row changes are followed, for so long.
    wait: Option<Duration>,
    /// The reply is followed by word of the database's feed.
    feed: bool,
}

/// What `config` asks for.
struct Asked {
    private: bool,
    ack: bool,
    echo: bool,
    presence: bool,
    presence_key: String,
    replay: bool,
    wish: Result<Option<Wish>, &'static str>,
    feed: bool,
    echoed: Vec<Value>,
    bindings: Result<Vec<Binding>, String>,
    wait: Option<Duration>,
}

/// What was found out about a join before anything of it is known to others.
struct Judged {
    token: Option<String>,
    claims: Arc<Claims>,
    reads: Reads,
    wish: Option<Wish>,
}

/// Lets a channel in, or says why not.
pub(crate) async fn join(
    from: &From<'_>,
    allowed: &RealtimeSettings,
    topic: &str,
    incoming: &Incoming,
    payload: &Value,
) -> Result<Joined, String> {
    let shared = from.shared;
    let asked = asked(payload.get("config").unwrap_or(&Value::Null));
    let rights = shared.realtime.rights();
    let judged = judge(from, allowed, topic, &asked, payload).await?;
    let (line, claims) = (from.line.clone(), judged.claims.clone());
    let mut member = Member::new(line, from.version, topic, asked.private, claims);
    (member.hears, member.sees) = (judged.reads.broadcast, judged.reads.presence == Some(true));
    let id = shared.realtime.add(member);
    // Somebody's rights have changed since the policies were asked: they are asked again before anything is told.
    shared.realtime.pause_if_changed(id, rights);
    let echo = json!({"postgres_changes": asked.echoed});
    let mut first = vec![answers::reply(incoming, "ok", echo)];
    let bindings = asked.bindings.unwrap_or_else(|reason| {
        first.push(answers::system(
            &incoming.topic,
            "postgres_changes",
            "error",
            &reason,
        ));
        Vec::new()
    });
    let replayed = match replayed(shared, topic, judged.wish, &mut first).await {
        Ok(replayed) => replayed,
        Err(reason) => {
            shared.realtime.remove(id);
            return Err(reason);
        }
    };
    let channel = Channel {
        id,
        topic: topic.to_owned(),
        // Serializer 1.0.0 may leave `join_ref` out: the join's own `ref` stands for it.
        join_ref: incoming.join_ref.clone().or_else(|| incoming.reference.clone()),
        private: asked.private,
        claims: judged.claims,
        token: judged.token,
        checked: Instant::now(),
        ack: asked.ack,
        echo: asked.echo,
        reads: judged.reads,
        may_broadcast: None,
        may_show: None,
        presence: Presence {
            key: asked.presence_key,
            enabled: asked.presence,
            shown: None,
            calls: Calls::default(),
        },
        bindings: Arc::new(bindings),
        subscribed: None,
        tokens: Calls::default(),
    };
    let answer = Answer {
        first,
        replayed,
        presence: asked.presence,
        wait: asked.wait.filter(|_| !channel.bindings.is_empty()),
        feed: asked.feed,
    };
    Ok(Joined { channel, answer })
}

/// The hub's rules, the token and the policies, in this order.
async fn judge(
    from: &From<'_>,
    allowed: &RealtimeSettings,
    topic: &str,
    asked: &Asked,
    payload: &Value,
) -> Result<Judged, String> {
    if !allowed.enabled {
        return Err("RealtimeDisabledForTenant: Realtime disabled for this tenant".to_owned());
    }
    if allowed.private_only && !asked.private {
        return Err("PrivateOnly: This project only allows private channels".to_owned());
    }
    let (token, claims) = token(from, payload)?;
    let reads = reads(from.shared, &claims, topic, asked).await?;
    if asked.replay && !asked.private {
        return Err("UnableToReplayMessages: Replay is not allowed for public channels".to_owned());
    }
    if asked.replay && !reads.broadcast {
        return Err(unauthorized(topic));
    }
    let wish = asked
        .wish
        .map_err(|reason| format!("UnableToReplayMessages: {reason}"))?;
    Ok(Judged {
        token,
        claims,
        reads,
        wish,
    })
}

fn asked(config: &Value) -> Asked {
    let list = config.get("postgres_changes").and_then(Value::as_array);
    let (echoed, bindings) = changes::read(list.map(Vec::as_slice).unwrap_or_default());
    let replay = config.pointer("/broadcast/replay");
    let key = match config.pointer("/presence/key") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(key)) => key.clone(),
        Some(other) => other.to_string(),
    };
    let wait = flag(config, "/postgres_changes_options/wait").then(|| {
        let wish = config.pointer("/postgres_changes_options/timeout");
        wish.and_then(Value::as_u64).map_or(WAIT, Duration::from_millis)
    });
    Asked {
        private: flag(config, "/private"),
        ack: flag(config, "/broadcast/ack"),
        echo: flag(config, "/broadcast/self"),
        presence: flag(config, "/presence/enabled"),
        presence_key: if key.is_empty() {
            Uuid::new_v4().to_string()
        } else {
            key
        },
        replay: replay.is_some_and(|replay| !replay.is_null()),
        wish: Wish::read(replay),
        feed: flag(config, "/broadcast/replication_ready"),
        echoed,
        bindings,
        wait: wait.map(|wait| wait.min(WAIT_MAX)),
    }
}

/// A boolean, which clients may also send as text.
fn flag(config: &Value, pointer: &str) -> bool {
    match config.pointer(pointer) {
        Some(Value::Bool(flag)) => *flag,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

/// The token of the join, or the key of the socket where it has none.
fn token(from: &From<'_>, payload: &Value) -> Result<(Option<String>, Arc<Claims>), String> {
    let given = |name: &str| payload.get(name).and_then(Value::as_str);
    let token = given("access_token")
        .or_else(|| given("user_token"))
        .filter(|token| !token.starts_with("sb_"));
    let claims = match token {
        Some(token) => Arc::new(
            channel::verify(from.shared, token)
                .map_err(|fault| format!("{}: {fault}", fault_name(&fault)))?,
        ),
        None => from.claims.clone(),
    };
    // The key of the socket may be a token that has run out since.
    let now_s = from.shared.clock.now().0.div_euclid(1000);
    if let Some(exp) = claims.exp.filter(|exp| *exp <= now_s) {
        let fault = TokenFault::Expired { seconds: now_s - exp };
        return Err(format!("{}: {fault}", fault_name(&fault)));
    }
    Ok((token.map(str::to_owned), claims))
}

fn fault_name(fault: &TokenFault) -> &'static str {
    match fault {
        TokenFault::Malformed { .. } => "MalformedJWT",
        TokenFault::Signature => "JwtSignatureError",
        TokenFault::Expired { .. } | TokenFault::NotYet | TokenFault::Incomplete => "InvalidJWTToken",
    }
}

fn unauthorized(topic: &str) -> String {
    format!("Unauthorized: You do not have permissions to read from this Channel topic: {topic}")
}

/// What a channel may read; on a public one everything.
async fn reads(shared: &Shared, who: &Claims, topic: &str, asked: &Asked) -> Result<Reads, String> {
    if !asked.private {
        return Ok(Reads {
            broadcast: true,
            presence: Some(true),
        });
    }
    match policy::reads(&shared.database, who, topic, asked.presence).await {
        Ok(reads) if reads.broadcast || reads.presence == Some(true) => Ok(reads),
        Ok(_) => Err(unauthorized(topic)),
        Err(Unanswered::NoConnection(reason)) => Err(format!("DatabaseLackOfConnections: {reason}")),
        Err(Unanswered::Trouble(reason)) => Err(format!("QueryCanceled: {reason}")),
    }
}

/// Adds what the join missed to what it is told; the answer is the messages' ids.
async fn replayed(
    shared: &Shared,
    topic: &str,
    wish: Option<Wish>,
    first: &mut Vec<Outgoing>,
) -> Result<HashSet<Uuid>, String> {
    let Some(wish) = wish else {
        return Ok(HashSet::new());
    };
    let kept = replay::kept(shared, topic, wish).await.map_err(|error| {
        tracing::warn!(%error, topic, "messages could not be replayed");
        "UnableToReplayMessages: Realtime was unable to replay messages".to_owned()
    })?;
    let ids = kept.iter().map(|message| message.id).collect();
    first.extend(kept.into_iter().map(|message| Outgoing::Broadcast {
        topic: format!("{PREFIX}{topic}"),
        spoken: message.spoken,
    }));
    Ok(ids)
}

/// What a task that works for a channel has to say to its socket.
pub(crate) struct Note {
    /// Id of the channel in the registry.
    pub id: u64,
    /// The join it began with.
    pub incoming: Incoming,
    pub verdict: Verdict,
}

/// The way to the socket. Boxed: a queue keeps room for many of them, and most sockets never get one.
pub(crate) type Notes = mpsc::Sender<Box<Note>>;

/// What is to be done with the channel.
pub(crate) enum Verdict {
    /// A join with `wait` whose row changes cannot be followed is refused, with this reason.
    Refuse(String),
    /// It ends, with this message.
    Expel(String),
}

impl Answer {
    /// Answers the join, now or when its row changes are followed; the socket gets a note when they are not.
    pub fn give(self, shared: &Arc<Shared>, channel: &mut Channel, incoming: &Incoming, notes: &Notes) {
        if self.feed {
            word_of_feed(shared, channel.id, incoming.clone(), notes.clone());
        }
        let Some(wait) = self.wait else {
            let (id, presence) = (channel.id, self.presence);
            shared.realtime.release(id, &self.first, self.replayed, presence);
            channel.subscribe(shared, Begin::Now);
            return;
        };
        let ends = CancellationToken::new();
        channel.subscribed = Some(ends.clone().drop_guard());
        let (shared, wanted) = (shared.clone(), channel.wanted());
        let (incoming, notes) = (incoming.clone(), notes.clone());
        let tasks = shared.realtime.tasks.clone();
        tasks.spawn(async move {
            let mut published = shared.realtime.published.subscribe();
            let followed = tokio::select! {
                () = ends.cancelled() => return,
                followed = settled(&shared, &mut published, &wanted, wait) => followed,
            };
            let (id, presence) = (wanted.id, self.presence);
            match followed {
                Ok(follows) => {
                    shared.realtime.release(id, &self.first, self.replayed, presence);
                    subscription::live(&shared, &wanted, follows);
                    // From now on the socket looks after it; what it left to this task is done here.
                    if published.has_changed().unwrap_or_default() {
                        subscription::begin(&shared, wanted, Begin::Now, ends);
                    }
                }
                Err(fault) => {
                    shared.realtime.remove(id);
                    let reason = match fault {
                        Unsubscribed::Never(reason) => format!("RealtimeDisabledForConfiguration: {reason}"),
                        Unsubscribed::Later(reason) if reason.starts_with("PostgresChanges") => reason,
                        Unsubscribed::Later(reason) => format!("PostgresChangesSubscribeTimeout: {reason}"),
                    };
                    let verdict = Verdict::Refuse(reason);
                    let note = Note {
                        id,
                        incoming,
                        verdict,
                    };
                    // Without a socket nobody is left to be told.
                    notes.send(Box::new(note)).await.ok();
                }
            }
        });
    }
}

/// What is followed, as it is published when this returns.
async fn settled(
    shared: &Shared,
    published: &mut watch::Receiver<u64>,
    wanted: &Wanted,
    wait: Duration,
) -> Result<Vec<Follow>, Unsubscribed> {
    let until = Instant::now() + wait;
    loop {
        published.mark_unchanged();
        let left = until.saturating_duration_since(Instant::now());
        let follows = subscription::once(shared, wanted, left).await?;
        if !published.has_changed().unwrap_or_default() {
            return Ok(follows);
        }
    }
}

/// Says when messages of the database arrive; ends the wait with the hub.
fn word_of_feed(shared: &Arc<Shared>, id: u64, incoming: Incoming, notes: Notes) {
    let shared = shared.clone();
    let tasks = shared.realtime.tasks.clone();
    let (mut feed, patience) = (
        shared.realtime.feed.subscribe(),
        shared.realtime.settings().feed_wait,
    );
    tasks.spawn(async move {
        let connected = tokio::select! {
            () = shared.realtime.stop.cancelled() => return,
            connected = timeout(patience, feed.wait_for(|connected| *connected)) => connected.is_ok(),
        };
        if connected {
            let message = "Replication connection established";
            let message = answers::system(&incoming.topic, "system", "ok", message);
            shared.realtime.tell(id, &message);
            return;
        }
        let reason = "Replication connection was not established in time".to_owned();
        let note = Note {
            id,
            incoming,
            verdict: Verdict::Expel(reason),
        };
        notes.send(Box::new(note)).await.ok();
    });
}

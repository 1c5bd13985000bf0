//! A client's socket for the stories; messages are shown in one form, whatever the serializer.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hub::RealtimeSettings;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_postgres::Client;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use uuid::Uuid;

use crate::support::{DEADLINE, TestHub};

/// What the stories run with where they say nothing else: refusals are not held back for long.
pub fn quick() -> RealtimeSettings {
    RealtimeSettings {
        refusal_delay: Duration::from_millis(100),
        ..RealtimeSettings::default()
    }
}

pub struct Socket {
    pub wire: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub v2: bool,
    count: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub topic: String,
    pub event: String,
    pub reference: Value,
    pub payload: Value,
}

impl Seen {
    /// Status of a reply.
    pub fn status(&self) -> &str {
        self.payload["status"].as_str().unwrap_or_default()
    }

    /// Reason of an error reply, or message of a `system`.
    pub fn reason(&self) -> &str {
        let reason = self.payload["response"]["reason"].as_str();
        reason.or(self.payload["message"].as_str()).unwrap_or_default()
    }
}

impl Socket {
    /// With the publishable key and quick refusals.
    pub async fn open(hub: &TestHub, v2: bool) -> Socket {
        hub.hub().set_realtime(quick());
        Socket::open_as(hub, v2, &hub.publishable).await
    }

    /// As the hub's settings are.
    pub async fn open_as(hub: &TestHub, v2: bool, key: &str) -> Socket {
        let vsn = if v2 { "2.0.0" } else { "1.0.0" };
        let (wire, _) = connect_async(address(hub, &format!("apikey={key}&vsn={vsn}")))
            .await
            .unwrap();
        Socket { wire, v2, count: 5 }
    }

    /// Of a connection that was made otherwise, with serializer 2.0.0.
    pub fn of(wire: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Socket {
        Socket {
            wire,
            v2: true,
            count: 5,
        }
    }

    /// Both serializers.
    pub async fn both(hub: &TestHub) -> [Socket; 2] {
        [Socket::open(hub, false).await, Socket::open(hub, true).await]
    }

    pub async fn send(&mut self, topic: &str, event: &str, payload: Value) -> Value {
        self.count += 1;
        let reference = json!(self.count.to_string());
        self.say(topic, event, payload, &reference, &reference).await;
        reference
    }

    /// With references of the story's own.
    pub async fn say(
        &mut self,
        topic: &str,
        event: &str,
        payload: Value,
        reference: &Value,
        join_ref: &Value,
    ) {
        let text = if self.v2 {
            json!([join_ref, reference, topic, event, payload])
        } else {
            json!({"topic": topic, "event": event, "payload": payload, "ref": reference, "join_ref": join_ref})
        };
        self.text(&text.to_string()).await;
    }

    pub async fn text(&mut self, text: &str) {
        self.wire.send(Message::Text(text.into())).await.unwrap();
    }

    /// A broadcast as the newest official client sends it (kind 3).
    pub async fn user_push(
        &mut self,
        topic: &str,
        event: &str,
        metadata: &str,
        encoding: u8,
        payload: &[u8],
    ) {
        let length = |text: &str| u8::try_from(text.len()).unwrap();
        let mut frame = vec![3, 1, 1, length(topic), length(event), length(metadata), encoding];
        for part in ["6", "7", topic, event, metadata] {
            frame.extend_from_slice(part.as_bytes());
        }
        frame.extend_from_slice(payload);
        self.wire.send(Message::Binary(frame.into())).await.unwrap();
    }

    /// The next message, a close frame as event `closed <code>`, the end of the connection as `gone`.
    pub async fn next(&mut self) -> Seen {
        let frame = tokio::time::timeout(DEADLINE, self.wire.next())
            .await
            .expect("a frame in time");
        match frame {
            Some(Ok(Message::Text(text))) => self.seen_text(&text),
            Some(Ok(Message::Binary(bytes))) => seen_binary(&bytes),
            Some(Ok(Message::Close(frame))) => {
                let code = frame.map_or(0, |frame| u16::from(frame.code));
                ended(&format!("closed {code}"))
            }
            None | Some(Err(_)) => ended("gone"),
            Some(Ok(other)) => panic!("{other:?}"),
        }
    }

    fn seen_text(&self, text: &str) -> Seen {
        let value: Value = serde_json::from_str(text).unwrap();
        let seen = |topic: &Value, event: &Value, reference: &Value, payload: &Value| Seen {
            topic: topic.as_str().unwrap_or_default().to_owned(),
            event: event.as_str().unwrap_or_default().to_owned(),
            reference: reference.clone(),
            payload: payload.clone(),
        };
        if self.v2 {
            assert_eq!(value.as_array().unwrap().len(), 5);
            return seen(&value[2], &value[3], &value[1], &value[4]);
        }
        let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        // One client drops messages without `ref`.
        assert_eq!(keys, ["event", "payload", "ref", "topic"]);
        seen(&value["topic"], &value["event"], &value["ref"], &value["payload"])
    }

    pub async fn until(&mut self, event: &str) -> Seen {
        loop {
            let seen = self.next().await;
            if seen.event == event {
                return seen;
            }
            assert!(
                seen.event != "gone" && !seen.event.starts_with("closed"),
                "{event} was waited for, but {seen:?}"
            );
        }
    }

    /// The code of the close frame, whatever comes before.
    pub async fn closes(&mut self) -> String {
        loop {
            let seen = self.next().await;
            if seen.event == "gone" || seen.event.starts_with("closed") {
                return seen.event;
            }
        }
    }

    /// Nothing of what was done before reaches this socket. Proven without waiting: row changes that were captured have
    /// been told when they are gone, and messages are told in their order, so that two that are sent now come after all
    /// others.
    pub async fn hears_nothing(&mut self, hub: &TestHub) {
        all_told(&hub.admin().await).await;
        let name = format!("sentinel-{}", Uuid::new_v4());
        let wire_topic = format!("realtime:{name}");
        let reference = self.send(&wire_topic, "phx_join", json!({})).await;
        let seen = self.next_said().await;
        assert_eq!(
            (seen.event.as_str(), &seen.reference),
            ("phx_reply", &reference),
            "{seen:?}"
        );
        let admin = hub.admin().await;
        for _ in 0..2 {
            admin
                .execute("select realtime.send('{}', 'sentinel', $1, false)", &[&name])
                .await
                .unwrap();
            let seen = self.next_said().await;
            assert_eq!(
                (seen.event.as_str(), &seen.topic),
                ("broadcast", &wire_topic),
                "{seen:?}"
            );
        }
    }

    /// The next message but the word that row changes are followed, which comes again whenever any story publishes a table.
    pub async fn next_said(&mut self) -> Seen {
        loop {
            let seen = self.next().await;
            if seen.event != "system" || seen.reason() != "Subscribed to PostgreSQL" {
                return seen;
            }
        }
    }

    pub async fn join(&mut self, topic: &str, token: &str, config: Value) -> Seen {
        let payload = json!({"config": config, "access_token": token});
        let reference = self.send(topic, "phx_join", payload).await;
        loop {
            let seen = self.until("phx_reply").await;
            if seen.reference == reference {
                return seen;
            }
        }
    }

    /// Joins and must be let in.
    pub async fn joined(&mut self, topic: &str, token: &str, config: Value) -> Value {
        let reply = self.join(topic, token, config).await;
        assert_eq!(reply.status(), "ok", "{reply:?}");
        reply.payload["response"].clone()
    }
}

fn seen_binary(bytes: &[u8]) -> Seen {
    let lengths: Vec<usize> = bytes[1..]
        .iter()
        .take(3)
        .map(|length| usize::from(*length))
        .collect();
    let text = |from: usize, length: usize| String::from_utf8(bytes[from..from + length].to_vec()).unwrap();
    let (topic, payload) = match bytes[0] {
        2 => (
            text(3, lengths[0]),
            json!({"bytes": &bytes[3 + lengths[0] + lengths[1]..]}),
        ),
        4 => {
            let (topic, event, meta) = (lengths[0], lengths[1], lengths[2]);
            let rest = &bytes[5 + topic + event + meta..];
            let body = match bytes[4] {
                1 => serde_json::from_slice(rest).unwrap(),
                _ => json!({"bytes": rest}),
            };
            let told: Value = serde_json::from_str(&text(5 + topic + event, meta)).unwrap_or_default();
            let mut payload = json!({"type": "broadcast", "event": text(5 + topic, event), "payload": body});
            if !told.is_null() {
                payload["meta"] = told;
            }
            (text(5, topic), payload)
        }
        other => panic!("a binary frame of kind {other}"),
    };
    Seen {
        topic,
        event: "broadcast".to_owned(),
        reference: Value::Null,
        payload,
    }
}

fn ended(event: &str) -> Seen {
    Seen {
        topic: String::new(),
        event: event.to_owned(),
        reference: Value::Null,
        payload: Value::Null,
    }
}

/// Waits until every row change that was captured has been told.
pub async fn all_told(admin: &Client) {
    let newest = "select coalesce(max(id), 0) from realtime.hub_changes";
    let newest: i64 = admin.query_one(newest, &[]).await.unwrap().get(0);
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let left = "select exists (select 1 from realtime.hub_changes where id <= $1)";
    while admin.query_one(left, &[&newest]).await.unwrap().get(0) {
        assert!(tokio::time::Instant::now() < deadline, "row changes are not told");
        tokio::task::yield_now().await;
    }
}

pub fn address(hub: &TestHub, query: &str) -> String {
    format!(
        "{}/realtime/v1/websocket?{query}",
        hub.url.replace("http://", "ws://")
    )
}

pub fn topic(office: Uuid) -> String {
    format!("realtime:office:{office}:commands")
}

pub fn private() -> Value {
    json!({"private": true, "broadcast": {"self": false, "ack": true}})
}

/// A topic of its own: without and with its prefix.
pub fn room() -> (String, String) {
    let name = format!("room-{}", Uuid::new_v4());
    (name.clone(), format!("realtime:{name}"))
}

/// Lets `authenticated` do on `topic` what `rights` says: pairs of an extension and `select` or `insert`, each for one
/// person or everybody.
pub async fn policies(admin: &Client, topic: &str, rights: &[(&str, &str, Option<Uuid>)]) {
    for (extension, command, person) in rights {
        let check = if *command == "select" {
            "using"
        } else {
            "with check"
        };
        let who = person.map_or("true".to_owned(), |id| format!("auth.uid() = '{id}'"));
        let name = Uuid::new_v4();
        admin
            .batch_execute(&format!(
                "create policy \"{name}\" on realtime.messages for {command} to authenticated
                 {check} (extension = '{extension}' and realtime.topic() = '{topic}' and {who})"
            ))
            .await
            .unwrap();
    }
}

//! Limits and the ways a socket ends. On a hub of their own: settings hold for all sockets of a hub.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use hub::RealtimeSettings;
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::{DEADLINE, TestHub, on_own_hub};
use crate::wire::{Socket, address, quick, room};

/// One at a time: each takes a Postgres of its own.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn set(hub: &TestHub, change: impl FnOnce(&mut RealtimeSettings)) {
    let mut settings = quick();
    change(&mut settings);
    hub.hub().set_realtime(settings);
}

async fn open(hub: &TestHub) -> Socket {
    Socket::open_as(hub, true, &hub.publishable).await
}

/// Comes with the publishable key and goes; the refusal if there is one.
pub async fn handshake(hub: &TestHub) -> Option<(u16, Value)> {
    match connect_async(address(hub, &format!("apikey={}", hub.publishable))).await {
        Ok(_) => None,
        Err(Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            Some((response.status().as_u16(), body))
        }
        Err(other) => panic!("{other}"),
    }
}

fn hi() -> Value {
    json!({"type": "broadcast", "event": "hi", "payload": {}})
}

#[test]
fn what_one_socket_may_do_is_limited_and_the_others_do_not_suffer() {
    let _alone = alone();
    on_own_hub(
        |_| {},
        async |hub| {
            let (_, name) = room();
            set(&hub, |settings| {
                settings.channels_max = 2;
                settings.messages_per_second = 3;
                settings.rate_window = Duration::from_secs(2);
            });
            let (mut loud, mut other) = (open(&hub).await, open(&hub).await);
            for socket in [&mut loud, &mut other] {
                socket.joined(&name, &hub.publishable, json!({})).await;
            }
            loud.joined(&room().1, &hub.publishable, json!({})).await;
            let refused = loud.join(&room().1, &hub.publishable, json!({})).await;
            assert_eq!(refused.reason(), "ChannelRateLimitReached: Too many channels");
            for _ in 0..20 {
                loud.send(&name, "broadcast", hi()).await;
            }
            let system = loud.until("system").await;
            assert_eq!(system.reason(), "Too many messages per second");
            assert_eq!(loud.next().await.event, "phx_close");
            let heard = other.until("broadcast").await;
            assert_eq!(heard.payload, hi());
            other.send(&name, "phx_leave", json!({})).await;
            other.until("phx_close").await;

            let mut joiner = open(&hub).await;
            set(&hub, |settings| {
                settings.joins_per_second = 5;
                settings.rate_window = Duration::from_secs(1);
            });
            for _ in 0..10 {
                joiner.send(&name, "phx_join", json!({})).await;
            }
            let told = loop {
                let seen = joiner.until("phx_reply").await;
                if seen.status() == "error" {
                    break seen;
                }
            };
            assert_eq!(
                told.reason(),
                "ClientJoinRateLimitReached: Too many joins per second"
            );
            assert_eq!(joiner.closes().await, "closed 1001");
            // His joins are no handshakes: others still come in.
            open(&hub).await;
        },
    );
}

#[test]
fn sockets_are_counted_the_silent_and_the_idle_are_closed() {
    let _alone = alone();
    on_own_hub(
        |_| {},
        async |hub| {
            set(&hub, |settings| settings.sockets_max = 1);
            let held = open(&hub).await;
            let expected = (429, json!({"error": "Too many connected users"}));
            assert_eq!(handshake(&hub).await, Some(expected));
            drop(held);
            let began = Instant::now();
            while handshake(&hub).await.is_some() {
                assert!(began.elapsed() < DEADLINE, "the place was not given back");
            }
            // However long it takes to join: short times hold from a socket's next word on.
            const SHORT: Duration = Duration::from_millis(300);
            set(&hub, |_| {});
            let mut silent = open(&hub).await;
            silent.joined(&room().1, &hub.publishable, json!({})).await;
            set(&hub, |settings| settings.idle_max = SHORT);
            silent.send("phoenix", "heartbeat", json!({})).await;
            assert_eq!(silent.closes().await, "closed 1000");
            set(&hub, |_| {});
            let mut left = open(&hub).await;
            let (_, name) = room();
            left.joined(&name, &hub.publishable, json!({})).await;
            set(&hub, |settings| settings.channelless_max = SHORT);
            let mut idle = open(&hub).await;
            assert_eq!(idle.closes().await, "closed 1001");
            left.send(&name, "phx_leave", json!({})).await;
            assert_eq!(left.closes().await, "closed 1001");
        },
    );
}

#[test]
fn a_change_of_the_rules_sends_everybody_back_and_the_end_of_the_hub_closes_without_closing_channels() {
    let _alone = alone();
    on_own_hub(
        |_| {},
        async |hub| {
            set(&hub, |_| {});
            let (topic, name) = room();
            let mut socket = open(&hub).await;
            socket.joined(&name, &hub.publishable, json!({})).await;
            set(&hub, |settings| settings.private_only = true);
            let told = socket.next().await;
            let expected = json!({"extension": "system", "status": "ok", "message": "Server requested disconnect",
                              "channel": topic});
            assert_eq!(told.payload, expected);
            assert_eq!(socket.next().await.event, "closed 1012", "and no phx_close");
            let mut socket = open(&hub).await;
            let refusal = socket.join(&name, &hub.publishable, json!({})).await;
            assert_eq!(
                refusal.reason(),
                "PrivateOnly: This project only allows private channels"
            );
            set(&hub, |settings| settings.enabled = false);
            assert_eq!(socket.closes().await, "closed 1012");
            let expected = (403, json!({"error": "Realtime was disabled for this tenant"}));
            assert_eq!(handshake(&hub).await, Some(expected));
            set(&hub, |_| {});
            // A lost feed may have lost messages: clients are sent to read again.
            let mut socket = open(&hub).await;
            socket.joined(&name, &hub.publishable, json!({})).await;
            let admin = hub.admin().await;
            admin
                .execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity
                 where pid <> pg_backend_pid() and query like '%listen hub_broadcast%'",
                    &[],
                )
                .await
                .unwrap();
            assert_eq!(socket.next().await.event, "closed 1012", "and no phx_close");
            let mut socket = open(&hub).await;
            socket.joined(&name, &hub.publishable, json!({})).await;
            socket.hears_nothing(&hub).await;
        },
    );
}

#[test]
fn who_does_not_read_is_cut_off_and_who_sends_too_much_at_once_as_well() {
    let _alone = alone();
    on_own_hub(
        |_| {},
        async |hub| {
            set(&hub, |settings| settings.messages_per_second = 1000);
            let (_, name) = room();
            let (mut slow, mut loud) = (open(&hub).await, open(&hub).await);
            slow.joined(&name, &hub.publishable, json!({})).await;
            let ack = json!({"broadcast": {"ack": true}});
            loud.joined(&name, &hub.publishable, ack).await;
            let push = json!({"type": "broadcast", "event": "e", "payload": {"x": "x".repeat(1_000_000)}});
            for _ in 0..40 {
                loud.send(&name, "broadcast", push.clone()).await;
                assert_eq!(
                    loud.until("phx_reply").await.status(),
                    "ok",
                    "the sender does not wait"
                );
            }
            // What reached the slow one is less than what was sent.
            let mut heard = 0;
            let end = loop {
                let seen = slow.next().await;
                if seen.event == "broadcast" {
                    heard += 1;
                } else {
                    break seen.event;
                }
            };
            assert!(heard < 40, "{heard}");
            assert!(end == "closed 1013" || end == "gone", "{end}");

            let frame = Message::Text("x".repeat(5_000_001).into());
            // The hub may hang up before all of it is sent.
            loud.wire.send(frame).await.ok();
            let end = loop {
                match loud.wire.next().await {
                    Some(Ok(Message::Close(frame))) => break frame.map(|frame| u16::from(frame.code)),
                    None | Some(Err(_)) => break None,
                    Some(Ok(_)) => {}
                }
            };
            assert!(end.is_none_or(|code| code == 1009), "{end:?}");
        },
    );
}

#[test]
fn posts_are_limited_too() {
    let _alone = alone();
    on_own_hub(
        |_| {},
        async |hub| {
            set(&hub, |settings| {
                settings.messages_per_second = 1;
                settings.rate_window = Duration::from_secs(3);
            });
            let body = json!({"messages": [{"topic": "t", "event": "e", "payload": {}}]});
            let mut last = (0, Value::Null);
            for _ in 0..10 {
                let request = hub
                    .request(&hub.anon(), reqwest::Method::POST, "/realtime/v1/api/broadcast")
                    .json(&body);
                last = crate::support::answer(request).await;
                if last.0 != 202 {
                    break;
                }
            }
            assert_eq!(
                last,
                (429, json!({"message": "You have exceeded your rate limit"}))
            );
        },
    );
}

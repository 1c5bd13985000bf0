//! How much one network, one user and one channel may take, so that something is left for the others.

use std::time::Duration;

use futures_util::SinkExt as _;
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, client_async, connect_async};

use crate::limits::{alone, handshake, set};
use crate::support::{DEADLINE, TestHub, on_hub, on_own_hub};
use crate::wire::{Socket, address, room};

/// A connection to the hub from another address of this machine.
async fn from_elsewhere(hub: &TestHub) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let (_, port) = hub.url.rsplit_once(':').unwrap();
    let there = format!("127.0.0.1:{port}").parse().unwrap();
    socket.connect(there).await.unwrap()
}

async fn open(hub: &TestHub) -> Socket {
    Socket::open_as(hub, true, &hub.publishable).await
}

#[test]
fn one_network_cannot_take_the_places_of_the_others() {
    let _alone = alone();
    on_own_hub(
        |_| {},
        async |hub| {
            set(&hub, |settings| settings.sockets_per_network_max = 2);
            let _held = [open(&hub).await, open(&hub).await];
            let crowded = (429, json!({"error": "Too many connected users"}));
            assert_eq!(handshake(&hub).await, Some(crowded));
            let stream = MaybeTlsStream::Plain(from_elsewhere(&hub).await);
            let key = format!("apikey={}&vsn=2.0.0", hub.publishable);
            let (wire, _) = client_async(address(&hub, &key), stream).await.unwrap();
            let mut other = Socket::of(wire);
            other.joined(&room().1, &hub.publishable, json!({})).await;
            // Nor can it keep them out by coming again and again.
            set(&hub, |settings| {
                settings.handshakes_per_second = 1;
                settings.rate_window = Duration::from_secs(5);
            });
            let deadline = Instant::now() + DEADLINE;
            let often = (429, json!({"error": "Too many joins per second"}));
            while handshake(&hub).await != Some(often.clone()) {
                assert!(Instant::now() < deadline, "it comes in as often as it likes");
            }
            let stream = MaybeTlsStream::Plain(from_elsewhere(&hub).await);
            assert!(client_async(address(&hub, &key), stream).await.is_ok());
        },
    );
}

#[test]
fn one_user_has_so_many_sockets_however_he_comes_to_them() {
    let _alone = alone();
    on_own_hub(
        |_| {},
        async |hub| {
            set(&hub, |settings| settings.sockets_per_user_max = 1);
            let (one, other) = (hub.person().await, hub.person().await);
            let mut first = open(&hub).await;
            for _ in 0..3 {
                // Channels of one socket count once.
                first.joined(&room().1, &one.token, json!({})).await;
            }
            let mut second = open(&hub).await;
            let refused = second.join(&room().1, &one.token, json!({})).await;
            assert_eq!(
                refused.reason(),
                "ConnectionRateLimitReached: Too many connected users"
            );
            let (topic, name) = room();
            second.joined(&name, &other.token, json!({})).await;
            second
                .send(&name, "access_token", json!({"access_token": one.token}))
                .await;
            let system = second.until("system").await;
            assert_eq!(
                (system.reason(), &system.payload["channel"]),
                ("Too many connected users", &json!(topic))
            );
            assert_eq!(second.next().await.event, "phx_close");
            drop(first);
            let deadline = Instant::now() + DEADLINE;
            while second.join(&room().1, &one.token, json!({})).await.status() != "ok" {
                assert!(Instant::now() < deadline, "the place was not given back");
            }
        },
    );
}

#[test]
fn who_joins_nothing_has_less_time_while_it_is_crowded() {
    let _alone = alone();
    on_own_hub(
        |_| {},
        async |hub| {
            set(&hub, |_| {});
            let mut idle = open(&hub).await;
            let mut member = open(&hub).await;
            let (_, name) = room();
            member.joined(&name, &hub.publishable, json!({})).await;
            set(&hub, |settings| {
                settings.sockets_max = 3;
                settings.channelless_crowded_max = Duration::ZERO;
            });
            // Its next sign of life is the occasion.
            idle.send("phoenix", "heartbeat", json!({})).await;
            assert_eq!(idle.closes().await, "closed 1001");
            member.hears_nothing(&hub).await;
        },
    );
}

#[test]
fn large_frames_are_for_who_has_joined_and_of_one_network_for_a_few() {
    let _alone = alone();
    on_own_hub(
        |_| {},
        async |hub| {
            set(&hub, |_| {});
            let large =
                || json!({"type": "broadcast", "event": "e", "payload": {"x": "x".repeat(2_900_000)}});
            let mut stranger = open(&hub).await;
            // The hub may hang up before all of it is sent.
            let frame = json!(["1", "1", "realtime:nowhere", "broadcast", large()]);
            stranger
                .wire
                .send(Message::Text(frame.to_string().into()))
                .await
                .ok();
            let end = stranger.closes().await;
            assert!(end == "closed 1009" || end == "gone", "{end}");
            let mut kept = Vec::new();
            let refused = loop {
                let mut socket = open(&hub).await;
                // Its own: nobody has to read what the others say.
                let (_, name) = room();
                let config = json!({"broadcast": {"ack": true}});
                socket.joined(&name, &hub.publishable, config).await;
                let frame = json!(["1", "1", name, "broadcast", large()]);
                socket
                    .wire
                    .send(Message::Text(frame.to_string().into()))
                    .await
                    .unwrap();
                let seen = socket.next().await;
                if seen.event != "phx_reply" {
                    break seen.event;
                }
                assert_eq!(seen.status(), "ok");
                kept.push(socket);
                assert!(kept.len() < 40, "as many as they like");
            };
            assert!(refused == "closed 1013" || refused == "gone", "{refused}");
            assert!(kept.len() >= 20, "{}", kept.len());
            drop(kept);
            let mut other = open(&hub).await;
            other.hears_nothing(&hub).await;
        },
    );
}

#[test]
fn new_tokens_of_a_channel_are_counted() {
    on_hub(async |hub| {
        let person = hub.person().await;
        let mut socket = Socket::open(&hub, true).await;
        let (flooded, quiet) = (room().1, room().1);
        for name in [&flooded, &quiet] {
            socket.joined(name, &person.token, json!({})).await;
        }
        for life_s in 0..30 {
            let token = hub.user_token(person.id, 1000 + life_s);
            socket
                .send(&flooded, "access_token", json!({"access_token": token}))
                .await;
        }
        let system = socket.until("system").await;
        assert_eq!(system.reason(), "Too many access tokens");
        assert_eq!(socket.until("phx_close").await.topic, flooded);
        let left = socket.send(&quiet, "phx_leave", json!({})).await;
        loop {
            let seen = socket.until("phx_reply").await;
            if seen.reference == left {
                assert_eq!(seen.status(), "ok");
                break;
            }
        }
    });
}

#[test]
fn a_secret_key_in_a_browser_opens_no_socket() {
    on_hub(async |hub| {
        let file = hub.hub().keys();
        for (key, agent, status) in [
            (&file.secret, "Mozilla/5.0 (X11; Linux x86_64)", 401),
            (&file.service_role_jwt, "Mozilla/5.0 (Macintosh)", 401),
            (&file.publishable, "Mozilla/5.0 (X11; Linux x86_64)", 101),
            (&file.secret, "node", 101),
        ] {
            let mut request = address(&hub, &format!("apikey={key}"))
                .into_client_request()
                .unwrap();
            let agent = agent.parse().unwrap();
            request.headers_mut().insert("user-agent", agent);
            let answered = match connect_async(request).await {
                Ok(_) => 101,
                Err(Error::Http(response)) => response.status().as_u16(),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(answered, status);
        }
    });
}

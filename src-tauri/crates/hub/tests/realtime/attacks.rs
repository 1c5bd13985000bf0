//! What somebody tries who is not meant to: floods of joins, foreign rooms, hostile names, garbage.

use futures_util::SinkExt as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::support::on_hub;
use crate::wire::{Socket, private, room, topic};

#[test]
fn ten_thousand_joins_on_one_socket_are_bounded_and_the_hub_lives_on() {
    on_hub(async |hub| {
        let mut flood = Socket::open(&hub, true).await;
        let room = Uuid::new_v4();
        let (mut sent, mut failed) = (0, false);
        for number in 0..10_000 {
            let text = json!([
                "1",
                number.to_string(),
                format!("realtime:{room}-{number}"),
                "phx_join",
                {}
            ]);
            let text = text.to_string();
            if flood.wire.send(Message::Text(text.into())).await.is_err() {
                failed = true;
                break;
            }
            sent += 1;
        }
        assert!(failed || sent == 10_000);
        let (mut joined, mut refused) = (0, 0);
        let end = loop {
            let seen = flood.next().await;
            match (seen.event.as_str(), seen.status()) {
                ("phx_reply", "ok") => joined += 1,
                ("phx_reply", _) => refused += 1,
                _ => break seen.event,
            }
        };
        assert!(joined <= 100 && refused <= 200, "{joined} {refused}");
        assert!(end == "closed 1001" || end == "gone", "{end}");
        let mut other = Socket::open(&hub, false).await;
        other.hears_nothing(&hub).await;
    });
}

#[test]
fn members_of_another_office_strangers_and_anonymous_ones_join_send_and_show_nothing() {
    on_hub(async |hub| {
        let (office, owner) = hub.office().await;
        let (_, other) = hub.office().await;
        let viewer = hub.member(office, "viewer").await;
        let mut listener = Socket::open(&hub, true).await;
        let config = json!({"private": true, "presence": {"enabled": true}});
        listener
            .joined(&topic(office), &owner.token, config.clone())
            .await;
        for person in [hub.anon(), other, hub.person().await] {
            let mut socket = Socket::open(&hub, true).await;
            for config in [private(), config.clone()] {
                let refused = socket.join(&topic(office), &person.token, config).await;
                assert!(refused.reason().starts_with("Unauthorized"), "{refused:?}");
            }
            // A push without a channel.
            let track = json!({"type": "presence", "event": "track", "payload": {}});
            socket.send(&topic(office), "presence", track).await;
            assert_eq!(socket.next().await.reason(), "unmatched topic");
        }
        // A viewer hears and says nothing.
        let mut socket = Socket::open(&hub, true).await;
        socket.joined(&topic(office), &viewer.token, private()).await;
        let push = json!({"type": "broadcast", "event": "command", "payload": {}});
        socket.send(&topic(office), "broadcast", push).await;
        let track = json!({"type": "presence", "event": "track", "payload": {}});
        socket.send(&topic(office), "presence", track).await;
        assert_eq!(socket.next().await.status(), "error");
        listener.hears_nothing(&hub).await;
    });
}

#[test]
fn hostile_topics_and_values_are_only_text() {
    on_hub(async |hub| {
        let person = hub.person().await;
        for hostile in [
            "'; drop table realtime.messages; --",
            "office:'||auth.uid()||':commands",
            "%",
            "\\",
            "${jndi}",
            "a\u{0}b",
            "\u{202e}txt",
            "office:00000000-0000-0000-0000-000000000000:commands",
        ] {
            for mut socket in Socket::both(&hub).await {
                let name = format!("realtime:{hostile}");
                let refused = socket.join(&name, &person.token, json!({"private": true})).await;
                assert_eq!(refused.status(), "error", "{hostile:?}");
                // In public it is a room like another.
                socket.joined(&name, &person.token, json!({})).await;
                socket.send(&name, "phx_leave", json!({})).await;
                socket.until("phx_close").await;
                let binding =
                    json!({"event": hostile, "schema": hostile, "table": hostile, "filter": hostile});
                let config =
                    json!({"postgres_changes": [binding], "presence": {"key": hostile, "enabled": true}});
                socket.joined(&name, &person.token, config).await;
                assert_eq!(socket.until("system").await.payload["status"], "error");
            }
        }
        let admin = hub.admin().await;
        let there = "select count(*) from realtime.messages where topic like '%drop%'";
        assert_eq!(admin.query_one(there, &[]).await.unwrap().get::<_, i64>(0), 0);
    });
}

#[test]
fn a_seeded_storm_of_frames_leaves_the_socket_answering() {
    on_hub(async |hub| {
        let mut random = StdRng::seed_from_u64(41);
        for v2 in [false, true] {
            let mut socket = Socket::open(&hub, v2).await;
            let (_, name) = room();
            let config = json!({"broadcast": {"ack": true, "self": true}});
            socket.joined(&name, &hub.publishable, config).await;
            let words = [
                "phx_leave",
                "broadcast",
                "presence",
                "access_token",
                "phx_close",
                "x",
                "",
            ];
            for _ in 0..300 {
                let length = random.random_range(0..40);
                let mut noise: Vec<u8> = (0..length).map(|_| random.random()).collect();
                let word = words[random.random_range(0..words.len())];
                let payload = match random.random_range(0..4) {
                    0 => json!(null),
                    1 => json!([word]),
                    2 => json!({"event": word, "payload": word, "type": 7, "access_token": 7}),
                    _ => json!(word),
                };
                let other = if random.random_bool(0.5) {
                    name.as_str()
                } else {
                    "realtime:other"
                };
                let frame = match random.random_range(0..3) {
                    0 => Message::Binary(noise.into()),
                    1 => {
                        if let Some(kind) = noise.first_mut() {
                            *kind = 3;
                        }
                        Message::Binary(noise.into())
                    }
                    _ => Message::Text(json!([null, word, other, word, payload]).to_string().into()),
                };
                socket.wire.send(frame).await.unwrap();
            }
            let beat = socket.send("phoenix", "heartbeat", json!({})).await;
            loop {
                let seen = socket.next().await;
                if seen.topic == "phoenix" && seen.reference == beat {
                    break;
                }
                assert_ne!(seen.event, "gone");
            }
        }
    });
}

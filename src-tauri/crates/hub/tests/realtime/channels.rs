//! Joining, leaving, joining again, heartbeats, and the echo of what is followed.

use serde_json::{Value, json};

use crate::support::on_hub;
use crate::wire::{Socket, room};

#[test]
fn a_join_is_answered_in_order_reply_presence_word() {
    on_hub(async |hub| {
        let person = hub.person().await;
        for mut socket in Socket::both(&hub).await {
            let (topic, name) = room();
            let one = json!({"event": "INSERT", "schema": "public", "table": "agent_commands", "filter": "kind=eq.x"});
            let two = json!({"event": "*", "schema": "public", "table": "agent_commands"});
            let config = json!({"broadcast": null, "presence": {"enabled": "true", "key": 7}, "unknown": [1],
                                "postgres_changes": [one, null, two, one]});
            let payload = json!({"config": config, "access_token": person.token, "version": "any/1"});
            let reference = socket.send(&name, "phx_join", payload).await;
            let reply = socket.next().await;
            assert_eq!(
                (reply.event.as_str(), &reply.reference),
                ("phx_reply", &reference)
            );
            let echo = reply.payload["response"]["postgres_changes"]
                .as_array()
                .unwrap()
                .clone();
            assert_eq!(echo.len(), 3, "in order, nulls left out");
            for (asked, echoed) in [&one, &two, &one].iter().zip(&echo) {
                for (key, value) in asked.as_object().unwrap() {
                    assert_eq!(&echoed[key], value);
                }
                assert!(echoed["id"].as_u64().is_some_and(|id| id > 0 && id < 1 << 27));
            }
            assert_eq!(echo[0]["id"], echo[2]["id"]);
            assert_eq!(socket.next().await.event, "presence_state");
            let system = socket.next().await;
            let expected = json!({"extension": "postgres_changes", "status": "ok",
                                  "message": "Subscribed to PostgreSQL", "channel": topic});
            assert_eq!((&system.payload, &system.reference), (&expected, &Value::Null));
        }
    });
}

#[test]
fn nothing_at_all_and_nonsense_in_the_config_are_joins_all_the_same() {
    on_hub(async |hub| {
        for payload in [
            json!({}),
            Value::Null,
            json!({"config": 7}),
            json!({"config": {"private": "maybe"}}),
        ] {
            let mut socket = Socket::open(&hub, true).await;
            let (_, name) = room();
            socket.send(&name, "phx_join", payload.clone()).await;
            let reply = socket.next().await;
            let expected = json!({"status": "ok", "response": {"postgres_changes": []}});
            assert_eq!(reply.payload, expected, "{payload}");
        }
    });
}

#[test]
fn joining_again_closes_the_old_and_answers_the_new() {
    on_hub(async |hub| {
        for mut socket in Socket::both(&hub).await {
            let (_, name) = room();
            let config = json!({"broadcast": {"self": true}});
            let payload = json!({"config": config, "access_token": hub.publishable});
            let old = socket.send(&name, "phx_join", payload.clone()).await;
            socket.until("phx_reply").await;
            let new = socket.send(&name, "phx_join", payload).await;
            let closed = socket.next().await;
            assert_eq!((closed.event.as_str(), &closed.reference), ("phx_close", &old));
            let reply = socket.next().await;
            assert_eq!((reply.status(), &reply.reference), ("ok", &new));
            let push = json!({"type": "broadcast", "event": "e", "payload": {}});
            socket.send(&name, "broadcast", push).await;
            socket.until("broadcast").await;
            let left = socket.send(&name, "phx_leave", json!({})).await;
            let reply = socket.next().await;
            assert_eq!(
                (reply.status(), &reply.reference),
                ("ok", &left),
                "only once was it heard"
            );
            let closed = socket.next().await;
            assert_eq!((closed.event.as_str(), &closed.reference), ("phx_close", &new));
            // Nobody is there any more, and that is fine.
            let left = socket.send(&name, "phx_leave", json!({})).await;
            let reply = socket.next().await;
            assert_eq!((reply.status(), &reply.reference), ("ok", &left));
            socket.hears_nothing(&hub).await;
        }
    });
}

#[test]
fn heartbeats_are_answered_and_other_words_to_phoenix_are_not_understood() {
    on_hub(async |hub| {
        for mut socket in Socket::both(&hub).await {
            for reference in [Value::Null, json!("10")] {
                socket
                    .say("phoenix", "heartbeat", json!({}), &reference, &Value::Null)
                    .await;
                let reply = socket.next().await;
                assert_eq!((reply.status(), &reply.reference), ("ok", &reference));
                assert_eq!(reply.topic, "phoenix");
            }
            for (topic, event) in [
                ("phoenix", "dance"),
                ("other", "phx_join"),
                (room().1.as_str(), "broadcast"),
            ] {
                socket.send(topic, event, json!({})).await;
                assert_eq!(socket.next().await.reason(), "unmatched topic");
            }
            socket.send("realtime:", "phx_join", json!({})).await;
            assert_eq!(
                socket.next().await.reason(),
                "TopicNameRequired: You must provide a topic name"
            );
        }
    });
}

#[test]
fn the_feed_of_the_database_is_told_to_be_there() {
    on_hub(async |hub| {
        let mut socket = Socket::open(&hub, false).await;
        let (topic, name) = room();
        let config = json!({"broadcast": {"replication_ready": true}});
        socket.joined(&name, &hub.publishable, config).await;
        let expected = json!({"extension": "system", "status": "ok",
                              "message": "Replication connection established", "channel": topic});
        assert_eq!(socket.next().await.payload, expected);
    });
}

//! Messages of a private channel from before the join.

use serde_json::{Value, json};

use crate::broadcast::service_token;
use crate::support::on_hub;
use crate::wire::{Socket, policies, room};

fn config(since: Value, limit: Value) -> Value {
    json!({"private": true, "broadcast": {"self": true, "replay": {"since": since, "limit": limit}}})
}

#[test]
fn the_newest_messages_come_oldest_first_and_only_once() {
    on_hub(async |hub| {
        let admin = hub.admin().await;
        let (topic, name) = room();
        let token = service_token(&hub);
        admin
            .batch_execute(&format!(
                "insert into realtime.messages (topic, extension, event, payload, private, inserted_at)
                 select '{topic}', 'broadcast', 'e', jsonb_build_object('n', n), true,
                        now() at time zone 'utc' - make_interval(secs => 100 - n) from generate_series(1, 30) n;
                 insert into realtime.messages (topic, extension, event, payload, private)
                 values ('{topic}', 'broadcast', 'public', '{{}}', false), ('{topic}', 'presence', 'p', '{{}}', true);
                 insert into realtime.messages (topic, extension, event, binary_payload, private)
                 values ('{topic}', 'broadcast', 'bin', '\\x07', true)"
            ))
            .await
            .unwrap();
        // What was sent is announced already: whoever joins gets it by replay alone.
        Socket::open(&hub, true).await.hears_nothing(&hub).await;
        for v2 in [false, true] {
            let mut socket = Socket::open(&hub, v2).await;
            socket.joined(&name, &token, config(json!(0), json!(100))).await;
            // 25 at most, of which one is bytes, which cannot be told to an old socket.
            for n in 7..=30 {
                let seen = socket.next().await.payload;
                assert_eq!((&seen["event"], &seen["payload"]["n"]), (&json!("e"), &json!(n)));
                assert_eq!(seen["meta"]["replayed"], true);
                assert!(seen["meta"]["id"].is_string());
            }
            if v2 {
                assert_eq!(socket.next().await.payload["payload"], json!({"bytes": [7]}));
            }
            socket.hears_nothing(&hub).await;
        }
        let mut socket = Socket::open(&hub, true).await;
        let since = (hub.now_s() - 72) * 1000;
        socket.joined(&name, &token, config(json!(since), json!(2))).await;
        assert_eq!(socket.next().await.payload["payload"]["n"], json!(30));
        assert_eq!(socket.next().await.payload["event"], "bin");
    });
}

#[test]
fn a_wrong_wish_and_a_public_channel_are_refused() {
    on_hub(async |hub| {
        let token = service_token(&hub);
        let mut socket = Socket::open(&hub, true).await;
        for (config, words) in [
            (
                json!({"broadcast": {"replay": {"since": 0}}}),
                "UnableToReplayMessages: Replay is not allowed for public channels",
            ),
            (
                config(json!("yesterday"), json!(1)),
                "UnableToReplayMessages: Replay params are not valid",
            ),
            (
                config(json!(0), json!("many")),
                "UnableToReplayMessages: Replay params are not valid",
            ),
        ] {
            let refused = socket.join(&room().1, &token, config).await;
            assert_eq!(refused.reason(), words);
        }
    });
}

#[test]
fn a_message_that_is_wished_to_be_kept_is_heard_by_those_who_come_later() {
    on_hub(async |hub| {
        let admin = hub.admin().await;
        let (topic, name) = room();
        let person = hub.person().await;
        let rights = [("broadcast", "select", None), ("broadcast", "insert", None)];
        policies(&admin, &topic, &rights).await;
        let mut early = Socket::open(&hub, true).await;
        let private = json!({"private": true, "broadcast": {"self": true}});
        early.joined(&name, &person.token, private).await;
        early
            .user_push(&name, "kept", r#"{"persist":true}"#, 1, br#"{"a":1}"#)
            .await;
        early.user_push(&name, "said", "", 1, b"{}").await;
        let first = early.next().await.payload;
        assert_eq!(
            (&first["event"], &first["payload"]),
            (&json!("kept"), &json!({"a": 1}))
        );
        assert_eq!(
            early.next().await.payload["event"],
            "said",
            "and the kept one only once"
        );
        let mut late = Socket::open(&hub, false).await;
        late.joined(&name, &person.token, config(json!(0), json!(25)))
            .await;
        let heard = late.next().await.payload;
        assert_eq!(
            (&heard["event"], &heard["meta"]["id"]),
            (&json!("kept"), &first["meta"]["id"])
        );
        late.hears_nothing(&hub).await;
        early.hears_nothing(&hub).await;
    });
}

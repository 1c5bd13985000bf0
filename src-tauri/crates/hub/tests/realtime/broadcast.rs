//! Broadcasts over the socket and from the database, between both serializers.

use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{TestHub, on_hub};
use crate::wire::{Socket, room};

fn hi(payload: Value) -> Value {
    json!({"type": "broadcast", "event": "hi", "payload": payload})
}

async fn joined_both(hub: &TestHub, name: &str, config: &Value) -> [Socket; 2] {
    let mut sockets = Socket::both(hub).await;
    for socket in &mut sockets {
        socket.joined(name, &hub.publishable, config.clone()).await;
    }
    sockets
}

#[test]
fn a_message_reaches_both_serializers_whichever_it_was_sent_in() {
    on_hub(async |hub| {
        let (_, name) = room();
        let config = json!({"broadcast": {"self": true, "ack": false}});
        let mut sockets = joined_both(&hub, &name, &config).await;
        for v2 in [false, true] {
            let sender = &mut sockets[usize::from(v2)];
            sender.send(&name, "broadcast", hi(json!({"text": v2}))).await;
            for socket in &mut sockets {
                let seen = socket.next().await;
                assert_eq!(
                    (seen.topic.as_str(), &seen.reference),
                    (name.as_str(), &Value::Null)
                );
                assert_eq!(seen.payload, hi(json!({"text": v2})), "as it was sent");
            }
        }
        sockets[1]
            .user_push(&name, "hi", "", 1, br#"{"binary":[1]}"#)
            .await;
        for socket in &mut sockets {
            assert_eq!(socket.next().await.payload, hi(json!({"binary": [1]})));
        }
    });
}

#[test]
fn bytes_reach_new_sockets_only_and_nothing_breaks_for_the_old_ones() {
    on_hub(async |hub| {
        let (_, name) = room();
        let config = json!({"broadcast": {"self": true}});
        let [mut old, mut new] = joined_both(&hub, &name, &config).await;
        new.user_push(&name, "bin", "", 0, &[1, 2, 3]).await;
        let expected = json!({"type": "broadcast", "event": "bin", "payload": {"bytes": [1, 2, 3]}});
        assert_eq!(new.next().await.payload, expected);
        // Phoenix's own binary form.
        let mut frame = vec![0, 1, 1, u8::try_from(name.len()).unwrap(), 9];
        frame.extend_from_slice(format!("67{name}broadcast").as_bytes());
        frame.extend_from_slice(&[9, 8]);
        new.wire.send(Message::Binary(frame.into())).await.unwrap();
        assert_eq!(new.next().await.payload, json!({"bytes": [9, 8]}));
        // What says it is JSON and is not.
        new.user_push(&name, "liar", "", 1, br#"{"a":1},"ref":"7""#).await;
        new.user_push(&name, "hi", "", 1, b"{}").await;
        assert_eq!(old.next().await.payload, hi(json!({})));
        old.hears_nothing(&hub).await;
    });
}

#[test]
fn only_who_asks_hears_itself_and_only_who_asks_is_answered() {
    on_hub(async |hub| {
        for v2 in [false, true] {
            let (_, name) = room();
            let mut quiet = Socket::open(&hub, v2).await;
            quiet.joined(&name, &hub.publishable, json!({})).await;
            quiet.send(&name, "broadcast", hi(json!({}))).await;
            quiet.hears_nothing(&hub).await;
            let mut keen = Socket::open(&hub, v2).await;
            // Booleans may be text.
            let config = json!({"broadcast": {"self": "true", "ack": "TRUE"}});
            keen.joined(&name, &hub.publishable, config).await;
            let reference = keen.send(&name, "broadcast", hi(json!({"a": 1}))).await;
            let (mut heard, mut answered) = (0, 0);
            while heard + answered < 2 {
                let seen = keen.next().await;
                match seen.event.as_str() {
                    "broadcast" => heard += 1,
                    "phx_reply" => {
                        assert_eq!((seen.status(), &seen.reference), ("ok", &reference));
                        assert_eq!(seen.payload["response"], json!({}));
                        answered += 1;
                    }
                    other => panic!("{other}"),
                }
            }
            assert_eq!((heard, answered), (1, 1));
            assert_eq!(quiet.next().await.payload, hi(json!({"a": 1})));
        }
    });
}

#[test]
fn a_push_with_an_old_or_no_join_ref_counts_all_the_same() {
    on_hub(async |hub| {
        let (_, name) = room();
        let config =
            json!({"broadcast": {"self": true, "ack": true}, "presence": {"enabled": true, "key": "k"}});
        for mut socket in joined_both(&hub, &name, &config).await {
            for (reference, join_ref) in [(json!("1001"), json!("other")), (json!("1002"), Value::Null)] {
                socket
                    .say(&name, "broadcast", hi(json!({})), &reference, &join_ref)
                    .await;
                let reply = socket.until("phx_reply").await;
                assert_eq!((reply.status(), &reply.reference), ("ok", &reference));
                let track = json!({"type": "presence", "event": "track", "payload": {"n": reference}});
                socket.say(&name, "presence", track, &reference, &join_ref).await;
                socket.until("presence_diff").await;
                assert_eq!(socket.until("phx_reply").await.reference, reference);
            }
            // Numbers come back as numbers.
            socket
                .say(&name, "broadcast", hi(json!({})), &json!(17), &Value::Null)
                .await;
            assert_eq!(socket.until("phx_reply").await.reference, json!(17));
        }
    });
}

#[test]
fn the_database_sends_json_bytes_and_rows_and_says_which_message_it_was() {
    on_hub(async |hub| {
        let (topic, name) = room();
        let [mut old, mut new] = joined_both(&hub, &name, &json!({})).await;
        let admin = hub.admin().await;
        admin
            .execute("select realtime.send('{\"a\": 1}', 'hi', $1, false)", &[&topic])
            .await
            .unwrap();
        for socket in [&mut old, &mut new] {
            let payload = socket.next().await.payload;
            assert_eq!(
                (&payload["event"], &payload["payload"]["a"]),
                (&json!("hi"), &json!(1))
            );
            assert_eq!(payload["payload"]["id"], payload["meta"]["id"], "an id is put in");
        }
        admin
            .execute(
                "select realtime.send_binary('\\x0102', 'bin', $1, false)",
                &[&topic],
            )
            .await
            .unwrap();
        assert_eq!(new.next().await.payload["payload"], json!({"bytes": [1, 2]}));
        // What is rolled back was never said, and what is no object swallows its error.
        admin
            .batch_execute(&format!(
                "begin; select realtime.send('{{}}', 'gone', '{topic}', false); rollback;
                 select realtime.send('[]', 'array', '{topic}', false)"
            ))
            .await
            .unwrap();
        for socket in [&mut old, &mut new] {
            socket.hears_nothing(&hub).await;
        }
    });
}

#[test]
fn a_trigger_tells_a_topic_of_changed_rows() {
    on_hub(async |hub| {
        let admin = hub.admin().await;
        let (topic, name) = room();
        let table = topic.replace('-', "_");
        admin
            .batch_execute(&format!(
                "create table public.{table} (id int primary key, word text);
                 create function public.{table}_told() returns trigger language plpgsql security definer as $$
                 begin
                   perform realtime.broadcast_changes('{topic}', tg_op, tg_op, tg_table_name, tg_table_schema, new, old);
                   return null;
                 end $$;
                 create trigger told after insert or update or delete on public.{table}
                   for each row execute function public.{table}_told()"
            ))
            .await
            .unwrap();
        let (mut public, mut socket) = (Socket::open(&hub, true).await, Socket::open(&hub, false).await);
        public.joined(&name, &hub.publishable, json!({})).await;
        // The secret key stands for a role that no policy holds back.
        let reply = {
            let payload = json!({"config": {"private": true}, "access_token": service_token(&hub)});
            socket.send(&name, "phx_join", payload).await;
            socket.until("phx_reply").await
        };
        assert_eq!(reply.status(), "ok", "{reply:?}");
        for (statement, operation, new, old) in [
            (
                "insert into public.t values (1, 'a')",
                "INSERT",
                json!({"id": 1, "word": "a"}),
                Value::Null,
            ),
            (
                "update public.t set word = 'b'",
                "UPDATE",
                json!({"id": 1, "word": "b"}),
                json!({"id": 1, "word": "a"}),
            ),
            (
                "delete from public.t",
                "DELETE",
                Value::Null,
                json!({"id": 1, "word": "b"}),
            ),
        ] {
            admin
                .batch_execute(&statement.replace("public.t", &format!("public.{table}")))
                .await
                .unwrap();
            let told = socket.until("broadcast").await.payload;
            assert_eq!(told["event"], json!(operation));
            let row = &told["payload"];
            assert_eq!((&row["record"], &row["old_record"]), (&new, &old));
            assert_eq!(
                (&row["operation"], &row["table"]),
                (&json!(operation), &json!(table))
            );
            assert!(row["id"].is_string() && row["schema"] == "public");
        }
        public.hears_nothing(&hub).await;
        admin
            .batch_execute(&format!(
                "drop table public.{table}; drop function public.{table}_told"
            ))
            .await
            .unwrap();
    });
}

/// A token of the role that bypasses row level security.
pub fn service_token(hub: &TestHub) -> String {
    hub.token(json!({"role": "service_role", "exp": hub.now_s() + 600}))
}

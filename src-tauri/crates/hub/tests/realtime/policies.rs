//! Private channels: what the policies of `realtime.messages` let somebody read and write, for each extension.

use serde_json::json;

use crate::broadcast::service_token;
use crate::support::on_hub;
use crate::wire::{Socket, policies, room};

#[test]
fn reading_and_writing_are_judged_apart_and_a_denied_write_is_silent() {
    on_hub(async |hub| {
        let admin = hub.admin().await;
        let (topic, name) = room();
        let (reader, writer) = (hub.person().await, hub.person().await);
        let all = [
            ("broadcast", "select", None),
            ("broadcast", "insert", Some(writer.id)),
        ];
        policies(&admin, &topic, &all).await;
        let config = json!({"private": true, "broadcast": {"ack": true, "self": true}});
        let (mut one, mut two) = (Socket::open(&hub, false).await, Socket::open(&hub, true).await);
        one.joined(&name, &reader.token, config.clone()).await;
        two.joined(&name, &writer.token, config).await;
        let push = json!({"type": "broadcast", "event": "hi", "payload": {"from": "reader"}});
        one.send(&name, "broadcast", push.clone()).await;
        one.send(&name, "broadcast", push).await;
        two.user_push(&name, "hi", "", 1, br#"{"from":"writer"}"#).await;
        for socket in [&mut one, &mut two] {
            let heard = socket.until("broadcast").await.payload;
            assert_eq!(heard["payload"], json!({"from": "writer"}));
        }
    });
}

#[test]
fn who_may_see_presence_alone_joins_and_never_hears_a_broadcast() {
    on_hub(async |hub| {
        let admin = hub.admin().await;
        let (topic, name) = room();
        let person = hub.person().await;
        let rights = [("presence", "select", None), ("presence", "insert", None)];
        policies(&admin, &topic, &rights).await;
        let config =
            json!({"private": true, "presence": {"enabled": true, "key": "me"}, "broadcast": {"ack": true}});
        for v2 in [false, true] {
            let mut socket = Socket::open(&hub, v2).await;
            // Without presence there is nothing left to read.
            let refused = socket.join(&name, &person.token, json!({"private": true})).await;
            assert!(
                refused
                    .reason()
                    .starts_with("Unauthorized: You do not have permissions to read")
            );
            socket.joined(&name, &person.token, config.clone()).await;
            assert_eq!(socket.next().await.event, "presence_state");
            let track = json!({"type": "presence", "event": "TRACK", "payload": {"v2": v2}});
            socket.send(&name, "presence", track).await;
            let diff = socket.until("presence_diff").await.payload;
            assert_eq!(diff["joins"]["me"]["metas"][0]["v2"], json!(v2));
            let mut service = Socket::open(&hub, v2).await;
            let config = json!({"private": true, "broadcast": {"ack": true}});
            service.joined(&name, &service_token(&hub), config).await;
            let push = json!({"type": "broadcast", "event": "hi", "payload": {}});
            // Its own is not sent, the other's does not reach it.
            socket.send(&name, "broadcast", push.clone()).await;
            service.send(&name, "broadcast", push).await;
            service.until("phx_reply").await;
            socket.send(&name, "presence", json!({"event": "untrack"})).await;
            let seen = loop {
                let seen = socket.next().await;
                if seen.event != "phx_reply" {
                    break seen;
                }
            };
            assert_eq!(seen.event, "presence_diff", "and no broadcast before it");
        }
    });
}

#[test]
fn a_policy_that_fails_is_a_refusal_and_no_crash() {
    on_hub(async |hub| {
        let admin = hub.admin().await;
        let person = hub.person().await;
        let (topic, name) = room();
        admin
            .batch_execute(&format!(
                "create policy \"{topic}\" on realtime.messages for select to authenticated
                 using (case when realtime.topic() = '{topic}' then (realtime.topic())::uuid is not null else false end)"
            ))
            .await
            .unwrap();
        let mut socket = Socket::open(&hub, true).await;
        let refused = socket.join(&name, &person.token, json!({"private": true})).await;
        assert!(refused.reason().starts_with("Unauthorized"), "{refused:?}");
        admin
            .batch_execute(&format!("drop policy \"{topic}\" on realtime.messages"))
            .await
            .unwrap();
    });
}

#[test]
fn what_was_allowed_is_remembered_until_the_next_token() {
    on_hub(async |hub| {
        let admin = hub.admin().await;
        let (topic, name) = room();
        let person = hub.person().await;
        policies(&admin, &topic, &[("broadcast", "select", None)]).await;
        admin
            .batch_execute(&format!(
                "create policy \"w-{topic}\" on realtime.messages for insert to authenticated
                 with check (realtime.topic() = '{topic}')"
            ))
            .await
            .unwrap();
        let mut socket = Socket::open(&hub, true).await;
        let config = json!({"private": true, "broadcast": {"ack": true, "self": true}});
        socket.joined(&name, &person.token, config).await;
        let push = || json!({"type": "broadcast", "event": "hi", "payload": {}});
        socket.send(&name, "broadcast", push()).await;
        assert_eq!(socket.until("phx_reply").await.status(), "ok");
        admin
            .batch_execute(&format!("drop policy \"w-{topic}\" on realtime.messages"))
            .await
            .unwrap();
        socket.send(&name, "broadcast", push()).await;
        assert_eq!(socket.until("phx_reply").await.status(), "ok", "not asked again");
        let fresh = hub.user_token(person.id, 1800);
        socket
            .send(&name, "access_token", json!({"access_token": fresh}))
            .await;
        socket.send(&name, "broadcast", push()).await;
        // The next reply is that of something else: the broadcast got none.
        let left = socket.send(&name, "phx_leave", json!({})).await;
        assert_eq!(socket.until("phx_reply").await.reference, left);
    });
}

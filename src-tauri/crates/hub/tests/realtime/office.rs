//! The office over Realtime: the doorbell, row changes of its tables, and what strangers cannot hear.

use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::{Error, Message};
use uuid::Uuid;

use crate::support::{self, Person, on_hub};
use crate::wire::{Socket, address, private, topic};

#[test]
fn a_member_hears_the_doorbell_in_both_serializers() {
    on_hub(async |hub| {
        let (office, owner) = hub.office().await;
        let client = hub.client(&owner, office).await;
        let mut sockets = [Socket::open(&hub, false).await, Socket::open(&hub, true).await];
        for socket in &mut sockets {
            let joined = socket.join(&topic(office), &owner.token, private()).await;
            assert_eq!(
                joined.payload,
                json!({"status": "ok", "response": {"postgres_changes": []}})
            );
        }
        let command = hub.enqueue(&owner, office, "key").await;
        for socket in &mut sockets {
            let rung = socket.until("broadcast").await.payload;
            assert_eq!(
                (&rung["event"], &rung["payload"]["id"]),
                (&json!("command"), &command["id"])
            );
            assert!(rung["meta"]["id"].is_string());
            assert!(
                !rung.to_string().contains("prompt"),
                "ids only: arguments may hold secrets"
            );
        }
        let claim = hub.claim(&owner, office, client, 1).await.remove(0);
        let complete = json!({"p_command": claim["id"], "p_token": claim["lease_token"],
                              "p_result": Uuid::new_v4(), "p_status": "succeeded"});
        hub.ok(&owner, "complete_command", complete).await;
        for socket in &mut sockets {
            let rung = socket.until("broadcast").await.payload;
            assert_eq!(
                (&rung["event"], &rung["payload"]["state"]),
                (&json!("result"), &json!("succeeded"))
            );
        }
    });
}

#[test]
fn strangers_cannot_join_and_the_public_channel_of_that_name_is_useless() {
    on_hub(async |hub| {
        let (office, owner) = hub.office().await;
        let (_, stranger) = hub.office().await;
        for person in [hub.anon(), stranger] {
            let mut socket = Socket::open(&hub, true).await;
            let refused = socket.join(&topic(office), &person.token, private()).await;
            assert_eq!(refused.payload["status"], json!("error"));
            let reason = refused.payload["response"]["reason"].as_str().unwrap();
            assert!(
                reason.starts_with("Unauthorized: You do not have permissions to read"),
                "{reason}"
            );
            let public = socket
                .join(&topic(office), &person.token, json!({"private": false}))
                .await;
            assert_eq!(public.payload["status"], json!("ok"));
            hub.enqueue(&owner, office, &Uuid::new_v4().to_string()).await;
            socket.hears_nothing(&hub).await;
        }
        for hostile in [
            "realtime:office:':commands",
            "realtime:office:%00:commands",
            "realtime:x\u{0}y",
        ] {
            let mut socket = Socket::open(&hub, true).await;
            let refused = socket.join(hostile, &owner.token, private()).await;
            assert_eq!(refused.payload["status"], json!("error"), "{hostile:?}");
        }
    });
}

#[test]
fn who_works_with_the_office_can_ring_the_doorbell_to_hear_whether_it_hears_and_nobody_else_can() {
    on_hub(async |hub| {
        let (office, owner) = hub.office().await;
        let mut people = vec![(owner.clone(), 204)];
        for role in ["operator", "device"] {
            people.push((hub.member(office, role).await, 204));
        }
        people.push((hub.member(office, "viewer").await, 403));
        people.push((hub.person().await, 403));
        people.push((hub.anon(), 401));
        let mut socket = Socket::open(&hub, true).await;
        let reply = socket.join(&topic(office), &owner.token, private()).await;
        assert_eq!(reply.payload["status"], "ok");
        for (who, expected) in people {
            let nonce = Uuid::new_v4();
            let args = json!({"p_office": office, "p_nonce": nonce});
            let (status, said) = hub.rpc(&who, "prove_doorbell", args).await;
            assert_eq!(status, expected, "{said}");
            if expected == 204 {
                let heard = socket.until("broadcast").await;
                assert_eq!(heard.payload["event"], "proof");
                assert_eq!(
                    heard.payload["payload"]["nonce"],
                    json!(nonce),
                    "ids only, and its own"
                );
            }
        }
        socket.hears_nothing(&hub).await;
        // An office that does not exist is refused like a foreign one.
        for office in [json!(Uuid::new_v4()), Value::Null] {
            let args = json!({"p_office": office, "p_nonce": Uuid::new_v4()});
            let (status, said) = hub.rpc(&owner, "prove_doorbell", args).await;
            assert_eq!((status, &said["code"]), (403, &json!("42501")), "{said}");
        }
    });
}

#[test]
fn nobody_rings_the_doorbell_by_hand() {
    on_hub(async |hub| {
        let (office, owner) = hub.office().await;
        let mut listener = Socket::open(&hub, true).await;
        listener.join(&topic(office), &owner.token, private()).await;
        let mut sender = Socket::open(&hub, false).await;
        sender.join(&topic(office), &owner.token, private()).await;
        let push = json!({"type": "broadcast", "event": "command", "payload": {"id": "forged"}});
        sender.send(&topic(office), "broadcast", push).await;
        for person in [hub.anon(), owner.clone()] {
            let path = "/realtime/v1/api/broadcast";
            let message = json!({"topic": format!("office:{office}:commands"), "event": "command", "payload": {}, "private": true});
            let sent = hub
                .request(&person, reqwest::Method::POST, path)
                .json(&json!({"messages": [message]}));
            assert_eq!(
                sent.send().await.unwrap().status(),
                202,
                "dropped without a word, as in the original"
            );
            let path = format!("{path}/office%3A{office}%3Acommands/events/command?private=true");
            let sent = hub
                .request(&person, reqwest::Method::POST, &path)
                .json(&json!({}));
            assert_eq!(sent.send().await.unwrap().status(), 403);
        }
        let row =
            json!({"topic": format!("office:{office}:commands"), "extension": "broadcast", "private": true});
        let insert = hub
            .request(&owner, reqwest::Method::POST, "/rest/v1/messages")
            .json(&row);
        assert_eq!(
            insert.send().await.unwrap().status(),
            404,
            "realtime's tables are not exposed"
        );
        listener.hears_nothing(&hub).await;
    });
}

#[test]
fn public_broadcasts_reach_the_others_and_are_acknowledged() {
    on_hub(async |hub| {
        let name = format!("realtime:room-{}", Uuid::new_v4());
        let config = json!({"broadcast": {"ack": true, "self": false}});
        let (mut one, mut two) = (Socket::open(&hub, false).await, Socket::open(&hub, true).await);
        one.join(&name, &hub.publishable, config.clone()).await;
        two.join(&name, &hub.publishable, config).await;
        let push = json!({"type": "broadcast", "event": "hi", "payload": {"a": 1}});
        let reference = one.send(&name, "broadcast", push).await;
        assert_eq!(one.until("phx_reply").await.reference, reference);
        let heard = two.until("broadcast").await.payload;
        assert_eq!(
            (&heard["event"], &heard["payload"]),
            (&json!("hi"), &json!({"a": 1}))
        );
        one.hears_nothing(&hub).await;
    });
}

#[test]
fn what_is_too_large_is_refused_and_the_socket_lives_on() {
    on_hub(async |hub| {
        let name = format!("realtime:room-{}", Uuid::new_v4());
        let mut socket = Socket::open(&hub, true).await;
        let long = format!("realtime:{}", "t".repeat(300));
        socket.send(&long, "phx_join", json!({})).await;
        assert_eq!(socket.next().await.payload["status"], json!("error"));
        let filler = "x".repeat(70_000);
        let refused = socket
            .join(&name, &hub.publishable, json!({"filler": filler}))
            .await
            .payload;
        assert!(
            refused["response"]["reason"]
                .to_string()
                .contains("PayloadTooLarge"),
            "{refused}"
        );
        socket
            .join(
                &name,
                &hub.publishable,
                json!({"broadcast": {"ack": true, "self": true}}),
            )
            .await;
        for (bytes, answer) in [
            (
                3_100_000,
                json!({"status": "error", "response": "payload_size_exceeded"}),
            ),
            (2_000_000, json!({"status": "ok", "response": {}})),
        ] {
            let push = json!({"type": "broadcast", "event": "e", "payload": {"x": "x".repeat(bytes)}});
            socket.send(&name, "broadcast", push).await;
            assert_eq!(socket.until("phx_reply").await.payload, answer);
        }
        let by_http =
            json!({"messages": [{"topic": "t", "event": "e", "payload": {"x": "x".repeat(3_100_000)}}]});
        let request = hub
            .request(
                &hub.person().await,
                reqwest::Method::POST,
                "/realtime/v1/api/broadcast",
            )
            .json(&by_http);
        assert_eq!(support::answer(request).await.0, 422);
    });
}

#[test]
fn row_changes_reach_members_only() {
    on_hub(async |hub| {
        let (office, owner) = hub.office().await;
        let (_, stranger) = hub.office().await;
        let binding = json!({"event": "INSERT", "schema": "public", "table": "agent_commands",
                             "filter": format!("office_id=eq.{office}")});
        let config = json!({"postgres_changes": [binding]});
        let mut sockets = Vec::new();
        for (person, v2) in [(&owner, false), (&owner, true), (&stranger, true)] {
            let mut socket = Socket::open(&hub, v2).await;
            let joined = socket
                .join("realtime:any-name", &person.token, config.clone())
                .await;
            let echo = &joined.payload["response"]["postgres_changes"][0];
            for (key, value) in binding.as_object().unwrap() {
                assert_eq!(&echo[key], value, "the echo");
            }
            let system = socket.until("system").await.payload;
            let expected = json!({"extension": "postgres_changes", "status": "ok",
                                  "message": "Subscribed to PostgreSQL", "channel": "any-name"});
            assert_eq!(system, expected);
            sockets.push((socket, echo["id"].clone()));
        }
        let (mut outsider, _) = sockets.pop().unwrap();
        let command = hub.enqueue(&owner, office, "key").await;
        hub.claim(&owner, office, hub.client(&owner, office).await, 1)
            .await;
        for (socket, binding) in &mut sockets {
            let change = socket.until("postgres_changes").await.payload;
            assert_eq!(change["ids"], json!([binding]));
            let data = &change["data"];
            assert_eq!(
                (&data["type"], &data["record"]["id"]),
                (&json!("INSERT"), &command["id"])
            );
            assert!(data.as_object().unwrap().contains_key("errors") && data["errors"].is_null());
            let columns = data["columns"].as_array().unwrap();
            assert!(
                columns.contains(&json!({"name": "args", "type": "jsonb"})),
                "{columns:?}"
            );
            assert_eq!(data["record"]["args"], json!({"prompt": "hi"}));
        }
        outsider.hears_nothing(&hub).await;
        let mut anon = Socket::open(&hub, true).await;
        anon.join("realtime:any-name", &hub.publishable, config).await;
        let system = anon.until("system").await.payload;
        assert_eq!(system["status"], json!("error"), "{system}");
        let mut socket = Socket::open(&hub, true).await;
        let secret =
            json!({"postgres_changes": [{"event": "*", "schema": "private", "table": "command_leases"}]});
        socket.join("realtime:x", &owner.token, secret).await;
        assert_eq!(socket.until("system").await.payload["status"], json!("error"));
    });
}

#[test]
fn a_token_that_runs_out_ends_the_channel_and_a_new_one_keeps_it() {
    on_hub(async |hub| {
        let (office, owner) = hub.office().await;
        let short = hub.user_token(owner.id, 2);
        let (mut lazy, mut keen) = (Socket::open(&hub, true).await, Socket::open(&hub, false).await);
        for socket in [&mut lazy, &mut keen] {
            assert_eq!(
                socket.join(&topic(office), &short, private()).await.payload["status"],
                json!("ok")
            );
        }
        keen.send(
            &topic(office),
            "access_token",
            json!({"access_token": owner.token}),
        )
        .await;
        let system = lazy.until("system").await.payload;
        assert!(
            system["message"]
                .as_str()
                .unwrap()
                .starts_with("Token has expired"),
            "{system}"
        );
        assert_eq!(lazy.next().await.event, "phx_close");
        keen.hears_nothing(&hub).await;
        let command = hub.enqueue(&owner, office, "key").await;
        assert_eq!(
            keen.until("broadcast").await.payload["payload"]["id"],
            command["id"]
        );
        keen.send(&topic(office), "access_token", json!({"access_token": ""}))
            .await;
        assert_eq!(
            keen.until("system").await.payload["message"],
            json!("The token provided is not a valid JWT")
        );
        assert_eq!(keen.next().await.event, "phx_close");
        let expired = hub.user_token(owner.id, -5);
        let refused = lazy.join(&topic(office), &expired, private()).await.payload;
        let reason = refused["response"]["reason"].as_str().unwrap().to_owned();
        assert!(
            reason.starts_with("InvalidJWTToken: Token has expired"),
            "{reason}"
        );
    });
}

#[test]
fn leaving_joining_again_and_unknown_topics_are_answered_as_phoenix_does() {
    on_hub(async |hub| {
        let mut socket = Socket::open(&hub, true).await;
        let name = "realtime:room";
        socket.join(name, &hub.publishable, json!({})).await;
        let again = socket.send(name, "phx_join", json!({})).await;
        assert_eq!(socket.next().await.event, "phx_close", "the old one first");
        assert_eq!(socket.next().await.reference, again);
        let left = socket.send(name, "phx_leave", json!({})).await;
        assert_eq!(socket.next().await.reference, left);
        assert_eq!(socket.next().await.event, "phx_close");
        for (topic, event) in [(name, "broadcast"), ("nonsense", "phx_join")] {
            socket.send(topic, event, json!({})).await;
            let seen = socket.until("phx_reply").await.payload;
            assert_eq!(
                seen,
                json!({"status": "error", "response": {"reason": "unmatched topic"}})
            );
        }
        socket.wire.send(Message::Text("no json".into())).await.unwrap();
        socket
            .wire
            .send(Message::Binary(vec![9, 9].into()))
            .await
            .unwrap();
        socket.hears_nothing(&hub).await;
        let mut old = Socket::open(&hub, false).await;
        let beat =
            json!({"event": "heartbeat", "payload": {}, "topic": "phoenix", "ref": null, "join_ref": null});
        old.wire
            .send(Message::Text(beat.to_string().into()))
            .await
            .unwrap();
        let reply = old.next().await;
        assert_eq!(
            (reply.event.as_str(), &reply.reference),
            ("phx_reply", &Value::Null)
        );
    });
}

#[test]
fn a_handshake_is_refused_by_status() {
    on_hub(async |hub| {
        let expired = hub.user_token(Uuid::new_v4(), -5);
        for (query, status) in [
            ("vsn=2.0.0".to_owned(), 401),
            ("apikey=nonsense".to_owned(), 401),
            (format!("apikey={expired}"), 401),
            (format!("apikey={}&vsn=3.0.0", hub.publishable), 403),
        ] {
            let Err(Error::Http(response)) = connect_async(address(&hub, &query)).await else {
                panic!("{query} was let in")
            };
            assert_eq!(response.status(), status, "{query}");
        }
    });
}

#[test]
fn a_message_sent_before_joining_comes_only_to_a_member_who_asks_for_it() {
    on_hub(async |hub| {
        let (office, owner) = hub.office().await;
        let (_, stranger) = hub.office().await;
        let person: &Person = &owner;
        // Another member hears it first: from then on it has been sent.
        let mut early = Socket::open(&hub, true).await;
        early
            .join(&topic(office), &person.token, json!({"private": true}))
            .await;
        let command = hub.enqueue(&owner, office, "before").await;
        early.until("broadcast").await;
        let mut socket = Socket::open(&hub, true).await;
        socket
            .joined(&topic(office), &person.token, json!({"private": true}))
            .await;
        socket.hears_nothing(&hub).await;
        let replay = json!({"private": true, "broadcast": {"replay": {"since": 0, "limit": 25}}});
        let refused = socket.join(&topic(office), &stranger.token, replay.clone()).await;
        assert!(refused.reason().starts_with("Unauthorized"), "{refused:?}");
        socket.joined(&topic(office), &person.token, replay).await;
        let heard = socket.until("broadcast").await.payload;
        assert_eq!(heard["payload"]["id"], command["id"]);
        assert_eq!(heard["meta"]["replayed"], true);
    });
}

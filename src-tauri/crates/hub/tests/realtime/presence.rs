//! Presence on public channels; what policies withhold is in `policies`.

use serde_json::{Value, json};

use crate::support::on_hub;
use crate::wire::{Socket, policies, room};

fn track(payload: Value) -> Value {
    json!({"type": "presence", "event": "track", "payload": payload})
}

fn config(key: &str) -> Value {
    json!({"presence": {"key": key, "enabled": true}})
}

#[test]
fn a_room_knows_who_is_there_what_they_changed_and_who_left() {
    on_hub(async |hub| {
        let (_, name) = room();
        let [mut old, mut new] = Socket::both(&hub).await;
        old.joined(&name, &hub.publishable, config("a")).await;
        let state = old.next().await;
        assert_eq!(
            (state.event.as_str(), &state.payload),
            ("presence_state", &json!({}))
        );
        let reference = old.send(&name, "presence", track(json!({"u": 1}))).await;
        let diff = old.until("presence_diff").await.payload;
        let first = diff["joins"]["a"]["metas"][0].clone();
        assert_eq!((&first["u"], &diff["leaves"]), (&json!(1), &json!({})));
        assert_eq!(old.until("phx_reply").await.reference, reference);
        new.joined(&name, &hub.publishable, config("b")).await;
        let state = new.until("presence_state").await.payload;
        assert_eq!(state, json!({"a": {"metas": [first]}}));
        // Another payload replaces, the same says nothing.
        old.send(&name, "presence", track(json!({"u": 1}))).await;
        old.send(&name, "presence", track(json!({"u": 2}))).await;
        let diff = new.until("presence_diff").await.payload;
        assert_eq!(diff["leaves"]["a"]["metas"], json!([first]));
        let second = diff["joins"]["a"]["metas"][0].clone();
        assert_eq!(
            (&second["u"], &second["phx_ref_prev"]),
            (&json!(2), &first["phx_ref"])
        );
        new.send(&name, "presence", track(json!({}))).await;
        new.until("presence_diff").await;
        new.send(&name, "presence", json!({"event": "UNTRACK"})).await;
        let diff = new.until("presence_diff").await.payload;
        assert!(diff["leaves"]["b"]["metas"][0]["phx_ref"].is_string());
        drop(old);
        let diff = new.until("presence_diff").await.payload;
        assert_eq!(
            (&diff["joins"], &diff["leaves"]["a"]["metas"][0]["u"]),
            (&json!({}), &json!(2))
        );
    });
}

#[test]
fn a_channel_that_did_not_ask_for_presence_gets_it_with_its_first_track() {
    on_hub(async |hub| {
        let (_, name) = room();
        for mut socket in Socket::both(&hub).await {
            let off = json!({"presence": {"key": "", "enabled": false}});
            socket.joined(&name, &hub.publishable, off).await;
            socket.hears_nothing(&hub).await;
            socket.send(&name, "presence", track(json!({"name": "x"}))).await;
            assert_eq!(socket.next().await.event, "presence_state");
            let diff = socket.until("presence_diff").await.payload;
            let joins = diff["joins"].as_object().unwrap();
            let (key, shown) = joins.iter().next().unwrap();
            assert_eq!(key.len(), 36, "a key is made: {key}");
            assert_eq!(shown["metas"][0]["name"], json!("x"));
            socket.send(&name, "phx_leave", json!({})).await;
            socket.until("phx_close").await;
        }
    });
}

#[test]
fn what_is_no_object_is_refused_and_what_is_unknown_is_an_error() {
    on_hub(async |hub| {
        let (_, name) = room();
        let mut socket = Socket::open(&hub, true).await;
        socket.joined(&name, &hub.publishable, config("a")).await;
        socket.send(&name, "presence", track(json!([1]))).await;
        let reply = socket.until("phx_reply").await;
        assert_eq!(reply.reason(), "Presence track payload must be a map");
        socket.send(&name, "presence", json!({"event": "dance"})).await;
        assert_eq!(socket.until("phx_reply").await.status(), "error");
        socket.send(&name, "presence", json!({})).await;
        assert_eq!(socket.until("phx_reply").await.status(), "ok");
    });
}

#[test]
fn too_many_calls_and_too_much_at_once_end_the_channel() {
    on_hub(async |hub| {
        for (pushes, words) in [
            (
                vec![json!({"event": "untrack"}); 6],
                "Client presence rate limit exceeded",
            ),
            (
                vec![track(json!({"x": "x".repeat(70_000)}))],
                "Track message size exceeded",
            ),
        ] {
            let (_, name) = room();
            let mut socket = Socket::open(&hub, false).await;
            socket.joined(&name, &hub.publishable, config("a")).await;
            for push in pushes {
                socket.send(&name, "presence", push).await;
            }
            let system = socket.until("system").await;
            assert_eq!(system.reason(), words);
            assert_eq!(system.payload["extension"], "system");
            assert_eq!(socket.next().await.event, "phx_close");
        }
    });
}

#[test]
fn presence_is_withheld_from_members_who_may_not_read_it() {
    on_hub(async |hub| {
        let admin = hub.admin().await;
        let (topic, name) = room();
        let (sees, blind) = (hub.person().await, hub.person().await);
        let rights = [
            ("broadcast", "select", None),
            ("presence", "select", Some(sees.id)),
            ("presence", "insert", None),
        ];
        policies(&admin, &topic, &rights).await;
        let private = |key: &str| json!({"private": true, "presence": {"enabled": true, "key": key}});
        let [mut one, mut two] = Socket::both(&hub).await;
        one.joined(&name, &sees.token, private("sees")).await;
        one.until("presence_state").await;
        two.joined(&name, &blind.token, private("blind")).await;
        for (socket, key) in [(&mut two, "blind"), (&mut one, "sees")] {
            let who = key.to_owned();
            socket.send(&name, "presence", track(json!({"who": who}))).await;
        }
        // They track at the same time: in whatever order.
        let mut shown = Vec::new();
        for _ in 0..2 {
            let diff = one.until("presence_diff").await.payload;
            for (key, metas) in diff["joins"].as_object().unwrap() {
                assert_eq!(metas["metas"][0]["who"], json!(key));
                shown.push(key.clone());
            }
        }
        shown.sort();
        assert_eq!(shown, ["blind", "sees"]);
        let reply = two.next().await;
        assert_eq!(
            (reply.event.as_str(), reply.status()),
            ("phx_reply", "ok"),
            "no state, no diff"
        );
        two.hears_nothing(&hub).await;
    });
}

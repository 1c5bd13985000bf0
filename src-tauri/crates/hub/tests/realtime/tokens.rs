//! The life of a token on a channel, and which tokens are let in.

use std::time::Duration;

use hub::RealtimeSettings;
use serde_json::{Value, json};

use crate::changes::Table;
use crate::support::on_hub;
use crate::wire::{Socket, policies, private, quick, room};

/// The same claims with another signature.
fn forged(token: &str) -> String {
    let (claims, signature) = token.rsplit_once('.').unwrap();
    let turned: String = signature.chars().rev().collect();
    // The last character of a signature does not use all its bits: it stays.
    let (first, last) = (&turned[1..], &signature[signature.len() - 1..]);
    format!("{claims}.{first}{last}")
}

#[test]
fn the_same_token_a_key_and_null_change_nothing() {
    on_hub(async |hub| {
        let (_, name) = room();
        let person = hub.person().await;
        for mut socket in Socket::both(&hub).await {
            socket.joined(&name, &person.token, json!({})).await;
            for token in [json!(person.token), json!(hub.publishable), Value::Null] {
                socket
                    .send(&name, "access_token", json!({"access_token": token}))
                    .await;
            }
            socket.hears_nothing(&hub).await;
        }
    });
}

#[test]
fn a_bad_token_ends_the_channel_and_says_why() {
    on_hub(async |hub| {
        let person = hub.person().await;
        let without_role = hub.token(json!({"sub": person.id, "exp": hub.now_s() + 60}));
        for (token, words) in [
            (String::new(), "The token provided is not a valid JWT"),
            ("garbage".to_owned(), "The token provided is not a valid JWT"),
            (hub.user_token(person.id, -10), "Token has expired "),
            (without_role, "Fields `role` and `exp` are required in JWT"),
            (forged(&person.token), "Failed to validate JWT signature"),
        ] {
            for v2 in [false, true] {
                let (topic, name) = room();
                let mut socket = Socket::open(&hub, v2).await;
                socket.joined(&name, &person.token, json!({})).await;
                socket
                    .send(&name, "access_token", json!({"access_token": token}))
                    .await;
                let system = socket.next().await;
                let expected = json!({"extension": "system", "status": "error", "channel": topic});
                for (key, value) in expected.as_object().unwrap() {
                    assert_eq!(&system.payload[key], value);
                }
                assert!(system.reason().starts_with(words), "{system:?}");
                assert_eq!(socket.next().await.event, "phx_close");
            }
        }
    });
}

#[test]
fn a_join_with_a_bad_token_is_refused_by_its_reason() {
    on_hub(async |hub| {
        let person = hub.person().await;
        let mut socket = Socket::open(&hub, true).await;
        let without_role = hub.token(json!({"sub": person.id, "exp": hub.now_s() + 60}));
        let forged = forged(&person.token);
        for (token, words) in [
            ("garbage", "MalformedJWT: The token provided is not a valid JWT"),
            (
                &hub.user_token(person.id, -10),
                "InvalidJWTToken: Token has expired ",
            ),
            (
                &without_role,
                "InvalidJWTToken: Fields `role` and `exp` are required in JWT",
            ),
            (&forged, "JwtSignatureError: Failed to validate JWT signature"),
        ] {
            let refused = socket.join(&room().1, token, json!({})).await;
            assert_eq!(refused.status(), "error");
            assert!(refused.reason().starts_with(words), "{refused:?}");
        }
        let (_, name) = room();
        let old_name = json!({"config": {}, "user_token": person.token});
        socket.send(&name, "phx_join", old_name).await;
        assert_eq!(socket.until("phx_reply").await.status(), "ok");
    });
}

#[test]
fn a_lost_right_to_read_ends_the_channel_also_when_another_is_left() {
    on_hub(async |hub| {
        let admin = hub.admin().await;
        let (topic, name) = room();
        let (both, one) = (hub.person().await, hub.person().await);
        let rights = [
            ("broadcast", "select", Some(both.id)),
            ("presence", "select", None),
        ];
        policies(&admin, &topic, &rights).await;
        let mut socket = Socket::open(&hub, true).await;
        let config = json!({"private": true, "presence": {"enabled": true}});
        socket.joined(&name, &both.token, config).await;
        socket
            .send(&name, "access_token", json!({"access_token": one.token}))
            .await;
        let system = socket.until("system").await;
        assert_eq!(
            system.reason(),
            format!("You no longer have permission to read from this Channel topic: {topic}")
        );
        assert_eq!(socket.next().await.event, "phx_close");
    });
}

#[test]
fn row_changes_are_followed_under_the_new_token() {
    on_hub(async |hub| {
        let table = Table::owned(&hub, "id int primary key").await;
        let (before, after) = (hub.person().await, hub.person().await);
        let mut socket = Socket::open(&hub, true).await;
        let (_, name) = room();
        let config = json!({"postgres_changes": [table.binding("*", None)]});
        socket.joined(&name, &before.token, config).await;
        socket.until("system").await;
        socket
            .send(&name, "access_token", json!({"access_token": after.token}))
            .await;
        assert_eq!(socket.until("system").await.reason(), "Subscribed to PostgreSQL");
        for (id, owner) in [(1, before.id), (2, after.id)] {
            table
                .run(&format!("insert into public.TABLE values ({id}, '{owner}')"))
                .await;
        }
        let told = socket.until("postgres_changes").await.payload;
        assert_eq!(told["data"]["record"]["id"], json!(2));
        table.drop().await;
    });
}

#[test]
fn the_key_of_a_socket_counts_where_a_join_has_no_token_and_ends_with_it() {
    on_hub(async |hub| {
        let (office, owner) = hub.office().await;
        hub.hub().set_realtime(quick());
        let short = hub.user_token(owner.id, 3);
        let mut socket = Socket::open_as(&hub, true, &short).await;
        let topic = crate::wire::topic(office);
        socket
            .send(&topic, "phx_join", json!({"config": private()}))
            .await;
        assert_eq!(socket.until("phx_reply").await.status(), "ok");
        let system = socket.until("system").await;
        assert!(system.reason().starts_with("Token has expired"), "{system:?}");
        assert_eq!(socket.next().await.event, "phx_close");
        let sb = json!({"config": private(), "access_token": hub.publishable});
        socket.send(&topic, "phx_join", sb).await;
        let refused = socket.until("phx_reply").await;
        assert!(
            refused.reason().starts_with("InvalidJWTToken: Token has expired"),
            "{refused:?}"
        );
    });
}

#[test]
fn settings_have_the_defaults_of_a_self_hosted_supabase_but_for_the_sockets() {
    let settings = RealtimeSettings::default();
    assert_eq!((settings.sockets_max, settings.channels_max), (4000, 100));
    assert_eq!(
        (settings.sockets_per_network_max, settings.sockets_per_user_max),
        (1000, 100),
        "several networks are needed to take all places"
    );
    assert_eq!(
        (settings.messages_per_second, settings.joins_per_second),
        (100, 100)
    );
    assert_eq!(settings.payload_bytes_max, 3_000_000);
    assert_eq!(settings.token_check, Duration::from_secs(300));
    assert_eq!(settings.idle_max, Duration::from_secs(60));
    assert_eq!(settings.channelless_max, Duration::from_secs(600));
}

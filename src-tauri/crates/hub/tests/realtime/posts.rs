//! Broadcasts by HTTP, in both forms.

use reqwest::Method;
use serde_json::{Value, json};

use crate::broadcast::service_token;
use crate::support::{Person, TestHub, answer, on_hub};
use crate::wire::{Socket, room};

const MANY: &str = "/realtime/v1/api/broadcast";

async fn post(hub: &TestHub, who: &Person, body: &Value) -> (u16, Value) {
    answer(hub.request(who, Method::POST, MANY).json(body)).await
}

#[test]
fn both_forms_reach_both_serializers() {
    on_hub(async |hub| {
        let topic = format!("a:b c/{}", room().0);
        let wire = format!("realtime:{topic}");
        let mut sockets = Socket::both(&hub).await;
        for socket in &mut sockets {
            socket.joined(&wire, &hub.publishable, json!({})).await;
        }
        let messages = json!({"messages": [{"topic": topic, "event": "one", "payload": {"a": 1}},
                                           {"topic": topic, "event": "two", "payload": {"a": 2}, "private": false}]});
        assert_eq!(post(&hub, &hub.anon(), &messages).await, (202, json!("")));
        let encoded = topic.replace(':', "%3A").replace(' ', "%20").replace('/', "%2F");
        let path = format!(
            "{MANY}/{encoded}/events/th%20ree?apikey={}&vsn=2.0.0&more=1",
            hub.publishable
        );
        let single = hub.request(&hub.anon(), Method::POST, &path).json(&json!([3]));
        assert_eq!(answer(single).await.0, 202);
        let bytes = hub
            .request(&hub.anon(), Method::POST, &path)
            .header("content-type", "application/octet-stream")
            .body(vec![7, 8]);
        assert_eq!(answer(bytes).await.0, 202);
        for socket in &mut sockets {
            for (event, payload) in [
                ("one", json!({"a": 1})),
                ("two", json!({"a": 2})),
                ("th ree", json!([3])),
            ] {
                let seen = socket.next().await.payload;
                assert_eq!((&seen["event"], &seen["payload"]), (&json!(event), &payload));
                assert_eq!(seen["type"], "broadcast");
            }
        }
        assert_eq!(
            sockets[1].next().await.payload["payload"],
            json!({"bytes": [7, 8]})
        );
        for socket in &mut sockets {
            socket.hears_nothing(&hub).await;
        }
    });
}

#[test]
fn private_and_public_are_two_rooms_and_the_private_one_is_guarded() {
    on_hub(async |hub| {
        let (topic, name) = room();
        let service = Person {
            id: uuid::Uuid::nil(),
            token: service_token(&hub),
        };
        let (mut public, mut private) = (Socket::open(&hub, true).await, Socket::open(&hub, true).await);
        public.joined(&name, &hub.publishable, json!({})).await;
        private
            .joined(&name, &service.token, json!({"private": true}))
            .await;
        let message = |private: bool| json!({"messages": [{"topic": topic, "event": "e", "payload": {"private": private}, "private": private}]});
        for (who, status) in [(hub.person().await, 403), (service.clone(), 202)] {
            assert_eq!(
                post(&hub, &who, &message(true)).await.0,
                202,
                "dropped without a word or sent"
            );
            let path = format!("{MANY}/{topic}/events/e?private=true");
            let single = hub
                .request(&who, Method::POST, &path)
                .json(&json!({"private": true}));
            assert_eq!(answer(single).await.0, status);
        }
        post(&hub, &hub.anon(), &message(false)).await;
        for _ in 0..2 {
            assert_eq!(private.next().await.payload["payload"], json!({"private": true}));
        }
        private.hears_nothing(&hub).await;
        assert_eq!(public.next().await.payload["payload"], json!({"private": false}));
        public.hears_nothing(&hub).await;
    });
}

#[test]
fn what_is_wrong_with_a_body_is_said_and_nothing_of_it_is_sent() {
    on_hub(async |hub| {
        let (topic, name) = room();
        let mut socket = Socket::open(&hub, true).await;
        socket.joined(&name, &hub.publishable, json!({})).await;
        let good = json!({"topic": topic, "event": "e", "payload": {}});
        for (body, errors) in [
            (json!({}), json!({"messages": ["can't be blank"]})),
            (json!({"messages": []}), json!({"messages": ["can't be blank"]})),
            (json!({"messages": 1}), json!({"messages": ["is invalid"]})),
            (json!([1]), json!({"messages": ["is invalid"]})),
            (
                json!({"messages": [good, {"event": "e", "payload": {}}]}),
                json!({"messages": [{}, {"topic": ["can't be blank"]}]}),
            ),
            (
                json!({"messages": [{"topic": topic, "event": "e", "payload": "text"}]}),
                json!({"messages": [{"payload": ["is invalid"]}]}),
            ),
        ] {
            assert_eq!(
                post(&hub, &hub.anon(), &body).await,
                (422, json!({"errors": errors})),
                "{body}"
            );
        }
        let path = format!("{MANY}/{topic}/events/e");
        let request = |kind: &str, body: &'static str| {
            hub.request(&hub.anon(), Method::POST, &path)
                .header("content-type", kind)
                .body(body)
        };
        assert_eq!(answer(request("application/json", "{")).await.0, 422);
        let (status, said) = answer(request("text/plain", "x")).await;
        assert_eq!(status, 415);
        assert!(
            said["error"]
                .as_str()
                .unwrap()
                .starts_with("Unsupported Media Type")
        );
        let nobody = hub.http.post(format!("{}{MANY}", hub.url)).json(&json!({}));
        assert_eq!(answer(nobody).await, (401, json!({"message": "Unauthorized"})));
        socket.hears_nothing(&hub).await;
    });
}

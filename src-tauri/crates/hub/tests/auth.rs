//! Auth and the port's guard, as the official clients see them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use reqwest::Method;
use serde_json::{Value, json};
use support::{Person, TestHub, answer, on_hub};
use uuid::Uuid;

fn post(hub: &TestHub, path: &str, body: &Value) -> reqwest::RequestBuilder {
    hub.http
        .post(format!("{}/auth/v1/{path}", hub.url))
        .header("apikey", &hub.publishable)
        .header("x-supabase-api-version", "2024-01-01")
        .json(body)
}

async fn sign_in(hub: &TestHub, email: &str, password: &str) -> (u16, Value) {
    answer(post(
        hub,
        "token?grant_type=password",
        &json!({"email": email, "password": password}),
    ))
    .await
}

async fn refresh(hub: &TestHub, token: &Value) -> (u16, Value) {
    answer(post(
        hub,
        "token?grant_type=refresh_token",
        &json!({"refresh_token": token}),
    ))
    .await
}

fn address() -> String {
    format!("{}@example.com", Uuid::new_v4())
}

#[test]
fn a_session_has_what_official_clients_need_and_its_token_opens_rest() {
    on_hub(async |hub| {
        let email = address();
        let user = hub
            .hub()
            .ensure_user(&email.to_uppercase(), "correct horse")
            .await
            .unwrap();
        let (status, session) = sign_in(&hub, &email, "correct horse").await;
        assert_eq!(status, 200, "{session}");
        for key in [
            "access_token",
            "refresh_token",
            "expires_in",
            "expires_at",
            "token_type",
        ] {
            assert!(!session[key].is_null(), "{key}");
        }
        for key in [
            "id",
            "aud",
            "role",
            "email",
            "app_metadata",
            "user_metadata",
            "created_at",
            "identities",
        ] {
            assert!(!session["user"][key].is_null(), "user.{key}");
        }
        assert_eq!(session["user"]["id"], json!(user));
        let person = Person {
            id: user.0,
            token: session["access_token"].as_str().unwrap().to_owned(),
        };
        let office = hub.ok(&person, "create_office", json!({"p_name": "Mine"})).await;
        let members = hub
            .get(&person, "office_members?select=user_id,role,office_id")
            .await
            .1;
        assert_eq!(
            members,
            json!([{"user_id": user, "role": "owner", "office_id": office["id"]}])
        );
        let me = answer(hub.request(&person, Method::GET, "/auth/v1/user")).await;
        assert_eq!((me.0, &me.1["id"]), (200, &json!(user)));
    });
}

#[test]
fn a_wrong_password_and_an_unknown_address_look_the_same_and_guessing_ends() {
    on_hub(async |hub| {
        let email = address();
        hub.hub().ensure_user(&email, "correct horse").await.unwrap();
        let wrong = sign_in(&hub, &email, "wrong").await;
        assert_eq!(
            wrong,
            (
                400,
                json!({"code": "invalid_credentials", "message": "Invalid login credentials"})
            )
        );
        let unknown = address();
        assert_eq!(sign_in(&hub, &unknown, "wrong").await, wrong);
        for _ in 1..10 {
            assert_eq!(sign_in(&hub, &unknown, "wrong").await.0, 400);
        }
        let stopped = sign_in(&hub, &unknown, "wrong").await;
        assert_eq!(
            (stopped.0, &stopped.1["code"]),
            (429, &json!("over_request_rate_limit"))
        );
        assert_eq!(
            sign_in(&hub, &email, "correct horse").await.0,
            200,
            "others are not stopped"
        );
        let old = hub
            .http
            .post(format!("{}/auth/v1/token?grant_type=password", hub.url))
            .header("apikey", &hub.publishable)
            .json(&json!({"email": email, "password": "no"}));
        let body = answer(old).await.1;
        assert_eq!(
            body["error_code"],
            json!("invalid_credentials"),
            "the older shape: {body}"
        );
    });
}

#[test]
fn the_shape_of_an_error_is_told_in_the_header_official_clients_read() {
    on_hub(async |hub| {
        let body = json!({"refresh_token": "nonsense"});
        let response = post(&hub, "token?grant_type=refresh_token", &body)
            .send()
            .await
            .unwrap();
        assert_eq!(response.headers()["x-supabase-api-version"], "2024-01-01");
        assert_eq!(response.headers()["x-sb-error-code"], "refresh_token_not_found");
    });
}

#[test]
fn refresh_tokens_rotate_and_a_stolen_one_ends_the_session() {
    on_hub(async |hub| {
        let email = address();
        hub.hub().ensure_user(&email, "correct horse").await.unwrap();
        let first = sign_in(&hub, &email, "correct horse").await.1["refresh_token"].clone();
        let second = refresh(&hub, &first).await.1["refresh_token"].clone();
        assert_ne!(first, second);
        assert_eq!(
            refresh(&hub, &first).await.0,
            200,
            "the answer may have been lost: a short while it is tolerated"
        );
        let third = refresh(&hub, &second).await.1["refresh_token"].clone();
        let admin = hub.admin().await;
        admin
            .batch_execute("update auth.refresh_tokens set used_at = used_at - interval '1 minute'")
            .await
            .unwrap();
        let reused = refresh(&hub, &first).await;
        assert_eq!(
            (reused.0, &reused.1["code"]),
            (400, &json!("refresh_token_already_used"))
        );
        let ended = refresh(&hub, &third).await;
        assert_eq!(
            (ended.0, &ended.1["code"]),
            (400, &json!("refresh_token_not_found")),
            "the whole session ended"
        );
        assert_eq!(
            refresh(&hub, &json!("nonsense")).await.1["code"],
            json!("refresh_token_not_found")
        );
    });
}

#[test]
fn two_children_of_one_token_cannot_both_live_on() {
    on_hub(async |hub| {
        let email = address();
        hub.hub().ensure_user(&email, "correct horse").await.unwrap();
        let first = sign_in(&hub, &email, "correct horse").await.1["refresh_token"].clone();
        let one = refresh(&hub, &first).await.1["refresh_token"].clone();
        let other = refresh(&hub, &first).await.1["refresh_token"].clone();
        let next = refresh(&hub, &one).await.1["refresh_token"].clone();
        hub.admin()
            .await
            .batch_execute("update auth.refresh_tokens set used_at = used_at - interval '1 minute'")
            .await
            .unwrap();
        assert_eq!(
            refresh(&hub, &other).await.1["code"],
            json!("refresh_token_already_used")
        );
        assert_eq!(
            refresh(&hub, &next).await.1["code"],
            json!("refresh_token_not_found"),
            "the whole session ended"
        );
    });
}

#[test]
fn guesses_at_the_same_time_are_counted_one_by_one() {
    on_hub(async |hub| {
        let email = address();
        let mut tries = Vec::new();
        // One more than are looked at; no more, since all tests share the line for hashes.
        for _ in 0..11 {
            tries.push(sign_in(&hub, &email, "wrong"));
        }
        let answers = futures_util::future::join_all(tries).await;
        let looked_at = answers.iter().filter(|(status, _)| *status == 400).count();
        assert_eq!(looked_at, 10, "{answers:?}");
        let long = format!("{}@example.com", "a".repeat(100_000));
        for _ in 0..12 {
            assert_eq!(
                sign_in(&hub, &long, "wrong").await.0,
                400,
                "nothing is kept of it"
            );
        }
    });
}

#[test]
fn two_refreshes_at_once_both_get_a_session() {
    on_hub(async |hub| {
        let email = address();
        hub.hub().ensure_user(&email, "correct horse").await.unwrap();
        let token = sign_in(&hub, &email, "correct horse").await.1["refresh_token"].clone();
        let (one, two) = tokio::join!(refresh(&hub, &token), refresh(&hub, &token));
        assert_eq!((one.0, two.0), (200, 200));
        assert_ne!(one.1["refresh_token"], two.1["refresh_token"]);
    });
}

#[test]
fn signing_out_and_a_new_password_end_sessions() {
    on_hub(async |hub| {
        let email = address();
        let user = hub.hub().ensure_user(&email, "correct horse").await.unwrap();
        let session = sign_in(&hub, &email, "correct horse").await.1;
        let person = Person {
            id: user.0,
            token: session["access_token"].as_str().unwrap().to_owned(),
        };
        hub.hub().ensure_user(&email, "correct horse").await.unwrap();
        assert_eq!(
            answer(hub.request(&person, Method::GET, "/auth/v1/user")).await.0,
            200,
            "the same password"
        );
        let out = hub.request(&person, Method::POST, "/auth/v1/logout?scope=local");
        assert_eq!(answer(out).await.0, 204);
        let gone = answer(hub.request(&person, Method::GET, "/auth/v1/user")).await;
        assert_eq!(
            (gone.0, &gone.1["error_code"]),
            (403, &json!("session_not_found"))
        );
        assert_eq!(
            refresh(&hub, &session["refresh_token"]).await.1["code"],
            json!("refresh_token_not_found")
        );
        let session = sign_in(&hub, &email, "correct horse").await.1;
        assert_eq!(
            hub.hub().ensure_user(&email, "another horse").await.unwrap(),
            user
        );
        assert_eq!(refresh(&hub, &session["refresh_token"]).await.0, 400);
        assert_eq!(sign_in(&hub, &email, "another horse").await.0, 200);
        assert!(
            hub.hub()
                .ensure_user("no address", "correct horse")
                .await
                .is_err()
        );
        assert!(hub.hub().ensure_user(&email, "short").await.is_err());
    });
}

#[test]
fn nobody_signs_up_over_the_network() {
    on_hub(async |hub| {
        let (status, body) = answer(post(
            &hub,
            "signup",
            &json!({"email": address(), "password": "correct horse"}),
        ))
        .await;
        assert_eq!((status, &body["code"]), (422, &json!("signup_disabled")));
        let keys = answer(hub.http.get(format!("{}/auth/v1/.well-known/jwks.json", hub.url))).await;
        assert_eq!(keys, (200, json!({"keys": []})));
        for path in ["/health", "/auth/v1/health", "/auth/v1/settings"] {
            assert_eq!(
                answer(hub.http.get(format!("{}{path}", hub.url))).await.0,
                200,
                "{path}"
            );
        }
        let keyless = hub
            .http
            .post(format!("{}/auth/v1/token?grant_type=password", hub.url))
            .json(&json!({"email": "a@b.c", "password": "p"}));
        assert_eq!(answer(keyless).await.0, 401);
    });
}

#[test]
fn foreign_hosts_and_origins_are_turned_away_and_pages_of_this_machine_get_cors() {
    on_hub(async |hub| {
        let ask = |name: &'static str, value: &str| {
            hub.http
                .get(format!("{}/health", hub.url))
                .header(name, value.to_owned())
                .send()
        };
        assert_eq!(ask("host", "evil.example").await.unwrap().status(), 403);
        assert_eq!(ask("origin", "https://evil.example").await.unwrap().status(), 403);
        let good = ask("origin", "http://localhost:5173").await.unwrap();
        assert_eq!(
            good.headers()["access-control-allow-origin"],
            "http://localhost:5173"
        );
        let preflight = hub
            .http
            .request(Method::OPTIONS, format!("{}/rest/v1/agents", hub.url))
            .header("origin", "http://localhost:5173")
            .header("access-control-request-method", "POST")
            .send()
            .await
            .unwrap();
        assert_eq!(preflight.status(), 204);
        let allowed = preflight.headers()["access-control-allow-headers"]
            .to_str()
            .unwrap();
        assert!(allowed.contains("authorization") && allowed.contains("x-supabase-api-version"));
    });
}

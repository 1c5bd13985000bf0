//! Signing keys: public halves, rotation, the file.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{TestHub, on_hub, on_own_hub};
use crate::wire::{PASSWORD, answer, claims, get_user, header, request, session, sign_in, text, user};

async fn jwks(hub: &TestHub) -> Vec<Value> {
    let keyless = hub.http.get(format!("{}/auth/v1/.well-known/jwks.json", hub.url));
    let keys = answer(keyless).await;
    assert_eq!(keys.headers["cache-control"], "public, max-age=600");
    keys.ok()["keys"].as_array().unwrap().clone()
}

/// Whether `key` of jwks.json verifies `token`, as `getClaims()` of auth-js does it.
fn verifies(key: &Value, token: &Value) -> bool {
    let decoding =
        jsonwebtoken::DecodingKey::from_ec_components(key["x"].as_str().unwrap(), key["y"].as_str().unwrap())
            .unwrap();
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    rules.set_audience(&["authenticated"]);
    jsonwebtoken::decode::<Value>(&text(token), &decoding, &rules).is_ok()
}

#[test]
fn whoever_has_the_public_keys_can_check_a_token_himself() {
    on_hub(async |hub| {
        let (_, session) = session(&hub).await;
        let keys = jwks(&hub).await;
        let kid = header(&session["access_token"])["kid"].clone();
        let key = keys.iter().find(|key| key["kid"] == kid).unwrap();
        assert_eq!(
            (&key["kty"], &key["crv"], &key["alg"]),
            (&json!("EC"), &json!("P-256"), &json!("ES256"))
        );
        assert!(verifies(key, &session["access_token"]));
        for key in &keys {
            let fields: Vec<&String> = key.as_object().unwrap().keys().collect();
            assert!(
                !fields.iter().any(|field| *field == "d" || *field == "k"),
                "{fields:?}"
            );
        }
        let discovery = answer(request(&hub, Method::GET, ".well-known/openid-configuration"))
            .await
            .ok();
        assert_eq!(discovery["issuer"], claims(&session["access_token"])["iss"]);
    });
}

#[test]
fn after_a_leak_every_secret_is_new_and_people_stay_signed_in() {
    let folder = tempfile::tempdir().unwrap();
    let config = crate::support::config(folder.path().join("hub"));
    let mut before = None;
    on_own_hub(
        |own| *own = config.clone(),
        async |hub| {
            let (email, id) = user(&hub).await;
            let session = sign_in(&hub, &email, PASSWORD).await.ok();
            let running = hub::renew_keys(&config).unwrap_err().to_string();
            assert!(running.contains("another"), "{running}");
            let server = hub.user_token(id, 600);
            before = Some((session, id, server, hub.hub().keys().clone()));
        },
    );
    let (session, id, server, old) = before.unwrap();
    let new = hub::renew_keys(&config).unwrap();
    assert_eq!(new.publishable, old.publishable, "clients need not be told");
    on_own_hub(
        |own| *own = config.clone(),
        async |hub| {
            for token in [
                &text(&session["access_token"]),
                &server,
                &old.service_role_jwt,
                &old.anon_jwt,
            ] {
                let token = token.clone();
                let (status, _) = hub.get(&crate::support::Person { id, token }, "offices").await;
                assert_eq!(status, 401);
            }
            for key in [&old.secret, &old.service_role_jwt, &old.anon_jwt] {
                let ask = hub.http.get(format!("{}/rest/v1/offices", hub.url));
                let refused = ask.header("apikey", key.as_str()).send().await.unwrap();
                assert_eq!(refused.status(), 401);
                let socket = crate::support::socket_status(&hub, key).await;
                assert_eq!(socket, 401);
            }
            let refreshed = crate::wire::refresh(&hub, &session["refresh_token"]).await.ok();
            get_user(&hub, &refreshed["access_token"]).await.ok();
            let ask = hub.http.get(format!("{}/rest/v1/offices", hub.url));
            let asked = ask.header("apikey", &new.secret).send().await.unwrap();
            assert_eq!(asked.status(), 200);
        },
    );
}

#[test]
fn after_a_rotation_old_and_new_tokens_are_good_everywhere() {
    on_own_hub(
        |_| {},
        async |hub| {
            let (email, id) = user(&hub).await;
            let before = sign_in(&hub, &email, PASSWORD).await.ok();
            let kid = hub.hub().rotate_signing_key().unwrap();
            let after = sign_in(&hub, &email, PASSWORD).await.ok();
            assert_eq!(header(&after["access_token"])["kid"], json!(kid));
            assert_ne!(header(&before["access_token"])["kid"], json!(kid));
            assert_eq!(jwks(&hub).await.len(), 2);
            for session in [&before, &after] {
                get_user(&hub, &session["access_token"]).await.ok();
                let person = crate::support::Person {
                    id,
                    token: text(&session["access_token"]),
                };
                assert_eq!(hub.get(&person, "offices?select=id").await.0, 200);
            }
            let refreshed = crate::wire::refresh(&hub, &before["refresh_token"]).await.ok();
            assert_eq!(header(&refreshed["access_token"])["kid"], json!(kid));
        },
    );
}

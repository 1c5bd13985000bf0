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

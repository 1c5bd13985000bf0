//! What must not work, each at the wire.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Person, TestHub, on_hub, on_open_hub, on_own_hub};
use crate::wire::{
    PASSWORD, address, answer, claims, get_user, post, refresh, request, session, sign_in, signed, text,
};

/// Whether Auth and REST both refuse the token.
async fn is_refused(hub: &TestHub, token: &str, what: &str) {
    let me = get_user(hub, &json!(token)).await;
    assert_eq!(me.fault().1, "bad_jwt", "{what}: {}", me.body);
    let person = Person {
        id: uuid::Uuid::nil(),
        token: token.to_owned(),
    };
    let (status, body) = hub.get(&person, "offices?select=id").await;
    assert_eq!(status, 401, "{what}: {body}");
}

fn base64(value: &Value) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string())
}

#[test]
fn a_token_is_signed_by_us_or_worth_nothing() {
    on_hub(async |hub| {
        let (_, session) = session(&hub).await;
        let good = text(&session["access_token"]);
        let mut better = claims(&session["access_token"]);
        better["role"] = json!("service_role");
        let signature = good.rsplit('.').next().unwrap();
        let head = good.split('.').next().unwrap();
        is_refused(
            &hub,
            &format!("{head}.{}.{signature}", base64(&better)),
            "changed claims",
        )
        .await;
        for alg in ["none", "None", "NONE", ""] {
            let none = base64(&json!({"alg": alg, "typ": "JWT"}));
            for signature in ["", "x", signature] {
                let token = format!("{none}.{}.{signature}", base64(&better));
                is_refused(&hub, &token, &format!("alg {alg:?}")).await;
            }
        }
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let key = EncodingKey::from_secret(b"super-secret-jwt-token-with-at-least-32-characters-long");
            let forged = jsonwebtoken::encode(&Header::new(algorithm), &better, &key).unwrap();
            is_refused(&hub, &forged, "the secret of every local Supabase").await;
        }
        // Another length of the right secret is another algorithm, too.
        let key = EncodingKey::from_secret(hub.jwt_secret.as_bytes());
        let forged = jsonwebtoken::encode(&Header::new(Algorithm::HS512), &better, &key).unwrap();
        is_refused(&hub, &forged, "HS512").await;
    });
}

#[test]
fn a_public_key_is_no_secret_to_sign_with() {
    on_hub(async |hub| {
        let keys = answer(request(&hub, Method::GET, ".well-known/jwks.json"))
            .await
            .ok();
        let key = &keys["keys"][0];
        let claims = json!({"sub": uuid::Uuid::new_v4(), "role": "service_role", "exp": hub.now_s() + 60});
        for secret in [
            key.to_string(),
            text(&key["x"]),
            text(&key["y"]),
            text(&key["kid"]),
            keys.to_string(),
        ] {
            for kid in [None, Some(text(&key["kid"]))] {
                let mut header = Header::new(Algorithm::HS256);
                header.kid = kid;
                let signed =
                    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret.as_bytes()));
                is_refused(&hub, &signed.unwrap(), "HS256 with what is public").await;
            }
        }
    });
}

#[test]
fn a_key_id_is_a_name_in_our_list_and_nothing_else() {
    on_hub(async |hub| {
        let (_, session) = session(&hub).await;
        let good = text(&session["access_token"]);
        let rest = good.split_once('.').unwrap().1;
        for kid in [
            "../hub.json",
            "/dev/null",
            "' or 1=1 --",
            "http://127.0.0.1:1/jwks.json",
            "\0",
            "",
        ] {
            for extra in [
                json!({}),
                json!({"jku": "http://127.0.0.1:1/k", "x5u": "file:///etc/passwd", "jwk": {"kty": "oct", "k": "AA"}}),
            ] {
                let mut head = json!({"alg": "ES256", "typ": "JWT", "kid": kid});
                head.as_object_mut()
                    .unwrap()
                    .extend(extra.as_object().unwrap().clone());
                is_refused(&hub, &format!("{}.{rest}", base64(&head)), kid).await;
            }
        }
    });
}

#[test]
fn an_expired_token_opens_nothing() {
    on_hub(async |hub| {
        let person = hub.person().await;
        is_refused(&hub, &hub.user_token(person.id, -31), "expired").await;
        let early = json!({"sub": person.id, "role": "authenticated", "exp": hub.now_s() + 600, "nbf": hub.now_s() + 300});
        is_refused(&hub, &hub.token(early), "not yet").await;
        let eternal = hub.token(json!({"sub": person.id, "role": "authenticated"}));
        is_refused(&hub, &eternal, "without an end").await;
        for role in [
            "postgres",
            "supabase_admin",
            "authenticator",
            "supabase_auth_admin",
        ] {
            let claims = json!({"sub": person.id, "role": role, "exp": hub.now_s() + 60});
            is_refused(&hub, &hub.token(claims), role).await;
        }
    });
}

#[test]
fn what_a_user_writes_about_himself_gives_him_nothing() {
    on_open_hub(async |hub| {
        let escalation = json!({"role": "service_role", "app_metadata": {"role": "service_role"}, "is_admin": true,
            "is_super_admin": true, "sub": uuid::Uuid::nil(), "aud": "x", "exp": 1, "is_anonymous": false});
        let body = json!({"email": address(), "password": PASSWORD, "data": escalation, "role": "service_role",
            "app_metadata": {"role": "service_role"}, "aud": "admin", "email_confirm": true, "id": uuid::Uuid::nil(),
            "is_super_admin": true});
        let session = post(&hub, "signup", body).await.ok();
        let token = &session["access_token"];
        let me = signed(
            &hub,
            token,
            Method::PUT,
            "user",
            Some(json!({"data": escalation, "role": "service_role"})),
        )
        .await;
        assert_eq!(me.ok()["role"], "authenticated");
        let app = json!({"app_metadata": {"role": "service_role"}});
        let refused = signed(&hub, token, Method::PUT, "user", Some(app)).await;
        assert_eq!(refused.fault(), (403, "not_admin"));
        let later = refresh(&hub, &session["refresh_token"]).await.ok();
        let claims = claims(&later["access_token"]);
        assert_eq!(
            (&claims["role"], &claims["aud"]),
            (&json!("authenticated"), &json!("authenticated"))
        );
        assert_eq!(claims["sub"], session["user"]["id"]);
        assert_eq!(
            claims["app_metadata"],
            json!({"provider": "email", "providers": ["email"]})
        );
        let listed = signed(&hub, &later["access_token"], Method::GET, "admin/users", None).await;
        assert_eq!(listed.fault(), (403, "not_admin"));
        // In the database: the role is the one of the token, whatever the metadata says.
        let (office, _) = hub.office().await;
        let person = Person {
            id: text(&claims["sub"]).parse().unwrap(),
            token: text(&later["access_token"]),
        };
        let (_, rows) = hub.get(&person, &format!("offices?id=eq.{office}")).await;
        assert_eq!(rows, json!([]));
        let (status, _) = hub.get(&person, "users?select=*").await;
        assert_eq!(status, 404, "auth is not exposed");
    });
}

#[test]
fn tokens_and_refresh_tokens_of_another_hub_are_strangers() {
    on_hub(async |hub| {
        let (mine, id) = crate::wire::user(&hub).await;
        let ours = sign_in(&hub, &mine, PASSWORD).await.ok();
        on_other_hub(&ours, &mine, id).await;
    });
}

/// The other hub has a user with the same address, id and password.
async fn on_other_hub(ours: &Value, email: &str, id: uuid::Uuid) {
    let (ours, email) = (ours.clone(), email.to_owned());
    let run = move || {
        on_own_hub(
            |_| {},
            async |other| {
                let body = json!({"id": id, "email": email, "password": PASSWORD, "email_confirm": true});
                crate::wire::admin(&other, Method::POST, "admin/users", Some(body))
                    .await
                    .ok();
                sign_in(&other, &email, PASSWORD).await.ok();
                let refused = refresh(&other, &ours["refresh_token"]).await;
                assert_eq!(refused.fault(), (400, "refresh_token_not_found"));
                is_refused(&other, &text(&ours["access_token"]), "another hub's").await;
            },
        );
    };
    tokio::task::spawn_blocking(run).await.unwrap();
}

#[test]
fn secret_keys_are_refused_from_browsers_whichever_way_they_come() {
    on_hub(async |hub| {
        let browser = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36";
        let url = format!("{}/auth/v1/admin/users", hub.url);
        for key in [&hub.secret, &hub.hub().keys().service_role_jwt] {
            let asked = hub
                .http
                .get(&url)
                .header("user-agent", browser)
                .header("apikey", key);
            assert_eq!(answer(asked).await.status, 401);
        }
        let smuggled = hub
            .http
            .get(&url)
            .header("user-agent", browser)
            .header("apikey", &hub.publishable)
            .bearer_auth(&hub.secret);
        let refused = answer(smuggled).await;
        assert!((401..=403).contains(&refused.status), "{}", refused.body);
        let rest = hub
            .http
            .get(format!("{}/rest/v1/offices", hub.url))
            .header("apikey", &hub.publishable)
            .bearer_auth(&hub.secret);
        assert_eq!(
            answer(rest).await.status,
            401,
            "a secret key counts only as `apikey`"
        );
        for wrong in ["sb_secret_nonsense", "", "anon"] {
            let asked = hub.http.get(&url).header("apikey", wrong);
            assert_eq!(answer(asked).await.status, 401, "{wrong:?}");
        }
    });
}

#[test]
fn huge_and_deep_bodies_are_refused() {
    on_open_hub(async |hub| {
        let huge = json!({"email": address(), "password": PASSWORD, "data": {"a": "x".repeat(2 << 20)}});
        for path in [
            "signup",
            "token?grant_type=password",
            "token?grant_type=refresh_token",
            "otp",
        ] {
            let refused = post(&hub, path, huge.clone()).await;
            assert_eq!(refused.fault(), (413, "request_entity_too_large"), "{path}");
        }
        let deep = format!("{{\"data\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let refused = answer(request(&hub, Method::POST, "signup").body(deep)).await;
        assert_eq!(refused.fault(), (400, "bad_json"));
        let nul = json!({"email": "a\u{0}b@c.d", "password": PASSWORD});
        assert_eq!(
            post(&hub, "signup", nul).await.fault(),
            (400, "validation_failed")
        );
        let nul = json!({"email": address(), "password": PASSWORD, "data": {"a": "\u{0}"}});
        assert_eq!(
            post(&hub, "signup", nul).await.fault(),
            (400, "validation_failed")
        );
    });
}

#[test]
fn statements_in_every_place_where_text_comes_in_are_text() {
    on_open_hub(async |hub| {
        const SQL: &str = "'; drop table auth.users; --";
        let email = format!("{}'--@x.y", uuid::Uuid::new_v4());
        let session = post(
            &hub,
            "signup",
            json!({"email": email, "password": SQL, "data": {SQL: SQL}}),
        )
        .await
        .ok();
        assert_eq!(session["user"]["user_metadata"][SQL], SQL);
        let me = signed(
            &hub,
            &session["access_token"],
            Method::PUT,
            "user",
            Some(json!({"data": {SQL: null}})),
        )
        .await;
        assert!(me.ok()["user_metadata"].get(SQL).is_none());
        sign_in(&hub, &email, SQL).await.ok();
        for query in [
            "filter=%27%3B%20drop%20table%20auth.users%3B",
            "sort=id%3Bdrop",
            "page=1%3Bdrop",
        ] {
            crate::wire::admin(&hub, Method::GET, &format!("admin/users?{query}"), None).await;
        }
        let left: i64 = hub
            .admin()
            .await
            .query_one("select count(*) from auth.users", &[])
            .await
            .unwrap()
            .get(0);
        assert!(left > 0);
    });
}

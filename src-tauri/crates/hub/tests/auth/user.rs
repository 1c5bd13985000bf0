//! What a signed-in user does with himself.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Person, TestHub, on_hub, on_open_hub};
use crate::wire::{
    Answer, PASSWORD, address, ensure_user, get_user, refresh, request, session, sign_in, signed, text, user,
};

async fn put(hub: &TestHub, session: &Value, body: Value) -> Answer {
    signed(hub, &session["access_token"], Method::PUT, "user", Some(body)).await
}

async fn logout(hub: &TestHub, session: &Value, query: &str) -> Answer {
    let path = format!("logout{query}");
    signed(
        hub,
        &session["access_token"],
        Method::POST,
        &path,
        Some(json!({})),
    )
    .await
}

/// `Update user`, `Get user after updating`.
#[test]
fn metadata_is_merged_and_nulls_take_keys_out() {
    on_hub(async |hub| {
        let (email, session) = session(&hub).await;
        let me = put(&hub, &session, json!({"data": {"hello": "world", "old": 1}}))
            .await
            .ok();
        assert_eq!(me["user_metadata"]["hello"], "world");
        assert_eq!(me["email"], json!(email));
        put(&hub, &session, json!({"data": {"old": null, "new": {"a": [1]}}}))
            .await
            .ok();
        let me = get_user(&hub, &session["access_token"]).await.ok();
        assert_eq!(me["user_metadata"]["hello"], "world");
        assert_eq!(me["user_metadata"]["new"], json!({"a": [1]}));
        assert!(me["user_metadata"].get("old").is_none());
        let much = json!({"data": {"much": "x".repeat(20_000)}});
        put(&hub, &session, much).await.ok();
        let more = put(&hub, &session, json!({"data": {"more": "x".repeat(20_000)}})).await;
        assert_eq!(more.fault(), (400, "validation_failed"), "tokens carry all of it");
    });
}

#[test]
fn a_new_password_ends_the_other_sessions_and_not_this_one() {
    on_hub(async |hub| {
        let (email, here) = session(&hub).await;
        let there = sign_in(&hub, &email, PASSWORD).await.ok();
        for (body, fault) in [
            (json!({"password": "short"}), (422, "weak_password")),
            (json!({"password": PASSWORD}), (422, "same_password")),
            (
                json!({"password": "another horse", "current_password": "wrong"}),
                (400, "current_password_invalid"),
            ),
        ] {
            assert_eq!(put(&hub, &here, body).await.fault(), fault);
        }
        let body = json!({"password": "another horse", "current_password": PASSWORD, "nonce": ""});
        put(&hub, &here, body).await.ok();
        let gone = get_user(&hub, &there["access_token"]).await;
        assert_eq!(gone.fault(), (403, "session_not_found"));
        assert_eq!(refresh(&hub, &there["refresh_token"]).await.status, 400);
        refresh(&hub, &here["refresh_token"]).await.ok();
        assert_eq!(sign_in(&hub, &email, PASSWORD).await.status, 400);
        sign_in(&hub, &email, "another horse").await.ok();
    });
}

#[test]
fn a_new_address_counts_at_once_and_must_be_free() {
    on_hub(async |hub| {
        let (email, session) = session(&hub).await;
        let (taken, _) = user(&hub).await;
        let body = json!({"email": taken.to_uppercase(), "current_password": PASSWORD});
        let refused = put(&hub, &session, body).await;
        assert_eq!(refused.fault(), (422, "email_exists"));
        let refused = put(&hub, &session, json!({"email": "no address"})).await;
        assert_eq!(refused.fault(), (400, "validation_failed"));
        let refused = put(&hub, &session, json!({"phone": "+34123"})).await;
        assert_eq!(refused.fault(), (422, "phone_provider_disabled"));
        put(&hub, &session, json!({"email": email})).await.ok();
        let new = address();
        // A token alone, which somebody may have stolen, does not give the account away.
        let refused = put(&hub, &session, json!({"email": new})).await;
        assert_eq!(refused.fault(), (400, "current_password_required"));
        let body = |password: &str| json!({"email": new, "current_password": password});
        let refused = put(&hub, &session, body("wrong")).await;
        assert_eq!(refused.fault(), (400, "current_password_invalid"));
        sign_in(&hub, &email, PASSWORD).await.ok();
        let me = put(&hub, &session, body(PASSWORD)).await.ok();
        assert_eq!(me["email"], json!(new));
        assert_eq!(me["identities"][0]["identity_data"]["email"], json!(new));
        sign_in(&hub, &new, PASSWORD).await.ok();
        assert_eq!(sign_in(&hub, &email, PASSWORD).await.status, 400);
    });
}

#[test]
fn signing_out_ends_what_its_scope_says() {
    on_hub(async |hub| {
        let (email, here) = session(&hub).await;
        let there = sign_in(&hub, &email, PASSWORD).await.ok();
        assert_eq!(logout(&hub, &here, "?scope=others").await.status, 204);
        get_user(&hub, &here["access_token"]).await.ok();
        assert_eq!(refresh(&hub, &there["refresh_token"]).await.status, 400);
        let there = sign_in(&hub, &email, PASSWORD).await.ok();
        assert_eq!(logout(&hub, &here, "?scope=local").await.status, 204);
        let gone = get_user(&hub, &here["access_token"]).await;
        assert_eq!(gone.fault(), (403, "session_not_found"));
        get_user(&hub, &there["access_token"]).await.ok();
        let here = sign_in(&hub, &email, PASSWORD).await.ok();
        // `signOut() fails with invalid scope`.
        assert_eq!(
            logout(&hub, &here, "?scope=all").await.fault(),
            (400, "validation_failed")
        );
        assert_eq!(logout(&hub, &here, "").await.status, 204, "global is the default");
        for session in [&here, &there] {
            let refused = refresh(&hub, &session["refresh_token"]).await;
            assert_eq!(refused.fault(), (400, "refresh_token_not_found"));
        }
        assert_eq!(logout(&hub, &here, "").await.fault(), (403, "session_not_found"));
    });
}

#[test]
fn who_is_signed_out_banned_or_gone_reads_on_until_the_token_expires() {
    on_hub(async |hub| {
        let (email, session) = session(&hub).await;
        let id = text(&session["user"]["id"]).parse().unwrap();
        let person = Person {
            id,
            token: text(&session["access_token"]),
        };
        hub.ok(&person, "create_office", json!({"p_name": "Mine"})).await;
        logout(&hub, &session, "?scope=global").await;
        let (status, offices) = hub.get(&person, "offices?select=name").await;
        assert_eq!(
            (status, offices),
            (200, json!([{"name": "Mine"}])),
            "as at Supabase"
        );
        let other = sign_in(&hub, &email, PASSWORD).await.ok();
        hub.admin()
            .await
            .execute("delete from auth.users where id = $1", &[&id])
            .await
            .unwrap();
        let gone = get_user(&hub, &other["access_token"]).await;
        assert_eq!(gone.fault(), (403, "user_not_found"));
        let (_, offices) = hub.get(&person, "offices?select=name").await;
        assert_eq!(offices, json!([]), "membership went with the user");
    });
}

#[test]
fn a_token_must_be_there_and_be_of_a_user() {
    on_hub(async |hub| {
        let bare = crate::wire::answer(request(&hub, Method::GET, "user")).await;
        assert_eq!(
            bare.fault(),
            (401, "no_authorization"),
            "the key alone is no user"
        );
        let as_before_sign_in = request(&hub, Method::GET, "user").bearer_auth(&hub.publishable);
        let refused = crate::wire::answer(as_before_sign_in).await;
        assert_eq!(refused.fault(), (403, "bad_jwt"));
        let no_bearer = request(&hub, Method::GET, "user").header("authorization", "Basic YTpi");
        let refused = crate::wire::answer(no_bearer).await;
        assert_eq!(refused.fault(), (401, "no_authorization"));
        let late =
            hub.token(json!({"sub": uuid::Uuid::new_v4(), "role": "authenticated", "exp": hub.now_s() - 1}));
        assert_eq!(get_user(&hub, &json!(late)).await.fault(), (403, "bad_jwt"));
        for claims in [
            json!({"sub": "root", "role": "authenticated", "exp": hub.now_s() + 60}),
            json!({"role": "service_role", "exp": hub.now_s() + 60}),
        ] {
            let refused = get_user(&hub, &json!(hub.token(claims))).await;
            assert_eq!(refused.fault().1, "bad_jwt");
        }
        let unknown = hub.user_token(uuid::Uuid::new_v4(), 60);
        assert_eq!(
            get_user(&hub, &json!(unknown)).await.fault(),
            (403, "user_not_found")
        );
    });
}

#[test]
fn the_owner_sets_passwords_and_the_same_one_changes_nothing() {
    on_open_hub(async |hub| {
        let (email, session) = session(&hub).await;
        ensure_user(&hub, &email, PASSWORD).await;
        get_user(&hub, &session["access_token"]).await.ok();
        ensure_user(&hub, &email.to_uppercase(), "another horse").await;
        assert_eq!(refresh(&hub, &session["refresh_token"]).await.status, 400);
        sign_in(&hub, &email, "another horse").await.ok();
        assert!(hub.hub().ensure_user("no address", PASSWORD).await.is_err());
        assert!(hub.hub().ensure_user(&email, "short").await.is_err());
    });
}

//! Sign-in with a password.

use std::time::Instant;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Person, on_hub, on_open_hub};
use crate::wire::{
    PASSWORD, address, alone, answer, answer_at_once, claims, get_user, header, post, request, session,
    sign_in, signing_in, text, user,
};

/// `signInWithPassword() for email`.
#[test]
fn a_session_has_what_official_clients_need_and_its_token_opens_rest() {
    on_hub(async |hub| {
        let (email, id) = user(&hub).await;
        let session = sign_in(&hub, &email.to_uppercase(), PASSWORD).await.ok();
        for key in ["access_token", "refresh_token", "expires_in", "expires_at"] {
            assert!(!session[key].is_null(), "{key}");
        }
        assert_eq!(session["token_type"], "bearer");
        let me = &session["user"];
        for key in [
            "id",
            "aud",
            "role",
            "email",
            "phone",
            "app_metadata",
            "user_metadata",
            "created_at",
            "updated_at",
            "email_confirmed_at",
            "confirmed_at",
            "last_sign_in_at",
        ] {
            assert!(!me[key].is_null(), "user.{key}");
        }
        assert_eq!(me["id"], json!(id));
        assert_eq!(
            me["app_metadata"],
            json!({"provider": "email", "providers": ["email"]})
        );
        // What the Python model wants of an identity.
        let identity = &me["identities"][0];
        for key in [
            "id",
            "identity_id",
            "user_id",
            "provider",
            "created_at",
            "last_sign_in_at",
            "updated_at",
        ] {
            assert!(identity[key].is_string(), "identity.{key}: {identity}");
        }
        assert_eq!(identity["identity_data"]["email"], json!(email));
        let person = Person {
            id,
            token: text(&session["access_token"]),
        };
        let office = hub.ok(&person, "create_office", json!({"p_name": "Mine"})).await;
        let members = hub
            .get(&person, "office_members?select=user_id,role,office_id")
            .await
            .1;
        assert_eq!(
            members,
            json!([{"user_id": id, "role": "owner", "office_id": office["id"]}])
        );
        assert_eq!(
            get_user(&hub, &session["access_token"]).await.ok()["id"],
            json!(id)
        );
    });
}

#[test]
fn a_token_carries_the_claims_sql_and_clients_read() {
    on_hub(async |hub| {
        let (email, session) = session(&hub).await;
        assert_eq!(header(&session["access_token"])["alg"], "ES256");
        let claims = claims(&session["access_token"]);
        assert_eq!(claims["iss"], json!(format!("{}/auth/v1", hub.url)));
        for (name, expected) in [
            ("sub", &session["user"]["id"]),
            ("email", &json!(email)),
            ("aud", &json!("authenticated")),
            ("role", &json!("authenticated")),
            ("exp", &session["expires_at"]),
            ("aal", &json!("aal1")),
            ("is_anonymous", &json!(false)),
            ("phone", &json!("")),
        ] {
            assert_eq!(&claims[name], expected, "{name}");
        }
        assert_eq!(claims["amr"][0]["method"], "password");
        assert!(claims["amr"][0]["timestamp"].is_i64() && claims["session_id"].is_string());
        let later = crate::wire::refresh(&hub, &session["refresh_token"]).await.ok();
        assert_eq!(
            crate::wire::claims(&later["access_token"])["amr"],
            claims["amr"],
            "a refresh is no sign-in"
        );
    });
}

/// `signIn() with the wrong password`.
#[test]
fn a_wrong_password_and_an_unknown_address_look_the_same() {
    on_hub(async |hub| {
        let (email, _) = user(&hub).await;
        let expected = json!({"code": "invalid_credentials", "message": "Invalid login credentials"});
        for address in [
            email.clone(),
            address(),
            "no address".to_owned(),
            "a".repeat(100_000),
        ] {
            let refused = sign_in(&hub, &address, "wrong").await;
            assert_eq!((refused.status, &refused.body), (400, &expected));
            assert_eq!(refused.headers["x-sb-error-code"], "invalid_credentials");
            assert_eq!(refused.headers["x-supabase-api-version"], "2024-01-01");
        }
        let old = hub
            .http
            .post(format!("{}/auth/v1/token?grant_type=password", hub.url))
            .header("apikey", &hub.publishable)
            .json(&json!({"email": email, "password": "no"}));
        let old = answer(old).await;
        let shape =
            json!({"code": 400, "error_code": "invalid_credentials", "msg": "Invalid login credentials"});
        assert_eq!(old.body, shape, "the older shape");
        assert!(!old.headers.contains_key("x-supabase-api-version"));
    });
}

#[test]
fn the_time_of_an_answer_does_not_tell_which_addresses_exist() {
    on_hub(async |hub| {
        let (known, _) = user(&hub).await;
        let (imported, id) = user(&hub).await;
        let hash = bcrypt(PASSWORD);
        hub.admin()
            .await
            .execute(
                "update auth.users set encrypted_password = $2 where id = $1",
                &[&id, &hash],
            )
            .await
            .unwrap();
        for email in [known, imported, address()] {
            let since = Instant::now();
            assert_eq!(sign_in(&hub, &email, "wrong").await.status, 400);
            assert!(
                since.elapsed().as_millis() >= 250,
                "{email}: as long as the slowest hash"
            );
        }
    });
}

fn bcrypt(password: &str) -> String {
    bcrypt::hash(password, 5).unwrap()
}

#[test]
fn an_imported_user_signs_in_and_the_hash_is_renewed() {
    on_hub(async |hub| {
        let (email, id) = user(&hub).await;
        let admin = hub.admin().await;
        admin
            .execute(
                "update auth.users set encrypted_password = $2 where id = $1",
                &[&id, &bcrypt(PASSWORD)],
            )
            .await
            .unwrap();
        // Both renew it; the second finds it renewed.
        let (before, other) = tokio::join!(sign_in(&hub, &email, PASSWORD), sign_in(&hub, &email, PASSWORD));
        other.ok();
        let before = before.ok();
        let hash: String = admin
            .query_one("select encrypted_password from auth.users where id = $1", &[&id])
            .await
            .unwrap()
            .get(0);
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        sign_in(&hub, &email, PASSWORD).await.ok();
        assert_eq!(sign_in(&hub, &email, "wrong").await.status, 400);
        crate::wire::refresh(&hub, &before["refresh_token"]).await.ok();
    });
}

#[test]
fn what_a_sign_in_lacks_is_said() {
    on_hub(async |hub| {
        for (body, fault) in [
            (json!({"password": PASSWORD}), (400, "validation_failed")),
            (
                json!({"email": "a@b.c", "phone": "+1", "password": PASSWORD}),
                (400, "validation_failed"),
            ),
            // `signIn() with the wrong phone`.
            (
                json!({"phone": "+34123", "password": PASSWORD}),
                (422, "phone_provider_disabled"),
            ),
            (json!({"email": 7}), (400, "bad_json")),
            (json!([1]), (400, "bad_json")),
        ] {
            let refused = post(&hub, "token?grant_type=password", body.clone()).await;
            assert_eq!(refused.fault(), fault, "{body}");
        }
        for path in ["token", "token?grant_type=implicit"] {
            let refused = post(&hub, path, json!({})).await;
            assert_eq!(refused.fault(), (400, "invalid_credentials"), "{path}");
        }
        let garbage = request(&hub, reqwest::Method::POST, "token?grant_type=password").body("{");
        assert_eq!(answer(garbage).await.fault(), (400, "bad_json"));
    });
}

#[test]
fn who_is_banned_or_not_confirmed_is_told_only_with_the_right_password() {
    on_hub(async |hub| {
        let (banned, id) = user(&hub).await;
        let (unconfirmed, other) = user(&hub).await;
        let admin = hub.admin().await;
        admin
            .execute(
                "update auth.users set banned_until = now() + interval '1 hour' where id = $1",
                &[&id],
            )
            .await
            .unwrap();
        admin
            .execute(
                "update auth.users set email_confirmed_at = null where id = $1",
                &[&other],
            )
            .await
            .unwrap();
        for (email, code) in [(banned, "user_banned"), (unconfirmed, "email_not_confirmed")] {
            assert_eq!(sign_in(&hub, &email, PASSWORD).await.fault(), (400, code));
            let wrong = sign_in(&hub, &email, "wrong").await;
            assert_eq!(wrong.fault(), (400, "invalid_credentials"));
        }
    });
}

#[test]
fn many_sign_ins_at_once_are_served_or_told_to_wait() {
    let _alone = alone();
    on_open_hub(async |hub| {
        let users = join_all((0..40).map(|_| async { user_of_sql(&hub).await })).await;
        let asked = users.iter().map(|email| signing_in(&hub, email, PASSWORD));
        let answers = join_all(asked.map(answer_at_once)).await;
        for answer in answers {
            match answer.status {
                200 => {}
                429 => assert_eq!(answer.headers["retry-after"], "1"),
                other => panic!("{other}: {}", answer.body),
            }
        }
        assert_eq!(sign_in(&hub, &users[0], PASSWORD).await.status, 200, "afterwards");
    });
}

/// A user whose cheap hash was written by somebody else.
async fn user_of_sql(hub: &crate::support::TestHub) -> String {
    let email = address();
    hub.admin()
        .await
        .execute(
            "insert into auth.users (instance_id, id, aud, role, email, encrypted_password, email_confirmed_at,
               raw_app_meta_data, raw_user_meta_data, created_at, updated_at, confirmation_token, email_change,
               email_change_token_new, recovery_token)
             values ('00000000-0000-0000-0000-000000000000', gen_random_uuid(), 'authenticated', 'authenticated', $1, $2,
               now(), null, null, null, null, '', '', '', '')",
            &[&email, &bcrypt(PASSWORD)],
        )
        .await
        .unwrap();
    email
}

#[test]
fn a_user_written_by_sql_as_for_supabase_signs_in() {
    on_hub(async |hub| {
        let email = user_of_sql(&hub).await;
        let session = sign_in(&hub, &email, PASSWORD).await.ok();
        assert_eq!(session["user"]["user_metadata"], json!({}));
        assert!(session["user"]["created_at"].is_string());
        assert_ne!(session["user"]["identities"], Value::Null);
    });
}

//! Administration of users with the secret key. Ported from auth-js' GoTrueApi.test.ts.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{TestHub, on_hub, on_own_hub};
use crate::wire::{
    PASSWORD, address, admin, answer, get_user, refresh, request, session, sign_in, signed, text,
};

async fn create(hub: &TestHub, body: Value) -> Value {
    admin(hub, Method::POST, "admin/users", Some(body)).await.ok()
}

/// `createUser() with user and app metadata`.
#[test]
fn an_administrator_makes_a_user_who_signs_in() {
    on_hub(async |hub| {
        let email = address();
        let body = json!({"email": email, "password": PASSWORD, "email_confirm": true,
                          "user_metadata": {"profile_image": "a.png"}, "app_metadata": {"provider": "google", "roles": ["editor"]}});
        let user = create(&hub, body).await;
        assert_eq!(user["email"], json!(email));
        assert_eq!(user["user_metadata"]["profile_image"], "a.png");
        assert_eq!(user["app_metadata"]["roles"], json!(["editor"]));
        assert_eq!(user["app_metadata"]["provider"], "google");
        let session = sign_in(&hub, &email, PASSWORD).await.ok();
        let claims = crate::wire::claims(&session["access_token"]);
        assert_eq!(claims["app_metadata"]["roles"], json!(["editor"]));
        // `getUserById() should a registered user given its user identifier`.
        let path = format!("admin/users/{}", text(&user["id"]));
        let shown = admin(&hub, Method::GET, &path, None).await.ok();
        assert_eq!(shown["id"], user["id"]);
        let factors = admin(&hub, Method::GET, &format!("{path}/factors"), None)
            .await
            .ok();
        assert_eq!(factors, json!([]));
    });
}

#[test]
fn a_user_can_be_made_with_an_id_and_a_hash_of_before() {
    on_hub(async |hub| {
        let (email, id) = (address(), uuid::Uuid::new_v4());
        let hash = bcrypt::hash(PASSWORD, 5).unwrap();
        let body = json!({"id": id, "email": email, "password_hash": hash, "email_confirm": true});
        assert_eq!(create(&hub, body).await["id"], json!(id));
        sign_in(&hub, &email, PASSWORD).await.ok();
    });
}

/// `createUser() returns AuthError when email is invalid` and its relatives.
#[test]
fn what_cannot_be_a_user_is_refused() {
    on_hub(async |hub| {
        let taken = address();
        create(&hub, json!({"email": taken})).await;
        for (body, fault) in [
            (json!({"email": taken.to_uppercase()}), (422, "email_exists")),
            (json!({"email": ""}), (400, "validation_failed")),
            (json!({"email": "xx:;x@x.x"}), (400, "validation_failed")),
            (json!({"phone": "+1234567"}), (422, "phone_provider_disabled")),
            (
                json!({"email": address(), "password": "short"}),
                (422, "weak_password"),
            ),
            (json!({"email": address(), "id": "7"}), (400, "validation_failed")),
            (
                json!({"email": address(), "id": uuid::Uuid::nil()}),
                (400, "validation_failed"),
            ),
            (
                json!({"email": address(), "ban_duration": "soon"}),
                (400, "validation_failed"),
            ),
            (
                json!({"email": address(), "role": "postgres"}),
                (400, "validation_failed"),
            ),
            (
                json!({"email": address(), "password_hash": "plain"}),
                (400, "validation_failed"),
            ),
            (
                json!({"email": address(), "password": PASSWORD, "password_hash": "$2b$10$x"}),
                (400, "validation_failed"),
            ),
        ] {
            let refused = admin(&hub, Method::POST, "admin/users", Some(body.clone())).await;
            assert_eq!(refused.fault(), fault, "{body}");
        }
    });
}

/// `modify email/user metadata/app metadata/confirm email using updateUserById()`.
#[test]
fn an_administrator_changes_everything_about_a_user() {
    on_hub(async |hub| {
        let email = address();
        let user = create(
            &hub,
            json!({"email": email, "password": PASSWORD, "app_metadata": {"old": 1}}),
        )
        .await;
        assert!(user.get("email_confirmed_at").is_none());
        assert_eq!(
            sign_in(&hub, &email, PASSWORD).await.fault(),
            (400, "email_not_confirmed")
        );
        let path = format!("admin/users/{}", text(&user["id"]));
        let put = async |body: Value| admin(&hub, Method::PUT, &path, Some(body)).await.ok();
        assert!(put(json!({"email_confirm": true})).await["email_confirmed_at"].is_string());
        let before = sign_in(&hub, &email, PASSWORD).await.ok();
        let new = address();
        let body = json!({"email": new, "user_metadata": {"favorite_color": "yellow"},
                          "app_metadata": {"roles": ["admin"], "old": null}, "role": "service_role"});
        let changed = put(body).await;
        assert_eq!(
            (&changed["email"], &changed["role"]),
            (&json!(new), &json!("service_role"))
        );
        assert_eq!(changed["user_metadata"]["favorite_color"], "yellow");
        assert_eq!(changed["app_metadata"]["roles"], json!(["admin"]));
        assert!(changed["app_metadata"].get("old").is_none());
        put(json!({"password": "another horse"})).await;
        let ended = refresh(&hub, &before["refresh_token"]).await;
        assert_eq!(
            ended.fault(),
            (400, "refresh_token_not_found"),
            "a new password ends all sessions"
        );
        sign_in(&hub, &new, "another horse").await.ok();
    });
}

#[test]
fn a_ban_lasts_as_long_as_it_says() {
    on_hub(async |hub| {
        let (email, session) = session(&hub).await;
        let path = format!("admin/users/{}", text(&session["user"]["id"]));
        let banned = admin(&hub, Method::PUT, &path, Some(json!({"ban_duration": "1h30m"})))
            .await
            .ok();
        assert!(banned["banned_until"].is_string());
        assert_eq!(
            sign_in(&hub, &email, PASSWORD).await.fault(),
            (400, "user_banned")
        );
        assert_eq!(
            get_user(&hub, &session["access_token"]).await.fault(),
            (403, "user_banned")
        );
        let free = admin(&hub, Method::PUT, &path, Some(json!({"ban_duration": "none"})))
            .await
            .ok();
        assert!(free.get("banned_until").is_none());
        sign_in(&hub, &email, PASSWORD).await.ok();
    });
}

/// `deleteUser() should be able delete an existing user`.
#[test]
fn a_deleted_user_is_gone_and_a_softly_deleted_one_has_no_name() {
    on_hub(async |hub| {
        let (email, first) = session(&hub).await;
        let path = |user: &Value| format!("admin/users/{}", text(&user["id"]));
        let gone = admin(
            &hub,
            Method::DELETE,
            &path(&first["user"]),
            Some(json!({"should_soft_delete": false})),
        )
        .await;
        assert_eq!(gone.ok(), json!({}));
        let shown = admin(&hub, Method::GET, &path(&first["user"]), None).await;
        assert_eq!(shown.fault(), (404, "user_not_found"));
        assert_eq!(refresh(&hub, &first["refresh_token"]).await.status, 400);
        let (soft, second) = session(&hub).await;
        let body = Some(json!({"should_soft_delete": true}));
        admin(&hub, Method::DELETE, &path(&second["user"]), body)
            .await
            .ok();
        let shown = admin(&hub, Method::GET, &path(&second["user"]), None).await.ok();
        assert!(
            shown["deleted_at"].is_string() && !shown.to_string().contains(&soft),
            "{shown}"
        );
        for (email, session) in [(&email, &first), (&soft, &second)] {
            assert_eq!(
                sign_in(&hub, email, PASSWORD).await.fault(),
                (400, "invalid_credentials")
            );
            assert_eq!(get_user(&hub, &session["access_token"]).await.status, 403);
            create(&hub, json!({"email": email})).await;
        }
    });
}

/// `listUsers() should return registered users`, `… returns AuthError when page is invalid`.
#[test]
fn users_are_listed_page_by_page() {
    on_own_hub(
        |_| {},
        async |hub| {
            for n in 0..5 {
                let body = json!({"email": format!("u{n}@list.example"), "user_metadata": {"full_name": format!("Name {n}")}});
                create(&hub, body).await;
            }
            let list =
                async |query: &str| admin(&hub, Method::GET, &format!("admin/users{query}"), None).await;
            let all = list("?page=&per_page=").await;
            assert_eq!(all.headers["x-total-count"], "5");
            let emails = |body: &Value| -> Vec<String> {
                body["users"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|user| text(&user["email"]))
                    .collect()
            };
            assert_eq!(all.body["aud"], "authenticated");
            assert_eq!(emails(&all.body)[0], "u4@list.example", "the newest first");
            let page = list("?page=2&per_page=2").await;
            assert_eq!(emails(&page.body), ["u2@list.example", "u1@list.example"]);
            let link = page.headers["link"].to_str().unwrap();
            // auth-js takes the number between the first `=` and the next character after it.
            assert_eq!(
                link,
                "</admin/users?page=3&per_page=2>; rel=\"next\", </admin/users?page=3&per_page=2>; rel=\"last\""
            );
            assert_eq!(emails(&list("?page=9").await.body), Vec::<String>::new());
            assert_eq!(emails(&list("?filter=u3%40").await.body), ["u3@list.example"]);
            assert_eq!(emails(&list("?filter=NAME%201").await.body), ["u1@list.example"]);
            assert_eq!(emails(&list("?filter=%25").await.body), Vec::<String>::new());
            for bad in [
                "?page=-1",
                "?per_page=many",
                "?sort=email%20desc",
                "?page=99999999999",
            ] {
                assert_eq!(list(bad).await.fault(), (400, "validation_failed"), "{bad}");
            }
        },
    );
}

#[test]
fn nobody_else_administers_and_nobody_else_learns_who_exists() {
    on_hub(async |hub| {
        let (_, session) = session(&hub).await;
        let known = format!("admin/users/{}", text(&session["user"]["id"]));
        for path in [
            "admin/users",
            known.as_str(),
            "admin/users/not-an-id",
            "admin/generate_link",
            "invite",
        ] {
            let method = match path {
                "admin/generate_link" | "invite" => Method::POST,
                _ => Method::GET,
            };
            let user = signed(&hub, &session["access_token"], method.clone(), path, None).await;
            assert_eq!(user.fault(), (403, "not_admin"), "{path}");
            let anon = answer(request(&hub, method.clone(), path)).await;
            assert_eq!(anon.fault(), (403, "not_admin"), "{path}");
            let keyless = hub.http.request(method, format!("{}/auth/v1/{path}", hub.url));
            assert_eq!(answer(keyless).await.status, 401, "{path}");
        }
        for (method, body) in [
            (Method::PUT, json!({"role": "service_role"})),
            (Method::DELETE, json!({})),
        ] {
            let refused = signed(&hub, &session["access_token"], method, &known, Some(body)).await;
            assert_eq!(refused.fault(), (403, "not_admin"));
        }
        // The secret key as `apikey` does not lend its rights to a user's token.
        let mixed = hub
            .http
            .get(format!("{}/auth/v1/admin/users", hub.url))
            .header("apikey", &hub.secret)
            .bearer_auth(text(&session["access_token"]));
        assert_eq!(answer(mixed).await.status, 403);
        let alone = hub
            .http
            .get(format!("{}/auth/v1/admin/users", hub.url))
            .header("apikey", &hub.secret);
        assert_eq!(answer(alone).await.status, 200, "the gateway puts its rights in");
        let legacy = hub
            .http
            .get(format!("{}/auth/v1/admin/users", hub.url))
            .header("apikey", &hub.hub().keys().service_role_jwt)
            .bearer_auth(&hub.hub().keys().service_role_jwt);
        assert_eq!(answer(legacy).await.status, 200);
    });
}

/// `getUserById() returns AuthError when user id is invalid` and the same of update and delete.
#[test]
fn users_that_are_not_there_are_not_found() {
    on_hub(async |hub| {
        for (id, code) in [
            ("invalid-id".to_owned(), "validation_failed"),
            (uuid::Uuid::new_v4().to_string(), "user_not_found"),
        ] {
            for method in [Method::GET, Method::PUT, Method::DELETE] {
                let body = (method != Method::GET).then(|| json!({}));
                let answer = admin(&hub, method, &format!("admin/users/{id}"), body).await;
                assert_eq!(answer.fault(), (404, code));
            }
        }
    });
}

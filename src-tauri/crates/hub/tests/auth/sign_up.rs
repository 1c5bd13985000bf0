//! New users: off unless switched on.

use reqwest::Method;
use serde_json::json;

use crate::support::{Person, TestHub, on_hub, on_open_hub, on_own_hub};
use crate::wire::{
    PASSWORD, address, answer, claims, get_user, post, refresh, request, sign_in, signed, text, user,
};

#[test]
fn nobody_signs_up_where_it_is_off() {
    on_hub(async |hub| {
        let refused = post(&hub, "signup", json!({"email": address(), "password": PASSWORD})).await;
        assert_eq!(refused.fault(), (422, "signup_disabled"));
        for body in [json!({}), json!({"data": {"a": 1}, "gotrue_meta_security": {}})] {
            let refused = post(&hub, "signup", body).await;
            assert_eq!(refused.fault(), (422, "anonymous_provider_disabled"));
        }
        let settings = answer(request(&hub, Method::GET, "settings")).await.ok();
        assert_eq!(settings["disable_signup"], true);
        assert_eq!(settings["external"]["anonymous_users"], false);
    });
}

/// `signUp() with email and options`, `User can sign up`.
#[test]
fn who_signs_up_is_signed_in_at_once() {
    on_open_hub(async |hub| {
        let email = address();
        let data = json!({"status": "alpha"});
        let body = json!({"email": email.to_uppercase(), "password": PASSWORD, "data": data,
                          "gotrue_meta_security": {}, "code_challenge": null, "code_challenge_method": null});
        let session = post(&hub, "signup", body).await.ok();
        assert_eq!(session["user"]["email"], json!(email));
        assert_eq!(session["user"]["user_metadata"]["status"], "alpha");
        assert!(session["user"]["email_confirmed_at"].is_string());
        get_user(&hub, &session["access_token"]).await.ok();
        sign_in(&hub, &email, PASSWORD).await.ok();
        let settings = answer(request(&hub, Method::GET, "settings")).await.ok();
        assert_eq!(settings["disable_signup"], false);
    });
}

/// `signUp() the same user twice should not share email already registered message`.
#[test]
fn an_address_that_is_taken_is_refused_and_its_user_left_alone() {
    on_open_hub(async |hub| {
        let email = address();
        let body = json!({"email": email, "password": PASSWORD});
        post(&hub, "signup", body).await.ok();
        let again = post(
            &hub,
            "signup",
            json!({"email": email.to_uppercase(), "password": "another"}),
        )
        .await;
        assert_eq!(again.fault(), (422, "user_already_exists"));
        assert!(
            again.body["message"]
                .as_str()
                .unwrap()
                .starts_with("User already registered")
        );
        sign_in(&hub, &email, PASSWORD).await.ok();
        assert_eq!(sign_in(&hub, &email, "another").await.status, 400);
    });
}

/// `fail to signUp() with invalid password`, `… with invalid email`.
#[test]
fn addresses_and_passwords_that_are_none_are_refused() {
    on_open_hub(async |hub| {
        let cases = [
            (
                json!({"email": address(), "password": "short"}),
                (422, "weak_password"),
            ),
            (
                json!({"email": address(), "password": "x".repeat(73)}),
                (400, "validation_failed"),
            ),
            (json!({"email": address()}), (400, "validation_failed")),
            (
                json!({"phone": "+34123", "password": PASSWORD}),
                (400, "phone_provider_disabled"),
            ),
            (
                json!({"email": "no address", "password": PASSWORD}),
                (400, "validation_failed"),
            ),
            (
                json!({"email": "a@b@c", "password": PASSWORD}),
                (400, "validation_failed"),
            ),
            (
                json!({"email": format!("{}@b.c", "a".repeat(300)), "password": PASSWORD}),
                (400, "validation_failed"),
            ),
            (
                json!({"email": address(), "password": PASSWORD, "data": "text"}),
                (400, "bad_json"),
            ),
            (
                json!({"email": address(), "password": PASSWORD, "data": {"a": "x".repeat(40_000)}}),
                (400, "validation_failed"),
            ),
        ];
        for (body, fault) in cases {
            assert_eq!(post(&hub, "signup", body.clone()).await.fault(), fault, "{body}");
        }
        let weak = post(&hub, "signup", json!({"email": address(), "password": "short"})).await;
        assert_eq!(weak.body["weak_password"]["reasons"], json!(["length"]));
        assert_eq!(weak.headers["x-sb-error-code"], "weak_password");
    });
}

/// `should sign in anonymously with user data`.
#[test]
fn an_anonymous_user_is_a_user_who_opens_nothing() {
    on_open_hub(async |hub| {
        let session = post(&hub, "signup", json!({"data": {"name": "test"}})).await.ok();
        assert_eq!(session["user"]["is_anonymous"], true);
        assert_eq!(session["user"]["email"], "");
        assert_eq!(session["user"]["app_metadata"], json!({}));
        assert_eq!(session["user"]["user_metadata"]["name"], "test");
        let claims = claims(&session["access_token"]);
        assert_eq!(
            (&claims["is_anonymous"], &claims["role"]),
            (&json!(true), &json!("authenticated"))
        );
        assert_eq!(claims["amr"][0]["method"], "anonymous");
        let person = Person {
            id: text(&session["user"]["id"]).parse().unwrap(),
            token: text(&session["access_token"]),
        };
        let (status, _) = hub.rpc(&person, "create_office", json!({"p_name": "Mine"})).await;
        assert_eq!(status, 403, "anonymous users make no office");
        crate::wire::refresh(&hub, &session["refresh_token"]).await.ok();
    });
}

#[test]
fn an_anonymous_user_becomes_one_with_a_name_and_keeps_the_id() {
    on_open_hub(async |hub| {
        let session = post(&hub, "signup", json!({})).await.ok();
        let token = &session["access_token"];
        let alone = signed(
            &hub,
            token,
            Method::PUT,
            "user",
            Some(json!({"password": PASSWORD})),
        )
        .await;
        assert_eq!(alone.fault(), (422, "validation_failed"));
        let email = address();
        let body = json!({"email": email, "password": PASSWORD});
        let me = signed(&hub, token, Method::PUT, "user", Some(body)).await.ok();
        assert_eq!(me["is_anonymous"], false);
        assert_eq!(me["app_metadata"]["provider"], "email");
        let later = sign_in(&hub, &email, PASSWORD).await.ok();
        assert_eq!(later["user"]["id"], session["user"]["id"]);
    });
}

const OWNERS: &str = "the owner's own word";

/// The office of a new owner, by its id.
async fn office(hub: &TestHub) -> String {
    let (office, _) = hub.office().await;
    office.to_string()
}

fn person(session: &serde_json::Value) -> Person {
    Person {
        id: text(&session["user"]["id"]).parse().unwrap(),
        token: text(&session["access_token"]),
    }
}

/// Whoever signs up, or changes his address, may take anybody's.
#[test]
fn an_address_that_somebody_took_himself_opens_no_office_and_is_the_owners_to_give() {
    on_own_hub(
        |open| open.auth.sign_up = true,
        async |hub| {
            let team = hub::Team::open(&hub.config).await.unwrap();
            let office = office(&hub).await;
            let (signed_up, changed) = (address(), address());
            let squatter = post(&hub, "signup", json!({"email": signed_up, "password": PASSWORD}))
                .await
                .ok();
            let (member, _) = user(&hub).await;
            let session = sign_in(&hub, &member, PASSWORD).await.ok();
            let body = json!({"email": changed, "current_password": PASSWORD});
            let token = &session["access_token"];
            signed(&hub, token, Method::PUT, "user", Some(body)).await.ok();
            for (email, before) in [(&signed_up, &squatter), (&changed, &session)] {
                let refused = team.admit(email, &office, "viewer").await.unwrap_err();
                assert!(refused.to_string().contains("nobody has proven"), "{refused}");
                // The owner gives the address to whom he means.
                let id = team.account(email, OWNERS).await.unwrap();
                assert_ne!(json!(id), before["user"]["id"], "another account");
                team.admit(email, &office, "viewer").await.unwrap();
                let now = sign_in(&hub, email, OWNERS).await.ok();
                let offices = hub.get(&person(&now), "offices?select=id").await.1;
                assert_eq!(offices, json!([{"id": office}]));
                // Who had it before has nothing of it, although his token is good for a while.
                let offices = hub.get(&person(before), "offices?select=id").await.1;
                assert_eq!(offices, json!([]));
                assert_eq!(refresh(&hub, &before["refresh_token"]).await.status, 400);
                assert_eq!(sign_in(&hub, email, PASSWORD).await.status, 400);
                // A second time nothing is made anew.
                assert_eq!(team.account(email, OWNERS).await.unwrap(), id);
            }
            team.close().await;
        },
    );
}

#[test]
fn who_was_confirmed_with_the_secret_key_may_be_let_in() {
    on_own_hub(
        |open| open.auth.sign_up = true,
        async |hub| {
            let team = hub::Team::open(&hub.config).await.unwrap();
            let office = office(&hub).await;
            let email = address();
            let session = post(&hub, "signup", json!({"email": email, "password": PASSWORD}))
                .await
                .ok();
            assert!(team.admit(&email, &office, "viewer").await.is_err());
            let path = format!("admin/users/{}", text(&session["user"]["id"]));
            let confirm = Some(json!({"email_confirm": true}));
            crate::wire::admin(&hub, Method::PUT, &path, confirm).await.ok();
            team.admit(&email, &office, "viewer").await.unwrap();
            let offices = hub.get(&person(&session), "offices?select=id").await.1;
            assert_eq!(offices, json!([{"id": office}]));
            team.close().await;
        },
    );
}

#[test]
fn a_trigger_on_users_sees_a_new_one_and_its_failure_is_no_user() {
    on_open_hub(async |hub| {
        let admin = hub.admin().await;
        admin
            .batch_execute(
                "set role postgres;
                 create table public.profiles (id uuid primary key references auth.users (id) on delete cascade, name text);
                 create function public.handle_new_user() returns trigger language plpgsql security definer
                   set search_path = '' as $$ begin
                     if new.raw_user_meta_data ->> 'name' = 'bad' then raise exception 'no'; end if;
                     if new.raw_user_meta_data ? 'name' then
                       insert into public.profiles values (new.id, new.raw_user_meta_data ->> 'name');
                     end if;
                     return new; end $$;
                 create trigger on_auth_user_created after insert on auth.users
                   for each row execute function public.handle_new_user();
                 reset role",
            )
            .await
            .unwrap();
        let (good, bad) = (address(), address());
        let body =
            |email: &str, name: &str| json!({"email": email, "password": PASSWORD, "data": {"name": name}});
        let made = post(&hub, "signup", body(&good, "Ann")).await.ok();
        let id: uuid::Uuid = text(&made["user"]["id"]).parse().unwrap();
        let row = admin
            .query_one("select name from public.profiles where id = $1", &[&id])
            .await;
        assert_eq!(row.unwrap().get::<_, String>(0), "Ann");
        assert_eq!(
            post(&hub, "signup", body(&bad, "bad")).await.fault(),
            (500, "unexpected_failure")
        );
        let left = admin
            .query_opt("select 1 from auth.users where email = $1", &[&bad])
            .await;
        assert!(left.unwrap().is_none());
        admin
            .batch_execute("drop trigger on_auth_user_created on auth.users; drop table public.profiles")
            .await
            .unwrap();
    });
}

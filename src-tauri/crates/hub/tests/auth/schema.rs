//! The tables behind it: SQL written for Supabase runs, and a data folder of an older program comes along.

use std::time::Instant;

use serde_json::json;

use crate::support::{DEADLINE, Person, TestHub, on_hub, on_open_hub};
use crate::wire::{PASSWORD, refresh, session, sign_in, text, user};

#[test]
fn sql_written_for_supabase_runs() {
    on_hub(async |hub| {
        let (email, session) = session(&hub).await;
        let admin = hub.admin().await;
        admin
            .batch_execute(
                "set role postgres;
                 create table public.todos (
                   id bigint generated always as identity primary key,
                   user_id uuid not null references auth.users (id) on delete cascade default auth.uid(),
                   task text, by_role text default auth.role(), by_email text default auth.email());
                 alter table public.todos enable row level security;
                 create policy mine on public.todos for all to authenticated
                   using ((select auth.uid()) = user_id and coalesce((auth.jwt() ->> 'is_anonymous')::boolean, false) is false)
                   with check ((select auth.uid()) = user_id);
                 grant all on public.todos to authenticated;
                 select id, aud, role, email, phone, encrypted_password, email_confirmed_at, confirmed_at, last_sign_in_at,
                        raw_app_meta_data, raw_user_meta_data, is_super_admin, created_at, updated_at, banned_until,
                        is_sso_user, deleted_at, is_anonymous, invited_at, instance_id from auth.users;
                 select id, user_id, created_at, updated_at, factor_id, aal, not_after, refreshed_at, user_agent, ip, tag
                   from auth.sessions where aal = 'aal1';
                 select id, token, user_id, revoked, created_at, updated_at, parent, session_id from auth.refresh_tokens;
                 select id, user_id, provider, provider_id, identity_data, email, last_sign_in_at from auth.identities;
                 reset role;
                 notify pgrst, 'reload schema'",
            )
            .await
            .unwrap();
        let person = Person {
            id: text(&session["user"]["id"]).parse().unwrap(),
            token: text(&session["access_token"]),
        };
        let make = async || {
            let made = hub
                .request(
                    &person,
                    reqwest::Method::POST,
                    "/rest/v1/todos?select=task,user_id,by_role,by_email",
                )
                .header("prefer", "return=representation")
                .json(&json!({"task": "x"}));
            crate::support::answer(made).await
        };
        let began = Instant::now();
        // The schema is read again a moment after it has changed.
        let (status, rows) = loop {
            let answer = make().await;
            if answer.0 != 404 || began.elapsed() > DEADLINE {
                break answer;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(
            (status, &rows),
            (
                201,
                &json!([{"task": "x", "user_id": person.id, "by_role": "authenticated", "by_email": email}])
            )
        );
        let other = hub.person().await;
        assert_eq!(hub.get(&other, "todos?select=task").await.1, json!([]));
        admin.batch_execute("drop table public.todos").await.unwrap();
    });
}

#[test]
fn clients_never_see_the_tables_of_auth() {
    on_hub(async |hub| {
        let admin = hub.admin().await;
        for role in ["anon", "authenticated", "authenticator"] {
            for table in [
                "users",
                "sessions",
                "refresh_tokens",
                "identities",
                "mfa_amr_claims",
            ] {
                let sql = format!("set role {role}; select * from auth.{table}");
                let refused = admin.batch_execute(&sql).await.unwrap_err();
                admin.batch_execute("reset role").await.unwrap();
                let code = refused.code().map(|code| code.code().to_owned());
                assert_eq!(code.as_deref(), Some("42501"), "{role} {table}");
            }
        }
    });
}

#[test]
fn a_copy_of_the_database_is_no_set_of_passwords_or_tokens() {
    on_hub(async |hub| {
        let (_, session) = session(&hub).await;
        let admin = hub.admin().await;
        for table in ["users", "sessions", "refresh_tokens", "identities"] {
            let rows = admin
                .query(&format!("select t::text from auth.{table} t"), &[])
                .await
                .unwrap();
            for row in rows {
                let row: String = row.get(0);
                assert!(
                    !row.contains(PASSWORD) && !row.contains(&text(&session["refresh_token"])),
                    "{table}"
                );
            }
        }
    });
}

/// The auth tables as programs before made them, with a signed-in user.
const BEFORE: &str = "
  drop schema auth cascade; create schema auth;
  create table auth.users (
    id uuid primary key default gen_random_uuid(), aud text not null default 'authenticated',
    role text not null default 'authenticated', email text unique, encrypted_password text,
    email_confirmed_at timestamptz, last_sign_in_at timestamptz, banned_until timestamptz,
    raw_app_meta_data jsonb not null default '{\"provider\": \"email\", \"providers\": [\"email\"]}',
    raw_user_meta_data jsonb not null default '{}', is_anonymous boolean not null default false,
    created_at timestamptz not null default now(), updated_at timestamptz not null default now());
  create table auth.sessions (
    id uuid primary key default gen_random_uuid(), user_id uuid not null references auth.users (id) on delete cascade,
    created_at timestamptz not null default now(), refreshed_at timestamptz);
  create index sessions_by_user on auth.sessions (user_id);
  create table auth.refresh_tokens (
    token_hash bytea primary key, session_id uuid not null references auth.sessions (id) on delete cascade,
    parent bytea, used_at timestamptz, created_at timestamptz not null default now());
  create index refresh_tokens_by_session on auth.refresh_tokens (session_id);
  create index refresh_tokens_by_parent on auth.refresh_tokens (parent);
  insert into auth.users (id, email, encrypted_password, email_confirmed_at)
    values ('00000000-0000-4000-8000-000000000001', 'old@example.com', '$HASH', now());
  insert into auth.sessions (id, user_id)
    values ('00000000-0000-4000-8000-000000000002', '00000000-0000-4000-8000-000000000001');
  insert into auth.refresh_tokens (token_hash, session_id, parent, used_at) values
    (sha256('old-parent'), '00000000-0000-4000-8000-000000000002', null, now() - interval '1 hour'),
    (sha256('old-token'), '00000000-0000-4000-8000-000000000002', sha256('old-parent'), null);";

#[test]
fn a_data_folder_of_an_older_program_keeps_its_users_and_their_sessions() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = crate::support::config(folder.path().join("hub"));
        let hub = hub::Hub::start(config.clone()).await.unwrap();
        let (client, connection) = tokio_postgres::connect(&hub.database_url(), tokio_postgres::NoTls)
            .await
            .unwrap();
        let connection = runtime.handle().spawn(connection);
        let hash = bcrypt::hash(PASSWORD, 5).unwrap();
        client
            .batch_execute(&BEFORE.replace("$HASH", &hash))
            .await
            .unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
        hub.stop().await.unwrap();
        // Twice: what has been brought forward is left alone.
        for token in ["old-token", "old-parent"] {
            let hub = hub::Hub::start(config.clone()).await.unwrap();
            let post = async |grant: &str, body: serde_json::Value| {
                let request = reqwest::Client::new()
                    .post(format!("{}/auth/v1/token?grant_type={grant}", hub.url()))
                    .header("apikey", &hub.keys().publishable)
                    .json(&body);
                crate::wire::answer(request).await
            };
            let refreshed = post("refresh_token", json!({"refresh_token": token})).await;
            if token == "old-token" {
                let session = refreshed.ok();
                assert_eq!(session["user"]["identities"][0]["email"], "old@example.com");
                assert_eq!(
                    crate::wire::claims(&session["access_token"])["amr"][0]["method"],
                    "password"
                );
            } else {
                assert_eq!(refreshed.body["error_code"], "refresh_token_already_used");
            }
            let signed_in = post(
                "password",
                json!({"email": "old@example.com", "password": PASSWORD}),
            )
            .await;
            assert_eq!(
                signed_in.ok()["user"]["id"],
                "00000000-0000-4000-8000-000000000001"
            );
            hub.stop().await.unwrap();
        }
    });
}

#[test]
fn a_user_has_no_end_of_sessions() {
    on_open_hub(async |hub: std::sync::Arc<TestHub>| {
        let (email, id) = user(&hub).await;
        let first = sign_in(&hub, &email, PASSWORD).await.ok();
        let admin = hub.admin().await;
        let older = "update auth.sessions set created_at = created_at - interval '1 hour' where user_id = $1";
        admin.execute(older, &[&id]).await.unwrap();
        let many = "insert into auth.sessions (user_id) select $1 from generate_series(1, 300)";
        admin.execute(many, &[&id]).await.unwrap();
        sign_in(&hub, &email, PASSWORD).await.ok();
        let count = "select count(*) from auth.sessions where user_id = $1";
        let count: i64 = admin.query_one(count, &[&id]).await.unwrap().get(0);
        assert_eq!(count, 200);
        assert_eq!(
            refresh(&hub, &first["refresh_token"]).await.status,
            400,
            "the oldest went"
        );
    });
}

//! Sessions and their refresh tokens: single use, rotated at every refresh, stored as digests.
//!
//! A second use is tolerated for a short while (the answer may have been lost) or while no child has been used;
//! later it means that two parties hold the token, and the whole session ends. So it does when two children of one
//! token are used, some time after each other: one of the two parties has a stolen one. Called by `routes`.

use axum::http::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::error::AuthError;
use super::users::{USER_COLUMNS, user_json};
use crate::db::pool_reason;
use crate::http::Shared;
use crate::{jwt, keys};

/// Life of an access token, in seconds.
pub(crate) const ACCESS_TOKEN_LIFE_S: i64 = 3600;
/// How long a used refresh token may be used again, in seconds.
const REUSE_INTERVAL_S: f64 = 10.0;
/// Refresh tokens one session may have at a time; beyond it the oldest used ones go.
const TOKENS_PER_SESSION_MAX: i64 = 50;

/// Whether a refresh token may be used, by the rules above. $1: its digest, $2: [`REUSE_INTERVAL_S`].
const MAY_BE_USED: &str = "
  select case when r.used_at is null then
         not exists (select 1 from auth.refresh_tokens s
                     where s.parent = r.parent and s.token_hash <> r.token_hash
                       and s.used_at <= clock_timestamp() - make_interval(secs => $2))
       else r.used_at > clock_timestamp() - make_interval(secs => $2)
       or not exists (select 1 from auth.refresh_tokens c
                      where c.parent = r.token_hash and c.used_at is not null)
       end
   from auth.refresh_tokens r where r.token_hash = $1";

/// Begins a session for a user who has just shown the right password.
pub(crate) async fn begin(shared: &Shared, user: Uuid) -> Result<Value, AuthError> {
    const ATTEMPT: &str = "begin a session";
    let fault = |error: tokio_postgres::Error| AuthError::internal(ATTEMPT, &crate::error::explained(&error));
    let mut client = shared
        .database
        .admin
        .get()
        .await
        .map_err(|error| AuthError::internal(ATTEMPT, &pool_reason(&error)))?;
    let transaction = client.transaction().await.map_err(fault)?;
    let row = transaction
        .query_one(
            &format!("update auth.users set last_sign_in_at = now() where id = $1 returning {USER_COLUMNS}"),
            &[&user],
        )
        .await
        .map_err(fault)?;
    let session: Uuid = transaction
        .query_one(
            "insert into auth.sessions (user_id) values ($1) returning id",
            &[&user],
        )
        .await
        .map_err(fault)?
        .get(0);
    let refresh = add_token(&*transaction, session, None).await.map_err(fault)?;
    transaction.commit().await.map_err(fault)?;
    body(shared, &row, session, &refresh)
}

/// Exchanges a refresh token for a new pair.
pub(crate) async fn refresh(shared: &Shared, token: &str) -> Result<Value, AuthError> {
    const ATTEMPT: &str = "refresh the session";
    let fault = |error: tokio_postgres::Error| AuthError::internal(ATTEMPT, &crate::error::explained(&error));
    let refuse = |code, message: &str| Err(AuthError::new(StatusCode::BAD_REQUEST, code, message));
    let mut client = shared
        .database
        .admin
        .get()
        .await
        .map_err(|error| AuthError::internal(ATTEMPT, &pool_reason(&error)))?;
    let transaction = client.transaction().await.map_err(fault)?;
    let digest = digest(token);
    // The session's row is the lock: two refreshes of one session run one after the other.
    let found = transaction
        .query_opt(
            "select s.id, s.user_id from auth.refresh_tokens r join auth.sessions s on s.id = r.session_id
             where r.token_hash = $1 for update of s",
            &[&digest],
        )
        .await
        .map_err(fault)?;
    let Some(found) = found else {
        return refuse(
            "refresh_token_not_found",
            "Invalid Refresh Token: Refresh Token Not Found",
        );
    };
    let (session, user): (Uuid, Uuid) = (found.get(0), found.get(1));
    let may: bool = transaction
        .query_one(MAY_BE_USED, &[&digest, &REUSE_INTERVAL_S])
        .await
        .map_err(fault)?
        .get(0);
    if !may {
        transaction
            .execute("delete from auth.sessions where id = $1", &[&session])
            .await
            .map_err(fault)?;
        transaction.commit().await.map_err(fault)?;
        tracing::warn!(%session, "a refresh token was used twice; its session is ended");
        return refuse(
            "refresh_token_already_used",
            "Invalid Refresh Token: Already Used",
        );
    }
    let row = transaction
        .query_one(
            &format!("select {USER_COLUMNS} from auth.users where id = $1"),
            &[&user],
        )
        .await
        .map_err(fault)?;
    if row.get::<_, Option<bool>>("banned") == Some(true) {
        return refuse("user_banned", "Invalid Refresh Token: User Banned");
    }
    let new = add_token(&*transaction, session, Some(&digest))
        .await
        .map_err(fault)?;
    transaction.commit().await.map_err(fault)?;
    body(shared, &row, session, &new)
}

/// Stores a new token, marks its parent used, and keeps the session's tokens within their limit.
async fn add_token(
    client: &impl GenericClient,
    session: Uuid,
    parent: Option<&Vec<u8>>,
) -> Result<String, tokio_postgres::Error> {
    let token = keys::random_text();
    client
        .execute(
            "insert into auth.refresh_tokens (token_hash, session_id, parent) values ($1, $2, $3)",
            &[&digest(&token), &session, &parent],
        )
        .await?;
    client
        .execute(
            "update auth.refresh_tokens set used_at = coalesce(used_at, clock_timestamp()) where token_hash = $1",
            &[&parent],
        )
        .await?;
    client
        .execute(
            "update auth.sessions set refreshed_at = clock_timestamp() where id = $1",
            &[&session],
        )
        .await?;
    client
        .execute(
            "delete from auth.refresh_tokens where token_hash in
               (select token_hash from auth.refresh_tokens where session_id = $1
                order by created_at desc offset $2)",
            &[&session, &TOKENS_PER_SESSION_MAX],
        )
        .await?;
    Ok(token)
}

fn digest(token: &str) -> Vec<u8> {
    Sha256::digest(token).to_vec()
}

/// The session as clients get it.
fn body(shared: &Shared, user: &Row, session: Uuid, refresh: &str) -> Result<Value, AuthError> {
    let now_s = shared.clock.now().0.div_euclid(1000);
    let expires_at = now_s + ACCESS_TOKEN_LIFE_S;
    let account = user_json(user);
    let access = jwt::sign(
        &json!({
            "iss": format!("{}/auth/v1", shared.url),
            "sub": account["id"], "aud": account["aud"], "role": account["role"],
            "exp": expires_at, "iat": now_s,
            "email": account["email"], "phone": "",
            "app_metadata": account["app_metadata"], "user_metadata": account["user_metadata"],
            "aal": "aal1", "amr": [{"method": "password", "timestamp": now_s}],
            "session_id": session, "is_anonymous": account["is_anonymous"],
        }),
        &shared.keys.jwt_secret,
    )
    .map_err(|error| AuthError::internal("sign the access token", &error))?;
    Ok(json!({
        "access_token": access, "token_type": "bearer", "expires_in": ACCESS_TOKEN_LIFE_S,
        "expires_at": expires_at, "refresh_token": refresh, "user": account, "weak_password": null,
    }))
}

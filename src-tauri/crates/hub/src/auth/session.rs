//! Sessions and their refresh tokens: single use, rotated at every refresh, stored as digests.
//!
//! A second use is tolerated for a short while (the answer may have been lost) or while no child has been used;
//! later it means that two parties hold the token, and the whole session ends. So it does when two children of one
//! token are used, some time after each other: one of the two parties has a stolen one. (GoTrue gives the second user
//! the first child, so that two parties can go on side by side unseen; a digest cannot be given.) Called by `token`
//! and `signup`.

use axum::http::StatusCode;
use deadpool_postgres::GenericClient;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::call::Call;
use super::error::AuthError;
use super::users::{self, Account};
use crate::identity;
use crate::keys;

/// Life of an access token, in seconds.
pub(crate) const ACCESS_TOKEN_LIFE_S: i64 = 3600;
/// How long a used refresh token may be used again, in seconds.
const REUSE_INTERVAL_S: f64 = 10.0;
/// Refresh tokens one session may have at a time; beyond it the oldest used ones go.
const TOKENS_PER_SESSION_MAX: i64 = 50;
/// Sessions one user may have; beyond it those go that were refreshed longest ago.
const SESSIONS_PER_USER_MAX: i64 = 200;
/// Longest program name kept of a sign-in, in characters.
const USER_AGENT_CHARS_MAX: usize = 200;
/// Longest refresh token that is looked at, in bytes.
const REFRESH_TOKEN_BYTES_MAX: usize = 256;

/// Whether a refresh token may be used, by the rules above. $1: its digest, $2: [`REUSE_INTERVAL_S`].
const MAY_BE_USED: &str = "
  select case when r.used_at is null then
         not exists (select 1 from auth.refresh_tokens s
                     where s.parent = r.parent and s.token <> r.token
                       and s.used_at <= clock_timestamp() - make_interval(secs => $2))
       else r.used_at > clock_timestamp() - make_interval(secs => $2)
       or not exists (select 1 from auth.refresh_tokens c
                      where c.parent = r.token and c.used_at is not null)
       end
   from auth.refresh_tokens r where r.token = $1";

/// How a user came in, for the token's `amr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Password,
    Anonymous,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Method::Password => "password",
            Method::Anonymous => "anonymous",
        }
    }
}

/// Begins a session for a user who has just shown the password of the hash `shown`, or (`None`) has just been made.
pub(crate) async fn begin(
    call: &Call,
    user: Uuid,
    method: Method,
    shown: Option<&str>,
) -> Result<Value, AuthError> {
    const ATTEMPT: &str = "begin a session";
    let fault = AuthError::database(ATTEMPT);
    let mut client = call.database(ATTEMPT).await?;
    let transaction = client.transaction().await.map_err(fault)?;
    // The user's row is the lock: a ban, a new password or an end of the user come before or after all of this.
    transaction
        .execute(
            "update auth.users set last_sign_in_at = now() where id = $1",
            &[&user],
        )
        .await
        .map_err(fault)?;
    transaction
        .execute(
            "update auth.identities set last_sign_in_at = now() where user_id = $1 and provider = 'email'",
            &[&user],
        )
        .await
        .map_err(fault)?;
    let account = users::by_id(&transaction, user)
        .await?
        // A password that was changed since it was looked at opens nothing any more.
        .filter(|account| shown.is_none() || shown == account.hash.as_deref())
        .ok_or_else(AuthError::credentials)?;
    let agent: Option<String> = identity::text(&call.headers, "user-agent")
        .map(|agent| agent.chars().take(USER_AGENT_CHARS_MAX).collect());
    let session: Uuid = transaction
        .query_one(
            "insert into auth.sessions (user_id, user_agent, ip) values ($1, $2, $3) returning id",
            &[&user, &agent, &call.ip],
        )
        .await
        .map_err(fault)?
        .get(0);
    transaction
        .execute(
            "insert into auth.mfa_amr_claims (session_id, authentication_method) values ($1, $2)",
            &[&session, &method.name()],
        )
        .await
        .map_err(fault)?;
    transaction
        .execute(
            "delete from auth.sessions where id in
               (select id from auth.sessions where user_id = $1 and id <> $2
                order by coalesce(refreshed_at, created_at) desc nulls last offset $3)",
            &[&user, &session, &(SESSIONS_PER_USER_MAX - 1)],
        )
        .await
        .map_err(fault)?;
    let refresh = add_token(&transaction, user, session, None)
        .await
        .map_err(fault)?;
    let answer = body(call, &transaction, &account, session, &refresh).await?;
    transaction.commit().await.map_err(fault)?;
    Ok(answer)
}

fn not_found() -> AuthError {
    AuthError::new(
        StatusCode::BAD_REQUEST,
        "refresh_token_not_found",
        "Invalid Refresh Token: Refresh Token Not Found",
    )
}

/// Exchanges a refresh token for a new pair.
pub(crate) async fn refresh(call: &Call, token: &str) -> Result<Value, AuthError> {
    const ATTEMPT: &str = "refresh the session";
    let fault = AuthError::database(ATTEMPT);
    let refuse = |code, message: &str| Err(AuthError::new(StatusCode::BAD_REQUEST, code, message));
    if token.len() > REFRESH_TOKEN_BYTES_MAX {
        return Err(not_found());
    }
    let mut client = call.database(ATTEMPT).await?;
    let transaction = client.transaction().await.map_err(fault)?;
    let digest = digest(token);
    // The session's row is the lock: two refreshes of one session run one after the other.
    let found = transaction
        .query_opt(
            "select s.id, s.user_id, coalesce(s.not_after <= clock_timestamp(), false)
               from auth.refresh_tokens r join auth.sessions s on s.id = r.session_id
              where r.token = $1 for update of s",
            &[&digest],
        )
        .await
        .map_err(fault)?
        .ok_or_else(not_found)?;
    let (session, user, expired): (Uuid, Uuid, bool) = (found.get(0), found.get(1), found.get(2));
    // Nothing, if the lock was waited for and the token went meanwhile.
    let may = transaction
        .query_opt(MAY_BE_USED, &[&digest, &REUSE_INTERVAL_S])
        .await
        .map_err(fault)?
        .ok_or_else(not_found)?;
    if !may.get::<_, bool>(0) {
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
    if expired {
        return refuse("session_expired", "Invalid Refresh Token: Session Expired");
    }
    let account = users::by_id(&transaction, user).await?.ok_or_else(not_found)?;
    if account.banned {
        return refuse("user_banned", "Invalid Refresh Token: User Banned");
    }
    let new = add_token(&transaction, user, session, Some(&digest))
        .await
        .map_err(fault)?;
    let answer = body(call, &transaction, &account, session, &new).await?;
    transaction.commit().await.map_err(fault)?;
    Ok(answer)
}

/// Stores a new token, marks its parent used, and keeps the session's tokens within their limit.
async fn add_token(
    client: &impl GenericClient,
    user: Uuid,
    session: Uuid,
    parent: Option<&str>,
) -> Result<String, tokio_postgres::Error> {
    let token = keys::random_text();
    client
        .execute(
            "insert into auth.refresh_tokens (token, user_id, session_id, parent) values ($1, $2, $3, $4)",
            &[&digest(&token), &user.to_string(), &session, &parent],
        )
        .await?;
    client
        .execute(
            "update auth.refresh_tokens set used_at = coalesce(used_at, clock_timestamp()), revoked = true,
                    updated_at = clock_timestamp() where token = $1",
            &[&parent],
        )
        .await?;
    if parent.is_some() {
        client
            .execute(
                "update auth.sessions set refreshed_at = clock_timestamp(), updated_at = clock_timestamp()
                  where id = $1",
                &[&session],
            )
            .await?;
        client
            .execute(
                "delete from auth.refresh_tokens where id in
                   (select id from auth.refresh_tokens where session_id = $1
                    order by created_at desc, id desc offset $2)",
                &[&session, &TOKENS_PER_SESSION_MAX],
            )
            .await?;
    }
    Ok(token)
}

fn digest(token: &str) -> String {
    Sha256::digest(token)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The session as clients get it.
async fn body(
    call: &Call,
    client: &impl GenericClient,
    account: &Account,
    session: Uuid,
    refresh: &str,
) -> Result<Value, AuthError> {
    let shared = &call.shared;
    let methods: Value = client
        .query_one(
            "select coalesce(jsonb_agg(jsonb_build_object('method', authentication_method,
                      'timestamp', extract(epoch from created_at)::bigint) order by created_at desc), '[]')
               from auth.mfa_amr_claims where session_id = $1",
            &[&session],
        )
        .await
        .map_err(AuthError::database("read how the session began"))?
        .get(0);
    let now_s = shared.clock.now().0.div_euclid(1000);
    let expires_at = now_s + ACCESS_TOKEN_LIFE_S;
    let user = &account.json;
    let access = shared
        .auth
        .tokens
        .sign(&json!({
            "iss": format!("{}/auth/v1", shared.url),
            "sub": user["id"], "aud": user["aud"], "role": user["role"],
            "exp": expires_at, "iat": now_s,
            "email": user["email"], "phone": user["phone"],
            "app_metadata": user["app_metadata"], "user_metadata": user["user_metadata"],
            "aal": "aal1", "amr": methods, "session_id": session, "is_anonymous": account.anonymous,
        }))
        .map_err(|error| AuthError::internal("sign the access token", &error))?;
    Ok(json!({
        "access_token": access, "token_type": "bearer", "expires_in": ACCESS_TOKEN_LIFE_S,
        "expires_at": expires_at, "refresh_token": refresh, "user": user, "weak_password": null,
    }))
}

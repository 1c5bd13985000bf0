//! `/auth/v1/…`: reads the requests of the official clients and answers in their shapes.
//!
//! Called by `http`.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::AuthError;
use super::{session, users};
use crate::db::pool_reason;
use crate::http::{App, Shared};
use crate::{identity, jwt};

type Pairs = Query<Vec<(String, String)>>;

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route(
            "/auth/v1/health",
            get(async || Json(json!({"name": "GoTrue", "version": "semo-hub"}))),
        )
        .route("/auth/v1/settings", get(settings))
        .route(
            "/auth/v1/.well-known/jwks.json",
            get(async || Json(json!({"keys": []}))),
        )
        .route("/auth/v1/token", post(token))
        .route("/auth/v1/signup", post(signup))
        .route("/auth/v1/user", get(user))
        .route("/auth/v1/logout", post(logout))
}

async fn settings() -> Json<Value> {
    Json(
        json!({"external": {"email": true, "anonymous_users": false}, "disable_signup": true,
                "mailer_autoconfirm": true, "phone_autoconfirm": false, "saml_enabled": false}),
    )
}

async fn signup(headers: HeaderMap) -> Response {
    AuthError::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "signup_disabled",
        "Signups not allowed for this instance",
    )
    .response(&headers)
}

#[derive(Deserialize)]
struct PasswordGrant {
    email: String,
    password: String,
}

#[derive(Deserialize)]
struct RefreshGrant {
    refresh_token: String,
}

async fn token(State(shared): App, Query(query): Pairs, headers: HeaderMap, body: Bytes) -> Response {
    let granted = async {
        identity::check_key(&shared, &headers, &query)?;
        let grant = query
            .iter()
            .find(|(name, _)| name == "grant_type")
            .map(|(_, value)| value.as_str());
        match grant {
            Some("password") => {
                let grant: PasswordGrant = read(&body)?;
                sign_in(&shared, &grant.email, grant.password).await
            }
            Some("refresh_token") => {
                let grant: RefreshGrant = read(&body)?;
                session::refresh(&shared, &grant.refresh_token).await
            }
            Some(_) | None => Err(AuthError::new(
                StatusCode::BAD_REQUEST,
                "validation_failed",
                "unsupported_grant_type: use password or refresh_token",
            )),
        }
    };
    match granted.await {
        Ok(body) => Json(body).into_response(),
        Err(error) => error.response(&headers),
    }
}

fn read<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, AuthError> {
    serde_json::from_slice(body).map_err(|error| {
        AuthError::new(
            StatusCode::BAD_REQUEST,
            "validation_failed",
            format!("could not read the request body: {error}"),
        )
    })
}

async fn sign_in(shared: &Shared, email: &str, password: String) -> Result<Value, AuthError> {
    const ATTEMPT: &str = "sign in";
    let too_many = |why: &str| AuthError::new(StatusCode::TOO_MANY_REQUESTS, "over_request_rate_limit", why);
    // First of all: nothing of such an address is kept or looked up.
    if email.len() > users::EMAIL_BYTES_MAX || password.len() > users::PASSWORD_BYTES_MAX {
        return Err(AuthError::credentials());
    }
    let email = &users::normal_email(email);
    let _place =
        users::place_in_line().ok_or_else(|| too_many("Too many sign-ins at once; try again in a moment"))?;
    let client = shared
        .database
        .admin
        .get()
        .await
        .map_err(|error| AuthError::internal(ATTEMPT, &pool_reason(&error)))?;
    let row = client
        .query_opt(
            &format!("select {} from auth.users where email = $1", users::USER_COLUMNS),
            &[&email],
        )
        .await
        .map_err(|error| AuthError::internal(ATTEMPT, &crate::error::explained(&error)))?;
    drop(client);
    let hash = row
        .as_ref()
        .and_then(|row| row.get::<_, Option<String>>("encrypted_password"));
    // Counted before the hash: any number of requests at once has no more tries than one after the other.
    if !shared.attempts.may_try(email, shared.clock.now()) {
        return Err(too_many(
            "Too many wrong passwords for this address; try again in a few minutes",
        ));
    }
    let right = users::matches(password, hash).await;
    let row = row.filter(|_| right).ok_or_else(AuthError::credentials)?;
    shared.attempts.right(email);
    if row.get::<_, Option<bool>>("banned") == Some(true) {
        return Err(AuthError::new(
            StatusCode::BAD_REQUEST,
            "user_banned",
            "User is banned",
        ));
    }
    session::begin(shared, row.get("id")).await
}

/// The user and the session of a request's token.
fn signed_in(
    shared: &Shared,
    headers: &HeaderMap,
    query: &[(String, String)],
) -> Result<(Uuid, Option<Uuid>), AuthError> {
    identity::check_key(shared, headers, query)?;
    let missing = || {
        AuthError::new(
            StatusCode::UNAUTHORIZED,
            "no_authorization",
            "This endpoint requires a valid Bearer token",
        )
    };
    let token = identity::bearer(headers).ok_or_else(missing)?;
    let claims = jwt::verify(token, &shared.keys.jwt_secret, shared.clock.now(), 0)
        .map_err(|fault| AuthError::from(identity::Refusal::Token(fault)))?;
    let id = |name: &str| {
        claims
            .all
            .get(name)
            .and_then(Value::as_str)
            .and_then(|text| text.parse().ok())
    };
    let user = id("sub").ok_or_else(|| {
        AuthError::new(
            StatusCode::FORBIDDEN,
            "bad_jwt",
            "invalid claim: missing sub claim",
        )
    })?;
    Ok((user, id("session_id")))
}

async fn user(State(shared): App, Query(query): Pairs, headers: HeaderMap) -> Response {
    const ATTEMPT: &str = "read the user";
    let found = async {
        let (user, session) = signed_in(&shared, &headers, &query)?;
        let client = shared
            .database
            .admin
            .get()
            .await
            .map_err(|error| AuthError::internal(ATTEMPT, &pool_reason(&error)))?;
        let sql = format!(
            "select {} from auth.users u where id = $1
             and ($2::uuid is null or exists (select 1 from auth.sessions s where s.id = $2 and s.user_id = u.id))",
            users::USER_COLUMNS
        );
        client
            .query_opt(&sql, &[&user, &session])
            .await
            .map_err(|error| AuthError::internal(ATTEMPT, &crate::error::explained(&error)))?
            .map(|row| users::user_json(&row))
            .ok_or_else(|| {
                AuthError::new(
                    StatusCode::FORBIDDEN,
                    "session_not_found",
                    "Session from session_id claim in JWT does not exist",
                )
            })
    };
    match found.await {
        Ok(body) => Json(body).into_response(),
        Err(error) => error.response(&headers),
    }
}

async fn logout(State(shared): App, Query(query): Pairs, headers: HeaderMap) -> Response {
    const ATTEMPT: &str = "sign out";
    let done = async {
        let (user, session) = signed_in(&shared, &headers, &query)?;
        let scope = query
            .iter()
            .find(|(name, _)| name == "scope")
            .map_or("global", |(_, value)| value.as_str());
        let which = match scope {
            "local" => "id = $2",
            "others" => "id is distinct from $2",
            _ => "$2::uuid is not distinct from $2",
        };
        let client = shared
            .database
            .admin
            .get()
            .await
            .map_err(|error| AuthError::internal(ATTEMPT, &pool_reason(&error)))?;
        client
            .execute(
                &format!("delete from auth.sessions where user_id = $1 and {which}"),
                &[&user, &session],
            )
            .await
            .map_err(|error| AuthError::internal(ATTEMPT, &crate::error::explained(&error)))
    };
    match done.await {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.response(&headers),
    }
}

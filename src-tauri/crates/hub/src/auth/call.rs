//! One request to Auth: headers, query, the caller's address, and who he is. Called by every handler of `auth`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use deadpool_postgres::Object;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::error::AuthError;
use super::users::{self, Account};
use crate::db::pool_reason;
use crate::http::Shared;
use crate::identity;
use crate::jwt::Claims;
use crate::network::Caller;

/// A request without its body.
pub(crate) struct Call {
    pub shared: Arc<Shared>,
    pub headers: HeaderMap,
    pub query: Vec<(String, String)>,
    /// Who is asking, as far as the network tells.
    pub ip: IpAddr,
}

/// The body, or why it could not be had (too large, broken off).
pub(crate) type Body = Result<Bytes, BytesRejection>;

/// A signed-in user and the session of his token; tokens that servers signed have none.
pub(crate) struct SignedIn {
    pub account: Account,
    pub session: Option<Uuid>,
}

impl FromRequestParts<Arc<Shared>> for Call {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Call, Response> {
        let Query(query) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|_| AuthError::invalid("the query cannot be read").response(&parts.headers))?;
        let Ok(Caller(ip)) = Caller::from_request_parts(parts, shared).await;
        Ok(Call {
            shared: shared.clone(),
            headers: std::mem::take(&mut parts.headers),
            query,
            ip,
        })
    }
}

fn no_token() -> AuthError {
    AuthError::new(
        StatusCode::UNAUTHORIZED,
        "no_authorization",
        "This endpoint requires a valid Bearer token",
    )
}

impl Call {
    /// The first value of a query parameter.
    pub fn value(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Lets in who has a key of this hub.
    pub fn check_key(&self) -> Result<(), AuthError> {
        identity::check_key(&self.shared, &self.headers, &self.query)?;
        Ok(())
    }

    /// The claims of the request's token. Without one: of its key, as the gateway of a project puts one in.
    fn claims(&self) -> Result<Claims, AuthError> {
        self.check_key()?;
        if identity::bearer(&self.headers).is_none() && self.headers.contains_key("authorization") {
            return Err(no_token());
        }
        let claims = identity::identify(&self.shared, &self.headers, &self.query)?;
        // REST forgives half a minute after the end, GoTrue does not.
        let now_s = self.shared.clock.now().0.div_euclid(1000);
        if claims.exp.is_some_and(|exp| exp <= now_s) {
            let message = "invalid JWT: unable to parse or verify signature, token has invalid claims: token is expired";
            return Err(AuthError::forbidden("bad_jwt", message));
        }
        Ok(claims)
    }

    /// Lets in the secret key and tokens of `service_role`.
    pub fn check_admin(&self) -> Result<(), AuthError> {
        match self.claims()?.role.as_str() {
            "service_role" => Ok(()),
            _ => Err(AuthError::forbidden("not_admin", "User not allowed")),
        }
    }

    /// The user of the request's token, if he and the token's session are still there and not banned.
    pub async fn signed_in(&self) -> Result<SignedIn, AuthError> {
        self.check_key()?;
        identity::bearer(&self.headers).ok_or_else(no_token)?;
        let claims = self.claims()?;
        let claim = |name: &str| claims.all.get(name).and_then(Value::as_str).unwrap_or_default();
        let no_user = || AuthError::forbidden("bad_jwt", "invalid claim: missing sub claim");
        if claim("sub").is_empty() {
            return Err(no_user());
        }
        let user: Uuid = claim("sub").parse().map_err(|_| {
            AuthError::new(
                StatusCode::BAD_REQUEST,
                "bad_jwt",
                "invalid claim: sub claim must be a UUID",
            )
        })?;
        let session: Option<Uuid> = match claim("session_id") {
            "" => None,
            text => Some(text.parse().map_err(|_| {
                AuthError::forbidden("bad_jwt", "invalid claim: session_id claim must be a UUID")
            })?),
        };
        let client = self.database("read the user").await?;
        let account = users::by_id(&client, user).await?.ok_or_else(|| {
            AuthError::forbidden("user_not_found", "User from sub claim in JWT does not exist")
        })?;
        if let Some(session) = session {
            users::check_session(&client, user, session).await?;
        }
        if account.banned {
            return Err(AuthError::forbidden("user_banned", "User is banned"));
        }
        Ok(SignedIn { account, session })
    }

    /// A connection of the pool.
    pub async fn database(&self, attempt: &str) -> Result<Object, AuthError> {
        self.shared
            .database
            .admin
            .get()
            .await
            .map_err(|error| AuthError::internal(attempt, &pool_reason(&error)))
    }

    /// 200 with a JSON body, or the error in the caller's shape.
    pub fn answer(&self, result: Result<Value, AuthError>) -> Response {
        match result {
            Ok(body) => Json(body).into_response(),
            Err(error) => error.response(&self.headers),
        }
    }
}

/// Reads a JSON body; an absent one counts as `{}`, as some clients send none.
pub(crate) fn read<T: for<'de> Deserialize<'de>>(body: Body) -> Result<T, AuthError> {
    let bytes = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => AuthError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "request_entity_too_large",
            format!(
                "Request body too large (max {} bytes)",
                super::routes::BODY_BYTES_MAX
            ),
        ),
        _ => AuthError::new(
            StatusCode::BAD_REQUEST,
            "bad_json",
            "Could not read the request body",
        ),
    })?;
    let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(text).map_err(|error| {
        AuthError::new(
            StatusCode::BAD_REQUEST,
            "bad_json",
            format!("Could not parse request body as JSON: {error}"),
        )
    })
}

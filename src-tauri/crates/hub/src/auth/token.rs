//! `POST /token`: sign-in with a password, and refresh.
//!
//! An unknown address and a wrong password get the same answer after the same time; whether a user is banned or not
//! confirmed is told only to who has the right password. Called by `routes`.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::call::{Body, Call, read};
use super::error::AuthError;
use super::passwords::{self, Look};
use super::session::{self, Method};
use super::users;

#[derive(Deserialize, Default)]
#[serde(default)]
struct PasswordGrant {
    email: Option<String>,
    phone: Option<String>,
    password: String,
}

#[derive(Deserialize)]
struct RefreshGrant {
    #[serde(default)]
    refresh_token: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CodeGrant {
    auth_code: String,
    code_verifier: String,
}

/// `POST /token?grant_type=…`.
pub(crate) async fn token(call: Call, body: Body) -> Response {
    let result = grant(&call, body).await;
    call.answer(result)
}

async fn grant(call: &Call, body: Body) -> Result<Value, AuthError> {
    call.check_key()?;
    let bad = |code, message: &str| Err(AuthError::new(StatusCode::BAD_REQUEST, code, message));
    let (limits, now) = (&call.shared.auth.limits, call.shared.clock.now());
    match call.value("grant_type") {
        Some("password") => {
            limits.sign_in(call.ip, now)?;
            sign_in(call, read(body)?).await
        }
        Some("refresh_token") => {
            limits.refresh(call.ip, now)?;
            let RefreshGrant { refresh_token } = read(body)?;
            if refresh_token.is_empty() {
                return bad("validation_failed", "refresh_token required");
            }
            session::refresh(call, &refresh_token).await
        }
        Some("pkce") => {
            let code: CodeGrant = read(body)?;
            if code.auth_code.is_empty() || code.code_verifier.is_empty() {
                return Err(AuthError::invalid(
                    "invalid request: both auth code and code verifier should be non-empty",
                ));
            }
            Err(AuthError::new(
                StatusCode::NOT_FOUND,
                "flow_state_not_found",
                "invalid flow state, no valid flow state found",
            ))
        }
        Some("id_token") => bad("provider_disabled", "Provider (issuer \"\") is not enabled"),
        Some("web3") => Err(AuthError::unprocessable(
            "web3_provider_disabled",
            "Web3 provider is disabled",
        )),
        Some(_) | None => bad("invalid_credentials", "unsupported_grant_type"),
    }
}

async fn sign_in(call: &Call, grant: PasswordGrant) -> Result<Value, AuthError> {
    let given = |value: Option<String>| value.filter(|value| !value.is_empty());
    let email = match (given(grant.email), given(grant.phone)) {
        (Some(_), Some(_)) => {
            return Err(AuthError::invalid(
                "Only an email address or phone number should be provided on login.",
            ));
        }
        (Some(email), None) => email,
        (None, Some(_)) => {
            return Err(AuthError::unprocessable(
                "phone_provider_disabled",
                "Phone logins are disabled",
            ));
        }
        (None, None) => return Err(AuthError::invalid("missing email or phone")),
    };
    // First of all: nothing of such an address is kept or looked up.
    if email.len() > users::EMAIL_BYTES_MAX
        || grant.password.len() > passwords::PASSWORD_BYTES_MAX
        || email.contains('\0')
    {
        return Err(AuthError::credentials());
    }
    let email = users::normal_email(&email);
    // Counted before the hash: any number of requests at once has no more tries than one after the other.
    let (limits, now) = (&call.shared.auth.limits, call.shared.clock.now());
    limits.try_password(&email, call.ip, now)?;
    let client = call.database("sign in").await?;
    let account = users::by_email(&client, &email).await?;
    drop(client);
    let hash = account.as_ref().and_then(|account| account.hash.clone());
    let look = passwords::look(grant.password.clone(), hash).await?;
    let account = match (look, account) {
        (Look::Right | Look::RightButOld, Some(account)) => account,
        (Look::Wrong, _) | (_, None) => return Err(AuthError::credentials()),
    };
    limits.right_password(&email, call.ip);
    let refuse = |code, message: &str| Err(AuthError::new(StatusCode::BAD_REQUEST, code, message));
    if account.banned {
        return refuse("user_banned", "User is banned");
    }
    if !account.confirmed {
        return refuse("email_not_confirmed", "Email not confirmed");
    }
    let shown = match look {
        Look::RightButOld => Some(renew_hash(call, &account, grant.password).await?),
        Look::Right | Look::Wrong => account.hash,
    };
    session::begin(call, account.id, Method::Password, shown.as_deref()).await
}

/// Replaces a hash of an older kind by one of ours, and returns what there is now. No new password: sessions stay.
async fn renew_hash(call: &Call, account: &users::Account, password: String) -> Result<String, AuthError> {
    const ATTEMPT: &str = "renew the hash of a password";
    let hash = passwords::hashed(password.clone()).await?;
    let client = call.database(ATTEMPT).await?;
    let renewed = client
        .execute(
            // Only over the hash that was looked at: the password may have been changed meanwhile.
            "update auth.users set encrypted_password = $2 where id = $1 and encrypted_password = $3",
            &[&account.id, &hash, &account.hash],
        )
        .await
        .map_err(AuthError::database(ATTEMPT))?;
    if renewed == 1 {
        return Ok(hash);
    }
    // Somebody else was first: another sign-in at the same moment, or a new password.
    let now = users::by_id(&client, account.id).await?;
    drop(client);
    let hash = now
        .and_then(|account| account.hash)
        .ok_or_else(AuthError::credentials)?;
    match passwords::look(password, Some(hash.clone())).await? {
        Look::Right | Look::RightButOld => Ok(hash),
        Look::Wrong => Err(AuthError::credentials()),
    }
}

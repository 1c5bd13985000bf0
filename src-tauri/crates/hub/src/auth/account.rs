//! What a signed-in user does with himself: `GET` and `PUT /user`, `POST /logout`.
//!
//! Never lets a user write his `app_metadata` or role. A new address counts at once, as at GoTrue with autoconfirm, but
//! needs the password of now and proves nothing: nobody is admitted to an office by it. Called by `routes`.

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::call::{Body, Call, SignedIn, read};
use super::error::AuthError;
use super::passwords::{self, Look};
use super::users::{self, Metadata, Word};

/// `GET /user`.
pub(crate) async fn user(call: Call) -> Response {
    let found = call.signed_in().await;
    call.answer(found.map(|found| found.account.json))
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Changes {
    email: Option<String>,
    phone: Option<String>,
    password: Option<String>,
    current_password: Option<String>,
    data: Option<Map<String, Value>>,
    app_metadata: Option<Map<String, Value>>,
}

/// `PUT /user`.
pub(crate) async fn change(call: Call, body: Body) -> Response {
    let result = changed(&call, body).await;
    call.answer(result)
}

async fn changed(call: &Call, body: Body) -> Result<Value, AuthError> {
    const ATTEMPT: &str = "change the user";
    let who = call.signed_in().await?;
    call.shared
        .auth
        .limits
        .sign_in(call.ip, call.shared.clock.now())?;
    let changes: Changes = read(body)?;
    let email = checked(call, &who, &changes)?;
    let given = changes.current_password.filter(|current| !current.is_empty());
    if given.is_some() || email.is_some() {
        check_current(call, &who, given).await?;
    }
    let hash = match changes.password.filter(|password| !password.is_empty()) {
        None => None,
        Some(password) => Some(new_hash(&who, password).await?),
    };
    let id = who.account.id;
    let fault = AuthError::database(ATTEMPT);
    let mut client = call.database(ATTEMPT).await?;
    let transaction = client.transaction().await.map_err(fault)?;
    if let Some(hash) = hash {
        users::set_hash(&transaction, id, Some(&hash), who.session).await?;
    }
    if let Some(data) = changes.data {
        users::change_metadata(&transaction, id, Metadata::User, data).await?;
    }
    if let Some(email) = email {
        users::set_email(&transaction, id, &email, true, Word::Himself).await?;
    }
    let now = users::by_id(&transaction, id).await?;
    transaction.commit().await.map_err(fault)?;
    now.map(|account| account.json)
        .ok_or_else(|| AuthError::forbidden("user_not_found", "User from sub claim in JWT does not exist"))
}

/// Refuses what may not be changed; returns the new address, if there is one.
fn checked(call: &Call, who: &SignedIn, changes: &Changes) -> Result<Option<String>, AuthError> {
    if changes.app_metadata.is_some() {
        return Err(AuthError::forbidden(
            "not_admin",
            "Updating app_metadata requires admin privileges",
        ));
    }
    if changes.phone.as_deref().is_some_and(|phone| !phone.is_empty()) {
        return Err(AuthError::unprocessable(
            "phone_provider_disabled",
            "Phone logins are disabled",
        ));
    }
    let email = match changes.email.as_deref() {
        None | Some("") => None,
        Some(email) => {
            Some(users::valid_email(email)?).filter(|email| who.account.email.as_ref() != Some(email))
        }
    };
    if let Some(password) = changes
        .password
        .as_deref()
        .filter(|password| !password.is_empty())
    {
        passwords::check_strength(password, call.shared.auth.settings.password_chars_min)?;
        if who.account.anonymous && email.is_none() {
            return Err(AuthError::unprocessable(
                "validation_failed",
                "Updating password of an anonymous user without an email or phone is not allowed",
            ));
        }
    }
    Ok(email)
}

/// The password of now, where it is given or needed: for another address, so that a token alone does not give the account
/// away. Who has none (an anonymous user) has nothing to show.
async fn check_current(call: &Call, who: &SignedIn, given: Option<String>) -> Result<(), AuthError> {
    let Some(hash) = &who.account.hash else {
        return Ok(());
    };
    let refuse = |code, message: &str| Err(AuthError::new(StatusCode::BAD_REQUEST, code, message));
    let Some(given) = given else {
        return refuse(
            "current_password_required",
            "Current password required when setting a new email address.",
        );
    };
    // A stolen token is no way to guess the password.
    let (limits, now) = (&call.shared.auth.limits, call.shared.clock.now());
    limits.try_password(who.account.email.as_deref().unwrap_or_default(), call.ip, now)?;
    if passwords::look(given, Some(hash.clone())).await? == Look::Wrong {
        return refuse(
            "current_password_invalid",
            "Current password required when setting new password.",
        );
    }
    Ok(())
}

/// The hash of a new password, which must be another than the one of now.
async fn new_hash(who: &SignedIn, password: String) -> Result<String, AuthError> {
    if let Some(hash) = &who.account.hash
        && passwords::look(password.clone(), Some(hash.clone())).await? != Look::Wrong
    {
        return Err(AuthError::unprocessable(
            "same_password",
            "New password should be different from the old password.",
        ));
    }
    passwords::hashed(password).await
}

/// `POST /logout?scope=…`: 204, or why not. The access token itself stays good until it expires.
pub(crate) async fn logout(call: Call) -> Response {
    match signed_out(&call).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.response(&call.headers),
    }
}

async fn signed_out(call: &Call) -> Result<(), AuthError> {
    let SignedIn { account, session } = call.signed_in().await?;
    let which = match (call.value("scope").unwrap_or("global"), session) {
        ("global" | "", _) | ("local" | "others", None) => "$2::uuid is not distinct from $2",
        ("local", Some(_)) => "id = $2",
        ("others", Some(_)) => "id <> $2",
        (other, _) => {
            return Err(AuthError::invalid(format!("Unsupported logout scope {other:?}")));
        }
    };
    call.database("sign out")
        .await?
        .execute(
            &format!("delete from auth.sessions where user_id = $1 and {which}"),
            &[&account.id, &session],
        )
        .await
        .map_err(AuthError::database("sign out"))?;
    Ok(())
}

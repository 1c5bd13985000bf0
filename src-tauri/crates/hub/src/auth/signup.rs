//! `POST /signup`: a new user with address and password, or an anonymous one. Both off unless switched on.
//!
//! Never lets what the caller sends reach `app_metadata` or the role. Called by `routes`.

use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::call::{Body, Call, read};
use super::error::AuthError;
use super::session::{self, Method};
use super::{passwords, users};

#[derive(Deserialize, Default)]
#[serde(default)]
struct SignUp {
    email: Option<String>,
    phone: Option<String>,
    password: Option<String>,
    data: Option<Map<String, Value>>,
}

/// `POST /signup`.
pub(crate) async fn signup(call: Call, body: Body) -> Response {
    let result = made(&call, body).await;
    call.answer(result)
}

async fn made(call: &Call, body: Body) -> Result<Value, AuthError> {
    call.check_key()?;
    let settings = &call.shared.auth.settings;
    let params: SignUp = read(body)?;
    let given = |value: Option<String>| value.filter(|value| !value.is_empty());
    let (email, phone) = (given(params.email), given(params.phone));
    let data = params.data.unwrap_or_default();
    users::check_metadata(&data)?;
    if email.is_none() && phone.is_none() {
        if !settings.anonymous {
            return Err(AuthError::unprocessable(
                "anonymous_provider_disabled",
                "Anonymous sign-ins are disabled",
            ));
        }
        let user = insert(call, None, None, data).await?;
        return session::begin(call, user, Method::Anonymous, None).await;
    }
    if !settings.sign_up {
        return Err(AuthError::unprocessable(
            "signup_disabled",
            "Signups not allowed for this instance",
        ));
    }
    let password =
        given(params.password).ok_or_else(|| AuthError::invalid("Signup requires a valid password"))?;
    passwords::check_strength(&password, settings.password_chars_min)?;
    let email = match (email, phone) {
        (Some(email), None) => users::valid_email(&email)?,
        (Some(_), Some(_)) => {
            return Err(AuthError::invalid(
                "Only an email address or phone number should be provided on signup.",
            ));
        }
        (None, _) => {
            return Err(AuthError::new(
                axum::http::StatusCode::BAD_REQUEST,
                "phone_provider_disabled",
                "Phone signups are disabled",
            ));
        }
    };
    let user = insert(call, Some(email), Some(password), data).await?;
    session::begin(call, user, Method::Password, None).await
}

/// Makes the user. The address counts as confirmed, as at GoTrue with autoconfirm, since there is no mail to confirm it
/// by: it lets him sign in and nothing else. Nobody is admitted to an office by it.
async fn insert(
    call: &Call,
    email: Option<String>,
    password: Option<String>,
    data: Map<String, Value>,
) -> Result<Uuid, AuthError> {
    const ATTEMPT: &str = "save the new user";
    let (limits, now) = (&call.shared.auth.limits, call.shared.clock.now());
    limits.sign_up(call.ip, now)?;
    let hash = match password {
        Some(password) => Some(passwords::hashed(password).await?),
        None => None,
    };
    let new = users::New {
        id: Uuid::new_v4(),
        confirmed: email.is_some(),
        word: users::Word::Himself,
        email,
        hash,
        role: "authenticated".to_owned(),
        data,
        app: Map::new(),
    };
    let fault = AuthError::database(ATTEMPT);
    let mut client = call.database(ATTEMPT).await?;
    let transaction = client.transaction().await.map_err(fault)?;
    let made = users::insert(&transaction, new).await;
    let made = made.map_err(|error| match error.code {
        // Without mail nobody can be told in private, so GoTrue says it, too.
        "email_exists" => AuthError::unprocessable("user_already_exists", "User already registered"),
        _ => error,
    })?;
    transaction.commit().await.map_err(fault)?;
    Ok(made.id)
}

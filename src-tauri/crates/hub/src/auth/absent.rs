//! What Supabase Auth can and the hub does not: mail, SMS, other identity providers, second factors, passkeys, SSO.
//! Answered as a project answers where these are switched off, so that official clients report it as they know how.
//!
//! Never does anything. Called by `routes`.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::call::{Body, Call, read};
use super::error::AuthError;
use super::users::valid_email;

const NO_MAIL: &str = "Email logins are disabled: this hub sends no mail";

#[derive(Deserialize, Default)]
#[serde(default)]
struct To {
    email: Option<String>,
    phone: Option<String>,
    factor_type: Option<String>,
}

impl To {
    fn is_phone(&self) -> bool {
        self.phone.as_deref().is_some_and(|phone| !phone.is_empty())
            && self.email.as_deref().is_none_or(str::is_empty)
    }
}

fn no_phone() -> AuthError {
    AuthError::new(
        StatusCode::BAD_REQUEST,
        "phone_provider_disabled",
        "Unsupported phone provider",
    )
}

fn gone(code: &'static str, message: &str) -> AuthError {
    AuthError::new(StatusCode::NOT_FOUND, code, message)
}

fn refuse(call: &Call, error: impl FnOnce() -> AuthError) -> Response {
    call.answer(call.check_key().and_then(|()| Err::<Value, _>(error())))
}

/// `/otp`, `/magiclink`: a code by mail or SMS.
pub(crate) async fn code(call: Call, body: Body) -> Response {
    let error = match read::<To>(body) {
        Ok(to) if to.is_phone() => no_phone(),
        Ok(_) => AuthError::unprocessable("email_provider_disabled", NO_MAIL),
        Err(error) => error,
    };
    refuse(&call, || error)
}

/// `/recover`, `/resend`: a mail.
pub(crate) async fn mail(call: Call, body: Body) -> Response {
    let error = match read::<To>(body) {
        Ok(to) if to.is_phone() => no_phone(),
        Ok(_) => AuthError::new(StatusCode::BAD_REQUEST, "email_provider_disabled", NO_MAIL),
        Err(error) => error,
    };
    refuse(&call, || error)
}

/// `/verify`: no code was ever sent.
pub(crate) async fn verify(call: Call, body: Body) -> Response {
    let is_number = |phone: &str| {
        let digits = phone.trim_start_matches('+');
        (1..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    let error = match read::<To>(body) {
        Ok(to) if to.is_phone() && !to.phone.as_deref().is_some_and(is_number) => {
            AuthError::invalid("Invalid phone number format (E.164 required)")
        }
        Ok(_) => AuthError::forbidden("otp_expired", "Token has expired or is invalid"),
        Err(error) => error,
    };
    refuse(&call, || error)
}

/// `/authorize`: sign-in at another provider. A browser comes here without a key.
pub(crate) async fn provider(call: Call) -> Response {
    call.answer(Err(AuthError::invalid(
        "Unsupported provider: provider is not enabled",
    )))
}

/// `/sso`.
pub(crate) async fn sso(call: Call) -> Response {
    refuse(&call, || gone("saml_provider_disabled", "SAML 2.0 is disabled"))
}

/// `/passkeys/…`.
pub(crate) async fn passkeys(call: Call) -> Response {
    refuse(&call, || gone("passkey_disabled", "Passkeys are disabled"))
}

/// `/user/identities/…`.
pub(crate) async fn linking(call: Call) -> Response {
    let who = call.signed_in().await;
    call.answer(who.and_then(|_| Err(gone("manual_linking_disabled", "Manual linking is disabled"))))
}

/// `/reauthenticate`: a code by mail to somebody who is signed in.
pub(crate) async fn reauthenticate(call: Call) -> Response {
    let who = call.signed_in().await;
    call.answer(who.and_then(|_| Err(AuthError::unprocessable("email_provider_disabled", NO_MAIL))))
}

/// `POST /factors`: a second factor.
pub(crate) async fn enroll(call: Call, body: Body) -> Response {
    let result = async {
        call.signed_in().await?;
        let (code, message) = match read::<To>(body)?.factor_type.as_deref() {
            Some("totp") => ("mfa_totp_enroll_not_enabled", "MFA enroll is disabled for TOTP"),
            Some("phone") => ("mfa_phone_enroll_not_enabled", "MFA enroll is disabled for Phone"),
            Some("webauthn") => (
                "mfa_webauthn_enroll_not_enabled",
                "MFA enroll is disabled for WebAuthn",
            ),
            _ => {
                return Err(AuthError::invalid(
                    "factor_type needs to be totp, phone, or webauthn",
                ));
            }
        };
        Err::<Value, _>(AuthError::unprocessable(code, message))
    };
    let result = result.await;
    call.answer(result)
}

/// `/factors/{id}/…`: nobody has one.
pub(crate) async fn factor(call: Call) -> Response {
    let who = call.signed_in().await;
    call.answer(who.and_then(|_| Err(gone("mfa_factor_not_found", "Factor not found"))))
}

/// What administrators ask for that needs mail.
pub(crate) async fn admin_mail(call: Call, body: Body) -> Response {
    let refused = call.check_admin().and_then(|()| {
        valid_email(&read::<To>(body)?.email.unwrap_or_default())?;
        Err::<Value, _>(AuthError::unprocessable("email_provider_disabled", NO_MAIL))
    });
    call.answer(refused)
}

/// What administrators set up that is not here.
pub(crate) async fn admin_feature(call: Call) -> Response {
    let who = call.check_admin();
    call.answer(who.and_then(|()| Err(gone("feature_disabled", "This hub does not have this feature"))))
}

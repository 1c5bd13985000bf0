//! `/auth/v1/…`: which path is whose. Called by `http`.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{absent, account, admin, signup, token};
use crate::http::{App, Shared};

/// Largest request body of Auth, as at GoTrue, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
/// How long clients may keep the public keys, in seconds.
const KEYS_MAX_AGE: &str = "public, max-age=600";

pub(crate) fn routes() -> Router<Arc<Shared>> {
    let auth = Router::new()
        .route("/health", get(health))
        .route("/settings", get(settings))
        .route("/.well-known/jwks.json", get(public_keys))
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/token", post(token::token))
        .route("/signup", post(signup::signup))
        .route("/user", get(account::user).put(account::change))
        .route("/logout", post(account::logout))
        .route("/admin/users", get(admin::list).post(admin::create))
        .route(
            "/admin/users/{id}",
            get(admin::show).put(admin::change).delete(admin::delete),
        )
        .route("/admin/users/{id}/factors", get(admin::factors))
        .merge(absent())
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    Router::new().nest("/auth/v1", auth)
}

fn absent() -> Router<Arc<Shared>> {
    Router::new()
        .route("/otp", post(absent::code))
        .route("/magiclink", post(absent::code))
        .route("/recover", post(absent::mail))
        .route("/resend", post(absent::mail))
        .route("/verify", get(absent::verify).post(absent::verify))
        .route("/authorize", get(absent::provider))
        .route("/sso", post(absent::sso))
        .route("/passkeys", any(absent::passkeys))
        .route("/passkeys/{*rest}", any(absent::passkeys))
        .route("/user/identities/{*rest}", any(absent::linking))
        .route("/reauthenticate", get(absent::reauthenticate))
        .route("/factors", post(absent::enroll))
        .route("/factors/{*rest}", any(absent::factor))
        .route("/invite", post(absent::admin_mail))
        .route("/admin/generate_link", post(absent::admin_mail))
        .route("/admin/{*rest}", any(absent::admin_feature))
}

async fn health() -> Json<Value> {
    Json(
        json!({"name": "GoTrue", "version": concat!("semo-hub ", env!("CARGO_PKG_VERSION")),
                "description": "The part of GoTrue that an office needs"}),
    )
}

async fn settings(State(shared): App) -> Json<Value> {
    let settings = &shared.auth.settings;
    Json(json!({
        "external": {"email": true, "phone": false, "anonymous_users": settings.anonymous},
        "disable_signup": !settings.sign_up, "mailer_autoconfirm": true, "phone_autoconfirm": false,
        "sms_provider": "", "saml_enabled": false, "passkeys_enabled": false,
    }))
}

async fn public_keys(State(shared): App) -> impl IntoResponse {
    let keys = shared.auth.tokens.public_keys(shared.clock.now());
    (
        [(header::CACHE_CONTROL, KEYS_MAX_AGE)],
        Json(json!({"keys": keys})),
    )
}

async fn discovery(State(shared): App) -> impl IntoResponse {
    let base = format!("{}/auth/v1", shared.url);
    let body = json!({
        "issuer": base, "jwks_uri": format!("{base}/.well-known/jwks.json"),
        "token_endpoint": format!("{base}/token"), "userinfo_endpoint": format!("{base}/user"),
        "id_token_signing_alg_values_supported": ["ES256"], "subject_types_supported": ["public"],
        "response_types_supported": ["token"],
    });
    ([(header::CACHE_CONTROL, KEYS_MAX_AGE)], Json(body))
}

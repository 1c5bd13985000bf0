//! Rows of `auth.users`: making them, checking passwords, and the JSON clients get.
//!
//! Never stores or returns a password; bcrypt runs beside the event loop and at most [`HASHES_MAX`] at a time.
//! Called by `routes`, `session` and [`crate::Hub::ensure_user`].

use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::db::Database;
use crate::error::HubError;

/// bcrypt's cost: 2^10 rounds, GoTrue's default.
const BCRYPT_COST: u32 = 10;
/// Password hashes computed at the same time; the rest waits.
const HASHES_MAX: usize = 2;
/// Sign-ins that may be at or wait for their hash; more are refused, so that a flood does not keep people out for long.
const SIGN_INS_MAX: usize = 20;
/// bcrypt looks at no more than this many bytes: longer passwords are refused instead of cut.
pub(crate) const PASSWORD_BYTES_MAX: usize = 72;
/// Shortest password.
const PASSWORD_CHARS_MIN: usize = 6;
/// Longest email address (RFC 5321).
pub(crate) const EMAIL_BYTES_MAX: usize = 254;

static HASHING: Semaphore = Semaphore::const_new(HASHES_MAX);
static SIGN_INS: Semaphore = Semaphore::const_new(SIGN_INS_MAX);

/// A place in the line for a hash, if there is room; held until the password has been looked at.
pub(crate) fn place_in_line() -> Option<SemaphorePermit<'static>> {
    SIGN_INS.try_acquire().ok()
}

/// The columns [`user_json`] reads.
pub(crate) const USER_COLUMNS: &str =
    "id, aud, role, email, raw_app_meta_data, raw_user_meta_data, is_anonymous,
    banned_until > now() as banned, encrypted_password,
    to_char(created_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') as created,
    to_char(updated_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') as updated,
    to_char(email_confirmed_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') as confirmed,
    to_char(last_sign_in_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') as signed_in";

/// What clients are told about a user.
pub(crate) fn user_json(row: &Row) -> Value {
    json!({
        "id": row.get::<_, Uuid>("id"),
        "aud": row.get::<_, String>("aud"),
        "role": row.get::<_, String>("role"),
        "email": row.get::<_, Option<String>>("email"),
        "email_confirmed_at": row.get::<_, Option<String>>("confirmed"),
        "confirmed_at": row.get::<_, Option<String>>("confirmed"),
        "last_sign_in_at": row.get::<_, Option<String>>("signed_in"),
        "phone": "",
        "app_metadata": row.get::<_, Value>("raw_app_meta_data"),
        "user_metadata": row.get::<_, Value>("raw_user_meta_data"),
        "identities": [],
        "created_at": row.get::<_, String>("created"),
        "updated_at": row.get::<_, String>("updated"),
        "is_anonymous": row.get::<_, bool>("is_anonymous"),
    })
}

/// Addresses are compared in lower case, without blanks around them.
pub(crate) fn normal_email(email: &str) -> String {
    email.trim().to_lowercase()
}

/// Makes the user or sets the password of the one that is there; a new password ends all sessions.
pub(crate) async fn ensure(database: &Database, email: &str, password: &str) -> Result<Uuid, HubError> {
    let email = normal_email(email);
    let refuse = |reason: &str| HubError::User {
        email: email.clone(),
        reason: reason.to_owned(),
    };
    let (name, place) = email.split_once('@').unwrap_or_default();
    if name.is_empty()
        || place.is_empty()
        || email.len() > EMAIL_BYTES_MAX
        || email.contains(char::is_whitespace)
    {
        return Err(refuse("this is not an email address"));
    }
    if password.chars().count() < PASSWORD_CHARS_MIN || password.len() > PASSWORD_BYTES_MAX {
        return Err(refuse(
            "the password must have 6 characters or more and at most 72 bytes",
        ));
    }
    let attempt = || format!("set up the user {email}");
    let client = database.admin(&attempt()).await?;
    let fault = |source| HubError::Database {
        attempt: attempt(),
        source,
    };
    let known = client
        .query_opt(
            "select id, encrypted_password from auth.users where email = $1",
            &[&email],
        )
        .await
        .map_err(fault)?;
    if let Some(row) = known
        && matches(password.to_owned(), row.get("encrypted_password")).await
    {
        return Ok(row.get("id"));
    }
    let hash = hashed(password.to_owned())
        .await
        .map_err(|reason| refuse(&reason))?;
    let row = client
        .query_one(
            "with changed as (
               insert into auth.users (email, encrypted_password, email_confirmed_at) values ($1, $2, now())
               on conflict (email) do update
                  set encrypted_password = excluded.encrypted_password, updated_at = now()
               returning id
             ), ended as (delete from auth.sessions where user_id in (select id from changed))
             select id from changed",
            &[&email, &hash],
        )
        .await
        .map_err(fault)?;
    Ok(row.get("id"))
}

/// True when `password` belongs to `hash`. Without a hash it takes as long and is false.
pub(crate) async fn matches(password: String, hash: Option<String>) -> bool {
    let Ok(_turn) = HASHING.acquire().await else {
        return false;
    };
    let check = tokio::task::spawn_blocking(move || match hash {
        Some(hash) => bcrypt::verify(&password, &hash).unwrap_or(false),
        None => {
            // The time of an answer must not tell which addresses exist.
            let spent = bcrypt::hash(&password, BCRYPT_COST);
            drop(spent);
            false
        }
    });
    check.await.unwrap_or(false)
}

async fn hashed(password: String) -> Result<String, String> {
    let _turn = HASHING.acquire().await.map_err(|error| error.to_string())?;
    tokio::task::spawn_blocking(move || {
        bcrypt::hash(password, BCRYPT_COST).map_err(|error| error.to_string())
    })
    .await
    .map_err(|error| error.to_string())?
}

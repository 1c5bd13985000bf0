//! `/admin/users…`: what a server with the secret key does with users.
//!
//! Never answers anybody without `service_role`, and never says before that whether a user exists. Called by `routes`.

use axum::Json;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use deadpool_postgres::GenericClient;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::call::{Body, Call, read};
use super::duration;
use super::error::AuthError;
use super::passwords;
use super::users::{self, Account, Metadata, Word};
use crate::jwt::ROLES;

/// Users per page when nothing is said, as at GoTrue.
const PER_PAGE: u32 = 50;
/// Most users per page.
const PER_PAGE_MAX: u32 = 1000;
/// Longest text that is searched for, in bytes.
const FILTER_BYTES_MAX: usize = 256;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Params {
    id: Option<String>,
    role: Option<String>,
    email: Option<String>,
    phone: Option<String>,
    password: Option<String>,
    password_hash: Option<String>,
    email_confirm: Option<bool>,
    user_metadata: Option<Map<String, Value>>,
    app_metadata: Option<Map<String, Value>>,
    ban_duration: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Deletion {
    should_soft_delete: bool,
}

/// What both making and changing check, before anything is written.
struct Checked {
    email: Option<String>,
    role: Option<String>,
    /// Seconds from now; 0 lifts a ban.
    ban_s: Option<f64>,
}

impl Params {
    fn check(&self, call: &Call) -> Result<Checked, AuthError> {
        let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        if given(&self.phone).is_some() {
            return Err(AuthError::unprocessable(
                "phone_provider_disabled",
                "Phone logins are disabled",
            ));
        }
        let role = given(&self.role);
        if let Some(role) = role.as_deref().filter(|role| !ROLES.contains(role)) {
            return Err(AuthError::invalid(format!(
                "role must be one of {}, not {role:?}",
                ROLES.join(", ")
            )));
        }
        let ban_s = match given(&self.ban_duration) {
            None => None,
            Some(text) => Some(duration::seconds(&text).ok_or_else(|| {
                AuthError::invalid(format!(
                    "invalid format for ban duration: time: invalid duration {text:?}"
                ))
            })?),
        };
        if let Some(password) = given(&self.password) {
            passwords::check_strength(&password, call.shared.auth.settings.password_chars_min)?;
        }
        Ok(Checked {
            email: given(&self.email)
                .map(|email| users::valid_email(&email))
                .transpose()?,
            role,
            ban_s,
        })
    }
}

/// `POST /admin/users`.
pub(crate) async fn create(call: Call, body: Body) -> Response {
    let result = created(&call, body).await;
    call.answer(result)
}

async fn created(call: &Call, body: Body) -> Result<Value, AuthError> {
    const ATTEMPT: &str = "save the new user";
    call.check_admin()?;
    let params: Params = read(body)?;
    let checked = params.check(call)?;
    let email = checked
        .email
        .ok_or_else(|| AuthError::invalid("Cannot create a user without either an email or phone"))?;
    let id = match params.id.as_deref() {
        None | Some("") => Uuid::new_v4(),
        Some(text) => text
            .parse::<Uuid>()
            .map_err(|_| AuthError::invalid("ID must conform to the uuid v4 format"))?,
    };
    if id.is_nil() {
        return Err(AuthError::invalid("ID cannot be a nil uuid"));
    }
    let given = |value: Option<String>| value.filter(|value| !value.is_empty());
    let hash = match (given(params.password), given(params.password_hash)) {
        (Some(_), Some(_)) => {
            return Err(AuthError::invalid(
                "Only a password or a password hash should be provided",
            ));
        }
        (Some(password), None) => Some(passwords::hashed(password).await?),
        (None, Some(hash)) if passwords::can_be_checked(&hash) => Some(hash),
        (None, Some(_)) => {
            return Err(AuthError::invalid(
                "The password hash must be of bcrypt or argon2, at a cost that can be checked",
            ));
        }
        // Nobody can sign in until a password is set; GoTrue makes up one that nobody knows.
        (None, None) => None,
    };
    let new = users::New {
        id,
        email: Some(email),
        hash,
        confirmed: params.email_confirm == Some(true),
        word: Word::Owner,
        role: checked.role.unwrap_or_else(|| "authenticated".to_owned()),
        data: params.user_metadata.unwrap_or_default(),
        app: params.app_metadata.unwrap_or_default(),
    };
    let fault = AuthError::database(ATTEMPT);
    let mut client = call.database(ATTEMPT).await?;
    let transaction = client.transaction().await.map_err(fault)?;
    let made = users::insert(&transaction, new).await?;
    if let Some(ban_s) = checked.ban_s {
        ban(&transaction, made.id, ban_s).await?;
    }
    let made = users::by_id(&transaction, made.id).await?;
    transaction.commit().await.map_err(fault)?;
    made.map(|account| account.json).ok_or_else(not_found)
}

fn not_found() -> AuthError {
    AuthError::new(StatusCode::NOT_FOUND, "user_not_found", "User not found")
}

/// The user of the path; GoTrue answers a path that is no id with 404, too.
async fn named(client: &impl GenericClient, id: &str) -> Result<Account, AuthError> {
    let id: Uuid = id.parse().map_err(|_| {
        AuthError::new(
            StatusCode::NOT_FOUND,
            "validation_failed",
            "user_id must be an UUID",
        )
    })?;
    users::by_id(client, id).await?.ok_or_else(not_found)
}

/// `GET /admin/users/{id}`.
pub(crate) async fn show(Path(id): Path<String>, call: Call) -> Response {
    let found = async {
        call.check_admin()?;
        let client = call.database("read the user").await?;
        Ok(named(&client, &id).await?.json)
    };
    call.answer(found.await)
}

/// `GET /admin/users/{id}/factors`: there are none.
pub(crate) async fn factors(Path(id): Path<String>, call: Call) -> Response {
    let found = async {
        call.check_admin()?;
        let client = call.database("read the user").await?;
        named(&client, &id).await?;
        Ok(json!([]))
    };
    call.answer(found.await)
}

/// `PUT /admin/users/{id}`.
pub(crate) async fn change(Path(id): Path<String>, call: Call, body: Body) -> Response {
    let result = changed(&call, &id, body).await;
    call.answer(result)
}

async fn changed(call: &Call, id: &str, body: Body) -> Result<Value, AuthError> {
    const ATTEMPT: &str = "change the user";
    call.check_admin()?;
    let mut client = call.database(ATTEMPT).await?;
    let id = named(&client, id).await?.id;
    let params: Params = read(body)?;
    let checked = params.check(call)?;
    let hash = match params.password.filter(|password| !password.is_empty()) {
        Some(password) => Some(passwords::hashed(password).await?),
        None => None,
    };
    let confirm = params.email_confirm == Some(true);
    let fault = AuthError::database(ATTEMPT);
    let transaction = client.transaction().await.map_err(fault)?;
    if let Some(role) = checked.role {
        transaction
            .execute("update auth.users set role = $2 where id = $1", &[&id, &role])
            .await
            .map_err(fault)?;
    }
    if let Some(hash) = hash {
        users::set_hash(&transaction, id, Some(&hash), None).await?;
    }
    if let Some(email) = checked.email {
        users::set_email(&transaction, id, &email, confirm, Word::Owner).await?;
    }
    if confirm {
        confirm_email(&transaction, id).await?;
    }
    if let Some(app) = params.app_metadata {
        users::change_metadata(&transaction, id, Metadata::App, app).await?;
    }
    if let Some(data) = params.user_metadata {
        users::change_metadata(&transaction, id, Metadata::User, data).await?;
    }
    if let Some(ban_s) = checked.ban_s {
        ban(&transaction, id, ban_s).await?;
    }
    let now = users::by_id(&transaction, id).await?;
    transaction.commit().await.map_err(fault)?;
    now.map(|account| account.json).ok_or_else(not_found)
}

async fn confirm_email(client: &impl GenericClient, id: Uuid) -> Result<(), AuthError> {
    client
        .execute(
            "update auth.users set email_confirmed_at = coalesce(email_confirmed_at, now()), updated_at = now(),
                    hub_vouched = true,
                    raw_user_meta_data = coalesce(raw_user_meta_data, '{}') || '{\"email_verified\": true}'
              where id = $1",
            &[&id],
        )
        .await
        .map_err(AuthError::database("confirm the address"))?;
    Ok(())
}

/// Bans for `seconds`, or lifts the ban. Sessions stay, and are refused while it lasts.
async fn ban(client: &impl GenericClient, id: Uuid, seconds: f64) -> Result<(), AuthError> {
    client
        .execute(
            "update auth.users set updated_at = now(),
                    banned_until = case when $2::float8 > 0 then now() + make_interval(secs => $2::float8) end
              where id = $1",
            &[&id, &seconds],
        )
        .await
        .map_err(AuthError::database("ban the user"))?;
    Ok(())
}

/// `DELETE /admin/users/{id}`.
pub(crate) async fn delete(Path(id): Path<String>, call: Call, body: Body) -> Response {
    let result = deleted(&call, &id, body).await;
    call.answer(result)
}

async fn deleted(call: &Call, id: &str, body: Body) -> Result<Value, AuthError> {
    const ATTEMPT: &str = "delete the user";
    call.check_admin()?;
    let mut client = call.database(ATTEMPT).await?;
    let id = named(&client, id).await?.id;
    let Deletion { should_soft_delete } = read(body)?;
    let fault = AuthError::database(ATTEMPT);
    let transaction = client.transaction().await.map_err(fault)?;
    if should_soft_delete {
        // What others refer to stays, what says who it was goes; the address is free again.
        for sql in [
            "update auth.users set deleted_at = coalesce(deleted_at, now()), updated_at = now(), encrypted_password = null,
                    email = encode(sha256(convert_to(id::text || coalesce(email, ''), 'utf8')), 'hex'),
                    raw_user_meta_data = '{}', raw_app_meta_data = '{}'
              where id = $1 and deleted_at is null",
            "delete from auth.identities where user_id = $1",
            "delete from auth.sessions where user_id = $1",
        ] {
            transaction.execute(sql, &[&id]).await.map_err(fault)?;
        }
    } else {
        transaction
            .execute("delete from auth.users where id = $1", &[&id])
            .await
            .map_err(fault)?;
    }
    transaction.commit().await.map_err(fault)?;
    Ok(json!({}))
}

/// `GET /admin/users?page=&per_page=&filter=&sort=`.
pub(crate) async fn list(call: Call) -> Response {
    match listed(&call).await {
        Ok(response) => response,
        Err(error) => error.response(&call.headers),
    }
}

async fn listed(call: &Call) -> Result<Response, AuthError> {
    call.check_admin()?;
    let number = |name: &str, default: u32| match call.value(name) {
        None | Some("") => Ok(default),
        Some(text) => text
            .parse::<u32>()
            .map_err(|error| AuthError::invalid(format!("Bad Pagination Parameters: {name}: {error}"))),
    };
    let page = number("page", 1)?.max(1);
    let per_page = number("per_page", PER_PAGE)?.clamp(1, PER_PAGE_MAX);
    let order = match call.value("sort").map(str::trim) {
        None | Some("" | "created_at" | "created_at desc") => "desc",
        Some("created_at asc") => "asc",
        Some(other) => {
            return Err(AuthError::invalid(format!(
                "Bad Sort Parameters: bad field for sort {other:?}"
            )));
        }
    };
    let filter = call.value("filter").unwrap_or_default();
    if filter.len() > FILTER_BYTES_MAX || filter.contains('\0') {
        return Err(AuthError::invalid("the filter is too long, or no text"));
    }
    const MATCHES: &str = "u.aud = 'authenticated' and ($1 = '' or position(lower($1) in lower(u.email)) > 0
        or position(lower($1) in lower(u.raw_user_meta_data ->> 'full_name')) > 0)";
    let fault = AuthError::database("list the users");
    let client = call.database("list the users").await?;
    let total: i64 = client
        .query_one(
            &format!("select count(*) from auth.users u where {MATCHES}"),
            &[&filter],
        )
        .await
        .map_err(fault)?
        .get(0);
    let sql = format!(
        "select {} from auth.users u where {MATCHES} order by u.created_at {order}, u.id limit $2 offset $3",
        users::columns!()
    );
    let offset = i64::from(page - 1) * i64::from(per_page);
    let rows = client
        .query(&sql, &[&filter, &i64::from(per_page), &offset])
        .await
        .map_err(fault)?;
    let found: Vec<Value> = rows.iter().map(|row| Account::read(row).json).collect();
    let mut response = Json(json!({"users": found, "aud": "authenticated"})).into_response();
    let headers = response.headers_mut();
    headers.insert("x-total-count", HeaderValue::from(total));
    let link = links(page, per_page, u64::try_from(total).unwrap_or(0));
    if let Ok(link) = HeaderValue::from_str(&link) {
        headers.insert(header::LINK, link);
    }
    Ok(response)
}

/// The pages after this one, in the form and order that auth-js takes apart: `page` comes first.
fn links(page: u32, per_page: u32, total: u64) -> String {
    let last = total.div_ceil(u64::from(per_page));
    let link =
        |page: u64, rel: &str| format!("</admin/users?page={page}&per_page={per_page}>; rel=\"{rel}\"");
    let mut text = String::new();
    if last > u64::from(page) {
        text = link(u64::from(page) + 1, "next") + ", ";
    }
    text + &link(last, "last")
}

#[cfg(test)]
mod tests {
    use super::links;

    #[test]
    fn the_links_name_the_next_and_the_last_page() {
        assert_eq!(
            links(1, 50, 101),
            "</admin/users?page=2&per_page=50>; rel=\"next\", </admin/users?page=3&per_page=50>; rel=\"last\""
        );
        assert_eq!(
            links(3, 50, 101),
            "</admin/users?page=3&per_page=50>; rel=\"last\""
        );
        assert_eq!(links(1, 50, 0), "</admin/users?page=0&per_page=50>; rel=\"last\"");
    }
}

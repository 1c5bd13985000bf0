//! Rows of `auth.users` and `auth.identities`: making them, finding them, and the JSON clients get.
//!
//! Never hashes inside a transaction, and never returns a hash. Called by the modules of `auth` and
//! [`crate::Hub::ensure_user`].

use deadpool_postgres::GenericClient;
use serde_json::{Map, Value, json};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::error::AuthError;
use super::passwords::{self, Look};
use crate::db::Database;
use crate::error::HubError;

/// Longest email address (RFC 5321).
pub(crate) const EMAIL_BYTES_MAX: usize = 254;
/// Most metadata of one kind a user may have, in bytes of JSON: all of it is in each of his tokens.
const METADATA_BYTES_MAX: usize = 32 * 1024;

/// What [`Account::read`] reads, from `auth.users u`.
macro_rules! columns {
    () => {
        "u.id, coalesce(u.aud, '') as aud, coalesce(u.role, '') as role, u.email, coalesce(u.phone, '') as phone,
    coalesce(u.raw_app_meta_data, '{}') as app, coalesce(u.raw_user_meta_data, '{}') as data, u.is_anonymous,
    coalesce(u.banned_until > now(), false) as banned, nullif(u.encrypted_password, '') as hash, u.hub_vouched as vouched,
    auth.hub_time(coalesce(u.created_at, 'epoch')) as created_at,
    auth.hub_time(coalesce(u.updated_at, u.created_at, 'epoch')) as updated_at,
    auth.hub_time(u.email_confirmed_at) as email_confirmed_at, auth.hub_time(u.confirmed_at) as confirmed_at,
    auth.hub_time(u.last_sign_in_at) as last_sign_in_at, auth.hub_time(u.invited_at) as invited_at,
    auth.hub_time(u.banned_until) as banned_until, auth.hub_time(u.deleted_at) as deleted_at,
    (select coalesce(jsonb_agg(jsonb_build_object('identity_id', i.id, 'id', i.provider_id, 'user_id', i.user_id,
         'identity_data', i.identity_data, 'provider', i.provider, 'email', i.email,
         'last_sign_in_at', auth.hub_time(i.last_sign_in_at), 'created_at', auth.hub_time(i.created_at),
         'updated_at', auth.hub_time(i.updated_at)) order by i.created_at), '[]')
       from auth.identities i where i.user_id = u.id) as identities"
    };
}
pub(crate) use columns;

/// Times that are left out of the JSON while they are null, as GoTrue does.
const OPTIONAL_TIMES: [&str; 6] = [
    "email_confirmed_at",
    "confirmed_at",
    "last_sign_in_at",
    "invited_at",
    "banned_until",
    "deleted_at",
];

/// One user.
#[derive(Clone)]
pub(crate) struct Account {
    pub id: Uuid,
    pub email: Option<String>,
    /// Never printed.
    pub hash: Option<String>,
    pub banned: bool,
    pub confirmed: bool,
    pub anonymous: bool,
    /// Somebody with the right to say so stands for it that the address is his.
    pub vouched: bool,
    /// What clients are told.
    pub json: Value,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Account {
    /// Reads a row of [`columns`].
    pub fn read(row: &Row) -> Account {
        let email: Option<String> = row.get("email");
        let anonymous: bool = row.get("is_anonymous");
        let mut json = json!({
            "id": row.get::<_, Uuid>("id"),
            "aud": row.get::<_, String>("aud"),
            "role": row.get::<_, String>("role"),
            "email": email.as_deref().unwrap_or_default(),
            "phone": row.get::<_, String>("phone"),
            "app_metadata": row.get::<_, Value>("app"),
            "user_metadata": row.get::<_, Value>("data"),
            "identities": row.get::<_, Value>("identities"),
            "created_at": row.get::<_, String>("created_at"),
            "updated_at": row.get::<_, String>("updated_at"),
            "is_anonymous": anonymous,
        });
        for name in OPTIONAL_TIMES {
            if let Some(time) = row.get::<_, Option<String>>(name) {
                json[name] = Value::String(time);
            }
        }
        Account {
            id: row.get("id"),
            email,
            hash: row.get("hash"),
            banned: row.get("banned"),
            vouched: row.get("vouched"),
            confirmed: json.get("email_confirmed_at").is_some(),
            anonymous,
            json,
        }
    }
}

/// The user with this id.
pub(crate) async fn by_id(client: &impl GenericClient, id: Uuid) -> Result<Option<Account>, AuthError> {
    let sql = concat!("select ", columns!(), " from auth.users u where u.id = $1");
    let row = client.query_opt(sql, &[&id]).await;
    let row = row.map_err(AuthError::database("read the user"))?;
    Ok(row.as_ref().map(Account::read))
}

/// The user with this address, which must be a [`normal_email`].
pub(crate) async fn by_email(client: &impl GenericClient, email: &str) -> Result<Option<Account>, AuthError> {
    let sql = concat!(
        "select ",
        columns!(),
        " from auth.users u where lower(u.email) = $1 and not u.is_sso_user order by u.created_at limit 1"
    );
    let row = client.query_opt(sql, &[&email]).await;
    let row = row.map_err(AuthError::database("read the user"))?;
    Ok(row.as_ref().map(Account::read))
}

/// Whether the session of a token is still there.
pub(crate) async fn check_session(
    client: &impl GenericClient,
    user: Uuid,
    session: Uuid,
) -> Result<(), AuthError> {
    let sql = "select 1 from auth.sessions where id = $1 and user_id = $2";
    let found = client.query_opt(sql, &[&session, &user]).await;
    let found = found.map_err(AuthError::database("read the session"))?;
    found.map(drop).ok_or_else(|| {
        AuthError::forbidden(
            "session_not_found",
            "Session from session_id claim in JWT does not exist",
        )
    })
}

/// Addresses are compared in lower case, without blanks around them.
pub(crate) fn normal_email(email: &str) -> String {
    email.trim().to_lowercase()
}

/// The normal form of an address, if it can be one.
pub(crate) fn valid_email(email: &str) -> Result<String, AuthError> {
    let email = normal_email(email);
    let (name, place) = email.split_once('@').unwrap_or_default();
    let is_one = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ".!#$%&'*+/=?^_`{|}~-".contains(c))
        && place.split('.').all(is_label)
        && email.len() <= EMAIL_BYTES_MAX;
    if is_one {
        Ok(email)
    } else {
        Err(AuthError::invalid(
            "Unable to validate email address: invalid format",
        ))
    }
}

/// One part of a host's name.
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Metadata as clients send it, if it is not too much and Postgres can hold it.
pub(crate) fn check_metadata(metadata: &Map<String, Value>) -> Result<(), AuthError> {
    let bytes = serde_json::to_vec(metadata).map_or(usize::MAX, |json| json.len());
    if bytes > METADATA_BYTES_MAX {
        return Err(AuthError::invalid(format!(
            "Metadata of a user must not be larger than {METADATA_BYTES_MAX} bytes"
        )));
    }
    if metadata
        .iter()
        .any(|(key, value)| key.contains('\0') || has_nul(value))
    {
        return Err(AuthError::invalid(
            "Metadata of a user must not have the character U+0000",
        ));
    }
    Ok(())
}

/// JSON nested as deeply as the parser lets it in: 128 levels.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(map) => map
            .iter()
            .any(|(key, value)| key.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Who says that an address belongs to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// The hub's owner, or a server with the secret key.
    Owner,
    /// The user himself: he can sign in with it, but it proves nothing, since the hub sends no mail.
    Himself,
}

/// A user to be made.
pub(crate) struct New {
    pub id: Uuid,
    /// A [`valid_email`]; without one the user is anonymous.
    pub email: Option<String>,
    /// Never printed.
    pub hash: Option<String>,
    pub confirmed: bool,
    pub word: Word,
    pub role: String,
    pub data: Map<String, Value>,
    pub app: Map<String, Value>,
}

/// Makes a user with its identity. An address that is taken is `email_exists`.
pub(crate) async fn insert(client: &impl GenericClient, new: New) -> Result<Account, AuthError> {
    let mut app = Map::new();
    if new.email.is_some() {
        app.insert("provider".to_owned(), json!("email"));
        app.insert("providers".to_owned(), json!(["email"]));
    }
    app.extend(new.app.into_iter().filter(|(_, value)| !value.is_null()));
    let mut data = new.data;
    data.retain(|_, value| !value.is_null());
    if new.confirmed {
        data.insert("email_verified".to_owned(), json!(true));
    }
    check_metadata(&app)?;
    check_metadata(&data)?;
    client
        .execute(
            "insert into auth.users (id, aud, role, email, encrypted_password, email_confirmed_at, raw_app_meta_data,
               raw_user_meta_data, is_anonymous, hub_vouched)
             values ($1, 'authenticated', $2, $3, $4, case when $5 then now() end, $6, $7, $3::text is null, $8)",
            &[
                &new.id,
                &new.role,
                &new.email,
                &new.hash,
                &new.confirmed,
                &Value::Object(app),
                &Value::Object(data),
                &(new.word == Word::Owner),
            ],
        )
        .await
        .map_err(|error| match error.code() {
            Some(code) if *code == SqlState::UNIQUE_VIOLATION => taken(),
            _ => AuthError::database("save the new user")(error),
        })?;
    if let Some(email) = &new.email {
        set_identity(client, new.id, email, new.confirmed).await?;
    }
    let made = by_id(client, new.id).await?;
    made.ok_or_else(|| AuthError::internal("save the new user", &"it is not there afterwards"))
}

/// An address that belongs to somebody.
pub(crate) fn taken() -> AuthError {
    AuthError::unprocessable(
        "email_exists",
        "A user with this email address has already been registered",
    )
}

/// Makes the email identity of a user, or changes its address.
pub(crate) async fn set_identity(
    client: &impl GenericClient,
    user: Uuid,
    email: &str,
    verified: bool,
) -> Result<(), AuthError> {
    let data = json!({"sub": user, "email": email, "email_verified": verified, "phone_verified": false});
    client
        .execute(
            "insert into auth.identities (provider_id, user_id, identity_data, provider, last_sign_in_at)
             values ($1, $2, $3, 'email', now())
             on conflict (provider_id, provider) do update
                set identity_data = auth.identities.identity_data || excluded.identity_data, updated_at = now()",
            &[&user.to_string(), &user, &data],
        )
        .await
        .map_err(AuthError::database("save the identity"))?;
    Ok(())
}

/// Sets the address of a user, who is confirmed by it when `confirmed` (and no longer anonymous).
pub(crate) async fn set_email(
    client: &impl GenericClient,
    user: Uuid,
    email: &str,
    confirmed: bool,
    word: Word,
) -> Result<(), AuthError> {
    client
        .execute(
            "update auth.users set email = $2, updated_at = now(), hub_vouched = $4,
                    email_confirmed_at = case when $3 then coalesce(email_confirmed_at, now()) else email_confirmed_at end,
                    is_anonymous = is_anonymous and not $3,
                    raw_app_meta_data = coalesce(raw_app_meta_data, '{}')
                      || case when raw_app_meta_data ? 'provider' then '{}'::jsonb
                              else '{\"provider\": \"email\", \"providers\": [\"email\"]}' end
              where id = $1",
            &[&user, &email, &confirmed, &(word == Word::Owner)],
        )
        .await
        .map_err(|error| match error.code() {
            Some(code) if *code == SqlState::UNIQUE_VIOLATION => taken(),
            _ => AuthError::database("change the address")(error),
        })?;
    set_identity(client, user, email, confirmed).await
}

/// Sets the password and ends the user's sessions but `keep`. `None` takes the password away.
pub(crate) async fn set_hash(
    client: &impl GenericClient,
    user: Uuid,
    hash: Option<&str>,
    keep: Option<Uuid>,
) -> Result<(), AuthError> {
    let fault = AuthError::database("change the password");
    client
        .execute(
            "update auth.users set encrypted_password = $2, updated_at = now() where id = $1",
            &[&user, &hash],
        )
        .await
        .map_err(fault)?;
    client
        .execute(
            "delete from auth.sessions where user_id = $1 and id is distinct from $2",
            &[&user, &keep],
        )
        .await
        .map_err(fault)?;
    Ok(())
}

/// Which metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metadata {
    /// What the user may write himself: never to be trusted.
    User,
    /// What only the server writes.
    App,
}

/// Puts `changes` over the metadata; a null takes a key out.
pub(crate) async fn change_metadata(
    client: &impl GenericClient,
    user: Uuid,
    which: Metadata,
    changes: Map<String, Value>,
) -> Result<(), AuthError> {
    let column = match which {
        Metadata::User => "raw_user_meta_data",
        Metadata::App => "raw_app_meta_data",
    };
    check_metadata(&changes)?;
    let fault = AuthError::database("change the metadata");
    let (gone, set): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(_, value)| value.is_null());
    let gone: Vec<String> = gone.into_iter().map(|(key, _)| key).collect();
    let row = client
        .query_one(
            &format!(
                "update auth.users set {column} = (coalesce({column}, '{{}}') - $2::text[]) || $3, updated_at = now()
                  where id = $1 returning {column}"
            ),
            &[&user, &gone, &Value::Object(set.into_iter().collect())],
        )
        .await
        .map_err(fault)?;
    match row.get::<_, Value>(0) {
        // In the caller's transaction, which ends without effect.
        Value::Object(all) => check_metadata(&all),
        _ => Ok(()),
    }
}

/// Takes the address from a user who took it himself, and his sessions: what he has otherwise stays his.
async fn give_up_address(client: &impl GenericClient, user: Uuid) -> Result<(), AuthError> {
    let fault = AuthError::database("free the address");
    for sql in [
        "update auth.users set email = null, encrypted_password = null, updated_at = now() where id = $1",
        "delete from auth.identities where user_id = $1 and provider = 'email'",
        "delete from auth.sessions where user_id = $1",
    ] {
        client.execute(sql, &[&user]).await.map_err(fault)?;
    }
    Ok(())
}

/// Makes the user or sets the password of the one that is there; a new password ends all sessions. One who took the
/// address himself loses it to a new user: his tokens, which are good for a while yet, must not open what the new one
/// is let into.
pub(crate) async fn ensure(database: &Database, email: &str, password: &str) -> Result<Uuid, HubError> {
    let attempt = format!("set up the user {}", normal_email(email));
    let refuse = |error: AuthError| HubError::User {
        email: normal_email(email),
        reason: error.message,
    };
    let email = &valid_email(email).map_err(refuse)?;
    passwords::check_strength(password, super::PASSWORD_CHARS_MIN).map_err(refuse)?;
    let mut client = database.admin(&attempt).await?;
    let known = by_email(&client, email).await.map_err(refuse)?;
    if let Some(known) = &known
        && known.vouched
        && passwords::look(password.to_owned(), known.hash.clone())
            .await
            .map_err(refuse)?
            != Look::Wrong
    {
        return Ok(known.id);
    }
    let hash = passwords::hashed(password.to_owned()).await.map_err(refuse)?;
    let fault = |source| HubError::Database {
        attempt: attempt.clone(),
        source,
    };
    let transaction = client.transaction().await.map_err(fault)?;
    let id = match known {
        Some(known) if known.vouched => {
            set_hash(&transaction, known.id, Some(&hash), None)
                .await
                .map_err(refuse)?;
            set_email(&transaction, known.id, email, true, Word::Owner)
                .await
                .map_err(refuse)?;
            known.id
        }
        known => {
            if let Some(known) = known {
                give_up_address(&transaction, known.id).await.map_err(refuse)?;
            }
            let new = New {
                id: Uuid::new_v4(),
                email: Some(email.clone()),
                hash: Some(hash),
                confirmed: true,
                word: Word::Owner,
                role: "authenticated".to_owned(),
                data: Map::new(),
                app: Map::new(),
            };
            insert(&transaction, new).await.map_err(refuse)?.id
        }
    };
    transaction.commit().await.map_err(fault)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_what_gotrue_takes_for_one() {
        for good in [
            "a@b",
            " A.B+c@Example.COM ",
            "o'neil@x-y.example",
            "owner@localhost",
        ] {
            assert!(valid_email(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "@",
            "a@",
            "@b",
            "a@b@c",
            "xx:;x@x.x",
            "a b@c.d",
            "a@b..c",
            "a@-b.c",
            "a@b.c.",
            "a\0@b.c",
            "a@b_c.d",
            "ä@b.c",
        ] {
            assert!(valid_email(bad).is_err(), "{bad:?}");
        }
        assert!(valid_email(&format!("{}@b.c", "a".repeat(251))).is_err());
    }

    #[test]
    fn metadata_has_a_size_and_no_character_that_postgres_cannot_hold() {
        let map = |value: Value| value.as_object().cloned().unwrap();
        assert!(check_metadata(&map(json!({"a": ["\\u0000", {"b": 1}]}))).is_ok());
        for bad in [
            json!({"a": "\0"}),
            json!({"a": [[{"b\0": 1}]]}),
            json!({"\0": 1}),
            json!({"a": "x".repeat(METADATA_BYTES_MAX)}),
        ] {
            assert!(check_metadata(&map(bad.clone())).is_err(), "{bad}");
        }
    }
}

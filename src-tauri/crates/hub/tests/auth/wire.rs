//! What a client of Auth sends and gets.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{DEADLINE, TestHub};

pub const PASSWORD: &str = "correct horse";

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    /// Status and code, to be compared at once.
    pub fn fault(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or_default())
    }

    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }
}

/// An address of its own for each test.
pub fn address() -> String {
    format!("{}@example.com", Uuid::new_v4())
}

pub fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text: {value}"))
        .to_owned()
}

/// A request with the publishable key, as the new clients send it.
pub fn request(hub: &TestHub, method: Method, path: &str) -> reqwest::RequestBuilder {
    hub.http
        .request(method, format!("{}/auth/v1/{path}", hub.url))
        .header("apikey", &hub.publishable)
        .header("x-supabase-api-version", "2024-01-01")
}

/// What the hub says while it looks at as many passwords as it may.
const AT_ONCE: &str = "Too many sign-ins at once";
/// When it wants to be asked again: each time counts as a try.
const IN_A_MOMENT: Duration = Duration::from_secs(1);

/// For who counts sign-ins, and who makes so many of them at once that others are told to wait.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is answered; where it is that others sign in at this moment, asked again.
pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let began = Instant::now();
    loop {
        let answer = answer_at_once(request.try_clone().unwrap()).await;
        let is_busy = answer.body["message"]
            .as_str()
            .is_some_and(|message| message.starts_with(AT_ONCE));
        if !is_busy || began.elapsed() > DEADLINE {
            return answer;
        }
        tokio::time::sleep(IN_A_MOMENT).await;
    }
}

pub async fn answer_at_once(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer {
        status,
        headers,
        body,
    }
}

pub async fn post(hub: &TestHub, path: &str, body: Value) -> Answer {
    answer(request(hub, Method::POST, path).json(&body)).await
}

/// A request under a user's token.
pub async fn signed(hub: &TestHub, token: &Value, method: Method, path: &str, body: Option<Value>) -> Answer {
    let mut request = request(hub, method, path).bearer_auth(text(token));
    if let Some(body) = body {
        request = request.json(&body);
    }
    answer(request).await
}

/// A request with the secret key.
pub async fn admin(hub: &TestHub, method: Method, path: &str, body: Option<Value>) -> Answer {
    let mut request = hub
        .http
        .request(method, format!("{}/auth/v1/{path}", hub.url))
        .header("apikey", &hub.secret)
        .header("x-supabase-api-version", "2024-01-01")
        .bearer_auth(&hub.secret);
    if let Some(body) = body {
        request = request.json(&body);
    }
    answer(request).await
}

pub async fn sign_in(hub: &TestHub, email: &str, password: &str) -> Answer {
    answer(signing_in(hub, email, password)).await
}

pub fn signing_in(hub: &TestHub, email: &str, password: &str) -> reqwest::RequestBuilder {
    // `gotrue_meta_security` and `data` are what auth-js and supabase_auth send along.
    let body = json!({"email": email, "password": password, "gotrue_meta_security": {"captcha_token": null}, "data": {}});
    request(hub, Method::POST, "token?grant_type=password").json(&body)
}

pub async fn refresh(hub: &TestHub, token: &Value) -> Answer {
    post(
        hub,
        "token?grant_type=refresh_token",
        json!({"refresh_token": token}),
    )
    .await
}

pub async fn get_user(hub: &TestHub, token: &Value) -> Answer {
    signed(hub, token, Method::GET, "user", None).await
}

/// A user with [`PASSWORD`], made by the hub's owner.
pub async fn user(hub: &TestHub) -> (String, Uuid) {
    let email = address();
    let id = ensure_user(hub, &email, PASSWORD).await;
    (email, id)
}

/// A user as the hub's owner wants him.
pub async fn ensure_user(hub: &TestHub, email: &str, password: &str) -> Uuid {
    let began = Instant::now();
    loop {
        match hub.hub().ensure_user(email, password).await {
            Ok(id) => return id.0,
            Err(error) => assert!(
                error.to_string().contains(AT_ONCE) && began.elapsed() < DEADLINE,
                "{error}"
            ),
        }
        tokio::time::sleep(IN_A_MOMENT).await;
    }
}

/// A session of a new user.
pub async fn session(hub: &TestHub) -> (String, Value) {
    let (email, _) = user(hub).await;
    let session = sign_in(hub, &email, PASSWORD).await.ok();
    (email, session)
}

/// The claims of a token, unchecked.
pub fn claims(token: &Value) -> Value {
    part(token, 1)
}

/// The header of a token.
pub fn header(token: &Value) -> Value {
    part(token, 0)
}

fn part(token: &Value, at: usize) -> Value {
    use base64::Engine as _;
    let token = text(token);
    let part = token.split('.').nth(at).unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(part)
        .unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

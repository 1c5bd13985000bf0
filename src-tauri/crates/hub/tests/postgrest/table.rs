//! The tables and functions these tests work on, and a short way to ask for them.

use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::support::{DEADLINE, TestHub};

const SETUP: &str = include_str!("setup.sql");

/// Makes the tables once per hub and waits until they can be read.
pub async fn ready(hub: &TestHub) {
    let admin = hub.admin().await;
    admin
        .batch_execute("select pg_advisory_lock(7301)")
        .await
        .unwrap();
    let there = admin
        .query_one("select to_regclass('public.pt_users') is not null", &[])
        .await
        .unwrap();
    if !there.get::<_, bool>(0) {
        admin.batch_execute(SETUP).await.unwrap();
    }
    admin
        .batch_execute("select pg_advisory_unlock(7301)")
        .await
        .unwrap();
    until(
        || ask(hub, Method::OPTIONS, "rpc/pt_last"),
        |answered| answered.status == 200,
    )
    .await;
}

/// A request of somebody who has only the publishable key.
pub fn ask(hub: &TestHub, method: Method, path: &str) -> RequestBuilder {
    hub.request(&hub.anon(), method, &format!("/rest/v1/{path}"))
}

/// An answer: status, body (JSON, or text) and headers.
pub struct Answered {
    pub status: u16,
    pub body: Value,
    headers: reqwest::header::HeaderMap,
}

impl Answered {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn code(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or_default())
    }
}

pub async fn send(request: RequestBuilder) -> Answered {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    Answered {
        status,
        body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        headers,
    }
}

/// Asks until the answer is good: what was made, changed or dropped is seen a moment later.
pub async fn until(request: impl Fn() -> RequestBuilder, good: impl Fn(&Answered) -> bool) -> Answered {
    let began = Instant::now();
    loop {
        let answered = send(request()).await;
        if good(&answered) {
            return answered;
        }
        let (status, body) = (answered.status, answered.body);
        assert!(began.elapsed() < DEADLINE, "still {status} {body}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// GET, and its body, which must be a success.
pub async fn get(hub: &TestHub, path: &str) -> Value {
    let answered = send(ask(hub, Method::GET, path)).await;
    assert!(
        answered.status < 300,
        "{path}: {} {}",
        answered.status,
        answered.body
    );
    answered.body
}

/// GET that must fail: status and code.
pub async fn refused(hub: &TestHub, path: &str) -> (u16, String) {
    let answered = send(ask(hub, Method::GET, path)).await;
    let (status, code) = answered.code();
    (status, code.to_owned())
}

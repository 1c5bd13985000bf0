//! For tests: a small HTTP server that answers what a closure says and remembers what it was asked, and a clock that
//! is moved by hand.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use domain::{Clock, Timestamp};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::{Auth, MemoryTokenStore, Project, TokenStore, Tokens};

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub line: String,
    pub bearer: String,
    pub headers: Vec<(String, String)>,
    pub body: Value,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What is answered.
pub(crate) struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
    pub after: Option<Arc<tokio::sync::Notify>>,
}

pub(crate) fn answer(status: u16, body: impl ToString) -> Answer {
    Answer {
        status,
        headers: Vec::new(),
        body: body.to_string(),
        after: None,
    }
}

/// The server; ends when dropped.
pub(crate) struct Stub {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    tasks: JoinSet<()>,
}

impl Stub {
    pub(crate) async fn start(reply: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Stub {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let reply = Arc::new(reply);
        let log = asked.clone();
        let router = Router::new().fallback(move |request: Request| {
            let (reply, log) = (reply.clone(), log.clone());
            async move {
                let request = read(request).await;
                log.lock().expect("log").push(request.clone());
                let answer = reply(&request);
                if let Some(after) = answer.after {
                    after.notified().await;
                }
                let mut response =
                    Response::builder().status(StatusCode::from_u16(answer.status).expect("a status"));
                for (name, value) in answer.headers {
                    response = response.header(name, value);
                }
                response.body(Body::from(answer.body)).expect("a response")
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.expect("served") });
        Stub {
            address,
            asked,
            tasks,
        }
    }

    /// Ends the server; its port refuses connections when this returns.
    pub(crate) async fn shut(mut self) {
        self.tasks.shutdown().await;
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("log").clone()
    }

    /// How often a line containing `part` was asked.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.asked()
            .iter()
            .filter(|asked| asked.line.contains(part))
            .count()
    }

    pub(crate) fn project(&self) -> Project {
        Project::new(&format!("http://{}", self.address), "sb_publishable_test").expect("a project")
    }
}

async fn read(request: Request) -> Asked {
    let (parts, body) = request.into_parts();
    let headers: Vec<(String, String)> = parts
        .headers
        .iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect();
    let bearer = headers.iter().find(|(name, _)| name == "authorization");
    let bearer = bearer
        .map(|(_, value)| value.trim_start_matches("Bearer ").to_owned())
        .unwrap_or_default();
    let body = to_bytes(body, 1 << 20).await.expect("a body");
    Asked {
        line: format!("{} {}", parts.method, parts.uri),
        bearer,
        headers,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub(crate) struct HandClock(AtomicI64);

impl HandClock {
    pub(crate) fn at(ms: i64) -> Arc<HandClock> {
        Arc::new(HandClock(AtomicI64::new(ms)))
    }

    pub(crate) fn advance_s(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// A session answer, as GoTrue gives it.
pub(crate) fn session(number: u32) -> String {
    serde_json::json!({
        "access_token": format!("access.{number}"), "token_type": "bearer", "expires_in": 3600, "expires_at": 1,
        "refresh_token": format!("refresh{number}"),
        "user": {"id": USER, "aud": "authenticated", "role": "authenticated", "email": "a@b.c"}
    })
    .to_string()
}

pub(crate) const USER: &str = "6f6c3c1e-0000-4000-8000-000000000001";

/// A stored session that is good from now for an hour.
pub(crate) fn tokens(number: u32, now: Timestamp) -> Tokens {
    Tokens {
        access_token: format!("access.{number}"),
        refresh_token: format!("refresh{number}"),
        refresh_at: now.plus_ms(2_400_000),
        expires_at: now.plus_ms(3_600_000),
        user: USER.parse().expect("a uuid"),
        email: "a@b.c".to_owned(),
        project: String::new(),
    }
}

/// As [`tokens`], given by `project`.
pub(crate) fn tokens_of(project: &Project, number: u32, now: Timestamp) -> Tokens {
    Tokens {
        project: project.url.clone(),
        ..tokens(number, now)
    }
}

/// Signed in with session 1, against `stub`.
pub(crate) fn signed_in(stub: &Stub, clock: &Arc<HandClock>) -> (Auth, Arc<MemoryTokenStore>) {
    let store = Arc::new(MemoryTokenStore::with(tokens(1, clock.now())));
    let auth = Auth::new(
        stub.project(),
        clock.clone(),
        store.clone() as Arc<dyn TokenStore>,
    )
    .expect("a session");
    (auth, store)
}

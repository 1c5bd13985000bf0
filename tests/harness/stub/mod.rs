//! A stand-in for the Anthropic Messages API on loopback, for the real `claude` program.
//!
//! What it answers is chosen, in this order, by the test's own rule ([`Stub::reply_with`]), by the newest
//! `scn=NAME[:ARG]` in a prompt, by [`Stub::set_scenario`], else it says hello and ends with the marker that the
//! prompt asks for. Every request is kept ([`Stub::turns`]). The scenarios are in [`scenario`].

mod answer;
mod reply;
mod request;
mod scenario;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use reply::{Block, Failure, Gate, Reply};
pub use request::StubRequest;

use crate::wait::wait_for;

/// Largest request that is taken; a long session's is a few megabytes.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

type Rule = Box<dyn Fn(&StubRequest) -> Option<Reply> + Send + Sync>;

/// A running stub. It ends when it is dropped.
#[derive(Debug)]
pub struct Stub {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<StubRequest>>,
    scenario: Mutex<Option<String>>,
    rule: Mutex<Option<Rule>>,
    stop: CancellationToken,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Stub {
    /// Starts a stub on a free port.
    pub async fn start() -> anyhow::Result<Stub> {
        Stub::start_on(0).await
    }

    /// Starts a stub on `port`; 0 takes a free one.
    pub async fn start_on(port: u16) -> anyhow::Result<Stub> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .with_context(|| format!("binding the stub to port {port}"))?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            stop: stop.clone(),
            ..Shared::default()
        });
        let router = Router::new()
            .fallback(handle)
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(shared.clone());
        let tasks = TaskTracker::new();
        let ended = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                _ = axum::serve(listener, router) => {}
            }
        });
        tasks.close();
        Ok(Stub {
            address,
            shared,
            stop,
            tasks,
        })
    }

    /// What `ANTHROPIC_BASE_URL` has to be.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request for a message so far, side requests (titles) included, oldest first.
    pub fn requests(&self) -> Vec<StubRequest> {
        locked(&self.shared.requests).clone()
    }

    /// The requests that carry a conversation, oldest first. A turn with tools makes several.
    pub fn turns(&self) -> Vec<StubRequest> {
        let mut requests = self.requests();
        requests.retain(|request| !request.side);
        requests
    }

    /// Waits for a conversation request that `matches`; panics with `what` after `limit`.
    pub async fn turn_where(
        &self,
        what: &str,
        limit: Duration,
        matches: impl Fn(&StubRequest) -> bool,
    ) -> StubRequest {
        wait_for(what, limit, || {
            let found = self.turns().into_iter().find(|request| matches(request));
            async move { found }
        })
        .await
    }

    /// The scenario for prompts that name none, `NAME[:ARG]`; `None`: the default answer.
    pub fn set_scenario(&self, scenario: Option<&str>) {
        *locked(&self.shared.scenario) = scenario.map(str::to_owned);
    }

    /// Answers conversation requests by a rule of the test's own; where it gives `None`, the scenarios decide.
    pub fn reply_with(&self, rule: impl Fn(&StubRequest) -> Option<Reply> + Send + Sync + 'static) {
        *locked(&self.shared.rule) = Some(Box::new(rule));
    }

    /// Holds the answers to prompts with these words back until the gate is opened; they say then that it is done. Other
    /// prompts are answered as ever.
    pub fn hold(&self, words: &'static str) -> Gate {
        let gate = Gate::default();
        let held = gate.clone();
        self.reply_with(move |request| {
            let is_held = request.prompt().is_some_and(|said| said.contains(words));
            is_held.then(|| Reply::text("It is done now.\n\n[SEMO:DONE]").behind(&held))
        });
        gate
    }

    /// Cuts hanging answers off and waits until the port is free.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A test that panicked under the lock has failed anyway.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path();
    match (method, path) {
        (Method::HEAD, _) => StatusCode::OK.into_response(),
        (Method::GET, "/__requests") => requests_as_json(&shared),
        (Method::POST, "/__scenario") => {
            let scenario = serde_json::from_slice::<Value>(&body).unwrap_or_default();
            *locked(&shared.scenario) = scenario["scenario"].as_str().map(str::to_owned);
            axum::Json(json!({ "ok": true })).into_response()
        }
        (Method::POST, _) if path.ends_with("/count_tokens") => {
            axum::Json(json!({ "input_tokens": 1234 })).into_response()
        }
        (Method::POST, _) if path.ends_with("/messages") => message(&shared, path, &headers, &body).await,
        _ => answer::failure(&Failure::new(404, "not_found_error", "not part of the stub")),
    }
}

async fn message(shared: &Arc<Shared>, path: &str, headers: &HeaderMap, body: &[u8]) -> Response {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return answer::failure(&Failure::new(
            400,
            "invalid_request_error",
            "the body is not JSON",
        ));
    };
    let fallback = locked(&shared.scenario).clone();
    let (request, attempt) = {
        let mut requests = locked(&shared.requests);
        let request = StubRequest::new(requests.len(), path, headers, body, fallback);
        let same = |earlier: &&StubRequest| !earlier.side && earlier.scenario == request.scenario;
        let attempt = requests.iter().filter(same).count() + 1;
        requests.push(request.clone());
        (request, attempt)
    };
    let reply = if request.side {
        scenario::side(&request)
    } else {
        let own = locked(&shared.rule).as_ref().and_then(|rule| rule(&request));
        own.unwrap_or_else(|| scenario::reply(&request, attempt))
    };
    answer::response(&request, reply, shared.stop.clone()).await
}

/// For tests in other languages: what was asked, without the bulk.
fn requests_as_json(shared: &Shared) -> Response {
    let requests: Vec<Value> = locked(&shared.requests)
        .iter()
        .map(|request| {
            json!({
                "seq": request.seq, "side": request.side, "scenario": request.scenario,
                "session": request.session, "prompt": request.prompt(), "stream": request.stream,
            })
        })
        .collect();
    axum::Json(requests).into_response()
}

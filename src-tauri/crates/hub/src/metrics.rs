//! What the hub counts about itself, in the words of Prometheus: `GET /metrics` with the secret key as bearer token.
//!
//! Labels come from fixed lists only, so that nobody outside can make the registry grow. Counted in
//! [`crate::http`] and by Realtime; read by whoever watches the hub.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::http::{App, Shared};
use crate::identity;

/// Upper bounds of the buckets of a request's time, in seconds.
const SECONDS: [f64; 12] = [
    0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0,
];
/// How long the database may take to answer a hub that is ready.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How old an answer may be that readiness is told from.
const READY_AGE_MAX: Duration = Duration::from_secs(1);

/// Which protocol a request speaks, by the first part of its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Protocol {
    Rest,
    Auth,
    Realtime,
    Other,
}

impl Protocol {
    /// `/rest/v1/…` and so on.
    pub fn of(path: &str) -> Protocol {
        match path.split('/').nth(1) {
            Some("rest") => Protocol::Rest,
            Some("auth") => Protocol::Auth,
            Some("realtime") => Protocol::Realtime,
            _ => Protocol::Other,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    protocol: Protocol,
    /// First digit of the status, 1 to 5.
    class: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Spoken {
    protocol: Protocol,
}

/// All that is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    answers: Family<Answered, Counter>,
    seconds: Family<Spoken, Histogram, fn() -> Histogram>,
    connections_used: Gauge,
    connections_max: Gauge,
    /// Connections to the port, WebSockets not counted.
    pub connections: Gauge,
    /// Connections for which there was no place.
    pub connections_refused: Counter,
    /// WebSockets that are open.
    pub sockets: Gauge,
    /// Channels that are joined.
    pub channels: Gauge,
    /// Messages written to sockets.
    pub messages: Counter,
    /// Sockets that were closed because they did not read.
    pub sockets_cut_off: Counter,
    /// Joins that were refused.
    pub joins_refused: Counter,
    /// Times the way from the database to the sockets was lost and came back.
    pub feed_lost: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        let metrics = Metrics {
            registry: Registry::with_prefix("semo_hub"),
            answers: Family::default(),
            seconds: Family::new_with_constructor(histogram),
            connections_used: Gauge::default(),
            connections_max: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            sockets: Gauge::default(),
            channels: Gauge::default(),
            messages: Counter::default(),
            sockets_cut_off: Counter::default(),
            joins_refused: Counter::default(),
            feed_lost: Counter::default(),
        };
        metrics.registered()
    }
}

impl Metrics {
    fn registered(mut self) -> Metrics {
        let registry = &mut self.registry;
        registry.register(
            "answers",
            "Answers by protocol and class of status",
            self.answers.clone(),
        );
        registry.register(
            "answer_seconds",
            "Time from a request's head to its answer's head",
            self.seconds.clone(),
        );
        let gauges = [
            (
                "database_connections_used",
                "Connections that serve requests just now",
                &self.connections_used,
            ),
            (
                "database_connections_max",
                "Connections that may serve requests",
                &self.connections_max,
            ),
            (
                "connections",
                "Connections to the port, WebSockets not counted",
                &self.connections,
            ),
            ("sockets", "WebSockets that are open", &self.sockets),
            ("channels", "Channels that are joined", &self.channels),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        let counters = [
            (
                "connections_refused",
                "Connections for which there was no place",
                &self.connections_refused,
            ),
            ("messages", "Messages written to sockets", &self.messages),
            (
                "sockets_cut_off",
                "Sockets closed because they did not read",
                &self.sockets_cut_off,
            ),
            ("joins_refused", "Joins that were refused", &self.joins_refused),
            (
                "feed_lost",
                "Losses of the way from the database to the sockets",
                &self.feed_lost,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        self
    }

    /// Counts one answer.
    pub fn answered(&self, protocol: Protocol, status: StatusCode, took: Duration) {
        let class = status.as_u16() / 100;
        self.answers.get_or_create(&Answered { protocol, class }).inc();
        self.seconds
            .get_or_create(&Spoken { protocol })
            .observe(took.as_secs_f64());
    }

    fn text(&self, shared: &Shared) -> Result<String, std::fmt::Error> {
        let pool = shared.database.requests.status();
        self.connections_used
            .set(pool.size.saturating_sub(pool.available) as i64);
        self.connections_max.set(pool.max_size as i64);
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// `GET /metrics`, for the secret key only: how much a team works is nobody else's business.
pub(crate) async fn metrics(State(shared): App, headers: HeaderMap) -> Response {
    let key = identity::bearer(&headers).or_else(|| identity::text(&headers, "apikey"));
    let role = key.and_then(|key| identity::key_role(&shared.keys, key));
    if role != Some("service_role") {
        let how = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (
            StatusCode::UNAUTHORIZED,
            how,
            "the secret key is needed as bearer token\n",
        )
            .into_response();
    }
    match shared.metrics.text(&shared) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// What the database last answered, and when. Asked once for all who want to know: nobody needs a key for that.
#[derive(Debug, Default)]
pub(crate) struct Ready(tokio::sync::Mutex<Option<(tokio::time::Instant, bool)>>);

/// `GET /ready`: 200 when a request could be served now, 503 otherwise. Why is in the log: it says too much about the
/// hub for somebody without a key.
pub(crate) async fn ready(State(shared): App) -> Response {
    let mut last = shared.ready.0.lock().await;
    let is_ready = match *last {
        Some((at, is_ready)) if at.elapsed() < READY_AGE_MAX => is_ready,
        Some(_) | None => {
            let is_ready = match tokio::time::timeout(ANSWER_MAX, answers(&shared)).await {
                Ok(Ok(())) => true,
                Ok(Err(reason)) => {
                    tracing::warn!(reason, "the hub is not ready");
                    false
                }
                Err(_) => {
                    tracing::warn!("the hub is not ready: its database takes too long to answer");
                    false
                }
            };
            *last = Some((tokio::time::Instant::now(), is_ready));
            is_ready
        }
    };
    if is_ready {
        return axum::Json(serde_json::json!({"status": "ready"})).into_response();
    }
    let body = axum::Json(serde_json::json!({
        "status": "not ready", "reason": "the database does not answer; the hub's log says more",
    }));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

async fn answers(shared: &Arc<Shared>) -> Result<(), String> {
    let client = shared
        .database
        .requests
        .get()
        .await
        .map_err(|error| crate::db::pool_reason(&error))?;
    client
        .simple_query("select 1")
        .await
        .map_err(|error| crate::error::explained(&error))?;
    Ok(())
}

/// Measures one request.
pub(crate) struct Watch {
    protocol: Protocol,
    began: Instant,
}

impl Watch {
    /// Begins with the request's head.
    pub fn begin(path: &str) -> Watch {
        Watch {
            protocol: Protocol::of(path),
            began: Instant::now(),
        }
    }

    /// Ends with the answer's head.
    pub fn end(self, metrics: &Metrics, status: StatusCode) {
        metrics.answered(self.protocol, status, self.began.elapsed());
    }
}

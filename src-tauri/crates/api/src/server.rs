//! The HTTP server itself: binding, routes, the end.

use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use client::{Client, StopHow};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{self, Token};
use crate::{assets, events, hooks, rpc, terminal_stream};

/// Largest body of a method: a prompt of 64 KiB in JSON escapes, with room.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Largest body of a hook: a tool's whole output may be in it.
const HOOK_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why the local API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The port is taken or may not be used.
    #[error(
        "could not listen on 127.0.0.1:{port} for the local API; choose another with SEMO_API_PORT or setting api.port (0 takes a free one)"
    )]
    Bind {
        /// The port that was asked for.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
    /// Serving ended with an error.
    #[error("the local API stopped serving")]
    Serve {
        /// Why.
        source: std::io::Error,
    },
}

/// A bound port: known before the core starts, because hooks must be told where to go.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    port: u16,
}

impl Listener {
    /// Binds 127.0.0.1 on `port`; 0 takes a free one.
    pub async fn bind(port: u16) -> Result<Listener, ApiError> {
        let failed = |source| ApiError::Bind { port, source };
        let socket = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .await
            .map_err(failed)?;
        let port = socket.local_addr().map_err(failed)?.port();
        Ok(Listener { socket, port })
    }

    /// The port that was bound.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// What every handler may use.
#[derive(Clone)]
pub(crate) struct Shared {
    pub client: Client,
    pub token: Token,
    pub port: u16,
    /// The end of the core as somebody asks for it here; the program that holds the core sees to it.
    pub ask: watch::Sender<Option<StopHow>>,
    pub stop: CancellationToken,
    /// The windows that follow the state.
    pub windows: TaskTracker,
}

/// Serves until `stop` fires, the open requests are answered, and the windows know the last state. Whoever asks for the
/// end of the core is heard by the receivers of `ask`.
pub async fn serve(
    listener: Listener,
    client: Client,
    token: Token,
    ask: watch::Sender<Option<StopHow>>,
    stop: CancellationToken,
) -> Result<(), ApiError> {
    let shared = Shared {
        client,
        token,
        port: listener.port,
        ask,
        stop: stop.clone(),
        windows: TaskTracker::new(),
    };
    let windows = shared.windows.clone();
    axum::serve(listener.socket, routes(shared))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .map_err(|source| ApiError::Serve { source })?;
    windows.close();
    windows.wait().await;
    Ok(())
}

fn routes(shared: Shared) -> Router {
    let guarded = Router::new()
        .route("/api/v1/state", get(rpc::state))
        .route("/api/v1/events", get(events::open))
        .route("/api/v1/rpc/{method}", post(rpc::call))
        .route("/api/v1/stop", post(rpc::stop))
        .route("/api/v1/sessions/{id}/terminal", get(terminal_stream::open))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(shared.clone(), access::check_token));
    let open = Router::new().route("/api/v1/proof", get(access::prove));
    let hooks = Router::new()
        .route("/hooks/{session}", post(hooks::take))
        .layer(DefaultBodyLimit::max(HOOK_BYTES_MAX));
    guarded
        .merge(open)
        .merge(hooks)
        .fallback(get(assets::serve))
        .layer(from_fn_with_state(shared.clone(), access::check_place))
        .with_state(shared)
}

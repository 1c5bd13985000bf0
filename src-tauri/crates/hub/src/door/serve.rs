//! The loop that lets connections in, and one connection from its first byte to its last.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::paced::Paced;
use super::places::{Place, Places};
use super::{Certificate, DoorLimits, Opened};
use crate::metrics::Metrics;

/// Longest head of a request, in bytes, its address included.
const HEAD_BYTES_MAX: usize = 128 * 1024;
/// Pause after the system gave no connection for a reason of its own (no file descriptors, no memory).
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(500);

/// How serving ends.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    /// No further requests; what has begun is finished.
    pub stop: CancellationToken,
    /// What still runs is left.
    pub cut: CancellationToken,
}

/// What all connections share.
struct Serving {
    router: Router,
    tls: Option<Certificate>,
    limits: DoorLimits,
    ending: Ending,
}

impl Opened {
    /// Serves until [`Ending::stop`], finishes what has begun, and leaves it at [`Ending::cut`].
    pub async fn serve(self, router: Router, metrics: &Metrics, ending: Ending) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let places = Arc::new(Places::new(
            self.limits.clone(),
            metrics.connections.clone(),
            metrics.connections_refused.clone(),
        ));
        let serving = Arc::new(Serving {
            router,
            tls: self.tls,
            limits: self.limits,
            ending,
        });
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = serving.ending.stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    // Without a place it is closed at once, before anything is read.
                    if let Some(place) = places.take(peer.ip()) {
                        connections.spawn(attend(stream, peer, place, serving.clone()));
                    }
                }
                Err(error) if is_of_one_caller(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection can be taken");
                    tokio::select! {
                        () = serving.ending.stop.cancelled() => break,
                        () = sleep(EXHAUSTED_PAUSE) => {}
                    }
                }
            }
        }
        // The port is free for the next hub while this one finishes.
        drop(listener);
        connections.close();
        connections.wait().await;
        Ok(())
    }
}

/// A caller that went away before he was let in.
fn is_of_one_caller(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// One connection. `place` is given back when it ends, or when it has become a WebSocket.
async fn attend(stream: TcpStream, peer: SocketAddr, place: Place, serving: Arc<Serving>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let next_head = match place.is_crowded() {
        true => serving.limits.next_head_crowded,
        false => serving.limits.next_head,
    };
    match &serving.tls {
        None => converse(stream, peer, next_head, &serving).await,
        Some(certificate) => {
            let greeted = tokio::select! {
                () = serving.ending.stop.cancelled() => return,
                greeted = timeout(serving.limits.handshake, certificate.greet(stream)) => greeted,
            };
            match greeted {
                Ok(Ok(stream)) => converse(stream, peer, next_head, &serving).await,
                Ok(Err(error)) => tracing::debug!(%error, %peer, "a handshake failed"),
                Err(_) => tracing::debug!(%peer, "a handshake took too long"),
            }
        }
    }
    drop(place);
}

/// The requests of a connection, one after the other; no longer than `next_head` without one.
async fn converse<S>(stream: S, peer: SocketAddr, next_head: Duration, serving: &Serving)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Serving { limits, ending, .. } = serving;
    let spoken = CancellationToken::new();
    let service = {
        let (spoken, router) = (spoken.clone(), serving.router.clone());
        service_fn(move |mut request: Request<Incoming>| {
            spoken.cancel();
            request.extensions_mut().insert(ConnectInfo(peer));
            TowerToHyperService::new(router.clone()).call(request)
        })
    };
    let stream = TokioIo::new(Paced::new(stream, limits.step));
    // Who hangs up while his request is served ends it: without `half_close` the end of his side is the end.
    let connection = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(next_head)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(stream, service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut unheard = pin!(async {
        if timeout(limits.first_head, spoken.cancelled()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    });
    let mut is_ending = false;
    loop {
        tokio::select! {
            // First, so that a head that has come is read before the rest is looked at.
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, %peer, "a connection ended");
                }
                return;
            }
            () = ending.cut.cancelled() => return,
            () = ending.stop.cancelled(), if !is_ending => {
                if !spoken.is_cancelled() {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                is_ending = true;
            }
            () = unheard.as_mut() => {
                tracing::debug!(%peer, "no request came");
                return;
            }
        }
    }
}

//! From an HTTP request to a WebSocket whose bytes are counted as they come in.
//!
//! A message is kept from its first byte on, long before it is one: so it is [`Counted`] there, and who sends more than
//! his network has room for is read no further. Called by `routes`; read and written by `socket`.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::places::Place;

/// How much longer than the largest payload a frame may be, in bytes: so that what is a little too large can still be
/// answered.
const FRAME_BYTES_MORE: usize = 256 * 1024;
/// What is read at a time, and kept for reading while nothing comes; most messages are small.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// What may wait in the socket itself to be written.
const WRITE_BUFFER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What is thrown away at a time.
const DISCARDED_BYTES: usize = 16 * 1024;

/// A client's WebSocket.
pub(super) type Wire = WebSocketStream<Counted<TokioIo<Upgraded>>>;

/// A request that may become a WebSocket.
pub(super) struct Handshake {
    response: Response,
    upgrade: OnUpgrade,
}

impl Handshake {
    /// Reads the request; where it is none, a status and what is wrong with it.
    pub fn of(mut request: Request) -> Result<Handshake, (StatusCode, String)> {
        let response = create_response_with_body(&request, Body::empty)
            .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
        // Not there where a proxy speaks a version of HTTP that has no upgrades.
        if request.extensions().get::<OnUpgrade>().is_none() {
            let text = "the connection cannot become a WebSocket";
            return Err((StatusCode::UPGRADE_REQUIRED, text.to_owned()));
        }
        Ok(Handshake {
            response,
            upgrade: hyper::upgrade::on(&mut request),
        })
    }

    /// The answer that makes the connection a WebSocket, and what waits until it is one. `payload_bytes_max`: of the
    /// largest message that is not refused.
    pub fn split(
        self,
        place: Arc<Place>,
        payload_bytes_max: usize,
    ) -> (Response, impl Future<Output = hyper::Result<Wire>> + Send) {
        let most = Some(payload_bytes_max.saturating_add(FRAME_BYTES_MORE));
        let config = WebSocketConfig::default()
            .max_frame_size(most)
            .max_message_size(most)
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX);
        let upgrade = self.upgrade;
        let wire = async move {
            let stream = Counted {
                inner: TokioIo::new(upgrade.await?),
                place,
            };
            Ok(WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await)
        };
        (self.response, wire)
    }
}

/// Why a socket cannot be read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// A message is larger than any may be.
    TooLarge,
    /// There is no room for the message.
    NoRoom,
    /// The connection, or what came by it.
    Off,
}

impl Broken {
    pub fn of(error: &Error) -> Broken {
        match error {
            Error::Capacity(_) => Broken::TooLarge,
            Error::Io(error) if error.kind() == io::ErrorKind::QuotaExceeded => Broken::NoRoom,
            _ => Broken::Off,
        }
    }
}

/// A connection whose bytes count for its place as they come in. What the head of a message announces counts for nothing:
/// room that nothing is written to takes no memory.
pub(super) struct Counted<S> {
    inner: S,
    place: Arc<Place>,
}

impl<S: AsyncRead + Unpin> Counted<S> {
    /// Reads to the end and keeps nothing.
    pub async fn discard(&mut self) {
        let mut part = vec![0; DISCARDED_BYTES];
        while self.inner.read(&mut part).await.is_ok_and(|read| read > 0) {}
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let came = buffer.filled().len().saturating_sub(before);
        Poll::Ready(match self.place.came(came) {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "there is no room for what comes",
            )),
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

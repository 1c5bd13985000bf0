//! Opening the socket: address, TCP (through a proxy where the system has one), TLS, upgrade, all within a limit, and
//! what a refusal says.
//!
//! Called by [`super::supervisor`]. The bytes come through [`Dial`], so that tests need no network.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use reqwest::Url;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, http};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use super::tunnel::{self, Proxies};
use crate::project::{Project, is_page};

/// Longest wait for the open socket: name, TCP, TLS and upgrade together.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest message that is read: a row of 1 MiB in JSON and room to spare.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Eagerly allocated by the library; doorbells are small.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// Longest `Retry-After` that is believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// A boxed future, as trait objects need it.
pub(super) type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A stream of bytes both ways.
pub(super) trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Bytes for S {}

/// The open socket.
pub(super) type Socket = WebSocketStream<MaybeTlsStream<Box<dyn Bytes>>>;

/// Where the bytes come from.
pub(super) trait Dial: Send + Sync {
    /// A connection to the host of `url` (`ws` or `wss`), before its TLS.
    fn dial<'a>(&'a self, url: &'a Url) -> Later<'a, Result<Box<dyn Bytes>, OpenError>>;
}

/// The network.
pub(super) struct Tcp {
    proxies: Proxies,
}

impl Tcp {
    /// With the proxies that REST takes, too: those of the environment or the system, none for this machine.
    pub(super) fn for_project(project: &Project) -> Tcp {
        let proxies = if project.is_loopback() {
            Proxies::None
        } else {
            Proxies::OfSystem
        };
        Tcp { proxies }
    }

    #[cfg(test)]
    pub(super) fn with(proxies: Proxies) -> Tcp {
        Tcp { proxies }
    }
}

impl Dial for Tcp {
    fn dial<'a>(&'a self, url: &'a Url) -> Later<'a, Result<Box<dyn Bytes>, OpenError>> {
        Box::pin(async move {
            let (host, port) = host_and_port(url);
            match self.proxies.for_target(url) {
                Some(proxy) => tunnel::open(&proxy, &host, port).await,
                None => Ok(Box::new(connect(&host, port).await?) as Box<dyn Bytes>),
            }
        })
    }
}

/// A TCP connection; the error names the address.
pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, OpenError> {
    let failed = |error: std::io::Error| OpenError::Failed {
        why: format!("{host}:{port}: {error}"),
    };
    let stream = TcpStream::connect((host, port)).await.map_err(failed)?;
    // A doorbell's answer must not wait for a full segment.
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

/// Without the brackets of an IPv6 address; the scheme's port where none is named.
pub(super) fn host_and_port(url: &Url) -> (String, u16) {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let usual = if matches!(url.scheme(), "wss" | "https") {
        443
    } else {
        80
    };
    (host.to_owned(), url.port().unwrap_or(usual))
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// The server answered the upgrade with an HTTP status.
    #[error("the realtime service refused the connection with {status}{}", text_suffix(.text))]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words; may be empty.
        text: String,
        /// How long it asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// Something between us and the office answered in its place.
    #[error(
        "not the office but something in between answered ({page}): a sign-in page of this network? Open a browser and sign in there"
    )]
    Captive {
        /// What came.
        page: String,
    },
    /// The proxy of this machine does not let us through.
    #[error("the proxy {proxy} does not let this program through to the realtime service: {why}")]
    ProxyRefused {
        /// Its address, without name and password.
        proxy: String,
        /// Its words, and what to do.
        why: String,
    },
    /// No connection.
    #[error("no connection to the realtime service: {why}")]
    Failed {
        /// Why.
        why: String,
    },
    /// Not open within [`CONNECT_TIMEOUT`].
    #[error("the realtime service did not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    Late,
}

fn text_suffix(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(" ({text})")
    }
}

/// Opens the socket of `project`. The publishable key goes in the URL, the user's token never does.
pub(super) async fn open(project: &Project, dial: &dyn Dial) -> Result<Socket, OpenError> {
    tokio::time::timeout(CONNECT_TIMEOUT, open_unlimited(project, dial))
        .await
        .unwrap_or(Err(OpenError::Late))
}

async fn open_unlimited(project: &Project, dial: &dyn Dial) -> Result<Socket, OpenError> {
    let failed = |why: String| OpenError::Failed { why };
    let url = socket_url(project).map_err(failed)?;
    let (host, port) = host_and_port(&url);
    let request = url
        .as_str()
        .into_client_request()
        .map_err(|error| failed(error.to_string()))?;
    let stream = dial.dial(&url).await?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        // Every frame goes out at once: nothing here is sent in bulk.
        .write_buffer_size(0)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    match client_async_tls_with_config(request, stream, Some(config), None).await {
        Ok((socket, _)) => Ok(socket),
        Err(WsError::Http(response)) => Err(refused(&response)),
        Err(error @ WsError::Tls(_)) => Err(failed(format!(
            "{host}:{port}: {error} (a sign-in page of this network, a certificate of the company, a wrong clock?)"
        ))),
        Err(error) => Err(failed(format!("{host}:{port}: {error}"))),
    }
}

fn socket_url(project: &Project) -> Result<Url, String> {
    let text = project.join("/realtime/v1/websocket");
    // http → ws, https → wss; done on the text, because `Url` refuses to change between these schemes.
    let text = format!(
        "ws{}",
        text.strip_prefix("http").ok_or("the project URL is not http")?
    );
    let mut url = Url::parse(&text).map_err(|error| error.to_string())?;
    url.query_pairs_mut()
        .append_pair("apikey", &project.publishable_key)
        .append_pair("vsn", "2.0.0");
    Ok(url)
}

fn refused(response: &Response) -> OpenError {
    let body = response.body().as_deref().unwrap_or_default();
    let status = response.status().as_u16();
    let content_type = response
        .headers()
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let page = is_page(content_type, body);
    // The office answers an upgrade with 101 or with an error, never with success or another address.
    if matches!(status, 200..=399 | 511) {
        let what = if page { ", a web page" } else { "" };
        return OpenError::Captive {
            page: format!("{status}{what}"),
        };
    }
    let text = match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(fields) => ["error", "message"]
            .iter()
            .find_map(|name| fields[*name].as_str())
            .unwrap_or_default()
            .to_owned(),
        Err(_) if page => "a web page, not the office's own words".to_owned(),
        Err(_) => String::from_utf8_lossy(body).trim().chars().take(200).collect(),
    };
    let retry_after = response
        .headers()
        .get(http::header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.trim().parse().ok())
        .map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    OpenError::Refused {
        status,
        text,
        retry_after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_carries_the_key_and_the_version_and_keeps_a_prefix() {
        for (base, expected) in [
            (
                "http://127.0.0.1:54321",
                "ws://127.0.0.1:54321/realtime/v1/websocket?apikey=a%26b&vsn=2.0.0",
            ),
            (
                "https://x.supabase.co",
                "wss://x.supabase.co/realtime/v1/websocket?apikey=a%26b&vsn=2.0.0",
            ),
            (
                "https://x.example/base",
                "wss://x.example/base/realtime/v1/websocket?apikey=a%26b&vsn=2.0.0",
            ),
        ] {
            let project = Project::new(base, "a&b").expect("a project");
            assert_eq!(socket_url(&project).expect("a URL").as_str(), expected);
        }
    }
}

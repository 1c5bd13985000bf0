//! Opening the socket: address, TCP (through a proxy where the system has one), TLS, upgrade, all within a limit, and
//! what a refusal says.
//!
//! Called by [`super::supervisor`]. The bytes come through [`Dial`], so that tests need no network.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use reqwest::Url;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, http};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::head::WholeHead;
use super::reach::connect;
use super::tunnel::{self, Proxies};
use crate::project::{Project, is_page};

/// Longest wait for the open socket: name, TCP, TLS and upgrade together; longer on a line that needs it.
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
pub(super) type Socket = WebSocketStream<WholeHead<Box<dyn Bytes>>>;

/// Where the bytes come from.
pub(super) trait Dial: Send + Sync {
    /// A connection to the host of `url` (`ws` or `wss`), before its TLS. `within`: what the whole opening may take.
    fn dial<'a>(&'a self, url: &'a Url, within: Duration) -> Later<'a, Result<Box<dyn Bytes>, OpenError>>;
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
    fn dial<'a>(&'a self, url: &'a Url, within: Duration) -> Later<'a, Result<Box<dyn Bytes>, OpenError>> {
        Box::pin(async move {
            let (host, port) = host_and_port(url);
            match self.proxies.for_target(url) {
                Some(proxy) => tunnel::open(&proxy, &host, port, within).await,
                None => Ok(Box::new(connect(&host, port).await?) as Box<dyn Bytes>),
            }
        })
    }
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
    /// The proxy of this machine did not answer in time.
    #[error("no connection to the realtime service: the proxy {proxy} did not answer within {} s", within.as_secs())]
    ProxyLate {
        /// Its address, without name and password.
        proxy: String,
        /// How long it was waited for.
        within: Duration,
    },
    /// No connection.
    #[error("no connection to the realtime service: {why}")]
    Failed {
        /// Why.
        why: String,
    },
    /// Not open in time.
    #[error("the realtime service did not answer within {} s", within.as_secs())]
    Late {
        /// How long it was waited for.
        within: Duration,
    },
}

fn text_suffix(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(" ({text})")
    }
}

/// Opens the socket of `project`. The publishable key goes in the URL, the user's token never does. Limits itself only
/// where it speaks to a proxy: whoever calls waits no longer than it wants to.
pub(super) async fn open(project: &Project, dial: &dyn Dial, within: Duration) -> Result<Socket, OpenError> {
    let failed = |why: String| OpenError::Failed { why };
    let url = socket_url(project).map_err(failed)?;
    let (host, port) = host_and_port(&url);
    let request = url
        .as_str()
        .into_client_request()
        .map_err(|error| failed(error.to_string()))?;
    let stream = dial.dial(&url, within).await?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        // Every frame goes out at once: nothing here is sent in bulk.
        .write_buffer_size(0)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let stream = if url.scheme() == "wss" {
        encrypted(&host, stream).await.map_err(|error| {
            failed(format!(
                "{host}:{port}: {error} (a sign-in page of this network, a certificate of the company, a wrong clock?)"
            ))
        })?
    } else {
        stream
    };
    match client_async_with_config(request, WholeHead::new(stream), Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        Err(WsError::Http(response)) => Err(refused(&response)),
        Err(error) => Err(failed(format!("{host}:{port}: {error}"))),
    }
}

/// TLS to `host` over `stream`, by the system's trust store.
pub(super) async fn encrypted(
    host: &str,
    stream: impl Bytes + 'static,
) -> Result<Box<dyn Bytes>, native_tls::Error> {
    let connector = tokio_native_tls::TlsConnector::from(native_tls::TlsConnector::new()?);
    Ok(Box::new(connector.connect(host, stream).await?))
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

    /// A wire that lets one byte through at a time.
    struct Crumbs(std::sync::Mutex<Option<tokio::io::DuplexStream>>);

    impl Dial for Crumbs {
        fn dial<'a>(&'a self, _: &'a Url, _: Duration) -> Later<'a, Result<Box<dyn Bytes>, OpenError>> {
            let stream = self.0.lock().expect("wire").take().expect("dialed once");
            Box::pin(async move { Ok(Box::new(stream) as Box<dyn Bytes>) })
        }
    }

    #[tokio::test]
    async fn an_upgrade_that_comes_byte_by_byte_is_an_upgrade() {
        let (ours, theirs) = tokio::io::duplex(1);
        let dial = Crumbs(std::sync::Mutex::new(Some(ours)));
        let project = Project::new("http://127.0.0.1:1", "k").expect("a project");
        let opening = open(&project, &dial, CONNECT_TIMEOUT);
        // Of a server that lets itself be crumbled: the library's own takes crumbs for an attack, too.
        let serving = async {
            let mut theirs = crate::realtime::head::WholeHead::new(theirs);
            tokio_tungstenite::accept_async(&mut theirs)
                .await
                .map(drop)
                .expect("an upgrade");
        };
        let (opened, ()) = tokio::join!(opening, serving);
        opened.expect("open");
    }

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

//! Through the proxy of this machine: which one, and the `CONNECT` that opens the way.
//!
//! The choice is that of the HTTP client ([`crate::project`]): `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`,
//! or the system's settings. Looked up anew for each connection, since a workstation moves between networks. Called by
//! [`super::dial`].

use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::http::Uri;

use super::dial::{self, Bytes, OpenError};
use super::reach::connect;

/// Longest answer of a proxy that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Of the time for the whole opening, what a proxy's answer may take: so that it is the proxy that is named.
const ANSWER_PART: f64 = 0.8;

/// Where proxies are looked for.
pub(super) enum Proxies {
    /// Nowhere.
    None,
    /// In the environment and the system's settings.
    OfSystem,
    /// In these rules.
    #[cfg(test)]
    Fixed(Box<Matcher>),
}

/// One proxy.
#[derive(Clone)]
pub(super) struct Proxy {
    /// `http`, `https` …
    scheme: String,
    host: String,
    port: u16,
    /// Value of `Proxy-Authorization`; never shown.
    authorization: Option<String>,
}

impl Proxy {
    /// For people: without name and password.
    fn shown(&self) -> String {
        format!("{}://{}:{}", self.scheme, self.host, self.port)
    }
}

impl Proxies {
    /// The proxy on the way to `url` (`ws` or `wss`).
    pub(super) fn for_target(&self, url: &Url) -> Option<Proxy> {
        let system;
        let rules = match self {
            Proxies::None => return None,
            Proxies::OfSystem => {
                system = Matcher::from_system();
                &system
            }
            #[cfg(test)]
            Proxies::Fixed(rules) => &**rules,
        };
        // The rules know the schemes of HTTP.
        let host = url.host_str()?;
        let (scheme, usual) = if url.scheme() == "wss" {
            ("https", 443)
        } else {
            ("http", 80)
        };
        let target: Uri = format!("{scheme}://{host}:{}/", url.port().unwrap_or(usual))
            .parse()
            .ok()?;
        let found = rules.intercept(&target)?;
        let uri = found.uri();
        let scheme = uri.scheme_str().unwrap_or("http").to_owned();
        let usual = if scheme == "https" { 443 } else { 80 };
        Some(Proxy {
            host: uri.host()?.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(usual),
            authorization: found
                .basic_auth()
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
            scheme,
        })
    }
}

/// A way through `proxy` to `host` at `port`. `within`: what the whole opening of the connection may take.
pub(super) async fn open(
    proxy: &Proxy,
    host: &str,
    port: u16,
    within: Duration,
) -> Result<Box<dyn Bytes>, OpenError> {
    let stream = match proxy.scheme.as_str() {
        "http" => Box::new(
            connect(&proxy.host, proxy.port)
                .await
                .map_err(|error| away(proxy, &error))?,
        ) as Box<dyn Bytes>,
        "https" => encrypted(proxy).await?,
        other => {
            return Err(refused(
                proxy,
                format!("{other} proxies cannot be used; set HTTPS_PROXY to an http:// or https:// one"),
            ));
        }
    };
    let within = within.mul_f64(ANSWER_PART);
    match tokio::time::timeout(within, ask(proxy, stream, host, port)).await {
        Ok(answer) => answer,
        Err(_) => Err(OpenError::ProxyLate {
            proxy: proxy.shown(),
            within,
        }),
    }
}

fn refused(proxy: &Proxy, why: String) -> OpenError {
    OpenError::ProxyRefused {
        proxy: proxy.shown(),
        why,
    }
}

fn away(proxy: &Proxy, error: &impl std::fmt::Display) -> OpenError {
    OpenError::Failed {
        why: format!(
            "the proxy {} cannot be reached: {error}; is HTTPS_PROXY right?",
            proxy.shown()
        ),
    }
}

async fn encrypted(proxy: &Proxy) -> Result<Box<dyn Bytes>, OpenError> {
    let stream = connect(&proxy.host, proxy.port)
        .await
        .map_err(|error| away(proxy, &error))?;
    dial::encrypted(&proxy.host, stream)
        .await
        .map_err(|error| away(proxy, &error))
}

async fn ask(
    proxy: &Proxy,
    mut stream: Box<dyn Bytes>,
    host: &str,
    port: u16,
) -> Result<Box<dyn Bytes>, OpenError> {
    let target = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let mut request = format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: semo-office/{}\r\n",
        env!("CARGO_PKG_VERSION")
    );
    if let Some(authorization) = &proxy.authorization {
        request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
    }
    request.push_str("\r\n");
    let broke = |error: std::io::Error| away(proxy, &error);
    stream.write_all(request.as_bytes()).await.map_err(broke)?;
    stream.flush().await.map_err(broke)?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the empty line belongs to the office.
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.map_err(broke)?);
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(refused(proxy, "its answer is no HTTP".to_owned()));
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let line = text.lines().next().unwrap_or_default().to_owned();
    let status: u16 = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_default();
    match status {
        200..=299 => Ok(stream),
        407 => Err(refused(
            proxy,
            "it wants a name and a password (407); put them into HTTPS_PROXY as http://name:password@host:port"
                .to_owned(),
        )),
        // It would let us through, but does not get there.
        429 | 500..=599 => Err(OpenError::Failed {
            why: format!("the proxy {} cannot reach the office: {line}", proxy.shown()),
        }),
        _ => Err(refused(
            proxy,
            format!("it answered {line:?}; ask whoever runs it to allow CONNECT to {target}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;
    use tokio_util::task::TaskTracker;

    use super::super::dial::Tcp;
    use super::*;
    use crate::project::Project;

    const PROJECT: &str = "http://office.example:8000";

    fn rules(all: &str, no: &str) -> Proxies {
        Proxies::Fixed(Box::new(Matcher::builder().all(all).no(no).build()))
    }

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a URL")
    }

    /// A proxy that answers once with `answer` and then is the office for as long as it is spoken to.
    async fn proxy_that_says(answer: &'static str) -> (String, Arc<Mutex<String>>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let asked: Arc<Mutex<String>> = Arc::default();
        let log = asked.clone();
        let task = TaskTracker::new().spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a call");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.expect("a request"));
            }
            *log.lock().expect("log") = String::from_utf8(request).expect("text");
            stream.write_all(answer.as_bytes()).await.expect("answered");
            if answer.starts_with("HTTP/1.1 200") {
                tokio_tungstenite::accept_async(stream)
                    .await
                    .expect("an upgrade through the tunnel");
            }
        });
        (address, asked, task)
    }

    async fn open_through(proxy: &str) -> Result<(), OpenError> {
        let project = Project::new(PROJECT, "sb_publishable_test").expect("a project");
        let dial = Tcp::with(rules(proxy, ""));
        dial::open(&project, &dial, dial::CONNECT_TIMEOUT)
            .await
            .map(|_| ())
    }

    #[tokio::test]
    async fn the_socket_is_opened_through_the_proxy_with_its_name_and_password() {
        let (address, asked, task) = proxy_that_says("HTTP/1.1 200 Connection established\r\n\r\n").await;
        open_through(&format!("http://me:secret@{address}"))
            .await
            .expect("open");
        task.await.expect("served");
        let asked = asked.lock().expect("log").clone();
        assert!(
            asked.starts_with("CONNECT office.example:8000 HTTP/1.1\r\n"),
            "{asked}"
        );
        assert!(
            asked.contains("Proxy-Authorization: Basic bWU6c2VjcmV0\r\n"),
            "{asked}"
        );
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_is_named_with_what_to_do_and_without_its_password() {
        for (answer, part, is_refusal) in [
            (
                "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
                "name and a password",
                true,
            ),
            (
                "HTTP/1.1 403 Forbidden\r\n\r\n",
                "allow CONNECT to office.example:8000",
                true,
            ),
            (
                "HTTP/1.1 502 Bad Gateway\r\n\r\n",
                "cannot reach the office",
                false,
            ),
            (
                "HTTP/1.1 302 Found\r\nLocation: http://login/\r\n\r\n",
                "302",
                true,
            ),
        ] {
            let (address, _, task) = proxy_that_says(answer).await;
            let error = open_through(&format!("http://me:secret@{address}"))
                .await
                .expect_err("refused");
            task.await.expect("served");
            let words = error.to_string();
            assert!(words.contains(&address) && words.contains(part), "{words}");
            assert!(!words.contains("secret"), "{words}");
            assert_eq!(
                matches!(error, OpenError::ProxyRefused { .. }),
                is_refusal,
                "{words}"
            );
        }
    }

    #[tokio::test]
    async fn a_proxy_that_is_not_there_or_of_another_kind_is_told_as_such() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        drop(listener);
        let error = open_through(&format!("http://{address}"))
            .await
            .expect_err("nobody there");
        assert!(error.to_string().contains("cannot be reached"), "{error}");
        let error = open_through(&format!("socks5://{address}"))
            .await
            .expect_err("SOCKS");
        assert!(
            error.to_string().contains("socks5 proxies cannot be used"),
            "{error}"
        );
    }

    #[test]
    fn what_is_not_to_go_through_the_proxy_does_not() {
        let rules = rules("http://proxy:3128", "office.example, 10.0.0.0/8");
        assert!(rules.for_target(&url("wss://office.example/x")).is_none());
        assert!(rules.for_target(&url("ws://10.1.2.3:5/x")).is_none());
        let proxy = rules
            .for_target(&url("wss://abc.supabase.co/x"))
            .expect("a proxy");
        assert_eq!(proxy.shown(), "http://proxy:3128");
        assert!(
            Proxies::None
                .for_target(&url("wss://abc.supabase.co/x"))
                .is_none()
        );
    }
}

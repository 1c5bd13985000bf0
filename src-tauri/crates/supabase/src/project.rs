//! Which Supabase project (or hub) is spoken to, and the one way in which HTTP is spoken to it.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use tokio::time::timeout;
use uuid::Uuid;

use crate::key;

/// Longest wait for a TCP and TLS connection: four round trips and a chain of certificates over a line of the slowest
/// kind.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait for an answer to begin, connecting included, beside the time that the request's own bytes need. A limit
/// for all of it would cut a large report on a slow line each time, and send it from its beginning for ever.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for the next piece of an answer's body.
const PIECE_TIMEOUT: Duration = Duration::from_secs(20);
/// The slowest line on which requests get through.
const SLOWEST_BYTES_PER_S: u64 = 2 * 1024;
/// Longest request and answer together, whatever the progress.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Idle connections are closed before a proxy or a sleeping machine makes half-open ones of them.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often an idle connection is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Largest answer that is read; a row is at most 1 MiB, and lists here are of at most 50 rows of that size.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest key or URL that is accepted: both travel in headers and request lines.
const FIELD_BYTES_MAX: usize = 4096;
/// Characters of the host, and of what tells its addresses apart, in the name of a project's files.
const FILE_HOST_CHARS_MAX: usize = 80;
const FILE_TAG_CHARS: usize = 12;

/// Address and publishable key of a Supabase project or a hub.
#[derive(Clone, PartialEq, Eq)]
pub struct Project {
    /// Base URL as [`Project::address`] writes it, without trailing slash: `https://abc.supabase.co`,
    /// `http://127.0.0.1:54321`.
    pub url: String,
    /// The publishable (or legacy anon) key. Never a secret key: it travels in URLs.
    pub publishable_key: String,
}

impl std::fmt::Debug for Project {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Project")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// Why a project's settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProjectError {
    /// The URL is not usable.
    #[error("the project URL {url:?} cannot be used: {why}; it looks like https://<ref>.supabase.co")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// What is sent there can be read.
    #[error(
        "{url} is not encrypted: everybody on the way could read the password; use the address that begins with https://"
    )]
    OpenWay {
        /// The project's.
        url: String,
    },
    /// The key is not usable.
    #[error(
        "the publishable key cannot be used: {why}; copy it from the project's API settings (it starts with sb_publishable_)"
    )]
    Key {
        /// What is wrong with it.
        why: String,
    },
}

impl Project {
    /// Checks and trims. `url`: see [`Project::address`]; `key` must not be a secret key.
    pub fn new(url: &str, publishable_key: &str) -> Result<Project, ProjectError> {
        let url = Project::address(url)?;
        let key = publishable_key.trim();
        let bad_key = |why: &str| ProjectError::Key { why: why.to_owned() };
        if key.is_empty() {
            return Err(bad_key("it is empty"));
        }
        if key.len() > FIELD_BYTES_MAX || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad_key("it holds characters that no key has"));
        }
        if key::is_secret(key) {
            return Err(bad_key(
                "it is a secret key, which must never be on a workstation",
            ));
        }
        Ok(Project {
            url,
            publishable_key: key.to_owned(),
        })
    }

    /// A project's address in the one spelling in which it is kept and compared, however it was typed. It is `http` or
    /// `https`, without query or fragment.
    pub fn address(url: &str) -> Result<String, ProjectError> {
        let bad_url = |why: &str| ProjectError::Url {
            url: url.to_owned(),
            why: why.to_owned(),
        };
        let trimmed = url.trim().trim_end_matches('/');
        if trimmed.len() > FIELD_BYTES_MAX {
            return Err(bad_url("it is too long"));
        }
        let parsed = reqwest::Url::parse(trimmed).map_err(|error| bad_url(&error.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(bad_url("it must begin with http:// or https://"));
        }
        if parsed.host_str().is_none_or(str::is_empty) {
            return Err(bad_url("it names no host"));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(bad_url("it must not have a query or a fragment"));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(bad_url("it must not carry a user name or password"));
        }
        Ok(parsed.as_str().trim_end_matches('/').to_owned())
    }

    /// The project's URL with `path` (beginning with `/`) behind it.
    pub(crate) fn join(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Is it this machine? Then no proxy may come between.
    pub fn is_loopback(&self) -> bool {
        let Ok(url) = reqwest::Url::parse(&self.url) else {
            return false;
        };
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// An error when everybody on the way could read what is sent there: no password goes there.
    pub fn refuse_open_way(&self) -> Result<(), ProjectError> {
        if self.url.starts_with("https://") || self.is_loopback() {
            return Ok(());
        }
        Err(ProjectError::OpenWay {
            url: self.url.clone(),
        })
    }

    /// A name for files that are this project's alone: the host, for people, and what tells it from others there.
    pub fn file_name(&self) -> String {
        let url = reqwest::Url::parse(&self.url).ok();
        let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or_default();
        let shown: String = host
            .chars()
            .map(|one| {
                if one.is_ascii_alphanumeric() || one == '.' {
                    one
                } else {
                    '-'
                }
            })
            .take(FILE_HOST_CHARS_MAX)
            .collect();
        // As in every version before: the address with its last slash.
        let whole = url.map_or_else(|| self.url.clone(), String::from);
        let tag = Uuid::new_v5(&Uuid::NAMESPACE_URL, whole.as_bytes())
            .simple()
            .to_string();
        let tag = tag.get(..FILE_TAG_CHARS).unwrap_or_default();
        format!("{}-{tag}", shown.trim_matches('.'))
    }

    /// The headers that every request carries.
    pub(crate) fn headers(&self) -> Result<HeaderMap, ProjectError> {
        let mut key = HeaderValue::from_str(&self.publishable_key).map_err(|_| ProjectError::Key {
            why: "it holds characters that no key has".to_owned(),
        })?;
        key.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert("apikey", key);
        headers.insert(
            "x-client-info",
            HeaderValue::from_static(concat!("semo-office/", env!("CARGO_PKG_VERSION"))),
        );
        Ok(headers)
    }

    /// The one HTTP client of a project: native TLS (the system's trust store), time-outs, no redirects (a redirect
    /// would carry tokens to another host or turn a POST into a GET).
    pub(crate) fn http(&self) -> Result<reqwest::Client, reqwest::Error> {
        let builder = reqwest::Client::builder()
            .use_native_tls()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(WHOLE_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .tcp_keepalive(KEEP_ALIVE)
            .redirect(reqwest::redirect::Policy::none());
        if self.is_loopback() {
            builder.no_proxy()
        } else {
            builder
        }
        .build()
    }
}

/// How long the answer to a request with so many bytes may take to begin.
fn begins_within(bytes: usize) -> Duration {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    REQUEST_TIMEOUT + Duration::from_secs(bytes / SLOWEST_BYTES_PER_S)
}

/// Sends a request and waits for its answer to begin. The error is for people.
pub(crate) async fn send(
    http: &reqwest::Client,
    request: reqwest::RequestBuilder,
) -> Result<reqwest::Response, String> {
    let request = request.build().map_err(|error| root_cause(&error))?;
    let bytes = request.body().and_then(reqwest::Body::as_bytes);
    let within = begins_within(bytes.map_or(0, <[u8]>::len));
    match timeout(within, http.execute(request)).await {
        Ok(answer) => answer.map_err(|error| root_cause(&error)),
        Err(_) => Err(NO_ANSWER.to_owned()),
    }
}

/// Reads a whole body, up to [`BODY_BYTES_MAX`], for as long as it comes.
pub(crate) async fn read_body(mut response: reqwest::Response) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    loop {
        let chunk = timeout(PIECE_TIMEOUT, response.chunk())
            .await
            .map_err(|_| BodyError::Stalled)?
            .map_err(BodyError::Broken)?;
        let Some(chunk) = chunk else {
            return Ok(body);
        };
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(BodyError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
}

/// Is it a web page? The office never answers with one: it is of something in between (a sign-in page of the network, a
/// company's proxy, a gateway in trouble).
pub(crate) fn is_page(content_type: Option<&str>, body: &[u8]) -> bool {
    let is_html = content_type.is_some_and(|kind| kind.to_ascii_lowercase().contains("html"));
    is_html || body.trim_ascii_start().starts_with(b"<")
}

/// Whatever the status says: was it something in between that answered, and not the office? Says so in words.
pub(crate) fn in_between(status: u16, content_type: Option<&str>, body: &[u8]) -> Option<String> {
    if status == 407 {
        let words = "the proxy of this machine wants a name and a password (407); put them into HTTPS_PROXY as http://name:password@host:port";
        return Some(words.to_owned());
    }
    let page = is_page(content_type, body);
    // Nothing in the office sends elsewhere.
    if page && !matches!(status, 500..=510 | 512..=599) || matches!(status, 300..=399 | 511) {
        let what = if page { ", a web page" } else { "" };
        return Some(format!(
            "not the office but something in between answered ({status}{what}): a sign-in page of this network, or a proxy? Open a browser and look"
        ));
    }
    None
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The connection broke.
    #[error("the answer broke off: {}", root_cause(.0))]
    Broken(#[source] reqwest::Error),
    /// Nothing more of it came.
    #[error("the answer stopped in the middle for {} s", PIECE_TIMEOUT.as_secs())]
    Stalled,
    /// More than [`BODY_BYTES_MAX`].
    #[error("the answer is larger than {BODY_BYTES_MAX} bytes")]
    TooLarge,
}

/// What a limit of time is called.
const NO_ANSWER: &str = "no answer in time";

/// What went wrong in plain words: reqwest's own text is "error sending request for url (…)", and the reason
/// ("Connection refused") is the last link of its chain.
pub(crate) fn root_cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return NO_ANSWER.to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_util::task::TaskTracker;

    use super::*;

    #[test]
    fn an_address_has_one_spelling_however_it_was_typed() {
        let project =
            Project::new(" https://ABC.supabase.co:443// ", " sb_publishable_x ").expect("a good project");
        assert_eq!(project.url, "https://abc.supabase.co");
        assert_eq!(project.join("/rest/v1/t"), "https://abc.supabase.co/rest/v1/t");
        assert_eq!(project.publishable_key, "sb_publishable_x");
    }

    #[test]
    fn bad_settings_are_told_apart_with_a_way_out() {
        for (url, key, part) in [
            ("", "k", "project URL"),
            ("abc.supabase.co", "k", "project URL"),
            ("ftp://x", "k", "http://"),
            ("https://x?apikey=1", "k", "query"),
            ("https://u:p@x", "k", "password"),
            ("https://x", "", "empty"),
            ("https://x", "sb_secret_1", "secret key"),
            ("https://x", "a b", "characters"),
        ] {
            let error = Project::new(url, key).expect_err(url).to_string();
            assert!(error.contains(part), "{url} {key}: {error}");
        }
    }

    #[test]
    fn each_project_has_files_of_its_own_however_its_address_is_written() {
        let name = |url| Project::new(url, "k").expect(url).file_name();
        let abc = name("https://abc.supabase.co");
        assert!(abc.starts_with("abc.supabase.co-"), "{abc}");
        assert_eq!(abc, name("https://ABC.supabase.co/"));
        for other in [
            "http://abc.supabase.co",
            "https://abc.supabase.co:8443",
            "https://abc.supabase.co/b",
            "https://abd.supabase.co",
        ] {
            assert_ne!(abc, name(other), "{other}");
        }
        assert!(!name("http://[::1]:9/../x").contains(['/', ':']));
    }

    #[test]
    fn a_password_may_travel_where_nobody_reads_it_on_the_way() {
        let is_open = |url| Project::new(url, "k").expect(url).refuse_open_way().is_err();
        assert!(is_open("http://hub.example"));
        assert!(!is_open("https://hub.example"));
        assert!(!is_open("http://127.0.0.1:54321"));
    }

    #[test]
    fn the_key_is_not_in_debug_output() {
        let project = Project::new("http://127.0.0.1:1", "sb_publishable_hidden").expect("a good project");
        assert!(!format!("{project:?}").contains("hidden"));
    }

    #[test]
    fn a_page_in_the_offices_place_is_known_whatever_its_status() {
        let html = Some("text/html; charset=utf-8");
        for (status, kind, body, expected) in [
            (200, html, "", true),
            (200, None, "  <!DOCTYPE html>", true),
            (200, Some("application/json"), "[]", false),
            (302, None, "", true),
            (511, None, "", true),
            (403, html, "<h1>blocked</h1>", true),
            (407, None, "{}", true),
            (403, Some("application/json"), "{}", false),
            (503, html, "<h1>maintenance</h1>", false),
            (204, None, "", false),
        ] {
            let found = in_between(status, kind, body.as_bytes()).is_some();
            assert_eq!(found, expected, "{status} {kind:?} {body}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_has_the_time_that_a_slow_line_needs_for_it_and_a_dead_one_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let http = Project::new(&url, "k")
            .expect("a project")
            .http()
            .expect("a client");
        // The system takes the connections; nobody ever answers.
        for (bytes, at_least_s) in [(0, 20), (20 * 1024, 30), (1024 * 1024, 20 + 512)] {
            let start = tokio::time::Instant::now();
            let error = send(&http, http.post(&url).body(vec![0; bytes]))
                .await
                .expect_err("no answer");
            assert_eq!(error, NO_ANSWER);
            assert_eq!(start.elapsed().as_secs(), at_least_s, "{bytes} bytes");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_read_for_as_long_as_it_comes_and_not_a_moment_longer() {
        let slow = read_body(answer_with_pauses(vec![19; 30]).await).await;
        assert_eq!(slow.expect("a slow answer").len(), 30, "in nearly ten minutes");
        let stalled = read_body(answer_with_pauses(vec![1, 1, 21]).await).await;
        assert!(matches!(stalled, Err(BodyError::Stalled)), "{stalled:?}");
    }

    /// An answer that has begun; before each byte of its body it pauses so many seconds.
    async fn answer_with_pauses(pauses_s: Vec<u64>) -> reqwest::Response {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        TaskTracker::new().spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a call");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.expect("a request"));
            }
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", pauses_s.len());
            stream.write_all(head.as_bytes()).await.expect("begun");
            for pause_s in pauses_s {
                tokio::time::sleep(Duration::from_secs(pause_s)).await;
                if stream.write_all(b"x").await.is_err() {
                    return;
                }
            }
        });
        let http = Project::new(&url, "k")
            .expect("a project")
            .http()
            .expect("a client");
        send(&http, http.get(&url)).await.expect("it begins")
    }

    #[test]
    fn loopback_is_known_by_name_and_by_both_address_families() {
        for (url, expected) in [
            ("http://127.0.0.1:5", true),
            ("http://[::1]:5", true),
            ("http://localhost:5", true),
            ("https://abc.supabase.co", false),
            ("http://127.0.0.1.evil.example", false),
        ] {
            assert_eq!(
                Project::new(url, "k").expect(url).is_loopback(),
                expected,
                "{url}"
            );
        }
    }
}

//! Rows and functions over PostgREST (or the hub's equivalent).
//!
//! Requests are built by crate `postgrest`, with its traps avoided: its `Builder` gets our client (time-outs), every
//! status is checked, lists are quoted here, `order` is given once, `limit` only ever on reads. Nothing here retries
//! but the one repetition after a refreshed token: callers own their pace.
//!
//! Called by [`crate::office`]; other crates use that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postgrest::Builder;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use crate::auth::{Auth, AuthError};
use crate::project::{self, BodyError, Project, ProjectError, in_between, read_body};

/// Longest wait that a server's `Retry-After` is believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// Longest time that an office which asked to be left alone is not asked anything: leases are renewed more often than
/// they end, and only just.
const QUIET_MAX: Duration = Duration::from_secs(30);
/// Most rows that one [`Select`] asks for when it names no limit.
const ROWS_DEFAULT: usize = 1000;

/// Rows and functions of one project, as the signed-in user. Clones share everything.
#[derive(Debug, Clone)]
pub struct Rest {
    project: Project,
    auth: Auth,
    /// Until when the office asked to be left alone.
    quiet: Arc<Mutex<Option<Instant>>>,
}

/// Why a request did not do what was wanted.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// No token, or none that the server takes, also after a refresh.
    #[error("could not {attempted}: {reason}; sign in again")]
    Unauthorized {
        /// What was wanted.
        attempted: String,
        /// Why not.
        reason: String,
    },
    /// The user may not do this. Final.
    #[error("could not {attempted}: not allowed ({message}); ask the owner of the office for the right role")]
    Forbidden {
        /// What was wanted.
        attempted: String,
        /// The server's text.
        message: String,
    },
    /// There is no such function, table or thing.
    #[error(
        "could not {attempted}: not found ({code} {message}); does it still exist, and are the office's migrations applied?"
    )]
    NotFound {
        /// What was wanted.
        attempted: String,
        /// PostgREST's or Postgres' code.
        code: String,
        /// The server's text.
        message: String,
    },
    /// It contradicts what is there already.
    #[error("could not {attempted}: {message} ({code})")]
    Conflict {
        /// What was wanted.
        attempted: String,
        /// PostgREST's or Postgres' code.
        code: String,
        /// The server's text.
        message: String,
    },
    /// The server says no, and would say it again.
    #[error("could not {attempted}: refused with {status} {code} {message}{}", hint_suffix(.hint))]
    Rejected {
        /// What was wanted.
        attempted: String,
        /// HTTP status.
        status: u16,
        /// PostgREST's or Postgres' code; empty when there is none.
        code: String,
        /// The server's text.
        message: String,
        /// More of it; empty when there is none.
        details: String,
        /// The server's hint; empty when there is none.
        hint: String,
    },
    /// No answer, or one that says "later". Whether it took effect is unknown; every function of the office may be
    /// called again with the same arguments.
    #[error("could not {attempted}: {reason}; check the network, it may be tried again")]
    Unreachable {
        /// What was wanted.
        attempted: String,
        /// What happened.
        reason: String,
        /// How long the server asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// The answer is not what was asked for.
    #[error(
        "could not {attempted}: the answer makes no sense ({why}); are client and office of matching versions?"
    )]
    Malformed {
        /// What was wanted.
        attempted: String,
        /// What is wrong with it.
        why: String,
    },
}

fn hint_suffix(hint: &str) -> String {
    if hint.is_empty() {
        String::new()
    } else {
        format!("; {hint}")
    }
}

impl RestError {
    /// May the same request work later, with nothing changed by a person?
    pub fn is_passing(&self) -> bool {
        matches!(self, RestError::Unreachable { .. })
    }
}

/// A read: which columns and rows of a table. Values are sent as values, whatever they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Select {
    columns: String,
    filters: Vec<(String, String)>,
    order: Option<String>,
    offset: usize,
    limit: usize,
}

impl Select {
    /// The named columns (`id,name`), or `*`.
    pub fn columns(columns: &str) -> Select {
        Select {
            columns: columns.to_owned(),
            filters: Vec::new(),
            order: None,
            offset: 0,
            limit: ROWS_DEFAULT,
        }
    }

    /// Only rows whose `column` is `value`.
    pub fn eq(self, column: &str, value: impl ToString) -> Select {
        self.filter(column, "eq", &value.to_string())
    }

    /// Only rows whose `column` is greater than `value`.
    pub fn gt(self, column: &str, value: impl ToString) -> Select {
        self.filter(column, "gt", &value.to_string())
    }

    /// Only rows whose `column` is less than `value`.
    pub fn lt(self, column: &str, value: impl ToString) -> Select {
        self.filter(column, "lt", &value.to_string())
    }

    /// Only rows whose `column` is one of `values`. An empty list selects nothing.
    pub fn in_<V: ToString>(self, column: &str, values: impl IntoIterator<Item = V>) -> Select {
        let list: Vec<String> = values
            .into_iter()
            .map(|value| quoted(&value.to_string()))
            .collect();
        let list = format!("({})", list.join(","));
        self.filter(column, "in", &list)
    }

    /// In this order: `seq.desc` or `a.asc,b.desc`.
    pub fn order(mut self, order: &str) -> Select {
        self.order = Some(order.to_owned());
        self
    }

    /// At most this many rows.
    pub fn limit(mut self, rows: usize) -> Select {
        self.limit = rows;
        self
    }

    /// Without the first `rows` of that order.
    pub fn offset(mut self, rows: usize) -> Select {
        self.offset = rows;
        self
    }

    fn filter(mut self, column: &str, operator: &str, value: &str) -> Select {
        self.filters
            .push((column.to_owned(), format!("{operator}.{value}")));
        self
    }

    /// `limit` must not be 0: the range would end before it begins.
    fn build(&self, builder: Builder) -> reqwest::RequestBuilder {
        let last = self.offset.saturating_add(self.limit.max(1) - 1);
        let mut builder = builder.select(&self.columns).range(self.offset, last);
        if let Some(order) = &self.order {
            builder = builder.order(order);
        }
        builder.build().query(&self.filters)
    }
}

/// The rows of a read that make sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readable<T> {
    /// They.
    pub rows: Vec<T>,
    /// How many came, those that make no sense included.
    pub came: usize,
}

impl<T> Readable<T> {
    /// How many were left out.
    pub fn left_out(&self) -> usize {
        self.came - self.rows.len()
    }
}

/// A list item in double quotes: commas, parentheses and quotes in it stay part of the value.
fn quoted(item: &str) -> String {
    format!("\"{}\"", item.replace('\\', "\\\\").replace('"', "\\\""))
}

/// An answer that arrived, whatever it says.
struct Answer {
    status: u16,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

impl Rest {
    /// Speaks to `project` with `auth`'s tokens and HTTP client. No network.
    pub fn new(project: Project, auth: Auth) -> Rest {
        Rest {
            project,
            auth,
            quiet: Arc::default(),
        }
    }

    /// The session behind it.
    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    /// The project it speaks to.
    pub fn project(&self) -> &Project {
        &self.project
    }

    /// Calls a function with named arguments. A void function gives `T` from JSON `null`.
    pub async fn rpc<T: DeserializeOwned>(
        &self,
        function: &str,
        args: &impl Serialize,
    ) -> Result<T, RestError> {
        let attempted = || format!("call {function}");
        let body = serde_json::to_string(args).map_err(|error| RestError::Malformed {
            attempted: attempted(),
            why: format!("bad arguments: {error}"),
        })?;
        let url = self.project.join(&format!("/rest/v1/rpc/{function}"));
        self.run(attempted, |headers| {
            Builder::new(&url, Some("public".to_owned()), headers, self.auth.http().clone())
                .rpc(&body)
                .build()
        })
        .await
    }

    /// Reads rows. Rows that the user may not see are simply absent.
    pub async fn select<T: DeserializeOwned>(&self, table: &str, query: Select) -> Result<Vec<T>, RestError> {
        if query.limit == 0 {
            return Ok(Vec::new());
        }
        let url = self.project.join(&format!("/rest/v1/{table}"));
        self.run(
            || format!("read {table}"),
            |headers| {
                query.build(Builder::new(
                    &url,
                    Some("public".to_owned()),
                    headers,
                    self.auth.http().clone(),
                ))
            },
        )
        .await
    }

    /// Reads rows, each for itself: one that makes no sense (another version of the office, a hand in the database) is
    /// left out, told in the log and counted, and takes none of the others with it.
    pub async fn select_readable<T: DeserializeOwned>(
        &self,
        table: &str,
        query: Select,
    ) -> Result<Readable<T>, RestError> {
        let raw: Vec<Value> = self.select(table, query).await?;
        let mut readable = Readable {
            came: raw.len(),
            rows: Vec::with_capacity(raw.len()),
        };
        for value in raw {
            let id = value.get("id").cloned().unwrap_or(Value::Null);
            match serde_json::from_value(value) {
                Ok(row) => readable.rows.push(row),
                Err(error) => tracing::warn!(table, %id, %error, "a row cannot be read and is left out"),
            }
        }
        Ok(readable)
    }

    /// Sends what `build` makes, refreshes the token and repeats once if it was refused, and reads the answer.
    async fn run<T: DeserializeOwned>(
        &self,
        attempted: impl Fn() -> String,
        build: impl Fn(HeaderMap) -> reqwest::RequestBuilder,
    ) -> Result<T, RestError> {
        let no_token = |error| auth_error(attempted(), error);
        let token = self.auth.access_token().await.map_err(no_token)?;
        let mut answer = self.send(&attempted, &build, &token).await?;
        if answer.status == 401 && token_is_at_fault(&answer.body) {
            let fresh = self.auth.refresh_after(&token).await.map_err(no_token)?;
            answer = self.send(&attempted, &build, &fresh.access_token).await?;
        }
        if !(200..300).contains(&answer.status) {
            return Err(refusal(attempted(), &answer));
        }
        let body: &[u8] = if answer.body.iter().all(u8::is_ascii_whitespace) {
            b"null"
        } else {
            &answer.body
        };
        serde_json::from_slice(body).map_err(|error| RestError::Malformed {
            attempted: attempted(),
            why: error.to_string(),
        })
    }

    async fn send(
        &self,
        attempted: &impl Fn() -> String,
        build: &impl Fn(HeaderMap) -> reqwest::RequestBuilder,
        token: &str,
    ) -> Result<Answer, RestError> {
        let headers = self.headers(token).map_err(|why| RestError::Malformed {
            attempted: attempted(),
            why,
        })?;
        let unreachable = |reason| RestError::Unreachable {
            attempted: attempted(),
            reason,
            retry_after: None,
        };
        let left = self.quiet_left();
        if !left.is_zero() {
            return Err(RestError::Unreachable {
                attempted: attempted(),
                reason: format!(
                    "the office asked to be left alone; it is asked again in {} s",
                    left.as_secs().max(1)
                ),
                retry_after: Some(left),
            });
        }
        let url = &self.project.url;
        let response = project::send(self.auth.http(), build(headers))
            .await
            .map_err(|why| unreachable(format!("no connection to {url}: {why}")))?;
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let content_type = content_type(response.headers());
        let body = read_body(response).await.map_err(|error| match error {
            BodyError::Broken(_) | BodyError::Stalled => unreachable(error.to_string()),
            BodyError::TooLarge => RestError::Malformed {
                attempted: attempted(),
                why: error.to_string(),
            },
        })?;
        if let Some(why) = in_between(status, content_type.as_deref(), &body) {
            return Err(unreachable(why));
        }
        if let (429 | 503, Some(wait)) = (status, retry_after) {
            self.be_quiet(wait);
        }
        Ok(Answer {
            status,
            retry_after,
            body,
        })
    }

    fn be_quiet(&self, wait: Duration) {
        let until = Instant::now() + wait.min(QUIET_MAX);
        *self.quiet.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// For how long the office is not to be asked anything.
    fn quiet_left(&self) -> Duration {
        let until = *self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        until
            .map(|until| until.saturating_duration_since(Instant::now()))
            .unwrap_or_default()
    }

    /// Made here and not by the crate, whose `auth` panics on a token with a line end.
    fn headers(&self, token: &str) -> Result<HeaderMap, String> {
        let mut headers = self
            .project
            .headers()
            .map_err(|error: ProjectError| error.to_string())?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| "the access token holds characters that no token has".to_owned())?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
        Ok(headers)
    }
}

/// No token: told apart by whether waiting helps.
fn auth_error(attempted: String, error: AuthError) -> RestError {
    match error {
        AuthError::Unreachable { retry_after, .. } => RestError::Unreachable {
            attempted,
            reason: error.to_string(),
            retry_after,
        },
        AuthError::Store { .. } | AuthError::Malformed { .. } => RestError::Unreachable {
            attempted,
            reason: error.to_string(),
            retry_after: None,
        },
        AuthError::SignedOut { reason } => RestError::Unauthorized { attempted, reason },
        AuthError::WrongPassword
        | AuthError::Refused { .. }
        | AuthError::Project(_)
        | AuthError::Client { .. } => RestError::Unauthorized {
            attempted,
            reason: error.to_string(),
        },
    }
}

/// The four fields of a PostgREST error; a gateway's own errors have fewer.
#[derive(Default)]
struct ErrorBody {
    code: String,
    message: String,
    details: String,
    hint: String,
}

fn error_body(body: &[u8]) -> ErrorBody {
    let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(body) else {
        let text = String::from_utf8_lossy(body);
        return ErrorBody {
            message: text.trim().chars().take(200).collect(),
            ..ErrorBody::default()
        };
    };
    let text = |name: &str| match fields.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    ErrorBody {
        code: text("code"),
        message: text("message"),
        details: text("details"),
        hint: text("hint"),
    }
}

/// Is a 401 about the token (PostgREST's two codes, or a gateway without codes) and not about rights?
fn token_is_at_fault(body: &[u8]) -> bool {
    matches!(error_body(body).code.as_str(), "" | "PGRST301" | "PGRST303")
}

/// Postgres codes that mean "run the whole call again".
const RETRY_CODES: [&str; 2] = ["40001", "40P01"];

fn refusal(attempted: String, answer: &Answer) -> RestError {
    let ErrorBody {
        code,
        message,
        details,
        hint,
    } = error_body(&answer.body);
    let status = answer.status;
    match status {
        401 => RestError::Unauthorized {
            attempted,
            reason: format!("the office refused the sign-in ({code} {message})"),
        },
        403 => RestError::Forbidden { attempted, message },
        404 => RestError::NotFound {
            attempted,
            code,
            message,
        },
        409 => RestError::Conflict {
            attempted,
            code,
            message,
        },
        _ if matches!(status, 408 | 425 | 429 | 502..=504 | 520..=599)
            || RETRY_CODES.contains(&code.as_str()) =>
        {
            RestError::Unreachable {
                attempted,
                reason: format!("the office answered {status} {code} {message}"),
                retry_after: answer.retry_after,
            }
        }
        // A gateway's 500 has no code: trouble, not a verdict. Postgres' own (statement timeout, internal) has one.
        500..=599
            if code.is_empty() || code == "57014" || code.starts_with("53") || code.starts_with("08") =>
        {
            RestError::Unreachable {
                attempted,
                reason: format!("the office answered {status} {code} {message}"),
                retry_after: answer.retry_after,
            }
        }
        _ => RestError::Rejected {
            attempted,
            status,
            code,
            message,
            details,
            hint,
        },
    }
}

/// The kind of an answer, as text.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<String> {
    headers
        .get(reqwest::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
}

/// `Retry-After` in seconds, up to [`RETRY_AFTER_MAX`]; the date form is not used by Supabase.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse::<u64>()
        .ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests;

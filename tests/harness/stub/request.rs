//! A request that reached the stub, and what a test may want to know of it.

use std::sync::LazyLock;

use axum::http::HeaderMap;
use serde_json::Value;
use tokio::time::Instant;

/// One `POST /v1/messages`.
#[derive(Debug, Clone)]
pub struct StubRequest {
    /// Its number, from 0.
    pub seq: usize,
    /// When it was complete.
    pub at: Instant,
    /// The path it came to.
    pub path: String,
    /// The session id that the program sent along (`X-Claude-Code-Session-Id`).
    pub session: Option<String>,
    /// The `authorization` or `x-api-key` header.
    pub credential: Option<String>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// Whether it is a side request (titles and the like carry no tools).
    pub side: bool,
    /// The scenario that it names, `NAME[:ARG]`, or the stub's own at that moment.
    pub scenario: Option<String>,
    /// The whole body.
    pub body: Value,
}

impl StubRequest {
    pub(super) fn new(
        seq: usize,
        path: &str,
        headers: &HeaderMap,
        body: Value,
        fallback: Option<String>,
    ) -> StubRequest {
        let header = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
        let mut request = StubRequest {
            seq,
            at: Instant::now(),
            path: path.to_owned(),
            session: header("x-claude-code-session-id"),
            credential: header("authorization").or_else(|| header("x-api-key")),
            stream: body["stream"].as_bool().unwrap_or(false),
            side: body["tools"].as_array().is_none_or(Vec::is_empty),
            scenario: None,
            body,
        };
        request.scenario = request.named_scenario().or(fallback);
        request
    }

    /// All text of the `system` field.
    pub fn system(&self) -> String {
        texts_of(&self.body["system"]).join("\n")
    }

    /// The text blocks of all messages with role `user`, oldest first; the persona is in one of the first.
    pub fn user_texts(&self) -> Vec<&str> {
        self.messages()
            .filter(|message| message["role"] == "user")
            .flat_map(|message| texts_of(&message["content"]))
            .collect()
    }

    /// Everything that was sent as text by the user's side, in one string.
    pub fn user_text(&self) -> String {
        self.user_texts().join("\n")
    }

    /// The newest text of the user that is no reminder of the program's own: the prompt, exactly as it arrived.
    pub fn prompt(&self) -> Option<&str> {
        self.user_texts()
            .into_iter()
            .rev()
            .find(|text| !text.trim_start().starts_with("<system-reminder>"))
    }

    /// The texts of the tool results since the newest prompt, oldest first.
    pub fn tool_results(&self) -> Vec<String> {
        let mut newest_first = Vec::new();
        for message in self.messages().rev() {
            if message["role"] != "user" {
                continue;
            }
            let blocks = message["content"].as_array().map_or(&[][..], Vec::as_slice);
            let mut found: Vec<String> = blocks
                .iter()
                .filter(|block| block["type"] == "tool_result")
                .map(|block| texts_of(&block["content"]).join("\n"))
                .collect();
            if found.is_empty() {
                break;
            }
            found.reverse();
            newest_first.append(&mut found);
        }
        newest_first.reverse();
        newest_first
    }

    fn messages(&self) -> impl DoubleEndedIterator<Item = &Value> {
        self.body["messages"].as_array().into_iter().flatten()
    }

    fn named_scenario(&self) -> Option<String> {
        static NAMED: LazyLock<regex::Regex> = LazyLock::new(|| {
            regex::Regex::new(r#"scn=([a-z0-9_]+(?::[^\s"'`]+)?)"#).expect("a valid pattern")
        });
        self.user_texts()
            .into_iter()
            .rev()
            .find_map(|text| Some(NAMED.captures_iter(text).last()?[1].to_owned()))
    }
}

/// A content field is a string or a list of blocks.
fn texts_of(content: &Value) -> Vec<&str> {
    match content {
        Value::String(text) => vec![text],
        Value::Array(blocks) => blocks
            .iter()
            .filter(|block| block["type"] == "text")
            .filter_map(|block| block["text"].as_str())
            .collect(),
        _ => Vec::new(),
    }
}

//! From what a statement gave to an HTTP answer.
//!
//! Pure. Called by `routes`.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value};

use super::ast::Rows;
use super::error::RestError;
use super::plan::Resolution;
use super::request::{Media, Of, Prefer, Return, status_of_page};
use super::run::Outcome;
use super::schema::SCHEMA;

/// Adds headers a function asked for; what cannot be a header is left out.
pub(super) fn add_headers(headers: &mut HeaderMap, wanted: &[(String, String)]) {
    for (name, value) in wanted {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
}

/// An answer as it grows.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn new(status: StatusCode) -> Answer {
        Answer {
            status,
            headers: HeaderMap::new(),
            body: String::new(),
        }
    }

    /// Sets a header; one that cannot be sent, or is empty, is left out.
    pub fn with(mut self, name: &'static str, value: &str) -> Answer {
        if let Some(value) = HeaderValue::from_str(value)
            .ok()
            .filter(|value| !value.is_empty())
        {
            self.headers.insert(name, value);
        }
        self
    }

    fn showing(mut self, body: String, media: Media, profiled: bool) -> Answer {
        self.body = body;
        let kind = HeaderValue::from_static(media.content_type());
        self.headers.insert(header::CONTENT_TYPE, kind);
        if profiled {
            self.with("content-profile", SCHEMA)
        } else {
            self
        }
    }

    /// What functions asked for comes last: it takes the place of what would have been said.
    fn overridden(mut self, outcome: &Outcome) -> Result<Answer, RestError> {
        if let Some(status) = &outcome.status {
            let status = status
                .parse::<u16>()
                .ok()
                .and_then(|code| StatusCode::from_u16(code).ok());
            self.status = status.ok_or_else(|| {
                RestError::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "PGRST112",
                    "response.status guc must be a valid status code",
                )
            })?;
        }
        if let Some(headers) = &outcome.headers {
            let wanted = wanted_headers(headers).ok_or_else(|| {
                RestError::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "PGRST111",
                    "response.headers guc must be a JSON array composed of objects with a single key and a string value",
                )
            })?;
            for (name, _) in &wanted {
                self.headers.remove(name.as_str());
            }
            add_headers(&mut self.headers, &wanted);
        }
        Ok(self)
    }

    /// `body`: what [`Answer::body`] has become.
    pub fn into_response(self, body: Body) -> Response {
        let mut response = if self.status == StatusCode::NO_CONTENT {
            self.status.into_response()
        } else {
            (self.status, body).into_response()
        };
        if !self.headers.contains_key(header::CONTENT_TYPE) {
            response.headers_mut().remove(header::CONTENT_TYPE);
        }
        // One by one: a name may stand there several times.
        let mut last = None;
        for (name, value) in self.headers {
            match (name, &last) {
                (Some(name), _) => {
                    response.headers_mut().insert(&name, value);
                    last = Some(name);
                }
                (None, Some(name)) => _ = response.headers_mut().append(name, value),
                (None, None) => {}
            }
        }
        response
    }
}

fn wanted_headers(json: &str) -> Option<Vec<(String, String)>> {
    let list: Vec<Map<String, Value>> = serde_json::from_str(json).ok()?;
    list.into_iter()
        .map(|one| match (one.len(), one.into_iter().next()) {
            (1, Some((name, Value::String(value)))) => Some((name, value)),
            _ => None,
        })
        .collect()
}

/// A table or view that was read.
pub(super) fn of_read(
    rows: Rows,
    mut outcome: Outcome,
    prefer: &Prefer,
    media: Media,
    profiled: bool,
    location: &str,
) -> Result<Answer, RestError> {
    let (status, range) = status_of_page(rows, outcome.page, outcome.total)?;
    Answer::new(status)
        .with("content-range", &range)
        .with("content-location", location)
        .with("preference-applied", &prefer.applied(Of::Read))
        .showing(std::mem::take(&mut outcome.body), media, profiled)
        .overridden(&outcome)
}

/// What a function gave.
pub(super) fn of_call(
    rows: Rows,
    mut outcome: Outcome,
    void: bool,
    prefer: &Prefer,
    media: Media,
    profiled: bool,
) -> Result<Answer, RestError> {
    let (status, range) = status_of_page(rows, outcome.page, outcome.total)?;
    let answer = Answer::new(if void { StatusCode::NO_CONTENT } else { status })
        .with("content-range", &range)
        .with("preference-applied", &prefer.applied(Of::Call));
    let answer = if void {
        answer
    } else {
        answer.showing(std::mem::take(&mut outcome.body), media, profiled)
    };
    answer.overridden(&outcome)
}

/// A table that was changed. `resolvable`: there was something that a conflict could be about.
pub(super) fn of_change(
    method: &Method,
    table: &str,
    mut outcome: Outcome,
    prefer: &Prefer,
    media: Media,
    profiled: bool,
    resolvable: bool,
) -> Result<Answer, RestError> {
    let representation = prefer.returns == Some(Return::Representation);
    let total = prefer.counts().then_some(outcome.page);
    let of_total = total.map_or_else(|| "*".to_owned(), |total| total.to_string());
    let inserted = outcome.inserted.unwrap_or(0);
    let (of, status, range) = match *method {
        Method::POST => {
            let nothing_new = prefer.resolution == Some(Resolution::Merge) && resolvable && inserted <= 0;
            let status = if nothing_new {
                StatusCode::OK
            } else {
                StatusCode::CREATED
            };
            (Of::Insert { resolvable }, status, format!("*/{of_total}"))
        }
        Method::PUT => {
            let status = match (representation, inserted > 0) {
                (true, true) => StatusCode::CREATED,
                (true, false) => StatusCode::OK,
                (false, _) => StatusCode::NO_CONTENT,
            };
            (Of::Put, status, String::new())
        }
        Method::PATCH => {
            let range = match outcome.page {
                0 => format!("*/{of_total}"),
                page => format!("0-{}/{of_total}", page - 1),
            };
            (Of::Update, ok_or_empty(representation), range)
        }
        _ => (Of::Delete, ok_or_empty(representation), format!("*/{of_total}")),
    };
    let mut answer = Answer::new(status)
        .with("content-range", &range)
        .with("preference-applied", &prefer.applied(of));
    if let Some(place) = outcome.place.as_deref().and_then(|place| address(table, place)) {
        answer = answer.with("location", &place);
    }
    if representation {
        answer = answer.showing(std::mem::take(&mut outcome.body), media, profiled);
    }
    answer.overridden(&outcome)
}

fn ok_or_empty(representation: bool) -> StatusCode {
    if representation {
        StatusCode::OK
    } else {
        StatusCode::NO_CONTENT
    }
}

/// `/table?id=eq.5`
fn address(table: &str, place: &str) -> Option<String> {
    let pairs: Vec<(String, String)> = serde_json::from_str(place).ok()?;
    Some(location(
        table,
        pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())),
    ))
}

/// A path with its query, encoded.
pub(super) fn location<'p>(table: &str, pairs: impl Iterator<Item = (&'p str, &'p str)>) -> String {
    let mut text = format!("/{}", encoded(table));
    for (place, (name, value)) in pairs.enumerate() {
        text.push(if place == 0 { '?' } else { '&' });
        text.push_str(&encoded(name));
        text.push('=');
        text.push_str(&encoded(value));
    }
    text
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(page: i64, inserted: Option<i64>) -> Outcome {
        Outcome {
            total: None,
            page,
            place: None,
            body: "[]".to_owned(),
            headers: None,
            status: None,
            inserted,
        }
    }

    fn changed(method: Method, lines: &'static str, outcome: Outcome) -> Answer {
        let headers =
            HeaderMap::from_iter([(HeaderName::from_static("prefer"), HeaderValue::from_static(lines))]);
        let prefer = Prefer::read(&headers);
        of_change(&method, "t", outcome, &prefer, Media::Json, false, true).unwrap()
    }

    #[test]
    fn statuses_of_changes_follow_what_was_wanted_and_done() {
        const MERGE: &str = "return=representation, resolution=merge-duplicates";
        for (method, prefer, page, inserted, status, range) in [
            (Method::POST, "count=exact", 2, None, 201, "*/2"),
            (Method::POST, MERGE, 2, Some(1), 201, "*/*"),
            (Method::POST, MERGE, 2, Some(0), 200, "*/*"),
            (Method::POST, "resolution=ignore-duplicates", 0, None, 201, "*/*"),
            (Method::PATCH, "return=minimal", 2, None, 204, "0-1/*"),
            (
                Method::PATCH,
                "return=representation,count=exact",
                0,
                None,
                200,
                "*/0",
            ),
            (Method::DELETE, "count=exact", 3, None, 204, "*/3"),
        ] {
            let answer = changed(method.clone(), prefer, outcome(page, inserted));
            let found = (
                answer.status.as_u16(),
                answer.headers["content-range"].to_str().unwrap(),
            );
            assert_eq!(found, (status, range), "{method} {prefer}");
        }
        assert_eq!(changed(Method::PUT, "", outcome(1, Some(1))).status.as_u16(), 204);
        assert_eq!(
            changed(Method::PUT, MERGE, outcome(1, Some(1))).status.as_u16(),
            201
        );
    }

    #[test]
    fn a_new_row_has_an_address() {
        let mut new = outcome(1, None);
        new.place = Some(r#"[["id","eq.a b&c"],["n","is.null"]]"#.to_owned());
        let answer = changed(Method::POST, "return=headers-only", new);
        assert_eq!(answer.headers["location"], "/t?id=eq.a%20b%26c&n=is.null");
        assert!(!answer.headers.contains_key("content-type"));
    }

    #[test]
    fn functions_may_set_status_and_headers_and_nonsense_is_an_error() {
        let mut asked = outcome(1, None);
        asked.status = Some("418".to_owned());
        asked.headers = Some(r#"[{"Content-Range":"x"},{"Set-Cookie":"a"},{"Set-Cookie":"b"}]"#.to_owned());
        let answer = changed(Method::POST, "", asked.clone());
        assert_eq!(
            (
                answer.status.as_u16(),
                answer.headers["content-range"].to_str().unwrap()
            ),
            (418, "x")
        );
        assert_eq!(
            answer
                .into_response(Body::empty())
                .headers()
                .get_all("set-cookie")
                .iter()
                .count(),
            2
        );
        for (status, headers, code) in [(Some("x"), None, "PGRST112"), (None, Some("{}"), "PGRST111")] {
            let mut bad = asked.clone();
            (bad.status, bad.headers) = (status.map(str::to_owned), headers.map(str::to_owned));
            assert_eq!(
                Answer::new(StatusCode::OK).overridden(&bad).unwrap_err().code(),
                code
            );
        }
    }
}

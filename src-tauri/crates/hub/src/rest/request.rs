//! Headers and bodies of REST requests: `Prefer`, `Accept`, profiles, `Range`, JSON rows.
//!
//! Pure. Called by `routes`.

use axum::http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use super::error::RestError;
use super::sql::{Answer, Resolution};
use crate::identity;

/// The only schema that is exposed.
const SCHEMA: &str = "public";

/// What the headers of a request ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wishes {
    pub answer: Answer,
    pub count: bool,
    pub resolution: Resolution,
    /// Exactly one row as an object.
    pub single: bool,
    /// `Range`: offset and number of rows.
    pub range: Option<(u64, u64)>,
    /// What goes into `Preference-Applied`.
    pub applied: Vec<&'static str>,
}

/// Reads the headers. `reading`: GET or HEAD, where `Range` and `Accept-Profile` count.
pub(crate) fn wishes(headers: &HeaderMap, reading: bool) -> Result<Wishes, RestError> {
    let profile = if reading {
        "accept-profile"
    } else {
        "content-profile"
    };
    if let Some(schema) = identity::text(headers, profile).filter(|schema| *schema != SCHEMA) {
        return Err(RestError::new(
            StatusCode::NOT_ACCEPTABLE,
            "PGRST106",
            format!("Invalid schema: {}", schema.chars().take(64).collect::<String>()),
        ));
    }
    let mut wishes = Wishes {
        answer: Answer::Minimal,
        count: false,
        resolution: Resolution::Fail,
        single: accepts_single(headers)?,
        range: if reading { range(headers) } else { None },
        applied: Vec::new(),
    };
    let prefer = headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok());
    for word in prefer.flat_map(|line| line.split(',')).map(str::trim) {
        wishes.applied.push(match word {
            "return=representation" => {
                wishes.answer = Answer::Representation;
                "return=representation"
            }
            "return=minimal" => "return=minimal",
            "count=exact" | "count=planned" | "count=estimated" => {
                wishes.count = true;
                "count=exact"
            }
            "resolution=ignore-duplicates" => {
                wishes.resolution = Resolution::Ignore;
                "resolution=ignore-duplicates"
            }
            "resolution=merge-duplicates" => {
                wishes.resolution = Resolution::Merge;
                "resolution=merge-duplicates"
            }
            _ => continue,
        });
    }
    Ok(wishes)
}

fn accepts_single(headers: &HeaderMap) -> Result<bool, RestError> {
    let accept = identity::text(headers, "accept").unwrap_or("*/*");
    for kind in accept
        .split(',')
        .map(|part| part.split(';').next().unwrap_or_default().trim())
    {
        match kind {
            "application/vnd.pgrst.object+json" | "application/vnd.pgrst.object" => return Ok(true),
            "application/json" | "application/*" | "*/*" | "" => return Ok(false),
            "application/vnd.pgrst.array+json" | "application/vnd.pgrst.array" => return Ok(false),
            _ => {}
        }
    }
    Err(RestError::new(
        StatusCode::NOT_ACCEPTABLE,
        "PGRST107",
        format!("None of these media types are available: {accept}"),
    ))
}

/// `Range: 0-4` or `5-`; anything else is ignored, as HTTP says.
fn range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let (first, last) = identity::text(headers, "range")?
        .trim_start_matches("items=")
        .split_once('-')?;
    let first: u64 = first.trim().parse().ok()?;
    let rows = match last.trim() {
        "" => u64::MAX,
        last => last.parse::<u64>().ok()?.checked_sub(first)?.saturating_add(1),
    };
    Some((first, rows))
}

/// Rows of an insert, and the columns they name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rows {
    pub json: String,
    pub columns: Vec<String>,
}

/// Reads the body of an insert: an object, or an array of objects with the same keys (or `columns` given).
pub(crate) fn rows(body: &[u8], columns: Option<&Vec<String>>) -> Result<Rows, RestError> {
    let invalid = |message: &str| RestError::new(StatusCode::BAD_REQUEST, "PGRST102", message);
    let rows = match json(body)? {
        Value::Array(rows) => rows,
        object @ Value::Object(_) => vec![object],
        _ => return Err(invalid("Request body must be an object or an array of objects")),
    };
    let keys = |row: &Value| match row {
        Value::Object(map) => Ok(map.keys().cloned().collect::<Vec<String>>()),
        _ => Err(invalid("Request body must be an object or an array of objects")),
    };
    let mut named = rows.first().map(keys).transpose()?.unwrap_or_default();
    for row in rows.iter().skip(1) {
        let mut others = keys(row)?;
        others.sort();
        named.sort();
        if columns.is_none() && others != named {
            return Err(invalid("All object keys must match"));
        }
    }
    Ok(Rows {
        columns: columns.cloned().unwrap_or(named),
        json: Value::Array(rows).to_string(),
    })
}

/// Reads a body that must be one object (PATCH, rpc); an empty one is `{}` where `may_be_empty`.
pub(crate) fn object(body: &[u8], may_be_empty: bool) -> Result<Map<String, Value>, RestError> {
    if body.is_empty() && may_be_empty {
        return Ok(Map::new());
    }
    match json(body)? {
        Value::Object(map) => Ok(map),
        _ => Err(RestError::new(
            StatusCode::BAD_REQUEST,
            "PGRST102",
            "Request body must be an object",
        )),
    }
}

fn json(body: &[u8]) -> Result<Value, RestError> {
    serde_json::from_slice(body).map_err(|error| {
        RestError::new(StatusCode::BAD_REQUEST, "PGRST102", "Empty or invalid json")
            .with_details(error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn preferences_may_be_one_list_or_several_headers() {
        let all = headers(&[
            ("prefer", "return=representation,count=exact"),
            ("prefer", "resolution=ignore-duplicates"),
        ]);
        let wishes = wishes(&all, false).unwrap();
        assert_eq!(
            (wishes.answer, wishes.count, wishes.resolution),
            (Answer::Representation, true, Resolution::Ignore)
        );
    }

    #[test]
    fn a_range_counts_for_reading_only() {
        let range = headers(&[("range", "5-9")]);
        assert_eq!(wishes(&range, true).unwrap().range, Some((5, 5)));
        assert_eq!(wishes(&range, false).unwrap().range, None);
        for odd in ["9-5", "x-1", "-", "1"] {
            let value =
                HeaderMap::from_iter([(axum::http::header::RANGE, HeaderValue::from_str(odd).unwrap())]);
            assert_eq!(wishes(&value, true).unwrap().range, None, "{odd}");
        }
    }

    #[test]
    fn rows_with_other_keys_need_a_list_of_columns() {
        let body = br#"[{"a":1},{"b":2}]"#;
        assert!(rows(body, None).is_err());
        assert_eq!(rows(body, Some(&vec!["a".to_owned()])).unwrap().columns, ["a"]);
        assert!(rows(b"[1]", None).is_err() && rows(b"", None).is_err() && rows(b"7", None).is_err());
    }

    #[test]
    fn another_schema_or_media_type_is_not_acceptable() {
        assert!(wishes(&headers(&[("accept-profile", "auth")]), true).is_err());
        assert!(wishes(&headers(&[("accept", "text/csv")]), true).is_err());
        assert!(
            wishes(&headers(&[("accept", "application/vnd.pgrst.object+json")]), true)
                .unwrap()
                .single
        );
    }
}

//! `Range`, `limit`, `offset`, and what they make of status and `Content-Range`.
//!
//! Called by `routes` and `answer`.

use axum::http::{HeaderMap, StatusCode};

use super::super::ast::{Query, Rows};
use super::super::error::RestError;
use crate::identity;

fn not_satisfiable(details: String) -> RestError {
    RestError::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "PGRST103",
        "Requested range not satisfiable",
    )
    .with_details(details)
}

/// The rows of a request: those of its query, and of its `Range` if that counts. Written into the query.
pub(in super::super) fn narrowed(
    query: &mut Query,
    headers: &HeaderMap,
    ranged: bool,
) -> Result<Rows, RestError> {
    let asked = if ranged { requested(headers) } else { Rows::ALL };
    let limited = query.top();
    let rows = if limited == Rows::NONE {
        limited
    } else {
        limited.and(asked)
    };
    if rows.is_empty() && limited != Rows::NONE {
        let text = if asked.is_empty() {
            "The lower boundary must be lower than or equal to the upper boundary in the Range header."
        } else {
            "Limit should be greater than or equal to zero."
        };
        return Err(not_satisfiable(text.to_owned()));
    }
    if rows != Rows::ALL {
        query.rows.retain(|(path, _)| !path.is_empty());
        query.rows.push((Vec::new(), rows));
    }
    Ok(rows)
}

/// `Range: 0-4` or `5-`; anything else is ignored, as HTTP says.
fn requested(headers: &HeaderMap) -> Rows {
    let parsed = identity::text(headers, "range").and_then(|range| {
        let (first, last) = range.split_once('-')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(first) || !(last.is_empty() || digits(last)) {
            return None;
        }
        let number = |text: &str| text.parse::<i64>().unwrap_or(i64::MAX / 2).min(i64::MAX / 2);
        Some(Rows {
            lower: number(first),
            upper: (!last.is_empty()).then(|| number(last)),
        })
    });
    parsed.unwrap_or(Rows::ALL)
}

/// Status and `Content-Range` of a page, or 416 when it begins beyond the last row.
pub(in super::super) fn status_of_page(
    rows: Rows,
    page: i64,
    total: Option<i64>,
) -> Result<(StatusCode, String), RestError> {
    let status = match total {
        Some(total) if rows.lower > total => {
            return Err(not_satisfiable(format!(
                "An offset of {} was requested, but there are only {total} rows.",
                rows.lower
            )));
        }
        Some(total) if page < total => StatusCode::PARTIAL_CONTENT,
        Some(_) | None => StatusCode::OK,
    };
    Ok((status, content_range(rows.lower, page, total)))
}

fn content_range(lower: i64, page: i64, total: Option<i64>) -> String {
    let of = total.map_or_else(|| "*".to_owned(), |total| total.to_string());
    if page > 0 && total != Some(0) {
        format!("{lower}-{}/{of}", lower.saturating_add(page - 1))
    } else {
        format!("*/{of}")
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use axum::http::header::RANGE;

    use super::super::super::parse::{self, Pairs};
    use super::*;

    fn rows(query: &[(&str, &str)], range: Option<&str>) -> Result<Rows, RestError> {
        let pairs: Vec<(String, String)> = query
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let mut query = parse::query(&pairs, Pairs::Filters)?;
        let headers: HeaderMap = range
            .iter()
            .map(|text| (RANGE, HeaderValue::from_str(text).unwrap()))
            .collect();
        narrowed(&mut query, &headers, true)
    }

    #[test]
    fn limit_offset_and_range_are_intersected() {
        assert_eq!(rows(&[], None), Ok(Rows::ALL));
        assert_eq!(rows(&[("limit", "5"), ("offset", "2")], None), Ok(Rows::of(2, 5)));
        assert_eq!(rows(&[("limit", "5")], Some("3-9")), Ok(Rows::of(3, 2)));
        assert_eq!(rows(&[("limit", "0")], Some("3-9")), Ok(Rows::NONE));
        assert_eq!(rows(&[("limit", "x"), ("offset", "")], None), Ok(Rows::ALL));
        let far = rows(&[("limit", "99999999999999999999"), ("offset", "1")], None).unwrap();
        assert_eq!(far.lower, 1);
        for odd in ["x-1", "-", "1", "items=0-1", "1-2-3"] {
            assert_eq!(rows(&[], Some(odd)), Ok(Rows::ALL), "{odd}");
        }
        assert_eq!(rows(&[], Some("9-5")).unwrap_err().code(), "PGRST103");
        assert_eq!(rows(&[("limit", "-1")], None).unwrap_err().code(), "PGRST103");
    }

    #[test]
    fn a_page_says_where_it_stands() {
        let of = |rows, page, total| {
            status_of_page(rows, page, total).map(|(status, range)| (status.as_u16(), range))
        };
        assert_eq!(of(Rows::ALL, 5, None), Ok((200, "0-4/*".to_owned())));
        assert_eq!(of(Rows::of(1, 2), 2, Some(5)), Ok((206, "1-2/5".to_owned())));
        assert_eq!(of(Rows::ALL, 0, Some(0)), Ok((200, "*/0".to_owned())));
        assert_eq!(of(Rows::ALL, 0, None), Ok((200, "*/*".to_owned())));
        assert_eq!(of(Rows::of(9, 1), 0, Some(5)).unwrap_err().code(), "PGRST103");
    }
}

//! `Accept`: which form an answer takes.
//!
//! Called by `routes` through `request`.

use axum::http::{HeaderMap, StatusCode};

use super::super::error::RestError;

/// The forms an answer can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Media {
    Json,
    /// An array without the keys that are null.
    Stripped,
    /// Exactly one row as an object, perhaps without the keys that are null.
    Object {
        stripped: bool,
    },
    Csv,
}

impl Media {
    pub fn content_type(self) -> &'static str {
        match self {
            Media::Json => "application/json; charset=utf-8",
            Media::Stripped => "application/vnd.pgrst.array+json;nulls=stripped; charset=utf-8",
            Media::Object { stripped: false } => "application/vnd.pgrst.object+json; charset=utf-8",
            Media::Object { stripped: true } => {
                "application/vnd.pgrst.object+json;nulls=stripped; charset=utf-8"
            }
            Media::Csv => "text/csv; charset=utf-8",
        }
    }

    pub fn is_object(self) -> bool {
        matches!(self, Media::Object { .. })
    }
}

/// The media types a request accepts, best first.
pub(in super::super) fn accepted(headers: &HeaderMap) -> Vec<String> {
    let mut kinds: Vec<(f32, String)> = Vec::new();
    for value in headers
        .get_all("accept")
        .iter()
        .filter_map(|value| value.to_str().ok())
    {
        for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let quality = part
                .split(';')
                .filter_map(|parameter| parameter.trim().strip_prefix("q="))
                .find_map(|quality| quality.trim().parse::<f32>().ok());
            kinds.push((quality.unwrap_or(1.0), part.to_owned()));
        }
    }
    if kinds.is_empty() {
        return vec!["*/*".to_owned()];
    }
    kinds.sort_by(|one, two| two.0.total_cmp(&one.0));
    kinds.into_iter().map(|(_, kind)| kind).collect()
}

/// The first accepted form that can be given. Plans are not shown (`db-plan-enabled` is off, as on Supabase).
pub(in super::super) fn negotiate(headers: &HeaderMap) -> Result<Media, RestError> {
    let kinds = accepted(headers);
    kinds.iter().find_map(|kind| media(kind)).ok_or_else(|| {
        RestError::new(
            StatusCode::NOT_ACCEPTABLE,
            "PGRST107",
            format!("None of these media types are available: {}", kinds.join(", ")),
        )
    })
}

fn media(kind: &str) -> Option<Media> {
    let mut parts = kind.split(';').map(|part| part.trim().to_ascii_lowercase());
    let main = parts.next().unwrap_or_default();
    let stripped = parts.any(|part| part.replace(['"', ' '], "") == "nulls=stripped");
    match main.as_str() {
        "*/*" | "application/json" | "application/*" => Some(Media::Json),
        "application/vnd.pgrst.array+json" | "application/vnd.pgrst.array" if !stripped => Some(Media::Json),
        "application/vnd.pgrst.array+json" | "application/vnd.pgrst.array" => Some(Media::Stripped),
        "application/vnd.pgrst.object+json" | "application/vnd.pgrst.object" => {
            Some(Media::Object { stripped })
        }
        "text/csv" => Some(Media::Csv),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(accept: &'static str) -> Result<Media, RestError> {
        negotiate(&HeaderMap::from_iter([(
            axum::http::header::ACCEPT,
            HeaderValue::from_static(accept),
        )]))
    }

    #[test]
    fn the_best_form_that_can_be_given_is_taken() {
        for (accept, media) in [
            ("*/*", Media::Json),
            ("text/html, application/json;q=0.5, text/csv;q=0.9", Media::Csv),
            (
                "ApplicatIon/vnd.PgRsT.object+json",
                Media::Object { stripped: false },
            ),
            (
                "application/vnd.pgrst.object+json; nulls=stripped",
                Media::Object { stripped: true },
            ),
            ("application/vnd.pgrst.array+json;nulls=stripped", Media::Stripped),
            ("application/vnd.pgrst.array+json", Media::Json),
        ] {
            assert_eq!(of(accept), Ok(media), "{accept}");
        }
        assert_eq!(negotiate(&HeaderMap::new()), Ok(Media::Json));
        for refused in ["text/html", "application/vnd.pgrst.plan+json", "image/png"] {
            assert_eq!(of(refused).unwrap_err().code(), "PGRST107");
        }
    }
}

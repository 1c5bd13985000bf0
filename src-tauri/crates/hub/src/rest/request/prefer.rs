//! `Prefer`: what a request wants to be done and to get back.
//!
//! The first value of a kind counts. Called by `routes` through `request`.

use axum::http::HeaderMap;

use super::super::error::RestError;
use super::super::plan::Resolution;

/// `return=…`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Return {
    Representation,
    Minimal,
    HeadersOnly,
}

/// `count=…`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Count {
    Exact,
    Planned,
    Estimated,
}

/// All preferences of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in super::super) struct Prefer {
    pub resolution: Option<Resolution>,
    pub returns: Option<Return>,
    pub count: Option<Count>,
    /// `missing=default` (true) or `missing=null`.
    pub defaults: Option<bool>,
    /// `handling=strict` (true) or `handling=lenient`.
    pub strict: Option<bool>,
    pub timezone: Option<String>,
    pub max_affected: Option<i64>,
    invalid: Vec<String>,
}

/// What kind of request `Preference-Applied` belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Of {
    Read,
    /// Whether a conflict could be resolved at all.
    Insert {
        resolvable: bool,
    },
    Put,
    Update,
    Delete,
    Call,
}

impl Prefer {
    /// Reads the headers; a transaction cannot be rolled back by wish, so `tx=` is known and has no effect.
    pub fn read(headers: &HeaderMap) -> Prefer {
        let mut prefer = Prefer::default();
        let lines = headers
            .get_all("prefer")
            .iter()
            .filter_map(|value| value.to_str().ok());
        for word in lines
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
            match word {
                "return=representation" => _ = prefer.returns.get_or_insert(Return::Representation),
                "return=minimal" => _ = prefer.returns.get_or_insert(Return::Minimal),
                "return=headers-only" => _ = prefer.returns.get_or_insert(Return::HeadersOnly),
                "count=exact" => _ = prefer.count.get_or_insert(Count::Exact),
                "count=planned" => _ = prefer.count.get_or_insert(Count::Planned),
                "count=estimated" => _ = prefer.count.get_or_insert(Count::Estimated),
                "resolution=ignore-duplicates" => _ = prefer.resolution.get_or_insert(Resolution::Ignore),
                "resolution=merge-duplicates" => _ = prefer.resolution.get_or_insert(Resolution::Merge),
                "missing=default" => _ = prefer.defaults.get_or_insert(true),
                "missing=null" => _ = prefer.defaults.get_or_insert(false),
                "handling=strict" => _ = prefer.strict.get_or_insert(true),
                "handling=lenient" => _ = prefer.strict.get_or_insert(false),
                "tx=commit" | "tx=rollback" => {}
                other => prefer.other(other),
            }
        }
        prefer
    }

    fn other(&mut self, word: &str) {
        if let Some(zone) = word.strip_prefix("timezone=") {
            self.timezone.get_or_insert_with(|| zone.to_owned());
        } else if let Some(number) = word.strip_prefix("max-affected=") {
            self.max_affected = self.max_affected.or_else(|| number.parse().ok());
        } else {
            self.invalid.push(word.to_owned());
        }
    }

    /// PGRST122 for a preference nobody knows, when that must not be.
    pub fn checked(&self) -> Result<(), RestError> {
        if self.strict != Some(true) || self.invalid.is_empty() {
            return Ok(());
        }
        Err(
            RestError::bad("PGRST122", "Invalid preferences given with handling=strict")
                .with_details(format!("Invalid preferences: {}", self.invalid.join(", "))),
        )
    }

    /// How many rows may be changed, where that is to be enforced.
    pub fn most(&self) -> Option<i64> {
        self.max_affected.filter(|_| self.strict == Some(true))
    }

    /// Whether rows are counted with a statement.
    pub fn counts(&self) -> bool {
        matches!(self.count, Some(Count::Exact | Count::Estimated))
    }

    /// `Preference-Applied`, empty when there is nothing to say.
    pub fn applied(&self, to: Of) -> String {
        let change = matches!(to, Of::Insert { .. } | Of::Put | Of::Update | Of::Delete);
        let mut words: Vec<String> = Vec::new();
        let mut say = |text: &str| words.push(text.to_owned());
        if to == (Of::Insert { resolvable: true }) {
            match self.resolution {
                Some(Resolution::Merge) => say("resolution=merge-duplicates"),
                Some(Resolution::Ignore) => say("resolution=ignore-duplicates"),
                None => {}
            }
        }
        if matches!(to, Of::Insert { .. } | Of::Update) {
            match self.defaults {
                Some(true) => say("missing=default"),
                Some(false) => say("missing=null"),
                None => {}
            }
        }
        match self.returns.filter(|_| change) {
            Some(Return::Representation) => say("return=representation"),
            Some(Return::Minimal) => say("return=minimal"),
            Some(Return::HeadersOnly) => say("return=headers-only"),
            None => {}
        }
        match self.count {
            Some(Count::Exact) => say("count=exact"),
            Some(Count::Planned) => say("count=planned"),
            Some(Count::Estimated) => say("count=estimated"),
            None => {}
        }
        match self.strict {
            Some(true) => say("handling=strict"),
            Some(false) => say("handling=lenient"),
            None => {}
        }
        if let Some(zone) = &self.timezone {
            say(&format!("timezone={zone}"));
        }
        if let Some(most) = self
            .most()
            .filter(|_| matches!(to, Of::Update | Of::Delete | Of::Call))
        {
            say(&format!("max-affected={most}"));
        }
        words.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(lines: &[&'static str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for line in lines {
            map.append("prefer", HeaderValue::from_static(line));
        }
        map
    }

    #[test]
    fn preferences_may_be_one_list_or_several_headers_and_the_first_counts() {
        let prefer = Prefer::read(&headers(&[
            "return=representation,   count=exact, resolution=ignore-duplicates",
            "resolution=merge-duplicates, max-affected=100, timezone=America/Los_Angeles, tx=rollback",
        ]));
        assert_eq!(prefer.resolution, Some(Resolution::Ignore));
        assert_eq!(
            (prefer.count, prefer.max_affected),
            (Some(Count::Exact), Some(100))
        );
        assert_eq!(prefer.most(), None, "only with handling=strict");
        assert!(prefer.checked().is_ok());
        assert_eq!(
            prefer.applied(Of::Insert { resolvable: true }),
            "resolution=ignore-duplicates, return=representation, count=exact, timezone=America/Los_Angeles"
        );
        assert_eq!(
            prefer.applied(Of::Read),
            "count=exact, timezone=America/Los_Angeles"
        );
    }

    #[test]
    fn an_unknown_preference_is_refused_when_handling_is_strict() {
        let strict = Prefer::read(&headers(&[
            "handling=strict, anything, tx=commit, max-affected=2",
        ]));
        let RestError::Coded(coded) = strict.checked().unwrap_err() else {
            panic!("coded")
        };
        assert_eq!(coded.details, Some("Invalid preferences: anything".into()));
        assert_eq!(strict.applied(Of::Delete), "handling=strict, max-affected=2");
        assert!(Prefer::read(&headers(&["anything"])).checked().is_ok());
    }
}

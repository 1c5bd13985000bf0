//! One condition of a rule: what is looked for, and where.

use memchr::memmem::Finder;
use regex::{Regex, RegexBuilder};

use super::frame::{Frame, Hit, Region, squeeze};

/// Longest text or expression of a condition, in characters. A sentence of a screen is shorter.
pub(super) const PATTERN_CHARS_MAX: usize = 500;
/// Largest compiled expression, in bytes: room for the classes of Unicode, none for a repetition of repetitions.
const EXPRESSION_BYTES_MAX: usize = 1 << 20;

/// What is looked for.
#[derive(Debug, Clone)]
pub(super) enum Matcher {
    /// The part of the screen is there.
    Exists,
    /// A text; blanks and row ends do not count.
    Contains(Box<Finder<'static>>),
    /// A row that begins so; blanks do not count.
    Starts(String),
    /// A row that is nothing but this; blanks do not count.
    Row(String),
    /// A row that this expression matches.
    Matches(Regex),
}

/// What is looked for, and where.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub(super) region: Region,
    pub(super) matcher: Matcher,
}

impl Condition {
    pub(super) fn find(&self, frame: &Frame<'_>) -> Option<Hit> {
        match &self.matcher {
            Matcher::Exists if self.region == Region::Title => Some(Hit { row: None }),
            Matcher::Exists => frame.range(self.region).map(|range| Hit {
                row: Some(range.start),
            }),
            Matcher::Contains(needle) => frame.find(self.region, needle),
            Matcher::Starts(needle) => frame.find_start(self.region, needle),
            Matcher::Row(needle) => frame.find_row(self.region, needle),
            Matcher::Matches(expression) => frame.find_match(self.region, expression),
        }
    }
}

/// A text to look for, without its blanks; or what is wrong with it.
pub(super) fn needle(text: &str) -> Result<String, String> {
    let needle = squeeze(text);
    if needle.is_empty() {
        return Err("the text is empty and would match everywhere; say what to look for".to_owned());
    }
    not_too_long(text)?;
    Ok(needle)
}

/// A compiled expression; or what is wrong with it. `\b` is the one of ASCII: the one of Unicode makes the engine
/// slow wherever a screen is not plain ASCII, which is everywhere.
pub(super) fn expression(text: &str) -> Result<Regex, String> {
    not_too_long(text)?;
    let expression = RegexBuilder::new(&ascii_boundaries(text))
        .size_limit(EXPRESSION_BYTES_MAX)
        .build()
        .map_err(|error| {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default();
            format!(
                "`{text}` is no regular expression this program can use ({})",
                why.trim()
            )
        })?;
    if expression.is_match("") {
        return Err(format!(
            "`{text}` matches an empty row and so every screen; make it say more"
        ));
    }
    Ok(expression)
}

fn not_too_long(text: &str) -> Result<(), String> {
    let chars = text.chars().count();
    if chars > PATTERN_CHARS_MAX {
        return Err(format!(
            "it has {chars} characters; at most {PATTERN_CHARS_MAX} are allowed"
        ));
    }
    Ok(())
}

fn ascii_boundaries(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            // `\b{start}` and its like are other things.
            Some('b') if chars.peek() != Some(&'{') => out.push_str(r"(?-u:\b)"),
            Some(next) => out.extend(['\\', next]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_boundaries_are_those_of_ascii() {
        assert_eq!(ascii_boundaries(r"\bdone\b"), r"(?-u:\b)done(?-u:\b)");
        assert_eq!(ascii_boundaries(r"a\\b\b{start}\."), r"a\\b\b{start}\.");
        assert!(expression(r"\bdone\b").unwrap().is_match("완료done완료"));
    }

    #[test]
    fn what_would_match_everything_or_cost_too_much_is_refused() {
        for bad in [
            "",
            "x*",
            "(",
            "(?:a{1000}){1000}",
            &"x".repeat(PATTERN_CHARS_MAX + 1),
        ] {
            assert!(expression(bad).is_err(), "{bad:.20}");
        }
        assert!(needle("  \u{a0}").is_err());
        assert_eq!(needle("Do you\u{a0}want"), Ok("Doyouwant".to_owned()));
    }
}

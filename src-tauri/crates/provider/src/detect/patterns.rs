//! The patterns of an office: what the final message of a turn must say to count as complete, and what makes it an
//! error, each beside what this program knows by itself.
//!
//! They are matched against the final message as the program reported it, never against a screen, and never inside of
//! code blocks: there stands what somebody else wrote.

use std::sync::Arc;

use regex::Regex;

use super::fault::DetectorFault;
use super::matcher::expression;
use super::meaning::MATCHED_CHARS_MAX;

/// Patterns of a kind, at most.
pub const PATTERNS_MAX: usize = 32;
/// Lines of a message that are looked at, counted from its end.
const LINES_MAX: usize = 2_000;

/// Names of the settings of an office.
const COMPLETION: &str = "completion_patterns";
const ERRORS: &str = "error_patterns";

/// The patterns of an office and of the owner's files. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct OfficePatterns {
    completion: Vec<Arc<Regex>>,
    errors: Vec<Arc<Regex>>,
}

/// What a pattern found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternHit {
    /// The pattern as it was written.
    pub pattern: String,
    /// The line it was found in, without blanks around it, at most [`MATCHED_CHARS_MAX`] characters.
    pub line: String,
}

impl OfficePatterns {
    /// Reads `completion_patterns` and `error_patterns` of an office's settings. What cannot be used is left out and
    /// told; other settings are not looked at.
    pub fn parse(settings: &serde_json::Value) -> (OfficePatterns, Vec<DetectorFault>) {
        let mut patterns = OfficePatterns::default();
        let mut faults = Vec::new();
        for name in [COMPLETION, ERRORS] {
            let mut fault = |key: String, what: String| {
                faults.push(DetectorFault {
                    file: None,
                    line: None,
                    key,
                    what,
                });
            };
            let texts = match settings.get(name) {
                None | Some(serde_json::Value::Null) => continue,
                Some(serde_json::Value::Array(texts)) => texts,
                Some(_) => {
                    fault(
                        name.to_owned(),
                        "a list of regular expressions is wanted".to_owned(),
                    );
                    continue;
                }
            };
            for (at, text) in texts.iter().enumerate() {
                let added = match text.as_str() {
                    None => Err("a regular expression in quotes is wanted".to_owned()),
                    Some(text) if name == COMPLETION => patterns.add_completion(text),
                    Some(text) => patterns.add_error(text),
                };
                if let Err(what) = added {
                    fault(format!("{name}[{at}]"), what);
                }
            }
        }
        (patterns, faults)
    }

    /// These and others besides.
    pub fn with(&self, others: &OfficePatterns) -> OfficePatterns {
        let joined = |ours: &[Arc<Regex>], theirs: &[Arc<Regex>]| {
            let mut all = ours.to_vec();
            all.extend(theirs.iter().cloned());
            all.truncate(2 * PATTERNS_MAX);
            all
        };
        OfficePatterns {
            completion: joined(&self.completion, &others.completion),
            errors: joined(&self.errors, &others.errors),
        }
    }

    /// Whether the last line of a final message that says something, outside of code blocks, matches a completion
    /// pattern. A message whose last line stands in a code block ends with something that was quoted: it does not.
    pub fn completes(&self, final_message: &str) -> Option<PatternHit> {
        if self.completion.is_empty() {
            return None;
        }
        let (line, quoted) = lines(final_message)
            .into_iter()
            .rfind(|(line, _)| !line.is_empty())?;
        if quoted { None } else { hit(&self.completion, line) }
    }

    /// Whether any line of a final message outside of code blocks matches an error pattern; the last one that does.
    pub fn error_in(&self, final_message: &str) -> Option<PatternHit> {
        if self.errors.is_empty() {
            return None;
        }
        let lines = lines(final_message);
        let spoken = lines.into_iter().rev().filter(|(_, quoted)| !quoted);
        spoken
            .take(LINES_MAX)
            .find_map(|(line, _)| hit(&self.errors, line))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.completion.is_empty() && self.errors.is_empty()
    }

    pub(super) fn add_completion(&mut self, text: &str) -> Result<(), String> {
        add(&mut self.completion, text)
    }

    pub(super) fn add_error(&mut self, text: &str) -> Result<(), String> {
        add(&mut self.errors, text)
    }
}

fn add(patterns: &mut Vec<Arc<Regex>>, text: &str) -> Result<(), String> {
    if patterns.len() >= PATTERNS_MAX {
        return Err(format!("at most {PATTERNS_MAX} patterns are allowed"));
    }
    patterns.push(Arc::new(expression(text)?));
    Ok(())
}

fn hit(patterns: &[Arc<Regex>], line: &str) -> Option<PatternHit> {
    let found = patterns.iter().find(|pattern| pattern.is_match(line))?;
    Some(PatternHit {
        pattern: found.as_str().to_owned(),
        line: line.chars().take(MATCHED_CHARS_MAX).collect(),
    })
}

/// The lines of a Markdown text without blanks around them, and whether each belongs to a code block. A fence that is
/// never closed holds to the end; a fence line belongs to its block.
fn lines(text: &str) -> Vec<(&str, bool)> {
    let mut open: Option<(char, usize)> = None;
    let mut after_blank = true;
    let mut found = Vec::new();
    for line in text.lines() {
        let shown = line.trim();
        let fence = fence_of(shown);
        let quoted = match (open, fence) {
            (None, Some((sign, count, _))) => {
                open = Some((sign, count));
                true
            }
            (Some((sign, count)), Some((its, more, bare))) if its == sign && more >= count && bare => {
                open = None;
                true
            }
            (Some(_), _) => true,
            // Four blanks after an empty line are a code block too.
            (None, None) => after_blank && !shown.is_empty() && is_indented(line),
        };
        let continues = found.last().is_some_and(|(_, quoted): &(&str, bool)| *quoted) && is_indented(line);
        found.push((
            shown,
            quoted || (open.is_none() && continues && !shown.is_empty()),
        ));
        after_blank = shown.is_empty();
    }
    found
}

/// The sign of a fence, how many of it, and whether nothing follows it.
fn fence_of(shown: &str) -> Option<(char, usize, bool)> {
    let sign = shown.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let count = shown.chars().take_while(|c| *c == sign).count();
    let rest = &shown[count..];
    // An opening fence of backquotes has none behind it, else it is code within a sentence.
    (count >= 3 && !(sign == '`' && rest.contains('`'))).then(|| (sign, count, rest.trim().is_empty()))
}

fn is_indented(line: &str) -> bool {
    line.starts_with("    ") || line.starts_with('\t')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patterns() -> OfficePatterns {
        let (patterns, faults) = OfficePatterns::parse(&json!({
            "completion_patterns": [r"^ALL DONE\b", "완료되었습니다"],
            "error_patterns": [r"(?i)\bbuild failed\b"],
            "warm_roles": ["FE"],
        }));
        assert_eq!(faults, []);
        patterns
    }

    #[test]
    fn the_last_line_that_says_something_decides() {
        let completes = |text: &str| patterns().completes(text).is_some();
        assert!(completes("I did it.\n\n  ALL DONE here\n\n"));
        assert!(completes("작업이 완료되었습니다."));
        assert!(!completes("ALL DONE\nbut one thing is left"));
        assert!(!completes("It is not ALL DONE"));
        assert!(!completes(""));
    }

    #[test]
    fn what_stands_in_a_code_block_is_somebody_elses() {
        let completes = |text: &str| patterns().completes(text).is_some();
        assert!(!completes("Print this:\n```\nALL DONE\n```"));
        assert!(!completes("Print this:\n~~~text\nALL DONE"), "a fence left open");
        assert!(!completes("Print this:\n\n    ALL DONE"));
        assert!(!completes("Print this:\n\n    first\n    ALL DONE"));
        assert!(
            !completes("````\n```\nALL DONE"),
            "a shorter fence closes nothing"
        );
        assert!(completes("```\ncode\n```\nALL DONE"));
        assert!(completes("```sh\necho `x`\n```\n\nALL DONE"));
        assert!(completes("a list:\n    - deep\nALL DONE"));
    }

    #[test]
    fn an_error_is_found_in_any_line_outside_of_code() {
        let found = patterns().error_in("First it ran.\nThe Build Failed twice.\nThen it worked.");
        assert_eq!(found.unwrap().line, "The Build Failed twice.");
        assert_eq!(
            patterns().error_in("It says:\n```\nbuild failed\n```\nand then passed"),
            None
        );
        assert_eq!(patterns().error_in("rebuild failedness"), None);
    }

    #[test]
    fn what_cannot_be_used_is_left_out_and_told() {
        let (patterns, faults) = OfficePatterns::parse(&json!({
            "completion_patterns": ["(", 7, "DONE$"],
            "error_patterns": "x",
        }));
        let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(faults.len(), 3, "{told:?}");
        assert!(
            told[0].starts_with("completion_patterns[0]: `(` is no regular expression"),
            "{told:?}"
        );
        assert!(told[1].starts_with("completion_patterns[1]: "), "{told:?}");
        assert!(told[2].starts_with("error_patterns: a list"), "{told:?}");
        assert!(patterns.completes("DONE").is_some(), "the good one works");
    }

    #[test]
    fn their_number_is_limited() {
        let many = vec!["x"; PATTERNS_MAX + 1];
        let (_, faults) = OfficePatterns::parse(&json!({ "error_patterns": many }));
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].key, format!("error_patterns[{PATTERNS_MAX}]"));
    }

    #[test]
    fn settings_without_patterns_have_none() {
        for settings in [
            json!({}),
            json!(null),
            json!({ "error_patterns": null }),
            json!(3),
        ] {
            let (patterns, faults) = OfficePatterns::parse(&settings);
            assert!(patterns.is_empty() && faults.is_empty(), "{settings}");
        }
    }
}

//! Numbers, times and outside text in a form for people. Nothing here knows what it speaks of.

use domain::Timestamp;

/// `1 file`, `2 files`.
pub fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A span that was measured, from milliseconds: `0.6 s`, `2 min 5 s`.
pub fn span(ms: u64) -> String {
    match ms {
        0..=59_999 => format!("{:.1} s", ms as f64 / 1000.0),
        _ => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
    }
}

/// How long something has been so, in the one unit that matters: `12 s`, `3 min`, `2 h`, `4 d`.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    match now.ms_since(since) / 1000 {
        s @ 0..=99 => format!("{s} s"),
        s @ 100..=5_999 => format!("{} min", s / 60),
        s @ 6_000..=172_799 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

/// Hour, minute and second. In UTC, and it says so.
pub fn clock(at: Timestamp) -> String {
    at.rfc3339()
        .split_once('T')
        .map(|(_, time)| format!("{} UTC", time.chars().take(8).collect::<String>()))
        .unwrap_or_default()
}

/// A retry as the core tells it, without what it says twice: the program's own words may count the tries already.
pub fn retry(words: &str) -> &str {
    match words.rsplit_once(" (try ") {
        Some((own, _)) if own.contains("attempt") => own,
        _ => words,
    }
}

/// What a start made of a command that the core before it had left open; `None` for a word of a newer version.
pub fn recovered_words(recovered: &str) -> Option<&'static str> {
    match recovered {
        "followed" => Some("the core was restarted while this ran; the agent went on"),
        "reported" => Some("it ended while no core ran; its result was read from what the agent wrote down"),
        "run_again" => Some("the core was restarted before this had begun; it was begun then, once"),
        "unknown" => Some(
            "the core was restarted in the midst of this; it is not known whether it took effect, and it was not done again",
        ),
        _ => None,
    }
}

/// Writes out what a terminal would obey or not show: control characters, and those that turn or hide text.
pub fn shown(line: &str) -> String {
    let hides = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut text = String::with_capacity(line.len());
    for c in line.chars() {
        if hides(c) {
            text.extend(c.escape_unicode());
        } else {
            text.push(c);
        }
    }
    text
}

/// One line of at most `chars_max` characters.
pub fn clipped(text: &str, chars_max: usize) -> String {
    let one_line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let mut short: String = shown(one_line.trim()).chars().take(chars_max).collect();
    if one_line.trim().chars().count() > chars_max {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_told_as_people_say_them() {
        assert_eq!(
            (count(1, "file").as_str(), count(0, "file").as_str()),
            ("1 file", "0 files")
        );
        assert_eq!(
            (span(595).as_str(), span(125_400).as_str()),
            ("0.6 s", "2 min 5 s")
        );
        let ago = |s: i64| age(Timestamp(0), Timestamp(s * 1000));
        assert_eq!(
            [ago(12), ago(180), ago(7_200), ago(345_600)],
            ["12 s", "3 min", "2 h", "4 d"]
        );
        assert_eq!(clock(Timestamp(1_767_225_661_500)), "00:01:01 UTC");
    }

    #[test]
    fn a_retry_is_counted_once() {
        let twice = "API error · Retrying in 1s · attempt 3/10 (try 3 of 10, again in 1 s)";
        assert_eq!(retry(twice), "API error · Retrying in 1s · attempt 3/10");
        assert_eq!(retry("overloaded (try 3 of 10)"), "overloaded (try 3 of 10)");
    }

    #[test]
    fn outside_text_moves_no_cursor_and_hides_nothing() {
        assert_eq!(shown("a\u{1b}[2J\u{202e}b"), "a\\u{1b}[2J\\u{202e}b");
        assert_eq!(clipped(" a\nb\u{200b} ", 20), "a b\\u{200b}");
        assert_eq!(clipped("abcdef", 3), "abc…");
    }
}

//! `ban_duration` as GoTrue reads it: a length of time in Go's notation. Called by `admin`.

/// Longest ban, in seconds: what Go's `time.Duration` can hold, about 292 years.
const SECONDS_MAX: f64 = 9_223_372_036.0;

/// Seconds of `1h30m`, `1.5h`, `100ms`, …; `none` is 0. `None` for anything else.
pub(crate) fn seconds(text: &str) -> Option<f64> {
    if text == "none" || text == "0" {
        return Some(0.0);
    }
    let (mut rest, mut total) = (text, 0.0);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let letters = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number * scale;
        rest = tail;
    }
    (total <= SECONDS_MAX).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("24h", 86_400.0),
            ("1h30m", 5_400.0),
            ("1.5h", 5_400.0),
            ("300ms", 0.3),
            ("none", 0.0),
            ("876000h", 3_153_600_000.0),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for bad in [
            "",
            "h",
            "1",
            "1d",
            "-1h",
            "1h ",
            "forever",
            "1..5h",
            "99999999999h",
            "1µ",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}

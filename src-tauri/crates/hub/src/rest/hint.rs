//! The closest of some names to one that was not found, for hints.
//!
//! Pure and bounded: long names and long lists are not compared. Called by `plan`.

/// How alike the name of a table or function must be.
pub(super) const NAME: f64 = 0.75;
/// How alike anything else must be.
pub(super) const ANY: f64 = 0.33;
/// Longest name that is compared, and how many names at most.
const LETTERS_MAX: usize = 256;
const NAMES_MAX: usize = 1000;

/// The name most like `wanted`, if one is at least `least` like it (1: the same).
pub(super) fn closest<'n>(wanted: &str, names: impl Iterator<Item = &'n str>, least: f64) -> Option<String> {
    if wanted.len() > LETTERS_MAX {
        return None;
    }
    let wanted = wanted.to_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for name in names.take(NAMES_MAX).filter(|name| name.len() <= LETTERS_MAX) {
        let score = likeness(&wanted, &name.to_lowercase());
        if score >= least && best.is_none_or(|(known, _)| score > known) {
            best = Some((score, name));
        }
    }
    best.map(|(_, name)| name.to_owned())
}

/// Postgres's own proposal for a column: at most three letters and half of the name may differ.
pub(super) fn column<'n>(wanted: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    const LETTERS_OTHER_MAX: usize = 3;
    if wanted.len() > LETTERS_MAX {
        return None;
    }
    let letters: Vec<char> = wanted.chars().collect();
    let found = names
        .take(NAMES_MAX)
        .map(|name| (distance(&letters, &name.chars().collect::<Vec<char>>()), name))
        .min_by_key(|(distance, _)| *distance);
    found
        .filter(|(distance, _)| *distance <= LETTERS_OTHER_MAX.min(wanted.len() / 2))
        .map(|(_, name)| name)
}

/// 1 minus the share of letters to be changed.
fn likeness(one: &str, two: &str) -> f64 {
    let (one, two): (Vec<char>, Vec<char>) = (one.chars().collect(), two.chars().collect());
    let longest = one.len().max(two.len());
    if longest == 0 {
        return 0.0;
    }
    #[allow(clippy::cast_precision_loss, reason = "both are lengths of short names")]
    let share = distance(&one, &two) as f64 / longest as f64;
    1.0 - share
}

/// Letters to be changed, added or taken away to make one of the other.
fn distance(one: &[char], two: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (line, a) in one.iter().enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        let mut next = vec![left];
        for (b, above) in two.iter().zip(row.iter().skip(1)) {
            let changed = diagonal + usize::from(a != b);
            diagonal = *above;
            left = changed.min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_that_is_like_enough_is_proposed() {
        let names = ["films", "directors", "roles"];
        let of = |wanted: &str, least| closest(wanted, names.into_iter(), least);
        assert_eq!(of("film", NAME).as_deref(), Some("films"));
        assert_eq!(of("role", ANY).as_deref(), Some("roles"));
        assert_eq!(of("noclosealternative", ANY), None);
        assert_eq!(of(&"x".repeat(10_000), ANY), None);
        for (wanted, found) in [("titel", Some("title")), ("nothing", None), ("i", None)] {
            assert_eq!(column(wanted, ["id", "title"].into_iter()), found);
        }
        let calls = ["(name, param, val)", "(attr, id)"];
        let found = closest("(param, val)", calls.into_iter(), ANY);
        assert_eq!(found.as_deref(), Some("(name, param, val)"));
    }
}

//! Ids as people write them: whole, or their beginning, as long as that names one thing.

use serde_json::Value;

/// Shortest beginning that is taken. A slip of two characters must not end a session.
pub const SHORT_ID_CHARS_MIN: usize = 4;
/// How many of several that fit are named.
const NAMED_MAX: usize = 5;

/// Why a beginning names nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotOne {
    /// It is shorter than [`SHORT_ID_CHARS_MIN`].
    TooShort,
    /// Nothing begins so.
    Nothing,
    /// All these do.
    Several(Vec<String>),
}

impl NotOne {
    /// For people: `what` is the kind of thing, `wanted` what they wrote.
    pub fn words(&self, what: &str, wanted: &str) -> String {
        match self {
            NotOne::TooShort => {
                format!(
                    "`{wanted}` is too short for a {what}: at least {SHORT_ID_CHARS_MIN} characters of its id are needed"
                )
            }
            NotOne::Nothing => format!("there is no {what} whose id begins with `{wanted}`"),
            NotOne::Several(ids) => {
                let named: Vec<_> = ids.iter().take(NAMED_MAX).map(String::as_str).collect();
                let more = if ids.len() > NAMED_MAX { " …" } else { "" };
                format!(
                    "`{wanted}` is the beginning of {} {what}s: {}{more}",
                    ids.len(),
                    named.join(", ")
                )
            }
        }
    }
}

/// The one of `items` whose `key` is `wanted` or begins with it.
pub fn pick<'a>(items: &'a [Value], key: &str, wanted: &str) -> Result<&'a Value, NotOne> {
    let id = |item: &'a Value| item[key].as_str().unwrap_or_default();
    if let Some(whole) = items.iter().find(|item| id(item) == wanted && !wanted.is_empty()) {
        return Ok(whole);
    }
    if wanted.chars().count() < SHORT_ID_CHARS_MIN {
        return Err(NotOne::TooShort);
    }
    // Ids are shown in small letters, and copied by people.
    let small = wanted.to_lowercase();
    let found: Vec<_> = items.iter().filter(|item| id(item).starts_with(&small)).collect();
    match found.as_slice() {
        [] => Err(NotOne::Nothing),
        [one] => Ok(one),
        several => Err(NotOne::Several(
            several.iter().map(|item| id(item).to_owned()).collect(),
        )),
    }
}

/// The beginning of an id that is shown.
pub fn short(id: &Value) -> String {
    id.as_str().unwrap_or("-").chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_beginning_names_one_thing_or_says_why_it_does_not() {
        let items = [json!({"id": "abcd1"}), json!({"id": "abcd2"}), json!({"id": "c"})];
        for (wanted, index) in [("abcd2", 1), ("ABCD1", 0), ("c", 2)] {
            assert_eq!(pick(&items, "id", wanted), Ok(&items[index]), "{wanted}");
        }
        let several = NotOne::Several(vec!["abcd1".to_owned(), "abcd2".to_owned()]);
        for (wanted, why) in [
            ("abcd", several),
            ("abc", NotOne::TooShort),
            ("", NotOne::TooShort),
            ("xxxx", NotOne::Nothing),
        ] {
            assert_eq!(pick(&items, "id", wanted), Err(why), "{wanted}");
        }
    }

    #[test]
    fn each_reason_has_its_own_words() {
        assert!(
            NotOne::TooShort
                .words("session", "ab")
                .contains("at least 4 characters")
        );
        assert!(
            NotOne::Nothing
                .words("session", "abcd")
                .contains("no session whose id begins")
        );
        let several = NotOne::Several(vec!["abcd1".to_owned(), "abcd2".to_owned()]);
        assert!(
            several
                .words("command", "abcd")
                .contains("2 commands: abcd1, abcd2")
        );
    }
}

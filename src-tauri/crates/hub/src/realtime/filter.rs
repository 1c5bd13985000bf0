//! The `filter` of a postgres_changes subscription: `column=op.value`, joined by commas.
//!
//! Pure and total. Called by `changes`.

use serde_json::{Map, Value};

/// Values in one `in` list.
const LIST_MAX: usize = 100;
/// Conditions in one filter.
const CONDITIONS_MAX: usize = 20;

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub column: String,
    negated: bool,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Equal(String),
    Less(String),
    LessOrEqual(String),
    Greater(String),
    GreaterOrEqual(String),
    OneOf(Vec<String>),
    IsNull,
}

/// Reads a filter; the error text goes into the `system` message.
pub(crate) fn read(text: &str) -> Result<Vec<Condition>, String> {
    let pieces = split(text);
    if pieces.len() > CONDITIONS_MAX {
        return Err(format!("more than {CONDITIONS_MAX} conditions"));
    }
    pieces
        .into_iter()
        .filter(|piece| !piece.is_empty())
        .map(condition)
        .collect()
}

fn condition(text: &str) -> Result<Condition, String> {
    let (column, rest) = text
        .split_once('=')
        .ok_or_else(|| format!("no `=` in `{text}`"))?;
    let (negated, rest) = rest
        .strip_prefix("not.")
        .map_or((false, rest), |rest| (true, rest));
    let (name, value) = rest
        .split_once('.')
        .ok_or_else(|| format!("no operator in `{text}`"))?;
    let plain = unquoted(value);
    let (flip, test) = match name {
        "eq" => (false, Test::Equal(plain)),
        "neq" => (true, Test::Equal(plain)),
        "lt" => (false, Test::Less(plain)),
        "lte" => (false, Test::LessOrEqual(plain)),
        "gt" => (false, Test::Greater(plain)),
        "gte" => (false, Test::GreaterOrEqual(plain)),
        "is" if value.eq_ignore_ascii_case("null") => (false, Test::IsNull),
        "in" => {
            let inner = value
                .strip_prefix('(')
                .and_then(|rest| rest.strip_suffix(')'))
                .ok_or_else(|| format!("no list in `{text}`"))?;
            let values: Vec<String> = split(inner).into_iter().map(unquoted).collect();
            if values.len() > LIST_MAX {
                return Err(format!("more than {LIST_MAX} values in a list"));
            }
            (false, Test::OneOf(values))
        }
        _ => return Err(format!("the operator `{name}` is not supported")),
    };
    Ok(Condition {
        column: column.to_owned(),
        negated: negated != flip,
        test,
    })
}

impl Condition {
    /// True when the row satisfies this condition; a null or absent column satisfies only `is.null`.
    pub fn holds(&self, row: &Map<String, Value>) -> bool {
        let value = row.get(&self.column).filter(|value| !value.is_null());
        if self.test == Test::IsNull {
            return value.is_none() != self.negated;
        }
        let Some(value) = value else { return false };
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let order = |other: &str| match (text.parse::<f64>(), other.parse::<f64>()) {
            (Ok(left), Ok(right)) => left.total_cmp(&right),
            _ => text.as_str().cmp(other),
        };
        let same = |other: &String| text == *other || order(other).is_eq();
        let holds = match &self.test {
            Test::Equal(other) => same(other),
            Test::Less(other) => order(other).is_lt(),
            Test::LessOrEqual(other) => order(other).is_le(),
            Test::Greater(other) => order(other).is_gt(),
            Test::GreaterOrEqual(other) => order(other).is_ge(),
            Test::OneOf(others) => others.iter().any(same),
            Test::IsNull => false,
        };
        holds != self.negated
    }
}

/// Splits at commas outside parentheses and quotes.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut escaped, mut start) = (0u32, false, false, 0);
    let mut pieces = Vec::new();
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth = depth.saturating_sub(1),
            ',' if !quoted && depth == 0 => {
                pieces.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(&text[start..]);
    pieces
}

fn unquoted(text: &str) -> String {
    match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(filter: &str, row: Value) -> bool {
        let row = row.as_object().unwrap();
        read(filter).unwrap().iter().all(|condition| condition.holds(row))
    }

    #[test]
    fn conditions_are_joined_and_compared_by_value() {
        assert!(holds("office_id=eq.o1", json!({"office_id": "o1"})));
        assert!(!holds("office_id=eq.o1", json!({"office_id": "o2"})));
        assert!(!holds("office_id=eq.o1", json!({"office_id": null})));
        assert!(
            !holds("office_id=neq.o1", json!({})),
            "a missing column satisfies nothing"
        );
        assert!(holds(
            "seq=gt.9,kind=in.(a,\"b,c\")",
            json!({"seq": 10, "kind": "b,c"})
        ));
        assert!(
            !holds("seq=lt.9", json!({"seq": 10})),
            "numbers are not compared as text"
        );
        assert!(holds("kind=not.in.(a,b)", json!({"kind": "c"})));
        assert!(holds("x=is.null", json!({})));
        assert!(holds("", json!({})));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in ["a", "a=1", "a=zz.1", "a=in.1", "a=like.x"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}

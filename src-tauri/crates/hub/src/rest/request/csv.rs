//! CSV bodies: a line of names, then rows; `NULL` without quotes or with is null.
//!
//! Called by `body`. Holds one row at a time: a short body of many short rows must not become a large one in memory.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

use axum::http::StatusCode;

use super::super::error::RestError;

/// Longest name of a column, in bytes: longer ones Postgres cuts off.
const NAME_BYTES_MAX: usize = 63;
/// Fields of a row: Postgres has no table with more columns.
pub(super) const COLUMNS_MAX: usize = 1600;
/// Longest JSON that rows may become, in bytes: the names stand in every row there.
const JSON_BYTES_MAX: usize = 32 * 1024 * 1024;

fn invalid(message: impl Into<String>) -> RestError {
    RestError::bad("PGRST102", message)
}

/// The rows as a JSON array of objects. Where PostgREST has a text for an error, it is PostgREST's.
pub(super) fn to_json(text: &str) -> Result<String, RestError> {
    let mut lines = Records {
        characters: text.chars().peekable(),
    };
    let names = lines.next()?.ok_or_else(|| invalid("not enough input"))?;
    check_names(&names)?;
    let names: Vec<String> = names.into_iter().map(quoted).collect();
    let mut json = "[".to_owned();
    while let Some(fields) = lines.next()? {
        if fields.len() != names.len() {
            return Err(invalid("All lines must have same number of fields"));
        }
        json.push_str(if json.len() > 1 { ",{" } else { "{" });
        for (place, (name, field)) in names.iter().zip(fields).enumerate() {
            if place > 0 {
                json.push(',');
            }
            json.push_str(name);
            json.push(':');
            if field == "NULL" {
                json.push_str("null");
            } else {
                json.push_str(&quoted(field));
            }
        }
        json.push('}');
        if json.len() > JSON_BYTES_MAX {
            return Err(RestError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "PGRST102",
                format!("the rows have more than {JSON_BYTES_MAX} bytes as JSON; send them in parts"),
            ));
        }
    }
    json.push(']');
    Ok(json)
}

/// A JSON string.
fn quoted(text: String) -> String {
    serde_json::Value::String(text).to_string()
}

fn check_names(names: &[String]) -> Result<(), RestError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if name.len() > NAME_BYTES_MAX {
            return Err(invalid(format!(
                "a column name is longer than {NAME_BYTES_MAX} bytes"
            )));
        }
        if !seen.insert(name) {
            return Err(invalid(format!("the column {name} is named twice")));
        }
    }
    Ok(())
}

/// RFC 4180: fields may be quoted, quotes in them are doubled. Empty lines are left out.
struct Records<'t> {
    characters: Peekable<Chars<'t>>,
}

impl Records<'_> {
    /// The next line that is not empty.
    fn next(&mut self) -> Result<Option<Vec<String>>, RestError> {
        let mut fields: Vec<String> = Vec::new();
        let mut field = String::new();
        let mut quoted = false;
        while let Some(character) = self.characters.next() {
            match character {
                '"' if quoted && self.characters.peek() == Some(&'"') => {
                    self.characters.next();
                    field.push('"');
                }
                '"' if quoted => quoted = false,
                other if quoted => field.push(other),
                '"' if field.is_empty() => quoted = true,
                ',' if fields.len() >= COLUMNS_MAX => {
                    return Err(invalid(format!("a line has more than {COLUMNS_MAX} fields")));
                }
                ',' => fields.push(std::mem::take(&mut field)),
                '\r' if self.characters.peek() == Some(&'\n') => {}
                '\n' if fields.is_empty() && field.is_empty() => {}
                '\n' => {
                    fields.push(field);
                    return Ok(Some(fields));
                }
                other => field.push(other),
            }
        }
        if quoted {
            return Err(invalid("a quoted field has no end"));
        }
        if fields.is_empty() && field.is_empty() {
            return Ok(None);
        }
        fields.push(field);
        Ok(Some(fields))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn fields_may_hold_commas_quotes_and_lines() {
        let json = to_json("a,b\r\n1,\"x, \"\"y\"\"\nz\"\n\nNULL,\n").unwrap();
        let rows: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            rows,
            serde_json::json!([{"a": "1", "b": "x, \"y\"\nz"}, {"a": null, "b": ""}])
        );
        assert!(to_json("a,b\n1\n").is_err() && to_json("").is_err() && to_json("a\n\"x").is_err());
        assert_eq!(to_json("a,b").unwrap(), "[]");
    }

    #[test]
    fn a_short_body_never_becomes_a_large_one() {
        let refused = |text: &str| match to_json(text) {
            Err(RestError::Coded(coded)) => coded.status.as_u16(),
            other => panic!("{other:?}"),
        };
        // One long name, which would stand in every row.
        assert_eq!(
            refused(&format!("{}\n{}", "a".repeat(64), "1\n".repeat(1000))),
            400
        );
        assert_eq!(refused(&",".repeat(COLUMNS_MAX + 1)), 400);
        assert_eq!(refused(&format!("a\n{}", ",".repeat(1_000_000))), 400);
        assert_eq!(refused("a,b,a\n1,2,3"), 400);
        let longest = "a".repeat(NAME_BYTES_MAX);
        assert_eq!(
            to_json(&format!("{longest}\n1\n")).unwrap(),
            format!("[{{\"{longest}\":\"1\"}}]")
        );
        assert_eq!(refused(&format!("{longest}\n{}", "1\n".repeat(1_000_000))), 413);
    }
}

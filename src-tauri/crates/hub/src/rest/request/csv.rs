//! CSV bodies: a line of names, then rows; `NULL` without quotes or with is null.
//!
//! Called by `body`.

use serde_json::{Map, Value};

/// The rows as a JSON array of objects. The text of an error is PostgREST's.
pub(super) fn to_json(text: &str) -> Result<String, String> {
    let mut lines = records(text)?.into_iter();
    let names = lines.next().ok_or("not enough input")?;
    let mut rows = Vec::new();
    for fields in lines {
        if fields.len() != names.len() {
            return Err("All lines must have same number of fields".to_owned());
        }
        let row: Map<String, Value> = names
            .iter()
            .cloned()
            .zip(fields)
            .map(|(name, field)| {
                (
                    name,
                    if field == "NULL" {
                        Value::Null
                    } else {
                        Value::String(field)
                    },
                )
            })
            .collect();
        rows.push(Value::Object(row));
    }
    Ok(Value::Array(rows).to_string())
}

/// RFC 4180: fields may be quoted, quotes in them are doubled. Empty lines are left out.
fn records(text: &str) -> Result<Vec<Vec<String>>, String> {
    let mut records = Vec::new();
    let mut fields: Vec<String> = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            other if quoted => field.push(other),
            '"' if field.is_empty() => quoted = true,
            ',' => fields.push(std::mem::take(&mut field)),
            '\r' if characters.peek() == Some(&'\n') => {}
            '\n' => {
                if !fields.is_empty() || !field.is_empty() {
                    fields.push(std::mem::take(&mut field));
                    records.push(std::mem::take(&mut fields));
                }
            }
            other => field.push(other),
        }
    }
    if quoted {
        return Err("a quoted field has no end".to_owned());
    }
    if !fields.is_empty() || !field.is_empty() {
        fields.push(field);
        records.push(fields);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
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
}

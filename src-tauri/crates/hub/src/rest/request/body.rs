//! Bodies: JSON as it came (numbers keep every digit), CSV, forms, and whatever is the one argument of a function.
//!
//! Called by `routes` through `request`.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::error::RestError;
use super::csv;

/// Fields of a form: no table has more columns, and no function more arguments.
const FORM_PAIRS_MAX: usize = csv::COLUMNS_MAX;

/// What a body is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Target {
    Table,
    Function,
}

/// A body.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Payload {
    /// JSON text, not parsed beyond the keys of its objects.
    Json {
        text: String,
        keys: BTreeSet<String>,
        /// One object; else an array of them.
        object: bool,
    },
    /// Arguments as a form.
    Form {
        pairs: Vec<(String, String)>,
        keys: BTreeSet<String>,
    },
    /// The one argument of a function: its type, and the value as Postgres reads it.
    Whole { kind: &'static str, text: String },
}

static NO_KEYS: BTreeSet<String> = BTreeSet::new();

impl Payload {
    pub fn keys(&self) -> &BTreeSet<String> {
        match self {
            Payload::Json { keys, .. } | Payload::Form { keys, .. } => keys,
            Payload::Whole { .. } => &NO_KEYS,
        }
    }

    /// The type of the one argument it can be.
    pub fn whole(&self) -> Option<&'static str> {
        match self {
            Payload::Json { .. } => Some("json"),
            Payload::Form { .. } => None,
            Payload::Whole { kind, .. } => Some(kind),
        }
    }

    /// The text that goes to Postgres.
    pub fn text(&self) -> &str {
        match self {
            Payload::Json { text, .. } | Payload::Whole { text, .. } => text,
            Payload::Form { .. } => "{}",
        }
    }

    pub fn is_object(&self) -> bool {
        matches!(self, Payload::Json { object: true, .. } | Payload::Form { .. })
    }
}

fn invalid(message: impl Into<String>) -> RestError {
    RestError::bad("PGRST102", message)
}

/// Reads a body of the type `content`. With `columns` named, JSON is not looked into: Postgres will say what is wrong.
pub(in super::super) fn payload(
    body: &[u8],
    content: &str,
    target: Target,
    columns: bool,
) -> Result<Payload, RestError> {
    let kind = content
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    match (kind.as_str(), target) {
        ("application/json" | "", _) => json(body, target, columns),
        ("text/csv", _) => {
            let text = utf8(body)?;
            shaped(csv::to_json(text)?, "All lines must have same number of fields")
        }
        ("application/x-www-form-urlencoded", Target::Function) => {
            let pairs = form(body)?;
            let keys = pairs.iter().map(|(name, _)| name.clone()).collect();
            Ok(Payload::Form { pairs, keys })
        }
        ("application/x-www-form-urlencoded", Target::Table) => {
            let map = form(body)?.into_iter().map(|(name, value)| (name, value.into()));
            let object = serde_json::Value::Object(map.collect());
            shaped(object.to_string(), "")
        }
        ("text/plain", Target::Function) => whole("text", utf8(body)?.to_owned()),
        ("text/xml", Target::Function) => whole("xml", utf8(body)?.to_owned()),
        ("application/octet-stream", Target::Function) => {
            let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
            whole("bytea", format!("\\x{hex}"))
        }
        (other, _) => Err(invalid(format!("Content-Type not acceptable: {other}"))),
    }
}

#[allow(clippy::unnecessary_wraps, reason = "one arm of a match of results")]
fn whole(kind: &'static str, text: String) -> Result<Payload, RestError> {
    Ok(Payload::Whole { kind, text })
}

/// `a=1&b=x+y`; a form has no way to be wrong but to be too long.
fn form(body: &[u8]) -> Result<Vec<(String, String)>, RestError> {
    let pairs = || body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    if pairs().nth(FORM_PAIRS_MAX).is_some() {
        return Err(invalid(format!("the form has more than {FORM_PAIRS_MAX} fields")));
    }
    let pairs = pairs().map(|pair| {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let mut next = || decoded(halves.next().unwrap_or_default());
        (next(), next())
    });
    Ok(pairs.collect())
}

fn decoded(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let hex = text
            .get(at + 1..at + 3)
            .filter(|_| *byte == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        at += if hex.is_some() { 3 } else { 1 };
        bytes.push(hex.unwrap_or(if *byte == b'+' { b' ' } else { *byte }));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn utf8(body: &[u8]) -> Result<&str, RestError> {
    std::str::from_utf8(body)
        .map_err(|_| invalid("Empty or invalid json").with_details("the body is not UTF-8"))
}

fn json(body: &[u8], target: Target, columns: bool) -> Result<Payload, RestError> {
    let text = utf8(body)?;
    if columns {
        return Ok(Payload::Json {
            text: text.to_owned(),
            keys: BTreeSet::new(),
            object: text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{'),
        });
    }
    if text.is_empty() && target == Target::Function {
        return shaped("{}".to_owned(), "");
    }
    shaped(text.to_owned(), "All object keys must match")
}

/// The payload of a JSON text whose objects have the same keys.
fn shaped(text: String, uneven: &str) -> Result<Payload, RestError> {
    let shape: Shape = serde_json::from_str(&text).map_err(|_| invalid("Empty or invalid json"))?;
    match shape {
        Shape::Object(keys) => Ok(Payload::Json {
            text,
            keys,
            object: true,
        }),
        Shape::Rows(keys) => Ok(Payload::Json {
            text,
            keys,
            object: false,
        }),
        Shape::Uneven => Err(invalid(uneven)),
        // PostgREST takes anything else for no rows.
        Shape::Other => Ok(Payload::Json {
            text: "[]".to_owned(),
            keys: BTreeSet::new(),
            object: false,
        }),
    }
}

/// What a JSON text is, by the keys of its objects; nothing else of it is kept.
enum Shape {
    Object(BTreeSet<String>),
    /// An array of objects with these keys, or an empty one.
    Rows(BTreeSet<String>),
    /// An array of something else.
    Uneven,
    Other,
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shape, D::Error> {
        deserializer.deserialize_any(Look { inside: false })
    }
}

/// An element of an array: the keys of an object, or nothing.
struct Element(Option<BTreeSet<String>>);

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Element, D::Error> {
        let shape = deserializer.deserialize_any(Look { inside: true })?;
        Ok(Element(match shape {
            Shape::Object(keys) => Some(keys),
            Shape::Rows(_) | Shape::Uneven | Shape::Other => None,
        }))
    }
}

struct Look {
    inside: bool,
}

impl<'de> Visitor<'de> for Look {
    type Value = Shape;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut keys = BTreeSet::new();
        while let Some((key, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
            keys.insert(key);
        }
        Ok(Shape::Object(keys))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shape, A::Error> {
        if self.inside {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Shape::Other);
        }
        let (mut first, mut uneven) = (None, false);
        while let Some(Element(keys)) = items.next_element()? {
            match (keys, &first) {
                (None, _) => uneven = true,
                (Some(keys), None) => first = Some(keys),
                (Some(keys), Some(known)) => uneven |= keys != *known,
            }
        }
        Ok(if uneven {
            Shape::Uneven
        } else {
            Shape::Rows(first.unwrap_or_default())
        })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape::Other)
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(body: &[u8]) -> Result<Payload, RestError> {
        payload(body, "application/json", Target::Table, false)
    }

    #[test]
    fn numbers_keep_every_digit() {
        let body = br#"[{"a":123456789012345678901234567890.12345}]"#;
        assert_eq!(table(body).unwrap().text().as_bytes(), body);
    }

    #[test]
    fn rows_must_have_the_same_keys_unless_columns_are_named() {
        let body = br#"[{"a":1},{"b":2}]"#;
        assert_eq!(table(body).unwrap_err().code(), "PGRST102");
        let named = payload(body, "application/json; charset=utf-8", Target::Table, true).unwrap();
        assert!(named.keys().is_empty() && !named.is_object());
        assert!(table(b"[1]").is_err() && table(b"").is_err() && table(b"{").is_err());
        assert_eq!(table(b"7").unwrap().text(), "[]");
        assert!(table(b" {\"a\":[{\"b\":1}]}").unwrap().is_object());
    }

    #[test]
    fn a_body_that_nests_deeply_is_no_danger() {
        let deep = "[".repeat(200_000);
        assert!(table(deep.as_bytes()).is_err());
        let object = format!("{{\"a\":{}1{}}}", "[".repeat(200_000), "]".repeat(200_000));
        drop(table(object.as_bytes()));
    }

    #[test]
    fn functions_take_forms_texts_and_bytes() {
        let form = payload(
            b"a=1&b=x+y&a=2",
            "application/x-www-form-urlencoded",
            Target::Function,
            false,
        )
        .unwrap();
        assert!(matches!(&form, Payload::Form { pairs, .. } if pairs[1].1 == "x y" && pairs.len() == 3));
        let bytes = payload(&[0, 255], "application/octet-stream", Target::Function, false).unwrap();
        assert_eq!((bytes.whole(), bytes.text()), (Some("bytea"), "\\x00ff"));
        assert!(payload(b"x", "text/plain", Target::Table, false).is_err());
        assert_eq!(payload(b"", "", Target::Function, false).unwrap().text(), "{}");
        for target in [Target::Function, Target::Table] {
            let form = |pairs| {
                payload(
                    "a&".repeat(pairs).as_bytes(),
                    "application/x-www-form-urlencoded",
                    target,
                    false,
                )
            };
            assert!(form(FORM_PAIRS_MAX).is_ok());
            assert_eq!(form(FORM_PAIRS_MAX + 1).unwrap_err().code(), "PGRST102");
        }
    }
}

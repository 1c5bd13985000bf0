//! The `filter` of a postgres_changes subscription: `column=op.value`, joined by commas.
//!
//! Pure and total: it says what is asked for, the database says later whether that can be compared. Called by
//! `binding`.

/// Conditions in one filter.
pub(crate) const CONDITIONS_MAX: usize = 20;

/// How a column is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Eq,
    Neq,
    Lt,
    Lte,
    Gt,
    Gte,
    In,
    Like,
    Ilike,
    Is,
    Match,
    Imatch,
    IsDistinct,
}

impl Op {
    const ALL: [(&'static str, Op); 13] = [
        ("eq", Op::Eq),
        ("neq", Op::Neq),
        ("lt", Op::Lt),
        ("lte", Op::Lte),
        ("gt", Op::Gt),
        ("gte", Op::Gte),
        ("in", Op::In),
        ("like", Op::Like),
        ("ilike", Op::Ilike),
        ("is", Op::Is),
        ("match", Op::Match),
        ("imatch", Op::Imatch),
        ("isdistinct", Op::IsDistinct),
    ];

    /// The name clients use.
    pub fn name(self) -> &'static str {
        Op::ALL
            .iter()
            .find(|(_, op)| *op == self)
            .map_or("", |(name, _)| name)
    }
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub column: String,
    pub negated: bool,
    pub op: Op,
    /// For `in` an array in PostgreSQL's own notation, else the value without its quotes.
    pub value: String,
}

/// Reads a filter; the error text goes into the `system` message.
pub(crate) fn read(text: &str) -> Result<Vec<Condition>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let pieces = split(text);
    if pieces.len() > CONDITIONS_MAX {
        return Err(format!(
            "filter must not contain more than {CONDITIONS_MAX} conditions"
        ));
    }
    pieces.into_iter().map(|piece| condition(piece.trim())).collect()
}

fn condition(text: &str) -> Result<Condition, String> {
    if text.is_empty() {
        return Err("filter must not contain empty segments (check for extra commas)".to_owned());
    }
    let (column, rest) = text.split_once('=').ok_or_else(|| format!("[{text:?}]"))?;
    let (negated, rest) = rest
        .strip_prefix("not.")
        .map_or((false, rest), |rest| (true, rest));
    let (name, value) = rest.split_once('.').ok_or_else(|| format!("[{rest:?}]"))?;
    let known = Op::ALL.iter().find(|(known, _)| *known == name);
    let (_, op) = *known.ok_or_else(|| format!("[{name:?}, {value:?}]"))?;
    let value = match op {
        Op::In => value
            .strip_prefix('(')
            .and_then(|rest| rest.strip_suffix(')'))
            .map(|inner| format!("{{{inner}}}"))
            .ok_or("`in` filter value must be wrapped by parentheses")?,
        _ => unquoted(value),
    };
    Ok(Condition {
        column: column.to_owned(),
        negated,
        op,
        value,
    })
}

/// Splits at commas outside parentheses and quotes. A quote opens only right after `.`, `(` or `,`.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut escaped, mut start, mut before) = (0u32, false, false, 0, '\0');
    let mut pieces = Vec::new();
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' if quoted => quoted = false,
            _ if quoted => {}
            '"' if matches!(before, '.' | '(' | ',') => quoted = true,
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                pieces.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        before = character;
    }
    pieces.push(&text[start..]);
    pieces
}

/// Without its quotes, if it is quoted as a whole.
fn unquoted(text: &str) -> String {
    let Some(rest) = text.strip_prefix('"') else {
        return text.to_owned();
    };
    let mut plain = String::with_capacity(rest.len());
    let mut characters = rest.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' if characters.as_str().is_empty() => return plain,
            '"' => break,
            '\\' => match characters.next() {
                Some(escaped) => plain.push(escaped),
                None => break,
            },
            other => plain.push(other),
        }
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> (String, bool, Op, String) {
        let all = read(text).unwrap();
        assert_eq!(all.len(), 1, "{text}");
        let Condition {
            column,
            negated,
            op,
            value,
        } = all.into_iter().next().unwrap();
        (column, negated, op, value)
    }

    fn condition(column: &str, negated: bool, op: Op, value: &str) -> (String, bool, Op, String) {
        (column.to_owned(), negated, op, value.to_owned())
    }

    #[test]
    fn all_operators_and_their_negation_are_read() {
        for (name, op) in Op::ALL {
            assert_eq!(op.name(), name);
            let (value, expected) = if op == Op::In {
                ("(a,b)", "{a,b}")
            } else {
                ("a.b", "a.b")
            };
            assert_eq!(
                one(&format!("c={name}.{value}")),
                condition("c", false, op, expected)
            );
            assert_eq!(
                one(&format!("c=not.{name}.{value}")),
                condition("c", true, op, expected)
            );
        }
        assert_eq!(one("x=is.null"), condition("x", false, Op::Is, "null"));
        assert_eq!(one("a=eq.b=c"), condition("a", false, Op::Eq, "b=c"));
        assert_eq!(read("").unwrap(), []);
        assert_eq!(read("   ").unwrap(), []);
    }

    #[test]
    fn commas_split_only_outside_lists_and_quotes() {
        let all = read(r#"id=gt.0, kind=in.(a,"b,c"),name=eq."x, \"y\"",z=eq.a"b"#).unwrap();
        let values: Vec<&str> = all.iter().map(|condition| condition.value.as_str()).collect();
        assert_eq!(values, ["0", r#"{a,"b,c"}"#, r#"x, "y""#, r#"a"b"#]);
        assert_eq!(
            read(r#"a=eq.x"y,b=eq.1"#).unwrap().len(),
            2,
            "a quote inside opens nothing"
        );
        assert_eq!(one(r#"a=eq."open"#).3, r#""open"#);
        assert_eq!(one(r#"a=eq."x"y"#).3, r#""x"y"#);
    }

    #[test]
    fn what_is_not_understood_is_refused_in_the_originals_words() {
        for (bad, words) in [
            ("undefined", r#"["undefined"]"#),
            ("subject=foo.hey", r#"["foo", "hey"]"#),
            ("a=1", r#"["1"]"#),
            ("a=in.1", "`in` filter value must be wrapped by parentheses"),
            (
                "a=eq.1,,b=eq.2",
                "filter must not contain empty segments (check for extra commas)",
            ),
        ] {
            assert_eq!(read(bad).unwrap_err(), words, "{bad}");
        }
        assert!(read(&vec!["a=eq.1"; CONDITIONS_MAX + 1].join(",")).is_err());
    }
}

//! Columns, JSON paths, `order=`.
//!
//! Called by the other modules of `parse`.

use super::super::ast::{Field, Key, Order, Step};
use super::cursor::{Cursor, Read};
use super::{DEPTH_MAX, ITEMS_MAX};

/// `column->a->>b`, blanks around it.
pub(super) fn field(cursor: &mut Cursor<'_>) -> Read<Field> {
    cursor.blanks();
    let column = cursor.name()?;
    let path = json_path(cursor)?;
    cursor.blanks();
    Ok(Field { column, path })
}

pub(super) fn json_path(cursor: &mut Cursor<'_>) -> Read<Vec<Step>> {
    let mut path = Vec::new();
    while cursor.eat("->") {
        let as_text = cursor.eat(">");
        path.push(Step {
            as_text,
            key: key(cursor)?,
        });
        if path.len() > DEPTH_MAX {
            return Err(cursor.limit("steps in a JSON path", DEPTH_MAX));
        }
    }
    Ok(path)
}

fn key(cursor: &mut Cursor<'_>) -> Read<Key> {
    let start = cursor.at();
    let negative = cursor.eat("-");
    let digits = cursor.while_is(|c| c.is_ascii_digit());
    let ends = cursor.is_end()
        || ["->", "::", ".", ",", ")"]
            .iter()
            .any(|end| cursor.rest().starts_with(end));
    if !digits.is_empty() && ends {
        return Ok(Key::Index(format!("{}{digits}", if negative { "-" } else { "" })));
    }
    if negative {
        return Err(cursor.fault("digit"));
    }
    cursor.go(start);
    if cursor.peek() == Some('"') {
        return Ok(Key::Name(cursor.quoted()?));
    }
    const EXPECTING: &str = "any non reserved character different from: .,>()";
    let plain = |c: char| !matches!(c, '(' | '-' | ':' | '.' | ',' | '>' | ')');
    let mut name = String::new();
    loop {
        let word = cursor.while_is(plain);
        if word.is_empty() {
            return Err(cursor.fault(EXPECTING));
        }
        name.push_str(word.trim());
        if !cursor.rest().starts_with('-') || cursor.rest().starts_with("->") {
            return Ok(Key::Name(name));
        }
        cursor.eat("-");
        name.push('-');
    }
}

/// `a.desc.nullslast,relation(b).asc`
pub(super) fn order(cursor: &mut Cursor<'_>) -> Read<Vec<Order>> {
    let mut terms = Vec::new();
    loop {
        terms.push(term(cursor)?);
        if terms.len() > ITEMS_MAX {
            return Err(cursor.limit("order terms", ITEMS_MAX));
        }
        cursor.blanks();
        if !cursor.eat(",") {
            cursor.end("\",\" or end of input")?;
            return Ok(terms);
        }
    }
}

fn term(cursor: &mut Cursor<'_>) -> Read<Order> {
    cursor.blanks();
    let start = cursor.at();
    let first = cursor.name()?;
    let (relation, by) = if cursor.eat("(") {
        let by = field(cursor)?;
        cursor.expect(")", "\")\"")?;
        (Some(first), by)
    } else {
        cursor.go(start);
        (None, field(cursor)?)
    };
    let direction = match () {
        () if cursor.eat(".asc") => "ASC",
        () if cursor.eat(".desc") => "DESC",
        () => "",
    };
    let nulls = match () {
        () if cursor.eat(".nullsfirst") => "NULLS FIRST",
        () if cursor.eat(".nullslast") => "NULLS LAST",
        () => "",
    };
    cursor.blanks();
    if cursor.is_end() || cursor.peek() == Some(',') {
        return Ok(Order {
            relation,
            field: by,
            direction,
            nulls,
        });
    }
    if cursor.eat(".") {
        let expecting = if direction.is_empty() {
            "\"asc\", \"desc\", \"nullsfirst\" or \"nullslast\""
        } else {
            "\"nullsfirst\" or \"nullslast\""
        };
        return Err(cursor.fault(expecting));
    }
    Err(cursor.fault("delimiter (.), \",\" or end of input"))
}

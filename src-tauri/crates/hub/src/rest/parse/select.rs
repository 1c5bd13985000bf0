//! `select=`: columns, renames, casts, embedded relations.
//!
//! Called by `parse`.

use super::super::ast::Field;
use super::super::ast::{Embed, Item};
use super::cursor::{Cursor, Fault, Read};
use super::field::json_path;
use super::{EMBED_DEPTH_MAX, ITEMS_MAX};

/// The whole list.
pub(super) fn select(text: &str) -> Read<Vec<Item>> {
    let mut cursor = Cursor::new(text);
    let mut left = ITEMS_MAX;
    let items = forest(&mut cursor, 0, &mut left)?;
    cursor.end("\",\" or end of input")?;
    Ok(items)
}

fn forest(cursor: &mut Cursor<'_>, depth: usize, left: &mut usize) -> Read<Vec<Item>> {
    if depth > EMBED_DEPTH_MAX {
        return Err(cursor.limit("levels of embedded relations", EMBED_DEPTH_MAX));
    }
    let mut items = Vec::new();
    cursor.blanks();
    if cursor.is_end() || (depth > 0 && cursor.peek() == Some(')')) {
        return Ok(items);
    }
    loop {
        *left = left
            .checked_sub(1)
            .ok_or_else(|| cursor.limit("entries in `select`", ITEMS_MAX))?;
        items.push(item(cursor, depth, left)?);
        cursor.blanks();
        if !cursor.eat(",") {
            return Ok(items);
        }
    }
}

fn item(cursor: &mut Cursor<'_>, depth: usize, left: &mut usize) -> Read<Item> {
    cursor.blanks();
    if cursor.eat("...") {
        let relation = cursor.name()?;
        return embed(cursor, relation, None, true, depth, left);
    }
    if cursor.eat("*") {
        return ends(cursor, "\")\", \",\" or end of input").map(|()| Item::Star);
    }
    let alias = alias(cursor);
    let start = cursor.at();
    if cursor.eat("count()") {
        return aggregate(cursor);
    }
    let column = cursor.name()?;
    if column != "count" && matches!(cursor.peek(), Some('(' | '!')) {
        let here = cursor.at();
        return embed(cursor, column, alias, false, depth, left).map_err(|fault| {
            // Without its parenthesis it was meant as a column.
            if fault.is_at(here) {
                cursor.fault("\"->>\", \"->\", \"::\", \".\", \")\", \",\" or end of input")
            } else {
                fault
            }
        });
    }
    debug_assert!(cursor.at() > start);
    let path = json_path(cursor)?;
    cursor.blanks();
    let cast = cast(cursor)?;
    if cursor.eat(".") {
        for name in ["sum", "avg", "count", "max", "min"] {
            if cursor.eat(name) {
                cursor.expect("()", "\"()\"")?;
                return aggregate(cursor);
            }
        }
        return Err(cursor.fault("\"sum\", \"avg\", \"count\", \"max\" or \"min\""));
    }
    cursor.blanks();
    ends(
        cursor,
        "\"->>\", \"->\", \"::\", \".\", \")\", \",\" or end of input",
    )?;
    Ok(Item::Field {
        field: Field { column, path },
        alias,
        cast,
    })
}

/// `alias:` before a column or relation, if there is one (`::` is a cast).
fn alias(cursor: &mut Cursor<'_>) -> Option<String> {
    let start = cursor.at();
    if let Ok(alias) = cursor.name()
        && !cursor.rest().starts_with("::")
        && cursor.eat(":")
    {
        return Some(alias);
    }
    cursor.go(start);
    None
}

fn cast(cursor: &mut Cursor<'_>) -> Read<Option<String>> {
    if !cursor.eat("::") {
        return Ok(None);
    }
    Ok(Some(cursor.identifier()?.to_owned()))
}

fn aggregate(cursor: &mut Cursor<'_>) -> Read<Item> {
    cast(cursor)?;
    cursor.blanks();
    ends(cursor, "\"::\", \")\", \",\" or end of input").map(|()| Item::Aggregate)
}

fn embed(
    cursor: &mut Cursor<'_>,
    relation: String,
    alias: Option<String>,
    spread: bool,
    depth: usize,
    left: &mut usize,
) -> Read<Item> {
    let (mut hint, mut inner) = (None, None);
    for _ in 0..2 {
        if !cursor.eat("!") {
            break;
        }
        let word = cursor.name()?;
        match word.as_str() {
            "inner" => inner = inner.or(Some(true)),
            "left" => inner = inner.or(Some(false)),
            _ => hint = hint.or(Some(word)),
        }
    }
    cursor.expect("(", "\"(\"")?;
    let items = forest(cursor, depth + 1, left)?;
    cursor.expect(")", "\")\" or \",\"")?;
    Ok(Item::Embed(Embed {
        relation,
        alias,
        hint,
        inner: inner.unwrap_or(false),
        spread,
        items,
    }))
}

fn ends(cursor: &Cursor<'_>, expecting: &'static str) -> Result<(), Fault> {
    if cursor.is_end() || matches!(cursor.peek(), Some(',' | ')')) {
        Ok(())
    } else {
        Err(cursor.fault(expecting))
    }
}

//! Reads the query string (PostgREST's grammar) into a [`Query`]. Total: any text gives a tree or PGRST100.
//!
//! Depth and number of everything are limited, so that no text can fill the stack or the memory. Pure; called by
//! `routes` and by the fuzzer.

mod cursor;
mod field;
mod filter;
mod select;
#[cfg(test)]
mod tests;

use self::cursor::Cursor;
use self::filter::{Budget, Value};
use super::ast::{Filter, Path, Query, Rows};
use super::error::RestError;

/// Deepest nesting of `and(…)`/`or(…)`, longest JSON path.
pub(super) const DEPTH_MAX: usize = 16;
/// Deepest nesting of embedded relations.
pub(super) const EMBED_DEPTH_MAX: usize = 12;
/// Most query parameters, select entries or order terms in one request.
pub(super) const ITEMS_MAX: usize = 200;
/// Most conditions in one request.
pub(super) const CONDITIONS_MAX: usize = 2000;

/// Whether pairs that do not read as filters are the arguments of a function (GET of one) or faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pairs {
    Filters,
    FiltersAndArguments,
}

/// What `limit` or `offset` say at each level.
type Given<'q> = Vec<(Path, &'q str)>;

/// Reads all pairs of a query string.
pub(crate) fn query(pairs: &[(String, String)], kind: Pairs) -> Result<Query, RestError> {
    if pairs.len() > ITEMS_MAX {
        return Err(RestError::too_much("query parameters", ITEMS_MAX));
    }
    let mut query = Query::default();
    let mut budget = Budget::default();
    let (mut limits, mut offsets) = (Given::new(), Given::new());
    let mut seen_select = false;
    for (name, value) in pairs {
        let last = name.rsplit('.').next().unwrap_or_default();
        match (name.as_str(), last) {
            // The gateway's, not PostgREST's.
            ("apikey", _) => {}
            // Given twice, the first one counts.
            ("select", _) if seen_select => {}
            ("select", _) => {
                seen_select = true;
                query.select = select::select(value).map_err(|f| f.told("select parameter", value))?;
            }
            ("columns", _) => {
                let names = Cursor::new(value).names();
                let names = names.map_err(|f| f.told("columns parameter", value))?;
                query.columns.get_or_insert(names);
            }
            ("on_conflict", _) => {
                let names = Cursor::new(value).names();
                let names = names.map_err(|f| f.told("on_conflict parameter", value))?;
                query.on_conflict.get_or_insert(names);
            }
            (_, "order") => {
                let order = field::order(&mut Cursor::new(value)).map_err(|f| f.told("order", value))?;
                query.order.push((level(name)?, order));
            }
            (_, "limit") => limits.push((level(name)?, value)),
            (_, "offset") => offsets.push((level(name)?, value)),
            (_, "and" | "or") => logic(&mut query, &mut budget, name, value)?,
            _ => filter(&mut query, name, value, kind)?,
        }
    }
    query.rows = rows(&limits, &offsets);
    Ok(query)
}

/// The path before the last word of `a.b.order`.
fn level(name: &str) -> Result<Path, RestError> {
    let mut path = path(name, "tree path")?.0;
    path.truncate(EMBED_DEPTH_MAX + 1);
    Ok(path)
}

/// `a.b.column->x`: the levels, the column and its JSON path.
fn path(text: &str, title: &str) -> Result<(Path, super::ast::Field), RestError> {
    let mut cursor = Cursor::new(text);
    let mut read = || {
        let mut names = vec![cursor.name()?];
        while cursor.eat(".") {
            names.push(cursor.name()?);
            if names.len() > EMBED_DEPTH_MAX + 2 {
                return Err(cursor.limit("levels of embedded relations", EMBED_DEPTH_MAX));
            }
        }
        let path = field::json_path(&mut cursor)?;
        cursor.end("\"->>\", \"->\", delimiter (.) or end of input")?;
        let column = names.pop().unwrap_or_default();
        Ok((names, super::ast::Field { column, path }))
    };
    read().map_err(|fault: cursor::Fault| fault.told(title, text))
}

fn filter(query: &mut Query, name: &str, value: &str, kind: Pairs) -> Result<(), RestError> {
    let (level, field) = path(name, "tree path")?;
    let mut cursor = Cursor::new(value);
    let read = filter::test(&mut cursor, Value::Whole).and_then(|read| {
        cursor.end("end of input")?;
        Ok(read)
    });
    match read {
        Ok((negated, test)) => query.filters.push((level, Filter { field, negated, test })),
        Err(fault) if kind == Pairs::FiltersAndArguments && fault.is_at(0) => {
            query.arguments.push((field.column, value.to_owned()));
        }
        Err(fault) => return Err(fault.told("filter", value)),
    }
    Ok(())
}

/// `a.not.or=(…)`: the tree is read as if its operator stood before the parenthesis.
fn logic(query: &mut Query, budget: &mut Budget, name: &str, value: &str) -> Result<(), RestError> {
    let (mut level, field) = path(name, "logic path")?;
    let before = level.len();
    level.retain(|part| part != "not");
    let not = if level.len() == before { "" } else { "not." };
    let text = format!("{not}{}{value}", field.column);
    let mut cursor = Cursor::new(&text);
    // Else `or=a.eq.1` would be a condition on a column `ora`.
    let start = text.len() - value.len();
    let tree = if value.trim_start().starts_with('(') {
        filter::tree(&mut cursor, 0, budget).and_then(|tree| {
            cursor.end("end of input")?;
            Ok(tree)
        })
    } else {
        cursor.go(start);
        Err(cursor.fault("\"(\""))
    };
    query
        .logic
        .push((level, tree.map_err(|fault| fault.told("logic tree", &text))?));
    Ok(())
}

/// A number, or nothing when it is none: PostgREST ignores those. Too large is as large as can be.
fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let most = if text.starts_with('-') {
        i64::MIN / 2
    } else {
        i64::MAX / 2
    };
    Some(text.parse().unwrap_or(most).clamp(i64::MIN / 2, i64::MAX / 2))
}

fn rows(limits: &[(Path, &str)], offsets: &[(Path, &str)]) -> Vec<(Path, Rows)> {
    let mut levels: Vec<&Path> = limits.iter().chain(offsets).map(|(path, _)| path).collect();
    levels.sort();
    levels.dedup();
    let given = |list: &[(Path, &str)], path: &Path| {
        let found = list.iter().find(|(level, _)| level == path);
        found.and_then(|(_, text)| number(text))
    };
    let rows = levels.into_iter().map(|path| {
        let offset = given(offsets, path).unwrap_or(0).max(0);
        let rows = match given(limits, path) {
            Some(0) => Rows::NONE,
            Some(limit) => Rows::of(offset, limit),
            None => Rows {
                lower: offset,
                upper: None,
            },
        };
        (path.clone(), rows)
    });
    rows.collect()
}

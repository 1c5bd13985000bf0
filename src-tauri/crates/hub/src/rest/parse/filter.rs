//! `column=operator.value` and the trees of `and=(…)`, `or=(…)`.
//!
//! Called by `parse`.

use super::super::ast::{Filter, Test, Tree};
use super::cursor::{Cursor, Read};
use super::field::field;
use super::{CONDITIONS_MAX, DEPTH_MAX};

const OPERATOR: &str = "operator (eq, gt, ...)";

/// Operators without `(any)`/`(all)`. Longer names stand before those they begin with.
const SIMPLE: [(&str, &str); 9] = [
    ("neq", "<>"),
    ("cs", "@>"),
    ("cd", "<@"),
    ("ov", "&&"),
    ("sl", "<<"),
    ("sr", ">>"),
    ("nxr", "&<"),
    ("nxl", "&>"),
    ("adj", "-|-"),
];
/// Operators that may be quantified.
const QUANTIFIED: [(&str, &str); 9] = [
    ("eq", "="),
    ("gte", ">="),
    ("gt", ">"),
    ("lte", "<="),
    ("lt", "<"),
    ("like", "like"),
    ("ilike", "ilike"),
    ("match", "~"),
    ("imatch", "~*"),
];
const SEARCH: [(&str, &str); 4] = [
    ("fts", "to_tsquery"),
    ("plfts", "plainto_tsquery"),
    ("phfts", "phraseto_tsquery"),
    ("wfts", "websearch_to_tsquery"),
];
const IS: [(&str, &str); 5] = [
    ("null", "NULL"),
    ("not_null", "NOT NULL"),
    ("true", "TRUE"),
    ("false", "FALSE"),
    ("unknown", "UNKNOWN"),
];

/// Where a value ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// At the end of the text.
    Whole,
    /// At the next comma or parenthesis; quotes and braces protect them.
    Member,
}

/// `[not.]operator.value`
pub(super) fn test(cursor: &mut Cursor<'_>, kind: Value) -> Read<(bool, Test)> {
    let negated = cursor.eat("not.");
    Ok((negated, plain(cursor, kind)?))
}

fn plain(cursor: &mut Cursor<'_>, kind: Value) -> Read<Test> {
    let start = cursor.at();
    if cursor.eat("in.") {
        return Ok(Test::In(list(cursor)?));
    }
    if cursor.eat("is.") {
        return is(cursor);
    }
    if cursor.eat("isdistinct.") {
        return Ok(Test::IsDistinct(value(cursor, kind)));
    }
    for (name, function) in SEARCH {
        if cursor.eat(name) {
            let language = in_parentheses(cursor);
            if cursor.eat(".") {
                let value = value(cursor, kind);
                return Ok(Test::Search {
                    function,
                    language,
                    value,
                });
            }
            cursor.go(start);
        }
    }
    for (names, quantified) in [(&SIMPLE, false), (&QUANTIFIED, true)] {
        for (name, sql) in names {
            if !cursor.eat(name) {
                continue;
            }
            let quantifier = match () {
                () if quantified && cursor.eat("(any)") => Some("ANY"),
                () if quantified && cursor.eat("(all)") => Some("ALL"),
                () => None,
            };
            if cursor.eat(".") {
                return Ok(Test::Operator {
                    sql,
                    quantifier,
                    pattern: sql.ends_with("like"),
                    value: value(cursor, kind),
                });
            }
            cursor.go(start);
        }
    }
    Err(cursor.fault(OPERATOR))
}

/// The language of a text search.
fn in_parentheses(cursor: &mut Cursor<'_>) -> Option<String> {
    let start = cursor.at();
    if cursor.eat("(")
        && let Ok(word) = cursor.identifier()
        && cursor.eat(")")
    {
        return Some(word.to_owned());
    }
    cursor.go(start);
    None
}

fn is(cursor: &mut Cursor<'_>) -> Read<Test> {
    let start = cursor.at();
    let word = cursor
        .while_is(|c| c.is_ascii_alphabetic() || c == '_')
        .to_ascii_lowercase();
    match IS.iter().find(|(name, _)| *name == word) {
        Some((_, sql)) => Ok(Test::Is(sql)),
        None => {
            cursor.go(start);
            Err(cursor.fault("isVal: (null, not_null, true, false, unknown)"))
        }
    }
}

/// `(a,"b,c",d)`
fn list(cursor: &mut Cursor<'_>) -> Read<Vec<String>> {
    cursor.blanks();
    cursor.expect("(", "\"(\"")?;
    cursor.blanks();
    let mut values = Vec::new();
    loop {
        values.push(match cursor.whole_quoted() {
            Some(quoted) => quoted,
            None => cursor.while_is(|c| c != ',' && c != ')').to_owned(),
        });
        if !cursor.eat(",") {
            break;
        }
    }
    cursor.expect(")", "\",\" or \")\"")?;
    cursor.blanks();
    Ok(values)
}

fn value(cursor: &mut Cursor<'_>, kind: Value) -> String {
    if kind == Value::Whole {
        return cursor.all().to_owned();
    }
    if let Some(quoted) = cursor.whole_quoted() {
        return quoted;
    }
    let start = cursor.at();
    if cursor.eat("{") {
        let inner = cursor.while_is(|c| c != '{' && c != '}');
        if cursor.eat("}") {
            return format!("{{{inner}}}");
        }
        cursor.go(start);
    }
    cursor.while_is(|c| c != ',' && c != ')').to_owned()
}

/// How many conditions may still follow.
pub(super) struct Budget(usize);

impl Default for Budget {
    fn default() -> Budget {
        Budget(CONDITIONS_MAX)
    }
}

/// A tree that begins with its `and(`, `or(`, `not.and(` or with a condition.
pub(super) fn tree(cursor: &mut Cursor<'_>, depth: usize, budget: &mut Budget) -> Read<Tree> {
    if depth > DEPTH_MAX {
        return Err(cursor.limit("levels in a logic tree", DEPTH_MAX));
    }
    budget.0 = budget
        .0
        .checked_sub(1)
        .ok_or_else(|| cursor.limit("conditions", CONDITIONS_MAX))?;
    let start = cursor.at();
    let leaf_fault = match leaf(cursor) {
        Ok(leaf) => return Ok(leaf),
        Err(fault) => fault,
    };
    cursor.go(start);
    cursor.blanks();
    let negated = cursor.eat("not.");
    let any = match () {
        () if cursor.eat("and") => false,
        () if cursor.eat("or") => true,
        () if negated => return Err(leaf_fault.or(cursor.fault("logic operator (and, or)"))),
        () => return Err(leaf_fault),
    };
    cursor.blanks();
    if let Err(fault) = cursor.expect("(", "\"(\"") {
        return Err(leaf_fault.or(fault));
    }
    let mut members = Vec::new();
    loop {
        cursor.blanks();
        members.push(tree(cursor, depth + 1, budget)?);
        cursor.blanks();
        if !cursor.eat(",") {
            break;
        }
    }
    cursor.expect(")", "\",\" or \")\"")?;
    cursor.blanks();
    Ok(Tree::Node {
        negated,
        any,
        members,
    })
}

fn leaf(cursor: &mut Cursor<'_>) -> Read<Tree> {
    let field = field(cursor)?;
    cursor.expect(".", "\"->>\", \"->\" or delimiter (.)")?;
    let (negated, test) = test(cursor, Value::Member)?;
    Ok(Tree::Leaf(Filter { field, negated, test }))
}

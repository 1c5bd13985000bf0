//! Reads the query string (PostgREST's grammar) into a [`Query`]. Total: any text gives a plan or PGRST100.
//!
//! Depth and number of conditions are limited. Called by `routes`.

use super::error::RestError;
use super::plan::{Condition, Field, Order, Query, Selected, Step, Test};

/// Deepest nesting of `and(…)`/`or(…)`, longest row of `not.` before one operator.
const DEPTH_MAX: usize = 16;
/// Most conditions, select entries or order terms in one request.
const ITEMS_MAX: usize = 200;

/// Names that are never columns to filter by.
const RESERVED: [&str; 8] = [
    "select",
    "order",
    "limit",
    "offset",
    "on_conflict",
    "columns",
    "apikey",
    "and",
];

/// Whether unknown pairs are filters of a table or arguments of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pairs {
    Filters,
    /// Of a function called by GET, which has these argument names.
    Arguments,
}

/// Reads all pairs of a query string. `is_argument` tells which names are a function's arguments (GET rpc).
pub(crate) fn query(
    pairs: &[(String, String)],
    is_argument: impl Fn(&str) -> Option<Pairs>,
) -> Result<Query, RestError> {
    let mut query = Query {
        select: vec![Selected::Star],
        conditions: Vec::new(),
        order: Vec::new(),
        limit: None,
        offset: 0,
        on_conflict: Vec::new(),
        columns: None,
        arguments: Vec::new(),
    };
    if pairs.len() > ITEMS_MAX {
        return Err(RestError::query(format!(
            "more than {ITEMS_MAX} query parameters"
        )));
    }
    for (name, value) in pairs {
        match name.as_str() {
            "apikey" => {}
            "select" => query.select = select(value)?,
            // Given twice, the first one wins, as in PostgREST.
            "order" if query.order.is_empty() => query.order = order(value)?,
            "order" => {}
            "limit" => query.limit = Some(number("limit", value)?),
            "offset" => query.offset = number("offset", value)?,
            "on_conflict" => query.on_conflict = names(value)?,
            "columns" => query.columns = Some(names(value)?),
            "and" => query.conditions.push(Condition::All(list(value, 0)?)),
            "or" => query.conditions.push(Condition::Any(list(value, 0)?)),
            "not.and" => query
                .conditions
                .push(Condition::Not(Box::new(Condition::All(list(value, 0)?)))),
            "not.or" => query
                .conditions
                .push(Condition::Not(Box::new(Condition::Any(list(value, 0)?)))),
            other => match is_argument(other) {
                Some(Pairs::Arguments) => query.arguments.push((name.clone(), value.clone())),
                Some(Pairs::Filters) | None => query.conditions.push(test(field(other)?, value)?),
            },
        }
    }
    debug_assert!(query.conditions.len() <= pairs.len() + RESERVED.len());
    Ok(query)
}

fn number(name: &str, value: &str) -> Result<u64, RestError> {
    value
        .parse()
        .ok()
        .filter(|n| *n <= i64::MAX as u64)
        .ok_or_else(|| {
            RestError::query(format!(
                "\"failed to parse {name} parameter ({value})\": a whole number is expected"
            ))
        })
}

/// `a,b` or `"a","b"`.
fn names(value: &str) -> Result<Vec<String>, RestError> {
    pieces(value)?
        .into_iter()
        .map(|piece| unquoted(piece.trim()))
        .collect()
}

fn select(value: &str) -> Result<Vec<Selected>, RestError> {
    if value.trim().is_empty() {
        return Ok(vec![Selected::Star]);
    }
    pieces(value)?
        .into_iter()
        .map(|piece| selected(piece.trim()))
        .collect()
}

/// `alias:column->path::cast`
fn selected(text: &str) -> Result<Selected, RestError> {
    if text == "*" {
        return Ok(Selected::Star);
    }
    if text.contains('(') || text.starts_with("...") {
        return Err(RestError::unsupported("embedding and aggregates in `select`"));
    }
    let (text, cast) = match text.rsplit_once("::") {
        Some((rest, cast)) => (rest, Some(cast.to_owned())),
        None => (text, None),
    };
    let (alias, text) = match text.split_once(':') {
        Some((alias, rest)) => (Some(unquoted(alias)?), rest),
        None => (None, text),
    };
    Ok(Selected::Field {
        field: field(text)?,
        alias,
        cast,
    })
}

fn order(value: &str) -> Result<Vec<Order>, RestError> {
    let mut terms = Vec::new();
    for piece in pieces(value)?.into_iter().filter(|piece| !piece.is_empty()) {
        let mut words = piece.split('.');
        let field = field(words.next().unwrap_or_default())?;
        let mut direction = String::new();
        for word in words {
            direction.push_str(match word {
                "asc" => " ASC",
                "desc" => " DESC",
                "nullsfirst" => " NULLS FIRST",
                "nullslast" => " NULLS LAST",
                _ => return Err(RestError::query(format!("\"failed to parse order ({value})\""))),
            });
        }
        terms.push(Order { field, direction });
    }
    Ok(terms)
}

/// `column->a->>b`
fn field(text: &str) -> Result<Field, RestError> {
    let mut rest = text;
    let mut path = Vec::new();
    let end = rest.find("->").unwrap_or(rest.len());
    let column = unquoted(&rest[..end])?;
    if column.is_empty() {
        return Err(RestError::query(format!(
            "\"failed to parse column name ({text})\""
        )));
    }
    rest = &rest[end..];
    while let Some(step) = rest.strip_prefix("->") {
        let (as_text, step) = step.strip_prefix('>').map_or((false, step), |step| (true, step));
        let end = step.find("->").unwrap_or(step.len());
        path.push(Step {
            as_text,
            key: unquoted(&step[..end])?,
        });
        rest = &step[end..];
    }
    if path.len() > DEPTH_MAX {
        return Err(RestError::query(format!(
            "a JSON path has more than {DEPTH_MAX} steps"
        )));
    }
    Ok(Field { column, path })
}

/// `[not.]op.value`. A loop, not a recursion: the text is as long as a request may be.
fn test(field: Field, text: &str) -> Result<Condition, RestError> {
    let (mut rest, mut nots) = (text, 0);
    while let Some(inner) = rest.strip_prefix("not.") {
        (rest, nots) = (inner, nots + 1);
        if nots > DEPTH_MAX {
            return Err(RestError::query(format!(
                "a filter has more than {DEPTH_MAX} times `not`"
            )));
        }
    }
    let plain = plain_test(field, rest)?;
    Ok((0..nots).fold(plain, |inner, _| Condition::Not(Box::new(inner))))
}

/// `op.value`
fn plain_test(field: Field, text: &str) -> Result<Condition, RestError> {
    let fault = || RestError::query(format!("\"failed to parse filter ({text})\""));
    let (name, value) = text.split_once('.').ok_or_else(fault)?;
    let operator = |sql| Test::Operator {
        sql,
        value: value.to_owned(),
    };
    let pattern = |sql| Test::Operator {
        sql,
        value: value.replace('*', "%"),
    };
    let test = match name {
        "eq" => operator("="),
        "neq" => operator("<>"),
        "gt" => operator(">"),
        "gte" => operator(">="),
        "lt" => operator("<"),
        "lte" => operator("<="),
        "like" => pattern("LIKE"),
        "ilike" => pattern("ILIKE"),
        "match" => operator("~"),
        "imatch" => operator("~*"),
        "isdistinct" => operator("IS DISTINCT FROM"),
        "cs" => operator("@>"),
        "cd" => operator("<@"),
        "ov" => operator("&&"),
        "in" => {
            let inner = value
                .strip_prefix('(')
                .and_then(|rest| rest.strip_suffix(')'))
                .ok_or_else(fault)?;
            let values = if inner.is_empty() {
                Vec::new()
            } else {
                pieces(inner)?
            };
            Test::In(values.into_iter().map(unquoted).collect::<Result<_, _>>()?)
        }
        "is" => Test::Is(match value.to_ascii_lowercase().as_str() {
            "null" => "NULL",
            "not_null" => "NOT NULL",
            "true" => "TRUE",
            "false" => "FALSE",
            "unknown" => "UNKNOWN",
            _ => return Err(fault()),
        }),
        "fts" | "plfts" | "phfts" | "wfts" | "sl" | "sr" | "nxr" | "nxl" | "adj" => {
            return Err(RestError::unsupported("full-text and range operators"));
        }
        _ => return Err(fault()),
    };
    Ok(Condition::Test { field, test })
}

/// `(a.eq.1,and(b.gt.2,c.is.null))`
fn list(text: &str, depth: usize) -> Result<Vec<Condition>, RestError> {
    let fault = || RestError::query(format!("\"failed to parse logic tree ({text})\""));
    if depth >= DEPTH_MAX {
        return Err(RestError::query(format!(
            "a logic tree is deeper than {DEPTH_MAX}"
        )));
    }
    let inner = text
        .trim()
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
        .ok_or_else(fault)?;
    let mut conditions = Vec::new();
    for piece in pieces(inner)? {
        conditions.push(member(piece.trim(), depth)?);
    }
    if conditions.is_empty() {
        Err(fault())
    } else {
        Ok(conditions)
    }
}

/// One member of a logic tree.
fn member(text: &str, depth: usize) -> Result<Condition, RestError> {
    for (prefix, negated, any) in [
        ("and(", false, false),
        ("or(", false, true),
        ("not.and(", true, false),
        ("not.or(", true, true),
    ] {
        if text.starts_with(prefix) {
            let inner = list(&text[prefix.len() - 1..], depth + 1)?;
            let condition = if any {
                Condition::Any(inner)
            } else {
                Condition::All(inner)
            };
            return Ok(if negated {
                Condition::Not(Box::new(condition))
            } else {
                condition
            });
        }
    }
    let (name, rest) = text
        .split_once('.')
        .ok_or_else(|| RestError::query(format!("\"failed to parse logic tree ({text})\"")))?;
    // In a tree a value may be quoted, so that it can hold commas and parentheses.
    let (operator, value) = match rest.rsplit_once(".\"") {
        Some((operator, _)) if rest.ends_with('"') && !operator.contains('(') => {
            (operator, unquoted(&rest[operator.len() + 1..])?)
        }
        _ => return test(field(name)?, rest),
    };
    test(field(name)?, &format!("{operator}.{value}"))
}

/// Splits at the commas outside quotes and parentheses.
fn pieces(text: &str) -> Result<Vec<&str>, RestError> {
    let (mut depth, mut quoted, mut escaped, mut start) = (0i32, false, false, 0);
    let mut found = Vec::new();
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                found.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if quoted || depth != 0 {
        return Err(RestError::query(format!(
            "\"failed to parse ({text})\": a quote or parenthesis is open"
        )));
    }
    found.push(&text[start..]);
    if found.len() > ITEMS_MAX {
        return Err(RestError::query(format!(
            "a list has more than {ITEMS_MAX} entries"
        )));
    }
    Ok(found)
}

/// Takes quotes and their backslash escapes away.
fn unquoted(text: &str) -> Result<String, RestError> {
    let Some(inner) = text.strip_prefix('"') else {
        return Ok(text.to_owned());
    };
    let inner = inner
        .strip_suffix('"')
        .ok_or_else(|| RestError::query(format!("\"failed to parse ({text})\": a quote is open")))?;
    let mut out = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        out.push(if character == '\\' {
            characters.next().unwrap_or('\\')
        } else {
            character
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Query, RestError> {
        let pairs: Vec<(String, String)> = text
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        query(&pairs, |_| Some(Pairs::Filters))
    }

    fn column(name: &str) -> Field {
        Field {
            column: name.to_owned(),
            path: Vec::new(),
        }
    }

    #[test]
    fn a_plain_read_is_understood() {
        let plan = read("select=*&office_id=eq.o1&order=seq.desc.nullslast,id&limit=5&offset=2").unwrap();
        assert_eq!(
            plan.conditions,
            vec![Condition::Test {
                field: column("office_id"),
                test: Test::Operator {
                    sql: "=",
                    value: "o1".to_owned()
                }
            }]
        );
        assert_eq!(
            plan.order[0],
            Order {
                field: column("seq"),
                direction: " DESC NULLS LAST".to_owned()
            }
        );
        assert_eq!((plan.limit, plan.offset, plan.order.len()), (Some(5), 2, 2));
    }

    #[test]
    fn quotes_protect_commas_in_lists() {
        let plan = read(r#"id=in.("a,b",c,"d\"e")"#).unwrap();
        let Condition::Test {
            test: Test::In(values),
            ..
        } = &plan.conditions[0]
        else {
            panic!("a list")
        };
        assert_eq!(values, &["a,b", "c", "d\"e"]);
    }

    #[test]
    fn logic_trees_nest_and_keep_quoted_values_whole() {
        let plan = read(r#"or=(a.eq."x,(y",and(b.not.gt.2,c.is.null),d.in.(1,2))"#).unwrap();
        let Condition::Any(members) = &plan.conditions[0] else {
            panic!("a tree")
        };
        assert_eq!(members.len(), 3);
        let first = Condition::Test {
            field: column("a"),
            test: Test::Operator {
                sql: "=",
                value: "x,(y".to_owned(),
            },
        };
        assert_eq!(members[0], first);
        assert!(matches!(&members[1], Condition::All(inner) if matches!(inner[0], Condition::Not(_))));
    }

    #[test]
    fn json_paths_aliases_and_casts_are_read() {
        let plan = read("select=n:args->a->>b,seq::text").unwrap();
        let Selected::Field { field, alias, .. } = &plan.select[0] else {
            panic!("a field")
        };
        assert_eq!(alias.as_deref(), Some("n"));
        assert_eq!(
            field.path.iter().map(|step| step.as_text).collect::<Vec<_>>(),
            [false, true]
        );
        assert!(matches!(&plan.select[1], Selected::Field { cast: Some(cast), .. } if cast == "text"));
    }

    #[test]
    fn a_row_of_nots_is_refused_before_it_fills_the_stack() {
        let many = "not.".repeat(16_000);
        for text in [format!("id={many}eq.1"), format!("or=(id.{many}eq.1,b.eq.2)")] {
            let error = read(&text).unwrap_err();
            assert!(
                matches!(&error, RestError::Coded { code, .. } if code == "PGRST100"),
                "{error:?}"
            );
        }
        let plan = read(&format!("id={}eq.1", "not.".repeat(DEPTH_MAX))).unwrap();
        assert!(matches!(&plan.conditions[0], Condition::Not(inner) if matches!(**inner, Condition::Not(_))));
    }

    #[test]
    fn the_first_of_two_orders_wins() {
        assert_eq!(read("order=a.desc&order=b").unwrap().order[0].field, column("a"));
    }

    #[test]
    fn whatever_cannot_be_read_is_an_error_and_never_a_panic() {
        let deep = format!("or={}a.eq.1{}", "(or".repeat(40) + "(", ")".repeat(41));
        for bad in [
            "a=1",
            "a=eq",
            "a=xx.1",
            "a=in.1",
            "a=in.(1",
            "a=is.maybe",
            "limit=-1",
            "limit=x",
            "or=a.eq.1",
            "or=()",
            "order=a.up",
            "=eq.1",
            "id=in.(\"a)",
            "select=\"a",
            &deep,
        ] {
            let error = read(bad);
            assert!(
                matches!(error, Err(RestError::Coded { .. })),
                "{bad} gave {error:?}"
            );
        }
        for hostile in [
            "ü=eq.ü",
            "a->=eq.1",
            "a=eq.",
            "select=é::",
            "or=(é)",
            "a=not.not.not.eq.1",
            "select=,",
        ] {
            drop(read(hostile));
        }
    }
}

//! Writes a parsed query down again in one fixed form: everything quoted that can be.
//!
//! Independent of the parser: its words are a list of their own. Called by the entries beside it.

use super::super::ast::{Embed, Field, Filter, Item, Key, Order, Path, Query, Rows, Step, Test, Tree};

/// SQL of an operator and its word.
const OPERATORS: [(&str, &str); 18] = [
    ("=", "eq"),
    ("<>", "neq"),
    (">", "gt"),
    (">=", "gte"),
    ("<", "lt"),
    ("<=", "lte"),
    ("like", "like"),
    ("ilike", "ilike"),
    ("~", "match"),
    ("~*", "imatch"),
    ("@>", "cs"),
    ("<@", "cd"),
    ("&&", "ov"),
    ("<<", "sl"),
    (">>", "sr"),
    ("&<", "nxr"),
    ("&>", "nxl"),
    ("-|-", "adj"),
];
/// Other words: SQL, and what a client writes.
const WORDS: [(&str, &str); 14] = [
    ("NULL", "null"),
    ("NOT NULL", "not_null"),
    ("TRUE", "true"),
    ("FALSE", "false"),
    ("UNKNOWN", "unknown"),
    ("to_tsquery", "fts"),
    ("plainto_tsquery", "plfts"),
    ("phraseto_tsquery", "phfts"),
    ("websearch_to_tsquery", "wfts"),
    ("ASC", ".asc"),
    ("DESC", ".desc"),
    ("NULLS FIRST", ".nullsfirst"),
    ("NULLS LAST", ".nullslast"),
    ("", ""),
];

/// The pairs that say the same.
pub(super) fn pairs(query: &Query) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut pair = |name: String, value: String| pairs.push((name, value));
    if !query.select.is_empty() {
        pair("select".to_owned(), list(&query.select, item));
    }
    for (path, filter) in &query.filters {
        let name = format!("{}{}", level(path), field(&filter.field));
        pair(name, test(filter, ToString::to_string));
    }
    for (path, root) in &query.logic {
        let Tree::Node {
            negated,
            any,
            members,
        } = root
        else {
            panic!("a tree without a root: {root:?}");
        };
        let name = format!(
            "{}{}{}",
            level(path),
            not(*negated),
            if *any { "or" } else { "and" }
        );
        pair(name, format!("({})", list(members, tree)));
    }
    for (path, terms) in &query.order {
        pair(format!("{}order", level(path)), list(terms, term));
    }
    for (path, rows) in &query.rows {
        let (limit, offset) = numbers(*rows);
        for (word, number) in [("limit", limit), ("offset", offset)] {
            if let Some(number) = number {
                pair(format!("{}{word}", level(path)), number.to_string());
            }
        }
    }
    for (word, names) in [("columns", &query.columns), ("on_conflict", &query.on_conflict)] {
        if let Some(names) = names {
            pair(word.to_owned(), list(names, |name| quoted(name)));
        }
    }
    for (name, value) in &query.arguments {
        pair(quoted(name), value.clone());
    }
    pairs
}

fn list<T>(entries: &[T], shown: impl Fn(&T) -> String) -> String {
    entries.iter().map(shown).collect::<Vec<String>>().join(",")
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn not(negated: bool) -> &'static str {
    if negated { "not." } else { "" }
}

fn level(path: &Path) -> String {
    path.iter().map(|name| format!("{}.", quoted(name))).collect()
}

/// What a client writes for a piece of SQL.
fn word(sql: &str) -> &'static str {
    let mut known = OPERATORS.iter().chain(&WORDS);
    let found = known.find(|(known, _)| *known == sql);
    found.unwrap_or_else(|| panic!("{sql:?} is from no list")).1
}

/// Read as nothing but blanks, a word of blanks is empty.
fn bare(identifier: &str) -> &str {
    if identifier.is_empty() { " " } else { identifier }
}

fn field(field: &Field) -> String {
    let steps = field.path.iter().map(|Step { as_text, key }| {
        let arrow = if *as_text { "->>" } else { "->" };
        match key {
            Key::Index(index) => format!("{arrow}{index}"),
            Key::Name(name) => format!("{arrow}{}", quoted(name)),
        }
    });
    quoted(&field.column) + &steps.collect::<String>()
}

fn item(item: &Item) -> String {
    match item {
        Item::Star => "*".to_owned(),
        Item::Aggregate => "count()".to_owned(),
        Item::Embed(embed) => embedded(embed),
        Item::Field {
            field: of,
            alias,
            cast,
        } => {
            let alias = alias.as_ref().map(|alias| quoted(alias) + ":");
            let cast = cast.as_ref().map(|cast| format!("::{}", bare(cast)));
            alias.unwrap_or_default() + &field(of) + &cast.unwrap_or_default()
        }
    }
}

fn embedded(embed: &Embed) -> String {
    let before = match (&embed.alias, embed.spread) {
        (None, true) => "...".to_owned(),
        (None, false) => String::new(),
        (Some(alias), _) => quoted(alias) + ":",
    };
    let hint = embed.hint.as_ref().map(|hint| format!("!{}", quoted(hint)));
    format!(
        "{before}{}{}{}({})",
        quoted(&embed.relation),
        hint.unwrap_or_default(),
        if embed.inner { "!inner" } else { "" },
        list(&embed.items, item)
    )
}

/// `value`: how the value of a test is written here.
fn test(filter: &Filter, value: impl Fn(&str) -> String) -> String {
    let not = not(filter.negated);
    match &filter.test {
        Test::Operator {
            sql,
            quantifier,
            pattern,
            value: text,
        } => {
            assert_eq!(*pattern, sql.ends_with("like"));
            let many = match quantifier {
                Some("ANY") => "(any)",
                Some("ALL") => "(all)",
                None => "",
                Some(other) => panic!("{other:?} is no quantifier"),
            };
            format!("{not}{}{many}.{}", word(sql), value(text))
        }
        Test::In(values) => format!("{not}in.({})", list(values, |value| quoted(value))),
        Test::Is(sql) => format!("{not}is.{}", word(sql)),
        Test::IsDistinct(text) => format!("{not}isdistinct.{}", value(text)),
        Test::Search {
            function,
            language,
            value: text,
        } => {
            let language = language.as_ref().map(|language| format!("({})", bare(language)));
            format!(
                "{not}{}{}.{}",
                word(function),
                language.unwrap_or_default(),
                value(text)
            )
        }
    }
}

fn tree(one: &Tree) -> String {
    match one {
        Tree::Leaf(filter) => format!("{}.{}", field(&filter.field), test(filter, quoted)),
        Tree::Node {
            negated,
            any,
            members,
        } => {
            let word = if *any { "or" } else { "and" };
            format!("{}{word}({})", not(*negated), list(members, tree))
        }
    }
}

fn term(term: &Order) -> String {
    let by = match &term.relation {
        Some(relation) => format!("{}({})", quoted(relation), field(&term.field)),
        None => field(&term.field),
    };
    format!("{by}{}{}", word(term.direction), word(term.nulls))
}

/// The limit and the offset that give these rows.
fn numbers(rows: Rows) -> (Option<i64>, Option<i64>) {
    if rows == Rows::NONE {
        return (Some(0), None);
    }
    let limit = rows.upper.map(|upper| upper - rows.lower + 1);
    (limit, (limit.is_none() || rows.lower > 0).then_some(rows.lower))
}

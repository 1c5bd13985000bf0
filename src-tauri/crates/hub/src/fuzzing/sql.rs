//! Reads a statement as Postgres would, as far as needed to say which of its text is ours.
//!
//! Independent of the code that writes statements. Called by the entries of [`crate::fuzzing`].

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::sync::LazyLock;

/// What may stand in quotes: settings, names of members, separators. Nothing of a client is ever one.
const LITERALS: [&str; 17] = [
    "",
    "\\n",
    ",",
    "-1",
    "0",
    "[]",
    "eq.",
    "is.null",
    "null",
    "pgrst.inserted",
    "response.headers",
    "response.status",
    // Of the sample schema: the default of a column.
    "s",
    "service_role",
    "{}",
    "{0}",
    "true",
];

/// Words a statement may have outside quotes, in lower or in upper case: SQL's own, functions, types, and names of ours.
const WORDS: &str = "\
    all and any array as asc bigint boolean by case cast character coalesce conflict count cross current_setting current_user \
    d default delete desc distinct do e elem else end except excluded exists explain false first following format \
    from h headers ilike in inner insert inserted int int8 integer intersect into is join json json_agg \
    json_array_elements json_build_array json_data json_each_text json_object_keys json_strip_nulls json_to_record \
    json_to_recordset jsonb jsonb_agg jsonb_array_elements jsonb_build_object jsonb_to_record jsonb_to_recordset k key \
    last lateral left length like limit materialized n nextval not nothing null nullif nulls octet_length offset on or order over \
    page pgrst_body pgrst_call pgrst_count pgrst_json_defs pgrst_payload pgrst_scalar pgrst_source \
    phraseto_tsquery place plainto_tsquery r returning row row_to_json s select set set_config status string_agg \
    substring t text then to_jsonb to_tsquery to_tsvector total true tsvector union unknown update val value values \
    variadic varying websearch_to_tsquery when where with _ _answer _rows _t body";

/// Characters of operators and punctuation.
const MARKS: &str = "(),.:=<>|&~*-+@!/[]";

/// What a statement is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token<'s> {
    /// `"name"`, without its quotes.
    Name(Cow<'s, str>),
    /// `'text'`, without its quotes.
    Literal(Cow<'s, str>),
    /// `$1`
    Place(usize),
    /// Letters, digits and `_`.
    Word(&'s str),
    Mark(char),
}

/// The tokens of a statement, or what in it is none.
pub(crate) fn tokens(sql: &str) -> Result<Vec<Token<'_>>, String> {
    let mut tokens = Vec::new();
    let mut rest = sql;
    while let Some(next) = rest.chars().next() {
        let after = rest.get(next.len_utf8()..).unwrap_or_default();
        rest = match next {
            ' ' | '\n' | '\t' => after,
            '"' | '\'' => {
                let (text, after) = quoted(after, next).ok_or("a quote has no end")?;
                tokens.push(if next == '"' {
                    Token::Name(text)
                } else {
                    Token::Literal(text)
                });
                after
            }
            '$' => {
                let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
                let (digits, after) = after.split_at(end);
                let place = digits
                    .parse()
                    .map_err(|_| format!("`${digits}` is no parameter"))?;
                tokens.push(Token::Place(place));
                after
            }
            _ if is_word(next) => {
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                tokens.push(Token::Word(word));
                after
            }
            _ if MARKS.contains(next) => {
                if rest.starts_with("--") || rest.starts_with("/*") {
                    return Err(format!("a comment: {rest:.40}"));
                }
                tokens.push(Token::Mark(next));
                after
            }
            other => return Err(format!("{other:?} outside quotes")),
        };
    }
    Ok(tokens)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The text up to the closing quote, which is doubled inside, and what follows.
fn quoted(text: &str, quote: char) -> Option<(Cow<'_, str>, &str)> {
    let mut inside = Cow::Borrowed("");
    let mut rest = text;
    loop {
        let (piece, after) = rest.split_once(quote)?;
        inside += piece;
        let Some(more) = after.strip_prefix(quote) else {
            return Some((inside, after));
        };
        inside.to_mut().push(quote);
        rest = more;
    }
}

/// What of a request may be in its statement, quoted or as a type.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// May be quoted names: what the schema and the request call things.
    pub names: BTreeSet<String>,
    /// Words of casts.
    pub types: BTreeSet<String>,
}

impl Given {
    /// Adds a name as it is quoted: without NUL, which no name can have.
    pub fn name(&mut self, name: &str) {
        self.names.insert(name.replace('\0', ""));
    }

    /// Adds the words of a cast.
    pub fn cast(&mut self, cast: &str) {
        self.types.extend(cast.split(' ').map(str::to_ascii_lowercase));
    }
}

/// Whether every parameter is asked for and nothing else, every name is known, and everything outside quotes is ours.
pub(crate) fn check(sql: &str, parameters: usize, given: &Given) -> Result<(), String> {
    let mut places = BTreeSet::new();
    let mut depth = 0_usize;
    for token in tokens(sql)? {
        match token {
            Token::Place(place) => {
                places.insert(place);
            }
            Token::Mark('(') => depth += 1,
            Token::Mark(')') => depth = depth.checked_sub(1).ok_or("a parenthesis too many")?,
            Token::Mark(_) => {}
            Token::Literal(text) if LITERALS.contains(&&*text) => {}
            Token::Literal(text) => return Err(format!("{text:?} stands in quotes")),
            Token::Name(name) if given.names.contains(&*name) || is_ours(&name, given) => {}
            Token::Name(name) => return Err(format!("{name:?} is a name of nobody's")),
            Token::Word(word) if is_number(word) || is_known(word) || given.types.contains(word) => {}
            Token::Word(word) => return Err(format!("{word:?} stands outside quotes")),
        }
    }
    if depth > 0 {
        return Err(format!("{depth} parentheses are open"));
    }
    if !places.iter().copied().eq(1..=parameters) {
        return Err(format!("{parameters} parameters, and asked for are {places:?}"));
    }
    Ok(())
}

fn is_number(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_known(word: &str) -> bool {
    static UPPER: LazyLock<String> = LazyLock::new(|| WORDS.to_ascii_uppercase());
    static KNOWN: LazyLock<HashSet<&str>> =
        LazyLock::new(|| WORDS.split(' ').chain(UPPER.split(' ')).collect());
    KNOWN.contains(word)
}

/// `pgrst_body`, `pgrst_embed_3`, or `messages_1` for a table called so.
fn is_ours(name: &str, given: &Given) -> bool {
    if name == "pgrst_body" {
        return true;
    }
    let stem = name
        .trim_end_matches('_')
        .trim_end_matches(|c: char| c.is_ascii_digit());
    let numbered = stem.len() < name.len();
    let table = stem.strip_suffix('_').unwrap_or(stem);
    numbered
        && (["pgrst_embed", "pgrst_junction", "pgrst_order"].contains(&table) || given.names.contains(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> Given {
        let mut given = Given::default();
        given.name("messages");
        given.cast("double precision");
        given
    }

    #[test]
    fn a_statement_of_ours_passes() {
        let sql = r#"SELECT "messages_1".*, CAST("messages" AS double precision) FROM "messages" WHERE a"#;
        assert!(check(sql, 0, &given()).is_err(), "`a` is no word of ours");
        let sql = sql.trim_end_matches(" WHERE a");
        assert_eq!(check(sql, 0, &given()), Ok(()));
        assert_eq!(check("SELECT $1 || '[]' WHERE $2 = $1", 2, &given()), Ok(()));
    }

    #[test]
    fn whatever_is_not_ours_is_seen() {
        for (sql, parameters, words) in [
            ("SELECT drop", 0, "\"drop\" stands outside quotes"),
            ("SELECT 1; SELECT 1", 0, "';' outside quotes"),
            ("SELECT 1 -- x", 0, "a comment"),
            ("SELECT 1 /* x */", 0, "a comment"),
            ("SELECT 'hostile'", 0, "\"hostile\" stands in quotes"),
            ("SELECT '", 0, "a quote has no end"),
            ("SELECT \"m\"", 0, "\"m\" is a name of nobody's"),
            ("SELECT \"messages\"\"x\"", 0, "is a name of nobody's"),
            ("SELECT $1, $3", 2, "2 parameters, and asked for are {1, 3}"),
            ("SELECT $1", 2, "2 parameters"),
            ("SELECT $x", 0, "`$` is no parameter"),
            ("SELECT (1", 0, "1 parentheses are open"),
            ("SELECT 1)", 0, "a parenthesis too many"),
            ("SELECT \u{e9}", 0, "outside quotes"),
        ] {
            let fault = check(sql, parameters, &given()).unwrap_err();
            assert!(fault.contains(words), "{sql}: {fault}");
        }
    }
}

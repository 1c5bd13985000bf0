//! What becomes SQL and what never does.

use super::super::ast::Query;
use super::super::error::RestError;
use super::super::parse::{self, Pairs};
use super::super::plan::{self, Resolution, Root, Wanted, sample::schema};
use super::super::request::{Payload, Target, payload};
use super::*;
use axum::http::Method;

fn query(pairs: &[(&str, &str)]) -> Query {
    let pairs: Vec<(String, String)> = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    parse::query(&pairs, Pairs::Filters).unwrap()
}

fn reading(table: &str, pairs: &[(&str, &str)]) -> Result<Statement, RestError> {
    let schema = schema();
    let node = plan::read(&schema, Root::Table(table), &query(pairs))?;
    read(&node, Some(Media::Json), true, None)
}

fn json(text: &str) -> Payload {
    payload(text.as_bytes(), "application/json", Target::Table, false).unwrap()
}

fn changing(method: &Method, pairs: &[(&str, &str)], body: Option<Payload>) -> Result<Statement, RestError> {
    let schema = schema();
    let query = query(pairs);
    let node = plan::read(&schema, Root::Changed("messages"), &query)?;
    let wanted = Wanted {
        rows: true,
        resolution: Some(Resolution::Merge),
        defaults: true,
    };
    let change = plan::change(&schema, method, "messages", &query, &node, body, wanted)?;
    changed(&change, &node, Some(Media::Json), Some(&["id".to_owned()]))
}

/// Every placeholder from `$1` on is there, and none beyond the last parameter.
pub(in super::super) fn assert_balanced(statement: &Statement) {
    // Names are quoted and may hold anything.
    let bare: String = statement
        .sql
        .split('"')
        .step_by(2)
        .collect::<Vec<&str>>()
        .join(" ");
    let mut found: Vec<usize> = bare
        .split('$')
        .skip(1)
        .filter_map(|rest| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    let expected: Vec<usize> = (1..=statement.parameters.len()).collect();
    assert_eq!(found, expected, "{}", statement.sql);
}

#[test]
fn values_are_parameters_and_never_sql() {
    let hostile = "'; drop table t; --";
    for operator in ["eq", "like", "cs", "fts", "isdistinct", "like(any)"] {
        let filter = format!("{operator}.{hostile}");
        let statement = reading(
            "messages",
            &[("message", &filter), ("or", "(id.eq.1,data->>'x.eq.\"$9\")")],
        )
        .unwrap();
        assert!(!statement.sql.contains("drop"), "{}", statement.sql);
        assert!(!statement.sql.contains("$9"), "{}", statement.sql);
        assert_eq!(statement.parameters[0], Text(Some(hostile.to_owned())));
        assert_balanced(&statement);
    }
}

#[test]
fn names_that_are_no_columns_do_not_reach_sql() {
    const HOSTILE: &str = "x\" or true --";
    let quoted = format!("\"{}\"", HOSTILE.replace('"', "\\\""));
    for pairs in [
        [("select", quoted.as_str())],
        [("order", quoted.as_str())],
        [(quoted.as_str(), "eq.1")],
        [("select", "users(nothing)")],
        [("order", "ctid")],
    ] {
        let error = reading("messages", &pairs).unwrap_err();
        assert_eq!(error.code(), "42703", "{pairs:?}");
    }
    for (cast, code) in [
        ("id::text; drop", "PGRST100"),
        ("id::$$", "42704"),
        ("id::a.b", "PGRST100"),
    ] {
        let pairs = [("select".to_owned(), cast.to_owned())];
        let schema = schema();
        let read = parse::query(&pairs, Pairs::Filters)
            .and_then(|query| plan::read(&schema, Root::Table("messages"), &query));
        assert_eq!(read.unwrap_err().code(), code, "{cast}");
    }
    // A name for the answer may be anything; it is quoted.
    let alias = format!("{quoted}:id");
    let statement = reading("messages", &[("select", &alias)]).unwrap();
    assert!(
        statement.sql.contains("AS \"x\"\" or true --\""),
        "{}",
        statement.sql
    );
}

#[test]
fn a_change_without_a_filter_is_refused() {
    for (method, body) in [
        (Method::DELETE, None),
        (Method::PATCH, Some(json("{\"message\":\"x\"}"))),
    ] {
        assert_eq!(changing(&method, &[], body.clone()).unwrap_err().code(), "21000");
        assert_balanced(&changing(&method, &[("id", "eq.1")], body).unwrap());
    }
    assert!(
        changing(&Method::PATCH, &[], Some(json("{}"))).is_ok(),
        "nothing is set"
    );
}

#[test]
fn an_upsert_names_its_columns_and_counts_what_is_new() {
    let statement = changing(
        &Method::POST,
        &[("on_conflict", "id")],
        Some(json("[{\"id\":1,\"message\":\"a\"}]")),
    )
    .unwrap();
    assert!(
        statement
            .sql
            .contains("ON CONFLICT (\"id\") DO UPDATE SET \"id\" = EXCLUDED.\"id\""),
        "{}",
        statement.sql
    );
    assert_balanced(&statement);
    let unknown = changing(&Method::POST, &[], Some(json("{\"nothing\":1}"))).unwrap_err();
    assert_eq!(unknown.code(), "PGRST204");
    let target = changing(
        &Method::POST,
        &[("on_conflict", "nothing")],
        Some(json("{\"id\":1}")),
    );
    assert_eq!(target.unwrap_err().code(), "42703");
}

#[test]
fn put_wants_the_whole_key_and_nothing_else() {
    let body = || Some(json("{\"id\":1,\"message\":\"a\"}"));
    assert_balanced(&changing(&Method::PUT, &[("id", "eq.1")], body()).unwrap());
    for bad in [
        vec![],
        vec![("id", "gt.1")],
        vec![("id", "eq.1"), ("message", "eq.a")],
        vec![("id", "not.eq.1")],
    ] {
        assert_eq!(
            changing(&Method::PUT, &bad, body()).unwrap_err().code(),
            "PGRST105",
            "{bad:?}"
        );
    }
}

/// Parts with the parts below and above them, `levels` deep; each level is asked `times` about the next one.
fn asking(levels: usize, times: usize) -> Vec<(String, String)> {
    let select = format!(
        "{}id{}",
        "up:parent(id,down:parts!parent(".repeat(levels),
        "))".repeat(levels)
    );
    let mut pairs = vec![("select".to_owned(), select)];
    let mut path = String::new();
    for level in 0..levels * 2 {
        let next = if level % 2 == 0 { "up" } else { "down" };
        let asked = format!("({}id.eq.1)", format!("{next}.is.null,").repeat(times));
        pairs.push((format!("{path}or"), asked));
        path.push_str(&format!("{next}."));
    }
    pairs
}

#[test]
fn asking_often_about_embedded_relations_does_not_multiply_the_statement() {
    let length = |levels, times| {
        let pairs = asking(levels, times);
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
        let statement = reading("parts", &pairs).unwrap();
        assert_balanced(&statement);
        statement.sql.len()
    };
    let (once, often) = (length(2, 1), length(2, 200));
    // Eight hundred places of some dozens of bytes, in the rows and in their count; not 200⁴.
    assert!(often < once + 200_000, "{once} bytes became {often}");
    // Each level twice as long as the one below would be 2⁸.
    assert!(
        length(4, 2) < 4 * length(1, 2),
        "{} and {}",
        length(1, 2),
        length(4, 2)
    );
}

#[test]
fn a_statement_that_grows_too_long_is_refused() {
    let writer = Writer::default();
    assert_eq!(
        writer.finish("x".repeat(SQL_BYTES_MAX + 1)).unwrap_err().code(),
        "PGRST100"
    );
    let mut writer = Writer::default();
    assert_eq!(writer.kept("x".repeat(SQL_BYTES_MAX)).len(), SQL_BYTES_MAX);
    assert!(writer.kept("x".to_owned()).is_empty() && writer.is_full());
    assert_eq!(writer.finish(String::new()).unwrap_err().code(), "PGRST100");
}

#[test]
fn list_elements_cannot_leave_their_quotes() {
    let mut writer = Writer::default();
    writer.array(&["a\"b".to_owned(), "c\\d,e".to_owned()]);
    assert_eq!(writer.parameters, [Text(Some(r#"{"a\"b","c\\d,e"}"#.to_owned()))]);
}

//! Entries for cargo-fuzz: query strings and bodies of anybody who has a key.
//!
//! Never part of a program. Called by [`crate::fuzzing`].

mod print;

use std::collections::BTreeSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use axum::http::Method;
use serde_json::{Map, Value};

use super::ast::{Field, Item, Key, Query, Tree};
use super::parse::{self, Pairs};
use super::plan::{self, Given, Resolution, Root, Wanted, sample};
use super::request::{Media, Payload, Target, payload};
use super::schema::Schema;
use super::sql::{self, Statement};
use crate::fuzzing::sql::{Given as Named, check};

/// Tables that are read; between them they have every kind of relation.
const TABLES: [&str; 4] = ["messages", "users", "products", "parts"];
const JSON: &str = "application/json";
const CSV: &str = "text/csv";
const FORM: &str = "application/x-www-form-urlencoded";

/// Statements that are remembered as good.
const SEEN_MAX: usize = 1000;

static SCHEMA: LazyLock<Schema> = LazyLock::new(sample::schema);

/// What looks at a statement.
type Judge = fn(Option<Statement>, &Named);

fn pairs(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A query string (pairs, already decoded). What is read and written down again is read as the same; each statement it
/// becomes has the parameters it asks for, and outside quotes nothing of the query.
pub fn rest_query(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(query) = parse::query(&pairs(&text), Pairs::FiltersAndArguments) else {
        return;
    };
    let printed = print::pairs(&query);
    let again = parse::query(&printed, Pairs::FiltersAndArguments);
    assert_eq!(again.ok().as_ref(), Some(&query), "{printed:?}");
    let named = named(&query);
    for table in TABLES {
        if let Ok(node) = plan::read(&SCHEMA, Root::Table(table), &query) {
            ours(sql::read(&node, Some(Media::Json), true, Some(1001)).ok(), &named);
            ours(sql::read(&node, None, false, None).ok(), &named);
            ours(sql::planned(&node).ok(), &named);
        }
    }
    changes(&query, None, &named, ours);
    calls(&query, Given::Pairs(&query.arguments), &named, ours);
}

/// A body in each of the types that are taken. What goes to Postgres is the JSON that came, or JSON that says the same;
/// each statement has it as a parameter.
pub fn rest_body(data: &[u8]) {
    let one = [("id".to_owned(), "eq.1".to_owned())];
    let Ok(one) = parse::query(&one, Pairs::Filters) else {
        return;
    };
    let named = named(&one);
    for (kind, columns) in [(JSON, false), (JSON, true), (CSV, false), (FORM, false)] {
        if let Ok(body) = payload(data, kind, Target::Table, columns) {
            if !columns {
                says_what_came(data, kind, &body);
            }
            changes(&one, Some(&body), &named, ours_once);
        }
    }
    for kind in [JSON, CSV, FORM, "text/plain", "application/octet-stream"] {
        if let Ok(body) = payload(data, kind, Target::Function, false) {
            calls(&Query::default(), Given::Body(&body, None), &named, ours_once);
        }
    }
}

/// Inserts, updates and deletes, with every resolution.
fn changes(query: &Query, body: Option<&Payload>, named: &Named, judge: Judge) {
    let Ok(node) = plan::read(&SCHEMA, Root::Changed("messages"), query) else {
        return;
    };
    let key = ["id".to_owned()];
    for (method, resolution, defaults) in [
        (Method::DELETE, None, false),
        (Method::POST, None, true),
        (Method::POST, Some(Resolution::Merge), true),
        (Method::POST, Some(Resolution::Ignore), false),
        (Method::PATCH, None, true),
        (Method::PATCH, None, false),
        (Method::PUT, None, false),
    ] {
        let wanted = Wanted {
            rows: true,
            resolution,
            defaults,
        };
        let body = body.cloned();
        let planned = plan::change(&SCHEMA, &method, "messages", query, &node, body, wanted);
        if let Ok(change) = planned {
            let shown = defaults.then_some(Media::Json);
            judge(sql::changed(&change, &node, shown, Some(&key)).ok(), named);
        }
    }
}

fn calls(query: &Query, given: Given<'_>, named: &Named, judge: Judge) {
    for name in ["status", "whole"] {
        let Ok(call) = plan::choose(&SCHEMA, name, given) else {
            continue;
        };
        let function = &call.function;
        if let Ok(node) = plan::read(&SCHEMA, Root::Called { name, function }, query) {
            for media in [Media::Json, Media::Csv, Media::Object { stripped: true }] {
                judge(sql::called(&call, &node, Some(media), true).ok(), named);
            }
        }
    }
}

fn ours(statement: Option<Statement>, named: &Named) {
    if let Some(Statement { sql, parameters }) = statement
        && let Err(fault) = check(&sql, parameters.len(), named)
    {
        panic!("{fault}: {sql}");
    }
}

/// The same for statements of bodies, which are few: each is looked at once.
fn ours_once(statement: Option<Statement>, named: &Named) {
    static SEEN: Mutex<BTreeSet<(String, usize)>> = Mutex::new(BTreeSet::new());
    let Some(Statement { sql, parameters }) = &statement else {
        return;
    };
    let new = {
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= SEEN_MAX {
            seen.clear();
        }
        seen.insert((sql.clone(), parameters.len()))
    };
    if new {
        ours(statement, named);
    }
}

/// What a statement may name: the schema, and what the request calls what it shows.
fn named(query: &Query) -> Named {
    let mut named = Named::default();
    named.name(super::schema::SCHEMA);
    for (name, table) in &SCHEMA.tables {
        named.name(name);
        for column in &table.columns {
            named.name(&column.name);
        }
        for computed in &table.computed {
            named.name(computed);
        }
    }
    for (name, overloads) in &SCHEMA.functions {
        named.name(name);
        for argument in overloads.iter().flat_map(|one| &one.arguments) {
            named.name(&argument.name);
        }
    }
    query.select.iter().for_each(|item| shown(item, &mut named));
    // Of what a function gives nobody knows the columns beforehand: they are quoted as they come.
    for (_, filter) in &query.filters {
        named.name(&filter.field.column);
    }
    for (_, tree) in &query.logic {
        leaves(tree, &mut named);
    }
    for term in query.order.iter().flat_map(|(_, terms)| terms) {
        named.name(&term.field.column);
    }
    named
}

fn leaves(tree: &Tree, named: &mut Named) {
    match tree {
        Tree::Leaf(filter) => named.name(&filter.field.column),
        Tree::Node { members, .. } => members.iter().for_each(|one| leaves(one, named)),
    }
}

fn shown(item: &Item, named: &mut Named) {
    match item {
        Item::Star | Item::Aggregate => {}
        Item::Field { field, alias, cast } => {
            let Field { column, path } = field;
            named.name(column);
            for step in path {
                if let Key::Name(name) = &step.key {
                    named.name(name);
                }
            }
            alias.iter().for_each(|alias| named.name(alias));
            cast.iter().for_each(|cast| named.cast(cast));
        }
        Item::Embed(embed) => {
            named.name(&embed.relation);
            embed.alias.iter().for_each(|alias| named.name(alias));
            embed.items.iter().for_each(|item| shown(item, named));
        }
    }
}

/// JSON goes on as it came; what CSV and forms become is read back as the rows and fields they are.
fn says_what_came(data: &[u8], kind: &str, body: &Payload) {
    let text = body.text();
    let value = match serde_json::from_str::<Value>(text) {
        Ok(value) => value,
        // Whether numbers and nested texts are Postgres' kind of JSON is for Postgres to say; only what is made here
        // must be good.
        Err(_) if kind == JSON => return,
        Err(error) => panic!("{kind} became {text}: {error}"),
    };
    let rows: Vec<&Map<String, Value>> = match &value {
        Value::Object(row) => vec![row],
        Value::Array(rows) => rows.iter().filter_map(Value::as_object).collect(),
        _ => panic!("{kind} became {text}"),
    };
    for row in &rows {
        let keys: BTreeSet<&String> = row.keys().collect();
        assert!(
            keys.iter().copied().eq(body.keys()),
            "{text} has the keys {:?}",
            body.keys()
        );
    }
    match kind {
        JSON => {
            let came: Option<Value> = serde_json::from_slice(data).ok();
            let kept = text.as_bytes() == data;
            let nothing = text == "[]" && came.is_some_and(|came| !came.is_object() && !came.is_array());
            assert!(kept || nothing, "{text}");
        }
        CSV => csv_says(text, &rows),
        _ => assert_eq!(rows.len(), 1, "a form is one row"),
    }
}

/// The rows written as CSV again are read as the same text.
fn csv_says(text: &str, rows: &[&Map<String, Value>]) {
    let Some(first) = rows.first() else { return };
    let quoted = |field: &str| format!("\"{}\"", field.replace('"', "\"\""));
    let mut csv = first
        .keys()
        .map(|name| quoted(name))
        .collect::<Vec<String>>()
        .join(",");
    for row in rows {
        let fields = row.values().map(|value| match value {
            Value::Null => "NULL".to_owned(),
            Value::String(field) => quoted(field),
            other => panic!("{other} in CSV"),
        });
        csv.push('\n');
        csv.push_str(&fields.collect::<Vec<String>>().join(","));
    }
    let again = payload(csv.as_bytes(), CSV, Target::Table, false);
    let again: Option<Value> = again.ok().and_then(|body| serde_json::from_str(body.text()).ok());
    assert_eq!(again, serde_json::from_str(text).ok(), "{csv}");
}

//! Entries for cargo-fuzz: query strings and bodies of anybody who has a key.
//!
//! Never part of a program. Called by [`crate::fuzzing`].

use axum::http::Method;

use super::parse::{self, Pairs};
use super::plan::{self, Given, Resolution, Root, Wanted, sample};
use super::request::{Media, Target, payload};
use super::sql;

fn pairs(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A query string (pairs, already decoded), up to the SQL of a read, a delete and a call.
pub fn rest_query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let schema = sample::schema();
    let Ok(query) = parse::query(&pairs(text), Pairs::FiltersAndArguments) else {
        return;
    };
    if let Ok(node) = plan::read(&schema, Root::Table("messages"), &query) {
        drop(sql::read(&node, Some(Media::Json), true, None));
        drop(sql::planned(&node));
    }
    if let Ok(node) = plan::read(&schema, Root::Changed("messages"), &query) {
        let wanted = Wanted {
            rows: true,
            resolution: None,
            defaults: false,
        };
        if let Ok(change) = plan::change(&schema, &Method::DELETE, "messages", &query, &node, None, wanted) {
            drop(sql::changed(
                &change,
                &node,
                Some(Media::Csv),
                Some(&["id".to_owned()]),
            ));
        }
    }
    if let Ok(call) = plan::choose(&schema, "status", Given::Pairs(&query.arguments)) {
        let function = &call.function;
        if let Ok(node) = plan::read(
            &schema,
            Root::Called {
                name: "status",
                function,
            },
            &query,
        ) {
            drop(sql::called(&call, &node, Some(Media::Json), true));
        }
    }
}

/// A body in each of the types that are taken, up to the SQL of an upsert.
pub fn rest_body(data: &[u8]) {
    let schema = sample::schema();
    let Ok(query) = parse::query(&[], Pairs::Filters) else {
        return;
    };
    for kind in [
        "application/json",
        "text/csv",
        "application/x-www-form-urlencoded",
    ] {
        drop(payload(data, kind, Target::Function, false));
        let Ok(body) = payload(data, kind, Target::Table, false) else {
            continue;
        };
        let Ok(node) = plan::read(&schema, Root::Changed("messages"), &query) else {
            continue;
        };
        let wanted = Wanted {
            rows: true,
            resolution: Some(Resolution::Merge),
            defaults: true,
        };
        if let Ok(change) = plan::change(
            &schema,
            &Method::POST,
            "messages",
            &query,
            &node,
            Some(body),
            wanted,
        ) {
            drop(sql::changed(&change, &node, Some(Media::Json), None));
        }
    }
}

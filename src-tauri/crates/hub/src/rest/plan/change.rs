//! Inserts, updates and deletes.
//!
//! Called by `routes` for POST, PATCH, PUT and DELETE of a table.

use std::collections::BTreeSet;

use axum::http::{Method, StatusCode};

use super::super::ast::{Filter, Query, Test};
use super::super::error::RestError;
use super::super::request::Payload;
use super::super::schema::{Column, Schema, Table};
use super::levels::{self, Level};
use super::node::{Condition, Node, Show};
use super::relation::no_table;

/// What to do with a row that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Resolution {
    Ignore,
    Merge,
}

/// The columns whose values must be new, and what happens when they are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Conflict {
    pub resolution: Resolution,
    pub columns: Vec<String>,
}

/// What a change gives to the part of the statement that reads its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Returning {
    /// Only how many there were.
    Nothing,
    Everything,
    Columns(Vec<String>),
}

/// What the headers want of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Wanted {
    pub rows: bool,
    pub resolution: Option<Resolution>,
    /// `missing=default`
    pub defaults: bool,
}

/// A change of a table.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Change {
    Insert {
        table: String,
        columns: Vec<Column>,
        body: Payload,
        defaults: bool,
        conflict: Option<Conflict>,
        /// PUT: what the row in the body must fulfil.
        only: Vec<Condition>,
        returning: Returning,
    },
    Update {
        table: String,
        columns: Vec<Column>,
        body: Payload,
        defaults: bool,
        conditions: Vec<Condition>,
        returning: Returning,
    },
    Delete {
        table: String,
        conditions: Vec<Condition>,
        returning: Returning,
    },
}

/// Plans a change of `table`, whose rows `node` shows.
pub(in super::super) fn change(
    schema: &Schema,
    method: &Method,
    table: &str,
    query: &Query,
    node: &Node,
    body: Option<Payload>,
    wanted: Wanted,
) -> Result<Change, RestError> {
    let level = Level::table(schema, table).ok_or_else(|| no_table(schema, table))?;
    let known = schema.tables.get(table).ok_or_else(|| no_table(schema, table))?;
    let returning = if wanted.rows {
        returning(node, &known.key)
    } else {
        Returning::Nothing
    };
    let mut conditions = conditions(level, query)?;
    let table = table.to_owned();
    if *method == Method::DELETE {
        guard(&conditions, "DELETE")?;
        return Ok(Change::Delete {
            table,
            conditions,
            returning,
        });
    }
    let body = body.ok_or_else(|| RestError::bad("PGRST102", "Empty or invalid json"))?;
    let columns = columns(&table, known, query, &body)?;
    if *method == Method::PATCH {
        if !columns.is_empty() {
            guard(&conditions, "UPDATE")?;
        }
        return Ok(Change::Update {
            table,
            columns,
            body,
            defaults: wanted.defaults,
            conditions,
            returning,
        });
    }
    let put = *method == Method::PUT;
    if put {
        whole_key(query, &known.key)?;
    } else {
        conditions.clear();
    }
    let resolution = if put {
        Some(Resolution::Merge)
    } else {
        wanted.resolution
    };
    let target = match &query.on_conflict {
        Some(named) if !put => checked(level, named)?,
        _ => known.key.clone(),
    };
    Ok(Change::Insert {
        table,
        columns,
        body,
        defaults: wanted.defaults && !put,
        conflict: resolution
            .filter(|_| !target.is_empty())
            .map(|resolution| Conflict {
                resolution,
                columns: target,
            }),
        only: conditions,
        returning,
    })
}

fn checked(level: Level<'_>, names: &[String]) -> Result<Vec<String>, RestError> {
    let known = level.all().unwrap_or_default();
    let unknown = names
        .iter()
        .find(|name| !known.iter().any(|column| column.name == **name));
    match unknown {
        Some(name) => Err(RestError::bad("42703", format!("column \"{name}\" does not exist")).missing()),
        None => Ok(names.to_vec()),
    }
}

/// Conditions of the top level.
fn conditions(level: Level<'_>, query: &Query) -> Result<Vec<Condition>, RestError> {
    let mut conditions = Vec::new();
    for (_, filter) in query.filters.iter().filter(|(path, _)| path.is_empty()) {
        conditions.push(level.filter(filter, level.name)?);
    }
    for (_, tree) in query.logic.iter().filter(|(path, _)| path.is_empty()) {
        conditions.push(levels::tree(tree, &mut |filter| {
            level.filter(filter, level.name)
        })?);
    }
    Ok(conditions)
}

/// Supabase loads pg-safeupdate: a change of every row must be asked for with a filter.
fn guard(conditions: &[Condition], verb: &str) -> Result<(), RestError> {
    if conditions.is_empty() {
        return Err(RestError::bad("21000", format!("{verb} requires a WHERE clause")));
    }
    Ok(())
}

/// The columns that are written: those the request names, else the keys of the body.
fn columns(table: &str, known: &Table, query: &Query, body: &Payload) -> Result<Vec<Column>, RestError> {
    let names = query.columns.as_ref().map_or_else(
        || body.keys().iter().cloned().collect::<BTreeSet<String>>(),
        |named| named.iter().cloned().collect(),
    );
    names
        .iter()
        .map(|name| {
            known.column(name).cloned().ok_or_else(|| {
                RestError::bad(
                    "PGRST204",
                    format!("Could not find the '{name}' column of '{table}' in the schema cache"),
                )
                .missing()
            })
        })
        .collect()
}

/// PUT names one row by its whole primary key and nothing else.
fn whole_key(query: &Query, key: &[String]) -> Result<(), RestError> {
    let is_eq = |filter: &Filter| {
        let plain = matches!(
            &filter.test,
            Test::Operator {
                sql: "=",
                quantifier: None,
                ..
            }
        );
        plain && !filter.negated && filter.field.path.is_empty()
    };
    let named: BTreeSet<&String> = query
        .filters
        .iter()
        .map(|(_, filter)| &filter.field.column)
        .collect();
    let good = query.logic.is_empty()
        && !key.is_empty()
        && named == key.iter().collect()
        && query
            .filters
            .iter()
            .all(|(path, filter)| path.is_empty() && is_eq(filter));
    if good {
        return Ok(());
    }
    Err(RestError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "PGRST105",
        "Filters must include all and only primary key columns with 'eq' operators",
    ))
}

/// The columns that must come back, so that everything shown, every join and the row's own address can be had.
fn returning(node: &Node, key: &[String]) -> Returning {
    let mut columns: BTreeSet<&str> = key.iter().map(String::as_str).collect();
    for show in &node.select {
        match show {
            Show::Star => return Returning::Everything,
            Show::Cell { cell, .. } => columns.insert(&cell.column),
        };
    }
    for child in &node.children {
        let Some(needed) = child.joined.as_ref().and_then(|joined| joined.relation.needs()) else {
            return Returning::Everything;
        };
        columns.extend(needed);
    }
    for term in &node.order {
        if let super::node::By::Own(cell) = &term.by {
            columns.insert(&cell.column);
        }
    }
    if columns.is_empty() {
        return Returning::Everything;
    }
    Returning::Columns(columns.into_iter().map(str::to_owned).collect())
}

//! Columns of one level: which names there are and what they are.
//!
//! Called by the other modules of `plan`.

use super::super::ast::{Field, Filter, Key, Test, Tree};
use super::super::error::RestError;
use super::super::hint;
use super::super::schema::{Column, Schema, Table};
use super::node::{Cell, Condition};

/// The columns that may be named at one level.
#[derive(Debug, Clone, Copy)]
pub(super) enum Columns<'s> {
    Table(&'s Table),
    /// What a function gives.
    Listed(&'s [Column]),
    /// Nobody says beforehand; Postgres checks.
    Unknown,
}

/// A level: its columns, and the name of its relation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level<'s> {
    pub columns: Columns<'s>,
    pub name: &'s str,
}

impl<'s> Level<'s> {
    pub fn table(schema: &'s Schema, name: &'s str) -> Option<Level<'s>> {
        let columns = Columns::Table(schema.tables.get(name)?);
        Some(Level { columns, name })
    }

    /// The columns that `*` stands for, where they are known.
    pub fn all(self) -> Option<&'s [Column]> {
        match self.columns {
            Columns::Table(table) => Some(&table.columns),
            Columns::Listed(columns) => Some(columns),
            Columns::Unknown => None,
        }
    }

    /// A field of this level, checked. `alias`: what an error calls the rows.
    pub fn cell(self, field: &Field, alias: &str) -> Result<Cell, RestError> {
        let known = self
            .all()
            .map(|columns| columns.iter().find(|column| column.name == field.column));
        let computed =
            matches!(self.columns, Columns::Table(table) if table.computed.contains(&field.column));
        let kind = match known {
            Some(Some(column)) => column.kind.as_str(),
            Some(None) if !computed => {
                let names = self
                    .all()
                    .unwrap_or_default()
                    .iter()
                    .map(|column| column.name.as_str());
                let closest = hint::column(&field.column, names)
                    .map(|found| format!("Perhaps you meant to reference the column \"{alias}.{found}\"."));
                return Err(RestError::no_column(alias, &field.column).with_hint(closest));
            }
            Some(None) | None => "",
        };
        Ok(Cell {
            column: field.column.clone(),
            path: field.path.clone(),
            to_json: !matches!(kind, "json" | "jsonb"),
            is_vector: kind == "tsvector",
        })
    }

    pub fn filter(self, filter: &Filter, alias: &str) -> Result<Condition, RestError> {
        Ok(Condition::Test {
            cell: self.cell(&filter.field, alias)?,
            negated: filter.negated,
            test: filter.test.clone(),
        })
    }
}

/// A tree of conditions; `leaf` turns the filters into conditions.
pub(super) fn tree(
    tree: &Tree,
    leaf: &mut impl FnMut(&Filter) -> Result<Condition, RestError>,
) -> Result<Condition, RestError> {
    Ok(match tree {
        Tree::Leaf(filter) => leaf(filter)?,
        Tree::Node {
            negated,
            any,
            members,
        } => Condition::Node {
            negated: *negated,
            any: *any,
            members: members
                .iter()
                .map(|member| self::tree(member, leaf))
                .collect::<Result<_, _>>()?,
        },
    })
}

/// `rel=is.null` or `rel=not.is.null`: the name of an embedded relation may stand there.
pub(super) fn emptiness(filter: &Filter) -> Option<(&str, bool)> {
    (filter.field.path.is_empty() && filter.test == Test::Is("NULL"))
        .then_some((filter.field.column.as_str(), filter.negated))
}

/// The name under which a field is shown when the request gives none.
pub(super) fn own_name(field: &Field) -> &str {
    let last = field.path.iter().rev().find_map(|step| match &step.key {
        Key::Name(name) => Some(name.as_str()),
        Key::Index(_) => None,
    });
    last.unwrap_or(&field.column)
}

/// A cast is the one place where a client's word becomes a type: letters, digits, `_` and blanks only.
pub(super) fn cast(text: &str) -> Result<String, RestError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ' ';
    if text.trim().is_empty() || text.len() > 63 || !text.chars().all(plain) {
        return Err(RestError::bad("42704", format!("type \"{text}\" does not exist")));
    }
    Ok(text.to_owned())
}

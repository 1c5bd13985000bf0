//! The tree of what is read, out of `select`, filters, orders and limits.
//!
//! Called by `routes` for every request that gives rows back.

use super::super::ast::{Embed, Filter, Item, Order, Path, Query, Rows, Tree};
use super::super::error::RestError;
use super::super::schema::Schema;
use super::levels::{self, Columns, Level};
use super::node::{By, Cell, Condition, Joined, Node, OrderBy, Show, Shown, Source};
use super::relation;

/// Rows a client gets at most in one answer and in one embedded list, as Supabase's `max-rows`.
pub(in super::super) const ROWS_MAX: i64 = 1000;
/// Lists within lists within the answer's own: each level may have [`ROWS_MAX`] times the rows of the one above it.
pub(super) const LISTS_DEPTH_MAX: usize = 4;
/// Longest part of a table's name that goes into an alias: Postgres cuts names off after 63 bytes.
const ALIAS_BYTES_MAX: usize = 48;

/// What the rows at the top are.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Root<'s> {
    /// Rows of a table, by its name.
    Table(&'s str),
    /// Rows that a change of this table gave: filters and limits of the top were the change's.
    Changed(&'s str),
    /// What a function gave: rows of a table of ours, or of its own.
    Called {
        name: &'s str,
        function: &'s super::super::schema::Function,
    },
}

/// Plans what is read. Fails with what PostgREST says of unknown columns, relations and levels.
pub(in super::super) fn read(schema: &Schema, root: Root<'_>, query: &Query) -> Result<Node, RestError> {
    let (level, source) = match root {
        Root::Table(name) => (Level::table(schema, name), Source::Table(name.to_owned())),
        Root::Changed(name) => (Level::table(schema, name), Source::Result),
        Root::Called { name, function } => (Some(called(schema, name, function)), Source::Result),
    };
    let name = match root {
        Root::Table(name) | Root::Changed(name) | Root::Called { name, .. } => name,
    };
    let level = level.ok_or_else(|| relation::no_table(schema, name))?;
    let mut planner = Planner { schema, next: 0 };
    let mut node = planner.node(&query.select, level, source, level.name.to_owned(), Vec::new())?;
    if lists_depth(&node) > LISTS_DEPTH_MAX {
        return Err(RestError::too_much("lists within lists", LISTS_DEPTH_MAX));
    }
    let changed = matches!(root, Root::Changed(_));
    for (path, filter) in query
        .filters
        .iter()
        .filter(|(path, _)| !changed || !path.is_empty())
    {
        planner.at(&mut node, level, path, |node, level| {
            let condition = condition(node, level, filter)?;
            node.conditions.push(condition);
            Ok(())
        })?;
    }
    for (path, tree) in query
        .logic
        .iter()
        .filter(|(path, _)| !changed || !path.is_empty())
    {
        planner.at(&mut node, level, path, |node, level| add_tree(node, level, tree))?;
    }
    // The first order of a level counts.
    for (path, order) in query.order.iter().rev() {
        planner.at(&mut node, level, path, |node, level| {
            let terms = order.iter().map(|term| order_by(schema, node, level, term));
            node.order = terms.collect::<Result<_, _>>()?;
            Ok(())
        })?;
    }
    if !changed {
        for (path, rows) in &query.rows {
            planner.at(&mut node, level, path, |node, _| {
                node.rows = *rows;
                Ok(())
            })?;
        }
        restrict(&mut node);
    }
    spread_lists(schema, &mut node);
    Ok(node)
}

fn called<'s>(schema: &'s Schema, name: &'s str, function: &'s super::super::schema::Function) -> Level<'s> {
    use super::super::schema::Returns;
    match &function.returns {
        Returns::Row {
            table: Some(table), ..
        } => Level::table(schema, table).unwrap_or(Level {
            columns: Columns::Unknown,
            name,
        }),
        Returns::Row {
            columns: Some(columns),
            ..
        } => Level {
            columns: Columns::Listed(columns),
            name,
        },
        Returns::Row { .. } | Returns::Scalar | Returns::Void => Level {
            columns: Columns::Unknown,
            name,
        },
    }
}

/// How many lists are within each other below `node`.
fn lists_depth(node: &Node) -> usize {
    let depths = node
        .children
        .iter()
        .map(|child| lists_depth(child) + usize::from(!child.is_to_one()));
    depths.max().unwrap_or_default()
}

/// No level gives more than [`ROWS_MAX`] rows.
fn restrict(node: &mut Node) {
    if node.rows != Rows::NONE {
        node.rows = node.rows.and(Rows::of(node.rows.lower, ROWS_MAX));
    }
    node.children.iter_mut().for_each(restrict);
}

/// The lists of a spread to-many relation are made column by column: their columns must be known.
fn spread_lists(schema: &Schema, node: &mut Node) {
    if node.is_spread()
        && !node.is_to_one()
        && let Some(table) = node
            .joined
            .as_ref()
            .and_then(|joined| schema.tables.get(&joined.relation.to))
    {
        let level = Level {
            columns: Columns::Table(table),
            name: &node.name,
        };
        node.select = std::mem::take(&mut node.select)
            .into_iter()
            .flat_map(|show| match show {
                Show::Star => every(level),
                cell @ Show::Cell { .. } => vec![cell],
            })
            .collect();
    }
    node.children
        .iter_mut()
        .for_each(|child| spread_lists(schema, child));
}

fn every(level: Level<'_>) -> Vec<Show> {
    let columns = level.all().unwrap_or_default();
    let shown = columns.iter().filter_map(|column| {
        let field = super::super::ast::Field {
            column: column.name.clone(),
            path: Vec::new(),
        };
        Some(Show::Cell {
            cell: level.cell(&field, level.name).ok()?,
            name: column.name.clone(),
            cast: None,
        })
    });
    shown.collect()
}

struct Planner<'s> {
    schema: &'s Schema,
    next: usize,
}

impl<'s> Planner<'s> {
    /// A node and everything below it. `above`: the aliases that may not be hidden.
    fn node(
        &mut self,
        items: &[Item],
        level: Level<'s>,
        source: Source,
        alias: String,
        mut above: Vec<String>,
    ) -> Result<Node, RestError> {
        let number = self.next;
        self.next += 1;
        let mut node = Node {
            number,
            source,
            alias: alias.clone(),
            name: level.name.to_owned(),
            label: level.name.to_owned(),
            select: Vec::new(),
            conditions: Vec::new(),
            order: Vec::new(),
            rows: Rows::ALL,
            joined: None,
            children: Vec::new(),
        };
        above.push(alias);
        for item in items {
            match item {
                Item::Star => node.select.push(Show::Star),
                Item::Aggregate => {
                    return Err(RestError::bad(
                        "PGRST123",
                        "Use of aggregate functions is not allowed",
                    ));
                }
                Item::Field { field, alias, cast } => node.select.push(Show::Cell {
                    cell: level.cell(field, &node.alias)?,
                    name: alias
                        .clone()
                        .unwrap_or_else(|| levels::own_name(field).to_owned()),
                    cast: cast.as_deref().map(levels::cast).transpose()?,
                }),
                Item::Embed(embed) => {
                    let child = self.embedded(embed, level.name, &above)?;
                    if node.children.iter().any(|other| other.label == child.label) {
                        // Two under one name: PostgREST leaves it to Postgres to say so.
                        let name = format!("{}_{}_{}", level.name, child.label, above.len());
                        return Err(RestError::bad(
                            "42712",
                            format!("table name \"{name}\" specified more than once"),
                        ));
                    }
                    node.children.push(child);
                }
            }
        }
        // Nothing chosen at the top is everything; nothing chosen further down shows nothing and may still filter.
        if items.is_empty() && above.len() == 1 {
            node.select.push(Show::Star);
        }
        Ok(node)
    }

    fn embedded(&mut self, embed: &Embed, origin: &str, above: &[String]) -> Result<Node, RestError> {
        let relation = relation::find(self.schema, origin, embed)?;
        let level = Level::table(self.schema, &relation.to)
            .ok_or_else(|| relation::no_table(self.schema, &relation.to))?;
        let alias = alias(&relation.to, above);
        let parent = above.last().cloned().unwrap_or_default();
        let source = Source::Table(relation.to.clone());
        let mut node = self.node(&embed.items, level, source, alias, above.to_vec())?;
        node.name.clone_from(&embed.relation);
        node.label = embed.alias.clone().unwrap_or_else(|| embed.relation.clone());
        node.joined = Some(Joined {
            relation: relation.clone(),
            parent,
            inner: embed.inner,
            shown: if embed.spread { Shown::Spread } else { Shown::Json },
        });
        Ok(node)
    }

    /// Does something at the level that `path` names.
    fn at(
        &self,
        node: &mut Node,
        level: Level<'s>,
        path: &Path,
        mut change: impl FnMut(&mut Node, Level<'s>) -> Result<(), RestError>,
    ) -> Result<(), RestError> {
        let (mut node, mut level) = (node, level);
        for step in path {
            let found = node
                .children
                .iter()
                .position(|child| child.label == *step)
                .or_else(|| node.children.iter().position(|child| child.name == *step));
            let child = found.and_then(|place| node.children.get_mut(place));
            node = child.ok_or_else(|| not_embedded(step))?;
            let table = node.joined.as_ref().map(|joined| joined.relation.to.as_str());
            level = table
                .and_then(|table| self.schema.tables.get_key_value(table))
                .map(|(name, table)| Level {
                    columns: Columns::Table(table),
                    name,
                })
                .ok_or_else(|| not_embedded(step))?;
        }
        change(node, level)
    }
}

fn not_embedded(name: &str) -> RestError {
    RestError::bad(
        "PGRST108",
        format!("'{name}' is not an embedded resource in this request"),
    )
    .with_hint(Some(format!(
        "Verify that '{name}' is included in the 'select' query parameter."
    )))
}

/// `table_1` for a table one level down, and something else where that would hide a name above it.
fn alias(table: &str, above: &[String]) -> String {
    let mut end = table.len().min(ALIAS_BYTES_MAX);
    while !table.is_char_boundary(end) {
        end -= 1;
    }
    let mut alias = format!("{}_{}", table.get(..end).unwrap_or_default(), above.len());
    while above.contains(&alias) {
        alias.push('_');
    }
    alias
}

fn child<'n>(node: &'n Node, label: &str) -> Option<&'n Node> {
    node.children.iter().find(|child| child.label == label)
}

fn condition(node: &Node, level: Level<'_>, filter: &Filter) -> Result<Condition, RestError> {
    if let Some((name, negated)) = levels::emptiness(filter)
        && let Some(child) = child(node, name)
    {
        return Ok(Condition::Empty {
            child: child.number,
            negated,
        });
    }
    level.filter(filter, &node.alias)
}

fn add_tree(node: &mut Node, level: Level<'_>, tree: &Tree) -> Result<(), RestError> {
    let condition = levels::tree(tree, &mut |filter| condition(node, level, filter))?;
    node.conditions.push(condition);
    Ok(())
}

fn order_by(schema: &Schema, node: &Node, level: Level<'_>, term: &Order) -> Result<OrderBy, RestError> {
    let by = match &term.relation {
        None => By::Own(level.cell(&term.field, &node.alias)?),
        Some(name) => {
            let child = child(node, name).ok_or_else(|| not_embedded(name))?;
            if !child.is_to_one() {
                let (origin, target) = (level.name, &child.label);
                return Err(RestError::bad(
                    "PGRST118",
                    format!("A related order on '{target}' is not possible"),
                )
                .with_details(format!(
                    "'{origin}' and '{target}' do not form a many-to-one or one-to-one relationship"
                )));
            }
            By::Embedded(child.number, shown_cell(schema, child, term)?)
        }
    };
    Ok(OrderBy {
        by,
        direction: term.direction,
        nulls: term.nulls,
    })
}

/// A column that the embedded relation shows: only those can be ordered by.
fn shown_cell(schema: &Schema, child: &Node, term: &Order) -> Result<Cell, RestError> {
    let column = &term.field.column;
    let table = child
        .joined
        .as_ref()
        .and_then(|joined| schema.tables.get(&joined.relation.to));
    let in_table = table.is_some_and(|table| table.column(column).is_some());
    let shown = child.shown();
    if !shown.contains(column) && !(in_table && (child.is_hidden() || shown.iter().any(|name| name == "*"))) {
        return Err(RestError::no_column(&child.label, column));
    }
    Ok(Cell {
        column: column.clone(),
        path: term.field.path.clone(),
        to_json: true,
        is_vector: false,
    })
}

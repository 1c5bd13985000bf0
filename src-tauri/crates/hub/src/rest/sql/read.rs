//! Rows of a node: its columns, its filters, and for each embedded relation a lateral join.

use super::super::ast::Rows;
use super::super::plan::{Condition, Node, Show, Source};
use super::super::schema::relations::{Link, Pairs};
use super::condition::{embedded, joined_is_empty};
use super::{RESULT, Writer, column, ident, table};

/// The junction of a many-to-many relation beside the rows of the node.
fn junction_alias(node: &Node) -> String {
    format!("pgrst_junction_{}", node.number)
}

/// The name by which the list of a spread relation is ordered.
fn order_column(place: usize) -> String {
    format!("pgrst_order_{place}")
}

impl Writer {
    /// `SELECT … FROM … WHERE … ORDER BY … LIMIT …` of a node and all below it.
    pub(super) fn rows(&mut self, node: &Node) -> String {
        if self.is_full() {
            return String::new();
        }
        let spread_list = node.is_spread() && !node.is_to_one();
        let mut shown: Vec<String> = node.select.iter().map(|show| self.show(node, show)).collect();
        if shown.is_empty() && node.children.is_empty() {
            shown.push(format!("{}.*", ident(&node.alias)));
        }
        if spread_list {
            for (place, term) in node.order.iter().enumerate() {
                let by = self.by(node, &term.by);
                shown.push(format!("{by} AS {}", ident(&order_column(place))));
            }
        }
        shown.extend(node.children.iter().flat_map(joined_columns));
        let mut from = self.from(node);
        for child in &node.children {
            from.push_str(&self.join(child));
        }
        let conditions = self.conditions(node, &|writer, number, negated| {
            joined_is_empty(writer, number, negated)
        });
        let order = if spread_list {
            String::new()
        } else {
            self.order(node, &node.order)
        };
        let page = self.page(node.rows);
        let sql = format!("SELECT {} FROM {from}{conditions}{order}{page}", shown.join(", "));
        self.kept(sql)
    }

    /// `SELECT 1 …`: one row for each row of the node, without its limit. Inner joins become conditions.
    pub(super) fn count(&mut self, node: &Node) -> String {
        if self.is_full() {
            return String::new();
        }
        let mut from = self.from(node);
        // What is asked about in several places is written down once: else the text would be multiplied at each
        // level. `OFFSET 0` keeps Postgres from copying it into those places.
        for child in node.children.iter().filter(|child| is_shared(node, child)) {
            let rows = self.count(child);
            let name = embedded(child.number);
            from.push_str(&format!(
                " CROSS JOIN LATERAL (SELECT EXISTS ({rows}) AS e OFFSET 0) AS {name}"
            ));
        }
        let exists = |writer: &mut Writer, child: &Node| {
            if is_shared(node, child) {
                format!("{}.e", embedded(child.number))
            } else {
                format!("EXISTS ({})", writer.count(child))
            }
        };
        let mut conditions = self.conditions(node, &|writer, number, negated| {
            let Some(child) = node.children.iter().find(|child| child.number == number) else {
                return "TRUE".to_owned();
            };
            let not = if negated { "" } else { "NOT " };
            format!("{not}{}", exists(writer, child))
        });
        for child in node.children.iter().filter(|child| is_inner(child)) {
            conditions.push_str(if conditions.is_empty() { " WHERE " } else { " AND " });
            conditions.push_str(&exists(self, child));
        }
        self.kept(format!("SELECT 1 FROM {from}{conditions}"))
    }

    fn show(&mut self, node: &Node, show: &Show) -> String {
        match show {
            Show::Star => format!("{}.*", ident(&node.alias)),
            Show::Cell { cell, name, cast } => {
                let sql = self.cell(&node.alias, cell);
                let sql = match cast {
                    Some(cast) => format!("CAST({sql} AS {cast})"),
                    None => sql,
                };
                format!("{sql} AS {}", ident(name))
            }
        }
    }

    fn from(&mut self, node: &Node) -> String {
        let alias = ident(&node.alias);
        let relation = node
            .joined
            .as_ref()
            .map(|joined| (&joined.relation, &joined.parent));
        match (
            relation.map(|(relation, parent)| (&relation.link, relation, parent)),
            &node.source,
        ) {
            (Some((Link::Computed { schema, function, .. }, relation, parent)), _) => format!(
                "{}.{}({}::{}) AS {alias}",
                ident(schema),
                ident(function),
                ident(parent),
                table(&relation.from)
            ),
            (Some((Link::ManyToMany { junction, .. }, relation, _)), _) => format!(
                "{} AS {alias}, {} AS {}",
                table(&relation.to),
                table(junction),
                ident(&junction_alias(node))
            ),
            (_, Source::Table(name)) => format!("{} AS {alias}", table(name)),
            (_, Source::Result) => format!("{RESULT} AS {alias}"),
        }
    }

    fn conditions(&mut self, node: &Node, empty: super::condition::Emptiness<'_>) -> String {
        let mut parts: Vec<String> = node
            .conditions
            .iter()
            .map(|condition| self.condition(&node.alias, condition, empty))
            .collect();
        parts.extend(join_conditions(node));
        if parts.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", parts.join(" AND "))
        }
    }

    fn page(&mut self, rows: Rows) -> String {
        if rows == Rows::ALL {
            return String::new();
        }
        let limit = rows.limit().map_or("ALL".to_owned(), |limit| limit.to_string());
        format!(" LIMIT {limit} OFFSET {}", rows.lower)
    }

    /// The lateral join that gives an embedded relation.
    fn join(&mut self, child: &Node) -> String {
        let inner = is_inner(child);
        let kind = if inner { "INNER" } else { "LEFT" };
        let name = embedded(child.number);
        let rows = self.rows(child);
        if child.is_to_one() {
            return format!(" {kind} JOIN LATERAL ({rows}) AS {name} ON TRUE");
        }
        let mut lists = vec![format!("json_agg({name}) AS {name}")];
        if child.is_spread() {
            let order = self.list_order(child, &name);
            lists.extend(child.shown().iter().map(|shown| {
                let column = ident(shown);
                format!("coalesce(json_agg({name}.{column}{order}), '[]') AS {column}")
            }));
        }
        // With an inner join the list itself must be there, not only the row that would hold it.
        let on = if inner {
            format!("{name}.{name} IS NOT NULL")
        } else {
            "TRUE".to_owned()
        };
        format!(
            " {kind} JOIN LATERAL (SELECT {} FROM ({rows}) AS {name}) AS {name} ON {on}",
            lists.join(", ")
        )
    }

    fn list_order(&mut self, child: &Node, name: &str) -> String {
        let terms: Vec<String> = child
            .order
            .iter()
            .enumerate()
            .map(|(place, term)| {
                let by = format!("{name}.{}", ident(&order_column(place)));
                format!("{by} {} {}", term.direction, term.nulls)
                    .trim_end()
                    .to_owned()
            })
            .collect();
        if terms.is_empty() {
            String::new()
        } else {
            format!(" ORDER BY {}", terms.join(", "))
        }
    }
}

fn is_inner(child: &Node) -> bool {
    child.joined.as_ref().is_some_and(|joined| joined.inner)
}

/// Whether the count of `node` asks in more than one place whether `child` has rows.
fn is_shared(node: &Node, child: &Node) -> bool {
    asked(&node.conditions, child.number) + usize::from(is_inner(child)) > 1
}

fn asked(conditions: &[Condition], number: usize) -> usize {
    let places = conditions.iter().map(|condition| match condition {
        Condition::Node { members, .. } => asked(members, number),
        Condition::Empty { child, .. } => usize::from(*child == number),
        Condition::Test { .. } => 0,
    });
    places.sum()
}

/// What an embedded relation adds to the columns of the row it belongs to.
fn joined_columns(child: &Node) -> Vec<String> {
    let name = embedded(child.number);
    if child.is_spread() {
        return child
            .shown()
            .iter()
            .map(|shown| match shown.as_str() {
                "*" => format!("{name}.*"),
                shown => format!("{name}.{}", ident(shown)),
            })
            .collect();
    }
    if child.is_hidden() {
        return Vec::new();
    }
    let label = ident(&child.label);
    vec![if child.is_to_one() {
        format!("row_to_json({name}.*) AS {label}")
    } else {
        format!("coalesce({name}.{name}, '[]') AS {label}")
    }]
}

/// What binds the rows of a node to one row of the node above.
fn join_conditions(node: &Node) -> Vec<String> {
    let Some(joined) = &node.joined else {
        return Vec::new();
    };
    let equal = |one: &str, two: &str, pairs: &Pairs| {
        let pairs = pairs.iter();
        pairs
            .map(|(own, other)| format!("{} = {}", column(one, own), column(two, other)))
            .collect::<Vec<String>>()
    };
    match &joined.relation.link {
        Link::ManyToOne { columns, .. }
        | Link::OneToOne { columns, .. }
        | Link::OneToMany { columns, .. } => equal(&joined.parent, &node.alias, columns),
        Link::ManyToMany { source, target, .. } => {
            let junction = junction_alias(node);
            let mut conditions = equal(&node.alias, &junction, target);
            conditions.extend(equal(&joined.parent, &junction, source));
            conditions
        }
        Link::Computed { .. } => Vec::new(),
    }
}

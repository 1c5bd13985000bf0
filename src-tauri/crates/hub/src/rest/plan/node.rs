//! The tree of what is read: one node for the table asked for, one below for each relation embedded in it.

use super::super::ast::{Rows, Step, Test};
use super::super::schema::relations::Relation;

/// A column that exists, and a path into its JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Cell {
    pub column: String,
    pub path: Vec<Step>,
    /// The column is no JSON itself: the path goes into what it would be as JSON.
    pub to_json: bool,
    /// The column is a `tsvector` and needs not be made one.
    pub is_vector: bool,
}

/// One thing shown of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Show {
    /// Every column.
    Star,
    /// A column under a name, perhaps as another type (letters, digits and blanks only).
    Cell {
        cell: Cell,
        name: String,
        cast: Option<String>,
    },
}

/// A condition on the rows of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Condition {
    Node {
        negated: bool,
        any: bool,
        members: Vec<Condition>,
    },
    Test {
        cell: Cell,
        negated: bool,
        test: Test,
    },
    /// Whether the embedded relation with this number has no rows.
    Empty {
        child: usize,
        negated: bool,
    },
}

/// By what rows are ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum By {
    Own(Cell),
    /// A cell of the embedded to-one relation with this number.
    Embedded(usize, Cell),
}

/// One term of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct OrderBy {
    pub by: By,
    pub direction: &'static str,
    pub nulls: &'static str,
}

/// Where the rows of a node come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Source {
    /// A table of the exposed schema.
    Table(String),
    /// The rows that a change or a call gave.
    Result,
}

/// What stands beside the own columns of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Shown {
    /// One key with an object or an array.
    Json,
    /// The columns themselves.
    Spread,
}

/// How a node belongs to the one above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Joined {
    pub relation: Relation,
    /// What rows of the node above are called in SQL.
    pub parent: String,
    pub inner: bool,
    pub shown: Shown,
}

/// A table and what is embedded in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Node {
    /// Unique in the tree; 0 is the root.
    pub number: usize,
    pub source: Source,
    /// What its rows are called in SQL.
    pub alias: String,
    /// Name of the relation, and the name the request gave it.
    pub name: String,
    pub label: String,
    pub select: Vec<Show>,
    pub conditions: Vec<Condition>,
    pub order: Vec<OrderBy>,
    pub rows: Rows,
    pub joined: Option<Joined>,
    pub children: Vec<Node>,
}

impl Node {
    /// Nothing of it is shown: it is there to filter by.
    pub fn is_hidden(&self) -> bool {
        self.select.is_empty() && self.children.iter().all(Node::is_hidden)
    }

    pub fn is_to_one(&self) -> bool {
        self.joined
            .as_ref()
            .is_some_and(|joined| joined.relation.is_to_one())
    }

    pub fn is_spread(&self) -> bool {
        self.joined
            .as_ref()
            .is_some_and(|joined| joined.shown == Shown::Spread)
    }

    /// The names of what it shows, in order; `*` stands for every column.
    pub fn shown(&self) -> Vec<String> {
        let own = self.select.iter().map(|show| match show {
            Show::Star => "*".to_owned(),
            Show::Cell { name, .. } => name.clone(),
        });
        let below = self
            .children
            .iter()
            .filter(|child| !child.is_hidden())
            .flat_map(|child| {
                if child.is_spread() {
                    child.shown()
                } else {
                    vec![child.label.clone()]
                }
            });
        own.chain(below).collect()
    }
}

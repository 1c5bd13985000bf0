//! The query string as a tree: what `parse` reads and what `plan` checks against the schema.
//!
//! Nothing in here has been checked against the database, and no text in here may become SQL.

/// Names of embedded relations from the root down; empty for the root itself.
pub(crate) type Path = Vec<String>;

/// One entry of `select=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// `*`
    Star,
    /// `alias:column->path::cast`
    Field {
        field: Field,
        alias: Option<String>,
        cast: Option<String>,
    },
    /// `column.sum()` or `count()`: understood, and refused.
    Aggregate,
    /// `alias:relation!hint!inner(…)` or `...relation(…)`
    Embed(Embed),
}

/// A relation in `select=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Embed {
    pub relation: String,
    pub alias: Option<String>,
    pub hint: Option<String>,
    pub inner: bool,
    /// `...`: its columns stand beside those of the row they belong to.
    pub spread: bool,
    pub items: Vec<Item>,
}

/// A column and the path into its JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub column: String,
    pub path: Vec<Step>,
}

/// One step of a JSON path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// `->>` instead of `->`: the value as text.
    pub as_text: bool,
    pub key: Key,
}

/// Where a step goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    Name(String),
    /// Digits, perhaps with a minus.
    Index(String),
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tree {
    /// `and(…)`, `or(…)`
    Node {
        negated: bool,
        any: bool,
        members: Vec<Tree>,
    },
    Leaf(Filter),
}

/// `field=[not.]operator.value`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub field: Field,
    pub negated: bool,
    pub test: Test,
}

/// The right side of a filter. The SQL in it is from fixed lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Test {
    /// A two-sided operator and its value; `pattern`: `*` stands for `%`.
    Operator {
        sql: &'static str,
        quantifier: Option<&'static str>,
        pattern: bool,
        value: String,
    },
    /// `in.(…)`
    In(Vec<String>),
    /// `is.…`: the SQL after `IS`.
    Is(&'static str),
    /// `isdistinct.…`
    IsDistinct(String),
    /// `fts(lang).…`: the function that makes the query.
    Search {
        function: &'static str,
        language: Option<String>,
        value: String,
    },
}

/// One entry of `order=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    /// `relation(field)`: by a field of an embedded to-one relation.
    pub relation: Option<String>,
    pub field: Field,
    /// `ASC`, `DESC` or nothing.
    pub direction: &'static str,
    /// `NULLS FIRST`, `NULLS LAST` or nothing.
    pub nulls: &'static str,
}

/// Rows from `lower` to `upper`, both counted from 0 and both inside; without `upper`, to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rows {
    pub lower: i64,
    pub upper: Option<i64>,
}

impl Rows {
    /// Every row.
    pub const ALL: Rows = Rows {
        lower: 0,
        upper: None,
    };
    /// None at all, as `limit=0` asks.
    pub const NONE: Rows = Rows {
        lower: 0,
        upper: Some(-1),
    };

    /// `limit` rows from `lower` on.
    pub fn of(lower: i64, limit: i64) -> Rows {
        Rows {
            lower,
            upper: Some(lower.saturating_add(limit).saturating_sub(1)),
        }
    }

    /// How many rows at most.
    pub fn limit(self) -> Option<i64> {
        let upper = self.upper?;
        Some(upper.saturating_sub(self.lower).saturating_add(1).max(0))
    }

    /// The rows of both.
    pub fn and(self, other: Rows) -> Rows {
        Rows {
            lower: self.lower.max(other.lower),
            upper: match (self.upper, other.upper) {
                (Some(one), Some(two)) => Some(one.min(two)),
                (one, two) => one.or(two),
            },
        }
    }

    /// True when no row can be in it.
    pub fn is_empty(self) -> bool {
        self.upper.is_some_and(|upper| upper < self.lower)
    }
}

/// Everything the query string says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Query {
    /// Empty: all columns.
    pub select: Vec<Item>,
    pub filters: Vec<(Path, Filter)>,
    pub logic: Vec<(Path, Tree)>,
    pub order: Vec<(Path, Vec<Order>)>,
    /// `limit` and `offset` of each level that has them.
    pub rows: Vec<(Path, Rows)>,
    pub columns: Option<Vec<String>>,
    pub on_conflict: Option<Vec<String>>,
    /// Pairs that are no filter: arguments of a function called by GET.
    pub arguments: Vec<(String, String)>,
}

impl Query {
    /// The rows asked for at the top.
    pub fn top(&self) -> Rows {
        self.rows
            .iter()
            .find(|(path, _)| path.is_empty())
            .map_or(Rows::ALL, |(_, rows)| *rows)
    }
}

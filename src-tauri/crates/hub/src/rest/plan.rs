//! The request as a small tree: what `parse` and `request` read and what `sql` writes down.
//!
//! No text in here has been checked against the schema; `sql` does that. Built by `parse`.

/// One entry of `select=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selected {
    /// `*`
    Star,
    /// A column, perhaps with a path into its JSON, another name and a cast.
    Field {
        field: Field,
        alias: Option<String>,
        cast: Option<String>,
    },
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
    pub key: String,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Test { field: Field, test: Test },
}

/// The right side of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Test {
    /// A two-sided operator of SQL and its value.
    Operator { sql: &'static str, value: String },
    /// `in.(…)`
    In(Vec<String>),
    /// `is.…`: the SQL after `IS`.
    Is(&'static str),
}

/// One entry of `order=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    pub field: Field,
    /// SQL after the field: direction and place of nulls.
    pub direction: String,
}

/// Everything the query string says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub select: Vec<Selected>,
    pub conditions: Vec<Condition>,
    pub order: Vec<Order>,
    pub limit: Option<u64>,
    pub offset: u64,
    pub on_conflict: Vec<String>,
    pub columns: Option<Vec<String>>,
    /// Pairs that are no filter of a table: arguments when the request is a GET of a function.
    pub arguments: Vec<(String, String)>,
}

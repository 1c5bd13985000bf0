//! Cells, conditions and orders in SQL.

use super::super::ast::{Key, Test};
use super::super::plan::{By, Cell, Condition, Node, OrderBy};
use super::{Writer, column, ident};

/// What the rows of an embedded relation are called beside those they belong to.
pub(super) fn embedded(number: usize) -> String {
    ident(&format!("pgrst_embed_{number}"))
}

/// How emptiness of an embedded relation is asked: of its joined rows, or of a query of its own where it is not
/// joined.
pub(super) type Emptiness<'f> = &'f dyn Fn(&mut Writer, usize, bool) -> String;

/// Of the joined rows. Not `IS NULL`: a row of nulls is a row.
pub(super) fn joined_is_empty(_: &mut Writer, number: usize, negated: bool) -> String {
    let not = if negated { "" } else { "NOT " };
    format!("{} IS {not}DISTINCT FROM NULL", embedded(number))
}

impl Writer {
    /// A cell of the rows called `alias`.
    pub(super) fn cell(&mut self, alias: &str, cell: &Cell) -> String {
        let column = column(alias, &cell.column);
        if cell.path.is_empty() {
            return column;
        }
        let mut sql = if cell.to_json {
            format!("to_jsonb({column})")
        } else {
            column
        };
        for step in &cell.path {
            sql.push_str(if step.as_text { "->>" } else { "->" });
            match &step.key {
                Key::Name(name) => sql.push_str(&self.value(name)),
                Key::Index(index) => {
                    let place = self.value(index);
                    sql.push_str(&place);
                    sql.push_str("::int");
                }
            }
        }
        format!("({sql})")
    }

    pub(super) fn condition(&mut self, alias: &str, condition: &Condition, empty: Emptiness<'_>) -> String {
        match condition {
            Condition::Node {
                negated,
                any,
                members,
            } => {
                let parts: Vec<String> = members
                    .iter()
                    .map(|member| self.condition(alias, member, empty))
                    .collect();
                let not = if *negated { "NOT " } else { "" };
                format!("{not}({})", parts.join(if *any { " OR " } else { " AND " }))
            }
            Condition::Test { cell, negated, test } => {
                let sql = self.test(alias, cell, test);
                if *negated { format!("NOT ({sql})") } else { sql }
            }
            Condition::Empty { child, negated } => empty(self, *child, *negated),
        }
    }

    fn test(&mut self, alias: &str, cell: &Cell, test: &Test) -> String {
        let left = self.cell(alias, cell);
        match test {
            Test::Operator {
                sql,
                quantifier,
                pattern,
                value,
            } => {
                let value = if *pattern {
                    self.value(value.replace('*', "%"))
                } else {
                    self.value(value)
                };
                match quantifier {
                    Some(quantifier) => format!("{left} {sql} {quantifier} ({value})"),
                    None => format!("{left} {sql} {value}"),
                }
            }
            // `in.()` is one empty value in the grammar and none in meaning.
            Test::In(values) if matches!(values.as_slice(), [one] if one.is_empty()) => {
                format!("{left} = ANY ('{{}}')")
            }
            Test::In(values) => format!("{left} = ANY ({})", self.array(values)),
            Test::Is(what) => format!("{left} IS {what}"),
            Test::IsDistinct(value) => format!("{left} IS DISTINCT FROM {}", self.value(value)),
            Test::Search {
                function,
                language,
                value,
            } => {
                let mut in_language = || match language {
                    Some(language) => format!("{}, ", self.value(language)),
                    None => String::new(),
                };
                let left = if cell.is_vector && cell.path.is_empty() {
                    left
                } else {
                    format!("to_tsvector({}{left})", in_language())
                };
                let query = format!("{function}({}", in_language());
                format!("{left} @@ {query}{})", self.value(value))
            }
        }
    }

    /// `ORDER BY …`, or nothing.
    pub(super) fn order(&mut self, node: &Node, terms: &[OrderBy]) -> String {
        if terms.is_empty() {
            return String::new();
        }
        let parts: Vec<String> = terms
            .iter()
            .map(|term| {
                let by = self.by(node, &term.by);
                format!("{by} {} {}", term.direction, term.nulls)
                    .trim_end()
                    .to_owned()
            })
            .collect();
        format!(" ORDER BY {}", parts.join(", "))
    }

    pub(super) fn by(&mut self, node: &Node, by: &By) -> String {
        match by {
            By::Own(cell) => self.cell(&node.alias, cell),
            By::Embedded(number, cell) => {
                let alias = format!("pgrst_embed_{number}");
                self.cell(&alias, cell)
            }
        }
    }
}

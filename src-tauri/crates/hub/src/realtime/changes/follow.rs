//! A binding as the database understood it, for one table: what is compared with what.
//!
//! Pure: what only the database can compare is named, not compared. Made by `subscribe`, used by `deliver`.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::filter::Op;
use crate::db;

/// Changes of one table that a channel gets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Follow {
    /// Id of the binding.
    pub binding: u32,
    /// Object id of the table.
    pub table: u32,
    /// `INSERT`, `UPDATE`, `DELETE` or `*`.
    pub event: String,
    pub conditions: Vec<Check>,
    /// Only these columns and the primary key; in order, each once.
    pub select: Option<Arc<[String]>>,
}

/// How much one user follows.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    /// Tables, each binding counted.
    pub tables: usize,
    /// Different choices of columns.
    pub selects: HashSet<(u32, Arc<[String]>)>,
}

impl Followed {
    /// Adds what one channel follows.
    pub fn add(&mut self, follows: &[Follow]) {
        self.tables += follows.len();
        let chosen = follows
            .iter()
            .filter_map(|one| Some((one.table, one.select.clone()?)));
        self.selects.extend(chosen);
    }
}

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Check {
    pub column: String,
    pub negated: bool,
    pub test: Test,
}

/// How a value is compared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Test {
    /// Equal to one of these, as JSON has them.
    Same(Vec<Value>),
    /// `is distinct from` this.
    Distinct(Value),
    /// `is` this: null, true or false.
    Is(Value),
    /// By an operator of the database.
    Asked(Question),
}

/// What the database is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub column: String,
    /// SQL operator, from a fixed list.
    pub operator: &'static str,
    /// SQL name of the type the value is read in, quoted.
    pub type_name: String,
    pub value: String,
}

impl Question {
    /// SQL for a row `r`, with the value as parameter `place`.
    pub fn sql(&self, place: usize) -> String {
        let (column, operator, type_name) = (db::ident(&self.column), self.operator, &self.type_name);
        let close = if operator.ends_with('(') { ")" } else { "" };
        format!("(r.{column} {operator} ${place}::text::{type_name}{close})")
    }
}

/// The SQL operator of an op that is not compared here.
pub(crate) fn operator(op: Op) -> &'static str {
    match op {
        Op::Eq => "=",
        Op::Neq => "<>",
        Op::Lt => "<",
        Op::Lte => "<=",
        Op::Gt => ">",
        Op::Gte => ">=",
        Op::In => "= any (",
        Op::Like => "~~",
        Op::Ilike => "~~*",
        Op::Match => "~",
        Op::Imatch => "~*",
        Op::Is | Op::IsDistinct => "is distinct from",
    }
}

impl Follow {
    /// Whether events of this kind are followed.
    pub fn wants(&self, kind: &str) -> bool {
        self.event == kind || self.event == "*"
    }

    /// Whether `row` satisfies every condition; `ask` answers what only the database can compare (true, false, or null).
    /// A column that is not there satisfies nothing.
    pub fn holds(&self, row: &Map<String, Value>, ask: impl Fn(&Question) -> Option<bool>) -> bool {
        self.conditions.iter().all(|check| check.holds(row, &ask))
    }

    /// Whether `row` may satisfy every condition, as far as can be said without the database.
    pub fn may_hold(&self, row: &Map<String, Value>) -> bool {
        self.conditions.iter().all(|check| match check.test {
            Test::Asked(_) => row.contains_key(&check.column),
            Test::Same(_) | Test::Distinct(_) | Test::Is(_) => check.holds(row, |_| None),
        })
    }

    /// What the database must be asked about a row.
    pub fn questions(&self) -> impl Iterator<Item = &Question> {
        self.conditions.iter().filter_map(|check| match &check.test {
            Test::Asked(question) => Some(question),
            Test::Same(_) | Test::Distinct(_) | Test::Is(_) => None,
        })
    }
}

impl Check {
    fn holds(&self, row: &Map<String, Value>, ask: impl Fn(&Question) -> Option<bool>) -> bool {
        let Some(value) = row.get(&self.column) else {
            return false;
        };
        let known = |holds: bool| (!value.is_null()).then_some(holds);
        let answer = match &self.test {
            Test::Same(values) => known(values.contains(value)),
            Test::Distinct(other) => Some(value != other),
            Test::Is(other) => Some(value == other),
            Test::Asked(question) => ask(question),
        };
        answer.is_some_and(|holds| holds != self.negated)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(negated: bool, test: Test, row: Value) -> bool {
        let follow = Follow {
            binding: 1,
            table: 1,
            event: "*".to_owned(),
            conditions: vec![Check {
                column: "a".to_owned(),
                negated,
                test,
            }],
            select: None,
        };
        follow.holds(row.as_object().unwrap(), |_| None)
    }

    #[test]
    fn null_satisfies_no_comparison_and_no_negated_one() {
        let same = || Test::Same(vec![json!(1), json!(2)]);
        assert!(holds(false, same(), json!({"a": 2})));
        assert!(!holds(true, same(), json!({"a": 2})));
        assert!(holds(true, same(), json!({"a": 3})));
        for row in [json!({"a": null}), json!({})] {
            assert!(!holds(false, same(), row.clone()), "{row}");
            assert!(!holds(true, same(), row.clone()), "{row}");
        }
    }

    #[test]
    fn what_the_database_must_compare_is_open_and_the_rest_is_decided_before() {
        let asked = Check {
            column: "a".to_owned(),
            negated: false,
            test: Test::Asked(Question {
                column: "a".to_owned(),
                operator: "~~",
                type_name: "text".to_owned(),
                value: "%".to_owned(),
            }),
        };
        let same = Check {
            column: "b".to_owned(),
            negated: false,
            test: Test::Same(vec![json!(1)]),
        };
        let follow = Follow {
            binding: 1,
            table: 1,
            event: "*".to_owned(),
            conditions: vec![asked, same],
            select: None,
        };
        let may = |row: Value| follow.may_hold(row.as_object().unwrap());
        assert!(may(json!({"a": "x", "b": 1})));
        assert!(!may(json!({"a": "x", "b": 2})));
        assert!(!may(json!({"b": 1})), "there is nothing to compare");
    }

    #[test]
    fn is_and_isdistinct_know_null() {
        assert!(holds(false, Test::Is(Value::Null), json!({"a": null})));
        assert!(holds(true, Test::Is(Value::Null), json!({"a": 1})));
        assert!(!holds(false, Test::Is(Value::Null), json!({})));
        assert!(holds(false, Test::Distinct(json!(1)), json!({"a": null})));
        assert!(!holds(true, Test::Distinct(json!(1)), json!({"a": null})));
        assert!(holds(true, Test::Distinct(json!(1)), json!({"a": 1})));
    }
}

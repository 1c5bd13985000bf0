//! Calls of functions.

use super::super::plan::{Arguments, Call};
use super::super::schema::{Argument, Column, Returns, SCHEMA};
use super::change::BODY;
use super::{Writer, column, ident};

impl Writer {
    /// `SELECT … FROM function(…)`
    pub(super) fn call(&mut self, call: &Call) -> String {
        let scalar = !matches!(call.function.returns, Returns::Row { .. });
        let function = format!("{}.{}", ident(SCHEMA), ident(&call.name));
        let (before, arguments) = self.arguments(&call.arguments);
        let called = if scalar {
            format!("(SELECT {function}({arguments}) AS pgrst_scalar) AS pgrst_call")
        } else {
            format!("{function}({arguments}) AS pgrst_call")
        };
        let shown = if scalar {
            "pgrst_call.pgrst_scalar"
        } else {
            "pgrst_call.*"
        };
        if before.is_empty() {
            format!("SELECT {shown} FROM {called}")
        } else {
            format!("SELECT {shown} {before}, LATERAL {called}")
        }
    }

    /// What must stand before the call, and what stands in its parentheses.
    fn arguments(&mut self, arguments: &Arguments) -> (String, String) {
        match arguments {
            Arguments::None => (String::new(), String::new()),
            Arguments::Whole(kind, body) => (String::new(), format!("{}::{kind}", self.value(body.text()))),
            Arguments::Named(used, body) => {
                let columns: Vec<Column> = used
                    .iter()
                    .map(|argument| Column {
                        name: argument.name.clone(),
                        kind: argument.widest().to_owned(),
                        default: None,
                        nullable: true,
                    })
                    .collect();
                let before = self.body_rows(body, &columns, false, true);
                let named = used
                    .iter()
                    .map(|argument| format!("{} := {}", start(argument), column(BODY, &argument.name)));
                (before, named.collect::<Vec<String>>().join(", "))
            }
            Arguments::Direct(used) => {
                let named = used.iter().map(|(argument, values)| {
                    let value = match values.as_slice() {
                        many if argument.variadic => self.array(many),
                        [one, ..] => self.value(one),
                        [] => "NULL".to_owned(),
                    };
                    format!("{} := {value}::{}", start(argument), argument.widest())
                });
                (String::new(), named.collect::<Vec<String>>().join(", "))
            }
        }
    }
}

fn start(argument: &Argument) -> String {
    let variadic = if argument.variadic { "VARIADIC " } else { "" };
    format!("{variadic}{}", ident(&argument.name))
}

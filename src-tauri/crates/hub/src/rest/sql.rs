//! Writes a plan down as one SQL statement with parameters.
//!
//! The only place of `rest` where SQL is put together. Names come from the schema cache and are quoted; values
//! are parameters; JSON keys are quoted literals. Every statement gives one row: `body` (JSON text), `page` (rows
//! in it) and `total` (rows without limit, or null). Called by `run`.

use super::error::RestError;
use super::plan::{Condition, Field, Order, Query, Selected, Test};
use super::schema::{Function, Returns, Table};
use crate::db::{Text, ident};

/// Rows a client gets at most in one answer, as Supabase's `max-rows`.
pub(crate) const ROWS_MAX: u64 = 1000;

/// A statement and its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Statement {
    pub sql: String,
    pub parameters: Vec<Text>,
}

/// What to do with a row that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolution {
    Fail,
    Ignore,
    Merge,
}

/// What a write gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Minimal,
    Representation,
}

fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''").replace('\0', "");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// Parameters collected while a statement is written.
#[derive(Debug, Default)]
struct Writer {
    parameters: Vec<Text>,
}

impl Writer {
    fn value(&mut self, text: impl Into<String>) -> String {
        self.parameters.push(Text(Some(text.into())));
        format!("${}", self.parameters.len())
    }

    fn finish(self, sql: String) -> Statement {
        Statement {
            sql,
            parameters: self.parameters,
        }
    }

    /// The argument list of a call, and the FROM item (with its comma) that reads the values out of `body`.
    fn arguments(&mut self, function: &Function, given: &[String], body: String) -> (String, String) {
        let used: Vec<&(String, String)> = function
            .arguments
            .iter()
            .filter(|(argument, _)| given.contains(argument))
            .collect();
        if used.is_empty() {
            return (String::new(), String::new());
        }
        let body = self.value(body);
        let named: Vec<String> = used
            .iter()
            .map(|(name, _)| format!("{0} := _a.{0}", ident(name)))
            .collect();
        let typed: Vec<String> = used
            .iter()
            .map(|(name, kind)| format!("{} {kind}", ident(name)))
            .collect();
        let from = format!("json_to_record({body}::json) AS _a({}), ", typed.join(", "));
        (named.join(", "), from)
    }

    fn condition(&mut self, scope: &Scope<'_>, condition: &Condition) -> Result<String, RestError> {
        Ok(match condition {
            Condition::All(members) => self.joined(scope, members, " AND ")?,
            Condition::Any(members) => self.joined(scope, members, " OR ")?,
            Condition::Not(inner) => format!("NOT ({})", self.condition(scope, inner)?),
            Condition::Test { field, test } => {
                let left = scope.field(field)?;
                match test {
                    Test::Operator { sql, value } => format!("{left} {sql} {}", self.value(value)),
                    Test::In(values) => format!("{left} = ANY ({})", self.value(array(values))),
                    Test::Is(what) => format!("{left} IS {what}"),
                }
            }
        })
    }

    fn joined(&mut self, scope: &Scope<'_>, all: &[Condition], word: &str) -> Result<String, RestError> {
        let parts: Vec<String> = all
            .iter()
            .map(|one| self.condition(scope, one))
            .collect::<Result<_, _>>()?;
        Ok(format!("({})", parts.join(word)))
    }

    fn filter(&mut self, scope: &Scope<'_>, conditions: &[Condition]) -> Result<String, RestError> {
        if conditions.is_empty() {
            return Ok(String::new());
        }
        Ok(format!(" WHERE {}", self.joined(scope, conditions, " AND ")?))
    }
}

/// An array in Postgres's own notation, every element quoted.
fn array(values: &[String]) -> String {
    let quoted: Vec<String> = values
        .iter()
        .map(|value| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
        .collect();
    format!("{{{}}}", quoted.join(","))
}

/// The relation whose columns are named: `alias` in SQL, `columns` as known (none: anything goes, Postgres checks).
struct Scope<'a> {
    alias: &'a str,
    name: &'a str,
    columns: Option<&'a [String]>,
}

impl Scope<'_> {
    fn column(&self, name: &str) -> Result<String, RestError> {
        if self
            .columns
            .is_some_and(|known| !known.iter().any(|column| column == name))
        {
            return Err(RestError::new(
                axum::http::StatusCode::BAD_REQUEST,
                "42703",
                format!("column {}.{name} does not exist", self.name),
            ));
        }
        Ok(format!("{}.{}", self.alias, ident(name)))
    }

    fn field(&self, field: &Field) -> Result<String, RestError> {
        let mut sql = self.column(&field.column)?;
        for step in &field.path {
            let arrow = if step.as_text { "->>" } else { "->" };
            let index = step.key.parse::<i32>().map(|index| index.to_string());
            sql.push_str(arrow);
            sql.push_str(&index.unwrap_or_else(|_| literal(&step.key)));
        }
        Ok(if field.path.is_empty() {
            sql
        } else {
            format!("({sql})")
        })
    }

    fn select(&self, entries: &[Selected]) -> Result<String, RestError> {
        let mut parts = Vec::new();
        for entry in entries {
            parts.push(match entry {
                Selected::Star => format!("{}.*", self.alias),
                Selected::Field { field, alias, cast } => {
                    let last = field.path.last().map_or(&field.column, |step| &step.key);
                    let mut sql = self.field(field)?;
                    if let Some(cast) = cast {
                        sql = format!("CAST({sql} AS {})", type_name(cast)?);
                    }
                    format!("{sql} AS {}", ident(alias.as_ref().unwrap_or(last)))
                }
            });
        }
        Ok(parts.join(", "))
    }

    fn order(&self, terms: &[Order]) -> Result<String, RestError> {
        if terms.is_empty() {
            return Ok(String::new());
        }
        let parts: Vec<String> = terms
            .iter()
            .map(|term| Ok(format!("{}{}", self.field(&term.field)?, term.direction)))
            .collect::<Result<_, RestError>>()?;
        Ok(format!(" ORDER BY {}", parts.join(", ")))
    }
}

/// A cast is the one place where a client's word becomes a type: letters, digits and blanks only.
fn type_name(text: &str) -> Result<&str, RestError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ' ';
    if text.is_empty() || text.len() > 63 || !text.trim_end_matches("[]").chars().all(plain) {
        return Err(RestError::query(format!("\"failed to parse cast ({text})\"")));
    }
    Ok(text)
}

fn page(query: &Query) -> String {
    format!(
        " LIMIT {} OFFSET {}",
        query.limit.unwrap_or(ROWS_MAX).min(ROWS_MAX),
        query.offset
    )
}

const ROWS: &str = "coalesce(json_agg(_row), '[]')::text AS body, count(_row) AS page";

/// GET and HEAD of a table.
pub(crate) fn read(name: &str, table: &Table, query: &Query, count: bool) -> Result<Statement, RestError> {
    let mut writer = Writer::default();
    let scope = Scope {
        alias: "_t",
        name,
        columns: Some(&table.columns),
    };
    let from = format!("public.{} AS _t", ident(name));
    let filter = writer.filter(&scope, &query.conditions)?;
    let rows = format!(
        "SELECT {} FROM {from}{filter}{}{}",
        scope.select(&query.select)?,
        scope.order(&query.order)?,
        page(query)
    );
    let total = if count {
        format!("(SELECT count(*) FROM {from}{filter})")
    } else {
        "NULL::bigint".to_owned()
    };
    Ok(writer.finish(format!("SELECT {ROWS}, {total} AS total FROM ({rows}) AS _row")))
}

/// The statement around a write: its returned rows as the answer asks for them.
fn answered(scope: &Scope<'_>, change: &str, query: &Query, answer: Answer) -> Result<String, RestError> {
    Ok(match answer {
        Answer::Minimal => format!(
            "WITH _w AS ({change} RETURNING 1) SELECT '' AS body, count(*) AS page, count(*) AS total FROM _w"
        ),
        Answer::Representation => {
            let returning = if query.select.contains(&Selected::Star) {
                format!("{}.*", scope.alias)
            } else {
                let mut columns: Vec<String> = Vec::new();
                for entry in &query.select {
                    if let Selected::Field { field, .. } = entry {
                        let column = scope.column(&field.column)?;
                        if !columns.contains(&column) {
                            columns.push(column);
                        }
                    }
                }
                columns.join(", ")
            };
            let outer = Scope {
                alias: "_w",
                ..*scope
            };
            format!(
                "WITH _w AS ({change} RETURNING {returning}) SELECT {ROWS}, count(_row) AS total \
                 FROM (SELECT {} FROM _w{}) AS _row",
                outer.select(&query.select)?,
                outer.order(&query.order)?
            )
        }
    })
}

/// POST to a table. `body` is a JSON array of objects, `columns` the keys that are written.
pub(crate) fn insert(
    name: &str,
    table: &Table,
    query: &Query,
    columns: &[String],
    body: String,
    how: (Resolution, Answer),
) -> Result<Statement, RestError> {
    let mut writer = Writer::default();
    let scope = Scope {
        alias: "_t",
        name,
        columns: Some(&table.columns),
    };
    let mut quoted = Vec::new();
    for column in columns {
        if !table.columns.contains(column) {
            return Err(RestError::new(
                axum::http::StatusCode::BAD_REQUEST,
                "PGRST204",
                format!("Could not find the '{column}' column of '{name}' in the schema cache"),
            ));
        }
        quoted.push(ident(column));
    }
    let (resolution, answer) = how;
    let list = quoted.join(", ");
    let source = if quoted.is_empty() {
        " DEFAULT VALUES".to_owned()
    } else {
        let body = writer.value(body);
        format!(
            " ({list}) SELECT {list} FROM json_populate_recordset(NULL::public.{}, {body}::json)",
            ident(name)
        )
    };
    let target = if query.on_conflict.is_empty() {
        &table.key
    } else {
        &query.on_conflict
    };
    let target: Vec<String> = target
        .iter()
        .map(|column| scope.column(column).map(|_| ident(column)))
        .collect::<Result<_, _>>()?;
    let conflict = match resolution {
        _ if target.is_empty() => String::new(),
        Resolution::Fail => String::new(),
        Resolution::Ignore => format!(" ON CONFLICT ({}) DO NOTHING", target.join(", ")),
        Resolution::Merge => {
            let set: Vec<String> = quoted
                .iter()
                .map(|column| format!("{column} = EXCLUDED.{column}"))
                .collect();
            format!(
                " ON CONFLICT ({}) DO UPDATE SET {}",
                target.join(", "),
                set.join(", ")
            )
        }
    };
    let change = format!("INSERT INTO public.{} AS _t{source}{conflict}", ident(name));
    let sql = answered(&scope, &change, query, answer)?;
    Ok(writer.finish(sql))
}

/// PATCH of a table: the columns of one JSON object, on the rows the filters name.
pub(crate) fn update(
    name: &str,
    table: &Table,
    query: &Query,
    columns: &[String],
    body: String,
    answer: Answer,
) -> Result<Statement, RestError> {
    unfiltered(query, "UPDATE")?;
    let mut writer = Writer::default();
    let scope = Scope {
        alias: "_t",
        name,
        columns: Some(&table.columns),
    };
    let mut set = Vec::new();
    for column in columns {
        if !table.columns.contains(column) {
            return Err(RestError::new(
                axum::http::StatusCode::BAD_REQUEST,
                "PGRST204",
                format!("Could not find the '{column}' column of '{name}' in the schema cache"),
            ));
        }
        set.push(format!("{0} = _b.{0}", ident(column)));
    }
    if set.is_empty() {
        return Err(RestError::new(
            axum::http::StatusCode::BAD_REQUEST,
            "PGRST102",
            "Empty or invalid json",
        ));
    }
    let body = writer.value(body);
    let filter = writer.filter(&scope, &query.conditions)?;
    let table_name = ident(name);
    let change = format!(
        "UPDATE public.{table_name} AS _t SET {} \
         FROM json_populate_record(NULL::public.{table_name}, {body}::json) AS _b{filter}",
        set.join(", ")
    );
    let sql = answered(&scope, &change, query, answer)?;
    Ok(writer.finish(sql))
}

/// DELETE of the rows the filters name.
pub(crate) fn delete(
    name: &str,
    table: &Table,
    query: &Query,
    answer: Answer,
) -> Result<Statement, RestError> {
    unfiltered(query, "DELETE")?;
    let mut writer = Writer::default();
    let scope = Scope {
        alias: "_t",
        name,
        columns: Some(&table.columns),
    };
    let filter = writer.filter(&scope, &query.conditions)?;
    let sql = answered(
        &scope,
        &format!("DELETE FROM public.{} AS _t{filter}", ident(name)),
        query,
        answer,
    )?;
    Ok(writer.finish(sql))
}

/// Supabase loads pg-safeupdate: a change of every row must be asked for with a filter.
fn unfiltered(query: &Query, verb: &str) -> Result<(), RestError> {
    if query.conditions.is_empty() {
        return Err(RestError::new(
            axum::http::StatusCode::BAD_REQUEST,
            "21000",
            format!("{verb} requires a WHERE clause"),
        ));
    }
    Ok(())
}

/// A call: `given` are the names of the arguments in `body`, a JSON object.
pub(crate) fn call(
    name: &str,
    function: &Function,
    given: &[String],
    body: String,
    query: &Query,
    count: bool,
) -> Result<Statement, RestError> {
    let mut writer = Writer::default();
    let (arguments, from) = writer.arguments(function, given, body);
    let called = format!("public.{}({arguments})", ident(name));
    let sql = match (function.returns, function.set) {
        (Returns::Void, _) | (Returns::Scalar, false) => {
            let from = from.trim_end_matches(", ");
            let from = if from.is_empty() {
                String::new()
            } else {
                format!(" FROM {from}")
            };
            let value = if function.returns == Returns::Void {
                format!("SELECT ({called})::text AS v{from}")
            } else {
                format!("SELECT to_json({called})::text AS v{from}")
            };
            format!(
                "SELECT coalesce(v, 'null') AS body, 1::bigint AS page, NULL::bigint AS total FROM ({value}) AS _v"
            )
        }
        (Returns::Scalar, true) => format!(
            "SELECT coalesce(json_agg(_t.v), '[]')::text AS body, count(*) AS page, count(*) AS total \
             FROM (SELECT _f.v FROM {from}LATERAL {called} AS _f(v) LIMIT {ROWS_MAX}) AS _t"
        ),
        (Returns::Row, set) => {
            let scope = Scope {
                alias: "_t",
                name,
                columns: None,
            };
            let filter = writer.filter(&scope, &query.conditions)?;
            let shown = scope.select(&query.select)?;
            let order = scope.order(&query.order)?;
            let body = if set {
                "coalesce(json_agg(_row), '[]')::text"
            } else {
                "coalesce((json_agg(_row)->0)::text, 'null')"
            };
            let total = if count {
                "(SELECT count(*) FROM _r)"
            } else {
                "NULL::bigint"
            };
            format!(
                "WITH _r AS MATERIALIZED (SELECT _f.* FROM {from}LATERAL {called} AS _f) \
                 SELECT {body} AS body, count(_row) AS page, {total} AS total \
                 FROM (SELECT {shown} FROM _r AS _t{filter}{order}{}) AS _row",
                page(query)
            )
        }
    };
    Ok(writer.finish(sql))
}

#[cfg(test)]
mod tests {
    use super::super::parse::{self, Pairs};
    use super::*;

    fn table() -> Table {
        Table {
            columns: ["id", "name", "args"].map(str::to_owned).to_vec(),
            key: vec!["id".to_owned()],
        }
    }

    fn plan(pairs: &[(&str, &str)]) -> Query {
        let pairs: Vec<(String, String)> = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        parse::query(&pairs, |_| Some(Pairs::Filters)).unwrap()
    }

    #[test]
    fn values_are_parameters_and_never_sql() {
        let hostile = "eq.'; drop table t; --";
        let statement = read("t", &table(), &plan(&[("name", hostile)]), true).unwrap();
        assert!(!statement.sql.contains("drop"), "{}", statement.sql);
        assert_eq!(
            statement.parameters,
            [Text(Some("'; drop table t; --".to_owned()))]
        );
    }

    #[test]
    fn names_that_are_no_columns_do_not_reach_sql() {
        let error = read("t", &table(), &plan(&[("x\" or true --", "eq.1")]), false).unwrap_err();
        assert!(matches!(error, RestError::Coded { code, .. } if code == "42703"));
        let statement = read("t", &table(), &plan(&[("select", "args->>a'b\\c")]), false).unwrap();
        assert!(statement.sql.contains("E'a''b\\\\c'"), "{}", statement.sql);
        let cast = read(
            "t",
            &table(),
            &plan(&[("select", "id::text; drop table t")]),
            false,
        );
        assert!(cast.is_err());
    }

    #[test]
    fn a_change_without_a_filter_is_refused() {
        assert!(delete("t", &table(), &plan(&[]), Answer::Minimal).is_err());
        let body = "{}".to_owned();
        assert!(
            update(
                "t",
                &table(),
                &plan(&[]),
                &["name".to_owned()],
                body,
                Answer::Minimal
            )
            .is_err()
        );
    }

    #[test]
    fn list_elements_cannot_leave_their_quotes() {
        assert_eq!(
            array(&["a\"b".to_owned(), "c\\d,e".to_owned()]),
            r#"{"a\"b","c\\d,e"}"#
        );
    }
}

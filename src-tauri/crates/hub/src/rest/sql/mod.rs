//! Writes a plan down as one SQL statement with parameters.
//!
//! The only place of `rest` where SQL is put together. Names come from the schema cache and are quoted; values are
//! parameters, JSON keys too; the words between them are from fixed lists. Every statement gives one row: `total`
//! (rows without limit, or null), `page` (rows in the body), `place` (columns of the address of the one row that
//! was inserted, as JSON), `body` (text; null when it is longer than [`answer_bytes_max`]), `headers` and `status` (what functions asked for), `inserted`.

mod call;
mod change;
mod condition;
mod read;
#[cfg(test)]
pub(super) mod tests;

use super::error::RestError;
use super::plan::{Call, Change, Node, Returning};
use super::request::Media;
use super::schema::{Function, Returns};
use crate::db::{Text, ident};

/// What the rows of a change or a call are called.
const RESULT: &str = "pgrst_source";

/// Longest statement, in bytes, without its parameters; what is embedded counts at each level. Nobody's honest request
/// comes near it: long lists are parameters.
const SQL_BYTES_MAX: usize = 1024 * 1024;

/// Longest body of an answer, in bytes: it is in memory as a whole, in Postgres and here, and is counted only when it is
/// here.
pub(super) const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The same for a server that asks with the secret key.
pub(super) const SERVICE_ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
const SERVICE: &str = "service_role";

/// Longest body of an answer to `role`, in bytes.
pub(super) fn answer_bytes_max(role: &str) -> usize {
    match role {
        SERVICE => SERVICE_ANSWER_BYTES_MAX,
        _ => ANSWER_BYTES_MAX,
    }
}

/// A statement and its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Statement {
    pub sql: String,
    pub parameters: Vec<Text>,
}

/// Parameters collected while a statement is written, and how much of it there is.
#[derive(Debug, Default)]
struct Writer {
    parameters: Vec<Text>,
    /// Bytes of the parts that were [kept](Writer::kept).
    written: usize,
}

impl Writer {
    /// The placeholder of a value, whose type Postgres finds out.
    fn value(&mut self, text: impl Into<String>) -> String {
        self.parameters.push(Text(Some(text.into())));
        format!("${}", self.parameters.len())
    }

    /// A list of values as one parameter.
    fn array(&mut self, values: &[String]) -> String {
        let quoted: Vec<String> = values
            .iter()
            .map(|value| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
            .collect();
        self.value(format!("{{{}}}", quoted.join(",")))
    }

    /// More was written than a statement may have: nothing more is, and [`Writer::finish`] refuses it.
    fn is_full(&self) -> bool {
        self.written > SQL_BYTES_MAX
    }

    /// A finished part of the statement; nothing when there is too much already.
    fn kept(&mut self, sql: String) -> String {
        self.written = self.written.saturating_add(sql.len());
        if self.is_full() { String::new() } else { sql }
    }

    fn finish(self, sql: String) -> Result<Statement, RestError> {
        if self.is_full() || sql.len() > SQL_BYTES_MAX {
            return Err(RestError::too_much("bytes of SQL", SQL_BYTES_MAX));
        }
        Ok(Statement {
            sql,
            parameters: self.parameters,
        })
    }
}

/// `"public"."table"`
fn table(name: &str) -> String {
    format!("{}.{}", ident(super::schema::SCHEMA), ident(name))
}

/// `"alias"."column"`
fn column(alias: &str, name: &str) -> String {
    format!("{}.{}", ident(alias), ident(name))
}

/// What is made of the rows of `_t`.
fn body(media: Option<Media>, function: Option<&Function>) -> String {
    let Some(media) = media else {
        return "''::text".to_owned();
    };
    let scalar = function.is_some_and(|one| !matches!(one.returns, Returns::Row { .. }));
    let single = function.is_some_and(|one| !one.set);
    let rows = if scalar { "_t.pgrst_scalar" } else { "_t" };
    let list = |stripped: bool| {
        let list = format!("json_agg({rows})");
        if stripped {
            format!("json_strip_nulls({list})")
        } else {
            list
        }
    };
    match media {
        Media::Csv => csv(),
        Media::Object { stripped } => format!("coalesce(({}->0)::text, 'null')", list(stripped)),
        Media::Json | Media::Stripped => {
            let list = list(media == Media::Stripped);
            if single {
                format!("coalesce(({list}->0)::text, 'null')")
            } else {
                format!("coalesce({list}::text, '[]')")
            }
        }
    }
}

/// A line of names and the rows as Postgres writes them, without their parentheses.
fn csv() -> String {
    "(select coalesce(string_agg(k, ','), '') from (select json_object_keys(r) as k \
     from (select row_to_json(h) as r from _rows as h limit 1) as s) as n) || E'\\n' || \
     coalesce(string_agg(substring(_t::text, 2, length(_t::text) - 2), E'\\n'), '')"
        .to_owned()
}

const SAID: &str = "nullif(current_setting('response.headers', true), '') AS headers, \
                    nullif(current_setting('response.status', true), '') AS status";

/// The one row of a statement: `with` and what is selected in `row`, but no body that is too long.
fn answer(with: &str, row: &str) -> String {
    format!(
        "WITH {with} SELECT total, page, place, CASE WHEN octet_length(body) <= CASE current_user WHEN '{SERVICE}' \
         THEN {SERVICE_ANSWER_BYTES_MAX} ELSE {ANSWER_BYTES_MAX} END THEN body END AS body, headers, status, inserted FROM (SELECT {row} FROM (SELECT * FROM _rows) AS _t) AS _answer"
    )
}

/// What a table or view shows.
pub(super) fn read(
    node: &Node,
    media: Option<Media>,
    counted: bool,
    most: Option<i64>,
) -> Result<Statement, RestError> {
    let mut writer = Writer::default();
    let rows = writer.rows(node);
    let (count, total) = counting(&mut writer, node, counted, most);
    let row = format!(
        "{total} AS total, count(_t) AS page, NULL::text AS place, {} AS body, {SAID}, NULL::int8 AS inserted",
        body(media, None)
    );
    writer.finish(answer(&format!("_rows AS ({rows}){count}"), &row))
}

/// The statement of which Postgres is to say how many rows it expects.
pub(super) fn planned(node: &Node) -> Result<Statement, RestError> {
    let mut writer = Writer::default();
    let count = writer.count(node);
    writer.finish(format!("EXPLAIN (FORMAT JSON) {count}"))
}

/// A CTE that counts the rows of the root without its limit, and the expression that reads it. `most`: no further.
fn counting(writer: &mut Writer, node: &Node, counted: bool, most: Option<i64>) -> (String, &'static str) {
    if !counted {
        return (String::new(), "NULL::int8");
    }
    let limit = most.map(|most| format!(" LIMIT {most}")).unwrap_or_default();
    let count = writer.count(node);
    (
        format!(", pgrst_count AS ({count}{limit})"),
        "(SELECT count(*) FROM pgrst_count)",
    )
}

/// An insert, update or delete; `node` shows the rows it gives. `key`: the columns of a row's address, if wanted.
pub(super) fn changed(
    change: &Change,
    node: &Node,
    media: Option<Media>,
    key: Option<&[String]>,
) -> Result<Statement, RestError> {
    let mut writer = Writer::default();
    let merged = change.counts_inserted();
    let statement = writer.change(change);
    let rows = match media {
        Some(_) => writer.rows(node),
        // Nothing is shown: no column may be asked for.
        None => format!("SELECT * FROM {RESULT}"),
    };
    let place = match key.filter(|key| !key.is_empty() && *change.returning() != Returning::Nothing) {
        None => "NULL::text".to_owned(),
        Some(key) => format!(
            "CASE WHEN count(_t) = 1 THEN (SELECT json_agg(json_build_array(e.key, \
             coalesce('eq.' || e.value, 'is.null')))::text FROM (SELECT row_to_json(s) AS r FROM {RESULT} AS s LIMIT 1) \
             AS d, json_each_text(d.r) AS e WHERE e.key = ANY ({}::text[])) END",
            writer.array(key)
        ),
    };
    let inserted = if merged {
        "coalesce(nullif(current_setting('pgrst.inserted', true), '')::int8, 0)"
    } else {
        "NULL::int8"
    };
    let row = format!(
        "NULL::int8 AS total, count(_t) AS page, {place} AS place, {} AS body, {SAID}, {inserted} AS inserted",
        body(media, None)
    );
    let with = format!("{RESULT} AS ({statement}), _rows AS ({rows})");
    writer.finish(answer(&with, &row))
}

/// A call; `node` shows the rows it gives.
pub(super) fn called(
    call: &Call,
    node: &Node,
    media: Option<Media>,
    counted: bool,
) -> Result<Statement, RestError> {
    let mut writer = Writer::default();
    let statement = writer.call(call);
    let scalar = !matches!(call.function.returns, Returns::Row { .. });
    let rows = writer.rows(node);
    let (count, total) = counting(&mut writer, node, counted, None);
    let page = if call.function.set { "count(_t)" } else { "1::int8" };
    let shown = if scalar && matches!(media, Some(Media::Csv)) {
        Some(Media::Json)
    } else {
        media
    };
    let row = format!(
        "{total} AS total, {page} AS page, NULL::text AS place, {} AS body, {SAID}, NULL::int8 AS inserted",
        body(shown, Some(&call.function))
    );
    let with = format!("{RESULT} AS ({statement}), _rows AS ({rows}){count}");
    writer.finish(answer(&with, &row))
}

//! Captured changes and what must be known of their tables, read from the database.
//!
//! Called by `deliver`.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use tokio_postgres::{Client, Error, Row};

/// A captured change.
#[derive(Debug)]
pub(crate) struct Change {
    pub id: i64,
    /// Object id of the table.
    pub table: u32,
    /// `INSERT`, `UPDATE` or `DELETE`.
    pub kind: String,
    pub record: Option<Map<String, Value>>,
    /// The columns of the replica identity as they were.
    pub old: Option<Map<String, Value>>,
    /// When, in the original's form.
    pub at: String,
    /// Only the key and short values were kept.
    pub too_large: bool,
}

impl Change {
    /// The row that filters look at.
    pub fn row(&self) -> &Map<String, Value> {
        static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
        self.record.as_ref().or(self.old.as_ref()).unwrap_or(&NONE)
    }
}

/// What is known of a table.
#[derive(Debug)]
pub(crate) struct Table {
    pub schema: String,
    pub name: String,
    pub row_security: bool,
    /// Names and types, in order; only what is published.
    pub columns: Vec<(String, String)>,
    /// Names of the primary key's columns.
    pub key: Vec<String>,
    /// Kinds of changes that are published.
    pub kinds: HashSet<String>,
}

const CHANGES: &str = "
  select h.id, h.entity, h.type, h.record, h.old_record, h.too_large,
         to_char(h.at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') as at
  from realtime.hub_changes h order by h.id limit $1";

const TABLES: &str = "
  select c.oid, p.schemaname::text as schema, p.tablename::text as name, c.relrowsecurity as row_security,
         array(select a.attname::text from pg_attribute a
               where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attname = any (p.attnames)
               order by a.attnum) as columns,
         array(select t.typname::text from pg_attribute a join pg_type t on t.oid = a.atttypid
               where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attname = any (p.attnames)
               order by a.attnum) as types,
         array(select a.attname::text from pg_index i join pg_attribute a
                 on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
               where i.indrelid = c.oid and i.indisprimary order by a.attnum) as key,
         array_remove(array[case when b.pubinsert then 'INSERT' end, case when b.pubupdate then 'UPDATE' end,
                            case when b.pubdelete then 'DELETE' end], null) as kinds
  from pg_publication_tables p join pg_publication b on b.pubname = p.pubname
  join pg_namespace n on n.nspname = p.schemaname
  join pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
  where p.pubname = 'supabase_realtime' and c.oid = any ($1)";

/// Reads the next captured changes, in the order they were made: of one row that is the order of its commits.
pub(crate) async fn changes(client: &Client, limit: i64) -> Result<Vec<Change>, Error> {
    let rows = client.query(CHANGES, &[&limit]).await?;
    Ok(rows.iter().map(change).collect())
}

fn change(row: &Row) -> Change {
    let object = |name: &str| match row.get::<_, Option<Value>>(name) {
        Some(Value::Object(map)) => Some(map),
        _ => None,
    };
    Change {
        id: row.get("id"),
        table: row.get("entity"),
        kind: row.get("type"),
        record: object("record"),
        old: object("old_record"),
        at: row.get("at"),
        too_large: row.get("too_large"),
    }
}

/// Reads what must be known of `tables`; what is not published is left out.
pub(crate) async fn tables(client: &Client, tables: &HashSet<u32>) -> Result<HashMap<u32, Table>, Error> {
    let wanted: Vec<u32> = tables.iter().copied().collect();
    let rows = client.query(TABLES, &[&wanted]).await?;
    let table = |row: &Row| {
        let (columns, types): (Vec<String>, Vec<String>) = (row.get("columns"), row.get("types"));
        let table = Table {
            schema: row.get("schema"),
            name: row.get("name"),
            row_security: row.get("row_security"),
            columns: columns.into_iter().zip(types).collect(),
            key: row.get("key"),
            kinds: row.get::<_, Vec<String>>("kinds").into_iter().collect(),
        };
        (row.get("oid"), table)
    };
    Ok(rows.iter().map(table).collect())
}

/// What is wrong with telling a change to a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Refusal {
    /// The table has no primary key.
    NoKey,
    /// The role may not read the primary key.
    Unauthorized,
}

/// `data` of an event, as JSON text: only columns of `readable`, and of `select` and the key where that is given.
pub(crate) fn data(
    change: &Change,
    table: &Table,
    readable: &HashSet<String>,
    select: Option<&[String]>,
) -> String {
    let shown = |name: &String| {
        readable.contains(name) && select.is_none_or(|names| names.contains(name) || table.key.contains(name))
    };
    let types: HashMap<&String, &String> = table.columns.iter().map(|(name, kind)| (name, kind)).collect();
    let only = |row: &Map<String, Value>, also: &dyn Fn(&String) -> bool| -> Value {
        row.iter()
            .filter(|(name, _)| shown(name) && also(name))
            .map(|(name, value)| (name.clone(), told(value, types.get(name).copied())))
            .collect()
    };
    let columns: Vec<Value> = table
        .columns
        .iter()
        .filter(|(name, _)| shown(name))
        .map(|(name, kind)| json!({"name": name, "type": kind}))
        .collect();
    let mut data = head(change, table);
    data.insert("columns".to_owned(), Value::Array(columns));
    let errors = if change.too_large {
        json!(["Error 413: Payload Too Large"])
    } else {
        Value::Null
    };
    data.insert("errors".to_owned(), errors);
    if let Some(record) = &change.record {
        data.insert("record".to_owned(), only(record, &|_| true));
    }
    if let Some(old) = &change.old {
        let key_only = change.record.is_none() && table.row_security;
        let also = |name: &String| !key_only || table.key.contains(name);
        data.insert("old_record".to_owned(), only(old, &also));
    }
    Value::Object(data).to_string()
}

/// `data` of an event whose row may not be told.
pub(crate) fn refused(change: &Change, table: &Table, refusal: Refusal) -> String {
    let error = match refusal {
        Refusal::NoKey => "Error 400: Bad Request, no primary key",
        Refusal::Unauthorized => "Error 401: Unauthorized",
    };
    let mut data = head(change, table);
    data.insert("columns".to_owned(), json!([]));
    data.insert("record".to_owned(), json!({}));
    data.insert("errors".to_owned(), json!([error]));
    Value::Object(data).to_string()
}

fn head(change: &Change, table: &Table) -> Map<String, Value> {
    Map::from_iter([
        ("schema".to_owned(), json!(table.schema)),
        ("table".to_owned(), json!(table.name)),
        ("commit_timestamp".to_owned(), json!(change.at)),
        ("type".to_owned(), json!(change.kind)),
    ])
}

/// `bytea` is told as hexadecimal digits alone.
fn told(value: &Value, kind: Option<&String>) -> Value {
    match (value, kind.map(String::as_str)) {
        (Value::String(text), Some("bytea")) => {
            Value::String(text.strip_prefix("\\x").unwrap_or(text).to_owned())
        }
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Option<Map<String, Value>> {
        value.as_object().cloned()
    }

    fn table(row_security: bool) -> Table {
        let column = |name: &str, kind: &str| (name.to_owned(), kind.to_owned());
        Table {
            schema: "public".to_owned(),
            name: "t".to_owned(),
            row_security,
            columns: vec![
                column("id", "int4"),
                column("b", "bytea"),
                column("secret", "text"),
            ],
            key: vec!["id".to_owned()],
            kinds: HashSet::new(),
        }
    }

    fn change(kind: &str, record: Option<Map<String, Value>>, old: Option<Map<String, Value>>) -> Change {
        Change {
            id: 1,
            table: 1,
            kind: kind.to_owned(),
            record,
            old,
            at: "2026-01-01T00:00:00.000Z".to_owned(),
            too_large: false,
        }
    }

    fn read(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn only_readable_and_chosen_columns_are_told() {
        let row = object(json!({"id": 1, "b": "\\x0aff", "secret": "s"}));
        let readable = HashSet::from(["id".to_owned(), "b".to_owned()]);
        let told = read(&data(
            &change("INSERT", row.clone(), None),
            &table(true),
            &readable,
            None,
        ));
        assert_eq!(told["record"], json!({"id": 1, "b": "0aff"}));
        let columns = json!([{"name": "id", "type": "int4"}, {"name": "b", "type": "bytea"}]);
        assert_eq!((&told["columns"], &told["errors"]), (&columns, &Value::Null));
        assert!(!told.as_object().unwrap().contains_key("old_record"));
        let chosen = ["secret".to_owned()];
        let told = read(&data(
            &change("INSERT", row, None),
            &table(true),
            &readable,
            Some(&chosen),
        ));
        assert_eq!(
            told["record"],
            json!({"id": 1}),
            "the key and nothing that may not be read"
        );
    }

    #[test]
    fn of_a_deleted_row_only_the_key_is_told_where_row_security_holds() {
        let old = object(json!({"id": 1, "b": "\\x00"}));
        let readable = HashSet::from(["id".to_owned(), "b".to_owned()]);
        for (row_security, expected) in [(true, json!({"id": 1})), (false, json!({"id": 1, "b": "00"}))] {
            let gone = change("DELETE", None, old.clone());
            let told = read(&data(&gone, &table(row_security), &readable, None));
            assert_eq!(told["old_record"], expected);
            assert!(!told.as_object().unwrap().contains_key("record"));
        }
    }

    #[test]
    fn refusals_have_the_shape_that_clients_need() {
        let told = read(&refused(
            &change("UPDATE", None, None),
            &table(true),
            Refusal::Unauthorized,
        ));
        assert_eq!(
            told,
            json!({"schema": "public", "table": "t", "commit_timestamp": "2026-01-01T00:00:00.000Z", "type": "UPDATE",
                   "columns": [], "record": {}, "errors": ["Error 401: Unauthorized"]})
        );
    }
}

//! postgres_changes: what a channel asked for, and who may be told about a changed row.
//!
//! A change is told only to roles that can read the row at that moment, and only with columns they may read;
//! for a DELETE there is no row to check, so it carries the primary key alone. Called by `channel` and `feed`.

use std::collections::HashMap;
use std::hash::{Hash as _, Hasher as _};

use serde_json::{Map, Value, json};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::filter::{self, Condition};
use super::registry::{Realtime, Subscriber};
use crate::db::{self, Access, Database, Text};
use crate::error::{HubError, explained};
use crate::jwt::Claims;

/// Bindings one channel may have.
pub(crate) const BINDINGS_MAX: usize = 100;

/// One entry of `config.postgres_changes`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Binding {
    /// Equal parameters have equal ids, on every socket.
    pub id: u32,
    /// `INSERT`, `UPDATE`, `DELETE` or `*`.
    event: String,
    schema: String,
    /// All tables of the schema when absent.
    table: Option<String>,
    conditions: Vec<Condition>,
}

/// Reads the list and gives the echo for the join reply: same order, same keys, plus `id`. The error is for the
/// `system` message; the echo is sent all the same.
pub(crate) fn read(list: &[Value]) -> (Vec<Value>, Result<Vec<Binding>, String>) {
    let mut echo = Vec::new();
    let mut bindings = Ok(Vec::new());
    for entry in list.iter().filter(|entry| entry.is_object()).take(BINDINGS_MAX) {
        let id = stable_id(entry);
        let mut answer = entry.clone();
        if let Some(map) = answer.as_object_mut() {
            map.insert("id".to_owned(), json!(id));
        }
        echo.push(answer);
        let word = |name: &str| {
            entry
                .get(name)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
        };
        let event = match word("event").unwrap_or("*").to_uppercase().as_str() {
            known @ ("INSERT" | "UPDATE" | "DELETE") => known.to_owned(),
            _ => "*".to_owned(),
        };
        let binding = filter::read(word("filter").unwrap_or_default())
            .map_err(|reason| format!("Error parsing `filter` params: [\"{reason}\"]"))
            .map(|conditions| Binding {
                id,
                event,
                schema: word("schema").unwrap_or("public").to_owned(),
                table: word("table").filter(|table| *table != "*").map(str::to_owned),
                conditions,
            });
        bindings = bindings.and_then(|mut all: Vec<Binding>| {
            all.push(binding?);
            Ok(all)
        });
    }
    (echo, bindings)
}

/// Non-zero and below 2^27, as the clients expect.
fn stable_id(entry: &Value) -> u32 {
    const ID_BITS: u32 = 27;
    // DefaultHasher::new has fixed keys: the same parameters give the same id in every process of this version.
    let mut hasher = std::hash::DefaultHasher::new();
    entry.to_string().hash(&mut hasher);
    let id = u32::try_from(hasher.finish() & ((1 << ID_BITS) - 1)).unwrap_or(1);
    id.max(1)
}

/// Checks that `role` may follow what the bindings name, and has the tables captured from now on.
pub(crate) async fn subscribe(database: &Database, role: &str, bindings: &[Binding]) -> Result<(), String> {
    let internal = |reason: String| {
        tracing::warn!(reason, "a postgres_changes subscription failed");
        "Unable to subscribe to changes with given parameters. An exception happened".to_owned()
    };
    let client = database
        .admin("subscribe to changes")
        .await
        .map_err(|error: HubError| internal(error.to_string()))?;
    for binding in bindings {
        let table = binding.table.as_deref();
        let columns: Vec<&str> = binding
            .conditions
            .iter()
            .map(|condition| condition.column.as_str())
            .collect();
        let found = client
            .query(
                "select c.oid from pg_publication_tables p
                 join pg_namespace n on n.nspname = p.schemaname
                 join pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
                 where p.pubname = 'supabase_realtime' and p.schemaname = $1
                   and ($2::text is null or p.tablename = $2)
                   and has_schema_privilege($3::text::name, n.oid, 'usage')
                   and has_any_column_privilege($3::text::name, c.oid, 'select')
                   and not exists (select 1 from unnest($4::text[]) f where not exists (
                         select 1 from pg_attribute a where a.attrelid = c.oid and a.attname = f and a.attnum > 0
                           and has_column_privilege($3::text::name, c.oid, a.attnum, 'select')))",
                &[&binding.schema, &table, &role, &columns],
            )
            .await
            .map_err(|error| internal(explained(&error)))?;
        if found.is_empty() {
            return Err(format!(
                "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the \
                 given connect parameters: [event: {}, schema: {}, table: {}, filters: {}, select: nil]",
                binding.event,
                binding.schema,
                table.unwrap_or("*"),
                if columns.is_empty() {
                    "[]".to_owned()
                } else {
                    columns.join(", ")
                },
            ));
        }
        for row in found {
            client
                .execute(
                    "insert into realtime.hub_interest (entity) values ($1) on conflict do nothing",
                    &[&row.get::<_, u32>(0)],
                )
                .await
                .map_err(|error| internal(explained(&error)))?;
        }
    }
    Ok(())
}

/// A captured change.
struct Change {
    schema: String,
    table: String,
    kind: String,
    record: Option<Map<String, Value>>,
    old: Option<Map<String, Value>>,
    at: String,
    columns: Vec<(String, String)>,
    key: Vec<String>,
}

const CHANGES: &str = "
  select h.id, n.nspname::text as schema, c.relname::text as table, h.type, h.record, h.old_record,
         to_char(h.at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') as at,
         array(select a.attname::text from pg_attribute a
               where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum) as columns,
         array(select t.typname::text from pg_attribute a join pg_type t on t.oid = a.atttypid
               where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum) as types,
         array(select a.attname::text from pg_index i join pg_attribute a
                 on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
               where i.indrelid = c.oid and i.indisprimary) as key
  from realtime.hub_changes h
  join pg_class c on c.oid = h.entity
  join pg_namespace n on n.oid = c.relnamespace
  where h.id = any ($1) order by h.id";

/// Reads the captured changes and tells them to whom they may be told.
pub(crate) async fn deliver(
    client: &Client,
    database: &Database,
    realtime: &Realtime,
    ids: &[i64],
) -> Result<(), HubError> {
    let attempt = "read captured changes";
    let fault = |source| HubError::Database {
        attempt: attempt.to_owned(),
        source,
    };
    let rows = client.query(CHANGES, &[&ids]).await.map_err(fault)?;
    let subscribers = realtime.subscribers();
    for row in &rows {
        tell(database, realtime, &subscribers, &change(row)).await?;
    }
    client
        .execute("delete from realtime.hub_changes where id = any ($1)", &[&ids])
        .await
        .map_err(fault)?;
    Ok(())
}

fn change(row: &Row) -> Change {
    let object = |name: &str| match row.get::<_, Option<Value>>(name) {
        Some(Value::Object(map)) => Some(map),
        _ => None,
    };
    let (columns, types): (Vec<String>, Vec<String>) = (row.get("columns"), row.get("types"));
    Change {
        schema: row.get("schema"),
        table: row.get("table"),
        kind: row.get("type"),
        record: object("record"),
        old: object("old_record"),
        at: row.get("at"),
        columns: columns.into_iter().zip(types).collect(),
        key: row.get("key"),
    }
}

/// An error when whom to tell could not be asked: then all must read again.
async fn tell(
    database: &Database,
    realtime: &Realtime,
    subscribers: &[Subscriber],
    change: &Change,
) -> Result<(), HubError> {
    // One check for all channels of the same role and claims.
    let mut readable: HashMap<String, Option<Vec<String>>> = HashMap::new();
    for subscriber in subscribers {
        let ids: Vec<u32> = subscriber
            .bindings
            .iter()
            .filter(|binding| matches(binding, change))
            .map(|binding| binding.id)
            .collect();
        if ids.is_empty() {
            continue;
        }
        let who = format!(
            "{} {}",
            subscriber.claims.role,
            Value::Object(subscriber.claims.all.clone())
        );
        let columns = match readable.get(&who) {
            Some(known) => known.clone(),
            None => {
                let columns = match readable_columns(database, &subscriber.claims, change).await {
                    Ok(columns) => columns,
                    Err(HubError::Database { source, .. }) if !db::is_trouble(&source) => {
                        tracing::warn!(
                            error = explained(&source),
                            "a change may not be told, says an error"
                        );
                        None
                    }
                    Err(error) => return Err(error),
                };
                readable.insert(who, columns.clone());
                columns
            }
        };
        if let Some(columns) = columns {
            realtime.change(subscriber.id, json!({"ids": ids, "data": data(change, &columns)}));
        }
    }
    Ok(())
}

fn matches(binding: &Binding, change: &Change) -> bool {
    // Of a deleted row nothing but its key may be learned, also not by asking for it with a filter.
    let row = change.record.as_ref().or(change.old.as_ref());
    let hidden = |column: &String| change.record.is_none() && !change.key.contains(column);
    (binding.event == "*" || binding.event == change.kind)
        && binding.schema == change.schema
        && binding.table.as_ref().is_none_or(|table| *table == change.table)
        && row.is_some_and(|row| {
            binding
                .conditions
                .iter()
                .all(|condition| !hidden(&condition.column) && condition.holds(row))
        })
}

/// The columns `who` may read of the changed row; `None` when the row itself is hidden.
async fn readable_columns(
    database: &Database,
    who: &Claims,
    change: &Change,
) -> Result<Option<Vec<String>>, HubError> {
    let attempt = || "ask who may read a changed row".to_owned();
    let fault = |source| HubError::Database {
        attempt: attempt(),
        source,
    };
    let mut client = database
        .requests
        .get()
        .await
        .map_err(|error| HubError::Connection {
            attempt: attempt(),
            reason: db::pool_reason(&error),
        })?;
    let transaction = db::begin_as(&mut client, who, Access::ReadOnly)
        .await
        .map_err(fault)?;
    let table = format!("{}.{}", db::ident(&change.schema), db::ident(&change.table));
    let names: Vec<&str> = change.columns.iter().map(|(name, _)| name.as_str()).collect();
    let allowed: Vec<String> = transaction
        .query_one(
            "select array(select f from unnest($2::text[]) f where has_column_privilege($1::text, f, 'select'))",
            &[&table, &names],
        )
        .await
        .map_err(fault)?
        .get(0);
    let Some(record) = change.record.as_ref() else {
        return Ok(Some(
            change
                .key
                .iter()
                .filter(|name| allowed.contains(name))
                .cloned()
                .collect(),
        ));
    };
    if change.key.is_empty() || !change.key.iter().all(|name| allowed.contains(name)) {
        return Ok(None);
    }
    let mut parameters = Vec::new();
    let mut tests = Vec::new();
    for (n, name) in change.key.iter().enumerate() {
        tests.push(format!("{} = ${}", db::ident(name), n + 1));
        parameters.push(Text(record.get(name).map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })));
    }
    let parameters: Vec<&(dyn ToSql + Sync)> = parameters
        .iter()
        .map(|value| value as &(dyn ToSql + Sync))
        .collect();
    let seen: bool = transaction
        .query_one(
            &format!(
                "select exists (select 1 from {table} where {})",
                tests.join(" and ")
            ),
            &parameters,
        )
        .await
        .map_err(fault)?
        .get(0);
    Ok(seen.then_some(allowed))
}

fn data(change: &Change, columns: &[String]) -> Value {
    let only = |row: &Map<String, Value>, names: &[String]| -> Value {
        row.iter()
            .filter(|(name, _)| names.contains(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    let types: Vec<Value> = change
        .columns
        .iter()
        .filter(|(name, _)| columns.contains(name))
        .map(|(name, kind)| json!({"name": name, "type": kind}))
        .collect();
    let mut data = json!({
        "schema": change.schema, "table": change.table, "commit_timestamp": change.at,
        "type": change.kind, "columns": types, "errors": null,
    });
    if let Some(map) = data.as_object_mut() {
        if let Some(record) = &change.record {
            map.insert("record".to_owned(), only(record, columns));
        }
        if let Some(old) = &change.old {
            map.insert("old_record".to_owned(), only(old, &change.key));
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_echo_keeps_order_and_keys_and_ids_are_stable() {
        let list = [
            json!({"event": "INSERT", "schema": "public", "table": "agent_commands", "filter": "office_id=eq.o1"}),
            json!({"event": "*", "schema": "public"}),
        ];
        let (echo, bindings) = read(&list);
        let bindings = bindings.unwrap();
        assert_eq!(echo.len(), 2);
        for (asked, echoed) in list.iter().zip(&echo) {
            for (key, value) in asked.as_object().unwrap() {
                assert_eq!(&echoed[key], value);
            }
            let id = echoed["id"].as_u64().unwrap();
            assert!(id > 0 && id < 1 << 27);
        }
        assert_eq!(bindings[0].id, read(&list).1.unwrap()[0].id);
        assert_ne!(bindings[0].id, bindings[1].id);
    }

    #[test]
    fn a_filter_cannot_ask_a_deleted_row_for_more_than_its_key() {
        let row = json!({"id": "1", "secret": "s", "none": null});
        let mut change = Change {
            schema: "public".to_owned(),
            table: "t".to_owned(),
            kind: "DELETE".to_owned(),
            record: None,
            old: row.as_object().cloned(),
            at: String::new(),
            columns: Vec::new(),
            key: vec!["id".to_owned()],
        };
        let matching = |change: &Change, filter: &str| {
            let binding = read(&[json!({"event": "*", "table": "t", "filter": filter})])
                .1
                .unwrap();
            matches(&binding[0], change)
        };
        assert!(matching(&change, "id=eq.1"));
        assert!(!matching(&change, "id=eq.2"));
        assert!(!matching(&change, "secret=eq.s") && !matching(&change, "none=is.null"));
        change.record = change.old.take();
        assert!(matching(&change, "secret=eq.s") && matching(&change, "none=is.null"));
    }

    #[test]
    fn a_bad_filter_is_told_and_the_echo_is_whole() {
        let (echo, bindings) = read(&[json!({"event": "INSERT", "table": "t", "filter": "nonsense"})]);
        assert_eq!(echo.len(), 1);
        assert!(bindings.unwrap_err().starts_with("Error parsing `filter` params"));
    }
}

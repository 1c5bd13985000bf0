//! What a join asks for in `config.postgres_changes`, and the echo it gets.
//!
//! Pure. Called by `join`.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::filter::{self, Condition};

/// Bindings one channel may have.
const BINDINGS_MAX: usize = 100;
/// Conditions one channel may have.
const CONDITIONS_MAX: usize = 200;

/// Stands for every schema or every table.
pub(crate) const ANY: &str = "*";

/// One entry of `config.postgres_changes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binding {
    /// Equal parameters have equal ids, on every socket.
    pub id: u32,
    /// `INSERT`, `UPDATE`, `DELETE` or `*`.
    pub event: String,
    pub schema: String,
    pub table: String,
    pub conditions: Vec<Condition>,
    /// Only these columns and the primary key.
    pub select: Option<Vec<String>>,
}

impl Binding {
    /// As the original shows the parameters in its messages.
    pub fn shown(&self) -> String {
        let filters: Vec<String> = self
            .conditions
            .iter()
            .map(|one| {
                format!(
                    "{{{:?}, {:?}, {:?}, {}}}",
                    one.column,
                    one.op.name(),
                    one.value,
                    one.negated
                )
            })
            .collect();
        let select = self
            .select
            .as_ref()
            .map_or("nil".to_owned(), |names| format!("{names:?}"));
        format!(
            "event: {}, schema: {}, table: {}, filters: [{}], select: {select}",
            self.event,
            self.schema,
            self.table,
            filters.join(", ")
        )
    }
}

/// Reads the list and gives the echo for the join reply: same order, same keys, plus `id`. The error is for the
/// `system` message; the echo is sent all the same.
pub(crate) fn read(list: &[Value]) -> (Vec<Value>, Result<Vec<Binding>, String>) {
    let entries: Vec<&Value> = list.iter().filter(|entry| entry.is_object()).collect();
    let echo = entries
        .iter()
        .map(|entry| {
            let mut answer = (*entry).clone();
            if let Some(map) = answer.as_object_mut() {
                map.insert("id".to_owned(), json!(stable_id(entry)));
            }
            answer
        })
        .collect();
    if entries.len() > BINDINGS_MAX {
        let reason = format!("Too many postgres_changes on one channel. Maximum {BINDINGS_MAX}");
        return (echo, Err(reason));
    }
    let bindings: Result<Vec<Binding>, String> = entries.into_iter().map(binding).collect();
    let asked = |all: &Vec<Binding>| all.iter().map(|one| one.conditions.len()).sum::<usize>();
    let bindings = match bindings {
        Ok(all) if asked(&all) > CONDITIONS_MAX => Err(format!(
            "Too many filter conditions on one channel. Maximum {CONDITIONS_MAX}"
        )),
        other => other,
    };
    (echo, bindings)
}

fn binding(entry: &Value) -> Result<Binding, String> {
    let word = |name: &str| entry.get(name).and_then(Value::as_str);
    let (schema, table) = (word("schema"), word("table"));
    let filter = word("filter").unwrap_or_default();
    let named = table.is_some() || (schema.is_some() && entry.get("filter").is_none_or(Value::is_null));
    if !named {
        return Err(format!(
            "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: {entry}"
        ));
    }
    let event = match word("event").unwrap_or(ANY).to_uppercase().as_str() {
        known @ ("INSERT" | "UPDATE" | "DELETE") => known.to_owned(),
        _ => ANY.to_owned(),
    };
    let select = match entry.get("select") {
        Some(Value::Array(names)) => {
            let names: Vec<String> = names
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
            Some(names).filter(|names| !names.is_empty())
        }
        Some(Value::String(_)) => {
            return Err(
                "Error parsing `select` params: expected a list of column name strings, e.g. select: \
                 [\"col1\", \"col2\"]"
                    .to_owned(),
            );
        }
        _ => None,
    };
    let (schema, table) = (schema.unwrap_or("public"), table.unwrap_or(ANY));
    if select.is_some() && (schema == ANY || table == ANY) {
        return Err(
            "Column selection is not supported for wildcard subscriptions. Provide an explicit schema \
             and table name."
                .to_owned(),
        );
    }
    let conditions =
        filter::read(filter).map_err(|reason| format!("Error parsing `filter` params: {reason}"))?;
    Ok(Binding {
        id: stable_id(entry),
        event,
        schema: schema.to_owned(),
        table: table.to_owned(),
        conditions,
        select,
    })
}

/// Non-zero and below 2^27, as the clients expect.
fn stable_id(entry: &Value) -> u32 {
    const ID_BITS: u32 = 27;
    let digest = Sha256::digest(canonical(entry));
    let id = digest
        .first_chunk()
        .map_or(0, |bytes| u32::from_be_bytes(*bytes) & ((1 << ID_BITS) - 1));
    id.max(1)
}

/// The same text for the same parameters, in whatever order they came.
fn canonical(entry: &Value) -> String {
    let mut pairs: Vec<(&String, &Value)> = entry.as_object().into_iter().flatten().collect();
    pairs.sort_by_key(|(name, _)| *name);
    json!(pairs).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_echo_keeps_order_and_keys_and_ids_are_stable() {
        let list = [
            json!({"event": "INSERT", "schema": "public", "table": "agent_commands", "filter": "office_id=eq.o1"}),
            Value::Null,
            json!({"event": "weird", "schema": "public"}),
        ];
        let (echo, bindings) = read(&list);
        let bindings = bindings.unwrap();
        assert_eq!(echo.len(), 2, "nulls are tolerated");
        for (asked, echoed) in list.iter().filter(|entry| entry.is_object()).zip(&echo) {
            for (key, value) in asked.as_object().unwrap() {
                assert_eq!(&echoed[key], value);
            }
            let id = echoed["id"].as_u64().unwrap();
            assert!(id > 0 && id < 1 << 27);
        }
        assert_eq!(bindings[0].id, read(&list).1.unwrap()[0].id);
        let turned = json!({"filter": "office_id=eq.o1", "table": "agent_commands", "schema": "public", "event": "INSERT"});
        assert_eq!(bindings[0].id, read(&[turned]).1.unwrap()[0].id);
        assert_eq!(
            (bindings[1].event.as_str(), bindings[1].table.as_str()),
            ("*", "*")
        );
    }

    #[test]
    fn what_cannot_be_followed_is_said() {
        for (entry, words) in [
            (json!({}), "No subscription params provided."),
            (
                json!({"schema": "public", "filter": "a=eq.1"}),
                "No subscription params provided.",
            ),
            (
                json!({"table": "t", "filter": "a"}),
                "Error parsing `filter` params: [\"a\"]",
            ),
            (
                json!({"table": "t", "select": "a"}),
                "Error parsing `select` params",
            ),
            (
                json!({"schema": "public", "select": ["a"]}),
                "Column selection is not supported",
            ),
        ] {
            let (echo, bindings) = read(std::slice::from_ref(&entry));
            assert_eq!(echo.len(), 1, "{entry}");
            assert!(bindings.unwrap_err().starts_with(words), "{entry}");
        }
        let shown = read(&[json!({"table": "t", "filter": "a=eq.1"})]).1.unwrap()[0].shown();
        assert_eq!(
            shown,
            r#"event: *, schema: public, table: t, filters: [{"a", "eq", "1", false}], select: nil"#
        );
    }
}

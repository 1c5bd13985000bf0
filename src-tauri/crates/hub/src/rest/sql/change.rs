//! INSERT, UPDATE and DELETE.

use super::super::plan::{Change, Condition, Conflict, Resolution, Returning};
use super::super::request::Payload;
use super::super::schema::Column;
use super::condition::joined_is_empty;
use super::{Writer, column, ident, table};

/// The row of the body, by its typed columns.
pub(super) const BODY: &str = "pgrst_body";

/// Counts the rows that are about to be inserted; those that turn out to be there already are taken off again.
const ADD: &str = "set_config('pgrst.inserted', (coalesce(nullif(current_setting('pgrst.inserted', true), '')::int, 0) \
                   + 1)::text, true) <> '0'";
const TAKE_OFF: &str = "set_config('pgrst.inserted', (coalesce(nullif(current_setting('pgrst.inserted', true), '')::int, \
                        0) - 1)::text, true) <> '-1'";

impl Change {
    pub fn returning(&self) -> &Returning {
        match self {
            Change::Insert { returning, .. }
            | Change::Update { returning, .. }
            | Change::Delete { returning, .. } => returning,
        }
    }

    /// Whether the answer depends on how many rows are new.
    pub fn counts_inserted(&self) -> bool {
        matches!(
            self,
            Change::Insert {
                conflict: Some(Conflict {
                    resolution: Resolution::Merge,
                    ..
                }),
                ..
            }
        )
    }
}

fn names(columns: &[Column]) -> Vec<String> {
    columns.iter().map(|column| ident(&column.name)).collect()
}

impl Writer {
    pub(super) fn change(&mut self, change: &Change) -> String {
        match change {
            Change::Insert {
                table,
                columns,
                body,
                defaults,
                conflict,
                only,
                returning,
            } => {
                let source = self.body_rows(body, columns, *defaults, false);
                let mut only = self.all(BODY, only);
                let counted = change.counts_inserted();
                if counted {
                    only.insert(0, ADD.to_owned());
                }
                let conflict = conflict
                    .as_ref()
                    .map(|conflict| on_conflict(conflict, &names(columns), counted));
                let conflict = conflict.unwrap_or_default();
                let back = given_back(table, returning);
                format!(
                    "{} {source}{}{conflict}{back}",
                    into(table, columns),
                    where_all(&only)
                )
            }
            Change::Update {
                table: name,
                columns,
                returning,
                ..
            } if columns.is_empty() => {
                // Nothing is set: nothing is changed, and the columns are there to be shown.
                format!(
                    "SELECT {} FROM {} WHERE false",
                    shown(name, returning),
                    table(name)
                )
            }
            Change::Update {
                table: name,
                columns,
                body,
                defaults,
                conditions,
                returning,
            } => {
                let source = self.body_rows(body, columns, *defaults, false);
                let conditions = where_all(&self.all(name, conditions));
                let back = given_back(name, returning);
                format!(
                    "UPDATE {} SET {} {source}{conditions}{back}",
                    table(name),
                    assigned(columns)
                )
            }
            Change::Delete {
                table: name,
                conditions,
                returning,
            } => {
                let conditions = where_all(&self.all(name, conditions));
                format!(
                    "DELETE FROM {}{conditions}{}",
                    table(name),
                    given_back(name, returning)
                )
            }
        }
    }

    fn all(&mut self, alias: &str, conditions: &[Condition]) -> Vec<String> {
        conditions
            .iter()
            .map(|condition| self.condition(alias, condition, &joined_is_empty))
            .collect()
    }

    /// `FROM` the body, as rows of these columns. `one`: only its first row.
    pub(super) fn body_rows(
        &mut self,
        body: &Payload,
        columns: &[Column],
        defaults: bool,
        one: bool,
    ) -> String {
        let json = if defaults { "jsonb" } else { "json" };
        let payload = format!("{}::{json}", self.value(body.text()));
        let object = body.is_object();
        let (filled, data) = if defaults {
            self.with_defaults(columns, object)
        } else {
            (String::new(), "pgrst_payload.json_data")
        };
        let list = names(columns).join(", ");
        let rows = if !columns.is_empty() {
            let typed: Vec<String> = columns
                .iter()
                .map(|one| format!("{} {}", ident(&one.name), one.kind))
                .collect();
            let reader = if object { "to_record" } else { "to_recordset" };
            let limit = if one { " LIMIT 1" } else { "" };
            format!("{json}_{reader}({data}) AS _({}){limit}", typed.join(", "))
        } else if object {
            "(VALUES (1)) AS _".to_owned()
        } else {
            format!("{json}_array_elements({data}) AS _")
        };
        format!(
            "FROM (SELECT {payload} AS json_data) AS pgrst_payload, {filled}LATERAL (SELECT {list} FROM {rows}) AS {BODY}"
        )
    }

    /// The body with the defaults of the columns it does not give.
    fn with_defaults(&mut self, columns: &[Column], object: bool) -> (String, &'static str) {
        let mut members = Vec::new();
        for one in columns {
            if let Some(default) = &one.default {
                let name = self.value(one.name.clone());
                members.push(format!("{name}::text, {default}"));
            }
        }
        let defaults = format!("jsonb_build_object({})", members.join(", "));
        let filled = if object {
            format!("LATERAL (SELECT {defaults} || pgrst_payload.json_data AS val) AS pgrst_json_defs, ")
        } else {
            format!(
                "LATERAL (SELECT jsonb_agg({defaults} || elem) AS val \
                 FROM jsonb_array_elements(pgrst_payload.json_data) AS elem) AS pgrst_json_defs, "
            )
        };
        (filled, "pgrst_json_defs.val")
    }
}

/// `INSERT INTO … SELECT …`, up to what the rows come from.
fn into(name: &str, columns: &[Column]) -> String {
    let shown: Vec<String> = columns.iter().map(|one| column(BODY, &one.name)).collect();
    let list = match names(columns) {
        none if none.is_empty() => String::new(),
        list => format!(" ({})", list.join(", ")),
    };
    format!("INSERT INTO {}{list} SELECT {}", table(name), shown.join(", "))
}

fn assigned(columns: &[Column]) -> String {
    let set = columns
        .iter()
        .map(|one| format!("{} = {}", ident(&one.name), column(BODY, &one.name)));
    set.collect::<Vec<String>>().join(", ")
}

fn where_all(conditions: &[String]) -> String {
    if conditions.is_empty() {
        String::new()
    } else {
        format!(" WHERE {}", conditions.join(" AND "))
    }
}

fn on_conflict(conflict: &Conflict, list: &[String], counted: bool) -> String {
    let target: Vec<String> = conflict.columns.iter().map(|name| ident(name)).collect();
    let action = match conflict.resolution {
        Resolution::Merge if !list.is_empty() => {
            let set: Vec<String> = list
                .iter()
                .map(|name| format!("{name} = EXCLUDED.{name}"))
                .collect();
            let counted = if counted {
                format!(" WHERE {TAKE_OFF}")
            } else {
                String::new()
            };
            format!("DO UPDATE SET {}{counted}", set.join(", "))
        }
        Resolution::Merge | Resolution::Ignore => "DO NOTHING".to_owned(),
    };
    format!(" ON CONFLICT ({}) {action}", target.join(", "))
}

fn shown(name: &str, returning: &Returning) -> String {
    match returning {
        Returning::Nothing => "1".to_owned(),
        Returning::Everything => format!("{}.*", ident(name)),
        Returning::Columns(columns) => {
            let columns: Vec<String> = columns.iter().map(|one| column(name, one)).collect();
            columns.join(", ")
        }
    }
}

fn given_back(name: &str, returning: &Returning) -> String {
    format!(" RETURNING {}", shown(name, returning))
}

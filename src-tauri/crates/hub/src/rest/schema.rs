//! What of the database is exposed: tables, columns and functions of `public`, read from the catalogue.
//!
//! Holds no rights: whether a role may use a thing is for Postgres to say. Read again when the database says that
//! something changed, and at most once per [`REREAD_PAUSE`] when something is not found. Called by `routes`.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::db::Database;
use crate::error::HubError;

/// Least time between two readings that a miss may cause.
const REREAD_PAUSE: Duration = Duration::from_secs(1);

/// A table or view.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Table {
    /// Column names in order.
    pub columns: Vec<String>,
    /// Columns of the primary key.
    pub key: Vec<String>,
}

/// What a function gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Returns {
    Void,
    Scalar,
    Row,
}

/// One overload of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Function {
    /// Name and SQL type of the arguments that go in, in order.
    pub arguments: Vec<(String, String)>,
    /// How many of them, from the front, must be given.
    pub required: usize,
    pub returns: Returns,
    pub set: bool,
}

/// One reading of the catalogue.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub tables: HashMap<String, Table>,
    pub functions: HashMap<String, Vec<Function>>,
}

/// The newest reading.
#[derive(Debug)]
pub(crate) struct SchemaCache {
    state: RwLock<(Arc<Schema>, Instant)>,
}

impl SchemaCache {
    /// Reads the catalogue for the first time.
    pub async fn load(database: &Database) -> Result<SchemaCache, HubError> {
        let schema = read(database).await?;
        Ok(SchemaCache {
            state: RwLock::new((Arc::new(schema), Instant::now())),
        })
    }

    /// The newest reading.
    pub fn current(&self) -> Arc<Schema> {
        self.state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .clone()
    }

    /// Reads the catalogue again.
    pub async fn reload(&self, database: &Database) -> Result<(), HubError> {
        let schema = Arc::new(read(database).await?);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = (schema, Instant::now());
        Ok(())
    }

    /// A reading in which `wanted` is found, if reading again helps.
    pub async fn with(&self, database: &Database, wanted: impl Fn(&Schema) -> bool) -> Arc<Schema> {
        let current = self.current();
        let age = self
            .state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .1
            .elapsed();
        if wanted(&current) || age < REREAD_PAUSE {
            return current;
        }
        if let Err(error) = self.reload(database).await {
            tracing::warn!(%error, "the schema cache stays as it was");
        }
        self.current()
    }
}

const TABLES: &str = "
  select c.relname::text, a.attname::text,
         exists (select 1 from pg_index i where i.indrelid = c.oid and i.indisprimary and a.attnum = any (i.indkey))
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'public'
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  where c.relkind in ('r', 'p', 'v', 'm', 'f')
  order by c.relname, a.attnum";

const FUNCTIONS: &str = "
  select p.proname::text, coalesce(p.proargnames[1:p.pronargs], '{}')::text[],
         array(select format_type(t, null) from unnest(p.proargtypes) with ordinality u(t, i) order by i)::text[],
         p.pronargdefaults::int4, p.proretset, t.typtype::text, t.typname::text,
         coalesce(p.proargmodes && array['o', 'b', 't']::\"char\"[], false)
  from pg_proc p
  join pg_namespace n on n.oid = p.pronamespace and n.nspname = 'public'
  join pg_type t on t.oid = p.prorettype
  where p.prokind = 'f' and p.provariadic = 0 and t.typname not in ('trigger', 'event_trigger')
  order by p.proname, p.pronargs";

async fn read(database: &Database) -> Result<Schema, HubError> {
    let attempt = "read the database's catalogue";
    let client = database.admin(attempt).await?;
    let fault = |source| HubError::Database {
        attempt: attempt.to_owned(),
        source,
    };
    let mut schema = Schema::default();
    for row in client.query(TABLES, &[]).await.map_err(fault)? {
        let table: &mut Table = schema.tables.entry(row.get(0)).or_default();
        let column: String = row.get(1);
        if row.get(2) {
            table.key.push(column.clone());
        }
        table.columns.push(column);
    }
    for row in client.query(FUNCTIONS, &[]).await.map_err(fault)? {
        let names: Vec<String> = row.get(1);
        let types: Vec<String> = row.get(2);
        // A function with unnamed arguments cannot be called by name.
        if names.len() != types.len() || names.iter().any(String::is_empty) {
            continue;
        }
        let defaults = usize::try_from(row.get::<_, i32>(3)).unwrap_or(0);
        let (kind, name): (String, String) = (row.get(5), row.get(6));
        let returns = match (kind.as_str(), name.as_str()) {
            (_, "void") => Returns::Void,
            ("c", _) => Returns::Row,
            (_, "record") if row.get(7) => Returns::Row,
            _ => Returns::Scalar,
        };
        schema.functions.entry(row.get(0)).or_default().push(Function {
            required: types.len().saturating_sub(defaults),
            arguments: names.into_iter().zip(types).collect(),
            returns,
            set: row.get(4),
        });
    }
    Ok(schema)
}

//! What of the database is exposed: tables, columns and functions of `public`, read from the catalogue.
//!
//! Holds no rights: whether a role may use a thing is for Postgres to say. Read again when the database says that
//! something changed, and at most once per [`REREAD_PAUSE`] when something is not found. Called by `routes`.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::db::Database;
use crate::error::HubError;

/// Least time between two readings that a miss may cause.
const REREAD_PAUSE: Duration = Duration::from_secs(1);
/// What is said to have failed.
const ATTEMPT: &str = "read the database's catalogue";

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
    state: RwLock<Arc<Schema>>,
    /// When a miss was last looked into; held while it is, so that many misses cause one reading.
    looked: Mutex<Instant>,
}

impl SchemaCache {
    /// Reads the catalogue for the first time.
    pub async fn load(database: &Database) -> Result<SchemaCache, HubError> {
        let client = database.admin(ATTEMPT).await?;
        Ok(SchemaCache {
            state: RwLock::new(Arc::new(read(&client).await?)),
            looked: Mutex::new(Instant::now()),
        })
    }

    /// The newest reading.
    pub fn current(&self) -> Arc<Schema> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the catalogue again.
    pub async fn reload(&self, client: &Client) -> Result<(), HubError> {
        let schema = Arc::new(read(client).await?);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = schema;
        Ok(())
    }

    /// A reading in which `wanted` is found, if reading again helps.
    pub async fn with(&self, database: &Database, wanted: impl Fn(&Schema) -> bool) -> Arc<Schema> {
        let current = self.current();
        if wanted(&current) {
            return current;
        }
        let mut looked = self.looked.lock().await;
        // Who waited finds what the one before has read, or that it is no use to look again.
        if looked.elapsed() >= REREAD_PAUSE {
            let read_again = async {
                let client = database.admin(ATTEMPT).await?;
                self.reload(&client).await
            };
            if let Err(error) = read_again.await {
                tracing::warn!(%error, "the schema cache stays as it was");
            }
            *looked = Instant::now();
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

async fn read(client: &Client) -> Result<Schema, HubError> {
    let fault = |source| HubError::Database {
        attempt: ATTEMPT.to_owned(),
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

//! What of the database is exposed: tables, relations between them and functions of `public`, read from the catalogue.
//!
//! Holds no rights: whether a role may use a thing is for Postgres to say. Read again when the database says that
//! something changed, and at most once per [`REREAD_PAUSE`] when something is not found. Called by `routes` and,
//! for the announcements, by `realtime`.

mod read;
pub(super) mod relations;
mod views;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_postgres::Client;

use self::relations::Relation;
use crate::db::Database;
use crate::error::HubError;

/// The only schema that is exposed.
pub(crate) const SCHEMA: &str = "public";
/// Least time between two readings that a miss may cause.
const REREAD_PAUSE: Duration = Duration::from_secs(1);
/// What is said to have failed.
const ATTEMPT: &str = "read the database's catalogue";

/// A column of a table, a view or a composite type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub name: String,
    /// Its SQL type, as it is written in a column definition list.
    pub kind: String,
    /// SQL of its default, where there is one.
    pub default: Option<String>,
    pub nullable: bool,
}

/// A table or view.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Table {
    /// In order.
    pub columns: Vec<Column>,
    /// Columns of the primary key.
    pub key: Vec<String>,
    /// Functions of one row that can be read like a column.
    pub computed: Vec<String>,
    pub insertable: bool,
    pub updatable: bool,
    pub deletable: bool,
}

impl Table {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// What a function gives back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Returns {
    Void,
    Scalar,
    /// A row: of a table of ours (by name), or of other columns where they are known.
    Row {
        table: Option<String>,
        columns: Option<Vec<Column>>,
    },
}

/// Whether a function may change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Volatility {
    Immutable,
    Stable,
    Volatile,
}

/// An argument that goes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Argument {
    /// Empty for the single argument of a function that is called with the whole body.
    pub name: String,
    /// As PostgREST shows it.
    pub kind: String,
    pub required: bool,
    pub variadic: bool,
}

impl Argument {
    /// The type to read a value in: without a length that would cut it off.
    pub fn widest(&self) -> &str {
        match self.kind.as_str() {
            "bit" => "bit varying",
            "bit[]" => "bit varying[]",
            "character" => "character varying",
            "character[]" => "character varying[]",
            other => other,
        }
    }
}

/// One overload of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Function {
    pub arguments: Vec<Argument>,
    pub returns: Returns,
    pub set: bool,
    pub volatility: Volatility,
}

/// One reading of the catalogue. Ordered maps: what is listed in hints and documents comes in one order.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub tables: BTreeMap<String, Table>,
    /// By the table they start from.
    pub relations: HashMap<String, Vec<Relation>>,
    pub functions: BTreeMap<String, Vec<Function>>,
}

impl Schema {
    /// Takes the relations that `keys` make between its tables.
    pub(in crate::rest) fn relate(&mut self, keys: &[relations::ForeignKey]) {
        let tables = self.tables.iter();
        let primary = tables
            .map(|(name, table)| (name.as_str(), table.key.as_slice()))
            .collect();
        self.relations = relations::all(keys, &primary);
    }
}

/// The newest reading, shared by all requests.
#[derive(Debug)]
pub(crate) struct SchemaCache {
    state: RwLock<Arc<Schema>>,
    /// When a miss was last looked into; held while the catalogue is read, so that many misses cause one reading
    /// and an older reading never takes the place of a newer one.
    looked: Mutex<Instant>,
}

impl SchemaCache {
    /// Reads the catalogue for the first time.
    pub async fn load(database: &Database) -> Result<SchemaCache, HubError> {
        let mut client = database.admin(ATTEMPT).await?;
        Ok(SchemaCache {
            state: RwLock::new(Arc::new(read::read(&mut client).await?)),
            looked: Mutex::new(Instant::now()),
        })
    }

    /// The newest reading.
    pub fn current(&self) -> Arc<Schema> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the catalogue again.
    pub async fn reload(&self, client: &mut Client) -> Result<(), HubError> {
        let _one_at_a_time = self.looked.lock().await;
        self.take(client).await
    }

    async fn take(&self, client: &mut Client) -> Result<(), HubError> {
        let schema = Arc::new(read::read(client).await?);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = schema;
        Ok(())
    }

    /// What to use after something was not found in `before`: a newer reading, if there is or may be one.
    pub async fn after_miss(&self, database: &Database, before: &Arc<Schema>) -> Option<Arc<Schema>> {
        let mut looked = self.looked.lock().await;
        // Who waited finds what the one before has read, or that it is no use to look again.
        if Arc::ptr_eq(before, &self.current()) && looked.elapsed() >= REREAD_PAUSE {
            let read_again = async {
                let mut client = database.admin(ATTEMPT).await?;
                self.take(&mut client).await
            };
            // Before it, too: who asks and goes away again causes no more readings than who waits.
            *looked = Instant::now();
            if let Err(error) = read_again.await {
                tracing::warn!(%error, "the schema cache stays as it was");
            }
            *looked = Instant::now();
        }
        let current = self.current();
        (!Arc::ptr_eq(before, &current)).then_some(current)
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::source::Source;

    /// How long the test waits for something that must come.
    const DEADLINE: Duration = Duration::from_secs(30);

    async fn somebody_waits_for_a_lock(client: &Client) {
        let started = Instant::now();
        let waiting = "select exists (select from pg_locks where not granted)";
        while !client.query_one(waiting, &[]).await.unwrap().get::<_, bool>(0) {
            assert!(started.elapsed() < DEADLINE, "the catalogue is not read");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn who_goes_away_while_the_catalogue_is_read_leaves_no_transaction_behind() {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::for_test(folder.path()).await;
        let database = Database::open(&source).unwrap();
        let tasks = tokio_util::task::TaskTracker::new();
        let other = source.superuser().open(&tasks, "for a test").await.unwrap();
        let before = Instant::now().checked_sub(REREAD_PAUSE).unwrap();
        let cache = SchemaCache {
            state: RwLock::default(),
            looked: Mutex::new(before),
        };
        let empty = cache.current();

        let lock = "begin; lock table pg_catalog.pg_attrdef in access exclusive mode";
        other.batch_execute(lock).await.unwrap();
        tokio::select! {
            _ = cache.after_miss(&database, &empty) => panic!("the catalogue could be read"),
            () = somebody_waits_for_a_lock(&other) => {}
        }
        other.batch_execute("rollback").await.unwrap();
        assert!(*cache.looked.lock().await > before, "it counts as a look");

        // The pool has this one connection.
        let client = database.admin("look").await.unwrap();
        assert_eq!(database.admin.status().size, 1);
        let write = "create table public.written (id int); insert into written values (1)";
        client.batch_execute(write).await.unwrap();
        let seen = other
            .query_one("select count(*) from written", &[])
            .await
            .unwrap();
        assert_eq!(seen.get::<_, i64>(0), 1, "it is there for everybody");
        drop(client);

        let read_again = SchemaCache {
            looked: Mutex::new(before),
            ..cache
        };
        let newer = read_again.after_miss(&database, &empty).await.unwrap();
        assert!(newer.tables.contains_key("written"));
        drop(other);
        database.close();
        source.stop().await.unwrap();
    }
}

//! Beginning to follow tables: is it allowed, can it be compared, and is every change captured from now on?
//!
//! Values of clients are always parameters; names that come into SQL are the catalogue's own, quoted. Called by
//! `subscription`.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use deadpool_postgres::Object;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, Row};

use super::binding::Binding;
use super::filter::{Condition, Op};
use super::follow::{Check, Follow, Question, Test, operator};
use super::penalty::{PENALTY, Penalties};
use crate::db;
use crate::error::explained;
use crate::http::Shared;
use crate::jwt::{Claims, Subject};

/// How long transactions may go on that began to write before their tables were captured.
const SETTLE_MAX: Duration = Duration::from_secs(15);
/// How often they are looked at.
const SETTLE_LOOK: Duration = Duration::from_millis(20);
/// Values in one `in` list.
const LIST_MAX: i32 = 100;
/// Tables one channel may follow, over all its bindings.
const TABLES_MAX: usize = 1000;

/// Why nothing is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unsubscribed {
    /// It will never work: wrong parameters.
    Never(String),
    /// It may work later.
    Later(String),
}

/// What the database knows of a column.
struct Column {
    readable: bool,
    /// SQL names of its type and of the array of it.
    type_name: String,
    array_name: String,
    /// Equal values have equal JSON.
    plain: bool,
    boolean: bool,
    /// The role may use the type: it compares under its own rights.
    known: bool,
}

type Columns = HashMap<String, Column>;

const TABLES: &str = "
  select c.oid, exists (select 1 from pg_trigger g where g.tgrelid = c.oid and g.tgname = 'hub_capture')
  from pg_publication_tables p
  join pg_namespace n on n.nspname = p.schemaname
  join pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
  where p.pubname = 'supabase_realtime' and ($1 = '*' or p.schemaname = $1) and ($2 = '*' or p.tablename = $2)
    and has_schema_privilege($3::text::name, n.oid, 'usage')
    and has_any_column_privilege($3::text::name, c.oid, 'select')
  order by c.oid";

/// `plain`: bool, int2, int4, int8, text, varchar and uuid, where text has the database's own order.
const COLUMNS: &str = "
  select a.attname::text as name, has_column_privilege($2::text::name, a.attrelid, a.attnum, 'select') as readable,
         format('%I.%I', n.nspname, t.typname) as type, case when e.oid is null then '' else format('%I.%I', n.nspname, e.typname) end as array,
         t.oid = any ('{16,20,21,23,25,1043,2950}') and a.attcollation in (0, 100) as plain, t.oid = 16 as boolean,
         has_schema_privilege($2::text::name, n.oid, 'usage') and has_type_privilege($2::text::name, t.oid, 'usage') as known
  from pg_attribute a join pg_type t on t.oid = a.atttypid join pg_namespace n on n.oid = t.typnamespace
  left join pg_type e on e.oid = t.typarray
  where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped";

/// Checks that `who` may follow what the bindings name, and has the tables captured from now on.
pub(crate) async fn subscribe(
    shared: &Shared,
    who: &Claims,
    bindings: &[Binding],
) -> Result<Vec<Follow>, Unsubscribed> {
    let role = &who.role;
    let asker = Asker {
        client: connection(shared).await?,
        penalties: &shared.realtime.penalties,
        subject: who.subject(),
    };
    let client = &asker.client;
    let mut known: HashMap<u32, Columns> = HashMap::new();
    let mut follows = Vec::new();
    for binding in bindings {
        let tables = client
            .query(TABLES, &[&binding.schema, &binding.table, &role])
            .await
            .map_err(later)?;
        if tables.is_empty() {
            return Err(Unsubscribed::Never(format!(
                "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given \
                 connect parameters: [{}]",
                binding.shown()
            )));
        }
        if tables.iter().any(|table| !table.get::<_, bool>(1)) {
            capture(client, &tables).await?;
        }
        for table in &tables {
            let table: u32 = table.get(0);
            let columns = match known.entry(table) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(columns(client, table, role).await?)
                }
            };
            follows.push(asker.follow(binding, table, columns).await?);
        }
        if follows.len() > TABLES_MAX {
            return Err(Unsubscribed::Never(format!(
                "Too many tables on one channel. Maximum {TABLES_MAX}"
            )));
        }
    }
    drop(asker);
    let tables: HashSet<u32> = known.into_keys().collect();
    settle(shared, tables).await?;
    Ok(follows)
}

async fn connection(shared: &Shared) -> Result<Object, Unsubscribed> {
    db::connection(&shared.database.subscriptions, "subscribe to changes")
        .await
        .map_err(|error| Unsubscribed::Later(error.to_string()))
}

fn later(error: tokio_postgres::Error) -> Unsubscribed {
    Unsubscribed::Later(format!(
        "Subscribing to PostgreSQL failed, it is tried again: {}",
        explained(&error)
    ))
}

fn never(binding: &Binding, reason: &str) -> Unsubscribed {
    Unsubscribed::Never(format!(
        "Unable to subscribe to changes with given parameters. An exception happened so please check your connect \
         parameters: [{}]. Exception: {reason}",
        binding.shown()
    ))
}

async fn capture(client: &Client, tables: &[Row]) -> Result<(), Unsubscribed> {
    let wanted: Vec<u32> = tables.iter().map(|table| table.get(0)).collect();
    client
        .batch_execute("select realtime.hub_capture_published()")
        .await
        .map_err(later)?;
    let captured: i64 = client
        .query_one(
            "select count(*) from pg_trigger g where g.tgname = 'hub_capture' and g.tgrelid = any ($1::oid[])",
            &[&wanted],
        )
        .await
        .map_err(later)?
        .get(0);
    if usize::try_from(captured).unwrap_or_default() < wanted.len() {
        let reason = "Subscribing to PostgreSQL failed, it is tried again: a transaction holds a table";
        return Err(Unsubscribed::Later(reason.to_owned()));
    }
    Ok(())
}

async fn columns(client: &Client, table: u32, role: &str) -> Result<Columns, Unsubscribed> {
    let rows = client.query(COLUMNS, &[&table, &role]).await.map_err(later)?;
    let column = |row: &Row| {
        let column = Column {
            readable: row.get("readable"),
            type_name: row.get("type"),
            array_name: row.get("array"),
            plain: row.get("plain"),
            boolean: row.get("boolean"),
            known: row.get("known"),
        };
        (row.get("name"), column)
    };
    Ok(rows.iter().map(column).collect())
}

/// Who asks what can be compared.
struct Asker<'a> {
    client: Object,
    penalties: &'a Penalties,
    subject: Subject,
}

impl Asker<'_> {
    /// An error of the database is the client's fault when it is about what was given, else it may pass. What takes too
    /// long to be read is not tried again.
    fn blamed(&self, binding: &Binding, error: &tokio_postgres::Error) -> Unsubscribed {
        if db::is_too_slow(error) {
            self.penalties.add(self.subject.clone(), Instant::now());
        } else if db::is_trouble(error) {
            return Unsubscribed::Later(explained(error));
        }
        never(binding, &explained(error))
    }

    /// Whoever has cost the others too much asks for nothing that the database must compare.
    fn may_ask(&self) -> Result<(), Unsubscribed> {
        if !self.penalties.holds(&self.subject, Instant::now()) {
            return Ok(());
        }
        Err(Unsubscribed::Never(format!(
            "Unable to subscribe to changes with given parameters. A filter of yours took the database too long; those it \
             must compare are refused for {} s after that",
            PENALTY.as_secs()
        )))
    }

    async fn follow(&self, binding: &Binding, table: u32, columns: &Columns) -> Result<Follow, Unsubscribed> {
        let readable = |name: &str| columns.get(name).filter(|column| column.readable);
        let mut checks = Vec::with_capacity(binding.conditions.len());
        for condition in &binding.conditions {
            let Some(column) = readable(&condition.column).filter(|column| column.known) else {
                let reason = format!("invalid column for filter {}", condition.column);
                return Err(never(binding, &reason));
            };
            checks.push(Check {
                column: condition.column.clone(),
                negated: condition.negated != (condition.op == Op::Neq && column.plain),
                test: self.test(binding, condition, column).await?,
            });
        }
        for name in binding.select.iter().flatten() {
            if readable(name).is_none() {
                return Err(never(binding, &format!("invalid column for select {name}")));
            }
        }
        Ok(Follow {
            binding: binding.id,
            table,
            event: binding.event.clone(),
            conditions: checks,
            select: binding.select.as_deref().map(chosen),
        })
    }

    /// Has the database read the value once, so that nothing is left to fail when a row comes.
    async fn test(
        &self,
        binding: &Binding,
        condition: &Condition,
        column: &Column,
    ) -> Result<Test, Unsubscribed> {
        let client = &self.client;
        let blame = |error: tokio_postgres::Error| self.blamed(binding, &error);
        let (name, value) = (&column.type_name, &condition.value);
        let as_json = async |name: &str| {
            let row = client
                .query_one(&format!("select to_jsonb($1::text::{name})"), &[value])
                .await?;
            Ok::<_, tokio_postgres::Error>(row.get::<_, Option<Value>>(0).unwrap_or_default())
        };
        match condition.op {
            Op::Is => return is(binding, condition, column),
            Op::In => {
                let array = &column.array_name;
                if array.is_empty() {
                    return Err(never(binding, "`in` does not go with the type of the column"));
                }
                let count: Option<i32> = client
                    .query_one(&format!("select cardinality($1::text::{array})"), &[value])
                    .await
                    .map_err(blame)?
                    .get(0);
                if count.unwrap_or_default() > LIST_MAX {
                    let reason = format!("too many values for `in` filter. Maximum {LIST_MAX}");
                    return Err(never(binding, &reason));
                }
                if column.plain
                    && let Value::Array(values) = as_json(array).await.map_err(blame)?
                {
                    return Ok(Test::Same(values));
                }
            }
            Op::Eq | Op::Neq if column.plain => {
                return Ok(Test::Same(vec![as_json(name).await.map_err(blame)?]));
            }
            Op::IsDistinct if column.plain => return Ok(Test::Distinct(as_json(name).await.map_err(blame)?)),
            _ => {}
        }
        self.may_ask()?;
        let question = Question {
            column: condition.column.clone(),
            operator: operator(condition.op),
            type_name: if condition.op == Op::In {
                column.array_name.clone()
            } else {
                name.clone()
            },
            value: value.clone(),
        };
        let try_it = format!(
            "select {} from (select null::{name} as {}) r",
            question.sql(1),
            db::ident(&question.column)
        );
        client.query_one(&try_it, &[value]).await.map_err(blame)?;
        if matches!(condition.op, Op::Match | Op::Imatch) {
            client
                .query_one("select '' ~ $1::text", &[value])
                .await
                .map_err(blame)?;
        }
        Ok(Test::Asked(question))
    }
}

/// Column names in order, each once: the same choice is the same, however it was written.
fn chosen(names: &[String]) -> Arc<[String]> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    names.into()
}

fn is(binding: &Binding, condition: &Condition, column: &Column) -> Result<Test, Unsubscribed> {
    let value = match condition.value.as_str() {
        "null" => Value::Null,
        "true" | "false" | "unknown" if !column.boolean => {
            let reason = format!(
                "is {} filter requires a boolean column, got {}",
                condition.value, column.type_name
            );
            return Err(never(binding, &reason));
        }
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "unknown" => Value::Null,
        _ => {
            let reason = "invalid value for is filter: must be null, true, false, or unknown";
            return Err(never(binding, reason));
        }
    };
    Ok(Test::Is(value))
}

/// From when this returns, every change of `tables` is captured that is not committed yet: writers look for interest
/// with every statement, and those that looked before it was there have ended.
async fn settle(shared: &Shared, mut tables: HashSet<u32>) -> Result<(), Unsubscribed> {
    let settled = &shared.realtime.settled;
    {
        let settled = settled.lock().unwrap_or_else(PoisonError::into_inner);
        tables.retain(|table| !settled.contains(table));
    }
    if tables.is_empty() {
        return Ok(());
    }
    let tables: Vec<u32> = tables.into_iter().collect();
    connection(shared)
        .await?
        .execute(
            "insert into realtime.hub_interest (entity) select unnest($1::oid[]) on conflict do nothing",
            &[&tables],
        )
        .await
        .map_err(later)?;
    // A connection for each look: while a transaction is waited for, others may begin to follow theirs.
    let writers = async || {
        let rows = connection(shared)
            .await?
            .query(
                "select distinct l.virtualtransaction from pg_locks l
                 where l.locktype = 'relation' and l.granted and l.relation = any ($1::oid[])
                   and l.database = (select d.oid from pg_database d where d.datname = current_database())
                   and l.mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
                   and l.pid is distinct from pg_backend_pid()",
                &[&tables],
            )
            .await
            .map_err(later)?;
        Ok::<HashSet<String>, Unsubscribed>(rows.iter().map(|row| row.get(0)).collect())
    };
    let (mut before, begun) = (writers().await?, Instant::now());
    while !before.is_empty() {
        if begun.elapsed() > SETTLE_MAX {
            return Err(Unsubscribed::Later(
                "PostgresChangesSubscribeTimeout: a transaction holds a table since before it was subscribed to; it is \
                 tried again"
                    .to_owned(),
            ));
        }
        sleep(SETTLE_LOOK).await;
        let now = writers().await?;
        before.retain(|writer| now.contains(writer));
    }
    let mut settled = settled.lock().unwrap_or_else(PoisonError::into_inner);
    settled.extend(tables);
    Ok(())
}

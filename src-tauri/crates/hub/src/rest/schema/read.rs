//! The queries that read the catalogue.
//!
//! Run by the hub itself, without any text of a client and with an empty search path, so that every name that
//! comes back is qualified. Called by `schema`.

use std::collections::HashMap;

use tokio_postgres::types::FromSql;
use tokio_postgres::{Client, IsolationLevel, Row};

use super::relations::{ForeignKey, Link, Relation};
use super::views::Views;
use super::{ATTEMPT, Argument, Column, Function, Returns, SCHEMA, Schema, Table, Volatility};
use crate::error::HubError;

const RELATIONS: &str = "
  select c.oid, c.relname::text, c.relkind in ('v', 'm'), c.relkind = 'c',
         c.relkind in ('r', 'p') or pg_relation_is_updatable(c.oid, true) & 8 = 8,
         c.relkind in ('r', 'p') or pg_relation_is_updatable(c.oid, true) & 4 = 4,
         c.relkind in ('r', 'p') or pg_relation_is_updatable(c.oid, true) & 16 = 16,
         coalesce((select array_agg(a.attname::text order by k.place) from pg_constraint p,
                   unnest(p.conkey) with ordinality k(number, place), pg_attribute a
                   where p.conrelid = c.oid and p.contype = 'p' and a.attrelid = c.oid and a.attnum = k.number), '{}')
  from pg_class c
  where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f', 'c')
    and not c.relispartition
  order by c.relname";

const COLUMNS: &str = "
  select a.attrelid, a.attnum, a.attname::text, format_type(a.atttypid, a.atttypmod),
         case when a.attidentity = 'd'
                then format('nextval(%L)', pg_get_serial_sequence(a.attrelid::regclass::text, a.attname))
              when a.attidentity = 'a' or a.attgenerated <> '' then null
              else coalesce(pg_get_expr(d.adbin, d.adrelid), t.typdefault) end,
         not (a.attnotnull or t.typnotnull)
  from pg_class c
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  join pg_type t on t.oid = a.atttypid
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f', 'c')
  order by a.attrelid, a.attnum";

const FOREIGN_KEYS: &str = "
  select f.conrelid, f.confrelid, f.conname::text, f.conkey, f.confkey,
         array(select a.attname::text from unnest(f.conkey) with ordinality k(number, place)
               join pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.number order by k.place),
         array(select a.attname::text from unnest(f.confkey) with ordinality k(number, place)
               join pg_attribute a on a.attrelid = f.confrelid and a.attnum = k.number order by k.place),
         exists (select 1 from pg_constraint u where u.conrelid = f.conrelid and u.contype in ('p', 'u')
                 and u.conkey @> f.conkey and u.conkey <@ f.conkey)
  from pg_constraint f
  where f.contype = 'f' and f.conparentid = 0
  order by f.conrelid, f.conname";

const PRIMARY_KEYS: &str = "select conrelid, conkey from pg_constraint where contype = 'p'";

const VIEWS: &str = "
  select c.oid, pg_get_viewdef(c.oid) from pg_class c
  where c.relkind in ('v', 'm')
    and c.relnamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
  order by c.relnamespace <> 'public'::regnamespace, c.relname";

const FUNCTIONS: &str = "
  select p.proname::text, coalesce(p.proargnames, '{}')::text[], coalesce(p.proargmodes, '{}')::text[],
         array(select format_type(u.type, null) from unnest(p.proargtypes) with ordinality u(type, place)
               order by u.place),
         array(select format_type(u.type, null) from unnest(p.proallargtypes) with ordinality u(type, place)
               order by u.place),
         p.pronargdefaults::int4, p.proretset, p.provolatile::text,
         p.prorettype = 'void'::regtype, t.typtype = 'c', t.typrelid, p.provariadic <> 0
  from pg_proc p
  join pg_type t on t.oid = p.prorettype
  where p.pronamespace = 'public'::regnamespace and p.prokind = 'f'
    and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
  order by p.proname, p.pronargs, p.oid";

/// Functions of one row of a table of ours; they can be read like a column, or embedded if they give rows.
const OF_A_ROW: &str = "
  select n.nspname::text, p.proname::text, own.typrelid, t.typrelid, p.proretset, p.prorows = 1
  from pg_proc p
  join pg_namespace n on n.oid = p.pronamespace and n.nspname in ('public', 'extensions')
  join pg_type own on own.oid = p.proargtypes[0] and own.typrelid <> 0
  join pg_type t on t.oid = p.prorettype
  where p.pronargs = 1 and p.prokind = 'f'
  order by p.proname";

/// A row's value, or the error that says that the catalogue is not as expected.
fn got<'r, T: FromSql<'r>>(row: &'r Row, place: usize) -> Result<T, HubError> {
    row.try_get(place).map_err(fault)
}

fn fault(source: tokio_postgres::Error) -> HubError {
    HubError::Database {
        attempt: ATTEMPT.to_owned(),
        source,
    }
}

/// One consistent reading. Who asked may go away in the midst of it: the transaction then ends with this future, so
/// that the connection goes back to its pool as it came.
pub(super) async fn read(client: &mut Client) -> Result<Schema, HubError> {
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .map_err(fault)?;
    let no_path = "set local search_path = ''";
    transaction.batch_execute(no_path).await.map_err(fault)?;
    let schema = read_all(transaction.client()).await;
    let end = transaction.rollback().await;
    let schema = schema?;
    end.map_err(fault)?;
    Ok(schema)
}

/// Names and columns of what is in the exposed schema, by oid.
#[derive(Default)]
struct Known {
    names: HashMap<u32, String>,
    views: HashMap<u32, bool>,
    composites: HashMap<u32, Vec<Column>>,
    /// Names of columns by number.
    numbers: HashMap<(u32, i16), String>,
}

async fn read_all(client: &Client) -> Result<Schema, HubError> {
    let mut schema = Schema::default();
    let known = read_relations(client, &mut schema).await?;
    let definitions = client.query(VIEWS, &[]).await.map_err(fault)?;
    let definitions: Vec<(u32, String)> = definitions
        .iter()
        .map(|row| Ok((got(row, 0)?, got(row, 1)?)))
        .collect::<Result<_, HubError>>()?;
    let views = Views::trace(client, &definitions).await?;
    view_keys(client, &views, &known, &mut schema).await?;
    let keys = read_foreign_keys(client, &views, &known).await?;
    schema.relate(&keys);
    read_of_a_row(client, &known, &mut schema).await?;
    read_functions(client, &known, &mut schema).await?;
    Ok(schema)
}

async fn read_relations(client: &Client, schema: &mut Schema) -> Result<Known, HubError> {
    let mut known = Known::default();
    let mut columns: HashMap<u32, Vec<Column>> = HashMap::new();
    for row in &client.query(COLUMNS, &[]).await.map_err(fault)? {
        let (relation, number): (u32, i16) = (got(row, 0)?, got(row, 1)?);
        let column = Column {
            name: got(row, 2)?,
            kind: got(row, 3)?,
            default: got(row, 4)?,
            nullable: got(row, 5)?,
        };
        known.numbers.insert((relation, number), column.name.clone());
        columns.entry(relation).or_default().push(column);
    }
    for row in &client.query(RELATIONS, &[]).await.map_err(fault)? {
        let (relation, name): (u32, String) = (got(row, 0)?, got(row, 1)?);
        let columns = columns.remove(&relation).unwrap_or_default();
        if got(row, 3)? {
            known.composites.insert(relation, columns);
            continue;
        }
        known.names.insert(relation, name.clone());
        known.views.insert(relation, got(row, 2)?);
        let table = Table {
            columns,
            key: got(row, 7)?,
            computed: Vec::new(),
            insertable: got(row, 4)?,
            updatable: got(row, 5)?,
            deletable: got(row, 6)?,
        };
        schema.tables.insert(name, table);
    }
    Ok(known)
}

/// A view that shows the whole primary key of a table has it for its own.
async fn view_keys(
    client: &Client,
    views: &Views,
    known: &Known,
    schema: &mut Schema,
) -> Result<(), HubError> {
    let keys = client.query(PRIMARY_KEYS, &[]).await.map_err(fault)?;
    for view in views.all() {
        let Some(table) = known
            .names
            .get(&view)
            .and_then(|name| schema.tables.get_mut(name))
        else {
            continue;
        };
        for row in &keys {
            let shown = views.shown(view, got(row, 0)?);
            let columns: Vec<i16> = got(row, 1)?;
            let names: Option<Vec<String>> = columns
                .iter()
                .map(|number| known.numbers.get(&(view, *shown.get(number)?)).cloned())
                .collect();
            table.key.extend(names.unwrap_or_default());
        }
    }
    Ok(())
}

/// The foreign keys between tables and views of ours, also those that hold for a view of a table.
async fn read_foreign_keys(
    client: &Client,
    views: &Views,
    known: &Known,
) -> Result<Vec<ForeignKey>, HubError> {
    let mut keys = Vec::new();
    for row in &client.query(FOREIGN_KEYS, &[]).await.map_err(fault)? {
        let (from, to): (u32, u32) = (got(row, 0)?, got(row, 1)?);
        let constraint: String = got(row, 2)?;
        let unique: bool = got(row, 7)?;
        let starts = shown_by(views, known, from, &got::<Vec<i16>>(row, 3)?, got(row, 5)?);
        let ends = shown_by(views, known, to, &got::<Vec<i16>>(row, 4)?, got(row, 6)?);
        for (start, own) in &starts {
            for (end, other) in &ends {
                keys.push(ForeignKey {
                    from: start.0.clone(),
                    to: end.0.clone(),
                    from_is_view: start.1,
                    to_is_view: end.1,
                    constraint: constraint.clone(),
                    columns: own.iter().cloned().zip(other.iter().cloned()).collect(),
                    unique,
                });
            }
        }
    }
    Ok(keys)
}

/// Name of a relation of ours, and whether it is a view.
type Place = (String, bool);

/// The relations of ours in which columns of `table` can be seen, with the columns' names there.
fn shown_by(
    views: &Views,
    known: &Known,
    table: u32,
    numbers: &[i16],
    names: Vec<String>,
) -> Vec<(Place, Vec<String>)> {
    let mut places = Vec::new();
    if let Some(name) = known.names.get(&table) {
        places.push(((name.clone(), false), names));
    }
    let mut traced: Vec<u32> = views.all().collect();
    traced.sort_unstable();
    for view in traced {
        let Some(name) = known.names.get(&view) else {
            continue;
        };
        let shown = views.shown(view, table);
        let there: Option<Vec<String>> = numbers
            .iter()
            .map(|number| known.numbers.get(&(view, *shown.get(number)?)).cloned())
            .collect();
        if let Some(there) = there {
            places.push(((name.clone(), true), there));
        }
    }
    places
}

async fn read_of_a_row(client: &Client, known: &Known, schema: &mut Schema) -> Result<(), HubError> {
    for row in &client.query(OF_A_ROW, &[]).await.map_err(fault)? {
        let (namespace, function): (String, String) = (got(row, 0)?, got(row, 1)?);
        let Some(from) = known.names.get(&got::<u32>(row, 2)?) else {
            continue;
        };
        let set: bool = got(row, 4)?;
        if let Some(to) = known.names.get(&got::<u32>(row, 3)?) {
            let relations = schema.relations.entry(from.clone()).or_default();
            // A function stands for the relation of its name that the keys would give.
            relations
                .retain(|relation| relation.to != function || matches!(relation.link, Link::Computed { .. }));
            relations.push(Relation {
                from: from.clone(),
                to: to.clone(),
                to_is_view: false,
                link: Link::Computed {
                    schema: namespace,
                    function,
                    to_one: !set || got(row, 5)?,
                },
            });
        } else if !set && let Some(table) = schema.tables.get_mut(from) {
            table.computed.push(function);
        }
    }
    Ok(())
}

async fn read_functions(client: &Client, known: &Known, schema: &mut Schema) -> Result<(), HubError> {
    for row in &client.query(FUNCTIONS, &[]).await.map_err(fault)? {
        let Some(function) = function(row, known)? else {
            continue;
        };
        schema.functions.entry(got(row, 0)?).or_default().push(function);
    }
    Ok(())
}

/// One overload; none when it cannot be called by name.
fn function(row: &Row, known: &Known) -> Result<Option<Function>, HubError> {
    let (names, modes): (Vec<String>, Vec<String>) = (got(row, 1)?, got(row, 2)?);
    let (types, all_types): (Vec<String>, Vec<String>) = (got(row, 3)?, got(row, 4)?);
    let defaults = usize::try_from(got::<i32>(row, 5)?).unwrap_or(0);
    let variadic: bool = got(row, 11)?;
    let mode = |place: usize| modes.get(place).map_or("i", String::as_str);
    let places = names.len().max(modes.len());
    let input: Vec<&str> = (0..places)
        .filter(|place| matches!(mode(*place), "i" | "b" | "v"))
        .map(|place| names.get(place).map_or("", String::as_str))
        .collect();
    let count = types.len();
    let arguments: Vec<Argument> = types
        .into_iter()
        .enumerate()
        .map(|(place, kind)| Argument {
            name: input.get(place).copied().unwrap_or_default().to_owned(),
            kind,
            required: place + defaults < count,
            variadic: variadic && place + 1 == count,
        })
        .collect();
    const WHOLE_BODY: [&str; 5] = ["json", "jsonb", "text", "xml", "bytea"];
    let callable = match arguments.as_slice() {
        [one] if one.name.is_empty() => WHOLE_BODY.contains(&one.kind.as_str()),
        all => all.iter().all(|argument| !argument.name.is_empty()),
    };
    if !callable {
        return Ok(None);
    }
    let out: Vec<Column> = (0..places)
        .filter(|place| matches!(mode(*place), "t" | "b" | "o"))
        .map(|place| Column {
            name: names.get(place).cloned().unwrap_or_default(),
            kind: all_types.get(place).cloned().unwrap_or_default(),
            default: None,
            nullable: true,
        })
        .collect();
    let relation: u32 = got(row, 10)?;
    let returns = match () {
        () if got(row, 8)? => Returns::Void,
        () if !out.is_empty() => Returns::Row {
            table: None,
            columns: Some(out),
        },
        () if got(row, 9)? => Returns::Row {
            table: known.names.get(&relation).cloned(),
            columns: known.composites.get(&relation).cloned(),
        },
        () => Returns::Scalar,
    };
    Ok(Some(Function {
        arguments,
        returns,
        set: got(row, 6)?,
        volatility: match got::<String>(row, 7)?.as_str() {
            "i" => Volatility::Immutable,
            "s" => Volatility::Stable,
            _ => Volatility::Volatile,
        },
    }))
}

const _: () = assert!(matches!(SCHEMA.as_bytes(), b"public"));

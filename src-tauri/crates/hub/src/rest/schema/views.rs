//! Where the columns of views come from, so that the foreign keys of tables hold for views of them, too.
//!
//! Postgres itself says it: the description of a view's query names table and column behind each column of its
//! result. No view is executed. Called by `read`.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::Client;

use super::ATTEMPT;
use crate::error::HubError;

/// Most views whose columns are traced.
const VIEWS_MAX: usize = 500;
/// Longest row of views upon views.
const DEPTH_MAX: usize = 16;

/// A column of a relation: oid and number.
pub(super) type Origin = (u32, i16);

/// For each view: its columns by number, and where they come from, if from a column at all.
#[derive(Debug, Default)]
pub(super) struct Views {
    origins: HashMap<u32, BTreeMap<i16, Origin>>,
}

impl Views {
    /// Asks Postgres about the views with these definitions. `client` is in a transaction.
    pub async fn trace(client: &Client, definitions: &[(u32, String)]) -> Result<Views, HubError> {
        let mut views = Views::default();
        if definitions.len() > VIEWS_MAX {
            tracing::warn!(
                views = definitions.len(),
                "only the first {VIEWS_MAX} views can be embedded by the foreign keys of their tables"
            );
        }
        for (view, definition) in definitions.iter().take(VIEWS_MAX) {
            let fault = |source| HubError::Database {
                attempt: ATTEMPT.to_owned(),
                source,
            };
            // A view may have become invalid (an extension that is gone): that is no reason not to start, and not to
            // lose what comes after it in this transaction.
            client.batch_execute("savepoint one_view").await.map_err(fault)?;
            let described = client.prepare(definition).await;
            let end = if described.is_ok() {
                "release savepoint one_view"
            } else {
                "rollback to savepoint one_view"
            };
            let ended = client.batch_execute(end).await;
            let statement = match described {
                Ok(statement) => statement,
                Err(error) if error.as_db_error().is_some() => {
                    tracing::warn!(view, error = %crate::error::explained(&error), "a view cannot be described");
                    continue;
                }
                Err(source) => return Err(fault(source)),
            };
            ended.map_err(fault)?;
            let mut columns = BTreeMap::new();
            for (number, column) in (1..).zip(statement.columns()) {
                if let (Some(table), Some(origin)) = (column.table_oid(), column.column_id()) {
                    columns.insert(number, (table, origin));
                }
            }
            views.origins.insert(*view, columns);
        }
        Ok(views)
    }

    /// The columns of `view` that show columns of the table `table`: number there → number in the view (the first,
    /// when it is shown twice).
    pub fn shown(&self, view: u32, table: u32) -> HashMap<i16, i16> {
        let mut shown = HashMap::new();
        for (number, origin) in self.origins.get(&view).into_iter().flatten() {
            for place in self.chain(*origin) {
                if place.0 == table {
                    shown.entry(place.1).or_insert(*number);
                }
            }
        }
        shown
    }

    /// An origin, what that comes from if it is a column of a view itself, and so on.
    fn chain(&self, origin: Origin) -> Vec<Origin> {
        let mut chain = vec![origin];
        let mut at = origin;
        while chain.len() < DEPTH_MAX {
            let Some(next) = self.origins.get(&at.0).and_then(|columns| columns.get(&at.1)) else {
                break;
            };
            chain.push(*next);
            at = *next;
        }
        chain
    }

    /// All views that were traced.
    pub fn all(&self) -> impl Iterator<Item = u32> {
        self.origins.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_of_a_view_shows_the_table_and_a_circle_ends() {
        let views = Views {
            origins: HashMap::from([
                (20, BTreeMap::from([(1, (10, 2)), (2, (10, 1))])),
                (30, BTreeMap::from([(1, (20, 2))])),
                (40, BTreeMap::from([(1, (40, 1))])),
            ]),
        };
        assert_eq!(views.shown(30, 10), HashMap::from([(1, 1)]));
        assert_eq!(views.shown(20, 10), HashMap::from([(2, 1), (1, 2)]));
        assert!(views.shown(40, 10).is_empty());
    }

    #[tokio::test]
    async fn a_view_that_cannot_be_described_takes_none_of_the_others_with_it() {
        use crate::source::Source;

        let folder = tempfile::tempdir().unwrap();
        let source = Source::for_test(folder.path()).await;
        let tasks = tokio_util::task::TaskTracker::new();
        let client = source.superuser().open(&tasks, "for a test").await.unwrap();
        client.batch_execute("begin read only").await.unwrap();
        let definitions = [
            (1, "select relname from pg_class".to_owned()),
            (2, "select gone from pg_class".to_owned()),
            (3, "select oid, relname from pg_class".to_owned()),
        ];
        let views = Views::trace(&client, &definitions).await.unwrap();
        let mut found: Vec<u32> = views.all().collect();
        found.sort_unstable();
        assert_eq!(found, [1, 3]);
        client
            .query_one("select 1", &[])
            .await
            .expect("the transaction goes on");
        client.batch_execute("rollback").await.unwrap();
        drop(client);
        source.stop().await.unwrap();
    }
}

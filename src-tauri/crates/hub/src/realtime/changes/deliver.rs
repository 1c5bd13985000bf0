//! Telling captured changes to whom they may be told.
//!
//! Asks as few questions as possible: filters once per change, columns once per role, rows once per person. An error of
//! the database that is no answer sends all clients to read again. Called by `feed`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::follow::{Follow, Question};
use super::row::{self, Change, Refusal, Table};
use crate::db::{self, Access};
use crate::error::{HubError, explained};
use crate::http::Shared;
use crate::jwt::Claims;
use crate::realtime::registry::Follower;

/// Changes read into memory at a time; each has at most about a megabyte.
const SLICE: usize = 32;
/// Questions asked in one statement.
const QUESTIONS_MAX: usize = 100;
/// Longest the database may compare, in milliseconds: clients may ask with regular expressions.
const COMPARE_MS: &str = "1000";
/// People asked for at the same time.
const PEOPLE_AT_ONCE: usize = 4;

/// The columns a binding chose, if it did.
type Select<'f> = Option<&'f Arc<[String]>>;

/// Answers of the database to questions about one change.
type Answers = HashMap<Question, Option<bool>>;

/// A change that some bindings of a follower match.
struct Candidate {
    change: usize,
    /// Indices of the follower's follows.
    matched: Vec<usize>,
}

/// Reads captured changes, tells them and removes them.
pub(crate) async fn deliver(client: &Client, shared: &Shared, ids: &[i64]) -> Result<(), HubError> {
    let fault = |source| HubError::Database {
        attempt: "tell captured changes".to_owned(),
        source,
    };
    for ids in ids.chunks(SLICE) {
        let changes = row::changes(client, ids).await.map_err(fault)?;
        let touched: HashSet<u32> = changes.iter().map(|change| change.table).collect();
        let followers = shared.realtime.followers(&touched);
        if !followers.is_empty() {
            let tables = row::tables(client, &touched).await.map_err(fault)?;
            let slice = Slice {
                shared,
                changes,
                tables,
                client,
            };
            slice.tell(&followers).await?;
        }
        client
            .execute("delete from realtime.hub_changes where id = any ($1)", &[&ids])
            .await
            .map_err(fault)?;
    }
    Ok(())
}

struct Slice<'a> {
    shared: &'a Shared,
    client: &'a Client,
    changes: Vec<Change>,
    tables: HashMap<u32, Table>,
}

/// Rows somebody may read: (index of the change).
type Seen = HashSet<usize>;

impl Slice<'_> {
    async fn tell(&self, followers: &[Follower]) -> Result<(), HubError> {
        let answers = self.answers(followers).await?;
        let readable = self.readable(followers).await?;
        let mut candidates: Vec<(&Follower, Vec<Candidate>)> = Vec::new();
        for follower in followers {
            let found = self.candidates(follower, &answers, &readable);
            if !found.is_empty() {
                candidates.push((follower, found));
            }
        }
        let seen = self.seen(&candidates, &readable).await?;
        let mut told: HashMap<(usize, &str, Select<'_>), Arc<str>> = HashMap::new();
        for (follower, found) in &candidates {
            let theirs = seen.get(&person(&follower.claims));
            for candidate in found {
                let Some((change, table)) = self.at(candidate.change) else {
                    continue;
                };
                let role = follower.claims.role.as_str();
                let columns = &readable[&(role.to_owned(), change.table)];
                let refusal = refusal(change, table, columns);
                if refusal.is_none()
                    && must_be_seen(change, table)
                    && !theirs.is_some_and(|seen| seen.contains(&candidate.change))
                {
                    continue;
                }
                for (select, ids) in by_select(&follower.follows, &candidate.matched) {
                    let data =
                        told.entry((candidate.change, role, select))
                            .or_insert_with(|| match refusal {
                                Some(refusal) => row::refused(change, table, refusal).into(),
                                None => {
                                    row::data(change, table, columns, select.map(|names| &**names)).into()
                                }
                            });
                    self.send(follower, &ids, data);
                }
            }
        }
        Ok(())
    }

    fn send(&self, follower: &Follower, ids: &[u32], data: &str) {
        let payload = format!(r#"{{"ids":{},"data":{data}}}"#, json!(ids));
        self.shared.realtime.tell_change(follower.id, payload);
    }

    fn at(&self, index: usize) -> Option<(&Change, &Table)> {
        let change = self.changes.get(index)?;
        Some((change, self.tables.get(&change.table)?))
    }

    fn candidates(
        &self,
        follower: &Follower,
        answers: &[Answers],
        readable: &HashMap<(String, u32), HashSet<String>>,
    ) -> Vec<Candidate> {
        let mut found = Vec::new();
        for (index, change) in self.changes.iter().enumerate() {
            let Some((_, table)) = self.at(index) else {
                continue;
            };
            if !table.kinds.contains(&change.kind) {
                continue;
            }
            let columns = readable.get(&(follower.claims.role.clone(), change.table));
            let refused = columns.is_some_and(|columns| refusal(change, table, columns).is_some());
            let ask = |question: &Question| answers[index].get(question).copied().flatten();
            let matches = |follow: &Follow| {
                follow.table == change.table
                    && follow.wants(&change.kind)
                    // Who may not read the key is told so whatever the filter, as in the original.
                    && (refused || follow.holds(change.row(), ask))
            };
            let matched: Vec<usize> = (0..follower.follows.len())
                .filter(|place| matches(&follower.follows[*place]))
                .collect();
            if !matched.is_empty() {
                found.push(Candidate {
                    change: index,
                    matched,
                });
            }
        }
        found
    }

    /// What only the database can compare, for every change.
    async fn answers(&self, followers: &[Follower]) -> Result<Vec<Answers>, HubError> {
        let mut all = Vec::with_capacity(self.changes.len());
        for (index, change) in self.changes.iter().enumerate() {
            let mut answers = Answers::new();
            if let Some((_, table)) = self.at(index) {
                let follows = followers.iter().flat_map(|follower| follower.follows.iter());
                let concerned = follows.filter(|one| one.table == change.table && one.wants(&change.kind));
                let questions: HashSet<&Question> = concerned.flat_map(Follow::questions).collect();
                let questions: Vec<&Question> = questions.into_iter().collect();
                for some in questions.chunks(QUESTIONS_MAX) {
                    self.ask(change, table, some, &mut answers).await?;
                }
            }
            all.push(answers);
        }
        Ok(all)
    }

    /// All in one statement; where that fails, one by one: what fails then is null, which satisfies nothing.
    async fn ask(
        &self,
        change: &Change,
        table: &Table,
        questions: &[&Question],
        answers: &mut Answers,
    ) -> Result<(), HubError> {
        match self.compare(change, table, questions).await {
            Ok(found) => answers.extend(questions.iter().map(|one| (*one).clone()).zip(found)),
            Err(error) if self.client.is_closed() => {
                return Err(HubError::Database {
                    attempt: "compare a changed row".to_owned(),
                    source: error,
                });
            }
            Err(_) => {
                for question in questions {
                    let answer = match self.compare(change, table, &[question]).await {
                        Ok(found) => found.first().copied().flatten(),
                        Err(error) => {
                            tracing::warn!(error = explained(&error), "a filter could not be compared");
                            None
                        }
                    };
                    answers.insert((*question).clone(), answer);
                }
            }
        }
        Ok(())
    }

    async fn compare(
        &self,
        change: &Change,
        table: &Table,
        questions: &[&Question],
    ) -> Result<Vec<Option<bool>>, tokio_postgres::Error> {
        let list: Vec<String> = questions
            .iter()
            .enumerate()
            .map(|(place, question)| question.sql(place + 2))
            .collect();
        let sql = format!(
            "select array[{}]::boolean[] from jsonb_populate_record(null::{}, $1::jsonb) r",
            list.join(", "),
            table_name(table)
        );
        let record = Value::Object(change.row().clone());
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&record];
        parameters.extend(questions.iter().map(|one| &one.value as &(dyn ToSql + Sync)));
        self.client
            .batch_execute(&format!(
                "begin read only; set local statement_timeout = {COMPARE_MS}"
            ))
            .await?;
        let asked = self.client.query_one(&sql, &parameters).await;
        self.client.batch_execute("rollback").await?;
        Ok(asked?.get(0))
    }

    /// The columns each role may read of each table.
    async fn readable(
        &self,
        followers: &[Follower],
    ) -> Result<HashMap<(String, u32), HashSet<String>>, HubError> {
        let roles: HashSet<&str> = followers
            .iter()
            .map(|follower| follower.claims.role.as_str())
            .collect();
        let mut readable = HashMap::new();
        for role in roles {
            for (oid, table) in &self.tables {
                let names: Vec<&str> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
                let row = self
                    .client
                    .query_one(
                        "select array(select f from unnest($3::text[]) f
                                      where has_column_privilege($1::text::name, $2::oid, f, 'select'))",
                        &[&role, oid, &names],
                    )
                    .await
                    .map_err(|source| HubError::Database {
                        attempt: "ask which columns may be read".to_owned(),
                        source,
                    })?;
                let columns: Vec<String> = row.get(0);
                readable.insert((role.to_owned(), *oid), columns.into_iter().collect());
            }
        }
        Ok(readable)
    }

    /// Which rows each person may read that has candidates.
    async fn seen(
        &self,
        candidates: &[(&Follower, Vec<Candidate>)],
        readable: &HashMap<(String, u32), HashSet<String>>,
    ) -> Result<HashMap<String, Seen>, HubError> {
        let mut wanted: HashMap<String, (Arc<Claims>, HashSet<usize>)> = HashMap::new();
        for (follower, found) in candidates {
            for candidate in found {
                let Some((change, table)) = self.at(candidate.change) else {
                    continue;
                };
                let columns = &readable[&(follower.claims.role.clone(), change.table)];
                if must_be_seen(change, table) && refusal(change, table, columns).is_none() {
                    wanted
                        .entry(person(&follower.claims))
                        .or_insert_with(|| (follower.claims.clone(), HashSet::new()))
                        .1
                        .insert(candidate.change);
                }
            }
        }
        stream::iter(wanted)
            .map(|(person, (claims, changes))| async move {
                let seen = self.seen_by(&claims, &changes).await?;
                Ok::<_, HubError>((person, seen))
            })
            .buffer_unordered(PEOPLE_AT_ONCE)
            .try_collect()
            .await
    }

    async fn seen_by(&self, who: &Claims, changes: &HashSet<usize>) -> Result<Seen, HubError> {
        let mut by_table: HashMap<u32, Vec<usize>> = HashMap::new();
        for index in changes {
            let Some((change, _)) = self.at(*index) else {
                continue;
            };
            by_table.entry(change.table).or_default().push(*index);
        }
        let mut seen = Seen::new();
        for (oid, changes) in by_table {
            let Some(table) = self.tables.get(&oid) else {
                continue;
            };
            match self.seen_in(who, table, &changes).await {
                Ok(found) => seen.extend(found),
                Err(HubError::Database { source, .. }) if !db::is_trouble(&source) => {
                    tracing::warn!(
                        error = explained(&source),
                        "a change may not be told, says an error"
                    );
                }
                Err(error) => return Err(error),
            }
        }
        Ok(seen)
    }

    async fn seen_in(&self, who: &Claims, table: &Table, changes: &[usize]) -> Result<Vec<usize>, HubError> {
        let attempt = || "ask who may read a changed row".to_owned();
        let fault = |source| HubError::Database {
            attempt: attempt(),
            source,
        };
        let rows: Vec<Value> = changes
            .iter()
            .map(|index| {
                let row = self.changes[*index].row();
                let key: Value = table
                    .key
                    .iter()
                    .filter_map(|name| Some((name.clone(), row.get(name)?.clone())))
                    .collect();
                json!([index, key])
            })
            .collect();
        let name = table_name(table);
        let same: Vec<String> = table
            .key
            .iter()
            .map(|column| format!("t.{0} = k.{0}", db::ident(column)))
            .collect();
        let mut client = self
            .shared
            .database
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
        let sql = format!(
            "select (x.value ->> 0)::int8 from jsonb_array_elements($1::jsonb) x
             cross join lateral jsonb_populate_record(null::{name}, x.value -> 1) k
             where exists (select 1 from {name} t where {})",
            same.join(" and ")
        );
        let found = transaction
            .query(&sql, &[&Value::Array(rows)])
            .await
            .map_err(fault)?;
        Ok(found
            .iter()
            .filter_map(|row| usize::try_from(row.get::<_, i64>(0)).ok())
            .collect())
    }
}

fn table_name(table: &Table) -> String {
    format!("{}.{}", db::ident(&table.schema), db::ident(&table.name))
}

/// One string per person and token content.
fn person(claims: &Claims) -> String {
    format!("{} {}", claims.role, Value::Object(claims.all.clone()))
}

/// Whether row level security must be asked.
fn must_be_seen(change: &Change, table: &Table) -> bool {
    table.row_security && change.record.is_some()
}

fn refusal(change: &Change, table: &Table, readable: &HashSet<String>) -> Option<Refusal> {
    change.record.as_ref()?;
    if table.key.is_empty() {
        return Some(Refusal::NoKey);
    }
    let all = table.key.iter().all(|name| readable.contains(name));
    (!all).then_some(Refusal::Unauthorized)
}

/// Ids of matched bindings, together where they choose the same columns.
fn by_select<'f>(follows: &'f [Follow], matched: &[usize]) -> Vec<(Select<'f>, Vec<u32>)> {
    let mut groups: Vec<(Select<'f>, Vec<u32>)> = Vec::new();
    for follow in matched.iter().filter_map(|place| follows.get(*place)) {
        let select = follow.select.as_ref();
        match groups.iter_mut().find(|(known, _)| *known == select) {
            Some((_, ids)) if ids.contains(&follow.binding) => {}
            Some((_, ids)) => ids.push(follow.binding),
            None => groups.push((select, vec![follow.binding])),
        }
    }
    groups
}

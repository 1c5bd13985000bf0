//! What one person is asked about at the database when rows have changed: may he read them, and do his filters match?
//!
//! Under his own role and claims, on connections of the feed alone, with limits: whoever is too slow is named. Values are
//! always parameters. Called by `deliver`.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_postgres::types::ToSql;

use super::follow::Question;
use super::row::{Change, Table};
use crate::db::{self, Access};
use crate::error::{HubError, explained};
use crate::jwt::Claims;

/// Questions asked in one statement.
const QUESTIONS_MAX: usize = 100;
/// Longest the policies of one table may think about the rows of one slice.
const SEEN_MAX: Duration = Duration::from_secs(2);
/// Longest the filters of one person may take for one slice of changes: clients may ask with patterns.
const COMPARE_MAX: Duration = Duration::from_secs(2);
/// Longest they may take together.
const TOGETHER_MAX: Duration = Duration::from_millis(500);
/// Longest one of them may take once it is asked alone.
const QUESTION_MAX: Duration = Duration::from_millis(250);
/// Rows of a slice of which a question may fail before it is given up.
const FAILED_ROWS_MAX: usize = 3;
/// What is attempted, for errors.
const COMPARE: &str = "compare changed rows";

/// Rows that somebody may read.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Indices of the changes.
    pub rows: HashSet<usize>,
    /// Tables whose policies took too long.
    pub late: HashSet<u32>,
}

/// What the database has said about filters.
#[derive(Debug, Default)]
pub(super) struct Answers {
    known: HashMap<usize, HashMap<Question, bool>>,
    /// Questions that took too long, or failed too often.
    pub late: HashSet<Question>,
}

impl Answers {
    /// All of these took too long before, and are not asked now.
    pub fn too_late(questions: impl Iterator<Item = Question>) -> Answers {
        Answers {
            known: HashMap::new(),
            late: questions.collect(),
        }
    }

    /// The answer about one change; nothing is said where it was null, could not be compared or took too long.
    pub fn of(&self, change: usize, question: &Question) -> Option<bool> {
        self.known.get(&change)?.get(question).copied()
    }
}

fn table_name(table: &Table) -> String {
    format!("{}.{}", db::ident(&table.schema), db::ident(&table.name))
}

fn fault(attempt: &str) -> impl Fn(tokio_postgres::Error) -> HubError {
    move |source| HubError::Database {
        attempt: attempt.to_owned(),
        source,
    }
}

/// Adds to `seen` which of `rows` of one table `who` may read.
pub(super) async fn seen(
    pool: &Pool,
    who: &Claims,
    (oid, table): (u32, &Table),
    rows: &[(usize, &Change)],
    seen: &mut Seen,
) -> Result<(), HubError> {
    const ATTEMPT: &str = "ask who may read a changed row";
    let mut client = db::connection(pool, ATTEMPT).await?;
    match seen_in(&mut client, who, table, rows).await {
        Ok(found) => seen.rows.extend(found),
        Err(error) if db::is_too_slow(&error) => {
            tracing::warn!(table = table.name, "the policies of a table took too long");
            seen.late.insert(oid);
        }
        Err(error) if db::is_trouble(&error) => return Err(fault(ATTEMPT)(error)),
        Err(error) => {
            tracing::warn!(
                error = explained(&error),
                "a change may not be told, says an error"
            );
        }
    }
    Ok(())
}

async fn seen_in(
    client: &mut Object,
    who: &Claims,
    table: &Table,
    rows: &[(usize, &Change)],
) -> Result<Vec<usize>, tokio_postgres::Error> {
    let keys: Vec<Value> = rows
        .iter()
        .map(|(index, change)| {
            let row = change.row();
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
    let sql = format!(
        "select (x.value ->> 0)::int8 from jsonb_array_elements($1::jsonb) x
         cross join lateral jsonb_populate_record(null::{name}, x.value -> 1) k
         where exists (select 1 from {name} t where {})",
        same.join(" and ")
    );
    let transaction = db::begin_as(client, who, Access::ReadOnly).await?;
    transaction.batch_execute(&limit(SEEN_MAX)).await?;
    let found = transaction.query(&sql, &[&Value::Array(keys)]).await?;
    transaction.rollback().await?;
    Ok(found
        .iter()
        .filter_map(|row| usize::try_from(row.get::<_, i64>(0)).ok())
        .collect())
}

fn limit(most: Duration) -> String {
    // 0 would mean no limit.
    format!("set local statement_timeout = {}", most.as_millis().max(1))
}

/// What one person asks about rows of one table.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub table: &'a Table,
    /// With their indices.
    pub changes: Vec<(usize, &'a Change)>,
    pub questions: Vec<&'a Question>,
}

/// Asks `who`'s questions about rows that he may read, all of them within [`COMPARE_MAX`].
pub(super) async fn compare(pool: &Pool, who: &Claims, asked: &[Asked<'_>]) -> Result<Answers, HubError> {
    let mut answers = Answers::default();
    if asked.is_empty() {
        return Ok(answers);
    }
    let mut asking = Asking {
        client: db::connection(pool, COMPARE).await?,
        who,
        until: Instant::now() + COMPARE_MAX,
        is_told: false,
    };
    for one in asked {
        for questions in one.questions.chunks(QUESTIONS_MAX) {
            asking.all(one, questions, &mut answers).await?;
        }
    }
    Ok(answers)
}

struct Asking<'a> {
    client: Object,
    who: &'a Claims,
    /// When all must be answered.
    until: Instant,
    /// Whether a question of his that failed was told of.
    is_told: bool,
}

impl Asking<'_> {
    /// All in one statement; where that fails, one by one, so that only what fails is without an answer.
    async fn all(
        &mut self,
        asked: &Asked<'_>,
        questions: &[&Question],
        answers: &mut Answers,
    ) -> Result<(), HubError> {
        let (table, changes) = (asked.table, &asked.changes);
        let together = self.one_statement(table, changes, questions, TOGETHER_MAX, answers);
        if together.await?.is_ok() {
            return Ok(());
        }
        for (place, question) in questions.iter().enumerate() {
            if self.is_over() {
                let rest = questions[place..].iter();
                answers.late.extend(rest.map(|one| (*one).clone()));
                return Ok(());
            }
            let alone = [*question];
            let answered = self.one_statement(table, changes, &alone, QUESTION_MAX, answers);
            match answered.await? {
                Ok(()) => {}
                Err(error) if db::is_too_slow(&error) => {
                    answers.late.insert((*question).clone());
                }
                // Of some row it cannot be said: then the others may still be told.
                Err(_) => self.row_by_row(asked, question, answers).await?,
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// One question about one row after the other. Failing costs as much as taking long, and ends the same way.
    async fn row_by_row(
        &mut self,
        asked: &Asked<'_>,
        question: &Question,
        answers: &mut Answers,
    ) -> Result<(), HubError> {
        let (alone, mut failed) = ([question], 0);
        for change in &asked.changes {
            if self.is_over() || failed > FAILED_ROWS_MAX {
                answers.late.insert(question.clone());
                return Ok(());
            }
            let change = std::slice::from_ref(change);
            let row = self.one_statement(asked.table, change, &alone, QUESTION_MAX, answers);
            let Err(error) = row.await? else {
                continue;
            };
            failed += 1;
            if !std::mem::replace(&mut self.is_told, true) {
                tracing::warn!(error = explained(&error), "a filter could not be compared");
            }
        }
        Ok(())
    }

    /// The inner error is about the questions, the outer one about the database.
    async fn one_statement(
        &mut self,
        table: &Table,
        changes: &[(usize, &Change)],
        questions: &[&Question],
        most: Duration,
        answers: &mut Answers,
    ) -> Result<Result<(), tokio_postgres::Error>, HubError> {
        let most = most.min(self.until.saturating_duration_since(Instant::now()));
        let list: Vec<String> = questions
            .iter()
            .enumerate()
            .map(|(place, question)| question.sql(place + 2))
            .collect();
        let sql = format!(
            "select (x.value ->> 0)::int8, array[{}]::boolean[] from jsonb_array_elements($1::jsonb) x
             cross join lateral jsonb_populate_record(null::{}, x.value -> 1) r",
            list.join(", "),
            table_name(table)
        );
        let rows: Vec<Value> = changes
            .iter()
            .map(|(index, change)| json!([index, change.row()]))
            .collect();
        let rows = Value::Array(rows);
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&rows];
        parameters.extend(questions.iter().map(|one| &one.value as &(dyn ToSql + Sync)));
        let asked = async {
            let transaction = db::begin_as(&mut self.client, self.who, Access::ReadOnly).await?;
            transaction.batch_execute(&limit(most)).await?;
            let found = transaction.query(&sql, &parameters).await;
            transaction.rollback().await?;
            found
        };
        let found = match asked.await {
            Ok(found) => found,
            Err(error) if db::is_too_slow(&error) || !db::is_trouble(&error) => return Ok(Err(error)),
            Err(error) => return Err(fault(COMPARE)(error)),
        };
        for row in found {
            let Ok(index) = usize::try_from(row.get::<_, i64>(0)) else {
                continue;
            };
            let known = answers.known.entry(index).or_default();
            for (question, answer) in questions.iter().zip(row.get::<_, Vec<Option<bool>>>(1)) {
                if let Some(answer) = answer {
                    known.insert((*question).clone(), answer);
                }
            }
        }
        Ok(Ok(()))
    }
}

//! Telling captured changes to whom they may be told.
//!
//! Person by person: first whether the row may be read, then whether the filters match, so that nobody's filter is ever
//! compared with a row that is not for him. Who needs too long is told so and misses it; nobody else does. Called by
//! `lane`.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_postgres::Client;

use super::ask::{self, Answers, Asked, Seen};
use super::follow::{Follow, Question};
use super::penalty::PENALTY;
use super::row::{self, Change, Refusal, Table};
use crate::db;
use crate::error::HubError;
use crate::http::Shared;
use crate::jwt::Claims;
use crate::realtime::registry::Follower;

/// Changes read into memory at a time; each has at most about a megabyte.
const SLICE: usize = 32;
/// What has been written down of a slice and is kept for others who are told the same, in bytes.
const TOLD_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What a channel is told whose changes the database could not judge in time; as the original says it, it is tried again.
pub(crate) const BEHIND: &str = "Too many database timeouts";

/// The columns a binding chose, if it did.
type Select = Option<Arc<[String]>>;

/// A change that some bindings of a follower may match.
struct Candidate<'f> {
    change: usize,
    follower: &'f Follower,
    /// Indices of the follower's follows.
    matched: Vec<usize>,
}

/// Tells the next captured changes and removes them; false when there were none.
pub(super) async fn next(client: &Client, shared: &Shared) -> Result<bool, HubError> {
    let fault = |source| HubError::Database {
        attempt: "tell captured changes".to_owned(),
        source,
    };
    let limit = i64::try_from(SLICE).unwrap_or(i64::MAX);
    let changes = row::changes(client, limit).await.map_err(fault)?;
    if changes.is_empty() {
        return Ok(false);
    }
    let ids: Vec<i64> = changes.iter().map(|change| change.id).collect();
    let told = tell(client, shared, changes).await;
    // Also when that failed: then everybody is sent to read again, and the next try would meet the same.
    client
        .execute("delete from realtime.hub_changes where id = any ($1)", &[&ids])
        .await
        .map_err(fault)?;
    told.map(|()| true)
}

async fn tell(client: &Client, shared: &Shared, changes: Vec<Change>) -> Result<(), HubError> {
    let touched: HashSet<u32> = changes.iter().map(|change| change.table).collect();
    let followers = shared.realtime.followers(&touched);
    if followers.is_empty() {
        return Ok(());
    }
    let tables = row::tables(client, &touched)
        .await
        .map_err(|source| HubError::Database {
            attempt: "read what is published".to_owned(),
            source,
        })?;
    let readable = readable(client, &tables, &followers).await?;
    let mut people: HashMap<String, Vec<usize>> = HashMap::new();
    for (place, follower) in followers.iter().enumerate() {
        people.entry(person(&follower.claims)).or_default().push(place);
    }
    let slice = Slice {
        shared,
        followers,
        changes,
        tables,
        readable,
        told: Mutex::default(),
    };
    stream::iter(people.into_values())
        .for_each_concurrent(db::FEED_CONNECTIONS_MAX, |places| {
            slice.tell_or_fall_behind(places)
        })
        .await;
    Ok(())
}

/// One string per person and token content.
fn person(claims: &Claims) -> String {
    format!("{} {}", claims.role, Value::Object(claims.all.clone()))
}

/// The columns each role may read of each table.
type Readable = HashMap<(String, u32), HashSet<String>>;

async fn readable(
    client: &Client,
    tables: &HashMap<u32, Table>,
    followers: &[Follower],
) -> Result<Readable, HubError> {
    let roles: HashSet<&str> = followers
        .iter()
        .map(|follower| follower.claims.role.as_str())
        .collect();
    let mut readable = HashMap::new();
    for role in roles {
        for (oid, table) in tables {
            let names: Vec<&str> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
            let row = client
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

struct Slice<'a> {
    shared: &'a Shared,
    followers: Vec<Follower>,
    changes: Vec<Change>,
    tables: HashMap<u32, Table>,
    readable: Readable,
    told: Mutex<Told>,
}

/// JSON by change, role and chosen columns: the same for many. Without it everything is written down anew.
#[derive(Default)]
struct Told {
    by_what: HashMap<(usize, String, Select), Arc<str>>,
    bytes: usize,
}

impl Told {
    fn keep(&mut self, what: (usize, String, Select), data: Arc<str>) {
        if self.bytes + data.len() > TOLD_BYTES_MAX {
            *self = Told::default();
        }
        self.bytes += data.len();
        self.by_what.insert(what, data);
    }
}

impl Slice<'_> {
    /// What fails for one person is missed by nobody else.
    async fn tell_or_fall_behind(&self, places: Vec<usize>) {
        let channels = places.clone();
        if let Err(error) = self.tell(places).await {
            tracing::warn!(%error, "row changes could not be told to somebody, who is told so");
            for follower in channels.iter().filter_map(|place| self.followers.get(*place)) {
                self.shared.realtime.fall_behind(follower.id, BEHIND);
            }
        }
    }

    /// All channels of one person, by their places among the followers.
    async fn tell(&self, places: Vec<usize>) -> Result<(), HubError> {
        let channels: Vec<&Follower> = places.iter().map(|place| &self.followers[*place]).collect();
        let Some(claims) = channels.first().map(|follower| follower.claims.clone()) else {
            return Ok(());
        };
        let mut candidates: Vec<Candidate<'_>> = Vec::new();
        for follower in &channels {
            candidates.extend(self.candidates(follower));
        }
        let mut unseen: HashMap<u32, Vec<usize>> = HashMap::new();
        let guarded: HashSet<usize> = candidates.iter().map(|one| one.change).collect();
        for change in guarded {
            if let Some((one, table)) = self.at(change)
                && must_be_seen(one, table)
                && self.refusal(&claims, one, table).is_none()
            {
                unseen.entry(one.table).or_default().push(change);
            }
        }
        let seen = self.seen(&claims, &unseen).await?;
        let open = |change: usize| {
            self.at(change)
                .is_some_and(|(one, table)| !must_be_seen(one, table) || seen.rows.contains(&change))
        };
        for table in &seen.late {
            // What these channels missed is not known, so they follow it anew.
            self.behind(&channels, |follow| follow.table == *table);
        }
        candidates.retain(|one| {
            self.at(one.change)
                .is_some_and(|(change, table)| self.refusal(&claims, change, table).is_some())
                || open(one.change)
        });
        let answers = self.answers(&claims, &candidates).await?;
        for candidate in &candidates {
            self.send(candidate, &answers);
        }
        if !answers.late.is_empty() {
            self.slow(&claims, &channels, &answers.late);
        }
        Ok(())
    }

    fn at(&self, index: usize) -> Option<(&Change, &Table)> {
        let change = self.changes.get(index)?;
        Some((change, self.tables.get(&change.table)?))
    }

    /// Why a change may not be told to a role with its row.
    fn refusal(&self, claims: &Claims, change: &Change, table: &Table) -> Option<Refusal> {
        change.record.as_ref()?;
        if table.key.is_empty() {
            return Some(Refusal::NoKey);
        }
        let readable = self.readable.get(&(claims.role.clone(), change.table))?;
        let all = table.key.iter().all(|name| readable.contains(name));
        (!all).then_some(Refusal::Unauthorized)
    }

    /// What a channel may get, as far as can be said without the database.
    fn candidates<'f>(&self, follower: &'f Follower) -> Vec<Candidate<'f>> {
        let mut found = Vec::new();
        for index in 0..self.changes.len() {
            let Some((change, table)) = self.at(index) else {
                continue;
            };
            if !table.kinds.contains(&change.kind) {
                continue;
            }
            let refused = self.refusal(&follower.claims, change, table).is_some();
            let matches = |follow: &Follow| {
                follow.table == change.table
                    && follow.wants(&change.kind)
                    // Who may not read the key is told so whatever the filter, as in the original.
                    && (refused || follow.may_hold(change.row()))
            };
            let matched: Vec<usize> = (0..follower.follows.len())
                .filter(|place| matches(&follower.follows[*place]))
                .collect();
            if !matched.is_empty() {
                found.push(Candidate {
                    change: index,
                    follower,
                    matched,
                });
            }
        }
        found
    }

    /// Which rows the person may read; those of whole tables together.
    async fn seen(&self, who: &Claims, wanted: &HashMap<u32, Vec<usize>>) -> Result<Seen, HubError> {
        let mut seen = Seen::default();
        for (oid, changes) in wanted {
            if let Some(table) = self.tables.get(oid) {
                let rows = self.numbered(changes.iter().copied());
                ask::seen(&self.shared.database.feed, who, (*oid, table), &rows, &mut seen).await?;
            }
        }
        Ok(seen)
    }

    /// What the database says about the filters, for rows that the person may read.
    async fn answers(&self, who: &Claims, candidates: &[Candidate<'_>]) -> Result<Answers, HubError> {
        let mut by_table: HashMap<u32, (HashSet<usize>, HashSet<&Question>)> = HashMap::new();
        for candidate in candidates {
            let Some((change, table)) = self.at(candidate.change) else {
                continue;
            };
            if self.refusal(who, change, table).is_some() {
                continue;
            }
            for place in &candidate.matched {
                for question in candidate.follower.follows[*place].questions() {
                    let (changes, questions) = by_table.entry(change.table).or_default();
                    changes.insert(candidate.change);
                    questions.insert(question);
                }
            }
        }
        if self
            .shared
            .realtime
            .penalties
            .holds(&who.subject(), Instant::now())
        {
            let all = by_table.into_values().flat_map(|(_, questions)| questions);
            return Ok(Answers::too_late(all.cloned()));
        }
        let mut asked: Vec<Asked<'_>> = Vec::new();
        for (oid, (changes, questions)) in by_table {
            if let Some(table) = self.tables.get(&oid) {
                asked.push(Asked {
                    table,
                    changes: self.numbered(changes),
                    questions: questions.into_iter().collect(),
                });
            }
        }
        ask::compare(&self.shared.database.feed, who, &asked).await
    }

    fn numbered(&self, indices: impl IntoIterator<Item = usize>) -> Vec<(usize, &Change)> {
        let numbered = |index| Some((index, self.changes.get(index)?));
        indices.into_iter().filter_map(numbered).collect()
    }

    fn send(&self, candidate: &Candidate<'_>, answers: &Answers) {
        let Some((change, table)) = self.at(candidate.change) else {
            return;
        };
        let follower = candidate.follower;
        let realtime = &self.shared.realtime;
        if !realtime.takes_more(follower.id) {
            return;
        }
        let refusal = self.refusal(&follower.claims, change, table);
        let ask = |question: &Question| answers.of(candidate.change, question);
        let holds = |place: &usize| refusal.is_some() || follower.follows[*place].holds(change.row(), ask);
        let matched: Vec<usize> = candidate.matched.iter().copied().filter(holds).collect();
        for (select, ids) in by_select(&follower.follows, &matched) {
            let data = self.data(candidate.change, &follower.claims.role, select, refusal);
            let payload = format!(r#"{{"ids":{},"data":{data}}}"#, json!(ids));
            if !realtime.tell_change(follower.id, payload) {
                return;
            }
        }
    }

    /// The event as JSON text, made once for all who are told the same.
    fn data(&self, index: usize, role: &str, select: Select, refusal: Option<Refusal>) -> Arc<str> {
        let key = (index, role.to_owned(), select);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(data) = told.by_what.get(&key) {
            return data.clone();
        }
        let nothing = HashSet::new();
        let data: Arc<str> = match (self.at(index), refusal) {
            (None, _) => "null".into(),
            (Some((change, table)), Some(refusal)) => row::refused(change, table, refusal).into(),
            (Some((change, table)), None) => {
                let readable = self.readable.get(&(role.to_owned(), change.table));
                row::data(change, table, readable.unwrap_or(&nothing), key.2.as_deref()).into()
            }
        };
        told.keep(key, data.clone());
        data
    }

    /// Channels that follow what has been missed follow it anew.
    fn behind(&self, channels: &[&Follower], missed: impl Fn(&Follow) -> bool) {
        for follower in channels {
            if follower.follows.iter().any(&missed) {
                self.shared.realtime.fall_behind(follower.id, BEHIND);
            }
        }
    }

    /// Filters took too long. Once, that may be the machine's fault: they are followed anew. Soon again, they end, and
    /// their owner's are not compared for a while.
    fn slow(&self, who: &Claims, channels: &[&Follower], late: &HashSet<Question>) {
        let subject = who.subject();
        let filters = late.len();
        let slow = |follow: &Follow| follow.questions().any(|question| late.contains(question));
        if !self
            .shared
            .realtime
            .penalties
            .late(subject.clone(), Instant::now())
        {
            tracing::warn!(?subject, filters, "filters took too long; they are followed anew");
            return self.behind(channels, slow);
        }
        tracing::warn!(?subject, filters, "filters took too long again; they are ended");
        let message = format!(
            "Unable to subscribe to changes with given parameters. An exception happened so please check your connect \
             parameters: the database took too long to compare a filter; for {} s it compares none for you",
            PENALTY.as_secs()
        );
        for follower in channels {
            self.shared.realtime.end_follows(follower.id, slow, &message);
        }
    }
}

/// Whether row level security must be asked.
fn must_be_seen(change: &Change, table: &Table) -> bool {
    table.row_security && change.record.is_some()
}

/// Ids of matched bindings, together where they choose the same columns.
fn by_select(follows: &[Follow], matched: &[usize]) -> Vec<(Select, Vec<u32>)> {
    let mut groups: Vec<(Select, Vec<u32>)> = Vec::new();
    for follow in matched.iter().filter_map(|place| follows.get(*place)) {
        match groups.iter_mut().find(|(known, _)| *known == follow.select) {
            Some((_, ids)) if ids.contains(&follow.binding) => {}
            Some((_, ids)) => ids.push(follow.binding),
            None => groups.push((follow.select.clone(), vec![follow.binding])),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_others_has_an_end() {
        let mut told = Told::default();
        let large: Arc<str> = "x".repeat(TOLD_BYTES_MAX / 4).into();
        for change in 0..100 {
            told.keep((change, "authenticated".to_owned(), None), large.clone());
            assert!(told.bytes <= TOLD_BYTES_MAX && told.bytes == told.by_what.len() * large.len());
            assert!(
                told.by_what
                    .contains_key(&(change, "authenticated".to_owned(), None))
            );
        }
    }
}

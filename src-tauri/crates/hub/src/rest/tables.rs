//! Requests on a table or view: read, insert, update, put, delete.
//!
//! Called by `routes`.

use axum::http::{Method, StatusCode};

use super::answer::{self, Answer};
use super::error::RestError;
use super::parse::{self, Pairs};
use super::plan::{self, Change, ROWS_MAX, Root, Wanted};
use super::request::{Count, Prefer, Return, Target, narrowed, negotiate};
use super::routes::{Request, planned, unsupported};
use super::run::{Demands, Run, run};
use super::sql;
use crate::db::Access;

/// Any method on a table or view.
pub(super) async fn on_table(request: &Request<'_>, name: &str) -> Result<Answer, RestError> {
    match *request.method {
        Method::GET | Method::HEAD => read_table(request, name).await,
        Method::POST | Method::PATCH | Method::PUT | Method::DELETE => change_table(request, name).await,
        Method::OPTIONS => {
            planned(request.shared, |schema| {
                let table = schema
                    .tables
                    .get(name)
                    .ok_or_else(|| plan::no_table(schema, name))?;
                let mut allowed = vec!["OPTIONS,GET,HEAD"];
                let put = table.insertable && table.updatable && !table.key.is_empty();
                for (can, method) in [
                    (table.insertable, "POST"),
                    (put, "PUT"),
                    (table.updatable, "PATCH"),
                    (table.deletable, "DELETE"),
                ] {
                    if can {
                        allowed.push(method);
                    }
                }
                Ok(Answer::new(StatusCode::OK).with("allow", &allowed.join(",")))
            })
            .await
        }
        _ => Err(unsupported(request.method)),
    }
}

async fn read_table(request: &Request<'_>, name: &str) -> Result<Answer, RestError> {
    let mut query = parse::query(&request.pairs, Pairs::Filters)?;
    let rows = narrowed(&mut query, request.headers, *request.method == Method::GET)?;
    let media = negotiate(request.headers)?;
    request.prefer.checked()?;
    let node = planned(request.shared, |schema| {
        plan::read(schema, Root::Table(name), &query)
    })
    .await?;
    let estimated = request.prefer.count == Some(Count::Estimated);
    let most = estimated.then_some(ROWS_MAX + 1);
    let statement = sql::read(&node, request.shown(media), request.prefer.counts(), most)?;
    let expecting = matches!(request.prefer.count, Some(Count::Planned | Count::Estimated));
    let expecting = expecting.then(|| sql::planned(&node)).transpose()?;
    let demands = Demands {
        single: media.is_object(),
        ..Demands::default()
    };
    let (mut outcome, expected) = run(
        request.shared,
        Run {
            who: &request.who,
            access: Access::ReadOnly,
            asked: &request.asked,
            statement: &statement,
            planned: expecting.as_ref(),
            demands,
            room: &request.room,
        },
    )
    .await?;
    // A guess is as good as a count only where counting would take too long.
    outcome.total = match (request.prefer.count, outcome.total) {
        (Some(Count::Planned), _) => expected,
        (Some(Count::Estimated), Some(total)) if total > ROWS_MAX => expected.map(|rows| rows.max(total)),
        (_, total) => total,
    };
    let mut pairs: Vec<&(String, String)> = request
        .pairs
        .iter()
        .filter(|(name, _)| name != "apikey")
        .collect();
    pairs.sort();
    let pairs = pairs
        .into_iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let location = answer::location(name, pairs);
    answer::of_read(rows, outcome, &request.prefer, media, request.profiled, &location)
}

fn wanted(prefer: &Prefer) -> Wanted {
    Wanted {
        rows: matches!(prefer.returns, Some(Return::Representation | Return::HeadersOnly)),
        resolution: prefer.resolution,
        defaults: prefer.defaults == Some(true),
    }
}

async fn change_table(request: &Request<'_>, name: &str) -> Result<Answer, RestError> {
    let method = request.method;
    let query = parse::query(&request.pairs, Pairs::Filters)?;
    if *method == Method::PUT && query.rows.iter().any(|(path, _)| path.is_empty()) {
        return Err(RestError::bad(
            "PGRST114",
            "limit/offset querystring parameters are not allowed for PUT",
        ));
    }
    let columns = query.columns.is_some() && [Method::POST, Method::PATCH].contains(method);
    let body = match *method {
        Method::DELETE => None,
        _ => Some(request.payload(Target::Table, columns)?),
    };
    let media = negotiate(request.headers)?;
    request.prefer.checked()?;
    let wanted = wanted(&request.prefer);
    let (node, change, key) = planned(request.shared, |schema| {
        let node = plan::read(schema, Root::Changed(name), &query)?;
        let change = plan::change(schema, method, name, &query, &node, body.clone(), wanted)?;
        let key = schema.tables.get(name).map(|table| table.key.clone());
        Ok((node, change, key.unwrap_or_default()))
    })
    .await?;
    let shown = (request.prefer.returns == Some(Return::Representation)).then_some(media);
    let addressed = *method == Method::POST && request.prefer.returns == Some(Return::HeadersOnly);
    let statement = sql::changed(&change, &node, shown, addressed.then_some(key.as_slice()))?;
    let limited = [Method::PATCH, Method::DELETE].contains(method);
    let demands = Demands {
        single: media.is_object(),
        named: *method == Method::PUT,
        most: request.prefer.most().filter(|_| limited),
    };
    let (outcome, _) = run(
        request.shared,
        Run {
            who: &request.who,
            access: Access::ReadWrite,
            asked: &request.asked,
            statement: &statement,
            planned: None,
            demands,
            room: &request.room,
        },
    )
    .await?;
    let resolvable = !key.is_empty() || query.on_conflict.is_some();
    debug_assert!(
        resolvable
            || !matches!(
                change,
                Change::Insert {
                    conflict: Some(_),
                    ..
                }
            )
    );
    answer::of_change(
        method,
        name,
        outcome,
        &request.prefer,
        media,
        request.profiled,
        resolvable,
    )
}

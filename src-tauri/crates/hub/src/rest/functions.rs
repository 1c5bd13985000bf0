//! Requests on a function: by body or by query string, and what may be done with its rows.
//!
//! Called by `routes`.

use axum::http::{Method, StatusCode};

use super::answer::{self, Answer};
use super::ast::Query;
use super::error::RestError;
use super::parse::{self, Pairs};
use super::plan::{self, Given, Node, Root};
use super::request::{Payload, Target, narrowed, negotiate};
use super::routes::{Request, planned};
use super::run::{Demands, Run, run};
use super::schema::{Returns, Schema, Volatility};
use super::sql;
use crate::db::Access;

/// Any method on a function.
pub(super) async fn on_function(request: &Request<'_>, name: &str) -> Result<Answer, RestError> {
    let reading = request.is_reading();
    if *request.method == Method::OPTIONS {
        return function_options(request, name).await;
    }
    if !reading && *request.method != Method::POST {
        return Err(RestError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "PGRST101",
            format!("Cannot use the {} method on RPC", request.method),
        ));
    }
    let pairs = if reading {
        Pairs::FiltersAndArguments
    } else {
        Pairs::Filters
    };
    let mut query = parse::query(&request.pairs, pairs)?;
    let rows = narrowed(&mut query, request.headers, *request.method == Method::GET)?;
    let body = if reading {
        None
    } else {
        Some(request.payload(Target::Function, query.columns.is_some())?)
    };
    let media = negotiate(request.headers)?;
    request.prefer.checked()?;
    let (node, call) = planned(request.shared, |schema| {
        called(schema, name, &query, body.as_ref())
    })
    .await?;
    if request.prefer.most().is_some() && !call.function.set {
        return Err(RestError::bad(
            "PGRST128",
            "Function must return SETOF or TABLE when max-affected preference is used with handling=strict",
        ));
    }
    let statement = sql::called(&call, &node, request.shown(media), request.prefer.counts())?;
    let access = if reading || call.function.volatility != Volatility::Volatile {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    };
    let demands = Demands {
        single: media.is_object(),
        named: false,
        most: request.prefer.most(),
    };
    let (outcome, _) = run(
        request.shared,
        Run {
            who: &request.who,
            access,
            asked: &request.asked,
            statement: &statement,
            planned: None,
            demands,
            room: &request.room,
        },
    )
    .await?;
    let void = call.function.returns == Returns::Void && !call.function.set;
    answer::of_call(rows, outcome, void, &request.prefer, media, request.profiled)
}

fn called(
    schema: &Schema,
    name: &str,
    query: &Query,
    body: Option<&Payload>,
) -> Result<(Node, plan::Call), RestError> {
    let given = match body {
        Some(body) => Given::Body(body, query.columns.as_ref()),
        None => Given::Pairs(&query.arguments),
    };
    let call = plan::choose(schema, name, given)?;
    let root = Root::Called {
        name,
        function: &call.function,
    };
    let node = plan::read(schema, root, query)?;
    Ok((node, call))
}

async fn function_options(request: &Request<'_>, name: &str) -> Result<Answer, RestError> {
    let query = parse::query(&request.pairs, Pairs::FiltersAndArguments)?;
    let call = planned(request.shared, |schema| {
        plan::choose(schema, name, Given::Pairs(&query.arguments))
    })
    .await?;
    let allowed = match call.function.volatility {
        Volatility::Volatile => "OPTIONS,POST",
        Volatility::Stable | Volatility::Immutable => "OPTIONS,GET,HEAD,POST",
    };
    Ok(Answer::new(StatusCode::OK).with("allow", allowed))
}

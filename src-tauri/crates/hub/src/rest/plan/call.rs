//! Calls of functions: which overload is meant, and how its arguments get in.
//!
//! Called by `routes` for `/rpc/…`.

use std::collections::BTreeSet;

use axum::http::StatusCode;

use super::super::error::RestError;
use super::super::request::Payload;
use super::super::schema::{Argument, Function, SCHEMA, Schema};
use super::relation::no_function;

/// The arguments a request gives.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Given<'a> {
    /// Pairs of the query string.
    Pairs(&'a [(String, String)]),
    /// The body of a POST, which `columns=` may narrow.
    Body(&'a Payload, Option<&'a Vec<String>>),
}

impl Given<'_> {
    fn names(&self) -> BTreeSet<&str> {
        match self {
            Given::Pairs(pairs) => pairs.iter().map(|(name, _)| name.as_str()).collect(),
            Given::Body(_, Some(columns)) => columns.iter().map(String::as_str).collect(),
            Given::Body(body, None) => body.keys().iter().map(String::as_str).collect(),
        }
    }

    /// The kind of single parameter that the whole body can go into.
    fn whole(&self) -> Option<&'static str> {
        match self {
            Given::Pairs(_) => None,
            Given::Body(body, _) => body.whole(),
        }
    }
}

/// How arguments get in.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Arguments {
    None,
    /// By name, out of the members of a JSON body.
    Named(Vec<Argument>, Payload),
    /// By name, out of the query string; a variadic one may be given several times.
    Direct(Vec<(Argument, Vec<String>)>),
    /// The whole body is the one argument, of this type.
    Whole(String, Payload),
}

/// A call.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Call {
    pub name: String,
    pub function: Function,
    pub arguments: Arguments,
}

/// The overload that takes exactly these arguments.
pub(in super::super) fn choose(schema: &Schema, name: &str, given: Given<'_>) -> Result<Call, RestError> {
    let overloads = schema.functions.get(name).map(Vec::as_slice).unwrap_or_default();
    let (names, whole) = (given.names(), given.whole());
    let mut fitting: Vec<&Function> = overloads.iter().filter(|one| takes(one, &names, whole)).collect();
    if fitting.is_empty() {
        let body = |one: &&Function| match one.arguments.as_slice() {
            [argument] => {
                argument.name.is_empty() && whole.is_some_and(|whole| is_kind(whole, &argument.kind))
            }
            _ => false,
        };
        fitting = overloads.iter().filter(body).collect();
    }
    let function = match fitting.as_slice() {
        [] => {
            let names: Vec<&str> = names.into_iter().collect();
            return Err(no_function(schema, name, &names, whole));
        }
        [one] => (*one).clone(),
        several => return Err(ambiguous(name, several)),
    };
    let arguments = arguments(&function, given, &names);
    Ok(Call {
        name: name.to_owned(),
        function,
        arguments,
    })
}

fn is_kind(whole: &str, kind: &str) -> bool {
    kind == whole || (whole == "json" && kind == "jsonb")
}

fn takes(function: &Function, names: &BTreeSet<&str>, whole: Option<&str>) -> bool {
    if function.arguments.is_empty() {
        return names.is_empty() && matches!(whole, None | Some("json"));
    }
    let known = |name: &str| function.arguments.iter().any(|argument| argument.name == name);
    let required = function.arguments.iter().filter(|argument| argument.required);
    names.iter().all(|name| known(name)) && required.into_iter().all(|one| names.contains(one.name.as_str()))
}

fn arguments(function: &Function, given: Given<'_>, names: &BTreeSet<&str>) -> Arguments {
    if let [argument] = function.arguments.as_slice()
        && argument.name.is_empty()
    {
        return match given {
            Given::Body(body, _) => Arguments::Whole(argument.kind.clone(), body.clone()),
            Given::Pairs([]) => Arguments::None,
            Given::Pairs(pairs) => {
                let all = pairs
                    .iter()
                    .map(|(name, value)| (name.clone(), value.clone().into()));
                let text = serde_json::Value::Object(all.collect()).to_string();
                Arguments::Whole(argument.kind.clone(), Payload::Whole { kind: "json", text })
            }
        };
    }
    let used: Vec<Argument> = function
        .arguments
        .iter()
        .filter(|argument| names.contains(argument.name.as_str()))
        .cloned()
        .collect();
    if used.is_empty() {
        return Arguments::None;
    }
    match given {
        Given::Body(Payload::Form { pairs, .. }, _) => direct(used, pairs),
        Given::Body(body, _) => Arguments::Named(used, body.clone()),
        Given::Pairs(pairs) => direct(used, pairs),
    }
}

fn direct(used: Vec<Argument>, pairs: &[(String, String)]) -> Arguments {
    let values = |argument: &Argument| {
        let all = pairs.iter().filter(|(name, _)| *name == argument.name);
        let mut values: Vec<String> = all.map(|(_, value)| value.clone()).collect();
        if !argument.variadic {
            // Given twice, the last one counts.
            values = values.pop().into_iter().collect();
        }
        values
    };
    let used = used.into_iter().map(|argument| {
        let values = values(&argument);
        (argument, values)
    });
    Arguments::Direct(used.collect())
}

fn ambiguous(name: &str, several: &[&Function]) -> RestError {
    let mut several = several.to_vec();
    several.sort_by_cached_key(|function| {
        let arguments = function.arguments.iter();
        let arguments: Vec<(String, String)> = arguments
            .map(|one| (one.name.clone(), one.kind.clone()))
            .collect();
        (arguments.len(), arguments)
    });
    let listed: Vec<String> = several
        .iter()
        .map(|function| {
            let arguments: Vec<String> = function
                .arguments
                .iter()
                .map(|argument| format!("{} => {}", argument.name, argument.kind))
                .collect();
            format!("{SCHEMA}.{name}({})", arguments.join(", "))
        })
        .collect();
    RestError::new(
        StatusCode::MULTIPLE_CHOICES,
        "PGRST203",
        format!(
            "Could not choose the best candidate function between: {}",
            listed.join(", ")
        ),
    )
    .with_hint(Some(
        "Try renaming the parameters or the function itself in the database so function overloading can be resolved"
            .to_owned(),
    ))
}

//! Which relation a name in `select=` means, and the errors that say what there is instead.
//!
//! Called by `read` and `routes`.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::super::ast::Embed;
use super::super::error::RestError;
use super::super::hint;
use super::super::schema::relations::{Link, Pairs, Relation};
use super::super::schema::{SCHEMA, Schema};

/// The relation from `origin` that `embed` means.
pub(super) fn find<'s>(schema: &'s Schema, origin: &str, embed: &Embed) -> Result<&'s Relation, RestError> {
    let all = schema
        .relations
        .get(origin)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let target = embed.relation.as_str();
    let matching: Vec<&Relation> = all
        .iter()
        .filter(|relation| fits(relation, target, embed.hint.as_deref()))
        .collect();
    match matching.as_slice() {
        [] => Err(none(schema, origin, embed)),
        [one] => Ok(one),
        several => Err(ambiguous(origin, target, several)),
    }
}

fn single(columns: &Pairs) -> Option<&(String, String)> {
    match columns.as_slice() {
        [one] => Some(one),
        _ => None,
    }
}

fn fits(relation: &Relation, target: &str, hint: Option<&str>) -> bool {
    if let Link::Computed { function, .. } = &relation.link {
        return function == target;
    }
    let key = relation.by_key();
    let own_column = |name: &str| {
        key.and_then(|(_, pairs)| single(pairs))
            .is_some_and(|(own, _)| own == name)
    };
    let other_column = |name: &str| {
        key.and_then(|(_, pairs)| single(pairs))
            .is_some_and(|(_, other)| other == name)
    };
    let constraint = |name: &str| key.is_some_and(|(constraint, _)| constraint == name);
    let named = relation.to == target;
    let to_many = matches!(relation.link, Link::OneToMany { .. });
    if relation.from == relation.to {
        // One key of a table to itself leads both ways: its column names the way up, the table's name the way down.
        return match hint {
            None => {
                (named && to_many) || (own_column(target) && matches!(relation.link, Link::ManyToOne { .. }))
            }
            Some(hint) => named && to_many && other_column(hint),
        };
    }
    match hint {
        None => named || (!relation.to_is_view && (constraint(target) || own_column(target))),
        Some(hint) => {
            let through = matches!(&relation.link, Link::ManyToMany { junction, .. } if junction == hint);
            named && (constraint(hint) || own_column(hint) || other_column(hint) || through)
        }
    }
}

fn none(schema: &Schema, origin: &str, embed: &Embed) -> RestError {
    let target = &embed.relation;
    let by_hint = embed
        .hint
        .as_ref()
        .map(|hint| format!("' using the hint '{hint}"))
        .unwrap_or_default();
    let proposal = match schema.relations.get(origin) {
        Some(relations) => {
            let names = relations.iter().map(|relation| relation.to.as_str());
            hint::closest(target, names, hint::ANY)
                .filter(|found| found != target)
                .map(|found| format!("Perhaps you meant '{found}' instead of '{target}'."))
        }
        None => hint::closest(origin, schema.relations.keys().map(String::as_str), hint::ANY)
            .map(|found| format!("Perhaps you meant '{found}' instead of '{origin}'.")),
    };
    RestError::bad(
        "PGRST200",
        format!("Could not find a relationship between '{origin}' and '{target}' in the schema cache"),
    )
    .with_details(format!(
        "Searched for a foreign key relationship between '{origin}' and '{target}{by_hint}' in the schema \
         '{SCHEMA}', but no matches were found."
    ))
    .with_hint(proposal)
    .missing()
}

fn listed<'a>(columns: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = columns.map(String::as_str).collect();
    format!("({})", names.join(", "))
}

/// One way of an ambiguous relation, as `details` shows it.
fn described(relation: &Relation) -> Value {
    let (from, to) = (&relation.from, &relation.to);
    let by_key = |constraint: &str, columns: &Pairs| {
        format!(
            "{constraint} using {from}{} and {to}{}",
            listed(columns.iter().map(|(own, _)| own)),
            listed(columns.iter().map(|(_, other)| other))
        )
    };
    let (cardinality, relationship) = match &relation.link {
        Link::ManyToOne { constraint, columns } => ("many-to-one", by_key(constraint, columns)),
        Link::OneToOne {
            constraint, columns, ..
        } => ("one-to-one", by_key(constraint, columns)),
        Link::OneToMany { constraint, columns } => ("one-to-many", by_key(constraint, columns)),
        Link::ManyToMany {
            junction,
            constraints,
            source,
            target,
        } => (
            "many-to-many",
            format!(
                "{junction} using {}{} and {}{}",
                constraints.0,
                listed(source.iter().map(|(_, junction)| junction)),
                constraints.1,
                listed(target.iter().map(|(_, junction)| junction))
            ),
        ),
        Link::Computed { .. } => return json!({}),
    };
    json!({
        "cardinality": cardinality,
        "embedding": format!("{from} with {to}"),
        "relationship": relationship,
    })
}

fn ambiguous(origin: &str, target: &str, several: &[&Relation]) -> RestError {
    let proposals: Vec<String> = several
        .iter()
        .map(|relation| {
            let by = match &relation.link {
                Link::ManyToMany { junction, .. } => junction.as_str(),
                _ => relation.by_key().map_or("", |(constraint, _)| constraint),
            };
            format!("'{}!{by}'", relation.to)
        })
        .collect();
    RestError::new(
        StatusCode::MULTIPLE_CHOICES,
        "PGRST201",
        format!("Could not embed because more than one relationship was found for '{origin}' and '{target}'"),
    )
    .with_details(several.iter().map(|relation| described(relation)).collect::<Vec<Value>>())
    .with_hint(Some(format!(
        "Try changing '{target}' to one of the following: {}. Find the desired relationship in the 'details' key.",
        proposals.join(", ")
    )))
}

/// PGRST205.
pub(in super::super) fn no_table(schema: &Schema, name: &str) -> RestError {
    let found = hint::closest(name, schema.tables.keys().map(String::as_str), hint::NAME);
    RestError::new(
        StatusCode::NOT_FOUND,
        "PGRST205",
        format!("Could not find the table '{SCHEMA}.{name}' in the schema cache"),
    )
    .with_hint(found.map(|found| format!("Perhaps you meant the table '{SCHEMA}.{found}'")))
    .missing()
}

/// PGRST202. `body`: the kind of single unnamed parameter a body could have gone into, if any.
pub(in super::super) fn no_function(
    schema: &Schema,
    name: &str,
    given: &[&str],
    body: Option<&str>,
) -> RestError {
    let mut given = given.to_vec();
    given.sort_unstable();
    let (list, function) = (given.join(", "), format!("{SCHEMA}.{name}"));
    let whole_body = body.filter(|kind| *kind != "json");
    let without = given.is_empty();
    let (shown, searched) = match (whole_body, without) {
        (Some(kind), _) => (String::new(), format!(" with a single unnamed {kind} parameter")),
        (None, true) => (" without parameters".to_owned(), " without parameters".to_owned()),
        (None, false) => {
            let plural = if given.len() > 1 { "s" } else { "" };
            (format!("({list})"), format!(" with parameter{plural} {list}"))
        }
    };
    let or_json = if body == Some("json") {
        " or with a single unnamed json/jsonb parameter"
    } else {
        ""
    };
    let found = match schema.functions.get(name) {
        _ if whole_body.is_some() => None,
        None => hint::closest(name, schema.functions.keys().map(String::as_str), hint::NAME),
        Some(overloads) => {
            let known: Vec<String> = overloads
                .iter()
                .map(|function| {
                    let mut names: Vec<&str> = function.arguments.iter().map(|a| a.name.as_str()).collect();
                    names.sort_unstable();
                    format!("({})", names.join(", "))
                })
                .collect();
            hint::closest(&format!("({list})"), known.iter().map(String::as_str), hint::ANY)
                .map(|arguments| format!("{name}{arguments}"))
        }
    };
    RestError::new(
        StatusCode::NOT_FOUND,
        "PGRST202",
        format!("Could not find the function {function}{shown} in the schema cache"),
    )
    .with_details(format!(
        "Searched for the function {function}{searched}{or_json}, but no matches were found in the schema cache."
    ))
    .with_hint(found.map(|found| format!("Perhaps you meant to call the function {SCHEMA}.{found}")))
    .missing()
}

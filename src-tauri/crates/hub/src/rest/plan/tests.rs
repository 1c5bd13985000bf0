//! Relations, levels and overloads against a small schema; and dice that throw requests at all of it.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::super::parse::{self, Pairs};
use super::super::request::Media;
use super::super::{error::RestError, sql};
use super::read::LISTS_DEPTH_MAX;
use super::sample::schema;
use super::*;

fn reading(table: &str, query: &[(&str, &str)]) -> Result<Node, RestError> {
    let pairs: Vec<(String, String)> = query
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let query = parse::query(&pairs, Pairs::Filters)?;
    read(&schema(), Root::Table(table), &query)
}

fn coded(error: RestError) -> super::super::error::Coded {
    match error {
        RestError::Coded(coded) => *coded,
        RestError::Gate(refusal) => panic!("{refusal:?}"),
    }
}

#[test]
fn relations_are_found_by_table_column_constraint_and_hint() {
    for (table, select, to_one) in [
        ("messages", "users(*)", true),
        ("messages", "username(*)", true),
        ("messages", "messages_username_fkey(*)", true),
        ("messages", "users!username(*)", true),
        ("users", "messages!messages_username_fkey(*)", false),
        ("friends", "users!one(*)", true),
        ("friends", "users!friends_two_fkey(*)", true),
        ("products", "categories(*)", false),
        ("products", "categories!product_categories(*)", false),
        ("parts", "parts(*)", false),
        ("parts", "parent(*)", true),
        ("parts", "children:parts!parent(*)", false),
    ] {
        let node = reading(table, &[("select", select)]).unwrap();
        assert_eq!(node.children[0].is_to_one(), to_one, "{table} {select}");
    }
}

#[test]
fn an_ambiguous_relation_lists_the_ways() {
    let error = coded(reading("friends", &[("select", "users(*)")]).unwrap_err());
    assert_eq!((error.status.as_u16(), error.code.as_str()), (300, "PGRST201"));
    assert_eq!(
        error.hint.as_deref(),
        Some(
            "Try changing 'users' to one of the following: 'users!friends_one_fkey', 'users!friends_two_fkey'. Find \
             the desired relationship in the 'details' key."
        )
    );
    assert_eq!(
        error.details.unwrap()[0],
        serde_json::json!({
            "cardinality": "many-to-one",
            "embedding": "friends with users",
            "relationship": "friends_one_fkey using friends(one) and users(username)",
        })
    );
}

#[test]
fn what_is_not_there_is_named_with_the_closest_that_is() {
    for (table, query, code, hint) in [
        (
            "mesages",
            ("select", "*"),
            "PGRST205",
            Some("Perhaps you meant the table 'public.messages'"),
        ),
        (
            "messages",
            ("select", "user(*)"),
            "PGRST200",
            Some("Perhaps you meant 'users' instead of 'user'."),
        ),
        ("messages", ("select", "nothing"), "42703", None),
        (
            "messages",
            ("users.x", "eq.1"),
            "PGRST108",
            Some("Verify that 'users' is included in the 'select' query parameter."),
        ),
        (
            "messages",
            ("order", "users(x)"),
            "PGRST108",
            Some("Verify that 'users' is included in the 'select' query parameter."),
        ),
        ("messages", ("select", "id.sum()"), "PGRST123", None),
    ] {
        let error = coded(reading(table, &[query]).unwrap_err());
        assert_eq!(
            (error.code.as_str(), error.hint.as_deref()),
            (code, hint),
            "{table} {query:?}"
        );
    }
    let many = coded(reading("users", &[("select", "messages(id)"), ("order", "messages(id)")]).unwrap_err());
    assert_eq!(many.code, "PGRST118");
}

#[test]
fn filters_and_limits_reach_their_level_and_every_level_is_limited() {
    let node = reading(
        "users",
        &[
            ("select", "username,m:messages(id,channels(slug))"),
            ("m.id", "gt.1"),
            ("m.channels.slug", "eq.x"),
            ("m.limit", "2"),
            ("messages", "not.is.null"),
            ("m", "not.is.null"),
        ][..4],
    )
    .unwrap();
    let messages = &node.children[0];
    assert_eq!((messages.conditions.len(), messages.rows.limit()), (1, Some(2)));
    assert_eq!(
        (messages.children[0].conditions.len(), node.rows.limit()),
        (1, Some(ROWS_MAX))
    );
    let empty = reading("users", &[("select", "m:messages()"), ("m", "not.is.null")]).unwrap();
    assert_eq!(
        empty.conditions,
        [Condition::Empty {
            child: 1,
            negated: true
        }]
    );
}

#[test]
fn the_overload_with_exactly_these_arguments_is_called() {
    let schema = schema();
    let pairs = |names: &[&str]| -> Vec<(String, String)> {
        names
            .iter()
            .map(|name| ((*name).to_owned(), "1".to_owned()))
            .collect()
    };
    let choose = |names: &[&str]| choose(&schema, "status", Given::Pairs(&pairs(names)));
    assert_eq!(choose(&["id"]).unwrap().function.arguments[0].name, "id");
    assert_eq!(choose(&["name", "verbose"]).unwrap().function.arguments.len(), 2);
    let both = coded(choose(&["name"]).unwrap_err());
    assert_eq!((both.status.as_u16(), both.code.as_str()), (300, "PGRST203"));
    assert_eq!(
        both.message,
        "Could not choose the best candidate function between: public.status(name => text), public.status(name => \
         text, verbose => boolean)"
    );
    let none = coded(choose(&["nam"]).unwrap_err());
    assert_eq!((none.status.as_u16(), none.code.as_str()), (404, "PGRST202"));
    assert_eq!(
        none.message,
        "Could not find the function public.status(nam) in the schema cache"
    );
    assert_eq!(
        none.hint.as_deref(),
        Some("Perhaps you meant to call the function public.status(name)")
    );
    let body = super::super::request::payload(
        b"[1]",
        "application/json",
        super::super::request::Target::Function,
        true,
    );
    let whole = super::choose(&schema, "whole", Given::Body(&body.unwrap(), None)).unwrap();
    assert!(matches!(whole.arguments, Arguments::Whole(kind, _) if kind == "jsonb"));
}

/// Pieces that requests are made of, good and bad.
const PIECES: [&str; 48] = [
    "id",
    "message",
    "username",
    "users",
    "messages",
    "channels",
    "categories",
    "parts",
    "data",
    "blurb",
    "*",
    "(",
    ")",
    ",",
    ".",
    ":",
    "::",
    "!",
    "->",
    "->>",
    "...",
    "\"",
    "\\",
    "'",
    "$1",
    "{",
    "}",
    "eq",
    "in",
    "is",
    "not",
    "null",
    "and",
    "or",
    "like",
    "fts",
    "(any)",
    "inner",
    "asc",
    "desc",
    "nullslast",
    "count()",
    "-1",
    "0",
    " ",
    "é",
    "\u{0}",
    "text",
];
const NAMES: [&str; 14] = [
    "select",
    "order",
    "limit",
    "offset",
    "or",
    "and",
    "not.or",
    "id",
    "users.id",
    "messages.order",
    "m.limit",
    "columns",
    "on_conflict",
    "data->>x",
];

/// Requests that are nearly right, so that most of the code is reached.
fn thrown(dice: &mut StdRng) -> Vec<(String, String)> {
    const GOOD: [(&str, &str); 10] = [
        ("select", "id,users(username,m:messages!inner(*)),channels!left()"),
        ("select", "*,...channels(slug),u:username(data->a->>0)"),
        ("select", "id::text,d:data->1"),
        ("order", "id.desc.nullslast,users(username)"),
        (
            "or",
            "(id.eq.1,and(message.like.a*,not.or(id.in.(1,2),data->>x.is.null)))",
        ),
        ("users.order", "username"),
        ("id", "not.in.(1,\"2\")"),
        ("users", "not.is.null"),
        ("limit", "3"),
        ("message", "fts(simple).a"),
    ];
    let mut pairs = Vec::new();
    for _ in 0..dice.random_range(1..5) {
        let (name, value) = GOOD.choose(dice).copied().unwrap_or_default();
        let (mut name, mut value) = (name.to_owned(), value.to_owned());
        if dice.random_bool(0.3) {
            NAMES
                .choose(dice)
                .copied()
                .unwrap_or_default()
                .clone_into(&mut name);
        }
        for _ in 0..dice.random_range(0..4) {
            let places: Vec<usize> = (0..=value.len())
                .filter(|place| value.is_char_boundary(*place))
                .collect();
            let place = places.choose(dice).copied().unwrap_or(0);
            if dice.random_bool(0.5) {
                value.insert_str(place, PIECES.choose(dice).copied().unwrap_or_default());
            } else {
                value.truncate(place);
            }
        }
        pairs.push((name, value));
    }
    pairs
}

#[test]
fn no_request_panics_and_every_statement_has_the_parameters_it_names() {
    let schema = schema();
    let (mut dice, mut planned) = (StdRng::seed_from_u64(20_261_121), 0);
    for _ in 0..20_000 {
        let pairs = thrown(&mut dice);
        let Ok(query) = parse::query(&pairs, Pairs::FiltersAndArguments) else {
            continue;
        };
        let Ok(node) = read(&schema, Root::Table("messages"), &query) else {
            continue;
        };
        planned += 1;
        for media in [Media::Json, Media::Csv, Media::Object { stripped: true }] {
            sql::tests::assert_balanced(&sql::read(&node, Some(media), true, Some(5)).unwrap());
        }
        sql::tests::assert_balanced(&sql::planned(&node).unwrap());
    }
    assert!(planned > 2_000, "only {planned} requests got as far as SQL");
}

#[test]
fn the_first_of_two_orders_wins() {
    let node = reading("messages", &[("order", "id.desc"), ("order", "message")]).unwrap();
    assert!(
        matches!(&node.order[..], [OrderBy { by: By::Own(cell), direction: "DESC", .. }] if cell.column == "id")
    );
}

#[test]
fn lists_are_in_each_other_only_so_deep() {
    let nested = |depth: usize| {
        // A part has parts; the part that a part is of is one, and counts for nothing.
        let mut select = "id".to_owned();
        for _ in 0..depth {
            select = format!("id,up:parent(id),p:parts({select})");
        }
        reading("parts", &[("select", select.as_str())])
    };
    for depth in [0, 1, LISTS_DEPTH_MAX] {
        nested(depth).unwrap();
    }
    let error = coded(nested(LISTS_DEPTH_MAX + 1).unwrap_err());
    assert_eq!(error.code, "PGRST100");
    assert!(error.message.contains("lists within lists"), "{}", error.message);
}

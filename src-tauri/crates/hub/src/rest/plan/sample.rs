//! A small schema to plan against without a database: for tests and for the fuzzer.

use super::super::schema::relations::ForeignKey;
use super::super::schema::{Argument, Column, Function, Returns, Schema, Table, Volatility};

fn table(columns: &[(&str, &str)], key: &[&str]) -> Table {
    Table {
        columns: columns
            .iter()
            .map(|(name, kind)| Column {
                name: (*name).to_owned(),
                kind: (*kind).to_owned(),
                default: (*name == "id").then(|| "nextval('s')".to_owned()),
                nullable: true,
            })
            .collect(),
        key: key.iter().map(|name| (*name).to_owned()).collect(),
        computed: vec!["blurb".to_owned()],
        insertable: true,
        updatable: true,
        deletable: true,
    }
}

fn argument(name: &str, kind: &str, required: bool) -> Argument {
    Argument {
        name: name.to_owned(),
        kind: kind.to_owned(),
        required,
        variadic: false,
    }
}

fn function(arguments: Vec<Argument>) -> Function {
    Function {
        arguments,
        returns: Returns::Scalar,
        set: false,
        volatility: Volatility::Stable,
    }
}

/// Messages of users in channels, friends (twice the same table), products in categories, parts of parts.
pub(in super::super) fn schema() -> Schema {
    let mut schema = Schema::default();
    for (name, columns, key) in [
        (
            "users",
            &[("username", "text"), ("data", "jsonb"), ("words", "tsvector")][..],
            &["username"][..],
        ),
        ("channels", &[("id", "bigint"), ("slug", "text")], &["id"]),
        (
            "messages",
            &[
                ("id", "bigint"),
                ("message", "text"),
                ("data", "json"),
                ("username", "text"),
                ("channel_id", "bigint"),
            ],
            &["id"],
        ),
        (
            "friends",
            &[("id", "bigint"), ("one", "text"), ("two", "text")],
            &["id"],
        ),
        ("products", &[("id", "bigint"), ("name", "text")], &["id"]),
        ("categories", &[("id", "bigint"), ("name", "text")], &["id"]),
        (
            "product_categories",
            &[("product_id", "bigint"), ("category_id", "bigint")],
            &["product_id", "category_id"],
        ),
        ("parts", &[("id", "bigint"), ("parent", "bigint")], &["id"]),
    ] {
        schema.tables.insert(name.to_owned(), table(columns, key));
    }
    let key = |from: &str, to: &str, column: &str, other: &str| ForeignKey {
        from: from.to_owned(),
        to: to.to_owned(),
        from_is_view: false,
        to_is_view: false,
        constraint: format!("{from}_{column}_fkey"),
        columns: vec![(column.to_owned(), other.to_owned())],
        unique: false,
    };
    let keys = [
        key("messages", "users", "username", "username"),
        key("messages", "channels", "channel_id", "id"),
        key("friends", "users", "one", "username"),
        key("friends", "users", "two", "username"),
        key("product_categories", "products", "product_id", "id"),
        key("product_categories", "categories", "category_id", "id"),
        key("parts", "parts", "parent", "id"),
    ];
    schema.relate(&keys);
    add_functions(&mut schema);
    schema
}

fn add_functions(schema: &mut Schema) {
    schema.functions.insert(
        "status".to_owned(),
        vec![
            function(vec![argument("name", "text", true)]),
            function(vec![
                argument("name", "text", true),
                argument("verbose", "boolean", false),
            ]),
            function(vec![argument("id", "integer", true)]),
        ],
    );
    schema.functions.insert(
        "whole".to_owned(),
        vec![function(vec![argument("", "jsonb", true)])],
    );
}

//! The grammar by tables: what is read as what, what is refused and with which words.

use super::super::ast::{Embed, Field, Item, Key, Order, Step};
use super::*;
use crate::rest::ast::{Test, Tree};

fn read_as(text: &str, kind: Pairs) -> Result<Query, RestError> {
    let pairs: Vec<(String, String)> = text
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    query(&pairs, kind)
}

fn read(text: &str) -> Result<Query, RestError> {
    read_as(text, Pairs::Filters)
}

fn column(name: &str) -> Field {
    Field {
        column: name.to_owned(),
        path: Vec::new(),
    }
}

/// The one condition of `field=value`.
fn test_of(value: &str) -> (bool, Test) {
    let query = read(&format!("a={value}")).unwrap();
    let (path, filter) = query.filters.first().unwrap();
    assert!(path.is_empty());
    (filter.negated, filter.test.clone())
}

fn operator(sql: &'static str, value: &str) -> Test {
    Test::Operator {
        sql,
        quantifier: None,
        pattern: sql.ends_with("like"),
        value: value.to_owned(),
    }
}

#[test]
fn every_operator_is_known() {
    for (name, sql) in [
        ("eq", "="),
        ("neq", "<>"),
        ("gt", ">"),
        ("gte", ">="),
        ("lt", "<"),
        ("lte", "<="),
        ("like", "like"),
        ("ilike", "ilike"),
        ("match", "~"),
        ("imatch", "~*"),
        ("cs", "@>"),
        ("cd", "<@"),
        ("ov", "&&"),
        ("sl", "<<"),
        ("sr", ">>"),
        ("nxr", "&<"),
        ("nxl", "&>"),
        ("adj", "-|-"),
    ] {
        assert_eq!(
            test_of(&format!("{name}.x.y,(z")),
            (false, operator(sql, "x.y,(z")),
            "{name}"
        );
        assert_eq!(
            test_of(&format!("not.{name}.")),
            (true, operator(sql, "")),
            "{name}"
        );
    }
    for (text, sql) in [
        ("null", "NULL"),
        ("NULL", "NULL"),
        ("not_null", "NOT NULL"),
        ("true", "TRUE"),
        ("false", "FALSE"),
        ("unknown", "UNKNOWN"),
    ] {
        assert_eq!(test_of(&format!("is.{text}")), (false, Test::Is(sql)));
    }
    assert_eq!(test_of("isdistinct.1"), (false, Test::IsDistinct("1".to_owned())));
    for (name, function) in [
        ("fts", "to_tsquery"),
        ("plfts", "plainto_tsquery"),
        ("phfts", "phraseto_tsquery"),
        ("wfts", "websearch_to_tsquery"),
    ] {
        for (text, language) in [
            (format!("{name}.a b"), None),
            (format!("{name}(german).a b"), Some("german")),
        ] {
            let expected = Test::Search {
                function,
                language: language.map(str::to_owned),
                value: "a b".to_owned(),
            };
            assert_eq!(test_of(&text), (false, expected));
        }
    }
    for (text, quantifier) in [("like(any).{a,b}", "ANY"), ("gte(all).{1}", "ALL")] {
        assert!(matches!(test_of(text).1, Test::Operator { quantifier: Some(q), .. } if q == quantifier));
    }
}

#[test]
fn quotes_protect_commas_in_lists() {
    for (text, values) in [
        (r#"in.("a,b",c,"d\"e")"#, vec!["a,b", "c", "d\"e"]),
        ("in.()", vec![""]),
        ("in.(a)", vec!["a"]),
        (r#"in.(a"b,"c"d)"#, vec![r#"a"b"#, r#""c"d"#]),
        ("in.(a b, c)", vec!["a b", " c"]),
    ] {
        let expected = Test::In(values.iter().map(|value| (*value).to_owned()).collect());
        assert_eq!(test_of(text), (false, expected), "{text}");
    }
}

#[test]
fn a_plain_read_is_understood() {
    let query =
        read("select=*&office_id=eq.o1&order=seq.desc.nullslast,id,rel(b->c).asc&limit=5&offset=2").unwrap();
    assert_eq!(query.select, [Item::Star]);
    let orders = &query.order[0].1;
    let first = Order {
        relation: None,
        field: column("seq"),
        direction: "DESC",
        nulls: "NULLS LAST",
    };
    assert_eq!((&orders[0], orders.len()), (&first, 3));
    assert_eq!(orders[2].relation.as_deref(), Some("rel"));
    assert_eq!(query.top(), Rows::of(2, 5));
}

#[test]
fn embedded_relations_nest_and_keep_alias_hint_and_join() {
    let query = read("select=id,a:rel!hint!inner(x::text,...deep(*),other!left()),r2(count)").unwrap();
    let Item::Embed(Embed {
        relation,
        alias,
        hint,
        inner,
        items,
        ..
    }) = &query.select[1]
    else {
        panic!("an embed")
    };
    assert_eq!(
        (relation.as_str(), alias.as_deref(), hint.as_deref(), *inner),
        ("rel", Some("a"), Some("hint"), true)
    );
    assert!(matches!(&items[0], Item::Field { cast: Some(cast), .. } if cast == "text"));
    assert!(matches!(&items[1], Item::Embed(Embed { spread: true, .. })));
    assert!(
        matches!(&items[2], Item::Embed(Embed { inner: false, hint: None, items, .. }) if items.is_empty())
    );
    let reversed = read("select=rel!inner!hint(x)").unwrap();
    assert!(
        matches!(&reversed.select[0], Item::Embed(Embed { inner: true, hint: Some(hint), .. }) if hint == "hint")
    );
}

#[test]
fn levels_of_filters_orders_and_limits_are_kept() {
    let query =
        read("rel.deep.x=eq.1&rel.order=y&rel.deep.limit=3&rel.or=(a.eq.1,b.eq.2)&rel.not.and=(a.eq.1)")
            .unwrap();
    let path = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(query.filters[0].0, path(&["rel", "deep"]));
    assert_eq!(query.order[0].0, path(&["rel"]));
    assert_eq!(query.rows, [(path(&["rel", "deep"]), Rows::of(0, 3))]);
    assert_eq!(query.logic[0].0, path(&["rel"]));
    assert!(matches!(
        &query.logic[1].1,
        Tree::Node {
            negated: true,
            any: false,
            ..
        }
    ));
}

#[test]
fn logic_trees_nest_and_keep_quoted_values_whole() {
    let query =
        read(r#"or=(a.eq."x,(y",and(b.not.gt.2,c.is.null),d.in.(1,2),not.or(e.cs.{1,2},f->>g.eq.h))"#)
            .unwrap();
    let (
        _,
        Tree::Node {
            any: true, members, ..
        },
    ) = &query.logic[0]
    else {
        panic!("a tree")
    };
    assert_eq!(members.len(), 4);
    assert!(matches!(&members[0], Tree::Leaf(filter) if filter.test == operator("=", "x,(y")));
    assert!(matches!(&members[1], Tree::Node { any: false, members, .. }
        if matches!(&members[0], Tree::Leaf(filter) if filter.negated)));
    let Tree::Node {
        negated: true,
        members,
        ..
    } = &members[3]
    else {
        panic!("not.or")
    };
    assert!(matches!(&members[0], Tree::Leaf(filter) if filter.test == operator("@>", "{1,2}")));
    assert!(matches!(&members[1], Tree::Leaf(filter) if filter.field.path.len() == 1));
}

#[test]
fn json_paths_aliases_and_casts_are_read() {
    let query = read("select=n:args->a->>b,seq::text,args->0->-1,\"a:b\",tags->>x-y").unwrap();
    let Item::Field { field, alias, .. } = &query.select[0] else {
        panic!("a field")
    };
    let step = |as_text, key| Step { as_text, key };
    assert_eq!(alias.as_deref(), Some("n"));
    assert_eq!(
        field.path,
        [
            step(false, Key::Name("a".to_owned())),
            step(true, Key::Name("b".to_owned()))
        ]
    );
    assert!(matches!(&query.select[1], Item::Field { cast: Some(cast), .. } if cast == "text"));
    let Item::Field { field, .. } = &query.select[2] else {
        panic!("a field")
    };
    assert_eq!(
        field.path,
        [
            step(false, Key::Index("0".to_owned())),
            step(false, Key::Index("-1".to_owned()))
        ]
    );
    assert!(matches!(&query.select[3], Item::Field { field, alias: None, .. } if field.column == "a:b"));
    assert!(matches!(
        read("select=count()").unwrap().select[0],
        Item::Aggregate
    ));
    assert!(matches!(
        read("select=s:price.sum()::int").unwrap().select[0],
        Item::Aggregate
    ));
}

#[test]
fn pairs_of_a_get_that_are_no_filters_are_arguments() {
    let query = read_as("a=1&b=eq.2&c=gtx&select=x", Pairs::FiltersAndArguments).unwrap();
    assert_eq!(
        query.arguments,
        [
            ("a".to_owned(), "1".to_owned()),
            ("c".to_owned(), "gtx".to_owned())
        ]
    );
    assert_eq!(query.filters.len(), 1);
    assert!(read_as("a=in.x", Pairs::FiltersAndArguments).is_err());
}

#[test]
fn the_first_of_two_selects_and_limits_counts() {
    let query = read("select=a&select=b&limit=1&limit=2").unwrap();
    assert!(matches!(&query.select[..], [Item::Field { field, .. }] if *field == column("a")));
    assert_eq!(query.top(), Rows::of(0, 1));
}

#[test]
fn errors_say_where_and_what_in_postgrests_words() {
    for (text, message, details) in [
        (
            "a=noop.0",
            "\"failed to parse filter (noop.0)\" (line 1, column 1)",
            "unexpected \"n\" expecting operator (eq, gt, ...)",
        ),
        (
            "a=is.maybe",
            "\"failed to parse filter (is.maybe)\" (line 1, column 4)",
            "unexpected \"m\" expecting isVal: (null, not_null, true, false, unknown)",
        ),
        (
            "order=id.ac",
            "\"failed to parse order (id.ac)\" (line 1, column 4)",
            "unexpected \"a\" expecting \"asc\", \"desc\", \"nullsfirst\" or \"nullslast\"",
        ),
        (
            "select=a(b",
            "\"failed to parse select parameter (a(b)\" (line 1, column 4)",
            "unexpected end of input expecting \")\" or \",\"",
        ),
        (
            "or=()",
            "\"failed to parse logic tree (or())\" (line 1, column 4)",
            "unexpected \")\" expecting field name (* or [a..z0..9_$])",
        ),
    ] {
        let RestError::Coded(coded) = read(text).unwrap_err() else {
            panic!("coded")
        };
        assert_eq!(
            (coded.code.as_str(), coded.message.as_str()),
            ("PGRST100", message),
            "{text}"
        );
        assert_eq!(coded.details, Some(details.into()), "{text}");
    }
}

#[test]
fn whatever_cannot_be_read_is_an_error_and_never_a_panic() {
    let deep = format!("or={}a.eq.1{}", "(or".repeat(40) + "(", ")".repeat(41));
    let embedded = format!("select={}*{}", "a(".repeat(40), ")".repeat(40));
    let steps = format!("select=a{}", "->b".repeat(40));
    let many = format!("select={}", "a,".repeat(ITEMS_MAX + 1));
    let wide = format!("or=({}a.eq.1)", "a.eq.1,".repeat(CONDITIONS_MAX + 1));
    for bad in [
        "a=1",
        "a=eq",
        "a=xx.1",
        "a=in.1",
        "a=in.(1",
        "a=is.maybe",
        "or=a.eq.1",
        "or=()",
        "order=a.up",
        "=eq.1",
        "select=\"a",
        "select=a)",
        "select=a(b",
        "a=not.not.eq.1",
        "select=,",
        "columns=",
        "a.=eq.1",
        "select=a:b:c",
        "select=a::",
        "a->=eq.1",
        "order=",
        &deep,
        &embedded,
        &steps,
        &many,
        &wide,
    ] {
        let error = read(bad);
        assert!(
            matches!(&error, Err(error) if error.code() == "PGRST100"),
            "{bad} gave {error:?}"
        );
    }
    for hostile in [
        "ü=eq.ü",
        "a=eq.",
        "select=é::",
        "or=(é)",
        "select=",
        "limit=x",
        "offset=-9999999999999999999999",
    ] {
        drop(read(hostile));
    }
}

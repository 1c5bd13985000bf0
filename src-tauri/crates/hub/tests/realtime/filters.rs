//! The filter grammar of postgres_changes at the wire: thirteen operators, negation, lists, quotes.

use serde_json::json;

use crate::changes::Table;
use crate::support::on_hub;
use crate::wire::{Socket, room};

const COLUMNS: &str =
    "id int primary key, word text, n numeric, flag bool, at timestamptz, tags text[], mixed varchar(20)";
const ROWS: &str = "insert into public.TABLE values
  (1, 'alpha', 1.5, true, '2026-01-01 00:00:00+00', '{a,b}', 'Alpha'),
  (2, 'beta, \"b\"', 10, false, '2026-06-01 00:00:00+00', '{}', null),
  (3, null, null, null, null, null, 'gamma')";

/// Filters, and the ids of the rows that satisfy them.
const CASES: [(&str, &[i64]); 34] = [
    ("id=eq.1", &[1]),
    ("id=neq.1", &[2, 3]),
    ("id=lt.2", &[1]),
    ("id=lte.2", &[1, 2]),
    ("id=gt.2", &[3]),
    ("id=gte.2", &[2, 3]),
    ("id=in.(1,3)", &[1, 3]),
    ("id=not.in.(1,3)", &[2]),
    ("id=not.eq.1", &[2, 3]),
    ("word=eq.alpha", &[1]),
    ("word=neq.alpha", &[2]),
    ("word=not.eq.alpha", &[2]),
    ("word=eq.\"beta, \\\"b\\\"\"", &[2]),
    ("word=in.(alpha,\"beta, \\\"b\\\"\")", &[1, 2]),
    ("word=like.al%", &[1]),
    ("word=not.like.al%", &[2]),
    ("mixed=ilike.al%", &[1]),
    ("mixed=like.al%", &[]),
    ("word=match.^b.*b", &[2]),
    ("mixed=imatch.^A", &[1]),
    ("word=is.null", &[3]),
    ("word=not.is.null", &[1, 2]),
    ("flag=is.true", &[1]),
    ("flag=is.false", &[2]),
    ("flag=is.unknown", &[3]),
    ("flag=eq.true", &[1]),
    ("word=isdistinct.alpha", &[2, 3]),
    ("word=not.isdistinct.alpha", &[1]),
    ("n=gt.2", &[2]),
    ("n=eq.1.50", &[1]),
    ("at=gte.2026-03-01", &[2]),
    ("tags=eq.\"{a,b}\"", &[1]),
    ("id=gt.1,word=is.null", &[3]),
    ("  ", &[1, 2, 3]),
];

#[test]
fn every_operator_chooses_its_rows() {
    on_hub(async |hub| {
        let table = Table::new(&hub, COLUMNS).await;
        let person = hub.person().await;
        let bindings: Vec<_> = CASES
            .iter()
            .map(|(filter, _)| table.binding("INSERT", Some(filter)))
            .collect();
        let (mut socket, ids) = table.followed(&hub, true, &person, json!(bindings)).await;
        table.run(ROWS).await;
        for row in 1..=3 {
            let told = socket.until("postgres_changes").await.payload;
            assert_eq!(told["data"]["record"]["id"], json!(row));
            let matched = told["ids"].as_array().unwrap();
            for ((filter, rows), id) in CASES.iter().zip(&ids) {
                assert_eq!(
                    matched.contains(id),
                    rows.contains(&row),
                    "{filter} for row {row}"
                );
            }
        }
        table.drop().await;
    });
}

#[test]
fn a_delete_is_filtered_by_what_the_replica_identity_has() {
    on_hub(async |hub| {
        let table = Table::new(&hub, "id int primary key, word text").await;
        let person = hub.person().await;
        let bindings = json!([
            table.binding("DELETE", Some("word=eq.a")),
            table.binding("DELETE", Some("id=eq.1"))
        ]);
        let (mut socket, ids) = table.followed(&hub, false, &person, bindings).await;
        table
            .run("insert into public.TABLE values (1, 'a'), (2, 'a')")
            .await;
        table.run("delete from public.TABLE where id = 1").await;
        let told = socket.until("postgres_changes").await.payload;
        assert_eq!(
            told["ids"],
            json!([ids[1]]),
            "the word is not known of a deleted row"
        );
        table
            .run("alter table public.TABLE replica identity full; delete from public.TABLE")
            .await;
        let told = socket.until("postgres_changes").await.payload;
        assert_eq!(told["ids"], json!([ids[0]]));
        table.drop().await;
    });
}

#[test]
fn what_cannot_be_compared_is_said_and_nothing_is_followed() {
    on_hub(async |hub| {
        let table = Table::new(&hub, COLUMNS).await;
        let person = hub.person().await;
        let many = format!("id=in.({})", vec!["1"; 101].join(","));
        for (filter, words) in [
            ("word=foo.hey", r#"Error parsing `filter` params: ["foo", "hey"]"#),
            ("undefined", r#"Error parsing `filter` params: ["undefined"]"#),
            (
                "id=eq.abc",
                "Unable to subscribe to changes with given parameters. An exception happened",
            ),
            ("id=like.a", "An exception happened"),
            ("nosuch=eq.1", "invalid column for filter nosuch"),
            ("word=match.(", "An exception happened"),
            ("word=is.true", "requires a boolean column"),
            ("flag=is.maybe", "invalid value for is filter"),
            (&many, "too many values for `in` filter. Maximum 100"),
            ("id=eq.1,,id=eq.2", "filter must not contain empty segments"),
            ("id=eq.1); drop table public.offices; --", "An exception happened"),
        ] {
            let mut socket = Socket::open(&hub, true).await;
            let (_, name) = room();
            let config = json!({"postgres_changes": [table.binding("*", Some(filter))]});
            socket.joined(&name, &person.token, config).await;
            let system = socket.until("system").await;
            assert_eq!(system.payload["status"], "error", "{filter}");
            assert!(system.reason().contains(words), "{filter}: {system:?}");
            assert_eq!(system.payload["extension"], "postgres_changes");
        }
        table.drop().await;
    });
}

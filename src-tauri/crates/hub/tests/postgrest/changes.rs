//! Inserts, upserts, updates, deletes, PUT. Each test has rows of its own, in tables whose rows nobody else counts.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{TestHub, on_hub};
use crate::table::{Answered, ask, get, ready, send};

async fn write(hub: &TestHub, method: Method, path: &str, prefer: &str, body: Value) -> Answered {
    send(ask(hub, method, path).header("prefer", prefer).json(&body)).await
}

#[test]
fn rows_are_inserted_one_by_one_and_many_at_once() {
    on_hub(async |hub| {
        ready(&hub).await;
        let post =
            async |path: &str, prefer: &str, body: Value| write(&hub, Method::POST, path, prefer, body).await;
        let one = post(
            "pt_notes?select=id,body",
            "return=representation",
            json!({"id": 100}),
        )
        .await;
        assert_eq!(
            (one.status, &one.body),
            (201, &json!([{"id": 100, "body": "none"}]))
        );
        assert_eq!(one.header("preference-applied"), "return=representation");
        let quiet = post(
            "pt_notes",
            "",
            json!([{"id": 101, "body": "a"}, {"id": 102, "body": "b"}]),
        )
        .await;
        assert_eq!(
            (quiet.status, &quiet.body, quiet.header("content-range")),
            (201, &json!(""), "*/*")
        );
        let placed = post("pt_notes", "return=headers-only,count=exact", json!({"id": 103})).await;
        assert_eq!(
            (placed.header("location"), placed.header("content-range")),
            ("/pt_notes?id=eq.103", "*/1")
        );
        let digits = r#"{"id":104,"amount":12345678901234567890.123456789}"#;
        let exact =
            ask(&hub, Method::POST, "pt_notes?select=amount").header("prefer", "return=representation");
        let exact = exact
            .header("content-type", "application/json")
            .body(digits)
            .send()
            .await
            .unwrap();
        assert_eq!(
            exact.text().await.unwrap(),
            r#"[{"amount":12345678901234567890.123456789}]"#
        );
        let odd = post(
            "pt_notes?select=\"odd column\"",
            "return=representation",
            json!({"id": 105, "odd column": "o"}),
        )
        .await;
        assert_eq!(odd.body, json!([{"odd column": "o"}]));
        for (body, code) in [
            (json!({"id": 100}), (409, "23505")),
            (json!({"id": 190, "amount": -1}), (400, "23514")),
            (json!({"id": 191, "body": null}), (400, "23502")),
            (json!({"id": "x"}), (400, "22P02")),
            (json!({"id": 192, "nothing": 1}), (400, "PGRST204")),
            (json!([{"id": 193}, {"id": 194, "body": "x"}]), (400, "PGRST102")),
        ] {
            let answered = post("pt_notes", "return=representation", body.clone()).await;
            assert_eq!(answered.code(), code, "{body}: {}", answered.body);
        }
        let foreign = post("pt_messages", "", json!({"id": 900, "author": "nobody"})).await;
        assert_eq!(foreign.code(), (409, "23503"));
        assert_eq!(get(&hub, "pt_notes?id=gte.190&id=lt.200").await, json!([]));
        let broken = ask(&hub, Method::POST, "pt_notes")
            .header("content-type", "application/json")
            .body("{\"id\":");
        assert_eq!(send(broken).await.code(), (400, "PGRST102"));
    });
}

#[test]
fn named_columns_are_the_only_ones_written_and_what_is_missing_may_be_a_default() {
    on_hub(async |hub| {
        ready(&hub).await;
        let post =
            async |path: &str, prefer: &str, body: Value| write(&hub, Method::POST, path, prefer, body).await;
        let rows = json!([{"id": 200, "odd column": "x"}, {"id": 201, "body": "b", "nothing": 1}]);
        let columns = "pt_notes?columns=\"id\",\"body\"&select=id,body&order=id";
        let null = post(columns, "return=representation", rows.clone()).await;
        assert_eq!(null.code(), (400, "23502"), "missing is null");
        let default = post(columns, "return=representation,missing=default", rows).await;
        assert_eq!(
            (default.status, &default.body),
            (
                201,
                &json!([{"id": 200, "body": "none"}, {"id": 201, "body": "b"}])
            )
        );
        assert_eq!(
            default.header("preference-applied"),
            "missing=default, return=representation"
        );
        let unknown = post("pt_notes?columns=id,nothing", "", json!([{"id": 1}])).await;
        assert_eq!(unknown.code(), (400, "PGRST204"));
        let identity = post(
            "pt_channels?columns=id,slug&select=slug",
            "return=representation,missing=default",
            json!([{"slug": "made-1"}]),
        )
        .await;
        assert!(
            identity.status == 201 || identity.code() == (409, "23505"),
            "{}",
            identity.body
        );
        let csv = ask(&hub, Method::POST, "pt_notes?select=id,body&order=id")
            .header("prefer", "return=representation");
        let csv = csv
            .header("content-type", "text/csv")
            .body("id,body\n210,\"a, b\"\n211,c\n");
        assert_eq!(
            send(csv).await.body,
            json!([{"id": 210, "body": "a, b"}, {"id": 211, "body": "c"}])
        );
        let empty = post("pt_notes", "return=representation", json!([])).await;
        assert_eq!((empty.status, empty.body), (201, json!([])));
    });
}

#[test]
fn a_row_that_is_there_is_merged_or_left_alone() {
    on_hub(async |hub| {
        ready(&hub).await;
        let post =
            async |path: &str, prefer: &str, body: Value| write(&hub, Method::POST, path, prefer, body).await;
        const MERGE: &str = "return=representation,resolution=merge-duplicates";
        const IGNORE: &str = "return=representation,resolution=ignore-duplicates";
        let row = |what: &str| json!([{"owner": "o1", "slot": 1, "what": what}]);
        assert_eq!(post("pt_items", MERGE, row("a")).await.status, 201);
        let merged = post("pt_items", MERGE, row("b")).await;
        assert_eq!((merged.status, merged.body), (200, row("b")), "nothing new");
        let both = json!([{"owner": "o1", "slot": 1, "what": "c"}, {"owner": "o1", "slot": 2, "what": "d"}]);
        assert_eq!(post("pt_items", MERGE, both).await.status, 201, "one is new");
        let ignored = post("pt_items", IGNORE, row("z")).await;
        assert_eq!((ignored.status, &ignored.body), (201, &json!([])));
        assert_eq!(
            ignored.header("preference-applied"),
            "resolution=ignore-duplicates, return=representation"
        );
        let by_slug = async |prefer: &str| {
            post(
                "pt_channels?on_conflict=slug&select=slug",
                prefer,
                json!([{"id": 77, "slug": "quiet"}]),
            )
            .await
        };
        assert_eq!(by_slug(IGNORE).await.body, json!([]));
        assert_eq!(by_slug("return=minimal").await.code(), (409, "23505"));
        let nowhere = post("pt_items?on_conflict=what", MERGE, row("x")).await;
        assert_eq!(nowhere.code(), (400, "42P10"), "no key there");
        assert_eq!(
            get(&hub, "pt_items?owner=eq.o1&select=what&order=slot").await,
            json!([{"what": "c"}, {"what": "d"}])
        );
    });
}

#[test]
fn rows_are_updated_and_deleted_by_their_filters() {
    on_hub(async |hub| {
        ready(&hub).await;
        let rows = json!([{"id": 300, "body": "a"}, {"id": 301, "body": "a"}, {"id": 302, "body": "b"}]);
        assert_eq!(write(&hub, Method::POST, "pt_notes", "", rows).await.status, 201);
        let patch = async |path: &str, prefer: &str, body: Value| {
            write(&hub, Method::PATCH, path, prefer, body).await
        };
        const OURS: &str = "pt_notes?id=gte.300&id=lt.400";
        let quiet = patch(&format!("{OURS}&body=eq.a"), "count=exact", json!({"amount": 5})).await;
        assert_eq!((quiet.status, quiet.header("content-range")), (204, "0-1/2"));
        let shown = patch(
            &format!("{OURS}&or=(body.eq.b)&select=id,amount"),
            "return=representation",
            json!({"amount": 7}),
        )
        .await;
        assert_eq!(
            (shown.status, shown.body),
            (200, json!([{"id": 302, "amount": 7}]))
        );
        let none = patch(
            "pt_notes?id=eq.399",
            "return=representation",
            json!({"amount": 1}),
        )
        .await;
        assert_eq!((none.status, none.body), (200, json!([])));
        assert_eq!(
            patch("pt_notes", "", json!({"amount": 1})).await.code(),
            (400, "21000"),
            "all rows"
        );
        assert_eq!(
            patch("pt_notes?id=eq.300", "return=representation", json!({}))
                .await
                .body,
            json!([])
        );
        let default = patch(
            "pt_notes?id=eq.300&columns=body&select=body",
            "return=representation,missing=default",
            json!({}),
        )
        .await;
        assert_eq!(default.body, json!([{"body": "none"}]));
        let object = ask(&hub, Method::PATCH, OURS)
            .header("prefer", "return=representation")
            .header("accept", "application/vnd.pgrst.object+json")
            .json(&json!({"amount": 99}));
        assert_eq!(send(object).await.code(), (406, "PGRST116"));
        let kept = get(&hub, &format!("{OURS}&select=amount&order=id")).await;
        assert_eq!(
            kept,
            json!([{"amount": 5}, {"amount": 5}, {"amount": 7}]),
            "rolled back"
        );
    });
}

#[test]
fn no_more_rows_are_deleted_than_were_allowed() {
    on_hub(async |hub| {
        ready(&hub).await;
        const OURS: &str = "pt_notes?id=gte.400&id=lt.500";
        let rows = json!([{"id": 400}, {"id": 401}, {"id": 402}]);
        assert_eq!(
            write(&hub, Method::POST, "pt_notes", "", rows.clone())
                .await
                .status,
            201
        );
        let delete = async |path: &str, prefer: &str| {
            send(ask(&hub, Method::DELETE, path).header("prefer", prefer)).await
        };
        let many = delete(OURS, "handling=strict,max-affected=2").await;
        assert_eq!(many.code(), (400, "PGRST124"));
        assert_eq!(many.body["details"], json!("The query affects 3 rows"));
        assert_eq!(
            delete(OURS, "handling=strict,nonsense").await.code(),
            (400, "PGRST122")
        );
        let left = get(&hub, &format!("{OURS}&select=id&order=id")).await;
        assert_eq!(left, rows, "rolled back");
        assert_eq!(delete("pt_notes", "").await.code(), (400, "21000"));
        let gone = delete("pt_notes?id=eq.400&select=id", "return=representation").await;
        assert_eq!((gone.status, gone.body), (200, json!([{"id": 400}])));
        let gone = delete(OURS, "count=exact,handling=strict,max-affected=2").await;
        assert_eq!((gone.status, gone.header("content-range")), (204, "*/2"));
        assert_eq!(
            gone.header("preference-applied"),
            "count=exact, handling=strict, max-affected=2"
        );
    });
}

#[test]
fn put_writes_the_one_row_that_its_address_names() {
    on_hub(async |hub| {
        ready(&hub).await;
        let put =
            async |path: &str, prefer: &str, body: Value| write(&hub, Method::PUT, path, prefer, body).await;
        const AT: &str = "pt_items?owner=eq.put&slot=eq.1";
        let row = |what: &str| json!({"owner": "put", "slot": 1, "what": what});
        let made = put(AT, "return=representation", row("a")).await;
        assert_eq!((made.status, made.body), (201, json!([row("a")])));
        assert_eq!(put(AT, "return=representation", row("b")).await.status, 200);
        assert_eq!(put(AT, "", row("c")).await.status, 204);
        assert_eq!(
            put("pt_items?owner=eq.put&slot=eq.2", "", row("d")).await.code(),
            (400, "PGRST115")
        );
        assert_eq!(
            put("pt_items?owner=eq.put", "", row("d")).await.code(),
            (405, "PGRST105")
        );
        assert_eq!(
            put(&format!("{AT}&limit=1"), "", row("d")).await.code(),
            (400, "PGRST114")
        );
        assert_eq!(get(&hub, "pt_items?owner=eq.put").await, json!([row("c")]));
    });
}

#[test]
fn what_was_changed_is_given_back_with_what_belongs_to_it() {
    on_hub(async |hub| {
        ready(&hub).await;
        let path = "pt_letters?select=body,pt_writers(name),pt_tags(name),pt_opening";
        let made = write(
            &hub,
            Method::POST,
            path,
            "return=representation",
            json!({"id": 1, "body": "newest", "author": "dee"}),
        )
        .await;
        let letter =
            json!([{"body": "newest", "pt_opening": "new", "pt_writers": {"name": "dee"}, "pt_tags": []}]);
        assert_eq!((made.status, made.body), (201, letter));
        let path = "pt_letters?id=eq.1&select=id,pt_writers!inner(name)";
        let gone = send(ask(&hub, Method::DELETE, path).header("prefer", "return=representation")).await;
        assert_eq!(gone.body, json!([{"id": 1, "pt_writers": {"name": "dee"}}]));
    });
}

//! Relations embedded in rows.

use reqwest::Method;
use serde_json::json;

use crate::support::on_hub;
use crate::table::{ask, get, ready, refused, send};

#[test]
fn related_rows_stand_in_the_row_they_belong_to() {
    on_hub(async |hub| {
        ready(&hub).await;
        for (path, expected) in [
            (
                "pt_messages?select=id,pt_users(name)&id=eq.1",
                json!([{"id": 1, "pt_users": {"name": "ann"}}]),
            ),
            (
                "pt_users?select=name,pt_messages(id)&order=name&pt_messages.order=id",
                json!([
                    {"name": "ann", "pt_messages": [{"id": 1}, {"id": 2}]},
                    {"name": "bob", "pt_messages": [{"id": 3}, {"id": 4}]},
                    {"name": "cy", "pt_messages": []},
                ]),
            ),
            (
                "pt_channels?select=id,pt_details(note)&order=id&limit=2",
                json!([{"id": 1, "pt_details": {"note": "for all"}}, {"id": 2, "pt_details": null}]),
            ),
            (
                "pt_messages?select=id,tags:pt_tags(name)&id=lte.2&order=id&tags.order=name",
                json!([
                    {"id": 1, "tags": [{"name": "blue"}, {"name": "red"}]},
                    {"id": 2, "tags": [{"name": "red"}]},
                ]),
            ),
            (
                "pt_friends?select=id,first:pt_users!pt_friends_one_fkey(name),second:two(name)&order=id&limit=1",
                json!([{"id": 1, "first": {"name": "ann"}, "second": {"name": "bob"}}]),
            ),
            (
                "pt_parts?select=id,up:parent(id),down:pt_parts!parent(id)&id=eq.2",
                json!([{"id": 2, "up": {"id": 1}, "down": [{"id": 4}]}]),
            ),
            (
                "pt_users?select=name,pt_messages(id,pt_channels(slug,pt_details(note)))&name=eq.ann&pt_messages.id=eq.1",
                json!([{"name": "ann", "pt_messages": [
                    {"id": 1, "pt_channels": {"slug": "public", "pt_details": {"note": "for all"}}}]}]),
            ),
            (
                "pt_users?select=name,pt_recent(id)&name=eq.ann&pt_recent.limit=1",
                json!([{"name": "ann", "pt_recent": [{"id": 2}]}]),
            ),
            (
                "pt_online?select=who,pt_messages(id)&order=who&limit=1&pt_messages.order=id.desc",
                json!([{"who": "ann", "pt_messages": [{"id": 2}, {"id": 1}]}]),
            ),
            (
                "pt_messages?select=id,pt_online(who)&order=id&id=in.(1,3)",
                json!([{"id": 1, "pt_online": {"who": "ann"}}, {"id": 3, "pt_online": null}]),
            ),
        ] {
            assert_eq!(get(&hub, path).await, expected, "{path}");
        }
    });
}

#[test]
fn inner_joins_and_emptiness_choose_the_rows_and_the_count() {
    on_hub(async |hub| {
        ready(&hub).await;
        for (path, ids) in [
            ("select=id,pt_channels!inner(slug)", "1 2 3"),
            (
                "select=id,pt_channels!inner(slug)&pt_channels.slug=eq.public",
                "1 3",
            ),
            (
                "select=id,pt_channels!left(slug)&pt_channels.slug=eq.public",
                "1 2 3 4",
            ),
            ("select=id,pt_tags!inner(name)&pt_tags.name=eq.blue", "1"),
            ("select=id,pt_tags()&pt_tags=is.null", "3 4"),
            ("select=id,c:pt_channels()&c=not.is.null", "1 2 3"),
            (
                "select=id,pt_channels(),pt_tags()&or=(pt_channels.is.null,pt_tags.not.is.null)",
                "1 2 4",
            ),
            (
                "select=id,pt_users!inner(name,pt_friends!pt_friends_one_fkey!inner(id))&pt_users.pt_friends.id=eq.1",
                "1 2",
            ),
            // Asked about in several places.
            (
                "select=id,pt_tags()&or=(pt_tags.is.null,id.eq.1,pt_tags.is.null)",
                "1 3 4",
            ),
            (
                "select=id,pt_channels!inner(slug)&pt_channels=not.is.null&pt_channels.slug=eq.public",
                "1 3",
            ),
            (
                "select=id,pt_tags!inner(id,pt_messages())&pt_tags.pt_messages.id=eq.2\
                 &pt_tags.or=(pt_messages.not.is.null,pt_messages.not.is.null)",
                "1 2",
            ),
        ] {
            let request = ask(&hub, Method::GET, &format!("pt_messages?{path}&order=id"));
            let answered = send(request.header("prefer", "count=exact")).await;
            let rows = answered
                .body
                .as_array()
                .unwrap_or_else(|| panic!("{path}: {}", answered.body));
            let found: Vec<String> = rows.iter().map(|row| row["id"].to_string()).collect();
            assert_eq!(found.join(" "), ids, "{path}");
            let total = answered.header("content-range").rsplit('/').next().unwrap();
            assert_eq!(total, found.len().to_string(), "{path}");
        }
    });
}

#[test]
fn a_spread_relation_stands_beside_the_columns() {
    on_hub(async |hub| {
        ready(&hub).await;
        assert_eq!(
            get(
                &hub,
                "pt_messages?select=id,...pt_channels(slug,...pt_details(note))&id=lte.2&order=id"
            )
            .await,
            json!([{"id": 1, "slug": "public", "note": "for all"}, {"id": 2, "slug": "random", "note": null}])
        );
        assert_eq!(
            get(
                &hub,
                "pt_users?select=name,...pt_messages(ids:id,body)&order=name&pt_messages.order=id.desc"
            )
            .await[0],
            json!({"name": "ann", "ids": [2, 1], "body": ["second, \"quoted\"", "hello world"]})
        );
        assert_eq!(
            get(
                &hub,
                "pt_messages?select=body,...pt_tags(*)&id=eq.1&pt_tags.order=id"
            )
            .await,
            json!([{"body": "hello world", "id": [1, 2], "name": ["red", "blue"]}])
        );
    });
}

#[test]
fn rows_are_ordered_by_what_is_embedded() {
    on_hub(async |hub| {
        ready(&hub).await;
        let rows = get(
            &hub,
            "pt_messages?select=id,pt_channels(slug)&order=pt_channels(slug).desc.nullslast,id",
        )
        .await;
        let ids: Vec<i64> = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["id"].as_i64().unwrap())
            .collect();
        assert_eq!(ids, [2, 1, 3, 4]);
        assert_eq!(
            refused(&hub, "pt_users?select=name,pt_messages(id)&order=pt_messages(id)").await,
            (400, "PGRST118".to_owned())
        );
        assert_eq!(
            refused(&hub, "pt_users?order=pt_messages(id)").await,
            (400, "PGRST108".to_owned())
        );
    });
}

#[test]
fn what_cannot_be_embedded_is_explained() {
    on_hub(async |hub| {
        ready(&hub).await;
        let several = send(ask(&hub, Method::GET, "pt_friends?select=*,pt_users(*)")).await;
        assert_eq!(several.code(), (300, "PGRST201"));
        assert_eq!(
            several.body["details"][0],
            json!({
                "cardinality": "many-to-one",
                "embedding": "pt_friends with pt_users",
                "relationship": "pt_friends_one_fkey using pt_friends(one) and pt_users(name)",
            })
        );
        let none = send(ask(&hub, Method::GET, "pt_users?select=*,pt_tags(*)")).await;
        assert_eq!(none.code(), (400, "PGRST200"));
        assert_eq!(
            none.body["details"],
            json!(
                "Searched for a foreign key relationship between 'pt_users' and 'pt_tags' in the schema 'public', but no \
             matches were found."
            )
        );
        assert_eq!(
            refused(&hub, "pt_users?pt_messages.id=eq.1").await,
            (400, "PGRST108".to_owned())
        );
        assert_eq!(
            refused(&hub, "pt_users?select=name,users(*)").await.1,
            "PGRST200",
            "auth is not exposed"
        );
    });
}

#[test]
fn asking_two_hundred_times_at_each_level_costs_no_more_than_asking_once() {
    on_hub(async |hub| {
        ready(&hub).await;
        let often = |name: &str| vec![format!("{name}.is.null"); 200].join(",");
        let (up, down) = (often("pt_users"), often("pt_messages"));
        let path = format!(
            "pt_messages?select=id,pt_users(pt_messages(pt_users()))&or=({up})&pt_users.or=({down})\
             &pt_users.pt_messages.or=({up})"
        );
        for count in ["exact", "planned", "estimated"] {
            let request = ask(&hub, Method::GET, &path).header("prefer", format!("count={count}"));
            let answered = send(request).await;
            // Every message has its author. A guess may be that there are more rows than that: then it is a part.
            assert_eq!(answered.body, json!([]), "{count}");
            assert!(
                [200, 206].contains(&answered.status),
                "{count}: {}",
                answered.status
            );
        }
    });
}

#[test]
fn rows_that_the_caller_may_not_see_are_neither_embedded_nor_counted_nor_found() {
    on_hub(async |hub| {
        ready(&hub).await;
        assert_eq!(
            get(&hub, "pt_channels?select=id,pt_guarded(said)&id=lte.2&order=id").await,
            json!([{"id": 1, "pt_guarded": [{"said": "open"}]}, {"id": 2, "pt_guarded": []}])
        );
        let inner = ask(&hub, Method::GET, "pt_channels?select=id,pt_guarded!inner(id)");
        let inner = send(inner.header("prefer", "count=exact")).await;
        assert_eq!((inner.status, inner.header("content-range")), (200, "0-0/1"));
        for filter in ["said=eq.hidden", "id=eq.2", "or=(said.like.h*,id.gt.1)"] {
            assert_eq!(
                get(&hub, &format!("pt_guarded?{filter}")).await,
                json!([]),
                "{filter}"
            );
        }
        let through = "pt_channels?select=id,pt_guarded()&pt_guarded=not.is.null&pt_guarded.said=eq.hidden";
        assert_eq!(get(&hub, through).await, json!([]));
        let locked = send(ask(&hub, Method::GET, "pt_channels?select=id,pt_locked(id)")).await;
        assert_eq!(locked.code(), (401, "42501"));
        assert_eq!(locked.header("www-authenticate"), "Bearer");
        let change = ask(&hub, Method::PATCH, "pt_guarded?id=gt.0")
            .header("prefer", "return=representation,count=exact");
        let change = send(change.json(&json!({"said": "open"}))).await;
        assert_eq!(
            (change.status, &change.body),
            (200, &json!([])),
            "nothing it may update"
        );
    });
}

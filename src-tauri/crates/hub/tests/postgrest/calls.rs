//! Functions: arguments, overloads, results, what they see and what they may say.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Person, TestHub, on_hub};
use crate::table::{Answered, ask, get, ready, refused, send};

async fn call(hub: &TestHub, name: &str, body: Value) -> Answered {
    send(ask(hub, Method::POST, &format!("rpc/{name}")).json(&body)).await
}

#[test]
fn arguments_get_in_by_name_by_body_and_by_query() {
    on_hub(async |hub| {
        ready(&hub).await;
        for (name, body, result) in [
            ("pt_add", json!({"a": 2}), json!(3)),
            ("pt_add", json!({"a": 2, "b": 5}), json!(7)),
            ("pt_glue", json!({"words": ["x", "y,z"]}), json!("x-y,z")),
            ("pt_whole", json!({"any": ["thing"]}), json!({"any": ["thing"]})),
            (
                "pt_whole",
                json!([{"a": 1}, {"a": 2}]),
                json!([{"a": 1}, {"a": 2}]),
            ),
            ("pt_numbers", json!({}), json!([1, 2, 3])),
            (
                "pt_pairs",
                json!({}),
                json!([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
            ),
            ("pt_first?select=id", json!({}), json!({"id": 1})),
            (
                "pt_messages_of?select=id,pt_users(name)&id=gt.1",
                json!({"who": "ann"}),
                json!([{"id": 2, "pt_users": {"name": "ann"}}]),
            ),
        ] {
            let answered = call(&hub, name, body.clone()).await;
            assert_eq!((answered.status, answered.body), (200, result), "{name} {body}");
        }
        for (path, result) in [
            ("rpc/pt_add?a=2&b=3", json!(5)),
            ("rpc/pt_glue?words=a&words=b%20c", json!("a-b c")),
            (
                "rpc/pt_messages_of?who=ann&id=eq.2&select=body",
                json!([{"body": "second, \"quoted\""}]),
            ),
            ("rpc/pt_numbers?limit=2&offset=1", json!([2, 3])),
            ("rpc/pt_pairs?b=eq.y&select=a", json!([{"a": 2}])),
            ("rpc/pt_pairs?order=a.desc&limit=1", json!([{"a": 2, "b": "y"}])),
        ] {
            assert_eq!(get(&hub, path).await, result, "{path}");
        }
        let raw = async |name: &str, kind: &str, body: Vec<u8>| {
            send(
                ask(&hub, Method::POST, &format!("rpc/{name}"))
                    .header("content-type", kind)
                    .body(body),
            )
            .await
            .body
        };
        assert_eq!(raw("pt_text", "text/plain", b"abc".to_vec()).await, json!("ABC"));
        assert_eq!(
            raw("pt_bytes", "application/octet-stream", vec![0, 255, 92]).await,
            json!(3)
        );
        assert_eq!(
            raw("pt_add", "application/x-www-form-urlencoded", b"a=4&b=4".to_vec()).await,
            json!(8)
        );
        let void = send(ask(&hub, Method::POST, "rpc/pt_nothing")).await;
        assert_eq!((void.status, void.body), (204, json!("")));
    });
}

#[test]
fn a_page_of_a_function_is_counted_like_one_of_a_table() {
    on_hub(async |hub| {
        ready(&hub).await;
        let page = send(
            ask(&hub, Method::GET, "rpc/pt_messages_of?who=ann&limit=1").header("prefer", "count=exact"),
        )
        .await;
        assert_eq!((page.status, page.header("content-range")), (206, "0-0/2"));
        let object = ask(&hub, Method::POST, "rpc/pt_messages_of?id=eq.1").json(&json!({"who": "ann"}));
        let object = send(object.header("accept", "application/vnd.pgrst.object+json")).await;
        assert_eq!((object.status, &object.body["id"]), (200, &json!(1)));
        let csv = send(ask(&hub, Method::GET, "rpc/pt_pairs").header("accept", "text/csv")).await;
        assert_eq!(csv.body, json!("a,b\n1,x\n2,y"));
        let head = ask(&hub, Method::HEAD, "rpc/pt_pairs")
            .header("prefer", "count=exact")
            .send()
            .await
            .unwrap();
        assert_eq!(
            (
                head.status().as_u16(),
                head.headers()["content-range"].to_str().unwrap()
            ),
            (200, "0-1/2")
        );
    });
}

#[test]
fn a_function_that_is_not_there_or_not_one_is_explained() {
    on_hub(async |hub| {
        ready(&hub).await;
        let none = call(&hub, "pt_add", json!({"a": 1, "c": 2})).await;
        assert_eq!(none.code(), (404, "PGRST202"));
        assert_eq!(
            none.body["message"],
            json!("Could not find the function public.pt_add(a, c) in the schema cache")
        );
        assert_eq!(
            none.body["details"],
            json!(
                "Searched for the function public.pt_add with parameters a, c or with a single unnamed json/jsonb parameter, \
             but no matches were found in the schema cache."
            )
        );
        assert_eq!(
            none.body["hint"],
            json!("Perhaps you meant to call the function public.pt_add(a, b)")
        );
        let name = call(&hub, "pt_ad", json!({})).await;
        assert_eq!(
            name.body["message"],
            json!("Could not find the function public.pt_ad without parameters in the schema cache")
        );
        let both = call(&hub, "pt_twice", json!({"a": 1})).await;
        assert_eq!(both.code(), (300, "PGRST203"));
        assert_eq!(
            both.body["message"],
            json!(
                "Could not choose the best candidate function between: public.pt_twice(a => integer), \
             public.pt_twice(a => text)"
            )
        );
    });
}

#[test]
fn a_get_changes_nothing_and_a_post_does() {
    on_hub(async |hub| {
        ready(&hub).await;
        assert_eq!(
            refused(&hub, "rpc/pt_write?what=abc").await,
            (405, "25006".to_owned())
        );
        let written = call(&hub, "pt_write?select=id", json!({"what": "abc"})).await;
        assert_eq!((written.status, written.body), (200, json!([{"id": 903}])));
        let strict =
            ask(&hub, Method::POST, "rpc/pt_write").header("prefer", "handling=strict,max-affected=0");
        assert_eq!(
            send(strict.json(&json!({"what": "abcd"}))).await.code(),
            (400, "PGRST124")
        );
        assert_eq!(get(&hub, "pt_notes?id=eq.904").await, json!([]), "rolled back");
        let scalar = ask(&hub, Method::POST, "rpc/pt_add").header("prefer", "handling=strict,max-affected=1");
        assert_eq!(
            send(scalar.json(&json!({"a": 1}))).await.code(),
            (400, "PGRST128")
        );
    });
}

#[test]
fn a_function_says_its_own_errors_status_and_headers() {
    on_hub(async |hub| {
        ready(&hub).await;
        for (code, status) in [
            ("P0001", 400),
            ("PT409", 409),
            ("PT418", 418),
            ("23505", 409),
            ("42501", 401),
            ("40001", 500),
        ] {
            let answered = call(&hub, "pt_fail", json!({"code": code, "said": "no"})).await;
            assert_eq!(answered.status, status, "{code}");
            assert_eq!(
                answered.body,
                json!({"code": code, "message": "no", "details": "the detail", "hint": "the hint"})
            );
            assert_eq!(
                answered.header("www-authenticate"),
                if status == 401 { "Bearer" } else { "" }
            );
        }
        let person = hub.person().await;
        let known = hub
            .rpc(&person, "pt_fail", json!({"code": "42501", "said": "no"}))
            .await;
        assert_eq!(known.0, 403);
        let own = call(&hub, "pt_own_answer", json!({})).await;
        assert_eq!((own.status, own.header("x-price")), (402, "7"));
        assert_eq!(
            own.body,
            json!({"code": "X1", "message": "pay first", "details": "d", "hint": "h"})
        );
        let tea = call(&hub, "pt_teapot", json!({})).await;
        assert_eq!(
            (tea.status, tea.header("x-tea"), &tea.body),
            (418, "green", &json!("short"))
        );
    });
}

#[test]
fn a_function_sees_who_asks_and_how_and_the_next_request_sees_nothing_of_it() {
    on_hub(async |hub| {
        ready(&hub).await;
        let person = hub.person().await;
        let seen = async |who: &Person, method: Method, prefer: &str| {
            let request = hub
                .request(who, method, "/rest/v1/rpc/pt_seen")
                .header("x-probe", "p'1");
            send(request.header("cookie", "a=b; c=d").header("prefer", prefer))
                .await
                .body
        };
        let mine = seen(&person, Method::GET, "timezone=Asia/Seoul").await;
        assert_eq!(
            mine,
            json!({
            "role": "authenticated", "method": "GET", "path": "/rpc/pt_seen", "probe": "p'1", "cookie": "b",
            "claim": "authenticated", "zone": "Asia/Seoul", "read_only": "on"})
        );
        let anon = seen(&hub.anon(), Method::POST, "").await;
        assert_eq!((&anon["role"], &anon["method"]), (&json!("anon"), &json!("POST")));
        assert_ne!(anon["zone"], json!("Asia/Seoul"));
        let bad = ask(&hub, Method::GET, "rpc/pt_seen").header("prefer", "timezone=Nowhere/Land");
        assert_eq!(send(bad).await.status, 400);
    });
}

#[test]
fn a_statement_that_takes_too_long_is_ended() {
    on_hub(async |hub| {
        ready(&hub).await;
        let slow = call(&hub, "pt_slow", json!({})).await;
        assert_eq!(slow.code(), (500, "57014"));
    });
}

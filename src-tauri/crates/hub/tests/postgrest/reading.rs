//! Columns, filters, orders, pages, forms of an answer.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{TestHub, on_hub};
use crate::table::{ask, get, ready, refused, send, until};

async fn names(hub: &TestHub, filter: &str) -> Vec<String> {
    let rows = get(hub, &format!("pt_users?select=name&order=name&{filter}")).await;
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn columns_can_be_chosen_renamed_cast_and_looked_into() {
    on_hub(async |hub| {
        ready(&hub).await;
        assert_eq!(
            get(&hub, "pt_users?select=who:name,age:data->age,data->home->>city,data->list->1->>x,ages::text&name=eq.ann").await,
            json!([{"who": "ann", "age": 30, "city": "Rome", "x": "y", "ages": "[1,5)"}])
        );
        assert_eq!(
            get(&hub, "pt_messages?select=id,pt_blurb&id=eq.1").await,
            json!([{"id": 1, "pt_blurb": "hel"}]),
            "a computed column"
        );
        let raw = ask(&hub, Method::GET, "pt_messages?select=n&id=eq.2")
            .send()
            .await
            .unwrap();
        assert_eq!(
            raw.text().await.unwrap(),
            r#"[{"n":12345678901234567890.5}]"#,
            "no digit is lost"
        );
        assert_eq!(
            get(&hub, "pt_users?select=langs->0&name=eq.ann").await,
            json!([{"langs": "en"}])
        );
        for (select, code) in [
            ("nothing", "42703"),
            ("name::nonsense", "42704"),
            ("ctid", "42703"),
            ("name.count()", "PGRST123"),
            ("name;drop", "PGRST100"),
        ] {
            let path = format!("pt_users?select={select}");
            assert_eq!(refused(&hub, &path).await, (400, code.to_owned()), "{select}");
        }
    });
}

#[test]
fn every_filter_does_what_its_operator_says() {
    on_hub(async |hub| {
        ready(&hub).await;
        for (filter, found) in [
            ("name=eq.ann", "ann"),
            ("name=neq.ann", "bob cy"),
            ("name=gt.ann", "bob cy"),
            ("name=gte.bob", "bob cy"),
            ("name=lt.bob", "ann"),
            ("name=lte.bob", "ann bob"),
            ("name=like.*n*", "ann"),
            ("name=ilike.A%25", "ann"),
            ("name=match.^[ab]", "ann bob"),
            ("name=imatch.^[AB]", "ann bob"),
            ("name=not.in.(ann,\"bob\")", "cy"),
            ("name=in.()", ""),
            ("data=is.null", "cy"),
            ("data=not.is.null", "ann bob"),
            ("data=is.not_null", "ann bob"),
            ("status=isdistinct.ONLINE", "bob"),
            ("langs=cs.{it}", "ann"),
            ("langs=cd.{en,de}", "bob"),
            ("langs=ov.{it,de}", "ann"),
            ("data=cs.{\"age\":20}", "bob"),
            ("ages=cs.[2,3)", "ann"),
            ("ages=sl.[5,6)", "ann"),
            ("ages=sr.[1,9)", "cy"),
            ("ages=nxr.[1,9)", "ann bob"),
            ("ages=nxl.[5,9)", "bob cy"),
            ("ages=adj.[9,11)", "bob"),
            ("words=fts.cat", "ann bob"),
            ("words=fts(simple).bat|rat", "bob cy"),
            ("words=plfts.fat cat", "ann"),
            ("words=phfts.rat", "cy"),
            ("words=wfts.cat -bat", "ann"),
            ("name=fts(simple).ann", "ann"),
            ("name=like(any).{a*,c*}", "ann cy"),
            ("name=like(all).{*a*,*n}", "ann"),
            ("name=eq(any).{ann,cy}", "ann cy"),
            ("data->>age=eq.30", "ann"),
            ("data->age=gte.25", "ann"),
            ("data->home->>city=not.is.null", "ann"),
            (
                "or=(name.eq.cy,and(status.eq.OFFLINE,data->>age.eq.20))",
                "bob cy",
            ),
            ("not.or=(name.eq.cy,name.eq.bob)", "ann"),
            ("and=(name.neq.cy,or(name.eq.\"ann\",name.in.(x,y)))", "ann"),
            ("name=eq.ann&status=eq.OFFLINE", ""),
            ("name=eq.'; drop table public.pt_users; --", ""),
        ] {
            let expected: Vec<&str> = found.split_whitespace().collect();
            assert_eq!(names(&hub, filter).await, expected, "{filter}");
        }
        assert_eq!(
            refused(&hub, "pt_users?status=eq.AWAY").await,
            (400, "22P02".to_owned())
        );
        assert_eq!(refused(&hub, "pt_users?name=fts(klingon).x").await.0, 400);
    });
}

#[test]
fn rows_are_ordered_with_nulls_where_they_are_wanted() {
    on_hub(async |hub| {
        ready(&hub).await;
        for (order, first) in [
            ("data->>age.desc.nullslast,name", "ann"),
            ("data->>age.asc.nullsfirst", "cy"),
            ("data->>age", "bob"),
            ("status.desc,name.desc", "bob"),
        ] {
            let rows = get(&hub, &format!("pt_users?select=name&order={order}&limit=1")).await;
            assert_eq!(rows, json!([{"name": first}]), "{order}");
        }
    });
}

#[test]
fn pages_are_counted_and_said() {
    on_hub(async |hub| {
        ready(&hub).await;
        let page = async |path: &str, range: &str, prefer: &str| {
            let mut request = ask(&hub, Method::GET, path).header("prefer", prefer);
            if !range.is_empty() {
                request = request.header("range-unit", "items").header("range", range);
            }
            let answered = send(request).await;
            (
                answered.status,
                answered.header("content-range").to_owned(),
                answered.body,
            )
        };
        let ids = "pt_messages?select=id&order=id";
        assert_eq!(
            page(ids, "1-2", "count=exact").await,
            (206, "1-2/4".to_owned(), json!([{"id": 2}, {"id": 3}]))
        );
        assert_eq!(page(&format!("{ids}&limit=1&offset=3"), "", "").await.1, "3-3/*");
        assert_eq!(page(&format!("{ids}&limit=0"), "", "count=exact").await.1, "*/4");
        assert_eq!(
            page(&format!("{ids}&id=gt.99"), "", "count=exact").await,
            (200, "*/0".to_owned(), json!([]))
        );
        let (status, _, body) = page(&format!("{ids}&offset=9"), "", "count=exact").await;
        assert_eq!((status, &body["code"]), (416, &json!("PGRST103")));
        assert_eq!(
            body["details"],
            json!("An offset of 9 was requested, but there are only 4 rows.")
        );
        assert_eq!(page(ids, "3-1", "").await.0, 416);
        for prefer in ["count=planned", "count=estimated"] {
            let (status, range, _) = page(ids, "", prefer).await;
            assert!(
                matches!(status, 200 | 206) && !range.ends_with('*'),
                "{prefer}: {range}"
            );
        }
        let head = ask(&hub, Method::HEAD, ids)
            .header("prefer", "count=exact")
            .send()
            .await
            .unwrap();
        assert_eq!(
            (head.status().as_u16(), &head.headers()["content-range"]),
            (200, &"0-3/4".parse().unwrap())
        );
        assert_eq!(head.headers()["preference-applied"], "count=exact");
        assert!(head.text().await.unwrap().is_empty());
    });
}

#[test]
fn an_answer_comes_in_the_form_that_is_accepted() {
    on_hub(async |hub| {
        ready(&hub).await;
        let as_form = async |path: &str, accept: &str| {
            send(ask(&hub, Method::GET, path).header("accept", accept)).await
        };
        const OBJECT: &str = "application/vnd.pgrst.object+json";
        let one = as_form("pt_users?select=name,data&name=eq.cy", OBJECT).await;
        assert_eq!((one.status, one.body), (200, json!({"name": "cy", "data": null})));
        let stripped = as_form(
            "pt_users?select=name,data&name=eq.cy",
            &format!("{OBJECT};nulls=stripped"),
        )
        .await;
        assert_eq!(stripped.body, json!({"name": "cy"}));
        let list = as_form(
            "pt_users?select=name,data&name=eq.cy",
            "application/vnd.pgrst.array+json;nulls=stripped",
        )
        .await;
        assert_eq!(list.body, json!([{"name": "cy"}]));
        let many = as_form("pt_users", OBJECT).await;
        assert_eq!(many.code(), (406, "PGRST116"));
        assert_eq!(many.body["details"], json!("The result contains 3 rows"));
        assert_eq!(
            as_form("pt_users?name=eq.nobody", OBJECT).await.body["details"],
            json!("The result contains 0 rows")
        );
        let csv = as_form("pt_messages?select=id,body&order=id&limit=2", "text/csv").await;
        assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
        assert_eq!(
            csv.body,
            json!("id,body\n1,\"hello world\"\n2,\"second, \"\"quoted\"\"\"")
        );
        for refused in ["text/html", "application/vnd.pgrst.plan+json"] {
            let answered = as_form("pt_users", refused).await;
            assert_eq!(answered.code(), (406, "PGRST107"), "{refused}");
        }
        let profiled = send(ask(&hub, Method::GET, "pt_users").header("accept-profile", "private")).await;
        assert_eq!(profiled.code(), (406, "PGRST106"));
        assert_eq!(
            profiled.body["hint"],
            json!("Only the following schemas are exposed: public")
        );
    });
}

#[test]
fn nobody_reads_more_than_a_thousand_rows_at_once() {
    on_hub(async |hub| {
        ready(&hub).await;
        let rows = get(&hub, "rpc/pt_numbers?limit=5000").await;
        assert_eq!(rows, json!([1, 2, 3]));
        let admin = hub.admin().await;
        let many = "create table if not exists public.pt_many as select generate_series(1, 1500) as n;
                    grant select on public.pt_many to anon";
        admin.batch_execute(many).await.unwrap();
        let limited = || ask(&hub, Method::GET, "pt_many?limit=5000").header("prefer", "count=exact");
        let limited = until(limited, |answered| answered.status != 404).await;
        assert_eq!(
            (limited.status, limited.header("content-range")),
            (206, "0-999/1500")
        );
        assert_eq!(limited.body.as_array().map(Vec::len), Some(1000));
    });
}

#[test]
fn paths_and_methods_that_are_none_are_refused() {
    on_hub(async |hub| {
        ready(&hub).await;
        for (method, path, code) in [
            (Method::GET, "pt_users/ann", (404, "PGRST125")),
            (Method::GET, "pt_userz", (404, "PGRST205")),
            (Method::TRACE, "pt_users", (405, "PGRST117")),
            (Method::DELETE, "rpc/pt_add", (405, "PGRST101")),
            (Method::POST, "", (405, "PGRST117")),
            (Method::GET, "", (404, "PGRST126")),
        ] {
            let answered = send(ask(&hub, method.clone(), path)).await;
            assert_eq!(answered.code(), code, "{method} {path}: {}", answered.body);
        }
        let unknown = send(ask(&hub, Method::GET, "pt_userz")).await;
        assert_eq!(
            unknown.body["hint"],
            json!("Perhaps you meant the table 'public.pt_users'")
        );
        assert_eq!(unknown.header("proxy-status"), "PostgREST; error=PGRST205");
        let options = send(ask(&hub, Method::OPTIONS, "pt_users")).await;
        assert_eq!(options.header("allow"), "OPTIONS,GET,HEAD,POST,PUT,PATCH,DELETE");
        let document = hub
            .http
            .get(format!("{}/rest/v1/", hub.url))
            .header("apikey", &hub.secret);
        let document: Value = send(document).await.body;
        assert_eq!(document["swagger"], json!("2.0"));
        assert_eq!(
            document["definitions"]["pt_users"]["properties"]["name"]["type"],
            json!("string")
        );
    });
}

#[test]
fn what_is_too_much_is_refused_and_what_is_merely_long_is_not() {
    on_hub(async |hub| {
        ready(&hub).await;
        let long: Vec<String> = (0..5000).map(|number| format!("n{number}")).collect();
        let list = names(&hub, &format!("name=in.({},ann)", long.join(","))).await;
        assert_eq!(list, ["ann"]);
        let any = vec!["name.eq.x"; 1500].join(",");
        assert_eq!(names(&hub, &format!("or=({any},name.eq.cy)")).await, ["cy"]);
        let deep = format!("or={}name.eq.x{}", "(or".repeat(100) + "(", ")".repeat(101));
        for query in [
            format!(
                "select={}*{}",
                "pt_messages(pt_users(".repeat(20),
                "))".repeat(20)
            ),
            deep,
            vec!["name=eq.x"; 300].join("&"),
            format!("name={}eq.x", "not.".repeat(5000)),
        ] {
            let (status, code) = refused(&hub, &format!("pt_users?{query}")).await;
            assert_eq!((status, code.as_str()), (400, "PGRST100"), "{}", &query[..40]);
        }
        let large = format!("[{{\"id\":1,\"body\":\"{}\"}}]", "x".repeat(11 * 1024 * 1024));
        let large = ask(&hub, Method::POST, "pt_notes")
            .header("content-type", "application/json")
            .body(large);
        assert_eq!(send(large).await.status, 413);
        let nested = format!(
            "{{\"id\":9000,\"body\":{}1{}}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        let nested = ask(&hub, Method::POST, "pt_notes")
            .header("content-type", "application/json")
            .body(nested);
        let nested = send(nested).await;
        assert!(
            matches!(nested.status, 400 | 500),
            "{} {}",
            nested.status,
            nested.body
        );
        let nul = send(ask(&hub, Method::GET, "pt_users?name=eq.a%00b")).await;
        assert_eq!(nul.code(), (400, "22021"));
    });
}

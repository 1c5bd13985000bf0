//! The schema cache follows the database.

use reqwest::Method;
use serde_json::json;

use crate::support::{TestHub, on_hub};
use crate::table::{Answered, ask, ready, until};

async fn seen(hub: &TestHub, path: &str, good: impl Fn(&Answered) -> bool) {
    until(|| ask(hub, Method::GET, path), good).await;
}

#[test]
fn what_is_made_changed_and_dropped_is_seen_without_a_restart() {
    on_hub(async |hub| {
        ready(&hub).await;
        let admin = hub.admin().await;
        let run = async |sql: &str| admin.batch_execute(sql).await.unwrap();
        run("set role postgres; create table public.pt_fresh (id int primary key, up int)").await;
        seen(&hub, "pt_fresh?select=id", |answered| answered.status == 200).await;
        run("alter table public.pt_fresh add column extra text default 'e'").await;
        seen(&hub, "pt_fresh?select=extra", |answered| {
            answered.body == json!([])
        })
        .await;
        run("alter table public.pt_fresh add foreign key (up) references public.pt_fresh").await;
        seen(&hub, "pt_fresh?select=id,up(id)", |answered| {
            answered.status == 200
        })
        .await;
        run("create function public.pt_new() returns int language sql stable as 'select 5'").await;
        seen(&hub, "rpc/pt_new", |answered| answered.body == json!(5)).await;
        run("drop table public.pt_fresh; drop function public.pt_new()").await;
        seen(&hub, "pt_fresh", |answered| answered.code() == (404, "PGRST205")).await;
        seen(&hub, "rpc/pt_new", |answered| {
            answered.code() == (404, "PGRST202")
        })
        .await;
    });
}

#[test]
fn a_view_that_became_invalid_does_not_hide_the_rest() {
    on_hub(async |hub| {
        ready(&hub).await;
        let admin = hub.admin().await;
        // A view of a view, and one that cannot run: both are described, neither is executed.
        let views = "set role postgres;
            create view public.pt_upon as select who from public.pt_online;
            create view public.pt_zero as select 1 / 0 as n, name from public.pt_users";
        admin.batch_execute(views).await.unwrap();
        seen(
            &hub,
            "pt_upon?select=who,pt_messages(id)&order=who&limit=1&pt_messages.order=id",
            |answered| answered.body == json!([{"who": "ann", "pt_messages": [{"id": 1}, {"id": 2}]}]),
        )
        .await;
        seen(&hub, "pt_zero", |answered| answered.code() == (400, "22012")).await;
        admin
            .batch_execute("drop view public.pt_upon, public.pt_zero")
            .await
            .unwrap();
    });
}

//! REST and the office's functions against a real Postgres: what must work, and what nobody may do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use reqwest::Method;
use serde_json::{Value, json};
use support::{TestHub, answer, id, on_hub};
use uuid::Uuid;

const TABLES: [&str; 7] = [
    "offices",
    "office_members",
    "agents",
    "clients",
    "sessions",
    "agent_commands",
    "agent_command_results",
];

/// Every function of the office with arguments that fit `office`.
fn calls(office: Uuid, client: Uuid, command: Uuid) -> Vec<(&'static str, Value)> {
    let token = Uuid::new_v4();
    vec![
        (
            "enqueue_command",
            json!({"p_office": office, "p_kind": "k", "p_args": {}, "p_key": "k"}),
        ),
        (
            "register_client",
            json!({"p_office": office, "p_client": Uuid::new_v4(), "p_name": "n"}),
        ),
        ("claim_commands", json!({"p_office": office, "p_client": client})),
        (
            "complete_command",
            json!({"p_command": command, "p_token": token, "p_result": Uuid::new_v4(), "p_status": "failed"}),
        ),
        ("cancel_command", json!({"p_command": command})),
        (
            "upsert_agent",
            json!({"p_office": office, "p_agent": null, "p_role": "FE", "p_name": "n"}),
        ),
        (
            "upsert_session",
            json!({"p_session": token, "p_office": office, "p_client": client, "p_agent": null, "p_state": "idle"}),
        ),
    ]
}

async fn full_office(hub: &TestHub) -> (Uuid, support::Person, Uuid, Value) {
    let (office, owner) = hub.office().await;
    let client = hub.client(&owner, office).await;
    let command = hub.enqueue(&owner, office, "first").await;
    (office, owner, client, command)
}

#[test]
fn who_has_only_the_publishable_key_can_do_nothing() {
    on_hub(async |hub| {
        let (office, _, client, command) = full_office(&hub).await;
        let anon = hub.anon();
        for table in TABLES {
            let (status, body) = hub.get(&anon, &format!("{table}?select=*")).await;
            assert_eq!(
                (status, &body["code"]),
                (401, &json!("42501")),
                "read {table}: {body}"
            );
            let head = hub
                .request(&anon, Method::HEAD, &format!("/rest/v1/{table}"))
                .header("prefer", "count=exact");
            let head = head.send().await.unwrap();
            assert_eq!(head.status(), 401, "count {table}");
            assert!(head.headers().get("content-range").is_none());
            for method in [Method::POST, Method::PATCH, Method::DELETE] {
                let column = if table == "office_members" {
                    "office_id"
                } else {
                    "id"
                };
                let filter = if method == Method::POST {
                    String::new()
                } else {
                    format!("{column}=eq.{office}")
                };
                let path = format!("/rest/v1/{table}?{filter}");
                let body = json!({column: office});
                let (status, body) = answer(hub.request(&anon, method.clone(), &path).json(&body)).await;
                assert_eq!(
                    (status, &body["code"]),
                    (401, &json!("42501")),
                    "{method} {table}: {body}"
                );
            }
        }
        for (function, args) in calls(office, client, id(&command["id"])) {
            let (status, body) = hub.rpc(&anon, function, args).await;
            assert_eq!(
                (status, &body["code"]),
                (401, &json!("42501")),
                "{function}: {body}"
            );
        }
        let (status, _) = hub.rpc(&anon, "create_office", json!({"p_name": "mine"})).await;
        assert_eq!(status, 401);
        let (status, body) = hub.get(&anon, "").await;
        assert_eq!(
            status, 404,
            "the list of tables and functions is not shown: {body}"
        );
    });
}

#[test]
fn a_foreign_office_sees_nothing_and_learns_nothing() {
    on_hub(async |hub| {
        let (office, owner, client, command) = full_office(&hub).await;
        let (_, stranger) = hub.office().await;
        for table in TABLES {
            let column = if table == "offices" { "id" } else { "office_id" };
            let (status, body) = hub
                .get(&stranger, &format!("{table}?select=*&{column}=eq.{office}"))
                .await;
            assert_eq!((status, body), (200, json!([])), "{table}");
        }
        let foreign = calls(office, client, id(&command["id"]));
        let unknown = calls(Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
        for ((function, theirs), (_, nowhere)) in foreign.into_iter().zip(unknown) {
            let refused = hub.rpc(&stranger, function, theirs).await;
            assert!(matches!(refused.0, 403 | 404), "{function}: {refused:?}");
            assert_eq!(
                refused,
                hub.rpc(&stranger, function, nowhere).await,
                "{function} tells them apart"
            );
        }
        let state = hub
            .get(
                &owner,
                &format!("agent_commands?office_id=eq.{office}&select=state"),
            )
            .await;
        assert_eq!(state.1, json!([{"state": "queued"}]), "nothing was changed");
    });
}

#[test]
fn each_role_may_do_its_part_only() {
    on_hub(async |hub| {
        let (office, owner, client, command) = full_office(&hub).await;
        let may = |role: &str, function: &str| match role {
            "viewer" => false,
            "operator" => matches!(function, "enqueue_command" | "cancel_command"),
            _ => !matches!(function, "enqueue_command" | "cancel_command" | "upsert_agent"),
        };
        for role in ["viewer", "operator", "device"] {
            let person = hub.member(office, role).await;
            for (function, args) in calls(office, client, id(&command["id"])) {
                let (status, body) = hub.rpc(&person, function, args).await;
                // The client is the owner's: a device that uses it gets 404.
                let foreign_client =
                    role == "device" && matches!(function, "claim_commands" | "upsert_session");
                let expected = may(role, function) && !foreign_client;
                assert_eq!(status == 200, expected, "{role} {function}: {status} {body}");
            }
            let (status, body) = hub
                .get(&person, &format!("agent_commands?office_id=eq.{office}"))
                .await;
            assert!(
                status == 200 && !body.as_array().unwrap().is_empty(),
                "{role} may read"
            );
            for method in [Method::POST, Method::PATCH, Method::DELETE] {
                let path = format!("/rest/v1/agent_commands?id=eq.{}", id(&command["id"]));
                let (status, _) = answer(
                    hub.request(&person, method, &path)
                        .json(&json!({"state": "failed"})),
                )
                .await;
                assert_eq!(status, 403, "{role} writes no table directly");
            }
        }
        let members = hub
            .get(
                &owner,
                &format!("office_members?office_id=eq.{office}&select=role&order=role"),
            )
            .await;
        assert_eq!(members.1.as_array().unwrap().len(), 4);
    });
}

#[test]
fn a_removed_member_loses_everything_at_once() {
    on_hub(async |hub| {
        let (office, _) = hub.office().await;
        let operator = hub.member(office, "operator").await;
        hub.enqueue(&operator, office, "one").await;
        let admin = hub.admin().await;
        let revoke = "update public.office_members set revoked_at = now() where user_id = $1";
        admin.execute(revoke, &[&operator.id]).await.unwrap();
        assert_eq!(hub.get(&operator, "agent_commands").await, (200, json!([])));
        let args = json!({"p_office": office, "p_kind": "k", "p_args": {}, "p_key": "two"});
        assert_eq!(hub.rpc(&operator, "enqueue_command", args).await.0, 403);
    });
}

#[test]
fn the_same_key_gives_the_first_command_back_and_other_content_is_a_conflict() {
    on_hub(async |hub| {
        let (office, owner) = hub.office().await;
        let first = hub.enqueue(&owner, office, "key").await;
        assert_eq!(hub.enqueue(&owner, office, "key").await["id"], first["id"]);
        let other = json!({"p_office": office, "p_kind": "send_prompt", "p_args": {"prompt": "other"}, "p_key": "key"});
        let (status, body) = hub.rpc(&owner, "enqueue_command", other).await;
        assert_eq!((status, &body["code"]), (409, &json!("PT409")));
        let all = hub
            .get(&owner, &format!("agent_commands?office_id=eq.{office}&select=id"))
            .await;
        assert_eq!(all.1.as_array().unwrap().len(), 1);
    });
}

#[test]
fn two_clients_that_claim_at_once_never_get_the_same_command() {
    on_hub(async |hub| {
        let (office, owner) = hub.office().await;
        let (one, two) = (hub.client(&owner, office).await, hub.client(&owner, office).await);
        for n in 0..30 {
            hub.enqueue(&owner, office, &format!("n{n}")).await;
        }
        let take = async |client| {
            let mut taken = Vec::new();
            loop {
                let claimed = hub.claim(&owner, office, client, 3).await;
                if claimed.is_empty() {
                    return taken;
                }
                taken.extend(
                    claimed
                        .iter()
                        .map(|command| command["id"].as_str().unwrap().to_owned()),
                );
            }
        };
        let (first, second) = tokio::join!(take(one), take(two));
        let mut all: Vec<String> = first.into_iter().chain(second).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 30);
    });
}

#[test]
fn a_lease_is_renewed_completed_once_and_fenced() {
    on_hub(async |hub| {
        let (office, owner, client, command) = full_office(&hub).await;
        let thief = hub.member(office, "device").await;
        let claimed = hub.claim(&owner, office, client, 10).await.remove(0);
        assert_eq!((&claimed["id"], &claimed["attempt"]), (&command["id"], &json!(1)));
        let (command, token) = (&command["id"], &claimed["lease_token"]);
        let renew = json!({"p_command": command, "p_token": token});
        let held = json!([{"held": true, "cancel": false}]);
        assert_eq!(hub.ok(&owner, "renew_lease", renew.clone()).await, held);
        assert_eq!(
            hub.ok(&thief, "renew_lease", renew).await[0]["held"],
            json!(false),
            "a stolen token"
        );
        let visible = hub.get(&thief, "agent_commands?select=*").await.1.to_string();
        assert!(
            !visible.contains(token.as_str().unwrap()),
            "members cannot read lease tokens"
        );

        let complete = |token: &Value, result: Uuid| {
            json!({"p_command": command, "p_token": token, "p_result": result, "p_status": "succeeded",
                   "p_outcome": "done", "p_output": {"text": "ok"}, "p_evidence": {"marker": true}})
        };
        let late = hub
            .ok(&thief, "complete_command", complete(token, Uuid::new_v4()))
            .await;
        assert_eq!(late, json!("late"), "a stolen token changes nothing");
        let wrong = complete(&json!(Uuid::new_v4()), Uuid::new_v4());
        assert_eq!(hub.ok(&owner, "complete_command", wrong).await, json!("late"));
        let result = Uuid::new_v4();
        assert_eq!(
            hub.ok(&owner, "complete_command", complete(token, result)).await,
            json!("recorded")
        );
        assert_eq!(
            hub.ok(&owner, "complete_command", complete(token, result)).await,
            json!("duplicate")
        );
        let again = complete(token, Uuid::new_v4());
        assert_eq!(hub.ok(&owner, "complete_command", again).await, json!("late"));
        let path = format!(
            "agent_command_results?command_id=eq.{}&status=eq.succeeded&select=id,outcome,attempt",
            id(command)
        );
        let (_, rows) = hub.get(&owner, &path).await;
        assert_eq!(rows, json!([{"id": result, "outcome": "done", "attempt": 1}]));
        let (_, state) = hub
            .get(
                &owner,
                &format!("agent_commands?id=eq.{}&select=state", id(command)),
            )
            .await;
        assert_eq!(state, json!([{"state": "succeeded"}]));
    });
}

#[test]
fn a_lease_that_ran_out_is_claimed_again_and_the_first_holder_is_late() {
    on_hub(async |hub| {
        let (office, owner, first, command) = full_office(&hub).await;
        let second = hub.client(&owner, office).await;
        let old = hub.claim(&owner, office, first, 1).await.remove(0);
        assert!(
            hub.claim(&owner, office, second, 1).await.is_empty(),
            "it is leased"
        );
        let admin = hub.admin().await;
        let expire = "update public.agent_commands set lease_until = now() - interval '1 s' where id = $1";
        admin.execute(expire, &[&id(&command["id"])]).await.unwrap();
        let new = hub.claim(&owner, office, second, 1).await.remove(0);
        assert_eq!((&new["id"], &new["attempt"]), (&old["id"], &json!(2)));
        let complete = |claim: &Value| json!({"p_command": claim["id"], "p_token": claim["lease_token"], "p_result": Uuid::new_v4(), "p_status": "failed"});
        assert_eq!(
            hub.ok(&owner, "complete_command", complete(&old)).await,
            json!("late")
        );
        assert_eq!(
            hub.ok(&owner, "complete_command", complete(&new)).await,
            json!("recorded")
        );
    });
}

#[test]
fn work_that_ends_after_the_deadline_is_recorded_when_nobody_else_claimed_it() {
    on_hub(async |hub| {
        let (office, owner) = hub.office().await;
        let client = hub.client(&owner, office).await;
        let admin = hub.admin().await;
        let state = async |command: &Value| {
            let path = format!("agent_commands?id=eq.{}&select=state", id(command));
            hub.get(&owner, &path).await.1[0]["state"].clone()
        };
        // What has run out besides the lease, and how the reaper then ends the command.
        for (change, ended) in [
            ("expires_at = now() - interval '16 min'", "expired"),
            ("max_attempts = 1", "dead"),
            ("cancel_requested_at = now()", "cancelled"),
        ] {
            hub.enqueue(&owner, office, ended).await;
            let claimed = hub.claim(&owner, office, client, 1).await.remove(0);
            let sql = format!(
                "update public.agent_commands set lease_until = now() - interval '16 min', {change} where id = $1"
            );
            admin.execute(&sql, &[&id(&claimed["id"])]).await.unwrap();
            assert!(hub.claim(&owner, office, client, 1).await.is_empty());
            assert_eq!(state(&claimed["id"]).await, json!(ended));
            let complete = |token: &Value| {
                json!({"p_command": claimed["id"], "p_token": token, "p_result": Uuid::new_v4(),
                       "p_status": "succeeded"})
            };
            let (token, other) = (&claimed["lease_token"], json!(Uuid::new_v4()));
            let answers = [
                hub.ok(&owner, "complete_command", complete(&other)).await,
                hub.ok(&owner, "complete_command", complete(token)).await,
                hub.ok(&owner, "complete_command", complete(token)).await,
            ];
            assert_eq!(answers, ["late", "recorded", "late"], "{ended}");
            assert_eq!(state(&claimed["id"]).await, json!("succeeded"));
        }
    });
}

#[test]
fn a_holder_may_renew_for_a_while_after_the_deadline() {
    on_hub(async |hub| {
        let (office, owner, client, command) = full_office(&hub).await;
        let claimed = hub.claim(&owner, office, client, 1).await.remove(0);
        let admin = hub.admin().await;
        let sql = "update public.agent_commands
                   set lease_until = now() - interval '1 min', expires_at = now() - interval '1 min' where id = $1";
        admin.execute(sql, &[&id(&command["id"])]).await.unwrap();
        assert!(
            hub.claim(&owner, office, client, 1).await.is_empty(),
            "nobody begins it any more"
        );
        let renew = json!({"p_command": command["id"], "p_token": claimed["lease_token"]});
        let held = json!([{"held": true, "cancel": false}]);
        assert_eq!(hub.ok(&owner, "renew_lease", renew).await, held);
    });
}

#[test]
fn late_reports_are_kept_only_from_who_once_held_it_and_only_so_many() {
    on_hub(async |hub| {
        let (office, owner, client, command) = full_office(&hub).await;
        let thief = hub.member(office, "device").await;
        let claimed = hub.claim(&owner, office, client, 1).await.remove(0);
        let complete = |status: &str| {
            json!({"p_command": command["id"], "p_token": claimed["lease_token"], "p_result": Uuid::new_v4(),
                   "p_status": status})
        };
        assert_eq!(
            hub.ok(&thief, "complete_command", complete("failed")).await,
            "late"
        );
        assert_eq!(
            hub.ok(&owner, "complete_command", complete("failed")).await,
            "recorded"
        );
        let admin = hub.admin().await;
        let rows = async || -> i64 {
            let sql =
                "select count(*) from public.agent_command_results where command_id = $1 and status = 'late'";
            let row = admin.query_one(sql, &[&id(&command["id"])]).await;
            row.unwrap().get(0)
        };
        assert_eq!(rows().await, 0, "a stolen token leaves nothing");
        let fill = "insert into public.agent_command_results
                      (id, command_id, office_id, attempt, status, created_by)
                    select gen_random_uuid(), $1, $2, 1, 'late', $3 from generate_series(1, 199)";
        admin
            .execute(fill, &[&id(&command["id"]), &office, &owner.id])
            .await
            .unwrap();
        for _ in 0..2 {
            assert_eq!(
                hub.ok(&owner, "complete_command", complete("failed")).await,
                "late"
            );
            assert_eq!(rows().await, 200);
        }
    });
}

#[test]
fn what_was_finished_long_ago_goes_with_its_results_and_leases() {
    on_hub(async |hub| {
        let (office, owner, client, command) = full_office(&hub).await;
        let waiting = hub.enqueue(&owner, office, "waiting").await;
        let claimed = hub.claim(&owner, office, client, 1).await.remove(0);
        let complete = json!({"p_command": command["id"], "p_token": claimed["lease_token"],
                              "p_result": Uuid::new_v4(), "p_status": "failed"});
        hub.ok(&owner, "complete_command", complete).await;
        let admin = hub.admin().await;
        let old = "update public.agent_commands set finished_at = now() - interval '91 days'
                   where id = $1 and finished_at is not null";
        for command in [&command, &waiting] {
            admin.execute(old, &[&id(&command["id"])]).await.unwrap();
        }
        admin
            .execute("select private.forget_commands()", &[])
            .await
            .unwrap();
        let sql = "select (select count(*) from public.agent_commands where office_id = $1),
                          (select count(*) from public.agent_command_results where office_id = $1),
                          (select count(*) from private.command_leases where command_id = $2)";
        let row = admin
            .query_one(sql, &[&office, &id(&command["id"])])
            .await
            .unwrap();
        assert_eq!(
            (row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2)),
            (1, 0, 0)
        );
    });
}

#[test]
fn a_command_for_a_session_goes_to_the_client_that_has_it() {
    on_hub(async |hub| {
        let (office, owner) = hub.office().await;
        let (has, other) = (hub.client(&owner, office).await, hub.client(&owner, office).await);
        let session = Uuid::new_v4();
        let args = json!({"p_session": session, "p_office": office, "p_client": has, "p_agent": null,
                          "p_state": "idle", "p_repository": "r", "p_branch": "b"});
        hub.ok(&owner, "upsert_session", args.clone()).await;
        let mut stolen = args;
        stolen["p_client"] = json!(other);
        assert_eq!(hub.rpc(&owner, "upsert_session", stolen).await.0, 409);
        // Named only in the arguments, as a server would that does not know `p_session`.
        let terminate =
            json!({"p_office": office, "p_kind": "terminate", "p_args": {"session": session}, "p_key": "t"});
        hub.ok(&owner, "enqueue_command", terminate).await;
        assert!(hub.claim(&owner, office, other, 5).await.is_empty());
        let claimed = hub.claim(&owner, office, has, 5).await;
        assert_eq!(claimed[0]["session_id"], json!(session));
    });
}

#[test]
fn cancelling_ends_what_waits_and_asks_what_runs() {
    on_hub(async |hub| {
        let (office, owner, client, first) = full_office(&hub).await;
        let claimed = hub.claim(&owner, office, client, 1).await.remove(0);
        let waiting = hub.enqueue(&owner, office, "second").await;
        let cancel = async |command: &Value| {
            hub.ok(&owner, "cancel_command", json!({"p_command": command["id"]}))
                .await
        };
        assert_eq!(cancel(&waiting).await, json!("cancelled"));
        assert_eq!(cancel(&first).await, json!("requested"));
        let renew = json!({"p_command": first["id"], "p_token": claimed["lease_token"]});
        assert_eq!(
            hub.ok(&owner, "renew_lease", renew).await,
            json!([{"held": true, "cancel": true}])
        );
    });
}

#[test]
fn tokens_that_are_not_good_are_refused_as_postgrest_does() {
    on_hub(async |hub| {
        let person = hub.person().await;
        let expired = support::Person {
            id: person.id,
            token: hub.user_token(person.id, -60),
        };
        let response = hub
            .request(&expired, Method::GET, "/rest/v1/offices")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 401);
        let challenge = response.headers()["www-authenticate"]
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(
            challenge,
            "Bearer error=\"invalid_token\", error_description=\"JWT expired\""
        );
        let body: Value = response.json().await.unwrap();
        assert_eq!(
            body,
            json!({"code": "PGRST303", "message": "JWT expired", "details": null, "hint": null})
        );
        for (token, code) in [("a.b", "PGRST301"), ("x.y.z", "PGRST301")] {
            let broken = support::Person {
                id: person.id,
                token: token.to_owned(),
            };
            let (status, body) = hub.get(&broken, "offices").await;
            assert_eq!((status, &body["code"]), (401, &json!(code)));
        }
        let superuser = support::Person {
            id: person.id,
            token: hub.token(json!({"role": "supabase_admin", "exp": hub.now_s() + 60})),
        };
        assert_eq!(hub.get(&superuser, "offices").await.0, 401);
        let url = format!("{}/rest/v1/offices", hub.url);
        let keyless = answer(hub.http.get(&url)).await;
        assert_eq!(
            (keyless.0, &keyless.1["message"]),
            (401, &json!("No API key found in request"))
        );
        let wrong = answer(hub.http.get(&url).header("apikey", "sb_publishable_x")).await;
        assert_eq!((wrong.0, &wrong.1["message"]), (401, &json!("Invalid API key")));
    });
}

/// An office with five commands of the kinds k0 … k4.
async fn five_commands(hub: &TestHub) -> (Uuid, support::Person) {
    let (office, owner) = hub.office().await;
    for n in 0..5 {
        let args = json!({"p_office": office, "p_kind": format!("k{n}"), "p_args": {"n": n, "s": "a,\"b)"},
                          "p_key": format!("{n}")});
        hub.ok(&owner, "enqueue_command", args).await;
    }
    (office, owner)
}

#[test]
fn reading_follows_postgrests_grammar() {
    on_hub(async |hub| {
        let (office, owner) = five_commands(&hub).await;
        let read = async |query: &str| {
            let (status, body) = hub
                .get(&owner, &format!("agent_commands?office_id=eq.{office}&{query}"))
                .await;
            (status, body)
        };
        let kinds = |value: &Value| -> Vec<String> {
            value
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["kind"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(
            kinds(&read("select=kind&order=seq.desc&limit=2").await.1),
            ["k4", "k3"]
        );
        assert_eq!(
            kinds(&read("select=kind&order=seq&kind=in.(k1,\"k3\")").await.1),
            ["k1", "k3"]
        );
        assert_eq!(
            kinds(
                &read("select=kind&kind=like.k*&kind=not.in.(k0,k1,k2)&order=seq")
                    .await
                    .1
            ),
            ["k3", "k4"]
        );
        assert_eq!(
            kinds(
                &read("select=kind&or=(kind.eq.k0,and(kind.eq.k1,priority.eq.0))&order=seq")
                    .await
                    .1
            ),
            ["k0", "k1"]
        );
        assert_eq!(read("select=n:args->n&args->>n=eq.2").await.1, json!([{"n": 2}]));
        assert_eq!(
            read("select=kind&session_id=is.null&agent_id=not.is.null")
                .await
                .1,
            json!([])
        );
        assert_eq!(read("seq=eq.x").await.0, 400, "22P02");
        assert_eq!(read("nothing=eq.1").await.1["code"], json!("42703"));
        let hostile = read("kind=eq.'%3B drop table public.offices%3B --").await;
        assert_eq!(hostile, (200, json!([])));
    });
}

#[test]
fn pages_single_rows_and_unknown_names_are_answered_as_postgrest_does() {
    on_hub(async |hub| {
        let (office, owner) = five_commands(&hub).await;
        let path = format!("/rest/v1/agent_commands?office_id=eq.{office}&select=kind&order=seq");
        let page = hub
            .request(&owner, Method::GET, &path)
            .header("range", "1-2")
            .header("prefer", "count=exact");
        let page = page.send().await.unwrap();
        assert_eq!(
            (
                page.status().as_u16(),
                page.headers()["content-range"].to_str().unwrap()
            ),
            (206, "1-2/5")
        );
        let object = "application/vnd.pgrst.object+json";
        let many = answer(hub.request(&owner, Method::GET, &path).header("accept", object)).await;
        assert_eq!((many.0, &many.1["code"]), (406, &json!("PGRST116")));
        let one = answer(
            hub.request(&owner, Method::GET, &format!("{path}&kind=eq.k3"))
                .header("accept", object),
        )
        .await;
        assert_eq!(one, (200, json!({"kind": "k3"})));
        assert_eq!(
            hub.get(&owner, "no_such_table").await.1["code"],
            json!("PGRST205")
        );
        assert_eq!(
            hub.rpc(&owner, "no_such_function", json!({"a": 1})).await.1["code"],
            json!("PGRST202")
        );
        let private = hub
            .request(&owner, Method::GET, "/rest/v1/command_leases")
            .header("accept-profile", "private");
        assert_eq!(answer(private).await.0, 406);
        assert_eq!(hub.get(&owner, "command_leases").await.0, 404);
    });
}

#[test]
fn a_server_with_the_secret_key_inserts_and_upserts() {
    on_hub(async |hub| {
        let (office, owner) = hub.office().await;
        let server = |method: Method, path: &str| {
            hub.http
                .request(method, format!("{}/rest/v1/{path}", hub.url))
                .header("apikey", &hub.secret)
        };
        let row = json!([{"office_id": office, "kind": "list_sessions", "idempotency_key": "s1"}]);
        let upsert = || {
            server(
                Method::POST,
                "agent_commands?on_conflict=office_id,idempotency_key&select=kind,state",
            )
            .header("prefer", "resolution=ignore-duplicates,return=representation")
            .json(&row)
        };
        assert_eq!(
            answer(upsert()).await,
            (201, json!([{"kind": "list_sessions", "state": "queued"}]))
        );
        assert_eq!(answer(upsert()).await, (201, json!([])), "the key exists already");
        let plain = server(Method::POST, "agent_commands").json(&row);
        let (status, body) = answer(plain).await;
        assert_eq!((status, &body["code"]), (409, &json!("23505")));
        let path = format!("agent_commands?office_id=eq.{office}");
        let patch = server(Method::PATCH, &format!("{path}&select=priority"))
            .header("prefer", "return=representation")
            .json(&json!({"priority": 7}));
        assert_eq!(answer(patch).await, (200, json!([{"priority": 7}])));
        assert_eq!(
            answer(server(Method::PATCH, "agent_commands").json(&json!({"priority": 1})))
                .await
                .0,
            400
        );
        assert_eq!(answer(server(Method::DELETE, &path)).await.0, 204);
        assert_eq!(hub.get(&owner, &path).await, (200, json!([])));
        let enqueue = json!({"p_office": office, "p_kind": "k", "p_args": {}, "p_key": "rpc"});
        assert_eq!(
            answer(server(Method::POST, "rpc/enqueue_command").json(&enqueue))
                .await
                .0,
            200
        );
        let browser = server(Method::GET, &path).header("user-agent", "Mozilla/5.0");
        assert_eq!(
            answer(browser).await.0,
            401,
            "a secret key has no business in a browser"
        );
    });
}

#[test]
fn agents_and_clients_cannot_be_taken_over() {
    on_hub(async |hub| {
        let (office, owner) = hub.office().await;
        let agent = json!({"p_office": office, "p_agent": null, "p_role": "FE", "p_name": "지아", "p_prompt": "p",
                           "p_scope_patterns": ["ui/**"], "p_core_skills": ["svelte"]});
        let made = hub.ok(&owner, "upsert_agent", agent).await;
        assert_eq!(
            (&made["name"], &made["scope_patterns"]),
            (&json!("지아"), &json!(["ui/**"]))
        );
        let client = hub.client(&owner, office).await;
        let (foreign, stranger) = hub.office().await;
        let take = json!({"p_office": foreign, "p_agent": made["id"], "p_role": "FE", "p_name": "mine"});
        assert_eq!(hub.rpc(&stranger, "upsert_agent", take).await.0, 409);
        let take = json!({"p_office": foreign, "p_client": client, "p_name": "mine"});
        assert_eq!(hub.rpc(&stranger, "register_client", take).await.0, 409);
    });
}

#[test]
fn who_only_looks_on_cannot_ring_the_doorbell_and_nobody_can_ring_it_all_the_time() {
    on_hub(async |hub| {
        let (office, owner) = hub.office().await;
        let ring = async |who: &support::Person| {
            let args = json!({"p_office": office, "p_nonce": Uuid::new_v4()});
            hub.rpc(who, "prove_doorbell", args).await
        };
        let removed = hub.member(office, "device").await;
        let admin = hub.admin().await;
        let revoke = "update public.office_members set revoked_at = now() where user_id = $1";
        admin.execute(revoke, &[&removed.id]).await.unwrap();
        for who in [hub.member(office, "viewer").await, hub.person().await, removed] {
            let (status, said) = ring(&who).await;
            assert_eq!((status, &said["code"]), (403, &json!("42501")), "{said}");
        }
        for number in 1..=120 {
            assert_eq!(ring(&owner).await.0, 204, "the {number}th within a minute");
        }
        let (status, said) = ring(&owner).await;
        assert_eq!((status, &said["code"]), (429, &json!("PT429")), "{said}");
        let operator = hub.member(office, "operator").await;
        assert_eq!(ring(&operator).await.0, 204, "it is the other's limit");
        let rings = "select rings from private.proofs where office_id = $1 and user_id = $2";
        let row = admin.query_one(rings, &[&office, &owner.id]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 120, "a refusal counts for nothing");
        // A minute later, and after the clock of the database was set back.
        for apart in ["- interval '61 seconds'", "+ interval '1 hour'"] {
            let moved =
                format!("update private.proofs set since = now() {apart}, rings = 120 where user_id = $1");
            admin.execute(&moved, &[&owner.id]).await.unwrap();
            assert_eq!(ring(&owner).await.0, 204, "{apart}");
        }
    });
}

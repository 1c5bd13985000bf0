//! Asks and the settings of an office against a real Postgres: what must work, and what nobody may do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use reqwest::Method;
use serde_json::{Value, json};
use support::{Person, TestHub, answer, id, on_hub};
use uuid::Uuid;

/// An office whose owner has a client.
struct Setting {
    office: Uuid,
    owner: Person,
    client: Uuid,
}

async fn setting(hub: &TestHub) -> Setting {
    let (office, owner) = hub.office().await;
    let client = hub.client(&owner, office).await;
    Setting {
        office,
        owner,
        client,
    }
}

fn ask(office: Uuid, client: Uuid, ask: Uuid) -> Value {
    json!({
        "p_ask": ask, "p_office": office, "p_client": client, "p_session": Uuid::new_v4(), "p_agent": null,
        "p_command": null, "p_kind": "permission", "p_tool": "Bash", "p_text": "touch 노트.txt",
        "p_choices": [], "p_asked_at": "2001-01-01T00:00:00Z",
    })
}

fn allowed(ask: Uuid) -> Value {
    json!({"p_ask": ask, "p_state": "answered", "p_answer": {"say": "allow"}, "p_way": "window"})
}

async fn row(hub: &TestHub, who: &Person, ask: Uuid) -> Value {
    let (status, rows) = hub.get(who, &format!("session_asks?id=eq.{ask}")).await;
    assert_eq!(status, 200, "{rows}");
    rows[0].clone()
}

#[test]
fn an_ask_is_told_changed_and_closed_once_by_the_client_that_has_it() {
    on_hub(async |hub| {
        let Setting {
            office,
            owner,
            client,
        } = setting(&hub).await;
        let (first, args) = (Uuid::new_v4(), Uuid::new_v4());
        let mut args = ask(office, client, args);
        args["p_ask"] = json!(first);
        let told = hub.ok(&owner, "upsert_ask", args.clone()).await;
        assert_eq!(
            (&told["state"], &told["closed_at"]),
            (&json!("pending"), &Value::Null)
        );
        args["p_text"] = json!("touch other.txt");
        let again = hub.ok(&owner, "upsert_ask", args.clone()).await;
        assert_eq!(again["text"], "touch other.txt", "what is pending may change");

        assert_eq!(hub.ok(&owner, "close_ask", allowed(first)).await, "closed");
        let deny =
            json!({"p_ask": first, "p_state": "answered", "p_answer": {"say": "deny"}, "p_way": "cli"});
        assert_eq!(
            hub.ok(&owner, "close_ask", deny).await,
            "already",
            "the first end stays"
        );
        args["p_text"] = json!("late");
        let late = hub.ok(&owner, "upsert_ask", args).await;
        assert_eq!(late["text"], "touch other.txt", "a closed one does not change");
        let closed = row(&hub, &owner, first).await;
        assert_eq!(
            (&closed["state"], &closed["answer"], &closed["answered_by_way"]),
            (&json!("answered"), &json!({"say": "allow"}), &json!("window"))
        );
        assert_eq!(id(&closed["answered_by_user"]), owner.id);
        assert!(closed["closed_at"].is_string());
    });
}

#[test]
fn what_is_pending_is_read_first_and_then_the_newest_ends() {
    on_hub(async |hub| {
        let Setting {
            office,
            owner,
            client,
        } = setting(&hub).await;
        let asks = [(); 4].map(|()| Uuid::new_v4());
        for (number, name) in asks.iter().enumerate() {
            let mut args = ask(office, client, *name);
            args["p_asked_at"] = json!(null);
            args["p_text"] = json!(number.to_string());
            hub.ok(&owner, "upsert_ask", args).await;
        }
        for name in &asks[..2] {
            hub.ok(&owner, "close_ask", allowed(*name)).await;
        }
        let query = format!(
            "session_asks?office_id=eq.{office}&select=text&order=closed_at.desc.nullsfirst,asked_at.asc&limit=3"
        );
        let rows = hub.get(&owner, &query).await.1;
        assert_eq!(rows, json!([{"text": "2"}, {"text": "3"}, {"text": "1"}]));
    });
}

#[test]
fn who_answered_by_a_command_is_found_by_the_database() {
    on_hub(async |hub| {
        let Setting {
            office,
            owner,
            client,
        } = setting(&hub).await;
        let operator = hub.member(office, "operator").await;
        let first = Uuid::new_v4();
        hub.ok(&owner, "upsert_ask", ask(office, client, first)).await;
        let args = json!({"p_office": office, "p_kind": "approve", "p_args": {"answer": {"say": "allow"}}, "p_key": "a"});
        let command = id(&hub.ok(&operator, "enqueue_command", args).await["id"]);
        let close = json!({"p_ask": first, "p_state": "answered", "p_answer": {"say": "allow"}, "p_way": "command",
                           "p_command": command});
        assert_eq!(hub.ok(&owner, "close_ask", close).await, "closed");
        let closed = row(&hub, &owner, first).await;
        assert_eq!(id(&closed["answered_by_user"]), operator.id);
        assert_eq!(id(&closed["answered_by_command"]), command);

        // A command that is no answer, or of another office, names nobody.
        let second = Uuid::new_v4();
        hub.ok(&owner, "upsert_ask", ask(office, client, second)).await;
        let prompt = id(&hub.enqueue(&operator, office, "p").await["id"]);
        let close = json!({"p_ask": second, "p_state": "answered", "p_way": "command", "p_command": prompt});
        assert_eq!(hub.ok(&owner, "close_ask", close).await, "closed");
        assert_eq!(row(&hub, &owner, second).await["answered_by_user"], Value::Null);
    });
}

#[test]
fn a_stranger_neither_reads_nor_writes_asks_and_learns_nothing() {
    on_hub(async |hub| {
        let Setting {
            office,
            owner,
            client,
        } = setting(&hub).await;
        let first = Uuid::new_v4();
        hub.ok(&owner, "upsert_ask", ask(office, client, first)).await;
        let (own, stranger) = hub.office().await;
        assert_eq!(hub.get(&stranger, "session_asks").await, (200, json!([])));
        let nowhere = |function: &str| match function {
            "upsert_ask" => ask(Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()),
            "close_ask" => allowed(Uuid::new_v4()),
            _ => json!({"p_office": Uuid::new_v4(), "p_settings": {}}),
        };
        for (function, theirs) in [
            ("upsert_ask", ask(office, client, Uuid::new_v4())),
            ("close_ask", allowed(first)),
            (
                "update_office_settings",
                json!({"p_office": office, "p_settings": {}}),
            ),
        ] {
            let refused = hub.rpc(&stranger, function, theirs.clone()).await;
            assert!(matches!(refused.0, 403 | 404), "{function}: {refused:?}");
            assert_eq!(refused, hub.rpc(&stranger, function, nowhere(function)).await);
            assert_eq!(hub.rpc(&hub.anon(), function, theirs).await.0, 401, "{function}");
        }
        // Under an office of their own they can neither take over the ask nor use the client.
        let their_client = hub.client(&stranger, own).await;
        let (status, _) = hub
            .rpc(&stranger, "upsert_ask", ask(own, their_client, first))
            .await;
        assert_eq!(status, 409);
        let (status, _) = hub
            .rpc(&stranger, "upsert_ask", ask(own, client, Uuid::new_v4()))
            .await;
        assert_eq!(status, 404);
        assert_eq!(row(&hub, &owner, first).await["state"], "pending");
        assert_eq!(hub.get(&hub.anon(), "session_asks").await.0, 401);
    });
}

#[test]
fn members_read_asks_and_only_the_device_that_has_the_session_closes_them() {
    on_hub(async |hub| {
        let Setting {
            office,
            owner,
            client,
        } = setting(&hub).await;
        let first = Uuid::new_v4();
        hub.ok(&owner, "upsert_ask", ask(office, client, first)).await;
        for role in ["viewer", "operator", "device"] {
            let person = hub.member(office, role).await;
            assert_eq!(
                row(&hub, &person, first).await["state"],
                "pending",
                "{role} may read"
            );
            let close = hub.rpc(&person, "close_ask", allowed(first)).await;
            assert_eq!(
                (close.0, &close.1["message"]),
                (404, &json!("no such ask")),
                "{role}"
            );
            let told = hub
                .rpc(&person, "upsert_ask", ask(office, client, Uuid::new_v4()))
                .await;
            let expected = if role == "device" { 404 } else { 403 };
            assert_eq!(told.0, expected, "{role}: {}", told.1);
            let settings = json!({"p_office": office, "p_settings": {"sessions_max": 3}});
            let (status, _) = hub.rpc(&person, "update_office_settings", settings).await;
            assert_eq!(status, 403, "{role}");
            for method in [Method::POST, Method::PATCH, Method::DELETE] {
                let path = format!("/rest/v1/session_asks?id=eq.{first}");
                let write = hub.request(&person, method.clone(), &path);
                let (status, body) = answer(write.json(&json!({"state": "withdrawn"}))).await;
                assert_eq!(status, 403, "{role} {method}: {body}");
            }
        }
        // A device of another client raises its own, and cannot use the session of the first one.
        let device = hub.member(office, "device").await;
        let its_client = hub.client(&device, office).await;
        let own = Uuid::new_v4();
        hub.ok(&device, "upsert_ask", ask(office, its_client, own)).await;
        let taken = hub
            .rpc(&device, "upsert_ask", ask(office, its_client, first))
            .await;
        assert_eq!(taken.0, 409, "{}", taken.1);
        let session = json!({"p_session": Uuid::new_v4(), "p_office": office, "p_client": client, "p_agent": null,
                             "p_state": "idle"});
        hub.ok(&owner, "upsert_session", session.clone()).await;
        let mut args = ask(office, its_client, Uuid::new_v4());
        args["p_session"] = session["p_session"].clone();
        assert_eq!(hub.rpc(&device, "upsert_ask", args).await.0, 409);
        assert_eq!(hub.rpc(&device, "close_ask", allowed(first)).await.0, 404);
        assert_eq!(hub.rpc(&owner, "close_ask", allowed(own)).await.0, 404);
        assert_eq!(row(&hub, &owner, first).await["state"], "pending");
    });
}

#[test]
fn a_removed_member_reads_and_closes_no_ask_any_more() {
    on_hub(async |hub| {
        let (office, _) = hub.office().await;
        let device = hub.member(office, "device").await;
        let client = hub.client(&device, office).await;
        let first = Uuid::new_v4();
        hub.ok(&device, "upsert_ask", ask(office, client, first)).await;
        let revoke = "update public.office_members set revoked_at = now() where user_id = $1";
        hub.admin().await.execute(revoke, &[&device.id]).await.unwrap();
        assert_eq!(hub.get(&device, "session_asks").await, (200, json!([])));
        assert_eq!(hub.rpc(&device, "close_ask", allowed(first)).await.0, 404);
        let more = hub
            .rpc(&device, "upsert_ask", ask(office, client, Uuid::new_v4()))
            .await;
        assert_eq!(more.0, 403);
    });
}

#[test]
fn asks_have_a_size_a_number_and_an_age() {
    on_hub(async |hub| {
        let Setting {
            office,
            owner,
            client,
        } = setting(&hub).await;
        for (field, value) in [
            ("p_text", json!("x".repeat(40_000))),
            ("p_kind", json!("guess")),
            ("p_tool", json!("x".repeat(201))),
        ] {
            let mut args = ask(office, client, Uuid::new_v4());
            args[field] = value;
            let (status, body) = hub.rpc(&owner, "upsert_ask", args).await;
            assert_eq!(status, 400, "{field}: {body}");
        }
        let first = Uuid::new_v4();
        hub.ok(&owner, "upsert_ask", ask(office, client, first)).await;
        for wrong in [
            json!({"p_ask": first, "p_state": "pending"}),
            json!({"p_ask": first, "p_state": "answered"}),
            json!({"p_ask": first, "p_state": "withdrawn", "p_way": "cli"}),
        ] {
            let (status, body) = hub.rpc(&owner, "close_ask", wrong.clone()).await;
            assert_eq!(status, 422, "{wrong}: {body}");
        }
        let admin = hub.admin().await;
        let fill = "insert into public.session_asks (id, office_id, session_id, client_id, kind, text)
                    select gen_random_uuid(), $1, gen_random_uuid(), $2, 'dialog', '' from generate_series(1, 99)";
        admin.execute(fill, &[&office, &client]).await.unwrap();
        let (status, body) = hub
            .rpc(&owner, "upsert_ask", ask(office, client, Uuid::new_v4()))
            .await;
        assert_eq!(status, 409, "no `later`: only an end makes room: {body}");
        let old = "update public.session_asks set asked_at = now() - interval '31 days' where office_id = $1";
        admin.execute(old, &[&office]).await.unwrap();
        // Each call tidies up first.
        let fresh = Uuid::new_v4();
        hub.ok(&owner, "upsert_ask", ask(office, client, fresh)).await;
        let rows = hub
            .get(&owner, &format!("session_asks?office_id=eq.{office}&select=id"))
            .await
            .1;
        assert_eq!(rows, json!([{ "id": fresh }]));
    });
}

#[test]
fn choices_are_a_few_short_texts_or_are_refused() {
    on_hub(async |hub| {
        let Setting {
            office,
            owner,
            client,
        } = setting(&hub).await;
        let tell = async |choices: Value| {
            let mut args = ask(office, client, Uuid::new_v4());
            args["p_choices"] = choices;
            hub.rpc(&owner, "upsert_ask", args).await
        };
        for wrong in [
            json!({"a": 1}),
            json!("red"),
            json!(["red", 1]),
            json!([null]),
            json!([["red"]]),
            json!(vec!["red"; domain::ask::CHOICES_MAX + 1]),
            json!(["x".repeat(2001)]),
        ] {
            let (status, body) = tell(wrong.clone()).await;
            assert_eq!(status, 422, "{wrong}: {body}");
            assert!(body["message"].as_str().unwrap().contains("p_choices"), "{body}");
        }
        for right in [
            Value::Null,
            json!([]),
            json!(vec!["가".repeat(1000); domain::ask::CHOICES_MAX]),
        ] {
            let (status, body) = tell(right).await;
            assert_eq!(status, 200, "{body}");
        }
    });
}

#[test]
fn answers_and_ends_go_before_prompts_and_can_be_asked_for_alone() {
    on_hub(async |hub| {
        let Setting {
            office,
            owner,
            client,
        } = setting(&hub).await;
        for number in 0..12 {
            hub.enqueue(&owner, office, &format!("p{number}")).await;
        }
        let enqueue = async |kind: &str, priority: Option<i32>| {
            let mut args = json!({"p_office": office, "p_kind": kind, "p_args": {}, "p_key": Uuid::new_v4()});
            if let Some(priority) = priority {
                args["p_priority"] = json!(priority);
            }
            hub.ok(&owner, "enqueue_command", args).await
        };
        let low = enqueue("approve", Some(-1)).await;
        assert_eq!(low["priority"], -1, "what is named is kept");
        assert_eq!(enqueue("send_keys", None).await["priority"], 0);
        for kind in ["terminate", "approve", "cancel"] {
            enqueue(kind, None).await;
        }
        let kinds = |rows: &Value| -> Vec<String> {
            let rows = rows.as_array().unwrap().iter();
            rows.map(|row| row["kind"].as_str().unwrap().to_owned()).collect()
        };
        let claim = async |limit: u32, only: Value| {
            let args = json!({"p_office": office, "p_client": client, "p_limit": limit, "p_kinds": only});
            kinds(&hub.ok(&owner, "claim_commands", args).await)
        };
        assert_eq!(claim(2, Value::Null).await, ["terminate", "approve"]);
        assert_eq!(
            claim(10, json!(["approve", "cancel", "terminate"])).await,
            ["cancel", "approve"]
        );
        assert!(claim(10, json!(["approve"])).await.is_empty(), "the prompts stay");
        // As an older client asks.
        let rows = hub.claim(&owner, office, client, 50).await;
        assert_eq!(kinds(&json!(rows)).len(), 13);
    });
}

#[test]
fn the_owner_changes_named_settings_and_a_wrong_one_is_named() {
    on_hub(async |hub| {
        let (office, owner) = hub.office().await;
        let change = async |settings: Value| {
            hub.rpc(
                &owner,
                "update_office_settings",
                json!({"p_office": office, "p_settings": settings}),
            )
            .await
        };
        let (status, body) = change(json!({"sessions_max": 4, "warm_roles": ["FE", "QA"]})).await;
        assert_eq!(status, 200, "{body}");
        let (_, body) = change(json!({"idle_minutes": 20, "sessions_max": null})).await;
        assert_eq!(
            body["settings"],
            json!({"idle_minutes": 20, "warm_roles": ["FE", "QA"]}),
            "what was not named stays"
        );
        for (wrong, word) in [
            (json!({"sessions_max": 25}), "sessions_max"),
            (json!({"sessions_max": 1.5}), "sessions_max"),
            // The client reads no whole number in it.
            (json!({"sessions_max": 4.0}), "sessions_max"),
            (json!({"warm_roles": [" \t"]}), "warm_roles"),
            (json!({"idle_minutes": "10"}), "idle_minutes"),
            (json!({"memory_mb_max": 1}), "memory_mb_max"),
            (json!({"warm_roles": "FE"}), "warm_roles"),
            (json!({"warm_roles": [1]}), "warm_roles"),
            (json!({"error_patterns": [""]}), "error_patterns"),
            (
                json!({"completion_patterns": ["x".repeat(501)]}),
                "completion_patterns",
            ),
            (json!({"warm_roels": ["FE"]}), "warm_roels"),
            (json!([1]), "object"),
            (Value::Null, "object"),
        ] {
            let (status, body) = change(wrong.clone()).await;
            assert_eq!(status, 422, "{wrong}: {body}");
            assert!(body["message"].as_str().unwrap().contains(word), "{body}");
        }
        let (_, body) = change(json!({})).await;
        assert_eq!(
            body["settings"],
            json!({"idle_minutes": 20, "warm_roles": ["FE", "QA"]})
        );
    });
}

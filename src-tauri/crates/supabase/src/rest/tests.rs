//! Requests and refusals against a stub.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::stub::{HandClock, Stub, answer, session, signed_in};
use crate::{AskClose, AskClosing, AskDraft, CompleteArgs, Completion, FinalStatus, NewCommand};

async fn rest_against(
    reply: impl Fn(&crate::stub::Asked) -> crate::stub::Answer + Send + Sync + 'static,
) -> (Stub, Rest) {
    let stub = Stub::start(reply).await;
    let (auth, _) = signed_in(&stub, &HandClock::at(0));
    let rest = Rest::new(stub.project(), auth);
    (stub, rest)
}

const EXPIRED: &str = r#"{"code":"PGRST303","details":null,"hint":null,"message":"JWT expired"}"#;

#[tokio::test]
async fn a_function_is_called_with_key_token_and_named_arguments() {
    let (stub, rest) = rest_against(|_| answer(200, "\"recorded\"")).await;
    let args = CompleteArgs {
        command: uuid::Uuid::nil().into(),
        token: uuid::Uuid::nil(),
        result: uuid::Uuid::nil().into(),
        status: FinalStatus::Succeeded,
        outcome: Some("done".to_owned()),
        output: Some(json!({"text": "한글\n"})),
        error: None,
        evidence: None,
        timings: None,
    };
    assert_eq!(
        rest.complete_command(&args).await.expect("an answer"),
        Completion::Recorded
    );
    let asked = &stub.asked()[0];
    assert_eq!(asked.line, "POST /rest/v1/rpc/complete_command");
    assert_eq!(
        (asked.bearer.as_str(), asked.header("apikey")),
        ("access.1", Some("sb_publishable_test"))
    );
    assert_eq!(asked.header("content-profile"), Some("public"));
    assert_eq!(asked.body["p_output"]["text"], "한글\n");
    assert_eq!(
        (&asked.body["p_status"], &asked.body["p_error"]),
        (&json!("succeeded"), &Value::Null)
    );
    let names: Vec<&String> = asked.body.as_object().expect("named arguments").keys().collect();
    let expected = [
        "p_command",
        "p_error",
        "p_evidence",
        "p_outcome",
        "p_output",
        "p_result",
        "p_status",
        "p_timings",
        "p_token",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn an_ask_and_its_end_travel_with_named_arguments() {
    let nil = uuid::Uuid::nil();
    let row = json!({"id": nil, "office_id": nil, "session_id": nil, "client_id": nil, "kind": "question",
        "text": "어느 것?", "choices": ["a"], "state": "pending", "asked_at": "2026-01-01T00:00:00+00:00"});
    let (stub, rest) = rest_against(move |asked| match asked.line.as_str() {
        line if line.contains("close_ask") => answer(200, "\"already\""),
        line if line.contains("session_asks") => answer(200, json!([row])),
        _ => answer(200, &row),
    })
    .await;
    let draft = AskDraft {
        ask: nil.into(),
        office: nil.into(),
        client: nil.into(),
        session: nil.into(),
        agent: nil.into(),
        command: None,
        kind: "question".to_owned(),
        tool: None,
        text: "어느 것?".to_owned(),
        choices: vec!["a".to_owned()],
        asked_at: domain::Timestamp(1_767_225_600_000),
    };
    assert_eq!(rest.upsert_ask(&draft).await.expect("a row").text, "어느 것?");
    let answered = AskClose::Answered {
        answer: Some(json!({"say": "choose", "choice": 0})),
        way: "command",
        command: Some(nil.into()),
    };
    let withdrawn = AskClose::Withdrawn {
        reason: "the turn was interrupted".to_owned(),
    };
    for close in [&answered, &withdrawn] {
        assert_eq!(
            rest.close_ask(nil.into(), close).await.expect("an answer"),
            AskClosing::Already
        );
    }
    assert_eq!(rest.asks(nil.into(), 9).await.expect("rows").rows.len(), 1);
    let asked = stub.asked();
    assert_eq!(asked[0].line, "POST /rest/v1/rpc/upsert_ask");
    assert_eq!(asked[0].body["p_asked_at"], "2026-01-01T00:00:00Z");
    assert_eq!(asked[0].body["p_choices"], json!(["a"]));
    assert_eq!(
        asked[1].body,
        json!({"p_ask": nil, "p_state": "answered", "p_answer": {"say": "choose", "choice": 0}, "p_way": "command",
               "p_command": nil})
    );
    assert_eq!(
        asked[2].body,
        json!({"p_ask": nil, "p_state": "withdrawn", "p_reason": "the turn was interrupted"})
    );
    assert!(
        asked[3].line.contains("closed_at.desc.nullsfirst"),
        "{}",
        asked[3].line
    );
}

#[tokio::test]
async fn settings_of_an_office_travel_as_one_object() {
    let (stub, rest) = rest_against(|_| {
        let office = json!({"id": uuid::Uuid::nil(), "name": "Home", "settings": {"sessions_max": 4},
            "created_at": "2026-01-01T00:00:00+00:00"});
        answer(200, office)
    })
    .await;
    let row = rest
        .update_office_settings(
            uuid::Uuid::nil().into(),
            &json!({"sessions_max": 4, "warm_roles": null}),
        )
        .await
        .expect("the office");
    assert_eq!(row.settings["sessions_max"], 4);
    assert_eq!(
        stub.asked()[0].body["p_settings"],
        json!({"sessions_max": 4, "warm_roles": null}),
        "null takes a setting away, so it must travel"
    );
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_and_the_request_repeated() {
    for refusal in [EXPIRED, r#"{"message":"Invalid API key"}"#, ""] {
        let (stub, rest) = rest_against(move |asked| match asked.bearer.as_str() {
            _ if asked.line.contains("/auth/v1/token") => answer(200, session(2)),
            "access.1" => answer(401, refusal),
            _ => answer(200, "[]"),
        })
        .await;
        assert_eq!(rest.offices().await.expect("rows"), []);
        let lines: Vec<String> = stub.asked().into_iter().map(|asked| asked.line).collect();
        assert_eq!(lines.len(), 3, "refused, refreshed, repeated: {lines:?}");
    }
}

#[tokio::test]
async fn a_token_that_is_refused_twice_is_an_error_and_no_loop() {
    let (stub, rest) = rest_against(|asked| {
        if asked.line.contains("/auth/v1/token") {
            answer(200, session(2))
        } else {
            answer(401, EXPIRED)
        }
    })
    .await;
    assert!(matches!(
        rest.offices().await,
        Err(RestError::Unauthorized { .. })
    ));
    assert_eq!(stub.count("/rest/v1/offices"), 2);
}

#[tokio::test]
async fn a_right_that_is_missing_is_no_reason_to_refresh() {
    let (stub, rest) =
        rest_against(|_| answer(401, r#"{"code":"42501","message":"permission denied"}"#)).await;
    assert!(matches!(
        rest.offices().await,
        Err(RestError::Unauthorized { .. })
    ));
    assert_eq!(stub.asked().len(), 1);
}

#[tokio::test]
async fn statuses_become_what_a_caller_branches_on() {
    type Check = fn(&RestError) -> bool;
    let cases: [(u16, &str, Check); 9] = [
        (
            403,
            r#"{"code":"42501","message":"not allowed in this office"}"#,
            |e| matches!(e, RestError::Forbidden { .. }),
        ),
        (404, r#"{"code":"PGRST202","message":"no function"}"#, |e| {
            matches!(e, RestError::NotFound { .. })
        }),
        (
            409,
            r#"{"code":"PT409","message":"idempotency key reused"}"#,
            |e| matches!(e, RestError::Conflict { .. }),
        ),
        (
            400,
            r#"{"code":"22P02","message":"bad uuid","details":null,"hint":"h"}"#,
            |e| matches!(e, RestError::Rejected { status: 400, code, hint, .. } if code == "22P02" && hint == "h"),
        ),
        (
            500,
            r#"{"code":"40001","message":"serialization"}"#,
            RestError::is_passing,
        ),
        (500, r#"{"code":"XX000","message":"internal"}"#, |e| {
            matches!(e, RestError::Rejected { status: 500, .. })
        }),
        (503, "<html>", RestError::is_passing),
        (
            429,
            "",
            |e| matches!(e, RestError::Unreachable { retry_after: Some(wait), .. } if wait.as_secs() == 7),
        ),
        (302, "", RestError::is_passing),
    ];
    for (status, body, check) in cases {
        let (_stub, rest) = rest_against(move |_| {
            let headers = vec![
                ("retry-after", "7".to_owned()),
                ("location", "http://127.0.0.1:1/".to_owned()),
            ];
            crate::stub::Answer {
                headers,
                ..answer(status, body)
            }
        })
        .await;
        let error = rest.offices().await.expect_err(body);
        assert!(check(&error), "{status} {body}: {error:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_what_was_asked_for_is_told() {
    for body in ["{\"a\":", "\"text\"", "[{\"id\":1}]", ""] {
        let (_stub, rest) = rest_against(move |_| answer(200, body)).await;
        let error = rest.offices().await.expect_err(body);
        assert!(matches!(error, RestError::Malformed { .. }), "{body}: {error}");
    }
}

#[tokio::test]
async fn a_sign_in_page_in_the_offices_place_is_no_answer_of_the_office() {
    for status in [200, 302, 403, 404, 511] {
        let (_stub, rest) =
            rest_against(move |_| answer(status, "<!DOCTYPE html><h1>Welcome to the hotel</h1>")).await;
        let error = rest.offices().await.expect_err("a page");
        assert!(error.is_passing(), "{status}: it goes away: {error:?}");
        let words = error.to_string();
        assert!(
            words.contains("sign-in page of this network") && words.contains(&status.to_string()),
            "{words}"
        );
    }
}

#[tokio::test]
async fn an_office_that_asks_to_be_left_alone_is() {
    for status in [429, 503] {
        let (stub, rest) = rest_against(move |_| crate::stub::Answer {
            headers: vec![("retry-after", "20".to_owned())],
            ..answer(status, "{}")
        })
        .await;
        for _ in 0..20 {
            let error = rest.clone().offices().await.expect_err("not now");
            assert!(
                matches!(&error, RestError::Unreachable { retry_after: Some(wait), .. } if wait.as_secs() >= 15),
                "{error:?}"
            );
        }
        assert_eq!(stub.asked().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_void_function_gives_nothing() {
    let (_stub, rest) = rest_against(|_| answer(204, "")).await;
    rest.rpc::<()>("f", &json!({})).await.expect("nothing");
}

#[tokio::test]
async fn nobody_there_is_passing_and_names_the_address() {
    let (stub, rest) = rest_against(|_| answer(200, "[]")).await;
    let url = rest.project().url.clone();
    stub.shut().await;
    let error = rest.offices().await.expect_err("nobody there");
    assert!(error.is_passing(), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(&url) && text.to_lowercase().contains("refused"),
        "{text}"
    );
}

#[tokio::test]
async fn values_stay_values_whatever_they_hold() {
    let (stub, rest) = rest_against(|_| answer(200, "[]")).await;
    let query = Select::columns("id,name")
        .eq("name", "a,b&c=d")
        .in_("kind", ["x", "a,b", "q\"u\\o", ")"])
        .gt("seq", 5)
        .order("a.asc,b.desc")
        .offset(6)
        .limit(3);
    let rows: Vec<Value> = rest.select("t", query).await.expect("rows");
    assert!(rows.is_empty());
    let asked = &stub.asked()[0];
    let url =
        reqwest::Url::parse(&format!("http://x{}", asked.line.trim_start_matches("GET "))).expect("a URL");
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let expected = [
        ("select", "id,name"),
        ("order", "a.asc,b.desc"),
        ("name", "eq.a,b&c=d"),
        ("kind", r#"in.("x","a,b","q\"u\\o",")")"#),
        ("seq", "gt.5"),
    ];
    let expected: Vec<(String, String)> = expected
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    assert_eq!(pairs, expected);
    assert_eq!(
        (asked.header("range"), asked.header("range-unit")),
        (Some("6-8"), Some("items"))
    );
    assert_eq!(asked.header("accept-profile"), Some("public"));
}

#[tokio::test]
async fn no_rows_wanted_is_no_request() {
    let (stub, rest) = rest_against(|_| answer(200, "[]")).await;
    let rows: Vec<Value> = rest
        .select("t", Select::columns("*").limit(0))
        .await
        .expect("none");
    assert!(rows.is_empty() && rest.results(&[]).await.expect("none").is_empty());
    assert!(stub.asked().is_empty());
}

#[tokio::test]
async fn results_are_read_page_by_page_to_the_last() {
    let (stub, rest) = rest_against(|asked| {
        let first: usize = asked
            .header("range")
            .and_then(|range| range.split('-').next()?.parse().ok())
            .expect("a range");
        let row = |number: usize| {
            json!({"id": uuid::Uuid::from_u128(number as u128), "command_id": uuid::Uuid::nil(),
                "office_id": uuid::Uuid::nil(), "status": "progress", "created_at": "2026-01-01T00:00:00+00:00"})
        };
        answer(200, Value::from((first..1_003.min(first + 1_000)).map(row).collect::<Vec<_>>()))
    })
    .await;
    let results = rest.results(&[uuid::Uuid::nil().into()]).await.expect("results");
    assert_eq!(
        (results.len(), stub.asked().len()),
        (1_003, 2),
        "the final result is the last row"
    );
}

#[tokio::test]
async fn claims_come_in_the_order_in_which_they_are_to_be_done() {
    let claimed = |seq: i64, priority: i32| {
        json!({"id": uuid::Uuid::from_u128(seq.unsigned_abs().into()), "seq": seq, "office_id": uuid::Uuid::nil(), "kind": "k",
            "args": {}, "priority": priority, "attempt": 1, "lease_token": uuid::Uuid::nil(),
            "lease_until": "2026-01-01T00:00:00+00:00", "created_at": "2026-01-01T00:00:00+00:00"})
    };
    let rows = json!([claimed(3, 0), claimed(1, 0), claimed(9, 5)]);
    let (_stub, rest) = rest_against(move |_| answer(200, &rows)).await;
    let order = rest
        .claim_commands(uuid::Uuid::nil().into(), uuid::Uuid::nil().into(), 10, 60)
        .await
        .expect("claimed");
    assert_eq!(
        order.iter().map(|command| command.seq).collect::<Vec<_>>(),
        [9, 1, 3]
    );
}

#[tokio::test]
async fn only_some_kinds_are_claimed_when_they_are_named() {
    let (stub, rest) = rest_against(|asked| match asked.body.get("p_kinds") {
        None => answer(200, "[]"),
        Some(_) => answer(
            404,
            r#"{"code":"PGRST202","details":null,"hint":null,"message":"Could not find the function"}"#,
        ),
    })
    .await;
    let nil = uuid::Uuid::nil();
    rest.claim_commands(nil.into(), nil.into(), 10, 60)
        .await
        .expect("an older database takes it");
    let known = [uuid::Uuid::from_u128(7).into()];
    let claim = crate::Claim {
        office: nil.into(),
        client: nil.into(),
        limit: 10,
        lease_s: 60,
        kinds: Some(&["approve"]),
        known: Some(&known),
        folder: Some(uuid::Uuid::from_u128(8)),
    };
    let error = rest
        .claim(&claim)
        .await
        .expect_err("it does not know the argument");
    assert!(
        matches!(&error, RestError::NotFound { code, .. } if code == crate::NO_SUCH_FUNCTION),
        "{error}"
    );
    let asked = stub.asked();
    assert_eq!(asked[1].body["p_kinds"], json!(["approve"]));
    assert_eq!(asked[1].body["p_known"], json!(known));
    assert_eq!(asked[1].body["p_folder"], json!(uuid::Uuid::from_u128(8)));
    assert_eq!(asked[0].body.get("p_known"), None);
    assert_eq!(asked[0].body.get("p_folder"), None);
}

#[tokio::test]
async fn a_row_that_makes_no_sense_takes_no_other_with_it() {
    let nil = uuid::Uuid::nil();
    let row = json!({"id": nil, "office_id": nil, "session_id": nil, "client_id": nil, "kind": "question",
        "text": "?", "state": "pending", "asked_at": "2026-01-01T00:00:00+00:00"});
    let mut bad = row.clone();
    bad["asked_at"] = json!("infinity");
    let rows = json!([bad, row, 7]);
    let (_stub, rest) = rest_against(move |_| answer(200, &rows)).await;
    let asks = rest.asks(nil.into(), 9).await.expect("the good one");
    assert_eq!((asks.rows.len(), asks.left_out()), (1, 2));
    let (_stub, rest) = rest_against(|_| answer(200, r#"{"no":"list"}"#)).await;
    let error = rest.asks(nil.into(), 9).await.expect_err("no rows at all");
    assert!(matches!(error, RestError::Malformed { .. }), "{error}");
}

#[tokio::test]
async fn signed_out_is_told_without_a_request() {
    let stub = Stub::start(|_| answer(200, "[]")).await;
    let store = Arc::new(crate::MemoryTokenStore::default());
    let auth = Auth::new(stub.project(), HandClock::at(0), store).expect("auth");
    let command = NewCommand {
        office: uuid::Uuid::nil().into(),
        kind: "list_sessions".to_owned(),
        args: json!({}),
        key: "k".to_owned(),
        agent: None,
        session: None,
    };
    let error = Rest::new(stub.project(), auth)
        .enqueue_command(&command)
        .await
        .expect_err("signed out");
    assert!(matches!(&error, RestError::Unauthorized { .. }), "{error}");
    assert!(stub.asked().is_empty());
}

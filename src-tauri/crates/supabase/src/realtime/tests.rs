//! The connection against a service that does everything a real one does on its bad days. Time is tokio's and stands
//! still until everybody waits.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, advance};

use super::fake::{Bench, NAME, doorbell_topic};
use super::*;

mod proof;
mod slow;

fn joined_event() -> RealtimeEvent {
    RealtimeEvent::Joined {
        topic: NAME.to_owned(),
    }
}

fn doorbell(event: &str, payload: Value) -> RealtimeEvent {
    RealtimeEvent::Doorbell {
        topic: NAME.to_owned(),
        event: event.to_owned(),
        payload,
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_joined_with_the_users_token_and_rings() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let mut peer = bench.accept().await;
    let join = peer.next("phx_join").await;
    assert_eq!(
        (join.topic.as_str(), join.join_ref == join.reference),
        ("realtime:office:o1:commands", true)
    );
    assert_eq!(join.payload["access_token"], "t1");
    let config = json!({
        "broadcast": {"ack": false, "self": false}, "presence": {"key": "", "enabled": false},
        "postgres_changes": [], "private": true,
    });
    assert_eq!(join.payload["config"], config);
    peer.reply(&join, "ok", json!({"postgres_changes": []})).await;

    let states = [ConnectionState::Joining, ConnectionState::Live];
    assert_eq!(bench.event().await, RealtimeEvent::State(states[0].clone()));
    assert_eq!(bench.event().await, joined_event());
    assert_eq!(bench.event().await, RealtimeEvent::State(states[1].clone()));

    peer.push(
        "broadcast",
        json!({"type": "broadcast", "event": "command", "payload": {"id": 1}, "meta": {"id": "m"}}),
    )
    .await;
    assert_eq!(bench.event().await, doorbell("command", json!({"id": 1})));
    let mut binary = vec![4, 27, 6, 0, 1];
    binary.extend_from_slice(b"realtime:office:o1:commandsresult{\"id\":2}");
    peer.binary(binary).await;
    assert_eq!(bench.event().await, doorbell("result", json!({"id": 2})));
    assert_eq!(
        bench.event().await,
        joined_event(),
        "once more after 3 s, for what came while it was joined"
    );
}

#[tokio::test(start_paused = true)]
async fn inserts_ring_too_and_the_system_word_is_waited_for() {
    let office: OfficeId = "6b0e0000-0000-4000-8000-000000000001".parse().expect("an id");
    let mut bench = Bench::start(vec![Topic::office_commands_and_inserts(office)]);
    let mut peer = bench.accept().await;
    let join = peer.next("phx_join").await;
    let change = json!({"event": "INSERT", "schema": "public", "table": "agent_commands", "filter": format!("office_id=eq.{office}")});
    assert_eq!(join.payload["config"]["postgres_changes"], json!([change]));
    peer.reply(&join, "ok", json!({"postgres_changes": [{"id": 7}]}))
        .await;
    let topic = format!("office:{office}:commands");
    let resync = RealtimeEvent::Joined { topic: topic.clone() };
    assert_eq!(bench.news().await, resync);
    assert_eq!(
        bench.handle.state(),
        ConnectionState::Joining,
        "the subscription is not live yet"
    );
    let system = json!({"extension": "postgres_changes", "status": "ok", "message": "Subscribed to PostgreSQL", "channel": topic});
    peer.say(json!([null, null, join.topic, "system", system])).await;
    assert_eq!(
        bench.news().await,
        resync,
        "rows written before the subscription was live were not told"
    );
    assert_eq!(
        bench.handle.state(),
        ConnectionState::Joining,
        "nothing has come through the doorbell yet"
    );
    let proof = json!({"type": "broadcast", "event": "proof", "payload": {"nonce": "n"}});
    peer.say(json!([null, null, join.topic, "broadcast", proof]))
        .await;
    bench.until_state(ConnectionState::Live).await;
    let row = json!({"ids": [7], "data": {"type": "INSERT", "record": {"id": "c1"}, "errors": null}});
    peer.say(json!([null, null, join.topic, "postgres_changes", row]))
        .await;
    assert_eq!(
        bench.news().await,
        RealtimeEvent::Doorbell {
            topic,
            event: "INSERT".to_owned(),
            payload: json!({"id": "c1"})
        }
    );
}

#[tokio::test(start_paused = true)]
async fn a_missing_system_word_does_not_hold_the_channel_up_for_ever() {
    let inserts = InsertWatch {
        schema: "public".to_owned(),
        table: "t".to_owned(),
        filter: None,
    };
    let mut bench = Bench::start(vec![Topic {
        inserts: Some(inserts),
        ..doorbell_topic()
    }]);
    let mut peer = bench.accept().await;
    let join = peer.next("phx_join").await;
    peer.reply(&join, "ok", json!({"postgres_changes": [{"id": 7}]}))
        .await;
    assert_eq!(bench.news().await, joined_event());
    let start = Instant::now();
    bench.until_state(ConnectionState::Live).await;
    assert_eq!(start.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_go_out_and_a_missing_answer_ends_the_connection() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let (mut peer, _) = bench.joined().await;
    let start = Instant::now();
    for beat in 1..=3 {
        let frame = peer.frame().await.expect("a heartbeat");
        assert_eq!(
            (frame.topic.as_str(), frame.event.as_str()),
            ("phoenix", "heartbeat")
        );
        assert_eq!(start.elapsed().as_secs(), 25 * beat);
        peer.reply(&frame, "ok", json!({})).await;
    }
    let silent = peer.frame().await.expect("a heartbeat that gets no answer");
    assert_eq!(silent.event, "heartbeat");
    let (why, permanent, _) = bench.until_backoff().await;
    assert!(why.contains("heartbeat") && !permanent, "{why}");
    assert_eq!(start.elapsed().as_secs(), 100 + 10);
    bench.joined().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_heard_but_does_not_hear_us_is_given_up_by_the_heartbeat() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let (mut peer, _) = bench.joined().await;
    let start = Instant::now();
    let speaking = async {
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            peer.push("broadcast", json!({"event": "command", "payload": {}}))
                .await;
        }
    };
    let (why, ..) = tokio::select! {
        () = speaking => unreachable!(),
        told = bench.until_backoff() => told,
    };
    assert!(why.contains("heartbeat"), "{why}");
    assert_eq!(start.elapsed().as_secs(), 35);
}

#[tokio::test(start_paused = true)]
async fn a_close_of_the_channel_gets_a_new_token_and_a_new_join_on_the_same_socket() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let (mut peer, old) = bench.joined().await;
    let told = json!({"extension": "system", "status": "error", "message": "Token has expired 3 seconds ago", "channel": NAME});
    peer.push("system", told).await;
    peer.end_channel("phx_close", &old).await;
    let (why, ..) = bench.until_backoff().await;
    assert!(why.contains("Token has expired"), "{why}");
    let join = peer.next("phx_join").await;
    assert_ne!(
        join.join_ref.as_deref(),
        Some(old.as_str()),
        "a new join has a new reference"
    );
    assert_eq!(join.payload["access_token"], "t2");
    peer.reply(&join, "ok", json!({})).await;
    bench.until_state(ConnectionState::Live).await;
    assert_eq!(
        (bench.dials(), bench.purse.refusals.load(Ordering::SeqCst)),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_gives_the_same_token_is_not_asked_for_again_and_again() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    bench.purse.has_no_other.store(true, Ordering::SeqCst);
    let (mut peer, old) = bench.joined().await;
    peer.end_channel("phx_close", &old).await;
    let join = peer.next("phx_join").await;
    assert_eq!(join.payload["access_token"], "t1");
    peer.reply(&join, "ok", json!({})).await;
    bench.until_state(ConnectionState::Live).await;
    assert_eq!(bench.purse.refusals.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_crash_of_the_channel_is_joined_again_with_the_same_token() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let (mut peer, old) = bench.joined().await;
    peer.end_channel("phx_error", &old).await;
    let join = peer.next("phx_join").await;
    assert_eq!(join.payload["access_token"], "t1");
    peer.reply(&join, "ok", json!({})).await;
    bench.until_state(ConnectionState::Live).await;
    assert_eq!(
        (bench.dials(), bench.purse.refusals.load(Ordering::SeqCst)),
        (1, 0)
    );

    peer.end_channel("phx_close", &old).await;
    peer.push("broadcast", json!({"event": "command", "payload": {}}))
        .await;
    while bench.news().await != doorbell("command", json!({})) {}
    assert_eq!(
        bench.handle.state(),
        ConnectionState::Live,
        "the close of an older join means nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn any_close_of_the_socket_is_followed_by_a_new_one() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    for code in [1000, 1001, 1012, 1011, 4000] {
        let (peer, _) = bench.joined().await;
        peer.close(code).await;
        let (why, permanent, _) = bench.until_backoff().await;
        assert!(why.contains(&code.to_string()) && !permanent, "{why}");
    }
    let (peer, _) = bench.joined().await;
    drop(peer);
    bench.until_backoff().await;
    bench.joined().await;
    assert_eq!(bench.dials(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_refused_join_is_tried_again_and_told_meanwhile() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let mut peer = bench.accept().await;
    let join = peer.next("phx_join").await;
    peer.reply(
        &join,
        "error",
        json!({"reason": "RealtimeRestarting: Realtime is restarting, please standby"}),
    )
    .await;
    let (why, permanent, wait_ms) = bench.until_backoff().await;
    assert!(
        why.contains("restarting") && !permanent && wait_ms <= 1_000,
        "{why} {wait_ms}"
    );
    let join = peer.next("phx_join").await;
    peer.reply(&join, "ok", json!({})).await;
    bench.until_state(ConnectionState::Live).await;
    assert_eq!(bench.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_join_is_asked_to_see_the_owner_after_one_new_token() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let mut peer = bench.accept().await;
    let reason =
        json!({"reason": "Unauthorized: You do not have permissions to read from this Channel topic: x"});
    for token in ["t1", "t2"] {
        let join = peer.next("phx_join").await;
        assert_eq!(join.payload["access_token"], token);
        peer.reply(&join, "error", reason.clone()).await;
    }
    let mut watch = bench.handle.watch();
    let permanent =
        |state: &ConnectionState| matches!(state, ConnectionState::Backoff { permanent: true, .. });
    watch.wait_for(permanent).await.expect("a state");
    let refused = Instant::now();
    let join = peer.next("phx_join").await;
    assert!(
        refused.elapsed() >= Duration::from_secs(60),
        "slowly: {:?}",
        refused.elapsed()
    );
    assert_eq!(
        bench.purse.refusals.load(Ordering::SeqCst),
        1,
        "no token is wasted on it again"
    );
    peer.reply(&join, "ok", json!({})).await;
    bench.until_state(ConnectionState::Live).await;
}

#[tokio::test(start_paused = true)]
async fn a_join_that_is_never_answered_is_taken_back_and_tried_again() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let mut peer = bench.accept().await;
    let first = peer.next("phx_join").await;
    let start = Instant::now();
    let leave = peer.next("phx_leave").await;
    assert_eq!(
        (start.elapsed().as_secs(), &leave.join_ref),
        (10, &first.join_ref)
    );
    let join = peer.next("phx_join").await;
    peer.reply(&first, "ok", json!({})).await;
    assert_eq!(
        bench.handle.state(),
        ConnectionState::Joining,
        "the answer to the old join is not the new one's"
    );
    peer.reply(&join, "ok", json!({})).await;
    bench.until_state(ConnectionState::Live).await;
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_fails_again_and_again_gets_a_new_socket() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let mut peer = bench.accept().await;
    for _ in 0..5 {
        let join = peer.next("phx_join").await;
        peer.reply(&join, "error", json!({"reason": "Unknown Error on Channel"}))
            .await;
    }
    peer.until_closed().await;
    bench.joined().await;
    assert_eq!(bench.dials(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_gets_one_new_token_and_then_a_person() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    bench.refuse(401, r#"{"error":"Token has expired"}"#).await;
    let (why, permanent, wait_ms) = bench.until_backoff().await;
    assert!(
        why.contains("401") && why.contains("Token has expired") && !permanent && wait_ms <= 1_000,
        "{why}"
    );
    bench.refuse(401, "").await;
    let mut watch = bench.handle.watch();
    watch.wait_for(|state| matches!(state, ConnectionState::Backoff { permanent: true, why, .. } if why.contains("publishable key")))
        .await
        .expect("a state");
    bench.joined().await;
    assert_eq!(
        bench.purse.refusals.load(Ordering::SeqCst),
        1,
        "the key is at fault, not the token"
    );
}

#[tokio::test(start_paused = true)]
async fn refusals_of_the_upgrade_are_answered_by_their_status() {
    for (status, permanent, at_least_ms) in [
        (403, true, 60_000),
        (404, true, 60_000),
        (429, false, 30_000),
        (500, false, 0),
        (503, false, 0),
    ] {
        let mut bench = Bench::start(vec![doorbell_topic()]);
        bench.refuse(status, r#"{"error":"the text"}"#).await;
        let (why, is_permanent, wait_ms) = bench.until_backoff().await;
        assert!(
            why.contains(&status.to_string()) && why.contains("the text"),
            "{why}"
        );
        assert_eq!(is_permanent, permanent, "{status}");
        assert!(wait_ms >= at_least_ms, "{status}: {wait_ms} ms");
        bench.joined().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_token_is_told_to_the_joined_channel() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let (mut peer, join_ref) = bench.joined().await;
    bench.purse.number.store(5, Ordering::SeqCst);
    let push = peer.next("access_token").await;
    assert_eq!(
        (push.join_ref.as_deref(), &push.payload),
        (Some(join_ref.as_str()), &json!({"access_token": "t5"}))
    );
    let again = peer.frame().await.expect("a heartbeat");
    assert_eq!(again.event, "heartbeat", "an unchanged token is not told again");
    assert_eq!(bench.handle.state(), ConnectionState::Live);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_changed_during_the_join_is_told_after_it() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let mut peer = bench.accept().await;
    let join = peer.next("phx_join").await;
    bench.purse.number.store(2, Ordering::SeqCst);
    advance_by(Duration::from_secs(6)).await;
    peer.reply(&join, "ok", json!({})).await;
    let push = peer.next("access_token").await;
    assert_eq!(push.payload, json!({"access_token": "t2"}));
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_at_once() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let (mut peer, _) = bench.joined().await;
    let start = Instant::now();
    peer.ping(b"are you there").await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn after_a_sleep_a_connection_that_does_not_answer_at_once_is_replaced() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let (mut peer, _) = bench.joined().await;
    let woke = Instant::now();
    bench.clock.jump_s(3_600);
    let probe = peer.frame().await.expect("a probe");
    assert_eq!(probe.event, "heartbeat");
    bench.joined().await;
    assert!(
        woke.elapsed() <= Duration::from_secs(5 + 4 + 1),
        "not only at the next heartbeat: {:?}",
        woke.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_network_it_is_tried_with_longer_and_longer_waits_and_comes_back() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    bench.wires.cut.store(true, Ordering::SeqCst);
    let (why, permanent, _) = bench.until_backoff().await;
    assert!(why.contains("127.0.0.1:1") && !permanent, "{why}");
    advance_by(Duration::from_secs(600)).await;
    let tries = bench.dials();
    assert!((10..60).contains(&tries), "{tries} tries in ten minutes");
    bench.wires.cut.store(false, Ordering::SeqCst);
    bench.handle.nudge();
    let before = Instant::now();
    bench.joined().await;
    assert!(
        before.elapsed() < Duration::from_secs(1),
        "a nudge ends the wait: {:?}",
        before.elapsed()
    );
}

/// Lets `span` pass in steps that give every task its turn.
async fn advance_by(span: Duration) {
    let until = Instant::now() + span;
    while Instant::now() < until {
        advance(Duration::from_millis(500)).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_the_upgrade_is_given_up() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let held = bench.call().await;
    let start = Instant::now();
    let (why, ..) = bench.until_backoff().await;
    assert!(why.contains("within 10 s"), "{why}");
    assert_eq!(start.elapsed().as_secs(), 10);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn after_a_good_connection_the_first_wait_is_short_again() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    for _ in 0..8 {
        bench.accept().await.close(1011).await;
        bench.until_backoff().await;
    }
    let (mut peer, _) = bench.joined().await;
    for _ in 0..3 {
        let beat = peer.frame().await.expect("a heartbeat");
        peer.reply(&beat, "ok", json!({})).await;
    }
    peer.close(1011).await;
    let (_, _, wait_ms) = bench.until_backoff().await;
    assert!(wait_ms <= 1_000, "{wait_ms} ms");
}

#[tokio::test(start_paused = true)]
async fn signed_out_is_offline_until_somebody_signs_in() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    bench.purse.signed_out.store(true, Ordering::SeqCst);
    let why = "not signed in to the office: nobody; sign in again".to_owned();
    bench
        .until_state(ConnectionState::Offline { why: why.clone() })
        .await;
    assert_eq!(bench.dials(), 0, "nobody is bothered");
    bench.purse.signed_out.store(false, Ordering::SeqCst);
    let (mut peer, _) = bench.joined().await;

    bench.purse.signed_out.store(true, Ordering::SeqCst);
    peer.until_closed().await;
    bench.until_state(ConnectionState::Offline { why }).await;
}

#[tokio::test(start_paused = true)]
async fn nonsense_from_the_server_is_skipped() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let (mut peer, _) = bench.joined().await;
    for text in [
        "",
        "{}",
        "[1]",
        "[null,null,\"realtime:other\",\"phx_close\",{}]",
        "[null,null,\"realtime:office:o1:commands\",\"broadcast\",7]",
    ] {
        peer.text(text).await;
    }
    for bytes in [vec![], vec![4], vec![4, 255, 255, 255, 1, 0], vec![99; 300]] {
        peer.binary(bytes).await;
    }
    peer.push("presence_state", json!({})).await;
    peer.push("broadcast", json!({"event": "command", "payload": {"id": 3}}))
        .await;
    while bench.news().await != doorbell("command", json!({"id": 3})) {}
    assert_eq!(bench.handle.state(), ConnectionState::Live);
}

#[tokio::test(start_paused = true)]
async fn an_application_that_does_not_listen_does_not_hold_the_connection_up() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let (mut peer, _) = bench.joined().await;
    for id in 0..1_000 {
        peer.push("broadcast", json!({"event": "command", "payload": {"id": id}}))
            .await;
    }
    for _ in 0..4 {
        let beat = peer.frame().await.expect("a heartbeat");
        assert_eq!(beat.event, "heartbeat");
        peer.reply(&beat, "ok", json!({})).await;
    }
    let mut rung = 0;
    let mut told = Vec::new();
    while rung < EVENT_QUEUE_MAX {
        match bench.event().await {
            RealtimeEvent::Doorbell { .. } => rung += 1,
            RealtimeEvent::Joined { .. } if rung > 0 => break,
            other => told.push(other),
        }
    }
    assert!(
        rung < EVENT_QUEUE_MAX,
        "the rest collapsed into one reconcile; before: {told:?}"
    );
    assert_eq!((bench.handle.state(), bench.dials()), (ConnectionState::Live, 1));
}

#[tokio::test(start_paused = true)]
async fn a_stop_says_goodbye_and_ends_every_task() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let (mut peer, _) = bench.joined().await;
    bench.stop.cancel();
    peer.until_closed().await;
    bench.tasks.close();
    bench.tasks.wait().await;
    assert_eq!(bench.handle.state(), ConnectionState::Stopped);
    while bench.heard.recv().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_a_wait_and_a_connecting_too() {
    let mut waiting = Bench::start(vec![doorbell_topic()]);
    waiting.wires.cut.store(true, Ordering::SeqCst);
    waiting.until_backoff().await;
    let mut connecting = Bench::start(vec![doorbell_topic()]);
    let _held = connecting.call().await;
    for bench in [waiting, connecting] {
        let start = Instant::now();
        bench.stop.cancel();
        bench.tasks.close();
        bench.tasks.wait().await;
        assert_eq!(
            (bench.handle.state(), start.elapsed()),
            (ConnectionState::Stopped, Duration::ZERO)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_nobody_listens_any_more() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let (mut peer, _) = bench.joined().await;
    drop(bench.heard);
    peer.until_closed().await;
    bench.tasks.close();
    bench.tasks.wait().await;
    assert_eq!(bench.handle.state(), ConnectionState::Stopped);
}

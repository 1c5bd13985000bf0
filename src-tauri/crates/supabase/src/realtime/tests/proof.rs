//! Live means proven: a ring of our own, heard through the office's doorbell.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::super::channel::RingFault;
use super::super::fake::{Bench, Peer, proven_topic};
use super::{ConnectionState, doorbell};

/// Joined and proven by the ring with this number.
async fn live(bench: &mut Bench, ring: usize) -> (Peer, String) {
    let (mut peer, join_ref) = bench.unproven().await;
    let nonce = bench.until_rung(ring).await;
    peer.ring_through(nonce).await;
    bench.until_state(ConnectionState::Live).await;
    (peer, join_ref)
}

#[tokio::test(start_paused = true)]
async fn a_joined_topic_is_called_live_only_when_its_own_ring_is_heard() {
    let mut bench = Bench::start(vec![proven_topic()]);
    let (mut peer, _) = bench.unproven().await;
    let nonce = bench.until_rung(1).await;
    assert_eq!(
        bench.handle.state(),
        ConnectionState::Joining,
        "joined is not proven"
    );
    peer.ring_through(nonce).await;
    bench.until_state(ConnectionState::Live).await;
    peer.push("broadcast", json!({"event": "command", "payload": {"id": 1}}))
        .await;
    while bench.news().await != doorbell("command", json!({"id": 1})) {}
    assert_eq!(bench.rings(), 1, "what rings by itself needs no ring of ours");
}

#[tokio::test(start_paused = true)]
async fn any_doorbell_is_a_proof_and_a_ring_is_nobodys_news() {
    let mut bench = Bench::start(vec![proven_topic()]);
    bench.gong.hangs.store(true, Ordering::SeqCst);
    let (mut peer, _) = bench.unproven().await;
    bench.until_rung(1).await;
    peer.ring_through(uuid::Uuid::nil()).await;
    bench.until_state(ConnectionState::Live).await;
    peer.push("broadcast", json!({"event": "command", "payload": {}}))
        .await;
    loop {
        match bench.news().await {
            super::RealtimeEvent::Doorbell { event, .. } => {
                assert_eq!(event, "command", "the application hears of no proof");
                break;
            }
            _ => continue,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_ring_that_is_not_heard_gets_a_new_join_and_in_the_end_a_new_socket() {
    let mut bench = Bench::start(vec![proven_topic()]);
    let (mut peer, first) = bench.unproven().await;
    bench.until_rung(1).await;
    let rung = Instant::now();
    let leave = peer.next("phx_leave").await;
    let waited = rung.elapsed().as_secs_f32();
    assert!((9.9..=10.1).contains(&waited), "{waited} s");
    assert_eq!(leave.join_ref, Some(first.clone()));
    let (why, permanent, _) = bench.until_backoff().await;
    assert!(why.contains("not heard") && !permanent, "{why}");
    let join = peer.next("phx_join").await;
    assert_ne!(join.join_ref, Some(first), "a join of its own");
    peer.reply(&join, "ok", json!({})).await;
    // Deaf again and again: joined each time, heard never.
    peer.until_closed_answering_joins().await;
    live(&mut bench, 6).await;
    assert_eq!(bench.dials(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_office_that_cannot_ring_is_told_as_such_and_its_doorbells_are_heard_all_the_same() {
    let mut bench = Bench::start(vec![proven_topic()]);
    let fault = RingFault::Never("no such function".to_owned());
    *bench.gong.fault.lock().expect("fault") = Some(fault);
    let (mut peer, _) = bench.unproven().await;
    let (why, permanent, _) = bench.until_backoff().await;
    assert!(why.contains("no such function") && permanent, "{why}");
    peer.push("broadcast", json!({"event": "command", "payload": {"id": 4}}))
        .await;
    while bench.news().await != doorbell("command", json!({"id": 4})) {}
    bench.until_state(ConnectionState::Live).await;
    assert_eq!(bench.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_ring_that_could_not_be_sent_is_sent_again() {
    let mut bench = Bench::start(vec![proven_topic()]);
    let fault = RingFault::Later("no network".to_owned());
    *bench.gong.fault.lock().expect("fault") = Some(fault);
    let (mut peer, _) = bench.unproven().await;
    let (why, permanent, wait_ms) = bench.until_backoff().await;
    assert!(
        why.contains("no network") && !permanent && wait_ms <= 2_000,
        "{why}"
    );
    *bench.gong.fault.lock().expect("fault") = None;
    let nonce = bench.until_rung(2).await;
    peer.ring_through(nonce).await;
    bench.until_state(ConnectionState::Live).await;
    assert_eq!(bench.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_ring_is_told_so_asks_slowly_and_a_nudge_asks_at_once() {
    let mut bench = Bench::start(vec![proven_topic()]);
    let fault = RingFault::Never("not allowed in this office".to_owned());
    *bench.gong.fault.lock().expect("fault") = Some(fault);
    let (mut peer, _) = bench.unproven().await;
    let start = Instant::now();
    tokio::select! {
        () = peer.until_closed() => panic!("closed"),
        _ = bench.until_rung(6) => {}
    }
    let spent = start.elapsed().as_secs();
    assert!(
        (300..=450).contains(&spent),
        "five waits of 60 s to 90 s: {spent} s"
    );
    let (why, permanent, _) = bench.until_backoff().await;
    assert!(why.contains("not allowed") && permanent, "{why}");
    // Somebody has given the right.
    *bench.gong.fault.lock().expect("fault") = None;
    let start = Instant::now();
    bench.handle.nudge();
    let nonce = bench.until_rung(7).await;
    assert_eq!(start.elapsed().as_secs(), 1);
    peer.ring_through(nonce).await;
    bench.until_state(ConnectionState::Live).await;
    assert_eq!(bench.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_ring_that_hangs_does_not_hang_the_connection() {
    let mut bench = Bench::start(vec![proven_topic()]);
    bench.gong.hangs.store(true, Ordering::SeqCst);
    let (mut peer, _) = bench.unproven().await;
    bench.until_rung(1).await;
    bench.gong.hangs.store(false, Ordering::SeqCst);
    // It says nothing about the socket: on the same join it is rung once more.
    let (why, permanent, _) = tokio::select! {
        () = peer.until_closed() => panic!("closed"),
        told = bench.until_backoff() => told,
    };
    assert!(why.contains("has not answered") && !permanent, "{why}");
    let nonce = bench.until_rung(2).await;
    peer.ring_through(nonce).await;
    bench.until_state(ConnectionState::Live).await;
    assert_eq!(bench.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_doorbell_is_proven_anew_after_a_while_and_one_that_rings_is_not() {
    let mut bench = Bench::start(vec![proven_topic()]);
    let (mut peer, _) = live(&mut bench, 1).await;
    let proven = Instant::now();
    while proven.elapsed() < Duration::from_secs(280) {
        let beat = peer.frame().await.expect("a heartbeat");
        peer.reply(&beat, "ok", json!({})).await;
    }
    peer.push("broadcast", json!({"event": "result", "payload": {}}))
        .await;
    let rang = Instant::now();
    let nonce = loop {
        tokio::select! {
            beat = peer.frame() => peer.reply(&beat.expect("a heartbeat"), "ok", json!({})).await,
            nonce = bench.until_rung(2) => break nonce,
        }
    };
    let waited = rang.elapsed().as_secs();
    assert!(
        (300..=390).contains(&waited),
        "{waited} s after the last doorbell"
    );
    assert_eq!(
        bench.handle.state(),
        ConnectionState::Live,
        "it is tried, not doubted"
    );
    peer.ring_through(nonce).await;
    let heard = Instant::now();
    while heard.elapsed() < Duration::from_secs(60) {
        assert_eq!(bench.handle.state(), ConnectionState::Live);
        let beat = peer.frame().await.expect("a heartbeat");
        peer.reply(&beat, "ok", json!({})).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_doorbell_that_was_missed_is_doubted_until_it_rings_again() {
    let mut bench = Bench::start(vec![proven_topic()]);
    let (mut peer, _) = live(&mut bench, 1).await;
    bench.handle.doubt();
    bench.until_state(ConnectionState::Joining).await;
    let nonce = bench.until_rung(2).await;
    peer.ring_through(nonce).await;
    bench.until_state(ConnectionState::Live).await;
    assert_eq!(bench.dials(), 1, "a connection that works is kept");
}

#[tokio::test(start_paused = true)]
async fn after_a_jump_of_the_clock_everything_is_looked_at_and_a_good_connection_is_kept() {
    for jump_s in [3_600, -3_600, 86_400, -86_400] {
        let mut bench = Bench::start(vec![proven_topic()]);
        let (mut peer, _) = live(&mut bench, 1).await;
        while bench.heard.try_recv().is_ok() {}
        bench.clock.jump_s(jump_s);
        let jumped = Instant::now();
        bench.until_state(ConnectionState::Joining).await;
        assert_eq!(bench.news().await, super::joined_event(), "look at everything");
        let probe = peer.frame().await.expect("a probe");
        assert_eq!(probe.event, "heartbeat");
        peer.reply(&probe, "ok", json!({})).await;
        let nonce = bench.until_rung(2).await;
        peer.ring_through(nonce).await;
        bench.until_state(ConnectionState::Live).await;
        assert!(
            jumped.elapsed() <= Duration::from_secs(6),
            "{jump_s}: {:?}",
            jumped.elapsed()
        );
        assert_eq!(bench.dials(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn nudges_cause_no_storm_of_connections() {
    let mut bench = Bench::start(vec![proven_topic()]);
    bench.wires.cut.store(true, Ordering::SeqCst);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(59) {
        bench.handle.nudge();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(bench.dials(), 10, "so many a minute, whoever asks");
    let (why, ..) = bench.until_backoff().await;
    assert!(why.contains("too many connections"), "{why}");
    bench.wires.cut.store(false, Ordering::SeqCst);
    live(&mut bench, 1).await;
}

//! A line that works, only slowly: it must come to live and stay there. Limits that begin everything anew grow.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::super::codec::Frame;
use super::super::fake::{Bench, Peer, doorbell_topic, proven_topic};
use super::*;

/// Longer than any usual limit for an answer.
const SLOW: Duration = Duration::from_secs(15);

/// A service that does everything, each thing after [`SLOW`], for so long.
async fn serve_slowly(bench: &Bench, peer: &mut Peer, span: Duration) {
    let (end, mut rings, mut bells) = (Instant::now() + span, 0, VecDeque::new());
    let mut frames: VecDeque<(Instant, Frame)> = VecDeque::new();
    while Instant::now() < end {
        tokio::select! {
            frame = peer.frame() => frames.push_back((Instant::now() + SLOW, frame.expect("it stays"))),
            () = sleep(Duration::from_millis(200)) => {}
        }
        while rings < bench.rings() {
            rings += 1;
            bells.push_back((Instant::now() + SLOW, bench.until_rung(rings).await));
        }
        while let Some((_, frame)) = frames.pop_front_if(|(due, _)| *due <= Instant::now()) {
            peer.reply(&frame, "ok", json!({})).await;
        }
        while let Some((_, nonce)) = bells.pop_front_if(|(due, _)| *due <= Instant::now()) {
            peer.ring_through(nonce).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_on_which_everything_takes_long_becomes_live_and_stays_it() {
    let mut bench = Bench::start(vec![proven_topic()]);
    let never = bench.call().await;
    let (why, ..) = bench.until_backoff().await;
    assert!(why.contains("within 10 s"), "{why}");
    drop(never);
    // The next one is waited for longer.
    let call = bench.call().await;
    sleep(SLOW).await;
    let mut peer = Peer::on(call).await;
    serve_slowly(&bench, &mut peer, Duration::from_secs(40)).await;
    assert_eq!(bench.handle.state(), ConnectionState::Live);
    serve_slowly(&bench, &mut peer, Duration::from_secs(600)).await;
    assert_eq!(bench.handle.state(), ConnectionState::Live);
    assert_eq!(bench.dials(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_join_whose_answer_takes_long_is_waited_for_longer_on_the_same_socket() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let mut peer = bench.accept().await;
    let late = peer.next("phx_join").await;
    peer.next("phx_leave").await;
    let join = peer.next("phx_join").await;
    peer.reply(&late, "ok", json!({})).await;
    sleep(SLOW).await;
    peer.reply(&join, "ok", json!({})).await;
    bench.until_state(ConnectionState::Live).await;
    assert_eq!(bench.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_doorbell_that_takes_long_is_waited_for_longer_on_the_same_socket() {
    let mut bench = Bench::start(vec![proven_topic()]);
    let mut peer = bench.accept().await;
    let (mut rings, mut limits_s) = (0, Vec::new());
    while limits_s.len() < 2 {
        let join = peer.next("phx_join").await;
        peer.reply(&join, "ok", json!({})).await;
        rings += 1;
        bench.until_rung(rings).await;
        let rung = Instant::now();
        peer.next("phx_leave").await;
        limits_s.push(rung.elapsed().as_secs());
    }
    assert_eq!(limits_s, [10, 20]);
    let join = peer.next("phx_join").await;
    peer.reply(&join, "ok", json!({})).await;
    let nonce = bench.until_rung(rings + 1).await;
    sleep(Duration::from_secs(24)).await;
    peer.ring_through(nonce).await;
    bench.until_state(ConnectionState::Live).await;
    assert_eq!(bench.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_whose_answers_take_long_cost_one_connection_and_go_out_within_the_servers_minute() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let (mut peer, _) = bench.joined().await;
    assert_eq!(peer.frame().await.expect("a heartbeat").event, "heartbeat");
    let (why, ..) = bench.until_backoff().await;
    assert!(why.contains("heartbeat"), "{why}");
    let (mut peer, _) = bench.joined().await;
    let mut last = Instant::now();
    for _ in 0..10 {
        let beat = peer.frame().await.expect("a heartbeat");
        assert_eq!(beat.event, "heartbeat");
        assert!(last.elapsed() <= Duration::from_secs(50), "{:?}", last.elapsed());
        last = Instant::now();
        sleep(SLOW).await;
        peer.reply(&beat, "ok", json!({})).await;
    }
    assert_eq!(bench.handle.state(), ConnectionState::Live);
    assert_eq!(bench.dials(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dead_line_is_noticed_later_than_usual_only_by_so_much() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let mut noticed_s = Vec::new();
    for _ in 0..5 {
        let (mut peer, _) = bench.joined().await;
        let start = Instant::now();
        assert_eq!(peer.frame().await.expect("a heartbeat").event, "heartbeat");
        bench.until_backoff().await;
        noticed_s.push(start.elapsed().as_secs());
    }
    assert_eq!(noticed_s, [35, 45, 55, 55, 55]);
}

#[tokio::test(start_paused = true)]
async fn another_network_ends_the_patience_with_a_connection_that_is_being_opened() {
    let mut bench = Bench::start(vec![doorbell_topic()]);
    let mut dead = Vec::new();
    for _ in 0..2 {
        dead.push(bench.call().await);
        bench.until_backoff().await;
    }
    dead.push(bench.call().await);
    let start = Instant::now();
    sleep(Duration::from_secs(3)).await;
    bench.handle.nudge();
    dead.push(bench.call().await);
    let waited = start.elapsed().as_secs();
    assert_eq!(waited, 13, "10 s from the nudge on, and no wait after it");
    // A wake from sleep says the same.
    bench.clock.jump_s(3_600);
    let start = Instant::now();
    bench.joined().await;
    assert!(
        start.elapsed() <= Duration::from_secs(5 + 10 + 8),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(bench.purse.refusals.load(Ordering::SeqCst), 0);
}

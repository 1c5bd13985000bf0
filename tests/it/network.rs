//! A bad network between the client and its office: what is shown is true, what is enqueued is done once, what is done
//! is reported once.
//!
//! The client speaks to the office through [`harness::proxy`]; the stories look at the office directly.

use std::sync::Arc;
use std::time::Duration;

use cli::machine::Core;
use client::StopHow;
use domain::CommandId;
use harness::claude::{ClaudeHome, program};
use harness::clock::ShiftedClock;
use harness::proxy::{Act, Bells, FaultProxy, Weather};
use harness::remote::{PASSWORD, Remote, settings_for};
use harness::wait::{LONG, wait_for, wait_until};
use harness::world::{problem_of, result_of, state_of, surroundings};
use serde_json::{Value, json};
use supabase::{CommandState, ResultStatus};

/// The model is not needed here.
const NO_MODEL: &str = "http://127.0.0.1:9";

/// A workstation, its office, and the network between.
struct Line {
    remote: Remote,
    proxy: FaultProxy,
    core: Core,
    clock: Arc<ShiftedClock>,
    office_dir: tempfile::TempDir,
    _dir: tempfile::TempDir,
    _home: ClaudeHome,
}

impl Line {
    /// Everything is up; the client's connection goes through what `prepare` makes of the network.
    async fn start_with(prepare: impl FnOnce(&FaultProxy)) -> Line {
        let (office_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let home = ClaudeHome::new();
        let remote = Remote::start(office_dir.path(), 0).await;
        let proxy = FaultProxy::start(remote.hub.url()).await;
        prepare(&proxy);
        let mut settings = settings_for(proxy.url(), &remote.hub.keys().publishable);
        settings.claude.program = Some(program());
        settings.limits.warm_max = 0;
        let clock = Arc::new(ShiftedClock::default());
        let mut world = cli::world::World {
            clock: clock.clone(),
            ..surroundings(dir.path(), &home, NO_MODEL, settings)
        };
        world
            .environment
            .insert("SEMO_PASSWORD".to_owned(), PASSWORD.to_owned());
        let core = Core::start(&world).await.expect("the core starts");
        Line {
            remote,
            proxy,
            core,
            clock,
            office_dir,
            _dir: dir,
            _home: home,
        }
    }

    async fn start() -> Line {
        let line = Line::start_with(|_| ()).await;
        line.until_live().await;
        line
    }

    async fn status(&self) -> String {
        let state = state_of(&self.core).await;
        state["connection"]["status"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    async fn until_live(&self) {
        wait_until("the connection is live", LONG, || async {
            self.status().await == "live"
        })
        .await;
    }

    async fn until_not_live(&self) {
        wait_until("it is noticed", LONG, || async { self.status().await != "live" }).await;
    }

    /// Enqueues a command that needs no agent, as a remote server does, past the bad network.
    async fn enqueue(&self) -> CommandId {
        self.remote.enqueue("list_sessions", json!({}), None).await
    }

    /// Waits for its end: it was done, and there is exactly one result.
    async fn until_done_once(&self, id: CommandId) {
        let (row, result) = result_of(&self.remote.rest, id).await;
        assert_eq!(row.state, CommandState::Succeeded, "{result:?}");
        self.assert_one_result(id).await;
    }

    async fn assert_one_result(&self, id: CommandId) {
        let results = self.remote.rest.results(&[id]).await.expect("the results");
        let ends: Vec<_> = results
            .iter()
            .filter(|result| !matches!(result.status, ResultStatus::Progress))
            .collect();
        assert_eq!(ends.len(), 1, "one end and no more: {ends:?}");
    }

    /// How often the client has asked for commands.
    fn claims(&self) -> usize {
        self.proxy.seen("rpc/claim_commands").len()
    }

    /// How many sockets it has opened.
    fn sockets(&self) -> u64 {
        self.proxy.counts().upgrades
    }

    async fn stop(self) {
        self.proxy.weather(Weather::clear());
        self.proxy.disarm();
        self.core.stop(StopHow::Now).await;
        self.proxy.stop().await;
        self.remote.hub.stop().await.expect("the hub stops");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_office_whose_doorbell_is_never_heard_is_not_called_connected_and_the_poll_brings_everything() {
    let line = Line::start_with(|proxy| proxy.bells(Bells::Lost)).await;
    wait_until("the socket is open and joined", LONG, || async {
        line.proxy.counts().bells_lost > 0
    })
    .await;
    let settled = line.claims();
    wait_until("it polls", LONG, || async { line.claims() >= settled + 2 }).await;
    for _ in 0..3 {
        let before = line.claims();
        let id = line.enqueue().await;
        line.until_done_once(id).await;
        // One claim may have been under way when it was put in; the first one after that takes it.
        let claims = line.claims() - before;
        assert!(claims <= 8, "taken by the next poll: {claims} claims");
    }
    assert_ne!(
        line.status().await,
        "live",
        "a door that no bell comes through is not connected"
    );
    line.proxy.bells(Bells::Ring);
    line.until_live().await;
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doorbell_that_is_lost_on_a_good_connection_is_caught_by_the_poll_and_one_that_comes_twice_does_nothing_twice()
 {
    let line = Line::start().await;
    line.proxy.bells(Bells::Twice);
    let id = line.enqueue().await;
    line.until_done_once(id).await;
    line.proxy.bells(Bells::Lost);
    let id = line.enqueue().await;
    line.until_done_once(id).await;
    assert!(
        line.proxy.counts().bells_lost > 0,
        "it did ring, and nobody heard it"
    );
    line.proxy.bells(Bells::Ring);
    line.until_live().await;
    assert_eq!(line.sockets(), 1, "a socket that works is kept");
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_a_router_forgot_is_noticed_and_replaced_and_what_came_meanwhile_is_done() {
    let line = Line::start().await;
    line.proxy.strand();
    let id = line.enqueue().await;
    line.until_not_live().await;
    line.until_done_once(id).await;
    line.until_live().await;
    assert!(line.sockets() >= 2, "a new socket");
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_swallows_everything_is_told_within_the_heartbeats_deadline_and_comes_back() {
    let line = Line::start().await;
    for weather in [Weather::half_open(), Weather::deaf()] {
        line.proxy.weather(weather);
        line.until_not_live().await;
        let id = line.enqueue().await;
        line.proxy.weather(Weather::clear());
        line.until_done_once(id).await;
        line.until_live().await;
    }
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_byte_at_a_time_is_enough() {
    let line = Line::start_with(|proxy| proxy.weather(Weather::crumbs())).await;
    line.until_live().await;
    for _ in 0..3 {
        let id = line.enqueue().await;
        line.until_done_once(id).await;
    }
    assert_eq!(line.sockets(), 1);
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_by_satellite_is_slow_and_no_reason_to_begin_anew() {
    let delay = Duration::from_millis(500);
    let line = Line::start_with(|proxy| proxy.weather(Weather::slow(delay))).await;
    line.until_live().await;
    for _ in 0..2 {
        let id = line.enqueue().await;
        line.until_done_once(id).await;
    }
    assert_eq!(line.sockets(), 1, "what works is kept");
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_is_doubled_cut_off_or_late_leaves_exactly_one_result() {
    let line = Line::start().await;
    let report = "rpc/complete_command";
    for act in [
        Act::Twice,
        Act::CutRequest,
        Act::CutAnswer(0),
        Act::CutAnswer(40),
        Act::Delay(Duration::from_secs(2)),
        Act::AfterNext(Duration::from_secs(5)),
        Act::status(502),
        Act::later(503, 2),
        Act::captive_portal(),
    ] {
        let (before, trapped) = (line.proxy.seen(report).len(), line.proxy.counts().trapped);
        line.proxy.trap(report, 1, act.clone());
        let id = line.enqueue().await;
        line.until_done_once(id).await;
        assert_eq!(line.proxy.counts().trapped, trapped + 1, "{act:?} met the report");
        if matches!(act, Act::CutRequest | Act::CutAnswer(_) | Act::Answer { .. }) {
            wait_until("it is sent until the office has answered", LONG, || async {
                line.proxy.seen(report).len() >= before + 2
            })
            .await;
        }
        // The second report of the same result has been answered, too.
        wait_until("every report is answered", LONG, || async {
            line.proxy
                .seen(report)
                .last()
                .is_some_and(|last| last.status == Some(200))
        })
        .await;
        line.assert_one_result(id).await;
    }
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_orders_that_change_places_on_the_way_are_both_done_once() {
    let line = Line::start().await;
    line.proxy
        .trap("rpc/complete_command", 2, Act::AfterNext(Duration::from_secs(3)));
    line.proxy
        .trap("rpc/claim_commands", 1, Act::AfterNext(Duration::from_secs(3)));
    let ids = [line.enqueue().await, line.enqueue().await, line.enqueue().await];
    for id in ids {
        line.until_done_once(id).await;
    }
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_giving_out_was_not_heard_is_given_out_again_and_done_once() {
    let line = Line::start().await;
    line.proxy.trap("rpc/claim_commands", 1, Act::CutAnswer(0));
    let id = line.enqueue().await;
    line.until_done_once(id).await;
    let row = line.remote.rest.command(id).await.expect("an answer");
    let attempt = row.expect("the command").attempt;
    assert_eq!(attempt, 1, "given again under its lease, and not anew behind it");
    line.stop().await;
}

/// Lets the client's sign-in look expired, once the network is as `while_away` makes it.
const TWO_HOURS_MS: i64 = 2 * 3_600_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_expired_while_the_network_was_away_is_renewed_once_and_the_password_is_not_needed() {
    let line = Line::start().await;
    let passwords = line.proxy.seen("grant_type=password").len();
    line.proxy.weather(Weather::refusing());
    line.proxy.cut();
    line.until_not_live().await;
    line.clock.advance_ms(TWO_HOURS_MS);
    let id = line.enqueue().await;
    line.proxy.weather(Weather::clear());
    line.until_done_once(id).await;
    line.until_live().await;
    let renewals = line.proxy.seen("grant_type=refresh_token");
    assert_eq!(renewals.len(), 1, "one refresher: {renewals:?}");
    assert_eq!(line.proxy.seen("grant_type=password").len(), passwords);
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_whose_answer_is_lost_is_asked_for_again_and_the_sign_in_lives_on() {
    let line = Line::start().await;
    let passwords = line.proxy.seen("grant_type=password").len();
    // The office has spent the refresh token and made a new pair; it never arrives.
    line.proxy.trap("grant_type=refresh_token", 1, Act::CutAnswer(0));
    line.clock.advance_ms(TWO_HOURS_MS);
    wait_until("it is renewed in the end", LONG, || async {
        let renewals = line.proxy.seen("grant_type=refresh_token");
        renewals.len() >= 2 && renewals.last().is_some_and(|last| last.status == Some(200))
    })
    .await;
    let id = line.enqueue().await;
    line.until_done_once(id).await;
    line.until_live().await;
    assert_eq!(
        line.proxy.seen("grant_type=password").len(),
        passwords,
        "nobody had to sign in anew"
    );
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_server_is_followed_by_one_new_connection_and_not_by_a_storm() {
    let line = Line::start().await;
    let url = line.remote.hub.url().to_owned();
    let port = url
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .expect("a port");
    let Line {
        remote,
        proxy,
        core,
        clock,
        office_dir,
        _dir,
        _home,
    } = line;
    let before = proxy.counts();
    let office = remote.office.clone();
    remote.hub.stop().await.expect("the hub stops");
    wait_until("it is noticed", LONG, || async {
        state_of(&core).await["connection"]["status"] != "live"
    })
    .await;
    let mut remote = Remote::start(office_dir.path(), port).await;
    // The harness makes one more; the client is in the first.
    remote.office = office;
    let line = Line {
        remote,
        proxy,
        core,
        clock,
        office_dir,
        _dir,
        _home,
    };
    line.until_live().await;
    let id = line.enqueue().await;
    line.until_done_once(id).await;
    let tries = line.proxy.seen("realtime/v1/websocket").len();
    assert_eq!(line.sockets(), before.upgrades + 1, "one new socket");
    assert!(tries <= 12, "{tries} tries");
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_jump_by_an_hour_or_a_day_in_either_direction_lose_nothing() {
    let line = Line::start().await;
    let (hour_ms, day_ms) = (3_600_000, 86_400_000);
    for jump_ms in [hour_ms, -hour_ms, day_ms, -day_ms] {
        let claims = line.claims();
        line.clock.advance_ms(jump_ms);
        wait_until("it looks at once", LONG, || async { line.claims() > claims }).await;
        let id = line.enqueue().await;
        line.until_done_once(id).await;
        line.until_live().await;
    }
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sign_in_page_of_a_hotel_is_called_that_and_costs_nothing() {
    let line = Line::start().await;
    line.proxy.trap("", u32::MAX, Act::captive_portal());
    line.proxy.cut();
    wait_until("the problem is told in words that help", LONG, || async {
        let problem = problem_of(&line.core, "office_unreachable").await;
        problem["message"]
            .as_str()
            .is_some_and(|words| words.contains("sign-in page"))
    })
    .await;
    let shown = wait_for("the connection says why", LONG, || async {
        let connection: Value = state_of(&line.core).await["connection"].clone();
        let why = connection["why"].as_str()?.to_owned();
        why.contains("sign-in page").then_some(connection)
    })
    .await;
    assert_ne!(shown["status"], "live");
    let id = line.enqueue().await;
    line.proxy.disarm();
    line.until_done_once(id).await;
    line.until_live().await;
    wait_until("the problem is over", LONG, || async {
        state_of(&line.core).await["problems"] == json!([])
    })
    .await;
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_realtime_refuses_the_poll_carries_on_and_the_refusals_are_respected() {
    for act in [Act::status(503), Act::later(429, 30), Act::status(403)] {
        let line = Line::start_with(|proxy| proxy.trap("realtime/v1/websocket", u32::MAX, act.clone())).await;
        wait_until("it has been refused", LONG, || async {
            !line.proxy.seen("realtime/v1/websocket").is_empty()
        })
        .await;
        for _ in 0..3 {
            let id = line.enqueue().await;
            line.until_done_once(id).await;
        }
        assert_ne!(line.status().await, "live");
        let tries = line.proxy.seen("realtime/v1/websocket").len();
        let most = if act == Act::status(503) { 10 } else { 1 };
        assert!(tries <= most, "{act:?}: {tries} tries");
        line.stop().await;
    }
}

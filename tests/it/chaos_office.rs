//! Chaos around the workstation: the office's server and database die, answers are lost, two workstations race, the
//! journal is wiped, the disk is full, clocks jump, a question stays open over a crash.

use std::time::Duration;

use domain::SessionId;
use harness::hub_process::HubProcess;
use harness::invariants::check;
use harness::processes::built;
use harness::proxy::{Act, FaultProxy};
use harness::station::{Door, Station, Wanted};
use harness::wait::{LONG, wait_for, wait_until};
use harness::world::World;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;
use supabase::{AskRow, AskState, CommandState, ResultStatus};

use super::chaos::{Ground, begun, ended};

const HOUR_MS: i64 = 3_600_000;
/// How long something of the office's may take to be seen.
const SEEN_WAIT: Duration = LONG;

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_and_its_database_die_in_mid_turn_and_each_result_arrives_once() {
    let mut ground = Ground::new().await;
    let up = ground.station.place.up().await;
    // The turn ends while there is no office.
    let without_hub = ground
        .station
        .send(&Door::of(&ground.hub), Wanted::Done, 1_000, None)
        .await;
    begun(&ground.station, &without_hub).await;
    ground.hub.kill();
    ended(&ground.station, &without_hub).await;
    ground.hub.start_again().await;
    let state = Door::of(&ground.hub).settled(without_hub.id).await.state;
    assert_eq!(state, CommandState::Succeeded);

    let without_database = ground
        .station
        .send(&Door::of(&ground.hub), Wanted::Done, 500, None)
        .await;
    begun(&ground.station, &without_database).await;
    assert!(ground.hub.kill_postgres() > 0, "its Postgres runs");
    let after = ground
        .station
        .send(&Door::of(&ground.hub), Wanted::Done, 0, None)
        .await;

    // The core dies as well, and comes back before its office does.
    let without_both = ground
        .station
        .send(&Door::of(&ground.hub), Wanted::Done, 2_000, None)
        .await;
    begun(&ground.station, &without_both).await;
    up.signal("KILL");
    up.ended().await;
    ground.hub.kill();
    let up = ground.station.place.up().await;
    ended(&ground.station, &without_both).await;
    ground.hub.start_again().await;
    let jobs = vec![without_hub, without_database, after, without_both];
    let states = ground.settle("a dead hub", jobs, &[]).await;
    assert_eq!(states, [CommandState::Succeeded; 4]);
    assert_eq!(up.ended().await, Some(0));
    ground.hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_whose_answer_was_lost_before_the_core_died_stands_once_in_the_office() {
    let hub = HubProcess::start().await;
    let proxy = FaultProxy::start(&hub.url).await;
    let station = Station::new(proxy.url(), &hub.key).await;
    let ground = Ground { hub, station };
    let up = ground.station.place.up().await;
    proxy.trap("rpc/complete_command", 1_000, Act::CutAnswer(0));
    let job = ground
        .station
        .send(&Door::of(&ground.hub), Wanted::Done, 0, None)
        .await;
    let state = Door::of(&ground.hub).settled(job.id).await.state;
    assert_eq!(
        state,
        CommandState::Succeeded,
        "the office has it; the workstation cannot know"
    );
    up.signal("KILL");
    up.ended().await;
    proxy.disarm();
    let up = ground.station.place.up().await;
    ground.settle("a lost answer", vec![job], &[]).await;
    assert_eq!(up.ended().await, Some(0));
    ground.hub.stop().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workstations_of_one_office_race_one_dies_and_nothing_is_done_twice() {
    let hub = HubProcess::start().await;
    let door = Door::of(&hub);
    let first = Station::new(&hub.url, &hub.key).await;
    let second = Station::new(&hub.url, &hub.key).await;
    let (first_up, second_up) = tokio::join!(first.place.up(), second.place.up());
    let mut jobs = Vec::new();
    for number in 0..8 {
        let agent = hub.agents[number % hub.agents.len()].id;
        // The marks of whichever does it lie in one file.
        jobs.push(first.send(&door.to(agent), Wanted::Done, 500, None).await);
    }
    wait_until("some have begun", SEEN_WAIT, || async {
        !first.marks().is_empty()
    })
    .await;
    first_up.signal("KILL");
    first_up.ended().await;
    let first_up = first.place.up().await;
    for job in &jobs {
        let row = door.settled(job.id).await;
        assert_eq!(row.state, CommandState::Succeeded, "{row:?}");
    }
    first.down().await;
    second.down().await;
    check("two workstations", &door, &[&first, &second], &jobs, &[]).await;
    assert_eq!(first_up.ended().await, Some(0));
    assert_eq!(second_up.ended().await, Some(0));
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_whose_journal_was_wiped_is_never_done_again() {
    let ground = Ground::new().await;
    let up = ground.station.place.up().await;
    let job = ground
        .station
        .send(&Door::of(&ground.hub), Wanted::Done, 3_000, None)
        .await;
    begun(&ground.station, &job).await;
    up.signal("KILL");
    up.ended().await;
    for name in ["journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"] {
        std::fs::remove_file(ground.station.data().join(name)).expect("it was there");
    }
    ground.hub.lapse_leases().await;
    let up = ground.station.place.up().await;
    let states = ground.settle("a wiped journal", vec![job], &[]).await;
    assert_eq!(
        states,
        [CommandState::Unconfirmed],
        "nobody knows any more what came of it"
    );
    assert_eq!(up.ended().await, Some(0));
    ground.hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_at_the_end_of_a_turn_and_a_crash_behind_it_lose_no_result() {
    let ground = Ground::new().await;
    let up = ground.station.place.up_after("trap '' XFSZ").await;
    let job = ground
        .station
        .send(&Door::of(&ground.hub), Wanted::Done, 1_500, None)
        .await;
    begun(&ground.station, &job).await;
    let pid = Pid::from_raw(i32::try_from(up.pid()).expect("a pid"));
    let full = Rlimit {
        current: Some(1),
        maximum: None,
    };
    // As far as the core can tell: no file of it may grow any more.
    prlimit(pid, Resource::Fsize, full).expect("the limit can be set");
    ended(&ground.station, &job).await;
    wait_until("the problem is told", SEEN_WAIT, || async {
        up.state().await["problems"].to_string().contains("\"journal\"")
    })
    .await;
    up.signal("KILL");
    up.ended().await;
    let up = ground.station.place.up().await;
    let states = ground.settle("a full disk", vec![job], &[]).await;
    assert_eq!(states, [CommandState::Succeeded]);
    assert_eq!(up.ended().await, Some(0));
    ground.hub.stop().await;
}

/// An ask of the office that waits for somebody, once there is one.
async fn open_ask(door: &Door<'_>) -> AskRow {
    wait_for("an ask is open", SEEN_WAIT, || async {
        let asks = door.rest.asks(door.office, 50).await.ok()?;
        asks.rows.into_iter().find(|ask| ask.state == AskState::Pending)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_was_open_when_the_core_died_can_be_answered_and_no_dead_one_stays() {
    let ground = Ground::new().await;
    let door = Door::of(&ground.hub);
    let up = ground.station.place.up().await;
    let allowed = ground.station.place.dir.path().join("allowed");
    let prompt = format!("Ask first. do=permission:touch+{}", allowed.display());
    let id = door
        .enqueue("send_prompt", json!({ "prompt": prompt }), Some(door.agent), None)
        .await;
    open_ask(&door).await;
    up.signal("KILL");
    up.ended().await;
    let up = ground.station.place.up().await;
    // The same dialog: under the id of before, or raised anew and the old one withdrawn.
    let mut answers = Vec::new();
    while !allowed.exists() {
        let ask = open_ask(&door).await;
        let session: SessionId = ask.session_id;
        let args = json!({ "session": session, "ask": ask.id, "answer": { "say": "allow" } });
        let answer = door.enqueue("approve", args, None, Some(session)).await;
        door.settled(answer).await;
        answers.push(answer);
        assert!(answers.len() < 20, "no answer ever reaches the agent");
    }
    assert_eq!(door.settled(id).await.state, CommandState::Succeeded);
    answers.push(id);
    ground.settle("an open question", Vec::new(), &answers).await;
    assert_eq!(up.ended().await, Some(0));
    ground.hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_jump_in_mid_turn_and_tokens_that_expire_by_it_cost_nothing() {
    let world = World::start_with(|settings| settings.claude.program = Some(built("scripted-agent"))).await;
    let marks = world.paths.data_dir.join("marks");
    for jump in [2 * HOUR_MS, 24 * HOUR_MS, -48 * HOUR_MS, 400 * 24 * HOUR_MS] {
        let prompt = format!("Slowly. do=tool:echo+{jump}+>>+{} do=slow:1500", marks.display());
        let id = world.send("FE", &prompt).await;
        wait_until("it is at work", SEEN_WAIT, || async {
            let state = world.state().await;
            let sessions = state["sessions"].as_array().cloned().unwrap_or_default();
            sessions
                .iter()
                .any(|session| session["state"]["state"] == "working")
        })
        .await;
        world.clock.advance_ms(jump);
        let (row, result) = world.result(id).await;
        assert_eq!(
            row.state,
            CommandState::Succeeded,
            "after a jump by {jump} ms: {result:?}"
        );
        let results = world.rest.results(&[id]).await.expect("the office answers");
        let finals = results.iter().filter(|row| row.status != ResultStatus::Progress);
        assert_eq!(finals.count(), 1, "after a jump by {jump} ms: {results:?}");
        let text = std::fs::read_to_string(&marks).expect("the agent has made its mark");
        let done = text.lines().filter(|line| *line == jump.to_string()).count();
        assert_eq!(
            done, 1,
            "after a jump by {jump} ms it was carried out {done} times"
        );
    }
    world.stop().await;
}

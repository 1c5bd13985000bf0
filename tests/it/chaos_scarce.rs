//! Chaos by want: what a workstation needs is taken away while it works, and comes back. No room on the disk at any
//! write of its journal; a sign-in that the office no longer knows.

use harness::hub_process::HubProcess;
use harness::invariants::check;
use harness::program::Up;
use harness::proxy::{Act, FaultProxy};
use harness::station::{Door, Job, Station, Wanted};
use harness::wait::{LONG, wait_for, wait_until};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use supabase::CommandState;

use super::chaos::{Ground, begun};

/// Bytes that one page takes in the log of the journal.
const FRAME: u64 = 4_096 + 24;
/// So many pages more than before fit at each try: no transaction of a command writes fewer.
const FRAMES_MORE: u64 = 3;
/// A command writes less than this many times as much.
const TRIES_MAX: u64 = 60;

/// No file of the core grows beyond `most`, as if there were no more room on the disk; `None`: there is again.
fn room(up: &Up, most: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(up.pid()).expect("a pid"));
    let limit = Rlimit {
        current: most,
        maximum: None,
    };
    prlimit(pid, Resource::Fsize, limit).expect("the limit can be set");
}

/// It is told that this was not begun, and why, and that is so.
async fn not_begun(door: &Door<'_>, station: &Station, job: &Job) {
    let results = door.rest.results(&[job.id]).await.expect("the office answers");
    let error = results
        .iter()
        .find_map(|row| row.error.clone())
        .unwrap_or_default();
    let message = error["message"].as_str().unwrap_or_default();
    assert!(
        error["class"] == "journal" && message.contains("it was not begun"),
        "{results:?}"
    );
    assert!(
        !station.marks().contains(&format!("begin-{}", job.tag)),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_at_each_write_of_the_journal_in_turn_loses_and_repeats_nothing() {
    let ground = Ground::new().await;
    let door = Door::of(&ground.hub);
    let journal = ground.station.data().join("journal.sqlite-wal");
    let mut up = ground.station.place.up_after("trap '' XFSZ").await;
    // The session is there already: its program must not be born with the core's limit.
    let session = door.session().await;
    let mut jobs = Vec::new();
    let mut refused = 0;
    for more in 0.. {
        assert!(more < TRIES_MAX, "a command writes more than all this");
        let written = std::fs::metadata(&journal).expect("the log of the journal").len();
        room(&up, Some(written + more * FRAMES_MORE * FRAME));
        let job = ground.station.send(&door, Wanted::Done, 0, Some(session)).await;
        let fits = wait_for("it is done, or the problem is told", LONG, || async {
            let row = door.rest.command(job.id).await.ok().flatten()?;
            if up.state().await["problems"].to_string().contains("\"journal\"") {
                return Some(false);
            }
            row.state.is_final().then_some(true)
        })
        .await;
        // Every fourth time there is a crash besides, and room again only behind it.
        if !fits && more % 4 == 3 {
            up.signal("KILL");
            up.ended().await;
            up = ground.station.place.up_after("trap '' XFSZ").await;
        }
        room(&up, None);
        let done = door.settled(job.id).await.state == CommandState::Succeeded;
        if !done {
            not_begun(&door, &ground.station, &job).await;
        }
        wait_until("the problem is gone", LONG, || async {
            !up.state().await["problems"].to_string().contains("\"journal\"")
        })
        .await;
        jobs.push(job);
        refused += u64::from(!fits);
        if fits && done && more > 0 {
            break;
        }
    }
    assert!(refused >= 4, "the disk was full {refused} times");
    ground.settle("a full disk", jobs, &[]).await;
    assert_eq!(up.ended().await, Some(0));
    ground.hub.stop().await;
}

/// What the office says to a token whose time is over.
fn expired() -> Act {
    Act::Answer {
        status: 401,
        content_type: "application/json",
        headers: Vec::new(),
        body: r#"{"code":"PGRST303","message":"JWT expired","details":null,"hint":null}"#.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_expire_at_every_request_of_a_command_and_a_renewal_that_is_lost_cost_nothing() {
    let hub = HubProcess::start().await;
    let proxy = FaultProxy::start(&hub.url).await;
    let station = Station::new(proxy.url(), &hub.key).await;
    let door = Door::of(&hub);
    let mut up = station.place.up().await;
    let mut jobs = Vec::new();
    for (request, renewal) in [
        ("rpc/claim_commands", None),
        ("rpc/begin_command", None),
        ("rpc/complete_command", None),
        ("rpc/claim_commands", Some(Act::CutAnswer(0))),
        ("rpc/begin_command", Some(Act::CutRequest)),
        ("rpc/complete_command", Some(Act::CutAnswer(0))),
        ("rpc/complete_command", Some(Act::status(503))),
    ] {
        let crashes = renewal.is_some() && request == "rpc/complete_command";
        let refusals = || {
            proxy
                .seen(request)
                .iter()
                .filter(|seen| seen.status == Some(401))
                .count()
        };
        let renewals = || proxy.seen("grant_type=refresh_token").len();
        let (before, renewed) = (refusals(), renewals());
        proxy.trap(request, 1, expired());
        if let Some(act) = renewal {
            proxy.trap("grant_type=refresh_token", 1, act);
        }
        let job = station.send(&door, Wanted::Done, 300, None).await;
        begun(&station, &job).await;
        if crashes {
            wait_until("the renewal is under way", LONG, || async {
                door.rest
                    .command(job.id)
                    .await
                    .ok()
                    .flatten()
                    .is_some_and(|row| row.state.is_final())
                    || renewals() > renewed
            })
            .await;
            up = station.place.killed_and_up(up).await;
        }
        let row = door.settled(job.id).await;
        assert_eq!(row.state, CommandState::Succeeded, "{request}: {row:?}");
        assert_eq!(refusals(), before + 1, "{request} was refused once");
        jobs.push(job);
        proxy.disarm();
    }
    station.down().await;
    check("expired tokens", &door, &[&station], &jobs, &[]).await;
    assert_eq!(up.ended().await, Some(0));
    hub.stop().await;
    proxy.stop().await;
}

//! The program as people and scripts meet it: what it prints, its exit codes, its end, and what is left of it after a
//! kill in the middle.

use std::process::{Command, Stdio};

use harness::program::{Place, code, err, out};
use harness::remote::{EMAIL, PASSWORD, Remote};
use harness::stub::Stub;
use harness::wait::{LONG, wait_until};
use harness::world::result_of;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use supabase::{CommandState, NewCommand};

/// Processes whose command line names this place.
fn processes_of(place: &Place) -> Vec<String> {
    let listed = Command::new("ps")
        .args(["-eo", "pid,args", "-ww"])
        .output()
        .expect("ps runs");
    let name = place.dir.path().display().to_string();
    String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter(|line| line.contains(&name))
        .map(str::to_owned)
        .collect()
}

/// Holders of this place, each with an agent below it.
fn agents_of(place: &Place) -> Vec<String> {
    let holders = place.dir.path().join("data/holders");
    harness::processes::naming(&holders)
        .into_iter()
        .map(|process| process.line)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_starts_it_sends_work_reads_results_and_ends_it() {
    let stub = Stub::start().await.expect("the stub");
    let place = Place::new(&stub.url());
    let nobody = place.run(&["status"]).await;
    assert_eq!(code(&nobody), Some(5), "nothing runs yet: {}", err(&nobody));
    assert!(
        err(&nobody).contains("hint: Start it with `semo up`"),
        "{}",
        err(&nobody)
    );

    let up = place.up().await;
    let done = place
        .run(&["send", "--agent", "fe", "Say hello.", "--wait"])
        .await;
    assert_eq!(code(&done), Some(0), "{}", err(&done));
    assert!(
        out(&done).contains("[SEMO:DONE]"),
        "the final message is on stdout: {}",
        out(&done)
    );
    assert!(
        err(&done).contains("done") && err(&done).contains("verified, git"),
        "{}",
        err(&done)
    );

    let (tail, followed) = place.follow(&["tail", "--json"]);
    wait_until("tail shows what was there before", LONG, || async {
        std::fs::read_to_string(&followed)
            .unwrap_or_default()
            .contains("Say hello.")
    })
    .await;
    let unconfirmed = place
        .run(&["send", "--agent", "Joon", "Stop early. scn=nomark", "--wait"])
        .await;
    assert_eq!(code(&unconfirmed), Some(3), "{}", err(&unconfirmed));
    let failed = place
        .run(&["send", "--agent", "QA", "Fail. scn=err400", "--wait", "--json"])
        .await;
    assert_eq!(code(&failed), Some(1));
    let said: Value = serde_json::from_str(&out(&failed)).expect("one JSON object");
    assert_eq!(said["result"]["error"]["class"], "billing");
    wait_until("tail shows how they ended", LONG, || async {
        let lines = std::fs::read_to_string(&followed).unwrap_or_default();
        let shown = |state: &str| {
            let told = |line: &str| {
                serde_json::from_str::<Value>(line).is_ok_and(|said| said["command"]["state"] == state)
            };
            lines.lines().any(told)
        };
        shown("succeeded") && shown("unconfirmed") && shown("failed")
    })
    .await;
    tail.signal("INT");
    assert_eq!(tail.ended().await, Some(0));
    let nobody = place.run(&["send", "--agent", "CEO", "Anything."]).await;
    assert_eq!(code(&nobody), Some(2));
    assert!(
        err(&nobody).contains("Its agents are:") && err(&nobody).contains("FE (Mina)"),
        "{}",
        err(&nobody)
    );
    let later = place
        .run(&[
            "send",
            "--agent",
            "FE",
            "Slowly. scn=slow:400",
            "--wait",
            "--timeout",
            "1",
        ])
        .await;
    assert_eq!(code(&later), Some(6), "{}", err(&later));

    let status = place.run(&["status"]).await;
    assert_eq!(code(&status), Some(0), "{}", err(&status));
    for part in [
        &format!("ui          {}", up.said["ui"].as_str().expect("an address")),
        "office      This machine",
        "connection  live",
        "FE · Mina",
        "Say hello.",
    ] {
        assert!(
            out(&status).contains(part),
            "`{part}` is missing in:\n{}",
            out(&status)
        );
    }
    let doctor = place.run(&["doctor", "--json"]).await;
    assert_eq!(code(&doctor), Some(0), "{}", out(&doctor));
    let second = place.run(&["up"]).await;
    assert_eq!(code(&second), Some(1));
    assert!(err(&second).contains("already runs"), "{}", err(&second));
    assert!(!err(&second).contains("token"), "{}", err(&second));

    up.signal("INT");
    wait_until("it waits for the turn that runs", LONG, || async {
        up.state().await["ending"] == json!({ "how": "finish", "turns": 1 })
    })
    .await;
    let status = out(&place.run(&["status"]).await);
    assert!(
        status.contains("nothing new is taken; 1 turn still runs"),
        "{status}"
    );
    up.signal("INT");
    assert_eq!(up.ended().await, Some(0));
    wait_until("every process is gone", LONG, || async {
        processes_of(&place).is_empty()
    })
    .await;
    stub.stop().await;
}

/// A standard output that nobody reads any more.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    Stdio::from(writer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_gone_ends_what_prints_and_never_the_office() {
    let stub = Stub::start().await.expect("the stub");
    let place = Place::new(&stub.url());
    let up = place.start(&["up"], unread());
    wait_until("the office runs", LONG, || async {
        code(&place.run(&["status"]).await) == Some(0)
    })
    .await;
    for args in [
        &["send", "--agent", "FE", "Say hello.", "--wait"] as &[&str],
        &["tail"],
        &["tail", "--json"],
        &["status"],
        &["status", "--json"],
        &["doctor"],
        &["asks"],
        &["preserved"],
        &["office", "settings"],
        &["--help"],
    ] {
        let ended = place.run_into(args, unread()).await;
        let said = err(&ended);
        assert!(
            !said.contains("panicked") && !said.contains("error:"),
            "{args:?}: {said}"
        );
        // The library that prints the help ends with 0.
        let expected = if args == ["--help"] { 0 } else { 141 };
        assert_eq!(code(&ended), Some(expected), "{args:?}: {said}");
    }
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let ended = place
        .run_into(&["status"], Stdio::from(full.expect("a full disk")))
        .await;
    assert_eq!(code(&ended), Some(1));
    assert!(
        err(&ended).contains("error: could not write to standard output"),
        "{}",
        err(&ended)
    );
    assert_eq!(code(&place.run(&["status"]).await), Some(0), "the office goes on");
    place.down(up).await;
    stub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_or_follows_goes_on_with_the_core_that_was_started_again() {
    let stub = Stub::start().await.expect("the stub");
    let place = Place::new(&stub.url());
    let up = place.up().await;
    let (tail, followed) = place.follow(&["tail"]);
    let killed_and_started = async {
        stub.turn_where("the turn has begun", LONG, |request| {
            request.prompt().is_some_and(|prompt| prompt.contains("Slowly"))
        })
        .await;
        up.signal("KILL");
        up.ended().await;
        place.up().await
    };
    let (waited, up) = tokio::join!(
        place.run(&["send", "--agent", "FE", "Slowly. scn=slow:60", "--wait"]),
        killed_and_started
    );
    let said = err(&waited);
    assert_eq!(code(&waited), Some(0), "{said}");
    assert_eq!(said.matches("connection lost").count(), 1, "{said}");
    assert!(out(&waited).contains("[SEMO:DONE]"), "{}", out(&waited));
    wait_until("tail shows it as well", LONG, || async {
        let lines = std::fs::read_to_string(&followed).unwrap_or_default();
        lines.contains("Slowly") && lines.contains("done")
    })
    .await;
    tail.signal("INT");
    assert_eq!(tail.ended().await, Some(0));

    let killed = async {
        stub.turn_where("the second turn has begun", LONG, |request| {
            request
                .prompt()
                .is_some_and(|prompt| prompt.contains("Leisurely"))
        })
        .await;
        up.signal("KILL");
        up.ended().await
    };
    let args = [
        "send",
        "--agent",
        "BE",
        "Leisurely. scn=slow:400",
        "--wait",
        "--wait-for",
        "2",
    ];
    let (waited, _) = tokio::join!(place.run(&args), killed);
    assert_eq!(code(&waited), Some(5), "{}", err(&waited));
    assert!(
        err(&waited).contains("no core has come back within 2 seconds"),
        "{}",
        err(&waited)
    );
    // What the killed core has left behind is ended without another one.
    let ended = place.run(&["down"]).await;
    assert_eq!(code(&ended), Some(0), "{}", err(&ended));
    assert!(
        out(&ended).contains("that an earlier one had left"),
        "{}",
        out(&ended)
    );
    wait_until("no agent is left", LONG, || async {
        agents_of(&place).is_empty()
    })
    .await;
    let nothing = place.run(&["down"]).await;
    assert_eq!(out(&nothing), "nothing runs here\n");
    stub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_line_says_why_and_is_ended_by_the_beginning_of_its_id() {
    let stub = Stub::start().await.expect("the stub");
    let mut place = Place::new(&stub.url());
    place.set("SEMO_SESSIONS_MAX", "1");
    let up = place.up().await;
    let slow = place
        .run(&["send", "--agent", "FE", "Slowly. scn=slow:400", "--json"])
        .await;
    assert_eq!(code(&slow), Some(0), "{}", err(&slow));
    let slow: Value = serde_json::from_str(&out(&slow)).expect("JSON");
    stub.turn_where("the turn has begun", LONG, |request| {
        request.prompt().is_some_and(|prompt| prompt.contains("Slowly"))
    })
    .await;
    let waited = place
        .run(&["send", "--agent", "BE", "Wait.", "--wait", "--timeout", "6"])
        .await;
    assert_eq!(code(&waited), Some(6), "{}", err(&waited));
    assert!(err(&waited).contains("waiting in line: "), "{}", err(&waited));
    assert!(!err(&waited).contains("running"), "{}", err(&waited));
    let state = up.state().await;
    let commands = state["commands"].as_array().expect("commands");
    let waits = commands.iter().find(|command| command["status"] == "waiting");
    let id = waits.expect("it still waits")["id"].as_str().expect("its id");
    let cancelled = place.run(&["cancel", &id[..8]]).await;
    assert_eq!(code(&cancelled), Some(0), "{}", err(&cancelled));
    wait_until("it is cancelled", LONG, || async {
        let status = out(&place.run(&["status"]).await);
        status.contains(&format!("{}  cancelled", &id[..8]))
    })
    .await;

    let status = out(&place.run(&["status"]).await);
    assert!(status.contains("sessions    1 of 1"), "{status}");
    let session = up.state().await["sessions"][0]["id"]
        .as_str()
        .expect("a session")
        .to_owned();
    let short = place.run(&["terminate", &session[..3]]).await;
    assert_eq!(code(&short), Some(2));
    assert!(err(&short).contains("at least 4 characters"), "{}", err(&short));
    let ended = place.run(&["terminate", &session[..8], "--json"]).await;
    assert_eq!(code(&ended), Some(0), "{}", err(&ended));
    wait_until("its command is over", LONG, || async {
        let state = up.state().await;
        let commands = state["commands"].as_array().cloned().unwrap_or_default();
        commands
            .iter()
            .any(|command| command["id"] == slow["command_id"] && command["finished_at"].is_number())
    })
    .await;
    wait_until("its session is gone", LONG, || async {
        let explained = place.run(&["explain", &session]).await;
        code(&explained) == Some(2)
            && err(&explained).contains("is not on this machine any more; its last command")
    })
    .await;
    let unknown = place.run(&["explain", "00000000"]).await;
    assert!(
        err(&unknown).contains("no session whose id begins with"),
        "{}",
        err(&unknown)
    );
    place.down(up).await;
    stub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_during_the_first_start_leaves_a_whole_database_and_no_process() {
    let place = Place::new("http://127.0.0.1:9");
    let up = place.up_at_once();
    let cluster = place.dir.path().join("data/hub");
    wait_until("the database is being made", LONG, || async { cluster.exists() }).await;
    up.signal_group("INT");
    assert_eq!(up.ended().await, Some(0));
    assert!(processes_of(&place).is_empty(), "{:?}", processes_of(&place));
    let up = place.up().await;
    up.signal("TERM");
    assert_eq!(up.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_behind_the_hub_leaves_no_process_and_can_be_tried_again() {
    let place = Place::new("http://127.0.0.1:9");
    let announcement = place.dir.path().join("data/running.json");
    std::fs::create_dir_all(announcement.join("in the way")).expect("a folder");
    let failed = place.run(&["up"]).await;
    assert_eq!(code(&failed), Some(1), "{}", err(&failed));
    assert!(err(&failed).contains("running.json"), "{}", err(&failed));
    assert!(processes_of(&place).is_empty(), "{:?}", processes_of(&place));
    std::fs::remove_dir_all(&announcement).expect("it can be removed");
    let up = place.up().await;
    up.signal("HUP");
    assert_eq!(up.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_has_grown_large_is_put_aside_but_not_under_a_running_core() {
    let place = Place::new("http://127.0.0.1:9");
    let log = place.dir.path().join("data/semo.log");
    let aside = place.dir.path().join("data/semo.log.1");
    let grow = || {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(&log);
        file.expect("the log")
            .set_len(11 * 1024 * 1024)
            .expect("its size");
    };
    std::fs::create_dir_all(place.dir.path().join("data")).expect("a folder");
    grow();
    let up = place.up().await;
    assert_eq!(aside.metadata().expect("put aside").len(), 11 * 1024 * 1024);
    assert!(log.metadata().expect("a new log").len() < 1024 * 1024);
    std::fs::remove_file(&aside).expect("it can be removed");
    grow();
    assert_eq!(code(&place.run(&["up"]).await), Some(1));
    assert!(!aside.exists(), "the running core still writes there");
    up.signal("TERM");
    assert_eq!(up.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_journal_cannot_be_written_nothing_is_begun_and_nothing_is_lost() {
    let office_dir = tempfile::tempdir().expect("a folder");
    let stub = Stub::start().await.expect("the stub");
    let remote = Remote::start(office_dir.path(), 0).await;
    let mut place = Place::new(&stub.url());
    let sample = place.dir.path().join("sample");
    worktree::sample_repository(&sample).await.expect("a repository");
    let config = place.dir.path().join("config");
    std::fs::create_dir_all(&config).expect("a folder");
    std::fs::write(
        config.join("settings.toml"),
        format!("[repositories]\nsample = {:?}\n", sample.display().to_string()),
    )
    .expect("settings");
    place.set("SEMO_PROFILE", "supabase");
    place.set("SEMO_SUPABASE_URL", remote.hub.url());
    place.set("SEMO_SUPABASE_KEY", &remote.hub.keys().publishable);
    place.set("SEMO_EMAIL", EMAIL);
    place.set("SEMO_PASSWORD", PASSWORD);
    // A disk that is full, as far as this process can tell: no file of it may grow any more.
    let up = place.up_after("trap '' XFSZ").await;
    wait_until("it has joined", LONG, || async {
        up.state().await["connection"]["status"] == "live"
    })
    .await;
    let pid = Pid::from_raw(i32::try_from(up.pid()).expect("a pid"));
    let limit = |bytes| {
        prlimit(
            pid,
            Resource::Fsize,
            Rlimit {
                current: bytes,
                maximum: None,
            },
        )
        .expect("the limit can be set");
    };
    limit(Some(1));
    let command = NewCommand {
        office: remote.office.id,
        kind: "send_prompt".to_owned(),
        args: json!({ "prompt": "Say hello." }),
        key: "once".to_owned(),
        agent: Some(remote.agent.id),
        session: None,
    };
    let id = remote
        .rest
        .enqueue_command(&command)
        .await
        .expect("the command is taken")
        .id;
    wait_until("the problem is told", LONG, || async {
        let problems = up.state().await["problems"].to_string();
        problems.contains("\"journal\"") && problems.contains("No new command is begun")
    })
    .await;
    assert!(stub.turns().is_empty(), "nothing was begun");
    limit(None);
    let (row, result) = result_of(&remote.rest, id).await;
    assert_eq!(row.state, CommandState::Succeeded, "{result:?}");
    assert_eq!(stub.turns().len(), 1, "and it was done once");
    wait_until("the problem is gone", LONG, || async {
        up.state().await["problems"] == json!([])
    })
    .await;
    place.down(up).await;
    remote.hub.stop().await.expect("the hub stops");
    stub.stop().await;
}

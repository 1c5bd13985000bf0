//! What holders are for: a program, its output and its end outlive the core that started it.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests, outside a test function; a core that is killed is a process"
)]

mod broken;
mod doors;
mod faults;
mod full;
mod homeless;
mod house;
mod leftovers;
mod unread;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use house::{GRACE, House, SIZE, attached, exit, gone, lives, number, plan, shows, signal, until};
use rustix::process::Signal;
use terminal::{Holders, RING_BYTES_MAX, Seen, TerminalError};

/// Numbered words of 16 bytes: a hole or a repetition anywhere shows.
const WORDS: &str =
    "stty -opost; i=0; while [ $i -lt 60000 ]; do printf '%015d ' $i; i=$((i+1)); done; read x";
const WORD_BYTES: usize = 16;
/// Where the stand-in for a core finds its house.
const HOUSE: &str = "SEMO_TEST_HOUSE";

/// Not a test of its own: the core that [`a_core_killed_in_mid_output_costs_no_byte`] kills, in a process of its own.
#[tokio::test]
async fn the_core_that_will_be_killed_follows_its_program() {
    let Some(dir) = std::env::var_os(HOUSE) else {
        return;
    };
    let program = env!("CARGO_BIN_EXE_semo-holder").into();
    let holders = Holders::of_processes(program, dir.into(), 1, house::LIMIT);
    let terminal = holders.start(&plan(WORDS), "killed").await.unwrap();
    let mut end = terminal.changed();
    end.wait_for(|end| *end > 100_000).await.unwrap();
    println!("\nin the middle");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_core_killed_in_mid_output_costs_no_byte() {
    let house = House::new();
    let mut core = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "the_core_that_will_be_killed_follows_its_program",
            "--nocapture",
        ])
        .env(HOUSE, house.dir())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(core.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "in the middle"));
    core.kill().unwrap();
    core.wait().unwrap();
    let terminal = attached(house.launch(2).attach("killed").await);
    assert!(lives(terminal.pid()), "the program goes on working");
    assert!(!*terminal.lost().borrow());
    let wanted = 60_000 * WORD_BYTES as u64;
    let mut end = terminal.changed();
    let whole = tokio::time::timeout(house::LIMIT, end.wait_for(|end| *end >= wanted)).await;
    assert!(whole.is_ok(), "only {} of {wanted}", *terminal.changed().borrow());
    let output = terminal.output_since(0);
    assert_eq!((output.from, output.end), (0, wanted));
    for (number, word) in output.bytes.chunks(WORD_BYTES).enumerate() {
        assert_eq!(word, format!("{number:015} ").as_bytes());
    }
    assert!(terminal.stop(GRACE).await.unwrap().is_proven());
    assert!(
        !house.has_folder("killed"),
        "a holder that was released leaves nothing"
    );
}

#[tokio::test]
async fn a_core_that_lets_go_and_comes_again_goes_on_where_it_was() {
    let house = House::new();
    let script = "stty -echo; echo ready; while read line; do echo \"got:$line:\"; done";
    let first = house.shell("again", script).await;
    shows(&first, "ready").await;
    first.write("one\r").await.unwrap();
    shows(&first, "got:one:").await;
    first.detach();
    until("the handle sees nothing more", || first.resize(SIZE).is_err()).await;
    let refused = first.write("lost\r").await.unwrap_err();
    assert!(matches!(refused, TerminalError::LetGo { .. }), "{refused}");
    let second = attached(house.launch(2).attach("again").await);
    assert_eq!(second.pid(), first.pid());
    assert!(
        second.screen().rows.iter().any(|row| row == "got:one:"),
        "at once"
    );
    second.write("two\r").await.unwrap();
    shows(&second, "got:two:").await;
    assert!(!second.screen().rows.iter().any(|row| row.contains("lost")));
    assert!(first.exited().borrow().is_none() && !*first.lost().borrow());
    assert!(second.stop(GRACE).await.unwrap().is_proven());
}

#[tokio::test]
async fn what_is_older_than_what_is_kept_is_left_out_by_its_offset() {
    let house = House::new();
    let script = "stty -opost -echo; echo ready; read x; head -c 9000000 /dev/zero | tr '\\0' y; \
                  printf '\\r\\nthe last row'; read x";
    let first = house.shell("long", script).await;
    shows(&first, "ready").await;
    let before = first.changed().borrow().to_owned();
    // Typed by a core that is gone a moment later: the output finds nobody.
    first.write("\r").await.unwrap();
    drop(first);
    let end = before + 9_000_000 + 14;
    let second = attached(house.launch(2).attach("long").await);
    let mut changed = second.changed();
    let all = tokio::time::timeout(house::LIMIT, changed.wait_for(|at| *at == end)).await;
    assert!(all.is_ok(), "{} of {end}", *second.changed().borrow());
    let kept = second.output_since(0);
    assert_eq!(kept.end - kept.from, RING_BYTES_MAX as u64);
    shows(&second, "the last row").await;
    second.detach();
    // Now nobody has been there for megabytes: the holder's own ring has lost the beginning.
    let third = attached(house.launch(3).attach("long").await);
    let kept = third.output_since(0);
    assert!(kept.end >= end && kept.from > 0, "{} to {}", kept.from, kept.end);
    shows(&third, "the last row").await;
    assert!(third.stop(GRACE).await.unwrap().is_proven());
}

#[tokio::test]
async fn a_screen_whose_beginning_is_gone_is_rebuilt_from_its_painting() {
    let house = House::new();
    let script = "stty -opost -echo; printf '\\033]2;titled\\007\\033[?2004h\\033[?1049h'; \
                  yes | head -c 6000000; printf '\\033[2J\\033[5;3Hthe box\\033[7;9H'; echo ready; read x";
    let first = house.shell("painted", script).await;
    shows(&first, "ready").await;
    let (screen, snapshot) = (first.screen(), first.snapshot());
    assert_eq!(screen.title, "titled");
    first.detach();
    let second = attached(house.launch(2).attach("painted").await);
    assert!(second.output_since(0).from > 0, "the beginning is gone");
    let rebuilt = second.screen();
    assert_eq!(rebuilt.title, "titled");
    assert_eq!((rebuilt.rows, rebuilt.cursor), (screen.rows, screen.cursor));
    let shown = |ansi: &[u8]| String::from_utf8_lossy(ansi).into_owned();
    assert!(shown(&snapshot.ansi).contains("\x1b[?2004h"));
    assert!(
        shown(&second.snapshot().ansi).contains("\x1b[?2004h"),
        "pastes are still wanted"
    );
    assert_eq!(second.painted_rows(), first.painted_rows());
    assert!(second.stop(GRACE).await.unwrap().is_proven());
}

#[tokio::test]
async fn an_exit_while_nobody_looks_is_kept_with_all_output() {
    let house = House::new();
    let go = house.file("go");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.01; done; seq 1 20000; echo bye; exit 7",
        go.display()
    );
    let first = house.shell("ended", &script).await;
    let pid = first.pid();
    drop(first);
    std::fs::write(&go, "").unwrap();
    until("the program has ended", || !lives(pid)).await;
    let second = attached(house.launch(2).attach("ended").await);
    assert_eq!(exit(&second).await.code, Some(7));
    assert!(second.screen().rows.iter().any(|row| row == "bye"));
    assert!(second.output_since(0).bytes.starts_with(b"1\r\n2\r\n3\r\n"));
    let mut viewer = second.subscribe(0);
    loop {
        if let Seen::Ended(exit) = viewer.next().await {
            assert_eq!(exit.code, Some(7));
            break;
        }
    }
    assert!(house.has_folder("ended"), "it is kept until it is released");
    assert!(second.stop(GRACE).await.unwrap().is_proven());
    assert!(!house.has_folder("ended"));
    assert!(gone(house.launch(3).attach("ended").await).contains("no folder"));
}

#[tokio::test]
async fn a_child_that_cleared_its_environment_and_left_its_parents_is_found() {
    let house = House::new();
    let script = "env -i setsid sh -c 'env -i setsid sh -c \"echo a=\\$\\$; exec sleep 31600\" & exit 0'; \
                  echo left; read x";
    let terminal = house.shell("escape", script).await;
    shows(&terminal, "a=").await;
    shows(&terminal, "left").await;
    let hidden = number(&terminal, "a");
    until("it belongs to the holder", || {
        let status = std::fs::read_to_string(format!("/proc/{hidden}/status")).unwrap();
        status.contains(&format!("PPid:\t{}\n", house.holder("escape")))
    })
    .await;
    let proof = terminal.stop(GRACE).await.unwrap();
    assert!(proof.is_proven(), "{proof:?}");
    assert!(
        proof.seen.iter().any(|process| process.pid == hidden),
        "{proof:?}"
    );
    assert!(!lives(hidden));
}

#[tokio::test]
async fn a_holder_that_is_killed_takes_its_tree_along_and_the_exit_is_unknown() {
    let house = House::new();
    let script = "trap '' HUP; setsid sh -c 'trap \"\" HUP; echo a=$$; exec sleep 31601' & echo all; wait";
    let terminal = house.shell("lost", script).await;
    shows(&terminal, "a=").await;
    shows(&terminal, "all").await;
    let child = number(&terminal, "a");
    signal(house.holder("lost"), Signal::KILL);
    let exit = exit(&terminal).await;
    assert_eq!((exit.code, exit.signal), (None, None));
    assert!(*terminal.lost().borrow());
    assert!(
        !lives(terminal.pid()) && !lives(child),
        "ended and proven before it was told"
    );
    assert!(terminal.stop(GRACE).await.unwrap().is_proven());
    assert!(!house.has_folder("lost"));
}

#[tokio::test]
async fn a_holder_told_to_end_ends_its_tree_with_or_without_a_core() {
    let house = House::new();
    let script = "setsid sh -c 'echo a=$$; exec sleep 31602' & echo all; wait";
    let terminal = house.shell("attended", script).await;
    let alone = house.shell("alone", script).await;
    for terminal in [&terminal, &alone] {
        shows(terminal, "a=").await;
        shows(terminal, "all").await;
    }
    let (child, root, other) = (number(&terminal, "a"), alone.pid(), number(&alone, "a"));
    drop(alone);
    let holders = [house.holder("attended"), house.holder("alone")];
    for holder in holders {
        signal(holder, Signal::TERM);
    }
    let told = exit(&terminal).await;
    assert_eq!(told.signal.as_deref(), Some("Terminated"));
    assert!(!*terminal.lost().borrow(), "it told us how it ended");
    until("both holders are gone", || {
        !holders.iter().any(|holder| lives(*holder))
    })
    .await;
    assert!(![child, root, other].iter().any(|pid| lives(*pid)));
    let why = gone(house.launch(2).attach("alone").await);
    assert!(why.contains("told to end") && why.contains("Terminated"), "{why}");
    assert!(!house.has_folder("alone"));
    assert!(terminal.stop(GRACE).await.unwrap().is_proven());
}

#[tokio::test]
async fn a_holder_to_which_nobody_comes_ends_its_program_after_its_patience() {
    let house = House::new();
    let holders = house.patient(1, Duration::from_millis(300));
    let terminal = holders
        .start(&plan("echo ready; exec sleep 31603"), "forgotten")
        .await
        .unwrap();
    shows(&terminal, "ready").await;
    let (pid, holder) = (terminal.pid(), house.holder("forgotten"));
    drop(terminal);
    until("the program has been ended", || !lives(pid)).await;
    until("the holder is gone", || !lives(holder)).await;
    let why = gone(house.launch(2).attach("forgotten").await);
    assert!(why.contains("nobody came"), "{why}");
}

#[tokio::test]
async fn the_length_of_a_path_does_not_matter() {
    let long = format!("{}/{}/{}", "x".repeat(90), "y".repeat(90), "z".repeat(40));
    let house = House::within(Path::new(&long));
    let terminal = house.shell("deep", "echo ready; read x").await;
    shows(&terminal, "ready").await;
    drop(terminal);
    let terminal = attached(house.launch(2).attach("deep").await);
    assert!(house.dir().as_os_str().len() > 200);
    assert_eq!(house.launch(2).tags().unwrap(), ["deep"]);
    assert!(terminal.stop(GRACE).await.unwrap().is_proven());
    assert!(house.launch(2).tags().unwrap().is_empty());
}

#[tokio::test]
async fn what_waits_for_a_holder_can_wait_on_any_thread() {
    fn sent<T: Send>(waiting: T) -> T {
        waiting
    }
    let house = House::new();
    let holders = house.launch(1);
    let terminal = sent(holders.start(&plan("echo ready; read x"), "sent"))
        .await
        .unwrap();
    shows(&terminal, "ready").await;
    sent(terminal.write("x")).await.unwrap();
    drop(terminal);
    let terminal = attached(sent(house.launch(2).attach("sent")).await);
    assert!(sent(terminal.stop(GRACE)).await.unwrap().is_proven());
}

#[test]
fn a_holder_says_its_version_and_its_protocol() {
    let output = Command::new(env!("CARGO_BIN_EXE_semo-holder"))
        .arg("--version")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.trim(), terminal::holder_version());
    assert!(
        said.starts_with("semo-holder ") && said.contains(" protocol 2"),
        "{said}"
    );
}

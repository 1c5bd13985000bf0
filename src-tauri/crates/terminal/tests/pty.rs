//! Real programs in real terminals, held by processes.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside a test function")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use terminal::{
    Holders, RING_BYTES_MAX, Seen, Size, SpawnSpec, Terminal, TerminalError, WRITE_BYTES_MAX, paint, run_once,
};
use tokio::time::{Instant, timeout};

/// Longest that any one step may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
const SIZE: Size = Size { cols: 80, rows: 24 };

/// Holders in a folder that is removed at the end of the test process.
fn holders() -> Holders {
    static DIR: std::sync::LazyLock<tempfile::TempDir> =
        std::sync::LazyLock::new(|| tempfile::tempdir().unwrap());
    let program = PathBuf::from(env!("CARGO_BIN_EXE_semo-holder"));
    Holders::of_processes(program, DIR.path().join("holders"), 1, LIMIT)
}

fn tag() -> String {
    static TAG: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = TAG.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("test-{}-{number}", std::process::id())
}

fn plan(script: &str) -> SpawnSpec {
    SpawnSpec {
        program: PathBuf::from("/bin/sh"),
        args: vec!["-c".into(), script.into()],
        cwd: PathBuf::from("/tmp"),
        env: vec![
            ("PATH".into(), "/usr/bin:/bin".into()),
            ("GREETING".into(), "hello".into()),
        ],
        size: SIZE,
    }
}

async fn shell(script: &str) -> Terminal {
    holders().start(&plan(script), &tag()).await.unwrap()
}

/// Waits until the screen shows `text`.
async fn shows(terminal: &Terminal, text: &str) {
    let mut changed = terminal.changed();
    let whole = async {
        while !terminal.screen().rows.iter().any(|row| row.contains(text)) {
            changed.changed().await.unwrap();
        }
    };
    let shown = timeout(LIMIT, whole).await;
    assert!(
        shown.is_ok(),
        "{text:?} is not on the screen: {:?}",
        terminal.screen().rows
    );
}

async fn exit_code(terminal: &Terminal) -> Option<i32> {
    let mut exited = terminal.exited();
    let exit = timeout(LIMIT, exited.wait_for(Option::is_some))
        .await
        .unwrap()
        .unwrap();
    exit.clone().unwrap().code
}

fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// The number behind `name=` on the screen.
fn number(terminal: &Terminal, name: &str) -> u32 {
    let rows = terminal.screen().rows;
    let value = rows.iter().find_map(|row| row.strip_prefix(&format!("{name}=")));
    value.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_program_sees_its_environment_and_nothing_else_and_its_exit_is_told() {
    let terminal = shell("env | cut -d= -f1 | sort | tr '\\n' ' '; exit 7").await;
    assert_eq!(exit_code(&terminal).await, Some(7));
    let names = terminal.screen().rows.join(" ");
    assert!(
        names.contains("GREETING") && names.contains("SEMO_TERMINAL"),
        "{names}"
    );
    assert!(!names.contains("CARGO"), "our own environment leaks: {names}");
}

#[tokio::test]
async fn typed_text_arrives_and_what_it_changes_is_seen() {
    let terminal = shell("stty -echo; echo ready; read line; echo \"got:$line:\"").await;
    shows(&terminal, "ready").await;
    let before = Instant::now();
    let written = terminal.write("안녕 semo\r").await.unwrap();
    assert!(before <= written.started && written.started <= written.finished);
    shows(&terminal, "got:안녕 semo:").await;
    assert_eq!(exit_code(&terminal).await, Some(0));
    let closed = terminal.write("late").await.unwrap_err();
    assert!(
        matches!(closed, TerminalError::Write { .. } | TerminalError::Closed { .. }),
        "{closed}"
    );
}

#[tokio::test]
async fn all_output_before_an_exit_is_there_when_the_exit_is_told() {
    for round in 0..8 {
        let terminal = shell("stty -opost; head -c 700000 /dev/zero | tr '\\0' x; printf THE-END").await;
        assert_eq!(exit_code(&terminal).await, Some(0));
        let output = terminal.output_since(0);
        assert_eq!(output.end, 700_007, "round {round}");
        assert!(output.bytes.ends_with(b"xTHE-END"), "round {round}");
    }
}

#[tokio::test]
async fn a_flood_is_followed_without_loss_or_the_viewer_is_told_of_the_gap() {
    let lines = 100_000;
    let terminal = shell(&format!("stty -opost; seq 1 {lines}")).await;
    let expected: u64 = (1..=lines).map(|n: u64| n.to_string().len() as u64 + 1).sum();
    let mut viewer = terminal.subscribe(0);
    let (mut position, mut lagged) = (0, 0);
    let end = timeout(LIMIT, async {
        loop {
            match viewer.next().await {
                Seen::Chunk { offset, bytes } => {
                    assert!(offset == position || lagged > 0, "bytes were left out silently");
                    position = offset + bytes.len() as u64;
                }
                Seen::Lagged => lagged += 1,
                Seen::Ended(exit) => return exit,
            }
        }
    });
    assert_eq!(end.await.unwrap().code, Some(0));
    assert_eq!(position, expected);
    assert_eq!(
        terminal.screen().rows[SIZE.rows as usize - 2].trim(),
        lines.to_string()
    );
}

#[tokio::test]
async fn a_viewer_that_slept_is_told_so_and_catches_up_from_a_snapshot() {
    let terminal = shell("stty -opost; echo first; read x; head -c 6000000 /dev/zero | tr '\\0' y; printf '\\r\\nlast'; read x",
    ).await;
    let mut sleeper = terminal.subscribe(0);
    assert!(matches!(sleeper.next().await, Seen::Chunk { offset: 0, .. }));
    shows(&terminal, "first").await;
    terminal.write("\r").await.unwrap();
    shows(&terminal, "last").await;
    assert_eq!(sleeper.next().await, Seen::Lagged);
    let kept = terminal.output_since(0);
    assert_eq!(kept.bytes.len(), RING_BYTES_MAX);
    assert_eq!(kept.from, kept.end - RING_BYTES_MAX as u64);
    let snapshot = terminal.snapshot();
    let mut late = terminal.subscribe(snapshot.offset);
    assert_eq!(paint(snapshot.size, &snapshot.ansi).rows, terminal.screen().rows);
    terminal.write("\r").await.unwrap();
    // What the terminal itself echoes comes first; then the end.
    let end = timeout(LIMIT, async {
        loop {
            match late.next().await {
                Seen::Chunk { offset, .. } => assert!(offset >= snapshot.offset),
                Seen::Lagged => panic!("nothing was lost"),
                Seen::Ended(exit) => return exit,
            }
        }
    });
    assert_eq!(end.await.unwrap().code, Some(0));
}

#[tokio::test]
async fn a_new_size_reaches_the_program_and_the_screen() {
    let terminal = shell("trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done").await;
    shows(&terminal, "ready").await;
    terminal.resize(Size { cols: 132, rows: 43 }).unwrap();
    shows(&terminal, "43 132").await;
    assert_eq!(terminal.size(), Size { cols: 132, rows: 43 });
    terminal
        .resize(Size {
            cols: 0,
            rows: 60_000,
        })
        .unwrap();
    assert_eq!(
        terminal.size(),
        Size { cols: 2, rows: 1000 },
        "nonsense is brought into bounds"
    );
    assert!(terminal.stop(Duration::ZERO).await.unwrap().is_proven());
}

#[tokio::test]
async fn a_stop_reaches_children_that_hid_in_sessions_of_their_own() {
    let terminal = shell(
        "setsid sh -c 'echo a=$$; trap \"\" TERM; sleep 31536' & \
         sh -c 'setsid sh -c \"echo b=\\$\\$; sleep 31537\" & sleep 0.2' ; \
         echo all; wait",
    )
    .await;
    shows(&terminal, "a=").await;
    shows(&terminal, "b=").await;
    shows(&terminal, "all").await;
    let (stubborn, orphan) = (number(&terminal, "a"), number(&terminal, "b"));
    assert!(lives(stubborn) && lives(orphan) && lives(terminal.pid()));
    let proof = terminal.stop(Duration::from_millis(300)).await.unwrap();
    assert!(proof.is_proven(), "{proof:?}");
    assert!(!lives(stubborn) && !lives(orphan) && !lives(terminal.pid()));
    assert!(
        proof.killed.iter().any(|process| process.pid == stubborn),
        "{proof:?}"
    );
    assert!(
        proof.seen.iter().any(|process| process.pid == orphan),
        "an orphan is found by its tag: {proof:?}"
    );
    assert_eq!(
        terminal.stop(Duration::ZERO).await.unwrap(),
        proof,
        "a second stop proves the same"
    );
    assert!(terminal.exited().borrow().is_some());
}

#[tokio::test]
async fn an_exit_is_told_although_a_child_holds_the_terminal_open() {
    let terminal = shell("setsid sh -c 'trap \"\" HUP; echo a=$$; sleep 31538' & sleep 0.3; exit 3").await;
    shows(&terminal, "a=").await;
    let child = number(&terminal, "a");
    assert_eq!(exit_code(&terminal).await, Some(3));
    assert!(lives(child), "the child outlives its parent");
    assert!(terminal.stop(Duration::from_secs(1)).await.unwrap().is_proven());
    assert!(!lives(child));
}

#[tokio::test]
async fn a_terminal_of_this_process_that_is_dropped_leaves_nothing_running() {
    let on_thread = Holders::in_this_process();
    let terminal = on_thread
        .start(&plan("echo a=$$; sleep 31539"), &tag())
        .await
        .unwrap();
    shows(&terminal, "a=").await;
    let pid = number(&terminal, "a");
    drop(terminal);
    let deadline = Instant::now() + LIMIT;
    while lives(pid) {
        assert!(Instant::now() < deadline, "process {pid} still runs");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn hostile_output_harms_neither_screen_nor_title() {
    let long = "t".repeat(5_000);
    let terminal = shell(&format!(
        "printf '\\033]0;%s\\007' {long}; printf '\\033]52;c;aGk=\\007\\377\\376\\300after\\033[999999999;1Hend'"
    )).await;
    assert_eq!(exit_code(&terminal).await, Some(0));
    let screen = terminal.screen();
    assert!(screen.title.chars().count() <= terminal::TITLE_CHARS_MAX && screen.title.starts_with("ttt"));
    assert!(screen.rows[0].contains("after"), "{:?}", screen.rows);
    assert!(
        screen
            .rows
            .iter()
            .all(|row| !row.contains("aGk") && !row.chars().any(char::is_control))
    );
    let raw = terminal.output_since(0).bytes;
    assert!(
        raw.windows(3).any(|bytes| bytes == b"\xff\xfe\xc0"),
        "bytes to viewers are untouched"
    );
}

#[test]
fn output_that_makes_the_engine_panic_costs_a_repaint_and_nothing_else() {
    // A warning sign widened on the last cell of the last row scrolls the screen under the engine's feet; drawing
    // over those rows then breaks it.
    let mut output = b"\x1b[24;1H".to_vec();
    output.extend("x".repeat(79).bytes());
    output.extend("\u{26a0}\u{fe0f}".bytes());
    for row in 1..=24 {
        output.extend(format!("\x1b[{row};1H").bytes());
        output.extend("y".repeat(80).bytes());
    }
    // At the panic a few bytes are lost, but what the program draws from then on is there.
    output.extend(".".repeat(200).bytes());
    output.extend(b"\x1b[2J\x1b[3;1Hdrawn anew".iter());
    let screen = paint(SIZE, &output);
    assert_eq!(screen.rows[2], "drawn anew", "{:?}", screen.rows);
    assert_eq!(screen.offset, output.len() as u64);
}

#[test]
fn no_output_and_no_size_gets_a_panic_out_of_a_screen() {
    // Escape soup from a small fixed generator: the same on every machine.
    let pieces: [&[u8]; 16] = [
        b"\x1b[H",
        b"\x1b[2J",
        b"\x1b[?1049h",
        b"\x1b[?1049l",
        b"\x1b[5;3r",
        b"\x1b[r",
        b"\x1bM",
        b"\r\n",
        b"\x1b[10L",
        b"\x1b[3M",
        "\u{26a0}\u{fe0f}".as_bytes(),
        "가나다".as_bytes(),
        "👨‍👩‍👧".as_bytes(),
        b"\xff\x9b",
        b"abc",
        b"\x1b[999C",
    ];
    let mut seed = 0x9e37_79b9_u32;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        seed as usize
    };
    for case in 0..400 {
        let size = Size {
            cols: (next() % 40) as u16,
            rows: (next() % 12) as u16,
        };
        let output: Vec<u8> = (0..200)
            .flat_map(|_| pieces[next() % pieces.len()].to_vec())
            .collect();
        let screen = paint(size, &output);
        assert_eq!(screen.offset, output.len() as u64, "case {case}");
    }
}

#[tokio::test]
async fn what_cannot_be_started_says_what_and_why() {
    let mut spec = SpawnSpec {
        program: PathBuf::from("/nonexistent/claude"),
        args: vec![],
        cwd: PathBuf::from("/tmp"),
        env: vec![("SECRET".into(), "hush".into())],
        size: SIZE,
    };
    let error = holders().start(&spec, &tag()).await.err().unwrap().to_string();
    assert!(
        error.contains("/nonexistent/claude") && error.contains("/tmp"),
        "{error}"
    );
    spec.program = PathBuf::from("/bin/sh");
    spec.cwd = PathBuf::from("/nonexistent");
    let error = holders().start(&spec, &tag()).await.err().unwrap().to_string();
    assert!(error.contains("working folder does not exist"), "{error}");
    assert!(!format!("{spec:?}").contains("hush"));
}

#[tokio::test]
async fn a_write_has_a_limit() {
    let terminal = shell("sleep 31540").await;
    let error = terminal.write(vec![b'x'; WRITE_BYTES_MAX + 1]).await.unwrap_err();
    assert!(matches!(error, TerminalError::TooMuch { .. }), "{error}");
    assert!(terminal.stop(Duration::from_secs(1)).await.unwrap().is_proven());
}

#[tokio::test]
async fn a_program_is_run_once_with_bounded_output_and_time() {
    let env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    let sh = Path::new("/bin/sh");
    let output = run_once(sh, &["-c", "echo out; echo err >&2; exit 4"], &env, LIMIT)
        .await
        .unwrap();
    assert_eq!(
        (output.code, output.stdout.as_str(), output.stderr.as_str()),
        (Some(4), "out\n", "err\n")
    );
    let flood = run_once(sh, &["-c", "head -c 5000000 /dev/zero"], &env, LIMIT)
        .await
        .unwrap();
    assert_eq!(flood.stdout.len() as u64, terminal::ONCE_OUTPUT_BYTES_MAX);
    let hung = run_once(sh, &["-c", "exec sleep 31541"], &env, Duration::from_millis(200)).await;
    assert!(matches!(hung, Err(TerminalError::TimedOut { .. })), "{hung:?}");
    let missing = run_once(Path::new("/nonexistent/x"), &[], &env, LIMIT).await;
    assert!(matches!(missing, Err(TerminalError::Spawn { .. })), "{missing:?}");
}

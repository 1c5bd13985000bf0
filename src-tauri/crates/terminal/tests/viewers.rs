//! Many who look at one terminal, each at its own pace; and how much memory its programs take.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use terminal::{Holders, Seen, Size, SpawnSpec, Terminal, memory_of};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);
const SIZE: Size = Size { cols: 100, rows: 30 };
const VIEWERS: u64 = 24;

async fn shell(script: &str, tag: &str) -> Terminal {
    let spec = SpawnSpec {
        program: PathBuf::from("/bin/sh"),
        args: vec!["-c".into(), script.into()],
        cwd: PathBuf::from("/tmp"),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        size: SIZE,
    };
    Holders::in_this_process()
        .start(&spec, tag)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

/// A viewer with a terminal of its own: snapshot, then the output that follows it, and a snapshot again whenever it
/// was too slow. It looks only when it is `behind` bytes behind, or when the program has ended. Returns the rows it
/// shows at the end, and how often it had to begin anew.
async fn view(terminal: Terminal, behind: u64) -> (Vec<String>, u32) {
    let (mut changed, mut exited) = (terminal.changed(), terminal.exited());
    let side = |cells| NonZeroU16::new(cells).unwrap_or(NonZeroU16::MIN);
    let mut began = 0;
    'anew: loop {
        began += 1;
        let snapshot = terminal.snapshot();
        let mut screen = vt100::Parser::new(side(snapshot.size.rows), side(snapshot.size.cols), 0);
        screen.process(&snapshot.ansi);
        let mut subscription = terminal.subscribe(snapshot.offset);
        let mut at = snapshot.offset;
        loop {
            match subscription.next().await {
                Seen::Chunk { offset, bytes } => {
                    assert_eq!(offset, at, "no hole and no repetition");
                    at += bytes.len() as u64;
                    screen.process(&bytes);
                    tokio::select! {
                        _ = changed.wait_for(|end| *end >= at + behind) => {}
                        _ = exited.wait_for(Option::is_some) => {}
                    }
                }
                Seen::Lagged => continue 'anew,
                Seen::Ended(_) => {
                    let rows = screen.screen().rows(0, SIZE.cols);
                    return (rows.map(|row| row.trim_end().to_owned()).collect(), began);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_of_every_pace_end_with_the_same_screen_and_none_slows_the_program() {
    let script = "i=0; while [ $i -lt 300 ]; do printf '\\033[3%dmround %d\\033[m ' $((i % 8)) $i; seq 1 6000; i=$((i+1)); done; \
                  printf '\\033[5;10Hthe end'";
    let terminal = shell(script, &format!("viewers-{}", std::process::id())).await;
    let mut viewers = tokio::task::JoinSet::new();
    for n in 0..VIEWERS {
        // From as fast as it goes to hopelessly slow.
        viewers.spawn(view(terminal.clone(), n * n * 16 * 1024));
    }
    let mut exited = terminal.exited();
    let exit = timeout(LIMIT, exited.wait_for(Option::is_some)).await;
    assert!(exit.is_ok(), "the slow ones hold the program up");
    let shown = timeout(LIMIT, viewers.join_all()).await;
    let shown = shown.unwrap_or_default();
    assert_eq!(shown.len() as u64, VIEWERS);
    let wanted = terminal.screen().rows;
    assert!(wanted.iter().any(|row| row.contains("the end")));
    for (rows, _) in &shown {
        assert_eq!(rows, &wanted);
    }
    assert!(
        shown.iter().any(|(_, began)| *began > 1),
        "nobody was slow enough for this test"
    );
}

#[tokio::test]
async fn the_memory_of_a_terminal_is_that_of_its_whole_tree_wherever_that_hid() {
    let tag = format!("memory-{}", std::process::id());
    // A child of a session of its own holds 60 MB; its parent has gone.
    let hog = "head -c 60000000 /dev/zero | tail -c 60000000 | (sleep 600; cat) >/dev/null";
    let terminal = shell(
        &format!("setsid sh -c '{hog}' & echo ready; exec sleep 600"),
        &tag,
    )
    .await;
    let nobody = format!("nobody-{tag}");
    let look = async {
        loop {
            let memory = memory_of(vec![tag.clone(), nobody.clone()])
                .await
                .unwrap_or_default();
            if let Some(tree) = memory.get(&tag).filter(|tree| tree.bytes > 55_000_000) {
                assert!(!memory.contains_key(&nobody));
                break *tree;
            }
            // Each look is one over all processes of the machine, on a thread of its own: this is no busy loop.
            tokio::task::yield_now().await;
        }
    };
    let tree = timeout(LIMIT, look).await;
    let tree = tree.unwrap_or_default();
    assert!(tree.processes >= 3 && tree.bytes < 400_000_000, "{tree:?}");
    let proof = terminal.stop(Duration::from_millis(100)).await;
    assert!(proof.is_ok_and(|proof| proof.is_proven()));
    let after = memory_of(vec![tag]).await.unwrap_or_default();
    assert!(after.is_empty(), "{after:?}");
}

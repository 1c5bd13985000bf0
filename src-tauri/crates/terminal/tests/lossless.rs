//! Not a byte is lost, also of a program that prints its last words and is gone.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside a test function")]

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use terminal::{Holders, Seen, Size, SpawnSpec};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);
/// More than the ring keeps, so that only who follows sees it all.
const FILE_BYTES: usize = 8 * 1024 * 1024;
const RUNS: u32 = 10;

/// Numbered lines: a hole or a repetition anywhere shows. No line ends that the terminal would turn into two bytes.
fn content() -> Vec<u8> {
    let mut text = Vec::with_capacity(FILE_BYTES);
    let mut n = 0;
    while text.len() < FILE_BYTES {
        text.extend(format!("{n:015x}\t").bytes());
        n += 1;
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_program_wrote_before_its_exit_arrives_whole_every_time() {
    let wanted = content();
    let mut file = tempfile();
    file.1.write_all(&wanted).unwrap();
    for run in 0..RUNS {
        let spec = SpawnSpec {
            program: PathBuf::from("/bin/cat"),
            args: vec![file.0.display().to_string()],
            cwd: PathBuf::from("/tmp"),
            env: Vec::new(),
            size: Size { cols: 120, rows: 40 },
        };
        let terminal = Holders::in_this_process()
            .start(&spec, &format!("lossless-{}-{run}", std::process::id()))
            .await
            .unwrap();
        let mut subscription = terminal.subscribe(0);
        let mut at = 0;
        let mut lagged = false;
        let whole = async {
            loop {
                match subscription.next().await {
                    Seen::Chunk { offset, bytes } => {
                        let from = usize::try_from(offset).unwrap();
                        assert!(lagged || from == at, "run {run}: a hole at {at}");
                        assert_eq!(
                            &wanted[from..from + bytes.len()],
                            &bytes[..],
                            "run {run}, offset {from}"
                        );
                        at = from + bytes.len();
                        lagged = false;
                    }
                    Seen::Lagged => lagged = true,
                    Seen::Ended(exit) => break exit,
                }
            }
        };
        let exit = timeout(LIMIT, whole).await.unwrap();
        assert_eq!(exit.code, Some(0));
        assert_eq!(at, wanted.len(), "run {run}: the end is missing");
        let kept = terminal.output_since(0);
        assert_eq!(kept.end, wanted.len() as u64);
        assert!(wanted.ends_with(&kept.bytes));
    }
    std::fs::remove_file(file.0).unwrap();
}

fn tempfile() -> (PathBuf, std::fs::File) {
    let path = std::env::temp_dir().join(format!("semo-lossless-{}", std::process::id()));
    let file = std::fs::File::create(&path).unwrap();
    (path, file)
}

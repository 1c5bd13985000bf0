//! The system itself refuses to let a file grow, at every size: the log, the index and the file are hit in turn. A
//! process of its own, because the limit is one of the whole process.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use domain::{CommandId, OfficeId, Timestamp};
use journal::{Journal, JournalError, NewCommand, Received};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use uuid::Uuid;

const NOW: Timestamp = Timestamp(1_795_219_200_000);

fn command(n: u128) -> NewCommand {
    NewCommand {
        id: CommandId(Uuid::from_u128(n)),
        office: OfficeId(Uuid::from_u128(1)),
        agent: None,
        session: None,
        kind: "send_prompt".into(),
        args: json!({ "prompt": "x".repeat(9_000) }),
        attempt: 1,
        lease_token: Uuid::from_u128(2),
        claimed: Value::Null,
    }
}

fn limit(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    let current = bytes.or(maximum);
    setrlimit(Resource::Fsize, Rlimit { current, maximum }).unwrap();
}

#[test]
fn no_size_at_which_the_system_stops_a_file_loses_a_row_or_keeps_half_of_one() {
    // Signal 25 is SIGXFSZ. Without a handler it end the process instead of failing the write.
    signal_hook::flag::register(25, Arc::new(AtomicBool::new(false))).unwrap();
    let mut refused = 0;
    let mut accepted = 0;
    for step in 0..60 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let journal = Journal::open(&path).unwrap();
        let mut written = Vec::new();
        limit(Some(step * 7_000));
        for n in 10..20 {
            match journal.receive(&command(n), NOW) {
                Ok(received) => {
                    assert_eq!(received, Received::New);
                    written.push(Uuid::from_u128(n));
                    accepted += 1;
                }
                Err(error) => {
                    assert!(
                        matches!(error, JournalError::Device { .. } | JournalError::DiskFull { .. }),
                        "{error:?}"
                    );
                    refused += 1;
                }
            }
        }
        limit(None);
        let rows = |journal: &Journal| -> Vec<Uuid> {
            let rows = journal.unfinished().unwrap();
            rows.into_iter().map(|row| row.command.id.0).collect()
        };
        assert_eq!(rows(&journal), written, "limit {step}");
        assert_eq!(journal.receive(&command(99), NOW).unwrap(), Received::New);
        written.push(Uuid::from_u128(99));
        drop(journal);
        assert_eq!(rows(&Journal::open(&path).unwrap()), written, "limit {step}");
    }
    assert!(
        refused > 50 && accepted > 50,
        "{refused} refused, {accepted} accepted"
    );
}

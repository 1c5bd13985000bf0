//! What a start costs that finds a journal of the core before it, and what single calls cost.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench that cannot set up has nothing to measure; criterion's macros make undocumented items"
)]

use std::hint::black_box;
use std::path::{Path, PathBuf};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use domain::session::SessionState;
use domain::turn::TurnStage;
use domain::{AgentId, CommandId, OfficeId, ResultId, SessionId, Timestamp, TurnId};
use journal::{Acknowledgement, Finish, Journal, NewCommand, NewResult, NewTurn, ResultStatus, SessionRow};
use serde_json::json;
use uuid::Uuid;

const NOW: Timestamp = Timestamp(1_795_219_200_000);
const SESSIONS: u128 = 6;
/// Length of a prompt and of a final message, in characters.
const TEXT: usize = 2_000;

fn command(n: u128) -> NewCommand {
    let args = json!({ "prompt": "p".repeat(TEXT) });
    NewCommand {
        id: CommandId(Uuid::from_u128(n)),
        office: OfficeId(Uuid::from_u128(1)),
        agent: Some(AgentId(Uuid::from_u128(2))),
        session: None,
        kind: "send_prompt".into(),
        claimed: json!({ "seq": 7, "args": args }),
        args,
        attempt: 1,
        lease_token: Uuid::from_u128(3),
    }
}

fn session(n: u128) -> SessionRow {
    SessionRow {
        id: SessionId(Uuid::from_u128(n)),
        office: OfficeId(Uuid::from_u128(1)),
        agent: AgentId(Uuid::from_u128(2)),
        title: "Mina".into(),
        repository: "sample".into(),
        worktree: PathBuf::from("/w/fe-1"),
        branch: "semo/fe-1".into(),
        base: None,
        state: SessionState::Idle,
        started_at: NOW,
        ended_at: None,
        detail: json!({ "secret": "s".repeat(64), "conversation": "c".repeat(36) }),
    }
}

fn finish(n: u128) -> Finish {
    Finish {
        command: CommandId(Uuid::from_u128(n)),
        result: NewResult {
            id: ResultId(Uuid::from_u128(n + 1_000_000)),
            status: ResultStatus::Succeeded,
            outcome: Some("done".into()),
            output: Some(json!({ "final_message": "m".repeat(TEXT) })),
            error: None,
            evidence: Some(json!({ "rule": "stop-with-marker" })),
            timings: None,
        },
        turn: None,
    }
}

/// A journal with so many commands, of which the newest `open` have not ended; half of those run.
fn filled(path: &Path, commands: u128, open: u128) -> Journal {
    let journal = Journal::open(path).unwrap();
    for n in 0..SESSIONS {
        journal.save_session(&session(500 + n)).unwrap();
    }
    for n in 1_000..1_000 + commands {
        journal.receive(&command(n), NOW).unwrap();
        if n < 1_000 + commands - open {
            journal.finish(&finish(n), NOW).unwrap();
            let result = ResultId(Uuid::from_u128(n + 1_000_000));
            journal
                .acknowledge(result, Acknowledgement::Recorded, NOW)
                .unwrap();
        } else if n % 2 == 0 {
            journal.mark_started(CommandId(Uuid::from_u128(n)), NOW).unwrap();
            let turn = NewTurn {
                id: TurnId(Uuid::from_u128(n)),
                session: SessionId(Uuid::from_u128(500 + n % SESSIONS)),
                command: Some(CommandId(Uuid::from_u128(n))),
                prompt_sha256: "00".repeat(32),
                request: json!({ "prompt": "p".repeat(TEXT) }),
            };
            journal.start_turn(&turn, NOW).unwrap();
            journal
                .set_turn_stage(turn.id, TurnStage::Taken, Some(&json!({ "offset": 7 })), NOW)
                .unwrap();
        }
    }
    journal
}

/// All that a start reads before it decides anything.
fn start(path: &Path) -> usize {
    let journal = Journal::open(path).unwrap();
    journal.launch(NOW).unwrap();
    let sessions = journal.open_sessions().unwrap().len();
    let turns = journal.open_turns().unwrap().len();
    let commands = journal.unfinished().unwrap().len();
    let due = journal.due(None, NOW, 20).unwrap().len();
    sessions + turns + commands + due
}

fn recover(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recover");
    group.sample_size(20);
    for (name, commands) in [
        ("1,000 commands, 100 open", 1_000),
        ("5,000 commands, 100 open", 5_000),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        drop(filled(&path, commands, 100));
        group.bench_function(name, |bencher| bencher.iter(|| black_box(start(&path))));
    }
    // As kill -9 leaves it: with its log, which is read first.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let running = filled(&path, 1_000, 100);
    let copy = tempfile::tempdir().unwrap();
    let target = copy.path().join("journal.db");
    let lay_out = || {
        for part in ["", "-wal"] {
            let name = format!("journal.db{part}");
            std::fs::copy(dir.path().join(&name), copy.path().join(&name)).unwrap();
        }
        let _ = std::fs::remove_file(copy.path().join("journal.db-shm"));
    };
    group.bench_function("1,000 commands, 100 open, after kill -9", |bencher| {
        bencher.iter_batched(lay_out, |()| black_box(start(&target)), BatchSize::PerIteration);
    });
    group.finish();
    drop(running);
}

fn calls(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal");
    group.sample_size(20);
    let dir = tempfile::tempdir().unwrap();
    let journal = filled(&dir.path().join("journal.db"), 1_000, 100);
    let mut n = 10_000_000;
    group.bench_function("receive (durable)", |bencher| {
        bencher.iter(|| {
            n += 1;
            journal.receive(&command(n), NOW).unwrap()
        });
    });
    let id = SessionId(Uuid::from_u128(500));
    group.bench_function("state of a session (not durable)", |bencher| {
        bencher.iter(|| journal.set_session_state(id, &SessionState::Idle, NOW).unwrap());
    });
    group.bench_function("overview of 100", |bencher| {
        bencher.iter(|| black_box(journal.overview(100).unwrap().commands.len()));
    });
    group.finish();
}

criterion_group!(benches, recover, calls);
criterion_main!(benches);
